/* SPDX-License-Identifier: MIT */
/* Stacks travel between workers of two nodes: every thread takes stacks from its pool, leaves a
 * mark on them and hangs them up where any thread takes them down, checks the mark and frees them,
 * which sends those of the other depot home.  Depots give memory back all the while.
 *
 * With [BM1] or [BM2] (stacks on their way home) weakened to relaxed, or without the depot's lock
 * [BL1, BL2], ThreadSanitizer reports a race on the control blocks.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "alloc/stack_pool.h"
#include "runtime/base/clock.h"
#include "runtime/base/rng.h"

enum {
    THREADS = 4, /* even ones use the first depot, odd ones the second */
    DEPOTS = 2,
    PEGS = 64,
    ROUNDS = 3000000
};

struct walker {
    struct nio_stack_pool pool;
    struct nio_rng rng;
    const char *failure;
    uint64_t freed_far;
};

static struct nio_stack_depot *depots[DEPOTS];
static struct nio_stack *_Atomic pegs[PEGS]; /* where stacks are handed over */
static struct walker walkers[THREADS];

static uint64_t *mark_of(struct nio_stack *stack)
{
    return (uint64_t *)(void *)(stack->high - sizeof(uint64_t));
}

/* Hangs a stack (or NULL) up and returns the one that was there. */
static struct nio_stack *swap(unsigned peg, struct nio_stack *stack)
{
    /* [SP1] acq_rel: hands over the stack's contents, and takes the other's.  Pairs with [SP1] of
     * the thread that swaps next. */
    return atomic_exchange_explicit(&pegs[peg], stack, memory_order_acq_rel);
}

static void put_back(struct walker *self, struct nio_stack *stack)
{
    if (!stack)
        return;
    if (nio_stack_owner(stack) != stack || *mark_of(stack) != (uintptr_t)stack)
        self->failure = "a stack was changed on its way";
    self->freed_far += stack->home != self->pool.depot;
    nio_stack_free(&self->pool, stack);
}

static void *run(void *arg)
{
    struct walker *self = arg;
    for (unsigned round = 0; round < ROUNDS && !self->failure; round++) {
        struct nio_stack *stack = nio_stack_alloc(&self->pool);
        if (!stack || nio_stack_owner(stack)) {
            self->failure = stack ? "a stack in use was handed out" : "no memory for a stack";
            break;
        }
        nio_stack_set_owner(stack, stack);
        *mark_of(stack) = (uintptr_t)stack;
        put_back(self, swap(nio_rng_below(&self->rng, PEGS), stack));
        if (round % 1024 == 0)
            (void)nio_stack_depot_trim(self->pool.depot, nio_now_ns()); /* what has aged */
    }
    nio_stack_pool_fini(&self->pool);
    return NULL;
}

static int finish(void)
{
    int status = 0;
    struct walker last = { .failure = NULL };
    nio_stack_pool_init(&last.pool, depots[0]);
    for (unsigned i = 0; i < PEGS; i++)
        put_back(&last, swap(i, NULL));
    nio_stack_pool_fini(&last.pool);
    uint64_t far = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        far += walkers[i].freed_far;
        if (walkers[i].failure) {
            fprintf(stderr, "thread %u: %s\n", i, walkers[i].failure);
            status = 1;
        }
    }
    for (unsigned i = 0; i < DEPOTS; i++) {
        struct nio_stack_depot_stats stats;
        nio_stack_depot_stats(depots[i], &stats);
        nio_stack_depot_check(depots[i]);
        printf("depot %u: %llu stacks, %llu out\n", i, (unsigned long long)stats.stacks_made,
               (unsigned long long)stats.stacks_out);
        status |= stats.stacks_out != 0;
    }
    printf("stress_stack_pool: %llu freed away from home\n", (unsigned long long)far);
    return status || far == 0;
}

int main(void)
{
    const char *text = getenv("NUMIO_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 11;
    printf("NUMIO_TEST_SEED=%llu\n", (unsigned long long)seed);
    struct nio_node_arena_options options = { .os_node = -1 };
    struct nio_stack_depot_options stacks = { .stack_bytes = 16 << 10,
                                              .slab_bytes = 1 << 20,
                                              .idle_ns = 100000 };
    struct nio_node_arena *arena;
    if (nio_node_arena_create(&options, &arena) != 0)
        return 1;
    for (unsigned i = 0; i < DEPOTS; i++)
        if (nio_stack_depot_create(arena, &stacks, &depots[i]) != 0)
            return 1;
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        nio_stack_pool_init(&walkers[i].pool, depots[i % DEPOTS]);
        nio_rng_init(&walkers[i].rng, &seed);
    }
    for (unsigned i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, &walkers[i]) != 0)
            return 1;
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: joined once */
    int status = finish();
    for (unsigned i = 0; i < DEPOTS && status == 0; i++)
        nio_stack_depot_destroy(depots[i]);
    if (status == 0)
        nio_node_arena_destroy(arena);
    return status;
}
