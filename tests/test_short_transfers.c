/* SPDX-License-Identifier: MIT */
/* Coroutines on the whole runtime, whose rings are the shim's: each transfer moves a few bytes
 * only, and ends late and in any order; the calls that move all, and bufio, lose and double no
 * byte. */
#include "tests/runtime_fixture.h"
#include "tests/shim/shim.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/driver/uring.h"
#include "tests/seeded.h"
#include "tests/steps.h"

enum { BYTES = 6000, PAIRS = 4, LINES = 200, LATE_NS = 60000 };

/* Several threads draw from it. */
static struct {
    pthread_mutex_t mutex;
    struct nio_rng rng;
    unsigned shortened;
    int failing_fd, error; /* what this descriptor's sends and writes end with, after a few */
    unsigned left;
} chance = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static void decide(void *arg, const struct io_uring_sqe *sqe, struct shim_plan *plan)
{
    (void)arg;
    if ((sqe->user_data & NIO_TAG_MASK) != NIO_TAG_OP)
        return;
    (void)pthread_mutex_lock(&chance.mutex);
    plan->bytes_max = 1 + nio_rng_below(&chance.rng, 64);
    chance.shortened += plan->bytes_max < sqe->len;
    if (nio_rng_below(&chance.rng, 4) == 0)
        plan->delay_ns = nio_rng_below(&chance.rng, LATE_NS);
    if (chance.error && sqe->fd == chance.failing_fd && sqe->opcode != IORING_OP_CLOSE &&
        chance.left-- == 0) {
        plan->is_given = true;
        plan->result = chance.error;
        chance.left = 0;
    }
    (void)pthread_mutex_unlock(&chance.mutex);
}

static struct numio_runtime *begin(enum numio_driver profile)
{
    struct shim_config config = { .has_thread = true, .has_message = true, .decide = decide };
    struct numio_status status;
    chance.rng = seeded_rng(1);
    shim_begin(&config);
    struct numio_config runtime_config = fixture_config(profile, 2);
    struct numio_runtime *runtime = fixture_create(&runtime_config);
    cr_assert_eq(numio_status(numio_runtime_handle(runtime), &status), 0);
    cr_assert_str_eq(status.driver, profile == NUMIO_DRIVER_DEFER ? "defer" : "sqpoll");
    return runtime;
}

static void run(enum numio_driver profile, int64_t (*body)(void *arg), void *arg)
{
    struct numio_runtime *runtime = begin(profile);
    int64_t line = numio_block_on(numio_runtime_handle(runtime), body, arg);
    numio_runtime_destroy(runtime);
    shim_end();
    cr_assert_eq(line, 0, "line %ld", (long)line);
}

#define EACH_RING(suite, name)                                                                     \
    static int64_t name(void *arg);                                                                \
    Test(suite, name##_sqpoll, .timeout = 60)                                                      \
    {                                                                                              \
        run(NUMIO_DRIVER_SQPOLL, name, NULL);                                                      \
    }                                                                                              \
    Test(suite, name##_defer, .timeout = 60)                                                       \
    {                                                                                              \
        run(NUMIO_DRIVER_DEFER, name, NULL);                                                       \
    }                                                                                              \
    static int64_t name(void *arg)

static void fill(char *bytes, size_t count, unsigned seed)
{
    for (size_t i = 0; i < count; i++)
        bytes[i] = (char)((i * 2654435761u + seed) >> 7);
}

/* ---- sockets ------------------------------------------------------------------------------ */

struct pair {
    int fds[2];
    unsigned seed;
    char sent[BYTES], received[BYTES];
};
static struct pair pairs[PAIRS];

static int64_t send_everything(void *arg)
{
    struct pair *pair = arg;
    fill(pair->sent, BYTES, pair->seed);
    EXPECT(numio_send_all(pair->fds[0], pair->sent, BYTES, 0) == BYTES);
    EXPECT(numio_shutdown(pair->fds[0], SHUT_WR) == 0);
    return 0;
}

static int64_t receive_everything(void *arg)
{
    struct pair *pair = arg;
    char more;
    EXPECT(numio_recv_all(pair->fds[1], pair->received, BYTES, 0) == BYTES);
    EXPECT(numio_recv(pair->fds[1], &more, 1, 0) == 0);
    EXPECT(memcmp(pair->sent, pair->received, BYTES) == 0);
    return 0;
}

EACH_RING(short_transfers, what_is_sent_in_pieces_arrives_whole)
{
    struct numio_join *joins[2 * PAIRS];
    (void)arg;
    for (unsigned i = 0; i < PAIRS; i++) {
        pairs[i].seed = i;
        EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i].fds) == 0);
        EXPECT(numio_spawn_co(NULL, send_everything, &pairs[i], NULL, &joins[2 * i]) == 0);
        EXPECT(numio_spawn_co(NULL, receive_everything, &pairs[i], NULL, &joins[2 * i + 1]) == 0);
    }
    for (unsigned i = 0; i < 2 * PAIRS; i++) {
        int64_t line = numio_join_await(&joins[i]);
        if (line)
            return line;
    }
    for (unsigned i = 0; i < PAIRS; i++)
        EXPECT(numio_close(pairs[i].fds[0]) == 0 && numio_close(pairs[i].fds[1]) == 0);
    EXPECT(chance.shortened > PAIRS * BYTES / 64);
    return 0;
}

/* ---- files -------------------------------------------------------------------------------- */

static int make_file(void)
{
    char path[] = "/tmp/numio-short-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        (void)unlink(path);
    return fd;
}

EACH_RING(short_transfers, a_file_written_in_pieces_is_whole)
{
    static char written[BYTES], got[BYTES];
    int fd = make_file();
    (void)arg;
    EXPECT(fd >= 0);
    fill(written, BYTES, 3);
    EXPECT(numio_write_all(fd, written, BYTES) == BYTES);
    EXPECT(numio_pread_all(fd, got, BYTES, 0) == BYTES);
    EXPECT(memcmp(written, got, BYTES) == 0);
    EXPECT(numio_pread_all(fd, got, BYTES, BYTES - 100) == 100); /* to its end */
    EXPECT(memcmp(written + BYTES - 100, got, 100) == 0);
    EXPECT(pread(fd, got, BYTES, 0) == BYTES && memcmp(written, got, BYTES) == 0);
    return numio_close(fd);
}

EACH_RING(short_transfers, buffered_lines_lose_no_byte)
{
    char out[100], in[100], expected[64];
    const char *got;
    int fd = make_file();
    struct numio_writer writer;
    struct numio_reader reader;
    (void)arg;
    EXPECT(fd >= 0);
    numio_writer_init(&writer, fd, 0, out, sizeof out);
    for (unsigned i = 0; i < LINES; i++)
        EXPECT(numio_writer_printf(&writer, "%u: %.*s\n", i, (int)(i % 40),
                                   "0123456789012345678901234567890123456789") >= 0);
    EXPECT(numio_writer_flush(&writer) >= 0);
    EXPECT(numio_writer_pending(&writer) == 0);
    numio_reader_init(&reader, fd, 0, in, sizeof in);
    for (unsigned i = 0; i < LINES; i++) {
        int length = snprintf(expected, sizeof expected, "%u: %.*s", i, (int)(i % 40),
                              "0123456789012345678901234567890123456789");
        EXPECT(numio_reader_line(&reader, &got) == length);
        EXPECT(memcmp(got, expected, (size_t)length) == 0);
    }
    EXPECT(numio_reader_line(&reader, &got) == -ENODATA);
    return numio_close(fd);
}

EACH_RING(short_transfers, a_disk_that_is_full_half_way_is_told)
{
    static char written[BYTES];
    int fd = make_file();
    (void)arg;
    EXPECT(fd >= 0);
    (void)pthread_mutex_lock(&chance.mutex);
    chance.failing_fd = fd;
    chance.error = -ENOSPC;
    chance.left = 5;
    (void)pthread_mutex_unlock(&chance.mutex);
    int64_t result = numio_write_all(fd, written, BYTES);
    EXPECT(result == -ENOSPC || (result > 0 && result < BYTES));
    off_t end = lseek(fd, 0, SEEK_CUR);
    EXPECT(end > 0 && end < BYTES); /* what came before it is there */
    return numio_close(fd);
}

EACH_RING(short_transfers, a_peer_that_resets_half_way_is_told_and_nobody_else_is)
{
    struct numio_join *sender, *receiver, *other[2];
    (void)arg;
    for (unsigned i = 0; i < 2; i++) {
        EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i].fds) == 0);
        pairs[i].seed = i;
    }
    (void)pthread_mutex_lock(&chance.mutex);
    chance.failing_fd = pairs[0].fds[0];
    chance.error = -ECONNRESET;
    chance.left = 20;
    (void)pthread_mutex_unlock(&chance.mutex);
    EXPECT(numio_spawn_co(NULL, send_everything, &pairs[0], NULL, &sender) == 0);
    EXPECT(numio_spawn_co(NULL, receive_everything, &pairs[0], NULL, &receiver) == 0);
    EXPECT(numio_spawn_co(NULL, send_everything, &pairs[1], NULL, &other[0]) == 0);
    EXPECT(numio_spawn_co(NULL, receive_everything, &pairs[1], NULL, &other[1]) == 0);
    EXPECT(numio_join_await(&sender) > 0); /* the line of the send_all */
    EXPECT(close(pairs[0].fds[0]) == 0);
    EXPECT(numio_join_await(&receiver) > 0);
    EXPECT(numio_join_await(&other[0]) == 0 && numio_join_await(&other[1]) == 0);
    EXPECT(close(pairs[0].fds[1]) == 0 && close(pairs[1].fds[0]) == 0);
    return close(pairs[1].fds[1]);
}

/* ---- the end of the SQ thread --------------------------------------------------------------- */

static _Atomic uint32_t all_are_killed;

static int64_t receive_until_told(void *arg)
{
    char byte;
    int64_t result;
    uint32_t is_last;
    /* Cancelled by the kernel, or refused by numio afterwards. */
    while ((result = numio_recv(*(int *)arg, &byte, 1, 0)) == 1) {
    }
    EXPECT(result == -ECANCELED || result == -EOWNERDEAD);
    do { /* a sibling may have taken the task to a ring that is killed only now */
        is_last = fixture_get(&all_are_killed);
        result = numio_recv(*(int *)arg, &byte, 1, 0);
    } while (result == -ECANCELED && !is_last);
    EXPECT(result == -EOWNERDEAD);
    EXPECT(numio_sleep_ns(2000000) == 0); /* the runtime goes on */
    return 0;
}

static void kill_all_rings(void)
{
    for (int fd = 3; fd < 256; fd++)
        if (shim_is_ring(fd))
            shim_kill(fd);
}

Test(short_transfers, tasks_whose_sq_thread_has_ended_are_told_and_the_runtime_goes_on,
     .timeout = 60)
{
    struct numio_runtime *runtime = begin(NUMIO_DRIVER_SQPOLL);
    struct numio_join *joins[8];
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    for (unsigned i = 0; i < NIO_ARRAY_LEN(joins); i++)
        cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), receive_until_told, &pair[0],
                                    NULL, &joins[i]),
                     0);
    /* Most of them wait by then, which is not needed. */
    (void)nio_futex_wait(&all_are_killed, 0, 20000000);
    kill_all_rings();
    fixture_set(&all_are_killed, 1);
    for (unsigned i = 0; i < NIO_ARRAY_LEN(joins); i++) {
        int64_t line = numio_join_wait(&joins[i], 10000000000);
        cr_assert_eq(line, 0, "task %u: line %ld", i, (long)line);
    }
    numio_runtime_destroy(runtime);
    shim_end();
    (void)close(pair[0]);
    (void)close(pair[1]);
}
