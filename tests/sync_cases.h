/* SPDX-License-Identifier: MIT */
/* tests/sync_cases.h: what every object that tasks wait for has to do alike, as checks of one wait:
 * it ends in time and takes nothing, loses and wins in selections, is polled by futures, is refused
 * where it would block a worker, ends at shutdown.
 *
 * sync_* functions that assert are for the test's own thread only.  Test programs only.
 */
#ifndef TESTS_SYNC_CASES_H
#define TESTS_SYNC_CASES_H

#include <pthread.h>

#include "runtime/task/wait.h"
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

enum { SYNC_SOON_NS = 2000000, SYNC_WAITERS = 6 };

struct sync_case {
    void (*prep)(struct numio_op *op, void *object); /* the wait */
    void (*block)(void *object);                     /* from here on a wait waits */
    void (*give)(void *object);                      /* what ends one wait */
    /* Whether the object is as it was after block(), give() and a wait. */
    bool (*is_clean)(void *object);
    void *object;
    struct numio_wait_queue_ *waits;
    struct numio_wait_queue_ *locked_by; /* whose lock guards them, NULL: their own */
};

static inline size_t sync_waiters(const struct sync_case *c)
{
    size_t count = 0;
    struct numio_wait_queue_ *locked = c->locked_by ? c->locked_by : c->waits;
    nio_wait_queue_acquire(locked);
    for (struct numio_op *op = c->waits->_first; op; op = nio_wait_next(op))
        count++;
    nio_wait_queue_release(locked);
    return count;
}

/* The wait, by itself: a coroutine, or a plain thread. */
static inline int64_t sync_wait(void *arg)
{
    const struct sync_case *c = arg;
    struct numio_op op;
    c->prep(&op, c->object);
    return numio_op_await(&op);
}

static inline void *sync_give_in_thread(void *arg)
{
    const struct sync_case *c = arg;
    struct timespec soon = { 0, SYNC_SOON_NS };
    (void)nanosleep(&soon, NULL); /* the waiter waits by then, or not: either must do */
    c->give(c->object);
    return NULL;
}

static inline int64_t sync_give(void *arg)
{
    const struct sync_case *c = arg;
    int stop = numio_yield_now();
    c->give(c->object);
    return stop;
}

/* ---- deadlines ----------------------------------------------------------------------------- */

static inline int64_t sync_late_steps(void *arg)
{
    const struct sync_case *c = arg;
    c->block(c->object);
    EXPECT(numio_within(SYNC_SOON_NS, sync_wait(arg)) == -ETIMEDOUT);
    EXPECT(sync_waiters(c) == 0);
    c->give(c->object);
    EXPECT(sync_wait(arg) >= 0); /* nothing was lost */
    EXPECT(c->is_clean(c->object));
    return 0;
}

/* ---- selections ---------------------------------------------------------------------------- */

static inline int64_t sync_select_steps(void *arg)
{
    const struct sync_case *c = arg;
    struct numio_semaphore semaphore = NUMIO_SEMAPHORE_INIT(1);
    struct numio_op ops[2];
    pthread_t thread;
    for (unsigned flags = NUMIO_SELECT_FAIR; flags <= NUMIO_SELECT_BIASED; flags++) {
        c->block(c->object);
        numio_op_semaphore_acquire(&ops[1], &semaphore, 1);
        c->prep(&ops[0], c->object);
        EXPECT(numio_select(ops, 2, flags) == 1);
        EXPECT(numio_op_result(&ops[0]) == -ECANCELED && sync_waiters(c) == 0);
        EXPECT(pthread_create(&thread, NULL, sync_give_in_thread, arg) == 0);
        numio_op_semaphore_acquire(&ops[1], &semaphore, 1);
        c->prep(&ops[0], c->object);
        EXPECT(numio_select(ops, 2, flags) == 0);
        EXPECT(numio_op_result(&ops[0]) >= 0 && numio_op_result(&ops[1]) == -ECANCELED);
        EXPECT(!semaphore._waits._first);
        EXPECT(pthread_join(thread, NULL) == 0);
        EXPECT(c->is_clean(c->object));
        EXPECT(numio_semaphore_release(&semaphore, 1) == 0);
    }
    return 0;
}

struct sync_selector {
    const struct sync_case *c;
    struct numio_semaphore semaphore;
};

static inline int64_t sync_select_once(void *arg)
{
    struct sync_selector *s = arg;
    struct numio_op ops[2];
    s->c->prep(&ops[0], s->c->object);
    numio_op_semaphore_acquire(&ops[1], &s->semaphore, 1);
    int64_t index = numio_select(ops, 2, NUMIO_SELECT_BIASED);
    EXPECT(numio_op_result(&ops[0]) == -ECANCELED);
    return index == 1 ? 0 : __LINE__;
}

/* One worker: the selection has been won by the permit and has not run yet when the object gives,
 * to one that comes later, or to the one behind it. */
static inline int64_t sync_lost_steps(void *arg)
{
    struct sync_selector s = { .c = arg, .semaphore = NUMIO_SEMAPHORE_INIT(0) };
    const struct sync_case *c = s.c;
    struct numio_join *selector, *waiter = NULL;
    for (int is_behind = 0; is_behind < 2; is_behind++) {
        c->block(c->object);
        EXPECT(numio_spawn_co(NULL, sync_select_once, &s, NULL, &selector) == 0);
        EXPECT(numio_yield_now() == 0);
        EXPECT(sync_waiters(c) == 1);
        if (is_behind)
            EXPECT(numio_spawn_co(NULL, sync_wait, arg, NULL, &waiter) == 0);
        EXPECT(numio_yield_now() == 0);
        EXPECT(sync_waiters(c) == (is_behind ? 2 : 1));
        EXPECT(numio_semaphore_release(&s.semaphore, 1) == 0);
        c->give(c->object);
        EXPECT((is_behind ? numio_join_await(&waiter) : sync_wait(arg)) >= 0);
        EXPECT(numio_join_await(&selector) == 0);
        EXPECT(c->is_clean(c->object));
    }
    return 0;
}

/* ---- futures ------------------------------------------------------------------------------- */

struct sync_future {
    const struct sync_case *c;
    struct numio_op op;
    bool is_waiting, is_forgetful;
};

static inline enum numio_poll sync_future_poll(void *state, struct numio_context *cx)
{
    struct sync_future *f = state;
    if (!f->is_waiting) {
        f->c->prep(&f->op, f->c->object);
        f->is_waiting = true;
        if (numio_op_start(&f->op, cx) != 0)
            return NUMIO_READY;
    }
    if (f->is_forgetful)
        return NUMIO_PENDING; /* never looks what has become of it */
    return numio_op_poll(&f->op, cx, numio_context_output(cx));
}

static inline int sync_spawn_future(const struct sync_case *c, bool is_forgetful,
                                    struct numio_handle *handle, struct numio_join **ret_join)
{
    struct sync_future f = { .c = c, .is_forgetful = is_forgetful };
    struct numio_future future = {
        .poll = sync_future_poll, .state = &f, .size = sizeof f, .output_size = sizeof(int64_t)
    };
    return numio_spawn(handle, &future, NULL, ret_join);
}

static inline int64_t sync_future_steps(void *arg)
{
    const struct sync_case *c = arg;
    struct numio_join *join;
    int64_t result = -1;
    c->block(c->object);
    EXPECT(sync_spawn_future(c, false, NULL, &join) == 0);
    while (sync_waiters(c) == 0) /* it is about to be polled */
        EXPECT(numio_yield_now() == 0);
    c->give(c->object);
    EXPECT(numio_join_await_output(&join, &result, sizeof result) == 0);
    EXPECT(result >= 0 && sync_waiters(c) == 0 && c->is_clean(c->object));
    c->block(c->object);
    EXPECT(sync_spawn_future(c, true, NULL, &join) == 0);
    while (sync_waiters(c) == 0) /* likewise */
        EXPECT(numio_yield_now() == 0);
    numio_join_abort(join);
    EXPECT(numio_join_await(&join) == -ECANCELED);
    EXPECT(sync_waiters(c) == 0);
    c->give(c->object);
    EXPECT(sync_wait(arg) >= 0); /* the aborted one has taken nothing */
    EXPECT(c->is_clean(c->object));
    return 0;
}

/* A future that has got what it waited for is aborted, and has not looked: another has it then. */
static inline int64_t sync_give_back_steps(void *arg)
{
    const struct sync_case *c = arg;
    struct numio_join *join;
    c->block(c->object);
    EXPECT(sync_spawn_future(c, true, NULL, &join) == 0);
    while (sync_waiters(c) == 0) /* it is about to be polled */
        EXPECT(numio_yield_now() == 0);
    c->give(c->object);
    EXPECT(sync_waiters(c) == 0);
    numio_join_abort(join);
    EXPECT(numio_join_await(&join) == -ECANCELED);
    EXPECT(sync_wait(arg) >= 0);
    EXPECT(c->is_clean(c->object));
    return 0;
}

static inline enum numio_poll sync_blocking_poll(void *state, struct numio_context *cx)
{
    *(int64_t *)numio_context_output(cx) = sync_wait(*(void **)state);
    return NUMIO_READY;
}

static inline int64_t sync_refused_steps(void *arg)
{
    const struct sync_case *c = arg;
    struct numio_future future = { .poll = sync_blocking_poll,
                                   .state = &arg,
                                   .size = sizeof arg,
                                   .output_size = sizeof(int64_t) };
    struct numio_join *join;
    int64_t result = 0;
    c->block(c->object);
    EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0);
    EXPECT(numio_join_await_output(&join, &result, sizeof result) == 0);
    EXPECT(result == -EDEADLK && sync_waiters(c) == 0);
    c->give(c->object);
    EXPECT(sync_wait(arg) >= 0 && c->is_clean(c->object));
    return 0;
}

/* All of the above, in coroutines of `runtime` and, where a plain thread may wait, here. */
static inline void sync_check(struct numio_runtime *runtime, struct sync_case *c)
{
    static int64_t (*const steps[])(void *arg) = { sync_late_steps, sync_select_steps,
                                                   sync_future_steps, sync_refused_steps };
    for (size_t i = 0; i < NIO_ARRAY_LEN(steps); i++) {
        int64_t line = numio_block_on(numio_runtime_handle(runtime), steps[i], c);
        cr_assert_eq(line, 0, "steps %zu, line %ld", i, (long)line);
    }
    cr_assert_eq(sync_late_steps(c), 0, "late, in a plain thread");
    cr_assert_eq(sync_select_steps(c), 0, "selection, in a plain thread");
}

static inline void sync_check_on_one_worker(struct sync_case *c, int64_t (*steps)(void *arg))
{
    struct numio_runtime *runtime = fixture_start(1);
    int64_t line = numio_block_on(numio_runtime_handle(runtime), steps, c);
    cr_assert_eq(line, 0, "line %ld", (long)line);
    numio_runtime_destroy(runtime);
}

/* ---- shutdown ------------------------------------------------------------------------------ */

static inline bool sync_all_wait(void *arg)
{
    return sync_waiters(arg) == (size_t)2 * SYNC_WAITERS;
}

static inline void sync_check_shutdown(struct sync_case *c)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_join *joins[2 * SYNC_WAITERS];
    c->block(c->object);
    for (int i = 0; i < SYNC_WAITERS; i++) {
        cr_assert_eq(numio_spawn_co(handle, sync_wait, c, NULL, &joins[2 * i]), 0);
        cr_assert_eq(sync_spawn_future(c, i % 2, handle, &joins[2 * i + 1]), 0);
    }
    cr_assert(fixture_until(sync_all_wait, c));
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    for (int i = 0; i < 2 * SYNC_WAITERS; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), -ECANCELED);
    cr_assert_eq(sync_waiters(c), 0u);
    numio_runtime_destroy(runtime);
    c->give(c->object);
    cr_assert_geq(sync_wait(c), 0);
    cr_assert(c->is_clean(c->object));
}

#endif
