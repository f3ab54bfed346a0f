/* SPDX-License-Identifier: MIT */
/* alloc/stack_pool.h: a worker's hot coroutine stacks.
 *
 * A small LIFO over the node's depot: the stack that was freed last is used next, while its lines
 * are in the core's cache.  Alloc and free are a few instructions; every sixteenth or so, when the
 * pool is empty or full, takes the depot's lock.  The owner (one worker) only; no atomics.
 */
#ifndef NIO_ALLOC_STACK_POOL_H
#define NIO_ALLOC_STACK_POOL_H

#include "alloc/stack.h"
#include "alloc/stack_depot.h"

enum {
#ifdef NIO_TINY
    NIO_STACK_POOL_MAX = 4,
#else
    NIO_STACK_POOL_MAX = 64, /* stacks kept; a power of two */
#endif
    NIO_STACK_POOL_BATCH = NIO_STACK_POOL_MAX / 4
};

struct nio_stack_pool {
    /* owner only */
    struct nio_stack_depot *depot;
    uint32_t first; /* index of the coldest */
    uint32_t count;
    struct nio_stack *stacks[NIO_STACK_POOL_MAX]; /* a ring */
};

void nio_stack_pool_init(struct nio_stack_pool *pool, struct nio_stack_depot *depot);
/* Gives all stacks back to the depot. */
void nio_stack_pool_fini(struct nio_stack_pool *pool);
/* The same, for a worker that is about to sleep for long. */
void nio_stack_pool_trim(struct nio_stack_pool *pool);

/* The slow halves. */
struct nio_stack *nio_stack_alloc_slow(struct nio_stack_pool *pool);
void nio_stack_pool_spill(struct nio_stack_pool *pool);

/* A stack without an owner, contents undefined.  NULL when there is no memory. */
static inline struct nio_stack *nio_stack_alloc(struct nio_stack_pool *pool)
{
    if (NIO_UNLIKELY(pool->count == 0))
        return nio_stack_alloc_slow(pool);
    pool->count--;
    return pool->stacks[(pool->first + pool->count) % NIO_STACK_POOL_MAX];
}

/* Gives a stack back: to this pool if it is of the same depot, else home.  Nobody runs on it any
 * more.  Aborts when it has a canary and the canary is damaged. */
static inline void nio_stack_free(struct nio_stack_pool *pool, struct nio_stack *stack)
{
    nio_stack_reset(stack);
    if (NIO_UNLIKELY(stack->home != pool->depot)) {
        nio_stack_depot_give_remote(stack);
        return;
    }
    if (NIO_UNLIKELY(pool->count == NIO_STACK_POOL_MAX))
        nio_stack_pool_spill(pool);
    pool->stacks[(pool->first + pool->count) % NIO_STACK_POOL_MAX] = stack;
    pool->count++;
}

#endif
