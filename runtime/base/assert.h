/* SPDX-License-Identifier: MIT */
/* base/assert.h: three levels of assertion, for programmer errors only.
 *
 * NIO_ASSERT           always on, cheap
 * NIO_DEBUG_ASSERT     dev and sanitizer builds (NIO_DEBUG)
 * NIO_EXPENSIVE_ASSERT walks structures, dev builds only (NIO_EXPENSIVE)
 *
 * A failed assertion prints the expression and aborts.  Operating errors are returned, never
 * asserted.
 */
#ifndef NIO_BASE_ASSERT_H
#define NIO_BASE_ASSERT_H

#include "runtime/base/compiler.h"

_Noreturn NIO_COLD void nio_assert_failed(const char *expression, const char *file, int line,
                                          const char *function);

#define NIO_ASSERT(e)                                                                              \
    (NIO_LIKELY(e) ? (void)0 : nio_assert_failed(#e, __FILE__, __LINE__, __func__))

#ifdef NIO_DEBUG
#define NIO_DEBUG_ASSERT(e) NIO_ASSERT(e)
#else
#define NIO_DEBUG_ASSERT(e) ((void)sizeof(!(e)))
#endif

#ifdef NIO_EXPENSIVE
#define NIO_EXPENSIVE_ASSERT(e) NIO_ASSERT(e)
#else
#define NIO_EXPENSIVE_ASSERT(e) ((void)sizeof(!(e)))
#endif

#endif
