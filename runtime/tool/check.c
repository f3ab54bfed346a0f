/* SPDX-License-Identifier: MIT */
/* The order of the looks, the report, the verdict. */
#include "runtime/tool/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <numio/error.h>

#include "runtime/tool/tool_json.h"
#include "runtime/tool/tool_table.h"

enum { CELL_BYTES = 96 };

void check_finding(struct check *check, const char *format, ...)
{
    va_list args;
    if (check->finding_count == CHECK_FINDINGS_MAX)
        return; /* whoever reads so many has enough to do */
    va_start(args, format);
    (void)vsnprintf(check->findings[check->finding_count++], CHECK_FINDING_BYTES, format,
                    args); /* cut at the buffer's end */
    va_end(args);
}

void check_progress(const struct check *check, const char *what)
{
    if (!check->options->as_json && isatty(STDERR_FILENO))
        fprintf(stderr, "... %s\n", what);
}

/* --- for people ------------------------------------------------------------------------------ */

/* "100 % of 1,024", "-" if there are none. */
static void put_share(char *cell, const struct check_pages *pages)
{
    char number[TOOL_NUMBER_BYTES];
    uint64_t all = pages->home + pages->away;
    if (all == 0)
        (void)snprintf(cell, CELL_BYTES, "?");
    else
        (void)snprintf(cell, CELL_BYTES, "%.4g%% of %s", 100.0 * (double)pages->home / (double)all,
                       tool_count(number, all)); /* fits, as all below */
}

static void put_sq(char *cell, const struct check *check, unsigned i)
{
    const struct check_node *node = &check->nodes[i];
    if (node->sq_tid < 0)
        (void)snprintf(cell, CELL_BYTES, "none");
    else
        (void)snprintf(cell, CELL_BYTES, "%d, %s", node->sq_tid,
                       node->is_sq_placed ? "at home" : "AWAY");
}

static void print_nodes(const struct check *check)
{
    static const char *const heading[] = { "node",   "NUMA",        "pinned", "SQ thread", "cells",
                                           "stacks", "I/O buffers", "malloc", "interrupts" };
    struct tool_table table;
    tool_table_init(&table, 9, 0);
    tool_table_add(&table, heading);
    for (unsigned i = 0; i < check->machine.status.nodes; i++) {
        const struct check_node *node = &check->nodes[i];
        char cells[9][CELL_BYTES];
        const char *row[9];
        (void)snprintf(cells[0], CELL_BYTES, "%u", i);
        (void)snprintf(cells[1], CELL_BYTES, "%d", node->home);
        (void)snprintf(cells[2], CELL_BYTES, "%u of %u", node->pinned,
                       check->machine.nodes[i].worker_count);
        put_sq(cells[3], check, i);
        put_share(cells[4], &node->cells);
        put_share(cells[5], &node->stacks);
        put_share(cells[6], &node->buffers);
        put_share(cells[7], &node->heap);
        (void)snprintf(cells[8], CELL_BYTES, "%u of %u", node->interrupts - node->interrupts_away,
                       node->interrupts);
        for (unsigned c = 0; c < 9; c++)
            row[c] = cells[c];
        tool_table_add(&table, row);
    }
    if (tool_table_print(&table, check->term) < 0)
        puts("(no memory for the table)");
    tool_table_fini(&table);
    puts("pages and interrupts: how many are on their own node (an NVMe disk has one per CPU)\n");
    for (unsigned i = 0; i < check->machine.status.nodes; i++)
        if (check->nodes[i].devices[0])
            printf("devices on node %u: %s\n", i, check->nodes[i].devices);
}

/* A matrix: from the runtime's nodes to the kernel's. */
static void print_matrix(const struct check *check, const char *title, const double *values)
{
    struct tool_table table;
    unsigned columns = check->memory_nodes + 1;
    if (!values || columns > TOOL_TABLE_COLUMNS_MAX)
        return;
    tool_table_init(&table, columns, 1);
    for (int row = -1; row < (int)check->machine.status.nodes; row++) {
        char cells[TOOL_TABLE_COLUMNS_MAX][CELL_BYTES];
        const char *pointers[TOOL_TABLE_COLUMNS_MAX];
        if (row < 0)
            (void)snprintf(cells[0], CELL_BYTES, "%s", title);
        else
            (void)snprintf(cells[0], CELL_BYTES, "from node %d", row);
        for (unsigned k = 0; k < check->memory_nodes; k++) {
            double value = row < 0 ? 0 : values[(unsigned)row * check->memory_nodes + k];
            if (row < 0)
                (void)snprintf(cells[k + 1], CELL_BYTES, "NUMA %d", check->memory_node[k]);
            else if (value > 0)
                (void)snprintf(cells[k + 1], CELL_BYTES, "%.1f", value);
            else
                (void)snprintf(cells[k + 1], CELL_BYTES, "?");
        }
        for (unsigned c = 0; c < columns; c++)
            pointers[c] = cells[c];
        tool_table_add(&table, pointers);
    }
    if (tool_table_print(&table, check->term) < 0)
        puts("(no memory for the table)");
    tool_table_fini(&table);
    putchar('\n');
}

void check_text(const struct check *check)
{
    printf("%snumio %s numa-check%s: %u node%s, %u workers, driver %s\n\n",
           tool_colour(check->term, TOOL_BOLD), NUMIO_VERSION, tool_colour(check->term, TOOL_PLAIN),
           check->machine.status.nodes, check->machine.status.nodes == 1 ? "" : "s",
           check->machine.status.workers, check->machine.status.driver);
    print_nodes(check);
    print_matrix(check, "ns a dependent load", check->latency_ns);
    print_matrix(check, "GB/s read by a core", check->bytes_per_ns);
    for (unsigned i = 0; i < check->finding_count; i++) {
        printf("%s!%s ", tool_colour(check->term, TOOL_RED), tool_colour(check->term, TOOL_PLAIN));
        tool_print_wrapped(check->term, 2, 2, check->findings[i]);
    }
    if (check->finding_count == 0)
        printf("%sEverything is where it belongs.%s\n", tool_colour(check->term, TOOL_GREEN),
               tool_colour(check->term, TOOL_PLAIN));
}

/* --- for programs ---------------------------------------------------------------------------- */

static void put_pages(struct tool_json *json, const char *key, const struct check_pages *pages)
{
    tool_json_open(json, key, '{');
    tool_json_uint(json, "home", pages->home);
    tool_json_uint(json, "away", pages->away);
    tool_json_close(json, '}');
}

static void put_row(struct tool_json *json, const char *key, const struct check *check,
                    const double *values, unsigned row)
{
    tool_json_open(json, key, '[');
    for (unsigned k = 0; values && k < check->memory_nodes; k++)
        tool_json_double(json, NULL, values[row * check->memory_nodes + k]);
    tool_json_close(json, ']');
}

void check_json(const struct check *check)
{
    struct tool_json json = { 0 };
    tool_json_open(&json, NULL, '{');
    tool_json_string(&json, "version", NUMIO_VERSION);
    tool_json_string(&json, "driver", check->machine.status.driver);
    tool_json_open(&json, "memory_nodes", '[');
    for (unsigned k = 0; k < check->memory_nodes; k++)
        tool_json_int(&json, NULL, check->memory_node[k]);
    tool_json_close(&json, ']');
    tool_json_open(&json, "nodes", '[');
    for (unsigned i = 0; i < check->machine.status.nodes; i++) {
        const struct check_node *node = &check->nodes[i];
        tool_json_open(&json, NULL, '{');
        tool_json_int(&json, "home", node->home);
        tool_json_uint(&json, "workers", check->machine.nodes[i].worker_count);
        tool_json_uint(&json, "pinned", node->pinned);
        tool_json_int(&json, "sq_thread", node->sq_tid);
        tool_json_bool(&json, "sq_at_home", node->sq_tid < 0 || node->is_sq_placed);
        put_pages(&json, "cells", &node->cells);
        put_pages(&json, "stacks", &node->stacks);
        put_pages(&json, "io_buffers", &node->buffers);
        put_pages(&json, "malloc", &node->heap);
        tool_json_uint(&json, "interrupts", node->interrupts);
        tool_json_uint(&json, "interrupts_away", node->interrupts_away);
        tool_json_string(&json, "devices", node->devices);
        put_row(&json, "latency_ns", check, check->latency_ns, i);
        put_row(&json, "gb_per_s", check, check->bytes_per_ns, i);
        tool_json_close(&json, '}');
    }
    tool_json_close(&json, ']');
    tool_json_open(&json, "findings", '[');
    for (unsigned i = 0; i < check->finding_count; i++)
        tool_json_string(&json, NULL, check->findings[i]);
    tool_json_close(&json, ']');
    tool_json_close(&json, '}');
}

/* --- the whole ------------------------------------------------------------------------------- */

static int look(struct check *check)
{
    int rc = numio_runtime_create(&check->options->config, &check->runtime);
    if (rc < 0)
        return rc;
    check->handle = numio_runtime_handle(check->runtime);
    rc = tool_machine_load(&check->machine, &check->options->config, check->handle);
    if (rc == 0) {
        check->nodes = calloc(check->machine.status.nodes, sizeof *check->nodes);
        rc = check->nodes ? 0 : -ENOMEM;
    }
    if (rc == 0) {
        (void)check_thread_cpus(0, &check->allowed); /* the calling thread exists */
        check_threads(check);
        check_placement(check);
        check_interrupts(check);
    }
    int end = numio_runtime_shutdown(check->runtime, -1, NULL, 0, NULL);
    numio_runtime_destroy(check->runtime);
    if (rc == 0)
        rc = end;
    if (rc == 0)
        check_memory(check); /* the workers are gone: nobody disturbs the timing */
    return rc;
}

int check_run(const struct tool_options *options, const struct tool_term *term)
{
    struct check *check = calloc(1, sizeof *check);
    if (!check) {
        fputs("numio numa-check: no memory\n", stderr);
        return 1;
    }
    check->options = options;
    check->term = term;
    int rc = look(check);
    int status = rc < 0 || check->finding_count > 0 ? 1 : 0;
    if (rc < 0) {
        const char *detail = numio_strerror_detail();
        fprintf(stderr, "numio numa-check: %s\n", detail[0] ? detail : strerror(-rc));
    } else if (options->as_json) {
        check_json(check);
    } else {
        check_text(check);
    }
    tool_machine_fini(&check->machine);
    free(check->nodes);
    free(check->latency_ns);
    free(check->bytes_per_ns);
    free(check);
    return status;
}
