/* SPDX-License-Identifier: MIT */
/* The nodes that numio sees are the kernel's, and a runtime starts on each with allowed CPUs. */
#include <sched.h>
#include <stdint.h>
#include <string.h>

#include <numio/runtime.h>

#include "tests/numa/numa_check.h"

enum { LIST_BYTES = 256, CPUS_MAX = 64, NODES_MAX = 16 };

static bool read_line(const char *path, char *ret_line)
{
    FILE *file = fopen(path, "re");
    bool is_read = file && fgets(ret_line, LIST_BYTES, file);
    if (file)
        (void)fclose(file);
    ret_line[is_read ? strcspn(ret_line, "\n") : 0] = '\0';
    return is_read;
}

/* "0-1,4" of sysfs as a set of bits. */
static uint64_t parse_list(const char *text)
{
    uint64_t set = 0;
    while (*text) {
        char *end;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        for (unsigned long i = first; i <= last && i < 64; i++)
            set |= UINT64_C(1) << i;
        text = *end == ',' ? end + 1 : end;
        if (text == end && *end)
            break;
    }
    return set;
}

static uint64_t allowed_cpus(void)
{
    cpu_set_t mask;
    uint64_t set = 0;
    if (sched_getaffinity(0, sizeof mask, &mask) == 0)
        for (int cpu = 0; cpu < CPUS_MAX; cpu++)
            set |= CPU_ISSET(cpu, &mask) ? UINT64_C(1) << cpu : 0;
    return set;
}

static uint64_t cpus_of_node(unsigned node)
{
    char path[128], line[LIST_BYTES];
    (void)snprintf(path, sizeof path, "/sys/devices/system/node/node%u/cpulist", node); /* fits */
    return read_line(path, line) ? parse_list(line) : 0;
}

static uint64_t node_list(const char *name)
{
    char path[128], line[LIST_BYTES];
    (void)snprintf(path, sizeof path, "/sys/devices/system/node/%s", name); /* fits */
    return read_line(path, line) ? parse_list(line) : 0;
}

/* Nodes on which CPUs are allowed; those without memory are served by their neighbours. */
static unsigned nodes_to_serve(void)
{
    uint64_t with_memory = node_list("has_memory"), allowed = allowed_cpus();
    unsigned count = 0;
    for (unsigned node = 0; node < NODES_MAX; node++)
        count += (with_memory >> node & 1) && (cpus_of_node(node) & allowed);
    return count;
}

static uint64_t workers_cpus(struct numio_handle *handle, unsigned workers)
{
    uint64_t set = 0;
    for (unsigned i = 0; i < workers; i++) {
        struct numio_worker_status status;
        numa_must(numio_worker_status(handle, i, &status), "worker status");
        set |= UINT64_C(1) << status.bind_cpu;
    }
    return set;
}

int main(void)
{
    struct numio_runtime *runtime;
    struct numio_status status;
    numa_must(numio_runtime_create(NULL, &runtime), "create");
    struct numio_handle *handle = numio_runtime_handle(runtime);
    numa_must(numio_status(handle, &status), "status");
    unsigned nodes = nodes_to_serve();
    numa_check(status.nodes == nodes, "a node of the runtime for each of the kernel's",
               "numio has %u, /sys/devices/system/node has %u with memory and allowed CPUs",
               status.nodes, nodes);
    uint64_t cpus = workers_cpus(handle, status.workers), allowed = allowed_cpus();
    numa_check((cpus & ~allowed) == 0 && cpus != 0, "workers on allowed CPUs only",
               "workers on %#llx, allowed are %#llx", (unsigned long long)cpus,
               (unsigned long long)allowed);
    for (unsigned i = 0; i < status.nodes; i++) {
        struct numio_node_status node;
        numa_must(numio_node_status(handle, i, &node), "node status");
        numa_check(node.os_node >= 0 && (node_list("has_memory") >> node.os_node & 1),
                   "a home with memory", "node %u lives on NUMA node %d, which has none", i,
                   node.os_node);
    }
    numa_must(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), "shutdown");
    numio_runtime_destroy(runtime);
    return numa_end();
}
