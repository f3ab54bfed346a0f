/* SPDX-License-Identifier: MIT */
/* model.h: a discrete-event model of workers on machines that are larger than those at hand.
 *
 * Simulated are cores with run queues, tasks that take time, thieves, sleepers and wakes; what a
 * thief may take and who is woken is decided by the scheduler's own functions (sched/policy.h), or
 * by a flat policy, or nobody steals.  Times are those of published measurements: README.md.  One
 * thread; the same seed gives the same run.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum model_policy { MODEL_NUMIO, MODEL_FLAT, MODEL_NO_STEALING, MODEL_POLICIES };

enum model_load {
    MODEL_BALANCED, /* every core has tasks of its own */
    MODEL_SKEWED,   /* all tasks are born on the first node */
    MODEL_TREE,     /* one task forks into many */
    MODEL_LOADS
};

struct model_setup {
    unsigned nodes, cores_per_node;
    enum model_policy policy;
    enum model_load load;
    uint64_t seed;
};

struct model_result {
    uint64_t born, ended; /* tasks */
    uint64_t far_lines;   /* cache lines that went from one node to another */
    uint64_t crossed;     /* tasks that ran on another node than their home */
    double time_ns;
};

extern const char *const model_policy_names[MODEL_POLICIES];
extern const char *const model_load_names[MODEL_LOADS];

/* Runs one simulation; ends the program if memory runs out. */
struct model_result model_run(const struct model_setup *setup);

#endif
