/* SPDX-License-Identifier: MIT */
/* alloc/mempolicy.h: the kernel's memory policy calls, by raw system call.
 *
 * Nothing else of libnuma is needed, and a library that only wraps four calls is one more thing
 * that may be missing on a machine.  Nodes here are the kernel's NUMA nodes (0..1023), not
 * numio's locality domains.  Containers often refuse these calls (EPERM from seccomp, ENOSYS on
 * kernels without NUMA): every function passes the refusal on, the caller decides what it means.
 *
 * Any thread, no state, one system call each.
 */
#ifndef NIO_ALLOC_MEMPOLICY_H
#define NIO_ALLOC_MEMPOLICY_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/compiler.h"

enum {
    NIO_OS_NODES_MAX = 1024, /* the most any Linux is built for */
    NIO_OS_NODE_MASK_WORDS = NIO_OS_NODES_MAX / (8 * (int)sizeof(unsigned long))
};

/* A thread's memory policy, to put it back later. */
struct nio_mempolicy {
    int mode; /* MPOL_* with its flags */
    unsigned long mask[NIO_OS_NODE_MASK_WORDS];
};

/* Asks that pages of [address, address + bytes) touched from now on come from `os_node`: from
 * there first (MPOL_PREFERRED), or only from there (MPOL_BIND) with `is_strict`.
 * Errors: -EINVAL no such node; -EPERM, -ENOSYS refused; what else mbind(2) gives. */
NIO_NODISCARD int nio_mempolicy_bind(void *address, size_t bytes, int os_node, bool is_strict);

/* The same for whatever the calling thread touches first, outside of bound ranges. */
NIO_NODISCARD int nio_mempolicy_set_thread(int os_node, bool is_strict);

/* Reads the calling thread's policy. */
NIO_NODISCARD int nio_mempolicy_get_thread(struct nio_mempolicy *ret_policy);
/* Puts it back. */
int nio_mempolicy_restore_thread(const struct nio_mempolicy *policy);

/* Writes for each page the node that it lies on, or a negative errno value (-ENOENT, -EFAULT: not
 * touched yet).  Moves nothing. */
NIO_NODISCARD int nio_mempolicy_page_nodes(void **pages, size_t count, int *ret_nodes);

#endif
