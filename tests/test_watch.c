/* SPDX-License-Identifier: MIT */
/* Promises of the watch: receivers are told of each change that they have not seen, and see the
 * latest value; closing; deadlines, aborts, futures and selections lose nothing. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

#include <pthread.h>

#include "runtime/base/mem.h"

enum { SOON_NS = 2000000, STEPS = 20000, RECEIVERS = 5, VALUES = 2000 };

/* Too large to be read at once. */
struct value {
    uint64_t number, copies[8];
};

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static struct value make(uint64_t number)
{
    struct value value = { .number = number };
    for (int i = 0; i < 8; i++)
        value.copies[i] = number;
    return value;
}

static bool is_whole(const struct value *value)
{
    struct value expected = make(value->number);
    return memcmp(value, &expected, sizeof expected) == 0;
}

static struct numio_watch *create(uint64_t number)
{
    struct numio_watch *watch = NULL;
    struct value value = make(number);
    return numio_watch_create(sizeof value, &value, &watch) == 0 ? watch : NULL;
}

/* ---- the model ----------------------------------------------------------------------------- */

static bool raise_if_even(void *value, void *arg)
{
    struct value *v = value;
    if (*(uint64_t *)arg % 2)
        return false;
    *v = make(v->number + 1);
    return true;
}

static void look_at(const void *value, void *arg)
{
    *(struct value *)arg = *(const struct value *)value;
}

struct model {
    struct numio_watch *watch;
    struct numio_watch_receiver receivers[RECEIVERS];
    bool is_new[RECEIVERS], is_closed;
    uint64_t number;
};

static void sent(struct model *m)
{
    m->number++;
    for (int i = 0; i < RECEIVERS; i++)
        m->is_new[i] = true;
}

static void model_receive(struct model *m, uint32_t i, uint32_t how)
{
    struct numio_watch_receiver *receiver = &m->receivers[i];
    int expected = m->is_new[i] ? 1 : m->is_closed ? -EPIPE : 0;
    struct value value = { 0 };
    cr_assert_eq(numio_watch_has_changed(receiver), expected);
    switch (how) {
    case 0:
        numio_watch_take(receiver, &value);
        break;
    case 1:
        numio_watch_borrow(receiver, look_at, &value);
        break;
    case 2:
        numio_watch_mark_changed(receiver);
        m->is_new[i] = true;
        return;
    case 3:
        numio_watch_subscribe(m->watch, receiver);
        m->is_new[i] = false;
        return;
    default:
        if (expected == 0)
            return; /* it would wait */
        cr_assert_eq(numio_watch_changed(receiver), expected == 1 ? 0 : -EPIPE);
        numio_watch_read(m->watch, &value);
        break;
    }
    cr_assert(is_whole(&value) && value.number == m->number);
    m->is_new[i] = false;
}

Test(watch, agrees_with_a_naive_model, .timeout = 30)
{
    struct nio_rng rng = seeded_rng(9);
    struct model m = { .watch = create(0) };
    for (int i = 0; i < RECEIVERS; i++)
        numio_watch_subscribe(m.watch, &m.receivers[i]);
    for (int step = 0; step < STEPS; step++) {
        uint64_t number = nio_rng_below(&rng, 6);
        struct value value = make(m.number + 1);
        int does_change = number % 2 == 0;
        if (number == 0) {
            cr_assert_eq(numio_watch_send(m.watch, &value), m.is_closed ? -EPIPE : 0);
            if (!m.is_closed)
                sent(&m);
        } else if (number <= 2) {
            cr_assert_eq(numio_watch_send_if_modified(m.watch, raise_if_even, &number),
                         m.is_closed ? -EPIPE : does_change);
            if (!m.is_closed && does_change)
                sent(&m);
        } else {
            model_receive(&m, nio_rng_below(&rng, RECEIVERS), nio_rng_below(&rng, 6));
        }
        if (step == STEPS - 1000) {
            numio_watch_close(m.watch);
            m.is_closed = true;
        }
    }
    numio_watch_destroy(m.watch);
}

Test(watch, refuses_what_it_cannot_be)
{
    struct numio_watch *none = NULL;
    struct value value = make(1);
    cr_assert_eq(numio_watch_create(0, &value, &none), -EINVAL);
    cr_assert_eq(numio_watch_create(NUMIO_MESSAGE_BYTES_MAX + 1, &value, &none), -EINVAL);
    nio_fault_arm(1);
    cr_assert_eq(numio_watch_create(sizeof value, &value, &none), -ENOMEM);
    nio_fault_arm(0);
    cr_assert_null(none);
    numio_watch_destroy(none);
}

/* ---- tasks and threads --------------------------------------------------------------------- */

struct looker {
    struct numio_watch_receiver receiver;
    uint64_t last, looks;
};

/* Sees rising numbers, the last among them. */
static int64_t look_on(void *arg)
{
    struct looker *l = arg;
    int rc;
    while ((rc = numio_watch_changed(&l->receiver)) == 0) {
        struct value value;
        numio_watch_take(&l->receiver, &value);
        EXPECT(is_whole(&value) && value.number >= l->last);
        l->last = value.number;
        l->looks++;
    }
    return rc == -EPIPE ? 0 : rc;
}

static void *look_on_in_thread(void *arg)
{
    return (void *)(intptr_t)look_on(arg);
}

struct show {
    struct numio_watch *watch;
    struct looker lookers[RECEIVERS + 1];
};

static int64_t show(void *arg)
{
    struct show *s = arg;
    struct numio_join *joins[RECEIVERS];
    for (int i = 0; i < RECEIVERS; i++)
        EXPECT(numio_spawn_co(NULL, look_on, &s->lookers[i], NULL, &joins[i]) == 0);
    for (uint64_t i = 1; i <= VALUES; i++) {
        struct value value = make(i);
        EXPECT(numio_watch_send(s->watch, &value) == 0);
        if (i % 5 == 0)
            EXPECT(numio_yield_now() == 0);
    }
    numio_watch_close(s->watch);
    for (int i = 0; i < RECEIVERS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(watch, every_receiver_sees_the_last_value, .timeout = 60)
{
    struct show s = { .watch = create(0) };
    pthread_t thread;
    void *line;
    for (int i = 0; i <= RECEIVERS; i++)
        numio_watch_subscribe(s.watch, &s.lookers[i].receiver);
    cr_assert_eq(pthread_create(&thread, NULL, look_on_in_thread, &s.lookers[RECEIVERS]), 0);
    cr_assert_eq(run(runtime, show, &s), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line, "line %ld", (long)(intptr_t)line);
    for (int i = 0; i <= RECEIVERS; i++)
        cr_assert_eq(s.lookers[i].last, (uint64_t)VALUES);
    numio_watch_destroy(s.watch);
}

/* What is sent between two looks is one change. */
static int64_t coalesce(void *arg)
{
    struct show *s = arg;
    struct numio_join *join;
    EXPECT(numio_spawn_co(NULL, look_on, &s->lookers[0], NULL, &join) == 0);
    EXPECT(numio_yield_now() == 0);
    for (uint64_t i = 1; i <= 100; i++) {
        struct value value = make(i);
        EXPECT(numio_watch_send(s->watch, &value) == 0);
    }
    EXPECT(numio_yield_now() == 0);
    numio_watch_close(s->watch);
    EXPECT(numio_join_await(&join) == 0);
    EXPECT(s->lookers[0].last == 100 && s->lookers[0].looks == 1);
    return 0;
}

Test(watch, values_between_two_looks_are_one_change, .timeout = 30)
{
    struct show s = { .watch = create(0) };
    struct numio_runtime *runtime = fixture_start(1);
    numio_watch_subscribe(s.watch, &s.lookers[0].receiver);
    cr_assert_eq(run(runtime, coalesce, &s), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
    numio_watch_destroy(s.watch);
}

/* ---- deadlines, aborts, futures, selections ------------------------------------------------ */

static int64_t wait_in_time(void *arg)
{
    struct numio_watch_receiver receiver;
    struct value value = make(3);
    numio_watch_subscribe(arg, &receiver);
    EXPECT(numio_within(SOON_NS, numio_watch_changed(&receiver)) == -ETIMEDOUT);
    EXPECT(numio_watch_send(arg, &value) == 0);
    EXPECT(numio_watch_changed(&receiver) == 0);
    EXPECT(numio_watch_has_changed(&receiver) == 0);
    return 0;
}

FIXTURE_EACH(watch, a_wait_ends_in_time, .timeout = 30)
{
    struct numio_watch *watch = create(0);
    cr_assert_eq(run(runtime, wait_in_time, watch), 0, "line %ld", (long)last_line);
    cr_assert_eq(wait_in_time(watch), 0); /* a plain thread as well */
    numio_watch_destroy(watch);
}

static void reset(void *arg)
{
    struct show *s = arg;
    s->watch = create(0);
    s->lookers[0] = (struct looker){ .last = 0 };
    numio_watch_subscribe(s->watch, &s->lookers[0].receiver);
}

static int64_t look_thrice(void *arg)
{
    struct show *s = arg;
    for (int i = 0; i < 3; i++) {
        int rc = numio_watch_changed(&s->lookers[0].receiver);
        if (rc)
            return rc;
        s->lookers[0].looks++;
    }
    return 0;
}

static int64_t show_thrice(void *arg)
{
    struct show *s = arg;
    for (uint64_t i = 1; i <= 3; i++) {
        struct value value = make(i);
        EXPECT(numio_watch_send(s->watch, &value) == 0);
        EXPECT(numio_yield_now() == 0);
        EXPECT(numio_yield_now() == 0);
    }
    return 0;
}

static int64_t check_seen(void *arg, int64_t result)
{
    struct show *s = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(numio_watch_has_changed(&s->lookers[0].receiver) == (s->lookers[0].looks < 3));
    numio_watch_destroy(s->watch); /* asserts that nobody waits */
    return 0;
}

Test(watch, an_abort_at_each_step_has_seen_nothing, .timeout = 60)
{
    struct show s;
    struct abort_case what = { reset, look_thrice, show_thrice, check_seen, &s };
    cr_assert_geq(abort_each(&what), 2u);
}

struct waiter {
    struct numio_watch_receiver *receiver;
    struct numio_op op;
    bool is_waiting, is_forgetful;
};

static enum numio_poll waiter_poll(void *state, struct numio_context *cx)
{
    struct waiter *w = state;
    int64_t result;
    if (!w->is_waiting) {
        numio_op_watch_changed(&w->op, w->receiver);
        w->is_waiting = numio_op_start(&w->op, cx) == 0;
    }
    if (w->is_forgetful || numio_op_poll(&w->op, cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    *(int64_t *)numio_context_output(cx) = result;
    return NUMIO_READY;
}

static int64_t spawn_waiter(struct numio_watch_receiver *receiver, bool is_forgetful,
                            struct numio_join **ret_join)
{
    struct waiter w = { .receiver = receiver, .is_forgetful = is_forgetful };
    struct numio_future future = {
        .poll = waiter_poll, .state = &w, .size = sizeof w, .output_size = sizeof(int64_t)
    };
    EXPECT(numio_spawn(NULL, &future, NULL, ret_join) == 0);
    return numio_yield_now();
}

static int64_t futures(void *arg)
{
    struct numio_watch_receiver receiver;
    struct numio_join *join;
    struct value value = make(8);
    int64_t result = 1;
    numio_watch_subscribe(arg, &receiver);
    EXPECT(spawn_waiter(&receiver, false, &join) == 0);
    EXPECT(numio_watch_send(arg, &value) == 0);
    EXPECT(numio_join_await_output(&join, &result, sizeof result) == 0 && result == 0);
    EXPECT(numio_watch_has_changed(&receiver) == 0);
    for (int is_first = 0; is_first < 2; is_first++) {
        if (is_first)
            EXPECT(numio_watch_send(arg, &value) == 0);
        EXPECT(spawn_waiter(&receiver, true, &join) == 0);
        if (!is_first)
            EXPECT(numio_watch_send(arg, &value) == 0);
        numio_join_abort(join);
        EXPECT(numio_join_await(&join) == -ECANCELED);
        EXPECT(numio_watch_has_changed(&receiver) == 1);
        EXPECT(numio_watch_changed(&receiver) == 0);
    }
    return 0;
}

Test(watch, futures_wait_and_an_aborted_one_has_seen_nothing, .timeout = 30)
{
    struct numio_watch *watch = create(0);
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, futures, watch), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
    numio_watch_destroy(watch);
}

static int64_t select_one(void *arg)
{
    struct show *s = arg;
    struct numio_op ops[RECEIVERS];
    struct value value = make(1);
    for (int i = 0; i < RECEIVERS; i++)
        numio_watch_subscribe(s->watch, &s->lookers[i].receiver);
    EXPECT(numio_watch_send(s->watch, &value) == 0);
    for (int left = RECEIVERS; left > 0; left--) {
        int unseen = 0;
        for (int i = 0; i < RECEIVERS; i++)
            numio_op_watch_changed(&ops[i], &s->lookers[i].receiver);
        EXPECT(numio_select(ops, RECEIVERS, NUMIO_SELECT_FAIR) >= 0);
        for (int i = 0; i < RECEIVERS; i++)
            unseen += numio_watch_has_changed(&s->lookers[i].receiver);
        EXPECT(unseen == left - 1);
    }
    for (int i = 0; i < RECEIVERS; i++)
        numio_op_watch_changed(&ops[i], &s->lookers[i].receiver);
    EXPECT(numio_within(SOON_NS, numio_select(ops, RECEIVERS, NUMIO_SELECT_FAIR)) == -ETIMEDOUT);
    return 0;
}

FIXTURE_EACH(watch, of_a_selection_one_has_seen_the_change, .timeout = 30)
{
    struct show s = { .watch = create(0) };
    cr_assert_eq(run(runtime, select_one, &s), 0, "line %ld", (long)last_line);
    numio_watch_destroy(s.watch);
}

static int64_t leave_waiting(void *arg)
{
    struct show *s = arg;
    struct numio_join *join;
    for (int i = 0; i < RECEIVERS; i++)
        EXPECT(numio_spawn_co(NULL, look_on, &s->lookers[i], NULL, NULL) == 0);
    EXPECT(spawn_waiter(&s->lookers[RECEIVERS].receiver, true, &join) == 0);
    numio_join_detach(&join);
    return 0;
}

FIXTURE_EACH(watch, the_end_of_the_runtime_ends_all_waits, .timeout = 30)
{
    struct show s = { .watch = create(0) };
    size_t count;
    for (int i = 0; i <= RECEIVERS; i++)
        numio_watch_subscribe(s.watch, &s.lookers[i].receiver);
    cr_assert_eq(run(runtime, leave_waiting, &s), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, &count), 0);
    numio_watch_destroy(s.watch); /* asserts that nobody waits */
}
