/* SPDX-License-Identifier: MIT */
#include "numa/sysfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/mem.h"

enum { LOAD_BYTES_FIRST = 16 << 10, LOAD_BYTES_MAX = 4 << 20 };

static int open_below(const char *root, const char *path)
{
    char full[PATH_MAX];
    int length = snprintf(full, sizeof full, "%s%s", root, path);
    if (length < 0 || (size_t)length >= sizeof full)
        return -ENAMETOOLONG;
    int fd = open(full, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Reads until the end or until the buffer is full.  Returns the count or -errno. */
static ssize_t read_all(int fd, char *text, size_t text_bytes)
{
    size_t done = 0;
    while (done < text_bytes) {
        ssize_t n = read(fd, text + done, text_bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int nio_sysfile_read(const char *root, const char *path, char *text, size_t text_bytes)
{
    int fd = open_below(root, path);
    if (fd < 0)
        return fd;
    ssize_t n = read_all(fd, text, text_bytes);
    (void)close(fd); /* only read from */
    if (n < 0)
        return (int)n;
    if ((size_t)n == text_bytes)
        return -E2BIG;
    if (n > 0 && text[n - 1] == '\n')
        n--;
    text[n] = '\0';
    return 0;
}

int nio_sysfile_load(const char *root, const char *path, char **ret_text)
{
    int err = -E2BIG;
    for (size_t bytes = LOAD_BYTES_FIRST; err == -E2BIG && bytes <= LOAD_BYTES_MAX; bytes *= 2) {
        char *text = nio_zalloc(bytes);
        if (!text)
            return -ENOMEM;
        err = nio_sysfile_read(root, path, text, bytes);
        if (err == 0)
            *ret_text = text;
        else
            nio_free(text);
    }
    return err;
}

int nio_sysfile_number(const char *root, const char *path, long long *ret_value)
{
    char text[32], *end;
    int err = nio_sysfile_read(root, path, text, sizeof text);
    if (err)
        return err == -E2BIG ? -EINVAL : err;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0)
        return -EINVAL;
    *ret_value = value;
    return 0;
}
