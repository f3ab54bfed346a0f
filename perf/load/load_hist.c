/* SPDX-License-Identifier: MIT */
/* Buckets are linear below 128 ns and then 128 to each power of two, so that the relative error
 * is the same everywhere and the index is two shifts and a count of leading zeros.
 */
#include "perf/load/load_hist.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t bucket_of(uint64_t value)
{
    const uint64_t limit = (UINT64_C(1) << LOAD_HIST_VALUE_BITS) - 1;
    if (value > limit)
        value = limit;
    if (value < LOAD_HIST_SUBS)
        return (size_t)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - LOAD_HIST_SUB_BITS;
    return (size_t)(shift << LOAD_HIST_SUB_BITS) + (size_t)(value >> shift);
}

/* The middle of a bucket. */
static double value_of(size_t bucket)
{
    if (bucket < 2 * LOAD_HIST_SUBS)
        return (double)bucket;
    unsigned shift = (unsigned)(bucket >> LOAD_HIST_SUB_BITS) - 1;
    uint64_t low = (uint64_t)(bucket - ((size_t)shift << LOAD_HIST_SUB_BITS)) << shift;
    return (double)low + (double)((UINT64_C(1) << shift) - 1) / 2;
}

void load_hist_clear(struct load_hist *hist)
{
    memset(hist, 0, sizeof *hist);
}

void load_hist_add(struct load_hist *hist, uint64_t value_ns)
{
    hist->count++;
    hist->buckets[bucket_of(value_ns)]++;
}

double load_hist_quantile(const struct load_hist *hist, double part)
{
    uint64_t wanted = (uint64_t)ceil((double)hist->count * part);
    uint64_t seen = 0;
    for (size_t i = 0; i < LOAD_HIST_BUCKETS; i++) {
        seen += hist->buckets[i];
        if (seen != 0 && seen >= wanted)
            return value_of(i);
    }
    return 0;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median_of_sorted(const double *values, size_t count)
{
    size_t half = count / 2;
    return count % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

struct load_summary load_summarise(double *samples, double *scratch, size_t count)
{
    struct load_summary summary;
    qsort(samples, count, sizeof *samples, compare);
    summary.min = samples[0];
    summary.max = samples[count - 1];
    summary.median = median_of_sorted(samples, count);
    for (size_t i = 0; i < count; i++)
        scratch[i] = fabs(samples[i] - summary.median);
    qsort(scratch, count, sizeof *scratch, compare);
    summary.mad = median_of_sorted(scratch, count);
    return summary;
}
