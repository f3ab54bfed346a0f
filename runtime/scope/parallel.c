/* SPDX-License-Identifier: MIT */
/* Parallel loops and calls on a node or a worker.
 *
 * A loop has a part of the range for each worker, whose beginning moves up as pieces are taken from
 * it, and a coroutine for each worker, a runner.  A runner takes pieces from the part of the worker
 * that it is on, then from the others of the node, and with NUMIO_AFFINITY_ANY from other nodes.
 * Taking one is a CAS on a cache line that the worker has to itself until others are done.  The
 * runners are children of a scope, so an abort or a deadline of the caller reaches them, and they
 * look between pieces.
 */
#include <numio/parallel.h>

#include <errno.h>
#include <string.h>

#include <numio/scope.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/base/versioned.h"
#include "runtime/sched/await.h"

struct part {
    NIO_CACHE_ALIGNED _Atomic uint64_t next; /* any runner, RMW */
    uint64_t end;                            /* constant */
};

struct loop {
    const struct numio_site *site;
    struct numio_handle *handle;
    uint64_t begin, end, grain;
    int64_t (*fn)(uint64_t first, uint64_t end, void *arg);
    void *arg;
    enum numio_affinity affinity;
    const char *name;
    struct part *parts; /* by the index of the worker */
    _Atomic int64_t error;
};

struct runner {
    struct loop *loop;
    unsigned node;
};

void numio_parallel_opts_init(struct numio_parallel_opts *opts, size_t size)
{
    memset(opts, 0, size);
    opts->size = size;
    opts->affinity = NUMIO_AFFINITY_NODE;
}

/* ---- pieces -------------------------------------------------------------------------------- */

static bool take_piece(struct loop *loop, unsigned index, uint64_t *ret_first, uint64_t *ret_end)
{
    struct part *part = &loop->parts[index];
    /* relaxed, as below: numbers are given out, and nothing is published with them */
    uint64_t first = atomic_load_explicit(&part->next, memory_order_relaxed), count;
    do {
        if (first >= part->end)
            return false;
        count = part->end - first < loop->grain ? part->end - first : loop->grain;
        /* relaxed: as above */
    } while (!atomic_compare_exchange_weak_explicit(&part->next, &first, first + count,
                                                    memory_order_relaxed, memory_order_relaxed));
    *ret_first = first;
    *ret_end = first + count;
    return true;
}

/* From the part of worker `start`, or from another one of the node. */
static bool take_of_node(struct loop *loop, unsigned node_index, unsigned start,
                         uint64_t *ret_first, uint64_t *ret_end)
{
    const struct nio_node *node = loop->handle->nodes[node_index];
    for (unsigned i = 0; i < node->worker_count; i++) {
        unsigned k = (start + i) % node->worker_count;
        if (take_piece(loop, node->workers[k]->index, ret_first, ret_end))
            return true;
    }
    return false;
}

static bool take_any(struct loop *loop, const struct runner *runner, uint64_t *ret_first,
                     uint64_t *ret_end)
{
    const struct nio_worker *worker = nio_worker_current();
    if (loop->affinity == NUMIO_AFFINITY_WORKER)
        return take_piece(loop, worker->index, ret_first, ret_end);
    unsigned start = worker->node->index == runner->node ? worker->index_in_node : 0;
    if (take_of_node(loop, runner->node, start, ret_first, ret_end))
        return true;
    for (unsigned i = 1; loop->affinity == NUMIO_AFFINITY_ANY && i < loop->handle->node_count; i++)
        if (take_of_node(loop, (runner->node + i) % loop->handle->node_count, 0, ret_first,
                         ret_end))
            return true;
    return false;
}

/* The first that says so ends the loop. */
static int64_t end_loop(struct loop *loop, int64_t error)
{
    int64_t none = 0;
    /* relaxed: the end of the scope publishes it */
    (void)atomic_compare_exchange_strong_explicit(&loop->error, &none, error, memory_order_relaxed,
                                                  memory_order_relaxed);
    return error;
}

static int64_t run_pieces(void *arg)
{
    const struct runner *runner = arg;
    struct loop *loop = runner->loop;
    uint64_t first, end;
    /* relaxed: who hears of it late begins one piece more */
    while (atomic_load_explicit(&loop->error, memory_order_relaxed) == 0) {
        int stop = nio_co_stop(nio_co_current());
        if (stop)
            return end_loop(loop, stop);
        if (!take_any(loop, runner, &first, &end))
            return 0;
        int64_t result = loop->fn(first, end, loop->arg);
        if (result < 0)
            return end_loop(loop, result);
        nio_charge();
    }
    return 0;
}

/* ---- the loop ------------------------------------------------------------------------------ */

/* What comes before worker `index` of the range, in proportion to the workers. */
static uint64_t split_point(const struct loop *loop, unsigned index)
{
    uint64_t workers = loop->handle->worker_count, count = loop->end - loop->begin;
    uint64_t rest = count % workers;
    return loop->begin + count / workers * index + (index < rest ? index : rest);
}

static int spawn_runners(struct loop *loop, struct numio_scope *scope, struct runner *runners)
{
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.name = loop->name;
    opts.affinity = loop->affinity;
    int rc = 0;
    for (unsigned i = 0; i < loop->handle->worker_count && rc == 0; i++) {
        const struct nio_worker *worker = loop->handle->workers[i];
        if (loop->affinity == NUMIO_AFFINITY_WORKER)
            opts.worker = (int)i;
        opts.node = (int)worker->node->index;
        runners[i] = (struct runner){ loop, worker->node->index };
        rc = numio_scope_spawn_co_at(loop->site, scope, run_pieces, &runners[i], &opts);
    }
    return rc;
}

static int64_t run_in_scope(struct loop *loop, struct runner *runners)
{
    struct numio_scope scope;
    int rc = numio_scope_open(&scope, NUMIO_SCOPE_KEEP_GOING);
    if (rc < 0)
        return rc;
    rc = spawn_runners(loop, &scope, runners);
    if (rc < 0)
        (void)end_loop(loop, rc); /* those that run end after their piece */
    int64_t error = numio_scope_close(&scope);
    /* relaxed: the close has ordered it */
    int64_t first = atomic_load_explicit(&loop->error, memory_order_relaxed);
    return first < 0 ? first : error;
}

static int64_t run_loop(void *arg)
{
    struct loop *loop = arg;
    unsigned workers = loop->handle->worker_count;
    /* Both in one: the runners behind the parts. */
    char *memory = nio_zalloc(workers * (sizeof(struct part) + sizeof(struct runner)));
    if (!memory)
        return nio_error(-ENOMEM, "parallel_for: no memory for %u parts", workers);
    loop->parts = (struct part *)(void *)memory;
    for (unsigned i = 0; i < workers; i++) {
        atomic_init(&loop->parts[i].next, split_point(loop, i));
        loop->parts[i].end = split_point(loop, i + 1);
    }
    int64_t result =
        run_in_scope(loop, (struct runner *)(void *)(memory + workers * sizeof(struct part)));
    nio_free(memory);
    return result;
}

static int check(const struct numio_parallel_opts *opts, const struct loop *loop)
{
    int rc = opts ? nio_versioned_check("parallel options", opts, opts->size, sizeof *opts) : 0;
    if (rc < 0)
        return rc;
    if (!loop->fn || loop->end < loop->begin)
        return nio_error(-EINVAL, "parallel_for: no function, or the range ends before it begins");
    if ((unsigned)loop->affinity > NUMIO_AFFINITY_WORKER)
        return nio_error(-EINVAL, "parallel options: affinity is %d", (int)loop->affinity);
    if (!loop->handle)
        return nio_error(-EINVAL, "parallel_for: no handle, and this thread has not entered one");
    return 0;
}

int64_t numio_parallel_for_at(const struct numio_site *site, uint64_t begin, uint64_t end,
                              uint64_t grain,
                              int64_t (*fn)(uint64_t first, uint64_t end, void *arg), void *arg,
                              const struct numio_parallel_opts *opts)
{
    struct loop loop = { .site = site,
                         .begin = begin,
                         .end = end,
                         .grain = grain ? grain : 1,
                         .fn = fn,
                         .arg = arg,
                         .affinity = opts ? opts->affinity : NUMIO_AFFINITY_NODE,
                         .name = opts ? opts->name : NULL };
    loop.handle = nio_handle_resolve(opts ? opts->handle : NULL);
    int rc = check(opts, &loop);
    if (rc < 0)
        return rc;
    const struct nio_worker *worker = nio_worker_current();
    if (!worker)
        return numio_block_on_at(site, loop.handle, run_loop, &loop);
    if (!nio_co_current() || worker->handle != loop.handle)
        return nio_error(-EDEADLK, "parallel_for: waiting here would block a worker");
    return run_loop(&loop);
}

/* ---- calls --------------------------------------------------------------------------------- */

int numio_spawn_on_at(const struct numio_site *site, struct numio_handle *handle,
                      enum numio_affinity where, int index, int64_t (*fn)(void *arg), void *arg,
                      struct numio_join **ret_join)
{
    struct numio_spawn_opts opts;
    if (index < 0 || (where != NUMIO_AFFINITY_NODE && where != NUMIO_AFFINITY_WORKER))
        return nio_error(-EINVAL, "call: no such node or worker: %d", index);
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = where;
    if (where == NUMIO_AFFINITY_NODE)
        opts.node = index;
    else
        opts.worker = index;
    return numio_spawn_co_at(site, handle, fn, arg, &opts, ret_join);
}

int64_t numio_call_on_at(const struct numio_site *site, struct numio_handle *handle,
                         enum numio_affinity where, int index, int64_t (*fn)(void *arg), void *arg)
{
    struct nio_co *co = nio_co_current();
    struct numio_join *join;
    if (!co && nio_worker_current())
        return nio_error(-EDEADLK, "call: waiting here would block a worker");
    int rc = numio_spawn_on_at(site, handle, where, index, fn, arg, &join);
    if (rc < 0)
        return rc;
    if (!co)
        return numio_join_wait(&join, -1);
    int64_t result = numio_join_await(&join);
    if (NIO_LIKELY(!join))
        return result;
    /* Stopped: the call ends early, and is waited for. */
    numio_join_abort(join);
    bool was_shielded = co->task.flags & NIO_TASK_SHIELDED;
    co->task.flags |= NIO_TASK_SHIELDED;
    int64_t late = numio_join_await(&join);
    if (!was_shielded)
        co->task.flags &= (uint8_t)~NIO_TASK_SHIELDED;
    return late == -ECANCELED ? result : late;
}
