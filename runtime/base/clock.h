/* SPDX-License-Identifier: MIT */
/* base/clock.h: the one place that reads a clock.  Nanoseconds of CLOCK_MONOTONIC, any thread.
 *
 * Until a runtime has calibrated it, where the processor's counter cannot be trusted, and once it
 * was found wrong, that is clock_gettime(): some 40 ns on a virtual machine, 20 elsewhere.  Else it
 * is the counter itself (x86-64: TSC, aarch64: CNTVCT), scaled by figures that clock.c keeps in
 * step with the kernel's clock: a third to a half of that.
 *
 * On one thread it never goes back.  On different threads, what happens later is read as later or
 * less than a microsecond earlier: the counter may be read before instructions that stand before
 * it.
 */
#ifndef NIO_BASE_CLOCK_H
#define NIO_BASE_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/compiler.h"

/* A line from which the time follows: ns = base_ns + (ticks - base_ticks) * ns_per_tick / 2^32.
 * Written by clock.c under its lock, as a sequence lock. */
struct nio_clock {
    NIO_CACHE_ALIGNED _Atomic uint32_t sequence; /* odd: being written; 0: there is no line */
    _Atomic uint64_t base_ticks, base_ns, ns_per_tick;
    _Atomic uint64_t sync_ns; /* when it is to be compared with the kernel's clock again */
};

extern struct nio_clock nio_clock __attribute__((visibility("hidden")));

/* What nio_now_ns() does when the line cannot be used now. */
NIO_NOINLINE uint64_t nio_clock_other_ns(void);

static inline uint64_t nio_clock_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return 0; /* clock.c never trusts it */
#endif
}

/* Nothing that follows begins before all that stands before it is done: Intel's manual, RDTSC. */
static inline void nio_clock_wait(void)
{
#if defined(__x86_64__)
    __builtin_ia32_lfence();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

/* `ticks` may be a little before the base: another thread has read the counter earlier. */
static inline uint64_t nio_clock_line(uint64_t ticks, uint64_t base_ticks, uint64_t base_ns,
                                      uint64_t ns_per_tick)
{
    __int128 scaled = (__int128)(int64_t)(ticks - base_ticks) * (int64_t)ns_per_tick;
    return base_ns + (uint64_t)(int64_t)(scaled >> 32);
}

/* False: there is no line, or it was being changed. */
static inline bool nio_clock_read(uint64_t *ret_ns)
{
    /* [CK1] acquire in all four: each is read after the one before it, and none after the last look
     * at the sequence.  Pairs with [CK2]. */
    uint32_t sequence = atomic_load_explicit(&nio_clock.sequence, memory_order_acquire);
    if (NIO_UNLIKELY(sequence == 0 || sequence % 2 != 0))
        return false;
    uint64_t base_ticks = atomic_load_explicit(&nio_clock.base_ticks, memory_order_acquire);
    uint64_t base_ns = atomic_load_explicit(&nio_clock.base_ns, memory_order_acquire);
    uint64_t ns_per_tick = atomic_load_explicit(&nio_clock.ns_per_tick, memory_order_acquire);
    *ret_ns = nio_clock_line(nio_clock_ticks(), base_ticks, base_ns, ns_per_tick);
    /* relaxed: the loads above are acquires */
    return NIO_LIKELY(atomic_load_explicit(&nio_clock.sequence, memory_order_relaxed) == sequence);
}

static inline uint64_t nio_now_ns(void)
{
    uint64_t now_ns;
    return nio_clock_read(&now_ns) ? now_ns : nio_clock_other_ns();
}

/* Reads the clock after all that stands before it and before all that follows: for protocols that
 * must know what was read first.  Some 20 ns more: the processor waits. */
static inline uint64_t nio_clock_between_ns(void)
{
    nio_clock_wait();
    uint64_t now_ns = nio_now_ns();
    nio_clock_wait();
    return now_ns;
}

/* The kernel's clock, whatever nio_now_ns() is. */
uint64_t nio_clock_kernel_ns(void);

/* A runtime starts: the first begins to measure the counter, the second uses what was measured
 * since, and waits until that is a millisecond.  `is_system`: from now on the process uses the
 * kernel's clock.   Any thread. */
void nio_clock_begin(void);
void nio_clock_calibrate(bool is_system);
/* Any thread: compares the counter with the kernel's clock and follows that, or gives the counter
 * up. */
NIO_NOINLINE void nio_clock_sync(void);
/* Why the counter is not used, NULL if it is; stays. */
const char *nio_clock_reason(void);

/* Workers, now and then: before sleeps, after them, and every so often while busy. */
static inline void nio_clock_keep(uint64_t now_ns)
{
    /* relaxed: whoever is first does it */
    if (NIO_UNLIKELY(now_ns >= atomic_load_explicit(&nio_clock.sync_ns, memory_order_relaxed)))
        nio_clock_sync();
}

#endif
