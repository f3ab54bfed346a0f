/* SPDX-License-Identifier: MIT */
/* libuv-echo: the TCP echo scenarios on libuv: one loop in one thread, a buffer per connection,
 * what was read is written back at once.  While a connection has bytes that the kernel would not
 * take, it is not read from.
 * Usage: libuv-echo --port P | --version
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <uv.h>

enum { BUFFER_BYTES = 4096, BACKLOG = 4096, PORT_MAX = 65535 };

/* uv_tcp_t is first, so that a handle is its client. */
struct client {
    uv_tcp_t tcp;
    uv_write_t rest; /* in use while reading is stopped */
    char buffer[BUFFER_BYTES];
};

static void die(const char *what, int rc)
{
    fprintf(stderr, "libuv-echo: %s: %s\n", what, uv_strerror(rc));
    exit(1);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle);
}

static void drop(uv_stream_t *stream)
{
    if (!uv_is_closing((uv_handle_t *)stream))
        uv_close((uv_handle_t *)stream, on_closed);
}

static void lend_buffer(uv_handle_t *handle, size_t wanted, uv_buf_t *ret_buffer)
{
    struct client *client = (struct client *)handle;
    (void)wanted; /* there is one size */
    *ret_buffer = uv_buf_init(client->buffer, BUFFER_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buffer);

static void on_written(uv_write_t *request, int status)
{
    uv_stream_t *stream = request->handle;
    if (status < 0 || uv_read_start(stream, lend_buffer, on_read) != 0)
        drop(stream);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buffer)
{
    if (got == 0) /* nothing yet, which is no end */
        return;
    if (got < 0) { /* the client has gone, in peace or not */
        drop(stream);
        return;
    }
    uv_buf_t out = uv_buf_init(buffer->base, (unsigned)got);
    int sent = uv_try_write(stream, &out, 1);
    if (sent == got)
        return;
    if (sent < 0 && sent != UV_EAGAIN) {
        drop(stream);
        return;
    }
    unsigned taken = sent < 0 ? 0 : (unsigned)sent;
    struct client *client = (struct client *)stream;
    out = uv_buf_init(buffer->base + taken, (unsigned)got - taken);
    if (uv_read_stop(stream) != 0 || uv_write(&client->rest, stream, &out, 1, on_written) != 0)
        drop(stream);
}

static void on_connection(uv_stream_t *listener, int status)
{
    if (status < 0)
        die("accept", status);
    struct client *client = malloc(sizeof *client);
    if (client == NULL)
        die("accept", UV_ENOMEM);
    int rc = uv_tcp_init(listener->loop, &client->tcp);
    if (rc != 0)
        die("uv_tcp_init", rc);
    rc = uv_accept(listener, (uv_stream_t *)&client->tcp);
    if (rc == 0)
        rc = uv_tcp_nodelay(&client->tcp, 1);
    if (rc == 0)
        rc = uv_read_start((uv_stream_t *)&client->tcp, lend_buffer, on_read);
    if (rc != 0)
        drop((uv_stream_t *)&client->tcp);
}

static void listen_on(uv_tcp_t *listener, int port)
{
    struct sockaddr_in at;
    int at_bytes = sizeof at;
    int rc = uv_ip4_addr("127.0.0.1", port, &at);
    if (rc == 0)
        rc = uv_tcp_bind(listener, (const struct sockaddr *)&at, 0);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)listener, BACKLOG, on_connection);
    if (rc == 0)
        rc = uv_tcp_getsockname(listener, (struct sockaddr *)&at, &at_bytes);
    if (rc != 0)
        die("listen", rc);
    printf("listening on 127.0.0.1:%d\n", ntohs(at.sin_port));
    if (fflush(stdout) != 0)
        die("stdout", UV_EIO);
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
            return;
    }
    perror("libuv-echo: RLIMIT_NOFILE");
    exit(1);
}

int main(int argc, char **argv)
{
    uv_tcp_t listener;
    char *end = NULL;
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("libuv %s\n", uv_version_string());
        return 0;
    }
    long port = argc == 3 && strcmp(argv[1], "--port") == 0 ? strtol(argv[2], &end, 10) : -1;
    if (end == NULL || end == argv[2] || *end != '\0' || port < 0 || port > PORT_MAX) {
        fputs("Usage: libuv-echo --port P | --version   (a port from 0 to 65535)\n", stderr);
        return 1;
    }
    (void)signal(SIGPIPE, SIG_IGN); /* a client that has gone is an error of write(), no more */
    raise_descriptor_limit();
    int rc = uv_tcp_init(uv_default_loop(), &listener);
    if (rc != 0)
        die("uv_tcp_init", rc);
    listen_on(&listener, (int)port);
    return uv_run(uv_default_loop(), UV_RUN_DEFAULT) == 0 ? 0 : 1;
}
