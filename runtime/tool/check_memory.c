/* SPDX-License-Identifier: MIT */
/* Latency and bandwidth from each node's first worker's CPU to each node's memory.
 *
 * Latency: a pointer chase along a random cycle through all cache lines of a buffer much larger
 * than the last-level cache, so that each load must wait for the one before and no prefetcher can
 * guess (McVoy and Staelin, "lmbench", 1996).  Bandwidth: one core reads the buffer front to back.
 */
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/tool/check.h"

enum { LINE_BYTES = 64, CHASE_STEPS = 4096, BUFFER_LLCS = 4 };

static const size_t buffer_bytes_min = 16 << 20, buffer_bytes_max = 512u << 20;
static const uint64_t measure_ns = 100000000;

struct line {
    struct line *next;
    char rest[LINE_BYTES - sizeof(struct line *)];
};

/* One measurement; the thread writes the results, the main thread reads them after joining it. */
struct timing {
    int cpu, node;
    size_t bytes;
    double latency_ns, bytes_per_ns;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Sattolo's shuffle: one cycle through all lines. */
static void make_cycle(struct line *lines, size_t count, uint32_t *order)
{
    uint64_t random = 88172645463325252u;
    for (size_t i = 0; i < count; i++)
        order[i] = (uint32_t)i;
    for (size_t i = count - 1; i > 0; i--) {
        random ^= random << 13; /* Marsaglia's xorshift */
        random ^= random >> 7;
        random ^= random << 17;
        size_t other = random % i;
        uint32_t swapped = order[i];
        order[i] = order[other];
        order[other] = swapped;
    }
    for (size_t i = 0; i < count; i++)
        lines[order[i]].next = &lines[order[(i + 1) % count]];
}

static double chase(struct line *lines)
{
    struct line *at = lines;
    uint64_t began_ns = now_ns(), steps = 0, elapsed_ns = 0;
    while (elapsed_ns < measure_ns) {
        for (unsigned i = 0; i < CHASE_STEPS; i++) {
            at = at->next;
            __asm__ __volatile__("" : "+r"(at)); /* each load is made */
        }
        steps += CHASE_STEPS;
        elapsed_ns = now_ns() - began_ns;
    }
    return (double)elapsed_ns / (double)steps;
}

static double read_through(const uint64_t *words, size_t bytes)
{
    uint64_t began_ns = now_ns(), total = 0, elapsed_ns = 0;
    while (elapsed_ns < measure_ns) {
        uint64_t sums[4] = { 0 };
        for (size_t i = 0; i < bytes / sizeof *words; i += 4)
            for (unsigned k = 0; k < 4; k++)
                sums[k] += words[i + k];
        __asm__ __volatile__("" : : "r"(sums[0] + sums[1] + sums[2] + sums[3])); /* it is needed */
        total += bytes;
        elapsed_ns = now_ns() - began_ns;
    }
    return (double)total / (double)elapsed_ns;
}

static void *time_memory(void *arg)
{
    struct timing *timing = arg;
    unsigned long mask[CHECK_NODES_MAX / (8 * sizeof(unsigned long)) + 1] = { 0 };
    struct check_cpus cpus;
    memset(&cpus, 0, sizeof cpus);
    cpus.words[timing->cpu / 64] = UINT64_C(1) << timing->cpu % 64;
    mask[(size_t)timing->node / (8 * sizeof *mask)] |=
        1ul << (unsigned)timing->node % (8 * sizeof *mask);
    char *memory =
        mmap(NULL, timing->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *order = malloc(timing->bytes / LINE_BYTES * sizeof *order);
    if (memory != MAP_FAILED && order &&
        syscall(SYS_sched_setaffinity, 0, sizeof cpus, &cpus) == 0 &&
        syscall(SYS_mbind, memory, timing->bytes, MPOL_BIND, mask, CHECK_NODES_MAX + 1, 0) == 0) {
        memset(memory, 1, timing->bytes);
        make_cycle((struct line *)(void *)memory, timing->bytes / LINE_BYTES, order);
        timing->latency_ns = chase((struct line *)(void *)memory);
        timing->bytes_per_ns = read_through((const uint64_t *)(void *)memory, timing->bytes);
    }
    free(order);
    if (memory != MAP_FAILED)
        (void)munmap(memory, timing->bytes); /* it was mapped so */
    return NULL;
}

/* Several last-level caches, but no more than a quarter of what the node has free. */
static size_t choose_bytes(const struct check *check, int node)
{
    char path[128], line[CHECK_LINE_BYTES];
    size_t bytes = buffer_bytes_min;
    for (uint32_t i = 0; i < check->machine.info.llc_count; i++) {
        size_t wanted = BUFFER_LLCS * (size_t)tool_llc(&check->machine, i).cache_bytes;
        bytes = wanted > bytes ? wanted : bytes;
    }
    bytes = bytes < buffer_bytes_max ? bytes : buffer_bytes_max;
    (void)snprintf(path, sizeof path, "/sys/devices/system/node/node%d/meminfo", node); /* fits */
    FILE *file = fopen(path, "re");
    unsigned long long free_kib = 0;
    while (file && fgets(line, sizeof line, file)) {
        const char *at = strstr(line, "MemFree:");
        if (at)
            free_kib = strtoull(at + strlen("MemFree:"), NULL, 10);
    }
    if (file)
        (void)fclose(file); /* it was only read */
    if (free_kib > 0 && bytes > free_kib * 1024 / 4)
        bytes = (size_t)(free_kib * 1024 / 4);
    return bytes / 4096 * 4096;
}

void check_memory(struct check *check)
{
    unsigned nodes = check->machine.status.nodes;
    check->memory_nodes = check_memory_nodes(check->memory_node);
    check->latency_ns = calloc((size_t)nodes * check->memory_nodes, sizeof(double));
    check->bytes_per_ns = calloc((size_t)nodes * check->memory_nodes, sizeof(double));
    if (!check->latency_ns || !check->bytes_per_ns)
        return;
    for (unsigned i = 0; i < nodes; i++)
        for (unsigned k = 0; k < check->memory_nodes; k++) {
            int cpu = check->machine.workers[check->machine.nodes[i].worker_first].bind_cpu;
            struct timing timing = { .cpu = cpu < 0 ? 0 : cpu,
                                     .node = check->memory_node[k],
                                     .bytes = choose_bytes(check, check->memory_node[k]) };
            char what[96];
            pthread_t thread;
            (void)snprintf(what, sizeof what, "timing %zu MiB of NUMA node %d from CPU %d",
                           timing.bytes >> 20, timing.node, timing.cpu); /* fits */
            check_progress(check, what);
            if (timing.bytes < 4096 || pthread_create(&thread, NULL, time_memory, &timing) != 0)
                continue;                     /* shown as not measured */
            (void)pthread_join(thread, NULL); /* it was created here */
            check->latency_ns[i * check->memory_nodes + k] = timing.latency_ns;
            check->bytes_per_ns[i * check->memory_nodes + k] = timing.bytes_per_ns;
        }
}
