/* SPDX-License-Identifier: MIT */
/* Listing a folder: getdents64(2) on the blocking pool, a buffer of entries at a time.
 *
 * glibc's readdir() would do the same, but allocates and locks for threads that share a stream. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include <numio/fs.h>
#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/fs/fs_pool.h"

enum { DIR_BYTES = 32 << 10 };

/* As the kernel writes them: getdents64(2). */
struct linux_dirent64 {
    uint64_t ino;
    int64_t off;
    uint16_t bytes;
    unsigned char type;
    char name[];
};

struct numio_dir {
    int fd;
    size_t at, filled;
    _Alignas(uint64_t) char entries[DIR_BYTES];
};

int64_t numio_dir_open(int dirfd, const char *path, struct numio_dir **ret_dir)
{
    struct numio_dir *dir = nio_zalloc(sizeof *dir);
    if (!dir)
        return -ENOMEM;
    int64_t fd = numio_openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) {
        nio_free(dir);
        return fd;
    }
    dir->fd = (int)fd;
    *ret_dir = dir;
    return 0;
}

static int64_t fill(struct numio_dir *dir)
{
    struct nio_fs_call call = { SYS_getdents64,
                                { dir->fd, (long)(uintptr_t)dir->entries, DIR_BYTES } };
    int64_t n = nio_fs_on_pool(&call);
    if (n >= 0) {
        dir->at = 0;
        dir->filled = (size_t)n;
    }
    return n;
}

static bool is_itself(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

int64_t numio_dir_next(struct numio_dir *dir, struct numio_dirent *ret_entry)
{
    for (;;) { /* bounded by the folder */
        if (dir->at >= dir->filled) {
            int64_t n = fill(dir);
            if (n <= 0)
                return n;
        }
        const struct linux_dirent64 *entry = (const void *)&dir->entries[dir->at];
        dir->at += entry->bytes;
        if (is_itself(entry->name))
            continue;
        *ret_entry = (struct numio_dirent){ entry->ino, entry->name, entry->type };
        return 1;
    }
}

int numio_dir_fd(const struct numio_dir *dir)
{
    return dir->fd;
}

int64_t numio_dir_close(struct numio_dir *dir)
{
    if (!dir)
        return 0;
    int64_t rc = numio_close(dir->fd);
    nio_free(dir);
    return rc;
}
