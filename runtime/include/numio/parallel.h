/* SPDX-License-Identifier: MIT */
/* numio/parallel.h: one loop on all workers, and calls that run on a node or a worker.
 */
#ifndef NUMIO_PARALLEL_H
#define NUMIO_PARALLEL_H

#include <numio/runtime.h>

NUMIO_BEGIN_DECLS

struct numio_parallel_opts {
    size_t size; /* sizeof(struct numio_parallel_opts) */
    /* NUMIO_AFFINITY_NODE: what one worker does not get to is done by others of its node, and by no
     * other node.  NUMIO_AFFINITY_WORKER: each part by its worker and no other, so that the same
     * range is always worked on in the same place.  NUMIO_AFFINITY_ANY: nodes that are done help
     * others. */
    enum numio_affinity affinity;
    struct numio_handle *handle; /* NULL: the current one */
    const char *name;            /* of the tasks; must outlive the call */
};

/* NUMIO_AFFINITY_NODE on the current runtime. */
NUMIO_EXPORT void numio_parallel_opts_init(struct numio_parallel_opts *opts, size_t size);

/* Calls fn(first, end, arg) for pieces of [begin, end) of at most `grain` numbers, each number
 * once.  The range is split over the nodes in proportion to their workers, and within a node over
 * its workers; each part is worked on from its beginning, and who is done takes pieces of others.
 * There is one coroutine for each worker: `fn` may suspend, but then that one takes no other piece.
 * With an error of `fn` (a negative result) no piece is begun any more.
 * Context: a coroutine of that runtime suspends, a plain thread sleeps.  An aborted caller waits
 *          for the pieces that have begun, which are aborted.
 * Owns:    one allocation for the time of the call.   Units: grain in numbers, 0: 1.
 * Returns: 0, or the first error of `fn`.
 * Errors:  -EINVAL no runtime, options out of range, end < begin; -ENOMEM; -ESHUTDOWN; -ECANCELED,
 *          -ETIMEDOUT; -EDEADLK in a future's poll, or on a worker of another runtime. */
#define numio_parallel_for(begin, end, grain, fn, arg, opts)                                       \
    numio_parallel_for_at(NUMIO_SITE, begin, end, grain, fn, arg, opts)
NUMIO_EXPORT NUMIO_NODISCARD int64_t
numio_parallel_for_at(const struct numio_site *site, uint64_t begin, uint64_t end, uint64_t grain,
                      int64_t (*fn)(uint64_t first, uint64_t end, void *arg), void *arg,
                      const struct numio_parallel_opts *opts);

/* Run fn(arg) as a coroutine on `node`, or on `worker`, and wait for its result.
 * Context: a coroutine suspends, a plain thread sleeps.  An aborted caller, or one whose deadline
 *          has passed, has the call aborted and waits for its end: `arg` may be its own.
 * Returns: fn's result.
 * Errors:  those of numio_spawn_co(): -EINVAL no such node or worker, -ESHUTDOWN; -EDEADLK in a
 *          future's poll. */
#define numio_call_on_node(handle, node, fn, arg)                                                  \
    numio_call_on_at(NUMIO_SITE, handle, NUMIO_AFFINITY_NODE, node, fn, arg)
#define numio_call_on_worker(handle, worker, fn, arg)                                              \
    numio_call_on_at(NUMIO_SITE, handle, NUMIO_AFFINITY_WORKER, worker, fn, arg)
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_call_on_at(const struct numio_site *site,
                                                      struct numio_handle *handle,
                                                      enum numio_affinity where, int index,
                                                      int64_t (*fn)(void *arg), void *arg);

/* The same without waiting: *ret_join is the caller's, as that of numio_spawn_co(). */
#define numio_spawn_on_node(handle, node, fn, arg, ret_join)                                       \
    numio_spawn_on_at(NUMIO_SITE, handle, NUMIO_AFFINITY_NODE, node, fn, arg, ret_join)
#define numio_spawn_on_worker(handle, worker, fn, arg, ret_join)                                   \
    numio_spawn_on_at(NUMIO_SITE, handle, NUMIO_AFFINITY_WORKER, worker, fn, arg, ret_join)
NUMIO_EXPORT NUMIO_NODISCARD int numio_spawn_on_at(const struct numio_site *site,
                                                   struct numio_handle *handle,
                                                   enum numio_affinity where, int index,
                                                   int64_t (*fn)(void *arg), void *arg,
                                                   struct numio_join **ret_join);

NUMIO_END_DECLS

#endif
