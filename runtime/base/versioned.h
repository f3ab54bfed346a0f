/* SPDX-License-Identifier: MIT */
/* base/versioned.h: structs of the public headers that carry their own size, so that they may grow.
 *
 * As copy_struct_from_user() of the Linux kernel does it: a program that was built for a newer
 * numio hands over a larger struct, and is served as long as it leaves alone what this library does
 * not know, that is, as long as those bytes are zero.
 */
#ifndef NIO_BASE_VERSIONED_H
#define NIO_BASE_VERSIONED_H

#include <errno.h>
#include <stddef.h>

#include "runtime/base/error.h"

/* Whether `object`, whose first `size` bytes the caller wrote, can be read as the `known` bytes of
 * this library.  Errors, with `what` in their detail: -EINVAL it is smaller; -E2BIG it says
 * something that this library does not know. */
NIO_NODISCARD static inline int nio_versioned_check(const char *what, const void *object,
                                                    size_t size, size_t known)
{
    const unsigned char *bytes = object;
    if (size < known)
        return nio_error(-EINVAL, "%s: size is %zu, expected %zu; begin with its init function",
                         what, size, known);
    for (size_t i = known; i < size; i++)
        if (bytes[i] != 0)
            return nio_error(
                -E2BIG,
                "%s: size is %zu, this library knows %zu bytes, and byte %zu is not 0: "
                "the program was built for a newer numio",
                what, size, known, i);
    return 0;
}

#endif
