/* SPDX-License-Identifier: MIT */
/* The wheel.  All of it but next_ns and count is read and written under the lock.
 *
 * `elapsed` is the owner's progress in ticks and never after the clock.  Written as digits, a timer
 * on a level agrees with it above the level's digit, or is one ahead there, and is ahead of it at
 * the level's; on level 0 also equal, and what was due when it was armed stands there.  So the
 * slots of a level, from that of `elapsed` on and around, are in the order of their times.
 *
 * Progress: the owner reaches the slot that begins first, of some level, when that is not after the
 * clock; that of level 0 gives its due timers up, any other is emptied to the level below, MOVE_MAX
 * timers at a time.  Between these times others may take the lock and cancel what is left of the
 * slot; nothing is armed there any more, since its digit is that of `elapsed`.  A timer moves at
 * most once per level.
 *
 * Ahead: the slot of a level after that of `elapsed` is ripe: the level below has a round for its
 * timers.  They go in the order in which they came, and who arms goes on to use the level that
 * `elapsed` says; so timers of one tick stay in the order in which they were armed, for each of
 * them passes the same lists.
 *
 * The lock costs one locked instruction to arm and one to cancel, about 6 ns each on an AMD EPYC;
 * the release is a plain store.  They buy that a deadline scope, which is armed and cancelled
 * for most calls with a limit, is popped where its coroutine runs: the alternative is a message to
 * the timer's worker and a suspension, microseconds, whenever the coroutine has moved.  The owner
 * cannot do without it as long as anybody else may cancel.
 * Rank NIO_RANK_WHEEL, a leaf; nobody sleeps on it, since it is held for a few dozen instructions
 * or MOVE_MAX moves.
 */
#include "runtime/time/wheel.h"

#include <errno.h>

#include "runtime/base/assert.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"

/* Timers moved, or looked at, within one hold of the lock; moved ahead beside a due timer, when
 * none is due, and before a park: 50 to 100 ns each when they have left the cache.  AHEAD_WAKE in a
 * slot are worth a wake of their own, so that they are moved in time. */
#ifdef NIO_TINY
enum { MOVE_MAX = 2, LOOK_MAX = 4, AHEAD_BESIDE = 1, AHEAD_BETWEEN = 1, AHEAD_PARK = 2 };
enum { AHEAD_WAKE = 4 };
#else
enum { MOVE_MAX = 64, LOOK_MAX = 64, AHEAD_BESIDE = 2, AHEAD_BETWEEN = 16, AHEAD_PARK = 256 };
enum { AHEAD_WAKE = 256 };
#endif
/* How far `elapsed` may lag before the owner brings it up: 4 ms, which costs nothing then, and
 * keeps short timers on low levels although long ones hold the wheel. */
enum { LAG_TICKS = 4096 };

/* Of a tally, and of a timer's word; and what a timer adds to a tally. */
static const uint64_t NUMBER_MASK = UINT64_C(0xffffffff) << 32, ONE_MORE = UINT64_C(1) << 32 | 1;

static struct numio_op *word(const struct numio_op *op, unsigned i)
{
    return (struct numio_op *)(uintptr_t)op->_sqe[i];
}

static void set_word(struct numio_op *op, unsigned i, struct numio_op *value)
{
    op->_sqe[i] = (uintptr_t)value;
}

static void set_next_ns(struct nio_wheel *wheel, uint64_t next_ns)
{
    /* relaxed: only the number matters to a reader */
    atomic_store_explicit(&wheel->next_ns, next_ns, memory_order_relaxed);
}

static void add_count(struct nio_wheel *wheel, unsigned change)
{
    /* relaxed: under the lock, the others read it as a hint */
    atomic_store_explicit(&wheel->count, nio_wheel_count(wheel) + change, memory_order_relaxed);
}

int nio_wheel_init(struct nio_wheel *wheel)
{
    *wheel = (struct nio_wheel){ 0 };
    wheel->lanes = nio_zalloc_sparse((size_t)(NIO_WHEEL_LISTS - NIO_WHEEL_SLOTS) *
                                     (NIO_WHEEL_LANES - 1) * sizeof wheel->lanes[0]);
    nio_lock_init(&wheel->lock, NIO_RANK_WHEEL);
    atomic_init(&wheel->next_ns, NIO_TIME_NONE);
    atomic_init(&wheel->count, 0);
    wheel->moving = NIO_WHEEL_LISTS;
    return wheel->lanes ? 0 : nio_error(-ENOMEM, "timers: no memory for a wheel");
}

void nio_wheel_fini(struct nio_wheel *wheel)
{
    nio_free(wheel->lanes);
    wheel->lanes = NULL;
}

static uint64_t tick_of(uint64_t ns)
{
    return ns >> NIO_WHEEL_TICK_SHIFT;
}

static unsigned list_at(unsigned level, uint64_t tick)
{
    return level * NIO_WHEEL_SLOTS +
           ((unsigned)(tick >> (level * NIO_WHEEL_DIGIT_BITS)) & (NIO_WHEEL_SLOTS - 1));
}

/* The list of a deadline at this progress. */
static unsigned list_of(uint64_t elapsed, uint64_t deadline_ns)
{
    uint64_t tick = tick_of(deadline_ns);
    if (tick < elapsed)
        tick = elapsed;
    /* The lowest bit changes nothing of the digit, and makes the count of zeros defined. */
    unsigned bit = 63u - (unsigned)__builtin_clzll((tick ^ elapsed) | 1);
    return list_at(bit / NIO_WHEEL_DIGIT_BITS, tick);
}

static NIO_ALWAYS_INLINE void mark(struct nio_wheel *wheel, unsigned list, bool has_timers)
{
    unsigned level = list / NIO_WHEEL_SLOTS, slot = list % NIO_WHEEL_SLOTS, group = slot / 64;
    uint64_t *slots = &wheel->occupied[level][group];
    if (has_timers) {
        *slots |= UINT64_C(1) << slot % 64;
        wheel->groups[level] |= 1u << group;
        wheel->levels |= 1u << level;
        return;
    }
    *slots &= ~(UINT64_C(1) << slot % 64);
    if (*slots == 0 && (wheel->groups[level] &= ~(1u << group)) == 0)
        wheel->levels &= ~(1u << level);
}

static NIO_ALWAYS_INLINE void link_last(struct nio_wheel *wheel, unsigned index,
                                        struct numio_op *op)
{
    struct nio_wheel_list *list = &wheel->lists[index];
    uint64_t deadline_ns = nio_timer_deadline_ns(op), tally = list->tally;
    set_word(op, NIO_TIMER_WORD_NEXT, NULL);
    if (tally == 0) {
        op->_sqe[NIO_TIMER_WORD_LIST] = index + 1;
        list->lane = (struct nio_wheel_lane){ op, op };
        list->min_ns = deadline_ns;
        list->tally = ONE_MORE;
        mark(wheel, index, true);
        return;
    }
    struct nio_wheel_lane *lane = nio_wheel_lane(wheel, index, (uint32_t)(tally >> 32));
    op->_sqe[NIO_TIMER_WORD_LIST] = (tally & NUMBER_MASK) | (index + 1);
    if (lane->first) {
        set_word(op, NIO_TIMER_WORD_PREV, lane->last);
        set_word(lane->last, NIO_TIMER_WORD_NEXT, op);
    } else {
        lane->first = op;
    }
    lane->last = op;
    if (deadline_ns <= list->min_ns) {
        list->min_ns = deadline_ns;
        tally &= ~NIO_TALLY_STALE;
    }
    list->tally = tally + ONE_MORE;
}

/* The first of a lane goes without a look at the one behind it, which is likely not in the cache:
 * so the back link of a first timer means nothing. */
static NIO_ALWAYS_INLINE void unlink(struct nio_wheel *wheel, struct numio_op *op)
{
    unsigned index = (uint32_t)op->_sqe[NIO_TIMER_WORD_LIST] - 1;
    NIO_DEBUG_ASSERT(index < NIO_WHEEL_LISTS);
    struct nio_wheel_list *list = &wheel->lists[index];
    struct nio_wheel_lane *lane = nio_wheel_lane(wheel, index, nio_timer_number(op));
    uint64_t tally = list->tally - 1;
    op->_sqe[NIO_TIMER_WORD_LIST] = 0;
    if ((tally & NIO_TALLY_TIMERS) == 0) {
        lane->first = NULL;
        list->tally = 0;
        mark(wheel, index, false);
        return;
    }
    struct numio_op *next = word(op, NIO_TIMER_WORD_NEXT);
    if (op == lane->first) {
        lane->first = next;
        if (next)
            nio_prefetch_write(next);
    } else {
        struct numio_op *prev = word(op, NIO_TIMER_WORD_PREV);
        set_word(prev, NIO_TIMER_WORD_NEXT, next);
        if (next)
            set_word(next, NIO_TIMER_WORD_PREV, prev);
        else
            lane->last = prev;
    }
    if (nio_timer_deadline_ns(op) == list->min_ns)
        tally |= NIO_TALLY_STALE;
    list->tally = tally;
}

/* The slot of a level that has timers and comes first; the level has some. */
static unsigned first_slot(const struct nio_wheel *wheel, unsigned level)
{
    const uint64_t *occupied = wheel->occupied[level];
    unsigned from = list_at(level, wheel->elapsed) % NIO_WHEEL_SLOTS, group = from / 64;
    uint64_t here = occupied[group] & (UINT64_MAX << from % 64);
    if (here)
        return group * 64 + (unsigned)__builtin_ctzll(here);
    uint32_t behind = wheel->groups[level] & (UINT32_MAX << group << 1);
    uint32_t around = behind ? behind : wheel->groups[level];
    group = (unsigned)__builtin_ctz(around);
    return group * 64 + (unsigned)__builtin_ctzll(occupied[group]);
}

/* The list with the earliest deadline, as far as the lists know; NIO_WHEEL_LISTS: none. */
static unsigned earliest_list(const struct nio_wheel *wheel)
{
    unsigned best = NIO_WHEEL_LISTS;
    for (uint32_t left = wheel->levels; left; left &= left - 1) {
        unsigned level = (unsigned)__builtin_ctz(left);
        unsigned number = level * NIO_WHEEL_SLOTS + first_slot(wheel, level);
        if (best == NIO_WHEEL_LISTS || wheel->lists[number].min_ns < wheel->lists[best].min_ns)
            best = number;
    }
    return best;
}

static uint64_t earliest_ns(const struct nio_wheel *wheel)
{
    unsigned number = earliest_list(wheel);
    return number == NIO_WHEEL_LISTS ? NIO_TIME_NONE : wheel->lists[number].min_ns;
}

bool nio_wheel_arm(struct nio_wheel *wheel, struct numio_op *op, uint64_t deadline_ns,
                   uint64_t now_ns)
{
    NIO_DEBUG_ASSERT(deadline_ns <= NIO_TIME_FAR);
    op->_sqe[NIO_TIMER_WORD_DEADLINE] = deadline_ns;
    nio_lock_spin(&wheel->lock);
    if (nio_wheel_count(wheel) == 0 && wheel->moving == NIO_WHEEL_LISTS &&
        tick_of(now_ns) > wheel->elapsed)
        wheel->elapsed = tick_of(now_ns);
    link_last(wheel, list_of(wheel->elapsed, deadline_ns), op);
    add_count(wheel, 1);
    bool is_first = deadline_ns < nio_wheel_next_ns(wheel);
    if (is_first)
        set_next_ns(wheel, deadline_ns);
    nio_lock_release_tried(&wheel->lock);
    return is_first;
}

bool nio_wheel_cancel(struct nio_wheel *wheel, struct numio_op *op)
{
    nio_lock_spin(&wheel->lock);
    bool is_armed = op->_sqe[NIO_TIMER_WORD_LIST] != 0;
    if (is_armed) {
        unlink(wheel, op);
        add_count(wheel, -1u);
        if (nio_timer_deadline_ns(op) == nio_wheel_next_ns(wheel))
            set_next_ns(wheel, earliest_ns(wheel));
    }
    nio_lock_release_tried(&wheel->lock);
    return is_armed;
}

/* The number of a list's slot, counted from the beginning of time. */
static uint64_t slots_before(const struct nio_wheel *wheel, unsigned number)
{
    unsigned level = number / NIO_WHEEL_SLOTS;
    uint64_t reached = wheel->elapsed >> (level * NIO_WHEEL_DIGIT_BITS);
    return reached + ((number - reached) & (NIO_WHEEL_SLOTS - 1));
}

/* The tick at which a list's slot begins. */
static uint64_t beginning_of(const struct nio_wheel *wheel, unsigned number)
{
    return slots_before(wheel, number) << (number / NIO_WHEEL_SLOTS * NIO_WHEEL_DIGIT_BITS);
}

/* The list whose slot begins first, the highest of several; NIO_WHEEL_LISTS: there is none. */
static unsigned first_list(const struct nio_wheel *wheel, uint64_t *ret_tick)
{
    unsigned best = NIO_WHEEL_LISTS;
    for (uint32_t left = wheel->levels; left; left &= left - 1) {
        unsigned level = (unsigned)__builtin_ctz(left);
        unsigned number = level * NIO_WHEEL_SLOTS + first_slot(wheel, level);
        uint64_t tick = beginning_of(wheel, number);
        if (best == NIO_WHEEL_LISTS || tick <= *ret_tick) {
            best = number;
            *ret_tick = tick;
        }
    }
    return best;
}

/* The timer of a list above level 0 that has been there for longest; it has one. */
static struct numio_op *oldest(struct nio_wheel *wheel, unsigned index)
{
    struct numio_op *best = NULL;
    for (uint32_t i = 0; i < NIO_WHEEL_LANES; i++) {
        struct numio_op *op = nio_wheel_lane(wheel, index, i)->first;
        /* They are counted on from one another, and may have begun at 0 again. */
        if (op && (!best || (int32_t)(nio_timer_number(op) - nio_timer_number(best)) < 0))
            best = op;
    }
    return best;
}

/* The same when the one before this number has just been moved. */
static struct numio_op *oldest_from(struct nio_wheel *wheel, unsigned index, uint32_t number)
{
    struct numio_op *op = nio_wheel_lane(wheel, index, number)->first;
    return NIO_LIKELY(op && nio_timer_number(op) == number) ? op : oldest(wheel, index);
}

/* The other lines of who is about to end: the rest of the operation, and what is before one at the
 * head of a future's state, that is, its task. */
static void warm(const struct numio_op *op)
{
    const char *first = (const char *)op;
    nio_prefetch_write(first - NIO_CACHELINE);
    nio_prefetch_write(first);
    nio_prefetch_write(first + sizeof *op - 1);
}

/* Moves up to `max` timers of a list to the level below.  Returns how many. */
static unsigned move_some(struct nio_wheel *wheel, unsigned index, unsigned max)
{
    const struct nio_wheel_list *list = &wheel->lists[index];
    unsigned level = index / NIO_WHEEL_SLOTS, moved = 0;
    uint32_t next = 0;
    for (; moved < max && list->tally != 0; moved++) {
        struct numio_op *op = moved > 0 ? oldest_from(wheel, index, next) : oldest(wheel, index);
        next = nio_timer_number(op) + 1;
        unlink(wheel, op);
        if (level == 1)
            warm(op);
        link_last(wheel, list_at(level - 1, tick_of(nio_timer_deadline_ns(op))), op);
    }
    return moved;
}

/* Moves up to `max` timers of ripe slots. */
static void move_ahead(struct nio_wheel *wheel, unsigned max)
{
    unsigned moved = 0;
    if (NIO_LIKELY(!wheel->may_be_ripe))
        return;
    for (uint32_t left = wheel->levels & ~1u; left && moved < max; left &= left - 1) {
        unsigned level = (unsigned)__builtin_ctz(left);
        uint64_t next = UINT64_C(1) << (level * NIO_WHEEL_DIGIT_BITS);
        moved += move_some(wheel, list_at(level, wheel->elapsed + next), max - moved);
    }
    wheel->may_be_ripe = moved == max;
}

static void set_elapsed(struct nio_wheel *wheel, uint64_t tick)
{
    if ((tick ^ wheel->elapsed) >> NIO_WHEEL_DIGIT_BITS)
        wheel->may_be_ripe = true;
    wheel->elapsed = tick;
}

/* The earliest time from which many timers can be moved ahead; NIO_TIME_NONE: there are none. */
static uint64_t ripe_ns(const struct nio_wheel *wheel)
{
    uint64_t best = NIO_TIME_NONE;
    for (uint32_t left = wheel->levels & ~1u; left; left &= left - 1) {
        unsigned level = (unsigned)__builtin_ctz(left);
        unsigned number = level * NIO_WHEEL_SLOTS + first_slot(wheel, level);
        if (nio_wheel_list_count(&wheel->lists[number]) < AHEAD_WAKE)
            continue;
        uint64_t tick = (slots_before(wheel, number) - 1) << (level * NIO_WHEEL_DIGIT_BITS);
        uint64_t ns = tick << NIO_WHEEL_TICK_SHIFT;
        best = ns < best ? ns : best;
    }
    return best;
}

/* Makes the minimum of a list exact if it has few timers.  Returns the first of those it has looked
 * at that is due at `now_ns`, NULL if none is. */
static struct numio_op *look_through(struct nio_wheel *wheel, unsigned index, uint64_t now_ns)
{
    struct nio_wheel_list *list = &wheel->lists[index];
    unsigned lanes = nio_wheel_lane_count(index), looked = 0;
    uint64_t min_ns = NIO_TIME_NONE;
    for (unsigned i = 0; i < lanes; i++)
        for (struct numio_op *op = nio_wheel_lane(wheel, index, i)->first; op && looked < LOOK_MAX;
             looked++) {
            uint64_t deadline_ns = nio_timer_deadline_ns(op);
            if (deadline_ns <= now_ns)
                return op;
            if (deadline_ns < min_ns)
                min_ns = deadline_ns;
            op = word(op, NIO_TIMER_WORD_NEXT);
        }
    if (looked == nio_wheel_list_count(list)) {
        list->min_ns = min_ns;
        list->tally &= ~NIO_TALLY_STALE;
    }
    return NULL;
}

/* One bounded step towards `now_ns`.  True: there is more to do first.  Else *ret_op is a timer
 * that is due and taken, or NULL. */
static bool step(struct nio_wheel *wheel, uint64_t now_ns, struct numio_op **ret_op)
{
    *ret_op = NULL;
    if (NIO_UNLIKELY(wheel->moving != NIO_WHEEL_LISTS)) {
        if (move_some(wheel, wheel->moving, MOVE_MAX) < MOVE_MAX)
            wheel->moving = NIO_WHEEL_LISTS;
        return true;
    }
    uint64_t begins = 0, tick = tick_of(now_ns);
    unsigned number = first_list(wheel, &begins);
    if (number == NIO_WHEEL_LISTS || begins > tick) {
        if (tick > wheel->elapsed)
            set_elapsed(wheel, tick); /* no timer's digits differ from it otherwise than before */
        return false;
    }
    set_elapsed(wheel, begins);
    if (number >= NIO_WHEEL_SLOTS) {
        wheel->moving = number;
        return true;
    }
    struct nio_wheel_list *list = &wheel->lists[number];
    if (wheel->elapsed < tick)
        *ret_op = list->lane.first; /* they are all due */
    else if (list->min_ns <= now_ns)
        *ret_op = look_through(wheel, number, now_ns);
    return false;
}

/* Between two bounded steps under the lock. */
static void let_others_in(struct nio_wheel *wheel)
{
    set_next_ns(wheel, earliest_ns(wheel));
    nio_lock_release_tried(&wheel->lock);
    nio_lock_spin(&wheel->lock);
}

/* Makes the earliest deadline exact, unless a slot with many timers is in the way. */
static void look_for_earliest(struct nio_wheel *wheel)
{
    unsigned number;
    while ((number = earliest_list(wheel)) != NIO_WHEEL_LISTS &&
           nio_wheel_list_is_stale(&wheel->lists[number])) {
        (void)look_through(wheel, number, 0); /* nothing is due at 0 */
        if (nio_wheel_list_is_stale(&wheel->lists[number]))
            break;
    }
}

/* Goes on to `now_ns`, and moves up to `max` timers ahead. */
static uint64_t settle(struct nio_wheel *wheel, uint64_t now_ns, unsigned max)
{
    struct numio_op *due;
    uint64_t next_ns, back_ns;
    wheel->settled = tick_of(now_ns);
    if (nio_wheel_next_ns(wheel) == NIO_TIME_NONE)
        return NIO_TIME_NONE;
    nio_lock_spin(&wheel->lock);
    while (step(wheel, now_ns, &due))
        let_others_in(wheel);
    wheel->may_be_ripe = true; /* some may have been armed into a ripe slot since */
    for (unsigned moved = 0; wheel->may_be_ripe && moved < max; moved += MOVE_MAX) {
        move_ahead(wheel, MOVE_MAX);
        let_others_in(wheel);
    }
    look_for_earliest(wheel);
    next_ns = earliest_ns(wheel);
    set_next_ns(wheel, next_ns);
    back_ns = wheel->may_be_ripe ? now_ns : ripe_ns(wheel);
    nio_lock_release_tried(&wheel->lock);
    return next_ns < back_ns ? next_ns : back_ns;
}

/* Owner, while none is due: what was put off. */
static NIO_NOINLINE void catch_up(struct nio_wheel *wheel, uint64_t now_ns)
{
    if (tick_of(now_ns) - wheel->settled > LAG_TICKS) {
        (void)settle(wheel, now_ns, AHEAD_BETWEEN); /* the owner asks when it parks */
        return;
    }
    nio_lock_spin(&wheel->lock);
    move_ahead(wheel, AHEAD_BETWEEN);
    nio_lock_release_tried(&wheel->lock);
}

struct numio_op *nio_wheel_take_due(struct nio_wheel *wheel, uint64_t now_ns)
{
    if (NIO_LIKELY(now_ns < nio_wheel_next_ns(wheel))) {
        if (NIO_UNLIKELY(wheel->may_be_ripe || tick_of(now_ns) - wheel->settled > LAG_TICKS))
            catch_up(wheel, now_ns);
        return NULL;
    }
    struct numio_op *op;
    nio_lock_spin(&wheel->lock);
    while (step(wheel, now_ns, &op))
        let_others_in(wheel);
    if (op) {
        unlink(wheel, op);
        add_count(wheel, -1u);
        move_ahead(wheel, AHEAD_BESIDE);
    }
    set_next_ns(wheel, earliest_ns(wheel));
    nio_lock_release_tried(&wheel->lock);
    return op;
}

uint64_t nio_wheel_settle(struct nio_wheel *wheel, uint64_t now_ns)
{
    return settle(wheel, now_ns, AHEAD_PARK);
}
