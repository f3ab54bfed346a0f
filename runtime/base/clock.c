/* SPDX-License-Identifier: MIT */
/* Keeps the processor's counter in step with CLOCK_MONOTONIC.
 *
 * When the first runtime starts, the counter and the kernel's clock are read together, and again
 * when its workers are up: the line through both is the clock from then on.  It is compared with
 * the kernel's again after 20 ms, 200 ms and then every second by some worker that goes to sleep,
 * wakes, or is busy.  What it is behind it jumps forward; what it is ahead it loses within the next
 * second or, if that is much, by going a tenth slower: so it never goes back.  The slope is
 * measured anew each time, which follows what NTP does to the kernel's.
 *
 * The kernel's clock changes its speed against a good counter by less than 1,000 ppm: 500 by the
 * frequency and 500 by adjtime(2).  Who finds more than that since the last comparison, and
 * ERROR_NS for what a virtual machine does between the two readings, has a counter that is not
 * steady: one that stops in sleep, differs between packages, or went with a machine to another
 * host.  It is given up for good, with a sentence.  From then on the time is the kernel's, plus
 * what the counter was ahead: still it does not go back.
 *
 * state     under the lock; a reader takes `sequence` alone
 * reason    written once, under the lock, before [CK3] publishes it
 */
#include "runtime/base/clock.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "runtime/base/lock.h"

enum {
    BASELINE_NS = 1000000,
    SYNC_FIRST_NS = 20000000, /* and ten times that, up to: */
    SYNC_LAST_NS = 1000000000,
    ERROR_NS = 100000,
    PAIR_TRIES = 16,
    PAIR_GOOD_NS = 2000, /* two readings so close are taken */
    SETTLE_TICKS = 1024, /* half a microsecond */
    COST_READS = 64,
    COST_ROUNDS = 5,
    REASON_BYTES = 160
};

struct nio_clock nio_clock = { .sync_ns = UINT64_MAX };

/* Both clocks at one moment. */
struct pair {
    uint64_t ticks, ns, width_ns;
};

static struct {
    struct nio_lock lock;
    bool has_begun, is_over; /* over: the counter is not used any more, or never was */
    struct pair last;
    uint64_t every_ns;
    _Atomic uint64_t ahead_ns;
    _Atomic(const char *) reason;
    char text[REASON_BYTES];
} keeper = { .lock = { .rank = NIO_RANK_LEAF } };

uint64_t nio_clock_kernel_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t nio_clock_other_ns(void)
{
    uint64_t now_ns;
    for (;;) { /* bounded by a writer's few stores */
        /* [CK1] acquire: sees what the clock was ahead.  Pairs with [CK2]. */
        if (atomic_load_explicit(&nio_clock.sequence, memory_order_acquire) == 0)
            /* relaxed: written before the sequence became 0 again, or still 0 */
            return nio_clock_kernel_ns() +
                   atomic_load_explicit(&keeper.ahead_ns, memory_order_relaxed);
        if (nio_clock_read(&now_ns))
            return now_ns;
        nio_cpu_relax();
    }
}

/* The narrowest of some readings: whoever was interrupted between them tries again. */
static struct pair read_pair(void)
{
    struct pair best = { .width_ns = UINT64_MAX };
    for (unsigned i = 0; i < PAIR_TRIES && best.width_ns > PAIR_GOOD_NS; i++) {
        uint64_t before_ns = nio_clock_kernel_ns();
        uint64_t ticks = nio_clock_ticks();
        uint64_t after_ns = nio_clock_kernel_ns();
        if (after_ns - before_ns < best.width_ns)
            best = (struct pair){ ticks, before_ns + (after_ns - before_ns) / 2,
                                  after_ns - before_ns };
    }
    return best;
}

/* Under the lock: the time of the present line, if there is one. */
static uint64_t estimate_ns(uint64_t ticks)
{
    /* relaxed in all three: written under the lock only */
    uint64_t base_ticks = atomic_load_explicit(&nio_clock.base_ticks, memory_order_relaxed);
    /* relaxed: as above */
    uint64_t base_ns = atomic_load_explicit(&nio_clock.base_ns, memory_order_relaxed);
    /* relaxed: as above */
    uint64_t slope = atomic_load_explicit(&nio_clock.ns_per_tick, memory_order_relaxed);
    return nio_clock_line(ticks, base_ticks, base_ns, slope);
}

static bool has_line(void)
{
    /* relaxed: written under the lock only */
    return atomic_load_explicit(&nio_clock.sequence, memory_order_relaxed) != 0;
}

/* Under the lock: a line through where the clock is now, or where the kernel's is if that is later,
 * which comes back to the kernel's within `period_ns` or a tenth slower.  Readers wait while the
 * sequence is odd; SETTLE_TICKS after it became so, nobody is left who read the counter by the old
 * line. */
static void set_line(const struct pair *pair, uint64_t slope, uint64_t period_ns)
{
    bool is_first = !has_line();
    /* relaxed: written under the lock only */
    uint32_t sequence = atomic_load_explicit(&nio_clock.sequence, memory_order_relaxed);
    uint64_t ticks, began = nio_clock_ticks();
    if (!is_first)
        /* relaxed: the releases below come after it */
        atomic_store_explicit(&nio_clock.sequence, sequence | 1, memory_order_relaxed);
    while ((ticks = nio_clock_ticks()) - began < SETTLE_TICKS)
        nio_cpu_relax(); /* bounded by SETTLE_TICKS */
    uint64_t kernel_ns = nio_clock_line(ticks, pair->ticks, pair->ns, slope);
    uint64_t base_ns = is_first ? kernel_ns : estimate_ns(ticks);
    if (base_ns > kernel_ns) {
        uint64_t ahead_ns = base_ns - kernel_ns;
        if (ahead_ns > period_ns / 10)
            ahead_ns = period_ns / 10;
        slope -= (uint64_t)((unsigned __int128)slope * ahead_ns / period_ns);
    } else {
        base_ns = kernel_ns;
    }
    /* [CK2] release in all four: who sees one of these sees the odd sequence, and who sees the even
     * one sees all.  Pairs with [CK1]. */
    atomic_store_explicit(&nio_clock.base_ticks, ticks, memory_order_release);
    atomic_store_explicit(&nio_clock.base_ns, base_ns, memory_order_release);
    atomic_store_explicit(&nio_clock.ns_per_tick, slope, memory_order_release);
    uint32_t next = (sequence | 1) + 1;
    atomic_store_explicit(&nio_clock.sequence, next ? next : 2, memory_order_release);
}

static void plan_sync(uint64_t at_ns)
{
    /* relaxed: a hint when to look */
    atomic_store_explicit(&nio_clock.sync_ns, at_ns, memory_order_relaxed);
}

/* Under the lock: the kernel's clock from now on, and why. */
static void give_up(uint64_t ahead_ns, const char *format, ...) NIO_PRINTF(2, 3);
static void give_up(uint64_t ahead_ns, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    /* cut at the buffer's end */
    (void)vsnprintf(keeper.text, sizeof keeper.text, format, args);
    va_end(args);
    keeper.is_over = true;
    plan_sync(UINT64_MAX);
    /* relaxed: published with the sequence */
    atomic_store_explicit(&keeper.ahead_ns, ahead_ns, memory_order_relaxed);
    /* [CK2] release: pairs with [CK1] */
    atomic_store_explicit(&nio_clock.sequence, 0, memory_order_release);
    /* [CK3] release: publishes the sentence.  Pairs with [CK3] below. */
    atomic_store_explicit(&keeper.reason, keeper.text, memory_order_release);
}

const char *nio_clock_reason(void)
{
    /* [CK3] acquire: sees the sentence.  Pairs with [CK3] above. */
    return atomic_load_explicit(&keeper.reason, memory_order_acquire);
}

/* ---- whether the counter is one that can be used ------------------------------------------- */

/* "": the kernel does not say. */
static void read_clocksource(char *ret_name, size_t bytes)
{
    static const char path[] = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, ret_name, bytes - 1);
    if (fd >= 0)
        (void)close(fd); /* only read from */
    ret_name[length > 0 ? length : 0] = '\0';
    ret_name[strcspn(ret_name, "\n")] = '\0';
}

static bool is_invariant(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d >> 8 & 1);
#elif defined(__aarch64__)
    return true; /* the architecture says so */
#else
    return false;
#endif
}

/* Ticks that a read takes, the least of some rounds. */
static uint64_t cost_of(uint64_t (*read_clock)(void))
{
    uint64_t best = UINT64_MAX;
    for (unsigned round = 0; round < COST_ROUNDS; round++) {
        uint64_t began = nio_clock_ticks();
        for (unsigned i = 0; i < COST_READS; i++)
            (void)read_clock(); /* for the time it takes */
        uint64_t took = nio_clock_ticks() - began;
        best = took < best ? took : best;
    }
    return best / COST_READS;
}

/* Under the lock.  False: it was given up. */
static bool may_use_counter(void)
{
    /* What the kernel itself goes by where it trusts the counter. */
    static const char *const good[] = { "tsc", "kvm-clock", "hyperv_clocksource_tsc_page",
                                        "arch_sys_counter" };
    char name[32];
    read_clocksource(name, sizeof name);
    bool is_good = name[0] == '\0';
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        is_good = is_good || strcmp(name, good[i]) == 0;
    if (!is_invariant())
        give_up(0, "the clock is the kernel's: this processor's counter may stop or change its "
                   "speed");
    else if (!is_good)
        give_up(0, "the clock is the kernel's: that goes by %s and not by the processor's counter",
                name);
    return !keeper.is_over;
}

/* ---- calibration --------------------------------------------------------------------------- */

void nio_clock_begin(void)
{
    nio_lock_acquire(&keeper.lock);
    if (!keeper.has_begun) {
        keeper.has_begun = true;
        keeper.last = read_pair();
    }
    nio_lock_release(&keeper.lock);
}

static uint64_t slope_between(const struct pair *from, const struct pair *to)
{
    uint64_t ticks = to->ticks - from->ticks;
    return (uint64_t)(((unsigned __int128)(to->ns - from->ns) << 32) / (ticks ? ticks : 1));
}

/* Under the lock: the first line. */
static void measure(void)
{
    struct pair pair;
    do
        pair = read_pair();
    while (pair.ns - keeper.last.ns < BASELINE_NS); /* bounded by that */
    keeper.every_ns = SYNC_FIRST_NS;
    set_line(&pair, slope_between(&keeper.last, &pair), SYNC_FIRST_NS);
    keeper.last = pair;
    plan_sync(pair.ns + SYNC_FIRST_NS);
    uint64_t own = cost_of(nio_now_ns), kernel = cost_of(nio_clock_kernel_ns);
    if (own >= kernel) {
        uint64_t now = nio_clock_ticks(), error_ns = estimate_ns(now) - nio_clock_kernel_ns();
        give_up((int64_t)error_ns > 0 ? error_ns : 0,
                "the clock is the kernel's: a read of the processor's counter takes %llu ticks "
                "and one of the kernel's clock %llu",
                (unsigned long long)own, (unsigned long long)kernel);
    }
}

void nio_clock_calibrate(bool is_system)
{
    nio_lock_acquire(&keeper.lock);
    if (is_system && !keeper.is_over) {
        int64_t ahead_ns =
            has_line()
                ? (int64_t)(estimate_ns(nio_clock_ticks()) + PAIR_GOOD_NS - nio_clock_kernel_ns())
                : 0;
        give_up(ahead_ns > 0 ? (uint64_t)ahead_ns : 0,
                "the clock is the kernel's: a runtime of this process was made with clock = "
                "system");
    } else if (!keeper.is_over && !has_line() && may_use_counter()) {
        measure();
    }
    nio_lock_release(&keeper.lock);
}

/* Under the lock: what the counter says beside what the kernel says. */
static void compare(const struct pair *pair)
{
    int64_t error_ns = (int64_t)(estimate_ns(pair->ticks) - pair->ns);
    uint64_t elapsed_ns = pair->ns - keeper.last.ns;
    int64_t limit_ns = ERROR_NS + (int64_t)(elapsed_ns / 1000);
    if (error_ns > limit_ns || error_ns < -limit_ns) {
        give_up(error_ns > 0 ? (uint64_t)error_ns + pair->width_ns : 0,
                "the clock is the kernel's: the processor's counter was off by %lld us after "
                "%llu ms, which no setting of a clock explains",
                (long long)(error_ns / 1000), (unsigned long long)(elapsed_ns / 1000000));
        return;
    }
    /* relaxed: written under the lock only */
    uint64_t slope = atomic_load_explicit(&nio_clock.ns_per_tick, memory_order_relaxed);
    if (elapsed_ns >= SYNC_FIRST_NS / 2) { /* else the readings' widths would weigh too much */
        slope = slope_between(&keeper.last, pair);
        keeper.every_ns = keeper.every_ns * 10 < SYNC_LAST_NS ? keeper.every_ns * 10 : SYNC_LAST_NS;
        keeper.last = *pair;
    }
    set_line(pair, slope, keeper.every_ns);
}

void nio_clock_sync(void)
{
    if (!nio_lock_try(&keeper.lock))
        return; /* somebody is at it */
    if (!keeper.is_over && has_line()) {
        struct pair pair = read_pair();
        plan_sync(pair.ns + keeper.every_ns);
        if (pair.width_ns < ERROR_NS / 4) /* else it was interrupted all the time */
            compare(&pair);
    }
    nio_lock_release(&keeper.lock);
}
