/* SPDX-License-Identifier: MIT */
/* base/mpsc.h: an intrusive stack that any thread pushes to and one thread empties at once.
 *
 * Push is one CAS loop on the head (lock-free: some pusher always succeeds); taking everything is
 * one exchange, so there is no ABA: nodes leave only all together.  The taker gets them newest
 * first; nio_mpsc_take_fifo() turns the chain around.  A node belongs to the stack from push until
 * it is taken.
 */
#ifndef NIO_BASE_MPSC_H
#define NIO_BASE_MPSC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct nio_mpsc_node {
    struct nio_mpsc_node *next;
};

struct nio_mpsc {
    struct nio_mpsc_node *_Atomic head; /* any thread, RMW */
};

static inline void nio_mpsc_init(struct nio_mpsc *stack)
{
    atomic_init(&stack->head, NULL);
}

/* Pushes the chain first..last (linked by next).  Returns true when the stack was empty, that is,
 * when the taker may need a wake.  Any thread. */
static inline bool nio_mpsc_push_chain(struct nio_mpsc *stack, struct nio_mpsc_node *first,
                                       struct nio_mpsc_node *last)
{
    /* relaxed: the value is only linked to, never looked through */
    struct nio_mpsc_node *head = atomic_load_explicit(&stack->head, memory_order_relaxed);
    do {
        last->next = head;
        /* [BM1] seq_cst (release would publish the nodes): a pusher that then reads the taker's
         * sleep state must not have that load pass this store.  Pairs with [BM2], and with the
         * taker's announce-then-check in sched/parker.c.  relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(&stack->head, &head, first,
                                                    memory_order_seq_cst, memory_order_relaxed));
    return head == NULL;
}

static inline bool nio_mpsc_push(struct nio_mpsc *stack, struct nio_mpsc_node *node)
{
    return nio_mpsc_push_chain(stack, node, node);
}

/* A hint in steady state; exact for a taker that has announced its sleep. */
static inline bool nio_mpsc_is_empty(const struct nio_mpsc *stack)
{
    /* [BM2] seq_cst: the taker's check after announcing that it sleeps.  Pairs with [BM1]. */
    return atomic_load_explicit(&stack->head, memory_order_seq_cst) == NULL;
}

/* Takes all nodes, newest first.  The taker only. */
static inline struct nio_mpsc_node *nio_mpsc_take(struct nio_mpsc *stack)
{
    /* relaxed: avoids the RMW when there is nothing; a push seen late is taken the next time */
    if (atomic_load_explicit(&stack->head, memory_order_relaxed) == NULL)
        return NULL;
    /* [BM2] acquire: sees the pushed nodes' fields.  Pairs with [BM1]. */
    return atomic_exchange_explicit(&stack->head, NULL, memory_order_acquire);
}

/* Takes all nodes, oldest first.  The taker only; bounded by the number of nodes. */
static inline struct nio_mpsc_node *nio_mpsc_take_fifo(struct nio_mpsc *stack)
{
    struct nio_mpsc_node *node = nio_mpsc_take(stack);
    struct nio_mpsc_node *turned = NULL;
    while (node) {
        struct nio_mpsc_node *next = node->next;
        node->next = turned;
        turned = node;
        node = next;
    }
    return turned;
}

#endif
