/* SPDX-License-Identifier: MIT */
/* Coroutines on two workers and plain threads lock mutexes and acquire permits, alone, in
 * selections and within limits of time, while the coroutines are aborted.  What is guarded is plain
 * memory; the actors count what they did with it, and the sums must agree.  Nobody waits for ever,
 * which the watchdog would notice, and in the end everything is free.
 *
 * Weakened [MX1], [MX2] or [MX3]: ThreadSanitizer reports the memory behind a mutex; [SM2] or
 * [SM3]: that behind a permit; [WT1] or [WT2]: a thread's result.  Without the claim in
 * nio_wait_pop() a selection gets two; without the second look of a wait (MX1, or a semaphore's,
 * which a duel finds: one thread waits for the permit that another is just about to give) somebody
 * waits for ever.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { GUARDS = 3, COROUTINES = 6, THREADS = 2, LIMIT_NS_MAX = 60000, ROUNDS_MIN = 100 };

/* Guarded by a mutex, or by a semaphore with one permit. */
struct guard {
    struct numio_mutex mutex;
    struct numio_semaphore permit;
    NIO_CACHE_ALIGNED uint64_t by_mutex;
    NIO_CACHE_ALIGNED uint64_t by_permit;
};

/* One that has done something with the guards so and so often. */
struct actor {
    struct nio_rng rng;
    pthread_t thread;
    bool is_thread;
    uint64_t by_mutex[GUARDS], by_permit[GUARDS];
    uint64_t selections, stops, rounds;
};

static struct guard guards[GUARDS];
static struct numio_handle *handle;
static uint64_t stop_ns;

static void pause_inside(struct actor *self)
{
    if (!self->is_thread && nio_rng_below(&self->rng, 4) == 0)
        (void)!numio_yield_now(); /* if it was aborted it goes on all the same */
    else
        stress_jitter(&self->rng);
}

static void use_mutex(struct actor *self, unsigned index)
{
    struct guard *guard = &guards[index];
    guard->by_mutex++;
    self->by_mutex[index]++;
    pause_inside(self);
    STRESS_CHECK(numio_mutex_unlock(&guard->mutex) == 0);
}

static void use_permit(struct actor *self, unsigned index)
{
    struct guard *guard = &guards[index];
    guard->by_permit++;
    self->by_permit[index]++;
    pause_inside(self);
    STRESS_CHECK(numio_semaphore_release(&guard->permit, 1) == 0);
}

static bool is_stop(int64_t result)
{
    return result == -ECANCELED || result == -ETIMEDOUT;
}

static int64_t lock_one(struct actor *self)
{
    unsigned index = nio_rng_below(&self->rng, GUARDS);
    int64_t rc = numio_mutex_lock(&guards[index].mutex);
    if (rc == 0)
        use_mutex(self, index);
    return rc;
}

static int64_t acquire_one(struct actor *self)
{
    unsigned index = nio_rng_below(&self->rng, GUARDS);
    int64_t rc = numio_semaphore_acquire(&guards[index].permit, 1);
    if (rc == 0)
        use_permit(self, index);
    return rc;
}

/* Two mutexes and two semaphores, in any order. */
static int64_t select_one(struct actor *self)
{
    struct numio_op ops[4];
    unsigned first = nio_rng_below(&self->rng, GUARDS);
    for (unsigned i = 0; i < 4; i++) {
        struct guard *guard = &guards[(first + i / 2) % GUARDS];
        if (i % 2)
            numio_op_mutex_lock(&ops[i], &guard->mutex);
        else
            numio_op_semaphore_acquire(&ops[i], &guard->permit, 1);
    }
    int64_t index = numio_select(ops, 4, nio_rng_below(&self->rng, 2));
    unsigned happened = 0;
    for (unsigned i = 0; i < 4; i++)
        happened += numio_op_result(&ops[i]) == 0;
    STRESS_CHECK(happened == (index >= 0));
    if (index < 0)
        return index;
    self->selections++;
    if (index % 2)
        use_mutex(self, (first + (unsigned)index / 2) % GUARDS);
    else
        use_permit(self, (first + (unsigned)index / 2) % GUARDS);
    return 0;
}

static int64_t act(struct actor *self)
{
    static int64_t (*const ways[])(struct actor *) = { lock_one, acquire_one, select_one };
    int64_t (*way)(struct actor *) = ways[nio_rng_below(&self->rng, NIO_ARRAY_LEN(ways))];
    if (nio_rng_below(&self->rng, 2))
        return way(self);
    return numio_within(nio_rng_below(&self->rng, LIMIT_NS_MAX), way(self));
}

static int64_t run_coroutine(void *arg)
{
    struct actor *self = arg;
    for (unsigned i = 0; i < 40; i++) {
        int64_t result = act(self);
        STRESS_CHECK(result == 0 || is_stop(result));
        self->stops += result != 0;
        if (result == -ECANCELED)
            return result;
    }
    return 0;
}

/* Lets a coroutine act, and aborts it now and then; one after the other. */
static void *run_driver(void *arg)
{
    struct actor *self = arg;
    struct nio_rng mine = self->rng; /* the coroutine draws from the other */
    (void)nio_rng_next(&self->rng);
    for (; self->rounds < ROUNDS_MIN || nio_now_ns() < stop_ns; self->rounds++) {
        struct numio_join *join;
        STRESS_CHECK(numio_spawn_co(handle, run_coroutine, self, NULL, &join) == 0);
        if (nio_rng_below(&mine, 2)) {
            for (uint32_t i = nio_rng_below(&mine, 60); i > 0; i--)
                stress_jitter(&mine);
            numio_join_abort(join);
        }
        int64_t result = numio_join_wait(&join, -1);
        STRESS_CHECK(result == 0 || result == -ECANCELED);
    }
    return NULL;
}

static void *run_thread(void *arg)
{
    struct actor *self = arg;
    for (; self->rounds < ROUNDS_MIN || nio_now_ns() < stop_ns; self->rounds++) {
        int64_t result = act(self);
        STRESS_CHECK(result == 0 || result == -ETIMEDOUT);
        self->stops += result != 0;
    }
    return NULL;
}

/* --- the duel -------------------------------------------------------------------------------- */

static struct numio_semaphore there, back;
static uint64_t duel_stop_ns;

/* Answers soon after it was asked, which is when the asker begins to wait. */
static void *answer(void *arg)
{
    struct nio_rng *rng = arg;
    unsigned spins = 0;
    int rc;
    for (;;) {
        while ((rc = numio_semaphore_try_acquire(&there, 1)) == -EAGAIN)
            stress_pause(&spins);
        if (rc < 0)
            return NULL; /* it is closed: the duel is over */
        for (uint32_t i = nio_rng_below(rng, 16); i > 0; i--)
            nio_cpu_relax();
        STRESS_CHECK(numio_semaphore_release(&back, 1) == 0);
    }
}

static uint64_t fight_duel(uint64_t *seed)
{
    struct nio_rng rng;
    pthread_t thread;
    uint64_t rounds = 0;
    nio_rng_init(&rng, seed);
    STRESS_CHECK(numio_semaphore_init(&there, 0) == 0 && numio_semaphore_init(&back, 0) == 0);
    STRESS_CHECK(pthread_create(&thread, NULL, answer, &rng) == 0);
    do {
        STRESS_CHECK(numio_semaphore_release(&there, 1) == 0);
        STRESS_CHECK(numio_semaphore_acquire(&back, 1) == 0);
        rounds++;
    } while (nio_now_ns() < duel_stop_ns || rounds < ROUNDS_MIN);
    numio_semaphore_close(&there);
    (void)pthread_join(thread, NULL); /* cannot fail: joined once */
    return rounds;
}

static void check(const struct actor *actors, unsigned count)
{
    for (unsigned i = 0; i < GUARDS; i++) {
        uint64_t by_mutex = 0, by_permit = 0;
        for (unsigned k = 0; k < count; k++) {
            by_mutex += actors[k].by_mutex[i];
            by_permit += actors[k].by_permit[i];
        }
        STRESS_CHECK(by_mutex == guards[i].by_mutex);
        STRESS_CHECK(by_permit == guards[i].by_permit);
        STRESS_CHECK(guards[i].mutex._state == 0 && !guards[i].mutex._waits._first);
        STRESS_CHECK(numio_semaphore_available(&guards[i].permit) == 1);
        STRESS_CHECK(!guards[i].permit._waits._first && (guards[i].permit._state & 3) == 0);
    }
}

int main(void)
{
    static struct actor actors[COROUTINES + THREADS];
    uint64_t seed, selections = 0, stops = 0, rounds = 0;
    struct numio_config config;
    struct numio_runtime *runtime;
    stop_ns = stress_start(&seed);
    duel_stop_ns = nio_now_ns() + (stop_ns - nio_now_ns()) / 4;
    uint64_t duels = fight_duel(&seed);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:1 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    handle = numio_runtime_handle(runtime);
    for (unsigned i = 0; i < GUARDS; i++)
        STRESS_CHECK(numio_semaphore_init(&guards[i].permit, 1) == 0);
    for (unsigned i = 0; i < COROUTINES + THREADS; i++) {
        nio_rng_init(&actors[i].rng, &seed);
        actors[i].is_thread = i >= COROUTINES;
        STRESS_CHECK(pthread_create(&actors[i].thread, NULL,
                                    actors[i].is_thread ? run_thread : run_driver,
                                    &actors[i]) == 0);
    }
    for (unsigned i = 0; i < COROUTINES + THREADS; i++) {
        (void)pthread_join(actors[i].thread, NULL); /* cannot fail: joined once */
        selections += actors[i].selections;
        stops += actors[i].stops;
        rounds += actors[i].rounds;
    }
    check(actors, COROUTINES + THREADS);
    numio_runtime_destroy(runtime); /* asserts that every cell came home */
    printf("stress_wait: %llu duels, %llu rounds, %llu selections, %llu stops\n",
           (unsigned long long)duels, (unsigned long long)rounds, (unsigned long long)selections,
           (unsigned long long)stops);
    return selections == 0 || stops == 0;
}
