/* SPDX-License-Identifier: MIT */
/* Opening and closing; what the header says of frames. */
#include "runtime/xdp/endpoint.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <numio/io.h>

#include "alloc/io_buffer.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/base/versioned.h"
#include "runtime/sched/await.h"

enum { BUSY_TRIES = 200 };
static const uint64_t busy_ns = 1000000;

/* ---- frames ------------------------------------------------------------------------------- */

void nio_xdp_move(struct numio_xdp *xdp, uint32_t index, enum nio_frame_state from,
                  enum nio_frame_state to)
{
    NIO_ASSERT(index < xdp->frames && xdp->states[index] == from);
    xdp->states[index] = (uint8_t)to;
    xdp->counts[from]--;
    xdp->counts[to]++;
}

uint32_t nio_xdp_pop_free(struct numio_xdp *xdp)
{
    return xdp->free[xdp->counts[NIO_FRAME_FREE] - 1]; /* the caller moves it */
}

void nio_xdp_push_free(struct numio_xdp *xdp, uint32_t index)
{
    xdp->free[xdp->counts[NIO_FRAME_FREE] - 1] = index; /* the caller has moved it */
}

void nio_xdp_reap(struct numio_xdp *xdp)
{
    uint32_t first = 0, count;
    if (!xdp->is_bypass)
        return;
    count = xsk_ring_cons__peek(&xdp->completion, xdp->frames, &first);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = *xsk_ring_cons__comp_addr(&xdp->completion, first + i);
        uint32_t index = (uint32_t)(at / xdp->frame_bytes);
        nio_xdp_move(xdp, index, NIO_FRAME_SENDING, NIO_FRAME_FREE);
        nio_xdp_push_free(xdp, index);
    }
    if (count > 0)
        xsk_ring_cons__release(&xdp->completion, count);
}

static void fill(struct numio_xdp *xdp)
{
    uint32_t wanted = xdp->frames / 2, have = xdp->counts[NIO_FRAME_FILLING], first = 0;
    uint32_t count = have < wanted ? wanted - have : 0;
    if (count > xdp->counts[NIO_FRAME_FREE])
        count = xdp->counts[NIO_FRAME_FREE];
    if (count == 0)
        return;
    NIO_ASSERT(xsk_ring_prod__reserve(&xdp->fill, count, &first) == count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = nio_xdp_pop_free(xdp);
        nio_xdp_move(xdp, index, NIO_FRAME_FREE, NIO_FRAME_FILLING);
        *xsk_ring_prod__fill_addr(&xdp->fill, first + i) = (uint64_t)index * xdp->frame_bytes;
    }
    xsk_ring_prod__submit(&xdp->fill, count);
    if (NIO_UNLIKELY(xsk_ring_prod__needs_wakeup(&xdp->fill))) {
        xdp->stats.kicks++;
        (void)recvfrom(xdp->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL); /* only to be looked at */
    }
}

void nio_xdp_refill(struct numio_xdp *xdp)
{
    if (xdp->is_bypass)
        fill(xdp);
    struct nio_xdp_waiter *next;
    uint32_t left = xdp->counts[NIO_FRAME_FREE];
    for (struct nio_xdp_waiter *at = xdp->waiters; at && left > 0; at = next) {
        next = at->next;
        if (!at->wants_frame)
            continue;
        left--;
        nio_source_end(xdp->worker, &at->source, 0);
    }
}

int nio_xdp_kick(struct numio_xdp *xdp)
{
    xdp->is_kick_due = false;
    while (xsk_ring_prod__needs_wakeup(&xdp->tx)) { /* bounded: each turn takes a frame */
        uint32_t before = *xdp->tx.consumer;
        xdp->stats.kicks++;
        if (sendto(xdp->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0)
            return 0;
        int error = errno;
        nio_xdp_reap(xdp);
        if (error == EINTR || *xdp->tx.consumer != before)
            continue; /* a batch was taken, or one that the device has dropped */
        xdp->is_kick_due = true;
        return error == ENOBUFS || error == EBUSY ? -EAGAIN : -error;
    }
    return 0;
}

/* ---- calls -------------------------------------------------------------------------------- */

static int refuse_elsewhere(const struct numio_xdp *xdp, const char *call)
{
    if (!nio_co_current())
        return nio_error(-EINVAL, "%s: not called from a coroutine", call);
    return nio_error(-EXDEV,
                     "%s: the endpoint is worker %u's; spawn the coroutine with "
                     "NUMIO_AFFINITY_WORKER there",
                     call, xdp->worker->index);
}

int nio_xdp_enter(struct numio_xdp *xdp, const char *call)
{
    const struct nio_co *co = nio_co_current();
    const struct nio_worker *worker = nio_worker_current();
    if (NIO_UNLIKELY(!co || worker != xdp->worker ||
                     nio_task_affinity(&co->task) != NUMIO_AFFINITY_WORKER))
        return refuse_elsewhere(xdp, call);
    if (NIO_UNLIKELY(!nio_is_own_process(worker->handle)))
        return nio_refuse_forked_child();
    if (NIO_UNLIKELY(xdp->is_closed))
        return nio_error(-ESHUTDOWN, "%s: the endpoint is closed", call);
    xdp->calls++;
    return 0;
}

static void free_memory(struct numio_xdp *xdp)
{
    nio_io_buffer_free(xdp->arena, xdp->memory, xdp->memory_bytes, 1);
    nio_free(xdp->states);
    nio_free(xdp->free);
    nio_handle_unref(xdp->handle, 1);
    nio_free(xdp);
}

static void free_if_unused(struct numio_xdp *xdp)
{
    if (xdp->is_closed && xdp->calls == 0 && xdp->counts[NIO_FRAME_OUT] == 0)
        free_memory(xdp);
}

void nio_xdp_leave(struct numio_xdp *xdp)
{
    xdp->calls--;
    free_if_unused(xdp);
}

int nio_xdp_wait(struct numio_xdp *xdp, struct nio_xdp_waiter *waiter)
{
    waiter->next = xdp->waiters;
    waiter->link = &xdp->waiters;
    if (waiter->next)
        waiter->next->link = &waiter->next;
    xdp->waiters = waiter;
    int64_t rc = nio_source_await(&waiter->source);
    *waiter->link = waiter->next;
    if (waiter->next)
        waiter->next->link = waiter->link;
    int stop = nio_co_stop(nio_co_current());
    if (stop)
        return stop;
    if (xdp->is_closed)
        return -ESHUTDOWN;
    return rc >= 0 || rc == -ECANCELED || rc == -EINTR || rc == -ETIME ? 0 : (int)rc;
}

/* ---- opening ------------------------------------------------------------------------------ */

static int open_socket(struct numio_xdp *xdp)
{
    struct numio_xdp_device *device = xdp->device;
    const struct nio_xsk_library *library = &device->library;
    struct xsk_umem_config umem = { .fill_size = xdp->frames,
                                    .comp_size = xdp->frames,
                                    .frame_size = xdp->frame_bytes };
    struct xsk_socket_config config = { .rx_size = xdp->frames,
                                        .tx_size = xdp->frames,
                                        .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD };
    config.bind_flags = XDP_USE_NEED_WAKEUP;
    if (device->mode == NUMIO_XDP_GENERIC)
        config.bind_flags |= XDP_COPY;
    int rc = library->umem_create(&xdp->umem, xdp->memory, xdp->memory_bytes, &xdp->fill,
                                  &xdp->completion, &umem);
    if (rc < 0)
        return nio_error(rc, "xdp: registering %zu bytes of memory: %s%s", xdp->memory_bytes,
                         strerror(-rc),
                         rc == -ENOBUFS || rc == -ENOMEM ? "; raise RLIMIT_MEMLOCK" : "");
    rc = library->socket_create(&xdp->socket, device->interface, xdp->queue, xdp->umem, &xdp->rx,
                                &xdp->tx, &xdp->fill, &xdp->completion, &config);
    if (rc < 0)
        return nio_error(rc, "xdp: a socket on queue %u of %s: %s", xdp->queue, device->interface,
                         strerror(-rc));
    xdp->fd = library->socket_fd(xdp->socket);
    uint32_t queue = xdp->queue;
    rc = library->map_update(device->filter.map_fd, &queue, &xdp->fd, 0);
    return rc < 0 ? nio_error(rc, "xdp: directing queue %u to its socket: %s", queue, strerror(-rc))
                  : 0;
}

static void close_socket(struct numio_xdp *xdp)
{
    const struct nio_xsk_library *library = &xdp->device->library;
    uint32_t queue = xdp->queue;
    if (xdp->socket) {
        (void)library->map_delete(xdp->device->filter.map_fd, &queue); /* it goes with the socket */
        library->socket_delete(xdp->socket);
    }
    if (xdp->umem)
        (void)library->umem_delete(xdp->umem); /* nothing refers to it */
    if (!xdp->is_bypass && xdp->fd >= 0 && !xdp->socket)
        (void)close(xdp->fd); /* nothing to lose */
    xdp->socket = NULL;
    xdp->umem = NULL;
    xdp->fd = -1;
}

/* AF_XDP if the device has it, else an ordinary socket. */
static int open_either(struct numio_xdp *xdp)
{
    struct numio_xdp_device *device = xdp->device;
    if (device->mode != NUMIO_XDP_SOCKET) {
        int rc = open_socket(xdp);
        for (unsigned i = 0; rc == -EBUSY && i < BUSY_TRIES && numio_sleep_ns(busy_ns) == 0; i++) {
            close_socket(xdp); /* the kernel frees a queue some time after its last socket */
            rc = open_socket(xdp);
        }
        xdp->is_bypass = rc == 0;
        if (rc == 0)
            fill(xdp);
        if (rc == 0 || device->is_required)
            return rc;
        close_socket(xdp);
        (void)snprintf(xdp->reason, sizeof xdp->reason, "%s",
                       numio_strerror_detail()); /* may be cut */
    }
    xdp->fd = nio_xdp_device_socket(device);
    return xdp->fd < 0 ? xdp->fd : 0;
}

static int make_memory(struct numio_xdp *xdp)
{
    xdp->states = nio_zalloc_array(xdp->frames, sizeof *xdp->states);
    xdp->free = nio_zalloc_array(xdp->frames, sizeof *xdp->free);
    xdp->memory_bytes = (size_t)xdp->frames * xdp->frame_bytes;
    xdp->memory = nio_io_buffer_alloc(xdp->arena, xdp->memory_bytes, 1);
    if (!xdp->states || !xdp->free || !xdp->memory)
        return nio_error(-ENOMEM, "xdp: no memory for %u frames of %u bytes", xdp->frames,
                         xdp->frame_bytes);
    memset(xdp->memory, 0, xdp->memory_bytes); /* touched here, on the worker's node */
    for (uint32_t i = 0; i < xdp->frames; i++)
        xdp->free[i] = xdp->frames - 1 - i;
    xdp->counts[NIO_FRAME_FREE] = xdp->frames;
    return 0;
}

int numio_xdp_open(struct numio_xdp_device *device, unsigned queue, struct numio_xdp **ret_xdp)
{
    const struct nio_co *co = nio_co_current();
    struct nio_worker *worker = nio_worker_current();
    if (!co)
        return nio_error(-EINVAL, "numio_xdp_open: not called from a coroutine");
    if (!nio_is_own_process(worker->handle))
        return nio_refuse_forked_child();
    if (nio_task_affinity(&co->task) != NUMIO_AFFINITY_WORKER)
        return nio_error(-EXDEV, "numio_xdp_open: an endpoint belongs to one worker; spawn the "
                                 "coroutine with NUMIO_AFFINITY_WORKER");
    int rc = nio_xdp_device_take(device, queue);
    if (rc < 0)
        return rc;
    struct numio_xdp *xdp = nio_zalloc(sizeof *xdp);
    if (!xdp) {
        nio_xdp_device_give(device, queue);
        return nio_error(-ENOMEM, "xdp: no memory for an endpoint");
    }
    xdp->device = device;
    xdp->worker = worker;
    xdp->handle = worker->handle;
    xdp->arena = worker->node->arena;
    xdp->queue = queue;
    xdp->fd = -1;
    xdp->frames = device->frames;
    xdp->frame_bytes = device->frame_bytes;
    xdp->local = device->local;
    /* what fits into a packet: less the headers of IP and UDP */
    xdp->payload_max = device->mtu - (nio_packet_head_bytes(device->local.family) - 14);
    nio_handle_ref(xdp->handle, 1);
    rc = make_memory(xdp);
    if (rc == 0)
        rc = open_either(xdp);
    if (rc < 0) {
        close_socket(xdp);
        free_memory(xdp);
        nio_xdp_device_give(device, queue);
        return rc;
    }
    *ret_xdp = xdp;
    return 0;
}

/* ---- closing ------------------------------------------------------------------------------ */

/* Whether the calling thread may touch an endpoint outside of the calls that suspend. */
static bool is_owner(const struct numio_xdp *xdp)
{
    return nio_worker_current() == xdp->worker || nio_phase(xdp->handle) == NIO_PHASE_ENDED;
}

int numio_xdp_close(struct numio_xdp *xdp)
{
    if (!is_owner(xdp))
        return nio_error(-EXDEV, "numio_xdp_close: the endpoint is worker %u's",
                         xdp->worker->index);
    if (xdp->is_closed)
        return nio_error(-ESHUTDOWN, "numio_xdp_close: the endpoint is closed");
    xdp->is_closed = true;
    for (struct nio_xdp_waiter *at = xdp->waiters; at; at = at->next)
        nio_source_end(xdp->worker, &at->source, -ESHUTDOWN);
    close_socket(xdp);
    nio_xdp_device_give(xdp->device, xdp->queue);
    int left = (int)xdp->counts[NIO_FRAME_OUT];
    free_if_unused(xdp);
    return left;
}

int numio_xdp_release(struct numio_xdp *xdp, struct numio_xdp_frame *frame)
{
    if (NIO_UNLIKELY(!is_owner(xdp)))
        return nio_error(-EXDEV, "numio_xdp_release: the endpoint is worker %u's",
                         xdp->worker->index);
    if (NIO_UNLIKELY(!frame->bytes || frame->_index >= xdp->frames ||
                     xdp->states[frame->_index] != NIO_FRAME_OUT))
        return nio_error(-EINVAL, "numio_xdp_release: the frame is not out: it was released or "
                                  "sent before");
    frame->bytes = NULL;
    nio_xdp_move(xdp, frame->_index, NIO_FRAME_OUT, NIO_FRAME_FREE);
    nio_xdp_push_free(xdp, frame->_index);
    if (NIO_LIKELY(!xdp->is_closed))
        nio_xdp_refill(xdp);
    else
        free_if_unused(xdp);
    return 0;
}

/* ---- what it says of itself --------------------------------------------------------------- */

const char *numio_xdp_reason(const struct numio_xdp *xdp)
{
    return xdp->reason[0] ? xdp->reason : numio_xdp_device_reason(xdp->device);
}

bool numio_xdp_is_bypass(const struct numio_xdp *xdp)
{
    return xdp->is_bypass;
}

int numio_xdp_stats(struct numio_xdp *xdp, struct numio_xdp_stats *ret_stats)
{
    int rc = nio_versioned_check("xdp statistics", ret_stats, ret_stats->size, sizeof *ret_stats);
    if (rc == 0)
        rc = nio_xdp_enter(xdp, "numio_xdp_stats");
    if (rc < 0)
        return rc;
    struct xdp_statistics kernel = { 0 };
    socklen_t bytes = sizeof kernel;
    if (xdp->is_bypass && getsockopt(xdp->fd, SOL_XDP, XDP_STATISTICS, &kernel, &bytes) != 0)
        rc = nio_error(-errno, "xdp: XDP_STATISTICS: %s", strerror(errno));
    size_t size = ret_stats->size;
    nio_xdp_reap(xdp);
    *ret_stats = xdp->stats;
    ret_stats->size = size;
    ret_stats->rx_dropped = kernel.rx_dropped;
    ret_stats->rx_no_frame = kernel.rx_fill_ring_empty_descs;
    ret_stats->rx_ring_full = kernel.rx_ring_full;
    ret_stats->rx_invalid = kernel.rx_invalid_descs;
    ret_stats->tx_invalid = kernel.tx_invalid_descs;
    ret_stats->frames = xdp->frames;
    ret_stats->frames_free = xdp->counts[NIO_FRAME_FREE];
    ret_stats->frames_filling = xdp->counts[NIO_FRAME_FILLING];
    ret_stats->frames_out = xdp->counts[NIO_FRAME_OUT];
    ret_stats->frames_sending = xdp->counts[NIO_FRAME_SENDING];
    nio_xdp_leave(xdp);
    return rc;
}
