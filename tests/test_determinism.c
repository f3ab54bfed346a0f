/* SPDX-License-Identifier: MIT */
/* Promise of numio_config.rng_seed: the same seed and one worker give the same schedule.  The
 * schedule is the sequence of polls, as the hooks tell it. */
#include "tests/runtime_fixture.h"

#include <stdio.h>

#include "runtime/base/compiler.h"
#include "runtime/base/rng.h"

enum { POLLS_MAX = 65536, ROOTS = 40, CHILDREN = 20, RUNS = 4, STEPS = 6 };

struct schedule {
    unsigned count;
    uint64_t ids[POLLS_MAX];
};

static struct schedule schedules[RUNS];

static void note_poll(const struct numio_task_meta *task, void *arg)
{
    struct schedule *schedule = arg; /* one worker: one thread writes it */
    if (schedule->count < POLLS_MAX)
        schedule->ids[schedule->count++] = task->id;
}

static enum numio_poll yield_a_few(void *state, struct numio_context *cx)
{
    uint32_t *left = state;
    if ((*left)-- == 0)
        return NUMIO_READY;
    numio_context_yield(cx);
    return NUMIO_PENDING;
}

/* A future and a coroutine each, joined in the order of chance. */
static int64_t have_children(void *arg)
{
    struct numio_join *joins[CHILDREN];
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    for (unsigned i = 0; i < CHILDREN; i++) {
        uint32_t left = nio_rng_below(&rng, STEPS);
        struct numio_future future = { .poll = yield_a_few, .state = &left, .size = sizeof left };
        if (numio_spawn(NULL, &future, NULL, &joins[i]) < 0)
            return -1;
        if (nio_rng_below(&rng, 3) == 0 && numio_yield_now() < 0)
            return -2;
    }
    for (unsigned i = 0; i < CHILDREN; i++) {
        struct numio_join **join = &joins[nio_rng_below(&rng, CHILDREN)];
        if (*join && numio_join_await(join) < 0)
            return -3;
    }
    for (unsigned i = 0; i < CHILDREN; i++)
        if (joins[i] && numio_join_await(&joins[i]) < 0)
            return -4;
    return 0;
}

/* Enough at once that the local queue overflows into the inject queue. */
static int64_t root(void *arg)
{
    struct numio_join *joins[ROOTS];
    (void)arg;
    for (uintptr_t i = 0; i < ROOTS; i++)
        if (numio_spawn_co(NULL, have_children, (void *)(i + 1), NULL, &joins[i]) < 0)
            return -1;
    for (unsigned i = 0; i < ROOTS; i++)
        if (numio_join_await(&joins[i]) < 0)
            return -2;
    return 0;
}

static void record(uint64_t seed, struct schedule *schedule)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    config.rng_seed = seed;
    config.hooks = (struct numio_hooks){ .before_poll = note_poll, .arg = schedule };
    struct numio_runtime *runtime = fixture_create(&config);
    cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), root, NULL), 0);
    numio_runtime_destroy(runtime);
    cr_assert_gt(schedule->count, ROOTS * CHILDREN);
    cr_assert_lt(schedule->count, POLLS_MAX);
}

Test(determinism, the_same_seed_gives_the_same_schedule, .timeout = 30)
{
    for (unsigned i = 0; i < RUNS; i++)
        record(42, &schedules[i]);
    for (unsigned i = 1; i < RUNS; i++) {
        cr_assert_eq(schedules[i].count, schedules[0].count);
        for (unsigned k = 0; k < schedules[0].count; k++)
            cr_assert_eq(schedules[i].ids[k], schedules[0].ids[k], "run %u, poll %u", i, k);
    }
}

Test(determinism, another_seed_runs_the_same_tasks, .timeout = 30)
{
    record(1, &schedules[0]);
    record(2, &schedules[1]);
    cr_assert_eq(schedules[0].count, schedules[1].count);
}

Test(determinism, without_a_seed_one_is_chosen, .timeout = 30)
{
    record(0, &schedules[0]);
}
