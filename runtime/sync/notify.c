/* SPDX-License-Identifier: MIT */
/* The notification: two bits and a count in one word, and a queue; after Tokio's Notify.
 *
 * Bit 0, WAITS: somebody is in the queue.  Bit 1, PERMIT: nobody was there when somebody was to be
 * notified; the next wait takes it.  Above them the number of calls of numio_notify_waiters(),
 * which ends also the waits that were prepared before it and have not begun.
 *
 * Without WAITS, notifying and taking a permit are one CAS each.  WAITS is set and cleared under
 * the queue's lock only, and while it is set the word changes under that lock only; there is no
 * permit then.  A waiter sets WAITS before it looks for a permit [NT1], so that a notification is
 * either seen by the look or finds WAITS.
 *
 * A wait's words: ARG the count when it was prepared, ARG2 what has ended it, so that it can be
 * passed on when nobody looks at it.
 */
#include <numio/sync.h>

#include <errno.h>
#include <stdatomic.h>

#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

#define WAITS UINT64_C(1)
#define PERMIT UINT64_C(2)
#define CALL UINT64_C(4) /* one of numio_notify_waiters() */

enum ended_by { BY_ONE, BY_LAST, BY_ALL };

static _Atomic uint64_t *state_of(struct numio_notify *notify)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint64_t *)(uintptr_t)&notify->_state;
}

static uint64_t peek(struct numio_notify *notify)
{
    /* relaxed: a CAS re-reads it, or [NT1] has, or it is a figure to compare */
    return atomic_load_explicit(state_of(notify), memory_order_relaxed);
}

static bool take(struct numio_notify *notify)
{
    uint64_t old = peek(notify);
    do {
        if (!(old & PERMIT) || (old & WAITS))
            return false;
        /* [NT2] acquire: sees what the notifier did before.  Pairs with [NT3].  relaxed on failure:
         * retried. */
    } while (!atomic_compare_exchange_weak_explicit(state_of(notify), &old, old & ~PERMIT,
                                                    memory_order_acquire, memory_order_relaxed));
    return true;
}

/* Under the queue's lock, with WAITS set: nobody else writes. */
static void put(struct numio_notify *notify, uint64_t state)
{
    bool waits = !nio_wait_queue_is_empty(&notify->_waits);
    /* [NT3] release: hands on what [NT1] has brought.  Pairs with [NT1], [NT2]. */
    atomic_store_explicit(state_of(notify), (state & ~WAITS) | (waits ? WAITS : 0),
                          memory_order_release);
}

static bool wait_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_notify *notify = nio_wait_object(op);
    nio_wait_queue_acquire(&notify->_waits);
    /* [NT1] acquire: sees what the notifiers did that had left by now.  Pairs with [NT3]. */
    uint64_t state = atomic_fetch_or_explicit(state_of(notify), WAITS, memory_order_acquire);
    bool was_called = state / CALL != op->_sqe[NIO_WAIT_WORD_ARG];
    bool is_ready = was_called || (state & PERMIT);
    bool is_mine = is_ready && nio_wait_claim(op);
    if (!is_ready)
        nio_wait_push(&notify->_waits, op);
    op->_sqe[NIO_WAIT_WORD_ARG2] = was_called ? BY_ALL : BY_ONE;
    put(notify, is_mine && !was_called ? state & ~PERMIT : state);
    nio_wait_queue_release(&notify->_waits);
    *ret_result = is_mine ? 0 : -ECANCELED;
    return is_ready;
}

static bool wait_leave(struct numio_op *op)
{
    struct numio_notify *notify = nio_wait_object(op);
    nio_wait_queue_acquire(&notify->_waits);
    bool is_mine = nio_wait_remove(&notify->_waits, op);
    if (is_mine)
        put(notify, peek(notify));
    nio_wait_queue_release(&notify->_waits);
    return is_mine;
}

/* Ends the wait at one end of the queue, or leaves a permit for the next.  False: nobody waits any
 * more, WAITS has been cleared. */
static NIO_NOINLINE bool wake_one(struct numio_notify *notify, enum ended_by how)
{
    struct nio_wait_list ended = { 0 };
    struct numio_op *op;
    bool is_given = false;
    nio_wait_queue_acquire(&notify->_waits);
    bool waited = !nio_wait_queue_is_empty(&notify->_waits);
    while (!is_given && (op = how == BY_LAST ? notify->_waits._last : notify->_waits._first)) {
        (void)nio_wait_remove(&notify->_waits, op); /* it is there; bounded by the queue */
        is_given = nio_wait_claim(op);
        op->_sqe[NIO_WAIT_WORD_ARG2] = how;
        nio_wait_list_add(&ended, op, is_given ? 0 : -ECANCELED);
    }
    if (waited)
        put(notify, is_given ? peek(notify) : peek(notify) | PERMIT);
    nio_wait_queue_release(&notify->_waits);
    nio_wait_list_done(&ended);
    return waited;
}

/* Changes the word where nobody waits.  False: somebody does. */
static bool put_at_once(struct numio_notify *notify, uint64_t permit, uint64_t call)
{
    uint64_t old = peek(notify);
    do {
        if (old & WAITS)
            return false;
        /* [NT3] release: what the caller did, also if there is a permit already.  Pairs with [NT1],
         * [NT2].  relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(state_of(notify), &old, (old | permit) + call,
                                                    memory_order_release, memory_order_relaxed));
    return true;
}

static void notify_somebody(struct numio_notify *notify, enum ended_by how)
{
    while (!put_at_once(notify, PERMIT, 0) && !wake_one(notify, how)) {
        /* as long as others come and go */
    }
}

static void wait_give_back(struct numio_op *op)
{
    enum ended_by how = (enum ended_by)op->_sqe[NIO_WAIT_WORD_ARG2];
    if (how != BY_ALL)
        notify_somebody(nio_wait_object(op), how);
}

static const struct nio_wait_class notify_kind = { wait_begin, wait_leave, wait_give_back };

void numio_notify_init(struct numio_notify *notify)
{
    *notify = (struct numio_notify)NUMIO_NOTIFY_INIT;
}

void numio_op_notify(struct numio_op *op, struct numio_notify *notify)
{
    nio_wait_prep(op, &notify_kind, notify, peek(notify) / CALL);
}

static NIO_NOINLINE int wait_slow(struct numio_notify *notify)
{
    struct numio_op op;
    numio_op_notify(&op, notify);
    return nio_wait_await(&op);
}

int numio_notify_wait(struct numio_notify *notify)
{
    nio_charge();
    return take(notify) ? 0 : wait_slow(notify);
}

int numio_notify_try_wait(struct numio_notify *notify)
{
    return take(notify) ? 0 : -EAGAIN;
}

void numio_notify_one(struct numio_notify *notify)
{
    notify_somebody(notify, BY_ONE);
}

void numio_notify_last(struct numio_notify *notify)
{
    notify_somebody(notify, BY_LAST);
}

/* False: nobody waits any more. */
static NIO_NOINLINE bool wake_all(struct numio_notify *notify)
{
    struct nio_wait_list ended = { 0 };
    nio_wait_queue_acquire(&notify->_waits);
    bool waited = !nio_wait_queue_is_empty(&notify->_waits);
    for (struct numio_op *op = notify->_waits._first; op; op = nio_wait_next(op))
        op->_sqe[NIO_WAIT_WORD_ARG2] = BY_ALL;
    nio_wait_take_all(&notify->_waits, &ended, 0);
    if (waited)
        put(notify, peek(notify) + CALL);
    nio_wait_queue_release(&notify->_waits);
    nio_wait_list_done(&ended);
    return waited;
}

void numio_notify_waiters(struct numio_notify *notify)
{
    while (!put_at_once(notify, 0, CALL) && !wake_all(notify)) {
        /* as long as others come and go */
    }
}
