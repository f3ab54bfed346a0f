/* SPDX-License-Identifier: MIT */
#include "runtime/sched/policy.h"

#include <criterion/criterion.h>

#include "tests/seeded.h"

TestSuite(policy, .timeout = 60);

Test(policy, the_gate_between_nodes_opens_with_time)
{
    cr_assert_eq(nio_policy_far_depth(0), UINT32_MAX);
    cr_assert_eq(nio_policy_far_depth(NIO_FAR_IDLE_NS - 1), UINT32_MAX);
    cr_assert_eq(nio_policy_far_depth(NIO_FAR_IDLE_NS), NIO_FAR_DEPTH);
    cr_assert_eq(nio_policy_far_depth(NIO_FAR_LONG_NS - 1), NIO_FAR_DEPTH);
    cr_assert_eq(nio_policy_far_depth(NIO_FAR_LONG_NS), 1);
    cr_assert_eq(nio_policy_far_depth(UINT64_MAX), 1);
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

Test(policy, a_wake_is_sent_only_if_nobody_searches_and_far_only_if_home_is_busy_and_deep)
{
    struct nio_rng rng = seeded_rng(1);
    for (unsigned i = 0; i < 100000; i++) {
        unsigned searching = nio_rng_below(&rng, 3), sleeping = nio_rng_below(&rng, 3);
        uint32_t depth = nio_rng_below(&rng, 2 * NIO_FAR_DEPTH);
        bool may_leave = nio_rng_below(&rng, 2);
        enum nio_policy_wake wake = nio_policy_wake(searching, sleeping, depth, may_leave);
        if (searching > 0)
            cr_assert_eq(wake, NIO_WAKE_NOBODY);
        else if (sleeping > 0)
            cr_assert_eq(wake, NIO_WAKE_HOME);
        else
            cr_assert_eq(wake == NIO_WAKE_FAR, may_leave && depth >= NIO_FAR_DEPTH);
    }
}
