/* SPDX-License-Identifier: MIT */
/* task/group.h: tasks that belong together and have no join handles: the children of a scope, or
 * what was spawned into a join set.
 *
 * A member's state word has MEMBER, and its join waker is its group.  The group holds a reference
 * to each member and has them in a list of its own; the list's links lie in the member's cell,
 * behind a future's output or in a coroutine's control block.  When the member has completed,
 * _ended() is called once, by the thread that completed it: the one call from here up to the folder
 * scope/, and the reason why a group begins with a function pointer.  A member that nobody else has
 * a reference to completes by a plain store: its group alone gives the cell back.
 */
#ifndef NIO_TASK_GROUP_H
#define NIO_TASK_GROUP_H

#include <numio/scope.h>

#include "runtime/task/wake.h"

struct nio_member_links {
    struct nio_task *next, *prev;
};

static inline uintptr_t nio_join_waker_of_group(struct numio_group_ *group)
{
    return (uintptr_t)group | NIO_JOIN_WAKER_GROUP;
}

static inline struct numio_group_ *nio_group_of_waker(uintptr_t waker)
{
    return (struct numio_group_ *)(waker - NIO_JOIN_WAKER_GROUP);
}

/* The group's reference: the member has completed. */
static inline void nio_member_release(struct nio_task *task)
{
    /* As nio_state_drop_join(): the last reference needs no read-modify-write. */
    if (nio_state_refs(nio_state_load(task)) == 1 || nio_state_unref(task))
        task->scheduler->release(task->scheduler, task);
}

static inline bool nio_member_has_ended(const struct nio_task *task)
{
    return (nio_state_load(task) & NIO_STATE_COMPLETE) != 0;
}

/* Tasks that were woken and are the caller's to queue, once it has let go of a lock; each with a
 * reference, since the last task of a runtime may end as soon as it is queued. */
struct nio_wake_list {
    struct nio_mpsc_node *first;
};

/* Asks a task to end; the caller keeps it from completing, or holds a reference. */
static inline void nio_wake_list_cancel(struct nio_wake_list *list, struct nio_task *task)
{
    if (nio_state_cancel(task) != NIO_WAKE_QUEUE)
        return;
    nio_state_ref(task);
    task->link.next = list->first;
    list->first = &task->link;
}

static inline void nio_wake_list_done(struct nio_wake_list *list)
{
    struct nio_mpsc_node *next;
    for (struct nio_mpsc_node *node = list->first; node; node = next) {
        next = node->next;
        nio_wake_act(nio_task_of_link(node), NIO_WAKE_QUEUE);
        nio_task_unref(nio_task_of_link(node));
    }
    list->first = NULL;
}

#endif
