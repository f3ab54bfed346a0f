/* SPDX-License-Identifier: MIT */
/* Names, addresses as text, and connecting to the first of several addresses that answers. */
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>

static int64_t last_line;

static void run(struct numio_runtime *runtime, int64_t (*fn)(void *arg))
{
    last_line = numio_block_on(numio_runtime_handle(runtime), fn, NULL);
    cr_assert_eq(last_line, 0, "line %ld: %s", (long)last_line, numio_strerror_detail());
}

/* ---- text --------------------------------------------------------------------------------- */

Test(dial, addresses_are_printed_as_they_are_parsed, .timeout = 30)
{
    static const char *const texts[] = { "127.0.0.1:80",  "[::1]:65535", "0.0.0.0:0",
                                         "unix:/run/x.s", "unix:@name",  "[fe80::1]:7" };
    static const char *const bad[] = { "",      "127.0.0.1", "localhost:80", "[::1]",
                                       "unix:", "unix:@",    "1.2.3.4:65536" };
    char text[NUMIO_ADDRESS_TEXT_BYTES], path[200] = "unix:";
    struct numio_address address;
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        cr_assert_eq(numio_address_parse(texts[i], &address), 0, "%s", texts[i]);
        cr_assert_str_eq(numio_address_print(&address, text, sizeof text), texts[i]);
    }
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(numio_address_parse(bad[i], &address), -EINVAL, "%s", bad[i]);
    cr_assert_eq(numio_address_parse(NULL, &address), -EINVAL);
    memset(path + 5, 'p', 107);
    cr_assert_eq(numio_address_parse(path, &address), 0);
    cr_assert_str_eq(numio_address_print(&address, text, sizeof text), path);
    path[5 + 107] = 'p';
    cr_assert_eq(numio_address_parse(path, &address), -EINVAL);
    cr_assert_str_eq(numio_address_print(&address, text, 6), "unix:");
}

/* ---- names -------------------------------------------------------------------------------- */

static int64_t look_up(void *arg)
{
    struct numio_address found[4];
    struct numio_deadline deadline;
    char text[NUMIO_ADDRESS_TEXT_BYTES];
    (void)arg;
    EXPECT(numio_resolve("127.0.0.1", "8080", found, 4) == 1);
    EXPECT(strcmp(numio_address_print(&found[0], text, sizeof text), "127.0.0.1:8080") == 0);
    int64_t count = numio_resolve("localhost", "80", found, 4);
    EXPECT(count >= 1);
    EXPECT(numio_resolve("localhost", "80", found, 0) == 0);
    EXPECT(numio_resolve("no-such-name.invalid", "80", found, 4) < 0);
    EXPECT(strstr(numio_strerror_detail(), "no-such-name.invalid"));
    EXPECT(numio_resolve("127.0.0.1", "no-such-service", found, 4) == -ENOENT);
    EXPECT(numio_deadline_push(&deadline, 0) == 0);
    EXPECT(numio_resolve("localhost", "80", found, 4) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    return 0;
}

FIXTURE_EACH(dial, names_are_looked_up, .timeout = 60)
{
    run(runtime, look_up);
}

/* Waiters that go while the look-up runs, and a shutdown meanwhile: nothing is used after it was
 * freed, and nothing is left (the sanitizers watch). */
static int64_t go_early(void *arg)
{
    struct numio_address found[4];
    struct numio_deadline deadline;
    (void)arg;
    for (unsigned i = 0; i < 50; i++) {
        EXPECT(numio_deadline_push(&deadline, 1 + i * 4000) == 0);
        int64_t rc = numio_resolve("localhost", "80", found, 4);
        EXPECT(rc > 0 || rc == -ETIMEDOUT);
        (void)numio_deadline_pop(&deadline);
    }
    return 0;
}

FIXTURE_EACH(dial, a_waiter_may_go_before_the_answer, .timeout = 60)
{
    run(runtime, go_early);
}

/* ---- attempts ----------------------------------------------------------------------------- */

static unsigned port_of(int fd)
{
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    return getsockname(fd, (struct sockaddr *)&address, &bytes) == 0 ? ntohs(address.sin_port) : 0;
}

static struct numio_address at_port(const char *host, unsigned port)
{
    struct numio_address address = { .bytes = 0 };
    char text[64];
    (void)snprintf(text, sizeof text, "%s:%u", host, port); /* fits */
    if (numio_address_parse(text, &address) != 0)
        address.bytes = 0;
    return address;
}

/* A listener whose backlog is full does not answer: the kernel drops what comes. */
static int make_silent(int ret_fillers[8])
{
    int fd = numio_tcp_listen("127.0.0.1:0", 1);
    struct numio_address to = at_port("127.0.0.1", port_of(fd));
    for (unsigned i = 0; i < 8; i++) {
        ret_fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(ret_fillers[i], (struct sockaddr *)&to.storage, to.bytes); /* in progress */
    }
    return fd;
}

static int64_t try_several(void *arg)
{
    struct numio_address to[4];
    struct numio_deadline deadline;
    int fillers[8];
    (void)arg;
    int listener = numio_tcp_listen("127.0.0.1:0", 16);
    int closed = numio_tcp_listen("127.0.0.1:0", 1);
    unsigned port = port_of(listener), refused = port_of(closed);
    EXPECT(listener >= 0 && numio_close(closed) == 0);
    /* One that refuses, twice, then the one that answers: at once. */
    to[0] = to[1] = at_port("127.0.0.1", refused);
    to[2] = at_port("127.0.0.1", port);
    uint64_t began_ns = nio_now_ns();
    int64_t fd = numio_tcp_connect_any(to, 3, NULL);
    EXPECT(fd >= 0 && nio_now_ns() - began_ns < 200000000);
    EXPECT((fcntl((int)fd, F_GETFL) & O_NONBLOCK) == 0 && fcntl((int)fd, F_GETFD) == FD_CLOEXEC);
    int accepted = (int)numio_accept(listener, NULL, NULL, SOCK_CLOEXEC);
    EXPECT(accepted >= 0 && numio_send_all((int)fd, "hi", 2, 0) == 2);
    char text[2];
    EXPECT(numio_recv_all(accepted, text, 2, 0) == 2 && memcmp(text, "hi", 2) == 0);
    EXPECT(numio_close((int)fd) == 0 && numio_close(accepted) == 0);
    EXPECT(numio_tcp_connect_any(to, 2, NULL) == -ECONNREFUSED);
    EXPECT(numio_tcp_connect_any(to, 0, NULL) == -EINVAL);
    /* One that says nothing: the next begins 250 ms later, and wins. */
    int silent = make_silent(fillers);
    to[0] = at_port("127.0.0.1", port_of(silent));
    to[1] = at_port("127.0.0.1", port);
    began_ns = nio_now_ns();
    fd = numio_tcp_connect_any(to, 2, NULL);
    uint64_t took_ns = nio_now_ns() - began_ns;
    EXPECT(fd >= 0 && took_ns >= 240000000 && took_ns < 5000000000);
    EXPECT(numio_close((int)fd) == 0);
    /* Only that one, and a deadline. */
    EXPECT(numio_deadline_push(&deadline, 20000000) == 0);
    EXPECT(numio_tcp_connect_any(to, 1, NULL) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    EXPECT(numio_deadline_push(&deadline, 20000000) == 0);
    EXPECT(numio_tcp_connect_any(to, 2, NULL) == -ETIMEDOUT); /* before the second begins */
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    for (unsigned i = 0; i < 8; i++)
        EXPECT(close(fillers[i]) == 0);
    return numio_close(silent) + numio_close(listener);
}

FIXTURE_EACH(dial, the_first_address_that_answers_wins, .timeout = 60)
{
    unsigned before = fixture_count_fds();
    run(runtime, try_several);
    cr_assert_eq(fixture_count_fds(), before, "descriptors are left");
}

/* The families by turns, whatever order they come in. */
static int64_t mix_families(void *arg)
{
    struct numio_address to[20];
    (void)arg;
    int listener = numio_tcp_listen("127.0.0.1:0", 16);
    unsigned port = port_of(listener);
    EXPECT(listener >= 0);
    /* Fifteen of the other family first, of which none can be reached: the sixteenth is tried,
     * since the turns bring it to the second place. */
    for (unsigned i = 0; i < 19; i++)
        to[i] = at_port("[100::1]", 9); /* the discard prefix */
    to[19] = at_port("127.0.0.1", port);
    int64_t fd = numio_tcp_connect_any(to, 20, NULL);
    EXPECT(fd >= 0 && numio_close((int)fd) == 0);
    return numio_close(listener);
}

FIXTURE_EACH(dial, the_families_take_turns, .timeout = 60)
{
    run(runtime, mix_families);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t bytes = sizeof value;
    return getsockopt(fd, level, name, &value, &bytes) == 0 ? value : -1;
}

static int64_t use_options(void *arg)
{
    struct numio_tcp_opts opts;
    struct numio_address local = at_port("127.0.0.2", 0);
    struct sockaddr_in own;
    socklen_t bytes = sizeof own;
    char service[8];
    (void)arg;
    int listener = numio_tcp_listen("127.0.0.1:0", 16);
    (void)snprintf(service, sizeof service, "%u", port_of(listener)); /* fits */
    numio_tcp_opts_init(&opts, sizeof opts);
    opts.keep_idle_s = 11;
    opts.keep_interval_s = 7;
    opts.keep_count = 3;
    opts.user_timeout_ms = 5000;
    opts.recv_buffer_bytes = 20000;
    opts.local = &local;
    int fd = (int)numio_tcp_dial("127.0.0.1", service, &opts);
    EXPECT(fd >= 0);
    EXPECT(option(fd, IPPROTO_TCP, TCP_NODELAY) == 1 && option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
    EXPECT(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 11 &&
           option(fd, IPPROTO_TCP, TCP_KEEPCNT) == 3);
    EXPECT(option(fd, IPPROTO_TCP, TCP_KEEPINTVL) == 7);
    EXPECT(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 5000);
    EXPECT(option(fd, SOL_SOCKET, SO_RCVBUF) == 40000); /* the kernel doubles it */
    EXPECT(getsockname(fd, (struct sockaddr *)&own, &bytes) == 0);
    EXPECT(own.sin_addr.s_addr == htonl(INADDR_LOOPBACK + 1));
    numio_tcp_opts_init(&opts, sizeof opts);
    opts.is_lazy = true;
    EXPECT(numio_tcp_set(fd, &opts) == 0 && option(fd, IPPROTO_TCP, TCP_NODELAY) == 0);
    opts.keep_idle_s = 1 << 20;
    EXPECT(numio_tcp_set(fd, &opts) == -EINVAL && strstr(numio_strerror_detail(), "TCP_KEEPIDLE"));
    EXPECT(numio_tcp_dial("no-such-name.invalid", "80", NULL) < 0);
    return numio_close(fd) + numio_close(listener);
}

FIXTURE_EACH(dial, options_are_set_before_the_connect, .timeout = 60)
{
    run(runtime, use_options);
}
