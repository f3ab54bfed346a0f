/* SPDX-License-Identifier: MIT */
/* CPUs are unplugged and plugged in again, one, and a whole node's, and the cgroup's cpuset shrinks
 * and grows, while a million tasks run and operations are in flight.  By the kernel's word
 * (sched_getaffinity(2), the CPU in /proc/self/task/TID/stat): no thread of the runtime is left on
 * CPUs that are gone, no two active workers share one, and with all CPUs back each thread is bound
 * as at the start.  Every task is counted, and looks where it runs.
 *
 * That needs a machine that may be spoiled: a guest, which says so by NUMIO_SPOIL_MACHINE=1.
 */
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include <numio/io.h>
#include <numio/runtime.h>

#include "tests/numa/numa_kernel.h"

enum {
    WORKERS_MAX = 16,
    TASKS_MIN = 1000000,
    BATCH = 500,
    CHECK_MS = 20,
    PATIENCE_S = 20,
    BYTES = 64
};

static const char cgroup[] = "/sys/fs/cgroup/numa_live";

/* --- the load -------------------------------------------------------------------------------- */

static _Atomic uint64_t spawned, ran, strayed, echoed;
static _Atomic uint32_t is_over;
static struct numio_handle *handle;
static struct numio_status status;

static void count(_Atomic uint64_t *counter)
{
    /* relaxed: a sum, compared after the joins */
    (void)atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static uint64_t value(const _Atomic uint64_t *counter)
{
    /* relaxed: as above */
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static bool has_ended(void)
{
    /* relaxed: a moment later is as good */
    return atomic_load_explicit(&is_over, memory_order_relaxed) != 0;
}

/* Where a task must run; -1: anywhere. */
struct place {
    int16_t node, worker;
};

static enum numio_poll count_here(void *state, struct numio_context *cx)
{
    const struct place *place = state;
    (void)cx;
    if ((place->node >= 0 && place->node != numio_current_node()) ||
        (place->worker >= 0 && place->worker != numio_current_worker()))
        count(&strayed);
    count(&ran);
    return NUMIO_READY;
}

/* Feeds one worker's worth of tasks of all kinds: anywhere, to its node, to its worker. */
static int64_t feed(void *arg)
{
    struct place mine = *(struct place *)arg;
    struct numio_join *joins[BATCH];
    while (!has_ended() || value(&spawned) < TASKS_MIN) {
        for (unsigned i = 0; i < BATCH; i++) {
            struct numio_spawn_opts opts;
            struct place place = { -1, -1 };
            numio_spawn_opts_init(&opts, sizeof opts);
            opts.affinity = (enum numio_affinity)(i % 3);
            if (opts.affinity == NUMIO_AFFINITY_NODE)
                opts.node = place.node = mine.node;
            if (opts.affinity == NUMIO_AFFINITY_WORKER)
                opts.worker = place.worker = mine.worker;
            struct numio_future future = { .poll = count_here,
                                           .state = &place,
                                           .size = sizeof place };
            numa_must(numio_spawn(NULL, &future, &opts, &joins[i]), "spawn");
            count(&spawned);
        }
        for (unsigned i = 0; i < BATCH; i++)
            numa_must(numio_join_await(&joins[i]), "join");
    }
    return 0;
}

static int64_t echo(void *arg)
{
    char buf[BYTES];
    int fd = *(int *)arg;
    int64_t n;
    while ((n = numio_recv(fd, buf, sizeof buf, 0)) > 0 &&
           (n = numio_send_all(fd, buf, (size_t)n, 0)) > 0)
        continue;
    (void)numio_close(fd); /* the other end is closed */
    return n;
}

/* Pinned to a worker: operations in flight on its ring, and timers, all the time. */
static int64_t talk(void *arg)
{
    struct place mine = *(struct place *)arg;
    struct numio_join *join;
    int fds[2];
    char buf[BYTES] = "";
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return -errno;
    numa_must(numio_spawn_co(NULL, echo, &fds[1], NULL, &join), "spawn");
    while (!has_ended()) {
        if (mine.worker != numio_current_worker())
            count(&strayed);
        if (numio_send_all(fds[0], buf, sizeof buf, 0) != BYTES ||
            numio_recv_all(fds[0], buf, sizeof buf, 0) != BYTES || numio_sleep_ns(100000) != 0)
            return -EIO;
        count(&echoed);
    }
    int64_t rc = numio_close(fds[0]);
    return rc < 0 ? rc : numio_join_await(&join);
}

static struct place places[WORKERS_MAX];
static struct numio_join *feeders[WORKERS_MAX], *talkers[WORKERS_MAX];

static void start_load(void)
{
    /* relaxed: nothing runs yet */
    atomic_store_explicit(&is_over, 0, memory_order_relaxed);
    _Atomic uint64_t *counters[] = { &spawned, &ran, &strayed, &echoed };
    for (unsigned i = 0; i < 4; i++)
        /* relaxed: as above */
        atomic_store_explicit(counters[i], 0, memory_order_relaxed);
    for (unsigned i = 0; i < status.workers; i++) {
        struct numio_worker_status worker;
        struct numio_spawn_opts opts;
        numa_must(numio_worker_status(handle, i, &worker), "worker status");
        places[i] = (struct place){ (int16_t)worker.node, (int16_t)i };
        numa_must(numio_spawn_co(handle, feed, &places[i], NULL, &feeders[i]), "spawn");
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.affinity = NUMIO_AFFINITY_WORKER;
        opts.worker = (int)i;
        numa_must(numio_spawn_co(handle, talk, &places[i], &opts, &talkers[i]), "spawn");
    }
}

static void end_load(void)
{
    int64_t bad = 0;
    /* relaxed: as in has_ended() */
    atomic_store_explicit(&is_over, 1, memory_order_relaxed);
    for (unsigned i = 0; i < status.workers; i++) {
        int64_t rc = numio_join_wait(&feeders[i], -1);
        bad = rc != 0 ? rc : bad;
        rc = numio_join_wait(&talkers[i], -1);
        bad = rc != 0 ? rc : bad;
    }
    numa_check(bad == 0, "every operation succeeds", "%s", strerror((int)-bad));
    numa_check(value(&ran) == value(&spawned) && value(&ran) >= TASKS_MIN, "every task is run",
               "%llu of %llu", (unsigned long long)value(&ran),
               (unsigned long long)value(&spawned));
    numa_check(value(&strayed) == 0, "pinned and node tasks run where they belong", "%llu did not",
               (unsigned long long)value(&strayed));
}

/* --- the kernel's word ----------------------------------------------------------------------- */

static uint64_t bound_at_start[2 * WORKERS_MAX]; /* the workers, then the SQ threads */
static uint64_t pools_at_start[WORKERS_MAX];     /* the CPUs of each node's blocking pool */
static unsigned reasons_at_start;
static uint64_t node_cpus[WORKERS_MAX]; /* of each worker's node, with all plugged in */

static int tid_of(unsigned thread)
{
    struct numio_worker_status worker;
    struct numio_node_status node;
    if (thread < status.workers) {
        numa_must(numio_worker_status(handle, thread, &worker), "worker status");
        return worker.tid;
    }
    numa_must(numio_node_status(handle, thread - status.workers, &node), "node status");
    return node.sq_tid;
}

static unsigned thread_count(void)
{
    return status.workers + (strcmp(status.driver, "sqpoll") == 0 ? status.nodes : 0);
}

static bool is_retired(unsigned index)
{
    struct numio_worker_status worker;
    numa_must(numio_worker_status(handle, index, &worker), "worker status");
    return worker.is_retired;
}

/* The CPU that a thread ran on last: the 39th field of its stat. */
static int cpu_of(int tid)
{
    char path[64], line[KERNEL_LINE_BYTES];
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid); /* fits */
    kernel_read(path, line);
    char *at = strrchr(line, ')');
    for (unsigned field = 2; at && field < 39; field++)
        at = strchr(at + 1, ' ');
    return at ? (int)strtol(at, NULL, 10) : -1;
}

/* Nobody is on CPUs that are gone; who has its CPU is bound to it; who has lost it and is active
 * has another of its node to itself, if the node has any. */
static bool is_settled(uint64_t left)
{
    uint64_t taken = 0;
    for (unsigned i = 0; i < thread_count(); i++) {
        uint64_t cpus = kernel_cpus_of_thread(tid_of(i));
        if (cpus == 0 || (cpus & ~left) != 0)
            return false;
        if (i >= status.workers)
            continue;
        if ((bound_at_start[i] & left) != 0 && cpus != bound_at_start[i])
            return false;
        bool has_own = !is_retired(i) && (node_cpus[i] & left) != 0;
        if ((has_own && kernel_count(cpus) != 1) || (has_own && (cpus & taken) != 0) ||
            !(left >> cpu_of(tid_of(i)) & 1))
            return false;
        taken |= has_own ? cpus : 0;
    }
    return true;
}

static bool is_as_at_start(uint64_t left)
{
    for (unsigned i = 0; i < thread_count(); i++)
        if (kernel_cpus_of_thread(tid_of(i)) != bound_at_start[i])
            return false;
    for (unsigned i = 0; i < status.workers; i++)
        if (is_retired(i) || 1ull << cpu_of(tid_of(i)) != bound_at_start[i])
            return false;
    return left != 0;
}

static bool wait_for(bool (*holds)(uint64_t left), uint64_t left)
{
    struct timespec pause = { 0, 2000000 };
    for (unsigned i = 0; i < PATIENCE_S * 500; i++) {
        if (holds(left))
            return true;
        (void)nanosleep(&pause, NULL); /* shorter is as good */
    }
    for (unsigned i = 0; i < thread_count(); i++)
        printf("  thread %u (%d): on CPU %d of %#llx, at the start %#llx\n", i, tid_of(i),
               cpu_of(tid_of(i)), (unsigned long long)kernel_cpus_of_thread(tid_of(i)),
               (unsigned long long)bound_at_start[i]);
    for (unsigned i = 0; numio_status_reason(handle, i); i++)
        printf("  %s\n", numio_status_reason(handle, i));
    return false;
}

/* How many of the status's sentences are about workers and SQ threads that are not at home. */
static unsigned count_reasons(void)
{
    unsigned count = 0;
    while (numio_status_reason(handle, count))
        count++;
    return count - reasons_at_start;
}

/* Each worker whose CPU is gone has its sentence, which names it. */
static bool is_explained(uint64_t left)
{
    for (unsigned i = 0; i < status.workers; i++) {
        char name[32];
        bool is_named = (bound_at_start[i] & left) != 0;
        (void)snprintf(name, sizeof name, "worker %u: CPU", i); /* fits */
        for (unsigned k = 0; !is_named && numio_status_reason(handle, k); k++)
            is_named = strstr(numio_status_reason(handle, k), name) != NULL;
        if (!is_named)
            return false;
    }
    return true;
}

static bool says_no_more(uint64_t left)
{
    return count_reasons() == 0 && left != 0;
}

/* Each kind of work goes on: waits for as much again as has been done in a moment. */
static bool goes_on(uint64_t left)
{
    static uint64_t ran_goal, echoed_goal;
    if (left == 0) {
        ran_goal = value(&ran) + 2ull * BATCH * status.workers;
        echoed_goal = value(&echoed) + 5ull * status.workers;
    }
    return value(&ran) >= ran_goal && value(&echoed) >= echoed_goal;
}

/* Where a function on the blocking pool of each node may run. */
static int64_t tell_cpus(void *arg)
{
    *(uint64_t *)arg = kernel_cpus_of_thread(0);
    return 0;
}

static uint64_t pool_cpus(unsigned node)
{
    uint64_t cpus = 0;
    struct numio_spawn_opts opts;
    struct numio_join *join;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.node = (int)node;
    numa_must(numio_spawn_blocking(handle, tell_cpus, &cpus, &opts, &join), "spawn");
    numa_must(numio_join_wait(&join, -1), "join");
    return cpus;
}

/* A pool thread learns of the change with its next function. */
static bool pools_are_as_at_start(uint64_t left)
{
    for (unsigned i = 0; i < status.nodes; i++)
        if (pool_cpus(i) != pools_at_start[i])
            return false;
    return left != 0;
}

static void check_lost(const char *name, uint64_t left)
{
    bool holds = wait_for(is_settled, left);
    numa_check(holds, name, "threads are left on CPUs that are gone, or workers share one");
    numa_check(wait_for(is_explained, left), "the status says why a worker is not at home", "%s",
               name);
    (void)goes_on(0); /* sets the goal */
    numa_check(wait_for(goes_on, 1), "tasks and operations go on without the CPUs", "%s", name);
    uint64_t astray = 0;
    for (unsigned i = 0; i < status.nodes; i++)
        astray |= pool_cpus(i) & ~left;
    numa_check(astray == 0, "blocking functions run on CPUs that are left", "CPUs %#llx are gone",
               (unsigned long long)astray);
}

static void check_back(const char *name)
{
    numa_check(wait_for(is_as_at_start, 1), name, "threads are not where they were");
    numa_check(wait_for(pools_are_as_at_start, 1), "blocking functions run where they did", "%s",
               name);
    numa_check(wait_for(says_no_more, 1), "and the status has no more to say", "%s", name);
}

/* --- taking away and giving back ------------------------------------------------------------- */

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool is_written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        (void)close(fd);
    return is_written;
}

static bool plug(int cpu, bool is_in)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/online", cpu); /* fits */
    return write_file(path, is_in ? "1" : "0");
}

static bool plug_all(uint64_t cpus, bool is_in)
{
    bool is_done = true;
    for (uint64_t left = cpus; left; left &= left - 1)
        is_done &= plug(__builtin_ctzll(left), is_in);
    return is_done;
}

static void unplug(uint64_t cpus, const char *lost, const char *back)
{
    if (!plug_all(cpus, false)) {
        (void)plug_all(cpus, true); /* those that could be unplugged */
        numa_skip(lost, "the kernel does not unplug them");
        return;
    }
    check_lost(lost, kernel_list("/sys/devices/system/cpu/online"));
    (void)plug_all(cpus, true); /* check_back() notices */
    check_back(back);
}

/* All CPUs but 0, which cannot be unplugged, of the node of the last worker. */
static void unplug_cpus(uint64_t allowed)
{
    struct numio_worker_status last;
    numa_must(numio_worker_status(handle, status.workers - 1, &last), "worker status");
    if (last.bind_cpu == 0) {
        numa_skip("a worker's CPU is unplugged", "CPU 0 cannot be");
        return;
    }
    unplug(UINT64_C(1) << last.bind_cpu, "a worker's CPU is unplugged",
           "with its CPU back a worker is at home");
    uint64_t node = node_cpus[status.workers - 1] & allowed;
    if ((node & 1) || (allowed & ~node) == 0)
        numa_skip("all CPUs of a node are unplugged", "there is no other node");
    else
        unplug(node, "all CPUs of a node are unplugged", "with its CPUs back a node is at home");
}

static void list_text(uint64_t cpus, char *ret_text, size_t bytes)
{
    size_t used = 0;
    for (uint64_t left = cpus; left; left &= left - 1)
        used += (size_t)snprintf(ret_text + used, bytes - used, "%s%d", used ? "," : "",
                                 __builtin_ctzll(left)); /* fits */
}

/* A cgroup of its own, with all CPUs that it may use: before the runtime is made. */
static bool enter_cpuset(uint64_t allowed)
{
    char path[128], text[256];
    list_text(allowed, text, sizeof text);
    (void)write_file("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset"); /* it may be there */
    if (mkdir(cgroup, 0755) != 0 && errno != EEXIST)
        return false;
    (void)snprintf(path, sizeof path, "%s/cpuset.cpus", cgroup); /* fits */
    if (!write_file(path, text))
        return false;
    (void)snprintf(path, sizeof path, "%s/cgroup.procs", cgroup); /* fits */
    return write_file(path, "0");
}

static void shrink_cpuset(uint64_t allowed)
{
    char path[128], text[256];
    uint64_t half = allowed;
    while (kernel_count(half) > (kernel_count(allowed) + 1) / 2)
        half &= ~(UINT64_C(1) << (63 - __builtin_clzll(half)));  /* the last ones go */
    (void)snprintf(path, sizeof path, "%s/cpuset.cpus", cgroup); /* fits */
    for (unsigned i = 0; i < 2; i++) {
        list_text(i == 0 ? half : allowed & ~half, text, sizeof text);
        if (!numa_check(write_file(path, text), "the cpuset shrinks", "%s", strerror(errno)))
            return;
        check_lost(i == 0 ? "the cpuset lost its last CPUs" : "the cpuset has only its last CPUs",
                   i == 0 ? half : allowed & ~half);
        list_text(allowed, text, sizeof text);
        numa_check(write_file(path, text), "the cpuset grows", "%s", strerror(errno));
        check_back("with the cpuset grown everybody is at home");
    }
}

/* One runtime, from which everything is taken and given back. */
static void check_runtime(uint64_t allowed, bool has_cpuset)
{
    struct numio_config config;
    struct numio_runtime *runtime;
    numa_must(numio_config_init(&config, sizeof config), "config");
    config.driver = NUMIO_DRIVER_SQPOLL;
    config.cpu_check_ms = CHECK_MS;
    numa_must(numio_runtime_create(&config, &runtime), "create");
    handle = numio_runtime_handle(runtime);
    numa_must(numio_status(handle, &status), "status");
    numa_must(status.workers <= WORKERS_MAX ? 0 : -1, "the test knows fewer workers");
    for (unsigned i = 0; i < thread_count(); i++)
        bound_at_start[i] = kernel_cpus_of_thread(tid_of(i));
    for (unsigned i = 0; i < status.workers; i++)
        for (int node = 0; node < KERNEL_NODES_MAX; node++)
            if (kernel_cpus_of_node(node) & bound_at_start[i])
                node_cpus[i] = kernel_cpus_of_node(node);
    for (unsigned i = 0; i < status.nodes; i++)
        pools_at_start[i] = pool_cpus(i);
    reasons_at_start = 0;
    reasons_at_start = count_reasons();
    start_load();
    if (has_cpuset)
        shrink_cpuset(allowed);
    unplug_cpus(allowed);
    end_load();
    numa_must(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), "shutdown");
    numio_runtime_destroy(runtime);
}

int main(void)
{
    uint64_t allowed = kernel_cpus_of_thread(0);
    const char *spoil = getenv("NUMIO_SPOIL_MACHINE");
    if (kernel_count(allowed) < 2 || !spoil || spoil[0] != '1') {
        numa_skip("CPUs that come and go", "one CPU, or NUMIO_SPOIL_MACHINE is not 1");
        return numa_end();
    }
    check_runtime(allowed, false); /* without a cpuset of one's own kernels restore less */
    if (enter_cpuset(allowed))
        check_runtime(allowed, true);
    else
        numa_skip("the cpuset shrinks", "no cgroup can be made (that takes root and cgroup v2)");
    return numa_end();
}
