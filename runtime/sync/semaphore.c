/* SPDX-License-Identifier: MIT */
/* The semaphore: the permits and two bits in one word, and a queue.
 *
 * Bit 0, WAITS: somebody is in the queue.  Bit 1, CLOSED.  Above them the permits that nobody has.
 *
 * Without WAITS and CLOSED, acquiring and releasing are one CAS each.  WAITS is set and cleared
 * under the queue's lock only, and while it is set permits are given under the lock only, to the
 * head of the queue, which is waited for until it can have all it wants: so nobody is overtaken,
 * and one that wants many is not starved.  A waiter sets WAITS before it looks at the permits; a
 * release that has added its permits before that is seen by the look one that comes after
 * finds WAITS.
 */
#include <numio/sync.h>

#include <errno.h>
#include <stdatomic.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

#define WAITS UINT64_C(1)
#define CLOSED UINT64_C(2)
enum { PERMIT_SHIFT = 2 };

static _Atomic uint64_t *state_of(const struct numio_semaphore *semaphore)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint64_t *)(uintptr_t)&semaphore->_state;
}

static uint64_t wanted(const struct numio_op *op)
{
    return op->_sqe[NIO_WAIT_WORD_ARG];
}

/* Takes permits that are there, unless a bit of `but_for` is set.  0, -EAGAIN, or -EPIPE. */
static int take(struct numio_semaphore *semaphore, uint64_t permits, uint64_t but_for)
{
    /* relaxed: the CAS below re-reads it */
    uint64_t old = atomic_load_explicit(state_of(semaphore), memory_order_relaxed);
    do {
        if (NIO_UNLIKELY(old & CLOSED))
            return -EPIPE;
        if ((old & but_for) || old >> PERMIT_SHIFT < permits)
            return -EAGAIN;
        /* [SM2] acquire: sees what the releaser did before.  Pairs with [SM3].  relaxed on failure:
         * retried. */
    } while (!atomic_compare_exchange_weak_explicit(state_of(semaphore), &old,
                                                    old - (permits << PERMIT_SHIFT),
                                                    memory_order_acquire, memory_order_relaxed));
    return 0;
}

/* Under the lock: nobody waits any more. */
static void clear_waits(struct numio_semaphore *semaphore)
{
    if (nio_wait_queue_is_empty(&semaphore->_waits))
        /* relaxed: who releases meanwhile finds it, and comes under the lock, or not */
        (void)atomic_fetch_and_explicit(state_of(semaphore), ~WAITS, memory_order_relaxed);
}

/* Under the lock: gives to the head of the queue what it wants, as long as it is there. */
static void serve(struct numio_semaphore *semaphore, struct nio_wait_list *ended)
{
    struct numio_op *op;
    while ((op = semaphore->_waits._first) && take(semaphore, wanted(op), 0) == 0) {
        (void)nio_wait_remove(&semaphore->_waits, op); /* it is there */
        bool is_mine = nio_wait_claim(op);
        if (!is_mine)
            /* relaxed: it was taken under this lock, and goes on to the next */
            (void)atomic_fetch_add_explicit(state_of(semaphore), wanted(op) << PERMIT_SHIFT,
                                            memory_order_relaxed);
        nio_wait_list_add(ended, op, is_mine ? 0 : -ECANCELED);
    }
    clear_waits(semaphore);
}

static bool acquire_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_semaphore *semaphore = nio_wait_object(op);
    *ret_result = -EINVAL;
    if (wanted(op) > NUMIO_SEMAPHORE_MAX)
        return true;
    nio_wait_queue_acquire(&semaphore->_waits);
    bool is_first = nio_wait_queue_is_empty(&semaphore->_waits);
    /* relaxed: it is one word, so take() sees what was added before, and who adds later sees it */
    (void)atomic_fetch_or_explicit(state_of(semaphore), WAITS, memory_order_relaxed);
    int rc = take(semaphore, wanted(op), is_first ? 0 : WAITS);
    if (rc == 0 && !nio_wait_claim(op)) {
        /* relaxed: it was taken under this lock, and nobody waits */
        (void)atomic_fetch_add_explicit(state_of(semaphore), wanted(op) << PERMIT_SHIFT,
                                        memory_order_relaxed);
        rc = -ECANCELED;
    }
    if (rc == -EPIPE && !nio_wait_claim(op))
        rc = -ECANCELED;
    if (rc == -EAGAIN)
        nio_wait_push(&semaphore->_waits, op);
    clear_waits(semaphore);
    nio_wait_queue_release(&semaphore->_waits);
    *ret_result = rc;
    return rc != -EAGAIN;
}

static bool acquire_leave(struct numio_op *op)
{
    struct numio_semaphore *semaphore = nio_wait_object(op);
    struct nio_wait_list ended = { 0 };
    nio_wait_queue_acquire(&semaphore->_waits);
    bool is_mine = nio_wait_remove(&semaphore->_waits, op);
    serve(semaphore, &ended); /* those behind it may want less */
    nio_wait_queue_release(&semaphore->_waits);
    nio_wait_list_done(&ended);
    return is_mine;
}

static void acquire_give_back(struct numio_op *op)
{
    (void)numio_semaphore_release(nio_wait_object(op), wanted(op)); /* they were there before */
}

static const struct nio_wait_class acquire_kind = { acquire_begin, acquire_leave,
                                                    acquire_give_back };

int numio_semaphore_init(struct numio_semaphore *semaphore, uint64_t permits)
{
    if (permits > NUMIO_SEMAPHORE_MAX)
        return nio_error(-EINVAL, "semaphore: more than 2^61 permits");
    *semaphore = (struct numio_semaphore)NUMIO_SEMAPHORE_INIT(permits);
    return 0;
}

void numio_op_semaphore_acquire(struct numio_op *op, struct numio_semaphore *semaphore,
                                uint64_t permits)
{
    nio_wait_prep(op, &acquire_kind, semaphore, permits);
}

static NIO_NOINLINE int acquire_slow(struct numio_semaphore *semaphore, uint64_t permits)
{
    struct numio_op op;
    numio_op_semaphore_acquire(&op, semaphore, permits);
    return nio_wait_await(&op);
}

int numio_semaphore_acquire(struct numio_semaphore *semaphore, uint64_t permits)
{
    nio_charge();
    int rc = take(semaphore, permits, WAITS);
    return NIO_LIKELY(rc == 0) ? 0 : rc == -EAGAIN ? acquire_slow(semaphore, permits) : rc;
}

int numio_semaphore_try_acquire(struct numio_semaphore *semaphore, uint64_t permits)
{
    return permits > NUMIO_SEMAPHORE_MAX ? -EINVAL : take(semaphore, permits, WAITS);
}

static NIO_NOINLINE void release_slow(struct numio_semaphore *semaphore)
{
    struct nio_wait_list ended = { 0 };
    nio_wait_queue_acquire(&semaphore->_waits);
    serve(semaphore, &ended);
    nio_wait_queue_release(&semaphore->_waits);
    nio_wait_list_done(&ended);
}

int numio_semaphore_release(struct numio_semaphore *semaphore, uint64_t permits)
{
    /* relaxed: the CAS below re-reads it */
    uint64_t old = atomic_load_explicit(state_of(semaphore), memory_order_relaxed);
    do {
        if (permits > NUMIO_SEMAPHORE_MAX || (old >> PERMIT_SHIFT) + permits > NUMIO_SEMAPHORE_MAX)
            return nio_error(-EOVERFLOW, "semaphore: more than 2^61 permits");
        /* [SM3] release: publishes what the holder did.  Pairs with [SM2].  relaxed on
         * failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(state_of(semaphore), &old,
                                                    old + (permits << PERMIT_SHIFT),
                                                    memory_order_release, memory_order_relaxed));
    if (NIO_UNLIKELY(old & WAITS))
        release_slow(semaphore);
    return 0;
}

uint64_t numio_semaphore_forget(struct numio_semaphore *semaphore, uint64_t permits)
{
    /* relaxed: the CAS below re-reads it */
    uint64_t old = atomic_load_explicit(state_of(semaphore), memory_order_relaxed), taken;
    do {
        taken = old >> PERMIT_SHIFT < permits ? old >> PERMIT_SHIFT : permits;
        /* [SM2] acquire: as in take().  relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(state_of(semaphore), &old,
                                                    old - (taken << PERMIT_SHIFT),
                                                    memory_order_acquire, memory_order_relaxed));
    return taken;
}

uint64_t numio_semaphore_available(const struct numio_semaphore *semaphore)
{
    /* relaxed: a figure */
    return atomic_load_explicit(state_of(semaphore), memory_order_relaxed) >> PERMIT_SHIFT;
}

void numio_semaphore_close(struct numio_semaphore *semaphore)
{
    struct nio_wait_list ended = { 0 };
    nio_wait_queue_acquire(&semaphore->_waits);
    /* [SM3] release: what was done before the close.  Pairs with [SM2]. */
    (void)atomic_fetch_or_explicit(state_of(semaphore), CLOSED, memory_order_release);
    nio_wait_take_all(&semaphore->_waits, &ended, -EPIPE);
    clear_waits(semaphore);
    nio_wait_queue_release(&semaphore->_waits);
    nio_wait_list_done(&ended);
}
