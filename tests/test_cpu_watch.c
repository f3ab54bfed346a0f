/* SPDX-License-Identifier: MIT */
/* CPUs are taken from this process and given back while a runtime works: by sched_setaffinity() on
 * its threads, as a cpuset and taskset do it.  Where threads run is the kernel's word. */
#include "tests/runtime_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>

#include "runtime/base/compiler.h"
#include "runtime/sched/worker.h"

TestSuite(cpu_watch, .timeout = 60);

enum { CHECK_MS = 5, TASKS = 64 };

/* ---- the process's CPUs --------------------------------------------------------------------- */

static cpu_set_t all_cpus;

/* The lowest two CPUs of the process; skips without. */
static void two_cpus(int *ret_first, int *ret_second)
{
    int found[2], count = 0;
    cr_assert_eq(sched_getaffinity(0, sizeof all_cpus, &all_cpus), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE && count < 2; cpu++)
        if (CPU_ISSET(cpu, &all_cpus))
            found[count++] = cpu;
    if (count < 2)
        cr_skip_test("one CPU: there is none to take away");
    *ret_first = found[0];
    *ret_second = found[1];
}

static cpu_set_t set_of(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return set;
}

/* Every thread's mask but one becomes `cpus`. */
static void bind_threads(const cpu_set_t *cpus, int except_tid)
{
    DIR *tasks = opendir("/proc/self/task");
    const struct dirent *entry;
    cr_assert_not_null(tasks);
    while ((entry = readdir(tasks))) {
        int tid = (int)strtol(entry->d_name, NULL, 10);
        if (tid > 0 && tid != except_tid)
            (void)sched_setaffinity(tid, sizeof *cpus, cpus); /* it may have ended */
    }
    (void)closedir(tasks);
}

/* As a cpuset of version 1 does it. */
static void bind_all_threads(const cpu_set_t *cpus)
{
    bind_threads(cpus, 0);
}

static struct numio_worker_status worker_status(struct numio_runtime *runtime, unsigned index)
{
    struct numio_worker_status status;
    cr_assert_eq(numio_worker_status(numio_runtime_handle(runtime), index, &status), 0);
    return status;
}

static bool is_bound_to(int tid, const cpu_set_t *cpus)
{
    cpu_set_t mask;
    return sched_getaffinity(tid, sizeof mask, &mask) == 0 && CPU_EQUAL(&mask, cpus);
}

/* Waits until worker `index` is where it is wanted, by the status and by the kernel. */
struct wish {
    struct numio_runtime *runtime;
    unsigned index;
    const char *placement;
    bool is_retired;
    cpu_set_t cpus;
};

static bool is_granted(void *arg)
{
    const struct wish *wish = arg;
    struct numio_worker_status status = worker_status(wish->runtime, wish->index);
    return strcmp(status.placement, wish->placement) == 0 &&
           status.is_retired == wish->is_retired && is_bound_to(status.tid, &wish->cpus);
}

static void expect_worker(struct numio_runtime *runtime, unsigned index, const char *placement,
                          bool is_retired, int cpu)
{
    struct wish wish = { runtime, index, placement, is_retired, set_of(cpu) };
    bool is_there = fixture_until(is_granted, &wish);
    struct numio_worker_status status = worker_status(runtime, index);
    cr_assert(is_there, "worker %u: %s%s on CPU %d, wanted: %s on CPU %d", index, status.placement,
              status.is_retired ? ", retired," : "", status.runs_on_cpu, placement, cpu);
}

static struct numio_runtime *start(enum numio_driver driver, int first, int second)
{
    char cpus[32];
    if (driver != NUMIO_DRIVER_EPOLL && !fixture_has_uring())
        cr_skip_test("no io_uring here");
    struct numio_config config = fixture_config(driver, 2);
    (void)snprintf(cpus, sizeof cpus, "%d,%d", first, second); /* fits */
    config.cpus = cpus;
    config.cpu_check_ms = CHECK_MS;
    return fixture_create(&config);
}

/* ---- work that never pauses ----------------------------------------------------------------- */

struct load {
    _Atomic uint32_t is_over;
    _Atomic uint32_t wrong; /* line */
};

struct unit {
    struct load *load;
    int worker; /* -1: any */
    _Atomic uint32_t rounds;
};

#define EXPECT(unit, condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fixture_set(&(unit)->load->wrong, __LINE__);                                           \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)

static int64_t echo(void *arg)
{
    char buf[64];
    int fd = (int)(intptr_t)arg;
    int64_t n;
    while ((n = numio_recv(fd, buf, sizeof buf, 0)) > 0 &&
           (n = numio_send_all(fd, buf, (size_t)n, 0)) > 0) {
    }
    (void)numio_close(fd); /* the other end notices */
    return n;
}

/* Sends, receives, sleeps and yields until it is over; pinned ones look where they run. */
static int64_t work(void *arg)
{
    struct unit *unit = arg;
    struct numio_join *join;
    int fds[2];
    char buf[64] = "";
    EXPECT(unit, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    EXPECT(unit, numio_spawn_co(NULL, echo, (void *)(intptr_t)fds[1], NULL, &join) == 0);
    while (fixture_get(&unit->load->is_over) == 0) {
        EXPECT(unit, unit->worker < 0 || numio_current_worker() == unit->worker);
        EXPECT(unit, numio_send_all(fds[0], buf, sizeof buf, 0) == sizeof buf);
        EXPECT(unit, numio_recv_all(fds[0], buf, sizeof buf, 0) == sizeof buf);
        EXPECT(unit, numio_sleep_ns(fixture_get(&unit->rounds) % 8 ? 1000 : 200000) == 0);
        EXPECT(unit, numio_yield_now() == 0);
        fixture_set(&unit->rounds, fixture_get(&unit->rounds) + 1);
    }
    EXPECT(unit, numio_close(fds[0]) == 0);
    EXPECT(unit, numio_join_await(&join) == 0);
    return 0;
}

static struct load load;
static struct unit units[TASKS];
static struct numio_join *joins[TASKS];

static void load_start(struct numio_runtime *runtime)
{
    struct numio_status status;
    cr_assert_eq(numio_status(numio_runtime_handle(runtime), &status), 0);
    for (unsigned i = 0; i < TASKS; i++) {
        struct numio_spawn_opts opts;
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.affinity = (enum numio_affinity)(i % 3);
        opts.node = 0;
        opts.worker = (int)(i / 3 % status.workers);
        units[i].load = &load;
        units[i].worker = opts.affinity == NUMIO_AFFINITY_WORKER ? opts.worker : -1;
        cr_assert_eq(
            numio_spawn_co(numio_runtime_handle(runtime), work, &units[i], &opts, &joins[i]), 0);
    }
}

static bool have_gone_on(void *arg)
{
    const uint32_t *goals = arg;
    for (unsigned i = 0; i < TASKS; i++)
        if (fixture_get(&units[i].rounds) < goals[i])
            return false;
    return true;
}

/* Every task goes on. */
static void load_goes_on(void)
{
    uint32_t goals[TASKS];
    for (unsigned i = 0; i < TASKS; i++)
        goals[i] = fixture_get(&units[i].rounds) + 3;
    cr_assert(fixture_until(have_gone_on, goals), "a task has stopped");
    cr_assert_eq(fixture_get(&load.wrong), 0, "line %u", fixture_get(&load.wrong));
}

static void load_stop(void)
{
    fixture_set(&load.is_over, 1);
    for (unsigned i = 0; i < TASKS; i++)
        cr_assert_eq(numio_join_wait(&joins[i], FIXTURE_PATIENCE_MS * 1000000ll), 0, "task %u", i);
}

/* ---- the tests ------------------------------------------------------------------------------ */

static void lose_and_regain(enum numio_driver driver)
{
    int first, second;
    two_cpus(&first, &second);
    cpu_set_t one = set_of(first);
    struct numio_runtime *runtime = start(driver, first, second);
    load_start(runtime);
    load_goes_on();
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_not(
            fixture_has_reason(numio_runtime_handle(runtime), "was taken from the process"));
        bind_all_threads(&one);
        expect_worker(runtime, 1, "moved", true, first);
        expect_worker(runtime, 0, "home", false, first);
        cr_assert(fixture_has_reason(numio_runtime_handle(runtime), "worker 1: CPU"));
        cr_assert(fixture_has_reason(numio_runtime_handle(runtime), "it is retired"));
        load_goes_on();
        bind_all_threads(&all_cpus);
        expect_worker(runtime, 1, "home", false, second);
        expect_worker(runtime, 0, "home", false, first);
        load_goes_on();
    }
    cr_assert_geq(worker_status(runtime, 1).moves, 6);
    load_stop();
    numio_runtime_destroy(runtime);
}

Test(cpu_watch, a_worker_without_a_cpu_retires_and_comes_home_and_no_task_is_lost_sqpoll)
{
    lose_and_regain(NUMIO_DRIVER_SQPOLL);
}

Test(cpu_watch, a_worker_without_a_cpu_retires_and_comes_home_and_no_task_is_lost_defer)
{
    lose_and_regain(NUMIO_DRIVER_DEFER);
}

Test(cpu_watch, a_worker_without_a_cpu_retires_and_comes_home_and_no_task_is_lost_epoll)
{
    lose_and_regain(NUMIO_DRIVER_EPOLL);
}

static int64_t name_worker(void *arg)
{
    (void)arg;
    return numio_current_worker();
}

/* True when worker 1 rests and worker 0 sleeps: neither spins. */
static bool nobody_is_awake(void *arg)
{
    struct nio_node *node = numio_runtime_handle(arg)->nodes[0];
    /* relaxed: a look at a count */
    return atomic_load_explicit(&node->resting, memory_order_relaxed) == 1 &&
           nio_idle_sleeping(nio_idle_load(&node->idle)) == 1;
}

Test(cpu_watch, a_retired_worker_polls_only_what_is_pinned_to_it)
{
    int first, second;
    two_cpus(&first, &second);
    cpu_set_t one = set_of(first);
    struct numio_runtime *runtime = start(NUMIO_DRIVER_EPOLL, first, second);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    bind_all_threads(&one);
    expect_worker(runtime, 1, "moved", true, first);
    cr_assert(fixture_until(nobody_is_awake, runtime)); /* it has followed the order */
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    opts.worker = 1;
    struct numio_join *join;
    cr_assert_eq(numio_spawn_co(handle, name_worker, NULL, &opts, &join), 0);
    cr_assert_eq(numio_join_wait(&join, -1), 1);
    for (unsigned i = 0; i < 1000; i++)
        cr_assert_eq(numio_block_on(handle, name_worker, NULL), 0, "task %u", i);
    bind_all_threads(&all_cpus);
    expect_worker(runtime, 1, "home", false, second);
    numio_runtime_destroy(runtime);
}

Test(cpu_watch, one_thread_that_somebody_has_bound_elsewhere_is_left_there)
{
    int first, second;
    two_cpus(&first, &second);
    cpu_set_t one = set_of(first);
    struct numio_runtime *runtime = start(NUMIO_DRIVER_EPOLL, first, second);
    int tid = worker_status(runtime, 1).tid;
    cr_assert_eq(sched_setaffinity(tid, sizeof one, &one), 0);
    expect_worker(runtime, 1, "outside", true, first);
    cr_assert(fixture_has_reason(numio_runtime_handle(runtime),
                                 "somebody has bound its thread to other CPUs"));
    bind_threads(&one, tid);
    expect_worker(runtime, 1, "moved", true, first);
    bind_threads(&all_cpus, tid); /* that it was bound there before does not count any more */
    expect_worker(runtime, 1, "home", false, second);
    cr_assert_eq(sched_setaffinity(tid, sizeof one, &one), 0);
    expect_worker(runtime, 1, "outside", true, first);
    cr_assert_eq(sched_setaffinity(tid, sizeof all_cpus, &all_cpus), 0);
    expect_worker(runtime, 1, "home", false, second);
    numio_runtime_destroy(runtime);
}

/* Gives worker 0 something to wait for. */
static bool has_parked(void *arg)
{
    struct numio_worker_metrics metrics;
    struct numio_handle *handle = numio_runtime_handle(arg);
    return numio_block_on(handle, name_worker, NULL) == 0 &&
           numio_worker_metrics(handle, 0, &metrics) == 0 && metrics.parks > 10;
}

Test(cpu_watch, spinning_workers_go_on_when_they_have_to_share)
{
    int first, second;
    two_cpus(&first, &second);
    cpu_set_t one = set_of(first);
    struct numio_config config = fixture_config(NUMIO_DRIVER_EPOLL, 2);
    config.cpu_check_ms = CHECK_MS;
    config.idle = NUMIO_IDLE_SPIN;
    struct numio_runtime *runtime = fixture_create(&config);
    bind_all_threads(&one);
    expect_worker(runtime, 1, "moved", true, first);
    load_start(runtime);
    load_goes_on();
    load_stop();
    cr_assert(fixture_until(has_parked, runtime), "a worker that never parks shares its CPU");
    bind_all_threads(&all_cpus);
    expect_worker(runtime, 1, "home", false, second);
    numio_runtime_destroy(runtime);
}

static bool has_passed(void *arg)
{
    return nio_now_ns() >= *(uint64_t *)arg;
}

/* How often a worker has parked in 50 ms. */
static uint64_t parks_meanwhile(struct numio_runtime *runtime, unsigned index)
{
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_worker_metrics before, after;
    uint64_t end_ns = nio_now_ns() + 50 * 1000000ull;
    cr_assert_eq(numio_worker_metrics(handle, index, &before), 0);
    cr_assert(fixture_until(has_passed, &end_ns));
    cr_assert_eq(numio_worker_metrics(handle, index, &after), 0);
    return after.parks - before.parks;
}

static void idle_workers_follow(enum numio_idle_policy idle)
{
    int first, second;
    two_cpus(&first, &second);
    cpu_set_t one = set_of(first);
    struct numio_config config = fixture_config(NUMIO_DRIVER_EPOLL, 2);
    config.cpu_check_ms = CHECK_MS;
    config.idle = idle;
    struct numio_runtime *runtime = fixture_create(&config);
    bind_all_threads(&one);
    cr_assert(fixture_until(nobody_is_awake, runtime));
    (void)parks_meanwhile(runtime, 0); /* it may have become the watcher before the other rested */
    cr_assert_lt(parks_meanwhile(runtime, 0), 10, "a resting worker needs no watcher");
    cr_assert_lt(parks_meanwhile(runtime, 1), 10);
    numio_runtime_destroy(runtime);
}

Test(cpu_watch, workers_that_spin_follow_without_anything_else_to_do)
{
    idle_workers_follow(NUMIO_IDLE_SPIN);
}

Test(cpu_watch, workers_that_sleep_follow_without_anything_else_to_do)
{
    idle_workers_follow(NUMIO_IDLE_PARK);
}

static bool says_new_cpus(void *arg)
{
    return fixture_has_reason(numio_runtime_handle(arg), "given CPUs that it did not have");
}

Test(cpu_watch, cpus_that_the_process_did_not_have_are_named_as_unused)
{
    int first, second;
    two_cpus(&first, &second);
    cpu_set_t one = set_of(first);
    bind_all_threads(&one);
    struct numio_config config = fixture_config(NUMIO_DRIVER_EPOLL, 0);
    config.cpu_check_ms = CHECK_MS;
    struct numio_runtime *runtime = fixture_create(&config);
    cr_assert_not(says_new_cpus(runtime));
    bind_all_threads(&all_cpus);
    cr_assert(fixture_until(says_new_cpus, runtime));
    expect_worker(runtime, 0, "home", false, first);
    numio_runtime_destroy(runtime);
}

static bool has_thread_named(const char *part)
{
    char path[300], name[32];
    DIR *tasks = opendir("/proc/self/task");
    const struct dirent *entry;
    bool is_found = false;
    cr_assert_not_null(tasks);
    while ((entry = readdir(tasks)) && !is_found) {
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name); /* fits */
        FILE *file = fopen(path, "re");
        is_found = file && fgets(name, sizeof name, file) && strstr(name, part);
        if (file)
            (void)fclose(file);
    }
    (void)closedir(tasks);
    return is_found;
}

static bool is_watched(void *arg)
{
    (void)arg;
    return has_thread_named("numio-cpus");
}

Test(cpu_watch, nobody_watches_where_that_is_not_wanted)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_EPOLL, 1);
    struct numio_runtime *runtime = fixture_create(&config);
    cr_assert(fixture_until(is_watched, NULL), "by default");
    numio_runtime_destroy(runtime);
    cr_assert_not(is_watched(NULL), "a thread is left behind");
    config.cpu_check_ms = 0;
    runtime = fixture_create(&config);
    cr_assert_not(is_watched(NULL));
    numio_runtime_destroy(runtime);
}

static bool is_sq_thread_at_home(void *arg)
{
    struct numio_node_status status;
    return numio_node_status(numio_runtime_handle(arg), 0, &status) == 0 &&
           strcmp(status.sq_placement, "home") == 0;
}

static bool is_sq_thread_moved(void *arg)
{
    struct numio_node_status status;
    return numio_node_status(numio_runtime_handle(arg), 0, &status) == 0 &&
           strcmp(status.sq_placement, "moved") == 0;
}

Test(cpu_watch, an_sq_thread_without_its_cpu_shares_another_and_comes_home)
{
    int first, second;
    two_cpus(&first, &second);
    if (!fixture_has_uring())
        cr_skip_test("no io_uring here");
    cpu_set_t one = set_of(first), two = set_of(second);
    struct numio_node_status status;
    struct numio_config config = fixture_config(NUMIO_DRIVER_SQPOLL, 1);
    config.cpu_check_ms = CHECK_MS;
    config.sq_thread_cpu = second;
    struct numio_runtime *runtime = fixture_create(&config);
    cr_assert_eq(numio_node_status(numio_runtime_handle(runtime), 0, &status), 0);
    cr_assert(is_bound_to(status.sq_tid, &two));
    load_start(runtime);
    load_goes_on();
    bind_all_threads(&one);
    cr_assert(fixture_until(is_sq_thread_moved, runtime));
    cr_assert(is_bound_to(status.sq_tid, &one));
    cr_assert(fixture_has_reason(numio_runtime_handle(runtime),
                                 "of its SQ thread was taken from the process"));
    load_goes_on();
    bind_all_threads(&all_cpus);
    cr_assert(fixture_until(is_sq_thread_at_home, runtime));
    cr_assert(is_bound_to(status.sq_tid, &two));
    load_goes_on();
    load_stop();
    numio_runtime_destroy(runtime);
}
