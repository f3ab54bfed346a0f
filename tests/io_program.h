/* SPDX-License-Identifier: MIT */
/* tests/io_program.h: a random program of I/O that every driver profile must see alike.  Each
 * step's result and bytes are noted in a digest.
 *
 * It works on a file (whole, in vectors, with and without O_DIRECT, grown, cut, punched, copied),
 * on names in a folder, attributes, a pipe, a stream, a TCP connection, a datagram and a packet
 * socket, by single calls, chains, streams of results and buffered readers, with deadlines that
 * have passed and scopes that have not, in an order that the seed gives and time does not change: a
 * wait either finds its data there or is told at once that it is late.  A descriptor's number is
 * not noted, since profiles use them up differently, nor where a stream of bytes was cut into
 * pieces. Test programs only.
 */
#ifndef TESTS_IO_PROGRAM_H
#define TESTS_IO_PROGRAM_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <numio/batch.h>
#include <numio/bufio.h>
#include <numio/numio.h>
#include <numio/stream.h>

#include "runtime/base/rng.h"

enum {
    PROGRAM_FILE_BYTES = 1 << 16,
    PROGRAM_BLOCK = 4096,
    PROGRAM_PIECE_MAX = 3000,
    PROGRAM_WAITING_MAX = 20000, /* bytes in a pipe or a socket: less than any of them holds */
    PROGRAM_NAMES = 3
};

struct program {
    struct nio_rng rng;
    uint64_t digest;
    unsigned steps;
    int file, direct; /* the same file; direct -1: there is no O_DIRECT */
    int pipe[2], stream[2], tcp[2], datagram[2], packet[2];
    int listener;
    struct sockaddr_in address;                                  /* of the listener */
    unsigned in_pipe, in_stream, in_tcp, in_datagram, in_packet; /* bytes, or messages, there */
    char folder[64], path[80];
    unsigned char *block; /* PROGRAM_BLOCK bytes, aligned */
    unsigned char out[PROGRAM_PIECE_MAX], in[PROGRAM_WAITING_MAX];
};

static inline void program_must(bool holds, const char *what)
{
    if (holds)
        return;
    perror(what);
    abort();
}

/* FNV-1a (Fowler, Noll, Vo), over a step's result and what it brought. */
static inline void program_note(struct program *p, int64_t result, const void *bytes, size_t len)
{
    const unsigned char *at = bytes;
    for (unsigned i = 0; i < 8; i++)
        p->digest = (p->digest ^ (unsigned char)((uint64_t)result >> 8 * i)) * 0x100000001b3;
    for (size_t i = 0; i < len; i++)
        p->digest = (p->digest ^ at[i]) * 0x100000001b3;
}

/* Of a call that gives a descriptor. */
static inline void program_note_fd(struct program *p, int64_t fd)
{
    program_note(p, fd < 0 ? fd : 0, NULL, 0);
}

static inline unsigned program_draw(struct program *p, unsigned below)
{
    return nio_rng_below(&p->rng, below);
}

static inline unsigned program_fill(struct program *p)
{
    unsigned len = 1 + program_draw(p, PROGRAM_PIECE_MAX);
    for (unsigned i = 0; i < len; i++)
        p->out[i] = (unsigned char)(i * 7 + len);
    return len;
}

/* ---- files -------------------------------------------------------------------------------- */

static inline void program_transfer(struct program *p)
{
    int64_t off = program_draw(p, PROGRAM_FILE_BYTES);
    unsigned len = program_fill(p), half = len / 2;
    struct iovec out[] = { { p->out, half }, { p->out + half, len - half } };
    struct iovec in[] = { { p->in + half, len - half }, { p->in, half } };
    memset(p->in, 0, len);
    switch (program_draw(p, 4)) {
    case 0:
        program_note(p, numio_pwrite(p->file, p->out, len, off), NULL, 0);
        break;
    case 1:
        program_note(p, numio_pread(p->file, p->in, len, off), p->in, len);
        break;
    case 2:
        program_note(p, numio_writev(p->file, out, 2, off), NULL, 0);
        break;
    default:
        program_note(p, numio_readv(p->file, in, 2, off), p->in, len);
        break;
    }
}

static inline void program_direct(struct program *p)
{
    int64_t off = (int64_t)program_draw(p, PROGRAM_FILE_BYTES / PROGRAM_BLOCK) * PROGRAM_BLOCK;
    bool is_write = program_draw(p, 2), is_odd = program_draw(p, 8) == 0;
    int64_t result;
    if (p->direct < 0)
        return;
    memset(p->block, (int)program_draw(p, 256), PROGRAM_BLOCK);
    if (is_write)
        result = numio_pwrite(p->direct, p->block, PROGRAM_BLOCK, off);
    else
        result = numio_pread(p->direct, p->block, PROGRAM_BLOCK, is_odd ? off + 7 : off);
    program_note(p, result, p->block, is_write || result < 0 ? 0 : (size_t)result);
}

/* A write, its way to the disk, and what is there then; one in four is broken at its beginning. */
static inline void program_chain(struct program *p)
{
    struct numio_op ops[4];
    int64_t off = program_draw(p, PROGRAM_FILE_BYTES);
    unsigned len = program_fill(p);
    bool is_hard = program_draw(p, 2);
    int first = program_draw(p, 4) == 0 ? -1 : p->file;
    memset(p->in, 0, len);
    numio_op_write(&ops[0], first, p->out, len, off);
    numio_op_fdatasync(&ops[1], p->file);
    numio_op_read(&ops[2], p->file, p->in, len, off);
    numio_op_read(&ops[3], p->file, p->in + len, 16, 0); /* stands alone */
    (is_hard ? numio_op_hardlink : numio_op_link)(&ops[0]);
    numio_op_link(&ops[1]);
    numio_op_drain(&ops[3]);
    memset(p->in + len, 0, 16);
    program_note(p, numio_batch_await(ops, 4), p->in, len + 16);
    for (unsigned i = 0; i < 4; i++)
        program_note(p, numio_op_result(&ops[i]), NULL, 0);
}

static inline void program_shape(struct program *p)
{
    int64_t off = program_draw(p, PROGRAM_FILE_BYTES), len = 1 + program_draw(p, 8192);
    struct statx stat = { 0 };
    switch (program_draw(p, 4)) {
    case 0:
        program_note(p, numio_ftruncate(p->file, off), NULL, 0);
        break;
    case 1:
        program_note(p, numio_fallocate(p->file, 0, off, len), NULL, 0);
        break;
    case 2:
        program_note(p,
                     numio_fallocate(p->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len),
                     NULL, 0);
        break;
    default:
        program_note(p, numio_copy_all(p->file, off, p->file, PROGRAM_FILE_BYTES * 2 + off, len),
                     NULL, 0);
        break;
    }
    program_note(p, numio_statx(p->file, "", AT_EMPTY_PATH, STATX_SIZE, &stat), &stat.stx_size,
                 sizeof stat.stx_size);
}

static inline void program_attributes(struct program *p)
{
    char name[24], value[64] = { 0 };
    (void)snprintf(name, sizeof name, "user.numio.%u", program_draw(p, 3)); /* fits */
    if (program_draw(p, 2))
        program_note(p, numio_fsetxattr(p->file, name, p->out, 1 + program_draw(p, 40), 0), NULL,
                     0);
    else if (program_draw(p, 2))
        program_note(p, numio_fgetxattr(p->file, name, value, sizeof value), value, sizeof value);
    else
        program_note(p, numio_fremovexattr(p->file, name), NULL, 0);
}

/* Pieces that end with a byte, and exact lengths, from somewhere in the file. */
static inline void program_buffered(struct program *p)
{
    struct numio_reader reader;
    const char *text;
    char buffer[512], exact[64];
    numio_reader_init(&reader, p->file, program_draw(p, PROGRAM_FILE_BYTES), buffer, sizeof buffer);
    for (unsigned i = program_draw(p, 6); i > 0; i--) {
        size_t done = 0;
        int64_t n = numio_reader_until(&reader, (char)program_draw(p, 256), &text);
        program_note(p, n, text, n > 0 ? (size_t)n : 0);
        n = numio_reader_exact(&reader, exact, 1 + program_draw(p, sizeof exact), &done);
        program_note(p, n, exact, done);
    }
}

static inline void program_list(struct program *p)
{
    struct numio_dir *dir;
    struct numio_dirent entry;
    uint64_t sum = 0; /* the order is the file system's */
    int64_t n = numio_dir_open(AT_FDCWD, p->folder, &dir);
    program_note(p, n < 0 ? n : 0, NULL, 0);
    if (n < 0)
        return;
    while ((n = numio_dir_next(dir, &entry)) > 0)
        for (const char *c = entry.name; *c; c++)
            sum = sum + (unsigned char)*c * 31u;
    program_note(p, n, &sum, sizeof sum);
    program_note(p, numio_dir_close(dir), NULL, 0);
}

static inline void program_names(struct program *p)
{
    char name[96], other[96];
    struct statx stat = { 0 };
    (void)snprintf(name, sizeof name, "%s/n%u", p->folder, program_draw(p, PROGRAM_NAMES));
    (void)snprintf(other, sizeof other, "%s/n%u", p->folder, program_draw(p, PROGRAM_NAMES));
    switch (program_draw(p, 8)) {
    case 0:
        program_note(p, numio_link(p->path, name), NULL, 0);
        break;
    case 1:
        program_note(p, numio_rename(name, other), NULL, 0);
        break;
    case 2:
        program_note(p, numio_unlink(name), NULL, 0);
        break;
    case 3:
        program_note(p, numio_symlink("target", name), NULL, 0);
        break;
    case 4:
        program_note(p, numio_mkdir(name, 0700), NULL, 0);
        break;
    case 5:
        program_note(p, numio_rmdir(name), NULL, 0);
        break;
    case 6:
        program_list(p);
        break;
    default:
        program_note(
            p, numio_statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, STATX_TYPE | STATX_NLINK, &stat),
            NULL, 0);
        program_note(p, stat.stx_mode & S_IFMT, &stat.stx_nlink, sizeof stat.stx_nlink);
        break;
    }
}

/* ---- pipes and sockets -------------------------------------------------------------------- */

static inline void program_pipe(struct program *p)
{
    unsigned len = program_fill(p);
    int64_t n = 0;
    if (p->in_pipe + len < PROGRAM_WAITING_MAX && program_draw(p, 2)) {
        n = numio_write(p->pipe[1], p->out, len);
        p->in_pipe += n > 0 ? (unsigned)n : 0;
        program_note(p, n, NULL, 0);
        return;
    }
    if (p->in_pipe == 0) {
        program_note(p, numio_poll_fd(p->pipe[1], POLLOUT), NULL, 0);
        return;
    }
    len = len < p->in_pipe ? len : p->in_pipe; /* so much is there */
    if (program_draw(p, 3) == 0) {
        int64_t off = program_draw(p, PROGRAM_FILE_BYTES);
        unsigned done = 0;
        while (done < len && n >= 0) { /* in as many pieces as it likes */
            n = numio_splice(p->pipe[0], -1, p->file, off + done, len - done, 0);
            done += n > 0 ? (unsigned)n : 0;
        }
        p->in_pipe -= done;
        program_note(p, n < 0 ? n : (int64_t)done, NULL, 0);
    } else {
        n = numio_pread_all(p->pipe[0], p->in, len, -1);
        p->in_pipe -= n > 0 ? (unsigned)n : 0;
        program_note(p, n, p->in, n > 0 ? (size_t)n : 0);
    }
}

/* All that is there, by a stream of results. */
static inline void program_take_all(struct program *p, int fd, unsigned *waiting)
{
    struct numio_stream *stream;
    struct numio_chunk chunk;
    unsigned done = 0;
    int64_t n = numio_recv_stream(fd, 0, &stream);
    program_note(p, n, NULL, 0);
    if (n < 0)
        return;
    while (done < *waiting && (n = numio_stream_recv(stream, &chunk)) > 0) {
        program_must(done + chunk.len <= sizeof p->in, "more came than was sent");
        memcpy(p->in + done, chunk.data, chunk.len);
        done += (unsigned)chunk.len;
        numio_chunk_release(&chunk);
    }
    program_note(p, done == *waiting ? 0 : n, p->in, done);
    *waiting -= done;
    program_note(p, numio_stream_close(&stream), NULL, 0);
}

static inline void program_stream(struct program *p, const int fds[2], unsigned *waiting)
{
    unsigned len = program_fill(p);
    if (*waiting + len < PROGRAM_WAITING_MAX && program_draw(p, 2)) {
        int64_t n = numio_send_all(fds[1], p->out, len, 0);
        *waiting += n > 0 ? (unsigned)n : 0;
        program_note(p, n, NULL, 0);
    } else if (*waiting > 0 && program_draw(p, 4) == 0) {
        program_take_all(p, fds[0], waiting);
    } else if (*waiting > 0) {
        len = len < *waiting ? len : *waiting;
        int64_t n = numio_recv_all(fds[0], p->in, len, 0);
        *waiting -= n > 0 ? (unsigned)n : 0;
        program_note(p, n, p->in, n > 0 ? (size_t)n : 0);
    } else {
        program_note(p, numio_poll_fd(fds[1], POLLOUT), NULL, 0);
    }
}

static inline void program_messages(struct program *p, const int fds[2], unsigned *waiting)
{
    unsigned len = program_fill(p);
    if (*waiting < 4 && program_draw(p, 2)) {
        program_note(p, numio_send(fds[1], p->out, len, 0), NULL, 0);
        ++*waiting;
    } else if (*waiting > 0) { /* often too short: the rest is lost */
        struct iovec part = { p->in, 1 + program_draw(p, PROGRAM_PIECE_MAX) };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
        int64_t n = numio_recvmsg(fds[0], &message, 0);
        program_note(p, n, p->in, n > 0 ? (size_t)n : 0);
        program_note(p, message.msg_flags & MSG_TRUNC, NULL, 0);
        --*waiting;
    }
}

/* A connection that lives for a step, accepted by a call or a stream. */
static inline void program_connect(struct program *p)
{
    const struct sockaddr *address = (const struct sockaddr *)&p->address;
    struct numio_stream *stream = NULL;
    char byte = 'c';
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    program_must(client >= 0, "socket");
    if (program_draw(p, 2))
        program_note(p, numio_accept_stream(p->listener, SOCK_CLOEXEC, &stream), NULL, 0);
    program_note(p, numio_connect(client, address, sizeof p->address), NULL, 0);
    int server = (int)(stream ? numio_stream_next(stream)
                              : numio_accept(p->listener, NULL, NULL, SOCK_CLOEXEC));
    program_note_fd(p, server);
    if (stream)
        program_note(p, numio_stream_close(&stream), NULL, 0);
    program_note(p, numio_send(server, &byte, 1, 0), NULL, 0);
    program_note(p, numio_shutdown(server, SHUT_WR), NULL, 0);
    program_note(p, numio_recv(client, p->in, 1, 0), p->in, 1);
    program_note(p, numio_recv(client, p->in, 1, 0), NULL, 0);
    program_note(p, numio_close(server), NULL, 0);
    program_note(p, numio_close(client), NULL, 0);
}

/* ---- all of it ---------------------------------------------------------------------------- */

/* What cannot be done, and what is late. */
static inline void program_failure(struct program *p)
{
    struct numio_deadline deadline;
    char byte;
    int rc = numio_deadline_push(&deadline, program_draw(p, 2) ? 0 : 3600000000000);
    bool is_late = numio_deadline_left() == 0;
    program_note(p, rc, NULL, 0);
    program_note(p, numio_pread(-1, &byte, 1, 0), NULL, 0);
    program_note(p, numio_pwrite(p->file, p->out, 1, -7), NULL, 0);
    program_note(p, numio_send(p->file, p->out, 1, 0), NULL, 0);
    program_note(p, numio_fsync(p->pipe[0]), NULL, 0);
    program_note(p, numio_open("/numio/none", O_RDONLY, 0), NULL, 0);
    if (is_late && p->in_stream == 0)
        program_note(p, numio_recv(p->stream[0], &byte, 1, 0), NULL, 0);
    program_note(p, numio_sleep_ns(10), NULL, 0);
    program_note(p, numio_yield_now(), NULL, 0);
    program_note(p, numio_deadline_pop(&deadline), NULL, 0);
}

static inline void program_step(struct program *p)
{
    static void (*const plain[])(struct program * p) = {
        program_transfer, program_transfer, program_direct,     program_direct,  program_chain,
        program_shape,    program_buffered, program_attributes, program_names,   program_names,
        program_pipe,     program_pipe,     program_connect,    program_failure,
    };
    enum { PLAIN = sizeof plain / sizeof *plain };
    unsigned kind = program_draw(p, PLAIN + 6);
    if (kind < PLAIN)
        plain[kind](p);
    else if (kind < PLAIN + 2)
        program_stream(p, p->stream, &p->in_stream);
    else if (kind < PLAIN + 4)
        program_stream(p, p->tcp, &p->in_tcp);
    else if (kind == PLAIN + 4)
        program_messages(p, p->datagram, &p->in_datagram);
    else
        program_messages(p, p->packet, &p->in_packet);
}

/* A coroutine. */
static inline int64_t program_run(void *arg)
{
    struct program *p = arg;
    for (unsigned i = 0; i < p->steps; i++)
        program_step(p);
    return 0;
}

static inline void program_open_tcp(struct program *p)
{
    socklen_t bytes = sizeof p->address;
    p->address =
        (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr *address = (struct sockaddr *)&p->address;
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    p->tcp[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    program_must(bind(p->listener, address, bytes) == 0 && listen(p->listener, 16) == 0 &&
                     getsockname(p->listener, address, &bytes) == 0 &&
                     connect(p->tcp[1], address, bytes) == 0,
                 "TCP over the loopback");
    p->tcp[0] = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
    program_must(p->tcp[0] >= 0, "accept");
}

/* `where`: a folder of the file system that is to be used. */
static inline void program_open(struct program *p, uint64_t seed, unsigned steps, const char *where)
{
    memset(p, 0, sizeof *p);
    p->digest = 0xcbf29ce484222325;
    p->steps = steps;
    nio_rng_init(&p->rng, &seed);
    (void)snprintf(p->folder, sizeof p->folder, "%s/numio-diff-XXXXXX", where); /* fits */
    program_must(mkdtemp(p->folder), p->folder);
    (void)snprintf(p->path, sizeof p->path, "%s/file", p->folder); /* fits */
    p->file = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    program_must(p->file >= 0, p->path);
    p->direct = open(p->path, O_RDWR | O_DIRECT | O_CLOEXEC);
    program_must(pipe2(p->pipe, O_CLOEXEC) == 0, "pipe");
    program_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p->stream) == 0 &&
                     socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, p->datagram) == 0 &&
                     socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->packet) == 0,
                 "socketpair");
    program_open_tcp(p);
    p->block = aligned_alloc(PROGRAM_BLOCK, PROGRAM_BLOCK);
    program_must(p->block, "memory");
}

static inline void program_close(struct program *p)
{
    char name[96];
    int *pairs[] = { p->pipe, p->stream, p->tcp, p->datagram, p->packet };
    for (unsigned i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        (void)close(pairs[i][0]);
        (void)close(pairs[i][1]);
    }
    (void)close(p->listener);
    (void)close(p->file);
    if (p->direct >= 0)
        (void)close(p->direct);
    (void)unlink(p->path);
    for (unsigned i = 0; i < PROGRAM_NAMES; i++) {
        (void)snprintf(name, sizeof name, "%s/n%u", p->folder, i); /* fits */
        (void)(unlink(name) == 0 || rmdir(name) == 0);             /* if it is there */
    }
    program_must(rmdir(p->folder) == 0, p->folder);
    free(p->block);
}

#endif
