/* SPDX-License-Identifier: MIT */
/* At most `depth` messages are outstanding, so buffers of depth messages always suffice: what is
 * unsent and what is half received are both part of what is outstanding.
 */
#include "perf/load/load_conn.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FILLER = 0x5a };

static int open_socket(const struct sockaddr_in *server, int *ret_fd)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    const int one = 1;
    if (connect(fd, (const struct sockaddr *)server, sizeof *server) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        int error = errno;
        (void)close(fd); /* the first error is the one to report */
        return -error;
    }
    *ret_fd = fd;
    return 0;
}

int load_conn_init(struct load_conn *conn, const struct sockaddr_in *server, uint32_t id,
                   size_t depth, size_t message_bytes)
{
    *conn =
        (struct load_conn){ .fd = -1, .id = id, .depth = depth, .message_bytes = message_bytes };
    conn->sent_ns = calloc(depth, sizeof *conn->sent_ns);
    conn->out = malloc(depth * message_bytes);
    conn->in = malloc(depth * message_bytes);
    int rc = -ENOMEM;
    if (conn->sent_ns != NULL && conn->out != NULL && conn->in != NULL)
        rc = open_socket(server, &conn->fd);
    if (rc != 0)
        load_conn_fini(conn);
    return rc;
}

void load_conn_fini(struct load_conn *conn)
{
    if (conn->fd >= 0)
        (void)close(conn->fd); /* nothing is written by it that could fail */
    free(conn->sent_ns);
    free(conn->out);
    free(conn->in);
    *conn = (struct load_conn){ .fd = -1 };
}

static void build_message(const struct load_conn *conn, unsigned char *to, uint64_t sequence)
{
    const uint64_t id = conn->id;
    memset(to, FILLER, conn->message_bytes);
    memcpy(to, &sequence, sizeof sequence);
    memcpy(to + 8, &id, sizeof id);
    memcpy(to + conn->message_bytes - 8, &sequence, sizeof sequence);
}

static bool is_the_answer(const struct load_conn *conn, const unsigned char *from)
{
    uint64_t first, id, last;
    memcpy(&first, from, sizeof first);
    memcpy(&id, from + 8, sizeof id);
    memcpy(&last, from + conn->message_bytes - 8, sizeof last);
    if (first != conn->answered || id != conn->id || last != conn->answered)
        return false;
    for (size_t i = 16; i < conn->message_bytes - 8; i++) {
        if (from[i] != FILLER)
            return false;
    }
    return true;
}

int load_conn_flush(struct load_conn *conn)
{
    size_t left = conn->out_to - conn->out_from;
    if (left == 0)
        return 0;
    ssize_t taken = send(conn->fd, conn->out + conn->out_from, left, MSG_NOSIGNAL);
    if (taken < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    conn->out_from += (size_t)taken;
    if (conn->out_from == conn->out_to)
        conn->out_from = conn->out_to = 0;
    return 0;
}

int load_conn_send(struct load_conn *conn, size_t count)
{
    size_t unsent = conn->out_to - conn->out_from;
    if (conn->out_from != 0) {
        memmove(conn->out, conn->out + conn->out_from, unsent);
        conn->out_from = 0;
        conn->out_to = unsent;
    }
    uint64_t now_ns = load_now_ns();
    for (size_t i = 0; i < count; i++) {
        build_message(conn, conn->out + conn->out_to, conn->sent);
        conn->sent_ns[conn->sent % conn->depth] = now_ns;
        conn->out_to += conn->message_bytes;
        conn->sent++;
    }
    return load_conn_flush(conn);
}

int load_conn_receive(struct load_conn *conn, struct load_hist *hist)
{
    size_t room = conn->depth * conn->message_bytes - conn->in_to;
    ssize_t got = recv(conn->fd, conn->in + conn->in_to, room, 0);
    if (got == 0)
        return -ECONNRESET;
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    uint64_t now_ns = load_now_ns();
    conn->in_to += (size_t)got;
    size_t from = 0;
    int answers = 0;
    while (conn->in_to - from >= conn->message_bytes) {
        if (conn->answered == conn->sent || !is_the_answer(conn, conn->in + from))
            return -EBADMSG;
        load_hist_add(hist, now_ns - conn->sent_ns[conn->answered % conn->depth]);
        conn->answered++;
        from += conn->message_bytes;
        answers++;
    }
    conn->in_to -= from;
    memmove(conn->in, conn->in + from, conn->in_to);
    return answers;
}
