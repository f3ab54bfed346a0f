/* SPDX-License-Identifier: MIT */
/* task/op_done.h: how an operation ends.  The driver calls nio_op_done() exactly once for each
 * submitted operation, from the thread that reaped its completion, and touches the operation no
 * more: a coroutine's operation lives on its stack and may be gone as soon as the task runs.
 */
#ifndef NIO_TASK_OP_DONE_H
#define NIO_TASK_OP_DONE_H

#include "runtime/task/task.h"

enum nio_op_state {
    NIO_OP_FRESH = 0,
    NIO_OP_STARTED,
    NIO_OP_DONE,
    NIO_OP_MEMBER, /* started, one of the batch that _prev names */
    NIO_OP_LINKED, /* the same, and the driver, not the kernel, begins the one behind it */
    NIO_OP_STREAM, /* started, of a struct nio_multi: task/multi.h */
    NIO_OP_CHOICE, /* started, one of the selection that _prev names */
    NIO_OP_THREAD  /* started, a wait of a plain thread, which sleeps on this word: task/wait.h */
};

/* numio_op._flags: flags below, the index of the worker whose ring it went to above. */
enum { NIO_OP_WORKER_SHIFT = 8 };

enum nio_op_flag {
    NIO_OP_CANCEL_SENT = 1 << 0,   /* owner of the driver: a cancel was submitted */
    NIO_OP_CANCEL_WANTED = 1 << 1, /* the running task: to be cancelled on its own ring */
    NIO_OP_DEADLINE = 1 << 2,      /* constant once started: the timer of a deadline scope */
    NIO_OP_KEPT_LINK = 1 << 3,     /* these: owner of the driver, of chains that it keeps */
    NIO_OP_KEPT_HARDLINK = 1 << 4,
    NIO_OP_SEVERED = 1 << 5, /* its chain has broken before it */
    NIO_OP_SOURCE = 1 << 6   /* owner of the driver, which has not got it: sched/source.h */
};

/* Operations that a coroutine waits for together: it is woken by the last. */
struct nio_batch {
    _Atomic uint32_t left; /* not yet ended */
    struct numio_op *ops;  /* constant */
    unsigned count;        /* constant */
};

/* Operations of which a coroutine or a plain thread waits for the first.
 *
 * `winner` is set once, by who ends a member or is about to (nio_choice_claim()).  `state` has the
 * number of members that have not ended, and who is to be woken:
 *   FIRST  the waiter sleeps until any member has ended; the first clears it and wakes
 *   LAST   the waiter, which has cancelled the rest, sleeps until all have; the last wakes
 * Who decrements it and has to wake nobody touches the selection no more. */
struct nio_choice {
    _Atomic uint32_t state;
    _Atomic uint32_t winner; /* index + 1 of the member that counts, 0: none yet */
    struct nio_task *task;   /* constant; NULL: a plain thread, which sleeps on `state` */
    struct numio_op *ops;    /* constant */
    unsigned count;          /* constant */
    unsigned begun;          /* the waiter's: of them, those that were not left out */
};

#define NIO_CHOICE_FIRST (UINT32_C(1) << 30)
#define NIO_CHOICE_LAST (UINT32_C(1) << 31)
#define NIO_CHOICE_LEFT (NIO_CHOICE_FIRST - 1)

static inline struct nio_choice *nio_op_choice(const struct numio_op *op)
{
    return (struct nio_choice *)op->_prev;
}

/* Any thread: whether this member is the one that counts.  At most one is. */
bool nio_choice_claim(struct numio_op *op);

static inline struct nio_batch *nio_op_batch(const struct numio_op *op)
{
    return (struct nio_batch *)op->_prev;
}

static inline unsigned nio_op_worker(const struct numio_op *op)
{
    return op->_flags >> NIO_OP_WORKER_SHIFT;
}

static inline _Atomic uint32_t *nio_op_state(const struct numio_op *op)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint32_t *)(uintptr_t)&op->_state;
}

/* Of an operation that has been started and not done; constant that long. */
static inline enum nio_op_state nio_op_kind(const struct numio_op *op)
{
    /* relaxed: written before the submission, whose completion has ordered it */
    return atomic_load_explicit(nio_op_state(op), memory_order_relaxed);
}

/* Any worker, or a pool thread of the epoll profile.  Wakes the task. */
void nio_op_done(struct numio_op *op, int32_t result);
/* The worker that has the timer of a deadline scope, when its time has come: wakes the task, which
 * is late from now on.  `timer` may be gone when this returns. */
void nio_op_strike(struct numio_op *timer);
/* The running task: whether its operation has ended, with everything the reaper wrote. */
bool nio_op_is_done(const struct numio_op *op);

#endif
