/* SPDX-License-Identifier: MIT */
/* driver/timers.h: the timeouts of one driver, as an intrusive heap ordered by deadline.
 *
 * Plain timeouts never go to the kernel: they cost no SQE, no credit and no kernel timer, a
 * million of them may sleep at once, and one that ends wakes its worker directly instead of
 * through the SQ thread.  The owner looks at the earliest deadline when it reaps, and parks no
 * longer than until then.
 *
 * A pairing heap (Fredman, Sedgewick, Sleator, Tarjan, "The pairing heap", 1986) whose links are
 * in the operations: adding is O(1), taking and removing O(log n) amortised, nothing is allocated.
 * All functions: the owner.  nio_timers_next_ns() may be asked by any thread.
 */
#ifndef NIO_DRIVER_TIMERS_H
#define NIO_DRIVER_TIMERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/driver/op_link.h"

#define NIO_TIMERS_NONE UINT64_MAX

struct nio_timers {
    struct numio_op *root;    /* owner */
    unsigned count;           /* owner */
    _Atomic uint64_t next_ns; /* owner writes, any reads: earliest deadline, NIO_TIMERS_NONE */
};

void nio_timers_init(struct nio_timers *timers);
/* Adds `op`, a prepared timeout, to end at `now_ns` plus its delay. */
void nio_timers_add(struct nio_timers *timers, struct numio_op *op, uint64_t now_ns);
/* Removes `op`.  False: it is not in the heap, its time has come. */
bool nio_timers_remove(struct nio_timers *timers, struct numio_op *op);
/* Removes and returns a timeout whose deadline is not after `now_ns`, else NULL. */
struct numio_op *nio_timers_take_due(struct nio_timers *timers, uint64_t now_ns);
/* Order and links of the whole heap; for tests. */
bool nio_timers_check(const struct nio_timers *timers);

static inline uint64_t nio_timers_next_ns(const struct nio_timers *timers)
{
    /* relaxed: a hint for other threads, the owner sees its own store */
    return atomic_load_explicit(&timers->next_ns, memory_order_relaxed);
}

#endif
