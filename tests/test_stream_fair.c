/* SPDX-License-Identifier: MIT */
/* Many connections that are always busy are served in turns, with buffers for all of them and with
 * few: nobody is overtaken again and again.  Counted in answers, so that it does not matter how
 * fast the machine is. */
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    CONNECTIONS = 500,
    ROUNDS = 100,
    ANSWERS = CONNECTIONS * ROUNDS,
    FEWEST = ROUNDS * 3 / 5, /* in turns everybody has about ROUNDS */
    EVENTS = 64
};

struct busy {
    int server[CONNECTIONS], client[CONNECTIONS];
    unsigned answers[CONNECTIONS];
    struct numio_handle *handle;
    uint64_t overflowed; /* by tasks that were woken, not by those that were new */
};

static uint64_t overflowed(const struct busy *busy)
{
    struct numio_worker_metrics metrics;
    return numio_worker_metrics(busy->handle, 0, &metrics) ? UINT64_MAX : metrics.overflowed;
}

static int64_t echo(void *arg)
{
    int fd = *(const int *)arg;
    struct numio_stream *stream;
    struct numio_chunk chunk;
    int64_t n;
    EXPECT(numio_recv_stream(fd, 0, &stream) == 0);
    while ((n = numio_stream_recv(stream, &chunk)) > 0) {
        EXPECT(numio_send_all(fd, chunk.data, chunk.len, MSG_NOSIGNAL) == n);
        numio_chunk_release(&chunk);
    }
    EXPECT(n == 0);
    return numio_stream_close(&stream);
}

/* One byte in each connection, at any time.  The busiest count as they come. */
static int64_t ask_all(void *arg)
{
    struct busy *busy = arg;
    struct epoll_event events[EVENTS];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    EXPECT(epoll >= 0);
    for (int i = 0; i < CONNECTIONS; i++) {
        struct epoll_event event = { .events = EPOLLIN, .data.u32 = (uint32_t)i };
        EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, busy->client[i], &event) == 0);
        EXPECT(send(busy->client[i], "x", 1, 0) == 1);
    }
    uint64_t before = overflowed(busy);
    for (int answers = 0; answers < ANSWERS;) {
        int count = epoll_wait(epoll, events, EVENTS, FIXTURE_PATIENCE_MS);
        EXPECT(count > 0);
        for (int i = 0; i < count; i++) {
            uint32_t which = events[i].data.u32;
            char byte;
            EXPECT(recv(busy->client[which], &byte, 1, 0) == 1 && byte == 'x');
            EXPECT(send(busy->client[which], "x", 1, 0) == 1);
            busy->answers[which]++;
            answers++;
        }
    }
    busy->overflowed = overflowed(busy) - before;
    for (int i = 0; i < CONNECTIONS; i++)
        EXPECT(shutdown(busy->client[i], SHUT_WR) == 0);
    return close(epoll);
}

static int64_t serve(void *arg)
{
    struct busy *busy = arg;
    struct numio_join *joins[CONNECTIONS], *asking;
    for (int i = 0; i < CONNECTIONS; i++)
        EXPECT(numio_spawn_co(NULL, echo, &busy->server[i], NULL, &joins[i]) == 0);
    EXPECT(numio_spawn_blocking(NULL, ask_all, busy, NULL, &asking) == 0);
    int64_t line = numio_join_await(&asking);
    for (int i = 0; i < CONNECTIONS; i++) {
        if (line)
            numio_join_abort(joins[i]);
        int64_t rc = numio_join_await(&joins[i]);
        line = line ? line : rc;
    }
    return line;
}

static void serve_busy(enum numio_driver driver, unsigned buffers)
{
    if (driver != NUMIO_DRIVER_EPOLL && !fixture_has_uring())
        cr_skip_test("no io_uring here");
    static struct busy busy;
    struct numio_config config = fixture_config(driver, 1);
    config.recv_buffers = buffers;
    config.recv_buffer_bytes = 128;
    struct numio_runtime *runtime = fixture_create(&config);
    busy.handle = numio_runtime_handle(runtime);
    for (int i = 0; i < CONNECTIONS; i++) {
        int ends[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        busy.server[i] = ends[0];
        busy.client[i] = ends[1];
    }
    int64_t line = numio_block_on(busy.handle, serve, &busy);
    cr_assert_eq(line, 0, "line %ld (%s)", (long)line, numio_strerror_detail());
    cr_expect_eq(busy.overflowed, 0, "%lu woken tasks found the queue full",
                 (unsigned long)busy.overflowed);
    for (int i = 0; i < CONNECTIONS; i++) {
        cr_expect_geq(busy.answers[i], FEWEST, "connection %d has had %u answers of %d", i,
                      busy.answers[i], ANSWERS);
        (void)close(busy.server[i]);
        (void)close(busy.client[i]);
    }
    numio_runtime_destroy(runtime);
}

/* A test with each profile. */
#define BUSY_EACH(suite, name, buffers)                                                            \
    Test(suite, name##_sqpoll, .timeout = 60)                                                      \
    {                                                                                              \
        serve_busy(NUMIO_DRIVER_SQPOLL, buffers);                                                  \
    }                                                                                              \
    Test(suite, name##_defer, .timeout = 60)                                                       \
    {                                                                                              \
        serve_busy(NUMIO_DRIVER_DEFER, buffers);                                                   \
    }                                                                                              \
    Test(suite, name##_epoll, .timeout = 60)                                                       \
    {                                                                                              \
        serve_busy(NUMIO_DRIVER_EPOLL, buffers);                                                   \
    }

BUSY_EACH(stream_fair, all_have_buffers, 1024)
BUSY_EACH(stream_fair, half_have_buffers, 256)
BUSY_EACH(stream_fair, few_have_buffers, 16)
