/* SPDX-License-Identifier: MIT */
/* The calls of <numio/fs.h>: an operation on the ring where io_uring has one and the kernel knows
 * it, else the system call itself on the blocking pool. */
#include <numio/fs.h>

#include <errno.h>
#include <limits.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <numio/io.h>
#include <numio/runtime.h>

#include "runtime/base/error.h"
#include "runtime/driver/driver.h"
#include "runtime/fs/fs_pool.h"
#include "runtime/sched/await.h"

static int64_t run_call(void *arg)
{
    const struct nio_fs_call *call = arg;
    const long *a = call->args;
    long result = syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    return result < 0 ? -errno : result;
}

int64_t nio_fs_on_pool(const struct nio_fs_call *call)
{
    const struct nio_co *co = nio_co_current();
    if (!co)
        return nio_error(-EINVAL, "fs: not called from a coroutine");
    int stop = nio_co_stop(co);
    if (stop)
        return stop;
    return numio_block_in_place(run_call, (void *)(uintptr_t)call);
}

#define ON_POOL(...) nio_fs_on_pool(&(const struct nio_fs_call){ __VA_ARGS__ })

static long number_of(const void *pointer)
{
    return (long)(uintptr_t)pointer;
}

/* The lengths of io_uring's requests have 32 bits. */
static unsigned clamp(size_t len)
{
    return len < UINT_MAX ? (unsigned)len : UINT_MAX;
}

int64_t numio_openat2(int dirfd, const char *path, const struct open_how *how)
{
    struct numio_op op;
    numio_op_openat2(&op, dirfd, path, how);
    if (nio_knows_op(&op))
        return numio_op_await(&op);
    return ON_POOL(SYS_openat2, { dirfd, number_of(path), number_of(how), sizeof *how });
}

/* ---- names -------------------------------------------------------------------------------- */

int64_t numio_renameat(int olddirfd, const char *oldpath, int newdirfd, const char *newpath,
                       unsigned flags)
{
    struct numio_op op;
    numio_op_renameat(&op, olddirfd, oldpath, newdirfd, newpath, flags);
    if (nio_knows_op(&op))
        return numio_op_await(&op);
    return ON_POOL(SYS_renameat2,
                   { olddirfd, number_of(oldpath), newdirfd, number_of(newpath), flags });
}

int64_t numio_rename(const char *oldpath, const char *newpath)
{
    return numio_renameat(AT_FDCWD, oldpath, AT_FDCWD, newpath, 0);
}

int64_t numio_linkat(int olddirfd, const char *oldpath, int newdirfd, const char *newpath,
                     int flags)
{
    struct numio_op op;
    numio_op_linkat(&op, olddirfd, oldpath, newdirfd, newpath, flags);
    if (nio_knows_op(&op))
        return numio_op_await(&op);
    return ON_POOL(SYS_linkat,
                   { olddirfd, number_of(oldpath), newdirfd, number_of(newpath), flags });
}

int64_t numio_link(const char *oldpath, const char *newpath)
{
    return numio_linkat(AT_FDCWD, oldpath, AT_FDCWD, newpath, 0);
}

int64_t numio_symlinkat(const char *target, int dirfd, const char *path)
{
    struct numio_op op;
    numio_op_symlinkat(&op, target, dirfd, path);
    if (nio_knows_op(&op))
        return numio_op_await(&op);
    return ON_POOL(SYS_symlinkat, { number_of(target), dirfd, number_of(path) });
}

int64_t numio_symlink(const char *target, const char *path)
{
    return numio_symlinkat(target, AT_FDCWD, path);
}

int64_t numio_readlinkat(int dirfd, const char *path, char *buf, size_t size)
{
    return ON_POOL(SYS_readlinkat, { dirfd, number_of(path), number_of(buf), (long)size });
}

int64_t numio_readlink(const char *path, char *buf, size_t size)
{
    return numio_readlinkat(AT_FDCWD, path, buf, size);
}

int64_t numio_unlinkat(int dirfd, const char *path, int flags)
{
    struct numio_op op;
    numio_op_unlinkat(&op, dirfd, path, flags);
    if (nio_knows_op(&op))
        return numio_op_await(&op);
    return ON_POOL(SYS_unlinkat, { dirfd, number_of(path), flags });
}

int64_t numio_unlink(const char *path)
{
    return numio_unlinkat(AT_FDCWD, path, 0);
}

int64_t numio_rmdir(const char *path)
{
    return numio_unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int64_t numio_mkdirat(int dirfd, const char *path, mode_t mode)
{
    struct numio_op op;
    numio_op_mkdirat(&op, dirfd, path, mode);
    if (nio_knows_op(&op))
        return numio_op_await(&op);
    return ON_POOL(SYS_mkdirat, { dirfd, number_of(path), (long)mode });
}

int64_t numio_mkdir(const char *path, mode_t mode)
{
    return numio_mkdirat(AT_FDCWD, path, mode);
}

/* ---- contents ----------------------------------------------------------------------------- */

int64_t numio_ftruncate(int fd, int64_t len)
{
    return ON_POOL(SYS_ftruncate, { fd, len });
}

int64_t numio_copy_file_range(int fd_in, int64_t *off_in, int fd_out, int64_t *off_out, size_t len,
                              unsigned flags)
{
    return ON_POOL(SYS_copy_file_range,
                   { fd_in, number_of(off_in), fd_out, number_of(off_out), (long)len, flags });
}

/* Moves bytes through a buffer of the caller's node. */
static int64_t copy_by_buffer(int fd_in, int64_t off_in, int fd_out, int64_t off_out, int64_t len)
{
    enum { COPY_BYTES = 256 << 10 };
    int64_t done = 0;
    int node = numio_current_node(); /* it may be another one when the copy is done */
    char *buffer = numio_io_buffer_alloc(NULL, node, COPY_BYTES);
    if (!buffer)
        return -ENOMEM;
    int64_t n = 0;
    while (done < len) {
        size_t want = len - done < COPY_BYTES ? (size_t)(len - done) : COPY_BYTES;
        n = numio_pread(fd_in, buffer, want, off_in + done);
        if (n > 0)
            n = numio_pwrite_all(fd_out, buffer, (size_t)n, off_out + done);
        if (n <= 0)
            break;
        done += n;
    }
    numio_io_buffer_free(NULL, node, buffer, COPY_BYTES);
    return n < 0 ? n : done;
}

int64_t numio_copy_all(int fd_in, int64_t off_in, int fd_out, int64_t off_out, int64_t len)
{
    int64_t done = 0;
    if (len < 0 || off_in < 0 || off_out < 0)
        return nio_error(-EINVAL, "copy: negative offset or length");
    while (done < len) {
        int64_t from = off_in + done, to = off_out + done;
        int64_t n = numio_copy_file_range(fd_in, &from, fd_out, &to, (size_t)(len - done), 0);
        if (n == -EXDEV || n == -EOPNOTSUPP || n == -ENOSYS || n == -EINVAL || (n == 0 && !done)) {
            /* Not these two file systems, or a file in /proc, which says that it is empty. */
            n = copy_by_buffer(fd_in, from, fd_out, to, len - done);
            return n < 0 ? n : done + n;
        }
        if (n <= 0)
            return n < 0 ? n : done;
        done += n;
    }
    return done;
}

int64_t numio_splice(int fd_in, int64_t off_in, int fd_out, int64_t off_out, unsigned len,
                     unsigned flags)
{
    struct numio_op op;
    numio_op_splice(&op, fd_in, off_in, fd_out, off_out, len, flags);
    return numio_op_await(&op);
}

int64_t numio_sync_file_range(int fd, int64_t off, unsigned len, unsigned flags)
{
    struct numio_op op;
    numio_op_sync_file_range(&op, fd, off, len, flags);
    return numio_op_await(&op);
}

int64_t numio_fadvise(int fd, int64_t off, unsigned len, int advice)
{
    struct numio_op op;
    numio_op_fadvise(&op, fd, off, len, advice);
    return numio_op_await(&op);
}

/* ---- extended attributes ------------------------------------------------------------------ */

int64_t numio_getxattr(const char *path, const char *name, void *value, size_t size)
{
    struct numio_op op;
    numio_op_getxattr(&op, path, name, value, clamp(size));
    if (nio_knows_op(&op))
        return numio_op_await(&op);
    return ON_POOL(SYS_getxattr,
                   { number_of(path), number_of(name), number_of(value), (long)size });
}

int64_t numio_fgetxattr(int fd, const char *name, void *value, size_t size)
{
    struct numio_op op;
    numio_op_fgetxattr(&op, fd, name, value, clamp(size));
    if (nio_knows_op(&op))
        return numio_op_await(&op);
    return ON_POOL(SYS_fgetxattr, { fd, number_of(name), number_of(value), (long)size });
}

int64_t numio_setxattr(const char *path, const char *name, const void *value, size_t size,
                       int flags)
{
    struct numio_op op;
    numio_op_setxattr(&op, path, name, value, clamp(size), flags);
    if (nio_knows_op(&op))
        return numio_op_await(&op);
    return ON_POOL(SYS_setxattr,
                   { number_of(path), number_of(name), number_of(value), (long)size, flags });
}

int64_t numio_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    struct numio_op op;
    numio_op_fsetxattr(&op, fd, name, value, clamp(size), flags);
    if (nio_knows_op(&op))
        return numio_op_await(&op);
    return ON_POOL(SYS_fsetxattr, { fd, number_of(name), number_of(value), (long)size, flags });
}

int64_t numio_flistxattr(int fd, char *list, size_t size)
{
    return ON_POOL(SYS_flistxattr, { fd, number_of(list), (long)size });
}

int64_t numio_fremovexattr(int fd, const char *name)
{
    return ON_POOL(SYS_fremovexattr, { fd, number_of(name) });
}

/* ---- O_DIRECT ----------------------------------------------------------------------------- */

int64_t numio_direct_align(int fd, struct numio_direct_align *ret_align)
{
    struct statx stat = { 0 };
    unsigned mask = STATX_TYPE | STATX_DIOALIGN;
    int64_t rc = numio_statx(fd, "", AT_EMPTY_PATH, mask, &stat);
    if (rc < 0)
        return rc;
    if (stat.stx_mask & STATX_DIOALIGN) {
        if (stat.stx_dio_offset_align == 0)
            return nio_error(-EOPNOTSUPP, "direct_align: the file system has no O_DIRECT for it");
        *ret_align =
            (struct numio_direct_align){ stat.stx_dio_mem_align, stat.stx_dio_offset_align };
        return 0;
    }
    int block_bytes = 0;
    if (S_ISBLK(stat.stx_mode) && ioctl(fd, BLKSSZGET, &block_bytes) == 0 && block_bytes > 0) {
        *ret_align = (struct numio_direct_align){ (unsigned)block_bytes, (unsigned)block_bytes };
        return 0;
    }
    if (!S_ISREG(stat.stx_mode))
        return nio_error(-EOPNOTSUPP, "direct_align: neither a file nor a block device");
    /* No disk has larger blocks than a file system's; what the file system does not tell is asked
     * for on the safe side. */
    unsigned bytes = stat.stx_blksize > 4096 ? stat.stx_blksize : 4096;
    *ret_align = (struct numio_direct_align){ bytes, bytes };
    return 0;
}
