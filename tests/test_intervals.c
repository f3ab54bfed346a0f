/* SPDX-License-Identifier: MIT */
/* How soon a busy worker looks at what others have sent it, its ring and its timers: after a few
 * hundred microseconds, whether its polls are short or long. */
#include <criterion/criterion.h>

#include <numio/io.h>
#include <numio/runtime.h>

#include "runtime/sched/worker.h"
#include "tests/sched_rig.h"

TestSuite(intervals, .timeout = 60);

enum { LONG_POLL_NS = 500000 };

struct busy {
    uint64_t poll_ns;
};

/* Computes, and lets others go first, for ever. */
static enum numio_poll compute(void *state, struct numio_context *cx)
{
    uint64_t until_ns = nio_now_ns() + ((struct busy *)state)->poll_ns;
    while (nio_now_ns() < until_ns) { /* bounded by the time */
    }
    numio_context_yield(cx);
    return NUMIO_PENDING;
}

static enum numio_poll compute_once(void *state, struct numio_context *cx)
{
    (void)compute(state, cx);
    return NUMIO_READY;
}

struct sleeper {
    struct numio_op op;
    bool *has_ended;
    bool is_started;
};

static enum numio_poll sleep_shortly(void *state, struct numio_context *cx)
{
    struct sleeper *sleeper = state;
    int64_t result;
    if (!sleeper->is_started) {
        numio_op_timeout(&sleeper->op, 1000);
        if (numio_op_start(&sleeper->op, cx) < 0)
            return NUMIO_READY; /* the test sees that it has not ended */
        sleeper->is_started = true;
    }
    if (numio_op_poll(&sleeper->op, cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    *sleeper->has_ended = true;
    return NUMIO_READY;
}

static enum numio_poll note(void *state, struct numio_context *cx)
{
    (void)cx;
    **(bool **)state = true;
    return NUMIO_READY;
}

/* `rng_seed` 0: tuned. */
static struct numio_handle *start_tuned(void)
{
    struct numio_config config = rig_config("pack:1 numa:1 core:2 pu:1");
    config.rng_seed = 0;
    return rig_build(&config);
}

/* `by`: as if its running task spawned it; NULL: from outside. */
static void spawn(struct numio_handle *handle, struct nio_worker *by,
                  const struct numio_future *future, const struct numio_spawn_opts *opts)
{
    nio_worker_set_current(by);
    cr_assert_eq(numio_spawn(handle, future, opts, NULL), 0, "%s", numio_strerror_detail());
    nio_worker_set_current(NULL);
}

static void spawn_busy(struct nio_worker *worker, uint64_t poll_ns)
{
    struct busy busy = { poll_ns };
    struct numio_future future = { .poll = compute, .state = &busy, .size = sizeof busy };
    spawn(worker->handle, worker, &future, NULL);
}

static void spawn_note(struct numio_handle *handle, enum numio_affinity affinity, bool *ret_is_run)
{
    struct numio_future future = { .poll = note, .state = &ret_is_run, .size = sizeof ret_is_run };
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = affinity;
    opts.worker = 0;
    spawn(handle, NULL, &future, &opts);
}

static unsigned steps_until(struct nio_worker *worker, const bool *is_over)
{
    unsigned steps = 0;
    while (!*is_over && steps < 100) {
        (void)rig_step(worker);
        steps++;
    }
    return steps;
}

/* Eight polls are measured, then two is the least. */
Test(intervals, with_long_polls_what_is_sent_waits_for_a_few)
{
    static const enum numio_affinity affinities[] = { NUMIO_AFFINITY_ANY, NUMIO_AFFINITY_WORKER };
    for (unsigned i = 0; i < NIO_ARRAY_LEN(affinities); i++) {
        struct numio_handle *handle = start_tuned();
        struct nio_worker *worker = handle->workers[0];
        bool is_first = false, is_later = false;
        (void)rig_step(worker); /* idle before */
        spawn_busy(worker, LONG_POLL_NS);
        spawn_note(handle, affinities[i], &is_first);
        cr_assert_leq(steps_until(worker, &is_first), NIO_FIRST_SPAN + 2);
        for (unsigned k = 0; k < 2 * NIO_FIRST_SPAN; k++)
            (void)rig_step(worker);
        spawn_note(handle, affinities[i], &is_later);
        cr_assert_leq(steps_until(worker, &is_later), 4);
        rig_stop(handle);
    }
}

Test(intervals, with_long_polls_a_timer_waits_for_a_few)
{
    struct numio_handle *handle = start_tuned();
    struct nio_worker *worker = handle->workers[0];
    bool has_ended = false;
    struct sleeper sleeper = { .has_ended = &has_ended };
    struct numio_future future = { .poll = sleep_shortly,
                                   .state = &sleeper,
                                   .size = sizeof sleeper };
    (void)rig_step(worker);
    spawn_busy(worker, LONG_POLL_NS);
    for (unsigned i = 0; i < 2 * NIO_FIRST_SPAN; i++)
        (void)rig_step(worker);
    for (unsigned i = 0; i < 5; i++) {
        has_ended = false;
        spawn(handle, worker, &future, NULL);
        cr_assert_leq(steps_until(worker, &has_ended), 8);
    }
    rig_stop(handle);
}

Test(intervals, with_short_polls_the_looks_are_as_rare_as_they_may)
{
    struct numio_handle *handle = start_tuned();
    struct nio_worker *worker = handle->workers[0];
    bool is_rare = false;
    spawn_busy(worker, 0);
    for (unsigned i = 0; i < 1000 && !is_rare; i++) { /* a busy machine makes some polls long */
        for (unsigned k = 0; k < 2 * NIO_INJECT_INTERVAL; k++)
            (void)rig_step(worker);
        is_rare = worker->inject_interval > 2 * NIO_FIRST_SPAN &&
                  worker->driver_interval > 2 * NIO_FIRST_SPAN;
    }
    cr_assert(is_rare);
    rig_stop(handle);
}

/* Batches from outside are shorter than it takes to measure the looks at what comes from there. */
Test(intervals, a_timer_does_not_wait_for_what_comes_from_outside_bit_by_bit)
{
    struct numio_handle *handle = start_tuned();
    struct nio_worker *worker = handle->workers[0];
    bool has_ended = false;
    struct sleeper sleeper = { .has_ended = &has_ended };
    struct busy busy = { LONG_POLL_NS };
    struct numio_future asleep = { .poll = sleep_shortly,
                                   .state = &sleeper,
                                   .size = sizeof sleeper };
    struct numio_future once = { .poll = compute_once, .state = &busy, .size = sizeof busy };
    for (unsigned i = 0; i < 3 * NIO_INJECT_INTERVAL; i++) {
        spawn(handle, NULL, &once, NULL);
        (void)rig_step(worker);
    }
    spawn(handle, worker, &asleep, NULL);
    unsigned steps = 0;
    for (; steps < 20 && !has_ended; steps++) {
        spawn(handle, NULL, &once, NULL);
        (void)rig_step(worker);
    }
    cr_assert_leq(steps, 10);
    rig_stop(handle);
}

Test(intervals, a_fixed_interval_is_kept)
{
    for (int are_both = 0; are_both < 2; are_both++) {
        struct numio_config config = rig_config("pack:1 numa:1 core:2 pu:1");
        config.rng_seed = 0;
        config.inject_interval = are_both ? 16 : 0;
        config.driver_interval = 32;
        struct numio_handle *handle = rig_build(&config);
        struct nio_worker *worker = handle->workers[0];
        bool is_run = false;
        (void)rig_step(worker);
        worker->idle_since_ns = nio_now_ns(); /* as after a pause */
        spawn_busy(worker, LONG_POLL_NS / 10);
        (void)rig_step(worker);
        cr_assert_geq(worker->driver_countdown, 31);
        for (unsigned i = 0; i < 40; i++)
            (void)rig_step(worker);
        spawn_note(handle, NUMIO_AFFINITY_ANY, &is_run);
        cr_assert_leq(steps_until(worker, &is_run), 16);
        cr_assert(!are_both || worker->inject_interval == 16);
        cr_assert_eq(worker->driver_interval, 32);
        rig_stop(handle);
    }
}
