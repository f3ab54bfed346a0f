/* SPDX-License-Identifier: MIT */
/* Notices that CPUs were taken from the process or given back, and moves its threads.
 *
 * What the kernel does, on 6.1, 6.12 and 6.18, cpusets of version 1 and 2:
 *   - A thread whose CPU goes offline, or leaves the cgroup's cpuset, is moved to any CPU that is
 *     left, its binding undone.  Nobody is told: the files of a cpuset raise no event, and what
 *     udev hears of a hotplug says nothing about cpusets and taskset.
 *   - When the CPU comes back, newer kernels restore a binding that the cpuset had undone; after a
 *     hotplug outside of a cpuset nobody does, and 6.1 undoes every binding with every change.
 *   - An SQ thread is treated like any other; one that sleeps is moved when it wakes.
 *   - A thread that is not bound at all has exactly the CPUs that the process may use.
 *
 * So one thread of the runtime, which is not bound, looks every cpu_check_ms: its own mask is what
 * the process may use now, and the masks of the workers and SQ threads, compared with what they
 * were bound to last, tell what others did with them.  If anything differs, nio_replan() says where
 * everybody belongs, and this thread binds them there by thread id, also a worker in a long poll,
 * and tells the workers by nio_worker_order() whether to retire and whether to spin.
 *
 * A mask without the planned CPU, although the process may use that, is somebody's wish about this
 * one thread (taskset -p): it is left alone.  A mask that has it among others is the kernel's
 * doing, and is narrowed again.  So is a CPU in it that has come back to the process: the mask that
 * the kernel gave a thread when its own CPU went may name others that went later.  Masks of
 * different threads are not read at the same moment; what looks wrong because of that is put right
 * by the next look.
 *
 * Cost: a look is one system call per worker and per SQ thread, and two more: with the default of
 * one second and 64 workers 70 calls a second, some 20 us of one CPU.  The thread is not bound to a
 * CPU, so it may interrupt a worker for as long as that.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>

#include "runtime/base/error.h"
#include "runtime/base/futex.h"
#include "runtime/base/mem.h"
#include "runtime/base/thread.h"
#include "runtime/lifecycle.h"

/* What is known of one thread. */
struct watched {
    int tid;         /* 0: not watched */
    int home;        /* the CPU it is planned for, -1: several */
    cpu_set_t bound; /* its mask after the last look */
    uint32_t order;  /* workers: what it was told last */
};

struct nio_cpu_watch {
    struct numio_handle *handle;
    pthread_t thread;
    _Atomic uint32_t stop; /* futex: 1 once it is to end */
    cpu_set_t allowed;     /* what the process may use */
    cpu_set_t known;       /* what it could use when it started */
    bool is_unsettled;     /* a binding was refused: the next look tries again */
    /* The workers, and behind them the SQ threads, one per node. */
    unsigned count;
    struct watched *threads;
    bool *is_outside;
    cpu_set_t *outside;
    struct nio_seat *now, *next;
};

static bool is_in(int cpu, const cpu_set_t *set)
{
    return cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(cpu, set);
}

/* True if the thread is bound otherwise than it was left.  `before`: what the process could use at
 * the last look. */
static bool look_at(struct nio_cpu_watch *watch, unsigned i, const cpu_set_t *before)
{
    struct watched *thread = &watch->threads[i];
    cpu_set_t mask;
    if (thread->tid <= 0 || sched_getaffinity(thread->tid, sizeof mask, &mask) != 0)
        return false;
    bool can_be_home = is_in(thread->home, &watch->allowed);
    bool has_changed = !CPU_EQUAL(&mask, &thread->bound);
    if (has_changed) {
        /* Without any CPU it sleeps, and has not been moved yet. */
        if (nio_mask_is_wish(&thread->bound, &mask, before, &watch->allowed))
            watch->is_outside[i] = !is_in(thread->home, &mask) && CPU_COUNT(&mask) > 0;
        watch->outside[i] = mask;
        thread->bound = mask;
    }
    if (!can_be_home)
        watch->is_outside[i] = false;
    return has_changed;
}

/* Binds the thread; what the kernel made of it is what the next look compares with.  False: it was
 * refused, because its CPUs have gone meanwhile, or because they have just come back and the
 * kernel's cpusets do not know it yet. */
static bool bind_thread(const struct nio_cpu_watch *watch, struct watched *thread,
                        const struct nio_seat *seat)
{
    cpu_set_t wanted, set;
    nio_seat_cpus(watch->handle->plan, &watch->allowed, seat, &wanted);
    if (thread->tid <= 0 || CPU_EQUAL(&wanted, &thread->bound))
        return true;
    bool is_done = sched_setaffinity(thread->tid, sizeof wanted, &wanted) == 0;
    if (sched_getaffinity(thread->tid, sizeof set, &set) == 0)
        thread->bound = set;
    return is_done;
}

static void tell(struct nio_cpu_watch *watch, unsigned w)
{
    const struct nio_seat *next = &watch->next[w];
    uint32_t order = (next->is_retired ? NIO_ORDER_RETIRE : 0u) |
                     (next->may_spin ? 0u : (uint32_t)NIO_ORDER_NO_SPIN);
    if (order == watch->threads[w].order)
        return;
    watch->threads[w].order = order;
    nio_worker_order(watch->handle->workers[w], order);
}

static void replan(struct nio_cpu_watch *watch)
{
    struct numio_handle *handle = watch->handle;
    unsigned workers = handle->worker_count;
    struct nio_replan_facts facts = { .allowed = &watch->allowed,
                                      .has_sq = handle->profile == NUMIO_DRIVER_SQPOLL,
                                      .before = watch->now,
                                      .is_outside = watch->is_outside,
                                      .outside = watch->outside,
                                      .is_sq_outside = watch->is_outside + workers,
                                      .sq_outside = watch->outside + workers };
    nio_replan(handle->plan, &facts, watch->next, watch->next + workers);
    watch->is_unsettled = false;
    for (unsigned i = 0; i < watch->count; i++) {
        if (watch->next[i].where == NIO_OUTSIDE ||
            bind_thread(watch, &watch->threads[i], &watch->next[i]))
            continue;
        watch->is_unsettled = true;
        if (watch->next[i].where == NIO_AT_HOME)
            watch->next[i] = watch->now[i]; /* it has not come home yet */
    }
    for (unsigned w = 0; w < workers; w++)
        tell(watch, w);
    cpu_set_t grown;
    CPU_OR(&grown, &watch->allowed, &watch->known);
    nio_seats_set(&handle->seats, handle->plan, watch->next, watch->next + workers,
                  !CPU_EQUAL(&grown, &watch->known));
    struct nio_seat *spare = watch->now;
    watch->now = watch->next;
    watch->next = spare;
}

static void look(struct nio_cpu_watch *watch)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) == 0)
        return; /* its own CPU is on its way out */
    cpu_set_t before = watch->allowed;
    bool has_changed = watch->is_unsettled || !CPU_EQUAL(&allowed, &before);
    watch->allowed = allowed;
    for (unsigned i = 0; i < watch->count; i++)
        has_changed |= look_at(watch, i, &before);
    if (has_changed)
        replan(watch);
}

static void *watch_thread(void *arg)
{
    struct nio_cpu_watch *watch = arg;
    char name[16];
    int64_t period_ns = (int64_t)watch->handle->config.cpu_check_ms * 1000000;
    (void)snprintf(name, sizeof name, "%.8s-cpus", watch->handle->name);
    (void)pthread_setname_np(pthread_self(), name); /* a name is a help only */
    /* relaxed: nothing is read that the stopper wrote */
    while (atomic_load_explicit(&watch->stop, memory_order_relaxed) == 0) {
        look(watch);
        (void)nio_futex_wait(&watch->stop, 0, period_ns); /* a pause that can be cut short */
    }
    return NULL;
}

static void watch_free(struct nio_cpu_watch *watch)
{
    nio_free(watch->threads);
    nio_free(watch->is_outside);
    nio_free(watch->outside);
    nio_free(watch->now);
    nio_free(watch->next);
    nio_free(watch);
}

static struct nio_cpu_watch *watch_new(struct numio_handle *handle)
{
    struct nio_cpu_watch *watch = nio_zalloc(sizeof *watch);
    if (!watch)
        return NULL;
    watch->handle = handle;
    watch->count = handle->worker_count + handle->node_count;
    watch->threads = nio_zalloc_array(watch->count, sizeof *watch->threads);
    watch->is_outside = nio_zalloc_array(watch->count, sizeof *watch->is_outside);
    watch->outside = nio_zalloc_array(watch->count, sizeof *watch->outside);
    watch->now = nio_zalloc_array(watch->count, sizeof *watch->now);
    watch->next = nio_zalloc_array(watch->count, sizeof *watch->next);
    if (watch->threads && watch->is_outside && watch->outside && watch->now && watch->next)
        return watch;
    watch_free(watch);
    return NULL;
}

/* As the plan has it: what differs from that is noticed by the first look. */
static void expect_plan(struct nio_cpu_watch *watch)
{
    const struct numio_handle *handle = watch->handle;
    for (unsigned i = 0; i < watch->count; i++) {
        struct watched *thread = &watch->threads[i];
        unsigned node = i - handle->worker_count;
        bool is_worker = i < handle->worker_count;
        watch->now[i] = is_worker ? nio_seat_of_worker(&watch->handle->seats, i).now
                                  : nio_seat_of_sq(&watch->handle->seats, node).now;
        thread->home =
            is_worker ? handle->plan->workers[i].bind_cpu : handle->plan->nodes[node].sq_bind_cpu;
        if (is_worker && (thread->home < 0 || thread->home >= CPU_SETSIZE))
            continue; /* not bound */
        thread->tid = is_worker ? handle->workers[i]->tid : handle->nodes[node]->sq_tid;
        if (is_worker)
            CPU_SET(thread->home, &thread->bound);
        else if (thread->tid > 0)
            /* sq_check.c has said what is wrong with it at the start */
            (void)sched_getaffinity(thread->tid, sizeof thread->bound, &thread->bound);
    }
}

int nio_cpu_watch_start(struct numio_handle *handle)
{
    cpu_set_t allowed;
    if (handle->config.cpu_check_ms == 0)
        return 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        nio_handle_add_reason(handle, "CPUs that come and go are not noticed: the kernel supports "
                                      "more of them than a cpu_set_t");
        return 0;
    }
    struct nio_cpu_watch *watch = watch_new(handle);
    if (!watch)
        return nio_error(-ENOMEM, "runtime: no memory to watch its CPUs");
    watch->allowed = allowed;
    watch->known = allowed;
    expect_plan(watch);
    int rc = nio_fault_now() ? ENOMEM : nio_thread_start(&watch->thread, NULL, watch_thread, watch);
    if (rc != 0) {
        watch_free(watch);
        return nio_error(-rc, "runtime: the thread that watches its CPUs could not be started; "
                              "check the limits on processes (RLIMIT_NPROC, pids.max) and memory, "
                              "or set cpu_check_ms to 0");
    }
    handle->cpu_watch = watch;
    return 0;
}

void nio_cpu_watch_stop(struct numio_handle *handle)
{
    struct nio_cpu_watch *watch = handle->cpu_watch;
    if (!watch)
        return;
    /* relaxed: as in watch_thread() */
    atomic_store_explicit(&watch->stop, 1, memory_order_relaxed);
    nio_futex_wake(&watch->stop, 1);
    (void)pthread_join(watch->thread, NULL); /* ours, joined once */
    handle->cpu_watch = NULL;
    watch_free(watch);
}
