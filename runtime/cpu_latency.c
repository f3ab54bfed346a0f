/* SPDX-License-Identifier: MIT */
/* Holds /dev/cpu_dma_latency: as long as the descriptor is open, the kernel lets no CPU enter an
 * idle state that takes longer to leave than what was written (PM QoS).  The kernel forgets the
 * wish with the last descriptor, so a process that dies leaves nothing behind. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/error.h"
#include "runtime/lifecycle.h"

static const char device[] = "/dev/cpu_dma_latency";

void nio_cpu_latency_hold(struct numio_handle *handle)
{
    char reason[NIO_ERROR_DETAIL_BYTES];
    int32_t us = handle->config.cpu_dma_latency_us;
    handle->cpu_latency_fd = -1;
    if (us < 0)
        return;
    int fd = open(device, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, &us, sizeof us) == (ssize_t)sizeof us) {
        handle->cpu_latency_fd = fd;
        return;
    }
    const char *hint = "";
    if (errno == EACCES || errno == EPERM)
        hint = "; let the user write to it, for example by a udev rule";
    else if (errno == ENOENT)
        hint = "; the container or kernel has none";
    (void)snprintf(reason, sizeof reason, "idle CPUs may sleep deeply: %s: %s%s", device,
                   strerror(errno), hint); /* fits */
    nio_handle_add_reason(handle, reason);
    if (fd >= 0)
        (void)close(fd); /* nothing was set by it */
    handle->config.cpu_dma_latency_us = -1;
}

void nio_cpu_latency_release(struct numio_handle *handle)
{
    if (handle->cpu_latency_fd >= 0)
        (void)close(handle->cpu_latency_fd); /* takes the wish back; nothing else can happen */
    handle->cpu_latency_fd = -1;
}
