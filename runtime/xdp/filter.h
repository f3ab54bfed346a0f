/* SPDX-License-Identifier: MIT */
/* xdp/filter.h: the program on the interface that says which packets go to the endpoints.
 *
 * A handful of instructions, made for one UDP address: a datagram to it, whole and without options,
 * goes to the socket that the map has for the receive queue it came in on, everything else to the
 * kernel's stack, as does what comes in on a queue without a socket.  Any thread.
 */
#ifndef NIO_XDP_FILTER_H
#define NIO_XDP_FILTER_H

#include "runtime/xdp/packet.h"
#include "runtime/xdp/xsk_library.h"

enum { NIO_FILTER_INSNS_MAX = 64 };

struct nio_filter {
    int map_fd, prog_fd, link_fd; /* -1: none */
};

/* Writes the program; pure.  Returns its length. */
unsigned nio_filter_write(const struct nio_packet_local *local, int map_fd,
                          struct bpf_insn *ret_insns);

/* Attaches it, in the driver or generically.  Nothing is left of it when the process ends.
 * Errors: the kernel's, with a detail; *ret is untouched. */
NIO_NODISCARD int nio_filter_attach(const struct nio_xsk_library *library,
                                    const struct nio_packet_local *local, int ifindex,
                                    unsigned queues, bool in_driver, struct nio_filter *ret);
void nio_filter_detach(struct nio_filter *filter);

#endif
