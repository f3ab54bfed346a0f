/* SPDX-License-Identifier: MIT */
#include "runtime/tool/tool_info.h"

#include <string.h>

#include "runtime/tool/tool_json.h"

/* An index of the topology, null where there is none. */
static void put_index(struct tool_json *json, const char *key, uint32_t index)
{
    if (index == NUMIO_TOPOLOGY_NONE)
        tool_json_null(json, key);
    else
        tool_json_uint(json, key, index);
}

/* A kernel number of something, null where there is none. */
static void put_number(struct tool_json *json, const char *key, int number)
{
    if (number < 0)
        tool_json_null(json, key);
    else
        tool_json_int(json, key, number);
}

static void put_packages(struct tool_json *json, const struct tool_machine *machine)
{
    tool_json_open(json, "packages", '[');
    for (uint32_t i = 0; i < machine->info.package_count; i++) {
        struct numio_topology_package package = tool_package(machine, i);
        tool_json_open(json, NULL, '{');
        tool_json_uint(json, "index", i);
        put_number(json, "os_index", package.os_index);
        tool_json_string(json, "model", package.model);
        tool_json_uint(json, "cores", package.core_count);
        tool_json_uint(json, "pus", package.pu_count);
        tool_json_close(json, '}');
    }
    tool_json_close(json, ']');
}

static void put_numas(struct tool_json *json, const struct tool_machine *machine)
{
    tool_json_open(json, "numa_nodes", '[');
    for (uint32_t i = 0; i < machine->info.numa_count; i++) {
        struct numio_topology_numa numa = tool_numa(machine, i);
        tool_json_open(json, NULL, '{');
        tool_json_uint(json, "index", i);
        put_number(json, "os_index", numa.os_index);
        put_index(json, "package", numa.package);
        put_index(json, "home", numa.home);
        tool_json_uint(json, "cores", numa.core_count);
        tool_json_uint(json, "pus", numa.pu_count);
        tool_json_bool(json, "memoryless", numa.is_memoryless);
        tool_json_bool(json, "cpuless", numa.is_cpuless);
        tool_json_uint(json, "memory_bytes", numa.memory_bytes);
        tool_json_close(json, '}');
    }
    tool_json_close(json, ']');
    tool_json_open(json, "distances", '[');
    for (uint32_t from = 0; from < machine->info.numa_count; from++) {
        tool_json_open(json, NULL, '[');
        for (uint32_t to = 0; to < machine->info.numa_count; to++)
            tool_json_uint(json, NULL, numio_topology_distance(machine->topology, from, to));
        tool_json_close(json, ']');
    }
    tool_json_close(json, ']');
}

static void put_caches(struct tool_json *json, const struct tool_machine *machine)
{
    tool_json_open(json, "llcs", '[');
    for (uint32_t i = 0; i < machine->info.llc_count; i++) {
        struct numio_topology_llc llc = tool_llc(machine, i);
        tool_json_open(json, NULL, '{');
        tool_json_uint(json, "index", i);
        tool_json_uint(json, "level", llc.level);
        tool_json_uint(json, "cache_bytes", llc.cache_bytes);
        put_index(json, "package", llc.package);
        tool_json_uint(json, "cores", llc.core_count);
        tool_json_uint(json, "pus", llc.pu_count);
        tool_json_close(json, '}');
    }
    tool_json_close(json, ']');
}

static void put_core(struct tool_json *json, const struct tool_machine *machine, uint32_t index)
{
    struct numio_topology_core core = tool_core(machine, index);
    tool_json_open(json, NULL, '{');
    tool_json_uint(json, "index", index);
    put_number(json, "os_index", core.os_index);
    put_index(json, "package", core.package);
    put_index(json, "numa", core.numa);
    put_index(json, "llc", core.llc);
    put_index(json, "kind", core.kind);
    put_number(json, "node", machine->core_node[index]);
    tool_json_open(json, "pus", '[');
    for (uint32_t i = core.pu_first; i < core.pu_first + core.pu_count; i++) {
        tool_json_open(json, NULL, '{');
        tool_json_int(json, "cpu", tool_pu(machine, i).os_index);
        put_number(json, "worker", machine->pu_worker[i]);
        put_number(json, "sq_thread_of_node", machine->pu_sq[i]);
        tool_json_close(json, '}');
    }
    tool_json_close(json, ']');
    tool_json_close(json, '}');
}

static void put_topology(struct tool_json *json, const struct tool_machine *machine)
{
    const struct numio_topology_info *info = &machine->info;
    tool_json_open(json, "topology", '{');
    tool_json_bool(json, "emulated", info->is_emulated);
    tool_json_double(json, "cpu_quota", info->cpu_quota);
    tool_json_uint(json, "memory_bytes", info->memory_bytes);
    tool_json_bool(json, "distances_known", info->has_distances);
    put_packages(json, machine);
    put_numas(json, machine);
    put_caches(json, machine);
    tool_json_open(json, "kinds", '[');
    for (uint32_t i = 0; i < info->kind_count; i++) {
        struct numio_topology_kind kind = tool_kind(machine, i);
        tool_json_open(json, NULL, '{');
        tool_json_uint(json, "index", i);
        tool_json_string(json, "name", kind.name);
        put_number(json, "efficiency", kind.efficiency);
        tool_json_uint(json, "cores", kind.core_count);
        tool_json_close(json, '}');
    }
    tool_json_close(json, ']');
    tool_json_open(json, "cores", '[');
    for (uint32_t i = 0; i < info->core_count; i++)
        put_core(json, machine, i);
    tool_json_close(json, ']');
    tool_json_open(json, "real_cpus", '[');
    for (uint32_t i = 0; i < info->real_cpu_count; i++)
        tool_json_int(json, NULL, numio_topology_real_cpu(machine->topology, i));
    tool_json_close(json, ']');
    tool_json_close(json, '}');
}

static void put_asked(struct tool_json *json, const struct numio_config *config)
{
    tool_json_open(json, "asked", '{');
    tool_json_string(json, "topology", config->topology);
    tool_json_string(json, "cpus", config->cpus);
    tool_json_uint(json, "workers", config->workers);
    tool_json_bool(json, "worker_per_pu", config->worker_per_pu);
    tool_json_string(json, "shard_by", tool_shard_name(config->shard_by));
    tool_json_string(json, "driver", tool_driver_name(config->driver));
    put_number(json, "sq_thread_cpu", config->sq_thread_cpu);
    tool_json_string(json, "idle", tool_idle_name(config->idle));
    tool_json_bool(json, "memory_strict", config->memory_strict);
    tool_json_bool(json, "huge_pages", config->huge_pages);
    tool_json_close(json, '}');
}

static void put_node(struct tool_json *json, const struct tool_machine *machine, unsigned index)
{
    const struct numio_node_status *node = &machine->nodes[index];
    const struct numio_arena_audit *arena = &machine->arenas[index];
    tool_json_open(json, NULL, '{');
    tool_json_uint(json, "index", index);
    tool_json_uint(json, "package", node->package);
    put_number(json, "os_node", node->os_node);
    tool_json_uint(json, "worker_first", node->worker_first);
    tool_json_uint(json, "worker_count", node->worker_count);
    tool_json_uint(json, "memory_bytes", node->memory_bytes);
    tool_json_open(json, "sq_thread", '{');
    bool has_sq = tool_has_sq_threads(machine);
    tool_json_string(json, "place", has_sq ? node->sq_place : "none");
    put_number(json, "cpu", has_sq ? node->sq_cpu : TOOL_NONE);
    tool_json_close(json, '}');
    tool_json_open(json, "arena", '{');
    tool_json_bool(json, "bound", arena->is_bound);
    put_number(json, "os_node", arena->os_node);
    tool_json_string(json, "reason", arena->reason[0] ? arena->reason : NULL);
    tool_json_close(json, '}');
    tool_json_close(json, '}');
}

static void put_runtime(struct tool_json *json, const struct tool_machine *machine)
{
    if (!machine->has_runtime) {
        tool_json_null(json, "runtime");
        return;
    }
    tool_json_open(json, "runtime", '{');
    tool_json_string(json, "driver", machine->status.driver);
    tool_json_string(json, "idle", machine->status.idle);
    tool_json_string(json, "clock", machine->status.clock);
    tool_json_uint(json, "napi_busy_poll_us", machine->status.napi_busy_poll_us);
    put_number(json, "cpu_dma_latency_us", machine->status.cpu_dma_latency_us);
    tool_json_string(json, "stack_guard", machine->status.stack_guard);
    tool_json_bool(json, "emulated", machine->status.is_emulated);
    tool_json_open(json, "nodes", '[');
    for (unsigned i = 0; i < machine->status.nodes; i++)
        put_node(json, machine, i);
    tool_json_close(json, ']');
    tool_json_open(json, "workers", '[');
    for (unsigned i = 0; i < machine->status.workers; i++) {
        const struct numio_worker_status *worker = &machine->workers[i];
        tool_json_open(json, NULL, '{');
        tool_json_uint(json, "index", i);
        tool_json_uint(json, "node", worker->node);
        tool_json_uint(json, "llc", worker->llc);
        put_number(json, "cpu", worker->cpu);
        put_number(json, "runs_on_cpu", worker->runs_on_cpu);
        tool_json_string(json, "placement", worker->placement);
        tool_json_bool(json, "retired", worker->is_retired);
        tool_json_close(json, '}');
    }
    tool_json_close(json, ']');
    tool_json_close(json, '}');
}

static void put_error(struct tool_json *json, int error, const char *detail)
{
    if (error >= 0) {
        tool_json_null(json, "error");
        return;
    }
    tool_json_open(json, "error", '{');
    tool_json_int(json, "number", error);
    tool_json_string(json, "text", strerror(-error));
    tool_json_string(json, "detail", detail);
    tool_json_close(json, '}');
}

void tool_info_json(const struct tool_machine *machine)
{
    struct tool_json json = { 0 };
    tool_json_open(&json, NULL, '{');
    tool_json_string(&json, "version", NUMIO_VERSION);
    put_asked(&json, &machine->config);
    put_topology(&json, machine);
    put_runtime(&json, machine);
    tool_json_open(&json, "reasons", '[');
    for (size_t i = 0; i < machine->reason_count; i++)
        tool_json_string(&json, NULL, machine->reasons[i]);
    tool_json_close(&json, ']');
    put_error(&json, machine->error, machine->error_detail);
    tool_json_close(&json, '}');
}

void tool_info_json_error(int error, const char *detail)
{
    struct tool_json json = { 0 };
    tool_json_open(&json, NULL, '{');
    tool_json_string(&json, "version", NUMIO_VERSION);
    tool_json_null(&json, "topology");
    tool_json_null(&json, "runtime");
    put_error(&json, error, detail);
    tool_json_close(&json, '}');
}
