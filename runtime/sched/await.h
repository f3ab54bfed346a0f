/* SPDX-License-Identifier: MIT */
/* sched/await.h: how the code of a task waits: suspension of the running coroutine, the coop
 * budget, and the list of a future's operations.  The running task only.
 */
#ifndef NIO_SCHED_AWAIT_H
#define NIO_SCHED_AWAIT_H

#include <numio/deadline.h>

#include "runtime/sched/worker.h"
#include "runtime/task/op_done.h"
#include "runtime/task/state.h"

/* The coroutine that the calling worker runs, NULL outside of one; takes NULL. */
static inline struct nio_co *nio_co_of(const struct nio_worker *worker)
{
    if (NIO_UNLIKELY(!worker))
        return NULL;
    /* relaxed: written by this thread */
    struct nio_task *task = atomic_load_explicit(&worker->current, memory_order_relaxed);
    if (NIO_UNLIKELY(!task || task->kind != NIO_TASK_COROUTINE))
        return NULL;
    return NIO_CONTAINER_OF(task, struct nio_co, task);
}
/* The running coroutine, NULL outside of one. */
struct nio_co *nio_co_current(void);
/* Suspends the running coroutine until it is woken.  Inlined, because a return address that was
 * pushed on one stack and is popped on another is mispredicted, once for each call in between. */
static NIO_ALWAYS_INLINE void nio_co_suspend(struct nio_co *co)
{
    nio_coro_switch_out(&co->coro, nio_worker_current()->host);
}
/* Has the running coroutine go on at a worker, where it stays at least until it suspends again.
 * Costs nothing where it is there already. */
void nio_co_go_to(struct nio_co *co, unsigned worker);
/* Spends one unit of the coop budget; lets others run first when it is used up. */
void nio_co_charge(struct nio_co *co);
/* The same for what runs, if that is a coroutine; on other threads it does nothing. */
NIO_COLD void nio_charge_spent(void);
static inline void nio_charge(void)
{
    struct nio_worker *worker = nio_worker_current();
    if (NIO_UNLIKELY(!worker))
        return;
    if (NIO_UNLIKELY(nio_budget_is_spent(&worker->budget)))
        nio_charge_spent();
    else
        nio_budget_spend(&worker->budget);
}

/* Why the coroutine should not begin to wait: -ECANCELED, -ETIMEDOUT, or 0. */
NIO_COLD int nio_co_stop_late(const struct nio_co *co);
static NIO_ALWAYS_INLINE int nio_co_stop(const struct nio_co *co)
{
    bool may_stop = nio_state_is_stopped(&co->task) || co->deadline;
    return NIO_UNLIKELY(may_stop) ? nio_co_stop_late(co) : 0;
}

/* A scope of the running coroutine that ends at that time. */
void nio_deadline_push_until(struct nio_co *co, struct numio_deadline *deadline, uint64_t at_ns);
/* Deadline scopes of a plain thread: sched/deadline_thread.c.  The last: when its innermost scope
 * ends, UINT64_MAX without one. */
int nio_thread_deadline_push(struct numio_deadline *deadline, uint64_t timeout_ns);
bool nio_thread_deadline_is(const struct numio_deadline *deadline);
void nio_thread_deadline_end(const struct numio_deadline *deadline);
int nio_thread_deadline_pop(const struct numio_deadline *deadline);
uint64_t nio_thread_deadline_ns(void);

/* Whether the driver of the calling worker can do it; true outside of the workers, where it fails
 * for another reason. */
bool nio_knows_op(const struct numio_op *op);
/* Says how long the submissions of this tick may wait for others. */
void nio_set_flush_cost(struct nio_worker *worker, const struct numio_op *op);
/* Where an operation has to be submitted that has a relation to others, or a direct descriptor: the
 * coroutine goes there.   Errors: -EINVAL it has relations and `is_alone`; -EBADF no such worker.
 */
NIO_COLD int nio_co_go_to_ring(struct nio_co *co, const struct numio_op *op, bool is_alone);
/* The running task, which has seen the operation end: if that has closed a direct descriptor, the
 * entry of its table is free again. */
void nio_direct_note_close(const struct numio_op *op);
/* Owner of a batch's ring: asks the kernel to end what is left of it. */
void nio_batch_send_cancel(struct nio_worker *worker, struct numio_op *member);
/* The same of a selection: sched/select.c. */
void nio_choice_send_cancel(struct nio_worker *worker, struct nio_choice *choice);
/* Owner of the operation's ring, or of a wait that has none: asks the kernel to end it, and its
 * batch with it. */
void nio_op_send_cancel(struct nio_worker *worker, struct numio_op *op);
/* Takes an ended operation off its future's list. */
void nio_op_unlink(struct nio_task *task, struct numio_op *op);

#endif
