/* SPDX-License-Identifier: MIT */
/* Deadline scopes: what is awaited ends with -ETIMEDOUT when the time has passed, and loses
 * nothing; scopes nest; pop works wherever the coroutine runs by then. */
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "runtime/sched/await.h"

enum { SOON_NS = 3000000, MANY = 2000, MOVES = 200 };
static const uint64_t late_ns = 3600000000000ull;
static const uint64_t patience_ns = 10000000000ull;

static int64_t last_line; /* what went wrong, for the message */

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static int64_t value(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

/* ---- one scope ---------------------------------------------------------------------------- */

static int64_t wait_for_a_pipe(void *arg)
{
    struct numio_deadline deadline;
    int *ends = arg;
    char byte = 0;
    uint64_t began_ns = nio_now_ns();
    EXPECT(numio_deadline_push(&deadline, SOON_NS) == 0);
    EXPECT(numio_deadline_left() <= SOON_NS);
    EXPECT(numio_read(ends[0], &byte, 1) == -ETIMEDOUT);
    EXPECT(nio_now_ns() - began_ns >= SOON_NS && nio_now_ns() - began_ns < patience_ns);
    EXPECT(numio_deadline_left() == 0);
    EXPECT(numio_write(ends[1], "x", 1) == -ETIMEDOUT); /* at once, and nothing is written */
    EXPECT(numio_yield_now() == -ETIMEDOUT);
    EXPECT(numio_block_in_place(value, (void *)1) == -ETIMEDOUT);
    EXPECT(!numio_is_cancelled());
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    EXPECT(numio_deadline_left() == INT64_MAX);
    EXPECT(!nio_state_is_stopped(&nio_co_current()->task)); /* no stray wake ends a later wait */
    EXPECT(numio_write(ends[1], "y", 1) == 1);
    EXPECT(numio_read(ends[0], &byte, 1) == 1 && byte == 'y');
    return 0;
}

FIXTURE_EACH(deadline, a_wait_ends_in_time_and_what_follows_at_once, .timeout = 30)
{
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_assert_eq(run(runtime, wait_for_a_pipe, ends), 0, "line %ld", (long)last_line);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static int64_t wait_within(void *arg)
{
    int *ends = arg;
    char byte = 0;
    EXPECT(numio_within(SOON_NS, numio_read(ends[0], &byte, 1)) == -ETIMEDOUT);
    EXPECT(numio_deadline_left() == INT64_MAX); /* the scope has ended with the call */
    EXPECT(numio_write(ends[1], "x", 1) == 1);
    EXPECT(numio_within(late_ns, numio_read(ends[0], &byte, 1)) == 1 && byte == 'x');
    EXPECT(numio_within(late_ns, numio_within(SOON_NS, numio_sleep_ns(late_ns))) == -ETIMEDOUT);
    EXPECT(numio_within(SOON_NS, numio_within(late_ns, numio_sleep_ns(late_ns))) == -ETIMEDOUT);
    EXPECT(numio_within(late_ns, value((void *)7)) == 7);
    return 0;
}

FIXTURE_EACH(deadline, a_call_within_a_limit_gives_its_result_or_ends, .timeout = 30)
{
    int ends[2], calls = 0;
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_assert_eq(run(runtime, wait_within, ends), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_within(late_ns, ++calls), 1); /* in a plain thread as well */
    cr_assert_eq(calls, 1);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static int64_t sleep_long(void *arg)
{
    (void)arg;
    return numio_sleep_ns(late_ns);
}

/* Every kind of wait; each in a scope of its own. */
static int64_t wait_in_every_way(void *arg)
{
    struct numio_deadline deadline;
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct numio_join *join;
    char byte;
    int pair[2], listener = numio_tcp_listen("127.0.0.1:0", 1);
    (void)arg;
    EXPECT(listener >= 0 && socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) == 0);
    for (unsigned way = 0; way < 6; way++) {
        int64_t rc = 0;
        EXPECT(numio_deadline_push(&deadline, SOON_NS) == 0);
        if (way == 0)
            rc = numio_accept(listener, NULL, NULL, SOCK_CLOEXEC);
        else if (way == 1)
            rc = numio_recv(pair[0], &byte, 1, 0);
        else if (way == 2)
            rc = numio_poll_fd(pair[0], POLLIN);
        else if (way == 3)
            rc = numio_sleep_ns(late_ns);
        else if (way == 4)
            while ((rc = numio_yield_now()) == 0)
                continue;
        else
            rc = numio_recv_all(pair[0], &byte, 1, 0);
        EXPECT(rc == -ETIMEDOUT);
        EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    }
    EXPECT(numio_spawn_co(NULL, sleep_long, NULL, NULL, &join) == 0);
    EXPECT(numio_deadline_push(&deadline, SOON_NS) == 0);
    EXPECT(numio_join_await(&join) == -ETIMEDOUT && join != NULL);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    numio_join_abort(join);
    EXPECT(numio_join_await(&join) == -ECANCELED && join == NULL);
    /* Closing is for the late, too. */
    EXPECT(numio_deadline_push(&deadline, 0) == 0);
    EXPECT(numio_close(pair[0]) == 0 && numio_close(pair[1]) == 0 && numio_close(listener) == 0);
    EXPECT(numio_connect(-1, (struct sockaddr *)&address, sizeof address) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    return 0;
}

FIXTURE_EACH(deadline, every_kind_of_wait_obeys, .timeout = 30)
{
    cr_assert_eq(run(runtime, wait_in_every_way, NULL), 0, "line %ld", (long)last_line);
}

static int64_t end_in_time(void *arg)
{
    struct numio_deadline deadline;
    int *ends = arg;
    char bytes[64];
    for (unsigned i = 0; i < MANY; i++) {
        EXPECT(numio_deadline_push(&deadline, late_ns) == 0);
        EXPECT(numio_write(ends[1], "abc", 3) == 3);
        EXPECT(numio_read(ends[0], bytes, sizeof bytes) == 3);
        EXPECT(numio_deadline_left() > 0);
        EXPECT(numio_deadline_pop(&deadline) == 0);
    }
    /* What has ended keeps its result although the time passes before it is looked at. */
    struct numio_join *join;
    EXPECT(numio_spawn_co(NULL, value, (void *)7, NULL, &join) == 0);
    EXPECT(numio_deadline_push(&deadline, 1) == 0);
    EXPECT(numio_sleep_ns(1000) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    EXPECT(numio_join_await(&join) == 7);
    return 0;
}

FIXTURE_EACH(deadline, what_ends_in_time_is_left_alone, .timeout = 30)
{
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_assert_eq(run(runtime, end_in_time, ends), 0, "line %ld", (long)last_line);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* ---- what a call has moved by then ---------------------------------------------------------- */

enum { PART = 10, WHOLE = 1000000 };
static char whole[WHOLE];

static int64_t move_a_part(void *arg)
{
    int *ends = arg;
    EXPECT(numio_send(ends[1], "0123456789", PART, 0) == PART);
    memset(whole, 0, sizeof whole);
    EXPECT(numio_within(SOON_NS, numio_recv(ends[0], whole, PART + 1, MSG_WAITALL)) == PART);
    EXPECT(memcmp(whole, "0123456789", PART) == 0);
    EXPECT(numio_within(SOON_NS, numio_recv(ends[0], whole, 1, MSG_WAITALL)) == -ETIMEDOUT);
    /* More than the socket takes: so much of it is on its way, and nobody loses count. */
    int64_t n = numio_within(SOON_NS, numio_send(ends[1], whole, WHOLE, MSG_WAITALL));
    EXPECT(n > 0 && n < WHOLE);
    EXPECT(numio_recv_all(ends[0], whole, (size_t)n, 0) == n);
    EXPECT(numio_within(SOON_NS, numio_recv(ends[0], whole, 1, 0)) == -ETIMEDOUT);
    return 0;
}

static int64_t receive_a_datagram(void *arg)
{
    int *ends = arg;
    char buffer[8];
    EXPECT(numio_send(ends[1], "one", 3, 0) == 3 && numio_send(ends[1], "two", 3, 0) == 3);
    EXPECT(numio_recv(ends[0], buffer, sizeof buffer, MSG_WAITALL) == 3);
    EXPECT(memcmp(buffer, "one", 3) == 0);
    EXPECT(numio_recv(ends[0], buffer, sizeof buffer, MSG_WAITALL) == 3);
    return 0;
}

FIXTURE_EACH(deadline, what_a_call_for_all_has_moved_is_told, .timeout = 30)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(run(runtime, move_a_part, ends), 0, "line %ld", (long)last_line);
    (void)close(ends[0]);
    (void)close(ends[1]);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(run(runtime, receive_a_datagram, ends), 0, "line %ld", (long)last_line);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* A function that has begun on the pool is waited for, since its argument may be on the stack. */
static int64_t nap(void *arg)
{
    _Atomic uint32_t nobody = 0;
    (void)nio_futex_wait(&nobody, 0, 20000000);
    return (int64_t)(intptr_t)arg;
}

static int64_t block_beyond_the_end(void *arg)
{
    struct numio_deadline deadline;
    (void)arg;
    EXPECT(numio_deadline_push(&deadline, SOON_NS) == 0);
    EXPECT(numio_block_in_place(nap, (void *)5) == 5);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    return 0;
}

FIXTURE_EACH(deadline, a_function_on_the_pool_that_has_begun_is_waited_for, .timeout = 30)
{
    cr_assert_eq(run(runtime, block_beyond_the_end, NULL), 0, "line %ld", (long)last_line);
}

/* ---- nested ------------------------------------------------------------------------------- */

static int64_t nest(void *arg)
{
    struct numio_deadline outer, middle, inner;
    (void)arg;
    /* The inner one ends first; the outer goes on. */
    EXPECT(numio_deadline_push(&outer, late_ns) == 0);
    EXPECT(numio_deadline_push(&inner, SOON_NS) == 0);
    EXPECT(numio_sleep_ns(late_ns) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&outer) == -EINVAL); /* it is not the innermost */
    EXPECT(numio_deadline_pop(&inner) == -ETIMEDOUT);
    EXPECT(numio_sleep_ns(1000) == 0);
    EXPECT(numio_deadline_pop(&outer) == 0);
    EXPECT(numio_deadline_pop(&outer) == -EINVAL);
    /* The outer one ends first, for those within as well, until it is popped itself. */
    EXPECT(numio_deadline_push(&outer, SOON_NS) == 0);
    EXPECT(numio_deadline_push(&middle, late_ns) == 0);
    EXPECT(numio_deadline_push(&inner, late_ns) == 0);
    EXPECT(numio_deadline_left() <= SOON_NS);
    EXPECT(numio_sleep_ns(late_ns) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&inner) == -ETIMEDOUT);
    EXPECT(numio_yield_now() == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&middle) == -ETIMEDOUT);
    EXPECT(numio_yield_now() == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&outer) == -ETIMEDOUT);
    EXPECT(numio_yield_now() == 0);
    /* Both have timers, and the outer strikes while the inner one is popped or was. */
    for (unsigned i = 0; i < 200; i++) {
        EXPECT(numio_deadline_push(&outer, 30000 + i * 200) == 0);
        EXPECT(numio_deadline_push(&inner, 20000 + i * 200) == 0);
        int64_t rc = numio_sleep_ns(20000 + i * 200);
        EXPECT(rc == 0 || rc == -ETIMEDOUT);
        rc = numio_deadline_pop(&inner);
        EXPECT(rc == 0 || rc == -ETIMEDOUT);
        EXPECT(numio_sleep_ns(late_ns) == -ETIMEDOUT); /* the outer one's end is not forgotten */
        EXPECT(numio_deadline_pop(&outer) == -ETIMEDOUT);
        EXPECT(numio_yield_now() == 0);
    }
    return 0;
}

FIXTURE_EACH(deadline, scopes_nest_and_the_earliest_end_holds, .timeout = 30)
{
    cr_assert_eq(run(runtime, nest, NULL), 0, "line %ld", (long)last_line);
}

/* What was struck while the coroutine waited, or not, is forgotten by an end as by a pop. */
static int64_t end_untold(void *arg)
{
    struct numio_deadline outer, inner;
    (void)arg;
    EXPECT(numio_deadline_push(&outer, late_ns) == 0);
    EXPECT(numio_deadline_push(&inner, SOON_NS) == 0);
    EXPECT(numio_deadline_end(&outer) == -EINVAL); /* it is not the innermost */
    EXPECT(numio_sleep_ns(late_ns) == -ETIMEDOUT);
    EXPECT(numio_yield_now() == -ETIMEDOUT);
    EXPECT(nio_state_load(&nio_co_current()->task) & NIO_STATE_LATE);
    EXPECT(numio_deadline_end(&inner) == 0);
    EXPECT(!(nio_state_load(&nio_co_current()->task) & NIO_STATE_LATE));
    EXPECT(numio_sleep_ns(1000) == 0);
    EXPECT(numio_deadline_end(&outer) == 0);
    EXPECT(numio_deadline_end(&outer) == -EINVAL);
    EXPECT(numio_deadline_end(NULL) == -EINVAL);
    for (unsigned i = 0; i < 200; i++) { /* it strikes about when the sleep within ends */
        EXPECT(numio_deadline_push(&inner, 20000 + i * 200) == 0);
        int64_t rc = numio_sleep_ns(30000);
        EXPECT(rc == 0 || rc == -ETIMEDOUT);
        EXPECT(numio_deadline_end(&inner) == 0);
        EXPECT(numio_sleep_ns(1000) == 0);
    }
    return 0;
}

FIXTURE_EACH(deadline, an_end_tells_nothing_and_leaves_nothing, .timeout = 30)
{
    cr_assert_eq(run(runtime, end_untold, NULL), 0, "line %ld", (long)last_line);
}

/* ---- elsewhere ---------------------------------------------------------------------------- */

/* A task is woken on the worker of its waker: joining a task of the other worker leads there. */
static int move_over(void)
{
    struct numio_spawn_opts opts;
    struct numio_join *join;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    opts.worker = 1 - numio_current_worker();
    int64_t rc = numio_spawn_co(NULL, value, NULL, &opts, &join);
    if (rc == 0 && (rc = numio_join_await(&join)) < 0)
        numio_join_detach(&join);
    return (int)rc;
}

static int64_t move_and_pop(void *arg)
{
    struct numio_deadline deadline, inner;
    unsigned moves = 0, late_moves = 0;
    (void)arg;
    uint64_t end_ns = nio_now_ns() + patience_ns;
    for (unsigned i = 0; (moves < MOVES || late_moves < 20) && nio_now_ns() < end_ns; i++) {
        int here = numio_current_worker();
        bool is_long = i % 2;
        EXPECT(numio_deadline_push(&deadline, is_long ? late_ns : 100000) == 0);
        int rc = move_over();
        EXPECT(rc == 0 || (rc == -ETIMEDOUT && !is_long));
        int there = numio_current_worker();
        EXPECT(numio_deadline_push(&inner, late_ns) == 0);
        if (i % 4 == 2)
            while (numio_yield_now() == 0)
                continue; /* until it strikes, from the other worker */
        rc = numio_deadline_pop(&inner);
        EXPECT(rc == 0 || (rc == -ETIMEDOUT && !is_long));
        rc = numio_deadline_pop(&deadline);
        EXPECT(rc == 0 || (rc == -ETIMEDOUT && !is_long));
        EXPECT(!is_long || numio_current_worker() == there); /* not to where the timer was */
        memset(&deadline, 0xa5, sizeof deadline);            /* nobody may use it any more */
        EXPECT(numio_yield_now() == 0);
        moves += there != here;
        late_moves += there != here && rc == -ETIMEDOUT;
    }
    return moves >= MOVES && late_moves >= 20 ? 0 : __LINE__;
}

FIXTURE_EACH(deadline, a_scope_ends_wherever_the_coroutine_runs_by_then, .timeout = 60)
{
    cr_assert_eq(run(runtime, move_and_pop, NULL), 0, "line %ld", (long)last_line);
}

/* ---- aborts, misuse, memory --------------------------------------------------------------- */

static int64_t wait_for_the_abort(void *arg)
{
    struct numio_deadline deadline;
    EXPECT(numio_deadline_push(&deadline, late_ns) == 0);
    fixture_set(arg, 1);
    EXPECT(numio_sleep_ns(late_ns) == -ECANCELED);
    EXPECT(numio_yield_now() == -ECANCELED);
    EXPECT(numio_deadline_pop(&deadline) == 0);
    EXPECT(numio_deadline_push(&deadline, 0) == 0);
    EXPECT(numio_yield_now() == -ECANCELED); /* an abort comes first */
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    return 0;
}

FIXTURE_EACH(deadline, an_abort_comes_first, .timeout = 30)
{
    static _Atomic uint32_t is_there;
    struct numio_join *join;
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), wait_for_the_abort,
                                (void *)(uintptr_t)&is_there, NULL, &join),
                 0);
    cr_assert(fixture_wait(&is_there, 1));
    numio_join_abort(join);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
}

struct refused {
    int push, pop, end, calls;
    int64_t within, left;
};

static enum numio_poll scope_in_poll(void *state, struct numio_context *cx)
{
    struct refused *refused = numio_context_output(cx);
    struct numio_deadline deadline;
    (void)state;
    refused->push = numio_deadline_push(&deadline, 1);
    refused->pop = numio_deadline_pop(&deadline);
    refused->end = numio_deadline_end(&deadline);
    refused->within = numio_within(late_ns, ++refused->calls);
    refused->left = numio_deadline_left();
    return NUMIO_READY;
}

Test(deadline, inside_of_a_poll_it_is_refused, .timeout = 30)
{
    struct refused refused = { 0 };
    struct numio_future future = { .poll = scope_in_poll, .output_size = sizeof refused };
    struct numio_join *join;
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(numio_spawn(numio_runtime_handle(runtime), &future, NULL, &join), 0);
    cr_assert_eq(numio_join_await_output(&join, &refused, sizeof refused), 0);
    cr_assert_eq(refused.push, -EINVAL);
    cr_assert_eq(refused.pop, -EINVAL);
    cr_assert_eq(refused.end, -EINVAL);
    cr_assert_eq(refused.within, -EINVAL);
    cr_assert_eq(refused.calls, 0);
    cr_assert_eq(refused.left, INT64_MAX);
    numio_runtime_destroy(runtime);
}

Test(deadline, scopes_of_a_plain_thread_limit_its_waits, .timeout = 30)
{
    struct numio_semaphore none = NUMIO_SEMAPHORE_INIT(0);
    struct numio_deadline outer, inner;
    uint64_t began_ns = nio_now_ns();
    cr_assert_eq(numio_deadline_left(), INT64_MAX);
    cr_assert_eq(numio_deadline_push(&outer, SOON_NS), 0);
    cr_assert_eq(numio_deadline_push(&inner, late_ns), 0); /* never outlasts its outer */
    cr_assert_leq(numio_deadline_left(), SOON_NS);
    cr_assert_eq(numio_deadline_pop(&outer), -EINVAL);
    cr_assert_eq(numio_semaphore_acquire(&none, 1), -ETIMEDOUT);
    cr_assert_geq(nio_now_ns() - began_ns, SOON_NS);
    cr_assert_eq(numio_deadline_left(), 0);
    cr_assert_eq(numio_semaphore_acquire(&none, 1), -ETIMEDOUT);
    cr_assert_eq(numio_deadline_pop(&inner), -ETIMEDOUT);
    cr_assert_eq(numio_deadline_pop(&outer), -ETIMEDOUT);
    cr_assert_eq(numio_deadline_pop(&outer), -EINVAL);
    cr_assert_eq(numio_deadline_pop(NULL), -EINVAL);
    cr_assert_eq(numio_deadline_push(&outer, 0), 0);
    cr_assert_eq(numio_deadline_end(&outer), 0);
    cr_assert_eq(numio_deadline_end(&outer), -EINVAL);
    cr_assert_eq(numio_deadline_left(), INT64_MAX);
    cr_assert_null(none._waits._first);
}

static int64_t forget(void *arg)
{
    static struct numio_deadline deadline;
    (void)arg;
    return numio_deadline_push(&deadline, late_ns);
}

static int forget_in_child(void)
{
    struct numio_runtime *runtime = NULL;
    FIXTURE_CHILD_CHECK(numio_runtime_create(NULL, &runtime) == 0);
    return (int)numio_block_on(numio_runtime_handle(runtime), forget, NULL);
}

Test(deadline, a_forgotten_pop_ends_the_process_and_names_the_spawn, .timeout = 30)
{
    static struct fixture_ending ending;
    fixture_in_child(forget_in_child, &ending);
    cr_assert(WIFSIGNALED(ending.status) && WTERMSIG(ending.status) == SIGABRT,
              "wait status 0x%x: %s", (unsigned)ending.status, ending.output);
    cr_assert(strstr(ending.output, "numio_deadline_pop()"), "%s", ending.output);
    cr_assert(strstr(ending.output, "test_deadline.c:"), "%s", ending.output);
}

static int64_t need_no_memory(void *arg)
{
    struct numio_deadline outer, inner;
    int *ends = arg;
    char byte;
    nio_fault_arm(1);
    EXPECT(numio_deadline_push(&outer, late_ns) == 0);
    EXPECT(numio_deadline_push(&inner, SOON_NS) == 0);
    EXPECT(numio_read(ends[0], &byte, 1) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&inner) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&outer) == 0);
    bool has_struck = nio_fault_struck();
    nio_fault_arm(0);
    return has_struck ? __LINE__ : 0;
}

Test(deadline, nothing_is_allocated, .timeout = 30)
{
    int ends[2];
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    struct numio_runtime *runtime = fixture_create(&config);
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_assert_eq(run(runtime, need_no_memory, ends), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
    (void)close(ends[0]);
    (void)close(ends[1]);
}
