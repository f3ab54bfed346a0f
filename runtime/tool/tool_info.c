/* SPDX-License-Identifier: MIT */
#include "runtime/tool/tool_info.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <numio/error.h>

#include "runtime/tool/tool_draw.h"
#include "runtime/tool/tool_table.h"

/* RANGES_BYTES keeps the table of nodes within 80 columns. */
enum { LIST_BYTES = 256, RANGES_BYTES = 15, KEY_COLUMNS = 10 };

static const char *plural(uint64_t count)
{
    return count == 1 ? "" : "s";
}

static void print_heading(const struct tool_machine *machine, const struct tool_term *term)
{
    const struct numio_topology_info *info = &machine->info;
    char bytes[TOOL_NUMBER_BYTES], line[LIST_BYTES];
    const char *model = info->package_count > 0 ? tool_package(machine, 0).model : "";
    printf("%snumio %s%s%s%s%s\n", tool_colour(term, TOOL_BOLD), NUMIO_VERSION,
           tool_colour(term, TOOL_PLAIN), model[0] || info->is_emulated ? ": " : "",
           info->is_emulated ? "an emulated machine" : model,
           info->is_emulated && model[0] ? ", recorded" : "");
    int length = snprintf(line, sizeof line, "%u package%s, %u NUMA node%s, %u core%s, %u CPU%s",
                          info->package_count, plural(info->package_count), info->numa_count,
                          plural(info->numa_count), info->core_count, plural(info->core_count),
                          info->pu_count, plural(info->pu_count));
    if (info->memory_bytes > 0)
        length += snprintf(line + length, sizeof line - (size_t)length, ", %s of memory",
                           tool_bytes(bytes, info->memory_bytes));
    if (info->cpu_quota > 0)
        (void)snprintf(line + length, sizeof line - (size_t)length, /* fits */
                       ", a quota of %.2g CPUs", info->cpu_quota);
    tool_print_wrapped(term, 0, 0, line);
    for (uint32_t i = 0; info->kind_count > 1 && i < info->kind_count; i++) {
        struct numio_topology_kind kind = tool_kind(machine, i);
        printf("%u %s core%s, efficiency %d%s\n", kind.core_count,
               kind.name[0] ? kind.name : "unnamed", plural(kind.core_count), kind.efficiency,
               i == 0 ? " (the higher, the faster)" : "");
    }
    putchar('\n');
}

static int compare_ints(const void *a, const void *b)
{
    int left = *(const int *)a, right = *(const int *)b;
    return (left > right) - (left < right);
}

/* Planned or real CPUs of a node's workers, as ranges. */
static void list_cpus(const struct tool_machine *machine, unsigned node, bool is_real, char *buf)
{
    const struct numio_node_status *status = &machine->nodes[node];
    int *cpus = calloc(status->worker_count + 1u, sizeof *cpus);
    unsigned used = 0;
    (void)snprintf(buf, LIST_BYTES, "?"); /* stands when memory runs out */
    if (!cpus)
        return;
    for (unsigned i = 0; i < status->worker_count; i++) {
        const struct numio_worker_status *worker = &machine->workers[status->worker_first + i];
        int cpu = is_real ? worker->bind_cpu : worker->cpu;
        /* Several emulated CPUs share a real one, which is listed once. */
        bool is_repeated = false;
        for (unsigned k = 0; is_real && k < used && !is_repeated; k++)
            is_repeated = cpus[k] == cpu;
        if (!is_repeated && cpu >= 0)
            cpus[used++] = cpu;
    }
    qsort(cpus, used, sizeof *cpus, compare_ints);
    if (used > 0)
        (void)tool_ranges(buf, RANGES_BYTES, cpus, used); /* returns buf */
    else
        (void)snprintf(buf, LIST_BYTES, "any"); /* not pinned */
    free(cpus);
}

static void describe_sq(const struct tool_machine *machine, unsigned node, char *buf)
{
    const struct numio_node_status *status = &machine->nodes[node];
    if (!tool_has_sq_threads(machine))
        (void)snprintf(buf, LIST_BYTES, "none"); /* fits, as all below */
    else if (status->sq_cpu >= 0)
        (void)snprintf(buf, LIST_BYTES, "CPU %d, %s", status->sq_cpu, status->sq_place);
    else
        (void)snprintf(buf, LIST_BYTES, "%s", status->sq_place);
}

static void describe_arena(const struct tool_machine *machine, unsigned node, char *buf)
{
    const struct numio_arena_audit *arena = &machine->arenas[node];
    if (arena->is_bound)
        (void)snprintf(buf, LIST_BYTES, "NUMA %d", machine->nodes[node].os_node); /* fits */
    else
        (void)snprintf(buf, LIST_BYTES, "first touch"); /* fits */
}

static int print_nodes(const struct tool_machine *machine, const struct tool_term *term)
{
    static const char *const heading[] = { "node",      "workers", "CPUs",  "runs on CPUs",
                                           "SQ thread", "arena",   "memory" };
    struct tool_table table;
    bool is_emulated = machine->status.is_emulated;
    tool_table_init(&table, is_emulated ? 7 : 6, is_emulated ? 0x3eu : 0x1eu);
    for (int row = -1; row < (int)machine->status.nodes; row++) {
        char text[7][LIST_BYTES];
        const char *cells[7];
        unsigned used = 0;
        for (unsigned c = 0; c < 7; c++) {
            if (c != 3 || is_emulated)
                cells[used++] = row < 0 ? heading[c] : text[c];
        }
        if (row >= 0) {
            const struct numio_node_status *node = &machine->nodes[row];
            unsigned last = node->worker_first + node->worker_count - 1;
            (void)snprintf(text[0], LIST_BYTES, "%d", row); /* fits, as all below */
            if (node->worker_count > 1)
                (void)snprintf(text[1], LIST_BYTES, "%u-%u", node->worker_first, last);
            else
                (void)snprintf(text[1], LIST_BYTES, "%u", node->worker_first);
            list_cpus(machine, (unsigned)row, false, text[2]);
            list_cpus(machine, (unsigned)row, true, text[3]);
            describe_sq(machine, (unsigned)row, text[4]);
            describe_arena(machine, (unsigned)row, text[5]);
            if (node->memory_bytes > 0)
                (void)tool_bytes(text[6], node->memory_bytes); /* returns its buffer */
            else
                (void)snprintf(text[6], LIST_BYTES, "?");
        }
        tool_table_add(&table, cells);
    }
    int err = tool_table_print(&table, term);
    tool_table_fini(&table);
    putchar('\n');
    return err;
}

static int print_distances(const struct tool_machine *machine, const struct tool_term *term)
{
    uint32_t count = machine->info.numa_count;
    struct tool_table table;
    if (count < 2)
        return 0;
    if (count >= TOOL_TABLE_COLUMNS_MAX) {
        printf("distances of %u NUMA nodes: see numio info --json\n\n", count);
        return 0;
    }
    tool_table_init(&table, count + 1, 1);
    for (int row = -1; row < (int)count; row++) {
        char text[TOOL_TABLE_COLUMNS_MAX][TOOL_NUMBER_BYTES];
        const char *cells[TOOL_TABLE_COLUMNS_MAX];
        for (int c = -1; c < (int)count; c++) {
            char *cell = text[c + 1];
            if (row < 0 && c < 0)
                (void)snprintf(cell, TOOL_NUMBER_BYTES, "distance"); /* fits, as all below */
            else if (c < 0)
                (void)snprintf(cell, TOOL_NUMBER_BYTES, "NUMA %d",
                               tool_numa_number(machine, (uint32_t)row));
            else if (row < 0)
                (void)snprintf(cell, TOOL_NUMBER_BYTES, "%d",
                               tool_numa_number(machine, (uint32_t)c));
            else
                (void)snprintf(
                    cell, TOOL_NUMBER_BYTES, "%u",
                    numio_topology_distance(machine->topology, (uint32_t)row, (uint32_t)c));
            cells[c + 1] = cell;
        }
        tool_table_add(&table, cells);
    }
    int err = tool_table_print(&table, term);
    tool_table_fini(&table);
    printf("%s\n", machine->info.has_distances ? "" : "(assumed: the firmware gives none)\n");
    return err;
}

static void print_pair(const struct tool_term *term, const char *key, const char *value)
{
    printf("%s%-*s%s", tool_colour(term, TOOL_DIM), KEY_COLUMNS, key,
           tool_colour(term, TOOL_PLAIN));
    tool_print_wrapped(term, KEY_COLUMNS, KEY_COLUMNS, value);
}

static void print_settings(const struct tool_machine *machine, const struct tool_term *term)
{
    static const char *const idle_words[] = {
        [NUMIO_IDLE_BALANCED] = "spins as long as that has paid lately, then parks",
        [NUMIO_IDLE_SPIN] = "never parks",
        [NUMIO_IDLE_PARK] = "parks at once",
    };
    enum numio_idle_policy idle = machine->config.idle;
    char text[LIST_BYTES];
    const char *asked = tool_driver_name(machine->config.driver);
    (void)snprintf(text, sizeof text, "%s (asked for: %s)", machine->status.driver,
                   asked); /* fits */
    print_pair(term, "driver", text);
    (void)snprintf(text, sizeof text, "%s: %s", machine->status.idle, /* fits */
                   idle_words[idle <= NUMIO_IDLE_PARK ? idle : NUMIO_IDLE_BALANCED]);
    print_pair(term, "idle", text);
    print_pair(term, "clock", machine->status.clock);
    if (machine->status.napi_busy_poll_us > 0) {
        (void)snprintf(text, sizeof text, "for %u us%s",
                       machine->status.napi_busy_poll_us, /* fits */
                       machine->config.napi_prefer_busy_poll ? ", preferred to interrupts" : "");
        print_pair(term, "busy poll", text);
    }
    if (machine->status.cpu_dma_latency_us >= 0) {
        (void)snprintf(text, sizeof text, "idle CPUs wake within %d us", /* fits */
                       machine->status.cpu_dma_latency_us);
        print_pair(term, "latency", text);
    }
    print_pair(term, "shard by", tool_shard_name(machine->config.shard_by));
    (void)snprintf(text, sizeof text, "guarded by %s", machine->status.stack_guard); /* fits */
    print_pair(term, "stacks", text);
    for (unsigned i = 0; i < machine->status.nodes; i++) {
        if (!machine->arenas[i].reason[0])
            continue;
        (void)snprintf(text, sizeof text, "node %u: %s", i, machine->arenas[i].reason); /* fits */
        print_pair(term, "arena", text);
    }
}

static void print_reasons(const struct tool_machine *machine, const struct tool_term *term)
{
    for (size_t i = 0; i < machine->reason_count; i++)
        print_pair(term, i == 0 ? "reasons" : "", machine->reasons[i]);
    if (machine->reason_count == 0 && machine->has_runtime)
        print_pair(term, "reasons", "none: nothing is less than it could be");
}

int tool_info_text(const struct tool_machine *machine, const struct tool_term *term)
{
    print_heading(machine, term);
    int err = tool_draw_machine(machine, term);
    putchar('\n');
    if (err == 0 && machine->has_runtime)
        err = print_nodes(machine, term);
    if (err == 0)
        err = print_distances(machine, term);
    if (machine->has_runtime)
        print_settings(machine, term);
    print_reasons(machine, term);
    return err;
}

int tool_info(const struct numio_config *config, const struct tool_term *term, bool as_json)
{
    struct tool_machine machine;
    int err = tool_machine_load_probing(&machine, config);
    if (err < 0) {
        const char *detail = numio_strerror_detail();
        fprintf(stderr, "numio info: %s\n", detail[0] ? detail : strerror(-err));
        if (as_json)
            tool_info_json_error(err, detail);
        return 1;
    }
    if (as_json)
        tool_info_json(&machine);
    else
        err = tool_info_text(&machine, term);
    int status = err < 0 || machine.error < 0 ? 1 : 0;
    if (err < 0)
        fprintf(stderr, "numio info: %s\n", strerror(-err));
    if (machine.error < 0)
        fprintf(stderr, "numio info: the runtime cannot start: %s\n",
                machine.error_detail && machine.error_detail[0] ? machine.error_detail
                                                                : strerror(-machine.error));
    tool_machine_fini(&machine);
    return status;
}
