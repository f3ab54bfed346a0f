/* SPDX-License-Identifier: MIT */
/* Scenarios that spawn from a thread which is no worker.
 *
 * The stop flag of the tasks that keep the workers busy: written by the main thread, read by them;
 * nothing else hangs on it, so every access is relaxed.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "perf/bench/bench_join.h"
#include "perf/bench/bench_scenarios.h"

enum { SPAWNS = 10000, SPAWNS_BUSY2 = 1000, BURN_NS = 10000, BUSY_PER_WORKER = 2 };

struct remote {
    struct numio_join **joins;
    size_t count;
    atomic_bool is_stopped; /* of the busy tasks */
};

static int64_t join_in_order(void *arg)
{
    struct remote *r = arg;
    for (size_t i = 0; i < r->count; i++) {
        int64_t result = numio_join_await(&r->joins[i]);
        if (result != 0)
            bench_fail("an empty task returned %lld", (long long)result);
    }
    return (int64_t)r->count;
}

static struct bench_block remote_block(struct bench *b, void *arg)
{
    struct remote *r = arg;
    uint64_t start_ns = bench_now_ns();
    for (size_t i = 0; i < r->count; i++)
        bench_must(bench_spawn_empty(b, b->handle, &r->joins[i]), "spawn from outside");
    int64_t joined = numio_block_on(b->handle, join_in_order, r);
    struct bench_block block = { .time_ns = bench_now_ns() - start_ns, .ops = r->count };
    bench_must(joined, "numio_block_on");
    return block;
}

static void burn(void)
{
    uint64_t start_ns = bench_now_ns();
    while (bench_now_ns() - start_ns < BURN_NS)
        ;
}

static bool is_stopped(const struct remote *r)
{
    /* relaxed: see the design note. */
    return atomic_load_explicit(&r->is_stopped, memory_order_relaxed);
}

/* --- busy1: burn, yield, for ever ----------------------------------------------------------- */

static enum numio_poll yield_busy_poll(void *state, struct numio_context *cx)
{
    const struct remote *r = *(struct remote **)state;
    if (is_stopped(r) || numio_is_cancelled())
        return NUMIO_READY;
    burn();
    numio_context_yield(cx);
    return NUMIO_PENDING;
}

static int64_t yield_busy_co(void *arg)
{
    const struct remote *r = arg;
    while (!is_stopped(r) && numio_yield_now() == 0)
        burn();
    return 0;
}

static int spawn_yield_busy(struct bench *b, struct remote *r)
{
    if (b->scenario->flavor == BENCH_COROUTINE)
        return numio_spawn_co(b->handle, yield_busy_co, r, NULL, NULL);
    struct numio_future future = { .poll = yield_busy_poll, .state = &r, .size = sizeof r };
    return numio_spawn(b->handle, &future, NULL, NULL);
}

/* --- busy2: burn, spawn the successor, end -------------------------------------------------- */

static enum numio_poll spawn_busy_poll(void *state, struct numio_context *cx)
{
    (void)cx;
    struct remote *r = *(struct remote **)state;
    burn();
    if (!is_stopped(r)) {
        struct numio_future next = { .poll = spawn_busy_poll, .state = &r, .size = sizeof r };
        bench_must(numio_spawn(NULL, &next, NULL, NULL), "numio_spawn");
    }
    return NUMIO_READY;
}

static int64_t spawn_busy_co(void *arg)
{
    burn();
    if (!is_stopped(arg))
        bench_must(numio_spawn_co(NULL, spawn_busy_co, arg, NULL, NULL), "numio_spawn_co");
    return 0;
}

static int spawn_spawn_busy(struct bench *b, struct remote *r)
{
    if (b->scenario->flavor == BENCH_COROUTINE)
        return numio_spawn_co(b->handle, spawn_busy_co, r, NULL, NULL);
    struct numio_future future = { .poll = spawn_busy_poll, .state = &r, .size = sizeof r };
    return numio_spawn(b->handle, &future, NULL, NULL);
}

/* -------------------------------------------------------------------------------------------- */

static void wait_for_busy_tasks(struct bench *b)
{
    const struct timespec pause = { .tv_nsec = 1000000 };
    const unsigned pauses_max = 10000; /* ten seconds for tasks of ten microseconds */
    for (unsigned i = 0; numio_live_tasks(b->handle) > 0; i++) {
        if (i == pauses_max)
            bench_fail("%s: the busy tasks did not end", b->scenario->name);
        (void)nanosleep(&pause, NULL); /* woken early, it looks again earlier */
    }
}

static void run_remote(struct bench *b, size_t count,
                       int (*spawn_busy)(struct bench *b, struct remote *r))
{
    if (!bench_start(b))
        return;
    struct remote r = { .count = count, .joins = bench_alloc(count, sizeof(r.joins[0])) };
    for (unsigned i = 0; spawn_busy && i < BUSY_PER_WORKER * b->workers; i++)
        bench_must(spawn_busy(b, &r), "spawn of a busy task");
    bench_repeat(b, remote_block, &r);
    /* relaxed: see the design note. */
    atomic_store_explicit(&r.is_stopped, true, memory_order_relaxed);
    wait_for_busy_tasks(b);
    bench_stop(b);
    free(r.joins);
}

void bench_spawn_many_remote_idle(struct bench *b)
{
    run_remote(b, SPAWNS, NULL);
}

void bench_spawn_many_remote_busy1(struct bench *b)
{
    run_remote(b, SPAWNS, spawn_yield_busy);
}

void bench_spawn_many_remote_busy2(struct bench *b)
{
    run_remote(b, SPAWNS_BUSY2, spawn_spawn_busy);
}
