/* SPDX-License-Identifier: MIT */
/* numa/sysnodes.h: what the kernel itself says about NUMA nodes, for what hwloc leaves out.
 *
 * hwloc shows no node without memory, and gives CPUs to memory that has none; only
 * /sys/devices/system/node knows which node a CPU was built into and how far that is from others.
 * Reads files below `root` ("" is this machine); start-up only; any thread.
 */
#ifndef NIO_NUMA_SYSNODES_H
#define NIO_NUMA_SYSNODES_H

/* ret_nodes[i]: the kernel's node of cpus[i], -1 unknown.  Errors: -ENOMEM. */
int nio_sysnodes_of_cpus(const char *root, const int *cpus, unsigned count, int *ret_nodes);
/* 1: the node has CPUs; 0: it has none; -1: unknown.  Errors: -ENOMEM. */
int nio_sysnode_has_cpus(const char *root, int node);
/* The firmware's distance, -1 when unknown. */
int nio_sysnode_distance(const char *root, int from, int to);

#endif
