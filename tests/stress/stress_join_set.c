/* SPDX-License-Identifier: MIT */
/* Join sets of plain threads and coroutines: tasks end while results are taken, waited for with a
 * limit, aborted, detached and destroyed.  Each result comes out once, with what the task wrote;
 * the watchdog notices a wait that nobody ends.
 *
 * A set that does not end its waits hangs; without the lock ThreadSanitizer reports the cells.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { THREADS = 2, TASKS_MAX = 40, YIELDS_MAX = 6, LIMIT_NS = 100000, ROUNDS_MIN = 10 };

static struct numio_handle *handle;
static uint64_t stop_ns;

struct job {
    uint64_t number, written;
};

static int64_t run_job(void *arg)
{
    struct job *job = arg;
    for (uint64_t i = job->number % YIELDS_MAX; i > 0; i--)
        if (numio_yield_now() < 0)
            return -ECANCELED;
    job->written = 3 * job->number;
    return (int64_t)job->number;
}

static int64_t return_number(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

struct driver {
    struct nio_rng rng;
    pthread_t thread;
    uint64_t rounds, taken, aborted, timeouts;
};

static int next(struct driver *self, struct numio_join_set *set, struct numio_joined *joined)
{
    struct numio_deadline deadline;
    if (nio_rng_below(&self->rng, 3) == 0)
        return numio_join_set_try_next(set, joined, NULL, 0);
    STRESS_CHECK(numio_deadline_push(&deadline, nio_rng_below(&self->rng, LIMIT_NS)) == 0);
    int rc = numio_join_set_next(set, joined, NULL, 0);
    (void)numio_deadline_pop(&deadline); /* passed or not */
    return rc;
}

static void use_a_set(struct driver *self)
{
    struct job jobs[TASKS_MAX] = { 0 };
    uint64_t ids[TASKS_MAX];
    uint32_t count = nio_rng_below(&self->rng, TASKS_MAX), left = count;
    bool was_aborted = false;
    struct numio_joined joined;
    struct numio_join_set *set;
    STRESS_CHECK(numio_join_set_create(&set) == 0);
    for (uint32_t i = 0; i < count; i++) {
        jobs[i].number = nio_rng_below(&self->rng, 1000);
        STRESS_CHECK(numio_join_set_spawn_co(set, handle, run_job, &jobs[i], NULL, &ids[i]) == 0);
    }
    uint32_t stay = nio_rng_below(&self->rng, 3) == 0 ? nio_rng_below(&self->rng, count + 1) : 0;
    while (left > stay) {
        if (!was_aborted && nio_rng_below(&self->rng, 50) == 0) {
            numio_join_set_abort_all(set);
            was_aborted = true;
        }
        int rc = next(self, set, &joined);
        self->timeouts += rc == -ETIMEDOUT;
        STRESS_CHECK(rc == 0 || rc == -ETIMEDOUT || rc == -EAGAIN);
        if (rc != 0)
            continue;
        uint32_t k = 0;
        while (k < count && ids[k] != joined.id)
            k++;
        STRESS_CHECK(k < count);
        ids[k] = UINT64_MAX; /* not twice */
        left--;
        self->taken++;
        self->aborted += joined.result == -ECANCELED;
        STRESS_CHECK(joined.result == -ECANCELED ? was_aborted
                                                 : joined.result == (int64_t)jobs[k].number &&
                                                       jobs[k].written == 3 * jobs[k].number);
    }
    if (left == 0)
        STRESS_CHECK(numio_join_set_next(set, &joined, NULL, 0) == -ENOENT);
    STRESS_CHECK(numio_join_set_destroy(set) == 0); /* the jobs are ours again */
}

/* Those that are detached end while the set goes. */
static void detach_a_set(struct driver *self)
{
    struct numio_join_set *set;
    STRESS_CHECK(numio_join_set_create(&set) == 0);
    for (uint32_t i = nio_rng_below(&self->rng, TASKS_MAX); i > 0; i--)
        STRESS_CHECK(numio_join_set_spawn_co(set, handle, return_number, (void *)(intptr_t)i, NULL,
                                             NULL) == 0);
    stress_jitter(&self->rng);
    STRESS_CHECK(numio_join_set_detach_all(set) == 0);
    STRESS_CHECK(numio_join_set_destroy(set) == 0);
}

static int64_t use_sets(void *arg)
{
    struct driver *self = arg;
    for (; self->rounds < ROUNDS_MIN || nio_now_ns() < stop_ns; self->rounds++) {
        if (nio_rng_below(&self->rng, 4) == 0)
            detach_a_set(self);
        else
            use_a_set(self);
    }
    return 0;
}

static void *use_sets_in_thread(void *arg)
{
    (void)use_sets(arg); /* always 0 */
    return NULL;
}

int main(void)
{
    uint64_t seed, taken = 0, aborted = 0, timeouts = 0;
    static struct driver drivers[2 * THREADS];
    struct numio_join *joins[THREADS];
    struct numio_config config;
    struct numio_runtime *runtime;
    stop_ns = stress_start(&seed);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:2 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    handle = numio_runtime_handle(runtime);
    for (unsigned i = 0; i < 2 * THREADS; i++)
        nio_rng_init(&drivers[i].rng, &seed);
    for (unsigned i = 0; i < THREADS; i++) {
        STRESS_CHECK(pthread_create(&drivers[i].thread, NULL, use_sets_in_thread, &drivers[i]) ==
                     0);
        STRESS_CHECK(numio_spawn_co(handle, use_sets, &drivers[THREADS + i], NULL, &joins[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        (void)pthread_join(drivers[i].thread, NULL); /* cannot fail: joined once */
        STRESS_CHECK(numio_join_wait(&joins[i], -1) == 0);
    }
    for (unsigned i = 0; i < 2 * THREADS; i++) {
        taken += drivers[i].taken;
        aborted += drivers[i].aborted;
        timeouts += drivers[i].timeouts;
    }
    numio_runtime_destroy(runtime); /* asserts that every cell came home */
    printf("stress_join_set: %llu taken, %llu aborted, %llu timeouts\n", (unsigned long long)taken,
           (unsigned long long)aborted, (unsigned long long)timeouts);
    return taken == 0 || aborted == 0;
}
