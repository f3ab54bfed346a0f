/* SPDX-License-Identifier: MIT */
/* The pool's threads.
 *
 * Under a node's lock: its queue, how many of its threads are idle, and how many wakes have been
 * sent that no thread has taken up yet.  A submitter that finds an idle thread without a pending
 * wake sends one (futex on `wakes`); else it starts a thread if the node's share of the cap allows;
 * else the job waits for a busy thread, which looks at the queue before it becomes idle.  So a job
 * never waits while a thread sleeps: becoming idle and looking at the queue are one critical
 * section.  A job for which there is no thread and none can be started is handed back.
 *
 * A thread leaves under the lock, when its keep-alive has passed and no wake is pending, or at the
 * close with an empty queue.  Threads are detached; `threads` counts them down to the end.  It
 * counts one from the moment that somebody is to start it: destroying the pool waits for that, too.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/futex.h"
#include "runtime/base/mem.h"
#include "runtime/base/thread.h"
#include "runtime/blocking/blocking.h"

enum { THREAD_STACK_BYTES = 256 << 10 };

struct pool_node {
    NIO_CACHE_ALIGNED struct nio_lock lock;
    struct nio_blocking *pool;          /* constant */
    unsigned index;                     /* constant */
    struct nio_mpsc_node *first, *last; /* under the lock, as all below */
    unsigned queued, idle, pending_wakes, threads;
    unsigned threads_max; /* constant: the node's share of the cap, at least one */
    bool is_closed;
    _Atomic uint32_t wakes; /* futex; counts up under the lock */
};

struct nio_blocking {
    struct numio_handle *handle; /* constant */
    unsigned queue_max;
    uint64_t keep_alive_ns;
    NIO_CACHE_ALIGNED _Atomic uint32_t threads; /* that run or are to start; futex for destroy */
    struct pool_node *nodes;
};

/* The pool whose thread this is. */
static _Thread_local const struct nio_blocking *own_pool;

bool nio_blocking_is_own_thread(const struct nio_blocking *pool)
{
    return pool && own_pool == pool;
}

int nio_blocking_create(struct numio_handle *handle, struct nio_blocking **ret_pool)
{
    struct nio_blocking *pool = nio_zalloc(sizeof *pool);
    if (!pool)
        return -ENOMEM;
    pool->nodes = nio_zalloc_array(handle->node_count, sizeof *pool->nodes);
    if (!pool->nodes) {
        nio_free(pool);
        return -ENOMEM;
    }
    pool->handle = handle;
    pool->queue_max = handle->config.blocking_queue;
    pool->keep_alive_ns = handle->config.blocking_keep_alive_ns < INT64_MAX / 2
                              ? handle->config.blocking_keep_alive_ns
                              : INT64_MAX / 2; /* for ever, and added to the clock it fits */
    atomic_init(&pool->threads, 0);
    for (unsigned i = 0; i < handle->node_count; i++) {
        struct pool_node *node = &pool->nodes[i];
        nio_lock_init(&node->lock, NIO_RANK_BLOCKING);
        node->pool = pool;
        node->index = i;
        node->threads_max = handle->config.blocking_threads / handle->node_count +
                            (i < handle->config.blocking_threads % handle->node_count);
        if (node->threads_max == 0)
            node->threads_max = 1; /* else the node's functions would never run */
        atomic_init(&node->wakes, 0);
    }
    *ret_pool = pool;
    return 0;
}

/* Binds the calling thread to the node's CPUs without a worker, if it has any; the SQ thread's may
 * be one of them.  Where all of them were taken from the process it is where the kernel put it. */
static void place_thread(const struct pool_node *node)
{
    const struct numio_handle *handle = node->pool->handle;
    const struct nio_node *home = handle->nodes[node->index];
    cpu_set_t set;
    cpu_set_t free_set;
    CPU_ZERO(&set);
    for (unsigned i = 0; i < home->plan->bind_cpu_count; i++)
        if (home->plan->bind_cpus[i] >= 0 && home->plan->bind_cpus[i] < CPU_SETSIZE)
            CPU_SET(home->plan->bind_cpus[i], &set);
    free_set = set;
    for (unsigned i = 0; i < home->worker_count; i++) {
        int cpu = handle->plan->workers[home->plan->worker_first + i].bind_cpu;
        if (cpu >= 0 && cpu < CPU_SETSIZE)
            CPU_CLR(cpu, &free_set);
    }
    if (CPU_COUNT(&free_set) > 0 && !handle->config.blocking_on_worker_cpus)
        set = free_set;
    int count = CPU_COUNT(&set);
    if (count > 0)
        (void)sched_setaffinity(0, sizeof set, &set); /* elsewhere it is slower, not wrong */
}

/* The kernel undoes the binding of a thread whose CPUs go, and does not always bring it back with
 * them: so whenever threads of the runtime have been moved. */
static void follow_cpus(const struct pool_node *node, uint32_t *seen)
{
    /* relaxed: a count; asked again before the next job */
    uint32_t changes =
        atomic_load_explicit(&node->pool->handle->seats.changes, memory_order_relaxed);
    if (NIO_LIKELY(changes == *seen))
        return;
    *seen = changes;
    place_thread(node);
}

static void name_thread(const struct pool_node *node)
{
    char name[16];
    (void)snprintf(name, sizeof name, "%.8s-b%u", node->pool->handle->name, node->index);
    (void)pthread_setname_np(pthread_self(), name); /* a name is a help only */
}

/* Under the lock: the next job, NULL if none waits. */
static struct nio_blocking_job *pop(struct pool_node *node)
{
    struct nio_mpsc_node *link = node->first;
    if (!link)
        return NULL;
    node->first = link->next;
    if (!node->first)
        node->last = NULL;
    node->queued--;
    return NIO_CONTAINER_OF(link, struct nio_blocking_job, link);
}

/* Under the lock, which it releases while it sleeps.  False: the thread is to leave. */
static bool wait_for_job(struct pool_node *node)
{
    uint64_t end_ns = nio_now_ns() + node->pool->keep_alive_ns;
    node->idle++;
    while (node->pending_wakes == 0 && !node->is_closed) { /* until woken or too old */
        uint64_t now_ns = nio_now_ns();
        if (now_ns >= end_ns)
            break;
        /* relaxed: changes under the lock only */
        uint32_t seen = atomic_load_explicit(&node->wakes, memory_order_relaxed);
        nio_lock_release(&node->lock);
        (void)nio_futex_wait(&node->wakes, seen, (int64_t)(end_ns - now_ns)); /* looks again */
        nio_lock_acquire(&node->lock);
    }
    node->idle--;
    if (node->pending_wakes == 0)
        return node->first != NULL;
    node->pending_wakes--;
    return true;
}

/* The calling thread, or the one that it could not start, is done with the pool. */
static void leave(struct nio_blocking *pool)
{
    /* [BP1] release: what it did to the pool comes before.  Pairs with [BP2].  Waking a freed
     * word's address afterwards harms nobody. */
    if (atomic_fetch_sub_explicit(&pool->threads, 1, memory_order_release) == 1)
        nio_futex_wake(&pool->threads, INT_MAX);
}

/* A job that was counted has run, or does not stand in the queue any more. */
static void end_job(struct nio_blocking *pool)
{
    /* [BJ2] release: what it has woken is seen by who finds no job left.  Pairs with [BJ1]. */
    (void)atomic_fetch_sub_explicit(&pool->handle->blocking_jobs, 1, memory_order_release);
}

static void *pool_thread(void *arg)
{
    struct pool_node *node = arg;
    struct nio_blocking *pool = node->pool;
    uint32_t moves_seen = 0;
    own_pool = pool;
    name_thread(node);
    place_thread(node);
    nio_lock_acquire(&node->lock);
    for (;;) { /* until the keep-alive or the close ends it */
        struct nio_blocking_job *job = pop(node);
        if (job) {
            bool is_cancelled = node->is_closed;
            nio_lock_release(&node->lock);
            follow_cpus(node, &moves_seen);
            job->run(job, is_cancelled);
            end_job(pool);
            nio_lock_acquire(&node->lock);
        } else if (!wait_for_job(node)) {
            node->threads--;
            break;
        }
    }
    nio_lock_release(&node->lock);
    leave(pool);
    return NULL;
}

/* Starts a thread that has been counted already. */
static int start_thread(struct pool_node *node)
{
    pthread_attr_t attr;
    pthread_t thread;
    int rc = nio_fault_now() ? ENOMEM : pthread_attr_init(&attr);
    if (rc == 0) {
        (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED); /* valid value */
        (void)pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);        /* valid size */
        rc = nio_thread_start(&thread, &attr, pool_thread, node);
        (void)pthread_attr_destroy(&attr); /* cannot fail */
    }
    return -rc;
}

static int refuse(const struct nio_blocking *pool, bool is_closed)
{
    if (is_closed)
        return nio_error(-ESHUTDOWN, "spawn_blocking: the runtime is shutting down");
    return nio_error(-EAGAIN, "spawn_blocking: %u functions wait already; raise blocking_queue",
                     pool->queue_max);
}

/* Under the lock: takes a waiting job out again.  False: a thread has taken it already. */
static bool withdraw(struct pool_node *node, struct nio_blocking_job *job)
{
    struct nio_mpsc_node *before = NULL;
    struct nio_mpsc_node *link = node->first;
    while (link && link != &job->link) { /* bounded by the queue */
        before = link;
        link = link->next;
    }
    if (!link)
        return false;
    if (before)
        before->next = link->next;
    else
        node->first = link->next;
    if (node->last == link)
        node->last = before;
    node->queued--;
    return true;
}

/* No thread could be started: fine while others will come by, else the job is handed back. */
static int give_up_thread(struct pool_node *node, struct nio_blocking_job *job)
{
    nio_lock_acquire(&node->lock);
    node->threads--;
    bool is_back = node->threads == 0 && withdraw(node, job);
    nio_lock_release(&node->lock);
    leave(node->pool);
    if (!is_back)
        return 0;
    end_job(node->pool);
    return nio_error(-EAGAIN, "spawn_blocking: no thread could be started; check the limits on "
                              "processes (RLIMIT_NPROC, pids.max) and memory");
}

int nio_blocking_submit(struct nio_blocking *pool, unsigned node_index,
                        struct nio_blocking_job *job)
{
    struct pool_node *node = &pool->nodes[node_index];
    bool wants_wake = false;
    bool wants_thread = false;
    nio_lock_acquire(&node->lock);
    if (!job->is_io && (node->is_closed || node->queued >= pool->queue_max)) {
        bool is_closed = node->is_closed;
        nio_lock_release(&node->lock);
        return refuse(pool, is_closed);
    }
    job->link.next = NULL;
    if (node->last)
        node->last->next = &job->link;
    else
        node->first = &job->link;
    node->last = &job->link;
    node->queued++;
    /* relaxed: a still runtime has no task that submits: sched/still.c */
    (void)atomic_fetch_add_explicit(&pool->handle->blocking_jobs, 1, memory_order_relaxed);
    if (node->idle > node->pending_wakes) {
        node->pending_wakes++;
        wants_wake = true;
        /* relaxed: changes under the lock only; the sleeper compares the value */
        (void)atomic_fetch_add_explicit(&node->wakes, 1, memory_order_relaxed);
    } else if (node->threads < node->threads_max) {
        node->threads++;
        /* relaxed: the lock publishes it.  Counted now, because another thread may run the job and
         * the runtime end before this one has started the new thread. */
        (void)atomic_fetch_add_explicit(&pool->threads, 1, memory_order_relaxed);
        wants_thread = true;
    }
    nio_lock_release(&node->lock);
    if (wants_wake)
        nio_futex_wake(&node->wakes, 1);
    if (!wants_thread || start_thread(node) == 0)
        return 0;
    return give_up_thread(node, job);
}

/* Under the lock: takes the oldest job that is no I/O out of the queue, NULL if there is none. */
static struct nio_blocking_job *pop_cancellable(struct pool_node *node)
{
    struct nio_mpsc_node *link = node->first;
    while (link && NIO_CONTAINER_OF(link, struct nio_blocking_job, link)->is_io)
        link = link->next; /* bounded by the queue */
    if (!link)
        return NULL;
    struct nio_blocking_job *job = NIO_CONTAINER_OF(link, struct nio_blocking_job, link);
    (void)withdraw(node, job); /* it is there: the lock was held */
    return job;
}

void nio_blocking_close(struct nio_blocking *pool)
{
    for (unsigned i = 0; i < pool->handle->node_count; i++) {
        struct pool_node *node = &pool->nodes[i];
        nio_lock_acquire(&node->lock);
        node->is_closed = true;
        /* relaxed: changes under the lock only */
        (void)atomic_fetch_add_explicit(&node->wakes, 1, memory_order_relaxed);
        struct nio_blocking_job *job;
        while ((job = pop_cancellable(node))) { /* bounded by the queue */
            nio_lock_release(&node->lock);
            job->run(job, true);
            end_job(pool);
            nio_lock_acquire(&node->lock);
        }
        nio_lock_release(&node->lock);
        nio_futex_wake(&node->wakes, INT_MAX);
    }
}

void nio_blocking_destroy(struct nio_blocking *pool)
{
    if (!pool)
        return;
    uint32_t threads;
    /* [BP2] acquire: all threads are done with the pool.  Pairs with [BP1]. */
    while ((threads = atomic_load_explicit(&pool->threads, memory_order_acquire)) > 0)
        (void)nio_futex_wait(&pool->threads, threads, NIO_FUTEX_FOREVER); /* looks again */
    nio_free(pool->nodes);
    nio_free(pool);
}

unsigned nio_blocking_threads(const struct nio_blocking *pool)
{
    /* relaxed: a figure for people */
    return atomic_load_explicit(&pool->threads, memory_order_relaxed);
}
