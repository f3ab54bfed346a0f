/* SPDX-License-Identifier: MIT */
/* numio/address.h: socket addresses as text, and names as addresses. */
#ifndef NUMIO_ADDRESS_H
#define NUMIO_ADDRESS_H

#include <sys/socket.h>

#include <numio/base.h>

NUMIO_BEGIN_DECLS

/* Plain data; pass `&address.storage` and `bytes` to the calls of <numio/io.h>. */
struct numio_address {
    struct sockaddr_storage storage;
    socklen_t bytes;
};

enum { NUMIO_ADDRESS_TEXT_BYTES = 116 /* a Unix path, which is the longest, and its NUL */ };

/* "127.0.0.1:80", "[::1]:80", "*:80" (numbers only, nothing is looked up), "unix:PATH", or
 * "unix:@NAME" without a file.   Context: any; never suspends.   Errors: -EINVAL, the detail says.
 */
NUMIO_EXPORT NUMIO_NODISCARD int numio_address_parse(const char *text,
                                                     struct numio_address *ret_address);
/* The same form back, cut at `size`.   Context: any; never suspends.   Returns: ret_text. */
NUMIO_EXPORT const char *numio_address_print(const struct numio_address *address, char *ret_text,
                                             size_t size);

/* Looks a name up, by getaddrinfo(3) on the blocking pool, in the order that RFC 6724 gives.
 * Context: a coroutine, suspends; an abort or a deadline ends the wait at once, and the look-up by
 *          itself.
 * Returns: how many addresses were written, at most `max`.
 * Errors:  -ENOENT there is no such name; -EAGAIN the name server does not answer, or the pool's
 *          queue is full; -ENOMEM; the detail has getaddrinfo's words. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_resolve(const char *host, const char *service,
                                                   struct numio_address *ret_addresses,
                                                   unsigned max);

NUMIO_END_DECLS

#endif
