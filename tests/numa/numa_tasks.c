/* SPDX-License-Identifier: MIT */
/* Where tasks run, by sched_getcpu(2): "node" tasks on their node's CPUs only, "pinned" tasks on
 * one CPU, and "any" tasks away from home only when that pays: with one node overloaded they do,
 * with equal load fewer than one in a hundred does.
 */
#include <stdatomic.h>

#include <numio/io.h>

#include "tests/numa/numa_runtime.h"

enum {
    YIELDS = 50,
    NODE_WORK_NS = 2000,
    TASKS = 400, /* of the affinity checks, a node or worker */
    LONG_TASKS = 200,
    LONG_NS = 100000,
    LONG_ROUNDS = 20,
    EQUAL_TASKS = 6000, /* a node and round */
    EQUAL_ROUNDS = 4,
    EQUAL_WORK_NS = 20000,
    EQUAL_BATCH = 6,
    EQUAL_PAUSE_NS = 150000
};

static struct numa_run run;

/* Tasks that ran, and those that ran anywhere but where they should; any worker. */
static _Atomic uint64_t ran, strayed;
/* The same of tasks that may leave. */
static _Atomic uint64_t loads, lured;

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

/* --- node and pinned ------------------------------------------------------------------------- */

static int64_t stay_on_node(void *arg)
{
    int home = *(int *)arg;
    for (unsigned i = 0; i < YIELDS; i++) {
        if (run.homes[sched_getcpu()] != home)
            count(&strayed);
        kernel_spin(NODE_WORK_NS);
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
        count(&lured);
    kernel_spin(load->ns);
    count(&loads);
    return NUMIO_READY;
}

struct producer {
    unsigned tasks, batch; /* so many at once */
    struct load load;
    int64_t pause_ns; /* after a batch */
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
        int64_t rc = producer->pause_ns > 0 ? numio_sleep_ns(producer->pause_ns) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static struct numio_join *start_producer(struct numio_handle *handle, unsigned node,
                                         struct producer *producer)
{
    struct numio_spawn_opts opts;
    struct numio_join *join;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.node = (int)node;
    opts.affinity = NUMIO_AFFINITY_NODE;
    numa_must(numio_spawn_co(handle, produce, producer, &opts, &join), "spawn");
    return join;
}

/* One producer on each of the first `nodes` nodes. */
static void run_producers(struct numio_handle *handle, unsigned nodes, struct producer *producer)
{
    struct numio_join *joins[KERNEL_NODES_MAX];
    for (unsigned i = 0; i < nodes; i++)
        joins[i] = start_producer(handle, i, producer);
    for (unsigned i = 0; i < nodes; i++)
        numa_must(numio_join_await(&joins[i]), "join");
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
    /* Node by node, so that the others are idle meanwhile, and come for what may leave. */
    struct producer bait = { LONG_TASKS, LONG_TASKS, { 0, LONG_NS }, 0 };
    for (unsigned i = 0; i < status->nodes; i++) {
        struct group node = { stay_on_node, NUMIO_AFFINITY_NODE, i, 1, TASKS };
        struct numio_join *baited = start_producer(handle, i, &bait);
        run_groups(handle, &node, &node_homes[i]);
        numa_must(numio_join_await(&baited), "join");
    }
    (void)take(&lured);
    (void)take(&loads);
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

/* The load lasts some 10 ms.  A helper is woken at once, but an emulated CPU that wakes up may wait
 * longer than that for the host: so the best of some rounds counts. */
static void check_crossing(struct numio_handle *handle, unsigned nodes)
{
    if (nodes < 2) {
        numa_skip("work crosses from an overloaded node only", "there is one node");
        return;
    }
    struct producer one = { LONG_TASKS, LONG_TASKS, { 0, LONG_NS }, 0 };
    uint64_t best = 0;
    bool have_all_ended = true;
    for (unsigned round = 0; round < LONG_ROUNDS && best * 10 < LONG_TASKS; round++) {
        run_producers(handle, 1, &one);
        uint64_t crossed = take(&lured);
        best = crossed > best ? crossed : best;
        have_all_ended = have_all_ended && take(&loads) == LONG_TASKS;
    }
    numa_check(best * 10 >= LONG_TASKS && have_all_ended, "an idle node helps an overloaded one",
               "%llu of %d tasks ran elsewhere", (unsigned long long)best, LONG_TASKS);
}

/* One worker a node, of two nodes; each has as much to do, and pauses in which it sees what waits
 * on the other.  An emulated CPU stands still whenever the host has others to run, and what waits
 * there is right to cross: so the best of some rounds counts. */
static void check_equal_load(struct numio_handle *handle, unsigned nodes)
{
    struct producer equal = { EQUAL_TASKS, EQUAL_BATCH, { 0, EQUAL_WORK_NS }, EQUAL_PAUSE_NS };
    uint64_t best = UINT64_MAX, all = (uint64_t)nodes * EQUAL_TASKS, ended = 0;
    for (unsigned round = 0; round < EQUAL_ROUNDS && best * 100 >= all; round++) {
        run_producers(handle, nodes, &equal);
        uint64_t crossed = take(&lured);
        best = crossed < best ? crossed : best;
        ended = take(&loads);
    }
    numa_check(best * 100 < all && ended == all,
               "with equal load fewer than one task in a hundred crosses",
               "%llu of %llu tasks ran elsewhere", (unsigned long long)best,
               (unsigned long long)all);
    printf("   (%llu of %llu crossed)\n", (unsigned long long)best, (unsigned long long)all);
}

int main(void)
{
    struct numio_config config;
    char two_cpus[32];
    numa_start(&run, NULL);
    check_affinities(run.handle, &run.status);
    check_crossing(run.handle, run.status.nodes);
    bool has_two = numa_two_cpus(&run, two_cpus, sizeof two_cpus);
    numa_stop(&run);
    if (has_two) {
        numa_must(numio_config_init(&config, sizeof config), "config");
        config.cpus = two_cpus;
        numa_start(&run, &config);
        check_equal_load(run.handle, 2);
        numa_stop(&run);
    }
    return numa_end();
}
