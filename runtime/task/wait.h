/* SPDX-License-Identifier: MIT */
/* task/wait.h: waiting for another task instead of for the kernel.
 *
 * A wait is a struct numio_op that no ring ever sees: a lock that is let go, a message that comes
 * or a task that ends completes it.  So it is awaited, polled, put into batches and selections,
 * limited by deadlines and cancelled by an abort like any other operation, and needs no memory but
 * its own.
 *
 * What is waited for, the object, has a struct numio_wait_queue_: a lock and a list of the waits,
 * first come first served.  The protocol:
 *
 * - begin: takes the object's lock; the wait either ends here, or joins the queue.
 * - end: whoever has what a wait wants takes it out of the queue under the lock
 *   (nio_wait_pop()), lets go of the lock and calls nio_wait_done(), once.
 * - leave: a cancellation, by the worker that runs the waiting task, takes the wait out itself and
 *   ends it with -ECANCELED; if it is not in the queue, somebody else is about to end it.
 *
 * The lock is held for a few dozen instructions, for a message's copy, or for as many waits as end
 * together: who finds it held looks again (nio_lock_spin()), and letting go of it is a store.  With
 * a locked instruction there, as futexes need, four senders on two workers took half as long again.
 *
 * So each wait ends exactly once, and who took it out of the queue is who ends it.  A wait that was
 * given something keeps it: it is not cancelled any more.  After nio_wait_done() the waiter may
 * free the wait and the object; the ender touches neither.
 *
 * A wait in a selection may be taken only by who wins the selection for it (nio_wait_claim(),
 * sched/select.c): nio_wait_pop() skips and ends those that have lost.
 *
 * The words of the image, which is not sent anywhere: 0 flags, 1 the class, 2 the object, 3 and 4
 * the class's, 5 and 6 links of the queue, 7 who waits (nio_wait_who()).
 */
#ifndef NIO_TASK_WAIT_H
#define NIO_TASK_WAIT_H

#include <numio/wait.h>

#include "runtime/base/lock.h"
#include "runtime/task/op_done.h"

/* Marks a wait, in a bit of the image's flags that the kernel has not got; the opcode is none. */
#define NIO_OP_IS_WAIT (UINT64_C(1) << 15)
/* Of a wait: its class is a struct nio_wait_take_class. */
#define NIO_OP_IS_TAKE (UINT64_C(1) << 16)
#define NIO_OP_WAIT_OPCODE UINT64_C(0xff)

enum {
    NIO_WAIT_WORD_CLASS = 1,
    NIO_WAIT_WORD_OBJECT,
    NIO_WAIT_WORD_ARG,
    NIO_WAIT_WORD_ARG2,
    NIO_WAIT_WORD_NEXT,
    NIO_WAIT_WORD_PREV,
    NIO_WAIT_WORD_WHO
};

/* numio_op._place of a wait; under the lock of its object. */
enum nio_wait_place { NIO_WAIT_OUTSIDE = 0, NIO_WAIT_QUEUED };

/* What a wait is for: one constant table for each kind of it. */
struct nio_wait_class {
    /* Any thread, once: true, it has ended with *ret_result; false, it is in the queue. */
    bool (*begin)(struct numio_op *op, int32_t *ret_result);
    /* Who runs the waiting task, or is the waiting thread: true, it stood in the queue and is the
     * caller's to end. */
    bool (*leave)(struct numio_op *op);
    /* Gives back what an ended wait has got, since nobody will look at it: the future was aborted.
     * NULL: there is nothing to give back. */
    void (*give_back)(struct numio_op *op);
};

/* One that leaves with its object what a future has been given, until that polls it: an aborted
 * future then has nothing to bring back, and no place is needed for it. */
struct nio_wait_take_class {
    struct nio_wait_class wait;
    /* The running future, once, if the wait has ended with 0 or more: takes it.  Returns the result
     * that the future sees. */
    int32_t (*take)(struct numio_op *op);
};

static inline bool nio_op_is_wait(const struct numio_op *op)
{
    return (op->_sqe[0] & NIO_OP_IS_WAIT) != 0;
}

static inline const struct nio_wait_class *nio_wait_class(const struct numio_op *op)
{
    return (const struct nio_wait_class *)(uintptr_t)op->_sqe[NIO_WAIT_WORD_CLASS];
}

static inline void *nio_wait_object(const struct numio_op *op)
{
    return (void *)(uintptr_t)op->_sqe[NIO_WAIT_WORD_OBJECT];
}

/* Prepares a wait; any context. */
static inline void nio_wait_prep(struct numio_op *op, const struct nio_wait_class *class,
                                 void *object, uint64_t arg)
{
    op->_sqe[0] = NIO_OP_IS_WAIT | NIO_OP_WAIT_OPCODE;
    op->_sqe[NIO_WAIT_WORD_CLASS] = (uintptr_t) class;
    op->_sqe[NIO_WAIT_WORD_OBJECT] = (uintptr_t)object;
    op->_sqe[NIO_WAIT_WORD_ARG] = arg;
    op->_state = NIO_OP_FRESH;
    op->_flags = 0;
    op->_place = NIO_WAIT_OUTSIDE;
}

static inline void nio_wait_prep_take(struct numio_op *op, const struct nio_wait_take_class *class,
                                      void *object, uint64_t arg)
{
    nio_wait_prep(op, &class->wait, object, arg);
    op->_sqe[0] |= NIO_OP_IS_TAKE;
}

static inline bool nio_op_is_take(const struct numio_op *op)
{
    return (op->_sqe[0] & (NIO_OP_IS_WAIT | NIO_OP_IS_TAKE)) == (NIO_OP_IS_WAIT | NIO_OP_IS_TAKE);
}

/* Whether a future waits by it, and so may be aborted after it was given something. */
static inline bool nio_wait_is_of_future(const struct numio_op *op)
{
    return op->_task && op->_task->kind == NIO_TASK_FUTURE;
}

/* ---- the queue ----------------------------------------------------------------------------- */

static inline struct nio_lock *nio_wait_queue_lock(struct numio_wait_queue_ *queue)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (struct nio_lock *)(void *)&queue->_lock;
}

_Static_assert(sizeof(struct nio_lock) == sizeof(((struct numio_wait_queue_ *)0)->_lock),
               "the public header has room for the lock");

static inline void nio_wait_queue_acquire(struct numio_wait_queue_ *queue)
{
    nio_lock_spin(nio_wait_queue_lock(queue));
}

static inline void nio_wait_queue_release(struct numio_wait_queue_ *queue)
{
    nio_lock_release_tried(nio_wait_queue_lock(queue));
}

/* All below: under the lock. */
static inline bool nio_wait_queue_is_empty(const struct numio_wait_queue_ *queue)
{
    return queue->_first == NULL;
}

static inline struct numio_op *nio_wait_next(const struct numio_op *op)
{
    return (struct numio_op *)(uintptr_t)op->_sqe[NIO_WAIT_WORD_NEXT];
}

void nio_wait_push(struct numio_wait_queue_ *queue, struct numio_op *op);
/* Takes a wait out, wherever it stands.  False: it is not in the queue. */
bool nio_wait_remove(struct numio_wait_queue_ *queue, struct numio_op *op);

/* Waits that were taken out and are to be ended once the lock is released: zero-initialised. */
struct nio_wait_list {
    struct numio_op *first, *last;
};

/* The oldest wait, taken out and, if it is part of a selection, won: the caller ends it.  Those
 * that have lost go to `lost`.  NULL: there is none. */
struct numio_op *nio_wait_pop(struct numio_wait_queue_ *queue, struct nio_wait_list *lost);
/* Puts a taken wait on a list, with its result. */
void nio_wait_list_add(struct nio_wait_list *list, struct numio_op *op, int32_t result);
/* Without the lock: ends all of them. */
void nio_wait_list_done(struct nio_wait_list *list);
/* Takes all waits out and puts them on the list with `result`. */
void nio_wait_take_all(struct numio_wait_queue_ *queue, struct nio_wait_list *list, int32_t result);

/* ---- ends ---------------------------------------------------------------------------------- */

/* Any thread, without the lock: the wait has ended.  The caller touches it no more. */
NIO_NOINLINE void nio_wait_done(struct numio_op *op, int32_t result);
/* Under the lock of its object: whether the wait may be given what it waits for.  Always true, but
 * for a member of a selection that another member has won. */
bool nio_wait_claim(struct numio_op *op);
/* Whether nio_wait_claim() would succeed, a moment ago. */
bool nio_wait_may_claim(struct numio_op *op);

/* Who is waiting, or running: a task, or a plain thread.  Compared only. */
static inline uintptr_t nio_wait_who(const struct numio_op *op)
{
    return (uintptr_t)op->_sqe[NIO_WAIT_WORD_WHO];
}

/* How long until then: 0 it has passed, negative (NIO_FUTEX_FOREVER) with UINT64_MAX. */
int64_t nio_wait_left_ns(uint64_t end_ns);
/* A wait by a plain thread: sleeps until it has ended, at most until `end_ns` (UINT64_MAX: for
 * ever). False: it has not ended by then. */
bool nio_wait_thread_sleep(struct numio_op *op, uint64_t end_ns);

#endif
