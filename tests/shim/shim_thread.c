/* SPDX-License-Identifier: MIT */
/* The SQ thread of a simulated ring in real time, and what a test does to any SQ thread. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/shim/shim_ring.h"

enum { SPINS_BEFORE_SLEEP = 20 };

static bool sq_is_empty(const struct shim_ring *ring)
{
    /* relaxed: written under the mutex */
    unsigned head = atomic_load_explicit(&ring->sq_head, memory_order_relaxed);
    /* [DU5] seq_cst: after NEED_WAKEUP was set. */
    return atomic_load_explicit(&ring->sq_tail, memory_order_seq_cst) == head;
}

/* Says that it sleeps.  False: there was something to take. */
static bool fall_asleep(struct shim_ring *ring)
{
    /* [DU5] seq_cst: before the look at the SQ tail. */
    (void)atomic_fetch_or_explicit(&ring->sq_flags, IORING_SQ_NEED_WAKEUP, memory_order_seq_cst);
    if (sq_is_empty(ring)) {
        ring->is_asleep = true;
        return true;
    }
    /* [DU5] seq_cst: as above */
    (void)atomic_fetch_and_explicit(&ring->sq_flags, ~IORING_SQ_NEED_WAKEUP, memory_order_seq_cst);
    return false;
}

static void *poll_sq(void *arg)
{
    struct shim_ring *ring = arg;
    unsigned idle = 0;
    (void)pthread_mutex_lock(&ring->mutex);
    while (!ring->must_end) {
        if (shim_ring_turn(ring)) {
            idle = 0;
        } else if (ring->faults.starved_until_ns > shim_now_ns() && !ring->is_dead) {
            shim_perform_wait(ring, ring->faults.starved_until_ns);
        } else if (ring->is_asleep || ring->is_dead ||
                   (++idle > SPINS_BEFORE_SLEEP && fall_asleep(ring))) {
            idle = 0;
            shim_perform_wait(ring, shim_ring_next_ns(ring));
        } else {
            (void)pthread_mutex_unlock(&ring->mutex);
            (void)sched_yield(); /* cannot fail */
            (void)pthread_mutex_lock(&ring->mutex);
        }
    }
    (void)pthread_mutex_unlock(&ring->mutex);
    return NULL;
}

void shim_thread_start(struct shim_ring *ring)
{
    ring->has_thread = true;
    if (pthread_create(&ring->thread, NULL, poll_sq, ring))
        abort();
}

void shim_thread_stop(struct shim_ring *ring)
{
    (void)pthread_mutex_lock(&ring->mutex);
    ring->must_end = true;
    shim_ring_kick(ring);
    (void)pthread_mutex_unlock(&ring->mutex);
    (void)pthread_join(ring->thread, NULL); /* it ends */
}
