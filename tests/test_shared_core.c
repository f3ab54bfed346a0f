/* SPDX-License-Identifier: MIT */
/* sqpoll forced onto one CPU, with a worker that never parks: it must leave the core to its SQ
 * thread.  Spinning against it costs a scheduler slice an operation, some 9 ms; done right, some
 * 10 us. */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <numio/io.h>

#include "runtime/base/clock.h"
#include "tests/runtime_fixture.h"

enum { READS = 100 };

static const uint64_t read_limit_ns = 2000000; /* between the two, far from both */

TestSuite(shared_core, .timeout = 60);

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Returns the median of the time a cached read takes. */
static int64_t time_reads(void *arg)
{
    int fd = *(int *)arg;
    uint64_t taken_ns[READS];
    char byte;
    for (unsigned i = 0; i < READS; i++) {
        uint64_t began_ns = nio_now_ns();
        int64_t got = numio_pread(fd, &byte, 1, 0);
        if (got != 1)
            return got < 0 ? got : -EIO;
        taken_ns[i] = nio_now_ns() - began_ns;
    }
    qsort(taken_ns, READS, sizeof *taken_ns, compare);
    return (int64_t)taken_ns[READS / 2];
}

Test(shared_core, a_worker_that_never_parks_leaves_its_core_to_its_sq_thread)
{
    if (!fixture_has_uring())
        cr_skip_test("no io_uring here");
    cpu_set_t set, one;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &set))
            CPU_SET(cpu, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    char path[] = "/tmp/numio_shared_core_XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && unlink(path) == 0 && write(fd, "x", 1) == 1);
    struct numio_config config = fixture_config(NUMIO_DRIVER_SQPOLL, 1);
    config.idle = NUMIO_IDLE_SPIN;
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_status status;
    cr_assert_eq(numio_status(numio_runtime_handle(runtime), &status), 0);
    cr_assert_str_eq(status.driver, "sqpoll", "forced, it must be what is tested");
    int64_t median_ns = numio_block_on(numio_runtime_handle(runtime), time_reads, &fd);
    numio_runtime_destroy(runtime);
    (void)close(fd);
    cr_assert(median_ns > 0 && median_ns < (int64_t)read_limit_ns, "%lld ns a read",
              (long long)median_ns);
}

/* ---- without an SQ thread there is nothing to leave it to ---------------------------------- */

static int64_t wait_in_the_kernel(void *arg)
{
    struct numio_deadline deadline;
    char byte;
    int64_t rc = numio_deadline_push(&deadline, 50000000);
    if (rc == 0)
        rc = numio_recv(*(const int *)arg, &byte, 1, 0);
    return numio_deadline_pop(&deadline) == -ETIMEDOUT ? rc : -EIO;
}

static void never_parks(enum numio_driver driver)
{
    struct numio_config config = fixture_config(driver, 1);
    config.idle = NUMIO_IDLE_SPIN;
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_worker_metrics before = { .size = sizeof before }, after = before;
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(numio_worker_metrics(handle, 0, &before), 0);
    cr_assert_eq(numio_block_on(handle, wait_in_the_kernel, ends), -ETIMEDOUT);
    cr_assert_eq(numio_worker_metrics(handle, 0, &after), 0);
    cr_assert_eq(after.parks, before.parks, "it parked %lu times",
                 (unsigned long)(after.parks - before.parks));
    (void)close(ends[0]);
    (void)close(ends[1]);
    numio_runtime_destroy(runtime);
}

Test(shared_core, without_an_sq_thread_a_spinning_worker_never_parks)
{
    never_parks(NUMIO_DRIVER_EPOLL);
    if (!fixture_has_uring())
        cr_skip_test("no io_uring here");
    never_parks(NUMIO_DRIVER_DEFER);
}
