/* SPDX-License-Identifier: MIT */
/* One worker per allowed core, pinned to it; one SQ thread per node with workers, on that node's
 * CPUs; the rings' memory on their node.
 *
 * The memory of a ring is the kernel's own, mapped by page frame: move_pages(2) does not answer for
 * it.  /proc/self/pagemap gives the frame and /proc/zoneinfo the node that the frame belongs to.
 */
#include "tests/numa/numa_runtime.h"

enum { THREADS_MAX = 64, ZONES_MAX = 32, PAGEMAP_PRESENT_BIT = 63, WAIT_TRIES = 200 };

static const uint64_t frame_mask = (UINT64_C(1) << 55) - 1;

/* --- workers --------------------------------------------------------------------------------- */

static void check_workers(struct numio_handle *handle, const struct numio_status *status)
{
    uint64_t taken = 0, sq_cpus = 0, allowed = kernel_cpus_of_thread(0);
    unsigned pinned = 0, alone = 0;
    for (unsigned i = 0; i < status->workers; i++) {
        struct numio_worker_status worker;
        numa_must(numio_worker_status(handle, i, &worker), "worker status");
        uint64_t cpus = kernel_cpus_of_thread(worker.tid);
        pinned += kernel_count(cpus) == 1;
        alone += !(taken & cpus);
        for (uint64_t left = cpus; left; left &= left - 1)
            taken |= kernel_siblings(__builtin_ctzll(left));
    }
    numa_check(pinned == status->workers, "each worker is pinned to one CPU", "%u of %u are",
               pinned, status->workers);
    numa_check(alone == status->workers, "no two workers share a core", "%u of %u have their own",
               alone, status->workers);
    for (unsigned i = 0; i < status->nodes; i++) {
        struct numio_node_status node;
        numa_must(numio_node_status(handle, i, &node), "node status");
        if (strcmp(node.sq_place, "reserved") == 0)
            sq_cpus |= UINT64_C(1) << node.sq_cpu;
    }
    unsigned cores = kernel_cores(allowed), reserved = kernel_count(sq_cpus);
    numa_check(status->workers + reserved == cores, "a worker on every allowed core",
               "%u workers and %u cores reserved for SQ threads, on %u cores", status->workers,
               reserved, cores);
}

/* --- SQ threads ------------------------------------------------------------------------------ */

struct sq_threads {
    int tids[THREADS_MAX];
    unsigned count;
};

static void note_sq_thread(int tid, const char *name, void *arg)
{
    struct sq_threads *found = arg;
    if (strncmp(name, "iou-sqp-", 8) == 0 && found->count < THREADS_MAX)
        found->tids[found->count++] = tid;
}

/* The probe's own may linger a moment. */
static void find_sq_threads(struct sq_threads *found, unsigned wanted)
{
    for (unsigned i = 0; i < WAIT_TRIES; i++) {
        found->count = 0;
        kernel_for_each_thread(note_sq_thread, found);
        if (found->count == wanted)
            return;
        (void)usleep(10000); /* shorter is as good */
    }
}

static uint64_t cpus_of_workers_home(struct numio_handle *handle,
                                     const struct numio_node_status *node)
{
    uint64_t cpus = 0, allowed = kernel_cpus_of_thread(0);
    for (unsigned i = 0; i < node->worker_count; i++) {
        struct numio_worker_status worker;
        numa_must(numio_worker_status(handle, node->worker_first + i, &worker), "worker status");
        int home = kernel_home_of_cpu(worker.bind_cpu);
        for (int cpu = 0; cpu < KERNEL_CPUS_MAX; cpu++)
            if ((allowed >> cpu & 1) && kernel_home_of_cpu(cpu) == home)
                cpus |= UINT64_C(1) << cpu;
    }
    return cpus;
}

static void check_sq_threads(struct numio_handle *handle, const struct numio_status *status)
{
    struct sq_threads found;
    find_sq_threads(&found, status->nodes);
    numa_check(found.count == status->nodes, "one SQ thread per node with workers",
               "%u threads iou-sqp-*, %u nodes", found.count, status->nodes);
    for (unsigned i = 0; i < status->nodes; i++) {
        struct numio_node_status node;
        numa_must(numio_node_status(handle, i, &node), "node status");
        bool is_there = false;
        for (unsigned k = 0; k < found.count; k++)
            is_there |= found.tids[k] == node.sq_tid;
        uint64_t home = cpus_of_workers_home(handle, &node);
        uint64_t cpus = is_there ? kernel_cpus_of_thread(node.sq_tid) : 0;
        numa_check(cpus != 0 && (cpus & ~home) == 0, "the SQ thread on a CPU of its node",
                   "node %u: thread %d may run on %#llx, the node's are %#llx", i, node.sq_tid,
                   (unsigned long long)cpus, (unsigned long long)home);
    }
}

/* --- ring memory ----------------------------------------------------------------------------- */

struct zone {
    int node;
    uint64_t first, frames;
};

static unsigned read_zones(struct zone *zones)
{
    char line[KERNEL_LINE_BYTES];
    unsigned count = 0;
    unsigned long long number;
    int node = 0;
    uint64_t spanned = 0;
    FILE *file = fopen("/proc/zoneinfo", "re");
    if (!file)
        kernel_fail("/proc/zoneinfo");
    while (fgets(line, sizeof line, file)) {
        (void)sscanf(line, "Node %d,", &node);
        if (sscanf(line, " spanned %llu", &number) == 1)
            spanned = number;
        if (sscanf(line, " start_pfn: %llu", &number) == 1 && spanned > 0 && count < ZONES_MAX)
            zones[count++] = (struct zone){ node, number, spanned };
    }
    (void)fclose(file);
    return count;
}

static int node_of_frame(const struct zone *zones, unsigned count, uint64_t frame)
{
    for (unsigned i = 0; i < count; i++)
        if (frame >= zones[i].first && frame - zones[i].first < zones[i].frames)
            return zones[i].node;
    return -1;
}

struct ring_pages {
    uint64_t on_node[KERNEL_NODES_MAX], unknown;
};

/* Counts the pages of every mapping of an io_uring, by node. */
static bool count_ring_pages(struct ring_pages *pages)
{
    struct zone zones[ZONES_MAX];
    unsigned zone_count = read_zones(zones);
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    char line[KERNEL_LINE_BYTES];
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    FILE *maps = fopen("/proc/self/maps", "re");
    memset(pages, 0, sizeof *pages);
    while (pagemap >= 0 && maps && fgets(line, sizeof line, maps)) {
        unsigned long first, last;
        if (!strstr(line, "io_uring") || sscanf(line, "%lx-%lx", &first, &last) != 2)
            continue;
        for (unsigned long at = first; at < last; at += page_bytes) {
            uint64_t entry = 0;
            if (pread(pagemap, &entry, sizeof entry, (off_t)(at / page_bytes * 8)) != 8 ||
                !(entry >> PAGEMAP_PRESENT_BIT & 1))
                continue; /* not touched yet */
            int node = node_of_frame(zones, zone_count, entry & frame_mask);
            if (node >= 0 && node < KERNEL_NODES_MAX && (entry & frame_mask) != 0)
                pages->on_node[node]++;
            else
                pages->unknown++;
        }
    }
    if (maps)
        (void)fclose(maps);
    if (pagemap >= 0)
        (void)close(pagemap);
    return pagemap >= 0;
}

/* Each worker has rings of the same size, so each home has as many pages as workers ask for. */
static void check_ring_memory(struct numio_handle *handle, const struct numio_status *status)
{
    struct ring_pages pages;
    uint64_t total = 0, workers_at[KERNEL_NODES_MAX] = { 0 };
    bool is_known = count_ring_pages(&pages);
    for (int node = 0; node < KERNEL_NODES_MAX; node++)
        total += pages.on_node[node];
    if (!is_known || total == 0 || pages.unknown > 0) {
        numa_skip("ring memory on its node", "page frames are not told (that takes root)");
        return;
    }
    for (unsigned i = 0; i < status->workers; i++) {
        struct numio_worker_status worker;
        numa_must(numio_worker_status(handle, i, &worker), "worker status");
        workers_at[kernel_home_of_cpu(worker.bind_cpu)]++;
    }
    int wrong = -1;
    for (int node = 0; node < KERNEL_NODES_MAX; node++)
        if (pages.on_node[node] * status->workers != total * workers_at[node])
            wrong = node;
    numa_check(wrong < 0, "ring memory on its node",
               "node %d: %llu of %llu pages, %llu of %u workers", wrong,
               (unsigned long long)pages.on_node[wrong < 0 ? 0 : wrong], (unsigned long long)total,
               (unsigned long long)workers_at[wrong < 0 ? 0 : wrong], status->workers);
}

/* Nobody watches the CPUs, who would bind a thread that has not bound itself. */
static void check_driver(enum numio_driver driver)
{
    struct numio_config config;
    static struct numa_run run;
    numa_must(numio_config_init(&config, sizeof config), "config");
    config.driver = driver;
    config.cpu_check_ms = 0;
    numa_start(&run, &config);
    struct numio_handle *handle = run.handle;
    struct numio_status status = run.status;
    check_workers(handle, &status);
    if (strcmp(status.driver, "sqpoll") == 0)
        check_sq_threads(handle, &status);
    else if (driver == NUMIO_DRIVER_SQPOLL)
        numa_skip("SQ threads", "sqpoll cannot be had here");
    check_ring_memory(handle, &status);
    numa_stop(&run);
}

int main(void)
{
    check_driver(NUMIO_DRIVER_DEFER);
    check_driver(NUMIO_DRIVER_IOPOLL);
    check_driver(NUMIO_DRIVER_SQPOLL);
    return numa_end();
}
