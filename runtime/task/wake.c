/* SPDX-License-Identifier: MIT */
/* Wakers, public and internal.  They hold a reference to the task; everything else is in
 * state.c. */
#include "runtime/task/wake.h"

#include <errno.h>

#include "runtime/base/futex.h"
#include "runtime/task/wait.h"

_Thread_local const struct nio_schedule *nio_current_schedule;

static struct numio_op *wait_of(uintptr_t waker)
{
    return (struct numio_op *)(waker - NIO_JOIN_WAKER_WAIT);
}

void nio_join_waker_wake(uintptr_t waker, const struct nio_schedule *by)
{
    if (NIO_UNLIKELY((waker & NIO_JOIN_WAKER_TAGS) == NIO_JOIN_WAKER_WAIT)) {
        struct numio_op *op = wait_of(waker);
        nio_wait_done(op, nio_wait_claim(op) ? 0 : -ECANCELED);
        return;
    }
    if (waker & NIO_JOIN_WAKER_THREAD) {
        struct nio_thread_waiter *waiter =
            (struct nio_thread_waiter *)(waker - NIO_JOIN_WAKER_THREAD);
        /* [WK1] release: the waiter sees the result.  Pairs with [WK2] in sched/join.c.  The
         * waiter may be gone after this store: the wake below then finds nobody at that address,
         * or somebody else, whom every futex user must expect. */
        atomic_store_explicit(&waiter->is_woken, 1, memory_order_release);
        nio_futex_wake(&waiter->is_woken, 1);
        return;
    }
    struct nio_task *task = (struct nio_task *)waker;
    if (NIO_LIKELY(task->scheduler == by)) {
        nio_wake_act(task, nio_state_wake_by_value(task));
        return;
    }
    /* Another runtime, which may end as soon as the task is queued: see numio_waker_wake(). */
    nio_wake_act(task, nio_state_wake_by_ref(task));
    nio_task_unref(task);
}

void nio_join_waker_drop(uintptr_t waker)
{
    if ((waker & NIO_JOIN_WAKER_TAGS) == NIO_JOIN_WAKER_WAIT)
        nio_wait_done(wait_of(waker), -ECANCELED);
    else if (!(waker & NIO_JOIN_WAKER_THREAD))
        nio_task_unref((struct nio_task *)waker);
}

struct numio_waker numio_context_waker(struct numio_context *cx)
{
    nio_state_ref(cx->_task);
    return (struct numio_waker){ cx->_task };
}

struct numio_waker numio_waker_clone(const struct numio_waker *waker)
{
    if (waker->_task)
        nio_state_ref(waker->_task);
    return *waker;
}

NIO_NOINLINE void numio_waker_wake(struct numio_waker *waker)
{
    struct nio_task *task = waker->_task;
    waker->_task = NULL;
    if (!task)
        return;
    if (NIO_LIKELY(task->scheduler == nio_current_schedule)) {
        nio_wake_act(task, nio_state_wake_by_value(task));
        return;
    }
    /* The reference is kept until the task is queued: on a thread that is no worker it is what
     * keeps the runtime's memory there, if the woken task turns out to be the last. */
    nio_wake_act(task, nio_state_wake_by_ref(task));
    nio_task_unref(task);
}

void numio_waker_wake_by_ref(const struct numio_waker *waker)
{
    if (waker->_task)
        nio_wake_act(waker->_task, nio_state_wake_by_ref(waker->_task));
}

void numio_waker_drop(struct numio_waker *waker)
{
    struct nio_task *task = waker->_task;
    waker->_task = NULL;
    if (task)
        nio_task_unref(task);
}
