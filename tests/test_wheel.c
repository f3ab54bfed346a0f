/* SPDX-License-Identifier: MIT */
/* The wheel of timers against a naive model, an array that is searched. */
#include <criterion/criterion.h>

#include "runtime/time/wheel.h"

#include <stdio.h>
#include <string.h>

#include "tests/seeded.h"

enum { TIMERS = 300, STEPS = 40000, DUMP_BYTES = 1 << 20 };

static struct numio_op timers[TIMERS];
static uint64_t deadlines[TIMERS]; /* 0: not armed */
static struct nio_wheel wheel;
static char dump[DUMP_BYTES];

static uint64_t earliest(void)
{
    uint64_t best = NIO_TIME_NONE;
    for (int i = 0; i < TIMERS; i++)
        if (deadlines[i] && deadlines[i] < best)
            best = deadlines[i];
    return best;
}

static void arm(unsigned i, uint64_t deadline_ns, uint64_t now_ns)
{
    bool is_first = deadline_ns < nio_wheel_next_ns(&wheel);
    cr_assert_eq(nio_wheel_arm(&wheel, &timers[i], deadline_ns, now_ns), is_first);
    deadlines[i] = deadline_ns;
}

static void take_all_due(uint64_t now_ns)
{
    uint64_t last_tick = 0;
    struct numio_op *op;
    while ((op = nio_wheel_take_due(&wheel, now_ns))) {
        unsigned i = (unsigned)(op - timers);
        cr_assert(deadlines[i] && deadlines[i] <= now_ns, "timer %u is not due", i);
        uint64_t tick = deadlines[i] >> NIO_WHEEL_TICK_SHIFT;
        cr_assert_geq(tick, last_tick, "deadlines come in order, tick by tick");
        last_tick = tick;
        deadlines[i] = 0;
    }
    cr_assert(earliest() > now_ns, "everything due was taken");
}

/* 1 ns to centuries, all magnitudes alike. */
static uint64_t random_delay(struct nio_rng *rng)
{
    uint64_t wide = nio_rng_next(rng);
    return (wide >> (1 + nio_rng_below(rng, 63))) + 1;
}

/* Each armed deadline stands in the dump, and nothing else does. */
static void check_dump(void)
{
    unsigned armed = 0, found = 0;
    char text[32];
    cr_assert_lt(nio_wheel_dump(&wheel, dump, sizeof dump), sizeof dump);
    for (const char *at = strchr(dump, '\n'); at && at[1]; at = strchr(at + 1, '\n'))
        for (const char *c = strchr(at, ':'); *c != '\n'; c++)
            found += *c == ' ';
    for (int i = 0; i < TIMERS; i++) {
        if (!deadlines[i])
            continue;
        (void)snprintf(text, sizeof text, " %llu", (unsigned long long)deadlines[i]);
        cr_assert(strstr(dump, text), "%s is missing in\n%s", text, dump);
        armed++;
    }
    cr_assert_eq(found, armed);
    cr_assert_eq(nio_wheel_count(&wheel), armed);
}

/* How far the clock goes: mostly a little, now and then to where something happens, or far. */
static uint64_t later(struct nio_rng *rng, uint64_t now_ns)
{
    uint64_t next_ns = earliest();
    switch (nio_rng_below(rng, 8)) {
    case 0:
        return next_ns != NIO_TIME_NONE && next_ns > now_ns ? next_ns - 1 : now_ns;
    case 1:
    case 2:
        return next_ns != NIO_TIME_NONE && next_ns > now_ns ? next_ns : now_ns;
    case 3:
        return now_ns < UINT64_MAX / 4 ? now_ns + random_delay(rng) / 65536 : now_ns;
    default:
        return now_ns + nio_rng_below(rng, 5000);
    }
}

static void step(struct nio_rng *rng, uint64_t *now_ns)
{
    unsigned i = nio_rng_below(rng, TIMERS), what = nio_rng_below(rng, 8);
    if (what == 0) {
        *now_ns = later(rng, *now_ns);
        take_all_due(*now_ns);
    } else if (what == 1) {
        uint64_t next_ns = nio_wheel_settle(&wheel, *now_ns);
        cr_assert(next_ns <= earliest() && (next_ns > *now_ns || next_ns == earliest()));
    } else if (deadlines[i] && what < 4) {
        cr_assert(nio_wheel_cancel(&wheel, &timers[i]));
        cr_assert_not(nio_wheel_cancel(&wheel, &timers[i]), "it is gone already");
        deadlines[i] = 0;
    } else if (!deadlines[i]) {
        uint64_t delay_ns = random_delay(rng);
        arm(i, delay_ns < NIO_TIME_FAR - *now_ns ? *now_ns + delay_ns : NIO_TIME_FAR,
            nio_rng_below(rng, 2) ? *now_ns : 0);
    }
}

Test(wheel, agrees_with_a_model_over_random_steps, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(0x5eed);
    uint64_t now_ns = 1000;
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    for (int i = 0; i < STEPS; i++) {
        step(&rng, &now_ns);
        cr_assert_leq(nio_wheel_next_ns(&wheel), earliest(), "step %d", i);
        cr_assert(nio_wheel_check(&wheel), "step %d", i);
        if (i % 64 == 0)
            check_dump();
    }
    take_all_due(NIO_TIME_FAR);
    cr_assert_eq(nio_wheel_count(&wheel), 0);
    cr_assert(nio_wheel_check(&wheel));
}

Test(wheel, a_timer_is_due_at_its_nanosecond_and_not_before)
{
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    uint64_t now_ns = 12345678901;
    for (uint64_t delay_ns = 1; delay_ns < UINT64_MAX / 4; delay_ns *= 3) {
        arm(0, now_ns + delay_ns, now_ns);
        arm(1, now_ns + delay_ns, now_ns);
        cr_assert_eq(nio_wheel_settle(&wheel, now_ns + delay_ns / 2), now_ns + delay_ns);
        cr_assert_null(nio_wheel_take_due(&wheel, now_ns + delay_ns - 1));
        cr_assert_eq(nio_wheel_take_due(&wheel, now_ns + delay_ns), &timers[0], "as armed");
        cr_assert_eq(nio_wheel_take_due(&wheel, now_ns + delay_ns), &timers[1]);
        cr_assert_null(nio_wheel_take_due(&wheel, now_ns + delay_ns));
        deadlines[0] = deadlines[1] = 0;
    }
}

Test(wheel, a_deadline_that_has_passed_is_due_at_once)
{
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    arm(0, 5000000, 4000000);
    arm(1, 10, 4000000);
    arm(2, 0, 4000000);
    cr_assert(nio_wheel_check(&wheel));
    cr_assert_eq(nio_wheel_take_due(&wheel, 4000000), &timers[1]);
    cr_assert_eq(nio_wheel_take_due(&wheel, 4000000), &timers[2]);
    cr_assert_null(nio_wheel_take_due(&wheel, 4999999));
    cr_assert_eq(nio_wheel_take_due(&wheel, UINT64_MAX - 1), &timers[0]);
}

Test(wheel, the_latest_deadline_is_centuries_away_and_comes)
{
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    arm(0, NIO_TIME_FAR, UINT64_MAX / 2);
    cr_assert_null(nio_wheel_take_due(&wheel, NIO_TIME_FAR - 1));
    cr_assert_eq(nio_wheel_next_ns(&wheel), NIO_TIME_FAR);
    cr_assert_eq(nio_wheel_take_due(&wheel, NIO_TIME_FAR), &timers[0]);
    cr_assert_eq(nio_wheel_next_ns(&wheel), NIO_TIME_NONE);
}

/* A park must end for the timer that is there, not for one that was, nor at a slot's beginning. */
Test(wheel, the_next_deadline_is_exact_after_the_earliest_was_cancelled)
{
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    uint64_t second = 1000000000;
    arm(0, 100 * second, 1);
    arm(1, 101 * second, 1);
    cr_assert(nio_wheel_cancel(&wheel, &timers[0]));
    cr_assert_eq(nio_wheel_settle(&wheel, 1), 101 * second);
    cr_assert(nio_wheel_check(&wheel));
}

/* Long timers hold the wheel; what is armed later still stands low. */
Test(wheel, progress_follows_the_clock_while_nothing_is_due)
{
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    uint64_t hour = UINT64_C(3600000000000), now_ns = hour;
    arm(0, 1000 * hour, now_ns);
    now_ns += hour / 7;
    cr_assert_null(nio_wheel_take_due(&wheel, now_ns));
    arm(1, now_ns + 2000, now_ns);
    (void)nio_wheel_dump(&wheel, dump, sizeof dump); /* its length matters to nobody */
    cr_assert(strstr(dump, "level 0 "), "%s", dump);
}

Test(wheel, equal_deadlines_come_as_they_were_armed_in_any_number)
{
    enum { MANY = 2000 };
    static struct numio_op ops[MANY];
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    for (unsigned i = 0; i < MANY; i++)
        (void)nio_wheel_arm(&wheel, &ops[i], 7000000, 0); /* who is first does not matter */
    cr_assert(nio_wheel_check(&wheel));
    cr_assert_null(nio_wheel_take_due(&wheel, 6999999));
    for (unsigned i = 0; i < MANY; i++)
        cr_assert_eq(nio_wheel_take_due(&wheel, 7000000), &ops[i], "timer %u", i);
    cr_assert_eq(nio_wheel_count(&wheel), 0);
}

/* --- a slot with many timers ---------------------------------------------------------------- */

enum { CROWD = 5000, MS = 1000000 };

static struct numio_op crowd[CROWD];
static uint64_t crowd_ns[CROWD];

/* All within one slot of level 2, which begins some slots from now. */
static uint64_t arm_crowd(uint64_t now_ns)
{
    const uint64_t slot_ns = UINT64_C(1)
                             << (NIO_WHEEL_TICK_SHIFT + 2 * NIO_WHEEL_DIGIT_BITS); /* 268 ms */
    uint64_t begin_ns = (now_ns / slot_ns + 3) * slot_ns;
    struct nio_rng rng = seeded_rng(0xc40d);
    for (unsigned i = 0; i < CROWD; i++) {
        crowd_ns[i] = begin_ns + 50 * MS + nio_rng_below(&rng, 100 * MS);
        (void)nio_wheel_arm(&wheel, &crowd[i], crowd_ns[i], now_ns); /* nobody sleeps */
    }
    return begin_ns;
}

static bool has_on_level(unsigned level)
{
    return (wheel.levels >> level & 1) != 0;
}

Test(wheel, a_slot_with_many_timers_is_emptied_before_it_is_reached)
{
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    uint64_t now_ns = UINT64_C(1234567890123), begin_ns = arm_crowd(now_ns), back_ns;
    unsigned parks = 0;
    while (has_on_level(2)) {
        back_ns = nio_wheel_settle(&wheel, now_ns);
        cr_assert(nio_wheel_check(&wheel));
        cr_assert(!has_on_level(2) || back_ns < begin_ns, "it is woken in time");
        if (has_on_level(2))
            now_ns = back_ns > now_ns ? back_ns : now_ns + 1000;
        parks++;
    }
    cr_assert_lt(now_ns, begin_ns, "and done before");
    cr_assert_geq(parks, CROWD / 256, "a few at a time");
    cr_assert_eq(nio_wheel_count(&wheel), CROWD);
}

/* An owner that never parks gets to it between its looks. */
Test(wheel, it_is_emptied_between_looks_as_well)
{
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    uint64_t now_ns = UINT64_C(1234567890123), begin_ns = arm_crowd(now_ns);
    for (; now_ns < begin_ns; now_ns += MS / 10)
        cr_assert_null(nio_wheel_take_due(&wheel, now_ns));
    cr_assert_not(has_on_level(2));
    cr_assert(nio_wheel_check(&wheel));
}

Test(wheel, a_crowd_comes_in_order_and_on_time_whatever_has_been_moved_ahead)
{
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    uint64_t now_ns = UINT64_C(1234567890123), begin_ns = arm_crowd(now_ns), last_ns = 0;
    struct nio_rng rng = seeded_rng(0xa4ead);
    struct numio_op *op;
    unsigned taken = 0;
    while (taken < CROWD) {
        if (nio_rng_below(&rng, 2))
            (void)nio_wheel_settle(&wheel, now_ns); /* an owner that parks now and then */
        while ((op = nio_wheel_take_due(&wheel, now_ns))) {
            uint64_t due_ns = crowd_ns[op - crowd];
            cr_assert(due_ns <= now_ns && due_ns > last_ns, "at its time");
            taken++;
        }
        cr_assert(taken % 64 != 0 || nio_wheel_check(&wheel));
        last_ns = now_ns;
        now_ns += now_ns < begin_ns ? nio_rng_below(&rng, 10 * MS) : nio_rng_below(&rng, MS);
    }
    cr_assert_eq(nio_wheel_count(&wheel), 0);
}

Test(wheel, those_armed_while_others_are_moved_ahead_come_behind_them)
{
    enum { FIRST = 3000 };
    const uint64_t now_ns = UINT64_C(1234567890123), due_ns = now_ns + UINT64_C(1000) * MS;
    uint64_t at_ns = now_ns;
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    for (unsigned i = 0; i < FIRST; i++)
        (void)nio_wheel_arm(&wheel, &crowd[i], due_ns, now_ns); /* who is first does not matter */
    for (unsigned i = FIRST; i < CROWD; i++) {
        at_ns += UINT64_C(1000) * MS / (CROWD - FIRST) - 1;
        (void)nio_wheel_settle(&wheel, at_ns); /* moves some */
        (void)nio_wheel_arm(&wheel, &crowd[i], due_ns, at_ns);
    }
    cr_assert(nio_wheel_check(&wheel));
    for (unsigned i = 0; i < CROWD; i++)
        cr_assert_eq(nio_wheel_take_due(&wheel, due_ns), &crowd[i], "timer %u", i);
}

/* Of all lanes, of one, of most; and more are armed meanwhile. */
Test(wheel, those_that_are_left_come_in_order_whoever_was_cancelled)
{
    const uint64_t now_ns = UINT64_C(1234567890123), due_ns = now_ns + UINT64_C(1000) * MS;
    struct nio_rng rng = seeded_rng(0xcace1);
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    for (unsigned i = 0; i < CROWD; i++) {
        (void)nio_wheel_arm(&wheel, &crowd[i], due_ns, now_ns); /* who is first does not matter */
        crowd_ns[i] = due_ns;
        unsigned other = nio_rng_below(&rng, i + 1);
        bool is_taken_back = i < CROWD / 2 ? i % NIO_WHEEL_LANES == 1 : crowd_ns[other] != 0;
        other = i < CROWD / 2 ? i : other;
        if (is_taken_back) {
            cr_assert(nio_wheel_cancel(&wheel, &crowd[other]));
            crowd_ns[other] = 0;
        }
        if (i % 500 == 0)
            cr_assert(nio_wheel_check(&wheel));
    }
    for (uint64_t at_ns = now_ns; at_ns < due_ns; at_ns += MS)
        (void)nio_wheel_settle(&wheel, at_ns); /* moves them down */
    cr_assert(nio_wheel_check(&wheel));
    for (unsigned i = 0; i < CROWD; i++)
        if (crowd_ns[i] != 0)
            cr_assert_eq(nio_wheel_take_due(&wheel, due_ns), &crowd[i], "timer %u", i);
    cr_assert_eq(nio_wheel_count(&wheel), 0);
}

/* Some are moved, the rest is moved or cancelled, and the slot is filled once more. */
Test(wheel, a_slot_that_is_filled_again_has_its_own_order)
{
    const uint64_t due_ns = UINT64_C(1000) * MS;
    const unsigned few = 2 * NIO_WHEEL_LANES + 3;
    for (unsigned first = 1; first <= few; first++) {
        cr_assert_eq(nio_wheel_init(&wheel), 0);
        for (unsigned i = 0; i < first; i++)
            (void)nio_wheel_arm(&wheel, &crowd[i], due_ns, 0); /* who is first does not matter */
        if (first % 2)
            (void)nio_wheel_settle(&wheel, due_ns - 300 * MS); /* moves all of them */
        for (unsigned i = 0; i < first && first % 2 == 0; i++)
            cr_assert(nio_wheel_cancel(&wheel, &crowd[i]));
        unsigned begin = first % 2 ? 0 : first;
        for (unsigned i = first; i < first + few; i++)
            (void)nio_wheel_arm(&wheel, &crowd[i], due_ns, 0); /* as above */
        cr_assert(nio_wheel_check(&wheel));
        for (unsigned i = begin; i < first + few; i++)
            cr_assert_eq(nio_wheel_take_due(&wheel, due_ns), &crowd[i], "timer %u", i);
        nio_wheel_fini(&wheel);
    }
}

/* The numbers of a slot that is never empty begin at 0 again after 2^32 timers. */
Test(wheel, numbers_that_begin_anew_change_no_order)
{
    enum { FEW = 100 };
    const uint64_t due_ns = UINT64_C(1000) * MS;
    const uint32_t late = UINT32_MAX - UINT32_MAX % NIO_WHEEL_LANES - NIO_WHEEL_LANES;
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    (void)nio_wheel_arm(&wheel, &crowd[0], due_ns, 0); /* who is first does not matter */
    uint32_t list = (uint32_t)crowd[0]._sqe[NIO_TIMER_WORD_LIST] - 1;
    crowd[0]._sqe[NIO_TIMER_WORD_LIST] |= (uint64_t)late << 32; /* the lane is the same */
    wheel.lists[list].tally += (uint64_t)late << 32;
    for (unsigned i = 1; i < FEW; i++)
        (void)nio_wheel_arm(&wheel, &crowd[i], due_ns, 0); /* as above */
    cr_assert_lt(nio_timer_number(&crowd[FEW - 1]), FEW);
    cr_assert(nio_wheel_check(&wheel));
    for (unsigned i = 1; i < FEW; i += 5)
        cr_assert(nio_wheel_cancel(&wheel, &crowd[i]));
    for (unsigned i = 0; i < FEW; i++)
        if (i % 5 != 1)
            cr_assert_eq(nio_wheel_take_due(&wheel, due_ns), &crowd[i], "timer %u", i);
}

/* What is armed into a slot that can be emptied already is moved at the next parks, and then the
 * owner may sleep. */
Test(wheel, a_crowd_armed_late_does_not_keep_its_owner_awake)
{
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    uint64_t now_ns = UINT64_C(1) << 60, due_ns = now_ns + UINT64_C(300) * MS, back_ns;
    unsigned parks = 0;
    for (unsigned i = 0; i < CROWD; i++)
        (void)nio_wheel_arm(&wheel, &crowd[i], due_ns + i, now_ns); /* nobody sleeps */
    while ((back_ns = nio_wheel_settle(&wheel, now_ns)) <= now_ns)
        cr_assert_lt(++parks, 2 * CROWD / 256);
    cr_assert_not(has_on_level(2));
    cr_assert_leq(back_ns, due_ns);
}

Test(wheel, a_few_far_timers_are_not_worth_a_wake)
{
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    uint64_t now_ns = UINT64_C(1234567890123), due_ns = now_ns + UINT64_C(5000) * MS;
    for (unsigned i = 0; i < 10; i++)
        arm(i, due_ns + i, now_ns);
    cr_assert_eq(nio_wheel_settle(&wheel, now_ns), due_ns);
}

/* The check finds what it is for. */
Test(wheel, the_check_sees_damage)
{
    cr_assert_eq(nio_wheel_init(&wheel), 0);
    struct numio_op *behind = &timers[NIO_WHEEL_LANES]; /* the second of its lane */
    for (unsigned i = 0; i <= NIO_WHEEL_LANES; i++)
        arm(i, 1000000 + i, 0);
    cr_assert(nio_wheel_check(&wheel));
    timers[0]._sqe[NIO_TIMER_WORD_DEADLINE] += UINT64_C(1) << 40;
    cr_assert_not(nio_wheel_check(&wheel), "a timer in a wrong slot");
    timers[0]._sqe[NIO_TIMER_WORD_DEADLINE] -= UINT64_C(1) << 40;
    wheel.occupied[3][0] ^= 2;
    cr_assert_not(nio_wheel_check(&wheel), "a bit without a timer");
    wheel.occupied[3][0] ^= 2;
    wheel.groups[1] ^= 4;
    cr_assert_not(nio_wheel_check(&wheel), "a group without a slot");
    wheel.groups[1] ^= 4;
    behind->_sqe[NIO_TIMER_WORD_PREV] = 0;
    cr_assert_not(nio_wheel_check(&wheel), "a broken link");
    behind->_sqe[NIO_TIMER_WORD_PREV] = (uintptr_t)&timers[0];
    behind->_sqe[NIO_TIMER_WORD_LIST] += UINT64_C(1) << 32;
    cr_assert_not(nio_wheel_check(&wheel), "a number of another lane");
    behind->_sqe[NIO_TIMER_WORD_LIST] -= UINT64_C(1) << 32;
    cr_assert(nio_wheel_check(&wheel));
}
