/* SPDX-License-Identifier: MIT */
/* Batches: operations side by side, chains, limits of time, drains, and zero-copy sends; the same
 * on a ring and without one. */
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { PARTS = 8, MANY = 3000, CHAIN = 24, WRITERS = 24, ROUNDS = 20, ZC_BYTES = 200000 };
static const uint64_t ms = 1000000;
static const uint64_t never_ns = 3600000000000ull;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static void expect_all(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    int64_t line = run(runtime, fn, arg);
    cr_assert_eq(line, 0, "line %ld", (long)line);
}

static int open_scratch(void)
{
    char path[] = "/tmp/numio-batch-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(unlink(path), 0);
    return fd;
}

static void open_pair(int ends[2])
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
}

static void close_pair(const int ends[2])
{
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* ---- side by side ------------------------------------------------------------------------- */

static int64_t side_by_side(void *arg)
{
    const int *ends = arg;
    struct numio_op ops[PARTS];
    char in = 0;
    numio_op_recv(&ops[0], ends[0], &in, 1, 0); /* ends only if the send beside it begins */
    numio_op_timeout(&ops[1], ms);
    numio_op_send(&ops[2], ends[1], "x", 1, MSG_NOSIGNAL);
    numio_op_close(&ops[3], -7);
    for (int i = 4; i < PARTS; i++)
        numio_op_nop(&ops[i]);
    EXPECT(numio_batch_await(ops, PARTS) == -EBADF);
    EXPECT(numio_op_result(&ops[0]) == 1 && in == 'x');
    EXPECT(numio_op_result(&ops[1]) == -ETIME);
    EXPECT(numio_op_result(&ops[2]) == 1 && numio_op_result(&ops[3]) == -EBADF);
    EXPECT(numio_op_result(&ops[PARTS - 1]) == 0);
    numio_op_timeout(&ops[0], ms);
    EXPECT(numio_batch_await(ops, 1) == 0); /* a time that has passed is no failure */
    EXPECT(numio_batch_await(ops, 0) == 0);
    return 0;
}

FIXTURE_EACH(batch, its_operations_run_side_by_side, .timeout = 30)
{
    int ends[2];
    open_pair(ends);
    expect_all(runtime, side_by_side, ends);
    close_pair(ends);
}

static int64_t more_than_the_ring(void *arg)
{
    static struct numio_op ops[MANY];
    static char bytes[MANY];
    int fd = *(const int *)arg;
    for (int i = 0; i < MANY; i++)
        numio_op_write(&ops[i], fd, &"0123456789"[i % 10], 1, i);
    EXPECT(numio_batch_await(ops, MANY) == 0);
    EXPECT(pread(fd, bytes, MANY, 0) == MANY);
    for (int i = 0; i < MANY; i++)
        EXPECT(bytes[i] == '0' + i % 10 && numio_op_result(&ops[i]) == 1);
    return 0;
}

FIXTURE_EACH(batch, may_be_larger_than_the_ring, .timeout = 60)
{
    int fd = open_scratch();
    expect_all(runtime, more_than_the_ring, &fd);
    (void)close(fd);
}

/* ---- chains ------------------------------------------------------------------------------- */

static int64_t in_order(void *arg)
{
    int fd = *(const int *)arg;
    struct numio_op ops[4];
    char back[4] = "";
    numio_op_write(&ops[0], fd, "ab", 2, 0);
    numio_op_write(&ops[1], fd, "c", 1, 1);
    numio_op_fdatasync(&ops[2], fd);
    numio_op_read(&ops[3], fd, back, 2, 0);
    for (int i = 0; i < 3; i++)
        numio_op_link(&ops[i]);
    EXPECT(numio_batch_await(ops, 4) == 0);
    EXPECT(memcmp(back, "ac", 2) == 0 && numio_op_result(&ops[3]) == 2);
    return 0;
}

static int64_t broken(void *arg)
{
    int fd = *(const int *)arg;
    struct numio_op ops[4];
    char back[8];
    for (int hard = 0; hard < 2; hard++) { /* a failure, and fewer bytes than wanted */
        numio_op_write(&ops[0], -7, "ab", 2, 0);
        numio_op_nop(&ops[1]);
        (hard ? numio_op_hardlink : numio_op_link)(&ops[0]);
        EXPECT(numio_batch_await(ops, 2) == -EBADF);
        EXPECT(numio_op_result(&ops[1]) == (hard ? 0 : -ECANCELED));
        EXPECT(ftruncate(fd, 3) == 0);
        numio_op_read(&ops[0], fd, back, sizeof back, 0);
        numio_op_nop(&ops[1]);
        (hard ? numio_op_hardlink : numio_op_link)(&ops[0]);
        EXPECT(numio_batch_await(ops, 2) == (hard ? 0 : -ECANCELED));
        EXPECT(numio_op_result(&ops[0]) == 3);
        EXPECT(numio_op_result(&ops[1]) == (hard ? 0 : -ECANCELED));
    }
    numio_op_write(&ops[0], -7, "ab", 2, 0); /* what is broken stays so behind a hard link */
    numio_op_nop(&ops[1]);
    numio_op_nop(&ops[2]);
    numio_op_nop(&ops[3]); /* of another chain */
    numio_op_link(&ops[0]);
    numio_op_hardlink(&ops[1]);
    EXPECT(numio_batch_await(ops, 4) == -EBADF);
    EXPECT(numio_op_result(&ops[1]) == -ECANCELED && numio_op_result(&ops[2]) == -ECANCELED);
    EXPECT(numio_op_result(&ops[3]) == 0);
    return 0;
}

FIXTURE_EACH(batch, a_chain_goes_in_order_and_ends_where_it_breaks, .timeout = 30)
{
    int fd = open_scratch();
    expect_all(runtime, in_order, &fd);
    expect_all(runtime, broken, &fd);
    (void)close(fd);
}

/* Each chain fails in its middle; were it cut in pieces, what stands behind would run. */
static int64_t write_chains(void *arg)
{
    int fd = *(const int *)arg;
    for (int round = 0; round < ROUNDS; round++) {
        struct numio_op ops[CHAIN];
        for (int i = 0; i < CHAIN; i++) {
            numio_op_nop(&ops[i]);
            if (i == CHAIN / 2)
                numio_op_write(&ops[i], -7, "x", 1, 0);
            else if (i == CHAIN / 2 + 1)
                numio_op_write(&ops[i], fd, "x", 1, 0); /* must never happen */
            if (i < CHAIN - 1)
                numio_op_link(&ops[i]);
        }
        EXPECT(numio_batch_await(ops, CHAIN) == -EBADF);
        for (int i = 0; i < CHAIN; i++) {
            int wanted = i < CHAIN / 2 ? 0 : i == CHAIN / 2 ? -EBADF : -ECANCELED;
            EXPECT(numio_op_result(&ops[i]) == wanted);
        }
    }
    return 0;
}

static int64_t many_writers(void *arg)
{
    struct numio_join *joins[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        EXPECT(numio_spawn_co(NULL, write_chains, arg, NULL, &joins[i]) == 0);
    for (int i = 0; i < WRITERS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

static void chains_in_a_small_ring(enum numio_driver driver)
{
    if (driver != NUMIO_DRIVER_EPOLL && !fixture_has_uring())
        cr_skip_test("no io_uring here");
    struct numio_config config = fixture_config(driver, 2);
    config.ring_entries = 64;
    struct numio_runtime *runtime = fixture_create(&config);
    int fd = open_scratch();
    expect_all(runtime, many_writers, &fd);
    cr_assert_eq(lseek(fd, 0, SEEK_END), 0, "something was written behind a failure");
    (void)close(fd);
    numio_runtime_destroy(runtime);
}

Test(batch, chains_are_not_cut_where_the_ring_is_full_sqpoll, .timeout = 60)
{
    chains_in_a_small_ring(NUMIO_DRIVER_SQPOLL);
}

Test(batch, chains_are_not_cut_where_the_ring_is_full_defer, .timeout = 60)
{
    chains_in_a_small_ring(NUMIO_DRIVER_DEFER);
}

Test(batch, chains_are_not_cut_where_the_ring_is_full_epoll, .timeout = 60)
{
    chains_in_a_small_ring(NUMIO_DRIVER_EPOLL);
}

static int64_t limited(void *arg)
{
    const int *ends = arg;
    struct numio_op ops[4];
    char in[2];
    numio_op_recv(&ops[0], ends[0], in, 1, 0);
    numio_op_link_timeout(&ops[1], 2 * ms);
    numio_op_nop(&ops[2]);
    numio_op_link(&ops[0]);
    numio_op_link(&ops[1]);
    EXPECT(numio_batch_await(ops, 3) == -ECANCELED);
    EXPECT(numio_op_result(&ops[0]) == -ECANCELED && numio_op_result(&ops[1]) == -ETIME);
    EXPECT(numio_op_result(&ops[2]) == -ECANCELED);
    EXPECT(send(ends[1], "x", 1, MSG_NOSIGNAL) == 1); /* in time: the chain goes on */
    numio_op_recv(&ops[0], ends[0], in, 1, 0);
    numio_op_link_timeout(&ops[1], never_ns);
    numio_op_send(&ops[2], ends[0], "yz", 2, MSG_NOSIGNAL);
    numio_op_recv(&ops[3], ends[1], in, 2, MSG_WAITALL);
    for (int i = 0; i < 3; i++)
        numio_op_link(&ops[i]);
    EXPECT(numio_batch_await(ops, 4) == 0);
    EXPECT(numio_op_result(&ops[0]) == 1 && numio_op_result(&ops[1]) == -ECANCELED);
    EXPECT(numio_op_result(&ops[3]) == 2 && memcmp(in, "yz", 2) == 0);
    numio_op_write(&ops[0], -7, "x", 1, 0); /* fails at once: the limit goes with it */
    numio_op_link_timeout(&ops[1], never_ns);
    numio_op_link(&ops[0]);
    EXPECT(numio_batch_await(ops, 2) == -EBADF && numio_op_result(&ops[1]) == -ECANCELED);
    return 0;
}

FIXTURE_EACH(batch, a_link_timeout_limits_the_operation_before_it, .timeout = 30)
{
    int ends[2];
    open_pair(ends);
    expect_all(runtime, limited, ends);
    close_pair(ends);
}

/* ---- drains ------------------------------------------------------------------------------- */

static int64_t send_later(void *arg)
{
    const int *ends = arg;
    EXPECT(numio_sleep_ns(3 * ms) == 0);
    EXPECT(numio_send(ends[3], "b", 1, MSG_NOSIGNAL) == 1);
    EXPECT(numio_send(ends[1], "a", 1, MSG_NOSIGNAL) == 1);
    return 0;
}

static int64_t drained(void *arg)
{
    const int *ends = arg;
    struct numio_op ops[3];
    struct numio_join *join;
    char in[3] = "";
    EXPECT(numio_spawn_co(NULL, send_later, arg, NULL, &join) == 0);
    numio_op_recv(&ops[0], ends[0], &in[0], 1, 0);
    numio_op_close(&ops[1], -7); /* a failure holds nothing up */
    numio_op_recv(&ops[2], ends[2], &in[2], 1,
                  MSG_DONTWAIT); /* there only after ops[0] has ended */
    numio_op_drain(&ops[2]);
    EXPECT(numio_batch_await(ops, 3) == -EBADF);
    EXPECT(numio_op_result(&ops[0]) == 1 && numio_op_result(&ops[2]) == 1);
    EXPECT(in[0] == 'a' && in[2] == 'b');
    return numio_join_await(&join);
}

FIXTURE_EACH(batch, a_drain_begins_when_all_before_it_have_ended, .timeout = 30)
{
    int ends[4];
    open_pair(ends);
    open_pair(ends + 2);
    expect_all(runtime, drained, ends);
    close_pair(ends);
    close_pair(ends + 2);
}

/* ---- ends before its time ----------------------------------------------------------------- */

struct wait {
    int ends[2], listener;
    int64_t result, results[5];
    uint64_t limit_ns;
};

static int64_t wait_for_all(void *arg)
{
    struct wait *wait = arg;
    struct numio_op ops[5];
    struct numio_deadline deadline;
    char in[2];
    numio_op_recv(&ops[0], wait->ends[0], &in[0], 1, 0);
    numio_op_hardlink(&ops[0]); /* a cancel begins the next, which must end as well */
    numio_op_recv(&ops[1], wait->ends[0], &in[1], 1, 0);
    numio_op_accept(&ops[2], wait->listener, NULL, NULL, SOCK_CLOEXEC);
    numio_op_timeout(&ops[3], never_ns);
    numio_op_nop(&ops[4]);
    numio_op_drain(&ops[4]);
    if (wait->limit_ns)
        EXPECT(numio_deadline_push(&deadline, wait->limit_ns) == 0);
    wait->result = numio_batch_await(ops, 5);
    if (wait->limit_ns)
        (void)numio_deadline_pop(&deadline); /* the result tells */
    for (int i = 0; i < 5; i++)
        wait->results[i] = numio_op_result(&ops[i]);
    return 0;
}

static int64_t end_a_wait(void *arg)
{
    struct wait *wait = arg;
    struct numio_join *join;
    int wanted = wait->limit_ns ? -ETIMEDOUT : -ECANCELED;
    EXPECT(numio_spawn_co(NULL, wait_for_all, wait, NULL, &join) == 0);
    if (!wait->limit_ns) {
        EXPECT(numio_sleep_ns(3 * ms) == 0);
        numio_join_abort(join);
    }
    int64_t result = numio_join_await(&join);
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(wait->result == wanted);
    for (int i = 0; i < 5; i++)
        EXPECT(wait->results[i] == wanted);
    return 0;
}

FIXTURE_EACH(batch, abort_and_deadline_end_all_of_it, .timeout = 60)
{
    struct wait wait = { .listener = numio_tcp_listen("127.0.0.1:0", 4) };
    cr_assert_geq(wait.listener, 0);
    open_pair(wait.ends);
    for (int round = 0; round < ROUNDS; round++) {
        wait.limit_ns = round % 2 ? 2 * ms : 0;
        expect_all(runtime, end_a_wait, &wait);
    }
    cr_assert_eq(send(wait.ends[1], "x", 1, MSG_NOSIGNAL), 1);
    char byte = 0;
    cr_assert_eq(recv(wait.ends[0], &byte, 1, MSG_DONTWAIT), 1, "an ended wait took a byte");
    close_pair(wait.ends);
    (void)close(wait.listener);
}

/* ---- misuse ------------------------------------------------------------------------------- */

static int64_t misuse(void *unused)
{
    struct numio_op ops[3];
    (void)unused;
#define PREPARE()                                                                                  \
    for (int i = 0; i < 3; i++)                                                                    \
    numio_op_nop(&ops[i])
#define REFUSED(word)                                                                              \
    (numio_batch_await(ops, 3) == -EINVAL && strstr(numio_strerror_detail(), word))
    PREPARE();
    numio_op_link(&ops[2]);
    EXPECT(REFUSED("nowhere"));
    PREPARE();
    numio_op_link_timeout(&ops[1], 1);
    EXPECT(REFUSED("operation 1 is a link timeout"));
    PREPARE();
    numio_op_link(&ops[0]);
    numio_op_drain(&ops[1]);
    EXPECT(REFUSED("drains in the middle"));
    PREPARE();
    numio_op_timeout(&ops[0], 1);
    numio_op_link(&ops[0]);
    EXPECT(REFUSED("plain timeout"));
    PREPARE();
    numio_op_link(&ops[0]);
    EXPECT(numio_op_await(&ops[0]) == -EINVAL &&
           strstr(numio_strerror_detail(), "numio_batch_await"));
    return 0;
}

static int64_t too_long(void *unused)
{
    static struct numio_op ops[65];
    (void)unused;
    for (int i = 0; i < 65; i++) {
        numio_op_nop(&ops[i]);
        if (i < 64)
            numio_op_link(&ops[i]);
    }
    EXPECT(numio_batch_await(ops + 1, 64) == 0);
    for (int i = 0; i < 65; i++) {
        numio_op_nop(&ops[i]);
        if (i < 64)
            numio_op_link(&ops[i]);
    }
    EXPECT(numio_batch_await(ops, 65) == -EINVAL); /* one worker: the kernel keeps the chain */
    EXPECT(strstr(numio_strerror_detail(), "more than 64"));
    return 0;
}

FIXTURE_EACH(batch, misuse_is_refused_with_the_reason, .timeout = 30)
{
    struct numio_op op;
    expect_all(runtime, misuse, NULL);
    numio_op_nop(&op);
    cr_assert_eq(numio_batch_await(&op, 1), -EINVAL);
    cr_assert_not_null(strstr(numio_strerror_detail(), "coroutine"));
}

Test(batch, a_chain_longer_than_the_ring_is_refused, .timeout = 30)
{
    if (!fixture_has_uring())
        cr_skip_test("no io_uring here");
    struct numio_config config = fixture_config(NUMIO_DRIVER_DEFER, 1);
    config.ring_entries = 64;
    struct numio_runtime *runtime = fixture_create(&config);
    expect_all(runtime, too_long, NULL);
    numio_runtime_destroy(runtime);
}

/* ---- zero copy ---------------------------------------------------------------------------- */

static int64_t read_all(void *arg)
{
    static char in[ZC_BYTES];
    int fd = *(const int *)arg;
    for (int round = 0; round < 4; round++) {
        EXPECT(numio_recv_all(fd, in, ZC_BYTES, 0) == ZC_BYTES);
        for (int i = 0; i < ZC_BYTES; i++)
            EXPECT(in[i] == (char)(round + i % 251));
    }
    return 0;
}

/* The buffer is written anew as soon as a send has returned. */
static int64_t send_zc(void *arg)
{
    static char out[ZC_BYTES];
    const int *ends = arg;
    struct numio_join *join;
    int64_t n = 0;
    EXPECT(numio_spawn_co(NULL, read_all, (void *)(uintptr_t)&ends[1], NULL, &join) == 0);
    for (int round = 0; round < 4 && n >= 0; round++) {
        for (int i = 0; i < ZC_BYTES; i++)
            out[i] = (char)(round + i % 251);
        for (int64_t done = 0; done < ZC_BYTES && n >= 0; done += n)
            n = numio_send_zc(ends[0], out + done, (size_t)(ZC_BYTES - done), MSG_NOSIGNAL);
    }
    int64_t line = numio_join_await(&join);
    return n < 0 ? n : line;
}

static int64_t make_connection(void *arg)
{
    int *ends = arg;
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    char text[32];
    int listener = numio_tcp_listen("127.0.0.1:0", 4);
    EXPECT(listener >= 0 && getsockname(listener, (struct sockaddr *)&address, &bytes) == 0);
    (void)snprintf(text, sizeof text, "127.0.0.1:%d", ntohs(address.sin_port)); /* fits */
    EXPECT((ends[0] = (int)numio_tcp_connect(text)) >= 0);
    EXPECT((ends[1] = (int)numio_accept(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0);
    return numio_close(listener);
}

FIXTURE_EACH(batch, a_zero_copy_send_returns_when_the_buffer_is_free, .timeout = 60)
{
    int ends[2];
    expect_all(runtime, make_connection, ends);
    expect_all(runtime, send_zc, ends);
    (void)shutdown(ends[0], SHUT_RDWR); /* the next line fails if it does not work */
    cr_assert_eq(run(runtime, send_zc, ends), -EPIPE, "a send after the end of the connection");
    close_pair(ends);
    open_pair(ends); /* Unix sockets have no zero copy */
    expect_all(runtime, send_zc, ends);
    close_pair(ends);
}
