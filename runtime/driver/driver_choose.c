/* SPDX-License-Identifier: MIT */
/* Which profile a runtime gets: a pure function of the wish, what the kernel offers and the CPUs.
 */
#include <errno.h>
#include <stdio.h>

#include "runtime/driver/driver.h"

/* Room for a sentence; cut at the buffer's end. */
struct reason {
    char *text;
    size_t bytes;
};

static void say(struct reason reason, const char *sentence, const char *detail)
{
    if (reason.bytes > 0)
        (void)snprintf(reason.text, reason.bytes, "%s%s%s", sentence, detail[0] ? ": " : "",
                       detail); /* cut at the buffer's end */
}

static int without_uring(const struct nio_driver_probe *probe, struct reason reason)
{
    say(reason, "epoll, because io_uring cannot be used",
        probe->reason[0] ? probe->reason : "the probe gave no reason");
    return NUMIO_DRIVER_EPOLL;
}

static int for_sqpoll(const struct nio_driver_probe *probe, struct reason reason)
{
    if (!probe->has_uring)
        return without_uring(probe, reason);
    if (probe->has_sqpoll)
        return NUMIO_DRIVER_SQPOLL;
    if (probe->has_defer) {
        say(reason, "defer, because the kernel refuses an SQ thread", probe->reason);
        return NUMIO_DRIVER_DEFER;
    }
    say(reason, "epoll, because the kernel has neither SQPOLL nor DEFER_TASKRUN", probe->reason);
    return NUMIO_DRIVER_EPOLL;
}

static int for_defer(const struct nio_driver_probe *probe, unsigned allowed_cpus,
                     struct reason reason)
{
    if (!probe->has_uring)
        return without_uring(probe, reason);
    if (probe->has_defer)
        return NUMIO_DRIVER_DEFER;
    if (probe->has_sqpoll && allowed_cpus >= 2) {
        say(reason, "sqpoll, because the kernel lacks DEFER_TASKRUN (Linux 6.1 has it)", "");
        return NUMIO_DRIVER_SQPOLL;
    }
    say(reason, "epoll, because the kernel lacks DEFER_TASKRUN (Linux 6.1 has it)", "");
    return NUMIO_DRIVER_EPOLL;
}

static int for_iopoll(const struct nio_driver_probe *probe, unsigned allowed_cpus,
                      struct reason reason)
{
    if (!probe->has_uring || !probe->has_defer)
        return for_defer(probe, allowed_cpus, reason);
    if (probe->has_iopoll && probe->polls_disk)
        return NUMIO_DRIVER_IOPOLL;
    if (!probe->has_iopoll)
        say(reason, "defer, because the kernel refuses a polled ring", probe->reason);
    else
        say(reason,
            "defer, because no disk here has queues for polling: nvme.poll_queues=1 on the "
            "kernel's "
            "command line gives them to NVMe disks (/sys/block/*/queue/io_poll is then 1)",
            "");
    return NUMIO_DRIVER_DEFER;
}

/* What keeps AUTO from sqpoll, NULL if nothing does.  On a shared core, with the SQ thread made
 * nicer than its worker, TCP echo is faster than under defer (1 connection: p50 26 against 39 us),
 * but a cached read has to go to the SQ thread's context and back: 5.2 against 1.4 us at depth 1,
 * and 0.86 times the throughput at depth 32. */
static const char *objection(unsigned allowed_cpus, double cpu_quota, bool sq_shares_core)
{
    if (allowed_cpus < 2)
        return "defer, because only one CPU is allowed and an SQ thread would compete for it";
    if (cpu_quota > 0 && cpu_quota < 2)
        return "defer, because the CPU quota is below two and an SQ thread would use it up";
    if (sq_shares_core)
        return "defer, because no core is free for an SQ thread: on a worker's core it costs "
               "cached reads two switches each";
    return NULL;
}

int nio_driver_choose(enum numio_driver wish, const struct nio_driver_probe *probe,
                      unsigned allowed_cpus, double cpu_quota, bool sq_shares_core,
                      char *ret_reason, size_t reason_bytes)
{
    struct reason reason = { ret_reason, reason_bytes };
    if (reason_bytes > 0)
        ret_reason[0] = '\0';
    switch (wish) {
    case NUMIO_DRIVER_SQPOLL:
        return for_sqpoll(probe, reason);
    case NUMIO_DRIVER_DEFER:
        return for_defer(probe, allowed_cpus, reason);
    case NUMIO_DRIVER_IOPOLL:
        return for_iopoll(probe, allowed_cpus, reason);
    case NUMIO_DRIVER_EPOLL:
        return NUMIO_DRIVER_EPOLL;
    case NUMIO_DRIVER_AUTO:
        break;
    default:
        return -EOPNOTSUPP;
    }
    const char *why = objection(allowed_cpus, cpu_quota, sq_shares_core);
    if (!why)
        return for_sqpoll(probe, reason);
    int profile = for_defer(probe, allowed_cpus, reason);
    if (profile == NUMIO_DRIVER_DEFER)
        say(reason, why, "");
    return profile;
}
