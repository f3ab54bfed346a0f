/* SPDX-License-Identifier: MIT */
/* The event: two bits and a queue.
 *
 * Bit 0, SET.  Bit 1, WAITS: somebody is in the queue, and SET is not set.
 *
 * Waiting for one that is set is a load; setting and resetting are one CAS or RMW.  WAITS is set
 * and cleared under the queue's lock only, and while it is set SET is set under that lock only, by
 * who takes all waits out.  A waiter sets WAITS before it looks at SET [EV1].
 *
 * SET becomes visible either by the setter's last access, or while somebody is in the queue, who
 * ends only after the setter has let go of the lock.  So the memory may be freed by who has seen
 * the event set, once nobody else waits for it.
 */
#include <numio/sync.h>

#include <errno.h>
#include <stdatomic.h>

#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

enum { SET = 1, WAITS = 2 };

static _Atomic uint32_t *state_of(const struct numio_event *event)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint32_t *)(uintptr_t)&event->_state;
}

static bool wait_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_event *event = nio_wait_object(op);
    nio_wait_queue_acquire(&event->_waits);
    /* [EV1] acquire: if it is set, sees what the setter did.  Pairs with [EV3]. */
    bool is_set = atomic_fetch_or_explicit(state_of(event), WAITS, memory_order_acquire) & SET;
    if (is_set)
        /* relaxed: nobody waits, and SET stays */
        (void)atomic_fetch_and_explicit(state_of(event), ~(uint32_t)WAITS, memory_order_relaxed);
    else
        nio_wait_push(&event->_waits, op);
    nio_wait_queue_release(&event->_waits);
    *ret_result = is_set && nio_wait_claim(op) ? 0 : -ECANCELED;
    return is_set;
}

static bool wait_leave(struct numio_op *op)
{
    struct numio_event *event = nio_wait_object(op);
    nio_wait_queue_acquire(&event->_waits);
    bool is_mine = nio_wait_remove(&event->_waits, op);
    if (is_mine && nio_wait_queue_is_empty(&event->_waits))
        /* relaxed: who sets it meanwhile either finds WAITS, and comes under this lock, or not */
        (void)atomic_fetch_and_explicit(state_of(event), ~(uint32_t)WAITS, memory_order_relaxed);
    nio_wait_queue_release(&event->_waits);
    return is_mine;
}

static const struct nio_wait_class event_kind = { wait_begin, wait_leave, NULL };

void numio_event_init(struct numio_event *event)
{
    *event = (struct numio_event)NUMIO_EVENT_INIT;
}

void numio_op_event_wait(struct numio_op *op, struct numio_event *event)
{
    nio_wait_prep(op, &event_kind, event, 0);
}

bool numio_event_is_set(const struct numio_event *event)
{
    /* [EV2] acquire: sees what the setter did before.  Pairs with [EV3]. */
    return atomic_load_explicit(state_of(event), memory_order_acquire) & SET;
}

static NIO_NOINLINE int wait_slow(struct numio_event *event)
{
    struct numio_op op;
    numio_op_event_wait(&op, event);
    return nio_wait_await(&op);
}

int numio_event_wait(struct numio_event *event)
{
    nio_charge();
    return NIO_LIKELY(numio_event_is_set(event)) ? 0 : wait_slow(event);
}

/* False: nobody waits any more, WAITS has been cleared. */
static NIO_NOINLINE bool set_and_wake(struct numio_event *event)
{
    struct nio_wait_list ended = { 0 };
    nio_wait_queue_acquire(&event->_waits);
    bool waited = !nio_wait_queue_is_empty(&event->_waits);
    nio_wait_take_all(&event->_waits, &ended, 0);
    if (waited)
        /* [EV3] release: what the caller did.  Pairs with [EV1], [EV2]. */
        atomic_store_explicit(state_of(event), SET, memory_order_release);
    nio_wait_queue_release(&event->_waits);
    nio_wait_list_done(&ended);
    return waited;
}

/* The same where nobody waits.  False: somebody does. */
static bool set_at_once(struct numio_event *event)
{
    /* relaxed: the CAS below re-reads it */
    uint32_t old = atomic_load_explicit(state_of(event), memory_order_relaxed);
    do {
        if (old & WAITS)
            return false;
        /* [EV3] release: what the caller did, also if it is set already.  Pairs with [EV1], [EV2].
         * relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(state_of(event), &old, old | SET,
                                                    memory_order_release, memory_order_relaxed));
    return true;
}

void numio_event_set(struct numio_event *event)
{
    while (!set_at_once(event) && !set_and_wake(event)) {
        /* as long as others come and go */
    }
}

void numio_event_reset(struct numio_event *event)
{
    /* [EV2] acquire: the caller, who now looks again at what the event is about, sees what those
     * did whose setting it has undone.  Pairs with [EV3]. */
    (void)atomic_fetch_and_explicit(state_of(event), ~(uint32_t)SET, memory_order_acquire);
}
