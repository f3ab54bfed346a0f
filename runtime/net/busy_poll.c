/* SPDX-License-Identifier: MIT */
/* The socket options of busy polling. */
#include <numio/busy_poll.h>

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>

#include "runtime/base/error.h"

static int set(int fd, int option, unsigned value, const char *name)
{
    if (value > INT_MAX)
        return nio_error(-EINVAL, "busy poll: %s = %u is more than %d", name, value, INT_MAX);
    int number = (int)value;
    if (setsockopt(fd, SOL_SOCKET, option, &number, sizeof number) == 0)
        return 0;
    return nio_error(-errno, "busy poll: %s = %d: %s%s", name, number, strerror(errno),
                     errno == EPERM ? "; it takes CAP_NET_ADMIN" : "");
}

int numio_busy_poll_set(int fd, const struct numio_busy_poll *how)
{
    int rc = how->us ? set(fd, SO_BUSY_POLL, how->us, "SO_BUSY_POLL") : 0;
    if (rc == 0 && how->is_preferred)
        rc = set(fd, SO_PREFER_BUSY_POLL, 1, "SO_PREFER_BUSY_POLL");
    if (rc == 0 && how->budget)
        rc = set(fd, SO_BUSY_POLL_BUDGET, how->budget, "SO_BUSY_POLL_BUDGET");
    return rc;
}
