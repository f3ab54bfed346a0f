/* SPDX-License-Identifier: MIT */
/* coro/frame.h: what a suspended context looks like on its own stack, for C and assembly alike.
 *
 * The switch pushes the callee-saved registers below the address it goes on at and keeps only the
 * stack pointer; nio_coro_init() forges such a frame, which goes on at the entry
 * trampoline.  Macros only, because the assembler reads this file too; coro.c asserts that they
 * agree with its structs.  Offsets and sizes are in bytes, upwards from the saved stack pointer.
 */
#ifndef NIO_CORO_FRAME_H
#define NIO_CORO_FRAME_H

#if defined(__x86_64__)

#define NIO_FRAME_ARG 16    /* r13: the trampoline passes it to the entry function */
#define NIO_FRAME_ENTRY 24  /* r12: the function the trampoline calls */
#define NIO_FRAME_RESUME 48 /* where it goes on */
#define NIO_FRAME_BYTES 56
#define NIO_FRAME_SKIP_BYTES 128 /* above the frame: what the ABI lets code use below rsp */
#define NIO_FRAME_TOP_BYTES 16   /* zeros above the first frame, see coro.c */

#elif defined(__aarch64__)

#define NIO_FRAME_ENTRY 16 /* x19: the function the trampoline calls */
#define NIO_FRAME_ARG 24   /* x20: the trampoline passes it to the entry function */
#define NIO_FRAME_RESUME 8 /* x30, where it goes on */
#define NIO_FRAME_BYTES 160
#define NIO_FRAME_SKIP_BYTES 0 /* there is no such thing here */
#define NIO_FRAME_TOP_BYTES 16 /* zeros above the first frame, see coro.c */

#else
#error "numio: coroutines need x86-64 or aarch64"
#endif

#endif
