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
 * `state` is its word: nio_state_initial().
 * Errors: -ESHUTDOWN, -ENOMEM. */
int nio_bind_new_task(const struct nio_placement *placement, const struct numio_site *site,
                      enum nio_task_kind kind, size_t bytes, uint64_t state,
                      struct nio_task **ret_task);
void nio_unbind_new_task(const struct nio_placement *placement, struct nio_task *task);

/* Calls the spawn hook and schedules. */
void nio_launch(const struct nio_placement *placement, struct nio_task *task);
/* A member of a group, on its way: bound, and not launched yet. */
struct nio_new_member {
    struct nio_task *task;
    struct nio_worker *worker; /* not NULL: the short way, without a placement */
    struct nio_placement placement;
};

/* Spawn for a group in two steps, between which the group puts the task into its list.
 * `limit_ns`: when a coroutine's awaits end, UINT64_MAX: never.
 * Errors: those of numio_spawn(). */
int nio_bind_member(struct numio_group_ *group, const struct numio_site *site,
                    struct numio_handle *handle, const struct numio_future *future,
                    const struct numio_spawn_opts *opts, struct nio_new_member *ret_member);
int nio_bind_member_co(struct numio_group_ *group, const struct numio_site *site,
                       struct numio_handle *handle, int64_t (*fn)(void *arg), void *arg,
                       const struct numio_spawn_opts *opts, uint64_t limit_ns,
                       struct nio_new_member *ret_member);
static inline void nio_launch_member(const struct nio_new_member *member)
{
    if (NIO_LIKELY(member->worker != NULL))
        nio_schedule_new(member->worker, member->task);
    else
        nio_launch(&member->placement, member->task);
}

/* The spawn hook alone. */
void nio_call_spawn_hook(const struct nio_placement *placement, const struct nio_task *task);

#endif
