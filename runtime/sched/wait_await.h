/* SPDX-License-Identifier: MIT */
/* sched/wait_await.h: how tasks and plain threads wait by a struct numio_op that no ring sees
 * (task/wait.h).
 */
#ifndef NIO_SCHED_WAIT_AWAIT_H
#define NIO_SCHED_WAIT_AWAIT_H

#include <errno.h>

#include "runtime/sched/await.h"
#include "runtime/task/wait.h"

/* The running task: its wait is to end early.  Whoever has taken it out of the queue ends it, else
 * the caller does, with -ECANCELED. */
void nio_wait_cancel(struct numio_op *op);

/* A prepared wait, from its begin to its end.
 * Context: a coroutine suspends, unless what it wants is there; a plain thread sleeps.
 * Returns: the wait's result; -ECANCELED, -ETIMEDOUT it had to wait and was stopped;
 *          -EDEADLK on a worker's thread outside of a coroutine, if it would have to wait. */
int32_t nio_wait_await(struct numio_op *op);

/* The same, and heeds neither aborts nor deadlines: for what must be waited for in any case. */
int32_t nio_wait_await_surely(struct numio_op *op);

/* Who runs: the task, or the plain thread; for comparing. */
uintptr_t nio_who_runs(void);

/* The same outside of a coroutine. */
NIO_COLD int32_t nio_wait_await_outside(struct numio_op *op);

/* The same, with the `begin` of its class, known where it is inlined: for what is waited for most
 * often. */
static NIO_ALWAYS_INLINE int32_t nio_wait_await_by(struct numio_op *op,
                                                   bool (*begin)(struct numio_op *, int32_t *))
{
    struct nio_worker *worker = nio_worker_current();
    struct nio_co *co = nio_co_of(worker);
    if (NIO_UNLIKELY(!co))
        return nio_wait_await_outside(op);
    struct nio_task *task = &co->task;
    if (NIO_UNLIKELY(!nio_is_own_process(worker->handle)))
        return nio_refuse_forked_child();
    int32_t result;
    op->_task = task;
    op->_driver = NULL;
    op->_state = NIO_OP_STARTED;
    op->_flags = worker->index << NIO_OP_WORKER_SHIFT;
    op->_sqe[NIO_WAIT_WORD_WHO] = (uintptr_t)task;
    if (begin(op, &result)) {
        nio_co_charge(co);
        return result;
    }
    co->op = op;
    task->wait_kind = NIO_WAIT_OP;
    task->flags &= (uint8_t)~NIO_TASK_OP_CANCELLED;
    if (NIO_UNLIKELY(nio_co_stop(co)) && !(task->flags & NIO_TASK_SHIELDED)) {
        task->flags |= NIO_TASK_OP_CANCELLED;
        nio_wait_cancel(op); /* then its end is on the way, as after any other */
    }
    nio_co_suspend(co); /* resumed only after the end */
    task->wait_kind = NIO_WAIT_WAKE;
    co->op = NULL;
    result = op->_result;
    if (NIO_UNLIKELY(result == -ECANCELED) && !nio_state_is_cancelled(task))
        return -ETIMEDOUT;
    return result;
}

/* For numio_op_start(): begins a future's wait.  If that ends at once, nobody wakes for it. */
void nio_wait_start(struct numio_op *op, struct nio_task *task);

/* For a batch or a selection: begins a member; if it ends at once, its end is told as any other. */
void nio_wait_submit(struct numio_op *op);

/* For a future that polls an ended wait: takes what was left with the object for it.  Returns the
 * wait's result. */
int32_t nio_wait_take(struct numio_op *op);

/* For a future that was aborted: what an ended wait has got goes back. */
void nio_wait_give_back(struct numio_op *op);

#endif
