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

#include "runtime/base/assert.h"
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
static inline uint64_t nio_state_start(struct nio_task *task)
{
    /* OP_DONE, once set, is cleared here only.  relaxed: what is not seen yet is cleared below */
    uint64_t done = atomic_load_explicit(&task->state, memory_order_relaxed) & NIO_STATE_OP_DONE;
    /* NOTIFIED is set and RUNNING is not, so that one subtraction turns the one into the other.
     * [TS2] acquire: sees what wakers and the last poll wrote.  Pairs with [TS1] and [TS3]. */
    uint64_t old = atomic_fetch_sub_explicit(
        &task->state, NIO_STATE_NOTIFIED - NIO_STATE_RUNNING + done, memory_order_acquire);
    NIO_DEBUG_ASSERT((old & NIO_STATE_NOTIFIED) && !(old & NIO_STATE_RUNNING) &&
                     !(old & NIO_STATE_COMPLETE));
    if (NIO_UNLIKELY((old & NIO_STATE_OP_DONE) != done))
        /* relaxed: the one operation that could set it has ended, and [TS2] has seen it */
        (void)atomic_fetch_and_explicit(&task->state, ~NIO_STATE_OP_DONE, memory_order_relaxed);
    return old;
}

/* Keeps a task that waits from running, for a look at what is the running task's; ends with
 * nio_state_idle().  False: it does not just wait. */
NIO_NODISCARD bool nio_state_hold(struct nio_task *task);
/* The poll returned pending.  True: the task was notified meanwhile and the caller must queue it
 * again (it is NOTIFIED). */
static inline bool nio_state_idle(struct nio_task *task)
{
    /* [TS3] acq_rel: hands the task's memory to the next worker, pairs with [TS2]; acquire, since
     * a caller that requeues acts on the waker's behalf, pairs with [TS1]. */
    uint64_t old = atomic_fetch_sub_explicit(&task->state, NIO_STATE_RUNNING, memory_order_acq_rel);
    NIO_DEBUG_ASSERT(old & NIO_STATE_RUNNING);
    return (old & NIO_STATE_NOTIFIED) != 0;
}

/* The poll returned pending and the task is to be queued again in any case: RUNNING becomes
 * NOTIFIED, and the caller queues it. */
void nio_state_requeue(struct nio_task *task);
/* The part of nio_state_complete() for a waker that was replaced. */
bool nio_state_complete_moved(struct nio_task *task, uintptr_t *ret_waker);
/* The task has ended; its result is in place.  Drops the task's own reference.  *ret_waker is the
 * join waker if there is one, which the caller now owns, else 0.  True: that was the last
 * reference, the caller releases the cell. */
static inline bool nio_state_complete(struct nio_task *task, uintptr_t *ret_waker)
{
    /* [TS6] acquire: sees the join waker stored before [TS7] set JOIN_WAKER */
    uint64_t old = atomic_load_explicit(&task->state, memory_order_acquire);
    uintptr_t waker;
    uint64_t new;
    do {
        NIO_DEBUG_ASSERT((old & NIO_STATE_RUNNING) && !(old & NIO_STATE_COMPLETE));
        if (NIO_UNLIKELY(old & NIO_STATE_WAKER_MOVED))
            return nio_state_complete_moved(task, ret_waker);
        waker = 0;
        if (old & NIO_STATE_JOIN_WAKER)
            /* relaxed: [TS6] made it visible; if it is taken back meanwhile, the CAS fails */
            waker = atomic_load_explicit(&task->join_waker, memory_order_relaxed);
        new = (old & ~(NIO_STATE_RUNNING | NIO_STATE_NOTIFIED)) | NIO_STATE_COMPLETE;
        new -= NIO_STATE_REF;
        if (nio_state_refs(new) == 0)
            break; /* nobody else can reach the task: no RMW is needed, and no waker can be set */
        /* [TS4] acq_rel: publishes the result to [TS5]; acquire for the last reference, as in
         * nio_state_unref().  [TS6] acquire on failure, as above. */
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &old, new, memory_order_acq_rel,
                                                    memory_order_acquire));
    *ret_waker = waker;
    return nio_state_refs(new) == 0;
}

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
bool nio_state_drop_join_slow(struct nio_task *task);
static inline bool nio_state_drop_join(struct nio_task *task)
{
    /* [TS5] acquire: when this is the last reference the cell is freed right away and needs what
     * the completer wrote.  Pairs with [TS4].  Then only the caller can reach it, and no RMW is
     * needed. */
    uint64_t old = atomic_load_explicit(&task->state, memory_order_acquire);
    return nio_state_refs(old) == 1 || nio_state_drop_join_slow(task);
}

/* Whether somebody asked the task to end, as far as this thread has heard. */
static inline bool nio_state_is_cancelled(const struct nio_task *task)
{
    /* relaxed: a hint; whoever missed it is woken by the abort and looks again */
    return (atomic_load_explicit(&task->state, memory_order_relaxed) & NIO_STATE_CANCELLED) != 0;
}

/* What a thread that holds a reference may know: sees the result once COMPLETE is set. */
static inline uint64_t nio_state_load(const struct nio_task *task)
{
    /* [TS5] acquire: with COMPLETE comes the result.  Pairs with [TS4]. */
    return atomic_load_explicit(&task->state, memory_order_acquire);
}

#endif
