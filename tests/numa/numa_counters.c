/* SPDX-License-Identifier: MIT */
/* The counters between nodes add up, each against what the kernel or the program itself has seen:
 * tasks stolen, wakes, frees, bytes, pages on the wrong node.
 *
 * Two workers, one on each of two nodes, so that who has done something is not in doubt.
 */
#include <arpa/inet.h>
#include <linux/mempolicy.h>
#include <linux/tcp.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include <numio/io.h>
#include <numio/sync.h>

#include "tests/numa/numa_runtime.h"

enum {
    STOLEN = 2000,
    WAKES = 200,
    DETACHED = 10000,
    DETACHED_NS = 2000,
    BLOCK = 4096,
    BLOCKS_UP = 300, /* from the client on the first node to the server on the second */
    BLOCKS_DOWN = 100,
    BUFFER_PAGES = 256,
    MOVED_PAGES = 64,
    PAGE_BYTES = 4096,
    HUGE_BYTES = 2 << 20,
    AROUND_PAGES = 2 * HUGE_BYTES / PAGE_BYTES,
    SLEEP_TRIES = 1000000
};

static struct numa_run run;

/* Tasks that ran; those that ran elsewhere than where they were made.  Any worker. */
static _Atomic uint64_t ran, strayed;

static uint64_t add(_Atomic uint64_t *counter, uint64_t n)
{
    /* relaxed: a sum; who reads it has been told by a join, a semaphore or a shutdown */
    return atomic_fetch_add_explicit(counter, n, memory_order_relaxed) + n;
}

static uint64_t take(_Atomic uint64_t *counter)
{
    /* relaxed: as above */
    return atomic_exchange_explicit(counter, 0, memory_order_relaxed);
}

static struct numio_worker_metrics metrics_of(unsigned worker)
{
    struct numio_worker_metrics m = { .size = sizeof m };
    numa_must(numio_worker_metrics(run.handle, worker, &m), "metrics");
    return m;
}

/* Runs fn(arg) as a coroutine that stays on the worker of `node`. */
static struct numio_join *start_on(unsigned node, int64_t (*fn)(void *arg), void *arg)
{
    struct numio_spawn_opts opts;
    struct numio_join *join;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    opts.worker = (int)numa_node(&run, node).worker_first;
    numa_must(numio_spawn_co(run.handle, fn, arg, &opts, &join), "spawn");
    return join;
}

static void finish(struct numio_join **join, const char *what)
{
    numa_must(numio_join_await(join), what);
}

/* --- tasks stolen ---------------------------------------------------------------------------- */

static enum numio_poll note_home(void *state, struct numio_context *cx)
{
    (void)cx;
    if (run.homes[sched_getcpu()] != *(int *)state)
        (void)add(&strayed, 1);
    (void)add(&ran, 1);
    return NUMIO_READY;
}

/* Its worker does nothing but wait: all that is spawned to its node has to be stolen, once, but for
 * the last, which stands in its LIFO slot. */
static int64_t hold_worker(void *arg)
{
    int home = run.homes[sched_getcpu()];
    struct numio_future future = { .poll = note_home, .state = &home, .size = sizeof home };
    unsigned mine = *(unsigned *)arg;
    for (unsigned i = 0; i <= mine; i++) {
        int rc = numio_spawn(NULL, &future, NULL, NULL);
        if (rc < 0)
            return rc;
    }
    /* relaxed: only its value */
    while (atomic_load_explicit(&ran, memory_order_relaxed) < STOLEN)
        (void)sched_yield(); /* the other worker may need this CPU */
    return 0;
}

/* `mine` of the tasks wait in the held worker's own queues, the rest in its node's. */
static void check_stolen(unsigned mine, const char *name)
{
    int home = run.homes[numa_worker(&run, numa_node(&run, 0).worker_first).bind_cpu];
    struct numio_future future = { .poll = note_home, .state = &home, .size = sizeof home };
    struct numio_spawn_opts opts;
    unsigned thief = numa_node(&run, 1).worker_first;
    uint64_t before = metrics_of(thief).stolen_far;
    struct numio_join *join = start_on(0, hold_worker, &mine);
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.node = 0;
    for (unsigned i = mine; i < STOLEN; i++)
        numa_must(numio_spawn(run.handle, &future, &opts, NULL), "spawn");
    finish(&join, "the held worker");
    while (numio_live_tasks(run.handle) > 0)
        (void)sched_yield(); /* the one of the slot, which nobody joins */
    uint64_t stolen = metrics_of(thief).stolen_far - before, away = take(&strayed);
    uint64_t all = take(&ran);
    numa_check(away == STOLEN && stolen == STOLEN && all == STOLEN + 1, name,
               "%llu counted; of %llu tasks %llu ran away from home", (unsigned long long)stolen,
               (unsigned long long)all, (unsigned long long)away);
}

/* --- wakes ----------------------------------------------------------------------------------- */

static struct numio_semaphore bell;

static int64_t wait_for_bell(void *arg)
{
    for (unsigned i = 0; i < *(unsigned *)arg; i++) {
        int64_t rc = numio_semaphore_acquire(&bell, 1);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Nothing of another node's work tells when its worker sleeps, so this asks until it does.  A
 * thread that the kernel says to sleep may not have been switched away from yet, and is no sleep if
 * it is woken before: so it must have been since the last time. */
static int64_t ring_bell(void *arg)
{
    int tid = numa_worker(&run, numa_node(&run, 1).worker_first).tid;
    uint64_t last = kernel_sleeps_of_thread(tid), slept = 0;
    for (unsigned i = 0; i < *(unsigned *)arg; i++) {
        for (unsigned k = 0; k < SLEEP_TRIES; k++) {
            slept = kernel_sleeps_of_thread(tid);
            if (slept != last && kernel_state_of_thread(tid) == 'S')
                break;
            (void)sched_yield(); /* it is only tried again */
        }
        last = slept;
        numio_semaphore_release(&bell, 1);
    }
    return 0;
}

/* A worker that wakes another node's counts it.  One that has just looked around is not asleep. */
static void check_wakes(void)
{
    unsigned from = numa_node(&run, 0).worker_first, to = numa_node(&run, 1).worker_first;
    unsigned rounds = WAKES;
    int tid = numa_worker(&run, to).tid;
    numa_must(numio_semaphore_init(&bell, 0), "a semaphore");
    struct numio_worker_metrics before = metrics_of(from);
    uint64_t slept_before = kernel_sleeps_of_thread(tid);
    struct numio_join *sleeper = start_on(1, wait_for_bell, &rounds);
    struct numio_join *ringer = start_on(0, ring_bell, &rounds);
    finish(&ringer, "ring");
    finish(&sleeper, "sleep");
    struct numio_worker_metrics after = metrics_of(from);
    uint64_t far = after.wakes_far - before.wakes_far, sent = after.wakes_sent - before.wakes_sent;
    uint64_t slept = kernel_sleeps_of_thread(tid) - slept_before;
    numa_check(far * 10 >= WAKES * 9 && far <= WAKES && far <= sent && slept * 10 >= far * 9,
               "wakes of another node's worker are counted, each once",
               "%llu of %u counted, of %llu sent; the kernel has seen it sleep %llu times",
               (unsigned long long)far, WAKES, (unsigned long long)sent, (unsigned long long)slept);
}

/* --- bytes ----------------------------------------------------------------------------------- */

static int64_t send_blocks(int fd, unsigned count)
{
    static const char block[BLOCK];
    int64_t rc = 0;
    for (unsigned i = 0; i < count && rc >= 0; i++)
        rc = numio_send_all(fd, block, sizeof block, MSG_NOSIGNAL);
    return rc;
}

static int64_t receive_blocks(int fd, unsigned count)
{
    char block[BLOCK];
    int64_t rc = 0;
    for (size_t got = 0; got < (size_t)count * BLOCK && rc >= 0; got += (size_t)rc)
        if ((rc = numio_recv(fd, block, sizeof block, 0)) == 0)
            return -ECONNRESET;
    return rc;
}

static int64_t serve(void *arg)
{
    int64_t rc = receive_blocks(*(int *)arg, BLOCKS_UP);
    return rc < 0 ? rc : send_blocks(*(int *)arg, BLOCKS_DOWN);
}

static int64_t ask(void *arg)
{
    int64_t rc = send_blocks(*(int *)arg, BLOCKS_UP);
    return rc < 0 ? rc : receive_blocks(*(int *)arg, BLOCKS_DOWN);
}

static void connect_pair(int *ret_client, int *ret_server)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr *any = (struct sockaddr *)&address;
    socklen_t bytes = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *ret_client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || *ret_client < 0 || bind(listener, any, bytes) != 0 ||
        listen(listener, 1) != 0 || getsockname(listener, any, &bytes) != 0 ||
        connect(*ret_client, any, bytes) != 0 ||
        (*ret_server = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
        kernel_fail("a connection");
    (void)close(listener); /* nobody else comes */
}

static uint64_t kernel_bytes_received(int fd)
{
    struct tcp_info info = { 0 };
    socklen_t bytes = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0)
        kernel_fail("TCP_INFO");
    return info.tcpi_bytes_received;
}

static void check_bytes(void)
{
    int client, server;
    unsigned workers[] = { numa_node(&run, 0).worker_first, numa_node(&run, 1).worker_first };
    struct numio_worker_metrics before[2], after[2];
    connect_pair(&client, &server);
    for (unsigned i = 0; i < 2; i++)
        before[i] = metrics_of(workers[i]);
    struct numio_join *down = start_on(1, serve, &server), *up = start_on(0, ask, &client);
    finish(&up, "the client");
    finish(&down, "the server");
    for (unsigned i = 0; i < 2; i++)
        after[i] = metrics_of(workers[i]);
    uint64_t in[] = { after[0].bytes_in - before[0].bytes_in,
                      after[1].bytes_in - before[1].bytes_in };
    uint64_t out[] = { after[0].bytes_out - before[0].bytes_out,
                       after[1].bytes_out - before[1].bytes_out };
    uint64_t to_client = kernel_bytes_received(client), to_server = kernel_bytes_received(server);
    numa_check(in[0] == to_client && in[1] == to_server && out[0] == in[1] && out[1] == in[0] &&
                   to_server == (uint64_t)BLOCKS_UP * BLOCK,
               "bytes between nodes are those that TCP has counted",
               "first node: %llu in, %llu out; second: %llu in, %llu out; TCP: %llu and %llu",
               (unsigned long long)in[0], (unsigned long long)out[0], (unsigned long long)in[1],
               (unsigned long long)out[1], (unsigned long long)to_client,
               (unsigned long long)to_server);
    (void)close(client); /* only asked for their counts since */
    (void)close(server);
}

/* --- pages ----------------------------------------------------------------------------------- */

static struct numio_arena_audit audit_first(void)
{
    struct numio_arena_audit audit = { .size = sizeof audit };
    numa_must(numio_arena_audit(run.handle, 0, &audit), "audit");
    return audit;
}

static void move_pages_to(char *first, int node)
{
    void *pages[MOVED_PAGES];
    int nodes[MOVED_PAGES], status[MOVED_PAGES];
    for (unsigned i = 0; i < MOVED_PAGES; i++) {
        pages[i] = first + (size_t)i * PAGE_BYTES;
        nodes[i] = node;
    }
    if (syscall(SYS_move_pages, 0, MOVED_PAGES, pages, nodes, status, MPOL_MF_MOVE) != 0)
        kernel_fail("move_pages");
}

/* How many pages of the huge pages around the buffer are on a node, by the kernel's word. */
static uint64_t count_pages_on(const char *buffer, int node)
{
    static void *pages[AROUND_PAGES];
    static int nodes[AROUND_PAGES];
    uint64_t count = 0;
    uintptr_t first = (uintptr_t)buffer & ~((uintptr_t)HUGE_BYTES - 1);
    for (size_t i = 0; i < AROUND_PAGES; i++)
        pages[i] = (void *)(first + i * PAGE_BYTES);
    kernel_nodes_of_pages(pages, AROUND_PAGES, nodes);
    for (size_t i = 0; i < AROUND_PAGES; i++)
        count += nodes[i] == node;
    return count;
}

/* Somebody moves pages of the first node's arena to the second's: the audit finds just those that
 * the kernel has moved, which may be a whole huge page. */
static void check_moved(char *buffer, int first, int second)
{
    struct numio_arena_audit before = audit_first();
    uint64_t moved = count_pages_on(buffer, second);
    move_pages_to(buffer, second);
    struct numio_arena_audit away = audit_first();
    moved = count_pages_on(buffer, second) - moved;
    move_pages_to(buffer, first);
    struct numio_arena_audit back = audit_first();
    numa_check(moved >= MOVED_PAGES && away.pages_away == before.pages_away + moved &&
                   away.pages_home + moved == before.pages_home &&
                   back.pages_away == before.pages_away && back.pages_home == before.pages_home,
               "pages on the wrong node are counted",
               "home/away: %llu/%llu; %llu moved: %llu/%llu; moved back: %llu/%llu",
               (unsigned long long)before.pages_home, (unsigned long long)before.pages_away,
               (unsigned long long)moved, (unsigned long long)away.pages_home,
               (unsigned long long)away.pages_away, (unsigned long long)back.pages_home,
               (unsigned long long)back.pages_away);
}

static void check_pages(void)
{
    int first = run.homes[numa_worker(&run, numa_node(&run, 0).worker_first).bind_cpu];
    int second = run.homes[numa_worker(&run, numa_node(&run, 1).worker_first).bind_cpu];
    if (first == second) {
        numa_skip("pages on the wrong node are counted", "both nodes have the same memory");
        return;
    }
    char *buffer = numio_io_buffer_alloc(run.handle, 0, (size_t)BUFFER_PAGES * PAGE_BYTES);
    if (!buffer)
        numa_must(-1, "an I/O buffer");
    memset(buffer, 1, (size_t)BUFFER_PAGES * PAGE_BYTES);
    check_moved(buffer, first, second);
    numio_io_buffer_free(run.handle, 0, buffer, (size_t)BUFFER_PAGES * PAGE_BYTES);
}

/* --- frees ----------------------------------------------------------------------------------- */

static sem_t all_ran; /* posted by the last of the detached tasks */

static enum numio_poll note_cpu(void *state, struct numio_context *cx)
{
    (void)cx;
    if (sched_getcpu() != *(int *)state)
        (void)add(&strayed, 1);
    kernel_spin(DETACHED_NS);
    if (add(&ran, 1) == DETACHED)
        (void)sem_post(&all_ran); /* cannot overflow */
    return NUMIO_READY;
}

/* Detached tasks: whoever runs one to its end frees it, so each that the kernel saw on another CPU
 * than its spawner's is one cell that travels home. */
static int64_t spawn_detached(void *arg)
{
    int cpu = sched_getcpu();
    struct numio_future future = { .poll = note_cpu, .state = &cpu, .size = sizeof cpu };
    (void)arg;
    for (unsigned i = 0; i < DETACHED; i++) {
        int rc = numio_spawn(NULL, &future, NULL, NULL);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void sum_up(uint64_t *ret_frees, uint64_t *ret_spawned, uint64_t *ret_completed)
{
    *ret_frees = *ret_spawned = *ret_completed = 0;
    for (unsigned i = 0; i < run.status.workers; i++) {
        struct numio_worker_metrics m = metrics_of(i);
        *ret_frees += m.remote_frees;
        *ret_spawned += m.spawned;
        *ret_completed += m.completed;
    }
}

/* The shutdown is the latch: after it every cell has been freed. */
static void check_frees(void)
{
    uint64_t frees, spawned, completed;
    if (sem_init(&all_ran, 0, 0) != 0)
        kernel_fail("sem_init");
    numa_start(&run, NULL);
    struct numio_join *join = start_on(0, spawn_detached, NULL);
    finish(&join, "the spawner");
    if (sem_wait(&all_ran) != 0)
        kernel_fail("sem_wait");
    numa_must(numio_runtime_shutdown(run.runtime, -1, NULL, 0, NULL), "shutdown");
    uint64_t away = take(&strayed), all = take(&ran);
    sum_up(&frees, &spawned, &completed);
    /* The spawner's own cell came from outside and goes home as well. */
    numa_check(all == DETACHED && frees >= away && frees <= away + 1,
               "cells that travel home are those of tasks that ran elsewhere",
               "%llu ran elsewhere, %llu freed there", (unsigned long long)away,
               (unsigned long long)frees);
    numa_check(spawned == DETACHED && completed == DETACHED + 1 &&
                   numio_live_tasks(run.handle) == 0,
               "every task that was spawned has ended, once", "%llu spawned by workers, %llu ended",
               (unsigned long long)spawned, (unsigned long long)completed);
    numio_runtime_destroy(run.runtime);
}

int main(void)
{
    struct numio_config config;
    char two_cpus[32];
    numa_start(&run, NULL);
    bool has_two = numa_two_cpus(&run, two_cpus, sizeof two_cpus);
    numa_stop(&run);
    if (has_two) {
        numa_must(numio_config_init(&config, sizeof config), "config");
        config.cpus = two_cpus;
        config.driver = NUMIO_DRIVER_DEFER;
        numa_start(&run, &config);
        check_stolen(STOLEN, "tasks stolen of another node's worker are counted, each once");
        check_stolen(0, "and so are those of its inject queue");
        check_wakes();
        check_bytes();
        check_pages();
        numa_stop(&run);
    } else {
        numa_skip("counters between nodes", "there is one node");
    }
    check_frees();
    return numa_end();
}
