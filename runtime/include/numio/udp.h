/* SPDX-License-Identifier: MIT */
/* numio/udp.h: datagrams: one by one, many in one call (GSO and GRO), and to groups.
 *
 * numio_busy_poll_set() of <numio/busy_poll.h> is for these sockets, too.
 *
 * Context: numio_udp_send* and numio_udp_recv* are for coroutines and suspend; the others are for
 * any thread and do not.
 */
#ifndef NUMIO_UDP_H
#define NUMIO_UDP_H

#include <numio/address.h>

NUMIO_BEGIN_DECLS

/* A socket bound to an address, "0.0.0.0:7000"; port 0: a free one.  With SO_REUSEADDR, as groups
 * want it.   Returns: the descriptor, closed on exec.   Errors: -EINVAL the address; socket's,
 * bind's. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_udp_bind(const char *address);
/* The address a socket has, for its port.   Errors: getsockname(2)'s. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_udp_local(int fd, struct numio_address *ret_address);

/* One datagram; `to` NULL: where the socket is connected to. */
NUMIO_EXPORT int64_t numio_udp_send(int fd, const void *bytes, size_t len,
                                    const struct numio_address *to);
/* One datagram, cut at `len`; ret_from may be NULL. */
NUMIO_EXPORT int64_t numio_udp_recv(int fd, void *ret_bytes, size_t len,
                                    struct numio_address *ret_from);

/* `len` bytes as datagrams of `segment_bytes` each, the last may be shorter, in one call down to
 * the driver (UDP_SEGMENT, since Linux 4.18); where the kernel or the interface has it not, one by
 * one. Units:   at most 64 datagrams and 65,507 bytes at a time are handed over; more takes more
 * calls. Returns: the bytes sent, all of them or those before an error. */
NUMIO_EXPORT int64_t numio_udp_send_segments(int fd, const void *bytes, size_t len,
                                             unsigned segment_bytes,
                                             const struct numio_address *to);
/* Whether the kernel may join datagrams of one sender (UDP_GRO, since Linux 5.0) for the call
 * below. Errors: -ENOPROTOOPT it cannot. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_udp_set_gro(int fd, bool is_on);
/* One datagram, or several joined: *ret_segment_bytes is the length of each but the last, or that
 * of the only one.  `len` should be 65,535. */
NUMIO_EXPORT int64_t numio_udp_recv_segments(int fd, void *ret_bytes, size_t len,
                                             unsigned *ret_segment_bytes,
                                             struct numio_address *ret_from);

/* How many datagrams the kernel has dropped because the socket's buffer was full (a larger
 * SO_RCVBUF helps), or because they were damaged, since it was made.   Errors: getsockopt(2)'s. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_udp_drops(int fd);

/* Receives what is sent to a group, "239.1.2.3" or "ff15::1", on an interface; NULL: the kernel's
 * choice.  Of groups that other sockets of the machine have joined the socket gets nothing. Errors:
 * -EINVAL the group; -ENODEV the interface; setsockopt(2)'s. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_udp_join(int fd, const char *group, const char *interface);
NUMIO_EXPORT NUMIO_NODISCARD int numio_udp_leave(int fd, const char *group, const char *interface);
/* How what is sent to groups goes out: on this interface (NULL: as it is), through at most `hops`
 * routers, and back to this machine or not. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_udp_set_multicast(int fd, const char *interface,
                                                         unsigned hops, bool has_loop);

NUMIO_END_DECLS

#endif
