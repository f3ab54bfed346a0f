/* SPDX-License-Identifier: MIT */
/* bench_stats.h: what is said about a handful of samples.  Pure functions, any thread.
 *
 * The median and the median absolute deviation, because on a machine that does other things too
 * a mean says more about those.
 */
#ifndef BENCH_STATS_H
#define BENCH_STATS_H

#include <stddef.h>

struct bench_summary {
    double median, mad, min, max;
    size_t n;
};

/* Sorts `values`, `n` of them and at least one, and returns their median. */
double bench_median(double *values, size_t n);
/* Sorts `samples` and overwrites them. */
struct bench_summary bench_summarise(double *samples, size_t n);

#endif
