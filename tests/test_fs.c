/* SPDX-License-Identifier: MIT */
/* Promises of numio/fs.h: each call does what the system call of its name does, on every profile,
 * on the ring or on the pool; listings are whole; copies are exact. */
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "runtime/sched/handle.h"

enum { FILES = 1500, BIG_BYTES = 3 << 20 };

struct place {
    char path[32];
    int dir;
};

static int64_t last_line;

static void make_place(struct place *place)
{
    (void)snprintf(place->path, sizeof place->path, "/tmp/numio-fs-XXXXXX"); /* fits */
    cr_assert_not_null(mkdtemp(place->path));
    place->dir = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(place->dir, 0);
}

static void remove_place(struct place *place)
{
    char command[64];
    (void)close(place->dir);
    (void)snprintf(command, sizeof command, "rm -r %s", place->path); /* fits */
    cr_assert_eq(system(command), 0);
}

static void run(struct numio_runtime *runtime, int64_t (*fn)(void *arg))
{
    struct place place;
    make_place(&place);
    last_line = numio_block_on(numio_runtime_handle(runtime), fn, &place);
    cr_assert_eq(last_line, 0, "line %ld: %s", (long)last_line, numio_strerror_detail());
    remove_place(&place);
}

static int64_t use_names(void *arg)
{
    const struct place *place = arg;
    char path[64], text[64];
    struct stat stat;
    int dir = place->dir;
    EXPECT(numio_mkdirat(dir, "sub", 0750) == 0 && numio_mkdirat(dir, "sub", 0750) == -EEXIST);
    EXPECT(fstatat(dir, "sub", &stat, 0) == 0 && (stat.st_mode & 07777) == 0750);
    int fd = (int)numio_openat(dir, "sub/a", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT(fd >= 0 && numio_write_all(fd, "content", 7) == 7);
    EXPECT(numio_linkat(dir, "sub/a", dir, "b", 0) == 0);
    EXPECT(fstat(fd, &stat) == 0 && stat.st_nlink == 2);
    EXPECT(numio_symlinkat("sub/a", dir, "c") == 0);
    EXPECT(numio_readlinkat(dir, "c", text, sizeof text) == 5 && memcmp(text, "sub/a", 5) == 0);
    EXPECT(numio_readlinkat(dir, "c", text, 3) == 3);
    EXPECT(numio_readlinkat(dir, "b", text, sizeof text) == -EINVAL);
    EXPECT(numio_renameat(dir, "b", dir, "d", 0) == 0 && faccessat(dir, "b", F_OK, 0) != 0);
    EXPECT(numio_renameat(dir, "d", dir, "sub/a", RENAME_NOREPLACE) == -EEXIST);
    EXPECT(numio_renameat(dir, "c", dir, "d", RENAME_EXCHANGE) == 0);
    EXPECT(numio_readlinkat(dir, "d", text, sizeof text) == 5);
    EXPECT(numio_unlinkat(dir, "sub", AT_REMOVEDIR) == -ENOTEMPTY);
    EXPECT(numio_unlinkat(dir, "none", 0) == -ENOENT && numio_unlinkat(dir, "d", 0) == 0);
    struct open_how how = { .flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_BENEATH };
    int again = (int)numio_openat2(dir, "sub/../sub/a", &how);
    EXPECT(again >= 0 && read(again, text, sizeof text) == 7 && close(again) == 0);
    EXPECT(numio_openat2(dir, "../x", &how) == -EXDEV && numio_openat2(dir, "/", &how) == -EXDEV);
    EXPECT(numio_openat2(dir, "none", &how) == -ENOENT);
    how.resolve = 1u << 30;
    EXPECT(numio_openat2(dir, "sub/a", &how) == -EINVAL);
    /* The short forms, by path. */
    (void)snprintf(path, sizeof path, "%s/x", place->path); /* fits */
    (void)snprintf(text, sizeof text, "%s/y", place->path); /* fits */
    EXPECT(numio_mkdir(path, 0700) == 0 && numio_rename(path, text) == 0);
    EXPECT(numio_rmdir(text) == 0 && numio_rmdir(text) == -ENOENT);
    EXPECT(numio_symlink("target", path) == 0 && numio_link(path, text) == 0);
    EXPECT(numio_readlink(path, text, 6) == 6 && memcmp(text, "target", 6) == 0);
    EXPECT(numio_unlink(path) == 0 && numio_unlink(path) == -ENOENT);
    return numio_close(fd);
}

FIXTURE_EACH(fs, names_are_made_linked_moved_and_removed, .timeout = 30)
{
    run(runtime, use_names);
}

/* The kernel's io_uring as old as can be: everything goes to the pool. */
Test(fs, what_the_ring_does_not_know_is_done_on_the_pool, .timeout = 30)
{
    if (!fixture_has_uring())
        cr_skip_test("no io_uring here");
    struct numio_config config = fixture_config(NUMIO_DRIVER_DEFER, 2);
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    uint64_t sqes = 0;
    handle->opcodes = 0;
    run(runtime, use_names);
    for (unsigned i = 0; i < 2; i++) {
        struct numio_worker_metrics metrics;
        cr_assert_eq(numio_worker_metrics(handle, i, &metrics), 0);
        sqes += metrics.sqes;
    }
    cr_assert_leq(sqes, 12, "%lu: an open, a write, a close, and the driver's own",
                  (unsigned long)sqes);
    numio_runtime_destroy(runtime);
}

static int64_t use_contents(void *arg)
{
    const struct place *place = arg;
    int dir = place->dir, ends[2];
    char text[16];
    struct stat stat;
    char *big = malloc(BIG_BYTES), *copy = malloc(BIG_BYTES);
    EXPECT(big && copy);
    for (size_t i = 0; i < BIG_BYTES; i++)
        big[i] = (char)(i * 31 + (i >> 9));
    int from = (int)numio_openat(dir, "from", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int to = (int)numio_openat(dir, "to", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT(from >= 0 && to >= 0);
    EXPECT(numio_pwrite_all(from, big, BIG_BYTES, 0) == BIG_BYTES);
    EXPECT(numio_copy_all(from, 0, to, 0, BIG_BYTES) == BIG_BYTES);
    EXPECT(numio_pread_all(to, copy, BIG_BYTES, 0) == BIG_BYTES);
    EXPECT(memcmp(big, copy, BIG_BYTES) == 0);
    EXPECT(numio_copy_all(from, BIG_BYTES - 10, to, 5, 1000) == 10); /* to the end only */
    EXPECT(numio_pread(to, copy, 20, 0) == 20 && memcmp(copy + 5, big + BIG_BYTES - 10, 10) == 0);
    EXPECT(memcmp(copy, big, 5) == 0 && memcmp(copy + 15, big + 15, 5) == 0);
    EXPECT(numio_copy_all(from, -1, to, 0, 1) == -EINVAL);
    int64_t in = 100, out = 0;
    int64_t n = numio_copy_file_range(from, &in, to, &out, 50, 0);
    EXPECT(n > 0 && in == 100 + n && out == n);
    EXPECT(numio_ftruncate(to, 12) == 0 && fstat(to, &stat) == 0 && stat.st_size == 12);
    EXPECT(numio_ftruncate(-1, 12) == -EBADF);
    /* Between file systems, of which one says that its files are empty. */
    int shm = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    EXPECT(shm < 0 || numio_copy_all(from, 0, shm, 0, BIG_BYTES) == BIG_BYTES);
    EXPECT(shm < 0 || numio_pread_all(shm, copy, BIG_BYTES, 0) == BIG_BYTES);
    EXPECT(shm < 0 || (memcmp(big, copy, BIG_BYTES) == 0 && numio_close(shm) == 0));
    int proc = (int)numio_open("/proc/self/status", O_RDONLY | O_CLOEXEC, 0);
    EXPECT(proc >= 0 && numio_copy_all(proc, 0, to, 0, 1 << 20) > 100);
    EXPECT(numio_pread(to, text, 5, 0) == 5 && memcmp(text, "Name:", 5) == 0);
    EXPECT(pipe2(ends, O_CLOEXEC) == 0);
    EXPECT(numio_splice(from, 7, ends[1], -1, 5, 0) == 5);
    EXPECT(numio_read(ends[0], text, sizeof text) == 5 && memcmp(text, big + 7, 5) == 0);
    EXPECT(numio_splice(from, 7, to, 0, 5, 0) == -EINVAL); /* no pipe */
    EXPECT(numio_sync_file_range(from, 0, BIG_BYTES, SYNC_FILE_RANGE_WRITE) == 0);
    EXPECT(numio_sync_file_range(ends[0], 0, 1, 0) == -ESPIPE);
    EXPECT(numio_fadvise(from, 0, BIG_BYTES, POSIX_FADV_SEQUENTIAL) == 0);
    EXPECT(numio_fadvise(ends[0], 0, 1, POSIX_FADV_SEQUENTIAL) == -ESPIPE);
    free(big);
    free(copy);
    EXPECT(numio_close(proc) == 0 && numio_close(ends[0]) == 0 && numio_close(ends[1]) == 0);
    EXPECT(numio_close(from) == 0);
    return numio_close(to);
}

FIXTURE_EACH(fs, contents_are_copied_spliced_and_cut, .timeout = 60)
{
    run(runtime, use_contents);
}

static int64_t use_attributes(void *arg)
{
    const struct place *place = arg;
    char path[64], value[16], list[256];
    (void)snprintf(path, sizeof path, "%s/file", place->path); /* fits */
    int fd = (int)numio_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT(fd >= 0);
    if (fsetxattr(fd, "user.probe", "1", 1, 0) != 0 && errno == EOPNOTSUPP)
        return numio_close(fd); /* not on this file system */
    EXPECT(numio_fsetxattr(fd, "user.one", "abc", 3, 0) == 0);
    EXPECT(numio_fsetxattr(fd, "user.one", "abc", 3, XATTR_CREATE) == -EEXIST);
    EXPECT(numio_fgetxattr(fd, "user.one", value, sizeof value) == 3);
    EXPECT(memcmp(value, "abc", 3) == 0);
    EXPECT(numio_getxattr(path, "user.one", NULL, 0) == 3);
    EXPECT(numio_setxattr(path, "user.two", "defg", 4, 0) == 0);
    EXPECT(numio_getxattr(path, "user.two", value, sizeof value) == 4);
    EXPECT(memcmp(value, "defg", 4) == 0);
    EXPECT(numio_getxattr(path, "user.two", value, 2) == -ERANGE);
    EXPECT(numio_fgetxattr(fd, "user.none", value, sizeof value) == -ENODATA);
    int64_t bytes = numio_flistxattr(fd, list, sizeof list);
    EXPECT(bytes > 0 && memmem(list, (size_t)bytes, "user.two", 9));
    EXPECT(numio_fremovexattr(fd, "user.two") == 0);
    EXPECT(numio_fremovexattr(fd, "user.two") == -ENODATA);
    return numio_close(fd);
}

FIXTURE_EACH(fs, attributes_are_set_read_listed_and_removed, .timeout = 30)
{
    run(runtime, use_attributes);
}

static int64_t list_a_folder(void *arg)
{
    const struct place *place = arg;
    static unsigned char seen[FILES];
    struct numio_dir *dir = NULL;
    struct numio_dirent entry;
    char name[32];
    unsigned count = 0;
    int64_t rc;
    memset(seen, 0, sizeof seen);
    EXPECT(numio_dir_open(place->dir, "none", &dir) == -ENOENT && dir == NULL);
    EXPECT(numio_dir_open(place->dir, ".", &dir) == 0);
    EXPECT(numio_dir_next(dir, &entry) == 0); /* it is empty */
    EXPECT(numio_dir_close(dir) == 0);
    for (unsigned i = 0; i < FILES; i++) {
        (void)snprintf(name, sizeof name, "a-file-with-a-name-%04u", i); /* fits */
        int fd = openat(place->dir, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        EXPECT(fd >= 0 && close(fd) == 0);
    }
    EXPECT(numio_dir_open(AT_FDCWD, place->path, &dir) == 0);
    EXPECT(numio_dir_fd(dir) >= 0);
    while ((rc = numio_dir_next(dir, &entry)) > 0) {
        unsigned number = FILES;
        EXPECT(sscanf(entry.name, "a-file-with-a-name-%u", &number) == 1 && number < FILES);
        EXPECT(!seen[number] && entry.ino != 0);
        seen[number] = 1;
        count++;
    }
    EXPECT(rc == 0 && count == FILES);
    EXPECT(numio_dir_next(dir, &entry) == 0); /* and goes on to be at the end */
    EXPECT(numio_dir_close(dir) == 0);
    EXPECT(numio_dir_close(NULL) == 0);
    /* A deadline in the middle loses no entry. */
    struct numio_deadline deadline;
    EXPECT(numio_dir_open(place->dir, ".", &dir) == 0);
    EXPECT(numio_deadline_push(&deadline, 0) == 0);
    EXPECT(numio_dir_next(dir, &entry) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    for (count = 0; (rc = numio_dir_next(dir, &entry)) > 0; count++)
        continue;
    EXPECT(rc == 0 && count == FILES);
    return numio_dir_close(dir);
}

FIXTURE_EACH(fs, a_listing_is_whole, .timeout = 60)
{
    run(runtime, list_a_folder);
}

static int64_t ask_for_alignment(void *arg)
{
    const struct place *place = arg;
    struct numio_direct_align align = { 0, 0 };
    int ends[2];
    int fd = (int)numio_openat(place->dir, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT(fd >= 0 && pipe2(ends, O_CLOEXEC) == 0);
    EXPECT(numio_pwrite_all(fd, "x", 1, 0) == 1);
    int64_t rc = numio_direct_align(fd, &align);
    if (rc == 0) {
        EXPECT(align.memory_bytes > 0 && align.offset_bytes > 0);
        EXPECT((align.offset_bytes & (align.offset_bytes - 1)) == 0);
    } else {
        EXPECT(rc == -EOPNOTSUPP);
    }
    EXPECT(numio_direct_align(ends[0], &align) == -EOPNOTSUPP);
    EXPECT(numio_direct_align(-1, &align) == -EBADF);
    EXPECT(numio_close(ends[0]) == 0 && numio_close(ends[1]) == 0);
    /* What it says is enough, where O_DIRECT is to be had. */
    int direct = (int)numio_openat(place->dir, "file", O_RDWR | O_DIRECT | O_CLOEXEC, 0);
    if (rc == 0 && direct >= 0) {
        void *memory = NULL;
        size_t bytes = align.offset_bytes > 512 ? align.offset_bytes : 512;
        EXPECT(posix_memalign(&memory, align.memory_bytes, bytes) == 0);
        memset(memory, 'd', bytes);
        EXPECT(numio_pwrite(direct, memory, bytes, 0) == (int64_t)bytes);
        EXPECT(numio_pread(direct, memory, bytes, 0) == (int64_t)bytes);
        free(memory);
    }
    if (direct >= 0)
        EXPECT(numio_close(direct) == 0);
    return numio_close(fd);
}

FIXTURE_EACH(fs, the_alignment_that_is_told_suffices, .timeout = 30)
{
    run(runtime, ask_for_alignment);
}

Test(fs, outside_of_a_coroutine_it_is_refused, .timeout = 30)
{
    struct numio_dir *dir = NULL;
    char text[8];
    cr_assert_eq(numio_mkdir("/tmp/numio-never", 0700), -EINVAL);
    cr_assert_eq(numio_readlink("/proc/self/exe", text, sizeof text), -EINVAL);
    cr_assert_eq(numio_ftruncate(0, 0), -EINVAL);
    cr_assert_eq(numio_dir_open(AT_FDCWD, "/", &dir), -EINVAL);
    cr_assert_null(dir);
}
