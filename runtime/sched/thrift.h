/* SPDX-License-Identifier: MIT */
/* sched/thrift.h: whether it pays to take a sibling's tasks.
 *
 * A task that runs elsewhere than where it was spawned costs transfers of cache lines: its cell's
 * to the thief, and back to the owner when he uses the cell again.  For a task of some nanoseconds
 * that is several times the work, and the owner, whose cells go cold, becomes slower than alone:
 * two workers then do less than one.  How small tasks are nobody can tell beforehand, so a thief
 * measures: when it has run dry again it divides the time since it took the first by the number
 * taken.  What they spawned counts as time gained, so the root of a branch always pays.
 *
 * Below NIO_THRIFT_WORTH_NS a task it takes nothing for a while (twice as long after each time in a
 * row), then a few for a new trial.  Meanwhile it looks for what is sent to it, and watches for a
 * sibling that neither polls nor spawns for NIO_STUCK_NS while others wait, which ends the pause at
 * once; so no task waits longer for it than behind a stuck worker's LIFO slot.  A worker that may
 * not spin takes whatever there is.
 *
 * Measured with 4,000 tasks of N ns of work, spawned and joined by one, on two cores 160 ns apart
 * (ns per task; always taking -> with this): N = 0: 306 -> 85, 50: 105 -> 119, 100: 150 -> 152,
 * 200: 215 -> 205, 800: 590 -> 510 (one worker alone: 81, 128, 186, 290, 878).  With 600 in place
 * of 150 tasks of 100 to 400 ns lost a third; with 250, a tenth.
 *
 * All of it is the worker's own, and costs its siblings nothing.
 */
#ifndef NIO_SCHED_THRIFT_H
#define NIO_SCHED_THRIFT_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/compiler.h"

enum {
    NIO_THRIFT_WORTH_NS = 150, /* a stolen empty task costs its thief 80 to 140 ns, see above */
    NIO_THRIFT_PAUSE_MIN_NS = 50000,   /* the first pause */
    NIO_THRIFT_PAUSE_MAX_NS = 1000000, /* NIO_WATCH_NS: what a stuck worker's tasks may wait */
    NIO_THRIFT_LOOK_NS = 10000,        /* between looks for a stuck sibling */
    NIO_THRIFT_TRIAL = 16              /* tasks taken for a new trial */
};

/* Owner only. */
struct nio_thrift {
    uint64_t began_ns; /* when the first task was taken; 0: none since the worker was dry */
    uint64_t until_ns; /* takes nothing before */
    uint32_t taken;    /* since began_ns */
    uint32_t pause_ns; /* how long the last pause was; 0: it pays */
};

/* How many tasks to take at once. */
static inline uint32_t nio_thrift_max(const struct nio_thrift *thrift, uint32_t max)
{
    return thrift->pause_ns != 0 && max > NIO_THRIFT_TRIAL ? NIO_THRIFT_TRIAL : max;
}

/* `count` tasks of others were taken. */
static inline void nio_thrift_took(struct nio_thrift *thrift, uint32_t count, uint64_t now_ns)
{
    if (thrift->began_ns == 0)
        thrift->began_ns = now_ns;
    thrift->taken += count;
}

/* The worker is dry: judges what it took. */
static inline void nio_thrift_judge(struct nio_thrift *thrift, uint64_t now_ns)
{
    uint64_t elapsed_ns = now_ns - thrift->began_ns;
    if (elapsed_ns >= (uint64_t)thrift->taken * NIO_THRIFT_WORTH_NS) {
        thrift->pause_ns = 0;
    } else {
        uint32_t pause_ns = 2 * thrift->pause_ns;
        if (pause_ns < NIO_THRIFT_PAUSE_MIN_NS)
            pause_ns = NIO_THRIFT_PAUSE_MIN_NS;
        if (pause_ns > NIO_THRIFT_PAUSE_MAX_NS)
            pause_ns = NIO_THRIFT_PAUSE_MAX_NS;
        thrift->pause_ns = pause_ns;
        thrift->until_ns = now_ns + pause_ns;
    }
    thrift->began_ns = 0;
    thrift->taken = 0;
}

/* Something shows that others need help, or that the worker is a producer itself. */
static inline void nio_thrift_end(struct nio_thrift *thrift)
{
    thrift->pause_ns = 0;
    thrift->until_ns = 0;
}

#endif
