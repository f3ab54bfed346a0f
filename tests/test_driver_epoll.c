/* SPDX-License-Identifier: MIT */
/* What only the epoll profile has to get right: no io_uring, closed descriptors, a full pool. */
#include "tests/driver_each.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/mem.h"

static struct nio_driver *create_epoll(void)
{
    harness_init();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_EPOLL);
    return each_create(&options);
}

static void finish(struct nio_driver *driver)
{
    cr_assert(harness_drain(driver, 5000));
    cr_assert_eq(nio_state_refs(nio_state_load(&harness_task)), 1);
    nio_driver_destroy(driver);
}

/* ---- where io_uring is forbidden ---------------------------------------------------------- */

/* As container runtimes do: io_uring_setup fails with `error`. */
static int forbid_io_uring(int error)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = { .len = NIO_ARRAY_LEN(rules), .filter = rules };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0 ? -errno : 0;
}

/* Exit status of the child: 0, or which step failed. */
static int live_without_io_uring(int error, const char *word)
{
    struct nio_driver_probe probe;
    struct nio_driver *driver;
    char reason[200], in[4];
    int pair[2];
    struct numio_op op;
    if (forbid_io_uring(error) < 0)
        return 1;
    nio_driver_probe(NUMIO_DRIVER_AUTO, &probe);
    if (probe.has_uring || probe.uring_error != -error || !strstr(probe.reason, word))
        return 2;
    if (nio_driver_choose(NUMIO_DRIVER_AUTO, &probe, 8, 0, false, reason, sizeof reason) !=
            NUMIO_DRIVER_EPOLL ||
        !strstr(reason, word))
        return 3;
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_DEFER);
    if (nio_driver_create(&options, &driver) != -error || !strstr(numio_strerror_detail(), word))
        return 4;
    options.profile = NUMIO_DRIVER_EPOLL;
    if (nio_driver_create(&options, &driver) < 0)
        return 5;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return 6;
    numio_op_send(&op, pair[0], "ok", 2, 0);
    if (harness_run(driver, &op) != 2)
        return 7;
    numio_op_recv(&op, pair[1], in, sizeof in, 0);
    if (harness_run(driver, &op) != 2)
        return 8;
    numio_op_openat(&op, AT_FDCWD, "/proc/self/status", O_RDONLY, 0);
    if (harness_run(driver, &op) < 0)
        return 9;
    nio_driver_destroy(driver);
    return 0;
}

static void run_without_io_uring(int error, const char *word)
{
    harness_init();
    pid_t child = fork();
    if (child == 0)
        _exit(live_without_io_uring(error, word));
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "step %d", WEXITSTATUS(status));
}

Test(driver_epoll, where_seccomp_forbids_io_uring_epoll_works_and_the_reason_is_told, .timeout = 30)
{
    run_without_io_uring(EPERM, "seccomp");
}

Test(driver_epoll, where_io_uring_is_hidden_epoll_works_and_the_reason_is_told, .timeout = 30)
{
    run_without_io_uring(ENOSYS, "missing");
}

/* ---- descriptors that are closed under an operation --------------------------------------- */

Test(driver_epoll, a_close_ends_what_waits_for_the_descriptor, .timeout = 30)
{
    struct nio_driver *driver = create_epoll();
    struct numio_op reading, polling, closing;
    int pair[2];
    char byte;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    numio_op_recv(&reading, pair[0], &byte, 1, 0);
    numio_op_poll_fd(&polling, pair[0], POLLIN);
    harness_submit(driver, &reading);
    harness_submit(driver, &polling);
    cr_assert_not(harness_wait(driver, &reading, 20));
    numio_op_close(&closing, pair[0]);
    cr_assert_eq(harness_run(driver, &closing), 0);
    cr_assert(harness_wait(driver, &reading, 1000));
    cr_assert(harness_wait(driver, &polling, 1000));
    cr_assert_eq(reading._result, -EBADF);
    cr_assert_eq(polling._result, -EBADF);
    (void)close(pair[1]);
    finish(driver);
}

Test(driver_epoll, a_close_elsewhere_ends_what_waits_within_seconds, .timeout = 30)
{
    struct nio_driver *driver = create_epoll();
    struct numio_op op;
    int pipes[2];
    char byte;
    cr_assert_eq(pipe(pipes), 0);
    numio_op_read(&op, pipes[0], &byte, 1, -1);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 20));
    cr_assert_eq(close(pipes[0]), 0);
    uint64_t end_ns = nio_now_ns() + 10000000000u;
    while (!nio_op_is_done(&op) && nio_now_ns() < end_ns) {
        nio_driver_park(driver, -1); /* the driver limits it itself */
        (void)nio_driver_reap(driver, 8);
    }
    cr_assert(nio_op_is_done(&op));
    cr_assert_eq(op._result, -EBADF);
    (void)close(pipes[1]);
    finish(driver);
}

Test(driver_epoll, a_descriptor_used_anew_serves_the_new_file, .timeout = 30)
{
    struct nio_driver *driver = create_epoll();
    struct numio_op old, new;
    int pipes[2], others[2];
    char byte = 0;
    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(pipe(others), 0);
    numio_op_read(&old, pipes[0], &byte, 1, -1);
    harness_submit(driver, &old);
    cr_assert_not(harness_wait(driver, &old, 20));
    int number = pipes[0];
    cr_assert_eq(dup2(others[0], number), number); /* closes the old one on the way */
    numio_op_read(&new, number, &byte, 1, -1);
    harness_submit(driver, &new);
    cr_assert(harness_wait(driver, &old, 5000));
    cr_assert_eq(old._result, -EBADF);
    cr_assert_not(nio_op_is_done(&new));
    cr_assert_eq(write(others[1], "n", 1), 1);
    cr_assert(harness_wait(driver, &new, 5000));
    cr_assert_eq(new._result, 1);
    cr_assert_eq(byte, 'n');
    (void)close(number);
    (void)close(pipes[1]);
    (void)close(others[0]);
    (void)close(others[1]);
    finish(driver);
}

Test(driver_epoll, a_large_descriptor_number_is_waited_for, .timeout = 30)
{
    struct nio_driver *driver = create_epoll();
    struct numio_op op, failing;
    struct rlimit limit;
    int pipes[2];
    char byte;
    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    int high = fcntl(pipes[0], F_DUPFD, (int)(limit.rlim_cur < 5000 ? limit.rlim_cur : 5000) - 1);
    cr_assert_geq(high, 100);
    numio_op_read(&failing, high, &byte, 1, -1);
    nio_fault_arm(1);
    harness_submit(driver, &failing);
    nio_fault_arm(0);
    cr_assert(harness_wait(driver, &failing, 5000));
    cr_assert_eq(failing._result, -ENOMEM, "no memory for a larger table");
    numio_op_read(&op, high, &byte, 1, -1);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 20));
    cr_assert_eq(write(pipes[1], "x", 1), 1);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, 1);
    (void)close(high);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    finish(driver);
}

/* ---- blocking is never the worker's ------------------------------------------------------- */

Test(driver_epoll, an_accept_that_another_won_does_not_block, .timeout = 30)
{
    struct nio_driver *driver = create_epoll();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_EPOLL);
    struct nio_driver *other = each_create(&options);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t bytes = sizeof address;
    struct numio_op first, second;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, bytes), 0);
    cr_assert_eq(listen(listener, 8), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    numio_op_accept(&first, listener, NULL, NULL, 0);
    numio_op_accept(&second, listener, NULL, NULL, 0);
    harness_submit(driver, &first);
    harness_submit(other, &second);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    nio_driver_park(driver, 1000000000);
    nio_driver_park(other, 1000000000); /* both were told of the one connection */
    cr_assert(harness_wait(driver, &first, 5000));
    cr_assert_geq(first._result, 0);
    cr_assert_not(harness_wait(other, &second, 20), "and the second goes on waiting");
    nio_driver_cancel(other, &second);
    cr_assert(harness_drain(other, 5000));
    cr_assert_eq(second._result, -ECANCELED);
    (void)close(first._result);
    (void)close(client);
    (void)close(listener);
    nio_driver_destroy(other);
    finish(driver);
}

static unsigned pool_room, pool_refusals;

/* A pool that takes one function at a time. */
static int small_pool(void *context, void (*fn)(void *arg), void *arg)
{
    if (pool_room == 0) {
        pool_refusals++;
        return -EAGAIN;
    }
    pool_room--;
    return harness_offload(context, fn, arg);
}

Test(driver_epoll, a_full_pool_delays_operations_and_loses_none, .timeout = 30)
{
    enum { COUNT = 50 };
    harness_init();
    static struct numio_op ops[COUNT];
    static struct statx stat[COUNT];
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_EPOLL);
    options.offload = small_pool;
    pool_room = 1;
    pool_refusals = 0;
    struct nio_driver *driver = each_create(&options);
    for (unsigned i = 0; i < COUNT; i++) {
        numio_op_statx(&ops[i], AT_FDCWD, "/", 0, STATX_MODE, &stat[i]);
        harness_submit(driver, &ops[i]);
    }
    cr_assert_gt(pool_refusals, 0);
    nio_driver_cancel(driver, &ops[COUNT - 1]);
    unsigned before = nio_driver_in_flight(driver);
    uint64_t end_ns = nio_now_ns() + 10000000000u;
    while (nio_driver_in_flight(driver) > 0 && nio_now_ns() < end_ns) {
        unsigned now = nio_driver_in_flight(driver);
        if (now < before || pool_room == 0)
            pool_room = 1;
        before = now;
        nio_driver_park(driver, 1000000);
        (void)nio_driver_reap(driver, 64);
    }
    for (unsigned i = 0; i + 1 < COUNT; i++)
        cr_assert_eq(ops[i]._result, 0, "%u: %d", i, ops[i]._result);
    cr_assert_eq(ops[COUNT - 1]._result, -ECANCELED);
    finish(driver);
}

static int broken_pool(void *context, void (*fn)(void *arg), void *arg)
{
    (void)context;
    (void)fn;
    (void)arg;
    return -ESHUTDOWN;
}

Test(driver_epoll, without_a_pool_file_operations_end_with_its_error, .timeout = 30)
{
    harness_init();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_EPOLL);
    struct numio_op op;
    options.offload = broken_pool;
    struct nio_driver *driver = each_create(&options);
    numio_op_fsync(&op, 0);
    cr_assert_eq(harness_run(driver, &op), -ESHUTDOWN);
    finish(driver);
    options.offload = NULL;
    driver = each_create(&options);
    numio_op_fsync(&op, 0);
    cr_assert_eq(harness_run(driver, &op), -ENOSYS);
    finish(driver);
}

Test(driver_epoll, an_offloaded_operation_ends_when_its_call_does, .timeout = 30)
{
    struct nio_driver *driver = create_epoll();
    char path[64];
    struct numio_op op;
    (void)snprintf(path, sizeof path, "/tmp/numio-fifo-%d", (int)getpid());
    cr_assert_eq(mkfifo(path, 0600), 0);
    numio_op_openat(&op, AT_FDCWD, path, O_RDONLY, 0);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 20), "nobody has opened the other end");
    nio_driver_cancel(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 20));
    int writer = open(path, O_RDWR);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_geq(op._result, 0);
    (void)close(op._result);
    (void)close(writer);
    (void)unlink(path);
    finish(driver);
}

/* ---- what a spinning owner is told -------------------------------------------------------- */

Test(driver_epoll, an_owner_that_never_parks_learns_of_readiness, .timeout = 30)
{
    struct nio_driver *driver = create_epoll();
    struct numio_op op;
    int pipes[2];
    char byte;
    cr_assert_eq(pipe(pipes), 0);
    numio_op_read(&op, pipes[0], &byte, 1, -1);
    harness_submit(driver, &op);
    cr_assert_eq(write(pipes[1], "x", 1), 1);
    uint64_t end_ns = nio_now_ns() + 5000000000u;
    while (!nio_op_is_done(&op) && nio_now_ns() < end_ns)
        if (nio_driver_has_completions(driver))
            (void)nio_driver_reap(driver, 8);
    cr_assert(nio_op_is_done(&op));
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    finish(driver);
}

Test(driver_epoll, there_is_nothing_for_siblings_and_no_ring)
{
    struct nio_driver *driver = create_epoll();
    cr_assert_eq(nio_driver_reap_for(driver, 64), 0);
    cr_assert_eq(nio_driver_ring_fd(driver), -1);
    cr_assert_null(nio_driver_reason(driver));
    finish(driver);
}
