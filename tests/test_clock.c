/* SPDX-License-Identifier: MIT */
/* The clock: in step with CLOCK_MONOTONIC, never back on one thread, hardly on different ones,
 * given up for the kernel's when it is wrong or not wanted. */
#include "tests/runtime_fixture.h"

#include <pthread.h>
#include <time.h>

enum { THREADS = 4, READS = 200000, ROUNDS = 2000 };
static const uint64_t ms = 1000000;

/* How far the clock is from the kernel's, as seen between two reads of that. */
static uint64_t distance_ns(void)
{
    uint64_t best = UINT64_MAX;
    for (unsigned i = 0; i < 100; i++) {
        uint64_t before_ns = nio_clock_kernel_ns(), now_ns = nio_now_ns();
        uint64_t after_ns = nio_clock_kernel_ns();
        uint64_t off_ns = now_ns < before_ns  ? before_ns - now_ns
                          : now_ns > after_ns ? now_ns - after_ns
                                              : 0;
        best = off_ns < best ? off_ns : best;
    }
    return best;
}

static bool is_counter(void)
{
    return nio_clock_reason() == NULL;
}

static void start_clock(void)
{
    nio_clock_begin();
    nio_clock_calibrate(false);
    if (!is_counter())
        cr_skip_test("%s", nio_clock_reason());
}

Test(clock, before_a_runtime_it_is_the_kernels)
{
    uint64_t before_ns = nio_clock_kernel_ns(), now_ns = nio_now_ns();
    cr_assert(before_ns <= now_ns && now_ns <= nio_clock_kernel_ns());
}

/* Measured over the first comparisons, when the slope is known least. */
Test(clock, it_keeps_in_step_with_the_kernels, .timeout = 30)
{
    start_clock();
    uint64_t end_ns = nio_clock_kernel_ns() + 4000 * ms, worst_ns = 0;
    while (nio_clock_kernel_ns() < end_ns) {
        uint64_t off_ns = distance_ns();
        worst_ns = off_ns > worst_ns ? off_ns : worst_ns;
        nio_clock_keep(nio_now_ns());
        (void)usleep(2000); /* some time passes: that is what is measured */
    }
    printf("off by %llu ns at most\n", (unsigned long long)worst_ns);
    cr_assert_lt(worst_ns, 20000, "off by %llu ns", (unsigned long long)worst_ns);
    cr_assert(is_counter(), "%s", nio_clock_reason());
}

/* Each thread reads what the one before has written and then the clock. */
static _Atomic uint64_t latest_ns;
static _Atomic uint32_t went_back;
static _Atomic uint64_t back_ns;

static void *read_often(void *arg)
{
    uint64_t own_ns = 0;
    for (unsigned i = 0; i < READS; i++) {
        /* [XC1] acquire: the clock is read after it.  Pairs with [XC2]. */
        uint64_t others_ns = atomic_load_explicit(&latest_ns, memory_order_acquire);
        uint64_t now_ns = nio_now_ns();
        if (now_ns < own_ns)
            fixture_set(&went_back, 1);
        if (now_ns + 1000 < others_ns) {
            fixture_set(&went_back, 2);
            /* relaxed: a figure for the message */
            atomic_store_explicit(&back_ns, others_ns - now_ns, memory_order_relaxed);
        }
        own_ns = now_ns;
        /* [XC2] release: pairs with [XC1] */
        atomic_store_explicit(&latest_ns, now_ns, memory_order_release);
        if (i % 1000 == 0)
            nio_clock_sync(); /* new lines all the time */
    }
    return arg;
}

Test(clock, it_never_goes_back_on_a_thread_and_less_than_a_microsecond_between_threads,
     .timeout = 60)
{
    pthread_t threads[THREADS];
    start_clock();
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, read_often, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    cr_assert_eq(fixture_get(&went_back), 0, "kind %u, by %llu ns", fixture_get(&went_back),
                 /* relaxed: the threads have ended */
                 (unsigned long long)atomic_load_explicit(&back_ns, memory_order_relaxed));
    cr_assert(is_counter(), "%s", nio_clock_reason());
}

/* Ahead by less than what is given up for, it loses that without going back. */
Test(clock, what_it_is_ahead_it_loses_and_what_it_is_behind_it_jumps, .timeout = 30)
{
    start_clock();
    for (int off_ns = -50000; off_ns <= 50000; off_ns += 100000) {
        /* relaxed: no other thread reads the clock here */
        (void)atomic_fetch_add_explicit(&nio_clock.base_ns, (uint64_t)(int64_t)off_ns,
                                        memory_order_relaxed);
        uint64_t last_ns = nio_now_ns();
        for (unsigned i = 0; i < ROUNDS; i++) {
            if (i == 0)
                nio_clock_sync();
            uint64_t now_ns = nio_now_ns();
            nio_clock_keep(now_ns);
            cr_assert_geq(now_ns, last_ns);
            last_ns = now_ns;
            (void)usleep(500); /* it needs time to lose time */
        }
        cr_assert_lt(distance_ns(), 10000);
        cr_assert(is_counter(), "%s", nio_clock_reason());
    }
}

static void expect_given_up(void)
{
    uint64_t last_ns = nio_now_ns();
    nio_clock_sync();
    cr_assert_not(is_counter());
    cr_assert(strstr(nio_clock_reason(), "off by"), "%s", nio_clock_reason());
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t now_ns = nio_now_ns();
        cr_assert_geq(now_ns, last_ns, "it goes back");
        last_ns = now_ns;
    }
    nio_clock_begin(); /* not even by another runtime */
    nio_clock_calibrate(false);
    cr_assert_not(is_counter());
}

Test(clock, a_jump_ahead_is_noticed_and_the_counter_given_up, .timeout = 30)
{
    start_clock();
    /* relaxed: as above, here and below */
    (void)atomic_fetch_add_explicit(&nio_clock.base_ns, 500 * ms, memory_order_relaxed);
    expect_given_up();
}

Test(clock, a_jump_back_is_noticed_and_the_counter_given_up, .timeout = 30)
{
    start_clock();
    /* relaxed: as above */
    (void)atomic_fetch_sub_explicit(&nio_clock.base_ns, 500 * ms, memory_order_relaxed);
    expect_given_up();
    cr_assert_lt(distance_ns(), 1000);
}

Test(clock, a_wrong_speed_is_noticed_and_the_counter_given_up, .timeout = 30)
{
    start_clock();
    /* relaxed: as above */
    uint64_t slope = atomic_load_explicit(&nio_clock.ns_per_tick, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(&nio_clock.ns_per_tick, slope + slope / 100, memory_order_relaxed);
    (void)usleep(50000); /* one per cent of that is more than anybody's clock is adjusted by */
    expect_given_up();
}

Test(clock, it_is_the_kernels_where_the_configuration_says_so, .timeout = 30)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    struct numio_status status;
    config.clock = NUMIO_CLOCK_SYSTEM;
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    cr_assert_eq(numio_status(handle, &status), 0);
    cr_assert_str_eq(status.clock, "system");
    cr_assert_not(fixture_has_reason(handle, "clock"), "it is what was asked for");
    uint64_t before_ns = nio_clock_kernel_ns(), now_ns = numio_now_ns();
    cr_assert(before_ns <= now_ns && now_ns <= nio_clock_kernel_ns());
    numio_runtime_destroy(runtime);
    config.clock = NUMIO_CLOCK_AUTO;
    runtime = fixture_create(&config);
    handle = numio_runtime_handle(runtime);
    cr_assert_eq(numio_status(handle, &status), 0);
    cr_assert_str_eq(status.clock, "system", "the process has one clock");
    cr_assert(fixture_has_reason(handle, "clock = system"));
    numio_runtime_destroy(runtime);
    config.clock = (enum numio_clock)7;
    cr_assert_eq(numio_runtime_create(&config, &runtime), -EINVAL);
    cr_assert(strstr(numio_strerror_detail(), "clock"));
}

Test(clock, the_variable_overrides_the_field, .timeout = 30)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    cr_assert_eq(setenv("NUMIO_CLOCK", "system", 1), 0);
    cr_assert_eq(numio_config_from_env(&config), 0);
    cr_assert_eq(config.clock, NUMIO_CLOCK_SYSTEM);
    cr_assert_eq(setenv("NUMIO_CLOCK", "sundial", 1), 0);
    cr_assert_eq(numio_config_from_env(&config), -EINVAL);
    cr_assert_eq(unsetenv("NUMIO_CLOCK"), 0);
}
