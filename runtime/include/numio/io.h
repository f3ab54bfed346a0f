/* SPDX-License-Identifier: MIT */
/* numio/io.h: I/O for coroutines, as plain calls.
 *
 * Each call does what the system call of its name does, on the ring of the worker it runs on, and
 * suspends the coroutine until the kernel has finished.  Results are the kernel's: a count or a
 * descriptor, or a negative errno value.  Short reads and writes happen as in the system calls;
 * the _all forms go on until everything is done, the end of the file, or an error.
 *
 * A descriptor that is closed while a call waits on it does not end the call everywhere: io_uring
 * holds the file until the operation ends (numio_shutdown() ends those of sockets), the epoll
 * profile ends the call with -EBADF.  Opening a FIFO does not wait for the other end.
 *
 * In an aborted task every call but numio_close() returns -ECANCELED at once, and a call that was
 * waiting returns once nothing of it is in flight any more: what an accept or an open still
 * brought is closed.  Outside a coroutine every call returns -EINVAL.
 */
#ifndef NUMIO_IO_H
#define NUMIO_IO_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <numio/op.h>

NUMIO_BEGIN_DECLS

/* Context: a coroutine, suspends.   Units: bytes; `off` -1 is the file's own position, and the only
 * offset for pipes and sockets, which do not refuse another as the system calls do.  A full
 * terminal without O_NONBLOCK blocks the whole worker under a ring profile: write to one by a
 * writer of <numio/bufio.h>, which sees to that. */
NUMIO_EXPORT int64_t numio_read(int fd, void *buf, size_t len);
NUMIO_EXPORT int64_t numio_write(int fd, const void *buf, size_t len);
NUMIO_EXPORT int64_t numio_pread(int fd, void *buf, size_t len, int64_t off);
NUMIO_EXPORT int64_t numio_pwrite(int fd, const void *buf, size_t len, int64_t off);
NUMIO_EXPORT int64_t numio_readv(int fd, const struct iovec *iov, int count, int64_t off);
NUMIO_EXPORT int64_t numio_writev(int fd, const struct iovec *iov, int count, int64_t off);
/* All of `len`: less only at the end of the file. */
NUMIO_EXPORT int64_t numio_pread_all(int fd, void *buf, size_t len, int64_t off);
NUMIO_EXPORT int64_t numio_pwrite_all(int fd, const void *buf, size_t len, int64_t off);
NUMIO_EXPORT int64_t numio_write_all(int fd, const void *buf, size_t len);
NUMIO_EXPORT int64_t numio_fsync(int fd);
NUMIO_EXPORT int64_t numio_fdatasync(int fd);
NUMIO_EXPORT int64_t numio_fallocate(int fd, int mode, int64_t off, int64_t len);
NUMIO_EXPORT int64_t numio_openat(int dirfd, const char *path, int flags, mode_t mode);
NUMIO_EXPORT int64_t numio_open(const char *path, int flags, mode_t mode);
NUMIO_EXPORT int64_t numio_statx(int dirfd, const char *path, int flags, unsigned mask,
                                 struct statx *ret_stat);
/* Closes also in an aborted task; is never cancelled itself. */
NUMIO_EXPORT int64_t numio_close(int fd);

/* One connection; a server that must take bursts under load has several coroutines accept on one
 * descriptor. */
NUMIO_EXPORT int64_t numio_accept(int fd, struct sockaddr *addr, socklen_t *addr_len, int flags);
NUMIO_EXPORT int64_t numio_connect(int fd, const struct sockaddr *addr, socklen_t addr_len);
NUMIO_EXPORT int64_t numio_recv(int fd, void *buf, size_t len, int flags);
NUMIO_EXPORT int64_t numio_send(int fd, const void *buf, size_t len, int flags);
/* As numio_send() without a copy into the kernel, which pays from some 10 KiB on where the network
 * can do it (never on loopback): returns when the network has let go of `buf`, so several
 * coroutines send to keep a connection full.  A plain send where the kernel (6.0) or the kind of
 * socket has none. */
NUMIO_EXPORT int64_t numio_send_zc(int fd, const void *buf, size_t len, int flags);
/* All of `len`, or a negative errno value; what was sent before an error is not told. */
NUMIO_EXPORT int64_t numio_send_all(int fd, const void *buf, size_t len, int flags);
NUMIO_EXPORT int64_t numio_recv_all(int fd, void *buf, size_t len, int flags);
NUMIO_EXPORT int64_t numio_recvmsg(int fd, struct msghdr *msg, int flags);
NUMIO_EXPORT int64_t numio_sendmsg(int fd, const struct msghdr *msg, int flags);
NUMIO_EXPORT int64_t numio_shutdown(int fd, int how);

/* Waits until one of `events` (POLLIN, POLLOUT ...) holds; returns those that do. */
NUMIO_EXPORT int64_t numio_poll_fd(int fd, uint32_t events);
/* Sleeps at least `delay_ns`; 0 when the time has passed.  Until a point in time, or again and
 * again: <numio/time.h>. */
NUMIO_EXPORT int64_t numio_sleep_ns(uint64_t delay_ns);
/* Runs an operation that was prepared with a numio_op_* function, numio_op_prep() included. */
NUMIO_EXPORT int64_t numio_op_await(struct numio_op *op);

/* A TCP socket that listens on "ADDRESS:PORT" ("127.0.0.1:0", "[::1]:80", "*:80"), with
 * SO_REUSEADDR, closed on exec; blocks only for the few system calls.
 * Context: any thread.   Errors: -EINVAL the address does not parse; those of socket, bind, listen.
 */
NUMIO_EXPORT NUMIO_NODISCARD int numio_tcp_listen(const char *address, int backlog);
/* Connects to "ADDRESS:PORT" (numeric), with TCP_NODELAY.  Context: a coroutine, suspends. */
NUMIO_EXPORT int64_t numio_tcp_connect(const char *address);

NUMIO_END_DECLS

#endif
