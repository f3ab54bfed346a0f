/* SPDX-License-Identifier: MIT */
/* numa/cpu_quota.c: /proc/self/cgroup names the process's group in each hierarchy,
 * /proc/self/mountinfo where the hierarchy is mounted and which part of it is visible there (its
 * fourth field: in a container without a cgroup namespace the mount shows a subtree, and the
 * group's path starts with that subtree's).  Documented in cgroups(7) and proc(5).
 */
#include "numa/cpu_quota.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numa/sysfile.h"
#include "runtime/base/mem.h"

enum { FIELDS_MAX = 64, FILE_BYTES = PATH_MAX + 32 };

struct quota_reader {
    const char *root;
    const char *mountinfo;
    struct nio_reasons *reasons;
    double cpus;             /* the smallest so far, 0: none */
    char source[FILE_BYTES]; /* the file that said so */
};

struct mount {
    char *root;  /* which directory of the hierarchy is mounted */
    char *point; /* where */
};

/* True when the comma-separated `list` has `word`. */
static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    while (*list) {
        size_t item = strcspn(list, ",");
        if (item == length && memcmp(list, word, length) == 0)
            return true;
        list += item + (list[item] == ',');
    }
    return false;
}

/* Undoes the kernel's octal escapes (\040 for a blank), in place. */
static void unescape(char *text)
{
    char *out = text;
    for (const char *in = text; *in; in++) {
        if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7' &&
            in[3] >= '0' && in[3] <= '7') {
            *out++ = (char)((in[1] - '0') * 64 + (in[2] - '0') * 8 + (in[3] - '0'));
            in += 3;
        } else {
            *out++ = *in;
        }
    }
    *out = '\0';
}

/* The part of `path` below `root`, "" when they are equal, NULL when it is not below. */
static const char *path_below(const char *path, const char *root)
{
    size_t length = strlen(root);
    if (strcmp(root, "/") == 0)
        return strcmp(path, "/") == 0 ? "" : path;
    if (strncmp(path, root, length) != 0 || (path[length] != '\0' && path[length] != '/'))
        return NULL;
    return path + length;
}

/* Splits one line of mountinfo in place.  True when it mounts the wanted hierarchy. */
static bool parse_mount(char *line, bool is_v2, struct mount *ret_mount)
{
    char *fields[FIELDS_MAX], *save = NULL;
    unsigned count = 0, dash = 0;
    for (char *f = strtok_r(line, " ", &save); f && count < FIELDS_MAX;
         f = strtok_r(NULL, " ", &save)) {
        if (strcmp(f, "-") == 0 && dash == 0)
            dash = count;
        fields[count++] = f;
    }
    if (dash < 6 || dash + 3 >= count)
        return false;
    const char *type = fields[dash + 1];
    if (is_v2 ? strcmp(type, "cgroup2") != 0
              : strcmp(type, "cgroup") != 0 || !list_has(fields[dash + 3], "cpu"))
        return false;
    ret_mount->root = fields[3];
    ret_mount->point = fields[4];
    unescape(ret_mount->root);
    unescape(ret_mount->point);
    return true;
}

static void note_quota(struct quota_reader *reader, double cpus, const char *source)
{
    if (reader->cpus != 0 && reader->cpus <= cpus)
        return;
    reader->cpus = cpus;
    (void)snprintf(reader->source, sizeof reader->source, "%s", source); /* same size */
}

static int note_nonsense(struct quota_reader *reader, const char *file)
{
    return nio_reasons_add(reader->reasons, "CPU quota: %s makes no sense, it is ignored", file);
}

/* "50000 100000", or "50000" with the default period: the CPUs that makes, 0 if neither. */
static double parse_cpu_max(const char *text)
{
    char *end;
    double quota_us = strtod(text, &end), period_us = 100000;
    if (end == text)
        return 0;
    if (*end == ' ') {
        text = end + 1;
        period_us = strtod(text, &end);
    }
    return end != text && *end == '\0' && quota_us > 0 && period_us > 0 ? quota_us / period_us : 0;
}

/* "max 100000" is no limit. */
static int read_v2(struct quota_reader *reader, const char *directory)
{
    char file[FILE_BYTES], text[64];
    (void)snprintf(file, sizeof file, "%s/cpu.max", directory); /* fits */
    int err = nio_sysfile_read(reader->root, file, text, sizeof text);
    if (err && err != -E2BIG)
        return 0; /* no cpu controller here: no limit at this level */
    if (!err && (strcmp(text, "max") == 0 || strncmp(text, "max ", 4) == 0))
        return 0;
    double cpus = err ? 0 : parse_cpu_max(text);
    if (cpus <= 0)
        return note_nonsense(reader, file);
    note_quota(reader, cpus, file);
    return 0;
}

static int read_v1(struct quota_reader *reader, const char *directory)
{
    char quota_file[FILE_BYTES], period_file[FILE_BYTES];
    long long quota_us = 0, period_us = 0;
    (void)snprintf(quota_file, sizeof quota_file, "%s/cpu.cfs_quota_us", directory);    /* fits */
    (void)snprintf(period_file, sizeof period_file, "%s/cpu.cfs_period_us", directory); /* fits */
    int err = nio_sysfile_number(reader->root, quota_file, &quota_us);
    if (err == -EINVAL)
        return note_nonsense(reader, quota_file);
    if (err || quota_us == -1)
        return 0; /* none at this level */
    err = nio_sysfile_number(reader->root, period_file, &period_us);
    if (err || period_us <= 0)
        return note_nonsense(reader, period_file);
    if (quota_us <= 0)
        return note_nonsense(reader, quota_file);
    note_quota(reader, (double)quota_us / (double)period_us, quota_file);
    return 0;
}

/* From the process's group up to the mount point. */
static int walk_up(struct quota_reader *reader, const struct mount *mount, const char *below,
                   bool is_v2)
{
    char directory[PATH_MAX];
    size_t point_bytes = strlen(mount->point);
    int length = snprintf(directory, sizeof directory, "%s%s", mount->point, below);
    if (length < 0 || (size_t)length >= sizeof directory)
        return nio_reasons_add(reader->reasons, "CPU quota: the cgroup's path is too long");
    for (;;) { /* each round is one path component shorter */
        int err = is_v2 ? read_v2(reader, directory) : read_v1(reader, directory);
        if (err)
            return err;
        char *slash = strrchr(directory, '/');
        if (!slash || (size_t)(slash - directory) < point_bytes)
            return 0;
        *slash = '\0';
    }
}

/* One hierarchy: finds its mount, preferring one that shows the process's own group. */
static int read_hierarchy(struct quota_reader *reader, const char *group, bool is_v2)
{
    char *copy = nio_strdup(reader->mountinfo), *save = NULL;
    if (!copy)
        return -ENOMEM;
    struct mount mount, best = { NULL, NULL };
    const char *best_below = "";
    bool is_exact = false;
    for (char *line = strtok_r(copy, "\n", &save); line && !is_exact;
         line = strtok_r(NULL, "\n", &save)) {
        if (!parse_mount(line, is_v2, &mount))
            continue;
        /* A group outside the cgroup namespace's root reads "/..": then only the mount's own
         * files can be read. */
        const char *below = strncmp(group, "/..", 3) == 0 ? NULL : path_below(group, mount.root);
        is_exact = below != NULL;
        if (is_exact || !best.point) {
            best = mount;
            best_below = below ? below : "";
        }
    }
    int err = best.point ? walk_up(reader, &best, best_below, is_v2) : 0;
    nio_free(copy);
    return err;
}

/* One line of /proc/self/cgroup: "0::/group" (v2) or "4:cpu,cpuacct:/group" (v1). */
static int read_group_line(struct quota_reader *reader, const char *line)
{
    char controllers[256];
    const char *first = strchr(line, ':');
    const char *second = first ? strchr(first + 1, ':') : NULL;
    if (!second || (size_t)(second - first) > sizeof controllers)
        return 0; /* not a hierarchy that could have a quota */
    size_t length = (size_t)(second - first) - 1;
    memcpy(controllers, first + 1, length);
    controllers[length] = '\0';
    bool is_v2 = length == 0;
    if (!is_v2 && !list_has(controllers, "cpu"))
        return 0;
    return read_hierarchy(reader, second + 1, is_v2);
}

static int read_groups(struct quota_reader *reader, char *groups)
{
    char *save = NULL;
    int err = 0;
    for (char *line = strtok_r(groups, "\n", &save); line && !err;
         line = strtok_r(NULL, "\n", &save))
        err = read_group_line(reader, line);
    if (!err && reader->cpus > 0)
        err = nio_reasons_add(reader->reasons, "CPU quota: %.2f CPUs, by %s", reader->cpus,
                              reader->source);
    return err;
}

/* No cgroups at all is no limit; files that are there but cannot be read are worth a sentence. */
static int note_unreadable(struct nio_reasons *reasons, const char *file, int err)
{
    if (err == -ENOMEM || err == -ENOENT)
        return err == -ENOMEM ? err : 0;
    return nio_reasons_add(reasons, "CPU quota: %s cannot be read (%s), no quota is assumed", file,
                           strerror(-err));
}

int nio_cpu_quota_read(const char *root, struct nio_reasons *reasons, double *ret_cpus)
{
    char *groups = NULL, *mountinfo = NULL;
    *ret_cpus = 0;
    int err = nio_sysfile_load(root, "/proc/self/cgroup", &groups);
    if (err)
        return note_unreadable(reasons, "/proc/self/cgroup", err);
    err = nio_sysfile_load(root, "/proc/self/mountinfo", &mountinfo);
    if (err) {
        nio_free(groups);
        return note_unreadable(reasons, "/proc/self/mountinfo", err);
    }
    struct quota_reader *reader = nio_zalloc(sizeof *reader);
    err = -ENOMEM;
    if (reader) {
        reader->root = root;
        reader->mountinfo = mountinfo;
        reader->reasons = reasons;
        err = read_groups(reader, groups);
        *ret_cpus = reader->cpus;
    }
    nio_free(reader);
    nio_free(mountinfo);
    nio_free(groups);
    return err;
}
