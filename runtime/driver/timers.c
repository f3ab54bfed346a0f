/* SPDX-License-Identifier: MIT */
/* Each node of the heap has its first child, its next sibling, and a back link to its previous
 * sibling or, for a first child, to its parent; the root has no sibling and no back link.  The
 * links lie in the request's image, which a timeout never sends anywhere.
 */
#include "runtime/driver/timers.h"

#include <stddef.h>

#include "runtime/base/assert.h"

static const uint64_t ns_per_s = 1000000000;

static uint64_t deadline_of(const struct numio_op *op)
{
    return op->_sqe[NIO_OP_WORD_DEADLINE];
}

static struct numio_op *child_of(const struct numio_op *op)
{
    return nio_op_word(op, NIO_OP_WORD_CHILD);
}

static struct numio_op *sibling_of(const struct numio_op *op)
{
    return nio_op_word(op, NIO_OP_WORD_SIBLING);
}

static struct numio_op *back_of(const struct numio_op *op)
{
    return nio_op_word(op, NIO_OP_WORD_BACK);
}

/* Makes one heap of two roots without siblings; either may be NULL. */
static struct numio_op *meld(struct numio_op *a, struct numio_op *b)
{
    if (!a || !b)
        return a ? a : b;
    struct numio_op *parent = deadline_of(b) < deadline_of(a) ? b : a;
    struct numio_op *child = parent == a ? b : a;
    struct numio_op *next = child_of(parent);
    nio_op_set_word(child, NIO_OP_WORD_SIBLING, next);
    nio_op_set_word(child, NIO_OP_WORD_BACK, parent);
    if (next)
        nio_op_set_word(next, NIO_OP_WORD_BACK, child);
    nio_op_set_word(parent, NIO_OP_WORD_CHILD, child);
    return parent;
}

static void isolate(struct numio_op *op)
{
    nio_op_set_word(op, NIO_OP_WORD_SIBLING, NULL);
    nio_op_set_word(op, NIO_OP_WORD_BACK, NULL);
}

/* Makes one heap of a list of siblings: in pairs from the left, then all pairs from the right.
 * Bounded by the number of siblings. */
static struct numio_op *meld_siblings(struct numio_op *first)
{
    struct numio_op *pairs = NULL;
    while (first) {
        struct numio_op *a = first;
        struct numio_op *b = sibling_of(a);
        first = b ? sibling_of(b) : NULL;
        isolate(a);
        if (b)
            isolate(b);
        struct numio_op *pair = meld(a, b);
        nio_op_set_word(pair, NIO_OP_WORD_SIBLING, pairs);
        pairs = pair;
    }
    struct numio_op *root = NULL;
    while (pairs) {
        struct numio_op *pair = pairs;
        pairs = sibling_of(pair);
        isolate(pair);
        root = meld(root, pair);
    }
    return root;
}

static void set_root(struct nio_timers *timers, struct numio_op *root)
{
    timers->root = root;
    uint64_t next_ns = root ? deadline_of(root) : NIO_TIMERS_NONE;
    /* relaxed: only the number matters to a reader */
    atomic_store_explicit(&timers->next_ns, next_ns, memory_order_relaxed);
}

void nio_timers_init(struct nio_timers *timers)
{
    timers->root = NULL;
    timers->count = 0;
    atomic_init(&timers->next_ns, NIO_TIMERS_NONE);
}

void nio_timers_add(struct nio_timers *timers, struct numio_op *op, uint64_t now_ns)
{
    uint64_t deadline_ns;
    if (__builtin_mul_overflow((uint64_t)op->_time[0], ns_per_s, &deadline_ns) ||
        __builtin_add_overflow(deadline_ns, (uint64_t)op->_time[1], &deadline_ns) ||
        __builtin_add_overflow(deadline_ns, now_ns, &deadline_ns))
        deadline_ns = NIO_TIMERS_NONE - 1; /* centuries away */
    op->_sqe[NIO_OP_WORD_DEADLINE] = deadline_ns;
    nio_op_set_word(op, NIO_OP_WORD_CHILD, NULL);
    isolate(op);
    op->_sqe[NIO_OP_WORD_IN_HEAP] = 1;
    timers->count++;
    set_root(timers, meld(timers->root, op));
}

bool nio_timers_remove(struct nio_timers *timers, struct numio_op *op)
{
    if (!op->_sqe[NIO_OP_WORD_IN_HEAP])
        return false;
    NIO_DEBUG_ASSERT(timers->count > 0);
    op->_sqe[NIO_OP_WORD_IN_HEAP] = 0;
    struct numio_op *rest = meld_siblings(child_of(op));
    timers->count--;
    if (op == timers->root) {
        set_root(timers, rest);
        return true;
    }
    struct numio_op *back = back_of(op);
    struct numio_op *next = sibling_of(op);
    if (child_of(back) == op)
        nio_op_set_word(back, NIO_OP_WORD_CHILD, next);
    else
        nio_op_set_word(back, NIO_OP_WORD_SIBLING, next);
    if (next)
        nio_op_set_word(next, NIO_OP_WORD_BACK, back);
    set_root(timers, meld(timers->root, rest));
    return true;
}

struct numio_op *nio_timers_take_due(struct nio_timers *timers, uint64_t now_ns)
{
    struct numio_op *op = timers->root;
    if (!op || deadline_of(op) > now_ns)
        return NULL;
    (void)nio_timers_remove(timers, op); /* it is there */
    return op;
}

/* The node after `op` in a walk of the whole heap, parents first, or NULL.  The way up from a
 * last sibling leads over the back links to the parent: the node whose first child we were. */
static const struct numio_op *walk(const struct numio_op *op)
{
    if (child_of(op))
        return child_of(op);
    while (op && !sibling_of(op)) {
        const struct numio_op *back = back_of(op);
        while (back && child_of(back) != op) {
            op = back;
            back = back_of(op);
        }
        op = back;
    }
    return op ? sibling_of(op) : NULL;
}

bool nio_timers_check(const struct nio_timers *timers)
{
    unsigned seen = 0;
    if (timers->root && (sibling_of(timers->root) || back_of(timers->root)))
        return false;
    for (const struct numio_op *op = timers->root; op && seen <= timers->count; op = walk(op)) {
        const struct numio_op *child = child_of(op);
        const struct numio_op *next = sibling_of(op);
        if ((child && back_of(child) != op) || (next && back_of(next) != op))
            return false;
        if (child && deadline_of(child) < deadline_of(op))
            return false;
        seen++;
    }
    uint64_t next_ns = timers->root ? deadline_of(timers->root) : NIO_TIMERS_NONE;
    return seen == timers->count && nio_timers_next_ns(timers) == next_ns;
}
