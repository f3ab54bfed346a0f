/* SPDX-License-Identifier: MIT */
/* The paused time of numio/time.h: it jumps from timer to timer when nothing else can happen, goes
 * by hand, stands while there is something to do, and everything that goes by numio_now_ns() in
 * tasks follows it. */
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <sys/socket.h>

enum { SLEEPERS = 50, DAY_STEPS = 2000 };
static const uint64_t ms = 1000000, second = 1000000000, hour = 3600000000000;

static int64_t last_line; /* what went wrong, for the message */

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

/* ---- jumps ---------------------------------------------------------------------------------- */

static int64_t sleep_a_day(void *arg)
{
    uint64_t began_ns = nio_now_ns();
    (void)arg;
    EXPECT(numio_time_pause(NULL) == 0);
    EXPECT(numio_time_pause(NULL) == -EALREADY);
    uint64_t first_ns = numio_now_ns();
    EXPECT(numio_now_ns() == first_ns);
    for (unsigned i = 1; i <= DAY_STEPS; i++) {
        EXPECT(numio_sleep_ns(24 * hour / DAY_STEPS) == 0);
        EXPECT(numio_now_ns() == first_ns + i * (24 * hour / DAY_STEPS)); /* to the nanosecond */
    }
    EXPECT(nio_now_ns() - began_ns < 20 * second);
    return 0;
}

FIXTURE_EACH(virtual_time, a_day_of_sleeps_takes_no_time, .timeout = 60)
{
    cr_assert_eq(run(runtime, sleep_a_day, NULL), 0, "line %ld", (long)last_line);
}

/* Sleepers on both workers note the order in which they wake. */
static _Atomic uint32_t order_count;
static uint32_t order[SLEEPERS];
static uint64_t woken_ns[SLEEPERS], start_ns;

static int64_t sleep_and_note(void *arg)
{
    uint32_t i = (uint32_t)(uintptr_t)arg;
    int64_t rc = numio_sleep_until(start_ns + (i * 37 % SLEEPERS + 1) * hour);
    woken_ns[i] = numio_now_ns();
    /* relaxed: a count; the joins order the rest */
    order[atomic_fetch_add_explicit(&order_count, 1, memory_order_relaxed)] = i;
    return rc;
}

static int64_t spread_sleepers(void *arg)
{
    struct numio_join *joins[SLEEPERS];
    struct numio_spawn_opts opts;
    (void)arg;
    EXPECT(numio_time_pause(NULL) == 0);
    start_ns = numio_now_ns();
    /* relaxed: as above */
    atomic_store_explicit(&order_count, 0, memory_order_relaxed);
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    for (uintptr_t i = 0; i < SLEEPERS; i++) {
        opts.worker = (int)(i % 2);
        EXPECT(numio_spawn_co(NULL, sleep_and_note, (void *)i, &opts, &joins[i]) == 0);
    }
    for (unsigned i = 0; i < SLEEPERS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    for (unsigned i = 0; i < SLEEPERS; i++) {
        EXPECT(order[i] * 37 % SLEEPERS == i);
        EXPECT(woken_ns[order[i]] == start_ns + (i + 1) * hour);
    }
    EXPECT(numio_time_resume(NULL) == 0);
    EXPECT(numio_time_resume(NULL) == -EALREADY);
    return 0;
}

FIXTURE_EACH(virtual_time, sleepers_of_all_workers_wake_in_the_order_of_their_deadlines,
             .timeout = 60)
{
    for (unsigned i = 0; i < 20; i++)
        cr_assert_eq(run(runtime, spread_sleepers, NULL), 0, "line %ld", (long)last_line);
}

static int64_t nap(void *arg)
{
    (void)usleep(20000); /* what is tested is that the runtime waits for it */
    return (int64_t)(intptr_t)arg;
}

static int64_t block_for_a_while(void *arg)
{
    (void)arg;
    EXPECT(numio_time_pause(NULL) == 0);
    uint64_t first_ns = numio_now_ns();
    EXPECT(numio_within(ms, numio_block_in_place(nap, (void *)7)) == 7);
    EXPECT(numio_now_ns() == first_ns); /* it stood meanwhile, although a timer was armed */
    EXPECT(numio_sleep_ns(hour) == 0 && numio_now_ns() == first_ns + hour);
    return 0;
}

FIXTURE_EACH(virtual_time, it_stands_while_a_function_runs_on_the_pool, .timeout = 60)
{
    cr_assert_eq(run(runtime, block_for_a_while, NULL), 0, "line %ld", (long)last_line);
}

/* ---- I/O still happens ---------------------------------------------------------------------- */

static int64_t echo(void *arg)
{
    int *ends = arg;
    char byte;
    while (numio_recv(ends[1], &byte, 1, 0) == 1)
        if (numio_send(ends[1], &byte, 1, 0) != 1)
            return __LINE__;
    return 0;
}

static int64_t talk(void *arg)
{
    struct numio_join *join;
    int *ends = arg;
    char byte = 'a';
    EXPECT(numio_time_pause(NULL) == 0);
    uint64_t first_ns = numio_now_ns();
    EXPECT(numio_spawn_co(NULL, echo, arg, NULL, &join) == 0);
    for (unsigned i = 0; i < 200; i++) { /* what the kernel has at hand comes before an hour */
        EXPECT(numio_within(hour, numio_send(ends[0], &byte, 1, 0)) == 1);
        EXPECT(numio_within(hour, numio_recv(ends[0], &byte, 1, 0)) == 1);
    }
    EXPECT(numio_now_ns() == first_ns);
    /* What never comes ends by its limit, at once. */
    EXPECT(numio_within(hour, numio_recv(ends[0], &byte, 1, 0)) == -ETIMEDOUT);
    EXPECT(numio_now_ns() == first_ns + hour);
    EXPECT(shutdown(ends[0], SHUT_RDWR) == 0);
    EXPECT(numio_join_await(&join) == 0);
    return 0;
}

FIXTURE_EACH(virtual_time, io_that_is_at_hand_comes_before_a_jump, .timeout = 60)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(run(runtime, talk, ends), 0, "line %ld", (long)last_line);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* ---- by hand -------------------------------------------------------------------------------- */

static _Atomic uint32_t is_awake;

static int64_t sleep_an_hour(void *arg)
{
    int64_t rc = numio_sleep_ns(hour);
    fixture_set(&is_awake, 1);
    (void)arg;
    return rc;
}

FIXTURE_EACH(virtual_time, a_plain_thread_moves_it_by_hand, .timeout = 60)
{
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_join *join;
    fixture_set(&is_awake, 0);
    cr_assert_eq(numio_time_advance(handle, 1), -EINVAL, "it is not paused");
    cr_assert_eq(numio_time_by_hand(handle, true), 0);
    cr_assert_eq(numio_time_pause(handle), 0);
    cr_assert_eq(numio_spawn_co(handle, sleep_an_hour, NULL, NULL, &join), 0);
    (void)usleep(30000); /* long enough to be wrong, if it were */
    cr_assert_eq(fixture_get(&is_awake), 0);
    cr_assert_eq(numio_time_advance(handle, hour - second), 0);
    (void)usleep(30000); /* likewise */
    cr_assert_eq(fixture_get(&is_awake), 0);
    cr_assert_eq(numio_time_advance(handle, 2 * second), 0);
    cr_assert(fixture_wait(&is_awake, 1));
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    /* And by itself, when it is let go. */
    fixture_set(&is_awake, 0);
    cr_assert_eq(numio_spawn_co(handle, sleep_an_hour, NULL, NULL, &join), 0);
    cr_assert_eq(numio_time_by_hand(handle, false), 0);
    cr_assert(fixture_wait(&is_awake, 1));
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    cr_assert_eq(numio_time_resume(handle), 0);
}

Test(virtual_time, without_a_runtime_it_is_refused)
{
    cr_assert_eq(numio_time_pause(NULL), -EINVAL);
    cr_assert_eq(numio_time_resume(NULL), -EINVAL);
    cr_assert_eq(numio_time_advance(NULL, 1), -EINVAL);
    cr_assert_eq(numio_time_by_hand(NULL, true), -EINVAL);
}

static int64_t flow_on(void *arg)
{
    (void)arg;
    EXPECT(numio_time_pause(NULL) == 0);
    EXPECT(numio_time_advance(NULL, hour) == 0);
    uint64_t stood_ns = numio_now_ns();
    EXPECT(stood_ns >= nio_now_ns() + hour - second);
    EXPECT(numio_time_resume(NULL) == 0);
    uint64_t flows_ns = numio_now_ns();
    EXPECT(flows_ns >= stood_ns && flows_ns < stood_ns + 10 * second);
    uint64_t real_ns = nio_now_ns();
    EXPECT(numio_sleep_ns(5 * ms) == 0);
    EXPECT(nio_now_ns() - real_ns >= 5 * ms); /* by the machine's clock again */
    EXPECT(numio_now_ns() - flows_ns >= 5 * ms);
    EXPECT(numio_time_pause(NULL) == 0); /* and once more */
    EXPECT(numio_now_ns() >= flows_ns + 5 * ms && numio_now_ns() < flows_ns + 10 * second);
    EXPECT(numio_time_resume(NULL) == 0);
    return 0;
}

FIXTURE_EACH(virtual_time, resumed_it_flows_from_where_it_stood, .timeout = 60)
{
    cr_assert_eq(run(runtime, flow_on, NULL), 0, "line %ld", (long)last_line);
}

/* ---- what follows it: intervals by each policy, deadlines, futures, periods ------------------ */

/* A period of 50 and 120 spent after the second tick: the table of numio/time.h. */
static int64_t tick_by(enum numio_missed missed, const uint64_t *taken)
{
    struct numio_interval interval;
    EXPECT(numio_time_pause(NULL) == 0);
    uint64_t first_ns = numio_now_ns();
    EXPECT(numio_interval_init(&interval, 0, 50 * ms, missed) == 0);
    for (unsigned i = 0; i < 6; i++) {
        EXPECT(numio_interval_next(&interval, NULL) == 0);
        EXPECT(numio_now_ns() - first_ns == taken[i] * ms);
        if (i == 1)
            EXPECT(numio_time_advance(NULL, 120 * ms) == 0);
    }
    EXPECT(numio_time_resume(NULL) == 0);
    return 0;
}

static int64_t tick_by_burst(void *arg)
{
    (void)arg;
    return tick_by(NUMIO_MISSED_BURST, (const uint64_t[]){ 0, 50, 170, 170, 200, 250 });
}

static int64_t tick_by_delay(void *arg)
{
    (void)arg;
    return tick_by(NUMIO_MISSED_DELAY, (const uint64_t[]){ 0, 50, 170, 220, 270, 320 });
}

static int64_t tick_by_skip(void *arg)
{
    (void)arg;
    return tick_by(NUMIO_MISSED_SKIP, (const uint64_t[]){ 0, 50, 170, 200, 250, 300 });
}

FIXTURE_EACH(virtual_time, missed_ticks_burst, .timeout = 30)
{
    cr_assert_eq(run(runtime, tick_by_burst, NULL), 0, "line %ld", (long)last_line);
}

FIXTURE_EACH(virtual_time, missed_ticks_delay, .timeout = 30)
{
    cr_assert_eq(run(runtime, tick_by_delay, NULL), 0, "line %ld", (long)last_line);
}

FIXTURE_EACH(virtual_time, missed_ticks_are_skipped, .timeout = 30)
{
    cr_assert_eq(run(runtime, tick_by_skip, NULL), 0, "line %ld", (long)last_line);
}

/* Late by less than a period and 5 ms is not missed: no policy lets it drift. */
static int64_t tick_late(void *arg)
{
    struct numio_interval interval;
    (void)arg;
    EXPECT(numio_time_pause(NULL) == 0);
    uint64_t first_ns = numio_now_ns(), due_ns;
    EXPECT(numio_interval_init(&interval, 0, 50 * ms, NUMIO_MISSED_DELAY) == 0);
    for (unsigned i = 0; i < 10; i++) {
        EXPECT(numio_interval_next(&interval, &due_ns) == 0 && due_ns == first_ns + i * 50 * ms);
        EXPECT(numio_time_advance(NULL, 54 * ms - (numio_now_ns() - due_ns)) == 0);
    }
    return 0;
}

FIXTURE_EACH(virtual_time, a_little_late_is_not_missed, .timeout = 30)
{
    cr_assert_eq(run(runtime, tick_late, NULL), 0, "line %ld", (long)last_line);
}

static int64_t wait_in_every_way(void *arg)
{
    struct numio_deadline deadline;
    struct numio_stream *stream;
    (void)arg;
    EXPECT(numio_time_pause(NULL) == 0);
    uint64_t now_ns = numio_now_ns();
    EXPECT(numio_deadline_push(&deadline, hour) == 0);
    EXPECT(numio_deadline_left() == (int64_t)hour);
    EXPECT(numio_sleep_ns(2 * hour) == -ETIMEDOUT);
    EXPECT(numio_now_ns() == now_ns + hour);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    EXPECT(numio_interval_stream(second, &stream) == 0);
    for (unsigned i = 1; i <= 3; i++) {
        EXPECT(numio_stream_next(stream) == 1);
        EXPECT(numio_now_ns() == now_ns + hour + i * second);
    }
    EXPECT(numio_time_advance(NULL, 10 * second) == 0);
    EXPECT(numio_stream_next(stream) == 10);
    EXPECT(numio_stream_close(&stream) == 0);
    return 0;
}

FIXTURE_EACH(virtual_time, deadlines_and_periods_follow_it, .timeout = 30)
{
    cr_assert_eq(run(runtime, wait_in_every_way, NULL), 0, "line %ld", (long)last_line);
}

/* The end of a runtime does not wait for its time. */
static int64_t sleep_for_ever(void *arg)
{
    fixture_set(arg, 1);
    return numio_sleep_ns(UINT64_MAX / 2);
}

FIXTURE_EACH(virtual_time, a_paused_runtime_ends_like_any_other, .timeout = 30)
{
    static _Atomic uint32_t is_there;
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_join *join;
    fixture_set(&is_there, 0);
    cr_assert_eq(numio_time_by_hand(handle, true), 0);
    cr_assert_eq(numio_time_pause(handle), 0);
    cr_assert_eq(numio_spawn_co(handle, sleep_for_ever, (void *)(uintptr_t)&is_there, NULL, &join),
                 0);
    cr_assert(fixture_wait(&is_there, 1));
    numio_join_detach(&join);
}
