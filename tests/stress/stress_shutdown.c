/* SPDX-License-Identifier: MIT */
/* Runtimes end in the middle of everything: threads go on spawning one by one, in batches and onto
 * the blocking pool until they are told -ESHUTDOWN, other threads wake tasks before, during and
 * after the end, coroutines sleep, join and yield, and the shutdown comes from a thread, with and
 * without a limit, or in the background.  Every future is dropped exactly once, every coroutine and
 * blocking function that was spawned is accounted for, every cell goes home, and it always ends.
 * Metrics are read all the while, by a handle that outlives the runtime.
 *
 * If the drivers are taken down before every worker has left its loop [ST1] [ST2], ThreadSanitizer
 * reports the driver that is destroyed in use.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/io.h>
#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { SPAWNERS = 2, SLOTS = 16, BATCH = 3, NAP_US_MAX = 1500, STRAGGLERS_MAX = 8, BLOCK_US = 30 };
enum { THREAD_PATIENCE_MS = 20000 };

/* One runtime's life. */
struct life {
    struct numio_runtime *runtime;
    struct numio_handle *handle;
    struct numio_waker *_Atomic slots[SLOTS]; /* wakers of futures, for whoever takes them */
    _Atomic uint64_t spawned, dropped;        /* futures */
    _Atomic uint64_t begun, ended;            /* coroutines and blocking functions */
    _Atomic uint32_t is_over;
    _Atomic uint32_t stopped; /* threads of the runtime */
    uint32_t workers;
};

struct helper {
    struct life *life;
    struct nio_rng rng;
    pthread_t thread;
};

static void count(_Atomic uint64_t *counter, uint64_t amount)
{
    /* relaxed: a sum that is read at the end */
    (void)atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

static uint64_t total(const _Atomic uint64_t *counter)
{
    /* relaxed: read when all is over */
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static struct numio_waker *swap_slot(struct life *life, uint32_t slot, struct numio_waker *waker)
{
    /* [SX1] acq_rel: the waker's contents.  Pairs with itself, [SX1]. */
    return atomic_exchange_explicit(&life->slots[slot], waker, memory_order_acq_rel);
}

static void wake_and_free(struct numio_waker *waker)
{
    if (!waker)
        return;
    numio_waker_wake(waker);
    free(waker);
}

struct future_state {
    struct life *life;
    uint32_t slot;
};

/* Never ready: ends by the shutdown. */
static enum numio_poll poll_pending(void *arg, struct numio_context *cx)
{
    struct future_state *state = arg;
    struct numio_waker *waker = malloc(sizeof *waker);
    STRESS_CHECK(waker != NULL);
    *waker = numio_context_waker(cx);
    wake_and_free(swap_slot(state->life, state->slot, waker));
    return NUMIO_PENDING;
}

static void drop_pending(void *arg)
{
    struct future_state *state = arg;
    count(&state->life->dropped, 1);
}

static int64_t sleep_long(void *arg)
{
    struct life *life = arg;
    count(&life->begun, 1);
    int64_t result = numio_sleep_ns(UINT64_C(3600) * 1000000000);
    STRESS_CHECK(result == -ECANCELED);
    STRESS_CHECK(numio_yield_now() == -ECANCELED); /* it is told again */
    count(&life->ended, 1);
    return result;
}

static int64_t join_sleeper(void *arg)
{
    struct life *life = arg;
    struct numio_join *join;
    count(&life->begun, 1);
    if (numio_spawn_co(NULL, sleep_long, life, NULL, &join) == 0) {
        int64_t result = numio_join_await(&join);
        STRESS_CHECK(result == -ECANCELED);
        numio_join_detach(&join);
    }
    count(&life->ended, 1);
    return 0;
}

static int64_t block(void *arg)
{
    struct life *life = arg;
    count(&life->begun, 1);
    (void)usleep(BLOCK_US);
    count(&life->ended, 1);
    return 0;
}

static int spawn_futures(struct helper *self, uint32_t futures_count)
{
    struct life *life = self->life;
    struct future_state states[BATCH];
    struct numio_future futures[BATCH];
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = (enum numio_affinity)nio_rng_below(&self->rng, 2);
    for (uint32_t i = 0; i < futures_count; i++) {
        states[i] = (struct future_state){ life, nio_rng_below(&self->rng, SLOTS) };
        futures[i] = (struct numio_future){ .poll = poll_pending,
                                            .drop = drop_pending,
                                            .state = &states[i],
                                            .size = sizeof states[i] };
    }
    int rc = futures_count == 1
                 ? numio_spawn(life->handle, &futures[0], &opts, NULL)
                 : numio_spawn_batch(life->handle, futures, futures_count, &opts, NULL);
    if (rc == 0)
        count(&life->spawned, futures_count);
    return rc;
}

static void *run_spawner(void *arg)
{
    struct helper *self = arg;
    struct life *life = self->life;
    int rc = 0;
    while (rc == 0 || rc == -EAGAIN) { /* until the runtime takes no more */
        switch (nio_rng_below(&self->rng, 5)) {
        case 0:
            rc = spawn_futures(self, 1);
            break;
        case 1:
            rc = spawn_futures(self, BATCH);
            break;
        case 2:
            rc = numio_spawn_co(life->handle, sleep_long, life, NULL, NULL);
            break;
        case 3:
            rc = numio_spawn_co(life->handle, join_sleeper, life, NULL, NULL);
            break;
        default:
            rc = numio_spawn_blocking(life->handle, block, life, NULL, NULL);
        }
        (void)sched_yield();
    }
    STRESS_CHECK(rc == -ESHUTDOWN);
    return NULL;
}

static void *run_waker(void *arg)
{
    struct helper *self = arg;
    struct life *life = self->life;
    /* relaxed: heard late is heard as well */
    while (!atomic_load_explicit(&life->is_over, memory_order_relaxed)) {
        struct numio_worker_metrics metrics;
        wake_and_free(swap_slot(life, nio_rng_below(&self->rng, SLOTS), NULL));
        STRESS_CHECK(numio_worker_metrics(life->handle, 0, &metrics) == 0);
        (void)sched_yield();
    }
    return NULL;
}

static void on_thread_stop(unsigned worker, void *arg)
{
    struct life *life = arg;
    (void)worker;
    /* [SX2] release: what the worker did.  Pairs with [SX3]. */
    (void)atomic_fetch_add_explicit(&life->stopped, 1, memory_order_release);
}

static void shut_down_slowly(struct life *life, struct nio_rng *rng)
{
    struct numio_straggler stragglers[STRAGGLERS_MAX];
    size_t left;
    int rc;
    do {
        int64_t timeout_ns = nio_rng_below(rng, 200000);
        rc = numio_runtime_shutdown(life->runtime, timeout_ns, stragglers, STRAGGLERS_MAX, &left);
    } while (rc == -ETIMEDOUT);
    STRESS_CHECK(rc == 0 && left == 0);
    numio_runtime_destroy(life->runtime);
}

static void end_runtime(struct life *life, struct nio_rng *rng)
{
    unsigned spins = 0;
    switch (nio_rng_below(rng, 3)) {
    case 0:
        numio_runtime_destroy(life->runtime);
        return;
    case 1:
        shut_down_slowly(life, rng);
        return;
    default:
        STRESS_CHECK(numio_runtime_shutdown_background(life->runtime) == 0);
        /* [SX3] acquire: pairs with [SX2] */
        while (atomic_load_explicit(&life->stopped, memory_order_acquire) < life->workers)
            stress_pause(&spins); /* until every worker has ended */
    }
}

static void live(struct life *life, struct nio_rng *rng, uint64_t *seed)
{
    struct helper helpers[SPAWNERS + 1];
    struct numio_config config;
    struct numio_status status;
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology =
        nio_rng_below(rng, 2) ? "pack:2 numa:1 core:1 pu:1" : "pack:1 numa:1 core:2 pu:1";
    config.driver = nio_rng_below(rng, 2) ? NUMIO_DRIVER_EPOLL : NUMIO_DRIVER_AUTO;
    config.idle = nio_rng_below(rng, 2) ? NUMIO_IDLE_PARK : NUMIO_IDLE_BALANCED;
    config.hooks.on_thread_stop = on_thread_stop;
    config.hooks.arg = life;
    STRESS_CHECK(numio_runtime_create(&config, &life->runtime) == 0);
    life->handle = numio_handle_ref(numio_runtime_handle(life->runtime));
    STRESS_CHECK(numio_status(life->handle, &status) == 0);
    life->workers = status.workers;
    for (unsigned i = 0; i <= SPAWNERS; i++) {
        helpers[i].life = life;
        nio_rng_init(&helpers[i].rng, seed);
        STRESS_CHECK(pthread_create(&helpers[i].thread, NULL,
                                    i < SPAWNERS ? run_spawner : run_waker, &helpers[i]) == 0);
    }
    (void)usleep(nio_rng_below(rng, NAP_US_MAX));
    end_runtime(life, rng);
    for (unsigned i = 0; i < SPAWNERS; i++)
        (void)pthread_join(helpers[i].thread, NULL); /* cannot fail: joined once */
    /* relaxed: heard late is heard as well */
    atomic_store_explicit(&life->is_over, 1, memory_order_relaxed);
    (void)pthread_join(helpers[SPAWNERS].thread, NULL); /* cannot fail: joined once */
    STRESS_CHECK(total(&life->dropped) == total(&life->spawned));
    STRESS_CHECK(total(&life->ended) == total(&life->begun));
    for (uint32_t i = 0; i < SLOTS; i++)
        wake_and_free(swap_slot(life, i, NULL)); /* after the end: nothing happens */
    STRESS_CHECK(numio_live_tasks(life->handle) == 0);
    numio_handle_unref(life->handle);
}

static void *do_nothing(void *arg)
{
    return arg;
}

/* How many threads there are without runtimes: a sanitizer's own starts with the first one. */
static unsigned count_quiet_threads(void)
{
    pthread_t thread;
    STRESS_CHECK(pthread_create(&thread, NULL, do_nothing, NULL) == 0);
    (void)pthread_join(thread, NULL); /* cannot fail: joined once */
    (void)usleep(10000);              /* it disappears from /proc a little later */
    return stress_count_entries("/proc/self/task");
}

/* The threads that end runtimes in the background free the memory after everything else. */
static void wait_for_threads(unsigned quiet)
{
    for (unsigned i = 0; stress_count_entries("/proc/self/task") > quiet; i++) {
        STRESS_CHECK(i < THREAD_PATIENCE_MS);
        (void)usleep(1000);
    }
}

int main(void)
{
    uint64_t seed, futures = 0, others = 0;
    unsigned lives = 0;
    struct nio_rng rng;
    unsigned quiet = count_quiet_threads();
    uint64_t stop_ns = stress_start(&seed);
    nio_rng_init(&rng, &seed);
    do {
        struct life *life = calloc(1, sizeof *life);
        STRESS_CHECK(life != NULL);
        live(life, &rng, &seed);
        futures += total(&life->dropped);
        others += total(&life->ended);
        lives++;
        free(life);
    } while (nio_now_ns() < stop_ns);
    wait_for_threads(quiet);
    printf("stress_shutdown: %u runtimes, %llu futures, %llu others\n", lives,
           (unsigned long long)futures, (unsigned long long)others);
    return futures == 0 || others == 0;
}
