/* SPDX-License-Identifier: MIT */
/* fs/fs_pool.h: a system call that io_uring has no request for, on the blocking pool.
 * Context: a coroutine, suspends. */
#ifndef NIO_FS_FS_POOL_H
#define NIO_FS_FS_POOL_H

#include <stdint.h>

struct nio_fs_call {
    long number;
    long args[6];
};

/* The call's result, a negative errno value on failure; -ECANCELED, -ETIMEDOUT before it begins. */
int64_t nio_fs_on_pool(const struct nio_fs_call *call);

#endif
