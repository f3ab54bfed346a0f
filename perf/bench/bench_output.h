/* SPDX-License-Identifier: MIT */
/* bench_output.h: where results go: JSON lines, a table for people, progress.  Main thread only. */
#ifndef BENCH_OUTPUT_H
#define BENCH_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "perf/bench/bench.h"
#include "perf/bench/bench_stats.h"

struct bench_sink {
    FILE *json;         /* lines, NULL: none wanted */
    bool with_table;    /* on stdout */
    bool with_header;   /* the table's header is out */
    bool on_terminal;   /* stderr is one: progress overwrites itself */
    bool with_progress; /* a progress line is on the terminal */
    uint64_t told_ns;   /* when the last progress was told, or the scenario began */
};

/* Opens the file that the options name.  Ends the program if it cannot be written. */
void bench_sink_open(struct bench_sink *sink, const struct bench_options *options);
/* Errors: -EIO not everything could be written. */
int bench_sink_close(struct bench_sink *sink);

/* A scenario begins: its progress counts from now. */
void bench_sink_begin(struct bench_sink *sink);
void bench_sink_line(struct bench_sink *sink, const struct bench *b, const char *name,
                     const char *unit, const struct bench_summary *s);
void bench_sink_progress(struct bench_sink *sink, const char *name, unsigned done, unsigned total);
/* Takes the progress line off the terminal. */
void bench_sink_quiet(struct bench_sink *sink);

/* The counters of all workers, on stderr. */
void bench_print_metrics(const struct bench *b);

#endif
