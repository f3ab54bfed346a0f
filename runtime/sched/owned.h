/* SPDX-License-Identifier: MIT */
/* sched/owned.h: the owned set: which tasks exist.
 *
 * The set is a shard per node and within it a stripe per worker, and one more stripe per node for
 * threads that are no workers.  A stripe is its slab: the live cells are the tasks, so that spawn
 * and exit touch no list, no lock and no counter beyond the worker's own.  A stripe belongs to one
 * worker, or is used under its lock.
 *
 * A cell is freed where it came from: a task that ends elsewhere sends its cell home, and there it
 * leaves the set.  A complete task whose join handle is still held is in the set and is skipped.
 *
 * Closing: the owner sets is_closed and then walks the cells once; as it alone binds, no task can
 * slip in between.
 */
#ifndef NIO_SCHED_OWNED_H
#define NIO_SCHED_OWNED_H

#include <errno.h>

#include "alloc/slab.h"
#include "runtime/base/lock.h"
#include "runtime/task/task.h"

struct nio_stripe {
    struct nio_slab slab; /* owner only, but for its remote list */
    uint64_t next_id;     /* owner only */
    bool is_closed;       /* owner only */
};

struct nio_foreign_stripe {
    NIO_CACHE_ALIGNED struct nio_lock lock;
    struct nio_stripe stripe;
    _Atomic uint64_t spawned; /* written under the lock */
    bool is_post_mortem;      /* under the lock: the runtime is gone, only cells are left */
};

int nio_stripe_init(struct nio_stripe *stripe, struct nio_node_arena *arena, unsigned number);

/* Owner: a cell of `bytes` for a new task, with its id set.
 * Errors: -ESHUTDOWN the stripe is closed; -ENOMEM. */
static inline int nio_stripe_bind(struct nio_stripe *stripe, size_t bytes,
                                  struct nio_task **ret_task)
{
    if (NIO_UNLIKELY(stripe->is_closed))
        return -ESHUTDOWN;
    struct nio_task *task = nio_slab_alloc(&stripe->slab, bytes);
    if (NIO_UNLIKELY(!task))
        return -ENOMEM;
    task->id = stripe->next_id++;
    *ret_task = task;
    return 0;
}

/* Owner: closes the stripe and cancels every task in it; those that were idle are queued. */
void nio_stripe_close(struct nio_stripe *stripe);

/* Owner: calls fn for every task that has not completed. */
void nio_stripe_for_each(struct nio_stripe *stripe, void (*fn)(struct nio_task *task, void *arg),
                         void *arg);

#endif
