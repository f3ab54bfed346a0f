/* SPDX-License-Identifier: MIT */
/* numa/replan.h: a plan + the CPUs that are left of it -> where its threads run now.
 *
 * CPUs are taken from a process and given back while it runs: a cgroup's cpuset shrinks, a CPU is
 * unplugged, somebody uses taskset.  A pure function decides who runs where then; like the plan it
 * touches no thread, and the same arguments give the same answer.  The rules, in their order:
 *
 *  1. A worker whose CPU is there is at home.
 *  2. A worker whose CPU is there, but which was bound to others from outside, is left where it
 *     was put.
 *  3. A worker without its CPU moves to a free one of its node: no worker's, nor the SQ thread's.
 *     If it has moved to one before, it stays there.
 *  4. If its node has CPUs but none is free, it retires: it goes on serving what only it can serve
 *     and shares the node's CPUs for that.  Two active workers on one CPU would only hold each
 *     other up.
 *  5. If its node has no CPU left it is a guest of the nearest node that has: active on a free CPU,
 *     else retired.
 *  6. Every node keeps one active worker, for the tasks that may not leave it.
 *
 * An SQ thread without its CPU gets a free one of its node, else shares the workers'.  Whoever may
 * have to share its CPU must not spin.  CPUs that the plan does not know are used only when none
 * that it knows is left.
 */
#ifndef NIO_NUMA_REPLAN_H
#define NIO_NUMA_REPLAN_H

#include <sched.h>

#include "numa/plan.h"

enum nio_whereabouts {
    NIO_AT_HOME = 0, /* on its planned CPU */
    NIO_MOVED,       /* on other CPUs of its node */
    NIO_GUEST,       /* on CPUs of another node, or that the plan does not know */
    NIO_OUTSIDE,     /* where somebody else has bound it to */
    NIO_WHEREABOUTS_COUNT
};

struct nio_seat {
    enum nio_whereabouts where;
    bool is_retired; /* workers only */
    bool may_spin;   /* workers only: nobody shares its CPU */
    int cpu;         /* what to bind it to, -1: all that are left of `node` */
    int node;        /* -1: all that are left */
};

struct nio_replan_facts {
    const cpu_set_t *allowed; /* the CPUs that the process may use now; one at least */
    bool has_sq;              /* the nodes have SQ threads */
    /* Of each worker: */
    const struct nio_seat *before; /* where it was */
    const bool *is_outside;        /* whether it was bound from outside ... */
    const cpu_set_t *outside;      /* ... and to which CPUs */
    /* Of each node's SQ thread: the same. */
    const bool *is_sq_outside;
    const cpu_set_t *sq_outside;
};

/* Writes a seat for each worker, and one for each node's SQ thread (also where there is
 * none).  Workers that the plan does not bind are at home. */
void nio_replan(const struct nio_plan *plan, const struct nio_replan_facts *facts,
                struct nio_seat *ret_workers, struct nio_seat *ret_sqs);

/* The CPUs that a seat means; not for NIO_OUTSIDE. */
void nio_seat_cpus(const struct nio_plan *plan, const cpu_set_t *allowed,
                   const struct nio_seat *seat, cpu_set_t *ret_cpus);

/* Whether the mask of a thread tells of somebody's wish about it: it differs from what the thread
 * was bound to in CPUs that the process could use `before` and can use `now`.  Others appear in a
 * mask, and vanish from it, as they are plugged in and out. */
bool nio_mask_is_wish(const cpu_set_t *bound, const cpu_set_t *mask, const cpu_set_t *before,
                      const cpu_set_t *now);

/* Whether the plan knows all of `cpus`. */
bool nio_plan_knows(const struct nio_plan *plan, const cpu_set_t *cpus);

#endif
