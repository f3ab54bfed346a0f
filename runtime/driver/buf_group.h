/* SPDX-License-Identifier: MIT */
/* driver/buf_group.h: the receive buffers of one ring.
 *
 * A receive that waits has no buffer; the kernel picks one when there is something to put into it
 * (IORING_REGISTER_PBUF_RING).  So ten thousand idle connections need none.  Without a ring that
 * can do it, the group is a stack of free buffers, taken by who is about to receive.
 *
 * A buffer is given back from any thread, under the group's lock.  It goes to who has waited
 * longest for one; else it is kept for a stream that was refused one and has not come for it yet
 * (it is counted in `starved` when its refusal is reaped); else it is the kernel's again at once,
 * which reads the tail with acquire [BG1].  Were it the kernel's in any case, a stream that happens
 * to receive would be faster than the refused ones, again and again.
 *
 * Who was refused a buffer may wait if none has gone to the ring since it asked: then all are in
 * somebody's hands, or in completions, and will be given back.
 */
#ifndef NIO_DRIVER_BUF_GROUP_H
#define NIO_DRIVER_BUF_GROUP_H

#include <stddef.h>

#include "runtime/base/lock.h"
#include "runtime/task/multi.h"

enum { NIO_BUF_GROUP_ID = 0, NIO_BUF_GROUP_MIN = 16 };

struct io_uring;
struct io_uring_buf_ring;

/* Of the caller, who frees it after the group. */
struct nio_buf_memory {
    void *buffers; /* count * buffer_bytes */
    void *entries; /* page-aligned, nio_buf_entries_bytes(count); unused without a ring */
    size_t buffer_bytes;
    uint32_t count;
};

/* Somebody who wants a buffer; in its memory. */
struct nio_buf_waiter {
    struct nio_task *task; /* with a reference, while it waits */
    uint32_t index;        /* its buffer, once it has one */
    struct nio_buf_waiter *next, *prev;
};

struct nio_buf_group {
    /* constant after create */
    char *memory;
    size_t buffer_bytes;
    uint32_t count; /* a power of two */
    struct nio_multi_item *items;
    struct io_uring_buf_ring *ring; /* NULL: `free` instead */
    /* under the lock */
    struct nio_lock lock;
    uint16_t tail;                 /* ring */
    uint16_t *free;                /* kept for the starved; without a ring: all that are free */
    uint32_t free_count;           /* so many */
    uint64_t given;                /* to the ring, ever */
    struct nio_buf_waiter waiters; /* head of a ring of them */
    /* Streams that were refused a buffer and have not come for one: raised by who reaps, lowered
     * under the lock; stale, it only decides where a buffer goes. */
    _Atomic uint32_t starved;
};

size_t nio_buf_entries_bytes(uint32_t count);
/* Owner of the ring; NULL: the group works without one, as it does where the kernel has none.
 * Errors: -ENOMEM, and what the registration says. */
int nio_buf_group_create(struct io_uring *ring, const struct nio_buf_memory *memory,
                         struct nio_buf_group **ret_group);
/* Once the ring is gone.  Takes NULL. */
void nio_buf_group_destroy(struct nio_buf_group *group);

static inline void *nio_buf_of(const struct nio_buf_group *group, uint32_t index)
{
    return group->memory + (size_t)index * group->buffer_bytes;
}

/* Any thread. */
void nio_buf_give_back(struct nio_buf_group *group, uint32_t index);
/* How many have gone to the ring, ever: to be asked before a request is submitted. */
uint64_t nio_buf_given(struct nio_buf_group *group);
/* Who reaps: a request has ended for want of a buffer.  Its stream will claim one, or give up. */
void nio_buf_note_starved(struct nio_buf_group *group);
void nio_buf_give_up(struct nio_buf_group *group);

enum nio_buf_claim {
    NIO_BUF_HAVE,  /* waiter->index is the caller's */
    NIO_BUF_WAIT,  /* the task is left to be woken: suspend, then nio_buf_unwait() */
    NIO_BUF_AGAIN, /* one has gone to the ring since `given`: ask the kernel again */
};
enum nio_buf_claim nio_buf_claim(struct nio_buf_group *group, uint64_t given,
                                 struct nio_buf_waiter *waiter, struct nio_task *task);
/* Ends the wait.  True: a buffer was handed over, waiter->index, which is the caller's. */
NIO_NODISCARD bool nio_buf_unwait(struct nio_buf_group *group, struct nio_buf_waiter *waiter);

#endif
