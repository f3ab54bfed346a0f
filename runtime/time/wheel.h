/* SPDX-License-Identifier: MIT */
/* time/wheel.h: the timers of one driver, as a hierarchical wheel.
 *
 * Plain timeouts never go to the kernel: they cost no SQE, no credit and no kernel timer, a
 * million of them may sleep at once.  The owner looks at the earliest deadline when it reaps, and
 * parks no longer than until then.
 *
 * Six levels.  A tick is 1,024 ns, a slot of level L spans 512^L ticks, so that six levels hold
 * every deadline that 64 bits can say.  A timer is armed on the level of the highest 9-bit digit in
 * which its tick differs from `elapsed`, in the slot of that digit (Varghese and Lauck, "Hashed and
 * hierarchical timing wheels", 1987; Tokio, runtime/time/wheel).  When the time reaches a slot, its
 * timers have to stand on lower levels.  Unlike Linux' kernel/time/timer.c, which trades exactness
 * for fewer moves, each timer keeps its exact deadline and each slot its earliest, and a timer is
 * due at that nanosecond: never early, and late only by what its owner is.
 *
 * The levels are wide because a move of a timer that nobody has touched for a while is a cache
 * miss: what is due within half a millisecond never moves, within a quarter of a second once,
 * within two minutes twice.
 *
 * A slot of a higher level may hold any number of timers: if its owner began to move a hundred
 * thousand when the slot is reached, those that are due meanwhile would be late by milliseconds. So
 * each level has two rounds of slots, 1,024: those up to the end of the present slot of the level
 * above, and those of the next.  With them the next slot of each level can be emptied before it is
 * reached, a few timers at a time, between other work and before each park.
 *
 * A list is walked no faster than one cache miss after the other, for each timer says where the
 * next one is.  So the timers of a higher level's slot are dealt out to NIO_WHEEL_LANES lists, its
 * lanes, in turn, with a number each; a move takes the lowest number of the lanes' first ones,
 * while the next ones of all lanes are on their way to the cache.  Numbers begin at 0 when the slot
 * was empty, and are compared around 2^32: in a slot that is never empty while more than 2^31
 * timers come and go, those of one tick may change places.
 *
 * The lists, with the first lane of each, are 192 KiB a wheel.  The other lanes are 560 KiB, of
 * which what is never used is never touched where malloc can do that.
 *
 * Arming and cancelling are O(1) and allocate nothing: the links are in the operations.  Any thread
 * may do both; a lock of a few instructions keeps the wheel whole.  Timers whose deadlines are in
 * different ticks come in the order of their deadlines, those of one tick as they were armed.
 */
#ifndef NIO_TIME_WHEEL_H
#define NIO_TIME_WHEEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <numio/op.h>

#include "runtime/base/compiler.h"
#include "runtime/base/lock.h"
#include "runtime/time/timeline.h"

enum {
    NIO_WHEEL_TICK_SHIFT = 10, /* 1,024 ns: a shift and no division */
    NIO_WHEEL_DIGIT_BITS = 9,
    NIO_WHEEL_SLOTS = 2 << NIO_WHEEL_DIGIT_BITS, /* of a level: two rounds */
    NIO_WHEEL_GROUPS = NIO_WHEEL_SLOTS / 64,     /* of slots, whose bits are in one word */
    NIO_WHEEL_LEVELS = (64 - NIO_WHEEL_TICK_SHIFT) / NIO_WHEEL_DIGIT_BITS,
    NIO_WHEEL_LISTS = NIO_WHEEL_LEVELS * NIO_WHEEL_SLOTS,
#ifdef NIO_TINY
    NIO_WHEEL_LANES = 2,
#else
    NIO_WHEEL_LANES = 8, /* of a slot of a higher level */
#endif
};
_Static_assert((NIO_WHEEL_LANES & (NIO_WHEEL_LANES - 1)) == 0, "numbers go around at 2^32");
_Static_assert(NIO_WHEEL_TICK_SHIFT + NIO_WHEEL_LEVELS * NIO_WHEEL_DIGIT_BITS == 64,
               "the levels hold every deadline");

/* Words of a timer's image, which goes nowhere; the wheel's while it is armed.  They are next to
 * each other, and in one cache line in an operation at the head of a future's state. */
enum {
    NIO_TIMER_WORD_NEXT = 4,
    NIO_TIMER_WORD_DEADLINE = 5,
    NIO_TIMER_WORD_PREV = 6,
    NIO_TIMER_WORD_LIST = 7 /* number of its list and one, 0: not armed; above 32 bits, its number
                               there */
};

struct nio_wheel_lane {
    struct numio_op *first, *last; /* `last` means nothing while `first` is NULL */
};

/* Its tally is 0 while it is empty, so that numbers, and with them lanes, begin anew.  The parts
 * are in one word because the locked instruction that follows waits for every store. */
struct nio_wheel_list {
    struct nio_wheel_lane lane; /* the first; on level 0 there is no other */
    uint64_t min_ns;            /* no deadline is earlier; means nothing without a timer */
    uint64_t tally;             /* timers | NIO_TALLY_STALE | next timer's number << 32 */
};

enum { NIO_TALLY_TIMERS = 0x7fffffff };
/* The earliest was cancelled: min_ns may be too early. */
static const uint64_t NIO_TALLY_STALE = UINT64_C(1) << 31;

static inline uint32_t nio_wheel_list_count(const struct nio_wheel_list *list)
{
    return (uint32_t)list->tally & NIO_TALLY_TIMERS;
}

static inline bool nio_wheel_list_is_stale(const struct nio_wheel_list *list)
{
    return (list->tally & NIO_TALLY_STALE) != 0;
}

struct nio_wheel {
    /* any thread, RMW */
    NIO_CACHE_ALIGNED struct nio_lock lock;
    /* under the lock; any thread reads the first two */
    _Atomic uint64_t next_ns; /* earliest deadline, or earlier if that was cancelled; or NONE */
    _Atomic unsigned count;
    uint32_t levels;                   /* a bit for each that has timers */
    uint32_t groups[NIO_WHEEL_LEVELS]; /* a bit for each group of slots that has */
    uint64_t elapsed;                  /* ticks */
    uint64_t occupied[NIO_WHEEL_LEVELS][NIO_WHEEL_GROUPS]; /* a bit for each slot that has */
    struct nio_wheel_list lists[NIO_WHEEL_LISTS];
    struct nio_wheel_lane *lanes; /* the others of each list above level 0 */
    /* owner only */
    uint64_t settled; /* the tick of its last settle */
    unsigned moving;  /* the list that was reached and is being emptied, NIO_WHEEL_LISTS: none */
    bool may_be_ripe; /* some level's next slot may have timers */
};

/* Returns -ENOMEM if there is no memory. */
NIO_NODISCARD int nio_wheel_init(struct nio_wheel *wheel);
/* Also of a zeroed wheel.  No timer may be armed any more that somebody wants. */
void nio_wheel_fini(struct nio_wheel *wheel);

/* The lane of a list's timer with this number. */
static NIO_ALWAYS_INLINE struct nio_wheel_lane *nio_wheel_lane(struct nio_wheel *wheel,
                                                               unsigned list, uint32_t number)
{
    uint32_t lane = number % NIO_WHEEL_LANES;
    if (NIO_LIKELY(lane == 0) || list < NIO_WHEEL_SLOTS)
        return &wheel->lists[list].lane;
    return &wheel->lanes[(size_t)(list - NIO_WHEEL_SLOTS) * (NIO_WHEEL_LANES - 1) + lane - 1];
}

static inline unsigned nio_wheel_lane_count(unsigned list)
{
    return list < NIO_WHEEL_SLOTS ? 1 : NIO_WHEEL_LANES;
}

/* A timer's number in its list. */
static inline uint32_t nio_timer_number(const struct numio_op *op)
{
    return (uint32_t)(op->_sqe[NIO_TIMER_WORD_LIST] >> 32);
}

/* Any thread: arms `op` to end at `deadline_ns`, at most NIO_TIME_FAR; `now_ns` may be some time
 * ago.  True: it is the earliest now, so if the owner may be asleep it has to be woken. */
bool nio_wheel_arm(struct nio_wheel *wheel, struct numio_op *op, uint64_t deadline_ns,
                   uint64_t now_ns);
/* Any thread that knows the memory of `op` to be there: takes it back.  False: it is not armed, its
 * time has come. */
bool nio_wheel_cancel(struct nio_wheel *wheel, struct numio_op *op);
/* Owner: takes a timer whose deadline is not after `now_ns`, else NULL, after which it may have
 * moved a few others ahead.  Costs two loads while there is nothing to do. */
struct numio_op *nio_wheel_take_due(struct nio_wheel *wheel, uint64_t now_ns);
/* Owner, before a park: when to be back, NIO_TIME_NONE without a timer.  That is the earliest
 * deadline, or earlier: `now_ns` if there is more to move ahead, the moment from which many timers
 * can be; or the earliest of a slot with many was cancelled, which is found out on the wake. */
uint64_t nio_wheel_settle(struct nio_wheel *wheel, uint64_t now_ns);

/* Any thread: no timer is due before this.  Until the next settle it may be too early. */
static inline uint64_t nio_wheel_next_ns(const struct nio_wheel *wheel)
{
    /* relaxed: a hint for other threads; who arms an earlier one wakes the owner */
    return atomic_load_explicit(&wheel->next_ns, memory_order_relaxed);
}

static inline unsigned nio_wheel_count(const struct nio_wheel *wheel)
{
    /* relaxed: exact only to whoever keeps others from arming and cancelling */
    return atomic_load_explicit(&wheel->count, memory_order_relaxed);
}

/* Any thread, where `op` was armed and nobody else cancels it. */
static inline uint64_t nio_timer_deadline_ns(const struct numio_op *op)
{
    return op->_sqe[NIO_TIMER_WORD_DEADLINE];
}

/* Any thread, for tests and debugging: levels, slots and deadlines as text, cut at `bytes`. Returns
 * the length it would have. */
size_t nio_wheel_dump(struct nio_wheel *wheel, char *ret_text, size_t bytes);
/* Any thread: bitmaps, links, digits, counts and minima of the whole wheel; for tests. */
bool nio_wheel_check(struct nio_wheel *wheel);

#endif
