/* SPDX-License-Identifier: MIT */
/* Where a worker without work looks for some, nearest first.
 *
 *  1. its node's inject queues, then its overflow queues
 *  2. the local queues of its node's workers, those that share its last-level cache first
 *  3. completions that lie in a busy sibling's ring
 *  4. the LIFO slot of a sibling that has been in one poll for NIO_STUCK_NS
 *  5. other nodes, nearest first, as far as policy.h lets; only tasks of affinity "any"
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

/* Takes a share of `from`, which holds `length` tasks, at most `max`, into one of the worker's
 * queues.  `is_overflow`: some other worker had them before. */
static NIO_NOINLINE struct nio_task *take_share(struct nio_worker *worker, struct nio_inject *from,
                                                struct nio_local_queue *into, uint32_t max,
                                                uint32_t length, bool is_overflow)
{
    uint32_t share = length / worker->node->worker_count + 1;
    uint32_t room = nio_local_queue_room(into);
    if (max > share)
        max = share;
    if (max > room + 1)
        max = room + 1; /* the first is not queued */
    uint32_t count;
    struct nio_task *task = nio_inject_take(from, into, max, &count);
    nio_count(&worker->counters.inject_taken, count);
    if (is_overflow && task)
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
                                                     bool is_overflow)
{
    /* relaxed: only to size the batch */
    uint32_t length = atomic_load_explicit(&from->length, memory_order_relaxed);
    return length == 0 ? NULL : take_share(worker, from, into, max, length, is_overflow);
}

/* What comes from outside is served in order and in large batches. */
static struct nio_task *take_injected(struct nio_worker *worker, struct nio_node *node,
                                      enum nio_reach reach)
{
    return take_batch(worker, &node->inject[reach], &worker->queues[reach],
                      NIO_LOCAL_QUEUE_SLOTS / 2, false);
}

/* Overflow comes back in small batches, among the new tasks: a large batch would be displaced again
 * by what its tasks spawn, and would turn a tree of tasks breadth first (fib27: 2.7 times slower
 * with 128). */
static struct nio_task *take_overflow(struct nio_worker *worker, struct nio_node *node,
                                      enum nio_reach reach, uint32_t max)
{
    enum nio_queue_class which = reach == NIO_REACH_ANY ? NIO_QUEUE_NEW : NIO_QUEUE_NODE;
    return take_batch(worker, &node->overflow[reach], &worker->queues[which], max, true);
}

struct nio_task *nio_take_injected(struct nio_worker *worker)
{
    struct nio_task *task = take_injected(worker, worker->node, NIO_REACH_ANY);
    return task ? task : take_injected(worker, worker->node, NIO_REACH_NODE);
}

struct nio_task *nio_take_overflow(struct nio_worker *worker, uint32_t max)
{
    if (NIO_UNLIKELY(worker->thrift.pause_ns != 0) && nio_now_ns() < worker->thrift.until_ns)
        return NULL;
    struct nio_task *task = take_overflow(worker, worker->node, NIO_REACH_ANY, max);
    return task ? task : take_overflow(worker, worker->node, NIO_REACH_NODE, max);
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

static uint32_t node_depth(const struct nio_node *node)
{
    return nio_inject_length(&node->inject[NIO_REACH_ANY]) +
           nio_inject_length(&node->overflow[NIO_REACH_ANY]) + nio_ranked_far_depth(node);
}

static struct nio_task *steal_far(struct nio_worker *worker, uint32_t depth_min)
{
    struct numio_handle *handle = worker->handle;
    const struct nio_plan_worker *plan = worker->plan;
    struct nio_node *asked = worker->node;
    for (unsigned i = 0; i < plan->steal_count; i++) {
        const struct nio_steal_target *target = &plan->steal[i];
        if (target->tier != NIO_TIER_FAR)
            continue;
        struct nio_worker *victim = handle->workers[target->worker];
        if (nio_far_depth(victim) >= depth_min) {
            struct nio_task *task = steal_from(worker, victim, false);
            if (task)
                return task;
        }
        if (victim->node != asked && node_depth(victim->node) >= depth_min) {
            asked = victim->node; /* once per node */
            struct nio_task *task = take_injected(worker, asked, NIO_REACH_ANY);
            if (!task)
                task = take_overflow(worker, asked, NIO_REACH_ANY, NIO_OVERFLOW_BATCH);
            if (!task)
                task = nio_take_ranked_far(worker, asked);
            if (task) {
                nio_count(&worker->counters.stolen_far, 1);
                return task;
            }
        }
    }
    return NULL;
}

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

/* The LIFO slot of a sibling that does not come around to it; what a long poll spawns does not help
 * the task that waits there. */
static struct nio_task *steal_stuck_lifo(struct nio_worker *worker, uint64_t now_ns)
{
    static const struct watched lifo = { has_lifo, polls_of };
    struct nio_worker *victim = find_stuck(worker, &worker->lifo_watch, &lifo, now_ns);
    struct nio_task *task = victim ? nio_lifo_take(&victim->lifo) : NULL;
    if (task)
        nio_count(&worker->counters.stolen_near, 1);
    return task;
}

bool nio_sibling_is_stuck(struct nio_worker *worker, uint64_t now_ns)
{
    static const struct watched queue = { has_queued, polls_and_spawns_of };
    return find_stuck(worker, &worker->queue_watch, &queue, now_ns) != NULL;
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
        if ((task = steal_stuck_lifo(worker, nio_now_ns())))
            return task;
    }
    if (worker->handle->node_count == 1)
        return NULL;
    uint64_t idle_ns = worker->idle_since_ns ? nio_now_ns() - worker->idle_since_ns : 0;
    uint32_t depth_min = nio_policy_far_depth(idle_ns);
    return depth_min == UINT32_MAX ? NULL : steal_far(worker, depth_min);
}

bool nio_sees_work(struct nio_worker *worker)
{
    struct nio_node *node = worker->node;
    if (!nio_mpsc_is_empty(&worker->mailbox) || nio_sees_ranked(worker))
        return true;
    for (unsigned reach = 0; reach < NIO_REACH_COUNT; reach++)
        if (nio_inject_length(&node->inject[reach]) > 0 ||
            nio_inject_length(&node->overflow[reach]) > 0)
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
        if (target->tier == NIO_TIER_FAR && (nio_policy_may_leave(nio_far_depth(victim)) ||
                                             nio_policy_may_leave(node_depth(victim->node))))
            return true;
    }
    return false;
}
