/* SPDX-License-Identifier: MIT */
#include "runtime/base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/compiler.h"

#ifdef NIO_TEST_POINTS
static atomic_long fault_countdown;

void nio_fault_arm(long nth)
{
    /* relaxed: the test starts its threads after this call, which orders it */
    atomic_store_explicit(&fault_countdown, nth, memory_order_relaxed);
}

bool nio_fault_struck(void)
{
    /* relaxed: a counter read after the threads concerned were joined */
    return atomic_load_explicit(&fault_countdown, memory_order_relaxed) < 0;
}

bool nio_fault_now(void)
{
    /* relaxed: only the count matters, it publishes nothing */
    if (atomic_load_explicit(&fault_countdown, memory_order_relaxed) <= 0)
        return false;
    /* relaxed: as above; -1 marks that the fault has struck */
    if (atomic_fetch_sub_explicit(&fault_countdown, 1, memory_order_relaxed) != 1)
        return false;
    /* relaxed: as above */
    atomic_store_explicit(&fault_countdown, -1, memory_order_relaxed);
    return true;
}
#endif

void *nio_zalloc(size_t bytes)
{
    if (nio_fault_now())
        return NULL;
    size_t size = nio_align_up(bytes ? bytes : 1, NIO_CACHELINE);
    void *memory = aligned_alloc(NIO_CACHELINE, size);
    if (memory)
        memset(memory, 0, size);
    return memory;
}

void *nio_zalloc_sparse(size_t bytes)
{
    return nio_fault_now() ? NULL : calloc(1, bytes);
}

void *nio_zalloc_array(size_t count, size_t element_bytes)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, element_bytes, &bytes))
        return NULL;
    return nio_zalloc(bytes);
}

char *nio_strdup(const char *text)
{
    if (!text)
        return NULL;
    size_t bytes = strlen(text) + 1;
    char *copy = nio_zalloc(bytes);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}

void nio_free(void *memory)
{
    free(memory);
}
