/* SPDX-License-Identifier: MIT */
/* The workers' threads.
 *
 * Order within a thread: pin, memory policy and arena, driver, and only then the first task, so
 * that everything it allocates is local.  On each node the first worker makes its ring before the
 * others start, because theirs are attached to it.  All threads wait for each other; if one fails,
 * none runs a task, and each takes down what it made.
 */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "alloc/io_buffer.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/futex.h"
#include "runtime/base/mem.h"
#include "runtime/base/thread.h"
#include "runtime/blocking/blocking.h"
#include "runtime/io/stream.h"
#include "runtime/lifecycle.h"

enum { GATE_WAIT = 0, GATE_GO, GATE_FAIL };

/* The meeting of the starter with the workers' threads; lives as long as the starter waits. */
struct start {
    struct numio_handle *handle;
    _Atomic uint32_t ready; /* futex: threads that are up, or have failed */
    _Atomic uint32_t gate;  /* futex: GATE_* */
    _Atomic uint32_t gone;  /* futex: threads that have read the gate */
    int error;              /* the first failure; written under the lock, as is the detail */
    struct nio_lock lock;
    char detail[NIO_ERROR_DETAIL_BYTES];
};

struct ticket {
    struct start *start;
    struct nio_worker *worker;
};

static void bump(_Atomic uint32_t *word)
{
    /* [ST1] release: what the thread did before is seen by whoever waits.  Pairs with [ST2]. */
    (void)atomic_fetch_add_explicit(word, 1, memory_order_release);
    nio_futex_wake(word, INT_MAX);
}

static void wait_until(_Atomic uint32_t *word, uint32_t wanted)
{
    uint32_t seen;
    /* [ST2] acquire: pairs with [ST1] */
    while ((seen = atomic_load_explicit(word, memory_order_acquire)) != wanted)
        (void)nio_futex_wait(word, seen, NIO_FUTEX_FOREVER); /* looks again */
}

static void pin(struct nio_worker *worker)
{
    cpu_set_t set;
    int cpu = worker->plan->bind_cpu;
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    /* A CPU that was taken away since the plan was made: it runs where the kernel lets it until
     * cpu_watch.c notices. */
    (void)sched_setaffinity(0, sizeof set, &set);
}

struct offload {
    struct nio_blocking_job job;
    void (*fn)(void *arg);
    void *arg;
};

static void run_offload(struct nio_blocking_job *job, bool is_cancelled)
{
    struct offload *offload = NIO_CONTAINER_OF(job, struct offload, job);
    (void)is_cancelled; /* the kernel's work on a file is done in any case: tasks wait for it */
    offload->fn(offload->arg);
    nio_free(offload);
}

/* The epoll profile's way to the blocking pool. */
static int offload_to_pool(void *context, void (*fn)(void *arg), void *arg)
{
    struct nio_worker *worker = context;
    struct offload *offload = nio_zalloc(sizeof *offload);
    if (!offload)
        return -ENOMEM;
    offload->job.run = run_offload;
    offload->job.is_io = true;
    offload->fn = fn;
    offload->arg = arg;
    int rc = nio_blocking_submit(worker->handle->blocking, worker->node->index, &offload->job);
    if (rc < 0)
        nio_free(offload);
    return rc;
}

static int use_registration(struct nio_worker *worker)
{
    return nio_driver_use_registration(worker->driver, worker->node->registration);
}

/* The leader's: makes the node's registered memory, as much as the kernel allows to pin. */
static void make_registered(struct nio_worker *worker)
{
    struct nio_node *node = worker->node;
    size_t wanted = nio_align_up(worker->handle->config.registered_bytes, NIO_REGISTERED_ALIGNMENT);
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE), bytes = wanted;
    int error = -ENOMEM;
    char *memory = nio_io_buffer_alloc(node->arena, wanted, NIO_REGISTERED_ALIGNMENT);
    if (memory)
        error = nio_page_pool_init(&node->registered, memory, wanted);
    if (!error && !nio_driver_has_ring(worker->driver))
        error = -EINVAL;
    while (!error && !node->registration && bytes >= page_bytes) {
        int rc = nio_registration_create(memory, bytes, &node->registration);
        if (rc == -ENOMEM)
            bytes = bytes / 2 / page_bytes * page_bytes;
        else
            error = rc;
    }
    if (!error)
        error = node->registration ? use_registration(worker) : -ENOMEM;
    struct rlimit locked = { 0 };
    (void)getrlimit(RLIMIT_MEMLOCK, &locked); /* only a number for the sentence */
    if (error == -EINVAL)
        nio_driver_add_reason(worker->driver, "no memory is registered: the driver has no rings");
    else if (error || bytes < wanted)
        nio_driver_add_reason(worker->driver,
                              "%zu KiB are registered on node %u instead of %zu KiB: %s; "
                              "RLIMIT_MEMLOCK is %llu KiB (ulimit -l)",
                              error ? 0 : bytes >> 10, node->index, wanted >> 10,
                              strerrordesc_np(error ? -error : ENOMEM),
                              (unsigned long long)locked.rlim_cur >> 10);
    if (error) {
        nio_registration_destroy(node->registration);
        node->registration = NULL;
        nio_page_pool_fini(&node->registered);
        nio_io_buffer_free(node->arena, memory, wanted, NIO_REGISTERED_ALIGNMENT);
        return;
    }
    nio_page_pool_shrink(&node->registered, bytes);
}

static void register_memory(struct nio_worker *worker)
{
    struct nio_node *node = worker->node;
    if (worker->index_in_node == 0) {
        make_registered(worker);
        return;
    }
    if (node->registered.bytes == 0)
        return; /* the leader has said why */
    int error = use_registration(worker);
    if (error)
        nio_driver_add_reason(worker->driver, "worker %u does not know the registered memory: %s",
                              worker->index, strerrordesc_np(-error));
}

static int make_driver(struct nio_worker *worker)
{
    struct numio_handle *handle = worker->handle;
    struct nio_node *node = worker->node;
    const struct nio_plan_node *plan = node->plan;
    bool is_shared = plan->sq_place == NIO_SQ_SHARED || plan->sq_place == NIO_SQ_NONE;
    unsigned idle_ms = handle->config.sq_idle_ms;
    if (idle_ms == 0)
        idle_ms = is_shared ? 1 : handle->config.idle == NUMIO_IDLE_SPIN ? 1000 : 10;
    bool has_spare = plan->spare_cpu_count > 0;
    struct nio_driver_options options = {
        .profile = handle->profile,
        .entries = handle->config.ring_entries,
        .attach_fd = node->leader_ring_fd,
        .sq_cpu = plan->sq_bind_cpu,
        .sq_mask = plan->bind_cpus,
        .sq_mask_count = plan->bind_cpu_count,
        .sq_idle_ms = idle_ms,
        .sq_shares_core = is_shared,
        .sq_has_rings = node->worker_count > 1,
        .napi_us = handle->config.napi_busy_poll_us,
        .napi_prefer = handle->config.napi_prefer_busy_poll,
        .iowq_cpus = has_spare ? plan->spare_cpus : plan->bind_cpus,
        .iowq_cpu_count = has_spare ? plan->spare_cpu_count : plan->bind_cpu_count,
        .timeline = &handle->timeline,
        .offload = offload_to_pool,
        .offload_context = worker,
    };
    int rc = nio_driver_create(&options, &worker->driver);
    if (rc == 0 && handle->config.registered_bytes > 0)
        register_memory(worker);
    return rc;
}

static int set_up(struct nio_worker *worker)
{
    char name[16];
    (void)snprintf(name, sizeof name, "%.8s-w%u", worker->handle->name, worker->index);
    (void)pthread_setname_np(pthread_self(), name); /* a name is a help only */
    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);   /* without it timeouts are 50 us late */
    pin(worker);
    worker->tid = (int)syscall(SYS_gettid);
    int rc = nio_coro_check();
    if (rc == 0)
        rc = nio_node_arena_adopt_thread(worker->node->arena);
    if (rc == 0)
        rc = nio_overflow_thread_enter(&worker->overflow);
    if (rc == 0)
        rc = make_driver(worker);
    return rc;
}

/* Streams that were never closed, once all workers have left their loops. */
static uint64_t streams_left(const struct numio_handle *handle)
{
    uint64_t left = 0;
    for (unsigned i = 0; i < handle->worker_count; i++)
        left += nio_counter(&handle->workers[i]->counters.streams_opened) -
                nio_counter(&handle->workers[i]->counters.streams_closed);
    return left;
}

static void tear_down(struct nio_worker *worker)
{
    struct nio_driver *driver = worker->driver;
    if (driver) {
        /* Handles outlive the runtime, and somebody may be reading the metrics. */
        nio_lock_acquire(&worker->handle->end_lock);
        nio_driver_counters(driver, &worker->final_io);
        worker->driver = NULL;
        nio_lock_release(&worker->handle->end_lock);
        if (streams_left(worker->handle) > 0)
            nio_driver_abandon(driver);
        nio_driver_destroy(driver);
        nio_recv_buffers_free(worker);
    }
    nio_overflow_thread_leave(&worker->overflow);
    nio_node_arena_restore_thread();
}

/* Tells the starter how it went and waits for its verdict. */
static uint32_t report_and_wait(struct start *start, struct nio_worker *worker, int error)
{
    nio_lock_acquire(&start->lock);
    worker->start_error = error;
    if (error < 0 && start->error == 0) {
        start->error = error;
        (void)snprintf(start->detail, sizeof start->detail, "%s", numio_strerror_detail());
    }
    nio_lock_release(&start->lock);
    bump(&start->ready);
    uint32_t gate;
    /* [ST2] acquire: pairs with [ST1] */
    while ((gate = atomic_load_explicit(&start->gate, memory_order_acquire)) == GATE_WAIT)
        (void)nio_futex_wait(&start->gate, GATE_WAIT, NIO_FUTEX_FOREVER); /* looks again */
    bump(&start->gone);
    return gate;
}

static void *worker_thread(void *arg)
{
    struct ticket *ticket = arg;
    struct nio_worker *worker = ticket->worker;
    struct numio_handle *handle = worker->handle;
    struct start *start = ticket->start;
    nio_free(ticket);
    int error = set_up(worker);
    if (report_and_wait(start, worker, error) == GATE_GO) {
        const struct numio_hooks *hooks = &handle->config.hooks;
        nio_worker_set_current(worker);
        if (hooks->on_thread_start)
            hooks->on_thread_start(worker->index, hooks->arg);
        nio_worker_run(worker);
        if (hooks->on_thread_stop)
            hooks->on_thread_stop(worker->index, hooks->arg);
        bump(&handle->left);
        /* Others may reach for this driver until the starter says that they no longer do. */
        wait_until(&handle->may_leave, 1);
        if (worker->index == 0 && streams_left(handle) > 0)
            (void)fprintf(stderr,
                          "numio: the runtime has ended and %llu streams were not closed by "
                          "numio_stream_close()\n",
                          (unsigned long long)streams_left(handle)); /* a hint only */
        nio_worker_set_current(NULL);
    }
    tear_down(worker);
    return NULL;
}

static int start_thread(struct start *start, struct nio_worker *worker)
{
    struct ticket *ticket = nio_zalloc(sizeof *ticket);
    if (!ticket)
        return nio_error(-ENOMEM, "runtime: no memory to start a worker");
    *ticket = (struct ticket){ start, worker };
    int rc =
        nio_fault_now() ? ENOMEM : nio_thread_start(&worker->thread, NULL, worker_thread, ticket);
    if (rc == 0)
        return 0;
    nio_free(ticket);
    return nio_error(-rc,
                     "workers: thread %u could not be started; check the limits on processes "
                     "(RLIMIT_NPROC, pids.max) and memory",
                     worker->index);
}

/* Starts the leaders, waits for their rings, starts the others.  Returns how many are running. */
static unsigned start_threads(struct start *start, struct nio_worker **started, int *ret_rc)
{
    struct numio_handle *handle = start->handle;
    unsigned count = 0;
    for (unsigned round = 0; round < 2 && *ret_rc == 0; round++) {
        for (unsigned i = 0; i < handle->worker_count && *ret_rc == 0; i++) {
            struct nio_worker *worker = handle->workers[i];
            if ((worker->index_in_node == 0) != (round == 0))
                continue;
            if ((*ret_rc = start_thread(start, worker)) == 0)
                started[count++] = worker;
        }
        wait_until(&start->ready, count);
        if (*ret_rc == 0 && start->error < 0)
            *ret_rc = nio_error(start->error, "%s", start->detail);
        for (unsigned i = 0; i < handle->node_count && *ret_rc == 0; i++)
            if (handle->nodes[i]->workers[0]->driver)
                handle->nodes[i]->leader_ring_fd =
                    nio_driver_ring_fd(handle->nodes[i]->workers[0]->driver);
    }
    return count;
}

/* What the status says of NAPI: what holds on every ring. */
static void note_napi(struct numio_handle *handle)
{
    bool is_asked = handle->config.napi_busy_poll_us > 0;
    for (unsigned i = 0; i < handle->worker_count; i++)
        if (nio_driver_napi_us(handle->workers[i]->driver) == 0)
            handle->config.napi_busy_poll_us = 0;
    if (is_asked && handle->profile == NUMIO_DRIVER_EPOLL)
        nio_handle_add_reason(handle, "napi_busy_poll_us is not used: the driver has no ring");
}

int nio_start_workers(struct numio_handle *handle)
{
    struct start start = { .handle = handle };
    nio_clock_begin();
    nio_lock_init(&start.lock, NIO_RANK_RUNTIME);
    struct nio_worker **started =
        nio_zalloc_array(handle->worker_count, sizeof(struct nio_worker *));
    if (!started)
        return nio_error(-ENOMEM, "runtime: no memory to start its workers");
    int rc = 0;
    unsigned count = start_threads(&start, started, &rc);
    if (rc == 0) {
        for (unsigned i = 0; i < handle->worker_count; i++)
            nio_handle_add_reason(handle, nio_driver_reason(handle->workers[i]->driver));
        note_napi(handle);
        nio_check_sq_threads(handle);
        nio_clock_calibrate(handle->config.clock == NUMIO_CLOCK_SYSTEM);
        rc = nio_cpu_watch_start(handle);
    }
    /* [ST1] release: the verdict, with everything built so far.  Pairs with [ST2]. */
    atomic_store_explicit(&start.gate, rc == 0 ? GATE_GO : GATE_FAIL, memory_order_release);
    nio_futex_wake(&start.gate, INT_MAX);
    wait_until(&start.gone, count);
    if (rc < 0)
        for (unsigned i = 0; i < count; i++)
            (void)pthread_join(started[i]->thread, NULL); /* ours, joined once */
    nio_free(started);
    return rc;
}

void nio_join_workers(struct numio_handle *handle)
{
    wait_until(&handle->left, handle->worker_count); /* a late one still looks at its siblings */
    bump(&handle->may_leave);
    for (unsigned i = 0; i < handle->worker_count; i++)
        (void)pthread_join(handle->workers[i]->thread, NULL); /* ours, joined once */
}
