/* SPDX-License-Identifier: MIT */
/* base/futex.h: the private futex calls (futex(2)).  Any thread.
 */
#ifndef NIO_BASE_FUTEX_H
#define NIO_BASE_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { NIO_FUTEX_FOREVER = -1 };

/* Sleeps while *word == expected, at most `timeout_ns` (NIO_FUTEX_FOREVER: no limit).
 * Returns 0 when woken (perhaps spuriously), -EAGAIN when the word differed, -ETIMEDOUT, -EINTR. */
static inline int nio_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    struct timespec limit = { .tv_sec = timeout_ns / 1000000000,
                              .tv_nsec = timeout_ns % 1000000000 };
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns < 0 ? NULL : &limit,
                      NULL, 0);
    return rc == 0 ? 0 : -errno;
}

/* Wakes up to `count` sleepers. */
static inline void nio_futex_wake(_Atomic uint32_t *word, int count)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0); /* cannot fail */
}

#endif
