/* SPDX-License-Identifier: MIT */
/* The condition: a flag and a queue.
 *
 * A wait has two parts.  In the first it stands in the condition's queue, and its word ARG2 says
 * WAITING.  Who takes it out, under the queue's lock, writes there the result it will have: 0 by a
 * signal, -ECANCELED by an abort, a deadline or a selection that something else has won.  Then,
 * after the lock, it goes on to the queue of its mutex (sync/mutex.h), and ends when it gets that.
 * So a broadcast wakes nobody whom the mutex would send to sleep again, and whoever returns from a
 * wait holds the mutex, whatever became of the wait.  Cancelling does nothing in the second part,
 * which ends when the holders of the mutex let it.
 *
 * The state is 1 while somebody is in the queue, else 0: a signal that nobody waits for is one
 * load. Who waits sets it before letting go of the mutex, so whoever has changed something under
 * the mutex since then finds it.
 */
#include <errno.h>
#include <stdatomic.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"
#include "runtime/sync/mutex.h"

/* No result of a wait. */
#define WAITING UINT64_MAX

static _Atomic uint32_t *state_of(struct numio_condition *condition)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint32_t *)(uintptr_t)&condition->_state;
}

/* Under the lock, which is what orders it. */
static void note_waiters(struct numio_condition *condition)
{
    /* relaxed: who has to find it comes after the unlocking of the mutex */
    atomic_store_explicit(state_of(condition), !nio_wait_queue_is_empty(&condition->_waits),
                          memory_order_relaxed);
}

static bool wait_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_condition *condition = nio_wait_object(op);
    struct numio_mutex *mutex = nio_mutex_of(op);
    *ret_result = -EDEADLK;
    if (nio_op_kind(op) == NIO_OP_THREAD && nio_worker_current())
        return true; /* it would always have to wait */
    *ret_result = -EPERM;
    if (!nio_mutex_is_held_by(mutex, nio_wait_who(op)))
        return true;
    op->_sqe[NIO_WAIT_WORD_ARG2] = WAITING;
    nio_wait_queue_acquire(&condition->_waits);
    nio_wait_push(&condition->_waits, op);
    note_waiters(condition);
    nio_wait_queue_release(&condition->_waits);
    nio_mutex_let_go(
        mutex, nio_wait_who(op)); /* the wait may have come back to it by now, and end in here */
    return false;
}

/* Under the lock: takes a wait out of the queue, with its result. */
static void take_out(struct numio_condition *condition, struct numio_op *op, int32_t result,
                     struct nio_wait_list *back)
{
    (void)nio_wait_remove(&condition->_waits, op); /* it is there */
    op->_sqe[NIO_WAIT_WORD_ARG2] = (uint32_t)result;
    nio_wait_list_add(back, op, result);
}

static bool wait_leave(struct numio_op *op)
{
    struct numio_condition *condition = nio_wait_object(op);
    struct nio_wait_list back = { 0 };
    nio_wait_queue_acquire(&condition->_waits);
    if (op->_sqe[NIO_WAIT_WORD_ARG2] == WAITING)
        take_out(condition, op, -ECANCELED, &back);
    note_waiters(condition);
    nio_wait_queue_release(&condition->_waits);
    nio_mutex_take_back(&back);
    return false; /* who hands the mutex over ends it */
}

/* A future that got a signal and was aborted: another one gets it.  The mutex stays locked, as by
 * every task that ends without unlocking; the future's drop function can unlock it. */
static void wait_give_back(struct numio_op *op)
{
    numio_condition_signal(nio_wait_object(op));
}

static const struct nio_wait_class condition_kind = { wait_begin, wait_leave, wait_give_back };

void numio_condition_init(struct numio_condition *condition)
{
    *condition = (struct numio_condition)NUMIO_CONDITION_INIT;
}

void numio_op_condition_wait(struct numio_op *op, struct numio_condition *condition,
                             struct numio_mutex *mutex)
{
    nio_wait_prep(op, &condition_kind, condition, (uintptr_t)mutex);
}

int numio_condition_wait(struct numio_condition *condition, struct numio_mutex *mutex)
{
    struct numio_op op;
    nio_charge();
    numio_op_condition_wait(&op, condition, mutex);
    int rc = nio_wait_await(&op);
    if (rc == -EPERM)
        return nio_error(rc, "condition: waited for by who does not hold the mutex");
    if (rc == -EDEADLK)
        return nio_error(rc, "condition: waiting here would block a worker: only coroutines and "
                             "plain threads can");
    return rc;
}

/* Whom the mutex has to send back goes there with the one that the signal is for. */
static NIO_NOINLINE void wake(struct numio_condition *condition, bool is_for_all)
{
    struct nio_wait_list back = { 0 };
    bool is_given = false;
    struct numio_op *op;
    nio_wait_queue_acquire(&condition->_waits);
    while ((op = condition->_waits._first) && (is_for_all || !is_given)) { /* by the queue */
        bool is_mine = nio_wait_claim(op);
        take_out(condition, op, is_mine ? 0 : -ECANCELED, &back);
        is_given |= is_mine;
    }
    note_waiters(condition);
    nio_wait_queue_release(&condition->_waits);
    nio_mutex_take_back(&back);
}

static bool has_waiters(struct numio_condition *condition)
{
    /* relaxed: the mutex orders it, see above */
    return atomic_load_explicit(state_of(condition), memory_order_relaxed) != 0;
}

void numio_condition_signal(struct numio_condition *condition)
{
    if (has_waiters(condition))
        wake(condition, false);
}

void numio_condition_broadcast(struct numio_condition *condition)
{
    if (has_waiters(condition))
        wake(condition, true);
}
