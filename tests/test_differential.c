/* SPDX-License-Identifier: MIT */
/* The same program of random I/O, on every profile, must see the same: each step's result and bytes
 * are noted in a digest, and the digests are compared.
 *
 * The program works on a file (whole, in vectors, with and without O_DIRECT), a pipe, a stream, a
 * datagram and a packet socket, with deadlines that have passed and scopes that have not, in an
 * order that the seed gives and time does not change: a wait either finds its data there or is told
 * at once that it is late.  A descriptor's number is not noted, since profiles use them up
 * differently.
 *
 * Where no disk can be polled iopoll is defer; the other case is in numa/numa_iopoll.c.
 */
#include "tests/runtime_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "tests/seeded.h"

enum { STEPS = 1500, FILE_BYTES = 1 << 16, BLOCK = 4096, PIECE_MAX = 3000, KINDS = 14 };

struct program {
    struct nio_rng rng;
    uint64_t digest;
    int file, direct; /* the same file; direct -1: there is no O_DIRECT */
    int pipe[2], stream[2], datagram[2], packet[2];
    unsigned in_pipe, in_stream, in_datagram, in_packet; /* bytes, or messages, that wait there */
    char path[32];
    unsigned char *block; /* BLOCK bytes, aligned */
    unsigned char out[PIECE_MAX], in[PIECE_MAX];
};

/* FNV-1a (Fowler, Noll, Vo), over a step's result and what it brought. */
static void note(struct program *p, int64_t result, const void *bytes, size_t len)
{
    const unsigned char *at = bytes;
    for (unsigned i = 0; i < 8; i++)
        p->digest = (p->digest ^ (unsigned char)((uint64_t)result >> 8 * i)) * 0x100000001b3;
    for (size_t i = 0; i < len; i++)
        p->digest = (p->digest ^ at[i]) * 0x100000001b3;
}

static unsigned draw(struct program *p, unsigned below)
{
    return nio_rng_below(&p->rng, below);
}

static unsigned fill_out(struct program *p)
{
    unsigned len = 1 + draw(p, PIECE_MAX);
    for (unsigned i = 0; i < len; i++)
        p->out[i] = (unsigned char)(i * 7 + len);
    return len;
}

/* ---- steps -------------------------------------------------------------------------------- */

static void step_file(struct program *p, unsigned kind)
{
    int64_t off = draw(p, FILE_BYTES);
    unsigned len = fill_out(p), half = len / 2;
    struct iovec out[] = { { p->out, half }, { p->out + half, len - half } };
    struct iovec in[] = { { p->in + half, len - half }, { p->in, half } };
    memset(p->in, 0, len);
    if (kind == 0)
        note(p, numio_pwrite(p->file, p->out, len, off), NULL, 0);
    else if (kind == 1)
        note(p, numio_pread(p->file, p->in, len, off), p->in, len);
    else if (kind == 2)
        note(p, numio_writev(p->file, out, 2, off), NULL, 0);
    else
        note(p, numio_readv(p->file, in, 2, off), p->in, len);
}

static void step_direct(struct program *p)
{
    int64_t off = (int64_t)draw(p, FILE_BYTES / BLOCK) * BLOCK;
    bool is_write = draw(p, 2), is_odd = draw(p, 8) == 0;
    int64_t result;
    if (p->direct < 0)
        return;
    memset(p->block, (int)draw(p, 256), BLOCK);
    if (is_write)
        result = numio_pwrite(p->direct, p->block, BLOCK, off);
    else
        result = numio_pread(p->direct, p->block, BLOCK, is_odd ? off + 7 : off);
    note(p, result, p->block, is_write || result < 0 ? 0 : (size_t)result);
}

static void step_stream(struct program *p, const int fds[2], unsigned *waiting, bool is_pipe)
{
    unsigned len = fill_out(p);
    if (*waiting + len < 20000 && draw(p, 2)) {
        int64_t n = is_pipe ? numio_write(fds[1], p->out, len) : numio_send(fds[1], p->out, len, 0);
        *waiting += n > 0 ? (unsigned)n : 0;
        note(p, n, NULL, 0);
    } else if (*waiting > 0) { /* all that was asked for is there, or less is */
        len = len < *waiting ? len : *waiting;
        int64_t n = is_pipe ? numio_pread_all(fds[0], p->in, len, -1)
                            : numio_recv_all(fds[0], p->in, len, 0);
        *waiting -= n > 0 ? (unsigned)n : 0;
        note(p, n, p->in, n > 0 ? (size_t)n : 0);
    } else {
        note(p, numio_poll_fd(fds[1], POLLOUT), NULL, 0);
    }
}

static void step_messages(struct program *p, const int fds[2], unsigned *waiting)
{
    unsigned len = fill_out(p);
    if (*waiting < 4 && draw(p, 2)) {
        note(p, numio_send(fds[1], p->out, len, 0), NULL, 0);
        ++*waiting;
    } else if (*waiting > 0) {
        struct iovec part = { p->in,
                              1 + draw(p, PIECE_MAX) }; /* often too short: the rest is lost */
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
        int64_t n = numio_recvmsg(fds[0], &message, 0);
        note(p, n, p->in, n > 0 ? (size_t)n : 0);
        note(p, message.msg_flags & MSG_TRUNC, NULL, 0);
        --*waiting;
    }
}

/* What cannot be done, and what is late. */
static void step_failure(struct program *p)
{
    struct numio_deadline deadline;
    char byte;
    int rc = numio_deadline_push(&deadline, draw(p, 2) ? 0 : 3600000000000);
    bool is_late = numio_deadline_left() == 0;
    note(p, rc, NULL, 0);
    note(p, numio_pread(-1, &byte, 1, 0), NULL, 0);
    note(p, numio_pwrite(p->file, p->out, 1, -7), NULL, 0);
    note(p, numio_send(p->file, p->out, 1, 0), NULL, 0);
    note(p, numio_fsync(p->pipe[0]), NULL, 0);
    note(p, numio_open("/numio/none", O_RDONLY, 0), NULL, 0);
    if (is_late && p->in_stream == 0)
        note(p, numio_recv(p->stream[0], &byte, 1, 0), NULL, 0);
    note(p, numio_sleep_ns(10), NULL, 0);
    note(p, numio_yield_now(), NULL, 0);
    note(p, numio_deadline_pop(&deadline), NULL, 0);
}

static void step_name(struct program *p)
{
    char name[48], other[48];
    struct statx stat = { 0 };
    (void)snprintf(name, sizeof name, "%s.%u", p->path, draw(p, 3));   /* fits */
    (void)snprintf(other, sizeof other, "%s.%u", p->path, draw(p, 3)); /* likewise */
    switch (draw(p, 5)) {
    case 0:
        note(p, numio_link(p->path, name), NULL, 0);
        break;
    case 1:
        note(p, numio_rename(name, other), NULL, 0);
        break;
    case 2:
        note(p, numio_unlink(name), NULL, 0);
        break;
    case 3:
        note(p, numio_symlink("target", name), NULL, 0);
        break;
    default:
        note(p, numio_statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, STATX_TYPE | STATX_SIZE, &stat),
             NULL, 0);
        note(p, stat.stx_mode & S_IFMT, &stat.stx_size, sizeof stat.stx_size);
        break;
    }
}

static void step(struct program *p)
{
    unsigned kind = draw(p, KINDS);
    if (kind < 4)
        step_file(p, kind);
    else if (kind == 4)
        step_direct(p);
    else if (kind <= 6)
        step_stream(p, p->pipe, &p->in_pipe, true);
    else if (kind <= 8)
        step_stream(p, p->stream, &p->in_stream, false);
    else if (kind == 9)
        step_messages(p, p->datagram, &p->in_datagram);
    else if (kind == 10)
        step_messages(p, p->packet, &p->in_packet);
    else if (kind == 11)
        step_failure(p);
    else
        step_name(p);
}

static int64_t run_program(void *arg)
{
    struct program *p = arg;
    for (unsigned i = 0; i < STEPS; i++)
        step(p);
    return 0;
}

/* ---- the comparison ----------------------------------------------------------------------- */

static void open_all(struct program *p)
{
    (void)snprintf(p->path, sizeof p->path, "/var/tmp/numio-diff-XXXXXX"); /* fits */
    p->file = mkostemp(p->path, O_CLOEXEC);
    cr_assert_geq(p->file, 0);
    p->direct = open(p->path, O_RDWR | O_DIRECT | O_CLOEXEC);
    cr_assert_eq(pipe2(p->pipe, O_CLOEXEC), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p->stream), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, p->datagram), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->packet), 0);
    p->block = aligned_alloc(BLOCK, BLOCK);
    cr_assert_not_null(p->block);
}

static void close_all(struct program *p)
{
    char name[48];
    int *pairs[] = { p->pipe, p->stream, p->datagram, p->packet };
    for (unsigned i = 0; i < 4; i++) {
        (void)close(pairs[i][0]);
        (void)close(pairs[i][1]);
    }
    (void)close(p->file);
    if (p->direct >= 0)
        (void)close(p->direct);
    (void)unlink(p->path);
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "%s.%u", p->path, i); /* fits */
        (void)unlink(name);                                     /* if it is there */
    }
    free(p->block);
}

static uint64_t digest_of(enum numio_driver driver, uint64_t seed)
{
    static struct program p;
    memset(&p, 0, sizeof p);
    p.digest = 0xcbf29ce484222325;
    nio_rng_init(&p.rng, &seed);
    open_all(&p);
    struct numio_config config = fixture_config(driver, 2);
    struct numio_runtime *runtime = fixture_create(&config);
    cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), run_program, &p), 0);
    numio_runtime_destroy(runtime);
    close_all(&p);
    return p.digest;
}

Test(differential, every_profile_sees_the_same, .timeout = 120)
{
    static const enum numio_driver drivers[] = { NUMIO_DRIVER_SQPOLL, NUMIO_DRIVER_DEFER,
                                                 NUMIO_DRIVER_IOPOLL };
    static const char *const names[] = { "sqpoll", "defer", "iopoll" };
    uint64_t seed = seeded_seed(nio_now_ns());
    for (unsigned round = 0; round < 5; round++, seed++) {
        uint64_t wanted = digest_of(NUMIO_DRIVER_EPOLL, seed);
        for (unsigned i = 0; i < 3 && fixture_has_uring(); i++)
            cr_assert_eq(digest_of(drivers[i], seed), wanted, "seed %llu: %s and epoll differ",
                         (unsigned long long)seed, names[i]);
    }
}
