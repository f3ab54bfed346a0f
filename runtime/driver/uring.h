/* SPDX-License-Identifier: MIT */
/* driver/uring.h: the state of one ring, for driver_uring.c and uring_setup.c.
 *
 * The ring's own indices are shared with the kernel and read and written as atomics; liburing maps
 * the memory and is not asked again until it unmaps it.
 */
#ifndef NIO_DRIVER_URING_H
#define NIO_DRIVER_URING_H

#include <liburing.h>

#include "runtime/base/lock.h"
#include "runtime/driver/driver_impl.h"

/* The low bits of user_data, free in a pointer to an operation. */
enum nio_uring_tag {
    NIO_TAG_OP = 0,
    NIO_TAG_WAKE = 1,
    NIO_TAG_CANCEL = 2,
    NIO_TAG_MESSAGE = 3,
    NIO_TAG_MASK = 7
};

/* Whether the queue waits for credits that a sibling may return. */
enum nio_uring_starved { NIO_STARVED_NOT = 0, NIO_STARVED_WAITS, NIO_STARVED_CREDITS_BACK };

enum {
    NIO_URING_ENTRIES_MIN = 64,       /* no further halving below */
    NIO_URING_CQ_FACTOR = 8,          /* CQ entries for each SQ entry ... */
    NIO_URING_CQ_FACTOR_MIN = 2,      /* ... in the smallest ring so few ... */
    NIO_URING_CQ_ENTRIES_MAX = 65536, /* ... up to the kernel's limit */
    NIO_URING_WAKE_RESERVE = 8        /* CQ entries for the eventfd's completions */
};

struct nio_uring {
    struct nio_driver base;

    /* constant after create */
    NIO_CACHE_ALIGNED struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    _Atomic unsigned *sq_head;  /* the kernel writes */
    _Atomic unsigned *sq_tail;  /* the owner writes */
    _Atomic unsigned *sq_flags; /* the kernel writes */
    _Atomic unsigned *cq_head;  /* the holder of cq_lock writes */
    _Atomic unsigned *cq_tail;  /* the kernel writes */
    unsigned sq_mask, sq_entries, cq_mask;
    unsigned credits;     /* operations in flight at most */
    unsigned cancels_max; /* cancels in flight at most */
    int enter_fd;
    unsigned enter_flags;
    bool is_sqpoll;
    bool has_message; /* unpark posts straight to the CQ */
    struct io_uring ring;

    /* owner only */
    NIO_CACHE_ALIGNED unsigned tail; /* SQEs filled, ahead of *sq_tail until published */
    unsigned published;              /* what *sq_tail says */
    bool wake_armed;                 /* the eventfd is watched by the ring */
    unsigned queued_cancelled;       /* operations in `queue` that are to end unsubmitted */
    uint64_t submitted;              /* operations that took a credit, ever */
    uint64_t cancels;                /* cancels submitted, ever */
    struct nio_op_queue queue;       /* operations that wait for a credit or for SQ room */

    /* whoever holds cq_lock writes; the owner reads */
    NIO_CACHE_ALIGNED struct nio_lock cq_lock;
    _Atomic uint64_t completed;    /* operations that gave their credit back, ever */
    _Atomic uint64_t cancels_done; /* likewise for cancels */

    /* owner and siblings, RMW: enum nio_uring_starved */
    _Atomic uint32_t starved;
};

/* Since Linux 6.13: posts a completion to a ring from a thread without one. */
enum { NIO_REGISTER_SEND_MSG_RING = 31 };

/* Any thread: posts the owner's wake into its CQ. */
int nio_uring_send_message(const struct nio_uring *uring);

static inline struct nio_uring *nio_uring_of(struct nio_driver *driver)
{
    return NIO_CONTAINER_OF(driver, struct nio_uring, base);
}

static inline const struct nio_uring *nio_uring_of_const(const struct nio_driver *driver)
{
    return (const struct nio_uring *)((const char *)driver - offsetof(struct nio_uring, base));
}

#endif
