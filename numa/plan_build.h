/* SPDX-License-Identifier: MIT */
/* numa/plan_build.h: a plan in the making, shared by the plan*.c files and nobody else.
 *
 * plan.c checks the options and sorts the CPUs into groups, the candidates for nodes;
 * plan_place.c decides who runs where; plan_bind.c maps that to real CPUs and memory;
 * plan_steal.c adds distances and steal orders.  One thread.
 */
#ifndef NIO_NUMA_PLAN_BUILD_H
#define NIO_NUMA_PLAN_BUILD_H

#include "numa/machine.h"
#include "numa/plan.h"

/* How willingly a PU takes a worker. */
enum nio_pu_rank {
    NIO_PU_DEFAULT = 0, /* has one unless `workers` says fewer */
    NIO_PU_SIBLING,     /* only when `workers` exceeds the cores */
    NIO_PU_SQ,          /* kept for the SQ thread: last of all */
    NIO_PU_RANKS
};

struct nio_plan_pu {
    uint32_t group;
    int real_cpu; /* -1: none */
    enum nio_pu_rank rank;
    bool is_enabled; /* allowed and in `cpus` */
    bool is_worker;
};

struct nio_plan_core {
    uint32_t group; /* NUMIO_TOPOLOGY_NONE: no enabled PU */
    uint32_t enabled_count, worker_count;
    int efficiency; /* higher is faster; 0 where all are alike */
};

/* The CPUs that form a node, if they get a worker. */
struct nio_plan_group {
    uint32_t key_a, key_b;
    uint32_t core_count;
    uint32_t slots[NIO_PU_RANKS]; /* PUs of each rank */
    uint32_t take;                /* workers it gets */
    uint32_t node;                /* NUMIO_TOPOLOGY_NONE: gets no worker */
};

/* The plan with what it owns. */
struct nio_plan_whole {
    struct nio_plan plan; /* first: the two are converted into each other */
    struct nio_reasons reasons;
    struct nio_steal_target *steals;
    uint16_t *distance;
    int *cpu_lists;
    int *os_nodes;
    uint32_t *node_of_numa;
    uint32_t numa_count;
};

struct nio_plan_builder {
    const struct numio_topology *t;
    struct nio_plan_options options;
    struct nio_plan_whole *whole;
    struct nio_plan_pu *pus;       /* per PU of the topology */
    struct nio_plan_core *cores;   /* per core of the topology */
    struct nio_plan_group *groups; /* at most one per core */
    uint32_t group_count;
    uint32_t *node_numas; /* per node a row of numa_count flags: whose memory is local */
    uint32_t forced_pu;   /* NUMIO_TOPOLOGY_NONE: sq_thread_cpu is not given or not wanted */
    bool is_sq_allowed;   /* by the number of CPUs and the quota */
};

/* The group that a core's CPUs belong to, NUMIO_TOPOLOGY_NONE if there is no such group. */
uint32_t nio_plan_find_group(const struct nio_plan_builder *b, uint32_t core);
/* Fills workers and nodes, except what the next two fill.  Errors: -E2BIG with detail, -ENOMEM. */
int nio_plan_place(struct nio_plan_builder *b);
/* The plan's node nearest to NUMA node `numa`; needs node_numas. */
uint32_t nio_plan_nearest_node(const struct nio_plan_builder *b, uint32_t numa);
/* Which memory is local to each node.  Errors: -ENOMEM. */
int nio_plan_place_memory(struct nio_plan_builder *b);
/* The SQ threads' CPUs.  Errors: -ENOMEM. */
int nio_plan_place_sq(struct nio_plan_builder *b);
/* Real CPUs.  Errors: -ENOMEM. */
int nio_plan_bind(struct nio_plan_builder *b);
/* Distances and steal orders.  Errors: -ENOMEM. */
int nio_plan_steal_orders(struct nio_plan_builder *b);

#endif
