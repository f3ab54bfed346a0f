/* SPDX-License-Identifier: MIT */
/* tests/numa/numa_kernel.h: what the kernel says of CPUs, nodes, threads and pages.
 *
 * Any thread unless said; nothing here asks numio.  A file that cannot be read ends the program:
 * without the kernel's word there is nothing to compare with.
 */
#ifndef TESTS_NUMA_NUMA_KERNEL_H
#define TESTS_NUMA_NUMA_KERNEL_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "tests/numa/numa_check.h"

enum { KERNEL_LINE_BYTES = 1024, KERNEL_CPUS_MAX = 64, KERNEL_NODES_MAX = 16 };

static inline void kernel_fail(const char *what)
{
    printf("FAILED the kernel's word: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The first line of a file, "" if there is none. */
static inline void kernel_read(const char *path, char *ret_line)
{
    FILE *file = fopen(path, "re");
    ret_line[0] = '\0';
    if (!file)
        return;
    if (fgets(ret_line, KERNEL_LINE_BYTES, file))
        ret_line[strcspn(ret_line, "\n")] = '\0';
    (void)fclose(file);
}

/* "0-1,4" as a set of bits. */
static inline uint64_t kernel_parse_list(const char *text)
{
    uint64_t set = 0;
    char *end;
    for (; *text >= '0' && *text <= '9'; text = *end == ',' ? end + 1 : end) {
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        for (unsigned long i = first; i <= last && i < 64; i++)
            set |= UINT64_C(1) << i;
    }
    return set;
}

static inline uint64_t kernel_list(const char *path)
{
    char line[KERNEL_LINE_BYTES];
    kernel_read(path, line);
    return kernel_parse_list(line);
}

static inline uint64_t kernel_nodes_with_memory(void)
{
    uint64_t set = kernel_list("/sys/devices/system/node/has_memory");
    return set ? set : 1; /* a kernel without NUMA */
}

static inline uint64_t kernel_cpus_of_node(int node)
{
    char path[128];
    (void)snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node); /* fits */
    return kernel_list(path);
}

/* The CPUs that a thread may run on; 0: the calling one. */
static inline uint64_t kernel_cpus_of_thread(int tid)
{
    cpu_set_t mask;
    uint64_t set = 0;
    if (sched_getaffinity(tid, sizeof mask, &mask) != 0)
        kernel_fail("sched_getaffinity");
    for (int cpu = 0; cpu < KERNEL_CPUS_MAX; cpu++)
        set |= CPU_ISSET(cpu, &mask) ? UINT64_C(1) << cpu : 0;
    return set;
}

/* The node with memory that is nearest to a node: itself, if it has any. */
static inline int kernel_home_of_node(int own)
{
    uint64_t with_memory = kernel_nodes_with_memory();
    int best = -1;
    long best_distance = 0;
    char path[128], line[KERNEL_LINE_BYTES];
    (void)snprintf(path, sizeof path, "/sys/devices/system/node/node%d/distance", own); /* fits */
    kernel_read(path, line);
    char *at = line;
    /* Distances are listed for online nodes, in their order. */
    uint64_t online = kernel_list("/sys/devices/system/node/online");
    for (int node = 0; node < KERNEL_NODES_MAX; node++) {
        if (!(online >> node & 1))
            continue;
        long distance = strtol(at, &at, 10);
        if ((with_memory >> node & 1) && (best < 0 || distance < best_distance)) {
            best = node;
            best_distance = distance;
        }
    }
    return best < 0 ? 0 : best;
}

/* The same of a CPU. */
static inline int kernel_home_of_cpu(int cpu)
{
    int own = 0;
    for (int node = 0; node < KERNEL_NODES_MAX; node++)
        if (kernel_cpus_of_node(node) >> cpu & 1)
            own = node;
    return kernel_home_of_node(own);
}

static inline bool kernel_is_since(unsigned major_number, unsigned minor_number)
{
    struct utsname name;
    unsigned seen_major = 0, seen_minor = 0;
    if (uname(&name) != 0 || sscanf(name.release, "%u.%u", &seen_major, &seen_minor) != 2)
        kernel_fail("uname");
    return seen_major > major_number || (seen_major == major_number && seen_minor >= minor_number);
}

/* CPUs of one core with `cpu`, itself included. */
static inline uint64_t kernel_siblings(int cpu)
{
    char path[128];
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                   cpu); /* fits */
    uint64_t set = kernel_list(path);
    return set ? set : UINT64_C(1) << cpu;
}

static inline unsigned kernel_count(uint64_t set)
{
    return (unsigned)__builtin_popcountll(set);
}

/* Cores of a set of CPUs. */
static inline unsigned kernel_cores(uint64_t cpus)
{
    unsigned cores = 0;
    for (uint64_t left = cpus; left; cores++)
        left &= ~kernel_siblings(__builtin_ctzll(left)) & (left - 1);
    return cores;
}

/* The node of each page, a negative errno value where there is none; pages must have been written
 * (an untouched one has no node). */
static inline void kernel_nodes_of_pages(void **pages, size_t count, int *ret_nodes)
{
    if (count > 0 && syscall(SYS_move_pages, 0, count, pages, NULL, ret_nodes, 0) != 0)
        kernel_fail("move_pages");
}

static inline int kernel_node_of(const void *address)
{
    void *page = (void *)((uintptr_t)address & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1));
    int node;
    kernel_nodes_of_pages(&page, 1, &node);
    return node;
}

/* Works for so long, by CLOCK_MONOTONIC. */
static inline void kernel_spin(uint64_t ns)
{
    struct timespec now;
    uint64_t at_ns, end_ns = 0;
    do {
        (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail */
        at_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
        end_ns = end_ns ? end_ns : at_ns + ns;
    } while (at_ns < end_ns);
}

/* How often a thread has gone to sleep. */
static inline uint64_t kernel_sleeps_of_thread(int tid)
{
    char path[128], line[KERNEL_LINE_BYTES];
    unsigned long long sleeps = 0;
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/status", tid); /* fits */
    FILE *file = fopen(path, "re");
    if (!file)
        kernel_fail(path);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "voluntary_ctxt_switches: %llu", &sleeps) == 1)
            break;
    (void)fclose(file);
    return sleeps;
}

/* The resident memory of the process, in pages. */
static inline long kernel_resident_pages(void)
{
    char line[KERNEL_LINE_BYTES], *at = line;
    kernel_read("/proc/self/statm", line);
    (void)strtol(at, &at, 10); /* the first number is the size */
    return strtol(at, NULL, 10);
}

/* 'R' runs or could, 'S' sleeps, ... as proc(5) has them; 0 if there is no such thread. */
static inline char kernel_state_of_thread(int tid)
{
    char path[128], line[KERNEL_LINE_BYTES];
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid); /* fits */
    kernel_read(path, line);
    const char *end_of_name = strrchr(line, ')');
    return end_of_name && end_of_name[1] == ' ' ? end_of_name[2] : 0;
}

/* Calls fn for each thread of the process with its kernel's name. */
static inline void kernel_for_each_thread(void (*fn)(int tid, const char *name, void *arg),
                                          void *arg)
{
    DIR *tasks = opendir("/proc/self/task");
    if (!tasks)
        kernel_fail("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(tasks));) {
        char path[320], name[KERNEL_LINE_BYTES];
        int tid = (int)strtol(entry->d_name, NULL, 10);                              /* 0 for "." */
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name); /* fits */
        kernel_read(path, name);
        if (tid > 0)
            fn(tid, name, arg);
    }
    (void)closedir(tasks);
}

#endif
