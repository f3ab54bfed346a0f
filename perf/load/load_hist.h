/* SPDX-License-Identifier: MIT */
/* perf/load/load_hist.h: a histogram of latencies in nanoseconds, and order statistics of a few
 * samples.  One thread.  Adding costs a handful of instructions and touches one cache line; a
 * value is kept to within 1/128 of itself, up to about 36 minutes, and counted there beyond.
 */
#ifndef NIO_PERF_LOAD_HIST_H
#define NIO_PERF_LOAD_HIST_H

#include <stddef.h>
#include <stdint.h>

enum {
    LOAD_HIST_SUB_BITS = 7,
    LOAD_HIST_SUBS = 1 << LOAD_HIST_SUB_BITS,
    LOAD_HIST_VALUE_BITS = 41,
    LOAD_HIST_BUCKETS = (LOAD_HIST_VALUE_BITS - LOAD_HIST_SUB_BITS + 1) * LOAD_HIST_SUBS,
};

struct load_hist {
    uint64_t count;
    uint64_t buckets[LOAD_HIST_BUCKETS];
};

struct load_summary {
    double median;
    double mad;
    double min;
    double max;
};

void load_hist_clear(struct load_hist *hist);
void load_hist_add(struct load_hist *hist, uint64_t value_ns);

/* The value that `part` (0 < part <= 1) of all values do not exceed; 0 of an empty histogram. */
double load_hist_quantile(const struct load_hist *hist, double part);

/* Sorts `samples` and summarises them; `count` is at least 1, `scratch` has room for as many. */
struct load_summary load_summarise(double *samples, double *scratch, size_t count);

#endif
