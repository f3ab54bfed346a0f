/* SPDX-License-Identifier: MIT */
/* numio/runtime.h: a runtime's life, the handle into it, and what it says about itself.
 *
 * numio_runtime_create() starts the workers; the runtime is used through its handle, which is
 * reference-counted and works from any thread.  A process may have several runtimes.  Shutting
 * down cancels every task, lets each run to its end on a worker, drains the rings, and only then
 * releases memory.
 *
 * fork(): a runtime's threads and rings do not survive into a child.  In the child every call that
 * spawns, joins, awaits, does I/O or shuts down fails with -EPERM; wakes, aborts and detaches do
 * nothing; the runtime must not be destroyed there.  The child may create a runtime of its own.  A
 * child that a task forked must exec or _exit before the task would return.
 */
#ifndef NUMIO_RUNTIME_H
#define NUMIO_RUNTIME_H

#include <numio/arena.h>
#include <numio/base.h>
#include <numio/config.h>
#include <numio/task.h>

NUMIO_BEGIN_DECLS

struct numio_runtime;
struct numio_handle;

/* Starts a runtime.  `config` NULL means the defaults.
 * Context: a plain thread; blocks until every worker is up.
 * Owns:    *ret_runtime is the caller's, to destroy.
 * Errors:  -EINVAL, -E2BIG a field of `config`; -ENOMEM, -EMFILE, -EPERM, -EAGAIN what the
 *          machine refused; the detail names the resource, its limit and how to raise it. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_runtime_create(const struct numio_config *config,
                                                      struct numio_runtime **ret_runtime);

/* A task that did not end in time, or was left when the runtime began to shut down. */
struct numio_straggler {
    struct numio_task_meta task;
    const char *waits_for; /* "an operation", "a join", "a wake", "its turn", "running",
                              "a blocking function" */
};

/* Shuts down: no task is accepted from now on, all are cancelled, waits until they have ended.
 * Context: a plain thread, blocks for at most `timeout_ns` (negative: no limit).
 * Owns:    up to `capacity` stragglers are written to ret_stragglers.
 * Errors:  -ETIMEDOUT: *ret_count tasks have not ended; calling again waits again.
 *          -EDEADLK on one of the runtime's own threads. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_runtime_shutdown(struct numio_runtime *runtime,
                                                        int64_t timeout_ns,
                                                        struct numio_straggler *ret_stragglers,
                                                        size_t capacity, size_t *ret_count);

/* Starts the shutdown and returns; a thread of its own waits for the tasks and then destroys the
 * runtime.  Context: any thread, also a task.  The runtime must not be used afterwards except by
 * handles, whose calls fail with -ESHUTDOWN.   Errors: -EAGAIN no thread could be started. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_runtime_shutdown_background(struct numio_runtime *runtime);

/* Shuts down without limit and releases everything.  Takes NULL.  A plain thread only. */
NUMIO_EXPORT void numio_runtime_destroy(struct numio_runtime *runtime);

/* The runtime's own handle, borrowed: valid as long as the runtime. */
NUMIO_EXPORT struct numio_handle *numio_runtime_handle(struct numio_runtime *runtime);

/* A handle outlives its runtime: calls then fail with -ESHUTDOWN. */
NUMIO_EXPORT struct numio_handle *numio_handle_ref(struct numio_handle *handle);
NUMIO_EXPORT void numio_handle_unref(struct numio_handle *handle);

/* The handle of the runtime this thread works for or has entered, borrowed; NULL if none. */
NUMIO_EXPORT struct numio_handle *numio_handle_current(void);
/* Makes `handle` current on a plain thread and returns the one before, to be given back to
 * numio_handle_enter() when done. */
NUMIO_EXPORT struct numio_handle *numio_handle_enter(struct numio_handle *handle);

/* Runs fn(arg) as a coroutine and waits for its result.
 * Context: a plain thread, blocks.   Errors: those of numio_spawn_co(); -EDEADLK on a worker. */
#define numio_block_on(handle, fn, arg) numio_block_on_at(NUMIO_SITE, handle, fn, arg)
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_block_on_at(const struct numio_site *site,
                                                       struct numio_handle *handle,
                                                       int64_t (*fn)(void *arg), void *arg);

/* Create, block_on, destroy.  Prints the reason to stderr if the runtime cannot start. */
#define numio_main(config, fn, arg) numio_main_at(NUMIO_SITE, config, fn, arg)
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_main_at(const struct numio_site *site,
                                                   const struct numio_config *config,
                                                   int64_t (*fn)(void *arg), void *arg);

/* Runs fn(arg), which may block, on a thread of the blocking pool.
 * Context: any thread; never suspends.
 * Errors:  -EAGAIN the node's queue is full; -ESHUTDOWN; -ENOMEM. */
#define numio_spawn_blocking(handle, fn, arg, opts, ret_join)                                      \
    numio_spawn_blocking_at(NUMIO_SITE, handle, fn, arg, opts, ret_join)
NUMIO_EXPORT NUMIO_NODISCARD int numio_spawn_blocking_at(const struct numio_site *site,
                                                         struct numio_handle *handle,
                                                         int64_t (*fn)(void *arg), void *arg,
                                                         const struct numio_spawn_opts *opts,
                                                         struct numio_join **ret_join);

/* Runs fn(arg), which may block, while the worker goes on with other tasks: a coroutine suspends
 * until a pool thread has run it; a plain thread runs it itself; in a future's poll -EDEADLK.
 * An aborted caller still waits for fn to return.
 * Returns: fn's result.   Errors: those of numio_spawn_blocking(). */
NUMIO_EXPORT int64_t numio_block_in_place(int64_t (*fn)(void *arg), void *arg);

#ifdef NUMIO_UNSTABLE
/* Defined by those who accept that what follows may change in any release: which events are
 * counted is a matter of the scheduler's inner life. */

/* What one worker has counted since the start; any thread, values are a moment old. */
struct numio_worker_metrics {
    size_t size;
    unsigned worker, node;
    int cpu;
    uint64_t polls, spawned, completed;
    uint64_t stolen_near, stolen_far; /* tasks taken from the same, another node */
    uint64_t wakes_sent, wakes_far;   /* sleeping workers woken, of these on another node */
    uint64_t parks, spin_wins;        /* sleeps; times that spinning found work before */
    uint64_t inject_taken, overflowed;
    uint64_t remote_frees;       /* cells sent home to another worker or node */
    uint64_t sqes, cqes, enters; /* operations, completions, io_uring_enter calls */
    uint64_t bytes_in, bytes_out;
    uint64_t cqes_reaped_for_others;
    uint64_t cqes_polled; /* of the completions: those of the polled ring (driver iopoll) */
    uint64_t polls_latency, polls_background; /* of the polls: of tasks of these classes */
};

/* Counters of worker `index`.   Errors: -EINVAL out of range. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_worker_metrics(struct numio_handle *handle, unsigned index,
                                                      struct numio_worker_metrics *ret_metrics);
#endif

struct numio_worker_status {
    unsigned node, llc;
    int cpu, bind_cpu; /* planned CPU; the real one it is pinned to by plan, -1 none */
    int tid;
    /* Since CPUs were taken from the process, or given back (numio_config.cpu_check_ms): */
    const char *placement; /* "home"; "moved" to another CPU of its node; "guest" of another node;
                              "outside": bound by somebody else, and left there */
    bool is_retired;       /* no CPU is free for it: it serves only its pinned tasks and its ring */
    int runs_on_cpu;       /* -1: on several */
    uint64_t moves;        /* how often this changed */
};

struct numio_node_status {
    unsigned worker_first, worker_count, package;
    int os_node;          /* the kernel's node its memory is bound to, -1 none */
    const char *sq_place; /* "sibling", "reserved", "shared", "forced", "none" */
    int sq_cpu;           /* -1: without an SQ thread, or on any CPU of the node */
    int sq_tid;           /* its thread id (iou-sqp-*), -1 without one */
    uint64_t memory_bytes;
    const char *sq_placement; /* of the SQ thread, as in struct numio_worker_status */
    uint64_t sq_moves;
};

/* What the runtime became: valid as long as the handle. */
struct numio_status {
    size_t size;
    unsigned workers, nodes;
    const char *driver;      /* "sqpoll", "defer", "iopoll", "epoll" */
    const char *idle;        /* "balanced", "spin", "park" */
    const char *stack_guard; /* "guard-install", "mprotect", "canary" */
    bool is_emulated;
    unsigned napi_busy_poll_us; /* of every ring; 0: not asked for, or refused: see the reasons */
    int cpu_dma_latency_us;     /* what /dev/cpu_dma_latency is held at; -1: not */
    const char *clock;          /* "counter": the processor's; "system" */
};

NUMIO_EXPORT NUMIO_NODISCARD int numio_status(struct numio_handle *handle,
                                              struct numio_status *ret_status);
NUMIO_EXPORT NUMIO_NODISCARD int numio_worker_status(struct numio_handle *handle, unsigned index,
                                                     struct numio_worker_status *ret_status);
NUMIO_EXPORT NUMIO_NODISCARD int numio_node_status(struct numio_handle *handle, unsigned index,
                                                   struct numio_node_status *ret_status);
/* The index-th reason for something that is less than was asked or possible, NULL past the last. */
NUMIO_EXPORT const char *numio_status_reason(struct numio_handle *handle, unsigned index);

/* Tasks that have been spawned and have not ended; summed over all stripes, a moment old. */
NUMIO_EXPORT uint64_t numio_live_tasks(struct numio_handle *handle);

/* Asks the kernel where the pages of node `index` really are.
 * Context: any thread; blocks for about 1 us per 4 KiB page.   Errors: -EINVAL, -ENOMEM. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_arena_audit(struct numio_handle *handle, unsigned index,
                                                   struct numio_arena_audit *ret_audit);

/* The calling worker's index and node; -EINVAL on other threads. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_current_worker(void);
NUMIO_EXPORT NUMIO_NODISCARD int numio_current_node(void);

/* Page-aligned memory for I/O from the arena of `node` (NUMIO_NODE_ANY: the caller's); as long as
 * there is room from that which is registered with the node's rings (registered_bytes of the
 * configuration): reads, writes and zero-copy sends there need not look up its pages each time.
 * Context: any thread.   Owns: the caller frees it with the same sizes.   Errors: NULL. */
NUMIO_EXPORT void *numio_io_buffer_alloc(struct numio_handle *handle, int node, size_t bytes);
NUMIO_EXPORT void numio_io_buffer_free(struct numio_handle *handle, int node, void *buffer,
                                       size_t bytes);

NUMIO_END_DECLS

#endif
