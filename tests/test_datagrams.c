/* SPDX-License-Identifier: MIT */
/* UDP, alone, joined and to groups; Unix sockets of every type, with descriptors passed along. */
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

enum { SEGMENT = 1200, SEGMENTS = 150 };

static int64_t last_line;

static void run(struct numio_runtime *runtime, int64_t (*fn)(void *arg))
{
    unsigned before = fixture_count_fds();
    last_line = numio_block_on(numio_runtime_handle(runtime), fn, NULL);
    cr_assert_eq(last_line, 0, "line %ld: %s", (long)last_line, numio_strerror_detail());
    cr_assert_eq(fixture_count_fds(), before, "descriptors are left");
}

/* ---- UDP ---------------------------------------------------------------------------------- */

static int64_t to_and_fro(void *arg)
{
    struct numio_address of_a, of_b, from;
    struct numio_deadline deadline;
    char text[16];
    (void)arg;
    int a = numio_udp_bind("127.0.0.1:0"), b = numio_udp_bind("127.0.0.1:0");
    EXPECT(a >= 0 && b >= 0);
    EXPECT(numio_udp_local(a, &of_a) == 0 && numio_udp_local(b, &of_b) == 0);
    EXPECT(numio_udp_send(a, "hello", 5, &of_b) == 5);
    EXPECT(numio_udp_recv(b, text, sizeof text, &from) == 5 && memcmp(text, "hello", 5) == 0);
    EXPECT(from.bytes == of_a.bytes && memcmp(&from.storage, &of_a.storage, of_a.bytes) == 0);
    EXPECT(numio_udp_send(b, "back", 4, &from) == 4 && numio_udp_send(b, "", 0, &from) == 0);
    EXPECT(numio_udp_recv(a, text, 2, NULL) == 2 && memcmp(text, "ba", 2) == 0); /* cut */
    EXPECT(numio_udp_recv(a, text, sizeof text, NULL) == 0);
    EXPECT(numio_deadline_push(&deadline, 2000000) == 0);
    EXPECT(numio_udp_recv(a, text, sizeof text, NULL) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    EXPECT(numio_connect(a, (struct sockaddr *)&of_b.storage, of_b.bytes) == 0);
    EXPECT(numio_udp_send(a, "x", 1, NULL) == 1 && numio_udp_recv(b, text, 1, NULL) == 1);
    EXPECT(numio_udp_bind("nonsense") == -EINVAL && numio_udp_local(-1, &of_a) == -EBADF);
    return numio_close(a) + numio_close(b);
}

FIXTURE_EACH(datagrams, they_go_to_and_fro_with_their_sender, .timeout = 30)
{
    run(runtime, to_and_fro);
}

static int64_t send_many(void *arg)
{
    static char bytes[SEGMENT * SEGMENTS + 7], got[65536];
    struct numio_address to;
    unsigned segment = 0;
    size_t at = 0;
    (void)arg;
    int a = numio_udp_bind("127.0.0.1:0"), b = numio_udp_bind("127.0.0.1:0");
    EXPECT(a >= 0 && b >= 0 && numio_udp_local(b, &to) == 0);
    int room = 4 << 20;
    (void)setsockopt(b, SOL_SOCKET, SO_RCVBUF, &room, sizeof room); /* as much as is allowed */
    bool has_gro = numio_udp_set_gro(b, true) == 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 13 + (i >> 10));
    for (size_t sent = 0; sent < sizeof bytes;) {
        size_t now = sizeof bytes - sent < SEGMENT * 40 ? sizeof bytes - sent : SEGMENT * 40;
        EXPECT(numio_udp_send_segments(a, bytes + sent, now, SEGMENT, &to) == (int64_t)now);
        sent += now;
        while (at < sent) {
            int64_t n = numio_udp_recv_segments(b, got, sizeof got, &segment, NULL);
            EXPECT(n > 0 && (segment == SEGMENT || segment == n));
            EXPECT(memcmp(got, bytes + at, (size_t)n) == 0);
            at += (size_t)n;
        }
    }
    EXPECT(at == sizeof bytes);
    EXPECT(numio_udp_set_gro(b, false) == 0 || !has_gro);
    EXPECT(numio_udp_send_segments(a, bytes, 10, 0, &to) == -EINVAL);
    EXPECT(numio_udp_send_segments(a, bytes, 10, 65508, &to) == -EINVAL);
    EXPECT(numio_udp_send_segments(a, bytes, 0, 10, &to) == 0);
    return numio_close(a) + numio_close(b);
}

FIXTURE_EACH(datagrams, many_go_in_one_call_and_come_in_order, .timeout = 30)
{
    run(runtime, send_many);
}

static int64_t send_to_a_group(void *arg)
{
    struct numio_address local, group;
    char text[32], name[NUMIO_ADDRESS_TEXT_BYTES];
    (void)arg;
    int a = numio_udp_bind("0.0.0.0:0");
    EXPECT(a >= 0 && numio_udp_local(a, &local) == 0);
    EXPECT(numio_udp_join(a, "239.1.2.3", "no-such-if") == -ENODEV);
    EXPECT(numio_udp_join(a, "1.2.3.4.5", "lo") == -EINVAL);
    EXPECT(numio_udp_join(a, NULL, "lo") == -EINVAL);
    EXPECT(numio_udp_join(a, "239.1.2.3", "lo") == 0);
    EXPECT(numio_udp_set_multicast(a, "lo", 1, true) == 0);
    const char *port = strrchr(numio_address_print(&local, name, sizeof name), ':');
    (void)snprintf(text, sizeof text, "239.1.2.3%s", port); /* fits */
    EXPECT(numio_address_parse(text, &group) == 0);
    EXPECT(numio_udp_send(a, "to all", 6, &group) == 6);
    EXPECT(numio_udp_recv(a, text, sizeof text, NULL) == 6 && memcmp(text, "to all", 6) == 0);
    EXPECT(numio_udp_leave(a, "239.1.2.3", "lo") == 0);
    EXPECT(numio_udp_leave(a, "239.1.2.3", "lo") < 0);
    return numio_close(a);
}

FIXTURE_EACH(datagrams, a_group_is_joined_and_left, .timeout = 30)
{
    run(runtime, send_to_a_group);
}

static int64_t join_different_groups(void *arg)
{
    struct numio_address one, two;
    char text[32], name[NUMIO_ADDRESS_TEXT_BYTES];
    (void)arg;
    int a = numio_udp_bind("0.0.0.0:0");
    EXPECT(a >= 0 && numio_udp_local(a, &one) == 0);
    const char *port = strrchr(numio_address_print(&one, name, sizeof name), ':');
    (void)snprintf(text, sizeof text, "0.0.0.0%s", port); /* fits */
    int b = numio_udp_bind(text);
    EXPECT(b >= 0);
    EXPECT(numio_udp_join(a, "239.1.2.3", "lo") == 0 && numio_udp_join(b, "239.1.2.4", "lo") == 0);
    EXPECT(numio_udp_set_multicast(a, "lo", 1, true) == 0);
    (void)snprintf(text, sizeof text, "239.1.2.3%s", port); /* fits */
    EXPECT(numio_address_parse(text, &one) == 0);
    (void)snprintf(text, sizeof text, "239.1.2.4%s", port); /* fits */
    EXPECT(numio_address_parse(text, &two) == 0);
    EXPECT(numio_udp_send(a, "to b", 4, &two) == 4 && numio_udp_send(a, "to a", 4, &one) == 4);
    EXPECT(numio_udp_recv(a, text, sizeof text, NULL) == 4 && memcmp(text, "to a", 4) == 0);
    EXPECT(numio_udp_recv(b, text, sizeof text, NULL) == 4 && memcmp(text, "to b", 4) == 0);
    return numio_close(a) + numio_close(b);
}

FIXTURE_EACH(datagrams, what_others_have_joined_is_not_received, .timeout = 30)
{
    run(runtime, join_different_groups);
}

static int64_t overflow_a_socket(void *arg)
{
    enum { SENT = 200 };
    struct numio_address to;
    char bytes[1000] = { 0 };
    int small = 1; /* the kernel's least */
    unsigned received = 0;
    (void)arg;
    int fd = numio_udp_bind("127.0.0.1:0");
    EXPECT(fd >= 0 && numio_udp_local(fd, &to) == 0 && numio_udp_drops(fd) == 0);
    EXPECT(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
    for (unsigned i = 0; i < SENT; i++)
        EXPECT(numio_udp_send(fd, bytes, sizeof bytes, &to) == sizeof bytes);
    while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        received++;
    EXPECT(received > 0 && received < SENT && numio_udp_drops(fd) == SENT - received);
    EXPECT(numio_udp_drops(-1) == -EBADF);
    return numio_close(fd);
}

FIXTURE_EACH(datagrams, what_does_not_fit_is_counted, .timeout = 30)
{
    run(runtime, overflow_a_socket);
}

/* ---- Unix --------------------------------------------------------------------------------- */

static int64_t pass_descriptors(int from, int to)
{
    int ends[2], fds[NUMIO_UNIX_FDS_MAX + 1], got[4];
    unsigned count = 9;
    char text[8];
    EXPECT(pipe2(ends, 0) == 0);
    fds[0] = ends[0];
    fds[1] = ends[1];
    fds[2] = ends[1];
    EXPECT(numio_unix_send_fds(from, "f", 1, fds, 3) == 1);
    EXPECT(numio_unix_recv_fds(to, text, sizeof text, got, 4, &count) == 1 && count == 3);
    EXPECT(fcntl(got[0], F_GETFD) == FD_CLOEXEC);
    EXPECT(numio_write(got[1], "through", 7) == 7 && numio_read(got[0], text, 8) == 7);
    for (unsigned i = 0; i < 3; i++)
        EXPECT(numio_close(got[i]) == 0);
    /* More than there is room for are told, and closed. */
    unsigned before = fixture_count_fds();
    EXPECT(numio_unix_send_fds(from, "f", 1, fds, 3) == 1);
    EXPECT(numio_unix_recv_fds(to, text, sizeof text, got, 1, &count) == 1 && count == 3);
    EXPECT(fixture_count_fds() == before + 1 && numio_close(got[0]) == 0);
    EXPECT(numio_unix_send_fds(from, "none", 4, NULL, 0) == 4);
    EXPECT(numio_unix_recv_fds(to, text, sizeof text, got, 4, &count) == 4 && count == 0);
    EXPECT(numio_unix_send_fds(from, "f", 1, fds, NUMIO_UNIX_FDS_MAX + 1) == -EINVAL);
    for (unsigned i = 0; i < NUMIO_UNIX_FDS_MAX; i++)
        fds[i] = ends[0];
    EXPECT(numio_unix_send_fds(from, "f", 1, fds, NUMIO_UNIX_FDS_MAX) == 1);
    EXPECT(numio_unix_recv_fds(to, text, sizeof text, got, 0, &count) == 1);
    EXPECT(count == NUMIO_UNIX_FDS_MAX && fixture_count_fds() == before);
    return numio_close(ends[0]) + numio_close(ends[1]);
}

static int64_t use_unix(const char *path, int type)
{
    int pid;
    unsigned uid, gid;
    char text[16];
    int listener = numio_unix_listen(path, type, 4);
    EXPECT(listener >= 0);
    EXPECT(numio_unix_listen(path, type, 4) == -EADDRINUSE);
    int client = (int)numio_unix_connect(path, type);
    EXPECT(client >= 0);
    int server =
        type == SOCK_DGRAM ? listener : (int)numio_accept(listener, NULL, NULL, SOCK_CLOEXEC);
    EXPECT(server >= 0);
    EXPECT(numio_send(client, "one", 3, 0) == 3 && numio_send(client, "two", 3, 0) == 3);
    if (type == SOCK_STREAM)
        EXPECT(numio_recv_all(server, text, 6, 0) == 6 && memcmp(text, "onetwo", 6) == 0);
    else /* each keeps its bounds */
        EXPECT(numio_recv(server, text, sizeof text, 0) == 3 && memcmp(text, "one", 3) == 0 &&
               numio_recv(server, text, sizeof text, 0) == 3 && memcmp(text, "two", 3) == 0);
    if (type != SOCK_DGRAM)
        EXPECT(numio_unix_peer(server, &pid, &uid, &gid) == 0 && pid == getpid() &&
               uid == geteuid() && gid == getegid());
    int64_t line = pass_descriptors(client, server);
    if (line != 0)
        return line;
    EXPECT(numio_close(client) == 0 && (server == listener || numio_close(server) == 0));
    return numio_close(listener);
}

static int64_t use_all_types(void *arg)
{
    static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
    char path[64];
    (void)arg;
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "/tmp/numio-unix-%d-%u", getpid(), i); /* fits */
        int64_t line = use_unix(path, types[i]);
        EXPECT(unlink(path) == 0);
        if (line != 0)
            return line;
        (void)snprintf(path, sizeof path, "@numio-unix-%d-%u", getpid(), i); /* fits */
        line = use_unix(path, types[i]);
        if (line != 0)
            return line;
    }
    EXPECT(numio_unix_listen("/tmp/x", SOCK_RAW, 1) == -EINVAL);
    EXPECT(numio_unix_listen("", SOCK_STREAM, 1) == -EINVAL);
    EXPECT(numio_unix_connect("/numio/none", SOCK_STREAM) == -ENOENT);
    EXPECT(numio_unix_connect("@numio-none", SOCK_SEQPACKET) == -ECONNREFUSED);
    return 0;
}

FIXTURE_EACH(datagrams, unix_sockets_of_every_type_pass_bytes_and_descriptors, .timeout = 30)
{
    run(runtime, use_all_types);
}
