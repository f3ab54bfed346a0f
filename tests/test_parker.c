/* SPDX-License-Identifier: MIT */
#include "runtime/sched/parker.h"

#include <criterion/criterion.h>
#include <sched.h>

#include "tests/driver_harness.h"

enum { SOON_NS = 20000000, LATE_NS = 2000000000 };

TestSuite(parker, .init = harness_init, .timeout = 60);

struct waker {
    struct nio_parker *parker;
    struct nio_driver *driver;
    enum nio_parker_state wait_for;
    bool cost_a_call;
    pthread_t thread;
};

static uint32_t state_of(const struct nio_parker *parker)
{
    /* relaxed: looked at until it has the value */
    return atomic_load_explicit(&parker->state, memory_order_relaxed);
}

static void *wake_once_asleep(void *arg)
{
    struct waker *waker = arg;
    /* The owner may end a park by itself between the look and the wake; then it parks again. */
    while (!waker->cost_a_call) {
        while (state_of(waker->parker) != waker->wait_for)
            (void)sched_yield(); /* until the owner has announced its sleep */
        waker->cost_a_call = nio_parker_unpark(waker->parker, waker->driver);
    }
    return NULL;
}

static void start_waker(struct waker *waker, struct nio_parker *parker, struct nio_driver *driver,
                        enum nio_parker_state wait_for)
{
    *waker = (struct waker){ .parker = parker, .driver = driver, .wait_for = wait_for };
    cr_assert_eq(pthread_create(&waker->thread, NULL, wake_once_asleep, waker), 0);
}

/* A park may end early without a wake; then the waker waits for the next. */
static void park_until_woken(struct nio_parker *parker, struct nio_driver *driver,
                             struct waker *waker)
{
    nio_parker_park(parker, driver, -1);
    while (pthread_tryjoin_np(waker->thread, NULL) != 0)
        nio_parker_park(parker, driver, SOON_NS);
}

static uint64_t park_ns(struct nio_parker *parker, struct nio_driver *driver, int64_t timeout_ns)
{
    uint64_t start_ns = nio_now_ns();
    nio_parker_park(parker, driver, timeout_ns);
    return nio_now_ns() - start_ns;
}

static struct nio_driver *make_driver(enum numio_driver profile)
{
    struct nio_driver_options options = harness_options(profile);
    struct nio_driver *driver = NULL;
    int rc = nio_driver_create(&options, &driver);
    if (rc < 0)
        cr_log_info("%s: %s", harness_names[profile], numio_strerror_detail());
    return driver;
}

Test(parker, a_wake_before_the_park_is_kept_and_costs_no_call)
{
    struct nio_driver *driver = make_driver(NUMIO_DRIVER_EPOLL);
    struct nio_parker parker;
    nio_parker_init(&parker);
    cr_assert_not(nio_parker_unpark(&parker, driver));
    cr_assert_not(nio_parker_unpark(&parker, driver), "two wakes are one");
    cr_assert_lt(park_ns(&parker, driver, LATE_NS), LATE_NS);
    cr_assert_eq(state_of(&parker), NIO_PARKER_EMPTY);
    cr_assert_geq(park_ns(&parker, driver, SOON_NS), SOON_NS, "it was used up");
    nio_driver_destroy(driver);
}

Test(parker, a_spinning_owner_consumes_a_wake_once)
{
    struct nio_driver *driver = make_driver(NUMIO_DRIVER_EPOLL);
    struct nio_parker parker;
    nio_parker_init(&parker);
    cr_assert_not(nio_parker_consume(&parker));
    cr_assert_not(nio_parker_unpark(&parker, driver));
    cr_assert(nio_parker_consume(&parker));
    cr_assert_not(nio_parker_consume(&parker));
    cr_assert_geq(park_ns(&parker, driver, SOON_NS), SOON_NS);
    nio_driver_destroy(driver);
}

Test(parker, an_owner_with_nothing_in_flight_sleeps_on_the_word_and_is_woken)
{
    struct nio_driver *driver = make_driver(NUMIO_DRIVER_EPOLL);
    struct nio_parker parker;
    struct waker waker;
    nio_parker_init(&parker);
    start_waker(&waker, &parker, driver, NIO_PARKER_FUTEX);
    park_until_woken(&parker, driver, &waker);
    cr_assert(waker.cost_a_call);
    cr_assert_eq(state_of(&parker), NIO_PARKER_EMPTY);
    nio_driver_destroy(driver);
}

Test(parker, an_owner_with_an_operation_in_flight_is_woken_in_its_ring_by_every_profile)
{
    unsigned tried = 0;
    for (unsigned i = 0; i < NIO_ARRAY_LEN(harness_profiles); i++) {
        struct nio_driver *driver = make_driver(harness_profiles[i]);
        if (!driver)
            continue;
        struct nio_parker parker;
        struct waker waker;
        struct numio_op op = { 0 };
        nio_parker_init(&parker);
        numio_op_timeout(&op, 3600u * UINT64_C(1000000000));
        harness_submit(driver, &op);
        cr_assert_gt(nio_driver_in_flight(driver), 0);
        start_waker(&waker, &parker, driver, NIO_PARKER_DRIVER);
        park_until_woken(&parker, driver, &waker);
        cr_assert(waker.cost_a_call, "%s", harness_names[harness_profiles[i]]);
        nio_driver_cancel(driver, &op);
        cr_assert(harness_wait(driver, &op, 5000));
        nio_driver_destroy(driver);
        tried++;
    }
    cr_assert_gt(tried, 0);
}

Test(parker, a_completion_ends_the_park_and_the_timeout_does)
{
    struct nio_driver *driver = make_driver(NUMIO_DRIVER_EPOLL);
    struct nio_parker parker;
    struct numio_op op = { 0 };
    nio_parker_init(&parker);
    numio_op_timeout(&op, SOON_NS);
    harness_submit(driver, &op);
    uint64_t end_ns = nio_now_ns() + 10u * UINT64_C(1000000000);
    while (!nio_driver_has_completions(driver) && nio_now_ns() < end_ns)
        nio_parker_park(&parker, driver, -1);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, -ETIME);
    cr_assert_geq(park_ns(&parker, driver, SOON_NS), SOON_NS);
    nio_driver_destroy(driver);
}
