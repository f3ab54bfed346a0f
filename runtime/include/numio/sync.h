/* SPDX-License-Identifier: MIT */
/* numio/sync.h: what tasks and threads wait for each other with: mutexes, conditions, semaphores,
 * locks for many readers, notifications, events, barriers, and what is done once.
 *
 * How to wait, and what aborts and deadlines do, stands in <numio/wait.h>.  Objects lie in the
 * user's memory; zeroes are an object in its first state, so static and calloc()ed ones need no
 * call, but for barriers.  An object may be freed when nobody waits for it or holds it any more: a
 * lock by whoever unlocked it last, also right after having got it from somebody else; an event, or
 * what is done once, by who has seen it set or done.
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
    uintptr_t _state;
    struct numio_wait_queue_ _waits;
};

#define NUMIO_MUTEX_INIT                                                                           \
    {                                                                                              \
        0,                                                                                         \
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

/* ---- readers and writers -------------------------------------------------------------------- */

/* Many readers at a time, or one writer; it may be held across awaits.  A writer that waits holds
 * back the readers that come after it; readers that stand in the queue one behind the other enter
 * together.  Readers are counted and not known by name: one that locks it once more deadlocks if a
 * writer has come in between, and one that asks to write deadlocks always. */
struct numio_rwlock {
    uint64_t _state;
    uintptr_t _owner;
    struct numio_wait_queue_ _waits;
};

#define NUMIO_RWLOCK_INIT                                                                          \
    {                                                                                              \
        0, 0,                                                                                      \
        {                                                                                          \
            { 0 }, NULL, NULL                                                                      \
        }                                                                                          \
    }

NUMIO_EXPORT void numio_rwlock_init(struct numio_rwlock *rwlock);

/* For writing, and for reading.
 * Context: a coroutine suspends and a plain thread sleeps until its turn.
 * Errors:  -EDEADLK the caller is its writer, or would block a worker; -ECANCELED, -ETIMEDOUT. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_rwlock_lock(struct numio_rwlock *rwlock);
NUMIO_EXPORT NUMIO_NODISCARD int numio_rwlock_lock_shared(struct numio_rwlock *rwlock);
/* Any context; never wait.   Errors: -EAGAIN others hold it, or wait; -EDEADLK the caller is its
 * writer. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_rwlock_try_lock(struct numio_rwlock *rwlock);
NUMIO_EXPORT NUMIO_NODISCARD int numio_rwlock_try_lock_shared(struct numio_rwlock *rwlock);
/* Whichever way the caller holds it.
 * Context: who holds it; never waits.   Errors: -EPERM nobody does, or a writer other than the
 *          caller: nothing is changed. */
NUMIO_EXPORT int numio_rwlock_unlock(struct numio_rwlock *rwlock);
/* The writer becomes a reader, and no other writer can come in between; readers at the head of the
 * queue enter with it.
 * Context: the writer; never waits.   Errors: -EPERM the caller is not the writer. */
NUMIO_EXPORT int numio_rwlock_downgrade(struct numio_rwlock *rwlock);
/* Prepare an operation that locks it for the task that awaits or starts it. */
NUMIO_EXPORT void numio_op_rwlock_lock(struct numio_op *op, struct numio_rwlock *rwlock);
NUMIO_EXPORT void numio_op_rwlock_lock_shared(struct numio_op *op, struct numio_rwlock *rwlock);

/* ---- condition ------------------------------------------------------------------------------ */

/* Waiting, with a mutex let go of meanwhile, until what it guards has been changed by somebody.  A
 * return says only that it is time to look again: always in a loop. */
struct numio_condition {
    uint32_t _state;
    uint32_t _unused;
    struct numio_wait_queue_ _waits;
};

#define NUMIO_CONDITION_INIT                                                                       \
    {                                                                                              \
        0, 0,                                                                                      \
        {                                                                                          \
            { 0 }, NULL, NULL                                                                      \
        }                                                                                          \
    }

NUMIO_EXPORT void numio_condition_init(struct numio_condition *condition);

/* Lets go of the mutex, waits for a signal, and locks the mutex again, all the same if the task is
 * aborted or late.
 * Context: a coroutine suspends, a plain thread sleeps.
 * Returns: 0 it was signalled; in every case the caller holds the mutex.
 * Errors:  -EPERM the caller did not hold it, and does not; -ECANCELED, -ETIMEDOUT no signal was
 *          used up; -EDEADLK would block a worker. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_condition_wait(struct numio_condition *condition,
                                                      struct numio_mutex *mutex);
/* Ends the longest wait, or all; nothing if nobody waits.  Any context; never suspend.  Who changed
 * what is waited for under the mutex may signal before or after unlocking it. */
NUMIO_EXPORT void numio_condition_signal(struct numio_condition *condition);
NUMIO_EXPORT void numio_condition_broadcast(struct numio_condition *condition);
/* Prepares an operation that does as numio_condition_wait(): once it has ended the task holds the
 * mutex, also when something else in a selection was first, which then waits for the mutex, or when
 * the future was aborted, whose drop function may unlock it.  Not beside another operation on the
 * same mutex. */
NUMIO_EXPORT void numio_op_condition_wait(struct numio_op *op, struct numio_condition *condition,
                                          struct numio_mutex *mutex);

/* ---- notification --------------------------------------------------------------------------- */

/* A wake for one task, or for all that wait; without data, like Tokio's Notify.  If nobody waits, a
 * wake for one is kept as a permit for the next wait; there is at most one permit. */
struct numio_notify {
    uint64_t _state;
    struct numio_wait_queue_ _waits;
};

#define NUMIO_NOTIFY_INIT                                                                          \
    {                                                                                              \
        0,                                                                                         \
        {                                                                                          \
            { 0 }, NULL, NULL                                                                      \
        }                                                                                          \
    }

NUMIO_EXPORT void numio_notify_init(struct numio_notify *notify);

/* Takes the permit, or waits to be notified.
 * Context: a coroutine suspends and a plain thread sleeps.
 * Errors:  -EDEADLK would block a worker; -ECANCELED, -ETIMEDOUT: no notification was used up. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_notify_wait(struct numio_notify *notify);
/* Any context; never waits.   Errors: -EAGAIN there is no permit. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_notify_try_wait(struct numio_notify *notify);
/* Ends the wait that began first, or last; if nobody waits, leaves the permit.  What they did
 * before is seen by who is notified.  Any context; never suspend. */
NUMIO_EXPORT void numio_notify_one(struct numio_notify *notify);
NUMIO_EXPORT void numio_notify_last(struct numio_notify *notify);
/* Ends all waits there are, and those whose operations have been prepared; leaves no permit.  Any
 * context; never suspends. */
NUMIO_EXPORT void numio_notify_waiters(struct numio_notify *notify);
/* Prepares an operation that waits.  From here on numio_notify_waiters() counts for it, so that
 * nothing is missed by who prepares it, looks whether there is something to wait for, and then
 * awaits it.  A future that is aborted after having been notified passes that on, unless it was
 * for all. */
NUMIO_EXPORT void numio_op_notify(struct numio_op *op, struct numio_notify *notify);

/* ---- event ---------------------------------------------------------------------------------- */

/* Something that has happened, or not, until it is reset; waiting for one that is set is a load. */
struct numio_event {
    uint32_t _state;
    uint32_t _unused;
    struct numio_wait_queue_ _waits;
};

#define NUMIO_EVENT_INIT                                                                           \
    {                                                                                              \
        0, 0,                                                                                      \
        {                                                                                          \
            { 0 }, NULL, NULL                                                                      \
        }                                                                                          \
    }

NUMIO_EXPORT void numio_event_init(struct numio_event *event);

/* Ends all waits, and those to come until it is reset; what was done before is seen by them.  Any
 * context; never suspends; also if it is set. */
NUMIO_EXPORT void numio_event_set(struct numio_event *event);
/* Whoever waits from now on waits; what those did that had set it is seen.  Any context. */
NUMIO_EXPORT void numio_event_reset(struct numio_event *event);
/* Any context. */
NUMIO_EXPORT bool numio_event_is_set(const struct numio_event *event);
/* Context: a coroutine suspends and a plain thread sleeps until it is set.
 * Returns: 0 it was set, though it may have been reset by now.
 * Errors:  -EDEADLK would block a worker; -ECANCELED, -ETIMEDOUT. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_event_wait(struct numio_event *event);
/* Prepares an operation that waits. */
NUMIO_EXPORT void numio_op_event_wait(struct numio_op *op, struct numio_event *event);

/* ---- barrier -------------------------------------------------------------------------------- */

/* A meeting of a number of parties, again and again. */
struct numio_barrier {
    uint32_t _parties;
    uint32_t _arrived;
    struct numio_wait_queue_ _waits;
};

/* NUMIO_BARRIER_INIT(parties), at least 1 */
#define NUMIO_BARRIER_INIT(parties)                                                                \
    {                                                                                              \
        (parties), 0,                                                                              \
        {                                                                                          \
            { 0 }, NULL, NULL                                                                      \
        }                                                                                          \
    }

/* Errors: -EINVAL for no parties. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_barrier_init(struct numio_barrier *barrier,
                                                    uint32_t parties);
/* Arrives, and waits until all have.  What each did before is seen by all after.
 * Context: a coroutine suspends and a plain thread sleeps.
 * Returns: 1 in the party that came last, 0 in the others.
 * Errors:  -EINVAL it was not initialised; -EDEADLK would block a worker; -ECANCELED, -ETIMEDOUT:
 *          the arrival was taken back. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_barrier_wait(struct numio_barrier *barrier);
/* Prepares an operation that arrives and waits. */
NUMIO_EXPORT void numio_op_barrier_wait(struct numio_op *op, struct numio_barrier *barrier);

/* ---- once ----------------------------------------------------------------------------------- */

/* Something that is to be done once, by whoever comes first; if that one fails, by the next.  For a
 * value in place: a once beside it. */
struct numio_once {
    uint32_t _state;
    uint32_t _unused;
    uintptr_t _owner;
    struct numio_wait_queue_ _waits;
};

#define NUMIO_ONCE_INIT                                                                            \
    {                                                                                              \
        0, 0, 0,                                                                                   \
        {                                                                                          \
            { 0 }, NULL, NULL                                                                      \
        }                                                                                          \
    }

NUMIO_EXPORT void numio_once_init(struct numio_once *once);

/* Calls fn(arg) unless that has been done; waits while somebody else is at it.  A function that
 * returns less than 0, for example because the task was aborted inside of it, has not done it: the
 * one that has waited longest calls its own.
 * Context: a coroutine suspends and a plain thread sleeps; once it is done it is one load.
 * Returns: 0 it is done, and what was done is seen.
 * Errors:  what `fn` returned; -EDEADLK called by `fn` itself, or would block a worker; -ECANCELED,
 *          -ETIMEDOUT while waiting. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_once_call(struct numio_once *once, int (*fn)(void *arg),
                                                 void *arg);
/* Any context. */
NUMIO_EXPORT bool numio_once_is_done(const struct numio_once *once);
/* The same in two parts: returns 1 if the caller is to do it, and to call numio_once_end() in the
 * same task or thread, or 0 if it is done.   Errors: as above. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_once_begin(struct numio_once *once);
/* Any context; never waits.   Errors: -EPERM the caller is not at it. */
NUMIO_EXPORT int numio_once_end(struct numio_once *once, bool is_done);
/* Prepares an operation that does as numio_once_begin(). */
NUMIO_EXPORT void numio_op_once_begin(struct numio_op *op, struct numio_once *once);

/* A pointer that is set once and then stays; NULL is none. */
struct numio_once_cell {
    struct numio_once _once;
    void *_value;
};

#define NUMIO_ONCE_CELL_INIT                                                                       \
    {                                                                                              \
        NUMIO_ONCE_INIT, NULL                                                                      \
    }

NUMIO_EXPORT void numio_once_cell_init(struct numio_once_cell *cell);
/* The value, NULL if there is none yet.  Any context; a load. */
NUMIO_EXPORT void *numio_once_cell_get(const struct numio_once_cell *cell);
/* Any context; never waits.   Errors: -EEXIST there is one; -EBUSY somebody is making one; -EINVAL
 * `value` is NULL. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_once_cell_set(struct numio_once_cell *cell, void *value);
/* The value; if there is none, that which fn(arg, &value) makes, called as by numio_once_call().
 * Errors:  as there; -EINVAL it made NULL. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_once_cell_get_or_init(struct numio_once_cell *cell,
                                                             int (*fn)(void *arg, void **ret_value),
                                                             void *arg, void **ret_value);

NUMIO_END_DECLS

#endif
