/* SPDX-License-Identifier: MIT */
/* A runtime whose time stands (numio_time_pause()): its parks, and the jump to the next timer when
 * nothing else can happen.
 *
 * Each worker that is about to park counts itself as still, under the lock of the timeline, and
 * takes itself out when the park has ended.  Whoever makes the count complete looks at all queues:
 * a worker that was woken, but has not taken itself out yet, has a pending wake, or what it was
 * woken for is still where it was put, since it takes nothing before.  If there is nothing, and no
 * function runs on the blocking pool, all that can happen without the outside is a timer: the time
 * jumps to the earliest and the workers that have one due are woken.
 *
 * Operations in the kernel may end at any moment, so with some in flight the jump comes only when
 * the rings have nothing that the kernel has not taken, and nothing from it, and after GRACE_NS of
 * the machine's time in which no task was polled: what the kernel has at hand comes first, what
 * waits for the outside does not hold the time up.
 *
 * Pause and resume wake all workers, so that each parks again by the rules that hold now.
 */
#include "runtime/sched/still.h"

#include <errno.h>

#include <numio/time.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"

enum { GRACE_NS = 1000000 };

static void wake_all(struct numio_handle *handle)
{
    for (unsigned i = 0; i < handle->worker_count; i++)
        nio_wake_worker(handle->workers[i], NULL);
}

/* Those that have a timer due, but the calling worker. */
static void wake_due(struct nio_worker *self)
{
    struct numio_handle *handle = self->handle;
    uint64_t now_ns = nio_timeline_now_ns(&handle->timeline);
    for (unsigned i = 0; i < handle->worker_count; i++)
        if (handle->workers[i] != self &&
            nio_driver_next_timer_ns(handle->workers[i]->driver) <= now_ns)
            nio_wake_worker(handle->workers[i], self);
}

static uint64_t polls_of(const struct numio_handle *handle)
{
    uint64_t polls = 0;
    for (unsigned i = 0; i < handle->worker_count; i++)
        polls += nio_counter(&handle->workers[i]->counters.polls);
    return polls;
}

static bool worker_is_still(struct nio_worker *worker)
{
    return !nio_parker_has_wake(&worker->parker) && !nio_sees_work(worker) &&
           !nio_driver_is_busy(worker->driver);
}

/* Under the lock. */
static bool is_still(const struct numio_handle *handle, const struct nio_stillness *still)
{
    /* [BJ1] acquire: sees what the functions have woken.  Pairs with [BJ2]. */
    if (still->workers != handle->worker_count || nio_phase(handle) != NIO_PHASE_RUNNING ||
        atomic_load_explicit(&handle->blocking_jobs, memory_order_acquire) != 0)
        return false;
    for (unsigned i = 0; i < handle->worker_count; i++)
        if (!worker_is_still(handle->workers[i]))
            return false;
    return true;
}

/* Under the lock: whether what the kernel may have at hand has had its time. */
static bool has_had_grace(const struct numio_handle *handle, struct nio_stillness *still)
{
    if (still->io == 0)
        return true;
    uint64_t polls = polls_of(handle), now_ns = nio_now_ns();
    if (still->since_ns == 0 || still->polls != polls) {
        still->polls = polls;
        still->since_ns = now_ns;
    }
    return now_ns - still->since_ns >= GRACE_NS;
}

/* Under the lock: to the earliest timer.  False: there is none. */
static bool jump(struct numio_handle *handle)
{
    uint64_t next_ns = NIO_TIME_NONE;
    for (unsigned i = 0; i < handle->worker_count; i++) {
        uint64_t timer_ns = nio_driver_next_timer_ns(handle->workers[i]->driver);
        next_ns = timer_ns < next_ns ? timer_ns : next_ns;
    }
    if (next_ns == NIO_TIME_NONE)
        return false;
    nio_timeline_set(&handle->timeline, next_ns);
    return true;
}

/* Owner, under the lock: counts as still, with `io` operations in the kernel.  How long it may
 * park. */
static int64_t enter(struct nio_worker *worker, unsigned io, int64_t timeout_ns,
                     bool *ret_has_jumped)
{
    struct numio_handle *handle = worker->handle;
    struct nio_stillness *still = &handle->timeline.still;
    still->workers++;
    still->io += io;
    *ret_has_jumped = false;
    bool is_complete = still->workers == handle->worker_count;
    if (!is_complete || still->is_by_hand || !nio_timeline_stands(&handle->timeline))
        return timeout_ns;
    if (is_still(handle, still) && has_had_grace(handle, still)) {
        still->since_ns = 0;
        *ret_has_jumped = jump(handle);
        return *ret_has_jumped ? 0 : timeout_ns;
    }
    return timeout_ns < 0 || timeout_ns > GRACE_NS ? GRACE_NS : timeout_ns; /* looks again */
}

static void leave(struct nio_worker *worker, unsigned io)
{
    struct nio_timeline *timeline = &worker->handle->timeline;
    nio_lock_acquire(&timeline->lock);
    timeline->still.workers--;
    timeline->still.io -= io;
    nio_lock_release(&timeline->lock);
}

NIO_COLD void nio_park_still(struct nio_worker *worker, int64_t timeout_ns)
{
    struct numio_handle *handle = worker->handle;
    bool has_jumped;
    nio_flush_own(worker); /* what it submitted is on its way, or in the ring for others to see */
    unsigned io = nio_driver_in_kernel(worker->driver);
    nio_driver_settle_timers(worker->driver); /* others read the earliest */
    nio_lock_acquire(&handle->timeline.lock);
    timeout_ns = enter(worker, io, timeout_ns, &has_jumped);
    nio_lock_release(&handle->timeline.lock);
    if (has_jumped)
        wake_due(worker);
    else
        nio_parker_park_unless(&worker->parker, worker->driver, timeout_ns, &worker->mailbox);
    leave(worker, io);
}

/* ---- numio/time.h ------------------------------------------------------------------------- */

uint64_t numio_now_ns(void)
{
    const struct nio_worker *worker = nio_worker_current();
    return worker ? nio_timeline_now_ns(&worker->handle->timeline) : nio_now_ns();
}

static int resolve(struct numio_handle **handle, const char *call)
{
    *handle = nio_handle_resolve(*handle);
    if (!*handle)
        return nio_error(-EINVAL, "%s: no runtime: outside of its tasks it needs a handle", call);
    if (!nio_is_own_process(*handle))
        return nio_refuse_forked_child();
    return nio_phase(*handle) == NIO_PHASE_RUNNING ? 0 : -ESHUTDOWN;
}

static int change(struct numio_handle *handle, const char *call,
                  bool (*change_it)(struct nio_timeline *timeline))
{
    int rc = resolve(&handle, call);
    if (rc < 0)
        return rc;
    nio_lock_acquire(&handle->timeline.lock);
    bool has_changed = change_it(&handle->timeline);
    nio_lock_release(&handle->timeline.lock);
    if (!has_changed)
        return -EALREADY;
    wake_all(handle);
    return 0;
}

int numio_time_pause(struct numio_handle *handle)
{
    return change(handle, "numio_time_pause", nio_timeline_pause);
}

int numio_time_resume(struct numio_handle *handle)
{
    return change(handle, "numio_time_resume", nio_timeline_resume);
}

int numio_time_by_hand(struct numio_handle *handle, bool is_by_hand)
{
    int rc = resolve(&handle, "numio_time_by_hand");
    if (rc < 0)
        return rc;
    nio_lock_acquire(&handle->timeline.lock);
    handle->timeline.still.is_by_hand = is_by_hand;
    nio_lock_release(&handle->timeline.lock);
    wake_all(handle);
    return 0;
}

int numio_time_advance(struct numio_handle *handle, uint64_t by_ns)
{
    int rc = resolve(&handle, "numio_time_advance");
    if (rc < 0)
        return rc;
    struct nio_timeline *timeline = &handle->timeline;
    nio_lock_acquire(&timeline->lock);
    bool stands = nio_timeline_stands(timeline);
    if (stands) {
        uint64_t now_ns = nio_timeline_virtual_ns(timeline);
        nio_timeline_set(timeline, by_ns < NIO_TIME_FAR - now_ns ? now_ns + by_ns : NIO_TIME_FAR);
    }
    nio_lock_release(&timeline->lock);
    if (!stands)
        return nio_error(-EINVAL, "numio_time_advance: the time is not paused");
    wake_all(handle);
    return 0;
}
