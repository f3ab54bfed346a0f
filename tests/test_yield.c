/* SPDX-License-Identifier: MIT */
/* Where a task goes that yields: behind what waits, and nowhere if nothing does. */
#include <criterion/criterion.h>

#include <numio/runtime.h>

#include "runtime/sched/worker.h"
#include "tests/sched_rig.h"

TestSuite(yield, .timeout = 60);

static const char four_workers[] = "pack:1 numa:1 core:4 pu:1";

/* Who was polled, in order. */
struct turns {
    char log[256];
    unsigned count;
};

struct turn_taker {
    struct turns *turns;
    unsigned left; /* polls */
    char letter;
};

static enum numio_poll take_turn(void *state, struct numio_context *cx)
{
    struct turn_taker *self = state;
    struct turns *turns = self->turns;
    if (turns->count + 1 < sizeof turns->log)
        turns->log[turns->count++] = self->letter;
    if (--self->left == 0)
        return NUMIO_READY;
    numio_context_yield(cx);
    return NUMIO_PENDING;
}

/* `by`: as if its running task spawned it; NULL: from outside. */
static void spawn_taker(struct numio_handle *handle, struct nio_worker *by, struct turns *turns,
                        char letter, unsigned polls, enum numio_affinity affinity)
{
    struct turn_taker state = { turns, polls, letter };
    struct numio_future future = { .poll = take_turn, .state = &state, .size = sizeof state };
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = affinity;
    opts.worker = 0;
    nio_worker_set_current(by);
    cr_assert_eq(numio_spawn(handle, &future, &opts, NULL), 0, "%s", numio_strerror_detail());
    nio_worker_set_current(NULL);
}

Test(yield, a_task_alone_wakes_nobody_and_is_not_stolen)
{
    struct numio_handle *handle = rig_start(four_workers);
    struct nio_worker *worker = handle->workers[0];
    struct nio_idle *idle = &handle->nodes[0]->idle;
    struct turns turns = { .count = 0 };
    for (unsigned i = 1; i < 3; i++)
        nio_idle_sleep(idle, i, false);
    spawn_taker(handle, worker, &turns, 'a', 50, NUMIO_AFFINITY_ANY);
    for (unsigned i = 0; i < 20; i++)
        cr_assert(rig_step(worker));
    cr_assert_eq(nio_idle_sleeping(nio_idle_load(idle)), 2, "a sleeper was taken");
    for (unsigned i = 0; i < 29; i++) {
        cr_assert(rig_step(worker));
        cr_assert_not(rig_step(handle->workers[3]), "a thief has found it");
    }
    for (unsigned i = 1; i < 3; i++)
        cr_assert_not(nio_idle_leave(idle, i, false), "it was taken");
    rig_settle(handle);
    cr_assert_eq(turns.count, 50);
    rig_stop(handle);
}

/* Wakes or spawns another in its own poll, which then stands in the slot, and yields. */
struct inviter {
    struct turn_taker taker;
    struct numio_handle *handle;
};

static enum numio_poll invite(void *state, struct numio_context *cx)
{
    struct inviter *self = state;
    struct turn_taker guest = { self->taker.turns, 1, 'g' };
    struct numio_future future = { .poll = take_turn, .state = &guest, .size = sizeof guest };
    if (self->taker.left > 1 && numio_spawn(self->handle, &future, NULL, NULL) < 0)
        return NUMIO_READY; /* the log has too few */
    return take_turn(&self->taker, cx);
}

Test(yield, one_that_stands_in_the_slot_goes_first_and_is_not_lost)
{
    struct numio_handle *handle = rig_start(four_workers);
    struct turns turns = { .count = 0 };
    struct inviter state = { { &turns, 4, 'a' }, handle };
    struct numio_future future = { .poll = invite, .state = &state, .size = sizeof state };
    nio_worker_set_current(handle->workers[0]);
    cr_assert_eq(numio_spawn(handle, &future, NULL, NULL), 0);
    nio_worker_set_current(NULL);
    while (rig_step(handle->workers[0])) { /* bounded by their polls */
    }
    cr_assert_str_eq(turns.log, "agagaga");
    rig_stop(handle);
}

/* What goes before the slot may poll for long. */
Test(yield, one_that_is_passed_by_a_task_from_outside_can_be_stolen)
{
    struct numio_config config = rig_config(four_workers);
    config.inject_interval = 1;
    struct numio_handle *handle = rig_build(&config);
    struct nio_worker *worker = handle->workers[0];
    struct turns turns = { .count = 0 };
    spawn_taker(handle, worker, &turns, 'a', 4, NUMIO_AFFINITY_ANY);
    cr_assert(rig_step(worker));
    spawn_taker(handle, NULL, &turns, 'b', 1, NUMIO_AFFINITY_ANY);
    cr_assert(rig_step(worker));
    cr_assert_str_eq(turns.log, "ab");
    cr_assert_eq(nio_far_depth(worker), 1, "nobody can find it");
    rig_settle(handle);
    cr_assert_eq(turns.count, 5);
    rig_stop(handle);
}

/* Joins a task, which runs inside of its poll and yields there. */
struct host {
    struct turns *turns;
    struct numio_handle *handle;
    struct numio_join *join;
    struct nio_worker *worker;
    uint32_t depth; /* of what others can find, after the first poll of the join */
};

static enum numio_poll host(void *state, struct numio_context *cx)
{
    struct host *self = state;
    int64_t result;
    if (!self->join) {
        struct turn_taker guest = { self->turns, 3, 'g' };
        struct numio_future future = { .poll = take_turn, .state = &guest, .size = sizeof guest };
        if (numio_spawn(self->handle, &future, NULL, &self->join) < 0)
            return NUMIO_READY; /* the log is empty */
        enum numio_poll polled = numio_join_poll(&self->join, cx, NULL, 0, &result);
        *(uint32_t *)numio_context_output(cx) = nio_far_depth(self->worker);
        return polled;
    }
    return numio_join_poll(&self->join, cx, NULL, 0, &result);
}

Test(yield, one_that_runs_inside_of_its_joiner_can_be_stolen)
{
    struct numio_handle *handle = rig_start(four_workers);
    struct turns turns = { .count = 0 };
    struct host state = { &turns, handle, NULL, handle->workers[0], 0 };
    struct numio_future future = {
        .poll = host, .state = &state, .size = sizeof state, .output_size = sizeof(uint32_t)
    };
    struct numio_join *join;
    uint32_t depth = 0;
    nio_worker_set_current(handle->workers[0]);
    cr_assert_eq(numio_spawn(handle, &future, NULL, &join), 0);
    nio_worker_set_current(NULL);
    rig_settle(handle);
    cr_assert_eq(numio_join_await_output(&join, &depth, sizeof depth), 0);
    cr_assert_eq(depth, 1, "nobody could find it while its joiner ran on");
    cr_assert_eq(turns.count, 3);
    rig_stop(handle);
}

Test(yield, tasks_that_yield_take_turns)
{
    struct numio_handle *handle = rig_start(four_workers);
    struct nio_worker *worker = handle->workers[0];
    struct turns turns = { .count = 0 };
    for (char letter = 'a'; letter <= 'c'; letter++)
        spawn_taker(handle, worker, &turns, letter, 4, NUMIO_AFFINITY_ANY);
    while (rig_step(worker)) { /* bounded by their polls */
    }
    /* The last spawned goes first, from the slot; then each in turn. */
    for (unsigned i = 3; i < turns.count; i++)
        cr_assert_eq(turns.log[i], turns.log[i - 3], "%s", turns.log);
    cr_assert_eq(turns.count, 12);
    rig_stop(handle);
}

/* The classes of the local queues give the turn on after 16 tasks. */
Test(yield, one_that_yields_takes_turns_with_those_of_other_affinities)
{
    static const enum numio_affinity affinities[] = { NUMIO_AFFINITY_WORKER, NUMIO_AFFINITY_NODE };
    for (unsigned i = 0; i < NIO_ARRAY_LEN(affinities); i++) {
        struct numio_handle *handle = rig_start(four_workers);
        struct nio_worker *worker = handle->workers[0];
        struct turns turns = { .count = 0 };
        spawn_taker(handle, worker, &turns, 'a', 100, NUMIO_AFFINITY_ANY);
        cr_assert(rig_step(worker));
        spawn_taker(handle, worker, &turns, 'b', 100, affinities[i]);
        while (rig_step(worker)) { /* bounded by their polls */
        }
        cr_assert_eq(turns.count, 200);
        for (unsigned at = 0, from = 0; at < 160; at++) {
            if (turns.log[at] != turns.log[from])
                from = at;
            cr_assert_lt(at - from, 20, "%s", turns.log);
        }
        rig_stop(handle);
    }
}

Test(yield, what_is_spawned_between_its_polls_waits_for_a_few_at_most)
{
    struct numio_handle *handle = rig_start(four_workers);
    struct nio_worker *worker = handle->workers[0];
    struct turns turns = { .count = 0 };
    spawn_taker(handle, worker, &turns, 'a', 60, NUMIO_AFFINITY_ANY);
    for (char letter = 'b'; letter <= 'k'; letter++) {
        cr_assert(rig_step(worker));
        spawn_taker(handle, worker, &turns, letter, 1, NUMIO_AFFINITY_ANY);
        unsigned from = turns.count;
        for (unsigned i = 0; i <= NIO_LIFO_POLLS_MAX && turns.log[turns.count - 1] != letter; i++)
            (void)rig_step(worker);
        cr_assert_eq(turns.log[turns.count - 1], letter, "%u polls: %s", turns.count - from,
                     turns.log);
    }
    rig_settle(handle);
    rig_stop(handle);
}

Test(yield, what_comes_from_outside_waits_no_longer_than_the_interval)
{
    struct numio_config config = rig_config(four_workers);
    config.inject_interval = 16;
    struct numio_handle *handle = rig_build(&config);
    struct nio_worker *worker = handle->workers[0];
    struct turns turns = { .count = 0 };
    spawn_taker(handle, worker, &turns, 'a', 100, NUMIO_AFFINITY_ANY);
    cr_assert(rig_step(worker));
    spawn_taker(handle, NULL, &turns, 'b', 1, NUMIO_AFFINITY_ANY);
    while (rig_step(worker)) { /* bounded by their polls */
    }
    const char *other = strchr(turns.log, 'b');
    cr_assert_not_null(other);
    cr_assert_leq(other - turns.log, 17, "%s", turns.log);
    rig_stop(handle);
}
