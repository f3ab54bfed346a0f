/* SPDX-License-Identifier: MIT */
/* Scenarios about locks, in coroutines only: a future can take them no faster, since it begins an
 * operation each time. */
#include <numio/sync.h>

#include "perf/bench/bench_scenarios.h"

enum { PAIRS = 100000, TASKS = 8, TURNS = 1000 };

/* --- uncontended ---------------------------------------------------------------------------- */

struct alone {
    struct numio_mutex mutex;
    struct numio_semaphore semaphore;
    uint64_t count; /* under the mutex, or with the permit */
    struct bench_block block;
};

static int64_t lock_alone(void *arg)
{
    struct alone *a = arg;
    uint64_t start_ns = bench_now_ns();
    for (unsigned i = 0; i < PAIRS; i++) {
        bench_must(numio_mutex_lock(&a->mutex), "numio_mutex_lock");
        a->count++;
        bench_must(numio_mutex_unlock(&a->mutex), "numio_mutex_unlock");
    }
    a->block = (struct bench_block){ bench_now_ns() - start_ns, PAIRS };
    return 0;
}

static int64_t acquire_alone(void *arg)
{
    struct alone *a = arg;
    uint64_t start_ns = bench_now_ns();
    for (unsigned i = 0; i < PAIRS; i++) {
        bench_must(numio_semaphore_acquire(&a->semaphore, 1), "numio_semaphore_acquire");
        a->count++;
        bench_must(numio_semaphore_release(&a->semaphore, 1), "numio_semaphore_release");
    }
    a->block = (struct bench_block){ bench_now_ns() - start_ns, PAIRS };
    return 0;
}

static struct bench_block alone_block(struct bench *b, int64_t (*run)(void *arg))
{
    struct alone a = { .semaphore = NUMIO_SEMAPHORE_INIT(1) };
    bench_must(numio_block_on(b->handle, run, &a), "numio_block_on");
    if (a.count != PAIRS)
        bench_fail("%s: %llu turns", b->scenario->name, (unsigned long long)a.count);
    return a.block;
}

static struct bench_block mutex_block(struct bench *b, void *arg)
{
    (void)arg;
    return alone_block(b, lock_alone);
}

static struct bench_block semaphore_block(struct bench *b, void *arg)
{
    (void)arg;
    return alone_block(b, acquire_alone);
}

void bench_mutex_uncontended(struct bench *b)
{
    if (!bench_start(b))
        return;
    bench_repeat(b, mutex_block, NULL);
    bench_stop(b);
}

void bench_semaphore_uncontended(struct bench *b)
{
    if (!bench_start(b))
        return;
    bench_repeat(b, semaphore_block, NULL);
    bench_stop(b);
}

/* --- contended ------------------------------------------------------------------------------ */

struct crowd {
    struct numio_mutex mutex;
    uint64_t count; /* under the mutex */
    struct bench_block block;
};

static int64_t take_turns(void *arg)
{
    struct crowd *c = arg;
    for (unsigned i = 0; i < TURNS; i++) {
        bench_must(numio_mutex_lock(&c->mutex), "numio_mutex_lock");
        uint64_t seen = c->count;
        bench_must(numio_yield_now(), "numio_yield_now");
        c->count = seen + 1;
        bench_must(numio_mutex_unlock(&c->mutex), "numio_mutex_unlock");
    }
    return 0;
}

static int64_t gather(void *arg)
{
    struct crowd *c = arg;
    struct numio_join *joins[TASKS];
    uint64_t start_ns = bench_now_ns();
    for (unsigned i = 0; i < TASKS; i++)
        bench_must(numio_spawn_co(NULL, take_turns, c, NULL, &joins[i]), "numio_spawn_co");
    for (unsigned i = 0; i < TASKS; i++)
        bench_must(numio_join_await(&joins[i]), "numio_join_await");
    c->block = (struct bench_block){ bench_now_ns() - start_ns, (uint64_t)TASKS * TURNS };
    return 0;
}

static struct bench_block contended_block(struct bench *b, void *arg)
{
    struct crowd c = { .count = 0 };
    (void)arg;
    bench_must(numio_block_on(b->handle, gather, &c), "numio_block_on");
    if (c.count != c.block.ops)
        bench_fail("%s: %llu turns", b->scenario->name, (unsigned long long)c.count);
    return c.block;
}

void bench_mutex_contended(struct bench *b)
{
    if (!bench_start(b))
        return;
    bench_repeat(b, contended_block, NULL);
    bench_stop(b);
}
