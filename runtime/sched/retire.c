/* SPDX-License-Identifier: MIT */
/* A worker that has lost its CPU and found no free one retires: it serves what no other worker can
 * serve, and shares a CPU for that with workers that have one.
 *
 * What only it can serve: the tasks that are pinned to it, the mailbox, its own ring and timers.
 * Everything else that gets into its hands, from its queues when it retires and from what the tasks
 * that it still polls spawn or wake later, it gives to its node by the inject and overflow queues.
 * It takes nothing from there and robs nobody, and it is not in the node's idle set, so nobody
 * wakes it for stealable work.  A node always keeps a worker that is active (numa/replan.h).
 *
 *   ACTIVE --order RETIRE, seen by nio_follow_order()--> RETIRED, in nio_serve_retired()
 *   RETIRED --order without RETIRE, or the runtime is closing--> ACTIVE, in the loop of run.c
 *
 * order        written by any thread (nio_worker_order()), which then unparks the worker
 * order_seen, is_retired, is_leaving, can_spin   the owner's
 * resting      the node's count of retired workers that are parked: RMW by the owner around its
 *              park.  For the election of a watcher only (sleep.c): a retired worker that is awake
 *              may be in a long poll like any other, one that is parked need not be watched.
 *
 * No order is lost: it is written before the unpark, which is one exchange on the parker's word;
 * the owner parks by a CAS on that word.  Retired, it looks at the order after each park; active,
 * it may also consume the wake while it spins, and so looks again before it parks (is_called() in
 * sleep.c).
 * No task is lost: a worker that retires as a searcher stands for wakes that were not sent because
 * of it (idle.h), so it ends its search as if it had found something, which wakes the next.  What
 * it gives away is pushed before the idle state is looked at, as any injected task is.
 *
 * While the runtime closes there are no retired workers: all hands end what is left.
 * The hot loop knows nothing of this: it ends by `is_leaving`, as at the end of the runtime.
 */
#include "runtime/sched/ranked.h"
#include "runtime/sched/source.h"
#include "runtime/sched/still.h"
#include "runtime/sched/worker.h"

void nio_worker_order(struct nio_worker *worker, uint32_t order)
{
    /* relaxed: ordered by the unpark, [PK2] in parker.c */
    atomic_store_explicit(&worker->order, order, memory_order_relaxed);
    nio_wake_worker(worker, NULL);
}

static void retire(struct nio_worker *worker)
{
    NIO_ASSERT(worker->has_peers);
    worker->is_retired = true;
    worker->is_leaving = true;
    nio_end_idle(worker);
    worker->thrift = (struct nio_thrift){ 0 };
}

void nio_follow_order(struct nio_worker *worker)
{
    /* relaxed: see nio_has_order() */
    uint32_t order = atomic_load_explicit(&worker->order, memory_order_relaxed);
    worker->order_seen = order;
    worker->can_spin = !worker->handle->plan->is_oversubscribed && !(order & NIO_ORDER_NO_SPIN);
    bool retires = (order & NIO_ORDER_RETIRE) && nio_phase(worker->handle) == NIO_PHASE_RUNNING;
    if (retires && !worker->is_retired) {
        retire(worker);
    } else if (!retires && worker->is_retired) {
        worker->is_retired = false;
        worker->is_leaving = false;
        nio_restart_turns(worker);
    }
}

/* Empties one of the local queues into a queue of the node. */
static void give_queue(struct nio_worker *worker, enum nio_queue_class which)
{
    struct nio_node *node = worker->node;
    struct nio_mpsc_node *first = NULL, *last = NULL;
    struct nio_task *task;
    uint32_t count = 0;
    while ((task = nio_local_queue_pop(&worker->queues[which], true))) { /* at most its slots */
        if (last)
            last->next = &task->link;
        else
            first = &task->link;
        last = &task->link;
        count++;
    }
    if (count == 0)
        return;
    enum nio_reach reach = which == NIO_QUEUE_NODE ? NIO_REACH_NODE : NIO_REACH_ANY;
    struct nio_inject *queue =
        which == NIO_QUEUE_NEW ? &node->overflow[reach] : &node->inject[reach];
    nio_inject_push(queue, first, last, count);
    nio_offer_injected(node, reach, worker);
}

static void give_away(struct nio_worker *worker)
{
    struct nio_task *task = nio_lifo_pop(&worker->lifo, true);
    if (task)
        nio_schedule_local(worker, task, NIO_PLACE_TAIL);
    nio_lifo_set_open(&worker->lifo, true);
    for (unsigned which = 0; which < NIO_QUEUE_COUNT; which++)
        give_queue(worker, (enum nio_queue_class)which);
    worker->has_quiet_work = false; /* all of it was offered */
}

static void rest(struct nio_worker *worker)
{
    const struct numio_hooks *hooks = &worker->handle->config.hooks;
    if (hooks->on_thread_park)
        hooks->on_thread_park(worker->index, hooks->arg);
    if (worker->watched_afar)
        nio_watch_hand_on(worker);
    nio_count(&worker->counters.parks, 1);
    /* relaxed: counts, publishes nothing */
    (void)atomic_fetch_add_explicit(&worker->node->resting, 1, memory_order_relaxed);
    nio_worker_park(worker, -1);
    /* relaxed: as above */
    (void)atomic_fetch_sub_explicit(&worker->node->resting, 1, memory_order_relaxed);
    if (hooks->on_thread_unpark)
        hooks->on_thread_unpark(worker->index, hooks->arg);
}

bool nio_serve_retired(struct nio_worker *worker, bool may_block)
{
    if (!worker->is_retired)
        return false;
    if (nio_has_order(worker) || nio_phase(worker->handle) != NIO_PHASE_RUNNING)
        nio_follow_order(worker);
    if (!worker->is_retired)
        return false;
    (void)nio_take_mail(worker); /* into the private queue */
    nio_sources_arm(worker);
    (void)nio_reap_own(worker); /* what it wakes is there too, or is given away */
    give_away(worker);
    struct nio_task *task = nio_take_ranked_own(worker);
    if (!task)
        task = nio_pop_private(worker);
    if (task) {
        nio_run_task(worker, task);
        give_away(worker);
        worker->flush_credit -= worker->flush_cost;
        worker->flush_cost = NIO_FLUSH_COST;
        if (worker->flush_credit > 0)
            return true;
    }
    nio_flush_own(worker);
    nio_slab_outbox_flush(&worker->outbox);
    if (task)
        return true;
    if (may_block && !nio_driver_has_completions(worker->driver))
        rest(worker);
    return true;
}
