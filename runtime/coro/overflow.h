/* SPDX-License-Identifier: MIT */
/* coro/overflow.h: turns the fault of a coroutine that ran out of stack into a sentence.
 *
 * numio installs no signal handler by itself; whoever wants the report asks for it once per
 * process.  A fault in the guard of a coroutine's stack then prints one line to standard error
 *   numio: stack overflow in coroutine 'NAME' spawned at FILE:LINE (16384 bytes of stack); raise
 *   stack_bytes
 * and the process dies of the same signal at the same instruction, so that a core dump shows the
 * overflow itself.  Every other fault goes to the handler that was there before.
 *
 * The handler needs a stack, because the faulting one is used up: each thread that runs
 * coroutines gives it one with nio_overflow_thread_enter().
 */
#ifndef NIO_CORO_OVERFLOW_H
#define NIO_CORO_OVERFLOW_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/compiler.h"

struct nio_overflow_report {
    const char *name; /* NULL: the coroutine has none; the first 64 bytes are printed */
    const char *file; /* where it was spawned; the last 160 bytes are printed */
    int line;
    const void *stack_low; /* the usable stack, without the guard below it */
    size_t stack_bytes;
};

/* Fills *ret_report and returns true when `address` lies in the guard of a coroutine's stack.
 * Called in a signal handler, on any thread: no locks, no allocation, nothing that may itself
 * fault.  A pointer and not a call, because who owns which stack is known two layers above. */
typedef bool nio_overflow_lookup(const void *address, struct nio_overflow_report *ret_report);

/* Installs the handler for SIGSEGV and SIGBUS, for the life of the process.
 * Context: any thread.  A second call with the same lookup does nothing and returns 0.
 * Errors:  -EBUSY with another lookup; -EINVAL without one. */
NIO_NODISCARD int nio_overflow_install(nio_overflow_lookup *lookup);

/* A thread's alternate signal stack. */
struct nio_overflow_thread {
    void *stack; /* NULL: the thread had one of its own, which is left alone */
};

/* Gives the calling thread an alternate signal stack, unless it has one.
 * Owns:    *thread and the stack are used until nio_overflow_thread_leave() on the same thread.
 * Errors:  -ENOMEM. */
NIO_NODISCARD int nio_overflow_thread_enter(struct nio_overflow_thread *thread);

/* Takes it away again.  Takes a zeroed record too.  Not from inside a signal handler. */
void nio_overflow_thread_leave(struct nio_overflow_thread *thread);

#endif
