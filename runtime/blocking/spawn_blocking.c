/* SPDX-License-Identifier: MIT */
/* Blocking functions as tasks: the cell is bound like any other, so that the function has a join
 * handle, hooks and a place in the owned set; a pool thread runs it instead of a worker.  An abort
 * reaches it only while it waits in the queue. */
#include <errno.h>

#include "runtime/base/error.h"
#include "runtime/blocking/blocking.h"
#include "runtime/sched/await.h"
#include "runtime/sched/spawn.h"
#include "runtime/task/wake.h"

struct blocking_task {
    struct nio_task task;
    struct nio_blocking_job job;
};

static void run_blocking_task(struct nio_blocking_job *job, bool is_cancelled)
{
    struct blocking_task *blocking = NIO_CONTAINER_OF(job, struct blocking_task, job);
    struct nio_task *task = &blocking->task;
    struct numio_handle *handle = NIO_CONTAINER_OF(
        (struct nio_schedule *)(uintptr_t)task->scheduler, struct numio_handle, schedule);
    const struct numio_hooks *hooks = &handle->config.hooks;
    struct numio_task_meta meta = nio_task_meta(task);
    bool is_aborted = (nio_state_start_on_pool(task) & NIO_STATE_CANCELLED) != 0;
    struct numio_handle *before = numio_handle_enter(handle);
    bool has_run = !is_cancelled && !is_aborted;
    if (!has_run) {
        task->with.result = -ECANCELED;
    } else {
        if (hooks->before_poll)
            hooks->before_poll(&meta, hooks->arg);
        task->with.result = task->entry.run(task->with.arg);
    }
    if (hooks->on_task_terminate)
        hooks->on_task_terminate(&meta, hooks->arg);
    if (hooks->after_poll && has_run)
        hooks->after_poll(&meta, hooks->arg);
    (void)numio_handle_enter(before); /* the pool thread's own, NULL */
    uintptr_t waker;
    bool is_last = nio_state_complete(task, &waker);
    if (waker)
        nio_join_waker_wake(waker, &handle->schedule);
    if (is_last)
        nio_release(&handle->schedule, task);
    nio_lock_acquire(&handle->end_lock);
    nio_count(&handle->completed_elsewhere, 1);
    nio_lock_release(&handle->end_lock);
    if (nio_phase(handle) == NIO_PHASE_CLOSING)
        nio_end_check(handle);
}

int numio_spawn_blocking_at(const struct numio_site *site, struct numio_handle *handle,
                            int64_t (*fn)(void *arg), void *arg,
                            const struct numio_spawn_opts *opts, struct numio_join **ret_join)
{
    struct nio_placement placement;
    struct nio_task *task;
    if (!fn)
        return nio_error(-EINVAL, "spawn_blocking: no function");
    if (opts && opts->size >= sizeof *opts && (opts->cancel || opts->inherit_locals))
        return nio_error(-EINVAL, "spawn_blocking: cancel tokens and inherited values are for "
                                  "coroutines and futures");
    int rc = nio_place(handle, opts, &placement);
    if (rc == 0)
        rc = nio_bind_new_task(&placement, site, NIO_TASK_BLOCKING, sizeof(struct blocking_task),
                               nio_state_initial(ret_join != NULL), &task);
    if (rc < 0)
        return rc;
    struct blocking_task *blocking = NIO_CONTAINER_OF(task, struct blocking_task, task);
    task->entry.run = fn;
    task->with.arg = arg;
    blocking->job.run = run_blocking_task;
    blocking->job.is_io = false;
    nio_call_spawn_hook(&placement, task);
    rc = nio_blocking_submit(placement.handle->blocking, placement.node->index, &blocking->job);
    if (rc < 0) {
        struct numio_task_meta meta = nio_task_meta(task);
        const struct numio_hooks *hooks = &placement.handle->config.hooks;
        if (hooks->on_task_terminate)
            hooks->on_task_terminate(&meta, hooks->arg);
        nio_unbind_new_task(&placement, task);
        return rc;
    }
    if (ret_join)
        *ret_join = (struct numio_join *)task;
    return 0;
}

int64_t numio_block_in_place(int64_t (*fn)(void *arg), void *arg)
{
    struct nio_co *co = nio_co_current();
    if (!co && nio_worker_current())
        return nio_error(-EDEADLK, "block_in_place: a future's poll cannot suspend");
    if (!co)
        return fn(arg);
    if (nio_co_stop(co) == -ETIMEDOUT)
        return -ETIMEDOUT;
    struct numio_join *join;
    int rc = numio_spawn_blocking_at(co->task.site, NULL, fn, arg, NULL, &join);
    if (rc < 0)
        return rc;
    /* `arg` may lie on this stack: an aborted caller waits all the same. */
    co->task.flags |= NIO_TASK_SHIELDED;
    int64_t result = numio_join_await(&join);
    co->task.flags &= (uint8_t)~NIO_TASK_SHIELDED;
    return result;
}
