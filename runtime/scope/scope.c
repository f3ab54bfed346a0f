/* SPDX-License-Identifier: MIT */
/* Scopes: a counter for the children that have not ended, and a list of all.
 *
 * The list is the owner's, the coroutine that opened the scope; only it spawns.  It holds a
 * reference to each child, so that a child's memory is there as long as it is listed, and children
 * that end change nothing in it.  The owner sweeps those that have ended out of it now and then:
 * when the list is twice as long as after the last sweep.
 *
 * The counter `_left` is everybody's, and nobody counts up when spawning: a child that ends counts
 * down, at first below zero; the close adds the number of children that were spawned [SC1].  From
 * then on it is the number of those that run, and who counts down from one is the last and ends the
 * wait of the close.  Before that it cannot be one.  Counting down is a child's last access to the
 * scope, but for the last's, which the owner waits for.
 *
 * A child that fails first stores its error, sets `_has_failed`, and sends the owner on an errand:
 * its state word gets ERRAND, with a wake, before the child counts down, so that the owner is still
 * there.  The worker that has the owner next walks its scopes and aborts the rest
 * (nio_scopes_errand()).  So the list needs no lock; an owner that computes and never suspends is
 * not reached until it does.
 *
 * The wait of the close is never cancelled: an abort of the owner reaches close_leave(), which
 * aborts the children and lets the wait go on; so does a deadline, for futures, which have not
 * taken it over.
 *
 * A child's cost beside a plain spawn: no read-modify-write on its own word when it ends
 * (task/group.h), and one on the counter; none for spawning, and no join.
 */
#include <numio/scope.h>

#include <errno.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/sched/extra.h"
#include "runtime/sched/scopes.h"
#include "runtime/sched/spawn.h"
#include "runtime/sched/wait_await.h"

#ifdef NIO_TINY
enum { SWEEP_MIN = 4 };
#else
enum { SWEEP_MIN = 64 };
#endif

enum { FLAGS = NUMIO_SCOPE_KEEP_GOING | NUMIO_SCOPE_NO_DEADLINE };

static _Atomic uint64_t *left_of(const struct numio_scope *scope)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint64_t *)(uintptr_t)&scope->_left;
}

static _Atomic int64_t *error_of(const struct numio_scope *scope)
{
    return (_Atomic int64_t *)(uintptr_t)&scope->_error;
}

/* ---- a child's end ------------------------------------------------------------------------- */

static NIO_COLD void note_error(struct numio_scope *scope, int64_t error)
{
    int64_t none = 0;
    /* relaxed: the counter publishes it, [SC2] */
    bool is_first = atomic_compare_exchange_strong_explicit(
        error_of(scope), &none, error, memory_order_relaxed, memory_order_relaxed);
    if (!is_first || (scope->_flags & NUMIO_SCOPE_KEEP_GOING))
        return;
    /* relaxed: the wake publishes it */
    atomic_store_explicit(nio_scope_has_failed(scope), 1, memory_order_relaxed);
    nio_wake_act(scope->_owner, nio_state_wake_errand(scope->_owner));
}

static void child_ended(struct numio_group_ *group, struct nio_task *task, int64_t result)
{
    struct numio_scope *scope = NIO_CONTAINER_OF(group, struct numio_scope, _group);
    (void)task; /* it may be swept out by now */
    if (NIO_UNLIKELY(result < 0))
        note_error(scope, result);
    /* [SC2] acq_rel: what the child did is seen by the last one, which hands it to the owner with
     * its wake, or by the owner [SC1]; the last one sees the wait.  Pairs with itself and [SC1]. */
    if (atomic_fetch_sub_explicit(left_of(scope), 1, memory_order_acq_rel) == 1)
        nio_wait_done(scope->_wait, 0);
}

/* ---- opening and spawning ------------------------------------------------------------------ */

int numio_scope_open(struct numio_scope *scope, unsigned flags)
{
    struct nio_co *co = nio_co_current();
    if (NIO_UNLIKELY(!co))
        return nio_error(-EINVAL, "scope: opened outside of a coroutine");
    if (NIO_UNLIKELY(flags & ~(unsigned)FLAGS))
        return nio_error(-EINVAL, "scope: unknown flags 0x%x", flags);
    bool has_limit = co->deadline && !(flags & NUMIO_SCOPE_NO_DEADLINE);
    scope->_group._ended = child_ended;
    scope->_owner = &co->task;
    scope->_outer = co->task.scopes;
    scope->_first = scope->_last = NULL;
    scope->_wait = NULL;
    scope->_limit_ns = has_limit ? co->deadline->_at_ns : UINT64_MAX;
    scope->_spawned = scope->_listed = 0;
    scope->_sweep_at = SWEEP_MIN;
    scope->_flags = flags;
    scope->_is_aborted = false;
    scope->_has_failed = 0;
    scope->_error = 0;
    scope->_left = 0;
    co->task.scopes = scope;
    return 0;
}

static NIO_COLD int refuse(const char *what)
{
    return nio_error(-EPERM,
                     "scope: %s by another task than the one that opened it, or after its "
                     "close",
                     what);
}

/* A shutdown, which has aborted the caller as well, is told apart. */
static NIO_COLD int stopped(void)
{
    if (nio_phase(nio_worker_current()->handle) != NIO_PHASE_RUNNING)
        return nio_error(-ESHUTDOWN, "scope: the runtime is shutting down");
    return -ECANCELED;
}

/* Why no child is spawned; 0. */
static NIO_ALWAYS_INLINE int check(const struct numio_scope *scope)
{
    const struct nio_task *task = nio_task_running();
    if (NIO_UNLIKELY(!task || scope->_owner != task))
        return refuse("spawned into");
    /* relaxed: one that fails meanwhile is heard of by the errand */
    bool has_failed = atomic_load_explicit(nio_scope_has_failed(scope), memory_order_relaxed) != 0;
    bool is_stopped = has_failed || scope->_is_aborted || nio_state_is_cancelled(task);
    return NIO_UNLIKELY(is_stopped) ? stopped() : 0;
}

/* Gives back the children that have ended. */
static NIO_COLD void sweep(struct numio_scope *scope)
{
    struct nio_task *next, *last = NULL;
    for (struct nio_task *task = scope->_first; task; task = next) {
        struct nio_member_links *links = nio_member_links(task);
        next = links->next;
        if (!nio_member_has_ended(task)) {
            links->prev = last;
            last = task;
            continue;
        }
        if (last)
            nio_member_links(last)->next = next;
        else
            scope->_first = next;
        scope->_listed--;
        nio_member_release(task);
    }
    scope->_last = last;
    scope->_sweep_at = 2 * scope->_listed > SWEEP_MIN ? 2 * scope->_listed : SWEEP_MIN;
}

static NIO_ALWAYS_INLINE void adopt(struct numio_scope *scope, struct nio_task *task)
{
    if (NIO_UNLIKELY(scope->_listed >= scope->_sweep_at))
        sweep(scope);
    *nio_member_links(task) = (struct nio_member_links){ NULL, scope->_last };
    if (scope->_last)
        nio_member_links(scope->_last)->next = task;
    else
        scope->_first = task;
    scope->_last = task;
    scope->_listed++;
    scope->_spawned++;
}

int numio_scope_spawn_at(const struct numio_site *site, struct numio_scope *scope,
                         const struct numio_future *future, const struct numio_spawn_opts *opts)
{
    struct nio_new_member member;
    int rc = check(scope);
    if (NIO_LIKELY(rc == 0))
        rc = nio_bind_member(&scope->_group, site, NULL, future, opts, &member);
    if (NIO_UNLIKELY(rc < 0))
        return rc;
    adopt(scope, member.task);
    nio_launch_member(&member);
    return 0;
}

int numio_scope_spawn_co_at(const struct numio_site *site, struct numio_scope *scope,
                            int64_t (*fn)(void *arg), void *arg,
                            const struct numio_spawn_opts *opts)
{
    struct nio_new_member member;
    int rc = check(scope);
    if (NIO_LIKELY(rc == 0))
        rc = nio_bind_member_co(&scope->_group, site, NULL, fn, arg, opts, scope->_limit_ns,
                                &member);
    if (NIO_UNLIKELY(rc < 0))
        return rc;
    adopt(scope, member.task);
    nio_launch_member(&member);
    return 0;
}

int numio_scope_abort(struct numio_scope *scope)
{
    const struct nio_task *task = nio_task_running();
    if (!task || scope->_owner != task)
        return refuse("aborted");
    scope->_is_aborted = true;
    nio_scope_abort_children(scope, false);
    return 0;
}

uint64_t numio_scope_live(const struct numio_scope *scope)
{
    /* relaxed: a figure */
    return scope->_spawned + atomic_load_explicit(left_of(scope), memory_order_relaxed);
}

/* ---- the close ----------------------------------------------------------------------------- */

static bool close_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_scope *scope = nio_wait_object(op);
    scope->_wait = op;
    *ret_result = 0;
    /* [SC1] acq_rel: sees what all children did that have ended; the last one sees the wait.  Pairs
     * with [SC2]. */
    return atomic_fetch_add_explicit(left_of(scope), scope->_spawned, memory_order_acq_rel) +
               scope->_spawned ==
           0;
}

/* The owner is aborted, or late: its worker comes here, and the wait goes on. */
static bool close_leave(struct numio_op *op)
{
    struct numio_scope *scope = nio_wait_object(op);
    struct nio_task *owner = scope->_owner;
    if (nio_state_is_cancelled(owner)) {
        scope->_is_aborted = true;
        nio_scope_abort_children(scope, false);
        return false;
    }
    if (!(scope->_flags & NUMIO_SCOPE_NO_DEADLINE))
        nio_scope_abort_children(scope, true);
    owner->flags &= (uint8_t)~NIO_TASK_OP_CANCELLED; /* an abort is to come here once more */
    return false;
}

static const struct nio_wait_class close_kind = { close_begin, close_leave, NULL };

/* The newest children run inside of the close as long as they would be run next anyway: a tree of
 * scopes that nobody robs suspends nowhere. */
static NIO_ALWAYS_INLINE void run_newest(struct numio_scope *scope, struct nio_co *co)
{
    struct nio_worker *worker = nio_worker_current();
    for (struct nio_task *task = scope->_last; task && !nio_co_stop(co);
         task = nio_member_links(task)->prev)
        if (!nio_run_newest(worker, task))
            break;
    /* relaxed: set by this thread, or heard of by the errand */
    if (NIO_UNLIKELY(atomic_load_explicit(nio_scope_has_failed(scope), memory_order_relaxed) != 0))
        nio_scopes_errand(co);
}

int64_t numio_scope_close(struct numio_scope *scope)
{
    struct nio_co *co = nio_co_current();
    if (NIO_UNLIKELY(!co || co->task.scopes != scope))
        return nio_error(-EINVAL, "scope: closed one that is not the innermost open scope of the "
                                  "calling coroutine");
    run_newest(scope, co);
    struct numio_op op;
    nio_wait_prep(&op, &close_kind, scope, 0);
    int32_t rc = nio_wait_await(&op);
    if (NIO_UNLIKELY(rc < 0))
        return rc; /* a forked child, where nobody ends */
    struct nio_task *next;
    for (struct nio_task *task = scope->_first; task; task = next) {
        next = nio_member_links(task)->next;
        nio_member_release(task);
    }
    scope->_owner = NULL;
    co->task.scopes = scope->_outer;
    /* relaxed: [SC1], or the last child's wake, has ordered it */
    return atomic_load_explicit(error_of(scope), memory_order_relaxed);
}
