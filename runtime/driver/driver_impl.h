/* SPDX-License-Identifier: MIT */
/* driver/driver_impl.h: what the profiles have in common: the wake word, the queue of operations
 * that ended inside the driver, the timers, the counters.  Private to this folder.
 *
 * The wake word says what the owner is doing and remembers one unpark:
 *
 *   AWAKE ----park---> ASLEEP_FUTEX or ASLEEP_KERNEL ---park returns---> AWAKE
 *     \___unpark___> NOTIFIED <___unpark___/        NOTIFIED ---park---> AWAKE, at once
 *
 * Any thread exchanges NOTIFIED into it; the owner alone writes the other values.  The unparker
 * that finds one of the ASLEEP values, and only that one, makes the system call: FUTEX_WAKE on the
 * word itself, or a write to the eventfd that the sleeping owner watches.  Both are sticky: a futex
 * wait fails when the word has changed, and the eventfd keeps its count until the owner looks.
 * So an unpark is lost neither before, nor during, nor after the owner's way into the kernel.
 *
 * nio_op_done() is called from nio_driver_reap() and nio_driver_reap_for() only.  An operation that
 * ends elsewhere (a cancelled timer, a readiness attempt that succeeded at once) goes to the queue
 * `ended` and is completed by the owner's next reap.
 */
#ifndef NIO_DRIVER_DRIVER_IMPL_H
#define NIO_DRIVER_DRIVER_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/driver/driver.h"
#include "runtime/driver/op_link.h"
#include "runtime/time/wheel.h"

enum nio_wake_state {
    NIO_DRIVER_AWAKE = 0,
    NIO_DRIVER_ASLEEP_FUTEX,
    NIO_DRIVER_ASLEEP_KERNEL,
    NIO_DRIVER_NOTIFIED
};

enum { NIO_DRIVER_REASON_BYTES = 320 };

/* One writer each: see nio_tally_add() and nio_tally_add_shared(). */
struct nio_driver_tally {
    _Atomic uint64_t sqes, cqes, enters, bytes_in, bytes_out, reaped_for, polled, fixed;
};

struct nio_driver {
    /* constant after create */
    enum numio_driver profile;
    int wake_fd;               /* eventfd, non-blocking */
    bool keeps_chains;         /* itself: the kernel does not, or not reliably */
    struct nio_polled *polled; /* iopoll: the second ring, NULL without one */
    const char *registered;    /* memory that the kernel knows as buffer 0; NULL without */
    size_t registered_bytes;
    struct nio_buf_group *buffers; /* NULL until somebody wants to receive into them */
    char reason[NIO_DRIVER_REASON_BYTES];
    unsigned napi_us;                    /* 0: the ring does not busy-poll */
    const struct nio_timeline *timeline; /* what the timers go by */

    /* owner only; `has_ended` is a hint that any thread may read */
    NIO_CACHE_ALIGNED struct nio_op_queue ended;
    _Atomic bool has_ended;
    bool flush_wanted;
    bool is_abandoned;      /* by streams that were not closed: they end with the ring */
    bool is_eager;          /* something that is to be flushed should not wait for a park */
    uint64_t early_ns;      /* parks end so much before the earliest timer */
    uint64_t park_until_ns; /* when the last park was to end for a timer, or NIO_TIME_NONE */
    struct nio_driver_tally by_owner;

    /* any thread, RMW */
    NIO_CACHE_ALIGNED _Atomic uint32_t wake;
    struct numio_op *_Atomic handed; /* ended operations of kept chains, newest first: chain.c */
    struct nio_driver_tally by_siblings;

    struct nio_wheel wheel; /* the timers: any thread, by its lock */
};

/* driver.c: the common part.  Init makes the wheel and the eventfd; fini takes a half-built one. */
int nio_driver_base_init(struct nio_driver *driver, const struct nio_driver_options *options);
void nio_driver_base_fini(struct nio_driver *driver);
/* Owner: arms `op`, a prepared timeout, to end as it says. */
void nio_driver_add_timer(struct nio_driver *driver, struct numio_op *op);
/* Owner: `op` has ended with `result`; the next reap completes it. */
void nio_driver_end(struct nio_driver *driver, struct numio_op *op, int32_t result);
/* Owner: completes up to `max` operations of `ended` and of the timers.  Returns how many. */
unsigned nio_driver_reap_local(struct nio_driver *driver, unsigned max);
/* Owner: the time a park may last: at most `timeout_ns` (negative: no limit), not longer than the
 * earliest timer, 0 when there is something to reap. */
int64_t nio_driver_park_limit(struct nio_driver *driver, int64_t timeout_ns);
/* Owner: announces that it is about to sleep.  False: an unpark came before; it is consumed. */
bool nio_driver_announce_sleep(struct nio_driver *driver, enum nio_wake_state how);
/* Owner: it is awake again; consumes an unpark. */
void nio_driver_end_sleep(struct nio_driver *driver);
/* Owner: sleeps on the futex until unparked or `timeout_ns` passed. */
void nio_driver_sleep_futex(struct nio_driver *driver, int64_t timeout_ns);
/* The thread that completes `op`, before it does: counts its bytes. */
void nio_driver_count_result(struct nio_driver_tally *tally, const struct numio_op *op,
                             int32_t result, bool is_owner);

/* relaxed in both: statistics, which order nothing. */
static inline void nio_tally_add(_Atomic uint64_t *counter, uint64_t value)
{
    /* relaxed: the owner is the only writer, so no RMW is needed */
    uint64_t before = atomic_load_explicit(counter, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(counter, before + value, memory_order_relaxed);
}

static inline void nio_tally_add_shared(_Atomic uint64_t *counter, uint64_t value)
{
    /* relaxed: several siblings count, none reads */
    (void)atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

/* Stress tests: a timer is neither armed nor done for long enough to be found like that. */
#ifdef NIO_TINY
static inline void nio_driver_dawdle(void)
{
    for (unsigned i = 0; i < 100; i++)
        nio_cpu_relax();
}
#else
static inline void nio_driver_dawdle(void)
{
}
#endif

/* The profiles: driver_uring.c with uring_setup.c, and driver_epoll.c. */
struct nio_uring;
struct nio_epoll;

int nio_uring_create(const struct nio_driver_options *options, struct nio_driver **ret_driver);
void nio_uring_destroy(struct nio_driver *driver);
int nio_uring_fd(const struct nio_driver *driver);
struct io_uring *nio_uring_ring(struct nio_driver *driver);
void nio_uring_submit(struct nio_driver *driver, struct numio_op *op);
void nio_uring_submit_chain(struct nio_driver *driver, struct numio_op *ops, unsigned count);
unsigned nio_uring_chain_max(const struct nio_driver *driver);
void nio_uring_cancel(struct nio_driver *driver, struct numio_op *op);
void nio_uring_flush(struct nio_driver *driver);
bool nio_uring_has_completions(const struct nio_driver *driver);
/* Any thread: whether the ring has something for the kernel to take, or from it. */
bool nio_uring_is_busy(const struct nio_driver *driver);
unsigned nio_uring_reap(struct nio_driver *driver, unsigned max);
unsigned nio_uring_reap_for(struct nio_driver *driver, unsigned max);
unsigned nio_uring_in_flight(const struct nio_driver *driver);
void nio_uring_park(struct nio_driver *driver, int64_t limit_ns);
/* Any thread: wakes an owner that sleeps in io_uring_enter(). */
void nio_uring_wake(struct nio_driver *driver);

/* registered.c.  Owner: a request that the ring is about to get uses the registered memory if its
 * own lies there. */
void nio_registered_use(struct nio_driver *driver, struct io_uring_sqe *sqe);

/* streams.c.  Owner: a period of nio_driver_submit_ticks() has passed. */
void nio_stream_tick(struct nio_driver *driver, struct nio_multi *multi, uint64_t now_ns);

/* chain.c: chains that the driver keeps, not the kernel.  Owner, except for the second. */
void nio_chain_begin(struct nio_driver *driver, struct numio_op *ops, unsigned count);
/* Any worker: an operation in state NIO_OP_LINKED has ended: the rest of its chain goes on, or
 * ends, and the operation is done; by the owner, who is told if it is somebody else. */
void nio_chain_end_op(struct nio_driver *driver, struct numio_op *op, int32_t result,
                      bool is_owner);
/* What others have handed over.  Returns how many are done. */
unsigned nio_chain_take_handed(struct nio_driver *driver);
/* The time of a link timeout has come. */
void nio_chain_strike(struct nio_driver *driver, struct numio_op *timeout);

int nio_epoll_create(const struct nio_driver_options *options, struct nio_driver **ret_driver);
void nio_epoll_destroy(struct nio_driver *driver);
void nio_epoll_submit(struct nio_driver *driver, struct numio_op *op);
void nio_epoll_cancel(struct nio_driver *driver, struct numio_op *op);
bool nio_epoll_has_completions(const struct nio_driver *driver);
unsigned nio_epoll_reap(struct nio_driver *driver, unsigned max);
unsigned nio_epoll_in_flight(const struct nio_driver *driver);
void nio_epoll_park(struct nio_driver *driver, int64_t limit_ns);

#endif
