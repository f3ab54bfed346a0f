/* SPDX-License-Identifier: MIT */
/* Promises of the ring between two: every message arrives once and in order, between tasks and
 * threads; the limit holds; closing; misuse; deadlines, aborts, futures and selections lose
 * nothing.
 */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

#include <pthread.h>

#include "runtime/base/mem.h"

enum { SOON_NS = 2000000, STEPS = 20000, MESSAGES = 20000, MANY = 9, MESSAGE_MAX = 24 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static struct numio_spsc *create(uint64_t capacity)
{
    struct numio_spsc *spsc = NULL;
    return numio_spsc_create(NULL, NUMIO_NODE_ANY, 8, capacity, &spsc) == 0 ? spsc : NULL;
}

/* ---- the model ----------------------------------------------------------------------------- */

struct model {
    struct numio_spsc *spsc;
    struct nio_rng rng;
    size_t bytes;
    uint64_t capacity, first, next;
    bool is_closed;
};

static void make(const struct model *m, uint64_t n, unsigned char *message)
{
    for (size_t i = 0; i < m->bytes; i++)
        message[i] = (unsigned char)(n * 31 + i * 7 + (n >> 8));
}

static bool are_made(const struct model *m, uint64_t count, const unsigned char *messages)
{
    unsigned char expected[MESSAGE_MAX];
    for (uint64_t i = 0; i < count; i++) {
        make(m, m->first + i, expected);
        if (memcmp(expected, messages + i * m->bytes, m->bytes) != 0)
            return false;
    }
    return true;
}

static int64_t model_send(struct model *m)
{
    unsigned char messages[MANY * MESSAGE_MAX];
    uint64_t count = nio_rng_below(&m->rng, MANY + 1), room = m->capacity - (m->next - m->first);
    for (uint64_t i = 0; i < MANY; i++)
        make(m, m->next + i, messages + i * m->bytes);
    if (count == 0 || room == 0) {
        int expected = m->is_closed ? -EPIPE : room == 0 ? -EAGAIN : 0;
        EXPECT(numio_spsc_try_send(m->spsc, messages) == expected);
        m->next += expected == 0;
        return 0;
    }
    if (count > room)
        count = room;
    int64_t expected = m->is_closed ? -EPIPE : (int64_t)count;
    EXPECT(numio_spsc_send_many(m->spsc, messages, count) == expected);
    m->next += expected > 0 ? count : 0;
    return 0;
}

static int64_t model_recv(struct model *m)
{
    unsigned char messages[MANY * MESSAGE_MAX];
    uint64_t count = nio_rng_below(&m->rng, MANY + 1), there = m->next - m->first;
    if (count == 0 || there == 0) {
        int expected = there ? 0 : m->is_closed ? -EPIPE : -EAGAIN;
        EXPECT(numio_spsc_try_recv(m->spsc, messages) == expected);
        EXPECT(expected || are_made(m, 1, messages));
        m->first += expected == 0;
        return 0;
    }
    if (count > there)
        EXPECT(numio_spsc_recv_many(m->spsc, messages, count) == (int64_t)there);
    else
        EXPECT(numio_spsc_recv_many(m->spsc, messages, count) == (int64_t)count);
    count = count < there ? count : there;
    EXPECT(are_made(m, count, messages));
    m->first += count;
    return 0;
}

Test(spsc, agrees_with_a_naive_model, .timeout = 30)
{
    static const uint64_t capacities[] = { 1, 2, 3, 7, 64 };
    struct nio_rng rng = seeded_rng(23);
    for (size_t c = 0; c < NIO_ARRAY_LEN(capacities); c++)
        for (size_t bytes = 1; bytes <= MESSAGE_MAX; bytes += bytes < 8 ? 7 : 8) {
            struct model m = { .rng = rng, .bytes = bytes, .capacity = capacities[c] };
            cr_assert_eq(numio_spsc_create(NULL, NUMIO_NODE_ANY, bytes, m.capacity, &m.spsc), 0);
            for (int step = 0; step < STEPS; step++) {
                int64_t line = nio_rng_below(&m.rng, 2) ? model_send(&m) : model_recv(&m);
                cr_assert_eq(line, 0, "line %ld", (long)line);
                cr_assert_eq(numio_spsc_len(m.spsc), m.next - m.first);
                if (step == STEPS - 200) {
                    numio_spsc_close(m.spsc);
                    m.is_closed = true;
                }
            }
            numio_spsc_destroy(m.spsc);
            rng = m.rng;
        }
}

Test(spsc, refuses_what_it_cannot_be)
{
    struct numio_spsc *none = NULL;
    cr_assert_eq(numio_spsc_create(NULL, NUMIO_NODE_ANY, 0, 1, &none), -EINVAL);
    cr_assert_eq(numio_spsc_create(NULL, NUMIO_NODE_ANY, 8, 0, &none), -EINVAL);
    cr_assert_eq(numio_spsc_create(NULL, NUMIO_NODE_ANY, 8, UINT64_MAX, &none), -ENOMEM);
    cr_assert_eq(numio_spsc_create(NULL, 0, 8, 1, &none), -EINVAL); /* of which runtime? */
    nio_fault_arm(1);
    cr_assert_eq(numio_spsc_create(NULL, NUMIO_NODE_ANY, 8, 1, &none), -ENOMEM);
    nio_fault_arm(0);
    cr_assert_null(none);
    numio_spsc_destroy(none);
}

Test(spsc, lies_on_the_node_that_is_named, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_arena_audit before = { .size = sizeof before }, with = { .size = sizeof with };
    struct numio_spsc *spsc = NULL;
    cr_assert_eq(numio_spsc_create(handle, 1000, 8, 1, &spsc), -EINVAL);
    cr_assert_eq(numio_arena_audit(handle, 0, &before), 0);
    cr_assert_eq(numio_spsc_create(handle, 0, 8, 1024, &spsc), 0);
    cr_assert_eq(numio_arena_audit(handle, 0, &with), 0);
    cr_assert_geq(with.bytes_live, before.bytes_live + 8192);
    numio_spsc_destroy(spsc);
    cr_assert_eq(numio_arena_audit(handle, 0, &with), 0);
    cr_assert_eq(with.bytes_live, before.bytes_live);
    numio_runtime_destroy(runtime);
}

/* ---- two that work at once ----------------------------------------------------------------- */

struct line {
    struct numio_spsc *spsc;
    uint64_t seed;
};

static int64_t send_all(void *arg)
{
    struct line *l = arg;
    uint64_t seed = l->seed, messages[MANY];
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    for (uint64_t n = 0; n < MESSAGES;) {
        uint64_t count = 1 + nio_rng_below(&rng, MANY);
        if (count > MESSAGES - n)
            count = MESSAGES - n;
        for (uint64_t i = 0; i < count; i++)
            messages[i] = n + i;
        if (count == 1)
            EXPECT(numio_spsc_send(l->spsc, messages) == 0);
        else
            EXPECT(numio_spsc_send_many(l->spsc, messages, count) == (int64_t)count);
        n += count;
    }
    numio_spsc_close(l->spsc);
    return 0;
}

static int64_t receive_all(void *arg)
{
    struct line *l = arg;
    uint64_t seed = l->seed + 1, messages[MANY], next = 0;
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    for (;;) {
        uint64_t count = 1 + nio_rng_below(&rng, MANY);
        int64_t n = count == 1 ? numio_spsc_recv(l->spsc, messages)
                               : numio_spsc_recv_many(l->spsc, messages, count);
        if (n == -EPIPE)
            break;
        n = count == 1 && n == 0 ? 1 : n;
        EXPECT(n > 0 && n <= (int64_t)count);
        for (int64_t i = 0; i < n; i++)
            EXPECT(messages[i] == next++);
    }
    EXPECT(next == MESSAGES);
    return 0;
}

static void *send_in_thread(void *arg)
{
    return (void *)(intptr_t)send_all(arg);
}

static void *receive_in_thread(void *arg)
{
    return (void *)(intptr_t)receive_all(arg);
}

static int64_t two_tasks(void *arg)
{
    struct numio_join *sender, *receiver;
    EXPECT(numio_spawn_co(NULL, send_all, arg, NULL, &sender) == 0);
    EXPECT(numio_spawn_co(NULL, receive_all, arg, NULL, &receiver) == 0);
    int64_t line = numio_join_await(&sender);
    int64_t other = numio_join_await(&receiver);
    return line ? line : other;
}

static void pair_up(struct numio_runtime *runtime, uint64_t capacity, int64_t (*fn)(void *arg),
                    void *(*thread_fn)(void *arg))
{
    struct line l = { create(capacity), seeded_seed(2) };
    pthread_t thread;
    void *line = NULL;
    if (thread_fn)
        cr_assert_eq(pthread_create(&thread, NULL, thread_fn, &l), 0);
    cr_assert_eq(run(runtime, fn, &l), 0, "line %ld", (long)last_line);
    if (thread_fn)
        cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line, "line %ld", (long)(intptr_t)line);
    cr_assert_eq(numio_spsc_len(l.spsc), 0u);
    numio_spsc_destroy(l.spsc);
}

FIXTURE_EACH(spsc, every_message_arrives_once_and_in_order, .timeout = 100)
{
    static const uint64_t capacities[] = { 1, 3, 64 };
    for (size_t i = 0; i < NIO_ARRAY_LEN(capacities); i++) {
        pair_up(runtime, capacities[i], two_tasks, NULL);
        pair_up(runtime, capacities[i], send_all, receive_in_thread);
        pair_up(runtime, capacities[i], receive_all, send_in_thread);
    }
}

/* ---- closing, misuse, deadlines ------------------------------------------------------------ */

static int64_t receive_one(void *arg)
{
    uint64_t message;
    int rc = numio_spsc_recv(arg, &message);
    return rc ? rc : (int64_t)message;
}

static int64_t send_one(void *arg)
{
    uint64_t message = 41;
    return numio_spsc_send(arg, &message);
}

static int64_t close_and_misuse(void *arg)
{
    struct numio_join *join;
    uint64_t message = 41;
    EXPECT(numio_spawn_co(NULL, receive_one, arg, NULL, &join) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_spsc_recv(arg, &message) == -EBUSY);
    EXPECT(strstr(numio_strerror_detail(), "for one"));
    EXPECT(numio_spsc_send(arg, &message) == 0 && numio_join_await(&join) == 41);
    EXPECT(numio_spsc_send(arg, &message) == 0);
    EXPECT(numio_spawn_co(NULL, send_one, arg, NULL, &join) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_spsc_send(arg, &message) == -EBUSY);
    numio_spsc_close(arg);
    numio_spsc_close(arg);
    EXPECT(numio_join_await(&join) == -EPIPE);
    EXPECT(numio_spsc_send(arg, &message) == -EPIPE);
    EXPECT(numio_spsc_recv(arg, &message) == 0);
    EXPECT(numio_spsc_recv(arg, &message) == -EPIPE);
    return 0;
}

static int64_t close_on_receiver(void *arg)
{
    struct numio_join *join;
    EXPECT(numio_spawn_co(NULL, receive_one, arg, NULL, &join) == 0);
    EXPECT(numio_yield_now() == 0);
    numio_spsc_close(arg);
    EXPECT(numio_join_await(&join) == -EPIPE);
    return 0;
}

Test(spsc, closing_ends_waits_and_a_third_is_told, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    int64_t (*const fns[])(void *arg) = { close_and_misuse, close_on_receiver };
    for (int i = 0; i < 2; i++) {
        struct numio_spsc *spsc = create(1);
        cr_assert_eq(run(runtime, fns[i], spsc), 0, "line %ld", (long)last_line);
        numio_spsc_destroy(spsc);
    }
    numio_runtime_destroy(runtime);
}

static int64_t wait_in_time(void *arg)
{
    uint64_t message = 6, got = 0;
    EXPECT(numio_within(SOON_NS, numio_spsc_recv(arg, &got)) == -ETIMEDOUT && got == 0);
    EXPECT(numio_spsc_send(arg, &message) == 0);
    EXPECT(numio_within(SOON_NS, numio_spsc_send(arg, &message)) == -ETIMEDOUT);
    EXPECT(numio_spsc_len(arg) == 1);
    EXPECT(numio_spsc_recv(arg, &got) == 0 && got == 6);
    EXPECT(numio_spsc_try_recv(arg, &got) == -EAGAIN);
    return 0;
}

FIXTURE_EACH(spsc, a_wait_ends_in_time_and_moves_nothing, .timeout = 30)
{
    struct numio_spsc *spsc = create(1);
    cr_assert_eq(run(runtime, wait_in_time, spsc), 0, "line %ld", (long)last_line);
    cr_assert_eq(wait_in_time(spsc), 0); /* a plain thread as well */
    numio_spsc_destroy(spsc);
}

/* ---- aborts, futures ----------------------------------------------------------------------- */

struct aborted {
    struct numio_spsc *spsc;
    uint64_t sent, received;
};

static void reset(void *arg)
{
    *(struct aborted *)arg = (struct aborted){ .spsc = create(1) };
}

static int64_t send_five(void *arg)
{
    struct aborted *a = arg;
    int rc = 0;
    for (uint64_t i = 0; i < 5 && rc == 0; i++) {
        rc = numio_within(SOON_NS * 5, numio_spsc_send(a->spsc, &i));
        a->sent += rc == 0;
    }
    return rc == -ETIMEDOUT ? 0 : rc;
}

static int64_t receive_five(void *arg)
{
    struct aborted *a = arg;
    int rc = 0;
    for (uint64_t i = 0; i < 5 && rc == 0; i++) {
        uint64_t message;
        rc = numio_within(SOON_NS * 5, numio_spsc_recv(a->spsc, &message));
        EXPECT(rc || message == a->received);
        a->received += rc == 0;
    }
    return rc == -ETIMEDOUT ? 0 : rc;
}

static int64_t check_sums(void *arg, int64_t result)
{
    struct aborted *a = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(a->sent == a->received + numio_spsc_len(a->spsc));
    numio_spsc_destroy(a->spsc); /* asserts that nobody waits */
    return 0;
}

Test(spsc, an_abort_at_each_step_loses_no_message, .timeout = 60)
{
    struct aborted a;
    struct abort_case sender = { reset, send_five, receive_five, check_sums, &a };
    struct abort_case receiver = { reset, receive_five, send_five, check_sums, &a };
    cr_assert_geq(abort_each(&sender), 2u);
    cr_assert_geq(abort_each(&receiver), 2u);
}

struct mover {
    struct numio_spsc *spsc;
    bool does_send, is_waiting, is_forgetful;
    uint64_t message, left, sum;
    struct numio_op op;
};

static enum numio_poll mover_poll(void *state, struct numio_context *cx)
{
    struct mover *m = state;
    int64_t result;
    while (m->left > 0) {
        if (!m->is_waiting) {
            m->message = m->left;
            if (m->does_send)
                numio_op_spsc_send(&m->op, m->spsc, &m->message);
            else
                numio_op_spsc_recv_many(&m->op, m->spsc, &m->message, 1);
            m->is_waiting = numio_op_start(&m->op, cx) == 0;
        }
        if (m->is_forgetful || numio_op_poll(&m->op, cx, &result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        m->is_waiting = false;
        if (result != !m->does_send)
            break;
        m->sum += m->message;
        m->left--;
    }
    *(uint64_t *)numio_context_output(cx) = m->sum;
    return NUMIO_READY;
}

static int spawn_mover(struct numio_spsc *spsc, bool does_send, uint64_t count, bool is_forgetful,
                       struct numio_join **ret_join)
{
    struct mover m = {
        .spsc = spsc, .does_send = does_send, .left = count, .is_forgetful = is_forgetful
    };
    struct numio_future future = {
        .poll = mover_poll, .state = &m, .size = sizeof m, .output_size = sizeof(uint64_t)
    };
    return numio_spawn(NULL, &future, NULL, ret_join);
}

static int64_t futures(void *arg)
{
    struct numio_join *joins[2];
    uint64_t sum;
    for (int i = 0; i < 2; i++)
        EXPECT(spawn_mover(arg, i, STEPS, false, &joins[i]) == 0);
    for (int i = 0; i < 2; i++)
        EXPECT(numio_join_await_output(&joins[i], &sum, sizeof sum) == 0 &&
               sum == (uint64_t)STEPS * (STEPS + 1) / 2);
    return 0;
}

FIXTURE_EACH(spsc, futures_send_and_receive, .timeout = 60)
{
    struct numio_spsc *spsc = create(3);
    cr_assert_eq(run(runtime, futures, spsc), 0, "line %ld", (long)last_line);
    numio_spsc_destroy(spsc);
}

static int64_t abort_futures(void *arg)
{
    struct numio_join *join;
    for (int is_first = 0; is_first < 2; is_first++) {
        if (is_first)
            EXPECT(send_one(arg) == 0);
        EXPECT(spawn_mover(arg, false, 1, true, &join) == 0);
        EXPECT(numio_yield_now() == 0);
        if (!is_first)
            EXPECT(send_one(arg) == 0);
        numio_join_abort(join);
        EXPECT(numio_join_await(&join) == -ECANCELED);
        EXPECT(receive_one(arg) == 41 && numio_spsc_len(arg) == 0);
    }
    return 0;
}

Test(spsc, an_aborted_future_leaves_its_message, .timeout = 30)
{
    struct numio_spsc *spsc = create(1);
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, abort_futures, spsc), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
    numio_spsc_destroy(spsc);
}

/* ---- selections, the end ------------------------------------------------------------------- */

enum { RINGS = 3, ROUNDS = 3000 };

struct choice {
    struct numio_spsc *rings[RINGS];
};

static int64_t feed(void *arg)
{
    struct choice *c = arg;
    struct numio_op ops[RINGS];
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        for (int k = 0; k < RINGS; k++)
            numio_op_spsc_send(&ops[k], c->rings[k], &i);
        int64_t index = numio_select(ops, RINGS, NUMIO_SELECT_FAIR);
        EXPECT(index >= 0 && numio_op_result(&ops[index]) == 0);
    }
    return 0;
}

static void *feed_in_thread(void *arg)
{
    return (void *)(intptr_t)feed(arg);
}

static int64_t eat(void *arg)
{
    struct choice *c = arg;
    struct numio_op ops[RINGS];
    uint64_t sum = 0;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t messages[RINGS] = { 0 };
        for (int k = 0; k < RINGS; k++)
            numio_op_spsc_recv(&ops[k], c->rings[k], &messages[k]);
        int64_t index = numio_select(ops, RINGS, NUMIO_SELECT_FAIR);
        EXPECT(index >= 0 && numio_op_result(&ops[index]) == 0);
        for (int k = 0; k < RINGS; k++)
            EXPECT((messages[k] != 0) == (k == index));
        sum += messages[index];
    }
    EXPECT(sum == (uint64_t)ROUNDS * (ROUNDS + 1) / 2);
    return 0;
}

FIXTURE_EACH(spsc, of_a_selection_one_message_moves, .timeout = 60)
{
    for (uint64_t capacity = 1; capacity <= 3; capacity += 2) {
        struct choice c;
        pthread_t thread;
        void *line;
        for (int k = 0; k < RINGS; k++)
            c.rings[k] = create(capacity);
        cr_assert_eq(pthread_create(&thread, NULL, feed_in_thread, &c), 0);
        cr_assert_eq(run(runtime, eat, &c), 0, "line %ld", (long)last_line);
        cr_assert_eq(pthread_join(thread, &line), 0);
        cr_assert_null(line, "line %ld", (long)(intptr_t)line);
        for (int k = 0; k < RINGS; k++) {
            cr_assert_eq(numio_spsc_len(c.rings[k]), 0u);
            numio_spsc_destroy(c.rings[k]);
        }
    }
}

static int64_t leave_waiting(void *arg)
{
    struct choice *c = arg;
    struct numio_join *join;
    EXPECT(numio_spawn_co(NULL, receive_one, c->rings[0], NULL, NULL) == 0);
    EXPECT(send_one(c->rings[1]) == 0);
    EXPECT(numio_spawn_co(NULL, send_one, c->rings[1], NULL, NULL) == 0);
    EXPECT(spawn_mover(c->rings[2], false, 1, true, &join) == 0);
    numio_join_detach(&join);
    return 0;
}

FIXTURE_EACH(spsc, the_end_of_the_runtime_ends_all_waits, .timeout = 30)
{
    struct choice c;
    size_t count;
    for (int k = 0; k < RINGS; k++)
        c.rings[k] = create(1);
    cr_assert_eq(run(runtime, leave_waiting, &c), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, &count), 0);
    for (int k = 0; k < RINGS; k++) {
        cr_assert_eq(numio_spsc_len(c.rings[k]), (uint64_t)(k == 1));
        numio_spsc_destroy(c.rings[k]); /* asserts that nobody waits */
    }
}
