/* SPDX-License-Identifier: MIT */
/* Where a descriptor is at home.  What a file or an interface hangs on tells numa/locality.c; here
 * a descriptor becomes a path or an interface's name, and the answer a node of the runtime. */
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <numio/net.h>

#include "runtime/base/error.h"
#include "runtime/sched/handle.h"

enum { PATH_BYTES = 64 };

static int without_home(const char *why)
{
    return nio_error(-ENODATA, "home: the descriptor has none: %s", why);
}

/* The runtime's node of a result of numio_topology_node_of_*(). */
static int node_of(const struct numio_handle *handle, int error, uint32_t numa, const char *what)
{
    char why[NIO_ERROR_DETAIL_BYTES];
    if (error == -ENODATA || error == -ENOENT) {
        /* A copy, because the sentence about to be written has the one that is there in it. */
        (void)snprintf(why, sizeof why, "%s (%s)", what, numio_strerror_detail()); /* may be cut */
        return without_home(why);
    }
    return error < 0 ? error : (int)nio_plan_node_of_numa(handle->plan, numa);
}

static int home_of_file(const struct numio_handle *handle, int fd)
{
    char path[PATH_BYTES];
    uint32_t numa = 0;
    /* The link leads to the file itself, also if it has no name any more. */
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* fits */
    int error = numio_topology_node_of_file(handle->topology, path, &numa);
    return node_of(handle, error, numa, "no disk or device of one node is behind it");
}

static int home_of_interface(const struct numio_handle *handle, const char *name)
{
    uint32_t numa = 0;
    int error = numio_topology_node_of_net(handle->topology, name, &numa);
    return node_of(handle, error, numa, "its interface belongs to no node");
}

static bool is_same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    if (!a || a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
    return a->sa_family == AF_INET6 &&
           memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr,
                  sizeof(struct in6_addr)) == 0;
}

/* The interface that a socket is bound to, itself or by its address; false: none. */
static bool interface_of(int fd, char *ret_name)
{
    struct sockaddr_storage address;
    socklen_t bytes = IF_NAMESIZE;
    if (getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, ret_name, &bytes) == 0 && ret_name[0])
        return true;
    bytes = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) != 0)
        return false;
    struct ifaddrs *all = NULL;
    bool is_found = false;
    if (getifaddrs(&all) != 0)
        return false;
    for (const struct ifaddrs *at = all; at && !is_found; at = at->ifa_next)
        if (is_same_address(at->ifa_addr, (struct sockaddr *)&address)) {
            (void)snprintf(ret_name, IF_NAMESIZE, "%s", at->ifa_name); /* fits */
            is_found = true;
        }
    freeifaddrs(all);
    return is_found;
}

/* The node of the CPU that handled a connected socket's last packet; -1: none is known. */
static int node_of_last_packet(const struct numio_handle *handle, int fd)
{
    struct numio_topology_info info = { .size = sizeof info };
    struct sockaddr_storage peer;
    socklen_t bytes = sizeof peer;
    int cpu = -1;
    if (getpeername(fd, (struct sockaddr *)&peer, &bytes) != 0)
        return -1;
    bytes = sizeof cpu;
    if (getsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &cpu, &bytes) != 0 || cpu < 0 ||
        numio_topology_info_get(handle->topology, &info) < 0)
        return -1;
    for (uint32_t i = 0; i < info.pu_count; i++) {
        struct numio_topology_pu pu = { .size = sizeof pu };
        if (numio_topology_pu_get(handle->topology, i, &pu) == 0 && pu.os_index == cpu)
            return (int)nio_plan_node_of_numa(handle->plan, pu.numa);
    }
    return -1;
}

static int home_of_socket(const struct numio_handle *handle, int fd)
{
    char name[IF_NAMESIZE] = "";
    int node = interface_of(fd, name) ? home_of_interface(handle, name)
                                      : without_home("it is bound to no interface");
    if (node == -ENODATA) {
        int last = node_of_last_packet(handle, fd);
        return last >= 0 ? last : node;
    }
    return node;
}

int numio_home_of_fd(struct numio_handle *handle, int fd)
{
    struct stat stat;
    handle = nio_handle_resolve(handle);
    if (!handle)
        return nio_error(-EINVAL, "home: no handle is given and none is current");
    if (fstat(fd, &stat) != 0)
        return nio_error(-errno, "home: descriptor %d: %s", fd, strerror(errno));
    if (handle->node_count == 1)
        return 0;
    switch (stat.st_mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFBLK:
    case S_IFCHR:
        return home_of_file(handle, fd);
    case S_IFSOCK:
        return home_of_socket(handle, fd);
    default:
        return without_home("it is neither a file, a device nor a socket");
    }
}
