/* SPDX-License-Identifier: MIT */
/* sched/handle.h: what all parts of a runtime share.
 *
 * struct numio_handle holds the nodes, each with its workers, inject queues, idle set, arena and
 * stripe for foreign threads.  It is built and torn down by runtime.c; everything in it is
 * constant while workers run, except what is marked.  Nothing in it is written on spawn, wake or
 * exit of a task: what changes then belongs to a worker or to a node.
 *
 * References: one for the runtime, one per user's handle, and after the shutdown one for each cell
 * that is still held (a join handle, a waker): the memory goes with the last.
 */
#ifndef NIO_SCHED_HANDLE_H
#define NIO_SCHED_HANDLE_H

#include <pthread.h>

#include <numio/runtime.h>

#include "alloc/node_arena.h"
#include "alloc/page_pool.h"
#include "alloc/stack_pool.h"
#include "numa/plan.h"
#include "runtime/driver/driver.h"
#include "runtime/sched/idle.h"
#include "runtime/sched/inject.h"
#include "runtime/sched/owned.h"
#include "runtime/sched/policy.h"
#include "runtime/sched/seats.h"
#include "runtime/task/task.h"
#include "runtime/time/timeline.h"

struct nio_worker;
struct nio_blocking;
struct nio_cpu_watch;

/* The two classes of stealable work: what may leave the node, and what may not. */
enum nio_reach { NIO_REACH_ANY = 0, NIO_REACH_NODE = 1, NIO_REACH_COUNT = 2 };

/* A worker's local queues: by reach, first come first served; and new tasks that may go anywhere,
 * of which the owner takes the newest and thieves the oldest: a tree of tasks is then walked
 * depth first at home, and what is stolen is a large branch. */
enum nio_queue_class {
    NIO_QUEUE_ANY = NIO_REACH_ANY,
    NIO_QUEUE_NODE = NIO_REACH_NODE,
    NIO_QUEUE_NEW,
    NIO_QUEUE_COUNT
};

enum nio_phase {
    NIO_PHASE_RUNNING = 0,
    NIO_PHASE_CLOSING, /* no task is accepted, all are being cancelled */
    NIO_PHASE_ENDED    /* no task is left; workers leave */
};

enum {
    NIO_REASONS_MAX = 64,
    NIO_OLDEST_INTERVAL = 64,  /* pops of new tasks of which one takes the oldest */
    NIO_INLINE_DEPTH_MAX = 32, /* joined tasks run inside of each other to this depth */
    NIO_INJECT_INTERVAL = 61,  /* ticks, at most and at first if tuned; Go's and Tokio's prime */
#ifdef NIO_TINY
    NIO_OVERFLOW_BATCH = 2,
#else
    NIO_OVERFLOW_BATCH = 16, /* most tasks taken from an overflow queue at once */
#endif
    NIO_LOOK_PERIOD_NS = 200000, /* tuned: the inject queues, the ring and the timers are looked at
                                    this often (Tokio's figure, of the inject queue), */
    NIO_LOOK_INTERVAL_MIN = 2,   /* but not more often than every so many ticks; */
    NIO_FIRST_SPAN = 8,          /* after a pause first after so many */
    NIO_DRIVER_INTERVAL = 61,    /* busy ticks between reaps; likewise */
    NIO_FLUSH_CREDIT = 64,       /* submissions are published when the ticks have cost so much: */
    NIO_FLUSH_COST = 4,          /* a tick */
    NIO_FLUSH_COST_WAIT = 1,     /* a tick that submits something for which only its task waits */
    NIO_FLUSH_COST_SEND = 16,    /* a tick that sends something for which a peer waits */
    NIO_REAP_MAX = 128,          /* completions per reap: below the local queue's capacity */
    NIO_REAP_MIN = 8,            /* ... and so many also when the queue is full */
    NIO_REAP_RESERVE = 64,       /* places in the queue for what is woken between two reaps */
    NIO_REGISTERED_ALIGNMENT = 2 << 20 /* a huge page */
};

/* A request of the shutdown for the tasks that have not ended. */
struct nio_report {
    struct nio_lock lock;
    bool is_open; /* all under the lock */
    struct numio_straggler *out;
    size_t capacity, count;
};

struct nio_node {
    /* constant after start */
    struct numio_handle *handle;
    unsigned index;
    struct nio_worker **workers;
    unsigned worker_count;
    const struct nio_plan_node *plan;
    struct nio_node_arena *arena;
    struct nio_page_pool registered;       /* I/O buffers that the rings know; made by the leader */
    struct nio_registration *registration; /* NULL: nothing is registered */
    struct nio_stack_depot *stacks;
    int leader_ring_fd; /* written before the other workers start */
    int sq_tid;         /* thread id of the SQ thread, -1 without one */
    /* any thread */
    struct nio_inject inject[NIO_REACH_COUNT];   /* from outside of the workers: first served */
    struct nio_inject overflow[NIO_REACH_COUNT]; /* what did not fit into local queues */
    struct nio_inject ranked[NIO_CLASS_COUNT - 1][NIO_REACH_COUNT]; /* ranked.h */
    struct nio_idle idle;
    NIO_CACHE_ALIGNED _Atomic uint32_t guests; /* threads of others that are waking a worker */
    _Atomic uint32_t watcher; /* 1: one sleeper of the node looks around: stuck.h */
    _Atomic bool has_asked;   /* for a far watcher, since it was full: stuck.h */
    _Atomic uint32_t resting; /* retired workers that are parked */
    struct nio_foreign_stripe foreign;
};

struct numio_handle {
    struct nio_schedule schedule; /* first: what a task points to */
    /* constant after start */
    struct nio_node **nodes;
    struct nio_worker **workers;
    unsigned node_count, worker_count;
    struct numio_config config;
    char name[16];
    struct nio_plan *plan;
    struct numio_topology *topology;
    enum numio_driver profile;
    uint64_t opcodes;   /* of io_uring, that the kernel knows: nio_op_is_known() */
    int cpu_latency_fd; /* -1: not held */
    bool has_hooks;
    _Atomic bool has_ranked; /* set with the first task that is not of the class normal */
    bool sq_shares_core;
    const uint8_t *fork_guard; /* a page that reads 0 in a forked child */
    struct nio_blocking *blocking;
    struct nio_cpu_watch *cpu_watch; /* NULL: not wanted */
    struct nio_report *report;
    const char *reasons[NIO_REASONS_MAX];
    unsigned reason_count;
    struct nio_timeline timeline; /* written when it is paused only */
    /* under its lock */
    struct nio_seats seats;
    /* any thread */
    NIO_CACHE_ALIGNED _Atomic uint64_t refs;
    _Atomic uint32_t phase;               /* enum nio_phase */
    _Atomic uint32_t closed;              /* workers that have closed their stripe; CLOSING only */
    _Atomic uint64_t completed_elsewhere; /* tasks that ended on pool threads; under end_lock */
    struct nio_lock end_lock;             /* orders the last looks at the counters */
    _Atomic uint32_t blocking_jobs;       /* functions that wait or run on the pool */
    _Atomic uint32_t left;                /* futex: workers that have left their loops */
    _Atomic uint32_t may_leave;           /* futex: 1 once workers may take their drivers down */
    _Atomic uint32_t ended;               /* futex: 1 once the last task has ended */
    NIO_CACHE_ALIGNED _Atomic uint32_t far_watcher; /* 1: one sleeper looks at other nodes */
};

static inline enum nio_phase nio_phase(const struct numio_handle *handle)
{
    /* [HP1] acquire: who sees CLOSING sees what the closer did before.  Pairs with [HP2]. */
    return (enum nio_phase)atomic_load_explicit(&handle->phase, memory_order_acquire);
}

/* Whether there may be tasks of other classes than normal. */
static inline bool nio_has_ranked(const struct numio_handle *handle)
{
    /* relaxed: who gets such a task from a queue sees this as well, and until then it need not */
    return atomic_load_explicit(&handle->has_ranked, memory_order_relaxed);
}

/* False in a forked child, where the workers and rings do not exist.  One load. */
static inline bool nio_is_own_process(const struct numio_handle *handle)
{
    return NIO_LIKELY(*handle->fork_guard != 0);
}

NIO_NODISCARD int nio_refuse_forked_child(void);

struct numio_task_meta nio_task_meta(const struct nio_task *task);

/* What runtime.c does when the last reference is gone. */
void nio_handle_ref(struct numio_handle *handle, uint64_t count);
void nio_handle_unref(struct numio_handle *handle, uint64_t count);
void nio_handle_free(struct numio_handle *handle);

/* The handle that `handle` stands for: itself, or the current one for NULL; NULL if there is none.
 */
struct numio_handle *nio_handle_resolve(struct numio_handle *handle);

/* Shutdown's last question, asked by whoever may have ended the last task while CLOSING. */
void nio_end_check(struct numio_handle *handle);

#endif
