/* SPDX-License-Identifier: MIT */
/* sched/inject.h: a node's queue for tasks that come from outside its workers, and for what
 * overflows their local queues.
 *
 * A FIFO of tasks linked by nio_task.link under a lock, with its length beside it so that an empty
 * look costs one load.  A node has two: tasks that may leave the node and tasks that may not;
 * thieves of other nodes look at the first only.  Tasks come and go in chains, one lock each.
 * Lock rank NIO_RANK_INJECT; nothing is called while it is held.
 */
#ifndef NIO_SCHED_INJECT_H
#define NIO_SCHED_INJECT_H

#include "runtime/base/lock.h"
#include "runtime/sched/local_queue.h"

struct nio_inject {
    NIO_CACHE_ALIGNED struct nio_lock lock;
    struct nio_mpsc_node *first, *last; /* under the lock */
    _Atomic uint32_t length;            /* written under the lock */
};

void nio_inject_init(struct nio_inject *inject);

/* Any thread: appends a chain of `count` tasks. */
void nio_inject_push(struct nio_inject *inject, struct nio_mpsc_node *first,
                     struct nio_mpsc_node *last, uint32_t count);

/* A hint; exact for a sleeper that has announced itself [IQ1]. */
static inline uint32_t nio_inject_length(const struct nio_inject *inject)
{
    /* [IQ1] seq_cst: after the announcement of a sleep the length of every push that did not see
     * it is seen.  Pairs with [IQ1] in nio_inject_push(). */
    return atomic_load_explicit(&inject->length, memory_order_seq_cst);
}

/* The owner of `into`: takes up to `max` tasks, returns the first and puts the rest there.  NULL
 * if there was none. */
struct nio_task *nio_inject_take(struct nio_inject *inject, struct nio_local_queue *into,
                                 uint32_t max, uint32_t *ret_count);

#endif
