/* SPDX-License-Identifier: MIT */
/* xdp/neighbour.h: what the kernel knows of an interface and its neighbours, by rtnetlink.  Any
 * thread; system calls that do not wait for the network.
 */
#ifndef NIO_XDP_NEIGHBOUR_H
#define NIO_XDP_NEIGHBOUR_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/compiler.h"

/* How many receive queues an interface has. */
NIO_NODISCARD int nio_link_queues(int ifindex, unsigned *ret_queues);

/* The MAC address of the neighbour through which `address` (4 or 16 bytes) is reached on the
 * interface.  `is_first`: one that has not answered before is looked for again.
 * Errors: -EAGAIN the kernel has been asked to look for it; -EHOSTUNREACH there is no route on this
 * interface, or nobody has answered; those of netlink. */
NIO_NODISCARD int nio_neighbour_find(int ifindex, uint8_t family, const uint8_t *address,
                                     bool is_first, uint8_t *ret_mac);

#endif
