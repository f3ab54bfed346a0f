/* SPDX-License-Identifier: MIT */
/* What a wheel holds, as text, and whether it is whole.  Both walk everything under the lock: for
 * tests and debugging. */
#include <stdarg.h>
#include <stdio.h>

#include "runtime/time/wheel.h"

static struct numio_op *next_of(const struct numio_op *op)
{
    return (struct numio_op *)(uintptr_t)op->_sqe[NIO_TIMER_WORD_NEXT];
}

static struct numio_op *prev_of(const struct numio_op *op)
{
    return (struct numio_op *)(uintptr_t)op->_sqe[NIO_TIMER_WORD_PREV];
}

struct text {
    char *bytes;
    size_t size, length;
};

static void add(struct text *text, const char *format, ...) NIO_PRINTF(2, 3);
static void add(struct text *text, const char *format, ...)
{
    bool has_room = text->length < text->size;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(has_room ? text->bytes + text->length : NULL,
                           has_room ? text->size - text->length : 0, format, args);
    va_end(args);
    text->length += length > 0 ? (size_t)length : 0;
}

/* Through the lanes of a list, in the order of the timers' numbers. */
struct walk {
    const struct numio_op *at[NIO_WHEEL_LANES];
    unsigned lanes;
};

static struct walk begin_walk(struct nio_wheel *wheel, unsigned list)
{
    struct walk walk = { .lanes = nio_wheel_lane_count(list) };
    for (unsigned i = 0; i < walk.lanes; i++)
        walk.at[i] = nio_wheel_lane(wheel, list, i)->first;
    return walk;
}

static const struct numio_op *walk_on(struct walk *walk)
{
    const struct numio_op **best = NULL;
    for (unsigned i = 0; i < walk->lanes; i++) {
        const struct numio_op **at = &walk->at[i];
        if (*at && (!best || (int32_t)(nio_timer_number(*at) - nio_timer_number(*best)) < 0))
            best = at;
    }
    const struct numio_op *op = best ? *best : NULL;
    if (op)
        *best = next_of(op);
    return op;
}

size_t nio_wheel_dump(struct nio_wheel *wheel, char *ret_text, size_t bytes)
{
    struct text text = { ret_text, bytes, 0 };
    nio_lock_spin(&wheel->lock);
    add(&text, "elapsed %llu ticks, next %llu ns, %u timers\n", (unsigned long long)wheel->elapsed,
        (unsigned long long)nio_wheel_next_ns(wheel), nio_wheel_count(wheel));
    for (unsigned i = 0; i < NIO_WHEEL_LISTS; i++) {
        if (wheel->lists[i].tally == 0)
            continue;
        add(&text, "level %u slot %u:", i / NIO_WHEEL_SLOTS, i % NIO_WHEEL_SLOTS);
        struct walk walk = begin_walk(wheel, i);
        for (const struct numio_op *op; (op = walk_on(&walk));)
            add(&text, " %llu", (unsigned long long)nio_timer_deadline_ns(op));
        add(&text, "\n");
    }
    nio_lock_release_tried(&wheel->lock);
    return text.length;
}

/* Whether a timer may stand in this list at this progress. */
static bool is_at_home(const struct nio_wheel *wheel, unsigned list, uint64_t deadline_ns)
{
    unsigned shift = list / NIO_WHEEL_SLOTS * NIO_WHEEL_DIGIT_BITS, digit = list % NIO_WHEEL_SLOTS;
    uint64_t tick = deadline_ns >> NIO_WHEEL_TICK_SHIFT;
    uint64_t slot = tick >> shift, reached = wheel->elapsed >> shift;
    if (list < NIO_WHEEL_SLOTS && tick <= wheel->elapsed)
        return digit == reached % NIO_WHEEL_SLOTS; /* it was due when it was armed, or is now */
    bool may_have_begun = list < NIO_WHEEL_SLOTS || wheel->moving != NIO_WHEEL_LISTS;
    return slot % NIO_WHEEL_SLOTS == digit && (may_have_begun ? slot >= reached : slot > reached) &&
           (slot >> NIO_WHEEL_DIGIT_BITS) - (reached >> NIO_WHEEL_DIGIT_BITS) <= 1;
}

/* What a walk through a list has found. */
struct found {
    uint64_t min_ns;
    uint32_t count;
};

static bool is_lane_whole(struct nio_wheel *wheel, unsigned list, unsigned lane,
                          struct found *found)
{
    unsigned lanes = nio_wheel_lane_count(list);
    const struct nio_wheel_lane *ends = nio_wheel_lane(wheel, list, lane);
    const struct numio_op *prev = NULL;
    for (const struct numio_op *op = ends->first; op; prev = op, op = next_of(op)) {
        uint64_t deadline_ns = nio_timer_deadline_ns(op);
        int32_t ahead = prev ? (int32_t)(nio_timer_number(op) - nio_timer_number(prev)) : 1;
        if ((prev && prev_of(op) != prev) || ahead <= 0 || nio_timer_number(op) % lanes != lane ||
            (uint32_t)op->_sqe[NIO_TIMER_WORD_LIST] != list + 1 ||
            !is_at_home(wheel, list, deadline_ns))
            return false;
        uint32_t next = (uint32_t)(wheel->lists[list].tally >> 32);
        if ((int32_t)(next - nio_timer_number(op)) <= 0)
            return false;
        found->min_ns = deadline_ns < found->min_ns ? deadline_ns : found->min_ns;
        if (++found->count > nio_wheel_count(wheel))
            return false; /* a ring, or the count is wrong */
    }
    return !prev || ends->last == prev;
}

static bool is_whole(struct nio_wheel *wheel, unsigned number, unsigned *total,
                     uint64_t *earliest_ns)
{
    const struct nio_wheel_list *list = &wheel->lists[number];
    struct found found = { NIO_TIME_NONE, 0 };
    unsigned level = number / NIO_WHEEL_SLOTS, slot = number % NIO_WHEEL_SLOTS;
    /* Of an empty one the first lane is enough: the next timer goes there. */
    unsigned lanes = list->tally != 0 ? nio_wheel_lane_count(number) : 1;
    for (unsigned i = 0; i < lanes; i++)
        if (!is_lane_whole(wheel, number, i, &found))
            return false;
    *total += found.count;
    *earliest_ns = found.min_ns < *earliest_ns ? found.min_ns : *earliest_ns;
    bool is_marked = (wheel->occupied[level][slot / 64] >> slot % 64 & 1) != 0;
    if (found.count != nio_wheel_list_count(list) || is_marked != (found.count > 0) ||
        (found.count == 0 && list->tally != 0))
        return false;
    return found.count == 0 || (nio_wheel_list_is_stale(list) ? list->min_ns <= found.min_ns
                                                              : list->min_ns == found.min_ns);
}

bool nio_wheel_check(struct nio_wheel *wheel)
{
    unsigned total = 0;
    uint64_t earliest_ns = NIO_TIME_NONE;
    bool is_good = true, is_stale = false;
    nio_lock_spin(&wheel->lock);
    for (unsigned i = 0; i < NIO_WHEEL_LISTS && is_good; i++) {
        is_good = is_whole(wheel, i, &total, &earliest_ns);
        is_stale = is_stale || nio_wheel_list_is_stale(&wheel->lists[i]);
    }
    for (unsigned level = 0; level < NIO_WHEEL_LEVELS; level++) {
        is_good = is_good && (wheel->levels >> level & 1) == (wheel->groups[level] != 0);
        for (unsigned i = 0; i < NIO_WHEEL_GROUPS; i++)
            is_good =
                is_good && (wheel->groups[level] >> i & 1) == (wheel->occupied[level][i] != 0);
    }
    uint64_t next_ns = nio_wheel_next_ns(wheel);
    is_good = is_good && total == nio_wheel_count(wheel) &&
              (is_stale ? next_ns <= earliest_ns : next_ns == earliest_ns);
    nio_lock_release_tried(&wheel->lock);
    return is_good;
}
