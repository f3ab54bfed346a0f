/* SPDX-License-Identifier: MIT */
/* An endpoint without AF_XDP: an ordinary UDP socket, whose datagrams are copied to and from the
 * same frames. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "runtime/base/error.h"
#include "runtime/xdp/endpoint.h"

void numio_xdp_peer_address(const struct numio_xdp_peer *peer, struct numio_address *ret_address)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&ret_address->storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ret_address->storage;
    memset(ret_address, 0, sizeof *ret_address);
    if (peer->family == AF_INET) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(peer->port);
        memcpy(&v4->sin_addr, peer->address, sizeof v4->sin_addr);
        ret_address->bytes = sizeof *v4;
    } else {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(peer->port);
        memcpy(&v6->sin6_addr, peer->address, sizeof v6->sin6_addr);
        ret_address->bytes = sizeof *v6;
    }
}

static void set_peer(struct numio_xdp_peer *peer, const struct sockaddr_storage *from)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
    *peer = (struct numio_xdp_peer){ .family = (uint8_t)from->ss_family };
    if (from->ss_family == AF_INET) {
        peer->port = ntohs(v4->sin_port);
        memcpy(peer->address, &v4->sin_addr, sizeof v4->sin_addr);
    } else {
        peer->port = ntohs(v6->sin6_port);
        memcpy(peer->address, &v6->sin6_addr, sizeof v6->sin6_addr);
    }
}

/* One datagram: 1; 0 none is there, or none that fits into a frame; or recvmsg's error. */
static int receive_one(struct numio_xdp *xdp, struct numio_xdp_frame *ret)
{
    struct sockaddr_storage from;
    uint32_t index = nio_xdp_pop_free(xdp);
    uint8_t *bytes = nio_xdp_base(xdp, index) + NIO_FRAME_PAYLOAD;
    struct iovec part = { bytes, xdp->frame_bytes - NIO_FRAME_PAYLOAD };
    struct msghdr message = {
        .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1
    };
    ssize_t n = recvmsg(xdp->fd, &message, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR
                   ? 0
                   : nio_error(-errno, "xdp: recvmsg: %s", strerror(errno));
    if (message.msg_flags & MSG_TRUNC) {
        xdp->stats.malformed++; /* it came in fragments: no packet holds it */
        return 0;
    }
    nio_xdp_move(xdp, index, NIO_FRAME_FREE, NIO_FRAME_OUT);
    *ret = (struct numio_xdp_frame){ .bytes = bytes, .len = (uint32_t)n, ._index = index };
    ret->capacity = nio_xdp_room(xdp, index, bytes);
    set_peer(&ret->peer, &from);
    return 1;
}

int64_t nio_plain_recv(struct numio_xdp *xdp, struct numio_xdp_frame *ret_frames, unsigned max)
{
    unsigned count = 0;
    int rc = 1;
    while (count < max && rc > 0 && xdp->counts[NIO_FRAME_FREE] > 0) {
        rc = receive_one(xdp, &ret_frames[count]);
        if (rc > 0)
            count++;
    }
    xdp->stats.received += count;
    return count > 0 ? (int64_t)count : rc < 0 ? rc : 0;
}

int nio_plain_send(struct numio_xdp *xdp, const struct numio_xdp_frame *frame)
{
    struct numio_address to;
    numio_xdp_peer_address(&frame->peer, &to);
    if (frame->peer.family == AF_INET6) /* only link-local addresses need it, and none minds */
        ((struct sockaddr_in6 *)&to.storage)->sin6_scope_id = (uint32_t)xdp->device->ifindex;
    struct iovec part = { frame->bytes, frame->len };
    struct msghdr message = {
        .msg_name = &to.storage, .msg_namelen = to.bytes, .msg_iov = &part, .msg_iovlen = 1
    };
    if (sendmsg(xdp->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return 0;
    if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)
        return -EAGAIN;
    return nio_error(-errno, "xdp: sendmsg: %s", strerror(errno));
}
