/* SPDX-License-Identifier: MIT */
/* Promises of spawn_blocking and block_in_place, and of the pool behind them. */
#include "tests/runtime_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "runtime/base/compiler.h"
#include "runtime/blocking/blocking.h"

enum { JOBS = 500, CAP = 3 };

static int64_t echo(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

static struct numio_runtime *start_with(unsigned threads, unsigned queue, uint64_t keep_alive_ns)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 2);
    config.blocking_threads = threads;
    config.blocking_queue = queue;
    config.blocking_keep_alive_ns = keep_alive_ns;
    return fixture_create(&config);
}

static struct nio_blocking *pool_of(struct numio_runtime *runtime)
{
    return numio_runtime_handle(runtime)->blocking;
}

static struct numio_join *spawn(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    struct numio_join *join = NULL;
    int rc = numio_spawn_blocking(numio_runtime_handle(runtime), fn, arg, NULL, &join);
    cr_assert_eq(rc, 0, "%s", numio_strerror_detail());
    return join;
}

Test(blocking, results_come_back, .timeout = 10)
{
    struct numio_runtime *runtime = start_with(4, 0, 0);
    static struct numio_join *joins[JOBS];
    for (intptr_t i = 0; i < JOBS; i++)
        joins[i] = spawn(runtime, echo, (void *)i);
    for (intptr_t i = 0; i < JOBS; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), i);
    numio_runtime_destroy(runtime);
}

struct facts {
    int worker, tid;
    bool has_handle;
    int64_t yielded;
    cpu_set_t cpus;
};

static int64_t tell_facts(void *arg)
{
    struct facts *facts = arg;
    facts->worker = numio_current_worker();
    facts->tid = (int)syscall(SYS_gettid);
    facts->has_handle = numio_handle_current() != NULL;
    facts->yielded = numio_yield_now();
    return sched_getaffinity(0, sizeof facts->cpus, &facts->cpus);
}

Test(blocking, a_function_runs_on_no_worker_but_with_the_handle, .timeout = 10)
{
    struct numio_runtime *runtime = start_with(4, 0, 0);
    struct facts facts = { 0 };
    struct numio_join *join = spawn(runtime, tell_facts, &facts);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    cr_assert_eq(facts.worker, -EINVAL);
    cr_assert(facts.has_handle);
    cr_assert_eq(facts.yielded, -EINVAL, "it is no coroutine");
    cr_assert_neq(facts.tid, getpid());
    numio_runtime_destroy(runtime);
}

static int64_t block_on_inside(void *arg)
{
    return numio_block_on(NULL, echo, arg);
}

Test(blocking, a_function_may_wait_for_tasks, .timeout = 10)
{
    struct numio_runtime *runtime = start_with(4, 0, 0);
    struct numio_join *join = spawn(runtime, block_on_inside, (void *)21);
    cr_assert_eq(numio_join_wait(&join, -1), 21);
    numio_runtime_destroy(runtime);
}

/* ---- the cap, the queue, the keep-alive --------------------------------------------------- */

static struct crowd {
    _Atomic uint32_t inside, most, gate;
} crowd;

static int64_t stay_inside(void *arg)
{
    /* relaxed: a count; what is compared later is read after the joins */
    uint32_t now = atomic_fetch_add_explicit(&crowd.inside, 1, memory_order_relaxed) + 1;
    /* relaxed: as above */
    uint32_t most = atomic_load_explicit(&crowd.most, memory_order_relaxed);
    /* relaxed: as above */
    while (now > most && !atomic_compare_exchange_weak_explicit(
                             &crowd.most, &most, now, memory_order_relaxed, memory_order_relaxed))
        continue;
    nio_futex_wake(&crowd.inside, INT32_MAX);
    if (arg)
        (void)fixture_wait(&crowd.gate, 1); /* the test notices when it gives up */
    /* relaxed: as above */
    (void)atomic_fetch_sub_explicit(&crowd.inside, 1, memory_order_relaxed);
    return 0;
}

Test(blocking, never_more_than_the_cap_run_at_once, .timeout = 20)
{
    struct numio_runtime *runtime = start_with(CAP, 0, 0);
    static struct numio_join *joins[JOBS];
    for (unsigned i = 0; i < JOBS; i++)
        joins[i] = spawn(runtime, stay_inside, &crowd);
    cr_assert(fixture_wait(&crowd.inside, CAP), "%u run", fixture_get(&crowd.inside));
    cr_assert_eq(nio_blocking_threads(pool_of(runtime)), CAP);
    fixture_set(&crowd.gate, 1);
    for (unsigned i = 0; i < JOBS; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    cr_assert_eq(fixture_get(&crowd.most), CAP);
    numio_runtime_destroy(runtime);
}

Test(blocking, the_cap_holds_for_all_nodes_together, .timeout = 20)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 0);
    config.topology = "pack:2 numa:1 core:2 pu:1";
    config.blocking_threads = CAP;
    struct numio_runtime *runtime = fixture_create(&config);
    static struct numio_join *joins[JOBS];
    for (unsigned i = 0; i < JOBS; i++)
        joins[i] = spawn(runtime, stay_inside, &crowd); /* round robin over the nodes */
    cr_assert(fixture_wait(&crowd.inside, CAP), "%u run", fixture_get(&crowd.inside));
    cr_assert_eq(nio_blocking_threads(pool_of(runtime)), CAP, "each spawn started its thread");
    fixture_set(&crowd.gate, 1);
    for (unsigned i = 0; i < JOBS; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    cr_assert_eq(fixture_get(&crowd.most), CAP);
    numio_runtime_destroy(runtime);
}

Test(blocking, a_full_queue_refuses_and_names_the_field, .timeout = 20)
{
    struct numio_runtime *runtime = start_with(1, 4, 0);
    struct numio_join *joins[5];
    struct numio_join *join = NULL;
    joins[0] = spawn(runtime, stay_inside, &crowd);
    cr_assert(fixture_wait(&crowd.inside, 1));
    for (unsigned i = 1; i < 5; i++)
        joins[i] = spawn(runtime, stay_inside, &crowd);
    cr_assert_eq(numio_spawn_blocking(numio_runtime_handle(runtime), echo, NULL, NULL, &join),
                 -EAGAIN);
    cr_assert_null(join);
    cr_assert(strstr(numio_strerror_detail(), "blocking_queue"));
    cr_assert_eq(numio_live_tasks(numio_runtime_handle(runtime)), 5);
    fixture_set(&crowd.gate, 1);
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    join = spawn(runtime, echo, (void *)6);
    cr_assert_eq(numio_join_wait(&join, -1), 6);
    numio_runtime_destroy(runtime);
}

static int64_t read_a_file(void *arg)
{
    char buffer[512];
    (void)arg;
    int fd = (int)numio_open("/proc/self/exe", 0, 0);
    if (fd < 0)
        return fd;
    int64_t n = numio_pread(fd, buffer, sizeof buffer, 0);
    int64_t closed = numio_close(fd);
    return closed < 0 ? closed : n;
}

Test(blocking, a_full_queue_does_not_refuse_io, .timeout = 20)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_EPOLL, 1);
    config.blocking_threads = 2;
    config.blocking_queue = 1;
    struct numio_runtime *runtime = fixture_create(&config);
    static struct numio_join *joins[100];
    for (unsigned i = 0; i < NIO_ARRAY_LEN(joins); i++)
        cr_assert_eq(
            numio_spawn_co(numio_runtime_handle(runtime), read_a_file, NULL, NULL, &joins[i]), 0);
    for (unsigned i = 0; i < NIO_ARRAY_LEN(joins); i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 512);
    numio_runtime_destroy(runtime);
}

static bool has_no_thread(void *arg)
{
    return nio_blocking_threads(arg) == 0;
}

Test(blocking, an_idle_thread_ends_after_the_keep_alive_and_comes_back, .timeout = 20)
{
    struct numio_runtime *runtime = start_with(4, 0, 20000000);
    for (unsigned round = 0; round < 3; round++) {
        struct numio_join *join = spawn(runtime, echo, (void *)1);
        cr_assert_eq(numio_join_wait(&join, -1), 1);
        cr_assert(fixture_until(has_no_thread, pool_of(runtime)));
    }
    numio_runtime_destroy(runtime);
}

static int64_t sleep_a_little(void *arg)
{
    (void)arg;
    return numio_sleep_ns(20000000);
}

Test(blocking, an_idle_thread_is_used_again, .timeout = 40)
{
    static const uint64_t keep_alives_ns[] = { 0, UINT64_MAX };
    for (unsigned k = 0; k < NIO_ARRAY_LEN(keep_alives_ns); k++) {
        struct numio_runtime *runtime = start_with(64, 0, keep_alives_ns[k]);
        struct facts first = { 0 };
        struct numio_join *join = spawn(runtime, tell_facts, &first);
        cr_assert_eq(numio_join_wait(&join, -1), 0);
        /* Its result is there before it is idle, so at first another thread may be the idle one. */
        uint64_t end_ns = nio_now_ns() + FIXTURE_PATIENCE_MS * 1000000ull;
        unsigned same = 0;
        for (unsigned i = 0; i < 50 || same == 0; i++) {
            struct facts facts = { 0 };
            join = spawn(runtime, tell_facts, &facts);
            cr_assert_eq(numio_join_wait(&join, -1), 0);
            same += facts.tid == first.tid;
            cr_assert(nio_now_ns() < end_ns, "it is never used again");
        }
        cr_assert_lt(nio_blocking_threads(pool_of(runtime)), 50);
        cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), sleep_a_little, NULL), 0);
        cr_assert_gt(nio_blocking_threads(pool_of(runtime)), 0, "it did not stay");
        numio_runtime_destroy(runtime);
    }
}

Test(blocking, without_threads_the_spawner_is_told, .timeout = 20)
{
    struct numio_runtime *runtime = start_with(4, 0, 0);
    struct numio_join *join = NULL;
    int rc = 0;
    for (long nth = 1; nth < 20 && rc == 0; nth++) {
        nio_fault_arm(nth);
        rc = numio_spawn_blocking(numio_runtime_handle(runtime), echo, (void *)1, NULL, &join);
        nio_fault_arm(0);
        if (rc == 0)
            cr_assert_eq(numio_join_wait(&join, -1), 1);
        if (rc == -ENOMEM)
            rc = 0; /* that was the cell */
        if (rc == 0 && nio_blocking_threads(pool_of(runtime)) > 0)
            break; /* the thread is there: nothing can fail any more */
    }
    cr_assert(rc == -EAGAIN || rc == 0);
    if (rc == -EAGAIN)
        cr_assert(strstr(numio_strerror_detail(), "RLIMIT_NPROC"));
    join = spawn(runtime, echo, (void *)2);
    cr_assert_eq(numio_join_wait(&join, -1), 2);
    numio_runtime_destroy(runtime);
}

/* ---- where it runs ------------------------------------------------------------------------ */

/* The CPUs of the workers. */
static cpu_set_t worker_cpus(struct numio_runtime *runtime)
{
    struct numio_worker_status status;
    cpu_set_t set;
    CPU_ZERO(&set);
    for (unsigned i = 0; numio_worker_status(numio_runtime_handle(runtime), i, &status) == 0; i++)
        if (status.bind_cpu >= 0)
            CPU_SET(status.bind_cpu, &set);
    return set;
}

static void runs_beside_the_workers(enum numio_driver driver, bool on_worker_cpus)
{
    cpu_set_t all;
    cpu_set_t both;
    cr_assert_eq(sched_getaffinity(0, sizeof all, &all), 0);
    if (CPU_COUNT(&all) < 2)
        cr_skip_test("one CPU: there is nothing beside the worker");
    struct numio_config config = fixture_config(driver, 1);
    config.blocking_on_worker_cpus = on_worker_cpus;
    struct numio_runtime *runtime = fixture_create(&config);
    struct facts facts = { 0 };
    struct numio_join *join = spawn(runtime, tell_facts, &facts);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    cpu_set_t workers = worker_cpus(runtime);
    CPU_AND(&both, &workers, &facts.cpus);
    cr_assert_eq(CPU_COUNT(&workers), 1);
    cr_assert_eq(CPU_COUNT(&both), on_worker_cpus ? 1 : 0);
    cr_assert_geq(CPU_COUNT(&facts.cpus), 1);
    numio_runtime_destroy(runtime);
}

Test(blocking, it_keeps_off_the_workers_cpus, .timeout = 10)
{
    runs_beside_the_workers(NUMIO_DRIVER_DEFER, false);
}

Test(blocking, it_keeps_off_the_workers_cpus_beside_an_sq_thread, .timeout = 10)
{
    runs_beside_the_workers(NUMIO_DRIVER_SQPOLL, false);
}

Test(blocking, it_may_use_the_workers_cpus_when_told, .timeout = 10)
{
    runs_beside_the_workers(NUMIO_DRIVER_DEFER, true);
}

/* ---- block_in_place ----------------------------------------------------------------------- */

struct outside {
    struct facts facts;
    int64_t result;
    int worker;
};

static int64_t go_outside(void *arg)
{
    struct outside *outside = arg;
    outside->worker = numio_current_worker();
    outside->result = numio_block_in_place(tell_facts, &outside->facts);
    return numio_current_worker() >= 0;
}

Test(blocking, block_in_place_in_a_coroutine_runs_in_the_pool, .timeout = 10)
{
    struct numio_runtime *runtime = start_with(4, 0, 0);
    struct outside outside = { 0 };
    cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), go_outside, &outside), 1);
    cr_assert_eq(outside.result, 0);
    cr_assert_geq(outside.worker, 0);
    cr_assert_eq(outside.facts.worker, -EINVAL);
    numio_runtime_destroy(runtime);
}

static int64_t block_inside(void *arg)
{
    return numio_block_in_place(stay_inside, arg);
}

Test(blocking, block_in_place_lets_the_worker_go_on, .timeout = 10)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_join *join;
    cr_assert_eq(numio_spawn_co(handle, block_inside, &crowd, NULL, &join), 0);
    cr_assert(fixture_wait(&crowd.inside, 1));
    cr_assert_eq(numio_block_on(handle, echo, (void *)4), 4, "the one worker is free");
    cr_assert(!numio_join_is_finished(join));
    fixture_set(&crowd.gate, 1);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    numio_runtime_destroy(runtime);
}

Test(blocking, block_in_place_in_an_aborted_coroutine_waits_for_the_function, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_join *join;
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), block_inside, &crowd, NULL, &join),
                 0);
    cr_assert(fixture_wait(&crowd.inside, 1));
    numio_join_abort(join);
    cr_assert_eq(numio_join_wait(&join, 20000000), -ETIMEDOUT);
    cr_assert_eq(fixture_get(&crowd.inside), 1);
    fixture_set(&crowd.gate, 1);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    numio_runtime_destroy(runtime);
}

Test(blocking, block_in_place_in_a_plain_thread_runs_there, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct facts facts = { 0 };
    cr_assert_eq(numio_block_in_place(tell_facts, &facts), 0);
    cr_assert_eq(facts.tid, (int)syscall(SYS_gettid));
    numio_runtime_destroy(runtime);
}

static enum numio_poll block_in_poll(void *state, struct numio_context *cx)
{
    (void)state;
    int64_t result = numio_block_in_place(echo, NULL);
    memcpy(numio_context_output(cx), &result, sizeof result);
    return NUMIO_READY;
}

Test(blocking, block_in_place_in_a_future_is_refused, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_future future = { .poll = block_in_poll, .output_size = sizeof(int64_t) };
    struct numio_join *join;
    int64_t result = 0;
    cr_assert_eq(numio_spawn(numio_runtime_handle(runtime), &future, NULL, &join), 0);
    cr_assert_eq(numio_join_await_output(&join, &result, sizeof result), 0);
    cr_assert_eq(result, -EDEADLK);
    numio_runtime_destroy(runtime);
}
