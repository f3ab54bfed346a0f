/* SPDX-License-Identifier: MIT */
/* A runtime's time under fire: three workers with tasks that sleep, set limits, block on the pool,
 * talk through a pipe and wake each other, while a plain thread pauses the time, moves it, has it
 * jump, and lets it flow.  Nothing ends before its time by numio_now_ns(), and everything ends: a
 * jump that is missed is a sleep of a day, the watchdog.
 *
 * Weakened [BJ2] or a worker that does not leave the still ones: a wait that has something at hand
 * ends by its limit, or the watchdog. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { WORKERS = 3, TASKS = 24 };

static const uint64_t day_ns = UINT64_C(86400000000000);
static const uint64_t long_ns =
    UINT64_C(1000000000000000000); /* longer than what is moved in a test */
static uint64_t end_ns;
static struct numio_handle *handle;
static _Atomic uint64_t sleeps;

static int64_t nothing(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

static int64_t wait_briefly(void *arg)
{
    stress_jitter(arg);
    return 3;
}

static void do_something(struct nio_rng *rng, int *ends)
{
    struct numio_join *join;
    uint64_t before_ns = numio_now_ns(), delay_ns = nio_rng_next(rng) % day_ns;
    char byte = 'x';
    switch (nio_rng_below(rng, 6)) {
    case 0:
        STRESS_CHECK(numio_within(delay_ns, numio_sleep_ns(long_ns)) == -ETIMEDOUT);
        STRESS_CHECK(numio_now_ns() - before_ns >= delay_ns);
        break;
    case 1:
        STRESS_CHECK(numio_block_in_place(wait_briefly, rng) == 3);
        break;
    case 2: /* a task that is woken on another worker */
        STRESS_CHECK(numio_spawn_co(NULL, nothing, (void *)7, NULL, &join) == 0);
        STRESS_CHECK(numio_join_await(&join) == 7);
        break;
    case 3:
        STRESS_CHECK(numio_write(ends[1], &byte, 1) == 1);
        STRESS_CHECK(numio_read(ends[0], &byte, 1) == 1);
        break;
    default:
        STRESS_CHECK(numio_sleep_ns(delay_ns) == 0);
        STRESS_CHECK(numio_now_ns() - before_ns >= delay_ns);
        /* relaxed: a count for the report */
        (void)atomic_fetch_add_explicit(&sleeps, 1, memory_order_relaxed);
        break;
    }
}

static int64_t play(void *arg)
{
    struct nio_rng rng;
    uint64_t seed = (uintptr_t)arg;
    int ends[2];
    nio_rng_init(&rng, &seed);
    STRESS_CHECK(pipe2(ends, O_CLOEXEC) == 0);
    while (nio_now_ns() < end_ns)
        do_something(&rng, ends);
    (void)close(ends[0]);
    (void)close(ends[1]);
    return 0;
}

/* Whatever it does, it leaves the time to jump by itself for most of the while. */
static void meddle(struct nio_rng *rng)
{
    int rc;
    switch (nio_rng_below(rng, 4)) {
    case 0:
        STRESS_CHECK(numio_time_by_hand(handle, true) == 0);
        rc = numio_time_advance(handle, nio_rng_next(rng) % day_ns);
        STRESS_CHECK(rc == 0 || rc == -EINVAL);
        STRESS_CHECK(numio_time_by_hand(handle, false) == 0);
        break;
    case 1:
        rc = numio_time_resume(handle);
        STRESS_CHECK(rc == 0 || rc == -EALREADY);
        stress_jitter(rng);
        rc = numio_time_pause(handle);
        STRESS_CHECK(rc == 0);
        break;
    default:
        (void)usleep(nio_rng_below(rng, 2000)); /* lets it jump */
    }
}

int main(void)
{
    uint64_t seed;
    struct numio_runtime *runtime;
    struct numio_config config;
    struct numio_join *joins[TASKS];
    struct nio_rng rng;
    end_ns = stress_start(&seed);
    uint64_t rng_seed = seed;
    nio_rng_init(&rng, &rng_seed);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.workers = WORKERS;
    config.topology = "pack:1 core:3 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    handle = numio_runtime_handle(runtime);
    STRESS_CHECK(numio_time_pause(handle) == 0);
    for (unsigned i = 0; i < TASKS; i++)
        STRESS_CHECK(numio_spawn_co(handle, play, (void *)(uintptr_t)(seed + i), NULL, &joins[i]) ==
                     0);
    while (nio_now_ns() < end_ns)
        meddle(&rng);
    for (unsigned i = 0; i < TASKS; i++)
        STRESS_CHECK(numio_join_wait(&joins[i], -1) == 0);
    /* relaxed: all have ended */
    printf("%llu sleeps\n",
           (unsigned long long)atomic_load_explicit(&sleeps, memory_order_relaxed));
    numio_runtime_destroy(runtime);
    return 0;
}
