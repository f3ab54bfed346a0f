/* SPDX-License-Identifier: MIT */
/* Promises of the semaphore: never more holders than permits, first come first served whatever the
 * number wanted, closing, forgetting, aborts and deadlines that take nothing. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/stepped_wait.h"
#include "tests/steps.h"
#include "tests/sync_cases.h"

#include <pthread.h>

#include "runtime/sched/worker.h"

enum { TASKS = 12, ROUNDS = 300, PERMITS = 5, SOON_NS = 2000000 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

/* ---- the bound ----------------------------------------------------------------------------- */

struct bounded {
    struct numio_semaphore semaphore;
    _Atomic uint64_t taken, most;
    _Atomic uint64_t seed;
};

/* A naive model beside it: what all have at the moment. */
static void note(struct bounded *b, uint64_t taken)
{
    /* relaxed, like the rest of the model: a figure */
    uint64_t now = atomic_fetch_add_explicit(&b->taken, taken, memory_order_relaxed) + taken;
    uint64_t most = atomic_load_explicit(&b->most, memory_order_relaxed); /* relaxed: as above */
    /* relaxed: as above */
    while (now > most && !atomic_compare_exchange_weak_explicit(
                             &b->most, &most, now, memory_order_relaxed, memory_order_relaxed))
        ;
}

static int64_t take_some(void *arg)
{
    struct bounded *b = arg;
    /* relaxed: any number will do */
    uint64_t seed = atomic_fetch_add_explicit(&b->seed, 1, memory_order_relaxed);
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t wanted = nio_rng_below(&rng, PERMITS + 1);
        EXPECT(numio_semaphore_acquire(&b->semaphore, wanted) == 0);
        note(b, wanted);
        if (nio_worker_current() && nio_rng_below(&rng, 3) == 0)
            EXPECT(numio_yield_now() == 0);
        /* relaxed: as above */
        (void)atomic_fetch_sub_explicit(&b->taken, wanted, memory_order_relaxed);
        EXPECT(numio_semaphore_release(&b->semaphore, wanted) == 0);
    }
    return 0;
}

static int64_t spawn_takers(void *arg)
{
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, take_some, arg, NULL, &joins[i]) == 0);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

static void *take_in_thread(void *arg)
{
    return (void *)(intptr_t)take_some(arg);
}

FIXTURE_EACH(semaphore, has_never_more_holders_than_permits, .timeout = 60)
{
    struct bounded b = { .semaphore = NUMIO_SEMAPHORE_INIT(PERMITS), .seed = seeded_seed(7) };
    pthread_t thread;
    void *line;
    cr_assert_eq(pthread_create(&thread, NULL, take_in_thread, &b), 0);
    cr_assert_eq(run(runtime, spawn_takers, &b), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line);
    cr_assert_leq(b.most, PERMITS);
    cr_assert_eq(numio_semaphore_available(&b.semaphore), PERMITS);
    cr_assert_null(b.semaphore._waits._first);
}

/* ---- order --------------------------------------------------------------------------------- */

struct order {
    struct numio_semaphore semaphore;
    int next, wrong;
};

struct place {
    struct order *order;
    int index;
    uint64_t wanted;
};

static int64_t take_turn(void *arg)
{
    struct place *place = arg;
    EXPECT(numio_semaphore_acquire(&place->order->semaphore, place->wanted) == 0);
    place->order->wrong += place->order->next++ != place->index;
    return 0;
}

/* One that wants many stands in front of those that want few. */
static int64_t queue_up(void *arg)
{
    struct order *order = arg;
    struct place places[TASKS];
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++) {
        places[i] = (struct place){ order, i, i % 4 == 0 ? 10 : 1 };
        EXPECT(numio_spawn_co(NULL, take_turn, &places[i], NULL, &joins[i]) == 0);
        EXPECT(numio_yield_now() == 0);
    }
    EXPECT(numio_semaphore_release(&order->semaphore, 9) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(order->next == 0 && numio_semaphore_available(&order->semaphore) == 9);
    EXPECT(numio_semaphore_try_acquire(&order->semaphore, 1) == -EAGAIN); /* others wait */
    for (int i = 0; i < 40; i++) {
        EXPECT(numio_semaphore_release(&order->semaphore, 1) == 0);
        EXPECT(numio_yield_now() == 0);
    }
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    EXPECT(numio_semaphore_available(&order->semaphore) == 49 - 3 * 10 - (TASKS - 3));
    return 0;
}

Test(semaphore, nobody_is_overtaken_whatever_he_wants, .timeout = 30)
{
    struct order order = { .semaphore = NUMIO_SEMAPHORE_INIT(0) };
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, queue_up, &order), 0, "line %ld", (long)last_line);
    cr_assert_eq(order.wrong, 0);
    numio_runtime_destroy(runtime);
}

/* Who gives up lets those behind it have what is there. */
static int64_t give_up(void *arg)
{
    struct order *order = arg;
    struct place places[2] = { { order, -1, 10 }, { order, 0, 1 } };
    struct numio_join *joins[2];
    for (int i = 0; i < 2; i++) {
        EXPECT(numio_spawn_co(NULL, take_turn, &places[i], NULL, &joins[i]) == 0);
        EXPECT(numio_yield_now() == 0);
    }
    EXPECT(numio_semaphore_release(&order->semaphore, 1) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(order->next == 0);
    numio_join_abort(joins[0]);
    EXPECT(numio_join_await(&joins[1]) == 0);
    EXPECT(numio_join_await(&joins[0]) > 0); /* the line of its acquire, which was cancelled */
    return 0;
}

Test(semaphore, who_gives_up_makes_way, .timeout = 30)
{
    struct order order = { .semaphore = NUMIO_SEMAPHORE_INIT(0) };
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, give_up, &order), 0, "line %ld", (long)last_line);
    cr_assert_eq(order.wrong, 0);
    numio_runtime_destroy(runtime);
}

/* ---- closing, limits ----------------------------------------------------------------------- */

static int64_t acquire_two(void *arg)
{
    return numio_semaphore_acquire(arg, 2);
}

static int64_t close_it(void *arg)
{
    struct numio_semaphore *semaphore = arg;
    struct numio_join *joins[3];
    for (int i = 0; i < 3; i++) {
        EXPECT(numio_spawn_co(NULL, acquire_two, semaphore, NULL, &joins[i]) == 0);
        EXPECT(numio_yield_now() == 0);
    }
    numio_semaphore_close(semaphore);
    numio_semaphore_close(semaphore);
    for (int i = 0; i < 3; i++)
        EXPECT(numio_join_await(&joins[i]) == -EPIPE);
    EXPECT(numio_semaphore_acquire(semaphore, 1) == -EPIPE);
    EXPECT(numio_semaphore_try_acquire(semaphore, 1) == -EPIPE);
    EXPECT(numio_semaphore_release(semaphore, 3) == 0);
    EXPECT(numio_semaphore_available(semaphore) == 4);
    return 0;
}

FIXTURE_EACH(semaphore, closing_ends_all_waits, .timeout = 30)
{
    struct numio_semaphore semaphore = NUMIO_SEMAPHORE_INIT(1);
    cr_assert_eq(run(runtime, close_it, &semaphore), 0, "line %ld", (long)last_line);
}

Test(semaphore, refuses_more_than_it_can_count)
{
    struct numio_semaphore semaphore;
    cr_assert_eq(numio_semaphore_init(&semaphore, NUMIO_SEMAPHORE_MAX + 1), -EINVAL);
    cr_assert_eq(numio_semaphore_init(&semaphore, NUMIO_SEMAPHORE_MAX), 0);
    cr_assert_eq(numio_semaphore_release(&semaphore, 1), -EOVERFLOW);
    cr_assert_eq(numio_semaphore_acquire(&semaphore, NUMIO_SEMAPHORE_MAX + 1), -EINVAL);
    cr_assert_eq(numio_semaphore_try_acquire(&semaphore, UINT64_MAX), -EINVAL);
    cr_assert_eq(numio_semaphore_forget(&semaphore, 5), 5u);
    cr_assert_eq(numio_semaphore_available(&semaphore), NUMIO_SEMAPHORE_MAX - 5);
    cr_assert_eq(numio_semaphore_forget(&semaphore, UINT64_MAX), NUMIO_SEMAPHORE_MAX - 5);
    cr_assert_eq(numio_semaphore_try_acquire(&semaphore, 1), -EAGAIN);
}

/* ---- deadlines and aborts ------------------------------------------------------------------ */

static int64_t acquire_in_time(void *arg)
{
    EXPECT(numio_within(SOON_NS, numio_semaphore_acquire(arg, 3)) == -ETIMEDOUT);
    EXPECT(numio_semaphore_available(arg) == 2);
    EXPECT(numio_semaphore_acquire(arg, 2) == 0); /* nobody waits in front of it */
    EXPECT(numio_semaphore_release(arg, 2) == 0);
    return 0;
}

FIXTURE_EACH(semaphore, a_wait_ends_in_time_and_takes_nothing, .timeout = 30)
{
    struct numio_semaphore semaphore = NUMIO_SEMAPHORE_INIT(2);
    cr_assert_eq(run(runtime, acquire_in_time, &semaphore), 0, "line %ld", (long)last_line);
    cr_assert_eq(acquire_in_time(&semaphore), 0); /* a plain thread as well */
}

static void reset(void *arg)
{
    *(struct numio_semaphore *)arg = (struct numio_semaphore)NUMIO_SEMAPHORE_INIT(2);
}

static int64_t acquire_repeatedly(void *arg)
{
    for (uint64_t i = 1; i <= 4; i++) {
        uint64_t wanted = 1 + i % 2;
        int rc = numio_semaphore_acquire(arg, wanted);
        if (rc)
            return rc;
        int stop = numio_yield_now();
        (void)numio_semaphore_release(arg, wanted); /* looked at by the check */
        if (stop)
            return stop;
    }
    return 0;
}

static int64_t check_all_back(void *arg, int64_t result)
{
    struct numio_semaphore *semaphore = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(semaphore->_state == 2 << 2 && !semaphore->_waits._first);
    return 0;
}

Test(semaphore, an_abort_at_each_step_loses_no_permit, .timeout = 60)
{
    struct numio_semaphore semaphore;
    struct abort_case what = { reset, acquire_repeatedly, acquire_repeatedly, check_all_back,
                               &semaphore };
    cr_assert_geq(abort_each(&what), 4u);
}

/* ---- as all waits -------------------------------------------------------------------------- */

static void prep_acquire(struct numio_op *op, void *semaphore)
{
    numio_op_semaphore_acquire(op, semaphore, 1);
}

static void leave_none(void *semaphore)
{
    while (numio_semaphore_try_acquire(semaphore, 1) == 0) { /* bounded by its permits */
    }
}

static void give_one(void *semaphore)
{
    cr_assert_eq(numio_semaphore_release(semaphore, 1), 0);
}

static bool was_acquired(void *arg)
{
    struct numio_semaphore *semaphore = arg;
    return semaphore->_state == 0 && !semaphore->_waits._first;
}

static struct sync_case case_of(struct numio_semaphore *semaphore)
{
    return (struct sync_case){ prep_acquire, leave_none,         give_one, was_acquired,
                               semaphore,    &semaphore->_waits, NULL };
}

FIXTURE_EACH(semaphore, a_wait_is_late_selected_polled_or_refused_and_takes_nothing, .timeout = 60)
{
    struct numio_semaphore semaphore = NUMIO_SEMAPHORE_INIT(0);
    struct sync_case c = case_of(&semaphore);
    sync_check(runtime, &c);
}

Test(semaphore, a_lost_selection_is_passed_over, .timeout = 30)
{
    struct numio_semaphore semaphore = NUMIO_SEMAPHORE_INIT(0);
    struct sync_case c = case_of(&semaphore);
    sync_check_on_one_worker(&c, sync_lost_steps);
}

Test(semaphore, an_aborted_future_gives_back_what_it_has_got, .timeout = 30)
{
    struct numio_semaphore semaphore = NUMIO_SEMAPHORE_INIT(0);
    struct sync_case c = case_of(&semaphore);
    sync_check_on_one_worker(&c, sync_give_back_steps);
}

Test(semaphore, at_shutdown_all_waits_end, .timeout = 30)
{
    struct numio_semaphore semaphore = NUMIO_SEMAPHORE_INIT(0);
    struct sync_case c = case_of(&semaphore);
    sync_check_shutdown(&c);
}

/* ---- the naive model ----------------------------------------------------------------------- */

enum { ACTORS = 8, STEPS = 60000, PERMITS_MAX = 12, WANTED_MAX = 5 };

struct model {
    struct numio_semaphore semaphore;
    struct numio_op ops[ACTORS];
    unsigned wanted[ACTORS], permits;
    bool waits[ACTORS];
    int queue[ACTORS], queued;
};

static void model_take_out(struct model *m, int at)
{
    m->waits[m->queue[at]] = false;
    m->queued--;
    for (int k = at; k < m->queued; k++)
        m->queue[k] = m->queue[k + 1];
}

/* First come, first served, whatever he wants. */
static void model_serve(struct model *m)
{
    while (m->queued && m->wanted[m->queue[0]] <= m->permits) {
        m->permits -= m->wanted[m->queue[0]];
        model_take_out(m, 0);
    }
}

static void model_acquire(struct model *m, int i, unsigned wanted)
{
    numio_op_semaphore_acquire(&m->ops[i], &m->semaphore, wanted);
    stepped_begin(&m->ops[i], (uintptr_t)i + 1);
    m->wanted[i] = wanted;
    m->waits[i] = true;
    m->queue[m->queued++] = i;
    model_serve(m);
}

static void model_give_up(struct model *m, int i)
{
    int at = 0;
    cr_assert(stepped_leave(&m->ops[i]));
    while (m->queue[at] != i)
        at++;
    model_take_out(m, at);
    model_serve(m);
}

static void model_release(struct model *m, unsigned permits)
{
    cr_assert_eq(numio_semaphore_release(&m->semaphore, permits), 0);
    m->permits += permits;
    model_serve(m);
}

static void model_try(struct model *m, unsigned wanted)
{
    bool may = m->queued == 0 && m->permits >= wanted;
    cr_assert_eq(numio_semaphore_try_acquire(&m->semaphore, wanted), may ? 0 : -EAGAIN);
    m->permits -= may ? wanted : 0;
}

static void compare(const struct model *m)
{
    cr_assert_eq(numio_semaphore_available(&m->semaphore), m->permits);
    for (int i = 0; i < ACTORS; i++)
        if (m->wanted[i] != 0) /* or it has never begun */
            cr_assert(m->waits[i] == (stepped_result(&m->ops[i]) == STEPPED_WAITS));
}

Test(semaphore, agrees_with_a_naive_model, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(13);
    static struct model m;
    for (int step = 0; step < STEPS; step++) {
        int i = (int)nio_rng_below(&rng, ACTORS);
        unsigned count = 1 + nio_rng_below(&rng, WANTED_MAX);
        if (nio_rng_below(&rng, 8) == 0)
            model_try(&m, count);
        else if (m.waits[i] && nio_rng_below(&rng, 4) == 0)
            model_give_up(&m, i);
        else if (m.waits[i] && m.permits + count <= PERMITS_MAX)
            model_release(&m, count);
        else if (!m.waits[i])
            model_acquire(&m, i, count);
        compare(&m);
    }
    numio_semaphore_close(&m.semaphore);
    for (int k = 0; k < m.queued; k++)
        cr_assert_eq(stepped_result(&m.ops[m.queue[k]]), -EPIPE);
}
