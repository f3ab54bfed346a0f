/* SPDX-License-Identifier: MIT */
/* Design note.
 *
 * The table of slabs is read in a signal handler, so it is a fixed array of (base, bytes) without
 * a lock.  An entry is claimed by a CAS of base from 0, then published by the store of bytes; it
 * is withdrawn in the opposite order.  A reader takes bytes, then base, and looks into the slab
 * only after the address matched: that is safe because whoever faulted in a guard is running on a
 * stack of that slab, so that it cannot go away meanwhile.
 *
 * The budget of mappings is one counter for the process, since the limit is the process's.
 */
#include "alloc/stack_guard.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/base/assert.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

enum { MAP_COUNT_DEFAULT = 65530, HIGH_WATER_PAGES = 256 };

struct slab_entry {
    _Atomic uintptr_t base; /* 0: the entry is free */
    _Atomic size_t bytes;   /* 0: not published */
};

/* The process's only table and budget. */
static struct slab_entry slab_table[NIO_STACK_SLABS_MAX];
static _Atomic uint32_t slab_table_used; /* no entry from here on was ever used */
static _Atomic uint32_t protected_mappings;

enum nio_guard nio_guard_probe(void)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return NIO_GUARD_PROTECT; /* works on every kernel */
    bool has_markers = madvise(page, page_bytes, MADV_GUARD_INSTALL) == 0;
    (void)munmap(page, page_bytes); /* cannot fail: a whole mapping */
    return has_markers ? NIO_GUARD_MARKER : NIO_GUARD_PROTECT;
}

uint32_t nio_guard_mappings_budget(void)
{
    unsigned long limit = MAP_COUNT_DEFAULT;
    char text[32];
    int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t length = read(fd, text, sizeof text - 1);
        (void)close(fd); /* read only */
        if (length > 0) {
            text[length] = '\0';
            limit = strtoul(text, NULL, 10);
        }
    }
    return limit / 2 < UINT32_MAX ? (uint32_t)(limit / 2) : UINT32_MAX;
}

static bool take_mappings(uint32_t mappings_max)
{
    /* relaxed, all: a counter that publishes nothing */
    uint32_t taken = atomic_fetch_add_explicit(&protected_mappings, NIO_GUARD_MAPPINGS_EACH,
                                               memory_order_relaxed);
    if (taken + NIO_GUARD_MAPPINGS_EACH <= mappings_max)
        return true;
    nio_guard_release_mappings(1);
    return false;
}

void nio_guard_release_mappings(uint32_t protected_pages)
{
    /* relaxed: as in take_mappings() */
    atomic_fetch_sub_explicit(&protected_mappings, protected_pages * NIO_GUARD_MAPPINGS_EACH,
                              memory_order_relaxed);
}

uint32_t nio_guard_mappings(void)
{
    /* relaxed: as in take_mappings() */
    return atomic_load_explicit(&protected_mappings, memory_order_relaxed);
}

/* The word that belongs at `at`: it depends on the address, so that a copied block does not
 * pass. */
static uint64_t canary_word(const uint64_t *at)
{
    return (uintptr_t)at ^ 0x5ca1ab1e0ddba11au;
}

static void canary_write(char *page, size_t page_bytes)
{
    uint64_t *words = (uint64_t *)(void *)page;
    for (size_t i = 0; i < page_bytes / sizeof *words; i++)
        words[i] = canary_word(&words[i]);
}

bool nio_stack_canary_is_intact(const struct nio_stack *stack, size_t bytes)
{
    const uint64_t *end = (const uint64_t *)(const void *)stack->low;
    for (const uint64_t *at = end - bytes / sizeof *end; at < end; at++)
        if (*at != canary_word(at))
            return false;
    return true;
}

enum nio_guard nio_guard_install(enum nio_guard wanted, char *page, size_t page_bytes,
                                 uint32_t mappings_max)
{
    if (wanted == NIO_GUARD_MARKER && madvise(page, page_bytes, MADV_GUARD_INSTALL) == 0)
        return NIO_GUARD_MARKER;
    if (wanted != NIO_GUARD_CANARY && take_mappings(mappings_max)) {
        if (mprotect(page, page_bytes, PROT_NONE) == 0)
            return NIO_GUARD_PROTECT;
        nio_guard_release_mappings(1); /* the program itself has used up the mappings */
    }
    canary_write(page, page_bytes);
    return NIO_GUARD_CANARY;
}

bool nio_stack_slab_register(struct nio_stack_slab *slab)
{
    for (uint32_t i = 0; i < NIO_STACK_SLABS_MAX; i++) {
        struct slab_entry *entry = &slab_table[i];
        uintptr_t expected = 0;
        /* [SG1] acquire: after the withdrawal of the entry's last user.  Pairs with [SG2].
         * relaxed on failure: the entry is taken. */
        if (!atomic_compare_exchange_strong_explicit(&entry->base, &expected, (uintptr_t)slab,
                                                     memory_order_acquire, memory_order_relaxed))
            continue;
        /* [SG3] release: publishes base and the slab.  Pairs with [SG4]. */
        atomic_store_explicit(&entry->bytes, slab->bytes, memory_order_release);
        /* relaxed: a bound for the scan; the faulting thread got its stack through synchronised
         * hands after this */
        uint32_t used = atomic_load_explicit(&slab_table_used, memory_order_relaxed);
        /* relaxed, both: as above */
        while (used < i + 1 &&
               !atomic_compare_exchange_weak_explicit(&slab_table_used, &used, i + 1,
                                                      memory_order_relaxed, memory_order_relaxed))
            continue;
        return true;
    }
    return false;
}

void nio_stack_slab_unregister(struct nio_stack_slab *slab)
{
    for (uint32_t i = 0; i < NIO_STACK_SLABS_MAX; i++) {
        struct slab_entry *entry = &slab_table[i];
        /* relaxed: the entry is ours if it matches, and nobody else changes it then */
        if (atomic_load_explicit(&entry->base, memory_order_relaxed) != (uintptr_t)slab)
            continue;
        /* relaxed: ordered before the next user's publication by [SG2] and [SG1] */
        atomic_store_explicit(&entry->bytes, 0, memory_order_relaxed);
        /* [SG2] release: the entry is withdrawn before it is free.  Pairs with [SG1]. */
        atomic_store_explicit(&entry->base, 0, memory_order_release);
        return;
    }
    NIO_ASSERT(!"the slab was registered");
}

const struct nio_stack *nio_stack_of_guard(const void *fault_address)
{
    uintptr_t address = (uintptr_t)fault_address;
    /* relaxed: see nio_stack_slab_register() */
    uint32_t used = atomic_load_explicit(&slab_table_used, memory_order_relaxed);
    for (uint32_t i = 0; i < used; i++) {
        struct slab_entry *entry = &slab_table[i];
        /* [SG4] acquire: sees base and the slab.  Pairs with [SG3]. */
        size_t bytes = atomic_load_explicit(&entry->bytes, memory_order_acquire);
        /* relaxed: ordered by [SG4] */
        uintptr_t base = atomic_load_explicit(&entry->base, memory_order_relaxed);
        if (bytes == 0 || base == 0 || address < base || address - base >= bytes)
            continue;
        const struct nio_stack_slab *slab = (const struct nio_stack_slab *)base;
        if (address < (uintptr_t)slab->area)
            return NULL;
        size_t offset = address - (uintptr_t)slab->area;
        size_t index = offset / slab->stride;
        if (index >= slab->count || offset % slab->stride >= slab->guard_bytes)
            return NULL;
        const struct nio_stack *stack = &slab->stacks[index];
        return stack->guard != 0 && nio_stack_owner(stack) ? stack : NULL;
    }
    return NULL;
}

/* The lowest word in [from, to) that is not 0, or `to`.  Not instrumented: frames of coroutines
 * leave poisoned red zones behind. */
__attribute__((no_sanitize("address"))) static const char *first_used(const char *from,
                                                                      const char *to)
{
    const uint64_t *at = (const uint64_t *)(const void *)from;
    const uint64_t *end = (const uint64_t *)(const void *)to;
    while (at < end && *at == 0)
        at++;
    return (const char *)at;
}

size_t nio_stack_high_water(const struct nio_stack *stack)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char touched[HIGH_WATER_PAGES];
    const char *at = stack->low; /* on a page boundary, as the guard page ends there */
    while (at < stack->high) {   /* bounded by the stack's pages */
        size_t pages = ((size_t)(stack->high - at) + page_bytes - 1) / page_bytes;
        if (pages > HIGH_WATER_PAGES)
            pages = HIGH_WATER_PAGES;
        bool is_known = mincore((void *)(uintptr_t)at, pages * page_bytes, touched) == 0;
        for (size_t i = 0; i < pages; i++, at += page_bytes) {
            if (is_known && !(touched[i] & 1))
                continue;
            const char *end = at + page_bytes < stack->high ? at + page_bytes : stack->high;
            const char *used = first_used(at, end);
            if (used < end)
                return (size_t)(stack->high - used);
        }
    }
    return 0;
}
