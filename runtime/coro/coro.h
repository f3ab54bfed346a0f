/* SPDX-License-Identifier: MIT */
/* coro/coro.h: suspended contexts and the switch between them.
 *
 * A coroutine runs on a stack of its own; the context it was entered from is its host (a worker's
 * loop, or another coroutine).  Switching saves the callee-saved registers on the stack that is
 * left and exchanges the stack pointer: about 2 ns one way on x86-64, no system call, no lock.
 *
 * Invariants, all the caller's:
 * - One thread at a time.  A coroutine may be resumed on another thread than the one it suspended
 *   on, but only after the switch_in() it suspended from has returned, and with a happens-before
 *   edge between the two: whoever may resume it must not see it before its host says so.
 * - Floating-point control words (rounding mode, FTZ, DAZ) are the thread's, not the coroutine's;
 *   it puts them back before it suspends (asserted with NIO_DEBUG).
 * - Signal mask, errno and every other thread-local are the thread's.  Compilers keep the address
 *   of a thread-local, and of errno, across a call that suspends; then it is the old thread's.  So
 *   code that runs in a coroutine reaches thread-locals only through accessors marked
 *   NIO_CORO_THREAD_ACCESSOR, each starting with nio_coro_thread_barrier(), and never uses errno
 *   on both sides of a suspension.
 */
#ifndef NIO_CORO_CORO_H
#define NIO_CORO_CORO_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/assert.h"
#include "runtime/base/compiler.h"
#include "runtime/coro/sanitizer.h"
#include "runtime/coro/swap.h"

/* The least stack that nio_coro_init() takes.  What a coroutine really needs is up to its code. */
enum { NIO_CORO_STACK_BYTES_MIN = 1024 };

typedef void nio_coro_entry(void *arg);

/* A suspended context.  A host's needs no initialisation beyond zeros. */
struct nio_coro {
    void *sp; /* valid while suspended; NULL once the coroutine has ended */
#ifdef NIO_DEBUG
    uint64_t control_words; /* a host's: its floating-point control when it switched in */
    struct nio_coro *host;  /* a coroutine's: where it was last entered from, NULL outside */
#endif
    struct nio_sanitizer_fiber sanitizer; /* empty but in sanitizer builds */
#if NIO_SANITIZER_FIBERS
    nio_coro_entry *entry; /* constant after init */
    void *arg;             /* constant after init */
#endif
};

#if !defined(NIO_DEBUG) && !NIO_SANITIZER_FIBERS
_Static_assert(sizeof(struct nio_coro) == sizeof(void *), "a suspended context is one word");
#endif

/* Whether coroutines can run in the calling thread: 0, or -ENOTSUP when it runs with a hardware
 * shadow stack (x86 CET, aarch64 GCS), which the switch does not maintain; the detail says how to
 * turn it off.  Context: any thread; once per worker thread, before its first switch. */
NIO_NODISCARD int nio_coro_check(void);

/* Prepares `c` so that the first switch_in runs entry(arg) on the stack [stack_low, stack_high).
 * Context: any thread; writes some 200 bytes at the stack's top.
 * Owns:    the stack is the caller's until the coroutine has ended, or for ever if it never runs;
 *          a coroutine that never ran needs no clean-up.
 * Errors:  none.  `entry` must not return: it ends in nio_coro_switch_last(). */
void nio_coro_init(struct nio_coro *c, void *stack_low, void *stack_high, nio_coro_entry *entry,
                   void *arg);

/* The parts of the wrappers that only builds with NIO_DEBUG have. */
#ifdef NIO_DEBUG
void nio_coro_debug_in(struct nio_coro *host, struct nio_coro *c);
void nio_coro_debug_out(struct nio_coro *c, struct nio_coro *host);
#else
static inline void nio_coro_debug_in(struct nio_coro *host, struct nio_coro *c)
{
    (void)host;
    (void)c;
}
static inline void nio_coro_debug_out(struct nio_coro *c, struct nio_coro *host)
{
    (void)c;
    (void)host;
}
#endif

/* True once `c` has ended.  Context: its host, after switch_in. */
static inline bool nio_coro_is_finished(const struct nio_coro *c)
{
    return c->sp == NULL;
}

/* Saves the calling context in `host` and runs `c`; returns when c suspends or ends.  After the
 * end its stack may be reused at once.
 * Context: a worker's loop, or a coroutine that hosts another; `c` suspended or new. */
static NIO_ALWAYS_INLINE void nio_coro_switch_in(struct nio_coro *host, struct nio_coro *c)
{
    nio_coro_debug_in(host, c);
    void *sp = c->sp;
    nio_sanitizer_in_begin(&host->sanitizer, &c->sanitizer);
    nio_coro_swap(&host->sp, sp);
    nio_sanitizer_in_end(&host->sanitizer);
    if (NIO_SANITIZER_FIBERS && nio_coro_is_finished(c))
        nio_sanitizer_retire(&c->sanitizer);
}

/* Suspends `c`, the running coroutine, and goes back to its host; returns when somebody switches
 * in again, perhaps on another thread.  `host` is the one it was entered from this time. */
static NIO_ALWAYS_INLINE void nio_coro_switch_out(struct nio_coro *c, struct nio_coro *host)
{
    nio_coro_debug_out(c, host);
    void *sp = host->sp;
    nio_sanitizer_out_begin(&c->sanitizer);
    nio_coro_swap(&c->sp, sp);
    nio_sanitizer_out_end(&c->sanitizer);
}

/* Ends `c`, the running coroutine: back to its host, for good.  The stack pointer that the swap
 * saves is nobody's.  It goes where the host's was, which is void once the host runs; a local
 * would not do, because ASan's copy of this frame is gone by then. */
_Noreturn static NIO_ALWAYS_INLINE void nio_coro_switch_last(struct nio_coro *c,
                                                             struct nio_coro *host)
{
    nio_coro_debug_out(c, host);
    c->sp = NULL;
    void *sp = host->sp;
    nio_sanitizer_last_begin(&c->sanitizer);
    nio_coro_swap(&host->sp, sp);
    __builtin_unreachable();
}

/* For functions that read or write a thread-local on behalf of code that may migrate: not
 * inlined, and the barrier keeps the compiler from taking them for constant functions whose
 * first result may be used again. */
#define NIO_CORO_THREAD_ACCESSOR NIO_NOINLINE

static NIO_ALWAYS_INLINE void nio_coro_thread_barrier(void)
{
    __asm__ __volatile__("" ::: "memory");
}

#endif
