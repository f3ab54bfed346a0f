/* SPDX-License-Identifier: MIT */
/* sched/wait_await.h: how tasks and plain threads wait by a struct numio_op that no ring sees
 * (task/wait.h).
 */
#ifndef NIO_SCHED_WAIT_AWAIT_H
#define NIO_SCHED_WAIT_AWAIT_H

#include "runtime/sched/worker.h"
#include "runtime/task/wait.h"

/* A prepared wait, from its begin to its end.
 * Context: a coroutine suspends, unless what it wants is there; a plain thread sleeps.
 * Returns: the wait's result; -ECANCELED, -ETIMEDOUT it had to wait and was stopped;
 *          -EDEADLK on a worker's thread outside of a coroutine, if it would have to wait. */
int32_t nio_wait_await(struct numio_op *op);

/* The same, and heeds neither aborts nor deadlines: for what must be waited for in any case. */
int32_t nio_wait_await_surely(struct numio_op *op);

/* Who runs: the task, or the plain thread; for comparing. */
uintptr_t nio_who_runs(void);

/* The running task: its wait is to end early.  Whoever has taken it out of the queue ends it, else
 * the caller does, with -ECANCELED. */
void nio_wait_cancel(struct numio_op *op);

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
