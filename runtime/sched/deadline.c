/* SPDX-License-Identifier: MIT */
/* Deadline scopes of coroutines.
 *
 * Whoever begins to wait compares the clock with the end of its innermost scope (nio_co_stop()).
 * What is being waited for when the time passes is ended by a timer: each scope that ends before
 * its outer one has one in the wheel of the worker that pushed it.  There it strikes: the worker
 * sets LATE in the task's state word with a wake, run.c cancels the operation that the coroutine
 * waits for, as for an abort, and the await returns -ETIMEDOUT.  The pop of a scope that was struck
 * clears LATE; if it was an outer one's as well, the clock says the same from there on.
 *
 * The timer lies in the memory of the coroutine, which may run elsewhere by now, and is the
 * worker's.  `_timer._state` says whose it is:
 *
 *   STARTED  the worker's: it stands in the wheel, or is being struck
 *   DONE     the coroutine's: the worker stores it after its last access [DL1]
 *   FRESH    the coroutine's: never armed
 *
 * Pop wants it back and takes it from the wheel, whose lock lets any worker do that.  Only if it is
 * no longer there and not DONE either, that is, while another worker is between taking it out and
 * its last access, does the coroutine go there: the task flag VISITS makes the loop send the
 * suspended task to the mailbox of the timer's worker, where nobody is at the timer any more.
 */
#include <errno.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/task/op_done.h"

static uint64_t now_of(const struct nio_worker *worker)
{
    return nio_timeline_now_ns(&worker->handle->timeline);
}

static void push(struct nio_worker *worker, struct nio_co *co, struct numio_deadline *deadline,
                 uint64_t now_ns, uint64_t at_ns)
{
    struct numio_deadline *outer = co->deadline;
    struct numio_op *timer = &deadline->_timer;
    timer->_task = NULL; /* never armed */
    deadline->_outer = outer;
    deadline->_at_ns = at_ns;
    co->deadline = deadline;
    if (outer && outer->_at_ns <= at_ns) {
        deadline->_at_ns = outer->_at_ns; /* whose timer strikes for both */
    } else if (at_ns > now_ns) {
        timer->_task = &co->task;
        timer->_flags = worker->index << NIO_OP_WORKER_SHIFT | NIO_OP_DEADLINE;
        timer->_state = NIO_OP_STARTED;
        nio_driver_arm(worker->driver, timer, at_ns, now_ns);
    }
}

int numio_deadline_push(struct numio_deadline *deadline, uint64_t timeout_ns)
{
    struct nio_worker *worker = nio_worker_current();
    struct nio_co *co = nio_co_of(worker);
    if (NIO_UNLIKELY(!co))
        return nio_thread_deadline_push(deadline, timeout_ns);
    if (NIO_UNLIKELY(!nio_is_own_process(worker->handle)))
        return nio_refuse_forked_child();
    uint64_t now_ns = now_of(worker);
    push(worker, co, deadline, now_ns,
         timeout_ns < UINT64_MAX - now_ns ? now_ns + timeout_ns : UINT64_MAX);
    return 0;
}

void nio_deadline_push_until(struct nio_co *co, struct numio_deadline *deadline, uint64_t at_ns)
{
    struct nio_worker *worker = nio_worker_current();
    push(worker, co, deadline, now_of(worker), at_ns);
}

/* Gets the scope's timer back from its worker.  True: it has struck. */
static NIO_ALWAYS_INLINE bool take_back(struct nio_worker *worker, struct nio_co *co,
                                        struct numio_op *timer)
{
    if (timer->_task == NULL)
        return false; /* never armed */
    if (nio_op_is_done(timer))
        return true;
    struct nio_worker *owner = worker->handle->workers[nio_op_worker(timer)];
    if (NIO_LIKELY(nio_driver_take_timer(owner->driver, timer)))
        return false;
    if (!nio_op_is_done(timer))
        nio_co_go_to(co, owner->index);
    NIO_ASSERT(nio_op_is_done(timer)); /* on its thread it is never half struck */
    return true;
}

/* The innermost scope of the coroutine is the outer one again. */
static NIO_ALWAYS_INLINE int leave(struct nio_worker *worker, struct nio_co *co,
                                   struct numio_deadline *deadline)
{
    if (NIO_UNLIKELY(!co || !deadline || co->deadline != deadline))
        return nio_error(-EINVAL, "deadline: popped one that is not the innermost scope of the "
                                  "calling coroutine");
    if (NIO_UNLIKELY(!nio_is_own_process(worker->handle)))
        return nio_refuse_forked_child();
    if (take_back(worker, co, &deadline->_timer))
        nio_state_clear_late(&co->task);
    co->deadline = deadline->_outer;
    return 0;
}

int numio_deadline_pop(struct numio_deadline *deadline)
{
    struct nio_worker *worker = nio_worker_current();
    struct nio_co *co = nio_co_of(worker);
    if (!co && deadline && nio_thread_deadline_is(deadline))
        return nio_thread_deadline_pop(deadline);
    int rc = leave(worker, co, deadline); /* it may go on with another worker */
    if (NIO_UNLIKELY(rc))
        return rc;
    return now_of(nio_worker_current()) >= deadline->_at_ns ? -ETIMEDOUT : 0;
}

int numio_deadline_end(struct numio_deadline *deadline)
{
    struct nio_worker *worker = nio_worker_current();
    struct nio_co *co = nio_co_of(worker);
    if (!co && deadline && nio_thread_deadline_is(deadline)) {
        nio_thread_deadline_end(deadline);
        return 0;
    }
    return leave(worker, co, deadline);
}

int64_t numio_deadline_left(void)
{
    const struct nio_co *co = nio_co_current();
    uint64_t at_ns = !co            ? nio_thread_deadline_ns()
                     : co->deadline ? co->deadline->_at_ns
                                    : UINT64_MAX;
    uint64_t now_ns = co ? now_of(nio_worker_current()) : nio_now_ns();
    if (at_ns == UINT64_MAX)
        return INT64_MAX;
    if (now_ns >= at_ns)
        return 0;
    return at_ns - now_ns < INT64_MAX ? (int64_t)(at_ns - now_ns) : INT64_MAX;
}

int nio_co_stop_late(const struct nio_co *co)
{
    if (nio_state_is_cancelled(&co->task))
        return -ECANCELED;
    bool is_late = co->deadline && now_of(nio_worker_current()) >= co->deadline->_at_ns;
    return is_late ? -ETIMEDOUT : 0;
}
