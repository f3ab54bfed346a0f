/* SPDX-License-Identifier: MIT */
/* sched/worker.h: a worker: one pinned thread with its queues, memory and driver.
 *
 * A worker's fields are grouped by who writes them, one group per cache line or more.  Whatever is
 * marked "owner only" may be touched by the worker's thread alone, also by the task it runs.
 */
#ifndef NIO_SCHED_WORKER_H
#define NIO_SCHED_WORKER_H

#include "runtime/base/rng.h"
#include "runtime/coro/coro.h"
#include "runtime/coro/overflow.h"
#include "runtime/sched/budget.h"
#include "runtime/sched/handle.h"
#include "runtime/sched/lifo.h"
#include "runtime/sched/parker.h"
#include "runtime/sched/stuck.h"
#include "runtime/sched/thrift.h"
#include "runtime/task/group.h"

/* Counters: the owner writes, anybody reads a value a moment old. */
struct nio_worker_counters {
    _Atomic uint64_t polls, spawned, completed;
    _Atomic uint64_t stolen_near, stolen_far;
    _Atomic uint64_t wakes_sent, wakes_far;
    _Atomic uint64_t parks, spin_wins;
    _Atomic uint64_t inject_taken, overflowed;
    _Atomic uint64_t remote_frees;
    _Atomic uint64_t bytes_in, bytes_out;
    _Atomic uint64_t streams_opened, streams_closed;
    _Atomic uint64_t ranked_polls[NIO_CLASS_COUNT - 1];
};

static inline void nio_count(_Atomic uint64_t *counter, uint64_t amount)
{
    /* relaxed: one writer; readers want a recent value and nothing else */
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(counter, value + amount, memory_order_relaxed);
}

static inline uint64_t nio_counter(const _Atomic uint64_t *counter)
{
    /* relaxed: as above */
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* A coroutine's control block: what stands in its cell. */
struct nio_co {
    struct nio_task task;
    struct nio_coro coro;            /* its suspended context */
    struct nio_stack *stack;         /* constant until it has ended */
    struct numio_op *op;             /* what it waits for with NIO_WAIT_OP */
    struct numio_deadline *deadline; /* its innermost scope, NULL without one */
    /* written when needed only */
    unsigned visit;                  /* with NIO_TASK_VISITS: the worker it wants to go on at */
    struct nio_member_links sibling; /* a member of a group: the group's */
    uint64_t limit_ns;       /* with NIO_TASK_SPECIAL: when its awaits end, UINT64_MAX: never */
    struct nio_extra *extra; /* with NIO_TASK_SPECIAL: sched/extra.h, or NULL */
};

_Static_assert(sizeof(struct nio_co) <= 192 || sizeof(struct nio_coro) > sizeof(void *),
               "a coroutine's cell is of three cache lines");

/* A member's links in the list of its group. */
static inline struct nio_member_links *nio_member_links(struct nio_task *task)
{
    if (NIO_LIKELY(task->kind == NIO_TASK_COROUTINE))
        return &NIO_CONTAINER_OF(task, struct nio_co, task)->sibling;
    return (struct nio_member_links *)(void *)((char *)nio_task_output(task) +
                                               nio_align_up(task->output_bytes, 16));
}

/* A chain of tasks that only this worker runs, oldest first. */
struct nio_private_queue {
    struct nio_mpsc_node *first, *last;
};

static inline void nio_private_push(struct nio_private_queue *queue, struct nio_task *task)
{
    task->link.next = NULL;
    if (queue->last)
        queue->last->next = &task->link;
    else
        queue->first = &task->link;
    queue->last = &task->link;
}

/* NULL if there is none. */
static inline struct nio_task *nio_private_pop(struct nio_private_queue *queue)
{
    struct nio_mpsc_node *node = queue->first;
    if (!node)
        return NULL;
    queue->first = node->next;
    if (!node->next)
        queue->last = NULL;
    return nio_task_of_link(node);
}

/* How a worker's time is shared among the classes: ranked.h. */
struct nio_shares {
    int64_t credit_ns[NIO_CLASS_COUNT];
    uint64_t since_ns; /* when the present poll began, 0: it has been charged */
    uint8_t polled;    /* its class */
    uint8_t background_polls;
    bool is_own_first;
};

enum nio_direct_state { NIO_DIRECT_UNKNOWN = 0, NIO_DIRECT_MADE, NIO_DIRECT_NONE };

struct nio_source;

struct nio_worker {
    /* constant after start */
    NIO_CACHE_ALIGNED struct numio_handle *handle;
    struct nio_node *node;
    unsigned index, index_in_node;
    const struct nio_plan_worker *plan;
    struct nio_driver *driver;
    bool has_peers;                         /* the runtime has more than one worker */
    _Atomic uint32_t order;                 /* NIO_ORDER_..., written now and then: see retire.c */
    bool is_inject_tuned;                   /* the ticks between looks at the inject queues */
    bool is_driver_tuned;                   /* and of those at the ring and the timers */
    uint64_t llc_peers[NIO_IDLE_WORDS_MAX]; /* who of the node shares the last-level cache */
    pthread_t thread;
    int tid;
    int start_error;
    struct nio_driver_counters final_io; /* once the driver is gone */
    /* owner only */
    NIO_CACHE_ALIGNED struct nio_task *_Atomic current; /* runs now, NULL in the loop; others
                                                           read it for reports only */
    struct nio_budget budget;
    uint32_t inject_interval; /* ticks; constant unless tuned */
    uint32_t inject_span;     /* ticks from the last look to the next */
    uint32_t driver_interval; /* the same of the ring and the timers */
    uint32_t driver_span;
    uint64_t driver_looked_ns;
    bool is_overflow_first;    /* at the next look, in turns */
    uint64_t inject_looked_ns; /* tuned: when they were last looked at, 0: there was a pause */
    uint32_t inject_countdown; /* ticks until the inject queues go first */
    uint32_t driver_countdown; /* ticks until the ring is reaped in any case */
    int32_t flush_credit;      /* submissions are published in any case when it is spent */
    uint8_t flush_cost;        /* of this tick: NIO_FLUSH_COST... */
    uint8_t turn;              /* which class of work goes first, so that none starves another */
    uint8_t turn_pops;         /* taken in this turn */
    uint8_t newest_pops;       /* in a row, since the oldest of the new tasks was taken */
    uint8_t class_now; /* enum nio_class of the running task, which it hands on to what it spawns */
    bool is_searching;
    bool is_batching;    /* reaping or closing: queue quietly, offer once at the end */
    bool has_quiet_work; /* something was queued quietly */
    bool is_leaving;     /* the loop is over: the runtime has ended, or it retires */
    bool is_retired;     /* serves only what no other can: see retire.c */
    bool can_spin;       /* no CPU carries two of the runtime's threads */
    uint32_t order_seen; /* the order that it follows */
    struct nio_private_queue mine;
    struct nio_source *sources; /* words that coroutines wait for: source.h */
    struct nio_coro loop;       /* the context of the loop, while a coroutine runs */
    struct nio_coro *here;      /* the context that runs now: the loop's or a coroutine's */
    struct nio_coro *host;      /* where the running coroutine goes when it suspends */
    /* With hooks: what after_poll is still to be called with.  NULL else. */
    const struct numio_task_meta *polled;
    struct nio_private_queue ranked[NIO_CLASS_COUNT - 1];
    struct nio_shares shares;
    uint32_t inline_depth; /* joined tasks that run inside of their joiner now */
    struct nio_rng rng;
    struct nio_slab_outbox outbox;
    struct nio_buf_group *recv_buffers; /* NULL until a stream receives here: io/stream_recv.c */
    struct nio_buf_memory recv_memory;
    _Atomic(char *) recv_reason;  /* NULL, or why there are fewer than asked for */
    uint8_t direct_state;         /* enum nio_direct_state: of the ring's table of files */
    _Atomic uint32_t direct_free; /* its free entries; any worker, RMW */
    uint64_t idle_since_ns;       /* 0 while busy */
    uint64_t early_ns;            /* how much before a timer it is woken, to be there in time */
    uint64_t idle_average_ns;     /* how long it took work to come lately, weighted */
    bool has_slept;               /* in the present pause */
    struct nio_watch lifo_watch, queue_watch; /* for siblings that keep work to themselves */
    struct nio_watch far_watch;               /* for workers of other nodes that are stuck */
    uint64_t far_ask_polls;                   /* asks for a far watcher again from this poll on */
    bool watched_afar;                        /* in its last sleep */
    struct nio_thrift thrift;                 /* whether it pays to take others' work */
    struct nio_stripe stripe;
    struct nio_stack_pool stack_pool;
    struct nio_overflow_thread overflow;
    struct nio_worker_counters counters;
    /* any worker */
    struct nio_lifo lifo;
    NIO_CACHE_ALIGNED struct nio_mpsc mailbox; /* tasks that only this worker may run */
    struct nio_parker parker;                  /* beside it: a sender needs both */
    _Atomic uint32_t report;                   /* shutdown asks for the tasks of the stripe */
    struct nio_local_queue queues[NIO_QUEUE_COUNT];
};

/* The calling thread's worker, NULL on other threads; by the two functions below only. */
extern _Thread_local struct nio_worker *nio_current_worker
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* Asked again after every suspension: the coroutine may have moved to another thread. */
#if defined(__x86_64__)
static inline struct nio_worker *nio_worker_current(void)
{
    /* In assembly, so that the compiler cannot keep the address of the variable, or what it read
     * there, across a suspension; two loads, no call. */
    struct nio_worker *worker;
    __asm__ __volatile__("movq nio_current_worker@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0"
                         : "=r"(worker)
                         :
                         : "memory");
    return worker;
}
#else
struct nio_worker *nio_worker_current(void);
#endif
void nio_worker_set_current(struct nio_worker *worker);

/* A worker's thread: runs tasks until the runtime has ended. */
void nio_worker_run(struct nio_worker *worker);
/* One turn of the loop: runs a task, or looks for work, or (may_block) sleeps.  False: the runtime
 * has ended.  Tests step fake workers with it. */
bool nio_worker_step(struct nio_worker *worker, bool may_block);

/* sched/run.c: the running task joins `task`: if that stands in this worker's LIFO slot it is run
 * at once, inside of its joiner.  The caller looks at its state again. */
void nio_run_joined(struct nio_worker *worker, struct nio_task *task);
/* The same if it stands there, or is the newest of the new tasks behind an empty slot: what the
 * loop would run next in either case.  False: it does not, or others are to have a turn. */
bool nio_run_newest(struct nio_worker *worker, struct nio_task *task);

/* sched/schedule.c */
enum nio_place { NIO_PLACE_LIFO, NIO_PLACE_TAIL };
/* Owner: queues a notified task here, or where its affinity wants it. */
void nio_schedule_local(struct nio_worker *worker, struct nio_task *task, enum nio_place place);
/* Owner: queues a notified task at the tail of a local queue, which must fit its affinity. */
void nio_push_tail(struct nio_worker *worker, struct nio_task *task, enum nio_queue_class which);
/* The same, the short way where nobody is to be told. */
static inline void nio_push_short(struct nio_worker *worker, struct nio_task *task,
                                  enum nio_queue_class which)
{
    if (worker->has_peers || !nio_local_queue_push(&worker->queues[which], task, false))
        nio_push_tail(worker, task, which);
}
/* Owner: queues a new task of affinity "any" where it is run soonest. */
static inline void nio_schedule_new(struct nio_worker *worker, struct nio_task *task)
{
    if (NIO_LIKELY(worker->lifo.is_open && !worker->is_batching)) {
        task = nio_lifo_swap(&worker->lifo, task, worker->has_peers);
        if (!task)
            return;
    }
    nio_push_short(worker, task,
                   NIO_LIKELY(nio_task_is_plain(task)) ? NIO_QUEUE_NEW : NIO_QUEUE_NODE);
}
/* The table's schedule: any thread. */
void nio_schedule(const struct nio_schedule *self, struct nio_task *task);
/* Any thread: to the task's home node's inject queue, or to its worker. */
void nio_schedule_home(struct numio_handle *handle, struct nio_task *task);
/* Any thread: to the worker that alone may run it. */
void nio_schedule_mailbox(struct nio_worker *worker, struct nio_task *task);
/* Owner: after quiet pushes, wakes somebody if there is more than this worker will run next. */
void nio_offer_quiet_work(struct nio_worker *worker);
/* Owner, who has found work as the last searcher of its node: wakes the next one, at home or, if
 * all are busy there and some queue is deep, on another node; so searchers follow the work. */
void nio_offer_on(struct nio_worker *worker);
/* Any thread: how many tasks a worker of another node could find in the worker's queues. */
uint32_t nio_far_depth(const struct nio_worker *victim);
/* Any thread: wakes a sleeper of the node, if nobody searches there. */
void nio_wake_node(struct nio_node *node, struct nio_worker *by);
/* Any thread: wakes a sleeper of the nearest other node that has one, and nobody who searches. */
void nio_wake_far(const struct nio_node *home, struct nio_worker *by);
/* Any thread, after a push to a node's inject queue: the same, or another node's if all are busy
 * there and the queue is deep. */
void nio_offer_injected(struct nio_node *node, enum nio_reach reach, struct nio_worker *by);
/* Any thread: unparks one worker. */
void nio_wake_worker(struct nio_worker *worker, struct nio_worker *by);
void nio_release(const struct nio_schedule *self, struct nio_task *task);

/* sched/worker.c, the loop's parts; the owner only. */
/* Keeps a task that yields in the LIFO slot, if nothing else waits at home: in a queue it would
 * only be stolen, once for each yield, and a sleeper be woken for it.  False: it is to be queued.
 */
bool nio_keep_alone(struct nio_worker *worker, struct nio_task *task);
/* The next task of the class normal, NULL if there is none at home. */
struct nio_task *nio_next_normal(struct nio_worker *worker);
/* Moves what others have sent to the private queue.  True if there was something. */
bool nio_take_mail(struct nio_worker *worker);
/* The oldest of the private queue, NULL if there is none. */
struct nio_task *nio_pop_private(struct nio_worker *worker);
/* Publishes the submissions. */
void nio_flush_own(struct nio_worker *worker);
/* Reaps the own ring; the woken tasks are in the queues, and offered.  Returns how many ended. */
unsigned nio_reap_own(struct nio_worker *worker);
/* The order of what comes next must not depend on how long the worker was idle. */
void nio_restart_turns(struct nio_worker *worker);
/* How many ticks before the first look after a pause: where they are tuned they may be long. */
static inline uint32_t nio_first_span(uint32_t interval, bool is_tuned)
{
    return is_tuned && interval > NIO_FIRST_SPAN ? NIO_FIRST_SPAN : interval;
}
/* What is due every few ticks while there is always something to run. */
NIO_NOINLINE void nio_maintain_rarely(struct nio_worker *worker);
static NIO_ALWAYS_INLINE void nio_maintain(struct nio_worker *worker)
{
    worker->flush_credit -= worker->flush_cost;
    worker->flush_cost = NIO_FLUSH_COST;
    if (NIO_UNLIKELY(worker->flush_credit <= 0))
        nio_flush_own(worker);
    if (NIO_UNLIKELY(--worker->driver_countdown == 0))
        nio_maintain_rarely(worker);
}
/* So many polls in a row came from the LIFO slot that it is closed if anything else waits. */
NIO_NOINLINE void nio_cap_slot(struct nio_worker *worker);
/* The task of the LIFO slot, NULL if there is none. */
static NIO_ALWAYS_INLINE struct nio_task *nio_next_slot(struct nio_worker *worker)
{
    struct nio_task *task = nio_lifo_pop(&worker->lifo, worker->has_peers);
    if (task && NIO_UNLIKELY(nio_lifo_count_poll(&worker->lifo)))
        nio_cap_slot(worker);
    return task;
}

/* sched/spin.c; the owner only. */
/* Whether spinning is allowed, and has paid lately. */
bool nio_wants_spin(const struct nio_worker *worker);
/* Whether its earliest timer is due so soon that a sleep would end too late. */
bool nio_timer_is_near(const struct nio_worker *worker);
/* Looks around until something turns up, NULL when spinning has cost as much as a sleep would and
 * no timer is near. */
struct nio_task *nio_spin(struct nio_worker *worker);
/* One look, at what can only come to this worker or its node; and one around. */
struct nio_task *nio_look_home(struct nio_worker *worker);
struct nio_task *nio_look(struct nio_worker *worker);

/* Waits for work to come while it does not pay to take others': NULL when it may again, or when
 * nobody has any. */
struct nio_task *nio_spin_thrifty(struct nio_worker *worker);
/* Whether the policy and the plan allow to spin now. */
bool nio_may_spin(const struct nio_worker *worker);

/* sched/sleep.c; the owner only. */
/* Nothing to run at home.  Returns what it found elsewhere, or sleeps and returns NULL. */
struct nio_task *nio_idle(struct nio_worker *worker, bool may_block);
/* Work was found after a pause or a search. */
void nio_end_idle(struct nio_worker *worker);
/* Owner: the next task of the LIFO slot, the private and the local queues. */
struct nio_task *nio_next_local(struct nio_worker *worker);

/* sched/steal.c */
/* Owner: the oldest task of the node's inject queues, with a batch behind it. */
struct nio_task *nio_take_injected(struct nio_worker *worker);
/* Owner: the same from its overflow queues; up to `max` tasks. */
struct nio_task *nio_take_overflow(struct nio_worker *worker, uint32_t max);
/* Owner: looks for work beyond its own queues; NULL if there is none that it may take now. */
struct nio_task *nio_steal(struct nio_worker *worker);
/* Owner, after announcing its sleep: whether some source of work has something for it. */
bool nio_sees_work(struct nio_worker *worker);
/* Any thread: whether tasks wait in a node's inject or overflow queues. */
bool nio_sees_outside(const struct nio_node *node);
/* Any thread: how many tasks a worker of another node could find in a node's own queues. */
uint32_t nio_node_far_depth(const struct nio_node *node);
/* Owner: reaps siblings' completions; their tasks are then in its own queues. */
unsigned nio_reap_siblings(struct nio_worker *worker);

/* sched/retire.c: the work of a worker whose CPU was taken away. */
enum { NIO_ORDER_RETIRE = 1, NIO_ORDER_NO_SPIN = 2 };
/* Any thread, while the drivers are there: what the worker is to do from now on.  It follows as
 * soon as it looks up, at the latest when its present poll ends and 61 more. */
void nio_worker_order(struct nio_worker *worker, uint32_t order);
/* Owner: whether there is an order that it does not follow yet.  One load. */
static inline bool nio_has_order(const struct nio_worker *worker)
{
    /* relaxed: the word is all there is to it, and the wake that follows makes it seen */
    return atomic_load_explicit(&worker->order, memory_order_relaxed) != worker->order_seen;
}
/* Owner: follows it.  If it retires, `is_leaving` is set and the loop is left. */
void nio_follow_order(struct nio_worker *worker);
/* Owner: one turn of a retired worker.  False: it is none (any more). */
bool nio_serve_retired(struct nio_worker *worker, bool may_block);
/* sched/run.c: polls a task outside of the loop. */
void nio_run_task(struct nio_worker *worker, struct nio_task *task);

/* sched/close.c: what a worker does once the runtime is closing. */
void nio_worker_close(struct nio_worker *worker);
/* Owner of the stripe, before it is closed: tells the hook of the tasks that nobody waits for. */
void nio_tell_left(struct numio_handle *handle, struct nio_stripe *stripe);
/* Asks every worker for its tasks and collects those that have not ended. */
size_t nio_collect_stragglers(struct numio_handle *handle, struct numio_straggler *ret,
                              size_t capacity);
void nio_worker_report(struct nio_worker *worker);
/* Any thread: the task that the worker runs, which may end meanwhile.  False: none, or another than
 * a moment ago. */
bool nio_worker_peek(const struct nio_worker *worker, struct numio_task_meta *ret_meta);

#endif
