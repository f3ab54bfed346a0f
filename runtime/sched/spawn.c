/* SPDX-License-Identifier: MIT */
/* The way of a spawn stands in spawn.h. */
#include "runtime/sched/spawn.h"

#include <errno.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/versioned.h"
#include "runtime/sched/extra.h"
#include "runtime/sched/ranked.h"
#include "runtime/task/state.h"
#include "runtime/task/wake.h"

enum {
    STATE_BYTES_MAX = 64 << 10,
    OUTPUT_BYTES_MAX = 4 << 10,
    PLAIN_STATE_BYTES = 1 << 10, /* sizes that need no check against the limits */
    PLAIN_OUTPUT_BYTES = 1 << 10
};

void numio_spawn_opts_init(struct numio_spawn_opts *opts, size_t size)
{
    memset(opts, 0, size);
    opts->size = size;
    opts->node = NUMIO_NODE_ANY;
    opts->worker = NUMIO_WORKER_ANY;
}

/* The home of a task that a foreign thread spawns without saying where: its threads take turns
 * over the nodes, each by itself. */
static struct nio_node *next_node(struct numio_handle *handle)
{
    static _Thread_local unsigned turn;
    return handle->nodes[turn++ % handle->node_count];
}

/* The class of a new task; NIO_CLASS_COUNT: there is no such class. */
static enum nio_class class_of(const struct nio_worker *worker, enum numio_class wanted)
{
    switch (wanted) {
    case NUMIO_CLASS_INHERIT:
        return worker ? (enum nio_class)worker->class_now : NIO_CLASS_NORMAL;
    case NUMIO_CLASS_NORMAL:
        return NIO_CLASS_NORMAL;
    case NUMIO_CLASS_LATENCY:
        return NIO_CLASS_LATENCY;
    case NUMIO_CLASS_BACKGROUND:
        return NIO_CLASS_BACKGROUND;
    }
    return NIO_CLASS_COUNT;
}

/* Before the first task of another class is queued. */
static void note_ranked(struct numio_handle *handle)
{
    if (!nio_has_ranked(handle))
        /* relaxed: the queue publishes it with the task */
        atomic_store_explicit(&handle->has_ranked, true, memory_order_relaxed);
}

static int place_by_options(struct numio_handle *handle, struct nio_worker *worker,
                            const struct numio_spawn_opts *opts, struct nio_placement *p)
{
    int rc = nio_versioned_check("spawn options", opts, opts->size, sizeof *opts);
    if (rc < 0)
        return rc;
    if (opts->node < NUMIO_NODE_ANY || opts->node >= (int)handle->node_count)
        return nio_error(-EINVAL, "spawn options: node is %d, the runtime has nodes 0 to %u",
                         opts->node, handle->node_count - 1);
    if (opts->worker < NUMIO_WORKER_ANY || opts->worker >= (int)handle->worker_count)
        return nio_error(-EINVAL, "spawn options: worker is %d, the runtime has workers 0 to %u",
                         opts->worker, handle->worker_count - 1);
    if (opts->stack_bytes > handle->config.stack_bytes)
        return nio_error(-EINVAL,
                         "spawn options: stack_bytes is %zu, numio_config.stack_bytes only %zu",
                         opts->stack_bytes, handle->config.stack_bytes);
    p->name = opts->name;
    enum nio_class class = class_of(worker, opts->sched_class);
    if (class == NIO_CLASS_COUNT)
        return nio_error(-EINVAL, "spawn options: sched_class is %d", (int)opts->sched_class);
    p->place = nio_task_place(opts->affinity, class);
    if (opts->affinity == NUMIO_AFFINITY_WORKER) {
        if (opts->worker == NUMIO_WORKER_ANY && !worker)
            return nio_error(-EINVAL, "spawn options: worker must be given outside of workers");
        struct nio_worker *target =
            opts->worker == NUMIO_WORKER_ANY ? worker : handle->workers[opts->worker];
        if (opts->node != NUMIO_NODE_ANY && opts->node != (int)target->node->index)
            return nio_error(-EINVAL, "spawn options: worker %u is not on node %d", target->index,
                             opts->node);
        p->pinned_worker = (uint16_t)target->index;
        p->node = target->node;
        return 0;
    }
    if (opts->affinity != NUMIO_AFFINITY_ANY && opts->affinity != NUMIO_AFFINITY_NODE)
        return nio_error(-EINVAL, "spawn options: affinity is %d", (int)opts->affinity);
    if (opts->node != NUMIO_NODE_ANY)
        p->node = handle->nodes[opts->node];
    return 0;
}

int nio_place(struct numio_handle *handle, const struct numio_spawn_opts *opts,
              struct nio_placement *ret_placement)
{
    struct nio_worker *worker = nio_worker_current();
    if (!handle) {
        handle = worker ? worker->handle : nio_handle_resolve(NULL);
        if (!handle)
            return nio_error(-EINVAL, "spawn: no handle, and this thread has not entered one");
    }
    if (NIO_UNLIKELY(!nio_is_own_process(handle)))
        return nio_refuse_forked_child();
    if (worker && worker->handle != handle)
        worker = NULL;
    struct nio_placement *p = ret_placement;
    p->handle = handle;
    p->node = worker ? worker->node : NULL;
    p->name = NULL;
    p->pinned_worker = 0;
    p->place = nio_task_place(NUMIO_AFFINITY_ANY, class_of(worker, NUMIO_CLASS_INHERIT));
    if (opts) {
        int rc = place_by_options(handle, worker, opts, p);
        if (rc < 0)
            return rc;
    }
    if (!p->node)
        p->node = next_node(handle);
    p->worker = worker && worker->node == p->node ? worker : NULL;
    if (p->place >> NIO_PLACE_CLASS_SHIFT != NIO_CLASS_NORMAL)
        note_ranked(handle);
    return 0;
}

/* Fills the header of a new cell; `worker` is the owner of its stripe, NULL for a foreign one. */
static NIO_ALWAYS_INLINE void fill_header(struct nio_task *task, struct numio_handle *handle,
                                          const struct numio_site *site, const char *name,
                                          unsigned home_worker, unsigned node,
                                          unsigned pinned_worker, uint8_t kind, uint8_t place,
                                          uint64_t state)
{
    task->link.next = NULL;
    task->scheduler = &handle->schedule;
    /* relaxed: nobody else knows the task yet */
    atomic_store_explicit(&task->join_waker, 0, memory_order_relaxed);
    task->site = site;
    task->name = name;
    task->ops = NULL;
    task->state_bytes = 0;
    task->output_bytes = 0;
    task->home_worker = (uint16_t)home_worker;
    task->node = (uint16_t)node;
    task->pinned_worker = (uint16_t)pinned_worker;
    task->kind = kind;
    task->place = place;
    task->flags = 0;
    task->wait_kind = NIO_WAIT_WAKE;
    /* relaxed: other threads get the task through a queue, which publishes it */
    atomic_store_explicit(&task->state, state, memory_order_relaxed);
}

int nio_bind_new_task(const struct nio_placement *placement, const struct numio_site *site,
                      enum nio_task_kind kind, size_t bytes, uint64_t state,
                      struct nio_task **ret_task)
{
    struct nio_worker *worker = placement->worker;
    struct nio_foreign_stripe *foreign = &placement->node->foreign;
    struct nio_task *task = NULL;
    int rc;
    if (NIO_LIKELY(worker != NULL)) {
        /* A worker closes its own stripe only when its task gives the thread back. */
        rc = NIO_UNLIKELY(nio_phase(placement->handle) != NIO_PHASE_RUNNING)
                 ? -ESHUTDOWN
                 : nio_stripe_bind(&worker->stripe, bytes, &task);
    } else {
        nio_lock_acquire(&foreign->lock);
        rc = nio_stripe_bind(&foreign->stripe, bytes, &task);
    }
    if (NIO_LIKELY(rc == 0)) {
        fill_header(task, placement->handle, site, placement->name,
                    worker ? worker->index : NIO_STRIPE_FOREIGN, placement->node->index,
                    placement->pinned_worker, (uint8_t)kind, placement->place, state);
        nio_count(worker ? &worker->counters.spawned : &foreign->spawned, 1);
        *ret_task = task;
    }
    if (!worker)
        nio_lock_release(&foreign->lock);
    if (NIO_UNLIKELY(rc == -ESHUTDOWN))
        return nio_error(rc, "spawn: the runtime is shutting down");
    if (NIO_UNLIKELY(rc == -ENOMEM))
        return nio_error(rc, "spawn: no memory for a task of %zu bytes on node %u", bytes,
                         placement->node->index);
    return rc;
}

void nio_unbind_new_task(const struct nio_placement *placement, struct nio_task *task)
{
    struct nio_worker *worker = placement->worker;
    struct nio_foreign_stripe *foreign = &placement->node->foreign;
    nio_extra_end(nio_extra_of(task));
    if (worker) {
        nio_count(&worker->counters.spawned, (uint64_t)-1);
        nio_slab_free_local(&worker->stripe.slab, task);
        return;
    }
    nio_lock_acquire(&foreign->lock);
    nio_count(&foreign->spawned, (uint64_t)-1);
    nio_slab_free_local(&foreign->stripe.slab, task);
    nio_lock_release(&foreign->lock);
    /* If the runtime is closing, workers that still saw the task counted have gone to sleep over
     * it.  Asked in any case: the lock inside orders this count with theirs. */
    nio_end_check(placement->handle);
}

struct numio_task_meta nio_task_meta(const struct nio_task *task)
{
    return (struct numio_task_meta){ task->id, task->name, task->site->file, task->site->line,
                                     task->node };
}

void nio_call_spawn_hook(const struct nio_placement *placement, const struct nio_task *task)
{
    const struct numio_hooks *hooks = &placement->handle->config.hooks;
    if (NIO_LIKELY(!placement->handle->has_hooks) || !hooks->on_task_spawn)
        return;
    struct numio_task_meta meta = nio_task_meta(task);
    hooks->on_task_spawn(&meta, hooks->arg);
}

void nio_launch(const struct nio_placement *placement, struct nio_task *task)
{
    nio_call_spawn_hook(placement, task);
    if (NIO_LIKELY(placement->worker != NULL))
        nio_schedule_local(placement->worker, task, NIO_PLACE_LIFO);
    else if (nio_worker_current() && nio_worker_current()->handle == placement->handle &&
             nio_task_affinity(task) == NUMIO_AFFINITY_ANY)
        nio_schedule_home(placement->handle, task); /* asked for that node: starts there */
    else
        nio_schedule(&placement->handle->schedule, task);
}

static int check_future(const struct numio_future *future)
{
    if (NIO_UNLIKELY(!future || !future->poll))
        return nio_error(-EINVAL, "spawn: the future has no poll function");
    if (NIO_UNLIKELY(future->size > STATE_BYTES_MAX))
        return nio_error(-EINVAL, "spawn: the future's size is %zu, at most %d", future->size,
                         (int)STATE_BYTES_MAX);
    if (NIO_UNLIKELY(future->output_size > OUTPUT_BYTES_MAX))
        return nio_error(-EINVAL, "spawn: the future's output_size is %zu, at most %d",
                         future->output_size, (int)OUTPUT_BYTES_MAX);
    return 0;
}

/* Copies a state; the usual one is a few words. */
static NIO_ALWAYS_INLINE void copy_state(void *to, const void *from, size_t size)
{
    if (!from) {
        if (size > 0)
            memset(to, 0, size);
        return;
    }
    if (size == sizeof(uint64_t))
        memcpy(to, from, sizeof(uint64_t));
    else if (size == 2 * sizeof(uint64_t))
        memcpy(to, from, 2 * sizeof(uint64_t));
    else if (size > 0)
        memcpy(to, from, size);
}

static void fill_coroutine(struct nio_task *task, int64_t (*fn)(void *arg), void *arg)
{
    struct nio_co *co = NIO_CONTAINER_OF(task, struct nio_co, task);
    task->entry.run = fn;
    task->with.arg = arg;
    co->stack = NULL;
    co->op = NULL;
    co->deadline = NULL;
    co->coro = (struct nio_coro){ 0 };
}

static NIO_ALWAYS_INLINE void fill_future(struct nio_task *task, const struct numio_future *future)
{
    task->entry.poll = future->poll;
    task->with.drop = future->drop;
    task->state_bytes = (uint32_t)future->size;
    task->output_bytes = (uint16_t)future->output_size;
    copy_state(nio_task_payload(task), future->state, future->size);
    if (future->output_size > 0)
        memset(nio_task_output(task), 0, future->output_size);
}

/* The cell of a future; a member has its links behind the output. */
static NIO_ALWAYS_INLINE size_t future_bytes(const struct numio_future *future, bool is_member)
{
    size_t bytes = sizeof(struct nio_task) + nio_align_up(future->size, 16);
    if (is_member)
        return bytes + nio_align_up(future->output_size, 16) + sizeof(struct nio_member_links);
    return bytes + future->output_size;
}

/* Takes the task back if it cannot have what the options want. */
static int attach(const struct nio_placement *placement, struct nio_task *task,
                  const struct numio_spawn_opts *opts)
{
    int rc = nio_extra_attach(task, opts);
    if (NIO_UNLIKELY(rc < 0))
        nio_unbind_new_task(placement, task);
    return rc;
}

static int bind_future(const struct nio_placement *placement, const struct numio_site *site,
                       const struct numio_future *future, const struct numio_spawn_opts *opts,
                       uint64_t state, struct nio_task **ret_task)
{
    struct nio_task *task = NULL;
    int rc = nio_bind_new_task(placement, site, NIO_TASK_FUTURE,
                               future_bytes(future, (state & NIO_STATE_MEMBER) != 0), state, &task);
    if (NIO_UNLIKELY(rc < 0))
        return rc;
    fill_future(task, future);
    *ret_task = task;
    return attach(placement, task, opts);
}

/* The worker whose own stripe a plain spawn binds in: the calling one, without options, hooks or a
 * need to look further.  NULL: the long way. */
static NIO_ALWAYS_INLINE struct nio_worker *spawning_worker(const struct numio_handle *handle,
                                                            const struct numio_spawn_opts *opts)
{
    struct nio_worker *worker = nio_worker_current();
    if (NIO_UNLIKELY(!worker || opts) || nio_phase(worker->handle) != NIO_PHASE_RUNNING ||
        worker->handle->has_hooks || worker->class_now != NIO_CLASS_NORMAL ||
        !nio_is_own_process(worker->handle))
        return NULL;
    return !handle || handle == worker->handle ? worker : NULL;
}

/* A cell of the worker's stripe with its header; NULL: the long way says why. */
static NIO_ALWAYS_INLINE struct nio_task *bind_here(struct nio_worker *worker,
                                                    const struct numio_site *site, uint8_t kind,
                                                    size_t bytes, uint64_t state)
{
    struct nio_task *task = nio_slab_alloc(&worker->stripe.slab, bytes);
    if (NIO_UNLIKELY(!task))
        return NULL;
    task->id = worker->stripe.next_id++;
    fill_header(task, worker->handle, site, NULL, worker->index, worker->node->index, 0, kind,
                nio_task_place(NUMIO_AFFINITY_ANY, NIO_CLASS_NORMAL), state);
    nio_count(&worker->counters.spawned, 1);
    return task;
}

static NIO_NOINLINE int spawn_future(const struct numio_site *site, struct numio_handle *handle,
                                     const struct numio_future *future,
                                     const struct numio_spawn_opts *opts,
                                     struct numio_join **ret_join)
{
    struct nio_placement placement;
    struct nio_task *task = NULL;
    int rc = check_future(future);
    if (rc == 0)
        rc = nio_place(handle, opts, &placement);
    if (rc == 0)
        rc =
            bind_future(&placement, site, future, opts, nio_state_initial(ret_join != NULL), &task);
    if (rc < 0)
        return rc;
    if (ret_join)
        *ret_join = (struct numio_join *)task;
    nio_launch(&placement, task);
    return 0;
}

int numio_spawn_at(const struct numio_site *site, struct numio_handle *handle,
                   const struct numio_future *future, const struct numio_spawn_opts *opts,
                   struct numio_join **ret_join)
{
    struct nio_worker *worker = spawning_worker(handle, opts);
    /* Small states and no output are the common case and need no loop over bytes. */
    if (NIO_UNLIKELY(!worker || !future || !future->poll || future->size > PLAIN_STATE_BYTES ||
                     future->output_size > PLAIN_OUTPUT_BYTES))
        return spawn_future(site, handle, future, opts, ret_join);
    struct nio_task *task = bind_here(worker, site, NIO_TASK_FUTURE, future_bytes(future, false),
                                      nio_state_initial(ret_join != NULL));
    if (NIO_UNLIKELY(!task))
        return spawn_future(site, handle, future, opts, ret_join);
    fill_future(task, future);
    if (ret_join)
        *ret_join = (struct numio_join *)task;
    nio_schedule_new(worker, task);
    return 0;
}

/* A coroutine that is not launched yet. */
static int bind_coroutine(struct nio_placement *placement, const struct numio_site *site,
                          struct numio_handle *handle, int64_t (*fn)(void *arg), void *arg,
                          const struct numio_spawn_opts *opts, uint64_t state,
                          struct nio_task **ret_task)
{
    if (!fn)
        return nio_error(-EINVAL, "spawn: the coroutine has no function");
    int rc = nio_place(handle, opts, placement);
    if (rc == 0)
        rc = nio_bind_new_task(placement, site, NIO_TASK_COROUTINE, sizeof(struct nio_co), state,
                               ret_task);
    if (rc < 0)
        return rc;
    fill_coroutine(*ret_task, fn, arg);
    return attach(placement, *ret_task, opts);
}

static NIO_NOINLINE int spawn_coroutine(const struct numio_site *site, struct numio_handle *handle,
                                        int64_t (*fn)(void *arg), void *arg,
                                        const struct numio_spawn_opts *opts,
                                        struct numio_join **ret_join)
{
    struct nio_placement placement;
    struct nio_task *task = NULL;
    int rc = bind_coroutine(&placement, site, handle, fn, arg, opts,
                            nio_state_initial(ret_join != NULL), &task);
    if (rc < 0)
        return rc;
    if (ret_join)
        *ret_join = (struct numio_join *)task;
    nio_launch(&placement, task);
    return 0;
}

int numio_spawn_co_at(const struct numio_site *site, struct numio_handle *handle,
                      int64_t (*fn)(void *arg), void *arg, const struct numio_spawn_opts *opts,
                      struct numio_join **ret_join)
{
    struct nio_worker *worker = spawning_worker(handle, opts);
    struct nio_task *task = NULL;
    if (NIO_LIKELY(worker && fn))
        task = bind_here(worker, site, NIO_TASK_COROUTINE, sizeof(struct nio_co),
                         nio_state_initial(ret_join != NULL));
    if (NIO_UNLIKELY(!task))
        return spawn_coroutine(site, handle, fn, arg, opts, ret_join);
    fill_coroutine(task, fn, arg);
    if (ret_join)
        *ret_join = (struct numio_join *)task;
    nio_schedule_new(worker, task);
    return 0;
}

int numio_class_set(enum numio_class sched_class)
{
    struct nio_worker *worker = nio_worker_current();
    /* relaxed: written by this thread */
    struct nio_task *task =
        worker ? atomic_load_explicit(&worker->current, memory_order_relaxed) : NULL;
    enum nio_class class = class_of(NULL, sched_class);
    if (!task)
        return nio_error(-EINVAL, "numio_class_set: not called from a task");
    if (sched_class == NUMIO_CLASS_INHERIT || class == NIO_CLASS_COUNT)
        return nio_error(-EINVAL, "numio_class_set: %d is no class", (int)sched_class);
    if (class != NIO_CLASS_NORMAL)
        note_ranked(worker->handle);
    task->place = nio_task_place(nio_task_affinity(task), class);
    worker->class_now = (uint8_t) class;
    return 0;
}

enum numio_class numio_class_current(void)
{
    const struct nio_worker *worker = nio_worker_current();
    switch (worker ? (enum nio_class)worker->class_now : NIO_CLASS_NORMAL) {
    case NIO_CLASS_LATENCY:
        return NUMIO_CLASS_LATENCY;
    case NIO_CLASS_BACKGROUND:
        return NUMIO_CLASS_BACKGROUND;
    default:
        return NUMIO_CLASS_NORMAL;
    }
}

/* ---- members of groups --------------------------------------------------------------------- */

static NIO_ALWAYS_INLINE void set_group(struct nio_task *task, struct numio_group_ *group)
{
    /* relaxed: other threads get the task through a queue, which publishes it */
    atomic_store_explicit(&task->join_waker, nio_join_waker_of_group(group), memory_order_relaxed);
}

int nio_bind_member(struct numio_group_ *group, const struct numio_site *site,
                    struct numio_handle *handle, const struct numio_future *future,
                    const struct numio_spawn_opts *opts, struct nio_new_member *ret_member)
{
    struct nio_worker *worker = spawning_worker(handle, opts);
    uint64_t state = nio_state_initial_member();
    struct nio_task *task = NULL;
    int rc = check_future(future);
    if (rc < 0)
        return rc;
    if (NIO_LIKELY(worker != NULL))
        task = bind_here(worker, site, NIO_TASK_FUTURE, future_bytes(future, true), state);
    if (NIO_LIKELY(task != NULL)) {
        fill_future(task, future);
    } else {
        worker = NULL;
        rc = nio_place(handle, opts, &ret_member->placement);
        if (rc == 0)
            rc = bind_future(&ret_member->placement, site, future, opts, state, &task);
        if (rc < 0)
            return rc;
    }
    set_group(task, group);
    ret_member->worker = worker;
    ret_member->task = task;
    return 0;
}

int nio_bind_member_co(struct numio_group_ *group, const struct numio_site *site,
                       struct numio_handle *handle, int64_t (*fn)(void *arg), void *arg,
                       const struct numio_spawn_opts *opts, uint64_t limit_ns,
                       struct nio_new_member *ret_member)
{
    struct nio_worker *worker = spawning_worker(handle, opts);
    uint64_t state = nio_state_initial_member();
    struct nio_task *task = NULL;
    if (NIO_LIKELY(worker && fn))
        task = bind_here(worker, site, NIO_TASK_COROUTINE, sizeof(struct nio_co), state);
    if (NIO_LIKELY(task != NULL)) {
        fill_coroutine(task, fn, arg);
    } else {
        worker = NULL;
        int rc = bind_coroutine(&ret_member->placement, site, handle, fn, arg, opts, state, &task);
        if (rc < 0)
            return rc;
    }
    if (NIO_UNLIKELY(limit_ns != UINT64_MAX)) {
        struct nio_co *co = NIO_CONTAINER_OF(task, struct nio_co, task);
        if (!(task->flags & NIO_TASK_SPECIAL))
            co->extra = NULL;
        co->limit_ns = limit_ns;
        task->flags |= NIO_TASK_SPECIAL;
    }
    set_group(task, group);
    ret_member->worker = worker;
    ret_member->task = task;
    return 0;
}

/* ---- batches ------------------------------------------------------------------------------- */

static void unbind_chain(const struct nio_placement *placement, struct nio_mpsc_node *node)
{
    while (node) {
        struct nio_mpsc_node *next = node->next;
        nio_unbind_new_task(placement, nio_task_of_link(node));
        node = next;
    }
}

/* Hands the join handles out, once nothing can fail any more, and calls the spawn hook. */
static void publish_chain(const struct nio_placement *placement, struct nio_mpsc_node *newest,
                          size_t count, struct numio_join **ret_joins)
{
    for (struct nio_mpsc_node *node = newest; node; node = node->next) {
        struct nio_task *task = nio_task_of_link(node);
        nio_call_spawn_hook(placement, task);
        if (ret_joins)
            ret_joins[--count] = (struct numio_join *)task;
    }
}

/* Turns a chain around; returns the new first. */
static struct nio_mpsc_node *reverse(struct nio_mpsc_node *node)
{
    struct nio_mpsc_node *turned = NULL;
    while (node) {
        struct nio_mpsc_node *next = node->next;
        node->next = turned;
        turned = node;
        node = next;
    }
    return turned;
}

int numio_spawn_batch_at(const struct numio_site *site, struct numio_handle *handle,
                         const struct numio_future *futures, size_t count,
                         const struct numio_spawn_opts *opts, struct numio_join **ret_joins)
{
    struct nio_placement placement;
    int rc = count > UINT32_MAX / 2 ? nio_error(-EINVAL, "spawn: count is %zu", count) : 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = check_future(&futures[i]);
    if (rc == 0)
        rc = nio_place(handle, opts, &placement);
    if (rc < 0 || count == 0)
        return rc;
    struct nio_mpsc_node *newest = NULL;
    struct nio_mpsc_node *oldest = NULL;
    for (size_t i = 0; i < count; i++) {
        struct nio_task *task = NULL;
        rc = bind_future(&placement, site, &futures[i], opts, nio_state_initial(ret_joins != NULL),
                         &task);
        if (rc < 0) {
            unbind_chain(&placement, newest);
            return rc;
        }
        task->link.next = newest;
        newest = &task->link;
        if (!oldest)
            oldest = newest;
    }
    publish_chain(&placement, newest, count, ret_joins);
    enum numio_affinity affinity = nio_task_affinity(nio_task_of_link(newest));
    if (affinity == NUMIO_AFFINITY_WORKER) {
        struct nio_worker *target = placement.handle->workers[placement.pinned_worker];
        (void)nio_mpsc_push_chain(&target->mailbox, newest, oldest); /* woken in any case */
        nio_wake_worker(target, placement.worker);
        return 0;
    }
    enum nio_reach reach = affinity == NUMIO_AFFINITY_ANY ? NIO_REACH_ANY : NIO_REACH_NODE;
    (void)reverse(newest); /* the inject queue is oldest first: `oldest` leads now */
    if (nio_task_class(nio_task_of_link(oldest)) != NIO_CLASS_NORMAL) {
        nio_push_ranked(placement.handle, oldest, newest, (uint32_t)count, placement.worker);
        return 0;
    }
    nio_inject_push(&placement.node->inject[reach], oldest, newest, (uint32_t)count);
    nio_offer_injected(placement.node, reach, placement.worker);
    return 0;
}
