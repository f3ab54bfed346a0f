/* SPDX-License-Identifier: MIT */
/* epoll_echo: the floor for the TCP echo scenarios, a plain echo server in one thread: level-
 * triggered epoll, one buffer per connection, no runtime of any kind.  While a connection has
 * bytes that the kernel would not take, it is not read from.
 * Usage: epoll_echo --port P [--cpu C] [--spin]
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 4096, EVENTS_MAX = 256, BACKLOG = 4096 };

struct client {
    int fd;
    size_t from; /* buffer[from .. to): read, not yet written back */
    size_t to;
    char buffer[BUFFER_BYTES];
};

static void die(const char *what)
{
    fprintf(stderr, "epoll_echo: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int epoll_fd, struct client *client, unsigned events, int how)
{
    struct epoll_event event = { .events = events, .data.ptr = client };
    if (epoll_ctl(epoll_fd, how, client->fd, &event) != 0)
        die("epoll_ctl");
}

static void accept_all(int epoll_fd, int listen_fd)
{
    const int one = 1;
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && errno == EAGAIN)
            return;
        if (fd < 0)
            die("accept");
        if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
            die("TCP_NODELAY");
        struct client *client = malloc(sizeof *client);
        if (client == NULL)
            die("accept");
        client->fd = fd;
        client->from = client->to = 0;
        watch(epoll_fd, client, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* Writes back what is held; false when the client has gone. */
static bool write_back(struct client *client)
{
    while (client->from < client->to) {
        size_t left = client->to - client->from;
        ssize_t taken = send(client->fd, client->buffer + client->from, left, MSG_NOSIGNAL);
        if (taken < 0 && errno == EINTR)
            continue;
        if (taken < 0)
            return errno == EAGAIN;
        client->from += (size_t)taken;
    }
    client->from = client->to = 0;
    return true;
}

/* One turn for a ready client; false when it has gone. */
static bool serve(int epoll_fd, struct client *client)
{
    bool was_held = client->to != 0;
    if (!was_held) {
        ssize_t got = recv(client->fd, client->buffer, BUFFER_BYTES, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (got <= 0)
            return false;
        client->to = (size_t)got;
    }
    if (!write_back(client))
        return false;
    bool is_held = client->to != 0;
    if (is_held != was_held)
        watch(epoll_fd, client, is_held ? EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    return true;
}

static void loop(int epoll_fd, int listen_fd, int timeout_ms)
{
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int ready = epoll_wait(epoll_fd, events, EVENTS_MAX, timeout_ms);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (client == NULL) {
                accept_all(epoll_fd, listen_fd);
            } else if (!serve(epoll_fd, client)) {
                (void)close(client->fd); /* leaves the epoll set with it */
                free(client);
            }
        }
    }
}

static int listen_on(int port)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t at_bytes = sizeof at;
    const int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &at_bytes) != 0)
        die("listen");
    printf("listening on 127.0.0.1:%d\n", ntohs(at.sin_port));
    if (fflush(stdout) != 0)
        die("stdout");
    return fd;
}

static int number(const char *text, int max)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || value < 0 || value > max) {
        fprintf(stderr, "epoll_echo: not a number from 0 to %d: %s\n", max, text);
        exit(1);
    }
    return (int)value;
}

static void bind_to(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("--cpu");
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("RLIMIT_NOFILE");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("RLIMIT_NOFILE");
}

int main(int argc, char **argv)
{
    static const struct option LONG[] = {
        { "port", required_argument, NULL, 'p' },
        { "cpu", required_argument, NULL, 'c' },
        { "spin", no_argument, NULL, 's' },
        { NULL, 0, NULL, 0 },
    };
    int port = -1;
    int timeout_ms = -1;
    int option;
    while ((option = getopt_long(argc, argv, "", LONG, NULL)) != -1) {
        switch (option) {
        case 'p':
            port = number(optarg, 65535);
            break;
        case 'c':
            bind_to(number(optarg, CPU_SETSIZE - 1));
            break;
        case 's':
            timeout_ms = 0;
            break;
        default:
            port = -1;
            optind = argc;
            break;
        }
    }
    if (port < 0 || optind != argc) {
        fputs("Usage: epoll_echo --port P [--cpu C] [--spin]\n", stderr);
        return 1;
    }
    raise_descriptor_limit();
    int listen_fd = listen_on(port);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event) != 0)
        die("epoll");
    loop(epoll_fd, listen_fd, timeout_ms);
}
