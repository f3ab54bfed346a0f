/* SPDX-License-Identifier: MIT */
/* bench_cpus.h: sets of CPUs, as text and as the calling thread's affinity.  Any thread. */
#ifndef BENCH_CPUS_H
#define BENCH_CPUS_H

#include <sched.h>
#include <stdbool.h>

#define BENCH_CPU_LIST_BYTES 4096

/* What the calling thread may use.  False: the kernel has more CPUs than fit into a set. */
bool bench_cpus_allowed(cpu_set_t *ret_set);
/* Takes from `set` all that `list` ("0-3,8") does not name.  False: it does not parse. */
bool bench_cpus_restrict(cpu_set_t *set, const char *list);
/* Splits a set of at least one CPU into the last one and the others. */
void bench_cpus_split_last(const cpu_set_t *set, cpu_set_t *ret_others, cpu_set_t *ret_last);
/* Writes "0,1,5".  False: `list` (BENCH_CPU_LIST_BYTES) is too short. */
bool bench_cpus_format(const cpu_set_t *set, char *list);
/* Binds the calling thread; ends the program if it cannot. */
void bench_cpus_bind(const cpu_set_t *set);

#endif
