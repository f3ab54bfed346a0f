/* SPDX-License-Identifier: MIT */
/* task/wake.h: what follows from a transition of the state word.  Any thread.
 */
#ifndef NIO_TASK_WAKE_H
#define NIO_TASK_WAKE_H

#include "runtime/task/state.h"

/* The runtime of the worker whose thread this is, NULL on other threads.  Read by functions that
 * are not inlined and do not suspend: a coroutine may go on in another thread. */
extern _Thread_local const struct nio_schedule *nio_current_schedule
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* Queues or releases the task, as the transition said. */
static inline void nio_wake_act(struct nio_task *task, enum nio_wake_action action)
{
    if (action == NIO_WAKE_QUEUE)
        task->scheduler->schedule(task->scheduler, task);
    else if (action == NIO_WAKE_RELEASE)
        task->scheduler->release(task->scheduler, task);
}

static inline void nio_task_unref(struct nio_task *task)
{
    if (nio_state_unref(task))
        task->scheduler->release(task->scheduler, task);
}

/* Join wakers: a task (with a reference), a plain thread that sleeps on a futex word, a wait
 * (task/wait.h), or the group of a member (task/group.h); the lowest two bits tell them apart. */
enum {
    NIO_JOIN_WAKER_THREAD = 1,
    NIO_JOIN_WAKER_WAIT = 2,
    NIO_JOIN_WAKER_GROUP = 3,
    NIO_JOIN_WAKER_TAGS = 3
};

struct nio_thread_waiter {
    _Atomic uint32_t is_woken;
};

static inline uintptr_t nio_join_waker_of_task(struct nio_task *task)
{
    return (uintptr_t)task;
}

static inline uintptr_t nio_join_waker_of_thread(struct nio_thread_waiter *waiter)
{
    return (uintptr_t)waiter | NIO_JOIN_WAKER_THREAD;
}

static inline uintptr_t nio_join_waker_of_wait(struct numio_op *op)
{
    return (uintptr_t)op | NIO_JOIN_WAKER_WAIT;
}

/* Wakes whoever waits for a join and gives up the waker's reference.  `by` is the runtime whose
 * thread this is. */
void nio_join_waker_wake(uintptr_t waker, const struct nio_schedule *by);
/* Gives up the waker's reference without waking; a wait ends with -ECANCELED. */
void nio_join_waker_drop(uintptr_t waker);

#endif
