/* SPDX-License-Identifier: MIT */
/* The lock for many readers or one writer: a word, an owner, a queue.
 *
 * Bit 0, WAITS: somebody is in the queue.  Bit 1, WRITER.  Above them the number of readers.
 *
 * Without WAITS each of the four ways in and out is one CAS, which is the last access of who
 * leaves. WAITS is set and cleared under the queue's lock only, and while it is set the word
 * changes under that lock only: readers do not pass a writer that waits, and whoever leaves serves
 * the head of the queue, a writer or all readers up to the next one.  A waiter sets WAITS before it
 * looks at the word [RW1]; who had left by then is seen by the look.
 *
 * Who leaves holds the lock until somebody in the queue is sure to be there, and if nobody is any
 * more clears WAITS and goes the fast way: so whoever finds the lock free may free its memory.
 *
 * `owner` is the writer, for misuse to be told; readers are counted and have no names.
 */
#include <numio/sync.h>

#include <errno.h>
#include <stdatomic.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

#define WAITS UINT64_C(1)
#define WRITER UINT64_C(2)
#define READER UINT64_C(4) /* one of them */

static _Atomic uint64_t *state_of(struct numio_rwlock *rwlock)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint64_t *)(uintptr_t)&rwlock->_state;
}

static _Atomic uintptr_t *owner_of(struct numio_rwlock *rwlock)
{
    return (_Atomic uintptr_t *)(uintptr_t)&rwlock->_owner;
}

static void set_owner(struct numio_rwlock *rwlock, uintptr_t who)
{
    /* relaxed: only the writer can find its own name there, and has written it */
    atomic_store_explicit(owner_of(rwlock), who, memory_order_relaxed);
}

static bool is_owner(struct numio_rwlock *rwlock, uintptr_t who)
{
    /* relaxed: as above */
    return atomic_load_explicit(owner_of(rwlock), memory_order_relaxed) == who;
}

static uint64_t peek(struct numio_rwlock *rwlock)
{
    /* relaxed: either a CAS re-reads it, or the caller has the queue's lock and WAITS is set, with
     * which [RW1] has come after all that was done without it */
    return atomic_load_explicit(state_of(rwlock), memory_order_relaxed);
}

static bool take(struct numio_rwlock *rwlock)
{
    uint64_t expected = 0;
    /* [RW2] acquire: sees what the last holders did.  Pairs with [RW3].  relaxed on failure:
     * nothing is read. */
    return atomic_compare_exchange_strong_explicit(state_of(rwlock), &expected, WRITER,
                                                   memory_order_acquire, memory_order_relaxed);
}

static bool take_shared(struct numio_rwlock *rwlock)
{
    uint64_t old = peek(rwlock);
    do {
        if (NIO_UNLIKELY(old & (WAITS | WRITER)))
            return false;
        /* [RW2] acquire: as above, of the last writer.  relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(state_of(rwlock), &old, old + READER,
                                                    memory_order_acquire, memory_order_relaxed));
    return true;
}

/* Under the queue's lock, with WAITS set: nobody else writes. */
static void put(struct numio_rwlock *rwlock, uint64_t state)
{
    bool waits = !nio_wait_queue_is_empty(&rwlock->_waits);
    /* [RW3] release: hands on what [RW1], or the lock, has brought.  Pairs with [RW1], [RW2]. */
    atomic_store_explicit(state_of(rwlock), (state & ~WAITS) | (waits ? WAITS : 0),
                          memory_order_release);
}

/* Under the queue's lock: sets WAITS; returns the rest of the word. */
static uint64_t hold_back_others(struct numio_rwlock *rwlock)
{
    /* [RW1] acquire: sees what those did that have left.  Pairs with [RW3]. */
    return atomic_fetch_or_explicit(state_of(rwlock), WAITS, memory_order_acquire) & ~WAITS;
}

static bool is_shared(const struct numio_op *op)
{
    return op->_sqe[NIO_WAIT_WORD_ARG] != 0;
}

/* Under the queue's lock: lets in who stands at the head; returns the word that results. */
static uint64_t let_in(struct numio_rwlock *rwlock, uint64_t state, struct nio_wait_list *ended)
{
    struct numio_op *op;
    state &= ~WAITS;
    while ((op = rwlock->_waits._first)) { /* bounded by the queue */
        if (is_shared(op) ? (state & WRITER) != 0 : state != 0)
            break;
        (void)nio_wait_remove(&rwlock->_waits, op); /* it is there */
        bool is_in = nio_wait_claim(op);
        if (is_in && is_shared(op))
            state += READER;
        if (is_in && !is_shared(op)) {
            state = WRITER;
            set_owner(rwlock, nio_wait_who(op));
        }
        nio_wait_list_add(ended, op, is_in ? 0 : -ECANCELED);
    }
    return state;
}

static bool begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_rwlock *rwlock = nio_wait_object(op);
    uintptr_t who = nio_wait_who(op);
    *ret_result = -EDEADLK;
    if (is_owner(rwlock, who))
        return true;
    nio_wait_queue_acquire(&rwlock->_waits);
    uint64_t state = hold_back_others(rwlock);
    bool is_free = is_shared(op) ? (state & WRITER) == 0 : state == 0;
    bool may_enter = is_free && nio_wait_queue_is_empty(&rwlock->_waits);
    bool is_in = may_enter && nio_wait_claim(op);
    if (!may_enter)
        nio_wait_push(&rwlock->_waits, op);
    if (is_in && !is_shared(op))
        set_owner(rwlock, who);
    put(rwlock, !is_in ? state : is_shared(op) ? state + READER : WRITER);
    nio_wait_queue_release(&rwlock->_waits);
    *ret_result = is_in ? 0 : -ECANCELED;
    return may_enter;
}

static bool leave(struct numio_op *op)
{
    struct numio_rwlock *rwlock = nio_wait_object(op);
    struct nio_wait_list ended = { 0 };
    nio_wait_queue_acquire(&rwlock->_waits);
    bool is_mine = nio_wait_remove(&rwlock->_waits, op);
    if (is_mine) /* those behind it may be readers, and have waited for this writer only */
        put(rwlock, let_in(rwlock, peek(rwlock), &ended));
    nio_wait_queue_release(&rwlock->_waits);
    nio_wait_list_done(&ended);
    return is_mine;
}

/* Leaves, or becomes a reader: takes `what` from the word and serves the queue.  False: nobody
 * waits any more, WAITS has been cleared, nothing is done. */
static NIO_NOINLINE bool change_slowly(struct numio_rwlock *rwlock, uint64_t what)
{
    struct nio_wait_list ended = { 0 };
    nio_wait_queue_acquire(&rwlock->_waits);
    bool waits = !nio_wait_queue_is_empty(&rwlock->_waits);
    if (waits)
        put(rwlock, let_in(rwlock, peek(rwlock) - what, &ended));
    nio_wait_queue_release(&rwlock->_waits);
    nio_wait_list_done(&ended);
    return waits;
}

/* The same where nobody waits.  False: somebody does. */
static bool change_at_once(struct numio_rwlock *rwlock, uint64_t what)
{
    uint64_t old = peek(rwlock);
    do {
        if (NIO_UNLIKELY(old & WAITS))
            return false;
        /* [RW3] release: publishes what the holder did.  Pairs with [RW1], [RW2].  relaxed on
         * failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(state_of(rwlock), &old, old - what,
                                                    memory_order_release, memory_order_relaxed));
    return true;
}

static void change(struct numio_rwlock *rwlock, uint64_t what)
{
    while (!change_at_once(rwlock, what) && !change_slowly(rwlock, what)) {
        /* as long as others come and go */
    }
}

static void give_back(struct numio_op *op)
{
    struct numio_rwlock *rwlock = nio_wait_object(op);
    if (!is_shared(op))
        set_owner(rwlock, 0);
    change(rwlock, is_shared(op) ? READER : WRITER);
}

static const struct nio_wait_class rwlock_kind = { begin, leave, give_back };

void numio_rwlock_init(struct numio_rwlock *rwlock)
{
    *rwlock = (struct numio_rwlock)NUMIO_RWLOCK_INIT;
}

void numio_op_rwlock_lock(struct numio_op *op, struct numio_rwlock *rwlock)
{
    nio_wait_prep(op, &rwlock_kind, rwlock, false);
}

void numio_op_rwlock_lock_shared(struct numio_op *op, struct numio_rwlock *rwlock)
{
    nio_wait_prep(op, &rwlock_kind, rwlock, true);
}

static NIO_NOINLINE int lock_slow(struct numio_rwlock *rwlock, bool to_read)
{
    struct numio_op op;
    nio_wait_prep(&op, &rwlock_kind, rwlock, to_read);
    int rc = nio_wait_await(&op);
    if (rc == -EDEADLK && is_owner(rwlock, nio_who_runs()))
        return nio_error(rc, "rwlock: locked by its writer once more");
    return rc;
}

int numio_rwlock_lock(struct numio_rwlock *rwlock)
{
    nio_charge();
    if (NIO_UNLIKELY(!take(rwlock)))
        return lock_slow(rwlock, false);
    set_owner(rwlock, nio_who_runs());
    return 0;
}

int numio_rwlock_lock_shared(struct numio_rwlock *rwlock)
{
    nio_charge();
    return NIO_LIKELY(take_shared(rwlock)) ? 0 : lock_slow(rwlock, true);
}

int numio_rwlock_try_lock(struct numio_rwlock *rwlock)
{
    uintptr_t who = nio_who_runs();
    if (!take(rwlock))
        return is_owner(rwlock, who) ? -EDEADLK : -EAGAIN;
    set_owner(rwlock, who);
    return 0;
}

int numio_rwlock_try_lock_shared(struct numio_rwlock *rwlock)
{
    if (take_shared(rwlock))
        return 0;
    return is_owner(rwlock, nio_who_runs()) ? -EDEADLK : -EAGAIN;
}

int numio_rwlock_unlock(struct numio_rwlock *rwlock)
{
    uint64_t state = peek(rwlock); /* which way the caller holds it does not change meanwhile */
    if (NIO_LIKELY(state >= READER)) {
        change(rwlock, READER);
        return 0;
    }
    if (NIO_UNLIKELY(!(state & WRITER) || !is_owner(rwlock, nio_who_runs())))
        return nio_error(-EPERM, "rwlock: unlocked by a task or thread that does not hold it");
    set_owner(rwlock, 0);
    change(rwlock, WRITER);
    return 0;
}

int numio_rwlock_downgrade(struct numio_rwlock *rwlock)
{
    if (NIO_UNLIKELY(!is_owner(rwlock, nio_who_runs())))
        return nio_error(-EPERM, "rwlock: downgraded by who is not its writer");
    set_owner(rwlock, 0);
    change(rwlock, WRITER - READER); /* wraps: one writer less, one reader more */
    return 0;
}
