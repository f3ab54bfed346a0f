/* SPDX-License-Identifier: MIT */
/* numio/pipe.h: pipes, and moving bytes from one descriptor to another.
 *
 * A pipe is read and written with the calls of <numio/io.h> or a reader and a writer of
 * <numio/bufio.h>.  So are the standard streams, whatever is behind them:
 * numio_reader_init(&reader, STDIN_FILENO, -1, buf, size).  O_NONBLOCK, which other processes share
 * with this one, is never changed.
 *
 * Writing to a pipe that nobody reads is -EPIPE.
 */
#ifndef NUMIO_PIPE_H
#define NUMIO_PIPE_H

#include <numio/bufio.h>

NUMIO_BEGIN_DECLS

/* A pipe with room for at least `bytes`, 0: what the kernel gives; both ends closed on exec.
 * Context: any thread; never suspends.   Owns: both ends are the caller's; [0] is read from.
 * Errors:  -EPERM to a user without CAP_SYS_RESOURCE: more than /proc/sys/fs/pipe-max-size allows,
 *          or all pipes of that user together have more than pipe-user-pages-soft or -hard beside
 *          it allow; -EINVAL more than a pipe can have; those of pipe2(2). */
NUMIO_EXPORT NUMIO_NODISCARD int numio_pipe(int ret_fds[2], size_t bytes);

/* Moves bytes through the buffers' memory from a reader to a writer until the reader's end, or
 * until *done, which the caller sets to 0 at first, has become `limit`; then flushes.
 * *done counts what the writer has taken, however it ends; what the reader has and the writer has
 * not stays in the reader, what was not written stays in the writer.  The same call, made again,
 * goes on without loss.
 * Context: a coroutine, suspends.   Units: bytes; UINT64_MAX is no limit.
 * Returns: 0.   Errors: those of numio_reader_peek() and numio_writer_write(). */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_forward(struct numio_reader *reader,
                                                   struct numio_writer *writer, uint64_t limit,
                                                   uint64_t *done);

NUMIO_END_DECLS

#endif
