/* SPDX-License-Identifier: MIT */
/* tests/numa/numa_disk.h: QEMU's NVMe disk, which these programs may overwrite, but only where
 * NUMIO_SPOIL_MACHINE is 1.  The main thread only. */
#ifndef TESTS_NUMA_NUMA_DISK_H
#define TESTS_NUMA_NUMA_DISK_H

#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "tests/numa/numa_kernel.h"

enum { DISK_WAIT_TRIES = 500 };

static const char disk_path[] = "/dev/nvme0n1";
static const char disk_folder[] = "/tmp/disk"; /* while it is mounted */

static inline bool disk_may_be_spoiled(void)
{
    char line[KERNEL_LINE_BYTES];
    const char *spoil = getenv("NUMIO_SPOIL_MACHINE");
    kernel_read("/sys/block/nvme0n1/device/model", line);
    return spoil && strcmp(spoil, "1") == 0 && strncmp(line, "QEMU NVMe Ctrl", 14) == 0;
}

/* Whether the block device of this name completes without interrupts. */
static inline bool disk_polls(const char *name)
{
    char path[320], line[KERNEL_LINE_BYTES];
    (void)snprintf(path, sizeof path, "/sys/block/%s/queue/io_poll", name); /* fits */
    kernel_read(path, line);
    return strcmp(line, "1") == 0;
}

/* Makes a file system and mounts it; what fails is reported as a failure of the check `name`. */
static inline bool disk_mount(const char *name)
{
    (void)umount(disk_folder);      /* of a program that was killed */
    (void)mkdir(disk_folder, 0700); /* mount() tells if it is not there */
    if (system("mke2fs /dev/nvme0n1 >/dev/null 2>&1") == 0 &&
        mount(disk_path, disk_folder, "ext2", 0, NULL) == 0)
        return true;
    return numa_check(false, name, "mke2fs and mount: %s", strerror(errno));
}

/* A ring's request holds its file a moment longer than the task that has its result; nobody tells
 * when the kernel has let go of the last. */
static inline void disk_unmount(void)
{
    int error = EBUSY;
    for (unsigned i = 0; i < DISK_WAIT_TRIES && error == EBUSY; i++) {
        if (i > 0)
            (void)usleep(10000); /* shorter is as good */
        error = umount(disk_folder) == 0 ? 0 : errno;
    }
    numa_check(error == 0, "the disk is free again", "umount: %s", strerror(error));
}

#endif
