/* SPDX-License-Identifier: MIT */
/* The profile for processes that may not use io_uring: readiness for sockets and pipes, a pool of
 * blocking threads for files.  The same requests, the same results, more system calls.
 *
 * An operation is attempted when it is submitted.  If its descriptor is not ready it joins the list
 * of that descriptor's slot, and the descriptor is watched with EPOLLONESHOT for what its waiting
 * operations need; an event has them attempted again, oldest first.  Everything here is the
 * owner's, except that a pool thread hands finished operations back through `finished` [DE1] and
 * unparks the owner.  `helpers` counts the pool threads that may still touch the driver.
 *
 * Closed descriptors.  A close that goes through this driver ends the operations that wait here for
 * the same descriptor with -EBADF.  One that was closed elsewhere silently leaves the epoll set; so
 * once a second, while operations wait, each watch is renewed, and where the kernel then knows the
 * watched file no more, the operations end with -EBADF.  (An io_uring operation keeps the file open
 * and goes on waiting.)
 *
 * Cancelling ends a waiting operation at once; one on a pool thread ends when its system call does.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/driver/driver_impl.h"
#include "runtime/driver/epoll_ops.h"
#include "runtime/task/op_done.h"

enum {
    EVENTS = 128,         /* taken from the kernel at a time */
    SLOTS_FIRST = 64,     /* the table of descriptors grows from here by doubling */
    LOOK_EVERY_NS = 5000, /* a spinning or busy owner asks the kernel for events so often */
    WAKE_FD = -1          /* marks the eventfd among the events */
};
static const uint64_t scrub_every_ns = 1000000000;

/* A descriptor's waiting operations, oldest first, linked by their user_data words. */
struct slot {
    struct nio_op_queue waiting;
};

struct nio_epoll {
    struct nio_driver base;

    /* constant after create */
    int epoll_fd;
    int (*offload)(void *context, void (*fn)(void *arg), void *arg);
    void *offload_context;

    /* owner only; the atomic ones are hints that any thread may read */
    NIO_CACHE_ALIGNED struct slot *slots; /* indexed by descriptor */
    unsigned slot_count;
    _Atomic unsigned waiting;     /* operations in slots */
    unsigned offloaded;           /* operations on pool threads */
    struct nio_op_queue unplaced; /* the pool was full when they came */
    uint64_t scrubbed_ns;
    _Atomic uint64_t looked_ns;
    _Atomic unsigned event_count; /* events fetched by park and not yet looked at */
    struct epoll_event events[EVENTS];

    /* any thread, RMW */
    NIO_CACHE_ALIGNED struct numio_op *_Atomic finished; /* by pool threads, newest first */
    _Atomic unsigned helpers;
};

static struct nio_epoll *epoll_of(struct nio_driver *driver)
{
    return NIO_CONTAINER_OF(driver, struct nio_epoll, base);
}

static const struct nio_epoll *epoll_of_const(const struct nio_driver *driver)
{
    return (const struct nio_epoll *)((const char *)driver - offsetof(struct nio_epoll, base));
}

static unsigned hint_load(const _Atomic unsigned *hint)
{
    /* relaxed: the owner sees its own stores, others take it as a hint */
    return atomic_load_explicit(hint, memory_order_relaxed);
}

static void hint_store(_Atomic unsigned *hint, unsigned value)
{
    /* relaxed: as above */
    atomic_store_explicit(hint, value, memory_order_relaxed);
}

/* ---- start and end ------------------------------------------------------------------------ */

static int open_epoll(struct nio_epoll *epoll)
{
    if (nio_fault_now())
        return nio_error(-ENOMEM, "epoll_create1: no memory");
    epoll->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll->epoll_fd < 0)
        return nio_error(-errno, "epoll_create1: %s; RLIMIT_NOFILE may be reached (ulimit -n)",
                         strerrordesc_np(errno));
    /* Edge-triggered: each unpark is an event, and nobody has to read the count away. */
    struct epoll_event wake = { .events = EPOLLIN | EPOLLET, .data.fd = WAKE_FD };
    if (epoll_ctl(epoll->epoll_fd, EPOLL_CTL_ADD, epoll->base.wake_fd, &wake) < 0)
        return nio_error(-errno, "epoll_ctl: %s; fs.epoll.max_user_watches may be reached",
                         strerrordesc_np(errno));
    epoll->slots = nio_zalloc_array(SLOTS_FIRST, sizeof *epoll->slots);
    if (!epoll->slots)
        return nio_error(-ENOMEM, "no memory for the table of descriptors");
    epoll->slot_count = SLOTS_FIRST;
    return 0;
}

int nio_epoll_create(const struct nio_driver_options *options, struct nio_driver **ret_driver)
{
    struct nio_epoll *epoll = nio_zalloc(sizeof *epoll);
    if (!epoll)
        return nio_error(-ENOMEM, "no memory for a driver of %zu bytes", sizeof *epoll);
    epoll->epoll_fd = -1;
    epoll->offload = options->offload;
    epoll->offload_context = options->offload_context;
    int error = nio_driver_base_init(&epoll->base, options);
    if (!error)
        error = open_epoll(epoll);
    if (error) {
        nio_epoll_destroy(&epoll->base);
        return error;
    }
    epoll->base.keeps_chains = true;
    *ret_driver = &epoll->base;
    return 0;
}

void nio_epoll_destroy(struct nio_driver *driver)
{
    struct nio_epoll *epoll = epoll_of(driver);
    /* [DE2] acquire: a pool thread's last touch of the driver was before its release [DE2].
     * Bounded by the few instructions that it has left. */
    while (atomic_load_explicit(&epoll->helpers, memory_order_acquire) > 0)
        (void)sched_yield(); /* cannot fail */
    if (epoll->epoll_fd >= 0)
        (void)close(epoll->epoll_fd); /* nothing to do if it fails */
    nio_driver_base_fini(driver);
    nio_free(epoll->slots);
    nio_free(epoll);
}

/* ---- pool threads ------------------------------------------------------------------------- */

/* Runs on a pool thread. */
static void run_blocking(void *arg)
{
    struct numio_op *op = arg;
    struct nio_epoll *epoll = epoll_of(op->_driver);
    op->_result = nio_epoll_block(op);
    /* relaxed: only linked to, not looked through */
    struct numio_op *head = atomic_load_explicit(&epoll->finished, memory_order_relaxed);
    do {
        nio_op_set_word(op, NIO_OP_WORD_LINK, head);
        /* [DE1] release: publishes the result and the link.  relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(&epoll->finished, &head, op,
                                                    memory_order_release, memory_order_relaxed));
    nio_driver_unpark(&epoll->base);
    /* [DE2] release: the last touch.  Pairs with [DE2] in nio_epoll_destroy(). */
    (void)atomic_fetch_sub_explicit(&epoll->helpers, 1, memory_order_release);
}

static int give_to_pool(struct nio_epoll *epoll, struct numio_op *op)
{
    if (!epoll->offload)
        return -ENOSYS;
    op->_place = NIO_OP_PLACE_OFFLOADED;
    /* relaxed: the pool orders it before the function runs */
    (void)atomic_fetch_add_explicit(&epoll->helpers, 1, memory_order_relaxed);
    int error = epoll->offload(epoll->offload_context, run_blocking, op);
    if (!error) {
        epoll->offloaded++;
        return 0;
    }
    op->_place = NIO_OP_PLACE_RING;
    /* relaxed: nobody else has seen it */
    (void)atomic_fetch_sub_explicit(&epoll->helpers, 1, memory_order_relaxed);
    return error;
}

/* Gives `op` to the pool; while that is full, it waits for one of ours to come back. */
static void offload(struct nio_epoll *epoll, struct numio_op *op)
{
    int error = epoll->unplaced.head ? -EAGAIN : give_to_pool(epoll, op);
    if (error == -EAGAIN && epoll->offloaded > 0) {
        op->_place = NIO_OP_PLACE_QUEUED;
        nio_op_queue_push(&epoll->unplaced, op);
    } else if (error && nio_op_opcode(op) == IORING_OP_CLOSE) {
        /* A descriptor must not stay open because no thread can be had: better a short block. */
        nio_driver_end(&epoll->base, op, nio_epoll_block(op));
    } else if (error) {
        nio_driver_end(&epoll->base, op, error);
    }
}

/* Room may have come up in the pool. */
static void place_the_unplaced(struct nio_epoll *epoll)
{
    struct nio_op_queue queue = epoll->unplaced;
    struct numio_op *op;
    epoll->unplaced = (struct nio_op_queue){ 0 };
    while ((op = nio_op_queue_pop(&queue)))
        offload(epoll, op);
}

static void take_finished(struct nio_epoll *epoll)
{
    /* relaxed: what is seen late is taken the next time */
    if (!atomic_load_explicit(&epoll->finished, memory_order_relaxed))
        return;
    /* [DE1] acquire: sees the results. */
    struct numio_op *op = atomic_exchange_explicit(&epoll->finished, NULL, memory_order_acquire);
    while (op) {
        struct numio_op *next = nio_op_word(op, NIO_OP_WORD_LINK);
        op->_place = NIO_OP_PLACE_RING;
        epoll->offloaded--;
        nio_driver_end(&epoll->base, op, op->_result);
        op = next;
    }
    place_the_unplaced(epoll);
}

/* ---- waiting for readiness ---------------------------------------------------------------- */

static int grow(struct nio_epoll *epoll, int fd)
{
    unsigned count = epoll->slot_count;
    while ((unsigned)fd >= count)
        count *= 2;
    if (count == epoll->slot_count)
        return 0;
    struct slot *slots = nio_zalloc_array(count, sizeof *slots);
    if (!slots)
        return -ENOMEM;
    memcpy(slots, epoll->slots, epoll->slot_count * sizeof *slots);
    nio_free(epoll->slots);
    epoll->slots = slots;
    epoll->slot_count = count;
    return 0;
}

static void leave(struct nio_epoll *epoll, struct numio_op *op)
{
    op->_place = NIO_OP_PLACE_RING;
    hint_store(&epoll->waiting, hint_load(&epoll->waiting) - 1);
}

/* Takes `op` out of a queue.  False: it is not there. */
static bool unlink_from(struct nio_op_queue *queue, const struct numio_op *op)
{
    struct nio_op_queue kept = { 0 };
    struct numio_op *other;
    bool is_found = false;
    while ((other = nio_op_queue_pop(queue))) {
        if (other == op)
            is_found = true;
        else
            nio_op_queue_push(&kept, other);
    }
    *queue = kept;
    return is_found;
}

/* Ends every operation that waits for `fd`. */
static void end_waiting(struct nio_epoll *epoll, int fd, int32_t result)
{
    if (fd < 0 || (unsigned)fd >= epoll->slot_count)
        return;
    struct numio_op *op;
    while ((op = nio_op_queue_pop(&epoll->slots[fd].waiting))) {
        leave(epoll, op);
        nio_driver_end(&epoll->base, op, nio_epoll_stopped(op, result));
    }
}

/* Watches `fd` for what the operations in its slot need. */
static int watch(struct nio_epoll *epoll, int fd, bool is_new)
{
    struct epoll_event event = { .events = EPOLLONESHOT, .data.fd = fd };
    const struct numio_op *op = epoll->slots[fd].waiting.head;
    for (; op; op = nio_op_word(op, NIO_OP_WORD_LINK))
        event.events |= nio_epoll_events(op);
    if (epoll_ctl(epoll->epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0)
        return 0;
    if (errno != ENOENT || !is_new)
        return -errno;
    return epoll_ctl(epoll->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

/* As watch(), where the slot has more than its newest operation: if the kernel no longer knows the
 * file that the older ones wait for, they end. */
static int watch_or_end(struct nio_epoll *epoll, int fd, struct numio_op *newest)
{
    struct nio_op_queue *waiting = &epoll->slots[fd].waiting;
    int error = watch(epoll, fd, waiting->head == newest);
    if (error != -ENOENT)
        return error;
    struct numio_op *op;
    while (waiting->head != newest && (op = nio_op_queue_pop(waiting))) {
        leave(epoll, op);
        nio_driver_end(&epoll->base, op, -EBADF);
    }
    return newest ? watch(epoll, fd, true) : 0;
}

static void wait_for_fd(struct nio_epoll *epoll, struct numio_op *op)
{
    int fd = nio_epoll_op_fd(op);
    int error = fd < 0 ? -EBADF : grow(epoll, fd);
    if (error) {
        nio_driver_end(&epoll->base, op, error);
        return;
    }
    op->_place = NIO_OP_PLACE_WAITING;
    nio_op_queue_push(&epoll->slots[fd].waiting, op);
    hint_store(&epoll->waiting, hint_load(&epoll->waiting) + 1);
    error = watch_or_end(epoll, fd, op);
    if (error) { /* EBADF: closed meanwhile; else the kernel's memory or limit: the others stay */
        (void)unlink_from(&epoll->slots[fd].waiting, op); /* it is there */
        leave(epoll, op);
        nio_driver_end(&epoll->base, op, error);
    }
}

static void attempt(struct nio_epoll *epoll, struct numio_op *op, bool is_first)
{
    int32_t result = 0;
    switch (nio_epoll_attempt(op, is_first, &result)) {
    case NIO_ATTEMPT_ENDED:
        nio_driver_end(&epoll->base, op, result);
        break;
    case NIO_ATTEMPT_WAIT:
        wait_for_fd(epoll, op);
        break;
    case NIO_ATTEMPT_BLOCK:
        offload(epoll, op);
        break;
    }
}

/* An event: the operations that it concerns are attempted, oldest first, and per direction only
 * until one finds the descriptor not ready again. */
static void attempt_waiting(struct nio_epoll *epoll, int fd, uint32_t events)
{
    if (fd < 0 || (unsigned)fd >= epoll->slot_count)
        return;
    if (events & (EPOLLERR | EPOLLHUP))
        events = UINT32_MAX;
    struct nio_op_queue queue = epoll->slots[fd].waiting;
    struct nio_op_queue *kept = &epoll->slots[fd].waiting;
    *kept = (struct nio_op_queue){ 0 };
    struct numio_op *op;
    while ((op = nio_op_queue_pop(&queue))) {
        uint32_t needed = nio_epoll_events(op) | EPOLLERR | EPOLLHUP;
        int32_t result = 0;
        enum nio_attempt outcome =
            events & needed ? nio_epoll_attempt(op, false, &result) : NIO_ATTEMPT_WAIT;
        if (outcome == NIO_ATTEMPT_WAIT) {
            events &= ~nio_epoll_events(op);
            nio_op_queue_push(kept, op);
            continue;
        }
        leave(epoll, op);
        if (outcome == NIO_ATTEMPT_BLOCK)
            offload(epoll, op);
        else
            nio_driver_end(&epoll->base, op, result);
    }
    if (kept->head && watch_or_end(epoll, fd, NULL) < 0)
        end_waiting(epoll, fd, -EBADF);
}

/* Renews every watch, so that operations on descriptors closed elsewhere end. */
static void scrub(struct nio_epoll *epoll, uint64_t now_ns)
{
    epoll->scrubbed_ns = now_ns;
    for (unsigned fd = 0; fd < epoll->slot_count; fd++)
        if (epoll->slots[fd].waiting.head && watch_or_end(epoll, (int)fd, NULL) < 0)
            end_waiting(epoll, (int)fd, -EBADF);
}

static void fetch_events(struct nio_epoll *epoll, const struct timespec *limit)
{
    nio_tally_add(&epoll->base.by_owner.enters, 1);
    int count = epoll_pwait2(epoll->epoll_fd, epoll->events, EVENTS, limit, NULL);
    if (count < 0 && errno == ENOSYS) { /* before Linux 5.11 */
        struct pollfd set = { .fd = epoll->epoll_fd, .events = POLLIN };
        (void)ppoll(&set, 1, limit, NULL); /* the next call finds out */
        count = epoll_wait(epoll->epoll_fd, epoll->events, EVENTS, 0);
    }
    hint_store(&epoll->event_count, count > 0 ? (unsigned)count : 0);
    /* relaxed: a hint */
    atomic_store_explicit(&epoll->looked_ns, nio_now_ns(), memory_order_relaxed);
}

static void look_at_events(struct nio_epoll *epoll)
{
    unsigned count = hint_load(&epoll->event_count);
    for (unsigned i = 0; i < count; i++)
        attempt_waiting(epoll, epoll->events[i].data.fd, epoll->events[i].events);
    hint_store(&epoll->event_count, 0);
}

/* ---- the interface ------------------------------------------------------------------------ */

void nio_epoll_submit(struct nio_driver *driver, struct numio_op *op)
{
    struct nio_epoll *epoll = epoll_of(driver);
    op->_place = NIO_OP_PLACE_RING;
    nio_tally_add(&driver->by_owner.sqes, 1);
    if (nio_epoll_is_close(op))
        end_waiting(epoll, nio_epoll_op_fd(op), -EBADF);
    attempt(epoll, op, true);
}

void nio_epoll_cancel(struct nio_driver *driver, struct numio_op *op)
{
    struct nio_epoll *epoll = epoll_of(driver);
    int32_t result = nio_epoll_stopped(op, -ECANCELED);
    if (op->_place == NIO_OP_PLACE_WAITING) {
        (void)unlink_from(&epoll->slots[nio_epoll_op_fd(op)].waiting, op); /* it is there */
        leave(epoll, op);
    } else if (op->_place == NIO_OP_PLACE_QUEUED) {
        (void)unlink_from(&epoll->unplaced, op); /* it is there */
        op->_place = NIO_OP_PLACE_RING;
    } else {
        return; /* it has ended, or a pool thread is at it */
    }
    nio_driver_end(driver, op, result);
}

bool nio_epoll_has_completions(const struct nio_driver *driver)
{
    const struct nio_epoll *epoll = epoll_of_const(driver);
    /* relaxed: a hint for a loop that looks again */
    if (atomic_load_explicit(&epoll->finished, memory_order_relaxed) ||
        hint_load(&epoll->event_count) > 0)
        return true;
    /* Memory does not tell about readiness: a look is due from time to time.  relaxed: a hint */
    return hint_load(&epoll->waiting) > 0 &&
           nio_now_ns() - atomic_load_explicit(&epoll->looked_ns, memory_order_relaxed) >
               LOOK_EVERY_NS;
}

unsigned nio_epoll_reap(struct nio_driver *driver, unsigned max)
{
    struct nio_epoll *epoll = epoll_of(driver);
    const struct timespec now = { 0 };
    take_finished(epoll);
    if (hint_load(&epoll->waiting) > 0 && hint_load(&epoll->event_count) == 0)
        fetch_events(epoll, &now);
    look_at_events(epoll);
    if (hint_load(&epoll->waiting) > 0) {
        uint64_t now_ns = nio_now_ns();
        if (now_ns - epoll->scrubbed_ns > scrub_every_ns)
            scrub(epoll, now_ns);
    }
    unsigned done = nio_driver_reap_local(driver, max);
    if (done)
        nio_tally_add(&driver->by_owner.cqes, done);
    return done;
}

unsigned nio_epoll_in_flight(const struct nio_driver *driver)
{
    const struct nio_epoll *epoll = epoll_of_const(driver);
    return hint_load(&epoll->waiting) + epoll->offloaded + epoll->unplaced.count;
}

void nio_epoll_park(struct nio_driver *driver, int64_t limit_ns)
{
    struct nio_epoll *epoll = epoll_of(driver);
    bool has_waiting = hint_load(&epoll->waiting) > 0;
    /* relaxed: a pool thread that pushes after this look unparks */
    if (atomic_load_explicit(&epoll->finished, memory_order_relaxed) ||
        hint_load(&epoll->event_count) > 0)
        return;
    if (limit_ns == 0)
        return; /* the reap asks the kernel */
    if (has_waiting && (limit_ns < 0 || (uint64_t)limit_ns > scrub_every_ns))
        limit_ns = (int64_t)scrub_every_ns;
    if (!nio_driver_announce_sleep(driver, has_waiting ? NIO_DRIVER_ASLEEP_KERNEL
                                                       : NIO_DRIVER_ASLEEP_FUTEX))
        return;
    if (has_waiting) {
        struct timespec limit = { .tv_sec = limit_ns / 1000000000,
                                  .tv_nsec = limit_ns % 1000000000 };
        fetch_events(epoll, &limit);
    } else {
        nio_driver_sleep_futex(driver, limit_ns);
    }
    nio_driver_end_sleep(driver);
}
