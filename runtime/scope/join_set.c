/* SPDX-License-Identifier: MIT */
/* Join sets: a block that the user's set and the running tasks share.
 *
 * Under the block's lock, which is that of its queue of waits: the list of the tasks that run, the
 * queue of those that have ended and were not taken, and the number of both.  A task that ends goes
 * from the one to the other and ends the wait for it, if there is one; a wait is for "there is
 * something to take", and gives nothing, so that nothing can be lost with it.
 *
 * The block is counted by references: the set's, and one for each task that runs.  Detaching all
 * leaves the block to them, as an orphan: what ends there is given back at once, and the last frees
 * it; the set gets a new one.  A set is used by one task or thread at a time, so its pointer to the
 * block needs no protection; the block is shared with the tasks' ends only.
 */
#include <numio/scope.h>

#include <errno.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/sched/await.h"
#include "runtime/sched/spawn.h"
#include "runtime/sched/wait_await.h"

struct core {
    struct numio_group_ group;
    struct numio_wait_queue_ waits; /* its lock is that of all below */
    struct nio_task *live;          /* by both links */
    struct nio_task *first, *last;  /* ended, by next; the oldest first */
    uint64_t live_count, ended_count;
    bool is_orphan;
};

struct numio_join_set {
    struct core *core;
};

static void acquire(struct core *core)
{
    nio_wait_queue_acquire(&core->waits);
}

static void release(struct core *core)
{
    nio_wait_queue_release(&core->waits);
}

/* ---- the block's tasks --------------------------------------------------------------------- */

/* Under the lock. */
static void add_live(struct core *core, struct nio_task *task)
{
    struct nio_member_links *links = nio_member_links(task);
    links->prev = NULL;
    links->next = core->live;
    if (core->live)
        nio_member_links(core->live)->prev = task;
    core->live = task;
    core->live_count++;
}

/* Under the lock. */
static void remove_live(struct core *core, struct nio_task *task)
{
    struct nio_member_links *links = nio_member_links(task);
    if (links->prev)
        nio_member_links(links->prev)->next = links->next;
    else
        core->live = links->next;
    if (links->next)
        nio_member_links(links->next)->prev = links->prev;
    core->live_count--;
}

/* Under the lock: the oldest that has ended, NULL if there is none. */
static struct nio_task *pop_ended(struct core *core)
{
    struct nio_task *task = core->first;
    if (!task)
        return NULL;
    core->first = nio_member_links(task)->next;
    if (!core->first)
        core->last = NULL;
    core->ended_count--;
    return task;
}

static void task_ended(struct numio_group_ *group, struct nio_task *task, int64_t result)
{
    struct core *core = NIO_CONTAINER_OF(group, struct core, group);
    struct nio_wait_list ended = { 0 };
    (void)result; /* it stands in the task */
    acquire(core);
    remove_live(core, task);
    bool is_orphan = core->is_orphan;
    bool is_last = is_orphan && core->live_count == 0;
    if (!is_orphan) {
        nio_member_links(task)->next = NULL;
        if (core->last)
            nio_member_links(core->last)->next = task;
        else
            core->first = task;
        core->last = task;
        core->ended_count++;
        nio_wait_take_all(&core->waits, &ended, 0);
    }
    release(core);
    nio_wait_list_done(&ended); /* the waits are gone from the block, which may be gone as well */
    if (is_orphan)
        nio_member_release(task);
    if (is_last)
        nio_free(core);
}

static struct core *create_core(void)
{
    struct core *core = nio_zalloc(sizeof *core);
    if (core)
        core->group._ended = task_ended;
    return core;
}

/* ---- creating and spawning ----------------------------------------------------------------- */

int numio_join_set_create(struct numio_join_set **ret_set)
{
    struct numio_join_set *set = nio_zalloc(sizeof *set);
    if (set)
        set->core = create_core();
    if (!set || !set->core) {
        nio_free(set);
        return nio_error(-ENOMEM, "join set: no memory");
    }
    *ret_set = set;
    return 0;
}

static void launch(struct core *core, const struct nio_new_member *member, uint64_t *ret_id)
{
    if (ret_id)
        *ret_id = member->task->id;
    acquire(core);
    add_live(core, member->task);
    release(core);
    nio_launch_member(member);
}

int numio_join_set_spawn_at(const struct numio_site *site, struct numio_join_set *set,
                            struct numio_handle *handle, const struct numio_future *future,
                            const struct numio_spawn_opts *opts, uint64_t *ret_id)
{
    struct nio_new_member member;
    int rc = nio_bind_member(&set->core->group, site, handle, future, opts, &member);
    if (rc == 0)
        launch(set->core, &member, ret_id);
    return rc;
}

int numio_join_set_spawn_co_at(const struct numio_site *site, struct numio_join_set *set,
                               struct numio_handle *handle, int64_t (*fn)(void *arg), void *arg,
                               const struct numio_spawn_opts *opts, uint64_t *ret_id)
{
    struct nio_new_member member;
    int rc =
        nio_bind_member_co(&set->core->group, site, handle, fn, arg, opts, UINT64_MAX, &member);
    if (rc == 0)
        launch(set->core, &member, ret_id);
    return rc;
}

/* ---- taking -------------------------------------------------------------------------------- */

static void take(struct nio_task *task, struct numio_joined *ret_joined, void *ret_output,
                 size_t output_size)
{
    int64_t result = task->with.result;
    ret_joined->id = task->id;
    ret_joined->name = task->name;
    ret_joined->result = result;
    if (ret_output && task->kind == NIO_TASK_FUTURE && result != -ECANCELED) {
        size_t bytes = task->output_bytes < output_size ? task->output_bytes : output_size;
        memcpy(ret_output, nio_task_output(task), bytes);
    }
    nio_member_release(task);
}

int numio_join_set_try_next(struct numio_join_set *set, struct numio_joined *ret_joined,
                            void *ret_output, size_t output_size)
{
    struct core *core = set->core;
    acquire(core);
    struct nio_task *task = pop_ended(core);
    bool is_empty = !task && core->live_count == 0;
    release(core);
    if (!task)
        return is_empty ? -ENOENT : -EAGAIN;
    take(task, ret_joined, ret_output, output_size);
    return 0;
}

static bool set_begin(struct numio_op *op, int32_t *ret_result)
{
    struct core *core = nio_wait_object(op);
    acquire(core);
    bool has_ended = core->ended_count > 0, is_empty = !has_ended && core->live_count == 0;
    if (!has_ended && !is_empty)
        nio_wait_push(&core->waits, op);
    release(core);
    if (!has_ended && !is_empty)
        return false;
    *ret_result = !nio_wait_claim(op) ? -ECANCELED : is_empty ? -ENOENT : 0;
    return true;
}

static bool set_leave(struct numio_op *op)
{
    struct core *core = nio_wait_object(op);
    acquire(core);
    bool is_mine = nio_wait_remove(&core->waits, op);
    release(core);
    return is_mine;
}

static const struct nio_wait_class set_kind = { set_begin, set_leave, NULL };

void numio_op_join_set(struct numio_op *op, struct numio_join_set *set)
{
    nio_wait_prep(op, &set_kind, set->core, 0);
}

int numio_join_set_next(struct numio_join_set *set, struct numio_joined *ret_joined,
                        void *ret_output, size_t output_size)
{
    nio_charge();
    int rc = numio_join_set_try_next(set, ret_joined, ret_output, output_size);
    while (rc == -EAGAIN) { /* once; the set has one user */
        struct numio_op op;
        numio_op_join_set(&op, set);
        rc = nio_wait_await(&op);
        if (rc == 0)
            rc = numio_join_set_try_next(set, ret_joined, ret_output, output_size);
    }
    return rc;
}

/* ---- the end ------------------------------------------------------------------------------- */

void numio_join_set_abort_all(struct numio_join_set *set)
{
    struct core *core = set->core;
    struct nio_wake_list woken = { 0 };
    acquire(core);
    for (struct nio_task *task = core->live; task; task = nio_member_links(task)->next)
        nio_wake_list_cancel(&woken, task); /* the set holds a reference to it */
    release(core);
    nio_wake_list_done(&woken);
}

/* Gives back what has ended and was not taken. */
static void drop_ended(struct core *core)
{
    struct nio_task *task;
    do {
        acquire(core);
        task = pop_ended(core);
        release(core);
        if (task)
            nio_member_release(task);
    } while (task); /* once for each */
}

int numio_join_set_detach_all(struct numio_join_set *set)
{
    struct core *old = set->core, *new = create_core();
    if (!new)
        return nio_error(-ENOMEM, "join set: no memory to go on with");
    set->core = new;
    acquire(old);
    old->is_orphan = true;
    bool is_last = old->live_count == 0;
    struct nio_task *task = old->first, *next;
    release(old);
    for (; task; task = next) { /* nobody adds to them any more */
        next = nio_member_links(task)->next;
        nio_member_release(task);
    }
    if (is_last)
        nio_free(old);
    return 0;
}

int numio_join_set_destroy(struct numio_join_set *set)
{
    if (!set)
        return 0;
    numio_join_set_abort_all(set);
    for (;;) { /* once for each task that still runs */
        struct numio_op op;
        drop_ended(set->core);
        numio_op_join_set(&op, set);
        int rc = nio_wait_await_surely(&op);
        if (rc == -ENOENT)
            break;
        if (rc < 0)
            return rc;
    }
    nio_free(set->core);
    nio_free(set);
    return 0;
}

uint64_t numio_join_set_length(const struct numio_join_set *set)
{
    struct core *core = set->core;
    acquire(core);
    uint64_t length = core->live_count + core->ended_count;
    release(core);
    return length;
}
