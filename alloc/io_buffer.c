/* SPDX-License-Identifier: MIT */
#include "alloc/io_buffer.h"

#include <unistd.h>

#include "runtime/base/assert.h"

/* What is really asked for; false when `bytes` is too large to be rounded up. */
static bool round_up(size_t *bytes, size_t *alignment)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    if (*alignment < page_bytes)
        *alignment = page_bytes;
    NIO_ASSERT((*alignment & (*alignment - 1)) == 0);
    size_t rounded = nio_align_up(*bytes, page_bytes);
    bool fits = rounded >= *bytes;
    *bytes = rounded;
    return fits;
}

void *nio_io_buffer_alloc(struct nio_node_arena *arena, size_t bytes, size_t alignment)
{
    NIO_ASSERT(bytes > 0);
    if (!round_up(&bytes, &alignment))
        return NULL;
    return nio_node_arena_alloc(arena, bytes, alignment);
}

void nio_io_buffer_free(struct nio_node_arena *arena, void *buffer, size_t bytes, size_t alignment)
{
    if (!buffer)
        return;
    NIO_ASSERT(round_up(&bytes, &alignment)); /* it was rounded the same way before */
    nio_node_arena_free(arena, buffer, bytes, alignment);
}
