/* SPDX-License-Identifier: MIT */
/* alloc/poison.h: tells AddressSanitizer which memory of ours may not be touched.  Any thread; no
 * code at all in builds without it.
 */
#ifndef NIO_ALLOC_POISON_H
#define NIO_ALLOC_POISON_H

#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIO_HAS_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define NIO_HAS_ASAN 1
#endif

#ifdef NIO_HAS_ASAN
#include <sanitizer/asan_interface.h>
static inline void nio_poison(const void *memory, size_t bytes)
{
    __asan_poison_memory_region(memory, bytes);
}
static inline void nio_unpoison(const void *memory, size_t bytes)
{
    __asan_unpoison_memory_region(memory, bytes);
}
#else
static inline void nio_poison(const void *memory, size_t bytes)
{
    (void)memory;
    (void)bytes;
}
static inline void nio_unpoison(const void *memory, size_t bytes)
{
    (void)memory;
    (void)bytes;
}
#endif

#endif
