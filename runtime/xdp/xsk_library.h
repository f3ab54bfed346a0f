/* SPDX-License-Identifier: MIT */
/* xdp/xsk_library.h: libxdp and libbpf, loaded when a device is attached.
 *
 * Design note on the table of functions: a program that is linked with numio but does not use
 * AF_XDP would otherwise start with four more libraries (libxdp, libbpf, libelf, libz), and would
 * not start without them.  So the functions that make and end sockets and load the program, none of
 * them hot, are looked up when they are wanted; that they are missing is one more reason to use an
 * ordinary socket.  The rings themselves are inline functions of <xdp/xsk.h>.  Any thread.
 */
#ifndef NIO_XDP_XSK_LIBRARY_H
#define NIO_XDP_XSK_LIBRARY_H

#include <bpf/bpf.h>
#include <xdp/xsk.h>

#include "runtime/base/compiler.h"

/* Constant once opened; the libraries' own names and types. */
struct nio_xsk_library {
    void *xdp, *bpf; /* of dlopen() */
    __typeof__(xsk_umem__create) *umem_create;
    __typeof__(xsk_umem__delete) *umem_delete;
    __typeof__(xsk_socket__create_shared) *socket_create;
    __typeof__(xsk_socket__delete) *socket_delete;
    __typeof__(xsk_socket__fd) *socket_fd;
    __typeof__(bpf_map_create) *map_create;
    __typeof__(bpf_map_update_elem) *map_update;
    __typeof__(bpf_map_delete_elem) *map_delete;
    __typeof__(bpf_prog_load) *prog_load;
    __typeof__(bpf_link_create) *link_create;
};

/* Errors: -ENOSYS a library, or something in it, is missing; the detail has the loader's words. */
NIO_NODISCARD int nio_xsk_library_open(struct nio_xsk_library *ret);
/* Takes one that was not opened, if it is all zero. */
void nio_xsk_library_close(struct nio_xsk_library *library);

#endif
