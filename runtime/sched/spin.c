/* SPDX-License-Identifier: MIT */
/* What a worker without work does before it sleeps: it looks around for as long as that has paid
 * lately.
 *
 * Spinning pays if work comes sooner than a sleep and wake would take.  The balanced policy keeps a
 * weighted average of how long work took to come (policy.h) and spins only while that is below
 * spin_ns, and for spin_ns at most: the ski-rental argument (Karlin et al., "Competitive snoopy
 * caching", 1988).
 * The policy spin never stops, park never starts.  A worker never spins while its SQ thread needs
 * the core, nor when a CPU carries two of the plan's threads.
 *
 * Who sleeps until a timer is woken a little before it and spins the rest, so that the timer does
 * not wait for the kernel's wake: as much before as wakes have been late lately (policy.h), and
 * spin_ns at most.
 *
 * The first looks are at home only, and cost loads: an answer from another worker often comes
 * sooner than a search would take.  Then every few looks one is a search, as one of the node's
 * searchers (idle.h), and the clock is read.
 */
#include "runtime/base/clock.h"
#include "runtime/sched/policy.h"
#include "runtime/sched/ranked.h"
#include "runtime/sched/source.h"
#include "runtime/sched/worker.h"

enum {
    SPIN_HOME_LOOKS = 16,     /* before the first search */
    SPIN_SEARCH_INTERVAL = 4, /* one look of so many is a search */
    SPIN_CLOCK_INTERVAL = 64,
};

/* Work was found: ends the search, and wakes the next searcher if this was the last one. */
static void end_search(struct nio_worker *worker)
{
    worker->is_searching = false;
    if (nio_idle_end_search(&worker->node->idle) && worker->has_peers)
        nio_offer_on(worker);
}

static void end_pause(struct nio_worker *worker)
{
    uint64_t now_ns = nio_now_ns();
    worker->idle_average_ns =
        nio_policy_idle_average(worker->idle_average_ns, now_ns - worker->idle_since_ns,
                                worker->has_slept, worker->handle->config.spin_ns);
    worker->inject_looked_ns = now_ns; /* from here on the ticks are measured */
    worker->has_slept = false;
    worker->idle_since_ns = 0;
    /* The ring and the timers have just been looked at. */
    worker->driver_looked_ns = now_ns;
    worker->driver_span = nio_first_span(worker->driver_interval, worker->is_driver_tuned);
    worker->driver_countdown = worker->driver_span;
    worker->flush_credit = NIO_FLUSH_CREDIT;
}

void nio_end_idle(struct nio_worker *worker)
{
    if (worker->idle_since_ns != 0)
        end_pause(worker);
    if (worker->is_searching)
        end_search(worker);
    if (NIO_UNLIKELY(worker->watched_afar))
        nio_watch_hand_on(worker);
}

bool nio_may_spin(const struct nio_worker *worker)
{
    if (!worker->can_spin || worker->handle->config.idle == NUMIO_IDLE_PARK)
        return false;
    if (nio_timeline_stands(&worker->handle->timeline))
        return false; /* only who parks lets it go on */
    if (worker->handle->sq_shares_core && nio_driver_in_kernel(worker->driver) > 0)
        return false; /* the SQ thread needs the core to finish them */
    return true;
}

/* Whether spinning is allowed, and has paid lately. */
bool nio_wants_spin(const struct nio_worker *worker)
{
    const struct numio_config *config = &worker->handle->config;
    return nio_may_spin(worker) &&
           (config->idle == NUMIO_IDLE_SPIN || worker->idle_average_ns <= config->spin_ns);
}

bool nio_timer_is_near(const struct nio_worker *worker)
{
    uint64_t next_ns = nio_driver_next_timer_ns(worker->driver);
    if (next_ns == NIO_TIME_NONE || worker->early_ns == 0 || !nio_may_spin(worker))
        return false;
    uint64_t now_ns = nio_timeline_now_ns(&worker->handle->timeline);
    return next_ns <= now_ns || next_ns - now_ns <= worker->early_ns;
}

/* A look at what only this worker or its node can be sent; loads, where there is nothing. */
struct nio_task *nio_look_home(struct nio_worker *worker)
{
    struct nio_task *task;
    if (nio_take_mail(worker) && (task = nio_pop_private(worker)))
        return task;
    if (nio_reap_own(worker) > 0 && (task = nio_next_local(worker)))
        return task;
    if (NIO_UNLIKELY(worker->sources != NULL) && nio_sources_look(worker) > 0 &&
        (task = nio_next_local(worker)))
        return task;
    if (NIO_UNLIKELY(nio_has_ranked(worker->handle)) && (task = nio_take_ranked(worker)))
        return task;
    task = nio_take_injected(worker);
    return task ? task : nio_take_overflow(worker, NIO_OVERFLOW_BATCH);
}

/* A look around, as one of the node's searchers if there is room for another. */
struct nio_task *nio_look(struct nio_worker *worker)
{
    struct nio_task *task = nio_look_home(worker);
    if (task)
        return task;
    if (!worker->is_searching && worker->has_peers)
        worker->is_searching = nio_idle_begin_search(&worker->node->idle);
    /* also a single worker that a pusher has taken from its sleep */
    return worker->is_searching ? nio_steal(worker) : NULL;
}

/* Looks until something turns up or spinning has cost as much as a sleep would.  The first looks
 * are at home only: an answer from another worker often comes sooner than a search would take. */
struct nio_task *nio_spin(struct nio_worker *worker)
{
    if (!nio_may_spin(worker))
        return NULL;
    bool is_endless = worker->handle->config.idle == NUMIO_IDLE_SPIN;
    uint64_t limit_ns = worker->handle->config.spin_ns;
    if (!is_endless && worker->idle_average_ns > limit_ns && !nio_timer_is_near(worker))
        return NULL;             /* it has not paid lately */
    for (uint32_t i = 1;; i++) { /* bounded by limit_ns, or by the end of the runtime */
        bool is_wide = i > SPIN_HOME_LOOKS && i % SPIN_SEARCH_INTERVAL == 0;
        struct nio_task *task = is_wide ? nio_look(worker) : nio_look_home(worker);
        if (task) {
            nio_count(&worker->counters.spin_wins, 1);
            return task;
        }
        if (nio_parker_consume(&worker->parker))
            continue; /* whatever it was for, the next looks see it */
        if (i % SPIN_CLOCK_INTERVAL == 0) {
            if (nio_phase(worker->handle) != NIO_PHASE_RUNNING || !nio_may_spin(worker))
                return NULL;
            if (nio_has_order(worker))
                return NULL;
            uint64_t now_ns = nio_now_ns();
            nio_clock_keep(now_ns);
            if (worker->idle_since_ns == 0)
                worker->idle_since_ns = now_ns;
            else if (!is_endless && now_ns - worker->idle_since_ns >= limit_ns &&
                     !nio_timer_is_near(worker))
                return NULL;
        }
        nio_cpu_relax();
    }
}

/* Pauses before taking others' work again, without touching what they write; looks at them now and
 * then only. */
struct nio_task *nio_spin_thrifty(struct nio_worker *worker)
{
    struct nio_thrift *thrift = &worker->thrift;
    uint64_t look_ns = 0;
    for (uint64_t now_ns; (now_ns = nio_now_ns()) < thrift->until_ns;) {
        struct nio_task *task = nio_look_home(worker);
        if (task)
            return task;
        if (nio_phase(worker->handle) != NIO_PHASE_RUNNING || !nio_may_spin(worker))
            break;
        if (nio_has_order(worker))
            break;
        if (now_ns >= look_ns) {
            if (look_ns != 0 && !nio_sees_work(worker))
                return NULL;
            if (nio_sibling_is_stuck(worker, now_ns))
                break;
            look_ns = now_ns + NIO_THRIFT_LOOK_NS;
        }
        (void)nio_parker_consume(&worker->parker); /* whatever it was for, the next look sees it */
        nio_cpu_relax();
    }
    thrift->until_ns = 0;
    return NULL;
}
