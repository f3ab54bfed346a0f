/* SPDX-License-Identifier: MIT */
/* numio/time.h: points in time, sleeping until one, and what comes again and again.
 *
 * A point in time is a number of nanoseconds of numio_now_ns(), a delay is a number of nanoseconds.
 * Nothing ends early; how late it ends is up to the machine: microseconds on an idle one.
 *
 *     numio_sleep_ns(delay)        a coroutine waits for a while        <numio/io.h>
 *     numio_sleep_until(point)     ... until a point in time
 *     struct numio_interval        ... again and again, one coroutine, no descriptor, no memory;
 *                                  what happens to ticks that it misses is up to it
 *     numio_interval_stream()      a stream of periods: counts what was missed, can be waited for
 *                                  by a future or together with other streams    <numio/stream.h>
 *     numio_op_timeout(), _at()    a future, or a batch of operations            <numio/op.h>
 *     struct numio_deadline        a limit for everything that a coroutine awaits
 * <numio/deadline.h>
 *
 * Timers cost no system call and no memory.  Many that may be a little late share their wakes if
 * their points are rounded by numio_time_coalesce().
 *
 * Tests need not wait: numio_time_pause() stops a runtime's time and has it jump.
 */
#ifndef NUMIO_TIME_H
#define NUMIO_TIME_H

#include <numio/runtime.h>

NUMIO_BEGIN_DECLS

/* Now: nanoseconds of CLOCK_MONOTONIC, or, in a task of a runtime whose time is or was paused, of
 * that.   Context: any thread; never suspends. */
NUMIO_EXPORT uint64_t numio_now_ns(void);

/* Sleeps until `deadline_ns`; returns at once if that has passed.
 * Context: a coroutine; suspends.
 * Returns: 0 once the time has come.
 * Errors:  -ECANCELED aborted; -ETIMEDOUT a deadline scope has ended first; -EINVAL no coroutine.
 */
NUMIO_EXPORT int64_t numio_sleep_until(uint64_t deadline_ns);

/* The roundest point from `deadline_ns` on and not more than `tolerance_ns` after it.  Different
 * deadlines are rounded to the same point if they can be, and so end with the same wake of their
 * worker, as timers of the Linux kernel do by their slack.
 * Context: any thread; pure.   Units: nanoseconds; a tolerance of 0 changes nothing. */
NUMIO_EXPORT uint64_t numio_time_coalesce(uint64_t deadline_ns, uint64_t tolerance_ns);

/* What follows a tick that is asked for too late: by a period or by 5 ms, whichever is less.  With
 * a period of 50, and 120 spent between the second tick and the call for the third:
 *
 *     due            0    50   100       150       200   250
 *     BURST          0    50  (170)(170)      200   250       all are made up for, at once
 *     DELAY          0    50  (170)     220   270             from there on, a period apart
 *     SKIP           0    50  (170)           200   250       those missed are left out
 */
enum numio_missed { NUMIO_MISSED_BURST = 0, NUMIO_MISSED_DELAY, NUMIO_MISSED_SKIP };

/* Ticks of a period for one coroutine at a time.  All fields are private; it owns nothing and may
 * be forgotten. */
struct numio_interval {
    uint64_t _due_ns; /* of the next tick */
    uint64_t _period_ns;
    uint64_t _tolerance_ns;
    enum numio_missed _missed;
};

/* Begins: the first tick is due at `first_ns`, 0: now.
 * Context: any.   Units: nanoseconds.
 * Errors:  -EINVAL the period is 0, or `missed` is no enum numio_missed. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_interval_init(struct numio_interval *interval,
                                                     uint64_t first_ns, uint64_t period_ns,
                                                     enum numio_missed missed);

/* Each tick may be so much late, to share wakes with others; none is early, and lateness does not
 * add up.   Context: any.   Units: nanoseconds, 0 after the init. */
NUMIO_EXPORT void numio_interval_set_tolerance(struct numio_interval *interval,
                                               uint64_t tolerance_ns);

/* Waits for the next tick; returns at once if it is due.  Ticks are multiples of the period from
 * the first on, however late each was taken, unless the policy says otherwise. Context: a
 * coroutine; suspends. Owns:    *ret_due_ns, if not NULL, is when the tick was due; untouched on
 * failure. Errors:  -ECANCELED, -ETIMEDOUT as for numio_sleep_until(): then the tick is still to
 * come; -EINVAL no coroutine. */
NUMIO_EXPORT int64_t numio_interval_next(struct numio_interval *interval, uint64_t *ret_due_ns);

/* The next tick is due a period from now.   Context: any. */
NUMIO_EXPORT void numio_interval_reset(struct numio_interval *interval);

/* When the next tick is due.   Context: any. */
NUMIO_EXPORT uint64_t numio_interval_due_ns(const struct numio_interval *interval);

/* ---- time for tests ------------------------------------------------------------------------
 *
 * While a runtime's time is paused, all that goes by numio_now_ns() in its tasks stands: sleeps,
 * deadlines, intervals, periods, timeouts of operations and futures.  I/O goes on.  Whenever
 * nothing is left to do, that is, no task is ready, no function runs on the blocking pool, and the
 * operations in the kernel, if there are any, have brought nothing for a millisecond, the time
 * jumps to the next timer.  So a test of a day of sleeps takes milliseconds, in the same order.
 *
 * Waits of plain threads (numio_join_wait(), numio_runtime_shutdown()) and sleeping policies go by
 * the machine's clock.  Threads outside of the runtime are not waited for. */

/* Stops the time of a runtime; NULL: the caller's.
 * Context: any thread; never suspends.
 * Errors:  -EALREADY it is paused; -EINVAL no runtime; -ESHUTDOWN. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_time_pause(struct numio_handle *handle);

/* It flows on from where it stands, which then differs from the machine's for good.
 * Context, errors: as numio_time_pause(); -EALREADY it is not paused. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_time_resume(struct numio_handle *handle);

/* Whether the paused time goes by numio_time_advance() only, and does not jump by itself; false at
 * first.   Context, errors: as numio_time_pause(); also while it is not paused. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_time_by_hand(struct numio_handle *handle, bool is_by_hand);

/* Moves the paused time on by `by_ns` at once.  Timers that are due then end, in the order of their
 * deadlines on each worker, after this call: as soon as their workers get to it.
 * Context: any thread; never suspends.
 * Errors:  -EINVAL it is not paused, or no runtime; -ESHUTDOWN. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_time_advance(struct numio_handle *handle, uint64_t by_ns);

NUMIO_END_DECLS

#endif
