/* SPDX-License-Identifier: MIT */
/* Design note.
 *
 * Every mallocx names the arena and MALLOCX_TCACHE_NONE, every sdallocx MALLOCX_TCACHE_NONE: with
 * the automatic cache in between, 86 of 150 later allocations of the freeing thread came from the
 * wrong node, and an allocation that names an arena but no cache took 128 of 150 from the cache.
 *
 * Accounting counts the bytes asked for, not jemalloc's size classes, so that allocated == freed
 * holds exactly when every allocation was given back.  The counters are written by any thread;
 * the slabs above keep that rare.
 */
#include "alloc/node_arena.h"

#include <errno.h>
#include <stdio.h>

#include "alloc/extent.h"
#include "alloc/mempolicy.h"
#include "alloc/thread_heap.h"
#include "runtime/base/assert.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"

struct nio_node_arena {
    struct nio_extents extents; /* see there */
    /* constant after create */
    NIO_CACHE_ALIGNED int flags; /* mallocx: this arena, no thread cache */
    unsigned jemalloc_arena;
    int os_node_asked;
    const char *malloc_reason;
    /* any thread, RMW */
    NIO_CACHE_ALIGNED _Atomic uint64_t bytes_allocated;
    _Atomic uint64_t bytes_freed;
};

/* What a thread had before it was adopted. */
struct adopted_thread {
    bool is_adopted;
    bool has_arena;  /* malloc is jemalloc's and `arena` must be put back */
    bool has_policy; /* `policy` must be put back */
    unsigned arena;
    struct nio_mempolicy policy;
};
static _Thread_local struct adopted_thread adopted; /* its thread only */

int nio_node_arena_create(const struct nio_node_arena_options *options,
                          struct nio_node_arena **ret_arena)
{
    struct nio_node_arena *arena = nio_zalloc(sizeof *arena);
    if (!arena)
        return nio_error(-ENOMEM, "arena: no memory");
    int error = nio_extents_init(&arena->extents, options->os_node, options->is_strict,
                                 options->use_huge_pages, true);
    if (error)
        goto fail;
    error = nio_jemalloc_arena_create(&arena->extents, &arena->jemalloc_arena);
    if (error)
        goto fail_extents;
    arena->flags = MALLOCX_ARENA(arena->jemalloc_arena) | MALLOCX_TCACHE_NONE;
    arena->os_node_asked = options->os_node;
    if (!nio_thread_heap_serves_malloc())
        arena->malloc_reason = "the process's malloc is not jemalloc's (a sanitizer's or a "
                               "preloaded one): what tasks malloc is not placed by arena";
    *ret_arena = arena;
    return 0;
fail_extents:
    nio_extents_fini(&arena->extents);
fail:
    nio_free(arena);
    return error;
}

void nio_node_arena_destroy(struct nio_node_arena *arena)
{
    if (!arena)
        return;
    struct nio_node_arena_stats stats;
    nio_node_arena_stats(arena, &stats);
    NIO_ASSERT(stats.bytes_live == 0);
    nio_jemalloc_arena_destroy(arena->jemalloc_arena);
    nio_extents_fini(&arena->extents);
    nio_free(arena);
}

static void count_allocated(struct nio_node_arena *arena, size_t bytes)
{
    /* relaxed: a statistic; the memory itself is ordered by jemalloc's locks */
    atomic_fetch_add_explicit(&arena->bytes_allocated, bytes, memory_order_relaxed);
}

static void count_freed(struct nio_node_arena *arena, size_t bytes)
{
    /* relaxed: as in count_allocated() */
    atomic_fetch_add_explicit(&arena->bytes_freed, bytes, memory_order_relaxed);
}

static int alignment_flag(size_t alignment)
{
    NIO_DEBUG_ASSERT(alignment > 0 && (alignment & (alignment - 1)) == 0);
    return MALLOCX_LG_ALIGN(__builtin_ctzl(alignment));
}

void *nio_node_arena_alloc(struct nio_node_arena *arena, size_t bytes, size_t alignment)
{
    NIO_DEBUG_ASSERT(bytes > 0);
    if (nio_fault_now())
        return NULL;
    void *memory = mallocx(bytes, arena->flags | alignment_flag(alignment));
    if (memory)
        count_allocated(arena, bytes);
    return memory;
}

void nio_node_arena_free(struct nio_node_arena *arena, void *memory, size_t bytes, size_t alignment)
{
    if (!memory)
        return;
    /* Counted first: whoever sees the memory given back sees the count as well. */
    count_freed(arena, bytes);
    sdallocx(memory, bytes, MALLOCX_TCACHE_NONE | alignment_flag(alignment));
}

void *nio_node_arena_map(struct nio_node_arena *arena, size_t bytes, size_t alignment)
{
    void *memory = nio_extents_map(&arena->extents, bytes, alignment);
    if (memory)
        count_allocated(arena, bytes);
    return memory;
}

void nio_node_arena_unmap(struct nio_node_arena *arena, void *memory, size_t bytes)
{
    if (!memory)
        return;
    count_freed(arena, bytes);
    nio_extents_unmap(&arena->extents, memory);
}

/* Makes the thread's malloc use `jemalloc_arena`; returns the one it used in *ret_before. */
static int switch_malloc(unsigned jemalloc_arena, unsigned *ret_before)
{
    unsigned before;
    size_t before_bytes = sizeof before;
    int error =
        mallctl("thread.arena", &before, &before_bytes, &jemalloc_arena, sizeof jemalloc_arena);
    if (error)
        return nio_error(-error, "arena: jemalloc refuses to give a thread its arena");
    /* What the cache holds is the old arena's.  Fails only when the program has switched the
     * cache off, and then there is nothing to flush. */
    (void)mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
    if (ret_before)
        *ret_before = before;
    return 0;
}

int nio_node_arena_adopt_thread(struct nio_node_arena *arena)
{
    NIO_ASSERT(!adopted.is_adopted);
    struct adopted_thread before = { .is_adopted = true };
    if (!arena->malloc_reason) {
        unsigned heap;
        int error = nio_thread_heap_get(arena->os_node_asked, arena->extents.is_strict,
                                        arena->extents.use_huge_pages, &heap);
        if (!error)
            error = switch_malloc(heap, &before.arena);
        if (error)
            return error;
        before.has_arena = true;
    }
    /* Refused only where mbind is refused, too, and that is recorded already. */
    int os_node = arena->extents.os_node;
    before.has_policy = os_node >= 0 && nio_mempolicy_get_thread(&before.policy) == 0 &&
                        nio_mempolicy_set_thread(os_node, arena->extents.is_strict) == 0;
    adopted = before;
    return 0;
}

void nio_node_arena_restore_thread(void)
{
    if (!adopted.is_adopted)
        return;
    /* Both were this thread's own a while ago; if the kernel or jemalloc refuses them now, the
     * thread goes on with the node's, which is valid as well. */
    if (adopted.has_arena)
        (void)switch_malloc(adopted.arena, NULL);
    if (adopted.has_policy)
        (void)nio_mempolicy_restore_thread(&adopted.policy);
    adopted.is_adopted = false;
}

const char *nio_node_arena_reason(const struct nio_node_arena *arena)
{
    return nio_extents_reason(&arena->extents);
}

const char *nio_node_arena_malloc_reason(const struct nio_node_arena *arena)
{
    return arena->malloc_reason;
}

int nio_node_arena_os_node(const struct nio_node_arena *arena)
{
    return arena->extents.os_node;
}

void nio_node_arena_stats(const struct nio_node_arena *arena,
                          struct nio_node_arena_stats *ret_stats)
{
    /* relaxed, both: statistics; the frees are read first so that the difference is never
     * negative by more than what is in flight, and relaxed loads of what one's own thread or a
     * joined thread counted are exact */
    uint64_t freed = atomic_load_explicit(&arena->bytes_freed, memory_order_relaxed);
    uint64_t allocated = atomic_load_explicit(&arena->bytes_allocated, memory_order_relaxed);
    ret_stats->bytes_allocated = allocated;
    ret_stats->bytes_freed = freed;
    ret_stats->bytes_live = allocated > freed ? allocated - freed : 0;
}

int nio_node_arena_for_each_mapping(struct nio_node_arena *arena,
                                    int (*visit)(void *base, size_t bytes, void *context),
                                    void *context)
{
    return nio_extents_for_each(&arena->extents, visit, context);
}
