/* SPDX-License-Identifier: MIT */
/* sched/idle.h: who of a node's workers searches for work and who sleeps.
 *
 * State word: searching << 16 | sleeping.  Under the lock, a bitmap of the sleepers.
 *
 * The protocol that loses no wake:
 *   pusher    stores the task (seq_cst), then loads the state word (seq_cst); with no searcher
 *             and some sleeper it takes a sleeper and unparks it
 *   sleeper   changes the state word (seq_cst RMW), then looks at every source of work
 *             (seq_cst loads), and only then parks
 * One of the two sees the other.  A pusher that sees a searcher wakes nobody: the searcher has
 * not yet given up, and when it gives up it is a sleeper that looks again; if it then sees
 * something it leaves as a searcher, since it stands for the wakes that were not sent because of
 * it.  A searcher that finds work and was the last one wakes the next, so that searchers follow the
 * work and nobody sleeps while a task waits behind a long poll.
 *
 * A sleeper that was taken counts as a searcher from that moment.  At most half of a node's
 * workers search at a time (Tokio's limit), which bounds the contention on the queues.
 * Lock rank NIO_RANK_IDLE.
 */
#ifndef NIO_SCHED_IDLE_H
#define NIO_SCHED_IDLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/lock.h"

enum { NIO_IDLE_WORDS_MAX = 16 }; /* 1024 workers a node */

struct nio_idle {
    NIO_CACHE_ALIGNED _Atomic uint32_t state; /* any worker, RMW */
    unsigned workers;                         /* constant after init */
    NIO_CACHE_ALIGNED struct nio_lock lock;
    uint64_t sleepers[NIO_IDLE_WORDS_MAX]; /* under the lock; bit = index within the node */
};

static inline unsigned nio_idle_sleeping(uint32_t state)
{
    return state & 0xffff;
}

static inline unsigned nio_idle_searching(uint32_t state)
{
    return state >> 16;
}

void nio_idle_init(struct nio_idle *idle, unsigned workers);

/* Any thread, after a seq_cst push. */
static inline uint32_t nio_idle_load(const struct nio_idle *idle)
{
    /* [ID1] seq_cst: must not pass the push before it.  Pairs with [ID2]. */
    return atomic_load_explicit(&idle->state, memory_order_seq_cst);
}

static inline bool nio_idle_wants_wake(const struct nio_idle *idle)
{
    uint32_t state = nio_idle_load(idle);
    return nio_idle_searching(state) == 0 && nio_idle_sleeping(state) > 0;
}

/* Any thread: takes a sleeper to wake, from `prefer` (a bitmap of `idle`'s words, or NULL) if one
 * sleeps there, else the next after `start`.  It counts as a searcher now.  Returns its index
 * within the node, -1 if somebody searches or nobody sleeps. */
int nio_idle_take_sleeper(struct nio_idle *idle, unsigned start, const uint64_t *prefer);

/* Worker: becomes a searcher, unless half of the node searches already. */
bool nio_idle_begin_search(struct nio_idle *idle);
/* Worker: stops being one.  True: it was the last. */
bool nio_idle_end_search(struct nio_idle *idle);
/* Worker: announces that it sleeps; it must then look at every source of work once more. */
void nio_idle_sleep(struct nio_idle *idle, unsigned index, bool was_searching);
/* Worker: is awake again, as a searcher if it says so or if somebody took it.  Returns whether it
 * is one. */
bool nio_idle_leave(struct nio_idle *idle, unsigned index, bool as_searcher);

/* Aborts if the counts and the bitmap disagree.  No thread may use `idle` meanwhile. */
void nio_idle_check(struct nio_idle *idle);

#endif
