/* SPDX-License-Identifier: MIT */
/* sync/channel_ring.h: what a channel is, and the storage of its messages.
 *
 * Messages have positions that only rise: `tail` is the next to be written, `head` the next to be
 * taken.  They lie in blocks of a power of two of slots, which follow each other; the one block of
 * a bounded channel follows itself, so that it is a ring.  Of an unbounded one the emptied block is
 * kept as `spare`, for the next that the senders need; others are freed, after the lock where many
 * receive.
 *
 * The sending side is under the channel's lock, which is that of `receivers`.  The receiving side
 * is under the lock too, or, with one receiver, that one's alone; then the two sides share nothing
 * but `tail`, `head`, `spare` and the bits.
 */
#ifndef NIO_SYNC_CHANNEL_RING_H
#define NIO_SYNC_CHANNEL_RING_H

#include <numio/channel.h>

#include <stdatomic.h>
#include <string.h>

#include "runtime/base/compiler.h"
#include "runtime/base/mem.h"
#include "runtime/task/wait.h"

struct nio_channel_block {
    struct nio_channel_block *next; /* a sender, before the tail is beyond this block */
    NIO_CACHE_ALIGNED unsigned char slots[];
};

enum nio_channel_bit {
    NIO_CHANNEL_SENDERS = 1, /* somebody waits for a place */
    NIO_CHANNEL_CLOSED = 2
};

struct numio_channel {
    /* constant after create, but for the bits */
    NIO_CACHE_ALIGNED size_t message_bytes;
    size_t slot_bytes;
    uint64_t slot_mask; /* slots of a block, less one */
    uint64_t capacity;
    bool is_bounded, has_one_receiver;
    _Atomic uint32_t bits; /* enum nio_channel_bit; written under the lock, any reads */
    /* under the lock; others read `tail` */
    NIO_CACHE_ALIGNED struct numio_wait_queue_ receivers;
    _Atomic uint64_t tail;
    struct nio_channel_block *tail_block; /* that of tail - 1 */
    uint64_t head_seen;
    uint64_t reserved;                 /* places for messages that will be sent */
    uint64_t promised;                 /* messages that are left for futures which will poll */
    struct numio_wait_queue_ senders;  /* its lock is not used */
    struct numio_wait_queue_ watchers; /* those who wait for the close; likewise */
    /* the receiving side; others read `head` */
    NIO_CACHE_ALIGNED _Atomic uint64_t head;
    struct nio_channel_block *head_block; /* that of head - 1 */
    uint64_t tail_seen;
    struct nio_channel_block *emptied;       /* under the lock: to be freed after it */
    _Atomic uint32_t is_receiving;           /* the one receiver is at it */
    struct nio_channel_block *_Atomic spare; /* NULL, or one for the senders */
};

/* No position is 0, so that the first block is not taken for a second. */
enum { NIO_CHANNEL_FIRST = 1 };

static inline void *nio_channel_slot(const struct numio_channel *channel,
                                     struct nio_channel_block *block, uint64_t position)
{
    return block->slots + (position & channel->slot_mask) * channel->slot_bytes;
}

static inline bool nio_channel_begins_block(const struct numio_channel *channel, uint64_t position)
{
    return (position & channel->slot_mask) == 0;
}

/* Most messages are a word or two, for which a call is long. */
static NIO_ALWAYS_INLINE void nio_message_copy(void *to, const void *from, size_t bytes)
{
    if (bytes == 8)
        memcpy(to, from, 8);
    else if (bytes == 16)
        memcpy(to, from, 16);
    else
        memcpy(to, from, bytes);
}

/* ---- the sending side ---------------------------------------------------------------------- */

/* Under the lock. */
static inline uint64_t nio_channel_tail(const struct numio_channel *channel)
{
    /* relaxed: written under this lock */
    return atomic_load_explicit(&channel->tail, memory_order_relaxed);
}

/* Whether a message may be added.  Under the lock. */
static inline bool nio_channel_has_room(struct numio_channel *channel)
{
    uint64_t used = nio_channel_tail(channel) + channel->reserved;
    if (used - channel->head_seen < channel->capacity)
        return true;
    /* [CN2] seq_cst: the receiver has read what was in the places before them.  Pairs with [CN3]:
     * after SENDERS was set, either this sees the place that was made, or the receiver the bit. */
    channel->head_seen = atomic_load_explicit(&channel->head, memory_order_seq_cst);
    return used - channel->head_seen < channel->capacity;
}

/* Whether the next message needs a block that is not there.  Under the lock. */
static inline bool nio_channel_needs_block(struct numio_channel *channel)
{
    return NIO_UNLIKELY(!channel->is_bounded) &&
           nio_channel_begins_block(channel, nio_channel_tail(channel)) &&
           /* relaxed: [CN5] follows; only this lock's holder takes one away */
           !atomic_load_explicit(&channel->spare, memory_order_relaxed);
}

static inline void nio_channel_enter_block(struct numio_channel *channel)
{
    if (!channel->is_bounded) {
        /* [CN5] acquire: the receiver has read what was in it.  Pairs with [CN6]. */
        struct nio_channel_block *block =
            atomic_exchange_explicit(&channel->spare, NULL, memory_order_acquire);
        block->next = NULL;
        channel->tail_block->next = block;
    }
    channel->tail_block = channel->tail_block->next;
}

/* Adds a message, for which there is room and a block.  Under the lock. */
static NIO_ALWAYS_INLINE void nio_channel_put(struct numio_channel *channel, const void *message)
{
    uint64_t tail = nio_channel_tail(channel);
    if (NIO_UNLIKELY(nio_channel_begins_block(channel, tail)))
        nio_channel_enter_block(channel);
    nio_message_copy(nio_channel_slot(channel, channel->tail_block, tail), message,
                     channel->message_bytes);
    /* [CN1] release: publishes the message and the block.  Pairs with [CN4]. */
    atomic_store_explicit(&channel->tail, tail + 1, memory_order_release);
}

/* ---- the receiving side -------------------------------------------------------------------- */

/* Who receives. */
static inline uint64_t nio_channel_head(const struct numio_channel *channel)
{
    /* relaxed: the receiving side's own */
    return atomic_load_explicit(&channel->head, memory_order_relaxed);
}

/* How many messages there are; looks for more only if there are fewer than `wanted`. */
static inline uint64_t nio_channel_count(struct numio_channel *channel, uint64_t wanted)
{
    uint64_t head = nio_channel_head(channel);
    if (channel->tail_seen - head < wanted)
        /* [CN4] acquire: sees the messages and the blocks.  Pairs with [CN1]. */
        channel->tail_seen = atomic_load_explicit(&channel->tail, memory_order_acquire);
    return channel->tail_seen - head;
}

/* The block before is empty, and the senders are beyond it. */
static inline void nio_channel_leave_block(struct numio_channel *channel)
{
    struct nio_channel_block *block = channel->head_block;
    channel->head_block = block->next;
    if (channel->is_bounded)
        return;
    /* [CN6] acq_rel: what was in it has been read; frees what another put there.  Pairs with
     * [CN5], [CN6]. */
    block = atomic_exchange_explicit(&channel->spare, block, memory_order_acq_rel);
    if (channel->has_one_receiver || !block) {
        nio_free(block);
        return;
    }
    block->next = channel->emptied;
    channel->emptied = block;
}

static NIO_ALWAYS_INLINE void nio_channel_copy_out(struct numio_channel *channel, uint64_t head,
                                                   void *ret_message)
{
    if (NIO_UNLIKELY(nio_channel_begins_block(channel, head)))
        nio_channel_leave_block(channel);
    nio_message_copy(ret_message, nio_channel_slot(channel, channel->head_block, head),
                     channel->message_bytes);
}

static NIO_ALWAYS_INLINE void nio_channel_publish_head(struct numio_channel *channel, uint64_t head)
{
    if (channel->has_one_receiver && channel->is_bounded)
        /* [CN3] seq_cst: the places may be written again, and the caller's look whether senders
         * wait comes after.  Pairs with [CN2]. */
        (void)atomic_exchange_explicit(&channel->head, head, memory_order_seq_cst);
    else
        /* relaxed: nobody waits for a place, or all is under the lock */
        atomic_store_explicit(&channel->head, head, memory_order_relaxed);
}

/* Takes the `count` oldest messages, which are there. */
static inline void nio_channel_take(struct numio_channel *channel, void *ret_messages,
                                    uint64_t count)
{
    uint64_t head = nio_channel_head(channel);
    unsigned char *to = ret_messages;
    for (uint64_t i = 0; i < count; i++, head++, to += channel->message_bytes)
        nio_channel_copy_out(channel, head, to);
    nio_channel_publish_head(channel, head);
}

/* The one receiver: takes up to `count` messages; returns how many. */
static inline uint64_t nio_channel_take_up_to(struct numio_channel *channel, void *ret_messages,
                                              uint64_t count)
{
    uint64_t there = nio_channel_count(channel, count);
    if (there < count)
        count = there;
    if (count > 0)
        nio_channel_take(channel, ret_messages, count);
    return count;
}

static NIO_ALWAYS_INLINE uint64_t nio_channel_take_one(struct numio_channel *channel,
                                                       void *ret_message)
{
    if (nio_channel_count(channel, 1) == 0)
        return 0;
    uint64_t head = nio_channel_head(channel);
    nio_channel_copy_out(channel, head, ret_message);
    nio_channel_publish_head(channel, head + 1);
    return 1;
}

/* After it: whether senders wait for a place. */
static inline bool nio_channel_senders_wait(const struct numio_channel *channel)
{
    /* [CN7] seq_cst: after [CN3].  Pairs with [CN8]. */
    return atomic_load_explicit(&channel->bits, memory_order_seq_cst) & NIO_CHANNEL_SENDERS;
}

#endif
