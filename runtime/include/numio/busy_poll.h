/* SPDX-License-Identifier: MIT */
/* numio/busy_poll.h: sockets whose packets are fetched from the network interface instead of being
 * waited for.
 *
 * An interface that busy-polls is asked for packets by whoever wants them, without an interrupt.
 * The kernel does so per socket, which is set here, and per ring, which numio_config.
 * napi_busy_poll_us sets for all sockets of a runtime.  Interfaces without a NAPI queue, such as
 * loopback, have nothing to poll: there both change nothing.
 */
#ifndef NUMIO_BUSY_POLL_H
#define NUMIO_BUSY_POLL_H

#include <numio/base.h>

NUMIO_BEGIN_DECLS

/* Plain data; a zero leaves its option as it is.  Part of the options of <numio/tcp.h> and
 * <numio/net.h>; connections inherit it from their listener. */
struct numio_busy_poll {
    unsigned us;       /* SO_BUSY_POLL: how long a look for packets may poll */
    bool is_preferred; /* SO_PREFER_BUSY_POLL: interrupts stay off as long as polls come often
                          enough (needs napi_defer_hard_irqs and gro_flush_timeout) */
    unsigned budget; /* SO_BUSY_POLL_BUDGET: packets of one poll, at most 65535; the kernel's: 8 */
};

/* Sets the options of a socket, of any kind.
 * Context: any thread; never suspends; up to three system calls.
 * Errors:  -EPERM a preference, a budget and, on older kernels, a time take CAP_NET_ADMIN;
 * -ENOPROTOOPT, -EINVAL the kernel does not know the option (the last two: since Linux 5.11), or
 * the value; the detail names it. Options before the refused one stay set. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_busy_poll_set(int fd, const struct numio_busy_poll *how);

NUMIO_END_DECLS

#endif
