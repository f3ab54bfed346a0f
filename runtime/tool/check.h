/* SPDX-License-Identifier: MIT */
/* check.h: `numio numa-check`: whether things are where numio promises, by the kernel's word.
 *
 * A runtime works for a moment; then the kernel is asked where its pages lie, where its threads may
 * run, who serves the interrupts of each node's devices, and memory is timed from each node to
 * each.  The main thread only, unless said.
 */
#ifndef NIO_TOOL_CHECK_H
#define NIO_TOOL_CHECK_H

#include "runtime/tool/tool_machine.h"
#include "runtime/tool/tool_options.h"
#include "runtime/tool/tool_term.h"

enum {
    CHECK_CPUS_MAX = 1024,
    CHECK_NODES_MAX = 64, /* of the kernel */
    CHECK_FINDINGS_MAX = 32,
    CHECK_FINDING_BYTES = 320,
    CHECK_LINE_BYTES = 4096,
    CHECK_DEVICES_BYTES = 64
};

struct check_cpus {
    uint64_t words[CHECK_CPUS_MAX / 64];
};

/* Pages of one kind that should lie on a home, by move_pages(2). */
struct check_pages {
    uint64_t home, away;
};

/* What was found of one node of the runtime. */
struct check_node {
    int home;          /* the kernel's node with memory that is nearest to its workers */
    unsigned pinned;   /* workers that may run on their own CPU only */
    int sq_tid;        /* -1: none */
    bool is_sq_placed; /* its SQ thread may run on this node's CPUs only */
    struct check_pages cells, stacks, buffers, heap;
    unsigned interrupts, interrupts_away; /* of this node's devices: all, served elsewhere */
    char devices[CHECK_DEVICES_BYTES];    /* names of some of them */
};

struct check {
    const struct tool_options *options;
    const struct tool_term *term;
    struct numio_runtime *runtime;
    struct numio_handle *handle;
    struct tool_machine machine;
    struct check_node *nodes;          /* one per node of the runtime */
    struct check_cpus allowed;         /* of the process */
    unsigned memory_nodes;             /* that were timed */
    int memory_node[CHECK_NODES_MAX];  /* their numbers */
    double *latency_ns, *bytes_per_ns; /* runtime's nodes x memory_nodes; 0: not measured */
    unsigned finding_count;
    char findings[CHECK_FINDINGS_MAX][CHECK_FINDING_BYTES];
};

/* Notes what is misplaced and what to do about it. */
void check_finding(struct check *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Says on stderr what is being done, where somebody looks on. */
void check_progress(const struct check *check, const char *what);

/* --- check_kernel.c: what /sys and /proc say ------------------------------------------------- */

/* The first line of a file, "" if there is none. */
void check_read(char *ret_line, const char *path_format, ...) __attribute__((format(printf, 2, 3)));
void check_parse_list(const char *text, struct check_cpus *ret_cpus);
bool check_has_cpu(const struct check_cpus *cpus, int cpu);
bool check_is_within(const struct check_cpus *cpus, const struct check_cpus *limit);
unsigned check_count(const struct check_cpus *cpus);
/* False: there is no such thread. */
bool check_thread_cpus(int tid, struct check_cpus *ret_cpus);
void check_node_cpus(int node, struct check_cpus *ret_cpus);
/* The node that a CPU belongs to, and the nearest one that has memory. */
int check_node_of_cpu(int cpu);
int check_home_of_node(int node);
/* The nodes with memory; returns how many. */
unsigned check_memory_nodes(int *ret_nodes);
/* Counts the pages of written memory by whether they lie on `home`.  Any thread. */
void check_count_pages(const void *memory, size_t bytes, int home, struct check_pages *pages);

/* --- the parts ------------------------------------------------------------------------------- */

/* Threads: pinning, SQ threads. */
void check_threads(struct check *check);
/* Runs tasks on every node and looks where their cells, stacks, buffers and heap lie. */
void check_placement(struct check *check);
/* Times memory of each node from each node. */
void check_memory(struct check *check);
/* Who serves the interrupts of the devices that belong to a node. */
void check_interrupts(struct check *check);

void check_text(const struct check *check);
void check_json(const struct check *check);

/* Runs `numio numa-check`: returns the exit status, 0 all in place, 1 something is misplaced. */
int check_run(const struct tool_options *options, const struct tool_term *term);

#endif
