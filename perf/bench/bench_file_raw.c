/* SPDX-License-Identifier: MIT */
/* The floor of the reading scenarios: the same reads by one thread on one ring, with the flags
 * and the CPUs that numio uses, and nothing between the loop and liburing.
 */
#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "perf/bench/bench_cpus.h"
#include "perf/bench/bench_file.h"
#include "perf/bench/bench_scenarios.h"

enum {
    RING_ENTRIES = 256, /* more than readers, so that none ever waits for a slot */
    SQ_IDLE_SHARED_MS = 1,
    SQ_IDLE_ALONE_MS = 10,
    SPIN_NS = 50000, /* as long as a balanced worker: with an SQ thread elsewhere it pays */
    PAGE_BYTES = 4096
};

/* What numio would do with the same options. */
struct profile {
    bool with_sqpoll;
    int worker_cpu; /* -1: not pinned */
    int sq_cpu;     /* -1: where its creator may run */
};

struct slot {
    unsigned left;
    uint64_t random, number;
};

struct raw {
    struct io_uring ring;
    bool does_spin; /* the SQ thread has another CPU */
    const struct bench_file *file;
    struct slot slots[BENCH_READERS_MAX];
    char *buffers;
};

/* Asks a runtime.  False: it has no ring to compare with, or cannot be had; the reason is told. */
static bool learn_profile(struct bench *b, struct profile *ret_profile)
{
    struct numio_worker_status worker = { 0 };
    struct numio_node_status node = { 0 };
    if (!bench_start(b))
        return false;
    bench_must(numio_worker_status(b->handle, 0, &worker), "numio_worker_status");
    bench_must(numio_node_status(b->handle, worker.node, &node), "numio_node_status");
    bool has_ring = strcmp(b->driver, "epoll") != 0;
    ret_profile->with_sqpoll = strcmp(b->driver, "sqpoll") == 0;
    ret_profile->worker_cpu = worker.bind_cpu;
    ret_profile->sq_cpu = node.sq_cpu;
    b->driver = ret_profile->with_sqpoll ? "sqpoll" : "defer";
    if (!has_ring)
        bench_skip(b, "the driver is epoll, which has no ring");
    bench_stop(b);
    return has_ring;
}

static bool set_up_ring(struct bench *b, const struct profile *profile, struct io_uring *ring)
{
    struct io_uring_params params = { .flags = IORING_SETUP_CQSIZE,
                                      .cq_entries = 2 * RING_ENTRIES };
    if (profile->with_sqpoll) {
        params.flags |= IORING_SETUP_SQPOLL | IORING_SETUP_SINGLE_ISSUER;
        params.sq_thread_idle = profile->sq_cpu < 0 ? SQ_IDLE_SHARED_MS : SQ_IDLE_ALONE_MS;
        if (profile->sq_cpu >= 0) {
            params.flags |= IORING_SETUP_SQ_AFF;
            params.sq_thread_cpu = (unsigned)profile->sq_cpu;
        }
    } else {
        params.flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    }
    int rc = io_uring_queue_init_params(RING_ENTRIES, ring, &params);
    if (rc < 0)
        bench_skip(b, "no ring: %s", strerror(-rc));
    return rc == 0;
}

static void queue_read(struct raw *raw, unsigned index)
{
    struct slot *slot = &raw->slots[index];
    struct io_uring_sqe *sqe = io_uring_get_sqe(&raw->ring);
    if (!sqe) {
        /* Only with an SQ thread that has not come round to all slots yet. */
        bench_must(io_uring_sqring_wait(&raw->ring), "io_uring_sqring_wait");
        sqe = io_uring_get_sqe(&raw->ring);
        if (!sqe)
            bench_fail("the ring is full");
    }
    slot->number = bench_file_next(&slot->random);
    slot->left--;
    io_uring_prep_read(sqe, raw->file->fds[index], raw->buffers + (size_t)index * BENCH_BLOCK_BYTES,
                       BENCH_BLOCK_BYTES, slot->number * BENCH_BLOCK_BYTES);
    io_uring_sqe_set_data64(sqe, index);
}

/* Takes what has completed and queues each reader's next read.  Returns how many readers ended. */
static unsigned reap(struct raw *raw)
{
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0, ended = 0;
    io_uring_for_each_cqe(&raw->ring, head, cqe)
    {
        unsigned index = (unsigned)cqe->user_data;
        bench_file_check(raw->slots[index].number, raw->buffers + (size_t)index * BENCH_BLOCK_BYTES,
                         cqe->res);
        seen++;
        if (raw->slots[index].left > 0)
            queue_read(raw, index);
        else
            ended++;
    }
    io_uring_cq_advance(&raw->ring, seen);
    return ended;
}

/* Publishes what is queued and waits for at least one completion. */
static void submit_and_wait(struct raw *raw)
{
    if (raw->does_spin) {
        uint64_t start_ns = bench_now_ns();
        bench_must(io_uring_submit(&raw->ring), "io_uring_submit");
        while (io_uring_cq_ready(&raw->ring) == 0 && bench_now_ns() - start_ns < SPIN_NS)
            ;
        if (io_uring_cq_ready(&raw->ring) > 0)
            return;
    }
    int rc = io_uring_submit_and_wait(&raw->ring, 1);
    if (rc != -EINTR)
        bench_must(rc, "io_uring_submit_and_wait");
}

static struct bench_block raw_block(struct bench *b, void *arg)
{
    (void)b;
    struct raw *raw = arg;
    const struct bench_file_shape *shape = &raw->file->shape;
    uint64_t start_ns = bench_now_ns();
    for (unsigned i = 0; i < shape->readers; i++) {
        raw->slots[i].left = shape->reads_each;
        queue_read(raw, i);
    }
    for (unsigned left = shape->readers; left > 0; left -= reap(raw))
        submit_and_wait(raw);
    return (struct bench_block){ .time_ns = bench_now_ns() - start_ns,
                                 .ops = (uint64_t)shape->readers * shape->reads_each };
}

static void bind_worker(const struct profile *profile)
{
    cpu_set_t mine;
    if (profile->worker_cpu < 0)
        return;
    CPU_ZERO(&mine);
    CPU_SET((size_t)profile->worker_cpu, &mine);
    bench_cpus_bind(&mine);
}

static void run_raw(struct bench *b, const struct profile *profile, const struct bench_file *file)
{
    struct raw *raw = bench_alloc(1, sizeof *raw);
    raw->file = file;
    raw->buffers = aligned_alloc(PAGE_BYTES, BENCH_READERS_MAX * BENCH_BLOCK_BYTES);
    if (!raw->buffers)
        bench_fail("no memory for the buffers");
    memset(raw->buffers, 0, BENCH_READERS_MAX * BENCH_BLOCK_BYTES);
    for (unsigned i = 0; i < file->shape.readers; i++)
        raw->slots[i].random = i + 1;
    raw->does_spin =
        profile->with_sqpoll && profile->sq_cpu >= 0 && profile->sq_cpu != profile->worker_cpu;
    /* An SQ thread without a CPU of its own inherits its creator's CPUs: then bind afterwards. */
    bool is_shared = profile->with_sqpoll && profile->sq_cpu < 0;
    if (!is_shared)
        bind_worker(profile);
    if (set_up_ring(b, profile, &raw->ring)) {
        if (is_shared)
            bind_worker(profile);
        b->runtime_name = "liburing";
        b->version = BENCH_LIBURING_VERSION;
        b->workers = 1;
        bench_repeat(b, raw_block, raw);
        io_uring_queue_exit(&raw->ring);
    }
    free(raw->buffers);
    free(raw);
}

void bench_file_read_raw(struct bench *b)
{
    struct profile profile;
    struct bench_file file;
    cpu_set_t before;
    if (b->options->topology) {
        bench_skip(b, "a floor of this machine, and the topology is emulated");
        return;
    }
    if (!learn_profile(b, &profile) || !bench_file_open(b, &file))
        return;
    if (!bench_cpus_allowed(&before))
        bench_fail("the allowed CPUs cannot be told");
    run_raw(b, &profile, &file);
    bench_cpus_bind(&before);
    bench_file_close(&file);
}
