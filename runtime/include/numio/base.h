/* SPDX-License-Identifier: MIT */
/* numio/base.h: what every public header needs: version, linkage, and the nodiscard mark.
 *
 * Nothing here has a run-time cost.  All public names start with numio_ or NUMIO_.  Unless a
 * function's comment says otherwise, a status is 0 or a count on success and a negative errno
 * value on failure; the `errno` variable is never set for the caller.
 */
#ifndef NUMIO_BASE_H
#define NUMIO_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NUMIO_VERSION_MAJOR 0
#define NUMIO_VERSION_MINOR 1
#define NUMIO_VERSION_PATCH 0
#define NUMIO_VERSION "0.1.0"

#ifdef __cplusplus
/* A struct and a function may share a name, as stat and stat() do; -Wshadow minds that. */
#define NUMIO_BEGIN_DECLS                                                                          \
    _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wshadow\"") extern "C"       \
    {
#define NUMIO_END_DECLS                                                                            \
    }                                                                                              \
    _Pragma("GCC diagnostic pop")
#else
#define NUMIO_BEGIN_DECLS
#define NUMIO_END_DECLS
#endif

#define NUMIO_EXPORT __attribute__((visibility("default")))
#define NUMIO_NODISCARD __attribute__((warn_unused_result))

#endif
