/* SPDX-License-Identifier: MIT */
/* The ring between one sender and one receiver.
 *
 * `tail` and `head` only rise.  Each side has its own on a cache line of its own, beside the last
 * it has seen of the other's, and looks at that again only when it seems to have run out: in steady
 * state a line crosses once for many messages (the cached indices are those of MCRingBuffer: Lee,
 * Bu and Chandranmenon, 2010).  Many at once are published by one store.
 *
 * Each side may wait: it leaves in a word which position it waits to move, and beside it the wait,
 * and looks for the last time whether the other has moved; who has moved looks whether the other
 * waits for that.  Both are seq_cst, so one of the two sees the other [SP1] to [SP4].  Whoever
 * takes the position out of the word, by a CAS, ends the wait, and acts for the waiting side until
 * then: the sender copies what is there to the waiting receiver's memory and moves `head`, the
 * receiver adds the waiting sender's message and moves `tail`.  That a side has left and waits
 * again does not matter: a wait for the same position is as good, and one for a later position is
 * another word.
 *
 * A future that receives is only told, and takes when it polls: it may have been aborted by then,
 * and what it was not given need not go back.
 *
 * Nobody waits for a lock: each call ends after a bounded number of steps.
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

/* A side that may wait. */
struct side {
    _Atomic uint64_t position; /* that it waits to move, plus 1; 0: it does not wait */
    struct numio_op *op;       /* then: by what; who takes the position reads it */
};

struct numio_spsc {
    /* constant after create */
    NIO_CACHE_ALIGNED size_t message_bytes;
    size_t slot_bytes, bytes;
    uint64_t capacity, slot_mask;
    struct nio_node_arena *arena; /* NULL: from malloc() */
    /* the sender, or who acts for it; others read `tail` */
    NIO_CACHE_ALIGNED _Atomic uint64_t tail;
    uint64_t head_seen;
    /* the receiver, or who acts for it; others read `head` */
    NIO_CACHE_ALIGNED _Atomic uint64_t head;
    uint64_t tail_seen;
    /* both, RMW */
    NIO_CACHE_ALIGNED struct side receiver;
    struct side sender;
    _Atomic uint32_t is_closed;
    NIO_CACHE_ALIGNED unsigned char slots[];
};

/* ---- create, destroy ----------------------------------------------------------------------- */

static int find_arena(struct numio_handle *handle, int node, struct nio_node_arena **ret_arena)
{
    *ret_arena = NULL;
    if (node == NUMIO_NODE_ANY)
        return 0;
    handle = nio_handle_resolve(handle);
    if (!handle || node < 0 || node >= (int)handle->node_count)
        return nio_error(-EINVAL, "spsc: there is no node %d", node);
    *ret_arena = handle->nodes[node]->arena;
    return 0;
}

int numio_spsc_create(struct numio_handle *handle, int node, size_t message_bytes,
                      uint64_t capacity, struct numio_spsc **ret_spsc)
{
    struct nio_node_arena *arena;
    uint64_t slots = 1;
    size_t bytes;
    if (message_bytes == 0 || message_bytes > NUMIO_MESSAGE_BYTES_MAX || capacity == 0)
        return nio_error(-EINVAL, "spsc: messages of %zu bytes, a capacity of %llu", message_bytes,
                         (unsigned long long)capacity);
    int rc = find_arena(handle, node, &arena);
    if (rc)
        return rc;
    if (capacity > UINT64_MAX / 4)
        return nio_error(-ENOMEM, "spsc: a capacity of 2^62 or more");
    while (slots < capacity)
        slots *= 2;
    size_t slot_bytes = message_bytes < 8 ? message_bytes : nio_align_up(message_bytes, 8);
    if (__builtin_mul_overflow(slots, slot_bytes, &bytes) ||
        __builtin_add_overflow(bytes, sizeof(struct numio_spsc), &bytes))
        return -ENOMEM;
    struct numio_spsc *spsc =
        arena ? nio_node_arena_alloc(arena, bytes, NIO_CACHELINE) : nio_zalloc(bytes);
    if (!spsc)
        return -ENOMEM;
    memset(spsc, 0, sizeof *spsc);
    spsc->message_bytes = message_bytes;
    spsc->slot_bytes = slot_bytes;
    spsc->bytes = bytes;
    spsc->capacity = capacity;
    spsc->slot_mask = slots - 1;
    spsc->arena = arena;
    *ret_spsc = spsc;
    return 0;
}

void numio_spsc_destroy(struct numio_spsc *spsc)
{
    if (!spsc)
        return;
    /* relaxed, both: nobody uses it any more */
    NIO_ASSERT(!atomic_load_explicit(&spsc->receiver.position, memory_order_relaxed) &&
               !atomic_load_explicit(&spsc->sender.position, memory_order_relaxed));
    if (spsc->arena)
        nio_node_arena_free(spsc->arena, spsc, spsc->bytes, NIO_CACHELINE);
    else
        nio_free(spsc);
}

/* ---- waits --------------------------------------------------------------------------------- */

static void *memory_of(const struct numio_op *op)
{
    return (void *)(uintptr_t)op->_sqe[NIO_WAIT_WORD_ARG];
}

static uint64_t wanted(const struct numio_op *op)
{
    uint64_t count = op->_sqe[NIO_WAIT_WORD_ARG2];
    return count ? count : 1;
}

static int32_t recv_result(const struct numio_op *op, uint64_t count)
{
    return op->_sqe[NIO_WAIT_WORD_ARG2] ? (int32_t)count : 0;
}

/* Says that the side waits to move this position.  False: another does. */
static bool enter(struct side *side, uint64_t position, struct numio_op *op)
{
    uint64_t nobody = 0;
    /* relaxed: for misuse only */
    if (atomic_load_explicit(&side->position, memory_order_relaxed) != 0)
        return false;
    side->op = op;
    /* [SP4] seq_cst: publishes the wait and its side, before the last look at the other's.  Pairs
     * with [SP2].  relaxed on failure: nothing is read. */
    return atomic_compare_exchange_strong_explicit(&side->position, &nobody, position + 1,
                                                   memory_order_seq_cst, memory_order_relaxed);
}

/* The waiting side takes its own wait back.  False: somebody has taken it, and ends it. */
static bool leave(struct side *side, uint64_t position)
{
    uint64_t mine = position + 1;
    /* relaxed: what was published is the caller's own */
    return atomic_compare_exchange_strong_explicit(&side->position, &mine, 0, memory_order_relaxed,
                                                   memory_order_relaxed);
}

/* What the other side waits to move, plus 1; 0: it does not wait. */
static uint64_t waits_for(const struct side *side)
{
    /* [SP2] seq_cst: after [SP1].  Pairs with [SP4]. */
    return atomic_load_explicit(&side->position, memory_order_seq_cst);
}

/* Takes the other side's wait, and wins it.  NULL: it does not wait any more. */
static struct numio_op *take_wait(struct side *side, uint64_t word)
{
    /* [SP2] acquire: sees the wait and its side.  Pairs with [SP4].  relaxed on failure: it has
     * looked for the last time since. */
    if (!atomic_compare_exchange_strong_explicit(&side->position, &word, 0, memory_order_acquire,
                                                 memory_order_relaxed))
        return NULL;
    if (nio_wait_claim(side->op))
        return side->op;
    nio_wait_done(side->op, -ECANCELED); /* its selection has chosen another */
    return NULL;
}

static bool is_closed(const struct numio_spsc *spsc)
{
    /* [SP5] seq_cst: sees what the closing side has sent; after [SP4].  Pairs with [SP6]. */
    return atomic_load_explicit(&spsc->is_closed, memory_order_seq_cst);
}

/* ---- the sides ----------------------------------------------------------------------------- */

static uint64_t load_own(const _Atomic uint64_t *position)
{
    /* relaxed: the caller's own side, or a figure */
    return atomic_load_explicit(position, memory_order_relaxed);
}

static uint64_t load_other(const _Atomic uint64_t *position)
{
    /* [SP3] seq_cst: sees the messages up to there, or that they were read; after [SP4].  Pairs
     * with [SP1]. */
    return atomic_load_explicit(position, memory_order_seq_cst);
}

static void publish(_Atomic uint64_t *position, uint64_t value)
{
    /* [SP1] seq_cst: publishes the messages, or that they were read, before the look whether the
     * other side waits.  Pairs with [SP3], [SP2]. */
    (void)atomic_exchange_explicit(position, value, memory_order_seq_cst);
}

static unsigned char *slot(struct numio_spsc *spsc, uint64_t position)
{
    return spsc->slots + (position & spsc->slot_mask) * spsc->slot_bytes;
}

static NIO_ALWAYS_INLINE void copy(void *to, const void *from, size_t bytes)
{
    if (bytes == 8)
        memcpy(to, from, 8);
    else
        memcpy(to, from, bytes);
}

/* Adds up to `count` messages; returns how many. */
static NIO_ALWAYS_INLINE uint64_t put(struct numio_spsc *spsc, const void *messages, uint64_t count)
{
    const unsigned char *from = messages;
    uint64_t tail = load_own(&spsc->tail), room = spsc->capacity - (tail - spsc->head_seen);
    if (room < count) {
        spsc->head_seen = load_other(&spsc->head);
        room = spsc->capacity - (tail - spsc->head_seen);
    }
    if (room < count)
        count = room;
    if (count == 0)
        return 0;
    for (uint64_t i = 0; i < count; i++, from += spsc->message_bytes)
        copy(slot(spsc, tail + i), from, spsc->message_bytes);
    publish(&spsc->tail, tail + count);
    return count;
}

/* Takes up to `count` messages; returns how many. */
static NIO_ALWAYS_INLINE uint64_t take(struct numio_spsc *spsc, void *ret_messages, uint64_t count)
{
    unsigned char *to = ret_messages;
    uint64_t head = load_own(&spsc->head), there = spsc->tail_seen - head;
    if (there < count) {
        spsc->tail_seen = load_other(&spsc->tail);
        there = spsc->tail_seen - head;
    }
    if (there < count)
        count = there;
    if (count == 0)
        return 0;
    for (uint64_t i = 0; i < count; i++, to += spsc->message_bytes)
        copy(to, slot(spsc, head + i), spsc->message_bytes);
    publish(&spsc->head, head + count);
    return count;
}

/* The sender has sent up to `tail`, or closed: the receiver that waits gets what is there. */
static NIO_NOINLINE void end_receiver(struct numio_spsc *spsc, uint64_t word, uint64_t tail)
{
    bool is_empty = word - 1 == tail; /* it waits for the next */
    if (is_empty && !is_closed(spsc))
        return;
    struct numio_op *op = take_wait(&spsc->receiver, word);
    if (!op)
        return;
    if (is_empty)
        nio_wait_done(op, -EPIPE);
    else if (nio_wait_is_of_future(op))
        nio_wait_done(op, 0); /* it takes when it polls */
    else
        nio_wait_done(op, recv_result(op, take(spsc, memory_of(op), wanted(op))));
}

/* The receiver has taken up to `head`, or closed: the sender that waits has its message sent. */
static NIO_NOINLINE void end_sender(struct numio_spsc *spsc, uint64_t word, uint64_t head)
{
    bool is_over = is_closed(spsc);
    if (word - 1 - head >= spsc->capacity && !is_over)
        return; /* it waits for the next */
    struct numio_op *op = take_wait(&spsc->sender, word);
    if (!op)
        return;
    if (!is_over)
        (void)put(spsc, memory_of(op), 1); /* there is room */
    nio_wait_done(op, is_over ? -EPIPE : 0);
}

/* ---- sending ------------------------------------------------------------------------------- */

static NIO_ALWAYS_INLINE int64_t send_some(struct numio_spsc *spsc, const void *messages,
                                           uint64_t count)
{
    if (NIO_UNLIKELY(is_closed(spsc)))
        return -EPIPE;
    uint64_t sent = put(spsc, messages, count);
    if (NIO_UNLIKELY(sent == 0))
        return -EAGAIN;
    uint64_t word = waits_for(&spsc->receiver);
    if (NIO_UNLIKELY(word))
        end_receiver(spsc, word, load_own(&spsc->tail));
    return (int64_t)sent;
}

static bool send_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_spsc *spsc = nio_wait_object(op);
    uint64_t tail = load_own(&spsc->tail);
    if (!is_closed(spsc) && tail - load_other(&spsc->head) >= spsc->capacity) {
        *ret_result = -EBUSY;
        if (!enter(&spsc->sender, tail, op))
            return true;
        bool must_wait = !is_closed(spsc) && tail - load_other(&spsc->head) >= spsc->capacity;
        if (must_wait || !leave(&spsc->sender, tail))
            return false; /* somebody ends it */
    }
    *ret_result = -ECANCELED;
    if (nio_wait_claim(op)) {
        int64_t n = send_some(spsc, memory_of(op), 1);
        *ret_result = n > 0 ? 0 : (int32_t)n;
    }
    return true;
}

static bool send_leave(struct numio_op *op)
{
    struct numio_spsc *spsc = nio_wait_object(op);
    return leave(&spsc->sender, load_own(&spsc->tail)); /* moved: then it was taken */
}

static const struct nio_wait_class send_kind = { send_begin, send_leave, NULL };

void numio_op_spsc_send(struct numio_op *op, struct numio_spsc *spsc, const void *message)
{
    nio_wait_prep(op, &send_kind, spsc, (uintptr_t)message);
}

static NIO_NOINLINE int send_slow(struct numio_spsc *spsc, const void *message)
{
    struct numio_op op;
    numio_op_spsc_send(&op, spsc, message);
    int rc = nio_wait_await(&op);
    return rc == -EBUSY ? nio_error(rc, "spsc: two send, and it is for one") : rc;
}

int numio_spsc_try_send(struct numio_spsc *spsc, const void *message)
{
    int64_t n = send_some(spsc, message, 1);
    return n > 0 ? 0 : (int)n;
}

int numio_spsc_send(struct numio_spsc *spsc, const void *message)
{
    nio_charge();
    int64_t n = send_some(spsc, message, 1);
    if (NIO_LIKELY(n > 0))
        return 0;
    return n == -EAGAIN ? send_slow(spsc, message) : (int)n;
}

int64_t numio_spsc_send_many(struct numio_spsc *spsc, const void *messages, size_t count)
{
    const unsigned char *from = messages;
    size_t sent = 0;
    while (sent < count) {
        nio_charge();
        int64_t n = send_some(spsc, from + sent * spsc->message_bytes, count - sent);
        if (n == -EAGAIN) {
            n = send_slow(spsc, from + sent * spsc->message_bytes);
            n = n ? n : 1;
        }
        if (n < 0)
            return sent > 0 ? (int64_t)sent : n;
        sent += (size_t)n;
    }
    return (int64_t)sent;
}

/* ---- receiving ----------------------------------------------------------------------------- */

/* How many came; -EAGAIN, -EPIPE. */
static NIO_ALWAYS_INLINE int64_t recv_some(struct numio_spsc *spsc, void *ret_messages,
                                           uint64_t count)
{
    uint64_t taken = take(spsc, ret_messages, count);
    if (NIO_UNLIKELY(taken == 0)) {
        if (NIO_LIKELY(!is_closed(spsc)))
            return -EAGAIN;
        taken = take(spsc, ret_messages, count); /* what was sent before the close */
        if (taken == 0)
            return -EPIPE;
    }
    uint64_t word = waits_for(&spsc->sender);
    if (NIO_UNLIKELY(word))
        end_sender(spsc, word, load_own(&spsc->head));
    return (int64_t)taken;
}

static bool recv_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_spsc *spsc = nio_wait_object(op);
    uint64_t head = load_own(&spsc->head);
    if (!is_closed(spsc) && load_other(&spsc->tail) == head) {
        *ret_result = -EBUSY;
        if (!enter(&spsc->receiver, head, op))
            return true;
        bool must_wait = !is_closed(spsc) && load_other(&spsc->tail) == head;
        if (must_wait || !leave(&spsc->receiver, head))
            return false; /* somebody ends it */
    }
    *ret_result = -ECANCELED;
    if (!nio_wait_claim(op))
        return true;
    *ret_result = 0;
    if (nio_wait_is_of_future(op) && load_other(&spsc->tail) != head)
        return true; /* it takes when it polls */
    int64_t n = recv_some(spsc, memory_of(op), wanted(op));
    *ret_result = n > 0 ? recv_result(op, (uint64_t)n) : (int32_t)n;
    return true;
}

static bool recv_leave(struct numio_op *op)
{
    struct numio_spsc *spsc = nio_wait_object(op);
    return leave(&spsc->receiver, load_own(&spsc->head)); /* moved: then it was taken */
}

static int32_t recv_take(struct numio_op *op)
{
    int64_t n = recv_some(nio_wait_object(op), memory_of(op), wanted(op));
    NIO_DEBUG_ASSERT(n > 0);
    return recv_result(op, (uint64_t)n);
}

static const struct nio_wait_take_class recv_kind = { { recv_begin, recv_leave, NULL }, recv_take };

static void prepare_recv(struct numio_op *op, struct numio_spsc *spsc, void *ret_messages,
                         size_t count)
{
    nio_wait_prep_take(op, &recv_kind, spsc, (uintptr_t)ret_messages);
    op->_sqe[NIO_WAIT_WORD_ARG2] = count;
}

void numio_op_spsc_recv(struct numio_op *op, struct numio_spsc *spsc, void *ret_message)
{
    prepare_recv(op, spsc, ret_message, 0);
}

void numio_op_spsc_recv_many(struct numio_op *op, struct numio_spsc *spsc, void *ret_messages,
                             size_t count)
{
    prepare_recv(op, spsc, ret_messages, count < INT32_MAX ? count : INT32_MAX);
}

/* `count` 0: the one of numio_spsc_recv(). */
static NIO_NOINLINE int32_t recv_slow(struct numio_spsc *spsc, void *ret_messages, size_t count)
{
    struct numio_op op;
    prepare_recv(&op, spsc, ret_messages, count);
    int32_t rc = nio_wait_await(&op);
    return rc == -EBUSY ? nio_error(rc, "spsc: two receive, and it is for one") : rc;
}

int numio_spsc_try_recv(struct numio_spsc *spsc, void *ret_message)
{
    int64_t n = recv_some(spsc, ret_message, 1);
    return n > 0 ? 0 : (int)n;
}

int numio_spsc_recv(struct numio_spsc *spsc, void *ret_message)
{
    nio_charge();
    int64_t n = recv_some(spsc, ret_message, 1);
    if (NIO_LIKELY(n > 0))
        return 0;
    return n == -EAGAIN ? recv_slow(spsc, ret_message, 0) : (int)n;
}

int64_t numio_spsc_recv_many(struct numio_spsc *spsc, void *ret_messages, size_t count)
{
    if (count == 0)
        return 0;
    if (count > INT32_MAX)
        count = INT32_MAX;
    nio_charge();
    int64_t n = recv_some(spsc, ret_messages, count);
    return n == -EAGAIN ? recv_slow(spsc, ret_messages, count) : n;
}

/* ---- closing, figures ---------------------------------------------------------------------- */

void numio_spsc_close(struct numio_spsc *spsc)
{
    /* [SP6] seq_cst: after what the caller has sent, before the look whether the other side waits.
     * Pairs with [SP5]. */
    atomic_store_explicit(&spsc->is_closed, 1, memory_order_seq_cst);
    uint64_t word = waits_for(&spsc->receiver);
    if (word)
        end_receiver(spsc, word, load_other(&spsc->tail));
    word = waits_for(&spsc->sender);
    if (word)
        end_sender(spsc, word, load_other(&spsc->head));
}

uint64_t numio_spsc_len(const struct numio_spsc *spsc)
{
    uint64_t head = load_own(&spsc->head), tail = load_own(&spsc->tail);
    return tail > head ? tail - head : 0;
}
