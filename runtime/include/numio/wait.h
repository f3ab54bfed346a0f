/* SPDX-License-Identifier: MIT */
/* numio/wait.h: what all objects that tasks wait for have in common.
 *
 * Mutexes, semaphores, channels and whatever else is in <numio/sync.h> and <numio/channel.h> can be
 * waited for in three ways, with the same result and in one queue:
 *
 *   a coroutine calls, for example, numio_mutex_lock(), and suspends;
 *   a plain thread calls the same, and sleeps;
 *   a future embeds a struct numio_op, prepares it with numio_op_mutex_lock(), starts it and polls
 *   it; batches and selections take the same operations.
 *
 * On a worker's thread outside of a coroutine (in a future's poll, in a hook) the calls that wait
 * return -EDEADLK where they would have to wait.
 *
 * Aborts and deadlines end the wait with -ECANCELED or -ETIMEDOUT, and then nothing has happened:
 * the caller has not got the lock, the permit or the message, and nobody else has lost one for it.
 * What is there at once is taken also by a task that was aborted, so that it can clean up.
 *
 * Waiting allocates nothing: the wait lies on the waiter's stack or in the future's state.  An
 * object must outlive its waits.  All fields that begin with _ are private.
 */
#ifndef NUMIO_WAIT_H
#define NUMIO_WAIT_H

#include <numio/op.h>

NUMIO_BEGIN_DECLS

/* Private: who waits for an object.  Zeroes are an empty one. */
struct numio_wait_queue_ {
    uint32_t _lock[2];
    struct numio_op *_first;
    struct numio_op *_last;
};

NUMIO_END_DECLS

#endif
