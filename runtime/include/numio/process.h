/* SPDX-License-Identifier: MIT */
/* numio/process.h: child processes: started by posix_spawn(3), watched by a pidfd, talked to by
 * pipes.
 *
 * No SIGCHLD is needed and none is touched: children that the program starts otherwise are its own
 * business, as long as it does not reap all of them with waitpid(-1).
 *
 *     const char *argv[] = { "sort", "-u", NULL };
 *     struct numio_process_opts opts;
 *     numio_process_opts_init(&opts, sizeof opts);
 *     opts.argv = argv;
 *     opts.in = opts.out = NUMIO_STDIO_PIPE;
 *     numio_process_spawn(&opts, &process);
 *     numio_write_all(numio_process_fd(process, 0), text, bytes);
 *     numio_process_close_fd(process, 0);          // it sees the end of its input
 *     numio_read(numio_process_fd(process, 1), ...);
 *     numio_process_wait(process, &end);
 *     numio_process_destroy(process);
 */
#ifndef NUMIO_PROCESS_H
#define NUMIO_PROCESS_H

#include <numio/base.h>

NUMIO_BEGIN_DECLS

struct numio_process;

enum {
    NUMIO_STDIO_INHERIT = -1, /* the parent's */
    NUMIO_STDIO_NULL = -2,    /* /dev/null */
    NUMIO_STDIO_PIPE = -3     /* a pipe, whose other end is numio_process_fd() */
    /* a descriptor from 0: that one */
};

struct numio_process_opts {
    size_t size; /* sizeof(struct numio_process_opts), by numio_process_opts_init() */
    const char *const
        *argv; /* ends with NULL; argv[0] is looked up in PATH unless it has a slash */
    const char *const *envp; /* ends with NULL; NULL: the parent's */
    const char *folder;      /* to start in; NULL: the parent's */
    int in, out, err;        /* NUMIO_STDIO_..., or a descriptor */
    bool is_session;         /* a session of its own, so that the terminal's signals pass it by */
};

NUMIO_EXPORT void numio_process_opts_init(struct numio_process_opts *opts, size_t size);

/* How a process has ended. */
struct numio_process_end {
    int status; /* exit status, -1 if a signal ended it */
    int signal; /* 0: none */
    bool has_core;
};

/* Starts a process.  It has no signal blocked or ignored, and of the parent's descriptors those
 * without FD_CLOEXEC and its three. Context: a coroutine, suspends (posix_spawn() runs on the
 * blocking pool). Owns:    *ret_process is the caller's, ended by numio_process_destroy(). Errors:
 * those of posix_spawn(3), with the program's name in the detail; -EINVAL the options; -ENOSYS the
 * kernel has no pidfd (Linux 5.4 has it). */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_process_spawn(const struct numio_process_opts *opts,
                                                         struct numio_process **ret_process);

NUMIO_EXPORT int numio_process_pid(const struct numio_process *process);
/* The parent's end of a pipe: 0 writes to its input, 1 and 2 read its output and errors; the
 * process's own, to be closed by the function below only.   Errors: -EBADF it has none. */
NUMIO_EXPORT int numio_process_fd(const struct numio_process *process, unsigned stream);
/* Closes that end.   Context: a coroutine, suspends.   Errors: -EBADF it has none. */
NUMIO_EXPORT int64_t numio_process_close_fd(struct numio_process *process, unsigned stream);

/* Waits until it has ended; again and again, if wanted.
 * Context: a coroutine, suspends.   Returns: 0.
 * Errors:  -ECANCELED, -ETIMEDOUT (it runs on); -ECHILD somebody else has reaped it. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_process_wait(struct numio_process *process,
                                                        struct numio_process_end *ret_end);

/* Sends it a signal; nobody else can get it, even if its number was given to another process.
 * Context: any thread.   Errors: -ESRCH it has ended; -EPERM; -EINVAL. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_process_kill(struct numio_process *process, int number);

/* Kills it if it still runs, reaps it, closes the pipes.  Takes NULL.
 * Context: a coroutine, also an aborted or late one: suspends. */
NUMIO_EXPORT void numio_process_destroy(struct numio_process *process);

NUMIO_END_DECLS

#endif
