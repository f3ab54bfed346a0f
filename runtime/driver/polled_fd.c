/* SPDX-License-Identifier: MIT */
/* Which descriptors are of disks with queues for polling: what the kernel says in /sys of the block
 * device that a file is on, or is.  Drivers have such queues only if they are asked for them when
 * they are loaded (nvme.poll_queues=N, virtio_blk.poll_queues=N). */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "numa/sysfile.h"
#include "runtime/driver/driver.h"

enum { PATH_BYTES = 320 };

static bool polls(const char *path)
{
    long long value = 0;
    return nio_sysfile_number("", path, &value) == 0 && value == 1;
}

enum nio_fd_kind nio_fd_kind_of(int fd)
{
    char path[PATH_BYTES];
    struct stat stat;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || !(flags & O_DIRECT) || fstat(fd, &stat) != 0)
        return NIO_FD_BUFFERED;
    dev_t device = S_ISBLK(stat.st_mode) ? stat.st_rdev : stat.st_dev;
    (void)snprintf(path, sizeof path, "/sys/dev/block/%u:%u/queue/io_poll", major(device),
                   minor(device)); /* fits */
    if (polls(path))
        return NIO_FD_POLLED;
    /* A partition's queue is its disk's. */
    (void)snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../queue/io_poll", major(device),
                   minor(device)); /* fits */
    return polls(path) ? NIO_FD_POLLED : NIO_FD_UNPOLLED;
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
