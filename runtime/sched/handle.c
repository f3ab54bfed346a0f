/* SPDX-License-Identifier: MIT */
/* Handles: references, the current handle of a thread, and what a runtime says about itself. */
#include "runtime/sched/handle.h"

#include <errno.h>
#include <string.h>

#include "alloc/arena_audit.h"
#include "alloc/io_buffer.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/sched/worker.h"

static _Thread_local struct numio_handle *entered;

void nio_handle_ref(struct numio_handle *handle, uint64_t count)
{
    /* relaxed: the caller holds a reference already */
    (void)atomic_fetch_add_explicit(&handle->refs, count, memory_order_relaxed);
}

void nio_handle_unref(struct numio_handle *handle, uint64_t count)
{
    /* [HR1] acq_rel: whoever drops the last reference sees what all others did.  Pairs with
     * itself, [HR1], in the other threads. */
    if (atomic_fetch_sub_explicit(&handle->refs, count, memory_order_acq_rel) == count)
        nio_handle_free(handle);
}

struct numio_handle *numio_handle_ref(struct numio_handle *handle)
{
    nio_handle_ref(handle, 1);
    return handle;
}

void numio_handle_unref(struct numio_handle *handle)
{
    if (handle)
        nio_handle_unref(handle, 1);
}

NIO_CORO_THREAD_ACCESSOR struct numio_handle *numio_handle_current(void)
{
    nio_coro_thread_barrier();
    struct nio_worker *worker = nio_worker_current();
    return worker ? worker->handle : entered;
}

NIO_CORO_THREAD_ACCESSOR struct numio_handle *numio_handle_enter(struct numio_handle *handle)
{
    nio_coro_thread_barrier();
    struct numio_handle *before = entered;
    entered = handle;
    return before;
}

struct numio_handle *nio_handle_resolve(struct numio_handle *handle)
{
    return handle ? handle : numio_handle_current();
}

int nio_refuse_forked_child(void)
{
    return nio_error(-EPERM, "the runtime belongs to the parent process; its workers and rings do "
                             "not exist in a forked child: create a runtime here");
}

int numio_current_worker(void)
{
    struct nio_worker *worker = nio_worker_current();
    return worker ? (int)worker->index : nio_error(-EINVAL, "not on a worker's thread");
}

int numio_current_node(void)
{
    struct nio_worker *worker = nio_worker_current();
    return worker ? (int)worker->node->index : nio_error(-EINVAL, "not on a worker's thread");
}

int numio_task_current(struct numio_task_meta *ret_meta)
{
    struct nio_worker *worker = nio_worker_current();
    /* relaxed: written by this thread */
    struct nio_task *task =
        worker ? atomic_load_explicit(&worker->current, memory_order_relaxed) : NULL;
    if (!task)
        return nio_error(-EINVAL, "numio_task_current: not called from a task");
    *ret_meta = nio_task_meta(task);
    return 0;
}

/* The handle, if it is one and `index` is below `count`. */
static int resolve_index(struct numio_handle **handle, unsigned index, bool is_worker)
{
    *handle = nio_handle_resolve(*handle);
    if (!*handle)
        return nio_error(-EINVAL, "no handle, and this thread has not entered one");
    unsigned count = is_worker ? (*handle)->worker_count : (*handle)->node_count;
    if (index >= count)
        return nio_error(-EINVAL, "index is %u, the runtime has %u", index, count);
    return 0;
}

int numio_worker_metrics(struct numio_handle *handle, unsigned index,
                         struct numio_worker_metrics *ret_metrics)
{
    int rc = resolve_index(&handle, index, true);
    if (rc < 0)
        return rc;
    const struct nio_worker *worker = handle->workers[index];
    const struct nio_worker_counters *c = &worker->counters;
    struct nio_driver_counters io = { 0 };
    nio_lock_acquire(&handle->end_lock); /* the driver goes under it */
    if (worker->driver)
        nio_driver_counters(worker->driver, &io);
    else
        io = worker->final_io;
    nio_lock_release(&handle->end_lock);
    *ret_metrics = (struct numio_worker_metrics){
        .size = sizeof *ret_metrics,
        .worker = index,
        .node = worker->node->index,
        .cpu = worker->plan->cpu,
        .polls = nio_counter(&c->polls),
        .spawned = nio_counter(&c->spawned),
        .completed = nio_counter(&c->completed),
        .stolen_near = nio_counter(&c->stolen_near),
        .stolen_far = nio_counter(&c->stolen_far),
        .wakes_sent = nio_counter(&c->wakes_sent),
        .wakes_far = nio_counter(&c->wakes_far),
        .parks = nio_counter(&c->parks),
        .spin_wins = nio_counter(&c->spin_wins),
        .inject_taken = nio_counter(&c->inject_taken),
        .overflowed = nio_counter(&c->overflowed),
        .remote_frees = nio_counter(&c->remote_frees),
        .sqes = io.sqes,
        .cqes = io.cqes,
        .enters = io.enters,
        .bytes_in = io.bytes_in,
        .bytes_out = io.bytes_out,
        .cqes_reaped_for_others = io.reaped_for,
        .cqes_polled = io.polled,
        .polls_latency = nio_counter(&worker->counters.ranked_polls[NIO_CLASS_LATENCY - 1]),
        .polls_background = nio_counter(&worker->counters.ranked_polls[NIO_CLASS_BACKGROUND - 1]),
    };
    return 0;
}

int numio_worker_status(struct numio_handle *handle, unsigned index,
                        struct numio_worker_status *ret_status)
{
    int rc = resolve_index(&handle, index, true);
    if (rc < 0)
        return rc;
    const struct nio_worker *worker = handle->workers[index];
    struct nio_seat_record seat = nio_seat_of_worker(&handle->seats, index);
    *ret_status = (struct numio_worker_status){ .node = worker->node->index,
                                                .llc = worker->plan->llc,
                                                .cpu = worker->plan->cpu,
                                                .bind_cpu = worker->plan->bind_cpu,
                                                .tid = worker->tid,
                                                .placement = nio_whereabouts_name(seat.now.where),
                                                .is_retired = seat.now.is_retired,
                                                .runs_on_cpu = seat.now.cpu,
                                                .moves = seat.moves };
    return 0;
}

int numio_node_status(struct numio_handle *handle, unsigned index,
                      struct numio_node_status *ret_status)
{
    static const char *const places[] = { "none", "sibling", "reserved", "shared", "forced" };
    int rc = resolve_index(&handle, index, false);
    if (rc < 0)
        return rc;
    const struct nio_plan_node *plan = handle->nodes[index]->plan;
    struct nio_seat_record seat = nio_seat_of_sq(&handle->seats, index);
    bool has_sq = handle->profile == NUMIO_DRIVER_SQPOLL;
    *ret_status = (struct numio_node_status){
        .worker_first = plan->worker_first,
        .worker_count = plan->worker_count,
        .package = plan->package,
        .os_node = nio_node_arena_os_node(handle->nodes[index]->arena),
        .sq_place = !has_sq                         ? "none"
                    : plan->sq_place == NIO_SQ_NONE ? "shared" /* forced on one CPU */
                                                    : places[plan->sq_place],
        .sq_cpu = has_sq ? plan->sq_cpu : -1,
        .sq_tid = handle->nodes[index]->sq_tid,
        .sq_placement = nio_whereabouts_name(seat.now.where),
        .sq_moves = seat.moves,
        .memory_bytes = plan->memory_bytes,
    };
    return 0;
}

int numio_status(struct numio_handle *handle, struct numio_status *ret_status)
{
    static const char *const drivers[] = { "auto", "sqpoll", "defer", "epoll", "iopoll" };
    static const char *const guards[] = { "auto", "guard-install", "mprotect", "canary" };
    static const char *const idles[] = { "balanced", "spin", "park" };
    int rc = resolve_index(&handle, 0, false);
    if (rc < 0)
        return rc;
    *ret_status = (struct numio_status){
        .size = sizeof *ret_status,
        .workers = handle->worker_count,
        .nodes = handle->node_count,
        .driver = drivers[handle->profile],
        .idle = idles[handle->config.idle],
        .stack_guard = guards[nio_stack_depot_guard(handle->nodes[0]->stacks)],
        .is_emulated = handle->plan->is_emulated,
        .napi_busy_poll_us = handle->config.napi_busy_poll_us,
        .cpu_dma_latency_us = handle->config.cpu_dma_latency_us,
        .clock = nio_clock_reason() ? "system" : "counter",
    };
    return 0;
}

/* What has become true since the start: workers may have made fewer receive buffers. */
static const char *recv_reason(const struct numio_handle *handle, unsigned *index)
{
    for (unsigned i = 0; i < handle->worker_count; i++) {
        /* [SR1] acquire: sees the sentence. */
        const char *reason =
            atomic_load_explicit(&handle->workers[i]->recv_reason, memory_order_acquire);
        if (reason && (*index)-- == 0)
            return reason;
    }
    return NULL;
}

/* Likewise: stacks may have run out of guard pages. */
static const char *stack_reason(const struct numio_handle *handle)
{
    for (unsigned i = 0; i < handle->node_count; i++) {
        const char *reason = nio_stack_depot_reason(handle->nodes[i]->stacks);
        bool is_known = !reason;
        for (unsigned k = 0; k < handle->reason_count && !is_known; k++)
            is_known = strcmp(handle->reasons[k], reason) == 0;
        if (!is_known)
            return reason;
    }
    return NULL;
}

const char *numio_status_reason(struct numio_handle *handle, unsigned index)
{
    handle = nio_handle_resolve(handle);
    if (!handle)
        return NULL;
    if (index < handle->reason_count)
        return handle->reasons[index];
    index -= handle->reason_count;
    const char *late = stack_reason(handle);
    if (late && index-- == 0)
        return late;
    if ((late = recv_reason(handle, &index)))
        return late;
    late = handle->config.clock == NUMIO_CLOCK_SYSTEM ? NULL : nio_clock_reason();
    if (late && index-- == 0)
        return late;
    return nio_seats_reason(&handle->seats, handle->plan, index);
}

int numio_arena_audit(struct numio_handle *handle, unsigned index,
                      struct numio_arena_audit *ret_audit)
{
    int rc = resolve_index(&handle, index, false);
    return rc < 0 ? rc : nio_node_arena_audit(handle->nodes[index]->arena, ret_audit);
}

/* The node meant by `node`, NUMIO_NODE_ANY being the caller's. */
static struct nio_node *node_of(struct numio_handle *handle, int node)
{
    handle = nio_handle_resolve(handle);
    if (!handle || node >= (int)handle->node_count)
        return NULL;
    int here = numio_current_node();
    if (node < 0)
        node = here >= 0 ? here : 0;
    return handle->nodes[node];
}

void *numio_io_buffer_alloc(struct numio_handle *handle, int node, size_t bytes)
{
    struct nio_node *home = node_of(handle, node);
    if (!home)
        return NULL;
    void *registered = nio_page_pool_alloc(&home->registered, bytes);
    return registered ? registered : nio_io_buffer_alloc(home->arena, bytes, 0);
}

void numio_io_buffer_free(struct numio_handle *handle, int node, void *buffer, size_t bytes)
{
    struct nio_node *home = node_of(handle, node);
    if (home && buffer && !nio_page_pool_free(&home->registered, buffer, bytes))
        nio_io_buffer_free(home->arena, buffer, bytes, 0);
}
