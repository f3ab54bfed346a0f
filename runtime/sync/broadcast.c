/* SPDX-License-Identifier: MIT */
/* The broadcast: a ring of the last messages, one lock, a queue of receivers.
 *
 * Positions only rise; a receiver has the position that it reads next.  Who sends never waits: it
 * overwrites the oldest, and a receiver finds by its position that this has happened to it.  All
 * receivers that wait have seen everything, so each message ends all waits, and goes into the
 * receivers' own memory at once.  An aborted future puts its receiver back by one message, which it
 * reads again from the ring.
 *
 * Everything is under the lock, which is a leaf.
 */
#include <numio/channel.h>

#include <errno.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

struct numio_broadcast {
    /* constant after create */
    size_t message_bytes;
    uint64_t capacity, slot_mask;
    unsigned char *slots;
    /* under the lock */
    NIO_CACHE_ALIGNED struct numio_wait_queue_ waits;
    uint64_t tail; /* the position of the next message */
    bool is_closed;
};

int numio_broadcast_create(size_t message_bytes, uint64_t capacity,
                           struct numio_broadcast **ret_broadcast)
{
    if (message_bytes == 0 || message_bytes > NUMIO_MESSAGE_BYTES_MAX)
        return nio_error(-EINVAL, "broadcast: messages of %zu bytes; 1 to %d are possible",
                         message_bytes, NUMIO_MESSAGE_BYTES_MAX);
    if (capacity == 0)
        return nio_error(-EINVAL, "broadcast: a capacity of 0");
    if (capacity > UINT64_MAX / 4)
        return nio_error(-ENOMEM, "broadcast: a capacity of 2^62 or more");
    uint64_t slots = 1;
    while (slots < capacity)
        slots *= 2;
    struct numio_broadcast *broadcast = nio_zalloc(sizeof *broadcast);
    if (!broadcast)
        return -ENOMEM;
    broadcast->slots = nio_zalloc_array(slots, message_bytes);
    if (!broadcast->slots) {
        nio_free(broadcast);
        return -ENOMEM;
    }
    broadcast->message_bytes = message_bytes;
    broadcast->capacity = capacity;
    broadcast->slot_mask = slots - 1;
    *ret_broadcast = broadcast;
    return 0;
}

void numio_broadcast_destroy(struct numio_broadcast *broadcast)
{
    if (!broadcast)
        return;
    NIO_ASSERT(!broadcast->waits._first);
    nio_free(broadcast->slots);
    nio_free(broadcast);
}

static void lock(struct numio_broadcast *broadcast)
{
    nio_wait_queue_acquire(&broadcast->waits);
}

static void unlock(struct numio_broadcast *broadcast)
{
    nio_wait_queue_release(&broadcast->waits);
}

void numio_broadcast_subscribe(struct numio_broadcast *broadcast,
                               struct numio_broadcast_receiver *ret_receiver)
{
    lock(broadcast);
    *ret_receiver =
        (struct numio_broadcast_receiver){ ._broadcast = broadcast, ._next = broadcast->tail };
    unlock(broadcast);
}

static void *slot(struct numio_broadcast *broadcast, uint64_t position)
{
    return broadcast->slots + (position & broadcast->slot_mask) * broadcast->message_bytes;
}

/* Under the lock: 0, -EAGAIN, -EOVERFLOW, -EPIPE. */
static int look(const struct numio_broadcast *broadcast, struct numio_broadcast_receiver *receiver)
{
    uint64_t left = broadcast->tail - receiver->_next;
    if (left == 0)
        return broadcast->is_closed ? -EPIPE : -EAGAIN;
    return left > broadcast->capacity ? -EOVERFLOW : 0;
}

/* Under the lock: what look() has found becomes the receiver's. */
static void take(struct numio_broadcast *broadcast, struct numio_broadcast_receiver *receiver,
                 int found, void *ret_message)
{
    if (found == -EOVERFLOW) {
        receiver->_missed = broadcast->tail - broadcast->capacity - receiver->_next;
        receiver->_next += receiver->_missed;
    } else if (found == 0) {
        memcpy(ret_message, slot(broadcast, receiver->_next++), broadcast->message_bytes);
    }
}

static struct numio_broadcast_receiver *receiver_of(const struct numio_op *op)
{
    return nio_wait_object(op);
}

static void *memory_of(const struct numio_op *op)
{
    return (void *)(uintptr_t)op->_sqe[NIO_WAIT_WORD_ARG];
}

static bool recv_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_broadcast_receiver *receiver = receiver_of(op);
    struct numio_broadcast *broadcast = receiver->_broadcast;
    lock(broadcast);
    int rc = look(broadcast, receiver);
    if (rc == -EAGAIN)
        nio_wait_push(&broadcast->waits, op);
    else if (!nio_wait_claim(op))
        rc = -ECANCELED;
    else
        take(broadcast, receiver, rc, memory_of(op));
    unlock(broadcast);
    *ret_result = rc;
    return rc != -EAGAIN;
}

static bool recv_leave(struct numio_op *op)
{
    struct numio_broadcast *broadcast = receiver_of(op)->_broadcast;
    lock(broadcast);
    bool is_mine = nio_wait_remove(&broadcast->waits, op);
    unlock(broadcast);
    return is_mine;
}

static void recv_give_back(struct numio_op *op)
{
    receiver_of(op)->_next--; /* the receiver is nobody else's */
}

static const struct nio_wait_class recv_kind = { recv_begin, recv_leave, recv_give_back };

void numio_op_broadcast_recv(struct numio_op *op, struct numio_broadcast_receiver *receiver,
                             void *ret_message)
{
    nio_wait_prep(op, &recv_kind, receiver, (uintptr_t)ret_message);
}

int numio_broadcast_try_recv(struct numio_broadcast_receiver *receiver, void *ret_message)
{
    struct numio_broadcast *broadcast = receiver->_broadcast;
    lock(broadcast);
    int rc = look(broadcast, receiver);
    take(broadcast, receiver, rc, ret_message);
    unlock(broadcast);
    return rc;
}

int numio_broadcast_recv(struct numio_broadcast_receiver *receiver, void *ret_message)
{
    struct numio_op op;
    nio_charge();
    int rc = numio_broadcast_try_recv(receiver, ret_message);
    if (rc != -EAGAIN)
        return rc;
    numio_op_broadcast_recv(&op, receiver, ret_message);
    return nio_wait_await(&op);
}

int numio_broadcast_send(struct numio_broadcast *broadcast, const void *message)
{
    struct nio_wait_list ended = { 0 };
    int rc = -EPIPE;
    lock(broadcast);
    if (!broadcast->is_closed) {
        memcpy(slot(broadcast, broadcast->tail), message, broadcast->message_bytes);
        broadcast->tail++;
        nio_wait_take_all(&broadcast->waits, &ended, 0);
        for (struct numio_op *op = ended.first; op; op = nio_wait_next(op))
            if (op->_result == 0) /* else a selection has lost */
                take(broadcast, receiver_of(op), 0, memory_of(op));
        rc = 0;
    }
    unlock(broadcast);
    nio_wait_list_done(&ended);
    return rc;
}

uint64_t numio_broadcast_missed(const struct numio_broadcast_receiver *receiver)
{
    return receiver->_missed;
}

uint64_t numio_broadcast_len(const struct numio_broadcast_receiver *receiver)
{
    lock(receiver->_broadcast);
    uint64_t left = receiver->_broadcast->tail - receiver->_next;
    unlock(receiver->_broadcast);
    return left;
}

void numio_broadcast_close(struct numio_broadcast *broadcast)
{
    struct nio_wait_list ended = { 0 };
    lock(broadcast);
    broadcast->is_closed = true;
    nio_wait_take_all(&broadcast->waits, &ended, -EPIPE);
    unlock(broadcast);
    nio_wait_list_done(&ended);
}
