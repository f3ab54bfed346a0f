/* SPDX-License-Identifier: MIT */
/* numa/plan.h: topology + configuration -> who runs where.
 *
 * A plan is a pure function of its two arguments: the same topology and options give the same
 * plan, no thread, no syscall and no memory policy is touched.  The plan says for every worker
 * its PU and in which order it looks for work to steal, and for every node which CPU its SQ
 * thread gets.  Nodes here are numio's locality domains, numbered 0.. without holes; a node has
 * at least one worker.  Any thread; no locks.  Cost: O(workers^2), at start-up only.
 *
 * "Logical" CPUs are those of the planned machine, which may be emulated; "bind" CPUs are real
 * CPUs of this machine, to which threads are really bound.  On a real topology the two are equal.
 */
#ifndef NIO_NUMA_PLAN_H
#define NIO_NUMA_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <numio/topology.h>

enum nio_tier {
    NIO_TIER_LLC = 0, /* shares the last-level cache */
    NIO_TIER_NODE,    /* same node */
    NIO_TIER_FAR      /* another node; nearer ones come first */
};

/* One candidate of a worker's steal order. */
struct nio_steal_target {
    uint16_t worker;
    uint8_t tier; /* enum nio_tier */
    uint8_t reserved;
    uint16_t distance; /* node distance as the firmware gives it, 10 = local */
    uint16_t node;     /* the target's node */
};

struct nio_plan_worker {
    unsigned node; /* index into nio_plan.nodes */
    unsigned llc;  /* index of its last-level cache, unique in the machine */
    int cpu;       /* the PU in the planned machine (OS index) */
    int bind_cpu;  /* the real CPU the thread is pinned to, -1: not pinned */
    uint32_t core; /* index of its core in the topology */
    /* All other workers, nearest first; steal_count == worker_count - 1.  Within one tier and
     * distance the order is by worker index rotated so that it starts after this worker, which
     * spreads thieves over victims.  Tiers are contiguous. */
    const struct nio_steal_target *steal;
    unsigned steal_count;
};

enum nio_sq_place {
    NIO_SQ_NONE = 0, /* fewer than two CPUs allowed: no SQ thread fits; or none is wanted */
    NIO_SQ_SIBLING,  /* on the SMT sibling of a worker's core */
    NIO_SQ_RESERVED, /* on a core of its own, which has no worker */
    NIO_SQ_SHARED,   /* shares the node's worker cores; no SQ_AFF, the creator's mask rules */
    NIO_SQ_FORCED    /* numio_config.sq_thread_cpu */
};

struct nio_plan_node {
    unsigned worker_first, worker_count; /* workers of a node are contiguous */
    int os_node; /* the kernel's NUMA node to bind memory to, -1: no binding possible */
    enum nio_sq_place sq_place;
    int sq_cpu;           /* logical CPU of the SQ thread, -1 with SHARED and NONE */
    int sq_bind_cpu;      /* the real CPU for it, -1 with SHARED and NONE */
    uint32_t sq_core;     /* its core in the topology, NUMIO_TOPOLOGY_NONE with SHARED and NONE */
    const int *bind_cpus; /* all real CPUs of the node that the process may use, ascending */
    unsigned bind_cpu_count;
    const int *spare_cpus; /* the real ones without a worker and without an SQ thread */
    unsigned spare_cpu_count;
    /* The kernel's NUMA nodes whose memory is local to the node's CPUs, one at least on a real
     * machine with NUMA; with several (shard_by = package) os_node is -1. */
    const int *os_nodes;
    unsigned os_node_count;
    uint64_t memory_bytes; /* local memory, 0 if unknown; nodes that share it show all of it */
    unsigned package;      /* index in the topology, of the first worker */
};

struct nio_plan_options {
    enum numio_shard_by shard_by;
    unsigned workers;  /* 0: one per allowed core (or PU with `per_pu`), within the quota */
    bool per_pu;       /* a worker on every PU instead of on the first PU of each core */
    const char *cpus;  /* "0-3,8": only these logical CPUs; NULL: all allowed */
    int sq_thread_cpu; /* -1: by the rules above; else for the node that this CPU is in */
    bool want_sq;      /* false: no core is reserved, and every sq_place is NONE */
};

struct nio_plan {
    struct nio_plan_worker *workers;
    struct nio_plan_node *nodes;
    unsigned worker_count, node_count;
    const uint16_t *distance;   /* node_count x node_count, row-major, 10 = local */
    bool is_emulated;           /* bind_cpu differ from cpu, memory is not bound */
    bool is_oversubscribed;     /* some real CPU has two of the plan's threads: nobody may spin */
    unsigned allowed_cpu_count; /* PUs in `cpus` that may be used, with or without a worker */
    double cpu_quota;           /* CPUs of the cgroup's quota, 0: none */
};

enum { NIO_PLAN_WORKERS_MAX = 4096 };

/* Makes the plan.  `reasons` of the topology are not repeated here; what the plan itself had to
 * give up is appended to the plan's own list, read with nio_plan_reason().
 * Errors: -EINVAL `cpus` does not parse, names no allowed CPU, or `sq_thread_cpu` is not allowed;
 *         -E2BIG more workers asked than CPUs; -ENOMEM.  The detail sentence names the field. */
int nio_plan_create(const struct numio_topology *topology, const struct nio_plan_options *options,
                    struct nio_plan **ret_plan);
/* Takes NULL. */
void nio_plan_destroy(struct nio_plan *plan);
/* The plan's node that is nearest to NUMA node `numa` of the topology (0 for one that does not
 * exist): where work on a device, found by numio_topology_node_of_*(), belongs. */
unsigned nio_plan_node_of_numa(const struct nio_plan *plan, uint32_t numa);
/* The index-th recorded reason, NULL past the last. */
const char *nio_plan_reason(const struct nio_plan *plan, unsigned index);
/* Aborts when an invariant above does not hold; called by tests after each plan. */
void nio_plan_check(const struct nio_plan *plan);

#endif
