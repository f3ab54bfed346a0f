/* SPDX-License-Identifier: MIT */
/* net/address.h: "ADDRESS:PORT" as a socket address: numbers only, nothing is looked up. */
#ifndef NIO_NET_ADDRESS_H
#define NIO_NET_ADDRESS_H

#include <sys/socket.h>

struct nio_address {
    struct sockaddr_storage storage;
    socklen_t length;
};

/* "127.0.0.1:80", "[::1]:80", "*:80".   Errors: -EINVAL with the text in the detail. */
int nio_address_parse(const char *text, struct nio_address *ret_address);

#endif
