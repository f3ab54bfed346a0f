/* SPDX-License-Identifier: MIT */
/* Threads and pages.  Tasks note where their cell, their stack and what they allocate lies, and ask
 * the kernel themselves: each for its own pages, while it has them. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/tool/check.h"

enum { TASKS = 4000, COROUTINES = 200, BUFFER_BYTES = 1 << 20, HEAP_BYTES = 256 << 10 };

static const uint64_t away_percent_max = 1;

/* --- threads --------------------------------------------------------------------------------- */

static void check_worker(struct check *check, unsigned index, struct check_node *node)
{
    const struct numio_worker_status *worker = &check->machine.workers[index];
    struct check_cpus cpus;
    if (!check_thread_cpus(worker->tid, &cpus))
        return;
    if (check_count(&cpus) == 1 && check_has_cpu(&cpus, worker->bind_cpu))
        node->pinned++;
    else if (check->machine.config.worker_per_pu || worker->bind_cpu >= 0)
        check_finding(check,
                      "worker %u may run on %u CPUs instead of CPU %d alone: somebody changed its "
                      "affinity (taskset, a cpuset); start again, or give the CPU back",
                      index, check_count(&cpus), worker->bind_cpu);
}

static void check_sq_thread(struct check *check, unsigned index, struct check_node *node)
{
    struct check_cpus cpus, home, there;
    node->sq_tid = check->machine.nodes[index].sq_tid;
    if (node->sq_tid < 0)
        return;
    memset(&home, 0, sizeof home);
    for (int other = 0; other < CHECK_NODES_MAX; other++) {
        check_node_cpus(other, &there);
        for (unsigned i = 0; i < CHECK_CPUS_MAX / 64 && check_home_of_node(other) == node->home;
             i++)
            home.words[i] |= there.words[i];
    }
    node->is_sq_placed = check_thread_cpus(node->sq_tid, &cpus) && check_is_within(&cpus, &home);
    if (!node->is_sq_placed)
        check_finding(
            check,
            "node %u: its SQ thread (%d) may run on CPUs of other nodes: set sq_thread_cpu "
            "(--sq-cpu) to one of its own",
            index, node->sq_tid);
}

void check_threads(struct check *check)
{
    for (unsigned i = 0; i < check->machine.status.nodes; i++) {
        const struct numio_node_status *status = &check->machine.nodes[i];
        struct check_node *node = &check->nodes[i];
        int cpu = check->machine.workers[status->worker_first].bind_cpu;
        int own = check_node_of_cpu(cpu < 0 ? 0 : cpu);
        node->home = check_home_of_node(own);
        for (unsigned k = 0; k < status->worker_count; k++)
            check_worker(check, status->worker_first + k, node);
        check_sq_thread(check, i, node);
        if (status->os_node >= 0 && status->os_node != node->home)
            check_finding(check,
                          "node %u: its workers are on NUMA node %d, but its memory comes from %d: "
                          "the cpuset allows no memory of %d (cpuset.mems)",
                          i, node->home, status->os_node, node->home);
    }
}

/* --- pages ----------------------------------------------------------------------------------- */

/* What the tasks of one node add to; under the lock. */
struct place {
    pthread_mutex_t lock;
    struct check_node *node;
    struct numio_handle *handle;
    unsigned index;
};

static void add_pages(struct place *place, struct check_pages *to, const void *memory, size_t bytes)
{
    struct check_pages pages = { 0, 0 };
    check_count_pages(memory, bytes, place->node->home, &pages);
    (void)pthread_mutex_lock(&place->lock); /* it is not recursive */
    to->home += pages.home;
    to->away += pages.away;
    (void)pthread_mutex_unlock(&place->lock);
}

static enum numio_poll look_at_cell(void *state, struct numio_context *cx)
{
    struct place *place = *(struct place **)state;
    (void)cx;
    add_pages(place, &place->node->cells, state, sizeof place);
    return NUMIO_READY;
}

static int64_t look_at_stack(void *arg)
{
    struct place *place = arg;
    char local[256];
    memset(local, 1, sizeof local);
    add_pages(place, &place->node->stacks, local, sizeof local);
    return local[17] - 1;
}

static int64_t look_at_heap(void *arg)
{
    struct place *place = arg;
    char *memory = malloc(HEAP_BYTES);
    if (!memory)
        return -ENOMEM;
    memset(memory, 1, HEAP_BYTES);
    add_pages(place, &place->node->heap, memory, HEAP_BYTES);
    free(memory);
    char *buffer = numio_io_buffer_alloc(place->handle, (int)place->index, BUFFER_BYTES);
    if (!buffer)
        return -ENOMEM;
    memset(buffer, 1, BUFFER_BYTES);
    add_pages(place, &place->node->buffers, buffer, BUFFER_BYTES);
    numio_io_buffer_free(place->handle, (int)place->index, buffer, BUFFER_BYTES);
    return 0;
}

/* Spawns everything that looks at one node, from one of its workers. */
static int64_t look_around(void *arg)
{
    struct place *place = arg;
    struct numio_spawn_opts opts;
    int64_t failed = 0;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_NODE;
    for (unsigned i = 0; i < TASKS + COROUTINES; i++) {
        struct numio_future future = { .poll = look_at_cell,
                                       .state = &place,
                                       .size = sizeof place };
        struct numio_join *join;
        int64_t rc = i < TASKS ? numio_spawn(NULL, &future, &opts, &join)
                               : numio_spawn_co(NULL, look_at_stack, place, &opts, &join);
        if (rc >= 0)
            rc = numio_join_await(&join);
        if (rc < 0 && failed == 0)
            failed = rc;
    }
    int64_t rc = look_at_heap(place);
    return failed < 0 ? failed : rc;
}

static void judge(struct check *check, unsigned index, const char *what,
                  const struct check_pages *pages)
{
    uint64_t all = pages->home + pages->away;
    if (all == 0)
        check_finding(check, "node %u: the kernel does not tell where its %s lie: allow move_pages",
                      index, what);
    else if (pages->away * 100 > all * away_percent_max)
        check_finding(check,
                      "node %u: %llu of %llu pages of its %s lie on other nodes than %d: is there "
                      "memory left there (numactl -H), and does the cpuset allow it (cpuset.mems)?",
                      index, (unsigned long long)pages->away, (unsigned long long)all, what,
                      check->nodes[index].home);
}

void check_placement(struct check *check)
{
    check_progress(check, "running tasks on each node");
    for (unsigned i = 0; i < check->machine.status.nodes; i++) {
        struct check_node *node = &check->nodes[i];
        struct place place = {
            .lock = PTHREAD_MUTEX_INITIALIZER, .node = node, .handle = check->handle, .index = i
        };
        struct numio_spawn_opts opts;
        struct numio_join *join;
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.affinity = NUMIO_AFFINITY_NODE;
        opts.node = (int)i;
        int64_t rc = numio_spawn_co(check->handle, look_around, &place, &opts, &join);
        if (rc >= 0)
            rc = numio_join_await(&join);
        if (rc < 0)
            check_finding(check, "node %u: its tasks did not end well: %s", i, strerror((int)-rc));
        judge(check, i, "cells", &node->cells);
        judge(check, i, "stacks", &node->stacks);
        judge(check, i, "I/O buffers", &node->buffers);
        judge(check, i, "heap", &node->heap);
    }
}
