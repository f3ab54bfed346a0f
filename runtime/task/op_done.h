/* SPDX-License-Identifier: MIT */
/* task/op_done.h: how an operation ends.  The driver calls nio_op_done() exactly once for each
 * submitted operation, from the thread that reaped its completion, and touches the operation no
 * more: a coroutine's operation lives on its stack and may be gone as soon as the task runs.
 */
#ifndef NIO_TASK_OP_DONE_H
#define NIO_TASK_OP_DONE_H

#include "runtime/task/task.h"

enum nio_op_state { NIO_OP_FRESH = 0, NIO_OP_STARTED, NIO_OP_DONE };

/* numio_op._flags: flags below, the index of the worker whose ring it went to above. */
enum { NIO_OP_WORKER_SHIFT = 8 };

enum nio_op_flag {
    NIO_OP_CANCEL_SENT = 1 << 0,   /* owner of the driver: a cancel was submitted */
    NIO_OP_CANCEL_WANTED = 1 << 1, /* the running task: to be cancelled on its own ring */
    NIO_OP_DEADLINE = 1 << 2       /* constant once started: the timer of a deadline scope */
};

static inline unsigned nio_op_worker(const struct numio_op *op)
{
    return op->_flags >> NIO_OP_WORKER_SHIFT;
}

/* Any worker, or a pool thread of the epoll profile.  Wakes the task. */
void nio_op_done(struct numio_op *op, int32_t result);
/* The worker that has the timer of a deadline scope, when its time has come: wakes the task, which
 * is late from now on.  `timer` may be gone when this returns. */
void nio_op_strike(struct numio_op *timer);
/* The running task: whether its operation has ended, with everything the reaper wrote. */
bool nio_op_is_done(const struct numio_op *op);

#endif
