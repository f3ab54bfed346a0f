/* SPDX-License-Identifier: MIT */
/* numio/tcp.h: TCP connections by name, and their options.  By address, numio_tcp_connect() and
 * numio_tcp_listen() of <numio/io.h> do; listeners for several nodes are in <numio/net.h>.
 */
#ifndef NUMIO_TCP_H
#define NUMIO_TCP_H

#include <numio/address.h>
#include <numio/busy_poll.h>

NUMIO_BEGIN_DECLS

/* Zeroes are the system's defaults, but for TCP_NODELAY, which is set. */
struct numio_tcp_opts {
    size_t size;  /* sizeof(struct numio_tcp_opts), by numio_tcp_opts_init() */
    bool is_lazy; /* small pieces wait to be sent together (Nagle): no TCP_NODELAY */
    unsigned keep_idle_s, keep_interval_s, keep_count; /* keep-alive, if keep_idle_s is not 0 */
    unsigned user_timeout_ms; /* unacknowledged data ends the connection after so long */
    int send_buffer_bytes, recv_buffer_bytes;
    const struct numio_address *local; /* connect from here */
    struct numio_busy_poll busy_poll;
};

NUMIO_EXPORT void numio_tcp_opts_init(struct numio_tcp_opts *opts, size_t size);

/* Sets the options of a socket.   Context: any thread.   Errors: setsockopt(2)'s, the detail names
 * the option. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_tcp_set(int fd, const struct numio_tcp_opts *opts);

/* Connects to whichever of the addresses answers first: attempts begin 250 ms apart, or as soon as
 * one before has failed, the families by turns ("Happy Eyeballs", RFC 8305).
 * Context: a coroutine, suspends.   Owns: the descriptor is the caller's; the other attempts' are
 *          closed.   Units: at most 16 addresses, the rest is not tried.
 * Returns: the descriptor.   Errors: that of the last attempt; -EINVAL there are none. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_tcp_connect_any(const struct numio_address *addresses,
                                                           unsigned count,
                                                           const struct numio_tcp_opts *opts);
/* numio_resolve(), then the above.   `opts` may be NULL. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_tcp_dial(const char *host, const char *service,
                                                    const struct numio_tcp_opts *opts);

NUMIO_END_DECLS

#endif
