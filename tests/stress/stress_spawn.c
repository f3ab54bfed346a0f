/* SPDX-License-Identifier: MIT */
/* Trees of tasks are spawned from plain threads and from tasks, one by one and in batches, as
 * futures and coroutines, with every affinity, joined or detached, on queues of four: everything
 * overflows into the inject queues, everything is stolen, and every cell goes home.  Each task runs
 * exactly once and where its affinity wants it.
 *
 * Weakened [LQ1] or [LQ2] (queues), [BL1] or [BL2] (inject), [LS1] or [LS2] (the LIFO slot), [BM1]
 * or [BM2] (cells on their way home): ThreadSanitizer reports the task's state.
 */
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { THREADS = 2, DEPTH_MAX = 3, CHILDREN_MAX = 5, ROUND_TREES = 8, PATIENCE_US = 100 };

struct work {
    struct numio_handle *handle;
    uint64_t seed;
    uint64_t check; /* ~seed: a cell that was mixed up shows */
    int depth;
    int node, worker; /* where it must run, -1 anywhere */
    bool has_run;
};

static _Atomic uint64_t spawned, run; /* of the present runtime */
static uint64_t stop_ns;

static void count(_Atomic uint64_t *counter, uint64_t amount)
{
    /* relaxed: a sum; what it counts is ordered by the runtime under test */
    (void)atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

static void spawn_children(const struct work *parent, struct nio_rng *rng);

static void do_work(struct work *work)
{
    STRESS_CHECK(!work->has_run && work->check == ~work->seed);
    work->has_run = true;
    STRESS_CHECK(work->node < 0 || work->node == numio_current_node());
    STRESS_CHECK(work->worker < 0 || work->worker == numio_current_worker());
    uint64_t seed = work->seed;
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    if (work->depth < DEPTH_MAX)
        spawn_children(work, &rng);
    count(&run, 1);
}

static enum numio_poll poll_work(void *state, struct numio_context *cx)
{
    struct work *work = state;
    if (!work->has_run && work->seed % 3 == 0 && work->depth % 2 == 0) {
        work->seed++;
        work->check = ~work->seed;
        numio_context_yield(cx); /* and perhaps another worker goes on */
        return NUMIO_PENDING;
    }
    do_work(work);
    return NUMIO_READY;
}

static int64_t run_work(void *arg)
{
    struct work work = *(struct work *)arg;
    free(arg);
    if (work.seed % 2)
        STRESS_CHECK(numio_yield_now() == 0); /* nobody aborts here */
    do_work(&work);
    return work.depth;
}

static struct work make_work(const struct work *parent, struct nio_rng *rng,
                             struct numio_spawn_opts *opts)
{
    struct numio_status status;
    STRESS_CHECK(numio_status(parent->handle, &status) == 0);
    struct work work = { .handle = parent->handle,
                         .seed = nio_rng_next(rng) >> 1,
                         .depth = parent->depth + 1,
                         .node = -1,
                         .worker = -1 };
    work.check = ~work.seed;
    numio_spawn_opts_init(opts, sizeof *opts);
    opts->affinity = (enum numio_affinity)nio_rng_below(rng, 3);
    if (opts->affinity == NUMIO_AFFINITY_NODE)
        opts->node = work.node = (int)nio_rng_below(rng, status.nodes);
    else if (opts->affinity == NUMIO_AFFINITY_WORKER)
        opts->worker = work.worker = (int)nio_rng_below(rng, status.workers);
    return work;
}

static void spawn_batch(const struct work *parent, struct nio_rng *rng)
{
    struct numio_spawn_opts opts;
    struct work first = make_work(parent, rng, &opts), works[CHILDREN_MAX];
    struct numio_future futures[CHILDREN_MAX];
    uint32_t children = 1 + nio_rng_below(rng, CHILDREN_MAX);
    for (uint32_t i = 0; i < children; i++) {
        works[i] = first;
        works[i].seed += i;
        works[i].check = ~works[i].seed;
        futures[i] =
            (struct numio_future){ .poll = poll_work, .state = &works[i], .size = sizeof works[i] };
    }
    count(&spawned, children);
    STRESS_CHECK(numio_spawn_batch(parent->handle, futures, children, &opts, NULL) == 0);
}

static void spawn_one(const struct work *parent, struct nio_rng *rng)
{
    struct numio_spawn_opts opts;
    struct work work = make_work(parent, rng, &opts);
    struct numio_join *join = NULL;
    bool is_detached = nio_rng_below(rng, 2);
    count(&spawned, 1);
    if (nio_rng_below(rng, 2)) {
        struct work *copy = malloc(sizeof *copy);
        STRESS_CHECK(copy != NULL);
        *copy = work;
        STRESS_CHECK(
            numio_spawn_co(parent->handle, run_work, copy, &opts, is_detached ? NULL : &join) == 0);
    } else {
        struct numio_future future = { .poll = poll_work, .state = &work, .size = sizeof work };
        STRESS_CHECK(numio_spawn(parent->handle, &future, &opts, is_detached ? NULL : &join) == 0);
    }
    numio_join_detach(&join);
}

static void spawn_children(const struct work *parent, struct nio_rng *rng)
{
    for (uint32_t i = nio_rng_below(rng, CHILDREN_MAX); i > 0; i--) {
        if (nio_rng_below(rng, 3) == 0)
            spawn_batch(parent, rng);
        else
            spawn_one(parent, rng);
    }
}

struct spawner {
    struct numio_handle *handle;
    uint64_t seed;
};

static void *run_spawner(void *arg)
{
    struct spawner *self = arg;
    struct nio_rng rng;
    nio_rng_init(&rng, &self->seed);
    struct work root = { .handle = self->handle };
    for (unsigned i = 0; i < ROUND_TREES; i++)
        spawn_children(&root, &rng);
    return NULL;
}

static void wait_until_run(struct numio_handle *handle)
{
    /* relaxed: looked at until it is so */
    while (atomic_load_explicit(&run, memory_order_relaxed) <
           /* relaxed: as above; parents count their children before they count as run */
           atomic_load_explicit(&spawned, memory_order_relaxed))
        (void)usleep(PATIENCE_US);
    while (numio_live_tasks(handle) > 0)
        (void)usleep(PATIENCE_US); /* the last ones end */
}

static uint64_t run_round(uint64_t *seed, unsigned round)
{
    struct numio_config config;
    struct numio_runtime *runtime;
    struct spawner spawners[THREADS];
    pthread_t threads[THREADS];
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = round % 2 ? "pack:2 numa:1 core:2 pu:1" : "pack:1 numa:1 core:3 pu:1";
    config.driver = round % 4 < 2 ? NUMIO_DRIVER_EPOLL : NUMIO_DRIVER_AUTO;
    config.rng_seed = nio_seed_next(seed) | 1;
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    atomic_init(&spawned, 0);
    atomic_init(&run, 0);
    for (unsigned i = 0; i < THREADS; i++) {
        spawners[i] = (struct spawner){ numio_runtime_handle(runtime), nio_seed_next(seed) };
        STRESS_CHECK(pthread_create(&threads[i], NULL, run_spawner, &spawners[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: joined once */
    wait_until_run(numio_runtime_handle(runtime));
    numio_runtime_destroy(runtime); /* asserts that every cell came home */
    /* relaxed: all threads are gone */
    uint64_t tasks = atomic_load_explicit(&run, memory_order_relaxed);
    /* relaxed: as above */
    STRESS_CHECK(tasks == atomic_load_explicit(&spawned, memory_order_relaxed));
    return tasks;
}

int main(void)
{
    uint64_t seed, total = 0;
    unsigned rounds = 0;
    stop_ns = stress_start(&seed);
    do {
        total += run_round(&seed, rounds++);
    } while (nio_now_ns() < stop_ns);
    printf("stress_spawn: %u runtimes, %llu tasks\n", rounds, (unsigned long long)total);
    return total == 0;
}
