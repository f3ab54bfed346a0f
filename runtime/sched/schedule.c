/* SPDX-License-Identifier: MIT */
/* Where a notified task is queued, and who is woken for it.
 *
 * From a worker of its own runtime a task goes to that worker: into the LIFO slot if a task has
 * just been woken or spawned by the one that runs (its memory is hot), else to the tail of the
 * local queue.  What the slot held moves to the tail.  From any other thread a task goes to its
 * home node's inject queue.  A task with an affinity goes where that says: to its worker's private
 * queue or mailbox, or to its node.
 *
 * Only what can be stolen is announced: a task in the LIFO slot is run next by its worker and wakes
 * nobody (Tokio 7431: waking for it cost 30 %); a stuck worker's slot is found by the node's
 * watcher (stuck.h).
 */
#include <limits.h>

#include "runtime/sched/ranked.h"
#include "runtime/sched/worker.h"
#include "runtime/task/wake.h"

static enum nio_reach reach_of(const struct nio_task *task)
{
    return nio_task_affinity(task) == NUMIO_AFFINITY_ANY ? NIO_REACH_ANY : NIO_REACH_NODE;
}

/* A thread that is no worker may be held up between the exchange on the parker and the write to the
 * driver's eventfd while the runtime ends; it is counted as a guest, and the drivers are destroyed
 * only when ENDED is visible and no guest is left. */
static NIO_NOINLINE void wake_as_guest(struct nio_worker *worker)
{
    struct nio_node *node = worker->node;
    /* [HG1] seq_cst: counted before the phase is read.  Pairs with [HG2] in shutdown.c, which
     * reads the count after the phase was set. */
    (void)atomic_fetch_add_explicit(&node->guests, 1, memory_order_seq_cst);
    /* [HG1] seq_cst: as above */
    if (atomic_load_explicit(&worker->handle->phase, memory_order_seq_cst) != NIO_PHASE_ENDED)
        (void)nio_parker_unpark(&worker->parker, worker->driver); /* counted by workers only */
    /* [HG3] release: done with the driver.  Pairs with [HG2]. */
    (void)atomic_fetch_sub_explicit(&node->guests, 1, memory_order_release);
}

void nio_wake_worker(struct nio_worker *worker, struct nio_worker *by)
{
    if (NIO_UNLIKELY(!by)) {
        wake_as_guest(worker);
        return;
    }
    if (!nio_parker_unpark(&worker->parker, worker->driver))
        return;
    nio_count(&by->counters.wakes_sent, 1);
    if (by->node != worker->node)
        nio_count(&by->counters.wakes_far, 1);
}

void nio_wake_node(struct nio_node *node, struct nio_worker *by)
{
    if (!nio_idle_wants_wake(&node->idle))
        return;
    bool is_home = by && by->node == node;
    int index = nio_idle_take_sleeper(&node->idle, is_home ? by->index_in_node + 1 : 0,
                                      is_home ? by->llc_peers : NULL);
    if (index >= 0)
        nio_wake_worker(node->workers[index], by);
}

/* Wakes somebody of the node for new work.  True: all of it are busy, and only others could help.
 */
static bool wake_home(struct nio_node *node, struct nio_worker *by)
{
    uint32_t state = nio_idle_load(&node->idle);
    enum nio_policy_wake wake =
        nio_policy_wake(nio_idle_searching(state), nio_idle_sleeping(state));
    if (wake == NIO_WAKE_HOME)
        nio_wake_node(node, by);
    return wake == NIO_WAKE_FAR;
}

/* The nearest node with a sleeper, and nobody who searches, helps.  Its workers all have the other
 * nodes in the same order. */
void nio_wake_far(const struct nio_node *home, struct nio_worker *by)
{
    const struct nio_plan_worker *plan = home->workers[0]->plan;
    for (unsigned i = 0; i < plan->steal_count; i++) {
        struct nio_node *node = home->handle->nodes[plan->steal[i].node];
        if (node != home && nio_idle_wants_wake(&node->idle)) {
            nio_wake_node(node, by);
            return;
        }
    }
}

/* All of the node are busy, and so many tasks wait that others may take. */
static void offer_far(struct nio_node *home, uint32_t depth, struct nio_worker *by)
{
    if (nio_policy_may_leave(depth) || (depth > 0 && nio_watch_is_wanted(home, by)))
        nio_wake_far(home, by);
}

/* Something stealable was pushed to `queue`, seq_cst. */
static void offer(struct nio_worker *worker, const struct nio_local_queue *queue,
                  enum nio_queue_class which)
{
    if (wake_home(worker->node, worker) && worker->handle->node_count > 1 &&
        which != NIO_QUEUE_NODE)
        offer_far(worker->node, nio_local_queue_length(queue), worker);
}

/* How many tasks a worker of another node could find in a worker's queues. */
uint32_t nio_far_depth(const struct nio_worker *victim)
{
    return nio_local_queue_length(&victim->queues[NIO_QUEUE_ANY]) +
           nio_local_queue_length(&victim->queues[NIO_QUEUE_NEW]);
}

void nio_offer_on(struct nio_worker *worker)
{
    struct nio_node *home = worker->node;
    if (!wake_home(home, worker) || worker->handle->node_count == 1)
        return;
    uint32_t deepest = nio_node_far_depth(home);
    for (unsigned i = 0; i < home->worker_count; i++) {
        uint32_t depth = nio_far_depth(home->workers[i]);
        deepest = depth > deepest ? depth : deepest;
    }
    offer_far(home, deepest, worker);
}

NIO_NOINLINE void nio_push_tail(struct nio_worker *worker, struct nio_task *task,
                                enum nio_queue_class which)
{
    struct nio_local_queue *queue = &worker->queues[which];
    bool is_announced = worker->has_peers && !worker->is_batching;
    if (NIO_UNLIKELY(!nio_local_queue_push(queue, task, is_announced))) {
        struct nio_mpsc_node *first = &task->link;
        struct nio_mpsc_node *last = &task->link;
        uint32_t count = nio_local_queue_overflow(queue, &first, &last);
        if (count > 0) {
            last->next = &task->link; /* the new one goes behind those that waited longer */
            last = &task->link;
        }
        enum nio_reach reach = which == NIO_QUEUE_NODE ? NIO_REACH_NODE : NIO_REACH_ANY;
        nio_inject_push(&worker->node->overflow[reach], first, last, count + 1);
        nio_count(&worker->counters.overflowed, count + 1);
        nio_thrift_end(&worker->thrift); /* it will need them itself */
    }
    if (is_announced)
        offer(worker, queue, which);
    else
        worker->has_quiet_work = true;
}

/* Whether tasks of that which may have overflowed. */
static bool has_overflow(const struct nio_node *node, unsigned which)
{
    enum nio_reach reach = which == NIO_QUEUE_NODE ? NIO_REACH_NODE : NIO_REACH_ANY;
    return nio_inject_length(&node->overflow[reach]) > 0;
}

void nio_offer_quiet_work(struct nio_worker *worker)
{
    if (!worker->has_quiet_work)
        return;
    worker->has_quiet_work = false;
    if (!worker->has_peers)
        return;
    for (unsigned which = 0; which < NIO_QUEUE_COUNT; which++) {
        struct nio_local_queue *queue = &worker->queues[which];
        uint32_t length = nio_local_queue_length(queue);
        if (length == 0 && !has_overflow(worker->node, which))
            continue;
        /* The quiet pushes were releases only; this RMW on the tail's own word orders them before
         * the load of the idle state.  [LQ5] seq_cst, pairs with [LQ5] in
         * nio_local_queue_length(). */
        (void)atomic_fetch_add_explicit(&queue->tail, 0, memory_order_seq_cst);
        offer(worker, queue, (enum nio_queue_class)which);
    }
}

void nio_schedule_mailbox(struct nio_worker *worker, struct nio_task *task)
{
    struct nio_worker *by = nio_worker_current();
    (void)nio_mpsc_push(&worker->mailbox, &task->link); /* woken in any case */
    if (!nio_parker_is_awake(&worker->parker))
        nio_wake_worker(worker, by && by->handle == worker->handle ? by : NULL);
}

void nio_schedule_local(struct nio_worker *worker, struct nio_task *task, enum nio_place place)
{
    if (NIO_UNLIKELY(!nio_task_is_plain(task))) {
        bool is_ranked = nio_task_class(task) != NIO_CLASS_NORMAL;
        if (nio_task_affinity(task) == NUMIO_AFFINITY_WORKER) {
            if (task->pinned_worker != worker->index)
                nio_schedule_mailbox(worker->handle->workers[task->pinned_worker], task);
            else if (is_ranked)
                nio_push_ranked_own(worker, task);
            else
                nio_private_push(&worker->mine, task);
            return;
        }
        if (is_ranked) {
            nio_push_ranked(worker->handle, &task->link, &task->link, 1, worker);
            return;
        }
        if (task->node != worker->node->index) {
            struct nio_node *node = worker->handle->nodes[task->node];
            nio_inject_push(&node->inject[NIO_REACH_NODE], &task->link, &task->link, 1);
            nio_wake_node(node, worker);
            return;
        }
    }
    if (place == NIO_PLACE_LIFO && worker->lifo.is_open && !worker->is_batching) {
        task = nio_lifo_swap(&worker->lifo, task, worker->has_peers);
        if (!task)
            return;
    }
    nio_push_tail(worker, task, (enum nio_queue_class)reach_of(task));
}

void nio_offer_injected(struct nio_node *node, enum nio_reach reach, struct nio_worker *by)
{
    if (wake_home(node, by) && reach == NIO_REACH_ANY && node->handle->node_count > 1)
        offer_far(node, nio_node_far_depth(node), by);
}

void nio_schedule_home(struct numio_handle *handle, struct nio_task *task)
{
    if (nio_task_affinity(task) == NUMIO_AFFINITY_WORKER) {
        nio_schedule_mailbox(handle->workers[task->pinned_worker], task);
        return;
    }
    if (NIO_UNLIKELY(nio_task_class(task) != NIO_CLASS_NORMAL)) {
        nio_push_ranked(handle, &task->link, &task->link, 1, NULL);
        return;
    }
    struct nio_node *node = handle->nodes[task->node];
    enum nio_reach reach = reach_of(task);
    nio_inject_push(&node->inject[reach], &task->link, &task->link, 1);
    nio_offer_injected(node, reach, NULL);
}

void nio_schedule(const struct nio_schedule *self, struct nio_task *task)
{
    struct numio_handle *handle =
        NIO_CONTAINER_OF((struct nio_schedule *)(uintptr_t)self, struct numio_handle, schedule);
    struct nio_worker *worker = nio_worker_current();
    if (NIO_UNLIKELY(!nio_is_own_process(handle)))
        return; /* nobody runs it here, and the rings that a wake may use are the parent's */
    if (NIO_UNLIKELY(!worker || worker->handle != handle)) {
        nio_schedule_home(handle, task);
        return;
    }
    if (NIO_LIKELY(nio_task_is_plain(task) && !worker->is_batching && worker->lifo.is_open)) {
        /* The short way of a wake. */
        task = nio_lifo_swap(&worker->lifo, task, worker->has_peers);
        if (NIO_UNLIKELY(task != NULL))
            nio_push_tail(worker, task, (enum nio_queue_class)reach_of(task));
    } else if (worker->is_batching && nio_task_is_plain(task) &&
               nio_local_queue_push(&worker->queues[NIO_QUEUE_ANY], task, false))
        worker->has_quiet_work = true; /* the short way of a completion */
    else
        nio_schedule_local(worker, task, NIO_PLACE_LIFO);
}

static NIO_NOINLINE void release_foreign(struct numio_handle *handle, struct nio_task *task)
{
    struct nio_foreign_stripe *foreign = &handle->nodes[task->node]->foreign;
    if (NIO_UNLIKELY(!nio_is_own_process(handle)))
        return; /* the lock may have been held by a thread that does not exist here */
    nio_lock_acquire(&foreign->lock);
    bool is_post_mortem = foreign->is_post_mortem;
    nio_slab_free_remote(task);
    nio_lock_release(&foreign->lock);
    if (is_post_mortem)
        nio_handle_unref(handle, 1); /* the cell's own reference: the memory goes with the last */
}

void nio_release(const struct nio_schedule *self, struct nio_task *task)
{
    struct numio_handle *handle =
        NIO_CONTAINER_OF((struct nio_schedule *)(uintptr_t)self, struct numio_handle, schedule);
    struct nio_worker *worker = nio_worker_current();
    if (NIO_UNLIKELY(!worker || worker->handle != handle)) {
        release_foreign(handle, task);
        return;
    }
    if (NIO_UNLIKELY(task->home_worker != worker->index))
        nio_count(&worker->counters.remote_frees, 1);
    nio_slab_free(&worker->stripe.slab, &worker->outbox, task);
}
