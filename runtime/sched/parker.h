/* SPDX-License-Identifier: MIT */
/* sched/parker.h: one worker's sleep and its wake.
 *
 * States: EMPTY     awake, no wake pending
 *         NOTIFIED  a wake is pending; the next park returns at once
 *         FUTEX     asleep on the futex word itself: nothing of this worker is in flight
 *         DRIVER    asleep in its ring, where completions wake it too
 * The owner goes EMPTY -> FUTEX or DRIVER and back to EMPTY; any thread goes to NOTIFIED, and
 * whoever finds FUTEX or DRIVER there makes the system call.  While the owner is awake (it may be
 * spinning) a wake is one exchange and no system call.
 *
 * No wake is lost: unpark's exchange and park's CAS are on one word.  What the waker wrote before
 * is seen after the park by [PK1]/[PK2].
 */
#ifndef NIO_SCHED_PARKER_H
#define NIO_SCHED_PARKER_H

#include <stdatomic.h>

#include "runtime/base/mpsc.h"
#include "runtime/driver/driver.h"

enum nio_parker_state {
    NIO_PARKER_EMPTY = 0,
    NIO_PARKER_NOTIFIED,
    NIO_PARKER_FUTEX,
    NIO_PARKER_DRIVER
};

struct nio_parker {
    _Atomic uint32_t state; /* any thread, RMW */
};

static inline void nio_parker_init(struct nio_parker *parker)
{
    atomic_init(&parker->state, NIO_PARKER_EMPTY);
}

/* Any thread: whether a wake is pending, a moment ago. */
static inline bool nio_parker_has_wake(const struct nio_parker *parker)
{
    /* relaxed: who must not miss it is ordered with the waker by a lock */
    return atomic_load_explicit(&parker->state, memory_order_relaxed) == NIO_PARKER_NOTIFIED;
}

/* Owner: consumes a pending wake.  Cheap enough for a spin loop. */
static inline bool nio_parker_consume(struct nio_parker *parker)
{
    /* relaxed: a look before the RMW */
    if (atomic_load_explicit(&parker->state, memory_order_relaxed) != NIO_PARKER_NOTIFIED)
        return false;
    /* [PK1] acquire: sees what the waker wrote.  Pairs with [PK2]. */
    (void)atomic_exchange_explicit(&parker->state, NIO_PARKER_EMPTY, memory_order_acquire);
    return true;
}

/* Owner: sleeps until unparked or `timeout_ns` passed (negative: no limit); with operations in
 * flight also until a completion.  May return without any of these. */
void nio_parker_park(struct nio_parker *parker, struct nio_driver *driver, int64_t timeout_ns);

/* The same, but does not sleep if `mailbox` has something once the sleep is announced.  With this a
 * sender may skip the wake of an owner that nio_parker_is_awake(): either the sender sees the
 * announcement, or the owner sees what was sent. */
void nio_parker_park_unless(struct nio_parker *parker, struct nio_driver *driver,
                            int64_t timeout_ns, const struct nio_mpsc *mailbox);

/* Any thread, after a seq_cst push to the mailbox of the owner, who parks only by
 * nio_parker_park_unless(). */
static inline bool nio_parker_is_awake(const struct nio_parker *parker)
{
    /* [PK4] seq_cst: must not pass the push before it.  Pairs with [PK3], after which the owner
     * looks at its mailbox by [BM2]. */
    uint32_t state = atomic_load_explicit(&parker->state, memory_order_seq_cst);
    return state == NIO_PARKER_EMPTY || state == NIO_PARKER_NOTIFIED;
}

/* Any thread.  Returns true if the owner was asleep, that is, if it cost a system call. */
bool nio_parker_unpark(struct nio_parker *parker, struct nio_driver *driver);

#endif
