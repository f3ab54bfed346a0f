/* SPDX-License-Identifier: MIT */
#include "alloc/mempolicy.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel takes the number of bits plus one (it subtracts one before it looks). */
enum { MAXNODE = NIO_OS_NODES_MAX + 1, WORD_BITS = 8 * (int)sizeof(unsigned long) };

static bool mask_of(int os_node, unsigned long *mask)
{
    if (os_node < 0 || os_node >= NIO_OS_NODES_MAX)
        return false;
    memset(mask, 0, NIO_OS_NODE_MASK_WORDS * sizeof *mask);
    mask[os_node / WORD_BITS] = 1ul << (os_node % WORD_BITS);
    return true;
}

int nio_mempolicy_bind(void *address, size_t bytes, int os_node, bool is_strict)
{
    unsigned long mask[NIO_OS_NODE_MASK_WORDS];
    if (!mask_of(os_node, mask))
        return -EINVAL;
    int mode = is_strict ? MPOL_BIND : MPOL_PREFERRED;
    return syscall(SYS_mbind, address, bytes, mode, mask, MAXNODE, 0) == 0 ? 0 : -errno;
}

int nio_mempolicy_set_thread(int os_node, bool is_strict)
{
    unsigned long mask[NIO_OS_NODE_MASK_WORDS];
    if (!mask_of(os_node, mask))
        return -EINVAL;
    int mode = is_strict ? MPOL_BIND : MPOL_PREFERRED;
    return syscall(SYS_set_mempolicy, mode, mask, MAXNODE) == 0 ? 0 : -errno;
}

int nio_mempolicy_get_thread(struct nio_mempolicy *ret_policy)
{
    struct nio_mempolicy policy = { .mode = MPOL_DEFAULT };
    if (syscall(SYS_get_mempolicy, &policy.mode, policy.mask, MAXNODE, NULL, 0) != 0)
        return -errno;
    *ret_policy = policy;
    return 0;
}

int nio_mempolicy_restore_thread(const struct nio_mempolicy *policy)
{
    /* The default policy is refused when it comes with a mask. */
    bool has_mask = policy->mode != MPOL_DEFAULT;
    long rc = syscall(SYS_set_mempolicy, policy->mode, has_mask ? policy->mask : NULL,
                      has_mask ? MAXNODE : 0);
    return rc == 0 ? 0 : -errno;
}

int nio_mempolicy_page_nodes(void **pages, size_t count, int *ret_nodes)
{
    long rc = syscall(SYS_move_pages, 0, count, pages, NULL, ret_nodes, 0);
    return rc >= 0 ? 0 : -errno;
}
