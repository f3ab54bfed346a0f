/* SPDX-License-Identifier: MIT */
/* alloc/stack.h: one coroutine stack, as its user sees it.
 *
 * The control block lies outside of the stack, in an array at the front of its slab: an overflow
 * cannot reach it, 64 of them share a page, and the whole stack of an idle one can be given back
 * to the kernel.  It costs one cache line besides the page that a coroutine touches anyway.
 *
 *   guard page | low ......... stack grows down ......... high | colour |
 *
 * `high` differs from stack to stack by up to 15 * 128 bytes (the colour): with all stacks a
 * multiple of 4 KiB apart, their hot ends would otherwise all fall into the same few sets of the
 * L1 cache.  Visiting six lines of each of ten stacks in turn took 24 ns a stack without, 11 with;
 * beyond forty stacks there is no difference.  More colours would cost a second page.
 *
 * A stack belongs to whoever allocated it until it is freed; only `owner` may be read meanwhile.
 */
#ifndef NIO_ALLOC_STACK_H
#define NIO_ALLOC_STACK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/compiler.h"
#include "runtime/base/mpsc.h"

enum nio_guard {
    NIO_GUARD_AUTO = 0, /* an option: the best that the kernel has */
    NIO_GUARD_MARKER,   /* MADV_GUARD_INSTALL: faults, and splits no mapping */
    NIO_GUARD_PROTECT,  /* mprotect: faults; two mappings more per stack */
    NIO_GUARD_CANARY    /* a pattern, checked at suspension and when the stack is freed */
};

struct nio_stack_depot;

struct nio_stack {
    /* constant after the stack was made */
    NIO_CACHE_ALIGNED char *low; /* the lowest usable byte; the guard page lies below */
    char *high;                  /* behind the highest usable byte, aligned to a cache line */
    struct nio_stack_depot *home;
    uint32_t guard;       /* enum nio_guard, 0: never made */
    uint32_t needs_reset; /* freeing must look at the stack: it has a canary or is measured */
    /* the stack's user writes; the overflow reporter reads, in a signal handler */
    void *_Atomic owner; /* the task that runs on it, NULL: none */
    /* pool and depot */
    struct nio_mpsc_node link;
    struct nio_stack *before; /* in the depot's list: the one that was returned later */
    uint64_t idle_since_ns;   /* when it was returned to the depot */
};

_Static_assert(sizeof(struct nio_stack) == 64, "one cache line each");

static inline size_t nio_stack_bytes(const struct nio_stack *stack)
{
    return (size_t)(stack->high - stack->low);
}

/* Says who runs on the stack (a task) so that an overflow can name it.  The stack's user. */
static inline void nio_stack_set_owner(struct nio_stack *stack, void *owner)
{
    /* relaxed: read by the signal handler of the thread that runs on the stack, which is this
     * one or one that got the stack through synchronised hands */
    atomic_store_explicit(&stack->owner, owner, memory_order_relaxed);
}

static inline void *nio_stack_owner(const struct nio_stack *stack)
{
    /* relaxed: as in nio_stack_set_owner() */
    return atomic_load_explicit(&stack->owner, memory_order_relaxed);
}

/* How many bytes below `high` were in use at most since the stack's pages were last clean (see
 * is_measured in alloc/stack_depot.h), found by the lowest word that is not 0.  Asks the kernel
 * which pages were touched, so as to touch none; pages in swap are passed over.
 * Context: nobody else runs on the stack; one system call and a scan. */
size_t nio_stack_high_water(const struct nio_stack *stack);

/* The live stack in whose guard page `fault_address` lies, NULL if there is none.
 * Context: async-signal-safe, any thread; scans the list of stack slabs. */
const struct nio_stack *nio_stack_of_guard(const void *fault_address);

bool nio_stack_canary_is_intact(const struct nio_stack *stack, size_t bytes);

/* False when the stack has run over its low end.  Only a stack with a canary needs to be asked:
 * at suspension, on the way out.  Looks at the line next to the stack; freeing looks at all. */
static inline bool nio_stack_is_intact(const struct nio_stack *stack)
{
    return NIO_LIKELY(stack->guard != NIO_GUARD_CANARY) ||
           nio_stack_canary_is_intact(stack, NIO_CACHELINE);
}

#endif
