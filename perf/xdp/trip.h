/* SPDX-License-Identifier: MIT */
/* trip.h: the two sides of a round trip by UDP between two network namespaces, in ways to be
 * compared.  Each side is a process of its own on a CPU of its own.
 */
#ifndef PERF_XDP_TRIP_H
#define PERF_XDP_TRIP_H

#include <stdbool.h>
#include <stdint.h>

#include "perf/load/load_hist.h"

enum trip_kind {
    TRIP_XDP_GENERIC = 0, /* numio endpoints, workers that spin */
    TRIP_XDP_DRIVER,
    TRIP_FALLBACK, /* numio endpoints without AF_XDP, workers that spin */
    TRIP_UDP_SPIN, /* sockets that are asked again and again, no runtime */
    TRIP_UDP_BLOCK,
    TRIP_KINDS
};

enum { TRIP_PORT = 7000, TRIP_BYTES = 64, TRIP_WARM = 2000 };

struct trip_side {
    enum trip_kind kind;
    int cpu;
    unsigned trips;
    int ready_fd;           /* the server: written to once it is up */
    struct load_hist *hist; /* the client: where the times go */
};

/* Ports of a kind's own: the kernel frees those of a process that was killed some time later. */
static inline uint16_t trip_port(enum trip_kind kind, bool is_near)
{
    return (uint16_t)(TRIP_PORT + 2 * kind + is_near);
}

/* Run one side to its end; the server's is that the client kills it.  0, or 1 with a message on
 * stderr.  trip_numio.c and trip_plain.c. */
int trip_numio_serve(const struct trip_side *side);
int trip_numio_ask(const struct trip_side *side);
int trip_plain_serve(const struct trip_side *side);
int trip_plain_ask(const struct trip_side *side);

#endif
