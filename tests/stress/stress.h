/* SPDX-License-Identifier: MIT */
/* tests/stress/stress.h: what the stress programs share: a bound in time, a watchdog that turns a
 * hang (that is, a lost wake) into a failure, checks that work on any thread, and a barrier that
 * lets threads loose at the same moment.
 *
 * NUMIO_STRESS_MS sets how long a program runs, NUMIO_TEST_SEED its seed.
 */
#ifndef TESTS_STRESS_STRESS_H
#define TESTS_STRESS_STRESS_H

#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/compiler.h"
#include "runtime/base/rng.h"

enum { STRESS_MS = 2500, STRESS_PATIENCE_S = 40, STRESS_SPINS = 200, STRESS_YIELD_SPINS = 20 };

static inline void stress_hangs(int signal_number)
{
    static const char text[] = "no progress: something was lost\n";
    (void)signal_number;
    (void)!write(STDERR_FILENO, text, sizeof text - 1); /* nothing to do if it fails */
    _exit(1);
}

/* Prints the seed, arms the watchdog, returns the time at which to stop. */
static inline uint64_t stress_start(uint64_t *ret_seed)
{
    const char *text = getenv("NUMIO_TEST_SEED");
    *ret_seed = text && *text ? strtoull(text, NULL, 0) : nio_now_ns();
    printf("NUMIO_TEST_SEED=%llu\n", (unsigned long long)*ret_seed);
    (void)fflush(stdout); /* so that it is there if the program dies */
    text = getenv("NUMIO_STRESS_MS");
    uint64_t ms = text && *text ? strtoull(text, NULL, 0) : STRESS_MS;
    (void)signal(SIGALRM, stress_hangs);
    (void)alarm(STRESS_PATIENCE_S + (unsigned)(ms / 1000));
    return nio_now_ns() + ms * 1000000;
}

static inline void stress_fail(const char *what, const char *file, int line)
{
    (void)fprintf(stderr, "%s:%d: %s\n", file, line, what); /* nothing to do if it fails */
    _exit(1);
}

#define STRESS_CHECK(e) ((e) ? (void)0 : stress_fail("does not hold: " #e, __FILE__, __LINE__))

/* A pause of a few nanoseconds to a microsecond, so that threads meet in different places. */
static inline void stress_jitter(struct nio_rng *rng)
{
    for (uint32_t i = nio_rng_below(rng, STRESS_SPINS); i > 0; i--)
        nio_cpu_relax();
}

/* How many entries a folder has: /proc/self/task, /proc/self/fd. */
static inline unsigned stress_count_entries(const char *folder)
{
    DIR *dir = opendir(folder);
    unsigned count = 0;
    STRESS_CHECK(dir != NULL);
    while (readdir(dir))
        count++;
    (void)closedir(dir); /* only read from */
    return count;
}

/* One turn of a loop that waits for another thread: spins, and yields when that takes long. */
static inline void stress_pause(unsigned *spins)
{
    nio_cpu_relax();
    if (++*spins % STRESS_YIELD_SPINS == 0)
        (void)sched_yield();
}

/* Threads that start each round together. */
struct stress_barrier {
    unsigned threads;
    NIO_CACHE_ALIGNED _Atomic uint64_t arrived;
};

static inline void stress_meet(struct stress_barrier *barrier)
{
    /* [SB1] acq_rel: what a thread did before the meeting is seen by all after it.  Pairs with
     * [SB1] below. */
    uint64_t ticket =
        atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) / barrier->threads;
    unsigned spins = 0;
    /* [SB1] acquire: as above */
    while (atomic_load_explicit(&barrier->arrived, memory_order_acquire) / barrier->threads ==
           ticket)
        stress_pause(&spins);
}

#endif
