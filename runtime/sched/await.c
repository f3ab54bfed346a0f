/* SPDX-License-Identifier: MIT */
/* Suspension, operations of coroutines and of futures.  The protocol between a waiting task and
 * the reaper of its operation stands in task/op_done.c, cancellation in run.c. */
#include "runtime/sched/await.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <unistd.h>

#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/task/op_done.h"
#include "runtime/task/state.h"

static uint8_t opcode_of(const struct numio_op *op)
{
    return *(const uint8_t *)op->_sqe; /* the first byte of an SQE */
}

struct nio_co *nio_co_current(void)
{
    struct nio_worker *worker = nio_worker_current();
    if (!worker)
        return NULL;
    /* relaxed: written by this thread */
    struct nio_task *task = atomic_load_explicit(&worker->current, memory_order_relaxed);
    if (!task || task->kind != NIO_TASK_COROUTINE)
        return NULL;
    return NIO_CONTAINER_OF(task, struct nio_co, task);
}

void nio_co_charge(struct nio_co *co)
{
    struct nio_worker *worker = nio_worker_current();
    if (NIO_LIKELY(!nio_budget_is_spent(&worker->budget))) {
        nio_budget_spend(&worker->budget);
        return;
    }
    co->task.flags |= NIO_TASK_YIELDED;
    nio_co_suspend(co);
}

int numio_yield_now(void)
{
    struct nio_co *co = nio_co_current();
    if (NIO_UNLIKELY(!co))
        return nio_error(-EINVAL, "numio_yield_now: not called from a coroutine");
    if (NIO_UNLIKELY(!nio_is_own_process(nio_worker_current()->handle)))
        return nio_refuse_forked_child();
    int stop = nio_co_stop(co);
    if (NIO_UNLIKELY(stop))
        return stop;
    co->task.flags |= NIO_TASK_YIELDED;
    nio_co_suspend(co);
    return nio_co_stop(co);
}

size_t numio_stack_high_water(void)
{
    const struct nio_co *co = nio_co_current();
    return co ? nio_stack_high_water(co->stack) : 0;
}

void numio_context_yield(struct numio_context *cx)
{
    cx->_task->flags |= NIO_TASK_YIELDED;
}

/* Says how long the submissions of this tick may wait for others. */
static void set_flush_cost(struct nio_worker *worker, const struct numio_op *op)
{
    uint8_t opcode = opcode_of(op);
    if (opcode == IORING_OP_SEND || opcode == IORING_OP_SENDMSG)
        worker->flush_cost = NIO_FLUSH_COST_SEND;
    else if (worker->flush_cost == NIO_FLUSH_COST)
        worker->flush_cost = NIO_FLUSH_COST_WAIT;
}

int64_t numio_op_await(struct numio_op *op)
{
    struct nio_co *co = nio_co_current();
    if (NIO_UNLIKELY(!co))
        return nio_error(-EINVAL, "numio_op_await: not called from a coroutine");
    struct nio_worker *worker = nio_worker_current();
    if (NIO_UNLIKELY(!nio_is_own_process(worker->handle)))
        return nio_refuse_forked_child();
    struct nio_task *task = &co->task;
    bool is_close = opcode_of(op) == IORING_OP_CLOSE;
    int stop = nio_co_stop(co);
    if (NIO_UNLIKELY(stop) && !is_close)
        return stop;
    op->_task = task;
    op->_driver = worker->driver;
    op->_state = NIO_OP_STARTED;
    op->_flags = worker->index << NIO_OP_WORKER_SHIFT;
    co->op = op;
    task->wait_kind = NIO_WAIT_OP;
    task->flags &= (uint8_t)~NIO_TASK_OP_CANCELLED;
    if (is_close)
        task->flags |= NIO_TASK_SHIELDED;
    set_flush_cost(worker, op);
    nio_driver_submit(worker->driver, op);
    nio_co_suspend(co); /* resumed only after the completion, run.c sees to that */
    task->wait_kind = NIO_WAIT_WAKE;
    task->flags &= (uint8_t)~NIO_TASK_SHIELDED;
    co->op = NULL;
    int32_t result = op->_result;
    if (NIO_LIKELY(!nio_state_is_stopped(task)) || is_close)
        return result;
    if (!nio_state_is_cancelled(task)) /* late: what it brought all the same is the caller's */
        return result == -EINTR || result == -ECANCELED ? -ETIMEDOUT : result;
    if (result >= 0 && nio_op_makes_fd(op)) {
        (void)close(result); /* came too late for the aborted task */
        return -ECANCELED;
    }
    return result == -EINTR ? -ECANCELED : result; /* how the kernel ends what blocks a thread */
}

void nio_op_send_cancel(struct nio_worker *worker, struct numio_op *op)
{
    op->_flags |= NIO_OP_CANCEL_SENT;
    nio_driver_cancel(worker->driver, op);
}

void nio_op_unlink(struct nio_task *task, struct numio_op *op)
{
    if (op->_prev)
        op->_prev->_next = op->_next;
    else
        task->ops = op->_next;
    if (op->_next)
        op->_next->_prev = op->_prev;
    op->_state = NIO_OP_FRESH;
}

/* The running worker, if the context's future is what it polls. */
static struct nio_worker *worker_polling(const struct numio_context *cx)
{
    struct nio_worker *worker = nio_worker_current();
    /* relaxed: written by this thread */
    if (!worker || !cx ||
        atomic_load_explicit(&worker->current, memory_order_relaxed) != cx->_task ||
        cx->_task->kind != NIO_TASK_FUTURE)
        return NULL;
    return worker;
}

int numio_op_start(struct numio_op *op, struct numio_context *cx)
{
    struct nio_worker *worker = worker_polling(cx);
    if (!worker)
        return nio_error(-EINVAL, "numio_op_start: not called from the poll of a future");
    if (!nio_is_own_process(worker->handle))
        return nio_refuse_forked_child();
    struct nio_task *task = cx->_task;
    if (op->_state != NIO_OP_FRESH)
        return nio_error(-EBUSY, "numio_op_start: the operation is in flight already");
    if (nio_state_is_cancelled(task))
        return -ECANCELED;
    op->_task = task;
    op->_driver = worker->driver;
    op->_flags = worker->index << NIO_OP_WORKER_SHIFT;
    op->_state = NIO_OP_STARTED;
    op->_prev = NULL;
    op->_next = task->ops;
    if (op->_next)
        op->_next->_prev = op;
    task->ops = op;
    nio_state_ref(task); /* given up by nio_op_done() */
    set_flush_cost(worker, op);
    nio_driver_submit(worker->driver, op);
    return 0;
}

enum numio_poll numio_op_poll(struct numio_op *op, struct numio_context *cx, int64_t *ret_result)
{
    if (!nio_op_is_done(op))
        return NUMIO_PENDING;
    *ret_result = op->_result;
    nio_op_unlink(cx->_task, op);
    return NUMIO_READY;
}

void numio_op_cancel(struct numio_op *op, struct numio_context *cx)
{
    struct nio_worker *worker = worker_polling(cx);
    if (!worker || op->_state == NIO_OP_FRESH || nio_op_is_done(op) ||
        (op->_flags & NIO_OP_CANCEL_SENT))
        return;
    if (op->_driver == worker->driver) {
        nio_op_send_cancel(worker, op);
        return;
    }
    /* It went to the ring of another worker, and only that one may cancel there: the task visits
     * it after this poll. */
    op->_flags |= NIO_OP_CANCEL_WANTED;
    cx->_task->flags |= NIO_TASK_VISITS;
}

bool numio_is_cancelled(void)
{
    struct nio_worker *worker = nio_worker_current();
    /* relaxed: written by this thread */
    struct nio_task *task =
        worker ? atomic_load_explicit(&worker->current, memory_order_relaxed) : NULL;
    return task && nio_state_is_cancelled(task);
}
