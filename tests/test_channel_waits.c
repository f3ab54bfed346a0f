/* SPDX-License-Identifier: MIT */
/* Promises of the channel's waits: deadlines and aborts that take nothing and lose nothing,
 * futures, selections, and the end of the runtime. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

#include <pthread.h>

enum { SOON_NS = 2000000, ROUNDS = 300, TASKS = 6, MANY = 4 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static struct numio_channel *create(uint64_t capacity, unsigned flags)
{
    struct numio_channel *channel = NULL;
    return numio_channel_create(8, capacity, flags, &channel) == 0 ? channel : NULL;
}

/* ---- deadlines ----------------------------------------------------------------------------- */

static int64_t wait_in_time(void *arg)
{
    uint64_t message = 1, other = 0;
    EXPECT(numio_within(SOON_NS, numio_channel_recv(arg, &other)) == -ETIMEDOUT && other == 0);
    EXPECT(numio_within(SOON_NS, numio_channel_recv_many(arg, &other, 1)) == -ETIMEDOUT);
    EXPECT(numio_channel_send(arg, &message) == 0);
    message = 2;
    EXPECT(numio_within(SOON_NS, numio_channel_send(arg, &message)) == -ETIMEDOUT);
    EXPECT(numio_within(SOON_NS, numio_channel_reserve(arg)) == -ETIMEDOUT);
    EXPECT(numio_channel_len(arg) == 1);
    EXPECT(numio_within(SOON_NS, numio_channel_send_many(arg, &message, 1)) == -ETIMEDOUT);
    EXPECT(numio_channel_recv(arg, &other) == 0 && other == 1);
    EXPECT(numio_channel_try_recv(arg, &other) == -EAGAIN);
    EXPECT(numio_channel_try_send(arg, &message) == 0); /* nobody waits in front of it */
    EXPECT(numio_channel_recv(arg, &other) == 0 && other == 2);
    return 0;
}

FIXTURE_EACH(channel_waits, a_wait_ends_in_time_and_moves_nothing, .timeout = 30)
{
    for (unsigned flags = 0; flags <= NUMIO_CHANNEL_ONE_RECEIVER; flags++) {
        struct numio_channel *channel = create(1, flags);
        cr_assert_eq(run(runtime, wait_in_time, channel), 0, "line %ld", (long)last_line);
        cr_assert_eq(wait_in_time(channel), 0); /* a plain thread as well */
        numio_channel_destroy(channel);
    }
}

static int64_t send_many_in_part(void *arg)
{
    uint64_t messages[MANY] = { 1, 2, 3, 4 }, message;
    EXPECT(numio_within(SOON_NS, numio_channel_send_many(arg, messages, MANY)) == 1);
    EXPECT(numio_channel_recv(arg, &message) == 0 && message == 1);
    EXPECT(numio_channel_try_recv(arg, &message) == -EAGAIN);
    return 0;
}

FIXTURE_EACH(channel_waits, many_that_are_cut_short_say_how_many_went, .timeout = 30)
{
    struct numio_channel *channel = create(1, 0);
    cr_assert_eq(run(runtime, send_many_in_part, channel), 0, "line %ld", (long)last_line);
    numio_channel_destroy(channel);
}

/* ---- aborts -------------------------------------------------------------------------------- */

struct aborted {
    struct numio_channel *channel;
    uint64_t capacity;
    unsigned flags;
    uint64_t sent, received, sum_sent, sum_received;
};

static void reset(void *arg)
{
    struct aborted *a = arg;
    *a = (struct aborted){ .capacity = a->capacity, .flags = a->flags };
    a->channel = create(a->capacity, a->flags);
}

static int64_t send_five(void *arg)
{
    struct aborted *a = arg;
    for (int i = 0; i < 5; i++) {
        uint64_t message = ++a->sum_sent * 10;
        int rc = i % 2 ? numio_channel_send(a->channel, &message) : 0;
        if (i % 2 == 0 && (rc = numio_channel_reserve(a->channel)) == 0)
            rc = numio_channel_send_reserved(a->channel, &message);
        if (rc)
            return rc;
        a->sent++;
    }
    return 0;
}

static int64_t receive_five(void *arg)
{
    struct aborted *a = arg;
    for (int i = 0; i < 5; i++) {
        uint64_t message;
        int rc = (int)numio_channel_recv_many(a->channel, &message, 1);
        if (rc < 0)
            return rc;
        a->received++;
    }
    return 0;
}

/* The other side takes part for as long as something can come. */
static int64_t receive_what_comes(void *arg)
{
    struct aborted *a = arg;
    uint64_t message;
    int rc;
    while ((rc = numio_within(SOON_NS * 5, numio_channel_recv(a->channel, &message))) == 0)
        a->received++;
    return rc == -ETIMEDOUT ? 0 : rc;
}

static int64_t send_what_goes(void *arg)
{
    struct aborted *a = arg;
    int rc = 0;
    for (uint64_t i = 0; i < 6 && rc == 0; i++) {
        rc = numio_within(SOON_NS * 5, numio_channel_send(a->channel, &i));
        a->sent += rc == 0;
    }
    return rc == -ETIMEDOUT ? 0 : rc;
}

static int64_t check_sums(void *arg, int64_t result)
{
    struct aborted *a = arg;
    uint64_t message;
    EXPECT(result == 0 || result == -ECANCELED);
    while (numio_channel_try_recv(a->channel, &message) == 0)
        a->received++;
    EXPECT(a->received == a->sent);
    EXPECT(numio_channel_release(a->channel) == -EPERM); /* no place is lost */
    for (uint64_t i = 0; i < a->capacity; i++)
        EXPECT(numio_channel_try_send(a->channel, &i) == 0);
    EXPECT(numio_channel_try_send(a->channel, &message) == -EAGAIN);
    numio_channel_destroy(a->channel); /* asserts that nobody waits */
    return 0;
}

Test(channel_waits, an_abort_at_each_step_loses_no_message, .timeout = 60)
{
    for (unsigned flags = 0; flags <= NUMIO_CHANNEL_ONE_RECEIVER; flags++) {
        struct aborted a = { .capacity = 1, .flags = flags };
        struct abort_case sender = { reset, send_five, receive_what_comes, check_sums, &a };
        struct abort_case receiver = { reset, receive_five, send_what_goes, check_sums, &a };
        cr_assert_geq(abort_each(&sender), 2u);
        cr_assert_geq(abort_each(&receiver), 2u);
    }
}

/* ---- futures ------------------------------------------------------------------------------- */

struct mover {
    struct numio_channel *channel;
    bool does_send, is_waiting;
    uint64_t message, left, sum;
    struct numio_op op;
    uint64_t *ret_sum;
};

static enum numio_poll mover_poll(void *state, struct numio_context *cx)
{
    struct mover *m = state;
    int64_t result;
    while (m->left > 0) {
        if (!m->is_waiting) {
            m->message = m->does_send ? m->left : 0;
            if (m->does_send)
                numio_op_channel_send(&m->op, m->channel, &m->message);
            else
                numio_op_channel_recv(&m->op, m->channel, &m->message);
            if (numio_op_start(&m->op, cx) != 0)
                return NUMIO_READY;
            m->is_waiting = true;
        }
        if (numio_op_poll(&m->op, cx, &result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        m->is_waiting = false;
        if (result != 0)
            return NUMIO_READY;
        m->sum += m->message;
        m->left--;
    }
    *m->ret_sum = m->sum;
    return NUMIO_READY;
}

static int64_t move_in_futures(void *arg)
{
    struct numio_join *joins[TASKS];
    uint64_t sums[TASKS] = { 0 }, sent = 0, received = 0;
    for (int i = 0; i < TASKS; i++) {
        struct mover m = {
            .channel = arg, .does_send = i % 2, .left = ROUNDS, .ret_sum = &sums[i]
        };
        struct numio_future future = { .poll = mover_poll, .state = &m, .size = sizeof m };
        EXPECT(numio_spawn(NULL, &future, NULL, &joins[i]) == 0);
    }
    for (int i = 0; i < TASKS; i++) {
        EXPECT(numio_join_await(&joins[i]) == 0);
        *(i % 2 ? &sent : &received) += sums[i];
    }
    EXPECT(received == sent && sent == TASKS / 2 * ROUNDS * (ROUNDS + 1) / 2);
    EXPECT(numio_channel_len(arg) == 0);
    return 0;
}

FIXTURE_EACH(channel_waits, futures_send_and_receive, .timeout = 60)
{
    for (uint64_t capacity = 1; capacity <= 5; capacity += 2) {
        struct numio_channel *channel = create(capacity, 0);
        cr_assert_eq(run(runtime, move_in_futures, channel), 0, "line %ld", (long)last_line);
        numio_channel_destroy(channel);
    }
}

/* Receives, and never looks at it. */
struct forgetful {
    struct numio_channel *channel;
    uint64_t message;
    struct numio_op op;
    int kind; /* 0 recv, 1 reserve, 2 recv_many */
    bool is_waiting;
};

static enum numio_poll forgetful_poll(void *state, struct numio_context *cx)
{
    struct forgetful *f = state;
    if (f->is_waiting)
        return NUMIO_PENDING;
    f->is_waiting = true;
    if (f->kind == 0)
        numio_op_channel_recv(&f->op, f->channel, &f->message);
    else if (f->kind == 1)
        numio_op_channel_reserve(&f->op, f->channel);
    else
        numio_op_channel_recv_many(&f->op, f->channel, &f->message, 1);
    return numio_op_start(&f->op, cx) == 0 ? NUMIO_PENDING : NUMIO_READY;
}

static int64_t spawn_forgetful(struct numio_channel *channel, int kind,
                               struct numio_join **ret_join)
{
    struct forgetful f = { .channel = channel, .kind = kind };
    struct numio_future future = { .poll = forgetful_poll, .state = &f, .size = sizeof f };
    EXPECT(numio_spawn(NULL, &future, NULL, ret_join) == 0);
    for (int i = 0; i < 3; i++)
        EXPECT(numio_yield_now() == 0);
    return 0;
}

static int64_t receive_one(void *arg)
{
    uint64_t message;
    int rc = numio_channel_recv(arg, &message);
    return rc ? rc : (int64_t)message;
}

/* `was_there`: before the future came. */
static int64_t abort_receiver(struct numio_channel *channel, bool was_there, int kind, bool is_one)
{
    struct numio_join *join, *next = NULL;
    uint64_t message = 11;
    if (was_there)
        EXPECT(numio_channel_send(channel, &message) == 0);
    EXPECT(spawn_forgetful(channel, kind, &join) == 0);
    if (!was_there)
        EXPECT(numio_channel_send(channel, &message) == 0);
    message = 12;
    EXPECT(numio_channel_try_send(channel, &message) == -EAGAIN); /* its place is taken */
    if (!is_one) {
        EXPECT(numio_channel_try_recv(channel, &message) == -EAGAIN); /* it is promised */
        EXPECT(numio_spawn_co(NULL, receive_one, channel, NULL, &next) == 0);
        EXPECT(numio_yield_now() == 0);
        EXPECT(numio_join_try(&next) == -EAGAIN);
    }
    numio_join_abort(join);
    EXPECT(numio_join_await(&join) == -ECANCELED);
    if (is_one)
        EXPECT(numio_channel_recv(channel, &message) == 0 && message == 11);
    else
        EXPECT(numio_join_await(&next) == 11);
    EXPECT(numio_channel_len(channel) == 0);
    return 0;
}

static int64_t abort_receivers(void *arg)
{
    for (int kind = 0; kind <= 2; kind += 2)
        for (int was_there = 0; was_there < 2; was_there++) {
            int64_t line = abort_receiver(arg, was_there, kind, false);
            if (line)
                return line;
        }
    return 0;
}

static int64_t abort_the_one_receiver(void *arg)
{
    int64_t line = abort_receiver(arg, false, 0, true);
    return line ? line : abort_receiver(arg, true, 0, true);
}

Test(channel_waits, an_aborted_future_leaves_its_message_to_the_next, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_channel *channel = create(1, 0);
    cr_assert_eq(run(runtime, abort_receivers, channel), 0, "line %ld", (long)last_line);
    numio_channel_destroy(channel);
    channel = create(1, NUMIO_CHANNEL_ONE_RECEIVER);
    cr_assert_eq(run(runtime, abort_the_one_receiver, channel), 0, "line %ld", (long)last_line);
    numio_channel_destroy(channel);
    numio_runtime_destroy(runtime);
}

/* The messages in front of a promise keep their order, and the close waits for it. */
static int64_t abort_at_the_close(void *arg)
{
    struct numio_join *join, *next[2];
    uint64_t message = 21;
    EXPECT(spawn_forgetful(arg, 0, &join) == 0);
    EXPECT(numio_channel_send(arg, &message) == 0);
    for (int i = 0; i < 2; i++) {
        EXPECT(numio_spawn_co(NULL, receive_one, arg, NULL, &next[i]) == 0);
        EXPECT(numio_yield_now() == 0);
    }
    numio_channel_close(arg);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_join_try(&next[0]) == -EAGAIN);
    numio_join_abort(join);
    EXPECT(numio_join_await(&join) == -ECANCELED);
    EXPECT(numio_join_await(&next[0]) == 21);
    EXPECT(numio_join_await(&next[1]) == -EPIPE);
    return 0;
}

Test(channel_waits, a_promised_message_outlives_the_close, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_channel *channel = create(3, 0);
    cr_assert_eq(run(runtime, abort_at_the_close, channel), 0, "line %ld", (long)last_line);
    numio_channel_destroy(channel);
    numio_runtime_destroy(runtime);
}

static int64_t abort_reserver(void *arg)
{
    struct numio_join *join;
    uint64_t message = 1;
    EXPECT(spawn_forgetful(arg, 1, &join) == 0);
    EXPECT(numio_channel_try_send(arg, &message) == -EAGAIN);
    numio_join_abort(join);
    EXPECT(numio_join_await(&join) == -ECANCELED);
    EXPECT(numio_channel_try_send(arg, &message) == 0);
    return 0;
}

Test(channel_waits, an_aborted_future_releases_its_place, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_channel *channel = create(1, 0);
    cr_assert_eq(run(runtime, abort_reserver, channel), 0, "line %ld", (long)last_line);
    numio_channel_destroy(channel);
    numio_runtime_destroy(runtime);
}

static enum numio_poll use_in_poll(void *state, struct numio_context *cx)
{
    struct numio_channel *channel = *(struct numio_channel **)state;
    int *rcs = numio_context_output(cx);
    uint64_t message = 3;
    rcs[0] = numio_channel_recv(channel, &message);
    rcs[1] = numio_channel_send(channel, &message);
    rcs[2] = numio_channel_send(channel, &message);
    rcs[3] = numio_channel_recv(channel, &message);
    return NUMIO_READY;
}

static int64_t wait_in_poll(void *arg)
{
    struct numio_future future = {
        .poll = use_in_poll, .state = &arg, .size = sizeof arg, .output_size = 4 * sizeof(int)
    };
    struct numio_join *join;
    int rcs[4];
    EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0);
    EXPECT(numio_join_await_output(&join, rcs, sizeof rcs) == 0);
    EXPECT(rcs[0] == -EDEADLK && rcs[1] == 0 && rcs[2] == -EDEADLK && rcs[3] == 0);
    return 0;
}

Test(channel_waits, waiting_inside_of_a_poll_is_refused, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    for (unsigned flags = 0; flags <= NUMIO_CHANNEL_ONE_RECEIVER; flags++) {
        struct numio_channel *channel = create(1, flags);
        cr_assert_eq(run(runtime, wait_in_poll, channel), 0, "line %ld", (long)last_line);
        numio_channel_destroy(channel);
    }
    numio_runtime_destroy(runtime);
}

/* ---- selections, batches ------------------------------------------------------------------- */

struct choice {
    struct numio_channel *channels[MANY];
    uint64_t received[MANY], sum;
};

static int64_t feed(void *arg)
{
    struct choice *c = arg;
    struct numio_op ops[MANY];
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        for (int k = 0; k < MANY; k++)
            numio_op_channel_send(&ops[k], c->channels[k], &i);
        int64_t index = numio_select(ops, MANY, NUMIO_SELECT_FAIR);
        EXPECT(index >= 0 && numio_op_result(&ops[index]) == 0);
        for (int k = 0; k < MANY; k++)
            EXPECT(k == index || numio_op_result(&ops[k]) == -ECANCELED);
    }
    return 0;
}

static int64_t eat(void *arg)
{
    struct choice *c = arg;
    struct numio_op ops[MANY];
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t messages[MANY] = { 0 };
        for (int k = 0; k < MANY; k++)
            numio_op_channel_recv(&ops[k], c->channels[k], &messages[k]);
        int64_t index = numio_select(ops, MANY, NUMIO_SELECT_FAIR);
        EXPECT(index >= 0 && numio_op_result(&ops[index]) == 0);
        for (int k = 0; k < MANY; k++)
            EXPECT((messages[k] != 0) == (k == index));
        c->sum += messages[index];
        c->received[index]++;
    }
    return 0;
}

static void *feed_in_thread(void *arg)
{
    return (void *)(intptr_t)feed(arg);
}

static void select_messages(struct numio_runtime *runtime, uint64_t capacity, unsigned flags)
{
    struct choice choice = { .sum = 0 };
    pthread_t thread;
    void *line;
    for (int k = 0; k < MANY; k++)
        choice.channels[k] = create(capacity, flags);
    cr_assert_eq(pthread_create(&thread, NULL, feed_in_thread, &choice), 0);
    cr_assert_eq(run(runtime, eat, &choice), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line, "line %ld", (long)(intptr_t)line);
    cr_assert_eq(choice.sum, ROUNDS * (ROUNDS + 1) / 2);
    for (int k = 0; k < MANY; k++) {
        cr_assert_eq(numio_channel_len(choice.channels[k]), 0u);
        numio_channel_destroy(choice.channels[k]);
    }
}

FIXTURE_EACH(channel_waits, of_a_selection_one_message_moves, .timeout = 60)
{
    select_messages(runtime, 1, 0);
    select_messages(runtime, 5, 0);
    select_messages(runtime, 1, NUMIO_CHANNEL_ONE_RECEIVER);
    select_messages(runtime, 5, NUMIO_CHANNEL_ONE_RECEIVER);
}

static int64_t batch(void *arg)
{
    struct numio_op ops[2];
    uint64_t messages[2] = { 77, 0 };
    numio_op_channel_recv(&ops[0], arg, &messages[1]);
    numio_op_channel_send(&ops[1], arg, &messages[0]);
    EXPECT(numio_batch_await(ops, 2) == 0);
    EXPECT(numio_op_result(&ops[0]) == 0 && numio_op_result(&ops[1]) == 0);
    EXPECT(messages[1] == 77 && numio_channel_len(arg) == 0);
    return 0;
}

FIXTURE_EACH(channel_waits, a_batch_sends_to_itself, .timeout = 30)
{
    struct numio_channel *channel = create(1, NUMIO_CHANNEL_ONE_RECEIVER);
    cr_assert_eq(run(runtime, batch, channel), 0, "line %ld", (long)last_line);
    numio_channel_destroy(channel);
}

/* ---- the end ------------------------------------------------------------------------------- */

struct ending {
    struct numio_channel *empty, *full;
    _Atomic uint32_t begun, cancelled;
};

static int64_t wait_for_ever(void *arg)
{
    struct ending *e = arg;
    uint64_t message = 0;
    /* relaxed: a sum */
    (void)atomic_fetch_add_explicit(&e->begun, 1, memory_order_relaxed);
    int rc = numio_channel_recv(e->empty, &message);
    int other = numio_channel_send(e->full, &message);
    /* relaxed: read after the runtime's end */
    (void)atomic_fetch_add_explicit(&e->cancelled, (rc == -ECANCELED) + (other == -ECANCELED),
                                    memory_order_relaxed);
    return rc;
}

static int64_t leave_waiting(void *arg)
{
    struct ending *e = arg;
    struct numio_join *join;
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, wait_for_ever, e, NULL, NULL) == 0);
    EXPECT(spawn_forgetful(e->empty, 0, &join) == 0);
    numio_join_detach(&join);
    EXPECT(spawn_forgetful(e->full, 1, &join) == 0);
    numio_join_detach(&join);
    while (fixture_get(&e->begun) < TASKS) /* a task that has not would never run */
        EXPECT(numio_yield_now() == 0);
    return 0;
}

FIXTURE_EACH(channel_waits, the_end_of_the_runtime_ends_all_waits, .timeout = 30)
{
    struct ending e = { .empty = create(1, 0), .full = create(1, 0) };
    uint64_t message = 1;
    size_t count;
    cr_assert_eq(numio_channel_send(e.full, &message), 0);
    cr_assert_eq(run(runtime, leave_waiting, &e), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, &count), 0);
    /* relaxed: the tasks have ended */
    cr_assert_eq(atomic_load_explicit(&e.cancelled, memory_order_relaxed), 2u * TASKS);
    cr_assert_eq(numio_channel_len(e.empty), 0u);
    cr_assert_eq(numio_channel_len(e.full), 1u);
    numio_channel_destroy(e.empty); /* asserts that nobody waits */
    numio_channel_destroy(e.full);
}
