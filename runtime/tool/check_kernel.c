/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/tool/check.h"

enum { BATCH_PAGES = 512, PATH_BYTES = 256 };

void check_read(char *ret_line, const char *path_format, ...)
{
    char path[PATH_BYTES];
    va_list args;
    va_start(args, path_format);
    (void)vsnprintf(path, sizeof path, path_format, args); /* paths of /sys and /proc fit */
    va_end(args);
    FILE *file = fopen(path, "re");
    ret_line[0] = '\0';
    if (!file)
        return;
    if (fgets(ret_line, CHECK_LINE_BYTES, file))
        ret_line[strcspn(ret_line, "\n")] = '\0';
    (void)fclose(file); /* it was only read */
}

void check_parse_list(const char *text, struct check_cpus *ret_cpus)
{
    char *end;
    memset(ret_cpus, 0, sizeof *ret_cpus);
    for (; *text >= '0' && *text <= '9'; text = *end == ',' ? end + 1 : end) {
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        for (unsigned long i = first; i <= last && i < CHECK_CPUS_MAX; i++)
            ret_cpus->words[i / 64] |= UINT64_C(1) << i % 64;
    }
}

bool check_has_cpu(const struct check_cpus *cpus, int cpu)
{
    return cpu >= 0 && cpu < CHECK_CPUS_MAX && (cpus->words[cpu / 64] >> cpu % 64 & 1);
}

bool check_is_within(const struct check_cpus *cpus, const struct check_cpus *limit)
{
    bool is_within = true;
    for (unsigned i = 0; i < CHECK_CPUS_MAX / 64; i++)
        is_within = is_within && (cpus->words[i] & ~limit->words[i]) == 0;
    return is_within;
}

unsigned check_count(const struct check_cpus *cpus)
{
    unsigned count = 0;
    for (unsigned i = 0; i < CHECK_CPUS_MAX / 64; i++)
        count += (unsigned)__builtin_popcountll(cpus->words[i]);
    return count;
}

bool check_thread_cpus(int tid, struct check_cpus *ret_cpus)
{
    memset(ret_cpus, 0, sizeof *ret_cpus);
    return syscall(SYS_sched_getaffinity, tid, sizeof *ret_cpus, ret_cpus) > 0;
}

void check_node_cpus(int node, struct check_cpus *ret_cpus)
{
    char line[CHECK_LINE_BYTES];
    check_read(line, "/sys/devices/system/node/node%d/cpulist", node);
    check_parse_list(line, ret_cpus);
}

int check_node_of_cpu(int cpu)
{
    for (int node = 0; node < CHECK_NODES_MAX; node++) {
        struct check_cpus cpus;
        check_node_cpus(node, &cpus);
        if (check_has_cpu(&cpus, cpu))
            return node;
    }
    return 0; /* a kernel without NUMA */
}

unsigned check_memory_nodes(int *ret_nodes)
{
    char line[CHECK_LINE_BYTES];
    struct check_cpus nodes;
    unsigned count = 0;
    check_read(line, "/sys/devices/system/node/has_memory");
    check_parse_list(line[0] ? line : "0", &nodes);
    for (int node = 0; node < CHECK_NODES_MAX; node++)
        if (check_has_cpu(&nodes, node))
            ret_nodes[count++] = node;
    return count;
}

/* Distances are listed for the online nodes, in their order. */
int check_home_of_node(int node)
{
    char line[CHECK_LINE_BYTES], *at = line;
    struct check_cpus online, with_memory;
    int best = -1;
    long best_distance = 0;
    check_read(line, "/sys/devices/system/node/has_memory");
    check_parse_list(line[0] ? line : "0", &with_memory);
    check_read(line, "/sys/devices/system/node/online");
    check_parse_list(line[0] ? line : "0", &online);
    check_read(line, "/sys/devices/system/node/node%d/distance", node);
    for (int other = 0; other < CHECK_NODES_MAX; other++) {
        if (!check_has_cpu(&online, other))
            continue;
        long distance = strtol(at, &at, 10);
        if (check_has_cpu(&with_memory, other) && (best < 0 || distance < best_distance)) {
            best = other;
            best_distance = distance;
        }
    }
    return best < 0 ? 0 : best;
}

void check_count_pages(const void *memory, size_t bytes, int home, struct check_pages *pages)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t at = (uintptr_t)memory & ~(uintptr_t)(page_bytes - 1);
    uintptr_t end = (uintptr_t)memory + bytes;
    while (at < end) {
        void *batch[BATCH_PAGES];
        int nodes[BATCH_PAGES];
        size_t count = 0;
        for (; at < end && count < BATCH_PAGES; at += page_bytes)
            batch[count++] = (void *)at;
        if (syscall(SYS_move_pages, 0, count, batch, NULL, nodes, 0) != 0)
            return; /* refused in some containers: the counts stay 0, which is said */
        for (size_t i = 0; i < count; i++) {
            pages->home += nodes[i] == home;
            pages->away += nodes[i] >= 0 && nodes[i] != home;
        }
    }
}
