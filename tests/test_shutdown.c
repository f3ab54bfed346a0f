/* SPDX-License-Identifier: MIT */
/* Promises of the end of a runtime: graceful, with a timeout and a list, in the background, and
 * whatever the tasks are doing at that moment. */
#include "tests/runtime_fixture.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "runtime/base/compiler.h"

static const uint64_t for_ever_ns = 3600000000000ull;
static const int64_t soon_ns = 50000000;

enum { MANY = 300, LIST = 16 };

static int64_t sleep_for_ever(void *arg)
{
    if (arg)
        fixture_set(arg, 1);
    return numio_sleep_ns(for_ever_ns);
}

struct spin {
    _Atomic uint32_t started, gate;
};

/* Runs, without suspending, until the gate is set. */
static int64_t spin_until_set(void *arg)
{
    struct spin *spin = arg;
    fixture_set(&spin->started, 1);
    while (fixture_get(&spin->gate) == 0)
        (void)sched_yield(); /* lets others run */
    return 5;
}

static _Atomic uint32_t drops;

static void count_drop(void *state)
{
    (void)state;
    /* relaxed: read after the runtime has ended */
    (void)atomic_fetch_add_explicit(&drops, 1, memory_order_relaxed);
}

static enum numio_poll never_ready(void *state, struct numio_context *cx)
{
    (void)state;
    (void)cx;
    return NUMIO_PENDING;
}

static struct numio_join *spawn_named(struct numio_runtime *runtime, int64_t (*fn)(void *arg),
                                      void *arg, const char *name)
{
    struct numio_spawn_opts opts;
    struct numio_join *join = NULL;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.name = name;
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), fn, arg, &opts, &join), 0);
    return join;
}

Test(shutdown, an_idle_runtime_ends_at_once_and_twice, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    size_t count = 77;
    cr_assert_eq(numio_runtime_shutdown(runtime, 5000000000, NULL, 0, &count), 0);
    cr_assert_eq(count, 0);
    cr_assert_eq(numio_runtime_shutdown(runtime, 0, NULL, 0, NULL), 0);
    numio_runtime_destroy(runtime);
}

/* ---- whatever the tasks are doing --------------------------------------------------------- */

static int64_t copy_for_ever(void *arg)
{
    char buffer[4096];
    int fd = (int)(intptr_t)arg;
    int64_t result;
    while ((result = numio_pread(fd, buffer, sizeof buffer, 0)) > 0)
        continue;
    return result;
}

static int64_t read_for_ever(void *arg)
{
    uint64_t value;
    return numio_read((int)(intptr_t)arg, &value, sizeof value);
}

static int64_t yield_for_ever(void *arg)
{
    (void)arg;
    for (;;) /* until it is aborted */
        if (numio_yield_now() < 0)
            return -ECANCELED;
}

static int64_t child_of(void *arg)
{
    struct numio_join *join;
    int rc = numio_spawn_co(NULL, arg, NULL, NULL, &join);
    if (rc < 0)
        return rc;
    int64_t result = numio_join_await(&join);
    numio_join_detach(&join);
    return result;
}

static int64_t set_and_return(void *arg)
{
    fixture_set(arg, 1);
    return 3;
}

static int64_t block_in_place_once(void *arg)
{
    return numio_block_in_place(spin_until_set, arg);
}

FIXTURE_EACH(shutdown, every_kind_of_wait_ends_and_is_accounted_for, .timeout = 20)
{
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_future future = { .poll = never_ready, .drop = count_drop, .size = 100 };
    struct numio_future futures[2] = { future, future };
    static struct numio_join *joins[6 * MANY];
    unsigned count = 0;
    int event = eventfd(0, EFD_CLOEXEC);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    cr_assert(event >= 0 && file >= 0);
    for (unsigned i = 0; i < MANY; i++) {
        joins[count++] = spawn_named(runtime, sleep_for_ever, NULL, "sleeper");
        joins[count++] = spawn_named(runtime, read_for_ever, (void *)(intptr_t)event, "reader");
        joins[count++] = spawn_named(runtime, yield_for_ever, NULL, "yielder");
        joins[count++] = spawn_named(runtime, copy_for_ever, (void *)(intptr_t)file, "copier");
        joins[count++] = spawn_named(runtime, child_of, (void *)yield_for_ever, "parent");
        cr_assert_eq(numio_spawn(handle, &future, NULL, &joins[count++]), 0);
        cr_assert_eq(numio_spawn_batch(handle, futures, 2, NULL, NULL), 0);
    }
    cr_assert_geq(numio_live_tasks(handle), count);
    cr_assert_eq(numio_runtime_shutdown(runtime, 15000000000, NULL, 0, NULL), 0);
    cr_assert_eq(numio_live_tasks(handle), 0);
    for (unsigned i = 0; i < count; i++) {
        int64_t result = numio_join_try(&joins[i]);
        cr_assert(result == -ECANCELED || result == -ESHUTDOWN, "task %u: %ld", i, (long)result);
    }
    cr_assert_eq(fixture_get(&drops), 3 * MANY);
    (void)close(event);
    (void)close(file);
}

static int64_t open_and_close(void *arg)
{
    _Atomic uint32_t *word = arg;
    int fd = (int)numio_open("/proc/self/exe", O_RDONLY | O_CLOEXEC, 0);
    fixture_set(word, 1);
    (void)numio_sleep_ns(for_ever_ns); /* until the shutdown */
    return fd < 0 ? fd : numio_close(fd);
}

FIXTURE_EACH(shutdown, a_task_closes_its_descriptor_while_the_runtime_ends, .timeout = 20)
{
    unsigned fds = fixture_count_fds();
    static struct numio_join *joins[50];
    static _Atomic uint32_t words[50];
    for (unsigned i = 0; i < NIO_ARRAY_LEN(joins); i++)
        joins[i] = spawn_named(runtime, open_and_close, &words[i], "closer");
    for (unsigned i = 0; i < NIO_ARRAY_LEN(joins); i++)
        cr_assert(fixture_wait(&words[i], 1));
    cr_assert_eq(fixture_count_fds(), fds + NIO_ARRAY_LEN(joins));
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    for (unsigned i = 0; i < NIO_ARRAY_LEN(joins); i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    cr_assert_eq(fixture_count_fds(), fds);
}

Test(shutdown, a_running_task_is_waited_for, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    static struct spin spin;
    struct numio_join *join = spawn_named(runtime, spin_until_set, &spin, "spinner");
    cr_assert(fixture_wait(&spin.started, 1));
    cr_assert_eq(numio_runtime_shutdown(runtime, soon_ns, NULL, 0, NULL), -ETIMEDOUT);
    fixture_set(&spin.gate, 1);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    int64_t result = numio_join_try(&join);
    cr_assert(result == 5 || result == -ECANCELED, "%ld", (long)result);
    numio_runtime_destroy(runtime);
}

Test(shutdown, queued_blocking_functions_never_run_and_running_ones_end, .timeout = 10)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 2);
    config.blocking_threads = 1;
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    static struct spin spin;
    static _Atomic uint32_t ran;
    struct numio_join *running;
    struct numio_join *queued;
    cr_assert_eq(numio_spawn_blocking(handle, spin_until_set, &spin, NULL, &running), 0);
    cr_assert(fixture_wait(&spin.started, 1));
    cr_assert_eq(numio_spawn_blocking(handle, set_and_return, &ran, NULL, &queued), 0);
    size_t count = 0;
    cr_assert_eq(numio_runtime_shutdown(runtime, soon_ns, NULL, 0, &count), -ETIMEDOUT);
    cr_assert_eq(count, 1);
    fixture_set(&spin.gate, 1);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    cr_assert_eq(numio_join_try(&running), 5);
    cr_assert_eq(numio_join_try(&queued), -ECANCELED);
    cr_assert_eq(fixture_get(&ran), 0);
    numio_runtime_destroy(runtime);
}

Test(shutdown, a_coroutine_in_block_in_place_is_waited_for, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    static struct spin spin;
    struct numio_join *join = spawn_named(runtime, block_in_place_once, &spin, "outside");
    cr_assert(fixture_wait(&spin.started, 1));
    cr_assert_eq(numio_runtime_shutdown(runtime, soon_ns, NULL, 0, NULL), -ETIMEDOUT);
    fixture_set(&spin.gate, 1);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    cr_assert_eq(numio_join_try(&join), 5, "what was called is not cut off");
    numio_runtime_destroy(runtime);
}

/* ---- the list ----------------------------------------------------------------------------- */

static const struct numio_straggler *find(const struct numio_straggler *list, size_t count,
                                          const char *name)
{
    for (size_t i = 0; i < count && i < LIST; i++)
        if (list[i].task.name && strcmp(list[i].task.name, name) == 0)
            return &list[i];
    return NULL;
}

Test(shutdown, a_timeout_lists_who_has_not_ended_and_why, .timeout = 20)
{
    struct numio_runtime *runtime = fixture_start(2);
    static struct spin here;
    static struct spin pool;
    struct numio_straggler list[LIST];
    size_t count = 0;
    int line = __LINE__ + 1;
    struct numio_join *in_pool = spawn_named(runtime, block_in_place_once, &pool, "stubborn");
    struct numio_join *running = spawn_named(runtime, spin_until_set, &here, "spinner");
    int spawn_line = numio_join_meta(in_pool).line;
    cr_assert_lt(spawn_line, line, "the spawn stands in the helper above");
    cr_assert(fixture_wait(&pool.started, 1) && fixture_wait(&here.started, 1));
    cr_assert_eq(numio_runtime_shutdown(runtime, soon_ns, list, LIST, &count), -ETIMEDOUT);
    cr_assert(strstr(numio_strerror_detail(), "3 tasks"), "%s", numio_strerror_detail());
    cr_assert_eq(count, 3);
    const struct numio_straggler *spinner = find(list, count, "spinner");
    const struct numio_straggler *waiter = find(list, count, "stubborn");
    cr_assert_not_null(spinner);
    cr_assert_not_null(waiter);
    cr_assert_str_eq(spinner->waits_for, "running");
    cr_assert_str_eq(waiter->waits_for, "a join");
    cr_assert(strstr(spinner->task.file, "test_shutdown.c"));
    cr_assert_eq(spinner->task.line, spawn_line);
    cr_assert_eq(numio_runtime_shutdown(runtime, 0, list, 1, &count), -ETIMEDOUT);
    cr_assert_eq(count, 3, "the count goes on beyond the capacity");
    cr_assert_eq(numio_runtime_shutdown(runtime, 0, NULL, 0, &count), -ETIMEDOUT);
    fixture_set(&here.gate, 1);
    fixture_set(&pool.gate, 1);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, &count), 0);
    cr_assert_eq(count, 0);
    cr_assert_eq(numio_join_try(&in_pool), 5);
    numio_join_detach(&running);
    numio_runtime_destroy(runtime);
}

static int64_t spawn_spinner(void *arg)
{
    struct numio_spawn_opts opts;
    struct numio_join *join;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.name = "inner";
    int rc = numio_spawn_co(NULL, spin_until_set, arg, &opts, &join);
    if (rc < 0)
        return rc;
    numio_join_detach(&join);
    return 0;
}

Test(shutdown, a_task_of_a_stuck_worker_is_named_too, .timeout = 20)
{
    struct numio_runtime *runtime = fixture_start(1);
    static struct spin spin;
    struct numio_straggler list[LIST];
    size_t count = 0;
    cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), spawn_spinner, &spin), 0);
    cr_assert(fixture_wait(&spin.started, 1));
    cr_assert_eq(numio_runtime_shutdown(runtime, soon_ns, list, LIST, &count), -ETIMEDOUT);
    fixture_set(&spin.gate, 1);
    cr_assert_eq(count, 1);
    cr_assert_not_null(find(list, count, "inner"));
    cr_assert_str_eq(find(list, count, "inner")->waits_for, "running");
    numio_runtime_destroy(runtime);
}

/* ---- from the wrong place, from many places ----------------------------------------------- */

static int64_t shut_down_from_here(void *arg)
{
    return numio_runtime_shutdown(arg, -1, NULL, 0, NULL);
}

static enum numio_poll shut_down_in_poll(void *state, struct numio_context *cx)
{
    int rc = numio_runtime_shutdown(*(struct numio_runtime **)state, -1, NULL, 0, NULL);
    memcpy(numio_context_output(cx), &rc, sizeof rc);
    return NUMIO_READY;
}

Test(shutdown, on_the_runtimes_own_threads_it_is_refused, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_future future = {
        .poll = shut_down_in_poll, .state = &runtime, .size = sizeof runtime, .output_size = 4
    };
    struct numio_join *join;
    int rc = 0;
    cr_assert_eq(numio_block_on(handle, shut_down_from_here, runtime), -EDEADLK);
    cr_assert_eq(numio_spawn(handle, &future, NULL, &join), 0);
    cr_assert_eq(numio_join_await_output(&join, &rc, sizeof rc), 0);
    cr_assert_eq(rc, -EDEADLK);
    cr_assert_eq(numio_spawn_blocking(handle, shut_down_from_here, runtime, NULL, &join), 0);
    cr_assert_eq(numio_join_wait(&join, -1), -EDEADLK);
    cr_assert_eq(numio_spawn_co(handle, sleep_for_ever, NULL, NULL, NULL), 0, "it still runs");
    numio_runtime_destroy(runtime);
}

static void *shut_down_in_thread(void *arg)
{
    return (void *)(intptr_t)numio_runtime_shutdown(arg, -1, NULL, 0, NULL);
}

Test(shutdown, several_threads_may_call_it, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    pthread_t threads[4];
    for (unsigned i = 0; i < MANY; i++)
        numio_join_detach(&(struct numio_join *){ spawn_named(runtime, sleep_for_ever, NULL, "") });
    for (unsigned i = 0; i < NIO_ARRAY_LEN(threads); i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, shut_down_in_thread, runtime), 0);
    for (unsigned i = 0; i < NIO_ARRAY_LEN(threads); i++) {
        void *rc;
        cr_assert_eq(pthread_join(threads[i], &rc), 0);
        cr_assert_null(rc);
    }
    numio_runtime_destroy(runtime);
}

/* ---- in the background -------------------------------------------------------------------- */

/* What stood in /proc/self before a runtime was started. */
struct footprint {
    unsigned fds, threads;
};

static struct footprint footprint_now(void)
{
    return (struct footprint){ fixture_count_fds(), fixture_count_threads() };
}

/* The rings are closed, and the thread that ends the runtime in the background, which frees its
 * memory last, has ended itself. */
static bool has_gone(void *arg)
{
    const struct footprint *before = arg;
    struct footprint now = footprint_now();
    return now.fds == before->fds && now.threads == before->threads;
}

Test(shutdown, in_the_background_everything_goes, .timeout = 10)
{
    struct footprint before = footprint_now();
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_handle_ref(numio_runtime_handle(runtime));
    struct numio_join *join = spawn_named(runtime, sleep_for_ever, NULL, "sleeper");
    cr_assert_eq(numio_runtime_shutdown_background(runtime), 0);
    cr_assert_eq(numio_spawn_co(handle, sleep_for_ever, NULL, NULL, NULL), -ESHUTDOWN);
    cr_assert_eq(numio_join_wait(&join, -1), -ECANCELED);
    cr_assert(fixture_until(has_gone, &before), "its rings or threads are still there");
    numio_handle_unref(handle);
}

static int64_t begin_the_end(void *arg)
{
    int rc = numio_runtime_shutdown_background(arg);
    if (rc < 0)
        return rc;
    return numio_sleep_ns(for_ever_ns) == -ECANCELED ? 4 : 0;
}

Test(shutdown, a_task_may_end_its_own_runtime_in_the_background, .timeout = 10)
{
    struct footprint before = footprint_now();
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_join *join = spawn_named(runtime, begin_the_end, runtime, "ender");
    cr_assert_eq(numio_join_wait(&join, -1), 4);
    cr_assert(fixture_until(has_gone, &before), "its rings or threads are still there");
}

/* ---- races -------------------------------------------------------------------------------- */

static void *spawn_in_thread(void *arg)
{
    struct numio_handle *handle = arg;
    intptr_t wrong = 0;
    int rc = 0;
    while (rc == 0) { /* until the runtime ends */
        struct numio_join *join;
        rc = numio_spawn_co(handle, yield_for_ever, NULL, NULL, &join);
        if (rc < 0)
            break;
        numio_join_abort(join);
        wrong += numio_join_wait(&join, -1) != -ECANCELED;
    }
    numio_handle_unref(handle);
    return (void *)(rc == -ESHUTDOWN ? wrong : -1);
}

Test(shutdown, it_may_race_with_spawns_aborts_and_joins, .timeout = 20)
{
    for (unsigned i = 0; i < 50; i++) {
        struct numio_runtime *runtime = fixture_start(2);
        struct numio_handle *handle = numio_runtime_handle(runtime);
        pthread_t threads[3];
        for (unsigned k = 0; k < NIO_ARRAY_LEN(threads); k++)
            cr_assert_eq(
                pthread_create(&threads[k], NULL, spawn_in_thread, numio_handle_ref(handle)), 0);
        for (unsigned k = 0; k < i % 10; k++)
            cr_assert_eq(numio_block_on(handle, set_and_return, &drops), 3);
        numio_runtime_destroy(runtime);
        for (unsigned k = 0; k < NIO_ARRAY_LEN(threads); k++) {
            void *wrong;
            cr_assert_eq(pthread_join(threads[k], &wrong), 0);
            cr_assert_null(wrong);
        }
    }
}

/* ---- what is left -------------------------------------------------------------------------- */

static struct left {
    pthread_mutex_t lock;
    unsigned count, wrong;
    bool has_sleeper, has_future;
} left = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void note_left(const struct numio_straggler *task, void *arg)
{
    (void)pthread_mutex_lock(&left.lock); /* initialised, not recursive */
    left.count++;
    left.wrong += arg != &left || !task->task.file || !strstr(task->task.file, "test_shutdown.c") ||
                  task->task.line == 0 || !task->task.name;
    if (task->task.name && strcmp(task->task.name, "sleeper") == 0)
        left.has_sleeper = strcmp(task->waits_for, "an operation") == 0;
    if (task->task.name && strcmp(task->task.name, "future") == 0)
        left.has_future = strcmp(task->waits_for, "a wake") == 0;
    (void)pthread_mutex_unlock(&left.lock); /* held */
}

static int64_t scope_of_sleepers(void *arg)
{
    struct numio_scope scope;
    int64_t rc = numio_scope_open(&scope, 0);
    for (int i = 0; i < 4 && rc == 0; i++)
        rc = numio_scope_spawn_co(&scope, sleep_for_ever, NULL, NULL);
    fixture_set(arg, 1);
    (void)rc; /* whoever waits for the word would notice */
    return numio_scope_close(&scope);
}

Test(shutdown, detached_tasks_are_named_if_asked, .timeout = 20)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 2);
    config.hooks.on_task_left = note_left;
    config.hooks.arg = &left;
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    _Atomic uint32_t sleeps = 0, has_children = 0;
    struct numio_future future = { .poll = never_ready };
    struct numio_spawn_opts opts;
    struct numio_join *joined = spawn_named(runtime, scope_of_sleepers, &has_children, "joined");
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.name = "sleeper";
    cr_assert_eq(numio_spawn_co(handle, sleep_for_ever, &sleeps, &opts, NULL), 0);
    opts.name = "future";
    cr_assert_eq(numio_spawn(handle, &future, &opts, NULL), 0);
    cr_assert(fixture_wait(&sleeps, 1) && fixture_wait(&has_children, 1));
    cr_assert(fixture_until(fixture_others_sleep, NULL));
    numio_runtime_destroy(runtime);
    cr_assert_eq(numio_join_wait(&joined, -1), -ECANCELED);
    cr_assert_eq(left.count, 2u);
    cr_assert_eq(left.wrong, 0u);
    cr_assert(left.has_sleeper && left.has_future);
}
