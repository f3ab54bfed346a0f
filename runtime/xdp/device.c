/* SPDX-License-Identifier: MIT */
#include "runtime/xdp/device.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runtime/base/assert.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/base/versioned.h"
#include "runtime/net/address.h"
#include "runtime/xdp/neighbour.h"

enum {
    FRAMES = 2048,
    FRAMES_MIN = 64,
    FRAMES_MAX = 65536,
    FRAME_BYTES_SMALL = 2048,
    FRAME_BYTES_LARGE = 4096,
    HEADROOM = 256, /* XDP_PACKET_HEADROOM: what the kernel leaves free in each frame */
    ETHER_BYTES = 14
};

void numio_xdp_opts_init(struct numio_xdp_opts *opts, size_t size)
{
    memset(opts, 0, size);
    opts->size = size;
}

/* ---- options ------------------------------------------------------------------------------ */

static int check_opts(const struct numio_xdp_opts *opts)
{
    int rc = nio_versioned_check("xdp options", opts, opts->size, sizeof *opts);
    if (rc < 0)
        return rc;
    if (!opts->interface || !*opts->interface || strlen(opts->interface) >= NIO_XDP_INTERFACE_BYTES)
        return nio_error(-EINVAL, "xdp options: interface is not the name of one");
    if ((unsigned)opts->mode > NUMIO_XDP_SOCKET)
        return nio_error(-EINVAL, "xdp options: mode is %u", (unsigned)opts->mode);
    if (opts->is_required && opts->mode == NUMIO_XDP_SOCKET)
        return nio_error(-EINVAL, "xdp options: mode asks for a socket, is_required for none");
    if (opts->frames != 0 && (opts->frames < FRAMES_MIN || opts->frames > FRAMES_MAX ||
                              (opts->frames & (opts->frames - 1)) != 0))
        return nio_error(-EINVAL, "xdp options: frames is %u, not a power of two from %d to %d",
                         opts->frames, FRAMES_MIN, FRAMES_MAX);
    if (opts->frame_bytes != 0 && opts->frame_bytes != FRAME_BYTES_SMALL &&
        opts->frame_bytes != FRAME_BYTES_LARGE)
        return nio_error(-EINVAL, "xdp options: frame_bytes is %u, neither %d nor %d",
                         opts->frame_bytes, FRAME_BYTES_SMALL, FRAME_BYTES_LARGE);
    return 0;
}

/* Whether the interface has the address. */
static int check_address(const char *interface, const struct sockaddr_storage *wanted)
{
    struct ifaddrs *all;
    bool is_there = false;
    if (getifaddrs(&all) != 0)
        return nio_error(-errno, "xdp: the addresses of the interfaces: %s", strerror(errno));
    for (const struct ifaddrs *at = all; at && !is_there; at = at->ifa_next) {
        if (!at->ifa_addr || at->ifa_addr->sa_family != wanted->ss_family ||
            strcmp(at->ifa_name, interface) != 0)
            continue;
        if (wanted->ss_family == AF_INET)
            is_there = memcmp(&((const struct sockaddr_in *)(const void *)at->ifa_addr)->sin_addr,
                              &((const struct sockaddr_in *)wanted)->sin_addr, 4) == 0;
        else
            is_there = memcmp(&((const struct sockaddr_in6 *)(const void *)at->ifa_addr)->sin6_addr,
                              &((const struct sockaddr_in6 *)wanted)->sin6_addr, 16) == 0;
    }
    freeifaddrs(all);
    return is_there ? 0 : nio_error(-EADDRNOTAVAIL, "xdp: %s does not have the address", interface);
}

/* ---- the interface and the port ------------------------------------------------------------ */

static int ask_interface(struct numio_xdp_device *device, int fd)
{
    struct ifreq request = { 0 };
    memcpy(request.ifr_name, device->interface, sizeof device->interface);
    if (ioctl(fd, SIOCGIFINDEX, &request) != 0)
        return nio_error(-ENODEV, "xdp: there is no interface \"%s\"", device->interface);
    device->ifindex = request.ifr_ifindex;
    if (ioctl(fd, SIOCGIFMTU, &request) != 0)
        return nio_error(-errno, "xdp: the MTU of %s: %s", device->interface, strerror(errno));
    device->mtu = (unsigned)request.ifr_mtu;
    if (ioctl(fd, SIOCGIFHWADDR, &request) != 0)
        return nio_error(-errno, "xdp: the MAC of %s: %s", device->interface, strerror(errno));
    memcpy(device->local.mac, request.ifr_hwaddr.sa_data, NIO_PACKET_MAC_BYTES);
    return nio_link_queues(device->ifindex, &device->queues);
}

/* Opens the socket that holds the port, and learns what is constant of the device's address. */
static int hold_port(struct numio_xdp_device *device, const char *text)
{
    struct numio_address address;
    int rc = nio_address_parse(text, &address);
    if (rc < 0)
        return rc;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address.storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address.storage;
    bool is_v4 = address.storage.ss_family == AF_INET;
    device->local.family = (uint8_t)address.storage.ss_family;
    memcpy(device->local.address, is_v4 ? (const void *)&v4->sin_addr : &v6->sin6_addr,
           is_v4 ? 4 : 16);
    device->port_fd = socket(address.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (device->port_fd < 0)
        return nio_error(-errno, "xdp: socket: %s", strerror(errno));
    if ((rc = ask_interface(device, device->port_fd)) < 0 ||
        (rc = check_address(device->interface, &address.storage)) < 0)
        return rc;
    if (!is_v4)
        v6->sin6_scope_id = (uint32_t)device->ifindex;
    if (bind(device->port_fd, (const struct sockaddr *)&address.storage, address.bytes) != 0 ||
        getsockname(device->port_fd, (struct sockaddr *)&address.storage, &address.bytes) != 0)
        return nio_error(-errno, "xdp: bind to %.64s: %s", text, strerror(errno));
    device->local.port = ntohs(is_v4 ? v4->sin_port : v6->sin6_port);
    return 0;
}

/* What the program leaves to the kernel must not fill the socket that only holds the port. */
static void deafen(struct numio_xdp_device *device)
{
    struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = { 1, &nothing };
    /* It would only fill up. */
    (void)setsockopt(device->port_fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

int nio_xdp_device_socket(struct numio_xdp_device *device)
{
    int fd = fcntl(device->port_fd, F_DUPFD_CLOEXEC, 0), unused = 0;
    if (fd < 0)
        return nio_error(-errno, "xdp: a socket: %s", strerror(errno));
    /* Fails where none is attached. */
    (void)setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused);
    return fd;
}

/* ---- attaching ---------------------------------------------------------------------------- */

static int choose_frame_bytes(struct numio_xdp_device *device, unsigned wish)
{
    unsigned needed = HEADROOM + ETHER_BYTES + device->mtu;
    device->frame_bytes = wish                          ? wish
                          : needed <= FRAME_BYTES_SMALL ? FRAME_BYTES_SMALL
                                                        : FRAME_BYTES_LARGE;
    if (needed <= device->frame_bytes)
        return 0;
    return nio_error(-EMSGSIZE, "xdp: packets of %s (MTU %u) do not fit into frames of %u bytes",
                     device->interface, device->mtu, device->frame_bytes);
}

/* Errors: why there is no AF_XDP on this device. */
static int attach_filter(struct numio_xdp_device *device, enum numio_xdp_mode wish)
{
    int rc = choose_frame_bytes(device, device->frame_bytes);
    if (rc == 0)
        rc = nio_xsk_library_open(&device->library);
    if (rc < 0)
        return rc;
    rc = -EOPNOTSUPP;
    if (wish != NUMIO_XDP_GENERIC) {
        rc = nio_filter_attach(&device->library, &device->local, device->ifindex, device->queues,
                               true, &device->filter);
        device->mode = NUMIO_XDP_DRIVER;
    }
    if (rc < 0 && wish != NUMIO_XDP_DRIVER) {
        if (wish == NUMIO_XDP_AUTO)
            (void)snprintf(device->reason, sizeof device->reason, "%s",
                           numio_strerror_detail()); /* may be cut */
        rc = nio_filter_attach(&device->library, &device->local, device->ifindex, device->queues,
                               false, &device->filter);
        device->mode = NUMIO_XDP_GENERIC;
    }
    return rc;
}

static int attach(struct numio_xdp_device *device, const struct numio_xdp_opts *opts)
{
    int rc = hold_port(device, opts->address);
    if (rc < 0)
        return rc;
    device->is_open = nio_zalloc_array(device->queues, sizeof *device->is_open);
    if (!device->is_open)
        return nio_error(-ENOMEM, "xdp: no memory for a device");
    if (opts->mode == NUMIO_XDP_SOCKET)
        return 0;
    rc = attach_filter(device, opts->mode);
    if (rc == 0) {
        deafen(device);
        return 0;
    }
    if (device->is_required || rc == -ENOMEM)
        return rc;
    device->mode = NUMIO_XDP_SOCKET;
    (void)snprintf(device->reason, sizeof device->reason, "%s",
                   numio_strerror_detail()); /* may be cut */
    return 0;
}

static void free_device(struct numio_xdp_device *device)
{
    nio_filter_detach(&device->filter);
    nio_xsk_library_close(&device->library);
    if (device->port_fd >= 0)
        (void)close(device->port_fd); /* nothing to lose */
    nio_free(device->is_open);
    nio_free(device);
}

int numio_xdp_attach(const struct numio_xdp_opts *opts, struct numio_xdp_device **ret_device)
{
    int rc = check_opts(opts);
    if (rc < 0)
        return rc;
    struct numio_xdp_device *device = nio_zalloc(sizeof *device);
    if (!device)
        return nio_error(-ENOMEM, "xdp: no memory for a device");
    device->filter = (struct nio_filter){ -1, -1, -1 };
    device->port_fd = -1;
    device->mode = NUMIO_XDP_SOCKET;
    device->is_required = opts->is_required;
    device->verifies = opts->verifies_checksums;
    device->frames = opts->frames ? opts->frames : FRAMES;
    device->frame_bytes = opts->frame_bytes;
    memcpy(device->interface, opts->interface, strlen(opts->interface));
    nio_lock_init(&device->lock, NIO_RANK_LEAF);
    rc = attach(device, opts);
    if (rc < 0) {
        free_device(device);
        return rc;
    }
    if (device->frame_bytes == 0)
        device->frame_bytes = FRAME_BYTES_SMALL;
    *ret_device = device;
    return 0;
}

int numio_xdp_detach(struct numio_xdp_device *device)
{
    if (!device)
        return 0;
    nio_lock_acquire(&device->lock);
    unsigned open_count = device->open_count;
    nio_lock_release(&device->lock);
    if (open_count > 0)
        return nio_error(-EBUSY, "xdp: %u endpoints of the device are open", open_count);
    free_device(device);
    return 0;
}

/* ---- queues and words --------------------------------------------------------------------- */

int nio_xdp_device_take(struct numio_xdp_device *device, unsigned queue)
{
    if (queue >= device->queues)
        return nio_error(-EINVAL, "xdp: %s has %u receive queues, none is number %u",
                         device->interface, device->queues, queue);
    nio_lock_acquire(&device->lock);
    bool was_open = device->is_open[queue];
    device->open_count += !was_open;
    device->is_open[queue] = true;
    nio_lock_release(&device->lock);
    return was_open ? nio_error(-EBUSY, "xdp: queue %u of %s is open", queue, device->interface)
                    : 0;
}

void nio_xdp_device_give(struct numio_xdp_device *device, unsigned queue)
{
    nio_lock_acquire(&device->lock);
    NIO_ASSERT(device->is_open[queue]);
    device->open_count--;
    device->is_open[queue] = false;
    nio_lock_release(&device->lock);
}

enum numio_xdp_mode numio_xdp_device_mode(const struct numio_xdp_device *device)
{
    return device->mode;
}

const char *numio_xdp_device_reason(const struct numio_xdp_device *device)
{
    return device->reason[0] ? device->reason : NULL;
}

unsigned numio_xdp_device_port(const struct numio_xdp_device *device)
{
    return device->local.port;
}

unsigned numio_xdp_device_queues(const struct numio_xdp_device *device)
{
    return device->queues;
}
