/* SPDX-License-Identifier: MIT */
/* Coroutines that migrate: a few threads in a ring, each with a queue; what a thread has resumed
 * it passes on to the next, so that every resumption is on another thread than the last.  Each
 * coroutine keeps plain counters, on its stack and in its record, and arrays that the sanitizers
 * watch.  When it ends, its stack is handed to a fresh one at once.
 *
 * What it must show: nothing is lost or mixed up, and neither ThreadSanitizer nor
 * AddressSanitizer (also with detect_stack_use_after_return=1) has anything to say.  Weakening
 * [BL1] or [BL2] of base/lock.h, the edge between two resumptions, makes the TSan build fail.
 *
 * Exit status: 0 passed, 1 failed.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/lock.h"
#include "runtime/coro/coro.h"

enum {
    THREADS = 3,
    CROWD = 48,
    LIVES = 20, /* coroutines that use one stack in turn */
    ROUNDS = 60,
    STACK_BYTES = 64 * 1024
};

struct walker {
    struct nio_coro co;
    struct nio_coro *host; /* whoever resumed it last */
    struct walker *next;
    char *stack;
    long steps; /* plain: one thread at a time */
    int lives;
    long migrations;
};

struct queue {
    struct nio_lock lock;
    struct walker *first;
    struct walker *last;
};

static struct queue queues[THREADS];
static _Atomic int alive;
static _Atomic int failures;

static _Thread_local int thread_number;

static NIO_CORO_THREAD_ACCESSOR int thread_number_get(void)
{
    nio_coro_thread_barrier();
    return thread_number;
}

static void queue_push(struct queue *queue, struct walker *w)
{
    w->next = NULL;
    nio_lock_acquire(&queue->lock);
    if (queue->last)
        queue->last->next = w;
    else
        queue->first = w;
    queue->last = w;
    nio_lock_release(&queue->lock);
}

static struct walker *queue_pop(struct queue *queue)
{
    nio_lock_acquire(&queue->lock);
    struct walker *w = queue->first;
    if (w)
        queue->first = w->next;
    if (!queue->first)
        queue->last = NULL;
    nio_lock_release(&queue->lock);
    return w;
}

static void fail(const char *what)
{
    /* relaxed: read after the threads were joined */
    atomic_fetch_add_explicit(&failures, 1, memory_order_relaxed);
    (void)fprintf(stderr, "stress_coro: %s\n", what); /* the exit status says it too */
}

static NIO_NOINLINE void step(struct walker *w, int round)
{
    unsigned char block[300];
    memset(block, round, sizeof block);
    int before = thread_number_get();
    nio_coro_switch_out(&w->co, w->host);
    w->migrations += thread_number_get() != before;
    for (size_t i = 0; i < sizeof block; i++)
        if (block[i] != (unsigned char)round)
            fail("a local changed during a suspension");
    w->steps++;
}

static void walk(void *arg)
{
    struct walker *w = arg;
    char name[32] = "walker";
    for (int round = 0; round < ROUNDS; round++)
        step(w, round);
    if (strcmp(name, "walker") != 0)
        fail("a local of the entry function changed");
    nio_coro_switch_last(&w->co, w->host);
}

static void walker_start(struct walker *w)
{
    nio_coro_init(&w->co, w->stack, w->stack + STACK_BYTES, walk, w);
    w->lives++;
}

/* Returns whether `w` goes on. */
static bool resume(struct walker *w)
{
    struct nio_coro host = { .sp = NULL };
    w->host = &host;
    nio_coro_switch_in(&host, &w->co);
    if (!nio_coro_is_finished(&w->co))
        return true;
    if (w->steps != (long)ROUNDS * w->lives)
        fail("steps were lost");
    if (w->lives == LIVES)
        return false;
    memset(w->stack, 0xee, STACK_BYTES);
    walker_start(w);
    return true;
}

static void *run(void *arg)
{
    thread_number = *(int *)arg;
    struct queue *mine = &queues[thread_number];
    struct queue *next = &queues[(thread_number + 1) % THREADS];
    /* relaxed: a count to stop at; what the walkers wrote is read after the join */
    while (atomic_load_explicit(&alive, memory_order_relaxed) > 0) {
        struct walker *w = queue_pop(mine);
        if (!w)
            (void)sched_yield(); /* cannot fail */
        else if (resume(w))
            queue_push(next, w);
        else
            /* relaxed: see the load above */
            atomic_fetch_sub_explicit(&alive, 1, memory_order_relaxed);
    }
    return NULL;
}

int main(void)
{
    static struct walker crowd[CROWD];
    pthread_t threads[THREADS];
    int numbers[THREADS];
    for (int i = 0; i < THREADS; i++)
        nio_lock_init(&queues[i].lock, NIO_RANK_LEAF);
    atomic_init(&alive, CROWD);
    for (int i = 0; i < CROWD; i++) {
        crowd[i].stack = malloc(STACK_BYTES);
        if (!crowd[i].stack)
            return 1;
        walker_start(&crowd[i]);
        queue_push(&queues[i % THREADS], &crowd[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        if (pthread_create(&threads[i], NULL, run, &numbers[i]) != 0)
            return 1;
    }
    for (int i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL); /* fails only on a bad id */
    long migrations = 0;
    for (int i = 0; i < CROWD; i++) {
        migrations += crowd[i].migrations;
        free(crowd[i].stack);
    }
    /* relaxed: the threads were joined */
    int bad = atomic_load_explicit(&failures, memory_order_relaxed);
    printf("stress_coro: %d coroutines, %ld migrations, %d failures\n", CROWD * LIVES, migrations,
           bad);
    if (migrations != (long)CROWD * LIVES * ROUNDS) {
        (void)fprintf(stderr, "stress_coro: some resumptions did not migrate\n");
        return 1;
    }
    return bad != 0;
}
