/* SPDX-License-Identifier: MIT */
/* Where a worker without work looks for some, nearest first.
 *
 *  1. its node's inject queues, then its overflow queues
 *  2. the local queues of its node's workers, those that share its last-level cache first
 *  3. completions that lie in a busy sibling's ring
 *  4. the LIFO slot of a sibling that has been in one poll for NIO_STUCK_NS
 *  5. other nodes, nearest first, as far as policy.h lets; then where nobody gets on (stuck.h);
 * only tasks of affinity "any"
 *
 * Within one distance the first victim is chosen by the worker's random stream.  A steal moves half
 * of the victim's queue into the thief's, which is empty then.
 *
 * nio_sees_work() is the look after announcing a sleep; it uses seq_cst loads (see idle.h).
 */
#include "runtime/base/clock.h"
#include "runtime/sched/ranked.h"
#include "runtime/sched/worker.h"

/* Tasks of others were taken, as far as the worker knows. */
static void took(struct nio_worker *worker, uint32_t count)
{
    struct nio_thrift *thrift = &worker->thrift;
    nio_thrift_took(thrift, count, thrift->began_ns == 0 ? nio_now_ns() : 0);
}

/* Whose the tasks of a node's queue are. */
enum origin {
    FROM_OUTSIDE = 0,  /* no worker has had them yet */
    FROM_OVERFLOW = 1, /* some other worker has */
    FROM_AFAR = 2      /* they are another node's */
};

/* Takes a share of `from`, which holds `length` tasks, at most `max`, into one of the worker's
 * queues.  `origin`: bits of enum origin. */
static NIO_NOINLINE struct nio_task *take_share(struct nio_worker *worker, struct nio_inject *from,
                                                struct nio_local_queue *into, uint32_t max,
                                                uint32_t length, unsigned origin)
{
    uint32_t share = origin & FROM_AFAR ? nio_policy_share(length, false)
                                        : length / worker->node->worker_count + 1;
    uint32_t room = nio_local_queue_room(into);
    if (max > share)
        max = share;
    if (max > room + 1)
        max = room + 1; /* the first is not queued */
    uint32_t count;
    struct nio_task *task = nio_inject_take(from, into, max, &count);
    nio_count(&worker->counters.inject_taken, count);
    if (origin & FROM_AFAR)
        nio_count(&worker->counters.stolen_far, count);
    if (origin != FROM_OUTSIDE && task)
        took(worker, count);
    if (count > 1) {
        worker->has_quiet_work = true; /* the rest can be stolen */
        nio_offer_quiet_work(worker);
    }
    return task;
}

/* The same, if there is any: asked several times before each pause. */
static NIO_ALWAYS_INLINE struct nio_task *take_batch(struct nio_worker *worker,
                                                     struct nio_inject *from,
                                                     struct nio_local_queue *into, uint32_t max,
                                                     unsigned origin)
{
    /* relaxed: only to size the batch */
    uint32_t length = atomic_load_explicit(&from->length, memory_order_relaxed);
    return length == 0 ? NULL : take_share(worker, from, into, max, length, origin);
}

/* What comes from outside is served in order and in large batches. */
static struct nio_task *take_injected(struct nio_worker *worker, struct nio_node *node,
                                      enum nio_reach reach, unsigned origin)
{
    return take_batch(worker, &node->inject[reach], &worker->queues[reach],
                      NIO_LOCAL_QUEUE_SLOTS / 2, origin);
}

/* Overflow comes back in small batches, among the new tasks: a large batch would be displaced again
 * by what its tasks spawn, and would turn a tree of tasks breadth first (fib27: 2.7 times slower
 * with 128). */
static struct nio_task *take_overflow(struct nio_worker *worker, struct nio_node *node,
                                      enum nio_reach reach, uint32_t max, unsigned origin)
{
    enum nio_queue_class which = reach == NIO_REACH_ANY ? NIO_QUEUE_NEW : NIO_QUEUE_NODE;
    return take_batch(worker, &node->overflow[reach], &worker->queues[which], max, origin);
}

struct nio_task *nio_take_injected(struct nio_worker *worker)
{
    struct nio_task *task = take_injected(worker, worker->node, NIO_REACH_ANY, FROM_OUTSIDE);
    return task ? task : take_injected(worker, worker->node, NIO_REACH_NODE, FROM_OUTSIDE);
}

struct nio_task *nio_take_overflow(struct nio_worker *worker, uint32_t max)
{
    if (NIO_UNLIKELY(worker->thrift.pause_ns != 0) && nio_now_ns() < worker->thrift.until_ns)
        return NULL;
    struct nio_task *task = take_overflow(worker, worker->node, NIO_REACH_ANY, max, FROM_OVERFLOW);
    return task ? task : take_overflow(worker, worker->node, NIO_REACH_NODE, max, FROM_OVERFLOW);
}

static struct nio_task *steal_from(struct nio_worker *worker, struct nio_worker *victim,
                                   bool is_near)
{
    /* New tasks first: the oldest of them is the root of the largest branch. */
    static const enum nio_queue_class order[] = { NIO_QUEUE_NEW, NIO_QUEUE_ANY, NIO_QUEUE_NODE };
    unsigned classes = is_near ? NIO_ARRAY_LEN(order) : NIO_ARRAY_LEN(order) - 1;
    for (unsigned i = 0; i < classes; i++) {
        struct nio_local_queue *from = &victim->queues[order[i]];
        uint32_t count, length = nio_local_queue_length(from);
        if (length == 0)
            continue;
        uint32_t max = nio_thrift_max(&worker->thrift, nio_policy_share(length, is_near));
        struct nio_task *task = nio_local_queue_steal(from, &worker->queues[order[i]], max, &count);
        if (!task)
            continue;
        took(worker, count);
        nio_count(is_near ? &worker->counters.stolen_near : &worker->counters.stolen_far, count);
        return task;
    }
    return NULL;
}

/* End of the group of targets of one tier and distance that starts at `first`. */
static unsigned group_end(const struct nio_plan_worker *plan, unsigned first)
{
    unsigned end = first + 1;
    while (end < plan->steal_count && plan->steal[end].tier == plan->steal[first].tier &&
           plan->steal[end].distance == plan->steal[first].distance)
        end++;
    return end;
}

static struct nio_task *steal_near(struct nio_worker *worker)
{
    const struct nio_plan_worker *plan = worker->plan;
    for (unsigned first = 0; first < plan->steal_count;) {
        if (plan->steal[first].tier == NIO_TIER_FAR)
            break;
        unsigned end = group_end(plan, first);
        uint32_t start = nio_rng_below(&worker->rng, end - first);
        for (unsigned i = 0; i < end - first; i++) {
            unsigned at = first + (start + i) % (end - first);
            struct nio_task *task =
                steal_from(worker, worker->handle->workers[plan->steal[at].worker], true);
            if (task)
                return task;
        }
        first = end;
    }
    return NULL;
}

uint32_t nio_node_far_depth(const struct nio_node *node)
{
    return nio_inject_length(&node->inject[NIO_REACH_ANY]) +
           nio_inject_length(&node->overflow[NIO_REACH_ANY]) + nio_ranked_far_depth(node);
}

/* Of what waits on another node for none of its workers in particular. */
static struct nio_task *take_far(struct nio_worker *worker, struct nio_node *node)
{
    struct nio_task *task = take_injected(worker, node, NIO_REACH_ANY, FROM_AFAR);
    if (!task)
        task = take_overflow(worker, node, NIO_REACH_ANY, NIO_OVERFLOW_BATCH,
                             FROM_OVERFLOW | FROM_AFAR);
    if (!task && (task = nio_take_ranked_far(worker, node)))
        nio_count(&worker->counters.stolen_far, 1);
    return task;
}

static struct nio_task *steal_deep(struct nio_worker *worker)
{
    struct numio_handle *handle = worker->handle;
    const struct nio_plan_worker *plan = worker->plan;
    struct nio_node *asked = worker->node;
    for (unsigned i = 0; i < plan->steal_count; i++) {
        const struct nio_steal_target *target = &plan->steal[i];
        if (target->tier != NIO_TIER_FAR)
            continue;
        struct nio_worker *victim = handle->workers[target->worker];
        if (nio_policy_may_leave(nio_far_depth(victim))) {
            struct nio_task *task = steal_from(worker, victim, false);
            if (task)
                return task;
        }
        if (victim->node != asked && nio_policy_may_leave(nio_node_far_depth(victim->node))) {
            asked = victim->node; /* once per node */
            struct nio_task *task = take_far(worker, asked);
            if (task)
                return task;
        }
    }
    return NULL;
}

/* What is deep enough; else whatever waits where nobody gets on. */
static struct nio_task *steal_far(struct nio_worker *worker)
{
    uint64_t now_ns = nio_now_ns();
    if (worker->idle_since_ns == 0 || !nio_policy_may_go_far(now_ns - worker->idle_since_ns))
        return NULL;
    struct nio_task *task = steal_deep(worker);
    struct nio_worker *stuck = task ? NULL : nio_find_stuck_afar(worker, now_ns);
    if (stuck)
        task = nio_far_depth(stuck) > 0 ? steal_from(worker, stuck, false)
                                        : take_far(worker, stuck->node);
    return task;
}

unsigned nio_reap_siblings(struct nio_worker *worker)
{
    struct nio_node *node = worker->node;
    unsigned reaped = 0;
    worker->is_batching = true;
    for (unsigned i = 0; i < node->worker_count && reaped == 0; i++) {
        struct nio_worker *sibling =
            node->workers[(worker->index_in_node + 1 + i) % node->worker_count];
        if (sibling != worker && sibling->driver && nio_driver_has_completions(sibling->driver))
            reaped = nio_driver_reap_for(sibling->driver, NIO_REAP_MAX);
    }
    worker->is_batching = false;
    if (reaped > 0)
        nio_offer_quiet_work(worker);
    return reaped;
}

struct nio_task *nio_steal(struct nio_worker *worker)
{
    struct nio_task *task = nio_take_injected(worker);
    if (!task)
        task = nio_take_overflow(worker, NIO_OVERFLOW_BATCH);
    if (task || !worker->has_peers)
        return task;
    if ((task = steal_near(worker)))
        return task;
    if (worker->node->worker_count > 1) {
        if (nio_reap_siblings(worker) > 0)
            return nio_next_local(worker);
        if ((task = nio_take_stuck_lifo(worker, nio_now_ns()))) {
            nio_count(&worker->counters.stolen_near, 1);
            return task;
        }
    }
    return worker->handle->node_count > 1 ? steal_far(worker) : NULL;
}

bool nio_sees_outside(const struct nio_node *node)
{
    for (unsigned reach = 0; reach < NIO_REACH_COUNT; reach++)
        if (nio_inject_length(&node->inject[reach]) > 0 ||
            nio_inject_length(&node->overflow[reach]) > 0)
            return true;
    return false;
}

bool nio_sees_work(struct nio_worker *worker)
{
    struct nio_node *node = worker->node;
    if (!nio_mpsc_is_empty(&worker->mailbox) || nio_sees_ranked(worker))
        return true;
    if (nio_sees_outside(node))
        return true;
    for (unsigned i = 0; i < node->worker_count; i++)
        for (unsigned which = 0; which < NIO_QUEUE_COUNT; which++)
            if (nio_local_queue_length(&node->workers[i]->queues[which]) > 0)
                return true;
    if (worker->handle->node_count == 1)
        return false;
    for (unsigned i = 0; i < worker->plan->steal_count; i++) {
        const struct nio_steal_target *target = &worker->plan->steal[i];
        struct nio_worker *victim = worker->handle->workers[target->worker];
        if (target->tier == NIO_TIER_FAR &&
            (nio_policy_may_leave(nio_far_depth(victim)) ||
             nio_policy_may_leave(nio_node_far_depth(victim->node))))
            return true;
    }
    return false;
}
