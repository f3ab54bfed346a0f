/* SPDX-License-Identifier: MIT */
/* Scenarios in which tasks wake tasks.
 *
 * They exist as futures only: a coroutine waits for tasks and operations, and a bare wake is
 * neither.
 */
#include <stdlib.h>

#include "perf/bench/bench_gated.h"
#include "perf/bench/bench_scenarios.h"

enum { PAIRS = 1000, TRIPS = 10000, TRIPS_ACROSS = 2000 };

/* --- ping_pong ------------------------------------------------------------------------------ */

/* The one-shot channels of a pair sit in the state of the asker, who is the last to use them: the
 * partner's raise of `answer` is its last touch. */
struct asker {
    struct bench_gate *gate;
    struct bench_signal ask, answer;
    bool has_asked;
};

static enum numio_poll partner_poll(void *state, struct numio_context *cx)
{
    struct asker *asker = *(struct asker **)state;
    if (!bench_signal_poll(&asker->ask, cx))
        return NUMIO_PENDING;
    bench_signal_raise(&asker->answer);
    return NUMIO_READY;
}

static enum numio_poll asker_poll(void *state, struct numio_context *cx)
{
    struct asker *a = state;
    if (!a->has_asked) {
        struct numio_future partner = { .poll = partner_poll, .state = &a, .size = sizeof a };
        bench_must(numio_spawn(NULL, &partner, NULL, NULL), "numio_spawn");
        bench_signal_raise(&a->ask);
        a->has_asked = true;
    }
    if (!bench_signal_poll(&a->answer, cx))
        return NUMIO_PENDING;
    bench_gate_leave(a->gate);
    return NUMIO_READY;
}

static void start_askers(struct bench_gated *g)
{
    struct asker asker = { .gate = &g->gate };
    struct numio_future future = { .poll = asker_poll, .state = &asker, .size = sizeof asker };
    for (unsigned i = 0; i < PAIRS; i++)
        bench_must(numio_spawn(NULL, &future, NULL, NULL), "numio_spawn");
}

void bench_ping_pong(struct bench *b)
{
    struct bench_gated g = { .leavers = PAIRS, .repeats = 1, .ops = PAIRS, .start = start_askers };
    bench_gated_run(b, &g);
}

/* --- notify_pingpong, xthread_pingpong ------------------------------------------------------ */

struct table {
    _Alignas(64) struct bench_signal ping;
    _Alignas(64) struct bench_signal pong;
    _Alignas(64) unsigned trips; /* constant */
};

struct player {
    struct table *table;
    unsigned done; /* receipts */
    uint64_t start_ns;
};

/* Its output is the block. */
static enum numio_poll server_poll(void *state, struct numio_context *cx)
{
    struct player *p = state;
    struct table *t = p->table;
    if (p->start_ns == 0) {
        p->start_ns = bench_now_ns();
        bench_signal_raise(&t->ping);
    }
    while (bench_signal_poll(&t->pong, cx)) {
        if (++p->done == t->trips) {
            struct bench_block *block = numio_context_output(cx);
            block->time_ns = bench_now_ns() - p->start_ns;
            block->ops = t->trips;
            return NUMIO_READY;
        }
        bench_signal_raise(&t->ping);
    }
    return NUMIO_PENDING;
}

static enum numio_poll replier_poll(void *state, struct numio_context *cx)
{
    struct player *p = state;
    struct table *t = p->table;
    while (bench_signal_poll(&t->ping, cx)) {
        bench_signal_raise(&t->pong);
        if (++p->done == t->trips)
            return NUMIO_READY;
    }
    return NUMIO_PENDING;
}

static const struct numio_future server_future = { .poll = server_poll,
                                                   .size = sizeof(struct player),
                                                   .output_size = sizeof(struct bench_block) };
static const struct numio_future replier_future = { .poll = replier_poll,
                                                    .size = sizeof(struct player) };

static void spawn_player(struct table *table, struct numio_handle *handle,
                         const struct numio_future *kind, const struct numio_spawn_opts *opts,
                         struct numio_join **ret_join)
{
    struct player player = { .table = table };
    struct numio_future future = *kind;
    future.state = &player;
    bench_must(numio_spawn(handle, &future, opts, ret_join), "numio_spawn");
}

/* Spawns both players beside itself and joins them; its output is the server's. */
struct umpire {
    struct table *table;
    struct numio_join *replier, *server;
    bool has_begun, has_joined_replier;
};

static enum numio_poll umpire_poll(void *state, struct numio_context *cx)
{
    struct umpire *u = state;
    int64_t result;
    if (!u->has_begun) {
        u->has_begun = true;
        spawn_player(u->table, NULL, &replier_future, NULL, &u->replier);
        spawn_player(u->table, NULL, &server_future, NULL, &u->server);
    }
    if (!u->has_joined_replier) {
        if (numio_join_poll(&u->replier, cx, NULL, 0, &result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        bench_must(result, "join of the replier");
        u->has_joined_replier = true;
    }
    if (numio_join_poll(&u->server, cx, numio_context_output(cx), sizeof(struct bench_block),
                        &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    bench_must(result, "join of the server");
    return NUMIO_READY;
}

static struct bench_block notify_block(struct bench *b, void *arg)
{
    struct umpire umpire = { .table = arg };
    return bench_inside(b, umpire_poll, &umpire, sizeof umpire);
}

void bench_notify_pingpong(struct bench *b)
{
    struct table table = { .trips = TRIPS };
    if (!bench_start(b))
        return;
    bench_repeat(b, notify_block, &table);
    bench_stop(b);
}

static struct bench_block across_block(struct bench *b, void *arg)
{
    struct numio_spawn_opts opts;
    struct numio_join *replier, *server;
    struct bench_block block;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    opts.worker = 1;
    spawn_player(arg, b->handle, &replier_future, &opts, &replier);
    opts.worker = 0;
    spawn_player(arg, b->handle, &server_future, &opts, &server);
    bench_must(numio_join_await(&replier), "join of the replier");
    bench_must(numio_join_await_output(&server, &block, sizeof block), "join of the server");
    return block;
}

/* False: there are no two workers on two CPUs; the reason has been told. */
static bool has_two_cpus(struct bench *b)
{
    struct numio_worker_status status[2] = { 0 };
    if (b->workers < 2) {
        bench_skip(b, "needs two workers");
        return false;
    }
    for (unsigned i = 0; i < 2; i++)
        bench_must(numio_worker_status(b->handle, i, &status[i]), "numio_worker_status");
    if (status[0].bind_cpu < 0 || status[0].bind_cpu == status[1].bind_cpu) {
        bench_skip(b, "workers 0 and 1 are not pinned to two CPUs");
        return false;
    }
    return true;
}

void bench_xthread_pingpong(struct bench *b)
{
    struct table table = { .trips = TRIPS_ACROSS };
    if (!bench_start(b))
        return;
    if (has_two_cpus(b))
        bench_repeat(b, across_block, &table);
    bench_stop(b);
}
