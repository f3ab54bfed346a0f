/* SPDX-License-Identifier: MIT */
/* Workers that retire and come back, stepped by hand. */
#include "runtime/sched/worker.h"

#include <criterion/criterion.h>

#include "tests/sched_rig.h"
#include "tests/seeded.h"

TestSuite(retire, .timeout = 60);

static const char four_workers[] = "pack:1 numa:1 core:4 pu:1";
static const char two_nodes[] = "pack:2 numa:1 core:2 pu:1";

/* A task that notes who polled it, and ends at the `limit`-th poll; it yields until then. */
struct note {
    unsigned polls, limit;
    int worker;
    unsigned children; /* spawned by its last poll */
    struct note *child_notes;
};

static enum numio_poll poll_noting(void *state, struct numio_context *cx);

static void spawn_noting(struct numio_handle *handle, struct note *note,
                         enum numio_affinity affinity, int where)
{
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = affinity;
    if (affinity == NUMIO_AFFINITY_WORKER)
        opts.worker = where;
    if (affinity == NUMIO_AFFINITY_NODE)
        opts.node = where;
    struct numio_future future = { .poll = poll_noting, .state = &note, .size = sizeof note };
    if (numio_spawn(handle, &future, &opts, NULL) != 0)
        note->worker = -2; /* the test notices */
}

static enum numio_poll poll_noting(void *state, struct numio_context *cx)
{
    struct note *note = *(struct note **)state;
    note->worker = numio_current_worker();
    if (++note->polls < note->limit) {
        numio_context_yield(cx);
        return NUMIO_PENDING;
    }
    for (unsigned i = 0; i < note->children; i++)
        spawn_noting(NULL, &note->child_notes[i], NUMIO_AFFINITY_ANY, 0);
    return NUMIO_READY;
}

static void spawn_on(struct nio_worker *worker, struct note *note, enum numio_affinity affinity,
                     int where)
{
    nio_worker_set_current(worker);
    spawn_noting(worker->handle, note, affinity, where);
    nio_worker_set_current(NULL);
}

static void retire(struct nio_worker *worker)
{
    nio_worker_order(worker, NIO_ORDER_RETIRE);
    (void)rig_step(worker);
    (void)rig_step(worker);
    cr_assert(worker->is_retired);
}

static uint32_t queued_at(const struct nio_worker *worker)
{
    uint32_t count = nio_lifo_peek(&worker->lifo) != NULL;
    for (unsigned which = 0; which < NIO_QUEUE_COUNT; which++)
        count += nio_local_queue_length(&worker->queues[which]);
    return count;
}

Test(retire, what_is_queued_goes_to_the_node_and_is_run_by_the_others)
{
    enum { COUNT = 300 }; /* more than a queue holds */
    static struct note notes[COUNT];
    struct numio_handle *handle = rig_start(four_workers);
    for (unsigned i = 0; i < COUNT; i++) {
        notes[i] = (struct note){ .limit = 1, .worker = -1 };
        spawn_on(handle->workers[2], &notes[i], i % 2 ? NUMIO_AFFINITY_ANY : NUMIO_AFFINITY_NODE,
                 0);
    }
    nio_worker_order(handle->workers[2], NIO_ORDER_RETIRE);
    for (unsigned i = 0; i < 2 * NIO_DRIVER_INTERVAL; i++)
        (void)rig_step(handle->workers[2]);
    cr_assert(handle->workers[2]->is_retired, "a busy worker sees the order within its interval");
    cr_assert_eq(queued_at(handle->workers[2]), 0);
    uint64_t polls = rig_polls(handle->workers[2]);
    cr_assert_leq(polls, NIO_DRIVER_INTERVAL);
    rig_settle(handle);
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_eq(notes[i].polls, 1, "task %u was lost", i);
    cr_assert_eq(rig_polls(handle->workers[2]), polls, "a retired worker ran a task of others");
    rig_stop(handle);
}

static bool is_notified(const struct nio_worker *worker)
{
    /* relaxed: one thread */
    return atomic_load_explicit(&worker->parker.state, memory_order_relaxed) == NIO_PARKER_NOTIFIED;
}

Test(retire, an_order_wakes_the_worker)
{
    struct numio_handle *handle = rig_start(four_workers);
    nio_worker_order(handle->workers[1], NIO_ORDER_RETIRE);
    cr_assert(is_notified(handle->workers[1]));
    rig_stop(handle);
}

Test(retire, what_is_given_away_wakes_somebody_who_has_gone_to_sleep_since)
{
    struct note notes[2] = { { .limit = 1 }, { .limit = 1 } };
    struct numio_handle *handle = rig_start(four_workers);
    for (unsigned i = 0; i < 2; i++) /* one stays in the LIFO slot */
        spawn_on(handle->workers[0], &notes[i], NUMIO_AFFINITY_ANY, 0);
    nio_lifo_set_open(&handle->workers[0]->lifo, false);
    struct nio_task *task = nio_lifo_take(&handle->workers[0]->lifo);
    nio_worker_set_current(handle->workers[0]);
    nio_schedule_local(handle->workers[0], task, NIO_PLACE_TAIL);
    nio_worker_order(handle->workers[0], NIO_ORDER_RETIRE);
    nio_follow_order(handle->workers[0]);
    nio_idle_sleep(&handle->nodes[0]->idle, 3, false); /* after both were offered */
    cr_assert(nio_serve_retired(handle->workers[0], false));
    nio_worker_set_current(NULL);
    cr_assert(is_notified(handle->workers[3]));
    handle->workers[3]->is_searching = nio_idle_leave(&handle->nodes[0]->idle, 3, false);
    rig_settle(handle);
    cr_assert(notes[0].polls == 1 && notes[1].polls == 1);
    rig_stop(handle);
}

Test(retire, pinned_tasks_are_served_and_what_they_spawn_is_given_away)
{
    static struct note children[10];
    struct numio_handle *handle = rig_start(four_workers);
    struct nio_worker *retired = handle->workers[1];
    retire(retired);
    struct note pinned = { .limit = 3, .worker = -1, .children = 10, .child_notes = children };
    for (unsigned i = 0; i < 10; i++)
        children[i] = (struct note){ .limit = 1, .worker = -1 };
    spawn_noting(handle, &pinned, NUMIO_AFFINITY_WORKER, 1);
    for (unsigned i = 0; i < 3; i++)
        cr_assert(rig_step(retired));
    cr_assert_eq(pinned.polls, 3);
    cr_assert_eq(pinned.worker, 1);
    cr_assert_eq(queued_at(retired), 0);
    rig_settle(handle);
    for (unsigned i = 0; i < 10; i++) {
        cr_assert_eq(children[i].polls, 1);
        cr_assert_neq(children[i].worker, 1);
    }
    rig_stop(handle);
}

Test(retire, a_retired_worker_robs_nobody_and_takes_nothing_of_the_node)
{
    enum { COUNT = 40 };
    static struct note notes[COUNT];
    struct numio_handle *handle = rig_start(four_workers);
    retire(handle->workers[3]);
    for (unsigned i = 0; i < COUNT; i++) {
        notes[i] = (struct note){ .limit = 1, .worker = -1 };
        if (i % 2)
            spawn_on(handle->workers[0], &notes[i], NUMIO_AFFINITY_ANY, 0);
        else
            spawn_noting(handle, &notes[i], NUMIO_AFFINITY_ANY, 0); /* to the inject queue */
    }
    for (unsigned i = 0; i < 10; i++)
        cr_assert_not(rig_step(handle->workers[3]));
    rig_settle(handle);
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert(notes[i].polls == 1 && notes[i].worker != 3);
    rig_stop(handle);
}

Test(retire, an_active_worker_again_takes_its_part)
{
    struct numio_handle *handle = rig_start(four_workers);
    struct nio_worker *worker = handle->workers[0];
    struct note note = { .limit = 1, .worker = -1 };
    retire(worker);
    spawn_noting(handle, &note, NUMIO_AFFINITY_ANY, 0);
    cr_assert_not(rig_step(worker));
    nio_worker_order(worker, 0);
    cr_assert(rig_step(worker));
    cr_assert_not(worker->is_retired);
    cr_assert_eq(note.worker, 0);
    rig_stop(handle);
}

Test(retire, a_searcher_that_retires_wakes_the_next)
{
    struct numio_handle *handle = rig_start(four_workers);
    struct nio_idle *idle = &handle->nodes[0]->idle;
    struct nio_worker *searcher = handle->workers[0];
    cr_assert(nio_idle_begin_search(idle));
    searcher->is_searching = true;
    nio_idle_sleep(idle, 2, false);
    struct note note = { .limit = 1, .worker = -1 };
    spawn_noting(handle, &note, NUMIO_AFFINITY_ANY, 0); /* wakes nobody: somebody searches */
    cr_assert_not(is_notified(handle->workers[2]));
    nio_worker_order(searcher, NIO_ORDER_RETIRE);
    nio_worker_set_current(searcher);
    nio_follow_order(searcher);
    nio_worker_set_current(NULL);
    cr_assert(is_notified(handle->workers[2]));
    handle->workers[2]->is_searching = nio_idle_leave(idle, 2, false);
    rig_settle(handle);
    cr_assert_eq(note.polls, 1);
    nio_idle_check(idle);
    rig_stop(handle);
}

Test(retire, orders_about_spinning_are_followed_without_retiring)
{
    struct numio_config config = rig_config(four_workers);
    config.idle = NUMIO_IDLE_BALANCED;
    struct numio_handle *handle = rig_build(&config);
    struct nio_worker *worker = handle->workers[0];
    worker->can_spin = true; /* as with four real CPUs */
    handle->plan->is_oversubscribed = false;
    cr_assert(nio_may_spin(worker));
    nio_worker_order(worker, NIO_ORDER_NO_SPIN);
    (void)rig_step(worker);
    cr_assert_not(nio_may_spin(worker));
    cr_assert_not(worker->is_retired);
    nio_worker_order(worker, 0);
    (void)rig_step(worker);
    cr_assert(nio_may_spin(worker));
    rig_stop(handle);
}

Test(retire, closing_ends_the_tasks_of_retired_workers_too)
{
    static struct note notes[20];
    struct numio_handle *handle = rig_start(two_nodes);
    retire(handle->workers[1]);
    retire(handle->workers[3]);
    for (unsigned i = 0; i < 20; i++) {
        notes[i] = (struct note){ .limit = 1000000, .worker = -1 };
        spawn_noting(handle, &notes[i], NUMIO_AFFINITY_WORKER, (int)i % 4);
    }
    for (unsigned i = 0; i < 80; i++)
        (void)rig_step(handle->workers[i % 4]);
    for (unsigned i = 0; i < 20; i++)
        cr_assert(notes[i].polls > 0 && notes[i].worker == (int)i % 4);
    rig_stop(handle); /* asserts that no task is left */
}
