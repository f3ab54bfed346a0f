/* SPDX-License-Identifier: MIT */
#include "runtime/base/lock.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include "runtime/base/clock.h"
#include "runtime/base/futex.h"

TestSuite(lock, .timeout = 30);

Test(lock, try_fails_while_it_is_held_and_works_after)
{
    struct nio_lock lock, inner;
    nio_lock_init(&lock, NIO_RANK_RUNTIME);
    nio_lock_init(&inner, NIO_RANK_LEAF);
    nio_lock_acquire(&lock);
    cr_assert_not(nio_lock_try(&lock));
    cr_assert(nio_lock_try(&inner));
    nio_lock_release(&inner);
    nio_lock_release(&lock);
    cr_assert(nio_lock_try(&lock));
    nio_lock_release(&lock);
}

enum { THREADS = 4, ROUNDS = 20000 };

static struct nio_lock shared_lock;
static uint64_t shared[2]; /* under shared_lock; equal outside of it */
static unsigned torn;

static void *add(void *arg)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (i % 3 || !nio_lock_try(&shared_lock))
            nio_lock_acquire(&shared_lock);
        torn += shared[0] != shared[1];
        shared[0]++;
        if (i % 512 == 0)
            (void)sched_yield(); /* so that others find it held for long */
        shared[1]++;
        nio_lock_release(&shared_lock);
    }
    return arg;
}

Test(lock, one_thread_at_a_time)
{
    pthread_t threads[THREADS];
    nio_lock_init(&shared_lock, NIO_RANK_LEAF);
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, add, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: joined once */
    cr_assert_eq(shared[0], THREADS * ROUNDS);
    cr_assert_eq(shared[1], THREADS * ROUNDS);
    cr_assert_eq(torn, 0);
}

static void *take_and_release(void *arg)
{
    nio_lock_acquire(&shared_lock);
    nio_lock_release(&shared_lock);
    return arg;
}

static uint32_t state_of(struct nio_lock *lock)
{
    /* relaxed: a figure that somebody else changes at some time */
    return atomic_load_explicit(&lock->state, memory_order_relaxed);
}

Test(lock, who_waits_for_long_sleeps_and_is_woken)
{
    pthread_t threads[THREADS];
    nio_lock_init(&shared_lock, NIO_RANK_LEAF);
    nio_lock_acquire(&shared_lock);
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, take_and_release, NULL), 0);
    while (state_of(&shared_lock) != 2)
        (void)sched_yield(); /* until the first has announced its sleep */
    nio_lock_release(&shared_lock);
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: joined once */
    nio_lock_acquire(&shared_lock);
    cr_assert_eq(state_of(&shared_lock), 1, "nobody waits any more");
    nio_lock_release(&shared_lock);
}

#ifdef NIO_DEBUG
static void quiet(void)
{
    (void)freopen("/dev/null", "w", stderr); /* the assertion's text is expected */
}

Test(lock, ranks_must_rise, .signal = SIGABRT, .init = quiet)
{
    struct nio_lock outer, inner;
    nio_lock_init(&outer, NIO_RANK_INJECT);
    nio_lock_init(&inner, NIO_RANK_OWNED);
    nio_lock_acquire(&outer);
    nio_lock_acquire(&inner);
}

Test(lock, ranks_must_differ, .signal = SIGABRT, .init = quiet)
{
    struct nio_lock first, second;
    nio_lock_init(&first, NIO_RANK_INJECT);
    nio_lock_init(&second, NIO_RANK_INJECT);
    nio_lock_acquire(&first);
    nio_lock_acquire(&second);
}

Test(lock, releases_must_be_nested, .signal = SIGABRT, .init = quiet)
{
    struct nio_lock outer, inner;
    nio_lock_init(&outer, NIO_RANK_OWNED);
    nio_lock_init(&inner, NIO_RANK_INJECT);
    nio_lock_acquire(&outer);
    nio_lock_acquire(&inner);
    nio_lock_release(&outer);
}

Test(lock, ranks_are_per_thread_and_are_given_back)
{
    struct nio_lock outer, inner;
    nio_lock_init(&outer, NIO_RANK_OWNED);
    nio_lock_init(&inner, NIO_RANK_INJECT);
    for (unsigned i = 0; i < 3; i++) {
        nio_lock_acquire(&outer);
        nio_lock_acquire(&inner);
        nio_lock_release(&inner);
        nio_lock_release(&outer);
    }
    nio_lock_acquire(&inner);
    nio_lock_release(&inner);
}
#endif
