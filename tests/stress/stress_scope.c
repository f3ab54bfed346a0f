/* SPDX-License-Identifier: MIT */
/* Trees of scopes whose children yield, fail, wait for a deadline or for ever, spawn futures, while
 * plain threads abort the roots.  Every close finds that all that was spawned into its scope has
 * ended, by plain counters in the parent's frame, which ThreadSanitizer watches; nobody waits for
 * ever, which the watchdog would notice.
 *
 * Weakened [SC1] or [SC2], or [TS4] of nio_state_complete_member(): ThreadSanitizer reports the
 * counters or the children's cells.  Without the errand those that sleep are never aborted.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { THREADS = 2, DEPTH = 4, CHILDREN_MAX = 6, SOON_NS = 200000, ROUNDS_MIN = 50 };
static const uint64_t late_ns = 3600000000000ull;

static struct numio_handle *handle;
static uint64_t stop_ns;

struct node {
    uint64_t seed;
    unsigned depth;
    bool was_spawned, has_ended; /* written by the child, read by its parent after the close */
};

static int64_t run_node(void *arg);

static enum numio_poll poll_leaf(void *state, struct numio_context *cx)
{
    struct node *node = *(struct node **)state;
    (void)cx;
    node->has_ended = true;
    return NUMIO_READY;
}

static int64_t run_leaf(struct nio_rng *rng)
{
    int64_t rc = 0;
    switch (nio_rng_below(rng, 8)) {
    case 0:
        return -EIO; /* the others are aborted */
    case 1:
        return numio_sleep_ns(late_ns) < 0 ? -ECANCELED : 0; /* ends by an abort or a deadline */
    case 2:
        return numio_sleep_ns(nio_rng_below(rng, SOON_NS)) < 0 ? -ECANCELED : 0;
    default:
        for (uint32_t i = nio_rng_below(rng, 5); i > 0 && rc == 0; i--)
            rc = numio_yield_now();
        return rc;
    }
}

/* A sleeper must not be waited for by a scope that nothing ends: one that fails comes last, and
 * fails while the parent waits. */
static int64_t fail(void *arg)
{
    for (int i = 0; i < 3 && numio_yield_now() == 0; i++) {
    }
    ((struct node *)arg)->has_ended = true;
    return -EPIPE;
}

static int spawn_node(struct numio_scope *scope, struct node *node, uint32_t way)
{
    struct numio_future future = { .poll = poll_leaf, .state = &node, .size = sizeof node };
    if (way == 0)
        return numio_scope_spawn(scope, &future, NULL);
    return numio_scope_spawn_co(scope, run_node, node, NULL);
}

static int64_t run_children(struct node *self, struct nio_rng *rng)
{
    struct node children[CHILDREN_MAX + 1] = { 0 };
    uint32_t count = nio_rng_below(rng, CHILDREN_MAX + 1);
    struct numio_scope scope;
    struct numio_deadline deadline;
    bool has_deadline = nio_rng_below(rng, 4) == 0;
    int rc = 0;
    if (has_deadline)
        STRESS_CHECK(numio_deadline_push(&deadline, nio_rng_below(rng, SOON_NS)) == 0);
    STRESS_CHECK(numio_scope_open(&scope, 0) == 0);
    for (uint32_t i = 0; i < count && rc == 0; i++) {
        children[i] = (struct node){ nio_rng_next(rng), self->depth - 1, false, false };
        children[i].was_spawned = true;
        rc = spawn_node(&scope, &children[i], nio_rng_below(rng, 6));
        children[i].was_spawned = rc == 0;
        if (nio_rng_below(rng, 8) == 0)
            rc = numio_yield_now();
    }
    if (nio_rng_below(rng, 8) == 0)
        (void)numio_scope_abort(&scope); /* it is this task's */
    children[count].was_spawned = numio_scope_spawn_co(&scope, fail, &children[count], NULL) == 0;
    int64_t error = numio_scope_close(&scope);
    if (has_deadline)
        (void)numio_deadline_pop(&deadline); /* passed or not */
    for (uint32_t i = 0; i <= count; i++) /* one that has not ended has not begun: it was aborted */
        STRESS_CHECK(!children[i].was_spawned || children[i].has_ended || error < 0);
    return 0;
}

static int64_t run_node(void *arg)
{
    struct node *self = arg;
    struct nio_rng rng;
    uint64_t seed = self->seed;
    nio_rng_init(&rng, &seed);
    int64_t result = self->depth == 0 ? run_leaf(&rng) : run_children(self, &rng);
    self->has_ended = true;
    return result;
}

struct driver {
    struct nio_rng rng;
    pthread_t thread;
    uint64_t rounds, aborts;
};

static void *run_driver(void *arg)
{
    struct driver *self = arg;
    for (; self->rounds < ROUNDS_MIN || nio_now_ns() < stop_ns; self->rounds++) {
        struct node root = { .seed = nio_rng_next(&self->rng),
                             .depth = 1 + nio_rng_below(&self->rng, DEPTH) };
        struct numio_join *join;
        STRESS_CHECK(numio_spawn_co(handle, run_node, &root, NULL, &join) == 0);
        bool aborts = nio_rng_below(&self->rng, 2);
        for (uint32_t i = nio_rng_below(&self->rng, 300); i > 0 && aborts; i--)
            stress_jitter(&self->rng);
        if (aborts)
            numio_join_abort(join);
        int64_t result = numio_join_wait(&join, -1);
        STRESS_CHECK(result == 0 || result == -ECANCELED);
        self->aborts += aborts;
    }
    return NULL;
}

int main(void)
{
    uint64_t seed, rounds = 0, aborts = 0;
    static struct driver drivers[THREADS];
    struct numio_config config;
    struct numio_runtime *runtime;
    stop_ns = stress_start(&seed);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:2 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    handle = numio_runtime_handle(runtime);
    for (unsigned i = 0; i < THREADS; i++) {
        nio_rng_init(&drivers[i].rng, &seed);
        STRESS_CHECK(pthread_create(&drivers[i].thread, NULL, run_driver, &drivers[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        (void)pthread_join(drivers[i].thread, NULL); /* cannot fail: joined once */
        rounds += drivers[i].rounds;
        aborts += drivers[i].aborts;
    }
    numio_runtime_destroy(runtime); /* asserts that every cell came home */
    printf("stress_scope: %llu trees, %llu aborted\n", (unsigned long long)rounds,
           (unsigned long long)aborts);
    return aborts == 0;
}
