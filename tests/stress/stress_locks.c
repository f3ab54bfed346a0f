/* SPDX-License-Identifier: MIT */
/* Mutexes with conditions, and locks for readers and writers, by coroutines on two workers and by
 * plain threads: what they guard is plain memory; waits are given up by deadlines, aborts and
 * selections; and whoever unlocks an object last frees it at once.  Nobody waits for ever, which
 * the watchdog would notice.
 *
 * Weakened [MX1] to [MX3] or [RW1] to [RW3]: ThreadSanitizer reports what they guard.  An unlocker
 * that gives the lock away before it has let go of the queue's lock: it reports the free().
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "runtime/sched/worker.h"
#include "tests/stress/stress.h"

enum {
    THREADS = 3,
    USERS_MAX = 12,
    VISITS = 40,
    VISITS_OF_THREAD = 6,
    TIMEOUT_NS_MAX = 20000,
    ROUNDS_MIN = 10
};

static struct numio_handle *handle;
static uint64_t stop_ns;

/* What all users of a round share; the fields without a lock belong to who holds it. */
struct object {
    struct numio_mutex mutex;
    struct numio_condition condition;
    struct numio_rwlock rwlock;
    uint64_t inside, count, tokens; /* the mutex' */
    uint64_t pair[2];               /* the rwlock's: equal, but while a writer is at it */
    unsigned users[2];              /* to come: under the mutex, under the rwlock */
    bool has_aborts;                /* constant: the driver frees it then */
};

struct user {
    struct object *object;
    uint64_t seed;
    bool has_rwlock; /* what it uses */
};

struct driver {
    struct nio_rng rng;
    pthread_t thread;
    uint64_t rounds, aborts;
};

/* Of all users: what has come about. */
static _Atomic uint64_t timeouts, signals, frees;

static void tell(_Atomic uint64_t *figure)
{
    /* relaxed: a figure */
    (void)atomic_fetch_add_explicit(figure, 1, memory_order_relaxed);
}

/* Whether a wait has been successful; if not, it was given up. */
static bool has_got(int64_t rc)
{
    STRESS_CHECK(rc == 0 || rc == -ETIMEDOUT || rc == -ECANCELED || rc == -EAGAIN);
    if (rc == -ETIMEDOUT)
        tell(&timeouts);
    return rc == 0;
}

/* Waits for one thing, or for a permit that never comes, in one of several ways. */
static bool get(struct nio_rng *rng, void (*prep)(struct numio_op *op, void *object), void *object)
{
    struct numio_semaphore never = NUMIO_SEMAPHORE_INIT(0);
    struct numio_op ops[2];
    prep(&ops[0], object);
    switch (nio_rng_below(rng, 8)) {
    case 0:
        return has_got(numio_within(nio_rng_below(rng, TIMEOUT_NS_MAX), numio_op_await(&ops[0])));
    case 1:
        numio_op_semaphore_acquire(&ops[1], &never, 1);
        return has_got(numio_within(nio_rng_below(rng, TIMEOUT_NS_MAX),
                                    numio_select(ops, 2, NUMIO_SELECT_FAIR)));
    case 2: /* what has won may be either */
        numio_op_semaphore_acquire(&ops[1], &never, 1);
        (void)numio_semaphore_release(&never, nio_rng_below(rng, 2)); /* of so few: cannot fail */
        return has_got(numio_within(TIMEOUT_NS_MAX, numio_select(ops, 2, NUMIO_SELECT_FAIR)) == 1
                           ? -EAGAIN
                           : numio_op_result(&ops[0]));
    default:
        return has_got(numio_op_await(&ops[0]));
    }
}

/* Under locks, so that others come to wait for them. */
static void dally(struct nio_rng *rng)
{
    stress_jitter(rng);
    if (nio_worker_current() && nio_rng_below(rng, 4) == 0 && numio_yield_now() < 0)
        return; /* aborted: it goes on */
}

/* ---- the mutex and the condition ----------------------------------------------------------- */

static void prep_mutex(struct numio_op *op, void *object)
{
    numio_op_mutex_lock(op, &((struct object *)object)->mutex);
}

static void prep_condition(struct numio_op *op, void *arg)
{
    struct object *object = arg;
    numio_op_condition_wait(op, &object->condition, &object->mutex);
}

static void enter(struct object *object)
{
    STRESS_CHECK(object->inside == 0);
    object->inside = 1;
}

static void wait_for_token(struct object *object, struct nio_rng *rng)
{
    uint64_t limit_ns = TIMEOUT_NS_MAX << nio_rng_below(rng, 3);
    int tries = 3;
    while (object->tokens == 0 && tries-- > 0) {
        object->inside = 0;
        if (nio_rng_below(rng, 2))
            (void)numio_within(limit_ns, get(rng, prep_condition, object)); /* looks again */
        else
            (void)has_got(
                numio_within(limit_ns, numio_condition_wait(&object->condition, &object->mutex)));
        enter(object);
    }
    if (object->tokens > 0) {
        object->tokens--;
        tell(&signals);
    }
}

static void visit_mutex(struct object *object, struct nio_rng *rng)
{
    if (nio_rng_below(rng, 4) == 0 ? numio_mutex_try_lock(&object->mutex) != 0
                                   : !get(rng, prep_mutex, object))
        return;
    enter(object);
    uint64_t seen = object->count;
    dally(rng);
    object->count = seen + 1;
    uint32_t what = nio_rng_below(rng, 10);
    if (what == 0)
        wait_for_token(object, rng);
    else if (what <= 2)
        object->tokens++;
    object->inside = 0;
    if (what <= 2) /* under the mutex, as long as the object is there */
        numio_condition_signal(&object->condition);
    if (what == 3)
        numio_condition_broadcast(&object->condition);
    STRESS_CHECK(numio_mutex_unlock(&object->mutex) == 0);
}

/* ---- the lock for readers and writers ------------------------------------------------------- */

static void prep_read(struct numio_op *op, void *object)
{
    numio_op_rwlock_lock_shared(op, &((struct object *)object)->rwlock);
}

static void prep_write(struct numio_op *op, void *object)
{
    numio_op_rwlock_lock(op, &((struct object *)object)->rwlock);
}

static void look(struct object *object, struct nio_rng *rng)
{
    uint64_t seen = object->pair[0];
    dally(rng);
    STRESS_CHECK(object->pair[0] == seen && object->pair[1] == seen);
}

static bool lock_to_read(struct object *object, struct nio_rng *rng)
{
    uint32_t how = nio_rng_below(rng, 4);
    return how == 0   ? numio_rwlock_try_lock_shared(&object->rwlock) == 0
           : how == 1 ? has_got(numio_rwlock_lock_shared(&object->rwlock))
                      : get(rng, prep_read, object);
}

static bool lock_to_write(struct object *object, struct nio_rng *rng)
{
    uint32_t how = nio_rng_below(rng, 4);
    return how == 0   ? numio_rwlock_try_lock(&object->rwlock) == 0
           : how == 1 ? has_got(numio_rwlock_lock(&object->rwlock))
                      : get(rng, prep_write, object);
}

static void visit_rwlock(struct object *object, struct nio_rng *rng)
{
    if (nio_rng_below(rng, 3)) {
        if (!lock_to_read(object, rng))
            return;
        look(object, rng);
    } else {
        if (!lock_to_write(object, rng))
            return;
        object->pair[0]++;
        dally(rng);
        object->pair[1]++;
        if (nio_rng_below(rng, 2)) {
            STRESS_CHECK(numio_rwlock_downgrade(&object->rwlock) == 0);
            look(object, rng);
        }
    }
    STRESS_CHECK(numio_rwlock_unlock(&object->rwlock) == 0);
}

/* ---- rounds -------------------------------------------------------------------------------- */

/* The last of the users that comes here frees it, right after having unlocked it. */
static void leave(struct user *user)
{
    struct object *object = user->object;
    bool is_last;
    if (object->has_aborts)
        return;
    if (user->has_rwlock) {
        STRESS_CHECK(numio_rwlock_lock(&object->rwlock) == 0);
        is_last = --object->users[1] == 0;
        STRESS_CHECK(numio_rwlock_unlock(&object->rwlock) == 0);
    } else {
        STRESS_CHECK(numio_mutex_lock(&object->mutex) == 0);
        is_last = --object->users[0] == 0;
        STRESS_CHECK(numio_mutex_unlock(&object->mutex) == 0);
    }
    if (!is_last)
        return;
    memset(object, 0x5a, sizeof *object);
    free(object);
    tell(&frees);
}

static int64_t use(void *arg)
{
    struct user *user = arg;
    struct nio_rng rng;
    nio_rng_init(&rng, &user->seed);
    /* A wake of a thread takes as long as many visits of coroutines. */
    int visits = nio_worker_current() ? VISITS : VISITS_OF_THREAD;
    for (int i = 0; i < visits; i++)
        if (user->has_rwlock)
            visit_rwlock(user->object, &rng);
        else
            visit_mutex(user->object, &rng);
    leave(user);
    return 0;
}

static void run_round(struct driver *self)
{
    struct user users[USERS_MAX];
    struct numio_join *joins[USERS_MAX];
    unsigned count = 2 + nio_rng_below(&self->rng, USERS_MAX - 1);
    struct object *object = calloc(1, sizeof *object);
    STRESS_CHECK(object != NULL);
    bool has_rwlock = nio_rng_below(&self->rng, 2), has_aborts = nio_rng_below(&self->rng, 2);
    object->users[has_rwlock] = count;
    object->has_aborts = has_aborts;
    for (unsigned i = 0; i < count; i++) {
        users[i] = (struct user){ object, nio_rng_next(&self->rng), has_rwlock };
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
        self->aborts += result == -ECANCELED;
    }
    if (!has_aborts)
        return;
    STRESS_CHECK(object->mutex._state == 0 && object->rwlock._state == 0);
    STRESS_CHECK(object->condition._state == 0);
    free(object);
}

static void *run_driver(void *arg)
{
    struct driver *self = arg;
    for (; self->rounds < ROUNDS_MIN || nio_now_ns() < stop_ns; self->rounds++)
        run_round(self);
    return NULL;
}

/* ---- duels --------------------------------------------------------------------------------- */

/* One holds it and unlocks; the other gives up waiting in that moment, locks it all the same, and
 * frees it. */
struct duel {
    struct object *object;
    struct stress_barrier barrier;
    uint64_t stop_ns, rounds;
};

static void *run_holder(void *arg)
{
    struct duel *duel = arg;
    uint64_t seed = stop_ns;
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    for (;;) {
        bool is_over = nio_now_ns() > duel->stop_ns;
        struct object *object = is_over ? NULL : calloc(1, sizeof *object);
        duel->object = object;
        STRESS_CHECK(is_over || (object && numio_mutex_lock(&object->mutex) == 0));
        STRESS_CHECK(is_over || numio_rwlock_lock_shared(&object->rwlock) == 0);
        stress_meet(&duel->barrier);
        if (is_over)
            return NULL;
        bool has_rwlock = duel->rounds++ % 2;
        for (uint32_t i = nio_rng_below(&rng, 40); i > 0; i--)
            nio_cpu_relax();
        if (has_rwlock)
            STRESS_CHECK(numio_rwlock_unlock(&object->rwlock) == 0);
        else
            STRESS_CHECK(numio_mutex_unlock(&object->mutex) == 0);
        stress_meet(&duel->barrier);
    }
}

static void run_seconder(struct duel *duel)
{
    for (uint64_t round = 0;; round++) {
        unsigned spins = 0;
        stress_meet(&duel->barrier);
        struct object *object = duel->object;
        if (!object)
            return;
        if (round % 2) {
            while (numio_within(0, numio_rwlock_lock(&object->rwlock)) != 0)
                stress_pause(&spins);
            STRESS_CHECK(numio_rwlock_unlock(&object->rwlock) == 0);
        } else {
            while (numio_within(0, numio_mutex_lock(&object->mutex)) != 0)
                stress_pause(&spins);
            STRESS_CHECK(numio_mutex_unlock(&object->mutex) == 0);
        }
        free(object);
        stress_meet(&duel->barrier);
    }
}

static uint64_t run_duels(uint64_t end_ns)
{
    struct duel duel = { .barrier = { .threads = 2 }, .stop_ns = end_ns };
    pthread_t holder;
    STRESS_CHECK(pthread_create(&holder, NULL, run_holder, &duel) == 0);
    run_seconder(&duel);
    (void)pthread_join(holder, NULL); /* cannot fail: joined once */
    return duel.rounds;
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
    uint64_t now_ns = nio_now_ns();
    uint64_t duels = run_duels(now_ns + (stop_ns - now_ns) / 3);
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
    printf(
        "stress_locks: %llu duels, %llu rounds, %llu timeouts, %llu signals, %llu freed by users\n",
        (unsigned long long)duels, (unsigned long long)rounds, (unsigned long long)told(&timeouts),
        (unsigned long long)told(&signals), (unsigned long long)told(&frees));
    return told(&timeouts) == 0 || told(&signals) == 0 || told(&frees) == 0;
}
