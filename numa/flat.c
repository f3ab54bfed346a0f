/* SPDX-License-Identifier: MIT */
/* numa/flat.c: the machine of last resort: one package, one node without memory binding, one
 * assumed cache, a core per CPU.  Needs nothing but the list of real CPUs.
 */
#include <errno.h>
#include <sys/sysinfo.h>

#include "numa/machine.h"
#include "runtime/base/mem.h"

static uint64_t total_memory_bytes(void)
{
    struct sysinfo info;
    return sysinfo(&info) == 0 ? (uint64_t)info.totalram * info.mem_unit : 0;
}

static void fill_cpu(struct numio_topology *t, uint32_t i)
{
    /* Where not even the binding is known, CPU 0 stands for wherever the kernel runs us. */
    int cpu = t->info.real_cpu_count ? t->real_cpus[i] : 0;
    t->cores[i] = (struct numio_topology_core){ .size = sizeof t->cores[i],
                                                .os_index = -1,
                                                .kind = NUMIO_TOPOLOGY_NONE,
                                                .pu_first = i,
                                                .pu_count = 1 };
    t->pus[i] = (struct numio_topology_pu){ .size = sizeof t->pus[i], .os_index = cpu, .core = i };
}

int nio_flat_fill(struct numio_topology *t)
{
    uint32_t cpus = t->info.real_cpu_count ? t->info.real_cpu_count : 1;
    t->packages = nio_numa_array(1, sizeof *t->packages);
    t->numas = nio_numa_array(1, sizeof *t->numas);
    t->llcs = nio_numa_array(1, sizeof *t->llcs);
    t->kinds = nio_numa_array(0, sizeof *t->kinds);
    t->distance = nio_numa_array(1, sizeof *t->distance);
    t->cores = nio_numa_array(cpus, sizeof *t->cores);
    t->pus = nio_numa_array(cpus, sizeof *t->pus);
    char *model = nio_strdup("");
    if (!t->packages || !t->numas || !t->llcs || !t->kinds || !t->distance || !t->cores ||
        !t->pus || !model) {
        nio_free(model);
        return -ENOMEM;
    }
    uint64_t memory_bytes = total_memory_bytes();
    t->packages[0] = (struct numio_topology_package){ .size = sizeof t->packages[0],
                                                      .os_index = -1,
                                                      .core_count = cpus,
                                                      .pu_count = cpus,
                                                      .model = model };
    t->numas[0] = (struct numio_topology_numa){ .size = sizeof t->numas[0],
                                                .os_index = -1,
                                                .core_count = cpus,
                                                .pu_count = cpus,
                                                .memory_bytes = memory_bytes };
    t->llcs[0] = (struct numio_topology_llc){ .size = sizeof t->llcs[0],
                                              .core_count = cpus,
                                              .pu_count = cpus };
    t->distance[0] = NIO_DISTANCE_LOCAL;
    for (uint32_t i = 0; i < cpus; i++)
        fill_cpu(t, i);
    t->info.package_count = t->info.numa_count = t->info.llc_count = 1;
    t->info.core_count = t->info.pu_count = cpus;
    t->info.memory_bytes = memory_bytes;
    t->info.has_distances = true; /* one node is 10 from itself */
    return nio_reasons_add(&t->reasons, "the machine is treated as one node of %u CPUs",
                           (unsigned)cpus);
}
