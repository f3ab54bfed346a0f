/* SPDX-License-Identifier: MIT */
/* sched/extra.h: what few tasks have: values of their own, a cancel token, a deadline that came
 * with the spawn.
 *
 * The header of a task is full, and tasks without any of this must not pay for it.  So one bit says
 * that a task is special, NIO_TASK_SPECIAL, and the rest stands elsewhere: of a coroutine in the
 * part of its control block that others leave untouched, of a future in place of its drop function,
 * which the block keeps.  A task that is not special costs one look at its flags, which are at
 * hand, at its first run and at its end.
 *
 * Everything here is the owner's of the task, but for the watch, which is the token's.
 */
#ifndef NIO_SCHED_EXTRA_H
#define NIO_SCHED_EXTRA_H

#include <numio/local.h>

#include "runtime/sched/worker.h"
#include "runtime/task/token.h"

struct nio_local_value {
    const struct numio_local *key;
    void *value;
};

enum { NIO_LOCALS_INLINE = 4 };

struct nio_extra {
    void (*drop)(void *state); /* a future's own */
    struct nio_token_watch watch;
    struct nio_local_value *locals; /* in the order in which they were set */
    unsigned local_count, local_capacity;
    struct nio_local_value inlined[NIO_LOCALS_INLINE];
};

/* The task's block, NULL if it has none. */
static inline struct nio_extra *nio_extra_of(const struct nio_task *task)
{
    if (NIO_LIKELY(!(task->flags & NIO_TASK_SPECIAL)))
        return NULL;
    return task->kind == NIO_TASK_COROUTINE ? NIO_CONTAINER_OF(task, struct nio_co, task)->extra
                                            : task->with.extra;
}

/* The running task, or who spawns it: its block, made if it has none; NULL without memory. */
struct nio_extra *nio_extra_make(struct nio_task *task);
/* The spawner of a task that is bound and complete, but not launched: what the options want.
 * Errors: -ENOMEM, -EINVAL: the task is to be taken back. */
int nio_extra_attach(struct nio_task *task, const struct numio_spawn_opts *opts);
/* The end of the task, or of a spawn: takes the block, destroys the values. */
void nio_extra_end(struct nio_extra *extra);

/* Values.  False: no memory. */
bool nio_locals_set(struct nio_extra *extra, const struct numio_local *key, void *value);
struct nio_local_value *nio_locals_find(const struct nio_extra *extra,
                                        const struct numio_local *key);
void nio_locals_remove(struct nio_extra *extra, struct nio_local_value *value);

/* The task that runs on the calling thread, NULL if none does. */
static inline struct nio_task *nio_task_running(void)
{
    struct nio_worker *worker = nio_worker_current();
    /* relaxed: written by this thread */
    return worker ? atomic_load_explicit(&worker->current, memory_order_relaxed) : NULL;
}

#endif
