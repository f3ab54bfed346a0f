/* SPDX-License-Identifier: MIT */
/* A tree of tokens: threads make children, wait for them, spawn tasks with them, cancel parts of
 * the tree and let go of tokens, all at once.  In the end the root is cancelled and everything
 * below it is; who sees a token cancelled sees what its canceller wrote before.
 *
 * Weakened [CT1] or [CT2]: ThreadSanitizer reports `told`; [CT3]: the token that is freed.  A
 * canceller that leaves waits or tasks behind hangs.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { THREADS = 4, DEPTH_MAX = 5, TASKS_MAX = 6, ROUNDS_MIN = 50 };
static const uint64_t late_ns = 3600000000000ull;

static struct numio_handle *handle;
static uint64_t end_ns;

struct round {
    struct numio_cancel_token *root;
    uint64_t told; /* written before the root is cancelled, read by those who see that */
    bool goes_on;  /* written by the first driver between the last two meetings of a round */
};

static struct stress_barrier meeting = { .threads = THREADS };
static struct round shared;

struct driver {
    struct nio_rng rng;
    pthread_t thread;
    unsigned index;
    uint64_t rounds, cancelled;
};

static int64_t sleep_long(void *arg)
{
    (void)arg;
    return numio_sleep_ns(late_ns);
}

static int64_t wait_for_token(void *arg)
{
    return numio_cancel_token_wait(arg);
}

/* Hangs tokens and tasks below the root, and waits for all that was hung there to end. */
static void hang_on(struct driver *self)
{
    struct numio_cancel_token *tokens[DEPTH_MAX];
    struct numio_join *joins[TASKS_MAX];
    unsigned depth = 1 + nio_rng_below(&self->rng, DEPTH_MAX), tasks = 0;
    struct numio_spawn_opts opts;
    for (unsigned i = 0; i < depth; i++)
        STRESS_CHECK(numio_cancel_token_create(i ? tokens[i - 1] : shared.root, &tokens[i]) == 0);
    numio_spawn_opts_init(&opts, sizeof opts);
    for (; tasks < TASKS_MAX; tasks++) {
        struct numio_cancel_token *token = tokens[nio_rng_below(&self->rng, depth)];
        opts.cancel = token;
        STRESS_CHECK((nio_rng_below(&self->rng, 2)
                          ? numio_spawn_co(handle, sleep_long, NULL, &opts, &joins[tasks])
                          : numio_spawn_co(handle, wait_for_token, token, NULL, &joins[tasks])) ==
                     0);
    }
    if (nio_rng_below(&self->rng, 3) == 0)
        numio_cancel_token_cancel(tokens[nio_rng_below(&self->rng, depth)]);
    STRESS_CHECK(numio_cancel_token_wait(tokens[depth - 1]) == 0);
    if (numio_cancel_token_is_cancelled(shared.root))
        STRESS_CHECK(shared.told == self->rounds);
    for (unsigned i = 0; i < tasks; i++) {
        int64_t result = numio_join_wait(&joins[i], -1);
        STRESS_CHECK(result == 0 || result == -ECANCELED);
    }
    for (unsigned i = 0; i < depth; i++) { /* in any order */
        unsigned k = (i * 3 + 1) % depth;
        numio_cancel_token_unref(depth % 3 == 0 ? tokens[i] : tokens[k]);
    }
    self->cancelled++;
}

/* Comes and goes while the others hang on. */
static void come_and_go(struct driver *self)
{
    for (uint32_t i = nio_rng_below(&self->rng, 20); i > 0; i--) {
        struct numio_cancel_token *token, *below;
        STRESS_CHECK(numio_cancel_token_create(shared.root, &token) == 0);
        STRESS_CHECK(numio_cancel_token_create(token, &below) == 0);
        numio_cancel_token_unref(token);
        stress_jitter(&self->rng);
        numio_cancel_token_unref(below);
    }
}

static void *run_driver(void *arg)
{
    struct driver *self = arg;
    while (shared.goes_on) {
        if (self->index == 0)
            STRESS_CHECK(numio_cancel_token_create(NULL, &shared.root) == 0);
        stress_meet(&meeting);
        if (self->index == 0) {
            come_and_go(self);
            shared.told = self->rounds;
            numio_cancel_token_cancel(shared.root);
        } else if (self->index == 1) {
            come_and_go(self);
        } else {
            hang_on(self);
        }
        stress_meet(&meeting);
        if (self->index == 0) {
            numio_cancel_token_unref(shared.root);
            shared.goes_on = self->rounds < ROUNDS_MIN || nio_now_ns() < end_ns;
        }
        self->rounds++;
        stress_meet(&meeting);
    }
    return NULL;
}

int main(void)
{
    uint64_t seed, cancelled = 0;
    static struct driver drivers[THREADS];
    struct numio_config config;
    struct numio_runtime *runtime;
    end_ns = stress_start(&seed);
    shared.goes_on = true;
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:1 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    handle = numio_runtime_handle(runtime);
    for (unsigned i = 0; i < THREADS; i++) {
        drivers[i].index = i;
        nio_rng_init(&drivers[i].rng, &seed);
        STRESS_CHECK(pthread_create(&drivers[i].thread, NULL, run_driver, &drivers[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        (void)pthread_join(drivers[i].thread, NULL); /* cannot fail: joined once */
        cancelled += drivers[i].cancelled;
    }
    numio_runtime_destroy(runtime); /* asserts that every cell came home */
    printf("stress_cancel_token: %llu times\n", (unsigned long long)cancelled);
    return cancelled == 0;
}
