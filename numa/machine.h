/* SPDX-License-Identifier: MIT */
/* numa/machine.h: the topology's fields, for the files of numa/ only.
 *
 * discover.c fills them from hwloc, flat.c without it; topology.c gives them out; plan*.c and
 * locality.c read them.  Everything is constant once numio_topology_load() has returned.
 * PUs are sorted so that those of one core are contiguous.
 */
#ifndef NIO_NUMA_MACHINE_H
#define NIO_NUMA_MACHINE_H

#include <numio/topology.h>

#include "numa/reasons.h"

/* NIO_PUS_MAX bounds every array here; NIO_NUMAS_MAX keeps the distance matrix small. */
enum { NIO_PUS_MAX = 65536, NIO_NUMAS_MAX = 1024 };

/* Distances assumed where the firmware gives none: local, same package, another package. */
enum { NIO_DISTANCE_LOCAL = 10, NIO_DISTANCE_PACKAGE = 12, NIO_DISTANCE_FAR = 20 };

/* A device of a recorded machine. */
struct nio_device {
    char *name;    /* "0000:17:00.0", "eth0", "nvme0n1" */
    uint32_t numa; /* NUMIO_TOPOLOGY_NONE: not told */
};

struct numio_topology {
    struct numio_topology_info info;
    struct numio_topology_package *packages;
    struct numio_topology_numa *numas;
    struct numio_topology_llc *llcs;
    struct numio_topology_core *cores;
    struct numio_topology_pu *pus;
    struct numio_topology_kind *kinds;
    uint16_t *distance; /* numa_count x numa_count, row-major */
    int *real_cpus;     /* ascending */
    struct nio_device *devices;
    uint32_t device_count;
    struct nio_reasons reasons;
    char *root; /* put before /proc and /sys; "" on a real machine */
};

/* How a test replaces this machine; all zeroes is this machine as it is. */
struct nio_topology_setup {
    const char *root;     /* NULL: "" */
    const int *real_cpus; /* instead of the calling thread's binding; ascending */
    unsigned real_cpu_count;
};

/* numio_topology_load() with parts of this machine replaced.  An emulated machine has a CPU quota
 * only when `setup->root` is given: the real quota says nothing about it. */
int nio_topology_load_as(const char *spec, const struct nio_topology_setup *setup,
                         struct numio_topology **ret_topology);

/* Returns 0; NIO_SURPRISE, with its sentence recorded, when the machine is too odd for numio;
 * -ENOMEM; for an emulated machine also -EINVAL, -E2BIG and errors of the file, with detail. */
enum { NIO_SURPRISE = 1 };
int nio_discover(struct numio_topology *topology, const char *spec);
/* Makes it one node of all real CPUs.  Errors: -ENOMEM. */
int nio_flat_fill(struct numio_topology *topology);

/* An array below the fault points, NULL only without memory: for 0 elements it has one. */
void *nio_numa_array(size_t count, size_t element_bytes);

#endif
