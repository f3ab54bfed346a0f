/* SPDX-License-Identifier: MIT */
#include "runtime/base/lock.h"

#include <time.h>

#include "runtime/base/assert.h"
#include "runtime/base/futex.h"

enum { SPIN_MAX = 64, SPIN_SLEEP = 1024 };

void nio_lock_init(struct nio_lock *lock, enum nio_lock_rank rank)
{
    atomic_init(&lock->state, 0);
    lock->rank = rank;
}

void nio_lock_acquire_slow(struct nio_lock *lock)
{
    for (int i = 0; i < SPIN_MAX; i++) {
        uint32_t expected = 0;
        /* relaxed load: only to avoid a failing RMW */
        if (atomic_load_explicit(&lock->state, memory_order_relaxed) == 0 &&
            /* [BL3] acquire: as [BL1]; pairs with [BL2]; relaxed on failure: nothing is read */
            atomic_compare_exchange_strong_explicit(&lock->state, &expected, 1,
                                                    memory_order_acquire, memory_order_relaxed))
            return;
        nio_cpu_relax();
    }
    /* Bounded by the holders' critical sections.  From here on the state says 2, so that
     * whoever releases wakes us.  [BL3] acquire, pairs with [BL2]. */
    while (atomic_exchange_explicit(&lock->state, 2, memory_order_acquire) != 0)
        (void)nio_futex_wait(&lock->state, 2, NIO_FUTEX_FOREVER); /* re-checked by the loop */
}

void nio_lock_release_slow(struct nio_lock *lock)
{
    nio_futex_wake(&lock->state, 1);
}

/* The holder may have lost its CPU, perhaps to us: then only a sleep, and not sched_yield(), which
 * a real-time thread does not give way by, lets it go on. */
void nio_lock_spin_slow(struct nio_lock *lock)
{
    static const struct timespec pause = { .tv_nsec = 20000 };
    for (unsigned i = 1;; i++) { /* bounded by the holders' critical sections */
        /* relaxed: only to avoid a failing RMW */
        if (atomic_load_explicit(&lock->state, memory_order_relaxed) == 0 && nio_lock_try(lock))
            return;
        if (i % SPIN_SLEEP == 0)
            (void)nanosleep(&pause, NULL); /* looks again in any case */
        else
            nio_cpu_relax();
    }
}

#ifdef NIO_DEBUG
enum { RANKS_MAX = 16 };
static _Thread_local uint32_t held[RANKS_MAX];
static _Thread_local unsigned held_count;

/* Of an object that a user has zero-initialised: nothing is locked inside of it. */
static uint32_t rank_of(const struct nio_lock *lock)
{
    return lock->rank ? lock->rank : NIO_RANK_LEAF;
}

void nio_lock_rank_enter(const struct nio_lock *lock)
{
    NIO_ASSERT(held_count < RANKS_MAX);
    NIO_ASSERT(held_count == 0 || held[held_count - 1] < rank_of(lock));
    held[held_count++] = rank_of(lock);
}

void nio_lock_rank_leave(const struct nio_lock *lock)
{
    NIO_ASSERT(held_count > 0 && held[held_count - 1] == rank_of(lock));
    held_count--;
}
#endif
