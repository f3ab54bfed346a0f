/* SPDX-License-Identifier: MIT */
/* Promises of join sets: results come in the order in which tasks end, each once; nothing is lost
 * by aborts and deadlines; abort_all, detach_all, destroy; selections; plain threads. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

#include <pthread.h>

enum { TASKS = 24, ROUNDS = 3000, SOON_NS = 2000000 };
static const uint64_t late_ns = 3600000000000ull;

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static int64_t return_number(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

static int64_t sleep_long(void *arg)
{
    (void)arg;
    return numio_sleep_ns(late_ns);
}

/* ---- order --------------------------------------------------------------------------------- */

struct gated {
    struct numio_semaphore *gate;
    int64_t result;
};

static int64_t end_when_open(void *arg)
{
    struct gated *gated = arg;
    int rc = numio_semaphore_acquire(gated->gate, 1);
    return rc ? rc : gated->result;
}

static int64_t in_order_of_ends(void *arg)
{
    (void)arg;
    struct numio_semaphore gates[TASKS];
    struct gated gated[TASKS];
    struct numio_joined joined;
    struct numio_join_set *set;
    uint64_t ids[TASKS];
    EXPECT(numio_join_set_create(&set) == 0);
    EXPECT(numio_join_set_next(set, &joined, NULL, 0) == -ENOENT);
    EXPECT(numio_join_set_try_next(set, &joined, NULL, 0) == -ENOENT);
    for (int i = 0; i < TASKS; i++) {
        EXPECT(numio_semaphore_init(&gates[i], 0) == 0);
        gated[i] = (struct gated){ &gates[i], i };
        EXPECT(numio_join_set_spawn_co(set, NULL, end_when_open, &gated[i], NULL, &ids[i]) == 0);
    }
    EXPECT(numio_join_set_length(set) == TASKS);
    EXPECT(numio_join_set_try_next(set, &joined, NULL, 0) == -EAGAIN);
    for (int i = 0; i < TASKS; i++) {
        int k = i * 7 % TASKS;
        EXPECT(numio_semaphore_release(&gates[k], 1) == 0);
        EXPECT(numio_join_set_next(set, &joined, NULL, 0) == 0);
        EXPECT(joined.id == ids[k] && joined.result == k && !joined.name);
        EXPECT(numio_join_set_length(set) == (uint64_t)(TASKS - 1 - i));
    }
    EXPECT(numio_join_set_next(set, &joined, NULL, 0) == -ENOENT);
    EXPECT(numio_join_set_destroy(set) == 0);
    EXPECT(numio_join_set_destroy(NULL) == 0);
    return 0;
}

FIXTURE_EACH(join_set, results_come_in_the_order_in_which_tasks_end, .timeout = 60)
{
    cr_assert_eq(run(runtime, in_order_of_ends, NULL), 0, "line %ld", (long)last_line);
}

static int64_t first_ended_first(void *arg)
{
    (void)arg;
    struct numio_joined joined;
    struct numio_join_set *set;
    EXPECT(numio_join_set_create(&set) == 0);
    for (intptr_t i = 0; i < TASKS; i++) {
        EXPECT(numio_join_set_spawn_co(set, NULL, return_number, (void *)i, NULL, NULL) == 0);
        EXPECT(numio_yield_now() == 0); /* it has ended */
    }
    for (intptr_t i = 0; i < TASKS; i++) { /* and is kept until it is taken */
        EXPECT(numio_join_set_try_next(set, &joined, NULL, 0) == 0);
        EXPECT(joined.result == i);
    }
    EXPECT(numio_join_set_destroy(set) == 0);
    return 0;
}

Test(join_set, results_are_kept_until_they_are_taken, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, first_ended_first, NULL), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

/* ---- a naive model ------------------------------------------------------------------------- */

static enum numio_poll double_it(void *state, struct numio_context *cx)
{
    *(uint64_t *)numio_context_output(cx) = 2 * *(uint64_t *)state;
    return NUMIO_READY;
}

/* What is in the set, by number: each comes out once, with its result. */
static int64_t against_model(void *arg)
{
    struct nio_rng *rng = arg;
    static bool is_in[ROUNDS];
    static uint64_t ids[ROUNDS];
    uint64_t in_set = 0;
    struct numio_joined joined;
    struct numio_join_set *set;
    EXPECT(numio_join_set_create(&set) == 0);
    memset(is_in, 0, sizeof is_in);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        struct numio_future future = {
            .poll = double_it, .state = &i, .size = sizeof i, .output_size = sizeof i
        };
        uint64_t output = UINT64_MAX;
        EXPECT((i % 2 ? numio_join_set_spawn(set, NULL, &future, NULL, &ids[i])
                      : numio_join_set_spawn_co(set, NULL, return_number, (void *)(intptr_t)i, NULL,
                                                &ids[i])) == 0);
        is_in[i] = true;
        in_set++;
        for (uint32_t n = nio_rng_below(rng, 3); n > 0; n--) {
            int rc = nio_rng_below(rng, 2)
                         ? numio_join_set_next(set, &joined, &output, sizeof output)
                         : numio_join_set_try_next(set, &joined, &output, sizeof output);
            EXPECT(rc == 0 || (rc == -ENOENT && in_set == 0) || (rc == -EAGAIN && in_set > 0));
            if (rc)
                continue;
            uint64_t k = 0;
            while (k <= i && ids[k] != joined.id)
                k++;
            EXPECT(k <= i && is_in[k]);
            EXPECT(k % 2 ? joined.result == 0 && output == 2 * k : joined.result == (int64_t)k);
            is_in[k] = false;
            in_set--;
        }
        EXPECT(numio_join_set_length(set) == in_set);
        if (nio_rng_below(rng, 200) == 0) {
            EXPECT(numio_join_set_detach_all(set) == 0);
            memset(is_in, 0, sizeof is_in);
            in_set = 0;
        }
    }
    EXPECT(numio_join_set_destroy(set) == 0);
    return 0;
}

FIXTURE_EACH(join_set, every_result_comes_out_once, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(99);
    cr_assert_eq(run(runtime, against_model, &rng), 0, "line %ld", (long)last_line);
}

/* ---- abort, detach, destroy ---------------------------------------------------------------- */

static int64_t abort_them(void *arg)
{
    struct numio_handle *handle = arg;
    uint64_t before = numio_live_tasks(handle);
    struct numio_joined joined;
    struct numio_join_set *set;
    EXPECT(numio_join_set_create(&set) == 0);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_set_spawn_co(set, NULL, sleep_long, NULL, NULL, NULL) == 0);
    EXPECT(numio_yield_now() == 0);
    numio_join_set_abort_all(set);
    EXPECT(numio_join_set_spawn_co(set, NULL, return_number, (void *)7, NULL, NULL) == 0);
    int aborted = 0, others = 0;
    while (numio_join_set_next(set, &joined, NULL, 0) == 0) {
        aborted += joined.result == -ECANCELED;
        others += joined.result == 7; /* spawned after */
    }
    EXPECT(aborted == TASKS && others == 1);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_set_spawn_co(set, NULL, i % 2 ? sleep_long : return_number, NULL, NULL,
                                       NULL) == 0);
    EXPECT(numio_join_set_destroy(set) == 0); /* aborts and waits */
    EXPECT(numio_live_tasks(handle) == before);
    return 0;
}

FIXTURE_EACH(join_set, abort_all_and_destroy_end_every_task, .timeout = 60)
{
    cr_assert_eq(run(runtime, abort_them, numio_runtime_handle(runtime)), 0, "line %ld",
                 (long)last_line);
}

struct detached {
    struct numio_semaphore gate, ended;
};

static int64_t end_later(void *arg)
{
    struct detached *d = arg;
    EXPECT(numio_semaphore_acquire(&d->gate, 1) == 0);
    return numio_semaphore_release(&d->ended, 1);
}

static int64_t detach_them(void *arg)
{
    struct detached *d = arg;
    struct numio_joined joined;
    struct numio_join_set *set;
    EXPECT(numio_join_set_create(&set) == 0);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_set_spawn_co(set, NULL, i % 2 ? end_later : return_number, d, NULL,
                                       NULL) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_join_set_detach_all(set) == 0);
    EXPECT(numio_join_set_length(set) == 0);
    EXPECT(numio_join_set_next(set, &joined, NULL, 0) == -ENOENT);
    EXPECT(numio_join_set_spawn_co(set, NULL, return_number, (void *)5, NULL, NULL) == 0);
    EXPECT(numio_join_set_next(set, &joined, NULL, 0) == 0 && joined.result == 5);
    EXPECT(numio_join_set_destroy(set) == 0); /* waits for none of them */
    EXPECT(numio_semaphore_available(&d->ended) == 0);
    EXPECT(numio_semaphore_release(&d->gate, TASKS) == 0);
    EXPECT(numio_semaphore_acquire(&d->ended, TASKS / 2) == 0); /* they have gone on */
    return 0;
}

FIXTURE_EACH(join_set, detached_tasks_go_on_and_leave_nothing, .timeout = 60)
{
    struct detached d = { NUMIO_SEMAPHORE_INIT(0), NUMIO_SEMAPHORE_INIT(0) };
    cr_assert_eq(run(runtime, detach_them, &d), 0, "line %ld", (long)last_line);
}

/* ---- waits --------------------------------------------------------------------------------- */

static int64_t in_time(void *arg)
{
    (void)arg;
    struct numio_joined joined;
    struct numio_join_set *set;
    struct numio_semaphore semaphore = NUMIO_SEMAPHORE_INIT(0);
    struct numio_op ops[2];
    EXPECT(numio_join_set_create(&set) == 0);
    EXPECT(numio_join_set_spawn_co(set, NULL, sleep_long, NULL, NULL, NULL) == 0);
    EXPECT(numio_within(SOON_NS, numio_join_set_next(set, &joined, NULL, 0)) == -ETIMEDOUT);
    EXPECT(numio_join_set_length(set) == 1);
    for (int i = 0; i < TASKS; i++) {
        numio_op_join_set(&ops[0], set);
        numio_op_semaphore_acquire(&ops[1], &semaphore, 1);
        if (i % 2)
            EXPECT(numio_join_set_spawn_co(set, NULL, return_number, (void *)3, NULL, NULL) == 0);
        else
            EXPECT(numio_semaphore_release(&semaphore, 1) == 0);
        int64_t index = numio_select(ops, 2, NUMIO_SELECT_FAIR);
        EXPECT(index == (i % 2 ? 0 : 1) && numio_op_result(&ops[index]) == 0);
        if (i % 2)
            EXPECT(numio_join_set_try_next(set, &joined, NULL, 0) == 0 && joined.result == 3);
    }
    numio_join_set_abort_all(set);
    EXPECT(numio_join_set_next(set, &joined, NULL, 0) == 0 && joined.result == -ECANCELED);
    numio_op_join_set(&ops[0], set);
    EXPECT(numio_select(ops, 1, 0) == 0 && numio_op_result(&ops[0]) == -ENOENT);
    EXPECT(numio_join_set_destroy(set) == 0);
    return 0;
}

FIXTURE_EACH(join_set, it_is_waited_for_in_selections_and_within_deadlines, .timeout = 60)
{
    cr_assert_eq(run(runtime, in_time, NULL), 0, "line %ld", (long)last_line);
}

FIXTURE_EACH(join_set, a_plain_thread_uses_one, .timeout = 60)
{
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_joined joined;
    struct numio_join_set *set;
    struct numio_deadline deadline;
    struct numio_spawn_opts opts;
    int64_t sum = 0;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.name = "summand";
    cr_assert_eq(numio_join_set_create(&set), 0);
    for (intptr_t i = 0; i < 100; i++)
        cr_assert_eq(numio_join_set_spawn_co(set, handle, return_number, (void *)i, &opts, NULL),
                     0);
    while (numio_join_set_next(set, &joined, NULL, 0) == 0) {
        sum += joined.result;
        cr_assert_str_eq(joined.name, "summand");
    }
    cr_assert_eq(sum, 99 * 50);
    cr_assert_eq(numio_join_set_spawn_co(set, handle, sleep_long, NULL, NULL, NULL), 0);
    cr_assert_eq(numio_deadline_push(&deadline, SOON_NS), 0);
    cr_assert_eq(numio_join_set_next(set, &joined, NULL, 0), -ETIMEDOUT);
    cr_assert_eq(numio_join_set_destroy(set), 0); /* whatever the deadline says */
    cr_assert_eq(numio_deadline_pop(&deadline), -ETIMEDOUT);
}

struct polled {
    struct numio_join_set *set;
    struct numio_op op;
    bool has_started;
    int sum;
};

static enum numio_poll sum_up(void *state, struct numio_context *cx)
{
    struct polled *p = state;
    struct numio_joined joined;
    int64_t result;
    for (;;) {
        if (!p->has_started) {
            numio_op_join_set(&p->op, p->set);
            if (numio_op_start(&p->op, cx) != 0)
                return NUMIO_READY;
            p->has_started = true;
        }
        if (numio_op_poll(&p->op, cx, &result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        p->has_started = false;
        if (result == -ENOENT)
            break;
        if (numio_join_set_try_next(p->set, &joined, NULL, 0) == 0)
            p->sum += (int)joined.result;
    }
    *(int *)numio_context_output(cx) = p->sum;
    return NUMIO_READY;
}

static int64_t in_future(void *arg)
{
    (void)arg;
    struct polled p = { 0 };
    struct numio_future future = {
        .poll = sum_up, .state = &p, .size = sizeof p, .output_size = sizeof(int)
    };
    struct numio_join *join;
    struct numio_join_set *set;
    int sum = 0;
    EXPECT(numio_join_set_create(&set) == 0);
    p.set = set;
    for (intptr_t i = 0; i < TASKS; i++)
        EXPECT(numio_join_set_spawn_co(set, NULL, return_number, (void *)i, NULL, NULL) == 0);
    EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0);
    EXPECT(numio_join_await_output(&join, &sum, sizeof sum) == 0);
    EXPECT(sum == TASKS * (TASKS - 1) / 2);
    EXPECT(numio_join_set_spawn_co(set, NULL, sleep_long, NULL, NULL, NULL) == 0);
    EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0);
    EXPECT(numio_yield_now() == 0);
    numio_join_abort(join); /* it waits: leaves the set as it is */
    EXPECT(numio_join_await(&join) == -ECANCELED);
    EXPECT(numio_join_set_length(set) == 1);
    EXPECT(numio_join_set_destroy(set) == 0);
    return 0;
}

FIXTURE_EACH(join_set, a_future_waits_for_one_and_may_be_aborted, .timeout = 60)
{
    cr_assert_eq(run(runtime, in_future, NULL), 0, "line %ld", (long)last_line);
}

struct aborted {
    struct numio_join_set *set;
    unsigned taken, spawned;
};

static int64_t yield_thrice(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++)
        if (numio_yield_now() < 0)
            return -ECANCELED;
    return 0;
}

static void reset(void *arg)
{
    struct aborted *a = arg;
    *a = (struct aborted){ 0 };
    cr_assert_eq(numio_join_set_create(&a->set), 0);
}

static int64_t take_all(void *arg)
{
    struct aborted *a = arg;
    struct numio_joined joined;
    int rc = 0;
    for (int i = 0; i < 3; i++) {
        EXPECT(numio_join_set_spawn_co(a->set, NULL, yield_thrice, NULL, NULL, NULL) == 0);
        a->spawned++;
    }
    while ((rc = numio_join_set_next(a->set, &joined, NULL, 0)) == 0)
        a->taken++;
    return rc;
}

static int64_t check_none_lost(void *arg, int64_t result)
{
    struct aborted *a = arg;
    struct numio_joined joined;
    EXPECT(result == -ENOENT || result == -ECANCELED);
    while (numio_join_set_next(a->set, &joined, NULL, 0) == 0)
        a->taken++;
    EXPECT(a->taken == a->spawned);
    EXPECT(numio_join_set_destroy(a->set) == 0);
    return 0;
}

Test(join_set, an_abort_at_each_step_loses_no_result, .timeout = 60)
{
    struct aborted a;
    struct abort_case what = { reset, take_all, NULL, check_none_lost, &a };
    cr_assert_geq(abort_each(&what), 2u);
}

/* ---- shutdown ------------------------------------------------------------------------------ */

FIXTURE_EACH(join_set, a_set_outlives_its_runtime, .timeout = 30)
{
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_joined joined;
    struct numio_join_set *set;
    size_t left = 1;
    int aborted = 0, ended = 0;
    cr_assert_eq(numio_join_set_create(&set), 0);
    for (int i = 0; i < TASKS; i++)
        cr_assert_eq(numio_join_set_spawn_co(set, handle, i % 2 ? sleep_long : return_number, NULL,
                                             NULL, NULL),
                     0);
    cr_assert_eq(numio_runtime_shutdown(runtime, 10000000000, NULL, 0, &left), 0);
    cr_assert_eq(numio_join_set_spawn_co(set, handle, return_number, NULL, NULL, NULL), -ESHUTDOWN);
    while (numio_join_set_next(set, &joined, NULL, 0) == 0) {
        aborted += joined.result == -ECANCELED;
        ended += joined.result == 0;
    }
    cr_assert_geq(aborted, TASKS / 2);
    cr_assert_eq(aborted + ended, TASKS);
    cr_assert_eq(numio_join_set_destroy(set), 0);
}

static enum numio_poll destroy_in_poll(void *state, struct numio_context *cx)
{
    *(int *)numio_context_output(cx) = numio_join_set_destroy(*(struct numio_join_set **)state);
    return NUMIO_READY;
}

static int64_t destroy_where_it_would_block(void *arg)
{
    (void)arg;
    struct numio_join_set *set;
    struct numio_future future = {
        .poll = destroy_in_poll, .state = &set, .size = sizeof set, .output_size = sizeof(int)
    };
    struct numio_join *join;
    int rc = 0;
    EXPECT(numio_join_set_create(&set) == 0);
    EXPECT(numio_join_set_spawn_co(set, NULL, sleep_long, NULL, NULL, NULL) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0);
    EXPECT(numio_join_await_output(&join, &rc, sizeof rc) == 0);
    EXPECT(rc == -EDEADLK);
    EXPECT(numio_join_set_destroy(set) == 0);
    return 0;
}

Test(join_set, destroying_one_inside_of_a_poll_is_refused_while_tasks_are_left, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, destroy_where_it_would_block, NULL), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

static int64_t with_faults(void *arg)
{
    (void)arg;
    struct numio_join_set *set = NULL;
    bool has_struck = true;
    for (long nth = 1; has_struck; nth++) {
        nio_fault_arm(nth);
        int rc = numio_join_set_create(&set);
        if (rc == 0)
            rc = numio_join_set_detach_all(set);
        has_struck = nio_fault_struck();
        nio_fault_arm(0);
        EXPECT(rc == (has_struck ? -ENOMEM : 0));
        EXPECT(numio_join_set_destroy(set) == 0);
        set = NULL;
    }
    return 0;
}

Test(join_set, without_memory_it_says_so_and_leaves_nothing, .timeout = 30)
{
    cr_assert_eq(with_faults(NULL), 0);
}
