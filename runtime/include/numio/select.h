/* SPDX-License-Identifier: MIT */
/* numio/select.h: waiting for the first of several things.
 *
 * Any mix of operations: messages and room in channels, locks, permits, events (numio_op_* of
 * <numio/sync.h> and <numio/channel.h>), the end of tasks (numio_op_join()), I/O, and timers
 * (numio_op_timeout()):
 *
 *     struct numio_op ops[3];
 *     numio_op_channel_recv(&ops[0], orders, &order);
 *     numio_op_notify(&ops[1], &stop);
 *     numio_op_timeout(&ops[2], 1000000);
 *     switch (numio_select(ops, 3, NUMIO_SELECT_FAIR)) { ... }
 *
 * One of them counts, its index is returned.  Of waits for other tasks exactly that one happens:
 * the others have received no message and hold no lock.  I/O cannot be taken back: an operation
 * that the kernel had ended by the time it was asked to cancel it has its result, and the caller
 * looks at it by numio_op_result() where that matters (a receive: bytes; an accept: a descriptor).
 * All others have -ECANCELED.
 */
#ifndef NUMIO_SELECT_H
#define NUMIO_SELECT_H

#include <numio/batch.h>
#include <numio/wait.h>

NUMIO_BEGIN_DECLS

enum {
    NUMIO_SELECT_FAIR = 0,  /* of several that are ready, any; by the runtime's seed */
    NUMIO_SELECT_BIASED = 1 /* of several that are ready, the first in the array */
};

enum { NUMIO_SELECT_MAX = 64 };

/* Waits until one of the prepared operations has ended, and cancels the rest.
 * Context: a coroutine suspends, unless one is ready; a plain thread sleeps, and can have no
 *          operations of rings (I/O, timers).
 * Owns:    the array and all that it names are the runtime's until the return.
 * Returns: the index of the one that counts; numio_op_result() is its result.
 * Errors:  -ECANCELED the task was aborted, -ETIMEDOUT a deadline has passed: none counts.  -EINVAL
 *          no operation or more than NUMIO_SELECT_MAX, one with a link or a drain, unknown flags, a
 *          ring's operation in a plain thread.  -EDEADLK a worker's thread outside of a coroutine.
 *          -EXDEV direct descriptors of several workers. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_select(struct numio_op *ops, unsigned count,
                                                  unsigned flags);

/* Prepares an operation that ends with 0 when the task has ended.  The handle stays as it is:
 * numio_join_try() has the result then.  -EBUSY: somebody else waits on the handle. */
NUMIO_EXPORT void numio_op_join(struct numio_op *op, struct numio_join *join);

NUMIO_END_DECLS

#endif
