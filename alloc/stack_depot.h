/* SPDX-License-Identifier: MIT */
/* alloc/stack_depot.h: a node's coroutine stacks of one size.
 *
 * The depot maps slabs (64 MiB of addresses, no memory until touched) from the node's arena, cuts
 * them into stacks with guards, and keeps what the workers' pools do not need.  Workers come here
 * for sixteen or so at a time; other nodes' workers return a stack through a lock-free list.
 *
 * Stacks are handed out again newest first, while their pages are still in a cache.  One that has
 * not been wanted for a second gives its memory back to the kernel (MADV_DONTNEED), all of it: a
 * burst of a million coroutines would leave 4 GiB behind if each kept its top page.  Its guard and
 * its addresses stay.
 *
 * Any thread, except create and destroy.
 */
#ifndef NIO_ALLOC_STACK_DEPOT_H
#define NIO_ALLOC_STACK_DEPOT_H

#include "alloc/node_arena.h"
#include "alloc/poison.h"
#include "alloc/stack.h"

struct nio_stack_depot_options {
    size_t stack_bytes;    /* with the colour; rounded up to pages, at least two */
    enum nio_guard guard;  /* AUTO: the best; PROTECT, CANARY: no stronger one is tried */
    bool is_measured;      /* zero what a stack used when it is freed: exact high-water marks */
    size_t slab_bytes;     /* 0: 64 MiB */
    uint32_t mappings_max; /* for protected pages, process-wide; 0: half of vm.max_map_count */
    uint64_t idle_ns;      /* before memory is given back; 0: one second */
};

struct nio_stack_depot_stats {
    uint64_t stacks_made; /* carved from slabs so far */
    uint64_t stacks_out;  /* in pools or in use */
    uint64_t stacks_warm; /* here, with their memory */
    uint64_t stacks_cold; /* here, memory given back */
    uint64_t slabs;
    uint64_t guarded[NIO_GUARD_CANARY + 1]; /* stacks made, by enum nio_guard */
};

/* Errors: -EINVAL stack_bytes is 0 or absurd (the detail says so); -ENOMEM. */
NIO_NODISCARD int nio_stack_depot_create(struct nio_node_arena *arena,
                                         const struct nio_stack_depot_options *options,
                                         struct nio_stack_depot **ret_depot);
/* Asserts that every stack has come back and unmaps all.  Takes NULL. */
void nio_stack_depot_destroy(struct nio_stack_depot *depot);

/* Up to `count` stacks into `stacks`, the one to be used first last.  Returns how many, 0 when
 * there is no memory. */
unsigned nio_stack_depot_take(struct nio_stack_depot *depot, struct nio_stack **stacks,
                              unsigned count);
/* Takes `count` stacks of this depot back; the last one will be used first. */
void nio_stack_depot_give(struct nio_stack_depot *depot, struct nio_stack **stacks, unsigned count);
/* Takes one stack back without a lock; the depot notices when it is asked the next time. */
void nio_stack_depot_give_remote(struct nio_stack *stack);

void nio_stack_reset_slow(struct nio_stack *stack);

/* Makes a stack ready for its next user: forgets the owner, checks the canary, clears if measured.
 * Asserts that the canary is whole. */
static inline void nio_stack_reset(struct nio_stack *stack)
{
    nio_unpoison(stack->low, nio_stack_bytes(stack));
    if (NIO_UNLIKELY(stack->needs_reset))
        nio_stack_reset_slow(stack);
    nio_stack_set_owner(stack, NULL);
}

/* Gives back the memory of up to 32 stacks that have been idle for long enough at `now_ns`;
 * returns how many.  Giving and taking do it as well; call it from time to time while idle. */
unsigned nio_stack_depot_trim(struct nio_stack_depot *depot, uint64_t now_ns);

/* The guard that new stacks get first: MARKER, PROTECT or CANARY.  A constant. */
enum nio_guard nio_stack_depot_guard(const struct nio_stack_depot *depot);
/* NULL, or why guards are not the best ones.  A constant. */
const char *nio_stack_depot_reason(const struct nio_stack_depot *depot);
void nio_stack_depot_stats(struct nio_stack_depot *depot, struct nio_stack_depot_stats *ret_stats);
/* Aborts when an invariant does not hold.  For tests. */
void nio_stack_depot_check(struct nio_stack_depot *depot);

#endif
