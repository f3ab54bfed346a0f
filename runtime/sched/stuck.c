/* SPDX-License-Identifier: MIT */
#include "runtime/sched/stuck.h"

#include "runtime/base/clock.h"
#include "runtime/sched/ranked.h"
#include "runtime/sched/worker.h"

/* --- the watchers ---------------------------------------------------------------------------- */

/* Some worker of the node is awake, that is, may be stuck with work that others could do. */
static bool has_busy_worker(const struct nio_node *node)
{
    uint32_t state = nio_idle_load(&node->idle);
    /* relaxed: how many of them rest, a moment ago; see retire.c */
    uint32_t resting = atomic_load_explicit(&node->resting, memory_order_relaxed);
    return nio_idle_sleeping(state) + resting < node->worker_count;
}

/* Nobody of the node sleeps: it cannot help itself if all are stuck. */
static bool is_full(const struct nio_node *node)
{
    return nio_idle_sleeping(nio_idle_load(&node->idle)) == 0 && has_busy_worker(node);
}

static bool other_node_is_full(const struct nio_worker *worker)
{
    const struct numio_handle *handle = worker->handle;
    for (unsigned i = 0; i < handle->node_count; i++)
        if (handle->nodes[i] != worker->node && is_full(handle->nodes[i]))
            return true;
    return false;
}

static bool is_elected(_Atomic uint32_t *flag)
{
    uint32_t nobody = 0;
    /* [FW1] seq_cst: a pusher that does not see it sees the sleep that was announced before.  Pairs
     * with [FW2].  relaxed on failure: somebody else watches. */
    return atomic_compare_exchange_strong_explicit(flag, &nobody, 1, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

unsigned nio_watch_begin(struct nio_worker *worker)
{
    struct nio_node *node = worker->node;
    struct numio_handle *handle = worker->handle;
    unsigned duties = 0;
    if (node->worker_count > 1 && has_busy_worker(node) && is_elected(&node->watcher))
        duties |= NIO_WATCH_HOME;
    if (handle->node_count > 1 && other_node_is_full(worker) && is_elected(&handle->far_watcher))
        duties |= NIO_WATCH_FAR;
    worker->watched_afar = (duties & NIO_WATCH_FAR) != 0;
    return duties;
}

static void give_up(_Atomic uint32_t *flag)
{
    /* [FW1] seq_cst: before it announces its next sleep.  Pairs with [FW2]. */
    atomic_store_explicit(flag, 0, memory_order_seq_cst);
}

void nio_watch_end(struct nio_worker *worker, unsigned duties)
{
    if (duties & NIO_WATCH_HOME)
        give_up(&worker->node->watcher);
    if (duties & NIO_WATCH_FAR)
        give_up(&worker->handle->far_watcher);
}

static bool nobody_watches(const struct numio_handle *handle)
{
    /* [FW2] seq_cst: after the push, and after its node's last sleeper has left.  Pairs with
     * [FW1]. */
    return atomic_load_explicit(&handle->far_watcher, memory_order_seq_cst) == 0;
}

void nio_watch_hand_on(struct nio_worker *worker)
{
    worker->watched_afar = false;
    if (!other_node_is_full(worker) || !nobody_watches(worker->handle))
        return;
    if (nio_idle_wants_wake(&worker->node->idle))
        nio_wake_node(worker->node, worker);
    else
        nio_wake_far(worker->node, worker);
}

bool nio_watch_is_wanted(struct nio_node *node, struct nio_worker *by)
{
    if (!nobody_watches(node->handle))
        return false;
    uint64_t polls = by ? nio_counter(&by->counters.polls) : 0;
    /* relaxed: a hint; who has called nobody calls again after so many polls */
    bool has_asked = atomic_load_explicit(&node->has_asked, memory_order_relaxed);
    if (by && has_asked && polls < by->far_ask_polls)
        return false;
    if (by)
        by->far_ask_polls = polls + NIO_FAR_ASK_POLLS;
    if (!has_asked)
        /* relaxed: as above */
        atomic_store_explicit(&node->has_asked, true, memory_order_relaxed);
    return true;
}

void nio_watch_ask_anew(struct nio_node *node)
{
    /* relaxed: as above */
    if (atomic_load_explicit(&node->has_asked, memory_order_relaxed))
        atomic_store_explicit(&node->has_asked, false, memory_order_relaxed);
}

/* --- siblings -------------------------------------------------------------------------------- */

/* What a watch looks at. */
struct watched {
    bool (*has_work)(const struct nio_worker *worker);    /* that others could do */
    uint64_t (*mark_of)(const struct nio_worker *worker); /* changes while the worker gets on */
};

static bool has_lifo(const struct nio_worker *worker)
{
    return nio_lifo_peek(&worker->lifo) != NULL;
}

static bool has_queued(const struct nio_worker *worker)
{
    for (unsigned which = 0; which < NIO_QUEUE_COUNT; which++)
        if (nio_local_queue_length(&worker->queues[which]) > 0)
            return true;
    return has_lifo(worker);
}

static uint64_t polls_of(const struct nio_worker *worker)
{
    return nio_counter(&worker->counters.polls);
}

static uint64_t polls_and_spawns_of(const struct nio_worker *worker)
{
    return polls_of(worker) + nio_counter(&worker->counters.spawned);
}

/* One suspect at a time is watched until it has got on or has nothing that others could do, then
 * the next one that has: so a stuck worker is found however many others are just busy.  Returns a
 * sibling that has not got on for NIO_STUCK_NS, NULL if none is known. */
static struct nio_worker *find_stuck(struct nio_worker *worker, struct nio_watch *watch,
                                     const struct watched *watched, uint64_t now_ns)
{
    struct nio_node *node = worker->node;
    if (watch->suspect < node->worker_count) {
        struct nio_worker *suspect = node->workers[watch->suspect];
        if (watched->has_work(suspect) && watched->mark_of(suspect) == watch->mark)
            return now_ns - watch->since_ns >= NIO_STUCK_NS ? suspect : NULL;
    }
    for (unsigned i = 1; i <= node->worker_count; i++) {
        struct nio_worker *next = node->workers[(watch->suspect + i) % node->worker_count];
        if (next == worker || !watched->has_work(next))
            continue;
        *watch = (struct nio_watch){ next->index_in_node, watched->mark_of(next), now_ns };
        break;
    }
    return NULL;
}

/* What a long poll spawns does not help the task that waits in its worker's slot. */
struct nio_task *nio_take_stuck_lifo(struct nio_worker *worker, uint64_t now_ns)
{
    static const struct watched lifo = { has_lifo, polls_of };
    struct nio_worker *victim = find_stuck(worker, &worker->lifo_watch, &lifo, now_ns);
    return victim ? nio_lifo_take(&victim->lifo) : NULL;
}

bool nio_sibling_is_stuck(struct nio_worker *worker, uint64_t now_ns)
{
    static const struct watched queue = { has_queued, polls_and_spawns_of };
    return find_stuck(worker, &worker->queue_watch, &queue, now_ns) != NULL;
}

/* --- other nodes ----------------------------------------------------------------------------- */

/* Tasks that wait for a worker are stuck if it is; those in its node's queues, if all of it are. */
static uint64_t far_mark_of(const struct nio_worker *worker)
{
    uint64_t mark = 0;
    if (nio_far_depth(worker) > 0)
        return polls_and_spawns_of(worker);
    for (unsigned i = 0; i < worker->node->worker_count; i++)
        mark += polls_and_spawns_of(worker->node->workers[i]);
    return mark;
}

static bool has_work_for_others(const struct nio_worker *worker)
{
    return nio_far_depth(worker) > 0 || nio_node_far_depth(worker->node) > 0;
}

/* The counters of a busy worker are asked for only so often: each look takes their line from it. */
struct nio_worker *nio_find_stuck_afar(struct nio_worker *worker, uint64_t now_ns)
{
    struct nio_worker **all = worker->handle->workers;
    struct nio_watch *watch = &worker->far_watch;
    unsigned count = worker->handle->worker_count;
    if (watch->suspect < count) {
        struct nio_worker *suspect = all[watch->suspect];
        if (now_ns - watch->since_ns < NIO_FAR_STUCK_NS)
            return NULL;
        if (has_work_for_others(suspect) && far_mark_of(suspect) == watch->mark)
            return suspect;
    }
    for (unsigned i = 1; i <= count; i++) {
        struct nio_worker *next = all[(watch->suspect + i) % count];
        if (next->node == worker->node || !has_work_for_others(next))
            continue;
        *watch = (struct nio_watch){ next->index, far_mark_of(next), now_ns };
        break;
    }
    return NULL;
}
