/* SPDX-License-Identifier: MIT */
/* sched/spawn.h: from a spawn to a scheduled task.  Any thread.
 *
 * spawn -> nio_bind_new_task(): a cell of the home stripe, bound to the owned set -> spawn hook ->
 * schedule.  A worker of the runtime binds in its own stripe; everybody else, and a worker that
 * spawns for another node, in the target node's stripe for foreign threads, under its lock.
 */
#ifndef NIO_SCHED_SPAWN_H
#define NIO_SCHED_SPAWN_H

#include "runtime/sched/worker.h"

/* Where a new task will live and run. */
struct nio_placement {
    struct numio_handle *handle;
    struct nio_worker *worker; /* the spawning worker if the task lives in its stripe, else NULL */
    struct nio_node *node;     /* home node */
    uint16_t pinned_worker;
    uint8_t place; /* affinity and class, as in struct nio_task */
    const char *name;
};

/* Checks handle and options.  Errors: those of numio_spawn(). */
int nio_place(struct numio_handle *handle, const struct numio_spawn_opts *opts,
              struct nio_placement *ret_placement);

/* A bound task of `bytes`, its header complete but for entry, with and payload.  It is NOTIFIED
 * and must be scheduled, or taken back by nio_unbind_new_task().
 * Errors: -ESHUTDOWN, -ENOMEM. */
int nio_bind_new_task(const struct nio_placement *placement, const struct numio_site *site,
                      enum nio_task_kind kind, size_t bytes, bool has_join,
                      struct nio_task **ret_task);
void nio_unbind_new_task(const struct nio_placement *placement, struct nio_task *task);

/* Calls the spawn hook and schedules. */
void nio_launch(const struct nio_placement *placement, struct nio_task *task);
/* The spawn hook alone. */
void nio_call_spawn_hook(const struct nio_placement *placement, const struct nio_task *task);

#endif
