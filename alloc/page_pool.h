/* SPDX-License-Identifier: MIT */
/* alloc/page_pool.h: whole pages out of one piece of memory, which is registered with the rings of
 * a node and so must not move or go while the runtime lives.
 *
 * First fit from where the last search ended, on a bitmap under a lock.  Any thread.  Cost: tens of
 * nanoseconds while there is room nearby, and as many as there are pages / 64 at most: keep
 * buffers.
 */
#ifndef NIO_ALLOC_PAGE_POOL_H
#define NIO_ALLOC_PAGE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/lock.h"

struct nio_page_pool {
    /* constant after init */
    char *base;
    size_t bytes;
    uint64_t *used; /* a bit for each page */
    size_t page_count, page_bytes;
    /* under the lock */
    struct nio_lock lock;
    size_t next; /* where to look first */
};

/* `base` is the caller's and page-aligned; `bytes` a multiple of the page.   Errors: -ENOMEM. */
NIO_NODISCARD int nio_page_pool_init(struct nio_page_pool *pool, void *base, size_t bytes);
/* Before the first allocation: only the first `bytes` are to be given out. */
void nio_page_pool_shrink(struct nio_page_pool *pool, size_t bytes);
/* Takes one that was never initialised, if it is zero. */
void nio_page_pool_fini(struct nio_page_pool *pool);

/* NULL: no piece of that size is free (or the pool was never initialised). */
void *nio_page_pool_alloc(struct nio_page_pool *pool, size_t bytes);
/* False: it is not the pool's. */
bool nio_page_pool_free(struct nio_page_pool *pool, void *memory, size_t bytes);
/* Bytes that are in use. */
size_t nio_page_pool_used(struct nio_page_pool *pool);

#endif
