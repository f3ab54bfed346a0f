/* SPDX-License-Identifier: MIT */
/* Promises of values of a task: each task has its own, wherever it runs; they are destroyed at its
 * end, the last one set first; children inherit them if asked. */
#include <numio/local.h>

#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

enum { TASKS = 32, KEYS = 12, STEPS = 400, LOG_MAX = 64 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

/* ---- each task has its own ----------------------------------------------------------------- */

static const struct numio_local own_key = { .name = "own" };

static int64_t use_own(void *arg)
{
    EXPECT(numio_local_get(&own_key) == NULL);
    EXPECT(numio_local_set(&own_key, arg) == 0);
    for (int i = 0; i < 20; i++) {
        EXPECT(numio_yield_now() == 0); /* perhaps on another worker */
        EXPECT(numio_local_get(&own_key) == arg);
    }
    EXPECT(numio_local_take(&own_key) == arg);
    EXPECT(numio_local_get(&own_key) == NULL);
    EXPECT(numio_local_take(&own_key) == NULL);
    return 0;
}

static int64_t many_tasks(void *arg)
{
    (void)arg;
    static char values[TASKS];
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, use_own, &values[i], NULL, &joins[i]) == 0);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(local, each_task_has_its_own_value_wherever_it_runs, .timeout = 30)
{
    cr_assert_eq(run(runtime, many_tasks, NULL), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_local_set(&own_key, runtime), -EINVAL); /* a plain thread has none */
    cr_assert_null(numio_local_get(&own_key));
}

/* ---- destruction --------------------------------------------------------------------------- */

static struct {
    intptr_t values[LOG_MAX];
    unsigned count;
    bool had_task;
} destroyed; /* one worker */

static void log_value(void *value)
{
    struct numio_task_meta meta;
    destroyed.values[destroyed.count++] = (intptr_t)value;
    destroyed.had_task |= numio_task_current(&meta) == 0;
}

static const struct numio_local logged_keys[KEYS] = {
    { .destroy = log_value }, { .destroy = log_value }, { .destroy = log_value },
    { .destroy = log_value }, { .destroy = log_value }, { .destroy = log_value },
    { .destroy = log_value }, { .destroy = log_value }, { .destroy = log_value },
    { .destroy = log_value }, { .destroy = log_value }, { .destroy = log_value },
};

static int64_t set_all(void *arg)
{
    (void)arg;
    for (intptr_t i = 0; i < KEYS; i++)
        EXPECT(numio_local_set(&logged_keys[i], (void *)(i + 1)) == 0);
    return 0;
}

static int64_t set_and_sleep(void *arg)
{
    EXPECT(set_all(arg) == 0);
    return numio_sleep_ns(3600000000000);
}

static enum numio_poll set_in_poll(void *state, struct numio_context *cx)
{
    (void)cx;
    *(int64_t *)state = set_all(NULL);
    return *(int64_t *)state == 0 ? NUMIO_READY : NUMIO_PENDING;
}

static void drop_uses(void *state)
{
    (void)state;
    if (numio_local_get(&logged_keys[0]))
        destroyed.values[destroyed.count++] = 100; /* the drop comes before them */
}

static bool was_reversed(unsigned first)
{
    for (unsigned i = 0; i < KEYS; i++)
        if (destroyed.values[first + i] != (intptr_t)(KEYS - i))
            return false;
    return destroyed.count == first + KEYS && !destroyed.had_task;
}

static int64_t ends(void *arg)
{
    (void)arg;
    struct numio_join *join;
    int64_t state = 0;
    struct numio_future future = {
        .poll = set_in_poll, .drop = drop_uses, .state = &state, .size = sizeof state
    };
    memset(&destroyed, 0, sizeof destroyed);
    EXPECT(numio_spawn_co(NULL, set_all, NULL, NULL, &join) == 0);
    EXPECT(numio_join_await(&join) == 0);
    EXPECT(was_reversed(0));
    memset(&destroyed, 0, sizeof destroyed);
    EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0);
    EXPECT(numio_join_await(&join) == 0);
    EXPECT(destroyed.values[0] == 100 && was_reversed(1));
    memset(&destroyed, 0, sizeof destroyed);
    EXPECT(numio_spawn_co(NULL, set_and_sleep, NULL, NULL, &join) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(destroyed.count == 0);
    numio_join_abort(join);
    EXPECT(numio_join_await(&join) == -ECANCELED);
    EXPECT(was_reversed(0));
    return 0;
}

Test(local, values_are_destroyed_at_the_end_the_last_one_set_first, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, ends, NULL), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

static int64_t replace(void *arg)
{
    (void)arg;
    memset(&destroyed, 0, sizeof destroyed);
    EXPECT(numio_local_set(&logged_keys[0], (void *)1) == 0);
    EXPECT(numio_local_set(&logged_keys[1], (void *)2) == 0);
    EXPECT(numio_local_set(&logged_keys[0], (void *)3) == 0);
    EXPECT(destroyed.count == 1 && destroyed.values[0] == 1);
    EXPECT(numio_local_set(&logged_keys[1], NULL) == 0);
    EXPECT(destroyed.count == 2 && destroyed.values[1] == 2);
    EXPECT(numio_local_take(&logged_keys[0]) == (void *)3);
    EXPECT(destroyed.count == 2); /* what is taken is the taker's */
    return 0;
}

Test(local, a_replaced_value_is_destroyed_and_a_taken_one_is_not, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, replace, NULL), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

/* Random sets and takes beside an array. */
static int64_t against_model(void *arg)
{
    struct nio_rng *rng = arg;
    static const struct numio_local keys[KEYS];
    void *model[KEYS] = { NULL };
    for (intptr_t i = 0; i < STEPS; i++) {
        uint32_t k = nio_rng_below(rng, KEYS);
        if (nio_rng_below(rng, 3) == 0) {
            EXPECT(numio_local_take(&keys[k]) == model[k]);
            model[k] = NULL;
        } else {
            model[k] = (void *)(i + 1);
            EXPECT(numio_local_set(&keys[k], model[k]) == 0);
        }
        for (uint32_t n = 0; n < KEYS; n++)
            EXPECT(numio_local_get(&keys[n]) == model[n]);
    }
    return 0;
}

Test(local, random_steps_agree_with_an_array, .timeout = 30)
{
    struct nio_rng rng = seeded_rng(3);
    struct numio_runtime *runtime = fixture_start(1);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(run(runtime, against_model, &rng), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

/* ---- inheritance --------------------------------------------------------------------------- */

static int references; /* one worker */

static void *share(void *value)
{
    references++;
    return value;
}

static void unshare(void *value)
{
    (void)value;
    references--;
}

static const struct numio_local shared_key = { .inherit = share, .destroy = unshare };

static int64_t look(void *arg)
{
    return numio_local_get(&shared_key) == arg && !numio_local_get(&own_key);
}

static enum numio_poll look_in_poll(void *state, struct numio_context *cx)
{
    *(int64_t *)numio_context_output(cx) = look(*(void **)state);
    return NUMIO_READY;
}

static int64_t inherit(void *arg)
{
    (void)arg;
    static char value;
    void *mine = &value;
    struct numio_future future = {
        .poll = look_in_poll, .state = &mine, .size = sizeof mine, .output_size = sizeof(int64_t)
    };
    struct numio_spawn_opts opts;
    struct numio_join *join;
    int64_t output = 0;
    numio_spawn_opts_init(&opts, sizeof opts);
    EXPECT(numio_local_set(&own_key, &output) == 0); /* has no inherit */
    EXPECT(numio_local_set(&shared_key, share(mine)) == 0);
    EXPECT(numio_spawn_co(NULL, look, mine, &opts, &join) == 0);
    EXPECT(numio_join_await(&join) == 0);                       /* not asked for */
    EXPECT(numio_cancel_token_create(NULL, &opts.cancel) == 0); /* something else is */
    EXPECT(numio_spawn_co(NULL, look, mine, &opts, &join) == 0);
    EXPECT(numio_join_await(&join) == 0);
    numio_cancel_token_unref(opts.cancel);
    opts.cancel = NULL;
    opts.inherit_locals = true;
    EXPECT(numio_spawn_co(NULL, look, mine, &opts, &join) == 0);
    EXPECT(references == 2);
    EXPECT(numio_join_await(&join) == 1);
    EXPECT(references == 1);
    EXPECT(numio_spawn(NULL, &future, &opts, &join) == 0);
    EXPECT(numio_join_await_output(&join, &output, sizeof output) == 0 && output == 1);
    EXPECT(numio_spawn_co(NULL, look, mine, &opts, &join) == 0);
    numio_join_abort(join);
    EXPECT(numio_join_await(&join) == -ECANCELED); /* it has never run */
    EXPECT(references == 1);
    return 0;
}

static int64_t inherit_with_faults(void *arg)
{
    (void)arg;
    static char value;
    struct numio_spawn_opts opts;
    bool has_struck = true;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.inherit_locals = true;
    EXPECT(numio_local_set(&shared_key, share(&value)) == 0);
    for (long nth = 1; has_struck; nth++) {
        struct numio_join *join = NULL;
        nio_fault_arm(nth);
        int rc = numio_spawn_co(NULL, look, &value, &opts, &join);
        has_struck = nio_fault_struck();
        nio_fault_arm(0);
        EXPECT(rc == (has_struck ? -ENOMEM : 0));
        if (join)
            EXPECT(numio_join_await(&join) == 1);
        EXPECT(references == 1);
    }
    return 0;
}

Test(local, children_inherit_what_says_so_if_they_are_asked_to, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, inherit, NULL), 0, "line %ld", (long)last_line);
    cr_assert_eq(references, 0);
    cr_assert_eq(run(runtime, inherit_with_faults, NULL), 0, "line %ld", (long)last_line);
    cr_assert_eq(references, 0);
    numio_runtime_destroy(runtime);
}

FIXTURE_EACH(local, a_shutdown_destroys_them, .timeout = 30)
{
    struct numio_join *join;
    size_t left = 1;
    memset(&destroyed, 0, sizeof destroyed);
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), set_and_sleep, NULL, NULL, &join),
                 0);
    cr_assert_eq(numio_join_wait(&join, 1000000), -ETIMEDOUT);
    cr_assert_eq(numio_runtime_shutdown(runtime, 10000000000, NULL, 0, &left), 0);
    cr_assert_eq(numio_join_wait(&join, -1), -ECANCELED);
    cr_assert(destroyed.count == 0 || was_reversed(0)); /* it may not have run */
}
