/* SPDX-License-Identifier: MIT */
/* Promises of the oneshot: the value arrives once, whoever comes first; either side may close;
 * misuse is told; deadlines, aborts, futures and selections lose nothing. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

#include <pthread.h>

enum { SOON_NS = 2000000, ROUNDS = 2000, MANY = 4 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

/* ---- one after the other ------------------------------------------------------------------- */

Test(oneshot, carries_any_value_up_to_its_size)
{
    unsigned char value[NUMIO_ONESHOT_BYTES_MAX + 1], got[NUMIO_ONESHOT_BYTES_MAX];
    for (size_t bytes = 0; bytes <= NUMIO_ONESHOT_BYTES_MAX; bytes++) {
        struct numio_oneshot oneshot = { 0 };
        memset(value, (int)bytes + 1, sizeof value);
        memset(got, 0, sizeof got);
        cr_assert_eq(numio_oneshot_try_recv(&oneshot, got, sizeof got), -EAGAIN);
        cr_assert_eq(numio_oneshot_send(&oneshot, value, bytes), 0);
        cr_assert_eq(numio_oneshot_send(&oneshot, value, bytes), -EALREADY);
        if (bytes > 0)
            cr_assert_eq(numio_oneshot_try_recv(&oneshot, got, bytes - 1), -EMSGSIZE);
        cr_assert_eq(numio_oneshot_recv(&oneshot, got, sizeof got), (int64_t)bytes);
        cr_assert_eq(memcmp(got, value, bytes), 0);
        cr_assert_eq(numio_oneshot_recv(&oneshot, got, sizeof got), -EPIPE); /* it was received */
        cr_assert_eq(numio_oneshot_send(&oneshot, value, bytes), -EALREADY);
        numio_oneshot_init(&oneshot);
        cr_assert_eq(numio_oneshot_try_recv(&oneshot, got, sizeof got), -EAGAIN);
    }
    struct numio_oneshot oneshot = { 0 };
    cr_assert_eq(numio_oneshot_send(&oneshot, value, sizeof value), -EMSGSIZE);
}

/* Random calls against a naive model: what was sent, and who has closed. */
Test(oneshot, agrees_with_a_naive_model, .timeout = 30)
{
    struct nio_rng rng = seeded_rng(3);
    for (int round = 0; round < ROUNDS; round++) {
        struct numio_oneshot oneshot = { 0 };
        bool is_sent = false, is_taken = false, is_gone = false, is_refused = false;
        for (int step = 0; step < 8; step++) {
            uint64_t value = 5, got;
            int64_t expected;
            switch (nio_rng_below(&rng, 4)) {
            case 0:
                expected = is_refused ? -EPIPE : is_sent || is_gone ? -EALREADY : 0;
                cr_assert_eq(numio_oneshot_send(&oneshot, &value, sizeof value), expected);
                is_sent |= expected == 0;
                break;
            case 1:
                expected = is_sent && !is_taken    ? (int64_t)sizeof got
                           : is_taken              ? -EPIPE
                           : is_gone || is_refused ? -EPIPE
                                                   : -EAGAIN;
                cr_assert_eq(numio_oneshot_try_recv(&oneshot, &got, sizeof got), expected);
                is_taken |= expected > 0;
                break;
            case 2:
                numio_oneshot_close_sender(&oneshot);
                is_gone |= !is_sent && !is_refused;
                break;
            default:
                numio_oneshot_close_receiver(&oneshot);
                is_refused |= !is_sent && !is_gone;
                break;
            }
            cr_assert_eq(numio_oneshot_is_refused(&oneshot), is_refused);
        }
    }
}

/* ---- waiting ------------------------------------------------------------------------------- */

struct pair {
    struct numio_oneshot oneshot;
    uint64_t value;
    bool does_close;
};

static int64_t receive(void *arg)
{
    struct pair *p = arg;
    int64_t n = numio_oneshot_recv(&p->oneshot, &p->value, sizeof p->value);
    return n == sizeof p->value ? 0 : n;
}

static int64_t answer(void *arg)
{
    struct pair *p = arg;
    uint64_t value = 17;
    if (p->does_close)
        numio_oneshot_close_sender(&p->oneshot);
    else
        EXPECT(numio_oneshot_send(&p->oneshot, &value, sizeof value) == 0);
    return 0;
}

static int64_t meet(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct pair p = { .does_close = i % 4 == 3 };
        struct numio_join *receiver, *sender;
        int64_t expected = p.does_close ? -EPIPE : 0;
        if (i % 2) {
            EXPECT(numio_spawn_co(NULL, receive, &p, NULL, &receiver) == 0);
            if (i % 8 < 4)
                EXPECT(numio_yield_now() == 0);
            EXPECT(numio_spawn_co(NULL, answer, &p, NULL, &sender) == 0);
        } else {
            EXPECT(numio_spawn_co(NULL, answer, &p, NULL, &sender) == 0);
            EXPECT(numio_spawn_co(NULL, receive, &p, NULL, &receiver) == 0);
        }
        EXPECT(numio_join_await(&receiver) == expected);
        EXPECT(numio_join_await(&sender) == 0);
        EXPECT(p.does_close || p.value == 17);
    }
    return 0;
}

FIXTURE_EACH(oneshot, sender_and_receiver_meet_whoever_comes_first, .timeout = 60)
{
    cr_assert_eq(run(runtime, meet, NULL), 0, "line %ld", (long)last_line);
}

/* Through two oneshots for each round, a thread and a coroutine pass a number to and fro. */
struct trips {
    struct numio_oneshot there[ROUNDS / 4], back[ROUNDS / 4];
};

static void *echo(void *arg)
{
    struct trips *t = arg;
    uint64_t value;
    for (int i = 0; i < ROUNDS / 4; i++) {
        if (numio_oneshot_recv(&t->there[i], &value, sizeof value) != sizeof value)
            return (void *)1;
        value++;
        if (numio_oneshot_send(&t->back[i], &value, sizeof value))
            return (void *)2;
    }
    return NULL;
}

static int64_t ask(void *arg)
{
    struct trips *t = arg;
    uint64_t value = 1;
    for (int i = 0; i < ROUNDS / 4; i++) {
        EXPECT(numio_oneshot_send(&t->there[i], &value, sizeof value) == 0);
        EXPECT(numio_oneshot_recv(&t->back[i], &value, sizeof value) == sizeof value);
    }
    EXPECT(value == 1 + ROUNDS / 4);
    return 0;
}

FIXTURE_EACH(oneshot, a_thread_and_a_task_answer_each_other, .timeout = 60)
{
    struct trips *trips = calloc(1, sizeof *trips);
    pthread_t thread;
    void *line;
    cr_assert_not_null(trips);
    cr_assert_eq(pthread_create(&thread, NULL, echo, trips), 0);
    cr_assert_eq(run(runtime, ask, trips), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line);
    free(trips);
}

static int64_t wait_in_time(void *arg)
{
    struct pair *p = arg;
    EXPECT(numio_within(SOON_NS, receive(p)) == -ETIMEDOUT);
    EXPECT(p->oneshot._word == 0); /* nobody waits any more */
    EXPECT(answer(p) == 0 && receive(p) == 0);
    EXPECT(p->value == 17);
    numio_oneshot_init(&p->oneshot);
    return 0;
}

FIXTURE_EACH(oneshot, a_wait_ends_in_time, .timeout = 30)
{
    struct pair p = { .value = 0 };
    cr_assert_eq(run(runtime, wait_in_time, &p), 0, "line %ld", (long)last_line);
    cr_assert_eq(wait_in_time(&p), 0); /* a plain thread as well */
}

static int64_t second_receiver(void *arg)
{
    struct pair *p = arg;
    struct numio_join *join;
    uint64_t value;
    EXPECT(numio_spawn_co(NULL, receive, p, NULL, &join) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_oneshot_recv(&p->oneshot, &value, sizeof value) == -EBUSY);
    EXPECT(numio_oneshot_try_recv(&p->oneshot, &value, sizeof value) == -EAGAIN);
    EXPECT(answer(p) == 0);
    EXPECT(numio_join_await(&join) == 0 && p->value == 17);
    return 0;
}

Test(oneshot, a_second_receiver_is_told, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct pair p = { .value = 0 };
    cr_assert_eq(run(runtime, second_receiver, &p), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

/* ---- aborts, futures ----------------------------------------------------------------------- */

static void reset(void *arg)
{
    *(struct pair *)arg = (struct pair){ .value = 0 };
}

static int64_t check_kept(void *arg, int64_t result)
{
    struct pair *p = arg;
    uint64_t value = 0;
    EXPECT(result == 0 || result == -ECANCELED);
    int64_t n = numio_oneshot_try_recv(&p->oneshot, &value, sizeof value);
    EXPECT(p->value == 17 ? n == -EPIPE : n == sizeof value && value == 17);
    return 0;
}

Test(oneshot, an_abort_at_each_step_keeps_the_value, .timeout = 60)
{
    struct pair p;
    struct abort_case what = { reset, receive, answer, check_kept, &p };
    cr_assert_geq(abort_each(&what), 1u);
}

struct waiter {
    struct numio_oneshot *oneshot;
    uint64_t value;
    struct numio_op op;
    bool is_waiting, is_forgetful;
};

static enum numio_poll waiter_poll(void *state, struct numio_context *cx)
{
    struct waiter *w = state;
    int64_t result;
    if (!w->is_waiting) {
        numio_op_oneshot_recv(&w->op, w->oneshot, &w->value, sizeof w->value);
        w->is_waiting = numio_op_start(&w->op, cx) == 0;
    }
    if (w->is_forgetful || numio_op_poll(&w->op, cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    *(uint64_t *)numio_context_output(cx) = result == sizeof w->value ? w->value : 0;
    return NUMIO_READY;
}

static int64_t spawn_waiter(struct pair *p, bool is_forgetful, struct numio_join **ret_join)
{
    struct waiter w = { .oneshot = &p->oneshot, .is_forgetful = is_forgetful };
    struct numio_future future = {
        .poll = waiter_poll, .state = &w, .size = sizeof w, .output_size = sizeof(uint64_t)
    };
    return numio_spawn(NULL, &future, NULL, ret_join);
}

static int64_t futures(void *arg)
{
    struct numio_join *join;
    uint64_t value;
    for (int is_first = 0; is_first < 2; is_first++) {
        struct pair *p = arg;
        reset(p);
        if (is_first)
            EXPECT(answer(p) == 0);
        EXPECT(spawn_waiter(p, false, &join) == 0);
        if (!is_first)
            EXPECT(answer(p) == 0);
        EXPECT(numio_join_await_output(&join, &value, sizeof value) == 0 && value == 17);
    }
    return 0;
}

FIXTURE_EACH(oneshot, futures_receive, .timeout = 30)
{
    struct pair p;
    cr_assert_eq(run(runtime, futures, &p), 0, "line %ld", (long)last_line);
}

static int64_t abort_futures(void *arg)
{
    struct pair *p = arg;
    struct numio_join *join;
    for (int when = 0; when < 3; when++) {
        reset(p);
        if (when == 0)
            EXPECT(answer(p) == 0);
        EXPECT(spawn_waiter(p, true, &join) == 0);
        EXPECT(numio_yield_now() == 0);
        if (when == 1)
            EXPECT(answer(p) == 0);
        numio_join_abort(join);
        EXPECT(numio_join_await(&join) == -ECANCELED);
        if (when == 2)
            EXPECT(answer(p) == 0);
        EXPECT(receive(p) == 0 && p->value == 17);
    }
    return 0;
}

Test(oneshot, an_aborted_future_leaves_the_value, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct pair p;
    cr_assert_eq(run(runtime, abort_futures, &p), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

/* ---- selections ---------------------------------------------------------------------------- */

struct choice {
    struct numio_oneshot oneshots[MANY];
};

static int64_t answer_all(void *arg)
{
    struct choice *c = arg;
    for (uint64_t k = 0; k < MANY; k++)
        EXPECT(numio_oneshot_send(&c->oneshots[k], &k, sizeof k) == 0);
    return 0;
}

static int64_t select_all(void *arg)
{
    (void)arg;
    for (int round = 0; round < ROUNDS / 8; round++) {
        struct choice c = { 0 };
        struct numio_op ops[MANY];
        uint64_t values[MANY], sum = 0;
        struct numio_join *join;
        EXPECT(numio_spawn_co(NULL, answer_all, &c, NULL, &join) == 0);
        for (int left = MANY; left > 0; left--) {
            int count = 0, of[MANY];
            for (int k = 0; k < MANY; k++)
                if (numio_oneshot_try_recv(&c.oneshots[k], &values[0], 0) != -EPIPE) {
                    numio_op_oneshot_recv(&ops[count], &c.oneshots[k], &values[count], 8);
                    of[count++] = k;
                }
            EXPECT(count == left);
            int64_t index = numio_select(ops, (unsigned)count, NUMIO_SELECT_FAIR);
            EXPECT(index >= 0 && numio_op_result(&ops[index]) == 8);
            EXPECT(values[index] == (uint64_t)of[index]);
            sum += values[index];
        }
        EXPECT(sum == MANY * (MANY - 1) / 2);
        EXPECT(numio_join_await(&join) == 0);
    }
    return 0;
}

FIXTURE_EACH(oneshot, selections_receive_each_value_once, .timeout = 60)
{
    cr_assert_eq(run(runtime, select_all, NULL), 0, "line %ld", (long)last_line);
}

/* ---- the end ------------------------------------------------------------------------------- */

static int64_t leave_waiting(void *arg)
{
    struct pair *p = arg;
    EXPECT(numio_spawn_co(NULL, receive, &p[0], NULL, NULL) == 0);
    struct numio_join *join;
    EXPECT(spawn_waiter(&p[1], true, &join) == 0);
    numio_join_detach(&join);
    return 0;
}

FIXTURE_EACH(oneshot, the_end_of_the_runtime_ends_all_waits, .timeout = 30)
{
    struct pair pairs[2] = { 0 };
    size_t count;
    cr_assert_eq(run(runtime, leave_waiting, pairs), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, &count), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(pairs[i].oneshot._word, 0u);
        cr_assert_eq(answer(&pairs[i]), 0);
    }
}
