/* SPDX-License-Identifier: MIT */
/* net/address.h: "ADDRESS:PORT" as a socket address (numbers only, nothing is looked up), and a
 * socket that listens on it.  Any thread. */
#ifndef NIO_NET_ADDRESS_H
#define NIO_NET_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

struct nio_address {
    struct sockaddr_storage storage;
    socklen_t length;
};

/* "127.0.0.1:80", "[::1]:80", "*:80".   Errors: -EINVAL with the text in the detail. */
int nio_address_parse(const char *text, struct nio_address *ret_address);

/* A TCP socket that listens there; `text` is the address in errors.  `is_group`: with SO_REUSEPORT.
 * backlog 0: the system's most.   Errors: those of socket, bind and listen. */
int nio_address_listen(const struct nio_address *address, const char *text, int backlog,
                       bool is_group);

#endif
