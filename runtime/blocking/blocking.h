/* SPDX-License-Identifier: MIT */
/* blocking/blocking.h: threads for functions that may block.
 *
 * Each node has a FIFO of waiting functions and threads of its own, pinned to the node's CPUs
 * without workers if it has any.  All nodes together have at most `threads_max`.  A thread is
 * started when a function waits and none of the node's is idle; an idle one ends after the
 * keep-alive.  The queue is bounded: beyond it the spawner gets -EAGAIN.  The close does not end
 * what runs, nor I/O: tasks wait for it and close their descriptors until the last has ended.
 *
 * Any thread; one lock per node, rank NIO_RANK_BLOCKING, never held while a function runs.
 */
#ifndef NIO_BLOCKING_BLOCKING_H
#define NIO_BLOCKING_BLOCKING_H

#include "runtime/sched/handle.h"

struct nio_blocking;

/* A queued function; embedded in what it belongs to, the pool's until it runs. */
struct nio_blocking_job {
    struct nio_mpsc_node link;
    bool is_io; /* part of an operation that a task waits for: taken also when the queue is full or
                   the pool closed, and never cancelled; the driver's credits bound their number */
    void (*run)(struct nio_blocking_job *job, bool is_cancelled);
};

int nio_blocking_create(struct numio_handle *handle, struct nio_blocking **ret_pool);
/* Queues a job on a node.  Errors: -EAGAIN the queue is full, or no thread could be started at
 * all; -ESHUTDOWN. */
int nio_blocking_submit(struct nio_blocking *pool, unsigned node, struct nio_blocking_job *job);
/* Takes no more jobs but I/O, and ends those that still wait with is_cancelled. */
void nio_blocking_close(struct nio_blocking *pool);
/* After close: waits until all threads have ended, and frees the pool.  Takes NULL. */
void nio_blocking_destroy(struct nio_blocking *pool);
/* Whether the calling thread is one of the pool's.  Takes NULL. */
bool nio_blocking_is_own_thread(const struct nio_blocking *pool);
/* Threads that exist now, all nodes; for tests and the status. */
unsigned nio_blocking_threads(const struct nio_blocking *pool);

#endif
