/* SPDX-License-Identifier: MIT */
/* perf/load/load_conn.h: one connection of the load generator.  It keeps `depth` messages
 * outstanding, stamps each when it is sent, and checks each answer against what was sent: a
 * server that loses, reorders or alters bytes is an error, not a good figure.  One thread.
 * Nothing is allocated after load_conn_init().
 */
#ifndef NIO_PERF_LOAD_CONN_H
#define NIO_PERF_LOAD_CONN_H

#include "perf/load/load_hist.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum {
    LOAD_MESSAGE_BYTES_MIN = 24, /* sequence number, connection, sequence number again */
    LOAD_MESSAGE_BYTES_MAX = 65536,
    LOAD_DEPTH_MAX = 4096,
};

struct load_conn {
    int fd;
    uint32_t id;
    size_t depth;
    size_t message_bytes;
    uint64_t sent;      /* messages built so far */
    uint64_t answered;  /* messages that came back */
    uint64_t *sent_ns;  /* [depth], by sequence number modulo depth */
    unsigned char *out; /* built and not yet taken by the kernel: out_from .. out_to */
    size_t out_from;
    size_t out_to;
    unsigned char *in; /* the front of an answer that has not come whole: 0 .. in_to */
    size_t in_to;
};

/* Connects (blocking), then makes the socket non-blocking.  0 or -errno; on failure everything is
 * released. */
int load_conn_init(struct load_conn *conn, const struct sockaddr_in *server, uint32_t id,
                   size_t depth, size_t message_bytes);
void load_conn_fini(struct load_conn *conn);

/* Builds `count` messages and hands what it can to the kernel.  0 or -errno. */
int load_conn_send(struct load_conn *conn, size_t count);

/* Hands on what the kernel did not take before.  0 or -errno. */
int load_conn_flush(struct load_conn *conn);

/* Reads once, records the latency of each message that came whole.  The number of those, or
 * -errno: -EBADMSG when an answer differs, -ECONNRESET when the server closed. */
int load_conn_receive(struct load_conn *conn, struct load_hist *hist);

/* CLOCK_MONOTONIC. */
static inline uint64_t load_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Whether something waits for the socket to take it. */
static inline bool load_conn_is_blocked(const struct load_conn *conn)
{
    return conn->out_from != conn->out_to;
}

#endif
