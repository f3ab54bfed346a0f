/* SPDX-License-Identifier: MIT */
/* Deadline scopes under fire, on four workers with queues of four slots: coroutines push scopes of
 * random lengths, wait in random ways, move between workers, pop, and overwrite the scope's memory
 * at once.  A worker that strikes a timer after its scope was popped finds that pattern, and an end
 * that is forgotten is a sleep of an hour: the watchdog.
 *
 * Weakened [DL1]: ThreadSanitizer reports the scope's memory.  A pop that does not travel
 * while its timer is being struck: the assertion of deadline.c, or the pattern. */
#include <errno.h>
#include <fcntl.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { WORKERS = 4, TASKS = 48, DEPTH_MAX = 3, SHORT_MAX_NS = 200000 };

static const uint64_t hour_ns = 3600000000000ull;
static uint64_t end_ns;
static _Atomic uint64_t moves;
static int silent[2]; /* a pipe that nobody writes to */

static void use_scope(struct nio_rng *rng, unsigned depth);

static int64_t come_and_go(void *arg)
{
    return arg ? numio_sleep_ns((uintptr_t)arg) : 0;
}

/* Joins a task of some worker, and so is woken there. */
static void go_elsewhere(struct nio_rng *rng)
{
    struct numio_spawn_opts opts;
    struct numio_join *join;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    opts.worker = (int)nio_rng_below(rng, WORKERS);
    STRESS_CHECK(numio_spawn_co(NULL, come_and_go, NULL, &opts, &join) == 0);
    int before = numio_current_worker();
    int64_t rc = numio_join_await(&join);
    STRESS_CHECK(rc == 0 || rc == -ETIMEDOUT);
    numio_join_detach(&join);
    /* relaxed: a count for the report */
    (void)atomic_fetch_add_explicit(&moves, numio_current_worker() != before, memory_order_relaxed);
}

static void wait_somehow(struct nio_rng *rng, unsigned depth)
{
    struct numio_join *join = NULL;
    char byte;
    int64_t rc;
    switch (nio_rng_below(rng, 7)) {
    case 0:
        rc = numio_read(silent[0], &byte, 1);
        STRESS_CHECK(rc == -ETIMEDOUT);
        break;
    case 1:
        rc = numio_sleep_ns(nio_rng_below(rng, SHORT_MAX_NS));
        STRESS_CHECK(rc == 0 || rc == -ETIMEDOUT);
        break;
    case 2:
        rc = numio_spawn_co(NULL, come_and_go, (void *)(uintptr_t)nio_rng_below(rng, 50000), NULL,
                            &join);
        STRESS_CHECK(rc == 0);
        rc = numio_join_await(&join);
        STRESS_CHECK(rc == 0 || rc == -ETIMEDOUT);
        numio_join_detach(&join);
        break;
    case 3:
        use_scope(rng, depth + 1);
        break;
    case 4:
        go_elsewhere(rng);
        break;
    default:
        for (unsigned i = nio_rng_below(rng, 30); i > 0; i--) {
            rc = numio_yield_now();
            STRESS_CHECK(rc == 0 || rc == -ETIMEDOUT);
            stress_jitter(rng);
        }
        break;
    }
}

/* The outermost scope always ends soon, so that no wait in it is for ever. */
static void use_scope(struct nio_rng *rng, unsigned depth)
{
    struct numio_deadline scope;
    bool is_short = depth == 0 || nio_rng_below(rng, 2);
    if (depth == DEPTH_MAX)
        return;
    STRESS_CHECK(
        numio_deadline_push(&scope, is_short ? nio_rng_below(rng, SHORT_MAX_NS) : hour_ns) == 0);
    for (unsigned i = nio_rng_below(rng, 4); i > 0; i--)
        wait_somehow(rng, depth);
    int rc = nio_rng_below(rng, 2) ? numio_deadline_pop(&scope) : numio_deadline_end(&scope);
    STRESS_CHECK(rc == 0 || rc == -ETIMEDOUT);
    memset(&scope, 0xa5, sizeof scope);
    STRESS_CHECK(depth > 0 || numio_deadline_left() == INT64_MAX);
}

static int64_t play(void *arg)
{
    struct nio_rng rng;
    uint64_t seed = (uintptr_t)arg, scopes = 0;
    nio_rng_init(&rng, &seed);
    do { /* once in any case: on a busy machine a task's first turn may come late */
        use_scope(&rng, 0);
        STRESS_CHECK(numio_yield_now() == 0); /* no end of a scope outlives it */
        scopes++;
    } while (nio_now_ns() < end_ns);
    return (int64_t)scopes;
}

int main(void)
{
    uint64_t seed, scopes = 0;
    struct numio_runtime *runtime;
    struct numio_config config;
    struct numio_join *joins[TASKS];
    end_ns = stress_start(&seed);
    STRESS_CHECK(pipe2(silent, O_CLOEXEC) == 0);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.workers = WORKERS;
    config.topology = "pack:2 core:2 pu:1"; /* also between nodes */
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    for (unsigned i = 0; i < TASKS; i++)
        STRESS_CHECK(numio_spawn_co(numio_runtime_handle(runtime), play,
                                    (void *)(uintptr_t)(seed + i), NULL, &joins[i]) == 0);
    for (unsigned i = 0; i < TASKS; i++) {
        int64_t result = numio_join_wait(&joins[i], -1);
        STRESS_CHECK(result > 0);
        scopes += (uint64_t)result;
    }
    numio_runtime_destroy(runtime);
    /* relaxed: the runtime has ended */
    uint64_t moved = atomic_load_explicit(&moves, memory_order_relaxed);
    printf("%llu outermost scopes, %llu moves\n", (unsigned long long)scopes,
           (unsigned long long)moved);
    STRESS_CHECK(moved > 0);
    return 0;
}
