/* SPDX-License-Identifier: MIT */
/* Fills the image of a request.  The image is made with liburing's own helpers in a local SQE and
 * copied, or is the same as they would make (the tests compare), so that each operation means
 * exactly what liburing's function of its name means, and a ring only has to copy 64 bytes.
 */
#include <numio/batch.h>

#include <liburing.h>
#include <string.h>

#include "runtime/driver/driver.h"
#include "runtime/driver/op_link.h"
#include "runtime/task/op_done.h"

_Static_assert(sizeof(struct io_uring_sqe) == sizeof(((struct numio_op *)0)->_sqe),
               "the image is one SQE");
_Static_assert(offsetof(struct io_uring_sqe, user_data) == NIO_OP_WORD_LINK * sizeof(uint64_t),
               "the link of a queued operation is the user_data field");
_Static_assert(sizeof(struct numio_op) == 128, "the size is part of the ABI");
_Static_assert(sizeof(struct __kernel_timespec) == sizeof(((struct numio_op *)0)->_time),
               "the timespec of a timeout fits");

#define IS_HALF(field, word, half)                                                                 \
    _Static_assert(offsetof(struct io_uring_sqe, field) == 8 * (word) + 4 * (half), "of the "      \
                                                                                    "image")
IS_HALF(opcode, 0, 0);
IS_HALF(fd, 0, 1);
IS_HALF(off, 1, 0);
IS_HALF(addr, 2, 0);
IS_HALF(len, 3, 0);
IS_HALF(rw_flags, 3, 1);
IS_HALF(msg_flags, 3, 1);
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first half of a word is the lower");

_Static_assert(NIO_OP_ASYNC == (uint64_t)IOSQE_ASYNC << 8, "likewise");
_Static_assert(NIO_OP_RELATIONS == (uint64_t)(IOSQE_IO_DRAIN | IOSQE_IO_LINK | IOSQE_IO_HARDLINK)
                                       << 8,
               "the flags are the second byte");

/* What one read or write moves at most (MAX_RW_COUNT in the kernel): more becomes a short one. */
static const size_t rw_bytes_max = 0x7ffff000;
static const uint64_t ns_per_s = 1000000000;

static unsigned rw_bytes(size_t len)
{
    return (unsigned)(len < rw_bytes_max ? len : rw_bytes_max);
}

/* Everything but the image, as NUMIO_OP_INIT leaves it. */
static inline void set_rest(struct numio_op *op)
{
    op->_task = NULL;
    op->_driver = NULL;
    op->_next = NULL;
    op->_prev = NULL;
    op->_result = 0;
    op->_state = NIO_OP_FRESH;
    op->_flags = 0;
    op->_place = NIO_OP_PLACE_RING;
}

static void set_image(struct numio_op *op, const struct io_uring_sqe *sqe)
{
    memcpy(op->_sqe, sqe, sizeof op->_sqe);
    set_rest(op);
}

/* The image of the four operations that servers consist of, by words: read, write, recv and send
 * have the same form.  Filled by bytes in a local SQE and copied by wide loads, it would wait for
 * its own stores. */
static inline void set_transfer(struct numio_op *op, unsigned opcode, int fd, const void *buf,
                                unsigned len, uint64_t off, int flags)
{
    op->_sqe[0] = opcode | (uint64_t)(uint32_t)fd << 32;
    op->_sqe[1] = off;
    op->_sqe[2] = (uintptr_t)buf;
    op->_sqe[3] = len | (uint64_t)(uint32_t)flags << 32;
    op->_sqe[4] = op->_sqe[5] = op->_sqe[6] = op->_sqe[7] = 0;
    set_rest(op);
}

void numio_op_read(struct numio_op *op, int fd, void *buf, size_t len, int64_t off)
{
    set_transfer(op, IORING_OP_READ, fd, buf, rw_bytes(len), (uint64_t)off, 0);
}

void numio_op_write(struct numio_op *op, int fd, const void *buf, size_t len, int64_t off)
{
    set_transfer(op, IORING_OP_WRITE, fd, buf, rw_bytes(len), (uint64_t)off, 0);
}

void numio_op_readv(struct numio_op *op, int fd, const struct iovec *iov, int count, int64_t off)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_readv(&sqe, fd, iov, (unsigned)count, (uint64_t)off);
    set_image(op, &sqe);
}

void numio_op_writev(struct numio_op *op, int fd, const struct iovec *iov, int count, int64_t off)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_writev(&sqe, fd, iov, (unsigned)count, (uint64_t)off);
    set_image(op, &sqe);
}

void numio_op_fsync(struct numio_op *op, int fd)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_fsync(&sqe, fd, 0);
    set_image(op, &sqe);
}

void numio_op_fdatasync(struct numio_op *op, int fd)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_fsync(&sqe, fd, IORING_FSYNC_DATASYNC);
    set_image(op, &sqe);
}

void numio_op_openat(struct numio_op *op, int dirfd, const char *path, int flags, mode_t mode)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_openat(&sqe, dirfd, path, flags, mode);
    set_image(op, &sqe);
}

void numio_op_openat2(struct numio_op *op, int dirfd, const char *path, const struct open_how *how)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_openat2(&sqe, dirfd, path, (struct open_how *)(uintptr_t)how);
    set_image(op, &sqe);
}

void numio_op_close(struct numio_op *op, int fd)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_close(&sqe, fd);
    set_image(op, &sqe);
}

void numio_op_statx(struct numio_op *op, int dirfd, const char *path, int flags, unsigned mask,
                    struct statx *ret_stat)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_statx(&sqe, dirfd, path, flags, mask, ret_stat);
    set_image(op, &sqe);
}

void numio_op_fallocate(struct numio_op *op, int fd, int mode, int64_t off, int64_t len)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_fallocate(&sqe, fd, mode, off, len);
    set_image(op, &sqe);
}

void numio_op_sync_file_range(struct numio_op *op, int fd, int64_t off, unsigned len,
                              unsigned flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_sync_file_range(&sqe, fd, len, (uint64_t)off, (int)flags);
    set_image(op, &sqe);
}

void numio_op_fadvise(struct numio_op *op, int fd, int64_t off, unsigned len, int advice)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_fadvise(&sqe, fd, (uint64_t)off, len, advice);
    set_image(op, &sqe);
}

void numio_op_splice(struct numio_op *op, int fd_in, int64_t off_in, int fd_out, int64_t off_out,
                     unsigned len, unsigned flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_splice(&sqe, fd_in, off_in, fd_out, off_out, len, flags);
    set_image(op, &sqe);
}

void numio_op_renameat(struct numio_op *op, int olddirfd, const char *oldpath, int newdirfd,
                       const char *newpath, unsigned flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_renameat(&sqe, olddirfd, oldpath, newdirfd, newpath, flags);
    set_image(op, &sqe);
}

void numio_op_unlinkat(struct numio_op *op, int dirfd, const char *path, int flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_unlinkat(&sqe, dirfd, path, flags);
    set_image(op, &sqe);
}

void numio_op_mkdirat(struct numio_op *op, int dirfd, const char *path, mode_t mode)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_mkdirat(&sqe, dirfd, path, mode);
    set_image(op, &sqe);
}

void numio_op_symlinkat(struct numio_op *op, const char *target, int dirfd, const char *path)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_symlinkat(&sqe, target, dirfd, path);
    set_image(op, &sqe);
}

void numio_op_linkat(struct numio_op *op, int olddirfd, const char *oldpath, int newdirfd,
                     const char *newpath, int flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_linkat(&sqe, olddirfd, oldpath, newdirfd, newpath, flags);
    set_image(op, &sqe);
}

void numio_op_getxattr(struct numio_op *op, const char *path, const char *name, void *value,
                       unsigned size)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_getxattr(&sqe, name, value, path, size);
    set_image(op, &sqe);
}

void numio_op_setxattr(struct numio_op *op, const char *path, const char *name, const void *value,
                       unsigned size, int flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_setxattr(&sqe, name, value, path, flags, size);
    set_image(op, &sqe);
}

void numio_op_fgetxattr(struct numio_op *op, int fd, const char *name, void *value, unsigned size)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_fgetxattr(&sqe, fd, name, value, size);
    set_image(op, &sqe);
}

void numio_op_fsetxattr(struct numio_op *op, int fd, const char *name, const void *value,
                        unsigned size, int flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_fsetxattr(&sqe, fd, name, value, flags, size);
    set_image(op, &sqe);
}

void numio_op_accept(struct numio_op *op, int fd, struct sockaddr *addr, socklen_t *addr_len,
                     int flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_accept(&sqe, fd, addr, addr_len, flags);
    set_image(op, &sqe);
}

void numio_op_connect(struct numio_op *op, int fd, const struct sockaddr *addr, socklen_t addr_len)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_connect(&sqe, fd, addr, addr_len);
    set_image(op, &sqe);
}

void numio_op_recv(struct numio_op *op, int fd, void *buf, size_t len, int flags)
{
    set_transfer(op, IORING_OP_RECV, fd, buf, rw_bytes(len), 0, flags);
}

void numio_op_send(struct numio_op *op, int fd, const void *buf, size_t len, int flags)
{
    set_transfer(op, IORING_OP_SEND, fd, buf, rw_bytes(len), 0, flags);
}

void numio_op_send_zc(struct numio_op *op, int fd, const void *buf, size_t len, int flags)
{
    set_transfer(op, IORING_OP_SEND_ZC, fd, buf, rw_bytes(len), 0, flags);
}

void numio_op_recvmsg(struct numio_op *op, int fd, struct msghdr *msg, int flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_recvmsg(&sqe, fd, msg, (unsigned)flags);
    set_image(op, &sqe);
}

void numio_op_sendmsg(struct numio_op *op, int fd, const struct msghdr *msg, int flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_sendmsg(&sqe, fd, msg, (unsigned)flags);
    set_image(op, &sqe);
}

void numio_op_shutdown(struct numio_op *op, int fd, int how)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_shutdown(&sqe, fd, how);
    set_image(op, &sqe);
}

void numio_op_poll_fd(struct numio_op *op, int fd, uint32_t events)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_poll_add(&sqe, fd, events);
    set_image(op, &sqe);
}

void numio_op_timeout(struct numio_op *op, uint64_t delay_ns)
{
    struct io_uring_sqe sqe = { 0 };
    op->_time[0] = (int64_t)(delay_ns / ns_per_s);
    op->_time[1] = (int64_t)(delay_ns % ns_per_s);
    io_uring_prep_timeout(&sqe, NULL, 0, 0); /* kept by the driver: time/wheel.h */
    set_image(op, &sqe);
    op->_place = NIO_OP_PLACE_TIMER;
}

void numio_op_timeout_at(struct numio_op *op, uint64_t deadline_ns)
{
    numio_op_timeout(op, 0);
    op->_time[0] = (int64_t)deadline_ns;
    op->_time[1] = NIO_OP_TIME_IS_POINT;
}

void numio_op_link_timeout(struct numio_op *op, uint64_t limit_ns)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_link_timeout(&sqe, NULL, 0); /* where the time stands is said at its submission */
    set_image(op, &sqe);
    op->_time[0] = (int64_t)(limit_ns / ns_per_s);
    op->_time[1] = (int64_t)(limit_ns % ns_per_s);
}

void numio_op_link(struct numio_op *op)
{
    op->_sqe[0] |= NIO_OP_LINK;
}

void numio_op_hardlink(struct numio_op *op)
{
    op->_sqe[0] |= NIO_OP_HARDLINK;
}

void numio_op_drain(struct numio_op *op)
{
    op->_sqe[0] |= NIO_OP_DRAIN;
}

int64_t numio_op_result(const struct numio_op *op)
{
    return op->_result;
}

void numio_op_nop(struct numio_op *op)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_nop(&sqe);
    set_image(op, &sqe);
}

void numio_op_prep(struct numio_op *op, void (*prep)(struct io_uring_sqe *sqe, void *arg),
                   void *arg)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_nop(&sqe);
    prep(&sqe, arg);
    set_image(op, &sqe);
}

bool nio_op_is_known(const struct numio_op *op, enum numio_driver profile, uint64_t opcodes)
{
    unsigned opcode = nio_op_opcode(op);
    return profile == NUMIO_DRIVER_EPOLL || (opcode < 64 && (opcodes >> opcode & 1));
}

void nio_op_into_table(struct numio_op *op)
{
    struct io_uring_sqe sqe;
    memcpy(&sqe, op->_sqe, sizeof sqe);
    sqe.file_index = (uint32_t)IORING_FILE_INDEX_ALLOC;
    memcpy(op->_sqe, &sqe, sizeof sqe);
}

bool nio_op_makes_direct(const struct numio_op *op)
{
    struct io_uring_sqe sqe;
    memcpy(&sqe, op->_sqe, sizeof sqe);
    bool is_maker = sqe.opcode == IORING_OP_ACCEPT || sqe.opcode == IORING_OP_OPENAT ||
                    sqe.opcode == IORING_OP_SOCKET;
    return is_maker && sqe.file_index == (uint32_t)IORING_FILE_INDEX_ALLOC;
}

void nio_op_socket(struct numio_op *op, int domain, int type, int protocol)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_socket(&sqe, domain, type, protocol, 0);
    set_image(op, &sqe);
}

void nio_op_files_update(struct numio_op *op, int *fd)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_files_update(&sqe, fd, 1, 0);
    sqe.off = (uint32_t)IORING_FILE_INDEX_ALLOC;
    set_image(op, &sqe);
}

bool nio_op_is_link_timeout(const struct numio_op *op)
{
    return nio_op_opcode(op) == IORING_OP_LINK_TIMEOUT;
}

bool nio_op_is_timeout(const struct numio_op *op)
{
    return nio_op_opcode(op) == IORING_OP_TIMEOUT;
}

bool nio_op_has_failed(const struct numio_op *op, int32_t result)
{
    struct io_uring_sqe sqe;
    size_t wanted = 0;
    memcpy(&sqe, op->_sqe, sizeof sqe);
    switch (sqe.opcode) {
    case IORING_OP_RECV:
    case IORING_OP_SEND:
    case IORING_OP_SEND_ZC:
        wanted = sqe.msg_flags & MSG_WAITALL ? sqe.len : 0;
        break;
    case IORING_OP_READ:
    case IORING_OP_WRITE:
        wanted = sqe.len;
        break;
    case IORING_OP_READV:
    case IORING_OP_WRITEV:
        for (unsigned i = 0; i < sqe.len; i++)
            wanted += ((const struct iovec *)(uintptr_t)sqe.addr)[i].iov_len;
        break;
    default:
        break;
    }
    return result < 0 || (size_t)result < wanted;
}

bool nio_op_makes_fd(const struct numio_op *op)
{
    struct io_uring_sqe sqe;
    memcpy(&sqe, op->_sqe, sizeof sqe);
    bool is_maker = sqe.opcode == IORING_OP_ACCEPT || sqe.opcode == IORING_OP_OPENAT ||
                    sqe.opcode == IORING_OP_OPENAT2 || sqe.opcode == IORING_OP_SOCKET;
    return is_maker && sqe.file_index == 0; /* else the result is an index of the file table */
}
