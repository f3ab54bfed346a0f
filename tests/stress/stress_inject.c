/* SPDX-License-Identifier: MIT */
/* Producers push chains to an inject queue, takers take batches into their own local queues.  Every
 * task comes out once, with its letter, and those of one producer in the order of its pushes.
 *
 * Weakened [BL1], [BL2] or [BL3] (the lock): ThreadSanitizer reports the chain's ends and the
 * letters.
 */
#include <pthread.h>

#include "runtime/sched/inject.h"
#include "tests/stress/stress.h"

enum { PRODUCERS = 2, TAKERS = 2, TASKS = 512, CHAIN_MAX = 5 };

struct parcel {
    struct nio_task task;
    uint64_t number;           /* plain on purpose */
    unsigned producer;         /* plain on purpose */
    _Atomic uint32_t is_taken; /* 0 while it is queued */
};

struct producer {
    NIO_CACHE_ALIGNED struct parcel parcels[TASKS];
    struct nio_rng rng;
    uint64_t pushed;
};

struct taker {
    NIO_CACHE_ALIGNED struct nio_local_queue queue;
    struct nio_rng rng;
    uint64_t taken, last[PRODUCERS];
};

static struct nio_inject inject;
static struct producer producers[PRODUCERS];
static struct taker takers[TAKERS];
static _Atomic uint32_t producing = PRODUCERS;
static uint64_t stop_ns;

static bool push_chain(struct producer *self)
{
    uint32_t count = 1 + nio_rng_below(&self->rng, CHAIN_MAX);
    struct nio_mpsc_node *first = NULL, *last = NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct parcel *parcel = &self->parcels[(self->pushed + i) % TASKS];
        /* [SI2] acquire: pairs with [SI1] */
        if (!atomic_load_explicit(&parcel->is_taken, memory_order_acquire)) {
            count = i;
            break;
        }
        parcel->number = self->pushed + i + 1;
        parcel->producer = (unsigned)(self - producers);
        /* relaxed: published by the push */
        atomic_store_explicit(&parcel->is_taken, 0, memory_order_relaxed);
        if (last)
            last->next = &parcel->task.link;
        else
            first = &parcel->task.link;
        last = &parcel->task.link;
    }
    if (count == 0)
        return false;
    nio_inject_push(&inject, first, last, count);
    self->pushed += count;
    return true;
}

static void *produce(void *arg)
{
    struct producer *self = arg;
    unsigned spins = 0;
    for (uint64_t round = 0; round % 256 || nio_now_ns() < stop_ns; round++)
        if (!push_chain(self))
            stress_pause(&spins);
    /* [SI3] release: the last push precedes the end.  Pairs with [SI4]. */
    (void)atomic_fetch_sub_explicit(&producing, 1, memory_order_release);
    return NULL;
}

static void take(struct taker *self, struct nio_task *task)
{
    struct parcel *parcel = NIO_CONTAINER_OF(task, struct parcel, task);
    STRESS_CHECK(parcel->producer < PRODUCERS);
    STRESS_CHECK(parcel->number > self->last[parcel->producer]);
    self->last[parcel->producer] = parcel->number;
    /* [SI1] release: the producer may write it again.  Pairs with [SI2]. */
    uint32_t before = atomic_exchange_explicit(&parcel->is_taken, 1, memory_order_release);
    STRESS_CHECK(before == 0);
    self->taken++;
}

static void *take_all(void *arg)
{
    struct taker *self = arg;
    unsigned spins = 0;
    for (;;) { /* until the producers have ended and the queue is empty */
        /* [SI4] acquire: asked before the look.  Pairs with [SI3]. */
        bool is_last = atomic_load_explicit(&producing, memory_order_acquire) == 0;
        uint32_t max = 1 + nio_rng_below(&self->rng, NIO_LOCAL_QUEUE_SLOTS / 2);
        uint32_t count;
        struct nio_task *task = nio_inject_take(&inject, &self->queue, max, &count);
        STRESS_CHECK(count <= max && (task == NULL) == (count == 0));
        for (; task; task = nio_local_queue_pop(&self->queue, true), count--)
            take(self, task);
        STRESS_CHECK(count == 0);
        if (is_last && nio_inject_length(&inject) == 0)
            return NULL;
        stress_pause(&spins);
    }
}

int main(void)
{
    uint64_t seed;
    pthread_t threads[PRODUCERS + TAKERS];
    stop_ns = stress_start(&seed);
    nio_inject_init(&inject);
    for (unsigned i = 0; i < PRODUCERS; i++) {
        nio_rng_init(&producers[i].rng, &seed);
        for (unsigned k = 0; k < TASKS; k++)
            atomic_init(&producers[i].parcels[k].is_taken, 1);
    }
    for (unsigned i = 0; i < TAKERS; i++) {
        nio_rng_init(&takers[i].rng, &seed);
        nio_local_queue_init(&takers[i].queue);
    }
    for (unsigned i = 0; i < PRODUCERS + TAKERS; i++)
        STRESS_CHECK(pthread_create(&threads[i], NULL, i < PRODUCERS ? produce : take_all,
                                    i < PRODUCERS ? (void *)&producers[i]
                                                  : (void *)&takers[i - PRODUCERS]) == 0);
    uint64_t pushed = 0, taken = 0;
    for (unsigned i = 0; i < PRODUCERS + TAKERS; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: joined once */
    for (unsigned i = 0; i < PRODUCERS; i++)
        pushed += producers[i].pushed;
    for (unsigned i = 0; i < TAKERS; i++)
        taken += takers[i].taken;
    printf("stress_inject: %llu pushed\n", (unsigned long long)pushed);
    STRESS_CHECK(pushed == taken);
    return pushed == 0;
}
