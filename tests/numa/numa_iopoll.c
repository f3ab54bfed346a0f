/* SPDX-License-Identifier: MIT */
/* The driver profile iopoll on a disk that has queues for polling: reads and writes with O_DIRECT
 * go through the polled ring of a worker of the disk's node, without an interrupt, and bring what
 * was written; all else goes on beside them, on the same worker; a task that is aborted with reads
 * in flight ends, and so does the runtime.  Without such a disk the profile is defer and says why.
 *
 * It writes to QEMU's NVMe disk, and only where NUMIO_SPOIL_MACHINE is 1. */
#include <dirent.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include <numio/io.h>
#include <numio/net.h>

#include "runtime/base/clock.h"
#include "tests/numa/numa_disk.h"
#include "tests/numa/numa_runtime.h"

enum {
    BLOCK = 4096,
    TASKS = 8,    /* at a time */
    ROUNDS = 100, /* of each: a write and a read */
    SLEEPS = 20,
    SLEEP_NS = 100000,
    ABORTED = 4
};

static struct numa_run run;
static int home; /* the disk's node, of the runtime */
static _Atomic uint64_t strayed;

/* --- the kernel's word ----------------------------------------------------------------------- */

/* Interrupts of the disk's queues so far; those of queue 0 are the controller's own. */
static uint64_t count_interrupts(void)
{
    char line[KERNEL_LINE_BYTES];
    uint64_t sum = 0;
    FILE *file = fopen("/proc/interrupts", "re");
    if (!file)
        kernel_fail("/proc/interrupts");
    while (fgets(line, sizeof line, file)) {
        const char *name = strstr(line, "nvme0q");
        char *at = strchr(line, ':');
        if (!name || strncmp(name, "nvme0q0", 7) == 0 || !at)
            continue;
        for (char *end = at++;; at = end) {
            uint64_t value = strtoull(at, &end, 10);
            if (end == at)
                break;
            sum += value;
        }
    }
    (void)fclose(file); /* only read from */
    return sum;
}

static bool any_polls(void)
{
    bool is_found = false;
    DIR *dir = opendir("/sys/block");
    for (struct dirent *entry; dir && !is_found && (entry = readdir(dir));)
        is_found = entry->d_name[0] != '.' && disk_polls(entry->d_name);
    if (dir)
        (void)closedir(dir); /* only read from */
    return is_found;
}

/* --- what runs on the workers ---------------------------------------------------------------- */

struct work {
    int fd;
    unsigned index;
    int64_t first_block;
    unsigned char *buffer; /* a block */
};

static void fill(struct work *work, unsigned round)
{
    for (unsigned i = 0; i < BLOCK; i++)
        work->buffer[i] = (unsigned char)(work->index * 31 + round * 7 + i);
}

static bool is_filled(const struct work *work, unsigned round)
{
    for (unsigned i = 0; i < BLOCK; i++)
        if (work->buffer[i] != (unsigned char)(work->index * 31 + round * 7 + i))
            return false;
    return true;
}

/* Writes blocks and reads them back; a failure is the negative round. */
static int64_t write_and_read(void *arg)
{
    struct work *work = arg;
    for (unsigned round = 0; round < ROUNDS; round++) {
        int64_t at = (work->first_block + round % 16) * BLOCK;
        fill(work, round);
        if (numio_pwrite(work->fd, work->buffer, BLOCK, at) != BLOCK)
            return -(int64_t)round - 1;
        memset(work->buffer, 0xee, BLOCK);
        if (numio_pread(work->fd, work->buffer, BLOCK, at) != BLOCK || !is_filled(work, round))
            return -(int64_t)round - 1;
        if (run.homes[sched_getcpu()] != numa_node(&run, (unsigned)home).os_node)
            /* relaxed: a sum, read after the joins */
            (void)atomic_fetch_add_explicit(&strayed, 1, memory_order_relaxed);
    }
    return 0;
}

/* Bytes read and written, by all workers. */
static uint64_t bytes_moved(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < run.status.workers; i++) {
        struct numio_worker_metrics metrics;
        numa_must(numio_worker_metrics(run.handle, i, &metrics), "metrics");
        sum += metrics.bytes_in + metrics.bytes_out;
    }
    return sum;
}

static uint64_t polled_on(unsigned node, bool want_equal)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < run.status.workers; i++) {
        struct numio_worker_metrics metrics;
        numa_must(numio_worker_metrics(run.handle, i, &metrics), "metrics");
        if ((metrics.node == node) == want_equal)
            sum += metrics.cqes_polled;
    }
    return sum;
}

/* TASKS coroutines at the disk's home; returns how many of them failed. */
static unsigned run_at_home(int fd)
{
    static struct work works[TASKS];
    struct numio_join *joins[TASKS];
    struct numio_spawn_opts opts;
    unsigned failed = 0;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_NODE;
    opts.node = home;
    for (unsigned i = 0; i < TASKS; i++) {
        works[i] = (struct work){ fd, i, (int64_t)i * 16, NULL };
        works[i].buffer = numio_io_buffer_alloc(run.handle, home, BLOCK);
        numa_must(works[i].buffer ? 0 : -ENOMEM, "an I/O buffer");
        numa_must(numio_spawn_co(run.handle, write_and_read, &works[i], &opts, &joins[i]), "spawn");
    }
    for (unsigned i = 0; i < TASKS; i++) {
        failed += numio_join_wait(&joins[i], -1) != 0;
        numio_io_buffer_free(run.handle, home, works[i].buffer, BLOCK);
    }
    return failed;
}

/* --- checks ---------------------------------------------------------------------------------- */

static int must_open(const char *path, int flags)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
    if (fd < 0)
        kernel_fail(path);
    return fd;
}

/* `is_raw`: the disk itself, which then must not interrupt; a file system may have its own writes,
 * and some kernels finish those of its files by interrupt although they are asked to poll. */
static void check_polled(int fd, bool is_raw, const char *data_name, const char *polled_name)
{
    const uint64_t operations = 2 * TASKS * ROUNDS;
    /* Writes of files are not polled for by older kernels: runtime/driver/polled_fd.c. */
    const uint64_t wanted = is_raw || kernel_is_since(6, 12) ? operations : operations / 2;
    uint64_t interrupts = count_interrupts();
    uint64_t at_home = polled_on((unsigned)home, true),
             elsewhere = polled_on((unsigned)home, false);
    uint64_t bytes = bytes_moved();
    unsigned failed = run_at_home(fd);
    bytes = bytes_moved() - bytes;
    interrupts = count_interrupts() - interrupts;
    at_home = polled_on((unsigned)home, true) - at_home;
    elsewhere = polled_on((unsigned)home, false) - elsewhere;
    numa_check(failed == 0, data_name, "%u of %u tasks", failed, TASKS);
    numa_check(bytes == operations * BLOCK, "the workers' bytes add up", "%llu, not %llu",
               (unsigned long long)bytes, (unsigned long long)operations * BLOCK);
    numa_check((!is_raw || interrupts == 0) && at_home == wanted && elsewhere == 0, polled_name,
               "%llu interrupts; of %llu operations %llu went through a polled ring of the disk's "
               "node, %llu through one elsewhere",
               (unsigned long long)interrupts, (unsigned long long)operations,
               (unsigned long long)at_home, (unsigned long long)elsewhere);
    /* relaxed: the tasks were joined */
    uint64_t astray = atomic_exchange_explicit(&strayed, 0, memory_order_relaxed);
    numa_check(astray == 0, "they run on the disk's node", "%llu times elsewhere",
               (unsigned long long)astray);
}

/* It leaves its descriptor open, so that the file of the next check has a number that was never
 * seen: what is known of a descriptor is believed for some operations. */
static void check_buffered(void)
{
    int fd = must_open(disk_path, 0);
    uint64_t before = polled_on(0, true) + polled_on(0, false);
    unsigned failed = run_at_home(fd);
    numa_check(failed == 0 && polled_on(0, true) + polled_on(0, false) == before,
               "without O_DIRECT the ordinary ring serves the same disk", "%u tasks failed",
               failed);
}

/* Reads for as long as nobody says stop. */
struct reader {
    struct work work;
    _Atomic bool has_to_stop;
};

static int64_t read_on(void *arg)
{
    struct reader *reader = arg;
    int64_t reads = 0, rc = 0;
    /* relaxed: the joiner orders */
    while (!atomic_load_explicit(&reader->has_to_stop, memory_order_relaxed) && rc >= 0) {
        rc = numio_pread(reader->work.fd, reader->work.buffer, BLOCK, 0);
        reads += rc == BLOCK;
    }
    return rc < 0 ? rc : reads;
}

static int64_t sleep_and_talk(void *arg)
{
    int *ends = arg;
    char byte = 'n';
    for (unsigned i = 0; i < SLEEPS; i++) {
        if (numio_sleep_ns(SLEEP_NS) != 0 || numio_send(ends[0], &byte, 1, 0) != 1 ||
            numio_recv(ends[1], &byte, 1, 0) != 1)
            return -1;
    }
    return 0;
}

/* A timer and a socket on the worker whose polled ring is never empty. */
static void check_beside(int fd)
{
    static struct reader reader;
    struct numio_spawn_opts opts;
    struct numio_join *reads, *talk;
    int ends[2];
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    opts.worker = (int)numa_node(&run, (unsigned)home).worker_first;
    reader.work = (struct work){ .fd = fd };
    reader.work.buffer = numio_io_buffer_alloc(run.handle, home, BLOCK);
    if (!reader.work.buffer || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        kernel_fail("socketpair");
    numa_must(numio_spawn_co(run.handle, read_on, &reader, &opts, &reads), "spawn");
    numa_must(numio_spawn_co(run.handle, sleep_and_talk, ends, &opts, &talk), "spawn");
    int64_t talked = numio_join_wait(&talk, 20000000000);
    /* relaxed: as in read_on() */
    atomic_store_explicit(&reader.has_to_stop, true, memory_order_relaxed);
    int64_t count = numio_join_wait(&reads, 20000000000);
    numa_check(talked == 0 && count > 0, "timers and sockets go on beside polled reads",
               "%lld, %lld reads", (long long)talked, (long long)count);
    numio_io_buffer_free(run.handle, home, reader.work.buffer, BLOCK);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* Tasks that would read for ever: aborted by hand, and the last by the shutdown. */
static void check_abort_and_stop(int fd)
{
    static struct reader readers[ABORTED];
    struct numio_join *joins[ABORTED];
    unsigned ended = 0;
    for (unsigned i = 0; i < ABORTED; i++) {
        readers[i].work = (struct work){ .fd = fd };
        readers[i].work.buffer = numio_io_buffer_alloc(run.handle, home, BLOCK);
        numa_must(readers[i].work.buffer ? 0 : -ENOMEM, "an I/O buffer");
        numa_must(numio_spawn_co(run.handle, read_on, &readers[i], NULL, &joins[i]), "spawn");
    }
    uint64_t before = polled_on(0, true) + polled_on(0, false);
    while (polled_on(0, true) + polled_on(0, false) < before + 100)
        (void)usleep(1000); /* the kernel's disk is what is waited for */
    for (unsigned i = 0; i + 1 < ABORTED; i++) {
        numio_join_abort(joins[i]);
        ended += numio_join_wait(&joins[i], 20000000000) == -ECANCELED;
    }
    numa_check(ended == ABORTED - 1, "an aborted task with a polled read ends", "%u of %u", ended,
               ABORTED - 1);
    int rc = numio_runtime_shutdown(run.runtime, 20000000000, NULL, 0, NULL);
    numa_check(rc == 0 && numio_join_wait(&joins[ABORTED - 1], 0) == -ECANCELED,
               "the shutdown ends the last", "%s", numio_strerror_detail());
    for (unsigned i = 0; i < ABORTED; i++)
        numio_io_buffer_free(run.handle, home, readers[i].work.buffer, BLOCK);
    numio_runtime_destroy(run.runtime);
}

/* Reads without anything to fetch from the disk, in whole or in part: holes, and the tail behind
 * the last block that was written.  The file has 2 blocks of data, a hole of 2, one of data, a
 * hole, and ends in the middle of one.   Returns the line of what differs from pread(2), 0:
 * nothing. */
static int64_t read_holes(void *arg)
{
    static const struct {
        int off, len; /* in blocks */
    } reads[] = { { 0, 2 }, { 2, 2 }, { 2, 1 }, { 1, 2 }, { 1, 4 }, { 3, 2 }, { 4, 4 },
                  { 5, 1 }, { 5, 2 }, { 5, 8 }, { 6, 1 }, { 6, 4 }, { 7, 1 }, { 9, 1 } };
    static _Alignas(BLOCK) unsigned char by_call[8 * BLOCK], by_ring[8 * BLOCK];
    int fd = *(const int *)arg;
    for (unsigned i = 0; i < sizeof reads / sizeof *reads; i++) {
        off_t off = (off_t)reads[i].off * BLOCK;
        size_t len = (size_t)reads[i].len * BLOCK;
        memset(by_call, 1, sizeof by_call);
        memset(by_ring, 1, sizeof by_ring);
        ssize_t wanted = pread(fd, by_call, len, off);
        int64_t got = numio_pread(fd, by_ring, len, off);
        if (got != wanted || (got > 0 && memcmp(by_call, by_ring, (size_t)got) != 0)) {
            printf("# blocks %d+%d: pread %zd, the ring %lld\n", reads[i].off, reads[i].len, wanted,
                   (long long)got);
            return __LINE__;
        }
    }
    return 0;
}

static void check_holes(void)
{
    static _Alignas(BLOCK) unsigned char data[2 * BLOCK];
    int fd = must_open("/tmp/disk/holes", O_CREAT | O_DIRECT);
    memset(data, 7, sizeof data);
    if (pwrite(fd, data, 2 * BLOCK, 0) != 2 * BLOCK ||
        pwrite(fd, data, BLOCK, 4 * BLOCK) != BLOCK || ftruncate(fd, 6 * BLOCK + BLOCK / 2) != 0)
        kernel_fail("/tmp/disk/holes");
    int64_t line = numio_block_on(run.handle, read_holes, &fd);
    numa_check(line == 0, "reads of holes and tails give what pread(2) gives", "line %lld",
               (long long)line);
    (void)close(fd); /* only read from */
}

/* One write over two pieces of data and two holes, of a file system with blocks of 1 KiB. */
static int64_t write_over_holes(void *arg)
{
    static _Alignas(BLOCK) unsigned char data[BLOCK], seen[BLOCK];
    int fd = *(int *)arg;
    memset(data, 9, sizeof data);
    if (numio_pwrite(fd, data, BLOCK, 0) != BLOCK)
        return __LINE__;
    if (numio_pread(fd, seen, BLOCK, 0) != BLOCK || memcmp(data, seen, BLOCK) != 0)
        return __LINE__;
    return 0;
}

static void check_mixed(void)
{
    static const char path[] = "/tmp/disk/mixed";
    static const char piece[1024] = { 7 };
    uint64_t before_ns = nio_now_ns();
    int fd = must_open(path, O_CREAT);
    if (pwrite(fd, piece, sizeof piece, 0) != sizeof piece ||
        pwrite(fd, piece, sizeof piece, 2048) != sizeof piece || ftruncate(fd, 65536) != 0 ||
        fsync(fd) != 0)
        kernel_fail(path);
    (void)close(fd); /* fsync() has told */
    fd = must_open(path, O_DIRECT);
    int64_t line = numio_block_on(run.handle, write_over_holes, &fd);
    uint64_t took_ms = (nio_now_ns() - before_ns) / 1000000;
    numa_check(line == 0 && took_ms < 10000, "a write over data and holes ends soon",
               "line %lld, %llu ms", (long long)line, (unsigned long long)took_ms);
    (void)close(fd);
}

static void check_file(void)
{
    static const char name[] = "what was written to a file is read";
    if (!disk_mount(name))
        return;
    int fd = must_open("/tmp/disk/file", O_CREAT | O_DIRECT);
    if (fallocate(fd, 0, 0, (off_t)TASKS * 16 * BLOCK) != 0) { /* ext2 cannot: write it */
        static _Alignas(BLOCK) unsigned char zeroes[BLOCK];
        for (unsigned i = 0; i < TASKS * 16; i++)
            if (pwrite(fd, zeroes, BLOCK, (off_t)i * BLOCK) != BLOCK)
                kernel_fail("/tmp/disk/file");
    }
    check_polled(fd, false, name,
                 "a file's operations go through the polled ring of its disk's node");
    (void)close(fd);
    check_holes();
    check_mixed();
    disk_unmount();
}

static void check_control(struct numio_config *config)
{
    config->driver = NUMIO_DRIVER_DEFER;
    numa_start(&run, config);
    int fd = must_open(disk_path, O_DIRECT);
    uint64_t before = count_interrupts();
    unsigned failed = run_at_home(fd);
    uint64_t interrupts = count_interrupts() - before;
    numa_check(failed == 0 && interrupts > 0,
               "under defer the disk interrupts, so this can be seen",
               "%u tasks failed, %llu interrupts", failed, (unsigned long long)interrupts);
    (void)close(fd);
    numa_stop(&run);
}

static void check_demoted(struct numio_config *config)
{
    bool has_reason = false;
    config->driver = NUMIO_DRIVER_IOPOLL;
    numa_start(&run, config);
    const char *reason;
    for (unsigned i = 0; (reason = numio_status_reason(run.handle, i)); i++)
        has_reason |= strstr(reason, "queues for polling") != NULL;
    numa_check(strcmp(run.status.driver, "defer") == 0 && has_reason,
               "without a disk that polls iopoll is defer, and says why", "driver %s, %s reason",
               run.status.driver, has_reason ? "a" : "no");
    numa_stop(&run);
}

int main(void)
{
    struct numio_config config;
    numa_must(numio_config_init(&config, sizeof config), "config");
    if (!any_polls()) {
        check_demoted(&config);
        return numa_end();
    }
    if (!disk_polls("nvme0n1") || !disk_may_be_spoiled()) {
        numa_skip("polled reads and writes", "there is no NVMe disk to write to");
        return numa_end();
    }
    config.driver = NUMIO_DRIVER_IOPOLL;
    numa_start(&run, &config);
    numa_check(strcmp(run.status.driver, "iopoll") == 0, "iopoll can be had", "it is %s",
               run.status.driver);
    int fd = must_open(disk_path, O_DIRECT);
    home = numio_home_of_fd(run.handle, fd);
    numa_must(home, "the disk's home");
    check_polled(fd, true, "what was written is read",
                 "the disk is polled on its node, not interrupting");
    check_beside(fd);
    check_buffered();
    check_file();
    check_abort_and_stop(fd);
    (void)close(fd);
    check_control(&config);
    return numa_end();
}
