/* SPDX-License-Identifier: MIT */
/* The barrier: a number of parties and a queue; everything happens under its lock.
 *
 * Who arrives stands in the queue until the last party comes, which ends all waits and becomes the
 * leader; then the queue is empty, and the next round begins.  So who gives up waiting takes its
 * arrival back by leaving the queue, and nobody can be in two rounds at once.
 *
 * A wait in a selection that something else has won is no arrival any more.  The last party first
 * throws those out, then claims the others one by one; should one be lost in that moment, the round
 * is not complete, and those that were claimed stay: their selections have chosen the barrier.
 */
#include <numio/sync.h>

#include <errno.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

/* Under the lock: counts the waits for which `counts` is true, and takes the others out. */
static uint32_t arrivals(struct numio_barrier *barrier, bool (*counts)(struct numio_op *op),
                         struct nio_wait_list *lost)
{
    struct numio_op *next;
    uint32_t count = 0;
    for (struct numio_op *op = barrier->_waits._first; op; op = next) { /* by the queue */
        next = nio_wait_next(op);
        if (counts(op)) {
            count++;
            continue;
        }
        (void)nio_wait_remove(&barrier->_waits, op); /* it is there */
        nio_wait_list_add(lost, op, -ECANCELED);
    }
    return count;
}

/* Under the lock: `op` arrives.  1 it is the last, all others are on the list; 0 it stands in the
 * queue; -ECANCELED its selection has been won by something else. */
static int32_t arrive(struct numio_barrier *barrier, struct numio_op *op,
                      struct nio_wait_list *ended)
{
    uint32_t others_needed = barrier->_parties - 1;
    if (barrier->_arrived == others_needed)
        barrier->_arrived = arrivals(barrier, nio_wait_may_claim, ended);
    if (barrier->_arrived == others_needed) {
        if (!nio_wait_claim(op))
            return -ECANCELED;
        barrier->_arrived = arrivals(barrier, nio_wait_claim, ended);
    }
    if (barrier->_arrived == others_needed) {
        nio_wait_take_all(&barrier->_waits, ended, 0);
        barrier->_arrived = 0;
        return 1;
    }
    nio_wait_push(&barrier->_waits, op);
    barrier->_arrived++;
    return 0;
}

static bool wait_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_barrier *barrier = nio_wait_object(op);
    struct nio_wait_list ended = { 0 };
    *ret_result = -EINVAL;
    if (barrier->_parties == 0) /* constant after init */
        return true;
    nio_wait_queue_acquire(&barrier->_waits);
    int32_t result = arrive(barrier, op, &ended);
    nio_wait_queue_release(&barrier->_waits);
    nio_wait_list_done(&ended);
    *ret_result = result;
    return result != 0;
}

static bool wait_leave(struct numio_op *op)
{
    struct numio_barrier *barrier = nio_wait_object(op);
    nio_wait_queue_acquire(&barrier->_waits);
    bool is_mine = nio_wait_remove(&barrier->_waits, op);
    barrier->_arrived -= is_mine;
    nio_wait_queue_release(&barrier->_waits);
    return is_mine;
}

/* What an aborted future has got, having passed, cannot be given back. */
static const struct nio_wait_class barrier_kind = { wait_begin, wait_leave, NULL };

int numio_barrier_init(struct numio_barrier *barrier, uint32_t parties)
{
    if (parties == 0)
        return nio_error(-EINVAL, "barrier: for no parties");
    *barrier = (struct numio_barrier)NUMIO_BARRIER_INIT(parties);
    return 0;
}

void numio_op_barrier_wait(struct numio_op *op, struct numio_barrier *barrier)
{
    nio_wait_prep(op, &barrier_kind, barrier, 0);
}

int numio_barrier_wait(struct numio_barrier *barrier)
{
    struct numio_op op;
    nio_charge();
    numio_op_barrier_wait(&op, barrier);
    int rc = nio_wait_await(&op);
    return rc == -EINVAL ? nio_error(rc, "barrier: used before numio_barrier_init()") : rc;
}
