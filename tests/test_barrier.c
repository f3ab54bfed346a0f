/* SPDX-License-Identifier: MIT */
/* Promises of the barrier: nobody passes before all have come, one is the leader, again and again;
 * who gives up takes its arrival back; by coroutines, futures, selections and plain threads. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/stepped_wait.h"
#include "tests/steps.h"
#include "tests/sync_cases.h"

#include "runtime/sched/worker.h"

enum { TASKS = 7, ROUNDS = 200, SOON_NS = 2000000 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static void run_on_one_worker(int64_t (*fn)(void *arg), void *arg)
{
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, fn, arg), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

/* ---- the naive model ----------------------------------------------------------------------- */

enum { ACTORS = 12, STEPS = 40000, PARTIES = 5 };

struct actor {
    struct numio_op op;
    bool has_begun, waits, is_leader;
};

Test(barrier, agrees_with_a_naive_model, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(31);
    struct numio_barrier barrier = NUMIO_BARRIER_INIT(PARTIES);
    static struct actor actors[ACTORS];
    unsigned arrived = 0;
    for (int step = 0; step < STEPS; step++) {
        struct actor *a = &actors[nio_rng_below(&rng, ACTORS)];
        if (a->waits && nio_rng_below(&rng, 6) == 0) {
            cr_assert(stepped_leave(&a->op));
            a->waits = a->has_begun = false;
            arrived--;
        } else if (!a->waits) {
            numio_op_barrier_wait(&a->op, &barrier);
            stepped_begin(&a->op, 1);
            a->has_begun = true;
            a->is_leader = ++arrived == PARTIES;
            a->waits = !a->is_leader;
            for (int i = 0; a->is_leader && i < ACTORS; i++)
                actors[i].waits = false;
            arrived = a->is_leader ? 0 : arrived;
        }
        cr_assert_eq(barrier._arrived, arrived);
        for (int i = 0; i < ACTORS; i++)
            if (actors[i].has_begun)
                cr_assert_eq(stepped_result(&actors[i].op),
                             actors[i].waits ? STEPPED_WAITS : actors[i].is_leader);
    }
}

/* ---- everybody ----------------------------------------------------------------------------- */

struct meeting {
    struct numio_barrier barrier;
    _Atomic uint64_t came;
    _Atomic uint32_t leaders;
    uint64_t plain; /* written by the leader, between two meetings */
};

static int64_t meet(void *arg)
{
    struct meeting *m = arg;
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        /* relaxed: the barrier orders it */
        (void)atomic_fetch_add_explicit(&m->came, 1, memory_order_relaxed);
        int rc = numio_barrier_wait(&m->barrier);
        EXPECT(rc == 0 || rc == 1);
        /* relaxed: as above */
        EXPECT(atomic_load_explicit(&m->came, memory_order_relaxed) == i * (TASKS + 1));
        if (rc == 1) {
            m->plain++;
            /* relaxed: a figure */
            (void)atomic_fetch_add_explicit(&m->leaders, 1, memory_order_relaxed);
        }
        if (nio_worker_current() && i % 3 == 0)
            EXPECT(numio_yield_now() == 0);
        EXPECT(numio_barrier_wait(&m->barrier) >= 0);
        EXPECT(m->plain == i);
    }
    return 0;
}

static void *meet_in_thread(void *arg)
{
    return (void *)(intptr_t)meet(arg);
}

static int64_t spawn_all(void *arg)
{
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, meet, arg, NULL, &joins[i]) == 0);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(barrier, nobody_passes_before_all_have_come_and_one_leads, .timeout = 60)
{
    struct meeting m = { .came = 0 };
    pthread_t thread;
    void *line;
    cr_assert_eq(numio_barrier_init(&m.barrier, TASKS + 1), 0);
    cr_assert_eq(pthread_create(&thread, NULL, meet_in_thread, &m), 0);
    cr_assert_eq(run(runtime, spawn_all, &m), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line);
    cr_assert_eq(fixture_get(&m.leaders), (unsigned)ROUNDS);
    cr_assert_eq(m.barrier._arrived, 0u);
}

/* ---- misuse, alone, in time ----------------------------------------------------------------- */

static int64_t alone_and_late(void *arg)
{
    struct numio_barrier *barrier = arg, empty = { 0 };
    EXPECT(numio_barrier_init(barrier, 0) == -EINVAL);
    EXPECT(numio_barrier_wait(&empty) == -EINVAL);
    EXPECT(strstr(numio_strerror_detail(), "numio_barrier_init"));
    EXPECT(numio_barrier_init(barrier, 1) == 0);
    EXPECT(numio_barrier_wait(barrier) == 1);
    EXPECT(numio_barrier_wait(barrier) == 1);
    EXPECT(numio_barrier_init(barrier, 2) == 0);
    EXPECT(numio_within(SOON_NS, numio_barrier_wait(barrier)) == -ETIMEDOUT);
    EXPECT(barrier->_arrived == 0 && !barrier->_waits._first);
    return 0;
}

FIXTURE_EACH(barrier, a_late_arrival_is_taken_back_and_misuse_is_told, .timeout = 30)
{
    struct numio_barrier barrier;
    cr_assert_eq(run(runtime, alone_and_late, &barrier), 0, "line %ld", (long)last_line);
    cr_assert_eq(alone_and_late(&barrier), 0); /* a plain thread as well */
}

/* ---- selections ---------------------------------------------------------------------------- */

struct choice {
    struct numio_barrier barrier;
    struct numio_semaphore semaphore;
};

static int64_t select_one(void *arg)
{
    struct choice *c = arg;
    struct numio_op ops[2];
    numio_op_barrier_wait(&ops[0], &c->barrier);
    numio_op_semaphore_acquire(&ops[1], &c->semaphore, 1);
    int64_t index = numio_select(ops, 2, NUMIO_SELECT_BIASED);
    EXPECT(numio_op_result(&ops[1 - index]) == -ECANCELED);
    EXPECT(numio_op_result(&ops[index]) >= 0);
    return index;
}

static int64_t arrive(void *arg)
{
    return numio_barrier_wait(&((struct choice *)arg)->barrier);
}

static int64_t spawn_and_yield(int64_t (*fn)(void *arg), void *arg, struct numio_join **ret_join)
{
    EXPECT(numio_spawn_co(NULL, fn, arg, NULL, ret_join) == 0);
    return numio_yield_now();
}

static int64_t lose_and_win(void *arg)
{
    struct choice *c = arg;
    struct numio_join *joins[3];
    /* Two of three; one of them, in a selection, has lost when the third comes. */
    EXPECT(spawn_and_yield(select_one, c, &joins[0]) == 0);
    EXPECT(spawn_and_yield(arrive, c, &joins[1]) == 0);
    EXPECT(c->barrier._arrived == 2);
    EXPECT(numio_semaphore_release(&c->semaphore, 1) == 0);
    EXPECT(numio_within(SOON_NS, numio_barrier_wait(&c->barrier)) == -ETIMEDOUT);
    EXPECT(numio_join_await(&joins[0]) == 1);
    EXPECT(c->barrier._arrived == 1 && !numio_join_is_finished(joins[1]));
    /* A selection as one of those that wait, and one as the last. */
    EXPECT(spawn_and_yield(select_one, c, &joins[0]) == 0);
    EXPECT(c->barrier._arrived == 2);
    EXPECT(spawn_and_yield(select_one, c, &joins[2]) == 0);
    for (int i = 0; i < 3; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    EXPECT(c->barrier._arrived == 0 && !c->barrier._waits._first && !c->semaphore._waits._first);
    EXPECT(numio_semaphore_available(&c->semaphore) == 0);
    return 0;
}

Test(barrier, a_lost_selection_is_no_arrival, .timeout = 30)
{
    struct choice c = { NUMIO_BARRIER_INIT(3), NUMIO_SEMAPHORE_INIT(0) };
    run_on_one_worker(lose_and_win, &c);
}

/* Claiming cannot be undone. */
Test(barrier, nobody_is_claimed_for_a_round_that_lacks_somebody)
{
    struct numio_barrier barrier = NUMIO_BARRIER_INIT(3);
    struct nio_choice choices[2] = { { .state = 1 }, { .state = 1 } };
    struct numio_op ops[2], last;
    for (int i = 0; i < 2; i++) {
        numio_op_barrier_wait(&ops[i], &barrier);
        choices[i].ops = &ops[i];
        choices[i].count = choices[i].begun = 1;
        stepped_begin(&ops[i], 1);
        ops[i]._state = NIO_OP_CHOICE;
        ops[i]._prev = (struct numio_op *)&choices[i];
    }
    atomic_init(&choices[1].winner, 7); /* somebody else */
    numio_op_barrier_wait(&last, &barrier);
    stepped_begin(&last, 1);
    cr_assert_eq(stepped_result(&last), STEPPED_WAITS);
    cr_assert_eq(ops[1]._result, -ECANCELED);
    cr_assert(barrier._arrived == 2 && choices[0].winner == 0);
    numio_op_barrier_wait(&ops[1], &barrier);
    stepped_begin(&ops[1], 1);
    cr_assert_eq(stepped_result(&ops[1]), 1);
    cr_assert(stepped_result(&last) == 0 && ops[0]._result == 0 && choices[0].winner == 1);
    cr_assert(barrier._arrived == 0 && !barrier._waits._first);
}

/* ---- futures, shutdown, aborts -------------------------------------------------------------- */

static void prep(struct numio_op *op, void *barrier)
{
    numio_op_barrier_wait(op, barrier);
}

static int64_t meet_futures(void *arg)
{
    struct choice *c = arg;
    struct sync_case s = { .prep = prep, .object = &c->barrier, .waits = &c->barrier._waits, NULL };
    struct numio_join *joins[3];
    int64_t result, leaders = 0;
    EXPECT(sync_spawn_future(&s, true, NULL, &joins[0]) == 0); /* aborted: it has not come */
    while (sync_waiters(&s) == 0)
        EXPECT(numio_yield_now() == 0);
    numio_join_abort(joins[0]);
    EXPECT(numio_join_await(&joins[0]) == -ECANCELED);
    EXPECT(c->barrier._arrived == 0);
    for (int i = 0; i < 3; i++)
        EXPECT(sync_spawn_future(&s, false, NULL, &joins[i]) == 0);
    for (int i = 0; i < 3; i++) {
        EXPECT(numio_join_await_output(&joins[i], &result, sizeof result) == 0);
        leaders += result;
    }
    EXPECT(leaders == 1 && c->barrier._arrived == 0);
    return 0;
}

FIXTURE_EACH(barrier, futures_meet_and_an_aborted_one_has_not_come, .timeout = 30)
{
    struct choice c = { NUMIO_BARRIER_INIT(3), NUMIO_SEMAPHORE_INIT(0) };
    cr_assert_eq(run(runtime, meet_futures, &c), 0, "line %ld", (long)last_line);
}

Test(barrier, waiting_inside_of_a_poll_is_refused, .timeout = 30)
{
    struct numio_barrier barrier = NUMIO_BARRIER_INIT(2);
    struct sync_case c = { .prep = prep, .object = &barrier, .waits = &barrier._waits, NULL };
    struct numio_runtime *runtime = fixture_start(1);
    struct sync_case *pointer = &c;
    struct numio_future future = { .poll = sync_blocking_poll,
                                   .state = &pointer,
                                   .size = sizeof pointer,
                                   .output_size = sizeof(int64_t) };
    struct numio_join *join;
    int64_t result = 0;
    cr_assert_eq(numio_spawn(numio_runtime_handle(runtime), &future, NULL, &join), 0);
    cr_assert_eq(numio_join_await_output(&join, &result, sizeof result), 0);
    cr_assert_eq(result, -EDEADLK);
    cr_assert_eq(barrier._arrived, 0u);
    numio_runtime_destroy(runtime);
}

static void block(void *barrier)
{
    *(struct numio_barrier *)barrier = (struct numio_barrier)NUMIO_BARRIER_INIT(1000);
}

static void give(void *barrier)
{
    ((struct numio_barrier *)barrier)->_parties = 1;
}

static bool is_clean(void *barrier)
{
    return ((struct numio_barrier *)barrier)->_arrived == 0;
}

Test(barrier, at_shutdown_all_waits_end, .timeout = 30)
{
    struct numio_barrier barrier;
    struct sync_case c = { prep, block, give, is_clean, &barrier, &barrier._waits, NULL };
    sync_check_shutdown(&c);
}

static void reset(void *arg)
{
    *(struct numio_barrier *)arg = (struct numio_barrier)NUMIO_BARRIER_INIT(2);
}

static int64_t meet_thrice(void *arg)
{
    for (int i = 0; i < 3; i++) {
        int rc = numio_barrier_wait(arg);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int64_t meet_in_time(void *arg)
{
    for (int i = 0; i < 3; i++) {
        int64_t rc = numio_within(SOON_NS, numio_barrier_wait(arg));
        if (rc < 0)
            return rc == -ETIMEDOUT ? 0 : rc;
    }
    return 0;
}

static int64_t check_empty(void *arg, int64_t result)
{
    struct numio_barrier *barrier = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(barrier->_arrived == 0 && !barrier->_waits._first);
    return 0;
}

Test(barrier, an_abort_at_each_step_takes_the_arrival_back, .timeout = 60)
{
    struct numio_barrier barrier;
    struct abort_case what = { reset, meet_thrice, meet_in_time, check_empty, &barrier };
    cr_assert_geq(abort_each(&what), 2u);
}
