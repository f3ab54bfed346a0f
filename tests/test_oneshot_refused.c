/* SPDX-License-Identifier: MIT */
/* Promises of the sender's wait for the receiver's close: it ends with it, whether the receiver has
 * waited meanwhile or not; it is late, selected, polled, aborted and ended at shutdown as all
 * waits; and it costs neither side anything else. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

#include <pthread.h>

enum { SOON_NS = 2000000, LATE_NS = 200000000, ROUNDS = 3000 };

static struct numio_oneshot oneshot;
static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    numio_oneshot_init(&oneshot);
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static int64_t wait_refused(void *arg)
{
    (void)arg;
    int rc = numio_oneshot_wait_refused(&oneshot);
    return rc ? rc : numio_oneshot_is_refused(&oneshot);
}

static int64_t receive(void *arg)
{
    uint64_t value;
    return numio_within((intptr_t)arg, numio_oneshot_recv(&oneshot, &value, sizeof value));
}

/* ---- who hears of it ----------------------------------------------------------------------- */

static int64_t close_while_it_waits(void *arg)
{
    struct numio_join *sender, *receiver;
    uint64_t value = 7;
    (void)arg;
    EXPECT(numio_within(SOON_NS, numio_oneshot_wait_refused(&oneshot)) == -ETIMEDOUT);
    EXPECT(numio_spawn_co(NULL, wait_refused, NULL, NULL, &sender) == 0);
    EXPECT(numio_spawn_co(NULL, receive, (void *)(intptr_t)SOON_NS, NULL, &receiver) == 0);
    EXPECT(numio_join_await(&receiver) == -ETIMEDOUT); /* both have waited at once */
    EXPECT(numio_oneshot_try_recv(&oneshot, &value, sizeof value) == -EAGAIN);
    numio_oneshot_close_receiver(&oneshot);
    EXPECT(numio_join_await(&sender) == 1);
    EXPECT(numio_oneshot_wait_refused(&oneshot) == 0); /* at once */
    EXPECT(numio_oneshot_send(&oneshot, &value, sizeof value) == -EPIPE);
    return 0;
}

FIXTURE_EACH(oneshot_refused, the_sender_hears_of_the_close, .timeout = 30)
{
    cr_assert_eq(run(runtime, close_while_it_waits, NULL), 0, "line %ld", (long)last_line);
}

static void *wait_in_thread(void *arg)
{
    return (void *)(intptr_t)wait_refused(arg);
}

static int64_t close_soon(void *arg)
{
    int64_t rc = numio_sleep_ns((intptr_t)arg);
    numio_oneshot_close_receiver(&oneshot);
    return rc;
}

FIXTURE_EACH(oneshot_refused, a_thread_hears_of_it_as_well, .timeout = 30)
{
    pthread_t thread;
    void *result;
    numio_oneshot_init(&oneshot);
    cr_assert_eq(pthread_create(&thread, NULL, wait_in_thread, NULL), 0);
    cr_assert_eq(
        numio_block_on(numio_runtime_handle(runtime), close_soon, (void *)(intptr_t)SOON_NS), 0);
    cr_assert_eq(pthread_join(thread, &result), 0);
    cr_assert_eq((intptr_t)result, 1);
}

/* ---- beside the other calls ---------------------------------------------------------------- */

static int64_t send_while_somebody_waits(void *arg)
{
    struct numio_join *waiter, *receiver;
    uint64_t value = 7;
    (void)arg;
    EXPECT(numio_spawn_co(NULL, wait_refused, NULL, NULL, &waiter) == 0);
    EXPECT(numio_spawn_co(NULL, receive, (void *)(intptr_t)LATE_NS, NULL, &receiver) == 0);
    for (int i = 0; i < 100; i++)
        EXPECT(numio_yield_now() == 0); /* both wait */
    EXPECT(numio_oneshot_wait_refused(&oneshot) == -EBUSY);
    EXPECT(numio_oneshot_send(&oneshot, &value, sizeof value) == -EBUSY);
    numio_join_abort(waiter);
    EXPECT(numio_join_await(&waiter) == -ECANCELED);
    EXPECT(numio_oneshot_send(&oneshot, &value, sizeof value) == 0);
    EXPECT(numio_join_await(&receiver) == 8);
    EXPECT(numio_oneshot_wait_refused(&oneshot) == -EALREADY);
    numio_oneshot_init(&oneshot);
    numio_oneshot_close_sender(&oneshot);
    EXPECT(numio_oneshot_wait_refused(&oneshot) == -EALREADY);
    return 0;
}

/* Only one of several that begin at the same moment waits; the others are told. */
static int64_t crowd_in(void *arg)
{
    enum { CROWD = 4, TURNS = 300 };
    struct numio_join *joins[CROWD];
    (void)arg;
    for (int turn = 0; turn < TURNS; turn++) {
        int64_t told = 0, heard = 0;
        numio_oneshot_init(&oneshot);
        for (int i = 0; i < CROWD; i++)
            EXPECT(numio_spawn_co(NULL, wait_refused, NULL, NULL, &joins[i]) == 0);
        for (int i = 0; i < turn % 8; i++)
            EXPECT(numio_yield_now() == 0);
        numio_oneshot_close_receiver(&oneshot);
        for (int i = 0; i < CROWD; i++) {
            int64_t rc = numio_join_await(&joins[i]);
            told += rc == -EBUSY;
            heard += rc == 1;
        }
        EXPECT(heard >= 1 && told + heard == CROWD);
    }
    return 0;
}

FIXTURE_EACH(oneshot_refused, of_several_at_the_same_moment_one_waits, .timeout = 30)
{
    cr_assert_eq(run(runtime, crowd_in, NULL), 0, "line %ld", (long)last_line);
}

/* On one worker: a yield lets the others come to their waits. */
Test(oneshot_refused, a_send_beside_the_wait_is_refused, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, send_while_somebody_waits, NULL), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

/* Work for a value that nobody wants any more is given up: what the wait is for. */
static int64_t work_until_refused(void *arg)
{
    struct numio_semaphore work = NUMIO_SEMAPHORE_INIT(0);
    struct numio_op ops[2];
    uint64_t value = 9;
    for (int i = 0; i < 2; i++) {
        numio_op_semaphore_acquire(&ops[0], &work, 1);
        numio_op_oneshot_wait_refused(&ops[1], &oneshot);
        if (i == 0)
            EXPECT(numio_semaphore_release(&work, 1) == 0);
        int64_t index = numio_select(ops, 2, NUMIO_SELECT_BIASED);
        EXPECT(index == i && numio_op_result(&ops[i]) == 0);
        EXPECT(numio_op_result(&ops[1 - i]) == -ECANCELED);
    }
    EXPECT(numio_oneshot_send(&oneshot, &value, sizeof value) == -EPIPE);
    return arg == NULL ? 0 : __LINE__;
}

static int64_t select_and_close(void *arg)
{
    struct numio_join *sender;
    (void)arg;
    EXPECT(numio_spawn_co(NULL, work_until_refused, NULL, NULL, &sender) == 0);
    EXPECT(close_soon((void *)(intptr_t)SOON_NS) == 0);
    return numio_join_await(&sender);
}

FIXTURE_EACH(oneshot_refused, a_selection_ends_the_work_for_it, .timeout = 30)
{
    cr_assert_eq(run(runtime, select_and_close, NULL), 0, "line %ld", (long)last_line);
}

/* ---- futures ------------------------------------------------------------------------------- */

struct watcher {
    struct numio_op op;
    bool has_begun;
    int *ret_result;
};

static enum numio_poll poll_watcher(void *state, struct numio_context *cx)
{
    struct watcher *w = state;
    if (!w->has_begun) {
        numio_op_oneshot_wait_refused(&w->op, &oneshot);
        w->has_begun = numio_op_start(&w->op, cx) == 0;
        if (!w->has_begun)
            return NUMIO_READY;
    }
    int64_t result;
    enum numio_poll polled = numio_op_poll(&w->op, cx, &result);
    if (polled == NUMIO_READY)
        *w->ret_result = (int)result;
    return polled;
}

static int64_t watch_by_futures(void *arg)
{
    int result = 1;
    struct watcher w = { .ret_result = &result };
    struct numio_future future = { .poll = poll_watcher, .state = &w, .size = sizeof w };
    struct numio_join *join;
    (void)arg;
    EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0);
    EXPECT(numio_sleep_ns(SOON_NS) == 0);
    numio_join_abort(join);
    EXPECT(numio_join_await(&join) == -ECANCELED);
    EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0); /* it has left nothing there */
    EXPECT(close_soon((void *)(intptr_t)SOON_NS) == 0);
    EXPECT(numio_join_await(&join) == 0 && result == 0);
    return 0;
}

FIXTURE_EACH(oneshot_refused, futures_hear_of_it_and_may_be_aborted, .timeout = 30)
{
    cr_assert_eq(run(runtime, watch_by_futures, NULL), 0, "line %ld", (long)last_line);
}

/* ---- aborts and the end -------------------------------------------------------------------- */

static void set_up(void *arg)
{
    (void)arg;
    numio_oneshot_init(&oneshot);
}

static int64_t close_at_once(void *arg)
{
    (void)arg;
    int stop = numio_yield_now();
    numio_oneshot_close_receiver(&oneshot);
    return stop;
}

static int64_t check_end(void *arg, int64_t result)
{
    (void)arg;
    EXPECT(result == 1 || result == -ECANCELED);
    EXPECT(numio_oneshot_is_refused(&oneshot));
    return 0;
}

Test(oneshot_refused, an_abort_at_each_step_leaves_nothing_behind, .timeout = 30)
{
    struct abort_case wait = { set_up, wait_refused, close_at_once, check_end, NULL };
    cr_assert_geq(abort_each(&wait), 1u);
}

FIXTURE_EACH(oneshot_refused, the_end_of_the_runtime_ends_the_wait, .timeout = 30)
{
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_join *join;
    numio_oneshot_init(&oneshot);
    cr_assert_eq(numio_spawn_co(handle, wait_refused, NULL, NULL, &join), 0);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    cr_assert_eq(numio_join_wait(&join, -1), -ECANCELED);
    cr_assert_eq(numio_oneshot_send(&oneshot, "", 0), 0, "it has left nothing there");
}

/* ---- at the same moment -------------------------------------------------------------------- */

struct meeting {
    struct numio_oneshot oneshot;
    uint32_t wait_ns;
};

static int64_t receive_and_close(void *arg)
{
    struct meeting *m = arg;
    uint64_t value;
    int64_t rc = numio_within(m->wait_ns, numio_oneshot_recv(&m->oneshot, &value, sizeof value));
    if (rc == -ETIMEDOUT)
        numio_oneshot_close_receiver(&m->oneshot);
    return rc == -ETIMEDOUT ? 0 : rc;
}

static int64_t meet_often(void *arg)
{
    struct nio_rng rng = seeded_rng(0xc105ed);
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct meeting m = { .wait_ns = nio_rng_below(&rng, 20000) };
        struct numio_join *join;
        EXPECT(numio_spawn_co(NULL, receive_and_close, &m, NULL, &join) == 0);
        int rc;
        do /* gives up and comes back, too */
            rc = numio_within(nio_rng_below(&rng, 10000), numio_oneshot_wait_refused(&m.oneshot));
        while (rc == -ETIMEDOUT);
        EXPECT(rc == 0 && numio_oneshot_is_refused(&m.oneshot));
        EXPECT(numio_join_await(&join) == 0);
    }
    return 0;
}

FIXTURE_EACH(oneshot_refused, both_sides_come_and_go_at_any_moment, .timeout = 60)
{
    cr_assert_eq(run(runtime, meet_often, NULL), 0, "line %ld", (long)last_line);
}
