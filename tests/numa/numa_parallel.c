/* SPDX-License-Identifier: MIT */
/* What is placed on top of tasks: the parts of a parallel loop, calls to nodes and workers, rings
 * between nodes, and classes that follow a task to another node.  Where something ran is what
 * sched_getcpu(2) says, where memory lies what move_pages(2) says.
 */
#include <errno.h>
#include <stdatomic.h>

#include <numio/channel.h>
#include <numio/parallel.h>
#include <numio/time.h>

#include "tests/numa/numa_runtime.h"

enum {
    PART = 2000, /* numbers of a loop for each worker */
    GRAIN = 50,
    MESSAGES = 20000,
    CAPACITY = 4096, /* of the ring: 8 pages */
    BACKLOG = 300,
    TURNS = 3
};

static struct numa_run run;
static unsigned node_of_worker[KERNEL_CPUS_MAX];
static int cpu_of_worker[KERNEL_CPUS_MAX];

static void look_at_workers(void)
{
    for (unsigned i = 0; i < run.status.workers; i++) {
        struct numio_worker_status worker = numa_worker(&run, i);
        node_of_worker[i] = worker.node;
        cpu_of_worker[i] = worker.bind_cpu;
    }
}

/* The kernel's home of a node's CPUs. */
static int home_of(unsigned node)
{
    return run.homes[numa_worker(&run, numa_node(&run, node).worker_first).bind_cpu];
}

/* ---- loops ---------------------------------------------------------------------------------- */

/* The CPU where each number was worked on, -1: nowhere yet; each number is its own task's. */
static struct {
    int *cpus;
    _Atomic uint64_t twice;
} loop;

static int64_t note_cpus(uint64_t first, uint64_t end, void *arg)
{
    (void)arg;
    int cpu = sched_getcpu();
    for (uint64_t i = first; i < end; i++) {
        if (loop.cpus[i] != -1)
            /* relaxed: a count, read after the loop */
            (void)atomic_fetch_add_explicit(&loop.twice, 1, memory_order_relaxed);
        loop.cpus[i] = cpu;
    }
    return 0;
}

static uint64_t run_loop(enum numio_affinity affinity, uint64_t count)
{
    struct numio_parallel_opts opts;
    numio_parallel_opts_init(&opts, sizeof opts);
    opts.affinity = affinity;
    opts.handle = run.handle;
    memset(loop.cpus, -1, count * sizeof loop.cpus[0]);
    numa_must(numio_parallel_for(0, count, GRAIN, note_cpus, NULL, &opts), "a loop");
    uint64_t missing = 0;
    for (uint64_t i = 0; i < count; i++)
        missing += loop.cpus[i] == -1;
    /* relaxed: the loop has ended */
    return missing + atomic_exchange_explicit(&loop.twice, 0, memory_order_relaxed);
}

static void check_loops(void)
{
    uint64_t count = (uint64_t)run.status.workers * PART, away = 0;
    loop.cpus = malloc(count * sizeof loop.cpus[0]);
    if (!loop.cpus)
        numa_must(-1, "memory");
    uint64_t wrong = run_loop(NUMIO_AFFINITY_NODE, count);
    for (uint64_t i = 0; i < count; i++)
        away += run.homes[loop.cpus[i]] != home_of(node_of_worker[i / PART]);
    numa_check(wrong == 0 && away == 0, "each part of a loop is worked on by its node",
               "%llu numbers not once, %llu of %llu on another node", (unsigned long long)wrong,
               (unsigned long long)away, (unsigned long long)count);
    wrong = away = 0;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        wrong += run_loop(NUMIO_AFFINITY_WORKER, count);
        for (uint64_t i = 0; i < count; i++)
            away += loop.cpus[i] != cpu_of_worker[i / PART];
    }
    numa_check(wrong == 0 && away == 0, "the same part is worked on by the same CPU each time",
               "%llu numbers not once, %llu elsewhere", (unsigned long long)wrong,
               (unsigned long long)away);
    wrong = run_loop(NUMIO_AFFINITY_ANY, count);
    numa_check(wrong == 0, "a loop that may go anywhere has each number once", "%llu not",
               (unsigned long long)wrong);
    free(loop.cpus);
}

/* ---- calls ---------------------------------------------------------------------------------- */

static int64_t where(void *arg)
{
    (void)arg;
    return sched_getcpu();
}

static void check_calls(void)
{
    unsigned away = 0;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        for (unsigned i = 0; i < run.status.nodes; i++) {
            int64_t cpu = numio_call_on_node(run.handle, (int)i, where, NULL);
            away += cpu < 0 || run.homes[cpu] != home_of(i);
        }
        for (unsigned i = 0; i < run.status.workers; i++)
            away += numio_call_on_worker(run.handle, (int)i, where, NULL) != cpu_of_worker[i];
    }
    numa_check(away == 0, "calls run on their node, or their worker", "%u did not", away);
}

/* ---- rings ---------------------------------------------------------------------------------- */

static struct numio_spsc *ring;

static int64_t send_all(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i < MESSAGES; i++) {
        int rc = numio_spsc_send(ring, &i);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int64_t receive_all(void *arg)
{
    (void)arg;
    for (uint64_t i = 0, message; i < MESSAGES; i++) {
        int rc = numio_spsc_recv(ring, &message);
        if (rc < 0)
            return rc;
        if (message != i)
            return -EBADMSG;
    }
    return 0;
}

/* From the first node to each. */
static void check_rings(void)
{
    unsigned pages = 0, away = 0, broken = 0;
    for (unsigned node = 0; node < run.status.nodes; node++) {
        struct numio_join *sender, *receiver;
        numa_must(numio_spsc_create(run.handle, (int)node, sizeof(uint64_t), CAPACITY, &ring),
                  "a ring");
        numa_must(numio_spawn_on_node(run.handle, (int)node, receive_all, NULL, &receiver),
                  "spawn");
        numa_must(numio_spawn_on_node(run.handle, 0, send_all, NULL, &sender), "spawn");
        broken += numio_join_await(&sender) != 0;
        broken += numio_join_await(&receiver) != 0;
        for (size_t at = 0; at < CAPACITY * sizeof(uint64_t); at += 4096, pages++)
            away += kernel_node_of((char *)ring + at) != home_of(node);
        numio_spsc_destroy(ring);
    }
    numa_check(broken == 0, "messages cross from node to node in order", "%u tasks say no", broken);
    numa_check(away == 0, "a ring lies on its receiver's node", "%u of %u pages do not", away,
               pages);
}

/* ---- classes -------------------------------------------------------------------------------- */

static _Atomic unsigned turns_taken; /* by the backlog */

static int64_t take_turn(void *arg)
{
    (void)arg;
    /* relaxed: a count on one worker */
    (void)atomic_fetch_add_explicit(&turns_taken, 1, memory_order_relaxed);
    return 0;
}

/* Of the class latency by inheritance, behind a backlog: how many of that went first. */
static int64_t count_turns(void *arg)
{
    (void)arg;
    if (numio_class_current() != NUMIO_CLASS_LATENCY)
        return -EINVAL;
    /* relaxed: as above */
    return atomic_load_explicit(&turns_taken, memory_order_relaxed);
}

static int64_t call_other_node(void *arg)
{
    struct numio_join *join;
    int rc = numio_spawn_on_worker(NULL, *(int *)arg, count_turns, NULL, &join);
    return rc < 0 ? rc : numio_join_await(&join);
}

/* On the worker with the backlog, so that nothing of it runs before all of it is queued. */
static int64_t make_backlog(void *arg)
{
    int worker = *(int *)arg;
    struct numio_join *joins[BACKLOG], *urgent;
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    opts.worker = worker;
    for (unsigned i = 0; i < BACKLOG; i++) {
        int rc = numio_spawn_co(NULL, take_turn, NULL, &opts, &joins[i]);
        if (rc < 0)
            return rc;
    }
    opts.sched_class = NUMIO_CLASS_LATENCY;
    opts.worker = 0;
    int rc = numio_spawn_co(NULL, call_other_node, &worker, &opts, &urgent);
    if (rc < 0)
        return rc;
    /* The worker is busy until the other one has queued its task here; the kernel decides when that
     * is, so it may take the while of a backlog. */
    for (uint64_t end_ns = numio_now_ns() + 20000000; numio_now_ns() < end_ns;)
        continue;
    int64_t before = numio_join_await(&urgent);
    for (unsigned i = 0; i < BACKLOG; i++) {
        int64_t one = numio_join_await(&joins[i]);
        before = one < 0 ? one : before;
    }
    return before;
}

static void check_classes(void)
{
    int last = (int)run.status.workers - 1;
    if (last == 0) {
        numa_skip("a class goes with a task to another node", "there is one worker");
        return;
    }
    int64_t best = BACKLOG;
    for (unsigned turn = 0; turn < TURNS && best > BACKLOG / 10; turn++) {
        /* relaxed: nothing runs */
        atomic_store_explicit(&turns_taken, 0, memory_order_relaxed);
        int64_t before = numio_call_on_worker(run.handle, last, make_backlog, &last);
        numa_must(before, "the backlog");
        best = before < best ? before : best;
    }
    numa_check(best <= BACKLOG / 10, "a class goes with a task to another node",
               "%lld of %d of the backlog went first", (long long)best, BACKLOG);
}

int main(void)
{
    numa_start(&run, NULL);
    look_at_workers();
    check_loops();
    check_calls();
    check_rings();
    check_classes();
    numa_stop(&run);
    return numa_end();
}
