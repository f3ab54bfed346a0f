/* SPDX-License-Identifier: MIT */
/* What happens once: a word, an owner, a queue; and a cell for a value that is made once.
 *
 *   0               nobody has begun
 *   RUNNING         somebody, the owner, has it in hand
 *   RUNNING | WAITS the same, and others are in the queue
 *   DONE            it has happened, for good
 *
 * Once it is done, everybody passes by one load [ON2].  Beginning and ending are one CAS each where
 * nobody waits.  WAITS is set and cleared under the queue's lock only, and while it is set the word
 * changes under that lock only: an end that has failed makes the longest waiter the owner, whose
 * wait ends with TO_DO.  A waiter sets WAITS before it looks at the word [ON1].
 *
 * As in the mutex, who ends it goes the fast way if nobody waits any more, so that whoever sees it
 * done may free its memory once nobody else waits.
 */
#include <numio/sync.h>

#include <errno.h>
#include <stdatomic.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

enum { RUNNING = 1, WAITS = 2, DONE = 4 };

/* Results of numio_once_begin(). */
enum { HAS_HAPPENED = 0, TO_DO = 1 };

static _Atomic uint32_t *state_of(const struct numio_once *once)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint32_t *)(uintptr_t)&once->_state;
}

static _Atomic uintptr_t *owner_of(struct numio_once *once)
{
    return (_Atomic uintptr_t *)(uintptr_t)&once->_owner;
}

static void set_owner(struct numio_once *once, uintptr_t who)
{
    /* relaxed: only the owner can find its own name there, and has written it */
    atomic_store_explicit(owner_of(once), who, memory_order_relaxed);
}

static bool is_owner(struct numio_once *once, uintptr_t who)
{
    /* relaxed: as above */
    return atomic_load_explicit(owner_of(once), memory_order_relaxed) == who;
}

bool numio_once_is_done(const struct numio_once *once)
{
    /* [ON2] acquire: sees what was done.  Pairs with [ON3].  WAITS may stand beside it for as long
     * as somebody who came late looks. */
    return (atomic_load_explicit(state_of(once), memory_order_acquire) & DONE) != 0;
}

/* Makes the caller the owner, unless somebody has begun. */
static bool take(struct numio_once *once)
{
    uint32_t expected = 0;
    /* [ON2] acquire: sees what those did that have failed.  Pairs with [ON3].  relaxed on failure:
     * nothing is read. */
    if (!atomic_compare_exchange_strong_explicit(state_of(once), &expected, RUNNING,
                                                 memory_order_acquire, memory_order_relaxed))
        return false;
    set_owner(once, nio_who_runs());
    return true;
}

static bool begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_once *once = nio_wait_object(op);
    uintptr_t who = nio_wait_who(op);
    *ret_result = -EDEADLK;
    if (is_owner(once, who))
        return true;
    nio_wait_queue_acquire(&once->_waits);
    /* [ON1] acquire: sees what was done, or what those did that have failed.  Pairs with [ON3]. */
    uint32_t old = atomic_fetch_or_explicit(state_of(once), WAITS, memory_order_acquire);
    bool is_running = (old & RUNNING) != 0;
    bool is_mine = !is_running && nio_wait_claim(op);
    bool is_new_owner = is_mine && !(old & DONE);
    if (is_running)
        nio_wait_push(&once->_waits, op);
    else
        /* [ON3] release: hands on what [ON1] has brought.  Pairs with [ON1], [ON2]. */
        atomic_store_explicit(state_of(once), is_new_owner ? RUNNING : old, memory_order_release);
    if (is_new_owner)
        set_owner(once, who);
    nio_wait_queue_release(&once->_waits);
    *ret_result = is_new_owner ? TO_DO : is_mine ? HAS_HAPPENED : -ECANCELED;
    return !is_running;
}

static bool leave(struct numio_op *op)
{
    struct numio_once *once = nio_wait_object(op);
    nio_wait_queue_acquire(&once->_waits);
    bool is_mine = nio_wait_remove(&once->_waits, op);
    if (is_mine && nio_wait_queue_is_empty(&once->_waits))
        /* relaxed: who ends it meanwhile either finds WAITS, and comes under this lock, or not */
        (void)atomic_fetch_and_explicit(state_of(once), ~(uint32_t)WAITS, memory_order_relaxed);
    nio_wait_queue_release(&once->_waits);
    return is_mine;
}

/* Under the lock, with waits in the queue: makes the oldest that is left the owner; returns the
 * next word. */
static uint32_t hand_over(struct numio_once *once, struct nio_wait_list *ended)
{
    struct numio_op *op = nio_wait_pop(&once->_waits, ended);
    if (!op)
        return 0;
    set_owner(once, nio_wait_who(op));
    nio_wait_list_add(ended, op, TO_DO);
    return nio_wait_queue_is_empty(&once->_waits) ? RUNNING : RUNNING | WAITS;
}

/* False: nobody waits any more, WAITS has been cleared, nothing is done. */
static NIO_NOINLINE bool end_slowly(struct numio_once *once, bool is_done)
{
    struct nio_wait_list ended = { 0 };
    nio_wait_queue_acquire(&once->_waits);
    bool waited = !nio_wait_queue_is_empty(&once->_waits);
    if (waited) {
        uint32_t next = is_done ? DONE : hand_over(once, &ended);
        if (is_done)
            nio_wait_take_all(&once->_waits, &ended, HAS_HAPPENED);
        /* [ON3] release: what was done.  Pairs with [ON1], [ON2]. */
        atomic_store_explicit(state_of(once), next, memory_order_release);
    }
    nio_wait_queue_release(&once->_waits);
    nio_wait_list_done(&ended);
    return waited;
}

static void end(struct numio_once *once, bool is_done)
{
    uint32_t expected;
    set_owner(once, 0);
    do { /* as long as others come and go */
        expected = RUNNING;
        /* [ON3] release: what was done, or left of an attempt.  Pairs with [ON1], [ON2].  relaxed
         * on failure: the slow way looks again. */
        if (atomic_compare_exchange_strong_explicit(state_of(once), &expected, is_done ? DONE : 0,
                                                    memory_order_release, memory_order_relaxed))
            return;
    } while (!end_slowly(once, is_done));
}

/* An aborted future that was to do it: the next one does. */
static void give_back(struct numio_op *op)
{
    if (op->_result == TO_DO)
        end(nio_wait_object(op), false);
}

static const struct nio_wait_class once_kind = { begin, leave, give_back };

void numio_once_init(struct numio_once *once)
{
    *once = (struct numio_once)NUMIO_ONCE_INIT;
}

void numio_op_once_begin(struct numio_op *op, struct numio_once *once)
{
    nio_wait_prep(op, &once_kind, once, 0);
}

static NIO_NOINLINE int begin_slow(struct numio_once *once)
{
    struct numio_op op;
    if (take(once))
        return TO_DO;
    numio_op_once_begin(&op, once);
    int rc = nio_wait_await(&op);
    if (rc == -EDEADLK && is_owner(once, nio_who_runs()))
        return nio_error(rc, "once: begun again by who has it in hand");
    return rc;
}

int numio_once_begin(struct numio_once *once)
{
    nio_charge();
    return NIO_LIKELY(numio_once_is_done(once)) ? HAS_HAPPENED : begin_slow(once);
}

int numio_once_end(struct numio_once *once, bool is_done)
{
    if (NIO_UNLIKELY(!is_owner(once, nio_who_runs())))
        return nio_error(-EPERM, "once: ended by a task or thread that has not begun it");
    end(once, is_done);
    return 0;
}

int numio_once_call(struct numio_once *once, int (*fn)(void *arg), void *arg)
{
    int rc = numio_once_begin(once);
    if (NIO_LIKELY(rc != TO_DO))
        return rc;
    rc = fn(arg);
    (void)numio_once_end(once, rc >= 0); /* it is the caller's */
    return rc < 0 ? rc : 0;
}

/* ---- the cell ------------------------------------------------------------------------------- */

void numio_once_cell_init(struct numio_once_cell *cell)
{
    *cell = (struct numio_once_cell)NUMIO_ONCE_CELL_INIT;
}

void *numio_once_cell_get(const struct numio_once_cell *cell)
{
    return numio_once_is_done(&cell->_once) ? cell->_value : NULL;
}

int numio_once_cell_set(struct numio_once_cell *cell, void *value)
{
    if (!value)
        return nio_error(-EINVAL, "once cell: NULL is no value");
    if (!take(&cell->_once))
        return numio_once_is_done(&cell->_once) ? -EEXIST : -EBUSY;
    cell->_value = value;
    end(&cell->_once, true);
    return 0;
}

int numio_once_cell_get_or_init(struct numio_once_cell *cell,
                                int (*fn)(void *arg, void **ret_value), void *arg, void **ret_value)
{
    void *value = NULL;
    int rc = numio_once_begin(&cell->_once);
    if (NIO_UNLIKELY(rc == TO_DO)) {
        rc = fn(arg, &value);
        if (rc >= 0 && !value)
            rc = nio_error(-EINVAL, "once cell: NULL is no value");
        if (rc >= 0)
            cell->_value = value;
        (void)numio_once_end(&cell->_once, rc >= 0); /* it is the caller's */
    }
    if (NIO_UNLIKELY(rc < 0))
        return rc;
    *ret_value = cell->_value;
    return 0;
}
