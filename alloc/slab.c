/* SPDX-License-Identifier: MIT */
/* Design note.
 *
 * Who writes what: the free list, the counters and the lists of chunks belong to the slab's owner.
 * Other threads read a chunk's first line (home, cell_bytes), write the first 16 bytes of the
 * cells they free, and push them on slab->remote.  The push [BM1] and the owner's take [BM2] are
 * the only synchronisation: what a thread wrote to a cell before it freed it is seen by the owner
 * that reuses it.
 *
 * A chunk's life: fresh or EMPTY -> CURRENT of its class -> FULL when every cell is out -> PARTIAL
 * with the first free -> EMPTY with the last, or CURRENT again.  Only the owner moves it.  The one
 * branch on the free path, live == 0, tells all of these moves (see struct nio_slab_chunk).
 *
 * Free lists are per chunk, not per class: then a chunk that got empty leaves without a search
 * through a list that mixes the cells of many chunks, and allocation keeps to one chunk's pages.
 *
 * Fresh cells are carved a page at a time, so that a page is touched when its first cell is used
 * and not before.
 *
 * Sizes: jemalloc pads an allocation of this size by a page (cache-oblivious placement) and has a
 * size class at 56 KiB and at 64 KiB.  64 KiB plus the pad would make every chunk take 128 KiB of
 * addresses at this alignment; 56 KiB plus the pad fit into 64.
 *
 * Shutdown: nio_slab_fini() after every outbox was flushed and no thread holds a cell.
 */
#include "alloc/slab.h"

#include <string.h>

static const uint16_t class_bytes[NIO_SLAB_CLASSES] = { 64,  128, 192, 256,  320,  384,  448,
                                                        512, 640, 768, 1024, 1536, 2048, 4096 };

_Static_assert(sizeof(struct nio_slab_chunk) == NIO_SLAB_HEADER_BYTES, "header is two lines");
_Static_assert(offsetof(struct nio_slab_cell, next) == 8, "the link lies behind the state word");
_Static_assert(offsetof(struct nio_slab_cell, remote) == 8, "both links are in one place");

/* What current[] points to before a class has a chunk: it has no free cell, so nobody writes it. */
static const struct nio_slab_chunk no_chunk;

static struct nio_slab_chunk *no_chunk_pointer(void)
{
    return (struct nio_slab_chunk *)(uintptr_t)&no_chunk;
}

static char *base_of(const struct nio_slab_chunk *chunk)
{
    return (char *)((uintptr_t)chunk & ~(uintptr_t)(NIO_SLAB_CHUNK_STRIDE - 1));
}

static char *cells_of(const struct nio_slab_chunk *chunk)
{
    return base_of(chunk) + NIO_SLAB_CELLS_OFFSET;
}

static void list_push(struct nio_slab_list *list, struct nio_slab_chunk *chunk)
{
    chunk->prev = NULL;
    chunk->next = list->first;
    if (list->first)
        list->first->prev = chunk;
    list->first = chunk;
}

static void list_remove(struct nio_slab_list *list, struct nio_slab_chunk *chunk)
{
    if (chunk->prev)
        chunk->prev->next = chunk->next;
    else
        list->first = chunk->next;
    if (chunk->next)
        chunk->next->prev = chunk->prev;
}

static struct nio_slab_chunk *list_pop(struct nio_slab_list *list)
{
    struct nio_slab_chunk *chunk = list->first;
    if (chunk)
        list_remove(list, chunk);
    return chunk;
}

int nio_slab_init(struct nio_slab *slab, struct nio_node_arena *arena)
{
    memset(slab, 0, sizeof *slab);
    for (unsigned i = 0; i < NIO_SLAB_CLASSES; i++)
        slab->current[i] = no_chunk_pointer();
    slab->arena = arena;
    nio_mpsc_init(&slab->remote);
    return 0;
}

/* A chunk of `bytes` from the arena, with an empty header. */
static struct nio_slab_chunk *chunk_create(struct nio_slab *slab, size_t bytes)
{
    char *base = nio_node_arena_alloc(slab->arena, bytes, NIO_SLAB_CHUNK_STRIDE);
    if (!base)
        return NULL;
    struct nio_slab_chunk *chunk = nio_slab_chunk_of(base);
    memset(chunk, 0, sizeof *chunk);
    chunk->home = slab;
    chunk->bytes = bytes;
    slab->chunk_count++;
    return chunk;
}

static void chunk_destroy(struct nio_slab *slab, struct nio_slab_chunk *chunk)
{
    slab->chunk_count--;
    char *base = base_of(chunk);
    size_t bytes = chunk->bytes;
    nio_unpoison(base, bytes);
    nio_node_arena_free(slab->arena, base, bytes, NIO_SLAB_CHUNK_STRIDE);
}

/* Makes an empty chunk one of `class_index`; nothing but its header is touched. */
static void chunk_assign(struct nio_slab_chunk *chunk, unsigned class_index)
{
    size_t room = NIO_SLAB_CHUNK_BYTES - NIO_SLAB_CELLS_OFFSET;
    size_t cell_bytes = class_bytes[class_index];
    chunk->class_index = class_index;
    chunk->cell_bytes = (uint32_t)cell_bytes;
    chunk->free = NULL;
    chunk->live = 0;
    chunk->hidden = 0;
    chunk->carved_end = cells_of(chunk);
    chunk->cells_end = cells_of(chunk) + room / cell_bytes * cell_bytes;
}

/* Puts never used cells on the free list: those that start on the next cell's page.  False when
 * there are none left. */
static bool chunk_carve(struct nio_slab_chunk *chunk)
{
    char *cell = chunk->carved_end;
    if (cell == chunk->cells_end)
        return false;
    size_t cell_bytes = chunk->cell_bytes;
    char *page_end = (char *)(((uintptr_t)cell | 4095) + 1);
    char *end = page_end < chunk->cells_end ? page_end : chunk->cells_end;
    struct nio_slab_cell *first = (struct nio_slab_cell *)(void *)cell;
    struct nio_slab_cell *last = NULL;
    for (; cell < end; cell += cell_bytes) { /* at most 64 */
        struct nio_slab_cell *fresh = (struct nio_slab_cell *)(void *)cell;
        atomic_init(&fresh->word, 0);
        if (last)
            last->next = fresh;
        last = fresh;
        nio_poison(fresh + 1, cell_bytes - sizeof *fresh);
    }
    last->next = chunk->free;
    chunk->free = first;
    chunk->carved_end = cell;
    return true;
}

static struct nio_slab_cell *chunk_pop(struct nio_slab_chunk *chunk)
{
    struct nio_slab_cell *cell = chunk->free;
    chunk->free = cell->next;
    chunk->live++;
    nio_unpoison(cell, chunk->cell_bytes);
    return cell;
}

/* Puts a current chunk without free cells aside. */
static void retire_full(struct nio_slab *slab, struct nio_slab_chunk *chunk)
{
    if (chunk == &no_chunk)
        return;
    NIO_DEBUG_ASSERT(chunk->live >= 2); /* one cell at least, and the bias */
    chunk->hidden = chunk->live - 2;
    chunk->live = 1;
    chunk->state = NIO_SLAB_FULL;
    list_push(&slab->full, chunk);
}

/* A chunk of the class with a free cell: used before if possible, else empty, else fresh. */
static struct nio_slab_chunk *next_chunk(struct nio_slab *slab, unsigned class_index)
{
    struct nio_slab_chunk *chunk = list_pop(&slab->partial[class_index]);
    if (chunk)
        return chunk;
    chunk = list_pop(&slab->empty);
    if (chunk)
        slab->empty_count--;
    else
        chunk = chunk_create(slab, NIO_SLAB_CHUNK_BYTES);
    if (chunk)
        chunk_assign(chunk, class_index);
    return chunk;
}

NIO_NOINLINE void *nio_slab_alloc_slow(struct nio_slab *slab, unsigned class_index)
{
    NIO_ASSERT(!slab->is_walking);
    (void)nio_slab_drain(slab); /* the count does not matter, only whether a cell turned up */
    struct nio_slab_chunk *chunk = slab->current[class_index];
    if (chunk->free || chunk_carve(chunk))
        return chunk_pop(chunk);
    struct nio_slab_chunk *next = next_chunk(slab, class_index);
    if (!next)
        return NULL;
    retire_full(slab, chunk);
    slab->current[class_index] = next;
    next->state = NIO_SLAB_CURRENT;
    next->live++; /* so that it stays when its last cell is freed */
    if (!next->free)
        (void)chunk_carve(next); /* a chunk of the list has free cells, an assigned one has room */
    return chunk_pop(next);
}

NIO_NOINLINE void *nio_slab_alloc_large(struct nio_slab *slab, size_t bytes)
{
    size_t rounded = nio_align_up(bytes, NIO_CACHELINE);
    if (rounded < bytes || rounded > UINT32_MAX)
        return NULL;
    struct nio_slab_chunk *chunk = chunk_create(slab, NIO_SLAB_CELLS_OFFSET + rounded);
    if (!chunk)
        return NULL;
    chunk->class_index = NIO_SLAB_LARGE;
    chunk->cell_bytes = (uint32_t)rounded;
    chunk->carved_end = chunk->cells_end = cells_of(chunk) + rounded;
    chunk->live = 1;
    chunk->state = NIO_SLAB_FULL;
    list_push(&slab->full, chunk);
    struct nio_slab_cell *cell = (struct nio_slab_cell *)(void *)cells_of(chunk);
    atomic_init(&cell->word, 0);
    return cell;
}

/* The chunk's last cell was freed. */
static void retire_empty(struct nio_slab *slab, struct nio_slab_chunk *chunk)
{
    if (chunk->class_index == NIO_SLAB_LARGE || slab->empty_count >= NIO_SLAB_EMPTY_MAX) {
        chunk_destroy(slab, chunk);
        return;
    }
    nio_unpoison(base_of(chunk), chunk->bytes);
    chunk->state = NIO_SLAB_EMPTY;
    list_push(&slab->empty, chunk);
    slab->empty_count++;
}

NIO_NOINLINE void nio_slab_free_slow(struct nio_slab *slab, struct nio_slab_chunk *chunk)
{
    if (slab->is_walking)
        return; /* settle_list() finds it after the walk */
    NIO_DEBUG_ASSERT(chunk->state == NIO_SLAB_FULL || chunk->state == NIO_SLAB_PARTIAL);
    if (chunk->state == NIO_SLAB_PARTIAL) {
        list_remove(&slab->partial[chunk->class_index], chunk);
        retire_empty(slab, chunk);
        return;
    }
    list_remove(&slab->full, chunk);
    chunk->live = chunk->hidden;
    chunk->hidden = 0;
    if (chunk->live == 0) {
        retire_empty(slab, chunk);
        return;
    }
    chunk->state = NIO_SLAB_PARTIAL;
    list_push(&slab->partial[chunk->class_index], chunk);
}

unsigned nio_slab_drain(struct nio_slab *slab)
{
    unsigned count = 0;
    struct nio_mpsc_node *node = nio_mpsc_take(&slab->remote);
    while (node) { /* bounded by the cells that were out */
        struct nio_mpsc_node *next = node->next;
        nio_slab_free_local(slab, NIO_CONTAINER_OF(node, struct nio_slab_cell, remote));
        node = next;
        count++;
    }
    return count;
}

static void walk_chunk(const struct nio_slab_chunk *chunk, void (*fn)(void *cell, void *arg),
                       void *arg)
{
    for (char *at = cells_of(chunk); at < chunk->carved_end; at += chunk->cell_bytes) {
        struct nio_slab_cell *cell = (struct nio_slab_cell *)(void *)at;
        /* relaxed: a hint; fn takes its reference from the word itself, with its own order */
        if (atomic_load_explicit(&cell->word, memory_order_relaxed) != 0)
            fn(cell, arg);
    }
}

static void walk_list(const struct nio_slab_list *list, void (*fn)(void *cell, void *arg),
                      void *arg)
{
    for (const struct nio_slab_chunk *chunk = list->first; chunk; chunk = chunk->next)
        walk_chunk(chunk, fn, arg);
}

/* Moves the chunks of a list that lost cells during a walk to where they belong now. */
static void settle_list(struct nio_slab *slab, struct nio_slab_list *list)
{
    struct nio_slab_chunk *chunk = list->first;
    while (chunk) {
        struct nio_slab_chunk *next = chunk->next;
        if (chunk->state == NIO_SLAB_FULL && chunk->live != 1) {
            /* `live` went on below 0 while nobody looked; the sum is right again. */
            chunk->hidden += chunk->live;
            nio_slab_free_slow(slab, chunk);
        } else if (chunk->live == 0) {
            nio_slab_free_slow(slab, chunk);
        }
        chunk = next;
    }
}

static void settle(struct nio_slab *slab)
{
    for (unsigned i = 0; i < NIO_SLAB_CLASSES; i++)
        settle_list(slab, &slab->partial[i]);
    settle_list(slab, &slab->full);
}

void nio_slab_for_each_live(struct nio_slab *slab, void (*fn)(void *cell, void *arg), void *arg)
{
    (void)nio_slab_drain(slab); /* only to walk fewer chunks */
    NIO_ASSERT(!slab->is_walking);
    slab->is_walking = true;
    for (unsigned i = 0; i < NIO_SLAB_CLASSES; i++) {
        if (slab->current[i] != &no_chunk)
            walk_chunk(slab->current[i], fn, arg);
        walk_list(&slab->partial[i], fn, arg);
    }
    walk_list(&slab->full, fn, arg);
    slab->is_walking = false;
    settle(slab);
}

/* The live cells of a chunk, without the biases of `live`. */
static uint32_t chunk_live(const struct nio_slab_chunk *chunk)
{
    switch (chunk->state) {
    case NIO_SLAB_CURRENT:
        return chunk->live - 1;
    case NIO_SLAB_PARTIAL:
        return chunk->live;
    case NIO_SLAB_FULL:
        return chunk->live + chunk->hidden;
    case NIO_SLAB_EMPTY:
        return 0;
    }
    return 0;
}

void nio_slab_stats(const struct nio_slab *slab, struct nio_slab_stats *ret_stats)
{
    uint64_t cells = 0;
    for (unsigned i = 0; i < NIO_SLAB_CLASSES; i++) {
        if (slab->current[i] != &no_chunk)
            cells += chunk_live(slab->current[i]);
        for (const struct nio_slab_chunk *c = slab->partial[i].first; c; c = c->next)
            cells += chunk_live(c);
    }
    for (const struct nio_slab_chunk *c = slab->full.first; c; c = c->next)
        cells += chunk_live(c);
    ret_stats->chunks = slab->chunk_count;
    ret_stats->empty_chunks = slab->empty_count;
    ret_stats->cells_live = cells;
}

/* Returns the live cells of a chunk after asserting that it is what it should be in `state`. */
static uint64_t check_chunk(const struct nio_slab *slab, const struct nio_slab_chunk *chunk,
                            enum nio_slab_state state)
{
    NIO_ASSERT(chunk->home == slab && chunk->state == state);
    NIO_ASSERT(nio_slab_chunk_of(base_of(chunk)) == chunk);
    if (state == NIO_SLAB_EMPTY)
        return 0;
    char *cells = cells_of(chunk);
    NIO_ASSERT(chunk->carved_end >= cells && chunk->carved_end <= chunk->cells_end);
    uint64_t carved = (uint64_t)(chunk->carved_end - cells) / chunk->cell_bytes;
    uint64_t free_cells = 0;
    for (const struct nio_slab_cell *cell = chunk->free; cell; cell = cell->next) {
        NIO_ASSERT((const char *)cell >= cells && (const char *)cell < chunk->carved_end);
        NIO_ASSERT(((size_t)((const char *)cell - cells)) % chunk->cell_bytes == 0);
        /* relaxed: the contract's 0, written by whoever freed the cell before it came here */
        NIO_ASSERT(atomic_load_explicit(&cell->word, memory_order_relaxed) == 0);
        free_cells++;
        NIO_ASSERT(free_cells <= carved); /* also ends the loop on a cycle */
    }
    uint64_t live = chunk_live(chunk);
    NIO_ASSERT(live + free_cells == carved);
    NIO_ASSERT(state != NIO_SLAB_FULL || (live == carved && chunk->carved_end == chunk->cells_end));
    NIO_ASSERT(state != NIO_SLAB_PARTIAL || (live > 0 && chunk->free));
    return live;
}

static uint64_t check_list(const struct nio_slab *slab, const struct nio_slab_list *list,
                           enum nio_slab_state state, uint32_t *chunks)
{
    uint64_t live = 0;
    const struct nio_slab_chunk *before = NULL;
    for (const struct nio_slab_chunk *chunk = list->first; chunk; chunk = chunk->next) {
        NIO_ASSERT(chunk->prev == before);
        live += check_chunk(slab, chunk, state);
        before = chunk;
        (*chunks)++;
    }
    return live;
}

void nio_slab_check(const struct nio_slab *slab)
{
    uint32_t chunks = 0, empty = 0;
    for (unsigned i = 0; i < NIO_SLAB_CLASSES; i++) {
        const struct nio_slab_chunk *current = slab->current[i];
        if (current != &no_chunk) {
            (void)check_chunk(slab, current, NIO_SLAB_CURRENT); /* it asserts by itself */
            NIO_ASSERT(current->class_index == i && current->cell_bytes == class_bytes[i]);
            chunks++;
        }
        (void)check_list(slab, &slab->partial[i], NIO_SLAB_PARTIAL, &chunks);
    }
    (void)check_list(slab, &slab->full, NIO_SLAB_FULL, &chunks);
    (void)check_list(slab, &slab->empty, NIO_SLAB_EMPTY, &empty);
    NIO_ASSERT(empty == slab->empty_count && empty <= NIO_SLAB_EMPTY_MAX);
    NIO_ASSERT(chunks + empty == slab->chunk_count);
}

void nio_slab_fini(struct nio_slab *slab)
{
    (void)nio_slab_drain(slab); /* the assertions below say whether that was all */
    struct nio_slab_stats stats;
    nio_slab_stats(slab, &stats);
    NIO_ASSERT(stats.cells_live == 0);
    for (unsigned i = 0; i < NIO_SLAB_CLASSES; i++) {
        if (slab->current[i] != &no_chunk)
            chunk_destroy(slab, slab->current[i]);
        slab->current[i] = no_chunk_pointer();
    }
    for (struct nio_slab_chunk *chunk = list_pop(&slab->empty); chunk;
         chunk = list_pop(&slab->empty))
        chunk_destroy(slab, chunk);
    slab->empty_count = 0;
    NIO_ASSERT(slab->chunk_count == 0);
}
