/* SPDX-License-Identifier: MIT */
/* The ring of one worker, profiles sqpoll, defer and iopoll (which has another: polled.h).
 *
 * Who touches what.  The SQ has one producer, the owner, and no lock.  The CQ is emptied under
 * cq_lock, taken by try only: by the owner for each batch, and by an idle sibling.  A holder copies
 * a batch out, returns its credits, lets go, and only then completes the operations, so that the
 * lock is held for nanoseconds and no other lock is ever taken inside.  Where the kernel is the
 * partner, the labels are: SQ tail [DU1] (ours release, the kernel's acquire), SQ head [DU2] (the
 * kernel's release, ours acquire), CQ tail [DU3] (the kernel's release, ours acquire), CQ head
 * [DU4] (ours release, the kernel's acquire), SQ flags [DU5] (the kernel's full barrier between
 * setting NEED_WAKEUP and its last look at the SQ tail, ours between the tail and the flags).
 *
 * Credits.  An operation takes one when its SQE is filled and returns it when its completion is
 * copied out; a cancel has a smaller number of its own, and the watch on the eventfd a reserve.
 * Together they are the CQ's size, so the CQ cannot overflow.  Without a credit, or without room in
 * the SQ, operations wait in `queue`, in order; every flush, reap and park of the owner feeds them.
 * An operation that posts several completions (F_MORE) keeps its credit until the last; should the
 * CQ overflow for that reason, the kernel keeps the rest and SQ_CQ_OVERFLOW makes us fetch it.
 *
 * A sibling returns credits but never submits.  So that the owner does not sleep or spin on a queue
 * that could move, it says so in `starved` before its last look at the credits [DU6], and a sibling
 * that returned credits looks at `starved` afterwards [DU7], notes CREDITS_BACK there, which
 * nio_driver_has_completions() shows to a spinning owner, and unparks a sleeping one.
 *
 * Names.  The user_data of an operation is its address with a tag in the low three bits and, in the
 * upper bits, the number of its submission; uring_cancel.c tells why.
 *
 * Sleep.  With nothing in the kernel the owner sleeps on a futex, else in io_uring_enter().  There
 * the wake is a completion: that of a multishot poll on the eventfd, or, under sqpoll where the
 * kernel has it, a message that the unparker posts into the CQ itself (the poll's completion is
 * the SQ thread's business, which may first have to get the CPU).  A sibling stops in front of such
 * a completion: it is the owner's and must find it asleep or on its way.
 *
 * sqpoll: SQEs are published once per flush, with the wake of the SQ thread if it sleeps.  A park
 * does that wake, and the waiting, in one system call; the owner never spins for the SQ thread.
 * defer: publishing is a store, and the one enter of flush or park submits and runs what the
 * kernel has deferred.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/assert.h"
#include "runtime/driver/polled.h"
#include "runtime/driver/uring.h"
#include "runtime/task/op_done.h"

enum { BATCH = 64 };

enum {
    ROOM_WAIT_NS = 50000,   /* for an SQ thread to take something, at a time */
    DEAD_NAP_NS = 1000000,  /* for what the kernel ends in the name of a dead SQ thread */
    KERNEL_ERRORS = 512,    /* ERESTARTSYS, ERESTARTNOINTR, ... */
    KERNEL_ERRORS_END = 517 /* ... to ERESTART_RESTARTBLOCK */
};

/* One completion, copied out of the CQ. */
struct finished {
    uint64_t name; /* of the operation */
    int32_t result;
};

/* What one hold of cq_lock has brought. */
struct taken {
    unsigned count;       /* operations in `batch` */
    unsigned woken_count; /* consumers of streams in `woken` */
    unsigned seen;        /* completions of all kinds */
    unsigned credits, cancels;
    uint64_t full; /* the name of a stream that has enough, 0: none */
    struct finished batch[BATCH];
    struct nio_task *woken[BATCH];
};

/* ---- submission: the owner ---------------------------------------------------------------- */

/* Credits that are free; a sibling may make it more at any time, never less. */
static unsigned free_credits(const struct nio_uring *uring)
{
    /* [DU6] seq_cst: after `starved` was set.  Pairs with [DU7]. */
    uint64_t completed = atomic_load_explicit(&uring->completed, memory_order_seq_cst);
    return uring->credits - (unsigned)(uring->submitted - completed);
}

/* Operations that wait for somebody else as a rule; all others usually end while the kernel takes
 * them.  A bit for each opcode. */
static const uint64_t waiting_opcodes =
    UINT64_C(1) << IORING_OP_RECV | UINT64_C(1) << IORING_OP_RECVMSG |
    UINT64_C(1) << IORING_OP_ACCEPT | UINT64_C(1) << IORING_OP_CONNECT |
    UINT64_C(1) << IORING_OP_POLL_ADD;

/* Operations that the kernel tries again when their descriptor is ready, or that never wait; all
 * others may need one of its threads.  (A close does for a file of NFS or FUSE, which was opened
 * before, as a rule by an operation.)  A bit for each opcode. */
static const uint64_t polled_opcodes =
    UINT64_C(1) << IORING_OP_RECV | UINT64_C(1) << IORING_OP_RECVMSG |
    UINT64_C(1) << IORING_OP_SEND | UINT64_C(1) << IORING_OP_SENDMSG |
    UINT64_C(1) << IORING_OP_SEND_ZC | UINT64_C(1) << IORING_OP_SENDMSG_ZC |
    UINT64_C(1) << IORING_OP_ACCEPT | UINT64_C(1) << IORING_OP_CONNECT |
    UINT64_C(1) << IORING_OP_POLL_ADD | UINT64_C(1) << IORING_OP_CLOSE |
    UINT64_C(1) << IORING_OP_NOP | UINT64_C(1) << IORING_OP_LINK_TIMEOUT;

/* What the image says in our terms becomes the kernel's.  Returns the tag. */
static NIO_COLD unsigned adapt(struct io_uring_sqe *sqe)
{
    const unsigned stream_bit = (unsigned)(NIO_OP_IS_STREAM >> 16);
    unsigned tag = NIO_TAG_OP;
    if (sqe->ioprio & stream_bit) {
        sqe->ioprio = (uint16_t)(sqe->ioprio - stream_bit);
        tag = NIO_TAG_STREAM;
    }
    if (nio_is_direct(sqe->fd) && sqe->opcode == IORING_OP_CLOSE) {
        sqe->file_index = nio_direct_slot(sqe->fd) + 1;
        sqe->fd = 0;
    } else if (nio_is_direct(sqe->fd)) {
        sqe->fd = (int)nio_direct_slot(sqe->fd);
        sqe->flags |= IOSQE_FIXED_FILE;
    }
    return tag;
}

static void push_op(struct nio_uring *uring, struct numio_op *op)
{
    unsigned opcode = nio_op_opcode(op);
    uint64_t name = nio_uring_name(op, uring->submitted);
    struct io_uring_sqe *sqe = nio_uring_next_sqe(uring);
    op->_place = NIO_OP_PLACE_RING;
    memcpy(sqe, op->_sqe, sizeof op->_sqe);
    if (NIO_UNLIKELY(op->_sqe[0] & (NIO_OP_IS_STREAM | NIO_OP_MAY_BE_DIRECT)))
        name |= adapt(sqe);
    if (NIO_UNLIKELY(uring->base.registered_bytes != 0))
        nio_registered_use(&uring->base, sqe);
    /* After the copy: a wide load over what was just written in part would wait for the store. */
    sqe->user_data = name;
    op->_sqe[NIO_OP_WORD_LINK] = name;
    uring->submitted++;
    if (opcode >= 64 || !(waiting_opcodes >> opcode & 1))
        uring->base.is_eager = true;
}

/* Of what is left of a chain in the queue.  It must come to the kernel in one piece: when there is
 * room for its first there must be room for all. */
static unsigned chain_length(const struct numio_op *op)
{
    unsigned length = 1;
    for (; nio_op_is_linked(op); op = nio_op_word(op, NIO_OP_WORD_LINK))
        length++;
    return length;
}

/* A cancelled operation leaves the queue; what is linked to it goes the same way. */
static void end_queued(struct nio_uring *uring, struct numio_op *op)
{
    struct numio_op *next = uring->queue.head;
    op->_place = NIO_OP_PLACE_RING;
    uring->queued_cancelled--;
    if (nio_op_is_linked(op) && next && next->_place == NIO_OP_PLACE_QUEUED) {
        next->_place = NIO_OP_PLACE_QUEUED_CANCELLED;
        uring->queued_cancelled++;
    }
    nio_driver_end(&uring->base, op, -ECANCELED);
}

/* The queue is empty. */
static void set_not_starved(struct nio_uring *uring)
{
    /* relaxed: a sibling that still sees WAITS unparks for nothing */
    atomic_store_explicit(&uring->starved, NIO_STARVED_NOT, memory_order_relaxed);
}

/* The SQ thread has ended (-EOWNERDEAD) and takes nothing any more: what it has not taken, and what
 * waits for it, ends.  What it had taken the kernel has cancelled; its completions are in the CQ,
 * or will be.  From here on there is no room in the SQ, so that all that is submitted comes here.
 */
static void bury(struct nio_uring *uring)
{
    /* [DU2] acquire: what is behind this head was taken. */
    unsigned head = atomic_load_explicit(uring->sq_head, memory_order_acquire);
    for (; head != uring->tail; uring->tail--) {
        uint64_t name = uring->sqes[(uring->tail - 1) & uring->sq_mask].user_data;
        unsigned tag = name & NIO_TAG_MASK;
        if (tag == NIO_TAG_CANCEL || tag == NIO_TAG_CANCEL_STREAM)
            uring->cancels--;
        if (tag != NIO_TAG_OP && tag != NIO_TAG_STREAM)
            continue;
        uring->submitted--;
        nio_driver_end(&uring->base, nio_uring_op_of(name), -EOWNERDEAD);
    }
    uring->published = head;
    uring->sq_entries = 0;
    nio_uring_cancel_forget(uring);
    struct numio_op *op;
    while ((op = nio_op_queue_pop(&uring->queue))) {
        bool is_cancelled = op->_place == NIO_OP_PLACE_QUEUED_CANCELLED;
        op->_place = NIO_OP_PLACE_RING;
        nio_driver_end(&uring->base, op, is_cancelled ? -ECANCELED : -EOWNERDEAD);
    }
    uring->queued_cancelled = 0;
    uring->base.flush_wanted = false;
    set_not_starved(uring);
}

/* Moves operations from the queue to the SQ while there are credits and room.  The cancelled ones
 * of the queue end here. */
static void feed(struct nio_uring *uring)
{
    if (NIO_LIKELY(!uring->queue.head))
        return;
    if (NIO_UNLIKELY(nio_uring_is_dead(uring))) {
        bury(uring);
        return;
    }
    /* [DU6] seq_cst: before the look at the credits.  Pairs with [DU7]. */
    atomic_store_explicit(&uring->starved, NIO_STARVED_WAITS, memory_order_seq_cst);
    unsigned room = nio_uring_sq_room(uring);
    unsigned credits = free_credits(uring);
    /* Bounded by the queue, of which each round takes one. */
    for (const struct numio_op *head; (head = uring->queue.head);) {
        unsigned needed = NIO_UNLIKELY(nio_op_is_linked(head)) ? chain_length(head) : 1;
        if (room < needed || credits < needed)
            break;
        struct numio_op *op = nio_op_queue_pop(&uring->queue);
        if (op->_place == NIO_OP_PLACE_QUEUED_CANCELLED) {
            end_queued(uring, op);
            continue;
        }
        push_op(uring, op);
        room--;
        credits--;
    }
    if (!uring->queue.head)
        set_not_starved(uring);
}

/* Ends the cancelled operations of the queue: one walk for any number of them. */
static void sweep(struct nio_uring *uring)
{
    struct nio_op_queue kept = { 0 };
    struct numio_op *op;
    while ((op = nio_op_queue_pop(&uring->queue))) {
        if (op->_place == NIO_OP_PLACE_QUEUED_CANCELLED)
            end_queued(uring, op);
        else
            nio_op_queue_push(&kept, op);
    }
    uring->queue = kept;
    if (!uring->queue.head)
        set_not_starved(uring);
}

/* The first operation that may need the kernel's threads has them made. */
static void prepare_for(struct nio_uring *uring, const struct numio_op *op)
{
    unsigned opcode = nio_op_opcode(op);
    if (NIO_UNLIKELY(!uring->has_iowq) && (opcode >= 64 || !(polled_opcodes >> opcode & 1)))
        nio_uring_start_iowq(uring);
}

void nio_uring_submit(struct nio_driver *driver, struct numio_op *op)
{
    struct nio_uring *uring = nio_uring_of(driver);
    prepare_for(uring, op);
    if (NIO_LIKELY(!uring->queue.head && nio_uring_sq_room(uring) > 0 && free_credits(uring) > 0)) {
        push_op(uring, op);
        return;
    }
    op->_place = NIO_OP_PLACE_QUEUED;
    nio_op_queue_push(&uring->queue, op);
    driver->flush_wanted = true;
    feed(uring); /* says that the queue waits */
}

unsigned nio_uring_chain_max(const struct nio_driver *driver)
{
    const struct nio_uring *uring = nio_uring_of_const(driver);
    return uring->sq_entries < uring->credits ? uring->sq_entries : uring->credits;
}

void nio_uring_submit_chain(struct nio_driver *driver, struct numio_op *ops, unsigned count)
{
    struct nio_uring *uring = nio_uring_of(driver);
    for (unsigned i = 0; i < count; i++)
        prepare_for(uring, &ops[i]);
    for (unsigned i = 0; i < count; i++) {
        if (nio_op_is_link_timeout(&ops[i]))
            ops[i]._sqe[NIO_OP_WORD_TIME] = (uintptr_t)ops[i]._time;
        ops[i]._place = NIO_OP_PLACE_QUEUED;
        nio_op_queue_push(&uring->queue, &ops[i]);
    }
    driver->flush_wanted = true;
    feed(uring);
}

/* Makes the filled SQEs visible.  True: there were some. */
static bool publish(struct nio_uring *uring)
{
    if (uring->published == uring->tail)
        return false;
    nio_tally_add(&uring->base.by_owner.sqes, uring->tail - uring->published);
    uring->published = uring->tail;
    if (uring->is_sqpoll)
        /* [DU1] seq_cst: publishes the SQEs, and is not passed by the look at the flags [DU5]. */
        atomic_store_explicit(uring->sq_tail, uring->tail, memory_order_seq_cst);
    else
        /* [DU1] release: publishes the SQEs; the kernel looks when it is entered. */
        atomic_store_explicit(uring->sq_tail, uring->tail, memory_order_release);
    return true;
}

static unsigned sq_flags(const struct nio_uring *uring)
{
    /* [DU5] seq_cst: after the tail was published [DU1]. */
    return atomic_load_explicit(uring->sq_flags, memory_order_seq_cst);
}

/* SQEs that an enter has to hand over; the SQ thread needs no telling. */
static unsigned to_submit(const struct nio_uring *uring)
{
    return uring->is_sqpoll ? 0 : uring->sq_entries - nio_uring_sq_room(uring);
}

/* The result of an enter; notes that the SQ thread has ended. */
static NIO_ALWAYS_INLINE int look_at(struct nio_uring *uring, int result)
{
    if (NIO_UNLIKELY(result == -EOWNERDEAD))
        /* relaxed: the owner's; for others a hint */
        atomic_store_explicit(&uring->is_dead, true, memory_order_relaxed);
    return result;
}

/* Inline, like all between the loop and the system call: the kernel leaves no predictions for the
 * returns behind, so each function less in this chain spares a mispredicted one. */
static NIO_ALWAYS_INLINE int enter_now(struct nio_uring *uring, unsigned submit, unsigned flags)
{
    nio_tally_add(&uring->base.by_owner.enters, 1);
    return look_at(uring, io_uring_enter2((unsigned)uring->enter_fd, submit, 0,
                                          flags | uring->enter_flags, NULL, 0));
}

int nio_uring_enter(struct nio_uring *uring, unsigned submit, unsigned min_complete, unsigned flags,
                    int64_t timeout_ns)
{
    if (min_complete == 0)
        return enter_now(uring, submit, flags);
    struct __kernel_timespec limit = { .tv_sec = timeout_ns / 1000000000,
                                       .tv_nsec = timeout_ns % 1000000000 };
    struct io_uring_getevents_arg arg = { .sigmask_sz = _NSIG / 8,
                                          .ts = timeout_ns < 0 ? 0 : (uintptr_t)&limit };
    nio_tally_add(&uring->base.by_owner.enters, 1);
    return look_at(uring, io_uring_enter2((unsigned)uring->enter_fd, submit, min_complete,
                                          flags | uring->enter_flags | IORING_ENTER_EXT_ARG,
                                          (sigset_t *)&arg, sizeof arg));
}

/* Has the ring watch the eventfd; the multishot poll stays until the kernel gives it up, which a
 * completion without F_MORE says.  False: there is no room in the SQ. */
static bool arm_wake(struct nio_uring *uring)
{
    if (uring->wake_armed)
        return true;
    if (nio_uring_sq_room(uring) == 0)
        return false;
    struct io_uring_sqe *sqe = nio_uring_next_sqe(uring);
    memset(sqe, 0, sizeof *sqe);
    io_uring_prep_poll_multishot(sqe, uring->base.wake_fd, POLLIN);
    sqe->user_data = NIO_TAG_WAKE;
    uring->wake_armed = true;
    return true;
}

/* Publishes, and lets the kernel take what the SQ holds.  False: it took nothing now and must be
 * asked again later (no memory for requests, or a CQ backlog that a reap has to clear). */
static NIO_ALWAYS_INLINE bool hand_over(struct nio_uring *uring)
{
    bool is_new = publish(uring);
    if (uring->is_sqpoll) {
        if (is_new && (sq_flags(uring) & IORING_SQ_NEED_WAKEUP))
            (void)enter_now(uring, 0, IORING_ENTER_SQ_WAKEUP); /* only wakes */
        return true;
    }
    unsigned count = to_submit(uring);
    if (count == 0 && !(sq_flags(uring) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)))
        return true;
    return enter_now(uring, count, IORING_ENTER_GETEVENTS) >= 0 || count == 0;
}

void nio_uring_flush(struct nio_driver *driver)
{
    struct nio_uring *uring = nio_uring_of(driver);
    if (uring->queued_cancelled)
        sweep(uring);
    bool is_taken;
    /* Bounded by the queue: each round moves at least one operation out of it. */
    do {
        unsigned before = uring->queue.count;
        feed(uring);
        is_taken = hand_over(uring);
        if (uring->queue.count == before)
            break;
    } while (is_taken && uring->queue.head);
    if (NIO_UNLIKELY(nio_uring_is_dead(uring)))
        bury(uring);
    /* What waits for a credit needs a reap, not a flush; what waits for room in the SQ of a busy
     * SQ thread needs another flush. */
    driver->flush_wanted = !is_taken || (uring->queue.head && free_credits(uring) > 0);
    driver->is_eager = uring->is_sqpoll;
    if (NIO_UNLIKELY(driver->polled) && !nio_polled_flush(driver))
        driver->flush_wanted = driver->is_eager = true;
}

void nio_uring_wait_for_room(struct nio_uring *uring)
{
    (void)hand_over(uring); /* the caller looks at the room */
    /* A sleep in the kernel, which leaves the core to an SQ thread that shares it; yields cost the
     * rest of a time slice each, measured 2 ms.  Not IORING_ENTER_SQ_WAIT, which has no limit:
     * timers, and whoever unparks, would wait for an SQ thread that does not get the CPU. */
    if (uring->is_sqpoll && nio_uring_sq_room(uring) == 0)
        (void)nio_uring_enter(uring, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP,
                              ROOM_WAIT_NS); /* likewise */
}

/* ---- completion: the owner or a sibling --------------------------------------------------- */

bool nio_uring_is_busy(const struct nio_driver *driver)
{
    const struct nio_uring *uring = nio_uring_of_const(driver);
    return nio_uring_cq_has_entries(uring) || nio_uring_sq_has_entries(uring);
}

bool nio_uring_has_completions(const struct nio_driver *driver)
{
    const struct nio_uring *uring = nio_uring_of_const(driver);
    if (nio_uring_cq_has_entries(uring) || nio_uring_cancel_is_due(uring))
        return true;
    if (NIO_UNLIKELY(nio_uring_is_dead(uring)))
        return false; /* the kernel says of its flags' meaning no more */
    /* relaxed: hints for a loop that looks again; the defer profile's owner is told here that the
     * kernel has work to finish in its name */
    return (atomic_load_explicit(uring->sq_flags, memory_order_relaxed) &
            (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0 ||
           /* relaxed: as above */
           atomic_load_explicit(&uring->starved, memory_order_relaxed) == NIO_STARVED_CREDITS_BACK;
}

/* What a copy of data by the kernel has driven out of the cache: the operation and what lies around
 * it, which is the stack of the coroutine that will be resumed, or the state of the future. */
static void prefetch_op(const struct numio_op *op)
{
    const char *lines = (const char *)op;
    for (int i = -3; i <= 2; i++)
        __builtin_prefetch(lines + i * NIO_CACHELINE);
}

/* A result as the system call would have it: an operation that is interrupted on a thread of io-wq
 * (the open of a FIFO that is cancelled) may end with ERESTARTSYS and its like, 512 and up, which
 * are the kernel's own. */
static NIO_ALWAYS_INLINE int32_t public_result(int32_t result)
{
    return NIO_UNLIKELY(result <= -KERNEL_ERRORS && result > -KERNEL_ERRORS_END) ? -EINTR : result;
}

/* Of an operation with two completions the first has the result, which is kept in the operation,
 * under cq_lock as the second is read; the second says that its memory is no longer read. */
static NIO_COLD bool is_last(struct finished *finished, unsigned flags)
{
    struct numio_op *op = nio_uring_op_of(finished->name);
    if (!(flags & IORING_CQE_F_NOTIF))
        op->_result = finished->result;
    else
        finished->result = op->_result;
    return (flags & IORING_CQE_F_MORE) == 0;
}

/* One of many completions, posted under cq_lock, so that they stay in their order. */
static void take_stream(struct nio_uring *uring, const struct io_uring_cqe *cqe, bool is_owner,
                        struct taken *taken)
{
    struct nio_multi *multi = nio_multi_of(nio_uring_op_of(cqe->user_data));
    bool is_last = (cqe->flags & IORING_CQE_F_MORE) == 0;
    int32_t buffer =
        cqe->flags & IORING_CQE_F_BUFFER ? (int32_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT) : -1;
    nio_driver_count_result(is_owner ? &uring->base.by_owner : &uring->base.by_siblings, &multi->op,
                            cqe->res, is_owner);
    taken->credits += is_last;
    if (NIO_UNLIKELY(nio_multi_has_enough(multi)))
        taken->full = is_last ? 0 : cqe->user_data;
    if (NIO_UNLIKELY(cqe->res == -ENOBUFS) && is_last && multi->kind == NIO_MULTI_RECV)
        nio_buf_note_starved(uring->base.buffers);
    if (is_last && !nio_op_take_name(&multi->op, cqe->user_data))
        NIO_ASSERT(!"a stream has ended twice, or was never submitted");
    /* With the last one it may be gone from here on. */
    struct nio_task *waiter = nio_multi_post(multi, public_result(cqe->res), buffer, is_last);
    if (waiter)
        taken->woken[taken->woken_count++] = waiter;
}

/* Takes one completion apart.  Returns false when the batch must end in front of it. */
static bool take_cqe(struct nio_uring *uring, const struct io_uring_cqe *cqe, bool is_owner,
                     struct taken *taken)
{
    struct finished *finished = &taken->batch[taken->count];
    switch (cqe->user_data & NIO_TAG_MASK) {
    case NIO_TAG_OP:
        finished->name = cqe->user_data;
        finished->result = cqe->res;
        if (NIO_UNLIKELY(cqe->flags & (IORING_CQE_F_MORE | IORING_CQE_F_NOTIF)) &&
            !is_last(finished, cqe->flags))
            return true;
        prefetch_op(nio_uring_op_of(cqe->user_data));
        taken->count++;
        taken->credits++;
        return true;
    case NIO_TAG_STREAM:
        if (!is_owner && nio_multi_has_enough(nio_multi_of(nio_uring_op_of(cqe->user_data))))
            return false; /* the owner ends it */
        take_stream(uring, cqe, is_owner, taken);
        return true;
    case NIO_TAG_WAKE:
        if (!is_owner)
            return false;
        if (!(cqe->flags & IORING_CQE_F_MORE))
            uring->wake_armed = false;
        return true;
    case NIO_TAG_MESSAGE:
        return is_owner;
    case NIO_TAG_CANCEL:
    case NIO_TAG_CANCEL_STREAM:
        if (NIO_UNLIKELY(cqe->res == -ENOENT || cqe->res == -EALREADY)) {
            if (!is_owner)
                return false;
            nio_uring_cancel_missed(uring, cqe->user_data, cqe->res);
        }
        taken->cancels++;
        return true;
    default:
        NIO_ASSERT(!"a completion with a tag that was never given");
        return true;
    }
}

static void add_under_lock(_Atomic uint64_t *counter, uint64_t value, bool is_owner)
{
    /* relaxed: only the holder of cq_lock writes */
    uint64_t value_now = atomic_load_explicit(counter, memory_order_relaxed) + value;
    if (is_owner)
        /* relaxed: the owner is who would be told of credits; nio_uring_in_flight() is its own */
        atomic_store_explicit(counter, value_now, memory_order_relaxed);
    else
        /* [DU7] seq_cst: a sibling's look at `starved` must not pass this store.  Pairs with
         * [DU6]. */
        atomic_store_explicit(counter, value_now, memory_order_seq_cst);
}

/* Copies at most `max` (<= BATCH) out: completed operations and wakes of streams. */
static void take_batch(struct nio_uring *uring, bool is_owner, unsigned max, struct taken *taken)
{
    taken->count = taken->woken_count = taken->seen = taken->credits = taken->cancels = 0;
    taken->full = 0;
    if (!nio_uring_cq_has_entries(uring) || !nio_lock_try(&uring->cq_lock))
        return;
    /* relaxed: only the holder of cq_lock writes the head */
    unsigned head = atomic_load_explicit(uring->cq_head, memory_order_relaxed);
    /* [DU3] acquire: as in nio_uring_cq_has_entries(). */
    unsigned tail = atomic_load_explicit(uring->cq_tail, memory_order_acquire);
    if (!is_owner)
        /* [DU1] acquire: sees the operations as the owner published them.  The kernel was in
         * between and has ordered it already; tools that do not know that are told here. */
        (void)atomic_load_explicit(uring->sq_tail, memory_order_acquire);
    unsigned first = head;
    while (head != tail && taken->count + taken->woken_count < max) {
        const struct io_uring_cqe *cqe = &uring->cqes[head & uring->cq_mask];
        if (!take_cqe(uring, cqe, is_owner, taken))
            break;
        head++;
    }
    /* [DU4] release: the completions were read before the kernel may overwrite them. */
    atomic_store_explicit(uring->cq_head, head, memory_order_release);
    if (taken->credits)
        add_under_lock(&uring->completed, taken->credits, is_owner);
    if (taken->cancels)
        add_under_lock(&uring->cancels_done, taken->cancels, is_owner);
    nio_lock_release_tried(&uring->cq_lock);
    taken->seen = head - first;
}

static void complete(struct nio_driver *driver, const struct taken *taken, bool is_owner)
{
    const struct finished *batch = taken->batch;
    struct nio_driver_tally *tally = is_owner ? &driver->by_owner : &driver->by_siblings;
    for (unsigned i = 0; i < taken->count; i++)
        __builtin_prefetch(nio_uring_op_of(batch[i].name)->_task);
    for (unsigned i = 0; i < taken->woken_count; i++)
        nio_multi_wake(taken->woken[i]);
    for (unsigned i = 0; i < taken->count; i++) {
        struct numio_op *op = nio_uring_op_of(batch[i].name);
        int32_t result = public_result(batch[i].result);
        if (NIO_UNLIKELY(!nio_op_take_name(op, batch[i].name)))
            NIO_ASSERT(!"a completion came twice, or of an operation that was never submitted");
        nio_driver_count_result(tally, op, result, is_owner);
        if (NIO_UNLIKELY(nio_op_kind(op) == NIO_OP_LINKED))
            nio_chain_end_op(driver, op, result, is_owner);
        else
            nio_op_done(op, result); /* it may be gone from here on */
    }
}

/* Has the kernel post what it has ready, if it says so; what is to be submitted goes with the same
 * system call, unless the kernel would take nothing and then not get to posting. */
static void fill_cq(struct nio_uring *uring)
{
    unsigned flags = sq_flags(uring);
    if (NIO_LIKELY(!(flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))))
        return;
    if (!(flags & IORING_SQ_CQ_OVERFLOW)) {
        nio_uring_flush(&uring->base);
        if (!uring->base.flush_wanted)
            return;
    }
    (void)nio_uring_enter(uring, 0, 0, IORING_ENTER_GETEVENTS, -1); /* fills the CQ, or not */
}

unsigned nio_uring_reap(struct nio_driver *driver, unsigned max)
{
    struct nio_uring *uring = nio_uring_of(driver);
    struct taken taken;
    if (uring->queued_cancelled)
        sweep(uring);
    nio_uring_cancel_again(uring);
    unsigned done = nio_driver_reap_local(driver, max);
    fill_cq(uring);
    unsigned want, count;
    do { /* until the CQ was empty, or there is enough */
        want = max - done < BATCH ? max - done : BATCH;
        take_batch(uring, true, want, &taken);
        if (taken.seen)
            nio_tally_add(&driver->by_owner.cqes, taken.seen);
        complete(driver, &taken, true);
        if (NIO_UNLIKELY(taken.full != 0))
            nio_uring_cancel_named(uring, taken.full);
        count = taken.count + taken.woken_count;
        done += count;
    } while (count == want && done < max);
    feed(uring);
    return done;
}

/* A sibling returned credits: lets the owner know if it waits for some. */
static void tell_starved(struct nio_uring *uring)
{
    uint32_t expected = NIO_STARVED_WAITS;
    /* [DU7] seq_cst: after the credits were returned.  Pairs with [DU6].  relaxed on failure: the
     * owner does not wait, or was told. */
    if (atomic_compare_exchange_strong_explicit(&uring->starved, &expected,
                                                NIO_STARVED_CREDITS_BACK, memory_order_seq_cst,
                                                memory_order_relaxed))
        nio_driver_unpark(&uring->base);
}

unsigned nio_uring_reap_for(struct nio_driver *driver, unsigned max)
{
    struct nio_uring *uring = nio_uring_of(driver);
    struct taken taken;
    take_batch(uring, false, max < BATCH ? max : BATCH, &taken);
    if (!taken.seen)
        return 0;
    tell_starved(uring);
    unsigned count = taken.count + taken.woken_count;
    nio_tally_add_shared(&driver->by_siblings.cqes, taken.seen);
    nio_tally_add_shared(&driver->by_siblings.reaped_for, count);
    complete(driver, &taken, false);
    return count;
}

unsigned nio_uring_in_flight(const struct nio_driver *driver)
{
    const struct nio_uring *uring = nio_uring_of_const(driver);
    /* [DU6] acquire: pairs with [DU7]; what a reaper wrote before is seen with the number. */
    uint64_t completed = atomic_load_explicit(&uring->completed, memory_order_acquire);
    return (unsigned)(uring->submitted - completed) + uring->queue.count;
}

struct io_uring *nio_uring_ring(struct nio_driver *driver)
{
    return &nio_uring_of(driver)->ring;
}

int nio_uring_fd(const struct nio_driver *driver)
{
    return nio_uring_of_const(driver)->ring.ring_fd;
}

/* ---- sleeping: the owner ------------------------------------------------------------------ */

/* Feeds the queue as far as credits go, also when that takes several fillings of the SQ.  False:
 * the kernel takes nothing now. */
static bool drain_queue(struct nio_uring *uring)
{
    if (uring->queued_cancelled)
        sweep(uring);
    feed(uring);
    /* Bounded by the queue: each round waits for room and moves at least one operation, or ends. */
    while (uring->queue.head && free_credits(uring) > 0) {
        unsigned before = uring->queue.count;
        nio_uring_wait_for_room(uring);
        feed(uring);
        if (uring->queue.count == before)
            return false;
    }
    return true;
}

static void sleep_in_ring(struct nio_uring *uring, int64_t limit_ns)
{
    unsigned flags = IORING_ENTER_GETEVENTS;
    (void)publish(uring); /* the enter below tells the kernel */
    if (uring->is_sqpoll && (sq_flags(uring) & IORING_SQ_NEED_WAKEUP))
        flags |= IORING_ENTER_SQ_WAKEUP;
    /* Whatever the result (a completion, a signal, the time), the caller looks around. */
    (void)nio_uring_enter(uring, to_submit(uring), 1, flags, limit_ns);
    uring->base.flush_wanted = to_submit(uring) > 0;
    uring->base.is_eager = uring->is_sqpoll;
}

int nio_uring_send_message(const struct nio_uring *uring)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_msg_ring(&sqe, uring->ring.ring_fd, 0, NIO_TAG_MESSAGE, 0);
    return syscall(SYS_io_uring_register, -1, NIO_REGISTER_SEND_MSG_RING, &sqe, 1) < 0 ? -errno : 0;
}

void nio_uring_wake(struct nio_driver *driver)
{
    const struct nio_uring *uring = nio_uring_of_const(driver);
    if (!uring->has_message || nio_uring_send_message(uring) != 0)
        /* Fails only when the counter is at its end, which takes 2^64 wakes. */
        (void)eventfd_write(driver->wake_fd, 1);
}

/* Without an SQ thread the ring cannot be slept in.  What is still in the kernel ends by itself and
 * wakes nobody: hence the naps. */
static void park_dead(struct nio_uring *uring, int64_t limit_ns)
{
    bury(uring);
    if (limit_ns == 0 || uring->base.ended.head || nio_uring_cq_has_entries(uring))
        return;
    if (nio_uring_in_flight(&uring->base) > 0 && (limit_ns < 0 || limit_ns > DEAD_NAP_NS))
        limit_ns = DEAD_NAP_NS;
    if (!nio_driver_announce_sleep(&uring->base, NIO_DRIVER_ASLEEP_FUTEX))
        return;
    nio_driver_sleep_futex(&uring->base, limit_ns);
    nio_driver_end_sleep(&uring->base);
}

void nio_uring_park(struct nio_driver *driver, int64_t limit_ns)
{
    struct nio_uring *uring = nio_uring_of(driver);
    if (NIO_UNLIKELY(nio_uring_is_dead(uring))) {
        park_dead(uring, limit_ns);
        return;
    }
    limit_ns = nio_uring_cancel_limit(uring, limit_ns);
    if (NIO_UNLIKELY(driver->polled) && nio_polled_in_flight(driver->polled) > 0 &&
        nio_polled_park(driver, &limit_ns))
        return;
    if (!drain_queue(uring) || limit_ns == 0 || driver->ended.head ||
        nio_uring_has_completions(driver)) {
        nio_uring_flush(driver);
        return;
    }
    bool is_idle = nio_uring_in_flight(driver) == 0 && uring->tail == uring->published &&
                   nio_uring_cancels_in_flight(uring) == 0;
    if (!is_idle && !arm_wake(uring)) {
        nio_uring_wait_for_room(uring);
        if (!arm_wake(uring))
            return; /* the kernel takes nothing now: the caller comes back */
    }
    bool may_sleep = nio_driver_announce_sleep(driver, is_idle ? NIO_DRIVER_ASLEEP_FUTEX
                                                               : NIO_DRIVER_ASLEEP_KERNEL);
    if (!may_sleep) {
        nio_uring_flush(driver);
        return;
    }
    if (is_idle)
        nio_driver_sleep_futex(driver, limit_ns);
    else
        sleep_in_ring(uring, limit_ns);
    nio_driver_end_sleep(driver);
}
