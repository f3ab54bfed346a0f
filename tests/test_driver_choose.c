/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include "runtime/driver/driver.h"

#include <errno.h>
#include <string.h>

static const struct nio_driver_probe everything = {
    .has_uring = true, .has_sqpoll = true, .has_defer = true, .has_ext_arg = true
};
static const struct nio_driver_probe nothing = { .uring_error = -EPERM,
                                                 .reason = "io_uring is refused: a test says so" };

static char reason[200];

static int choose(enum numio_driver wish, const struct nio_driver_probe *probe, unsigned cpus,
                  double quota, bool shares)
{
    memset(reason, 'x', sizeof reason);
    return nio_driver_choose(wish, probe, cpus, quota, shares, reason, sizeof reason);
}

Test(driver_choose, auto_takes_sqpoll_where_a_core_is_free)
{
    cr_assert_eq(choose(NUMIO_DRIVER_AUTO, &everything, 8, 0, false), NUMIO_DRIVER_SQPOLL);
    cr_assert_str_empty(reason);
    cr_assert_eq(choose(NUMIO_DRIVER_AUTO, &everything, 8, 2.0, false), NUMIO_DRIVER_SQPOLL);
}

Test(driver_choose, auto_takes_defer_on_one_cpu_and_says_why)
{
    cr_assert_eq(choose(NUMIO_DRIVER_AUTO, &everything, 1, 0, true), NUMIO_DRIVER_DEFER);
    cr_assert(strstr(reason, "one CPU"));
}

Test(driver_choose, auto_takes_defer_under_a_quota_below_two)
{
    cr_assert_eq(choose(NUMIO_DRIVER_AUTO, &everything, 8, 0.5, false), NUMIO_DRIVER_DEFER);
    cr_assert(strstr(reason, "quota"));
    cr_assert_eq(choose(NUMIO_DRIVER_AUTO, &everything, 8, 1.99, false), NUMIO_DRIVER_DEFER);
}

Test(driver_choose, auto_takes_epoll_without_io_uring_and_passes_the_reason_on)
{
    cr_assert_eq(choose(NUMIO_DRIVER_AUTO, &nothing, 8, 0, false), NUMIO_DRIVER_EPOLL);
    cr_assert(strstr(reason, "a test says so"));
    cr_assert_eq(choose(NUMIO_DRIVER_AUTO, &nothing, 1, 0, true), NUMIO_DRIVER_EPOLL);
    cr_assert(strstr(reason, "a test says so"));
}

Test(driver_choose, a_wish_is_granted_anywhere)
{
    for (int shares = 0; shares < 2; shares++) {
        cr_assert_eq(choose(NUMIO_DRIVER_SQPOLL, &everything, 1, 0.5, shares), NUMIO_DRIVER_SQPOLL);
        cr_assert_str_empty(reason);
        cr_assert_eq(choose(NUMIO_DRIVER_DEFER, &everything, 8, 0, shares), NUMIO_DRIVER_DEFER);
        cr_assert_str_empty(reason);
        cr_assert_eq(choose(NUMIO_DRIVER_EPOLL, &everything, 8, 0, shares), NUMIO_DRIVER_EPOLL);
        cr_assert_str_empty(reason);
    }
}

Test(driver_choose, a_wish_that_cannot_be_had_is_demoted_with_a_sentence)
{
    struct nio_driver_probe probe = everything;
    probe.has_sqpoll = false;
    cr_assert_eq(choose(NUMIO_DRIVER_SQPOLL, &probe, 8, 0, false), NUMIO_DRIVER_DEFER);
    cr_assert(strlen(reason) > 20);
    probe.has_defer = false;
    cr_assert_eq(choose(NUMIO_DRIVER_SQPOLL, &probe, 8, 0, false), NUMIO_DRIVER_EPOLL);
    cr_assert(strlen(reason) > 20);
    probe.has_sqpoll = true;
    cr_assert_eq(choose(NUMIO_DRIVER_DEFER, &probe, 8, 0, false), NUMIO_DRIVER_SQPOLL);
    cr_assert(strlen(reason) > 20);
    cr_assert_eq(choose(NUMIO_DRIVER_DEFER, &probe, 1, 0, false), NUMIO_DRIVER_EPOLL);
    cr_assert(strlen(reason) > 20);
    cr_assert_eq(choose(NUMIO_DRIVER_DEFER, &nothing, 8, 0, false), NUMIO_DRIVER_EPOLL);
    cr_assert(strstr(reason, "a test says so"));
}

Test(driver_choose, an_unknown_wish_is_refused)
{
    cr_assert_eq(choose((enum numio_driver)77, &everything, 8, 0, false), -EOPNOTSUPP);
}

Test(driver_choose, a_small_buffer_is_respected)
{
    char small[8] = "abcdefg";
    cr_assert_eq(nio_driver_choose(NUMIO_DRIVER_AUTO, &everything, 1, 0, true, small, 4),
                 NUMIO_DRIVER_DEFER);
    cr_assert_eq(small[3], '\0');
    cr_assert_eq(small[4], 'e');
    cr_assert_eq(nio_driver_choose(NUMIO_DRIVER_AUTO, &everything, 1, 0, true, small, 0),
                 NUMIO_DRIVER_DEFER);
    cr_assert_eq(small[4], 'e');
}

Test(driver_choose, iopoll_needs_a_polled_ring_and_a_disk_that_polls)
{
    struct nio_driver_probe probe = everything;
    cr_assert_eq(choose(NUMIO_DRIVER_IOPOLL, &probe, 8, 0, false), NUMIO_DRIVER_DEFER);
    cr_assert(strstr(reason, "refuses a polled ring"), "%s", reason);
    probe.has_iopoll = true;
    cr_assert_eq(choose(NUMIO_DRIVER_IOPOLL, &probe, 8, 0, false), NUMIO_DRIVER_DEFER);
    cr_assert(strstr(reason, "nvme.poll_queues"), "%s", reason);
    probe.polls_disk = true;
    cr_assert_eq(choose(NUMIO_DRIVER_IOPOLL, &probe, 1, 0.5, true), NUMIO_DRIVER_IOPOLL);
    cr_assert_str_empty(reason);
    cr_assert_neq(choose(NUMIO_DRIVER_AUTO, &probe, 8, 0, false), NUMIO_DRIVER_IOPOLL);
    probe.has_defer = false;
    cr_assert_eq(choose(NUMIO_DRIVER_IOPOLL, &probe, 8, 0, false), NUMIO_DRIVER_SQPOLL);
    cr_assert(strstr(reason, "DEFER_TASKRUN"), "%s", reason);
    cr_assert_eq(choose(NUMIO_DRIVER_IOPOLL, &nothing, 8, 0, false), NUMIO_DRIVER_EPOLL);
    cr_assert(strstr(reason, "a test says so"));
}
