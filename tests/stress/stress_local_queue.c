/* SPDX-License-Identifier: MIT */
/* One owner pushes, pops and overflows a queue of four while three thieves steal from it, and the
 * thieves from each other.  There are more threads than cores, and thieves do not yield, so that
 * the kernel stops some in the middle of a theft.  Every task is taken exactly once, with its
 * letter.
 *
 * Weakened [LQ1] or [LQ2]: ThreadSanitizer reports the letters.  [LQ3] and [LQ4] order the reuse of
 * slots, which x86 keeps by itself; if the owner forgets the slots that a thief has claimed, a task
 * is taken twice.
 */
#include <pthread.h>

#include "runtime/sched/local_queue.h"
#include "tests/stress/stress.h"

enum { THREADS = 4, TASKS = 64, BURST_MAX = 8 };

struct parcel {
    struct nio_task task;
    uint64_t letter;           /* plain on purpose */
    _Atomic uint32_t is_taken; /* 0 while it is in a queue */
};

struct member {
    NIO_CACHE_ALIGNED struct nio_local_queue queue;
    struct nio_rng rng;
    uint64_t taken, stolen;
};

static struct member members[THREADS]; /* member 0 is the owner, the others are thieves */
static struct parcel parcels[TASKS];
static _Atomic uint32_t is_over;
static uint64_t pushed, overflowed;

static void take(struct member *self, struct nio_task *task)
{
    struct parcel *parcel = NIO_CONTAINER_OF(task, struct parcel, task);
    STRESS_CHECK(parcel->letter == (uintptr_t)parcel + 1);
    parcel->letter = 0;
    /* [SL1] release: the owner may write a letter again.  Pairs with [SL2]. */
    uint32_t before = atomic_exchange_explicit(&parcel->is_taken, 1, memory_order_release);
    STRESS_CHECK(before == 0);
    self->taken++;
}

static void overflow(struct member *self)
{
    struct nio_mpsc_node *first, *last;
    uint32_t count = nio_local_queue_overflow(&self->queue, &first, &last);
    overflowed += count;
    for (; count > 0; count--) {
        struct nio_mpsc_node *next = first->next;
        STRESS_CHECK((next == NULL) == (count == 1));
        take(self, nio_task_of_link(first));
        first = next;
    }
}

static void push_some(struct member *self, unsigned *next)
{
    for (uint32_t i = 1 + nio_rng_below(&self->rng, BURST_MAX); i > 0; i--) {
        struct parcel *parcel = &parcels[*next % TASKS];
        /* [SL2] acquire: pairs with [SL1] */
        if (!atomic_load_explicit(&parcel->is_taken, memory_order_acquire))
            return; /* still on its way */
        parcel->letter = (uintptr_t)parcel + 1;
        /* relaxed: published by the push */
        atomic_store_explicit(&parcel->is_taken, 0, memory_order_relaxed);
        if (nio_local_queue_push(&self->queue, &parcel->task, i % 2)) {
            pushed++;
            ++*next;
            continue;
        }
        /* relaxed: nobody else has seen it */
        atomic_store_explicit(&parcel->is_taken, 1, memory_order_relaxed);
        overflow(self);
    }
}

static uint64_t stop_ns;

static void *run_owner(void *arg)
{
    struct member *self = arg;
    unsigned next = 0;
    for (uint64_t round = 0; round % 64 || nio_now_ns() < stop_ns; round++) {
        push_some(self, &next);
        nio_local_queue_check(&self->queue);
        for (uint32_t i = nio_rng_below(&self->rng, BURST_MAX); i > 0; i--) {
            struct nio_task *task = i % 2 ? nio_local_queue_pop(&self->queue, true)
                                          : nio_local_queue_pop_newest(&self->queue, true);
            if (task)
                take(self, task);
        }
        stress_jitter(&self->rng);
    }
    struct nio_task *task;
    while ((task = nio_local_queue_pop(&self->queue, true)))
        take(self, task);
    /* relaxed: the others are joined before anything is looked at */
    atomic_store_explicit(&is_over, 1, memory_order_relaxed);
    return NULL;
}

static void *run_thief(void *arg)
{
    struct member *self = arg;
    /* relaxed: as above */
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        unsigned victim = nio_rng_below(&self->rng, 4) ? 0 : nio_rng_below(&self->rng, THREADS);
        if (&members[victim] == self)
            continue;
        uint32_t count;
        struct nio_task *task = nio_local_queue_steal(&members[victim].queue, &self->queue,
                                                      NIO_LOCAL_QUEUE_SLOTS, &count);
        self->stolen += count;
        STRESS_CHECK((task == NULL) == (count == 0));
        for (; task; task = nio_local_queue_pop_newest(&self->queue, true))
            take(self, task);
        stress_jitter(&self->rng);
    }
    return NULL;
}

int main(void)
{
    uint64_t seed;
    pthread_t threads[THREADS];
    stop_ns = stress_start(&seed);
    for (unsigned i = 0; i < TASKS; i++)
        atomic_init(&parcels[i].is_taken, 1);
    for (unsigned i = 0; i < THREADS; i++) {
        nio_local_queue_init(&members[i].queue);
        /* Positions that wrap soon. */
        uint16_t start = (uint16_t)(UINT16_MAX - 1000 * (i + 1));
        atomic_init(&members[i].queue.head, nio_local_queue_head(UINT32_MAX - i, start, start));
        atomic_init(&members[i].queue.tail, start);
        nio_rng_init(&members[i].rng, &seed);
    }
    for (unsigned i = 0; i < THREADS; i++)
        STRESS_CHECK(pthread_create(&threads[i], NULL, i ? run_thief : run_owner, &members[i]) ==
                     0);
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: joined once */
    uint64_t taken = 0, stolen = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        taken += members[i].taken;
        stolen += members[i].stolen;
        STRESS_CHECK(nio_local_queue_pop(&members[i].queue, true) == NULL);
    }
    printf("stress_local_queue: %llu pushed, %llu stolen, %llu overflowed\n",
           (unsigned long long)pushed, (unsigned long long)stolen, (unsigned long long)overflowed);
    STRESS_CHECK(taken == pushed);
    return stolen == 0 || overflowed == 0;
}
