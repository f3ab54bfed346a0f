/* SPDX-License-Identifier: MIT */
/* Counts the SQ threads of this process.  They are threads of the process, named iou-sqp-PID, and
 * show in /proc/self/task.  A new one takes its name only once it has run, and an ended one lingers
 * for a moment, hence the patience.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/driver/driver.h"

static const char name_prefix[] = "iou-sqp";
enum { LOOK_AGAIN_US = 2000 };

static bool is_sq_thread(int task_dir, const char *tid)
{
    char path[300], name[32] = "";
    int length = snprintf(path, sizeof path, "%s/comm", tid);
    if (length < 0 || (size_t)length >= sizeof path)
        return false;
    int fd = openat(task_dir, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false; /* the thread has ended meanwhile */
    ssize_t bytes = read(fd, name, sizeof name - 1);
    (void)close(fd); /* only read from */
    return bytes > 0 && strncmp(name, name_prefix, sizeof name_prefix - 1) == 0;
}

/* Counts once; -EPERM if one of them is not SCHED_OTHER. */
static int count_once(unsigned *ret_count)
{
    DIR *tasks = opendir("/proc/self/task");
    if (!tasks)
        return nio_error(-errno, "/proc/self/task: %s", strerrordesc_np(errno));
    int error = 0;
    unsigned found = 0;
    const struct dirent *entry;
    while ((entry = readdir(tasks))) {
        if (entry->d_name[0] == '.' || !is_sq_thread(dirfd(tasks), entry->d_name))
            continue;
        found++;
        int policy = sched_getscheduler((pid_t)strtol(entry->d_name, NULL, 10));
        if (policy >= 0 && (policy & ~SCHED_RESET_ON_FORK) != SCHED_OTHER)
            error = nio_error(-EPERM, "SQ thread %s has scheduling policy %d, not SCHED_OTHER",
                              entry->d_name, policy);
    }
    (void)closedir(tasks); /* only read from */
    *ret_count = found;
    return error;
}

int nio_driver_count_sq_threads(unsigned expected, unsigned patience_ms, unsigned *ret_count)
{
    uint64_t end_ns = nio_now_ns() + (uint64_t)patience_ms * 1000000;
    unsigned found = 0;
    int error = count_once(&found);
    while ((error || found != expected) && nio_now_ns() < end_ns) {
        (void)usleep(LOOK_AGAIN_US); /* shorter is as good */
        error = count_once(&found);
    }
    *ret_count = found;
    return error;
}
