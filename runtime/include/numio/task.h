/* SPDX-License-Identifier: MIT */
/* numio/task.h: futures, coroutines, wakers and join handles.
 *
 * A task is a future (a poll function over a state that numio keeps in the task's cell) or a
 * coroutine (a plain C function on a stack of its own).  Both run on one scheduler.  A task runs
 * on one worker at a time; between two polls or suspensions it may move to another worker unless
 * it was spawned with an affinity.
 *
 * Guarantees: a task that was woken is polled again; a wake before, during or after a poll is
 * never lost; the result of a task is seen by its joiner together with everything the task wrote
 * before.  The order in which ready tasks run is not guaranteed.
 */
#ifndef NUMIO_TASK_H
#define NUMIO_TASK_H

#include <numio/base.h>

NUMIO_BEGIN_DECLS

struct nio_task;
struct numio_cancel_token;
struct numio_handle;
struct numio_join;
struct numio_abort;

enum numio_poll { NUMIO_PENDING = 0, NUMIO_READY = 1 };

enum numio_affinity {
    NUMIO_AFFINITY_ANY = 0, /* may be stolen by any worker; leaves its node when that pays */
    NUMIO_AFFINITY_NODE,    /* runs on its node's workers only */
    NUMIO_AFFINITY_WORKER   /* runs on one worker only */
};

#define NUMIO_NODE_ANY (-1)
#define NUMIO_WORKER_ANY (-1)

/* What a future's poll gets: valid during that poll only. */
struct numio_context {
    struct nio_task *_task;
    void *_output;
};

/* A future: polled until it says NUMIO_READY.  `state` (`size` bytes, at most 64 KiB) is copied
 * into the task's cell at spawn; poll and drop get the copy, aligned to 16 bytes.  `drop`, if not
 * NULL, is called exactly once, on a worker, when the future has ended or was aborted. */
struct numio_future {
    enum numio_poll (*poll)(void *state, struct numio_context *cx);
    void (*drop)(void *state);
    const void *state; /* NULL: `size` zero bytes */
    size_t size;
    size_t output_size; /* bytes copied to the joiner, at most 4 KiB */
};

/* Where a spawn stands in the source.  NUMIO_SITE makes one. */
struct numio_site {
    const char *file;
    const char *function;
    int line;
};

#define NUMIO_SITE                                                                                 \
    (__extension__({                                                                               \
        static const struct numio_site numio_site_here_ = { __FILE__, __func__, __LINE__ };        \
        &numio_site_here_;                                                                         \
    }))

/* What hooks, reports and error texts know of a task. */
struct numio_task_meta {
    uint64_t id;      /* unique within the runtime's life */
    const char *name; /* NULL if it was not given one */
    const char *file;
    int line;
    unsigned node; /* home node */
};

/* Who goes first on a worker, where tasks of several classes are ready.  A class that wants less
 * than its share of the worker's time (numio_config.share_latency and its like) is served at once,
 * before those below it; one that wants more gets its share, so none starves: while others have
 * work, it waits for at most their shares of a round and one poll of each.  What a class does not
 * use the others get. */
enum numio_class {
    NUMIO_CLASS_INHERIT = 0, /* the spawner's; from outside of tasks, normal */
    NUMIO_CLASS_NORMAL,
    NUMIO_CLASS_LATENCY,   /* before all others: quotes, acknowledgements */
    NUMIO_CLASS_BACKGROUND /* what can wait: compaction, logs, statistics */
};

/* Options of a spawn; plain data, start with numio_spawn_opts_init() or { .size = sizeof ... }
 * and zeroes, except that node and worker 0 are meant only with a matching affinity. */
struct numio_spawn_opts {
    size_t size;      /* sizeof(struct numio_spawn_opts) */
    const char *name; /* must outlive the task */
    enum numio_affinity affinity;
    int node;           /* home node, or NUMIO_NODE_ANY: the spawner's, round robin from outside */
    int worker;         /* with NUMIO_AFFINITY_WORKER, or NUMIO_WORKER_ANY: the spawner's own */
    size_t stack_bytes; /* coroutines: 0 = the runtime's default, else at most that */
    enum numio_class sched_class;
    struct numio_cancel_token *cancel; /* NULL, or: the task is aborted when it is cancelled */
    bool inherit_locals;               /* values of the spawning task: <numio/local.h> */
};

NUMIO_EXPORT void numio_spawn_opts_init(struct numio_spawn_opts *opts, size_t size);

/* Spawns a future.
 * Context: any thread, also inside a task; never suspends; O(1), one cell of the home node.
 * Owns:    the state is copied; *ret_join is the caller's, to await, wait for or detach; with
 *          ret_join NULL the task is detached.
 * Threads: safe concurrently on one handle.  `handle` NULL means numio_handle_current().
 * Errors:  -ENOMEM; -ESHUTDOWN once shutdown began; -EINVAL a field of the future or of the
 *          options is out of range (the detail names it), or no current handle. */
#define numio_spawn(handle, future, opts, ret_join)                                                \
    numio_spawn_at(NUMIO_SITE, handle, future, opts, ret_join)
NUMIO_EXPORT NUMIO_NODISCARD int numio_spawn_at(const struct numio_site *site,
                                                struct numio_handle *handle,
                                                const struct numio_future *future,
                                                const struct numio_spawn_opts *opts,
                                                struct numio_join **ret_join);

/* Spawns `count` futures with one publish and at most one wake per node; all or none.
 * Owns:    ret_joins has room for `count` handles, or is NULL.   Else as numio_spawn(). */
#define numio_spawn_batch(handle, futures, count, opts, ret_joins)                                 \
    numio_spawn_batch_at(NUMIO_SITE, handle, futures, count, opts, ret_joins)
NUMIO_EXPORT NUMIO_NODISCARD int
numio_spawn_batch_at(const struct numio_site *site, struct numio_handle *handle,
                     const struct numio_future *futures, size_t count,
                     const struct numio_spawn_opts *opts, struct numio_join **ret_joins);

/* Spawns a coroutine that runs fn(arg) on a stack of its own; its result goes to the joiner.
 * It may go on on another thread after each suspension: errno, other thread-locals and the
 * floating-point modes (rounding, FTZ) are the thread's and do not go with it.  The stack is taken
 * when it first runs; if there is none left then, its result is -ENOMEM.
 * Owns:    `arg` must live as long as the coroutine uses it.   Else as numio_spawn(). */
#define numio_spawn_co(handle, fn, arg, opts, ret_join)                                            \
    numio_spawn_co_at(NUMIO_SITE, handle, fn, arg, opts, ret_join)
NUMIO_EXPORT NUMIO_NODISCARD int numio_spawn_co_at(const struct numio_site *site,
                                                   struct numio_handle *handle,
                                                   int64_t (*fn)(void *arg), void *arg,
                                                   const struct numio_spawn_opts *opts,
                                                   struct numio_join **ret_join);

/* A detached coroutine on the current runtime: the short form of numio_spawn_co(). */
#define numio_go(fn, arg) numio_spawn_co_at(NUMIO_SITE, NULL, fn, arg, NULL, NULL)

/* Lets other ready tasks run.
 * Context: a coroutine; suspends.   Errors: -EINVAL elsewhere; -ECANCELED the task was aborted. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_yield_now(void);

/* For futures: asks to be polled again after the other ready tasks; return NUMIO_PENDING then. */
NUMIO_EXPORT void numio_context_yield(struct numio_context *cx);

/* The future's output, `output_size` zeroed bytes, copied to the joiner after NUMIO_READY. */
static inline void *numio_context_output(struct numio_context *cx)
{
    return cx->_output;
}

/* The most bytes that the running coroutine's stack has had in use so far, by it or by those that
 * had the stack before: for choosing stack_bytes.
 * Context: a coroutine, else 0; never suspends; a system call and a scan of the stack. */
NUMIO_EXPORT size_t numio_stack_high_water(void);

/* True in a task that was aborted.  Context: a coroutine or a future's poll; false elsewhere. */
NUMIO_EXPORT bool numio_is_cancelled(void);

/* Changes the class of the running task: from its next suspension on, and for what it spawns.
 * Context: a coroutine or a future's poll.
 * Errors:  -EINVAL elsewhere, or no such class (NUMIO_CLASS_INHERIT is none). */
NUMIO_EXPORT NUMIO_NODISCARD int numio_class_set(enum numio_class sched_class);
/* The running task's; NUMIO_CLASS_NORMAL outside of tasks. */
NUMIO_EXPORT enum numio_class numio_class_current(void);

/* What is known of the running task.   Errors: -EINVAL outside a task. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_task_current(struct numio_task_meta *ret_meta);

/* A waker: the right to have one task polled again.  Copying the struct does not copy the right.
 * Context: any thread. */
struct numio_waker {
    struct nio_task *_task;
};

/* A waker for the future being polled; end it with numio_waker_wake() or numio_waker_drop(). */
NUMIO_EXPORT struct numio_waker numio_context_waker(struct numio_context *cx);
NUMIO_EXPORT struct numio_waker numio_waker_clone(const struct numio_waker *waker);
/* Wakes and ends the waker. */
NUMIO_EXPORT void numio_waker_wake(struct numio_waker *waker);
/* Wakes and keeps the waker. */
NUMIO_EXPORT void numio_waker_wake_by_ref(const struct numio_waker *waker);
NUMIO_EXPORT void numio_waker_drop(struct numio_waker *waker);

/* Waits for a task and ends its join handle: *join becomes NULL.  A handle has one holder: two
 * threads must not use it at the same time, which -EBUSY only mostly notices.
 * Context: a coroutine suspends; a plain thread blocks; inside a future's poll -EDEADLK.
 * Returns: the coroutine's or blocking function's result, 0 for a future; -ECANCELED if the task
 *          was aborted.
 * Errors:  the handle is kept: -EINVAL *join is NULL (joined or detached before); -EDEADLK a task
 *          joins itself; -EBUSY somebody else is waiting on the handle; -ECANCELED the caller was
 *          aborted while waiting (then *join is not NULL). */
NUMIO_EXPORT int64_t numio_join_await(struct numio_join **join);

/* As numio_join_await(), and copies a future's output, which must be `output_size` bytes:
 * -EINVAL if it is not. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_join_await_output(struct numio_join **join,
                                                             void *ret_output, size_t output_size);

/* As numio_join_await() from a plain thread, for at most `timeout_ns` (negative: for ever).
 * Errors:  in addition -ETIMEDOUT, the handle is kept; -EDEADLK on a worker thread. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_join_wait(struct numio_join **join, int64_t timeout_ns);

/* Takes the result if the task has ended.  Context: any, never waits.
 * Errors:  -EAGAIN it has not, the handle is kept; -EINVAL as above.  A task whose own result is
 *          -EAGAIN is told apart by *join being NULL afterwards. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_join_try(struct numio_join **join);

/* For futures: NUMIO_READY ends the handle, with the result in *ret_result and the output copied
 * to ret_output (may be NULL).  NUMIO_PENDING: the polling future is woken when the task ends. */
NUMIO_EXPORT enum numio_poll numio_join_poll(struct numio_join **join, struct numio_context *cx,
                                             void *ret_output, size_t output_size,
                                             int64_t *ret_result);

/* Whether the task has ended.  Context: any thread that holds the handle. */
NUMIO_EXPORT bool numio_join_is_finished(const struct numio_join *join);

/* Asks the task to end; its result becomes -ECANCELED unless it ends by itself first.  A task that
 * has not run yet never runs; a coroutine gets -ECANCELED from its await.  Any thread. */
NUMIO_EXPORT void numio_join_abort(struct numio_join *join);

/* Ends the handle without waiting; the task goes on.  Takes a pointer to NULL. */
NUMIO_EXPORT void numio_join_detach(struct numio_join **join);

/* A handle that can only abort, and outlives the join handle.  End it with numio_abort_drop(). */
NUMIO_EXPORT struct numio_abort *numio_join_abort_handle(struct numio_join *join);
NUMIO_EXPORT void numio_abort_task(struct numio_abort *abort);
NUMIO_EXPORT void numio_abort_drop(struct numio_abort *abort);

/* What is known of the task behind a join handle. */
NUMIO_EXPORT struct numio_task_meta numio_join_meta(const struct numio_join *join);

NUMIO_END_DECLS

#endif
