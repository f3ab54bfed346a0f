/* SPDX-License-Identifier: MIT */
/* Values go through oneshots while their receivers give up and come back, select among several, are
 * aborted, or are futures that never look at what they got.  Each value is received once, with all
 * that was written before it was sent; a oneshot may be reused as soon as its value is received, so
 * a sender that touched it later would spoil the next.  Senders wait for the close of a receiver,
 * which is over when it comes or when their time is.
 *
 * Weakened [OS1] or [OS2]: ThreadSanitizer reports the value, or the wait.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { TASKS = 3, WIDTH = 4, ROUNDS_MIN = 50, TIMEOUT_NS_MAX = 10000 };

static struct numio_handle *handle;
static uint64_t stop_ns;

struct value {
    const uint64_t *written; /* before it is sent */
    uint64_t number;
};

struct player {
    struct nio_rng rng;
    struct numio_oneshot oneshots[WIDTH];
    uint64_t written[WIDTH];
    uint64_t rounds, stopped, closed;
};

struct sender {
    struct player *player;
    unsigned index, spins;
    bool does_close, does_watch;
};

static int64_t run_sender(void *arg)
{
    struct sender *s = arg;
    struct numio_oneshot *oneshot = &s->player->oneshots[s->index];
    uint64_t *written = &s->player->written[s->index];
    for (unsigned i = 0; i < s->spins; i++)
        nio_cpu_relax();
    if (s->does_watch) /* the receiver does not close here: it ends by its time */
        STRESS_CHECK(numio_within(s->spins, numio_oneshot_wait_refused(oneshot)) == -ETIMEDOUT);
    if (s->does_close) {
        numio_oneshot_close_sender(oneshot);
        return 0;
    }
    struct value value = { written, ++*written };
    STRESS_CHECK(numio_oneshot_send(oneshot, &value, sizeof value) == 0);
    return 0;
}

/* A future that begins to receive and is aborted. */
struct dozer {
    struct numio_oneshot *oneshot;
    struct value value;
    struct numio_op op;
    bool is_waiting;
};

static enum numio_poll poll_dozer(void *state, struct numio_context *cx)
{
    struct dozer *d = state;
    if (!d->is_waiting) {
        numio_op_oneshot_recv(&d->op, d->oneshot, &d->value, sizeof d->value);
        d->is_waiting = numio_op_start(&d->op, cx) == 0;
    }
    return NUMIO_PENDING;
}

static void doze(struct player *p, struct numio_oneshot *oneshot)
{
    struct dozer d = { .oneshot = oneshot };
    struct numio_future future = { .poll = poll_dozer, .state = &d, .size = sizeof d };
    struct numio_join *join;
    STRESS_CHECK(numio_spawn(handle, &future, NULL, &join) == 0);
    stress_jitter(&p->rng);
    numio_join_abort(join);
    STRESS_CHECK(numio_join_await(&join) == -ECANCELED);
    p->stopped++;
}

static void check(struct player *p, unsigned index, int64_t result, const struct value *value)
{
    if (result == -EPIPE) {
        p->closed++;
        return;
    }
    STRESS_CHECK(result == sizeof *value);
    STRESS_CHECK(value->written == &p->written[index] && *value->written == value->number);
}

static void receive_one(struct player *p, unsigned index)
{
    struct value value;
    int64_t result;
    do {
        if (nio_rng_below(&p->rng, 4) == 0)
            doze(p, &p->oneshots[index]);
        result = numio_within(nio_rng_below(&p->rng, TIMEOUT_NS_MAX),
                              numio_oneshot_recv(&p->oneshots[index], &value, sizeof value));
        p->stopped += result == -ETIMEDOUT;
    } while (result == -ETIMEDOUT);
    check(p, index, result, &value);
}

/* Receives all of them, the first that comes first. */
static void receive_selected(struct player *p)
{
    unsigned left[WIDTH], count = WIDTH;
    for (unsigned i = 0; i < WIDTH; i++)
        left[i] = i;
    while (count > 0) {
        struct numio_op ops[WIDTH];
        struct value values[WIDTH];
        for (unsigned i = 0; i < count; i++)
            numio_op_oneshot_recv(&ops[i], &p->oneshots[left[i]], &values[i], sizeof values[i]);
        int64_t index = numio_within(nio_rng_below(&p->rng, TIMEOUT_NS_MAX),
                                     numio_select(ops, count, NUMIO_SELECT_FAIR));
        p->stopped += index == -ETIMEDOUT;
        if (index == -ETIMEDOUT)
            continue;
        STRESS_CHECK(index >= 0);
        check(p, left[index], numio_op_result(&ops[index]), &values[index]);
        left[index] = left[--count];
    }
}

static int64_t play(void *arg)
{
    struct player *p = arg;
    for (; p->rounds < ROUNDS_MIN || nio_now_ns() < stop_ns; p->rounds++) {
        struct sender senders[WIDTH];
        struct numio_join *joins[WIDTH];
        for (unsigned i = 0; i < WIDTH; i++) {
            numio_oneshot_init(&p->oneshots[i]);
            senders[i] =
                (struct sender){ p, i, nio_rng_below(&p->rng, STRESS_SPINS),
                                 nio_rng_below(&p->rng, 8) == 0, nio_rng_below(&p->rng, 2) == 0 };
            STRESS_CHECK(numio_spawn_co(handle, run_sender, &senders[i], NULL, &joins[i]) == 0);
        }
        if (p->rounds % 2)
            receive_selected(p);
        else
            for (unsigned i = 0; i < WIDTH; i++)
                receive_one(p, i);
        for (unsigned i = 0; i < WIDTH; i++) /* before the senders' end */
            numio_oneshot_init(&p->oneshots[i]);
        for (unsigned i = 0; i < WIDTH; i++)
            STRESS_CHECK(numio_join_await(&joins[i]) == 0);
        for (unsigned i = 0; i < WIDTH; i++)
            STRESS_CHECK(numio_oneshot_try_recv(&p->oneshots[i], &senders[0], 0) == -EAGAIN);
    }
    return 0;
}

/* A plain thread sends, a task looks again and again: nothing but the oneshots orders the two. */
enum { DUELS = 20, DUEL_WIDTH = 500 };

static struct numio_oneshot duel[DUEL_WIDTH];
static uint64_t duel_written[DUEL_WIDTH], duel_seen[DUEL_WIDTH];

static void *duel_in_thread(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < DUEL_WIDTH; i++) {
        struct value value = { &duel_written[i], ++duel_written[i] };
        STRESS_CHECK(numio_oneshot_send(&duel[i], &value, sizeof value) == 0);
    }
    return NULL;
}

static int64_t duel_in_task(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < DUEL_WIDTH; i++) {
        struct value value;
        unsigned spins = 0;
        while (numio_oneshot_try_recv(&duel[i], &value, sizeof value) == -EAGAIN)
            stress_pause(&spins);
        STRESS_CHECK(value.written == &duel_written[i] && *value.written == value.number);
    }
    return 0;
}

static void run_duel(void)
{
    struct numio_join *join;
    pthread_t thread;
    for (unsigned i = 0; i < DUEL_WIDTH; i++)
        numio_oneshot_init(&duel[i]);
    STRESS_CHECK(numio_spawn_co(handle, duel_in_task, NULL, NULL, &join) == 0);
    STRESS_CHECK(pthread_create(&thread, NULL, duel_in_thread, NULL) == 0);
    STRESS_CHECK(numio_join_wait(&join, -1) == 0);
    (void)pthread_join(thread, NULL); /* cannot fail: joined once */
}

/* A plain thread closes, a task waits for that, or begins to, and takes the memory back at once. */
static void *refuse_in_thread(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < DUEL_WIDTH; i++) {
        struct value value;
        duel_written[i]++;
        STRESS_CHECK(numio_oneshot_try_recv(&duel[i], &value, sizeof value) == -EAGAIN);
        numio_oneshot_close_receiver(&duel[i]);
    }
    return NULL;
}

static int64_t wait_in_task(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < DUEL_WIDTH; i++) {
        uint64_t before = duel_seen[i];
        while (numio_within(i % 3 * 1000, numio_oneshot_wait_refused(&duel[i])) != 0)
            continue; /* too soon */
        STRESS_CHECK(duel_written[i] == before + 1);
        duel_seen[i] = duel_written[i];
        memset(&duel[i], 0xa5, sizeof duel[i]);
    }
    return 0;
}

static void run_refusals(void)
{
    struct numio_join *join;
    pthread_t thread;
    for (unsigned i = 0; i < DUEL_WIDTH; i++) {
        numio_oneshot_init(&duel[i]);
        duel_seen[i] = duel_written[i];
    }
    STRESS_CHECK(numio_spawn_co(handle, wait_in_task, NULL, NULL, &join) == 0);
    STRESS_CHECK(pthread_create(&thread, NULL, refuse_in_thread, NULL) == 0);
    STRESS_CHECK(numio_join_wait(&join, -1) == 0);
    (void)pthread_join(thread, NULL); /* cannot fail: joined once */
}

int main(void)
{
    static struct player players[TASKS];
    uint64_t seed, rounds = 0, stopped = 0, closed = 0;
    struct numio_join *joins[TASKS];
    struct numio_config config;
    struct numio_runtime *runtime;
    stop_ns = stress_start(&seed);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:1 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    handle = numio_runtime_handle(runtime);
    for (unsigned i = 0; i < DUELS; i++)
        run_duel();
    for (unsigned i = 0; i < DUELS; i++)
        run_refusals();
    for (unsigned i = 0; i < TASKS; i++) {
        nio_rng_init(&players[i].rng, &seed);
        STRESS_CHECK(numio_spawn_co(handle, play, &players[i], NULL, &joins[i]) == 0);
    }
    for (unsigned i = 0; i < TASKS; i++) {
        STRESS_CHECK(numio_join_wait(&joins[i], -1) == 0);
        rounds += players[i].rounds;
        stopped += players[i].stopped;
        closed += players[i].closed;
    }
    numio_runtime_destroy(runtime); /* asserts that every cell came home */
    printf("stress_oneshot: %llu rounds, %llu waits stopped, %llu closed\n",
           (unsigned long long)rounds, (unsigned long long)stopped, (unsigned long long)closed);
    return stopped == 0 || closed == 0;
}
