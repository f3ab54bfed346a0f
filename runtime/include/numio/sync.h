/* SPDX-License-Identifier: MIT */
/* numio/sync.h: mutexes and semaphores for tasks and threads.
 *
 * How to wait, and what aborts and deadlines do, stands in <numio/wait.h>.  Objects lie in the
 * user's memory; zeroes are an object in its first state, so static and calloc()ed ones need no
 * call.  An object may be freed when nobody waits for it or holds it any more: a mutex by whoever
 * unlocked it last, also right after having got it from somebody else.
 *
 * All are fair: first come, first served, and nobody overtakes.
 */
#ifndef NUMIO_SYNC_H
#define NUMIO_SYNC_H

#include <numio/wait.h>

NUMIO_BEGIN_DECLS

/* ---- mutex --------------------------------------------------------------------------------- */

/* One holder at a time; it may be held across awaits.  Who unlocks hands it to the longest waiter.
 */
struct numio_mutex {
    uint32_t _state;
    uint32_t _unused;
    uintptr_t _owner;
    struct numio_wait_queue_ _waits;
};

#define NUMIO_MUTEX_INIT                                                                           \
    {                                                                                              \
        0, 0, 0,                                                                                   \
        {                                                                                          \
            { 0 }, NULL, NULL                                                                      \
        }                                                                                          \
    }

NUMIO_EXPORT void numio_mutex_init(struct numio_mutex *mutex);

/* Context: a coroutine suspends and a plain thread sleeps while somebody else holds it.
 * Errors:  -EDEADLK the caller holds it already, or would block a worker; -ECANCELED, -ETIMEDOUT.
 */
NUMIO_EXPORT NUMIO_NODISCARD int numio_mutex_lock(struct numio_mutex *mutex);
/* Any context; never waits.   Errors: -EAGAIN somebody holds it; -EDEADLK it is the caller. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_mutex_try_lock(struct numio_mutex *mutex);
/* Context: the task, or the plain thread, that holds it; never waits.
 * Errors:  -EPERM somebody else holds it, or nobody: nothing is changed. */
NUMIO_EXPORT int numio_mutex_unlock(struct numio_mutex *mutex);
/* Prepares an operation that locks it for the task that awaits or starts it. */
NUMIO_EXPORT void numio_op_mutex_lock(struct numio_op *op, struct numio_mutex *mutex);

/* ---- semaphore ----------------------------------------------------------------------------- */

#define NUMIO_SEMAPHORE_MAX ((uint64_t)1 << 61)

/* A number of permits.  Any thread may release what another has acquired. */
struct numio_semaphore {
    uint64_t _state;
    struct numio_wait_queue_ _waits;
};

/* NUMIO_SEMAPHORE_INIT(permits), a constant below NUMIO_SEMAPHORE_MAX */
#define NUMIO_SEMAPHORE_INIT(permits)                                                              \
    {                                                                                              \
        (uint64_t)(permits) << 2,                                                                  \
        {                                                                                          \
            { 0 }, NULL, NULL                                                                      \
        }                                                                                          \
    }

/* Errors: -EINVAL more than NUMIO_SEMAPHORE_MAX. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_semaphore_init(struct numio_semaphore *semaphore,
                                                      uint64_t permits);

/* Takes `permits` at once: a waiter that wants many is not passed by those who want few.
 * Context: a coroutine suspends and a plain thread sleeps until they are there.
 * Errors:  -EPIPE it was closed; -EINVAL more than NUMIO_SEMAPHORE_MAX; -EDEADLK would block a
 * worker; -ECANCELED, -ETIMEDOUT: none was taken. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_semaphore_acquire(struct numio_semaphore *semaphore,
                                                         uint64_t permits);
/* Any context; never waits.   Errors: -EAGAIN they are not there, or others wait; -EPIPE, -EINVAL.
 */
NUMIO_EXPORT NUMIO_NODISCARD int numio_semaphore_try_acquire(struct numio_semaphore *semaphore,
                                                             uint64_t permits);
/* Any context; never waits.   Errors: -EOVERFLOW there would be more than NUMIO_SEMAPHORE_MAX: none
 * was added. */
NUMIO_EXPORT int numio_semaphore_release(struct numio_semaphore *semaphore, uint64_t permits);
/* Takes up to `permits` that are there away for good; returns how many.  Any context. */
NUMIO_EXPORT uint64_t numio_semaphore_forget(struct numio_semaphore *semaphore, uint64_t permits);
/* How many are there, a moment ago.  Any context. */
NUMIO_EXPORT uint64_t numio_semaphore_available(const struct numio_semaphore *semaphore);
/* From now on nobody acquires any more; whoever waits gets -EPIPE.  Any context; also twice. */
NUMIO_EXPORT void numio_semaphore_close(struct numio_semaphore *semaphore);
/* Prepares an operation that acquires `permits`. */
NUMIO_EXPORT void numio_op_semaphore_acquire(struct numio_op *op, struct numio_semaphore *semaphore,
                                             uint64_t permits);

NUMIO_END_DECLS

#endif
