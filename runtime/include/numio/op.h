/* SPDX-License-Identifier: MIT */
/* numio/op.h: one I/O operation, from its preparation to its completion.
 *
 * A coroutine needs none of this: the calls of <numio/io.h> prepare an operation on its stack,
 * submit it and suspend until it has ended.  A future embeds a struct numio_op in its state,
 * prepares it with one of the numio_op_* functions, starts it, and polls it.  From
 * numio_op_start() until numio_op_poll() says NUMIO_READY, the operation and every buffer it
 * names belong to the runtime and the kernel; an aborted future's state is dropped only after
 * its last operation has ended.
 *
 * numio_op_prep() is the escape hatch: its callback gets the SQE itself (struct io_uring_sqe of
 * <liburing.h>), so that whatever liburing can prepare is reachable.  The callback must leave
 * user_data alone and prepare an operation that posts one completion.
 */
#ifndef NUMIO_OP_H
#define NUMIO_OP_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <numio/task.h>

NUMIO_BEGIN_DECLS

struct io_uring_sqe;
struct msghdr;
struct open_how;
struct statx;
struct numio_op;

/* All fields are private; the size is part of the ABI. */
struct numio_op {
    uint64_t _sqe[8];       /* the request as an SQE; constant once started */
    struct nio_task *_task; /* who is woken; constant once started */
    void *_driver;          /* the ring it went to; constant once started */
    struct numio_op *_next; /* the future's list of started operations */
    struct numio_op *_prev;
    int64_t _time[2]; /* storage for a timeout's timespec */
    int32_t _result;  /* written by the reaper before _state */
    uint32_t _state;  /* enum nio_op_state, atomic */
    uint32_t _flags;  /* owner of the operation */
    uint32_t _place;  /* where the driver has it */
};

/* Every field, so that compilers that warn of missing ones have nothing to say. */
#define NUMIO_OP_INIT                                                                              \
    {                                                                                              \
        { 0 }, NULL, NULL, NULL, NULL, { 0 }, 0, 0, 0, 0                                           \
    }

/* Prepare an operation.  They mirror the system calls of the same name; `off` -1 means the
 * file's own position.
 * Context: any; never suspend, never fail; `op` must not be in flight.
 * Owns:    buffers, addresses and message headers stay the caller's and must live until the
 *          operation has ended. */
NUMIO_EXPORT void numio_op_read(struct numio_op *op, int fd, void *buf, size_t len, int64_t off);
NUMIO_EXPORT void numio_op_write(struct numio_op *op, int fd, const void *buf, size_t len,
                                 int64_t off);
NUMIO_EXPORT void numio_op_readv(struct numio_op *op, int fd, const struct iovec *iov, int count,
                                 int64_t off);
NUMIO_EXPORT void numio_op_writev(struct numio_op *op, int fd, const struct iovec *iov, int count,
                                  int64_t off);
NUMIO_EXPORT void numio_op_fsync(struct numio_op *op, int fd);
NUMIO_EXPORT void numio_op_fdatasync(struct numio_op *op, int fd);
NUMIO_EXPORT void numio_op_openat(struct numio_op *op, int dirfd, const char *path, int flags,
                                  mode_t mode);
NUMIO_EXPORT void numio_op_openat2(struct numio_op *op, int dirfd, const char *path,
                                   const struct open_how *how);
NUMIO_EXPORT void numio_op_close(struct numio_op *op, int fd);
NUMIO_EXPORT void numio_op_statx(struct numio_op *op, int dirfd, const char *path, int flags,
                                 unsigned mask, struct statx *ret_stat);
NUMIO_EXPORT void numio_op_fallocate(struct numio_op *op, int fd, int mode, int64_t off,
                                     int64_t len);
NUMIO_EXPORT void numio_op_sync_file_range(struct numio_op *op, int fd, int64_t off, unsigned len,
                                           unsigned flags);
NUMIO_EXPORT void numio_op_fadvise(struct numio_op *op, int fd, int64_t off, unsigned len,
                                   int advice);
/* From one descriptor to another, of which one is a pipe; offset -1 for pipes. */
NUMIO_EXPORT void numio_op_splice(struct numio_op *op, int fd_in, int64_t off_in, int fd_out,
                                  int64_t off_out, unsigned len, unsigned flags);
NUMIO_EXPORT void numio_op_renameat(struct numio_op *op, int olddirfd, const char *oldpath,
                                    int newdirfd, const char *newpath, unsigned flags);
NUMIO_EXPORT void numio_op_unlinkat(struct numio_op *op, int dirfd, const char *path, int flags);
/* These need Linux 5.15, and those of extended attributes 5.19, or the profile epoll; the calls of
 * <numio/fs.h> do not. */
NUMIO_EXPORT void numio_op_mkdirat(struct numio_op *op, int dirfd, const char *path, mode_t mode);
NUMIO_EXPORT void numio_op_symlinkat(struct numio_op *op, const char *target, int dirfd,
                                     const char *path);
NUMIO_EXPORT void numio_op_linkat(struct numio_op *op, int olddirfd, const char *oldpath,
                                  int newdirfd, const char *newpath, int flags);
NUMIO_EXPORT void numio_op_getxattr(struct numio_op *op, const char *path, const char *name,
                                    void *value, unsigned size);
NUMIO_EXPORT void numio_op_setxattr(struct numio_op *op, const char *path, const char *name,
                                    const void *value, unsigned size, int flags);
NUMIO_EXPORT void numio_op_fgetxattr(struct numio_op *op, int fd, const char *name, void *value,
                                     unsigned size);
NUMIO_EXPORT void numio_op_fsetxattr(struct numio_op *op, int fd, const char *name,
                                     const void *value, unsigned size, int flags);
NUMIO_EXPORT void numio_op_accept(struct numio_op *op, int fd, struct sockaddr *addr,
                                  socklen_t *addr_len, int flags);
NUMIO_EXPORT void numio_op_connect(struct numio_op *op, int fd, const struct sockaddr *addr,
                                   socklen_t addr_len);
NUMIO_EXPORT void numio_op_recv(struct numio_op *op, int fd, void *buf, size_t len, int flags);
NUMIO_EXPORT void numio_op_send(struct numio_op *op, int fd, const void *buf, size_t len,
                                int flags);
/* Without a copy: `buf` is the caller's again when the operation has ended, which is when the
 * network has let go of it (TCP: when it is acknowledged).  Linux 6.0; under the profile epoll as
 * numio_op_send(). */
NUMIO_EXPORT void numio_op_send_zc(struct numio_op *op, int fd, const void *buf, size_t len,
                                   int flags);
NUMIO_EXPORT void numio_op_recvmsg(struct numio_op *op, int fd, struct msghdr *msg, int flags);
NUMIO_EXPORT void numio_op_sendmsg(struct numio_op *op, int fd, const struct msghdr *msg,
                                   int flags);
NUMIO_EXPORT void numio_op_shutdown(struct numio_op *op, int fd, int how);
NUMIO_EXPORT void numio_op_poll_fd(struct numio_op *op, int fd, uint32_t events);
NUMIO_EXPORT void numio_op_timeout(struct numio_op *op, uint64_t delay_ns);
/* Ends at a point of numio_now_ns(), with -ETIME as well; at once if that has passed. */
NUMIO_EXPORT void numio_op_timeout_at(struct numio_op *op, uint64_t deadline_ns);
NUMIO_EXPORT void numio_op_nop(struct numio_op *op);
NUMIO_EXPORT void numio_op_prep(struct numio_op *op,
                                void (*prep)(struct io_uring_sqe *sqe, void *arg), void *arg);

/* Starts a prepared operation on the worker that polls the calling future.
 * Context: inside a future's poll; never suspends; one SQE, published at the end of the tick.
 * Owns:    `op` belongs to the runtime until numio_op_poll() returns NUMIO_READY.
 * Errors:  -EINVAL not called from a future's poll; -EBUSY already in flight; -ECANCELED the
 *          task was aborted. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_op_start(struct numio_op *op, struct numio_context *cx);

/* Whether a started operation has ended; the future is woken when it does.
 * Context: inside a poll of the future that started it.
 * Units:   *ret_result is the kernel's result, a count or descriptor, or a negative errno value.
 * Errors:  none; *ret_result is written with NUMIO_READY only. */
NUMIO_EXPORT enum numio_poll numio_op_poll(struct numio_op *op, struct numio_context *cx,
                                           int64_t *ret_result);

/* Asks the kernel to end a started operation early; its result is then usually -ECANCELED.
 * Context: inside a poll of the future that started it; never suspends. */
NUMIO_EXPORT void numio_op_cancel(struct numio_op *op, struct numio_context *cx);

NUMIO_END_DECLS

#endif
