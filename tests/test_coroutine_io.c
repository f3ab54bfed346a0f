/* SPDX-License-Identifier: MIT */
/* Promises of numio/io.h: each call gives what the system call of its name gives, with each
 * profile.  Coroutines note the first line that went wrong; the test's thread asserts. */
#include "tests/runtime_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "runtime/base/compiler.h"

enum { BIG_BYTES = 1 << 20, SMALL_BYTES = 4096 };

/* What a body of a test works with and leaves. */
struct note {
    int line; /* the first that went wrong, 0 if none did */
    int64_t got;
    int fds[4];
    _Atomic uint32_t words[4];
    char *bytes;
    char dir[32];
};

#define EXPECT(note, got_value, condition)                                                         \
    do {                                                                                           \
        int64_t got = (got_value);                                                                 \
        if (!(condition)) {                                                                        \
            (note)->line = __LINE__;                                                               \
            (note)->got = got;                                                                     \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)
#define EXPECT_EQ(note, value, wanted) EXPECT(note, value, got == (int64_t)(wanted))

static void assert_fine(const struct note *note)
{
    cr_assert_eq(note->line, 0, "line %d got %ld (%s)", note->line, (long)note->got,
                 note->got < 0 ? strerrorname_np((int)-note->got) : "no error");
}

static void run(struct numio_runtime *runtime, int64_t (*body)(void *arg), struct note *note)
{
    int64_t result = numio_block_on(numio_runtime_handle(runtime), body, note);
    assert_fine(note);
    cr_assert_eq(result, 0, "%ld", (long)result);
}

static struct numio_join *spawn(struct numio_runtime *runtime, int64_t (*body)(void *arg),
                                struct note *note)
{
    struct numio_join *join = NULL;
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), body, note, NULL, &join), 0);
    return join;
}

static char *pattern(size_t bytes)
{
    char *memory = malloc(bytes);
    cr_assert_not_null(memory);
    for (size_t i = 0; i < bytes; i++)
        memory[i] = (char)(i * 31 + (i >> 8));
    return memory;
}

/* ---- files -------------------------------------------------------------------------------- */

static int64_t use_file(void *arg)
{
    struct note *note = arg;
    char buffer[64] = { 0 };
    int dir = (int)numio_open(note->dir, O_RDONLY | O_DIRECTORY, 0);
    EXPECT(note, dir, dir >= 0);
    int fd = (int)numio_openat(dir, "file", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    EXPECT(note, fd, fd >= 0);
    note->fds[0] = fd;
    EXPECT(note, fcntl(fd, F_GETFD), got == FD_CLOEXEC);
    EXPECT_EQ(note, numio_openat(dir, "file", O_RDWR | O_CREAT | O_EXCL, 0640), -EEXIST);
    EXPECT_EQ(note, numio_openat(dir, "none", O_RDWR, 0), -ENOENT);
    EXPECT_EQ(note, numio_open("/proc/self/exe/none", O_RDONLY, 0), -ENOTDIR);
    EXPECT_EQ(note, numio_pwrite(fd, "0123456789", 10, 0), 10);
    EXPECT_EQ(note, numio_pread(fd, buffer, 4, 3), 4);
    EXPECT(note, memcmp(buffer, "3456", 4), got == 0);
    EXPECT_EQ(note, numio_pread(fd, buffer, sizeof buffer, 8), 2);
    EXPECT_EQ(note, numio_pread(fd, buffer, sizeof buffer, 10), 0);
    EXPECT_EQ(note, numio_pread(fd, buffer, 0, 0), 0);
    /* the file's own position, shared with the plain calls */
    EXPECT_EQ(note, numio_write(fd, "ab", 2), 2);
    EXPECT_EQ(note, lseek(fd, 0, SEEK_CUR), 2);
    EXPECT_EQ(note, numio_read(fd, buffer, 3), 3);
    EXPECT(note, memcmp(buffer, "234", 3), got == 0);
    EXPECT_EQ(note, lseek(fd, 0, SEEK_CUR), 5);
    EXPECT_EQ(note, numio_read(dir, buffer, 3), -EISDIR);
    EXPECT_EQ(note, numio_close(dir), 0);
    EXPECT_EQ(note, numio_read(dir, buffer, 3), -EBADF);
    EXPECT_EQ(note, numio_close(dir), -EBADF);
    EXPECT_EQ(note, numio_close(-1), -EBADF);
    return 0;
}

static int64_t use_vectors(void *arg)
{
    struct note *note = arg;
    int fd = note->fds[0];
    char a[3];
    char b[5];
    struct iovec out[] = { { note->bytes, 3 }, { note->bytes + 3, 0 }, { note->bytes + 3, 7 } };
    struct iovec in[] = { { a, 3 }, { b, 5 } };
    EXPECT_EQ(note, numio_writev(fd, out, 3, 100), 10);
    EXPECT_EQ(note, numio_readv(fd, in, 2, 100), 8);
    EXPECT(note, memcmp(a, note->bytes, 3) || memcmp(b, note->bytes + 3, 5), got == 0);
    EXPECT_EQ(note, numio_readv(fd, in, 2, 106), 4);
    EXPECT_EQ(note, numio_readv(fd, in, 0, 0), 0);
    EXPECT_EQ(note, lseek(fd, 100, SEEK_SET), 100);
    EXPECT_EQ(note, numio_readv(fd, in, 2, -1), 8);
    EXPECT_EQ(note, numio_writev(fd, out, 1, -1), 3);
    EXPECT_EQ(note, lseek(fd, 0, SEEK_CUR), 111);
    return 0;
}

static int64_t use_metadata(void *arg)
{
    struct note *note = arg;
    int fd = note->fds[0];
    struct statx got_stat = { 0 };
    struct stat stat;
    EXPECT_EQ(note, numio_fsync(fd), 0);
    EXPECT_EQ(note, numio_fdatasync(fd), 0);
    EXPECT_EQ(note, numio_fsync(-1), -EBADF);
    EXPECT_EQ(note, numio_fdatasync(note->fds[1]), -EINVAL); /* a pipe */
    EXPECT_EQ(note, numio_fallocate(fd, 0, 0, 5000), 0);
    EXPECT_EQ(note, numio_fallocate(fd, 0, 0, 0), -EINVAL);
    EXPECT_EQ(note, numio_fallocate(note->fds[2], 0, 0, 1), -ESPIPE);
    EXPECT_EQ(note, numio_statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &got_stat), 0);
    EXPECT_EQ(note, fstat(fd, &stat), 0);
    EXPECT_EQ(note, got_stat.stx_size, 5000);
    EXPECT_EQ(note, got_stat.stx_ino, stat.st_ino);
    EXPECT_EQ(note, got_stat.stx_mode, stat.st_mode);
    EXPECT_EQ(note, numio_statx(AT_FDCWD, "/nowhere", 0, STATX_SIZE, &got_stat), -ENOENT);
    return 0;
}

static int64_t use_all_forms(void *arg)
{
    struct note *note = arg;
    int fd = note->fds[0];
    char *buffer = malloc(BIG_BYTES);
    EXPECT(note, buffer != NULL, got == 1);
    EXPECT_EQ(note, numio_pwrite_all(fd, note->bytes, BIG_BYTES, 7), BIG_BYTES);
    EXPECT_EQ(note, numio_pread_all(fd, buffer, BIG_BYTES, 7), BIG_BYTES);
    EXPECT(note, memcmp(buffer, note->bytes, BIG_BYTES), got == 0);
    EXPECT_EQ(note, numio_pread_all(fd, buffer, BIG_BYTES, BIG_BYTES), 7);
    EXPECT_EQ(note, numio_pread_all(fd, buffer, 10, BIG_BYTES + 7), 0);
    EXPECT_EQ(note, numio_pread_all(fd, buffer, 0, 0), 0);
    EXPECT_EQ(note, lseek(fd, 0, SEEK_SET), 0);
    EXPECT_EQ(note, numio_write_all(fd, note->bytes, 100), 100);
    EXPECT_EQ(note, numio_pread_all(fd, buffer, 50, -1), 50);
    EXPECT_EQ(note, lseek(fd, 0, SEEK_CUR), 150);
    EXPECT_EQ(note, numio_pread_all(-1, buffer, 1, 0), -EBADF);
    EXPECT_EQ(note, numio_pwrite_all(-1, buffer, 1, 0), -EBADF);
    /* more than a request can carry: no less than all there is, or a system call's limit */
    EXPECT_EQ(note, numio_pread(fd, buffer, (1ull << 32) + 10, BIG_BYTES - 93), 100);
    EXPECT_EQ(note, numio_close(fd), 0);
    free(buffer);
    return 0;
}

FIXTURE_EACH(coroutine_io, files_are_used_as_by_the_system_calls, .timeout = 20)
{
    struct note note = { .dir = "/tmp/numio-io-XXXXXX", .bytes = pattern(BIG_BYTES) };
    char path[64];
    cr_assert_not_null(mkdtemp(note.dir));
    cr_assert_eq(pipe(note.fds + 1), 0);
    run(runtime, use_file, &note);
    run(runtime, use_vectors, &note);
    run(runtime, use_metadata, &note);
    run(runtime, use_all_forms, &note);
    (void)snprintf(path, sizeof path, "%s/file", note.dir); /* it fits */
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(rmdir(note.dir), 0);
    (void)close(note.fds[1]);
    (void)close(note.fds[2]);
    free(note.bytes);
}

static int64_t fill_the_disk(void *arg)
{
    struct note *note = arg;
    EXPECT_EQ(note, numio_write(note->fds[0], "x", 1), -ENOSPC);
    EXPECT_EQ(note, numio_write_all(note->fds[0], "x", 1), -ENOSPC);
    EXPECT_EQ(note, numio_pwrite_all(note->fds[0], "x", 1, 0), -ENOSPC);
    return 0;
}

FIXTURE_EACH(coroutine_io, a_full_disk_is_told, .timeout = 10)
{
    struct note note = { .fds = { open("/dev/full", O_WRONLY | O_CLOEXEC) } };
    if (note.fds[0] < 0)
        cr_skip_test("no /dev/full");
    run(runtime, fill_the_disk, &note);
    (void)close(note.fds[0]);
}

/* ---- pipes and short transfers ------------------------------------------------------------ */

static int64_t write_all_of_it(void *arg)
{
    struct note *note = arg;
    EXPECT_EQ(note, numio_write_all(note->fds[1], note->bytes, BIG_BYTES), BIG_BYTES);
    EXPECT_EQ(note, numio_close(note->fds[1]), 0);
    return 0;
}

static int64_t read_odd_pieces(void *arg)
{
    struct note *note = arg;
    char buffer[7777];
    size_t done = 0;
    int64_t n;
    for (size_t i = 1; (n = numio_read(note->fds[0], buffer, 1 + i * 97 % sizeof buffer)) > 0;
         i++) {
        EXPECT(note, memcmp(buffer, note->bytes + done, (size_t)n), got == 0);
        done += (size_t)n;
    }
    EXPECT_EQ(note, n, 0);
    EXPECT_EQ(note, done, BIG_BYTES);
    return 0;
}

FIXTURE_EACH(coroutine_io, a_small_pipe_carries_everything_in_pieces, .timeout = 20)
{
    struct note note = { .bytes = pattern(BIG_BYTES) };
    cr_assert_eq(pipe(note.fds), 0);
    cr_assert_geq(fcntl(note.fds[0], F_SETPIPE_SZ, SMALL_BYTES), 0);
    struct numio_join *writer = spawn(runtime, write_all_of_it, &note);
    run(runtime, read_odd_pieces, &note);
    cr_assert_eq(numio_join_wait(&writer, -1), 0);
    assert_fine(&note);
    (void)close(note.fds[0]);
    free(note.bytes);
}

static int64_t send_all_of_it(void *arg)
{
    struct note *note = arg;
    EXPECT_EQ(note, numio_send_all(note->fds[1], note->bytes, BIG_BYTES, 0), BIG_BYTES);
    EXPECT_EQ(note, numio_shutdown(note->fds[1], SHUT_WR), 0);
    return 0;
}

static int64_t recv_all_of_it(void *arg)
{
    struct note *note = arg;
    char *buffer = malloc(BIG_BYTES);
    EXPECT(note, buffer != NULL, got == 1);
    EXPECT_EQ(note, numio_recv_all(note->fds[0], buffer, BIG_BYTES - 10, 0), BIG_BYTES - 10);
    EXPECT_EQ(note, numio_recv_all(note->fds[0], buffer + BIG_BYTES - 10, 100, 0), 10);
    EXPECT(note, memcmp(buffer, note->bytes, BIG_BYTES), got == 0);
    EXPECT_EQ(note, numio_recv_all(note->fds[0], buffer, 100, 0), 0);
    free(buffer);
    return 0;
}

static void carry_over_sockets(struct numio_runtime *runtime, int flags)
{
    struct note note = { .bytes = pattern(BIG_BYTES) };
    int small = SMALL_BYTES;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | flags, 0, note.fds), 0);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(setsockopt(note.fds[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
        cr_assert_eq(setsockopt(note.fds[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    }
    struct numio_join *sender = spawn(runtime, send_all_of_it, &note);
    run(runtime, recv_all_of_it, &note);
    cr_assert_eq(numio_join_wait(&sender, -1), 0);
    assert_fine(&note);
    (void)close(note.fds[0]);
    (void)close(note.fds[1]);
    free(note.bytes);
}

FIXTURE_EACH(coroutine_io, small_socket_buffers_carry_everything_in_pieces, .timeout = 20)
{
    carry_over_sockets(runtime, 0);
}

FIXTURE_EACH(coroutine_io, nonblocking_sockets_are_waited_for, .timeout = 20)
{
    carry_over_sockets(runtime, SOCK_NONBLOCK);
}

static int64_t do_not_wait(void *arg)
{
    struct note *note = arg;
    char buffer[8];
    EXPECT_EQ(note, numio_recv_all(note->fds[0], buffer, 8, MSG_DONTWAIT), -EAGAIN);
    EXPECT_EQ(note, numio_send_all(note->fds[0], note->bytes, BIG_BYTES, MSG_DONTWAIT), -EAGAIN);
    return 0;
}

FIXTURE_EACH(coroutine_io, all_forms_that_may_not_wait_do_not, .timeout = 10)
{
    struct note note = { .bytes = pattern(BIG_BYTES) };
    int small = SMALL_BYTES;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, note.fds), 0);
    cr_assert_eq(setsockopt(note.fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    run(runtime, do_not_wait, &note);
    (void)close(note.fds[0]);
    (void)close(note.fds[1]);
    free(note.bytes);
}

static int64_t write_to_nobody(void *arg)
{
    struct note *note = arg;
    EXPECT_EQ(note, numio_write(note->fds[1], "x", 1), -EPIPE);
    EXPECT_EQ(note, numio_write_all(note->fds[1], "x", 1), -EPIPE);
    EXPECT_EQ(note, numio_send(note->fds[2], "x", 1, 0), -EPIPE);
    EXPECT_EQ(note, numio_send_all(note->fds[2], "x", 1, 0), -EPIPE);
    return 0;
}

FIXTURE_EACH(coroutine_io, writing_to_nobody_is_an_error_and_no_signal, .timeout = 10)
{
    struct note note = { 0 };
    cr_assert_eq(pipe(note.fds), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, note.fds + 2), 0);
    (void)close(note.fds[0]);
    (void)close(note.fds[3]);
    run(runtime, write_to_nobody, &note);
    (void)close(note.fds[1]);
    (void)close(note.fds[2]);
}

/* ---- TCP, UDP, Unix ----------------------------------------------------------------------- */

static int64_t tcp_client(void *arg)
{
    struct note *note = arg;
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    char text[64];
    EXPECT_EQ(note, getsockname(note->fds[0], (struct sockaddr *)&address, &bytes), 0);
    (void)snprintf(text, sizeof text, "127.0.0.1:%d", ntohs(address.sin_port)); /* it fits */
    int fd = (int)numio_tcp_connect(text);
    EXPECT(note, fd, fd >= 0);
    int one = 0;
    bytes = sizeof one;
    EXPECT_EQ(note, getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, &bytes), 0);
    EXPECT(note, one, got != 0);
    EXPECT(note, fcntl(fd, F_GETFD), got & FD_CLOEXEC);
    char buffer[16];
    EXPECT_EQ(note, numio_send(fd, "hello", 5, 0), 5);
    EXPECT_EQ(note, numio_recv(fd, buffer, 2, MSG_PEEK), 2);
    EXPECT_EQ(note, numio_recv_all(fd, buffer, 5, 0), 5);
    EXPECT(note, memcmp(buffer, "HELLO", 5), got == 0);
    EXPECT_EQ(note, numio_recv(fd, buffer, 5, MSG_DONTWAIT), -EAGAIN);
    EXPECT_EQ(note, numio_shutdown(fd, SHUT_WR), 0);
    EXPECT_EQ(note, numio_recv(fd, buffer, 5, 0), 0);
    EXPECT_EQ(note, numio_shutdown(fd, 17), -EINVAL);
    EXPECT_EQ(note, numio_close(fd), 0);
    return 0;
}

static int64_t tcp_server(void *arg)
{
    struct note *note = arg;
    struct sockaddr_in peer = { 0 };
    socklen_t bytes = sizeof peer;
    char buffer[16];
    int fd = (int)numio_accept(note->fds[0], (struct sockaddr *)&peer, &bytes,
                               SOCK_NONBLOCK | SOCK_CLOEXEC);
    EXPECT(note, fd, fd >= 0);
    EXPECT_EQ(note, bytes, sizeof peer);
    EXPECT_EQ(note, peer.sin_family, AF_INET);
    EXPECT_EQ(note, peer.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    EXPECT(note, fcntl(fd, F_GETFL), got & O_NONBLOCK);
    EXPECT(note, fcntl(fd, F_GETFD), got & FD_CLOEXEC);
    EXPECT_EQ(note, numio_recv_all(fd, buffer, 5, 0), 5);
    EXPECT_EQ(note, numio_send_all(fd, "HELLO", 5, 0), 5);
    EXPECT_EQ(note, numio_recv(fd, buffer, 5, 0), 0);
    EXPECT_EQ(note, numio_close(fd), 0);
    return 0;
}

static int listen_here(void)
{
    int fd = numio_tcp_listen("127.0.0.1:0", 0);
    cr_assert_geq(fd, 0, "%s", numio_strerror_detail());
    return fd;
}

FIXTURE_EACH(coroutine_io, tcp_connects_and_talks, .timeout = 20)
{
    struct note server = { .fds = { listen_here() } };
    struct note client = server;
    for (unsigned i = 0; i < 20; i++) {
        struct numio_join *join = spawn(runtime, tcp_server, &server);
        run(runtime, tcp_client, &client);
        cr_assert_eq(numio_join_wait(&join, -1), 0);
        assert_fine(&server);
    }
    (void)close(server.fds[0]);
}

static int64_t meet_refusals(void *arg)
{
    struct note *note = arg;
    struct sockaddr_in address = { .sin_family = AF_INET };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)note->got); /* nobody listens there */
    note->got = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(note, fd, fd >= 0);
    EXPECT_EQ(note, numio_connect(fd, (struct sockaddr *)&address, sizeof address), -ECONNREFUSED);
    EXPECT_EQ(note, numio_accept(fd, NULL, NULL, 0), -EINVAL);
    EXPECT_EQ(note, numio_accept(note->fds[0], NULL, NULL, 0), -ENOTSOCK);
    EXPECT_EQ(note, numio_recv(note->fds[0], &fd, 1, 0), -ENOTSOCK);
    EXPECT_EQ(note, numio_send(note->fds[0], &fd, 1, 0), -ENOTSOCK);
    EXPECT_EQ(note, numio_accept(-1, NULL, NULL, 0), -EBADF);
    EXPECT_EQ(note, numio_close(fd), 0);
    EXPECT_EQ(note, numio_tcp_connect("127.0.0.1"), -EINVAL);
    EXPECT_EQ(note, numio_tcp_connect("localhost:80"), -EINVAL);
    EXPECT_EQ(note, numio_tcp_connect(NULL), -EINVAL);
    return 0;
}

FIXTURE_EACH(coroutine_io, refusals_are_those_of_the_system_calls, .timeout = 10)
{
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    int fd = listen_here();
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    (void)close(fd); /* the port is free now */
    struct note note = { .fds = { open("/dev/null", O_RDWR) }, .got = ntohs(address.sin_port) };
    unsigned fds = fixture_count_fds();
    run(runtime, meet_refusals, &note);
    cr_assert_eq(fixture_count_fds(), fds);
    (void)close(note.fds[0]);
}

Test(coroutine_io, listen_takes_addresses_and_refuses_nonsense, .timeout = 10)
{
    static const char *const good[] = { "127.0.0.1:0", "*:0", "0.0.0.0:0" };
    static const char *const bad[] = {
        "",     ":",      "127.0.0.1",   "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x",
        "[::1", "host:1", "127.0.0.1:-1"
    };
    for (size_t i = 0; i < NIO_ARRAY_LEN(good); i++) {
        int fd = numio_tcp_listen(good[i], 10);
        cr_assert_geq(fd, 0, "%s: %s", good[i], numio_strerror_detail());
        cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        (void)close(fd);
    }
    for (size_t i = 0; i < NIO_ARRAY_LEN(bad); i++)
        cr_assert_eq(numio_tcp_listen(bad[i], 0), -EINVAL, "%s", bad[i]);
    cr_assert_eq(numio_tcp_listen(NULL, 0), -EINVAL);
    cr_assert_eq(numio_tcp_listen("203.0.113.7:0", 0), -EADDRNOTAVAIL);
}

/* The peer goes away in the rudest manner while a read waits. */
static int64_t wait_for_reset(void *arg)
{
    struct note *note = arg;
    char buffer[16];
    int fd = (int)numio_accept(note->fds[0], NULL, NULL, 0);
    EXPECT(note, fd, fd >= 0);
    fixture_set(&note->words[0], 1);
    EXPECT_EQ(note, numio_recv(fd, buffer, sizeof buffer, 0), -ECONNRESET);
    EXPECT_EQ(note, numio_send(fd, "x", 1, MSG_NOSIGNAL), -EPIPE);
    EXPECT_EQ(note, numio_recv(fd, buffer, sizeof buffer, 0), 0);
    EXPECT_EQ(note, numio_close(fd), 0);
    return 0;
}

FIXTURE_EACH(coroutine_io, a_peer_that_resets_is_told, .timeout = 10)
{
    struct note note = { .fds = { listen_here() } };
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    struct linger rude = { .l_onoff = 1, .l_linger = 0 };
    cr_assert_eq(getsockname(note.fds[0], (struct sockaddr *)&address, &bytes), 0);
    int peer = socket(AF_INET, SOCK_STREAM, 0);
    struct numio_join *join = spawn(runtime, wait_for_reset, &note);
    cr_assert_eq(connect(peer, (struct sockaddr *)&address, bytes), 0);
    cr_assert_eq(setsockopt(peer, SOL_SOCKET, SO_LINGER, &rude, sizeof rude), 0);
    cr_assert(fixture_wait(&note.words[0], 1));
    (void)close(peer);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    assert_fine(&note);
    (void)close(note.fds[0]);
}

static int64_t exchange_datagrams(void *arg)
{
    struct note *note = arg;
    struct sockaddr_in to;
    struct sockaddr_in from = { 0 };
    socklen_t bytes = sizeof to;
    char buffer[4];
    EXPECT_EQ(note, getsockname(note->fds[1], (struct sockaddr *)&to, &bytes), 0);
    struct iovec out = { note->bytes, 10 };
    struct iovec in = { buffer, sizeof buffer };
    struct msghdr send = {
        .msg_name = &to, .msg_namelen = bytes, .msg_iov = &out, .msg_iovlen = 1
    };
    struct msghdr recv = {
        .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &in, .msg_iovlen = 1
    };
    EXPECT_EQ(note, numio_sendmsg(note->fds[0], &send, 0), 10);
    EXPECT_EQ(note, numio_recvmsg(note->fds[1], &recv, 0), 4);
    EXPECT(note, recv.msg_flags, got & MSG_TRUNC);
    EXPECT_EQ(note, recv.msg_namelen, sizeof from);
    EXPECT_EQ(note, from.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    EXPECT(note, memcmp(buffer, note->bytes, 4), got == 0);
    EXPECT_EQ(note, numio_recvmsg(note->fds[1], &recv, MSG_DONTWAIT), -EAGAIN);
    return 0;
}

FIXTURE_EACH(coroutine_io, datagrams_carry_addresses_and_are_cut, .timeout = 10)
{
    struct note note = { .bytes = pattern(16) };
    struct sockaddr_in address = { .sin_family = AF_INET };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (unsigned i = 0; i < 2; i++) {
        note.fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        cr_assert_eq(bind(note.fds[i], (struct sockaddr *)&address, sizeof address), 0);
    }
    run(runtime, exchange_datagrams, &note);
    (void)close(note.fds[0]);
    (void)close(note.fds[1]);
    free(note.bytes);
}

/* ---- poll, sleep, the escape hatch -------------------------------------------------------- */

static int64_t poll_and_sleep(void *arg)
{
    struct note *note = arg;
    char byte;
    EXPECT_EQ(note, numio_poll_fd(note->fds[1], POLLOUT), POLLOUT);
    EXPECT_EQ(note, numio_write(note->fds[1], "x", 1), 1);
    EXPECT_EQ(note, numio_poll_fd(note->fds[0], POLLIN), POLLIN);
    EXPECT_EQ(note, numio_read(note->fds[0], &byte, 1), 1);
    EXPECT_EQ(note, numio_close(note->fds[1]), 0);
    EXPECT_EQ(note, numio_poll_fd(note->fds[0], POLLIN), POLLHUP);
    EXPECT_EQ(note, numio_poll_fd(-1, POLLIN), -EBADF);
    EXPECT_EQ(note, numio_sleep_ns(0), 0);
    for (uint64_t ns = 1000; ns <= 10000000; ns *= 10) {
        uint64_t before = nio_now_ns();
        EXPECT_EQ(note, numio_sleep_ns(ns), 0);
        EXPECT(note, (int64_t)(nio_now_ns() - before), got >= (int64_t)ns);
    }
    return 0;
}

FIXTURE_EACH(coroutine_io, poll_and_sleep_wait_as_long_as_they_say, .timeout = 10)
{
    struct note note = { 0 };
    cr_assert_eq(pipe(note.fds), 0);
    run(runtime, poll_and_sleep, &note);
    (void)close(note.fds[0]);
}

static void prepare_tee(struct io_uring_sqe *sqe, void *arg)
{
    const struct note *note = arg;
    io_uring_prep_tee(sqe, note->fds[0], note->fds[3], 64, 0);
}

static void prepare_nop(struct io_uring_sqe *sqe, void *arg)
{
    (void)arg;
    io_uring_prep_nop(sqe);
}

static int64_t use_escape_hatch(void *arg)
{
    struct note *note = arg;
    struct numio_op op = NUMIO_OP_INIT;
    struct numio_status status;
    char buffer[8];
    EXPECT_EQ(note, numio_status(NULL, &status), 0);
    bool has_uring = strcmp(status.driver, "epoll") != 0;
    numio_op_prep(&op, prepare_nop, NULL);
    EXPECT_EQ(note, numio_op_await(&op), 0);
    EXPECT_EQ(note, numio_write(note->fds[1], "copied", 6), 6);
    numio_op_prep(&op, prepare_tee, note);
    EXPECT_EQ(note, numio_op_await(&op), has_uring ? 6 : -ENOSYS);
    if (has_uring)
        EXPECT_EQ(note, numio_read(note->fds[2], buffer, 8), 6);
    return 0;
}

FIXTURE_EACH(coroutine_io, the_escape_hatch_reaches_every_operation, .timeout = 10)
{
    struct note note = { 0 };
    cr_assert_eq(pipe(note.fds), 0);
    cr_assert_eq(pipe(note.fds + 2), 0);
    run(runtime, use_escape_hatch, &note);
    for (unsigned i = 0; i < 4; i++)
        (void)close(note.fds[i]);
}

/* ---- outside of coroutines ---------------------------------------------------------------- */

/* How many of all calls do not say -EINVAL; none of them may touch the descriptor. */
static unsigned not_refused(int fd)
{
    char buffer[8] = { 0 };
    struct iovec iov = { buffer, 8 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    struct sockaddr_in address = { .sin_family = AF_INET };
    struct statx stat;
    struct numio_op op = NUMIO_OP_INIT;
    numio_op_nop(&op);
    const int64_t results[] = { numio_read(fd, buffer, 8),
                                numio_write(fd, buffer, 8),
                                numio_pread(fd, buffer, 8, 0),
                                numio_pwrite(fd, buffer, 8, 0),
                                numio_readv(fd, &iov, 1, 0),
                                numio_writev(fd, &iov, 1, 0),
                                numio_pread_all(fd, buffer, 8, 0),
                                numio_pwrite_all(fd, buffer, 8, 0),
                                numio_write_all(fd, buffer, 8),
                                numio_fsync(fd),
                                numio_fdatasync(fd),
                                numio_fallocate(fd, 0, 0, 8),
                                numio_openat(AT_FDCWD, "/dev/null", O_RDONLY, 0),
                                numio_open("/dev/null", O_RDONLY, 0),
                                numio_statx(AT_FDCWD, "/", 0, STATX_SIZE, &stat),
                                numio_close(fd),
                                numio_accept(fd, NULL, NULL, 0),
                                numio_connect(fd, (struct sockaddr *)&address, sizeof address),
                                numio_recv(fd, buffer, 8, 0),
                                numio_send(fd, buffer, 8, 0),
                                numio_send_all(fd, buffer, 8, 0),
                                numio_recv_all(fd, buffer, 8, 0),
                                numio_recvmsg(fd, &msg, 0),
                                numio_sendmsg(fd, &msg, 0),
                                numio_shutdown(fd, SHUT_RD),
                                numio_poll_fd(fd, POLLIN),
                                numio_sleep_ns(1),
                                numio_op_await(&op),
                                numio_tcp_connect("127.0.0.1:1"),
                                numio_yield_now() };
    unsigned count = 0;
    for (size_t i = 0; i < NIO_ARRAY_LEN(results); i++)
        count += results[i] != -EINVAL;
    return count;
}

static enum numio_poll call_all(void *state, struct numio_context *cx)
{
    unsigned count = not_refused(*(int *)state);
    memcpy(numio_context_output(cx), &count, sizeof count);
    return NUMIO_READY;
}

static int64_t call_all_in_pool(void *arg)
{
    return not_refused(*(int *)arg);
}

FIXTURE_EACH(coroutine_io, outside_of_coroutines_every_call_is_refused, .timeout = 10)
{
    struct numio_handle *handle = numio_runtime_handle(runtime);
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    unsigned fds = fixture_count_fds();
    struct numio_future future = {
        .poll = call_all, .state = &fd, .size = sizeof fd, .output_size = sizeof(unsigned)
    };
    struct numio_join *join;
    unsigned count = 99;
    cr_assert_eq(not_refused(fd), 0);
    cr_assert_eq(numio_spawn(handle, &future, NULL, &join), 0);
    cr_assert_eq(numio_join_await_output(&join, &count, sizeof count), 0);
    cr_assert_eq(count, 0);
    cr_assert_eq(numio_spawn_blocking(handle, call_all_in_pool, &fd, NULL, &join), 0);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    cr_assert_eq(fixture_count_fds(), fds);
    (void)close(fd);
}

/* ---- limits ------------------------------------------------------------------------------- */

static int64_t accept_for_ever(void *arg)
{
    struct note *note = arg;
    for (;;) { /* until it is aborted */
        int fd = (int)numio_accept(note->fds[0], NULL, NULL, SOCK_CLOEXEC);
        if (fd == -ECANCELED)
            return 0;
        if (fd == -EMFILE) {
            fixture_set(&note->words[0], 1);
            if (numio_sleep_ns(1000000) < 0)
                return 0;
            continue;
        }
        EXPECT(note, fd, fd >= 0);
        EXPECT_EQ(note, numio_close(fd), 0);
        fixture_set(&note->words[1], fixture_get(&note->words[1]) + 1);
    }
}

/* The first descriptor that is free: a limit of one more leaves no room. */
static rlim_t next_fd(void)
{
    int fd = dup(0);
    (void)close(fd);
    return (rlim_t)fd;
}

FIXTURE_EACH(coroutine_io, without_descriptors_accept_says_so_and_the_server_goes_on, .timeout = 20)
{
    struct note note = { .fds = { listen_here() } };
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    struct rlimit before;
    cr_assert_eq(getsockname(note.fds[0], (struct sockaddr *)&address, &bytes), 0);
    int clients[3];
    for (unsigned i = 0; i < 3; i++)
        clients[i] = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = { next_fd(), before.rlim_max }; /* while no accept has reserved it */
    struct numio_join *join = spawn(runtime, accept_for_ever, &note);
    cr_assert_eq(connect(clients[0], (struct sockaddr *)&address, bytes), 0);
    cr_assert(fixture_wait(&note.words[1], 1));
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    /* an accept that waits already may go by the limit of its start: one more can succeed */
    cr_assert_eq(connect(clients[1], (struct sockaddr *)&address, bytes), 0);
    cr_assert_eq(connect(clients[2], (struct sockaddr *)&address, bytes), 0);
    cr_assert(fixture_wait(&note.words[0], 1), "accept never said -EMFILE, %u accepted",
              fixture_get(&note.words[1]));
    cr_assert_leq(fixture_get(&note.words[1]), 2);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    cr_assert(fixture_wait(&note.words[1], 3), "a connection was lost");
    numio_join_abort(join);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    assert_fine(&note);
    for (unsigned i = 0; i < 3; i++)
        (void)close(clients[i]);
    (void)close(note.fds[0]);
}
