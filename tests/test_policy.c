/* SPDX-License-Identifier: MIT */
#include "runtime/sched/policy.h"

#include <criterion/criterion.h>

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
