/* SPDX-License-Identifier: MIT */
/* driver/uring.h: the state of one ring, for driver_uring.c, uring_cancel.c and uring_setup.c.
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
    NIO_TAG_STREAM = 4, /* an operation of a struct nio_multi */
    NIO_TAG_CANCEL_STREAM = NIO_TAG_STREAM | NIO_TAG_CANCEL,
    NIO_TAG_MASK = 7
};

/* Above the address, of which user space has 48 bits at most: the number of the submission, and in
 * a cancel's own user_data how often it was tried. */
enum { NIO_NAME_NUMBER_SHIFT = 48, NIO_NAME_TRIES_SHIFT = 60 };
#define NIO_NAME_NUMBER_MASK UINT64_C(0xfff)
#define NIO_NAME_ADDRESS_MASK UINT64_C(0x0000fffffffffff8)

/* Whether the queue waits for credits that a sibling may return. */
enum nio_uring_starved { NIO_STARVED_NOT = 0, NIO_STARVED_WAITS, NIO_STARVED_CREDITS_BACK };

enum {
    NIO_URING_ENTRIES_MIN = 64,       /* no further halving below */
    NIO_URING_CQ_FACTOR = 8,          /* CQ entries for each SQ entry ... */
    NIO_URING_CQ_FACTOR_MIN = 2,      /* ... in the smallest ring so few ... */
    NIO_URING_CQ_ENTRIES_MAX = 65536, /* ... up to the kernel's limit */
    NIO_URING_WAKE_RESERVE = 8        /* CQ entries for the eventfd's completions */
};

/* A cancel that found nothing, or something that it could not end. */
struct nio_uring_missed {
    uint64_t user_data; /* of the cancel */
    uint64_t due_ns;    /* when to try again */
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
    unsigned sq_mask, cq_mask;
    unsigned sq_entries;  /* 0 once the SQ thread has ended */
    unsigned credits;     /* operations in flight at most */
    unsigned cancels_max; /* cancels in flight at most */
    int enter_fd;
    unsigned enter_flags;
    bool is_sqpoll;
    bool has_message;     /* unpark posts straight to the CQ */
    _Atomic bool is_dead; /* the owner writes, once: the SQ thread has ended */
    struct io_uring ring;

    /* owner only */
    NIO_CACHE_ALIGNED unsigned tail; /* SQEs filled, ahead of *sq_tail until published */
    unsigned published;              /* what *sq_tail says */
    bool wake_armed;                 /* the eventfd is watched by the ring */
    bool has_iowq;                   /* the kernel has threads for requests that would block */
    unsigned queued_cancelled;       /* operations in `queue` that are to end unsubmitted */
    uint64_t submitted;              /* operations that took a credit, ever */
    uint64_t cancels;                /* cancels submitted, ever */
    struct nio_op_queue queue;       /* operations that wait for a credit or for SQ room */

    struct nio_uring_missed *missed;
    unsigned missed_count, missed_room;
    _Atomic uint64_t missed_ns; /* any reads: earliest due_ns, NIO_TIME_NONE */

    /* whoever holds cq_lock writes; the owner reads */
    NIO_CACHE_ALIGNED struct nio_lock cq_lock;
    _Atomic uint64_t completed;    /* operations that gave their credit back, ever */
    _Atomic uint64_t cancels_done; /* likewise for cancels */

    /* owner and siblings, RMW: enum nio_uring_starved */
    _Atomic uint32_t starved;
};

/* Any thread: whether completions wait to be reaped. */
static inline bool nio_uring_cq_has_entries(const struct nio_uring *uring)
{
    /* relaxed: the head is a hint here; under the lock it is exact */
    unsigned head = atomic_load_explicit(uring->cq_head, memory_order_relaxed);
    /* [DU3] acquire: sees the completions before this tail. */
    return atomic_load_explicit(uring->cq_tail, memory_order_acquire) != head;
}

/* Any thread: whether the kernel has not begun what was published. */
static inline bool nio_uring_sq_has_entries(const struct nio_uring *uring)
{
    /* relaxed in both: a hint */
    unsigned head = atomic_load_explicit(uring->sq_head, memory_order_relaxed);
    /* relaxed: as above */
    return atomic_load_explicit(uring->sq_tail, memory_order_relaxed) != head;
}

/* driver_uring.c: for uring_cancel.c.  Owner. */
int nio_uring_enter(struct nio_uring *uring, unsigned submit, unsigned min_complete, unsigned flags,
                    int64_t timeout_ns);
/* Blocks until the kernel has taken at least one SQE, or has said why not. */
void nio_uring_wait_for_room(struct nio_uring *uring);

/* uring_iowq.c.  Before the first of the kernel's threads exists. */
void nio_uring_limit_iowq(struct nio_uring *uring, const struct nio_driver_options *options);
/* Owner, with nothing half done in the SQ: has the kernel make the first of them. */
void nio_uring_start_iowq(struct nio_uring *uring);

/* uring_napi.c: as the options say; what the kernel refuses becomes a reason. */
void nio_uring_set_napi(struct nio_uring *uring, const struct nio_driver_options *options);

/* uring_cancel.c.  Owner, except that any thread may ask nio_uring_cancel_is_due(). */
unsigned nio_uring_cancels_in_flight(const struct nio_uring *uring);
/* Ends a request with many completions by its name: it may be gone, and its memory.  Owner. */
void nio_uring_cancel_named(struct nio_uring *uring, uint64_t name);
/* A cancel ended with -ENOENT or -EALREADY; called under cq_lock. */
void nio_uring_cancel_missed(struct nio_uring *uring, uint64_t user_data, int32_t result);
/* The SQ thread has ended: nothing is tried again. */
void nio_uring_cancel_forget(struct nio_uring *uring);
/* Submits again what is due. */
void nio_uring_cancel_again(struct nio_uring *uring);
bool nio_uring_cancel_is_due(const struct nio_uring *uring);
/* How long a park may last because of them. */
int64_t nio_uring_cancel_limit(const struct nio_uring *uring, int64_t limit_ns);

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

static inline bool nio_uring_is_dead(const struct nio_uring *uring)
{
    /* relaxed: the owner's own store; a hint for others */
    return atomic_load_explicit(&uring->is_dead, memory_order_relaxed);
}

static inline unsigned nio_uring_sq_room(const struct nio_uring *uring)
{
    /* [DU2] acquire: the kernel has read the SQEs before this head. */
    unsigned head = atomic_load_explicit(uring->sq_head, memory_order_acquire);
    return uring->sq_entries - (uring->tail - head);
}

/* The caller has seen that there is room. */
static inline struct io_uring_sqe *nio_uring_next_sqe(struct nio_uring *uring)
{
    uring->base.flush_wanted = true;
    return &uring->sqes[uring->tail++ & uring->sq_mask];
}

static inline uint64_t nio_uring_name(const struct numio_op *op, uint64_t number)
{
    return (uintptr_t)op | (number & NIO_NAME_NUMBER_MASK) << NIO_NAME_NUMBER_SHIFT | NIO_TAG_OP;
}

static inline struct numio_op *nio_uring_op_of(uint64_t user_data)
{
    return (struct numio_op *)(uintptr_t)(user_data & NIO_NAME_ADDRESS_MASK);
}

#endif
