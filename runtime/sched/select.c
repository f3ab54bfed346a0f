/* SPDX-License-Identifier: MIT */
/* Selections: a coroutine, or a plain thread, that waits for the first of several operations.
 *
 * Each operation is a member (its state says so) of a struct nio_choice on the waiter's stack.  Who
 * has what a member waits for must first claim the selection for it (nio_wait_claim()); one claim
 * succeeds, so of waits for tasks exactly one happens.  An operation of a ring claims when it has
 * ended, too late to be undone: it may have a result and not be the one that counts.
 *
 * Four steps:
 *   begin    waits for tasks are begun one after the other, in the order of preference; the first
 *            that is ready ends the step.  Then, if none was, rings get their operations.
 *   first    the waiter sleeps until a member has ended (FIRST)
 *   cancel   waits leave their queues; ring operations are cancelled on the ring they went to,
 * where a coroutine that has been moved meanwhile goes for it last     it sleeps until all members
 * have ended (LAST), for their memory is its own An abort or a deadline cancels all members in
 * run.c's way, in the first step or the last.
 */
#include <numio/select.h>

#include <errno.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/futex.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"
#include "runtime/task/op_done.h"

static int check(const struct numio_op *ops, unsigned count, unsigned flags, bool is_thread)
{
    if (count == 0 || count > NUMIO_SELECT_MAX)
        return nio_error(-EINVAL, "select: %u operations; between 1 and %d are possible", count,
                         NUMIO_SELECT_MAX);
    if (flags & ~(unsigned)NUMIO_SELECT_BIASED)
        return nio_error(-EINVAL, "select: unknown flags 0x%x", flags);
    int fd = -1;
    for (unsigned i = 0; i < count; i++) {
        if (nio_op_is_wait(&ops[i]))
            continue;
        if (is_thread)
            return nio_error(-EINVAL,
                             "select: operation %u needs a ring, and a plain thread has "
                             "none",
                             i);
        if (ops[i]._sqe[0] & NIO_OP_RELATIONS)
            return nio_error(-EINVAL, "select: operation %u has a link or a drain", i);
        if (!nio_is_direct(nio_op_fd(&ops[i])))
            continue;
        if (fd >= 0 && nio_direct_worker(fd) != nio_direct_worker(nio_op_fd(&ops[i])))
            return nio_error(-EXDEV,
                             "select: operation %u has a direct descriptor of worker %u, "
                             "one before it of worker %u",
                             i, nio_direct_worker(nio_op_fd(&ops[i])), nio_direct_worker(fd));
        fd = nio_op_fd(&ops[i]);
    }
    return 0;
}

/* The first direct descriptor decides where the ring operations go. */
static int go_to_table(struct nio_co *co, const struct numio_op *ops, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!nio_op_is_wait(&ops[i]) && nio_is_direct(nio_op_fd(&ops[i])))
            return nio_co_go_to_ring(co, &ops[i], false);
    return 0;
}

static void set_up(struct nio_choice *choice, struct numio_op *ops, unsigned count,
                   struct nio_task *task)
{
    choice->task = task;
    choice->ops = ops;
    choice->count = count;
    choice->begun = count;
    atomic_init(&choice->state, count);
    atomic_init(&choice->winner, 0);
    for (unsigned i = 0; i < count; i++) {
        ops[i]._task = task;
        ops[i]._driver = NULL;
        ops[i]._prev = (struct numio_op *)choice;
        ops[i]._result = -ECANCELED;
        ops[i]._state = NIO_OP_CHOICE;
        ops[i]._flags = 0;
    }
}

static bool has_winner(const struct nio_choice *choice)
{
    /* relaxed: whoever wins meanwhile is noticed before the sleep, by FIRST */
    return atomic_load_explicit(&choice->winner, memory_order_relaxed) != 0;
}

/* A member that was never begun. */
static void leave_out(struct nio_choice *choice, struct numio_op *op)
{
    op->_state = NIO_OP_DONE;
    choice->begun--;
    /* relaxed: the waiter's own, nobody else knows the member */
    (void)atomic_fetch_sub_explicit(&choice->state, 1, memory_order_relaxed);
}

/* Begins the waits, from `start` on and around, until one has won. */
static void begin_waits(struct nio_choice *choice, unsigned start)
{
    for (unsigned k = 0; k < choice->count; k++) {
        struct numio_op *op = &choice->ops[(start + k) % choice->count];
        if (!nio_op_is_wait(op))
            continue;
        if (has_winner(choice))
            leave_out(choice, op);
        else
            nio_wait_submit(op);
    }
}

/* Hands the ring operations over, or leaves them out if a wait has won by now. */
static void begin_ring(struct nio_worker *worker, struct nio_choice *choice)
{
    bool is_decided = has_winner(choice);
    for (unsigned i = 0; i < choice->count; i++) {
        struct numio_op *op = &choice->ops[i];
        if (nio_op_is_wait(op))
            continue;
        if (is_decided) {
            leave_out(choice, op);
            continue;
        }
        op->_driver = worker->driver;
        op->_flags = worker->index << NIO_OP_WORKER_SHIFT;
        nio_set_flush_cost(worker, op);
        nio_driver_submit(worker->driver, op);
    }
}

/* The ring that has operations which have not ended; NULL if none has. */
static const struct numio_op *ring_member(const struct nio_choice *choice)
{
    for (unsigned i = 0; i < choice->count; i++)
        if (choice->ops[i]._driver && !nio_op_is_done(&choice->ops[i]))
            return &choice->ops[i];
    return NULL;
}

/* Owner of the ring that has them: asks for the end of all that have not ended. */
void nio_choice_send_cancel(struct nio_worker *worker, struct nio_choice *choice)
{
    for (unsigned i = 0; i < choice->count; i++) {
        struct numio_op *op = &choice->ops[i];
        if (nio_op_is_done(op) || (op->_flags & NIO_OP_CANCEL_SENT))
            continue;
        op->_flags |= NIO_OP_CANCEL_SENT;
        if (nio_op_is_wait(op))
            nio_wait_cancel(op);
        else
            nio_driver_cancel(worker->driver, op);
    }
}

static uint32_t choice_state(const struct nio_choice *choice)
{
    /* [OC2] acquire: sees the results.  Pairs with [OC1]. */
    return atomic_load_explicit(&choice->state, memory_order_acquire);
}

/* Says that the waiter sleeps until any member has ended.  False: one has. */
static bool wants_first(struct nio_choice *choice)
{
    uint32_t none_has_ended = choice->begun;
    /* [OC2] acquire: as above, on both ways */
    return atomic_compare_exchange_strong_explicit(&choice->state, &none_has_ended,
                                                   choice->begun | NIO_CHOICE_FIRST,
                                                   memory_order_acquire, memory_order_acquire);
}

/* Says that the waiter sleeps until all members have ended.  False: they have. */
static bool wants_last(struct nio_choice *choice)
{
    uint32_t old = choice_state(choice);
    do {
        if ((old & NIO_CHOICE_LEFT) == 0)
            return false;
        /* [OC2] acquire: as above, on both ways */
    } while (!atomic_compare_exchange_weak_explicit(&choice->state, &old,
                                                    (old & ~NIO_CHOICE_FIRST) | NIO_CHOICE_LAST,
                                                    memory_order_acquire, memory_order_acquire));
    return true;
}

/* ---- a coroutine --------------------------------------------------------------------------- */

/* A member by which run.c finds the selection and, if there is one, its ring. */
static void sleep_for(struct nio_co *co, struct nio_choice *choice)
{
    const struct numio_op *ring = ring_member(choice);
    co->op = ring ? (struct numio_op *)(uintptr_t)ring : &choice->ops[0];
    co->task.wait_kind = NIO_WAIT_OP;
    nio_co_suspend(co);
    co->task.wait_kind = NIO_WAIT_WAKE;
    co->op = NULL;
}

static void cancel_rest(struct nio_co *co, struct nio_choice *choice)
{
    const struct numio_op *ring = ring_member(choice);
    if (ring)
        nio_co_go_to(co, nio_op_worker(ring));
    nio_choice_send_cancel(nio_worker_current(), choice);
    co->task.flags |= NIO_TASK_OP_CANCELLED; /* run.c need not do it again */
    if (wants_last(choice))
        sleep_for(co, choice);
}

static void wait_for_first(struct nio_co *co, struct nio_choice *choice)
{
    struct nio_task *task = &co->task;
    task->flags &= (uint8_t)~NIO_TASK_OP_CANCELLED;
    if (NIO_UNLIKELY(!has_winner(choice) && nio_co_stop(co))) {
        task->flags |= NIO_TASK_OP_CANCELLED;
        nio_choice_send_cancel(nio_worker_current(), choice);
    }
    if (wants_first(choice))
        sleep_for(co, choice);
    else
        nio_co_charge(co);
}

/* What an aborted task cannot take any more. */
static void settle(struct nio_choice *choice)
{
    for (unsigned i = 0; i < choice->count; i++) {
        struct numio_op *op = &choice->ops[i];
        if (nio_op_is_wait(op) || op->_result < 0 || !nio_op_makes_fd(op))
            continue;
        (void)close(op->_result); /* came too late */
        op->_result = -ECANCELED;
    }
}

static int64_t verdict(struct nio_co *co, struct nio_choice *choice)
{
    /* relaxed: [OC2] has ordered it */
    uint32_t winner = atomic_load_explicit(&choice->winner, memory_order_relaxed);
    for (unsigned i = 0; i < choice->count; i++)
        if (!nio_op_is_wait(&choice->ops[i]))
            nio_direct_note_close(&choice->ops[i]);
    if (co && nio_state_is_cancelled(&co->task))
        settle(choice);
    NIO_ASSERT(winner > 0);
    if (NIO_LIKELY(choice->ops[winner - 1]._result != -ECANCELED))
        return winner - 1;
    if (!co)
        return -ETIMEDOUT;
    return nio_state_is_cancelled(&co->task) ? -ECANCELED : -ETIMEDOUT;
}

static int64_t select_in_coroutine(struct nio_co *co, struct numio_op *ops, unsigned count,
                                   unsigned flags)
{
    struct nio_choice choice;
    int error = go_to_table(co, ops, count);
    if (error)
        return error;
    struct nio_worker *worker = nio_worker_current();
    set_up(&choice, ops, count, &co->task);
    unsigned start = flags & NUMIO_SELECT_BIASED ? 0 : nio_rng_below(&worker->rng, count);
    begin_waits(&choice, start);
    begin_ring(worker, &choice);
    wait_for_first(co, &choice);
    cancel_rest(co, &choice);
    return verdict(co, &choice);
}

/* ---- a plain thread ------------------------------------------------------------------------ */

static void sleep_in_thread(struct nio_choice *choice, uint32_t waits_for, uint64_t end_ns)
{
    uint32_t state;
    while ((state = choice_state(choice)) & waits_for && (state & NIO_CHOICE_LEFT)) {
        int64_t left_ns = nio_wait_left_ns(end_ns);
        if (left_ns == 0)
            return;
        (void)nio_futex_wait(&choice->state, state, left_ns); /* the loop looks again */
    }
}

static int64_t select_in_thread(struct numio_op *ops, unsigned count, unsigned flags)
{
    struct nio_choice choice;
    set_up(&choice, ops, count, NULL);
    unsigned any = (unsigned)(nio_now_ns() % count);
    begin_waits(&choice, flags & NUMIO_SELECT_BIASED ? 0 : any);
    if (wants_first(&choice))
        sleep_in_thread(&choice, NIO_CHOICE_FIRST, nio_thread_deadline_ns());
    nio_choice_send_cancel(NULL, &choice);
    if (wants_last(&choice))
        sleep_in_thread(&choice, NIO_CHOICE_LAST, UINT64_MAX);
    return verdict(NULL, &choice);
}

int64_t numio_select(struct numio_op *ops, unsigned count, unsigned flags)
{
    struct nio_co *co = nio_co_current();
    struct nio_worker *worker = nio_worker_current();
    int error = check(ops, count, flags, !co);
    if (error)
        return error;
    if (!co && worker)
        return nio_error(-EDEADLK, "select: would block a worker: only coroutines and plain "
                                   "threads can wait");
    if (!co)
        return select_in_thread(ops, count, flags);
    if (!nio_is_own_process(worker->handle))
        return nio_refuse_forked_child();
    return select_in_coroutine(co, ops, count, flags);
}
