/* SPDX-License-Identifier: MIT */
/* coro/swap.h: how C enters the switch in nio_coro_switch_ARCH.S.
 *
 * On x86-64 the switch is jumped to, not called, and goes on by jumping to a landing pad behind
 * that jump.  A call would push an entry on the processor's return-address predictor that no ret
 * ever takes off again, and then every return that follows is predicted wrongly, on both sides.
 * Measured on a Zen 4 core at 2.6 GHz, a round trip between a scheduler's loop (one call deep)
 * and coroutines two calls deep: 17.7 ns jumping, 23.7 ns with call and jump, 28.6 ns with call
 * and ret.  For the compiler the statement is a call all the same: it names everything a call may
 * change.  The switch itself steps over the red zone.
 *
 * On aarch64 it is an ordinary call.
 */
#ifndef NIO_CORO_SWAP_H
#define NIO_CORO_SWAP_H

#include "runtime/base/compiler.h"

#if defined(__x86_64__)

#if defined(__APX_F__)
#error "numio: the switch does not name the registers r16-r31 of APX; build without it"
#endif

#if defined(__AVX512F__)
#define NIO_SWAP_CLOBBERS_512                                                                      \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",    \
        "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6",  \
        "k7"
#else
#define NIO_SWAP_CLOBBERS_512
#endif

/* What the ABI lets a call change, beside rdi, rsi and rdx. */
#define NIO_SWAP_CLOBBERS                                                                          \
    "rax", "rcx", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",        \
        "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",      \
        "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)", "memory",             \
        "cc" NIO_SWAP_CLOBBERS_512

/* Saves the calling context on its stack, its stack pointer in *save_sp, and resumes the context
 * that load_sp stands for. */
static NIO_ALWAYS_INLINE void nio_coro_swap(void **save_sp, void *load_sp)
{
    void *resume;
    __asm__ __volatile__("leaq 1f(%%rip), %%rdx\n\t"
                         "jmp nio_coro_swap_asm\n"
                         "1:\tendbr64"
                         : "+D"(save_sp), "+S"(load_sp), "=d"(resume)
                         :
                         : NIO_SWAP_CLOBBERS);
}

#elif defined(__aarch64__)

void nio_coro_swap_asm(void **save_sp, void *load_sp);

static NIO_ALWAYS_INLINE void nio_coro_swap(void **save_sp, void *load_sp)
{
    nio_coro_swap_asm(save_sp, load_sp);
}

#endif

#endif
