/* SPDX-License-Identifier: MIT */
/* Two broadcasts and a watch: a plain thread and a task send, receivers of all kinds listen, give
 * up, select between the two and are aborted.  Who listens to the end has seen all messages or was
 * told how many it had missed, and sees the watch's last value whole.
 *
 * Without the lock around the value, or around the ring, ThreadSanitizer reports it.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { LISTENERS = 4, MESSAGES = 300, ROUNDS_MIN = 5, TIMEOUT_NS_MAX = 20000 };

struct value {
    uint64_t number, twice, thrice;
};

struct stage {
    struct numio_broadcast *broadcasts[2];
    struct numio_watch *watch;
};

struct listener {
    struct numio_broadcast_receiver receivers[2];
    struct numio_watch_receiver looker;
    struct nio_rng rng;
    uint64_t next[2], stopped;
};

static struct value make(uint64_t number)
{
    return (struct value){ number, 2 * number, 3 * number };
}

static void check(const struct value *value)
{
    STRESS_CHECK(value->twice == 2 * value->number && value->thrice == 3 * value->number);
}

static void send_all(struct stage *stage, unsigned which)
{
    for (uint64_t i = 0; i < MESSAGES; i++) {
        struct value value = make(i);
        STRESS_CHECK(numio_broadcast_send(stage->broadcasts[which], &value) == 0);
        value = make(i + 1);
        if (which == 0)
            STRESS_CHECK(numio_watch_send(stage->watch, &value) == 0);
        for (uint64_t spins = i % 50; spins > 0; spins--)
            nio_cpu_relax();
    }
    numio_broadcast_close(stage->broadcasts[which]);
    if (which == 0)
        numio_watch_close(stage->watch);
}

static void *send_in_thread(void *stage)
{
    send_all(stage, 0);
    return NULL;
}

static int64_t send_in_task(void *stage)
{
    send_all(stage, 1);
    return 0;
}

static void note(struct listener *l, unsigned which, int64_t rc, const struct value *value)
{
    if (rc == -EOVERFLOW) {
        l->next[which] += numio_broadcast_missed(&l->receivers[which]);
        return;
    }
    STRESS_CHECK(rc == 0 && value->number == l->next[which]);
    check(value);
    l->next[which]++;
}

/* False: the first of the two is closed. */
static bool listen_once(struct listener *l)
{
    struct numio_op ops[2];
    struct value values[2];
    uint64_t timeout_ns = nio_rng_below(&l->rng, TIMEOUT_NS_MAX);
    int64_t rc;
    if (nio_rng_below(&l->rng, 2)) {
        rc = numio_within(timeout_ns, numio_broadcast_recv(&l->receivers[0], &values[0]));
        if (rc == -EPIPE || rc == -ECANCELED)
            return false;
        if (rc != -ETIMEDOUT)
            note(l, 0, rc, &values[0]);
    } else {
        for (unsigned i = 0; i < 2; i++)
            numio_op_broadcast_recv(&ops[i], &l->receivers[i], &values[i]);
        rc = numio_within(timeout_ns, numio_select(ops, 2, NUMIO_SELECT_FAIR));
        if (rc == -ECANCELED)
            return false;
        if (rc >= 0 && numio_op_result(&ops[rc]) != -EPIPE)
            note(l, (unsigned)rc, numio_op_result(&ops[rc]), &values[rc]);
        else if (rc == 0)
            return false;
    }
    l->stopped += rc == -ETIMEDOUT;
    return true;
}

static int64_t run_listener(void *arg)
{
    struct listener *l = arg;
    while (listen_once(l))
        ;
    return numio_is_cancelled() ? -ECANCELED : 0;
}

static int64_t run_looker(void *arg)
{
    struct listener *l = arg;
    uint64_t last = 0;
    int rc;
    do {
        rc = numio_within(nio_rng_below(&l->rng, TIMEOUT_NS_MAX), numio_watch_changed(&l->looker));
        struct value value;
        numio_watch_take(&l->looker, &value);
        check(&value);
        STRESS_CHECK(value.number >= last && (rc != 0 || value.number > 0));
        last = value.number;
    } while (rc == 0 || rc == -ETIMEDOUT);
    STRESS_CHECK(rc == -EPIPE && last == MESSAGES);
    return 0;
}

static void set_up(struct stage *stage, struct listener *listeners, struct nio_rng *rng)
{
    struct value value = make(0);
    for (unsigned i = 0; i < 2; i++)
        STRESS_CHECK(numio_broadcast_create(sizeof value, 1 + nio_rng_below(rng, 20),
                                            &stage->broadcasts[i]) == 0);
    STRESS_CHECK(numio_watch_create(sizeof value, &value, &stage->watch) == 0);
    for (unsigned k = 0; k < 2 * LISTENERS; k++) {
        struct listener *l = &listeners[k];
        uint64_t seed = nio_rng_next(rng);
        for (unsigned i = 0; i < 2; i++)
            numio_broadcast_subscribe(stage->broadcasts[i], &l->receivers[i]);
        numio_watch_subscribe(stage->watch, &l->looker);
        nio_rng_init(&l->rng, &seed);
        l->next[0] = l->next[1] = 0;
    }
}

static void run_round(struct numio_handle *handle, struct listener *listeners, struct nio_rng *rng)
{
    struct stage stage;
    struct numio_join *joins[2 * LISTENERS], *sender;
    pthread_t thread;
    set_up(&stage, listeners, rng);
    for (unsigned i = 0; i < 2 * LISTENERS; i++)
        STRESS_CHECK(numio_spawn_co(handle, i < LISTENERS ? run_listener : run_looker,
                                    &listeners[i], NULL, &joins[i]) == 0);
    STRESS_CHECK(pthread_create(&thread, NULL, send_in_thread, &stage) == 0);
    STRESS_CHECK(numio_spawn_co(handle, send_in_task, &stage, NULL, &sender) == 0);
    stress_jitter(rng);
    numio_join_abort(joins[0]);
    for (unsigned i = 0; i < 2 * LISTENERS; i++) {
        int64_t rc = numio_join_wait(&joins[i], -1);
        STRESS_CHECK(rc == 0 || (i == 0 && rc == -ECANCELED));
        if (i < LISTENERS && rc == 0)
            STRESS_CHECK(listeners[i].next[0] == MESSAGES);
    }
    (void)pthread_join(thread, NULL); /* cannot fail: joined once */
    STRESS_CHECK(numio_join_wait(&sender, -1) == 0);
    for (unsigned i = 0; i < 2; i++)
        numio_broadcast_destroy(stage.broadcasts[i]);
    numio_watch_destroy(stage.watch);
}

int main(void)
{
    static struct listener listeners[2 * LISTENERS];
    uint64_t seed, stop_ns = stress_start(&seed), rounds = 0, stopped = 0;
    struct nio_rng rng;
    struct numio_config config;
    struct numio_runtime *runtime;
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:1 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    nio_rng_init(&rng, &seed);
    for (; rounds < ROUNDS_MIN || nio_now_ns() < stop_ns; rounds++)
        run_round(numio_runtime_handle(runtime), listeners, &rng);
    numio_runtime_destroy(runtime); /* asserts that every cell came home */
    for (unsigned i = 0; i < 2 * LISTENERS; i++)
        stopped += listeners[i].stopped;
    printf("stress_broadcast: %llu rounds, %llu waits stopped\n", (unsigned long long)rounds,
           (unsigned long long)stopped);
    return stopped == 0;
}
