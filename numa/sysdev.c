/* SPDX-License-Identifier: MIT */
/* numa/sysdev.c: a work list of sysfs folders.  Each folder is either replaced by the parts it is
 * made of, or has a place of its own; the places must agree.
 */
#include "numa/sysdev.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "numa/sysfile.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"

struct walk {
    const char *root;
    char real_root[PATH_MAX];          /* `root` without links, "" for this machine */
    char *parts[NIO_SYSDEV_PARTS_MAX]; /* folders, absolute and without links */
    unsigned part_count, part_next;
    int os_node; /* -1: none found yet */
    bool is_split, is_unknown;
};

static int walk_init(struct walk *w, const char *root)
{
    w->root = root;
    w->os_node = -1;
    w->part_count = w->part_next = 0;
    w->is_split = w->is_unknown = false;
    w->real_root[0] = '\0';
    return *root && !realpath(root, w->real_root) ? -errno : 0;
}

static void walk_fini(struct walk *w)
{
    for (unsigned i = 0; i < w->part_count; i++)
        nio_free(w->parts[i]);
}

/* Adds a folder given by its full path; links are resolved.  -ENOENT when it is not there. */
static int push(struct walk *w, const char *path)
{
    char real[PATH_MAX];
    if (!realpath(path, real))
        return errno == ENOTDIR ? -ENOENT : -errno;
    for (unsigned i = 0; i < w->part_count; i++)
        if (strcmp(w->parts[i], real) == 0)
            return 0;
    if (w->part_count == NIO_SYSDEV_PARTS_MAX) {
        w->is_unknown = true; /* more parts than anybody stacks on purpose */
        return 0;
    }
    char *copy = nio_strdup(real);
    if (!copy)
        return -ENOMEM;
    w->parts[w->part_count++] = copy;
    return 0;
}

static int push_below(struct walk *w, const char *folder, const char *name)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    return length < 0 || (size_t)length >= sizeof path ? -ENAMETOOLONG : push(w, path);
}

static bool is_slave(const char *name)
{
    return name[0] != '.';
}

static bool is_lower(const char *name)
{
    return strncmp(name, "lower_", 6) == 0;
}

/* "nvme3" is a controller, "nvme3n1" a namespace. */
static bool is_nvme_controller(const char *name)
{
    if (strncmp(name, "nvme", 4) != 0 || name[4] == '\0')
        return false;
    return name[4 + strspn(name + 4, "0123456789")] == '\0';
}

/* Pushes the entries of `folder` that `is_wanted`.  Returns how many, 0 also when it is not
 * there; or -ENOMEM. */
static int push_entries(struct walk *w, const char *folder, bool (*is_wanted)(const char *name))
{
    int pushed = 0, err = 0;
    DIR *dir = opendir(folder);
    if (!dir)
        return 0;
    for (struct dirent *entry; !err && (entry = readdir(dir));) {
        if (!is_wanted(entry->d_name))
            continue;
        err = push_below(w, folder, entry->d_name);
        pushed += err == 0;
        if (err != -ENOMEM)
            err = 0; /* gone meanwhile */
    }
    (void)closedir(dir); /* only read from */
    return err ? err : pushed;
}

static bool has_file(const char *folder, const char *name)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    return length > 0 && (size_t)length < sizeof path && access(path, F_OK) == 0;
}

/* Cuts the last component off; false at the top of /sys. */
static bool cut_last(const struct walk *w, char *folder)
{
    char *slash = strrchr(folder, '/');
    if (!slash || (size_t)(slash - folder) <= strlen(w->real_root))
        return false;
    *slash = '\0';
    return true;
}

/* `kind` is "block" or "char": each numbers its devices for itself. */
static int push_device_number(struct walk *w, const char *kind, unsigned major_number,
                              unsigned minor_number)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/sys/dev/%s/%u:%u", w->root, kind, major_number,
                          minor_number);
    return length < 0 || (size_t)length >= sizeof path ? -ENAMETOOLONG : push(w, path);
}

/* The device that the mount `mount_id` was made from, for file systems such as btrfs that number
 * their devices themselves.  -ENODATA when it is not a block device. */
static int push_mount_source(struct walk *w, unsigned long long mount_id)
{
    char *mountinfo, *save = NULL;
    int err = nio_sysfile_load(w->root, "/proc/self/mountinfo", &mountinfo);
    if (err)
        return err == -ENOMEM ? err : -ENODATA;
    err = -ENODATA;
    for (char *line = strtok_r(mountinfo, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char source[PATH_MAX];
        struct stat st;
        const char *dash = strstr(line, " - ");
        if (strtoull(line, NULL, 10) != mount_id || !dash)
            continue;
        if (sscanf(dash, " - %*s %4095s", source) == 1 && source[0] == '/' &&
            stat(source, &st) == 0 && S_ISBLK(st.st_mode))
            err = push_device_number(w, "block", major(st.st_rdev), minor(st.st_rdev));
        break;
    }
    nio_free(mountinfo);
    return err;
}

static int push_file(struct walk *w, const char *path)
{
    struct statx st;
    if (statx(AT_FDCWD, path, 0, STATX_BASIC_STATS | STATX_MNT_ID, &st) < 0)
        return -errno;
    if (S_ISBLK(st.stx_mode))
        return push_device_number(w, "block", st.stx_rdev_major, st.stx_rdev_minor);
    if (S_ISCHR(st.stx_mode)) /* such as ng0n1: itself, not the disk that its name is on */
        return push_device_number(w, "char", st.stx_rdev_major, st.stx_rdev_minor);
    if (st.stx_dev_major != 0)
        return push_device_number(w, "block", st.stx_dev_major, st.stx_dev_minor);
    return st.stx_mask & STATX_MNT_ID ? push_mount_source(w, st.stx_mnt_id) : -ENODATA;
}

/* The file behind a loop device.  Returns 1 when it was pushed, 0 when there is none. */
static int push_backing_file(struct walk *w, const char *folder)
{
    char file[PATH_MAX], backing[PATH_MAX];
    int length = snprintf(file, sizeof file, "%s/loop/backing_file", folder);
    if (length < 0 || (size_t)length >= sizeof file ||
        nio_sysfile_read("", file, backing, sizeof backing) != 0)
        return 0;
    int err = push_file(w, backing);
    if (err && err != -ENOMEM)
        w->is_unknown = true; /* deleted, or on a file system without a disk */
    return err == -ENOMEM ? err : 1;
}

/* Replaces a stacked device by its parts.  Returns how many, 0 if it is not stacked; -ENOMEM. */
static int push_parts(struct walk *w, char *folder)
{
    char path[PATH_MAX];
    if (has_file(folder, "partition"))
        (void)cut_last(w, folder); /* the disk's folder is above */
    int length = snprintf(path, sizeof path, "%s/slaves", folder);
    int pushed = length < 0 || (size_t)length >= sizeof path ? 0 : push_entries(w, path, is_slave);
    if (pushed == 0)
        pushed = push_backing_file(w, folder);
    if (pushed == 0)
        pushed = push_entries(w, folder, is_lower);
    if (pushed == 0 && strstr(folder, "/virtual/nvme-subsystem/")) {
        (void)snprintf(path, sizeof path, "%s", folder); /* same size */
        if (cut_last(w, path))
            pushed = push_entries(w, path, is_nvme_controller);
    }
    return pushed;
}

/* Notes the place of an unstacked device: the first `numa_node` on the way up. */
static void note_place(struct walk *w, const char *part)
{
    char folder[PATH_MAX];
    (void)snprintf(folder, sizeof folder, "%s", part); /* parts come from PATH_MAX buffers */
    do {                                               /* one component shorter each time */
        char file[PATH_MAX + 16];
        long long os_node;
        (void)snprintf(file, sizeof file, "%s/numa_node", folder); /* fits */
        if (nio_sysfile_number("", file, &os_node) == 0 && os_node >= 0 && os_node <= INT_MAX) {
            w->is_split = w->is_split || (w->os_node >= 0 && w->os_node != (int)os_node);
            w->os_node = (int)os_node;
            return;
        }
    } while (cut_last(w, folder));
    w->is_unknown = true;
}

static int walk_parts(struct walk *w, const char *name, int *ret_os_node)
{
    while (w->part_next < w->part_count) { /* bounded by NIO_SYSDEV_PARTS_MAX */
        char *part = w->parts[w->part_next++];
        int pushed = push_parts(w, part);
        if (pushed < 0)
            return pushed;
        if (pushed == 0)
            note_place(w, part);
    }
    if (w->is_split)
        return nio_error(-ENODATA, "%s: its parts are on several NUMA nodes", name);
    if (w->is_unknown || w->os_node < 0)
        return nio_error(-ENODATA, "%s: the machine does not tell its NUMA node", name);
    *ret_os_node = w->os_node;
    return 0;
}

/* Ends a look-up that began with a push. */
static int finish(struct walk *w, int err, const char *name, int *ret_os_node)
{
    if (!err)
        err = walk_parts(w, name, ret_os_node);
    else if (err == -ENODATA)
        (void)nio_error(err, "%s: no disk is behind it", name); /* returned below */
    else
        (void)nio_error(err, "%s: %s", name, strerror(-err)); /* returned below */
    walk_fini(w);
    return err;
}

static int look_up(const char *root, const char *folder, const char *name, int *ret_os_node)
{
    struct walk w;
    char path[PATH_MAX];
    int err = walk_init(&w, root);
    int length = snprintf(path, sizeof path, "%s%s%s", root, folder, name);
    if (!err)
        err = length < 0 || (size_t)length >= sizeof path ? -ENAMETOOLONG : push(&w, path);
    return finish(&w, err, name, ret_os_node);
}

int nio_sysdev_of_pci(const char *root, const char *bus_id, int *ret_os_node)
{
    return look_up(root, "/sys/bus/pci/devices/", bus_id, ret_os_node);
}

int nio_sysdev_of_net(const char *root, const char *interface_name, int *ret_os_node)
{
    return look_up(root, "/sys/class/net/", interface_name, ret_os_node);
}

int nio_sysdev_of_block(const char *root, unsigned major_number, unsigned minor_number,
                        int *ret_os_node)
{
    char name[32];
    (void)snprintf(name, sizeof name, "%u:%u", major_number, minor_number); /* fits */
    return look_up(root, "/sys/dev/block/", name, ret_os_node);
}

int nio_sysdev_of_file(const char *root, const char *path, int *ret_os_node)
{
    struct walk w;
    int err = walk_init(&w, root);
    if (!err)
        err = push_file(&w, path);
    return finish(&w, err, path, ret_os_node);
}
