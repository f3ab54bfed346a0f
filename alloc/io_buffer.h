/* SPDX-License-Identifier: MIT */
/* alloc/io_buffer.h: memory for I/O: page-aligned, so that O_DIRECT takes it and registering it
 * pins no neighbour, on the node, whole pages.
 *
 * Any thread.  Cost: a jemalloc call without thread cache, a few hundred nanoseconds; keep buffers.
 */
#ifndef NIO_ALLOC_IO_BUFFER_H
#define NIO_ALLOC_IO_BUFFER_H

#include <stddef.h>

#include "alloc/node_arena.h"

/* At least `bytes` (> 0), not zeroed, aligned to a page or to `alignment` (a power of two, 0: a
 * page), whichever is more.  NULL when there is no memory. */
void *nio_io_buffer_alloc(struct nio_node_arena *arena, size_t bytes, size_t alignment);
/* With the sizes of the allocation.  The kernel must not use the buffer any more.  Takes NULL. */
void nio_io_buffer_free(struct nio_node_arena *arena, void *buffer, size_t bytes, size_t alignment);

#endif
