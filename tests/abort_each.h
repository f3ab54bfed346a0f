/* SPDX-License-Identifier: MIT */
/* tests/abort_each.h: a scenario is aborted at its first suspension, then, from the start, at its
 * second, and so on, until it ends without having been reached.  So a primitive meets an abort at
 * each place where it can suspend.
 *
 * One runtime with one worker for each run, with the same seed: the runs take the same way up to
 * the abort.  Asserts in the test's own thread only.  Test programs only.
 */
#ifndef TESTS_ABORT_EACH_H
#define TESTS_ABORT_EACH_H

#include "tests/runtime_fixture.h"

struct abort_case {
    void (*set_up)(void *arg);    /* before each run; NULL: nothing to do */
    int64_t (*victim)(void *arg); /* the coroutine that is aborted */
    int64_t (*others)(void *arg); /* a coroutine beside it that must end; NULL: none */
    /* After each run, with the victim's result: 0, or the line that found something wrong. */
    int64_t (*check)(void *arg, int64_t result);
    void *arg;
};

enum { ABORT_EACH_MAX = 1000 };

struct abort_run {
    const struct abort_case *what;
    struct numio_abort *_Atomic victim;
    unsigned step, polls; /* the worker's */
    bool has_struck;
    int64_t result, others;
};

static inline void abort_after_poll(const struct numio_task_meta *meta, void *arg)
{
    struct abort_run *run = arg;
    if (!meta->name || strcmp(meta->name, "victim") != 0 || ++run->polls != run->step)
        return;
    /* relaxed: written by this thread */
    numio_abort_task(atomic_load_explicit(&run->victim, memory_order_relaxed));
    run->has_struck = true;
}

static inline int64_t abort_root(void *arg)
{
    struct abort_run *run = arg;
    struct numio_join *others = NULL, *victim = NULL;
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.name = "victim";
    int rc = numio_spawn_co(NULL, run->what->victim, run->what->arg, &opts, &victim);
    if (rc == 0) {
        struct numio_abort *abort_handle = numio_join_abort_handle(victim);
        /* relaxed: read by this thread */
        atomic_store_explicit(&run->victim, abort_handle, memory_order_relaxed);
        if (run->what->others)
            rc = numio_spawn_co(NULL, run->what->others, run->what->arg, NULL, &others);
        run->result = numio_join_await(&victim);
        run->others = others ? numio_join_await(&others) : 0;
        numio_abort_drop(abort_handle);
    }
    return rc;
}

/* False: the scenario has ended before this step. */
static inline bool abort_at(const struct abort_case *what, unsigned step)
{
    struct abort_run run = { .what = what, .step = step };
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    config.rng_seed = 1;
    config.hooks.after_poll = abort_after_poll;
    config.hooks.arg = &run;
    if (what->set_up)
        what->set_up(what->arg);
    struct numio_runtime *runtime = fixture_create(&config);
    int64_t rc = numio_block_on(numio_runtime_handle(runtime), abort_root, &run);
    numio_runtime_destroy(runtime);
    cr_assert_eq(rc, 0, "abort at step %u: the scenario did not start", step);
    cr_assert_eq(run.others, 0, "abort at step %u: the others ended with %ld", step,
                 (long)run.others);
    int64_t line = what->check(what->arg, run.result);
    cr_assert_eq(line, 0, "abort at step %u, result %ld: line %ld", step, (long)run.result,
                 (long)line);
    return run.has_struck;
}

/* Returns how many steps the scenario has. */
static inline unsigned abort_each(const struct abort_case *what)
{
    unsigned step = 1;
    while (abort_at(what, step)) {
        step++;
        cr_assert_lt(step, ABORT_EACH_MAX, "the scenario has no end");
    }
    return step - 1;
}

#endif
