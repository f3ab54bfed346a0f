/* SPDX-License-Identifier: MIT */
/* tests/stepped_wait.h: waits stepped by hand, in one thread and without a task, so that an object
 * can be compared with a naive model after each step.  Each wait is that of somebody else.
 * Test programs only.
 */
#ifndef TESTS_STEPPED_WAIT_H
#define TESTS_STEPPED_WAIT_H

#include <errno.h>

#include "runtime/task/wait.h"

enum { STEPPED_WAITS = 1000 }; /* no result of a wait */

/* Begins a prepared wait for `who`, any number but 0. */
static inline void stepped_begin(struct numio_op *op, uintptr_t who)
{
    int32_t result;
    op->_task = NULL;
    op->_state = NIO_OP_THREAD;
    op->_sqe[NIO_WAIT_WORD_WHO] = who;
    if (nio_wait_class(op)->begin(op, &result)) {
        op->_state = NIO_OP_DONE;
        op->_result = result;
    }
}

/* The result of a wait that has begun, STEPPED_WAITS if it has not ended. */
static inline int32_t stepped_result(const struct numio_op *op)
{
    return nio_op_is_done(op) ? op->_result : STEPPED_WAITS;
}

/* Gives up a wait that has not ended.  False: somebody else ends it. */
static inline bool stepped_leave(struct numio_op *op)
{
    if (!nio_wait_class(op)->leave(op))
        return false;
    nio_wait_done(op, -ECANCELED);
    return true;
}

/* Gives back what an ended wait has got. */
static inline void stepped_give_back(struct numio_op *op)
{
    nio_wait_class(op)->give_back(op);
}

#endif
