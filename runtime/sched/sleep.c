/* SPDX-License-Identifier: MIT */
/* An idle worker's way into sleep: publish, look, spin, announce the sleep, look at everything once
 * more, park.  The protocol that loses no wake stands in idle.h, the sleep itself in parker.h.
 * Some of the sleepers look around now and then: stuck.h.
 */
#include "runtime/base/clock.h"
#include "runtime/sched/policy.h"
#include "runtime/sched/source.h"
#include "runtime/sched/still.h"
#include "runtime/sched/worker.h"

enum { TRIM_INTERVAL = 64 };

static void call_thread_hook(struct nio_worker *worker, void (*hook)(unsigned, void *))
{
    if (NIO_UNLIKELY(hook != NULL))
        hook(worker->index, worker->handle->config.hooks.arg);
}

/* Whether the end of the runtime, or an order, wants something of this worker.  A wake for it may
 * have been consumed while spinning, so this is asked again before every park. */
static bool is_called(struct nio_worker *worker)
{
    if (NIO_UNLIKELY(nio_has_order(worker)))
        return true;
    enum nio_phase phase = nio_phase(worker->handle);
    if (NIO_LIKELY(phase == NIO_PHASE_RUNNING))
        return false;
    /* [CR1] acquire: pairs with [CR2] */
    return phase == NIO_PHASE_ENDED || !worker->stripe.is_closed ||
           atomic_load_explicit(&worker->report, memory_order_acquire) != 0;
}

/* Gives the memory of stacks that have not been wanted for long back to the kernel: now and then,
 * since it takes the depot's lock. */
static void trim_stacks(struct nio_worker *worker)
{
    if (nio_counter(&worker->counters.parks) % TRIM_INTERVAL == 0)
        (void)nio_stack_depot_trim(worker->node->stacks, nio_now_ns()); /* a figure only */
}

/* Parks so that it is back when its earliest timer is due, and learns how late it was. */
static void park(struct nio_worker *worker, int64_t timeout_ns)
{
    bool may_spin = nio_may_spin(worker);
    nio_driver_park_early(worker->driver, may_spin ? worker->early_ns : 0);
    nio_worker_park(worker, timeout_ns);
    uint64_t now_ns = nio_timeline_now_ns(&worker->handle->timeline);
    uint64_t asked_ns = nio_driver_park_until_ns(worker->driver);
    if (may_spin && now_ns >= asked_ns)
        worker->early_ns =
            nio_policy_early(worker->early_ns, now_ns - asked_ns, worker->handle->config.spin_ns);
    nio_clock_keep(nio_now_ns());
}

/* Sleeps until woken.  The announcement, the last look, and only then the park: idle.h. */
static void sleep_until_woken(struct nio_worker *worker)
{
    struct nio_node *node = worker->node;
    nio_slab_outbox_flush(&worker->outbox);
    bool was_searching = worker->is_searching;
    nio_idle_sleep(&node->idle, worker->index_in_node, was_searching);
    bool has_parked = false;
    if (!nio_sees_work(worker) && !is_called(worker) &&
        !nio_driver_has_completions(worker->driver)) {
        unsigned watches = nio_watch_begin(worker);
        call_thread_hook(worker, worker->handle->config.hooks.on_thread_park);
        trim_stacks(worker);
        nio_count(&worker->counters.parks, 1);
        park(worker, watches ? NIO_WATCH_NS : -1);
        call_thread_hook(worker, worker->handle->config.hooks.on_thread_unpark);
        nio_watch_end(worker, watches);
        nio_watch_ask_anew(node);
        has_parked = worker->has_slept = true;
    }
    /* Pushers left their work to a searcher that has not parked since: it goes on being one.
     * Whoever took a sleeper counts on the same. */
    worker->is_searching =
        nio_idle_leave(&node->idle, worker->index_in_node, was_searching && !has_parked);
}

static void judge_thrift(struct nio_worker *worker)
{
    if (nio_may_spin(worker))
        nio_thrift_judge(&worker->thrift, nio_now_ns());
    else
        worker->thrift = (struct nio_thrift){ 0 };
}

/* Nothing to run at home.  Returns what it found, or sleeps and returns NULL. */
struct nio_task *nio_idle(struct nio_worker *worker, bool may_block)
{
    struct nio_task *task;
    if (NIO_UNLIKELY(nio_has_order(worker))) {
        nio_follow_order(worker);
        if (worker->is_leaving)
            return NULL;
    }
    bool spins = may_block && (nio_wants_spin(worker) || nio_timer_is_near(worker));
    /* What will wait in any case is submitted by the same system call that sleeps. */
    if (!may_block || spins || nio_driver_is_eager(worker->driver))
        nio_flush_own(worker);
    nio_restart_turns(worker);
    if (may_block && worker->thrift.began_ns != 0)
        judge_thrift(worker);
    if (may_block && worker->thrift.pause_ns != 0 && (task = nio_spin_thrifty(worker)))
        return task;
    /* Without work in sight the search, which others would have to respect, can wait a few looks;
     * but not for ever. */
    bool can_wait = spins && !worker->is_searching &&
                    (nio_driver_has_completions(worker->driver) || !nio_sees_work(worker));
    task = can_wait ? nio_look_home(worker) : nio_look(worker);
    if (task)
        nio_flush_own(worker); /* it may run for long */
    if (task || !may_block)
        return task;
    if (NIO_UNLIKELY(nio_phase(worker->handle) != NIO_PHASE_RUNNING)) {
        nio_flush_own(worker);
        nio_worker_close(worker);
        nio_end_check(worker->handle);
        if (nio_phase(worker->handle) == NIO_PHASE_ENDED) {
            worker->is_leaving = true;
            return NULL;
        }
        if ((task = nio_next_local(worker)))
            return task;
    }
    if (spins && (task = nio_spin(worker)))
        return task;
    if (worker->idle_since_ns == 0)
        worker->idle_since_ns = nio_now_ns();
    nio_sources_arm(worker);
    sleep_until_woken(worker);
    nio_flush_own(worker); /* in case it has not slept */
    return NULL;
}
