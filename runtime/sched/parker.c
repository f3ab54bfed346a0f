/* SPDX-License-Identifier: MIT */
/* The design note stands in parker.h. */
#include "runtime/sched/parker.h"

#include "runtime/base/futex.h"

void nio_parker_park_unless(struct nio_parker *parker, struct nio_driver *driver,
                            int64_t timeout_ns, const struct nio_mpsc *mailbox)
{
    bool in_driver = nio_driver_in_flight(driver) > 0;
    uint32_t sleeping = in_driver ? NIO_PARKER_DRIVER : NIO_PARKER_FUTEX;
    uint32_t state = NIO_PARKER_EMPTY;
    /* [PK1] acquire on failure: a wake is pending, sees what the waker wrote; pairs with [PK2].
     * [PK3] seq_cst on success: unpark must find the announced state, pairs with [PK2]; and the
     * look at the mailbox must not pass it, pairs with [PK4]. */
    if (atomic_compare_exchange_strong_explicit(&parker->state, &state, sleeping,
                                                memory_order_seq_cst, memory_order_acquire) &&
        (!mailbox || nio_mpsc_is_empty(mailbox))) {
        if (in_driver)
            nio_driver_park(driver, timeout_ns);
        else
            (void)nio_futex_wait(&parker->state, NIO_PARKER_FUTEX,
                                 timeout_ns); /* the caller looks around in any case */
    }
    /* [PK1] acquire: as above */
    (void)atomic_exchange_explicit(&parker->state, NIO_PARKER_EMPTY, memory_order_acquire);
}

void nio_parker_park(struct nio_parker *parker, struct nio_driver *driver, int64_t timeout_ns)
{
    nio_parker_park_unless(parker, driver, timeout_ns, NULL);
}

bool nio_parker_unpark(struct nio_parker *parker, struct nio_driver *driver)
{
    /* [PK2] acq_rel: publishes what the waker wrote to [PK1]; acquire to see [PK3] */
    uint32_t state =
        atomic_exchange_explicit(&parker->state, NIO_PARKER_NOTIFIED, memory_order_acq_rel);
    if (state == NIO_PARKER_FUTEX) {
        nio_futex_wake(&parker->state, 1);
        return true;
    }
    if (state == NIO_PARKER_DRIVER) {
        nio_driver_unpark(driver);
        return true;
    }
    return false;
}
