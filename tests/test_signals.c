/* SPDX-License-Identifier: MIT */
/* Signal streams.  Each test runs in a child, whose first thread alone is there when the stream is
 * opened: Criterion's own threads block nothing. */
#include "tests/runtime_fixture.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>

#include "runtime/base/compiler.h"
#include "tests/steps.h"

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

/* What the thread has blocked, a bit for each signal; 0 of one of the kernel's own, or the caller
 * of fork(), which are not the runtime's. */
static uint64_t blocked_by(const char *tid)
{
    char path[64], line[128];
    unsigned long long blocked = 0;
    (void)snprintf(path, sizeof path, "/proc/self/task/%.20s/status", tid); /* fits */
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "Name:\tiou-", 10) == 0 || sscanf(line, "SigBlk: %llx", &blocked) == 1)
            break;
    if (file)
        (void)fclose(file); /* only read from */
    return strtol(tid, NULL, 10) == getpid() ? 0 : blocked;
}

/* On a thread of the pool. */
static int64_t look_at_threads(void *arg)
{
    static const int of_threads[] = { SIGSEGV, SIGBUS,  SIGFPE, SIGILL,
                                      SIGTRAP, SIGABRT, SIGSYS, SIGPROF };
    static const int of_the_program[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD, SIGALRM, 40 };
    unsigned *count = arg;
    const struct dirent *entry;
    DIR *dir = opendir("/proc/self/task");
    EXPECT(dir);
    while ((entry = readdir(dir))) {
        uint64_t blocked = blocked_by(entry->d_name);
        if (!blocked)
            continue;
        for (size_t i = 0; i < NIO_ARRAY_LEN(of_threads); i++)
            EXPECT(!(blocked >> (of_threads[i] - 1) & 1));
        for (size_t i = 0; i < NIO_ARRAY_LEN(of_the_program); i++)
            EXPECT(blocked >> (of_the_program[i] - 1) & 1);
        ++*count;
    }
    (void)closedir(dir); /* only read from */
    return 0;
}

static int start_all_threads(void)
{
    struct numio_config config;
    struct numio_runtime *runtime;
    struct numio_join *join = NULL;
    unsigned count = 0;
    sigset_t set;
    (void)sigemptyset(&set);                        /* cannot fail, like the next */
    (void)pthread_sigmask(SIG_SETMASK, &set, NULL); /* whatever Criterion has blocked */
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.workers = 2;
    FIXTURE_CHILD_CHECK(numio_runtime_create(&config, &runtime) == 0);
    FIXTURE_CHILD_CHECK(numio_spawn_blocking(numio_runtime_handle(runtime), look_at_threads, &count,
                                             NULL, &join) == 0);
    int64_t line = numio_join_wait(&join, -1);
    FIXTURE_CHILD_CHECK(line == 0, "line %ld", (long)line);
    FIXTURE_CHILD_CHECK(count == 4, "%u threads", count); /* workers, pool, the watch on CPUs */
    FIXTURE_CHILD_CHECK(pthread_sigmask(SIG_BLOCK, NULL, &set) == 0);
    FIXTURE_CHILD_CHECK(!sigismember(&set, SIGTERM)); /* as it was */
    numio_runtime_destroy(runtime);
    return 0;
}

Test(signals, threads_of_a_runtime_take_only_those_that_they_cause, .timeout = 30)
{
    fixture_expect_child(start_all_threads);
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
