/* SPDX-License-Identifier: MIT */
/* numio/channel.h: messages from tasks and threads to others.
 *
 *   channel    many senders, many receivers, each message to one of them; with a limit or without
 *   oneshot    one value, once
 *   broadcast  each receiver gets every message; who is too slow misses the oldest
 *   watch      one value that changes; receivers see the latest
 *
 * How to wait, and what aborts and deadlines do, stands in <numio/wait.h>.  Messages are bytes of a
 * fixed size that are copied in and out; what pointers in them point to is the users' affair.  None
 * of the objects counts its users: the owner destroys it when nobody uses it any more.
 *
 * The future that is aborted after its receive has ended, and before it has polled that, has
 * received nothing: the message stays, and goes to the next.
 */
#ifndef NUMIO_CHANNEL_H
#define NUMIO_CHANNEL_H

#include <numio/wait.h>

NUMIO_BEGIN_DECLS

/* ---- channel ------------------------------------------------------------------------------- */

struct numio_channel;

#define NUMIO_CHANNEL_UNBOUNDED UINT64_MAX

enum {
    /* One task or thread at a time receives: that is faster, and told where it is not so. */
    NUMIO_CHANNEL_ONE_RECEIVER = 1
};

enum { NUMIO_MESSAGE_BYTES_MAX = 65536 };

/* Makes a channel for messages of `message_bytes`, of which up to `capacity` wait to be received;
 * with NUMIO_CHANNEL_UNBOUNDED as many as there is memory for.
 * Context: any; the memory comes from malloc(), which is a worker's own node's.
 * Owns:    the caller destroys it.
 * Errors:  -EINVAL no capacity, unknown flags, or messages of 0 or more than
 *          NUMIO_MESSAGE_BYTES_MAX bytes; -ENOMEM. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_channel_create(size_t message_bytes, uint64_t capacity,
                                                      unsigned flags,
                                                      struct numio_channel **ret_channel);
/* When nobody uses it; messages in it are dropped.  Takes NULL.  Any context. */
NUMIO_EXPORT void numio_channel_destroy(struct numio_channel *channel);

/* Puts a copy of the message behind all others.  Senders that wait go first come, first served.
 * Context: a coroutine suspends and a plain thread sleeps while the channel is full.
 * Errors:  -EPIPE it was closed; -ENOMEM an unbounded one; -EDEADLK would block a worker;
 *          -ECANCELED, -ETIMEDOUT.  None has sent anything. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_channel_send(struct numio_channel *channel,
                                                    const void *message);
/* Any context; never waits.   Errors: -EAGAIN it is full, or others wait; -EPIPE, -ENOMEM. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_channel_try_send(struct numio_channel *channel,
                                                        const void *message);
/* Sends `count` messages that lie one behind the other, in this order; those of other senders may
 * come in between.
 * Returns: how many it has sent: fewer only if then an error came, and at least 1.
 * Context, errors: as numio_channel_send(). */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_channel_send_many(struct numio_channel *channel,
                                                             const void *messages, size_t count);

/* Takes the oldest message.  Receivers that wait go first come, first served.
 * Context: a coroutine suspends and a plain thread sleeps while there is none.
 * Errors:  -EPIPE it was closed, and is empty, and nobody has a reserved place; -EBUSY another
 *          receives and the channel has NUMIO_CHANNEL_ONE_RECEIVER; -EDEADLK would block a worker;
 *          -ECANCELED, -ETIMEDOUT.  None has taken anything. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_channel_recv(struct numio_channel *channel,
                                                    void *ret_message);
/* Any context; never waits.   Errors: -EAGAIN there is none; -EPIPE, -EBUSY. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_channel_try_recv(struct numio_channel *channel,
                                                        void *ret_message);
/* Takes up to `count` messages at once, and waits for the first only.
 * Returns: how many, at least 1; 0 if `count` is.
 * Context, errors: as numio_channel_recv(). */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_channel_recv_many(struct numio_channel *channel,
                                                             void *ret_messages, size_t count);

/* Keeps a place for a message that will be sent later by numio_channel_send_reserved(), which then
 * neither waits nor fails; also after the channel was closed.  A place not needed is released.
 * Context: as numio_channel_send().
 * Errors:  the same; -EINVAL an unbounded channel has no places. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_channel_reserve(struct numio_channel *channel);
/* Any context; never waits.   Errors: -EAGAIN, -EPIPE, -EINVAL. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_channel_try_reserve(struct numio_channel *channel);
/* Any context; never waits.   Errors: -EPERM no place is reserved. */
NUMIO_EXPORT int numio_channel_send_reserved(struct numio_channel *channel, const void *message);
NUMIO_EXPORT int numio_channel_release(struct numio_channel *channel);

/* From now on nobody sends any more; receivers take what is left, and then get -EPIPE.  Either side
 * may close, also twice.  Any context. */
NUMIO_EXPORT void numio_channel_close(struct numio_channel *channel);
NUMIO_EXPORT bool numio_channel_is_closed(const struct numio_channel *channel);
/* How many messages wait to be received, a moment ago.  Any context. */
NUMIO_EXPORT uint64_t numio_channel_len(const struct numio_channel *channel);
NUMIO_EXPORT uint64_t numio_channel_capacity(const struct numio_channel *channel);

/* Prepare operations: their results are those of the calls of the same names.  The messages must
 * live until the operation has ended; a future's is received when it polls that. */
NUMIO_EXPORT void numio_op_channel_send(struct numio_op *op, struct numio_channel *channel,
                                        const void *message);
NUMIO_EXPORT void numio_op_channel_recv(struct numio_op *op, struct numio_channel *channel,
                                        void *ret_message);
NUMIO_EXPORT void numio_op_channel_recv_many(struct numio_op *op, struct numio_channel *channel,
                                             void *ret_messages, size_t count);
NUMIO_EXPORT void numio_op_channel_reserve(struct numio_op *op, struct numio_channel *channel);

NUMIO_END_DECLS

#endif
