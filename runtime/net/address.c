/* SPDX-License-Identifier: MIT */
#include "runtime/net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/error.h"

static int refuse(const char *text)
{
    return nio_error(-EINVAL,
                     "address: \"%.64s\" is not \"ADDRESS:PORT\" (such as "
                     "127.0.0.1:7000, [::1]:7000 or *:7000)",
                     text ? text : "");
}

/* Splits "HOST:PORT"; the host without its brackets goes to `host`. */
static int split(const char *text, char *host, size_t host_bytes, uint16_t *ret_port)
{
    const char *colon = text ? strrchr(text, ':') : NULL;
    if (!colon || colon[1] < '0' || colon[1] > '9')
        return refuse(text);
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end || port > UINT16_MAX)
        return refuse(text);
    const char *first = text;
    size_t length = (size_t)(colon - text);
    if (length >= 2 && first[0] == '[' && first[length - 1] == ']') {
        first++;
        length -= 2;
    }
    if (length >= host_bytes)
        return refuse(text);
    memcpy(host, first, length);
    host[length] = '\0';
    *ret_port = (uint16_t)port;
    return 0;
}

int nio_address_parse(const char *text, struct nio_address *ret_address)
{
    char host[INET6_ADDRSTRLEN];
    uint16_t port = 0;
    int rc = split(text, host, sizeof host, &port);
    if (rc < 0)
        return rc;
    memset(ret_address, 0, sizeof *ret_address);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&ret_address->storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ret_address->storage;
    if (strcmp(host, "*") == 0 || inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET; /* "*" is the all-zero address, which it already has */
        v4->sin_port = htons(port);
        ret_address->length = sizeof *v4;
        return 0;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1)
        return refuse(text);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    ret_address->length = sizeof *v6;
    return 0;
}

int nio_address_listen(const struct nio_address *address, const char *text, int backlog,
                       bool is_group)
{
    int one = 1;
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return nio_error(-errno, "listen: socket: %s", strerror(errno));
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        (is_group && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0) ||
        bind(fd, (const struct sockaddr *)&address->storage, address->length) != 0 ||
        listen(fd, backlog > 0 ? backlog : SOMAXCONN) != 0) {
        int rc = nio_error(-errno, "listen on %.64s: %s", text, strerror(errno));
        (void)close(fd); /* the first error counts */
        return rc;
    }
    return fd;
}
