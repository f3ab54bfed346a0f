/* SPDX-License-Identifier: MIT */
/* Streams: nothing is lost or doubled, whatever ends the request in between: the kernel, a lack of
 * buffers, a deadline, an abort, a stop; the same with and without requests that have many
 * results. */
#include "tests/listener.h"
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "runtime/driver/op_link.h"
#include "runtime/sched/worker.h"

enum {
    CONNECTIONS = 200,
    BYTES = 1 << 20,
    SMALL_BUFFERS = 16,
    SMALL_BYTES = 128,
    DATAGRAMS = 300,
    READERS = 40,
    READER_BYTES = 20000
};
static const uint64_t ms = 1000000;

static void expect_all(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    int64_t line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
    cr_assert_eq(line, 0, "line %ld", (long)line);
}

/* A body that runs with each profile, on workers with few and small buffers. */
#define SMALL_EACH(suite, name, workers)                                                           \
    static void name(struct numio_runtime *runtime);                                               \
    Test(suite, name##_sqpoll, .timeout = 60)                                                      \
    {                                                                                              \
        on_small(NUMIO_DRIVER_SQPOLL, workers, name);                                              \
    }                                                                                              \
    Test(suite, name##_defer, .timeout = 60)                                                       \
    {                                                                                              \
        on_small(NUMIO_DRIVER_DEFER, workers, name);                                               \
    }                                                                                              \
    Test(suite, name##_epoll, .timeout = 60)                                                       \
    {                                                                                              \
        on_small(NUMIO_DRIVER_EPOLL, workers, name);                                               \
    }                                                                                              \
    static void name(struct numio_runtime *runtime)

static void on_small(enum numio_driver driver, unsigned workers,
                     void (*body)(struct numio_runtime *runtime))
{
    if (driver != NUMIO_DRIVER_EPOLL && !fixture_has_uring())
        cr_skip_test("no io_uring here");
    struct numio_config config = fixture_config(driver, workers);
    config.recv_buffers = SMALL_BUFFERS;
    config.recv_buffer_bytes = SMALL_BYTES;
    struct numio_runtime *runtime = fixture_create(&config);
    body(runtime);
    numio_runtime_destroy(runtime);
}

static char byte_at(uint64_t place)
{
    return (char)(place * 2654435761u >> 13);
}

/* ---- accept ------------------------------------------------------------------------------- */

/* A connection that nobody has accepted, -1 if there is none. */
static int accept_rest(const struct listener *listener)
{
    struct pollfd set = { .fd = listener->fd, .events = POLLIN };
    return poll(&set, 1, 0) == 1 ? accept(listener->fd, NULL, NULL) : -1;
}

static int64_t connect_all(void *arg)
{
    static int fds[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) {
        EXPECT((fds[i] = connect_to(arg)) >= 0);
        EXPECT(send(fds[i], &i, sizeof i, MSG_NOSIGNAL) == sizeof i);
    }
    for (int i = 0; i < CONNECTIONS; i++)
        EXPECT(close(fds[i]) == 0);
    return 0;
}

static int64_t accept_all(void *arg)
{
    struct listener *listener = arg;
    struct numio_stream *stream;
    struct numio_deadline deadline;
    static bool has_come[CONNECTIONS];
    memset(has_come, 0, sizeof has_come);
    EXPECT(numio_accept_stream(listener->fd, SOCK_CLOEXEC, &stream) == 0);
    EXPECT(numio_deadline_push(&deadline, 2 * ms) == 0);
    EXPECT(numio_stream_next(stream) == -ETIMEDOUT); /* nothing is lost by it */
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    struct numio_join *join;
    EXPECT(numio_spawn_blocking(NULL, connect_all, listener, NULL, &join) == 0);
    for (int i = 0; i < CONNECTIONS; i++) {
        int64_t fd = numio_stream_next(stream);
        int number = -1;
        EXPECT(fd >= 0);
        EXPECT(numio_recv_all((int)fd, &number, sizeof number, 0) == sizeof number);
        EXPECT(number >= 0 && number < CONNECTIONS && !has_come[number]);
        has_come[number] = true;
        EXPECT(fcntl((int)fd, F_GETFD) == FD_CLOEXEC);
        EXPECT(numio_close((int)fd) == 0);
    }
    EXPECT(numio_join_await(&join) == 0);
    return numio_stream_close(&stream);
}

FIXTURE_EACH(stream, every_connection_comes_once, .timeout = 60)
{
    struct listener listener;
    open_listener(&listener);
    unsigned before = fixture_count_fds();
    expect_all(runtime, accept_all, &listener);
    cr_assert_eq(fixture_count_fds(), before);
    (void)close(listener.fd);
}

static int64_t leave_connections(void *arg)
{
    struct listener *listener = arg;
    struct numio_stream *stream;
    int fds[8];
    EXPECT(numio_accept_stream(listener->fd, SOCK_CLOEXEC, &stream) == 0);
    EXPECT((fds[0] = connect_to(listener)) >= 0);
    int64_t first = numio_stream_next(stream);
    EXPECT(first >= 0 && numio_close((int)first) == 0);
    for (int i = 1; i < 8; i++)
        EXPECT((fds[i] = connect_to(listener)) >= 0);
    EXPECT(numio_sleep_ns(3 * ms) == 0); /* they are accepted, as far as they are */
    EXPECT(numio_stream_close(&stream) == 0 && !stream);
    EXPECT(numio_stream_close(&stream) == 0);
    for (int i = 0; i < 8; i++)
        EXPECT(close(fds[i]) == 0);
    return 0;
}

static int64_t stop_and_take(void *arg)
{
    struct listener *listener = arg;
    struct numio_stream *stream;
    int64_t fd, count = 0;
    int fds[8];
    EXPECT(numio_accept_stream(listener->fd, 0, &stream) == 0);
    EXPECT((fds[0] = connect_to(listener)) >= 0);
    EXPECT((fd = numio_stream_next(stream)) >= 0 && numio_close((int)fd) == 0);
    for (int i = 1; i < 8; i++)
        EXPECT((fds[i] = connect_to(listener)) >= 0);
    EXPECT(numio_sleep_ns(3 * ms) == 0);
    EXPECT(numio_stream_stop(stream) == 0);
    for (; (fd = numio_stream_next(stream)) >= 0; count++) /* what had come is still there */
        EXPECT(numio_close((int)fd) == 0);
    EXPECT(fd == -ECANCELED && numio_stream_next(stream) == -ECANCELED);
    EXPECT(numio_stream_close(&stream) == 0);
    for (; count < 7; count++) { /* and the others are still in the listener */
        fd = accept_rest(listener);
        EXPECT(fd >= 0 && close((int)fd) == 0);
    }
    for (int i = 0; i < 8; i++)
        EXPECT(close(fds[i]) == 0);
    return 0;
}

FIXTURE_EACH(stream, a_close_leaks_no_connection_and_a_stop_loses_none, .timeout = 60)
{
    struct listener listener;
    open_listener(&listener);
    unsigned before = fixture_count_fds();
    for (int round = 0; round < 20; round++) {
        expect_all(runtime, leave_connections, &listener);
        int rest;
        while ((rest = accept_rest(&listener)) >= 0)
            (void)close(rest); /* of the round: not all were accepted by the stream */
        expect_all(runtime, stop_and_take, &listener);
    }
    cr_assert_eq(fixture_count_fds(), before);
    (void)close(listener.fd);
}

/* ---- recv --------------------------------------------------------------------------------- */

struct flow {
    int in, out;
    uint64_t bytes;
};

static int64_t send_flow(void *arg)
{
    const struct flow *flow = arg;
    char buffer[1500];
    for (uint64_t done = 0; done < flow->bytes;) {
        size_t len = 1 + done * 7919 % sizeof buffer;
        len = len < flow->bytes - done ? len : flow->bytes - done;
        for (size_t i = 0; i < len; i++)
            buffer[i] = byte_at(done + i);
        EXPECT(numio_send_all(flow->out, buffer, len, 0) == (int64_t)len);
        done += len;
    }
    EXPECT(numio_shutdown(flow->out, SHUT_WR) == 0);
    return 0;
}

/* Takes the whole flow by a stream, with deadlines that end at random; holds up to `held` chunks.
 */
static int64_t take_flow(const struct flow *flow, unsigned held, unsigned deadline_every)
{
    struct numio_chunk chunks[SMALL_BUFFERS];
    struct numio_stream *stream;
    uint64_t done = 0;
    unsigned count = 0;
    EXPECT(numio_recv_stream(flow->in, 0, &stream) == 0);
    for (unsigned turn = 0;; turn++) {
        struct numio_deadline deadline;
        struct numio_chunk *chunk = &chunks[count];
        bool is_limited = deadline_every && turn % deadline_every == 0;
        if (is_limited)
            EXPECT(numio_deadline_push(&deadline, turn % 3 ? 20000 : 0) == 0);
        int64_t n = numio_stream_recv(stream, chunk);
        if (is_limited)
            (void)numio_deadline_pop(&deadline); /* the result tells */
        if (n == -ETIMEDOUT)
            continue;
        if (n == 0)
            break;
        EXPECT(n > 0 && (size_t)n == chunk->len);
        for (int64_t i = 0; i < n; i++)
            EXPECT(((char *)chunk->data)[i] == byte_at(done + (uint64_t)i));
        done += (uint64_t)n;
        if (++count >= held)
            while (count > 0)
                numio_chunk_release(&chunks[--count]);
    }
    while (count > 0)
        numio_chunk_release(&chunks[--count]);
    EXPECT(done == flow->bytes);
    return numio_stream_close(&stream);
}

static int64_t run_flow(void *arg)
{
    struct flow *flow = arg;
    struct numio_join *join;
    EXPECT(numio_spawn_co(NULL, send_flow, flow, NULL, &join) == 0);
    int64_t line = take_flow(flow, SMALL_BUFFERS / 2, 5);
    return line ? line : numio_join_await(&join);
}

SMALL_EACH(stream, no_byte_is_lost_with_few_buffers_and_many_deadlines, 2)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    struct flow flow = { ends[0], ends[1], BYTES };
    expect_all(runtime, run_flow, &flow);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static int64_t take_one_flow(void *arg)
{
    return take_flow(arg, 1, 0);
}

static uint64_t requests_made(struct numio_runtime *runtime)
{
    struct numio_worker_metrics metrics;
    cr_assert_eq(numio_worker_metrics(numio_runtime_handle(runtime), 0, &metrics), 0);
    return metrics.sqes;
}

/* As if the kernel were of before 6.0, which has rings of buffers, but no receive with many
 * results. */
SMALL_EACH(stream, without_receives_of_many_each_is_asked_for, 1)
{
    struct numio_op send_zc;
    int ends[2];
    numio_op_send_zc(&send_zc, -1, NULL, 0, 0);
    numio_runtime_handle(runtime)->opcodes &= ~(UINT64_C(1) << nio_op_opcode(&send_zc));
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    struct flow flow = { ends[0], ends[1], BYTES / 8 };
    uint64_t before = requests_made(runtime);
    expect_all(runtime, run_flow, &flow);
    cr_assert_gt(requests_made(runtime) - before, flow.bytes / SMALL_BYTES,
                 "one for each chunk at least");
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static int64_t run_flows(void *arg)
{
    struct flow *flows = arg;
    struct numio_join *joins[2 * READERS];
    for (int i = 0; i < READERS; i++) {
        EXPECT(numio_spawn_co(NULL, take_one_flow, &flows[i], NULL, &joins[2 * i]) == 0);
        EXPECT(numio_spawn_co(NULL, send_flow, &flows[i], NULL, &joins[2 * i + 1]) == 0);
    }
    for (int i = 0; i < 2 * READERS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

SMALL_EACH(stream, many_readers_share_few_buffers, 2)
{
    struct flow flows[READERS];
    for (int i = 0; i < READERS; i++) {
        int ends[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        flows[i] = (struct flow){ ends[0], ends[1], READER_BYTES };
    }
    expect_all(runtime, run_flows, flows);
    for (int i = 0; i < READERS; i++) {
        (void)close(flows[i].in);
        (void)close(flows[i].out);
    }
}

static int64_t stop_in_the_middle(void *arg)
{
    const struct flow *flow = arg;
    struct numio_stream *stream;
    struct numio_chunk chunk;
    char rest[4096];
    int64_t n, done = 0;
    for (int i = 0; i < 3000; i++)
        rest[i] = byte_at((uint64_t)i);
    for (int i = 0; i < 3000; i += 30)
        EXPECT(send(flow->out, rest + i, 30, MSG_NOSIGNAL) == 30);
    EXPECT(numio_recv_stream(flow->in, 0, &stream) == 0);
    EXPECT((n = numio_stream_recv(stream, &chunk)) > 0);
    for (; n > 0; n = numio_stream_recv(stream, &chunk)) {
        for (int64_t i = 0; i < n; i++)
            EXPECT(((char *)chunk.data)[i] == byte_at((uint64_t)(done + i)));
        done += n;
        numio_chunk_release(&chunk);
        if (done > 500)
            EXPECT(numio_stream_stop(stream) == 0);
    }
    EXPECT(n == -ECANCELED || (n == 0 && done == 3000));
    EXPECT(numio_stream_close(&stream) == 0);
    while (done < 3000) { /* what the stream did not take is in the socket */
        EXPECT((n = recv(flow->in, rest, sizeof rest, MSG_DONTWAIT)) > 0);
        for (int64_t i = 0; i < n; i++)
            EXPECT(rest[i] == byte_at((uint64_t)(done + i)));
        done += n;
    }
    EXPECT(done == 3000);
    return 0;
}

SMALL_EACH(stream, what_a_stopped_stream_did_not_take_is_in_the_socket, 2)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    struct flow flow = { ends[0], ends[1], 0 };
    for (int round = 0; round < 10; round++)
        expect_all(runtime, stop_in_the_middle, &flow);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* Of the only worker, to its driver. */
static uint64_t requests(void)
{
    struct nio_driver_counters counters;
    nio_driver_counters(nio_worker_current()->driver, &counters);
    return counters.sqes;
}

/* Holds all buffers of the only worker: the others wait, also with a deadline, and go on when one
 * is released. */
static int64_t starve(void *arg)
{
    const struct flow *flow = arg;
    struct numio_chunk chunks[SMALL_BUFFERS + 1];
    struct numio_stream *stream;
    struct numio_deadline deadline;
    static char bytes[(SMALL_BUFFERS + 4) * SMALL_BYTES];
    EXPECT(send(flow->out, bytes, sizeof bytes, MSG_NOSIGNAL) == sizeof bytes);
    EXPECT(numio_recv_stream(flow->in, 0, &stream) == 0);
    for (int i = 0; i < SMALL_BUFFERS; i++)
        EXPECT(numio_stream_recv(stream, &chunks[i]) == SMALL_BYTES);
    uint64_t before = requests();
    EXPECT(numio_deadline_push(&deadline, 2 * ms) == 0);
    EXPECT(numio_stream_recv(stream, &chunks[SMALL_BUFFERS]) == -ETIMEDOUT);
    EXPECT(!chunks[SMALL_BUFFERS].data);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    EXPECT(requests() - before < 8); /* it waits, and does not ask again and again */
    numio_chunk_release(&chunks[0]);
    numio_chunk_release(&chunks[0]); /* takes an empty one */
    for (int i = 0; i < 4; i++) {
        EXPECT(numio_stream_recv(stream, &chunks[0]) == SMALL_BYTES);
        numio_chunk_release(&chunks[0]);
    }
    for (int i = 1; i < SMALL_BUFFERS; i++)
        numio_chunk_release(&chunks[i]);
    EXPECT(numio_stream_close(&stream) == 0);
    for (int i = 0; i < 3 * SMALL_BUFFERS; i++) { /* what a close drops is free again */
        EXPECT(send(flow->out, bytes, 2 * SMALL_BYTES, MSG_NOSIGNAL) == 2 * SMALL_BYTES);
        EXPECT(numio_recv_stream(flow->in, 0, &stream) == 0);
        EXPECT(numio_stream_recv(stream, &chunks[0]) == SMALL_BYTES);
        numio_chunk_release(&chunks[0]);
        EXPECT(numio_sleep_ns(ms / 20) == 0);
        EXPECT(numio_stream_close(&stream) == 0);
        (void)recv(flow->in, bytes, sizeof bytes, MSG_DONTWAIT); /* if the stream did not take it */
    }
    return 0;
}

SMALL_EACH(stream, without_a_buffer_a_stream_waits_for_one, 1)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    struct flow flow = { ends[0], ends[1], 0 };
    for (int round = 0; round < 3; round++)
        expect_all(runtime, starve, &flow);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* ---- recvmsg ------------------------------------------------------------------------------ */

static int64_t take_datagrams(void *arg)
{
    const int *fds = arg;
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    struct numio_stream *stream;
    int on = 1;
    EXPECT(getsockname(fds[0], (struct sockaddr *)&address, &bytes) == 0);
    EXPECT(setsockopt(fds[0], SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) == 0);
    EXPECT(numio_recvmsg_stream(fds[0], 0, sizeof address, 64, &stream) == 0);
    for (int i = 0; i < DATAGRAMS; i++) {
        struct numio_chunk chunk;
        char out[256];
        size_t len = i % 7 == 0 ? 0 : (size_t)(i % 40);
        memset(out, i, sizeof out);
        len = i % 50 == 49 ? 200 : len; /* too long for what is left of a buffer */
        EXPECT(sendto(fds[1], out, len, 0, (struct sockaddr *)&address, bytes) == (ssize_t)len);
        int64_t n = numio_stream_recv(stream, &chunk);
        size_t room = SMALL_BYTES - 16 - sizeof address - 64;
        EXPECT(n == (int64_t)(len < room ? len : room) && chunk.data && chunk.len == (size_t)n);
        EXPECT(memcmp(chunk.data, out, (size_t)n) == 0);
        EXPECT(((chunk.msg_flags & MSG_TRUNC) != 0) == (len > room));
        EXPECT(chunk.name && chunk.name->sa_family == AF_INET);
        struct msghdr header = { .msg_control = chunk.control,
                                 .msg_controllen = chunk.control_len };
        const struct cmsghdr *control = CMSG_FIRSTHDR(&header);
        EXPECT(control && control->cmsg_type == SO_TIMESTAMPNS);
        numio_chunk_release(&chunk);
    }
    EXPECT(numio_stream_close(&stream) == 0);
    EXPECT(numio_recvmsg_stream(fds[0], 0, 100, 100, &stream) == -EINVAL);
    EXPECT(strstr(numio_strerror_detail(), "recv_buffer_bytes"));
    return 0;
}

SMALL_EACH(stream, datagrams_come_with_their_senders_and_control_data, 2)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fds[2];
    for (int i = 0; i < 2; i++) {
        cr_assert_geq(fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 0);
        cr_assert_eq(bind(fds[i], (struct sockaddr *)&address, sizeof address), 0);
    }
    expect_all(runtime, take_datagrams, fds);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* ---- poll and periods --------------------------------------------------------------------- */

static int64_t signal_event(void *arg)
{
    int fd = *(const int *)arg;
    for (int i = 0; i < 20; i++) {
        EXPECT(numio_sleep_ns(ms / 2) == 0);
        EXPECT(eventfd_write(fd, 1) == 0);
    }
    return 0;
}

static int64_t take_events(void *arg)
{
    int fd = *(const int *)arg;
    struct numio_stream *stream;
    struct numio_join *join;
    eventfd_t value, sum = 0;
    EXPECT(numio_poll_stream(fd, POLLIN, &stream) == 0);
    EXPECT(numio_spawn_co(NULL, signal_event, arg, NULL, &join) == 0);
    while (sum < 20) {
        int64_t events = numio_stream_next(stream);
        EXPECT(events > 0 && (events & POLLIN));
        if (eventfd_read(fd, &value) == 0) /* non-blocking: an event may be told again */
            sum += value;
    }
    EXPECT(sum == 20);
    EXPECT(numio_stream_close(&stream) == 0);
    return numio_join_await(&join);
}

FIXTURE_EACH(stream, events_are_told_until_it_is_closed, .timeout = 30)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    expect_all(runtime, take_events, &fd);
    (void)close(fd);
}

static int64_t take_periods(void *unused)
{
    struct numio_stream *stream;
    int64_t sum = 0, n;
    (void)unused;
    uint64_t began_ns = nio_now_ns();
    EXPECT(numio_interval_stream(ms, &stream) == 0);
    for (int i = 0; i < 10; i++) {
        EXPECT((n = numio_stream_next(stream)) > 0);
        sum += n;
        EXPECT(nio_now_ns() - began_ns >= (uint64_t)sum * ms);
        if (i == 5)
            EXPECT(numio_sleep_ns(5 * ms) == 0); /* those that pass meanwhile are counted ... */
        if (i == 7) {
            uint64_t busy_ns = nio_now_ns(); /* ... also while the worker does not look */
            while (nio_now_ns() - busy_ns < 5 * ms) {
            }
        }
    }
    EXPECT(sum >= 18);
    EXPECT(nio_now_ns() - began_ns < (uint64_t)(sum + 200) * ms);
    EXPECT(numio_stream_stop(stream) == 0);
    n = numio_stream_next(stream);
    EXPECT(n > 0 || n == -ECANCELED);
    EXPECT(numio_stream_next(stream) == -ECANCELED);
    EXPECT(numio_stream_close(&stream) == 0);
    EXPECT(numio_interval_stream(0, &stream) == -EINVAL);
    return 0;
}

FIXTURE_EACH(stream, periods_do_not_drift_and_none_is_missed, .timeout = 30)
{
    expect_all(runtime, take_periods, NULL);
}

/* ---- ends and misuse ---------------------------------------------------------------------- */

struct aborted {
    struct listener listener;
    int kind; /* which stream */
    int ends[2];
    int64_t result;
    int closed;
};

static int64_t wait_in_stream(void *arg)
{
    struct aborted *aborted = arg;
    struct numio_stream *stream = NULL;
    struct numio_chunk chunk;
    int rc = 0;
    switch (aborted->kind) {
    case 0:
        rc = numio_accept_stream(aborted->listener.fd, 0, &stream);
        break;
    case 1:
        rc = numio_recv_stream(aborted->ends[0], 0, &stream);
        break;
    case 2:
        rc = numio_poll_stream(aborted->ends[0], POLLIN, &stream);
        break;
    default:
        rc = numio_interval_stream(3600000 * ms, &stream);
        break;
    }
    EXPECT(rc == 0);
    aborted->result =
        aborted->kind == 1 ? numio_stream_recv(stream, &chunk) : numio_stream_next(stream);
    aborted->closed = numio_stream_close(&stream); /* also in an aborted task */
    return 0;
}

static int64_t abort_in_stream(void *arg)
{
    struct aborted *aborted = arg;
    struct numio_join *join;
    for (aborted->kind = 0; aborted->kind < 4; aborted->kind++) {
        aborted->result = aborted->closed = 1;
        EXPECT(numio_spawn_co(NULL, wait_in_stream, aborted, NULL, &join) == 0);
        EXPECT(numio_sleep_ns(ms) == 0);
        numio_join_abort(join);
        int64_t rc = numio_join_await(&join);
        EXPECT(rc == 0 || rc == -ECANCELED);
        EXPECT(aborted->result == -ECANCELED && aborted->closed == 0);
    }
    return 0;
}

FIXTURE_EACH(stream, an_aborted_task_closes_its_stream, .timeout = 60)
{
    struct aborted aborted;
    open_listener(&aborted.listener);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, aborted.ends), 0);
    for (int round = 0; round < 10; round++)
        expect_all(runtime, abort_in_stream, &aborted);
    cr_assert_eq(send(aborted.ends[1], "x", 1, MSG_NOSIGNAL), 1);
    char byte;
    cr_assert_eq(recv(aborted.ends[0], &byte, 1, MSG_DONTWAIT), 1, "a closed stream took a byte");
    (void)close(aborted.ends[0]);
    (void)close(aborted.ends[1]);
    (void)close(aborted.listener.fd);
}

static int64_t wait_long(void *arg)
{
    return numio_stream_next(arg);
}

static int64_t misuse(void *arg)
{
    const int *ends = arg;
    struct numio_stream *stream;
    struct numio_chunk chunk;
    struct numio_join *join;
    EXPECT(numio_accept_stream(ends[0], 0, &stream) == 0);
    EXPECT(numio_stream_recv(stream, &chunk) == -EINVAL);
    EXPECT(strstr(numio_strerror_detail(), "numio_stream_next"));
    int64_t rc = numio_stream_next(stream); /* no listener: what accept says */
    EXPECT(rc == -EINVAL || rc == -EOPNOTSUPP);
    EXPECT(numio_stream_close(&stream) == 0);
    EXPECT(numio_recv_stream(ends[0], MSG_WAITALL, &stream) == -EINVAL);
    EXPECT(strstr(numio_strerror_detail(), "MSG_WAITALL"));
    EXPECT(numio_recvmsg_stream(ends[0], MSG_PEEK, 0, 0, &stream) == -EINVAL);
    EXPECT(numio_recv_stream(-7, 0, &stream) == 0);
    EXPECT(numio_stream_next(stream) == -EINVAL);
    EXPECT(numio_stream_recv(stream, &chunk) == -EBADF);
    EXPECT(numio_stream_recv(stream, &chunk) == -EBADF); /* asked anew */
    EXPECT(numio_stream_close(&stream) == 0);
    EXPECT(numio_interval_stream(3600000 * ms, &stream) == 0);
    EXPECT(numio_spawn_co(NULL, wait_long, stream, NULL, &join) == 0);
    EXPECT(numio_sleep_ns(ms) == 0);
    EXPECT(numio_stream_next(stream) == -EBUSY);
    numio_join_abort(join);
    EXPECT(numio_join_await(&join) == -ECANCELED);
    return numio_stream_close(&stream);
}

FIXTURE_EACH(stream, misuse_is_refused_with_the_reason, .timeout = 30)
{
    struct numio_stream *stream;
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(numio_accept_stream(ends[0], 0, &stream), -EINVAL);
    cr_assert_not_null(strstr(numio_strerror_detail(), "coroutine"));
    expect_all(runtime, misuse, ends);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static int64_t forget(void *arg)
{
    struct numio_stream *stream;
    EXPECT(numio_accept_stream(((struct listener *)arg)->fd, 0, &stream) == 0);
    struct numio_deadline deadline;
    EXPECT(numio_deadline_push(&deadline, ms) == 0);
    EXPECT(numio_stream_next(stream) == -ETIMEDOUT);
    (void)numio_deadline_pop(&deadline); /* known */
    return 0;
}

static int leave_one_open(void)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct listener listener;
    open_listener(&listener);
    expect_all(runtime, forget, &listener);
    numio_runtime_destroy(runtime);
    return 0;
}

Test(stream, one_that_was_not_closed_is_told_at_the_end, .timeout = 30)
{
    struct fixture_ending ending;
    fixture_in_child(leave_one_open, &ending);
    cr_assert_eq(ending.status, 0, "%s", ending.output);
    cr_assert_not_null(strstr(ending.output, "1 streams were not closed"), "%s", ending.output);
}

/* The n-th allocation of opening and receiving fails. */
static int64_t recv_without_memory(void *arg)
{
    const struct flow *flow = arg;
    struct numio_stream *stream;
    struct numio_chunk chunk;
    for (long n = 1 + (long)flow->bytes; n < 40; n++) {
        nio_fault_arm(n); /* one fault: with the next size it goes on */
        int rc = numio_recv_stream(flow->in, 0, &stream);
        if (rc == 0) {
            int64_t got = numio_stream_recv(stream, &chunk);
            nio_fault_arm(0);
            EXPECT(got == -ENOMEM || got > 0);
            numio_chunk_release(&chunk);
            EXPECT(numio_stream_close(&stream) == 0);
            if (got > 0)
                break;
        }
        nio_fault_arm(0);
        EXPECT(rc == 0 || rc == -ENOMEM);
    }
    return 0;
}

Test(stream, it_takes_fewer_buffers_where_memory_is_short, .timeout = 60)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    int are_fewer = 0;
    for (int round = 0; round < 8; round++) { /* each has a runtime without buffers */
        struct numio_runtime *runtime = fixture_create(&config);
        int ends[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        cr_assert_eq(send(ends[1], "x", 1, MSG_NOSIGNAL), 1);
        struct flow flow = { ends[0], ends[1], (uint64_t)round };
        expect_all(runtime, recv_without_memory, &flow);
        are_fewer += fixture_has_reason(numio_runtime_handle(runtime), "receive buffers");
        numio_runtime_destroy(runtime);
        (void)close(ends[0]);
        (void)close(ends[1]);
    }
    cr_assert_gt(are_fewer, 0, "the status never said that there are fewer");
}
