/* SPDX-License-Identifier: MIT */
/* numio/bufio.h: buffered readers and writers for coroutines, over any descriptor.
 *
 * A reader gives exact lengths, lines and whatever ends with a delimiter, a writer gathers small
 * pieces into large writes.  The buffer is the caller's, of any size; nothing is allocated.
 *
 * Nothing is lost when a call ends early, by a deadline, an abort or an error: bytes that came stay
 * in the reader, bytes that were not written stay in the writer, and the same call, made again,
 * goes on.  Reads and writes that are larger than the buffer pass it by.
 *
 * They wait also where the descriptor has O_NONBLOCK, which stays as it is: standard input and
 * output share it with other processes.
 *
 * Context of all: a coroutine, and they suspend, unless said; one coroutine at a time.  Errors of
 * all: those of numio_read() and numio_write().
 */
#ifndef NUMIO_BUFIO_H
#define NUMIO_BUFIO_H

#include <numio/base.h>

NUMIO_BEGIN_DECLS

/* All fields are private. */
struct numio_reader {
    int _fd;
    int64_t _off; /* of the next read, -1: the descriptor's own position */
    char *_buf;
    size_t _size, _start, _end; /* what was read and not yet taken: from _start to _end */
    size_t _seen;               /* up to here there is no ... */
    char _delimiter;
    bool _is_end; /* the descriptor has no more */
};

/* `off` -1: the descriptor's own position, or a stream.   Context: any, never suspends.
 * Owns: `buf` and `fd` stay the caller's, for as long as the reader is used. */
NUMIO_EXPORT void numio_reader_init(struct numio_reader *reader, int fd, int64_t off, void *buf,
                                    size_t size);

/* Up to `len` bytes: what is buffered, else one read.   Returns: how many, 0 at the end. */
NUMIO_EXPORT int64_t numio_reader_read(struct numio_reader *reader, void *ret_bytes, size_t len);

/* Exactly `len` bytes.  *done is 0 at first and says how many are there already; after an error the
 * same call goes on.   Returns: 0.
 * Errors: -ENODATA the end came before, *done bytes are there. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_reader_exact(struct numio_reader *reader,
                                                        void *ret_bytes, size_t len, size_t *done);

/* Everything up to and with the first `delimiter`; at the end, what is left without one.
 * Owns:    *ret_text is in the reader's buffer, without a NUL, until the next call.
 * Returns: its bytes; 0 at the end.
 * Errors:  -EMSGSIZE it is longer than the buffer; numio_reader_read() still gives what is there.
 */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_reader_until(struct numio_reader *reader, char delimiter,
                                                        const char **ret_text);

/* A line, without its "\n" or "\r\n"; the last one may lack it.
 * Returns: its bytes, which may be 0.   Errors: -ENODATA at the end; else as above. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_reader_line(struct numio_reader *reader,
                                                       const char **ret_text);

/* Reads until at least `least` bytes are buffered, without taking them, or to the end.
 * Owns:    *ret_bytes is in the reader's buffer until the next call.
 * Returns: how many are there, which may be more.   Errors: -EMSGSIZE `least` exceeds the buffer.
 */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_reader_peek(struct numio_reader *reader, size_t least,
                                                       const char **ret_bytes);
/* Takes `len` bytes that numio_reader_peek() has shown, or as many as are buffered.
 * Context: any, never suspends.   Returns: how many. */
NUMIO_EXPORT size_t numio_reader_skip(struct numio_reader *reader, size_t len);

/* All fields are private. */
struct numio_writer {
    int _fd;
    int64_t _off;
    char *_buf;
    size_t _size, _start, _end; /* what is to be written: from _start to _end */
    bool _is_terminal;          /* decided once, by numio_writer_init() */
};

/* As numio_reader_init().  What is not flushed when the writer is given up is not written. */
NUMIO_EXPORT void numio_writer_init(struct numio_writer *writer, int fd, int64_t off, void *buf,
                                    size_t size);

/* All of `len` bytes, into the buffer or, if they do not fit, on their way with what it holds.
 * *done as in numio_reader_exact(): how many the writer has taken; NULL if that is not wanted.
 * Returns: 0. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_writer_write(struct numio_writer *writer,
                                                        const void *bytes, size_t len,
                                                        size_t *done);

/* As printf(3).   Errors: -EMSGSIZE the text is longer than the buffer, and nothing of it is taken;
 * -EINVAL the format. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_writer_printf(struct numio_writer *writer,
                                                         const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Writes what is buffered.   Returns: 0. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_writer_flush(struct numio_writer *writer);
/* Bytes that wait for a flush.   Context: any, never suspends. */
NUMIO_EXPORT size_t numio_writer_pending(const struct numio_writer *writer);

NUMIO_END_DECLS

#endif
