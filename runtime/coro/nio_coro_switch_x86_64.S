/* SPDX-License-Identifier: MIT */
/* The context switch for x86-64, System V ABI.  Empty on other machines.
 *
 * What is kept.  rbx, rbp, r12-r15 and rsp: what the ABI promises a caller, beside the control
 * words of SSE and x87 (mxcsr, fcw).  Those two are left alone on purpose: rounding mode, FTZ and
 * DAZ belong to the worker thread.  Keeping them per coroutine costs more than the rest together
 * (on a Zen 4 core at 2.6 GHz: 2.2 ns a switch without, 5.2 ns with stmxcsr, fnstcw, ldmxcsr,
 * fldcw, 6.8 ns when they are reloaded only if they differ, because the comparison waits for the
 * store), and no code but numerics touches them.  A coroutine that changes them puts them back
 * before it suspends; builds with NIO_DEBUG assert it.
 *
 * How it is entered.  By a jump with the address to go on at in rdx, and it leaves by a jump as
 * well, so that the return-address predictor stays as it is; swap.h has the reason and figures.
 *
 * CFI.  Both stacks have the same layout around the exchange of rsp, so one description is valid
 * on either side of it: a profiler or debugger that stops on any instruction unwinds the context
 * that rsp belongs to.
 *
 * Property note.  IBT is true: every target of an indirect branch starts with endbr64.
 * SHSTK is absent: with user shadow stacks (CET) each coroutine would need a shadow stack of its
 * own from map_shadow_stack(2), a mapping and a page each, which a million coroutines cannot have
 * (vm.max_map_count).  So the linker drops the mark of a program that contains this object, and
 * the loader leaves shadow stacks off.  README.md has the argument, nio_coro_check() the run-time
 * test for a process that switched them on by other means.
 */
#if defined(__x86_64__)

#include "runtime/coro/frame.h"

    .text

/* rdi: where to save the stack pointer; rsi: the one to load; rdx: where to go on later. */
    .globl  nio_coro_swap_asm
    .hidden nio_coro_swap_asm
    .type   nio_coro_swap_asm, @function
    .p2align 5
nio_coro_swap_asm:
    .cfi_startproc
    .cfi_def_cfa %rsp, 0
    .cfi_register %rip, %rdx
    leaq    -NIO_FRAME_SKIP_BYTES(%rsp), %rsp
    .cfi_adjust_cfa_offset NIO_FRAME_SKIP_BYTES
    pushq   %rdx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rip, 0
    pushq   %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq   %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq   %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq   %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq   %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq   %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    movq    %rsp, (%rdi)
    movq    %rsi, %rsp
    popq    %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq    %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq    %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq    %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq    %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq    %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    popq    %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rcx
    leaq    NIO_FRAME_SKIP_BYTES(%rsp), %rsp
    .cfi_adjust_cfa_offset -NIO_FRAME_SKIP_BYTES
    jmp     *%rcx
    .cfi_endproc
    .size   nio_coro_swap_asm, . - nio_coro_swap_asm

/* Where a new context starts: entry(arg), which never returns.  The base of every coroutine's
 * stack: the return address is undefined, so unwinders end here.  It jumps as well, because no
 * ret would ever match a call.  Unwinders look a return address up by the byte before it: hence a
 * nop before each of the two. */
    .p2align 4
    .type   nio_coro_base, @function
nio_coro_base:
    .cfi_startproc
    .cfi_undefined %rip
    .cfi_undefined %rbp
    nop
    .globl  nio_coro_start
    .hidden nio_coro_start
    .type   nio_coro_start, @function
nio_coro_start:
    endbr64
    movq    %r13, %rdi
    leaq    1f(%rip), %rax
    pushq   %rax
    .cfi_adjust_cfa_offset 8
    jmp     *%r12
    .cfi_adjust_cfa_offset -8
    nop
1:  ud2
    .cfi_endproc
    .size   nio_coro_start, . - nio_coro_start
    .size   nio_coro_base, . - nio_coro_base

    .section .note.gnu.property, "a", @note
    .p2align 3
    .long   4                   /* bytes of the name */
    .long   16                  /* bytes of the description */
    .long   5                   /* NT_GNU_PROPERTY_TYPE_0 */
    .asciz  "GNU"
    .long   0xc0000002          /* GNU_PROPERTY_X86_FEATURE_1_AND */
    .long   4
    .long   1                   /* IBT, and not SHSTK (2) */
    .long   0

#endif

    .section .note.GNU-stack, "", %progbits
