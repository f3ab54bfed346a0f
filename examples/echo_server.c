/* SPDX-License-Identifier: MIT */
/* echo_server [ADDRESS:PORT]: sends back what each client sends; "127.0.0.1:7000".
 * One coroutine per client; each reads like blocking code and runs on any worker. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <numio/numio.h>

enum { BACKLOG = 1024, BUFFER_BYTES = 4096 };

static int64_t echo(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buf[BUFFER_BYTES];
    int64_t n;
    while ((n = numio_recv(fd, buf, sizeof buf, 0)) > 0)
        if ((n = numio_send_all(fd, buf, (size_t)n, MSG_NOSIGNAL)) < 0)
            break;
    (void)numio_close(fd); /* the client has gone or gets nothing more */
    return n;
}

/* Out of descriptors or memory: clients that leave give some back. */
static bool is_passing(int64_t err)
{
    return err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -ECONNABORTED;
}

static int64_t serve(void *arg)
{
    const char *address = arg;
    int64_t fd = 0;
    int listener = numio_tcp_listen(address, BACKLOG);
    if (listener < 0) {
        fprintf(stderr, "echo_server: %s: %s\n", address, strerror(-listener));
        return listener;
    }
    printf("listening on %s\n", address);
    fflush(stdout);
    while (fd >= 0 || is_passing(fd)) {
        fd = numio_accept(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0 && numio_go(echo, (void *)(intptr_t)fd) < 0)
            (void)numio_close((int)fd); /* no memory for one more client */
        else if (is_passing(fd) && numio_sleep_ns(10000000) < 0)
            break;
    }
    (void)numio_close(listener); /* the server ends */
    return fd;
}

int main(int argc, char **argv)
{
    char address[64];
    (void)snprintf(address, sizeof address, "%s", argc > 1 ? argv[1] : "127.0.0.1:7000");
    return numio_main(NULL, serve, address) < 0;
}
