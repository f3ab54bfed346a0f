/* SPDX-License-Identifier: MIT */
/* Builds a handle: plan, nodes, arenas, workers, blocking pool; and takes it apart again.
 *
 * Memory that a node's workers use comes from the node's arena.  Nothing here starts a thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc/huge_pages.h"
#include "alloc/io_buffer.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/blocking/blocking.h"
#include "runtime/lifecycle.h"

void nio_handle_add_reason(struct numio_handle *handle, const char *reason)
{
    if (!reason || !*reason || handle->reason_count == NIO_REASONS_MAX)
        return;
    for (unsigned i = 0; i < handle->reason_count; i++)
        if (strcmp(handle->reasons[i], reason) == 0)
            return;
    const char *copy = nio_strdup(reason);
    if (copy)
        handle->reasons[handle->reason_count++] = copy;
}

/* A page that reads 1 here and 0 in every forked child (madvise(2), MADV_WIPEONFORK). */
static int make_fork_guard(struct numio_handle *handle)
{
    size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *page = nio_fault_now() ? MAP_FAILED
                                    : mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return -ENOMEM;
    *page = 1;
    if (madvise(page, bytes, MADV_WIPEONFORK) != 0)
        nio_handle_add_reason(handle, "the kernel lacks MADV_WIPEONFORK: use of the runtime in a "
                                      "forked child is not detected");
    handle->fork_guard = page;
    return 0;
}

static int make_plan(struct numio_handle *handle)
{
    const struct numio_config *c = &handle->config;
    struct nio_driver_probe probe;
    char reason[256] = "";
    int rc = numio_topology_load(c->topology, &handle->topology);
    if (rc < 0)
        return rc;
    nio_driver_probe(c->driver, &probe);
    struct nio_plan_options options = {
        .shard_by = c->shard_by,
        .workers = c->workers,
        .per_pu = c->worker_per_pu,
        .cpus = c->cpus,
        .sq_thread_cpu = c->sq_thread_cpu,
        .want_sq = (c->driver == NUMIO_DRIVER_AUTO || c->driver == NUMIO_DRIVER_SQPOLL) &&
                   probe.has_sqpoll,
    };
    rc = nio_plan_create(handle->topology, &options, &handle->plan);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < handle->plan->node_count; i++)
        if (handle->plan->nodes[i].sq_place == NIO_SQ_SHARED ||
            handle->plan->nodes[i].sq_place == NIO_SQ_NONE) /* sqpoll can be forced even there */
            handle->sq_shares_core = true;
    rc = nio_driver_choose(c->driver, &probe, handle->plan->allowed_cpu_count,
                           handle->plan->cpu_quota, handle->sq_shares_core, reason, sizeof reason);
    if (rc < 0)
        return rc;
    handle->profile = (enum numio_driver)rc;
    handle->opcodes = probe.opcodes;
    nio_handle_add_reason(handle, reason);
    if (c->sq_thread_cpu >= 0 && handle->profile != NUMIO_DRIVER_SQPOLL)
        nio_handle_add_reason(handle, "sq_thread_cpu is not used: the driver has no SQ thread");
    if (handle->profile == NUMIO_DRIVER_SQPOLL)
        return 0;
    /* No SQ thread after all: none shares a core, and no core is kept free for it. */
    handle->sq_shares_core = false;
    if (!options.want_sq)
        return 0;
    nio_plan_destroy(handle->plan);
    handle->plan = NULL;
    options.want_sq = false;
    options.sq_thread_cpu = -1;
    return nio_plan_create(handle->topology, &options, &handle->plan);
}

/* Says where the blocking pool has no CPUs of its own. */
static void check_pool_cpus(struct numio_handle *handle)
{
    for (unsigned i = 0; i < handle->plan->node_count; i++)
        if (handle->plan->nodes[i].bind_cpu_count <= handle->plan->nodes[i].worker_count &&
            !handle->config.blocking_on_worker_cpus)
            nio_handle_add_reason(handle, "every CPU has a worker: the blocking pool shares them");
}

static int build_node(struct numio_handle *handle, unsigned index)
{
    const struct nio_plan_node *plan = &handle->plan->nodes[index];
    struct nio_node_arena_options options = { .os_node = plan->os_node,
                                              .is_strict = handle->config.memory_strict,
                                              .use_huge_pages = handle->config.huge_pages };
    struct nio_node_arena *arena;
    int rc = nio_node_arena_create(&options, &arena);
    if (rc < 0)
        return rc;
    struct nio_node *node = nio_node_arena_alloc(arena, sizeof *node, NIO_CACHELINE);
    if (!node) {
        nio_node_arena_destroy(arena);
        return -ENOMEM;
    }
    memset(node, 0, sizeof *node);
    node->arena = arena;
    node->handle = handle;
    node->index = index;
    node->plan = plan;
    node->worker_count = plan->worker_count;
    node->workers = &handle->workers[plan->worker_first];
    node->leader_ring_fd = -1;
    handle->nodes[index] = node;
    handle->node_count = index + 1;
    for (unsigned reach = 0; reach < NIO_REACH_COUNT; reach++) {
        nio_inject_init(&node->inject[reach]);
        nio_inject_init(&node->overflow[reach]);
        for (unsigned i = 0; i < NIO_ARRAY_LEN(node->ranked); i++)
            nio_inject_init(&node->ranked[i][reach]);
    }
    nio_idle_init(&node->idle, plan->worker_count);
    atomic_init(&node->guests, 0);
    atomic_init(&node->watcher, 0);
    atomic_init(&node->resting, 0);
    atomic_init(&node->has_asked, false);
    nio_lock_init(&node->foreign.lock, NIO_RANK_OWNED);
    atomic_init(&node->foreign.spawned, 0);
    rc = nio_stripe_init(&node->foreign.stripe, arena, handle->plan->worker_count + index);
    if (rc < 0)
        return rc;
    struct nio_stack_depot_options stacks = { .stack_bytes = handle->config.stack_bytes };
    rc = nio_stack_depot_create(arena, &stacks, &node->stacks);
    if (rc < 0)
        return rc;
    nio_handle_add_reason(handle, nio_node_arena_reason(arena));
    nio_handle_add_reason(handle, nio_node_arena_malloc_reason(arena));
    nio_handle_add_reason(handle, nio_stack_depot_reason(node->stacks));
    return 0;
}

static int build_worker(struct numio_handle *handle, unsigned index, uint64_t *seed)
{
    const struct nio_plan_worker *plan = &handle->plan->workers[index];
    struct nio_node *node = handle->nodes[plan->node];
    struct nio_worker *worker = nio_node_arena_alloc(node->arena, sizeof *worker, NIO_CACHELINE);
    if (!worker)
        return -ENOMEM;
    memset(worker, 0, sizeof *worker);
    handle->workers[index] = worker;
    handle->worker_count = index + 1;
    worker->handle = handle;
    worker->node = node;
    worker->index = index;
    worker->index_in_node = index - node->plan->worker_first;
    worker->plan = plan;
    worker->has_peers = handle->plan->worker_count > 1;
    atomic_init(&worker->order, 0);
    worker->can_spin = !handle->plan->is_oversubscribed;
    worker->is_inject_tuned = handle->config.inject_interval == 0;
    worker->inject_interval =
        worker->is_inject_tuned ? NIO_INJECT_INTERVAL : handle->config.inject_interval;
    worker->is_driver_tuned = handle->config.driver_interval == 0;
    worker->driver_interval =
        worker->is_driver_tuned ? NIO_DRIVER_INTERVAL : handle->config.driver_interval;
    worker->inject_countdown = worker->inject_span = worker->inject_interval;
    worker->driver_span = nio_first_span(worker->driver_interval, worker->is_driver_tuned);
    worker->driver_countdown = worker->driver_span;
    worker->flush_credit = NIO_FLUSH_CREDIT;
    worker->flush_cost = NIO_FLUSH_COST;
    worker->here = &worker->loop;
    worker->lifo_watch.suspect = worker->queue_watch.suspect = UINT32_MAX;
    worker->far_watch.suspect = UINT32_MAX;
    nio_rng_init(&worker->rng, seed);
    nio_slab_outbox_init(&worker->outbox);
    nio_stack_pool_init(&worker->stack_pool, node->stacks);
    nio_lifo_init(&worker->lifo);
    nio_mpsc_init(&worker->mailbox);
    nio_parker_init(&worker->parker);
    for (unsigned which = 0; which < NIO_QUEUE_COUNT; which++)
        nio_local_queue_init(&worker->queues[which]);
    return nio_stripe_init(&worker->stripe, node->arena, index);
}

/* Who shares a last-level cache with whom, as bitmaps of the node. */
static void link_llc_peers(struct numio_handle *handle)
{
    for (unsigned i = 0; i < handle->worker_count; i++) {
        struct nio_worker *worker = handle->workers[i];
        for (unsigned k = 0; k < worker->node->worker_count; k++)
            if (worker->node->workers[k]->plan->llc == worker->plan->llc)
                worker->llc_peers[k / 64] |= UINT64_C(1) << (k % 64);
    }
}

static int build_parts(struct numio_handle *handle)
{
    int rc = make_fork_guard(handle);
    if (rc == 0)
        rc = make_plan(handle);
    if (rc < 0)
        return rc;
    if (handle->plan->worker_count >= NIO_STRIPE_FOREIGN)
        return nio_error(-E2BIG, "workers: %u is too many", handle->plan->worker_count);
    handle->report = nio_zalloc(sizeof *handle->report);
    handle->nodes = nio_zalloc_array(handle->plan->node_count, sizeof(struct nio_node *));
    handle->workers = nio_zalloc_array(handle->plan->worker_count, sizeof(struct nio_worker *));
    if (!handle->report || !handle->nodes || !handle->workers ||
        nio_seats_init(&handle->seats, handle->plan) < 0)
        return -ENOMEM;
    nio_lock_init(&handle->report->lock, NIO_RANK_END);
    const char *reason;
    for (unsigned i = 0; (reason = numio_topology_reason(handle->topology, i)); i++)
        nio_handle_add_reason(handle, reason);
    for (unsigned i = 0; (reason = nio_plan_reason(handle->plan, i)); i++)
        nio_handle_add_reason(handle, reason);
    if (handle->config.huge_pages)
        nio_handle_add_reason(handle, nio_huge_pages_objection(""));
    for (unsigned i = 0; i < handle->plan->node_count; i++)
        if ((rc = build_node(handle, i)) < 0)
            return rc;
    uint64_t seed = handle->config.rng_seed;
    for (unsigned i = 0; i < handle->plan->worker_count; i++)
        if ((rc = build_worker(handle, i, &seed)) < 0)
            return rc;
    link_llc_peers(handle);
    check_pool_cpus(handle);
    return nio_blocking_create(handle, &handle->blocking);
}

int nio_handle_build(const struct numio_config *config, struct numio_handle **ret_handle)
{
    struct numio_handle *handle = nio_zalloc(sizeof *handle);
    if (!handle)
        return nio_error(-ENOMEM, "runtime: no memory for the handle");
    handle->schedule.schedule = nio_schedule;
    handle->schedule.release = nio_release;
    handle->config = *config;
    (void)snprintf(handle->name, sizeof handle->name, "%s", config->name); /* checked to fit */
    handle->config.name = handle->name;
    const struct numio_hooks *hooks = &config->hooks;
    handle->has_hooks =
        hooks->on_task_spawn || hooks->before_poll || hooks->after_poll || hooks->on_task_terminate;
    nio_lock_init(&handle->end_lock, NIO_RANK_END);
    nio_timeline_init(&handle->timeline);
    atomic_init(&handle->refs, 1);
    atomic_init(&handle->phase, NIO_PHASE_RUNNING);
    int rc = build_parts(handle);
    if (rc < 0) {
        if (rc == -ENOMEM)
            (void)nio_error(rc, "runtime: no memory for its nodes and workers");
        nio_blocking_destroy(handle->blocking);
        handle->blocking = NULL;
        nio_handle_free(handle);
        return rc;
    }
    *ret_handle = handle;
    return 0;
}

/* Cells that are still held have kept the handle until now; their memory goes with the arena. */
static void free_stripe(struct nio_stripe *stripe)
{
    nio_slab_fini(&stripe->slab);
}

void nio_handle_free(struct numio_handle *handle)
{
    for (unsigned i = 0; i < handle->worker_count; i++) {
        struct nio_worker *worker = handle->workers[i];
        free_stripe(&worker->stripe);
        nio_stack_pool_fini(&worker->stack_pool);
        /* relaxed: its thread has ended */
        nio_free(atomic_load_explicit(&worker->recv_reason, memory_order_relaxed));
        nio_node_arena_free(worker->node->arena, worker, sizeof *worker, NIO_CACHELINE);
    }
    for (unsigned i = 0; i < handle->node_count; i++) {
        struct nio_node *node = handle->nodes[i];
        struct nio_node_arena *arena = node->arena;
        if (node->foreign.stripe.slab.arena)
            free_stripe(&node->foreign.stripe);
        nio_stack_depot_destroy(node->stacks);
        nio_registration_destroy(node->registration);
        nio_io_buffer_free(arena, node->registered.base,
                           nio_align_up(handle->config.registered_bytes, NIO_REGISTERED_ALIGNMENT),
                           NIO_REGISTERED_ALIGNMENT);
        nio_page_pool_fini(&node->registered);
        nio_node_arena_free(arena, node, sizeof *node, NIO_CACHELINE);
        nio_node_arena_destroy(arena);
    }
    for (unsigned i = 0; i < handle->reason_count; i++)
        nio_free((char *)(uintptr_t)handle->reasons[i]);
    nio_free(handle->report);
    nio_free(handle->nodes);
    nio_free(handle->workers);
    nio_seats_fini(&handle->seats, handle->plan);
    nio_plan_destroy(handle->plan);
    numio_topology_destroy(handle->topology);
    if (handle->fork_guard)
        (void)munmap((void *)(uintptr_t)handle->fork_guard,
                     (size_t)sysconf(_SC_PAGESIZE)); /* our own mapping */
    nio_free(handle);
}
