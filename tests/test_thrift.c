/* SPDX-License-Identifier: MIT */
/* Whether a thief leaves small tasks to their owner, and nothing else. */
#include "runtime/sched/thrift.h"

#include <criterion/criterion.h>

#include "tests/sched_rig.h"

enum { TASKS = 200, LONG_NS = 20000000 };

TestSuite(thrift, .timeout = 60);

static struct nio_thrift judged(uint32_t taken, uint64_t elapsed_ns, uint32_t pause_ns)
{
    struct nio_thrift thrift = { .pause_ns = pause_ns };
    nio_thrift_took(&thrift, taken, 1000);
    nio_thrift_judge(&thrift, 1000 + elapsed_ns);
    cr_assert_eq(thrift.began_ns, 0, "the next trial begins anew");
    cr_assert_eq(thrift.taken, 0);
    return thrift;
}

Test(thrift, the_time_a_task_took_its_thief_decides)
{
    cr_assert_eq(judged(10, 10 * NIO_THRIFT_WORTH_NS, 0).pause_ns, 0);
    cr_assert_eq(judged(10, 10 * NIO_THRIFT_WORTH_NS - 1, 0).pause_ns, NIO_THRIFT_PAUSE_MIN_NS);
    cr_assert_eq(judged(1, 1000 * NIO_THRIFT_WORTH_NS, NIO_THRIFT_PAUSE_MAX_NS).pause_ns, 0,
                 "the root of a branch pays for all");
}

Test(thrift, the_pause_doubles_up_to_a_limit_and_starts_with_the_verdict)
{
    struct nio_thrift thrift = { 0 };
    uint32_t wanted = NIO_THRIFT_PAUSE_MIN_NS;
    for (unsigned i = 0; i < 20; i++) {
        thrift = judged(8, 0, thrift.pause_ns);
        cr_assert_eq(thrift.pause_ns, wanted);
        cr_assert_eq(thrift.until_ns, 1000 + wanted);
        wanted = 2 * wanted < NIO_THRIFT_PAUSE_MAX_NS ? 2 * wanted : NIO_THRIFT_PAUSE_MAX_NS;
    }
    cr_assert_leq((uint64_t)NIO_THRIFT_PAUSE_MAX_NS, (uint64_t)NIO_WATCH_NS,
                  "nothing may wait longer than the watcher lets it");
}

Test(thrift, a_trial_takes_few)
{
    struct nio_thrift thrift = { 0 };
    cr_assert_eq(nio_thrift_max(&thrift, 128), 128);
    thrift.pause_ns = 1;
    cr_assert_eq(nio_thrift_max(&thrift, 128), NIO_THRIFT_TRIAL);
    cr_assert_eq(nio_thrift_max(&thrift, 3), 3);
}

/* --- in the scheduler ----------------------------------------------------------------------- */

static enum numio_poll poll_once(void *state, struct numio_context *cx)
{
    (void)state;
    (void)cx;
    return NUMIO_READY;
}

static const struct numio_future one_poll = { .poll = poll_once };

static struct numio_handle *start(void)
{
    struct numio_config config = rig_config("pack:1 core:2 pu:1");
    config.idle = NUMIO_IDLE_BALANCED;
    struct numio_handle *handle = rig_build(&config);
    for (unsigned i = 0; i < 2; i++)
        handle->workers[i]->can_spin = true; /* also where this machine has one CPU */
    return handle;
}

static void spawn_from(struct nio_worker *worker, unsigned count,
                       const struct numio_spawn_opts *opts)
{
    nio_worker_set_current(worker);
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(numio_spawn(worker->handle, &one_poll, opts, NULL), 0);
    nio_worker_set_current(NULL);
}

static struct nio_task *spin_thrifty(struct nio_worker *worker)
{
    nio_worker_set_current(worker);
    struct nio_task *task = nio_spin_thrifty(worker);
    nio_worker_set_current(NULL);
    return task;
}

static void begin_pause(struct nio_worker *worker, uint64_t pause_ns)
{
    worker->thrift.pause_ns = NIO_THRIFT_PAUSE_MIN_NS;
    worker->thrift.until_ns = nio_now_ns() + pause_ns;
}

static uint64_t stolen(const struct nio_worker *worker)
{
    return nio_counter(&worker->counters.stolen_near);
}

Test(thrift, a_pausing_worker_takes_neither_from_queues_nor_from_overflow)
{
    struct numio_handle *handle = start();
    struct nio_worker *busy = handle->workers[0], *thief = handle->workers[1];
    spawn_from(busy, 2 * NIO_LOCAL_QUEUE_SLOTS, NULL);
    cr_assert_gt(nio_counter(&busy->counters.overflowed), 0);
    begin_pause(thief, LONG_NS);
    nio_worker_set_current(thief);
    cr_assert_null(nio_take_overflow(thief, 1));
    thief->thrift.until_ns = 0;
    struct nio_task *task = nio_take_overflow(thief, 1);
    nio_worker_set_current(NULL);
    cr_assert_not_null(task, "the pause is over");
    nio_push_tail(thief, task, NIO_QUEUE_ANY);
    rig_settle(handle);
    rig_stop(handle);
}

Test(thrift, a_trial_leaves_most_of_the_queue)
{
    struct numio_handle *handle = start();
    struct nio_worker *busy = handle->workers[0], *thief = handle->workers[1];
    spawn_from(busy, TASKS, NULL);
    begin_pause(thief, 0);
    (void)rig_step(thief);
    cr_assert_eq(stolen(thief), NIO_THRIFT_TRIAL);
    nio_thrift_end(&thief->thrift);
    while (rig_step(thief) && stolen(thief) == NIO_THRIFT_TRIAL) { /* until it steals again */
    }
    cr_assert_gt(stolen(thief), 2 * NIO_THRIFT_TRIAL, "it takes half again");
    rig_settle(handle);
    rig_stop(handle);
}

Test(thrift, a_worker_judges_what_it_took_when_it_runs_dry)
{
    struct numio_handle *handle = start();
    struct nio_worker *busy = handle->workers[0], *thief = handle->workers[1];
    spawn_from(busy, TASKS, NULL);
    (void)rig_step(thief);
    uint64_t before = stolen(thief);
    cr_assert_eq(before, TASKS / 2);
    cr_assert_eq(thief->thrift.taken, before);
    for (uint64_t i = 1; i < before; i++)
        (void)rig_step(thief);
    thief->thrift.began_ns = nio_now_ns(); /* as if they had taken no time at all */
    nio_worker_set_current(thief);
    cr_assert(nio_worker_step(thief, true));
    nio_worker_set_current(NULL);
    cr_assert_eq(thief->thrift.pause_ns, NIO_THRIFT_PAUSE_MIN_NS);
    cr_assert_eq(stolen(thief), before + NIO_THRIFT_TRIAL);
    rig_settle(handle);
    rig_stop(handle);
}

Test(thrift, a_stuck_sibling_ends_the_pause)
{
    struct numio_handle *handle = start();
    struct nio_worker *stuck = handle->workers[0], *thief = handle->workers[1];
    spawn_from(stuck, TASKS, NULL); /* and it does not come around to them */
    uint64_t began_ns = nio_now_ns();
    begin_pause(thief, 1000 * (uint64_t)LONG_NS);
    cr_assert_null(spin_thrifty(thief));
    uint64_t took_ns = nio_now_ns() - began_ns;
    cr_assert_geq(took_ns, NIO_STUCK_NS);
    cr_assert_lt(took_ns, 100 * (uint64_t)LONG_NS, "%llu ns", (unsigned long long)took_ns);
    (void)rig_step(thief);
    cr_assert_gt(stolen(thief), 0);
    rig_settle(handle);
    rig_stop(handle);
}

Test(thrift, what_is_sent_to_it_ends_the_pause_at_once)
{
    struct numio_handle *handle = start();
    struct nio_worker *thief = handle->workers[1];
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    opts.worker = 1;
    spawn_from(handle->workers[0], 1, &opts);
    begin_pause(thief, 1000 * (uint64_t)LONG_NS);
    struct nio_task *task = spin_thrifty(thief);
    cr_assert_not_null(task);
    nio_worker_set_current(thief);
    nio_schedule_local(thief, task, NIO_PLACE_TAIL);
    nio_worker_set_current(NULL);
    rig_settle(handle);
    rig_stop(handle);
}

Test(thrift, with_nothing_to_take_it_does_not_pause)
{
    struct numio_handle *handle = start();
    struct nio_worker *thief = handle->workers[1];
    uint64_t began_ns = nio_now_ns();
    begin_pause(thief, 1000 * (uint64_t)LONG_NS);
    cr_assert_null(spin_thrifty(thief));
    cr_assert_lt(nio_now_ns() - began_ns, 100 * (uint64_t)LONG_NS);
    rig_stop(handle);
}

Test(thrift, a_worker_that_may_not_spin_does_not_pause)
{
    struct numio_handle *handle = start();
    struct nio_worker *thief = handle->workers[1];
    spawn_from(handle->workers[0], TASKS, NULL);
    thief->can_spin = false;
    begin_pause(thief, 1000 * (uint64_t)LONG_NS);
    cr_assert_null(spin_thrifty(thief));
    cr_assert_eq(thief->thrift.until_ns, 0);
    rig_settle(handle);
    rig_stop(handle);
}

Test(thrift, a_producer_takes_its_overflow_back_at_once)
{
    struct numio_handle *handle = start();
    struct nio_worker *worker = handle->workers[0];
    begin_pause(worker, 1000 * (uint64_t)LONG_NS);
    spawn_from(worker, 2 * NIO_LOCAL_QUEUE_SLOTS, NULL);
    cr_assert_eq(worker->thrift.pause_ns, 0);
    rig_settle(handle);
    rig_stop(handle);
}
