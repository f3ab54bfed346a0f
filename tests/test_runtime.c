/* SPDX-License-Identifier: MIT */
/* Promises of numio/runtime.h: life, handles, what a runtime says about itself, accounting. */
#include "tests/runtime_fixture.h"

#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "alloc/slab.h"
#include "runtime/base/compiler.h"

enum { TASKS = 2000, RUNTIMES = 4, NOBODY = 65534 };

static int64_t answer(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

Test(runtime, create_runs_a_coroutine_and_destroy_ends_it, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(0);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    cr_assert_eq(numio_block_on(handle, answer, (void *)42), 42);
    numio_runtime_destroy(runtime);
    numio_runtime_destroy(NULL);
}

Test(runtime, main_creates_runs_and_destroys, .timeout = 10)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    unsigned fds = fixture_count_fds();
    cr_assert_eq(numio_main(&config, answer, (void *)7), 7);
    cr_assert_eq(fixture_count_fds(), fds);
}

static int main_says_why_it_cannot_start(void)
{
    struct numio_config config;
    if (numio_config_init(&config, sizeof config) < 0)
        return 1;
    config.ring_entries = 7;
    return numio_main(&config, answer, NULL) == -EINVAL ? 0 : 1;
}

Test(runtime, main_prints_why_it_cannot_start, .timeout = 10)
{
    static struct fixture_ending ending;
    fixture_in_child(main_says_why_it_cannot_start, &ending);
    cr_assert_eq(ending.status, 0);
    cr_assert(strstr(ending.output, "ring_entries"), "it printed: %s", ending.output);
}

Test(runtime, several_runtimes_live_side_by_side, .timeout = 20)
{
    struct numio_runtime *runtimes[RUNTIMES];
    for (unsigned i = 0; i < RUNTIMES; i++)
        runtimes[i] = fixture_start(2);
    for (unsigned i = 0; i < RUNTIMES; i++)
        cr_assert_eq(numio_block_on(numio_runtime_handle(runtimes[i]), answer, (void *)(intptr_t)i),
                     i);
    for (unsigned i = 0; i < RUNTIMES; i += 2) /* in another order than they were made */
        numio_runtime_destroy(runtimes[i]);
    for (unsigned i = 1; i < RUNTIMES; i += 2) {
        cr_assert_eq(numio_block_on(numio_runtime_handle(runtimes[i]), answer, (void *)1), 1);
        numio_runtime_destroy(runtimes[i]);
    }
}

/* A task of one runtime waits for a task of another. */
static int64_t join_over_there(void *arg)
{
    struct numio_join *join;
    int rc = numio_spawn_co(arg, answer, (void *)9, NULL, &join);
    return rc < 0 ? rc : numio_join_await(&join);
}

Test(runtime, a_task_can_await_one_of_another_runtime, .timeout = 10)
{
    struct numio_runtime *here = fixture_start(1);
    struct numio_runtime *there = fixture_start(1);
    for (unsigned i = 0; i < 200; i++)
        cr_assert_eq(numio_block_on(numio_runtime_handle(here), join_over_there,
                                    numio_runtime_handle(there)),
                     9);
    numio_runtime_destroy(there);
    numio_runtime_destroy(here);
}

Test(runtime, create_and_destroy_leave_no_descriptor_and_no_thread, .timeout = 20)
{
    numio_runtime_destroy(fixture_start(2)); /* what a first time opens for good */
    unsigned fds = fixture_count_fds();
    for (unsigned i = 0; i < 10; i++)
        numio_runtime_destroy(fixture_start(2));
    cr_assert_eq(fixture_count_fds(), fds);
}

Test(runtime, a_handle_outlives_its_runtime_and_refuses, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_handle_ref(numio_runtime_handle(runtime));
    struct numio_join *join = NULL;
    struct numio_future future = { 0 };
    struct numio_worker_metrics metrics;
    struct numio_status status;
    cr_assert_eq(numio_block_on(handle, answer, (void *)1), 1);
    numio_runtime_destroy(runtime);
    cr_assert_eq(numio_block_on(handle, answer, NULL), -ESHUTDOWN);
    cr_assert_eq(numio_spawn_co(handle, answer, NULL, NULL, &join), -ESHUTDOWN);
    cr_assert_eq(numio_spawn_blocking(handle, answer, NULL, NULL, &join), -ESHUTDOWN);
    cr_assert_eq(numio_spawn(handle, &future, NULL, &join), -EINVAL);
    cr_assert_null(join);
    cr_assert_eq(numio_worker_metrics(handle, 0, &metrics), 0);
    cr_assert_eq(numio_status(handle, &status), 0);
    cr_assert_eq(status.workers, 2);
    cr_assert_eq(numio_live_tasks(handle), 0);
    numio_handle_unref(numio_handle_ref(handle));
    numio_handle_unref(handle);
    numio_handle_unref(NULL);
}

static int64_t current_is(void *arg)
{
    return numio_handle_current() == arg && numio_current_worker() >= 0 &&
           numio_current_node() >= 0;
}

Test(runtime, inside_a_task_its_handle_is_current, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    cr_assert_null(numio_handle_current());
    cr_assert_eq(numio_current_worker(), -EINVAL);
    cr_assert(strstr(numio_strerror_detail(), "worker"), "%s", numio_strerror_detail());
    cr_assert_eq(numio_current_node(), -EINVAL);
    cr_assert_eq(numio_block_on(handle, current_is, handle), 1);
    numio_runtime_destroy(runtime);
}

Test(runtime, enter_makes_a_handle_current_and_gives_back_the_one_before, .timeout = 10)
{
    struct numio_runtime *a = fixture_start(1);
    struct numio_runtime *b = fixture_start(1);
    struct numio_handle *handle_a = numio_runtime_handle(a);
    struct numio_handle *handle_b = numio_runtime_handle(b);
    struct numio_join *join;
    cr_assert_eq(numio_spawn_co(NULL, answer, NULL, NULL, &join), -EINVAL);
    cr_assert_null(numio_handle_enter(handle_a));
    cr_assert_eq(numio_handle_current(), handle_a);
    cr_assert_eq(numio_handle_enter(handle_b), handle_a);
    cr_assert_eq(numio_block_on(NULL, current_is, handle_b), 1);
    cr_assert_eq(numio_handle_enter(handle_a), handle_b);
    cr_assert_eq(numio_block_on(NULL, current_is, handle_a), 1);
    cr_assert_eq(numio_handle_enter(NULL), handle_a);
    cr_assert_null(numio_handle_current());
    numio_runtime_destroy(a);
    numio_runtime_destroy(b);
}

Test(runtime, a_thread_that_has_entered_may_shut_down, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(1);
    (void)numio_handle_enter(numio_runtime_handle(runtime)); /* there was none before */
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0, "%s",
                 numio_strerror_detail());
    (void)numio_handle_enter(NULL); /* back to none */
    numio_runtime_destroy(runtime);
}

static int64_t nested_block_on(void *arg)
{
    return numio_block_on(arg, answer, NULL);
}

Test(runtime, block_on_in_a_task_is_refused, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    cr_assert_eq(numio_block_on(handle, nested_block_on, handle), -EDEADLK);
    numio_runtime_destroy(runtime);
}

/* ---- status and metrics ------------------------------------------------------------------- */

FIXTURE_EACH(runtime, status_tells_what_the_runtime_became, .timeout = 10)
{
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_status status;
    cr_assert_eq(numio_status(handle, &status), 0);
    cr_assert_eq(status.size, sizeof status);
    cr_assert_eq(status.workers, 2);
    cr_assert_geq(status.nodes, 1);
    cr_assert(!status.is_emulated);
    cr_assert_str_eq(status.idle, "balanced");
    cr_assert(!strcmp(status.stack_guard, "guard-install") ||
              !strcmp(status.stack_guard, "mprotect") || !strcmp(status.stack_guard, "canary"));
    struct numio_node_status node;
    cr_assert_eq(numio_node_status(handle, 0, &node), 0);
    cr_assert_eq(!strcmp(node.sq_place, "none"), strcmp(status.driver, "sqpoll") != 0);
    cr_assert_eq(numio_node_status(handle, status.nodes, &node), -EINVAL);
    for (unsigned i = 0; i < status.workers; i++) {
        struct numio_worker_status worker;
        cr_assert_eq(numio_worker_status(handle, i, &worker), 0);
        cr_assert_lt(worker.node, status.nodes);
        cpu_set_t set;
        cr_assert_eq(sched_getaffinity(worker.tid, sizeof set, &set), 0);
        cr_assert(worker.bind_cpu < 0 || (CPU_COUNT(&set) == 1 && CPU_ISSET(worker.bind_cpu, &set)),
                  "worker %u is not pinned to CPU %d", i, worker.bind_cpu);
    }
    struct numio_worker_status worker;
    cr_assert_eq(numio_worker_status(handle, status.workers, &worker), -EINVAL);
}

static void driver_is(enum numio_driver driver, const char *name)
{
    struct numio_config config = fixture_config(driver, 2);
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_status status;
    cr_assert_eq(numio_status(numio_runtime_handle(runtime), &status), 0);
    cr_assert_str_eq(status.driver, name);
    numio_runtime_destroy(runtime);
}

Test(runtime, each_profile_can_be_forced, .timeout = 10)
{
    driver_is(NUMIO_DRIVER_EPOLL, "epoll");
    if (!fixture_has_uring())
        return;
    driver_is(NUMIO_DRIVER_SQPOLL, "sqpoll");
    driver_is(NUMIO_DRIVER_DEFER, "defer");
}

static int64_t yield_once(void *arg)
{
    (void)arg;
    return numio_yield_now();
}

/* Adds worker `index`'s counters to *sum. */
static void add_metrics(struct numio_handle *handle, unsigned index,
                        struct numio_worker_metrics *sum)
{
    struct numio_worker_metrics metrics;
    cr_assert_eq(numio_worker_metrics(handle, index, &metrics), 0);
    cr_assert_eq(metrics.size, sizeof metrics);
    cr_assert_eq(metrics.worker, index);
    sum->polls += metrics.polls;
    sum->completed += metrics.completed;
}

Test(runtime, metrics_count_polls_and_ends, .timeout = 20)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    static struct numio_join *joins[TASKS];
    for (unsigned i = 0; i < TASKS; i++)
        cr_assert_eq(numio_spawn_co(handle, yield_once, NULL, NULL, &joins[i]), 0);
    for (unsigned i = 0; i < TASKS; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    struct numio_worker_metrics sum = { 0 };
    for (unsigned i = 0; i < 2; i++)
        add_metrics(handle, i, &sum);
    cr_assert_eq(sum.completed, TASKS);
    cr_assert_eq(sum.polls, 2 * TASKS);
    struct numio_worker_metrics metrics;
    cr_assert_eq(numio_worker_metrics(handle, 2, &metrics), -EINVAL);
    numio_runtime_destroy(runtime);
}

static enum numio_poll pending_for_ever(void *state, struct numio_context *cx)
{
    (void)state;
    (void)cx;
    return NUMIO_PENDING;
}

Test(runtime, live_tasks_counts_what_has_not_ended, .timeout = 20)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_future future = { .poll = pending_for_ever };
    cr_assert_eq(numio_live_tasks(handle), 0);
    for (unsigned i = 0; i < 100; i++)
        cr_assert_eq(numio_spawn(handle, &future, NULL, NULL), 0);
    cr_assert_eq(numio_live_tasks(handle), 100);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    cr_assert_eq(numio_live_tasks(handle), 0);
    numio_runtime_destroy(runtime);
}

/* ---- emulated machines, odd numbers of workers -------------------------------------------- */

static int64_t where(void *arg)
{
    (void)arg;
    return numio_current_node();
}

static void runs_on_every_node(struct numio_handle *handle, unsigned nodes)
{
    for (unsigned i = 0; i < nodes; i++) {
        struct numio_spawn_opts opts;
        struct numio_join *join;
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.node = (int)i;
        opts.affinity = NUMIO_AFFINITY_NODE;
        cr_assert_eq(numio_spawn_co(handle, where, NULL, &opts, &join), 0);
        cr_assert_eq(numio_join_wait(&join, -1), i);
    }
}

static void emulates_two_packages(enum numio_driver driver)
{
    struct numio_config config = fixture_config(driver, 0);
    config.topology = "pack:2 numa:1 core:4 pu:1";
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_status status;
    cr_assert_eq(numio_status(handle, &status), 0);
    cr_assert(status.is_emulated);
    cr_assert_eq(status.nodes, 2);
    cr_assert_geq(status.workers, 6); /* a core per node may be kept for the SQ thread */
    cr_assert_leq(status.workers, 8);
    for (unsigned i = 0; i < 2; i++) {
        struct numio_node_status node;
        cr_assert_eq(numio_node_status(handle, i, &node), 0);
        cr_assert_eq(node.worker_count, status.workers / 2);
        cr_assert_eq(node.worker_first, i * status.workers / 2);
        cr_assert_eq(node.package, i);
        cr_assert_eq(node.os_node, -1, "memory of an emulated node is not bound");
    }
    cr_assert_not_null(numio_status_reason(handle, 0), "the no-op of the binding is recorded");
    runs_on_every_node(handle, 2);
    numio_runtime_destroy(runtime);
}

Test(runtime, an_emulated_machine_runs_here_auto, .timeout = 20)
{
    emulates_two_packages(NUMIO_DRIVER_AUTO);
}

Test(runtime, an_emulated_machine_runs_here_epoll, .timeout = 20)
{
    emulates_two_packages(NUMIO_DRIVER_EPOLL);
}

Test(runtime, an_emulated_machine_runs_here_sqpoll, .timeout = 20)
{
    if (!fixture_has_uring())
        cr_skip_test("no io_uring here");
    emulates_two_packages(NUMIO_DRIVER_SQPOLL);
}

Test(runtime, a_topology_that_does_not_parse_is_refused, .timeout = 10)
{
    static const char *const bad[] = { "pack:2 numa", "pack:0", "no machine", "/nowhere.xml", ":" };
    unsigned fds = fixture_count_fds();
    for (size_t i = 0; i < NIO_ARRAY_LEN(bad); i++) {
        struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 0);
        struct numio_runtime *runtime = NULL;
        config.topology = bad[i];
        int rc = numio_runtime_create(&config, &runtime);
        cr_assert(rc == -EINVAL || rc == -ENOENT, "\"%s\": %d", bad[i], rc);
        cr_assert(strstr(numio_strerror_detail(), "topology"), "\"%s\": %s", bad[i],
                  numio_strerror_detail());
    }
    cr_assert_eq(fixture_count_fds(), fds);
}

Test(runtime, more_workers_than_cpus_are_refused_by_name, .timeout = 10)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 4096);
    struct numio_runtime *runtime = NULL;
    cr_assert_eq(numio_runtime_create(&config, &runtime), -E2BIG);
    cr_assert(strstr(numio_strerror_detail(), "workers: 4096 asked for"), "%s",
              numio_strerror_detail());
}

Test(runtime, an_emulated_machine_may_have_more_workers_than_cpus, .timeout = 20)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 32);
    config.topology = "pack:2 numa:1 core:32 pu:1";
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_status status;
    cr_assert_eq(numio_status(handle, &status), 0);
    cr_assert_eq(status.workers, 32);
    static struct numio_join *joins[TASKS];
    for (unsigned i = 0; i < TASKS; i++)
        cr_assert_eq(numio_spawn_co(handle, yield_once, NULL, NULL, &joins[i]), 0);
    for (unsigned i = 0; i < TASKS; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    numio_runtime_destroy(runtime);
}

static void idle_policy_works(enum numio_idle_policy idle, const char *name)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    config.idle = idle;
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_status status;
    cr_assert_eq(numio_status(handle, &status), 0);
    cr_assert_str_eq(status.idle, name);
    for (unsigned i = 0; i < 100; i++)
        cr_assert_eq(numio_block_on(handle, yield_once, NULL), 0);
    numio_runtime_destroy(runtime);
}

Test(runtime, each_idle_policy_works, .timeout = 20)
{
    idle_policy_works(NUMIO_IDLE_BALANCED, "balanced");
    idle_policy_works(NUMIO_IDLE_PARK, "park");
    idle_policy_works(NUMIO_IDLE_SPIN, "spin");
}

/* ---- memory ------------------------------------------------------------------------------- */

static struct numio_arena_audit audit(struct numio_handle *handle, unsigned node)
{
    struct numio_arena_audit audit = { .size = sizeof audit };
    cr_assert_eq(numio_arena_audit(handle, node, &audit), 0, "%s", numio_strerror_detail());
    return audit;
}

/* What a runtime still has when it is gone and only its handle is left: what the handle needs, and
 * a bounded number of empty chunks, however many tasks there were.  With the handle goes the arena,
 * which asserts that nothing is left. */
static uint64_t live_after(unsigned tasks)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 2);
    config.topology = "pack:2 numa:1 core:1 pu:1";
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_handle_ref(numio_runtime_handle(runtime));
    struct numio_future future = { .poll = pending_for_ever, .size = 500, .output_size = 64 };
    uint64_t allocated_first = audit(handle, 0).bytes_allocated;
    for (unsigned i = 0; i < tasks; i++)
        cr_assert_eq(numio_spawn(handle, &future, NULL, NULL), 0);
    if (tasks > 100)
        cr_assert_gt(audit(handle, 0).bytes_allocated, allocated_first);
    numio_runtime_destroy(runtime);
    uint64_t live = 0;
    for (unsigned i = 0; i < 2; i++) {
        struct numio_arena_audit a = audit(handle, i);
        cr_assert_eq(a.bytes_live, a.bytes_allocated - a.bytes_freed);
        cr_assert_eq(a.pages_away, 0);
        live += a.bytes_live;
    }
    numio_handle_unref(handle);
    return live;
}

Test(runtime, shutdown_gives_every_cell_back, .timeout = 30)
{
    uint64_t few = live_after(10);
    uint64_t stripes = 2; /* of foreign threads, one on each node */
    uint64_t kept = stripes * (NIO_SLAB_EMPTY_MAX + 1) * NIO_SLAB_CHUNK_BYTES;
    cr_assert_lt(kept, 20000 * 500, "the test needs more tasks");
    cr_assert_leq(live_after(20000), few + kept);
}

Test(runtime, audit_refuses_a_node_that_does_not_exist, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_arena_audit a = { .size = sizeof a };
    cr_assert_eq(numio_arena_audit(numio_runtime_handle(runtime), 77, &a), -EINVAL);
    cr_assert_eq(numio_arena_audit(NULL, 0, &a), -EINVAL);
    numio_runtime_destroy(runtime);
}

Test(runtime, io_buffers_are_page_aligned_and_come_back, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    uint64_t live = audit(handle, 0).bytes_live;
    for (size_t bytes = 1; bytes <= 4 << 20; bytes *= 7) {
        char *buffer = numio_io_buffer_alloc(handle, 0, bytes);
        cr_assert_not_null(buffer);
        cr_assert_eq((uintptr_t)buffer % 4096, 0);
        memset(buffer, 1, bytes);
        numio_io_buffer_free(handle, 0, buffer, bytes);
    }
    cr_assert_null(numio_io_buffer_alloc(handle, 77, 4096));
    cr_assert_eq(audit(handle, 0).bytes_live, live);
    numio_runtime_destroy(runtime);
}

/* ---- limits ------------------------------------------------------------------------------- */

static int runs_with_little_memlock(void)
{
    struct rlimit limit = { 64 << 10, 64 << 10 };
    struct numio_runtime *runtime;
    FIXTURE_CHILD_CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    if (geteuid() == 0)
        FIXTURE_CHILD_CHECK(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    struct numio_config config;
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0);
    int rc = numio_runtime_create(&config, &runtime);
    FIXTURE_CHILD_CHECK(rc == 0, "%d", rc);
    FIXTURE_CHILD_CHECK(numio_block_on(numio_runtime_handle(runtime), yield_once, NULL) == 0);
    numio_runtime_destroy(runtime);
    return 0;
}

Test(runtime, an_ordinary_user_with_64_kib_of_memlock_can_run, .timeout = 20)
{
    fixture_expect_child(runs_with_little_memlock);
}

static int says_which_limit(void)
{
    struct numio_runtime *runtime = NULL;
    struct rlimit limit = { 8, 8 };
    FIXTURE_CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    struct numio_config config;
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0);
    int rc = numio_runtime_create(&config, &runtime);
    FIXTURE_CHILD_CHECK(rc == -EMFILE, "%d", rc);
    FIXTURE_CHILD_CHECK(strstr(numio_strerror_detail(), "RLIMIT_NOFILE"));
    FIXTURE_CHILD_CHECK(runtime == NULL);
    return 0;
}

Test(runtime, create_without_descriptors_names_the_limit, .timeout = 20)
{
    fixture_expect_child(says_which_limit);
}

static int on_one_cpu(void)
{
    cpu_set_t all;
    cpu_set_t one;
    struct numio_runtime *runtime;
    struct numio_status status;
    int cpu = 0;
    FIXTURE_CHILD_CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    FIXTURE_CHILD_CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    int rc = numio_runtime_create(NULL, &runtime);
    FIXTURE_CHILD_CHECK(rc == 0, "%d", rc);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    FIXTURE_CHILD_CHECK(numio_status(handle, &status) == 0);
    FIXTURE_CHILD_CHECK(status.workers == 1);
    FIXTURE_CHILD_CHECK(strcmp(status.driver, "sqpoll") != 0, "%s", status.driver);
    FIXTURE_CHILD_CHECK(numio_status_reason(handle, 0) != NULL);
    FIXTURE_CHILD_CHECK(numio_block_on(handle, yield_once, NULL) == 0);
    numio_runtime_destroy(runtime);
    return 0;
}

Test(runtime, on_one_cpu_auto_does_without_an_sq_thread_and_says_so, .timeout = 20)
{
    fixture_expect_child(on_one_cpu);
}

static void *user(void *arg)
{
    int64_t wrong = 0;
    for (unsigned i = 0; i < 300; i++) {
        struct numio_handle *handle = numio_handle_ref(arg);
        wrong += numio_block_on(handle, answer, (void *)3) != 3;
        numio_handle_unref(handle);
    }
    return (void *)(intptr_t)wrong;
}

Test(runtime, many_threads_may_use_one_handle, .timeout = 20)
{
    struct numio_runtime *runtime = fixture_start(2);
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, user, numio_runtime_handle(runtime)), 0);
    for (unsigned i = 0; i < 4; i++) {
        void *wrong;
        cr_assert_eq(pthread_join(threads[i], &wrong), 0);
        cr_assert_null(wrong);
    }
    numio_runtime_destroy(runtime);
}
