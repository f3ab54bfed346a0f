/* SPDX-License-Identifier: MIT */
/* numa/discover.h: a discovery under way, shared by the discover*.c files and nobody else.
 *
 * The steps, in order, each needing the ones before: packages, NUMA nodes, distances, homes,
 * cores with caches and PUs, kinds, devices.  hwloc's objects are copied into the topology, and
 * hwloc's own topology is released at the end.  One thread.
 */
#ifndef NIO_NUMA_DISCOVER_H
#define NIO_NUMA_DISCOVER_H

#include <hwloc.h>

#include "numa/machine.h"

/* What makes two PUs share an LLC: the cache, or where none is shown, package and home. */
struct nio_llc_key {
    const void *cache;
    uint32_t package, numa;
};

struct nio_discovery {
    struct numio_topology *t;
    hwloc_topology_t hwloc;
    unsigned hwloc_pu_count;
    hwloc_obj_t *package_objs;    /* parallel to t->packages; NULL: the machine shows none */
    struct nio_llc_key *llc_keys; /* parallel to t->llcs */
    int *sys_nodes;               /* per hwloc PU: the kernel's node, -1 unknown */
    uint32_t *homes;              /* per hwloc PU: index into t->numas */
    bool is_memory_known;         /* some NUMA node has a size */
    int last_orphan;              /* for which memory-less node a reason was left last */
};

/* NUMA nodes, distances and homes.  Returns 0, NIO_SURPRISE or -ENOMEM. */
int nio_discover_numas(struct nio_discovery *d);
/* The devices of a recorded machine.  Errors: -ENOMEM. */
int nio_discover_devices(struct nio_discovery *d);

#endif
