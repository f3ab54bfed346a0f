/* SPDX-License-Identifier: MIT */
/* Promises of the lock for readers and writers: many readers or one writer, first come first
 * served, a downgrade that lets nobody in between, aborts and deadlines that lose nothing, misuse
 * that is told; by coroutines, futures and plain threads. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/stepped_wait.h"
#include "tests/steps.h"
#include "tests/sync_cases.h"

#include "runtime/sched/wait_await.h"

enum { TASKS = 16, ROUNDS = 400, READER = 4, WRITER = 2, WAITS = 1 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

/* ---- the naive model ----------------------------------------------------------------------- */

enum { ACTORS = 10, STEPS = 60000 };

struct actor {
    struct numio_op op;
    bool is_shared, holds, waits;
};

struct model {
    struct numio_rwlock lock;
    struct actor actors[ACTORS];
    int queue[ACTORS], queued;
    int readers;
    bool has_writer;
};

static bool may_enter(const struct model *m, bool is_shared)
{
    return !m->has_writer && (is_shared || m->readers == 0);
}

static void enter(struct model *m, int i)
{
    m->actors[i].waits = false;
    m->actors[i].holds = true;
    if (m->actors[i].is_shared)
        m->readers++;
    else
        m->has_writer = true;
}

static void take_from_queue(struct model *m, int at)
{
    m->queued--;
    for (int k = at; k < m->queued; k++)
        m->queue[k] = m->queue[k + 1];
}

static void let_in(struct model *m)
{
    while (m->queued && may_enter(m, m->actors[m->queue[0]].is_shared)) {
        enter(m, m->queue[0]);
        take_from_queue(m, 0);
    }
}

static void model_begin(struct model *m, int i, bool is_shared)
{
    struct actor *a = &m->actors[i];
    a->is_shared = is_shared;
    if (is_shared)
        numio_op_rwlock_lock_shared(&a->op, &m->lock);
    else
        numio_op_rwlock_lock(&a->op, &m->lock);
    stepped_begin(&a->op, (uintptr_t)i + 1);
    if (m->queued == 0 && may_enter(m, is_shared)) {
        enter(m, i);
        return;
    }
    a->waits = true;
    m->queue[m->queued++] = i;
}

static void model_give_up(struct model *m, int i)
{
    int at = 0;
    cr_assert(stepped_leave(&m->actors[i].op));
    m->actors[i].waits = false;
    while (m->queue[at] != i)
        at++;
    take_from_queue(m, at);
    let_in(m);
}

static void model_unlock(struct model *m, int i)
{
    struct actor *a = &m->actors[i];
    stepped_give_back(&a->op);
    a->holds = false;
    if (a->is_shared)
        m->readers--;
    else
        m->has_writer = false;
    let_in(m);
}

static void model_downgrade(struct model *m, int i)
{
    cr_assert_eq(numio_rwlock_downgrade(&m->lock), -EPERM); /* as this thread */
    m->lock._owner = nio_who_runs();
    cr_assert_eq(numio_rwlock_downgrade(&m->lock), 0);
    m->actors[i].is_shared = true;
    numio_op_rwlock_lock_shared(&m->actors[i].op, &m->lock); /* to be given back as such */
    m->actors[i].op._state = NIO_OP_DONE;
    m->actors[i].op._result = 0;
    m->has_writer = false;
    m->readers++;
    let_in(m);
}

static void model_try(struct model *m)
{
    bool may_read = m->queued == 0 && may_enter(m, true);
    bool may_write = m->queued == 0 && may_enter(m, false);
    cr_assert_eq(numio_rwlock_try_lock_shared(&m->lock), may_read ? 0 : -EAGAIN);
    if (may_read)
        cr_assert_eq(numio_rwlock_unlock(&m->lock), 0);
    cr_assert_eq(numio_rwlock_try_lock(&m->lock), may_write ? 0 : -EAGAIN);
    if (may_write)
        cr_assert_eq(numio_rwlock_unlock(&m->lock), 0);
}

static void compare(const struct model *m)
{
    uint64_t state =
        (uint64_t)m->readers * READER + (m->has_writer ? WRITER : 0) + (m->queued ? WAITS : 0);
    cr_assert_eq(m->lock._state, state);
    for (int i = 0; i < ACTORS; i++)
        if (m->actors[i].holds || m->actors[i].waits)
            cr_assert_eq(stepped_result(&m->actors[i].op), m->actors[i].waits ? STEPPED_WAITS : 0);
}

Test(rwlock, agrees_with_a_naive_model, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(11);
    static struct model m;
    for (int step = 0; step < STEPS; step++) {
        int i = (int)nio_rng_below(&rng, ACTORS);
        struct actor *a = &m.actors[i];
        if (nio_rng_below(&rng, 10) == 0)
            model_try(&m);
        else if (a->waits && nio_rng_below(&rng, 4) == 0)
            model_give_up(&m, i);
        else if (a->holds && !a->is_shared && nio_rng_below(&rng, 2) == 0)
            model_downgrade(&m, i);
        else if (a->holds)
            model_unlock(&m, i);
        else if (!a->waits)
            model_begin(&m, i, nio_rng_below(&rng, 3) != 0);
        compare(&m);
    }
}

/* ---- many readers or one writer, with everybody --------------------------------------------- */

struct shared {
    struct numio_rwlock lock;
    uint64_t plain[2]; /* equal, but while a writer is at it */
    _Atomic uint32_t readers, most;
    _Atomic uint64_t seed;
    bool is_torn;
};

static void note_reader(struct shared *s)
{
    /* relaxed, like the rest of the model: figures */
    uint32_t now = atomic_fetch_add_explicit(&s->readers, 1, memory_order_relaxed) + 1;
    uint32_t most = atomic_load_explicit(&s->most, memory_order_relaxed); /* relaxed: as above */
    /* relaxed: as above */
    while (now > most && !atomic_compare_exchange_weak_explicit(
                             &s->most, &most, now, memory_order_relaxed, memory_order_relaxed))
        ;
}

static int64_t read_or_write(void *arg)
{
    struct shared *s = arg;
    /* relaxed: any number will do */
    uint64_t seed = atomic_fetch_add_explicit(&s->seed, 1, memory_order_relaxed);
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    for (int i = 0; i < ROUNDS; i++) {
        bool writes = nio_rng_below(&rng, 4) == 0;
        EXPECT((writes ? numio_rwlock_lock(&s->lock) : numio_rwlock_lock_shared(&s->lock)) == 0);
        if (writes) {
            s->plain[0]++;
            if (nio_worker_current() && i % 3 == 0)
                EXPECT(numio_yield_now() == 0);
            /* relaxed: a figure */
            EXPECT(atomic_load_explicit(&s->readers, memory_order_relaxed) == 0);
            s->plain[1]++;
            if (i % 2)
                EXPECT(numio_rwlock_downgrade(&s->lock) == 0);
        } else {
            note_reader(s);
            EXPECT(s->plain[0] == s->plain[1]);
            if (nio_worker_current() && i % 3 == 0)
                EXPECT(numio_yield_now() == 0);
            /* relaxed: a figure */
            (void)atomic_fetch_sub_explicit(&s->readers, 1, memory_order_relaxed);
        }
        EXPECT(numio_rwlock_unlock(&s->lock) == 0);
    }
    return 0;
}

static int64_t spawn_all(void *arg)
{
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, read_or_write, arg, NULL, &joins[i]) == 0);
    for (int i = 0; i < TASKS; i++) {
        int64_t line = numio_join_await(&joins[i]);
        if (line)
            return line;
    }
    return 0;
}

static void *read_or_write_in_thread(void *arg)
{
    return (void *)(intptr_t)read_or_write(arg);
}

FIXTURE_EACH(rwlock, has_many_readers_or_one_writer, .timeout = 60)
{
    struct shared s = { .lock = NUMIO_RWLOCK_INIT, .seed = seeded_seed(3) };
    pthread_t thread;
    void *line;
    cr_assert_eq(pthread_create(&thread, NULL, read_or_write_in_thread, &s), 0);
    cr_assert_eq(run(runtime, spawn_all, &s), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line, "line %ld", (long)(intptr_t)line);
    cr_assert_eq(s.plain[0], s.plain[1]);
    cr_assert_gt(fixture_get(&s.most), 1u);
    cr_assert_eq(s.lock._state, 0u);
}

/* ---- order --------------------------------------------------------------------------------- */

struct order {
    struct numio_rwlock lock;
    int arrived, inside, wrong;
};

struct place {
    struct order *order;
    int group; /* those of one group are inside together */
    int size;
    bool is_shared;
};

static int64_t take_turn(void *arg)
{
    struct place *p = arg;
    struct order *o = p->order;
    int rc = p->is_shared ? numio_rwlock_lock_shared(&o->lock) : numio_rwlock_lock(&o->lock);
    EXPECT(rc == 0);
    o->inside++;
    o->wrong += p->group < o->arrived;
    o->arrived = p->group;
    for (int i = 0; i < 3; i++)
        EXPECT(numio_yield_now() == 0);
    o->wrong += o->inside != p->size; /* all of the group, and nobody else */
    for (int i = 0; i < 3; i++)
        EXPECT(numio_yield_now() == 0);
    o->inside--;
    EXPECT(numio_rwlock_unlock(&o->lock) == 0);
    return 0;
}

static int64_t queue_up(void *arg)
{
    static const struct place queue[] = {
        { NULL, 1, 3, true },  { NULL, 1, 3, true }, { NULL, 1, 3, true }, { NULL, 2, 1, false },
        { NULL, 3, 1, false }, { NULL, 4, 2, true }, { NULL, 4, 2, true }, { NULL, 5, 1, false },
    };
    struct order *o = arg;
    struct place places[NIO_ARRAY_LEN(queue)];
    struct numio_join *joins[NIO_ARRAY_LEN(queue)];
    EXPECT(numio_rwlock_lock(&o->lock) == 0);
    for (size_t i = 0; i < NIO_ARRAY_LEN(queue); i++) {
        places[i] = queue[i];
        places[i].order = o;
        EXPECT(numio_spawn_co(NULL, take_turn, &places[i], NULL, &joins[i]) == 0);
        EXPECT(numio_yield_now() == 0); /* it waits now */
    }
    EXPECT(numio_rwlock_unlock(&o->lock) == 0);
    EXPECT(numio_rwlock_try_lock_shared(&o->lock) == -EAGAIN); /* a writer waits */
    for (size_t i = 0; i < NIO_ARRAY_LEN(queue); i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

Test(rwlock, readers_enter_together_and_nobody_is_overtaken, .timeout = 30)
{
    struct order order = { .lock = NUMIO_RWLOCK_INIT };
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, queue_up, &order), 0, "line %ld", (long)last_line);
    cr_assert_eq(order.wrong, 0);
    cr_assert_eq(order.lock._state, 0u);
    numio_runtime_destroy(runtime);
}

static int64_t lock_to_write(void *arg)
{
    int rc = numio_rwlock_lock(arg);
    return rc ? rc : numio_rwlock_unlock(arg);
}

static int64_t lock_to_read(void *arg)
{
    int rc = numio_rwlock_lock_shared(arg);
    return rc ? rc : numio_rwlock_unlock(arg);
}

/* A writer that gives up lets the readers behind it in. */
static int64_t give_up(void *arg)
{
    struct numio_rwlock *lock = arg;
    struct numio_join *writer, *reader;
    EXPECT(numio_rwlock_lock_shared(lock) == 0);
    EXPECT(numio_spawn_co(NULL, lock_to_write, lock, NULL, &writer) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_spawn_co(NULL, lock_to_read, lock, NULL, &reader) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(lock->_state == READER + WAITS); /* the reader waits for the writer */
    numio_join_abort(writer);
    EXPECT(numio_join_await(&writer) == -ECANCELED);
    EXPECT(numio_join_await(&reader) == 0);
    EXPECT(numio_rwlock_unlock(lock) == 0);
    EXPECT(lock->_state == 0);
    return 0;
}

/* The readers at the head enter with the one that was a writer, and no writer does. */
static int64_t downgrade(void *arg)
{
    struct numio_rwlock *lock = arg;
    struct numio_join *joins[3];
    EXPECT(numio_rwlock_lock(lock) == 0);
    for (int i = 0; i < 3; i++) {
        EXPECT(numio_spawn_co(NULL, i == 1 ? lock_to_write : lock_to_read, lock, NULL, &joins[i]) ==
               0);
        EXPECT(numio_yield_now() == 0);
    }
    EXPECT(numio_rwlock_downgrade(lock) == 0);
    EXPECT(lock->_state == 2 * READER + WAITS); /* the writer, and who stands behind it, wait */
    EXPECT(numio_rwlock_downgrade(lock) == -EPERM);
    EXPECT(numio_join_await(&joins[0]) == 0);
    EXPECT(lock->_state == READER + WAITS);
    EXPECT(numio_rwlock_unlock(lock) == 0);
    EXPECT(numio_join_await(&joins[1]) == 0);
    EXPECT(numio_join_await(&joins[2]) == 0);
    EXPECT(lock->_state == 0);
    return 0;
}

Test(rwlock, a_writer_that_gives_up_lets_in_who_stands_behind_it, .timeout = 30)
{
    struct numio_rwlock lock = NUMIO_RWLOCK_INIT;
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, give_up, &lock), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

Test(rwlock, a_downgrade_lets_readers_in_and_no_writer, .timeout = 30)
{
    struct numio_rwlock lock = NUMIO_RWLOCK_INIT;
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, downgrade, &lock), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

/* ---- misuse -------------------------------------------------------------------------------- */

static int64_t unlock_of_another(void *arg)
{
    return numio_rwlock_unlock(arg);
}

static int64_t misuse(void *arg)
{
    struct numio_rwlock *lock = arg;
    struct numio_join *join;
    EXPECT(numio_rwlock_unlock(lock) == -EPERM);
    EXPECT(strstr(numio_strerror_detail(), "does not hold"));
    EXPECT(numio_rwlock_downgrade(lock) == -EPERM);
    EXPECT(numio_rwlock_lock(lock) == 0);
    EXPECT(numio_rwlock_lock(lock) == -EDEADLK);
    EXPECT(strstr(numio_strerror_detail(), "once more"));
    EXPECT(numio_rwlock_lock_shared(lock) == -EDEADLK);
    EXPECT(numio_rwlock_try_lock(lock) == -EDEADLK);
    EXPECT(numio_rwlock_try_lock_shared(lock) == -EDEADLK);
    EXPECT(numio_spawn_co(NULL, unlock_of_another, lock, NULL, &join) == 0);
    EXPECT(numio_join_await(&join) == -EPERM);
    EXPECT(lock->_state == WRITER);
    EXPECT(numio_rwlock_unlock(lock) == 0);
    EXPECT(numio_rwlock_unlock(lock) == -EPERM);
    EXPECT(numio_rwlock_lock_shared(lock) == 0);
    EXPECT(numio_rwlock_lock_shared(lock) == 0); /* no writer has come in between */
    EXPECT(numio_rwlock_try_lock(lock) == -EAGAIN);
    EXPECT(numio_rwlock_downgrade(lock) == -EPERM);
    EXPECT(numio_rwlock_unlock(lock) == 0);
    EXPECT(numio_rwlock_unlock(lock) == 0);
    EXPECT(numio_rwlock_unlock(lock) == -EPERM);
    EXPECT(lock->_state == 0);
    return 0;
}

FIXTURE_EACH(rwlock, misuse_is_told_and_changes_nothing, .timeout = 30)
{
    struct numio_rwlock lock;
    numio_rwlock_init(&lock);
    cr_assert_eq(run(runtime, misuse, &lock), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_rwlock_unlock(&lock), -EPERM); /* a plain thread as well */
    cr_assert_eq(numio_rwlock_lock(&lock), 0);
    cr_assert_eq(numio_rwlock_lock_shared(&lock), -EDEADLK);
    cr_assert_eq(numio_rwlock_unlock(&lock), 0);
}

/* ---- as all waits -------------------------------------------------------------------------- */

/* Lets go of it, whoever holds it. */
static void unlock_for(struct numio_rwlock *lock, bool is_shared)
{
    struct numio_op op;
    if (is_shared)
        numio_op_rwlock_lock_shared(&op, lock);
    else
        numio_op_rwlock_lock(&op, lock);
    stepped_give_back(&op);
}

static void prep_write(struct numio_op *op, void *lock)
{
    numio_op_rwlock_lock(op, lock);
}

static void prep_read(struct numio_op *op, void *lock)
{
    numio_op_rwlock_lock_shared(op, lock);
}

/* It is free before, and somebody else's after. */
static void block_writers(void *lock)
{
    *(struct numio_rwlock *)lock = (struct numio_rwlock){ ._state = READER };
}

static void block_readers(void *lock)
{
    *(struct numio_rwlock *)lock = (struct numio_rwlock){ ._state = WRITER, ._owner = 1 };
}

static void give_to_writer(void *lock)
{
    unlock_for(lock, true);
}

static void give_to_reader(void *lock)
{
    unlock_for(lock, false);
}

static bool was_written(void *arg)
{
    struct numio_rwlock *lock = arg;
    bool is_held = lock->_state == WRITER && lock->_owner != 0;
    unlock_for(lock, false);
    return is_held && lock->_state == 0 && lock->_owner == 0;
}

static bool was_read(void *arg)
{
    struct numio_rwlock *lock = arg;
    bool is_held = lock->_state == READER;
    unlock_for(lock, true);
    return is_held && lock->_state == 0;
}

static struct sync_case case_of(struct numio_rwlock *lock, bool is_shared)
{
    if (is_shared)
        return (struct sync_case){ prep_read,     block_readers, give_to_reader, was_read, lock,
                                   &lock->_waits, NULL };
    return (struct sync_case){ prep_write,    block_writers, give_to_writer, was_written, lock,
                               &lock->_waits, NULL };
}

FIXTURE_EACH(rwlock, a_wait_is_late_selected_polled_or_refused_and_takes_nothing, .timeout = 60)
{
    for (int is_shared = 0; is_shared < 2; is_shared++) {
        struct numio_rwlock lock = NUMIO_RWLOCK_INIT;
        struct sync_case c = case_of(&lock, is_shared);
        sync_check(runtime, &c);
    }
}

Test(rwlock, a_lost_selection_is_passed_over, .timeout = 30)
{
    for (int is_shared = 0; is_shared < 2; is_shared++) {
        struct numio_rwlock lock = NUMIO_RWLOCK_INIT;
        struct sync_case c = case_of(&lock, is_shared);
        sync_check_on_one_worker(&c, sync_lost_steps);
    }
}

Test(rwlock, an_aborted_future_gives_back_what_it_has_got, .timeout = 30)
{
    for (int is_shared = 0; is_shared < 2; is_shared++) {
        struct numio_rwlock lock = NUMIO_RWLOCK_INIT;
        struct sync_case c = case_of(&lock, is_shared);
        sync_check_on_one_worker(&c, sync_give_back_steps);
    }
}

Test(rwlock, at_shutdown_all_waits_end, .timeout = 30)
{
    for (int is_shared = 0; is_shared < 2; is_shared++) {
        struct numio_rwlock lock = NUMIO_RWLOCK_INIT;
        struct sync_case c = case_of(&lock, is_shared);
        sync_check_shutdown(&c);
    }
}

/* ---- aborts -------------------------------------------------------------------------------- */

static void reset(void *arg)
{
    numio_rwlock_init(arg);
}

static int64_t lock_in_turns(void *arg)
{
    struct numio_rwlock *lock = arg;
    for (int i = 0; i < 4; i++) {
        int rc = i % 2 ? numio_rwlock_lock_shared(lock) : numio_rwlock_lock(lock);
        if (rc)
            return rc;
        int stop = numio_yield_now();
        if (i == 2)
            EXPECT(numio_rwlock_downgrade(lock) == 0);
        EXPECT(numio_rwlock_unlock(lock) == 0);
        if (stop)
            return stop;
    }
    return 0;
}

static int64_t check_free(void *arg, int64_t result)
{
    struct numio_rwlock *lock = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(lock->_state == 0 && lock->_owner == 0 && !lock->_waits._first);
    return 0;
}

Test(rwlock, an_abort_at_each_step_leaves_it_free, .timeout = 60)
{
    struct numio_rwlock lock;
    struct abort_case what = { reset, lock_in_turns, lock_in_turns, check_free, &lock };
    cr_assert_geq(abort_each(&what), 5u);
}
