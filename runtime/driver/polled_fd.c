/* SPDX-License-Identifier: MIT */
/* Which descriptors are of disks with queues for polling: what the kernel says in /sys of the block
 * device that a file is on, or is.  Drivers have such queues only if they are asked for them when
 * they are loaded (nvme.poll_queues=N, virtio_blk.poll_queues=N). */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>

#include "numa/sysfile.h"
#include "runtime/driver/driver.h"

enum { PATH_BYTES = 320 };

static bool polls(const char *path)
{
    long long value = 0;
    return nio_sysfile_number("", path, &value) == 0 && value == 1;
}

/* A write to a file that finds some of its blocks and lacks others goes to the disk in parts, of
 * which Linux 6.1 polls for one and forgets the others, until the disk's time is up: 31 s for 4 KiB
 * on ext2, by liburing alone.  Not so on 6.12. */
static bool may_poll_for_writes(void)
{
    enum { GOOD_MAJOR = 6, GOOD_MINOR = 12 };
    struct utsname name;
    unsigned major_number, minor_number;
    if (uname(&name) != 0 || sscanf(name.release, "%u.%u", &major_number, &minor_number) != 2)
        return false;
    return major_number > GOOD_MAJOR || (major_number == GOOD_MAJOR && minor_number >= GOOD_MINOR);
}

enum nio_fd_kind nio_fd_kind_of(int fd)
{
    char path[PATH_BYTES];
    struct stat stat;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || !(flags & O_DIRECT) || fstat(fd, &stat) != 0)
        return NIO_FD_BUFFERED;
    bool is_disk = S_ISBLK(stat.st_mode);
    dev_t device = is_disk ? stat.st_rdev : stat.st_dev;
    enum nio_fd_kind polled =
        is_disk || may_poll_for_writes() ? NIO_FD_POLLED : NIO_FD_POLLED_READS;
    (void)snprintf(path, sizeof path, "/sys/dev/block/%u:%u/queue/io_poll", major(device),
                   minor(device)); /* fits */
    if (polls(path))
        return polled;
    /* A partition's queue is its disk's. */
    (void)snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../queue/io_poll", major(device),
                   minor(device)); /* fits */
    return polls(path) ? polled : NIO_FD_UNPOLLED;
}

bool nio_any_disk_polls(void)
{
    bool is_found = false;
    DIR *dir = opendir("/sys/block");
    if (!dir)
        return false;
    for (struct dirent *entry; !is_found && (entry = readdir(dir));) {
        char path[PATH_BYTES];
        (void)snprintf(path, sizeof path, "/sys/block/%s/queue/io_poll", entry->d_name); /* fits */
        is_found = entry->d_name[0] != '.' && polls(path);
    }
    (void)closedir(dir); /* only read from */
    return is_found;
}
