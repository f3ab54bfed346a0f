/* SPDX-License-Identifier: MIT */
/* The idle protocol between real threads: a pusher puts one task into its local queue and never
 * pops it, as a worker in a long poll; siblings search, announce their sleep, look once more and
 * wait to be woken.  The pusher waits for the task to be taken before it pushes the next, so that a
 * lost wake stops everything, which is noticed.
 *
 * The push must be seq_cst [LQ5], and the announcement, too [ID2]: with the push weakened to a
 * release, x86 lets the pusher's look at the idle state [ID1] pass it, and this program stops.
 */
#include <pthread.h>

#include "runtime/sched/idle.h"
#include "runtime/sched/local_queue.h"
#include "tests/stress/stress.h"

enum { SLEEPERS_MAX = 2, LOST_MS = 1000, SHORT_SPINS = 24, LONG_SPINS = 1000 };

struct sleeper {
    NIO_CACHE_ALIGNED _Atomic uint32_t is_woken;
    struct nio_local_queue queue;
    struct nio_rng rng;
    uint64_t taken, sleeps;
    unsigned index;
    bool is_searching;
};

static struct nio_idle idle;
static struct nio_local_queue pushers_queue;
static struct sleeper sleepers[SLEEPERS_MAX];
static unsigned sleepers_count;
static struct nio_task task;
static NIO_CACHE_ALIGNED _Atomic uint64_t taken_total;
static _Atomic uint32_t is_over;
static uint64_t stop_ns;

/* Stays on its core much longer than a round takes: pusher and sleeper must run side by side. */
static void pause_eagerly(unsigned *spins)
{
    nio_cpu_relax();
    if (++*spins % LONG_SPINS == 0)
        (void)sched_yield();
}

static void wake(int index)
{
    if (index < 0)
        return;
    /* [SD1] release: as a parker's.  Pairs with [SD2]. */
    atomic_store_explicit(&sleepers[index].is_woken, 1, memory_order_release);
}

static void offer(void)
{
    if (nio_idle_wants_wake(&idle))
        wake(nio_idle_take_sleeper(&idle, 0, NULL));
}

static bool search(struct sleeper *self)
{
    if (!self->is_searching)
        self->is_searching = nio_idle_begin_search(&idle);
    if (!self->is_searching)
        return false;
    uint32_t count;
    if (!nio_local_queue_steal(&pushers_queue, &self->queue, NIO_LOCAL_QUEUE_SLOTS, &count))
        return false;
    STRESS_CHECK(count == 1);
    self->is_searching = false;
    if (nio_idle_end_search(&idle))
        offer();
    self->taken++;
    /* [SD3] release: the pusher goes on.  Pairs with [SD4]. */
    (void)atomic_fetch_add_explicit(&taken_total, 1, memory_order_release);
    return true;
}

static void sleep_until_woken(struct sleeper *self)
{
    bool was_searching = self->is_searching;
    bool has_slept = false;
    unsigned spins = 0;
    nio_idle_sleep(&idle, self->index, was_searching);
    /* relaxed: the end is repeated until it is heard */
    if (nio_local_queue_length(&pushers_queue) == 0 &&
        !atomic_load_explicit(&is_over, memory_order_relaxed)) {
        /* [SD2] acquire: pairs with [SD1] */
        while (!atomic_load_explicit(&self->is_woken, memory_order_acquire))
            pause_eagerly(&spins); /* for a real sleep a round would take 100 times as long */
        /* relaxed: a wake that comes now is for the next sleep, as with a parker */
        atomic_store_explicit(&self->is_woken, 0, memory_order_relaxed);
        self->sleeps++;
        has_slept = true;
    }
    self->is_searching = nio_idle_leave(&idle, self->index, was_searching && !has_slept);
}

static void *run_sleeper(void *arg)
{
    struct sleeper *self = arg;
    /* relaxed: as above */
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        if (!search(self))
            sleep_until_woken(self);
    }
    return NULL;
}

static void wait_until_taken(uint64_t pushed)
{
    uint64_t lost_ns = 0;
    unsigned spins = 0;
    /* [SD4] acquire: pairs with [SD3] */
    while (atomic_load_explicit(&taken_total, memory_order_acquire) < pushed) {
        pause_eagerly(&spins);
        if (spins % 4096)
            continue;
        uint64_t now_ns = nio_now_ns();
        if (lost_ns == 0)
            lost_ns = now_ns + LOST_MS * UINT64_C(1000000);
        /* All asleep, and nobody on the way: only then is it lost and not just late. */
        bool is_lost =
            now_ns > lost_ns && nio_idle_sleeping(nio_idle_load(&idle)) == sleepers_count;
        STRESS_CHECK(!is_lost);
    }
}

/* About as long as a sleeper needs from the last task to its announcement, so that the next push
 * often meets just that. */
static void pause_shortly(struct nio_rng *rng)
{
    for (uint32_t i = nio_rng_below(rng, SHORT_SPINS); i > 0; i--)
        nio_cpu_relax();
}

/* With one sleeper nobody else is seen asleep, and every push meets the same announcement. */
static void run_with(unsigned count, struct nio_rng *rng, uint64_t *seed)
{
    pthread_t threads[SLEEPERS_MAX];
    uint64_t pushed = 0, sleeps = 0;
    sleepers_count = count;
    nio_idle_init(&idle, count + 1);
    nio_local_queue_init(&pushers_queue);
    atomic_init(&taken_total, 0);
    atomic_init(&is_over, 0);
    for (unsigned i = 0; i < count; i++) {
        memset(&sleepers[i], 0, sizeof sleepers[i]);
        nio_local_queue_init(&sleepers[i].queue);
        nio_rng_init(&sleepers[i].rng, seed);
        sleepers[i].index = i;
        STRESS_CHECK(pthread_create(&threads[i], NULL, run_sleeper, &sleepers[i]) == 0);
    }
    while (pushed % 64 || nio_now_ns() < stop_ns) {
        pause_shortly(rng);
        bool is_pushed = nio_local_queue_push(&pushers_queue, &task, true);
        offer();
        STRESS_CHECK(is_pushed);
        wait_until_taken(++pushed);
    }
    /* relaxed: repeated until it is heard */
    atomic_store_explicit(&is_over, 1, memory_order_relaxed);
    for (unsigned i = 0; i < count; i++) {
        while (pthread_tryjoin_np(threads[i], NULL) != 0) {
            wake((int)i);
            (void)sched_yield(); /* until it has heard */
        }
        sleeps += sleepers[i].sleeps;
    }
    printf("stress_idle: %u sleepers, %llu tasks, %llu sleeps\n", count, (unsigned long long)pushed,
           (unsigned long long)sleeps);
    STRESS_CHECK(pushed > 0 && sleeps > 0);
}

int main(void)
{
    uint64_t seed;
    struct nio_rng rng;
    uint64_t end_ns = stress_start(&seed);
    nio_rng_init(&rng, &seed);
    stop_ns = nio_now_ns() + (end_ns - nio_now_ns()) / 2;
    run_with(1, &rng, &seed);
    stop_ns = end_ns;
    run_with(2, &rng, &seed);
    return 0;
}
