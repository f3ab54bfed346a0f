/* SPDX-License-Identifier: MIT */
/* sched/local_queue.h: a worker's run queue: a fixed ring that its owner pushes to and pops from,
 * and from which thieves take half at a time.
 *
 * The ring and the claim in two steps follow Tokio's multi-thread queue (tokio/src/runtime/
 * scheduler/multi_thread/queue.rs), the idea of taking half is the Go scheduler's.
 *
 * head holds two positions in one word: `real`, from where the owner pops, and `steal`, from where
 * a thief is still copying.  They are equal unless a thief is at work; then the slots between
 * them belong to the thief, and no second thief may start.  Above them it holds a version that
 * counts up with every pop and every claim, so that a thief that was held up between its look and
 * its claim cannot succeed (positions have 16 bits and come around).
 *
 * The owner may also pop the newest task.  It lowers tail first and then counts the version up: a
 * thief that has seen the old tail fails at the old version, and one that sees the new version
 * sees the new tail [LQ7].  If a thief has claimed that slot before, the owner puts tail back.
 *
 *   slots  [ ... | being stolen | ready to pop ........ | free ... ]
 *                ^ steal        ^ real                  ^ tail
 *
 * tail    owner only writes; release to thieves [LQ1], seq_cst when sleepers must see it [LQ5]
 * head    owner and thieves, CAS
 * slots   the owner writes free ones, reads by whoever claimed them
 *
 * Progress: push and pop of the owner are wait-free but for a CAS that fails only when a thief
 * claims; a stopped thief delays other thieves, never the owner, except that its slots stay taken
 * (the owner then overflows earlier).
 */
#ifndef NIO_SCHED_LOCAL_QUEUE_H
#define NIO_SCHED_LOCAL_QUEUE_H

#include "runtime/base/assert.h"
#include "runtime/task/task.h"

#ifdef NIO_TINY
#define NIO_LOCAL_QUEUE_SLOTS 4u
#else
#define NIO_LOCAL_QUEUE_SLOTS 256u
#endif
#define NIO_LOCAL_QUEUE_MASK (NIO_LOCAL_QUEUE_SLOTS - 1u)

struct nio_local_queue {
    NIO_CACHE_ALIGNED _Atomic uint64_t head; /* version << 32 | steal << 16 | real; CAS */
    NIO_CACHE_ALIGNED _Atomic uint32_t tail; /* owner writes; 16 bits */
    NIO_CACHE_ALIGNED struct nio_task *_Atomic slots[NIO_LOCAL_QUEUE_SLOTS];
};

static inline uint16_t nio_local_queue_real(uint64_t head)
{
    return (uint16_t)head;
}

static inline uint16_t nio_local_queue_stealing(uint64_t head)
{
    return (uint16_t)(head >> 16);
}

static inline uint64_t nio_local_queue_head(uint32_t version, uint16_t stealing, uint16_t real)
{
    return (uint64_t)version << 32 | (uint32_t)stealing << 16 | real;
}

/* The head after the owner moved `real`: a new version; a thief's end of the claim stays. */
static inline uint64_t nio_local_queue_advance(uint64_t head, uint16_t by)
{
    uint16_t real = nio_local_queue_real(head);
    uint16_t stealing = nio_local_queue_stealing(head);
    uint16_t next = (uint16_t)(real + by);
    return nio_local_queue_head((uint32_t)(head >> 32) + 1, stealing == real ? next : stealing,
                                next);
}

void nio_local_queue_init(struct nio_local_queue *queue);

/* Entries that can be popped.  Owner: exact or too large by what a thief just took.  Others: a
 * hint, but not 0 for a task whose push preceded, in the seq_cst order, the caller's last seq_cst
 * write [LQ5]. */
static inline uint32_t nio_local_queue_length(const struct nio_local_queue *queue)
{
    /* [LQ5] seq_cst: a sleeper has announced itself with a seq_cst RMW and must now see the push
     * of whoever did not see the announcement.  Pairs with [LQ5] in nio_local_queue_push(). */
    uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_seq_cst);
    /* relaxed: a stale head only makes the queue look longer */
    uint64_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    uint16_t length = (uint16_t)(tail - nio_local_queue_real(head));
    return length > NIO_LOCAL_QUEUE_SLOTS ? 0 : length;
}

/* Free slots; owner only. */
static inline uint32_t nio_local_queue_room(const struct nio_local_queue *queue)
{
    /* [LQ3] acquire: slots given free by a thief may be overwritten.  Pairs with [LQ4]. */
    uint64_t head = atomic_load_explicit(&queue->head, memory_order_acquire);
    /* relaxed: the owner wrote it */
    uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    return NIO_LOCAL_QUEUE_SLOTS - (uint16_t)(tail - nio_local_queue_stealing(head));
}

/* Owner only; a thief may be about to take what is there. */
static inline bool nio_local_queue_is_empty(const struct nio_local_queue *queue)
{
    /* relaxed: the owner asks about its own pushes; a thief can only take */
    uint64_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    /* relaxed: the owner wrote it */
    return nio_local_queue_real(head) == atomic_load_explicit(&queue->tail, memory_order_relaxed);
}

/* Owner: appends a task.  False: no room; the caller moves half away by
 * nio_local_queue_overflow().  `is_announced`: the caller will look for sleepers next. */
static inline bool nio_local_queue_push(struct nio_local_queue *queue, struct nio_task *task,
                                        bool is_announced)
{
    if (NIO_UNLIKELY(nio_local_queue_room(queue) == 0))
        return false;
    /* relaxed: the owner wrote it */
    uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    /* relaxed: published by the store of tail */
    atomic_store_explicit(&queue->slots[tail & NIO_LOCAL_QUEUE_MASK], task, memory_order_relaxed);
    if (is_announced)
        /* [LQ5] seq_cst: the caller's next seq_cst load of the idle state must not pass this
         * store.  Pairs with [LQ5] in nio_local_queue_length(); also a release as [LQ1]. */
        atomic_store_explicit(&queue->tail, (uint16_t)(tail + 1), memory_order_seq_cst);
    else
        /* [LQ1] release: publishes the slot.  Pairs with [LQ2], the acquire in
         * nio_local_queue_steal(). */
        atomic_store_explicit(&queue->tail, (uint16_t)(tail + 1), memory_order_release);
    return true;
}

/* Owner: takes the oldest task, NULL if there is none.  `is_shared`: other workers may steal. */
static inline struct nio_task *nio_local_queue_pop(struct nio_local_queue *queue, bool is_shared)
{
    /* relaxed: the owner reads only slots that it wrote itself; the CAS checks the value */
    uint64_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    /* relaxed: the owner wrote it */
    uint16_t tail = (uint16_t)atomic_load_explicit(&queue->tail, memory_order_relaxed);
    uint16_t real;
    uint64_t next;
    do {
        real = nio_local_queue_real(head);
        if (real == tail)
            return NULL;
        next = nio_local_queue_advance(head, 1);
        if (!is_shared) {
            /* relaxed: nobody else writes it */
            atomic_store_explicit(&queue->head, next, memory_order_relaxed);
            break;
        }
        /* relaxed: the owner's own slots, nothing to publish; a thief that reads this head
         * synchronises by tail.  relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(&queue->head, &head, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    /* relaxed: written by the owner */
    return atomic_load_explicit(&queue->slots[real & NIO_LOCAL_QUEUE_MASK], memory_order_relaxed);
}

/* Owner: the newest task, NULL if there is none; a thief may take it meanwhile. */
static inline struct nio_task *nio_local_queue_newest(const struct nio_local_queue *queue)
{
    if (nio_local_queue_is_empty(queue))
        return NULL;
    /* relaxed: both were written by the owner */
    uint32_t newest = atomic_load_explicit(&queue->tail, memory_order_relaxed) - 1;
    /* relaxed: as above */
    return atomic_load_explicit(&queue->slots[newest & NIO_LOCAL_QUEUE_MASK], memory_order_relaxed);
}

/* Owner: takes the newest task, NULL if there is none. */
static inline struct nio_task *nio_local_queue_pop_newest(struct nio_local_queue *queue,
                                                          bool is_shared)
{
    /* relaxed: the CAS checks the value */
    uint64_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    /* relaxed: the owner wrote it */
    uint16_t tail = (uint16_t)atomic_load_explicit(&queue->tail, memory_order_relaxed);
    if (nio_local_queue_real(head) == tail)
        return NULL;
    uint16_t newest = (uint16_t)(tail - 1);
    /* relaxed: published by the CAS below; whoever sees it early takes less */
    atomic_store_explicit(&queue->tail, newest, memory_order_relaxed);
    if (is_shared) {
        /* [LQ7] release: whoever sees the new version sees the new tail.  Pairs with [LQ6].
         * relaxed on failure: retried, or given up. */
        while (!atomic_compare_exchange_weak_explicit(&queue->head, &head,
                                                      nio_local_queue_advance(head, 0),
                                                      memory_order_release, memory_order_relaxed)) {
            if (nio_local_queue_real(head) != tail)
                continue; /* a thief has claimed others, or is done with its claim */
            /* relaxed: it has claimed the newest as well; the queue is empty, as before */
            atomic_store_explicit(&queue->tail, tail, memory_order_relaxed);
            return NULL;
        }
    }
    /* relaxed: written by the owner */
    return atomic_load_explicit(&queue->slots[newest & NIO_LOCAL_QUEUE_MASK], memory_order_relaxed);
}

/* Owner, queue full: takes the older half out as a chain linked by nio_task.link.  Returns the
 * number of tasks, 0 if a thief was faster (then there is room, or a thief is still copying). */
uint32_t nio_local_queue_overflow(struct nio_local_queue *queue, struct nio_mpsc_node **ret_first,
                                  struct nio_mpsc_node **ret_last);

/* The owner of `into`, which must have room for half a ring: moves up to half of `from`'s tasks
 * there, at most `max`.  Returns one of them to run at once, NULL if there was nothing to take;
 * *ret_count is the number taken, that one included. */
struct nio_task *nio_local_queue_steal(struct nio_local_queue *from, struct nio_local_queue *into,
                                       uint32_t max, uint32_t *ret_count);

/* Aborts if the positions are impossible.  Any thread. */
void nio_local_queue_check(const struct nio_local_queue *queue);

#endif
