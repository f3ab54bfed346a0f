/* SPDX-License-Identifier: MIT */
/* driver/polled.h: the second ring of a worker, profile iopoll: reads and writes with O_DIRECT on
 * disks that have queues for polling.
 *
 * No interrupt tells of their end: the kernel looks into the disk's queue when the owner asks
 * (io_uring_enter() with GETEVENTS on a ring with IORING_SETUP_IOPOLL).  So while any is in flight
 * the owner asks, in each reap and in its parks, which then spin instead of sleeping.  When
 * nothing has come for NIO_POLLED_PATIENCE_NS, as with a disk that has stalled, the park sleeps
 * for NIO_POLLED_NAP_NS between two looks.
 *
 * Which operations come here.  A polled ring takes reads and writes of O_DIRECT descriptors only;
 * others, and those on disks that do not poll, end with -EOPNOTSUPP and have done nothing (older
 * kernels serve the latter by interrupt).  So an answer of nio_fd_kind_of() may be kept for a while
 * although the descriptor may have been closed and its number given to another file: an operation
 * that does not belong here comes back and goes through the ordinary ring.
 *
 * The kernel cannot cancel these operations; they end when the disk is done.
 *
 * Everything here is the owner's and nothing is shared; a sibling cannot reap this ring.
 */
#ifndef NIO_DRIVER_POLLED_H
#define NIO_DRIVER_POLLED_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/driver/driver_impl.h"

enum {
    NIO_POLLED_PATIENCE_NS = 1000000, /* flash reads take 10 to 200 us */
    NIO_POLLED_NAP_NS = 100000
};

struct nio_polled {
    struct io_uring ring;
    unsigned credits;          /* operations in the kernel at most: the CQ's entries */
    unsigned in_kernel;        /* SQEs filled and not yet reaped */
    struct nio_op_queue queue; /* operations that wait for a credit or for SQ room */
    uint64_t quiet_since_ns;   /* the last completion, or the submission after an idle time */
    enum nio_fd_kind (*fd_kind)(int fd);
    uint16_t *known; /* of each descriptor below known_room: see polled.c */
    unsigned known_room;
};

/* Makes the ring for a driver of profile iopoll.  Where the kernel refuses it, the driver gets a
 * reason instead and goes on without.   Errors: -ENOMEM. */
int nio_polled_create(const struct nio_driver_options *options, struct nio_driver *driver);
/* With nothing in flight.  Takes NULL. */
void nio_polled_destroy(struct nio_polled *polled);

/* Whether `op` belongs to this ring. */
bool nio_polled_takes(struct nio_polled *polled, const struct numio_op *op);
void nio_polled_submit(struct nio_driver *driver, struct numio_op *op);
/* An operation that still waits in the queue ends with -ECANCELED. */
void nio_polled_cancel(struct numio_op *op);
/* Hands what was submitted to the kernel.  False: something is left and must be flushed again. */
bool nio_polled_flush(struct nio_driver *driver);
/* Looks into the disks' queues once and completes up to `max` operations. */
unsigned nio_polled_reap(struct nio_driver *driver, unsigned max);
/* Polls until a completion is posted in either ring, an unpark came, or *limit_ns has passed:
 * true, the park is over.  False: nothing has come for long, and the park should sleep for
 * *limit_ns, which was shortened. */
bool nio_polled_park(struct nio_driver *driver, int64_t *limit_ns);

static inline unsigned nio_polled_in_flight(const struct nio_polled *polled)
{
    return polled->in_kernel + polled->queue.count;
}

#endif
