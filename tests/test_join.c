/* SPDX-License-Identifier: MIT */
/* Promises of join handles, abort handles and abort, in every state a task can be in. */
#include "tests/runtime_fixture.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "runtime/base/compiler.h"

static const uint64_t for_ever_ns = 3600000000000ull;

static int64_t echo(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

/* Ends when the word is set; never suspends. */
static int64_t spin_until_set(void *arg)
{
    while (fixture_get(arg) == 0)
        (void)sched_yield(); /* lets the test's thread run */
    return 5;
}

static int64_t sleep_long(void *arg)
{
    _Atomic uint32_t *started = arg;
    if (started)
        fixture_set(started, 1);
    return numio_sleep_ns(for_ever_ns);
}

static int64_t sleep_briefly(void *arg)
{
    return numio_sleep_ns((uintptr_t)arg);
}

static struct numio_join *spawn(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    struct numio_join *join = NULL;
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), fn, arg, NULL, &join), 0, "%s",
                 numio_strerror_detail());
    return join;
}

static bool has_finished(void *arg)
{
    return numio_join_is_finished(arg);
}

/* ---- the ways to wait --------------------------------------------------------------------- */

struct pair {
    struct numio_join *join;
    int64_t first, second, third;
    _Atomic uint32_t ready, gate;
};

static int64_t await_it(void *arg)
{
    struct pair *pair = arg;
    pair->first = numio_join_await(&pair->join);
    pair->second = numio_join_await(&pair->join);
    return pair->join == NULL;
}

Test(join, await_in_a_task_gives_the_result_once, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    for (unsigned i = 0; i < 500; i++) {
        struct pair pair = { .join = spawn(runtime, echo, (void *)77) };
        cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), await_it, &pair), 1);
        cr_assert_eq(pair.first, 77);
        cr_assert_eq(pair.second, -EINVAL);
    }
    numio_runtime_destroy(runtime);
}

Test(join, wait_in_a_thread_ends_in_time_and_keeps_the_handle, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    _Atomic uint32_t gate = 0;
    struct numio_join *join = spawn(runtime, spin_until_set, &gate);
    cr_assert_eq(numio_join_wait(&join, 0), -ETIMEDOUT);
    uint64_t before_ns = nio_now_ns();
    cr_assert_eq(numio_join_wait(&join, 20000000), -ETIMEDOUT);
    cr_assert_geq(nio_now_ns() - before_ns, 20000000);
    cr_assert_not_null(join);
    cr_assert_eq(numio_join_try(&join), -EAGAIN);
    cr_assert_not_null(join);
    cr_assert(!numio_join_is_finished(join));
    fixture_set(&gate, 1);
    cr_assert_eq(numio_join_wait(&join, 5000000000), 5);
    cr_assert_null(join);
    numio_runtime_destroy(runtime);
}

Test(join, try_takes_a_result_once, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_join *join = spawn(runtime, echo, (void *)(intptr_t)-EAGAIN);
    cr_assert(fixture_until(has_finished, join));
    cr_assert_eq(numio_join_try(&join), -EAGAIN, "the task's own result");
    cr_assert_null(join, "which is told apart by the handle being gone");
    cr_assert_eq(numio_join_try(&join), -EINVAL);
    cr_assert_eq(numio_join_wait(&join, -1), -EINVAL);
    cr_assert_eq(numio_join_await(&join), -EINVAL);
    numio_join_detach(&join);
    numio_join_detach(NULL);
    numio_runtime_destroy(runtime);
}

Test(join, a_detached_task_goes_on_and_cannot_be_joined, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    _Atomic uint32_t started = 0;
    struct numio_join *join = spawn(runtime, sleep_long, &started);
    numio_join_detach(&join);
    cr_assert_null(join);
    cr_assert_eq(numio_join_wait(&join, -1), -EINVAL);
    cr_assert(strstr(numio_strerror_detail(), "detached"));
    cr_assert(fixture_wait(&started, 1));
    cr_assert_eq(numio_live_tasks(numio_runtime_handle(runtime)), 1);
    numio_runtime_destroy(runtime);
}

static int64_t join_myself(void *arg)
{
    struct pair *pair = arg;
    while (fixture_get(&pair->ready) == 0)
        if (numio_yield_now() < 0)
            break;
    pair->first = numio_join_await(&pair->join);
    return 1;
}

Test(join, a_task_that_joins_itself_is_told, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct pair pair = { 0 };
    pair.join = spawn(runtime, join_myself, &pair);
    fixture_set(&pair.ready, 1);
    cr_assert(fixture_until(has_finished, pair.join));
    cr_assert_eq(pair.first, -EDEADLK);
    cr_assert_eq(numio_join_try(&pair.join), 1, "the handle was kept");
    numio_runtime_destroy(runtime);
}

static int64_t await_slowly(void *arg)
{
    struct pair *pair = arg;
    fixture_set(&pair->ready, 1);
    return numio_join_await(&pair->join);
}

/* The first to wait: goes on until nobody else is in its way. */
static int64_t await_first(void *arg)
{
    struct pair *pair = arg;
    int64_t result;
    fixture_set(&pair->ready, 1);
    while ((result = numio_join_await(&pair->join)) == -EBUSY)
        if (numio_yield_now() < 0)
            break;
    return result;
}

static bool is_waiting(void *arg)
{
    /* a second waiter is refused once the first has registered */
    struct pair *pair = arg;
    return numio_join_wait(&pair->join, 0) == -EBUSY;
}

Test(join, a_second_joiner_is_refused, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct pair pair = { .join = NULL };
    pair.join = spawn(runtime, spin_until_set, &pair.gate);
    struct numio_join *first = spawn(runtime, await_first, &pair);
    cr_assert(fixture_wait(&pair.ready, 1));
    /* Until the first waits, the test's thread waits itself, for no time at all. */
    cr_assert(fixture_until(is_waiting, &pair));
    cr_assert(strstr(numio_strerror_detail(), "somebody else"));
    cr_assert_eq(numio_join_try(&pair.join), -EAGAIN, "asking is always allowed");
    struct pair other = { .join = pair.join };
    struct numio_join *second = spawn(runtime, await_slowly, &other);
    cr_assert_eq(numio_join_wait(&second, -1), -EBUSY);
    fixture_set(&pair.gate, 1);
    cr_assert_eq(numio_join_wait(&first, -1), 5);
    cr_assert_null(pair.join);
    numio_runtime_destroy(runtime);
}

static enum numio_poll wait_in_poll(void *state, struct numio_context *cx)
{
    struct pair *pair = *(struct pair **)state;
    (void)cx;
    pair->first = numio_join_await(&pair->join);
    pair->second = numio_join_wait(&pair->join, 0);
    return NUMIO_READY;
}

static int64_t wait_on_worker(void *arg)
{
    struct pair *pair = arg;
    pair->third = numio_join_wait(&pair->join, 0);
    return 0;
}

Test(join, waiting_that_would_block_a_worker_is_refused, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct pair pair = { .join = spawn(runtime, sleep_long, NULL) };
    struct pair *at = &pair;
    struct numio_future future = { .poll = wait_in_poll, .state = &at, .size = sizeof at };
    struct numio_join *join;
    cr_assert_eq(numio_spawn(handle, &future, NULL, &join), 0);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    cr_assert_eq(pair.first, -EDEADLK);
    cr_assert_eq(pair.second, -EDEADLK);
    cr_assert_eq(numio_block_on(handle, wait_on_worker, &pair), 0);
    cr_assert_eq(pair.third, -EDEADLK);
    cr_assert_not_null(pair.join);
    numio_join_abort(pair.join);
    cr_assert_eq(numio_join_wait(&pair.join, -1), -ECANCELED);
    numio_runtime_destroy(runtime);
}

struct poller {
    struct numio_join *join;
    struct pair *out;
};

static enum numio_poll poll_join(void *state, struct numio_context *cx)
{
    struct poller *poller = state;
    uint32_t output = 0;
    int64_t result;
    if (numio_join_poll(&poller->join, cx, &output, sizeof output, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    poller->out->first = result;
    poller->out->second = output;
    poller->out->third = poller->join == NULL;
    return NUMIO_READY;
}

static enum numio_poll give_output(void *state, struct numio_context *cx)
{
    uint32_t *left = state;
    uint32_t output = 1234;
    if ((*left)-- > 0) {
        numio_context_yield(cx);
        return NUMIO_PENDING;
    }
    memcpy(numio_context_output(cx), &output, sizeof output);
    return NUMIO_READY;
}

Test(join, a_future_polls_another_to_its_end, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    for (uint32_t i = 0; i < 300; i++) {
        struct pair pair = { 0 };
        struct poller poller = { .out = &pair };
        uint32_t left = i % 5;
        struct numio_future giver = {
            .poll = give_output, .state = &left, .size = sizeof left, .output_size = 4
        };
        struct numio_future taker = { .poll = poll_join, .state = &poller, .size = sizeof poller };
        struct numio_join *join;
        cr_assert_eq(numio_spawn(handle, &giver, NULL, &poller.join), 0);
        cr_assert_eq(numio_spawn(handle, &taker, NULL, &join), 0);
        cr_assert_eq(numio_join_wait(&join, -1), 0);
        cr_assert_eq(pair.first, 0);
        cr_assert_eq(pair.second, 1234);
        cr_assert_eq(pair.third, 1);
    }
    numio_runtime_destroy(runtime);
}

static int64_t await_and_report(void *arg)
{
    struct pair *pair = arg;
    fixture_set(&pair->ready, 1);
    pair->first = numio_join_await(&pair->join);
    pair->second = pair->join != NULL;
    return pair->first;
}

Test(join, an_aborted_joiner_keeps_the_handle, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct pair pair = { .join = spawn(runtime, sleep_long, NULL) };
    struct numio_join *joiner = spawn(runtime, await_and_report, &pair);
    cr_assert(fixture_wait(&pair.ready, 1));
    numio_join_abort(joiner);
    cr_assert_eq(numio_join_wait(&joiner, -1), -ECANCELED);
    cr_assert_eq(pair.first, -ECANCELED);
    cr_assert_eq(pair.second, 1);
    cr_assert(!numio_join_is_finished(pair.join));
    numio_join_abort(pair.join);
    cr_assert_eq(numio_join_wait(&pair.join, -1), -ECANCELED, "others may wait on it now");
    numio_runtime_destroy(runtime);
}

static void *wait_in_thread(void *arg)
{
    struct pair *pair = arg;
    pair->first = numio_join_wait(&pair->join, -1);
    return NULL;
}

Test(join, what_the_task_wrote_is_seen_by_the_thread_that_joins, .timeout = 20)
{
    struct numio_runtime *runtime = fixture_start(2);
    for (unsigned i = 0; i < 200; i++) {
        pthread_t thread;
        struct pair pair = { 0 };
        pair.join = spawn(runtime, spin_until_set, &pair.gate);
        cr_assert_eq(pthread_create(&thread, NULL, wait_in_thread, &pair), 0);
        fixture_set(&pair.gate, 1);
        cr_assert_eq(pthread_join(thread, NULL), 0);
        cr_assert_eq(pair.first, 5);
    }
    numio_runtime_destroy(runtime);
}

/* ---- abort in every state ----------------------------------------------------------------- */

static void abort_and_join(struct numio_join *join)
{
    numio_join_abort(join);
    numio_join_abort(join); /* twice is once */
    cr_assert_eq(numio_join_wait(&join, 5000000000), -ECANCELED, "%s", numio_strerror_detail());
}

static int64_t must_not_run(void *arg)
{
    fixture_set(arg, 1);
    return 0;
}

/* One worker that is kept busy, so that what is spawned stays in the queue. */
static void abort_queued(bool is_future)
{
    struct numio_runtime *runtime = fixture_start(1);
    _Atomic uint32_t gate = 0;
    _Atomic uint32_t has_run = 0;
    struct numio_join *busy = spawn(runtime, spin_until_set, &gate);
    struct numio_join *queued = NULL;
    if (is_future) {
        struct numio_future future = { .poll = give_output, .output_size = 4, .size = 4 };
        cr_assert_eq(numio_spawn(numio_runtime_handle(runtime), &future, NULL, &queued), 0);
    } else {
        queued = spawn(runtime, must_not_run, &has_run);
    }
    numio_join_abort(queued);
    cr_assert(!numio_join_is_finished(queued));
    fixture_set(&gate, 1);
    cr_assert_eq(numio_join_wait(&queued, -1), -ECANCELED);
    cr_assert_eq(fixture_get(&has_run), 0);
    cr_assert_eq(numio_join_wait(&busy, -1), 5);
    numio_runtime_destroy(runtime);
}

Test(join, abort_of_a_queued_coroutine_never_runs_it, .timeout = 10)
{
    abort_queued(false);
}

Test(join, abort_of_a_queued_future_never_polls_it, .timeout = 10)
{
    abort_queued(true);
}

static int64_t run_then_look(void *arg)
{
    struct pair *pair = arg;
    fixture_set(&pair->ready, 1);
    while (fixture_get(&pair->gate) == 0)
        (void)sched_yield(); /* lets the test's thread run */
    pair->first = numio_is_cancelled();
    pair->second = numio_yield_now();
    pair->third = numio_sleep_ns(1);
    return pair->third;
}

Test(join, abort_of_a_running_coroutine_reaches_its_next_awaits, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct pair pair = { 0 };
    struct numio_join *join = spawn(runtime, run_then_look, &pair);
    cr_assert(fixture_wait(&pair.ready, 1));
    numio_join_abort(join);
    fixture_set(&pair.gate, 1);
    cr_assert_eq(numio_join_wait(&join, -1), -ECANCELED);
    cr_assert_eq(pair.first, 1);
    cr_assert_eq(pair.second, -ECANCELED);
    cr_assert_eq(pair.third, -ECANCELED, "it is told again");
    numio_runtime_destroy(runtime);
}

static int64_t ignore_abort(void *arg)
{
    struct pair *pair = arg;
    (void)run_then_look(arg); /* what it returns is what is ignored */
    return pair->second == -ECANCELED ? 11 : 0;
}

Test(join, a_task_that_ends_by_itself_keeps_its_result, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct pair pair = { 0 };
    struct numio_join *join = spawn(runtime, ignore_abort, &pair);
    cr_assert(fixture_wait(&pair.ready, 1));
    numio_join_abort(join);
    fixture_set(&pair.gate, 1);
    cr_assert_eq(numio_join_wait(&join, -1), 11);
    numio_runtime_destroy(runtime);
}

static _Atomic uint32_t drops;
static _Atomic uint32_t polls;

static enum numio_poll never_ready(void *state, struct numio_context *cx)
{
    (void)state;
    (void)cx;
    fixture_set(&polls, fixture_get(&polls) + 1);
    return NUMIO_PENDING;
}

static void count_drop(void *state)
{
    (void)state;
    fixture_set(&drops, fixture_get(&drops) + 1);
}

Test(join, abort_of_a_future_idle_on_a_wake_drops_its_state_once, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_future future = { .poll = never_ready, .drop = count_drop, .size = 64 };
    struct numio_join *join;
    cr_assert_eq(numio_spawn(numio_runtime_handle(runtime), &future, NULL, &join), 0);
    cr_assert(fixture_wait(&polls, 1));
    abort_and_join(join);
    cr_assert_eq(fixture_get(&drops), 1);
    cr_assert_eq(fixture_get(&polls), 1, "it is not polled again");
    numio_runtime_destroy(runtime);
}

static int64_t read_for_ever(void *arg)
{
    struct pair *pair = arg;
    char byte;
    fixture_set(&pair->ready, 1);
    int64_t result = numio_read((int)pair->first, &byte, 1);
    pair->second = numio_read((int)pair->first, &byte, 1);
    return result;
}

FIXTURE_EACH(join, abort_of_a_task_idle_on_an_operation, .timeout = 10)
{
    struct pair pair = { 0 };
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    pair.first = ends[0];
    struct numio_join *join = spawn(runtime, read_for_ever, &pair);
    cr_assert(fixture_wait(&pair.ready, 1));
    abort_and_join(join);
    cr_assert_eq(pair.second, -ECANCELED);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    char byte = 0;
    cr_assert_eq(read(ends[0], &byte, 1), 1, "nothing is in flight that could take it");
    (void)close(ends[0]);
    (void)close(ends[1]);
}

FIXTURE_EACH(join, abort_of_a_sleeping_task_ends_it_at_once, .timeout = 10)
{
    _Atomic uint32_t started = 0;
    struct numio_join *join = spawn(runtime, sleep_long, &started);
    cr_assert(fixture_wait(&started, 1));
    uint64_t before_ns = nio_now_ns();
    abort_and_join(join);
    cr_assert_lt(nio_now_ns() - before_ns, 2000000000);
}

FIXTURE_EACH(join, abort_races_with_the_end_of_an_operation, .timeout = 20)
{
    static struct numio_join *joins[200];
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < NIO_ARRAY_LEN(joins); i++)
            joins[i] = spawn(runtime, sleep_briefly, (void *)(i * 1000ul));
        for (unsigned i = 0; i < NIO_ARRAY_LEN(joins); i++)
            numio_join_abort(joins[i]);
        for (unsigned i = 0; i < NIO_ARRAY_LEN(joins); i++) {
            int64_t result = numio_join_wait(&joins[i], 5000000000);
            cr_assert(result == 0 || result == -ECANCELED, "%ld", (long)result);
        }
    }
}

Test(join, abort_of_a_completed_task_changes_nothing, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_join *join = spawn(runtime, echo, (void *)8);
    cr_assert(fixture_until(has_finished, join));
    numio_join_abort(join);
    cr_assert_eq(numio_join_wait(&join, -1), 8);
    numio_runtime_destroy(runtime);
}

/* A function that runs on the one pool thread, and one that waits behind it. */
Test(join, abort_of_blocking_functions, .timeout = 10)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    config.blocking_threads = 1;
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct pair pair = { 0 };
    _Atomic uint32_t has_run = 0;
    struct numio_join *running;
    struct numio_join *queued;
    cr_assert_eq(numio_spawn_blocking(handle, spin_until_set, &pair.gate, NULL, &running), 0);
    cr_assert_eq(numio_spawn_blocking(handle, must_not_run, &has_run, NULL, &queued), 0);
    numio_join_abort(queued);
    numio_join_abort(running); /* it has run already or will; either way it ends */
    fixture_set(&pair.gate, 1);
    int64_t result = numio_join_wait(&running, -1);
    cr_assert(result == 5 || result == -ECANCELED, "%ld", (long)result);
    cr_assert_eq(numio_join_wait(&queued, -1), -ECANCELED);
    cr_assert_eq(fixture_get(&has_run), 0);
    numio_runtime_destroy(runtime);
}

/* ---- abort handles ------------------------------------------------------------------------ */

Test(join, an_abort_handle_outlives_the_join_handle, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    _Atomic uint32_t started = 0;
    struct numio_join *join = spawn(runtime, sleep_long, &started);
    struct numio_abort *abort = numio_join_abort_handle(join);
    numio_join_detach(&join);
    cr_assert(fixture_wait(&started, 1));
    cr_assert_eq(numio_live_tasks(numio_runtime_handle(runtime)), 1);
    numio_abort_task(abort);
    cr_assert_eq(numio_runtime_shutdown(runtime, 5000000000, NULL, 0, NULL), 0);
    numio_abort_task(abort); /* of a task that has ended */
    numio_abort_drop(abort);
    numio_abort_drop(NULL);
    numio_runtime_destroy(runtime);
}

static void *abort_in_thread(void *arg)
{
    numio_abort_task(arg);
    numio_abort_drop(arg);
    return NULL;
}

Test(join, abort_and_join_may_race_from_two_threads, .timeout = 20)
{
    struct numio_runtime *runtime = fixture_start(2);
    for (unsigned i = 0; i < 300; i++) {
        pthread_t thread;
        struct numio_join *join = spawn(runtime, sleep_long, NULL);
        struct numio_abort *abort = numio_join_abort_handle(join);
        cr_assert_eq(pthread_create(&thread, NULL, abort_in_thread, abort), 0);
        cr_assert_eq(numio_join_wait(&join, -1), -ECANCELED);
        cr_assert_eq(pthread_join(thread, NULL), 0);
    }
    numio_runtime_destroy(runtime);
}

static int64_t abort_myself(void *arg)
{
    struct pair *pair = arg;
    while (fixture_get(&pair->ready) == 0)
        if (numio_yield_now() < 0)
            return 0;
    numio_join_abort(pair->join);
    return numio_sleep_ns(for_ever_ns);
}

Test(join, a_task_may_abort_itself, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct pair pair = { 0 };
    pair.join = spawn(runtime, abort_myself, &pair);
    fixture_set(&pair.ready, 1);
    cr_assert(fixture_until(has_finished, pair.join));
    cr_assert_eq(numio_join_wait(&pair.join, -1), -ECANCELED);
    numio_runtime_destroy(runtime);
}

/* ---- wakers ------------------------------------------------------------------------------- */

struct hand {
    struct numio_waker waker;
    _Atomic uint32_t is_there; /* the waker is */
    _Atomic uint32_t is_open;  /* the future may end */
};

static enum numio_poll hand_waker_over(void *state, struct numio_context *cx)
{
    struct hand *hand = *(struct hand **)state;
    if (fixture_get(&hand->is_open))
        return NUMIO_READY;
    if (!fixture_get(&hand->is_there)) {
        hand->waker = numio_context_waker(cx);
        fixture_set(&hand->is_there, 1);
    }
    return NUMIO_PENDING;
}

static struct numio_join *spawn_hand(struct numio_runtime *runtime, struct hand *hand)
{
    struct numio_future future = { .poll = hand_waker_over, .state = &hand, .size = sizeof hand };
    struct numio_join *join = NULL;
    cr_assert_eq(numio_spawn(numio_runtime_handle(runtime), &future, NULL, &join), 0);
    cr_assert(fixture_wait(&hand->is_there, 1));
    return join;
}

Test(join, a_waker_wakes_from_any_thread, .timeout = 20)
{
    struct numio_runtime *runtime = fixture_start(2);
    for (unsigned i = 0; i < 300; i++) {
        struct hand hand = { 0 };
        struct numio_join *join = spawn_hand(runtime, &hand);
        struct numio_waker clone = numio_waker_clone(&hand.waker);
        numio_waker_wake_by_ref(&clone); /* too early: it waits again */
        fixture_set(&hand.is_open, 1);
        numio_waker_wake(&hand.waker);
        cr_assert_null(hand.waker._task);
        cr_assert_eq(numio_join_wait(&join, 5000000000), 0);
        numio_waker_wake_by_ref(&clone); /* of a task that has ended */
        numio_waker_drop(&clone);
        numio_waker_drop(&clone);
        numio_waker_wake(&clone);
    }
    numio_runtime_destroy(runtime);
}

Test(join, handles_and_wakers_held_after_destroy_still_work, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct hand hand = { 0 };
    struct numio_join *waiting = spawn_hand(runtime, &hand);
    struct numio_join *done = spawn(runtime, echo, (void *)3);
    struct numio_join *asleep = spawn(runtime, sleep_long, NULL);
    struct numio_abort *abort = numio_join_abort_handle(asleep);
    cr_assert(fixture_until(has_finished, done));
    numio_runtime_destroy(runtime);
    cr_assert(numio_join_is_finished(asleep));
    cr_assert(strstr(numio_join_meta(asleep).file, "test_join.c"));
    cr_assert_eq(numio_join_wait(&done, -1), 3);
    cr_assert_eq(numio_join_wait(&asleep, -1), -ECANCELED);
    cr_assert_eq(numio_join_try(&waiting), -ECANCELED);
    numio_abort_task(abort);
    numio_abort_drop(abort);
    struct numio_waker clone = numio_waker_clone(&hand.waker);
    numio_waker_wake(&clone);
    numio_waker_wake_by_ref(&hand.waker);
    numio_waker_drop(&hand.waker); /* the last: the runtime's memory goes with it */
}
