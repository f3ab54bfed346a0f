/* SPDX-License-Identifier: MIT */
/* The watch: a value with a version, a lock, a queue of receivers.
 *
 * `version` has the number of the value, from 1 on, above the bit CLOSED; it is written under the
 * lock, with the value, and read without it by who only asks whether there is something new.  A
 * receiver has the number of the value that it has seen, 0 for none.  All receivers that wait have
 * seen the value, so a new one ends all waits, and they have seen it then: they are told once of
 * what was sent while they ran.  An aborted future has seen nothing.
 *
 * The lock is a leaf; the user's functions are called under it, which is why they are to be short.
 */
#include <numio/channel.h>

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

#define CLOSED UINT64_C(1)
enum { NUMBER_SHIFT = 1, FIRST_NUMBER = 1 };

struct numio_watch {
    size_t value_bytes; /* constant */
    struct numio_wait_queue_ waits;
    _Atomic uint64_t version; /* written under the lock */
    NIO_CACHE_ALIGNED unsigned char value[];
};

int numio_watch_create(size_t value_bytes, const void *value, struct numio_watch **ret_watch)
{
    if (value_bytes == 0 || value_bytes > NUMIO_MESSAGE_BYTES_MAX)
        return nio_error(-EINVAL, "watch: a value of %zu bytes; 1 to %d are possible", value_bytes,
                         NUMIO_MESSAGE_BYTES_MAX);
    struct numio_watch *watch = nio_zalloc(sizeof *watch + value_bytes);
    if (!watch)
        return -ENOMEM;
    watch->value_bytes = value_bytes;
    atomic_init(&watch->version, (uint64_t)FIRST_NUMBER << NUMBER_SHIFT);
    memcpy(watch->value, value, value_bytes);
    *ret_watch = watch;
    return 0;
}

void numio_watch_destroy(struct numio_watch *watch)
{
    if (!watch)
        return;
    NIO_ASSERT(!watch->waits._first);
    nio_free(watch);
}

static void lock(struct numio_watch *watch)
{
    nio_wait_queue_acquire(&watch->waits);
}

static void unlock(struct numio_watch *watch)
{
    nio_wait_queue_release(&watch->waits);
}

static uint64_t version_of(const struct numio_watch *watch)
{
    /* relaxed: a number; the value is read under the lock, which orders it */
    return atomic_load_explicit(&watch->version, memory_order_relaxed);
}

static uint64_t number_of(const struct numio_watch *watch)
{
    return version_of(watch) >> NUMBER_SHIFT;
}

static bool is_closed(const struct numio_watch *watch)
{
    return version_of(watch) & CLOSED;
}

/* ---- receivers ----------------------------------------------------------------------------- */

void numio_watch_subscribe(struct numio_watch *watch, struct numio_watch_receiver *ret_receiver)
{
    *ret_receiver = (struct numio_watch_receiver){ watch, number_of(watch) };
}

void numio_watch_read(struct numio_watch *watch, void *ret_value)
{
    lock(watch);
    memcpy(ret_value, watch->value, watch->value_bytes);
    unlock(watch);
}

void numio_watch_take(struct numio_watch_receiver *receiver, void *ret_value)
{
    struct numio_watch *watch = receiver->_watch;
    lock(watch);
    memcpy(ret_value, watch->value, watch->value_bytes);
    receiver->_seen = number_of(watch);
    unlock(watch);
}

void numio_watch_borrow(struct numio_watch_receiver *receiver,
                        void (*look)(const void *value, void *arg), void *arg)
{
    struct numio_watch *watch = receiver->_watch;
    lock(watch);
    look(watch->value, arg);
    receiver->_seen = number_of(watch);
    unlock(watch);
}

int numio_watch_has_changed(const struct numio_watch_receiver *receiver)
{
    uint64_t version = version_of(receiver->_watch);
    if (version >> NUMBER_SHIFT != receiver->_seen)
        return 1;
    return version & CLOSED ? -EPIPE : 0;
}

void numio_watch_mark_changed(struct numio_watch_receiver *receiver)
{
    receiver->_seen = 0;
}

static struct numio_watch_receiver *receiver_of(const struct numio_op *op)
{
    return nio_wait_object(op);
}

static bool changed_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_watch_receiver *receiver = receiver_of(op);
    struct numio_watch *watch = receiver->_watch;
    lock(watch);
    int rc = numio_watch_has_changed(receiver);
    bool must_wait = rc == 0;
    if (must_wait)
        nio_wait_push(&watch->waits, op);
    else if (!nio_wait_claim(op))
        rc = -ECANCELED;
    if (rc == 1)
        receiver->_seen = number_of(watch);
    unlock(watch);
    *ret_result = rc == 1 ? 0 : rc;
    return !must_wait;
}

static bool changed_leave(struct numio_op *op)
{
    struct numio_watch *watch = receiver_of(op)->_watch;
    lock(watch);
    bool is_mine = nio_wait_remove(&watch->waits, op);
    unlock(watch);
    return is_mine;
}

static void changed_give_back(struct numio_op *op)
{
    numio_watch_mark_changed(receiver_of(op)); /* the receiver is nobody else's */
}

static const struct nio_wait_class changed_kind = { changed_begin, changed_leave,
                                                    changed_give_back };

void numio_op_watch_changed(struct numio_op *op, struct numio_watch_receiver *receiver)
{
    nio_wait_prep(op, &changed_kind, receiver, 0);
}

int numio_watch_changed(struct numio_watch_receiver *receiver)
{
    struct numio_op op;
    nio_charge();
    numio_op_watch_changed(&op, receiver);
    return nio_wait_await(&op);
}

/* ---- senders ------------------------------------------------------------------------------- */

/* Under the lock: the value is a new one. */
static void tell(struct numio_watch *watch, struct nio_wait_list *ended)
{
    uint64_t number = number_of(watch) + 1;
    /* relaxed: as in version_of() */
    atomic_store_explicit(&watch->version, number << NUMBER_SHIFT, memory_order_relaxed);
    nio_wait_take_all(&watch->waits, ended, 0);
    for (struct numio_op *op = ended->first; op; op = nio_wait_next(op))
        if (op->_result == 0) /* else a selection has lost */
            receiver_of(op)->_seen = number;
}

int numio_watch_send_if_modified(struct numio_watch *watch, bool (*modify)(void *value, void *arg),
                                 void *arg)
{
    struct nio_wait_list ended = { 0 };
    int rc = -EPIPE;
    lock(watch);
    if (!is_closed(watch)) {
        rc = modify(watch->value, arg);
        if (rc)
            tell(watch, &ended);
    }
    unlock(watch);
    nio_wait_list_done(&ended);
    return rc;
}

int numio_watch_send(struct numio_watch *watch, const void *value)
{
    struct nio_wait_list ended = { 0 };
    int rc = -EPIPE;
    lock(watch);
    if (!is_closed(watch)) {
        memcpy(watch->value, value, watch->value_bytes);
        tell(watch, &ended);
        rc = 0;
    }
    unlock(watch);
    nio_wait_list_done(&ended);
    return rc;
}

void numio_watch_close(struct numio_watch *watch)
{
    struct nio_wait_list ended = { 0 };
    lock(watch);
    /* relaxed: as in version_of() */
    atomic_store_explicit(&watch->version, version_of(watch) | CLOSED, memory_order_relaxed);
    nio_wait_take_all(&watch->waits, &ended, -EPIPE);
    unlock(watch);
    nio_wait_list_done(&ended);
}
