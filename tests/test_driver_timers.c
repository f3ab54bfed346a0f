/* SPDX-License-Identifier: MIT */
/* The heap of timeouts against a naive model: an array that is searched. */
#include <criterion/criterion.h>

#include "runtime/driver/timers.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/rng.h"

enum { OPS = 200, STEPS = 20000 };

static struct numio_op ops[OPS];
static uint64_t deadlines[OPS]; /* 0: not in the heap */
static struct nio_timers timers;

static uint64_t test_seed(void)
{
    const char *text = getenv("NUMIO_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 0x5eed;
    printf("NUMIO_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static uint64_t earliest(void)
{
    uint64_t best = NIO_TIMERS_NONE;
    for (int i = 0; i < OPS; i++)
        if (deadlines[i] && deadlines[i] < best)
            best = deadlines[i];
    return best;
}

static void add(unsigned i, uint64_t now_ns, uint64_t delay_ns)
{
    numio_op_timeout(&ops[i], delay_ns);
    nio_timers_add(&timers, &ops[i], now_ns);
    deadlines[i] = now_ns + delay_ns;
}

static void take_all_due(uint64_t now_ns)
{
    uint64_t last_ns = 0;
    struct numio_op *op;
    while ((op = nio_timers_take_due(&timers, now_ns))) {
        unsigned i = (unsigned)(op - ops);
        cr_assert(deadlines[i] && deadlines[i] <= now_ns, "op %u is not due", i);
        cr_assert_geq(deadlines[i], last_ns, "deadlines come in order");
        last_ns = deadlines[i];
        deadlines[i] = 0;
    }
    cr_assert(earliest() > now_ns, "everything due was taken");
}

Test(driver_timers, agrees_with_a_model_over_random_steps)
{
    uint64_t seed = test_seed();
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    nio_timers_init(&timers);
    uint64_t now_ns = 1000;
    for (int step = 0; step < STEPS; step++) {
        unsigned i = nio_rng_below(&rng, OPS);
        unsigned what = nio_rng_below(&rng, 8);
        if (what == 0) {
            now_ns += nio_rng_below(&rng, 2000);
            take_all_due(now_ns);
        } else if (deadlines[i] && what < 4) {
            cr_assert(nio_timers_remove(&timers, &ops[i]));
            cr_assert_not(nio_timers_remove(&timers, &ops[i]), "it is gone already");
            deadlines[i] = 0;
        } else if (!deadlines[i]) {
            add(i, now_ns, 1 + nio_rng_below(&rng, 5000));
        }
        cr_assert_eq(nio_timers_next_ns(&timers), earliest());
        if (step % 16 == 0)
            cr_assert(nio_timers_check(&timers), "step %d", step);
    }
    take_all_due(UINT64_MAX - 1);
    cr_assert_eq(timers.count, 0);
    cr_assert(nio_timers_check(&timers));
}

Test(driver_timers, a_delay_beyond_the_clock_is_far_away_and_not_now)
{
    nio_timers_init(&timers);
    numio_op_timeout(&ops[0], UINT64_MAX);
    nio_timers_add(&timers, &ops[0], UINT64_MAX / 2 + 1);
    cr_assert_null(nio_timers_take_due(&timers, UINT64_MAX - 2));
    cr_assert_lt(nio_timers_next_ns(&timers), NIO_TIMERS_NONE);
    cr_assert(nio_timers_remove(&timers, &ops[0]));
    cr_assert_eq(nio_timers_next_ns(&timers), NIO_TIMERS_NONE);
}

Test(driver_timers, equal_deadlines_all_come)
{
    nio_timers_init(&timers);
    for (unsigned i = 0; i < OPS; i++)
        add(i, 0, 7);
    cr_assert(nio_timers_check(&timers));
    cr_assert_null(nio_timers_take_due(&timers, 6));
    unsigned count = 0;
    while (nio_timers_take_due(&timers, 7))
        count++;
    cr_assert_eq(count, OPS);
}
