/* SPDX-License-Identifier: MIT */
/* Batches: a coroutine that waits for several operations as if they were one.
 *
 * Each operation is a member (its state says so) of a struct nio_batch on the coroutine's stack,
 * whose counter the completions count down; the last one wakes the task as a single operation would
 * (task/op_done.c).  So suspension, abort and deadline are those of numio_op_await(), with the
 * first member in the place of the operation: who cancels it cancels all that have not ended.  The
 * last completion has seen all others [OB1], and so has the coroutine.
 *
 * A drain ends a part of the batch: the next part is submitted when the one before has ended.  (The
 * kernel's own drain would wait for everything on the worker's ring, other tasks' receives
 * included.)
 */
#include <numio/batch.h>

#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"
#include "runtime/task/op_done.h"

/* The operations of the chain that begins here: at least 1. */
static unsigned chain_length(const struct numio_op *ops)
{
    unsigned length = 1;
    while (nio_op_is_linked(&ops[length - 1]))
        length++;
    return length;
}

static int check(const struct numio_op *ops, unsigned count, unsigned chain_max)
{
    if (count > 0 && nio_op_is_linked(&ops[count - 1]))
        return nio_error(-EINVAL, "batch: the last operation has a link, which leads nowhere");
    unsigned length = 0;
    for (unsigned i = 0; i < count; i++) {
        bool is_behind = i > 0 && nio_op_is_linked(&ops[i - 1]);
        if (nio_op_is_wait(&ops[i]) && (is_behind || nio_op_is_linked(&ops[i])))
            return nio_error(-EINVAL,
                             "batch: operation %u waits for a task, and no chain can have it", i);
        length = is_behind ? length + 1 : 1;
        if (nio_op_is_link_timeout(&ops[i]) && (!is_behind || nio_op_is_link_timeout(&ops[i - 1])))
            return nio_error(-EINVAL,
                             "batch: operation %u is a link timeout, and the one before "
                             "it has no link to it",
                             i);
        if ((ops[i]._sqe[0] & NIO_OP_DRAIN) && is_behind)
            return nio_error(-EINVAL, "batch: operation %u drains in the middle of a chain", i);
        if (nio_op_is_timeout(&ops[i]) && (is_behind || nio_op_is_linked(&ops[i])))
            return nio_error(-EINVAL,
                             "batch: operation %u is a plain timeout, which no chain can "
                             "have; numio_op_link_timeout() limits the one before it",
                             i);
        if (length > chain_max)
            return nio_error(-EINVAL,
                             "batch: a chain of more than %u operations; raise "
                             "ring_entries or make it shorter",
                             chain_max);
    }
    return 0;
}

/* Submits the members, each chain in one piece. */
static void submit(struct nio_worker *worker, struct numio_op *ops, unsigned count)
{
    for (unsigned i = 0, length; i < count; i += length) {
        length = chain_length(&ops[i]);
        nio_set_flush_cost(worker, &ops[i]);
        if (NIO_UNLIKELY(nio_op_is_wait(&ops[i])))
            nio_wait_submit(&ops[i]);
        else if (length == 1)
            nio_driver_submit(worker->driver, &ops[i]);
        else
            nio_driver_submit_chain(worker->driver, &ops[i], length);
    }
}

/* What the result of a member is for a task that was stopped. */
static void settle(const struct nio_task *task, struct numio_op *op)
{
    if (!nio_state_is_cancelled(task)) { /* late */
        if (op->_result == -EINTR || op->_result == -ECANCELED)
            op->_result = -ETIMEDOUT;
    } else if (op->_result >= 0 && nio_op_makes_fd(op)) {
        (void)close(op->_result); /* came too late for the aborted task */
        op->_result = -ECANCELED;
    } else if (op->_result == -EINTR) {
        op->_result = -ECANCELED;
    }
}

/* Runs the operations up to the next drain: submits, and suspends until the last has ended. */
static void run_part(struct nio_co *co, struct numio_op *ops, unsigned count)
{
    struct nio_worker *worker = nio_worker_current();
    struct nio_task *task = &co->task;
    struct nio_batch batch = { .ops = ops, .count = count };
    atomic_init(&batch.left, count);
    for (unsigned i = 0; i < count; i++) {
        ops[i]._sqe[0] &= ~NIO_OP_DRAIN;
        ops[i]._task = task;
        ops[i]._driver = worker->driver;
        ops[i]._prev = (struct numio_op *)&batch;
        ops[i]._state = NIO_OP_MEMBER;
        ops[i]._flags = worker->index << NIO_OP_WORKER_SHIFT;
    }
    co->op = ops;
    task->wait_kind = NIO_WAIT_OP;
    task->flags &= (uint8_t)~NIO_TASK_OP_CANCELLED;
    submit(worker, ops, count);
    nio_co_suspend(co); /* resumed only after the last completion */
    task->wait_kind = NIO_WAIT_WAKE;
    co->op = NULL;
    for (unsigned i = 0; NIO_UNLIKELY(nio_state_is_stopped(task)) && i < count; i++)
        settle(task, &ops[i]);
}

void nio_batch_send_cancel(struct nio_worker *worker, struct numio_op *member)
{
    struct nio_batch *batch = nio_op_batch(member);
    for (unsigned i = 0; i < batch->count; i++) {
        struct numio_op *op = &batch->ops[i];
        if (nio_op_is_done(op) || (op->_flags & NIO_OP_CANCEL_SENT))
            continue;
        op->_flags |= NIO_OP_CANCEL_SENT;
        if (nio_op_is_wait(op))
            nio_wait_cancel(op);
        else
            nio_driver_cancel(worker->driver, op);
    }
}

/* Direct descriptors must be of one worker, and the coroutine goes there. */
static int go_to_table(struct nio_co *co, const struct numio_op *ops, unsigned count)
{
    const struct numio_op *first = NULL;
    for (unsigned i = 0; i < count; i++) {
        int fd = nio_op_fd(&ops[i]);
        if (!nio_is_direct(fd))
            continue;
        if (first && nio_direct_worker(nio_op_fd(first)) != nio_direct_worker(fd))
            return nio_error(-EXDEV,
                             "batch: operation %u has a direct descriptor of worker %u, one "
                             "before it of worker %u",
                             i, nio_direct_worker(fd), nio_direct_worker(nio_op_fd(first)));
        first = &ops[i];
    }
    return first ? nio_co_go_to_ring(co, first, false) : 0;
}

static bool counts_as_failure(const struct numio_op *op)
{
    return op->_result < 0 && !nio_op_is_link_timeout(op) &&
           !(nio_op_is_timeout(op) && op->_result == -ETIME);
}

int64_t numio_batch_await(struct numio_op *ops, unsigned count)
{
    struct nio_co *co = nio_co_current();
    if (NIO_UNLIKELY(!co))
        return nio_error(-EINVAL, "numio_batch_await: not called from a coroutine");
    struct nio_worker *worker = nio_worker_current();
    if (NIO_UNLIKELY(!nio_is_own_process(worker->handle)))
        return nio_refuse_forked_child();
    int error = check(ops, count, nio_driver_chain_max(worker->driver));
    if (!error)
        error = go_to_table(co, ops, count);
    if (NIO_UNLIKELY(error))
        return error;
    int64_t result = 0;
    for (unsigned i = 0, part; i < count; i += part) {
        for (part = 1; i + part < count && !(ops[i + part]._sqe[0] & NIO_OP_DRAIN);)
            part++;
        int stop = nio_co_stop(co);
        if (NIO_UNLIKELY(stop))
            for (unsigned k = i; k < count; k++)
                ops[k]._result = stop;
        else
            run_part(co, &ops[i], part);
        if (NIO_UNLIKELY(stop))
            return result ? result : stop;
        for (unsigned k = i; k < i + part; k++) {
            if (!result && counts_as_failure(&ops[k]))
                result = ops[k]._result;
            nio_direct_note_close(&ops[k]);
        }
    }
    return result;
}
