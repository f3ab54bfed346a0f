/* SPDX-License-Identifier: MIT */
/* sched/policy.h: what the scheduler decides, as functions of plain numbers: who is woken for new
 * work, when work may leave its node, and how much of it, how long to spin.  The scheduler and the
 * simulation in perf/model/ use the same ones.
 *
 * The gate between nodes: a task that runs on another node finds its cell, its stack and what it
 * works on there, at twice the latency and a fraction of the bandwidth, for as long as it lives. So
 * little imbalances are left to even out by themselves: a thief must have been idle for a while
 * (longer than a worker takes to come around) and the queue be so deep that its owners need
 * several turns for it.  In the model of perf/model/, under a load that is all born on one node
 * of four, a gate of 20 us and 8 tasks a time reached 61 % of a flat policy's throughput on 64
 * cores, 10 us and a quarter of the queue 90 %, 5 us 95 %; on this side, of the tour's million
 * tasks on two emulated nodes 0.7, 1.5 and 2.6 % crossed.  What waits where nobody gets on is
 * helped in the end, whatever its number: stuck.h.
 */
#ifndef NIO_SCHED_POLICY_H
#define NIO_SCHED_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum {
    NIO_FAR_DEPTH = 8,       /* a queue this deep may lose tasks to another node, */
    NIO_FAR_IDLE_NS = 10000, /* if the thief has been idle so long */
    NIO_FAR_SHARE = 8,       /* tasks taken from another node at once */
    NIO_WAKE_NS = 20000,     /* from the wake of a sleeping thread until it runs: half a round
                                trip by futexes, of which wake_floor measures 37 to 60 us */
    NIO_IDLE_WEIGHT = 8      /* of so many parts of the average a pause is one */
};

/* Whether a thief may look at other nodes.  `idle_ns`: how long it has had nothing to do. */
static inline bool nio_policy_may_go_far(uint64_t idle_ns)
{
    return idle_ns >= NIO_FAR_IDLE_NS;
}

/* Most tasks that a thief takes of a queue with `depth`: half of what is near; of what is far a
 * few, so that a node that is about to catch up is not emptied, or a quarter, so that a lasting
 * imbalance does not have it come again and again. */
static inline uint32_t nio_policy_share(uint32_t depth, bool is_near)
{
    uint32_t half = depth - depth / 2;
    if (is_near || half <= NIO_FAR_SHARE)
        return half;
    return depth / 4 > NIO_FAR_SHARE ? depth / 4 : NIO_FAR_SHARE;
}

enum nio_policy_wake {
    NIO_WAKE_NOBODY, /* somebody searches and will come by */
    NIO_WAKE_HOME,   /* a sleeper of the node */
    NIO_WAKE_FAR     /* all of the node are busy: one of another node, if the work may leave */
};

/* Whom to wake after a push to a queue of a node with so many searchers and sleepers. */
static inline enum nio_policy_wake nio_policy_wake(unsigned searching, unsigned sleeping)
{
    if (searching > 0)
        return NIO_WAKE_NOBODY;
    return sleeping > 0 ? NIO_WAKE_HOME : NIO_WAKE_FAR;
}

/* The average time that work took to come, after a pause.  Of a sleep the wake is taken off: else a
 * worker that once slept would go on sleeping, for the very wakes that spinning spares.  One long
 * pause must not outweigh many short ones: it counts as eight times the limit for spinning. */
static inline uint64_t nio_policy_idle_average(uint64_t average_ns, uint64_t pause_ns,
                                               bool has_slept, uint64_t spin_ns)
{
    if (has_slept)
        pause_ns = pause_ns > NIO_WAKE_NS ? pause_ns - NIO_WAKE_NS : 0;
    if (pause_ns > 8 * spin_ns)
        pause_ns = 8 * spin_ns;
    return average_ns - average_ns / NIO_IDLE_WEIGHT + pause_ns / NIO_IDLE_WEIGHT;
}

/* How much before its earliest timer a worker is to be woken, so that it is there in time: kept
 * where one wake in four comes before the deadline, and is spun off, and three come after it.  A
 * step is a 64th of `spin_ns`, which is also the most.  `late_ns`: how long after the asked moment
 * it woke. */
static inline uint64_t nio_policy_early(uint64_t early_ns, uint64_t late_ns, uint64_t spin_ns)
{
    uint64_t step_ns = spin_ns / 64 + 1;
    if (late_ns > early_ns)
        return early_ns + step_ns < spin_ns ? early_ns + step_ns : spin_ns;
    return early_ns > 3 * step_ns ? early_ns - 3 * step_ns : 0;
}

/* Whether work of a queue so deep may leave its node. */
static inline bool nio_policy_may_leave(uint32_t depth)
{
    return depth >= NIO_FAR_DEPTH;
}

#endif
