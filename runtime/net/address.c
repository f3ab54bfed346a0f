/* SPDX-License-Identifier: MIT */
#include "runtime/net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
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

int nio_address_parse(const char *text, struct numio_address *ret_address)
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
        ret_address->bytes = sizeof *v4;
        return 0;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1)
        return refuse(text);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    ret_address->bytes = sizeof *v6;
    return 0;
}

int nio_address_of_path(const char *path, struct numio_address *ret_address)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    size_t length = path ? strlen(path) : 0;
    if (length == 0 || length >= sizeof name.sun_path || (length == 1 && path[0] == '@'))
        return nio_error(-EINVAL, "unix: the path \"%.32s\" is empty or longer than %zu bytes",
                         path ? path : "", sizeof name.sun_path - 1);
    memcpy(name.sun_path, path, length);
    bool is_abstract = path[0] == '@'; /* a NUL in its place, and the length ends the name */
    if (is_abstract)
        name.sun_path[0] = '\0';
    memset(ret_address, 0, sizeof *ret_address);
    memcpy(&ret_address->storage, &name, sizeof name);
    ret_address->bytes =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (is_abstract ? 0 : 1));
    return 0;
}

int numio_address_parse(const char *text, struct numio_address *ret_address)
{
    if (text && strncmp(text, "unix:", 5) == 0)
        return nio_address_of_path(text + 5, ret_address);
    return nio_address_parse(text, ret_address);
}

/* A path that may lack its NUL. */
static void print_path(const struct numio_address *address, char *ret_text, size_t size)
{
    struct sockaddr_un name;
    size_t start = offsetof(struct sockaddr_un, sun_path);
    memcpy(&name, &address->storage, sizeof name);
    size_t length = address->bytes > start ? address->bytes - start : 0;
    bool is_abstract = length > 0 && name.sun_path[0] == '\0';
    if (!is_abstract)
        length = strnlen(name.sun_path, length);
    (void)snprintf(ret_text, size, "unix:%s%.*s", is_abstract ? "@" : "",
                   (int)(is_abstract ? length - 1 : length),
                   name.sun_path + (is_abstract ? 1 : 0)); /* may be cut */
}

const char *numio_address_print(const struct numio_address *address, char *ret_text, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "?";
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->storage;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->storage;
    /* May be cut, all of them. */
    if (address->storage.ss_family == AF_INET) {
        (void)inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host); /* fits */
        (void)snprintf(ret_text, size, "%s:%u", host, ntohs(v4->sin_port));
    } else if (address->storage.ss_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host); /* fits */
        (void)snprintf(ret_text, size, "[%s]:%u", host, ntohs(v6->sin6_port));
    } else if (address->storage.ss_family == AF_UNIX) {
        print_path(address, ret_text, size);
    } else {
        (void)snprintf(ret_text, size, "family %d", address->storage.ss_family);
    }
    return ret_text;
}

int nio_address_listen(const struct numio_address *address, const char *text, int backlog,
                       bool is_group)
{
    int one = 1;
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return nio_error(-errno, "listen: socket: %s", strerror(errno));
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        (is_group && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0) ||
        bind(fd, (const struct sockaddr *)&address->storage, address->bytes) != 0 ||
        listen(fd, backlog > 0 ? backlog : SOMAXCONN) != 0) {
        int rc = nio_error(-errno, "listen on %.64s: %s", text, strerror(errno));
        (void)close(fd); /* the first error counts */
        return rc;
    }
    return fd;
}
