/* SPDX-License-Identifier: MIT */
/* numio/stream.h: one request, many results: connections, received data, events, periods.
 *
 * A stream asks the kernel once and is told of every connection that comes in, every piece of data,
 * every event, until it is closed; a loop of accept or recv asks anew each time.  What comes while
 * nobody waits is kept, in order.  numio asks again where the kernel ends such a request (which it
 * may do at any time) and when buffers come back after there were none.
 *
 *     struct numio_stream *stream;
 *     struct numio_chunk chunk;
 *     if (numio_recv_stream(fd, 0, &stream) == 0) {
 *         while (numio_stream_recv(stream, &chunk) > 0) {
 *             use(chunk.data, chunk.len);
 *             numio_chunk_release(&chunk);
 *         }
 *         numio_stream_close(&stream);
 *     }
 *
 * Received data lies in buffers of the worker that the stream was on when it asked; there are
 * numio_config.recv_buffers of them on each worker, and when all are in use, receiving waits until
 * one is released: release soon, and never wait for more while holding many.  A buffer is used only
 * while there is something in it: idle connections cost none.
 *
 * One task at a time uses a stream; it may be handed to another.  Where the kernel has no such
 * requests (before Linux 6.0) and under the profile epoll the same calls ask once for each result.
 */
#ifndef NUMIO_STREAM_H
#define NUMIO_STREAM_H

#include <stdint.h>
#include <sys/socket.h>

#include <numio/base.h>

NUMIO_BEGIN_DECLS

struct numio_stream;

/* Open a stream.
 * Context: a coroutine; nothing is waited for.
 * Owns:    *ret_stream is the caller's, to be closed before the runtime ends; `fd` stays the
 *          caller's and must stay open as long.
 * Errors:  -EINVAL not in a coroutine, or as said below; -ENOMEM; -ECANCELED, -ETIMEDOUT. */

/* Connections of a listening socket: numio_stream_next() returns descriptors; `flags` as for
 * accept4(2).  Connections are accepted as they come, some 256 ahead of whoever takes them; the
 * others wait in the listener's backlog.  No descriptor beyond RLIMIT_NOFILE's hard limit at the
 * first call is taken. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_accept_stream(int fd, int flags,
                                                     struct numio_stream **ret_stream);
/* Data of a socket, for numio_stream_recv().
 * Errors: -EINVAL MSG_WAITALL or MSG_PEEK, here and below. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_recv_stream(int fd, int flags,
                                                   struct numio_stream **ret_stream);
/* Datagrams with their senders and control data, for numio_stream_recv(), with room for a name of
 * `name_bytes` and control data of `control_bytes` in each buffer.
 * Errors: -EINVAL a buffer has no room for them. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_recvmsg_stream(int fd, int flags, size_t name_bytes,
                                                      size_t control_bytes,
                                                      struct numio_stream **ret_stream);
/* Events of a descriptor: numio_stream_next() returns those of `events` that came up since the last
 * call, or-ed.  An event may be told again while it still holds. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_poll_stream(int fd, uint32_t events,
                                                   struct numio_stream **ret_stream);
/* Periods: numio_stream_next() returns how many have passed since the last call, at least 1.  They
 * do not drift: the n-th ends n * `period_ns` after the call.  A single coroutine that only waits
 * has struct numio_interval (<numio/time.h>).   Errors: -EINVAL `period_ns` is 0. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_interval_stream(uint64_t period_ns,
                                                       struct numio_stream **ret_stream);

/* The next result of an accept, poll or interval stream; suspends until there is one.
 * Errors: those of the request, after which the next call asks anew (-EMFILE of an accept, say);
 *         -ECANCELED the task was aborted, or the stream was stopped and all has been taken;
 *         -ETIMEDOUT a deadline has passed: nothing is lost, the next call goes on; -EBUSY another
 *         task waits here; -EINVAL it is a stream for numio_stream_recv(). */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_stream_next(struct numio_stream *stream);

/* What was received at once. */
struct numio_chunk {
    void *data;
    size_t len;
    struct sockaddr *name; /* recvmsg streams: the sender, NULL without one ... */
    socklen_t name_len;
    void *control; /* ... control data, for CMSG_FIRSTHDR() of a header made of these ... */
    size_t control_len;
    unsigned msg_flags; /* ... and MSG_TRUNC, MSG_CTRUNC ... */
    struct nio_buf_group *_group;
    uint32_t _index;
};

/* The next piece of data, in *ret_chunk, which must be released; suspends until there is one.
 * Returns: the number of bytes; 0 at the end of the connection (or for an empty datagram: of a
 *          recvmsg stream that has a chunk with `len` 0 and returns its number of bytes, 0, with
 *          `data` not NULL).
 * Errors:  as numio_stream_next(). */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_stream_recv(struct numio_stream *stream,
                                                       struct numio_chunk *ret_chunk);

/* Gives the buffer back, which may be received into at once.  Any thread, before the runtime ends;
 * never suspends; takes an empty chunk. */
NUMIO_EXPORT void numio_chunk_release(struct numio_chunk *chunk);

/* Ends the request; what has come until then can still be taken, then -ECANCELED.  What was not
 * received stays in the socket.
 * Context: a coroutine, suspends until the kernel has let go; also in an aborted task. */
NUMIO_EXPORT int numio_stream_stop(struct numio_stream *stream);

/* Ends the request and drops what was not taken: connections are closed, buffers given back.
 * *stream becomes NULL.   Context: as numio_stream_stop(); takes a pointer to NULL. */
NUMIO_EXPORT int numio_stream_close(struct numio_stream **stream);

NUMIO_END_DECLS

#endif
