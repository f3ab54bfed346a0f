/* SPDX-License-Identifier: MIT */
/* Datagrams.  Segments (GSO) and joined ones (GRO) are control messages of sendmsg and recvmsg. */
#include <numio/udp.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/net/address.h"

enum { SEGMENTS_MAX = 64, DATAGRAM_MAX = 65507 /* 65,535 less the headers of IPv4 and UDP */ };

/* ---- sockets ------------------------------------------------------------------------------ */

int numio_udp_bind(const char *address)
{
    struct numio_address parsed;
    int one = 1;
    int rc = nio_address_parse(address, &parsed);
    if (rc < 0)
        return rc;
    int fd = socket(parsed.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return nio_error(-errno, "udp: socket: %s", strerror(errno));
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, (const struct sockaddr *)&parsed.storage, parsed.bytes) != 0) {
        rc = nio_error(-errno, "udp: bind to %.64s: %s", address, strerror(errno));
        (void)close(fd); /* the first error counts */
        return rc;
    }
    return fd;
}

int numio_udp_local(int fd, struct numio_address *ret_address)
{
    struct numio_address address = { .bytes = sizeof address.storage };
    if (getsockname(fd, (struct sockaddr *)&address.storage, &address.bytes) != 0)
        return nio_error(-errno, "udp: getsockname: %s", strerror(errno));
    *ret_address = address;
    return 0;
}

int64_t numio_udp_drops(int fd)
{
    uint32_t values[SK_MEMINFO_VARS] = { 0 };
    socklen_t bytes = sizeof values;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, values, &bytes) != 0)
        return nio_error(-errno, "udp: SO_MEMINFO: %s", strerror(errno));
    return values[SK_MEMINFO_DROPS];
}

/* ---- one by one --------------------------------------------------------------------------- */

static struct msghdr message_to(struct iovec *part, const struct numio_address *to)
{
    struct msghdr message = { .msg_iov = part, .msg_iovlen = 1 };
    if (to) {
        message.msg_name = (void *)(uintptr_t)&to->storage;
        message.msg_namelen = to->bytes;
    }
    return message;
}

int64_t numio_udp_send(int fd, const void *bytes, size_t len, const struct numio_address *to)
{
    struct iovec part = { (void *)(uintptr_t)bytes, len };
    struct msghdr message = message_to(&part, to);
    return numio_sendmsg(fd, &message, 0);
}

static int64_t receive(int fd, void *ret_bytes, size_t len, struct msghdr *message,
                       struct numio_address *ret_from)
{
    struct iovec part = { ret_bytes, len };
    message->msg_iov = &part;
    message->msg_iovlen = 1;
    if (ret_from) {
        message->msg_name = &ret_from->storage;
        message->msg_namelen = sizeof ret_from->storage;
    }
    int64_t n = numio_recvmsg(fd, message, 0);
    if (n >= 0 && ret_from)
        ret_from->bytes = message->msg_namelen;
    return n;
}

int64_t numio_udp_recv(int fd, void *ret_bytes, size_t len, struct numio_address *ret_from)
{
    struct msghdr message = { 0 };
    return receive(fd, ret_bytes, len, &message, ret_from);
}

/* ---- many at once ------------------------------------------------------------------------- */

static int64_t send_joined(int fd, const char *bytes, size_t len, uint16_t segment_bytes,
                           const struct numio_address *to)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(uint16_t))];
    } control = { { 0 } };
    struct iovec part = { (void *)(uintptr_t)bytes, len };
    struct msghdr message = message_to(&part, to);
    message.msg_control = &control;
    message.msg_controllen = sizeof control.room;
    control.header.cmsg_level = SOL_UDP;
    control.header.cmsg_type = UDP_SEGMENT;
    control.header.cmsg_len = CMSG_LEN(sizeof segment_bytes);
    memcpy(CMSG_DATA(&control.header), &segment_bytes, sizeof segment_bytes);
    return numio_sendmsg(fd, &message, 0);
}

/* What a kernel says that has no UDP_SEGMENT, or an interface that cannot checksum for it. */
static bool lacks_segments(int64_t rc)
{
    return rc == -EINVAL || rc == -ENOPROTOOPT || rc == -EIO || rc == -EOPNOTSUPP;
}

int64_t numio_udp_send_segments(int fd, const void *bytes, size_t len, unsigned segment_bytes,
                                const struct numio_address *to)
{
    size_t done = 0;
    bool is_joined = true;
    if (segment_bytes == 0 || segment_bytes > DATAGRAM_MAX)
        return nio_error(-EINVAL, "udp: segments of %u bytes; 1 to %d can be sent", segment_bytes,
                         DATAGRAM_MAX);
    size_t most = DATAGRAM_MAX / segment_bytes;
    most = (most < SEGMENTS_MAX ? most : SEGMENTS_MAX) * segment_bytes;
    while (done < len) {
        size_t left = len - done;
        const char *at = (const char *)bytes + done;
        size_t now =
            is_joined ? (left < most ? left : most) : (left < segment_bytes ? left : segment_bytes);
        int64_t n = is_joined && now > segment_bytes
                        ? send_joined(fd, at, now, (uint16_t)segment_bytes, to)
                        : numio_udp_send(fd, at, now, to);
        if (n < 0 && is_joined && now > segment_bytes && lacks_segments(n)) {
            is_joined = false;
            continue;
        }
        if (n < 0)
            return done > 0 ? (int64_t)done : n;
        done += (size_t)n;
    }
    return (int64_t)done;
}

int numio_udp_set_gro(int fd, bool is_on)
{
    int value = is_on;
    if (setsockopt(fd, SOL_UDP, UDP_GRO, &value, sizeof value) == 0)
        return 0;
    return nio_error(-errno, "udp: UDP_GRO: %s", strerror(errno));
}

int64_t numio_udp_recv_segments(int fd, void *ret_bytes, size_t len, unsigned *ret_segment_bytes,
                                struct numio_address *ret_from)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = { { 0 } };
    struct msghdr message = { .msg_control = &control, .msg_controllen = sizeof control.room };
    int64_t n = receive(fd, ret_bytes, len, &message, ret_from);
    if (n < 0)
        return n;
    *ret_segment_bytes = (unsigned)n;
    for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
        int segment_bytes;
        if (at->cmsg_level != SOL_UDP || at->cmsg_type != UDP_GRO)
            continue;
        memcpy(&segment_bytes, CMSG_DATA(at), sizeof segment_bytes);
        if (segment_bytes > 0)
            *ret_segment_bytes = (unsigned)segment_bytes;
    }
    return n;
}

/* ---- groups ------------------------------------------------------------------------------- */

static int index_of(const char *interface, unsigned *ret_index)
{
    *ret_index = interface ? if_nametoindex(interface) : 0;
    if (interface && *ret_index == 0)
        return nio_error(-ENODEV, "udp: there is no interface \"%.32s\"", interface);
    return 0;
}

/* A bound socket gets what any socket of the machine has joined, on any interface, unless told not
 * to.  One option is of the other family, and that for IPv6 came with Linux 4.20. */
static void stop_eavesdropping(int fd)
{
    int off = 0;
    (void)setsockopt(fd, IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof off);     /* as above */
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, &off, sizeof off); /* likewise */
}

static int change_membership(int fd, const char *group, const char *interface, bool is_join)
{
    struct ip_mreqn v4 = { 0 };
    struct ipv6_mreq v6 = { 0 };
    unsigned index;
    int rc = index_of(interface, &index);
    if (rc < 0)
        return rc;
    stop_eavesdropping(fd);
    if (group && inet_pton(AF_INET, group, &v4.imr_multiaddr) == 1) {
        v4.imr_ifindex = (int)index;
        rc = setsockopt(fd, IPPROTO_IP, is_join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, &v4,
                        sizeof v4);
    } else if (group && inet_pton(AF_INET6, group, &v6.ipv6mr_multiaddr) == 1) {
        v6.ipv6mr_interface = index;
        rc = setsockopt(fd, IPPROTO_IPV6, is_join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP, &v6,
                        sizeof v6);
    } else {
        return nio_error(-EINVAL, "udp: \"%.64s\" is no address of a group", group ? group : "");
    }
    return rc == 0 ? 0 : nio_error(-errno, "udp: group %.64s: %s", group, strerror(errno));
}

int numio_udp_join(int fd, const char *group, const char *interface)
{
    return change_membership(fd, group, interface, true);
}

int numio_udp_leave(int fd, const char *group, const char *interface)
{
    return change_membership(fd, group, interface, false);
}

int numio_udp_set_multicast(int fd, const char *interface, unsigned hops, bool has_loop)
{
    struct numio_address local;
    unsigned index;
    int rc = index_of(interface, &index), ttl = (int)hops, loop = has_loop;
    if (rc == 0)
        rc = numio_udp_local(fd, &local);
    if (rc < 0)
        return rc;
    struct ip_mreqn v4 = { .imr_ifindex = (int)index };
    bool is_v6 = local.storage.ss_family == AF_INET6;
    bool is_set =
        is_v6 ? setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &ttl, sizeof ttl) == 0 &&
                    setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, &loop, sizeof loop) == 0
              : setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof ttl) == 0 &&
                    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, &loop, sizeof loop) == 0;
    if (is_set && index)
        is_set = is_v6 ? setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index, sizeof index) == 0
                       : setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &v4, sizeof v4) == 0;
    return is_set ? 0 : nio_error(-errno, "udp: multicast: %s", strerror(errno));
}
