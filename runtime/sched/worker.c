/* SPDX-License-Identifier: MIT */
/* What a worker runs next, and what it does in between.
 *
 * Per tick: one task, from the LIFO slot (lifo.h), the local queues and the private queue in turns,
 * the inject and overflow queues, in this order, except that every inject_interval-th tick (tuned:
 * every 200 us, if that is sooner) the inject queues and the mailbox go first.  Submissions are
 * published when the worker has nothing else to run, else after 16 ticks; after 4 if they send,
 * since a peer waits for it, and after 64 if all ticks submit something else, which is cheaper in
 * large batches.  Completions are reaped, and timers looked at, every driver_interval ticks (tuned
 * likewise) and whenever there is nothing to run.
 *
 * The loop itself stands in run.c, beside the poll; what an idle worker does in spin.c and sleep.c.
 */
#include "runtime/sched/worker.h"

#include "runtime/base/clock.h"
#include "runtime/sched/ranked.h"
#include "runtime/sched/source.h"

enum { PRIVATE_CLASS = NIO_QUEUE_COUNT }; /* the class behind those of the local queues */
enum { TURN_POPS_MAX = 16 };

/* Moves what others have sent to the private queue.  True if there was something. */
bool nio_take_mail(struct nio_worker *worker)
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
    if (NIO_UNLIKELY(nio_has_ranked(worker->handle)))
        nio_sort_mail(worker);
    return true;
}

struct nio_task *nio_pop_private(struct nio_worker *worker)
{
    return nio_private_pop(&worker->mine);
}

static bool is_empty(const struct nio_worker *worker, enum nio_queue_class which)
{
    return nio_local_queue_is_empty(&worker->queues[which]);
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

static inline struct nio_task *pop_class(struct nio_worker *worker, unsigned which)
{
    if (which == NIO_QUEUE_NEW)
        return pop_new(worker);
    if (which == PRIVATE_CLASS)
        return nio_pop_private(worker);
    return nio_local_queue_pop(&worker->queues[which], worker->has_peers);
}

static bool is_class_empty(const struct nio_worker *worker, unsigned which)
{
    return which == PRIVATE_CLASS ? !worker->mine.first
                                  : is_empty(worker, (enum nio_queue_class)which);
}

/* Whether anything waits at home besides the LIFO slot. */
static bool has_waiting(const struct nio_worker *worker)
{
    bool waits = false;
    for (unsigned which = 0; which <= PRIVATE_CLASS && !waits; which++)
        waits = !is_class_empty(worker, which);
    return waits;
}

bool nio_keep_alone(struct nio_worker *worker, struct nio_task *task)
{
    if (!nio_task_is_plain(task) || nio_lifo_peek(&worker->lifo) || has_waiting(worker))
        return false;
    /* Another would go on before it: the joiner that it runs inside of, or one of a class. */
    if (worker->inline_depth > 0 || (nio_has_ranked(worker->handle) && nio_sees_ranked(worker)))
        return false;
    (void)nio_lifo_swap(&worker->lifo, task, true); /* nothing stood there */
    return true;
}

static void next_turn(struct nio_worker *worker)
{
    worker->turn = worker->turn == PRIVATE_CLASS ? 0 : (uint8_t)(worker->turn + 1);
    worker->turn_pops = 0;
}

void nio_cap_slot(struct nio_worker *worker)
{
    nio_lifo_set_open(&worker->lifo, !has_waiting(worker));
}

struct nio_task *nio_next_local(struct nio_worker *worker)
{
    struct nio_task *task = nio_next_slot(worker);
    if (task)
        return task;
    nio_lifo_set_open(&worker->lifo, true);
    if (NIO_LIKELY(!worker->mine.first && is_empty(worker, NIO_QUEUE_NODE))) {
        if (is_empty(worker, NIO_QUEUE_NEW))
            return pop_class(worker, NIO_QUEUE_ANY);
        if (is_empty(worker, NIO_QUEUE_ANY))
            return pop_class(worker, NIO_QUEUE_NEW);
    }
    /* No class of work starves another: they take turns, of as many tasks as wait there, and 16 at
     * most.  New tasks give the turn on after each, because what they spawn goes into the LIFO slot
     * and before all others anyway. */
    for (unsigned i = 0; i <= PRIVATE_CLASS; i++) {
        unsigned turn = worker->turn;
        task = pop_class(worker, turn);
        if (!task || turn == NIO_QUEUE_NEW || ++worker->turn_pops >= TURN_POPS_MAX ||
            is_class_empty(worker, turn))
            next_turn(worker);
        if (task)
            return task;
    }
    return NULL;
}

/* Counted from where the own queues are empty and the inject queues have been asked, the order of
 * what comes does not depend on how often the worker looked in vain before. */
void nio_restart_turns(struct nio_worker *worker)
{
    worker->inject_span = nio_first_span(worker->inject_interval, worker->is_inject_tuned);
    worker->inject_countdown = worker->inject_span;
    worker->inject_looked_ns = 0;
    worker->turn = 0;
    worker->turn_pops = 0;
}

/* Chooses the interval between looks, so that long polls do not make them late.  `span`: the ticks
 * since the last, which was at *looked_ns, 0: there was a pause.  Returns those until the next. */
static uint32_t tune(uint32_t *interval, uint32_t span, uint64_t *looked_ns)
{
    uint64_t now_ns = nio_now_ns(), then_ns = *looked_ns;
    nio_clock_keep(now_ns);
    *looked_ns = now_ns;
    if (then_ns == 0)
        return nio_first_span(*interval, true);
    uint64_t tick_ns = (now_ns - then_ns) / span + 1;
    uint64_t ticks = NIO_LOOK_PERIOD_NS / tick_ns;
    if (ticks > NIO_INJECT_INTERVAL)
        ticks = NIO_INJECT_INTERVAL;
    if (ticks > UINT64_C(2) * span) /* a few short ones among them say little */
        ticks = UINT64_C(2) * span;
    *interval = ticks < NIO_LOOK_INTERVAL_MIN ? NIO_LOOK_INTERVAL_MIN : (uint32_t)ticks;
    return *interval;
}

/* What stands in the slot is about to wait for a whole poll, and in front of the batch that comes
 * with that: others may have it. */
static void offer_slot(struct nio_worker *worker)
{
    if (nio_local_queue_room(&worker->queues[NIO_QUEUE_ANY]) == 0 ||
        !nio_sees_outside(worker->node))
        return;
    struct nio_task *task = nio_lifo_pop(&worker->lifo, true);
    if (task)
        nio_schedule_local(worker, task, NIO_PLACE_TAIL);
}

/* The tick at which what others have sent goes first. */
static NIO_NOINLINE struct nio_task *look_outside(struct nio_worker *worker)
{
    if (worker->is_inject_tuned)
        worker->inject_span =
            tune(&worker->inject_interval, worker->inject_span, &worker->inject_looked_ns);
    worker->inject_countdown = worker->inject_span;
    (void)nio_take_mail(worker); /* into the private queue, which has its turns */
    if (worker->has_peers && nio_lifo_peek(&worker->lifo))
        offer_slot(worker);
    /* They take turns at going first: a steady stream into the one must not starve the other. */
    worker->is_overflow_first = !worker->is_overflow_first;
    struct nio_task *task =
        worker->is_overflow_first ? nio_take_overflow(worker, 1) : nio_take_injected(worker);
    if (!task)
        task = worker->is_overflow_first ? nio_take_injected(worker) : nio_take_overflow(worker, 1);
    return task;
}

struct nio_task *nio_next_normal(struct nio_worker *worker)
{
    struct nio_task *task;
    if (NIO_UNLIKELY(--worker->inject_countdown == 0) && (task = look_outside(worker)))
        return task;
    if ((task = nio_next_local(worker)))
        return task;
    if (nio_take_mail(worker))
        return nio_pop_private(worker);
    task = nio_take_injected(worker);
    if (!task)
        task = nio_take_overflow(worker, NIO_OVERFLOW_BATCH);
    if (task)
        nio_restart_turns(worker); /* as if it had become idle before, as it may have */
    return task;
}

void nio_flush_own(struct nio_worker *worker)
{
    worker->flush_credit = NIO_FLUSH_CREDIT;
    if (nio_driver_needs_flush(worker->driver))
        nio_driver_flush(worker->driver);
}

/* How many tasks may be woken without any being displaced into the overflow queue, with room for
 * those that are woken until the next reap.  There they would wait behind all that the ring brings
 * next; the ring keeps its completions in order.  A few are taken in any case, and fewer where that
 * is often: a queue that is always full must not keep the ring waiting. */
static unsigned reap_max(const struct nio_worker *worker)
{
    unsigned max = NIO_REAP_MAX;
    for (unsigned reach = 0; reach < NIO_REACH_COUNT; reach++) {
        unsigned room = nio_local_queue_room(&worker->queues[reach]);
        room = room > NIO_REAP_RESERVE ? room - NIO_REAP_RESERVE : 0;
        if (room < max)
            max = room;
    }
    uint32_t few = 1 + worker->driver_span * NIO_REAP_MIN / NIO_DRIVER_INTERVAL;
    few = few < NIO_REAP_MIN ? few : NIO_REAP_MIN;
    return max > few ? max : few;
}

/* Reaps the own ring; the woken tasks are queued quietly and offered at the end. */
unsigned nio_reap_own(struct nio_worker *worker)
{
    if (!nio_driver_wants_reap(worker->driver))
        return 0;
    worker->is_batching = true;
    unsigned reaped = nio_driver_reap(worker->driver, reap_max(worker));
    worker->is_batching = false;
    nio_offer_quiet_work(worker);
    return reaped;
}

void nio_maintain_rarely(struct nio_worker *worker)
{
    /* By its own ticks: with scheduling classes in use the inject queues are not asked in each. */
    if (worker->is_driver_tuned)
        worker->driver_span =
            tune(&worker->driver_interval, worker->driver_span, &worker->driver_looked_ns);
    worker->driver_countdown = worker->driver_span;
    (void)nio_reap_own(worker); /* nothing there is no news */
    if (NIO_UNLIKELY(worker->sources != NULL))
        (void)nio_sources_look(worker); /* likewise */
    nio_slab_outbox_flush(&worker->outbox);
    if (NIO_UNLIKELY(nio_phase(worker->handle) != NIO_PHASE_RUNNING))
        nio_worker_close(worker);
    if (NIO_UNLIKELY(nio_has_order(worker)))
        nio_follow_order(worker);
}
