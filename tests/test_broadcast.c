/* SPDX-License-Identifier: MIT */
/* Promises of the broadcast: each receiver sees every message since it came, in order, or is told
 * how many it has missed; closing; deadlines, aborts, futures and selections lose nothing. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

#include <pthread.h>

#include "runtime/base/mem.h"

enum { SOON_NS = 2000000, STEPS = 5000, RECEIVERS = 5, MESSAGES = 2000, MANY = 4 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static struct numio_broadcast *create(uint64_t capacity)
{
    struct numio_broadcast *broadcast = NULL;
    return numio_broadcast_create(8, capacity, &broadcast) == 0 ? broadcast : NULL;
}

/* ---- the model ----------------------------------------------------------------------------- */

static void model(struct nio_rng *rng, uint64_t capacity)
{
    struct numio_broadcast *broadcast = create(capacity);
    struct numio_broadcast_receiver receivers[RECEIVERS];
    uint64_t next[RECEIVERS], sent = 0;
    bool is_closed = false;
    for (int i = 0; i < RECEIVERS; i++) {
        numio_broadcast_subscribe(broadcast, &receivers[i]);
        next[i] = 0;
    }
    for (int step = 0; step < STEPS; step++) {
        uint32_t i = nio_rng_below(rng, RECEIVERS);
        uint64_t message = 0, left = sent - next[i];
        switch (nio_rng_below(rng, 6)) {
        case 0:
            cr_assert_eq(numio_broadcast_send(broadcast, &sent), is_closed ? -EPIPE : 0);
            sent += !is_closed;
            break;
        case 1:
            if (nio_rng_below(rng, 40) == 0) {
                numio_broadcast_subscribe(broadcast, &receivers[i]);
                next[i] = sent;
            }
            break;
        default:
            cr_assert_eq(numio_broadcast_len(&receivers[i]), left);
            int rc = numio_broadcast_try_recv(&receivers[i], &message);
            if (left > capacity) {
                cr_assert_eq(rc, -EOVERFLOW);
                cr_assert_eq(numio_broadcast_missed(&receivers[i]), left - capacity);
                next[i] = sent - capacity;
            } else if (left > 0) {
                cr_assert_eq(rc, 0);
                cr_assert_eq(message, next[i]++);
            } else {
                cr_assert_eq(rc, is_closed ? -EPIPE : -EAGAIN);
            }
            break;
        }
        if (step == STEPS - 100) {
            numio_broadcast_close(broadcast);
            is_closed = true;
        }
    }
    numio_broadcast_destroy(broadcast);
}

Test(broadcast, agrees_with_a_naive_model, .timeout = 30)
{
    static const uint64_t capacities[] = { 1, 2, 3, 8, 100 };
    struct nio_rng rng = seeded_rng(5);
    for (size_t i = 0; i < NIO_ARRAY_LEN(capacities); i++)
        model(&rng, capacities[i]);
}

Test(broadcast, refuses_what_it_cannot_be)
{
    struct numio_broadcast *none = NULL;
    cr_assert_eq(numio_broadcast_create(0, 1, &none), -EINVAL);
    cr_assert_eq(numio_broadcast_create(NUMIO_MESSAGE_BYTES_MAX + 1, 1, &none), -EINVAL);
    cr_assert_eq(numio_broadcast_create(8, 0, &none), -EINVAL);
    cr_assert_eq(numio_broadcast_create(8, UINT64_MAX, &none), -ENOMEM);
    for (long nth = 1; nth <= 2; nth++) {
        nio_fault_arm(nth);
        cr_assert_eq(numio_broadcast_create(8, 4, &none), -ENOMEM);
        nio_fault_arm(0);
    }
    cr_assert_null(none);
    numio_broadcast_destroy(none);
}

/* ---- tasks and threads --------------------------------------------------------------------- */

struct listener {
    struct numio_broadcast_receiver receiver;
    uint64_t next, missed;
};

static int64_t listen_to_all(void *arg)
{
    struct listener *l = arg;
    uint64_t message;
    for (;;) {
        int rc = numio_broadcast_recv(&l->receiver, &message);
        if (rc == -EPIPE)
            return 0;
        if (rc == -EOVERFLOW) {
            EXPECT(numio_broadcast_missed(&l->receiver) > 0);
            l->missed += numio_broadcast_missed(&l->receiver);
            l->next += numio_broadcast_missed(&l->receiver);
            continue;
        }
        EXPECT(rc == 0 && message == l->next);
        l->next++;
    }
}

static void *listen_in_thread(void *arg)
{
    return (void *)(intptr_t)listen_to_all(arg);
}

struct talk {
    struct numio_broadcast *broadcast;
    struct listener listeners[RECEIVERS + 1];
};

static int64_t talk(void *arg)
{
    struct talk *t = arg;
    struct numio_join *joins[RECEIVERS];
    for (int i = 0; i < RECEIVERS; i++)
        EXPECT(numio_spawn_co(NULL, listen_to_all, &t->listeners[i], NULL, &joins[i]) == 0);
    for (uint64_t i = 0; i < MESSAGES; i++) {
        EXPECT(numio_broadcast_send(t->broadcast, &i) == 0);
        if (i % 7 == 0)
            EXPECT(numio_yield_now() == 0);
    }
    numio_broadcast_close(t->broadcast);
    for (int i = 0; i < RECEIVERS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

static void talk_with(struct numio_runtime *runtime, uint64_t capacity)
{
    struct talk t = { .broadcast = create(capacity) };
    pthread_t thread;
    void *line;
    for (int i = 0; i <= RECEIVERS; i++)
        numio_broadcast_subscribe(t.broadcast, &t.listeners[i].receiver);
    cr_assert_eq(pthread_create(&thread, NULL, listen_in_thread, &t.listeners[RECEIVERS]), 0);
    cr_assert_eq(run(runtime, talk, &t), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line, "line %ld", (long)(intptr_t)line);
    for (int i = 0; i <= RECEIVERS; i++) {
        cr_assert_eq(t.listeners[i].next, (uint64_t)MESSAGES);
        cr_assert(capacity < MESSAGES || t.listeners[i].missed == 0);
    }
    numio_broadcast_destroy(t.broadcast);
}

FIXTURE_EACH(broadcast, each_receiver_sees_all_or_is_told_how_many_it_missed, .timeout = 60)
{
    talk_with(runtime, 2);
    talk_with(runtime, MESSAGES);
}

/* ---- deadlines, aborts, futures, selections ------------------------------------------------ */

static int64_t wait_in_time(void *arg)
{
    struct numio_broadcast_receiver receiver;
    uint64_t message = 4, got = 0;
    numio_broadcast_subscribe(arg, &receiver);
    EXPECT(numio_within(SOON_NS, numio_broadcast_recv(&receiver, &got)) == -ETIMEDOUT);
    EXPECT(numio_broadcast_send(arg, &message) == 0);
    EXPECT(got == 0 && numio_broadcast_recv(&receiver, &got) == 0 && got == 4);
    return 0;
}

FIXTURE_EACH(broadcast, a_wait_ends_in_time, .timeout = 30)
{
    struct numio_broadcast *broadcast = create(4);
    cr_assert_eq(run(runtime, wait_in_time, broadcast), 0, "line %ld", (long)last_line);
    cr_assert_eq(wait_in_time(broadcast), 0); /* a plain thread as well */
    numio_broadcast_destroy(broadcast);
}

static void reset(void *arg)
{
    struct talk *t = arg;
    t->broadcast = create(2);
    t->listeners[0] = (struct listener){ .next = 0 };
    numio_broadcast_subscribe(t->broadcast, &t->listeners[0].receiver);
}

static int64_t listen_thrice(void *arg)
{
    struct talk *t = arg;
    for (int i = 0; i < 3; i++) {
        uint64_t message;
        int rc = numio_broadcast_recv(&t->listeners[0].receiver, &message);
        if (rc)
            return rc;
        EXPECT(message == t->listeners[0].next);
        t->listeners[0].next++;
    }
    return 0;
}

static int64_t talk_thrice(void *arg)
{
    struct talk *t = arg;
    for (uint64_t i = 0; i < 3; i++) {
        EXPECT(numio_broadcast_send(t->broadcast, &i) == 0);
        EXPECT(numio_yield_now() == 0);
        EXPECT(numio_yield_now() == 0);
    }
    return 0;
}

static int64_t check_rest(void *arg, int64_t result)
{
    struct talk *t = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(numio_broadcast_len(&t->listeners[0].receiver) == 3 - t->listeners[0].next);
    numio_broadcast_destroy(t->broadcast); /* asserts that nobody waits */
    return 0;
}

Test(broadcast, an_abort_at_each_step_loses_no_message, .timeout = 60)
{
    struct talk t;
    struct abort_case what = { reset, listen_thrice, talk_thrice, check_rest, &t };
    cr_assert_geq(abort_each(&what), 2u);
}

struct waiter {
    struct numio_broadcast_receiver *receiver;
    uint64_t message;
    struct numio_op op;
    bool is_waiting, is_forgetful;
};

static enum numio_poll waiter_poll(void *state, struct numio_context *cx)
{
    struct waiter *w = state;
    int64_t result;
    if (!w->is_waiting) {
        numio_op_broadcast_recv(&w->op, w->receiver, &w->message);
        w->is_waiting = numio_op_start(&w->op, cx) == 0;
    }
    if (w->is_forgetful || numio_op_poll(&w->op, cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    *(uint64_t *)numio_context_output(cx) = result == 0 ? w->message : 0;
    return NUMIO_READY;
}

static int64_t spawn_waiter(struct numio_broadcast_receiver *receiver, bool is_forgetful,
                            struct numio_join **ret_join)
{
    struct waiter w = { .receiver = receiver, .is_forgetful = is_forgetful };
    struct numio_future future = {
        .poll = waiter_poll, .state = &w, .size = sizeof w, .output_size = sizeof(uint64_t)
    };
    EXPECT(numio_spawn(NULL, &future, NULL, ret_join) == 0);
    return numio_yield_now();
}

static int64_t futures(void *arg)
{
    struct numio_broadcast_receiver receiver;
    struct numio_join *join;
    uint64_t message = 31, got;
    numio_broadcast_subscribe(arg, &receiver);
    EXPECT(spawn_waiter(&receiver, false, &join) == 0);
    EXPECT(numio_broadcast_send(arg, &message) == 0);
    EXPECT(numio_join_await_output(&join, &got, sizeof got) == 0 && got == 31);
    for (int is_first = 0; is_first < 2; is_first++) {
        if (is_first)
            EXPECT(numio_broadcast_send(arg, &message) == 0);
        EXPECT(spawn_waiter(&receiver, true, &join) == 0);
        if (!is_first)
            EXPECT(numio_broadcast_send(arg, &message) == 0);
        numio_join_abort(join);
        EXPECT(numio_join_await(&join) == -ECANCELED);
        EXPECT(numio_broadcast_try_recv(&receiver, &got) == 0 && got == 31);
    }
    return 0;
}

Test(broadcast, futures_receive_and_an_aborted_one_has_not, .timeout = 30)
{
    struct numio_broadcast *broadcast = create(4);
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, futures, broadcast), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
    numio_broadcast_destroy(broadcast);
}

struct choice {
    struct numio_broadcast *broadcasts[MANY];
    struct numio_broadcast_receiver receivers[MANY];
};

static int64_t talk_in_turns(void *arg)
{
    struct choice *c = arg;
    for (uint64_t i = 0; i < MESSAGES; i++)
        EXPECT(numio_broadcast_send(c->broadcasts[i % MANY], &i) == 0);
    return 0;
}

static int64_t select_all(void *arg)
{
    struct choice *c = arg;
    struct numio_join *join;
    uint64_t next[MANY] = { 0, 1, 2, 3 };
    EXPECT(numio_spawn_co(NULL, talk_in_turns, c, NULL, &join) == 0);
    for (int i = 0; i < MESSAGES; i++) {
        struct numio_op ops[MANY];
        uint64_t messages[MANY];
        for (int k = 0; k < MANY; k++)
            numio_op_broadcast_recv(&ops[k], &c->receivers[k], &messages[k]);
        int64_t index = numio_select(ops, MANY, NUMIO_SELECT_FAIR);
        EXPECT(index >= 0 && numio_op_result(&ops[index]) == 0);
        EXPECT(messages[index] == next[index]);
        next[index] += MANY;
    }
    EXPECT(numio_join_await(&join) == 0);
    return 0;
}

FIXTURE_EACH(broadcast, of_a_selection_one_receives, .timeout = 60)
{
    struct choice c;
    for (int k = 0; k < MANY; k++) {
        c.broadcasts[k] = create(MESSAGES);
        numio_broadcast_subscribe(c.broadcasts[k], &c.receivers[k]);
    }
    cr_assert_eq(run(runtime, select_all, &c), 0, "line %ld", (long)last_line);
    for (int k = 0; k < MANY; k++)
        numio_broadcast_destroy(c.broadcasts[k]);
}

static int64_t leave_waiting(void *arg)
{
    struct talk *t = arg;
    struct numio_join *join;
    for (int i = 0; i < RECEIVERS; i++)
        EXPECT(numio_spawn_co(NULL, listen_to_all, &t->listeners[i], NULL, NULL) == 0);
    EXPECT(spawn_waiter(&t->listeners[RECEIVERS].receiver, true, &join) == 0);
    numio_join_detach(&join);
    return 0;
}

FIXTURE_EACH(broadcast, the_end_of_the_runtime_ends_all_waits, .timeout = 30)
{
    struct talk t = { .broadcast = create(2) };
    size_t count;
    for (int i = 0; i <= RECEIVERS; i++)
        numio_broadcast_subscribe(t.broadcast, &t.listeners[i].receiver);
    cr_assert_eq(run(runtime, leave_waiting, &t), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, &count), 0);
    numio_broadcast_destroy(t.broadcast); /* asserts that nobody waits */
}
