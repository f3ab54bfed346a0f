/* SPDX-License-Identifier: MIT */
/* numio/fs.h: files and folders for coroutines: names, attributes, copies, listings.
 *
 * Reading, writing, opening and syncing are in <numio/io.h>.  Each call does what the system call
 * of its name does and suspends the coroutine until the kernel has finished: on the ring of its
 * worker where io_uring has the operation, on the blocking pool where it has none or the kernel is
 * older than it.  Results are the kernel's: 0 or a count, or a negative errno value.
 *
 * Context of all: a coroutine, suspends; elsewhere -EINVAL.  Paths and buffers are the caller's and
 * must not change until the call returns.  An abort (-ECANCELED) or a deadline (-ETIMEDOUT) comes
 * before the call begins, or not: what has begun on the pool is waited for.
 * Errors of all: those of the system call; -EAGAIN the pool's queue is full; -ENOMEM.
 */
#ifndef NUMIO_FS_H
#define NUMIO_FS_H

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <numio/base.h>

NUMIO_BEGIN_DECLS

/* As openat2(2), for example with RESOLVE_BENEATH, which refuses whatever leads out of `dirfd`
 * (-EXDEV), links included.   Returns: a descriptor, the caller's. */
NUMIO_EXPORT int64_t numio_openat2(int dirfd, const char *path, const struct open_how *how);

/* ---- names -------------------------------------------------------------------------------- */

/* `flags` as in renameat2(2): RENAME_NOREPLACE, RENAME_EXCHANGE. */
NUMIO_EXPORT int64_t numio_renameat(int olddirfd, const char *oldpath, int newdirfd,
                                    const char *newpath, unsigned flags);
NUMIO_EXPORT int64_t numio_rename(const char *oldpath, const char *newpath);
/* `flags`: AT_SYMLINK_FOLLOW, AT_EMPTY_PATH. */
NUMIO_EXPORT int64_t numio_linkat(int olddirfd, const char *oldpath, int newdirfd,
                                  const char *newpath, int flags);
NUMIO_EXPORT int64_t numio_link(const char *oldpath, const char *newpath);
NUMIO_EXPORT int64_t numio_symlinkat(const char *target, int dirfd, const char *path);
NUMIO_EXPORT int64_t numio_symlink(const char *target, const char *path);
/* Returns the bytes of the target, cut at `size` and without a NUL, as readlink(2) does. */
NUMIO_EXPORT int64_t numio_readlinkat(int dirfd, const char *path, char *buf, size_t size);
NUMIO_EXPORT int64_t numio_readlink(const char *path, char *buf, size_t size);
/* `flags`: AT_REMOVEDIR. */
NUMIO_EXPORT int64_t numio_unlinkat(int dirfd, const char *path, int flags);
NUMIO_EXPORT int64_t numio_unlink(const char *path);
NUMIO_EXPORT int64_t numio_rmdir(const char *path);
NUMIO_EXPORT int64_t numio_mkdirat(int dirfd, const char *path, mode_t mode);
NUMIO_EXPORT int64_t numio_mkdir(const char *path, mode_t mode);

/* ---- contents ----------------------------------------------------------------------------- */

NUMIO_EXPORT int64_t numio_ftruncate(int fd, int64_t len);
/* Within the kernel, and without copying where the file system can share blocks.  A NULL offset is
 * the file's own position; one that is given is moved on.  `flags`: 0.
 * Returns: the bytes copied, 0 at the end of the source. */
NUMIO_EXPORT int64_t numio_copy_file_range(int fd_in, int64_t *off_in, int fd_out, int64_t *off_out,
                                           size_t len, unsigned flags);
/* All of `len`, or to the end of the source; between file systems too, by reading and writing. */
NUMIO_EXPORT int64_t numio_copy_all(int fd_in, int64_t off_in, int fd_out, int64_t off_out,
                                    int64_t len);
/* Between a pipe and another descriptor; offset -1: the file's own position, or a pipe.  Waits on a
 * thread: of io-wq, which an abort interrupts, or under the epoll profile of the pool, which it
 * does not. */
NUMIO_EXPORT int64_t numio_splice(int fd_in, int64_t off_in, int fd_out, int64_t off_out,
                                  unsigned len, unsigned flags);
/* Starts or awaits write-back of a part; no replacement for numio_fdatasync(): see its man page. */
NUMIO_EXPORT int64_t numio_sync_file_range(int fd, int64_t off, unsigned len, unsigned flags);
NUMIO_EXPORT int64_t numio_fadvise(int fd, int64_t off, unsigned len, int advice);

/* ---- extended attributes ------------------------------------------------------------------ */

/* Returns the bytes of the value; with `size` 0 only that. */
NUMIO_EXPORT int64_t numio_getxattr(const char *path, const char *name, void *value, size_t size);
NUMIO_EXPORT int64_t numio_fgetxattr(int fd, const char *name, void *value, size_t size);
NUMIO_EXPORT int64_t numio_setxattr(const char *path, const char *name, const void *value,
                                    size_t size, int flags);
NUMIO_EXPORT int64_t numio_fsetxattr(int fd, const char *name, const void *value, size_t size,
                                     int flags);
NUMIO_EXPORT int64_t numio_flistxattr(int fd, char *list, size_t size);
NUMIO_EXPORT int64_t numio_fremovexattr(int fd, const char *name);

/* ---- folders ------------------------------------------------------------------------------ */

struct numio_dir;

struct numio_dirent {
    uint64_t ino;
    const char *name;   /* valid until the next call on the folder */
    unsigned char type; /* DT_REG and so on; DT_UNKNOWN where the file system does not tell */
};

/* Opens a folder to be listed.   Owns: *ret_dir is the caller's, ended by numio_dir_close(). */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_dir_open(int dirfd, const char *path,
                                                    struct numio_dir **ret_dir);
/* The next entry, in the file system's order, without "." and "..".  One coroutine at a time.
 * Returns: 1; 0 there are no more.  After an error the next call goes on where this one began. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_dir_next(struct numio_dir *dir,
                                                    struct numio_dirent *ret_entry);
/* The folder's descriptor, for the *at() calls; the folder's own, not to be closed. */
NUMIO_EXPORT int numio_dir_fd(const struct numio_dir *dir);
/* Also in an aborted task.  Takes NULL. */
NUMIO_EXPORT int64_t numio_dir_close(struct numio_dir *dir);

/* ---- O_DIRECT ----------------------------------------------------------------------------- */

struct numio_direct_align {
    unsigned memory_bytes; /* what addresses of buffers must be a multiple of */
    unsigned offset_bytes; /* likewise offsets and lengths */
};

/* What O_DIRECT asks for on this file: statx(2)'s STATX_DIOALIGN (Linux 6.1), else the disk's block
 * size.   Errors: -EOPNOTSUPP the file system has no O_DIRECT for it. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_direct_align(int fd,
                                                        struct numio_direct_align *ret_align);

NUMIO_END_DECLS

#endif
