/* SPDX-License-Identifier: MIT */
/* The worker's loop.
 *
 * Busy, per tick: one task, from the LIFO slot, the local queues and the private queue, the inject
 * and overflow queues, in this order, except that every inject_interval-th tick (tuned: every
 * 200 us, if that is sooner) the inject queues and the mailbox go first.  Submissions are published
 * when the worker has nothing else to run, at the latest after NIO_FLUSH_INTERVAL ticks;
 * completions are reaped every driver_interval ticks and whenever there is nothing to run.
 *
 * Idle: publish, reap, search as one of the node's searchers, spin as long as the policy says,
 * announce the sleep, look at everything once more, park.  The protocol is in idle.h, the sleep
 * in parker.h.
 *
 * Spinning pays if work comes sooner than a sleep and wake would take; the balanced policy keeps a
 * weighted average of how long the worker was idle and spins only while that is below spin_ns (the
 * ski-rental argument).  A worker never spins while its SQ thread needs the core, nor when two
 * workers share one.
 */
#include "runtime/sched/worker.h"

#include "runtime/base/clock.h"
#include "runtime/task/wake.h"

enum { PRIVATE_CLASS = NIO_QUEUE_COUNT }; /* the class behind those of the local queues */
enum {
    SPIN_HOME_LOOKS = 16,     /* before the first search */
    SPIN_SEARCH_INTERVAL = 4, /* one look of so many is a search */
    SPIN_CLOCK_INTERVAL = 64,
    IDLE_AVERAGE_WEIGHT = 8,
    TRIM_INTERVAL = 64,
    TURN_POPS_MAX = 16
};

/* Moves what others have sent to the private queue.  True if there was something. */
static bool take_mail(struct nio_worker *worker)
{
    struct nio_mpsc_node *node = nio_mpsc_take_fifo(&worker->mailbox);
    if (!node)
        return false;
    if (worker->mine.last)
        worker->mine.last->next = node;
    else
        worker->mine.first = node;
    while (node->next)
        node = node->next;
    worker->mine.last = node;
    return true;
}

static struct nio_task *pop_private(struct nio_worker *worker)
{
    struct nio_mpsc_node *node = worker->mine.first;
    if (!node)
        return NULL;
    worker->mine.first = node->next;
    if (!node->next)
        worker->mine.last = NULL;
    return nio_task_of_link(node);
}

static struct nio_task *pop_lifo(struct nio_worker *worker)
{
    /* relaxed: a look before the exchange */
    struct nio_task *task = atomic_load_explicit(&worker->lifo, memory_order_relaxed);
    if (!task)
        return NULL;
    if (!worker->has_peers) {
        /* relaxed: nobody else looks at the slot */
        atomic_store_explicit(&worker->lifo, NULL, memory_order_relaxed);
        return task;
    }
    /* [LS2] acquire: a thief may have been faster, then this reads NULL.  Pairs with [LS1]. */
    return atomic_exchange_explicit(&worker->lifo, NULL, memory_order_acquire);
}

bool nio_take_lifo(struct nio_worker *worker, const struct nio_task *task)
{
    /* relaxed: a look before the exchange */
    if (atomic_load_explicit(&worker->lifo, memory_order_relaxed) != task)
        return false;
    return pop_lifo(worker) != NULL; /* that one, unless a thief was faster */
}

static bool is_empty(const struct nio_worker *worker, enum nio_queue_class class)
{
    return nio_local_queue_is_empty(&worker->queues[class]);
}

/* Of the new tasks the newest, but for every sixteenth time: then the oldest, so that none waits
 * longer than it takes to run sixteen times those in front of it. */
static struct nio_task *pop_new(struct nio_worker *worker)
{
    struct nio_local_queue *queue = &worker->queues[NIO_QUEUE_NEW];
    if (NIO_LIKELY(++worker->newest_pops < NIO_OLDEST_INTERVAL))
        return nio_local_queue_pop_newest(queue, worker->has_peers);
    worker->newest_pops = 0;
    return nio_local_queue_pop(queue, worker->has_peers);
}

static inline struct nio_task *pop_class(struct nio_worker *worker, unsigned class)
{
    if (class == NIO_QUEUE_NEW)
        return pop_new(worker);
    if (class == PRIVATE_CLASS)
        return pop_private(worker);
    return nio_local_queue_pop(&worker->queues[class], worker->has_peers);
}

/* The slot has gone first often enough in a row: it gives way, if anything waits for that.  With
 * nothing else to run the chain goes on; in the queue it would only be stolen. */
static void cap_lifo(struct nio_worker *worker)
{
    bool waits = worker->mine.first != NULL;
    for (unsigned class = 0; class < NIO_QUEUE_COUNT && !waits; class ++)
        waits = !is_empty(worker, (enum nio_queue_class) class);
    worker->is_lifo_enabled = !waits;
    worker->lifo_polls = 0;
}

static void next_turn(struct nio_worker *worker)
{
    worker->turn = worker->turn == PRIVATE_CLASS ? 0 : (uint8_t)(worker->turn + 1);
    worker->turn_pops = 0;
}

struct nio_task *nio_next_local(struct nio_worker *worker)
{
    struct nio_task *task = pop_lifo(worker);
    if (task) {
        if (NIO_UNLIKELY(++worker->lifo_polls >= NIO_LIFO_POLLS_MAX))
            cap_lifo(worker);
        return task;
    }
    worker->lifo_polls = 0;
    worker->is_lifo_enabled = true;
    if (NIO_LIKELY(!worker->mine.first && is_empty(worker, NIO_QUEUE_NODE))) {
        if (is_empty(worker, NIO_QUEUE_NEW))
            return pop_class(worker, NIO_QUEUE_ANY);
        if (is_empty(worker, NIO_QUEUE_ANY))
            return pop_class(worker, NIO_QUEUE_NEW);
    }
    /* No class of work starves another: they take turns.  New tasks give the turn on after each,
     * because what they spawn goes into the LIFO slot and before all others anyway. */
    for (unsigned i = 0; i <= PRIVATE_CLASS; i++) {
        unsigned turn = worker->turn;
        task = pop_class(worker, turn);
        if (!task || turn == NIO_QUEUE_NEW || ++worker->turn_pops >= TURN_POPS_MAX)
            next_turn(worker);
        if (task)
            return task;
    }
    return NULL;
}

/* Counted from where the own queues are empty and the inject queues have been asked, the order of
 * what comes does not depend on how often the worker looked in vain before. */
static void restart_turns(struct nio_worker *worker)
{
    worker->inject_countdown = worker->inject_interval;
    worker->inject_looked_ns = 0;
    worker->turn = 0;
    worker->turn_pops = 0;
}

/* Chooses the ticks until the next look, so that long polls do not make it late. */
static void tune_interval(struct nio_worker *worker)
{
    uint64_t now_ns = nio_now_ns();
    if (worker->inject_looked_ns != 0) {
        uint64_t tick_ns = (now_ns - worker->inject_looked_ns) / worker->inject_interval + 1;
        uint64_t ticks = NIO_INJECT_PERIOD_NS / tick_ns;
        if (ticks > NIO_INJECT_INTERVAL)
            ticks = NIO_INJECT_INTERVAL;
        if (ticks < NIO_INJECT_INTERVAL_MIN)
            ticks = NIO_INJECT_INTERVAL_MIN;
        worker->inject_interval = (uint32_t)ticks;
    }
    worker->inject_looked_ns = now_ns;
}

/* The tick at which what others have sent goes first. */
static NIO_NOINLINE struct nio_task *look_outside(struct nio_worker *worker)
{
    if (worker->is_interval_tuned)
        tune_interval(worker);
    worker->inject_countdown = worker->inject_interval;
    (void)take_mail(worker); /* into the private queue, which has its turns */
    /* They take turns at going first: a steady stream into the one must not starve the other. */
    worker->is_overflow_first = !worker->is_overflow_first;
    struct nio_task *task =
        worker->is_overflow_first ? nio_take_overflow(worker, 1) : nio_take_injected(worker);
    if (!task)
        task = worker->is_overflow_first ? nio_take_injected(worker) : nio_take_overflow(worker, 1);
    return task;
}

struct nio_task *nio_next_task(struct nio_worker *worker)
{
    struct nio_task *task;
    if (NIO_UNLIKELY(--worker->inject_countdown == 0) && (task = look_outside(worker)))
        return task;
    if ((task = nio_next_local(worker)))
        return task;
    if (take_mail(worker))
        return pop_private(worker);
    task = nio_take_injected(worker);
    if (!task)
        task = nio_take_overflow(worker, NIO_OVERFLOW_BATCH);
    if (task)
        restart_turns(worker); /* as if it had become idle before, as it may have */
    return task;
}

static void flush(struct nio_worker *worker)
{
    worker->flush_countdown = NIO_FLUSH_INTERVAL;
    if (nio_driver_needs_flush(worker->driver))
        nio_driver_flush(worker->driver);
}

/* Reaps the own ring; the woken tasks are queued quietly and offered at the end. */
static unsigned reap(struct nio_worker *worker)
{
    if (!nio_driver_has_completions(worker->driver))
        return 0;
    worker->is_batching = true;
    unsigned reaped = nio_driver_reap(worker->driver, NIO_REAP_MAX);
    worker->is_batching = false;
    nio_offer_quiet_work(worker);
    return reaped;
}

/* What is due every few ticks while there is always something to run. */
void nio_maintain(struct nio_worker *worker)
{
    if (NIO_UNLIKELY(--worker->flush_countdown == 0))
        flush(worker);
    if (NIO_UNLIKELY(--worker->driver_countdown == 0)) {
        worker->driver_countdown = worker->driver_interval;
        (void)reap(worker); /* nothing there is no news */
        nio_slab_outbox_flush(&worker->outbox);
        if (NIO_UNLIKELY(nio_phase(worker->handle) != NIO_PHASE_RUNNING))
            nio_worker_close(worker);
    }
}

static void call_thread_hook(struct nio_worker *worker, void (*hook)(unsigned, void *))
{
    if (NIO_UNLIKELY(hook != NULL))
        hook(worker->index, worker->handle->config.hooks.arg);
}

/* Work was found: ends the search, and wakes the next searcher if this was the last one. */
static void end_search(struct nio_worker *worker)
{
    worker->is_searching = false;
    if (nio_idle_end_search(&worker->node->idle) && worker->has_peers)
        nio_wake_node(worker->node, worker);
}

static void end_pause(struct nio_worker *worker)
{
    int64_t idle_ns = (int64_t)(nio_now_ns() - worker->idle_since_ns);
    int64_t cap_ns = 8 * (int64_t)worker->handle->config.spin_ns;
    if (idle_ns > cap_ns)
        idle_ns = cap_ns; /* one long pause must not outweigh many short ones */
    worker->idle_average_ns += (idle_ns - worker->idle_average_ns) / IDLE_AVERAGE_WEIGHT;
    worker->idle_since_ns = 0;
    worker->driver_countdown = worker->driver_interval; /* it has just been looked at */
    worker->flush_countdown = NIO_FLUSH_INTERVAL;
}

void nio_end_idle(struct nio_worker *worker)
{
    if (worker->idle_since_ns != 0)
        end_pause(worker);
    if (worker->is_searching)
        end_search(worker);
}

static bool may_spin(const struct nio_worker *worker)
{
    if (!worker->can_spin || worker->handle->config.idle == NUMIO_IDLE_PARK)
        return false;
    if (worker->handle->sq_shares_core && nio_driver_in_flight(worker->driver) > 0)
        return false; /* the SQ thread needs the core to finish them */
    return true;
}

/* Whether spinning is allowed, and has paid lately. */
static bool wants_spin(const struct nio_worker *worker)
{
    const struct numio_config *config = &worker->handle->config;
    return may_spin(worker) &&
           (config->idle == NUMIO_IDLE_SPIN || worker->idle_average_ns <= (int64_t)config->spin_ns);
}

/* A look at what only this worker or its node can be sent; loads, where there is nothing. */
static struct nio_task *look_home(struct nio_worker *worker)
{
    struct nio_task *task;
    if (take_mail(worker))
        return pop_private(worker);
    if (reap(worker) > 0 && (task = nio_next_local(worker)))
        return task;
    task = nio_take_injected(worker);
    return task ? task : nio_take_overflow(worker, NIO_OVERFLOW_BATCH);
}

/* A look around, as one of the node's searchers if there is room for another. */
static struct nio_task *look(struct nio_worker *worker)
{
    struct nio_task *task = look_home(worker);
    if (task)
        return task;
    if (!worker->is_searching && worker->has_peers)
        worker->is_searching = nio_idle_begin_search(&worker->node->idle);
    /* also a single worker that a pusher has taken from its sleep */
    return worker->is_searching ? nio_steal(worker) : NULL;
}

/* Looks until something turns up or spinning has cost as much as a sleep would.  The first looks
 * are at home only: an answer from another worker often comes sooner than a search would take. */
static struct nio_task *spin(struct nio_worker *worker)
{
    if (!may_spin(worker))
        return NULL;
    bool is_endless = worker->handle->config.idle == NUMIO_IDLE_SPIN;
    uint64_t limit_ns = worker->handle->config.spin_ns;
    if (!is_endless && worker->idle_average_ns > (int64_t)limit_ns)
        return NULL;             /* it has not paid lately */
    for (uint32_t i = 1;; i++) { /* bounded by limit_ns, or by the end of the runtime */
        bool is_wide = i > SPIN_HOME_LOOKS && i % SPIN_SEARCH_INTERVAL == 0;
        struct nio_task *task = is_wide ? look(worker) : look_home(worker);
        if (task) {
            nio_count(&worker->counters.spin_wins, 1);
            return task;
        }
        if (nio_parker_consume(&worker->parker))
            continue; /* whatever it was for, the next looks see it */
        if (i % SPIN_CLOCK_INTERVAL == 0) {
            if (nio_phase(worker->handle) != NIO_PHASE_RUNNING || !may_spin(worker))
                return NULL;
            if (worker->idle_since_ns == 0)
                worker->idle_since_ns = nio_now_ns();
            else if (!is_endless && nio_now_ns() - worker->idle_since_ns >= limit_ns)
                return NULL;
        }
        nio_cpu_relax();
    }
}

/* True while some sibling is awake, that is, may be stuck with work that others could do. */
static bool has_busy_sibling(const struct nio_node *node)
{
    uint32_t state = nio_idle_load(&node->idle);
    return nio_idle_sleeping(state) < node->worker_count;
}

/* Whether the end of the runtime wants something of this worker.  A wake for it may have been
 * consumed while spinning, so this is asked again before every park. */
static bool is_called(struct nio_worker *worker)
{
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
        /* One sleeper of a node with busy workers looks around now and then, for what a worker in
         * a long poll keeps to itself: its LIFO slot and its ring. */
        uint32_t nobody = 0;
        /* relaxed: an election, publishes nothing */
        bool is_watcher =
            node->worker_count > 1 && has_busy_sibling(node) &&
            atomic_compare_exchange_strong_explicit(&node->watcher, &nobody, 1,
                                                    memory_order_relaxed, memory_order_relaxed);
        call_thread_hook(worker, worker->handle->config.hooks.on_thread_park);
        trim_stacks(worker);
        nio_count(&worker->counters.parks, 1);
        nio_parker_park_unless(&worker->parker, worker->driver, is_watcher ? NIO_WATCH_NS : -1,
                               &worker->mailbox);
        call_thread_hook(worker, worker->handle->config.hooks.on_thread_unpark);
        if (is_watcher)
            /* relaxed: as above */
            atomic_store_explicit(&node->watcher, 0, memory_order_relaxed);
        has_parked = true;
    }
    /* Pushers left their work to a searcher that has not parked since: it goes on being one.
     * Whoever took a sleeper counts on the same. */
    worker->is_searching =
        nio_idle_leave(&node->idle, worker->index_in_node, was_searching && !has_parked);
}

/* Nothing to run at home.  Returns what it found, or sleeps and returns NULL. */
struct nio_task *nio_idle(struct nio_worker *worker, bool may_block)
{
    flush(worker);
    restart_turns(worker);
    /* Without work in sight the search, which others would have to respect, can wait a few looks;
     * but not for ever. */
    bool spins = may_block && wants_spin(worker);
    bool can_wait = spins && !worker->is_searching && !nio_sees_work(worker);
    struct nio_task *task = can_wait ? look_home(worker) : look(worker);
    if (task || !may_block)
        return task;
    if (NIO_UNLIKELY(nio_phase(worker->handle) != NIO_PHASE_RUNNING)) {
        nio_worker_close(worker);
        nio_end_check(worker->handle);
        if (nio_phase(worker->handle) == NIO_PHASE_ENDED) {
            worker->is_leaving = true;
            return NULL;
        }
        if ((task = nio_next_local(worker)))
            return task;
    }
    if (spins && (task = spin(worker)))
        return task;
    if (worker->idle_since_ns == 0)
        worker->idle_since_ns = nio_now_ns();
    sleep_until_woken(worker);
    return NULL;
}
