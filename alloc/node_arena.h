/* SPDX-License-Identifier: MIT */
/* alloc/node_arena.h: a node's memory.
 *
 * One arena per node.  What it gives lies on the node (mmap + mbind below jemalloc), and what is
 * freed goes back to it and to nowhere else: every call bypasses jemalloc's thread caches, because
 * an object of one node that lands in the cache of another node's thread is handed out there next.
 * That makes a call cost a few hundred nanoseconds; cells, which are hot, come from alloc/slab.h.
 *
 * Two jemalloc arenas stand behind it.  The private one serves nio_node_arena_alloc() and is
 * destroyed with the node arena.  The other one serves the plain malloc of adopted threads; it is
 * shared by all node arenas of the process with the same options and is never destroyed, because a
 * program may free what a task malloc'ed long after the runtime is gone.
 *
 * Any thread may call anything, except create, destroy, adopt and restore as said below.
 */
#ifndef NIO_ALLOC_NODE_ARENA_H
#define NIO_ALLOC_NODE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/compiler.h"

struct nio_node_arena;

struct nio_node_arena_options {
    int os_node;         /* the kernel's NUMA node; -1: no binding */
    bool is_strict;      /* MPOL_BIND: never spills to another node, the OOM killer comes instead */
    bool use_huge_pages; /* extents of 2 MiB and more are aligned to and advised as huge pages */
};

struct nio_node_arena_stats {
    uint64_t bytes_allocated; /* since the arena was created, as asked for */
    uint64_t bytes_freed;
    uint64_t bytes_live; /* the difference */
};

/* Makes an arena.  A kernel that refuses to bind is no error unless `is_strict`: memory is then
 * placed by first touch and nio_node_arena_reason() says so.
 * Owns:   *ret_arena is the caller's, to destroy.
 * Errors: -ENOMEM; -EXDEV `is_strict` cannot be enforced. */
NIO_NODISCARD int nio_node_arena_create(const struct nio_node_arena_options *options,
                                        struct nio_node_arena **ret_arena);

/* Gives everything back to the kernel.  Everything allocated must have been freed, which is
 * asserted; nobody else may use the arena any more.  Takes NULL. */
void nio_node_arena_destroy(struct nio_node_arena *arena);

/* Memory on the node, not zeroed; `alignment` is a power of two, `bytes` > 0.  NULL when there is
 * none. */
void *nio_node_arena_alloc(struct nio_node_arena *arena, size_t bytes, size_t alignment);
/* `bytes` and `alignment` are those of the allocation.  Takes NULL. */
void nio_node_arena_free(struct nio_node_arena *arena, void *memory, size_t bytes,
                         size_t alignment);

/* Whole zeroed pages on the node that are not jemalloc's, so that they may be protected and
 * advised piece by piece (coroutine stacks).  Counted and audited like the rest.  `bytes` is a
 * multiple of the page size.  NULL when there is none. */
void *nio_node_arena_map(struct nio_node_arena *arena, size_t bytes, size_t alignment);
void nio_node_arena_unmap(struct nio_node_arena *arena, void *memory, size_t bytes);

/* From now on the calling thread's plain malloc, and what it touches first elsewhere, is local to
 * the node.  Call it when the thread starts, after it was pinned; its malloc cache is flushed.
 * Where malloc is not jemalloc's (a sanitizer's, or another one preloaded) only the thread's
 * memory policy is set and nio_node_arena_malloc_reason() says so.  A thread is adopted by one
 * arena at a time.
 * Errors: -ENOMEM. */
NIO_NODISCARD int nio_node_arena_adopt_thread(struct nio_node_arena *arena);
/* Puts back what the calling thread had before; nothing if it is not adopted.  Call it on the
 * adopted thread before it ends or leaves the runtime. */
void nio_node_arena_restore_thread(void);

/* NULL, or why memory is not bound to the node.  Lives as long as the arena. */
const char *nio_node_arena_reason(const struct nio_node_arena *arena);
/* NULL, or why the plain malloc of adopted threads is not placed.  A constant. */
const char *nio_node_arena_malloc_reason(const struct nio_node_arena *arena);

/* The node that memory is bound to, -1 without binding (also when it was refused). */
int nio_node_arena_os_node(const struct nio_node_arena *arena);

/* The arena's own counters; exact when nobody allocates meanwhile. */
void nio_node_arena_stats(const struct nio_node_arena *arena,
                          struct nio_node_arena_stats *ret_stats);

/* Calls `visit` with every mapping of the arena until it returns non-zero, which is returned.
 * For audits and tests. */
int nio_node_arena_for_each_mapping(struct nio_node_arena *arena,
                                    int (*visit)(void *base, size_t bytes, void *context),
                                    void *context);

#endif
