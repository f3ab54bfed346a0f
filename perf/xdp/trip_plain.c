/* SPDX-License-Identifier: MIT */
/* The floors: the kernel's UDP sockets, without a runtime. */
#include "perf/xdp/trip.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "perf/load/load_conn.h"
#include "perf/xdp/veth_pair.h"

static int fail(const char *what)
{
    fprintf(stderr, "xdp_trip: %s: %s\n", what, strerror(errno));
    return 1;
}

static int open_connected(enum trip_kind kind, bool is_near)
{
    struct sockaddr_in own = { .sin_family = AF_INET }, other = { .sin_family = AF_INET };
    own.sin_port = htons(trip_port(kind, is_near));
    other.sin_port = htons(trip_port(kind, !is_near));
    (void)inet_pton(AF_INET, is_near ? VETH_NEAR : VETH_FAR, &own.sin_addr);   /* a constant */
    (void)inet_pton(AF_INET, is_near ? VETH_FAR : VETH_NEAR, &other.sin_addr); /* likewise */
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&own, sizeof own) != 0 ||
        connect(fd, (const struct sockaddr *)&other, sizeof other) != 0)
        return -1;
    return fd;
}

static ssize_t receive(const struct trip_side *side, int fd, void *bytes, size_t len)
{
    ssize_t n;
    do {
        n = recv(fd, bytes, len, side->kind == TRIP_UDP_SPIN ? MSG_DONTWAIT : 0);
    } while (n < 0 && (errno == EAGAIN || errno == EINTR));
    return n;
}

int trip_plain_serve(const struct trip_side *side)
{
    char bytes[TRIP_BYTES];
    int fd = open_connected(side->kind, false);
    if (fd < 0)
        return fail("the server's socket");
    if (write(side->ready_fd, "x", 1) != 1)
        return fail("write");
    for (;;) { /* until it is killed */
        ssize_t n = receive(side, fd, bytes, sizeof bytes);
        if (n < 0 || send(fd, bytes, (size_t)n, 0) != n)
            return fail("serving");
    }
}

int trip_plain_ask(const struct trip_side *side)
{
    uint64_t out[TRIP_BYTES / sizeof(uint64_t)] = { 0 }, in[TRIP_BYTES / sizeof(uint64_t)];
    int fd = open_connected(side->kind, true);
    if (fd < 0)
        return fail("the client's socket");
    for (unsigned trip = 0; trip < side->trips + TRIP_WARM; trip++) {
        uint64_t began_ns = load_now_ns();
        out[0] = trip;
        if (send(fd, out, sizeof out, 0) != sizeof out ||
            receive(side, fd, in, sizeof in) != sizeof in)
            return fail("asking");
        uint64_t ended_ns = load_now_ns();
        if (in[0] != trip) {
            fprintf(stderr, "xdp_trip: answer %llu to %u\n", (unsigned long long)in[0], trip);
            return 1;
        }
        if (trip >= TRIP_WARM)
            load_hist_add(side->hist, ended_ns - began_ns);
    }
    (void)close(fd); /* nothing to lose */
    return 0;
}
