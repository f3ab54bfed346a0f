/* SPDX-License-Identifier: MIT */
/* The oneshot: one word, and the value beside it.
 *
 *   EMPTY    nothing was sent, nobody waits
 *   a wait   nothing was sent, the receiver waits by this operation
 *   SENT     the value is there
 *   TAKEN    it was received
 *   GONE     the sender has closed
 *   REFUSED  the receiver has closed
 *   | WATCHED  with EMPTY or a wait: the sender waits for the receiver's close, by the operation in
 *              a second word, which the sender writes before it sets this
 *
 * There is no lock: whoever takes the wait out of the word, by a CAS, ends it.  The sender writes
 * the value before it changes the word, and touches nothing afterwards but a wait that it has taken
 * out, whose receiver keeps all of it until the end.  The value stays in the oneshot even if it was
 * copied to a waiting receiver: one that was aborted puts the word back to SENT.
 *
 * Who takes WATCHED from the word ends the sender's wait.  The receiver does so when it closes:
 * until the wait has ended the sender does not go on, and so keeps all of the oneshot.
 */
#include <numio/channel.h>

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/base/error.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

enum { EMPTY = 0, WATCHED = 1, SENT = 2, TAKEN = 4, GONE = 6, REFUSED = 8, WAIT_FROM = 16 };

static _Atomic uintptr_t *word_of(const struct numio_oneshot *oneshot)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uintptr_t *)(uintptr_t)&oneshot->_word;
}

static _Atomic uintptr_t *watch_of(const struct numio_oneshot *oneshot)
{
    return (_Atomic uintptr_t *)(uintptr_t)&oneshot->_watch; /* as above */
}

/* By the sender whose wait it was. */
static void forget_watch(struct numio_oneshot *oneshot)
{
    /* relaxed: a place for the next */
    atomic_store_explicit(watch_of(oneshot), 0, memory_order_relaxed);
}

static struct numio_op *wait_in(uintptr_t word)
{
    return word < WAIT_FROM ? NULL : (struct numio_op *)(word & ~(uintptr_t)WATCHED);
}

/* Whether nothing has come to an end yet. */
static bool is_open(uintptr_t word)
{
    return (word & ~(uintptr_t)WATCHED) == EMPTY || wait_in(word);
}

/* From `*word`, or, failing that, to it: what it is meanwhile. */
static bool change(struct numio_oneshot *oneshot, uintptr_t *word, uintptr_t next)
{
    /* [OS1] acq_rel: publishes the value, or the wait, and sees those of the other side.  Pairs
     * with itself and [OS2].  acquire on failure: the same. */
    return atomic_compare_exchange_strong_explicit(word_of(oneshot), word, next,
                                                   memory_order_acq_rel, memory_order_acquire);
}

static uintptr_t look(const struct numio_oneshot *oneshot)
{
    /* [OS2] acquire: sees the value.  Pairs with [OS1]. */
    return atomic_load_explicit(word_of(oneshot), memory_order_acquire);
}

/* ---- receiving ----------------------------------------------------------------------------- */

static NIO_ALWAYS_INLINE void copy(void *to, const void *from, size_t bytes)
{
    if (bytes == 8)
        memcpy(to, from, 8);
    else
        memcpy(to, from, bytes);
}

/* The value is there and the receiver, or who acts for it, takes it. */
static NIO_ALWAYS_INLINE int32_t take(struct numio_oneshot *oneshot, void *ret_value, size_t room)
{
    size_t bytes = oneshot->_bytes;
    if (NIO_UNLIKELY(bytes > room))
        return -EMSGSIZE;
    if (NIO_LIKELY(bytes > 0))
        copy(ret_value, oneshot->_value, bytes);
    /* relaxed: the sender looks at it for misuse only */
    atomic_store_explicit(word_of(oneshot), TAKEN, memory_order_relaxed);
    return (int32_t)bytes;
}

static int32_t take_for(struct numio_oneshot *oneshot, const struct numio_op *op)
{
    return take(oneshot, (void *)(uintptr_t)op->_sqe[NIO_WAIT_WORD_ARG],
                op->_sqe[NIO_WAIT_WORD_ARG2]);
}

static bool recv_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_oneshot *oneshot = nio_wait_object(op);
    uintptr_t word = look(oneshot);
    while (is_open(word) && !wait_in(word)) /* the sender begins to watch, or stops */
        if (change(oneshot, &word, (uintptr_t)op | word))
            return false;
    *ret_result = -ECANCELED;
    if (!nio_wait_claim(op))
        return true;
    *ret_result = word == SENT ? take_for(oneshot, op) : wait_in(word) ? -EBUSY : -EPIPE;
    return true;
}

static bool recv_leave(struct numio_op *op)
{
    struct numio_oneshot *oneshot = nio_wait_object(op);
    uintptr_t word = look(oneshot);
    while (wait_in(word) == op) /* as above */
        if (change(oneshot, &word, word & WATCHED))
            return true;
    return false;
}

static void recv_give_back(struct numio_op *op)
{
    struct numio_oneshot *oneshot = nio_wait_object(op);
    /* [OS1] release: as in change(), for who receives next */
    atomic_store_explicit(word_of(oneshot), SENT, memory_order_release);
}

static const struct nio_wait_class recv_kind = { recv_begin, recv_leave, recv_give_back };

void numio_op_oneshot_recv(struct numio_op *op, struct numio_oneshot *oneshot, void *ret_value,
                           size_t bytes)
{
    nio_wait_prep(op, &recv_kind, oneshot, (uintptr_t)ret_value);
    op->_sqe[NIO_WAIT_WORD_ARG2] = bytes;
}

static NIO_NOINLINE int64_t recv_slow(struct numio_oneshot *oneshot, void *ret_value, size_t bytes)
{
    struct numio_op op;
    numio_op_oneshot_recv(&op, oneshot, ret_value, bytes);
    int32_t rc = nio_wait_await(&op);
    if (rc == -EBUSY)
        return nio_error(rc, "oneshot: somebody else waits for the value");
    return rc;
}

int64_t numio_oneshot_recv(struct numio_oneshot *oneshot, void *ret_value, size_t bytes)
{
    nio_charge();
    if (NIO_LIKELY(look(oneshot) == SENT))
        return take(oneshot, ret_value, bytes);
    return recv_slow(oneshot, ret_value, bytes);
}

int64_t numio_oneshot_try_recv(struct numio_oneshot *oneshot, void *ret_value, size_t bytes)
{
    uintptr_t word = look(oneshot);
    if (word == SENT)
        return take(oneshot, ret_value, bytes);
    return is_open(word) ? -EAGAIN : -EPIPE;
}

/* The receiver has taken WATCHED from the word. */
static NIO_NOINLINE void end_watch(struct numio_oneshot *oneshot)
{
    /* relaxed: came with the word */
    uintptr_t watch = atomic_load_explicit(watch_of(oneshot), memory_order_relaxed);
    struct numio_op *op = (struct numio_op *)watch;
    nio_wait_done(op, nio_wait_claim(op) ? 0 : -ECANCELED);
}

void numio_oneshot_close_receiver(struct numio_oneshot *oneshot)
{
    uintptr_t word = EMPTY;
    do {
        if (!is_open(word) || wait_in(word))
            return;                             /* there is nothing to refuse any more */
    } while (!change(oneshot, &word, REFUSED)); /* the sender begins to watch, or stops */
    if (word & WATCHED)
        end_watch(oneshot);
}

/* ---- sending ------------------------------------------------------------------------------- */

/* The wait was taken out of the word, which says SENT, or GONE. */
static NIO_NOINLINE void end_wait(struct numio_oneshot *oneshot, struct numio_op *op, bool is_sent)
{
    int32_t result = -ECANCELED;
    if (nio_wait_claim(op))
        result = is_sent ? take_for(oneshot, op) : -EPIPE;
    nio_wait_done(op, result);
}

int numio_oneshot_send(struct numio_oneshot *oneshot, const void *value, size_t bytes)
{
    uintptr_t word = look(oneshot);
    if (NIO_UNLIKELY(bytes > NUMIO_ONESHOT_BYTES_MAX))
        return nio_error(-EMSGSIZE, "oneshot: a value of %zu bytes; up to %d are possible", bytes,
                         NUMIO_ONESHOT_BYTES_MAX);
    do {
        if (NIO_UNLIKELY(word == REFUSED))
            return -EPIPE;
        if (NIO_UNLIKELY(!is_open(word)))
            return nio_error(-EALREADY, "oneshot: a value was sent before, or the sender closed");
        if (NIO_UNLIKELY(word & WATCHED))
            return nio_error(-EBUSY, "oneshot: somebody waits for the receiver's close");
        oneshot->_bytes = (uint32_t)bytes;
        if (NIO_LIKELY(bytes > 0))
            copy(oneshot->_value, value, bytes);
    } while (NIO_UNLIKELY(!change(oneshot, &word, SENT))); /* the receiver came, or left */
    if (NIO_UNLIKELY(wait_in(word)))
        end_wait(oneshot, wait_in(word), true);
    return 0;
}

void numio_oneshot_close_sender(struct numio_oneshot *oneshot)
{
    uintptr_t word = look(oneshot);
    do {
        if (!is_open(word))
            return;
        NIO_ASSERT(!(word & WATCHED));       /* who waits for the close would find freed memory */
    } while (!change(oneshot, &word, GONE)); /* the receiver came, or left */
    if (wait_in(word))
        end_wait(oneshot, wait_in(word), false);
}

bool numio_oneshot_is_refused(const struct numio_oneshot *oneshot)
{
    return look(oneshot) == REFUSED;
}

static bool watch_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_oneshot *oneshot = nio_wait_object(op);
    uintptr_t word = look(oneshot), nobody = 0;
    /* relaxed: one of several gets it; the word publishes it [OS1] */
    bool is_mine = is_open(word) && atomic_compare_exchange_strong_explicit(
                                        watch_of(oneshot), &nobody, (uintptr_t)op,
                                        memory_order_relaxed, memory_order_relaxed);
    while (is_mine && is_open(word)) /* the receiver came, or left */
        if (change(oneshot, &word, word | WATCHED))
            return false;
    if (is_mine)
        forget_watch(oneshot);
    *ret_result = word == REFUSED ? 0 : is_open(word) ? -EBUSY : -EALREADY;
    if (!nio_wait_claim(op))
        *ret_result = -ECANCELED;
    return true;
}

static bool watch_leave(struct numio_op *op)
{
    struct numio_oneshot *oneshot = nio_wait_object(op);
    uintptr_t word = look(oneshot);
    while (is_open(word)) /* as above; WATCHED is this one's */
        if (change(oneshot, &word, word & ~(uintptr_t)WATCHED)) {
            forget_watch(oneshot);
            return true;
        }
    return false;
}

static const struct nio_wait_class watch_kind = { watch_begin, watch_leave, NULL };

void numio_op_oneshot_wait_refused(struct numio_op *op, struct numio_oneshot *oneshot)
{
    nio_wait_prep(op, &watch_kind, oneshot, 0);
}

int numio_oneshot_wait_refused(struct numio_oneshot *oneshot)
{
    struct numio_op op;
    nio_charge();
    numio_op_oneshot_wait_refused(&op, oneshot);
    int rc = nio_wait_await(&op);
    if (rc == -EBUSY)
        return nio_error(rc, "oneshot: somebody else waits for the receiver's close");
    if (rc == -EALREADY)
        return nio_error(rc, "oneshot: a value was sent, or the sender has closed");
    return rc;
}
