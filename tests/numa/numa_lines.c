/* SPDX-License-Identifier: MIT */
/* What one node works on, no other node's memory notices: spawns, wakes and exits on node A write
 * no byte of what belongs to node B (its shard of the owned set, its inject and overflow queues,
 * its idle set, its workers), and no cache line holds parts of two nodes.
 *
 * B's workers are held meanwhile, each in a poll that does nothing but wait, so every byte of B
 * must stay as it was: B's memory is copied, A works, and the copy is compared.  (Asleep they would
 * do, too, but for the one that looks after A now and then.)  Where B's parts are is numio's word;
 * that they lie on B is the kernel's.
 */
#include "runtime/sched/worker.h"
#include "tests/numa/numa_runtime.h"

enum { TASKS = 20000, PARTS_MAX = 256, LINE_BYTES = 64 };

struct part {
    const char *base;
    size_t bytes;
    unsigned node;
};

static struct part parts[PARTS_MAX];
static unsigned part_count;

static void add_part(const void *base, size_t bytes, unsigned node)
{
    if (part_count < PARTS_MAX)
        parts[part_count++] = (struct part){ base, bytes, node };
}

static void find_parts(struct numio_handle *handle)
{
    for (unsigned i = 0; i < handle->node_count; i++) {
        struct nio_node *node = handle->nodes[i];
        add_part(node, sizeof *node, i);
        for (unsigned k = 0; k < node->worker_count; k++)
            add_part(node->workers[k], sizeof(struct nio_worker), i);
    }
}

static void check_lines(void)
{
    unsigned shared = 0;
    for (unsigned i = 0; i < part_count; i++)
        for (unsigned k = 0; k < i; k++) {
            uintptr_t a = (uintptr_t)parts[i].base / LINE_BYTES;
            uintptr_t a_end = ((uintptr_t)parts[i].base + parts[i].bytes - 1) / LINE_BYTES;
            uintptr_t b = (uintptr_t)parts[k].base / LINE_BYTES;
            uintptr_t b_end = ((uintptr_t)parts[k].base + parts[k].bytes - 1) / LINE_BYTES;
            shared += parts[i].node != parts[k].node && a <= b_end && b <= a_end;
        }
    numa_check(shared == 0, "no cache line holds parts of two nodes", "%u pairs share one", shared);
}

static void check_homes(struct numio_handle *handle)
{
    unsigned away = 0;
    for (unsigned i = 0; i < part_count; i++) {
        struct numio_worker_status worker;
        struct numio_node_status node;
        numa_must(numio_node_status(handle, parts[i].node, &node), "node status");
        numa_must(numio_worker_status(handle, node.worker_first, &worker), "worker status");
        int home = kernel_home_of_cpu(worker.bind_cpu);
        away += kernel_node_of(parts[i].base) != home ||
                kernel_node_of(parts[i].base + parts[i].bytes - 1) != home;
    }
    numa_check(away == 0, "shards, queues, idle sets and workers lie on their node",
               "%u of %u do not", away, part_count);
}

/* A node's parts, one after the other; the caller frees it. */
static char *copy_parts(unsigned node, size_t *ret_bytes)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < part_count; i++)
        bytes += parts[i].node == node ? parts[i].bytes : 0;
    char *copy = malloc(bytes), *at = copy;
    for (unsigned i = 0; copy && i < part_count; i++)
        if (parts[i].node == node) {
            memcpy(at, parts[i].base, parts[i].bytes);
            at += parts[i].bytes;
        }
    *ret_bytes = bytes;
    return copy;
}

/* --- B's workers ----------------------------------------------------------------------------- */

static _Atomic unsigned held;  /* so many are in their polls */
static _Atomic bool is_let_go; /* and go on when this is set */

static int64_t hold_worker(void *arg)
{
    (void)arg;
    /* [NL1] release: its poll has begun.  Pairs with [NL2]. */
    (void)atomic_fetch_add_explicit(&held, 1, memory_order_release);
    /* relaxed: only its value */
    while (!atomic_load_explicit(&is_let_go, memory_order_relaxed))
        (void)sched_yield(); /* others may need this CPU */
    return 0;
}

static void hold_node(const struct nio_node *node, struct numio_join **joins)
{
    for (unsigned i = 0; i < node->worker_count; i++) {
        struct numio_spawn_opts opts;
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.affinity = NUMIO_AFFINITY_WORKER;
        opts.worker = (int)node->workers[i]->index;
        numa_must(numio_spawn_co(node->handle, hold_worker, NULL, &opts, &joins[i]), "spawn");
    }
    /* [NL2] acquire: what they did before is done.  Pairs with [NL1]. */
    while (atomic_load_explicit(&held, memory_order_acquire) < node->worker_count)
        (void)sched_yield(); /* as above */
}

static void let_node_go(const struct nio_node *node, struct numio_join **joins)
{
    /* relaxed: only its value */
    atomic_store_explicit(&is_let_go, true, memory_order_relaxed);
    for (unsigned i = 0; i < node->worker_count; i++)
        numa_must(numio_join_await(&joins[i]), "join");
    /* relaxed: all have been joined */
    atomic_store_explicit(&is_let_go, false, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(&held, 0, memory_order_relaxed);
}

/* --- A's work -------------------------------------------------------------------------------- */

static enum numio_poll wake_once(void *state, struct numio_context *cx)
{
    bool *has_yielded = state;
    if (*has_yielded)
        return NUMIO_READY;
    *has_yielded = true;
    struct numio_waker waker = numio_context_waker(cx);
    numio_waker_wake(&waker); /* itself: a wake and another poll */
    return NUMIO_PENDING;
}

static int64_t work_at_home(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < TASKS; i++) {
        bool has_yielded = false;
        struct numio_future future = { .poll = wake_once,
                                       .state = &has_yielded,
                                       .size = sizeof has_yielded };
        struct numio_spawn_opts opts;
        struct numio_join *join;
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.affinity = NUMIO_AFFINITY_NODE;
        int64_t rc = numio_spawn(NULL, &future, &opts, &join);
        if (rc >= 0)
            rc = numio_join_await(&join);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void check_silence(struct numio_handle *handle, unsigned busy, unsigned idle)
{
    size_t bytes, changed = 0;
    struct numio_spawn_opts opts;
    struct numio_join *join, *holders[KERNEL_CPUS_MAX];
    hold_node(handle->nodes[idle], holders);
    char *before = copy_parts(idle, &bytes);
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_NODE;
    opts.node = (int)busy;
    numa_must(numio_spawn_co(handle, work_at_home, NULL, &opts, &join), "spawn");
    numa_must(numio_join_await(&join), "join");
    char *after = copy_parts(idle, &bytes);
    let_node_go(handle->nodes[idle], holders);
    for (size_t i = 0; before && after && i < bytes; i++)
        changed += before[i] != after[i];
    numa_check(before && after && changed == 0,
               "spawns, wakes and exits on one node write nothing of another",
               "%zu of %zu bytes of node %u changed while node %u worked", changed, bytes, idle,
               busy);
    free(before);
    free(after);
}

int main(void)
{
    struct numio_config config;
    static struct numa_run run;
    numa_must(numio_config_init(&config, sizeof config), "config");
    config.idle = NUMIO_IDLE_PARK;
    config.driver = NUMIO_DRIVER_DEFER;
    numa_start(&run, &config);
    struct numio_handle *handle = run.handle;
    find_parts(handle);
    check_lines();
    check_homes(handle);
    if (handle->node_count < 2)
        numa_skip("spawns, wakes and exits on one node write nothing of another",
                  "there is one node");
    for (unsigned i = 0; i + 1 < handle->node_count; i++) {
        check_silence(handle, i, i + 1);
        check_silence(handle, i + 1, i);
    }
    numa_stop(&run);
    return numa_end();
}
