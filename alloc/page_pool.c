/* SPDX-License-Identifier: MIT */
#include "alloc/page_pool.h"

#include <errno.h>
#include <unistd.h>

#include "runtime/base/assert.h"
#include "runtime/base/mem.h"

int nio_page_pool_init(struct nio_page_pool *pool, void *base, size_t bytes)
{
    pool->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    NIO_ASSERT(bytes % pool->page_bytes == 0);
    pool->page_count = bytes / pool->page_bytes;
    pool->used = nio_zalloc_array((pool->page_count + 63) / 64, sizeof *pool->used);
    if (!pool->used)
        return -ENOMEM;
    pool->base = base;
    pool->bytes = bytes;
    pool->next = 0;
    nio_lock_init(&pool->lock, NIO_RANK_ALLOC);
    return 0;
}

void nio_page_pool_shrink(struct nio_page_pool *pool, size_t bytes)
{
    NIO_ASSERT(bytes <= pool->bytes && bytes % pool->page_bytes == 0);
    pool->bytes = bytes;
    pool->page_count = bytes / pool->page_bytes;
}

void nio_page_pool_fini(struct nio_page_pool *pool)
{
    nio_free(pool->used);
    pool->used = NULL;
    pool->base = NULL;
    pool->bytes = 0;
}

static bool is_used(const struct nio_page_pool *pool, size_t page)
{
    return (pool->used[page / 64] >> page % 64 & 1) != 0;
}

static void mark(struct nio_page_pool *pool, size_t first, size_t count, bool value)
{
    for (size_t page = first; page < first + count; page++) {
        NIO_ASSERT(is_used(pool, page) != value);
        pool->used[page / 64] ^= UINT64_C(1) << page % 64;
    }
}

/* The first of `count` free pages between `from` and `to`; `to` if there are none. */
static size_t find(const struct nio_page_pool *pool, size_t from, size_t to, size_t count)
{
    size_t run = 0;
    for (size_t page = from; page < to; page++) {
        if (page % 64 == 0 && run == 0 && pool->used[page / 64] == UINT64_MAX) {
            page += 63; /* a whole word is taken */
            continue;
        }
        run = is_used(pool, page) ? 0 : run + 1;
        if (run == count)
            return page + 1 - count;
    }
    return to;
}

void *nio_page_pool_alloc(struct nio_page_pool *pool, size_t bytes)
{
    if (bytes == 0 || bytes > pool->bytes)
        return NULL;
    size_t count = (bytes + pool->page_bytes - 1) / pool->page_bytes;
    nio_lock_acquire(&pool->lock);
    size_t first = find(pool, pool->next, pool->page_count, count);
    if (first == pool->page_count)
        first = find(pool, 0, pool->page_count, count);
    bool is_found = first < pool->page_count;
    if (is_found) {
        mark(pool, first, count, true);
        pool->next = first + count;
    }
    nio_lock_release(&pool->lock);
    return is_found ? pool->base + first * pool->page_bytes : NULL;
}

bool nio_page_pool_free(struct nio_page_pool *pool, void *memory, size_t bytes)
{
    if ((char *)memory < pool->base || (char *)memory >= pool->base + pool->bytes)
        return false;
    size_t first = (size_t)((char *)memory - pool->base) / pool->page_bytes;
    size_t count = (bytes + pool->page_bytes - 1) / pool->page_bytes;
    nio_lock_acquire(&pool->lock);
    mark(pool, first, count, false);
    if (pool->next > first)
        pool->next = first; /* what was used last is in the caches */
    nio_lock_release(&pool->lock);
    return true;
}

size_t nio_page_pool_used(struct nio_page_pool *pool)
{
    size_t pages = 0;
    if (!pool->used)
        return 0;
    nio_lock_acquire(&pool->lock);
    for (size_t i = 0; i < (pool->page_count + 63) / 64; i++)
        pages += (size_t)__builtin_popcountll(pool->used[i]);
    nio_lock_release(&pool->lock);
    return pages * pool->page_bytes;
}
