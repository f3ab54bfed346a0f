/* SPDX-License-Identifier: MIT */
/* The typed calls of coroutines: prepare on the stack, await. */
#include <numio/io.h>

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "runtime/sched/await.h"

int64_t numio_read(int fd, void *buf, size_t len)
{
    return numio_pread(fd, buf, len, -1);
}

int64_t numio_write(int fd, const void *buf, size_t len)
{
    return numio_pwrite(fd, buf, len, -1);
}

int64_t numio_pread(int fd, void *buf, size_t len, int64_t off)
{
    struct numio_op op;
    numio_op_read(&op, fd, buf, len, off);
    return numio_op_await(&op);
}

int64_t numio_pwrite(int fd, const void *buf, size_t len, int64_t off)
{
    struct numio_op op;
    numio_op_write(&op, fd, buf, len, off);
    return numio_op_await(&op);
}

int64_t numio_readv(int fd, const struct iovec *iov, int count, int64_t off)
{
    struct numio_op op;
    numio_op_readv(&op, fd, iov, count, off);
    return numio_op_await(&op);
}

int64_t numio_writev(int fd, const struct iovec *iov, int count, int64_t off)
{
    struct numio_op op;
    numio_op_writev(&op, fd, iov, count, off);
    return numio_op_await(&op);
}

/* True for a result after which the same call is simply made again.  -EAGAIN is not: no call gives
 * it unless it was asked not to wait, or waited as long as the socket's time-out says. */
static bool is_transient(int64_t result)
{
    return result == -EINTR;
}

int64_t numio_pread_all(int fd, void *buf, size_t len, int64_t off)
{
    size_t done = 0;
    while (done < len) {
        int64_t n =
            numio_pread(fd, (char *)buf + done, len - done, off < 0 ? -1 : off + (int64_t)done);
        if (n == 0)
            break;
        if (n < 0 && !is_transient(n))
            return n;
        done += n > 0 ? (size_t)n : 0;
    }
    return (int64_t)done;
}

int64_t numio_pwrite_all(int fd, const void *buf, size_t len, int64_t off)
{
    size_t done = 0;
    while (done < len) {
        int64_t n = numio_pwrite(fd, (const char *)buf + done, len - done,
                                 off < 0 ? -1 : off + (int64_t)done);
        if (n == 0)
            return -ENOSPC;
        if (n < 0 && !is_transient(n))
            return n;
        done += n > 0 ? (size_t)n : 0;
    }
    return (int64_t)done;
}

int64_t numio_write_all(int fd, const void *buf, size_t len)
{
    return numio_pwrite_all(fd, buf, len, -1);
}

int64_t numio_fsync(int fd)
{
    struct numio_op op;
    numio_op_fsync(&op, fd);
    return numio_op_await(&op);
}

int64_t numio_fdatasync(int fd)
{
    struct numio_op op;
    numio_op_fdatasync(&op, fd);
    return numio_op_await(&op);
}

int64_t numio_fallocate(int fd, int mode, int64_t off, int64_t len)
{
    struct numio_op op;
    numio_op_fallocate(&op, fd, mode, off, len);
    return numio_op_await(&op);
}

int64_t numio_openat(int dirfd, const char *path, int flags, mode_t mode)
{
    struct numio_op op;
    numio_op_openat(&op, dirfd, path, flags, mode);
    return numio_op_await(&op);
}

int64_t numio_open(const char *path, int flags, mode_t mode)
{
    return numio_openat(AT_FDCWD, path, flags, mode);
}

int64_t numio_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *ret_stat)
{
    struct numio_op op;
    numio_op_statx(&op, dirfd, path, flags, mask, ret_stat);
    return numio_op_await(&op);
}

int64_t numio_close(int fd)
{
    struct numio_op op;
    numio_op_close(&op, fd);
    return numio_op_await(&op);
}

int64_t numio_accept(int fd, struct sockaddr *addr, socklen_t *addr_len, int flags)
{
    struct numio_op op;
    numio_op_accept(&op, fd, addr, addr_len, flags);
    return numio_op_await(&op);
}

int64_t numio_connect(int fd, const struct sockaddr *addr, socklen_t addr_len)
{
    struct numio_op op;
    numio_op_connect(&op, fd, addr, addr_len);
    return numio_op_await(&op);
}

int64_t numio_recv(int fd, void *buf, size_t len, int flags)
{
    struct numio_op op;
    numio_op_recv(&op, fd, buf, len, flags);
    return numio_op_await(&op);
}

int64_t numio_send(int fd, const void *buf, size_t len, int flags)
{
    struct numio_op op;
    numio_op_send(&op, fd, buf, len, flags);
    return numio_op_await(&op);
}

int64_t numio_send_zc(int fd, const void *buf, size_t len, int flags)
{
    struct numio_op op;
    numio_op_send_zc(&op, fd, buf, len, flags);
    int64_t result = nio_knows_op(&op) ? numio_op_await(&op) : -EOPNOTSUPP;
    return result == -EOPNOTSUPP ? numio_send(fd, buf, len, flags) : result;
}

int64_t numio_send_all(int fd, const void *buf, size_t len, int flags)
{
    size_t done = 0;
    while (done < len) {
        int64_t n = numio_send(fd, (const char *)buf + done, len - done, flags | MSG_NOSIGNAL);
        if (n < 0 && !is_transient(n))
            return n;
        done += n > 0 ? (size_t)n : 0;
    }
    return (int64_t)done;
}

int64_t numio_recv_all(int fd, void *buf, size_t len, int flags)
{
    size_t done = 0;
    while (done < len) {
        int64_t n = numio_recv(fd, (char *)buf + done, len - done, flags);
        if (n == 0)
            break;
        if (n < 0 && !is_transient(n))
            return n;
        done += n > 0 ? (size_t)n : 0;
    }
    return (int64_t)done;
}

int64_t numio_recvmsg(int fd, struct msghdr *msg, int flags)
{
    struct numio_op op;
    numio_op_recvmsg(&op, fd, msg, flags);
    return numio_op_await(&op);
}

int64_t numio_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct numio_op op;
    numio_op_sendmsg(&op, fd, msg, flags);
    return numio_op_await(&op);
}

int64_t numio_shutdown(int fd, int how)
{
    struct numio_op op;
    numio_op_shutdown(&op, fd, how);
    return numio_op_await(&op);
}

int64_t numio_poll_fd(int fd, uint32_t events)
{
    struct numio_op op;
    numio_op_poll_fd(&op, fd, events);
    return numio_op_await(&op);
}
