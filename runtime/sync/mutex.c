/* SPDX-License-Identifier: MIT */
/* The mutex: a word and a queue.
 *
 *   0            free, nobody waits
 *   WHO          held by that task or thread, nobody waits
 *   WHO | WAITS  held, and the queue is looked at by who unlocks
 *
 * The fast ways are one CAS each: 0 to WHO, and WHO back to 0, which is the unlocker's last access
 * and tells who unlocks what is not his.  WAITS is set and cleared under the queue's lock only, and
 * while it is set nobody gets the mutex but by the hand of who unlocks, so that nobody is
 * overtaken. A waiter sets WAITS before it looks whether the mutex is held [MX1]; an unlocker that
 * had left by then has it find the word without WHO.
 *
 * Who unlocks holds it until somebody in the queue is sure to be there, and if nobody is any more
 * goes the fast way: so whoever finds it free may free its memory.
 *
 * A wait of a condition, in its second part, stands in the queue as well (nio_mutex_take_back()):
 * it is told by its object, is not claimed again, and ends with the result that it has brought.
 */
#include "runtime/sync/mutex.h"

#include <errno.h>
#include <stdatomic.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

/* No task and no thread has this bit in its name. */
#define WAITS ((uintptr_t)1)

static _Atomic uintptr_t *state_of(struct numio_mutex *mutex)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uintptr_t *)(uintptr_t)&mutex->_state;
}

bool nio_mutex_is_held_by(struct numio_mutex *mutex, uintptr_t who)
{
    /* relaxed: only its holder can find its own name there, which was written by itself, or before
     * its wait ended */
    return (atomic_load_explicit(state_of(mutex), memory_order_relaxed) & ~WAITS) == who;
}

static bool take(struct numio_mutex *mutex, uintptr_t who)
{
    uintptr_t expected = 0;
    /* [MX2] acquire: sees what the last holder wrote.  Pairs with [MX3].  relaxed on failure:
     * nothing is read. */
    return atomic_compare_exchange_strong_explicit(state_of(mutex), &expected, who,
                                                   memory_order_acquire, memory_order_relaxed);
}

static bool give_up(struct numio_mutex *mutex, uintptr_t who)
{
    uintptr_t expected = who;
    /* [MX3] release: publishes the critical section.  Pairs with [MX2], [MX1].  relaxed on failure:
     * the slow way looks again. */
    return atomic_compare_exchange_strong_explicit(state_of(mutex), &expected, 0,
                                                   memory_order_release, memory_order_relaxed);
}

static bool lock_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_mutex *mutex = nio_wait_object(op);
    *ret_result = -EDEADLK;
    if (nio_mutex_is_held_by(mutex, nio_wait_who(op)))
        return true;
    nio_wait_queue_acquire(&mutex->_waits);
    /* [MX1] acquire: if it is free, as [MX2].  Pairs with [MX3]. */
    uintptr_t old = atomic_fetch_or_explicit(state_of(mutex), WAITS, memory_order_acquire);
    bool is_free = (old & ~WAITS) == 0;
    bool is_mine = is_free && nio_wait_claim(op);
    if (is_free)
        /* [MX3] release: hands on what [MX1] has brought, if it stays free.  Pairs with [MX2].
         * With WAITS set it is nobody else's but under this lock. */
        atomic_store_explicit(state_of(mutex), is_mine ? nio_wait_who(op) : 0,
                              memory_order_release);
    else
        nio_wait_push(&mutex->_waits, op);
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
        (void)atomic_fetch_and_explicit(state_of(mutex), ~WAITS, memory_order_relaxed);
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
    uintptr_t next = op ? nio_wait_who(op) : 0;
    if (!nio_wait_queue_is_empty(&mutex->_waits))
        next |= WAITS;
    int32_t result = op && comes_back(mutex, op) ? nio_mutex_result_of(op) : 0;
    /* [MX3] release: for who takes it by [MX2] next; the waiter sees the rest by its end. */
    atomic_store_explicit(state_of(mutex), next, memory_order_release);
    nio_wait_queue_release(&mutex->_waits);
    if (op)
        nio_wait_done(op, result);
    nio_wait_list_done(&lost);
    return true;
}

void nio_mutex_let_go(struct numio_mutex *mutex, uintptr_t who)
{
    while (!give_up(mutex, who) && !hand_over(mutex)) {
        /* as long as others come and go */
    }
}

/* Under the queue's lock: as lock_begin(), but for a wait that has nothing to claim.  True: it has
 * got it. */
static bool take_back(struct numio_mutex *mutex, struct numio_op *op)
{
    /* [MX1] acquire: as in lock_begin().  Pairs with [MX3]. */
    uintptr_t old = atomic_fetch_or_explicit(state_of(mutex), WAITS, memory_order_acquire);
    if (old & ~WAITS) {
        nio_wait_push(&mutex->_waits, op);
        return false;
    }
    /* relaxed: with WAITS set it is nobody else's but under this lock; nobody waited; and who has
     * it now releases it */
    atomic_store_explicit(state_of(mutex), nio_wait_who(op), memory_order_relaxed);
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
    nio_mutex_let_go(nio_wait_object(op), nio_wait_who(op));
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
    struct nio_worker *worker = nio_worker_current();
    struct numio_op op;
    if (worker && nio_budget_is_spent(&worker->budget))
        nio_charge_spent();
    if (take(mutex, nio_who_runs()))
        return 0;
    numio_op_mutex_lock(&op, mutex);
    int rc = nio_wait_await(&op);
    if (rc == -EDEADLK && nio_mutex_is_held_by(mutex, nio_who_runs()))
        return nio_error(rc, "mutex: locked by its holder once more");
    return rc;
}

/* The way of a task that has budget left is short enough to need no register saved; all others go
 * by lock_slow(). */
int numio_mutex_lock(struct numio_mutex *mutex)
{
    struct nio_worker *worker = nio_worker_current();
    if (NIO_LIKELY(worker && !nio_budget_is_spent(&worker->budget))) {
        nio_budget_spend(&worker->budget);
        /* relaxed: written by this thread */
        struct nio_task *task = atomic_load_explicit(&worker->current, memory_order_relaxed);
        if (NIO_LIKELY(task && take(mutex, (uintptr_t)task)))
            return 0;
    }
    return lock_slow(mutex);
}

int numio_mutex_try_lock(struct numio_mutex *mutex)
{
    uintptr_t who = nio_who_runs();
    if (take(mutex, who))
        return 0;
    return nio_mutex_is_held_by(mutex, who) ? -EDEADLK : -EAGAIN;
}

static NIO_NOINLINE int unlock_slow(struct numio_mutex *mutex)
{
    uintptr_t who = nio_who_runs();
    if (!nio_mutex_is_held_by(mutex, who))
        return nio_error(-EPERM, "mutex: unlocked by a task or thread that does not hold it");
    nio_mutex_let_go(mutex, who);
    return 0;
}

int numio_mutex_unlock(struct numio_mutex *mutex)
{
    const struct nio_worker *worker = nio_worker_current();
    /* relaxed: written by this thread */
    struct nio_task *task =
        worker ? atomic_load_explicit(&worker->current, memory_order_relaxed) : NULL;
    return NIO_LIKELY(task && give_up(mutex, (uintptr_t)task)) ? 0 : unlock_slow(mutex);
}
