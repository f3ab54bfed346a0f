/* SPDX-License-Identifier: MIT */
/* The end of an operation: one store and one RMW on the task.
 *
 * A coroutine waits for one operation at a time, on its own stack.  It is resumed only when OP_DONE
 * was set, so the RMW that sets it is the reaper's last access to the operation, and no reference
 * is needed.  A future may have several operations in flight and is polled for any reason; each
 * operation therefore holds a reference to the task, and says that it has ended by a state of its
 * own [OD1].
 */
#include "runtime/task/op_done.h"

#include "runtime/base/assert.h"
#include "runtime/task/state.h"
#include "runtime/task/wake.h"

static _Atomic uint32_t *state_of(const struct numio_op *op)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint32_t *)(uintptr_t)&op->_state;
}

void nio_op_done(struct numio_op *op, int32_t result)
{
    struct nio_task *task = op->_task;
    op->_result = result;
    if (task->kind == NIO_TASK_COROUTINE) {
        nio_wake_act(task, nio_state_wake_op_done(task));
        return;
    }
    /* [OD1] release: publishes _result.  Pairs with [OD2]; the operation may be reused after. */
    atomic_store_explicit(state_of(op), NIO_OP_DONE, memory_order_release);
    nio_wake_act(task, nio_state_wake_by_value(task));
}

void nio_op_strike(struct numio_op *timer)
{
    struct nio_task *task = timer->_task;
    enum nio_wake_action action = nio_state_wake_late(task);
    /* [DL1] release: the last access to the timer, whose memory is the task's from here on.  Pairs
     * with [OD2]. */
    atomic_store_explicit(state_of(timer), NIO_OP_DONE, memory_order_release);
    /* Only if it is to be queued is the task touched again, and then it is the caller's. */
    nio_wake_act(task, action);
}

bool nio_op_is_done(const struct numio_op *op)
{
    /* [OD2] acquire: sees _result.  Pairs with [OD1]. */
    return atomic_load_explicit(state_of(op), memory_order_acquire) == NIO_OP_DONE;
}
