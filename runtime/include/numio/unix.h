/* SPDX-License-Identifier: MIT */
/* numio/unix.h: Unix sockets: streams, datagrams, and packets in order (SOCK_SEQPACKET), with
 * descriptors passed along.  Paths of "@NAME" have no file. */
#ifndef NUMIO_UNIX_H
#define NUMIO_UNIX_H

#include <numio/address.h>

NUMIO_BEGIN_DECLS

enum { NUMIO_UNIX_FDS_MAX = 253 /* SCM_MAX_FD of Linux */ };

/* A socket that listens (SOCK_STREAM, SOCK_SEQPACKET), or is bound (SOCK_DGRAM).  A file that is
 * left of another one is -EADDRINUSE: whoever is sure removes it. Context: any thread.   Returns:
 * the descriptor, closed on exec.   Errors: -EINVAL the path; those of socket, bind, listen. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_unix_listen(const char *path, int type, int backlog);
/* Context: a coroutine, suspends.   Returns: the descriptor. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_unix_connect(const char *path, int type);
/* Who is at the other end of a connection, as of its connect.   Context: any thread. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_unix_peer(int fd, int *ret_pid, unsigned *ret_uid,
                                                 unsigned *ret_gid);

/* Sends bytes, at least one, and descriptors with the first of them.
 * Context: a coroutine, suspends.   Owns: the descriptors stay open here, too.
 * Returns: the bytes, as numio_send().   Errors: -EINVAL more than NUMIO_UNIX_FDS_MAX. */
NUMIO_EXPORT int64_t numio_unix_send_fds(int fd, const void *bytes, size_t len, const int *fds,
                                         unsigned count);
/* Receives bytes and the descriptors that came with them, closed on exec.
 * Context: a coroutine, suspends.   Owns: those in ret_fds are the caller's.
 * Returns: the bytes, 0 at the end.  *ret_count is how many came; those beyond `max` are closed. */
NUMIO_EXPORT int64_t numio_unix_recv_fds(int fd, void *ret_bytes, size_t len, int *ret_fds,
                                         unsigned max, unsigned *ret_count);

NUMIO_END_DECLS

#endif
