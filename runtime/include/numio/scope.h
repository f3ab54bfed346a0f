/* SPDX-License-Identifier: MIT */
/* numio/scope.h: tasks that end before whoever started them: scopes, sets, races.
 *
 * A scope is opened and closed by one coroutine and lies on its stack.  What is spawned into it
 * ends before the close returns, so children may use whatever lives in the coroutine's frame:
 *
 *     struct numio_scope scope;
 *     numio_scope_open(&scope, 0);
 *     for (int i = 0; i < 4; i++)
 *         if ((rc = numio_scope_spawn_co(&scope, fetch, &pages[i], NULL)) < 0)
 *             break;
 *     int64_t error = numio_scope_close(&scope);    // all have ended; the first error, or 0
 *
 * A child costs what a plain spawn costs: a cell.  Children may open scopes of their own.
 */
#ifndef NUMIO_SCOPE_H
#define NUMIO_SCOPE_H

#include <numio/wait.h>

NUMIO_BEGIN_DECLS

struct numio_scope;
struct numio_join_set;

/* Private: what all that have tasks in common begin with. */
struct numio_group_ {
    void (*_ended)(struct numio_group_ *group, struct nio_task *task, int64_t result);
};

/* ---- scopes -------------------------------------------------------------------------------- */

enum {
    /* The first child that fails does not abort the others. */
    NUMIO_SCOPE_KEEP_GOING = 1,
    /* Children do not take over the deadline that holds where the scope is opened. */
    NUMIO_SCOPE_NO_DEADLINE = 2
};

/* All fields are private. */
struct numio_scope {
    struct numio_group_ _group;
    struct nio_task *_owner;
    struct numio_scope *_outer;
    struct nio_task *_first, *_last;
    struct numio_op *_wait;
    uint64_t _limit_ns;
    uint64_t _spawned, _listed, _sweep_at;
    unsigned _flags;
    bool _is_aborted;
    /* any thread */
    uint32_t _has_failed;
    int64_t _error;
    uint64_t _left;
};

/* Opens a scope.
 * Context: a coroutine; never suspends; allocates nothing.
 * Owns:    `scope` is the runtime's until it is closed, which must happen before its memory goes
 *          and before the coroutine returns: else the process is ended with a message.
 * Errors:  -EINVAL not in a coroutine, or unknown flags. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_scope_open(struct numio_scope *scope, unsigned flags);

/* Spawn a child, as numio_spawn() and numio_spawn_co() on the coroutine's runtime.  A coroutine's
 * result, if it is negative, is an error of the child; a future fails only by being aborted.
 *
 * A deadline that held where the scope was opened holds in a child that is a coroutine as well: its
 * awaits end with -ETIMEDOUT at the same time.  Futures are aborted if it passes during the close.
 * Context: the coroutine that opened the scope; never suspends.
 * Errors:  those of numio_spawn_co(), -ESHUTDOWN among them; -ECANCELED a child has failed, or the
 *          scope or the calling task was aborted; -EPERM not the caller's scope, or closed. */
#define numio_scope_spawn(scope, future, opts) numio_scope_spawn_at(NUMIO_SITE, scope, future, opts)
#define numio_scope_spawn_co(scope, fn, arg, opts)                                                 \
    numio_scope_spawn_co_at(NUMIO_SITE, scope, fn, arg, opts)
NUMIO_EXPORT NUMIO_NODISCARD int numio_scope_spawn_at(const struct numio_site *site,
                                                      struct numio_scope *scope,
                                                      const struct numio_future *future,
                                                      const struct numio_spawn_opts *opts);
NUMIO_EXPORT NUMIO_NODISCARD int numio_scope_spawn_co_at(const struct numio_site *site,
                                                         struct numio_scope *scope,
                                                         int64_t (*fn)(void *arg), void *arg,
                                                         const struct numio_spawn_opts *opts);

/* Asks all children to end; no more can be spawned.
 * Context: the coroutine that opened the scope; never suspends.   Errors: -EPERM as above. */
NUMIO_EXPORT int numio_scope_abort(struct numio_scope *scope);

/* Waits until all children have ended, and ends the scope.  If the caller is aborted meanwhile, or
 * was before, the children are aborted and waited for all the same.
 * Context: the coroutine that opened it; suspends.
 * Returns: 0, or the first error of a child in time.  A child that fails makes the scope abort the
 *          others, unless it keeps going: at once if the owner waits, else where it waits, spawns
 *          or closes next.  Their -ECANCELED comes later and does not count.
 * Errors:  -EINVAL it is not the innermost open scope of the calling coroutine. */
NUMIO_EXPORT int64_t numio_scope_close(struct numio_scope *scope);

/* How many of its children have not ended, a moment ago.   Context: its coroutine. */
NUMIO_EXPORT uint64_t numio_scope_live(const struct numio_scope *scope);

/* ---- races --------------------------------------------------------------------------------- */

struct numio_racer {
    int64_t (*fn)(void *arg);
    void *arg;
};

enum {
    NUMIO_RACE_FIRST = 0,  /* the first that ends wins, whatever its result */
    NUMIO_RACE_SUCCESS = 1 /* the first that ends with a result of 0 or more wins */
};

/* Runs all as coroutines beside each other; the first result wins, the others are aborted, and it
 * returns when all have ended.
 * Context: a coroutine; suspends.
 * Returns: the winner's result, with its index in *ret_winner (which may be NULL); with
 *          NUMIO_RACE_SUCCESS and no winner the last error, and `count` in *ret_winner.
 * Errors:  *ret_winner is `count`: -ECANCELED the caller was aborted; -EINVAL none are to run, not
 *          in a coroutine; those of numio_spawn_co(). */
#define numio_race(racers, count, flags, ret_winner)                                               \
    numio_race_at(NUMIO_SITE, racers, count, flags, ret_winner)
NUMIO_EXPORT int64_t numio_race_at(const struct numio_site *site, const struct numio_racer *racers,
                                   unsigned count, unsigned flags, unsigned *ret_winner);

/* ---- sets ---------------------------------------------------------------------------------- */

/* Tasks whose results are taken in the order in which they end.  A set is used by one task or
 * thread at a time, and may be handed on from one to another; its tasks may belong to any runtime.
 */

/* Context: any.   Errors: -ENOMEM. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_join_set_create(struct numio_join_set **ret_set);

/* Aborts what is left in the set, waits for its end, and frees the set.  Takes NULL.
 * Context: a coroutine suspends, also when it was aborted; a plain thread sleeps.
 * Errors:  -EDEADLK on a worker outside of a coroutine while tasks are left: nothing is freed. */
NUMIO_EXPORT int numio_join_set_destroy(struct numio_join_set *set);

/* Spawn into the set, as numio_spawn() and numio_spawn_co(); *ret_id, which may be NULL, is the id
 * by which the result will be known.
 * Context: any thread; never suspends.   Errors: those of numio_spawn(), -ESHUTDOWN among them. */
#define numio_join_set_spawn(set, handle, future, opts, ret_id)                                    \
    numio_join_set_spawn_at(NUMIO_SITE, set, handle, future, opts, ret_id)
#define numio_join_set_spawn_co(set, handle, fn, arg, opts, ret_id)                                \
    numio_join_set_spawn_co_at(NUMIO_SITE, set, handle, fn, arg, opts, ret_id)
NUMIO_EXPORT NUMIO_NODISCARD int
numio_join_set_spawn_at(const struct numio_site *site, struct numio_join_set *set,
                        struct numio_handle *handle, const struct numio_future *future,
                        const struct numio_spawn_opts *opts, uint64_t *ret_id);
NUMIO_EXPORT NUMIO_NODISCARD int
numio_join_set_spawn_co_at(const struct numio_site *site, struct numio_join_set *set,
                           struct numio_handle *handle, int64_t (*fn)(void *arg), void *arg,
                           const struct numio_spawn_opts *opts, uint64_t *ret_id);

/* One that has ended. */
struct numio_joined {
    uint64_t id;
    const char *name; /* as it was given to the spawn */
    int64_t result;   /* as that of numio_join_await() */
};

/* Takes the next result, in the order in which the tasks ended; waits for one if there is none.
 * A future's output is copied to ret_output, `output_size` bytes at most; NULL: it is not wanted.
 * Context: a coroutine suspends, a plain thread sleeps.
 * Errors:  *ret_joined is not written, and nothing is lost: -ENOENT the set is empty; -ECANCELED,
 *          -ETIMEDOUT; -EDEADLK would block a worker. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_join_set_next(struct numio_join_set *set,
                                                     struct numio_joined *ret_joined,
                                                     void *ret_output, size_t output_size);
/* The same without waiting: -EAGAIN none has ended.   Context: any. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_join_set_try_next(struct numio_join_set *set,
                                                         struct numio_joined *ret_joined,
                                                         void *ret_output, size_t output_size);
/* Prepares an operation that ends with 0 when there is a result for numio_join_set_try_next(), and
 * with -ENOENT if the set is empty. */
NUMIO_EXPORT void numio_op_join_set(struct numio_op *op, struct numio_join_set *set);

/* Asks all tasks of the set to end; their results are taken as those of others.   Context: any. */
NUMIO_EXPORT void numio_join_set_abort_all(struct numio_join_set *set);
/* Forgets all tasks of the set: those that run go on, results that were not taken are dropped.  The
 * set is empty then, and may be used again.   Context: any.   Errors: -ENOMEM nothing is changed.
 */
NUMIO_EXPORT NUMIO_NODISCARD int numio_join_set_detach_all(struct numio_join_set *set);
/* Tasks of which no result has been taken. */
NUMIO_EXPORT uint64_t numio_join_set_length(const struct numio_join_set *set);

NUMIO_END_DECLS

#endif
