/* SPDX-License-Identifier: MIT */
/* sched/source.h: a coroutine that waits for a word in memory that the kernel writes: the producer
 * index of a ring which is shared with it.
 *
 * A source is an operation with such a word beside it.  As long as its worker is awake, the
 * operation is not submitted: the worker compares the word with what it was, whenever it looks
 * around for work and every driver_interval ticks, and ends the operation itself.  No system call
 * is made.  Before the worker sleeps it hands the operation, which waits for the same event by
 * other means (a poll of the ring's descriptor, or a timeout), to its driver, and from then on it
 * is one like any other.  The kernel looks at the ring when it takes a poll, so that what came in
 * between is not missed.
 *
 * A worker without sources pays one load of a line of its own in each look and each
 * driver_interval.
 *
 * [SR1] the word is loaded with acquire: what the kernel wrote to the ring before is seen.  It
 * pairs with the kernel's store-release of the index [SR2], net/xdp/xsk_queue.h.
 *
 * All calls: the worker's own thread.
 */
#ifndef NIO_SCHED_SOURCE_H
#define NIO_SCHED_SOURCE_H

#include "runtime/sched/worker.h"

struct nio_source {
    struct numio_op op;   /* first; prepared by the caller */
    const uint32_t *word; /* NULL: the operation is submitted at once */
    uint32_t seen;        /* it is ready once *word is something else */
    bool is_ended;        /* nio_op_done() was called from here, or is asked for */
    struct nio_source *next, **link;
};

/* The running coroutine, on the worker that it is pinned to: waits until the word is not `seen`, or
 * the operation has ended, or somebody ends it.  Returns: 0 and more; what nio_source_end() was
 * told; -ECANCELED, -ETIMEDOUT as any other await. */
int64_t nio_source_await(struct nio_source *source);
/* Ends the wait of a source whose coroutine waits: at once, or, if its operation was submitted by
 * now, by asking for its cancellation, after which it is -ECANCELED. */
void nio_source_end(struct nio_worker *worker, struct nio_source *source, int32_t result);

/* For the loop: whose word has moved is ended.  Returns how many. */
unsigned nio_sources_look(struct nio_worker *worker);
/* For the loop, before it sleeps: hands all to the driver. */
void nio_sources_arm(struct nio_worker *worker);
/* For run.c, by nio_op_send_cancel(): the task of a source that waits here was aborted, or is late.
 */
void nio_source_cancel(struct numio_op *op);

#endif
