/* SPDX-License-Identifier: MIT */
/* numio/channel.h: messages from tasks and threads to others.
 *
 *   channel    many senders, many receivers, each message to one of them; with a limit or without
 *   spsc       one sender, one receiver: no lock, each side on cache lines of its own
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
/* Waits until it is closed: for a sender who makes something that nobody may want any more.
 * Context: a coroutine suspends and a plain thread sleeps.
 * Errors:  -EDEADLK would block a worker; -ECANCELED, -ETIMEDOUT. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_channel_wait_closed(struct numio_channel *channel);
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
NUMIO_EXPORT void numio_op_channel_wait_closed(struct numio_op *op, struct numio_channel *channel);

/* ---- spsc ---------------------------------------------------------------------------------- */

struct numio_spsc;
struct numio_handle;

/* Makes a ring for messages of `message_bytes`, of which up to `capacity` wait to be received, from
 * one task or thread to one other: the mesh between workers.  The ring lies on `node`, which should
 * be the receiver's, of the handle's runtime (NULL: the calling task's); with NUMIO_NODE_ANY in
 * memory from malloc().
 * Context: any.
 * Owns:    the caller destroys it, before the runtime.
 * Errors:  -EINVAL no capacity, messages of 0 or more than NUMIO_MESSAGE_BYTES_MAX bytes, no such
 *          node; -ENOMEM. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_spsc_create(struct numio_handle *handle, int node,
                                                   size_t message_bytes, uint64_t capacity,
                                                   struct numio_spsc **ret_spsc);
/* When nobody uses it; messages in it are dropped.  Takes NULL.  Any context. */
NUMIO_EXPORT void numio_spsc_destroy(struct numio_spsc *spsc);

/* For the one sender; as the calls of the same names for channels.  numio_spsc_send_many()
 * publishes all that fits at once.
 * Errors: in addition -EBUSY somebody else waits to send. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_spsc_send(struct numio_spsc *spsc, const void *message);
NUMIO_EXPORT NUMIO_NODISCARD int numio_spsc_try_send(struct numio_spsc *spsc, const void *message);
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_spsc_send_many(struct numio_spsc *spsc,
                                                          const void *messages, size_t count);
/* For the one receiver; as the calls of the same names for channels. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_spsc_recv(struct numio_spsc *spsc, void *ret_message);
NUMIO_EXPORT NUMIO_NODISCARD int numio_spsc_try_recv(struct numio_spsc *spsc, void *ret_message);
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_spsc_recv_many(struct numio_spsc *spsc,
                                                          void *ret_messages, size_t count);
/* As numio_channel_close(), for the sender or the receiver, but nobody else. */
NUMIO_EXPORT void numio_spsc_close(struct numio_spsc *spsc);
NUMIO_EXPORT uint64_t numio_spsc_len(const struct numio_spsc *spsc);
/* Prepare operations: as those of channels. */
NUMIO_EXPORT void numio_op_spsc_send(struct numio_op *op, struct numio_spsc *spsc,
                                     const void *message);
NUMIO_EXPORT void numio_op_spsc_recv(struct numio_op *op, struct numio_spsc *spsc,
                                     void *ret_message);
NUMIO_EXPORT void numio_op_spsc_recv_many(struct numio_op *op, struct numio_spsc *spsc,
                                          void *ret_messages, size_t count);

/* ---- oneshot ------------------------------------------------------------------------------- */

enum { NUMIO_ONESHOT_BYTES_MAX = 40 }; /* all of it is one cache line */

/* One value from one sender to one receiver, once; in the user's memory, zeroes are a new one.  It
 * may be freed as soon as the value is received, or each side knows that the other has closed. */
struct numio_oneshot {
    uintptr_t _word, _watch;
    uint32_t _bytes;
    uint32_t _unused;
    uint64_t _value[NUMIO_ONESHOT_BYTES_MAX / 8];
};

static inline void numio_oneshot_init(struct numio_oneshot *oneshot)
{
    oneshot->_word = 0;
    oneshot->_watch = 0;
}

/* Sends the value, which is copied.
 * Context: any; never waits.
 * Errors:  -EPIPE the receiver has closed; -EMSGSIZE more than NUMIO_ONESHOT_BYTES_MAX; -EALREADY
 *          a value was sent before, or the sender has closed; -EBUSY somebody of the sender's side
 *          waits for the close. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_oneshot_send(struct numio_oneshot *oneshot,
                                                    const void *value, size_t bytes);
/* Receives the value into `ret_value`, which has room for `bytes`.
 * Context: a coroutine suspends and a plain thread sleeps until it is there.
 * Returns: how many bytes the value has.
 * Errors:  -EPIPE none will come: the sender has closed, or it was received before; -EMSGSIZE there
 *          is too little room, and it stays; -EBUSY somebody else waits for it; -EDEADLK would
 * block a worker; -ECANCELED, -ETIMEDOUT. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_oneshot_recv(struct numio_oneshot *oneshot,
                                                        void *ret_value, size_t bytes);
/* Any context; never waits.   Errors: -EAGAIN it is not there yet; -EPIPE, -EMSGSIZE. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_oneshot_try_recv(struct numio_oneshot *oneshot,
                                                            void *ret_value, size_t bytes);
/* The sender goes without sending: the receiver gets -EPIPE.  After a send it changes nothing.  Any
 * context, while nobody waits for the receiver's close. */
NUMIO_EXPORT void numio_oneshot_close_sender(struct numio_oneshot *oneshot);
/* The receiver takes no value any more: a send gets -EPIPE.  One that was sent before may still be
 * received.  Any context, while nobody waits for the value. */
NUMIO_EXPORT void numio_oneshot_close_receiver(struct numio_oneshot *oneshot);
/* For the sender: whether the receiver has closed. */
NUMIO_EXPORT bool numio_oneshot_is_refused(const struct numio_oneshot *oneshot);
/* For the sender, who has not sent: waits until the receiver has closed, and nobody wants the value
 * any more.  In a selection beside the work for it, it ends that work.  Before this has returned
 * nothing else is done on the sender's side.
 * Context: a coroutine suspends, a plain thread sleeps.
 * Errors:  -EALREADY a value was sent, or the sender has closed; -EBUSY somebody else waits for the
 *          close; -EDEADLK would block a worker; -ECANCELED, -ETIMEDOUT. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_oneshot_wait_refused(struct numio_oneshot *oneshot);
/* Prepares an operation that does so. */
NUMIO_EXPORT void numio_op_oneshot_wait_refused(struct numio_op *op, struct numio_oneshot *oneshot);
/* Prepares an operation that receives; its result is that of numio_oneshot_recv(). */
NUMIO_EXPORT void numio_op_oneshot_recv(struct numio_op *op, struct numio_oneshot *oneshot,
                                        void *ret_value, size_t bytes);

/* ---- broadcast ----------------------------------------------------------------------------- */

struct numio_broadcast;

/* One who receives: in the user's memory, used by one task or thread at a time, and forgotten
 * without a call. */
struct numio_broadcast_receiver {
    struct numio_broadcast *_broadcast;
    uint64_t _next;
    uint64_t _missed;
};

/* Makes a broadcast that keeps the last `capacity` messages.   Errors, memory: as
 * numio_channel_create(). */
NUMIO_EXPORT NUMIO_NODISCARD int numio_broadcast_create(size_t message_bytes, uint64_t capacity,
                                                        struct numio_broadcast **ret_broadcast);
/* When nobody uses it.  Takes NULL.  Any context. */
NUMIO_EXPORT void numio_broadcast_destroy(struct numio_broadcast *broadcast);
/* From now on the receiver sees every message.  Any context. */
NUMIO_EXPORT void numio_broadcast_subscribe(struct numio_broadcast *broadcast,
                                            struct numio_broadcast_receiver *ret_receiver);
/* Sends a copy to all receivers.  Any context; never waits.   Errors: -EPIPE it was closed. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_broadcast_send(struct numio_broadcast *broadcast,
                                                      const void *message);
/* Takes the receiver's next message.
 * Context: a coroutine suspends and a plain thread sleeps while there is none.
 * Errors:  -EOVERFLOW it was too slow: numio_broadcast_missed() messages are gone, and the next
 * call has the oldest that is left; -EPIPE it was closed, and the receiver has seen everything;
 *          -EDEADLK would block a worker; -ECANCELED, -ETIMEDOUT. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_broadcast_recv(struct numio_broadcast_receiver *receiver,
                                                      void *ret_message);
/* Any context; never waits.   Errors: -EAGAIN there is none; -EOVERFLOW, -EPIPE. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_broadcast_try_recv(struct numio_broadcast_receiver *receiver,
                                                          void *ret_message);
/* How many messages the receiver had missed at its last -EOVERFLOW. */
NUMIO_EXPORT uint64_t numio_broadcast_missed(const struct numio_broadcast_receiver *receiver);
/* How many it has not received, also of those that it has missed by now, a moment ago. */
NUMIO_EXPORT uint64_t numio_broadcast_len(const struct numio_broadcast_receiver *receiver);
/* From now on nobody sends any more.  Any context; also twice. */
NUMIO_EXPORT void numio_broadcast_close(struct numio_broadcast *broadcast);
/* Prepares an operation that receives; its result is that of numio_broadcast_recv(). */
NUMIO_EXPORT void numio_op_broadcast_recv(struct numio_op *op,
                                          struct numio_broadcast_receiver *receiver,
                                          void *ret_message);

/* ---- watch --------------------------------------------------------------------------------- */

struct numio_watch;

/* One who looks: as a struct numio_broadcast_receiver. */
struct numio_watch_receiver {
    struct numio_watch *_watch;
    uint64_t _seen;
};

/* Makes a watch with a first value, which nobody has to be told of.
 * Errors, memory: as numio_channel_create(). */
NUMIO_EXPORT NUMIO_NODISCARD int numio_watch_create(size_t value_bytes, const void *value,
                                                    struct numio_watch **ret_watch);
/* When nobody uses it.  Takes NULL.  Any context. */
NUMIO_EXPORT void numio_watch_destroy(struct numio_watch *watch);
/* The receiver has seen the value of now.  Any context. */
NUMIO_EXPORT void numio_watch_subscribe(struct numio_watch *watch,
                                        struct numio_watch_receiver *ret_receiver);
/* Replaces the value; receivers are told of the latest only.  Any context; never waits.
 * Errors: -EPIPE it was closed. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_watch_send(struct numio_watch *watch, const void *value);
/* Has `modify` change the value in place; receivers are told if it returns true.  It is called
 * under the watch's lock: it must be short and call nothing of numio. Returns: 1 they were told, 0
 * not.   Errors: -EPIPE it was closed. */
NUMIO_EXPORT NUMIO_NODISCARD int
numio_watch_send_if_modified(struct numio_watch *watch, bool (*modify)(void *value, void *arg),
                             void *arg);
/* Copies the value; nobody has seen it by that.  Any context. */
NUMIO_EXPORT void numio_watch_read(struct numio_watch *watch, void *ret_value);
/* Copies the value, which the receiver has seen then. */
NUMIO_EXPORT void numio_watch_take(struct numio_watch_receiver *receiver, void *ret_value);
/* Has `look` read the value in place, under the lock as `modify` above; the receiver has seen it.
 */
NUMIO_EXPORT void numio_watch_borrow(struct numio_watch_receiver *receiver,
                                     void (*look)(const void *value, void *arg), void *arg);
/* Waits for a value that the receiver has not seen; it has seen it then.
 * Context: a coroutine suspends and a plain thread sleeps until there is one.
 * Errors:  -EPIPE it was closed, and the last one was seen; -EDEADLK would block a worker;
 *          -ECANCELED, -ETIMEDOUT. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_watch_changed(struct numio_watch_receiver *receiver);
/* The same without waiting: 1 there is one, 0 not; it is not seen by that.   Errors: -EPIPE. */
NUMIO_EXPORT NUMIO_NODISCARD int
numio_watch_has_changed(const struct numio_watch_receiver *receiver);
/* The receiver has not seen anything: the next numio_watch_changed() returns at once. */
NUMIO_EXPORT void numio_watch_mark_changed(struct numio_watch_receiver *receiver);
/* From now on nobody sends any more.  Any context; also twice. */
NUMIO_EXPORT void numio_watch_close(struct numio_watch *watch);
/* Prepares an operation whose result is that of numio_watch_changed(). */
NUMIO_EXPORT void numio_op_watch_changed(struct numio_op *op,
                                         struct numio_watch_receiver *receiver);

NUMIO_END_DECLS

#endif
