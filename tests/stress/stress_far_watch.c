/* SPDX-License-Identifier: MIT */
/* A worker spawns a few tasks, too few to be worth a way to another node, or some come to its node
 * from outside, and it stays in its poll until all of them have run: they can only be run by the
 * other node's worker, which is asleep, about to sleep, or just awake.  If nobody comes everything
 * stops.
 *
 * The two change roles by turns, with pauses of any length, so that whoever is to help has watched
 * already, or has to be woken for it.
 */
#include <numio/numio.h>

#include "runtime/sched/policy.h"
#include "runtime/sched/worker.h"
#include "tests/stress/stress.h"

enum { PAUSE_NS_MAX = 3000000, OUTSIDE_MAX = 50 };

static _Atomic unsigned left; /* tasks of this round that have not run */

static enum numio_poll count_down(void *state, struct numio_context *cx)
{
    (void)state;
    (void)cx;
    /* [SW1] release: all of it comes before the holder goes on.  Pairs with [SW2]. */
    (void)atomic_fetch_sub_explicit(&left, 1, memory_order_release);
    return NUMIO_READY;
}

static enum numio_poll do_nothing(void *state, struct numio_context *cx)
{
    (void)state;
    (void)cx;
    return NUMIO_READY;
}

/* The last spawned stands in the LIFO slot, which is this worker's own. */
static int64_t hold(void *arg)
{
    unsigned mine = *(unsigned *)arg, spins = 0;
    struct numio_future future = { .poll = count_down }, last = { .poll = do_nothing };
    for (unsigned i = 0; i < mine; i++)
        STRESS_CHECK(numio_spawn(NULL, &future, NULL, NULL) == 0);
    STRESS_CHECK(numio_spawn(NULL, &last, NULL, NULL) == 0);
    /* [SW2] acquire: pairs with [SW1] */
    while (atomic_load_explicit(&left, memory_order_acquire) > 0)
        stress_pause(&spins);
    return 0;
}

static uint64_t stolen(struct numio_handle *handle)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < handle->worker_count; i++)
        sum += nio_counter(&handle->workers[i]->counters.stolen_far);
    return sum;
}

int main(void)
{
    struct numio_runtime *runtime;
    struct numio_config config;
    struct nio_rng rng;
    uint64_t seed, rounds = 0, tasks = 0, stop_ns = stress_start(&seed);
    nio_rng_init(&rng, &seed);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:1 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    for (; nio_now_ns() < stop_ns; rounds++) {
        unsigned count = 1 + nio_rng_below(&rng, NIO_FAR_DEPTH - 1), mine = count;
        struct numio_future future = { .poll = count_down };
        struct numio_spawn_opts opts;
        struct numio_join *join;
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.affinity = NUMIO_AFFINITY_WORKER;
        opts.worker = (int)nio_rng_below(&rng, 2);
        if (nio_rng_below(&rng, 2) == 0) {
            mine = nio_rng_below(&rng, 2) * count;
            count += OUTSIDE_MAX * nio_rng_below(&rng, 2);
        }
        /* relaxed: before they are there */
        atomic_store_explicit(&left, count, memory_order_relaxed);
        STRESS_CHECK(numio_spawn_co(handle, hold, &mine, &opts, &join) == 0);
        opts.node = (int)handle->workers[opts.worker]->node->index;
        opts.affinity = NUMIO_AFFINITY_ANY;
        for (unsigned i = mine; i < count; i++)
            STRESS_CHECK(numio_spawn(handle, &future, &opts, NULL) == 0);
        STRESS_CHECK(numio_join_wait(&join, -1) == 0);
        tasks += count;
        (void)usleep(nio_rng_below(&rng, PAUSE_NS_MAX) / 1000); /* any length will do */
    }
    uint64_t far = stolen(handle);
    numio_runtime_destroy(runtime);
    printf("stress_far_watch: %llu rounds, %llu tasks, %llu of them stolen\n",
           (unsigned long long)rounds, (unsigned long long)tasks, (unsigned long long)far);
    return far == 0;
}
