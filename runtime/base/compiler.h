/* SPDX-License-Identifier: MIT */
/* base/compiler.h: the few compiler facts the rest of numio leans on.  No state, no functions
 * with a cost.
 */
#ifndef NIO_BASE_COMPILER_H
#define NIO_BASE_COMPILER_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that two threads must not share for writing.  64 on x86-64 and on most aarch64. */
#define NIO_CACHELINE 64
#define NIO_CACHE_ALIGNED _Alignas(NIO_CACHELINE)

#define NIO_LIKELY(x) __builtin_expect(!!(x), 1)
#define NIO_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define NIO_NOINLINE __attribute__((noinline))
#define NIO_COLD __attribute__((cold, noinline))
/* Reads what others may write or free meanwhile, and then finds out. */
#define NIO_UNCHECKED __attribute__((noinline, no_sanitize_address, no_sanitize_thread))
#define NIO_ALWAYS_INLINE inline __attribute__((always_inline))
#define NIO_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
/* For what assembly refers to by name: keeps whole-program optimisation from renaming it. */
#if defined(__GNUC__) && !defined(__clang__)
#define NIO_NAMED_IN_ASM __attribute__((used, externally_visible))
#else
#define NIO_NAMED_IN_ASM __attribute__((used))
#endif
#define NIO_NODISCARD __attribute__((warn_unused_result))

#define NIO_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define NIO_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Tells the core that this is a spin loop. */
static inline void nio_cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

/* Fetches the line at `p` for writing: an RMW that must look at the word first then costs one
 * transfer from another core, not two. */
static inline void nio_prefetch_write(const void *p)
{
#if defined(__x86_64__)
    /* The compiler's builtin needs -mprfchw; every x86-64 core takes the instruction. */
    __asm__ __volatile__("prefetchw %0" ::"m"(*(const char *)p));
#else
    __builtin_prefetch(p, 1);
#endif
}

static inline size_t nio_align_up(size_t value, size_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

#endif
