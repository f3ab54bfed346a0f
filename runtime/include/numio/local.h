/* SPDX-License-Identifier: MIT */
/* numio/local.h: values that belong to the running task, wherever it goes.
 *
 * A key is a static object; what a task sets under it only that task gets.  Coroutines and futures
 * have them, the blocking pool's functions have not.  A task without values costs nothing; the
 * first one that is set allocates, and looking up takes time with the number of keys that the task
 * uses.
 *
 *     static const struct numio_local request_id = { .name = "request id" };
 *     ...
 *     rc = numio_local_set(&request_id, request);
 *     struct request *mine = numio_local_get(&request_id);
 */
#ifndef NUMIO_LOCAL_H
#define NUMIO_LOCAL_H

#include <numio/base.h>

NUMIO_BEGIN_DECLS

/* A key: its address is what counts. */
struct numio_local {
    const char *name; /* for people; may be NULL */
    /* Called for a value that is left when the task ends, or is replaced; NULL: nothing to do.  At
     * the task's end: on its last worker, the values that were set last first; it must not suspend,
     * and the values of the task cannot be got there any more. */
    void (*destroy)(void *value);
    /* What a child that is spawned with numio_spawn_opts.inherit_locals gets; NULL result or no
     * function: nothing.  Called in the spawning task. */
    void *(*inherit)(void *value);
};

/* Sets the running task's value; one that was there before is destroyed.  NULL takes the key away.
 * Context: a coroutine or a future's poll; never suspends.
 * Errors:  -EINVAL elsewhere; -ENOMEM nothing is changed. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_local_set(const struct numio_local *key, void *value);
/* The running task's value, NULL if it has none.   Context: any, else NULL. */
NUMIO_EXPORT void *numio_local_get(const struct numio_local *key);
/* The same, and takes it away without destroying it. */
NUMIO_EXPORT void *numio_local_take(const struct numio_local *key);

NUMIO_END_DECLS

#endif
