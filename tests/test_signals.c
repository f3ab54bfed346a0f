/* SPDX-License-Identifier: MIT */
/* Signal streams.  Each test runs in a child, whose first thread alone is there when the stream is
 * opened: Criterion's own threads block nothing. */
#include "tests/runtime_fixture.h"

#include <pthread.h>

static const int wanted[] = { SIGTERM, SIGUSR1, 40 };

static int64_t take_them(void *arg)
{
    struct numio_signals *signals = arg;
    struct numio_signal signal = { 0 };
    struct numio_deadline deadline;
    union sigval value = { .sival_int = 77 };
    if (kill(getpid(), SIGTERM) != 0 || numio_signals_next(signals, &signal) != 0)
        return 1;
    if (signal.number != SIGTERM || signal.pid != getpid() || signal.code != SI_USER)
        return 2;
    if (sigqueue(getpid(), 40, value) != 0 || sigqueue(getpid(), 40, value) != 0)
        return 3;
    for (unsigned i = 0; i < 2; i++) /* each of a real-time signal counts */
        if (numio_signals_next(signals, &signal) != 0 || signal.number != 40 ||
            signal.code != SI_QUEUE || (int)signal.value != 77)
            return 4;
    if (numio_deadline_push(&deadline, 3000000) != 0 ||
        numio_signals_next(signals, &signal) != -ETIMEDOUT ||
        numio_deadline_pop(&deadline) != -ETIMEDOUT)
        return 5;
    if (kill(getpid(), SIGUSR1) != 0 || numio_signals_next(signals, NULL) != 0)
        return __LINE__;
    if (kill(getpid(), SIGUSR1) != 0 || numio_signals_next(signals, &signal) != 0 ||
        signal.number != SIGUSR1)
        return 6;
    return 0;
}

static int read_a_stream(enum numio_driver driver)
{
    struct numio_signals *signals = NULL;
    struct numio_config config;
    struct numio_runtime *runtime;
    FIXTURE_CHILD_CHECK(numio_signals_open(wanted, 3, &signals) == 0);
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.workers = 2;
    config.driver = driver;
    FIXTURE_CHILD_CHECK(numio_runtime_create(&config, &runtime) == 0);
    int64_t step = numio_block_on(numio_runtime_handle(runtime), take_them, signals);
    FIXTURE_CHILD_CHECK(step == 0, "step %ld", (long)step);
    numio_runtime_destroy(runtime);
    numio_signals_close(signals);
    numio_signals_close(NULL);
    return 0;
}

static int by_sqpoll(void)
{
    return read_a_stream(NUMIO_DRIVER_SQPOLL);
}

static int by_defer(void)
{
    return read_a_stream(NUMIO_DRIVER_DEFER);
}

static int by_epoll(void)
{
    return read_a_stream(NUMIO_DRIVER_EPOLL);
}

Test(signals, a_coroutine_reads_what_is_sent, .timeout = 60)
{
    fixture_expect_child(by_sqpoll);
    fixture_expect_child(by_defer);
    fixture_expect_child(by_epoll);
}

/* Also with a runtime whose pool has threads, and many of its own. */
static int64_t nothing(void *arg)
{
    (void)arg;
    return 0;
}

static int64_t use_the_pool(void *arg)
{
    return numio_block_in_place(nothing, arg);
}

static int open_late(void)
{
    struct numio_signals *signals = NULL;
    struct numio_runtime *runtime;
    FIXTURE_CHILD_CHECK(numio_runtime_create(NULL, &runtime) == 0);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    FIXTURE_CHILD_CHECK(numio_block_on(handle, use_the_pool, NULL) == 0);
    FIXTURE_CHILD_CHECK(numio_signals_open(wanted, 3, &signals) == 0);
    FIXTURE_CHILD_CHECK(numio_block_on(handle, take_them, signals) == 0);
    numio_signals_close(signals);
    numio_runtime_destroy(runtime);
    return 0;
}

Test(signals, the_threads_of_a_runtime_are_no_hindrance, .timeout = 30)
{
    fixture_expect_child(open_late);
}

enum { STARTED = 1, OVER };

static void *wait_about(void *arg)
{
    fixture_set(arg, STARTED); /* before that it has all signals blocked, for glibc's sake */
    (void)fixture_wait(arg, OVER);
    return NULL;
}

static int open_beside_a_thread(void)
{
    static _Atomic uint32_t state;
    struct numio_signals *signals = NULL;
    pthread_t thread;
    sigset_t set;
    (void)sigemptyset(&set);                        /* cannot fail, like the next */
    (void)pthread_sigmask(SIG_SETMASK, &set, NULL); /* whatever Criterion has blocked */
    FIXTURE_CHILD_CHECK(pthread_create(&thread, NULL, wait_about, (void *)(uintptr_t)&state) == 0);
    (void)pthread_setname_np(thread, "hinders"); /* it is one, as below */
    FIXTURE_CHILD_CHECK(fixture_wait(&state, STARTED));
    FIXTURE_CHILD_CHECK(numio_signals_open(wanted, 3, &signals) == -EBUSY);
    FIXTURE_CHILD_CHECK(signals == NULL);
    FIXTURE_CHILD_CHECK(strstr(numio_strerror_detail(), "\"hinders\""), "%s",
                        numio_strerror_detail());
    FIXTURE_CHILD_CHECK(pthread_sigmask(SIG_BLOCK, NULL, &set) == 0);
    FIXTURE_CHILD_CHECK(!sigismember(&set, SIGTERM)); /* as it was */
    fixture_set(&state, OVER);
    (void)pthread_join(thread, NULL);
    return 0;
}

Test(signals, a_thread_that_would_be_given_them_is_named, .timeout = 30)
{
    fixture_expect_child(open_beside_a_thread);
}

Test(signals, numbers_that_cannot_be_read_are_refused, .timeout = 30)
{
    struct numio_signals *signals = NULL;
    cr_assert_eq(numio_signals_open((const int[]){ SIGKILL }, 1, &signals), -EINVAL);
    cr_assert_eq(numio_signals_open((const int[]){ SIGSTOP }, 1, &signals), -EINVAL);
    cr_assert_eq(numio_signals_open((const int[]){ 0 }, 1, &signals), -EINVAL);
    cr_assert_eq(numio_signals_open((const int[]){ 65 }, 1, &signals), -EINVAL);
    cr_assert_eq(numio_signals_open(NULL, 0, &signals), -EINVAL);
    cr_assert_null(signals);
}
