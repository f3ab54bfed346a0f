/* SPDX-License-Identifier: MIT */
/* SO_INCOMING_CPU alone does not do it: a socket names one CPU only, a node has many, and kernels
 * before 6.2 did not look at it in a group (commit b261eda84ec1).  So the group gets a classic BPF
 * program that looks the CPU up, which all kernels since 4.6 run (socket(7),
 * SO_ATTACH_REUSEPORT_CBPF):
 *
 *   A = this CPU;  if A == cpu0 return member0;  if A == cpu1 return member1;  ...  return none
 *
 * A number that is no member's makes the kernel fall back to its hash. */
#include "runtime/net/steer.h"

#include <errno.h>
#include <linux/filter.h>
#include <sys/socket.h>

#include "runtime/base/mem.h"

enum { NO_MEMBER = 0x7fffffff };

int nio_steer_by_cpu(int fd, const struct nio_steer *map, size_t count)
{
    unsigned short used = 0;
    if (count > NIO_STEER_MAX)
        return -E2BIG;
    struct sock_filter *steps = nio_zalloc((2 * count + 2) * sizeof *steps);
    if (!steps)
        return -ENOMEM;
    steps[used++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)SKF_AD_OFF + SKF_AD_CPU);
    for (size_t i = 0; i < count; i++) {
        steps[used++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)map[i].cpu, 0, 1);
        steps[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, map[i].member);
    }
    steps[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, NO_MEMBER);
    struct sock_fprog program = { used, steps };
    int rc = setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
    rc = rc == 0 ? 0 : -errno;
    nio_free(steps);
    return rc;
}
