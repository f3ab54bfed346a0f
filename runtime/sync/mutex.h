/* SPDX-License-Identifier: MIT */
/* sync/mutex.h: what a condition needs of the mutex beyond <numio/sync.h>: to let go of it, and to
 * have waits taken back into its queue.
 *
 * A wait that comes back has the mutex in its third word and in its fourth the result with which it
 * ends once it holds it.  It gets the mutex in its turn, also when it was cancelled.
 */
#ifndef NIO_SYNC_MUTEX_H
#define NIO_SYNC_MUTEX_H

#include <numio/sync.h>

#include "runtime/task/wait.h"

static inline struct numio_mutex *nio_mutex_of(const struct numio_op *op)
{
    return (struct numio_mutex *)(uintptr_t)op->_sqe[NIO_WAIT_WORD_ARG];
}

static inline int32_t nio_mutex_result_of(const struct numio_op *op)
{
    return (int32_t)op->_sqe[NIO_WAIT_WORD_ARG2];
}

/* Any context. */
bool nio_mutex_is_held_by(struct numio_mutex *mutex, uintptr_t who);
/* As numio_mutex_unlock() by `who`, who holds it. */
void nio_mutex_let_go(struct numio_mutex *mutex, uintptr_t who);
/* Any thread, without a lock: waits that were taken out of a condition's queue go on to their
 * mutexes; they end, holding it, one after the other.  Empties the list. */
void nio_mutex_take_back(struct nio_wait_list *list);

#endif
