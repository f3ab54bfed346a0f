/* SPDX-License-Identifier: MIT */
/* veth_pair.h: two network namespaces with a pair of veth interfaces between them, for measurements
 * and tests.  They have no names and vanish with the process.  Needs root and the program `ip`.
 *
 *   near: numio0, 10.77.0.1/24, fd77::1/64; the calling thread and what it starts are in it
 *   far:  numio1, 10.77.0.2/24, fd77::2/64
 */
#ifndef PERF_XDP_VETH_PAIR_H
#define PERF_XDP_VETH_PAIR_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define VETH_NEAR "10.77.0.1"
#define VETH_FAR "10.77.0.2"
#define VETH_NEAR_V6 "fd77::1"
#define VETH_FAR_V6 "fd77::2"

struct veth_pair {
    int home, near, far; /* namespaces; `home` is where the thread came from */
    char problem[256];   /* why there is none */
};

/* Moves the calling thread; false if it cannot. */
static inline bool veth_enter(int namespace)
{
    return setns(namespace, CLONE_NEWNET) == 0;
}

static inline int veth_fail(struct veth_pair *pair, const char *what)
{
    (void)snprintf(pair->problem, sizeof pair->problem, "%s: %s", what, strerror(errno));
    return -1;
}

/* Runs a command of the shell in a namespace. */
static inline bool veth_run(int namespace, const char *command)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        if (veth_enter(namespace))
            execl("/bin/sh", "sh", "-ec", command, (char *)NULL);
        _exit(127);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static inline int veth_open_own(void)
{
    return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

static inline void veth_close(struct veth_pair *pair)
{
    int fds[] = { pair->far, pair->near, pair->home };
    if (pair->home >= 0)
        (void)veth_enter(pair->home); /* the process ends soon in any case */
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]); /* nothing to lose */
}

/* Makes the pair and moves the calling thread to the near end.  -1: `problem` says why not. */
static inline int veth_open(struct veth_pair *pair)
{
    char command[512];
    *pair = (struct veth_pair){ .home = veth_open_own(), .near = -1, .far = -1 };
    if (pair->home < 0 || unshare(CLONE_NEWNET) != 0 || (pair->far = veth_open_own()) < 0 ||
        unshare(CLONE_NEWNET) != 0 || (pair->near = veth_open_own()) < 0)
        return veth_fail(pair, "a network namespace");
    (void)snprintf(command, sizeof command,
                   "ip link set lo up; "
                   "ip link add numio0 type veth peer name numio1 netns /proc/%d/fd/%d; "
                   "ip addr add " VETH_NEAR "/24 dev numio0; "
                   "ip addr add " VETH_NEAR_V6 "/64 dev numio0 nodad; ip link set numio0 up",
                   (int)getpid(), pair->far); /* fits */
    if (!veth_run(pair->near, command))
        return veth_fail(pair, "ip link add type veth");
    if (!veth_run(pair->far, "ip addr add " VETH_FAR "/24 dev numio1; "
                             "ip addr add " VETH_FAR_V6 "/64 dev numio1 nodad; "
                             "ip link set lo up; ip link set numio1 up"))
        return veth_fail(pair, "ip addr add");
    return 0;
}

/* A socket of the far namespace; the thread stays where it is. */
static inline int veth_far_socket(const struct veth_pair *pair, int family, int type)
{
    if (!veth_enter(pair->far))
        return -1;
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    return veth_enter(pair->near) ? fd : -1;
}

#endif
