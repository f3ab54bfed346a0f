/* SPDX-License-Identifier: MIT */
/* Where tasks run, by sched_getcpu(2): "node" tasks on their node's CPUs only, "pinned" tasks on
 * one CPU, and "any" tasks away from home only when that pays: with one node overloaded they do,
 * with equal load fewer than one in a hundred does.  And the counters of the workers add up.
 */
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

#include "tests/numa/numa_runtime.h"

enum {
    YIELDS = 50,
    NODE_WORK_NS = 2000,
    TASKS = 400, /* of the affinity checks, a node or worker */
    LONG_TASKS = 200,
    LONG_NS = 500000,
    EQUAL_TASKS = 10000, /* a node and round */
    EQUAL_ROUNDS = 4,
    EQUAL_WORK_NS = 20000,
    EQUAL_BATCH = 20
};

static struct numa_run run;

/* Tasks that ran, and those that ran anywhere but where they should; any worker. */
static _Atomic uint64_t ran, strayed;

static void count(_Atomic uint64_t *counter)
{
    /* relaxed: a sum, read after the joins */
    (void)atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static uint64_t take(_Atomic uint64_t *counter)
{
    /* relaxed: as above */
    return atomic_exchange_explicit(counter, 0, memory_order_relaxed);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail */
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void work_for(uint64_t ns)
{
    for (uint64_t end_ns = now_ns() + ns; now_ns() < end_ns;)
        continue;
}

/* --- node and pinned ------------------------------------------------------------------------- */

static int64_t stay_on_node(void *arg)
{
    int home = *(int *)arg;
    for (unsigned i = 0; i < YIELDS; i++) {
        if (run.homes[sched_getcpu()] != home)
            count(&strayed);
        work_for(NODE_WORK_NS);
        int64_t rc = numio_yield_now();
        if (rc < 0)
            return rc;
    }
    count(&ran);
    return 0;
}

static int64_t stay_on_cpu(void *arg)
{
    int cpu = *(int *)arg;
    for (unsigned i = 0; i < YIELDS; i++) {
        if (sched_getcpu() != cpu)
            count(&strayed);
        int64_t rc = numio_yield_now();
        if (rc < 0)
            return rc;
    }
    count(&ran);
    return 0;
}

struct group {
    int64_t (*fn)(void *arg);
    enum numio_affinity affinity;
    unsigned first, groups; /* the nodes or workers */
    unsigned tasks;         /* of each */
};

/* Spawns the tasks of all groups in turn, from outside, and joins them; args[i] goes to group i. */
static void run_groups(struct numio_handle *handle, const struct group *group, int *args)
{
    unsigned total = group->groups * group->tasks;
    struct numio_join **joins = calloc(total, sizeof(struct numio_join *));
    for (unsigned i = 0; joins && i < total; i++) {
        struct numio_spawn_opts opts;
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.affinity = group->affinity;
        if (group->affinity == NUMIO_AFFINITY_WORKER)
            opts.worker = (int)(group->first + i % group->groups);
        else
            opts.node = (int)(group->first + i % group->groups);
        numa_must(numio_spawn_co(handle, group->fn, &args[i % group->groups], &opts, &joins[i]),
                  "spawn");
    }
    for (unsigned i = 0; joins && i < total; i++)
        numa_must(numio_join_await(&joins[i]), "join");
    free(joins);
}

static void check_affinities(struct numio_handle *handle, const struct numio_status *status)
{
    int node_homes[KERNEL_NODES_MAX], cpus[KERNEL_CPUS_MAX];
    for (unsigned i = 0; i < status->workers; i++) {
        struct numio_worker_status worker;
        numa_must(numio_worker_status(handle, i, &worker), "worker status");
        cpus[i] = worker.bind_cpu;
        node_homes[worker.node] = run.homes[worker.bind_cpu];
    }
    /* Node by node, so that the others are idle meanwhile. */
    for (unsigned i = 0; i < status->nodes; i++) {
        struct group node = { stay_on_node, NUMIO_AFFINITY_NODE, i, 1, TASKS };
        run_groups(handle, &node, &node_homes[i]);
    }
    uint64_t astray = take(&strayed), all = take(&ran);
    numa_check(astray == 0 && all == (uint64_t)status->nodes * TASKS,
               "node tasks never run elsewhere", "%llu polls away from home, %llu tasks ended",
               (unsigned long long)astray, (unsigned long long)all);
    struct group pinned = { stay_on_cpu, NUMIO_AFFINITY_WORKER, 0, status->workers, TASKS };
    run_groups(handle, &pinned, cpus);
    astray = take(&strayed), all = take(&ran);
    numa_check(astray == 0 && all == (uint64_t)status->workers * TASKS,
               "pinned tasks run on one worker's CPU only",
               "%llu polls elsewhere, %llu tasks ended", (unsigned long long)astray,
               (unsigned long long)all);
}

/* --- any ------------------------------------------------------------------------------------- */

struct load {
    int home;
    uint64_t ns;
};

static enum numio_poll run_load(void *state, struct numio_context *cx)
{
    const struct load *load = state;
    (void)cx;
    if (run.homes[sched_getcpu()] != load->home)
        count(&strayed);
    work_for(load->ns);
    count(&ran);
    return NUMIO_READY;
}

struct producer {
    unsigned tasks, batch; /* so many at once */
    struct load load;
};

static int64_t produce(void *arg)
{
    const struct producer *producer = arg;
    struct numio_join *joins[LONG_TASKS];
    for (unsigned done = 0; done < producer->tasks; done += producer->batch) {
        struct load load = producer->load;
        struct numio_future future = { .poll = run_load, .state = &load, .size = sizeof load };
        load.home = run.homes[sched_getcpu()];
        for (unsigned i = 0; i < producer->batch; i++) {
            int rc = numio_spawn(NULL, &future, NULL, &joins[i]);
            if (rc < 0)
                return rc;
        }
        for (unsigned i = 0; i < producer->batch; i++) {
            int64_t rc = numio_join_await(&joins[i]);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

/* One producer on each of the first `nodes` nodes. */
static void run_producers(struct numio_handle *handle, unsigned nodes, struct producer *producer)
{
    struct numio_join *joins[KERNEL_NODES_MAX];
    for (unsigned i = 0; i < nodes; i++) {
        struct numio_spawn_opts opts;
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.node = (int)i;
        opts.affinity = NUMIO_AFFINITY_NODE;
        numa_must(numio_spawn_co(handle, produce, producer, &opts, &joins[i]), "spawn");
    }
    for (unsigned i = 0; i < nodes; i++)
        numa_must(numio_join_await(&joins[i]), "join");
}

static void check_crossing(struct numio_handle *handle, unsigned nodes)
{
    if (nodes < 2) {
        numa_skip("work crosses from an overloaded node only", "there is one node");
        return;
    }
    struct producer one = { LONG_TASKS, LONG_TASKS, { 0, LONG_NS } };
    run_producers(handle, 1, &one);
    uint64_t crossed = take(&strayed), all = take(&ran);
    numa_check(crossed > 0 && all == LONG_TASKS, "an idle node helps an overloaded one",
               "%llu of %llu tasks ran elsewhere", (unsigned long long)crossed,
               (unsigned long long)all);
}

/* One worker a node, of two nodes: an emulated CPU stands still whenever the host has others to
 * run, and what waits there is right to cross.  So the best of some rounds counts. */
static void check_equal_load(struct numio_handle *handle, unsigned nodes)
{
    struct producer equal = { EQUAL_TASKS, EQUAL_BATCH, { 0, EQUAL_WORK_NS } };
    uint64_t best = UINT64_MAX, all = (uint64_t)nodes * EQUAL_TASKS, ended = 0;
    for (unsigned round = 0; round < EQUAL_ROUNDS && best * 100 >= all; round++) {
        run_producers(handle, nodes, &equal);
        uint64_t crossed = take(&strayed);
        best = crossed < best ? crossed : best;
        ended = take(&ran);
    }
    numa_check(best * 100 < all && ended == all,
               "with equal load fewer than one task in a hundred crosses",
               "%llu of %llu tasks ran elsewhere", (unsigned long long)best,
               (unsigned long long)all);
    printf("   (%llu of %llu crossed)\n", (unsigned long long)best, (unsigned long long)all);
}

/* --- counters -------------------------------------------------------------------------------- */

static void check_counters(struct numio_handle *handle, const struct numio_status *status)
{
    uint64_t spawned = 0, completed = 0, far = 0, wakes = 0, wakes_far = 0;
    for (unsigned i = 0; i < status->workers; i++) {
        struct numio_worker_metrics m = { .size = sizeof m };
        numa_must(numio_worker_metrics(handle, i, &m), "metrics");
        spawned += m.spawned;
        completed += m.completed;
        far += m.stolen_far;
        wakes += m.wakes_sent;
        wakes_far += m.wakes_far;
    }
    numa_check(completed >= spawned && numio_live_tasks(handle) == 0,
               "every task that was spawned has ended", "%llu spawned by workers, %llu ended",
               (unsigned long long)spawned, (unsigned long long)completed);
    numa_check(wakes_far <= wakes && (status->nodes > 1 || far + wakes_far == 0),
               "far steals and wakes are counted only between nodes",
               "%llu stolen far, %llu of %llu wakes far", (unsigned long long)far,
               (unsigned long long)wakes_far, (unsigned long long)wakes);
}

static uint64_t remote_frees(struct numio_handle *handle, unsigned workers)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < workers; i++) {
        struct numio_worker_metrics m = { .size = sizeof m };
        numa_must(numio_worker_metrics(handle, i, &m), "metrics");
        sum += m.remote_frees;
    }
    return sum;
}

static sem_t all_ran; /* posted by the last of the detached tasks */

static enum numio_poll note_cpu(void *state, struct numio_context *cx)
{
    (void)cx;
    if (sched_getcpu() != *(int *)state)
        count(&strayed);
    work_for(NODE_WORK_NS);
    /* relaxed: a count; the semaphore orders what comes after the last */
    if (atomic_fetch_add_explicit(&ran, 1, memory_order_relaxed) + 1 == EQUAL_TASKS)
        (void)sem_post(&all_ran); /* cannot overflow */
    return NUMIO_READY;
}

/* Detached tasks: whoever runs one to its end frees it, so each that the kernel saw on another CPU
 * than its spawner's is one cell that travels home. */
static int64_t spawn_detached(void *arg)
{
    int cpu = sched_getcpu();
    struct numio_future future = { .poll = note_cpu, .state = &cpu, .size = sizeof cpu };
    for (unsigned i = 0; i < *(unsigned *)arg; i++) {
        int rc = numio_spawn(NULL, &future, NULL, NULL);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The shutdown is the latch: after it every cell has been freed. */
static void check_frees(void)
{
    unsigned tasks = EQUAL_TASKS;
    struct numio_spawn_opts opts;
    struct numio_join *join;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER; /* it stays on its CPU while it spawns */
    opts.worker = 0;
    numa_must(numio_spawn_co(run.handle, spawn_detached, &tasks, &opts, &join), "spawn");
    numa_must(numio_join_await(&join), "join");
    if (sem_wait(&all_ran) != 0)
        kernel_fail("sem_wait");
    numa_must(numio_runtime_shutdown(run.runtime, -1, NULL, 0, NULL), "shutdown");
    uint64_t away = take(&strayed), frees = remote_frees(run.handle, run.status.workers);
    /* The spawner's own cell came from outside and goes home as well. */
    numa_check(take(&ran) == tasks && frees >= away && frees <= away + 1,
               "cells that travel home are those of tasks that ran elsewhere",
               "%llu ran elsewhere, %llu freed there", (unsigned long long)away,
               (unsigned long long)frees);
    numio_runtime_destroy(run.runtime);
}

/* "A,B": a CPU of each of the first two nodes of the runtime; false: it has one. */
static bool choose_cpus(unsigned nodes, char *ret_list, size_t bytes)
{
    int cpus[2];
    for (unsigned i = 0; i < 2 && nodes >= 2; i++)
        cpus[i] = numa_worker(&run, numa_node(&run, i).worker_first).bind_cpu;
    if (nodes >= 2)
        (void)snprintf(ret_list, bytes, "%d,%d", cpus[0], cpus[1]); /* fits */
    return nodes >= 2;
}

int main(void)
{
    struct numio_config config;
    char two_cpus[32];
    numa_start(&run, NULL);
    check_affinities(run.handle, &run.status);
    check_crossing(run.handle, run.status.nodes);
    check_counters(run.handle, &run.status);
    bool has_two = choose_cpus(run.status.nodes, two_cpus, sizeof two_cpus);
    numa_stop(&run);
    numa_start(&run, NULL);
    if (sem_init(&all_ran, 0, 0) != 0)
        kernel_fail("sem_init");
    check_frees(); /* ends the runtime */
    if (has_two) {
        numa_must(numio_config_init(&config, sizeof config), "config");
        config.cpus = two_cpus;
        numa_start(&run, &config);
        check_equal_load(run.handle, 2);
        numa_stop(&run);
    }
    return numa_end();
}
