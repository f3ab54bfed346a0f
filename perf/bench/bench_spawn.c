/* SPDX-License-Identifier: MIT */
/* Scenarios that spawn, join and yield from inside the runtime. */
#include <stdlib.h>

#include "perf/bench/bench_gated.h"
#include "perf/bench/bench_join.h"
#include "perf/bench/bench_scenarios.h"

enum { SPAWNS = 10000, CHAIN_DEPTH = 1000, CHAINS = 10, YIELDERS = 200, YIELDS = 1000 };

/* --- spawn_many_local ----------------------------------------------------------------------- */

static enum numio_poll leave_poll(void *state, struct numio_context *cx)
{
    (void)cx;
    bench_gate_leave(*(struct bench_gate **)state);
    return NUMIO_READY;
}

static int64_t leave_co(void *arg)
{
    bench_gate_leave(arg);
    return 0;
}

static void start_leavers(struct bench_gated *g)
{
    struct bench_gate *gate = &g->gate;
    struct numio_future leave = { .poll = leave_poll, .state = &gate, .size = sizeof gate };
    for (unsigned i = 0; i < SPAWNS; i++)
        bench_must(numio_spawn(NULL, &leave, NULL, NULL), "numio_spawn");
}

static void start_leavers_co(struct bench_gated *g)
{
    for (unsigned i = 0; i < SPAWNS; i++)
        bench_must(numio_spawn_co(NULL, leave_co, &g->gate, NULL, NULL), "numio_spawn_co");
}

void bench_spawn_many_local(struct bench *b)
{
    struct bench_gated g = { .leavers = SPAWNS, .repeats = 1, .ops = SPAWNS };
    g.start = b->scenario->flavor == BENCH_COROUTINE ? start_leavers_co : start_leavers;
    bench_gated_run(b, &g);
}

/* --- spawn_join_each, spawn_join_10k -------------------------------------------------------- */

static struct bench_block join_each_block(struct bench *b, void *arg)
{
    (void)arg;
    return bench_join_each(b, SPAWNS);
}

void bench_spawn_join_each(struct bench *b)
{
    if (!bench_start(b))
        return;
    bench_repeat(b, join_each_block, NULL);
    bench_stop(b);
}

static struct bench_block join_all_block(struct bench *b, void *joins)
{
    return bench_join_all(b, joins, SPAWNS);
}

void bench_spawn_join_10k(struct bench *b)
{
    if (!bench_start(b))
        return;
    struct numio_join **joins = bench_alloc(SPAWNS, sizeof(joins[0]));
    bench_repeat(b, join_all_block, joins);
    bench_stop(b);
    free(joins);
}

/* --- chained_spawn -------------------------------------------------------------------------- */

/* A link of the chain; as a coroutine it finds itself in the array that outlives the chain. */
struct link {
    struct bench_gate *gate;
    unsigned left;
};

static enum numio_poll link_poll(void *state, struct numio_context *cx)
{
    (void)cx;
    const struct link *mine = state;
    if (mine->left == 1) {
        bench_gate_leave(mine->gate);
        return NUMIO_READY;
    }
    struct link next = { .gate = mine->gate, .left = mine->left - 1 };
    struct numio_future future = { .poll = link_poll, .state = &next, .size = sizeof next };
    bench_must(numio_spawn(NULL, &future, NULL, NULL), "numio_spawn");
    return NUMIO_READY;
}

static int64_t link_co(void *arg)
{
    const struct link *mine = arg;
    if (mine->left == 1) {
        bench_gate_leave(mine->gate);
        return 0;
    }
    struct link *next = (struct link *)arg + 1;
    bench_must(numio_spawn_co(NULL, link_co, next, NULL, NULL), "numio_spawn_co");
    return 0;
}

static void start_chain(struct bench_gated *g)
{
    struct link first = { .gate = &g->gate, .left = CHAIN_DEPTH };
    struct numio_future future = { .poll = link_poll, .state = &first, .size = sizeof first };
    bench_must(numio_spawn(NULL, &future, NULL, NULL), "numio_spawn");
}

static void start_chain_co(struct bench_gated *g)
{
    bench_must(numio_spawn_co(NULL, link_co, g->arg, NULL, NULL), "numio_spawn_co");
}

void bench_chained_spawn(struct bench *b)
{
    struct bench_gated g = { .leavers = 1, .repeats = CHAINS, .ops = CHAINS * CHAIN_DEPTH };
    struct link *links = bench_alloc(CHAIN_DEPTH, sizeof(links[0]));
    for (unsigned i = 0; i < CHAIN_DEPTH; i++)
        links[i] = (struct link){ .gate = &g.gate, .left = CHAIN_DEPTH - i };
    g.arg = links;
    g.start = b->scenario->flavor == BENCH_COROUTINE ? start_chain_co : start_chain;
    bench_gated_run(b, &g);
    free(links);
}

/* --- yield_many ----------------------------------------------------------------------------- */

struct yielder {
    struct bench_gate *gate;
    unsigned left;
};

static enum numio_poll yielder_poll(void *state, struct numio_context *cx)
{
    struct yielder *y = state;
    if (y->left == 0) {
        bench_gate_leave(y->gate);
        return NUMIO_READY;
    }
    y->left--;
    numio_context_yield(cx);
    return NUMIO_PENDING;
}

static int64_t yielder_co(void *arg)
{
    for (unsigned i = 0; i < YIELDS; i++)
        bench_must(numio_yield_now(), "numio_yield_now");
    bench_gate_leave(arg);
    return 0;
}

static void start_yielders(struct bench_gated *g)
{
    struct yielder y = { .gate = &g->gate, .left = YIELDS };
    struct numio_future future = { .poll = yielder_poll, .state = &y, .size = sizeof y };
    for (unsigned i = 0; i < YIELDERS; i++)
        bench_must(numio_spawn(NULL, &future, NULL, NULL), "numio_spawn");
}

static void start_yielders_co(struct bench_gated *g)
{
    for (unsigned i = 0; i < YIELDERS; i++)
        bench_must(numio_spawn_co(NULL, yielder_co, &g->gate, NULL, NULL), "numio_spawn_co");
}

void bench_yield_many(struct bench *b)
{
    struct bench_gated g = { .leavers = YIELDERS, .repeats = 1, .ops = YIELDERS * YIELDS };
    g.start = b->scenario->flavor == BENCH_COROUTINE ? start_yielders_co : start_yielders;
    bench_gated_run(b, &g);
}
