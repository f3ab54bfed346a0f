/* SPDX-License-Identifier: MIT */
/* numio/arena.h: where a node's memory really is, and how much of it there is.
 *
 * numio binds the memory of each node (cells of tasks, I/O buffers, coroutine stacks) to the NUMA
 * node it belongs to.  numio_arena_audit(), declared in numio/runtime.h, does not trust that: it
 * asks the kernel about every page.  The result is plain data.
 */
#ifndef NUMIO_ARENA_H
#define NUMIO_ARENA_H

#include <numio/base.h>

NUMIO_BEGIN_DECLS

enum { NUMIO_ARENA_REASON_BYTES = 192 };

struct numio_arena_audit {
    size_t size; /* set by the caller: sizeof(struct numio_arena_audit) */

    int os_node;   /* the kernel's node that the pages belong on; without binding the one that most
                      of them are on; -1 if there are none */
    bool is_bound; /* the kernel was asked to place the memory there */

    uint64_t page_bytes;      /* the unit of the counts below */
    uint64_t pages_home;      /* touched, and on os_node */
    uint64_t pages_away;      /* touched, and on another node */
    uint64_t pages_untouched; /* reserved addresses without memory */
    uint64_t pages_unknown;   /* the kernel did not say; `reason` does */

    uint64_t bytes_allocated; /* by numio since the runtime was made, as asked for */
    uint64_t bytes_freed;
    uint64_t bytes_live; /* the difference; 0 when all is given back */

    /* "", or why memory is not bound or pages are not known */
    char reason[NUMIO_ARENA_REASON_BYTES];
};

NUMIO_END_DECLS

#endif
