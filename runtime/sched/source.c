/* SPDX-License-Identifier: MIT */
#include "runtime/sched/source.h"

#include <errno.h>
#include <stdatomic.h>

#include "runtime/sched/await.h"
#include "runtime/task/op_done.h"

static void link_source(struct nio_worker *worker, struct nio_source *source)
{
    source->next = worker->sources;
    source->link = &worker->sources;
    if (source->next)
        source->next->link = &source->next;
    worker->sources = source;
    source->op._flags |= NIO_OP_SOURCE;
}

static void unlink_source(struct nio_source *source)
{
    *source->link = source->next;
    if (source->next)
        source->next->link = source->link;
    source->op._flags &= ~(uint32_t)NIO_OP_SOURCE;
}

static bool is_ready(const struct nio_source *source)
{
    const _Atomic uint32_t *word = (const _Atomic uint32_t *)(uintptr_t)source->word;
    /* [SR1] acquire: pairs with [SR2], in the kernel */
    return atomic_load_explicit(word, memory_order_acquire) != source->seen;
}

int64_t nio_source_await(struct nio_source *source)
{
    struct nio_co *co = nio_co_current();
    struct nio_worker *worker = nio_worker_current();
    struct nio_task *task = &co->task;
    struct numio_op *op = &source->op;
    int stop = nio_co_stop(co);
    if (NIO_UNLIKELY(stop))
        return stop;
    NIO_DEBUG_ASSERT(nio_task_affinity(task) == NUMIO_AFFINITY_WORKER);
    op->_task = task;
    op->_driver = worker->driver;
    op->_state = NIO_OP_STARTED;
    op->_flags = worker->index << NIO_OP_WORKER_SHIFT;
    source->is_ended = false;
    co->op = op;
    task->wait_kind = NIO_WAIT_OP;
    task->flags &= (uint8_t)~NIO_TASK_OP_CANCELLED;
    if (source->word)
        link_source(worker, source);
    else
        nio_driver_submit(worker->driver, op);
    nio_co_suspend(co); /* resumed only after nio_op_done(), by the driver or from here */
    task->wait_kind = NIO_WAIT_WAKE;
    co->op = NULL;
    int32_t result = op->_result;
    if (NIO_LIKELY(!nio_state_is_stopped(task)))
        return result;
    if (result == -EINTR || result == -ECANCELED)
        return nio_state_is_cancelled(task) ? -ECANCELED : -ETIMEDOUT;
    return result;
}

void nio_source_end(struct nio_worker *worker, struct nio_source *source, int32_t result)
{
    if (source->is_ended)
        return;
    source->is_ended = true;
    if (source->op._flags & NIO_OP_SOURCE) {
        unlink_source(source);
        nio_op_done(&source->op, result);
    } else {
        nio_op_send_cancel(worker, &source->op); /* the driver knows whether it has ended */
    }
}

void nio_source_cancel(struct numio_op *op)
{
    struct nio_source *source = NIO_CONTAINER_OF(op, struct nio_source, op);
    source->is_ended = true;
    unlink_source(source);
    nio_op_done(op, -ECANCELED);
}

unsigned nio_sources_look(struct nio_worker *worker)
{
    unsigned ready = 0;
    struct nio_source *next;
    worker->is_batching = true;
    for (struct nio_source *source = worker->sources; source; source = next) {
        next = source->next;
        if (!is_ready(source))
            continue;
        source->is_ended = true;
        unlink_source(source);
        nio_op_done(&source->op, 0); /* it may be gone from here on */
        ready++;
    }
    worker->is_batching = false;
    if (ready)
        nio_offer_quiet_work(worker);
    return ready;
}

void nio_sources_arm(struct nio_worker *worker)
{
    struct nio_source *source;
    while ((source = worker->sources)) { /* bounded by the coroutines that wait */
        unlink_source(source);
        nio_driver_submit(worker->driver, &source->op);
    }
}
