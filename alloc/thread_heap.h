/* SPDX-License-Identifier: MIT */
/* alloc/thread_heap.h: the jemalloc arenas behind the plain malloc of worker threads.
 *
 * One per (NUMA node, strict, huge pages) and process, made when the first thread asks for it,
 * never destroyed: memory that a task got from malloc may be freed by any thread at any time,
 * also after its runtime is gone, and every thread's jemalloc cache may hold some of it.  Runtimes
 * created one after another share them.
 *
 * Any thread, no lock held by the caller.
 */
#ifndef NIO_ALLOC_THREAD_HEAP_H
#define NIO_ALLOC_THREAD_HEAP_H

#include <stdbool.h>

#include "runtime/base/compiler.h"

/* Looks the heap up, or makes it, and writes the number of its jemalloc arena.
 * Errors: -ENOMEM, also when the process has 64 heaps already; -EXDEV as nio_node_arena_create. */
NIO_NODISCARD int nio_thread_heap_get(int os_node, bool is_strict, bool use_huge_pages,
                                      unsigned *ret_jemalloc_arena);

/* Whether the process's malloc is jemalloc's. */
bool nio_thread_heap_serves_malloc(void);

#endif
