/* SPDX-License-Identifier: MIT */
/* Promises of numio/op.h for futures: start, poll, cancel, and what becomes of operations whose
 * future ends before them. */
#include "tests/runtime_fixture.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>

#include "runtime/base/compiler.h"

static const uint64_t for_ever_ns = 3600000000000ull;

enum { OPS = 16, RACES = 200 };

/* What a future shows to the test, which outlives it. */
struct view {
    _Atomic uint32_t polls, drops;
    int64_t results[OPS];
    int errors[OPS];
};

static void count(_Atomic uint32_t *word)
{
    fixture_set(word, fixture_get(word) + 1); /* one future at a time writes it */
}

/* A future with operations, and the buffer they use, in its state. */
struct reader {
    struct view *view;
    int fd;
    unsigned step;
    struct numio_op ops[OPS];
    char buffer[OPS][8];
};

static void drop_reader(void *state)
{
    struct reader *reader = state;
    memset(reader->buffer, 0, sizeof reader->buffer); /* nobody may write to it any more */
    count(&reader->view->drops);
}

static struct numio_join *spawn(struct numio_runtime *runtime,
                                enum numio_poll (*poll_fn)(void *, struct numio_context *),
                                const struct reader *reader)
{
    struct numio_future future = {
        .poll = poll_fn, .drop = drop_reader, .state = reader, .size = sizeof *reader
    };
    struct numio_join *join = NULL;
    cr_assert_eq(numio_spawn(numio_runtime_handle(runtime), &future, NULL, &join), 0);
    return join;
}

static bool was_polled(void *arg)
{
    return fixture_get(&((struct view *)arg)->polls) > 0;
}

/* ---- to the end --------------------------------------------------------------------------- */

static enum numio_poll read_then_write(void *state, struct numio_context *cx)
{
    struct reader *r = state;
    int64_t result;
    count(&r->view->polls);
    if (r->step == 0) {
        numio_op_read(&r->ops[0], r->fd, r->buffer[0], 8, -1);
        r->view->errors[0] = numio_op_start(&r->ops[0], cx);
        r->view->errors[1] = numio_op_start(&r->ops[0], cx); /* a second time */
        r->step = 1;
    }
    if (r->step == 1) {
        if (numio_op_poll(&r->ops[0], cx, &result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        r->view->results[0] = result;
        numio_op_send(&r->ops[0], r->fd, r->buffer[0], (size_t)(result > 0 ? result : 0), 0);
        r->view->errors[2] = numio_op_start(&r->ops[0], cx); /* the same operation again */
        r->step = 2;
    }
    if (numio_op_poll(&r->ops[0], cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    r->view->results[1] = result;
    return NUMIO_READY;
}

FIXTURE_EACH(future_io, an_operation_is_started_polled_and_used_again, .timeout = 20)
{
    for (unsigned i = 0; i < 50; i++) {
        struct view view = { 0 };
        struct reader reader = { .view = &view };
        int fds[2];
        char echo[8] = { 0 };
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        reader.fd = fds[0];
        struct numio_join *join = spawn(runtime, read_then_write, &reader);
        cr_assert(fixture_until(was_polled, &view));
        cr_assert_eq(send(fds[1], "ping", 4, 0), 4);
        cr_assert_eq(numio_join_wait(&join, 5000000000), 0);
        cr_assert_eq(recv(fds[1], echo, 8, 0), 4);
        cr_assert_str_eq(echo, "ping");
        cr_assert_eq(view.errors[0], 0);
        cr_assert_eq(view.errors[1], -EBUSY);
        cr_assert_eq(view.errors[2], 0);
        cr_assert_eq(view.results[0], 4);
        cr_assert_eq(view.results[1], 4);
        cr_assert_eq(fixture_get(&view.drops), 1);
        (void)close(fds[0]);
        (void)close(fds[1]);
    }
}

static enum numio_poll many_timeouts(void *state, struct numio_context *cx)
{
    struct reader *r = state;
    unsigned left = 0;
    if (r->step++ == 0)
        for (unsigned i = 0; i < OPS; i++) {
            numio_op_timeout(&r->ops[i], 1000 * (OPS - i));
            r->view->errors[i] = numio_op_start(&r->ops[i], cx);
        }
    for (unsigned i = 0; i < OPS; i++)
        if (r->view->results[i] == 0 &&
            numio_op_poll(&r->ops[i], cx, &r->view->results[i]) == NUMIO_PENDING)
            left++;
    return left ? NUMIO_PENDING : NUMIO_READY;
}

FIXTURE_EACH(future_io, many_operations_at_once_all_end, .timeout = 20)
{
    for (unsigned round = 0; round < 50; round++) {
        struct view view = { 0 };
        struct reader reader = { .view = &view };
        struct numio_join *join = spawn(runtime, many_timeouts, &reader);
        cr_assert_eq(numio_join_wait(&join, 5000000000), 0);
        for (unsigned i = 0; i < OPS; i++) {
            cr_assert_eq(view.errors[i], 0);
            cr_assert_eq(view.results[i], -ETIME);
        }
    }
}

/* ---- cancel ------------------------------------------------------------------------------- */

static enum numio_poll start_and_cancel(void *state, struct numio_context *cx)
{
    struct reader *r = state;
    int64_t result;
    count(&r->view->polls);
    if (r->step == 0) {
        numio_op_read(&r->ops[0], r->fd, r->buffer[0], 8, -1);
        r->view->errors[0] = numio_op_start(&r->ops[0], cx);
        numio_op_timeout(&r->ops[1], 1000000);
        r->view->errors[1] = numio_op_start(&r->ops[1], cx);
        r->step = 1;
    }
    if (r->step == 1) {
        if (numio_op_poll(&r->ops[1], cx, &result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        r->view->results[1] = result;
        numio_op_cancel(&r->ops[0], cx);
        numio_op_cancel(&r->ops[0], cx); /* twice is once */
        numio_op_cancel(&r->ops[1], cx); /* has ended */
        r->step = 2;
    }
    if (numio_op_poll(&r->ops[0], cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    r->view->results[0] = result;
    return NUMIO_READY;
}

FIXTURE_EACH(future_io, a_cancelled_operation_says_so_and_takes_nothing, .timeout = 20)
{
    int ends[2];
    char byte;
    cr_assert_eq(pipe(ends), 0);
    for (unsigned i = 0; i < 50; i++) {
        struct view view = { 0 };
        struct reader reader = { .view = &view, .fd = ends[0] };
        struct numio_join *join = spawn(runtime, start_and_cancel, &reader);
        cr_assert_eq(numio_join_wait(&join, 5000000000), 0);
        cr_assert_eq(view.results[1], -ETIME);
        cr_assert_eq(view.results[0], -ECANCELED, "%ld", (long)view.results[0]);
    }
    cr_assert_eq(write(ends[1], "x", 1), 1);
    cr_assert_eq(read(ends[0], &byte, 1), 1);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* Starts on one worker and cancels on another, as often as it is stolen in between. */
static enum numio_poll wander_and_cancel(void *state, struct numio_context *cx)
{
    struct reader *r = state;
    int64_t result;
    if (r->step == 0) {
        numio_op_read(&r->ops[0], r->fd, r->buffer[0], 8, -1);
        r->view->errors[0] = numio_op_start(&r->ops[0], cx);
    }
    if (r->step++ < 20) {
        numio_context_yield(cx);
        return NUMIO_PENDING;
    }
    numio_op_cancel(&r->ops[0], cx);
    if (numio_op_poll(&r->ops[0], cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    r->view->results[0] = result;
    return NUMIO_READY;
}

FIXTURE_EACH(future_io, a_cancel_reaches_the_ring_the_operation_went_to, .timeout = 20)
{
    static struct view views[RACES];
    static struct numio_join *joins[RACES];
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    for (unsigned i = 0; i < RACES; i++) {
        struct reader reader = { .view = &views[i], .fd = ends[0] };
        joins[i] = spawn(runtime, wander_and_cancel, &reader);
    }
    for (unsigned i = 0; i < RACES; i++) {
        cr_assert_eq(numio_join_wait(&joins[i], 5000000000), 0, "%s", numio_strerror_detail());
        cr_assert_eq(views[i].errors[0], 0);
        cr_assert_eq(views[i].results[0], -ECANCELED);
    }
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* ---- dropped with operations in flight ---------------------------------------------------- */

static enum numio_poll start_many_and_wait(void *state, struct numio_context *cx)
{
    struct reader *r = state;
    if (r->step++ == 0)
        for (unsigned i = 0; i < OPS; i++) {
            if (i % 2)
                numio_op_timeout(&r->ops[i], for_ever_ns);
            else
                numio_op_read(&r->ops[i], r->fd, r->buffer[i], 8, -1);
            r->view->errors[i] = numio_op_start(&r->ops[i], cx);
        }
    count(&r->view->polls);
    return NUMIO_PENDING;
}

FIXTURE_EACH(future_io, an_aborted_future_is_dropped_after_its_operations, .timeout = 20)
{
    int ends[2];
    char byte;
    cr_assert_eq(pipe(ends), 0);
    for (unsigned round = 0; round < 30; round++) {
        struct view view = { 0 };
        struct reader reader = { .view = &view, .fd = ends[0] };
        struct numio_join *join = spawn(runtime, start_many_and_wait, &reader);
        cr_assert(fixture_until(was_polled, &view));
        numio_join_abort(join);
        cr_assert_eq(numio_join_wait(&join, 5000000000), -ECANCELED);
        cr_assert_eq(fixture_get(&view.drops), 1);
        cr_assert_eq(fixture_get(&view.polls), 1, "polled again after the abort");
    }
    cr_assert_eq(write(ends[1], "x", 1), 1);
    cr_assert_eq(read(ends[0], &byte, 1), 1, "a dropped operation took the byte");
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static enum numio_poll leave_operations_behind(void *state, struct numio_context *cx)
{
    (void)start_many_and_wait(state, cx);
    return NUMIO_READY;
}

FIXTURE_EACH(future_io, a_ready_future_may_leave_operations_behind, .timeout = 20)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    for (unsigned round = 0; round < 30; round++) {
        struct view view = { 0 };
        struct reader reader = { .view = &view, .fd = ends[0] };
        struct numio_join *join = spawn(runtime, leave_operations_behind, &reader);
        cr_assert_eq(numio_join_wait(&join, 5000000000), 0);
        cr_assert_eq(fixture_get(&view.drops), 1);
    }
    (void)close(ends[0]);
    (void)close(ends[1]);
}

FIXTURE_EACH(future_io, a_shutdown_drops_futures_with_operations, .timeout = 20)
{
    static struct view views[50];
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    for (unsigned i = 0; i < NIO_ARRAY_LEN(views); i++) {
        struct reader reader = { .view = &views[i], .fd = ends[0] };
        struct numio_join *join = spawn(runtime, start_many_and_wait, &reader);
        numio_join_detach(&join);
    }
    cr_assert_eq(numio_runtime_shutdown(runtime, 10000000000, NULL, 0, NULL), 0);
    for (unsigned i = 0; i < NIO_ARRAY_LEN(views); i++)
        cr_assert_eq(fixture_get(&views[i].drops), 1);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static enum numio_poll accept_one(void *state, struct numio_context *cx)
{
    struct reader *r = state;
    int64_t result;
    if (r->step++ == 0) {
        numio_op_accept(&r->ops[0], r->fd, NULL, NULL, SOCK_CLOEXEC);
        r->view->errors[0] = numio_op_start(&r->ops[0], cx);
        count(&r->view->polls);
    }
    if (numio_op_poll(&r->ops[0], cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    if (result >= 0)
        (void)close((int)result);
    return NUMIO_READY;
}

FIXTURE_EACH(future_io, an_accept_that_comes_too_late_is_closed, .timeout = 30)
{
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    int listener = numio_tcp_listen("127.0.0.1:0", 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    cr_assert_eq(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    unsigned fds = fixture_count_fds();
    for (unsigned i = 0; i < RACES; i++) {
        struct view view = { 0 };
        struct reader reader = { .view = &view, .fd = listener };
        int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct numio_join *join = spawn(runtime, accept_one, &reader);
        cr_assert(fixture_until(was_polled, &view));
        cr_assert_eq(connect(client, (struct sockaddr *)&address, bytes), 0);
        numio_join_abort(join);
        int64_t result = numio_join_wait(&join, 5000000000);
        cr_assert(result == 0 || result == -ECANCELED);
        cr_assert_eq(fixture_get(&view.drops), 1);
        int left = accept(listener, NULL, NULL);
        if (left >= 0)
            (void)close(left);
        (void)close(client);
        cr_assert_eq(fixture_count_fds(), fds, "round %u", i);
    }
    (void)close(listener);
}

/* ---- refusals ----------------------------------------------------------------------------- */

static int64_t start_in_coroutine(void *arg)
{
    struct numio_op *op = arg;
    struct numio_context cx = { NULL, NULL };
    numio_op_nop(op);
    return numio_op_start(op, &cx);
}

static enum numio_poll start_with_another_context(void *state, struct numio_context *cx)
{
    struct reader *r = state;
    struct numio_context other = { NULL, NULL };
    (void)cx;
    numio_op_nop(&r->ops[0]);
    r->view->errors[0] = numio_op_start(&r->ops[0], &other);
    r->view->errors[1] = numio_op_start(&r->ops[0], NULL);
    return NUMIO_READY;
}

FIXTURE_EACH(future_io, starting_elsewhere_than_in_its_poll_is_refused, .timeout = 10)
{
    struct numio_op op = NUMIO_OP_INIT;
    struct numio_context cx = { NULL, NULL };
    struct view view = { 0 };
    struct reader reader = { .view = &view };
    numio_op_nop(&op);
    cr_assert_eq(numio_op_start(&op, &cx), -EINVAL);
    cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), start_in_coroutine, &op), -EINVAL);
    struct numio_join *join = spawn(runtime, start_with_another_context, &reader);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    cr_assert_eq(view.errors[0], -EINVAL);
    cr_assert_eq(view.errors[1], -EINVAL);
}

/* More operations than the ring has entries: the rest wait their turn. */
Test(future_io, more_operations_than_entries_wait_their_turn, .timeout = 20)
{
    static struct view views[RACES];
    static struct numio_join *joins[RACES];
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    config.ring_entries = 8;
    struct numio_runtime *runtime = fixture_create(&config);
    for (unsigned i = 0; i < RACES; i++) {
        struct reader reader = { .view = &views[i] };
        joins[i] = spawn(runtime, many_timeouts, &reader);
    }
    for (unsigned i = 0; i < RACES; i++) {
        cr_assert_eq(numio_join_wait(&joins[i], 10000000000), 0);
        for (unsigned k = 0; k < OPS; k++)
            cr_assert_eq(views[i].results[k], -ETIME, "%ld", (long)views[i].results[k]);
    }
    numio_runtime_destroy(runtime);
}
