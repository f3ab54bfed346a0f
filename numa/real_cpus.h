/* SPDX-License-Identifier: MIT */
/* numa/real_cpus.h: which CPUs the calling thread may run on, cgroup cpuset included.
 *
 * sched_getaffinity(2) with a set that grows until the kernel's fits.  Start-up only; any thread.
 */
#ifndef NIO_NUMA_REAL_CPUS_H
#define NIO_NUMA_REAL_CPUS_H

/* *ret_cpus: ascending, the caller's, released with nio_free().  Errors: -ENOMEM; what the
 * kernel says. */
int nio_real_cpus_read(int **ret_cpus, unsigned *ret_count);

#endif
