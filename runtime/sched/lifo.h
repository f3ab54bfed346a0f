/* SPDX-License-Identifier: MIT */
/* sched/lifo.h: a worker's LIFO slot: the task that was woken or spawned last and is run next,
 * while its memory is hot.
 *
 * The owner swaps a task in and pops it; a sibling takes it only when the owner has been in one
 * poll for NIO_STUCK_NS (stuck.h), so nobody is woken for it (Tokio 7431: stealing the slot with
 * wakes cost 30 %).  While a runtime has one worker the slot needs no locked instruction.
 *
 * The cap: after NIO_LIFO_POLLS_MAX polls in a row from the slot it closes, if anything else waits
 * at home; what is woken then goes to the tail of a queue.  It opens again with the next task that
 * comes from a queue.  With nothing else to run a chain of wakes goes on in the slot: in a queue it
 * would only be stolen.  The same holds for a task that yields while nothing else waits at home
 * (nio_keep_alone()).
 */
#ifndef NIO_SCHED_LIFO_H
#define NIO_SCHED_LIFO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/compiler.h"

struct nio_task;

enum { NIO_LIFO_POLLS_MAX = 3 }; /* Tokio's */

struct nio_lifo {
    NIO_CACHE_ALIGNED struct nio_task *_Atomic slot; /* owner; thieves now and then */
    uint8_t polls;                                   /* owner only: in a row from the slot */
    bool is_open;                                    /* owner only */
};

static inline void nio_lifo_init(struct nio_lifo *lifo)
{
    atomic_init(&lifo->slot, NULL);
    lifo->polls = 0;
    lifo->is_open = true;
}

/* Any worker: whether a task stands there, a moment ago. */
static inline struct nio_task *nio_lifo_peek(const struct nio_lifo *lifo)
{
    /* relaxed: only compared; whoever wants the task exchanges it out */
    return atomic_load_explicit(&lifo->slot, memory_order_relaxed);
}

/* Owner: puts a task in; returns the one that stood there.  `is_shared`: the runtime has other
 * workers. */
static inline struct nio_task *nio_lifo_swap(struct nio_lifo *lifo, struct nio_task *task,
                                             bool is_shared)
{
    if (is_shared)
        /* [LS1] acq_rel: publishes the task to a thief, and takes over the one that stood there.
         * Pairs with [LS2]. */
        return atomic_exchange_explicit(&lifo->slot, task, memory_order_acq_rel);
    struct nio_task *before = nio_lifo_peek(lifo);
    /* relaxed: nobody else looks at the slot */
    atomic_store_explicit(&lifo->slot, task, memory_order_relaxed);
    return before;
}

/* Any worker: takes the task out, NULL if there is none. */
static inline struct nio_task *nio_lifo_take(struct nio_lifo *lifo)
{
    /* [LS2] acquire: sees the task; another worker may have been faster.  Pairs with [LS1]. */
    return atomic_exchange_explicit(&lifo->slot, NULL, memory_order_acquire);
}

/* Owner: takes the task out, NULL if there is none. */
static inline struct nio_task *nio_lifo_pop(struct nio_lifo *lifo, bool is_shared)
{
    struct nio_task *task = nio_lifo_peek(lifo);
    if (!task)
        return NULL;
    return is_shared ? nio_lifo_take(lifo) : nio_lifo_swap(lifo, NULL, false);
}

/* Owner: counts a poll from the slot.  True: the cap is reached, the caller says by
 * nio_lifo_set_open() whether something else waits. */
static inline bool nio_lifo_count_poll(struct nio_lifo *lifo)
{
    return ++lifo->polls >= NIO_LIFO_POLLS_MAX;
}

/* Owner: a new count, with the slot open or closed. */
static inline void nio_lifo_set_open(struct nio_lifo *lifo, bool is_open)
{
    lifo->polls = 0;
    lifo->is_open = is_open;
}

#endif
