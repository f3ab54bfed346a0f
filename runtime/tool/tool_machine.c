/* SPDX-License-Identifier: MIT */
#include "runtime/tool/tool_machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <numio/error.h>

/* An index below the count of `info` is always there: the getters cannot fail. */
#define DEFINE_GETTER(function, type, getter)                                                      \
    struct type function(const struct tool_machine *machine, uint32_t index)                       \
    {                                                                                              \
        struct type object = { .size = sizeof object };                                            \
        if (getter(machine->topology, index, &object) < 0)                                         \
            abort();                                                                               \
        return object;                                                                             \
    }

DEFINE_GETTER(tool_package, numio_topology_package, numio_topology_package_get)
DEFINE_GETTER(tool_numa, numio_topology_numa, numio_topology_numa_get)
DEFINE_GETTER(tool_llc, numio_topology_llc, numio_topology_llc_get)
DEFINE_GETTER(tool_core, numio_topology_core, numio_topology_core_get)
DEFINE_GETTER(tool_pu, numio_topology_pu, numio_topology_pu_get)
DEFINE_GETTER(tool_kind, numio_topology_kind, numio_topology_kind_get)

const char *tool_shard_name(enum numio_shard_by shard_by)
{
    return shard_by == NUMIO_SHARD_PACKAGE ? "package" : shard_by == NUMIO_SHARD_L3 ? "l3" : "numa";
}

const char *tool_driver_name(enum numio_driver driver)
{
    switch (driver) {
    case NUMIO_DRIVER_SQPOLL:
        return "sqpoll";
    case NUMIO_DRIVER_DEFER:
        return "defer";
    case NUMIO_DRIVER_IOPOLL:
        return "iopoll";
    case NUMIO_DRIVER_EPOLL:
        return "epoll";
    case NUMIO_DRIVER_AUTO:
        break;
    }
    return "auto";
}

const char *tool_idle_name(enum numio_idle_policy idle)
{
    return idle == NUMIO_IDLE_SPIN ? "spin" : idle == NUMIO_IDLE_PARK ? "park" : "balanced";
}

int tool_numa_number(const struct tool_machine *machine, uint32_t index)
{
    int number = tool_numa(machine, index).os_index;
    return number >= 0 ? number : (int)index;
}

bool tool_has_sq_threads(const struct tool_machine *machine)
{
    return machine->has_runtime && strcmp(machine->status.driver, "sqpoll") == 0;
}

/* An array of `count` ints, all TOOL_NONE; one more, so that 0 is no special case. */
static int *none_array(size_t count)
{
    int *array = malloc((count + 1) * sizeof *array);
    for (size_t i = 0; array && i <= count; i++)
        array[i] = TOOL_NONE;
    return array;
}

static int add_reason(struct tool_machine *machine, const char *reason)
{
    for (size_t i = 0; i < machine->reason_count; i++)
        if (strcmp(machine->reasons[i], reason) == 0)
            return 0;
    size_t bytes = (machine->reason_count + 1) * sizeof *machine->reasons;
    char **grown = realloc(machine->reasons, bytes);
    if (!grown)
        return -ENOMEM;
    machine->reasons = grown;
    grown[machine->reason_count] = strdup(reason);
    if (!grown[machine->reason_count])
        return -ENOMEM;
    machine->reason_count++;
    return 0;
}

static int load_reasons(struct tool_machine *machine, struct numio_handle *handle)
{
    const char *reason;
    for (unsigned i = 0; (reason = numio_topology_reason(machine->topology, i)) != NULL; i++)
        if (add_reason(machine, reason) < 0)
            return -ENOMEM;
    for (unsigned i = 0; handle && (reason = numio_status_reason(handle, i)) != NULL; i++)
        if (add_reason(machine, reason) < 0)
            return -ENOMEM;
    return 0;
}

static int load_status(struct tool_machine *machine, struct numio_handle *handle)
{
    machine->status.size = sizeof machine->status;
    int err = numio_status(handle, &machine->status);
    if (err < 0)
        return err;
    machine->workers = calloc(machine->status.workers + 1u, sizeof *machine->workers);
    machine->nodes = calloc(machine->status.nodes + 1u, sizeof *machine->nodes);
    machine->arenas = calloc(machine->status.nodes + 1u, sizeof *machine->arenas);
    if (!machine->workers || !machine->nodes || !machine->arenas)
        return -ENOMEM;
    for (unsigned i = 0; err == 0 && i < machine->status.workers; i++)
        err = numio_worker_status(handle, i, &machine->workers[i]);
    for (unsigned i = 0; err == 0 && i < machine->status.nodes; i++)
        err = numio_node_status(handle, i, &machine->nodes[i]);
    for (unsigned i = 0; err == 0 && i < machine->status.nodes; i++) {
        machine->arenas[i].size = sizeof machine->arenas[i];
        err = numio_arena_audit(handle, i, &machine->arenas[i]);
    }
    machine->has_runtime = err == 0;
    return err;
}

/* Fills pu_worker and pu_sq by way of a table from CPU number to PU. */
static int place_threads(struct tool_machine *machine)
{
    int cpu_max = 0;
    for (uint32_t i = 0; i < machine->info.pu_count; i++) {
        int cpu = tool_pu(machine, i).os_index;
        cpu_max = cpu > cpu_max ? cpu : cpu_max;
    }
    int *pu_of_cpu = none_array((size_t)cpu_max + 1);
    if (!pu_of_cpu)
        return -ENOMEM;
    for (uint32_t i = 0; i < machine->info.pu_count; i++) {
        int cpu = tool_pu(machine, i).os_index;
        if (cpu >= 0)
            pu_of_cpu[cpu] = (int)i;
    }
    for (unsigned i = 0; i < machine->status.workers; i++) {
        int cpu = machine->workers[i].cpu;
        if (cpu >= 0 && cpu <= cpu_max && pu_of_cpu[cpu] >= 0)
            machine->pu_worker[pu_of_cpu[cpu]] = (int)i;
    }
    for (unsigned i = 0; tool_has_sq_threads(machine) && i < machine->status.nodes; i++) {
        int cpu = machine->nodes[i].sq_cpu;
        if (cpu >= 0 && cpu <= cpu_max && pu_of_cpu[cpu] >= 0)
            machine->pu_sq[pu_of_cpu[cpu]] = (int)i;
    }
    free(pu_of_cpu);
    return 0;
}

/* The node of a core: that of a worker or an SQ thread on it, TOOL_NONE if it has neither. */
static int node_on_core(const struct tool_machine *machine, const struct numio_topology_core *core)
{
    for (uint32_t pu = core->pu_first; pu < core->pu_first + core->pu_count; pu++) {
        if (machine->pu_worker[pu] >= 0)
            return (int)machine->workers[machine->pu_worker[pu]].node;
        if (machine->pu_sq[pu] >= 0)
            return machine->pu_sq[pu];
    }
    return TOOL_NONE;
}

/* Cores without a worker belong to the node of those they share the sharding object with. */
static int place_cores(struct tool_machine *machine)
{
    enum numio_shard_by shard = machine->config.shard_by;
    size_t groups = shard == NUMIO_SHARD_PACKAGE ? machine->info.package_count
                    : shard == NUMIO_SHARD_L3    ? machine->info.llc_count
                                                 : machine->info.numa_count;
    int *group_node = none_array(groups);
    if (!group_node)
        return -ENOMEM;
    for (int is_second_pass = 0; is_second_pass < 2; is_second_pass++) {
        for (uint32_t i = 0; i < machine->info.core_count; i++) {
            struct numio_topology_core core = tool_core(machine, i);
            uint32_t group = shard == NUMIO_SHARD_PACKAGE ? core.package
                             : shard == NUMIO_SHARD_L3    ? core.llc
                                                          : core.numa;
            int node = node_on_core(machine, &core);
            if (node < 0 && is_second_pass && group < groups)
                node = group_node[group];
            machine->core_node[i] = node;
            if (node >= 0 && group < groups)
                group_node[group] = node;
        }
    }
    free(group_node);
    return 0;
}

int tool_machine_load(struct tool_machine *machine, const struct numio_config *config,
                      struct numio_handle *handle)
{
    memset(machine, 0, sizeof *machine);
    machine->config = *config;
    int err = numio_topology_load(config->topology, &machine->topology);
    if (err < 0)
        return err;
    machine->info.size = sizeof machine->info;
    err = numio_topology_info_get(machine->topology, &machine->info);
    if (err == 0 && handle)
        err = load_status(machine, handle);
    if (err == 0)
        err = load_reasons(machine, handle);
    if (err == 0) {
        machine->pu_worker = none_array(machine->info.pu_count);
        machine->pu_sq = none_array(machine->info.pu_count);
        machine->core_node = none_array(machine->info.core_count);
        err = machine->pu_worker && machine->pu_sq && machine->core_node ? 0 : -ENOMEM;
    }
    if (err == 0)
        err = place_threads(machine);
    if (err == 0)
        err = place_cores(machine);
    if (err < 0)
        tool_machine_fini(machine);
    return err;
}

int tool_machine_load_probing(struct tool_machine *machine, const struct numio_config *config)
{
    struct numio_runtime *runtime = NULL;
    int refused = numio_runtime_create(config, &runtime);
    /* Copied before the next call can overwrite it. */
    char *detail = refused < 0 ? strdup(numio_strerror_detail()) : NULL;
    struct numio_handle *handle = refused < 0 ? NULL : numio_runtime_handle(runtime);

    int err = tool_machine_load(machine, config, handle);
    if (refused == 0)
        numio_runtime_destroy(runtime);
    if (err < 0) {
        free(detail);
        return err;
    }
    machine->error = refused;
    machine->error_detail = detail;
    return 0;
}

void tool_machine_fini(struct tool_machine *machine)
{
    numio_topology_destroy(machine->topology);
    free(machine->workers);
    free(machine->nodes);
    free(machine->arenas);
    free(machine->pu_worker);
    free(machine->pu_sq);
    free(machine->core_node);
    for (size_t i = 0; i < machine->reason_count; i++)
        free(machine->reasons[i]);
    free(machine->reasons);
    free(machine->error_detail);
    memset(machine, 0, sizeof *machine);
}
