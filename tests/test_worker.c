/* SPDX-License-Identifier: MIT */
#include "runtime/sched/worker.h"

#include <criterion/criterion.h>

#include <numio/io.h>

#include "runtime/sched/spawn.h"
#include "runtime/task/wake.h"
#include "tests/sched_rig.h"
#include "tests/seeded.h"

TestSuite(worker, .timeout = 100);

static const char two_nodes[] = "pack:2 numa:1 core:2 pu:1";
static const char four_workers[] = "pack:1 numa:1 core:4 pu:1";

/* --- A task that notes where and how often it was polled ------------------------------------ */

struct note {
    unsigned polls, limit; /* READY at the limit-th poll */
    bool yields;           /* else it is pending without a wake */
    int worker, node;      /* of the last poll */
    bool is_dropped;
    struct numio_waker waker;
    bool keeps_waker; /* takes one at its next poll */
};

struct noting {
    struct note *note;
};

static enum numio_poll poll_noting(void *state, struct numio_context *cx)
{
    struct note *note = ((struct noting *)state)->note;
    note->polls++;
    note->worker = numio_current_worker();
    note->node = numio_current_node();
    if (note->keeps_waker) {
        note->keeps_waker = false;
        note->waker = numio_context_waker(cx);
    }
    if (note->polls == note->limit)
        return NUMIO_READY;
    if (note->yields)
        numio_context_yield(cx);
    return NUMIO_PENDING;
}

static void drop_noting(void *state)
{
    ((struct noting *)state)->note->is_dropped = true;
}

static void spawn_noting(struct numio_handle *handle, struct note *note,
                         const struct numio_spawn_opts *opts)
{
    struct noting state = { note };
    struct numio_future future = {
        .poll = poll_noting, .drop = drop_noting, .state = &state, .size = sizeof state
    };
    cr_assert_eq(numio_spawn(handle, &future, opts, NULL), 0, "%s", numio_strerror_detail());
}

/* As if `worker`'s running task spawned it. */
static void spawn_from(struct nio_worker *worker, struct note *note,
                       const struct numio_spawn_opts *opts)
{
    nio_worker_set_current(worker);
    spawn_noting(worker->handle, note, opts);
    nio_worker_set_current(NULL);
}

static struct numio_spawn_opts opts_of(enum numio_affinity affinity, int node, int worker)
{
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = affinity;
    opts.node = node;
    opts.worker = worker;
    return opts;
}

static bool is_notified(const struct nio_worker *worker)
{
    /* relaxed: one thread */
    return atomic_load_explicit(&worker->parker.state, memory_order_relaxed) == NIO_PARKER_NOTIFIED;
}

static unsigned count_notified(const struct numio_handle *handle)
{
    unsigned count = 0;
    for (unsigned i = 0; i < handle->worker_count; i++)
        count += is_notified(handle->workers[i]);
    return count;
}

static uint64_t wakes_sent(const struct numio_handle *handle)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < handle->worker_count; i++)
        count += nio_counter(&handle->workers[i]->counters.wakes_sent);
    return count;
}

/* --- Order and fairness --------------------------------------------------------------------- */

Test(worker, tasks_that_wake_each_other_hold_up_the_queue_for_a_few_polls_only)
{
    struct numio_handle *handle = rig_start("pack:1 core:1 pu:1");
    struct nio_worker *worker = handle->workers[0];
    struct note ping = { .keeps_waker = true }, pong = { .keeps_waker = true };
    struct note other = { .yields = true, .limit = 50 };
    spawn_from(worker, &ping, NULL);
    spawn_from(worker, &pong, NULL);
    rig_settle(handle);
    spawn_from(worker, &other, NULL);
    (void)rig_step(worker);
    unsigned longest = 0, since = 0, round = 0;
    while (other.polls < other.limit && longest <= 100) {
        unsigned before = other.polls;
        nio_worker_set_current(worker); /* the running task wakes its partner */
        numio_waker_wake_by_ref(round++ % 2 ? &ping.waker : &pong.waker);
        nio_worker_set_current(NULL);
        (void)rig_step(worker);
        since = other.polls != before ? 0 : since + 1;
        longest = since > longest ? since : longest;
    }
    cr_assert_eq(other.polls, other.limit);
    /* the cap; and the partner that stands in the queue before it, with a poll from the slot */
    cr_assert_leq(longest, NIO_LIFO_POLLS_MAX + 2, "waited for %u polls", longest);
    cr_assert_geq(longest, NIO_LIFO_POLLS_MAX, "the slot is meant to go first");
    numio_waker_drop(&ping.waker);
    numio_waker_drop(&pong.waker);
    rig_stop(handle);
}

Test(worker, an_injected_task_waits_no_longer_than_the_interval)
{
    static const unsigned intervals[] = { 1, 2, 7, 61 };
    for (unsigned i = 0; i < NIO_ARRAY_LEN(intervals); i++) {
        struct numio_config config = rig_config("pack:1 core:1 pu:1");
        config.inject_interval = intervals[i];
        struct numio_handle *handle = rig_build(&config);
        struct note local[10] = { { 0 } };
        for (unsigned k = 0; k < 10; k++) {
            local[k].yields = true;
            spawn_from(handle->workers[0], &local[k], NULL);
        }
        for (unsigned round = 0; round < 20; round++) {
            struct note injected = { .limit = 1 };
            (void)rig_step(handle->workers[0]);
            spawn_noting(handle, &injected, NULL);
            unsigned steps = 0;
            while (injected.polls == 0 && steps++ < 1000)
                (void)rig_step(handle->workers[0]);
            cr_assert_leq(steps, intervals[i]);
        }
        rig_stop(handle);
        for (unsigned k = 0; k < 10; k++)
            cr_assert(local[k].is_dropped);
    }
}

Test(worker, pinned_and_other_tasks_take_turns)
{
    struct numio_handle *handle = rig_start("pack:1 core:1 pu:1");
    struct numio_spawn_opts pinned = opts_of(NUMIO_AFFINITY_WORKER, NUMIO_NODE_ANY, 0);
    struct numio_spawn_opts node = opts_of(NUMIO_AFFINITY_NODE, 0, NUMIO_WORKER_ANY);
    const struct numio_spawn_opts *opts[] = { NULL, &node, &pinned };
    struct note notes[3] = { { 0 } };
    for (unsigned i = 0; i < 3; i++) {
        notes[i].yields = true;
        spawn_from(handle->workers[0], &notes[i], opts[i]);
    }
    for (unsigned i = 0; i < 400; i++)
        (void)rig_step(handle->workers[0]);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_geq(notes[i].polls, 400 / 4, "class %u was polled %u times of 400", i,
                      notes[i].polls);
    rig_stop(handle);
}

Test(worker, what_overflows_a_local_queue_is_run_all_the_same)
{
    enum { COUNT = 5 * NIO_LOCAL_QUEUE_SLOTS };
    static struct note notes[COUNT];
    struct numio_handle *handle = rig_start(four_workers);
    for (unsigned i = 0; i < COUNT; i++) {
        notes[i].limit = 1;
        spawn_from(handle->workers[0], &notes[i], NULL);
    }
    cr_assert_gt(nio_counter(&handle->workers[0]->counters.overflowed), 0);
    rig_settle(handle);
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_eq(notes[i].polls, 1);
    cr_assert_eq(numio_live_tasks(handle), 0);
    rig_stop(handle);
}

/* A future that spawns a child of its kind and joins it at once, `depth` deep. */
struct nest {
    unsigned depth;
    unsigned budget; /* of the outermost, before */
    unsigned *ret_budget;
};

static enum numio_poll poll_nest(void *arg, struct numio_context *cx)
{
    struct nest *nest = arg;
    struct nio_worker *worker = nio_worker_current();
    struct numio_join *join = NULL;
    int64_t result;
    if (nest->budget)
        worker->budget.left = nest->budget;
    if (nest->depth > 0) {
        struct nest inner = { .depth = nest->depth - 1 };
        struct numio_future future = { .poll = poll_nest, .state = &inner, .size = sizeof inner };
        if (numio_spawn(worker->handle, &future, NULL, &join) == 0)
            (void)numio_join_poll(&join, cx, NULL, 0, &result); /* whether it has ended or not */
        numio_join_detach(&join);
    }
    if (nest->ret_budget)
        *nest->ret_budget = worker->budget.left;
    return NUMIO_READY;
}

Test(worker, tasks_that_run_inside_of_their_joiners_never_enlarge_the_budget)
{
    struct numio_handle *handle = rig_start("pack:1 core:1 pu:1");
    for (unsigned depth = 0; depth < 10; depth++)
        for (unsigned budget = 1; budget < 12; budget++) {
            unsigned after = UINT32_MAX;
            struct nest nest = { depth, budget, &after };
            struct numio_future future = { .poll = poll_nest, .state = &nest, .size = sizeof nest };
            cr_assert_eq(numio_spawn(handle, &future, NULL, NULL), 0);
            rig_settle(handle);
            cr_assert_leq(after, budget, "depth %u", depth);
        }
    rig_stop(handle);
}

/* --- Where tasks go ------------------------------------------------------------------------- */

/* Something was sent that only this worker may run; one that is awake needs no wake for it. */
static bool has_mail(const struct nio_worker *worker)
{
    return !nio_mpsc_is_empty(&worker->mailbox);
}

Test(worker, a_pinned_task_is_polled_by_its_worker_only_and_its_wake_goes_to_that_one)
{
    struct numio_handle *handle = rig_start(two_nodes);
    struct numio_spawn_opts opts = opts_of(NUMIO_AFFINITY_WORKER, NUMIO_NODE_ANY, 3);
    struct note note = { .keeps_waker = true, .limit = 5 };
    spawn_noting(handle, &note, &opts);
    cr_assert(has_mail(handle->workers[3]));
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 3; i++)
            cr_assert_not(rig_step(handle->workers[i]));
        cr_assert(rig_step(handle->workers[3]));
        cr_assert_eq(note.worker, 3);
        nio_worker_set_current(handle->workers[round % 3]);
        numio_waker_wake_by_ref(&note.waker);
        nio_worker_set_current(NULL);
        cr_assert_eq(has_mail(handle->workers[3]), round < 4, "a complete task wakes nobody");
    }
    numio_waker_drop(&note.waker);
    rig_stop(handle);
}

Test(worker, a_task_of_a_node_does_not_leave_it)
{
    enum { COUNT = 60 };
    static struct note notes[COUNT];
    struct numio_handle *handle = rig_start(two_nodes);
    struct numio_spawn_opts opts = opts_of(NUMIO_AFFINITY_NODE, 1, NUMIO_WORKER_ANY);
    for (unsigned i = 0; i < COUNT; i++) {
        notes[i].limit = 1;
        spawn_noting(handle, &notes[i], &opts);
    }
    for (unsigned i = 0; i < 2; i++) {
        handle->workers[i]->idle_since_ns = 1; /* idle for ever: may take anything from afar */
        for (unsigned k = 0; k < 100; k++)
            cr_assert_not(rig_step(handle->workers[i]));
    }
    rig_settle(handle);
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert(notes[i].polls == 1 && notes[i].node == 1);
    rig_stop(handle);
}

/* Steps the worker of node 1 that may search, as if it had been idle for `idle_ns`; whether it took
 * something from node 0. */
static bool far_thief_takes(struct numio_handle *handle, uint64_t idle_ns, bool *ret_is_quick)
{
    struct nio_worker *thief = handle->workers[handle->workers[3]->is_searching ? 3 : 2];
    uint64_t start_ns = nio_now_ns();
    thief->idle_since_ns = start_ns - idle_ns;
    bool has_taken = rig_step(thief);
    *ret_is_quick = nio_now_ns() - start_ns + idle_ns < NIO_FAR_IDLE_NS;
    return has_taken;
}

Test(worker, another_node_is_robbed_by_the_idle_if_its_queue_is_deep)
{
    enum { TRIALS = 2000 };
    static struct note notes[NIO_FAR_DEPTH + 1];
    struct numio_handle *handle = rig_start(two_nodes);
    unsigned quick_trials = 0;
    bool is_quick;
    /* One stands in the LIFO slot, the others in the queue. */
    for (unsigned i = 0; i < NIO_FAR_DEPTH; i++)
        spawn_from(handle->workers[0], &notes[i], NULL);
    cr_assert_not(far_thief_takes(handle, NIO_FAR_IDLE_NS, &is_quick),
                  "%d tasks are not worth the way", NIO_FAR_DEPTH - 1);
    spawn_from(handle->workers[0], &notes[NIO_FAR_DEPTH], NULL);
    for (unsigned i = 0; i < TRIALS && quick_trials < 10; i++) {
        bool has_taken = far_thief_takes(handle, 0, &is_quick);
        if (!is_quick && has_taken)
            break; /* this machine stood still meanwhile: says nothing */
        cr_assert_not(has_taken, "it may be needed at home in a moment");
        quick_trials += is_quick;
    }
    cr_assert(far_thief_takes(handle, NIO_FAR_IDLE_NS, &is_quick), "a deep queue is");
    rig_settle(handle);
    cr_assert_gt(nio_counter(&handle->workers[2]->counters.stolen_far) +
                     nio_counter(&handle->workers[3]->counters.stolen_far),
                 0);
    rig_stop(handle);
}

/* A burst of pushes while the one sleeper at home is on its way wakes nobody else: whoever finds
 * work as the last searcher must. */
Test(worker, the_last_searcher_hands_its_role_on_to_another_node)
{
    static struct note notes[4 * NIO_FAR_DEPTH];
    struct numio_handle *handle = rig_start(two_nodes);
    nio_idle_sleep(&handle->nodes[0]->idle, 1, false);
    nio_idle_sleep(&handle->nodes[1]->idle, 0, false);
    nio_idle_sleep(&handle->nodes[1]->idle, 1, false);
    for (unsigned i = 0; i < NIO_ARRAY_LEN(notes); i++)
        spawn_from(handle->workers[0], &notes[i], NULL);
    cr_assert_eq(count_notified(handle), 1, "the sleeper at home");
    cr_assert(is_notified(handle->workers[1]));
    handle->workers[1]->is_searching =
        nio_idle_leave(&handle->nodes[0]->idle, 1, false); /* as it does when it wakes */
    cr_assert(handle->workers[1]->is_searching);
    cr_assert(rig_step(handle->workers[1]), "it steals half");
    cr_assert_eq(is_notified(handle->workers[2]) + is_notified(handle->workers[3]), 1,
                 "and one of the other node is woken for the rest");
    for (unsigned i = 0; i < 2; i++)
        if (nio_idle_leave(&handle->nodes[1]->idle, i, false))
            handle->workers[2 + i]->is_searching = true;
    rig_stop(handle);
}

Test(worker, a_deep_inject_queue_of_another_node_is_robbed_as_well)
{
    static struct note notes[NIO_FAR_DEPTH];
    struct numio_handle *handle = rig_start(two_nodes);
    struct numio_spawn_opts opts = opts_of(NUMIO_AFFINITY_ANY, 0, NUMIO_WORKER_ANY);
    bool is_quick;
    for (unsigned i = 0; i < NIO_FAR_DEPTH; i++)
        spawn_noting(handle, &notes[i], &opts);
    cr_assert(far_thief_takes(handle, NIO_FAR_IDLE_NS, &is_quick));
    struct nio_node *home = handle->nodes[0];
    uint64_t left = nio_node_far_depth(home);
    cr_assert_eq(left, NIO_FAR_DEPTH - nio_policy_share(NIO_FAR_DEPTH, false), "a share of it");
    cr_assert_eq(nio_counter(&handle->workers[2]->counters.stolen_far) +
                     nio_counter(&handle->workers[3]->counters.stolen_far),
                 NIO_FAR_DEPTH - left, "each task that is taken is counted");
    rig_stop(handle);
}

/* --- Searching and waking ------------------------------------------------------------------- */

Test(worker, at_most_half_of_a_node_searches)
{
    struct numio_handle *handle = rig_start(four_workers);
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < 4; i++)
            (void)rig_step(handle->workers[i]);
    unsigned searching = 0;
    for (unsigned i = 0; i < 4; i++)
        searching += handle->workers[i]->is_searching;
    cr_assert_eq(searching, 2);
    cr_assert_eq(nio_idle_searching(nio_idle_load(&handle->nodes[0]->idle)), 2);
    nio_idle_check(&handle->nodes[0]->idle);
    rig_stop(handle);
}

Test(worker, nobody_is_woken_when_nobody_sleeps)
{
    enum { COUNT = 40 };
    static struct note notes[COUNT];
    struct numio_handle *handle = rig_start(two_nodes);
    for (unsigned i = 0; i < COUNT; i++) {
        notes[i].limit = 1;
        spawn_from(handle->workers[i % 4], &notes[i], NULL);
    }
    cr_assert_eq(count_notified(handle), 0);
    rig_settle(handle);
    cr_assert_eq(wakes_sent(handle), 0);
    rig_stop(handle);
}

Test(worker, one_sleeper_is_woken_for_what_can_be_stolen_and_none_for_the_lifo_slot)
{
    struct numio_handle *handle = rig_start(four_workers);
    struct note notes[4] = { { .limit = 1 }, { .limit = 1 }, { .limit = 1 }, { .limit = 1 } };
    for (unsigned i = 1; i < 4; i++)
        nio_idle_sleep(&handle->nodes[0]->idle, i, false);
    spawn_from(handle->workers[0], &notes[0], NULL);
    cr_assert_eq(count_notified(handle), 0, "the slot's task is run next at home");
    spawn_from(handle->workers[0], &notes[1], NULL);
    cr_assert_eq(count_notified(handle), 1);
    spawn_from(handle->workers[0], &notes[2], NULL);
    spawn_noting(handle, &notes[3], NULL);
    cr_assert_eq(count_notified(handle), 1, "the woken one counts as a searcher");
    unsigned woken = is_notified(handle->workers[1]) ? 1 : is_notified(handle->workers[2]) ? 2 : 3;
    struct nio_worker *worker = handle->workers[woken];
    cr_assert(nio_idle_leave(&handle->nodes[0]->idle, woken, false));
    worker->is_searching = true;
    cr_assert(rig_step(worker));
    cr_assert_eq(count_notified(handle), 2, "the last searcher wakes the next when it finds work");
    for (unsigned i = 1; i < 4; i++)
        if (i != woken && nio_idle_leave(&handle->nodes[0]->idle, i, false))
            handle->workers[i]->is_searching = true;
    rig_settle(handle);
    rig_stop(handle);
}

Test(worker, a_wake_prefers_the_sleeper_that_shares_the_cache)
{
    struct numio_handle *handle = rig_start("pack:1 numa:1 l3:2 core:2 pu:1");
    struct note notes[2] = { { .limit = 1 }, { .limit = 1 } };
    cr_assert_eq(handle->worker_count, 4);
    cr_assert_eq(handle->node_count, 1);
    for (unsigned i = 0; i < 3; i++)
        nio_idle_sleep(&handle->nodes[0]->idle, i, false);
    spawn_from(handle->workers[3], &notes[0], NULL);
    spawn_from(handle->workers[3], &notes[1], NULL);
    cr_assert(is_notified(handle->workers[2]));
    cr_assert_eq(count_notified(handle), 1);
    for (unsigned i = 0; i < 3; i++)
        if (nio_idle_leave(&handle->nodes[0]->idle, i, false))
            handle->workers[i]->is_searching = true;
    rig_stop(handle);
}

Test(worker, another_node_is_woken_only_when_home_is_busy_and_its_queue_deep)
{
    static struct note notes[NIO_FAR_DEPTH + 1];
    struct numio_handle *handle = rig_start(two_nodes);
    nio_idle_sleep(&handle->nodes[1]->idle, 0, false);
    nio_idle_sleep(&handle->nodes[1]->idle, 1, false);
    /* relaxed: this thread alone; where nobody watches one is called to do so (far_watch) */
    atomic_store_explicit(&handle->far_watcher, 1, memory_order_relaxed);
    for (unsigned i = 0; i < NIO_FAR_DEPTH; i++) {
        spawn_from(handle->workers[0], &notes[i], NULL);
        cr_assert_eq(count_notified(handle), 0, "at depth %u", i);
    }
    spawn_from(handle->workers[0], &notes[NIO_FAR_DEPTH], NULL);
    cr_assert_eq(count_notified(handle), 1);
    cr_assert_not(is_notified(handle->workers[1]));
    for (unsigned i = 0; i < 2; i++)
        if (nio_idle_leave(&handle->nodes[1]->idle, i, false))
            handle->workers[2 + i]->is_searching = true;
    rig_stop(handle);
}

/* A sibling that is just busy must not hide the one that is stuck. */
Test(worker, the_task_in_a_stuck_workers_slot_is_taken_while_another_sibling_is_busy)
{
    struct numio_handle *handle = rig_start("pack:1 numa:1 core:3 pu:1");
    struct nio_worker *thief = handle->workers[0], *stuck = handle->workers[1];
    struct nio_worker *busy = handle->workers[2];
    struct note waits = { .limit = 1 }, ping = { .keeps_waker = true };
    spawn_from(busy, &ping, NULL);
    (void)rig_step(busy);
    spawn_from(stuck, &waits, NULL);
    uint64_t end_ns = nio_now_ns() + 10u * UINT64_C(1000000000);
    while (waits.polls == 0 && nio_now_ns() < end_ns) {
        nio_worker_set_current(busy); /* always something in its slot, always another poll */
        numio_waker_wake_by_ref(&ping.waker);
        nio_worker_set_current(NULL);
        (void)rig_step(thief);
        (void)rig_step(busy);
    }
    cr_assert_eq(waits.polls, 1);
    cr_assert_eq(waits.worker, 0);
    numio_waker_drop(&ping.waker);
    rig_stop(handle);
}

/* --- The end -------------------------------------------------------------------------------- */

static int64_t sleep_for_ever(void *arg)
{
    *(int64_t *)arg = numio_sleep_ns(UINT64_C(3600) * 1000000000);
    return 0;
}

Test(worker, closing_ends_every_task_wherever_it_stands)
{
    enum { COUNT = 40 };
    static struct note notes[COUNT];
    static int64_t results[COUNT];
    struct nio_rng rng = seeded_rng(23);
    struct numio_handle *handle = rig_start(two_nodes);
    for (unsigned i = 0; i < COUNT; i++) {
        notes[i].yields = i % 3 == 0;
        if (i % 2)
            spawn_from(handle->workers[nio_rng_below(&rng, 4)], &notes[i], NULL);
        else
            spawn_noting(handle, &notes[i], NULL);
        results[i] = 1;
        cr_assert_eq(numio_spawn_co(handle, sleep_for_ever, &results[i], NULL, NULL), 0);
        for (unsigned k = nio_rng_below(&rng, 4); k > 0; k--)
            (void)rig_step(handle->workers[nio_rng_below(&rng, 4)]);
    }
    rig_close(handle);
    /* The cancelled timers end in the drivers, and are reaped by their workers. */
    for (unsigned i = 0; i < 1000 && numio_live_tasks(handle) > 0; i++)
        rig_settle(handle);
    cr_assert_eq(numio_live_tasks(handle), 0);
    for (unsigned i = 0; i < COUNT; i++) {
        cr_assert(notes[i].is_dropped);
        cr_assert(results[i] == -ECANCELED || results[i] == 1, "task %u got %lld", i,
                  (long long)results[i]);
    }
    rig_stop(handle);
}

/* A spawn that is undone after the workers have looked may be what the end waited for. */
Test(worker, taking_a_task_back_while_closing_is_noticed)
{
    struct numio_handle *handle = rig_start(two_nodes);
    struct nio_placement placement;
    struct nio_task *task;
    cr_assert_eq(nio_place(handle, NULL, &placement), 0);
    cr_assert_eq(
        nio_bind_new_task(&placement, NUMIO_SITE, NIO_TASK_FUTURE, sizeof *task, false, &task), 0);
    rig_close(handle);
    nio_end_check(handle);
    cr_assert_eq(rig_phase(handle), NIO_PHASE_CLOSING, "a bound task is waited for");
    nio_unbind_new_task(&placement, task);
    cr_assert_eq(rig_phase(handle), NIO_PHASE_ENDED);
    rig_stop(handle);
}

/* --- Everything at once --------------------------------------------------------------------- */

enum { CROWD = 60, CROWD_STEPS = 6000 };

/* A task of the crowd; what is said of it is noted by the test and by the task itself. */
struct member {
    struct numio_waker waker;
    bool has_waker;
    bool is_woken; /* since its last poll */
    bool is_done;
    unsigned polls;
    int node, worker; /* where it must run, -1 anywhere */
    bool was_misplaced;
};

struct crowd {
    struct numio_handle *handle;
    struct nio_rng rng; /* decides what tasks do: its stream follows the order of the polls */
    struct member members[CROWD];
    unsigned count;
    uint64_t digest; /* of the order of the polls */
};

struct member_state {
    struct crowd *crowd;
    unsigned index;
};

static void join_crowd(struct crowd *crowd);

static void wake_member(struct crowd *crowd, unsigned index)
{
    struct member *member = &crowd->members[index];
    if (!member->has_waker || member->is_done)
        return;
    member->is_woken = true;
    numio_waker_wake_by_ref(&member->waker);
}

static enum numio_poll poll_member(void *arg, struct numio_context *cx)
{
    struct member_state *state = arg;
    struct crowd *crowd = state->crowd;
    struct member *self = &crowd->members[state->index];
    self->polls++;
    self->is_woken = false;
    self->was_misplaced |= self->node >= 0 && self->node != numio_current_node();
    self->was_misplaced |= self->worker >= 0 && self->worker != numio_current_worker();
    self->was_misplaced |= self->worker < 0 && nio_worker_current()->is_retired;
    crowd->digest = (crowd->digest ^ state->index) * UINT64_C(1099511628211);
    if (!self->has_waker) {
        self->waker = numio_context_waker(cx);
        self->has_waker = true;
    }
    for (uint32_t i = nio_rng_below(&crowd->rng, 3); i > 0; i--)
        wake_member(crowd, nio_rng_below(&crowd->rng, crowd->count));
    if (nio_rng_below(&crowd->rng, 4) == 0)
        join_crowd(crowd);
    switch (nio_rng_below(&crowd->rng, 8)) {
    case 0:
        self->is_done = true;
        return NUMIO_READY;
    case 1:
    case 2:
        self->is_woken = true; /* a yield is a promise to be polled again */
        numio_context_yield(cx);
        return NUMIO_PENDING;
    default:
        return NUMIO_PENDING;
    }
}

static void join_crowd(struct crowd *crowd)
{
    if (crowd->count == CROWD)
        return;
    unsigned index = crowd->count++;
    struct member *member = &crowd->members[index];
    *member = (struct member){ .is_woken = true, .node = -1, .worker = -1 };
    struct member_state state = { crowd, index };
    struct numio_future future = { .poll = poll_member, .state = &state, .size = sizeof state };
    struct numio_spawn_opts opts = opts_of((enum numio_affinity)nio_rng_below(&crowd->rng, 3),
                                           NUMIO_NODE_ANY, NUMIO_WORKER_ANY);
    if (opts.affinity == NUMIO_AFFINITY_NODE)
        opts.node = member->node = (int)nio_rng_below(&crowd->rng, crowd->handle->node_count);
    else if (opts.affinity == NUMIO_AFFINITY_WORKER)
        opts.worker = member->worker = (int)nio_rng_below(&crowd->rng, crowd->handle->worker_count);
    if (numio_spawn(crowd->handle, &future, &opts, NULL) != 0)
        member->was_misplaced = true;
}

static void check_crowd(const struct crowd *crowd)
{
    for (unsigned i = 0; i < crowd->count; i++) {
        const struct member *member = &crowd->members[i];
        cr_assert_not(member->was_misplaced, "task %u", i);
        cr_assert(member->is_done || !member->is_woken, "task %u was woken and not polled", i);
        cr_assert_gt(member->polls, 0, "task %u was lost", i);
    }
}

/* Retires a worker or makes it active again; the first of each node stays. */
static void order_somebody(struct numio_handle *handle, struct nio_rng *rng)
{
    struct nio_worker *worker = handle->workers[nio_rng_below(rng, handle->worker_count)];
    if (worker->index_in_node > 0)
        nio_worker_order(worker, nio_rng_below(rng, 2) ? NIO_ORDER_RETIRE : 0);
}

/* Steps workers in random order, wakes from outside now and then, lets things settle now and then;
 * returns the digest. */
static uint64_t run_crowd(const char *topology, uint64_t seed, bool retires, unsigned *ret_polls)
{
    struct numio_config config = rig_config(topology);
    static struct crowd crowd;
    memset(&crowd, 0, sizeof crowd);
    config.rng_seed = seed | 1;
    crowd.handle = rig_build(&config);
    nio_rng_init(&crowd.rng, &seed);
    struct nio_rng outside;
    nio_rng_init(&outside, &seed);
    for (unsigned step = 0; step < CROWD_STEPS; step++) {
        if (nio_rng_below(&outside, 16) == 0)
            join_crowd(&crowd);
        if (nio_rng_below(&outside, 8) == 0 && crowd.count > 0)
            wake_member(&crowd, nio_rng_below(&outside, crowd.count));
        if (retires && nio_rng_below(&outside, 32) == 0)
            order_somebody(crowd.handle, &outside);
        (void)rig_step(crowd.handle->workers[nio_rng_below(&outside, crowd.handle->worker_count)]);
        if (nio_rng_below(&outside, 500) == 0) {
            rig_settle(crowd.handle);
            check_crowd(&crowd);
        }
    }
    rig_settle(crowd.handle);
    check_crowd(&crowd);
    *ret_polls = 0;
    for (unsigned i = 0; i < crowd.count; i++) {
        *ret_polls += crowd.members[i].polls;
        if (crowd.members[i].has_waker)
            numio_waker_drop(&crowd.members[i].waker);
    }
    rig_stop(crowd.handle);
    return crowd.digest;
}

Test(worker, no_task_is_lost_and_every_woken_task_is_polled_where_it_may_be)
{
    static const char *const topologies[] = { two_nodes, four_workers, "pack:1 core:1 pu:1",
                                              "pack:4 numa:1 core:1 pu:1" };
    uint64_t seed = seeded_seed(29);
    for (unsigned i = 0; i < 40; i++) {
        unsigned polls;
        (void)run_crowd(topologies[i % NIO_ARRAY_LEN(topologies)], nio_seed_next(&seed), false,
                        &polls);
        cr_assert_gt(polls, CROWD);
    }
}

Test(worker, no_task_is_lost_while_workers_retire_and_come_back)
{
    uint64_t seed = seeded_seed(31);
    for (unsigned i = 0; i < 40; i++) {
        unsigned polls;
        (void)run_crowd(i % 2 ? two_nodes : four_workers, nio_seed_next(&seed), true, &polls);
        cr_assert_gt(polls, CROWD);
    }
}

Test(worker, with_one_worker_the_same_seed_gives_the_same_schedule)
{
    uint64_t seed = seeded_seed(31);
    unsigned differing = 0;
    for (unsigned i = 0; i < 10; i++) {
        uint64_t run_seed = nio_seed_next(&seed);
        unsigned first_polls, second_polls, other_polls;
        uint64_t first = run_crowd("pack:1 core:1 pu:1", run_seed, false, &first_polls);
        uint64_t second = run_crowd("pack:1 core:1 pu:1", run_seed, false, &second_polls);
        uint64_t other = run_crowd("pack:1 core:1 pu:1", run_seed + 1, false, &other_polls);
        cr_assert_eq(first, second);
        cr_assert_eq(first_polls, second_polls);
        differing += first != other;
    }
    cr_assert_gt(differing, 5, "the digest does not tell schedules apart");
}

/* A single worker is taken from its sleep like any other, and must give the search back. */
Test(worker, a_single_worker_is_woken_again_after_it_was_woken_once)
{
    struct numio_handle *handle = rig_start("pack:1 core:1 pu:1");
    struct nio_worker *worker = handle->workers[0];
    struct nio_idle *idle = &handle->nodes[0]->idle;
    for (unsigned round = 0; round < 5; round++) {
        struct note note = { .limit = 1 };
        nio_idle_sleep(idle, 0, worker->is_searching);
        worker->is_searching = false;
        spawn_noting(handle, &note, NULL);
        cr_assert(is_notified(worker), "round %u", round);
        cr_assert(nio_parker_consume(&worker->parker));
        worker->is_searching = nio_idle_leave(idle, 0, false);
        cr_assert(rig_step(worker));
        cr_assert_not(rig_step(worker));
        cr_assert_eq(note.polls, 1);
        cr_assert_eq(nio_idle_searching(nio_idle_load(idle)), worker->is_searching);
    }
    rig_stop(handle);
}
