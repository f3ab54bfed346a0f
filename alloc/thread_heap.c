/* SPDX-License-Identifier: MIT */
/* Design note.
 *
 * The table is filled from the front and never shrinks, under a lock.  A heap is made outside of
 * the lock, since that makes system calls; of two threads that made the same one, the second
 * destroys its own, which nobody has used yet.
 */
#include "alloc/thread_heap.h"

#include <errno.h>
#include <stdlib.h>

#include "alloc/extent.h"
#include "runtime/base/error.h"
#include "runtime/base/lock.h"
#include "runtime/base/mem.h"

enum { HEAPS_MAX = 64 };

struct thread_heap {
    struct nio_extents extents; /* constant address: jemalloc keeps the hooks */
    int os_node;                /* as asked; extents.os_node is -1 where binding was refused */
    unsigned jemalloc_arena;
};

/* The process's only heaps; under the lock. */
static struct nio_lock heaps_lock = { .rank = NIO_RANK_ALLOC };
static struct thread_heap *heaps[HEAPS_MAX];
static unsigned heap_count;

static struct thread_heap *find_locked(int os_node, bool is_strict, bool use_huge_pages)
{
    for (unsigned i = 0; i < heap_count; i++) {
        struct thread_heap *heap = heaps[i];
        if (heap->os_node == os_node && heap->extents.is_strict == is_strict &&
            heap->extents.use_huge_pages == use_huge_pages)
            return heap;
    }
    return NULL;
}

static void destroy(struct thread_heap *heap)
{
    nio_jemalloc_arena_destroy(heap->jemalloc_arena);
    nio_extents_fini(&heap->extents);
    nio_free(heap);
}

static int create(int os_node, bool is_strict, bool use_huge_pages, struct thread_heap **ret_heap)
{
    struct thread_heap *heap = nio_zalloc(sizeof *heap);
    if (!heap)
        return nio_error(-ENOMEM, "arena: no memory for the heap of NUMA node %d", os_node);
    heap->os_node = os_node;
    /* Its hooks do not ask for faults: they would make the program's own malloc fail. */
    int error = nio_extents_init(&heap->extents, os_node, is_strict, use_huge_pages, false);
    if (error)
        goto fail;
    error = nio_jemalloc_arena_create(&heap->extents, &heap->jemalloc_arena);
    if (error)
        goto fail_extents;
    *ret_heap = heap;
    return 0;
fail_extents:
    nio_extents_fini(&heap->extents);
fail:
    nio_free(heap);
    return error;
}

int nio_thread_heap_get(int os_node, bool is_strict, bool use_huge_pages,
                        unsigned *ret_jemalloc_arena)
{
    nio_lock_acquire(&heaps_lock);
    struct thread_heap *heap = find_locked(os_node, is_strict, use_huge_pages);
    nio_lock_release(&heaps_lock);
    if (heap) {
        *ret_jemalloc_arena = heap->jemalloc_arena;
        return 0;
    }
    struct thread_heap *fresh = NULL;
    int error = create(os_node, is_strict, use_huge_pages, &fresh);
    if (error)
        return error;
    nio_lock_acquire(&heaps_lock);
    heap = find_locked(os_node, is_strict, use_huge_pages);
    if (!heap && heap_count < HEAPS_MAX) {
        heap = heaps[heap_count++] = fresh;
        fresh = NULL;
    }
    nio_lock_release(&heaps_lock);
    if (fresh)
        destroy(fresh);
    if (!heap)
        return nio_error(-ENOMEM, "arena: the process has heaps for %d nodes already", HEAPS_MAX);
    *ret_jemalloc_arena = heap->jemalloc_arena;
    return 0;
}

/* Bytes that jemalloc has handed out to the calling thread. */
static uint64_t thread_allocated(void)
{
    uint64_t bytes = 0;
    size_t size = sizeof bytes;
    (void)mallctl("thread.allocated", &bytes, &size, NULL, 0); /* stays 0 without statistics */
    return bytes;
}

bool nio_thread_heap_serves_malloc(void)
{
    uint64_t before = thread_allocated();
    void *sample = malloc(1);
    __asm__("" : "+r"(sample)); /* else a compiler may leave the pair out */
    bool serves = thread_allocated() != before;
    free(sample);
    return serves;
}
