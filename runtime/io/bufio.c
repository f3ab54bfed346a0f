/* SPDX-License-Identifier: MIT */
/* Buffered readers and writers.  Each keeps the bytes from _start to _end of its buffer; a reader
 * moves them to the front only when it needs the room. */
#include <numio/bufio.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <numio/io.h>

#include "runtime/base/compiler.h"
#include "runtime/base/error.h"
#include "runtime/driver/driver.h"

/* ---- readers ------------------------------------------------------------------------------ */

void numio_reader_init(struct numio_reader *reader, int fd, int64_t off, void *buf, size_t size)
{
    *reader = (struct numio_reader){ ._fd = fd, ._off = off, ._buf = buf, ._size = size };
}

static size_t buffered(const struct numio_reader *reader)
{
    return reader->_end - reader->_start;
}

/* One read past the buffer.  Returns its bytes, 0 at the end. */
static int64_t read_once(struct numio_reader *reader, void *to, size_t len)
{
    if (reader->_is_end)
        return 0;
    int64_t n;
    do /* bounded by the signals that come */
        n = numio_pread(reader->_fd, to, len, reader->_off);
    while (n == -EINTR);
    if (n > 0 && reader->_off >= 0)
        reader->_off += n;
    reader->_is_end = n == 0;
    return n;
}

static void move_to_front(struct numio_reader *reader)
{
    memmove(reader->_buf, reader->_buf + reader->_start, buffered(reader));
    reader->_seen -= reader->_start < reader->_seen ? reader->_start : reader->_seen;
    reader->_end -= reader->_start;
    reader->_start = 0;
}

/* Adds bytes to the buffer.  Returns how many, 0 at the end; -EMSGSIZE it is full. */
static int64_t fill(struct numio_reader *reader)
{
    if (reader->_start > 0 && (reader->_end == reader->_size || reader->_start == reader->_end))
        move_to_front(reader);
    if (reader->_end == reader->_size)
        return -EMSGSIZE;
    int64_t n = read_once(reader, reader->_buf + reader->_end, reader->_size - reader->_end);
    if (n > 0)
        reader->_end += (size_t)n;
    return n;
}

size_t numio_reader_skip(struct numio_reader *reader, size_t len)
{
    size_t n = len < buffered(reader) ? len : buffered(reader);
    reader->_start += n;
    return n;
}

static size_t take(struct numio_reader *reader, void *to, size_t len)
{
    size_t n = len < buffered(reader) ? len : buffered(reader);
    if (n > 0)
        memcpy(to, reader->_buf + reader->_start, n);
    return numio_reader_skip(reader, n);
}

int64_t numio_reader_read(struct numio_reader *reader, void *ret_bytes, size_t len)
{
    if (buffered(reader) == 0 && len > 0) {
        int64_t n = len >= reader->_size ? read_once(reader, ret_bytes, len) : fill(reader);
        if (n <= 0 || len >= reader->_size)
            return n;
    }
    return (int64_t)take(reader, ret_bytes, len);
}

int64_t numio_reader_exact(struct numio_reader *reader, void *ret_bytes, size_t len, size_t *done)
{
    while (*done < len) {
        int64_t n = numio_reader_read(reader, (char *)ret_bytes + *done, len - *done);
        if (n <= 0)
            return n < 0 ? n : -ENODATA;
        *done += (size_t)n;
    }
    return 0;
}

int64_t numio_reader_peek(struct numio_reader *reader, size_t least, const char **ret_bytes)
{
    if (least > reader->_size)
        return nio_error(-EMSGSIZE, "reader: %zu bytes are more than its buffer's %zu", least,
                         reader->_size);
    while (buffered(reader) < least) {
        if (reader->_size - reader->_start < least) /* there is room, but at the front */
            move_to_front(reader);
        int64_t n = fill(reader);
        if (n < 0)
            return n;
        if (n == 0)
            break;
    }
    *ret_bytes = reader->_buf + reader->_start;
    return (int64_t)buffered(reader);
}

int64_t numio_reader_until(struct numio_reader *reader, char delimiter, const char **ret_text)
{
    const char *found;
    int64_t n = 1;
    if (delimiter != reader->_delimiter)
        reader->_seen = 0;
    reader->_delimiter = delimiter;
    /* Only what has come since the last look is searched, so that a slow line costs no more. */
    for (;;) {
        size_t from = reader->_seen > reader->_start ? reader->_seen : reader->_start;
        found = memchr(reader->_buf + from, delimiter, reader->_end - from);
        if (found || n == 0)
            break;
        reader->_seen = reader->_end;
        n = fill(reader);
        if (n < 0)
            return n == -EMSGSIZE
                       ? nio_error(-EMSGSIZE, "reader: nothing ends within its buffer of %zu bytes",
                                   reader->_size)
                       : n;
    }
    const char *text = reader->_buf + reader->_start;
    size_t bytes = found ? (size_t)(found - text) + 1 : buffered(reader);
    *ret_text = text;
    reader->_seen = 0;
    return (int64_t)numio_reader_skip(reader, bytes);
}

int64_t numio_reader_line(struct numio_reader *reader, const char **ret_text)
{
    const char *text;
    int64_t n = numio_reader_until(reader, '\n', &text);
    if (n <= 0)
        return n < 0 ? n : -ENODATA;
    if (text[n - 1] == '\n') {
        n--;
        if (n > 0 && text[n - 1] == '\r')
            n--;
    }
    *ret_text = text;
    return n;
}

/* ---- writers ------------------------------------------------------------------------------ */

void numio_writer_init(struct numio_writer *writer, int fd, int64_t off, void *buf, size_t size)
{
    *writer = (struct numio_writer){
        ._fd = fd, ._off = off, ._buf = buf, ._size = size, ._is_terminal = isatty(fd) == 1
    };
}

size_t numio_writer_pending(const struct numio_writer *writer)
{
    return writer->_end - writer->_start;
}

/* The kernel writes to a terminal within the submission, and blocks there until there is room: a
 * terminal's writes are for a thread of io-wq. */
static int64_t write_parts(const struct numio_writer *writer, const struct iovec *parts, int count)
{
    struct numio_op op;
    if (count == 1)
        numio_op_write(&op, writer->_fd, parts->iov_base, parts->iov_len, writer->_off);
    else
        numio_op_writev(&op, writer->_fd, parts, count, writer->_off);
    if (writer->_is_terminal)
        op._sqe[0] |= NIO_OP_ASYNC;
    return numio_op_await(&op);
}

/* One write of what is buffered and of `len` bytes more.  *done counts those of them that went. */
static int64_t write_once(struct numio_writer *writer, const char *bytes, size_t len, size_t *done)
{
    size_t pending = numio_writer_pending(writer);
    struct iovec parts[2] = { { writer->_buf + writer->_start, pending },
                              { (void *)(uintptr_t)bytes, len } };
    bool is_one = pending == 0 || len == 0;
    int64_t n = write_parts(writer, &parts[pending == 0], is_one ? 1 : 2);
    if (n < 0)
        return n == -EINTR ? 0 : n;
    if (n == 0)
        return -ENOSPC;
    if (writer->_off >= 0)
        writer->_off += n;
    size_t from_buffer = (size_t)n < pending ? (size_t)n : pending;
    writer->_start += from_buffer;
    if (writer->_start == writer->_end)
        writer->_start = writer->_end = 0;
    *done += (size_t)n - from_buffer;
    return 0;
}

int64_t numio_writer_flush(struct numio_writer *writer)
{
    size_t none = 0;
    int64_t rc = 0;
    while (rc == 0 && numio_writer_pending(writer) > 0)
        rc = write_once(writer, NULL, 0, &none);
    return rc;
}

static void keep(struct numio_writer *writer, const char *bytes, size_t len)
{
    if (writer->_start > 0 && writer->_size - writer->_end < len) {
        memmove(writer->_buf, writer->_buf + writer->_start, numio_writer_pending(writer));
        writer->_end -= writer->_start;
        writer->_start = 0;
    }
    if (len > 0)
        memcpy(writer->_buf + writer->_end, bytes, len);
    writer->_end += len;
}

int64_t numio_writer_write(struct numio_writer *writer, const void *bytes, size_t len, size_t *done)
{
    size_t own = 0;
    int64_t rc = 0;
    done = done ? done : &own;
    while (rc == 0 && *done < len) {
        const char *rest = (const char *)bytes + *done;
        size_t left = len - *done;
        if (left <= writer->_size - numio_writer_pending(writer)) {
            keep(writer, rest, left);
            *done = len;
        } else {
            rc = write_once(writer, rest, left, done);
        }
    }
    return rc;
}

int64_t numio_writer_printf(struct numio_writer *writer, const char *format, ...)
{
    for (;;) { /* twice: if it does not fit behind what waits, that goes first */
        size_t room = writer->_size - writer->_end;
        va_list args;
        va_start(args, format);
        /* The NUL needs a byte of room, too, which is then not counted. */
        int n = vsnprintf(room > 0 ? writer->_buf + writer->_end : NULL, room, format, args);
        va_end(args);
        if (n < 0)
            return nio_error(-EINVAL, "writer: the format cannot be printed");
        if ((size_t)n < room || n == 0) {
            writer->_end += (size_t)n;
            return 0;
        }
        if ((size_t)n >= writer->_size)
            return nio_error(-EMSGSIZE, "writer: %d bytes of text and a buffer of %zu", n,
                             writer->_size);
        int64_t rc = numio_writer_flush(writer);
        if (rc < 0)
            return rc;
    }
}
