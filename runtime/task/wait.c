/* SPDX-License-Identifier: MIT */
/* The queue and the end of waits; the protocol stands in wait.h. */
#include "runtime/task/wait.h"

#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/futex.h"
#include "runtime/task/wake.h"

static void set_next(struct numio_op *op, struct numio_op *next)
{
    op->_sqe[NIO_WAIT_WORD_NEXT] = (uintptr_t)next;
}

static struct numio_op *prev_of(const struct numio_op *op)
{
    return (struct numio_op *)(uintptr_t)op->_sqe[NIO_WAIT_WORD_PREV];
}

static void set_prev(struct numio_op *op, struct numio_op *prev)
{
    op->_sqe[NIO_WAIT_WORD_PREV] = (uintptr_t)prev;
}

/* ---- the queue ----------------------------------------------------------------------------- */

void nio_wait_push(struct numio_wait_queue_ *queue, struct numio_op *op)
{
    NIO_DEBUG_ASSERT(op->_place == NIO_WAIT_OUTSIDE);
    op->_place = NIO_WAIT_QUEUED;
    set_next(op, NULL);
    set_prev(op, queue->_last);
    if (queue->_last)
        set_next(queue->_last, op);
    else
        queue->_first = op;
    queue->_last = op;
}

bool nio_wait_remove(struct numio_wait_queue_ *queue, struct numio_op *op)
{
    if (op->_place != NIO_WAIT_QUEUED)
        return false;
    struct numio_op *next = nio_wait_next(op), *prev = prev_of(op);
    op->_place = NIO_WAIT_OUTSIDE;
    if (prev)
        set_next(prev, next);
    else
        queue->_first = next;
    if (next)
        set_prev(next, prev);
    else
        queue->_last = prev;
    return true;
}

struct numio_op *nio_wait_pop(struct numio_wait_queue_ *queue, struct nio_wait_list *lost)
{
    struct numio_op *op;
    while ((op = queue->_first)) {        /* bounded by the queue */
        (void)nio_wait_remove(queue, op); /* it is there */
        if (NIO_LIKELY(nio_wait_claim(op)))
            return op;
        nio_wait_list_add(lost, op, -ECANCELED);
    }
    return NULL;
}

void nio_wait_list_add(struct nio_wait_list *list, struct numio_op *op, int32_t result)
{
    op->_result = result;
    set_next(op, NULL);
    if (list->first)
        set_next(list->last, op);
    else
        list->first = op;
    list->last = op;
}

void nio_wait_list_done(struct nio_wait_list *list)
{
    struct numio_op *next;
    for (struct numio_op *op = list->first; op; op = next) {
        next = nio_wait_next(op);
        nio_wait_done(op, op->_result);
    }
    *list = (struct nio_wait_list){ 0 };
}

void nio_wait_take_all(struct numio_wait_queue_ *queue, struct nio_wait_list *list, int32_t result)
{
    struct numio_op *op;
    while ((op = nio_wait_pop(queue, list)))
        nio_wait_list_add(list, op, result);
}

/* ---- ends ---------------------------------------------------------------------------------- */

static NIO_COLD void thread_done(struct numio_op *op, int32_t result)
{
    _Atomic uint32_t *state = nio_op_state(op);
    op->_result = result;
    /* [WT1] release: the waiter sees the result and what was done before.  Pairs with [WT2].  The
     * wait may be gone after this store: the wake below then finds nobody at that address, or
     * somebody else, whom every futex user must expect. */
    atomic_store_explicit(state, NIO_OP_DONE, memory_order_release);
    nio_futex_wake(state, 1);
}

/* All but a single wait of a coroutine of this runtime. */
static NIO_NOINLINE void other_done(struct numio_op *op, int32_t result)
{
    if (NIO_UNLIKELY(nio_op_kind(op) == NIO_OP_THREAD)) {
        thread_done(op, result);
        return;
    }
    struct nio_task *task = op->_task; /* NULL: of a plain thread's selection */
    if (NIO_LIKELY(!task || task->scheduler == nio_current_schedule)) {
        nio_op_done(op, result);
        return;
    }
    /* The task may be the last of its runtime, which may end as soon as it is queued: a reference
     * keeps the memory there. */
    nio_state_ref(task);
    nio_op_done(op, result);
    nio_task_unref(task);
}

void nio_wait_done(struct numio_op *op, int32_t result)
{
    struct nio_task *task = op->_task;
    if (NIO_UNLIKELY(nio_op_kind(op) != NIO_OP_STARTED || task->kind != NIO_TASK_COROUTINE ||
                     task->scheduler != nio_current_schedule)) {
        other_done(op, result);
        return;
    }
    op->_result = result; /* as nio_op_done() */
    nio_wake_act(task, nio_state_wake_op_done(task));
}

bool nio_wait_claim(struct numio_op *op)
{
    if (NIO_LIKELY(nio_op_kind(op) != NIO_OP_CHOICE))
        return true;
    return nio_choice_claim(op);
}

bool nio_wait_may_claim(struct numio_op *op)
{
    if (NIO_LIKELY(nio_op_kind(op) != NIO_OP_CHOICE))
        return true;
    struct nio_choice *choice = nio_op_choice(op);
    /* relaxed: a guess */
    uint32_t winner = atomic_load_explicit(&choice->winner, memory_order_relaxed);
    return winner == 0 || winner == (uint32_t)(op - choice->ops) + 1;
}

int64_t nio_wait_left_ns(uint64_t end_ns)
{
    if (end_ns == UINT64_MAX)
        return NIO_FUTEX_FOREVER;
    uint64_t now_ns = nio_now_ns();
    if (now_ns >= end_ns)
        return 0;
    return end_ns - now_ns < INT64_MAX ? (int64_t)(end_ns - now_ns) : INT64_MAX;
}

bool nio_wait_thread_sleep(struct numio_op *op, uint64_t end_ns)
{
    _Atomic uint32_t *state = nio_op_state(op);
    /* [WT2] acquire: pairs with [WT1]. */
    while (atomic_load_explicit(state, memory_order_acquire) != NIO_OP_DONE) {
        int64_t left_ns = nio_wait_left_ns(end_ns);
        if (left_ns == 0)
            return false;
        (void)nio_futex_wait(state, NIO_OP_THREAD, left_ns); /* the loop looks again */
    }
    return true;
}
