/* SPDX-License-Identifier: MIT */
/* The design note stands in ranked.h. */
#include "runtime/sched/ranked.h"

#include "runtime/base/assert.h"
#include "runtime/base/clock.h"

enum {
    SHARE_NS = 10000,   /* what one unit of a share is worth in a round */
    STEAL_INTERVAL = 8, /* background polls between looks at the siblings' normal tasks */
    RANKED_COUNT = NIO_CLASS_COUNT - 1
};

/* Highest first. */
static const enum nio_class by_rank[] = { NIO_CLASS_LATENCY, NIO_CLASS_NORMAL,
                                          NIO_CLASS_BACKGROUND };

static unsigned rank_index(enum nio_class class)
{
    NIO_DEBUG_ASSERT(class != NIO_CLASS_NORMAL);
    return (unsigned)class - 1;
}

/* ---- queues -------------------------------------------------------------------------------- */

void nio_push_ranked_own(struct nio_worker *worker, struct nio_task *task)
{
    nio_private_push(&worker->ranked[rank_index(nio_task_class(task))], task);
}

void nio_push_ranked(struct numio_handle *handle, struct nio_mpsc_node *first,
                     struct nio_mpsc_node *last, uint32_t count, struct nio_worker *by)
{
    const struct nio_task *task = nio_task_of_link(first);
    enum numio_affinity affinity = nio_task_affinity(task);
    enum nio_reach reach = affinity == NUMIO_AFFINITY_ANY ? NIO_REACH_ANY : NIO_REACH_NODE;
    struct nio_node *node = by && reach == NIO_REACH_ANY ? by->node : handle->nodes[task->node];
    struct nio_inject *queue = &node->ranked[rank_index(nio_task_class(task))][reach];
    NIO_DEBUG_ASSERT(affinity != NUMIO_AFFINITY_WORKER);
    /* What the loop itself has just woken it runs next; a poll may take long, so others are told.
     */
    bool is_next =
        count == 1 && by && by->is_batching && by->node == node && nio_inject_length(queue) == 0;
    nio_inject_push(queue, first, last, count);
    if (!is_next)
        nio_offer_injected(node, reach, by);
}

void nio_sort_mail(struct nio_worker *worker)
{
    struct nio_private_queue mail = worker->mine;
    worker->mine = (struct nio_private_queue){ NULL, NULL };
    struct nio_mpsc_node *next;
    for (struct nio_mpsc_node *node = mail.first; node; node = next) {
        struct nio_task *task = nio_task_of_link(node);
        next = node->next;
        /* A visitor from elsewhere is pinned for this once, whatever its class. */
        bool is_own = nio_task_affinity(task) == NUMIO_AFFINITY_WORKER &&
                      task->pinned_worker == worker->index;
        if (is_own && nio_task_class(task) != NIO_CLASS_NORMAL)
            nio_push_ranked_own(worker, task);
        else
            nio_private_push(&worker->mine, task);
    }
}

static struct nio_task *pop_node(struct nio_worker *worker, struct nio_node *node, unsigned index,
                                 enum nio_reach reach)
{
    struct nio_inject *queue = &node->ranked[index][reach];
    uint32_t count;
    /* relaxed: an empty look costs no more than a load; a sleeper looks by nio_sees_ranked() */
    if (atomic_load_explicit(&queue->length, memory_order_relaxed) == 0)
        return NULL;
    return nio_inject_take(queue, &worker->queues[reach], 1, &count);
}

/* The private queue and the node's take turns, so that neither starves the other. */
static struct nio_task *pop_class(struct nio_worker *worker, enum nio_class class)
{
    unsigned index = rank_index(class);
    struct nio_private_queue *own = &worker->ranked[index];
    worker->shares.is_own_first = !worker->shares.is_own_first;
    struct nio_task *task = NULL;
    if (worker->shares.is_own_first)
        task = nio_private_pop(own);
    for (unsigned reach = 0; !task && reach < NIO_REACH_COUNT; reach++)
        task = pop_node(worker, worker->node, index, (enum nio_reach)reach);
    return task ? task : nio_private_pop(own);
}

struct nio_task *nio_take_ranked_own(struct nio_worker *worker)
{
    struct nio_task *task = NULL;
    for (unsigned index = 0; !task && index < RANKED_COUNT; index++)
        task = nio_private_pop(&worker->ranked[index]);
    return task;
}

struct nio_task *nio_take_ranked(struct nio_worker *worker)
{
    struct nio_task *task = pop_class(worker, NIO_CLASS_LATENCY);
    return task ? task : pop_class(worker, NIO_CLASS_BACKGROUND);
}

struct nio_task *nio_take_ranked_far(struct nio_worker *worker, struct nio_node *node)
{
    struct nio_task *task = NULL;
    for (unsigned index = 0; !task && index < RANKED_COUNT; index++)
        task = pop_node(worker, node, index, NIO_REACH_ANY);
    return task;
}

uint32_t nio_ranked_far_depth(const struct nio_node *node)
{
    uint32_t depth = 0;
    for (unsigned index = 0; index < RANKED_COUNT; index++)
        depth += nio_inject_length(&node->ranked[index][NIO_REACH_ANY]);
    return depth;
}

bool nio_sees_ranked(const struct nio_worker *worker)
{
    for (unsigned index = 0; index < RANKED_COUNT; index++) {
        if (worker->ranked[index].first)
            return true;
        for (unsigned reach = 0; reach < NIO_REACH_COUNT; reach++)
            if (nio_inject_length(&worker->node->ranked[index][reach]) > 0)
                return true;
    }
    return false;
}

/* ---- shares -------------------------------------------------------------------------------- */

static int64_t share_ns(const struct nio_worker *worker, enum nio_class class)
{
    const struct numio_config *config = &worker->handle->config;
    const unsigned shares[NIO_CLASS_COUNT] = { [NIO_CLASS_NORMAL] = config->share_normal,
                                               [NIO_CLASS_LATENCY] = config->share_latency,
                                               [NIO_CLASS_BACKGROUND] = config->share_background };
    return (int64_t)shares[class] * SHARE_NS;
}

/* The poll before has ended: takes what it has cost from its class.  Returns the time. */
static uint64_t charge(struct nio_worker *worker)
{
    struct nio_shares *shares = &worker->shares;
    uint64_t now_ns = nio_now_ns();
    if (shares->since_ns != 0)
        shares->credit_ns[shares->polled] -= (int64_t)(now_ns - shares->since_ns);
    shares->since_ns = 0;
    return now_ns;
}

/* As many rounds at once as it takes until one of the classes that may have work has credit. */
static void add_shares(struct nio_worker *worker, const bool *is_empty)
{
    struct nio_shares *shares = &worker->shares;
    int64_t rounds = INT64_MAX;
    for (unsigned class = 0; class < NIO_CLASS_COUNT; class ++) {
        int64_t share = share_ns(worker, (enum nio_class) class);
        int64_t wanted = is_empty[class] ? INT64_MAX : -shares->credit_ns[class] / share + 1;
        if (wanted < rounds)
            rounds = wanted;
    }
    for (unsigned class = 0; class < NIO_CLASS_COUNT; class ++) {
        int64_t share = share_ns(worker, (enum nio_class) class);
        int64_t credit = shares->credit_ns[class] + rounds * share;
        shares->credit_ns[class] = credit < share ? credit : share;
    }
}

/* Background work is there, and nothing normal at home: now and then the siblings may have some. */
static struct nio_task *take_background(struct nio_worker *worker)
{
    struct nio_shares *shares = &worker->shares;
    struct nio_task *task = NULL;
    if (worker->has_peers && ++shares->background_polls >= STEAL_INTERVAL) {
        shares->background_polls = 0;
        task = nio_steal(worker);
    }
    return task ? task : pop_class(worker, NIO_CLASS_BACKGROUND);
}

static struct nio_task *take(struct nio_worker *worker, enum nio_class class)
{
    if (class == NIO_CLASS_NORMAL)
        return nio_next_normal(worker);
    return class == NIO_CLASS_LATENCY ? pop_class(worker, class) : take_background(worker);
}

struct nio_task *nio_next_ranked(struct nio_worker *worker)
{
    struct nio_shares *shares = &worker->shares;
    bool is_empty[NIO_CLASS_COUNT] = { false };
    (void)charge(worker); /* the time is read again when the task begins */
    if (!nio_mpsc_is_empty(&worker->mailbox))
        (void)nio_take_mail(worker); /* into the private queues */
    /* Bounded by the classes: each turn one is found empty, or one is given credit and asked. */
    for (;;) {
        bool has_skipped = false;
        for (unsigned i = 0; i < NIO_CLASS_COUNT; i++) {
            enum nio_class class = by_rank[i];
            if (is_empty[class])
                continue;
            if (shares->credit_ns[class] <= 0) {
                has_skipped = true;
                continue;
            }
            struct nio_task *task = take(worker, class);
            if (task)
                return task;
            is_empty[class] = true;
        }
        if (!has_skipped)
            return NULL;
        add_shares(worker, is_empty);
    }
}

void nio_note_class(struct nio_worker *worker, const struct nio_task *task)
{
    struct nio_shares *shares = &worker->shares;
    enum nio_class class = nio_task_class(task);
    shares->since_ns = charge(worker);
    shares->polled = (uint8_t) class;
    worker->class_now = (uint8_t) class;
    if (class != NIO_CLASS_NORMAL)
        nio_count(&worker->counters.ranked_polls[rank_index(class)], 1);
}
