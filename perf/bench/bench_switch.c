/* SPDX-License-Identifier: MIT */
/* The context switch alone, without a scheduler: the one scenario that uses a private header. */
#include <stdlib.h>

#include "perf/bench/bench_scenarios.h"
#include "runtime/coro/coro.h"

enum {
    STACK_BYTES = 65536,
    TRIPS = 100000,
    SWITCHES_PER_TRIP = 2 /* in and out */
};

struct pair {
    struct nio_coro host, coro;
    uint64_t entered; /* times that the coroutine went on */
    bool is_ending;
};

static void run_pair(void *arg)
{
    struct pair *p = arg;
    while (!p->is_ending) {
        p->entered++;
        nio_coro_switch_out(&p->coro, &p->host);
    }
    nio_coro_switch_last(&p->coro, &p->host);
}

static struct bench_block switch_block(struct bench *b, void *arg)
{
    (void)b;
    struct pair *p = arg;
    p->entered = 0;
    uint64_t start_ns = bench_now_ns();
    for (unsigned i = 0; i < TRIPS; i++)
        nio_coro_switch_in(&p->host, &p->coro);
    struct bench_block block = { .time_ns = bench_now_ns() - start_ns,
                                 .ops = TRIPS * SWITCHES_PER_TRIP };
    if (p->entered != TRIPS)
        bench_fail("the coroutine was entered %llu times, not %d", (unsigned long long)p->entered,
                   TRIPS);
    return block;
}

void bench_coroutine_switch(struct bench *b)
{
    if (nio_coro_check()) {
        bench_skip(b, "coroutines cannot run in this thread");
        return;
    }
    char *stack = aligned_alloc(4096, STACK_BYTES);
    if (!stack)
        bench_fail("no memory for a stack");
    struct pair p = { 0 };
    nio_coro_init(&p.coro, stack, stack + STACK_BYTES, run_pair, &p);
    b->runtime_name = "numio";
    b->version = NUMIO_VERSION;
    b->driver = "none";
    b->workers = 0;
    bench_repeat(b, switch_block, &p);
    p.is_ending = true;
    nio_coro_switch_in(&p.host, &p.coro);
    free(stack);
}
