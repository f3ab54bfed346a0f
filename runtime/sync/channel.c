/* SPDX-License-Identifier: MIT */
/* The channel: a queue of messages, a queue of receivers, a queue of senders, one lock.
 *
 * Who sends holds the lock: it gives the message to the receiver that has waited longest, or adds
 * it to the ring (channel_ring.h).  Who receives holds it as well, unless the channel has one
 * receiver: that one takes messages from the ring without the lock, publishes `head`, and takes the
 * lock only if the bit SENDERS says that somebody waits for a place, or if it has to wait itself. A
 * sender sets SENDERS before it looks at `head` for the last time [CN8]; so either it sees the
 * place that was made, or the receiver sees the bit.
 *
 * While senders wait, places go to them, in order; while receivers wait, all messages that are
 * there are promised to others.  `reserved` places count as taken.
 *
 * A receiver that waits gets the message into its own memory at once.  A future may be aborted
 * after that, and the message could not go back in front of the others; so a future is only told,
 * and one message is promised: it stays in the ring, others leave as many there, and the future
 * takes the oldest when it polls.  An abort takes the promise back.  With one receiver nobody else
 * takes messages, and no promise is counted.
 *
 * The lock is a leaf; waits are ended after it is released.  Every send and receive ends after a
 * bounded number of steps of its own, but for the lock.
 */
#include <errno.h>

#include "runtime/base/assert.h"
#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"
#include "runtime/sync/channel_ring.h"

#ifdef NIO_TINY
enum { BLOCK_BYTES = 0, BLOCK_SLOTS_MIN = 4, BLOCK_SLOTS_MAX = 4 };
#else
enum { BLOCK_BYTES = 4096, BLOCK_SLOTS_MIN = 8, BLOCK_SLOTS_MAX = 256 };
#endif

/* ---- create, destroy ----------------------------------------------------------------------- */

static uint64_t power_of_two(uint64_t at_least)
{
    uint64_t slots = 1;
    while (slots < at_least)
        slots *= 2;
    return slots;
}

static uint64_t slots_of(const struct numio_channel *channel)
{
    if (channel->is_bounded)
        return power_of_two(channel->capacity);
    uint64_t slots = BLOCK_SLOTS_MIN;
    while (slots < BLOCK_SLOTS_MAX && slots * 2 * channel->slot_bytes <= BLOCK_BYTES)
        slots *= 2;
    return slots;
}

static struct nio_channel_block *make_block(const struct numio_channel *channel)
{
    size_t bytes;
    if (__builtin_mul_overflow(channel->slot_mask + 1, channel->slot_bytes, &bytes) ||
        __builtin_add_overflow(bytes, sizeof(struct nio_channel_block), &bytes))
        return NULL;
    return nio_zalloc(bytes);
}

int numio_channel_create(size_t message_bytes, uint64_t capacity, unsigned flags,
                         struct numio_channel **ret_channel)
{
    if (message_bytes == 0 || message_bytes > NUMIO_MESSAGE_BYTES_MAX)
        return nio_error(-EINVAL, "channel: messages of %zu bytes; 1 to %d are possible",
                         message_bytes, NUMIO_MESSAGE_BYTES_MAX);
    if (capacity == 0 || flags & ~(unsigned)NUMIO_CHANNEL_ONE_RECEIVER)
        return nio_error(-EINVAL, "channel: a capacity of 0, or unknown flags 0x%x", flags);
    if (capacity > UINT64_MAX / 4 && capacity != NUMIO_CHANNEL_UNBOUNDED)
        return nio_error(-ENOMEM, "channel: a capacity of 2^62 or more");
    struct numio_channel *channel = nio_zalloc(sizeof *channel);
    if (!channel)
        return -ENOMEM;
    channel->message_bytes = message_bytes;
    channel->slot_bytes = message_bytes < 8 ? message_bytes : nio_align_up(message_bytes, 8);
    channel->capacity = capacity;
    channel->is_bounded = capacity != NUMIO_CHANNEL_UNBOUNDED;
    channel->has_one_receiver = flags & NUMIO_CHANNEL_ONE_RECEIVER;
    channel->slot_mask = slots_of(channel) - 1;
    struct nio_channel_block *block = make_block(channel);
    if (!block) {
        nio_free(channel);
        return -ENOMEM;
    }
    block->next = channel->is_bounded ? block : NULL;
    channel->tail_block = channel->head_block = block;
    channel->tail_seen = channel->head_seen = NIO_CHANNEL_FIRST;
    atomic_init(&channel->tail, NIO_CHANNEL_FIRST);
    atomic_init(&channel->head, NIO_CHANNEL_FIRST);
    *ret_channel = channel;
    return 0;
}

void numio_channel_destroy(struct numio_channel *channel)
{
    if (!channel)
        return;
    NIO_ASSERT(!channel->receivers._first && !channel->senders._first && !channel->watchers._first);
    struct nio_channel_block *last = channel->tail_block, *next;
    for (struct nio_channel_block *block = channel->head_block; block != last; block = next) {
        next = block->next;
        nio_free(block);
    }
    nio_free(last);
    /* relaxed: nobody uses it any more */
    nio_free(atomic_load_explicit(&channel->spare, memory_order_relaxed));
    nio_free(channel);
}

/* ---- under the lock ------------------------------------------------------------------------ */

static void lock(struct numio_channel *channel)
{
    nio_wait_queue_acquire(&channel->receivers);
}

static void unlock(struct numio_channel *channel)
{
    nio_wait_queue_release(&channel->receivers);
}

/* After messages were taken. */
static void unlock_taken(struct numio_channel *channel)
{
    struct nio_channel_block *emptied = channel->emptied, *next;
    channel->emptied = NULL;
    unlock(channel);
    for (; NIO_UNLIKELY(emptied != NULL); emptied = next) {
        next = emptied->next;
        nio_free(emptied);
    }
}

static uint32_t bits_of(const struct numio_channel *channel)
{
    /* relaxed: written under this lock, or a look in passing */
    return atomic_load_explicit(&channel->bits, memory_order_relaxed);
}

static uint64_t wanted(const struct numio_op *op)
{
    uint64_t count = op->_sqe[NIO_WAIT_WORD_ARG2];
    return count ? count : 1;
}

/* The result of a receive of `count` messages. */
static int32_t recv_result(const struct numio_op *op, uint64_t count)
{
    return op->_sqe[NIO_WAIT_WORD_ARG2] ? (int32_t)count : 0;
}

static void *memory_of(const struct numio_op *op)
{
    return (void *)(uintptr_t)op->_sqe[NIO_WAIT_WORD_ARG];
}

/* Gives a message that is in the ring, and nobody else's, to a receiver that has been claimed. */
static int32_t give(struct numio_channel *channel, struct numio_op *op)
{
    if (!nio_wait_is_of_future(op)) {
        uint64_t free = nio_channel_count(channel, wanted(op) + channel->promised);
        free -= channel->promised;
        uint64_t count = wanted(op) < free ? wanted(op) : free;
        nio_channel_take(channel, memory_of(op), count);
        return recv_result(op, count);
    }
    if (!channel->has_one_receiver)
        channel->promised++;
    return 0;
}

/* Sends a message, for which there is room and a block. */
static void deliver(struct numio_channel *channel, const void *message, struct nio_wait_list *ended)
{
    struct numio_op *op = nio_wait_pop(&channel->receivers, ended);
    if (op && !nio_wait_is_of_future(op)) {
        nio_message_copy(memory_of(op), message, channel->message_bytes);
        nio_wait_list_add(ended, op, recv_result(op, 1));
        return;
    }
    nio_channel_put(channel, message);
    if (op)
        nio_wait_list_add(ended, op, give(channel, op));
}

static bool is_reserve(const struct numio_op *op)
{
    return memory_of(op) == NULL;
}

/* Lets senders have the places that there are. */
static void serve_senders(struct numio_channel *channel, struct nio_wait_list *ended)
{
    struct numio_op *op;
    while (!nio_wait_queue_is_empty(&channel->senders) && nio_channel_has_room(channel) &&
           (op = nio_wait_pop(&channel->senders, ended))) {
        if (is_reserve(op))
            channel->reserved++;
        else
            deliver(channel, memory_of(op), ended);
        nio_wait_list_add(ended, op, 0);
    }
    if (nio_wait_queue_is_empty(&channel->senders))
        /* relaxed: the receiver finds it and comes under the lock for nothing, or not */
        (void)atomic_fetch_and_explicit(&channel->bits, ~(uint32_t)NIO_CHANNEL_SENDERS,
                                        memory_order_relaxed);
}

static bool is_drained(struct numio_channel *channel)
{
    /* [CN2] seq_cst: not needed here */
    return (bits_of(channel) & NIO_CHANNEL_CLOSED) && channel->reserved == 0 &&
           nio_channel_tail(channel) == atomic_load_explicit(&channel->head, memory_order_seq_cst);
}

/* After messages or places have gone: who can have something now, gets it. */
static void settle(struct numio_channel *channel, struct nio_wait_list *ended)
{
    if (NIO_UNLIKELY(bits_of(channel) & NIO_CHANNEL_SENDERS))
        serve_senders(channel, ended);
    if (NIO_UNLIKELY(!nio_wait_queue_is_empty(&channel->receivers)) && is_drained(channel))
        nio_wait_take_all(&channel->receivers, ended, -EPIPE);
}

/* ---- sending ------------------------------------------------------------------------------- */

/* Without the lock: gives the senders of an unbounded channel the block that they need. */
static NIO_COLD int add_block(struct numio_channel *channel)
{
    struct nio_channel_block *block = make_block(channel), *none = NULL;
    if (!block)
        return -ENOMEM;
    /* [CN6] release: as in nio_channel_leave_block().  Pairs with [CN5].  relaxed on failure: it is
     * not looked at. */
    if (!atomic_compare_exchange_strong_explicit(&channel->spare, &none, block,
                                                 memory_order_release, memory_order_relaxed))
        nio_free(block); /* there is one meanwhile */
    return 0;
}

/* Under the lock: sees to a block for the next message.  Each turn somebody else has filled one.
 * With an error the lock is released. */
static int find_block(struct numio_channel *channel)
{
    while (nio_channel_needs_block(channel)) {
        unlock(channel);
        int rc = add_block(channel);
        if (rc)
            return rc;
        lock(channel);
    }
    return 0;
}

static int lock_to_send(struct numio_channel *channel)
{
    lock(channel);
    return find_block(channel);
}

/* Whether a message or a reservation may pass: 0, -EAGAIN, -EPIPE. */
static int may_send(struct numio_channel *channel)
{
    uint32_t bits = bits_of(channel);
    if (NIO_UNLIKELY(bits & NIO_CHANNEL_CLOSED))
        return -EPIPE;
    /* Those that have lost their selections stand in the queue, too: a moment only. */
    if (NIO_UNLIKELY(bits & NIO_CHANNEL_SENDERS))
        return -EAGAIN;
    return nio_channel_has_room(channel) ? 0 : -EAGAIN;
}

/* Says that somebody waits for a place, and looks for the last time. */
static int may_send_after_all(struct numio_channel *channel)
{
    if (!nio_wait_queue_is_empty(&channel->senders))
        return -EAGAIN;
    /* [CN8] seq_cst: before the look at `head` [CN2].  Pairs with [CN7]. */
    (void)atomic_fetch_or_explicit(&channel->bits, NIO_CHANNEL_SENDERS, memory_order_seq_cst);
    if (!nio_channel_has_room(channel))
        return -EAGAIN;
    /* relaxed: as in serve_senders() */
    (void)atomic_fetch_and_explicit(&channel->bits, ~(uint32_t)NIO_CHANNEL_SENDERS,
                                    memory_order_relaxed);
    return 0;
}

static bool send_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_channel *channel = nio_wait_object(op);
    struct nio_wait_list ended = { 0 };
    *ret_result = lock_to_send(channel);
    if (*ret_result)
        return true;
    int rc = is_reserve(op) && !channel->is_bounded ? -EINVAL : may_send(channel);
    if (rc == -EAGAIN)
        rc = may_send_after_all(channel);
    if (rc != -EAGAIN && !nio_wait_claim(op))
        rc = -ECANCELED;
    if (rc == -EAGAIN)
        nio_wait_push(&channel->senders, op);
    else if (rc == 0 && is_reserve(op))
        channel->reserved++;
    else if (rc == 0)
        deliver(channel, memory_of(op), &ended);
    unlock(channel);
    nio_wait_list_done(&ended);
    *ret_result = rc;
    return rc != -EAGAIN;
}

static bool send_leave(struct numio_op *op)
{
    struct numio_channel *channel = nio_wait_object(op);
    struct nio_wait_list ended = { 0 };
    lock(channel);
    bool is_mine = nio_wait_remove(&channel->senders, op);
    settle(channel, &ended);
    unlock(channel);
    nio_wait_list_done(&ended);
    return is_mine;
}

static void reserve_give_back(struct numio_op *op)
{
    (void)numio_channel_release(nio_wait_object(op)); /* it was reserved */
}

static const struct nio_wait_class send_kind = { send_begin, send_leave, NULL };
static const struct nio_wait_class reserve_kind = { send_begin, send_leave, reserve_give_back };

void numio_op_channel_send(struct numio_op *op, struct numio_channel *channel, const void *message)
{
    nio_wait_prep(op, &send_kind, channel, (uintptr_t)message);
}

void numio_op_channel_reserve(struct numio_op *op, struct numio_channel *channel)
{
    nio_wait_prep(op, &reserve_kind, channel, 0);
}

/* What need not look at anything else: there is room, nobody waits, and the channel is open. */
static NIO_ALWAYS_INLINE bool is_plain_send(const struct numio_channel *channel)
{
    uint64_t tail = nio_channel_tail(channel);
    return bits_of(channel) == 0 && nio_wait_queue_is_empty(&channel->receivers) &&
           tail + channel->reserved - channel->head_seen < channel->capacity &&
           (channel->is_bounded || !nio_channel_begins_block(channel, tail));
}

/* Under the lock, which it releases: gives the message to the receiver that has waited longest, if
 * that is a coroutine that waits for nothing else.  False: it is not, and the lock is held. */
static NIO_ALWAYS_INLINE bool hand_over(struct numio_channel *channel, const void *message)
{
    struct numio_op *op = channel->receivers._first;
    if (!op || nio_op_kind(op) != NIO_OP_STARTED || op->_task->kind != NIO_TASK_COROUTINE ||
        bits_of(channel) != 0 || !nio_channel_has_room(channel))
        return false;
    (void)nio_wait_remove(&channel->receivers, op); /* it is there */
    nio_message_copy(memory_of(op), message, channel->message_bytes);
    int32_t result = recv_result(op, 1);
    unlock(channel);
    nio_wait_done(op, result);
    return true;
}

/* Under the lock, which it releases. */
static NIO_NOINLINE int try_send_slow(struct numio_channel *channel, const void *message)
{
    struct nio_wait_list ended = { 0 };
    if (hand_over(channel, message))
        return 0;
    int rc = find_block(channel);
    if (rc)
        return rc;
    rc = may_send(channel);
    if (rc == 0)
        deliver(channel, message, &ended);
    unlock(channel);
    nio_wait_list_done(&ended);
    return rc;
}

static NIO_ALWAYS_INLINE int try_send(struct numio_channel *channel, const void *message)
{
    lock(channel);
    if (NIO_LIKELY(is_plain_send(channel))) {
        nio_channel_put(channel, message);
        unlock(channel);
        return 0;
    }
    return try_send_slow(channel, message);
}

static NIO_NOINLINE int send_slow(struct numio_channel *channel, const void *message)
{
    struct numio_op op;
    numio_op_channel_send(&op, channel, message);
    return nio_wait_await(&op);
}

int numio_channel_send(struct numio_channel *channel, const void *message)
{
    nio_charge();
    int rc = try_send(channel, message);
    return NIO_LIKELY(rc != -EAGAIN) ? rc : send_slow(channel, message);
}

int numio_channel_try_send(struct numio_channel *channel, const void *message)
{
    return try_send(channel, message);
}

/* Sends what there is room for; returns how many, or an error if none. */
static int64_t send_some(struct numio_channel *channel, const unsigned char *messages, size_t count)
{
    struct nio_wait_list ended = { 0 };
    size_t sent = 0;
    int rc = lock_to_send(channel);
    if (rc)
        return rc;
    while (sent < count && (rc = may_send(channel)) == 0 &&
           (sent == 0 || !nio_channel_needs_block(channel)))
        deliver(channel, messages + sent++ * channel->message_bytes, &ended);
    unlock(channel);
    nio_wait_list_done(&ended);
    return sent > 0 ? (int64_t)sent : rc;
}

int64_t numio_channel_send_many(struct numio_channel *channel, const void *messages, size_t count)
{
    const unsigned char *from = messages;
    size_t sent = 0;
    while (sent < count) {
        nio_charge();
        int64_t n = send_some(channel, from + sent * channel->message_bytes, count - sent);
        if (n == -EAGAIN) {
            n = send_slow(channel, from + sent * channel->message_bytes);
            n = n ? n : 1;
        }
        if (n < 0)
            return sent > 0 ? (int64_t)sent : n;
        sent += (size_t)n;
    }
    return (int64_t)sent;
}

/* ---- places -------------------------------------------------------------------------------- */

int numio_channel_try_reserve(struct numio_channel *channel)
{
    if (!channel->is_bounded)
        return nio_error(-EINVAL, "channel: an unbounded one has no places to reserve");
    lock(channel);
    int rc = may_send(channel);
    channel->reserved += rc == 0;
    unlock(channel);
    return rc;
}

int numio_channel_reserve(struct numio_channel *channel)
{
    struct numio_op op;
    nio_charge();
    int rc = numio_channel_try_reserve(channel);
    if (NIO_LIKELY(rc != -EAGAIN))
        return rc;
    numio_op_channel_reserve(&op, channel);
    return nio_wait_await(&op);
}

/* Gives a reserved place up, for the message if there is one. */
static int use_place(struct numio_channel *channel, const void *message)
{
    struct nio_wait_list ended = { 0 };
    int rc = -EPERM;
    lock(channel);
    if (channel->reserved > 0) {
        rc = 0;
        channel->reserved--;
        if (message)
            deliver(channel, message, &ended);
        settle(channel, &ended);
    }
    unlock(channel);
    nio_wait_list_done(&ended);
    return rc ? nio_error(rc, "channel: no place is reserved") : 0;
}

int numio_channel_send_reserved(struct numio_channel *channel, const void *message)
{
    return use_place(channel, message);
}

int numio_channel_release(struct numio_channel *channel)
{
    return use_place(channel, NULL);
}

/* ---- receiving ----------------------------------------------------------------------------- */

/* Takes up to `count` messages that are nobody else's; returns how many.  Under the lock. */
static uint64_t take_free(struct numio_channel *channel, void *ret_messages, uint64_t count,
                          struct nio_wait_list *ended)
{
    uint64_t free = nio_channel_count(channel, count + channel->promised) - channel->promised;
    if (free < count)
        count = free;
    if (count == 0)
        return 0;
    nio_channel_take(channel, ret_messages, count);
    settle(channel, ended);
    return count;
}

static NIO_ALWAYS_INLINE bool recv_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_channel *channel = nio_wait_object(op);
    struct nio_wait_list ended = { 0 };
    int32_t rc = -EAGAIN;
    lock(channel);
    if (channel->has_one_receiver && !nio_wait_queue_is_empty(&channel->receivers))
        rc = -EBUSY;
    else if (nio_channel_count(channel, 1 + channel->promised) > channel->promised)
        rc = 0;
    else if (is_drained(channel))
        rc = -EPIPE;
    if (rc != -EAGAIN && !nio_wait_claim(op))
        rc = -ECANCELED;
    if (rc == -EAGAIN)
        nio_wait_push(&channel->receivers, op);
    if (rc == 0) {
        rc = give(channel, op);
        settle(channel, &ended);
    }
    unlock_taken(channel);
    nio_wait_list_done(&ended);
    *ret_result = rc;
    return rc != -EAGAIN;
}

static bool leave_queue(struct numio_channel *channel, struct numio_wait_queue_ *queue,
                        struct numio_op *op)
{
    lock(channel);
    bool is_mine = nio_wait_remove(queue, op);
    unlock(channel);
    return is_mine;
}

static bool recv_leave(struct numio_op *op)
{
    struct numio_channel *channel = nio_wait_object(op);
    return leave_queue(channel, &channel->receivers, op);
}

/* A future takes what was left for it. */
static int32_t recv_take(struct numio_op *op)
{
    struct numio_channel *channel = nio_wait_object(op);
    struct nio_wait_list ended = { 0 };
    lock(channel);
    if (!channel->has_one_receiver)
        channel->promised--;
    uint64_t count = take_free(channel, memory_of(op), wanted(op), &ended);
    unlock_taken(channel);
    nio_wait_list_done(&ended);
    NIO_DEBUG_ASSERT(count > 0);
    return recv_result(op, count);
}

static void recv_give_back(struct numio_op *op)
{
    struct numio_channel *channel = nio_wait_object(op);
    struct nio_wait_list ended = { 0 };
    if (channel->has_one_receiver)
        return;
    lock(channel);
    channel->promised--;
    struct numio_op *next = nio_wait_pop(&channel->receivers, &ended);
    if (next)
        nio_wait_list_add(&ended, next, give(channel, next));
    settle(channel, &ended);
    unlock_taken(channel);
    nio_wait_list_done(&ended);
}

static const struct nio_wait_take_class recv_kind = { { recv_begin, recv_leave, recv_give_back },
                                                      recv_take };

static void prepare_recv(struct numio_op *op, struct numio_channel *channel, void *ret_messages,
                         size_t count)
{
    nio_wait_prep_take(op, &recv_kind, channel, (uintptr_t)ret_messages);
    op->_sqe[NIO_WAIT_WORD_ARG2] = count;
}

void numio_op_channel_recv(struct numio_op *op, struct numio_channel *channel, void *ret_message)
{
    prepare_recv(op, channel, ret_message, 0);
}

void numio_op_channel_recv_many(struct numio_op *op, struct numio_channel *channel,
                                void *ret_messages, size_t count)
{
    prepare_recv(op, channel, ret_messages, count < INT32_MAX ? count : INT32_MAX);
}

static NIO_NOINLINE void settle_locked(struct numio_channel *channel)
{
    struct nio_wait_list ended = { 0 };
    lock(channel);
    settle(channel, &ended);
    unlock(channel);
    nio_wait_list_done(&ended);
}

/* The one receiver, without the lock: up to `count` messages, or -EBUSY. */
static NIO_ALWAYS_INLINE int64_t take_alone(struct numio_channel *channel, void *ret_messages,
                                            uint64_t count)
{
    /* relaxed, as the store below: with one receiver it is its own; a second is noticed if it comes
     * in the same moment, and nothing is published */
    if (NIO_UNLIKELY(atomic_load_explicit(&channel->is_receiving, memory_order_relaxed)))
        return nio_error(-EBUSY, "channel: two receive, and it was made for one");
    /* relaxed: as above */
    atomic_store_explicit(&channel->is_receiving, 1, memory_order_relaxed);
    if (count == 1)
        count = nio_channel_take_one(channel, ret_messages);
    else
        count = nio_channel_take_up_to(channel, ret_messages, count);
    /* relaxed: as above */
    atomic_store_explicit(&channel->is_receiving, 0, memory_order_relaxed);
    if (NIO_UNLIKELY(count > 0 && nio_channel_senders_wait(channel)))
        settle_locked(channel);
    return (int64_t)count;
}

static NIO_NOINLINE int64_t take_locked(struct numio_channel *channel, void *ret_messages,
                                        uint64_t count)
{
    struct nio_wait_list ended = { 0 };
    lock(channel);
    count = take_free(channel, ret_messages, count, &ended);
    unlock_taken(channel);
    nio_wait_list_done(&ended);
    return (int64_t)count;
}

static NIO_ALWAYS_INLINE int64_t take_some(struct numio_channel *channel, void *ret_messages,
                                           uint64_t count)
{
    return channel->has_one_receiver ? take_alone(channel, ret_messages, count)
                                     : take_locked(channel, ret_messages, count);
}

/* `count` 0: the one of numio_channel_recv(). */
static NIO_NOINLINE int32_t recv_slow(struct numio_channel *channel, void *ret_messages,
                                      size_t count)
{
    struct numio_op op;
    prepare_recv(&op, channel, ret_messages, count);
    int32_t rc = nio_wait_await_by(&op, recv_begin);
    if (rc == -EBUSY)
        return nio_error(rc, "channel: two receive, and it was made for one");
    return rc;
}

int numio_channel_recv(struct numio_channel *channel, void *ret_message)
{
    nio_charge();
    int64_t n = take_some(channel, ret_message, 1);
    if (NIO_LIKELY(n != 0))
        return n > 0 ? 0 : (int)n;
    return recv_slow(channel, ret_message, 0);
}

int numio_channel_try_recv(struct numio_channel *channel, void *ret_message)
{
    bool was_closed = numio_channel_is_closed(channel); /* then all that was sent is seen */
    int64_t n = take_some(channel, ret_message, 1);
    if (n != 0)
        return n > 0 ? 0 : (int)n;
    if (!was_closed)
        return -EAGAIN;
    lock(channel);
    int rc = is_drained(channel) ? -EPIPE : -EAGAIN;
    unlock(channel);
    return rc;
}

int64_t numio_channel_recv_many(struct numio_channel *channel, void *ret_messages, size_t count)
{
    if (count == 0)
        return 0;
    if (count > INT32_MAX)
        count = INT32_MAX;
    nio_charge();
    int64_t n = take_some(channel, ret_messages, count);
    return n != 0 ? n : recv_slow(channel, ret_messages, count);
}

/* ---- closing, figures ---------------------------------------------------------------------- */

void numio_channel_close(struct numio_channel *channel)
{
    struct nio_wait_list ended = { 0 };
    lock(channel);
    /* [CN9] release: who sees it sees all that was sent before.  Pairs with [CN9]. */
    (void)atomic_fetch_or_explicit(&channel->bits, NIO_CHANNEL_CLOSED, memory_order_release);
    nio_wait_take_all(&channel->senders, &ended, -EPIPE);
    nio_wait_take_all(&channel->watchers, &ended, 0);
    settle(channel, &ended);
    unlock(channel);
    nio_wait_list_done(&ended);
}

static bool watch_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_channel *channel = nio_wait_object(op);
    lock(channel);
    bool is_closed = bits_of(channel) & NIO_CHANNEL_CLOSED;
    if (is_closed)
        *ret_result = nio_wait_claim(op) ? 0 : -ECANCELED;
    else
        nio_wait_push(&channel->watchers, op);
    unlock(channel);
    return is_closed;
}

static bool watch_leave(struct numio_op *op)
{
    struct numio_channel *channel = nio_wait_object(op);
    return leave_queue(channel, &channel->watchers, op);
}

static const struct nio_wait_class watch_kind = { watch_begin, watch_leave, NULL };

void numio_op_channel_wait_closed(struct numio_op *op, struct numio_channel *channel)
{
    nio_wait_prep(op, &watch_kind, channel, 0);
}

int numio_channel_wait_closed(struct numio_channel *channel)
{
    struct numio_op op;
    numio_op_channel_wait_closed(&op, channel);
    return nio_wait_await(&op);
}

bool numio_channel_is_closed(const struct numio_channel *channel)
{
    /* [CN9] acquire: as in numio_channel_close() */
    return atomic_load_explicit(&channel->bits, memory_order_acquire) & NIO_CHANNEL_CLOSED;
}

uint64_t numio_channel_len(const struct numio_channel *channel)
{
    /* relaxed, both: figures a moment old; a tail of before the head is none */
    uint64_t head = atomic_load_explicit(&channel->head, memory_order_relaxed);
    uint64_t tail = nio_channel_tail(channel);
    return tail > head ? tail - head : 0;
}

uint64_t numio_channel_capacity(const struct numio_channel *channel)
{
    return channel->capacity;
}
