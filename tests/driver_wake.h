/* SPDX-License-Identifier: MIT */
/* tests/driver_wake.h: for tests whose owner leaves all reaping to a sibling.  A sibling stops in
 * front of the owner's wake, which only the owner takes; here it does so without taking anything
 * else.  The owner's thread.  Test programs only.
 */
#ifndef TESTS_DRIVER_WAKE_H
#define TESTS_DRIVER_WAKE_H

#include <sched.h>

#include "runtime/driver/uring.h"

/* Takes the completions at the head of the CQ that are wakes. */
static inline void harness_take_wakes(struct nio_driver *driver)
{
    struct nio_uring *uring = nio_uring_of(driver);
    while (!nio_lock_try(&uring->cq_lock)) /* by try only, as everybody; held for moments */
        (void)sched_yield();               /* cannot fail */
    /* relaxed: under the lock */
    unsigned head = atomic_load_explicit(uring->cq_head, memory_order_relaxed);
    /* [TW1] acquire: as [DU3] in driver_uring.c.  Pairs with the kernel's release. */
    while (head != atomic_load_explicit(uring->cq_tail, memory_order_acquire)) {
        const struct io_uring_cqe *cqe = &uring->cqes[head & uring->cq_mask];
        unsigned tag = cqe->user_data & NIO_TAG_MASK;
        if (tag != NIO_TAG_WAKE && tag != NIO_TAG_MESSAGE)
            break;
        if (tag == NIO_TAG_WAKE && !(cqe->flags & IORING_CQE_F_MORE))
            uring->wake_armed = false;
        head++;
        /* [TW1] release: as [DU4] in driver_uring.c. */
        atomic_store_explicit(uring->cq_head, head, memory_order_release);
    }
    nio_lock_release_tried(&uring->cq_lock);
}

#endif
