/* SPDX-License-Identifier: MIT */
/* Headers of datagrams as pure functions: built, parsed, cut, damaged, and made of random bytes. */
#include "runtime/xdp/packet.h"

#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/seeded.h"

enum { PAYLOAD_MAX = 1472, ROUNDS = 300, RANDOM_ROUNDS = 200000 };

/* Both ends of a datagram. */
struct ends {
    struct nio_packet_local sender, receiver;
    struct numio_xdp_peer to;
};

static struct ends ends_of(uint8_t family, struct nio_rng *rng)
{
    struct ends ends = { { .family = family }, { .family = family }, { .family = family } };
    for (unsigned i = 0; i < 16; i++) {
        ends.sender.address[i] = (uint8_t)nio_rng_below(rng, 256);
        ends.receiver.address[i] = (uint8_t)nio_rng_below(rng, 256);
    }
    for (unsigned i = 0; i < NIO_PACKET_MAC_BYTES; i++) {
        ends.sender.mac[i] = (uint8_t)nio_rng_below(rng, 256);
        ends.receiver.mac[i] = (uint8_t)nio_rng_below(rng, 256);
    }
    ends.sender.port = (uint16_t)nio_rng_below(rng, 65536);
    ends.receiver.port = (uint16_t)nio_rng_below(rng, 65536);
    ends.to.port = ends.receiver.port;
    memcpy(ends.to.mac, ends.receiver.mac, sizeof ends.to.mac);
    memcpy(ends.to.address, ends.receiver.address, sizeof ends.to.address);
    return ends;
}

/* Builds a packet of random bytes at the end of `room`; returns where it begins. */
static uint8_t *build(uint8_t *room, size_t len, const struct ends *ends, struct nio_rng *rng)
{
    uint8_t *payload = room + NIO_PACKET_HEAD_MAX;
    for (size_t i = 0; i < len; i++)
        payload[i] = (uint8_t)nio_rng_below(rng, 256);
    return payload - nio_packet_build(payload, len, &ends->sender, &ends->to);
}

static void check_family(uint8_t family)
{
    static uint8_t room[NIO_PACKET_HEAD_MAX + PAYLOAD_MAX];
    struct nio_rng rng = seeded_rng(1);
    uint32_t head = nio_packet_head_bytes(family);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct ends ends = ends_of(family, &rng);
        struct nio_packet packet = { 0 };
        size_t len = nio_rng_below(&rng, PAYLOAD_MAX + 1);
        uint8_t *bytes = build(room, len, &ends, &rng);
        cr_assert_eq(nio_packet_parse(bytes, head + len, &ends.receiver, true, &packet), 0);
        cr_assert_eq(packet.offset, head);
        cr_assert_eq(packet.len, len);
        cr_assert_eq(packet.from.family, family);
        cr_assert(packet.from.has_mac);
        cr_assert_eq(packet.from.port, ends.sender.port);
        cr_assert_eq(memcmp(packet.from.mac, ends.sender.mac, 6), 0);
        cr_assert_eq(memcmp(packet.from.address, ends.sender.address, family == AF_INET ? 4 : 16),
                     0);
        cr_assert_eq(nio_packet_parse(bytes, head + len, &ends.sender, true, &packet), -EBADMSG,
                     "it is to somebody else");
    }
}

Test(packet, what_was_built_for_ipv4_is_parsed)
{
    check_family(AF_INET);
}

Test(packet, what_was_built_for_ipv6_is_parsed)
{
    check_family(AF_INET6);
}

/* Worked out by hand from RFC 791, 768 and 1071: 10.77.0.2:9 to 10.77.0.1:7000, "abc". */
Test(packet, the_bytes_on_the_wire_are_those_of_the_standards)
{
    static const uint8_t wire[] = {
        0x02, 0, 0,    0,    0, 1,  0x02, 0, 0,   0,   0,    2,    0x08, 0x00, /* Ethernet */
        0x45, 0, 0,    31,   0, 0,  0x40, 0, 64,  17,  0x26, 0x32, 10,   77,
        0,    2, 10,   77,   0, 1,                          /* IPv4 */
        0,    9, 0x1b, 0x58, 0, 11, 0,    0, 'a', 'b', 'c', /* UDP */
    };
    struct nio_packet_local sender = { AF_INET, { 2, 0, 0, 0, 0, 2 }, 9, { 10, 77, 0, 2 } };
    struct numio_xdp_peer to = { AF_INET, true, { 2, 0, 0, 0, 0, 1 }, 7000, 0, { 10, 77, 0, 1 } };
    uint8_t room[NIO_PACKET_HEAD_MAX + 3];
    memcpy(room + NIO_PACKET_HEAD_MAX, "abc", 3);
    uint32_t head = nio_packet_build(room + NIO_PACKET_HEAD_MAX, 3, &sender, &to);
    cr_assert_eq(head, 42u);
    const uint8_t *bytes = room + NIO_PACKET_HEAD_MAX - head;
    cr_assert_eq(memcmp(bytes, wire, 40), 0, "headers before the UDP checksum");
    uint32_t sum = 0x0a4d + 0x0002 + 0x0a4d + 0x0001 + 17 + 11 + 9 + 0x1b58 + 11 + 0x6162 + 0x6300;
    sum = (sum & 0xffff) + (sum >> 16);
    uint16_t expected = (uint16_t)~sum;
    cr_assert_eq(bytes[40], expected >> 8);
    cr_assert_eq(bytes[41], expected & 0xff);
}

/* Copies to memory of just that size, so that a sanitizer sees a read beyond it. */
static int parse_exactly(const uint8_t *bytes, size_t len, const struct nio_packet_local *local,
                         struct nio_packet *ret)
{
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, bytes, len);
    int rc = nio_packet_parse(copy, len, local, true, ret);
    if (rc == 0)
        cr_assert_leq(ret->offset + ret->len, len);
    free(copy);
    return rc;
}

static void check_cut(uint8_t family)
{
    static uint8_t room[NIO_PACKET_HEAD_MAX + PAYLOAD_MAX];
    struct nio_rng rng = seeded_rng(2);
    struct ends ends = ends_of(family, &rng);
    struct nio_packet packet;
    size_t whole = nio_packet_head_bytes(family) + 100;
    uint8_t *bytes = build(room, 100, &ends, &rng);
    for (size_t len = 0; len < whole; len++)
        cr_assert_eq(parse_exactly(bytes, len, &ends.receiver, &packet), -EBADMSG, "%zu", len);
    cr_assert_eq(parse_exactly(bytes, whole, &ends.receiver, &packet), 0);
    cr_assert_eq(parse_exactly(bytes, whole + 18, &ends.receiver, &packet), 0, "padding");
    cr_assert_eq(packet.len, 100u);
}

Test(packet, a_packet_cut_anywhere_is_refused)
{
    check_cut(AF_INET);
    check_cut(AF_INET6);
}

/* Every bit that a checksum or a comparison covers: all but those of the MAC addresses, and of
 * IPv6's traffic class, flow label and hop limit. */
static void check_flips(uint8_t family)
{
    static uint8_t room[NIO_PACKET_HEAD_MAX + PAYLOAD_MAX];
    struct nio_rng rng = seeded_rng(3);
    struct ends ends = ends_of(family, &rng);
    struct nio_packet packet;
    size_t whole = nio_packet_head_bytes(family) + 40;
    uint8_t *bytes = build(room, 40, &ends, &rng);
    for (size_t bit = 12 * 8; bit < whole * 8; bit++) {
        bool is_free = family == AF_INET6 && ((bit >= 14 * 8 && bit < 18 * 8) || bit / 8 == 21);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int rc = parse_exactly(bytes, whole, &ends.receiver, &packet);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (!is_free)
            cr_assert_eq(rc, -EBADMSG, "byte %zu, bit %zu", bit / 8, bit % 8);
    }
}

Test(packet, a_packet_with_any_bit_flipped_is_refused)
{
    check_flips(AF_INET);
    check_flips(AF_INET6);
}

Test(packet, options_fragments_and_missing_checksums_are_judged)
{
    static uint8_t room[NIO_PACKET_HEAD_MAX + PAYLOAD_MAX];
    struct nio_rng rng = seeded_rng(4);
    struct nio_packet packet;
    struct ends v4 = ends_of(AF_INET, &rng), v6 = ends_of(AF_INET6, &rng);
    uint8_t *bytes = build(room, 8, &v4, &rng);
    bytes[40] = bytes[41] = 0;
    cr_expect_eq(parse_exactly(bytes, 50, &v4.receiver, &packet), 0, "IPv4: none is allowed");
    bytes = build(room, 8, &v6, &rng);
    bytes[60] = bytes[61] = 0;
    cr_expect_eq(parse_exactly(bytes, 70, &v6.receiver, &packet), -EBADMSG, "IPv6: it is not");
    cr_expect_eq(nio_packet_parse(bytes, 70, &v6.receiver, false, &packet), 0, "not looked at");
    /* a fragment with a right header: "more fragments" in place of "do not fragment" */
    bytes = build(room, 8, &v4, &rng);
    uint16_t sum = (uint16_t)(bytes[24] << 8 | bytes[25]);
    sum = (uint16_t)~sum;
    uint32_t fixed = sum + 0x2000u + (uint16_t)~0x4000u;
    fixed = (fixed & 0xffff) + (fixed >> 16);
    fixed = (fixed & 0xffff) + (fixed >> 16);
    bytes[20] = 0x20;
    bytes[24] = (uint8_t)((uint16_t)~fixed >> 8);
    bytes[25] = (uint8_t)~fixed;
    cr_expect_eq(nio_packet_parse(bytes, 50, &v4.receiver, false, &packet), -EBADMSG);
    bytes[20] = 0x40;
    cr_expect_eq(nio_packet_parse(bytes, 50, &v4.receiver, false, &packet), -EBADMSG,
                 "the header's checksum is now that of a fragment");
}

Test(packet, random_bytes_are_never_read_beyond_their_end, .timeout = 60)
{
    uint8_t bytes[128];
    struct nio_rng rng = seeded_rng(5);
    struct ends ends[2] = { ends_of(AF_INET, &rng), ends_of(AF_INET6, &rng) };
    struct nio_packet packet;
    unsigned accepted = 0;
    for (unsigned round = 0; round < RANDOM_ROUNDS; round++) {
        const struct ends *at = &ends[round % 2];
        size_t len = nio_rng_below(&rng, sizeof bytes + 1);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)nio_rng_below(&rng, 256);
        if (round % 4 < 2 && len >= 24) { /* half of them look right at first sight */
            bytes[12] = at->sender.family == AF_INET ? 0x08 : 0x86;
            bytes[13] = at->sender.family == AF_INET ? 0x00 : 0xdd;
            bytes[14] = at->sender.family == AF_INET ? 0x45 : 0x60;
            bytes[at->sender.family == AF_INET ? 23 : 20] = 17;
        }
        accepted += parse_exactly(bytes, len, &at->receiver, &packet) == 0;
    }
    cr_assert_eq(accepted, 0, "a random packet to a random address");
}
