/* SPDX-License-Identifier: MIT */
#include "perf/bench/bench_cpus.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf/bench/bench.h"

bool bench_cpus_allowed(cpu_set_t *ret_set)
{
    return sched_getaffinity(0, sizeof *ret_set, ret_set) == 0;
}

/* Reads one number of `*text` and moves past it. */
static bool read_cpu(const char **text, unsigned long *ret_cpu)
{
    char *end = NULL;
    if (**text < '0' || **text > '9')
        return false;
    unsigned long cpu = strtoul(*text, &end, 10);
    if (cpu >= CPU_SETSIZE)
        return false;
    *text = end;
    *ret_cpu = cpu;
    return true;
}

bool bench_cpus_restrict(cpu_set_t *set, const char *list)
{
    cpu_set_t named;
    CPU_ZERO(&named);
    for (const char *at = list;; at++) { /* one turn per comma */
        unsigned long first, last;
        if (!read_cpu(&at, &first))
            return false;
        last = first;
        if (*at == '-') {
            at++;
            if (!read_cpu(&at, &last))
                return false;
        }
        for (unsigned long cpu = first; cpu <= last; cpu++)
            CPU_SET(cpu, &named);
        if (*at == '\0')
            break;
        if (*at != ',')
            return false;
    }
    CPU_AND(set, set, &named);
    return true;
}

void bench_cpus_split_last(const cpu_set_t *set, cpu_set_t *ret_others, cpu_set_t *ret_last)
{
    size_t last = CPU_SETSIZE - 1;
    while (last > 0 && !CPU_ISSET(last, set))
        last--;
    CPU_ZERO(ret_last);
    CPU_SET(last, ret_last);
    *ret_others = *set;
    CPU_CLR(last, ret_others);
}

bool bench_cpus_format(const cpu_set_t *set, char *list)
{
    size_t used = 0;
    list[0] = '\0';
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, set))
            continue;
        int wrote =
            snprintf(list + used, BENCH_CPU_LIST_BYTES - used, "%s%zu", used ? "," : "", cpu);
        if (wrote < 0 || (size_t)wrote >= BENCH_CPU_LIST_BYTES - used)
            return false;
        used += (size_t)wrote;
    }
    return true;
}

void bench_cpus_bind(const cpu_set_t *set)
{
    if (sched_setaffinity(0, sizeof *set, set))
        bench_fail("cannot bind the thread to its CPUs: %s", strerror(errno));
}
