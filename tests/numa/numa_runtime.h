/* SPDX-License-Identifier: MIT */
/* tests/numa/numa_runtime.h: a runtime to look at, and the kernel's homes of the CPUs it runs on.
 * The main thread only. */
#ifndef TESTS_NUMA_NUMA_RUNTIME_H
#define TESTS_NUMA_NUMA_RUNTIME_H

#include <numio/runtime.h>

#include "tests/numa/numa_kernel.h"

struct numa_run {
    struct numio_runtime *runtime;
    struct numio_handle *handle;
    struct numio_status status;
    int homes[KERNEL_CPUS_MAX]; /* of each CPU: the nearest node with memory */
};

/* Defaults, but for what `config` says if it is not NULL; ends the program if it cannot start. */
static inline void numa_start(struct numa_run *run, const struct numio_config *config)
{
    if (sysconf(_SC_NPROCESSORS_CONF) > KERNEL_CPUS_MAX) {
        numa_skip("everything", "sets of CPUs have 64 bits here: numio numa-check is for this one");
        exit(77);
    }
    numa_must(numio_runtime_create(config, &run->runtime), "create");
    run->handle = numio_runtime_handle(run->runtime);
    numa_must(numio_status(run->handle, &run->status), "status");
    for (int cpu = 0; cpu < KERNEL_CPUS_MAX; cpu++)
        run->homes[cpu] = kernel_home_of_cpu(cpu);
}

static inline void numa_stop(struct numa_run *run)
{
    numa_must(numio_runtime_shutdown(run->runtime, -1, NULL, 0, NULL), "shutdown");
    numio_runtime_destroy(run->runtime);
}

static inline struct numio_worker_status numa_worker(const struct numa_run *run, unsigned index)
{
    struct numio_worker_status worker;
    numa_must(numio_worker_status(run->handle, index, &worker), "worker status");
    return worker;
}

static inline struct numio_node_status numa_node(const struct numa_run *run, unsigned index)
{
    struct numio_node_status node;
    numa_must(numio_node_status(run->handle, index, &node), "node status");
    return node;
}

/* "A,B": a CPU of a worker of each of the first two nodes of the runtime; false: it has one. */
static inline bool numa_two_cpus(const struct numa_run *run, char *ret_list, size_t bytes)
{
    if (run->status.nodes < 2)
        return false;
    (void)snprintf(ret_list, bytes, "%d,%d",
                   numa_worker(run, numa_node(run, 0).worker_first).bind_cpu,
                   numa_worker(run, numa_node(run, 1).worker_first).bind_cpu); /* fits */
    return true;
}

#endif
