/* SPDX-License-Identifier: MIT */
/* Workers retire and come back at random while tasks of every affinity spawn, wake each other,
 * sleep and do I/O, with queues of four slots, and runtimes end while workers are retired.
 *
 * A task that is lost, or an order, or a wake, is a join that never ends, which the watchdog turns
 * into a failure; every task counts itself and looks where it runs.  Under ThreadSanitizer it also
 * shows that the retired worker's fields have one owner.
 */
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <numio/numio.h>

#include "runtime/sched/worker.h"
#include "tests/stress/stress.h"

enum { BATCH = 48, ROUND_MS = 300, ORDER_NS_MAX = 400000, BYTES = 64 };

static _Atomic uint64_t begun, ended, misplaced;
static _Atomic uint32_t is_over;
static uint64_t expected, orders, was_retired;

static void count(_Atomic uint64_t *counter)
{
    /* relaxed: compared only after everything has been joined */
    (void)atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static uint64_t value(const _Atomic uint64_t *counter)
{
    /* relaxed: as above */
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* A job is a number: its random bits, and where it may run. */
struct job {
    uint32_t seed;
    int16_t node, worker; /* -1: anywhere */
};

static void look_around(struct job job)
{
    if ((job.node >= 0 && job.node != numio_current_node()) ||
        (job.worker >= 0 && job.worker != numio_current_worker()))
        count(&misplaced);
}

static int64_t echo(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buf[BYTES];
    int64_t n = numio_recv_all(fd, buf, sizeof buf, 0);
    if (n == BYTES)
        n = numio_send_all(fd, buf, sizeof buf, 0);
    STRESS_CHECK(numio_close(fd) == 0);
    return n;
}

/* An operation that is in flight while its worker may retire. */
static void talk(void)
{
    int fds[2];
    char buf[BYTES] = "x";
    struct numio_join *join;
    /* The bare system call: ThreadSanitizer does not see that a ring closes descriptors. */
    STRESS_CHECK(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    STRESS_CHECK(numio_spawn_co(NULL, echo, (void *)(intptr_t)fds[1], NULL, &join) == 0);
    STRESS_CHECK(numio_send_all(fds[0], buf, sizeof buf, 0) == BYTES);
    STRESS_CHECK(numio_recv_all(fds[0], buf, sizeof buf, 0) == BYTES);
    STRESS_CHECK(numio_join_await(&join) == BYTES);
    STRESS_CHECK(numio_close(fds[0]) == 0);
}

static int64_t count_child(void *arg)
{
    (void)arg;
    count(&begun);
    STRESS_CHECK(numio_yield_now() == 0);
    count(&ended);
    return 0;
}

static int64_t run_job(void *arg)
{
    struct job job;
    struct nio_rng rng;
    memcpy(&job, &arg, sizeof job);
    uint64_t seed = job.seed;
    nio_rng_init(&rng, &seed);
    count(&begun);
    for (uint32_t i = nio_rng_below(&rng, 6); i > 0; i--) {
        look_around(job);
        switch (nio_rng_below(&rng, 4)) {
        case 0:
            STRESS_CHECK(numio_yield_now() == 0);
            break;
        case 1:
            STRESS_CHECK(numio_sleep_ns(nio_rng_below(&rng, 200000)) == 0);
            break;
        case 2:
            talk();
            break;
        default: {
            struct numio_join *join;
            STRESS_CHECK(numio_spawn_co(NULL, count_child, NULL, NULL, &join) == 0);
            STRESS_CHECK(numio_join_await(&join) == 0);
        }
        }
    }
    look_around(job);
    count(&ended);
    return 0;
}

static void run_batch(struct numio_handle *handle, struct nio_rng *rng)
{
    struct numio_join *joins[BATCH];
    for (unsigned i = 0; i < BATCH; i++) {
        struct numio_spawn_opts opts;
        struct job job = { (uint32_t)nio_rng_next(rng), -1, -1 };
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.affinity = (enum numio_affinity)nio_rng_below(rng, 3);
        if (opts.affinity == NUMIO_AFFINITY_WORKER)
            opts.worker = job.worker = (int16_t)nio_rng_below(rng, handle->worker_count);
        else if (opts.affinity == NUMIO_AFFINITY_NODE)
            opts.node = job.node = (int16_t)nio_rng_below(rng, handle->node_count);
        void *arg;
        _Static_assert(sizeof arg == sizeof job, "a job is an argument");
        memcpy(&arg, &job, sizeof arg);
        STRESS_CHECK(numio_spawn_co(handle, run_job, arg, &opts, &joins[i]) == 0);
    }
    for (unsigned i = 0; i < BATCH; i++)
        STRESS_CHECK(numio_join_wait(&joins[i], -1) == 0);
    expected += BATCH;
}

/* Gives orders at random; the first worker of each node stays active. */
static void *give_orders(void *arg)
{
    struct numio_handle *handle = arg;
    struct nio_rng rng;
    uint64_t seed = orders + 1;
    nio_rng_init(&rng, &seed);
    /* relaxed: only when to end */
    while (atomic_load_explicit(&is_over, memory_order_relaxed) == 0) {
        struct nio_worker *worker = handle->workers[nio_rng_below(&rng, handle->worker_count)];
        if (worker->index_in_node > 0) {
            uint32_t order = nio_rng_below(&rng, 4);
            nio_worker_order(worker, order);
            orders++;
            was_retired += order & NIO_ORDER_RETIRE;
        }
        struct timespec pause = { 0, nio_rng_below(&rng, ORDER_NS_MAX) };
        (void)nanosleep(&pause, NULL); /* shorter is as good */
    }
    return NULL;
}

static void run_round(enum numio_driver driver, struct nio_rng *rng)
{
    struct numio_config config;
    struct numio_runtime *runtime;
    pthread_t thread;
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:3 pu:1";
    config.driver = driver;
    config.cpu_check_ms = 0; /* the orders come from here */
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    /* relaxed: the thread does not run yet */
    atomic_store_explicit(&is_over, 0, memory_order_relaxed);
    STRESS_CHECK(pthread_create(&thread, NULL, give_orders, handle) == 0);
    uint64_t end_ns = nio_now_ns() + ROUND_MS * UINT64_C(1000000);
    while (nio_now_ns() < end_ns)
        run_batch(handle, rng);
    /* relaxed: as above */
    atomic_store_explicit(&is_over, 1, memory_order_relaxed);
    (void)pthread_join(thread, NULL); /* ours, joined once */
    numio_runtime_destroy(runtime);   /* with some of its workers retired */
}

int main(void)
{
    static const enum numio_driver drivers[] = { NUMIO_DRIVER_DEFER, NUMIO_DRIVER_EPOLL,
                                                 NUMIO_DRIVER_SQPOLL };
    uint64_t seed;
    struct nio_rng rng;
    uint64_t stop_ns = stress_start(&seed);
    nio_rng_init(&rng, &seed);
    for (unsigned i = 0; nio_now_ns() < stop_ns; i++)
        run_round(drivers[i % NIO_ARRAY_LEN(drivers)], &rng);
    STRESS_CHECK(value(&begun) == value(&ended));
    STRESS_CHECK(value(&begun) >= expected);
    STRESS_CHECK(value(&misplaced) == 0);
    STRESS_CHECK(was_retired > 0);
    printf("stress_retire: %llu tasks, %llu orders, of which %llu to retire\n",
           (unsigned long long)value(&begun), (unsigned long long)orders,
           (unsigned long long)was_retired);
    return 0;
}
