/* SPDX-License-Identifier: MIT */
/* Receiving and sending: the calls that suspend. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>

#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/xdp/endpoint.h"
#include "runtime/xdp/neighbour.h"

enum { RESOLVE_TRIES = 4000 };              /* the kernel asks three times, a second apart */
static const uint64_t resolve_ns = 1000000; /* between two looks at the neighbour table */
static const uint64_t retry_ns = 50000;     /* until a device that takes no more is asked again */
static const uint64_t sending_ns = 100000;  /* completions have no event to poll for */
static const uint64_t frame_wait_ns = 1000000000; /* a release ends it before */

/* ---- receiving ---------------------------------------------------------------------------- */

/* Makes a frame of what the kernel received; false: it is no datagram to this endpoint. */
static bool take_one(struct numio_xdp *xdp, const struct xdp_desc *desc,
                     struct numio_xdp_frame *ret)
{
    struct nio_packet packet;
    uint32_t index = (uint32_t)(desc->addr / xdp->frame_bytes);
    uint8_t *bytes = xdp->memory + desc->addr;
    if (NIO_UNLIKELY(
            nio_packet_parse(bytes, desc->len, &xdp->local, xdp->device->verifies, &packet) < 0)) {
        xdp->stats.malformed++;
        nio_xdp_move(xdp, index, NIO_FRAME_FILLING, NIO_FRAME_FREE);
        nio_xdp_push_free(xdp, index);
        return false;
    }
    nio_xdp_move(xdp, index, NIO_FRAME_FILLING, NIO_FRAME_OUT);
    ret->bytes = bytes + packet.offset;
    ret->len = packet.len;
    ret->capacity = nio_xdp_room(xdp, index, ret->bytes);
    ret->peer = packet.from;
    ret->_index = index;
    return true;
}

/* What is there, up to `max`. */
static int64_t take(struct numio_xdp *xdp, struct numio_xdp_frame *ret_frames, unsigned max)
{
    uint32_t first = 0, taken = 0;
    uint32_t count = xsk_ring_cons__peek(&xdp->rx, max, &first);
    for (uint32_t i = 0; i < count; i++)
        taken += take_one(xdp, xsk_ring_cons__rx_desc(&xdp->rx, first + i), &ret_frames[taken]);
    if (count > 0)
        xsk_ring_cons__release(&xdp->rx, count);
    xdp->stats.received += taken;
    return taken;
}

/* Looks after what has nobody else to look after it. */
static void tend(struct numio_xdp *xdp)
{
    nio_xdp_reap(xdp);
    if (NIO_UNLIKELY(xdp->is_kick_due))
        nio_xdp_kick(xdp); /* if it fails it stays due */
    nio_xdp_refill(xdp);
}

static int wait_for_datagrams(struct numio_xdp *xdp)
{
    struct nio_xdp_waiter waiter = { .wants_frame = false };
    numio_op_poll_fd(&waiter.source.op, xdp->fd, POLLIN);
    waiter.source.word = xdp->is_bypass ? xdp->rx.producer : NULL;
    waiter.source.seen = xdp->rx.cached_cons;
    return nio_xdp_wait(xdp, &waiter);
}

static int wait_for_frame(struct numio_xdp *xdp)
{
    struct nio_xdp_waiter waiter = { .wants_frame = true };
    bool is_sending = xdp->counts[NIO_FRAME_SENDING] > 0;
    numio_op_timeout(&waiter.source.op, is_sending ? sending_ns : frame_wait_ns);
    waiter.source.word = xdp->is_bypass ? xdp->completion.producer : NULL;
    waiter.source.seen = xdp->completion.cached_cons;
    return nio_xdp_wait(xdp, &waiter);
}

static int64_t receive(struct numio_xdp *xdp, struct numio_xdp_frame *ret_frames, unsigned max)
{
    struct nio_co *co = nio_co_current();
    nio_co_charge(co);
    int rc = nio_co_stop(co);
    while (rc == 0) { /* until something comes, or somebody ends it */
        if (NIO_UNLIKELY(xdp->is_closed))
            return -ESHUTDOWN;
        int64_t count;
        if (NIO_LIKELY(xdp->is_bypass)) {
            count = take(xdp, ret_frames, max);
            tend(xdp);
        } else {
            count = nio_plain_recv(xdp, ret_frames, max);
        }
        if (count != 0)
            return count;
        bool has_room = xdp->is_bypass || xdp->counts[NIO_FRAME_FREE] > 0;
        rc = has_room ? wait_for_datagrams(xdp) : wait_for_frame(xdp);
    }
    return rc;
}

int64_t numio_xdp_recv(struct numio_xdp *xdp, struct numio_xdp_frame *ret_frames, unsigned max)
{
    int rc = nio_xdp_enter(xdp, "numio_xdp_recv");
    if (NIO_UNLIKELY(rc < 0))
        return rc;
    int64_t count =
        max > 0 ? receive(xdp, ret_frames, max) : nio_error(-EINVAL, "numio_xdp_recv: max is 0");
    nio_xdp_leave(xdp);
    return count;
}

/* ---- frames to send ----------------------------------------------------------------------- */

static int allocate(struct numio_xdp *xdp, struct numio_xdp_frame *ret_frame)
{
    int rc = nio_co_stop(nio_co_current());
    while (rc == 0) { /* until one is free, or somebody ends it */
        if (NIO_UNLIKELY(xdp->is_closed))
            return -ESHUTDOWN;
        if (NIO_UNLIKELY(xdp->counts[NIO_FRAME_FREE] == 0))
            tend(xdp);
        if (NIO_LIKELY(xdp->counts[NIO_FRAME_FREE] > 0)) {
            uint32_t index = nio_xdp_pop_free(xdp);
            nio_xdp_move(xdp, index, NIO_FRAME_FREE, NIO_FRAME_OUT);
            *ret_frame =
                (struct numio_xdp_frame){ .bytes = nio_xdp_base(xdp, index) + NIO_FRAME_PAYLOAD,
                                          ._index = index };
            ret_frame->capacity = nio_xdp_room(xdp, index, ret_frame->bytes);
            return 0;
        }
        rc = wait_for_frame(xdp);
    }
    return rc;
}

int numio_xdp_alloc(struct numio_xdp *xdp, struct numio_xdp_frame *ret_frame)
{
    int rc = nio_xdp_enter(xdp, "numio_xdp_alloc");
    if (NIO_UNLIKELY(rc < 0))
        return rc;
    rc = allocate(xdp, ret_frame);
    nio_xdp_leave(xdp);
    return rc;
}

/* ---- sending ------------------------------------------------------------------------------ */

static int check_frame(const struct numio_xdp *xdp, const struct numio_xdp_frame *frame)
{
    const uint8_t *bytes = frame->bytes;
    if (NIO_UNLIKELY(!bytes || frame->_index >= xdp->frames ||
                     xdp->states[frame->_index] != NIO_FRAME_OUT))
        return nio_error(-EINVAL, "numio_xdp_send: a frame is not out: it was released or sent "
                                  "before");
    const uint8_t *base = nio_xdp_base(xdp, frame->_index);
    if (NIO_UNLIKELY(bytes < base + NIO_PACKET_HEAD_MAX || bytes > base + xdp->frame_bytes))
        return nio_error(-EINVAL, "numio_xdp_send: the bytes of a frame lie outside of it");
    if (NIO_UNLIKELY(frame->len > nio_xdp_room(xdp, frame->_index, bytes)))
        return nio_error(-EMSGSIZE, "numio_xdp_send: %u bytes; a frame takes %u", frame->len,
                         nio_xdp_room(xdp, frame->_index, bytes));
    if (NIO_UNLIKELY(frame->peer.family != xdp->local.family))
        return nio_error(-EINVAL,
                         "numio_xdp_send: the peer is of another family (%u) than the "
                         "device",
                         frame->peer.family);
    if (NIO_UNLIKELY(xdp->is_bypass && !frame->peer.has_mac))
        return nio_error(-EDESTADDRREQ, "numio_xdp_send: the peer has no MAC address; "
                                        "numio_xdp_resolve() finds it");
    return 0;
}

/* Puts the frame on the ring, which has room for all. */
static void put(struct numio_xdp *xdp, struct numio_xdp_frame *frame)
{
    uint32_t at = 0;
    uint32_t head = nio_packet_build(frame->bytes, frame->len, &xdp->local, &frame->peer);
    NIO_ASSERT(xsk_ring_prod__reserve(&xdp->tx, 1, &at) == 1);
    *xsk_ring_prod__tx_desc(&xdp->tx, at) = (struct xdp_desc){
        .addr = (uint64_t)((const uint8_t *)frame->bytes - xdp->memory) - head,
        .len = frame->len + head,
    };
    nio_xdp_move(xdp, frame->_index, NIO_FRAME_OUT, NIO_FRAME_SENDING);
    frame->bytes = NULL;
}

static int wait_to_retry(struct numio_xdp *xdp)
{
    struct nio_xdp_waiter waiter = { .wants_frame = false };
    if (xdp->is_bypass)
        numio_op_timeout(&waiter.source.op, retry_ns);
    else
        numio_op_poll_fd(&waiter.source.op, xdp->fd, POLLOUT);
    return nio_xdp_wait(xdp, &waiter);
}

static int64_t send_bypass(struct numio_xdp *xdp, struct numio_xdp_frame *frames, unsigned count)
{
    unsigned sent = 0;
    int rc = 0;
    while (sent < count && (rc = check_frame(xdp, &frames[sent])) == 0)
        put(xdp, &frames[sent++]);
    if (sent == 0)
        return rc;
    xsk_ring_prod__submit(&xdp->tx, sent);
    xdp->stats.sent += sent;
    /* Until the device has them all.  An abort or a deadline leaves the rest to the calls that
     * follow. */
    while (NIO_UNLIKELY((rc = nio_xdp_kick(xdp)) == -EAGAIN))
        if (wait_to_retry(xdp) != 0)
            return sent;
    return rc < 0 ? nio_error(rc, "xdp: sending on %s: %s", xdp->device->interface, strerror(-rc))
                  : (int64_t)sent;
}

static int64_t send_plain(struct numio_xdp *xdp, struct numio_xdp_frame *frames, unsigned count)
{
    unsigned sent = 0;
    int rc = 0;
    while (sent < count && (rc = check_frame(xdp, &frames[sent])) == 0) {
        while ((rc = nio_plain_send(xdp, &frames[sent])) == -EAGAIN)
            if ((rc = wait_to_retry(xdp)) != 0)
                break;
        if (rc != 0)
            break;
        xdp->stats.sent++;
        rc = numio_xdp_release(xdp, &frames[sent]);
        NIO_ASSERT(rc == 0);
        sent++;
    }
    return sent > 0 ? (int64_t)sent : rc;
}

int64_t numio_xdp_send(struct numio_xdp *xdp, struct numio_xdp_frame *frames, unsigned count)
{
    int64_t rc = nio_xdp_enter(xdp, "numio_xdp_send");
    if (NIO_UNLIKELY(rc < 0))
        return rc;
    rc = nio_co_stop(nio_co_current());
    if (NIO_LIKELY(rc == 0))
        rc = count == 0       ? 0
             : xdp->is_bypass ? send_bypass(xdp, frames, count)
                              : send_plain(xdp, frames, count);
    nio_xdp_leave(xdp);
    return rc;
}

/* ---- peers -------------------------------------------------------------------------------- */

static int peer_of(const struct numio_xdp *xdp, const struct numio_address *address,
                   struct numio_xdp_peer *ret_peer)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->storage;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->storage;
    if (address->storage.ss_family != xdp->local.family)
        return nio_error(-EINVAL, "numio_xdp_resolve: the address is of another family than the "
                                  "device's");
    *ret_peer = (struct numio_xdp_peer){ .family = xdp->local.family };
    if (xdp->local.family == AF_INET) {
        ret_peer->port = ntohs(v4->sin_port);
        memcpy(ret_peer->address, &v4->sin_addr, sizeof v4->sin_addr);
    } else {
        ret_peer->port = ntohs(v6->sin6_port);
        memcpy(ret_peer->address, &v6->sin6_addr, sizeof v6->sin6_addr);
    }
    return 0;
}

/* The kernel's answer comes from the network, and nobody tells. */
static int find_neighbour(struct numio_xdp *xdp, struct numio_xdp_peer *peer)
{
    for (unsigned i = 0; i < RESOLVE_TRIES; i++) {
        int rc = nio_neighbour_find(xdp->device->ifindex, peer->family, peer->address, i == 0,
                                    peer->mac);
        peer->has_mac = rc == 0;
        if (rc != -EAGAIN)
            return rc;
        int64_t slept = numio_sleep_ns(resolve_ns);
        if (slept < 0)
            return (int)slept;
        if (xdp->is_closed)
            return -ESHUTDOWN;
    }
    return nio_error(-EHOSTUNREACH, "xdp: the neighbour has not answered within four seconds");
}

int numio_xdp_resolve(struct numio_xdp *xdp, const struct numio_address *address,
                      struct numio_xdp_peer *ret_peer)
{
    struct numio_xdp_peer peer;
    int rc = nio_xdp_enter(xdp, "numio_xdp_resolve");
    if (rc < 0)
        return rc;
    rc = peer_of(xdp, address, &peer);
    if (rc == 0)
        rc = nio_co_stop(nio_co_current());
    if (rc == 0 && xdp->is_bypass)
        rc = find_neighbour(xdp, &peer);
    if (rc == 0)
        *ret_peer = peer;
    nio_xdp_leave(xdp);
    return rc;
}
