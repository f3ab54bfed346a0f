/* SPDX-License-Identifier: MIT */
/* The design note stands in state.h, and so do, to be inlined, the transitions of every poll. Every
 * transition is one read-modify-write where the new word does not depend on the old one, else a CAS
 * loop; a CAS fails only because another thread succeeded, so the loops are lock-free.  A waker's
 * loop asks for the line to write it before it reads it: else a line that another core has would
 * travel twice.
 *
 * Orders: the end of a poll releases the task's memory ([TS3]) to whoever wakes it first ([TS1]),
 * who owns it from then on and passes it to its next worker through a queue; a later wake releases
 * what its waker wrote to the next popper ([TS2]) or to the end of the poll ([TS3]); completion
 * releases the result ([TS4]) to whoever loads COMPLETE ([TS5]).
 *
 * The join waker: a completer reads the field before its CAS, because after it the joiner may free
 * the cell.  That is sound only while the word cannot return to the value that was loaded, that is
 * as long as the first waker stands there: taking it back sets WAKER_MOVED for good.  From then on
 * the completer first sets COMPLETE, which freezes the field, reads it, and only then drops its
 * reference.
 */
#include "runtime/task/state.h"

#include "runtime/base/assert.h"

uint64_t nio_state_start_again(struct nio_task *task, uint64_t seen)
{
    uint64_t again = seen & NIO_STATE_TWICE ? NIO_STATE_WAKE : 0;
    uint64_t done = seen & NIO_STATE_OP_DONE;
    /* [TS2] acquire: pairs with [TS1] */
    uint64_t old = atomic_fetch_sub_explicit(&task->state, again + done, memory_order_acquire);
    if (NIO_UNLIKELY((old & NIO_STATE_OP_DONE) != done))
        /* It came in between, with a wake that this poll answers, too.  relaxed: the one operation
         * that could set it has ended, and [TS2] has seen it */
        (void)atomic_fetch_and_explicit(&task->state, ~NIO_STATE_OP_DONE, memory_order_relaxed);
    return old;
}

bool nio_state_hold(struct nio_task *task)
{
    /* relaxed: the CAS below re-reads it */
    uint64_t old = atomic_load_explicit(&task->state, memory_order_relaxed);
    do {
        /* 0: a free cell */
        if (old == 0 || (old & (NIO_STATE_WAKES | NIO_STATE_COMPLETE)))
            return false;
        /* [TS1] acquire: sees what the last poll wrote.  Pairs with [TS3].  relaxed on failure:
         * retried. */
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &old, old + NIO_STATE_WAKE,
                                                    memory_order_acquire, memory_order_relaxed));
    return true;
}

/* The waker has moved before: freezes it by COMPLETE, then reads it, then drops the reference. */
bool nio_state_complete_moved(struct nio_task *task, uintptr_t *ret_waker)
{
    /* relaxed: the CAS below re-reads it */
    uint64_t old = atomic_load_explicit(&task->state, memory_order_relaxed);
    uint64_t new;
    do {
        NIO_DEBUG_ASSERT((old & NIO_STATE_WAKES) && !(old & NIO_STATE_COMPLETE));
        new = (old & ~NIO_STATE_WAKES) | NIO_STATE_COMPLETE;
        /* [TS4] acq_rel: publishes the result to [TS5]; [TS6] acquire: sees the waker stored before
         * [TS7].  relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &old, new, memory_order_acq_rel,
                                                    memory_order_relaxed));
    *ret_waker = 0;
    if (old & NIO_STATE_JOIN_WAKER)
        /* relaxed: [TS6] made it visible, and nobody changes it any more */
        *ret_waker = atomic_load_explicit(&task->join_waker, memory_order_relaxed);
    return nio_state_unref(task);
}

/* A member that nobody but its group can reach needs no read-modify-write: the group reads the word
 * and does not change it until COMPLETE is there, but for an abort, which then is lost on a task
 * that has ended anyway. */
bool nio_state_complete_member(struct nio_task *task, uint64_t seen, uintptr_t *ret_waker)
{
    uint64_t new = (seen & ~NIO_STATE_WAKES) | NIO_STATE_COMPLETE;
    /* relaxed: written at bind */
    *ret_waker = atomic_load_explicit(&task->join_waker, memory_order_relaxed);
    if (NIO_LIKELY(nio_state_refs(seen) == 2)) {
        /* [TS4] release: publishes the result to [TS5].  What other holders did before they let go
         * of the task was acquired with `seen`. */
        atomic_store_explicit(&task->state, new - NIO_STATE_REF, memory_order_release);
        return false;
    }
    /* [TS4] acq_rel: publishes the result to [TS5].  relaxed on failure: retried. */
    while (!atomic_compare_exchange_weak_explicit(&task->state, &seen, new, memory_order_acq_rel,
                                                  memory_order_relaxed))
        new = (seen & ~NIO_STATE_WAKES) | NIO_STATE_COMPLETE;
    return nio_state_unref(task);
}

/* The word after one more wake; the count stays at 2. */
static inline uint64_t woken(uint64_t state)
{
    return state & NIO_STATE_TWICE ? state : state + NIO_STATE_WAKE;
}

/* One wake that also sets the bits of `set`, and those of `set_if_owned` if the task has an owner,
 * and takes `refs` references.  Returns the word before; a complete task loses the references only.
 */
static NIO_ALWAYS_INLINE uint64_t wake(struct nio_task *task, uint64_t set, uint64_t set_if_owned,
                                       uint64_t refs)
{
    nio_prefetch_write(task); /* its first word is the state */
    /* relaxed: the CAS below re-reads it */
    uint64_t old = atomic_load_explicit(&task->state, memory_order_relaxed);
    uint64_t new;
    do {
        NIO_DEBUG_ASSERT(nio_state_refs(old) > 0);
        if (old & NIO_STATE_COMPLETE) {
            if (refs == 0)
                return old;
            new = old - refs *NIO_STATE_REF;
        } else {
            new = (woken(old) | set) - refs *NIO_STATE_REF;
            if (set_if_owned != 0 && (old & NIO_STATE_WAKES))
                new |= set_if_owned;
        }
        /* [TS1] acq_rel: the next poll sees what the caller wrote, pairs with [TS2] and [TS3];
         * acquire, since the caller may go on to queue the memory of the last poll, pairs with
         * [TS3].  Also the release and acquire of a dropped reference, as in nio_state_unref().
         * relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &old, new, memory_order_acq_rel,
                                                    memory_order_relaxed));
    return old;
}

static inline enum nio_wake_action action_of(uint64_t old)
{
    return (old & (NIO_STATE_WAKES | NIO_STATE_COMPLETE)) ? NIO_WAKE_NOTHING : NIO_WAKE_QUEUE;
}

enum nio_wake_action nio_state_wake_by_ref(struct nio_task *task)
{
    return action_of(wake(task, 0, 0, 0));
}

enum nio_wake_action nio_state_wake_op_done(struct nio_task *task)
{
    uint64_t old = wake(task, 0, NIO_STATE_OP_DONE, 0);
    NIO_DEBUG_ASSERT(!(old & (NIO_STATE_COMPLETE | NIO_STATE_OP_DONE)));
    if (old & NIO_STATE_WAKES)
        return NIO_WAKE_NOTHING;
    task->flags |= NIO_TASK_OP_DONE; /* the caller owns the task now */
    return NIO_WAKE_QUEUE;
}

enum nio_wake_action nio_state_cancel(struct nio_task *task)
{
    return action_of(wake(task, NIO_STATE_CANCELLED, 0, 0));
}

enum nio_wake_action nio_state_wake_late(struct nio_task *task)
{
    return action_of(wake(task, NIO_STATE_LATE, 0, 0));
}

enum nio_wake_action nio_state_wake_errand(struct nio_task *task)
{
    return action_of(wake(task, NIO_STATE_ERRAND, 0, 0));
}

enum nio_wake_action nio_state_cancel_owned(struct nio_task *task)
{
    /* relaxed: the CAS below re-reads it */
    uint64_t old = atomic_load_explicit(&task->state, memory_order_relaxed);
    do {
        /* A freer zeroes the word before the cell travels home, so a CAS from a live word cannot
         * succeed on a free cell. */
        if (old == 0 || (old & NIO_STATE_COMPLETE))
            return NIO_WAKE_NOTHING;
        /* [TS1] acq_rel: as in nio_state_wake_by_ref(); pairs with [TS2] and [TS3]; relaxed on
         * failure: retried */
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &old,
                                                    woken(old) | NIO_STATE_CANCELLED,
                                                    memory_order_acq_rel, memory_order_relaxed));
    return action_of(old);
}

enum nio_wake_action nio_state_wake_by_value(struct nio_task *task)
{
    uint64_t old = wake(task, 0, 0, 1);
    if (nio_state_refs(old) == 1)
        return NIO_WAKE_RELEASE; /* complete: a live task holds a reference to itself */
    return action_of(old);
}

void nio_state_ref(struct nio_task *task)
{
    /* relaxed: the caller holds a reference already, a new one publishes nothing */
    (void)atomic_fetch_add_explicit(&task->state, NIO_STATE_REF, memory_order_relaxed);
}

bool nio_state_unref(struct nio_task *task)
{
    /* [TS8] acq_rel: whoever drops the last reference sees what the other holders did with the
     * cell.  Pairs with itself, [TS4] and [TS1] in nio_state_wake_by_value(). */
    uint64_t old = atomic_fetch_sub_explicit(&task->state, NIO_STATE_REF, memory_order_acq_rel);
    NIO_DEBUG_ASSERT(nio_state_refs(old) > 0);
    return nio_state_refs(old) == 1;
}

bool nio_state_set_join_waker(struct nio_task *task, uintptr_t waker)
{
    /* relaxed: published by [TS7] */
    atomic_store_explicit(&task->join_waker, waker, memory_order_relaxed);
    /* relaxed: the CAS below re-reads it */
    uint64_t old = atomic_load_explicit(&task->state, memory_order_relaxed);
    do {
        NIO_DEBUG_ASSERT(!(old & NIO_STATE_JOIN_WAKER));
        if (old & NIO_STATE_COMPLETE)
            return false;
        /* [TS7] release: publishes join_waker to the completer.  Pairs with [TS6].  relaxed on
         * failure: retried, and COMPLETE is acted upon only after nio_state_load(). */
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &old, old | NIO_STATE_JOIN_WAKER,
                                                    memory_order_release, memory_order_relaxed));
    return true;
}

bool nio_state_unset_join_waker(struct nio_task *task)
{
    /* relaxed: the CAS below re-reads it */
    uint64_t old = atomic_load_explicit(&task->state, memory_order_relaxed);
    uint64_t new;
    do {
        NIO_DEBUG_ASSERT(old & NIO_STATE_JOIN_WAKER);
        if (old & NIO_STATE_COMPLETE)
            return false;
        new = (old & ~NIO_STATE_JOIN_WAKER) | NIO_STATE_WAKER_MOVED;
        /* relaxed: taking the own waker back reads nothing; if a completer got in between, the
         * CAS fails */
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &old, new, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

bool nio_state_drop_join_slow(struct nio_task *task)
{
    /* relaxed: the CAS below re-reads it */
    uint64_t old = atomic_load_explicit(&task->state, memory_order_relaxed);
    uint64_t new;
    do {
        NIO_DEBUG_ASSERT(old & NIO_STATE_JOIN_INTEREST);
        new = (old & ~NIO_STATE_JOIN_INTEREST) - NIO_STATE_REF;
        /* [TS8] acq_rel: a dropped reference, as in nio_state_unref(); relaxed on failure */
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &old, new, memory_order_acq_rel,
                                                    memory_order_relaxed));
    return nio_state_refs(new) == 0;
}
