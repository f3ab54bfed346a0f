/* SPDX-License-Identifier: MIT */
/* Direct descriptors: everything works on them as on ordinary ones, on whatever worker the
 * coroutine is; none is lost and none is left; without a table there are ordinary ones. */
#include "tests/listener.h"
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <numio/direct.h>

#include "runtime/sched/worker.h"

enum { ROUNDS = 60, TABLE = 16, TASKS = 24 };
static const uint64_t ms = 1000000;

static void expect_all(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    int64_t line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
    cr_assert_eq(line, 0, "line %ld (%s)", (long)line, numio_strerror_detail());
}

static bool is_known_here(void)
{
    return nio_worker_current()->handle->profile != NUMIO_DRIVER_EPOLL;
}

/* Entries of all tables that are free, of those that have been made. */
static uint64_t count_free(const struct numio_handle *handle)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < handle->worker_count; i++)
        /* relaxed: nothing runs */
        count += atomic_load_explicit(&handle->workers[i]->direct_free, memory_order_relaxed);
    return count;
}

static uint64_t count_made(const struct numio_handle *handle)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < handle->worker_count; i++)
        count += handle->workers[i]->direct_state == NIO_DIRECT_MADE
                     ? handle->config.direct_descriptors
                     : 0;
    return count;
}

static void expect_none_left(struct numio_runtime *runtime)
{
    const struct numio_handle *handle = numio_runtime_handle(runtime);
    cr_assert_eq(count_free(handle), count_made(handle));
}

/* ---- files -------------------------------------------------------------------------------- */

static int64_t use_file(void *arg)
{
    const char *path = arg;
    char back[8] = "";
    struct numio_op ops[3];
    int64_t fd = numio_openat_direct(AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT(fd >= 0 && numio_is_direct((int)fd) == is_known_here());
    EXPECT(numio_pwrite((int)fd, "direct", 6, 0) == 6);
    EXPECT(numio_pread((int)fd, back, 6, 0) == 6 && memcmp(back, "direct", 6) == 0);
    EXPECT(numio_fsync((int)fd) == 0);
    numio_op_write(&ops[0], (int)fd, "chain", 5, 1);
    numio_op_fdatasync(&ops[1], (int)fd);
    numio_op_close(&ops[2], (int)fd);
    numio_op_link(&ops[0]);
    numio_op_link(&ops[1]);
    EXPECT(numio_batch_await(ops, 3) == 0);
    EXPECT(numio_pread((int)fd, back, 6, 0) == -EBADF);
    int64_t plain = numio_open(path, O_RDONLY | O_CLOEXEC, 0);
    EXPECT(plain >= 0 && !numio_is_direct((int)plain));
    EXPECT((fd = numio_direct_from((int)plain)) >= 0 &&
           numio_is_direct((int)fd) == is_known_here());
    EXPECT(numio_close((int)plain) == 0);
    EXPECT(numio_pread((int)fd, back, 6, 0) == 6 && memcmp(back, "dchain", 6) == 0);
    EXPECT(numio_close((int)fd) == 0);
    EXPECT(numio_close((int)fd) == -EBADF);
    EXPECT(numio_openat_direct(AT_FDCWD, "/does/not/exist", O_RDONLY, 0) == -ENOENT);
    EXPECT(numio_direct_from(-1) == -EBADF);
    return 0;
}

FIXTURE_EACH(direct, files_are_opened_into_the_table_and_used_from_there, .timeout = 30)
{
    char path[] = "/tmp/numio-direct-XXXXXX";
    int scratch = mkstemp(path);
    cr_assert_geq(scratch, 0);
    unsigned before = fixture_count_fds();
    for (int round = 0; round < ROUNDS; round++)
        expect_all(runtime, use_file, path);
    cr_assert_eq(fixture_count_fds(), before);
    expect_none_left(runtime);
    (void)close(scratch);
    (void)unlink(path);
}

/* ---- sockets ------------------------------------------------------------------------------ */

static int64_t echo(void *arg)
{
    int fd = (int)(intptr_t)arg;
    struct numio_stream *stream;
    struct numio_chunk chunk;
    int64_t n;
    EXPECT(numio_recv_stream(fd, 0, &stream) == 0);
    while ((n = numio_stream_recv(stream, &chunk)) > 0) {
        EXPECT(numio_send_all(fd, chunk.data, chunk.len, 0) == n);
        numio_chunk_release(&chunk);
    }
    EXPECT(n == 0);
    EXPECT(numio_stream_close(&stream) == 0);
    return numio_close(fd);
}

static int64_t talk(void *arg)
{
    const struct listener *listener = arg;
    char back[5] = "";
    int64_t fd = numio_socket_direct(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0);
    EXPECT(numio_connect((int)fd, (const struct sockaddr *)&listener->address,
                         sizeof listener->address) == 0);
    for (int i = 0; i < 20; i++) {
        EXPECT(numio_send((int)fd, "hello", 5, MSG_NOSIGNAL) == 5);
        EXPECT(numio_recv_all((int)fd, back, 5, 0) == 5 && memcmp(back, "hello", 5) == 0);
        EXPECT(numio_yield_now() == 0); /* it may be stolen, and then goes back to its ring */
    }
    EXPECT(numio_shutdown((int)fd, SHUT_WR) == 0);
    EXPECT(numio_recv((int)fd, back, 1, 0) == 0);
    return numio_close((int)fd);
}

static int64_t serve(void *arg)
{
    struct listener *listener = arg;
    struct numio_join *talkers[TASKS], *echoes[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, talk, listener, NULL, &talkers[i]) == 0);
    for (int i = 0; i < TASKS; i++) {
        int64_t fd = numio_accept_direct(listener->fd, NULL, NULL, SOCK_CLOEXEC);
        EXPECT(fd >= 0);
        EXPECT(numio_spawn_co(NULL, echo, (void *)(intptr_t)fd, NULL, &echoes[i]) == 0);
    }
    for (int i = 0; i < TASKS; i++) {
        int64_t rc = numio_join_await(&talkers[i]);
        if (rc)
            return rc;
        EXPECT(numio_join_await(&echoes[i]) == 0);
    }
    return 0;
}

static void serve_with(enum numio_driver driver, unsigned entries)
{
    if (driver != NUMIO_DRIVER_EPOLL && !fixture_has_uring())
        cr_skip_test("no io_uring here");
    struct numio_config config = fixture_config(driver, 2);
    config.direct_descriptors = entries;
    struct numio_runtime *runtime = fixture_create(&config);
    struct listener listener;
    open_listener(&listener);
    unsigned before = fixture_count_fds();
    for (int round = 0; round < 10; round++)
        expect_all(runtime, serve, &listener);
    cr_assert_eq(fixture_count_fds(), before);
    expect_none_left(runtime);
    (void)close(listener.fd);
    numio_runtime_destroy(runtime);
}

Test(direct, connections_are_served_from_the_table_wherever_their_task_runs_sqpoll, .timeout = 60)
{
    serve_with(NUMIO_DRIVER_SQPOLL, 1024);
}

Test(direct, connections_are_served_from_the_table_wherever_their_task_runs_defer, .timeout = 60)
{
    serve_with(NUMIO_DRIVER_DEFER, 1024);
}

Test(direct, where_the_table_is_full_or_missing_they_are_ordinary_ones, .timeout = 60)
{
    serve_with(NUMIO_DRIVER_SQPOLL, TABLE);
    serve_with(NUMIO_DRIVER_DEFER, TABLE);
    serve_with(NUMIO_DRIVER_EPOLL, TABLE);
}

/* ---- ends before its time, and misuse ------------------------------------------------------- */

static int64_t accept_one(void *arg)
{
    return numio_accept_direct(((struct listener *)arg)->fd, NULL, NULL, 0);
}

static int64_t abort_accepts(void *arg)
{
    struct listener *listener = arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct numio_join *join;
        EXPECT(numio_spawn_co(NULL, accept_one, listener, NULL, &join) == 0);
        EXPECT(numio_yield_now() == 0);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        EXPECT(fd >= 0);
        EXPECT(connect(fd, (const struct sockaddr *)&listener->address, sizeof listener->address) ==
               0);
        if (i % 3)
            EXPECT(numio_sleep_ns((uint64_t)i * 1000) == 0);
        numio_join_abort(join);
        int64_t accepted = numio_join_await(&join);
        EXPECT(accepted >= 0 || accepted == -ECANCELED);
        if (accepted >= 0)
            EXPECT(numio_close((int)accepted) == 0);
        EXPECT(close(fd) == 0);
        struct numio_deadline deadline;
        EXPECT(numio_deadline_push(&deadline, ms / 2) ==
               0); /* what the abort left in the listener */
        while ((accepted = numio_accept(listener->fd, NULL, NULL, 0)) >= 0)
            EXPECT(close((int)accepted) == 0);
        EXPECT(accepted == -ETIMEDOUT && numio_deadline_pop(&deadline) == -ETIMEDOUT);
    }
    return 0;
}

FIXTURE_EACH(direct, an_abort_leaves_none_in_the_table, .timeout = 60)
{
    struct listener listener;
    open_listener(&listener);
    unsigned before = fixture_count_fds();
    expect_all(runtime, abort_accepts, &listener);
    cr_assert_eq(fixture_count_fds(), before);
    expect_none_left(runtime);
    (void)close(listener.fd);
}

static int64_t read_one(void *arg)
{
    char byte;
    return numio_pread((int)(intptr_t)arg, &byte, 1, 0);
}

static int64_t misuse(void *unused)
{
    struct numio_spawn_opts opts;
    struct numio_join *join;
    (void)unused;
    char byte;
    EXPECT(numio_pread(nio_direct_fd(4000, 1), &byte, 1, 0) == -EBADF);
    EXPECT(strstr(numio_strerror_detail(), "no worker has"));
    int64_t fd = numio_openat_direct(AT_FDCWD, "/dev/zero", O_RDONLY, 0);
    EXPECT(fd >= 0);
    if (!is_known_here())
        return numio_close((int)fd);
    EXPECT(numio_direct_from((int)fd) == -EINVAL);
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    for (opts.worker = 0; opts.worker < 2; opts.worker++) {
        bool is_there = nio_direct_worker((int)fd) == (unsigned)opts.worker;
        EXPECT(numio_spawn_co(NULL, read_one, (void *)(intptr_t)fd, &opts, &join) == 0);
        EXPECT(numio_join_await(&join) == (is_there ? 1 : -EXDEV));
    }
    return numio_close((int)fd);
}

FIXTURE_EACH(direct, misuse_is_refused_with_the_reason, .timeout = 30)
{
    expect_all(runtime, misuse, NULL);
    expect_none_left(runtime);
    cr_assert_eq(numio_socket_direct(AF_INET, SOCK_STREAM, 0), -EINVAL);
    cr_assert_eq(numio_direct_from(0), -EINVAL);
}
