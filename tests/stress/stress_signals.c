/* SPDX-License-Identifier: MIT */
/* Notifications, events, barriers and what is done once, by coroutines on two workers and by plain
 * threads: each hands on plain memory; waits are given up by deadlines, aborts and selections, and
 * must lose nothing; what was set or done is freed by who has seen it.  Nobody waits for ever,
 * which the watchdog would notice.
 *
 * Weakened [NT1] to [NT3], [EV1] to [EV3], [ON1] to [ON3]: ThreadSanitizer reports the memory.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "runtime/sched/worker.h"
#include "tests/stress/stress.h"

enum { THREADS = 3, USERS_MAX = 5, VISITS = 10, TIMEOUT_NS_MAX = 20000, ROUNDS_MIN = 20 };

static struct numio_handle *handle;
static uint64_t stop_ns;

struct work {
    struct numio_once once;
    uint64_t done, attempts; /* of who is at it; then everybody's to read */
};

/* What all users of a round share. */
struct object {
    struct numio_notify notify; /* its permit is a baton */
    struct work works[VISITS];
    struct numio_event event;
    struct numio_event doors[2]; /* one is open */
    struct numio_barrier barrier;
    uint64_t baton;               /* of who has the baton */
    uint64_t said;                /* before the event */
    uint64_t passed[USERS_MAX];   /* each user's; all look after a barrier */
    _Atomic uint32_t users, left; /* all; those that have not left */
    bool has_aborts;              /* constant: the driver frees it then */
};

struct user {
    struct object *object;
    uint64_t seed;
    unsigned index;
};

struct driver {
    struct nio_rng rng;
    pthread_t thread;
    uint64_t rounds;
};

static _Atomic uint64_t timeouts, batons, tries, frees;

static void tell(_Atomic uint64_t *figure)
{
    /* relaxed: a figure */
    (void)atomic_fetch_add_explicit(figure, 1, memory_order_relaxed);
}

struct wait {
    void (*prep)(struct numio_op *op, void *object);
    int (*call)(void *object);
};

/* Waits in one of several ways.  The result of the wait, or -ECANCELED, -ETIMEDOUT. */
static int64_t get(struct nio_rng *rng, const struct wait *wait, void *object)
{
    struct numio_semaphore permits = NUMIO_SEMAPHORE_INIT(0);
    struct numio_op ops[2];
    uint64_t limit_ns = nio_rng_below(rng, TIMEOUT_NS_MAX);
    int64_t rc;
    wait->prep(&ops[0], object);
    switch (nio_rng_below(rng, 8)) {
    case 0:
        rc = numio_within(limit_ns, numio_op_await(&ops[0]));
        break;
    case 1: /* what has won may be either */
        (void)numio_semaphore_release(&permits, nio_rng_below(rng, 2)); /* so few: cannot fail */
        numio_op_semaphore_acquire(&ops[1], &permits, 1);
        rc = numio_within(limit_ns, numio_select(ops, 2, NUMIO_SELECT_FAIR));
        rc = rc == 0 ? numio_op_result(&ops[0]) : rc == 1 ? -ETIMEDOUT : rc;
        break;
    case 2:
        rc = numio_op_await(&ops[0]);
        break;
    default:
        rc = wait->call(object);
        break;
    }
    STRESS_CHECK(rc >= 0 || rc == -ETIMEDOUT || rc == -ECANCELED);
    if (rc == -ETIMEDOUT)
        tell(&timeouts);
    return rc;
}

static void dally(struct nio_rng *rng)
{
    stress_jitter(rng);
    if (nio_worker_current() && nio_rng_below(rng, 4) == 0 && numio_yield_now() < 0)
        return; /* aborted: it goes on */
}

/* ---- the baton ----------------------------------------------------------------------------- */

static void prep_notify(struct numio_op *op, void *object)
{
    numio_op_notify(op, &((struct object *)object)->notify);
}

static int wait_notify(void *object)
{
    return numio_notify_wait(&((struct object *)object)->notify);
}

static const struct wait notify_wait = { prep_notify, wait_notify };

static void run_with_baton(struct object *object, struct nio_rng *rng)
{
    bool has_it = nio_rng_below(rng, 4) == 0 ? numio_notify_try_wait(&object->notify) == 0
                                             : get(rng, &notify_wait, object) == 0;
    if (!has_it)
        return;
    uint64_t seen = object->baton;
    dally(rng);
    object->baton = seen + 1;
    tell(&batons);
    if (nio_rng_below(rng, 2))
        numio_notify_one(&object->notify);
    else
        numio_notify_last(&object->notify);
}

/* ---- once ---------------------------------------------------------------------------------- */

static void prep_once(struct numio_op *op, void *work)
{
    numio_op_once_begin(op, &((struct work *)work)->once);
}

static int begin_once(void *work)
{
    return numio_once_begin(&((struct work *)work)->once);
}

static const struct wait once_wait = { prep_once, begin_once };

static void do_once(struct work *work, struct nio_rng *rng)
{
    int64_t rc = get(rng, &once_wait, work);
    if (rc == 1) {
        STRESS_CHECK(work->done == 0);
        work->attempts++;
        dally(rng);
        bool is_done = nio_rng_below(rng, 4) == 0;
        work->done = is_done ? work->attempts : 0;
        STRESS_CHECK(numio_once_end(&work->once, is_done) == 0);
        tell(&tries);
    }
    if (rc == 0 || numio_once_is_done(&work->once))
        STRESS_CHECK(work->done == work->attempts);
}

/* ---- the event ------------------------------------------------------------------------------ */

static void prep_event(struct numio_op *op, void *object)
{
    numio_op_event_wait(op, &((struct object *)object)->event);
}

static int wait_event(void *object)
{
    return numio_event_wait(&((struct object *)object)->event);
}

static const struct wait event_wait = { prep_event, wait_event };

/* The first user says something; the others wait for it, and leave. */
static void say_or_hear(struct object *object, unsigned index, struct nio_rng *rng)
{
    dally(rng);
    if (index == 0) {
        object->said = 42;
        numio_event_set(&object->event);
        return;
    }
    while (get(rng, &event_wait, object) != 0)
        if (numio_is_cancelled())
            return;
    STRESS_CHECK(object->said == 42);
}

static void prep_door(struct numio_op *op, void *door)
{
    numio_op_event_wait(op, door);
}

static int wait_at_door(void *door)
{
    return numio_event_wait(door);
}

static const struct wait door_wait = { prep_door, wait_at_door };

/* Doors that are set and reset while others wait; that they end is all that is asked of them. */
static void use_doors(struct object *object, struct nio_rng *rng)
{
    struct numio_event *door = &object->doors[nio_rng_below(rng, 2)];
    switch (nio_rng_below(rng, 4)) {
    case 0:
        numio_event_reset(door);
        break;
    case 1:
        numio_event_set(door);
        break;
    default:
        (void)numio_within(TIMEOUT_NS_MAX, get(rng, &door_wait, door)); /* set, or not */
        break;
    }
}

/* ---- the barrier --------------------------------------------------------------------------- */

static void prep_barrier(struct numio_op *op, void *object)
{
    numio_op_barrier_wait(op, &((struct object *)object)->barrier);
}

static int wait_barrier(void *object)
{
    return numio_barrier_wait(&((struct object *)object)->barrier);
}

static const struct wait barrier_wait = { prep_barrier, wait_barrier };

/* Aborted users do not come: in such rounds it is for who gives up only. */
static void meet(struct object *object, unsigned index, uint64_t visit, struct nio_rng *rng)
{
    /* relaxed: constant */
    unsigned users = atomic_load_explicit(&object->users, memory_order_relaxed);
    if (object->has_aborts) {
        (void)numio_within(TIMEOUT_NS_MAX, get(rng, &barrier_wait, object)); /* any */
        return;
    }
    object->passed[index] = visit;
    while (get(rng, &barrier_wait, object) < 0) { /* until all have come */
    }
    for (unsigned i = 0; i < users; i++)
        STRESS_CHECK(object->passed[i] == visit);
    while (get(rng, &barrier_wait, object) < 0) { /* likewise: all have looked */
    }
}

/* ---- rounds -------------------------------------------------------------------------------- */

static void leave(struct object *object)
{
    if (object->has_aborts)
        return;
    /* [SS1] acq_rel: the last one has seen what all others did.  Pairs with itself. */
    if (atomic_fetch_sub_explicit(&object->left, 1, memory_order_acq_rel) != 1)
        return;
    memset(object, 0x5a, sizeof *object);
    free(object);
}

/* An event by itself, freed by who has waited for it. */
struct letter {
    struct numio_event event;
    uint64_t text;
};

static int64_t send_letter(void *arg)
{
    struct letter *letter = arg;
    letter->text = 42;
    numio_event_set(&letter->event);
    return 0;
}

static void get_letter(struct nio_rng *rng)
{
    struct letter *letter = calloc(1, sizeof *letter);
    struct numio_join *join;
    STRESS_CHECK(letter != NULL);
    STRESS_CHECK(numio_spawn_co(handle, send_letter, letter, NULL, &join) == 0);
    stress_jitter(rng);
    struct numio_op op;
    prep_door(&op, &letter->event);
    while (numio_within(nio_rng_below(rng, TIMEOUT_NS_MAX), numio_op_await(&op)) != 0)
        prep_door(&op, &letter->event);
    STRESS_CHECK(letter->text == 42);
    memset(letter, 0x5a, sizeof *letter);
    free(letter);
    tell(&frees);
    STRESS_CHECK(numio_join_wait(&join, -1) == 0);
}

static int64_t use(void *arg)
{
    struct user *user = arg;
    struct object *object = user->object;
    struct nio_rng rng;
    nio_rng_init(&rng, &user->seed);
    say_or_hear(object, user->index, &rng);
    for (uint64_t i = 1; i <= VISITS; i++) {
        run_with_baton(object, &rng);
        for (int k = 0; k < 4; k++)
            do_once(&object->works[i - 1], &rng);
        use_doors(object, &rng);
        if (i % 3 == 0)
            meet(object, user->index, i, &rng);
    }
    leave(object);
    return 0;
}

/* All have left: the baton is there, and nobody is at anything. */
static void check_end(struct object *object)
{
    STRESS_CHECK(numio_notify_try_wait(&object->notify) == 0);
    STRESS_CHECK(object->notify._state == 0 && object->barrier._arrived == 0);
    for (int i = 0; i < VISITS; i++)
        STRESS_CHECK((object->works[i].once._state & 3) == 0); /* nobody is at it, nobody waits */
    free(object);
}

static void run_round(struct driver *self)
{
    struct user users[USERS_MAX];
    struct numio_join *joins[USERS_MAX];
    unsigned count = 2 + nio_rng_below(&self->rng, USERS_MAX - 1);
    struct object *object = calloc(1, sizeof *object);
    STRESS_CHECK(object != NULL);
    bool has_aborts = nio_rng_below(&self->rng, 2);
    object->has_aborts = has_aborts;
    atomic_init(&object->users, count);
    atomic_init(&object->left, count);
    STRESS_CHECK(numio_barrier_init(&object->barrier, count) == 0);
    numio_notify_one(&object->notify);
    for (unsigned i = 0; i < count; i++) {
        users[i] = (struct user){ object, nio_rng_next(&self->rng), i };
        if (i > 0)
            STRESS_CHECK(numio_spawn_co(handle, use, &users[i], NULL, &joins[i]) == 0);
    }
    if (has_aborts) {
        stress_jitter(&self->rng);
        numio_join_abort(joins[1]);
    }
    (void)use(&users[0]); /* 0 */
    for (unsigned i = 1; i < count; i++) {
        int64_t result = numio_join_wait(&joins[i], -1);
        STRESS_CHECK(result == 0 || (has_aborts && i == 1 && result == -ECANCELED));
    }
    if (has_aborts)
        check_end(object);
    get_letter(&self->rng);
}

static void *run_driver(void *arg)
{
    struct driver *self = arg;
    for (; self->rounds < ROUNDS_MIN || nio_now_ns() < stop_ns; self->rounds++)
        run_round(self);
    return NULL;
}

static uint64_t told(_Atomic uint64_t *figure)
{
    /* relaxed: whoever told has been joined */
    return atomic_load_explicit(figure, memory_order_relaxed);
}

int main(void)
{
    uint64_t seed, rounds = 0;
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
        rounds += drivers[i].rounds;
    }
    numio_runtime_destroy(runtime); /* asserts that every cell came home */
    printf("stress_signals: %llu rounds, %llu timeouts, %llu batons, %llu tries, %llu freed\n",
           (unsigned long long)rounds, (unsigned long long)told(&timeouts),
           (unsigned long long)told(&batons), (unsigned long long)told(&tries),
           (unsigned long long)told(&frees));
    return told(&timeouts) == 0 || told(&batons) == 0 || told(&tries) == 0;
}
