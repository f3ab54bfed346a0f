/* SPDX-License-Identifier: MIT */
/* numio/direct.h: direct descriptors: files that only the ring of one worker knows.
 *
 * An ordinary descriptor is looked up in the process's table, with a reference taken and given
 * back, by every operation.  A direct one is an index into a table of the ring, without either, and
 * is made there: it never stands in /proc/self/fd and does not count for RLIMIT_NOFILE.
 *
 * It is an int above all descriptors of the kernel's and goes into the calls of numio that take one
 * as their first descriptor (numio_recv(), numio_pread(), numio_close(), batches, streams ...), and
 * into nothing else: not into system calls, not into sockopts.  It belongs to the worker where it
 * was made: a coroutine that uses it elsewhere goes there first, so it is for those who stay where
 * they are (NUMIO_AFFINITY_WORKER); a future, and a coroutine that must not run there, gets -EXDEV.
 *
 * Each worker's table has numio_config.direct_descriptors entries, made at the first use.  Where it
 * is full, and where the driver has none (profile epoll, before Linux 5.19), these calls give an
 * ordinary descriptor, with which everything works the same: numio_is_direct() tells.
 */
#ifndef NUMIO_DIRECT_H
#define NUMIO_DIRECT_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <numio/base.h>

NUMIO_BEGIN_DECLS

/* Context: a coroutine, suspends.   Returns: a descriptor to be closed by numio_close().
 * Errors:  those of the calls without _direct; -ENOMEM no memory for the table. */
NUMIO_EXPORT int64_t numio_accept_direct(int fd, struct sockaddr *addr, socklen_t *addr_len,
                                         int flags);
NUMIO_EXPORT int64_t numio_openat_direct(int dirfd, const char *path, int flags, mode_t mode);
/* As socket(2), for numio_connect() and what follows. */
NUMIO_EXPORT int64_t numio_socket_direct(int domain, int type, int protocol);
/* The file of an ordinary descriptor, which stays the caller's and may be closed; where there can
 * be no direct one, a duplicate of it. */
NUMIO_EXPORT int64_t numio_direct_from(int fd);

/* Any context. */
NUMIO_EXPORT bool numio_is_direct(int fd);

NUMIO_END_DECLS

#endif
