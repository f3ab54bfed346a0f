/* SPDX-License-Identifier: MIT */
/* Buffered readers and writers against plain memory, whole and in random pieces, with deadlines
 * that end calls in the middle. */
#include "tests/runtime_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

#include "tests/seeded.h"
#include "tests/steps.h"

enum { STREAM_BYTES = 200000, BUFFER_BYTES = 64, PIECE_MAX = 200, SOON_NS = 2000000 };

static int64_t last_line;

static void run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
    cr_assert_eq(last_line, 0, "line %ld: %s", (long)last_line, numio_strerror_detail());
}

/* `text` points to where the call that gave `bytes` has put it: arguments have no order. */
static bool is_text(const char *const *text, int64_t bytes, const char *wanted)
{
    return bytes == (int64_t)strlen(wanted) && memcmp(*text, wanted, (size_t)bytes) == 0;
}

/* ---- a known text ------------------------------------------------------------------------- */

static int64_t read_a_text(void *arg)
{
    static const char text[] = "first\r\n\nsecond line\nkey=value;ABCDEFGHIJ"
                               "0123456789012345678901234567890123456789rest";
    const char *got;
    char buf[32], bytes[64];
    struct numio_reader reader;
    size_t done = 0;
    int fd = *(int *)arg;
    EXPECT(numio_pwrite_all(fd, text, strlen(text), 0) == (int64_t)strlen(text));
    numio_reader_init(&reader, fd, 0, buf, sizeof buf);
    EXPECT(is_text(&got, numio_reader_line(&reader, &got), "first"));
    EXPECT(numio_reader_line(&reader, &got) == 0);
    EXPECT(is_text(&got, numio_reader_line(&reader, &got), "second line"));
    EXPECT(numio_reader_peek(&reader, 4, &got) >= 4 && memcmp(got, "key=", 4) == 0);
    EXPECT(is_text(&got, numio_reader_until(&reader, '=', &got), "key="));
    EXPECT(is_text(&got, numio_reader_until(&reader, ';', &got), "value;"));
    EXPECT(numio_reader_exact(&reader, bytes, 10, &done) == 0 && done == 10);
    EXPECT(memcmp(bytes, "ABCDEFGHIJ", 10) == 0);
    EXPECT(numio_reader_peek(&reader, 33, &got) == -EMSGSIZE);
    EXPECT(numio_reader_until(&reader, '?', &got) == -EMSGSIZE); /* 40 digits, 32 bytes */
    EXPECT(numio_reader_peek(&reader, 32, &got) == 32 && memcmp(got, "01234567890", 11) == 0);
    EXPECT(numio_reader_skip(&reader, 30) == 30);
    done = 0;
    EXPECT(numio_reader_exact(&reader, bytes, 10, &done) == 0);
    EXPECT(memcmp(bytes, "0123456789", 10) == 0);
    EXPECT(numio_reader_peek(&reader, 20, &got) == 4); /* the end is near */
    EXPECT(is_text(&got, numio_reader_line(&reader, &got), "rest"));
    EXPECT(numio_reader_line(&reader, &got) == -ENODATA);
    EXPECT(numio_reader_until(&reader, ';', &got) == 0);
    done = 0;
    EXPECT(numio_reader_exact(&reader, bytes, 1, &done) == -ENODATA && done == 0);
    EXPECT(numio_reader_read(&reader, bytes, sizeof bytes) == 0);
    EXPECT(numio_reader_skip(&reader, 1) == 0);
    numio_reader_init(&reader, -1, 0, buf, sizeof buf);
    EXPECT(numio_reader_line(&reader, &got) == -EBADF);
    return 0;
}

static int open_scratch(void)
{
    char path[] = "/tmp/numio-bufio.XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    cr_assert_geq(fd, 0);
    (void)unlink(path);
    return fd;
}

FIXTURE_EACH(bufio, a_text_is_read_by_lines_words_and_lengths, .timeout = 30)
{
    int fd = open_scratch();
    run(runtime, read_a_text, &fd);
    (void)close(fd);
}

static int64_t write_a_text(void *arg)
{
    char buf[32], bytes[256];
    struct numio_writer writer;
    size_t done = 0;
    int fd = *(int *)arg;
    numio_writer_init(&writer, fd, 0, buf, sizeof buf);
    EXPECT(numio_writer_write(&writer, "abc", 3, NULL) == 0 && numio_writer_pending(&writer) == 3);
    EXPECT(numio_pread(fd, bytes, 1, 0) == 0); /* nothing is there yet */
    EXPECT(numio_writer_printf(&writer, "%d,%s", 12345, "xy") == 0);
    EXPECT(numio_writer_printf(&writer, "%s", "") == 0);
    EXPECT(numio_writer_pending(&writer) == 11);
    EXPECT(numio_writer_printf(&writer, "%30d", 7) == 0); /* what was there goes first */
    EXPECT(numio_writer_pending(&writer) == 30);
    EXPECT(numio_writer_printf(&writer, "%40d", 7) == -EMSGSIZE);
    EXPECT(numio_writer_pending(&writer) == 30);
    memset(bytes, 'z', sizeof bytes);
    EXPECT(numio_writer_write(&writer, bytes, 100, &done) == 0 && done == 100);
    EXPECT(numio_writer_flush(&writer) == 0 && numio_writer_pending(&writer) == 0);
    EXPECT(numio_writer_flush(&writer) == 0);
    EXPECT(numio_pread(fd, bytes, sizeof bytes, 0) == 141);
    EXPECT(memcmp(bytes, "abc12345,xy", 11) == 0 && bytes[39] == ' ' && bytes[40] == '7');
    EXPECT(bytes[41] == 'z' && bytes[140] == 'z');
    numio_writer_init(&writer, -1, 0, buf, sizeof buf);
    EXPECT(numio_writer_write(&writer, "abc", 3, NULL) == 0);
    EXPECT(numio_writer_flush(&writer) == -EBADF && numio_writer_pending(&writer) == 3);
    return 0;
}

/* ---- ended early, in known places --------------------------------------------------------- */

static int64_t look_for_another_delimiter(void *arg)
{
    struct numio_reader reader;
    struct numio_deadline deadline;
    const char *got;
    char buf[BUFFER_BYTES];
    int *ends = arg;
    EXPECT(write(ends[1], "xx;yy", 5) == 5);
    numio_reader_init(&reader, ends[0], -1, buf, sizeof buf);
    EXPECT(numio_deadline_push(&deadline, SOON_NS) == 0);
    EXPECT(numio_reader_line(&reader, &got) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    EXPECT(is_text(&got, numio_reader_until(&reader, ';', &got), "xx;"));
    EXPECT(write(ends[1], "zz\n", 3) == 3);
    EXPECT(is_text(&got, numio_reader_line(&reader, &got), "yyzz"));
    return 0;
}

static int64_t drain(void *arg)
{
    struct numio_reader reader;
    const char *got;
    char buf[BUFFER_BYTES];
    int64_t at = 0, n;
    numio_reader_init(&reader, *(int *)arg, -1, buf, sizeof buf);
    while ((n = numio_reader_peek(&reader, 1, &got)) > 0) {
        for (int64_t i = 0; i < n; i++)
            if (got[i] != (char)((at + i) * 7 + ((at + i) >> 8)))
                return -at;
        at += (int64_t)numio_reader_skip(&reader, (size_t)n);
    }
    return n < 0 ? n : at;
}

/* A pipe that holds a page takes a part of what is written. */
static int64_t write_in_parts(void *arg)
{
    enum { PIPE_BYTES = 4096, HELD = 6000, MORE = 3000, LONG = 20000, ALL = HELD + MORE + LONG };
    static char bytes[ALL], buf[HELD];
    struct numio_writer writer;
    struct numio_deadline deadline;
    struct numio_join *join;
    size_t done = 0;
    int *ends = arg;
    for (size_t i = 0; i < ALL; i++)
        bytes[i] = (char)(i * 7 + (i >> 8));
    EXPECT(fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES) == PIPE_BYTES);
    numio_writer_init(&writer, ends[1], -1, buf, sizeof buf);
    EXPECT(numio_writer_write(&writer, bytes, HELD, &done) == 0 && done == HELD);
    EXPECT(numio_deadline_push(&deadline, SOON_NS) == 0);
    EXPECT(numio_writer_flush(&writer) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    EXPECT(numio_writer_pending(&writer) == HELD - PIPE_BYTES);
    EXPECT(numio_writer_write(&writer, bytes + HELD, MORE, NULL) == 0);
    EXPECT(numio_writer_pending(&writer) == HELD - PIPE_BYTES + MORE);
    EXPECT(numio_spawn_co(NULL, drain, &ends[0], NULL, &join) == 0);
    done = 0;
    EXPECT(numio_writer_write(&writer, bytes + HELD + MORE, LONG, &done) == 0 && done == LONG);
    EXPECT(numio_writer_flush(&writer) == 0);
    EXPECT(numio_close(ends[1]) == 0);
    ends[1] = -1;
    EXPECT(numio_join_await(&join) == ALL);
    return 0;
}

FIXTURE_EACH(bufio, what_ends_early_goes_on_where_it_was, .timeout = 30)
{
    int ends[2];
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
        run(runtime, i ? write_in_parts : look_for_another_delimiter, ends);
        (void)close(ends[0]);
        if (ends[1] >= 0)
            (void)close(ends[1]);
    }
}

FIXTURE_EACH(bufio, a_writer_gathers_and_keeps_the_order, .timeout = 30)
{
    int fd = open_scratch();
    run(runtime, write_a_text, &fd);
    (void)close(fd);
}

/* ---- random pieces through a socket, with calls that are ended by deadlines --------------- */

struct stream {
    int fds[2];
    uint64_t seed;
    unsigned char *sent, *got;
    uint64_t late; /* calls that were ended early */
};

static int64_t send_stream(void *arg)
{
    struct stream *stream = arg;
    struct numio_writer writer;
    struct numio_deadline deadline;
    struct nio_rng rng;
    char buf[BUFFER_BYTES];
    uint64_t seed = stream->seed;
    nio_rng_init(&rng, &seed);
    numio_writer_init(&writer, stream->fds[0], -1, buf, sizeof buf);
    for (size_t at = 0; at < STREAM_BYTES;) {
        size_t piece = 1 + nio_rng_below(&rng, PIECE_MAX), done = 0;
        int64_t rc;
        if (piece > STREAM_BYTES - at)
            piece = STREAM_BYTES - at;
        do { /* until the piece is taken; each try may be ended */
            EXPECT(numio_deadline_push(&deadline, nio_rng_below(&rng, 8) ? 10000000000 : 0) == 0);
            rc = numio_writer_write(&writer, stream->sent + at, piece, &done);
            (void)numio_deadline_pop(&deadline);
        } while (rc == -ETIMEDOUT);
        EXPECT(rc == 0 && done == piece);
        at += piece;
        if (nio_rng_below(&rng, 20) == 0)
            EXPECT(numio_writer_flush(&writer) == 0);
        if (nio_rng_below(&rng, 30) == 0)
            EXPECT(numio_sleep_ns(200000) == 0);
    }
    EXPECT(numio_writer_flush(&writer) == 0);
    return numio_shutdown(stream->fds[0], SHUT_WR);
}

/* Takes the next bytes in one of the reader's ways.  Returns how many, 0 at the end, or < 0. */
static int64_t take_some(struct numio_reader *reader, struct nio_rng *rng, unsigned char *to,
                         size_t left, size_t *done)
{
    const char *text;
    size_t len = 1 + nio_rng_below(rng, PIECE_MAX);
    int64_t n;
    if (*done > 0) /* an exact read was ended: it goes on */
        return numio_reader_exact(reader, to, *done > len ? *done : len, done);
    switch (nio_rng_below(rng, 4)) {
    case 0:
        return numio_reader_read(reader, to, len < left ? len : left);
    case 1:
        n = numio_reader_until(reader, (char)nio_rng_below(rng, 256), &text);
        if (n == -EMSGSIZE) /* the buffer is full: take it otherwise */
            return numio_reader_read(reader, to, BUFFER_BYTES);
        if (n > 0)
            memcpy(to, text, (size_t)n);
        return n;
    case 2:
        n = numio_reader_peek(reader, 1 + nio_rng_below(rng, BUFFER_BYTES), &text);
        if (n > 0) {
            memcpy(to, text, (size_t)n);
            return (int64_t)numio_reader_skip(reader, (size_t)n);
        }
        return n;
    default:
        return numio_reader_exact(reader, to, len < left ? len : left, done);
    }
}

static int64_t receive_stream(void *arg)
{
    struct stream *stream = arg;
    struct numio_reader reader;
    struct numio_deadline deadline;
    struct nio_rng rng;
    char buf[BUFFER_BYTES];
    size_t at = 0, done = 0;
    uint64_t seed = stream->seed + 1;
    nio_rng_init(&rng, &seed);
    numio_reader_init(&reader, stream->fds[1], -1, buf, sizeof buf);
    for (;;) { /* until the end of the stream */
        uint64_t limit_ns = nio_rng_below(&rng, 4)   ? 10000000000
                            : nio_rng_below(&rng, 2) ? nio_rng_below(&rng, 50000)
                                                     : 0;
        EXPECT(numio_deadline_push(&deadline, limit_ns) == 0);
        int64_t n = take_some(&reader, &rng, stream->got + at, STREAM_BYTES - at, &done);
        (void)numio_deadline_pop(&deadline);
        if (n == -ETIMEDOUT) {
            stream->late++;
            continue;
        }
        if (n < 0 && n != -ENODATA)
            return n;
        at += n > 0 ? (size_t)n : done;
        bool is_end = n == -ENODATA || (n == 0 && done == 0);
        done = 0;
        if (is_end)
            break;
    }
    EXPECT(at == STREAM_BYTES);
    EXPECT(memcmp(stream->got, stream->sent, STREAM_BYTES) == 0);
    return 0;
}

FIXTURE_EACH(bufio, no_byte_of_a_stream_is_lost_or_doubled_in_random_pieces, .timeout = 60)
{
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct stream stream = { .seed = seeded_seed(nio_now_ns()) };
    struct numio_join *sender;
    stream.sent = malloc(STREAM_BYTES);
    stream.got = malloc(STREAM_BYTES + PIECE_MAX);
    cr_assert(stream.sent && stream.got);
    for (size_t i = 0; i < STREAM_BYTES; i++)
        stream.sent[i] = (unsigned char)(i * 7 + (i >> 8) * 13);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream.fds), 0);
    cr_assert_eq(numio_spawn_co(handle, send_stream, &stream, NULL, &sender), 0);
    run(runtime, receive_stream, &stream);
    int64_t line = numio_join_wait(&sender, -1);
    cr_assert_eq(line, 0, "line %ld", (long)line);
    cr_assert_gt(stream.late, 0, "no call was ended early: this test has seen too little");
    (void)close(stream.fds[0]);
    (void)close(stream.fds[1]);
    free(stream.sent);
    free(stream.got);
}
