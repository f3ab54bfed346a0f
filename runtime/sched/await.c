/* SPDX-License-Identifier: MIT */
/* Suspension, operations of coroutines and of futures.  The protocol between a waiting task and
 * the reaper of its operation stands in task/op_done.c, cancellation in run.c. */
#include "runtime/sched/await.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <unistd.h>

#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/sched/source.h"
#include "runtime/sched/wait_await.h"
#include "runtime/task/op_done.h"
#include "runtime/task/state.h"

static uint8_t opcode_of(const struct numio_op *op)
{
    return *(const uint8_t *)op->_sqe; /* the first byte of an SQE */
}

struct nio_co *nio_co_current(void)
{
    return nio_co_of(nio_worker_current());
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

void nio_charge_spent(void)
{
    struct nio_co *co = nio_co_current();
    if (co)
        nio_co_charge(co);
}

void nio_co_go_to(struct nio_co *co, unsigned worker)
{
    if (NIO_LIKELY(nio_worker_current()->index == worker))
        return;
    co->visit = worker;
    co->task.flags |= NIO_TASK_VISITS;
    nio_co_suspend(co);
    NIO_DEBUG_ASSERT(nio_worker_current()->index == worker);
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

bool nio_knows_op(const struct numio_op *op)
{
    const struct nio_worker *worker = nio_worker_current();
    return !worker || nio_op_is_known(op, worker->handle->profile, worker->handle->opcodes);
}

void nio_set_flush_cost(struct nio_worker *worker, const struct numio_op *op)
{
    uint8_t opcode = opcode_of(op);
    if (opcode == IORING_OP_SEND || opcode == IORING_OP_SEND_ZC || opcode == IORING_OP_SENDMSG)
        worker->flush_cost = NIO_FLUSH_COST_SEND;
    else if (worker->flush_cost == NIO_FLUSH_COST)
        worker->flush_cost = NIO_FLUSH_COST_WAIT;
}

int nio_co_go_to_ring(struct nio_co *co, const struct numio_op *op, bool is_alone)
{
    int fd = nio_op_fd(op);
    if (is_alone && op->_sqe[0] & NIO_OP_RELATIONS)
        return nio_error(-EINVAL, "numio_op_await: an operation with a link or a drain goes with "
                                  "others, by numio_batch_await()");
    if (!nio_is_direct(fd))
        return 0;
    if (nio_direct_worker(fd) >= nio_worker_current()->handle->worker_count)
        return nio_error(-EBADF, "descriptor %d is none: no worker has such a direct one", fd);
    const struct nio_worker *owner = nio_worker_current()->handle->workers[nio_direct_worker(fd)];
    bool may_go = owner == nio_worker_current() ||
                  nio_task_affinity(&co->task) == NUMIO_AFFINITY_ANY ||
                  (nio_task_affinity(&co->task) == NUMIO_AFFINITY_NODE &&
                   owner->node->index == co->task.node);
    if (!may_go)
        return nio_error(-EXDEV,
                         "a direct descriptor of worker %u is used by a coroutine that must "
                         "not run there",
                         owner->index);
    nio_co_go_to(co, owner->index);
    return 0;
}

void nio_direct_note_close(const struct numio_op *op)
{
    int fd = nio_op_fd(op);
    if (opcode_of(op) != IORING_OP_CLOSE || op->_result != 0 || !nio_is_direct(fd))
        return;
    struct nio_worker *owner = nio_worker_current()->handle->workers[nio_direct_worker(fd)];
    /* relaxed: a number that goes with nothing else */
    (void)atomic_fetch_add_explicit(&owner->direct_free, 1, memory_order_relaxed);
}

int64_t numio_op_await(struct numio_op *op)
{
    struct nio_co *co = nio_co_current();
    if (NIO_UNLIKELY(!co) && nio_op_is_wait(op))
        return nio_wait_await(op);
    if (NIO_UNLIKELY(!co))
        return nio_error(-EINVAL, "numio_op_await: not called from a coroutine");
    struct nio_worker *worker = nio_worker_current();
    if (NIO_UNLIKELY(!nio_is_own_process(worker->handle)))
        return nio_refuse_forked_child();
    if (NIO_UNLIKELY(nio_op_is_wait(op)))
        return nio_wait_await(op);
    struct nio_task *task = &co->task;
    bool is_close = opcode_of(op) == IORING_OP_CLOSE;
    int stop = nio_co_stop(co);
    if (NIO_UNLIKELY(stop) && !is_close)
        return stop;
    if (NIO_UNLIKELY(op->_sqe[0] & (NIO_OP_RELATIONS | NIO_OP_MAY_BE_DIRECT))) {
        int error = nio_co_go_to_ring(co, op, true);
        if (error)
            return error;
        worker = nio_worker_current();
    }
    op->_task = task;
    op->_driver = worker->driver;
    op->_state = NIO_OP_STARTED;
    op->_flags = worker->index << NIO_OP_WORKER_SHIFT;
    co->op = op;
    task->wait_kind = NIO_WAIT_OP;
    task->flags &= (uint8_t)~NIO_TASK_OP_CANCELLED;
    if (is_close)
        task->flags |= NIO_TASK_SHIELDED;
    nio_set_flush_cost(worker, op);
    nio_driver_submit(worker->driver, op);
    nio_co_suspend(co); /* resumed only after the completion, run.c sees to that */
    task->wait_kind = NIO_WAIT_WAKE;
    task->flags &= (uint8_t)~NIO_TASK_SHIELDED;
    co->op = NULL;
    int32_t result = op->_result;
    if (NIO_UNLIKELY(is_close))
        nio_direct_note_close(op);
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
    enum nio_op_state kind = nio_op_kind(op);
    if (NIO_UNLIKELY(kind == NIO_OP_MEMBER || kind == NIO_OP_LINKED)) {
        nio_batch_send_cancel(worker, op);
        return;
    }
    if (NIO_UNLIKELY(kind == NIO_OP_CHOICE)) {
        nio_choice_send_cancel(worker, nio_op_choice(op));
        return;
    }
    if (nio_op_is_wait(op)) {
        op->_flags |= NIO_OP_CANCEL_SENT; /* before it may be gone */
        nio_wait_cancel(op);
        return;
    }
    if (op->_flags & NIO_OP_SOURCE) {
        nio_source_cancel(op);
        return;
    }
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
    if (op->_sqe[0] & NIO_OP_RELATIONS)
        return nio_error(-EINVAL, "numio_op_start: links and drains are for coroutines, by "
                                  "numio_batch_await()");
    if (nio_is_direct(nio_op_fd(op)) && nio_direct_worker(nio_op_fd(op)) != worker->index)
        return nio_error(-EXDEV,
                         "numio_op_start: the direct descriptor belongs to worker %u; pin "
                         "the future there",
                         nio_direct_worker(nio_op_fd(op)));
    op->_task = task;
    op->_driver = worker->driver;
    op->_flags = worker->index << NIO_OP_WORKER_SHIFT;
    op->_state = NIO_OP_STARTED;
    op->_prev = NULL;
    op->_next = task->ops;
    if (op->_next)
        op->_next->_prev = op;
    task->ops = op;
    if (NIO_UNLIKELY(nio_op_is_wait(op))) {
        nio_wait_start(op, task); /* the poll shows whether it has ended */
        return 0;
    }
    nio_state_ref(task); /* given up by nio_op_done() */
    nio_set_flush_cost(worker, op);
    nio_driver_submit(worker->driver, op);
    return 0;
}

enum numio_poll numio_op_poll(struct numio_op *op, struct numio_context *cx, int64_t *ret_result)
{
    if (!nio_op_is_done(op))
        return NUMIO_PENDING;
    *ret_result = NIO_UNLIKELY(nio_op_is_take(op)) ? nio_wait_take(op) : op->_result;
    nio_direct_note_close(op);
    nio_op_unlink(cx->_task, op);
    return NUMIO_READY;
}

void numio_op_cancel(struct numio_op *op, struct numio_context *cx)
{
    struct nio_worker *worker = worker_polling(cx);
    if (!worker || op->_state == NIO_OP_FRESH || nio_op_is_done(op) ||
        (op->_flags & NIO_OP_CANCEL_SENT))
        return;
    if (op->_driver == worker->driver || nio_op_is_wait(op)) {
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
