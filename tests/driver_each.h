/* SPDX-License-Identifier: MIT */
/* tests/driver_each.h: Criterion tests that run once with each profile of the driver.
 *
 * EACH_PROFILE(suite, name, .timeout = s) { ... } is a test body that gets `driver`, a fresh one;
 * afterwards nothing may be in flight.  Where io_uring is refused the two ring profiles are
 * skipped, or fail if NUMIO_REQUIRE names uring.
 */
#ifndef TESTS_DRIVER_EACH_H
#define TESTS_DRIVER_EACH_H

#include <criterion/criterion.h>

#include "tests/driver_harness.h"

static inline bool each_has_uring(void)
{
    struct nio_driver_probe probe;
    nio_driver_probe(NUMIO_DRIVER_AUTO, &probe);
    const char *required = getenv("NUMIO_REQUIRE");
    if (!probe.has_uring && required && strstr(required, "uring"))
        cr_assert_fail("NUMIO_REQUIRE names uring, but: %s", probe.reason);
    return probe.has_uring;
}

/* For tests of the ring profiles only. */
static inline void each_require_uring(void)
{
    harness_init();
    if (!each_has_uring())
        cr_skip_test("no io_uring here");
}

static inline struct nio_driver *each_create(const struct nio_driver_options *options)
{
    struct nio_driver *driver = NULL;
    int error = nio_driver_create(options, &driver);
    cr_assert_eq(error, 0, "create: %s (%s)", strerrorname_np(-error), numio_strerror_detail());
    return driver;
}

static inline void each_run(enum numio_driver profile, void (*body)(struct nio_driver *driver))
{
    harness_init();
    if (profile != NUMIO_DRIVER_EPOLL)
        each_require_uring();
    struct nio_driver_options options = harness_options(profile);
    struct nio_driver *driver = each_create(&options);
    cr_assert_eq(nio_driver_profile(driver), profile);
    body(driver);
    cr_assert(harness_drain(driver, 5000), "%u operations never ended",
              nio_driver_in_flight(driver));
    cr_assert_eq(nio_state_refs(nio_state_load(&harness_task)), 1,
                 "each operation is completed exactly once");
    nio_driver_destroy(driver);
}

#define EACH_PROFILE(suite, name, ...)                                                             \
    static void name(struct nio_driver *driver);                                                   \
    Test(suite, name##_sqpoll, __VA_ARGS__)                                                        \
    {                                                                                              \
        each_run(NUMIO_DRIVER_SQPOLL, name);                                                       \
    }                                                                                              \
    Test(suite, name##_defer, __VA_ARGS__)                                                         \
    {                                                                                              \
        each_run(NUMIO_DRIVER_DEFER, name);                                                        \
    }                                                                                              \
    Test(suite, name##_iopoll, __VA_ARGS__)                                                        \
    {                                                                                              \
        each_run(NUMIO_DRIVER_IOPOLL, name);                                                       \
    }                                                                                              \
    Test(suite, name##_epoll, __VA_ARGS__)                                                         \
    {                                                                                              \
        each_run(NUMIO_DRIVER_EPOLL, name);                                                        \
    }                                                                                              \
    static void name(struct nio_driver *driver)

#endif
