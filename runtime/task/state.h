/* SPDX-License-Identifier: MIT */
/* task/state.h: the task's state word and every transition of it.
 *
 * Bits: RUNNING    one worker polls the task
 *       COMPLETE   it has ended; the result may be read, nothing else ever changes but references
 *       NOTIFIED   it is in a run queue, or, while RUNNING, will be queued again after the poll
 *       JOIN_INTEREST  a join handle exists
 *       JOIN_WAKER     nio_task.join_waker is set and the completer may read it
 *       CANCELLED  somebody asked it to end
 *       OP_DONE    the operation a coroutine waits for has ended (set together with NOTIFIED)
 *       WAKER_MOVED    a join waker has been taken back at least once
 * and above them the reference count.
 *
 * Who may set what: any thread sets NOTIFIED, CANCELLED and OP_DONE; the worker that popped the
 * task sets RUNNING; the worker that runs it clears RUNNING or sets COMPLETE; the holder of the
 * join handle owns JOIN_INTEREST, JOIN_WAKER and WAKER_MOVED while the task is not complete.
 *
 * A task that yields stays RUNNING while it stands in its queue (flag NIO_TASK_QUEUED): its next
 * worker takes it over with the queue, without a transition.  Wakes meanwhile count as wakes during
 * the poll.
 *
 * The thread whose transition leads from "neither RUNNING nor NOTIFIED" to NOTIFIED, and only
 * that one, queues the task.  Every wake is a read-modify-write even when NOTIFIED is set
 * already: only so does the next poll see what the waker wrote before.
 */
#ifndef NIO_TASK_STATE_H
#define NIO_TASK_STATE_H

#include "runtime/task/task.h"

#define NIO_STATE_RUNNING (UINT64_C(1) << 0)
#define NIO_STATE_COMPLETE (UINT64_C(1) << 1)
#define NIO_STATE_NOTIFIED (UINT64_C(1) << 2)
#define NIO_STATE_JOIN_INTEREST (UINT64_C(1) << 3)
#define NIO_STATE_JOIN_WAKER (UINT64_C(1) << 4)
#define NIO_STATE_CANCELLED (UINT64_C(1) << 5)
#define NIO_STATE_OP_DONE (UINT64_C(1) << 6)
#define NIO_STATE_WAKER_MOVED (UINT64_C(1) << 7)
#define NIO_STATE_REF (UINT64_C(1) << 8) /* one reference */

enum nio_wake_action {
    NIO_WAKE_NOTHING = 0, /* somebody else queued it, runs it, or it has ended */
    NIO_WAKE_QUEUE,       /* the caller must queue the task */
    NIO_WAKE_RELEASE      /* the caller dropped the last reference: release the cell */
};

/* The word of a task that is about to be queued for the first time. */
static inline uint64_t nio_state_initial(bool has_join)
{
    uint64_t join = has_join ? NIO_STATE_JOIN_INTEREST | NIO_STATE_REF : 0;
    return (NIO_STATE_NOTIFIED | NIO_STATE_REF) + join;
}

static inline uint64_t nio_state_refs(uint64_t state)
{
    return state / NIO_STATE_REF;
}

/* The popper of a queued task takes it: NOTIFIED (and OP_DONE) become RUNNING.  Returns the
 * state before, whose CANCELLED and OP_DONE the caller heeds. */
uint64_t nio_state_start(struct nio_task *task);
/* The poll returned pending.  True: the task was notified meanwhile and the caller must queue it
 * again (it is NOTIFIED). */
NIO_NODISCARD bool nio_state_idle(struct nio_task *task);
/* The poll returned pending and the task is to be queued again in any case: RUNNING becomes
 * NOTIFIED, and the caller queues it. */
void nio_state_requeue(struct nio_task *task);
/* The task has ended; its result is in place.  Drops the task's own reference.  *ret_waker is the
 * join waker if there is one, which the caller now owns, else 0.  True: that was the last
 * reference, the caller releases the cell. */
NIO_NODISCARD bool nio_state_complete(struct nio_task *task, uintptr_t *ret_waker);

/* A wake; keeps the waker's reference. */
NIO_NODISCARD enum nio_wake_action nio_state_wake_by_ref(struct nio_task *task);
/* A wake that gives up the waker's reference. */
NIO_NODISCARD enum nio_wake_action nio_state_wake_by_value(struct nio_task *task);
/* The wake of a coroutine's finished operation: also sets OP_DONE. */
NIO_NODISCARD enum nio_wake_action nio_state_wake_op_done(struct nio_task *task);
/* An abort by a holder of a reference: sets CANCELLED and wakes. */
NIO_NODISCARD enum nio_wake_action nio_state_cancel(struct nio_task *task);
/* The same by the owner of the cell's stripe, who holds no reference: leaves a free cell and a
 * complete task alone. */
NIO_NODISCARD enum nio_wake_action nio_state_cancel_owned(struct nio_task *task);

void nio_state_ref(struct nio_task *task);
/* True: that was the last reference. */
NIO_NODISCARD bool nio_state_unref(struct nio_task *task);

/* The joiner leaves its waker, where none stands.  False: the task is complete, the waker is still
 * the caller's. */
NIO_NODISCARD bool nio_state_set_join_waker(struct nio_task *task, uintptr_t waker);
/* The joiner takes its waker back.  False: the task is complete; its completer has taken the
 * waker and will wake or has woken it. */
NIO_NODISCARD bool nio_state_unset_join_waker(struct nio_task *task);
/* The waker that the holder of the join handle left; the holder only. */
static inline uintptr_t nio_state_join_waker(const struct nio_task *task)
{
    /* relaxed: written by the caller, or before it got the handle */
    return atomic_load_explicit(&task->join_waker, memory_order_relaxed);
}
/* Ends the join handle: clears JOIN_INTEREST and drops its reference.  True: that was the last
 * reference.  JOIN_WAKER must be clear or the task complete. */
NIO_NODISCARD bool nio_state_drop_join(struct nio_task *task);

/* Whether somebody asked the task to end, as far as this thread has heard. */
static inline bool nio_state_is_cancelled(const struct nio_task *task)
{
    /* relaxed: a hint; whoever missed it is woken by the abort and looks again */
    return (atomic_load_explicit(&task->state, memory_order_relaxed) & NIO_STATE_CANCELLED) != 0;
}

/* What a thread that holds a reference may know: sees the result once COMPLETE is set. */
uint64_t nio_state_load(const struct nio_task *task);

#endif
