/* SPDX-License-Identifier: MIT */
/* chat_server [ADDRESS:PORT]: what one client says all others read; "127.0.0.1:7000".  Try it with
 * several `nc 127.0.0.1 7000`.
 *
 * Each client has a coroutine that reads its lines into a broadcast, and in the scope of that one
 * another that writes what the others say.  Nobody waits for a client that does not read: it misses
 * the oldest lines, and is told how many.  SIGTERM and SIGINT end the server; all are told. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <numio/numio.h>

enum { LINE_BYTES = 512, TEXT_BYTES = LINE_BYTES + 64, LINES_KEPT = 1024 };
static const uint64_t patience_ns = 5000000000;

struct line {
    uint32_t speaker; /* who need not hear it; 0: the server */
    int bytes;
    char text[TEXT_BYTES];
};

struct client {
    int fd;
    uint32_t number;
    struct numio_broadcast_receiver ears;
};

static struct numio_broadcast *room;
static struct numio_signals *signals;

/* To all but the client `speaker`. */
__attribute__((format(printf, 2, 3))) static int say(uint32_t speaker, const char *format, ...)
{
    struct line line = { .speaker = speaker };
    va_list args;
    va_start(args, format);
    line.bytes = vsnprintf(line.text, sizeof line.text, format, args);
    va_end(args);
    return numio_broadcast_send(room, &line);
}

/* Ends when the client has gone, or the room is closed. */
static int64_t write_to(void *arg)
{
    struct client *client = arg;
    struct line line;
    int64_t rc = 0;
    while (rc >= 0) {
        rc = numio_broadcast_recv(&client->ears, &line);
        if (rc == -EOVERFLOW) {
            line.speaker = 0;
            line.bytes = snprintf(line.text, sizeof line.text, "* you have missed %llu lines\n",
                                  (unsigned long long)numio_broadcast_missed(&client->ears));
            rc = 0;
        }
        if (rc == 0 && line.speaker != client->number)
            rc = numio_send_all(client->fd, line.text, (size_t)line.bytes, MSG_NOSIGNAL);
    }
    (void)numio_shutdown(client->fd, SHUT_RDWR); /* has the reader end as well */
    return 0;
}

static int64_t serve_client(int fd, void *arg)
{
    /* relaxed: a number that nobody else has */
    uint32_t number = atomic_fetch_add_explicit((_Atomic uint32_t *)arg, 1, memory_order_relaxed);
    struct client client = { .fd = fd, .number = number };
    struct numio_reader in;
    struct numio_scope scope;
    char buffer[LINE_BYTES];
    const char *text;
    numio_broadcast_subscribe(room, &client.ears);
    numio_reader_init(&in, fd, -1, buffer, sizeof buffer);
    int64_t n = numio_scope_open(&scope, 0); /* cannot fail in a coroutine */
    n = n < 0 ? n : numio_scope_spawn_co(&scope, write_to, &client, NULL);
    if (n == 0)
        n = say(number, "* client %u has come\n", number);
    while (n >= 0 && (n = numio_reader_line(&in, &text)) >= 0)
        n = say(number, "%u: %.*s\n", number, (int)n, text);
    (void)numio_scope_abort(&scope); /* the writer, if it is still there */
    (void)numio_scope_close(&scope); /* however it has ended */
    (void)numio_close(fd);           /* nobody is there to tell */
    return say(number, "* client %u has gone\n", number);
}

static int64_t serve(void *address)
{
    static _Atomic uint32_t next_number = 1;
    struct numio_listen_opts opts;
    struct numio_listener *listener;
    numio_listen_opts_init(&opts, sizeof opts);
    opts.address = address;
    int64_t rc = numio_broadcast_create(sizeof(struct line), LINES_KEPT, &room);
    if (rc < 0 || (rc = numio_listener_open(NULL, &opts, &listener)) < 0 ||
        (rc = numio_listener_serve(listener, serve_client, &next_number)) < 0)
        return fprintf(stderr, "chat_server: %s\n", numio_strerror_detail()), rc;
    printf("listening on %s\n", opts.address);
    fflush(stdout);
    rc = numio_signals_next(signals, NULL);
    (void)say(0, "* the server ends\n"); /* fails only once it is closed */
    numio_broadcast_close(room);         /* the writers end when they have sent what is left */
    (void)numio_within(patience_ns, numio_listener_drain(listener)); /* then they are aborted */
    return rc < 0 ? rc : numio_listener_close(listener);
}

int main(int argc, char **argv)
{
    char address[64];
    (void)snprintf(address, sizeof address, "%s", argc > 1 ? argv[1] : "127.0.0.1:7000");
    if (numio_signals_open((int[]){ SIGTERM, SIGINT }, 2, &signals) < 0)
        return perror("chat_server"), 1;
    return numio_main(NULL, serve, address) < 0;
}
