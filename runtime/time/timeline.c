/* SPDX-License-Identifier: MIT */
#include "runtime/time/timeline.h"

const struct nio_timeline nio_timeline_real = { 0 };

void nio_timeline_init(struct nio_timeline *timeline)
{
    atomic_init(&timeline->state, NIO_TIMELINE_REAL);
    atomic_init(&timeline->stands_ns, 0);
    atomic_init(&timeline->ahead_ns, 0);
    nio_lock_init(&timeline->lock, NIO_RANK_TIMELINE);
    timeline->still = (struct nio_stillness){ 0 };
}

uint64_t nio_timeline_virtual_ns(const struct nio_timeline *timeline)
{
    uint64_t now_ns, state;
    do { /* until nobody has changed it meanwhile, and who pauses has looked at the clock */
        /* [TL1] seq_cst: sees the time that belongs to the state.  Pairs with [TL2]. */
        state = atomic_load_explicit(&timeline->state, memory_order_seq_cst);
        if (state % NIO_TIMELINE_CHANGE == NIO_TIMELINE_STANDS)
            /* [TL3] acquire: pairs with itself in nio_timeline_pause() */
            now_ns = atomic_load_explicit(&timeline->stands_ns, memory_order_acquire);
        else
            /* [TL4] acquire: before the last look.  Pairs with itself in nio_timeline_resume(): who
             * sees the distance of a later pause finds that the state has changed, too. */
            now_ns = nio_clock_between_ns() +
                     atomic_load_explicit(&timeline->ahead_ns, memory_order_acquire);
        /* [TL1] seq_cst: after the clock.  A pause that this look does not see reads the clock
         * later, and so stands at a later time. */
    } while (now_ns == NIO_TIME_NONE ||
             atomic_load_explicit(&timeline->state, memory_order_seq_cst) != state);
    return now_ns;
}

static void set_state(struct nio_timeline *timeline, enum nio_timeline_state state)
{
    /* relaxed: written under the lock */
    uint64_t was = atomic_load_explicit(&timeline->state, memory_order_relaxed);
    uint64_t changes = was / NIO_TIMELINE_CHANGE + 1;
    /* [TL2] seq_cst: before the look at the clock that follows a pause.  Pairs with [TL1]. */
    atomic_store_explicit(&timeline->state, changes * NIO_TIMELINE_CHANGE + state,
                          memory_order_seq_cst);
}

bool nio_timeline_pause(struct nio_timeline *timeline)
{
    if (nio_timeline_stands(timeline))
        return false;
    /* relaxed: written under the lock */
    uint64_t ahead_ns = atomic_load_explicit(&timeline->ahead_ns, memory_order_relaxed);
    /* relaxed: published with the state; who looks now waits for the number below */
    atomic_store_explicit(&timeline->stands_ns, NIO_TIME_NONE, memory_order_relaxed);
    set_state(timeline, NIO_TIMELINE_STANDS);
    /* [TL3] release: pairs with itself in nio_timeline_virtual_ns() */
    atomic_store_explicit(&timeline->stands_ns, nio_clock_between_ns() + ahead_ns,
                          memory_order_release);
    return true;
}

bool nio_timeline_resume(struct nio_timeline *timeline)
{
    if (!nio_timeline_stands(timeline))
        return false;
    uint64_t ahead_ns = nio_timeline_virtual_ns(timeline) - nio_now_ns();
    /* [TL4] release: after the pause.  Pairs with itself in nio_timeline_virtual_ns(). */
    atomic_store_explicit(&timeline->ahead_ns, ahead_ns, memory_order_release);
    set_state(timeline, NIO_TIMELINE_FLOWS);
    return true;
}

void nio_timeline_set(struct nio_timeline *timeline, uint64_t to_ns)
{
    /* relaxed: one number; who must act on it is woken */
    if (to_ns > atomic_load_explicit(&timeline->stands_ns, memory_order_relaxed))
        /* relaxed: as above */
        atomic_store_explicit(&timeline->stands_ns, to_ns, memory_order_relaxed);
}
