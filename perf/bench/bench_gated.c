/* SPDX-License-Identifier: MIT */
#include "perf/bench/bench_gated.h"

struct root {
    struct bench_gated *gated;
    unsigned begun; /* repetitions */
    uint64_t start_ns;
};

static enum numio_poll root_poll(void *state, struct numio_context *cx)
{
    struct root *r = state;
    struct bench_gated *g = r->gated;
    if (r->begun == 0)
        r->start_ns = bench_now_ns();
    while (r->begun == 0 || bench_signal_poll(&g->gate.open, cx)) {
        if (r->begun == g->repeats) {
            struct bench_block *block = numio_context_output(cx);
            block->time_ns = bench_now_ns() - r->start_ns;
            block->ops = g->ops;
            return NUMIO_READY;
        }
        r->begun++;
        bench_gate_arm(&g->gate, g->leavers);
        g->start(g);
    }
    return NUMIO_PENDING;
}

struct bench_block bench_gated_block(struct bench *b, void *arg)
{
    struct bench_gated *g = arg;
    struct root root = { .gated = g };
    struct bench_block block = bench_inside(b, root_poll, &root, sizeof root);
    size_t left = bench_gate_left(&g->gate);
    if (left != 0 || block.ops != g->ops)
        bench_fail("%s: %zu of %zu tasks have not run", b->scenario->name, left, g->leavers);
    return block;
}

void bench_gated_run(struct bench *b, struct bench_gated *g)
{
    if (!bench_start(b))
        return;
    bench_repeat(b, bench_gated_block, g);
    bench_stop(b);
}
