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

size_t nio_wheel_dump(struct nio_wheel *wheel, char *ret_text, size_t bytes)
{
    struct text text = { ret_text, bytes, 0 };
    nio_lock_spin(&wheel->lock);
    add(&text, "elapsed %llu ticks, next %llu ns, %u timers\n", (unsigned long long)wheel->elapsed,
        (unsigned long long)nio_wheel_next_ns(wheel), nio_wheel_count(wheel));
    for (unsigned i = 0; i < NIO_WHEEL_LISTS; i++) {
        const struct numio_op *op = wheel->lists[i].first;
        if (op)
            add(&text, "level %u slot %u:", i / NIO_WHEEL_SLOTS, i % NIO_WHEEL_SLOTS);
        for (; op; op = next_of(op))
            add(&text, " %llu%s", (unsigned long long)nio_timer_deadline_ns(op),
                next_of(op) ? "" : "\n");
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

static bool is_whole(const struct nio_wheel *wheel, unsigned number, unsigned *total,
                     uint64_t *earliest_ns)
{
    const struct nio_wheel_list *list = &wheel->lists[number];
    const struct numio_op *prev = NULL;
    uint64_t min_ns = NIO_TIME_NONE;
    uint32_t count = 0;
    for (const struct numio_op *op = list->first; op; prev = op, op = next_of(op)) {
        uint64_t deadline_ns = nio_timer_deadline_ns(op);
        if ((prev && prev_of(op) != prev) || op->_sqe[NIO_TIMER_WORD_LIST] != number + 1 ||
            !is_at_home(wheel, number, deadline_ns))
            return false;
        min_ns = deadline_ns < min_ns ? deadline_ns : min_ns;
        count++;
        if (++*total > nio_wheel_count(wheel))
            return false; /* a ring, or the count is wrong */
    }
    *earliest_ns = min_ns < *earliest_ns ? min_ns : *earliest_ns;
    unsigned level = number / NIO_WHEEL_SLOTS, slot = number % NIO_WHEEL_SLOTS;
    bool is_marked = (wheel->occupied[level][slot / 64] >> slot % 64 & 1) != 0;
    if (count != list->count || is_marked != (list->first != NULL) || (prev && list->last != prev))
        return false;
    return !prev || (list->is_stale ? list->min_ns <= min_ns : list->min_ns == min_ns);
}

bool nio_wheel_check(struct nio_wheel *wheel)
{
    unsigned total = 0;
    uint64_t earliest_ns = NIO_TIME_NONE;
    bool is_good = true, is_stale = false;
    nio_lock_spin(&wheel->lock);
    for (unsigned i = 0; i < NIO_WHEEL_LISTS && is_good; i++) {
        is_good = is_whole(wheel, i, &total, &earliest_ns);
        is_stale = is_stale || (wheel->lists[i].first && wheel->lists[i].is_stale);
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
