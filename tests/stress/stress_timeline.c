/* SPDX-License-Identifier: MIT */
/* The time of a runtime that is paused, moved and let flow all the while: on no thread it goes
 * back, and who has seen a time finds no other thread much before it.
 *
 * Without the count of changes a thread that slept between the clock and the distance takes the
 * distance of a later pause for that of its own: it goes back by what the time has stood. */
#include <pthread.h>

#include "runtime/time/timeline.h"
#include "tests/stress/stress.h"

enum { READERS = 3, BEHIND_NS = 1000 /* what clock.h allows between threads */ };

static struct nio_timeline timeline;
static _Atomic uint64_t latest_ns; /* that anybody has seen */
static uint64_t end_ns;

static void note(uint64_t now_ns)
{
    /* relaxed: the exchange below decides */
    uint64_t latest = atomic_load_explicit(&latest_ns, memory_order_relaxed);
    /* [SL1] release: the time was read before.  Pairs with itself in read_times() */
    while (now_ns > latest &&
           !atomic_compare_exchange_weak_explicit(&latest_ns, &latest, now_ns, memory_order_release,
                                                  memory_order_relaxed))
        nio_cpu_relax(); /* ends when somebody has noted a later time */
}

static void *read_times(void *arg)
{
    struct nio_rng rng;
    uint64_t seed = (uintptr_t)arg, last_ns = 0;
    nio_rng_init(&rng, &seed);
    while (nio_now_ns() < end_ns) {
        /* [SL1] acquire: pairs with itself in note() */
        uint64_t before_ns = atomic_load_explicit(&latest_ns, memory_order_acquire);
        uint64_t now_ns = nio_timeline_now_ns(&timeline);
        STRESS_CHECK(now_ns >= last_ns);
        STRESS_CHECK(now_ns + BEHIND_NS >= before_ns);
        last_ns = now_ns;
        note(now_ns);
        if (nio_rng_below(&rng, 64) == 0)
            stress_jitter(&rng);
    }
    return NULL;
}

static void meddle(struct nio_rng *rng)
{
    nio_lock_acquire(&timeline.lock);
    STRESS_CHECK(nio_timeline_pause(&timeline));
    nio_lock_release(&timeline.lock);
    stress_jitter(rng);
    nio_lock_acquire(&timeline.lock);
    if (nio_rng_below(rng, 4) == 0)
        nio_timeline_set(&timeline, nio_timeline_now_ns(&timeline) + nio_rng_below(rng, 1000000));
    STRESS_CHECK(nio_timeline_resume(&timeline));
    nio_lock_release(&timeline.lock);
    stress_jitter(rng);
}

int main(void)
{
    uint64_t seed, pauses = 0;
    struct nio_rng rng;
    pthread_t threads[READERS];
    nio_clock_begin();
    nio_clock_calibrate(false);
    end_ns = stress_start(&seed);
    uint64_t rng_seed = seed;
    nio_rng_init(&rng, &rng_seed);
    nio_timeline_init(&timeline);
    for (uintptr_t i = 0; i < READERS; i++)
        STRESS_CHECK(pthread_create(&threads[i], NULL, read_times, (void *)(seed + i)) == 0);
    for (; nio_now_ns() < end_ns; pauses++)
        meddle(&rng);
    for (unsigned i = 0; i < READERS; i++)
        STRESS_CHECK(pthread_join(threads[i], NULL) == 0);
    printf("%llu pauses\n", (unsigned long long)pauses);
    return 0;
}
