/* SPDX-License-Identifier: MIT */
/* The polled ring: polled.h has the design.  Unlike the ordinary ring, which every operation of a
 * server goes through, this one is used by liburing's own functions: a disk is a thousand times
 * slower than they are. */
#include "runtime/driver/polled.h"

#include <errno.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/driver/uring.h"
#include "runtime/driver/uring_setup.h"
#include "runtime/task/op_done.h"

enum {
    POLLED_ENTRIES = 128,
    POLLED_CQ_ENTRIES = 1024, /* an NVMe queue has 1,023 at most as Linux uses it */
    POLLED_BATCH = 64,
    KNOWN_FIRST = 64,    /* the table of descriptors grows from here by doubling ... */
    KNOWN_MAX = 1 << 20, /* ... to here; those beyond are asked for each time */
    /* What is known of a descriptor: the answer in the upper bit, and for how many operations more
     * it is believed.  One without O_DIRECT is asked again soon, since that costs one cheap system
     * call; the others cost reads of files in /sys. */
    KNOWN_IS_POLLED = 0x8000,
    KNOWN_READS_ONLY = 0x4000,
    KNOWN_COUNT = 0x3fff,
    BELIEVED = 255,
    BELIEVED_BUFFERED = 16
};

int nio_polled_create(const struct nio_driver_options *options, struct nio_driver *driver)
{
    struct nio_polled *polled = nio_zalloc(sizeof *polled);
    struct io_uring_params params = {
        .flags = IORING_SETUP_IOPOLL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
                 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        .cq_entries = POLLED_CQ_ENTRIES,
    };
    if (!polled)
        return nio_error(-ENOMEM, "no memory for a polled ring of %zu bytes", sizeof *polled);
    int error = nio_ring_setup(POLLED_ENTRIES, &polled->ring, &params);
    if (error) {
        char text[NIO_ERROR_DETAIL_BYTES];
        nio_ring_explain(error, text, sizeof text);
        nio_driver_add_reason(driver, "a worker has no polled ring, its disks interrupt: %s", text);
        nio_free(polled);
        return 0;
    }
    (void)io_uring_register_ring_fd(&polled->ring); /* saves a look-up per call, if it works */
    polled->credits = params.cq_entries;
    polled->fd_kind = options->fd_kind ? options->fd_kind : nio_fd_kind_of;
    driver->polled = polled;
    return 0;
}

void nio_polled_destroy(struct nio_polled *polled)
{
    if (!polled)
        return;
    io_uring_queue_exit(&polled->ring);
    nio_free(polled->known);
    nio_free(polled);
}

/* ---- which operations --------------------------------------------------------------------- */

static bool make_known_room(struct nio_polled *polled, unsigned fd)
{
    unsigned room = polled->known_room ? polled->known_room : KNOWN_FIRST;
    while (room <= fd)
        room *= 2;
    uint16_t *known = nio_zalloc_array(room, sizeof *known);
    if (!known)
        return false;
    if (polled->known_room)
        memcpy(known, polled->known, polled->known_room * sizeof *known);
    nio_free(polled->known);
    polled->known = known;
    polled->known_room = room;
    return true;
}

static bool is_polled_fd(struct nio_polled *polled, int fd, bool is_write)
{
    if (NIO_UNLIKELY(fd < 0 || fd >= KNOWN_MAX)) {
        enum nio_fd_kind kind = fd < 0 || nio_is_direct(fd) ? NIO_FD_BUFFERED : polled->fd_kind(fd);
        return kind == NIO_FD_POLLED || (kind == NIO_FD_POLLED_READS && !is_write);
    }
    if ((unsigned)fd >= polled->known_room && !make_known_room(polled, (unsigned)fd))
        return false;
    uint16_t *known = &polled->known[fd];
    if ((*known & KNOWN_COUNT) == 0) {
        enum nio_fd_kind kind = polled->fd_kind(fd);
        *known = (uint16_t)((kind >= NIO_FD_POLLED_READS ? KNOWN_IS_POLLED : 0) |
                            (kind == NIO_FD_POLLED_READS ? KNOWN_READS_ONLY : 0) |
                            (kind == NIO_FD_BUFFERED ? BELIEVED_BUFFERED : BELIEVED));
    }
    --*known;
    return (*known & KNOWN_IS_POLLED) != 0 && !(is_write && (*known & KNOWN_READS_ONLY));
}

static void note_unpolled(struct nio_polled *polled, int fd)
{
    if (fd >= 0 && (unsigned)fd < polled->known_room)
        polled->known[fd] = BELIEVED;
}

static int fd_of(const struct numio_op *op)
{
    return (int)(uint32_t)(op->_sqe[0] >> 32);
}

/* The SQE flags of the image; links, drains and registered files belong to the ordinary ring. */
static unsigned flags_of(const struct numio_op *op)
{
    return (unsigned)(op->_sqe[0] >> 8) & 0xff;
}

bool nio_polled_takes(struct nio_polled *polled, const struct numio_op *op)
{
    int fd = fd_of(op);
    unsigned opcode = nio_op_opcode(op);
    switch (opcode) {
    case IORING_OP_READ:
    case IORING_OP_WRITE:
    case IORING_OP_READV:
    case IORING_OP_WRITEV:
        /* The file's own position is not moved by what ends later. */
        return flags_of(op) == 0 && op->_sqe[NIO_OP_WORD_OFFSET] != UINT64_MAX &&
               is_polled_fd(polled, fd, opcode == IORING_OP_WRITE || opcode == IORING_OP_WRITEV);
    case IORING_OP_CLOSE:
        if (fd >= 0 && (unsigned)fd < polled->known_room)
            polled->known[fd] = 0;
        return false;
    default:
        return false;
    }
}

/* ---- submission --------------------------------------------------------------------------- */

static void push(struct nio_driver *driver, struct numio_op *op)
{
    struct nio_polled *polled = driver->polled;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&polled->ring);
    memcpy(sqe, op->_sqe, sizeof *sqe);
    if (driver->registered_bytes)
        nio_registered_use(driver, sqe);
    io_uring_sqe_set_data(sqe, op);
    if (polled->in_kernel++ == 0)
        polled->quiet_since_ns = nio_now_ns();
    nio_tally_add(&driver->by_owner.sqes, 1);
}

static bool has_room(const struct nio_polled *polled)
{
    return polled->in_kernel < polled->credits && io_uring_sq_space_left(&polled->ring) > 0;
}

/* Moves operations from the queue to the SQ; the cancelled ones end. */
static void feed(struct nio_driver *driver)
{
    struct nio_polled *polled = driver->polled;
    while (polled->queue.head && has_room(polled)) {
        struct numio_op *op = nio_op_queue_pop(&polled->queue);
        if (op->_place == NIO_OP_PLACE_POLLED_CANCELLED)
            nio_driver_end(driver, op, -ECANCELED);
        else
            push(driver, op);
    }
}

void nio_polled_submit(struct nio_driver *driver, struct numio_op *op)
{
    struct nio_polled *polled = driver->polled;
    struct nio_uring *uring = nio_uring_of(driver);
    if (NIO_UNLIKELY(!uring->has_iowq)) /* for what the disk's queue does not take at once */
        nio_uring_start_iowq(uring);
    op->_place = NIO_OP_PLACE_POLLED;
    if (!polled->queue.head && has_room(polled))
        push(driver, op);
    else
        nio_op_queue_push(&polled->queue, op);
    driver->flush_wanted = true;
    driver->is_eager = true; /* nothing ends before the kernel is asked */
}

void nio_polled_cancel(struct numio_op *op)
{
    op->_place = NIO_OP_PLACE_POLLED_CANCELLED;
}

/* Submits what the SQ holds and looks into the disks' queues once, without waiting. */
static void enter(struct nio_driver *driver)
{
    nio_tally_add(&driver->by_owner.enters, 1);
    /* Whatever it says, what was not taken is still in the SQ. */
    (void)io_uring_submit_and_get_events(&driver->polled->ring);
}

bool nio_polled_flush(struct nio_driver *driver)
{
    struct nio_polled *polled = driver->polled;
    unsigned before;
    do { /* bounded by the queue: each round takes something from it, or is the last */
        before = polled->queue.count;
        feed(driver);
        if (io_uring_sq_ready(&polled->ring) > 0)
            enter(driver);
    } while (polled->queue.head && polled->queue.count < before);
    return io_uring_sq_ready(&polled->ring) == 0 && (!polled->queue.head || !has_room(polled));
}

/* ---- completion --------------------------------------------------------------------------- */

/* One completion, copied out of the CQ. */
struct finished {
    struct numio_op *op;
    int32_t result;
};

static unsigned take_batch(struct nio_polled *polled, struct finished *batch, unsigned max)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;
    io_uring_for_each_cqe(&polled->ring, head, cqe)
    {
        if (count == max)
            break;
        batch[count++] = (struct finished){ io_uring_cqe_get_data(cqe), cqe->res };
    }
    io_uring_cq_advance(&polled->ring, count);
    polled->in_kernel -= count;
    return count;
}

/* A read that had nothing to fetch from the disk: it may have come to the end of the file, or to a
 * hole before it.  Linux 6.1 then says 0 of what it has read (io_complete_rw_iopoll() leaves out
 * what was done before), also where that was the hole and the tail of the file. */
static bool may_have_read(const struct numio_op *op, int32_t result)
{
    unsigned opcode = nio_op_opcode(op);
    return result == 0 && (opcode == IORING_OP_READ || opcode == IORING_OP_READV);
}

/* The other ring is to do it: this one has done nothing, or does not say what. */
static void send_back(struct nio_driver *driver, struct numio_op *op)
{
    bool is_cancelled = op->_place == NIO_OP_PLACE_POLLED_CANCELLED;
    op->_place = NIO_OP_PLACE_RING;
    if (is_cancelled)
        nio_driver_end(driver, op, -ECANCELED);
    else
        nio_uring_submit(driver, op);
}

unsigned nio_polled_reap(struct nio_driver *driver, unsigned max)
{
    struct nio_polled *polled = driver->polled;
    struct finished batch[POLLED_BATCH];
    unsigned done = 0, count;
    if (polled->in_kernel > 0)
        enter(driver);
    do { /* until the CQ was empty, or there is enough */
        count = take_batch(polled, batch, max - done < POLLED_BATCH ? max - done : POLLED_BATCH);
        for (unsigned i = 0; i < count; i++) {
            if (NIO_UNLIKELY(batch[i].result == -EOPNOTSUPP)) {
                note_unpolled(polled, fd_of(batch[i].op));
                send_back(driver, batch[i].op);
                continue;
            }
            if (NIO_UNLIKELY(may_have_read(batch[i].op, batch[i].result))) {
                send_back(driver, batch[i].op);
                continue;
            }
            nio_tally_add(&driver->by_owner.polled, 1);
            nio_driver_count_result(&driver->by_owner, batch[i].op, batch[i].result, true);
            nio_op_done(batch[i].op, batch[i].result); /* it may be gone from here on */
            done++;
        }
        if (count) {
            nio_tally_add(&driver->by_owner.cqes, count);
            polled->quiet_since_ns = nio_now_ns();
        }
    } while (count == POLLED_BATCH && done < max);
    feed(driver);
    if (io_uring_sq_ready(&polled->ring) > 0)
        driver->flush_wanted = driver->is_eager = true;
    return done;
}

/* ---- waiting ------------------------------------------------------------------------------ */

static bool was_unparked(struct nio_driver *driver)
{
    /* relaxed: the exchange that follows orders */
    if (atomic_load_explicit(&driver->wake, memory_order_relaxed) != NIO_DRIVER_NOTIFIED)
        return false;
    nio_driver_end_sleep(driver);
    return true;
}

bool nio_polled_park(struct nio_driver *driver, int64_t *limit_ns)
{
    struct nio_polled *polled = driver->polled;
    uint64_t began_ns = nio_now_ns(), now_ns = began_ns;
    nio_uring_flush(driver);
    for (;;) { /* bounded by the limit, or by the patience */
        enter(driver);
        if (io_uring_cq_ready(&polled->ring) > 0 || driver->ended.head ||
            nio_uring_has_completions(driver) || was_unparked(driver))
            return true;
        now_ns = nio_now_ns();
        if (*limit_ns >= 0 && now_ns - began_ns >= (uint64_t)*limit_ns)
            return true;
        if (now_ns - polled->quiet_since_ns >= NIO_POLLED_PATIENCE_NS)
            break;
    }
    int64_t left_ns = *limit_ns < 0 ? INT64_MAX : *limit_ns - (int64_t)(now_ns - began_ns);
    *limit_ns = left_ns < NIO_POLLED_NAP_NS ? left_ns : NIO_POLLED_NAP_NS;
    return false;
}
