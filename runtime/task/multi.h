/* SPDX-License-Identifier: MIT */
/* task/multi.h: a request with many completions, between the driver and the task that consumes
 * them.
 *
 * The producer is whoever holds the CQ lock of the ring that has the request (one at a time, in the
 * order of the completions), or the owner of the driver for what never reaches a ring.  The
 * consumer is one task at a time, on any worker.  Nothing is allocated: an item is an index into a
 * table that has an entry for whatever the kernel can hand out, a buffer of the group or a
 * descriptor, so there is room for every completion that can come.
 *
 * Items go through `newest`, a stack that the consumer takes as a whole and turns around [MU1].
 * Events and expirations are not queued but added up in `sum`.  `signal` says what there is to know
 * and remembers one waiting task [MU2]:
 *
 *     QUIET --post--> NEWS --consumer looks--> QUIET      any --last post--> ENDED
 *     QUIET --consumer waits--> the task --post--> NEWS or ENDED, and the producer wakes the task
 *
 * The exchange of the last post is the producer's last access: a consumer that has seen ENDED may
 * submit the request again or free it.
 */
#ifndef NIO_TASK_MULTI_H
#define NIO_TASK_MULTI_H

#include "runtime/task/op_done.h"

enum nio_multi_kind {
    NIO_MULTI_ACCEPT, /* items are descriptors */
    NIO_MULTI_RECV,   /* items are buffers */
    NIO_MULTI_POLL,   /* sum: the events, or-ed */
    NIO_MULTI_TICK    /* sum: how often the period has passed */
};

/* Connections that a stream accepts ahead of its consumer, about. */
enum { NIO_MULTI_PENDING_MAX = 256 };

enum nio_multi_signal { NIO_MULTI_QUIET = 0, NIO_MULTI_NEWS, NIO_MULTI_ENDED };

/* relaxed in all uses: the stack's [MU1] orders them. */
struct nio_multi_item {
    _Atomic uint32_t next; /* index + 1 of the one that came before it, 0: none */
    _Atomic int32_t result;
};

struct nio_multi {
    struct numio_op op; /* first: what the driver knows */
    enum nio_multi_kind kind;
    /* constant while it is submitted */
    struct nio_multi_item *items;
    uint32_t item_count;
    /* producer and consumer */
    _Atomic uintptr_t signal; /* enum nio_multi_signal, or a task that waits and its reference */
    _Atomic uint32_t newest;  /* index + 1, 0: none */
    _Atomic uint32_t sum;
    uint64_t period_ns, due_ns; /* TICK: the owner of the driver */
    uint32_t posted;            /* items so far: producer */
    /* consumer */
    _Atomic uint32_t taken; /* items so far; any reads */
    uint32_t oldest;        /* index + 1 of the first of those it has taken, 0: none */
};

static inline struct nio_multi *nio_multi_of(struct numio_op *op)
{
    return (struct nio_multi *)op;
}

/* Producer: one completion; `buffer` is the index of the one it brought, -1 without.  Returns a
 * task that must be woken (nio_multi_wake()) once the producer's lock is released, or NULL. */
NIO_NODISCARD struct nio_task *nio_multi_post(struct nio_multi *multi, int32_t result,
                                              int32_t buffer, bool is_last);
/* Producer: whether more connections wait than a consumer needs.  Then the request is to be ended;
 * the consumer submits it again when it has taken them all, and until then clients wait with the
 * kernel. */
bool nio_multi_has_enough(const struct nio_multi *multi);
/* Wakes a task and gives its reference up. */
void nio_multi_wake(struct nio_task *task);

/* Consumer: the oldest item.  False: none has come. */
bool nio_multi_take(struct nio_multi *multi, uint32_t *ret_index, int32_t *ret_result);
/* Consumer: what has added up since the last call. */
uint32_t nio_multi_take_sum(struct nio_multi *multi);
/* Consumer: whether the request has ended, with op._result; and that what came until now is known.
 * Look for items afterwards. */
bool nio_multi_look(struct nio_multi *multi);
/* Consumer: leaves `task` to be woken.  False: there is something to look at, or, with *ret_busy,
 * another task waits here. */
NIO_NODISCARD bool nio_multi_wait(struct nio_multi *multi, struct nio_task *task, bool *ret_busy);
/* Consumer: takes the task back, if nobody has woken it. */
void nio_multi_unwait(struct nio_multi *multi, struct nio_task *task);
/* Consumer, before a submission. */
void nio_multi_reset(struct nio_multi *multi);

#endif
