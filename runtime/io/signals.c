/* SPDX-License-Identifier: MIT */
/* Signal streams: signalfd(2), and a look at the masks of all threads, without which a stream would
 * miss signals in silence. */
#include <numio/signal.h>

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"

struct numio_signals {
    int fd;
};

static int make_set(const int *numbers, unsigned count, sigset_t *ret_set)
{
    (void)sigemptyset(ret_set); /* cannot fail */
    for (unsigned i = 0; i < count; i++)
        if (numbers[i] == SIGKILL || numbers[i] == SIGSTOP || sigaddset(ret_set, numbers[i]) != 0)
            return nio_error(-EINVAL, "signals: %d is no signal that can be read", numbers[i]);
    return count > 0 ? 0 : nio_error(-EINVAL, "signals: none is named");
}

/* The mask of a thread and its name, as /proc tells them.  False: it has ended, or there is no
 * /proc.
 */
static bool read_mask(const char *tid, uint64_t *ret_mask, char *ret_name, size_t name_bytes)
{
    char path[64], line[128];
    bool is_found = false;
    (void)snprintf(path, sizeof path, "/proc/self/task/%.20s/status", tid); /* fits */
    FILE *file = fopen(path, "re");
    while (file && !is_found && fgets(line, sizeof line, file)) {
        if (strncmp(line, "Name:\t", 6) == 0)
            (void)snprintf(ret_name, name_bytes, "%.*s", (int)strcspn(line + 6, "\n"),
                           line + 6); /* may be cut */
        is_found = strncmp(line, "SigBlk:\t", 8) == 0;
        if (is_found)
            *ret_mask = strtoull(line + 8, NULL, 16);
    }
    if (file)
        (void)fclose(file); /* only read from */
    return is_found;
}

/* The kernel's own threads for a ring take no signals. */
static bool is_kernels(const char *name)
{
    return strncmp(name, "iou-", 4) == 0;
}

static int check_threads(const int *numbers, unsigned count)
{
    uint64_t wanted = 0, mask = 0;
    char name[32] = "";
    int rc = 0;
    for (unsigned i = 0; i < count; i++)
        wanted |= UINT64_C(1) << (numbers[i] - 1);
    DIR *dir = opendir("/proc/self/task");
    if (!dir)
        return 0; /* nothing tells */
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.' || !read_mask(entry->d_name, &mask, name, sizeof name) ||
            is_kernels(name) || (mask & wanted) == wanted)
            continue;
        int number = __builtin_ctzll(wanted & ~mask) + 1;
        rc = nio_error(-EBUSY,
                       "signals: thread %s (\"%s\") does not block SIG%s and would be given it; "
                       "open the stream before threads are started",
                       entry->d_name, name, sigabbrev_np(number) ? sigabbrev_np(number) : "RT");
    }
    (void)closedir(dir); /* only read from */
    return rc;
}

int numio_signals_open(const int *numbers, unsigned count, struct numio_signals **ret_signals)
{
    sigset_t set, before;
    int rc = make_set(numbers, count, &set);
    if (rc < 0)
        return rc;
    struct numio_signals *signals = nio_zalloc(sizeof *signals);
    if (!signals)
        return nio_error(-ENOMEM, "signals: no memory");
    (void)pthread_sigmask(SIG_BLOCK, &set, &before); /* cannot fail with this argument */
    rc = check_threads(numbers, count);
    signals->fd = rc == 0 ? signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK) : -1;
    if (rc == 0 && signals->fd < 0)
        rc = nio_error(-errno, "signals: signalfd: %s", strerror(errno));
    if (rc < 0) {
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL); /* likewise */
        nio_free(signals);
        return rc;
    }
    *ret_signals = signals;
    return 0;
}

int64_t numio_signals_next(struct numio_signals *signals, struct numio_signal *ret_signal)
{
    struct signalfd_siginfo info;
    int64_t n = numio_read(signals->fd, &info, sizeof info);
    if (n != (int64_t)sizeof info)
        return n < 0 ? n : -EIO;
    if (ret_signal)
        *ret_signal = (struct numio_signal){ .number = (int)info.ssi_signo,
                                             .code = info.ssi_code,
                                             .pid = (int)info.ssi_pid,
                                             .uid = info.ssi_uid,
                                             .value = (int64_t)info.ssi_ptr };
    return 0;
}

void numio_signals_close(struct numio_signals *signals)
{
    if (!signals)
        return;
    (void)close(signals->fd); /* only read from */
    nio_free(signals);
}
