/* SPDX-License-Identifier: MIT */
/* How each opcode is done without io_uring, and without ever blocking the worker:
 *
 *   recv, send, recvmsg, sendmsg   MSG_DONTWAIT, then wait for the socket
 *   read, write on a socket        the same calls
 *   read, write on other streams   RWF_NOWAIT; before Linux 6.4, which has it not for pipes, a pipe
 *                                  is opened anew with O_NONBLOCK for the one call; what can do
 *                                  neither (a terminal) is asked by poll(2), and once that says
 *                                  ready, used on a pool thread, as another reader may be faster
 *   pread of a file                RWF_NOWAIT if it is all in the page cache, else a pool thread
 *   other file operations          a pool thread
 *   accept                         the listening socket is made O_NONBLOCK for good: a look with
 *                                  poll(2) first would block when another worker is faster
 *   connect                        O_NONBLOCK for the one call, then wait
 *   poll                           poll(2), then wait
 *
 * As with io_uring, all of them wait whether or not the descriptor is O_NONBLOCK; only MSG_DONTWAIT
 * asks for an attempt.
 */
#include "runtime/driver/epoll_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "runtime/driver/op_link.h"

/* The events of poll(2), without the flags of epoll_ctl(2). */
static const uint32_t poll_bits = 0x3fff;

/* A waiting connect has been started: only its outcome is to be fetched. */
enum { CONNECT_STARTED = 1 };

static struct io_uring_sqe image_of(const struct numio_op *op)
{
    struct io_uring_sqe sqe;
    memcpy(&sqe, op->_sqe, sizeof sqe);
    return sqe;
}

static void *address(uint64_t value)
{
    return (void *)(uintptr_t)value;
}

static int32_t result_of(ssize_t value)
{
    return value < 0 ? -errno : (int32_t)value;
}

static enum nio_attempt ended(int32_t result, int32_t *ret_result)
{
    *ret_result = result;
    return NIO_ATTEMPT_ENDED;
}

static bool is_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_NONBLOCK);
}

/* What a socket call that must not block has brought. */
static enum nio_attempt judge(unsigned msg_flags, int32_t result, int32_t *ret_result)
{
    if (result == -EAGAIN && !(msg_flags & MSG_DONTWAIT))
        return NIO_ATTEMPT_WAIT;
    return ended(result, ret_result);
}

/* ---- sockets ------------------------------------------------------------------------------ */

/* Of MSG_WAITALL, as the kernel has it on a ring: a datagram is all there is. */
static bool goes_on(int fd)
{
    int type = 0;
    socklen_t bytes = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 &&
           (type == SOCK_STREAM || type == SOCK_SEQPACKET);
}

/* A receive or a send.  MSG_WAITALL goes on until all has been moved; what was so far is counted in
 * op->_result. */
static enum nio_attempt attempt_bytes(struct numio_op *op, const struct io_uring_sqe *sqe,
                                      int32_t *ret_result)
{
    char *bytes = address(sqe->addr);
    int32_t done = op->_result, result;
    size_t left = sqe->len - (unsigned)done;
    int flags = (int)(sqe->msg_flags | MSG_DONTWAIT);
    if (sqe->opcode == IORING_OP_RECV)
        result = result_of(recv(sqe->fd, bytes + done, left, flags));
    else
        result = result_of(send(sqe->fd, bytes + done, left, flags | MSG_NOSIGNAL));
    if (!(sqe->msg_flags & MSG_WAITALL) || (sqe->msg_flags & MSG_PEEK))
        return judge(sqe->msg_flags, result, ret_result);
    if (result > 0 && (size_t)result < left && goes_on(sqe->fd)) {
        op->_result = done + result;
        result = -EAGAIN;
    } else if (result > 0) {
        return ended(done + result, ret_result);
    }
    enum nio_attempt attempt = judge(sqe->msg_flags, result, ret_result);
    if (attempt == NIO_ATTEMPT_ENDED && op->_result > 0)
        *ret_result = op->_result; /* the end or an error after some bytes */
    return attempt;
}

static enum nio_attempt attempt_accept(const struct io_uring_sqe *sqe, int32_t *ret_result)
{
    int flags = fcntl(sqe->fd, F_GETFL);
    if (flags < 0 || (!(flags & O_NONBLOCK) && fcntl(sqe->fd, F_SETFL, flags | O_NONBLOCK) < 0))
        return ended(-errno, ret_result);
    int32_t result = result_of(
        accept4(sqe->fd, address(sqe->addr), address(sqe->addr2), (int)sqe->accept_flags));
    return result == -EAGAIN ? NIO_ATTEMPT_WAIT : ended(result, ret_result);
}

static enum nio_attempt start_connect(struct numio_op *op, const struct io_uring_sqe *sqe,
                                      int32_t *ret_result)
{
    int flags = fcntl(sqe->fd, F_GETFL);
    if (flags < 0)
        return ended(-errno, ret_result);
    bool was_blocking = !(flags & O_NONBLOCK);
    if (was_blocking && fcntl(sqe->fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return ended(-errno, ret_result);
    int32_t result = result_of(connect(sqe->fd, address(sqe->addr), (socklen_t)sqe->off));
    if (was_blocking)
        (void)fcntl(sqe->fd, F_SETFL, flags); /* cannot fail: it just worked */
    if (result == -EINPROGRESS) {
        op->_result = CONNECT_STARTED;
        return NIO_ATTEMPT_WAIT;
    }
    /* A Unix socket whose listener's backlog is full; nothing tells when it has room again. */
    return result == -EAGAIN ? NIO_ATTEMPT_BLOCK : ended(result, ret_result);
}

static enum nio_attempt attempt_connect(struct numio_op *op, const struct io_uring_sqe *sqe,
                                        int32_t *ret_result)
{
    if (op->_result != CONNECT_STARTED)
        return start_connect(op, sqe, ret_result);
    struct pollfd ready = { .fd = sqe->fd, .events = POLLOUT };
    int count = poll(&ready, 1, 0);
    if (count == 0)
        return NIO_ATTEMPT_WAIT;
    int error = 0;
    socklen_t bytes = sizeof error;
    if (count < 0 || getsockopt(sqe->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
        error = errno;
    return ended(-error, ret_result);
}

static enum nio_attempt attempt_poll(const struct io_uring_sqe *sqe, int32_t *ret_result)
{
    struct pollfd ready = { .fd = sqe->fd, .events = (short)sqe->poll32_events };
    int count = poll(&ready, 1, 0);
    if (count < 0)
        return ended(-errno, ret_result);
    if (count == 0)
        return NIO_ATTEMPT_WAIT;
    return ended(ready.revents & POLLNVAL ? -EBADF : ready.revents, ret_result);
}

/* ---- read and write ----------------------------------------------------------------------- */

/* The buffers of a read or write, whichever form it has. */
struct transfer {
    struct iovec one;
    struct iovec *iov;
    int count;
    int64_t offset;
    bool is_write;
};

static void describe(const struct io_uring_sqe *sqe, struct transfer *ret)
{
    ret->is_write = sqe->opcode == IORING_OP_WRITE || sqe->opcode == IORING_OP_WRITEV;
    ret->offset = (int64_t)sqe->off;
    if (sqe->opcode == IORING_OP_READV || sqe->opcode == IORING_OP_WRITEV) {
        ret->iov = address(sqe->addr);
        ret->count = (int)sqe->len;
    } else {
        ret->one = (struct iovec){ address(sqe->addr), sqe->len };
        ret->iov = &ret->one;
        ret->count = 1;
    }
}

static int32_t transfer_socket(int fd, const struct transfer *transfer)
{
    struct msghdr message = { .msg_iov = transfer->iov, .msg_iovlen = (size_t)transfer->count };
    return result_of(transfer->is_write ? sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
                                        : recvmsg(fd, &message, MSG_DONTWAIT));
}

/* With offset -1, and no flags, these are readv(2) and writev(2). */
static int32_t transfer_file(int fd, const struct transfer *transfer, int64_t offset, int flags)
{
    return result_of(transfer->is_write
                         ? pwritev2(fd, transfer->iov, transfer->count, offset, flags)
                         : preadv2(fd, transfer->iov, transfer->count, offset, flags));
}

/* A pipe without RWF_NOWAIT: a second description of it may be O_NONBLOCK without anybody else
 * noticing.  -EOPNOTSUPP: it cannot be opened (no /proc, no right, nobody at the other end). */
static int32_t transfer_reopened(int fd, const struct transfer *transfer)
{
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* fits */
    int own = open(path, (transfer->is_write ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
    if (own < 0)
        return -EOPNOTSUPP;
    int32_t result = transfer_file(own, transfer, -1, 0);
    (void)close(own); /* the pipe stays open by `fd` */
    return result;
}

/* A pipe, terminal, eventfd and so on. */
static enum nio_attempt transfer_stream(int fd, bool is_pipe, const struct transfer *transfer,
                                        int32_t *ret_result)
{
    int32_t result = transfer_file(fd, transfer, -1, is_nonblocking(fd) ? 0 : RWF_NOWAIT);
    if (result == -EOPNOTSUPP && is_pipe)
        result = transfer_reopened(fd, transfer);
    if (result == -EAGAIN)
        return NIO_ATTEMPT_WAIT;
    if (result != -EOPNOTSUPP)
        return ended(result, ret_result);
    struct pollfd ready = { .fd = fd, .events = transfer->is_write ? POLLOUT : POLLIN };
    return poll(&ready, 1, 0) == 0 ? NIO_ATTEMPT_WAIT : NIO_ATTEMPT_BLOCK;
}

static enum nio_attempt transfer_cached(int fd, const struct transfer *transfer,
                                        int32_t *ret_result)
{
    if (transfer->is_write || transfer->offset == -1)
        return NIO_ATTEMPT_BLOCK;
    size_t wanted = 0;
    for (int i = 0; i < transfer->count; i++)
        wanted += transfer->iov[i].iov_len;
    int32_t result = transfer_file(fd, transfer, transfer->offset, RWF_NOWAIT);
    /* Fewer bytes are the end of the file, or the rest is not cached: a pool thread finds out. */
    if (result < 0 || (size_t)result != wanted)
        return NIO_ATTEMPT_BLOCK;
    return ended(result, ret_result);
}

static enum nio_attempt attempt_transfer(const struct io_uring_sqe *sqe, int32_t *ret_result)
{
    struct transfer transfer;
    struct stat stat;
    describe(sqe, &transfer);
    if (fstat(sqe->fd, &stat) < 0)
        return ended(-errno, ret_result);
    if (S_ISSOCK(stat.st_mode))
        return judge(0, transfer_socket(sqe->fd, &transfer), ret_result);
    if (S_ISREG(stat.st_mode) || S_ISBLK(stat.st_mode) || S_ISDIR(stat.st_mode))
        return transfer_cached(sqe->fd, &transfer, ret_result);
    if (S_ISCHR(stat.st_mode) && transfer.offset != -1)
        return NIO_ATTEMPT_BLOCK; /* perhaps a device with positions */
    return transfer_stream(sqe->fd, S_ISFIFO(stat.st_mode), &transfer, ret_result);
}

static enum nio_attempt attempt_close(const struct io_uring_sqe *sqe, int32_t *ret_result)
{
    struct stat stat;
    if (fstat(sqe->fd, &stat) == 0 && S_ISREG(stat.st_mode))
        return NIO_ATTEMPT_BLOCK; /* a network file system writes back now */
    return ended(result_of(close(sqe->fd)), ret_result);
}

/* ---- all of them -------------------------------------------------------------------------- */

static enum nio_attempt attempt(struct numio_op *op, const struct io_uring_sqe *sqe,
                                int32_t *ret_result)
{
    unsigned flags = sqe->msg_flags;
    switch (sqe->opcode) {
    case IORING_OP_NOP:
        return ended(0, ret_result);
    case IORING_OP_RECV:
    case IORING_OP_SEND:
    case IORING_OP_SEND_ZC: /* copied here: the memory is free at once */
        return attempt_bytes(op, sqe, ret_result);
    case IORING_OP_RECVMSG:
        return judge(flags,
                     result_of(recvmsg(sqe->fd, address(sqe->addr), (int)(flags | MSG_DONTWAIT))),
                     ret_result);
    case IORING_OP_SENDMSG:
        return judge(flags,
                     result_of(sendmsg(sqe->fd, address(sqe->addr),
                                       (int)(flags | MSG_DONTWAIT | MSG_NOSIGNAL))),
                     ret_result);
    case IORING_OP_ACCEPT:
        return attempt_accept(sqe, ret_result);
    case IORING_OP_CONNECT:
        return attempt_connect(op, sqe, ret_result);
    case IORING_OP_POLL_ADD:
        return attempt_poll(sqe, ret_result);
    case IORING_OP_READ:
    case IORING_OP_WRITE:
    case IORING_OP_READV:
    case IORING_OP_WRITEV:
        return attempt_transfer(sqe, ret_result);
    case IORING_OP_SHUTDOWN:
        return ended(result_of(shutdown(sqe->fd, (int)sqe->len)), ret_result);
    case IORING_OP_CLOSE:
        return attempt_close(sqe, ret_result);
    case IORING_OP_FSYNC:
    case IORING_OP_OPENAT:
    case IORING_OP_OPENAT2:
    case IORING_OP_STATX:
    case IORING_OP_FALLOCATE:
    case IORING_OP_SYNC_FILE_RANGE:
    case IORING_OP_FADVISE:
    case IORING_OP_SPLICE:
    case IORING_OP_RENAMEAT:
    case IORING_OP_UNLINKAT:
    case IORING_OP_MKDIRAT:
    case IORING_OP_SYMLINKAT:
    case IORING_OP_LINKAT:
    case IORING_OP_GETXATTR:
    case IORING_OP_SETXATTR:
    case IORING_OP_FGETXATTR:
    case IORING_OP_FSETXATTR:
        return NIO_ATTEMPT_BLOCK;
    default:
        return ended(-ENOSYS, ret_result);
    }
}

int32_t nio_epoll_stopped(const struct numio_op *op, int32_t error)
{
    unsigned opcode = nio_op_opcode(op);
    bool counts =
        opcode == IORING_OP_RECV || opcode == IORING_OP_SEND || opcode == IORING_OP_SEND_ZC;
    return counts && op->_result > 0 ? op->_result : error;
}

enum nio_attempt nio_epoll_attempt(struct numio_op *op, bool is_first, int32_t *ret_result)
{
    struct io_uring_sqe sqe = image_of(op);
    if (sqe.flags & ~IOSQE_ASYNC)
        return ended(-ENOSYS, ret_result); /* registered files, links of a lonely operation */
    if (is_first)
        op->_result = 0;
    enum nio_attempt outcome = attempt(op, &sqe, ret_result);
    while (outcome == NIO_ATTEMPT_ENDED && *ret_result == -EINTR &&
           sqe.opcode != IORING_OP_CLOSE) /* bounded by the signals that come */
        outcome = attempt(op, &sqe, ret_result);
    return outcome;
}

static int32_t splice_once(const struct io_uring_sqe *sqe)
{
    loff_t in = (loff_t)sqe->splice_off_in, out = (loff_t)sqe->off;
    return result_of(splice(sqe->splice_fd_in, in == -1 ? NULL : &in, sqe->fd,
                            out == -1 ? NULL : &out, sqe->len, sqe->splice_flags));
}

/* Those that change names and attributes. */
static int32_t block_on_name(const struct io_uring_sqe *sqe)
{
    switch (sqe->opcode) {
    case IORING_OP_RENAMEAT:
        return result_of(renameat2(sqe->fd, address(sqe->addr), (int)sqe->len, address(sqe->addr2),
                                   sqe->rename_flags));
    case IORING_OP_UNLINKAT:
        return result_of(unlinkat(sqe->fd, address(sqe->addr), (int)sqe->unlink_flags));
    case IORING_OP_MKDIRAT:
        return result_of(mkdirat(sqe->fd, address(sqe->addr), sqe->len));
    case IORING_OP_SYMLINKAT:
        return result_of(symlinkat(address(sqe->addr), sqe->fd, address(sqe->addr2)));
    case IORING_OP_LINKAT:
        return result_of(linkat(sqe->fd, address(sqe->addr), (int)sqe->len, address(sqe->addr2),
                                (int)sqe->hardlink_flags));
    case IORING_OP_GETXATTR:
        return result_of(
            getxattr(address(sqe->addr3), address(sqe->addr), address(sqe->addr2), sqe->len));
    case IORING_OP_SETXATTR:
        return result_of(setxattr(address(sqe->addr3), address(sqe->addr), address(sqe->addr2),
                                  sqe->len, (int)sqe->xattr_flags));
    case IORING_OP_FGETXATTR:
        return result_of(fgetxattr(sqe->fd, address(sqe->addr), address(sqe->addr2), sqe->len));
    case IORING_OP_FSETXATTR:
        return result_of(fsetxattr(sqe->fd, address(sqe->addr), address(sqe->addr2), sqe->len,
                                   (int)sqe->xattr_flags));
    default:
        return -ENOSYS;
    }
}

static int32_t block_once(const struct io_uring_sqe *sqe)
{
    struct transfer transfer;
    int32_t result;
    switch (sqe->opcode) {
    case IORING_OP_READ:
    case IORING_OP_WRITE:
    case IORING_OP_READV:
    case IORING_OP_WRITEV:
        describe(sqe, &transfer);
        result = transfer_file(sqe->fd, &transfer, transfer.offset, 0);
        /* io_uring ignores the offset where there are no positions */
        return result == -ESPIPE ? transfer_file(sqe->fd, &transfer, -1, 0) : result;
    case IORING_OP_FSYNC:
        return result_of(sqe->fsync_flags & IORING_FSYNC_DATASYNC ? fdatasync(sqe->fd)
                                                                  : fsync(sqe->fd));
    case IORING_OP_OPENAT:
        return result_of(openat(sqe->fd, address(sqe->addr), (int)sqe->open_flags, sqe->len));
    case IORING_OP_OPENAT2: /* the length is that of the struct */
        return result_of(
            syscall(SYS_openat2, sqe->fd, address(sqe->addr), address(sqe->off), (size_t)sqe->len));
    case IORING_OP_CLOSE:
        return result_of(close(sqe->fd));
    case IORING_OP_STATX:
        return result_of(statx(sqe->fd, address(sqe->addr), (int)sqe->statx_flags, sqe->len,
                               address(sqe->addr2)));
    case IORING_OP_FALLOCATE:
        return result_of(fallocate(sqe->fd, (int)sqe->len, (off_t)sqe->off, (off_t)sqe->addr));
    case IORING_OP_CONNECT:
        return result_of(connect(sqe->fd, address(sqe->addr), (socklen_t)sqe->off));
    case IORING_OP_SYNC_FILE_RANGE:
        return result_of(
            sync_file_range(sqe->fd, (off_t)sqe->off, sqe->len, sqe->sync_range_flags));
    case IORING_OP_FADVISE: /* gives the error itself */
        return -posix_fadvise(sqe->fd, (off_t)sqe->off, sqe->len, (int)sqe->fadvise_advice);
    case IORING_OP_SPLICE:
        return splice_once(sqe);
    default:
        return block_on_name(sqe);
    }
}

int32_t nio_epoll_block(const struct numio_op *op)
{
    struct io_uring_sqe sqe = image_of(op);
    int32_t result = block_once(&sqe);
    while (result == -EINTR && sqe.opcode != IORING_OP_CLOSE &&
           sqe.opcode != IORING_OP_CONNECT) /* bounded by the signals that come */
        result = block_once(&sqe);
    return result;
}

uint32_t nio_epoll_events(const struct numio_op *op)
{
    struct io_uring_sqe sqe = image_of(op);
    switch (sqe.opcode) {
    case IORING_OP_SEND:
    case IORING_OP_SEND_ZC:
    case IORING_OP_SENDMSG:
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
    case IORING_OP_CONNECT:
        return EPOLLOUT;
    case IORING_OP_POLL_ADD:
        return sqe.poll32_events & poll_bits; /* the same bits for both */
    default:
        return EPOLLIN;
    }
}

int nio_epoll_op_fd(const struct numio_op *op)
{
    return image_of(op).fd;
}

bool nio_epoll_is_close(const struct numio_op *op)
{
    return nio_op_opcode(op) == IORING_OP_CLOSE;
}
