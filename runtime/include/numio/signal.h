/* SPDX-License-Identifier: MIT */
/* numio/signal.h: signals as a stream that a coroutine reads.
 *
 * The signals are blocked and read from a signalfd(2), so no handler is installed and nothing runs
 * at an odd moment.  That works only while every thread of the process blocks them: else the kernel
 * gives them to the one that does not, whose default action may end the process.  numio's own
 * threads block them; a program opens its streams in main(), before it starts threads of its own,
 * which then inherit the mask.
 */
#ifndef NUMIO_SIGNAL_H
#define NUMIO_SIGNAL_H

#include <numio/base.h>

NUMIO_BEGIN_DECLS

struct numio_signals;

struct numio_signal {
    int number;
    int code;      /* SI_USER, SI_QUEUE and so on: sigaction(2) */
    int pid;       /* who sent it, 0: the kernel */
    unsigned uid;  /* whose process that is */
    int64_t value; /* sigqueue(3) */
};

/* Blocks the signals in the calling thread and opens a stream of them.
 * Context: any thread that is no worker, before other threads are started; never suspends.
 * Owns:    *ret_signals is the caller's, ended by numio_signals_close().
 * Errors:  -EINVAL a number that is none, or SIGKILL, SIGSTOP; -EBUSY a thread of the process does
 *          not block them (the detail names it); -EMFILE, -ENOMEM. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_signals_open(const int *numbers, unsigned count,
                                                    struct numio_signals **ret_signals);

/* The next signal.  One that is sent again before it was taken counts once, as signals do, but for
 * the real-time ones.
 * ret_signal may be NULL.
 * Context: a coroutine, suspends; several may wait, each signal wakes one.
 * Returns: 0.   Errors: -ECANCELED, -ETIMEDOUT. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_signals_next(struct numio_signals *signals,
                                                        struct numio_signal *ret_signal);

/* Ends the stream, when nobody waits on it.  The signals stay blocked: unblocked, one that is
 * pending would take its default action.   Context: any thread.   Takes NULL. */
NUMIO_EXPORT void numio_signals_close(struct numio_signals *signals);

NUMIO_END_DECLS

#endif
