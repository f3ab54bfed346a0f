/* SPDX-License-Identifier: MIT */
/* alloc/arena_audit.h: asks the kernel (move_pages) where an arena's pages are.
 *
 * Any thread that may use the arena; concurrent use of the arena makes the counts a snapshot.
 * Cost: roughly 0.1 us per page of address space in batches of 4096; it moves and touches nothing.
 */
#ifndef NIO_ALLOC_ARENA_AUDIT_H
#define NIO_ALLOC_ARENA_AUDIT_H

#include <numio/arena.h>

#include "alloc/node_arena.h"

/* Fills the first ret_audit->size bytes of *ret_audit.  A kernel that refuses to tell is no
 * error: the pages count as unknown and the reason is given.
 * Errors: -EINVAL ret_audit->size is not that of a known version; -ENOMEM. */
NIO_NODISCARD int nio_node_arena_audit(struct nio_node_arena *arena,
                                       struct numio_arena_audit *ret_audit);

#endif
