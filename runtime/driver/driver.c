/* SPDX-License-Identifier: MIT */
/* The part of a driver that all profiles share, and the branch to the profile.  A branch and not
 * a table of functions: a runtime uses one profile, and the processor predicts it.
 */
#include "runtime/driver/driver.h"

#include <errno.h>
#include <liburing.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/futex.h"
#include "runtime/base/mem.h"
#include "runtime/driver/driver_impl.h"
#include "runtime/driver/polled.h"
#include "runtime/task/op_done.h"

static const uint64_t ns_per_s = 1000000000;

int nio_driver_base_init(struct nio_driver *driver, const struct nio_driver_options *options)
{
    driver->profile = options->profile;
    driver->timeline = options->timeline ? options->timeline : &nio_timeline_real;
    driver->park_until_ns = NIO_TIME_NONE;
    atomic_init(&driver->wake, NIO_DRIVER_AWAKE);
    driver->wake_fd = -1;
    int rc = nio_wheel_init(&driver->wheel);
    if (rc < 0)
        return rc;
    if (nio_fault_now())
        return nio_error(-ENOMEM, "eventfd: no memory");
    driver->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (driver->wake_fd >= 0)
        return 0;
    int error = -errno;
    struct rlimit files = { 0 };
    (void)getrlimit(RLIMIT_NOFILE, &files); /* only a number for the sentence */
    return nio_error(error, "eventfd: %s; RLIMIT_NOFILE is %llu (ulimit -n)",
                     strerrordesc_np(-error), (unsigned long long)files.rlim_cur);
}

void nio_driver_base_fini(struct nio_driver *driver)
{
    nio_buf_group_destroy(driver->buffers);
    nio_wheel_fini(&driver->wheel);
    if (driver->wake_fd >= 0)
        (void)close(driver->wake_fd); /* nothing to do if it fails */
    driver->wake_fd = -1;
}

void nio_driver_add_reason(struct nio_driver *driver, const char *format, ...)
{
    size_t used = strlen(driver->reason);
    if (used && used + 2 < sizeof driver->reason) {
        memcpy(driver->reason + used, "; ", 3);
        used += 2;
    }
    va_list args;
    va_start(args, format);
    /* cut at the buffer's end */
    (void)vsnprintf(driver->reason + used, sizeof driver->reason - used, format, args);
    va_end(args);
}

int nio_driver_create(const struct nio_driver_options *options, struct nio_driver **ret_driver)
{
    switch (options->profile) {
    case NUMIO_DRIVER_SQPOLL:
    case NUMIO_DRIVER_DEFER:
    case NUMIO_DRIVER_IOPOLL:
        return nio_uring_create(options, ret_driver);
    case NUMIO_DRIVER_EPOLL:
        return nio_epoll_create(options, ret_driver);
    case NUMIO_DRIVER_AUTO:
        break;
    }
    return nio_error(-EINVAL, "driver profile %d cannot be created", (int)options->profile);
}

unsigned nio_driver_napi_us(const struct nio_driver *driver)
{
    return driver->napi_us;
}

static bool is_epoll(const struct nio_driver *driver)
{
    return NIO_UNLIKELY(driver->profile == NUMIO_DRIVER_EPOLL);
}

const char *nio_driver_reason(const struct nio_driver *driver)
{
    return driver->reason[0] ? driver->reason : NULL;
}

void nio_driver_abandon(struct nio_driver *driver)
{
    driver->is_abandoned = true;
}

void nio_driver_destroy(struct nio_driver *driver)
{
    if (!driver)
        return;
    NIO_ASSERT(driver->is_abandoned || nio_driver_in_flight(driver) == 0);
    if (is_epoll(driver))
        nio_epoll_destroy(driver);
    else
        nio_uring_destroy(driver);
}

bool nio_driver_has_ring(const struct nio_driver *driver)
{
    return driver->profile != NUMIO_DRIVER_EPOLL;
}

int nio_driver_ring_fd(const struct nio_driver *driver)
{
    return is_epoll(driver) ? -1 : nio_uring_fd(driver);
}

enum numio_driver nio_driver_profile(const struct nio_driver *driver)
{
    return driver->profile;
}

void nio_driver_add_timer(struct nio_driver *driver, struct numio_op *op)
{
    uint64_t now_ns = nio_timeline_now_ns(driver->timeline);
    uint64_t deadline_ns;
    if (op->_time[1] == NIO_OP_TIME_IS_POINT)
        deadline_ns = (uint64_t)op->_time[0];
    else if (__builtin_mul_overflow((uint64_t)op->_time[0], ns_per_s, &deadline_ns) ||
             __builtin_add_overflow(deadline_ns, (uint64_t)op->_time[1], &deadline_ns) ||
             __builtin_add_overflow(deadline_ns, now_ns, &deadline_ns))
        deadline_ns = NIO_TIME_FAR;
    nio_driver_arm(driver, op, deadline_ns, now_ns);
}

void nio_driver_arm(struct nio_driver *driver, struct numio_op *op, uint64_t deadline_ns,
                    uint64_t now_ns)
{
    op->_driver = driver;
    op->_place = NIO_OP_PLACE_TIMER;
    if (deadline_ns > NIO_TIME_FAR)
        deadline_ns = NIO_TIME_FAR;
    (void)nio_wheel_arm(&driver->wheel, op, deadline_ns, now_ns); /* the owner is awake */
}

void nio_driver_submit(struct nio_driver *driver, struct numio_op *op)
{
    op->_driver = driver;
    if (op->_place == NIO_OP_PLACE_TIMER)
        nio_driver_add_timer(driver, op);
    else if (is_epoll(driver))
        nio_epoll_submit(driver, op);
    else if (NIO_UNLIKELY(driver->polled) && nio_polled_takes(driver->polled, op))
        nio_polled_submit(driver, op);
    else
        nio_uring_submit(driver, op);
}

void nio_driver_submit_chain(struct nio_driver *driver, struct numio_op *ops, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ops[i]._driver = driver;
    if (driver->keeps_chains)
        nio_chain_begin(driver, ops, count);
    else
        nio_uring_submit_chain(driver, ops, count);
}

unsigned nio_driver_chain_max(const struct nio_driver *driver)
{
    return driver->keeps_chains ? UINT_MAX : nio_uring_chain_max(driver);
}

void nio_driver_cancel(struct nio_driver *driver, struct numio_op *op)
{
    NIO_DEBUG_ASSERT(op->_driver == driver);
    if (op->_place == NIO_OP_PLACE_TIMER) {
        if (nio_wheel_cancel(&driver->wheel, op))
            nio_driver_end(driver, op, -ECANCELED);
    } else if (NIO_UNLIKELY(op->_place == NIO_OP_PLACE_LINKED)) {
        op->_place = NIO_OP_PLACE_LINKED_CANCELLED; /* ends when the one before it has */
    } else if (is_epoll(driver)) {
        nio_epoll_cancel(driver, op);
    } else if (op->_place == NIO_OP_PLACE_POLLED) {
        nio_polled_cancel(op);
    } else {
        nio_uring_cancel(driver, op);
    }
}

bool nio_driver_take_timer(struct nio_driver *driver, struct numio_op *op)
{
    return nio_wheel_cancel(&driver->wheel, op);
}

void nio_driver_settle_timers(struct nio_driver *driver)
{
    (void)nio_wheel_settle(&driver->wheel, nio_timeline_now_ns(driver->timeline)); /* stored, too */
}

uint64_t nio_driver_next_timer_ns(const struct nio_driver *driver)
{
    return nio_wheel_next_ns(&driver->wheel);
}

void nio_driver_flush(struct nio_driver *driver)
{
    if (!is_epoll(driver)) /* the epoll profile tries at once and keeps nothing back */
        nio_uring_flush(driver);
}

bool nio_driver_needs_flush(const struct nio_driver *driver)
{
    return driver->flush_wanted;
}

bool nio_driver_is_eager(const struct nio_driver *driver)
{
    return driver->flush_wanted && driver->is_eager;
}

static bool has_due_timer(const struct nio_driver *driver)
{
    uint64_t next_ns = nio_wheel_next_ns(&driver->wheel);
    return next_ns != NIO_TIME_NONE && nio_timeline_now_ns(driver->timeline) >= next_ns;
}

static bool has_ended(const struct nio_driver *driver)
{
    /* relaxed: hints; the owner sees its own store, and is unparked for what is handed over */
    return atomic_load_explicit(&driver->has_ended, memory_order_relaxed) ||
           atomic_load_explicit(&driver->handed, memory_order_relaxed) || has_due_timer(driver);
}

bool nio_driver_has_completions(const struct nio_driver *driver)
{
    if (has_ended(driver))
        return true;
    return is_epoll(driver) ? nio_epoll_has_completions(driver) : nio_uring_has_completions(driver);
}

bool nio_driver_is_busy(const struct nio_driver *driver)
{
    return has_ended(driver) || (!is_epoll(driver) && nio_uring_is_busy(driver));
}

bool nio_driver_wants_reap(const struct nio_driver *driver)
{
    return nio_driver_has_completions(driver) ||
           (NIO_UNLIKELY(driver->polled) && nio_polled_in_flight(driver->polled) > 0);
}

unsigned nio_driver_reap(struct nio_driver *driver, unsigned max)
{
    if (is_epoll(driver))
        return nio_epoll_reap(driver, max);
    unsigned done = 0;
    if (NIO_UNLIKELY(driver->polled) && nio_polled_in_flight(driver->polled) > 0)
        done = nio_polled_reap(driver, (max + 1) / 2); /* neither ring can starve the other */
    return done < max ? done + nio_uring_reap(driver, max - done) : done;
}

unsigned nio_driver_reap_for(struct nio_driver *driver, unsigned max)
{
    /* Readiness is the owner's: the table of waiting operations has no lock. */
    return is_epoll(driver) ? 0 : nio_uring_reap_for(driver, max);
}

unsigned nio_driver_in_kernel(const struct nio_driver *driver)
{
    unsigned polled = NIO_UNLIKELY(driver->polled) ? nio_polled_in_flight(driver->polled) : 0;
    return polled + (is_epoll(driver) ? nio_epoll_in_flight(driver) : nio_uring_in_flight(driver));
}

unsigned nio_driver_in_flight(const struct nio_driver *driver)
{
    return driver->ended.count + nio_wheel_count(&driver->wheel) + nio_driver_in_kernel(driver);
}

static void set_has_ended(struct nio_driver *driver)
{
    /* relaxed: a hint for other threads */
    atomic_store_explicit(&driver->has_ended, driver->ended.head != NULL, memory_order_relaxed);
}

void nio_driver_end(struct nio_driver *driver, struct numio_op *op, int32_t result)
{
    op->_result = result;
    if (op->_place != NIO_OP_PLACE_TIMER)
        op->_place = NIO_OP_PLACE_ENDED;
    nio_op_queue_push(&driver->ended, op);
    set_has_ended(driver);
}

static void strike(struct numio_op *timer)
{
    nio_driver_dawdle();
    nio_op_strike(timer);
}

unsigned nio_driver_reap_local(struct nio_driver *driver, unsigned max)
{
    unsigned done = nio_chain_take_handed(driver);
    if (NIO_UNLIKELY(done >= max))
        return max; /* what there is more of waits for the next reap */
    while (done < max && driver->ended.head) {
        struct numio_op *op = nio_op_queue_pop(&driver->ended);
        set_has_ended(driver);
        nio_driver_count_result(&driver->by_owner, op, op->_result, true);
        if (NIO_UNLIKELY(nio_op_kind(op) == NIO_OP_LINKED))
            nio_chain_end_op(driver, op, op->_result, true);
        else
            nio_op_done(op, op->_result);
        done++;
    }
    if (nio_wheel_count(&driver->wheel) == 0)
        return done;
    uint64_t now_ns = nio_timeline_now_ns(driver->timeline);
    struct numio_op *op;
    while (done < max && (op = nio_wheel_take_due(&driver->wheel, now_ns))) {
        if (NIO_UNLIKELY(op->_flags & NIO_OP_DEADLINE))
            strike(op);
        else if (NIO_UNLIKELY(nio_op_kind(op) == NIO_OP_STREAM))
            nio_stream_tick(driver, nio_multi_of(op), now_ns);
        else if (NIO_UNLIKELY(nio_op_is_link_timeout(op)))
            nio_chain_strike(driver, op);
        else
            nio_op_done(op, -ETIME);
        done++;
    }
    return done;
}

static void count(_Atomic uint64_t *counter, uint64_t value, bool is_owner)
{
    if (is_owner)
        nio_tally_add(counter, value);
    else
        nio_tally_add_shared(counter, value);
}

/* Opcodes whose result is a number of bytes, a bit for each. */
static const uint64_t reading_opcodes =
    UINT64_C(1) << IORING_OP_READ | UINT64_C(1) << IORING_OP_READV |
    UINT64_C(1) << IORING_OP_READ_FIXED | UINT64_C(1) << IORING_OP_RECV |
    UINT64_C(1) << IORING_OP_RECVMSG;
static const uint64_t writing_opcodes =
    UINT64_C(1) << IORING_OP_WRITE | UINT64_C(1) << IORING_OP_WRITEV |
    UINT64_C(1) << IORING_OP_WRITE_FIXED | UINT64_C(1) << IORING_OP_SEND |
    UINT64_C(1) << IORING_OP_SEND_ZC | UINT64_C(1) << IORING_OP_SENDMSG;

void nio_driver_count_result(struct nio_driver_tally *tally, const struct numio_op *op,
                             int32_t result, bool is_owner)
{
    unsigned opcode = nio_op_opcode(op);
    if (result <= 0 || opcode >= 64)
        return;
    uint64_t bit = UINT64_C(1) << opcode;
    if (reading_opcodes & bit)
        count(&tally->bytes_in, (uint64_t)result, is_owner);
    else if (writing_opcodes & bit)
        count(&tally->bytes_out, (uint64_t)result, is_owner);
}

void nio_driver_park_early(struct nio_driver *driver, uint64_t early_ns)
{
    driver->early_ns = early_ns;
}

uint64_t nio_driver_park_until_ns(const struct nio_driver *driver)
{
    return driver->park_until_ns;
}

int64_t nio_driver_park_limit(struct nio_driver *driver, int64_t timeout_ns)
{
    driver->park_until_ns = NIO_TIME_NONE;
    if (driver->ended.head)
        return 0;
    if (nio_wheel_next_ns(&driver->wheel) == NIO_TIME_NONE)
        return timeout_ns;
    uint64_t now_ns = nio_timeline_now_ns(driver->timeline);
    uint64_t next_ns = nio_wheel_settle(&driver->wheel, now_ns);
    if (next_ns == NIO_TIME_NONE)
        return timeout_ns;
    if (next_ns <= now_ns)
        return 0;
    if (nio_timeline_stands(driver->timeline))
        return timeout_ns; /* who moves the time wakes the owner */
    uint64_t left_ns = next_ns - now_ns;
    if (next_ns < nio_wheel_next_ns(&driver->wheel)) /* timers are to be moved then, none is due */
        return timeout_ns >= 0 && (uint64_t)timeout_ns < left_ns ? timeout_ns : (int64_t)left_ns;
    left_ns = left_ns > driver->early_ns ? left_ns - driver->early_ns : 0;
    if (timeout_ns >= 0 && (uint64_t)timeout_ns < left_ns)
        return timeout_ns;
    driver->park_until_ns = now_ns + left_ns;
    return left_ns < INT64_MAX ? (int64_t)left_ns : INT64_MAX;
}

bool nio_driver_announce_sleep(struct nio_driver *driver, enum nio_wake_state how)
{
    uint32_t expected = NIO_DRIVER_AWAKE;
    /* [DW1] seq_cst: the owner's looks at its queues and credits after this must not pass it.
     * Pairs with [DW2], whose thread wrote them before.  acquire on failure: sees what the
     * unparker did before [DW2]. */
    if (atomic_compare_exchange_strong_explicit(&driver->wake, &expected, how, memory_order_seq_cst,
                                                memory_order_acquire))
        return true;
    nio_driver_end_sleep(driver);
    return false;
}

void nio_driver_end_sleep(struct nio_driver *driver)
{
    /* [DW3] acquire: sees what the unparker did before [DW2]. */
    (void)atomic_exchange_explicit(&driver->wake, NIO_DRIVER_AWAKE, memory_order_acquire);
}

void nio_driver_sleep_futex(struct nio_driver *driver, int64_t timeout_ns)
{
    /* Whatever the reason for the return, the caller looks around and may park again. */
    (void)nio_futex_wait(&driver->wake, NIO_DRIVER_ASLEEP_FUTEX, timeout_ns);
}

void nio_driver_park(struct nio_driver *driver, int64_t timeout_ns)
{
    int64_t limit_ns = nio_driver_park_limit(driver, timeout_ns);
    if (is_epoll(driver))
        nio_epoll_park(driver, limit_ns);
    else
        nio_uring_park(driver, limit_ns);
}

void nio_driver_unpark(struct nio_driver *driver)
{
    /* [DW2] seq_cst: what the caller queued before is seen by the owner that is woken, or by the
     * owner that announces its sleep [DW1] or ends it [DW3] later. */
    uint32_t before =
        atomic_exchange_explicit(&driver->wake, NIO_DRIVER_NOTIFIED, memory_order_seq_cst);
    if (before == NIO_DRIVER_ASLEEP_FUTEX) {
        nio_futex_wake(&driver->wake, 1);
    } else if (before == NIO_DRIVER_ASLEEP_KERNEL && !is_epoll(driver)) {
        nio_uring_wake(driver);
    } else if (before == NIO_DRIVER_ASLEEP_KERNEL) {
        /* Fails only when the counter is at its end, which takes 2^64 wakes. */
        (void)eventfd_write(driver->wake_fd, 1);
    }
}

static uint64_t tally_load(const _Atomic uint64_t *counter)
{
    /* relaxed: statistics */
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void nio_driver_counters(const struct nio_driver *driver, struct nio_driver_counters *ret)
{
    const struct nio_driver_tally *a = &driver->by_owner;
    const struct nio_driver_tally *b = &driver->by_siblings;
    ret->sqes = tally_load(&a->sqes);
    ret->enters = tally_load(&a->enters);
    ret->cqes = tally_load(&a->cqes) + tally_load(&b->cqes);
    ret->bytes_in = tally_load(&a->bytes_in) + tally_load(&b->bytes_in);
    ret->bytes_out = tally_load(&a->bytes_out) + tally_load(&b->bytes_out);
    ret->reaped_for = tally_load(&b->reaped_for);
    ret->polled = tally_load(&a->polled);
    ret->fixed = tally_load(&a->fixed);
}
