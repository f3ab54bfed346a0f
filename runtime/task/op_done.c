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
#include "runtime/base/futex.h"
#include "runtime/task/multi.h"
#include "runtime/task/state.h"
#include "runtime/task/wake.h"

/* The others may end on other threads, and the coroutine goes on after the last: whoever is not the
 * last touches nothing of the batch afterwards. */
static NIO_COLD void member_done(struct numio_op *op)
{
    struct nio_batch *batch = nio_op_batch(op);
    struct nio_task *task = op->_task;
    /* [OD1] release: as below; whoever cancels the batch looks at it. */
    atomic_store_explicit(nio_op_state(op), NIO_OP_DONE, memory_order_release);
    /* [OB1] acq_rel: publishes the result to the last one, which has seen all others and hands them
     * to the coroutine with its wake.  Pairs with itself. */
    if (atomic_fetch_sub_explicit(&batch->left, 1, memory_order_acq_rel) == 1)
        nio_wake_act(task, nio_state_wake_op_done(task));
}

/* The last of a request with many completions, where it did not come from a ring. */
static NIO_COLD void stream_done(struct numio_op *op, int32_t result)
{
    struct nio_task *waiter = nio_multi_post(nio_multi_of(op), result, -1, true);
    if (waiter)
        nio_multi_wake(waiter);
}

bool nio_choice_claim(struct numio_op *op)
{
    struct nio_choice *choice = nio_op_choice(op);
    uint32_t nobody = 0, index = (uint32_t)(op - choice->ops) + 1;
    /* relaxed: it decides, and publishes nothing: [OC1] does */
    return atomic_compare_exchange_strong_explicit(&choice->winner, &nobody, index,
                                                   memory_order_relaxed, memory_order_relaxed) ||
           nobody == index;
}

static NIO_COLD void choice_done(struct numio_op *op)
{
    struct nio_choice *choice = nio_op_choice(op);
    struct nio_task *task = choice->task;
    (void)nio_choice_claim(op); /* if nobody has: the first that ends counts */
    /* [OD1] release: as below; whoever cancels the rest looks at it. */
    atomic_store_explicit(nio_op_state(op), NIO_OP_DONE, memory_order_release);
    /* relaxed: the CAS below re-reads it */
    uint32_t old = atomic_load_explicit(&choice->state, memory_order_relaxed), new;
    do {
        NIO_DEBUG_ASSERT((old & NIO_CHOICE_LEFT) > 0);
        new = (old & ~NIO_CHOICE_FIRST) - 1;
        /* [OC1] acq_rel: publishes the result, and that of the winner, to the waiter [OC2] and to
         * the last one, which wakes it.  relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(&choice->state, &old, new, memory_order_acq_rel,
                                                    memory_order_relaxed));
    bool wakes =
        (old & NIO_CHOICE_FIRST) || ((old & NIO_CHOICE_LAST) && (new &NIO_CHOICE_LEFT) == 0);
    if (!wakes)
        return;
    if (task)
        nio_wake_act(task, nio_state_wake_op_done(task));
    else
        nio_futex_wake(&choice->state, 1); /* it may be gone: as in [WT1] */
}

void nio_op_done(struct numio_op *op, int32_t result)
{
    struct nio_task *task = op->_task;
    op->_result = result;
    enum nio_op_state kind = nio_op_kind(op);
    if (NIO_UNLIKELY(kind >= NIO_OP_MEMBER)) {
        if (kind == NIO_OP_STREAM)
            stream_done(op, result);
        else if (kind == NIO_OP_CHOICE)
            choice_done(op);
        else
            member_done(op);
        return;
    }
    if (task->kind == NIO_TASK_COROUTINE) {
        nio_wake_act(task, nio_state_wake_op_done(task));
        return;
    }
    /* [OD1] release: publishes _result.  Pairs with [OD2]; the operation may be reused after. */
    atomic_store_explicit(nio_op_state(op), NIO_OP_DONE, memory_order_release);
    nio_wake_act(task, nio_state_wake_by_value(task));
}

void nio_op_strike(struct numio_op *timer)
{
    struct nio_task *task = timer->_task;
    enum nio_wake_action action = nio_state_wake_late(task);
    /* [DL1] release: the last access to the timer, whose memory is the task's from here on.  Pairs
     * with [OD2]. */
    atomic_store_explicit(nio_op_state(timer), NIO_OP_DONE, memory_order_release);
    /* Only if it is to be queued is the task touched again, and then it is the caller's. */
    nio_wake_act(task, action);
}

bool nio_op_is_done(const struct numio_op *op)
{
    /* [OD2] acquire: sees _result.  Pairs with [OD1]. */
    return atomic_load_explicit(nio_op_state(op), memory_order_acquire) == NIO_OP_DONE;
}
