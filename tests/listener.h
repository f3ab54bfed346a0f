/* SPDX-License-Identifier: MIT */
/* tests/listener.h: a listening socket on loopback, and connections to it by plain calls.
 * Test programs only; open_listener() is for the test's own thread.
 */
#ifndef TESTS_LISTENER_H
#define TESTS_LISTENER_H

#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <numio/io.h>

struct listener {
    int fd;
    struct sockaddr_in address;
};

static inline void open_listener(struct listener *listener)
{
    socklen_t bytes = sizeof listener->address;
    listener->fd = numio_tcp_listen("127.0.0.1:0", 1024);
    cr_assert_geq(listener->fd, 0);
    cr_assert_eq(getsockname(listener->fd, (struct sockaddr *)&listener->address, &bytes), 0);
}

/* A connected socket, -1 if that fails. */
static inline int connect_to(const struct listener *listener)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 &&
        connect(fd, (const struct sockaddr *)&listener->address, sizeof listener->address) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

#endif
