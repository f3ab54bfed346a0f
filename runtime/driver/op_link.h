/* SPDX-License-Identifier: MIT */
/* driver/op_link.h: what the driver keeps inside a struct numio_op while it owns it.
 *
 * Nothing is allocated for an operation.  `_place` says where the driver has it (enum
 * nio_op_place), and the user_data field of the request's image, which means nothing until the
 * image is copied to a ring, is the link of the driver's own queues.  The owner of the driver
 * only; a sibling that reaps a completion reads neither.
 *
 * From there to its end the same word is the operation's name (driver/uring.h).  Whoever completes
 * it looks at the name and takes it away, so that a second completion of the same submission is
 * noticed; the owner may ask for the name, to cancel the operation, at the same moment.
 */
#ifndef NIO_DRIVER_OP_LINK_H
#define NIO_DRIVER_OP_LINK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <numio/op.h>

#include "runtime/base/compiler.h"

/* Values of numio_op._place. */
enum nio_op_place {
    NIO_OP_PLACE_RING = 0,         /* fresh, or in the kernel, or reaped */
    NIO_OP_PLACE_TIMER,            /* a plain timeout: never leaves the driver */
    NIO_OP_PLACE_QUEUED,           /* waits for a credit or for room in the SQ */
    NIO_OP_PLACE_QUEUED_CANCELLED, /* and leaves the queue at the next reap */
    NIO_OP_PLACE_CANCEL_SENT,      /* in the kernel, which was asked to end it */
    NIO_OP_PLACE_POLLED,           /* in the polled ring, or waits for it */
    NIO_OP_PLACE_POLLED_CANCELLED, /* the same, and was asked to end, which the kernel cannot do */
    NIO_OP_PLACE_WAITING,          /* epoll: for its descriptor */
    NIO_OP_PLACE_OFFLOADED,        /* epoll: on a thread that may block */
    NIO_OP_PLACE_LINKED,           /* waits for the one before it in its chain */
    NIO_OP_PLACE_LINKED_CANCELLED, /* the same, and was asked to end */
    NIO_OP_PLACE_ENDED             /* waits for a reap with its result; timeouts stay TIMER */
};

/* Instead of a number of nanoseconds in _time[1]: _time[0] is a deadline and not a delay. */
enum { NIO_OP_TIME_IS_POINT = -1 };

/* Words of the image that the driver may use for itself. */
enum {
    NIO_OP_WORD_LINK = 4,   /* user_data */
    NIO_OP_WORD_OFFSET = 1, /* reads and writes: off, as the call said it */
    NIO_OP_WORD_TIME = 2    /* link timeouts: addr; those of timers: time/wheel.h */
};

static inline struct numio_op *nio_op_word(const struct numio_op *op, unsigned word)
{
    return (struct numio_op *)(uintptr_t)op->_sqe[word];
}

static inline void nio_op_set_word(struct numio_op *op, unsigned word, struct numio_op *value)
{
    op->_sqe[word] = (uintptr_t)value;
}

static inline _Atomic uint64_t *nio_op_name_word(const struct numio_op *op)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint64_t *)(uintptr_t)&op->_sqe[NIO_OP_WORD_LINK];
}

/* Owner: 0 once the operation has ended. */
static inline uint64_t nio_op_name(const struct numio_op *op)
{
    /* relaxed: only says which request the kernel is asked for */
    return atomic_load_explicit(nio_op_name_word(op), memory_order_relaxed);
}

/* Who completes `op`: false, it has not that name, or no longer. */
static inline bool nio_op_take_name(struct numio_op *op, uint64_t name)
{
    /* relaxed: written before the submission, which the completion came after */
    if (atomic_load_explicit(nio_op_name_word(op), memory_order_relaxed) != name)
        return false;
    /* relaxed: as above; an exchange would cost more and find no more on one thread */
    atomic_store_explicit(nio_op_name_word(op), 0, memory_order_relaxed);
    return true;
}

/* The image's opcode: its first byte. */
static inline unsigned nio_op_opcode(const struct numio_op *op)
{
    return *(const unsigned char *)op->_sqe;
}

/* A first-in-first-out queue of operations. */
struct nio_op_queue {
    struct numio_op *head;
    struct numio_op *tail; /* meaningless while head is NULL */
    unsigned count;
};

static inline void nio_op_queue_push(struct nio_op_queue *queue, struct numio_op *op)
{
    nio_op_set_word(op, NIO_OP_WORD_LINK, NULL);
    if (queue->head)
        nio_op_set_word(queue->tail, NIO_OP_WORD_LINK, op);
    else
        queue->head = op;
    queue->tail = op;
    queue->count++;
}

static inline struct numio_op *nio_op_queue_pop(struct nio_op_queue *queue)
{
    struct numio_op *op = queue->head;
    if (op) {
        queue->head = nio_op_word(op, NIO_OP_WORD_LINK);
        queue->count--;
    }
    return op;
}

#endif
