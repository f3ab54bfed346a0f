/* SPDX-License-Identifier: MIT */
/* coro/sanitizer.h: tells AddressSanitizer and ThreadSanitizer that the stack changes.  The only
 * place with their fiber annotations; nothing is left of it in other builds.
 *
 * The calls come in pairs around a swap, named by its direction: in_begin/in_end run on the host,
 * out_begin/out_end in the coroutine (out_end also when it first starts).  last_begin takes the
 * place of out_begin when the coroutine ends, and the host then calls retire.
 *
 * A coroutine may come back on another thread and to another host, so nothing is remembered about
 * a thread: ASan reports at each arrival which stack was left, and that is where out goes back to;
 * TSan's host fiber is asked for at each in.  The host's record is used by one thread only.
 *
 * TSan has room for some 8,000 threads and fibers together, so the fiber is made when a coroutine
 * first runs and destroyed when it ends: TSan builds hold fewer started coroutines than that.
 */
#ifndef NIO_CORO_SANITIZER_H
#define NIO_CORO_SANITIZER_H

#include <stddef.h>

#include "runtime/base/compiler.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIO_SANITIZER_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define NIO_SANITIZER_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define NIO_SANITIZER_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define NIO_SANITIZER_TSAN 1
#endif

#if defined(NIO_SANITIZER_ASAN) || defined(NIO_SANITIZER_TSAN)
#define NIO_SANITIZER_FIBERS 1
#else
#define NIO_SANITIZER_FIBERS 0
#endif

#if defined(NIO_SANITIZER_ASAN)

#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

struct nio_sanitizer_fiber {
    void *fake_stack;      /* ASan's, while suspended */
    const void *stack_low; /* a coroutine's own stack, constant after init */
    size_t stack_bytes;
    const void *host_low; /* the stack it was entered from; written at each arrival */
    size_t host_bytes;
};

static inline void nio_sanitizer_init(struct nio_sanitizer_fiber *c, void *low, size_t bytes)
{
    *c = (struct nio_sanitizer_fiber){ .stack_low = low, .stack_bytes = bytes };
    __asan_unpoison_memory_region(low, bytes);
}

static NIO_ALWAYS_INLINE void nio_sanitizer_in_begin(struct nio_sanitizer_fiber *host,
                                                     struct nio_sanitizer_fiber *c)
{
    __sanitizer_start_switch_fiber(&host->fake_stack, c->stack_low, c->stack_bytes);
}

static NIO_ALWAYS_INLINE void nio_sanitizer_in_end(struct nio_sanitizer_fiber *host)
{
    __sanitizer_finish_switch_fiber(host->fake_stack, NULL, NULL);
}

static NIO_ALWAYS_INLINE void nio_sanitizer_out_begin(struct nio_sanitizer_fiber *c)
{
    __sanitizer_start_switch_fiber(&c->fake_stack, c->host_low, c->host_bytes);
}

static NIO_ALWAYS_INLINE void nio_sanitizer_out_end(struct nio_sanitizer_fiber *c)
{
    __sanitizer_finish_switch_fiber(c->fake_stack, &c->host_low, &c->host_bytes);
}

/* NULL destroys the coroutine's fake stack. */
static NIO_ALWAYS_INLINE void nio_sanitizer_last_begin(struct nio_sanitizer_fiber *c)
{
    __sanitizer_start_switch_fiber(NULL, c->host_low, c->host_bytes);
}

/* The frames that never returned left their red zones behind; the stack's next owner must not
 * meet them. */
static inline void nio_sanitizer_retire(struct nio_sanitizer_fiber *c)
{
    __asan_unpoison_memory_region(c->stack_low, c->stack_bytes);
}

#elif defined(NIO_SANITIZER_TSAN)

#include <sanitizer/tsan_interface.h>

struct nio_sanitizer_fiber {
    void *fiber;      /* TSan's, from the first run to the last */
    void *host_fiber; /* where out goes back to; written at each in */
};

static inline void nio_sanitizer_init(struct nio_sanitizer_fiber *c, void *low, size_t bytes)
{
    (void)low;
    (void)bytes;
    *c = (struct nio_sanitizer_fiber){ .fiber = NULL };
}

static NIO_ALWAYS_INLINE void nio_sanitizer_in_begin(struct nio_sanitizer_fiber *host,
                                                     struct nio_sanitizer_fiber *c)
{
    (void)host;
    if (!c->fiber)
        c->fiber = __tsan_create_fiber(0);
    c->host_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(c->fiber, 0);
}

static NIO_ALWAYS_INLINE void nio_sanitizer_in_end(struct nio_sanitizer_fiber *host)
{
    (void)host;
}

static NIO_ALWAYS_INLINE void nio_sanitizer_out_begin(struct nio_sanitizer_fiber *c)
{
    __tsan_switch_to_fiber(c->host_fiber, 0);
}

static NIO_ALWAYS_INLINE void nio_sanitizer_out_end(struct nio_sanitizer_fiber *c)
{
    (void)c;
}

static NIO_ALWAYS_INLINE void nio_sanitizer_last_begin(struct nio_sanitizer_fiber *c)
{
    __tsan_switch_to_fiber(c->host_fiber, 0);
}

static inline void nio_sanitizer_retire(struct nio_sanitizer_fiber *c)
{
    __tsan_destroy_fiber(c->fiber);
    c->fiber = NULL;
}

#else

/* Empty in C (a GNU extension): takes no room in struct nio_coro. */
struct nio_sanitizer_fiber {
};

static inline void nio_sanitizer_init(struct nio_sanitizer_fiber *c, void *low, size_t bytes)
{
    (void)c;
    (void)low;
    (void)bytes;
}

static inline void nio_sanitizer_in_begin(struct nio_sanitizer_fiber *host,
                                          struct nio_sanitizer_fiber *c)
{
    (void)host;
    (void)c;
}

static inline void nio_sanitizer_in_end(struct nio_sanitizer_fiber *host)
{
    (void)host;
}

static inline void nio_sanitizer_out_begin(struct nio_sanitizer_fiber *c)
{
    (void)c;
}

static inline void nio_sanitizer_out_end(struct nio_sanitizer_fiber *c)
{
    (void)c;
}

static inline void nio_sanitizer_last_begin(struct nio_sanitizer_fiber *c)
{
    (void)c;
}

static inline void nio_sanitizer_retire(struct nio_sanitizer_fiber *c)
{
    (void)c;
}

#endif

#endif
