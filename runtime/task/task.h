/* SPDX-License-Identifier: MIT */
/* task/task.h: the header every task starts with, and the one table by which a task reaches its
 * scheduler.
 *
 * Layout of a cell: struct nio_task (96 bytes), then a future's state and output or a coroutine's
 * control block.  The first word is the state word, which is zero only in a free cell, and the
 * second is a link, as alloc/slab.h wants it.
 *
 * References (upper bits of the state word): one for the task's own life, from spawn until it
 * completes; one for the join handle; one for each waker, abort handle and started operation of a
 * future.  An entry in a run queue needs none: a task completes only by running, and it cannot
 * run while it is queued.
 */
#ifndef NIO_TASK_TASK_H
#define NIO_TASK_TASK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <numio/op.h>
#include <numio/task.h>

#include "runtime/base/compiler.h"
#include "runtime/base/mpsc.h"

struct nio_extra;
struct nio_task;
struct numio_scope;

/* The one way from a task to its scheduler: embedded at the head of the runtime. */
struct nio_schedule {
    /* Queues a task that the caller owns since its wake; any thread; never suspends. */
    void (*schedule)(const struct nio_schedule *self, struct nio_task *task);
    /* Frees the cell of a task whose last reference is gone; any thread. */
    void (*release)(const struct nio_schedule *self, struct nio_task *task);
};

enum nio_task_kind { NIO_TASK_FUTURE = 0, NIO_TASK_COROUTINE, NIO_TASK_BLOCKING };

/* What a suspended coroutine waits for, when not a wake in general. */
enum nio_wait_kind { NIO_WAIT_WAKE = 0, NIO_WAIT_OP, NIO_WAIT_JOIN };

/* A task's scheduling class; 0 is what has none.  sched/ranked.h. */
enum nio_class { NIO_CLASS_NORMAL = 0, NIO_CLASS_LATENCY, NIO_CLASS_BACKGROUND, NIO_CLASS_COUNT };

enum nio_task_flag {
    NIO_TASK_STARTED = 1 << 0,      /* has been polled at least once */
    NIO_TASK_SHIELDED = 1 << 1,     /* its current operation must not be cancelled (close) */
    NIO_TASK_YIELDED = 1 << 2,      /* asked to go behind the other ready tasks */
    NIO_TASK_OP_CANCELLED = 1 << 3, /* its operations were asked to end */
    NIO_TASK_FINISHED = 1 << 4,     /* has returned, or was polled to its end */
    NIO_TASK_SPECIAL = 1 << 5,      /* has what few have: sched/extra.h */
    NIO_TASK_OP_DONE = 1 << 7,      /* the operation it waited for has ended; set by the waker */
    NIO_TASK_VISITS = 1 << 6        /* goes to other workers to cancel operations on their rings */
};

struct nio_task {
    _Atomic uint64_t state;               /* any thread, RMW: task/state.h */
    struct nio_mpsc_node link;            /* the queue it stands in; whoever queued it */
    const struct nio_schedule *scheduler; /* constant after bind */
    union {
        enum numio_poll (*poll)(void *state, struct numio_context *cx);
        int64_t (*run)(void *arg); /* coroutines and blocking functions */
    } entry;                       /* constant after bind */
    union {
        void (*drop)(void *state);
        void *arg;
        struct nio_extra *extra;    /* of a future with NIO_TASK_SPECIAL */
        int64_t result;             /* once COMPLETE */
    } with;                         /* the running task only */
    _Atomic uintptr_t join_waker;   /* task/wake.h: whose it is says JOIN_WAKER */
    uint64_t id;                    /* constant after bind */
    const struct numio_site *site;  /* constant after bind */
    const char *name;               /* constant after bind, may be NULL */
    union {                         /* the running task only */
        struct numio_op *ops;       /* a future's operations, started and not yet seen ended */
        struct numio_scope *scopes; /* a coroutine's open scopes, the innermost first */
    };
    uint32_t state_bytes;   /* future: bytes of its state, constant */
    uint16_t output_bytes;  /* future: bytes of its output, constant */
    uint16_t home_worker;   /* stripe that owns the cell: worker index, or NIO_STRIPE_FOREIGN */
    uint16_t node;          /* home node, constant */
    uint16_t pinned_worker; /* with NUMIO_AFFINITY_WORKER, constant */
    uint8_t kind;           /* enum nio_task_kind, constant */
    uint8_t place;          /* enum numio_affinity, and the class above it; 0: normal, anywhere;
                               the class is the running task's */
    uint8_t flags;          /* enum nio_task_flag; the task's owner only: task/state.h */
    uint8_t wait_kind;      /* enum nio_wait_kind; the running task only */
};

_Static_assert(sizeof(struct nio_task) == 96, "cells are sized for a header of 96 bytes");
_Static_assert(offsetof(struct nio_task, state) == 0, "a free cell's first word is zero");
_Static_assert(offsetof(struct nio_task, link) == 8, "the slab links free cells here");

enum { NIO_STRIPE_FOREIGN = 0xffff };

enum { NIO_PLACE_CLASS_SHIFT = 4, NIO_PLACE_AFFINITY_MASK = 15 };

static inline enum numio_affinity nio_task_affinity(const struct nio_task *task)
{
    return (enum numio_affinity)(task->place & NIO_PLACE_AFFINITY_MASK);
}

static inline enum nio_class nio_task_class(const struct nio_task *task)
{
    return (enum nio_class)(task->place >> NIO_PLACE_CLASS_SHIFT);
}

static inline uint8_t nio_task_place(enum numio_affinity affinity, enum nio_class class)
{
    return (uint8_t)((unsigned)affinity | (unsigned)class << NIO_PLACE_CLASS_SHIFT);
}

/* Normal, and may run anywhere: the ways of such tasks are the short ones. */
static inline bool nio_task_is_plain(const struct nio_task *task)
{
    return task->place == 0;
}

static inline struct nio_task *nio_task_of_link(struct nio_mpsc_node *node)
{
    return NIO_CONTAINER_OF(node, struct nio_task, link);
}

/* A future's state, aligned to 16 bytes. */
static inline void *nio_task_payload(struct nio_task *task)
{
    return task + 1;
}

/* A future's output, after its state. */
static inline void *nio_task_output(struct nio_task *task)
{
    return (char *)(task + 1) + nio_align_up(task->state_bytes, 16);
}

#endif
