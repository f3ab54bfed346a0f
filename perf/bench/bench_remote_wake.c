/* SPDX-License-Identifier: MIT */
/* How long a plain thread's wake takes to reach a task of an idle runtime, and what it costs.
 *
 * The listener, a task, waits for the bell; the ringer is the main thread on a CPU without a
 * worker.  Per wake the listener writes heard_ns and then heard; the ringer waits for heard.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "perf/bench/bench_cpus.h"
#include "perf/bench/bench_scenarios.h"
#include "perf/bench/bench_signal.h"
#include "perf/bench/bench_stats.h"

enum { WAKES = 1000, WAKES_QUICK = 200, QUIET_NS = 200000 };

struct bell {
    _Alignas(64) struct bench_signal rings;
    _Alignas(64) atomic_uint_fast64_t heard; /* number of wakes; written by the listener */
    uint64_t heard_ns;                       /* when the last one reached it */
    _Alignas(64) uint64_t rung;              /* ringer only */
    uint64_t last;                           /* the listener ends with this one; constant */
};

static enum numio_poll listener_poll(void *state, struct numio_context *cx)
{
    struct bell *bell = *(struct bell **)state;
    while (bench_signal_poll(&bell->rings, cx)) {
        bell->heard_ns = bench_now_ns();
        /* relaxed: only this task writes it. */
        uint64_t heard = atomic_load_explicit(&bell->heard, memory_order_relaxed) + 1;
        /* [BW1] release: publishes heard_ns to [BW2]. */
        atomic_store_explicit(&bell->heard, heard, memory_order_release);
        if (heard == bell->last)
            return NUMIO_READY;
    }
    return NUMIO_PENDING;
}

static void keep_quiet(void)
{
    uint64_t start_ns = bench_now_ns();
    while (bench_now_ns() - start_ns < QUIET_NS)
        ;
}

static void ring_once(struct bell *bell, double *ret_latency_ns, double *ret_call_ns)
{
    keep_quiet();
    uint64_t before_ns = bench_now_ns();
    bench_signal_raise(&bell->rings);
    uint64_t after_ns = bench_now_ns();
    bell->rung++;
    /* [BW2] acquire: pairs with [BW1], then heard_ns is the listener's last. */
    while (atomic_load_explicit(&bell->heard, memory_order_acquire) != bell->rung)
        ;
    *ret_latency_ns = (double)(int64_t)(bell->heard_ns - before_ns);
    *ret_call_ns = (double)(after_ns - before_ns);
}

static void sample_wakes(struct bench *b, struct bell *bell, unsigned wakes)
{
    unsigned rounds = b->options->rounds;
    double *latency = bench_alloc(rounds, sizeof latency[0]);
    double *call = bench_alloc(rounds, sizeof call[0]);
    double *one_latency = bench_alloc(wakes, sizeof one_latency[0]);
    double *one_call = bench_alloc(wakes, sizeof one_call[0]);
    for (unsigned round = 0; round <= rounds; round++) { /* the first warms up */
        for (unsigned i = 0; i < wakes; i++)
            ring_once(bell, &one_latency[i], &one_call[i]);
        if (round == 0)
            continue;
        latency[round - 1] = bench_median(one_latency, wakes);
        call[round - 1] = bench_median(one_call, wakes);
        bench_progress(b, round, rounds);
    }
    bench_put(b, b->scenario->name, "ns/op", latency, rounds);
    bench_put(b, b->scenario->also, "ns/op", call, rounds);
    free(latency);
    free(call);
    free(one_latency);
    free(one_call);
}

static void measure(struct bench *b)
{
    unsigned wakes = b->options->is_quick ? WAKES_QUICK : WAKES;
    struct bell *bell = aligned_alloc(64, sizeof *bell);
    if (!bell)
        bench_fail("no memory for the bell");
    memset(bell, 0, sizeof *bell);
    bell->last = (uint64_t)wakes * (b->options->rounds + 1);
    struct numio_future listener = { .poll = listener_poll, .state = &bell, .size = sizeof bell };
    struct numio_join *join;
    bench_must(numio_spawn(b->handle, &listener, NULL, &join), "spawn of the listener");
    sample_wakes(b, bell, wakes);
    bench_must(numio_join_await(&join), "join of the listener");
    free(bell);
}

void bench_remote_wake(struct bench *b)
{
    cpu_set_t all, others, mine;
    char list[BENCH_CPU_LIST_BYTES];
    if (b->options->topology) {
        bench_skip(b, "a latency between real CPUs, and the topology is emulated");
        return;
    }
    if (!bench_cpus_allowed(&all) ||
        (b->options->cpus && !bench_cpus_restrict(&all, b->options->cpus))) {
        bench_skip(b, "the CPUs cannot be told");
        return;
    }
    if (CPU_COUNT(&all) < 2) {
        bench_skip(b, "needs a CPU for the thread beside the workers'");
        return;
    }
    bench_cpus_split_last(&all, &others, &mine);
    if (!bench_cpus_format(&others, list)) {
        bench_skip(b, "the list of CPUs is too long");
        return;
    }
    struct numio_config config;
    bench_options_config(b->options, &config);
    config.cpus = list;
    if (config.workers > (unsigned)CPU_COUNT(&others))
        config.workers = (unsigned)CPU_COUNT(&others);
    if (!bench_start_with(b, &config))
        return;
    bench_cpus_bind(&mine);
    measure(b);
    bench_cpus_bind(&all);
    bench_stop(b);
}
