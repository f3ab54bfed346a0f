/* SPDX-License-Identifier: MIT */
/* numa/cpu_quota.h: how many CPUs' worth of time the process's cgroup grants.
 *
 * hwloc and sched_getaffinity(2) know the cpuset but not the bandwidth limit (cpu.max of cgroup
 * v2, cpu.cfs_quota_us and cpu.cfs_period_us of v1).  A limit of any ancestor holds for the
 * process too, so the answer is the smallest on the way from the process's group up to the mount
 * point, over both hierarchies.  Reads files below `root` ("" is this machine); start-up only;
 * any thread.
 */
#ifndef NIO_NUMA_CPU_QUOTA_H
#define NIO_NUMA_CPU_QUOTA_H

#include "numa/reasons.h"

/* *ret_cpus: the quota in CPUs, 0 when there is none or none can be read.  A quota found, and a
 * file that makes no sense, each leave a sentence.  Errors: -ENOMEM. */
int nio_cpu_quota_read(const char *root, struct nio_reasons *reasons, double *ret_cpus);

#endif
