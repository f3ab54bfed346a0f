/* SPDX-License-Identifier: MIT */
/* The nodes that numio sees are the kernel's, and a runtime starts on each with allowed CPUs. */
#include "tests/numa/numa_runtime.h"

static struct numa_run run;

/* Nodes on which CPUs are allowed; those without memory are served by their neighbours. */
static unsigned nodes_to_serve(void)
{
    uint64_t with_memory = kernel_nodes_with_memory(), allowed = kernel_cpus_of_thread(0);
    unsigned count = 0;
    for (int node = 0; node < KERNEL_NODES_MAX; node++)
        count += (with_memory >> node & 1) && (kernel_cpus_of_node(node) & allowed);
    return count;
}

static uint64_t workers_cpus(void)
{
    uint64_t set = 0;
    for (unsigned i = 0; i < run.status.workers; i++)
        set |= kernel_cpus_of_thread(numa_worker(&run, i).tid);
    return set;
}

int main(void)
{
    numa_start(&run, NULL);
    unsigned nodes = nodes_to_serve();
    numa_check(run.status.nodes == nodes, "a node of the runtime for each of the kernel's",
               "numio has %u, /sys/devices/system/node has %u with memory and allowed CPUs",
               run.status.nodes, nodes);
    uint64_t cpus = workers_cpus(), allowed = kernel_cpus_of_thread(0);
    numa_check((cpus & ~allowed) == 0 && cpus != 0, "workers on allowed CPUs only",
               "workers on %#llx, allowed are %#llx", (unsigned long long)cpus,
               (unsigned long long)allowed);
    for (unsigned i = 0; i < run.status.nodes; i++) {
        int os_node = numa_node(&run, i).os_node;
        numa_check(os_node >= 0 && (kernel_nodes_with_memory() >> os_node & 1),
                   "a home with memory", "node %u lives on NUMA node %d, which has none", i,
                   os_node);
    }
    numa_stop(&run);
    return numa_end();
}
