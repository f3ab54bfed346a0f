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

#include "runtime/driver/driver.h"

enum nio_parker_state {
    NIO_PARKER_EMPTY = 0,
    NIO_PARKER_NOTIFIED,
    NIO_PARKER_FUTEX,
    NIO_PARKER_DRIVER
};

struct nio_parker {
    NIO_CACHE_ALIGNED _Atomic uint32_t state;
};

static inline void nio_parker_init(struct nio_parker *parker)
{
    atomic_init(&parker->state, NIO_PARKER_EMPTY);
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

/* Any thread.  Returns true if the owner was asleep, that is, if it cost a system call. */
bool nio_parker_unpark(struct nio_parker *parker, struct nio_driver *driver);

#endif
