/* SPDX-License-Identifier: MIT */
#include "perf/bench/bench_stats.h"

#include <math.h>
#include <stdlib.h>

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

double bench_median(double *values, size_t n)
{
    qsort(values, n, sizeof values[0], compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

struct bench_summary bench_summarise(double *samples, size_t n)
{
    struct bench_summary s = { .n = n, .median = bench_median(samples, n) };
    s.min = samples[0];
    s.max = samples[n - 1];
    for (size_t i = 0; i < n; i++)
        samples[i] = fabs(samples[i] - s.median);
    s.mad = bench_median(samples, n);
    return s;
}
