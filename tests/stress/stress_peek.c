/* SPDX-License-Identifier: MIT */
/* A thread looks at what the workers run, while tasks end, their cells are freed and used again,
 * and the large ones' memory goes back at once.  What it is told was running: a task whose end
 * somebody has seen before the look began is not.  Its name and its place in the source belong
 * together.
 *
 * If the worker still names the task when it gives it away [CR5], AddressSanitizer reports the read
 * of what was freed, and joined tasks are said to run.
 */
#include <pthread.h>

#include <numio/numio.h>

#include "runtime/sched/worker.h"
#include "tests/stress/stress.h"

enum { BATCH = 16, GENERATIONS = 64, LARGE_BYTES = 6000, PAUSES_MAX = 3 };

/* A name tells of its task which generation it is of, and its place in the batch. */
static char names[GENERATIONS][BATCH];
static _Atomic uint32_t begun, ended; /* generations: the last begun, the last seen to have ended */
static _Atomic uint32_t is_over;
static _Atomic int line_of_coroutine, line_of_future;

struct state {
    unsigned left;
    char bytes[LARGE_BYTES];
};

static enum numio_poll count_down(void *arg, struct numio_context *cx)
{
    struct state *state = arg;
    if (state->left-- == 0)
        return NUMIO_READY;
    struct numio_waker waker = numio_context_waker(cx);
    numio_waker_wake(&waker);
    return NUMIO_PENDING;
}

static int64_t yield_some(void *arg)
{
    for (intptr_t i = (intptr_t)arg; i > 0; i--)
        STRESS_CHECK(numio_yield_now() == 0);
    return 0;
}

static void spawn_one(unsigned generation, unsigned i, struct numio_join **ret_join)
{
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.name = &names[generation % GENERATIONS][i];
    if (i % 2) {
        intptr_t pauses = i % PAUSES_MAX;
        /* relaxed: read when it has run */
        atomic_store_explicit(&line_of_coroutine, __LINE__ + 1, memory_order_relaxed);
        STRESS_CHECK(numio_spawn_co(NULL, yield_some, (void *)pauses, &opts, ret_join) == 0);
    } else {
        struct state state = { .left = i % PAUSES_MAX };
        struct numio_future future = { .poll = count_down, .state = &state, .size = sizeof state };
        /* relaxed: as above */
        atomic_store_explicit(&line_of_future, __LINE__ + 1, memory_order_relaxed);
        STRESS_CHECK(numio_spawn(NULL, &future, &opts, ret_join) == 0);
    }
}

static int64_t spawn_and_join(void *arg)
{
    (void)arg;
    /* relaxed: heard late is heard as well */
    for (uint32_t g = 1; !atomic_load_explicit(&is_over, memory_order_relaxed); g++) {
        struct numio_join *joins[BATCH];
        /* [SX1] release: before its tasks are there.  Pairs with [SX2]. */
        atomic_store_explicit(&begun, g, memory_order_release);
        for (unsigned i = 0; i < BATCH; i++)
            spawn_one(g, i, &joins[i]);
        for (unsigned i = 0; i < BATCH; i++)
            STRESS_CHECK(numio_join_await(&joins[i]) == 0);
        /* [SX1] release: their ends were seen.  Pairs with [SX2]. */
        atomic_store_explicit(&ended, g, memory_order_release);
    }
    return 0;
}

/* What is said to run.  False: nothing that was spawned here. */
static bool look(const struct nio_worker *worker)
{
    struct numio_task_meta meta;
    /* [SX2] acquire: whoever ended before this has ended before the look. */
    uint32_t before = atomic_load_explicit(&ended, memory_order_acquire);
    if (!nio_worker_peek(worker, &meta) || meta.name < &names[0][0] ||
        meta.name > &names[GENERATIONS - 1][BATCH - 1])
        return false;
    /* [SX2] acquire: whatever was seen to run has begun. */
    uint32_t after = atomic_load_explicit(&begun, memory_order_acquire);
    size_t index = (size_t)(meta.name - &names[0][0]);
    uint32_t generation = (uint32_t)(index / BATCH);
    /* More than that have passed by: nothing can be said. */
    if (after - before < GENERATIONS)
        STRESS_CHECK((generation - before - 1) % GENERATIONS < after - before);
    /* relaxed: written before it was spawned */
    int line = atomic_load_explicit(index % 2 ? &line_of_coroutine : &line_of_future,
                                    memory_order_relaxed);
    STRESS_CHECK(meta.line == line);
    return true;
}

int main(void)
{
    struct numio_runtime *runtime;
    struct numio_config config;
    struct numio_status status;
    struct numio_join *join;
    uint64_t seed, looks = 0, hits = 0, stop_ns = stress_start(&seed);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:1 numa:1 core:2 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    STRESS_CHECK(numio_status(handle, &status) == 0);
    STRESS_CHECK(numio_spawn_co(handle, spawn_and_join, NULL, NULL, &join) == 0);
    do {
        for (unsigned i = 0; i < status.workers; i++, looks++)
            hits += look(handle->workers[i]);
    } while (looks % 4096 != 0 || nio_now_ns() < stop_ns);
    /* relaxed: heard late is heard as well */
    atomic_store_explicit(&is_over, 1, memory_order_relaxed);
    STRESS_CHECK(numio_join_wait(&join, -1) == 0);
    numio_runtime_destroy(runtime);
    printf("stress_peek: %llu looks, %llu times something ran\n", (unsigned long long)looks,
           (unsigned long long)hits);
    return hits == 0;
}
