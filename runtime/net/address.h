/* SPDX-License-Identifier: MIT */
/* net/address.h: "ADDRESS:PORT" as a socket address (numbers only, nothing is looked up), and a
 * socket that listens on it.  Any thread. */
#ifndef NIO_NET_ADDRESS_H
#define NIO_NET_ADDRESS_H

#include <numio/address.h>
#include <stdbool.h>

/* As numio_address_parse(), but numbers only: TCP and UDP.   Errors: -EINVAL with the text in the
 * detail. */
int nio_address_parse(const char *text, struct numio_address *ret_address);
/* A Unix socket's path, or "@NAME".   Errors: -EINVAL it is empty or too long. */
int nio_address_of_path(const char *path, struct numio_address *ret_address);

/* A TCP socket that listens there; `text` is the address in errors.  `is_group`: with SO_REUSEPORT.
 * backlog 0: the system's most.   Errors: those of socket, bind and listen. */
int nio_address_listen(const struct numio_address *address, const char *text, int backlog,
                       bool is_group);

#endif
