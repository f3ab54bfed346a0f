/* SPDX-License-Identifier: MIT */
/* tests/numa/numa_check.h: the frame of the programs that run on machines with several nodes.
 *
 * A program prints a line for each thing it looked at, `ok NAME`, `FAILED NAME: why` or
 * `skipped NAME: why`, and exits with 0, with 1 if anything failed, or with 77 if nothing but
 * skips happened.  What it compares with comes from the kernel, never from numio's bookkeeping.
 *
 * One thread reports at a time.
 */
#ifndef TESTS_NUMA_NUMA_CHECK_H
#define TESTS_NUMA_NUMA_CHECK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <numio/error.h>

static unsigned numa_passed, numa_failed, numa_skipped;

__attribute__((format(printf, 3, 4))) static inline bool numa_check(bool holds, const char *name,
                                                                    const char *why, ...)
{
    va_list args;
    if (holds) {
        printf("ok %s\n", name);
        numa_passed++;
    } else {
        printf("FAILED %s: ", name);
        va_start(args, why);
        (void)vprintf(why, args); /* a report that is lost is lost */
        va_end(args);
        putchar('\n');
        numa_failed++;
    }
    (void)fflush(stdout);
    return holds;
}

static inline void numa_skip(const char *name, const char *why)
{
    printf("skipped %s: %s\n", name, why);
    (void)fflush(stdout); /* as above */
    numa_skipped++;
}

/* For calls that must work before anything can be checked: ends the program. */
static inline void numa_must(int64_t rc, const char *what)
{
    if (rc >= 0)
        return;
    printf("FAILED %s: %s\n", what, numio_strerror_detail());
    (void)fflush(stdout); /* as above */
    exit(1);
}

static inline int numa_end(void)
{
    if (numa_failed > 0)
        return 1;
    return numa_passed == 0 && numa_skipped > 0 ? 77 : 0;
}

#endif
