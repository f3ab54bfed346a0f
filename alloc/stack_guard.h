/* SPDX-License-Identifier: MIT */
/* alloc/stack_guard.h: what stops a coroutine at the end of its stack, and who it was.
 *
 * Guards are page table markers where the kernel has them (6.13 and later), else protected pages.
 * A protected page splits its mapping, and a process may have only vm.max_map_count mappings
 * (65 530 by default), so all depots of the process share a budget of half of them; stacks beyond
 * it get a canary.
 *
 * Slabs of stacks are registered so that a fault address leads to the stack.  Any thread.
 */
#ifndef NIO_ALLOC_STACK_GUARD_H
#define NIO_ALLOC_STACK_GUARD_H

#include "alloc/stack.h"

enum {
    NIO_GUARD_MAPPINGS_EACH = 2, /* what one protected page costs of the budget */
    NIO_STACK_SLABS_MAX = 4096   /* that can be registered: 256 GiB of stacks */
};

/* A mapping full of stacks, as far as a fault address is concerned.  Lies at the mapping's
 * start. */
struct nio_stack_slab {
    /* constant once it is registered */
    struct nio_stack_slab *next; /* the depot's list */
    size_t bytes;
    char *area;         /* the first guard page */
    size_t stride;      /* guard page and stack */
    size_t guard_bytes; /* one page */
    uint32_t count;     /* stacks that fit */
    uint32_t carved;    /* the depot's, under its lock */
    bool is_registered; /* the depot's */
    struct nio_stack stacks[];
};

/* The best guard that the kernel has, by trying it. */
enum nio_guard nio_guard_probe(void);

/* Half of vm.max_map_count. */
uint32_t nio_guard_mappings_budget(void);

/* Puts a guard of kind `wanted`, or the next weaker one that works, on the page at `page`.
 * `mappings_max` bounds the mappings that protected pages of the whole process may take.
 * Returns what it became. */
enum nio_guard nio_guard_install(enum nio_guard wanted, char *page, size_t page_bytes,
                                 uint32_t mappings_max);
/* Gives back what protected pages took of the budget, when their slab goes. */
void nio_guard_release_mappings(uint32_t protected_pages);
/* What protected pages take of the budget now. */
uint32_t nio_guard_mappings(void);

/* Makes the slab's addresses known to nio_stack_of_guard(); false when the table is full. */
bool nio_stack_slab_register(struct nio_stack_slab *slab);
void nio_stack_slab_unregister(struct nio_stack_slab *slab);

#endif
