/* SPDX-License-Identifier: MIT */
/* driver/buf_group.h: the receive buffers of one ring.
 *
 * A receive that waits has no buffer; the kernel picks one when there is something to put into it
 * (IORING_REGISTER_PBUF_RING).  So ten thousand idle connections need none.  Without a ring that
 * can do it, the group is a stack of free buffers, taken by who is about to receive.
 *
 * A buffer is given back from any thread, under the group's lock, and is the kernel's again at
 * once: it reads the tail with acquire [BG1].  Who finds none left waits in the group until one
 * comes back.
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

/* Somebody who waits for a buffer; in the waiter's memory. */
struct nio_buf_waiter {
    struct nio_task *task; /* with a reference, NULL: it was woken */
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
    uint16_t *free;                /* without a ring: the free ones ... */
    uint32_t free_count;           /* ... so many */
    uint64_t given;                /* back, ever */
    struct nio_buf_waiter waiters; /* head of a ring of them */
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

/* Any thread: the buffer is the kernel's again. */
void nio_buf_give_back(struct nio_buf_group *group, uint32_t index);
/* Without a ring: any thread takes one.  False: none is left. */
bool nio_buf_take(struct nio_buf_group *group, uint32_t *ret_index);
/* How many were given back, ever: what to compare before a wait. */
uint64_t nio_buf_given(struct nio_buf_group *group);
/* Leaves the task to be woken by the next one given back.  False: one has come since `given`. */
NIO_NODISCARD bool nio_buf_wait(struct nio_buf_group *group, uint64_t given,
                                struct nio_buf_waiter *waiter, struct nio_task *task);
/* Ends the wait, woken or not. */
void nio_buf_unwait(struct nio_buf_group *group, struct nio_buf_waiter *waiter);

#endif
