/* SPDX-License-Identifier: MIT */
/* The round trip to the blocking pool and back. */
#include "perf/bench/bench_scenarios.h"

enum { TRIPS = 1000 };

static int64_t return_arg(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

static void check_result(int64_t result, uintptr_t want)
{
    if (result != (int64_t)want)
        bench_fail("a blocking function returned %lld, not %lld", (long long)result,
                   (long long)want);
}

static void submit(uintptr_t index, struct numio_join **ret_join)
{
    bench_must(numio_spawn_blocking(NULL, return_arg, (void *)index, NULL, ret_join),
               "numio_spawn_blocking");
}

struct root {
    uintptr_t joined;
    struct numio_join *join; /* NULL between two */
    uint64_t start_ns;
};

static enum numio_poll root_poll(void *state, struct numio_context *cx)
{
    struct root *r = state;
    if (r->start_ns == 0)
        r->start_ns = bench_now_ns();
    for (; r->joined < TRIPS; r->joined++) {
        int64_t result;
        if (!r->join)
            submit(r->joined, &r->join);
        if (numio_join_poll(&r->join, cx, NULL, 0, &result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        check_result(result, r->joined);
    }
    struct bench_block *block = numio_context_output(cx);
    block->time_ns = bench_now_ns() - r->start_ns;
    block->ops = TRIPS;
    return NUMIO_READY;
}

static int64_t root_co(void *arg)
{
    struct bench_block *block = arg;
    uint64_t start_ns = bench_now_ns();
    for (uintptr_t i = 0; i < TRIPS; i++) {
        struct numio_join *join;
        submit(i, &join);
        check_result(numio_join_await(&join), i);
    }
    block->time_ns = bench_now_ns() - start_ns;
    block->ops = TRIPS;
    return 0;
}

static struct bench_block trips_block(struct bench *b, void *arg)
{
    (void)arg;
    struct root root = { 0 };
    struct bench_block block;
    if (b->scenario->flavor == BENCH_FUTURE)
        return bench_inside(b, root_poll, &root, sizeof root);
    bench_must(numio_block_on(b->handle, root_co, &block), "numio_block_on");
    return block;
}

void bench_spawn_blocking(struct bench *b)
{
    if (!bench_start(b))
        return;
    bench_repeat(b, trips_block, NULL);
    bench_stop(b);
}
