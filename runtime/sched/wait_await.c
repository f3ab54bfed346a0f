/* SPDX-License-Identifier: MIT */
/* Waiting by a struct numio_op that no ring sees; the protocol stands in task/wait.h.
 *
 * A coroutine waits as for an operation of a ring: it is resumed only after nio_op_done(), so that
 * the wait, which lies on its stack, is safe until then, and an abort or a deadline comes by way of
 * nio_op_send_cancel() (run.c).  A plain thread sleeps on the state of the wait and cancels it
 * itself when its time has passed.
 */
#include "runtime/sched/wait_await.h"

#include <errno.h>

#include "runtime/base/error.h"

/* Its address is who a plain thread is; like that of a task it has room for marks. */
static _Thread_local _Alignas(8) char thread_identity;

uintptr_t nio_who_runs(void)
{
    const struct nio_worker *worker = nio_worker_current();
    /* relaxed: written by this thread */
    struct nio_task *task =
        worker ? atomic_load_explicit(&worker->current, memory_order_relaxed) : NULL;
    return task ? (uintptr_t)task : (uintptr_t)&thread_identity;
}

void nio_wait_cancel(struct numio_op *op)
{
    if (nio_wait_class(op)->leave(op))
        nio_wait_done(op, -ECANCELED);
}

/* Only what need not wait may go through on a worker's thread outside of a coroutine. */
static NIO_COLD int32_t begin_only(struct numio_op *op)
{
    int32_t result;
    op->_task = NULL;
    op->_state = NIO_OP_THREAD;
    op->_sqe[NIO_WAIT_WORD_WHO] = nio_who_runs();
    if (nio_wait_class(op)->begin(op, &result))
        return result;
    if (!nio_wait_class(op)->leave(op)) {
        (void)nio_wait_thread_sleep(op, UINT64_MAX); /* somebody is ending it right now */
        return op->_result;
    }
    return nio_error(-EDEADLK, "waiting here would block a worker: only coroutines and plain "
                               "threads can");
}

static NIO_COLD int32_t await_in_thread(struct numio_op *op, uint64_t end_ns)
{
    int32_t result;
    op->_task = NULL;
    op->_state = NIO_OP_THREAD;
    op->_sqe[NIO_WAIT_WORD_WHO] = (uintptr_t)&thread_identity;
    if (nio_wait_class(op)->begin(op, &result))
        return result;
    if (nio_wait_thread_sleep(op, end_ns))
        return op->_result;
    if (nio_wait_class(op)->leave(op))
        return -ETIMEDOUT;
    (void)nio_wait_thread_sleep(op, UINT64_MAX); /* somebody is about to end it */
    return op->_result == -ECANCELED ? -ETIMEDOUT : op->_result;
}

int32_t nio_wait_await_outside(struct numio_op *op)
{
    return nio_worker_current() ? begin_only(op) : await_in_thread(op, nio_thread_deadline_ns());
}

int32_t nio_wait_await(struct numio_op *op)
{
    return nio_wait_await_by(op, nio_wait_class(op)->begin);
}

int32_t nio_wait_await_surely(struct numio_op *op)
{
    struct nio_co *co = nio_co_current();
    if (!co)
        return nio_worker_current() ? begin_only(op) : await_in_thread(op, UINT64_MAX);
    bool was_shielded = (co->task.flags & NIO_TASK_SHIELDED) != 0;
    co->task.flags |= NIO_TASK_SHIELDED;
    int32_t result = nio_wait_await(op);
    if (!was_shielded)
        co->task.flags &= (uint8_t)~NIO_TASK_SHIELDED;
    return result;
}

void nio_wait_start(struct numio_op *op, struct nio_task *task)
{
    int32_t result;
    op->_driver = NULL;
    op->_sqe[NIO_WAIT_WORD_WHO] = (uintptr_t)task;
    nio_state_ref(task); /* given up by nio_op_done(), or below */
    if (!nio_wait_class(op)->begin(op, &result))
        return;
    op->_result = result;
    op->_state = NIO_OP_DONE;
    nio_task_unref(task);
}

void nio_wait_submit(struct numio_op *op)
{
    int32_t result;
    op->_sqe[NIO_WAIT_WORD_WHO] = op->_task ? (uintptr_t)op->_task : (uintptr_t)&thread_identity;
    if (nio_wait_class(op)->begin(op, &result))
        nio_wait_done(op, result);
}

int32_t nio_wait_take(struct numio_op *op)
{
    if (op->_result < 0)
        return op->_result;
    /* the wait's class is the first member of what it really is */
    return ((const struct nio_wait_take_class *)nio_wait_class(op))->take(op);
}

void nio_wait_give_back(struct numio_op *op)
{
    const struct nio_wait_class *class = nio_wait_class(op);
    if (op->_result >= 0 && class->give_back)
        class->give_back(op);
}
