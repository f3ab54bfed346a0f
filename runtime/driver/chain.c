/* SPDX-License-Identifier: MIT */
/* Chains of operations that the driver keeps itself: under epoll, and where an SQ thread serves
 * several rings, which takes a few requests of each at a time and so cuts chains to pieces.
 *
 * The operations of a chain lie side by side in their batch.  The first is submitted; each that
 * ends begins the next, as the kernel does it: a failure breaks the chain (the rest ends with
 * -ECANCELED, also behind a hard link), unless its own link is a hard one.  A link timeout stands
 * in the wheel of the timers while the operation before it runs; whichever of the two is first ends
 * the other.
 *
 * All this is the owner's business.  A sibling that reaps such an operation stores its result,
 * pushes it to `handed` [DC1] and unparks the owner; only there it is done.  Its link is _next,
 * which a member of a batch has no other use for: the words of the image may still name it to a
 * cancel.
 */
#include <errno.h>
#include <stddef.h>

#include "runtime/driver/driver_impl.h"
#include "runtime/task/op_done.h"

static bool has_link(const struct numio_op *op)
{
    return (op->_flags & (NIO_OP_KEPT_LINK | NIO_OP_KEPT_HARDLINK)) != 0;
}

/* Of an operation that has a link. */
static struct numio_op *timeout_of(struct numio_op *op)
{
    return has_link(op) && nio_op_is_link_timeout(op + 1) ? op + 1 : NULL;
}

static void begin(struct nio_driver *driver, struct numio_op *op)
{
    struct numio_op *timeout = timeout_of(op);
    op->_place = NIO_OP_PLACE_RING;
    nio_driver_submit(driver, op);
    if (timeout) {
        timeout->_place = NIO_OP_PLACE_TIMER;
        nio_driver_add_timer(driver, timeout);
    }
}

void nio_chain_begin(struct nio_driver *driver, struct numio_op *ops, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        ops[i]._flags |= ops[i]._sqe[0] & NIO_OP_LINK ? NIO_OP_KEPT_LINK : 0;
        ops[i]._flags |= ops[i]._sqe[0] & NIO_OP_HARDLINK ? NIO_OP_KEPT_HARDLINK : 0;
        ops[i]._sqe[0] &= ~NIO_OP_RELATIONS;
        ops[i]._place = NIO_OP_PLACE_LINKED;
        if (has_link(&ops[i]) && !nio_op_is_link_timeout(&ops[i]))
            ops[i]._state = NIO_OP_LINKED;
    }
    begin(driver, ops);
}

/* `op` has ended with op->_result. */
static void go_on(struct nio_driver *driver, struct numio_op *op)
{
    bool is_severed = (op->_flags & NIO_OP_SEVERED) != 0 ||
                      (!(op->_flags & NIO_OP_KEPT_HARDLINK) && nio_op_has_failed(op, op->_result));
    struct numio_op *timeout = timeout_of(op);
    struct numio_op *next = op + 1;
    if (timeout) {
        bool is_armed =
            timeout->_place == NIO_OP_PLACE_TIMER && nio_wheel_cancel(&driver->wheel, timeout);
        if (is_armed || timeout->_place == NIO_OP_PLACE_LINKED ||
            timeout->_place == NIO_OP_PLACE_LINKED_CANCELLED)
            nio_driver_end(driver, timeout, -ECANCELED); /* else it has struck */
        if (!has_link(timeout))
            return;
        next = timeout + 1;
    }
    if (is_severed)
        next->_flags |= NIO_OP_SEVERED;
    if (is_severed || next->_place == NIO_OP_PLACE_LINKED_CANCELLED)
        nio_driver_end(driver, next, -ECANCELED);
    else
        begin(driver, next);
}

void nio_chain_end_op(struct nio_driver *driver, struct numio_op *op, int32_t result, bool is_owner)
{
    op->_result = result;
    if (is_owner) {
        go_on(driver, op);
        nio_op_done(op, result); /* the batch may be gone from here on */
        return;
    }
    /* relaxed: only linked to, not looked through */
    struct numio_op *head = atomic_load_explicit(&driver->handed, memory_order_relaxed);
    do {
        op->_next = head;
        /* [DC1] release: publishes the result and the link.  relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(&driver->handed, &head, op,
                                                    memory_order_release, memory_order_relaxed));
    nio_driver_unpark(driver);
}

unsigned nio_chain_take_handed(struct nio_driver *driver)
{
    unsigned done = 0;
    /* relaxed: what is seen late is taken the next time */
    if (NIO_LIKELY(!atomic_load_explicit(&driver->handed, memory_order_relaxed)))
        return 0;
    /* [DC1] acquire: sees the results. */
    struct numio_op *op = atomic_exchange_explicit(&driver->handed, NULL, memory_order_acquire);
    while (op) {
        struct numio_op *next = op->_next;
        go_on(driver, op);
        nio_op_done(op, op->_result); /* the batch may be gone from here on */
        done++;
        op = next;
    }
    return done;
}

void nio_chain_strike(struct nio_driver *driver, struct numio_op *timeout)
{
    nio_driver_cancel(driver, timeout - 1); /* unless that has just ended */
    nio_driver_end(driver, timeout, -ETIME);
}
