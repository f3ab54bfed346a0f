/* SPDX-License-Identifier: MIT */
/* numa/cpulist.h: reads CPU lists such as "0-3,8", as people and the kernel write them.
 *
 * An iterator over the ranges of the text: no allocation, no state but the cursor, any thread.
 * Blanks around a range are skipped; the text ends at NUL or at a line end.
 */
#ifndef NIO_NUMA_CPULIST_H
#define NIO_NUMA_CPULIST_H

#include <stdbool.h>

/* One more than the greatest CPU number accepted. */
enum { NIO_CPU_LIMIT = 1 << 20 };

/* Takes the next range.  Returns 1 and moves *cursor behind it; 0 at the end of the text;
 * -EINVAL for anything that is not a list: then nothing is changed. */
int nio_cpulist_next(const char **cursor, int *ret_first, int *ret_last);
/* True when the whole text is a list with at least one CPU. */
bool nio_cpulist_is_valid(const char *text);
/* True when `cpu` is in the list; ranges after a syntax error do not count. */
bool nio_cpulist_has(const char *text, int cpu);

#endif
