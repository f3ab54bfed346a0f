/* SPDX-License-Identifier: MIT */
/* Pipes, and forwarding from a reader to a writer. */
#include <numio/pipe.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "runtime/base/error.h"

static int set_room(int fd, size_t bytes)
{
    if (bytes > INT_MAX)
        return nio_error(-EINVAL, "pipe: room for %zu bytes is more than a pipe can have", bytes);
    if (fcntl(fd, F_SETPIPE_SZ, (int)bytes) >= 0)
        return 0;
    return nio_error(-errno,
                     "pipe: no room for %zu bytes; see /proc/sys/fs/pipe-max-size and, for all "
                     "pipes of a user, /proc/sys/fs/pipe-user-pages-soft",
                     bytes);
}

int numio_pipe(int ret_fds[2], size_t bytes)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return -errno;
    int rc = bytes > 0 ? set_room(fds[1], bytes) : 0;
    if (rc < 0) {
        (void)close(fds[0]); /* fresh and empty: nothing to lose */
        (void)close(fds[1]);
        return rc;
    }
    ret_fds[0] = fds[0];
    ret_fds[1] = fds[1];
    return 0;
}

int64_t numio_forward(struct numio_reader *reader, struct numio_writer *writer, uint64_t limit,
                      uint64_t *done)
{
    /* What came in one piece goes on at once: the next may be long in coming. */
    int64_t rc = numio_writer_flush(writer);
    while (rc == 0 && *done < limit) {
        const char *bytes;
        size_t taken = 0;
        int64_t n = numio_reader_peek(reader, 1, &bytes);
        if (n <= 0)
            return n;
        size_t len = (uint64_t)n < limit - *done ? (size_t)n : (size_t)(limit - *done);
        rc = numio_writer_write(writer, bytes, len, &taken);
        *done += numio_reader_skip(reader, taken);
        if (rc == 0)
            rc = numio_writer_flush(writer);
    }
    return rc;
}
