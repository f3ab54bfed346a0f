/* SPDX-License-Identifier: MIT */
/* xdp/packet.h: Ethernet, IPv4, IPv6 and UDP headers, as pure functions of bytes.  Any thread.
 */
#ifndef NIO_XDP_PACKET_H
#define NIO_XDP_PACKET_H

#include <numio/xdp.h>

#include "runtime/base/compiler.h"

enum {
    NIO_PACKET_MAC_BYTES = 6,
    NIO_PACKET_HEAD_V4 = 14 + 20 + 8,
    NIO_PACKET_HEAD_V6 = 14 + 40 + 8,
    NIO_PACKET_HEAD_MAX = NIO_PACKET_HEAD_V6
};

/* One end of all datagrams of an endpoint. */
struct nio_packet_local {
    uint8_t family, mac[NIO_PACKET_MAC_BYTES];
    uint16_t port; /* in the machine's byte order */
    uint8_t address[16];
};

/* A datagram's place in a received packet. */
struct nio_packet {
    uint32_t offset, len; /* of the payload */
    struct numio_xdp_peer from;
};

/* Takes `bytes` apart: a whole datagram to `local`.  What follows the datagram (padding of short
 * Ethernet frames) is ignored.  The UDP checksum is looked at if `verifies` is set.
 * Errors: -EBADMSG it is something else, cut short, or damaged; *ret is untouched. */
NIO_NODISCARD int nio_packet_parse(const uint8_t *bytes, size_t len,
                                   const struct nio_packet_local *local, bool verifies,
                                   struct nio_packet *ret);

/* Writes the headers in front of a payload, which has NIO_PACKET_HEAD_MAX bytes of room before it.
 * Returns the bytes of the headers: the packet begins so many before `payload`. */
uint32_t nio_packet_build(uint8_t *payload, size_t len, const struct nio_packet_local *local,
                          const struct numio_xdp_peer *to);

/* Bytes of the headers of a family. */
static inline uint32_t nio_packet_head_bytes(uint8_t family)
{
    return family == 2 /* AF_INET */ ? NIO_PACKET_HEAD_V4 : NIO_PACKET_HEAD_V6;
}

#endif
