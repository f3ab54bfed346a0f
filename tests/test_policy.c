/* SPDX-License-Identifier: MIT */
#include "runtime/sched/policy.h"

#include <criterion/criterion.h>

#include "tests/seeded.h"

TestSuite(policy, .timeout = 60);

Test(policy, the_gate_between_nodes_opens_with_time_and_depth)
{
    cr_assert_not(nio_policy_may_go_far(0));
    cr_assert_not(nio_policy_may_go_far(NIO_FAR_IDLE_NS - 1));
    cr_assert(nio_policy_may_go_far(NIO_FAR_IDLE_NS));
    cr_assert(nio_policy_may_go_far(UINT64_MAX));
    cr_assert_not(nio_policy_may_leave(NIO_FAR_DEPTH - 1));
    cr_assert(nio_policy_may_leave(NIO_FAR_DEPTH));
}

/* The average after many pauses of the same length. */
static uint64_t settled(uint64_t from_ns, uint64_t pause_ns, bool has_slept, uint64_t spin_ns)
{
    uint64_t average_ns = from_ns;
    for (int i = 0; i < 100; i++)
        average_ns = nio_policy_idle_average(average_ns, pause_ns, has_slept, spin_ns);
    return average_ns;
}

Test(policy, who_sleeps_begins_to_spin_when_work_comes_within_the_limit)
{
    const uint64_t spin_ns = 50000, arrival_ns = 40000;
    /* Work comes after 40 us; who sleeps runs again after 60. */
    cr_assert_leq(settled(spin_ns * 8, arrival_ns + NIO_WAKE_NS, true, spin_ns), spin_ns);
    cr_assert_leq(settled(0, arrival_ns, false, spin_ns), spin_ns);
    /* Work comes later than that: nobody goes on spinning. */
    cr_assert_gt(settled(0, 2 * spin_ns, false, spin_ns), spin_ns);
    cr_assert_gt(settled(0, 2 * spin_ns + NIO_WAKE_NS, true, spin_ns), spin_ns);
    cr_assert_eq(settled(0, NIO_WAKE_NS / 2, true, spin_ns), 0);
}

Test(policy, one_long_pause_does_not_outweigh_many_short_ones)
{
    const uint64_t spin_ns = 50000;
    cr_assert_leq(nio_policy_idle_average(0, UINT64_MAX, false, spin_ns), spin_ns);
    cr_assert_leq(nio_policy_idle_average(1000, UINT64_MAX / 2, true, spin_ns), spin_ns + 1000);
    cr_assert_leq(settled(8 * spin_ns, UINT64_MAX, false, spin_ns), 8 * spin_ns);
}

Test(policy, a_worker_is_woken_so_early_that_three_wakes_in_four_come_after_the_deadline)
{
    const uint64_t spin_ns = 50000;
    struct nio_rng rng = seeded_rng(0xea717);
    uint64_t early_ns = 0;
    unsigned before = 0, steps = 20000;
    for (unsigned i = 0; i < steps; i++) {
        uint64_t late_ns = 20000 + nio_rng_below(&rng, 20000);
        before += late_ns < early_ns;
        early_ns = nio_policy_early(early_ns, late_ns, spin_ns);
    }
    cr_assert(early_ns > 20000 && early_ns < 32000, "%llu", (unsigned long long)early_ns);
    cr_assert(before > steps / 5 && before < steps * 3 / 10, "%u of %u", before, steps);
    /* Never more than it may spin, and not at all where wakes are at once. */
    for (unsigned i = 0; i < 1000; i++)
        early_ns = nio_policy_early(early_ns, UINT64_MAX, spin_ns);
    cr_assert_eq(early_ns, spin_ns);
    for (unsigned i = 0; i < 1000; i++)
        early_ns = nio_policy_early(early_ns, 0, spin_ns);
    cr_assert_eq(early_ns, 0);
}

Test(policy, half_is_taken_near_and_a_few_or_a_quarter_far)
{
    for (uint32_t depth = 0; depth < 1000; depth++) {
        cr_assert_eq(nio_policy_share(depth, true), (depth + 1) / 2);
        uint32_t far = nio_policy_share(depth, false), quarter = depth / 4;
        cr_assert(far <= (quarter > NIO_FAR_SHARE ? quarter : NIO_FAR_SHARE) &&
                  far <= (depth + 1) / 2);
        cr_assert_eq(far > 0, depth > 0, "a thief that may take gets something");
    }
}

Test(policy, a_wake_is_sent_only_if_nobody_searches_and_far_only_if_home_is_busy)
{
    for (unsigned searching = 0; searching < 4; searching++)
        for (unsigned sleeping = 0; sleeping < 4; sleeping++) {
            enum nio_policy_wake wake = nio_policy_wake(searching, sleeping);
            cr_assert_eq(wake == NIO_WAKE_NOBODY, searching > 0);
            cr_assert_eq(wake == NIO_WAKE_HOME, searching == 0 && sleeping > 0);
            cr_assert_eq(wake == NIO_WAKE_FAR, searching == 0 && sleeping == 0);
        }
}

Test(policy, work_may_leave_a_deep_queue_only)
{
    for (uint32_t depth = 0; depth < 1000; depth++)
        cr_assert_eq(nio_policy_may_leave(depth), depth >= NIO_FAR_DEPTH);
}
