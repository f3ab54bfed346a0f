/* SPDX-License-Identifier: MIT */
/* bench_gated.h: the block of most scenarios: a root starts tasks and waits until all have left.
 *
 * The root is a future in either flavour, since a coroutine can wait for a task or an operation
 * but not for a bare wake; it is one task among thousands.  Its poll counts from before start()
 * to after the gate has opened, `repeats` times one after the other.
 */
#ifndef BENCH_GATED_H
#define BENCH_GATED_H

#include "perf/bench/bench.h"
#include "perf/bench/bench_signal.h"

struct bench_gated {
    struct bench_gate gate;
    size_t leavers; /* tasks that leave the gate, per repetition */
    unsigned repeats;
    uint64_t ops; /* of all repetitions together */
    /* Starts the tasks of one repetition.  Context: the root's poll. */
    void (*start)(struct bench_gated *g);
    void *arg; /* the scenario's own */
};

/* Runs one block; for bench_repeat() and bench_single(), `arg` is a struct bench_gated. */
struct bench_block bench_gated_block(struct bench *b, void *arg);

/* A whole scenario: starts a runtime, repeats the block, stops. */
void bench_gated_run(struct bench *b, struct bench_gated *g);

#endif
