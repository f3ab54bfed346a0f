/* SPDX-License-Identifier: MIT */
/* Promises of the mutex: one holder, first come first served, no way past a waiter, aborts and
 * deadlines that lose nothing, misuse that is told; by coroutines, futures and plain threads. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/stepped_wait.h"
#include "tests/steps.h"
#include "tests/sync_cases.h"

#include <pthread.h>

enum { TASKS = 16, ROUNDS = 500, SOON_NS = 2000000 };
static const uint64_t late_ns = 3600000000000ull;

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

/* ---- one holder ---------------------------------------------------------------------------- */

struct counted {
    struct numio_mutex mutex;
    uint64_t plain; /* written under the mutex only */
    unsigned inside;
    bool was_shared;
};

static int64_t count_up(void *arg)
{
    struct counted *c = arg;
    for (int i = 0; i < ROUNDS; i++) {
        EXPECT(numio_mutex_lock(&c->mutex) == 0);
        c->was_shared |= c->inside++ != 0;
        uint64_t seen = c->plain;
        if (i % 3 == 0)
            EXPECT(numio_yield_now() == 0);
        c->plain = seen + 1;
        c->inside--;
        EXPECT(numio_mutex_unlock(&c->mutex) == 0);
    }
    return 0;
}

static int64_t spawn_counters(void *arg)
{
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, count_up, arg, NULL, &joins[i]) == 0);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

static void *count_up_in_thread(void *arg)
{
    struct counted *c = arg;
    for (int i = 0; i < ROUNDS; i++) {
        if (numio_mutex_lock(&c->mutex) != 0)
            return arg;
        c->was_shared |= c->inside++ != 0;
        c->plain++;
        c->inside--;
        if (numio_mutex_unlock(&c->mutex) != 0)
            return arg;
    }
    return NULL;
}

FIXTURE_EACH(mutex, has_one_holder_at_a_time, .timeout = 60)
{
    struct counted c = { .mutex = NUMIO_MUTEX_INIT };
    pthread_t thread;
    void *failed = NULL;
    cr_assert_eq(pthread_create(&thread, NULL, count_up_in_thread, &c), 0);
    cr_assert_eq(run(runtime, spawn_counters, &c), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &failed), 0);
    cr_assert_null(failed);
    cr_assert_not(c.was_shared);
    cr_assert_eq(c.plain, (TASKS + 1) * ROUNDS);
    cr_assert_eq(c.mutex._state, 0u);
}

/* ---- order --------------------------------------------------------------------------------- */

struct order {
    struct numio_mutex mutex;
    int next, wrong;
};

struct place {
    struct order *order;
    int index;
};

static int64_t take_turn(void *arg)
{
    struct place *place = arg;
    EXPECT(numio_mutex_lock(&place->order->mutex) == 0);
    place->order->wrong += place->order->next++ != place->index;
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_mutex_unlock(&place->order->mutex) == 0);
    return 0;
}

static int64_t queue_up(void *arg)
{
    struct order *order = arg;
    struct place places[TASKS];
    struct numio_join *joins[TASKS];
    EXPECT(numio_mutex_lock(&order->mutex) == 0);
    for (int i = 0; i < TASKS; i++) {
        places[i] = (struct place){ order, i };
        EXPECT(numio_spawn_co(NULL, take_turn, &places[i], NULL, &joins[i]) == 0);
        EXPECT(numio_yield_now() == 0); /* it waits now */
    }
    EXPECT(numio_mutex_unlock(&order->mutex) == 0);
    EXPECT(numio_mutex_try_lock(&order->mutex) == -EAGAIN); /* it was handed over */
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

Test(mutex, waiters_get_it_in_the_order_in_which_they_came, .timeout = 30)
{
    struct order order = { .mutex = NUMIO_MUTEX_INIT };
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, queue_up, &order), 0, "line %ld", (long)last_line);
    cr_assert_eq(order.wrong, 0);
    cr_assert_eq(order.next, TASKS);
    numio_runtime_destroy(runtime);
}

/* ---- misuse -------------------------------------------------------------------------------- */

static int64_t unlock_of_another(void *arg)
{
    return numio_mutex_unlock(arg);
}

static int64_t misuse(void *arg)
{
    struct numio_mutex *mutex = arg;
    struct numio_join *join;
    EXPECT(numio_mutex_unlock(mutex) == -EPERM);
    EXPECT(numio_mutex_lock(mutex) == 0);
    EXPECT(numio_mutex_lock(mutex) == -EDEADLK);
    EXPECT(strstr(numio_strerror_detail(), "once more"));
    EXPECT(numio_mutex_try_lock(mutex) == -EDEADLK);
    EXPECT(numio_spawn_co(NULL, unlock_of_another, mutex, NULL, &join) == 0);
    EXPECT(numio_join_await(&join) == -EPERM);
    EXPECT(numio_mutex_try_lock(mutex) == -EDEADLK); /* still held */
    EXPECT(numio_mutex_unlock(mutex) == 0);
    EXPECT(numio_mutex_try_lock(mutex) == 0);
    EXPECT(numio_mutex_unlock(mutex) == 0);
    return 0;
}

FIXTURE_EACH(mutex, misuse_is_told_and_changes_nothing, .timeout = 30)
{
    struct numio_mutex mutex = NUMIO_MUTEX_INIT;
    cr_assert_eq(run(runtime, misuse, &mutex), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_mutex_lock(&mutex), 0);
    cr_assert_eq(numio_mutex_lock(&mutex), -EDEADLK); /* a plain thread as well */
    cr_assert_eq(numio_mutex_unlock(&mutex), 0);
    cr_assert_eq(numio_mutex_unlock(&mutex), -EPERM);
}

/* ---- deadlines and aborts ------------------------------------------------------------------ */

static int64_t lock_in_time(void *arg)
{
    struct numio_mutex *mutex = arg;
    EXPECT(numio_within(SOON_NS, numio_mutex_lock(mutex)) == -ETIMEDOUT);
    EXPECT(numio_mutex_unlock(mutex) == -EPERM);
    return 0;
}

static int64_t hold_and_spawn(void *arg)
{
    struct numio_mutex *mutex = arg;
    struct numio_join *join;
    EXPECT(numio_mutex_lock(mutex) == 0);
    EXPECT(numio_spawn_co(NULL, lock_in_time, mutex, NULL, &join) == 0);
    EXPECT(numio_join_await(&join) == 0);
    EXPECT(!(mutex->_state & 1)); /* nobody waits any more */
    EXPECT(numio_mutex_unlock(mutex) == 0);
    EXPECT(numio_within(late_ns, numio_mutex_lock(mutex)) == 0);
    EXPECT(numio_mutex_unlock(mutex) == 0);
    return 0;
}

FIXTURE_EACH(mutex, a_wait_ends_in_time, .timeout = 30)
{
    struct numio_mutex mutex = NUMIO_MUTEX_INIT;
    cr_assert_eq(run(runtime, hold_and_spawn, &mutex), 0, "line %ld", (long)last_line);
}

static void *lock_in_time_in_thread(void *arg)
{
    return (void *)(intptr_t)lock_in_time(arg);
}

Test(mutex, a_wait_of_a_plain_thread_ends_in_time, .timeout = 30)
{
    struct numio_mutex mutex = NUMIO_MUTEX_INIT;
    pthread_t thread;
    void *line;
    cr_assert_eq(numio_mutex_lock(&mutex), 0);
    cr_assert_eq(pthread_create(&thread, NULL, lock_in_time_in_thread, &mutex), 0);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line, "line %ld", (long)(intptr_t)line);
    cr_assert_eq(mutex._state & 1, 0u);
    cr_assert_eq(numio_mutex_unlock(&mutex), 0);
}

struct aborted {
    struct numio_mutex mutex;
    int held;
};

static void reset(void *arg)
{
    *(struct aborted *)arg = (struct aborted){ .mutex = NUMIO_MUTEX_INIT };
}

static int64_t lock_three_times(void *arg)
{
    struct aborted *a = arg;
    for (int i = 0; i < 3; i++) {
        int rc = numio_mutex_lock(&a->mutex);
        if (rc)
            return rc;
        a->held++;
        int stop = numio_yield_now();
        a->held--;
        (void)numio_mutex_unlock(&a->mutex); /* looked at by the check */
        if (stop)
            return stop;
    }
    return 0;
}

static int64_t check_released(void *arg, int64_t result)
{
    struct aborted *a = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(a->held == 0);
    EXPECT(a->mutex._state == 0 && !a->mutex._waits._first);
    return 0;
}

Test(mutex, an_abort_at_each_step_leaves_it_free, .timeout = 60)
{
    struct aborted a;
    struct abort_case what = { reset, lock_three_times, lock_three_times, check_released, &a };
    cr_assert_geq(abort_each(&what), 4u);
}

/* ---- futures ------------------------------------------------------------------------------- */

struct locker {
    struct counted *counted;
    struct numio_op op;
    unsigned done;
    bool is_waiting;
};

static enum numio_poll locker_poll(void *state, struct numio_context *cx)
{
    struct locker *l = state;
    int64_t result;
    for (; l->done < ROUNDS; l->done++) {
        if (!l->is_waiting) {
            numio_op_mutex_lock(&l->op, &l->counted->mutex);
            if (numio_op_start(&l->op, cx) != 0)
                return NUMIO_READY;
            l->is_waiting = true;
        }
        if (numio_op_poll(&l->op, cx, &result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        l->is_waiting = false;
        if (result != 0)
            return NUMIO_READY;
        l->counted->was_shared |= l->counted->inside++ != 0;
        l->counted->plain++;
        l->counted->inside--;
        if (numio_mutex_unlock(&l->counted->mutex) != 0)
            return NUMIO_READY;
    }
    return NUMIO_READY;
}

static int64_t futures_and_coroutines(void *arg)
{
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++) {
        struct locker l = { .counted = arg };
        struct numio_future future = { .poll = locker_poll, .state = &l, .size = sizeof l };
        if (i % 2)
            EXPECT(numio_spawn(NULL, &future, NULL, &joins[i]) == 0);
        else
            EXPECT(numio_spawn_co(NULL, count_up, arg, NULL, &joins[i]) == 0);
    }
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(mutex, futures_and_coroutines_share_a_queue, .timeout = 60)
{
    struct counted c = { .mutex = NUMIO_MUTEX_INIT };
    cr_assert_eq(run(runtime, futures_and_coroutines, &c), 0, "line %ld", (long)last_line);
    cr_assert_not(c.was_shared);
    cr_assert_eq(c.plain, TASKS * ROUNDS);
}

/* Locks and never looks whether it has got it. */
static enum numio_poll forgetful_poll(void *state, struct numio_context *cx)
{
    struct locker *l = state;
    if (l->is_waiting)
        return NUMIO_PENDING;
    numio_op_mutex_lock(&l->op, &l->counted->mutex);
    l->is_waiting = true;
    return numio_op_start(&l->op, cx) == 0 ? NUMIO_PENDING : NUMIO_READY;
}

static int64_t abort_future(void *arg)
{
    struct counted *c = arg;
    struct locker l = { .counted = c };
    struct numio_future future = { .poll = forgetful_poll, .state = &l, .size = sizeof l };
    struct numio_join *join;
    for (int is_held = 0; is_held < 2; is_held++) {
        EXPECT(numio_mutex_lock(&c->mutex) == 0);
        EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0);
        for (int i = 0; i < 3; i++)
            EXPECT(numio_yield_now() == 0);
        if (!is_held)
            EXPECT(numio_mutex_unlock(&c->mutex) == 0); /* the future has it now */
        numio_join_abort(join);
        EXPECT(numio_join_await(&join) == -ECANCELED);
        if (is_held)
            EXPECT(numio_mutex_unlock(&c->mutex) == 0);
        EXPECT(c->mutex._state == 0 && !c->mutex._waits._first);
    }
    return 0;
}

Test(mutex, an_aborted_future_gives_back_what_it_has_got, .timeout = 30)
{
    struct counted c = { .mutex = NUMIO_MUTEX_INIT };
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, abort_future, &c), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

static enum numio_poll lock_in_poll(void *state, struct numio_context *cx)
{
    struct numio_mutex *mutex = *(struct numio_mutex **)state;
    *(int *)numio_context_output(cx) = numio_mutex_lock(mutex);
    return NUMIO_READY;
}

static int64_t block_in_poll(void *arg)
{
    struct numio_future future = {
        .poll = lock_in_poll, .state = &arg, .size = sizeof arg, .output_size = sizeof(int)
    };
    struct numio_join *join;
    int rc = 0;
    EXPECT(numio_mutex_lock(arg) == 0);
    EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0);
    EXPECT(numio_join_await_output(&join, &rc, sizeof rc) == 0);
    EXPECT(rc == -EDEADLK);
    EXPECT(numio_mutex_unlock(arg) == 0);
    return 0;
}

Test(mutex, waiting_inside_of_a_poll_is_refused, .timeout = 30)
{
    struct numio_mutex mutex = NUMIO_MUTEX_INIT;
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, block_in_poll, &mutex), 0, "line %ld", (long)last_line);
    cr_assert_eq(mutex._state, 0u);
    numio_runtime_destroy(runtime);
}

/* ---- as all waits -------------------------------------------------------------------------- */

static void prep_lock(struct numio_op *op, void *mutex)
{
    numio_op_mutex_lock(op, mutex);
}

/* It is the test's thread that holds it, and lets go of it. */
static void hold(void *mutex)
{
    cr_assert_eq(numio_mutex_lock(mutex), 0);
}

static void let_go(void *mutex)
{
    cr_assert_eq(numio_mutex_unlock(mutex), 0);
}

static bool was_locked(void *arg)
{
    struct numio_mutex *mutex = arg;
    let_go(mutex);
    return mutex->_state == 0 && !mutex->_waits._first;
}

Test(mutex, at_shutdown_all_waits_end, .timeout = 30)
{
    struct numio_mutex mutex = NUMIO_MUTEX_INIT;
    struct sync_case c = { prep_lock, hold, let_go, was_locked, &mutex, &mutex._waits, NULL };
    sync_check_shutdown(&c);
}

/* ---- the naive model ----------------------------------------------------------------------- */

enum { ACTORS = 8, STEPS = 60000, NOBODY = -1, HAS_WAITERS = 1 };

struct model {
    struct numio_mutex mutex;
    struct numio_op ops[ACTORS];
    bool waits[ACTORS];
    int holder, queue[ACTORS], queued;
};

/* As a task's name: the lowest bits are free. */
static uintptr_t name_of(int i)
{
    return (uintptr_t)(i + 1) * 8;
}

static void model_take_out(struct model *m, int at)
{
    m->waits[m->queue[at]] = false;
    m->queued--;
    for (int k = at; k < m->queued; k++)
        m->queue[k] = m->queue[k + 1];
}

static void model_lock(struct model *m, int i)
{
    numio_op_mutex_lock(&m->ops[i], &m->mutex);
    stepped_begin(&m->ops[i], name_of(i));
    if (m->holder == NOBODY) {
        m->holder = i;
        return;
    }
    m->waits[i] = true;
    m->queue[m->queued++] = i;
}

static void model_give_up(struct model *m, int i)
{
    int at = 0;
    cr_assert(stepped_leave(&m->ops[i]));
    while (m->queue[at] != i)
        at++;
    model_take_out(m, at);
}

static void model_unlock(struct model *m, int i)
{
    stepped_give_back(&m->ops[i]);
    m->holder = m->queued ? m->queue[0] : NOBODY;
    if (m->queued)
        model_take_out(m, 0);
}

/* By the test's thread, which is none of them. */
static void model_try(struct model *m)
{
    bool is_free = m->holder == NOBODY;
    cr_assert_eq(numio_mutex_unlock(&m->mutex), -EPERM);
    cr_assert_eq(numio_mutex_try_lock(&m->mutex), is_free ? 0 : -EAGAIN);
    if (is_free) {
        cr_assert_eq(numio_mutex_try_lock(&m->mutex), -EDEADLK);
        cr_assert_eq(numio_mutex_unlock(&m->mutex), 0);
    }
}

static void model_lock_again(struct model *m)
{
    struct numio_op op;
    numio_op_mutex_lock(&op, &m->mutex);
    stepped_begin(&op, name_of(m->holder));
    cr_assert_eq(stepped_result(&op), -EDEADLK);
}

static void compare(const struct model *m)
{
    uintptr_t state = m->holder == NOBODY ? 0 : name_of(m->holder);
    cr_assert_eq(m->mutex._state, state | (m->queued ? HAS_WAITERS : 0));
    for (int i = 0; i < ACTORS; i++)
        if (m->waits[i] || m->holder == i)
            cr_assert_eq(stepped_result(&m->ops[i]), m->waits[i] ? STEPPED_WAITS : 0);
}

Test(mutex, agrees_with_a_naive_model, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(12);
    static struct model m = { .holder = NOBODY };
    for (int step = 0; step < STEPS; step++) {
        int i = (int)nio_rng_below(&rng, ACTORS);
        if (nio_rng_below(&rng, 10) == 0)
            model_try(&m);
        else if (m.holder == i && nio_rng_below(&rng, 4) == 0)
            model_lock_again(&m);
        else if (m.holder == i)
            model_unlock(&m, i);
        else if (!m.waits[i])
            model_lock(&m, i);
        else if (nio_rng_below(&rng, 3) == 0)
            model_give_up(&m, i);
        compare(&m);
    }
}
