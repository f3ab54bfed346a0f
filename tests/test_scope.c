/* SPDX-License-Identifier: MIT */
/* Promises of scopes: a close waits for every child, also of an aborted parent; the first error
 * aborts the rest, or not; deadlines go on to children; nothing is left; misuse is told.  And of
 * races. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

enum { CHILDREN = 20, MANY = 3000, SOON_NS = 2000000 };
static const uint64_t late_ns = 3600000000000ull;

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

/* ---- waiting for all ----------------------------------------------------------------------- */

struct child {
    unsigned yields, stops;
    int64_t result;
    bool has_ended; /* read after the close, which orders it */
};

static int64_t run_child(void *arg)
{
    struct child *child = arg;
    for (unsigned i = 0; i < child->yields; i++)
        child->stops += numio_yield_now() < 0; /* an abort is not heeded */
    child->has_ended = true;
    return child->result;
}

static enum numio_poll poll_child(void *state, struct numio_context *cx)
{
    struct child *child = *(struct child **)state;
    if (child->yields-- > 0) {
        numio_context_yield(cx);
        return NUMIO_PENDING;
    }
    child->has_ended = true;
    return NUMIO_READY;
}

static int64_t wait_for_all(void *arg)
{
    (void)arg;
    struct child children[CHILDREN] = { 0 };
    struct numio_scope scope;
    EXPECT(numio_scope_open(&scope, 0) == 0);
    for (unsigned i = 0; i < CHILDREN; i++) {
        struct child *child = &children[i];
        struct numio_future future = { .poll = poll_child, .state = &child, .size = sizeof child };
        child->yields = i % 7;
        child->result = i;
        EXPECT((i % 3 == 0 ? numio_scope_spawn(&scope, &future, NULL)
                           : numio_scope_spawn_co(&scope, run_child, child, NULL)) == 0);
    }
    EXPECT(numio_scope_live(&scope) <= CHILDREN);
    EXPECT(numio_scope_close(&scope) == 0);
    for (unsigned i = 0; i < CHILDREN; i++)
        EXPECT(children[i].has_ended);
    EXPECT(numio_scope_open(&scope, 0) == 0);
    EXPECT(numio_scope_close(&scope) == 0); /* without children, and the same once more */
    return 0;
}

FIXTURE_EACH(scope, its_close_waits_for_every_child, .timeout = 60)
{
    for (int i = 0; i < 50; i++)
        cr_assert_eq(run(runtime, wait_for_all, NULL), 0, "line %ld", (long)last_line);
}

/* A tree of scopes in random shapes; a naive model counts what must have ended. */
struct tree {
    struct nio_rng rng;
    unsigned depth;
    uint64_t *total; /* of all below, added up on the way back */
};

static int64_t grow(void *arg)
{
    struct tree *tree = arg;
    struct tree children[5];
    uint64_t totals[5] = { 0 }, expected = 1;
    unsigned count = tree->depth ? nio_rng_below(&tree->rng, 6) : 0;
    struct numio_scope scope;
    EXPECT(numio_scope_open(&scope, nio_rng_below(&tree->rng, 2)) == 0);
    for (unsigned i = 0; i < count; i++) {
        uint64_t seed = nio_rng_next(&tree->rng);
        children[i] = (struct tree){ .depth = tree->depth - 1, .total = &totals[i] };
        nio_rng_init(&children[i].rng, &seed);
        EXPECT(numio_scope_spawn_co(&scope, grow, &children[i], NULL) == 0);
        if (nio_rng_below(&tree->rng, 3) == 0)
            EXPECT(numio_yield_now() == 0);
    }
    EXPECT(numio_scope_close(&scope) == 0);
    for (unsigned i = 0; i < count; i++)
        expected += totals[i];
    *tree->total = expected;
    return 0;
}

/* The same numbers are drawn in the same order without tasks. */
static uint64_t count_tree(struct nio_rng *rng, unsigned depth)
{
    uint64_t total = 1;
    unsigned count = depth ? nio_rng_below(rng, 6) : 0;
    (void)nio_rng_below(rng, 2);
    for (unsigned i = 0; i < count; i++) {
        uint64_t seed = nio_rng_next(rng);
        struct nio_rng child;
        nio_rng_init(&child, &seed);
        total += count_tree(&child, depth - 1);
        (void)nio_rng_below(rng, 3);
    }
    return total;
}

FIXTURE_EACH(scope, a_random_tree_of_scopes_agrees_with_a_count, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(4711);
    for (int i = 0; i < 30; i++) {
        uint64_t total = 0, seed = nio_rng_next(&rng), same = seed;
        struct tree tree = { .depth = 5, .total = &total };
        struct nio_rng model;
        nio_rng_init(&tree.rng, &seed);
        nio_rng_init(&model, &same);
        cr_assert_eq(run(runtime, grow, &tree), 0, "line %ld", (long)last_line);
        cr_assert_eq(total, count_tree(&model, 5));
    }
}

static int64_t return_zero(void *arg)
{
    (void)arg;
    return 0;
}

static int64_t spawn_many(void *arg)
{
    struct numio_handle *handle = arg;
    struct numio_scope scope;
    uint64_t before = numio_live_tasks(handle), most = 0;
    EXPECT(numio_scope_open(&scope, 0) == 0);
    for (unsigned i = 0; i < MANY; i++) {
        EXPECT(numio_scope_spawn_co(&scope, return_zero, NULL, NULL) == 0);
        EXPECT(numio_yield_now() == 0);
        most = scope._listed > most ? scope._listed : most;
    }
    EXPECT(most <= 256); /* what has ended is given back on the way */
    EXPECT(numio_scope_close(&scope) == 0);
    EXPECT(numio_live_tasks(handle) == before);
    return 0;
}

Test(scope, what_has_ended_is_given_back_before_the_close, .timeout = 60)
{
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, spawn_many, numio_runtime_handle(runtime)), 0, "line %ld",
                 (long)last_line);
    numio_runtime_destroy(runtime);
}

static int64_t spawn_some(void *arg)
{
    struct numio_scope scope;
    EXPECT(numio_scope_open(&scope, 0) == 0);
    for (unsigned i = 0; i < CHILDREN; i++)
        EXPECT(numio_scope_spawn_co(&scope, return_zero, arg, NULL) == 0);
    return numio_scope_close(&scope);
}

/* With one worker, nobody can take a child away. */
Test(scope, children_that_nobody_takes_run_inside_of_the_close, .timeout = 30)
{
    struct numio_worker_metrics metrics = { .size = sizeof metrics };
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, spawn_some, NULL), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_worker_metrics(numio_runtime_handle(runtime), 0, &metrics), 0);
    cr_assert_eq(metrics.polls, 1u + CHILDREN); /* the parent has not suspended */
    numio_runtime_destroy(runtime);
}

/* ---- errors -------------------------------------------------------------------------------- */

static int64_t sleep_long(void *arg)
{
    (void)arg;
    return numio_sleep_ns(late_ns);
}

static int64_t fail_soon(void *arg)
{
    for (int i = 0; i < 3; i++)
        if (numio_yield_now() < 0)
            return -ECANCELED;
    return (int64_t)(intptr_t)arg;
}

static enum numio_poll never(void *state, struct numio_context *cx)
{
    (void)state;
    (void)cx;
    return NUMIO_PENDING;
}

static int64_t first_error(void *arg)
{
    (void)arg;
    struct numio_future future = { .poll = never };
    struct numio_scope scope, outer;
    EXPECT(numio_scope_open(&outer, 0) == 0);
    EXPECT(numio_scope_open(&scope, 0) == 0);
    EXPECT(numio_scope_spawn_co(&scope, sleep_long, NULL, NULL) == 0);
    EXPECT(numio_scope_spawn(&scope, &future, NULL) == 0);
    EXPECT(numio_scope_spawn_co(&scope, fail_soon, (void *)(intptr_t)-EIO, NULL) == 0);
    EXPECT(numio_scope_close(&scope) == -EIO);
    EXPECT(numio_scope_spawn_co(&outer, return_zero, NULL, NULL) == 0); /* none of its business */
    EXPECT(numio_scope_close(&outer) == 0);
    return 0;
}

FIXTURE_EACH(scope, the_first_error_aborts_the_rest_and_is_returned, .timeout = 60)
{
    for (int i = 0; i < 50; i++)
        cr_assert_eq(run(runtime, first_error, NULL), 0, "line %ld", (long)last_line);
}

/* The parent waits for something else while the child fails. */
static int64_t error_while_elsewhere(void *arg)
{
    (void)arg;
    struct numio_scope scope;
    EXPECT(numio_scope_open(&scope, 0) == 0);
    EXPECT(numio_scope_spawn_co(&scope, sleep_long, NULL, NULL) == 0);
    EXPECT(numio_scope_spawn_co(&scope, fail_soon, (void *)(intptr_t)-EIO, NULL) == 0);
    for (int i = 0; numio_scope_live(&scope) > 0; i++) { /* without a close */
        EXPECT(i < 5000);
        EXPECT(numio_sleep_ns(SOON_NS) == 0); /* the parent's own wait is not disturbed */
    }
    EXPECT(numio_scope_spawn_co(&scope, return_zero, NULL, NULL) == -ECANCELED);
    EXPECT(numio_scope_close(&scope) == -EIO);
    return 0;
}

FIXTURE_EACH(scope, an_error_aborts_the_rest_while_the_parent_waits_elsewhere, .timeout = 60)
{
    cr_assert_eq(run(runtime, error_while_elsewhere, NULL), 0, "line %ld", (long)last_line);
}

static int64_t keep_going(void *arg)
{
    (void)arg;
    struct child slow = { .yields = 50 };
    struct numio_scope scope;
    EXPECT(numio_scope_open(&scope, NUMIO_SCOPE_KEEP_GOING) == 0);
    EXPECT(numio_scope_spawn_co(&scope, fail_soon, (void *)(intptr_t)-EIO, NULL) == 0);
    EXPECT(numio_yield_now() == 0 && numio_yield_now() == 0);
    EXPECT(numio_scope_spawn_co(&scope, run_child, &slow, NULL) == 0);
    EXPECT(numio_scope_close(&scope) == -EIO);
    EXPECT(slow.has_ended);
    return 0;
}

Test(scope, one_that_keeps_going_lets_the_others_end_by_themselves, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(2);
    cr_assert_eq(run(runtime, keep_going, NULL), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

static int64_t abort_children(void *arg)
{
    (void)arg;
    struct numio_scope scope;
    EXPECT(numio_scope_open(&scope, 0) == 0);
    for (int i = 0; i < CHILDREN; i++)
        EXPECT(numio_scope_spawn_co(&scope, sleep_long, NULL, NULL) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_scope_abort(&scope) == 0);
    EXPECT(numio_scope_spawn_co(&scope, return_zero, NULL, NULL) == -ECANCELED);
    EXPECT(numio_scope_close(&scope) == -ECANCELED);
    return 0;
}

FIXTURE_EACH(scope, its_owner_may_abort_the_children, .timeout = 30)
{
    cr_assert_eq(run(runtime, abort_children, NULL), 0, "line %ld", (long)last_line);
}

/* ---- aborts and deadlines of the parent ---------------------------------------------------- */

struct aborted {
    int running, stops; /* one worker */
    bool was_closed;
};

static int64_t run_counted(void *arg)
{
    struct aborted *a = arg;
    a->running++;
    int64_t result = numio_sleep_ns(SOON_NS);
    for (int i = 0; i < 3; i++)
        a->stops += numio_yield_now() < 0; /* takes its time to end */
    a->running--;
    return result;
}

static void reset(void *arg)
{
    *(struct aborted *)arg = (struct aborted){ 0 };
}

static int64_t parent(void *arg)
{
    struct aborted *a = arg;
    struct numio_scope scope;
    int64_t rc = 0;
    EXPECT(numio_scope_open(&scope, 0) == 0);
    for (int i = 0; i < 3 && rc == 0; i++) {
        rc = numio_scope_spawn_co(&scope, run_counted, a, NULL);
        if (rc == 0)
            rc = numio_yield_now();
    }
    int64_t error = numio_scope_close(&scope);
    a->was_closed = a->running == 0;
    return rc < 0 ? rc : error;
}

static int64_t check_closed(void *arg, int64_t result)
{
    struct aborted *a = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(a->running == 0);
    EXPECT(a->was_closed || result == -ECANCELED);
    return 0;
}

Test(scope, an_abort_of_the_parent_at_each_step_ends_its_children_first, .timeout = 60)
{
    struct aborted a;
    struct abort_case what = { reset, parent, NULL, check_closed, &a };
    cr_assert_geq(abort_each(&what), 4u);
}

static int64_t late_child(void *arg)
{
    int64_t *result = arg;
    *result = numio_sleep_ns(late_ns);
    EXPECT(numio_yield_now() == -ETIMEDOUT); /* it goes on holding */
    return *result;
}

static int64_t with_deadline(void *arg)
{
    (void)arg;
    struct numio_future future = { .poll = never };
    struct numio_deadline deadline;
    struct numio_scope scope;
    int64_t results[CHILDREN] = { 0 };
    EXPECT(numio_deadline_push(&deadline, SOON_NS) == 0);
    EXPECT(numio_scope_open(&scope, NUMIO_SCOPE_KEEP_GOING) == 0);
    for (int i = 0; i < CHILDREN; i++)
        EXPECT(numio_scope_spawn_co(&scope, late_child, &results[i], NULL) == 0);
    EXPECT(numio_scope_spawn(&scope, &future, NULL) == 0); /* is aborted then */
    int64_t error = numio_scope_close(&scope);
    EXPECT(error == -ETIMEDOUT || error == -ECANCELED);
    for (int i = 0; i < CHILDREN; i++)
        EXPECT(results[i] == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    return 0;
}

FIXTURE_EACH(scope, a_deadline_goes_on_to_the_children, .timeout = 30)
{
    for (int i = 0; i < 20; i++)
        cr_assert_eq(run(runtime, with_deadline, NULL), 0, "line %ld", (long)last_line);
}

static int64_t sleep_past(void *arg)
{
    (void)arg;
    EXPECT(numio_deadline_left() == INT64_MAX);
    return numio_sleep_ns(3 * SOON_NS);
}

static int64_t without_deadline(void *arg)
{
    (void)arg;
    struct numio_deadline deadline;
    struct numio_scope scope;
    EXPECT(numio_deadline_push(&deadline, SOON_NS) == 0);
    EXPECT(numio_scope_open(&scope, NUMIO_SCOPE_NO_DEADLINE) == 0);
    EXPECT(numio_scope_spawn_co(&scope, sleep_past, NULL, NULL) == 0);
    EXPECT(numio_scope_close(&scope) == 0);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    return 0;
}

FIXTURE_EACH(scope, a_scope_may_keep_the_deadline_from_its_children, .timeout = 30)
{
    cr_assert_eq(run(runtime, without_deadline, NULL), 0, "line %ld", (long)last_line);
}

struct late_then_aborted {
    _Atomic uint32_t is_late;
};

static int64_t close_late(void *arg)
{
    struct late_then_aborted *l = arg;
    struct numio_deadline deadline;
    struct numio_scope scope;
    struct numio_future future = { .poll = never };
    EXPECT(numio_deadline_push(&deadline, SOON_NS) == 0);
    EXPECT(numio_scope_open(&scope, NUMIO_SCOPE_NO_DEADLINE | NUMIO_SCOPE_KEEP_GOING) == 0);
    EXPECT(numio_scope_spawn_co(&scope, sleep_long, NULL, NULL) == 0);
    EXPECT(numio_scope_spawn(&scope, &future, NULL) == 0);
    EXPECT(numio_sleep_ns(late_ns) == -ETIMEDOUT);
    fixture_set(&l->is_late, 1);
    int64_t error = numio_scope_close(&scope); /* late from the start, and then aborted */
    (void)numio_deadline_pop(&deadline);       /* it has passed */
    return error;
}

FIXTURE_EACH(scope, an_abort_reaches_the_children_of_a_close_that_is_late, .timeout = 30)
{
    struct late_then_aborted l = { 0 };
    struct numio_join *join;
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), close_late, &l, NULL, &join), 0);
    cr_assert(fixture_wait(&l.is_late, 1));
    numio_join_abort(join);
    cr_assert_eq(numio_join_wait(&join, -1), -ECANCELED);
}

/* ---- misuse, shutdown ---------------------------------------------------------------------- */

static int64_t spawn_into_parents(void *arg)
{
    struct numio_scope *scope = arg, mine;
    EXPECT(numio_scope_spawn_co(scope, return_zero, NULL, NULL) == -EPERM);
    EXPECT(strstr(numio_strerror_detail(), "another task"));
    EXPECT(numio_scope_abort(scope) == -EPERM);
    EXPECT(numio_scope_close(scope) == -EINVAL);
    EXPECT(numio_scope_open(&mine, 4) == -EINVAL);
    return 0;
}

static int64_t misuse(void *arg)
{
    (void)arg;
    struct numio_scope outer, inner;
    EXPECT(numio_scope_open(&outer, 0) == 0);
    EXPECT(numio_scope_spawn_co(&outer, spawn_into_parents, &outer, NULL) == 0);
    EXPECT(numio_scope_spawn_co(&outer, NULL, NULL, NULL) == -EINVAL);
    EXPECT(numio_scope_open(&inner, 0) == 0);
    EXPECT(numio_scope_close(&outer) == -EINVAL); /* not the innermost */
    EXPECT(numio_scope_close(&inner) == 0);
    EXPECT(numio_scope_close(&outer) == 0);
    EXPECT(numio_scope_close(&outer) == -EINVAL);
    EXPECT(numio_scope_spawn_co(&outer, return_zero, NULL, NULL) == -EPERM);
    return 0;
}

FIXTURE_EACH(scope, misuse_is_told, .timeout = 30)
{
    struct numio_scope scope = { 0 };
    cr_assert_eq(run(runtime, misuse, NULL), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_scope_open(&scope, 0), -EINVAL); /* a plain thread */
    cr_assert_eq(numio_scope_spawn_co(&scope, return_zero, NULL, NULL), -EPERM);
}

static int64_t leave_open(void *arg)
{
    struct numio_scope scope;
    (void)arg;
    return numio_scope_open(&scope, 0);
}

static int leave_a_scope_open(void)
{
    struct numio_config config;
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0, "config");
    config.workers = 1;
    return (int)numio_main(&config, leave_open, NULL);
}

Test(scope, a_coroutine_that_leaves_one_open_ends_the_process, .timeout = 30)
{
    static struct fixture_ending ending;
    fixture_in_child(leave_a_scope_open, &ending);
    cr_assert(WIFSIGNALED(ending.status) && WTERMSIG(ending.status) == SIGABRT);
    cr_assert(strstr(ending.output, "numio_scope_close"), "%s", ending.output);
}

struct closing {
    _Atomic uint32_t waits;
    int64_t late_spawn, error;
    unsigned ended;
};

static int64_t parent_of_sleepers(void *arg)
{
    struct closing *c = arg;
    struct numio_scope scope;
    EXPECT(numio_scope_open(&scope, 0) == 0);
    for (int i = 0; i < CHILDREN; i++)
        EXPECT(numio_scope_spawn_co(&scope, sleep_long, NULL, NULL) == 0);
    fixture_set(&c->waits, 1);
    c->error = numio_scope_close(&scope);
    return c->error;
}

FIXTURE_EACH(scope, a_shutdown_ends_children_and_parent, .timeout = 30)
{
    struct closing c = { 0 };
    struct numio_join *join;
    size_t left = 1;
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), parent_of_sleepers, &c, NULL, &join),
                 0);
    cr_assert(fixture_wait(&c.waits, 1));
    cr_assert_eq(numio_runtime_shutdown(runtime, 10000000000, NULL, 0, &left), 0);
    cr_assert_eq(numio_join_wait(&join, -1), -ECANCELED);
    cr_assert_eq(c.error, -ECANCELED);
}

static int64_t spawn_during_shutdown(void *arg)
{
    struct closing *c = arg;
    struct numio_scope scope;
    EXPECT(numio_scope_open(&scope, 0) == 0);
    fixture_set(&c->waits, 1);
    while (numio_sleep_ns(late_ns) == 0) { /* until the shutdown aborts it */
    }
    for (int i = 0; i < 10000; i++) { /* the abort comes a moment before the runtime closes */
        c->late_spawn = numio_scope_spawn_co(&scope, return_zero, NULL, NULL);
        if (c->late_spawn != -ECANCELED)
            break;
        (void)usleep(1000); /* a moment */
    }
    return numio_scope_close(&scope);
}

FIXTURE_EACH(scope, nothing_is_spawned_once_a_shutdown_began, .timeout = 30)
{
    struct closing c = { 0 };
    struct numio_join *join;
    size_t left = 1;
    cr_assert_eq(
        numio_spawn_co(numio_runtime_handle(runtime), spawn_during_shutdown, &c, NULL, &join), 0);
    cr_assert(fixture_wait(&c.waits, 1));
    cr_assert_eq(numio_runtime_shutdown(runtime, 10000000000, NULL, 0, &left), 0);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    cr_assert_eq(c.late_spawn, -ESHUTDOWN);
}
