/* SPDX-License-Identifier: MIT */
/* NAPI busy polling of a ring: whoever waits on the ring, or its SQ thread, polls the queues of the
 * interfaces that its sockets receive from.  liburing 2.3 lacks it, so it is reached by number. */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/driver/uring.h"

/* Since Linux 6.9; the kernel's struct io_uring_napi, whose later fields stay zero here. */
enum { REGISTER_NAPI = 27 };
struct napi {
    uint32_t busy_poll_us; /* the kernel writes what was set before to both */
    uint8_t is_preferred;
    uint8_t zero[11];
};
_Static_assert(sizeof(struct napi) == 16, "the kernel copies as much");

static const char *why(int error)
{
    switch (error) {
    case EINVAL:
        return "the kernel does not know it (since Linux 6.9)";
    case EOPNOTSUPP:
        return "the kernel was built without CONFIG_NET_RX_BUSY_POLL";
    default:
        return strerrordesc_np(error);
    }
}

void nio_uring_set_napi(struct nio_uring *uring, const struct nio_driver_options *options)
{
    struct napi napi = { .busy_poll_us = options->napi_us, .is_preferred = options->napi_prefer };
    if (options->napi_us == 0)
        return;
    if (syscall(SYS_io_uring_register, uring->ring.ring_fd, REGISTER_NAPI, &napi, 1) == 0)
        uring->base.napi_us = options->napi_us;
    else
        nio_driver_add_reason(&uring->base, "the rings do not busy-poll: %s", why(errno));
}
