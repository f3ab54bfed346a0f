/* SPDX-License-Identifier: MIT */
/* After a million tasks that were spawned everywhere and stolen across, the pages of their cells,
 * their stacks and the I/O buffers lie on their home node, what was freed elsewhere has come home,
 * and memory does not grow.  A plain malloc() in a task comes from its worker's node.
 *
 * Each task notes where its cell is; the kernel is asked for the pages afterwards.  The home of a
 * cell is that of its spawner's worker, of a stack that of the worker where it first ran.
 *
 * Every round has the same number of stacks in use at one moment, and none has deep ones: what a
 * stack was touched to stays with it, so else the pages would be those of the largest crowd so far.
 */
#include <stdatomic.h>

#include <numio/sync.h>

#include "tests/numa/numa_runtime.h"

enum {
    ROUNDS = 10,
    TASKS = 100000, /* a round, all nodes */
    LONG_NS = 5000,
    COROUTINES = 400, /* a round, each node, all at the same moment */
    BATCH = 500,
    BUFFER_BYTES = 1 << 20,
    HEAP_BYTES = 256 << 10,
    SETTLED_ROUND = 3,
    GROWTH_PAGES_MAX = 256
};

static const size_t page_bytes = 4096;

/* Where something lay that belongs to a home; filled by tasks, read at the end of the round. */
struct place {
    void *address;
    int home;
};

struct places {
    struct place *list;
    _Atomic size_t count;
    size_t capacity;
};

static struct places cells, stacks, heaps;
static _Atomic uint64_t crossed; /* tasks that ran on another home than their cell's */
static struct numa_run run;
static struct numio_barrier all_are_there;

static void note(struct places *places, void *address, int home)
{
    /* relaxed: distinct numbers; the joins publish what is written */
    size_t i = atomic_fetch_add_explicit(&places->count, 1, memory_order_relaxed);
    if (i < places->capacity)
        places->list[i] = (struct place){ address, home };
}

static struct places make_places(size_t capacity)
{
    return (struct places){ .list = calloc(capacity, sizeof(struct place)), .capacity = capacity };
}

static int by_address(const void *a, const void *b)
{
    uintptr_t left = (uintptr_t)((const struct place *)a)->address / page_bytes;
    uintptr_t right = (uintptr_t)((const struct place *)b)->address / page_bytes;
    return (left > right) - (left < right);
}

/* Each page once: at least 99 in 100 must lie on the home that was noted for it. */
static void check_places(struct places *places, const char *name)
{
    /* relaxed: all tasks have been joined */
    size_t count = atomic_load_explicit(&places->count, memory_order_relaxed), pages = 0, home = 0;
    if (count > places->capacity)
        count = places->capacity;
    qsort(places->list, count, sizeof *places->list, by_address);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && by_address(&places->list[i - 1], &places->list[i]) == 0)
            continue;
        pages++;
        home += kernel_node_of(places->list[i].address) == places->list[i].home;
    }
    numa_check(pages > 0 && home * 100 >= pages * 99, name, "%zu of %zu pages", home, pages);
    /* relaxed: as above */
    atomic_store_explicit(&places->count, 0, memory_order_relaxed);
}

/* --- tasks ----------------------------------------------------------------------------------- */

struct errand {
    int home; /* of the spawner's worker */
    bool is_long;
};

static int home_here(void)
{
    return run.homes[sched_getcpu()];
}

static enum numio_poll run_errand(void *state, struct numio_context *cx)
{
    struct errand *errand = state;
    (void)cx;
    note(&cells, errand, errand->home);
    if (errand->home != home_here())
        /* relaxed: a sum, read after the joins */
        (void)atomic_fetch_add_explicit(&crossed, 1, memory_order_relaxed);
    if (errand->is_long)
        kernel_spin(LONG_NS);
    return NUMIO_READY;
}

static int64_t run_coroutine(void *arg)
{
    char local[256];
    (void)arg;
    memset(local, 1, sizeof local);
    note(&stacks, local, home_here());
    int64_t rc = numio_barrier_wait(&all_are_there); /* it may go on elsewhere */
    return rc < 0 ? rc : local[17];
}

static int64_t use_heap(void *arg)
{
    (void)arg;
    char *memory = malloc(HEAP_BYTES);
    if (!memory)
        return -ENOMEM;
    int home = home_here();
    memset(memory, 1, HEAP_BYTES);
    for (size_t at = 0; at < HEAP_BYTES; at += page_bytes)
        note(&heaps, memory + at, home);
    int64_t sum = memory[1] + memory[HEAP_BYTES - 1];
    /* The page numbers are asked for at the end; jemalloc keeps them until then. */
    free(memory);
    return sum == 2 ? 0 : -EIO;
}

struct batch {
    struct errand errands[BATCH];
    struct numio_future futures[BATCH];
    struct numio_join *joins[BATCH];
};

static int64_t spawn_batch(struct batch *batch, bool is_long)
{
    for (size_t i = 0; i < BATCH; i++) {
        struct errand *errand = &batch->errands[i];
        *errand = (struct errand){ home_here(), is_long };
        batch->futures[i] =
            (struct numio_future){ .poll = run_errand, .state = errand, .size = sizeof *errand };
    }
    int64_t rc = numio_spawn_batch(NULL, batch->futures, BATCH, NULL, batch->joins);
    for (size_t i = 0; rc >= 0 && i < BATCH; i++)
        rc = numio_join_await(&batch->joins[i]);
    return rc;
}

struct share {
    size_t count;  /* tasks of each spawner */
    int long_node; /* whose tasks take LONG_NS, so that those who are done come for them */
};

/* Spawns its share of futures in batches, and joins each. */
static int64_t spawn_share(void *arg)
{
    const struct share *share = arg;
    bool is_long = numio_current_node() == share->long_node;
    struct batch *batch = malloc(sizeof *batch);
    int64_t rc = batch ? 0 : -ENOMEM;
    for (size_t done = 0; rc >= 0 && done < share->count; done += BATCH)
        rc = spawn_batch(batch, is_long);
    free(batch);
    return rc < 0 ? rc : 0;
}

/* Runs `fn` as `count` coroutines on each node and waits for all of them. */
static void on_each_node(struct numio_handle *handle, unsigned nodes, unsigned count,
                         int64_t (*fn)(void *arg), void *arg)
{
    struct numio_join **joins = calloc((size_t)nodes * count, sizeof(struct numio_join *));
    for (unsigned i = 0; joins && i < nodes * count; i++) {
        struct numio_spawn_opts opts;
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.node = (int)(i % nodes);
        opts.affinity = NUMIO_AFFINITY_NODE;
        opts.stack_bytes = 0;
        numa_must(numio_spawn_co(handle, fn, arg, &opts, &joins[i]), "spawn");
    }
    for (unsigned i = 0; joins && i < nodes * count; i++)
        numa_must(numio_join_await(&joins[i]), "join");
    free(joins);
}

static void check_buffers(struct numio_handle *handle, unsigned nodes)
{
    struct places buffers = make_places(nodes * BUFFER_BYTES / page_bytes);
    char *taken[KERNEL_NODES_MAX];
    for (unsigned node = 0; node < nodes; node++) {
        char *buffer = numio_io_buffer_alloc(handle, (int)node, BUFFER_BYTES);
        if (!buffer)
            numa_must(-1, "an I/O buffer");
        taken[node] = buffer;
        memset(buffer, 1, BUFFER_BYTES);
        struct numio_worker_status worker = numa_worker(&run, numa_node(&run, node).worker_first);
        for (size_t at = 0; at < BUFFER_BYTES; at += page_bytes)
            note(&buffers, buffer + at, run.homes[worker.bind_cpu]);
    }
    check_places(&buffers, "I/O buffers lie on their node");
    for (unsigned node = 0; node < nodes; node++)
        numio_io_buffer_free(handle, (int)node, taken[node], BUFFER_BYTES);
    free(buffers.list);
}

/* Every cell has gone home: each node's accounts show nothing alive but what is in use. */
static void check_audit(struct numio_handle *handle, unsigned nodes)
{
    for (unsigned node = 0; node < nodes; node++) {
        struct numio_arena_audit audit = { .size = sizeof audit };
        numa_must(numio_arena_audit(handle, node, &audit), "audit");
        numa_check(audit.pages_away * 100 <= audit.pages_home,
                   "the arena's pages lie on its node (move_pages over all of them)",
                   "node %u: %llu home, %llu away; %s", node, (unsigned long long)audit.pages_home,
                   (unsigned long long)audit.pages_away,
                   audit.reason[0] ? audit.reason : "every mbind succeeded");
    }
}

int main(void)
{
    numa_start(&run, NULL);
    struct numio_handle *handle = run.handle;
    struct numio_status status = run.status;
    cells = make_places(TASKS + BATCH * KERNEL_NODES_MAX);
    stacks = make_places(COROUTINES * KERNEL_NODES_MAX);
    heaps = make_places(KERNEL_NODES_MAX * HEAP_BYTES / 4096);
    size_t share = TASKS / status.nodes;
    numa_must(numio_barrier_init(&all_are_there, COROUTINES * status.nodes), "a barrier");
    long settled = 0, resident = 0;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        /* Twice as many spawners as workers, so that their tasks are stolen. */
        struct share each = { .count = share / (2 * status.workers / status.nodes + 1),
                              .long_node = (int)(round % status.nodes) };
        on_each_node(handle, status.nodes, 2 * status.workers / status.nodes + 1, spawn_share,
                     &each);
        on_each_node(handle, status.nodes, COROUTINES, run_coroutine, NULL);
        resident = kernel_resident_pages();
        if (round == SETTLED_ROUND)
            settled = resident;
        if (round == 1 || round == ROUNDS) {
            check_places(&cells, "cells lie on their home");
            check_places(&stacks, "stacks lie on their home");
        }
        /* relaxed: nothing runs */
        atomic_store_explicit(&cells.count, 0, memory_order_relaxed);
        /* relaxed: as above */
        atomic_store_explicit(&stacks.count, 0, memory_order_relaxed);
    }
    numa_check(resident - settled <= GROWTH_PAGES_MAX, "memory does not grow over ten rounds",
               "%ld pages after round %d, %ld after round %d", settled, SETTLED_ROUND, resident,
               ROUNDS);
    /* relaxed: nothing runs */
    uint64_t away = atomic_load_explicit(&crossed, memory_order_relaxed);
    if (status.nodes < 2)
        numa_skip("tasks were stolen across nodes", "there is one node");
    else
        numa_check(away >= ROUNDS, "tasks were stolen across nodes", "%llu of %u",
                   (unsigned long long)away, ROUNDS * TASKS);
    on_each_node(handle, status.nodes, 1, use_heap, NULL);
    check_places(&heaps, "a plain malloc() in a task comes from its worker's node");
    check_buffers(handle, status.nodes);
    check_audit(handle, status.nodes);
    numa_stop(&run);
    return numa_end();
}
