/* SPDX-License-Identifier: MIT */
#include "runtime/xdp/neighbour.h"

#include <errno.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"

enum { REQUEST_BYTES = 256, ANSWER_BYTES = 32768, MAC_BYTES = 6 };

/* A request and, in the same memory, room for its answer. */
struct talk {
    union {
        struct nlmsghdr header;
        char bytes[REQUEST_BYTES];
    } request;
    union {
        struct nlmsghdr header;
        char bytes[ANSWER_BYTES];
    } answer;
};

/* Begins a request of `type`; returns its body of `body_bytes`. */
static void *begin(struct talk *talk, uint16_t type, uint16_t flags, size_t body_bytes)
{
    memset(&talk->request, 0, sizeof talk->request);
    talk->request.header = (struct nlmsghdr){ .nlmsg_len = NLMSG_LENGTH((uint32_t)body_bytes),
                                              .nlmsg_type = type,
                                              .nlmsg_flags = NLM_F_REQUEST | flags,
                                              .nlmsg_seq = 1 };
    return NLMSG_DATA(&talk->request.header);
}

static void add(struct talk *talk, unsigned short type, const void *value, size_t bytes)
{
    struct nlmsghdr *header = &talk->request.header;
    struct rtattr *at =
        (struct rtattr *)(void *)(talk->request.bytes + NLMSG_ALIGN(header->nlmsg_len));
    at->rta_type = type;
    at->rta_len = (unsigned short)RTA_LENGTH(bytes);
    memcpy(RTA_DATA(at), value, bytes);
    header->nlmsg_len = NLMSG_ALIGN(header->nlmsg_len) + (uint32_t)RTA_ALIGN(at->rta_len);
}

/* Sends the request and receives one answer.  Errors: the kernel's answer, or netlink's. */
static int ask(struct talk *talk)
{
    struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return nio_error(-errno, "xdp: netlink: %s", strerror(errno));
    int rc = 0;
    ssize_t n = sendto(fd, &talk->request, talk->request.header.nlmsg_len, 0,
                       (const struct sockaddr *)&kernel, sizeof kernel);
    if (n >= 0)
        n = recv(fd, &talk->answer, sizeof talk->answer, 0); /* the kernel answers within sendto */
    if (n < 0)
        rc = nio_error(-errno, "xdp: netlink: %s", strerror(errno));
    else if (!NLMSG_OK(&talk->answer.header, (size_t)n))
        rc = nio_error(-EBADMSG, "xdp: netlink: an answer of %zd bytes is none", n);
    else if (talk->answer.header.nlmsg_type == NLMSG_ERROR)
        rc = ((const struct nlmsgerr *)NLMSG_DATA(&talk->answer.header))->error;
    (void)close(fd); /* nothing to lose */
    return rc;
}

/* An attribute of the answer behind a body of `body_bytes`, at least `bytes` long; NULL: none. */
static const void *find(const struct talk *talk, size_t body_bytes, unsigned short type,
                        size_t bytes)
{
    const char *first = talk->answer.bytes + NLMSG_SPACE((uint32_t)body_bytes);
    const struct rtattr *at = (const struct rtattr *)(const void *)first;
    int left = (int)talk->answer.header.nlmsg_len - (int)NLMSG_SPACE((uint32_t)body_bytes);
    for (; RTA_OK(at, left); at = RTA_NEXT(at, left))
        if ((at->rta_type & NLA_TYPE_MASK) == type && RTA_PAYLOAD(at) >= bytes)
            return RTA_DATA(at);
    return NULL;
}

int nio_link_queues(int ifindex, unsigned *ret_queues)
{
    struct talk *talk = nio_zalloc(sizeof *talk);
    if (!talk)
        return nio_error(-ENOMEM, "xdp: no memory to ask for the interface's queues");
    struct ifinfomsg *body = begin(talk, RTM_GETLINK, 0, sizeof *body);
    body->ifi_index = ifindex;
    int rc = ask(talk);
    uint32_t queues = 1;
    if (rc == 0) {
        const void *found = find(talk, sizeof *body, IFLA_NUM_RX_QUEUES, sizeof queues);
        if (found)
            memcpy(&queues, found, sizeof queues);
        *ret_queues = queues > 0 ? queues : 1;
    }
    nio_free(talk);
    return rc;
}

static size_t address_bytes(uint8_t family)
{
    return family == AF_INET ? 4 : 16;
}

/* The neighbour on the way to `address`: itself, or a router of the same family. */
static int find_hop(struct talk *talk, int ifindex, uint8_t family, const uint8_t *address,
                    uint8_t *ret_hop)
{
    size_t bytes = address_bytes(family);
    struct rtmsg *body = begin(talk, RTM_GETROUTE, 0, sizeof *body);
    body->rtm_family = family;
    body->rtm_dst_len = (unsigned char)(bytes * 8);
    add(talk, RTA_DST, address, bytes);
    add(talk, RTA_OIF, &ifindex, sizeof ifindex);
    int rc = ask(talk);
    if (rc == -ENETUNREACH || rc == -EHOSTUNREACH)
        return nio_error(-EHOSTUNREACH, "xdp: there is no route to the address");
    if (rc < 0)
        return nio_error(rc, "xdp: asking for the route: %s", strerror(-rc));
    const struct rtmsg *route = NLMSG_DATA(&talk->answer.header);
    const void *out = find(talk, sizeof *route, RTA_OIF, sizeof ifindex);
    int out_index = 0;
    if (out)
        memcpy(&out_index, out, sizeof out_index);
    if (route->rtm_type != RTN_UNICAST || out_index != ifindex)
        return nio_error(-EHOSTUNREACH, "xdp: the address is not reached by a neighbour of the "
                                        "device's interface");
    const void *gateway = find(talk, sizeof *route, RTA_GATEWAY, bytes);
    memcpy(ret_hop, gateway ? gateway : address, bytes);
    return 0;
}

/* Has the kernel look for a neighbour, as if it had something to send there. */
static int look_for(struct talk *talk, int ifindex, uint8_t family, const uint8_t *hop)
{
    struct ndmsg *body =
        begin(talk, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK, sizeof *body);
    body->ndm_family = family;
    body->ndm_ifindex = ifindex;
    body->ndm_state = NUD_NONE;
    body->ndm_flags = NTF_USE;
    add(talk, NDA_DST, hop, address_bytes(family));
    int rc = ask(talk);
    return rc == 0
               ? -EAGAIN
               : nio_error(rc, "xdp: asking the kernel to look for a neighbour: %s", strerror(-rc));
}

static int find_mac(struct talk *talk, int ifindex, uint8_t family, const uint8_t *hop,
                    bool is_first, uint8_t *ret_mac)
{
    static const uint16_t known =
        NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP;
    struct ndmsg *body = begin(talk, RTM_GETNEIGH, 0, sizeof *body);
    body->ndm_family = family;
    body->ndm_ifindex = ifindex;
    add(talk, NDA_DST, hop, address_bytes(family));
    int rc = ask(talk);
    if (rc == -ENOENT)
        return look_for(talk, ifindex, family, hop);
    if (rc < 0)
        return nio_error(rc, "xdp: asking for a neighbour: %s", strerror(-rc));
    const struct ndmsg *neighbour = NLMSG_DATA(&talk->answer.header);
    const void *mac = find(talk, sizeof *neighbour, NDA_LLADDR, MAC_BYTES);
    if ((neighbour->ndm_state & known) && mac) {
        memcpy(ret_mac, mac, MAC_BYTES);
        return 0;
    }
    if (neighbour->ndm_state & NUD_INCOMPLETE)
        return -EAGAIN;
    if ((neighbour->ndm_state & NUD_FAILED) && !is_first)
        return nio_error(-EHOSTUNREACH, "xdp: the neighbour does not answer");
    return look_for(talk, ifindex, family, hop);
}

int nio_neighbour_find(int ifindex, uint8_t family, const uint8_t *address, bool is_first,
                       uint8_t *ret_mac)
{
    uint8_t hop[16];
    struct talk *talk = nio_zalloc(sizeof *talk);
    if (!talk)
        return nio_error(-ENOMEM, "xdp: no memory to look for a neighbour");
    int rc = find_hop(talk, ifindex, family, address, hop);
    if (rc == 0)
        rc = find_mac(talk, ifindex, family, hop, is_first, ret_mac);
    nio_free(talk);
    return rc;
}
