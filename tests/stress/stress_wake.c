/* SPDX-License-Identifier: MIT */
/* Tokens travel between tasks of two runtimes: whoever is polled with a token takes it, and gives
 * it to another task, of its own or of the other runtime, by a waker that is woken by value or by
 * reference, or asks a plain thread to do so.  A token that does not move any more was left with a
 * task that nobody polls: a lost wake.  First there is one token only, so that between its hops all
 * workers go to sleep and nothing makes good for a wake that was lost; then there are several.
 *
 * Half of the tasks may move between the nodes of their runtime, the others are bound to a node or
 * a worker.  At the end both runtimes are shut down while the others' wakers are still held.
 *
 * Without the last look before a park a wake is lost here.  Weakened [TS3]: ThreadSanitizer reports
 * what one poll of a task left to the next.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { RUNTIMES = 2, TASKS = 24, TOKENS = 6, STUCK_MS = 5000, LOOK_US = 20000 };

struct place {
    NIO_CACHE_ALIGNED _Atomic uint64_t token; /* 0: none */
    struct numio_waker waker;
    _Atomic uint32_t has_waker;
    struct nio_rng rng;
    uint64_t polls;
    _Atomic uint64_t hops;
};

static struct place places[TASKS]; /* the even ones live in the first runtime */
static _Atomic uint64_t errand;    /* a place that a plain thread is to wake, plus one */
static _Atomic uint32_t is_over;

static bool is_ending(void)
{
    /* relaxed: all are woken until they have heard it */
    return atomic_load_explicit(&is_over, memory_order_relaxed) != 0;
}

static void wake(struct place *place, bool by_value)
{
    if (by_value) {
        struct numio_waker waker = numio_waker_clone(&place->waker);
        numio_waker_wake(&waker);
    } else {
        numio_waker_wake_by_ref(&place->waker);
    }
}

/* Puts a token into a free place and wakes it. */
static void give(struct nio_rng *rng, uint64_t token)
{
    for (;;) { /* until a free place is found; there are more places than tokens */
        unsigned index = nio_rng_below(rng, TASKS);
        uint64_t none = 0;
        /* relaxed on purpose: the wake orders it; relaxed on failure: another place is tried */
        if (!atomic_compare_exchange_strong_explicit(&places[index].token, &none, token,
                                                     memory_order_relaxed, memory_order_relaxed))
            continue;
        uint64_t nobody = 0;
        /* [SW3] release: the place.  Pairs with [SW4].  relaxed on failure: not sent. */
        if (nio_rng_below(rng, 16) == 0 &&
            atomic_compare_exchange_strong_explicit(&errand, &nobody, index + 1,
                                                    memory_order_release, memory_order_relaxed))
            return;
        wake(&places[index], nio_rng_below(rng, 2));
        return;
    }
}

static enum numio_poll poll_place(void *state, struct numio_context *cx)
{
    struct place *place = *(struct place **)state;
    place->polls++;
    /* relaxed: one task */
    if (!atomic_load_explicit(&place->has_waker, memory_order_relaxed)) {
        place->waker = numio_context_waker(cx);
        /* [SW5] release: the waker.  Pairs with [SW6]. */
        atomic_store_explicit(&place->has_waker, 1, memory_order_release);
        return NUMIO_PENDING;
    }
    if (is_ending())
        return NUMIO_READY;
    /* relaxed on purpose: the wake orders it */
    uint64_t token = atomic_load_explicit(&place->token, memory_order_relaxed);
    if (token == 0)
        return NUMIO_PENDING;
    if (nio_rng_below(&place->rng, 8) == 0) {
        numio_context_yield(cx); /* comes back for it */
        return NUMIO_PENDING;
    }
    /* relaxed: a count that main reads now and then */
    (void)atomic_fetch_add_explicit(&place->hops, 1, memory_order_relaxed);
    /* relaxed: free for the next */
    atomic_store_explicit(&place->token, 0, memory_order_relaxed);
    give(&place->rng, token);
    return NUMIO_PENDING;
}

static void *run_errands(void *arg)
{
    struct nio_rng *rng = arg;
    while (!is_ending()) {
        /* [SW4] acquire: pairs with [SW3] */
        uint64_t index = atomic_exchange_explicit(&errand, 0, memory_order_acquire);
        if (index)
            wake(&places[index - 1], nio_rng_below(rng, 2));
        (void)usleep(nio_rng_below(rng, 100)); /* so that workers go to sleep meanwhile */
    }
    return NULL;
}

static void spawn_places(struct numio_runtime *const runtimes[RUNTIMES],
                         struct numio_join *joins[TASKS], uint64_t *seed)
{
    for (unsigned i = 0; i < TASKS; i++) {
        struct place *place = &places[i];
        struct numio_spawn_opts opts;
        numio_spawn_opts_init(&opts, sizeof opts);
        if (i % 8 >= 4)
            opts.affinity = i % 8 >= 6 ? NUMIO_AFFINITY_NODE : NUMIO_AFFINITY_WORKER;
        if (opts.affinity == NUMIO_AFFINITY_WORKER)
            opts.worker = (int)(i / 8 % 2);
        struct numio_future future = { .poll = poll_place, .state = &place, .size = sizeof place };
        nio_rng_init(&place->rng, seed);
        STRESS_CHECK(numio_spawn(numio_runtime_handle(runtimes[i % RUNTIMES]), &future, &opts,
                                 &joins[i]) == 0);
    }
    for (unsigned i = 0; i < TASKS; i++)
        /* [SW6] acquire: pairs with [SW5] */
        while (!atomic_load_explicit(&places[i].has_waker, memory_order_acquire))
            (void)sched_yield(); /* until its first poll */
}

static uint64_t total_hops(void)
{
    uint64_t hops = 0;
    for (unsigned i = 0; i < TASKS; i++)
        /* relaxed: a sum that is a moment old */
        hops += atomic_load_explicit(&places[i].hops, memory_order_relaxed);
    return hops;
}

/* The only token must have moved within a while, until the time is over and once more after it. */
static void watch_one(uint64_t stop_ns)
{
    uint64_t hops = total_hops(), since_ns = nio_now_ns();
    while (nio_now_ns() < stop_ns || hops == total_hops()) {
        (void)usleep(LOOK_US / 20);
        if (total_hops() != hops) {
            hops = total_hops();
            since_ns = nio_now_ns();
        }
        STRESS_CHECK(nio_now_ns() - since_ns < STUCK_MS * UINT64_C(1000000));
    }
}

/* Looks now and then whether every token still moves. */
static void watch(uint64_t stop_ns)
{
    uint64_t hops[TASKS] = { 0 }, since_ns[TASKS] = { 0 };
    uint64_t now_ns;
    while ((now_ns = nio_now_ns()) < stop_ns) {
        for (unsigned i = 0; i < TASKS; i++) {
            /* relaxed: looked at again and again */
            uint64_t count = atomic_load_explicit(&places[i].hops, memory_order_relaxed);
            /* relaxed: as above */
            bool is_empty = atomic_load_explicit(&places[i].token, memory_order_relaxed) == 0;
            if (is_empty || count != hops[i] || since_ns[i] == 0)
                since_ns[i] = now_ns;
            hops[i] = count;
            STRESS_CHECK(now_ns - since_ns[i] < STUCK_MS * UINT64_C(1000000));
        }
        (void)usleep(LOOK_US);
    }
}

int main(void)
{
    uint64_t seed, hops = 0;
    struct nio_rng rng, errand_rng;
    struct numio_runtime *runtimes[RUNTIMES];
    struct numio_join *joins[TASKS];
    pthread_t thread;
    uint64_t stop_ns = stress_start(&seed);
    nio_rng_init(&rng, &seed);
    nio_rng_init(&errand_rng, &seed);
    for (unsigned i = 0; i < RUNTIMES; i++) {
        struct numio_config config;
        STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
        config.topology = i == 0 ? "pack:2 numa:1 core:2 pu:1" : "pack:1 numa:1 core:2 pu:1";
        config.driver = i == 0 ? NUMIO_DRIVER_EPOLL : NUMIO_DRIVER_AUTO;
        config.idle = i == 0 ? NUMIO_IDLE_PARK : NUMIO_IDLE_BALANCED;
        config.rng_seed = nio_rng_next(&rng);
        STRESS_CHECK(numio_runtime_create(&config, &runtimes[i]) == 0);
    }
    spawn_places(runtimes, joins, &seed);
    STRESS_CHECK(pthread_create(&thread, NULL, run_errands, &errand_rng) == 0);
    give(&rng, 1);
    uint64_t now_ns = nio_now_ns();
    watch_one(now_ns + (stop_ns > now_ns ? (stop_ns - now_ns) / 2 : 0));
    for (uint64_t token = 2; token <= TOKENS; token++)
        give(&rng, token);
    watch(stop_ns);
    /* relaxed: all are woken below until they have heard it */
    atomic_store_explicit(&is_over, 1, memory_order_relaxed);
    (void)pthread_join(thread, NULL);       /* cannot fail: joined once */
    for (unsigned i = 0; i < TASKS; i += 2) /* the others are ended by the shutdown */
        while (numio_join_wait(&joins[i], 1000000) == -ETIMEDOUT)
            numio_waker_wake_by_ref(&places[i].waker);
    numio_runtime_destroy(runtimes[0]);
    numio_runtime_destroy(runtimes[1]);
    hops = total_hops();
    for (unsigned i = 0; i < TASKS; i++) {
        numio_join_detach(&joins[i]);
        numio_waker_wake(&places[i].waker); /* after the runtime: nothing happens */
    }
    printf("stress_wake: %llu hops\n", (unsigned long long)hops);
    return hops == 0;
}
