/* SPDX-License-Identifier: MIT */
/* Makes contexts and ends them; the switch itself is nio_coro_switch_ARCH.S.
 *
 * A new stack, from the top: two zero words, so that a walk along frame pointers ends too (perf,
 * and whoever reads [rbp] and [rbp + 8]); then the forged frame of frame.h, whose frame pointer
 * is zero and which goes on at the trampoline nio_coro_start.  The trampoline starts with an
 * aligned stack pointer just below the zeros and enters entry(arg).
 *
 * Sanitizer builds put first_entry() between the trampoline and the entry function: the arrival on
 * the new stack has to be announced from that stack.
 *
 * Debug builds assert what coro.h leaves to the caller: that a coroutine is entered once at a
 * time, leaves to the host it was entered from, and keeps the floating-point control words.
 */
#include "runtime/coro/coro.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/coro/frame.h"

#if defined(__x86_64__)

/* As the switch leaves it, from the stack pointer upwards. */
struct frame {
    uint64_t r15, r14, arg_r13, entry_r12, rbx, rbp, resume;
};
_Static_assert(offsetof(struct frame, arg_r13) == NIO_FRAME_ARG, "the trampoline passes r13");
_Static_assert(offsetof(struct frame, entry_r12) == NIO_FRAME_ENTRY, "the trampoline calls r12");

static void frame_fill(struct frame *frame, nio_coro_entry *entry, void *arg, void (*start)(void))
{
    *frame = (struct frame){ .arg_r13 = (uintptr_t)arg,
                             .entry_r12 = (uintptr_t)entry,
                             .resume = (uintptr_t)start };
}

/* The shadow stack pointer, 0 without shadow stacks: on processors and in processes without them
 * rdsspq does nothing. */
static bool has_shadow_stack(void)
{
    uint64_t pointer = 0;
    __asm__ __volatile__("rdsspq %0" : "+r"(pointer));
    return pointer != 0;
}

#ifdef NIO_DEBUG
/* Without the status bits, which any arithmetic sets. */
static uint64_t control_words(void)
{
    uint32_t mxcsr;
    uint16_t fcw;
    __asm__ __volatile__("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(fcw));
    return (uint64_t)(mxcsr & 0xffc0u) << 16 | fcw;
}
#endif

#elif defined(__aarch64__)

/* As the switch leaves it, from the stack pointer upwards. */
struct frame {
    uint64_t x29, resume, entry_x19, arg_x20, x21_28[8], d8_15[8];
};
_Static_assert(offsetof(struct frame, arg_x20) == NIO_FRAME_ARG, "the trampoline passes x20");
_Static_assert(offsetof(struct frame, entry_x19) == NIO_FRAME_ENTRY, "the trampoline calls x19");

static void frame_fill(struct frame *frame, nio_coro_entry *entry, void *arg, void (*start)(void))
{
    *frame = (struct frame){ .arg_x20 = (uintptr_t)arg,
                             .entry_x19 = (uintptr_t)entry,
                             .resume = (uintptr_t)start };
}

/* CHKFEAT (hint #40) clears the bits of x16 whose features are on; bit 0 is the guarded control
 * stack.  A hint without effect on older processors. */
static bool has_shadow_stack(void)
{
    register uint64_t features __asm__("x16") = 1;
    __asm__ __volatile__("hint #40" : "+r"(features));
    return features == 0;
}

#ifdef NIO_DEBUG
static uint64_t control_words(void)
{
    uint64_t fpcr;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
}
#endif

#endif

_Static_assert(sizeof(struct frame) == NIO_FRAME_BYTES, "what the switch pops");
_Static_assert(offsetof(struct frame, resume) == NIO_FRAME_RESUME, "where the switch goes on");

/* The trampoline, in assembly; never called from C. */
void nio_coro_start(void);

int nio_coro_check(void)
{
    if (!has_shadow_stack())
        return 0;
    return nio_error(-ENOTSUP, "coroutines: this process runs with a hardware shadow stack; start "
                               "it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off on x86-64, "
                               "glibc.cpu.aarch64_gcs=0 on aarch64");
}

#if NIO_SANITIZER_FIBERS
static void first_entry(void *arg)
{
    struct nio_coro *c = arg;
    nio_sanitizer_out_end(&c->sanitizer);
    c->entry(c->arg);
}

static void coro_prepare(struct nio_coro *c, struct frame *frame, nio_coro_entry *entry, void *arg)
{
    c->entry = entry;
    c->arg = arg;
    frame_fill(frame, first_entry, c, nio_coro_start);
}
#else
static void coro_prepare(struct nio_coro *c, struct frame *frame, nio_coro_entry *entry, void *arg)
{
    (void)c;
    frame_fill(frame, entry, arg, nio_coro_start);
}
#endif

void nio_coro_init(struct nio_coro *c, void *stack_low, void *stack_high, nio_coro_entry *entry,
                   void *arg)
{
    uintptr_t low = (uintptr_t)stack_low;
    uintptr_t high = (uintptr_t)stack_high & ~(uintptr_t)15;
    NIO_ASSERT(high > low && high - low >= NIO_CORO_STACK_BYTES_MIN);
    *c = (struct nio_coro){ .sp = NULL };
    nio_sanitizer_init(&c->sanitizer, stack_low, high - low);
    char *top = (char *)stack_high - ((uintptr_t)stack_high - high) - NIO_FRAME_TOP_BYTES;
    memset(top, 0, NIO_FRAME_TOP_BYTES);
    struct frame *frame = (struct frame *)(void *)(top - NIO_FRAME_SKIP_BYTES - sizeof *frame);
    coro_prepare(c, frame, entry, arg);
    c->sp = frame;
}

#ifdef NIO_DEBUG
NIO_NOINLINE void nio_coro_debug_in(struct nio_coro *host, struct nio_coro *c)
{
    NIO_ASSERT(c->sp && !c->host);
    c->host = host;
    host->control_words = control_words();
}

NIO_NOINLINE void nio_coro_debug_out(struct nio_coro *c, struct nio_coro *host)
{
    NIO_ASSERT(c->host == host);
    NIO_ASSERT(host->control_words == control_words());
    c->host = NULL;
}
#endif
