/* SPDX-License-Identifier: MIT */
/* numio/batch.h: several operations at once, and chains of them.
 *
 * A coroutine prepares an array of operations, says how they depend on each other, and awaits them
 * all with one suspension and, on a ring, one submission:
 *
 *     struct numio_op ops[2];
 *     numio_op_write(&ops[0], fd, record, bytes, end);
 *     numio_op_link(&ops[0]);
 *     numio_op_fdatasync(&ops[1], fd);
 *     int64_t result = numio_batch_await(ops, 2);
 *
 * Without a word they run side by side and end in any order.  Links are kept by the kernel, which
 * begins the next operation without the worker; under the profile epoll numio keeps them.
 */
#ifndef NUMIO_BATCH_H
#define NUMIO_BATCH_H

#include <numio/op.h>

NUMIO_BEGIN_DECLS

/* Mark a prepared operation; it must be prepared again before its next use.  Any context. */

/* The next one of the array begins when this one has ended well.  An error, or fewer bytes read
 * or written than asked for (received or sent: with MSG_WAITALL only), ends the rest of the chain
 * with -ECANCELED. */
NUMIO_EXPORT void numio_op_link(struct numio_op *op);
/* The next one begins when this one has ended, well or not. */
NUMIO_EXPORT void numio_op_hardlink(struct numio_op *op);
/* This one begins when all before it in the array have ended, well or not.  Not in the middle of a
 * chain.  Costs a suspension. */
NUMIO_EXPORT void numio_op_drain(struct numio_op *op);

/* Prepares a limit of time for the operation before it in the array, which must have a link: if it
 * has not ended `limit_ns` after it began it is cancelled, and ends with -ECANCELED as a rule.
 * With a link of its own the chain goes on behind it as if it were not there.  Its own result,
 * -ETIME or -ECANCELED, does not count in that of the batch. */
NUMIO_EXPORT void numio_op_link_timeout(struct numio_op *op, uint64_t limit_ns);

/* Runs the operations and returns when all have ended.
 * Context: a coroutine, suspends; with `count` 0 it returns at once.
 * Owns:    the array and all that it names are the runtime's until the return.
 * Returns: 0 if none failed, else the first negative result in the order of the array (-ETIME of a
 *          plain timeout is no failure); each has its own numio_op_result().
 * Errors:  -EINVAL not in a coroutine; the last operation has a link; a link timeout stands behind
 *          none; a drain within a chain; a chain is longer than the ring
 * (numio_config.ring_entries): then nothing was begun.  -ECANCELED the task was aborted, -ETIMEDOUT
 * its deadline has passed: what had not begun has that result. */
NUMIO_EXPORT int64_t numio_batch_await(struct numio_op *ops, unsigned count);

/* The result of an operation that has ended in a batch: the kernel's, or a negative errno value. */
NUMIO_EXPORT int64_t numio_op_result(const struct numio_op *op);

NUMIO_END_DECLS

#endif
