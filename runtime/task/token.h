/* SPDX-License-Identifier: MIT */
/* task/token.h: the tree of cancel tokens, as the runtime uses it.
 *
 * Each token has a lock of its own, that of its queue of waits; no two are held at once.  Under it:
 * the waits, the watches (of tasks that are to be aborted), and the children.
 *
 * `is_cancelled` is set once; who sets it owns the rest of that token's cancellation.  For a child
 * that is the canceller of its parent, while it holds the parent's lock; it reaches the child
 * later, by a list of work through `work_next`.  What joins a token afterwards, under the lock,
 * finds it set.
 *
 * `refs` counts the users', one for each child, each watch, and a place in the list of work.  A
 * token without references waits for its parent's lock to leave the list of children, so a
 * canceller that finds it there does not revive it.
 */
#ifndef NIO_TASK_TOKEN_H
#define NIO_TASK_TOKEN_H

#include <numio/cancel.h>

#include "runtime/task/group.h"
#include "runtime/task/wait.h"

/* A task that is aborted when a token is cancelled; in the task's struct nio_extra. */
struct nio_token_watch {
    struct numio_cancel_token *token; /* NULL: none; constant while watching */
    struct nio_task *task;
    struct nio_token_watch *next, *prev; /* under the token's lock */
};

struct numio_cancel_token {
    _Atomic uint32_t is_cancelled;
    _Atomic uint64_t refs;
    struct numio_cancel_token *parent; /* constant */
    struct numio_wait_queue_ waits;    /* and the lock of what follows */
    struct nio_token_watch *watches;
    struct numio_cancel_token *children;
    struct numio_cancel_token *next, *prev; /* under the parent's lock */
    struct numio_cancel_token *work_next;   /* of who has set is_cancelled */
};

/* Before the task is launched: it is aborted when the token is cancelled, or at once if it is. */
void nio_token_watch(struct nio_token_watch *watch, struct numio_cancel_token *token,
                     struct nio_task *task);
/* Before the task completes. */
void nio_token_unwatch(struct nio_token_watch *watch);

#endif
