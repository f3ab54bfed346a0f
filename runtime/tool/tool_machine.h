/* SPDX-License-Identifier: MIT */
/* tool_machine.h: the machine and what a runtime made of it, gathered for showing.
 *
 * A machine is a topology and, where a runtime could be started, its status: which CPU each
 * worker has, where the SQ threads run, to which node each core belongs.  Everything is read once
 * through numio's public interface and is constant afterwards.  The tool's main thread only.
 */
#ifndef NIO_TOOL_MACHINE_H
#define NIO_TOOL_MACHINE_H

#include <numio/arena.h>
#include <numio/runtime.h>
#include <numio/topology.h>

enum { TOOL_NONE = -1 };

struct tool_machine {
    struct numio_config config; /* what was asked for */
    struct numio_topology *topology;
    struct numio_topology_info info;
    bool has_runtime; /* the fields of the next group are there */
    struct numio_status status;
    struct numio_worker_status *workers;
    struct numio_node_status *nodes;
    struct numio_arena_audit *arenas; /* per node */
    int *pu_worker;                   /* per PU: the worker on it or TOOL_NONE */
    int *pu_sq;     /* per PU: the node whose SQ thread is pinned to it or TOOL_NONE */
    int *core_node; /* per core: the node it belongs to, TOOL_NONE: to none with a worker */
    char **reasons; /* why something is less than asked or possible */
    size_t reason_count;
    int error; /* negative errno value: why no runtime could be started, else 0 */
    char *error_detail;
};

/* Loads the topology that `config` names and, unless `handle` is NULL, the runtime's status.
 * Errors: those of numio_topology_load(), with its detail; -ENOMEM. */
int tool_machine_load(struct tool_machine *machine, const struct numio_config *config,
                      struct numio_handle *handle);

/* As above with a runtime that is started and stopped for this; if it cannot start, `error` and
 * `error_detail` say why and the topology is there all the same. */
int tool_machine_load_probing(struct tool_machine *machine, const struct numio_config *config);

void tool_machine_fini(struct tool_machine *machine);

/* The object `index` of a loaded topology; exists, because the counts of `info` bound the index. */
struct numio_topology_package tool_package(const struct tool_machine *machine, uint32_t index);
struct numio_topology_numa tool_numa(const struct tool_machine *machine, uint32_t index);
struct numio_topology_llc tool_llc(const struct tool_machine *machine, uint32_t index);
struct numio_topology_core tool_core(const struct tool_machine *machine, uint32_t index);
struct numio_topology_pu tool_pu(const struct tool_machine *machine, uint32_t index);
struct numio_topology_kind tool_kind(const struct tool_machine *machine, uint32_t index);

/* The number by which people know NUMA node `index`: the kernel's, or numio's where it has none. */
int tool_numa_number(const struct tool_machine *machine, uint32_t index);

/* Whether the runtime has kernel threads that read submissions. */
bool tool_has_sq_threads(const struct tool_machine *machine);

const char *tool_shard_name(enum numio_shard_by shard_by);
const char *tool_driver_name(enum numio_driver driver);
const char *tool_idle_name(enum numio_idle_policy idle);

#endif
