/* SPDX-License-Identifier: MIT */
/* Promises of what is done once: one does it, all others see it done; who fails or is aborted
 * leaves it to the next; misuse is told; and of the cell: a value that is made once; by coroutines,
 * futures, selections and plain threads. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/stepped_wait.h"
#include "tests/steps.h"
#include "tests/sync_cases.h"

#include "runtime/sched/wait_await.h"

enum { TASKS = 8, ROUNDS = 200, SOON_NS = 2000000, RUNNING = 1, DONE = 4 };

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

enum { ACTORS = 8, STEPS = 60000 };

struct actor {
    struct numio_op op;
    enum { AWAY, WAITING, AT_IT, SAW_IT } at;
};

struct model {
    struct numio_once once;
    struct actor actors[ACTORS];
    int queue[ACTORS], queued;
    int owner; /* -1: none */
    bool is_done;
};

static void take_from_queue(struct model *m, int i)
{
    int at = 0;
    while (m->queue[at] != i)
        at++;
    m->queued--;
    for (; at < m->queued; at++)
        m->queue[at] = m->queue[at + 1];
}

static void model_begin(struct model *m, int i)
{
    struct actor *a = &m->actors[i];
    numio_op_once_begin(&a->op, &m->once);
    stepped_begin(&a->op, (uintptr_t)i + 1);
    if (m->is_done) {
        a->at = SAW_IT;
    } else if (m->owner < 0) {
        a->at = AT_IT;
        m->owner = i;
    } else {
        a->at = WAITING;
        m->queue[m->queued++] = i;
    }
}

static void model_end(struct model *m, bool is_done)
{
    struct actor *a = &m->actors[m->owner];
    if (is_done) {
        m->once._owner = nio_who_runs();
        cr_assert_eq(numio_once_end(&m->once, true), 0);
    } else {
        stepped_give_back(&a->op);
    }
    a->at = AWAY;
    m->owner = -1;
    m->is_done = is_done;
    for (; is_done && m->queued; take_from_queue(m, m->queue[0]))
        m->actors[m->queue[0]].at = SAW_IT;
    if (m->queued) {
        m->owner = m->queue[0];
        m->actors[m->owner].at = AT_IT;
        take_from_queue(m, m->owner);
    }
}

static void model_step(struct model *m, struct nio_rng *rng)
{
    int i = (int)nio_rng_below(rng, ACTORS);
    struct actor *a = &m->actors[i];
    if (a->at == WAITING && nio_rng_below(rng, 4) == 0) {
        cr_assert(stepped_leave(&a->op));
        take_from_queue(m, i);
        a->at = AWAY;
    } else if (a->at == AT_IT && nio_rng_below(rng, 2)) {
        numio_op_once_begin(&a->op, &m->once);
        stepped_begin(&a->op, (uintptr_t)i + 1);
        cr_assert_eq(stepped_result(&a->op), -EDEADLK);
        a->op._result = 1;
    } else if (a->at == AT_IT) {
        model_end(m, nio_rng_below(rng, 10) == 0);
    } else if (a->at == AWAY || a->at == SAW_IT) {
        model_begin(m, i);
    }
    if (m->is_done && nio_rng_below(rng, 10) == 0) {
        numio_once_init(&m->once); /* the next */
        m->is_done = false;
    }
}

Test(once, agrees_with_a_naive_model, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(37);
    static struct model m = { .owner = -1 };
    for (int step = 0; step < STEPS; step++) {
        model_step(&m, &rng);
        cr_assert_eq(m.once._state, m.is_done     ? DONE
                                    : m.owner < 0 ? 0
                                    : m.queued    ? RUNNING | 2
                                                  : RUNNING);
        for (int i = 0; i < ACTORS; i++)
            if (m.actors[i].at != AWAY)
                cr_assert_eq(stepped_result(&m.actors[i].op),
                             m.actors[i].at == WAITING ? STEPPED_WAITS : m.actors[i].at == AT_IT);
    }
}

/* ---- everybody ----------------------------------------------------------------------------- */

struct work {
    struct numio_once once;
    uint64_t plain;
    unsigned attempts, failures; /* of which so many fail */
};

struct works {
    struct work works[ROUNDS];
};

static int do_work(void *arg)
{
    struct work *w = arg;
    if (nio_worker_current()) {
        int stop = numio_yield_now();
        if (stop)
            return stop;
    }
    if (w->attempts++ < w->failures)
        return -EIO;
    w->plain++;
    return 7;
}

static int64_t do_all(void *arg)
{
    struct works *all = arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct work *w = &all->works[i];
        int rc;
        while ((rc = numio_once_call(&w->once, do_work, w)) == -EIO) { /* bounded by failures */
        }
        EXPECT(rc == 0 && w->plain == 1 && w->attempts == w->failures + 1);
        EXPECT(numio_once_is_done(&w->once));
    }
    return 0;
}

static void *do_all_in_thread(void *arg)
{
    return (void *)(intptr_t)do_all(arg);
}

static int64_t spawn_all(void *arg)
{
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, do_all, arg, NULL, &joins[i]) == 0);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(once, one_does_it_and_all_others_see_it_done, .timeout = 60)
{
    struct works *all = calloc(1, sizeof *all);
    pthread_t thread;
    void *line;
    cr_assert_not_null(all);
    for (int i = 0; i < ROUNDS; i++)
        all->works[i].failures = (unsigned)i % 4;
    cr_assert_eq(pthread_create(&thread, NULL, do_all_in_thread, all), 0);
    cr_assert_eq(run(runtime, spawn_all, all), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line);
    free(all);
}

struct late {
    struct numio_once once;
    _Atomic uint32_t is_over;
};

/* Comes late, and asks by the long way. */
static void *begin_again(void *arg)
{
    struct late *late = arg;
    while (!fixture_get(&late->is_over)) {
        struct numio_op op;
        numio_op_once_begin(&op, &late->once);
        if (numio_op_await(&op) != 0)
            return arg;
    }
    return NULL;
}

Test(once, what_is_done_stays_done_while_others_come_late, .timeout = 60)
{
    struct late late = { .once = NUMIO_ONCE_INIT };
    pthread_t thread;
    void *failed;
    cr_assert_eq(numio_once_begin(&late.once), 1);
    cr_assert_eq(numio_once_end(&late.once, true), 0);
    cr_assert_eq(pthread_create(&thread, NULL, begin_again, &late), 0);
    uint64_t end_ns = nio_now_ns() + 200000000, misses = 0;
    while (nio_now_ns() < end_ns)
        misses += !numio_once_is_done(&late.once);
    fixture_set(&late.is_over, 1);
    cr_assert_eq(pthread_join(thread, &failed), 0);
    cr_assert_null(failed);
    cr_assert_eq(misses, 0u);
}

/* ---- failing, aborts, misuse ---------------------------------------------------------------- */

struct tried {
    struct numio_once once;
    int calls, next, wrong;
};

struct trier {
    struct tried *tried;
    int index;
};

static int try_it(void *arg)
{
    struct trier *t = arg;
    t->tried->calls++;
    t->tried->wrong += t->tried->next++ != t->index;
    int stop = numio_sleep_ns(t->index < 2 ? 3600000000000 : 1);
    return t->index < 3 && stop == 0 ? -EIO : stop;
}

static int64_t try_once(void *arg)
{
    struct trier *t = arg;
    return numio_once_call(&t->tried->once, try_it, t);
}

static int64_t pass_on(void *arg)
{
    struct tried *tried = arg;
    struct trier triers[TASKS];
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++) {
        triers[i] = (struct trier){ tried, i };
        EXPECT(numio_spawn_co(NULL, try_once, &triers[i], NULL, &joins[i]) == 0);
        EXPECT(numio_yield_now() == 0); /* the first is at it, the others wait */
    }
    for (int i = 0; i < 2; i++) { /* aborted at it */
        numio_join_abort(joins[i]);
        EXPECT(numio_join_await(&joins[i]) == -ECANCELED);
    }
    EXPECT(numio_join_await(&joins[2]) == -EIO); /* failed */
    for (int i = 3; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0); /* done by the fourth */
    EXPECT(tried->calls == 4 && tried->wrong == 0 && numio_once_is_done(&tried->once));
    return 0;
}

Test(once, who_fails_or_is_aborted_leaves_it_to_the_next, .timeout = 30)
{
    struct tried tried = { .once = NUMIO_ONCE_INIT };
    run_on_one_worker(pass_on, &tried);
}

static int call_again(void *arg)
{
    return numio_once_call(arg, call_again, arg);
}

static int64_t end_of_another(void *arg)
{
    return numio_once_end(arg, true);
}

static int64_t misuse(void *arg)
{
    struct numio_once *once = arg;
    struct numio_join *join;
    EXPECT(numio_once_end(once, true) == -EPERM);
    EXPECT(strstr(numio_strerror_detail(), "has not begun"));
    EXPECT(numio_once_call(once, call_again, once) == -EDEADLK);
    EXPECT(strstr(numio_strerror_detail(), "in hand"));
    EXPECT(once->_state == 0); /* it has failed */
    EXPECT(numio_once_begin(once) == 1);
    EXPECT(numio_once_begin(once) == -EDEADLK);
    EXPECT(!numio_once_is_done(once));
    if (nio_worker_current()) {
        EXPECT(numio_spawn_co(NULL, end_of_another, once, NULL, &join) == 0);
        EXPECT(numio_join_await(&join) == -EPERM);
    }
    EXPECT(numio_once_end(once, false) == 0 && once->_state == 0);
    EXPECT(numio_once_begin(once) == 1);
    EXPECT(numio_once_end(once, true) == 0);
    EXPECT(numio_once_end(once, true) == -EPERM);
    EXPECT(numio_once_begin(once) == 0 && numio_once_is_done(once));
    EXPECT(numio_once_call(once, call_again, once) == 0); /* not called */
    numio_once_init(once);
    return 0;
}

FIXTURE_EACH(once, misuse_is_told, .timeout = 30)
{
    struct numio_once once = NUMIO_ONCE_INIT;
    cr_assert_eq(run(runtime, misuse, &once), 0, "line %ld", (long)last_line);
    cr_assert_eq(misuse(&once), 0); /* a plain thread as well */
}

/* ---- as all waits -------------------------------------------------------------------------- */

static void prep(struct numio_op *op, void *once)
{
    numio_op_once_begin(op, once);
}

static void block(void *once)
{
    *(struct numio_once *)once = (struct numio_once){ ._state = RUNNING, ._owner = 1 };
}

/* Whoever is at it fails. */
static void give(void *once)
{
    struct numio_op op;
    numio_op_once_begin(&op, once);
    op._result = 1;
    stepped_give_back(&op);
}

static bool is_clean(void *arg)
{
    struct numio_once *once = arg;
    bool is_at_it = once->_state == RUNNING && once->_owner != 0;
    give(once);
    return is_at_it && once->_state == 0 && once->_owner == 0;
}

static void give_for_good(void *once)
{
    ((struct numio_once *)once)->_owner = nio_who_runs();
    (void)numio_once_end(once, true); /* the check looks at it */
}

static bool is_done(void *once)
{
    return ((struct numio_once *)once)->_state == DONE && numio_once_is_done(once);
}

static struct sync_case case_of(struct numio_once *once, bool is_for_good)
{
    if (is_for_good)
        return (struct sync_case){ prep, block, give_for_good, is_done, once, &once->_waits, NULL };
    return (struct sync_case){ prep, block, give, is_clean, once, &once->_waits, NULL };
}

FIXTURE_EACH(once, a_wait_is_late_selected_polled_or_refused_and_takes_nothing, .timeout = 60)
{
    for (int is_for_good = 0; is_for_good < 2; is_for_good++) {
        struct numio_once once = NUMIO_ONCE_INIT;
        struct sync_case c = case_of(&once, is_for_good);
        sync_check(runtime, &c);
    }
}

Test(once, a_lost_selection_is_passed_over, .timeout = 30)
{
    for (int is_for_good = 0; is_for_good < 2; is_for_good++) {
        struct numio_once once = NUMIO_ONCE_INIT;
        struct sync_case c = case_of(&once, is_for_good);
        sync_check_on_one_worker(&c, sync_lost_steps);
    }
}

Test(once, an_aborted_future_leaves_it_to_the_next, .timeout = 30)
{
    for (int is_for_good = 0; is_for_good < 2; is_for_good++) {
        struct numio_once once = NUMIO_ONCE_INIT;
        struct sync_case c = case_of(&once, is_for_good);
        sync_check_on_one_worker(&c, sync_give_back_steps);
    }
}

Test(once, at_shutdown_all_waits_end, .timeout = 30)
{
    struct numio_once once = NUMIO_ONCE_INIT;
    struct sync_case c = case_of(&once, true);
    sync_check_shutdown(&c);
}

/* ---- aborts at each step --------------------------------------------------------------------- */

static void reset(void *arg)
{
    *(struct work *)arg = (struct work){ .failures = 2 };
}

static int64_t do_in_turns(void *arg)
{
    struct work *w = arg;
    int rc;
    while ((rc = numio_once_call(&w->once, do_work, w)) == -EIO) { /* bounded by failures */
    }
    return rc;
}

static int64_t check_done(void *arg, int64_t result)
{
    struct work *w = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(w->once._state == DONE && w->once._owner == 0 && !w->once._waits._first);
    EXPECT(w->plain == 1 && w->attempts == 3);
    return 0;
}

Test(once, an_abort_at_each_step_leaves_it_to_somebody, .timeout = 60)
{
    struct work w;
    struct abort_case what = { reset, do_in_turns, do_in_turns, check_done, &w };
    cr_assert_geq(abort_each(&what), 3u);
}

/* ---- the cell ------------------------------------------------------------------------------- */

struct shared_cell {
    struct numio_once_cell cell;
    _Atomic uint32_t calls;
    uint64_t value;
    bool fails, makes_null;
};

static int make_value(void *arg, void **ret_value)
{
    struct shared_cell *s = arg;
    /* relaxed: a figure */
    (void)atomic_fetch_add_explicit(&s->calls, 1, memory_order_relaxed);
    if (nio_worker_current()) {
        int stop = numio_yield_now();
        if (stop)
            return stop;
    }
    if (s->fails)
        return -EIO;
    if (numio_once_cell_get(&s->cell) || numio_once_cell_set(&s->cell, s) != -EBUSY)
        return -EFAULT;
    s->value++;
    *ret_value = s->makes_null ? NULL : &s->value;
    return 0;
}

static int64_t get_value(void *arg)
{
    struct shared_cell *s = arg;
    void *value = NULL;
    EXPECT(numio_once_cell_get_or_init(&s->cell, make_value, s, &value) == 0);
    EXPECT(value == &s->value && s->value == 1 && numio_once_cell_get(&s->cell) == value);
    EXPECT(numio_once_cell_set(&s->cell, s) == -EEXIST);
    return 0;
}

static void *get_in_thread(void *arg)
{
    return (void *)(intptr_t)get_value(arg);
}

static int64_t get_values(void *arg)
{
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, get_value, arg, NULL, &joins[i]) == 0);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(once, a_cell_is_filled_once, .timeout = 30)
{
    struct shared_cell s = { .value = 0 };
    pthread_t thread;
    void *line;
    numio_once_cell_init(&s.cell);
    cr_assert_eq(pthread_create(&thread, NULL, get_in_thread, &s), 0);
    cr_assert_eq(run(runtime, get_values, &s), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line);
    cr_assert_eq(fixture_get(&s.calls), 1u);
}

static int64_t fill_cells(void *arg)
{
    struct shared_cell *s = arg;
    void *value = s;
    EXPECT(!numio_once_cell_get(&s->cell));
    s->fails = true;
    EXPECT(numio_once_cell_get_or_init(&s->cell, make_value, s, &value) == -EIO);
    s->fails = false;
    s->makes_null = true;
    EXPECT(numio_once_cell_get_or_init(&s->cell, make_value, s, &value) == -EINVAL);
    EXPECT(value == s && !numio_once_cell_get(&s->cell)); /* untouched */
    EXPECT(numio_once_cell_set(&s->cell, NULL) == -EINVAL);
    EXPECT(numio_once_cell_set(&s->cell, &value) == 0);
    EXPECT(numio_once_cell_set(&s->cell, s) == -EEXIST);
    EXPECT(numio_once_cell_get(&s->cell) == &value);
    EXPECT(numio_once_cell_get_or_init(&s->cell, make_value, s, &value) == 0);
    EXPECT(value == (void *)&value && s->calls == 2);
    return 0;
}

FIXTURE_EACH(once, a_cell_that_could_not_be_filled_is_empty, .timeout = 30)
{
    struct shared_cell s = { .value = 0 }, t = { .value = 0 };
    cr_assert_eq(run(runtime, fill_cells, &s), 0, "line %ld", (long)last_line);
    cr_assert_eq(fill_cells(&t), 0); /* a plain thread as well */
}
