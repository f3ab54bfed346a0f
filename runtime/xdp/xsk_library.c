/* SPDX-License-Identifier: MIT */
#include "runtime/xdp/xsk_library.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "runtime/base/error.h"

static const struct {
    const char *name;
    size_t offset; /* of its pointer in struct nio_xsk_library */
    bool is_bpf;
} wanted[] = {
    { "xsk_umem__create", offsetof(struct nio_xsk_library, umem_create), false },
    { "xsk_umem__delete", offsetof(struct nio_xsk_library, umem_delete), false },
    { "xsk_socket__create_shared", offsetof(struct nio_xsk_library, socket_create), false },
    { "xsk_socket__delete", offsetof(struct nio_xsk_library, socket_delete), false },
    { "xsk_socket__fd", offsetof(struct nio_xsk_library, socket_fd), false },
    { "bpf_map_create", offsetof(struct nio_xsk_library, map_create), true },
    { "bpf_map_update_elem", offsetof(struct nio_xsk_library, map_update), true },
    { "bpf_map_delete_elem", offsetof(struct nio_xsk_library, map_delete), true },
    { "bpf_prog_load", offsetof(struct nio_xsk_library, prog_load), true },
    { "bpf_link_create", offsetof(struct nio_xsk_library, link_create), true },
};

static int refuse(void)
{
    const char *why = dlerror();
    return nio_error(-ENOSYS, "xdp: %.160s (Debian's packages libxdp1 and libbpf1 have it)",
                     why ? why : "a library cannot be loaded");
}

int nio_xsk_library_open(struct nio_xsk_library *ret)
{
    struct nio_xsk_library library = { 0 };
    int rc = 0;
    library.bpf = dlopen("libbpf.so.1", RTLD_NOW | RTLD_LOCAL);
    library.xdp = library.bpf ? dlopen("libxdp.so.1", RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library.xdp)
        rc = refuse();
    for (size_t i = 0; rc == 0 && i < NIO_ARRAY_LEN(wanted); i++) {
        void *function = dlsym(wanted[i].is_bpf ? library.bpf : library.xdp, wanted[i].name);
        if (!function)
            rc = refuse();
        memcpy((char *)&library + wanted[i].offset, &function, sizeof function);
    }
    if (rc < 0)
        nio_xsk_library_close(&library);
    else
        *ret = library;
    return rc;
}

void nio_xsk_library_close(struct nio_xsk_library *library)
{
    if (library->xdp)
        (void)dlclose(library->xdp); /* nothing to do if it fails */
    if (library->bpf)
        (void)dlclose(library->bpf); /* likewise */
    *library = (struct nio_xsk_library){ 0 };
}
