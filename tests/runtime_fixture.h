/* SPDX-License-Identifier: MIT */
/* tests/runtime_fixture.h: what the tests of the public interface share: a runtime with asserted
 * creation, children that may die, waiting for a condition with a limit, counting descriptors.
 *
 * fixture_* functions that assert are for the test's own thread only.  FIXTURE_EACH(suite, name,
 * .timeout = s) { ... } is a test body that gets `runtime` and runs once with each profile.
 * Test programs only.
 */
#ifndef TESTS_RUNTIME_FIXTURE_H
#define TESTS_RUNTIME_FIXTURE_H

#include <criterion/criterion.h>

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numio/numio.h>

#include "runtime/base/clock.h"
#include "runtime/base/futex.h"
#include "runtime/base/mem.h"
#include "runtime/coro/sanitizer.h"
#include "runtime/driver/driver.h"

enum {
    FIXTURE_OUTPUT_BYTES = 8192,
    FIXTURE_PATIENCE_MS = 10000,
    FIXTURE_EXIT_SETUP = 99 /* of a child: the machine refused what the test needs */
};

static inline struct numio_config fixture_config(enum numio_driver driver, unsigned workers)
{
    struct numio_config config;
    cr_assert_eq(numio_config_init(&config, sizeof config), 0);
    config.driver = driver;
    config.workers = workers;
    return config;
}

static inline struct numio_runtime *fixture_create(const struct numio_config *config)
{
    struct numio_runtime *runtime = NULL;
    int rc = numio_runtime_create(config, &runtime);
    cr_assert_eq(rc, 0, "create: %s (%s)", strerrorname_np(-rc), numio_strerror_detail());
    return runtime;
}

/* A runtime of `workers` workers with the profile that `auto` chooses. */
static inline struct numio_runtime *fixture_start(unsigned workers)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, workers);
    return fixture_create(&config);
}

/* Whether the status names something with these words. */
static inline bool fixture_has_reason(struct numio_handle *handle, const char *words)
{
    const char *reason;
    for (unsigned i = 0; (reason = numio_status_reason(handle, i)); i++)
        if (strstr(reason, words))
            return true;
    return false;
}

static inline bool fixture_has_uring(void)
{
    struct nio_driver_probe probe;
    nio_driver_probe(NUMIO_DRIVER_AUTO, &probe);
    const char *required = getenv("NUMIO_REQUIRE");
    if (!probe.has_uring && required && strstr(required, "uring"))
        cr_assert_fail("NUMIO_REQUIRE names uring, but: %s", probe.reason);
    return probe.has_uring;
}

static inline void fixture_each(enum numio_driver driver, void (*body)(struct numio_runtime *))
{
    if (driver != NUMIO_DRIVER_EPOLL && !fixture_has_uring())
        cr_skip_test("no io_uring here");
    struct numio_config config = fixture_config(driver, 2);
    struct numio_runtime *runtime = fixture_create(&config);
    body(runtime);
    numio_runtime_destroy(runtime);
}

#define FIXTURE_EACH(suite, name, ...)                                                             \
    static void name(struct numio_runtime *runtime);                                               \
    Test(suite, name##_sqpoll, __VA_ARGS__)                                                        \
    {                                                                                              \
        fixture_each(NUMIO_DRIVER_SQPOLL, name);                                                   \
    }                                                                                              \
    Test(suite, name##_defer, __VA_ARGS__)                                                         \
    {                                                                                              \
        fixture_each(NUMIO_DRIVER_DEFER, name);                                                    \
    }                                                                                              \
    Test(suite, name##_epoll, __VA_ARGS__)                                                         \
    {                                                                                              \
        fixture_each(NUMIO_DRIVER_EPOLL, name);                                                    \
    }                                                                                              \
    static void name(struct numio_runtime *runtime)

/* A word that one thread or task sets and others wait for. */
static inline void fixture_set(_Atomic uint32_t *word, uint32_t value)
{
    /* [FX1] release: what the setter did before.  Pairs with [FX2]. */
    atomic_store_explicit(word, value, memory_order_release);
    nio_futex_wake(word, INT32_MAX);
}

static inline uint32_t fixture_get(_Atomic uint32_t *word)
{
    /* [FX2] acquire: pairs with [FX1] */
    return atomic_load_explicit(word, memory_order_acquire);
}

/* Waits in a plain thread until the word is `value`.  False: not within the patience. */
static inline bool fixture_wait(_Atomic uint32_t *word, uint32_t value)
{
    uint64_t end_ns = nio_now_ns() + FIXTURE_PATIENCE_MS * 1000000ull;
    uint32_t seen;
    while ((seen = fixture_get(word)) != value && nio_now_ns() < end_ns)
        (void)nio_futex_wait(word, seen, 100000000); /* looks again */
    return seen == value;
}

/* Waits in a plain thread until is_true(arg).  False: not within the patience. */
static inline bool fixture_until(bool (*is_true)(void *arg), void *arg)
{
    _Atomic uint32_t nobody = 0;
    uint64_t end_ns = nio_now_ns() + FIXTURE_PATIENCE_MS * 1000000ull;
    while (!is_true(arg)) {
        if (nio_now_ns() > end_ns)
            return false;
        (void)nio_futex_wait(&nobody, 0, 500000); /* nobody tells: looks again */
    }
    return true;
}

static inline unsigned fixture_count_entries(const char *path)
{
    DIR *dir = opendir(path);
    unsigned count = 0;
    if (!dir)
        return 0;
    while (readdir(dir))
        count++;
    (void)closedir(dir); /* only read from */
    return count;
}

/* Descriptors that are open in this process. */
static inline unsigned fixture_count_fds(void)
{
    return fixture_count_entries("/proc/self/fd");
}

/* Threads of this process, the kernel's for its rings included. */
static inline unsigned fixture_count_threads(void)
{
    return fixture_count_entries("/proc/self/task");
}

/* Whether every thread of this process but the calling one sleeps. */
static inline bool fixture_others_sleep(void *unused)
{
    (void)unused;
    DIR *dir = opendir("/proc/self/task");
    cr_assert_not_null(dir);
    bool do_sleep = true;
    for (struct dirent *entry; do_sleep && (entry = readdir(dir));) {
        char path[64], line[128] = "";
        if (entry->d_name[0] == '.' || strtol(entry->d_name, NULL, 10) == gettid())
            continue;
        (void)snprintf(path, sizeof path, "/proc/self/task/%.20s/stat", entry->d_name); /* fits */
        FILE *file = fopen(path, "re");
        if (!file)
            continue; /* it has ended */
        const char *comm_end = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
        do_sleep = comm_end && comm_end[1] && comm_end[2] == 'S';
        (void)fclose(file); /* only read from */
    }
    (void)closedir(dir); /* likewise */
    return do_sleep;
}

/* AddressSanitizer's allocator, unlike glibc's, takes none of its locks around a fork() (GCC 12):
 * the child of a moment in which another thread allocates, for example because it has just
 * started, would wait for that thread for ever. */
static inline void fixture_await_moment_to_fork(void)
{
#ifdef NIO_SANITIZER_ASAN
    cr_assert(fixture_until(fixture_others_sleep, NULL), "some thread never sleeps");
#endif
}

struct fixture_ending {
    int status;
    char output[FIXTURE_OUTPUT_BYTES]; /* what the child wrote to stderr */
};

/* Runs `body` in a child to its end.  The child exits with what `body` returns. */
static inline void fixture_in_child(int (*body)(void), struct fixture_ending *ret_ending)
{
    int ends[2];
    size_t length = 0;
    ssize_t n;
    cr_assert_eq(pipe(ends), 0);
    fixture_await_moment_to_fork();
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        /* With the test, should that be ended for its time: what outlives it keeps Criterion's
         * channel open, and Criterion waits. */
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct rlimit none = { 0, 0 };
        (void)setrlimit(RLIMIT_CORE, &none); /* only spares the disk */
        (void)dup2(ends[1], STDERR_FILENO);  /* the assertions on the output notice a failure */
        (void)close(ends[0]);
        (void)close(ends[1]);
        (void)signal(SIGSEGV, SIG_DFL); /* Criterion's handlers are for the test itself */
        (void)signal(SIGABRT, SIG_DFL);
        (void)signal(SIGBUS, SIG_DFL);
        _exit(body());
    }
    (void)close(ends[1]);
    while ((n = read(ends[0], ret_ending->output + length, FIXTURE_OUTPUT_BYTES - 1 - length)) > 0)
        length += (size_t)n;
    ret_ending->output[length] = '\0';
    (void)close(ends[0]);
    cr_assert_eq(waitpid(pid, &ret_ending->status, 0), pid);
}

/* Runs a child that must exit with 0; 77 skips the test. */
static inline void fixture_expect_child(int (*body)(void))
{
    static struct fixture_ending ending;
    fixture_in_child(body, &ending);
    if (WIFEXITED(ending.status) && WEXITSTATUS(ending.status) == 77)
        cr_skip_test("%s", ending.output);
    cr_assert(WIFEXITED(ending.status) && WEXITSTATUS(ending.status) == 0,
              "child: wait status 0x%x; it said: %s", (unsigned)ending.status, ending.output);
}

/* In a child: says what is wrong and makes the body return 1. */
#define FIXTURE_CHILD_CHECK(condition, ...)                                                        \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s:", __FILE__, __LINE__, #condition);                   \
            (void)fprintf(stderr, " " __VA_ARGS__);                                                \
            (void)fprintf(stderr, " (%s)\n", numio_strerror_detail());                             \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

#endif
