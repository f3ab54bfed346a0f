/* SPDX-License-Identifier: MIT */
/* Every numio_op_* function, on every profile, against what the system call of its name gives. */
#include "tests/driver_each.h"

#include <fcntl.h>
#include <liburing.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char directory[] = "/tmp/numio-driver-XXXXXX";

static int open_directory(void)
{
    cr_assert_not_null(mkdtemp(directory));
    int fd = open(directory, O_RDONLY | O_DIRECTORY);
    cr_assert_geq(fd, 0);
    return fd;
}

static void remove_directory(int fd, const char *file)
{
    cr_assert_eq(unlinkat(fd, file, 0), 0);
    cr_assert_eq(close(fd), 0);
    cr_assert_eq(rmdir(directory), 0);
}

static int64_t run_open(struct nio_driver *driver, int dirfd, const char *path, int flags)
{
    struct numio_op op;
    numio_op_openat(&op, dirfd, path, flags, 0640);
    return harness_run(driver, &op);
}

EACH_PROFILE(driver_ops, open_gives_a_descriptor_or_the_error, .timeout = 30)
{
    int dir = open_directory();
    cr_assert_eq(run_open(driver, dir, "f", O_RDONLY), -ENOENT);
    int fd = (int)run_open(driver, dir, "f", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(run_open(driver, dir, "f", O_RDWR | O_CREAT | O_EXCL), -EEXIST);
    cr_assert_eq(run_open(driver, -7, "f", O_RDONLY), -EBADF);
    cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    struct numio_op op;
    numio_op_close(&op, fd);
    cr_assert_eq(harness_run(driver, &op), 0);
    cr_assert_eq(fcntl(fd, F_GETFD), -1, "it is closed");
    numio_op_close(&op, fd);
    cr_assert_eq(harness_run(driver, &op), -EBADF);
    remove_directory(dir, "f");
}

EACH_PROFILE(driver_ops, file_reads_and_writes_are_those_of_the_system_calls, .timeout = 30)
{
    int dir = open_directory();
    int fd = openat(dir, "f", O_RDWR | O_CREAT, 0600);
    struct numio_op op;
    char buffer[64] = { 0 };
    numio_op_write(&op, fd, "hello world", 11, -1);
    cr_assert_eq(harness_run(driver, &op), 11);
    cr_assert_eq(lseek(fd, 0, SEEK_CUR), 11, "-1 moves the file's position");
    numio_op_write(&op, fd, "HELLO", 5, 0);
    cr_assert_eq(harness_run(driver, &op), 5);
    cr_assert_eq(lseek(fd, 0, SEEK_CUR), 11, "an offset does not");
    numio_op_read(&op, fd, buffer, sizeof buffer, 0);
    cr_assert_eq(harness_run(driver, &op), 11);
    cr_assert_str_eq(buffer, "HELLO world");
    numio_op_read(&op, fd, buffer, 5, 6);
    cr_assert_eq(harness_run(driver, &op), 5);
    cr_assert_eq(memcmp(buffer, "world", 5), 0);
    numio_op_read(&op, fd, buffer, sizeof buffer, -1);
    cr_assert_eq(harness_run(driver, &op), 0, "the position is at the end");
    numio_op_read(&op, fd, buffer, sizeof buffer, 1000);
    cr_assert_eq(harness_run(driver, &op), 0);
    numio_op_read(&op, -1, buffer, sizeof buffer, 0);
    cr_assert_eq(harness_run(driver, &op), -EBADF);
    numio_op_read(&op, dir, buffer, sizeof buffer, 0);
    cr_assert_eq(harness_run(driver, &op), -EISDIR);
    numio_op_read(&op, fd, (void *)8, 11, 0);
    cr_assert_eq(harness_run(driver, &op), -EFAULT);
    cr_assert_eq(close(fd), 0);
    remove_directory(dir, "f");
}

EACH_PROFILE(driver_ops, vectors_gather_and_scatter, .timeout = 30)
{
    int dir = open_directory();
    int fd = openat(dir, "f", O_RDWR | O_CREAT, 0600);
    struct numio_op op;
    char a[4] = "abc", b[5] = "defg", x[3] = { 0 }, y[8] = { 0 };
    struct iovec out[] = { { a, 3 }, { b, 4 } };
    struct iovec in[] = { { x, 2 }, { y, sizeof y } };
    numio_op_writev(&op, fd, out, 2, 10);
    cr_assert_eq(harness_run(driver, &op), 7);
    numio_op_readv(&op, fd, in, 2, 11);
    cr_assert_eq(harness_run(driver, &op), 6);
    cr_assert_eq(memcmp(x, "bc", 2), 0);
    cr_assert_eq(memcmp(y, "defg", 4), 0);
    numio_op_readv(&op, fd, in, 1, 10);
    cr_assert_eq(harness_run(driver, &op), 2, "all of it from the page cache");
    cr_assert_eq(close(fd), 0);
    remove_directory(dir, "f");
}

EACH_PROFILE(driver_ops, sync_fallocate_and_statx_do_what_they_say, .timeout = 30)
{
    int dir = open_directory();
    int fd = openat(dir, "f", O_RDWR | O_CREAT, 0600);
    struct numio_op op;
    struct statx stat = { 0 };
    numio_op_fallocate(&op, fd, 0, 0, 12345);
    cr_assert_eq(harness_run(driver, &op), 0);
    numio_op_fsync(&op, fd);
    cr_assert_eq(harness_run(driver, &op), 0);
    numio_op_fdatasync(&op, fd);
    cr_assert_eq(harness_run(driver, &op), 0);
    numio_op_statx(&op, dir, "f", 0, STATX_SIZE | STATX_MODE, &stat);
    cr_assert_eq(harness_run(driver, &op), 0);
    cr_assert_eq(stat.stx_size, 12345);
    cr_assert_eq(stat.stx_mode & 0777, 0600);
    numio_op_statx(&op, fd, "", AT_EMPTY_PATH, STATX_SIZE, &stat);
    cr_assert_eq(harness_run(driver, &op), 0);
    numio_op_statx(&op, dir, "g", 0, STATX_SIZE, &stat);
    cr_assert_eq(harness_run(driver, &op), -ENOENT);
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    numio_op_fsync(&op, pipes[0]);
    cr_assert_eq(harness_run(driver, &op), -EINVAL);
    numio_op_fallocate(&op, pipes[1], 0, 0, 1);
    cr_assert_eq(harness_run(driver, &op), -ESPIPE);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    cr_assert_eq(close(fd), 0);
    remove_directory(dir, "f");
}

EACH_PROFILE(driver_ops, a_pipe_is_waited_for, .timeout = 30)
{
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    struct numio_op op, other;
    char buffer[8];
    numio_op_read(&op, pipes[0], buffer, sizeof buffer, 0); /* the offset means nothing */
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 30), "there is nothing to read yet");
    numio_op_write(&other, pipes[1], "xyz", 3, -1);
    cr_assert_eq(harness_run(driver, &other), 3);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, 3);
    cr_assert_eq(close(pipes[1]), 0);
    numio_op_read(&op, pipes[0], buffer, sizeof buffer, -1);
    cr_assert_eq(harness_run(driver, &op), 0, "the writer is gone");
    (void)close(pipes[0]);
}

EACH_PROFILE(driver_ops, a_full_pipe_is_waited_for, .timeout = 30)
{
    int pipes[2];
    static char big[1 << 17];
    cr_assert_eq(pipe(pipes), 0);
    int room = fcntl(pipes[1], F_GETPIPE_SZ);
    cr_assert_eq(write(pipes[1], big, (size_t)room), room);
    struct numio_op op;
    numio_op_write(&op, pipes[1], "late", 4, -1);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 30), "the pipe is full");
    cr_assert_eq(read(pipes[0], big, (size_t)room), room);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, 4);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)close(pipes[0]);
    numio_op_write(&op, pipes[1], "never", 5, -1);
    cr_assert_eq(harness_run(driver, &op), -EPIPE);
    (void)close(pipes[1]);
}

EACH_PROFILE(driver_ops, an_eventfd_is_waited_for, .timeout = 30)
{
    int fd = eventfd(0, 0);
    uint64_t value = 0, one = 1;
    struct numio_op op, other;
    numio_op_read(&op, fd, &value, sizeof value, -1);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 30));
    numio_op_write(&other, fd, &one, sizeof one, -1);
    cr_assert_eq(harness_run(driver, &other), 8);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(value, 1);
    (void)close(fd);
}

static int listen_somewhere(struct sockaddr_in *ret_address)
{
    socklen_t bytes = sizeof *ret_address;
    *ret_address =
        (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)ret_address, sizeof *ret_address), 0);
    cr_assert_eq(listen(fd, 16), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)ret_address, &bytes), 0);
    return fd;
}

struct pair {
    int listener, client, server;
};

static struct pair connect_pair(struct nio_driver *driver)
{
    struct sockaddr_in address, peer;
    socklen_t peer_bytes = sizeof peer;
    struct numio_op accept_op, connect_op;
    struct pair pair = { .listener = listen_somewhere(&address) };
    numio_op_accept(&accept_op, pair.listener, (struct sockaddr *)&peer, &peer_bytes, SOCK_CLOEXEC);
    harness_submit(driver, &accept_op);
    cr_assert_not(harness_wait(driver, &accept_op, 30), "nobody has connected yet");
    pair.client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    numio_op_connect(&connect_op, pair.client, (struct sockaddr *)&address, sizeof address);
    cr_assert_eq(harness_run(driver, &connect_op), 0);
    cr_assert(harness_wait(driver, &accept_op, 5000));
    pair.server = accept_op._result;
    cr_assert_geq(pair.server, 0);
    cr_assert_eq(peer_bytes, sizeof peer);
    struct sockaddr_in own;
    socklen_t own_bytes = sizeof own;
    cr_assert_eq(getsockname(pair.client, (struct sockaddr *)&own, &own_bytes), 0);
    cr_assert_eq(peer.sin_port, own.sin_port, "accept tells who connected");
    cr_assert_eq(fcntl(pair.server, F_GETFD), FD_CLOEXEC);
    cr_assert_eq(fcntl(pair.server, F_GETFL) & O_NONBLOCK, 0);
    cr_assert_eq(fcntl(pair.client, F_GETFL) & O_NONBLOCK, 0, "connect leaves the flags alone");
    return pair;
}

static void close_pair(struct pair pair)
{
    (void)close(pair.listener);
    (void)close(pair.client);
    (void)close(pair.server);
}

EACH_PROFILE(driver_ops, tcp_connects_sends_receives_and_ends, .timeout = 30)
{
    struct pair pair = connect_pair(driver);
    struct numio_op op, other;
    char buffer[16] = { 0 };
    numio_op_recv(&op, pair.server, buffer, sizeof buffer, 0);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 30));
    numio_op_send(&other, pair.client, "ping", 4, 0);
    cr_assert_eq(harness_run(driver, &other), 4);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, 4);
    cr_assert_str_eq(buffer, "ping");
    numio_op_recv(&op, pair.server, buffer, sizeof buffer, MSG_DONTWAIT);
    cr_assert_eq(harness_run(driver, &op), -EAGAIN, "MSG_DONTWAIT does not wait");
    numio_op_write(&op, pair.server, "pong", 4, -1);
    cr_assert_eq(harness_run(driver, &op), 4);
    numio_op_read(&op, pair.client, buffer, sizeof buffer, -1);
    cr_assert_eq(harness_run(driver, &op), 4);
    numio_op_shutdown(&op, pair.client, SHUT_WR);
    cr_assert_eq(harness_run(driver, &op), 0);
    numio_op_recv(&op, pair.server, buffer, sizeof buffer, 0);
    cr_assert_eq(harness_run(driver, &op), 0, "the end of the stream");
    numio_op_send(&op, pair.client, "x", 1, 0);
    cr_assert_eq(harness_run(driver, &op), -EPIPE, "and no SIGPIPE");
    close_pair(pair);
    numio_op_send(&op, pair.client, "x", 1, 0);
    cr_assert_eq(harness_run(driver, &op), -EBADF);
}

EACH_PROFILE(driver_ops, messages_carry_vectors_and_descriptors, .timeout = 30)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)),
                              .cmsg_level = SOL_SOCKET,
                              .cmsg_type = SCM_RIGHTS } };
    memcpy(CMSG_DATA(&control.header), &pair[0], sizeof(int));
    char a[] = "ab", b[] = "cde", in[16];
    struct iovec out[] = { { a, 2 }, { b, 3 } }, into = { in, sizeof in };
    struct msghdr message = { .msg_iov = out,
                              .msg_iovlen = 2,
                              .msg_control = &control,
                              .msg_controllen = sizeof control.bytes };
    struct msghdr received = { .msg_iov = &into,
                               .msg_iovlen = 1,
                               .msg_control = &control,
                               .msg_controllen = sizeof control.bytes };
    struct numio_op op, other;
    numio_op_recvmsg(&other, pair[1], &received, 0);
    harness_submit(driver, &other);
    cr_assert_not(harness_wait(driver, &other, 30));
    numio_op_sendmsg(&op, pair[0], &message, 0);
    cr_assert_eq(harness_run(driver, &op), 5);
    cr_assert(harness_wait(driver, &other, 5000));
    cr_assert_eq(other._result, 5);
    cr_assert_eq(memcmp(in, "abcde", 5), 0);
    int fd;
    memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
    cr_assert_geq(fcntl(fd, F_GETFD), 0, "a descriptor came along");
    (void)close(fd);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

EACH_PROFILE(driver_ops, recv_with_waitall_brings_all, .timeout = 30)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct numio_op op;
    char in[8] = { 0 };
    numio_op_recv(&op, pair[1], in, 6, MSG_WAITALL);
    harness_submit(driver, &op);
    cr_assert_eq(write(pair[0], "abc", 3), 3);
    cr_assert_not(harness_wait(driver, &op, 30), "half of it has come");
    cr_assert_eq(write(pair[0], "def", 3), 3);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, 6);
    cr_assert_str_eq(in, "abcdef");
    numio_op_recv(&op, pair[1], in, 6, MSG_WAITALL);
    harness_submit(driver, &op);
    cr_assert_eq(write(pair[0], "gh", 2), 2);
    cr_assert_not(harness_wait(driver, &op, 30));
    (void)close(pair[0]);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, 2, "what came before the end");
    (void)close(pair[1]);
}

EACH_PROFILE(driver_ops, a_refused_connection_and_a_reset_are_told, .timeout = 30)
{
    struct sockaddr_in address;
    int listener = listen_somewhere(&address);
    (void)close(listener);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    struct numio_op op;
    numio_op_connect(&op, client, (struct sockaddr *)&address, sizeof address);
    cr_assert_eq(harness_run(driver, &op), -ECONNREFUSED);
    (void)close(client);
    struct pair pair = connect_pair(driver);
    char buffer[4];
    numio_op_recv(&op, pair.server, buffer, sizeof buffer, 0);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 20));
    struct linger abort_at_close = { .l_onoff = 1 };
    cr_assert_eq(
        setsockopt(pair.client, SOL_SOCKET, SO_LINGER, &abort_at_close, sizeof abort_at_close), 0);
    cr_assert_eq(close(pair.client), 0);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, -ECONNRESET);
    pair.client = -1;
    close_pair(pair);
}

EACH_PROFILE(driver_ops, reading_and_writing_one_socket_do_not_disturb_each_other, .timeout = 30)
{
    int pair[2];
    static char big[1 << 20];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    while (send(pair[0], big, sizeof big, MSG_DONTWAIT) > 0)
        ;
    struct numio_op reading, writing;
    char in[4];
    numio_op_recv(&reading, pair[0], in, sizeof in, 0);
    numio_op_send(&writing, pair[0], "tail", 4, 0);
    harness_submit(driver, &reading);
    harness_submit(driver, &writing);
    cr_assert_not(harness_wait(driver, &reading, 30));
    cr_assert_not(nio_op_is_done(&writing));
    cr_assert_eq(write(pair[1], "in", 2), 2);
    cr_assert(harness_wait(driver, &reading, 5000));
    cr_assert_eq(reading._result, 2);
    cr_assert_not(nio_op_is_done(&writing), "there is no room yet");
    while (recv(pair[1], big, sizeof big, MSG_DONTWAIT) > 0)
        ;
    cr_assert(harness_wait(driver, &writing, 5000));
    cr_assert_eq(writing._result, 4);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

EACH_PROFILE(driver_ops, poll_tells_the_events_that_hold, .timeout = 30)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct numio_op op;
    numio_op_poll_fd(&op, pair[0], POLLOUT);
    cr_assert_eq(harness_run(driver, &op), POLLOUT);
    numio_op_poll_fd(&op, pair[0], POLLIN);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 30));
    cr_assert_eq(write(pair[1], "x", 1), 1);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, POLLIN);
    (void)close(pair[1]);
    numio_op_poll_fd(&op, pair[0], POLLIN | POLLRDHUP);
    cr_assert_eq(harness_run(driver, &op), POLLIN | POLLHUP | POLLRDHUP);
    (void)close(pair[0]);
    numio_op_poll_fd(&op, pair[0], POLLIN);
    cr_assert_eq(harness_run(driver, &op), -EBADF);
}

EACH_PROFILE(driver_ops, nonblocking_descriptors_are_waited_for_as_well, .timeout = 30)
{
    int pair[2], pipes[2];
    char byte;
    struct numio_op ops[3];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    cr_assert_eq(pipe2(pipes, O_NONBLOCK), 0);
    numio_op_recv(&ops[0], pair[0], &byte, 1, 0);
    numio_op_read(&ops[1], pair[1], &byte, 1, -1);
    numio_op_read(&ops[2], pipes[0], &byte, 1, -1);
    for (int i = 0; i < 3; i++)
        harness_submit(driver, &ops[i]);
    cr_assert_not(harness_wait(driver, &ops[0], 30));
    for (int i = 0; i < 3; i++)
        cr_assert_not(nio_op_is_done(&ops[i]));
    cr_assert_eq(write(pair[0], "x", 1), 1);
    cr_assert_eq(write(pair[1], "y", 1), 1);
    cr_assert_eq(write(pipes[1], "z", 1), 1);
    for (int i = 0; i < 3; i++) {
        cr_assert(harness_wait(driver, &ops[i], 5000));
        cr_assert_eq(ops[i]._result, 1);
    }
    for (int i = 0; i < 2; i++) {
        (void)close(pair[i]);
        (void)close(pipes[i]);
    }
}

EACH_PROFILE(driver_ops, a_unix_listener_with_a_full_backlog_is_waited_for, .timeout = 30)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    (void)snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "numio-driver-%d",
                   (int)getpid());
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(listener, 0), 0);
    int clients[2];
    struct numio_op ops[2];
    for (int i = 0; i < 2; i++) {
        clients[i] = socket(AF_UNIX, SOCK_STREAM, 0);
        numio_op_connect(&ops[i], clients[i], (struct sockaddr *)&address, sizeof address);
        harness_submit(driver, &ops[i]);
    }
    cr_assert(harness_wait(driver, &ops[0], 5000));
    cr_assert_eq(ops[0]._result, 0);
    cr_assert_not(harness_wait(driver, &ops[1], 50), "the backlog is full");
    int server = accept(listener, NULL, NULL);
    cr_assert(harness_wait(driver, &ops[1], 5000));
    cr_assert_eq(ops[1]._result, 0);
    (void)close(server);
    (void)close(clients[0]);
    (void)close(clients[1]);
    (void)close(listener);
}

EACH_PROFILE(driver_ops, a_timeout_takes_at_least_its_time, .timeout = 30)
{
    struct numio_op op;
    for (uint64_t delay_ns = 0; delay_ns <= 4000000; delay_ns += 2000000) {
        uint64_t start_ns = nio_now_ns();
        numio_op_timeout(&op, delay_ns);
        cr_assert_eq(harness_run(driver, &op), -ETIME);
        cr_assert_geq(nio_now_ns() - start_ns, delay_ns);
    }
}

EACH_PROFILE(driver_ops, timeouts_end_in_the_order_of_their_deadlines, .timeout = 30)
{
    enum { COUNT = 5 };
    struct numio_op ops[COUNT];
    static const uint64_t delays_ms[COUNT] = { 25, 5, 45, 15, 35 };
    static const int order[COUNT] = { 1, 3, 0, 4, 2 };
    for (int i = 0; i < COUNT; i++) {
        numio_op_timeout(&ops[i], delays_ms[i] * 1000000);
        harness_submit(driver, &ops[i]);
    }
    cr_assert_eq(nio_driver_in_flight(driver), COUNT);
    for (int i = 0; i < COUNT; i++) {
        while (nio_driver_reap(driver, 1) == 0)
            nio_driver_park(driver, -1);
        for (int j = 0; j < COUNT; j++)
            cr_assert_eq(nio_op_is_done(&ops[order[j]]), j <= i);
    }
}

EACH_PROFILE(driver_ops, an_ended_operation_can_be_started_again, .timeout = 30)
{
    struct numio_op op, timeout;
    numio_op_nop(&op);
    numio_op_timeout(&timeout, 1000000);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(harness_run(driver, &op), 0);
        cr_assert_eq(harness_run(driver, &timeout), -ETIME);
    }
}

EACH_PROFILE(driver_ops, counters_count_bytes_and_operations, .timeout = 30)
{
    int pair[2];
    char in[8];
    struct numio_op op;
    struct nio_driver_counters counters;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    numio_op_send(&op, pair[0], "12345", 5, 0);
    cr_assert_eq(harness_run(driver, &op), 5);
    numio_op_recv(&op, pair[1], in, 3, 0);
    cr_assert_eq(harness_run(driver, &op), 3);
    numio_op_recv(&op, -1, in, 3, 0);
    cr_assert_eq(harness_run(driver, &op), -EBADF);
    nio_driver_counters(driver, &counters);
    cr_assert_eq(counters.bytes_out, 5);
    cr_assert_eq(counters.bytes_in, 3);
    cr_assert_geq(counters.sqes, 3);
    cr_assert_geq(counters.cqes, 3);
    cr_assert_eq(counters.reaped_for, 0);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

Test(driver_ops, only_operations_with_a_descriptor_for_a_result_make_one)
{
    struct numio_op op;
    numio_op_accept(&op, 0, NULL, NULL, 0);
    cr_assert(nio_op_makes_fd(&op));
    numio_op_openat(&op, AT_FDCWD, "/", O_RDONLY, 0);
    cr_assert(nio_op_makes_fd(&op));
    numio_op_read(&op, 0, NULL, 0, 0);
    cr_assert_not(nio_op_makes_fd(&op));
    numio_op_close(&op, 0);
    cr_assert_not(nio_op_makes_fd(&op));
}

/* The images that are filled by words, against liburing's own. */
struct transfer {
    int fd, flags;
    void *buf;
    unsigned len;
    uint64_t off;
};

static void prep_read(struct io_uring_sqe *sqe, void *arg)
{
    const struct transfer *t = arg;
    io_uring_prep_read(sqe, t->fd, t->buf, t->len, t->off);
}

static void prep_write(struct io_uring_sqe *sqe, void *arg)
{
    const struct transfer *t = arg;
    io_uring_prep_write(sqe, t->fd, t->buf, t->len, t->off);
}

static void prep_recv(struct io_uring_sqe *sqe, void *arg)
{
    const struct transfer *t = arg;
    io_uring_prep_recv(sqe, t->fd, t->buf, t->len, t->flags);
}

static void prep_send(struct io_uring_sqe *sqe, void *arg)
{
    const struct transfer *t = arg;
    io_uring_prep_send(sqe, t->fd, t->buf, t->len, t->flags);
}

Test(driver_ops, transfers_have_the_images_that_liburing_makes)
{
    char byte;
    struct transfer t = { -7, -1, &byte, 0x7ffff000, UINT64_MAX - 5 };
    struct numio_op ours, theirs;
    memset(&ours, 0xff, sizeof ours);
    numio_op_read(&ours, t.fd, t.buf, SIZE_MAX, (int64_t)t.off);
    numio_op_prep(&theirs, prep_read, &t);
    cr_assert_arr_eq(ours._sqe, theirs._sqe, sizeof ours._sqe, "read");
    numio_op_write(&ours, t.fd, t.buf, SIZE_MAX, (int64_t)t.off);
    numio_op_prep(&theirs, prep_write, &t);
    cr_assert_arr_eq(ours._sqe, theirs._sqe, sizeof ours._sqe, "write");
    numio_op_recv(&ours, t.fd, t.buf, SIZE_MAX, t.flags);
    numio_op_prep(&theirs, prep_recv, &t);
    cr_assert_arr_eq(ours._sqe, theirs._sqe, sizeof ours._sqe, "recv");
    numio_op_send(&ours, t.fd, t.buf, SIZE_MAX, t.flags);
    numio_op_prep(&theirs, prep_send, &t);
    cr_assert_arr_eq(ours._sqe, theirs._sqe, sizeof ours._sqe, "send");
}

EACH_PROFILE(driver_ops, a_park_ends_before_the_timer_by_what_it_was_told, .timeout = 30)
{
    const uint64_t early_ns = 40000000, delay_ns = 60000000;
    struct numio_op op;
    (void)nio_driver_reap(driver, 1);
    nio_driver_park(driver, 0);
    cr_assert_eq(nio_driver_park_until_ns(driver), NIO_TIME_NONE, "there was no timer");
    uint64_t start_ns = nio_now_ns();
    numio_op_timeout(&op, delay_ns);
    harness_submit(driver, &op);
    uint64_t deadline_ns = nio_driver_next_timer_ns(driver);
    nio_driver_park_early(driver, early_ns);
    nio_driver_park(driver, -1);
    uint64_t until_ns = nio_driver_park_until_ns(driver);
    cr_assert(until_ns == deadline_ns - early_ns && until_ns - start_ns >= delay_ns - early_ns);
    cr_assert_geq(nio_now_ns(), until_ns);
    /* The timer itself is as late as ever. */
    while (nio_driver_reap(driver, 8) == 0)
        nio_driver_park(driver, -1); /* returns at once now */
    cr_assert_geq(nio_now_ns(), deadline_ns);
    nio_driver_park_early(driver, 0);
    nio_driver_park(driver, 0);
    cr_assert_eq(nio_driver_park_until_ns(driver), NIO_TIME_NONE);
}
