/* SPDX-License-Identifier: MIT */
/* net/steer.h: which member of a SO_REUSEPORT group gets a connection.  Any thread; start-up. */
#ifndef NIO_NET_STEER_H
#define NIO_NET_STEER_H

#include <stddef.h>

/* One CPU and the member that gets what arrives there. */
struct nio_steer {
    int cpu;
    unsigned member;
};

enum { NIO_STEER_MAX = 2040 }; /* the kernel runs programs of 4096 steps (BPF_MAXINSNS) */

/* Makes the group that `fd` belongs to give connections to the member of the CPU that handles their
 * first packet; those of other CPUs go by the kernel's hash.  Members are numbered in the order of
 * their listen(2).  Errors: -E2BIG more than NIO_STEER_MAX CPUs; -ENOMEM; setsockopt(2)'s. */
int nio_steer_by_cpu(int fd, const struct nio_steer *map, size_t count);

#endif
