/* SPDX-License-Identifier: MIT */
/* numio/deadline.h: a limit in time for everything that a coroutine awaits.
 *
 * A scope begins with numio_deadline_push() and ends with numio_deadline_pop().  When its time has
 * passed, the call that the coroutine awaits is cancelled in the kernel and returns -ETIMEDOUT once
 * nothing of it is in flight; calls that follow within the scope return -ETIMEDOUT at once.  What
 * had ended by then keeps its result: nothing that arrived is lost.  Scopes nest, and an inner one
 * never outlasts its outer.
 *
 *     struct numio_deadline deadline;
 *     int rc = numio_deadline_push(&deadline, 5000000000);
 *     ...
 *     int64_t n = numio_recv_all(fd, request, sizeof request, 0);  // -ETIMEDOUT after five seconds
 *     ...
 *     numio_deadline_pop(&deadline);
 *
 * It holds for waits of <numio/wait.h>, for every call of <numio/io.h> but numio_close(), for
 * numio_join_await() (the join handle is kept), numio_yield_now() and numio_block_in_place(), which
 * does not begin any more, but waits for a function that has begun.  A plain thread may have
 * scopes, too; they limit its waits of <numio/wait.h>.  A read or write that the kernel cannot
 * cancel, such as one of a disk, ends when it ends.  An abort comes first: -ECANCELED.  Futures
 * have numio_op_timeout().
 *
 * A scope costs one timer, whatever the number of calls in it; nothing is allocated.
 */
#ifndef NUMIO_DEADLINE_H
#define NUMIO_DEADLINE_H

#include <numio/op.h>

NUMIO_BEGIN_DECLS

/* All fields are private; on the coroutine's stack or in other memory of its own. */
struct numio_deadline {
    struct numio_op _timer; /* its worker's until it has struck or was taken back */
    struct numio_deadline *_outer;
    uint64_t _at_ns;
};

/* Begins a scope that ends, at the latest, `timeout_ns` from now; 0: it has ended.
 * Context: a coroutine or a plain thread; never suspends.
 * Owns:    `deadline` belongs to the runtime until it is popped, which must happen before its
 *          memory goes and before the coroutine returns: else the process is ended with a message.
 * Errors:  -EINVAL on a worker outside of a coroutine. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_deadline_push(struct numio_deadline *deadline,
                                                     uint64_t timeout_ns);

/* Ends the innermost scope.
 * Context: the coroutine or thread that pushed it, also when it was aborted; suspends only if
 * another
 *          worker is just about to end what it waits for, since its time has passed.
 * Returns: 0; -ETIMEDOUT its time has passed.
 * Errors:  -EINVAL it is not the innermost scope of the caller. */
NUMIO_EXPORT int numio_deadline_pop(struct numio_deadline *deadline);

/* The same for who need not be told whether the time has passed, as after a single call whose
 * result has told it; it spares a look at the clock, a third of what a scope costs.
 * Returns: 0.
 * Context, Errors: as above. */
NUMIO_EXPORT int numio_deadline_end(struct numio_deadline *deadline);

/* One call within a limit of its own: a scope around `expression`, whose value, an int64_t, it has:
 *
 *     int64_t n = numio_within(250000000, numio_recv(fd, buf, sizeof buf, 0));
 *
 * `expression` must not leave the scope by return, break or goto.   Context: a coroutine or a plain
 * thread.
 * Returns: what the expression gives, -ETIMEDOUT as in every scope; -EINVAL on a worker outside of
 * a
 *          coroutine. */
#define numio_within(timeout_ns, expression)                                                       \
    NUMIO_WITHIN_COUNTED_(__COUNTER__, timeout_ns, expression)
#define NUMIO_WITHIN_COUNTED_(number, timeout_ns, expression)                                      \
    NUMIO_WITHIN_(number, timeout_ns, expression)
/* Numbered names, so that one may stand inside of another. */
#define NUMIO_WITHIN_(number, timeout_ns, expression)                                              \
    (__extension__({                                                                               \
        struct numio_deadline numio_deadline_##number##_;                                          \
        int64_t numio_result_##number##_ =                                                         \
            numio_deadline_push(&numio_deadline_##number##_, timeout_ns);                          \
        if (numio_result_##number##_ == 0) {                                                       \
            numio_result_##number##_ = (expression);                                               \
            (void)numio_deadline_end(&numio_deadline_##number##_); /* it is the innermost */       \
        }                                                                                          \
        numio_result_##number##_;                                                                  \
    }))

/* Nanoseconds until the innermost scope ends, 0 if it has; INT64_MAX without one.
 * Context: a coroutine or a plain thread, else INT64_MAX; never suspends. */
NUMIO_EXPORT int64_t numio_deadline_left(void);

NUMIO_END_DECLS

#endif
