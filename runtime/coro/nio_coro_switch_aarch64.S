/* SPDX-License-Identifier: MIT */
/* The context switch for aarch64, AAPCS64.  Empty on other machines.
 *
 * What is kept.  x19-x28, the frame pointer x29, the return address x30, d8-d15 (the lower halves
 * of v8-v15) and sp: all that the ABI promises a caller.  FPCR is global state by the ABI and
 * belongs to the worker thread, as mxcsr does on x86-64.  x18 belongs to the platform.
 *
 * Why a ret.  `ret` is exempt from branch target checks; `br` to the instruction after a call
 * would need a landing pad there, which compilers do not put.  The swap carries one (bti c) and
 * the trampoline is reached by `ret` only, so the object may be marked BTI.  Return addresses are
 * not signed here: x30 is kept on the stack of a suspended context only, and callers built with
 * pac-ret sign their own.  The note does not claim PAC or GCS (guarded control stacks, the shadow
 * stacks of aarch64, would need one per coroutine; see the x86-64 file for why there is none).
 */
#if defined(__aarch64__)

#include "runtime/coro/frame.h"

    .text

/* void nio_coro_swap_asm(void **save_sp, void *load_sp) */
    .globl  nio_coro_swap_asm
    .hidden nio_coro_swap_asm
    .type   nio_coro_swap_asm, %function
    .p2align 5
nio_coro_swap_asm:
    .cfi_startproc
    hint    #34                 /* bti c */
    stp     x29, x30, [sp, #-NIO_FRAME_BYTES]!
    .cfi_def_cfa_offset NIO_FRAME_BYTES
    .cfi_rel_offset x29, 0
    .cfi_rel_offset x30, 8
    stp     x19, x20, [sp, #16]
    .cfi_rel_offset x19, 16
    .cfi_rel_offset x20, 24
    stp     x21, x22, [sp, #32]
    .cfi_rel_offset x21, 32
    .cfi_rel_offset x22, 40
    stp     x23, x24, [sp, #48]
    .cfi_rel_offset x23, 48
    .cfi_rel_offset x24, 56
    stp     x25, x26, [sp, #64]
    .cfi_rel_offset x25, 64
    .cfi_rel_offset x26, 72
    stp     x27, x28, [sp, #80]
    .cfi_rel_offset x27, 80
    .cfi_rel_offset x28, 88
    stp     d8, d9, [sp, #96]
    .cfi_rel_offset d8, 96
    .cfi_rel_offset d9, 104
    stp     d10, d11, [sp, #112]
    .cfi_rel_offset d10, 112
    .cfi_rel_offset d11, 120
    stp     d12, d13, [sp, #128]
    .cfi_rel_offset d12, 128
    .cfi_rel_offset d13, 136
    stp     d14, d15, [sp, #144]
    .cfi_rel_offset d14, 144
    .cfi_rel_offset d15, 152
    mov     x9, sp
    str     x9, [x0]
    mov     sp, x1
    /* Until sp moves, each register loaded here still equals its slot, so the description above
     * stays true for this context. */
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     d8, d9, [sp, #96]
    ldp     d10, d11, [sp, #112]
    ldp     d12, d13, [sp, #128]
    ldp     d14, d15, [sp, #144]
    ldp     x29, x30, [sp], #NIO_FRAME_BYTES
    .cfi_def_cfa_offset 0
    .cfi_restore x29
    .cfi_restore x30
    .cfi_restore x19
    .cfi_restore x20
    .cfi_restore x21
    .cfi_restore x22
    .cfi_restore x23
    .cfi_restore x24
    .cfi_restore x25
    .cfi_restore x26
    .cfi_restore x27
    .cfi_restore x28
    .cfi_restore d8
    .cfi_restore d9
    .cfi_restore d10
    .cfi_restore d11
    .cfi_restore d12
    .cfi_restore d13
    .cfi_restore d14
    .cfi_restore d15
    ret
    .cfi_endproc
    .size   nio_coro_swap_asm, . - nio_coro_swap_asm

/* Where a new context starts: entry(arg), which never returns.  The base of every coroutine's
 * stack: the return address is undefined, so unwinders end here.  The nop in front belongs to the
 * description as well, because unwinders look a return address up by the byte before it. */
    .p2align 4
    .type   nio_coro_base, %function
nio_coro_base:
    .cfi_startproc
    .cfi_undefined x30
    .cfi_undefined x29
    nop
    .globl  nio_coro_start
    .hidden nio_coro_start
    .type   nio_coro_start, %function
nio_coro_start:
    mov     x0, x20
    blr     x19
    brk     #0
    .cfi_endproc
    .size   nio_coro_start, . - nio_coro_start
    .size   nio_coro_base, . - nio_coro_base

    .section .note.gnu.property, "a", %note
    .p2align 3
    .long   4                   /* bytes of the name */
    .long   16                  /* bytes of the description */
    .long   5                   /* NT_GNU_PROPERTY_TYPE_0 */
    .asciz  "GNU"
    .long   0xc0000000          /* GNU_PROPERTY_AARCH64_FEATURE_1_AND */
    .long   4
    .long   1                   /* BTI, and neither PAC (2) nor GCS (4) */
    .long   0

#endif

    .section .note.GNU-stack, "", %progbits
