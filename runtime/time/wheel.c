/* SPDX-License-Identifier: MIT */
/* The wheel.  All of it but next_ns and count is read and written under the lock.
 *
 * `elapsed` is the owner's progress in ticks and never after the clock.  With it all armed timers
 * keep to: same digits as `elapsed` above their level, a greater digit at their level; on level 0
 * also an equal one, and what was due when it was armed stands there.  So a slot is never passed
 * twice, the lowest level that has timers has the earliest, and its first slot has them.
 *
 * Progress: the owner enters the first slot when its beginning is not after the clock; that of
 * level 0 gives its due timers up, any other is distributed to lower levels, MOVE_MAX timers at a
 * time.  Between these times others may take the lock and cancel what is left of the slot; nothing
 * is armed there any more, since its digit is that of `elapsed`.  A timer moves at most once per
 * level.
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

#include "runtime/base/assert.h"

/* Timers moved, or looked at, within one hold of the lock. */
enum { MOVE_MAX = 64, LOOK_MAX = 64 };
/* How far `elapsed` may lag before the owner brings it up: 4 ms, which costs nothing then, and
 * keeps short timers on low levels although long ones hold the wheel. */
enum { LAG_TICKS = 4096 };

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

void nio_wheel_init(struct nio_wheel *wheel)
{
    *wheel = (struct nio_wheel){ 0 };
    nio_lock_init(&wheel->lock, NIO_RANK_WHEEL);
    atomic_init(&wheel->next_ns, NIO_TIME_NONE);
    atomic_init(&wheel->count, 0);
    wheel->moving = NIO_WHEEL_LISTS;
}

static uint64_t tick_of(uint64_t ns)
{
    return ns >> NIO_WHEEL_TICK_SHIFT;
}

/* The list of a deadline at this progress. */
static unsigned list_of(uint64_t elapsed, uint64_t deadline_ns)
{
    uint64_t tick = tick_of(deadline_ns);
    if (tick < elapsed)
        tick = elapsed;
    /* The lowest bit changes nothing of the digit, and makes the count of zeros defined. */
    unsigned bit = 63u - (unsigned)__builtin_clzll((tick ^ elapsed) | 1);
    unsigned level = bit / NIO_WHEEL_DIGIT_BITS;
    unsigned slot = (unsigned)(tick >> (level * NIO_WHEEL_DIGIT_BITS)) & (NIO_WHEEL_SLOTS - 1);
    return level * NIO_WHEEL_SLOTS + slot;
}

static void mark(struct nio_wheel *wheel, unsigned list, bool has_timers)
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

static void link_last(struct nio_wheel *wheel, unsigned number, struct numio_op *op)
{
    struct nio_wheel_list *list = &wheel->lists[number];
    uint64_t deadline_ns = nio_timer_deadline_ns(op);
    set_word(op, NIO_TIMER_WORD_NEXT, NULL);
    op->_sqe[NIO_TIMER_WORD_LIST] = number + 1;
    if (list->first) {
        set_word(op, NIO_TIMER_WORD_PREV, list->last);
        set_word(list->last, NIO_TIMER_WORD_NEXT, op);
        if (deadline_ns <= list->min_ns) {
            list->min_ns = deadline_ns;
            list->is_stale = false;
        }
    } else {
        list->first = op;
        list->min_ns = deadline_ns;
        list->is_stale = false;
        mark(wheel, number, true);
    }
    list->last = op;
}

/* The first of a list goes without a look at the one behind it, which is likely not in the cache:
 * so the back link of a first timer means nothing. */
static void unlink(struct nio_wheel *wheel, struct numio_op *op)
{
    unsigned number = (unsigned)op->_sqe[NIO_TIMER_WORD_LIST] - 1;
    NIO_DEBUG_ASSERT(number < NIO_WHEEL_LISTS);
    struct nio_wheel_list *list = &wheel->lists[number];
    struct numio_op *next = word(op, NIO_TIMER_WORD_NEXT);
    op->_sqe[NIO_TIMER_WORD_LIST] = 0;
    if (op == list->first) {
        list->first = next;
        if (!next) {
            mark(wheel, number, false);
            return;
        }
        nio_prefetch_write(next);
    } else {
        struct numio_op *prev = word(op, NIO_TIMER_WORD_PREV);
        set_word(prev, NIO_TIMER_WORD_NEXT, next);
        if (next)
            set_word(next, NIO_TIMER_WORD_PREV, prev);
        else
            list->last = prev;
    }
    if (nio_timer_deadline_ns(op) == list->min_ns)
        list->is_stale = true;
}

/* The list with the earliest timers but those of a slot that is being distributed; NIO_WHEEL_LISTS
 * without any. */
static unsigned first_list(const struct nio_wheel *wheel)
{
    if (!wheel->levels)
        return NIO_WHEEL_LISTS;
    unsigned level = (unsigned)__builtin_ctz(wheel->levels);
    unsigned group = (unsigned)__builtin_ctz(wheel->groups[level]);
    return level * NIO_WHEEL_SLOTS + group * 64 +
           (unsigned)__builtin_ctzll(wheel->occupied[level][group]);
}

/* The earliest deadline, as far as the lists know. */
static uint64_t earliest_ns(const struct nio_wheel *wheel)
{
    unsigned number = first_list(wheel);
    if (number == NIO_WHEEL_LISTS)
        return NIO_TIME_NONE;
    uint64_t first_ns = wheel->lists[number].min_ns;
    if (NIO_LIKELY(wheel->moving == NIO_WHEEL_LISTS) || !wheel->lists[wheel->moving].first)
        return first_ns;
    uint64_t rest_ns = wheel->lists[wheel->moving].min_ns;
    return rest_ns < first_ns ? rest_ns : first_ns;
}

bool nio_wheel_arm(struct nio_wheel *wheel, struct numio_op *op, uint64_t deadline_ns,
                   uint64_t now_ns)
{
    NIO_DEBUG_ASSERT(deadline_ns <= NIO_TIME_FAR);
    op->_sqe[NIO_TIMER_WORD_DEADLINE] = deadline_ns;
    nio_lock_spin(&wheel->lock);
    if (nio_wheel_count(wheel) == 0 && tick_of(now_ns) > wheel->elapsed)
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

/* The tick at which a slot begins. */
static uint64_t beginning_of(const struct nio_wheel *wheel, unsigned number)
{
    unsigned level = number / NIO_WHEEL_SLOTS, slot = number % NIO_WHEEL_SLOTS;
    unsigned shift = level * NIO_WHEEL_DIGIT_BITS;
    uint64_t above = ~((UINT64_C(1) << shift << NIO_WHEEL_DIGIT_BITS) - 1);
    return (wheel->elapsed & above) | (uint64_t)slot << shift;
}

/* Goes on to distribute a slot. */
static void move_some(struct nio_wheel *wheel)
{
    struct nio_wheel_list *moving = &wheel->lists[wheel->moving];
    struct numio_op *op;
    for (unsigned i = 0; i < MOVE_MAX && (op = moving->first); i++) {
        unlink(wheel, op);
        link_last(wheel, list_of(wheel->elapsed, nio_timer_deadline_ns(op)), op);
    }
    if (!moving->first)
        wheel->moving = NIO_WHEEL_LISTS;
}

/* Makes the minimum of a list exact if it has few timers.  Returns the first of those it has looked
 * at that is due at `now_ns`, NULL if none is. */
static struct numio_op *look_through(struct nio_wheel_list *list, uint64_t now_ns)
{
    uint64_t min_ns = NIO_TIME_NONE;
    struct numio_op *op = list->first;
    for (unsigned i = 0; i < LOOK_MAX && op; i++, op = word(op, NIO_TIMER_WORD_NEXT)) {
        uint64_t deadline_ns = nio_timer_deadline_ns(op);
        if (deadline_ns <= now_ns)
            return op;
        if (deadline_ns < min_ns)
            min_ns = deadline_ns;
    }
    if (!op) {
        list->min_ns = min_ns;
        list->is_stale = false;
    }
    return NULL;
}

/* One bounded step towards `now_ns`.  True: there is more to do first.  Else *ret_op is a timer
 * that is due and taken, or NULL. */
static bool step(struct nio_wheel *wheel, uint64_t now_ns, struct numio_op **ret_op)
{
    *ret_op = NULL;
    if (NIO_UNLIKELY(wheel->moving != NIO_WHEEL_LISTS)) {
        move_some(wheel);
        return true;
    }
    unsigned number = first_list(wheel);
    uint64_t tick = tick_of(now_ns);
    if (number == NIO_WHEEL_LISTS || beginning_of(wheel, number) > tick) {
        if (tick > wheel->elapsed)
            wheel->elapsed = tick; /* no timer's digits differ from it elsewhere than before */
        return false;
    }
    wheel->elapsed = beginning_of(wheel, number);
    if (number >= NIO_WHEEL_SLOTS) {
        wheel->moving = number;
        return true;
    }
    struct nio_wheel_list *list = &wheel->lists[number];
    if (wheel->elapsed < tick)
        *ret_op = list->first; /* they are all due */
    else if (list->min_ns <= now_ns)
        *ret_op = look_through(list, now_ns);
    return false;
}

struct numio_op *nio_wheel_take_due(struct nio_wheel *wheel, uint64_t now_ns)
{
    if (NIO_LIKELY(now_ns < nio_wheel_next_ns(wheel))) {
        if (NIO_UNLIKELY(tick_of(now_ns) - wheel->settled > LAG_TICKS))
            (void)nio_wheel_settle(wheel, now_ns); /* the owner asks when it parks */
        return NULL;
    }
    struct numio_op *op;
    for (bool has_more = true; has_more;) {
        nio_lock_spin(&wheel->lock);
        has_more = step(wheel, now_ns, &op);
        if (op) {
            unlink(wheel, op);
            add_count(wheel, -1u);
        }
        set_next_ns(wheel, earliest_ns(wheel));
        nio_lock_release_tried(&wheel->lock);
    }
    return op;
}

uint64_t nio_wheel_settle(struct nio_wheel *wheel, uint64_t now_ns)
{
    struct numio_op *due;
    wheel->settled = tick_of(now_ns);
    if (nio_wheel_next_ns(wheel) == NIO_TIME_NONE)
        return NIO_TIME_NONE;
    for (bool has_more = true; has_more;) {
        nio_lock_spin(&wheel->lock);
        has_more = step(wheel, now_ns, &due);
        unsigned number = first_list(wheel);
        if (!has_more && number != NIO_WHEEL_LISTS && wheel->lists[number].is_stale)
            (void)look_through(&wheel->lists[number], 0); /* nothing is due at 0 */
        set_next_ns(wheel, earliest_ns(wheel));
        nio_lock_release_tried(&wheel->lock);
    }
    return nio_wheel_next_ns(wheel);
}
