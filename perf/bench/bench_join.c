/* SPDX-License-Identifier: MIT */
#include "perf/bench/bench_join.h"

static enum numio_poll empty_poll(void *state, struct numio_context *cx)
{
    (void)state;
    (void)cx;
    return NUMIO_READY;
}

static int64_t empty_co(void *arg)
{
    (void)arg;
    return 0;
}

static const struct numio_future empty_future = { .poll = empty_poll };

int bench_spawn_empty(struct bench *b, struct numio_handle *handle, struct numio_join **ret_join)
{
    if (b->scenario->flavor == BENCH_COROUTINE)
        return numio_spawn_co(handle, empty_co, NULL, NULL, ret_join);
    return numio_spawn(handle, &empty_future, NULL, ret_join);
}

static void check_result(int64_t result)
{
    if (result != 0)
        bench_fail("an empty task returned %lld", (long long)result);
}

static void finish(struct bench_block *block, uint64_t start_ns, uint64_t ops)
{
    block->time_ns = bench_now_ns() - start_ns;
    block->ops = ops;
}

/* --- one after the other -------------------------------------------------------------------- */

struct each_root {
    uint64_t count, spawned, start_ns;
    struct numio_join *join; /* the one to wait for, NULL between two */
};

static enum numio_poll each_poll(void *state, struct numio_context *cx)
{
    struct each_root *r = state;
    if (r->spawned == 0)
        r->start_ns = bench_now_ns();
    for (;;) { /* count + 1 rounds at most */
        if (!r->join) {
            if (r->spawned == r->count)
                break;
            bench_must(numio_spawn(NULL, &empty_future, NULL, &r->join), "numio_spawn");
            r->spawned++;
        }
        int64_t result;
        if (numio_join_poll(&r->join, cx, NULL, 0, &result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        check_result(result);
    }
    finish(numio_context_output(cx), r->start_ns, r->count);
    return NUMIO_READY;
}

struct co_root {
    uint64_t count;
    struct numio_join **joins;
    struct bench_block block;
};

static int64_t each_co(void *arg)
{
    struct co_root *r = arg;
    uint64_t start_ns = bench_now_ns();
    for (uint64_t i = 0; i < r->count; i++) {
        struct numio_join *join;
        bench_must(numio_spawn_co(NULL, empty_co, NULL, NULL, &join), "numio_spawn_co");
        check_result(numio_join_await(&join));
    }
    finish(&r->block, start_ns, r->count);
    return 0;
}

struct bench_block bench_join_each(struct bench *b, uint64_t count)
{
    if (b->scenario->flavor == BENCH_COROUTINE) {
        struct co_root root = { .count = count };
        bench_must(numio_block_on(b->handle, each_co, &root), "numio_block_on");
        return root.block;
    }
    struct each_root root = { .count = count };
    return bench_inside(b, each_poll, &root, sizeof root);
}

/* --- all at once ---------------------------------------------------------------------------- */

struct all_root {
    struct numio_join **joins;
    size_t count, joined;
    uint64_t start_ns;
};

static enum numio_poll all_poll(void *state, struct numio_context *cx)
{
    struct all_root *r = state;
    if (r->start_ns == 0) {
        r->start_ns = bench_now_ns();
        for (size_t i = 0; i < r->count; i++)
            bench_must(numio_spawn(NULL, &empty_future, NULL, &r->joins[i]), "numio_spawn");
    }
    for (; r->joined < r->count; r->joined++) {
        int64_t result;
        if (numio_join_poll(&r->joins[r->joined], cx, NULL, 0, &result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        check_result(result);
    }
    finish(numio_context_output(cx), r->start_ns, r->count);
    return NUMIO_READY;
}

static int64_t all_co(void *arg)
{
    struct co_root *r = arg;
    uint64_t start_ns = bench_now_ns();
    for (size_t i = 0; i < r->count; i++)
        bench_must(numio_spawn_co(NULL, empty_co, NULL, NULL, &r->joins[i]), "numio_spawn_co");
    for (size_t i = 0; i < r->count; i++)
        check_result(numio_join_await(&r->joins[i]));
    finish(&r->block, start_ns, r->count);
    return 0;
}

struct bench_block bench_join_all(struct bench *b, struct numio_join **joins, size_t count)
{
    if (b->scenario->flavor == BENCH_COROUTINE) {
        struct co_root root = { .joins = joins, .count = count };
        bench_must(numio_block_on(b->handle, all_co, &root), "numio_block_on");
        return root.block;
    }
    struct all_root root = { .joins = joins, .count = count };
    return bench_inside(b, all_poll, &root, sizeof root);
}
