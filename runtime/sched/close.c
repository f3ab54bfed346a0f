/* SPDX-License-Identifier: MIT */
/* The end of a runtime, as seen by its workers.
 *
 * 1. runtime.c sets CLOSING [HP2], closes the nodes' foreign stripes and unparks everybody.
 * 2. Each worker closes its own stripe and cancels its tasks, and counts itself in `closed`.  From
 *    then on no task can be bound, so the number of spawned tasks is final.
 * 3. The tasks run to their ends.  Whoever may have ended the last one, a worker that has nothing
 *    left to do or a thread of the blocking pool, asks nio_end_check().  Its lock orders the
 *    counters: of two threads that each ended a task, the later one to take the lock sees both.
 * 4. With nothing left the phase is ENDED, the waiter in runtime.c is woken, and the workers leave.
 */
#include <limits.h>

#include "runtime/base/clock.h"
#include "runtime/base/futex.h"
#include "runtime/sched/worker.h"
#include "runtime/task/wake.h"

static const char *waits_for(struct nio_task *task);

static void tell_left(struct nio_task *task, void *arg)
{
    const struct numio_hooks *hooks = arg;
    if (nio_state_load(task) & (NIO_STATE_JOIN_INTEREST | NIO_STATE_MEMBER))
        return;
    struct numio_straggler left = { nio_task_meta(task), waits_for(task) };
    hooks->on_task_left(&left, hooks->arg);
}

void nio_tell_left(struct numio_handle *handle, struct nio_stripe *stripe)
{
    if (NIO_UNLIKELY(handle->config.hooks.on_task_left != NULL))
        nio_stripe_for_each(stripe, tell_left, &handle->config.hooks);
}

void nio_worker_close(struct nio_worker *worker)
{
    if (!worker->stripe.is_closed) {
        nio_tell_left(worker->handle, &worker->stripe);
        worker->is_batching = true;
        nio_stripe_close(&worker->stripe);
        worker->is_batching = false;
        nio_offer_quiet_work(worker);
        /* [HP3] acq_rel: the final count of spawned tasks is seen by whoever sees the number.
         * Pairs with [HP4]. */
        (void)atomic_fetch_add_explicit(&worker->handle->closed, 1, memory_order_acq_rel);
    }
    nio_worker_report(worker);
}

static uint64_t live_tasks(const struct numio_handle *handle)
{
    uint64_t completed = 0;
    uint64_t spawned = 0;
    for (unsigned i = 0; i < handle->worker_count; i++)
        completed += nio_counter(&handle->workers[i]->counters.completed);
    completed += nio_counter(&handle->completed_elsewhere);
    for (unsigned i = 0; i < handle->worker_count; i++)
        spawned += nio_counter(&handle->workers[i]->counters.spawned);
    for (unsigned i = 0; i < handle->node_count; i++)
        spawned += nio_counter(&handle->nodes[i]->foreign.spawned);
    return spawned - completed;
}

uint64_t numio_live_tasks(struct numio_handle *handle)
{
    handle = nio_handle_resolve(handle);
    if (!handle || nio_phase(handle) == NIO_PHASE_ENDED)
        return 0;
    return live_tasks(handle);
}

void nio_end_check(struct numio_handle *handle)
{
    bool has_ended = false;
    nio_lock_acquire(&handle->end_lock);
    /* [HP4] acquire: with the last stripe closed the spawn counters are final.  Pairs with
     * [HP3]. */
    if (atomic_load_explicit(&handle->closed, memory_order_acquire) == handle->worker_count &&
        nio_phase(handle) == NIO_PHASE_CLOSING && live_tasks(handle) == 0) {
        /* [HP2] seq_cst, and so a release, pairs with [HP1]; seq_cst for the guests, see [HG1] */
        atomic_store_explicit(&handle->phase, NIO_PHASE_ENDED, memory_order_seq_cst);
        has_ended = true;
    }
    nio_lock_release(&handle->end_lock);
    if (!has_ended)
        return;
    /* The drivers are there until `ended` is seen, so this thread need not be a guest. */
    for (unsigned i = 0; i < handle->worker_count; i++)
        (void)nio_parker_unpark(&handle->workers[i]->parker, handle->workers[i]->driver);
    /* [HP5] release: the waiter in runtime.c goes on to tear down.  Pairs with [HP6]. */
    atomic_store_explicit(&handle->ended, 1, memory_order_release);
    nio_futex_wake(&handle->ended, INT_MAX);
}

/* Whether a worker or a pool thread runs it; not while it runs a joined task inside of itself. */
static bool is_running(const struct nio_task *task)
{
    const struct numio_handle *handle = NIO_CONTAINER_OF(
        (struct nio_schedule *)(uintptr_t)task->scheduler, struct numio_handle, schedule);
    if (nio_state_load(task) & NIO_STATE_ON_POOL)
        return true;
    for (unsigned i = 0; i < handle->worker_count; i++)
        /* relaxed: a moment ago is good enough for a report */
        if (atomic_load_explicit(&handle->workers[i]->current, memory_order_relaxed) == task)
            return true;
    return false;
}

/* What the owner alone may read is read only while the task is kept from running. */
static const char *waits_for(struct nio_task *task)
{
    const char *what;
    if (nio_state_hold(task)) {
        bool has_ops = task->kind == NIO_TASK_FUTURE && task->ops;
        if (has_ops || task->wait_kind == NIO_WAIT_OP)
            what = "an operation";
        else
            what = task->wait_kind == NIO_WAIT_JOIN ? "a join" : "a wake";
        if (nio_state_idle(task))
            nio_wake_act(task, NIO_WAKE_QUEUE);
        return what;
    }
    return is_running(task) ? "running" : "its turn";
}

struct collection {
    struct numio_straggler *out;
    size_t capacity, count;
};

static void collect(struct nio_task *task, void *arg)
{
    struct collection *collection = arg;
    if (collection->count < collection->capacity)
        collection->out[collection->count] =
            (struct numio_straggler){ nio_task_meta(task), waits_for(task) };
    collection->count++;
}

/* The owner writes its stripe's tasks to the request, if there is one. */
void nio_worker_report(struct nio_worker *worker)
{
    struct nio_report *report = worker->handle->report;
    /* [CR1] acquire: sees the request.  Pairs with [CR2]. */
    if (NIO_LIKELY(atomic_load_explicit(&worker->report, memory_order_acquire) == 0))
        return;
    struct collection collection = { 0 };
    nio_lock_acquire(&report->lock);
    if (report->is_open) {
        collection.out = report->out + report->count;
        collection.capacity = report->capacity - report->count;
        nio_stripe_for_each(&worker->stripe, collect, &collection);
        report->count +=
            collection.count < collection.capacity ? collection.count : collection.capacity;
    }
    nio_lock_release(&report->lock);
    /* [CR3] release: the lines are written.  Pairs with [CR4]. */
    atomic_store_explicit(&worker->report, 0, memory_order_release);
}

enum { REPORT_PATIENCE_NS = 100000000, REPORT_POLL_NS = 1000000 };

/* [CR6] acquire: if something of the memory's next user was read, the worker is seen to have left
 * the task afterwards.  Pairs with [CR5]. */
#define LOAD(field)                                                                                \
    atomic_load_explicit((_Atomic __typeof__(field) *)(uintptr_t)(&(field)), memory_order_acquire)

/* What the task says of itself, if it is one still: its memory may have been freed, and used again,
 * since the worker named it; it stays mapped while the runtime lives.  Nothing is followed. */
NIO_UNCHECKED static struct numio_task_meta copy_meta(const struct nio_task *task,
                                                      const struct numio_site **ret_site)
{
    *ret_site = LOAD(task->site);
    return (struct numio_task_meta){ .id = LOAD(task->id),
                                     .name = LOAD(task->name),
                                     .node = LOAD(task->node) };
}

bool nio_worker_peek(const struct nio_worker *worker, struct numio_task_meta *ret_meta)
{
    const struct numio_site *site;
    uint64_t polls = nio_counter(&worker->counters.polls);
    /* [CR6] acquire: sees what the task is.  Pairs with [CR5]. */
    struct nio_task *task = atomic_load_explicit(&worker->current, memory_order_acquire);
    if (!task)
        return false;
    struct numio_task_meta meta = copy_meta(task, &site);
    /* relaxed: after what was read, by [CR6] */
    if (atomic_load_explicit(&worker->current, memory_order_relaxed) != task ||
        nio_counter(&worker->counters.polls) != polls)
        return false;
    meta.file = site->file; /* it was the task's all the while */
    meta.line = site->line;
    *ret_meta = meta;
    return true;
}

/* A worker that does not answer is in a poll that does not return: names that task. */
static void collect_stuck(const struct nio_worker *worker, struct collection *collection)
{
    struct numio_straggler straggler = { .waits_for = "running" };
    if (nio_worker_peek(worker, &straggler.task) && collection->count < collection->capacity)
        collection->out[collection->count++] = straggler;
}

size_t nio_collect_stragglers(struct numio_handle *handle, struct numio_straggler *ret,
                              size_t capacity)
{
    struct nio_report *report = handle->report;
    nio_lock_acquire(&report->lock);
    report->out = ret;
    report->capacity = ret ? capacity : 0;
    report->count = 0;
    report->is_open = true;
    nio_lock_release(&report->lock);
    for (unsigned i = 0; i < handle->worker_count; i++) {
        /* [CR2] release: publishes the request.  Pairs with [CR1]. */
        atomic_store_explicit(&handle->workers[i]->report, 1, memory_order_release);
        nio_wake_worker(handle->workers[i], NULL);
    }
    uint64_t end_ns = nio_now_ns() + REPORT_PATIENCE_NS;
    for (unsigned i = 0; i < handle->worker_count; i++)
        /* [CR4] acquire: sees the lines.  Pairs with [CR3]. */
        while (atomic_load_explicit(&handle->workers[i]->report, memory_order_acquire) != 0 &&
               nio_now_ns() < end_ns)
            (void)nio_futex_wait(&handle->ended, 0, REPORT_POLL_NS); /* a bounded pause */
    nio_lock_acquire(&report->lock);
    report->is_open = false;
    struct collection collection = { report->out, report->capacity, report->count };
    for (unsigned i = 0; i < handle->node_count; i++) {
        struct nio_foreign_stripe *foreign = &handle->nodes[i]->foreign;
        nio_lock_acquire(&foreign->lock);
        nio_stripe_for_each(&foreign->stripe, collect, &collection);
        nio_lock_release(&foreign->lock);
    }
    for (unsigned i = 0; i < handle->worker_count; i++)
        /* relaxed: only whether it has answered */
        if (atomic_load_explicit(&handle->workers[i]->report, memory_order_relaxed) != 0)
            collect_stuck(handle->workers[i], &collection);
    nio_lock_release(&report->lock);
    return live_tasks(handle);
}
