/* SPDX-License-Identifier: MIT */
/* time/timeline.h: the time of one runtime: the machine's clock, or, for tests, one that stands and
 * is moved by hand or from timer to timer (sched/still.c).
 *
 *   REAL --pause--> STANDS --resume--> FLOWS --pause--> STANDS     advance: within STANDS
 *
 * REAL is nio_now_ns().  FLOWS is as well, but for a distance that the pauses have made: a runtime
 * that was ever paused never gets back to REAL, or its timers would be at odds with it.
 * Deadlines, timeouts, periods and numio_now_ns() in tasks use it.  What measures the machine (the
 * scheduler's pauses, kernel timeouts, waits of plain threads) uses nio_now_ns().
 *
 * Any thread reads: REAL costs one load and a branch that is always taken.  Writers hold `lock`.
 */
#ifndef NIO_TIME_TIMELINE_H
#define NIO_TIME_TIMELINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/clock.h"
#include "runtime/base/compiler.h"
#include "runtime/base/lock.h"

#define NIO_TIME_NONE UINT64_MAX
#define NIO_TIME_FAR (UINT64_MAX - 1) /* the latest deadline, centuries away */

enum nio_timeline_state { NIO_TIMELINE_REAL = 0, NIO_TIMELINE_STANDS, NIO_TIMELINE_FLOWS };
enum { NIO_TIMELINE_CHANGE = 4 }; /* one more, in the word */

/* What the workers of a paused runtime say of themselves, under the lock: sched/still.c. */
struct nio_stillness {
    unsigned workers;  /* that have nothing to do and are about to park, or parked */
    unsigned io;       /* operations that those have in the kernel */
    uint64_t polls;    /* of all workers, when it became still */
    uint64_t since_ns; /* and when that was, by the machine's clock; 0: it is not */
    bool is_by_hand;   /* the time goes by numio_time_advance() only */
};

struct nio_timeline {
    /* any thread reads; written under the lock */
    _Atomic uint64_t state;     /* enum nio_timeline_state, above it how often that has changed */
    _Atomic uint64_t stands_ns; /* STANDS: the time */
    _Atomic uint64_t ahead_ns;  /* FLOWS: to be added to the machine's, modulo 2^64 */
    struct nio_lock lock;
    struct nio_stillness still; /* under the lock */
};

/* The machine's, for drivers without a runtime; never written. */
extern const struct nio_timeline nio_timeline_real;

void nio_timeline_init(struct nio_timeline *timeline);
NIO_COLD uint64_t nio_timeline_virtual_ns(const struct nio_timeline *timeline);

static inline enum nio_timeline_state nio_timeline_state(const struct nio_timeline *timeline)
{
    /* relaxed: a worker that must see a change is woken for it */
    return (enum nio_timeline_state)(atomic_load_explicit(&timeline->state, memory_order_relaxed) %
                                     NIO_TIMELINE_CHANGE);
}

static inline uint64_t nio_timeline_now_ns(const struct nio_timeline *timeline)
{
    if (NIO_LIKELY(nio_timeline_state(timeline) == NIO_TIMELINE_REAL))
        return nio_now_ns();
    return nio_timeline_virtual_ns(timeline);
}

static inline bool nio_timeline_stands(const struct nio_timeline *timeline)
{
    return NIO_UNLIKELY(nio_timeline_state(timeline) == NIO_TIMELINE_STANDS);
}

/* Under the lock.  False: it stands already, or does not. */
bool nio_timeline_pause(struct nio_timeline *timeline);
bool nio_timeline_resume(struct nio_timeline *timeline);
/* Under the lock, while it stands: not backwards. */
void nio_timeline_set(struct nio_timeline *timeline, uint64_t to_ns);

#endif
