/* SPDX-License-Identifier: MIT */
/* Sleeping coroutines, and intervals. */
#include <numio/time.h>

#include <errno.h>

#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"

/* A tick that is later than this is a missed one, also of a longer period (Tokio's figure). */
static const uint64_t late_max_ns = 5000000;

uint64_t numio_time_coalesce(uint64_t deadline_ns, uint64_t tolerance_ns)
{
    uint64_t limit_ns =
        tolerance_ns < UINT64_MAX - deadline_ns ? deadline_ns + tolerance_ns : UINT64_MAX;
    if (deadline_ns == 0)
        return 0;
    /* The highest bit in which the limit differs from what is just too early is one of the limit's:
     * with zeros below it that is still not too early, and nothing between has more of them (as
     * apply_slack() in Linux' kernel/time/timer.c, which leaves the deadline itself out). */
    unsigned bit = 63u - (unsigned)__builtin_clzll((deadline_ns - 1) ^ limit_ns);
    return limit_ns >> bit << bit;
}

/* A timeout ends by its time: that is no error here. */
static int64_t sleep_for(struct numio_op *op)
{
    int64_t result = numio_op_await(op);
    return result == -ETIME ? 0 : result;
}

int64_t numio_sleep_ns(uint64_t delay_ns)
{
    struct numio_op op;
    numio_op_timeout(&op, delay_ns);
    return sleep_for(&op);
}

int64_t numio_sleep_until(uint64_t deadline_ns)
{
    struct nio_co *co = nio_co_current();
    if (!co)
        return nio_error(-EINVAL, "numio_sleep_until: not called from a coroutine");
    if (numio_now_ns() >= deadline_ns) {
        int stop = nio_co_stop(co);
        if (stop == 0)
            nio_co_charge(co); /* a loop of these must let others run */
        return stop;
    }
    struct numio_op op;
    numio_op_timeout_at(&op, deadline_ns);
    return sleep_for(&op);
}

int numio_interval_init(struct numio_interval *interval, uint64_t first_ns, uint64_t period_ns,
                        enum numio_missed missed)
{
    if (period_ns == 0)
        return nio_error(-EINVAL, "numio_interval_init: the period is 0");
    if ((unsigned)missed > NUMIO_MISSED_SKIP)
        return nio_error(-EINVAL, "numio_interval_init: %d is no enum numio_missed", (int)missed);
    *interval = (struct numio_interval){ ._due_ns = first_ns ? first_ns : numio_now_ns(),
                                         ._period_ns = period_ns,
                                         ._missed = missed };
    return 0;
}

void numio_interval_set_tolerance(struct numio_interval *interval, uint64_t tolerance_ns)
{
    interval->_tolerance_ns = tolerance_ns;
}

static uint64_t add(uint64_t point_ns, uint64_t ns)
{
    return ns < UINT64_MAX - point_ns ? point_ns + ns : UINT64_MAX;
}

/* When the tick after one that was due at `due_ns` and is taken at `now_ns` is due. */
static uint64_t following(const struct numio_interval *interval, uint64_t due_ns, uint64_t now_ns)
{
    uint64_t period_ns = interval->_period_ns;
    uint64_t late_ns = now_ns > due_ns ? now_ns - due_ns : 0;
    uint64_t limit_ns =
        add(interval->_tolerance_ns, period_ns < late_max_ns ? period_ns : late_max_ns);
    if (late_ns < limit_ns)
        return add(due_ns, period_ns);
    switch (interval->_missed) {
    case NUMIO_MISSED_BURST:
        break;
    case NUMIO_MISSED_DELAY:
        return add(now_ns, period_ns);
    case NUMIO_MISSED_SKIP:
        return add(now_ns, period_ns - late_ns % period_ns);
    }
    return add(due_ns, period_ns);
}

int64_t numio_interval_next(struct numio_interval *interval, uint64_t *ret_due_ns)
{
    uint64_t due_ns = interval->_due_ns;
    int64_t rc = numio_sleep_until(numio_time_coalesce(due_ns, interval->_tolerance_ns));
    if (rc < 0)
        return rc;
    interval->_due_ns = following(interval, due_ns, numio_now_ns());
    if (ret_due_ns)
        *ret_due_ns = due_ns;
    return 0;
}

void numio_interval_reset(struct numio_interval *interval)
{
    interval->_due_ns = add(numio_now_ns(), interval->_period_ns);
}

uint64_t numio_interval_due_ns(const struct numio_interval *interval)
{
    return interval->_due_ns;
}
