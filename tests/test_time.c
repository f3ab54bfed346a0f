/* SPDX-License-Identifier: MIT */
/* Promises of numio/time.h on the machine's clock: nothing ends early, what has passed ends at
 * once, intervals do not drift, tolerances make timers share their wakes. */
#include "runtime/sched/worker.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

enum { MS = 1000000, SLEEPERS = 200, EARLY_SLEEPS = 100, EARLY_DELAY_NS = 300000 };

static int64_t last_line; /* what went wrong, for the message */

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static int64_t sleep_until(void *arg)
{
    (void)arg;
    for (uint64_t delay_ns = 1; delay_ns < 20 * MS; delay_ns = delay_ns * 5 / 2 + 1) {
        uint64_t until_ns = numio_now_ns() + delay_ns;
        EXPECT(numio_sleep_until(until_ns) == 0);
        EXPECT(numio_now_ns() >= until_ns);
        uint64_t began_ns = numio_now_ns();
        EXPECT(numio_sleep_ns(delay_ns) == 0);
        EXPECT(numio_now_ns() - began_ns >= delay_ns);
    }
    uint64_t now_ns = numio_now_ns();
    EXPECT(numio_sleep_until(0) == 0 && numio_sleep_until(now_ns) == 0);
    EXPECT(numio_within(MS, numio_sleep_until(now_ns + 1000 * (uint64_t)MS)) == -ETIMEDOUT);
    EXPECT(numio_within(0, numio_sleep_until(now_ns)) == -ETIMEDOUT); /* as every call there */
    EXPECT(numio_within(MS, numio_sleep_until(UINT64_MAX)) == -ETIMEDOUT);
    return 0;
}

FIXTURE_EACH(time, a_sleep_ends_at_its_point_and_never_before, .timeout = 30)
{
    cr_assert_eq(run(runtime, sleep_until, NULL), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_sleep_until(1), -EINVAL, "outside of a coroutine");
}

static int64_t sleep_in_vain(void *arg)
{
    unsigned *others = arg;
    uint64_t began_ns = numio_now_ns();
    while (numio_now_ns() - began_ns < 50 * MS && *others == 0)
        if (numio_sleep_until(began_ns) < 0)
            return __LINE__;
    return *others ? 0 : __LINE__;
}

static int64_t be_another(void *arg)
{
    ++*(unsigned *)arg;
    return 0;
}

static int64_t sleep_beside_another(void *arg)
{
    struct numio_join *join;
    EXPECT(numio_spawn_co(NULL, be_another, arg, NULL, &join) == 0);
    int64_t rc = sleep_in_vain(arg);
    EXPECT(numio_join_await(&join) == 0);
    return rc;
}

Test(time, sleeps_that_are_over_let_others_run, .timeout = 30)
{
    unsigned others = 0;
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, sleep_beside_another, &others), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

/* A future that waits for a point with one operation. */
struct waiter {
    struct numio_op op;
    uint64_t until_ns;
    bool is_started;
    _Atomic uint32_t *ended;
};

static enum numio_poll poll_waiter(void *state, struct numio_context *cx)
{
    struct waiter *waiter = state;
    int64_t result;
    if (!waiter->is_started) {
        numio_op_timeout_at(&waiter->op, waiter->until_ns);
        waiter->is_started = numio_op_start(&waiter->op, cx) == 0;
    }
    if (numio_op_poll(&waiter->op, cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    bool is_right = result == -ETIME && numio_now_ns() >= waiter->until_ns;
    fixture_set(waiter->ended, is_right ? 1 : 2);
    return NUMIO_READY;
}

FIXTURE_EACH(time, a_future_waits_for_a_point, .timeout = 30)
{
    for (unsigned i = 0; i < 3; i++) {
        _Atomic uint32_t ended = 0;
        struct waiter waiter = { .until_ns = i ? numio_now_ns() + i * MS : 1, .ended = &ended };
        struct numio_future future = { .poll = poll_waiter,
                                       .state = &waiter,
                                       .size = sizeof waiter };
        struct numio_join *join;
        cr_assert_eq(numio_spawn(numio_runtime_handle(runtime), &future, NULL, &join), 0);
        cr_assert(fixture_wait(&ended, 1));
        cr_assert_eq(numio_join_wait(&join, -1), 0);
    }
}

Test(time, coalescing_is_never_early_nor_later_than_the_tolerance)
{
    struct nio_rng rng = seeded_rng(0x5eed);
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t deadline_ns = nio_rng_next(&rng) >> nio_rng_below(&rng, 64);
        uint64_t tolerance_ns = nio_rng_next(&rng) >> nio_rng_below(&rng, 64);
        uint64_t point_ns = numio_time_coalesce(deadline_ns, tolerance_ns);
        cr_assert(point_ns >= deadline_ns && point_ns - deadline_ns <= tolerance_ns);
        /* Whoever could have the same point has it. */
        if (tolerance_ns > 0 && point_ns > deadline_ns)
            cr_assert_eq(numio_time_coalesce(deadline_ns + 1, tolerance_ns - 1), point_ns);
    }
    cr_assert_eq(numio_time_coalesce(12345, 0), 12345);
    cr_assert_eq(numio_time_coalesce(1, UINT64_MAX), UINT64_C(1) << 63);
}

/* ---- wakes ---------------------------------------------------------------------------------- */

static uint64_t tolerance;
static uint64_t base_ns;

static int64_t sleep_a_little(void *arg)
{
    uint64_t until_ns = base_ns + (uintptr_t)arg * 200000; /* over 40 ms */
    return numio_sleep_until(numio_time_coalesce(until_ns, tolerance));
}

static uint64_t parks(struct numio_runtime *runtime)
{
    struct numio_worker_metrics metrics = { .size = sizeof metrics };
    cr_assert_eq(numio_worker_metrics(numio_runtime_handle(runtime), 0, &metrics), 0);
    return metrics.parks;
}

static uint64_t parks_of_sleepers(struct numio_runtime *runtime, uint64_t tolerance_ns)
{
    struct numio_join *joins[SLEEPERS];
    tolerance = tolerance_ns;
    base_ns = numio_now_ns() + 30 * MS; /* all of them are there by then */
    for (uintptr_t i = 0; i < SLEEPERS; i++)
        cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), sleep_a_little, (void *)i, NULL,
                                    &joins[i]),
                     0);
    while (numio_now_ns() < base_ns - 5 * MS)
        (void)usleep(1000); /* the clock says when it is over */
    uint64_t before = parks(runtime);
    for (unsigned i = 0; i < SLEEPERS; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    return parks(runtime) - before;
}

Test(time, tolerances_make_timers_share_their_wakes, .timeout = 60)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    config.idle = NUMIO_IDLE_PARK;
    struct numio_runtime *runtime = fixture_create(&config);
    uint64_t exact = 0, shared = UINT64_MAX;
    for (unsigned i = 0; i < 10 && (exact < 20 || shared > 10); i++) { /* a busy machine has its own
                                                                          mind */
        exact = parks_of_sleepers(runtime, 0);
        shared = parks_of_sleepers(runtime, 40 * MS);
    }
    cr_assert_geq(exact, 20, "200 deadlines, 200 us apart, each with a park of its own");
    cr_assert_leq(shared, 10, "%llu parks", (unsigned long long)shared);
    numio_runtime_destroy(runtime);
}

/* ---- intervals ------------------------------------------------------------------------------ */

static int64_t tick(void *arg)
{
    struct numio_interval interval;
    uint64_t first_ns = numio_now_ns() + MS, due_ns = 0;
    (void)arg;
    EXPECT(numio_interval_init(&interval, first_ns, 0, NUMIO_MISSED_BURST) == -EINVAL);
    EXPECT(numio_interval_init(&interval, first_ns, MS, (enum numio_missed)3) == -EINVAL);
    EXPECT(numio_interval_init(&interval, first_ns, MS, NUMIO_MISSED_BURST) == 0);
    EXPECT(numio_interval_due_ns(&interval) == first_ns);
    for (unsigned i = 0; i < 40; i++) {
        EXPECT(numio_interval_next(&interval, &due_ns) == 0);
        EXPECT(due_ns == first_ns + i * (uint64_t)MS); /* however late each was: no drift */
        EXPECT(numio_now_ns() >= due_ns);
    }
    numio_interval_set_tolerance(&interval, MS / 2);
    for (unsigned i = 40; i < 60; i++) {
        EXPECT(numio_interval_next(&interval, &due_ns) == 0);
        EXPECT(due_ns == first_ns + i * (uint64_t)MS && numio_now_ns() >= due_ns);
    }
    /* A tick that was not waited for to its end is still to come. */
    numio_interval_reset(&interval);
    uint64_t next_ns = numio_interval_due_ns(&interval);
    EXPECT(numio_within(1000, numio_interval_next(&interval, &due_ns)) == -ETIMEDOUT);
    EXPECT(numio_interval_due_ns(&interval) == next_ns);
    EXPECT(numio_interval_next(&interval, &due_ns) == 0 && due_ns == next_ns);
    return 0;
}

FIXTURE_EACH(time, ticks_are_multiples_of_the_period_and_do_not_drift, .timeout = 30)
{
    cr_assert_eq(run(runtime, tick, NULL), 0, "line %ld", (long)last_line);
}

static int64_t has_come(void *arg)
{
    char byte;
    int *ends = arg;
    /* What is there already is not refused because a limit is short. */
    EXPECT(numio_write(ends[1], "x", 1) == 1);
    EXPECT(numio_within(10000 * (uint64_t)MS, numio_read(ends[0], &byte, 1)) == 1);
    return 0;
}

FIXTURE_EACH(time, what_is_ready_is_had_within_a_limit, .timeout = 30)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(run(runtime, has_come, ends), 0, "line %ld", (long)last_line);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* ---- early wakes --------------------------------------------------------------------------- */

static int64_t sleep_often(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < EARLY_SLEEPS; i++) {
        uint64_t until_ns = numio_now_ns() + EARLY_DELAY_NS;
        EXPECT(numio_sleep_until(until_ns) == 0);
        EXPECT(numio_now_ns() >= until_ns);
    }
    return 0;
}

Test(time, a_sleeper_is_woken_as_early_as_wakes_are_late_unless_it_parks_at_once, .timeout = 30)
{
    const enum numio_idle_policy policies[] = { NUMIO_IDLE_BALANCED, NUMIO_IDLE_PARK };
    for (unsigned i = 0; i < 2; i++) {
        struct numio_config config = fixture_config(NUMIO_DRIVER_EPOLL, 1);
        struct numio_runtime *runtime;
        config.idle = policies[i];
        cr_assert_eq(numio_runtime_create(&config, &runtime), 0);
        struct numio_handle *handle = numio_runtime_handle(runtime);
        cr_assert_eq(numio_block_on(handle, sleep_often, NULL), 0);
        const struct nio_worker *worker = handle->workers[0];
        cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
        cr_assert_leq(worker->early_ns, handle->config.spin_ns);
        cr_assert_eq(worker->early_ns > 0, config.idle != NUMIO_IDLE_PARK && worker->can_spin);
        numio_runtime_destroy(runtime);
    }
}
