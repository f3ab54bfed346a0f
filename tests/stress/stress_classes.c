/* SPDX-License-Identifier: MIT */
/* Tasks of all classes and affinities, on two nodes with two workers each, hand tokens on to random
 * others, sleep a little, change their class, spawn children of theirs; plain threads put tokens in
 * from outside.  Every token must arrive and every task must end, whatever its class and wherever
 * it waits: a wake that is lost stops them all, which the watchdog notices.
 *
 * First a duel: one thread spawns a task of some class, waits for it, and spawns the next while the
 * workers are on their way to sleep.  Nobody else comes by who could find what is overlooked:
 * without nio_sees_ranked() in the look before a sleep, or without the offer in nio_push_ranked(),
 * the task waits for ever.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { MEMBERS = 24, FEEDERS = 2, TOKENS = 12, YIELDS_MAX = 3, SLEEP_NS_MAX = 30000 };

static struct numio_handle *handle;
static struct numio_semaphore boxes[MEMBERS];
static _Atomic uint32_t is_over;
static _Atomic uint64_t handed_on, children;
static uint64_t stop_ns;

struct member {
    struct nio_rng rng;
    unsigned index;
};

static struct numio_spawn_opts draw_place(struct nio_rng *rng)
{
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.sched_class = (enum numio_class)(NUMIO_CLASS_NORMAL + nio_rng_below(rng, 3));
    opts.affinity = (enum numio_affinity)nio_rng_below(rng, 3);
    if (opts.affinity == NUMIO_AFFINITY_WORKER)
        opts.worker = (int)nio_rng_below(rng, 4);
    else if (nio_rng_below(rng, 2))
        opts.node = (int)nio_rng_below(rng, 2);
    return opts;
}

static int64_t run_child(void *arg)
{
    for (uintptr_t i = (uintptr_t)arg; i > 0; i--)
        STRESS_CHECK(numio_yield_now() == 0);
    return (int64_t)(uintptr_t)arg + 1;
}

static void have_a_child(struct member *self)
{
    struct numio_spawn_opts opts = draw_place(&self->rng);
    uintptr_t yields = nio_rng_below(&self->rng, YIELDS_MAX);
    bool inherits = nio_rng_below(&self->rng, 2);
    struct numio_join *join;
    STRESS_CHECK(numio_spawn_co(NULL, run_child, (void *)yields, inherits ? NULL : &opts, &join) ==
                 0);
    STRESS_CHECK(numio_join_await(&join) == (int64_t)yields + 1);
    /* relaxed: a count */
    (void)atomic_fetch_add_explicit(&children, 1, memory_order_relaxed);
}

static int64_t run_member(void *arg)
{
    struct member *self = arg;
    /* relaxed: the token that follows the last one orders it */
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        STRESS_CHECK(numio_semaphore_acquire(&boxes[self->index], 1) == 0);
        switch (nio_rng_below(&self->rng, 6)) {
        case 0:
            STRESS_CHECK(numio_sleep_ns(nio_rng_below(&self->rng, SLEEP_NS_MAX)) == 0);
            break;
        case 1:
            STRESS_CHECK(numio_yield_now() == 0);
            break;
        case 2:
            have_a_child(self);
            break;
        case 3:
            STRESS_CHECK(numio_class_set((enum numio_class)(NUMIO_CLASS_NORMAL +
                                                            nio_rng_below(&self->rng, 3))) == 0);
            break;
        default:
            break;
        }
        STRESS_CHECK(numio_semaphore_release(&boxes[nio_rng_below(&self->rng, MEMBERS)], 1) == 0);
        /* relaxed: a count */
        (void)atomic_fetch_add_explicit(&handed_on, 1, memory_order_relaxed);
    }
    return 0;
}

static uint64_t fight_duel(uint64_t *seed)
{
    struct numio_config config;
    struct numio_runtime *runtime;
    struct nio_rng rng;
    uint64_t rounds = 0, until_ns = nio_now_ns() + (stop_ns - nio_now_ns()) / 4;
    nio_rng_init(&rng, seed);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:1 pu:1";
    config.idle = NUMIO_IDLE_PARK;
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    do {
        struct numio_spawn_opts opts = draw_place(&rng);
        struct numio_join *join;
        opts.worker %= 2;
        STRESS_CHECK(numio_spawn_co(numio_runtime_handle(runtime), run_child, NULL, &opts, &join) ==
                     0);
        int64_t result;
        unsigned spins = 0;
        while ((result = numio_join_try(&join)) == -EAGAIN) /* it does not sleep, either */
            stress_pause(&spins);
        STRESS_CHECK(result == 1);
        stress_jitter(&rng);
        rounds++;
    } while (nio_now_ns() < until_ns);
    numio_runtime_destroy(runtime);
    return rounds;
}

/* Takes tokens out of boxes and puts them into others, from outside. */
static void *feed(void *arg)
{
    struct member *self = arg;
    unsigned spins = 0;
    while (nio_now_ns() < stop_ns) {
        struct numio_semaphore *box = &boxes[nio_rng_below(&self->rng, MEMBERS)];
        if (numio_semaphore_try_acquire(box, 1) == 0)
            STRESS_CHECK(numio_semaphore_release(&boxes[nio_rng_below(&self->rng, MEMBERS)], 1) ==
                         0);
        else
            stress_pause(&spins);
        struct numio_spawn_opts opts = draw_place(&self->rng);
        struct numio_join *join;
        if (nio_rng_below(&self->rng, 8) == 0) {
            STRESS_CHECK(numio_spawn_co(handle, run_child, NULL, &opts, &join) == 0);
            STRESS_CHECK(numio_join_wait(&join, -1) == 1);
        }
    }
    return NULL;
}

int main(void)
{
    static struct member members[MEMBERS], feeders[FEEDERS];
    struct numio_join *joins[MEMBERS];
    pthread_t threads[FEEDERS];
    uint64_t seed;
    struct numio_config config;
    struct numio_runtime *runtime;
    stop_ns = stress_start(&seed);
    uint64_t duels = fight_duel(&seed);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:2 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    handle = numio_runtime_handle(runtime);
    for (unsigned i = 0; i < MEMBERS; i++) {
        nio_rng_init(&members[i].rng, &seed);
        members[i].index = i;
        struct numio_spawn_opts opts = draw_place(&members[i].rng);
        STRESS_CHECK(numio_spawn_co(handle, run_member, &members[i], &opts, &joins[i]) == 0);
    }
    for (unsigned i = 0; i < TOKENS; i++)
        STRESS_CHECK(numio_semaphore_release(&boxes[i % MEMBERS], 1) == 0);
    for (unsigned i = 0; i < FEEDERS; i++) {
        nio_rng_init(&feeders[i].rng, &seed);
        STRESS_CHECK(pthread_create(&threads[i], NULL, feed, &feeders[i]) == 0);
    }
    for (unsigned i = 0; i < FEEDERS; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: joined once */
    /* relaxed: as above */
    atomic_store_explicit(&is_over, 1, memory_order_relaxed);
    for (unsigned i = 0; i < MEMBERS; i++)
        STRESS_CHECK(numio_semaphore_release(&boxes[i], 1) == 0);
    for (unsigned i = 0; i < MEMBERS; i++)
        STRESS_CHECK(numio_join_wait(&joins[i], -1) == 0);
    uint64_t tokens = 0;
    for (unsigned i = 0; i < MEMBERS; i++)
        tokens += numio_semaphore_available(&boxes[i]);
    STRESS_CHECK(tokens == TOKENS + MEMBERS);
    numio_runtime_destroy(runtime); /* asserts that every cell came home */
    /* relaxed: the tasks have ended */
    uint64_t moves = atomic_load_explicit(&handed_on, memory_order_relaxed);
    /* relaxed: as above */
    uint64_t born = atomic_load_explicit(&children, memory_order_relaxed);
    printf("stress_classes: %llu duels, %llu tokens handed on, %llu children\n",
           (unsigned long long)duels, (unsigned long long)moves, (unsigned long long)born);
    return moves == 0 || born == 0;
}
