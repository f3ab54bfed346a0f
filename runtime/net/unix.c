/* SPDX-License-Identifier: MIT */
/* Unix sockets, and descriptors that are passed along (SCM_RIGHTS). */
#include <numio/unix.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/net/address.h"

/* The control message with the most descriptors that the kernel passes at a time. */
union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int) * NUMIO_UNIX_FDS_MAX)];
};

static int check_type(int type)
{
    if (type == SOCK_STREAM || type == SOCK_DGRAM || type == SOCK_SEQPACKET)
        return 0;
    return nio_error(-EINVAL, "unix: %d is none of SOCK_STREAM, SOCK_DGRAM and SOCK_SEQPACKET",
                     type);
}

int numio_unix_listen(const char *path, int type, int backlog)
{
    struct numio_address address;
    int rc = check_type(type);
    rc = rc < 0 ? rc : nio_address_of_path(path, &address);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return nio_error(-errno, "unix: socket: %s", strerror(errno));
    if (bind(fd, (const struct sockaddr *)&address.storage, address.bytes) != 0 ||
        (type != SOCK_DGRAM && listen(fd, backlog > 0 ? backlog : SOMAXCONN) != 0)) {
        rc = nio_error(-errno, "unix: listen on %.100s: %s", path, strerror(errno));
        (void)close(fd); /* the first error counts */
        return rc;
    }
    return fd;
}

int64_t numio_unix_connect(const char *path, int type)
{
    struct numio_address address;
    int rc = check_type(type);
    rc = rc < 0 ? rc : nio_address_of_path(path, &address);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return nio_error(-errno, "unix: socket: %s", strerror(errno));
    int64_t result = numio_connect(fd, (struct sockaddr *)&address.storage, address.bytes);
    if (result < 0) {
        (void)close(fd); /* the first error counts */
        return result;
    }
    return fd;
}

int numio_unix_peer(int fd, int *ret_pid, unsigned *ret_uid, unsigned *ret_gid)
{
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0)
        return nio_error(-errno, "unix: SO_PEERCRED: %s", strerror(errno));
    *ret_pid = peer.pid;
    *ret_uid = peer.uid;
    *ret_gid = peer.gid;
    return 0;
}

int64_t numio_unix_send_fds(int fd, const void *bytes, size_t len, const int *fds, unsigned count)
{
    union control control = { .room = { 0 } };
    struct iovec part = { (void *)(uintptr_t)bytes, len };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    if (count > NUMIO_UNIX_FDS_MAX)
        return nio_error(-EINVAL, "unix: %u descriptors at a time; %d can be passed", count,
                         NUMIO_UNIX_FDS_MAX);
    if (count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * count);
    }
    return numio_sendmsg(fd, &message, MSG_NOSIGNAL);
}

int64_t numio_unix_recv_fds(int fd, void *ret_bytes, size_t len, int *ret_fds, unsigned max,
                            unsigned *ret_count)
{
    union control control = { .room = { 0 } };
    struct iovec part = { ret_bytes, len };
    struct msghdr message = { .msg_iov = &part,
                              .msg_iovlen = 1,
                              .msg_control = &control,
                              .msg_controllen = sizeof control.room };
    *ret_count = 0;
    int64_t n = numio_recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (n < 0)
        return n;
    for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
        if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS)
            continue;
        size_t came = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < came; i++) {
            int one;
            memcpy(&one, CMSG_DATA(at) + i * sizeof one, sizeof one);
            if (*ret_count < max)
                ret_fds[*ret_count] = one;
            else
                (void)close(one); /* there is no room for it, as is told */
            ++*ret_count;
        }
    }
    return n;
}
