/* SPDX-License-Identifier: MIT */
/* A TCP echo server: a coroutine per connection reads what there is and writes it back.
 *
 * The main thread has SIGTERM and SIGINT blocked before the runtime starts its threads, so that
 * the signal waits for it; then it shuts the runtime down, which cancels all connections.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <numio/io.h>

#include "perf/bench/bench_scenarios.h"

/* Several accept: each gets one connection per turn of the loop, which under the load of a thousand
 * others would be one in some milliseconds. */
enum { BUFFER_BYTES = 4096, BACKLOG = 4096, ADDRESS_BYTES = 32, ACCEPTORS = 16 };

/* How long to let connections end when the process has no descriptor left for another one. */
static const uint64_t full_pause_ns = 10000000;

static int64_t echo(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buffer[BUFFER_BYTES];
    int64_t got;
    while ((got = numio_recv(fd, buffer, sizeof buffer, 0)) > 0) {
        int64_t sent = numio_send_all(fd, buffer, (size_t)got, MSG_NOSIGNAL);
        if (sent < 0)
            break;
    }
    (void)numio_close(fd); /* the client has gone, in peace or not */
    return 0;
}

static void welcome(int fd)
{
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* slower without, no more */
    int rc = numio_go(echo, (void *)(intptr_t)fd);
    if (rc < 0) {
        (void)fprintf(stderr, "numio-bench: a connection is refused: %s\n", strerror(-rc));
        (void)numio_close(fd); /* nothing was sent on it */
    }
}

static bool is_out_of_descriptors(int64_t rc)
{
    return rc == -EMFILE || rc == -ENFILE || rc == -ENOBUFS || rc == -ENOMEM;
}

static int64_t serve(void *arg)
{
    int listener = (int)(intptr_t)arg;
    int64_t fd;
    for (;;) { /* until the runtime shuts down */
        fd = numio_accept(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            welcome((int)fd);
        else if (is_out_of_descriptors(fd))
            (void)numio_sleep_ns(full_pause_ns); /* cancelled: accept says so as well */
        else if (fd != -ECONNABORTED)
            break;
    }
    if (fd != -ECANCELED)
        bench_fail_rc("numio_accept", fd);
    return 0;
}

static unsigned port_of(int listener)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    if (getsockname(listener, (struct sockaddr *)&address, &length))
        bench_fail("getsockname: %s", strerror(errno));
    return ntohs(address.sin_port);
}

int bench_serve_echo(const struct bench_options *options)
{
    char address[ADDRESS_BYTES];
    struct numio_config config;
    struct numio_runtime *runtime;
    sigset_t ends;
    int signal_number;
    if (sigemptyset(&ends) || sigaddset(&ends, SIGTERM) || sigaddset(&ends, SIGINT) ||
        pthread_sigmask(SIG_BLOCK, &ends, NULL))
        bench_fail("the signals cannot be blocked");
    bench_options_config(options, &config);
    bench_must(numio_runtime_create(&config, &runtime), "numio_runtime_create");
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", options->port); /* fits */
    int listener = numio_tcp_listen(address, BACKLOG);
    bench_must(listener, address);
    printf("listening %u\n", port_of(listener));
    if (fflush(stdout))
        bench_fail("stdout: %s", strerror(errno));
    for (unsigned i = 0; i < ACCEPTORS; i++)
        bench_must(numio_spawn_co(numio_runtime_handle(runtime), serve, (void *)(intptr_t)listener,
                                  NULL, NULL),
                   "numio_spawn_co");
    int rc = sigwait(&ends, &signal_number);
    if (rc)
        bench_fail("sigwait: %s", strerror(rc));
    numio_runtime_destroy(runtime);
    (void)close(listener); /* nothing more to do with it */
    return 0;
}
