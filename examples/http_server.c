/* SPDX-License-Identifier: MIT */
/* http_server [ADDRESS:PORT [FOLDER]]: serves files by HTTP; SIGTERM ends it when all is sent. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <numio/numio.h>

#include "http_range.h"

enum { LINE_BYTES = 4096, HEAD_BYTES = 8192, BLOCK_BYTES = 16384, LOOKS = 40, TYPES = 6 };
static const uint64_t look_ns = 250000000, slow_ns = 10000000000;
static const char ok[] = "200 OK\r\nAccept-Ranges: bytes", bad[] = "400 Bad Request";
static const char slow[] = "408 Request Timeout";
static const char *const types[TYPES][2] = {
    { ".html", "text/html" }, { ".css", "text/css" },  { ".js", "text/javascript" },
    { ".txt", "text/plain" }, { ".png", "image/png" }, { ".svg", "image/svg+xml" },
};
static struct numio_signals *signals;
static int folder;
static _Atomic bool is_ending;

struct connection {
    struct numio_reader in;
    struct numio_writer out;
    bool is_head, is_kept, ends; /* a HEAD; another may follow; the server ends */
    const char *status, *range;
    char *path, in_buf[LINE_BYTES], out_buf[LINE_BYTES], head[HEAD_BYTES + 16], block[BLOCK_BYTES];
};

/* The path of a target, in place: "/a%20b/?c" becomes "a b/index.html".  Returns the status. */
static const char *decode(char *target)
{
    char *to = target;
    for (const char *from = target + 1; *from && *from != '?'; from += *from == '%' ? 3 : 1) {
        char hex[3] = { from[1], from[1] ? from[2] : '\0', '\0' };
        *to = *from == '%' ? (char)strtol(hex, NULL, 16) : *from;
        if (!*to++ || (*from == '%' && strspn(hex, "0123456789abcdefABCDEF") != 2))
            return bad;
    }
    (void)snprintf(to, 11, "%s", to == target || to[-1] == '/' ? "index.html" : ""); /* has room */
    return ok;
}

/* Reads a head, for its status and path.  Returns 0; a negative errno value: nobody waits.  Called
 * within a deadline, which ends the reading, not the answer to it. */
static int64_t read_request(struct connection *c)
{
    const char *line;
    int64_t n, used = 0;
    c->head[0] = '\0';
    for (; (n = numio_reader_line(&c->in, &line)) > 0 && used + n < HEAD_BYTES; used += n + 1)
        (void)snprintf(c->head + used, (size_t)n + 2, "%.*s\n", (int)n, line); /* has room */
    c->status = n == 0 ? bad : n == -ETIMEDOUT ? slow : "431 Request Header Fields Too Large";
    if (n != 0)
        return n > 0 || n == -EMSGSIZE || n == -ETIMEDOUT ? 0 : n;
    char *target = strchr(c->head, ' '), *end = target ? strchr(target + 1, ' ') : NULL;
    if (!end || target[1] != '/' || strncmp(end, " HTTP/1.1\n", 10) != 0 ||
        strlen(c->head) < (size_t)used /* a NUL */ || !strcasestr(end, "\nHost:"))
        return 0;
    bool has_body = strcasestr(end, "\nContent-Length:") || strcasestr(end, "\nTransfer-Encoding:");
    c->is_head = strncmp(c->head, "HEAD ", 5) == 0;
    c->is_kept = !c->ends && !has_body && !strcasestr(end, "\nConnection: close\n");
    c->range = c->is_head ? "" : http_range_find(end);
    *end = '\0';
    c->status = has_body ? bad : decode(c->path = target + 1);
    if (!c->is_head && strncmp(c->head, "GET ", 4) != 0)
        c->status = "405 Method Not Allowed\r\nAllow: GET, HEAD";
    return 0;
}

/* Answers a request.  Returns whether another may follow. */
static bool answer(struct connection *c)
{
    const char *type = "application/octet-stream", *dot;
    struct open_how how = { .flags = O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_BENEATH };
    struct statx stat = { .stx_size = 0 };
    struct http_range part;
    int64_t fd = -1, n = 0, rc;
    c->is_kept = false;
    if (numio_within(slow_ns, read_request(c)) < 0)
        return false;
    if (c->status == ok && (fd = numio_openat2(folder, c->path, &how)) < 0)
        c->status = fd == -ENOENT || fd == -ENOTDIR ? "404 Not Found" : "403 Forbidden";
    if (fd >= 0 && (numio_statx((int)fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stat) < 0 ||
                    !S_ISREG(stat.stx_mode)))
        c->status = "404 Not Found";
    for (size_t i = 0; fd >= 0 && (dot = strrchr(c->path, '.')) && i < TYPES; i++)
        type = strcmp(dot, types[i][0]) == 0 ? types[i][1] : type;
    bool is_ok = c->status == ok;
    http_range_parse(is_ok ? c->range : "", is_ok ? stat.stx_size : 0, &part);
    c->status = part.status[0] ? part.status : c->status;
    rc = numio_writer_printf(
        &c->out, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %lld\r\n%s\r\n", c->status,
        type, (long long)(part.end - part.from), c->is_kept ? "" : "Connection: close\r\n");
    for (int64_t off = part.from, end = part.end; rc == 0 && off < end && !c->is_head; off += n) {
        n = numio_pread((int)fd, c->block, BLOCK_BYTES, off);
        n = n > end - off ? end - off : n; /* it may have grown or shrunk meanwhile */
        rc = n <= 0 ? -EIO : numio_within(slow_ns, numio_writer_write(&c->out, c->block, n, NULL));
    }
    if (fd >= 0)
        (void)numio_close((int)fd); /* it was only read */
    return rc == 0 && numio_within(slow_ns, numio_writer_flush(&c->out)) == 0 && c->is_kept;
}

static int64_t serve_client(int fd, void *arg)
{
    struct connection c;
    const char *bytes;
    numio_reader_init(&c.in, fd, -1, c.in_buf, sizeof c.in_buf);
    numio_writer_init(&c.out, fd, -1, c.out_buf, sizeof c.out_buf);
    for (int looks = LOOKS; looks > 0;) { /* short ones, to notice the server's end */
        c.ends = atomic_load_explicit((_Atomic bool *)arg, memory_order_relaxed); /* relaxed hint */
        int64_t n = numio_within(look_ns, numio_reader_peek(&c.in, 1, &bytes));
        looks = n > 0 && answer(&c) ? LOOKS : n == -ETIMEDOUT && !c.ends ? looks - 1 : 0;
    }
    (void)numio_shutdown(fd, SHUT_WR); /* a close with something unread would be a reset */
    for (int i = 0; i < LOOKS && numio_within(look_ns, numio_read(fd, c.block, BLOCK_BYTES)) > 0;)
        i++;
    return numio_close(fd);
}

static int64_t serve(void *arg)
{
    struct numio_listen_opts opts;
    struct numio_listener *listener;
    numio_listen_opts_init(&opts, sizeof opts);
    opts.address = ((char **)arg)[1] ? ((char **)arg)[1] : "127.0.0.1:8080";
    opts.group = NUMIO_LISTEN_PER_WORKER;
    int64_t rc = numio_listener_open(NULL, &opts, &listener);
    if (rc < 0 || (rc = numio_listener_serve(listener, serve_client, &is_ending)) < 0)
        return fprintf(stderr, "http_server: %s\n", numio_strerror_detail()), rc;
    fprintf(stderr, "listening on %s\n", opts.address);
    rc = numio_signals_next(signals, NULL);
    atomic_store_explicit(&is_ending, true, memory_order_relaxed); /* relaxed: looked at again */
    (void)numio_within(slow_ns, numio_listener_drain(listener));   /* then they are aborted */
    return rc < 0 ? rc : numio_listener_close(listener);
}

int main(int argc, char **argv)
{
    if ((folder = open(argc > 2 ? argv[2] : ".", O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0 ||
        numio_signals_open((int[]){ SIGTERM, SIGINT }, 2, &signals) < 0)
        return perror("http_server"), 1;
    return numio_main(NULL, serve, argv) < 0;
}
