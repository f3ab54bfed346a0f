/* SPDX-License-Identifier: MIT */
/* alloc/extent.h: where an arena's address space comes from: mmap, bound to one node.
 *
 * A jemalloc arena gets its extents through the hooks here.  Each is a private anonymous mapping
 * with the node's memory policy on it, and each is remembered, so that an audit can ask the kernel
 * about every page.  Extents are never given back one by one: jemalloc retains the addresses and
 * returns the pages (MADV_DONTNEED), hence the policy stays, the list stays short (an arena's
 * extents grow geometrically) and nio_extents_fini() unmaps everything at once.
 *
 * The hooks run inside malloc, under jemalloc's locks and possibly under locks of numio or of the
 * program.  So they take no lock and call no allocator: the list is append-only and lock-free.
 * Any thread.  This header is for alloc/ only: it shows jemalloc's types.
 */
#ifndef NIO_ALLOC_EXTENT_H
#define NIO_ALLOC_EXTENT_H

#include <jemalloc/jemalloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/compiler.h"

enum {
    NIO_EXTENTS_PER_PAGE = 255,
    NIO_EXTENT_PAGES_MAX = 64, /* 16 320 mappings; the one after that fails like a full memory */
    NIO_EXTENT_REASON_BYTES = 192
};

/* bytes == 0: the entry is not published yet, or its mapping is gone. */
struct nio_extent_entry {
    void *_Atomic base;
    _Atomic size_t bytes;
};

struct nio_extent_page {
    struct nio_extent_entry entries[NIO_EXTENTS_PER_PAGE];
};

struct nio_extents {
    /* constant after init */
    extent_hooks_t hooks; /* first: the hooks get its address and find the rest by it */
    int os_node;          /* -1: no binding */
    bool is_strict;
    bool use_huge_pages;
    bool asks_fault; /* mappings made by the hooks can be made to fail by tests */
    /* any thread, RMW */
    atomic_bool is_reason_taken;
    const char *_Atomic reason; /* NULL, or reason_text once it is complete */
    char reason_text[NIO_EXTENT_REASON_BYTES];
    _Atomic uint32_t count; /* entries handed out, published or not */
    struct nio_extent_page *_Atomic pages[NIO_EXTENT_PAGES_MAX];
};

/* Prepares the hooks and tries the binding on one page.
 * Errors: -ENOMEM; -EXDEV `is_strict` and the kernel refuses to bind.  Without `is_strict` a
 *         refusal is recorded as the reason and memory is placed by first touch. */
NIO_NODISCARD int nio_extents_init(struct nio_extents *extents, int os_node, bool is_strict,
                                   bool use_huge_pages, bool asks_fault);
/* Unmaps everything that is still mapped. */
void nio_extents_fini(struct nio_extents *extents);

/* Maps zeroed memory on the node, remembered until it is unmapped.  NULL when there is none. */
void *nio_extents_map(struct nio_extents *extents, size_t bytes, size_t alignment);
/* Unmaps what nio_extents_map() gave. */
void nio_extents_unmap(struct nio_extents *extents, void *base);

/* Makes a jemalloc arena that lives in these extents.
 * Errors: -ENOMEM. */
NIO_NODISCARD int nio_jemalloc_arena_create(struct nio_extents *extents, unsigned *ret_arena);
/* Destroys it; nothing allocated from it may be used any more, no thread may be set to it. */
void nio_jemalloc_arena_destroy(unsigned arena);

/* NULL, or why memory is not bound. */
const char *nio_extents_reason(const struct nio_extents *extents);

/* Calls `visit` for each mapping until it returns non-zero, which is then returned. */
int nio_extents_for_each(struct nio_extents *extents,
                         int (*visit)(void *base, size_t bytes, void *context), void *context);

#endif
