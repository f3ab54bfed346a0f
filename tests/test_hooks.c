/* SPDX-License-Identifier: MIT */
/* Promises of struct numio_hooks: which hook is called when, how often, and with what. */
#include "tests/runtime_fixture.h"

#include <pthread.h>
#include <stdio.h>

#include "runtime/base/compiler.h"

enum { EVENTS_MAX = 4096, YIELDERS = 3, YIELDS = 300 };

enum event_kind { SPAWNED = 1, BEFORE, AFTER, ENDED, STARTED, STOPPED, PARKED, UNPARKED };

struct event {
    enum event_kind kind;
    struct numio_task_meta task; /* of task hooks */
    unsigned worker;             /* of thread hooks */
    pthread_t thread;
};

static struct log {
    pthread_mutex_t lock;
    unsigned count;
    struct event events[EVENTS_MAX];
} log_of_all = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void note(void *arg, struct event event)
{
    struct log *log = arg;
    event.thread = pthread_self();
    (void)pthread_mutex_lock(&log->lock); /* initialised, not recursive */
    if (log->count < EVENTS_MAX)
        log->events[log->count++] = event;
    (void)pthread_mutex_unlock(&log->lock);
}

static void on_task_spawn(const struct numio_task_meta *task, void *arg)
{
    note(arg, (struct event){ .kind = SPAWNED, .task = *task });
}

static void before_poll(const struct numio_task_meta *task, void *arg)
{
    note(arg, (struct event){ .kind = BEFORE, .task = *task });
}

static void after_poll(const struct numio_task_meta *task, void *arg)
{
    note(arg, (struct event){ .kind = AFTER, .task = *task });
}

static void on_task_terminate(const struct numio_task_meta *task, void *arg)
{
    note(arg, (struct event){ .kind = ENDED, .task = *task });
}

static void on_thread_start(unsigned worker, void *arg)
{
    note(arg, (struct event){ .kind = STARTED, .worker = worker });
}

static void on_thread_stop(unsigned worker, void *arg)
{
    note(arg, (struct event){ .kind = STOPPED, .worker = worker });
}

static void on_thread_park(unsigned worker, void *arg)
{
    note(arg, (struct event){ .kind = PARKED, .worker = worker });
}

static void on_thread_unpark(unsigned worker, void *arg)
{
    note(arg, (struct event){ .kind = UNPARKED, .worker = worker });
}

static struct numio_runtime *start_hooked(unsigned workers)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, workers);
    config.idle = NUMIO_IDLE_PARK;
    config.hooks = (struct numio_hooks){ .on_task_spawn = on_task_spawn,
                                         .before_poll = before_poll,
                                         .after_poll = after_poll,
                                         .on_task_terminate = on_task_terminate,
                                         .on_thread_start = on_thread_start,
                                         .on_thread_stop = on_thread_stop,
                                         .on_thread_park = on_thread_park,
                                         .on_thread_unpark = on_thread_unpark,
                                         .arg = &log_of_all };
    return fixture_create(&config);
}

/* What the log says about one task. */
struct story {
    unsigned spawned, before, after, ended;
    unsigned wrong; /* events in an impossible order, or that disagree about the task */
};

static void tell(struct story *story, const struct event *event)
{
    switch (event->kind) {
    case SPAWNED:
        story->wrong += story->spawned || story->before || story->ended;
        story->spawned++;
        break;
    case BEFORE:
        story->wrong += !story->spawned || story->before != story->after || story->ended;
        story->before++;
        break;
    case AFTER:
        story->after++;
        story->wrong += story->before != story->after;
        break;
    case ENDED:
        story->wrong += !story->spawned || story->ended;
        story->ended++;
        break;
    default:
        break;
    }
}

static struct story story_of(const struct numio_task_meta *task)
{
    struct story story = { 0 };
    for (unsigned i = 0; i < log_of_all.count; i++) {
        const struct event *event = &log_of_all.events[i];
        if (event->kind > ENDED || event->task.id != task->id)
            continue;
        story.wrong += event->task.line != task->line || event->task.node != task->node ||
                       event->task.name != task->name || event->task.file != task->file;
        tell(&story, event);
    }
    return story;
}

static unsigned count_kind(enum event_kind kind, unsigned worker)
{
    unsigned count = 0;
    for (unsigned i = 0; i < log_of_all.count; i++)
        count += log_of_all.events[i].kind == kind && log_of_all.events[i].worker == worker;
    return count;
}

static int64_t yield_twice(void *arg)
{
    (void)arg;
    if (numio_yield_now() < 0 || numio_yield_now() < 0)
        return -ECANCELED;
    return 0;
}

static int64_t echo(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

static enum numio_poll twice(void *state, struct numio_context *cx)
{
    uint32_t *polls = state;
    if (++*polls == 2)
        return NUMIO_READY;
    numio_context_yield(cx);
    return NUMIO_PENDING;
}

static void expect_story(const struct numio_task_meta *task, unsigned polls)
{
    struct story story = story_of(task);
    cr_assert_eq(story.spawned, 1);
    cr_assert_eq(story.before, polls, "%u polls instead of %u", story.before, polls);
    cr_assert_eq(story.after, polls);
    cr_assert_eq(story.ended, 1);
    cr_assert_eq(story.wrong, 0);
}

Test(hooks, a_coroutine_is_spawned_polled_and_ended_in_this_order, .timeout = 10)
{
    struct numio_runtime *runtime = start_hooked(2);
    struct numio_spawn_opts opts;
    struct numio_join *join;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.name = "hooked";
    int line = __LINE__ + 1;
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), yield_twice, NULL, &opts, &join), 0);
    struct numio_task_meta meta = numio_join_meta(join);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    numio_runtime_destroy(runtime);
    cr_assert_str_eq(meta.name, "hooked");
    cr_assert_eq(meta.line, line);
    cr_assert(strstr(meta.file, "test_hooks.c"));
    expect_story(&meta, 3);
}

Test(hooks, a_future_is_told_like_a_coroutine, .timeout = 10)
{
    struct numio_runtime *runtime = start_hooked(2);
    struct numio_future future = { .poll = twice, .size = sizeof(uint32_t) };
    struct numio_join *joins[3];
    struct numio_future futures[2] = { future, future };
    struct numio_task_meta metas[3];
    struct numio_handle *handle = numio_runtime_handle(runtime);
    cr_assert_eq(numio_spawn(handle, &future, NULL, &joins[0]), 0);
    cr_assert_eq(numio_spawn_batch(handle, futures, 2, NULL, joins + 1), 0);
    for (unsigned i = 0; i < 3; i++) {
        metas[i] = numio_join_meta(joins[i]);
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    }
    numio_runtime_destroy(runtime);
    for (unsigned i = 0; i < 3; i++)
        expect_story(&metas[i], 2);
}

Test(hooks, a_blocking_function_counts_as_one_poll, .timeout = 10)
{
    struct numio_runtime *runtime = start_hooked(1);
    struct numio_join *join;
    cr_assert_eq(numio_spawn_blocking(numio_runtime_handle(runtime), echo, NULL, NULL, &join), 0);
    struct numio_task_meta meta = numio_join_meta(join);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    numio_runtime_destroy(runtime);
    expect_story(&meta, 1);
}

static int64_t yield_often(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < YIELDS; i++) {
        int rc = numio_yield_now();
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Two workers that spin take the few tasks from each other at every yield. */
Test(hooks, a_poll_has_ended_before_the_next_begins_elsewhere, .timeout = 30)
{
    for (unsigned round = 0; round < 20; round++) {
        struct numio_runtime *runtime = start_hooked(2);
        struct numio_task_meta metas[YIELDERS];
        struct numio_join *joins[YIELDERS];
        for (unsigned i = 0; i < YIELDERS; i++) {
            cr_assert_eq(
                numio_spawn_co(numio_runtime_handle(runtime), yield_often, NULL, NULL, &joins[i]),
                0);
            metas[i] = numio_join_meta(joins[i]);
        }
        for (unsigned i = 0; i < YIELDERS; i++)
            cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
        numio_runtime_destroy(runtime);
        for (unsigned i = 0; i < YIELDERS; i++)
            expect_story(&metas[i], YIELDS + 1);
        log_of_all.count = 0;
    }
}

Test(hooks, an_aborted_task_ends_once_too, .timeout = 10)
{
    struct numio_runtime *runtime = start_hooked(2);
    static struct numio_task_meta metas[50];
    for (unsigned i = 0; i < NIO_ARRAY_LEN(metas); i++) {
        struct numio_join *join;
        cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), yield_twice, NULL, NULL, &join),
                     0);
        metas[i] = numio_join_meta(join);
        numio_join_abort(join);
        cr_assert_leq(numio_join_wait(&join, -1), 0);
    }
    numio_runtime_destroy(runtime);
    for (unsigned i = 0; i < NIO_ARRAY_LEN(metas); i++) {
        struct story story = story_of(&metas[i]);
        cr_assert_eq(story.spawned, 1);
        cr_assert_eq(story.ended, 1);
        cr_assert_eq(story.wrong, 0);
        cr_assert_leq(story.before, 4);
    }
}

Test(hooks, a_refused_spawn_calls_none_or_both_ends, .timeout = 10)
{
    struct numio_runtime *runtime = start_hooked(1);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    struct numio_join *join;
    cr_assert_eq(numio_spawn_co(handle, echo, NULL, NULL, &join), -ESHUTDOWN);
    cr_assert_eq(numio_spawn_blocking(handle, echo, NULL, NULL, &join), -ESHUTDOWN);
    numio_runtime_destroy(runtime);
    cr_assert_eq(count_kind(SPAWNED, 0), count_kind(ENDED, 0));
}

static bool all_have_parked(void *arg)
{
    struct numio_worker_metrics metrics;
    for (unsigned i = 0; numio_worker_metrics(arg, i, &metrics) == 0; i++)
        if (metrics.parks == 0)
            return false;
    return true;
}

Test(hooks, each_worker_thread_starts_and_stops_once, .timeout = 20)
{
    struct numio_runtime *runtime = start_hooked(2);
    for (unsigned i = 0; i < 20; i++)
        cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), yield_twice, NULL), 0);
    cr_assert(fixture_until(all_have_parked, numio_runtime_handle(runtime)));
    numio_runtime_destroy(runtime);
    for (unsigned worker = 0; worker < 2; worker++) {
        cr_assert_eq(count_kind(STARTED, worker), 1);
        cr_assert_eq(count_kind(STOPPED, worker), 1);
        cr_assert_gt(count_kind(PARKED, worker), 0);
        cr_assert_eq(count_kind(PARKED, worker), count_kind(UNPARKED, worker));
    }
}

/* The thread events of one worker: start, then park and unpark in turns, then stop; no poll while
 * it is parked, and all on one thread. */
static unsigned wrong_thread_events(unsigned worker)
{
    unsigned wrong = 0;
    bool is_parked = false;
    bool is_up = false;
    pthread_t thread = 0;
    for (unsigned i = 0; i < log_of_all.count; i++) {
        const struct event *event = &log_of_all.events[i];
        bool is_mine = event->kind >= STARTED && event->worker == worker;
        if (is_mine && event->kind == STARTED) {
            wrong += is_up;
            is_up = true;
            thread = event->thread;
        }
        if (!is_up || !pthread_equal(thread, event->thread))
            continue;
        wrong += event->kind >= STARTED && !is_mine;
        wrong += is_parked && event->kind != UNPARKED;
        if (event->kind == PARKED || event->kind == UNPARKED)
            is_parked = event->kind == PARKED;
        if (event->kind == STOPPED)
            is_up = false;
    }
    return wrong + is_up;
}

Test(hooks, thread_hooks_come_in_order_on_the_threads_they_are_named_for, .timeout = 10)
{
    struct numio_runtime *runtime = start_hooked(2);
    for (unsigned i = 0; i < 50; i++)
        cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), yield_twice, NULL), 0);
    numio_runtime_destroy(runtime);
    cr_assert_lt(log_of_all.count, EVENTS_MAX, "the log is too short for this test");
    cr_assert_eq(wrong_thread_events(0), 0);
    cr_assert_eq(wrong_thread_events(1), 0);
}

Test(hooks, each_may_be_missing, .timeout = 10)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 2);
    config.hooks.arg = &log_of_all;
    config.hooks.after_poll = after_poll;
    struct numio_runtime *runtime = fixture_create(&config);
    cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), yield_twice, NULL), 0);
    struct numio_join *join;
    cr_assert_eq(numio_spawn_blocking(numio_runtime_handle(runtime), echo, NULL, NULL, &join), 0);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    numio_runtime_destroy(runtime);
    cr_assert_eq(log_of_all.count, 4);
}
