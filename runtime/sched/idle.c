/* SPDX-License-Identifier: MIT */
/* The design note stands in idle.h. */
#include "runtime/sched/idle.h"

#include "runtime/base/assert.h"

enum { SEARCHING_ONE = 1 << 16, SLEEPING_ONE = 1 };

void nio_idle_init(struct nio_idle *idle, unsigned workers)
{
    NIO_ASSERT(workers <= NIO_IDLE_WORDS_MAX * 64);
    atomic_init(&idle->state, 0);
    idle->workers = workers;
    nio_lock_init(&idle->lock, NIO_RANK_IDLE);
    for (unsigned i = 0; i < NIO_IDLE_WORDS_MAX; i++)
        idle->sleepers[i] = 0;
}

/* The first sleeper at or after `start`, going around, that is also in `filter`; -1 if none. */
static int find_sleeper(const struct nio_idle *idle, unsigned start, const uint64_t *filter)
{
    unsigned words = (idle->workers + 63) / 64;
    for (unsigned i = 0; i <= words; i++) {
        unsigned word = (start / 64 + i) % words;
        uint64_t bits = idle->sleepers[word];
        if (filter)
            bits &= filter[word];
        if (i == 0)
            bits &= UINT64_MAX << (start % 64);
        if (bits)
            return (int)(word * 64 + (unsigned)__builtin_ctzll(bits));
    }
    return -1;
}

int nio_idle_take_sleeper(struct nio_idle *idle, unsigned start, const uint64_t *prefer)
{
    int index = -1;
    nio_lock_acquire(&idle->lock);
    /* Looked at again under the lock: of several pushers only one wakes somebody. */
    if (nio_idle_wants_wake(idle)) {
        if (prefer)
            index = find_sleeper(idle, start % idle->workers, prefer);
        if (index < 0)
            index = find_sleeper(idle, start % idle->workers, NULL);
    }
    if (index >= 0) {
        idle->sleepers[index / 64] &= ~(UINT64_C(1) << (index % 64));
        /* [ID2] seq_cst: later pushers see a searcher and leave the work to it.  Pairs with
         * [ID1]. */
        (void)atomic_fetch_add_explicit(&idle->state, SEARCHING_ONE - SLEEPING_ONE,
                                        memory_order_seq_cst);
    }
    nio_lock_release(&idle->lock);
    return index;
}

bool nio_idle_begin_search(struct nio_idle *idle)
{
    /* relaxed: the limit is a matter of cost only */
    uint32_t state = atomic_load_explicit(&idle->state, memory_order_relaxed);
    if (2 * nio_idle_searching(state) >= idle->workers)
        return false;
    /* [ID2] seq_cst: as in nio_idle_take_sleeper(), pairs with [ID1] */
    (void)atomic_fetch_add_explicit(&idle->state, SEARCHING_ONE, memory_order_seq_cst);
    return true;
}

bool nio_idle_end_search(struct nio_idle *idle)
{
    /* [ID2] seq_cst: whoever pushes from now on sees one searcher less.  Pairs with [ID1]. */
    uint32_t old = atomic_fetch_sub_explicit(&idle->state, SEARCHING_ONE, memory_order_seq_cst);
    NIO_DEBUG_ASSERT(nio_idle_searching(old) > 0);
    return nio_idle_searching(old) == 1;
}

void nio_idle_sleep(struct nio_idle *idle, unsigned index, bool was_searching)
{
    nio_lock_acquire(&idle->lock);
    NIO_DEBUG_ASSERT(!(idle->sleepers[index / 64] & (UINT64_C(1) << (index % 64))));
    idle->sleepers[index / 64] |= UINT64_C(1) << (index % 64);
    uint32_t change = SLEEPING_ONE - (was_searching ? (uint32_t)SEARCHING_ONE : 0);
    /* [ID2] seq_cst: the announcement; the looks that follow must not pass it.  Pairs with [ID1],
     * a pusher's load after its push. */
    (void)atomic_fetch_add_explicit(&idle->state, change, memory_order_seq_cst);
    nio_lock_release(&idle->lock);
}

bool nio_idle_leave(struct nio_idle *idle, unsigned index, bool as_searcher)
{
    uint64_t bit = UINT64_C(1) << (index % 64);
    nio_lock_acquire(&idle->lock);
    bool was_asleep = (idle->sleepers[index / 64] & bit) != 0;
    if (was_asleep) {
        idle->sleepers[index / 64] &= ~bit;
        uint32_t change = (as_searcher ? (uint32_t)SEARCHING_ONE : 0) - SLEEPING_ONE;
        /* [ID2] seq_cst: as above, pairs with [ID1] */
        (void)atomic_fetch_add_explicit(&idle->state, change, memory_order_seq_cst);
    }
    nio_lock_release(&idle->lock);
    return as_searcher || !was_asleep;
}

void nio_idle_check(struct nio_idle *idle)
{
    nio_lock_acquire(&idle->lock);
    unsigned bits = 0;
    for (unsigned i = 0; i < NIO_IDLE_WORDS_MAX; i++)
        bits += (unsigned)__builtin_popcountll(idle->sleepers[i]);
    uint32_t state = nio_idle_load(idle);
    NIO_ASSERT(bits == nio_idle_sleeping(state));
    NIO_ASSERT(nio_idle_sleeping(state) + nio_idle_searching(state) <= idle->workers);
    nio_lock_release(&idle->lock);
}
