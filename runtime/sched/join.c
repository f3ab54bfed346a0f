/* SPDX-License-Identifier: MIT */
/* Join handles: a handle is the task itself, with a reference of its own.
 *
 * Whoever waits stores a waker and sets JOIN_WAKER; the completer takes the waker with COMPLETE
 * (state.c).  While JOIN_WAKER is set a second waiter is refused.  A waiter that gives up (timeout,
 * abort) takes its waker back; if the task has completed meanwhile it cannot, and then the wake has
 * been or is being made, so it must be waited for where the waiter's own memory is the target.
 *
 * Ending a handle reads the result, drops the handle's reference and sets the caller's pointer to
 * NULL, so that a second join on the same variable is an error and not a use after free.
 */
#include <numio/select.h>

#include <errno.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/futex.h"
#include "runtime/sched/await.h"
#include "runtime/task/wait.h"
#include "runtime/task/wake.h"

static struct nio_task *task_of(const struct numio_join *join)
{
    return (struct nio_task *)(uintptr_t)join;
}

static inline bool is_complete(const struct nio_task *task)
{
    return (nio_state_load(task) & NIO_STATE_COMPLETE) != 0;
}

/* The task is complete: copies the output, ends the handle, returns the result. */
static NIO_ALWAYS_INLINE int64_t take_result(struct numio_join **join, void *ret_output,
                                             size_t output_size)
{
    struct nio_task *task = task_of(*join);
    /* However the caller learnt of the end, this load is what shows the result as well. */
    NIO_ASSERT(is_complete(task));
    int64_t result = task->with.result;
    if (ret_output && result != -ECANCELED && output_size > 0)
        memcpy(ret_output, nio_task_output(task), output_size);
    *join = NULL;
    if (nio_state_drop_join(task))
        task->scheduler->release(task->scheduler, task);
    return result;
}

static NIO_ALWAYS_INLINE int check(struct numio_join *const *join, const void *output,
                                   size_t output_size)
{
    if (!join || !*join)
        return nio_error(-EINVAL, "join: the handle was joined or detached before");
    const struct nio_task *task = task_of(*join);
    if (NIO_UNLIKELY(!nio_is_own_process((const struct numio_handle *)task->scheduler)))
        return nio_refuse_forked_child(); /* the schedule is the handle's first member */
    size_t has = task->kind == NIO_TASK_FUTURE ? task->output_bytes : 0;
    if (output && output_size != has)
        return nio_error(-EINVAL, "join: output_size is %zu but the task has %zu bytes of output",
                         output_size, has);
    return 0;
}

static int refuse_second_waiter(void)
{
    return nio_error(-EBUSY, "join: somebody else is waiting on the same handle");
}

/* Why the coroutine may stop waiting: -ECANCELED, -ETIMEDOUT, or 0. */
static NIO_ALWAYS_INLINE int heeds(const struct nio_co *co)
{
    int stop = nio_co_stop(co);
    return NIO_LIKELY(stop == 0) || (co->task.flags & NIO_TASK_SHIELDED) ? 0 : stop;
}

/* Waits in the calling coroutine.  0 once the task is complete. */
static int wait_in_coroutine(struct nio_co *co, struct nio_task *task)
{
    if (&co->task == task)
        return nio_error(-EDEADLK, "join: the task joins itself");
    if (is_complete(task)) {
        nio_co_charge(co);
        return 0;
    }
    int stop = heeds(co);
    if (NIO_UNLIKELY(stop))
        return stop;
    nio_run_joined(nio_worker_current(), task);
    if (is_complete(task))
        return 0;
    if (nio_state_load(task) & NIO_STATE_JOIN_WAKER)
        return refuse_second_waiter();
    nio_state_ref(&co->task); /* the waker's */
    if (!nio_state_set_join_waker(task, nio_join_waker_of_task(&co->task))) {
        nio_task_unref(&co->task);
        return is_complete(task) ? 0 : -EIO;
    }
    co->task.wait_kind = NIO_WAIT_JOIN;
    while (!is_complete(task)) { /* until woken by the completer; other wakes are strays */
        if ((stop = heeds(co)) != 0 && nio_state_unset_join_waker(task)) {
            nio_task_unref(&co->task);
            co->task.wait_kind = NIO_WAIT_WAKE;
            return stop;
        }
        nio_co_suspend(co);
    }
    co->task.wait_kind = NIO_WAIT_WAKE;
    return 0;
}

/* Waits in a plain thread.  0 once the task is complete, -ETIMEDOUT. */
static int wait_in_thread(struct nio_task *task, int64_t timeout_ns)
{
    if (is_complete(task))
        return 0;
    if (nio_state_load(task) & NIO_STATE_JOIN_WAKER)
        return refuse_second_waiter();
    struct nio_thread_waiter waiter;
    atomic_init(&waiter.is_woken, 0);
    if (!nio_state_set_join_waker(task, nio_join_waker_of_thread(&waiter)))
        return 0; /* it has just completed */
    uint64_t end_ns = timeout_ns < 0 ? 0 : nio_now_ns() + (uint64_t)timeout_ns;
    /* [WK2] acquire: sees what the completer did before.  Pairs with [WK1]. */
    while (atomic_load_explicit(&waiter.is_woken, memory_order_acquire) == 0) {
        int64_t left_ns = NIO_FUTEX_FOREVER;
        if (timeout_ns >= 0) {
            left_ns = (int64_t)(end_ns - nio_now_ns());
            if (left_ns <= 0 && nio_state_unset_join_waker(task))
                return nio_error(-ETIMEDOUT, "join: the task has not ended in time");
            if (left_ns <= 0)
                left_ns = NIO_FUTEX_FOREVER; /* completing right now: the wake is under way */
        }
        (void)nio_futex_wait(&waiter.is_woken, 0, left_ns); /* the loop looks again */
    }
    return 0;
}

static int64_t join_wait(struct numio_join **join, int64_t timeout_ns, bool may_suspend,
                         void *ret_output, size_t output_size)
{
    int rc = check(join, ret_output, output_size);
    if (rc < 0)
        return rc;
    struct nio_task *task = task_of(*join);
    struct nio_co *co = may_suspend ? nio_co_current() : NULL;
    if (co)
        rc = wait_in_coroutine(co, task);
    else if (nio_worker_current())
        return nio_error(-EDEADLK, "join: waiting here would block a worker");
    else
        rc = wait_in_thread(task, timeout_ns);
    return rc < 0 ? rc : take_result(join, ret_output, output_size);
}

int64_t numio_join_await(struct numio_join **join)
{
    return join_wait(join, NIO_FUTEX_FOREVER, true, NULL, 0);
}

int64_t numio_join_await_output(struct numio_join **join, void *ret_output, size_t output_size)
{
    return join_wait(join, NIO_FUTEX_FOREVER, true, ret_output, output_size);
}

int64_t numio_join_wait(struct numio_join **join, int64_t timeout_ns)
{
    return join_wait(join, timeout_ns, false, NULL, 0);
}

int64_t numio_join_try(struct numio_join **join)
{
    int rc = check(join, NULL, 0);
    if (rc < 0)
        return rc;
    if (!is_complete(task_of(*join)))
        return -EAGAIN;
    return take_result(join, NULL, 0);
}

/* Stores the polling task as the join's waker.  True: it will be woken. */
static bool register_poller(struct nio_task *task, struct nio_task *poller)
{
    uint64_t state = nio_state_load(task);
    if (state & NIO_STATE_COMPLETE)
        return false;
    if (state & NIO_STATE_JOIN_WAKER) {
        /* Only the handle's holder writes the field, and that is the caller. */
        uintptr_t old = nio_state_join_waker(task);
        if (old == nio_join_waker_of_task(poller))
            return true;
        if (!nio_state_unset_join_waker(task))
            return false;
        nio_join_waker_drop(old);
    }
    nio_state_ref(poller);
    if (nio_state_set_join_waker(task, nio_join_waker_of_task(poller)))
        return true;
    nio_task_unref(poller);
    return false;
}

enum numio_poll numio_join_poll(struct numio_join **join, struct numio_context *cx,
                                void *ret_output, size_t output_size, int64_t *ret_result)
{
    int rc = check(join, ret_output, output_size);
    struct nio_task *task = rc == 0 ? task_of(*join) : NULL;
    if (task == cx->_task)
        rc = nio_error(-EDEADLK, "join: the task joins itself");
    if (rc < 0) {
        *ret_result = rc;
        return NUMIO_READY;
    }
    struct nio_worker *worker = nio_worker_current();
    if (worker && nio_budget_is_spent(&worker->budget)) {
        /* The coop budget is used up: comes back after the others had a turn. */
        cx->_task->flags |= NIO_TASK_YIELDED;
        return NUMIO_PENDING;
    }
    if (worker)
        nio_run_joined(worker, task);
    if (register_poller(task, cx->_task))
        return NUMIO_PENDING;
    if (worker)
        nio_budget_spend(&worker->budget);
    *ret_result = take_result(join, ret_output, output_size);
    return NUMIO_READY;
}

/* ---- as an operation ----------------------------------------------------------------------- */

static bool join_begin(struct numio_op *op, int32_t *ret_result)
{
    struct nio_task *task = nio_wait_object(op);
    *ret_result = -EBUSY;
    if ((nio_state_load(task) & NIO_STATE_JOIN_WAKER) && !is_complete(task))
        return true;
    if (!is_complete(task) && nio_state_set_join_waker(task, nio_join_waker_of_wait(op)))
        return false;
    *ret_result = nio_wait_claim(op) ? 0 : -ECANCELED;
    return true;
}

static bool join_leave(struct numio_op *op)
{
    return nio_state_unset_join_waker(nio_wait_object(op));
}

static const struct nio_wait_class join_kind = { join_begin, join_leave, NULL };

void numio_op_join(struct numio_op *op, struct numio_join *join)
{
    nio_wait_prep(op, &join_kind, task_of(join), 0);
}

bool numio_join_is_finished(const struct numio_join *join)
{
    return is_complete(task_of(join));
}

void numio_join_abort(struct numio_join *join)
{
    struct nio_task *task = task_of(join);
    nio_wake_act(task, nio_state_cancel(task));
}

void numio_join_detach(struct numio_join **join)
{
    if (!join || !*join)
        return;
    struct nio_task *task = task_of(*join);
    *join = NULL;
    if ((nio_state_load(task) & NIO_STATE_JOIN_WAKER) && !is_complete(task)) {
        uintptr_t waker = nio_state_join_waker(task);
        if (nio_state_unset_join_waker(task))
            nio_join_waker_drop(waker);
    }
    if (nio_state_drop_join(task))
        task->scheduler->release(task->scheduler, task);
}

struct numio_abort *numio_join_abort_handle(struct numio_join *join)
{
    nio_state_ref(task_of(join));
    return (struct numio_abort *)join;
}

void numio_abort_task(struct numio_abort *abort)
{
    numio_join_abort((struct numio_join *)abort);
}

void numio_abort_drop(struct numio_abort *abort)
{
    if (abort)
        nio_task_unref(task_of((struct numio_join *)abort));
}

struct numio_task_meta numio_join_meta(const struct numio_join *join)
{
    return nio_task_meta(task_of(join));
}
