/* SPDX-License-Identifier: MIT */
/* TCP by address text: the two calls that most programs start with. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/net/address.h"

int numio_tcp_listen(const char *address, int backlog)
{
    struct numio_address parsed;
    int rc = nio_address_parse(address, &parsed);
    return rc < 0 ? rc : nio_address_listen(&parsed, address, backlog, false);
}

int64_t numio_tcp_connect(const char *address)
{
    struct numio_address parsed;
    int rc = nio_address_parse(address, &parsed);
    if (rc < 0)
        return rc;
    int fd = socket(parsed.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return nio_error(-errno, "connect: socket: %s", strerror(errno));
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* slower without */
    int64_t result = numio_connect(fd, (struct sockaddr *)&parsed.storage, parsed.bytes);
    if (result < 0) {
        (void)close(fd); /* the first error counts */
        return result;
    }
    return fd;
}
