/* SPDX-License-Identifier: MIT */
/* The mutex: a word, an owner, a queue.
 *
 *   0            free, nobody waits
 *   HELD         held, nobody waits
 *   HELD | WAITS held, and the queue is looked at by who unlocks
 *
 * The fast ways are one CAS each: 0 to HELD, and HELD back to 0, which is the unlocker's last
 * access. WAITS is set and cleared under the queue's lock only, and while it is set nobody gets the
 * mutex but by the hand of who unlocks, so that nobody is overtaken.  A waiter sets WAITS before it
 * looks whether the mutex is held [MX1]; an unlocker that had left by then has it find the word
 * without HELD.
 *
 * Who unlocks holds it until somebody in the queue is sure to be there, and if nobody is any more
 * goes the fast way: so whoever finds it free may free its memory.
 *
 * A wait of a condition, in its second part, stands in the queue as well (nio_mutex_take_back()):
 * it is told by its object, is not claimed again, and ends with the result that it has brought.
 *
 * `owner` is who holds it, for misuse to be told; written by the holder or by who hands it over.
 */
#include "runtime/sync/mutex.h"

#include <errno.h>
#include <stdatomic.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

enum { HELD = 1, WAITS = 2 };

static _Atomic uint32_t *state_of(struct numio_mutex *mutex)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint32_t *)(uintptr_t)&mutex->_state;
}

static _Atomic uintptr_t *owner_of(struct numio_mutex *mutex)
{
    return (_Atomic uintptr_t *)(uintptr_t)&mutex->_owner;
}

static void set_owner(struct numio_mutex *mutex, uintptr_t who)
{
    /* relaxed: only its holder can find its own name there, and has written it */
    atomic_store_explicit(owner_of(mutex), who, memory_order_relaxed);
}

static bool is_owner(struct numio_mutex *mutex, uintptr_t who)
{
    /* relaxed: as above */
    return atomic_load_explicit(owner_of(mutex), memory_order_relaxed) == who;
}

bool nio_mutex_is_held_by(struct numio_mutex *mutex, uintptr_t who)
{
    return is_owner(mutex, who);
}

static bool take(struct numio_mutex *mutex)
{
    uint32_t expected = 0;
    /* [MX2] acquire: sees what the last holder wrote.  Pairs with [MX3].  relaxed on failure:
     * nothing is read. */
    return atomic_compare_exchange_strong_explicit(state_of(mutex), &expected, HELD,
                                                   memory_order_acquire, memory_order_relaxed);
}

static bool give_up(struct numio_mutex *mutex)
{
    uint32_t expected = HELD;
    /* [MX3] release: publishes the critical section.  Pairs with [MX2], [MX1].  relaxed on failure:
     * the slow way looks again. */
    return atomic_compare_exchange_strong_explicit(state_of(mutex), &expected, 0,
                                                   memory_order_release, memory_order_relaxed);
}

static bool lock_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_mutex *mutex = nio_wait_object(op);
    uintptr_t who = nio_wait_who(op);
    *ret_result = -EDEADLK;
    if (is_owner(mutex, who))
        return true;
    nio_wait_queue_acquire(&mutex->_waits);
    /* [MX1] acquire: if it is free, as [MX2].  Pairs with [MX3]. */
    uint32_t old = atomic_fetch_or_explicit(state_of(mutex), WAITS, memory_order_acquire);
    bool is_free = (old & HELD) == 0;
    bool is_mine = is_free && nio_wait_claim(op);
    if (is_free)
        /* relaxed: with WAITS set it is nobody else's but under this lock */
        atomic_store_explicit(state_of(mutex), is_mine ? HELD : 0, memory_order_relaxed);
    else
        nio_wait_push(&mutex->_waits, op);
    if (is_mine)
        set_owner(mutex, who);
    nio_wait_queue_release(&mutex->_waits);
    *ret_result = is_mine ? 0 : -ECANCELED;
    return is_free;
}

static bool lock_leave(struct numio_op *op)
{
    struct numio_mutex *mutex = nio_wait_object(op);
    nio_wait_queue_acquire(&mutex->_waits);
    bool is_mine = nio_wait_remove(&mutex->_waits, op);
    if (is_mine && nio_wait_queue_is_empty(&mutex->_waits))
        /* relaxed: who unlocks meanwhile either finds WAITS, and comes under this lock, or not */
        (void)atomic_fetch_and_explicit(state_of(mutex), ~(uint32_t)WAITS, memory_order_relaxed);
    nio_wait_queue_release(&mutex->_waits);
    return is_mine;
}

/* Of a wait in the queue: it was moved there by a condition, and has its result. */
static bool comes_back(const struct numio_mutex *mutex, const struct numio_op *op)
{
    return nio_wait_object(op) != mutex;
}

/* Under the queue's lock: takes out who is to hold it next, NULL if nobody is. */
static struct numio_op *next_holder(struct numio_mutex *mutex, struct nio_wait_list *lost)
{
    struct numio_op *op;
    while ((op = mutex->_waits._first)) {          /* bounded by the queue */
        (void)nio_wait_remove(&mutex->_waits, op); /* it is there */
        if (comes_back(mutex, op) || nio_wait_claim(op))
            return op;
        nio_wait_list_add(lost, op, -ECANCELED);
    }
    return NULL;
}

/* Hands it to the longest waiter.  False: nobody waits any more, WAITS has been cleared. */
static NIO_NOINLINE bool hand_over(struct numio_mutex *mutex)
{
    struct nio_wait_list lost = { 0 };
    nio_wait_queue_acquire(&mutex->_waits);
    if (nio_wait_queue_is_empty(&mutex->_waits)) {
        nio_wait_queue_release(&mutex->_waits);
        return false;
    }
    struct numio_op *op = next_holder(mutex, &lost);
    uint32_t next = op ? HELD : 0;
    if (!nio_wait_queue_is_empty(&mutex->_waits))
        next |= WAITS;
    set_owner(mutex, op ? nio_wait_who(op) : 0);
    int32_t result = op && comes_back(mutex, op) ? nio_mutex_result_of(op) : 0;
    /* [MX3] release: for who takes it by [MX2] next; the waiter sees the rest by its end. */
    atomic_store_explicit(state_of(mutex), next, memory_order_release);
    nio_wait_queue_release(&mutex->_waits);
    if (op)
        nio_wait_done(op, result);
    nio_wait_list_done(&lost);
    return true;
}

void nio_mutex_let_go(struct numio_mutex *mutex)
{
    set_owner(mutex, 0);
    while (NIO_UNLIKELY(!give_up(mutex))) /* as long as others come and go */
        if (hand_over(mutex))
            return;
}

/* Under the queue's lock: as lock_begin(), but for a wait that has nothing to claim.  True: it has
 * got it. */
static bool take_back(struct numio_mutex *mutex, struct numio_op *op)
{
    /* [MX1] acquire: as in lock_begin().  Pairs with [MX3]. */
    uint32_t old = atomic_fetch_or_explicit(state_of(mutex), WAITS, memory_order_acquire);
    if (old & HELD) {
        nio_wait_push(&mutex->_waits, op);
        return false;
    }
    /* relaxed: with WAITS set it is nobody else's but under this lock; nobody waited */
    atomic_store_explicit(state_of(mutex), HELD, memory_order_relaxed);
    set_owner(mutex, nio_wait_who(op));
    return true;
}

void nio_mutex_take_back(struct nio_wait_list *list)
{
    struct numio_op *op = list->first;
    while (op) { /* once for each mutex, which is mostly the same */
        struct numio_mutex *mutex = nio_mutex_of(op);
        struct numio_op *holder = NULL;
        nio_wait_queue_acquire(&mutex->_waits);
        while (op && nio_mutex_of(op) == mutex) { /* bounded by the list */
            struct numio_op *next = nio_wait_next(op);
            if (take_back(mutex, op))
                holder = op;
            op = next;
        }
        nio_wait_queue_release(&mutex->_waits);
        if (holder)
            nio_wait_done(holder, nio_mutex_result_of(holder));
    }
    *list = (struct nio_wait_list){ 0 };
}

static void lock_give_back(struct numio_op *op)
{
    nio_mutex_let_go(nio_wait_object(op));
}

static const struct nio_wait_class lock_kind = { lock_begin, lock_leave, lock_give_back };

void numio_mutex_init(struct numio_mutex *mutex)
{
    *mutex = (struct numio_mutex)NUMIO_MUTEX_INIT;
}

void numio_op_mutex_lock(struct numio_op *op, struct numio_mutex *mutex)
{
    nio_wait_prep(op, &lock_kind, mutex, 0);
}

static NIO_NOINLINE int lock_slow(struct numio_mutex *mutex)
{
    struct numio_op op;
    numio_op_mutex_lock(&op, mutex);
    int rc = nio_wait_await(&op);
    if (rc == -EDEADLK && is_owner(mutex, nio_who_runs()))
        return nio_error(rc, "mutex: locked by its holder once more");
    return rc;
}

int numio_mutex_lock(struct numio_mutex *mutex)
{
    nio_charge();
    if (NIO_UNLIKELY(!take(mutex)))
        return lock_slow(mutex);
    set_owner(mutex, nio_who_runs());
    return 0;
}

int numio_mutex_try_lock(struct numio_mutex *mutex)
{
    uintptr_t who = nio_who_runs();
    if (!take(mutex))
        return is_owner(mutex, who) ? -EDEADLK : -EAGAIN;
    set_owner(mutex, who);
    return 0;
}

int numio_mutex_unlock(struct numio_mutex *mutex)
{
    if (NIO_UNLIKELY(!is_owner(mutex, nio_who_runs())))
        return nio_error(-EPERM, "mutex: unlocked by a task or thread that does not hold it");
    nio_mutex_let_go(mutex);
    return 0;
}
