/* SPDX-License-Identifier: MIT */
/* Promises of the wait for a channel's close: it ends for everybody who waits, and for who comes
 * later at once; as all waits it can be late, selected, polled, aborted, and ends at shutdown. */
#include "runtime/sync/channel_ring.h"
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/steps.h"
#include "tests/sync_cases.h"

enum { WAITERS = 5, SOON_MS = 20 };

static struct numio_channel *channel;
static int64_t last_line;

static void create(void)
{
    cr_assert_eq(numio_channel_create(8, 1, 0, &channel), 0);
}

/* ---- who hears of it ----------------------------------------------------------------------- */

static int64_t wait_closed(void *arg)
{
    (void)arg;
    int rc = numio_channel_wait_closed(channel);
    return rc ? rc : numio_channel_is_closed(channel);
}

static void *wait_in_thread(void *arg)
{
    return (void *)(intptr_t)wait_closed(arg);
}

/* A sender that is refused, too, and a receiver: each with its own answer. */
static int64_t close_for_all(void *arg)
{
    struct numio_join *joins[WAITERS];
    uint64_t message = 1;
    (void)arg;
    for (int i = 0; i < WAITERS; i++)
        EXPECT(numio_spawn_co(NULL, wait_closed, NULL, NULL, &joins[i]) == 0);
    EXPECT(numio_channel_send(channel, &message) == 0);
    EXPECT(numio_within(SOON_MS * 1000000, numio_channel_wait_closed(channel)) == -ETIMEDOUT);
    numio_channel_close(channel);
    for (int i = 0; i < WAITERS; i++)
        EXPECT(numio_join_await(&joins[i]) == 1);
    EXPECT(numio_channel_wait_closed(channel) == 0);
    numio_channel_close(channel);
    EXPECT(numio_channel_recv(channel, &message) == 0);
    EXPECT(numio_channel_recv(channel, &message) == -EPIPE);
    return 0;
}

FIXTURE_EACH(channel_closed, everybody_hears_of_the_close, .timeout = 30)
{
    pthread_t thread;
    void *result;
    create();
    cr_assert_eq(pthread_create(&thread, NULL, wait_in_thread, NULL), 0);
    last_line = numio_block_on(numio_runtime_handle(runtime), close_for_all, NULL);
    cr_assert_eq(last_line, 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &result), 0);
    cr_assert_eq((intptr_t)result, 1);
    numio_channel_destroy(channel);
}

/* ---- as all waits -------------------------------------------------------------------------- */

static void prep(struct numio_op *op, void *object)
{
    numio_op_channel_wait_closed(op, object);
}

/* Opens it again, which no user can: under the lock, as nobody waits. */
static void block(void *object)
{
    struct numio_channel *c = object;
    nio_wait_queue_acquire(&c->receivers);
    /* relaxed: under the lock */
    (void)atomic_fetch_and_explicit(&c->bits, ~(uint32_t)NIO_CHANNEL_CLOSED, memory_order_relaxed);
    nio_wait_queue_release(&c->receivers);
}

static void give(void *object)
{
    numio_channel_close(object);
}

static bool is_clean(void *object)
{
    struct numio_channel *c = object;
    return numio_channel_is_closed(c) && !c->watchers._first;
}

static struct sync_case make_case(void)
{
    create();
    return (struct sync_case){
        prep, block, give, is_clean, channel, &channel->watchers, &channel->receivers
    };
}

FIXTURE_EACH(channel_closed, a_wait_is_late_selected_polled_or_refused, .timeout = 60)
{
    struct sync_case c = make_case();
    sync_check(runtime, &c);
    numio_channel_destroy(channel);
}

Test(channel_closed, a_lost_selection_is_passed_over, .timeout = 30)
{
    struct sync_case c = make_case();
    sync_check_on_one_worker(&c, sync_lost_steps);
    numio_channel_destroy(channel);
}

Test(channel_closed, an_aborted_future_has_changed_nothing, .timeout = 30)
{
    struct sync_case c = make_case();
    sync_check_on_one_worker(&c, sync_give_back_steps);
    numio_channel_destroy(channel);
}

Test(channel_closed, at_shutdown_all_waits_end, .timeout = 30)
{
    struct sync_case c = make_case();
    sync_check_shutdown(&c);
    numio_channel_destroy(channel);
}

/* ---- aborts -------------------------------------------------------------------------------- */

static void set_up(void *arg)
{
    (void)arg;
    create();
}

static int64_t wait_twice(void *arg)
{
    int rc = numio_channel_wait_closed(channel);
    return rc ? rc : wait_closed(arg);
}

static int64_t close_soon(void *arg)
{
    (void)arg;
    int stop = numio_yield_now();
    numio_channel_close(channel);
    return stop;
}

static int64_t check_end(void *arg, int64_t result)
{
    (void)arg;
    EXPECT(result == 1 || result == -ECANCELED);
    EXPECT(!channel->watchers._first && numio_channel_is_closed(channel));
    numio_channel_destroy(channel);
    return 0;
}

Test(channel_closed, an_abort_at_each_step_leaves_nothing_behind, .timeout = 30)
{
    struct abort_case wait = { set_up, wait_twice, close_soon, check_end, NULL };
    cr_assert_geq(abort_each(&wait), 1u);
}
