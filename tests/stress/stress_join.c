/* SPDX-License-Identifier: MIT */
/* Children are joined in every way while they end: by plain threads that give up and come back, by
 * futures that hand the join handle on to the next, by coroutines that are aborted while they wait,
 * by nobody.  Whoever joins to the end gets the child's result; nobody waits for ever, which the
 * watchdog would notice.
 *
 * Without WAKER_MOVED (state.c) a completer may take a waker that was taken back: it wakes a task
 * that is gone, and the one that waits never.  Weakened [TS4] or [TS5], [TS6] or [TS7], [WK1] or
 * [WK2]: ThreadSanitizer reports the result or the waker's task.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { THREADS = 3, LINKS_MAX = 6, YIELDS_MAX = 6, TIMEOUT_NS_MAX = 30000, ROUNDS_MIN = 200 };

static struct numio_handle *handle;
static uint64_t stop_ns;

struct driver {
    struct nio_rng rng;
    pthread_t thread;
    uint64_t timeouts, moves, aborts, rounds;
};

/* A child's argument is a number: how often it yields, and with that its result. */
static uintptr_t draw_child(struct nio_rng *rng)
{
    return nio_rng_below(rng, 1 << 20);
}

static int64_t result_of(uintptr_t child)
{
    return (int64_t)(child * 3 + 1);
}

static int64_t run_child(void *arg)
{
    uintptr_t child = (uintptr_t)arg;
    for (uintptr_t i = child % YIELDS_MAX; i > 0; i--)
        if (numio_yield_now() < 0)
            return -ECANCELED;
    return result_of(child);
}

static struct numio_join *spawn_child(uintptr_t child)
{
    struct numio_join *join;
    STRESS_CHECK(numio_spawn_co(handle, run_child, (void *)child, NULL, &join) == 0);
    return join;
}

/* The two differ in where on the stack their waiter lies. */
static NIO_NOINLINE int64_t wait_here(struct numio_join **join, int64_t timeout_ns)
{
    return numio_join_wait(join, timeout_ns);
}

static NIO_NOINLINE int64_t wait_deeper(struct numio_join **join, int64_t timeout_ns)
{
    char room[700];
    memset(room, (int)timeout_ns, sizeof room);
    int64_t result = wait_here(join, timeout_ns);
    STRESS_CHECK(room[3] == (char)timeout_ns);
    return result;
}

static void wait_with_patience(struct driver *self)
{
    uintptr_t child = draw_child(&self->rng);
    struct numio_join *join = spawn_child(child);
    int64_t result;
    do {
        int64_t timeout_ns = nio_rng_below(&self->rng, TIMEOUT_NS_MAX);
        result = nio_rng_below(&self->rng, 2) ? wait_here(&join, timeout_ns)
                                              : wait_deeper(&join, timeout_ns);
        self->timeouts += result == -ETIMEDOUT;
    } while (result == -ETIMEDOUT);
    STRESS_CHECK(result == result_of(child) && join == NULL);
}

/* A future that polls a join once and hands it to the next one, which stores its own waker. */
struct chain {
    struct numio_join *join;
    uintptr_t child;
    unsigned links;
    _Atomic uint32_t is_done;
};

static enum numio_poll poll_link(void *state, struct numio_context *cx)
{
    struct chain *chain = *(struct chain **)state;
    int64_t result;
    if (numio_join_poll(&chain->join, cx, NULL, 0, &result) == NUMIO_READY) {
        STRESS_CHECK(result == result_of(chain->child) && chain->join == NULL);
        /* [SJ1] release: the chain may be reused.  Pairs with [SJ2]. */
        atomic_store_explicit(&chain->is_done, 1, memory_order_release);
        return NUMIO_READY;
    }
    if (chain->links == 0)
        return NUMIO_PENDING;
    chain->links--;
    struct numio_future next = { .poll = poll_link, .state = &chain, .size = sizeof chain };
    STRESS_CHECK(numio_spawn(handle, &next, NULL, NULL) == 0);
    return NUMIO_READY;
}

static void hand_on(struct driver *self)
{
    uintptr_t child = draw_child(&self->rng);
    struct chain chain = { .child = child, .links = nio_rng_below(&self->rng, LINKS_MAX) };
    struct chain *pointer = &chain;
    struct numio_future first = { .poll = poll_link, .state = &pointer, .size = sizeof pointer };
    unsigned links = chain.links, spins = 0;
    chain.join = spawn_child(child);
    STRESS_CHECK(numio_spawn(handle, &first, NULL, NULL) == 0);
    /* [SJ2] acquire: pairs with [SJ1] */
    while (!atomic_load_explicit(&chain.is_done, memory_order_acquire))
        stress_pause(&spins);
    self->moves += links;
}

/* A coroutine that waits for a child and may be aborted meanwhile. */
struct wait {
    struct numio_join *join;
    uintptr_t child;
    bool aborts_child;
};

static int64_t run_waiter(void *arg)
{
    struct wait *wait = arg;
    int64_t result = numio_join_await(&wait->join);
    if (wait->join) {
        STRESS_CHECK(result == -ECANCELED); /* given up: the handle is still ours */
        if (wait->aborts_child)
            numio_join_abort(wait->join);
        numio_join_detach(&wait->join);
        return -ECANCELED;
    }
    STRESS_CHECK(result == result_of(wait->child));
    return result;
}

static void abort_a_waiter(struct driver *self)
{
    struct wait wait = { .child = draw_child(&self->rng),
                         .aborts_child = nio_rng_below(&self->rng, 2) };
    struct numio_join *join;
    wait.join = spawn_child(wait.child);
    STRESS_CHECK(numio_spawn_co(handle, run_waiter, &wait, NULL, &join) == 0);
    for (uint32_t i = nio_rng_below(&self->rng, 20); i > 0; i--)
        stress_jitter(&self->rng);
    numio_join_abort(join);
    int64_t result = numio_join_wait(&join, -1);
    STRESS_CHECK(result == -ECANCELED || result == result_of(wait.child));
    self->aborts += result == -ECANCELED;
    numio_join_detach(&wait.join); /* a waiter that was aborted before its start has not */
}

static void abort_by_handle(struct driver *self)
{
    uintptr_t child = draw_child(&self->rng);
    struct numio_join *join = spawn_child(child);
    struct numio_abort *abort = numio_join_abort_handle(join);
    bool is_aborted = nio_rng_below(&self->rng, 2);
    stress_jitter(&self->rng);
    if (is_aborted)
        numio_abort_task(abort);
    if (nio_rng_below(&self->rng, 4) == 0) {
        numio_join_detach(&join);
    } else {
        int64_t result = numio_join_wait(&join, -1);
        STRESS_CHECK(result == result_of(child) || (is_aborted && result == -ECANCELED));
        self->aborts += result == -ECANCELED;
    }
    numio_abort_task(abort); /* it may have ended, and its join handle, too */
    numio_abort_drop(abort);
}

static void look_and_try(struct driver *self)
{
    uintptr_t child = draw_child(&self->rng);
    struct numio_join *join = spawn_child(child);
    unsigned spins = 0;
    while (!numio_join_is_finished(join) && spins < 1000)
        stress_pause(&spins);
    int64_t result = numio_join_try(&join);
    STRESS_CHECK(join ? result == -EAGAIN : result == result_of(child));
    numio_join_detach(&join);
}

static void *run_driver(void *arg)
{
    static void (*const ways[])(struct driver *) = { wait_with_patience, hand_on, abort_a_waiter,
                                                     abort_by_handle, look_and_try };
    struct driver *self = arg;
    for (; self->rounds < ROUNDS_MIN || nio_now_ns() < stop_ns; self->rounds++)
        ways[nio_rng_below(&self->rng, NIO_ARRAY_LEN(ways))](self);
    return NULL;
}

int main(void)
{
    uint64_t seed, timeouts = 0, moves = 0, aborts = 0, rounds = 0;
    static struct driver drivers[THREADS];
    struct numio_config config;
    struct numio_runtime *runtime;
    stop_ns = stress_start(&seed);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:1 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    handle = numio_runtime_handle(runtime);
    for (unsigned i = 0; i < THREADS; i++) {
        nio_rng_init(&drivers[i].rng, &seed);
        STRESS_CHECK(pthread_create(&drivers[i].thread, NULL, run_driver, &drivers[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        (void)pthread_join(drivers[i].thread, NULL); /* cannot fail: joined once */
        timeouts += drivers[i].timeouts;
        moves += drivers[i].moves;
        aborts += drivers[i].aborts;
        rounds += drivers[i].rounds;
    }
    numio_runtime_destroy(runtime); /* asserts that every cell came home */
    printf("stress_join: %llu rounds, %llu timeouts, %llu moves, %llu aborted\n",
           (unsigned long long)rounds, (unsigned long long)timeouts, (unsigned long long)moves,
           (unsigned long long)aborts);
    return timeouts == 0 || moves == 0 || aborts == 0;
}
