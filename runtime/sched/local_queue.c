/* SPDX-License-Identifier: MIT */
/* The design note stands in local_queue.h. */
#include "runtime/sched/local_queue.h"

void nio_local_queue_init(struct nio_local_queue *queue)
{
    atomic_init(&queue->head, 0);
    atomic_init(&queue->tail, 0);
    for (uint32_t i = 0; i < NIO_LOCAL_QUEUE_SLOTS; i++)
        atomic_init(&queue->slots[i], NULL);
}

uint32_t nio_local_queue_overflow(struct nio_local_queue *queue, struct nio_mpsc_node **ret_first,
                                  struct nio_mpsc_node **ret_last)
{
    /* [LQ3] acquire: as in nio_local_queue_room(), pairs with [LQ4] */
    uint64_t head = atomic_load_explicit(&queue->head, memory_order_acquire);
    uint16_t real = nio_local_queue_real(head);
    uint32_t count = NIO_LOCAL_QUEUE_SLOTS / 2;
    /* relaxed: the owner wrote it */
    uint16_t tail = (uint16_t)atomic_load_explicit(&queue->tail, memory_order_relaxed);
    if (nio_local_queue_stealing(head) != real || (uint16_t)(tail - real) < NIO_LOCAL_QUEUE_SLOTS)
        return 0;
    uint64_t next = nio_local_queue_advance(head, (uint16_t)count);
    /* relaxed: both sides of the claim are the owner's own slots; relaxed on failure: a thief won
     */
    if (!atomic_compare_exchange_strong_explicit(&queue->head, &head, next, memory_order_relaxed,
                                                 memory_order_relaxed))
        return 0;
    struct nio_mpsc_node *first = NULL;
    struct nio_mpsc_node *last = NULL;
    for (uint32_t i = 0; i < count; i++) {
        /* relaxed: written by the owner */
        struct nio_task *task = atomic_load_explicit(
            &queue->slots[(real + i) & NIO_LOCAL_QUEUE_MASK], memory_order_relaxed);
        task->link.next = NULL;
        if (last)
            last->next = &task->link;
        else
            first = &task->link;
        last = &task->link;
    }
    *ret_first = first;
    *ret_last = last;
    return count;
}

/* Claims up to half of the queue, at most `max`, for a thief: moves `real` ahead of `steal`.
 * Returns the number of claimed tasks and the first one's position. */
static uint32_t claim(struct nio_local_queue *from, uint32_t max, uint32_t *ret_first,
                      uint64_t *ret_head)
{
    /* [LQ6] acquire: the loop must not read a tail older than this head.  Pairs with [LQ4] and
     * [LQ7]. */
    uint64_t head = atomic_load_explicit(&from->head, memory_order_acquire);
    uint64_t next;
    uint32_t count;
    do {
        uint16_t real = nio_local_queue_real(head);
        if (nio_local_queue_stealing(head) != real)
            return 0; /* another thief is at work */
        /* [LQ2] acquire: sees the slots below tail, and the tasks in them.  Pairs with [LQ1]. */
        uint32_t tail = atomic_load_explicit(&from->tail, memory_order_acquire);
        uint16_t length = (uint16_t)(tail - real);
        count = length - length / 2u;
        if (count == 0 || length > NIO_LOCAL_QUEUE_SLOTS)
            return 0; /* empty, or the owner is taking the newest */
        if (count > max)
            count = max;
        *ret_first = real;
        next = nio_local_queue_head((uint32_t)(head >> 32) + 1, real, (uint16_t)(real + count));
        /* [LQ6] acq_rel: the claim; acquire on failure as above */
    } while (!atomic_compare_exchange_weak_explicit(&from->head, &head, next, memory_order_acq_rel,
                                                    memory_order_acquire));
    *ret_head = next;
    return count;
}

struct nio_task *nio_local_queue_steal(struct nio_local_queue *from, struct nio_local_queue *into,
                                       uint32_t max, uint32_t *ret_count)
{
    /* relaxed: the caller owns `into` */
    uint32_t tail = atomic_load_explicit(&into->tail, memory_order_relaxed);
    *ret_count = 0;
    if (nio_local_queue_room(into) < NIO_LOCAL_QUEUE_SLOTS / 2)
        return NULL; /* a thief of ours is still copying */
    uint32_t first = 0;
    uint64_t head = 0;
    uint32_t count = claim(from, max, &first, &head);
    if (count == 0)
        return NULL;
    for (uint32_t i = 0; i + 1 < count; i++) {
        /* relaxed: [LQ2] made the slot visible; published below by [LQ1] */
        struct nio_task *task = atomic_load_explicit(
            &from->slots[(first + i) & NIO_LOCAL_QUEUE_MASK], memory_order_relaxed);
        /* relaxed: as above */
        atomic_store_explicit(&into->slots[(tail + i) & NIO_LOCAL_QUEUE_MASK], task,
                              memory_order_relaxed);
    }
    /* relaxed: as above */
    struct nio_task *run = atomic_load_explicit(
        &from->slots[(first + count - 1) & NIO_LOCAL_QUEUE_MASK], memory_order_relaxed);
    uint64_t done;
    do {
        uint16_t real = nio_local_queue_real(head);
        done = nio_local_queue_head((uint32_t)(head >> 32), real, real);
        /* [LQ4] acq_rel: gives the slots back; what was read from them is read.  Pairs with
         * [LQ3], the owner's acquire before it writes them again.  [LQ6] acquire on failure: only
         * the owner moved `real`. */
    } while (!atomic_compare_exchange_weak_explicit(&from->head, &head, done, memory_order_acq_rel,
                                                    memory_order_acquire));
    if (count > 1)
        /* [LQ1] release: publishes the moved slots to thieves of `into`, pairs with [LQ2] */
        atomic_store_explicit(&into->tail, (uint16_t)(tail + count - 1), memory_order_release);
    *ret_count = count;
    return run;
}

void nio_local_queue_check(const struct nio_local_queue *queue)
{
    /* [LQ3] acquire, then tail: a later tail than head can only be larger */
    uint64_t head = atomic_load_explicit(&queue->head, memory_order_acquire);
    /* relaxed: a check, tolerant of a moving tail */
    uint16_t tail = (uint16_t)atomic_load_explicit(&queue->tail, memory_order_relaxed);
    uint16_t real = nio_local_queue_real(head);
    NIO_ASSERT((uint16_t)(real - nio_local_queue_stealing(head)) <= NIO_LOCAL_QUEUE_SLOTS);
    NIO_ASSERT((uint16_t)(tail - nio_local_queue_stealing(head)) <= NIO_LOCAL_QUEUE_SLOTS ||
               (uint16_t)(tail - real) > UINT16_MAX / 2);
}
