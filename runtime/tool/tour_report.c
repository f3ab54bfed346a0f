/* SPDX-License-Identifier: MIT */
#include "runtime/tool/tour.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <numio/arena.h>

#include "runtime/tool/tool_table.h"

enum { COLUMNS = 12 };

struct totals {
    uint64_t tasks, near, far, wakes, sqes, cqes, enters, bytes_in, bytes_out;
    uint64_t memory_bytes, pages_home, pages_placed; /* placed: the kernel said where */
    bool is_unbound;                                 /* no node was asked for: home means nothing */
};

struct tour_report {
    unsigned node_count;
    bool has_rings;        /* else there is no io_uring_enter to be saved */
    struct totals nodes[]; /* one more at the end: the sum */
};

static void add_worker(struct totals *totals, const struct numio_worker_metrics *metrics)
{
    totals->tasks += metrics->completed;
    totals->near += metrics->stolen_near;
    totals->far += metrics->stolen_far;
    totals->wakes += metrics->wakes_sent;
    totals->sqes += metrics->sqes;
    totals->cqes += metrics->cqes;
    totals->enters += metrics->enters;
    totals->bytes_in += metrics->bytes_in;
    totals->bytes_out += metrics->bytes_out;
}

static void add_arena(struct totals *totals, const struct numio_arena_audit *audit)
{
    totals->is_unbound |= !audit->is_bound;
    totals->pages_home += audit->pages_home;
    totals->pages_placed += audit->pages_home + audit->pages_away;
    totals->memory_bytes += (audit->pages_home + audit->pages_away) * audit->page_bytes;
}

struct tour_report *tour_report_take(struct tour *tour)
{
    unsigned nodes = tour->machine.status.nodes;
    struct tour_report *report = calloc(1, sizeof *report + (nodes + 1u) * sizeof report->nodes[0]);
    if (!report) {
        tour_wrong(tour, "no memory for the table");
        return NULL;
    }
    report->node_count = nodes;
    report->has_rings = strcmp(tour->machine.status.driver, "epoll") != 0;
    for (unsigned i = 0; i < tour->machine.status.workers; i++) {
        struct numio_worker_metrics metrics = { .size = sizeof metrics };
        int err = numio_worker_metrics(tour->handle, i, &metrics);
        if (err < 0 || metrics.node >= nodes) {
            tour_wrong(tour, "counters of worker %u: %s", i, strerror(err < 0 ? -err : ERANGE));
            continue;
        }
        add_worker(&report->nodes[metrics.node], &metrics);
        add_worker(&report->nodes[nodes], &metrics);
    }
    for (unsigned i = 0; i < nodes; i++) {
        struct numio_arena_audit audit = { .size = sizeof audit };
        int err = numio_arena_audit(tour->handle, i, &audit);
        if (err < 0) {
            tour_wrong(tour, "memory of node %u: %s", i, strerror(-err));
            continue;
        }
        add_arena(&report->nodes[i], &audit);
        add_arena(&report->nodes[nodes], &audit);
    }
    return report;
}

void tour_report_free(struct tour_report *report)
{
    free(report);
}

static void add_row(struct tool_table *table, const char *name, const struct totals *totals,
                    bool has_rings)
{
    char text[COLUMNS][TOOL_NUMBER_BYTES];
    const char *cells[COLUMNS] = { name };
    uint64_t saved = totals->cqes > totals->enters ? totals->cqes - totals->enters : 0;
    const uint64_t counts[] = { totals->tasks, totals->near, totals->far, totals->wakes,
                                totals->sqes,  totals->cqes, saved };
    const uint64_t bytes[] = { totals->bytes_in, totals->bytes_out, totals->memory_bytes };
    unsigned column = 1;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++, column++)
        cells[column] = tool_short(text[column], counts[i]);
    if (!has_rings)
        cells[column - 1] = "-";
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++, column++)
        cells[column] = tool_bytes(text[column], bytes[i]);
    (void)snprintf(text[column], TOOL_NUMBER_BYTES, "-"); /* fits */
    if (totals->pages_placed > 0 && !totals->is_unbound)
        (void)snprintf(text[column], TOOL_NUMBER_BYTES, "%.3g%%", /* fits */
                       100.0 * (double)totals->pages_home / (double)totals->pages_placed);
    cells[column] = text[column];
    tool_table_add(table, cells);
}

void tour_report_print(const struct tour_report *report, const struct tool_term *term)
{
    static const char *const heading[COLUMNS] = {
        "node", "tasks", "near", "far", "wakes",  "SQEs",
        "CQEs", "saved", "in",   "out", "memory", "home"
    };
    struct tool_table table;
    tool_table_init(&table, COLUMNS, 1);
    tool_table_add(&table, heading);
    for (unsigned i = 0; i < report->node_count; i++) {
        char name[TOOL_NUMBER_BYTES];
        (void)snprintf(name, sizeof name, "%u", i); /* fits */
        add_row(&table, name, &report->nodes[i], report->has_rings);
    }
    if (report->node_count > 1)
        add_row(&table, "all", &report->nodes[report->node_count], report->has_rings);
    putchar('\n');
    if (tool_table_print(&table, term) < 0)
        fputs("no memory for the table\n", stderr);
    tool_table_fini(&table);
    fputs(tool_colour(term, TOOL_DIM), stdout);
    tool_print_wrapped(term, 0, 0,
                       "near, far: tasks stolen within the node and from other nodes; saved: "
                       "operations less calls of io_uring_enter; home: memory on its own node");
    if (report->nodes[report->node_count].is_unbound)
        puts("home is not known where memory is not bound to nodes");
    fputs(tool_colour(term, TOOL_PLAIN), stdout);
}
