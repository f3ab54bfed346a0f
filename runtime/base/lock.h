/* SPDX-License-Identifier: MIT */
/* base/lock.h: a small mutex for short critical sections between threads.
 *
 * State: 0 free, 1 held, 2 held and somebody may sleep (Drepper, "Futexes are tricky", 2011).
 * Spins briefly, then sleeps in the kernel.  Not recursive.  Never held while a task is polled
 * or a system call other than the futex is made.
 *
 * Ranks: a thread takes locks in rising rank only; builds with NIO_DEBUG assert it.  The ranks
 * are listed in enum nio_lock_rank, in the order of the layers from the outside in.
 */
#ifndef NIO_BASE_LOCK_H
#define NIO_BASE_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/compiler.h"

enum nio_lock_rank {
    NIO_RANK_ZERO = 0,    /* task/wait.h: of objects that may be zero-initialised; as LEAF */
    NIO_RANK_RUNTIME = 1, /* runtime.c: start and stop */
    NIO_RANK_END,         /* sched/close.c: the last look at the counters; reports */
    NIO_RANK_BLOCKING,    /* blocking/: the pool's queue */
    NIO_RANK_OWNED,       /* sched/owned.c: a node's stripe for foreign threads */
    NIO_RANK_INJECT,      /* sched/inject.c: a node's inject queue */
    NIO_RANK_IDLE,        /* sched/idle.c: a node's sleepers */
    NIO_RANK_DRIVER,      /* driver/ */
    NIO_RANK_TIMELINE,    /* time/timeline.h */
    NIO_RANK_WHEEL,       /* time/wheel.c: taken by nio_lock_spin() */
    NIO_RANK_ALLOC,       /* alloc/: arenas and stack slabs */
    NIO_RANK_LEAF         /* nothing is locked inside */
};

struct nio_lock {
    _Atomic uint32_t state; /* any thread, RMW */
    uint32_t rank;          /* constant after init */
};

void nio_lock_init(struct nio_lock *lock, enum nio_lock_rank rank);
NIO_COLD void nio_lock_acquire_slow(struct nio_lock *lock);
NIO_COLD void nio_lock_release_slow(struct nio_lock *lock);
NIO_COLD void nio_lock_spin_slow(struct nio_lock *lock);

#ifdef NIO_DEBUG
void nio_lock_rank_enter(const struct nio_lock *lock);
void nio_lock_rank_leave(const struct nio_lock *lock);
#else
static inline void nio_lock_rank_enter(const struct nio_lock *lock)
{
    (void)lock;
}
static inline void nio_lock_rank_leave(const struct nio_lock *lock)
{
    (void)lock;
}
#endif

static inline bool nio_lock_try(struct nio_lock *lock)
{
    uint32_t expected = 0;
    /* [BL1] acquire: sees what the last holder wrote.  Pairs with [BL2], the release in
     * nio_lock_release().  relaxed on failure: nothing is read. */
    bool taken = atomic_compare_exchange_strong_explicit(
        &lock->state, &expected, 1, memory_order_acquire, memory_order_relaxed);
    if (taken)
        nio_lock_rank_enter(lock);
    return taken;
}

static inline void nio_lock_acquire(struct nio_lock *lock)
{
    if (NIO_UNLIKELY(!nio_lock_try(lock))) {
        nio_lock_acquire_slow(lock);
        nio_lock_rank_enter(lock);
    }
}

static inline void nio_lock_release(struct nio_lock *lock)
{
    nio_lock_rank_leave(lock);
    /* [BL2] release: publishes the critical section.  Pairs with [BL1] and [BL3], the acquires of
     * the next holder. */
    if (NIO_UNLIKELY(atomic_exchange_explicit(&lock->state, 0, memory_order_release) == 2))
        nio_lock_release_slow(lock);
}

/* For locks that are mostly held for some dozen instructions: who finds it held looks again until
 * it is free, and asks the kernel for nothing but a pause if that takes long.  Such a lock is let
 * go of by nio_lock_release_tried(), without a locked instruction. */
static inline void nio_lock_spin(struct nio_lock *lock)
{
    if (NIO_UNLIKELY(!nio_lock_try(lock)))
        nio_lock_spin_slow(lock);
}

/* Lets go of a lock that everybody takes by nio_lock_try() or nio_lock_spin() only: nobody
 * can sleep on it, so a store is enough. */
static inline void nio_lock_release_tried(struct nio_lock *lock)
{
    nio_lock_rank_leave(lock);
    /* [BL2] release: as in nio_lock_release().  Pairs with [BL1]. */
    atomic_store_explicit(&lock->state, 0, memory_order_release);
}

#endif
