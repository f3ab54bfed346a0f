/* SPDX-License-Identifier: MIT */
/* base/mem.h: the start-up allocator: for what is made once per runtime, worker or pool, never
 * on the hot path.  Any thread.
 *
 * In builds with NIO_TEST_POINTS every allocation of numio asks nio_fault_now() first, so that a
 * test makes allocation 1, 2, 3 ... fail until its scenario passes.  Other allocators of numio
 * (arenas, slabs, stacks, rings) ask it as well.
 */
#ifndef NIO_BASE_MEM_H
#define NIO_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

/* Zeroed memory aligned to a cache line, NULL when there is none. */
void *nio_zalloc(size_t bytes);
/* Zeroed as well, for large things of which little is used: what is never touched takes no page, if
 * malloc can do that.  Aligned as by malloc. */
void *nio_zalloc_sparse(size_t bytes);
/* An array of `count` zeroed elements; NULL also when the product overflows. */
void *nio_zalloc_array(size_t count, size_t element_bytes);
/* A copy of `text`, NULL when there is no memory or `text` is NULL. */
char *nio_strdup(const char *text);
/* Takes NULL. */
void nio_free(void *memory);

#ifdef NIO_TEST_POINTS
/* The `nth` allocation from now on (1 = the next) fails, in whichever thread it happens;
 * 0 switches the faults off.  Test thread only. */
void nio_fault_arm(long nth);
/* True when the armed fault has struck since nio_fault_arm(). */
bool nio_fault_struck(void);
/* True when the calling allocation must fail. */
bool nio_fault_now(void);
#else
static inline bool nio_fault_now(void)
{
    return false;
}
#endif

#endif
