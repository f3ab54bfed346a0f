/* SPDX-License-Identifier: MIT */
/* The worker's loop around one poll of one task, and everything that can follow from a poll.
 *
 * A popped task belongs to this worker, until exactly one of these: nio_state_idle(), after which
 * others may own it; a queue that it is pushed to again; complete(), after which the cell may be
 * gone.
 *
 * A task that is joined while it stands in the LIFO slot, which it would be run from next anyway,
 * is run inside of its joiner: spawn and join then cost neither a suspension nor a wake.  Such runs
 * spend the joiner's budget and nest to a limit.  A coroutine runs on its own stack, hosted by its
 * joiner; a future only inside of a future, on the worker's stack.
 *
 * Cancellation: a task that has never run completes with -ECANCELED without running.  A coroutine
 * that waits for an operation is not resumed: the operation is cancelled on the ring it went to,
 * which is another worker's if the coroutine has moved (then the task goes there by mailbox), and
 * the completion resumes it.  Any other suspended coroutine is resumed and its await returns
 * -ECANCELED.  A future is not polled again: its operations are cancelled, and when the last has
 * ended its state is dropped.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/sched/await.h"
#include "runtime/sched/extra.h"
#include "runtime/sched/ranked.h"
#include "runtime/sched/scopes.h"
#include "runtime/sched/wait_await.h"
#include "runtime/sched/worker.h"
#include "runtime/task/op_done.h"
#include "runtime/task/wake.h"

static NIO_COLD void call_hook(struct nio_worker *worker,
                               void (*hook)(const struct numio_task_meta *, void *),
                               const struct nio_task *task)
{
    struct numio_task_meta meta = nio_task_meta(task);
    if (hook)
        hook(&meta, worker->handle->config.hooks.arg);
}

/* The poll is over, and the task may be about to be another worker's: told now, after_poll comes
 * before that one's before_poll. */
static NIO_COLD void call_after_poll(struct nio_worker *worker)
{
    const struct numio_task_meta *meta = worker->polled;
    const struct numio_hooks *hooks = &worker->handle->config.hooks;
    worker->polled = NULL;
    if (hooks->after_poll)
        hooks->after_poll(meta, hooks->arg);
}

/* Before the worker gives the task away, by whatever makes it another's or ends it: who looks at
 * what the worker runs (nio_worker_peek()) may take it for its own only until then. */
static NIO_ALWAYS_INLINE void forget_task(struct nio_worker *worker)
{
    /* [CR5] relaxed: the read-modify-write of the task's state that gives it away is a release.
     * Pairs with [CR6]. */
    atomic_store_explicit(&worker->current, NULL, memory_order_relaxed);
}

static NIO_ALWAYS_INLINE void end_poll(struct nio_worker *worker)
{
    if (NIO_UNLIKELY(worker->polled != NULL))
        call_after_poll(worker);
    forget_task(worker);
}

/* What few tasks have ends before the task: no task runs meanwhile. */
static NIO_COLD void end_special(struct nio_worker *worker, struct nio_task *task)
{
    if (task->kind != NIO_TASK_COROUTINE)
        return; /* finish_future() has done it */
    forget_task(worker);
    nio_extra_end(NIO_CONTAINER_OF(task, struct nio_co, task)->extra);
}

/* The task has ended with with.result set and nothing of it in flight. */
static NIO_ALWAYS_INLINE void complete(struct nio_worker *worker, struct nio_task *task)
{
    if (NIO_UNLIKELY(worker->handle->has_hooks))
        call_hook(worker, worker->handle->config.hooks.on_task_terminate, task);
    if (NIO_UNLIKELY(task->flags & NIO_TASK_SPECIAL))
        end_special(worker, task);
    uintptr_t waker;
    int64_t result = task->with.result;
    forget_task(worker);
    bool is_last = nio_state_complete(task, &waker);
    nio_count(&worker->counters.completed, 1);
    if (waker && (waker & NIO_JOIN_WAKER_TAGS) == NIO_JOIN_WAKER_GROUP) {
        struct numio_group_ *group = nio_group_of_waker(waker);
        group->_ended(group, task, result);
    } else if (waker) {
        nio_join_waker_wake(waker, &worker->handle->schedule);
    }
    if (is_last)
        nio_release(&worker->handle->schedule, task);
}

/* The poll has not ended the task: it waits for a wake, unless one came meanwhile or it asked to
 * go on behind the others. */
static NIO_ALWAYS_INLINE void pause_task(struct nio_worker *worker, struct nio_task *task)
{
    end_poll(worker);
    if (task->flags & NIO_TASK_YIELDED) {
        task->flags ^= NIO_TASK_YIELDED; /* it stays this worker's */
        if (worker->has_peers && nio_local_queue_is_empty(&worker->queues[NIO_QUEUE_ANY]) &&
            nio_keep_alone(worker, task))
            return;
    } else if (NIO_LIKELY(!nio_state_idle(task))) {
        return;
    }
    if (NIO_LIKELY(nio_task_is_plain(task)))
        nio_push_short(worker, task, NIO_QUEUE_ANY);
    else
        nio_schedule_local(worker, task, NIO_PLACE_TAIL);
}

/* Cancels what is in flight of a future and forgets what has ended.  True: nothing is left. */
static bool drain_future_ops(struct nio_worker *worker, struct nio_task *task)
{
    struct nio_worker *elsewhere = NULL;
    struct numio_op *next;
    for (struct numio_op *op = task->ops; op; op = next) {
        next = op->_next;
        if (nio_op_is_done(op)) {
            if (nio_op_is_wait(op))
                nio_wait_give_back(op);
            else if (op->_result >= 0 && nio_op_makes_fd(op))
                (void)close(op->_result); /* nobody will take it, nobody can be told */
            nio_op_unlink(task, op);
        } else if (op->_driver == worker->driver || nio_op_is_wait(op)) {
            if (!(op->_flags & NIO_OP_CANCEL_SENT))
                nio_op_send_cancel(worker, op);
        } else if (!(op->_flags & NIO_OP_CANCEL_SENT)) {
            elsewhere = worker->handle->workers[nio_op_worker(op)];
        }
    }
    if (!task->ops)
        return true;
    end_poll(worker);
    if (elsewhere) {
        nio_schedule_mailbox(elsewhere, task);
    } else if (nio_state_idle(task)) {
        nio_schedule_local(worker, task, NIO_PLACE_TAIL);
    }
    return false;
}

/* The future has returned ready or is to end early. */
static NIO_ALWAYS_INLINE void finish_future(struct nio_worker *worker, struct nio_task *task)
{
    if (NIO_UNLIKELY(task->ops != NULL)) {
        task->flags |= NIO_TASK_OP_CANCELLED;
        if (!drain_future_ops(worker, task))
            return; /* comes back when they have ended */
    }
    bool is_special = (task->flags & NIO_TASK_SPECIAL) != 0;
    void (*drop)(void *state) = NIO_UNLIKELY(is_special) ? task->with.extra->drop : task->with.drop;
    if (drop) {
        drop(nio_task_payload(task));
        is_special = (task->flags & NIO_TASK_SPECIAL) != 0; /* the drop may have made it so */
    }
    if (NIO_UNLIKELY(is_special)) {
        forget_task(worker);
        nio_extra_end(task->with.extra);
    }
    task->with.result = (task->flags & NIO_TASK_FINISHED) ? 0 : -ECANCELED;
    complete(worker, task);
}

/* A future wants operations cancelled that went to other workers' rings: cancels those of this
 * worker.  Returns a worker that it must visit next, NULL if there is none. */
static NIO_COLD struct nio_worker *visit_rings(struct nio_worker *worker, struct nio_task *task)
{
    for (struct numio_op *op = task->ops; op; op = op->_next) {
        if (!(op->_flags & NIO_OP_CANCEL_WANTED) || (op->_flags & NIO_OP_CANCEL_SENT) ||
            nio_op_is_done(op))
            continue;
        if (op->_driver != worker->driver)
            return worker->handle->workers[nio_op_worker(op)];
        nio_op_send_cancel(worker, op);
    }
    task->flags &= (uint8_t)~NIO_TASK_VISITS;
    return NULL;
}

static NIO_ALWAYS_INLINE void run_future(struct nio_worker *worker, struct nio_task *task,
                                         uint64_t before)
{
    if (NIO_UNLIKELY((before & NIO_STATE_CANCELLED) || (task->flags & NIO_TASK_OP_CANCELLED))) {
        finish_future(worker, task);
        return;
    }
    if (NIO_UNLIKELY(task->flags & NIO_TASK_VISITS))
        (void)visit_rings(worker, task); /* goes on after the poll, if that is needed */
    struct numio_context cx = { task, nio_task_output(task) };
    enum numio_poll polled = task->entry.poll(nio_task_payload(task), &cx);
    if (polled == NUMIO_READY) {
        task->flags |= NIO_TASK_FINISHED;
        finish_future(worker, task);
        return;
    }
    struct nio_worker *next =
        NIO_UNLIKELY(task->flags & NIO_TASK_VISITS) ? visit_rings(worker, task) : NULL;
    if (next) {
        end_poll(worker);
        nio_schedule_mailbox(next, task);
    } else {
        pause_task(worker, task);
    }
}

/* Its timer stands in memory that is about to go. */
static _Noreturn NIO_COLD void left_a_deadline(const struct nio_co *co)
{
    (void)fprintf(
        stderr,
        "numio: coroutine '%s' spawned at %s:%d returned without numio_deadline_pop() for "
        "each numio_deadline_push()\n",
        co->task.name ? co->task.name : "", co->task.site->file,
        co->task.site->line); /* nothing to do if it fails */
    abort();
}

/* Its children may use memory that is about to go. */
static _Noreturn NIO_COLD void left_a_scope(const struct nio_co *co)
{
    (void)fprintf(stderr,
                  "numio: coroutine '%s' spawned at %s:%d returned without numio_scope_close() for "
                  "each numio_scope_open()\n",
                  co->task.name ? co->task.name : "", co->task.site->file,
                  co->task.site->line); /* nothing to do if it fails */
    abort();
}

/* In the deadline that came with the spawn, if there is one. */
static NIO_NOINLINE int64_t run_limited(struct nio_co *co)
{
    struct numio_deadline deadline;
    if (co->limit_ns == UINT64_MAX)
        return co->task.entry.run(co->task.with.arg);
    nio_deadline_push_until(co, &deadline, co->limit_ns);
    int64_t result = co->task.entry.run(co->task.with.arg);
    if (NIO_UNLIKELY(co->deadline != &deadline))
        left_a_deadline(co);
    (void)numio_deadline_end(&deadline); /* it is the innermost */
    return result;
}

static void coroutine_entry(void *arg)
{
    struct nio_co *co = arg;
    int64_t result = NIO_UNLIKELY(co->task.flags & NIO_TASK_SPECIAL)
                         ? run_limited(co)
                         : co->task.entry.run(co->task.with.arg);
    co->task.with.result = result;
    co->task.flags |= NIO_TASK_FINISHED;
    if (NIO_UNLIKELY(co->deadline != NULL))
        left_a_deadline(co);
    if (NIO_UNLIKELY(co->task.scopes != NULL))
        left_a_scope(co);
    nio_coro_switch_last(&co->coro, nio_worker_current()->host);
}

/* First run: gets a stack from this worker, hot and on its node. */
static bool start_coroutine(struct nio_worker *worker, struct nio_co *co)
{
    struct nio_stack *stack = nio_stack_alloc(&worker->stack_pool);
    if (NIO_UNLIKELY(!stack))
        return false;
    nio_stack_set_owner(stack, co);
    co->stack = stack;
    co->task.flags |= NIO_TASK_STARTED;
    nio_coro_init(&co->coro, stack->low, stack->high, coroutine_entry, co);
    return true;
}

/* Decides for a cancelled or spuriously woken coroutine.  True: it must not be resumed now, and
 * its state has been dealt with. */
static bool hold_coroutine(struct nio_worker *worker, struct nio_co *co, uint64_t before)
{
    struct nio_task *task = &co->task;
    if (before & NIO_STATE_ERRAND)
        nio_scopes_errand(co);
    if (!(task->flags & NIO_TASK_STARTED)) {
        if (!(before & NIO_STATE_CANCELLED))
            return false;
        task->with.result = -ECANCELED;
        complete(worker, task);
        return true;
    }
    if (task->wait_kind != NIO_WAIT_OP || (before & NIO_STATE_OP_DONE))
        return false;
    if ((before & (NIO_STATE_CANCELLED | NIO_STATE_LATE)) &&
        !(task->flags & (NIO_TASK_SHIELDED | NIO_TASK_OP_CANCELLED))) {
        if (co->op->_driver != worker->driver && co->op->_driver != NULL) {
            struct nio_worker *elsewhere = worker->handle->workers[nio_op_worker(co->op)];
            end_poll(worker);
            nio_schedule_mailbox(elsewhere, task);
            return true;
        }
        task->flags |= NIO_TASK_OP_CANCELLED;
        nio_op_send_cancel(worker, co->op);
    }
    end_poll(worker);
    if (nio_state_idle(task))
        nio_schedule_local(worker, task, NIO_PLACE_TAIL);
    return true;
}

/* A stack without a guard page was written beyond its end: what lies there is damaged already. */
static _Noreturn NIO_COLD void stack_overflowed(const struct nio_co *co)
{
    (void)fprintf(stderr,
                  "numio: stack overflow in coroutine '%s' spawned at %s:%d (%zu bytes of stack); "
                  "raise stack_bytes\n",
                  co->task.name ? co->task.name : "", co->task.site->file, co->task.site->line,
                  nio_stack_bytes(co->stack)); /* nothing to do if it fails */
    abort();
}

/* Runs the coroutine until it suspends or ends, from the loop or from inside of its joiner. */
static NIO_ALWAYS_INLINE void resume(struct nio_worker *worker, struct nio_co *co)
{
    struct nio_coro *here = worker->here;
    struct nio_coro *host = worker->host;
    worker->host = here;
    worker->here = &co->coro;
    nio_coro_switch_in(here, &co->coro);
    worker->here = here;
    worker->host = host;
}

static NIO_ALWAYS_INLINE void run_coroutine(struct nio_worker *worker, struct nio_co *co,
                                            uint64_t before)
{
    struct nio_task *task = &co->task;
    bool has_waited = task->wait_kind != NIO_WAIT_OP || (before & NIO_STATE_OP_DONE);
    if (NIO_UNLIKELY((before & (NIO_STATE_CANCELLED | NIO_STATE_ERRAND)) || !has_waited) &&
        hold_coroutine(worker, co, before))
        return;
    if (!(task->flags & NIO_TASK_STARTED) && !start_coroutine(worker, co)) {
        task->with.result = -ENOMEM;
        complete(worker, task);
        return;
    }
    resume(worker, co);
    if (NIO_UNLIKELY(!nio_stack_is_intact(co->stack)))
        stack_overflowed(co);
    if (task->flags & NIO_TASK_FINISHED) {
        struct nio_stack *stack = co->stack;
        co->stack = NULL;
        nio_stack_free(&worker->stack_pool, stack);
        complete(worker, task);
    } else if (NIO_UNLIKELY(task->flags & NIO_TASK_VISITS)) {
        task->flags &= (uint8_t)~NIO_TASK_VISITS;
        end_poll(worker);
        nio_schedule_mailbox(worker->handle->workers[co->visit], task);
    } else {
        pause_task(worker, task);
    }
}

static NIO_ALWAYS_INLINE void poll_task(struct nio_worker *worker, struct nio_task *task)
{
    uint64_t before = nio_state_start(task);
    uint8_t kind = task->kind;
    struct numio_task_meta meta;
    const struct numio_task_meta *outer = worker->polled; /* of the joiner, if this is inside it */
    nio_count(&worker->counters.polls, 1);
    /* [CR5] release: what the task is.  Pairs with [CR6]. */
    atomic_store_explicit(&worker->current, task, memory_order_release);
    if (NIO_UNLIKELY(worker->handle->has_hooks)) {
        meta = nio_task_meta(task);
        worker->polled = &meta;
        if (worker->handle->config.hooks.before_poll)
            worker->handle->config.hooks.before_poll(&meta, worker->handle->config.hooks.arg);
    }
    if (kind == NIO_TASK_FUTURE)
        run_future(worker, task, before);
    else
        run_coroutine(worker, NIO_CONTAINER_OF(task, struct nio_co, task), before);
    if (NIO_UNLIKELY(worker->polled != NULL))
        call_after_poll(worker); /* of a task that has ended */
    worker->polled = outer;
    if (NIO_UNLIKELY(!nio_is_own_process(worker->handle)))
        nio_assert_failed("a task of the parent process returned in a forked child", __FILE__,
                          __LINE__, __func__);
}

static NIO_ALWAYS_INLINE bool may_run_inside(const struct nio_worker *worker,
                                             const struct nio_task *joiner,
                                             const struct nio_task *task)
{
    /* A future's poll must not find itself on a coroutine's small stack. */
    if (task->kind == NIO_TASK_FUTURE && joiner->kind != NIO_TASK_FUTURE)
        return false;
    if (NIO_UNLIKELY(worker->class_now != NIO_CLASS_NORMAL))
        return false; /* what it spawns would be of the joiner's class */
    /* Spends the joiner's budget, so that the loop comes around as often as without this. */
    return worker->inline_depth < NIO_INLINE_DEPTH_MAX && !nio_budget_is_spent(&worker->budget);
}

static NIO_ALWAYS_INLINE bool take_from_slot(struct nio_worker *worker, struct nio_task *task)
{
    /* A thief may be faster. */
    return nio_lifo_peek(&worker->lifo) == task && nio_lifo_pop(&worker->lifo, worker->has_peers);
}

static NIO_ALWAYS_INLINE void run_inside(struct nio_worker *worker, struct nio_task *joiner,
                                         struct nio_task *task)
{
    nio_budget_spend(&worker->budget);
    worker->inline_depth++;
    poll_task(worker, task);
    worker->inline_depth--;
    /* [CR5] release: as above */
    atomic_store_explicit(&worker->current, joiner, memory_order_release);
}

void nio_run_joined(struct nio_worker *worker, struct nio_task *task)
{
    /* relaxed: read and written by this thread; reports read it */
    struct nio_task *joiner = atomic_load_explicit(&worker->current, memory_order_relaxed);
    if (may_run_inside(worker, joiner, task) && take_from_slot(worker, task))
        run_inside(worker, joiner, task);
}

bool nio_run_newest(struct nio_worker *worker, struct nio_task *task)
{
    /* relaxed: as above */
    struct nio_task *joiner = atomic_load_explicit(&worker->current, memory_order_relaxed);
    struct nio_local_queue *queue = &worker->queues[NIO_QUEUE_NEW];
    if (!may_run_inside(worker, joiner, task))
        return false;
    if (!take_from_slot(worker, task) &&
        (nio_lifo_peek(&worker->lifo) || nio_local_queue_newest(queue) != task ||
         !nio_local_queue_pop_newest(queue, worker->has_peers)))
        return false;
    run_inside(worker, joiner, task);
    return true;
}

/* Often that of the slot, without a call. */
static NIO_ALWAYS_INLINE struct nio_task *next_task(struct nio_worker *worker)
{
    struct nio_task *task;
    if (NIO_UNLIKELY(nio_has_ranked(worker->handle)))
        return nio_next_ranked(worker);
    if (nio_lifo_peek(&worker->lifo) && NIO_LIKELY(worker->inject_countdown > 1) &&
        (task = nio_next_slot(worker))) {
        worker->inject_countdown--;
        return task;
    }
    return nio_next_normal(worker);
}

/* The loop stands beside the poll and includes it, so that nothing returns between two switches of
 * coroutines: a return to an address that was pushed before the switch is mispredicted. */
static NIO_ALWAYS_INLINE bool step(struct nio_worker *worker, bool may_block)
{
    struct nio_task *task = next_task(worker);
    if (NIO_UNLIKELY(!task))
        task = nio_idle(worker, may_block);
    if (NIO_LIKELY(task != NULL)) {
        if (NIO_UNLIKELY(worker->is_searching || worker->idle_since_ns != 0))
            nio_end_idle(worker);
        nio_budget_fill(&worker->budget);
        if (NIO_UNLIKELY(nio_has_ranked(worker->handle)))
            nio_note_class(worker, task);
        poll_task(worker, task);
        nio_maintain(worker);
    }
    return !worker->is_leaving;
}

void nio_run_task(struct nio_worker *worker, struct nio_task *task)
{
    nio_budget_fill(&worker->budget);
    if (NIO_UNLIKELY(nio_has_ranked(worker->handle)))
        nio_note_class(worker, task);
    poll_task(worker, task);
}

bool nio_worker_step(struct nio_worker *worker, bool may_block)
{
    if (worker->is_retired)
        return nio_serve_retired(worker, may_block) || step(worker, may_block);
    return step(worker, may_block) || worker->is_retired;
}

void nio_worker_run(struct nio_worker *worker)
{
    do {
        while (step(worker, true)) { /* until the runtime has ended, or the worker retires */
        }
        while (nio_serve_retired(worker, true)) { /* until it is active again */
        }
    } while (!worker->is_leaving);
    if (worker->is_searching) {
        worker->is_searching = false;
        (void)nio_idle_end_search(&worker->node->idle); /* everybody is leaving */
    }
    nio_slab_outbox_flush(&worker->outbox);
}
