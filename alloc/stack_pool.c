/* SPDX-License-Identifier: MIT */
#include "alloc/stack_pool.h"

#include "runtime/base/assert.h"

_Static_assert((NIO_STACK_POOL_MAX & (NIO_STACK_POOL_MAX - 1)) == 0, "the ring is masked");
_Static_assert(NIO_STACK_POOL_BATCH > 0, "a pool must be able to refill");

void nio_stack_pool_init(struct nio_stack_pool *pool, struct nio_stack_depot *depot)
{
    *pool = (struct nio_stack_pool){ .depot = depot };
}

/* Gives back the `count` coldest. */
static void give_coldest(struct nio_stack_pool *pool, unsigned count)
{
    struct nio_stack *batch[NIO_STACK_POOL_MAX];
    NIO_DEBUG_ASSERT(count <= pool->count);
    for (unsigned i = 0; i < count; i++)
        batch[i] = pool->stacks[(pool->first + i) % NIO_STACK_POOL_MAX];
    pool->first = (pool->first + count) % NIO_STACK_POOL_MAX;
    pool->count -= count;
    nio_stack_depot_give(pool->depot, batch, count);
}

NIO_NOINLINE void nio_stack_pool_spill(struct nio_stack_pool *pool)
{
    give_coldest(pool, NIO_STACK_POOL_MAX / 2);
}

NIO_NOINLINE struct nio_stack *nio_stack_alloc_slow(struct nio_stack_pool *pool)
{
    pool->first = 0;
    pool->count = nio_stack_depot_take(pool->depot, pool->stacks, NIO_STACK_POOL_BATCH);
    if (pool->count == 0)
        return NULL;
    return pool->stacks[--pool->count];
}

void nio_stack_pool_trim(struct nio_stack_pool *pool)
{
    if (pool->count > 0)
        give_coldest(pool, pool->count);
}

void nio_stack_pool_fini(struct nio_stack_pool *pool)
{
    nio_stack_pool_trim(pool);
}
