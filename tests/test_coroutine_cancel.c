/* SPDX-License-Identifier: MIT */
/* Promises of aborting a coroutine that waits in a call of numio/io.h: the call returns -ECANCELED
 * once nothing of it is in flight, a result that came too late is closed, later awaits say
 * -ECANCELED again, and a descriptor that is closed under a call confuses nobody. */
#include "tests/runtime_fixture.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "runtime/base/compiler.h"

static const uint64_t for_ever_ns = 3600000000000ull;

enum { BUFFER_BYTES = 65536, ROUNDS = 20, RACES = 300 };

/* A call that waits on `fd`, and what it left. */
struct wait {
    int64_t (*call)(struct wait *wait);
    int fd;
    const char *path;
    _Atomic uint32_t started;
    int64_t first, second;
    char *buffer;
};

static int64_t wait_twice(void *arg)
{
    struct wait *wait = arg;
    fixture_set(&wait->started, 1);
    wait->first = wait->call(wait);
    wait->second = wait->call(wait);
    return wait->first;
}

static struct numio_join *spawn(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    struct numio_join *join = NULL;
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), fn, arg, NULL, &join), 0);
    return join;
}

static int64_t nothing(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

/* Lets the waiting call get as far as the kernel: tasks of other workers have had turns since. */
static void let_it_start(struct numio_runtime *runtime, struct wait *wait, unsigned turns)
{
    cr_assert(fixture_wait(&wait->started, 1));
    for (unsigned i = 0; i < turns; i++)
        cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), nothing, NULL), 0);
}

static void abort_in_call(struct numio_runtime *runtime, int64_t (*call)(struct wait *wait), int fd)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct wait wait = { .call = call, .fd = fd, .buffer = calloc(1, BUFFER_BYTES) };
        unsigned fds = fixture_count_fds();
        struct numio_join *join = spawn(runtime, wait_twice, &wait);
        let_it_start(runtime, &wait, round);
        numio_join_abort(join);
        cr_assert_eq(numio_join_wait(&join, 5000000000), -ECANCELED, "round %u: %s", round,
                     numio_strerror_detail());
        cr_assert_eq(wait.first, -ECANCELED);
        cr_assert_eq(wait.second, -ECANCELED, "it was not told again");
        cr_assert_eq(fixture_count_fds(), fds);
        free(wait.buffer); /* a sanitizer notices who still writes to it */
    }
}

static int64_t call_read(struct wait *wait)
{
    return numio_read(wait->fd, wait->buffer, BUFFER_BYTES);
}

static int64_t call_readv(struct wait *wait)
{
    struct iovec iov[2] = { { wait->buffer, 10 }, { wait->buffer + 10, 10 } };
    return numio_readv(wait->fd, iov, 2, -1);
}

static int64_t call_write(struct wait *wait)
{
    return numio_write(wait->fd, wait->buffer, BUFFER_BYTES);
}

static int64_t call_write_all(struct wait *wait)
{
    return numio_write_all(wait->fd, wait->buffer, BUFFER_BYTES);
}

static int64_t call_recv(struct wait *wait)
{
    return numio_recv(wait->fd, wait->buffer, BUFFER_BYTES, 0);
}

static int64_t call_recv_all(struct wait *wait)
{
    return numio_recv_all(wait->fd, wait->buffer, BUFFER_BYTES, 0);
}

static int64_t call_recvmsg(struct wait *wait)
{
    struct iovec iov = { wait->buffer, BUFFER_BYTES };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    return numio_recvmsg(wait->fd, &msg, 0);
}

static int64_t call_send(struct wait *wait)
{
    return numio_send(wait->fd, wait->buffer, BUFFER_BYTES, 0);
}

static int64_t call_send_all(struct wait *wait)
{
    return numio_send_all(wait->fd, wait->buffer, BUFFER_BYTES, 0);
}

static int64_t call_sendmsg(struct wait *wait)
{
    struct iovec iov = { wait->buffer, BUFFER_BYTES };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    return numio_sendmsg(wait->fd, &msg, 0);
}

static int64_t call_accept(struct wait *wait)
{
    return numio_accept(wait->fd, NULL, NULL, SOCK_CLOEXEC);
}

static int64_t call_poll(struct wait *wait)
{
    return numio_poll_fd(wait->fd, POLLIN);
}

static int64_t call_sleep(struct wait *wait)
{
    (void)wait;
    return numio_sleep_ns(for_ever_ns);
}

static int64_t call_yield(struct wait *wait)
{
    (void)wait;
    for (;;) { /* until it is aborted */
        int rc = numio_yield_now();
        if (rc < 0)
            return rc;
    }
}

FIXTURE_EACH(coroutine_cancel, reads_of_an_empty_pipe, .timeout = 20)
{
    int ends[2];
    char byte = 0;
    cr_assert_eq(pipe(ends), 0);
    abort_in_call(runtime, call_read, ends[0]);
    abort_in_call(runtime, call_readv, ends[0]);
    abort_in_call(runtime, call_poll, ends[0]);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    cr_assert_eq(read(ends[0], &byte, 1), 1, "an aborted read took the byte");
    (void)close(ends[0]);
    (void)close(ends[1]);
}

FIXTURE_EACH(coroutine_cancel, writes_to_a_full_pipe, .timeout = 20)
{
    static char block[BUFFER_BYTES];
    int ends[2];
    cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
    while (write(ends[1], block, sizeof block) > 0)
        continue;
    cr_assert_eq(fcntl(ends[1], F_SETFL, 0), 0);
    abort_in_call(runtime, call_write, ends[1]);
    abort_in_call(runtime, call_write_all, ends[1]);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

FIXTURE_EACH(coroutine_cancel, receives_from_a_silent_peer, .timeout = 30)
{
    int fds[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    abort_in_call(runtime, call_recv, fds[0]);
    abort_in_call(runtime, call_recv_all, fds[0]);
    abort_in_call(runtime, call_recvmsg, fds[0]);
    abort_in_call(runtime, call_read, fds[0]);
    abort_in_call(runtime, call_poll, fds[0]);
    cr_assert_eq(send(fds[1], "x", 1, 0), 1);
    char byte;
    cr_assert_eq(recv(fds[0], &byte, 1, MSG_DONTWAIT), 1);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

FIXTURE_EACH(coroutine_cancel, sends_to_a_peer_that_does_not_read, .timeout = 30)
{
    static char block[BUFFER_BYTES];
    int fds[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    while (send(fds[0], block, sizeof block, MSG_DONTWAIT) > 0)
        continue;
    abort_in_call(runtime, call_send, fds[0]);
    abort_in_call(runtime, call_send_all, fds[0]);
    abort_in_call(runtime, call_sendmsg, fds[0]);
    abort_in_call(runtime, call_write, fds[0]);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

FIXTURE_EACH(coroutine_cancel, sleeps_and_yields, .timeout = 20)
{
    abort_in_call(runtime, call_sleep, -1);
    abort_in_call(runtime, call_yield, -1);
}

static int listen_here(struct sockaddr_in *ret_address)
{
    socklen_t bytes = sizeof *ret_address;
    int fd = numio_tcp_listen("127.0.0.1:0", 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)ret_address, &bytes), 0);
    return fd;
}

FIXTURE_EACH(coroutine_cancel, accepts_without_a_client, .timeout = 20)
{
    struct sockaddr_in address;
    int fd = listen_here(&address);
    abort_in_call(runtime, call_accept, fd);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    int peer = accept(fd, NULL, NULL);
    cr_assert_geq(peer, 0, "an aborted accept took the connection");
    (void)close(peer);
    (void)close(client);
    (void)close(fd);
}

/* ---- connect ------------------------------------------------------------------------------ */

static struct sockaddr_in unresponsive;

static int64_t call_connect(struct wait *wait)
{
    return numio_connect(wait->fd, (struct sockaddr *)&unresponsive, sizeof unresponsive);
}

/* A listener whose queue is full answers nobody. */
FIXTURE_EACH(coroutine_cancel, connects_to_a_listener_that_does_not_answer, .timeout = 30)
{
    socklen_t bytes = sizeof unresponsive;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int fillers[8];
    unsigned count = 0;
    unresponsive = (struct sockaddr_in){ .sin_family = AF_INET };
    unresponsive.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(bind(listener, (struct sockaddr *)&unresponsive, sizeof unresponsive), 0);
    cr_assert_eq(listen(listener, 0), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&unresponsive, &bytes), 0);
    for (; count < NIO_ARRAY_LEN(fillers); count++) {
        fillers[count] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fillers[count], (struct sockaddr *)&unresponsive, bytes); /* some wait */
    }
    for (unsigned round = 0; round < 5; round++) {
        struct wait wait = { .call = call_connect, .fd = socket(AF_INET, SOCK_STREAM, 0) };
        struct numio_join *join = spawn(runtime, wait_twice, &wait);
        let_it_start(runtime, &wait, round);
        numio_join_abort(join);
        cr_assert_eq(numio_join_wait(&join, 5000000000), -ECANCELED);
        cr_assert_eq(wait.second, -ECANCELED);
        (void)close(wait.fd);
    }
    for (unsigned i = 0; i < count; i++)
        (void)close(fillers[i]);
    (void)close(listener);
}

/* ---- results that come too late ----------------------------------------------------------- */

static int64_t call_open(struct wait *wait)
{
    return numio_open(wait->path, O_RDONLY | O_CLOEXEC, 0);
}

static bool has_finished(void *arg)
{
    return numio_join_is_finished(arg);
}

/* On a pool thread opening a FIFO waits for the other end, which nobody can interrupt.  (io_uring
 * opens a FIFO without waiting.)  False: no pool thread had taken it up when the abort came. */
static bool abort_in_open(struct numio_runtime *runtime, const char *path)
{
    struct wait wait = { .call = call_open, .path = path };
    struct numio_join *join = spawn(runtime, wait_twice, &wait);
    let_it_start(runtime, &wait, 3);
    numio_join_abort(join);
    int64_t result = numio_join_wait(&join, 10000000);
    if (result == -ECANCELED) {
        cr_assert_eq(open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC), -1,
                     "what is in flight is waited for");
        return false;
    }
    cr_assert_eq(result, -ETIMEDOUT);
    /* Both ends at once: this neither waits nor fails, and lets the opener go on. */
    int both = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(both, 0);
    cr_assert_eq(numio_join_wait(&join, 5000000000), -ECANCELED);
    cr_assert_eq(wait.second, -ECANCELED);
    (void)close(both);
    return true;
}

Test(coroutine_cancel, a_late_open_is_closed, .timeout = 30)
{
    char dir[] = "/tmp/numio-fifo-XXXXXX";
    char path[64];
    struct numio_config config = fixture_config(NUMIO_DRIVER_EPOLL, 2);
    struct numio_runtime *runtime = fixture_create(&config);
    cr_assert_not_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/fifo", dir); /* it fits */
    cr_assert_eq(mkfifo(path, 0600), 0);
    unsigned fds = fixture_count_fds();
    for (unsigned late = 0, tries = 0; late < ROUNDS; tries++) {
        cr_assert_lt(tries, 50 * ROUNDS);
        late += abort_in_open(runtime, path);
    }
    cr_assert_eq(fixture_count_fds(), fds);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(rmdir(dir), 0);
    numio_runtime_destroy(runtime);
}

static int64_t accept_and_close(void *arg)
{
    struct wait *wait = arg;
    fixture_set(&wait->started, 1);
    int fd = (int)numio_accept(wait->fd, NULL, NULL, SOCK_CLOEXEC);
    wait->first = fd;
    return fd < 0 ? fd : numio_close(fd);
}

FIXTURE_EACH(coroutine_cancel, a_late_accept_is_closed, .timeout = 30)
{
    struct sockaddr_in address;
    int listener = listen_here(&address);
    cr_assert_eq(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    unsigned accepted = 0;
    unsigned fds = fixture_count_fds();
    for (unsigned round = 0; round < RACES; round++) {
        struct wait wait = { .fd = listener };
        int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct numio_join *join = spawn(runtime, accept_and_close, &wait);
        cr_assert(fixture_wait(&wait.started, 1));
        cr_assert_eq(connect(client, (struct sockaddr *)&address, sizeof address), 0);
        numio_join_abort(join);
        int64_t result = numio_join_wait(&join, 5000000000);
        cr_assert(result == 0 || result == -ECANCELED, "%ld", (long)result);
        accepted += wait.first >= 0;
        (void)close(client);
        int left = accept(listener, NULL, NULL); /* not taken: still in the queue */
        if (left >= 0)
            (void)close(left);
        cr_assert_eq(fixture_count_fds(), fds, "round %u leaks, %u accepted", round, accepted);
    }
    (void)close(listener);
}

FIXTURE_EACH(coroutine_cancel, opens_and_aborts_race_without_leaks, .timeout = 30)
{
    static struct wait waits[RACES];
    static struct numio_join *joins[RACES];
    unsigned fds = fixture_count_fds();
    for (unsigned i = 0; i < RACES; i++) {
        waits[i] = (struct wait){ .call = call_open, .path = "/proc/self/status" };
        joins[i] = spawn(runtime, wait_twice, &waits[i]);
    }
    for (unsigned i = 0; i < RACES; i++)
        numio_join_abort(joins[i]);
    for (unsigned i = 0; i < RACES; i++) {
        int64_t result = numio_join_wait(&joins[i], 5000000000);
        if (result >= 0)
            (void)close((int)waits[i].first);
        if (result >= 0 && waits[i].second >= 0)
            (void)close((int)waits[i].second);
        cr_assert(result >= 0 || result == -ECANCELED, "%ld", (long)result);
    }
    cr_assert_eq(fixture_count_fds(), fds);
}

static int64_t close_though_aborted(void *arg)
{
    struct wait *wait = arg;
    fixture_set(&wait->started, 1);
    (void)numio_sleep_ns(for_ever_ns); /* until the abort */
    wait->first = numio_read(wait->fd, wait->buffer, 1);
    wait->second = numio_close(wait->fd);
    return wait->second;
}

FIXTURE_EACH(coroutine_cancel, close_works_in_an_aborted_task, .timeout = 10)
{
    struct wait wait = { .fd = open("/proc/self/status", O_RDONLY), .buffer = calloc(1, 1) };
    struct numio_join *join = spawn(runtime, close_though_aborted, &wait);
    let_it_start(runtime, &wait, 2);
    numio_join_abort(join);
    cr_assert_eq(numio_join_wait(&join, 5000000000), 0);
    cr_assert_eq(wait.first, -ECANCELED);
    cr_assert_eq(fcntl(wait.fd, F_GETFD), -1, "it is still open");
    free(wait.buffer);
}

/* ---- descriptors closed under a call ------------------------------------------------------ */

static int64_t close_it(void *arg)
{
    return numio_close((int)(intptr_t)arg);
}

/* Whatever becomes of the waiting call, it ends with an abort at the latest, and the number can be
 * used by somebody else meanwhile. */
static void close_under_a_read(struct numio_runtime *runtime, bool by_numio)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct wait wait = { .call = call_read, .buffer = calloc(1, BUFFER_BYTES) };
        struct wait next = { .call = call_read, .buffer = calloc(1, BUFFER_BYTES) };
        int ends[2];
        int others[2];
        cr_assert_eq(pipe(ends), 0);
        wait.fd = ends[0];
        struct numio_join *join = spawn(runtime, wait_twice, &wait);
        let_it_start(runtime, &wait, round % 4);
        if (by_numio)
            cr_assert_eq(
                numio_block_on(numio_runtime_handle(runtime), close_it, (void *)(intptr_t)ends[0]),
                0);
        else
            (void)close(ends[0]);
        cr_assert_eq(pipe(others), 0);
        cr_assert_eq(others[0], ends[0], "the number is used again");
        next.fd = others[0];
        struct numio_join *other = spawn(runtime, wait_twice, &next);
        let_it_start(runtime, &next, 2);
        numio_join_abort(join);
        int64_t result = numio_join_wait(&join, 5000000000);
        cr_assert(result == -ECANCELED || result == -EBADF, "%ld", (long)result);
        cr_assert_eq(write(others[1], "both", 4), 4);
        (void)close(others[1]);
        cr_assert_eq(numio_join_wait(&other, 5000000000), 4);
        cr_assert_eq(next.second, 0);
        (void)close(others[0]);
        (void)close(ends[1]);
        free(wait.buffer);
        free(next.buffer);
    }
}

FIXTURE_EACH(coroutine_cancel, a_descriptor_closed_by_another_task, .timeout = 30)
{
    close_under_a_read(runtime, true);
}

FIXTURE_EACH(coroutine_cancel, a_descriptor_closed_by_a_plain_close, .timeout = 30)
{
    close_under_a_read(runtime, false);
}

FIXTURE_EACH(coroutine_cancel, an_aborted_wait_ends_without_delay, .timeout = 20)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    struct wait wait = { .call = call_read, .fd = ends[0], .buffer = calloc(1, BUFFER_BYTES) };
    struct numio_join *join = spawn(runtime, wait_twice, &wait);
    let_it_start(runtime, &wait, 5);
    uint64_t before_ns = nio_now_ns();
    numio_join_abort(join);
    cr_assert(fixture_until(has_finished, join));
    cr_assert_lt(nio_now_ns() - before_ns, 1000000000);
    numio_join_detach(&join);
    (void)close(ends[0]);
    (void)close(ends[1]);
    free(wait.buffer);
}
