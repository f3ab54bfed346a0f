/* SPDX-License-Identifier: MIT */
/* Cancelling on a ring.
 *
 * IORING_OP_ASYNC_CANCEL looks for a request by its user_data at one moment.  It may miss one that
 * is alive: a request on its way from the poll queue to a thread of io-wq is in neither place
 * (-ENOENT), and a thread that has just not begun to block does not notice the signal that is sent
 * to it (-EALREADY).  Seen on Linux 6.1 with reads of pipes.  So a cancel that ended like this is
 * tried again: after -EALREADY until the request has ended, after -ENOENT, which usually means
 * that it has ended already, a few times.
 *
 * The operation may be gone by then and its memory in use for another one.  Therefore its name is
 * not its address alone but has twelve bits of the number of its submission, and a late cancel
 * finds nothing: to hit a wrong operation it must be at the same address and a multiple of 4096
 * submissions later.  The name is kept in the user_data of the cancel, with the number of tries,
 * so nothing has to be looked up when the cancel ends; no pointer is followed.
 */
#include <errno.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "runtime/driver/uring.h"

enum {
    TRIES_AFTER_ENOENT = 3,
    TRIES_MAX = 7,     /* the delay doubles no further, and the count fits its four bits */
    MISSED_FIRST = 16, /* the table of missed cancels grows from here by doubling */
    ROOM_WAIT_NS = 1000000,
    ROOM_ROUNDS = 16, /* then a cancel without room waits in the table */
    REAP_AT_A_TIME = 64
};
static const uint64_t first_delay_ns = 1000000;

unsigned nio_uring_cancels_in_flight(const struct nio_uring *uring)
{
    /* relaxed: a stale value only delays */
    return (unsigned)(uring->cancels -
                      atomic_load_explicit(&uring->cancels_done, memory_order_relaxed));
}

static bool has_room(const struct nio_uring *uring)
{
    return nio_uring_cancels_in_flight(uring) < uring->cancels_max && nio_uring_sq_room(uring) > 0;
}

/* Cancels have few CQ entries of their own and end as soon as the kernel looks at them, so
 * running out of them, or of SQ room, means: let the kernel look, and reap.  False: there is still
 * none, because the SQ thread does not get the CPU, or has ended. */
static bool make_room(struct nio_uring *uring)
{
    for (unsigned i = 0; i < ROOM_ROUNDS && !has_room(uring); i++) {
        if (nio_uring_is_dead(uring))
            return false;
        nio_uring_wait_for_room(uring);
        if (nio_uring_reap(&uring->base, REAP_AT_A_TIME) == 0 && uring->is_sqpoll &&
            nio_uring_cancels_in_flight(uring) >= uring->cancels_max)
            (void)nio_uring_enter(uring, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP,
                                  ROOM_WAIT_NS); /* then look again */
    }
    return has_room(uring);
}

/* `name` is the operation's user_data. */
static void push_cancel(struct nio_uring *uring, uint64_t name, uint64_t tries)
{
    struct io_uring_sqe *sqe = nio_uring_next_sqe(uring);
    memset(sqe, 0, sizeof *sqe);
    io_uring_prep_cancel64(sqe, name, 0);
    sqe->user_data = name | tries << NIO_NAME_TRIES_SHIFT | NIO_TAG_CANCEL;
    uring->cancels++;
}

/* ---- trying again ------------------------------------------------------------------------- */

static uint64_t tries_of(uint64_t user_data)
{
    return user_data >> NIO_NAME_TRIES_SHIFT;
}

static uint64_t name_of(uint64_t user_data)
{
    uint64_t rest = NIO_NAME_ADDRESS_MASK | NIO_NAME_NUMBER_MASK << NIO_NAME_NUMBER_SHIFT;
    return (user_data & (rest | NIO_TAG_STREAM)) | NIO_TAG_OP;
}

static void set_next_due(struct nio_uring *uring)
{
    uint64_t next_ns = NIO_TIME_NONE;
    for (unsigned i = 0; i < uring->missed_count; i++)
        if (uring->missed[i].due_ns < next_ns)
            next_ns = uring->missed[i].due_ns;
    /* relaxed: a hint for other threads */
    atomic_store_explicit(&uring->missed_ns, next_ns, memory_order_relaxed);
}

static bool grow(struct nio_uring *uring)
{
    unsigned room = uring->missed_room ? uring->missed_room * 2 : MISSED_FIRST;
    struct nio_uring_missed *missed = nio_zalloc_array(room, sizeof *missed);
    if (!missed)
        return false;
    if (uring->missed_count)
        memcpy(missed, uring->missed, uring->missed_count * sizeof *missed);
    nio_free(uring->missed);
    uring->missed = missed;
    uring->missed_room = room;
    return true;
}

/* False: there is no memory. */
static bool try_later(struct nio_uring *uring, uint64_t name, uint64_t tries, uint64_t delay_ns)
{
    if (uring->missed_count == uring->missed_room && !grow(uring))
        return false;
    struct nio_uring_missed *missed = &uring->missed[uring->missed_count++];
    missed->user_data = name | tries << NIO_NAME_TRIES_SHIFT;
    missed->due_ns = nio_now_ns() + delay_ns;
    set_next_due(uring);
    return true;
}

void nio_uring_cancel_missed(struct nio_uring *uring, uint64_t user_data, int32_t result)
{
    uint64_t tries = tries_of(user_data) + 1;
    if ((result == -ENOENT && tries > TRIES_AFTER_ENOENT) || nio_uring_is_dead(uring))
        return;
    if (tries > TRIES_MAX)
        tries = TRIES_MAX;
    /* Without memory the operation ends when it ends. */
    (void)try_later(uring, name_of(user_data), tries, first_delay_ns << (tries - 1));
}

void nio_uring_cancel(struct nio_driver *driver, struct numio_op *op)
{
    struct nio_uring *uring = nio_uring_of(driver);
    if (op->_place == NIO_OP_PLACE_QUEUED) {
        op->_place = NIO_OP_PLACE_QUEUED_CANCELLED;
        uring->queued_cancelled++;
        driver->flush_wanted = true;
        return;
    }
    if (op->_place != NIO_OP_PLACE_RING)
        return; /* asked before */
    op->_place = NIO_OP_PLACE_CANCEL_SENT;
    uint64_t name = nio_op_name(op);
    if (name == 0)
        return; /* it has ended */
    /* What waits for its time already waits for room, too, as a rule: it is no use to wait again.
     */
    if (!has_room(uring) && uring->missed_count > 0 && try_later(uring, name, 0, first_delay_ns))
        return;
    while (!make_room(uring)) /* may complete `op` */
        if (nio_uring_is_dead(uring) || try_later(uring, name, 0, first_delay_ns))
            return;
    push_cancel(uring, name, 0);
}

void nio_uring_cancel_named(struct nio_uring *uring, uint64_t name)
{
    if (has_room(uring))
        push_cancel(uring, name, 0);
    else
        (void)try_later(uring, name, 0, first_delay_ns); /* without memory: at the next */
}

void nio_uring_cancel_forget(struct nio_uring *uring)
{
    uring->missed_count = 0;
    set_next_due(uring);
}

bool nio_uring_cancel_is_due(const struct nio_uring *uring)
{
    /* relaxed: a hint for other threads, the owner sees its own store */
    uint64_t next_ns = atomic_load_explicit(&uring->missed_ns, memory_order_relaxed);
    return next_ns != NIO_TIME_NONE && nio_now_ns() >= next_ns;
}

void nio_uring_cancel_again(struct nio_uring *uring)
{
    if (NIO_LIKELY(uring->missed_count == 0) || !nio_uring_cancel_is_due(uring))
        return;
    uint64_t now_ns = nio_now_ns();
    unsigned kept = 0;
    for (unsigned i = 0; i < uring->missed_count; i++) {
        struct nio_uring_missed missed = uring->missed[i];
        if (missed.due_ns <= now_ns && has_room(uring)) {
            push_cancel(uring, name_of(missed.user_data), tries_of(missed.user_data));
            continue;
        }
        if (missed.due_ns <= now_ns)
            missed.due_ns = now_ns + first_delay_ns; /* nothing to be done before */
        uring->missed[kept++] = missed;
    }
    uring->missed_count = kept;
    set_next_due(uring);
}

int64_t nio_uring_cancel_limit(const struct nio_uring *uring, int64_t limit_ns)
{
    if (NIO_LIKELY(uring->missed_count == 0))
        return limit_ns;
    /* relaxed: the owner's own store */
    uint64_t next_ns = atomic_load_explicit(&uring->missed_ns, memory_order_relaxed);
    uint64_t now_ns = nio_now_ns();
    int64_t left_ns = next_ns > now_ns ? (int64_t)(next_ns - now_ns) : 0;
    return limit_ns < 0 || left_ns < limit_ns ? left_ns : limit_ns;
}
