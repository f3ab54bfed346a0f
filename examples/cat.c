/* SPDX-License-Identifier: MIT */
/* cat [FILE...]: copies files, or standard input ("-"), to standard output through the ring. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <numio/numio.h>

enum { BUFFER_BYTES = 128 << 10 };

static int64_t copy(int fd, char *buf)
{
    int64_t n;
    while ((n = numio_read(fd, buf, BUFFER_BYTES)) > 0) {
        int64_t written = numio_write_all(STDOUT_FILENO, buf, (size_t)n);
        if (written < 0)
            return written;
    }
    return n;
}

static int64_t copy_path(const char *path, char *buf)
{
    if (strcmp(path, "-") == 0)
        return copy(STDIN_FILENO, buf);
    int64_t fd = numio_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    int64_t err = copy((int)fd, buf);
    (void)numio_close((int)fd); /* it was only read */
    return err;
}

static int64_t cat(void *arg)
{
    char **paths = arg;
    int64_t status = 0;
    char *buf = numio_io_buffer_alloc(numio_handle_current(), 0, BUFFER_BYTES);
    for (; buf && *paths; paths++) {
        int64_t err = copy_path(*paths, buf);
        if (err < 0)
            fprintf(stderr, "cat: %s: %s\n", *paths, strerror((int)-err));
        status = err < 0 ? err : status;
    }
    if (buf)
        numio_io_buffer_free(numio_handle_current(), 0, buf, BUFFER_BYTES);
    return buf ? status : -ENOMEM;
}

int main(int argc, char **argv)
{
    char dash[] = "-", *standard_input[] = { dash, NULL };
    return numio_main(NULL, cat, argc > 1 ? argv + 1 : standard_input) < 0;
}
