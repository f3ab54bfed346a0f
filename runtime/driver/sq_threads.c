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
#include "runtime/driver/uring_setup.h"

static const char name_prefix[] = "iou-sqp";
enum { LOOK_AGAIN_US = 2000, FDINFO_TRIES = 400 };

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

static int read_sq_thread(const char *path)
{
    char line[128];
    int tid = -ESRCH;
    FILE *file = fopen(path, "re");
    if (!file)
        return -errno;
    while (tid < 0 && fgets(line, sizeof line, file)) {
        int value;
        if (sscanf(line, "SqThread: %d", &value) == 1 && value > 0)
            tid = value;
    }
    (void)fclose(file); /* only read from */
    return tid;
}

/* Until the thread has run for the first time the kernel names its creator instead, and while the
 * ring is busy it names nobody. */
int nio_sq_thread_of(int ring_fd)
{
    char path[64], tid_text[16];
    (void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", ring_fd); /* fits */
    int task_dir = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (task_dir < 0)
        return -errno;
    int tid = -ESRCH;
    for (int i = 0; tid == -ESRCH && i < FDINFO_TRIES; i++) {
        if (i > 0)
            (void)usleep(LOOK_AGAIN_US / 4); /* shorter is as good */
        tid = read_sq_thread(path);
        (void)snprintf(tid_text, sizeof tid_text, "%d", tid); /* fits */
        if (tid > 0 && !is_sq_thread(task_dir, tid_text))
            tid = -ESRCH;
    }
    (void)close(task_dir); /* only read from */
    return tid;
}

int nio_driver_sq_thread(const struct nio_driver *driver)
{
    int ring_fd = nio_driver_ring_fd(driver);
    if (ring_fd < 0 || nio_driver_profile(driver) != NUMIO_DRIVER_SQPOLL)
        return -ESRCH;
    return nio_sq_thread_of(ring_fd);
}
