/* SPDX-License-Identifier: MIT */
/* alloc/slab.h: cells of tasks: a few instructions to get one, a few to give it back.
 *
 * A slab has one owner at a time: a worker, or whoever holds the lock of a node's stripe for
 * foreign threads.  Only the owner allocates, frees locally, drains and walks; no atomics, no lock.
 * Any other thread gives a cell back through the home slab's lock-free list, best in batches
 * (struct nio_slab_outbox), and the owner takes the list when it runs out.  So a cell always goes
 * back to the memory of its node, and never into another node's cache.
 *
 * A cell is aligned to a cache line.  CONTRACT on its contents: the first 8 bytes of a free or
 * never used cell are 0; a live cell's owner keeps something other than 0 there (the task's state
 * word, atomically).  Freeing stores the 0.  nio_slab_for_each_live() finds the live cells by
 * that word alone, so that no list is kept on spawn and exit.  The next 8 bytes of a free cell are
 * the slab's link; the rest is not touched (and poisoned in ASan builds).
 *
 * Layout of a chunk, 64 KiB apart, one size class each (larger cells: a chunk of their own):
 *
 *   base                    base + 1 KiB                                      base + 56 KiB
 *   | .. header (128 B) .. | cell | cell | cell | ... carved | never touched ... |
 *
 * The header's place within the first KiB depends on the address: were it the same everywhere,
 * all headers would fall into the same set of the CPU's caches, and nine chunks would be enough to
 * throw each other out.
 */
#ifndef NIO_ALLOC_SLAB_H
#define NIO_ALLOC_SLAB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "alloc/node_arena.h"
#include "alloc/poison.h"
#include "runtime/base/assert.h"
#include "runtime/base/compiler.h"
#include "runtime/base/mpsc.h"

enum {
    NIO_SLAB_CHUNK_STRIDE = 64 << 10, /* chunks are aligned to this */
    NIO_SLAB_CHUNK_BYTES = 56 << 10,  /* and this big: see slab.c */
    NIO_SLAB_CELLS_OFFSET = 1 << 10,
    NIO_SLAB_HEADER_BYTES = 128,
    NIO_SLAB_CLASSES = 14,
    NIO_SLAB_LARGE = NIO_SLAB_CLASSES, /* the class of cells with a chunk of their own */
    NIO_SLAB_CELL_MAX = 4096,          /* the largest cell that shares a chunk */
#ifdef NIO_TINY
    NIO_SLAB_EMPTY_MAX = 1,
    NIO_SLAB_OUTBOX_MAX = 3
#else
    NIO_SLAB_EMPTY_MAX = 64, /* empty chunks kept for the next burst: 4 MiB */
    NIO_SLAB_OUTBOX_MAX = 32 /* cells per batch of remote frees */
#endif
};

/* A cell as the slab sees it. */
struct nio_slab_cell {
    _Atomic uint64_t word; /* live: not 0 */
    union {
        struct nio_slab_cell *next;  /* in a chunk's free list */
        struct nio_mpsc_node remote; /* on the way home */
    };
};

enum nio_slab_state {
    NIO_SLAB_CURRENT, /* cells are taken from it */
    NIO_SLAB_PARTIAL, /* has live and free cells */
    NIO_SLAB_FULL,    /* all cells are live */
    NIO_SLAB_EMPTY    /* no cell is live, belongs to no class */
};

struct nio_slab_chunk {
    /* constant while a cell is live; read by every thread that frees one */
    NIO_CACHE_ALIGNED struct nio_slab *home;
    uint32_t class_index;
    uint32_t cell_bytes;
    size_t bytes; /* as allocated from the arena */
    char *cells_end;
    /* owner only */
    NIO_CACHE_ALIGNED struct nio_slab_cell *free;
    /* Reaches 0 exactly when the owner must act: the live cells of a PARTIAL chunk; one more in
     * the CURRENT one, which stays even when it is empty; 1 in a FULL one, so that the first free
     * is noticed (`hidden` has the others). */
    uint32_t live;
    uint32_t hidden;
    char *carved_end; /* cells from here on were never used */
    struct nio_slab_chunk *next, *prev;
    enum nio_slab_state state;
};

/* The heads of doubly linked lists of chunks. */
struct nio_slab_list {
    struct nio_slab_chunk *first;
};

struct nio_slab {
    /* owner only */
    NIO_CACHE_ALIGNED struct nio_slab_chunk *current[NIO_SLAB_CLASSES]; /* never NULL */
    struct nio_slab_list partial[NIO_SLAB_CLASSES];
    struct nio_slab_list full; /* of all classes, the large ones, too */
    struct nio_slab_list empty;
    uint32_t empty_count;
    uint32_t chunk_count;         /* all chunks, with the empty ones */
    bool is_walking;              /* chunks stay where they are */
    struct nio_node_arena *arena; /* constant after init */
    /* any thread, RMW */
    NIO_CACHE_ALIGNED struct nio_mpsc remote;
};

/* Cells that a thread frees for other slabs, chained until they are worth a CAS.  Its thread
 * only. */
struct nio_slab_outbox {
    struct nio_slab *home; /* NULL: nothing in it */
    struct nio_mpsc_node *first, *last;
    unsigned count;
};

struct nio_slab_stats {
    uint32_t chunks;       /* from the arena, with the empty ones */
    uint32_t empty_chunks; /* kept for the next burst */
    uint64_t cells_live;   /* with those that wait in the remote list */
};

/* Size class of (bytes + 63) / 64 lines: 64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024,
 * 1536, 2048, 4096 bytes. */
static const uint8_t nio_slab_class_of_lines[NIO_SLAB_CELL_MAX / 64 + 1] = {
    0,  0,  1,  2,  3,  4,  5,  6,  7,  8,  8,  9,  9,  10, 10, 10, 10, 11, 11, 11, 11, 11,
    11, 11, 11, 12, 12, 12, 12, 12, 12, 12, 12, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13,
    13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13
};

/* Prepares a slab without chunks; `arena` must outlive it.
 * Errors: none; the status is for the symmetry with other inits. */
NIO_NODISCARD int nio_slab_init(struct nio_slab *slab, struct nio_node_arena *arena);
/* Asserts that all cells are free (drains first) and gives the chunks back.  No outbox may hold a
 * cell of this slab any more. */
void nio_slab_fini(struct nio_slab *slab);

/* Takes what other threads have freed; returns how many cells that were.  Owner only. */
unsigned nio_slab_drain(struct nio_slab *slab);

/* Drains, then calls fn for every cell whose first word is not 0.  fn may free cells of this slab,
 * but not allocate from it.  Another thread may free a cell while fn looks at it: its memory
 * stays, as only the owner reuses it, but its first word turns 0; fn must take a reference
 * atomically, from a word that is not 0, or leave the cell alone.  Owner only. */
void nio_slab_for_each_live(struct nio_slab *slab, void (*fn)(void *cell, void *arg), void *arg);

/* Owner only; walks the chunks. */
void nio_slab_stats(const struct nio_slab *slab, struct nio_slab_stats *ret_stats);
/* Aborts when an invariant does not hold.  Owner only, for tests. */
void nio_slab_check(const struct nio_slab *slab);

/* The slow halves of the inline functions. */
void *nio_slab_alloc_slow(struct nio_slab *slab, unsigned class_index);
void *nio_slab_alloc_large(struct nio_slab *slab, size_t bytes);
void nio_slab_free_slow(struct nio_slab *slab, struct nio_slab_chunk *chunk);

static inline struct nio_slab_chunk *nio_slab_chunk_of(const void *cell)
{
    uintptr_t base = (uintptr_t)cell & ~(uintptr_t)(NIO_SLAB_CHUNK_STRIDE - 1);
    uintptr_t place = (base / (NIO_SLAB_CHUNK_STRIDE / NIO_SLAB_HEADER_BYTES)) &
                      (NIO_SLAB_CELLS_OFFSET - NIO_SLAB_HEADER_BYTES);
    return (struct nio_slab_chunk *)(base + place);
}

/* The slab that `cell` came from.  Any thread that holds the cell. */
static inline struct nio_slab *nio_slab_of(const void *cell)
{
    return nio_slab_chunk_of(cell)->home;
}

/* How many bytes of `cell` may be used.  Any thread that holds the cell. */
static inline size_t nio_slab_usable_bytes(const void *cell)
{
    return nio_slab_chunk_of(cell)->cell_bytes;
}

/* A cell of at least `bytes`, first word 0, the rest undefined.  NULL when there is no memory.
 * Owner only. */
static inline void *nio_slab_alloc(struct nio_slab *slab, size_t bytes)
{
    if (NIO_UNLIKELY(bytes > NIO_SLAB_CELL_MAX))
        return nio_slab_alloc_large(slab, bytes);
    unsigned class_index = nio_slab_class_of_lines[(bytes + 63) / 64];
    struct nio_slab_chunk *chunk = slab->current[class_index];
    struct nio_slab_cell *cell = chunk->free;
    if (NIO_UNLIKELY(!cell))
        return nio_slab_alloc_slow(slab, class_index);
    chunk->free = cell->next;
    chunk->live++;
    nio_unpoison(cell, chunk->cell_bytes);
    return cell;
}

/* Zeroes the first word, so that a walk no longer sees the cell. */
static inline void nio_slab_clear(struct nio_slab_cell *cell)
{
    /* relaxed: a walk that still sees the old word must cope anyway (nio_slab_for_each_live()),
     * and reuse is ordered by the owner's own program order or by [BM1] */
    atomic_store_explicit(&cell->word, 0, memory_order_relaxed);
    nio_poison(cell + 1, nio_slab_usable_bytes(cell) - sizeof *cell);
}

/* Gives back a cell of one's own slab.  Owner only. */
static inline void nio_slab_free_local(struct nio_slab *slab, void *memory)
{
    struct nio_slab_cell *cell = memory;
    struct nio_slab_chunk *chunk = nio_slab_chunk_of(cell);
    NIO_DEBUG_ASSERT(chunk->home == slab);
    nio_slab_clear(cell);
    cell->next = chunk->free;
    chunk->free = cell;
    if (NIO_UNLIKELY(--chunk->live == 0))
        nio_slab_free_slow(slab, chunk);
}

/* Gives back a cell of anybody's slab, with one CAS.  Any thread. */
static inline void nio_slab_free_remote(void *memory)
{
    struct nio_slab_cell *cell = memory;
    nio_slab_clear(cell);
    (void)nio_mpsc_push(&nio_slab_of(cell)->remote, &cell->remote); /* nobody waits for it */
}

static inline void nio_slab_outbox_init(struct nio_slab_outbox *outbox)
{
    *outbox = (struct nio_slab_outbox){ .home = NULL };
}

/* Sends the chained cells home.  The outbox's thread; before it sleeps for long, and before any
 * home slab is finished. */
static inline void nio_slab_outbox_flush(struct nio_slab_outbox *outbox)
{
    if (!outbox->home)
        return;
    /* nobody waits for the cells: the owner looks when it runs out */
    (void)nio_mpsc_push_chain(&outbox->home->remote, outbox->first, outbox->last);
    *outbox = (struct nio_slab_outbox){ .home = NULL };
}

/* Gives back a cell of anybody's slab, at the latest at the next flush.  The outbox's thread. */
static inline void nio_slab_outbox_free(struct nio_slab_outbox *outbox, void *memory)
{
    struct nio_slab_cell *cell = memory;
    struct nio_slab *home = nio_slab_of(cell);
    if (outbox->home != home)
        nio_slab_outbox_flush(outbox);
    nio_slab_clear(cell);
    if (!outbox->home) {
        outbox->home = home;
        outbox->last = &cell->remote;
    }
    cell->remote.next = outbox->first;
    outbox->first = &cell->remote;
    if (++outbox->count == NIO_SLAB_OUTBOX_MAX)
        nio_slab_outbox_flush(outbox);
}

/* Gives back a cell: locally if it is of `own`, else through the outbox.  Owner of `own`. */
static inline void nio_slab_free(struct nio_slab *own, struct nio_slab_outbox *outbox, void *cell)
{
    if (NIO_LIKELY(nio_slab_of(cell) == own))
        nio_slab_free_local(own, cell);
    else
        nio_slab_outbox_free(outbox, cell);
}

#endif
