/* SPDX-License-Identifier: MIT */
#include "runtime/xdp/packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

enum {
    ETHER_BYTES = 14,
    ETHER_TYPE = 12,
    ETHER_TYPE_V4 = 0x0800,
    ETHER_TYPE_V6 = 0x86dd,
    V4_BYTES = 20,
    V4_FIRST = 0x45, /* version 4, five words of header */
    V4_LEN = 2,
    V4_FRAGMENT = 6,
    V4_DONT_FRAGMENT = 0x4000,
    V4_IS_FRAGMENT = 0x3fff, /* more to come, or an offset */
    V4_TTL = 8,
    V4_PROTOCOL = 9,
    V4_SUM = 10,
    V4_SOURCE = 12,
    V4_TARGET = 16,
    V4_ADDRESS_BYTES = 4,
    V6_BYTES = 40,
    V6_FIRST = 0x60,
    V6_LEN = 4,
    V6_NEXT = 6,
    V6_HOPS = 7,
    V6_SOURCE = 8,
    V6_TARGET = 24,
    V6_ADDRESS_BYTES = 16,
    UDP_BYTES = 8,
    UDP_SOURCE = 0,
    UDP_TARGET = 2,
    UDP_LEN = 4,
    UDP_SUM = 6,
    HOPS = 64
};

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* ---- the Internet checksum (RFC 1071) ----------------------------------------------------- */

/* Sums in the machine's byte order, which the fold makes no difference to. */
static uint64_t sum_bytes(uint64_t sum, const uint8_t *bytes, size_t len)
{
    uint32_t word;
    uint16_t half = 0;
    for (; len >= sizeof word; bytes += sizeof word, len -= sizeof word) {
        memcpy(&word, bytes, sizeof word);
        sum += word;
    }
    if (len >= sizeof half) {
        memcpy(&half, bytes, sizeof half);
        sum += half;
        bytes += sizeof half;
        len -= sizeof half;
    }
    if (len > 0) {
        half = 0;
        memcpy(&half, bytes, 1);
        sum += half;
    }
    return sum;
}

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16) /* four times at most */
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* Of a UDP header and what follows it, with the pseudo-header; 0xffff over a right checksum. */
static uint16_t sum_datagram(const uint8_t *source, const uint8_t *target, size_t address_bytes,
                             const uint8_t *udp, size_t len)
{
    uint64_t sum = sum_bytes(0, source, address_bytes);
    sum = sum_bytes(sum, target, address_bytes);
    sum += htons(IPPROTO_UDP);
    sum += htons((uint16_t)len);
    return fold(sum_bytes(sum, udp, len));
}

/* ---- receiving ---------------------------------------------------------------------------- */

/* What the IP header says. */
struct ip {
    const uint8_t *source, *target;
    size_t address_bytes, head_bytes, body_bytes;
};

static bool parse_v4(const uint8_t *at, size_t len, struct ip *ret)
{
    if (len < V4_BYTES || at[0] != V4_FIRST || at[V4_PROTOCOL] != IPPROTO_UDP ||
        (get16(at + V4_FRAGMENT) & V4_IS_FRAGMENT) || fold(sum_bytes(0, at, V4_BYTES)) != 0xffff)
        return false;
    size_t whole = get16(at + V4_LEN);
    if (whole < V4_BYTES || whole > len)
        return false;
    *ret =
        (struct ip){ at + V4_SOURCE, at + V4_TARGET, V4_ADDRESS_BYTES, V4_BYTES, whole - V4_BYTES };
    return true;
}

static bool parse_v6(const uint8_t *at, size_t len, struct ip *ret)
{
    if (len < V6_BYTES || (at[0] & 0xf0) != V6_FIRST || at[V6_NEXT] != IPPROTO_UDP)
        return false;
    size_t body = get16(at + V6_LEN);
    if (body > len - V6_BYTES)
        return false;
    *ret = (struct ip){ at + V6_SOURCE, at + V6_TARGET, V6_ADDRESS_BYTES, V6_BYTES, body };
    return true;
}

/* A checksum of 0 says that there is none, which IPv6 does not allow. */
static bool has_right_sum(const struct ip *ip, const uint8_t *udp, size_t len)
{
    if (get16(udp + UDP_SUM) == 0)
        return ip->address_bytes == V4_ADDRESS_BYTES;
    return sum_datagram(ip->source, ip->target, ip->address_bytes, udp, len) == 0xffff;
}

int nio_packet_parse(const uint8_t *bytes, size_t len, const struct nio_packet_local *local,
                     bool verifies, struct nio_packet *ret)
{
    struct ip ip;
    bool is_v4 = local->family == AF_INET;
    if (len < ETHER_BYTES || get16(bytes + ETHER_TYPE) != (is_v4 ? ETHER_TYPE_V4 : ETHER_TYPE_V6) ||
        !(is_v4 ? parse_v4 : parse_v6)(bytes + ETHER_BYTES, len - ETHER_BYTES, &ip))
        return -EBADMSG;
    const uint8_t *udp = bytes + ETHER_BYTES + ip.head_bytes;
    if (ip.body_bytes < UDP_BYTES || memcmp(ip.target, local->address, ip.address_bytes) != 0 ||
        get16(udp + UDP_TARGET) != local->port)
        return -EBADMSG;
    size_t whole = get16(udp + UDP_LEN);
    if (whole < UDP_BYTES || whole > ip.body_bytes || (verifies && !has_right_sum(&ip, udp, whole)))
        return -EBADMSG;
    ret->offset = (uint32_t)(ETHER_BYTES + ip.head_bytes + UDP_BYTES);
    ret->len = (uint32_t)(whole - UDP_BYTES);
    ret->from = (struct numio_xdp_peer){ .family = local->family,
                                         .has_mac = true,
                                         .port = get16(udp + UDP_SOURCE) };
    memcpy(ret->from.mac, bytes + NIO_PACKET_MAC_BYTES, NIO_PACKET_MAC_BYTES);
    memcpy(ret->from.address, ip.source, ip.address_bytes);
    return 0;
}

/* ---- sending ------------------------------------------------------------------------------ */

static void build_v4(uint8_t *at, size_t body_bytes, const uint8_t *source, const uint8_t *target)
{
    memset(at, 0, V4_BYTES);
    at[0] = V4_FIRST;
    put16(at + V4_LEN, (uint16_t)(V4_BYTES + body_bytes));
    put16(at + V4_FRAGMENT, V4_DONT_FRAGMENT);
    at[V4_TTL] = HOPS;
    at[V4_PROTOCOL] = IPPROTO_UDP;
    memcpy(at + V4_SOURCE, source, V4_ADDRESS_BYTES);
    memcpy(at + V4_TARGET, target, V4_ADDRESS_BYTES);
    uint16_t sum = (uint16_t)~fold(sum_bytes(0, at, V4_BYTES));
    memcpy(at + V4_SUM, &sum, sizeof sum);
}

static void build_v6(uint8_t *at, size_t body_bytes, const uint8_t *source, const uint8_t *target)
{
    memset(at, 0, V6_SOURCE);
    at[0] = V6_FIRST;
    put16(at + V6_LEN, (uint16_t)body_bytes);
    at[V6_NEXT] = IPPROTO_UDP;
    at[V6_HOPS] = HOPS;
    memcpy(at + V6_SOURCE, source, V6_ADDRESS_BYTES);
    memcpy(at + V6_TARGET, target, V6_ADDRESS_BYTES);
}

uint32_t nio_packet_build(uint8_t *payload, size_t len, const struct nio_packet_local *local,
                          const struct numio_xdp_peer *to)
{
    bool is_v4 = local->family == AF_INET;
    uint8_t target[V6_ADDRESS_BYTES]; /* `to` may lie where the headers come to lie */
    uint8_t *udp = payload - UDP_BYTES;
    uint8_t *ip = udp - (is_v4 ? V4_BYTES : V6_BYTES);
    uint8_t *ether = ip - ETHER_BYTES;
    size_t body_bytes = UDP_BYTES + len;
    memcpy(target, to->address, sizeof target);
    put16(udp + UDP_SOURCE, local->port);
    put16(udp + UDP_TARGET, to->port);
    put16(udp + UDP_LEN, (uint16_t)body_bytes);
    put16(udp + UDP_SUM, 0);
    uint16_t sum = (uint16_t)~sum_datagram(
        local->address, target, is_v4 ? V4_ADDRESS_BYTES : V6_ADDRESS_BYTES, udp, body_bytes);
    if (sum == 0)
        sum = 0xffff; /* 0 would say that there is none */
    memcpy(udp + UDP_SUM, &sum, sizeof sum);
    if (is_v4)
        build_v4(ip, body_bytes, local->address, target);
    else
        build_v6(ip, body_bytes, local->address, target);
    memcpy(ether, to->mac, NIO_PACKET_MAC_BYTES);
    memcpy(ether + NIO_PACKET_MAC_BYTES, local->mac, NIO_PACKET_MAC_BYTES);
    put16(ether + ETHER_TYPE, is_v4 ? ETHER_TYPE_V4 : ETHER_TYPE_V6);
    return (uint32_t)(payload - ether);
}
