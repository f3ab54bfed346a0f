/* SPDX-License-Identifier: MIT */
/* Scenarios about time: timers that are armed and taken back, many that end, sleeps.
 *
 * Armed and taken back is a deadline scope of a coroutine (numio_within()), which is how limits are
 * set here; the timers that stand meanwhile, and those that end, are operations of futures.
 */
#include "perf/bench/bench_timer.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include <numio/deadline.h>
#include <numio/io.h>
#include <numio/time.h>

#include "perf/bench/bench_gated.h"
#include "perf/bench/bench_scenarios.h"
#include "perf/bench/bench_stats.h"

enum {
    CANCELS = 20000,
    FIRES = 100000,
    FIRES_QUICK = 10000,
    FIRE_ARMING_MS = 2000,
    SLEEPS_QUICK = 50
};

static const uint64_t s_ns = 1000000000, ms_ns = 1000000;

/* The same sequence in every program: a linear congruential generator's upper half. */
static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* --- timer_insert_cancel -------------------------------------------------------------------- */

static int64_t insert_and_cancel(void *arg)
{
    struct bench_block *block = arg;
    uint64_t random = 1, start_ns = bench_now_ns();
    for (unsigned i = 0; i < CANCELS; i++) {
        uint64_t delay_ns = s_ns + next_random(&random) % (60 * s_ns);
        bench_must(numio_within(delay_ns, 0), "numio_within");
    }
    block->time_ns = bench_now_ns() - start_ns;
    block->ops = CANCELS;
    return 0;
}

static struct bench_block cancel_block(struct bench *b, void *arg)
{
    struct bench_block block = { 0 };
    (void)arg;
    bench_must(numio_block_on(b->handle, insert_and_cancel, &block), "the coroutine");
    return block;
}

/* A future that waits for its point in time. */
struct waiter {
    struct numio_op op;
    struct bench_gate *armed, *ended;
    uint64_t until_ns, tolerance_ns;
    uint64_t *ret_late_ns; /* NULL: it is not expected to end */
    bool is_armed;
};

static enum numio_poll waiter_poll(void *state, struct numio_context *cx)
{
    struct waiter *w = state;
    int64_t result;
    if (!w->is_armed) {
        numio_op_timeout_at(&w->op, numio_time_coalesce(w->until_ns, w->tolerance_ns));
        bench_must(numio_op_start(&w->op, cx), "numio_op_start");
        w->is_armed = true;
        bench_gate_leave(w->armed);
    }
    if (numio_op_poll(&w->op, cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    if (!w->ret_late_ns)
        return NUMIO_READY; /* cancelled at the end */
    uint64_t now_ns = numio_now_ns();
    if (result != -ETIME || now_ns < w->until_ns)
        bench_fail("a timer has ended before its time");
    *w->ret_late_ns = now_ns - w->until_ns;
    bench_gate_leave(w->ended);
    return NUMIO_READY;
}

/* Waits until the gate is open, as the only task that does. */
static enum numio_poll gate_poll(void *state, struct numio_context *cx)
{
    struct bench_gate *gate = *(struct bench_gate **)state;
    return bench_signal_poll(&gate->open, cx) ? NUMIO_READY : NUMIO_PENDING;
}

static void wait_for_gate(struct bench *b, struct bench_gate *gate)
{
    struct numio_future future = { .poll = gate_poll, .state = &gate, .size = sizeof gate };
    struct numio_join *join;
    bench_must(numio_spawn(b->handle, &future, NULL, &join), "numio_spawn");
    bench_must(numio_join_wait(&join, -1), "join");
}

static void spawn_waiter(struct bench *b, struct waiter *waiter)
{
    struct numio_future future = { .poll = waiter_poll, .state = waiter, .size = sizeof *waiter };
    bench_must(numio_spawn(b->handle, &future, NULL, NULL), "numio_spawn");
}

void bench_timer_insert_cancel(struct bench *b)
{
    const struct bench_cancel_shape *shape = b->scenario->arg;
    struct bench_gate gate = { 0 };
    uint64_t random = 2;
    if (!bench_start(b))
        return;
    bench_gate_arm(&gate, shape->outstanding);
    for (size_t i = 0; i < shape->outstanding; i++) {
        struct waiter waiter = { .armed = &gate };
        waiter.until_ns = numio_now_ns() + 600 * s_ns + next_random(&random) % (60 * s_ns);
        spawn_waiter(b, &waiter);
    }
    if (shape->outstanding > 0)
        wait_for_gate(b, &gate);
    bench_repeat(b, cancel_block, NULL);
    bench_stop(b);
}

/* --- timer_fire_100k ------------------------------------------------------------------------- */

static uint64_t cpu_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * s_ns + (uint64_t)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Returns the CPU time per timer, negative: they were not armed in time; the lateness of each is in
 * `late_ns`. */
static double fire(struct bench *b, uint64_t *late_ns, size_t count)
{
    const struct bench_fire_shape *shape = b->scenario->arg;
    struct bench_gate armed = { 0 }, ended = { 0 };
    uint64_t random = 3, base_ns = numio_now_ns() + FIRE_ARMING_MS * ms_ns;
    bench_gate_arm(&armed, count);
    bench_gate_arm(&ended, count);
    for (size_t i = 0; i < count; i++) {
        struct waiter waiter = { .armed = &armed, .ended = &ended, .ret_late_ns = &late_ns[i] };
        waiter.until_ns = base_ns + next_random(&random) % (100 * ms_ns);
        waiter.tolerance_ns = shape->tolerance_ns;
        spawn_waiter(b, &waiter);
    }
    while (numio_now_ns() < base_ns - 2 * ms_ns) {
        struct timespec pause = { .tv_nsec = (long)ms_ns };
        (void)nanosleep(&pause, NULL); /* looks again */
    }
    bool is_in_time = bench_gate_left(&armed) == 0;
    uint64_t before_ns = cpu_ns();
    wait_for_gate(b, &ended);
    double ns = (double)(cpu_ns() - before_ns) / (double)count;
    return is_in_time ? ns : -1;
}

void bench_timer_fire(struct bench *b)
{
    unsigned rounds = b->options->rounds;
    size_t count = b->options->is_quick ? FIRES_QUICK : FIRES;
    double *cpu = bench_alloc(rounds, sizeof cpu[0]), *late = bench_alloc(rounds, sizeof late[0]);
    uint64_t *late_ns = bench_alloc(count, sizeof late_ns[0]);
    if (!bench_start(b))
        return;
    (void)fire(b, late_ns, count); /* warm-up */
    bool is_slow = false;
    for (unsigned i = 0; i < rounds; i++) {
        cpu[i] = fire(b, late_ns, count);
        is_slow = is_slow || cpu[i] < 0;
        qsort(late_ns, count, sizeof late_ns[0], compare);
        late[i] = (double)late_ns[count * 99 / 100] / 1000;
        bench_progress(b, i + 1, rounds);
    }
    if (is_slow) {
        bench_skip(b, "the timers were not armed in time: the machine is busy");
    } else {
        bench_put(b, b->scenario->name, "ns/op", cpu, rounds);
        bench_put(b, b->scenario->also, "us", late, rounds);
    }
    bench_stop(b);
    free(cpu);
    free(late);
    free(late_ns);
}

/* --- sleep_1ms, sleep_100us ------------------------------------------------------------------ */

struct sleeper {
    uint64_t delay_ns;
    size_t sleeps;
    double *took_us;
};

static int64_t sleep_often(void *arg)
{
    struct sleeper *s = arg;
    for (size_t i = 0; i < s->sleeps; i++) {
        uint64_t start_ns = bench_now_ns();
        bench_must(numio_sleep_ns(s->delay_ns), "numio_sleep_ns");
        uint64_t took_ns = bench_now_ns() - start_ns;
        if (took_ns + 1000 < s->delay_ns) /* the two clocks may differ a little */
            bench_fail("a sleep has ended before its time");
        s->took_us[i] = (double)took_ns / 1000;
    }
    return 0;
}

void bench_sleep(struct bench *b)
{
    const struct bench_sleep_shape *shape = b->scenario->arg;
    struct sleeper s = { shape->delay_ns, shape->sleeps, NULL };
    unsigned rounds = b->options->rounds;
    if (b->options->is_quick)
        s.sleeps = SLEEPS_QUICK;
    double *p50 = bench_alloc(rounds, sizeof p50[0]), *p99 = bench_alloc(rounds, sizeof p99[0]);
    s.took_us = bench_alloc(s.sleeps, sizeof s.took_us[0]);
    if (!bench_start(b))
        return;
    bench_must(numio_block_on(b->handle, sleep_often, &s), "the coroutine"); /* warm-up */
    for (unsigned i = 0; i < rounds; i++) {
        bench_must(numio_block_on(b->handle, sleep_often, &s), "the coroutine");
        p50[i] = bench_median(s.took_us, s.sleeps); /* sorts them */
        p99[i] = s.took_us[(s.sleeps * 99 + 99) / 100 - 1];
        bench_progress(b, i + 1, rounds);
    }
    bench_put(b, b->scenario->name, "us", p50, rounds);
    bench_put(b, b->scenario->also, "us", p99, rounds);
    bench_stop(b);
    free(p50);
    free(p99);
    free(s.took_us);
}
