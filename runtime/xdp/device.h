/* SPDX-License-Identifier: MIT */
/* xdp/device.h: what the endpoints of one device share: constant once attached, but for the list of
 * open queues, which has a lock.  Any thread.
 */
#ifndef NIO_XDP_DEVICE_H
#define NIO_XDP_DEVICE_H

#include "runtime/base/lock.h"
#include "runtime/xdp/filter.h"

enum { NIO_XDP_REASON_BYTES = 256, NIO_XDP_INTERFACE_BYTES = 16 };

struct numio_xdp_device {
    char interface[NIO_XDP_INTERFACE_BYTES];
    int ifindex;
    unsigned queues, mtu, frames, frame_bytes;
    bool is_required, verifies;
    enum numio_xdp_mode mode;
    char reason[NIO_XDP_REASON_BYTES];
    struct nio_packet_local local;
    struct nio_xsk_library library;
    struct nio_filter filter;
    int port_fd; /* an ordinary socket that holds the port */
    struct nio_lock lock;
    /* under the lock */
    unsigned open_count;
    bool *is_open; /* of each queue */
};

/* Takes a queue.  Errors: -EINVAL there is none with this number; -EBUSY it is open. */
NIO_NODISCARD int nio_xdp_device_take(struct numio_xdp_device *device, unsigned queue);
void nio_xdp_device_give(struct numio_xdp_device *device, unsigned queue);

/* A socket for an endpoint without AF_XDP: the one that holds the port, once more.
 * Errors: -EMFILE and others of fcntl. */
NIO_NODISCARD int nio_xdp_device_socket(struct numio_xdp_device *device);

#endif
