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

/* How long a cache line takes from core to core; README.md says who has measured it. */
struct model_machine {
    const char *name, *title;
    double node_line_ns;    /* between cores of a node, */
    double package_line_ns; /* of two nodes of a package, */
    double far_line_ns;     /* of two packages */
    unsigned nodes_per_package;
};

struct model_setup {
    const struct model_machine *machine;
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

enum { MODEL_MACHINES = 3 };

extern const struct model_machine model_machines[MODEL_MACHINES];
extern const char *const model_policy_names[MODEL_POLICIES];
extern const char *const model_load_names[MODEL_LOADS];

/* Runs one simulation; ends the program if memory runs out. */
struct model_result model_run(const struct model_setup *setup);

#endif
