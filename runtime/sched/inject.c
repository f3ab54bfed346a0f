/* SPDX-License-Identifier: MIT */
/* The design note stands in inject.h. */
#include "runtime/sched/inject.h"

void nio_inject_init(struct nio_inject *inject)
{
    nio_lock_init(&inject->lock, NIO_RANK_INJECT);
    inject->first = NULL;
    inject->last = NULL;
    atomic_init(&inject->length, 0);
}

void nio_inject_push(struct nio_inject *inject, struct nio_mpsc_node *first,
                     struct nio_mpsc_node *last, uint32_t count)
{
    last->next = NULL;
    nio_lock_acquire(&inject->lock);
    if (inject->last)
        inject->last->next = first;
    else
        inject->first = first;
    inject->last = last;
    /* relaxed: only holders of the lock write it */
    uint32_t length = atomic_load_explicit(&inject->length, memory_order_relaxed);
    /* [IQ1] seq_cst: the pusher's next load of the idle state must not pass this store.  Pairs
     * with [IQ1] in nio_inject_length(), a sleeper's last look. */
    atomic_store_explicit(&inject->length, length + count, memory_order_seq_cst);
    nio_lock_release(&inject->lock);
}

struct nio_task *nio_inject_take(struct nio_inject *inject, struct nio_local_queue *into,
                                 uint32_t max, uint32_t *ret_count)
{
    *ret_count = 0;
    /* relaxed: avoids the lock when there is nothing; sleepers look by nio_inject_length() */
    if (atomic_load_explicit(&inject->length, memory_order_relaxed) == 0)
        return NULL;
    nio_lock_acquire(&inject->lock);
    /* relaxed: only holders of the lock write it */
    uint32_t length = atomic_load_explicit(&inject->length, memory_order_relaxed);
    uint32_t count = length < max ? length : max;
    struct nio_mpsc_node *first = inject->first;
    struct nio_mpsc_node *rest = first;
    for (uint32_t i = 0; i < count; i++)
        rest = rest->next;
    if (count > 0) {
        inject->first = rest;
        if (!rest)
            inject->last = NULL;
        /* relaxed: shrinking wakes nobody */
        atomic_store_explicit(&inject->length, length - count, memory_order_relaxed);
    }
    nio_lock_release(&inject->lock);
    if (count == 0)
        return NULL;
    struct nio_mpsc_node *node = first->next;
    for (uint32_t i = 1; i < count; i++) {
        struct nio_mpsc_node *next = node->next;
        /* the caller checked that `into` has room for max - 1 */
        bool is_pushed = nio_local_queue_push(into, nio_task_of_link(node), false);
        NIO_ASSERT(is_pushed);
        node = next;
    }
    *ret_count = count;
    return nio_task_of_link(first);
}
