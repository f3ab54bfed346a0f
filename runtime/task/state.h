/* SPDX-License-Identifier: MIT */
/* task/state.h: the task's state word and every transition of it.
 *
 * The lowest two bits count wakes:
 *   0  the task waits: nobody but the holders of references knows it
 *   1  it is queued or being polled: one thread, or the queue it stands in, owns it
 *   2  the same, and it has been woken again since it was last taken from a queue
 * Whoever makes it 1 owns the task from then on and queues it; popping it changes nothing, unless
 * it is 2.  So a wake and the poll that follows cost two read-modify-writes: 0 to 1 by the waker, 1
 * to 0 after the poll.
 *
 * Bits: COMPLETE   it has ended; the result may be read, nothing else ever changes but references
 *       JOIN_INTEREST  a join handle exists
 *       JOIN_WAKER     nio_task.join_waker is set and the completer may read it
 *       CANCELLED  somebody asked it to end
 *       OP_DONE    the operation a coroutine waits for has ended while the task was owned (set with
 *                  a second wake); the owner of a task that waited notes it in the task's flags
 *       WAKER_MOVED    a join waker has been taken back at least once
 *       ON_POOL    a blocking function runs
 *       LATE       a deadline of the coroutine has passed: sched/deadline.c
 *       MEMBER     the task belongs to a group: task/group.h
 *       ERRAND     one of the coroutine's scopes wants something of it: sched/scopes.c
 * and above them the reference count.
 *
 * Who may set what: any thread wakes, cancels, sets OP_DONE, LATE and ERRAND; the running coroutine
 * clears LATE; the owner clears ERRAND and ends the poll or the task; MEMBER is constant; the
 * holder of the join handle owns JOIN_INTEREST, JOIN_WAKER and WAKER_MOVED while the task is not
 * complete.
 *
 * Every wake of a task that is not complete is a read-modify-write even when it changes nothing:
 * only so does the next poll see what the waker wrote before.
 */
#ifndef NIO_TASK_STATE_H
#define NIO_TASK_STATE_H

#include "runtime/base/assert.h"
#include "runtime/task/task.h"

#define NIO_STATE_WAKE UINT64_C(1)  /* one wake */
#define NIO_STATE_WAKES UINT64_C(3) /* their count: 0, 1 or 2 */
#define NIO_STATE_TWICE (2 * NIO_STATE_WAKE)
#define NIO_STATE_COMPLETE (UINT64_C(1) << 2)
#define NIO_STATE_JOIN_INTEREST (UINT64_C(1) << 3)
#define NIO_STATE_JOIN_WAKER (UINT64_C(1) << 4)
#define NIO_STATE_CANCELLED (UINT64_C(1) << 5)
#define NIO_STATE_OP_DONE (UINT64_C(1) << 6)
#define NIO_STATE_WAKER_MOVED (UINT64_C(1) << 7)
#define NIO_STATE_ON_POOL (UINT64_C(1) << 8)
#define NIO_STATE_LATE (UINT64_C(1) << 9)
#define NIO_STATE_MEMBER (UINT64_C(1) << 10)
#define NIO_STATE_ERRAND (UINT64_C(1) << 11)
#define NIO_STATE_REF (UINT64_C(1) << 12) /* one reference */

enum nio_wake_action {
    NIO_WAKE_NOTHING = 0, /* somebody else owns it, or it has ended */
    NIO_WAKE_QUEUE,       /* the caller must queue the task */
    NIO_WAKE_RELEASE      /* the caller dropped the last reference: release the cell */
};

/* The word of a task that is about to be queued for the first time. */
static inline uint64_t nio_state_initial(bool has_join)
{
    uint64_t join = has_join ? NIO_STATE_JOIN_INTEREST | NIO_STATE_REF : 0;
    return (NIO_STATE_WAKE | NIO_STATE_REF) + join;
}

/* The same of a member of a group, which holds a reference and stands in place of a join waker. */
static inline uint64_t nio_state_initial_member(void)
{
    return NIO_STATE_WAKE + 2 * NIO_STATE_REF + (NIO_STATE_JOIN_WAKER | NIO_STATE_MEMBER);
}

static inline uint64_t nio_state_refs(uint64_t state)
{
    return state / NIO_STATE_REF;
}

/* The part of nio_state_start() for a task that was woken again before it was popped. */
uint64_t nio_state_start_again(struct nio_task *task, uint64_t seen);
/* The popper of a queued task takes it: what has woken it until now is answered by this poll.
 * Returns the state, whose CANCELLED and OP_DONE the caller heeds. */
static inline uint64_t nio_state_start(struct nio_task *task)
{
    /* relaxed: what the first waker and the last poll wrote has come with the queue, and a second
     * wake is acquired below */
    uint64_t state = atomic_load_explicit(&task->state, memory_order_relaxed);
    NIO_DEBUG_ASSERT((state & NIO_STATE_WAKES) && !(state & NIO_STATE_COMPLETE));
    if (NIO_UNLIKELY(state & (NIO_STATE_TWICE | NIO_STATE_OP_DONE)))
        state = nio_state_start_again(task, state);
    if (task->flags & NIO_TASK_OP_DONE) {
        task->flags &= (uint8_t)~NIO_TASK_OP_DONE;
        state |= NIO_STATE_OP_DONE;
    }
    return state;
}

/* Keeps a task that waits from running, for a look at what is the running task's; ends with
 * nio_state_idle().  False: it does not just wait. */
NIO_NODISCARD bool nio_state_hold(struct nio_task *task);
/* The poll returned pending and the caller gives the task up, unless it was woken meanwhile.  True:
 * it was, and the caller still owns it and must queue it again. */
static inline bool nio_state_idle(struct nio_task *task)
{
    /* [TS3] acq_rel: hands the task's memory to the next owner, whose first wake pairs with it
     * [TS1]; acquire, since a caller that requeues acts on the waker's behalf. */
    uint64_t old = atomic_fetch_sub_explicit(&task->state, NIO_STATE_WAKE, memory_order_acq_rel);
    NIO_DEBUG_ASSERT(old & NIO_STATE_WAKES);
    return (old & NIO_STATE_TWICE) != 0;
}

/* The part of nio_state_complete() for a waker that was replaced. */
bool nio_state_complete_moved(struct nio_task *task, uintptr_t *ret_waker);
/* The part for a member of a group, whose word was `seen`. */
bool nio_state_complete_member(struct nio_task *task, uint64_t seen, uintptr_t *ret_waker);
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
        NIO_DEBUG_ASSERT((old & NIO_STATE_WAKES) && !(old & NIO_STATE_COMPLETE));
        if (NIO_UNLIKELY(old & (NIO_STATE_WAKER_MOVED | NIO_STATE_MEMBER)))
            return old & NIO_STATE_MEMBER ? nio_state_complete_member(task, old, ret_waker)
                                          : nio_state_complete_moved(task, ret_waker);
        waker = 0;
        if (old & NIO_STATE_JOIN_WAKER)
            /* relaxed: [TS6] made it visible; if it is taken back meanwhile, the CAS fails */
            waker = atomic_load_explicit(&task->join_waker, memory_order_relaxed);
        new = (old & ~NIO_STATE_WAKES) | NIO_STATE_COMPLETE;
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
/* The wake of a coroutine's finished operation: the next nio_state_start() returns OP_DONE. */
NIO_NODISCARD enum nio_wake_action nio_state_wake_op_done(struct nio_task *task);
/* An abort by a holder of a reference: sets CANCELLED and wakes. */
NIO_NODISCARD enum nio_wake_action nio_state_cancel(struct nio_task *task);
/* The same by the owner of the cell's stripe, who holds no reference: leaves a free cell and a
 * complete task alone. */
NIO_NODISCARD enum nio_wake_action nio_state_cancel_owned(struct nio_task *task);
/* A deadline has passed: sets LATE and wakes.  The worker that has the timer. */
NIO_NODISCARD enum nio_wake_action nio_state_wake_late(struct nio_task *task);
/* A scope of the coroutine wants its attention: sets ERRAND and wakes.  A member of the scope,
 * which cannot be closed meanwhile. */
NIO_NODISCARD enum nio_wake_action nio_state_wake_errand(struct nio_task *task);
/* The owner, who is about to do what is wanted. */
static inline void nio_state_clear_errand(struct nio_task *task)
{
    /* relaxed: what the waker wrote has come with its wake; a later one sets it again */
    (void)atomic_fetch_and_explicit(&task->state, ~NIO_STATE_ERRAND, memory_order_relaxed);
}
/* The running coroutine, which has the struck timer back. */
static inline void nio_state_clear_late(struct nio_task *task)
{
    /* relaxed: [DL1] has ordered what set it */
    (void)atomic_fetch_and_explicit(&task->state, ~NIO_STATE_LATE, memory_order_relaxed);
}

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

/* A blocking function begins.  Returns the state before, whose CANCELLED the caller heeds. */
static inline uint64_t nio_state_start_on_pool(struct nio_task *task)
{
    /* [TS2] acquire: as in nio_state_start() */
    return atomic_fetch_or_explicit(&task->state, NIO_STATE_ON_POOL, memory_order_acquire);
}

/* Whether somebody asked the task to end, as far as this thread has heard. */
static inline bool nio_state_is_cancelled(const struct nio_task *task)
{
    /* relaxed: a hint; whoever missed it is woken by the abort and looks again */
    return (atomic_load_explicit(&task->state, memory_order_relaxed) & NIO_STATE_CANCELLED) != 0;
}

/* Whether the running coroutine should stop waiting, for either reason. */
static inline bool nio_state_is_stopped(const struct nio_task *task)
{
    /* relaxed: as above */
    return (atomic_load_explicit(&task->state, memory_order_relaxed) &
            (NIO_STATE_CANCELLED | NIO_STATE_LATE)) != 0;
}

/* What a thread that holds a reference may know: sees the result once COMPLETE is set. */
static inline uint64_t nio_state_load(const struct nio_task *task)
{
    /* [TS5] acquire: with COMPLETE comes the result.  Pairs with [TS4]. */
    return atomic_load_explicit(&task->state, memory_order_acquire);
}

#endif
