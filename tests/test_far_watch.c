/* SPDX-License-Identifier: MIT */
/* A few tasks that wait on a node where nobody gets on are found by another node. */
#include "runtime/sched/stuck.h"

#include <criterion/criterion.h>

#include "runtime/sched/policy.h"
#include "tests/sched_rig.h"

TestSuite(far_watch, .timeout = 100);

static const char two_nodes[] = "pack:2 numa:1 core:2 pu:1";
static const char one_node[] = "pack:1 numa:1 core:4 pu:1";

static enum numio_poll note_node(void *state, struct numio_context *cx)
{
    (void)cx;
    **(int **)state = numio_current_node();
    return NUMIO_READY;
}

/* From a poll of the worker, which stands still afterwards; one of the tasks is in its LIFO slot.
 */
static void spawn_from(struct nio_worker *worker, int *nodes, unsigned count)
{
    nio_worker_set_current(worker);
    for (unsigned i = 0; i < count; i++) {
        int *node = &nodes[i];
        struct numio_future future = { .poll = note_node, .state = &node, .size = sizeof node };
        *node = -1;
        cr_assert_eq(numio_spawn(NULL, &future, NULL, NULL), 0);
    }
    nio_worker_set_current(NULL);
}

/* From outside, to node 0. */
static void spawn_outside(struct numio_handle *handle, enum numio_affinity affinity, int *ret_node)
{
    struct numio_future future = { .poll = note_node, .state = &ret_node, .size = sizeof ret_node };
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = affinity;
    if (affinity == NUMIO_AFFINITY_WORKER)
        opts.worker = 0;
    else
        opts.node = 0;
    *ret_node = -1;
    cr_assert_eq(numio_spawn(handle, &future, &opts, NULL), 0);
}

/* One look of an idle worker; `since_ns`: so long after its last one.  Whether it took something.
 */
static bool looks(struct nio_worker *thief, uint64_t since_ns)
{
    thief->idle_since_ns = nio_now_ns() - 10 * (uint64_t)NIO_WATCH_NS;
    thief->far_watch.since_ns -= since_ns;
    thief->is_searching = true; /* it may look at others */
    (void)nio_idle_begin_search(&thief->node->idle);
    bool has_taken = rig_step(thief);
    if (thief->is_searching)
        (void)nio_idle_end_search(&thief->node->idle);
    thief->is_searching = false;
    return has_taken;
}

static void sleep_all(struct nio_node *node)
{
    for (unsigned i = 0; i < node->worker_count; i++)
        nio_idle_sleep(&node->idle, i, false);
}

/* One that was put to sleep; if it was called meanwhile it counts as a searcher. */
static void wake_one(struct nio_node *node, unsigned index)
{
    if (nio_idle_leave(&node->idle, index, false))
        (void)nio_idle_end_search(&node->idle);
}

static void wake_from(struct nio_node *node, unsigned first)
{
    for (unsigned i = first; i < node->worker_count; i++)
        wake_one(node, i);
}

static unsigned count_asleep(const struct nio_node *node)
{
    return nio_idle_sleeping(nio_idle_load(&node->idle));
}

Test(far_watch, what_waits_behind_a_worker_that_does_not_get_on_is_taken)
{
    struct numio_handle *handle = rig_start(two_nodes);
    int nodes[3];
    spawn_from(handle->workers[0], nodes, 3);
    cr_assert_not(looks(handle->workers[2], 0), "at the first look it is only suspected");
    cr_assert_not(looks(handle->workers[2], 0), "and it may have begun a moment ago");
    cr_assert(looks(handle->workers[2], NIO_FAR_STUCK_NS));
    cr_assert_eq(nodes[0], 1, "the oldest first");
    rig_stop(handle);
}

Test(far_watch, what_waits_behind_a_busy_worker_is_left_to_it)
{
    struct numio_handle *handle = rig_start(two_nodes);
    int nodes[8];
    for (unsigned round = 0; round < 4; round++) {
        spawn_from(handle->workers[0], nodes, 4);
        cr_assert_not(looks(handle->workers[2], NIO_FAR_STUCK_NS), "round %u", round);
        cr_assert(rig_step(handle->workers[0]), "it gets on");
        cr_assert_not(looks(handle->workers[2], NIO_FAR_STUCK_NS), "round %u", round);
        rig_settle(handle);
    }
    cr_assert_eq(nio_counter(&handle->workers[2]->counters.stolen_far), 0);
    rig_stop(handle);
}

Test(far_watch, a_stuck_worker_is_found_among_busy_ones)
{
    struct numio_handle *handle = rig_start("pack:4 numa:1 core:1 pu:1");
    int busy_nodes[3], stuck_nodes[3];
    bool has_taken = false;
    spawn_from(handle->workers[2], stuck_nodes, 3);
    for (unsigned i = 0; i < 8 && !has_taken; i++) {
        spawn_from(handle->workers[1], busy_nodes, 3);
        cr_assert(rig_step(handle->workers[1]));
        has_taken = looks(handle->workers[0], NIO_FAR_STUCK_NS);
        while (rig_step(handle->workers[1]))
            continue;
    }
    cr_assert(has_taken);
    cr_assert_eq(stuck_nodes[0], 0);
    rig_stop(handle);
}

Test(far_watch, what_waits_in_a_stuck_nodes_own_queues_is_taken)
{
    struct numio_handle *handle = rig_start(two_nodes);
    int node;
    spawn_outside(handle, NUMIO_AFFINITY_ANY, &node);
    cr_assert_not(looks(handle->workers[2], 0));
    cr_assert(looks(handle->workers[2], NIO_FAR_STUCK_NS));
    cr_assert_eq(node, 1);
    rig_stop(handle);
}

Test(far_watch, tasks_of_a_stuck_node_do_not_leave_it)
{
    struct numio_handle *handle = rig_start(two_nodes);
    int node;
    spawn_outside(handle, NUMIO_AFFINITY_NODE, &node);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_not(looks(handle->workers[2], NIO_FAR_STUCK_NS));
    rig_settle(handle);
    cr_assert_eq(node, 0);
    rig_stop(handle);
}

Test(far_watch, a_sleeper_watches_while_another_node_has_nobody_asleep)
{
    struct numio_handle *handle = rig_start(two_nodes);
    sleep_all(handle->nodes[1]);
    cr_assert_eq(nio_watch_begin(handle->workers[2]), NIO_WATCH_FAR);
    cr_assert_eq(nio_watch_begin(handle->workers[3]), 0, "one is enough");
    nio_watch_end(handle->workers[2], NIO_WATCH_FAR);
    nio_idle_sleep(&handle->nodes[0]->idle, 0, false);
    cr_assert_eq(nio_watch_begin(handle->workers[2]), 0, "the sleeper there is woken by pushes");
    nio_idle_sleep(&handle->nodes[0]->idle, 1, false);
    cr_assert_eq(nio_watch_begin(handle->workers[2]), 0);
    wake_from(handle->nodes[0], 0);
    wake_from(handle->nodes[1], 0);
    rig_stop(handle);
}

Test(far_watch, at_home_one_sleeper_watches_while_a_sibling_is_busy)
{
    struct numio_handle *handle = rig_start(one_node);
    nio_idle_sleep(&handle->nodes[0]->idle, 0, false);
    nio_idle_sleep(&handle->nodes[0]->idle, 1, false);
    cr_assert_eq(nio_watch_begin(handle->workers[0]), NIO_WATCH_HOME);
    cr_assert_eq(nio_watch_begin(handle->workers[1]), 0, "one is enough");
    nio_watch_end(handle->workers[0], NIO_WATCH_HOME);
    nio_idle_sleep(&handle->nodes[0]->idle, 2, false);
    nio_idle_sleep(&handle->nodes[0]->idle, 3, false);
    cr_assert_eq(nio_watch_begin(handle->workers[0]), 0, "nobody is busy");
    wake_from(handle->nodes[0], 0);
    rig_stop(handle);
}

Test(far_watch, a_push_of_few_tasks_wakes_a_watcher_once)
{
    struct numio_handle *handle = rig_start(two_nodes);
    int nodes[8];
    struct nio_worker *pusher = handle->workers[0];
    sleep_all(handle->nodes[1]);
    spawn_from(pusher, nodes, 2);
    cr_assert_eq(count_asleep(handle->nodes[1]), 1, "one is called");
    spawn_from(pusher, nodes + 2, 2);
    cr_assert_eq(count_asleep(handle->nodes[1]), 1, "and no second");
    wake_from(handle->nodes[1], 0);
    rig_stop(handle);
}

Test(far_watch, nobody_is_called_while_somebody_watches_or_sleeps_at_home)
{
    struct numio_handle *handle = rig_start(two_nodes);
    int nodes[4];
    sleep_all(handle->nodes[1]);
    cr_assert_eq(nio_watch_begin(handle->workers[2]), NIO_WATCH_FAR);
    spawn_from(handle->workers[0], nodes, 2);
    cr_assert_eq(count_asleep(handle->nodes[1]), 2);
    nio_watch_end(handle->workers[2], NIO_WATCH_FAR);
    nio_idle_sleep(&handle->nodes[0]->idle, 1, false);
    spawn_from(handle->workers[0], nodes + 2, 2);
    cr_assert_eq(count_asleep(handle->nodes[1]), 2);
    wake_from(handle->nodes[0], 1);
    wake_from(handle->nodes[1], 0);
    rig_stop(handle);
}

/* One may look after its own node and after another. */
Test(far_watch, a_home_watcher_watches_afar_as_well)
{
    struct numio_handle *handle = rig_start(two_nodes);
    nio_idle_sleep(&handle->nodes[1]->idle, 0, false);
    cr_assert_eq(nio_watch_begin(handle->workers[2]), NIO_WATCH_HOME | NIO_WATCH_FAR);
    nio_watch_end(handle->workers[2], NIO_WATCH_HOME | NIO_WATCH_FAR);
    wake_one(handle->nodes[1], 0);
    rig_stop(handle);
}

/* A watcher that is woken by work of its own and goes to it. */
Test(far_watch, a_watcher_that_finds_work_hands_the_watch_on)
{
    struct numio_handle *handle = rig_start(two_nodes);
    struct nio_worker *watcher = handle->workers[2];
    sleep_all(handle->nodes[1]);
    cr_assert_eq(nio_watch_begin(watcher), NIO_WATCH_FAR);
    nio_watch_end(watcher, NIO_WATCH_FAR);
    (void)nio_idle_leave(&handle->nodes[1]->idle, 0, false);
    watcher->idle_since_ns = nio_now_ns();
    nio_end_idle(watcher);
    cr_assert_eq(count_asleep(handle->nodes[1]), 0, "its sibling is called");
    nio_idle_sleep(&handle->nodes[0]->idle, 0, false);
    watcher->watched_afar = true;
    nio_end_idle(watcher);
    cr_assert_eq(count_asleep(handle->nodes[0]), 1, "there is nothing to watch any more");
    wake_from(handle->nodes[1], 1);
    wake_one(handle->nodes[0], 0);
    rig_stop(handle);
}

/* Whoever leaves a sleep may have made its node full: it asks again. */
Test(far_watch, a_node_asks_again_once_a_sleeper_has_left)
{
    struct numio_handle *handle = rig_start("pack:3 numa:1 core:1 pu:1");
    int nodes[6];
    sleep_all(handle->nodes[1]);
    sleep_all(handle->nodes[2]);
    spawn_from(handle->workers[0], nodes, 2);
    cr_assert_eq(count_asleep(handle->nodes[1]) + count_asleep(handle->nodes[2]), 1);
    spawn_from(handle->workers[0], nodes + 2, 2);
    cr_assert_eq(count_asleep(handle->nodes[1]) + count_asleep(handle->nodes[2]), 1, "not again");
    nio_watch_ask_anew(handle->nodes[0]);
    spawn_from(handle->workers[0], nodes + 4, 2);
    cr_assert_eq(count_asleep(handle->nodes[1]) + count_asleep(handle->nodes[2]), 0, "now it does");
    wake_from(handle->nodes[1], 0);
    wake_from(handle->nodes[2], 0);
    rig_stop(handle);
}

/* What waits in a node's queues is the node's as long as any of its workers gets on. */
Test(far_watch, a_nodes_queues_are_left_to_it_while_one_of_it_gets_on)
{
    struct numio_handle *handle = rig_start(two_nodes);
    int outside[6], own[6];
    for (unsigned round = 0; round < 3; round++) {
        spawn_outside(handle, NUMIO_AFFINITY_ANY, &outside[round]);
        spawn_from(handle->workers[1], &own[round], 1);
        cr_assert_not(looks(handle->workers[2], NIO_FAR_STUCK_NS));
        handle->workers[1]->inject_countdown = 100; /* its own first */
        cr_assert(rig_step(handle->workers[1]));
        cr_assert_not(looks(handle->workers[2], NIO_FAR_STUCK_NS), "round %u", round);
    }
    rig_settle(handle);
    rig_stop(handle);
}

/* Who finds one task as the last searcher leaves what else there is to others. */
Test(far_watch, the_last_searcher_hands_on_what_waits_in_its_nodes_queues)
{
    enum { COUNT = NIO_FAR_DEPTH };
    struct numio_handle *handle = rig_start("pack:2 numa:1 core:1 pu:1");
    struct nio_worker *worker = handle->workers[0];
    int nodes[COUNT], own;
    sleep_all(handle->nodes[0]);
    sleep_all(handle->nodes[1]);
    spawn_outside(handle, NUMIO_AFFINITY_WORKER, &own);
    for (unsigned i = 0; i < COUNT; i++)
        spawn_outside(handle, NUMIO_AFFINITY_ANY, &nodes[i]);
    cr_assert_eq(count_asleep(handle->nodes[1]), 1, "the sleeper at home was called");
    worker->is_searching = nio_idle_leave(&handle->nodes[0]->idle, 0, false);
    cr_assert(worker->is_searching);
    cr_assert(rig_step(worker), "it has mail");
    cr_assert_eq(own, 0);
    cr_assert_eq(count_asleep(handle->nodes[1]), 0, "another node is called for the rest");
    wake_from(handle->nodes[1], 0);
    rig_stop(handle);
}

Test(far_watch, a_push_from_outside_calls_one_as_well)
{
    struct numio_handle *handle = rig_start(two_nodes);
    int node;
    sleep_all(handle->nodes[1]);
    spawn_outside(handle, NUMIO_AFFINITY_ANY, &node);
    cr_assert_eq(count_asleep(handle->nodes[1]), 1);
    wake_from(handle->nodes[1], 0);
    rig_stop(handle);
}
