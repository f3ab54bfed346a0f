/* SPDX-License-Identifier: MIT */
/* Design note.
 *
 * Entries are numbered by an atomic counter; entry i lives in pages[i / 255].  A page that is
 * missing is mapped by whoever needs it first and installed by a CAS; the loser unmaps its own.
 * An entry is filled by the thread that got its number, base first, and published by the store
 * of `bytes`; a reader skips entries with bytes == 0.  Every step ends after a bounded number of
 * instructions: wait-free.  Entries whose mapping is gone are not used again: only stack slabs
 * are unmapped before the arena, and they live almost as long.
 */
#include "alloc/extent.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc/mempolicy.h"
#include "runtime/base/assert.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"

enum { HUGE_PAGE_BYTES = 2 << 20 };

/* Maps `bytes` at a multiple of `alignment`, by mapping more and trimming both ends. */
static char *map_aligned(size_t bytes, size_t alignment)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t slack = alignment > page_bytes ? alignment - page_bytes : 0;
    size_t length;
    if (__builtin_add_overflow(bytes, slack, &length))
        return NULL;
    char *raw = mmap(NULL, length, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    char *base = (char *)nio_align_up((size_t)raw, alignment);
    size_t before = (size_t)(base - raw);
    size_t after = length - before - bytes;
    if (before > 0)
        (void)munmap(raw, before); /* fails only at the limit of mappings; then it stays, unused */
    if (after > 0)
        (void)munmap(base + bytes, after); /* as above */
    return base;
}

static void record_reason(struct nio_extents *extents, int error)
{
    /* relaxed: only one thread may win; the text is published by [EX1] */
    if (atomic_exchange_explicit(&extents->is_reason_taken, true, memory_order_relaxed))
        return;
    (void)snprintf(extents->reason_text, sizeof extents->reason_text,
                   "mbind to NUMA node %d failed (%s): memory is placed by first touch; in a "
                   "container allow mbind or add CAP_SYS_NICE",
                   extents->os_node, strerrordesc_np(-error)); /* cut at the buffer's end */
    /* [EX1] release: publishes the text.  Pairs with [EX2], the acquire in
     * nio_extents_reason(). */
    atomic_store_explicit(&extents->reason, extents->reason_text, memory_order_release);
}

const char *nio_extents_reason(const struct nio_extents *extents)
{
    /* [EX2] acquire: sees the text.  Pairs with [EX1]. */
    return atomic_load_explicit(&extents->reason, memory_order_acquire);
}

/* Returns the list's page `index`, mapped now if need be; NULL when there is no memory. */
static struct nio_extent_page *list_page(struct nio_extents *extents, uint32_t index)
{
    /* [EX3] acquire: sees a page as its mapper saw it.  Pairs with [EX4]. */
    struct nio_extent_page *page =
        atomic_load_explicit(&extents->pages[index], memory_order_acquire);
    if (page)
        return page;
    struct nio_extent_page *fresh =
        mmap(NULL, sizeof *fresh, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED)
        return NULL;
    /* [EX4] acq_rel: publishes the page, or sees the one that was installed first.  Pairs with
     * [EX3] and with itself; on failure acquire, for the same. */
    if (atomic_compare_exchange_strong_explicit(&extents->pages[index], &page, fresh,
                                                memory_order_acq_rel, memory_order_acquire))
        return fresh;
    (void)munmap(fresh, sizeof *fresh); /* cannot fail: a whole mapping */
    return page;
}

static bool remember(struct nio_extents *extents, void *base, size_t bytes)
{
    /* relaxed: the number only has to be unique; [EX5] publishes the entry */
    uint32_t number = atomic_fetch_add_explicit(&extents->count, 1, memory_order_relaxed);
    if (number >= NIO_EXTENTS_PER_PAGE * NIO_EXTENT_PAGES_MAX) {
        /* relaxed: undoes the count, so that it cannot wrap */
        atomic_fetch_sub_explicit(&extents->count, 1, memory_order_relaxed);
        return false;
    }
    struct nio_extent_page *page = list_page(extents, number / NIO_EXTENTS_PER_PAGE);
    if (!page)
        return false;
    struct nio_extent_entry *entry = &page->entries[number % NIO_EXTENTS_PER_PAGE];
    /* relaxed: published by [EX5] below */
    atomic_store_explicit(&entry->base, base, memory_order_relaxed);
    /* [EX5] release: publishes base.  Pairs with [EX6], the acquire in entry_at(). */
    atomic_store_explicit(&entry->bytes, bytes, memory_order_release);
    return true;
}

/* Binds and remembers a fresh mapping. */
static void *map_on_node(struct nio_extents *extents, size_t bytes, size_t alignment)
{
    bool is_huge = extents->use_huge_pages && bytes >= HUGE_PAGE_BYTES;
    if (is_huge && alignment < HUGE_PAGE_BYTES)
        alignment = HUGE_PAGE_BYTES;
    char *base = map_aligned(bytes, alignment);
    if (!base)
        return NULL;
    if (extents->os_node >= 0) {
        int error = nio_mempolicy_bind(base, bytes, extents->os_node, extents->is_strict);
        if (error && extents->is_strict)
            goto fail;
        if (error)
            record_reason(extents, error);
    }
    if (is_huge)
        (void)madvise(base, bytes, MADV_HUGEPAGE); /* a wish: small pages work as well */
    if (remember(extents, base, bytes))
        return base;
fail:
    (void)munmap(base, bytes); /* cannot fail: a whole mapping */
    return NULL;
}

static void *hook_alloc(extent_hooks_t *hooks, void *wanted, size_t bytes, size_t alignment,
                        bool *zero, bool *commit, unsigned arena)
{
    (void)arena;
    struct nio_extents *extents = (struct nio_extents *)(void *)hooks;
    if (wanted || (extents->asks_fault && nio_fault_now()))
        return NULL; /* an address is only wanted to grow in place, which may be refused */
    void *base = map_on_node(extents, bytes, alignment);
    if (base) {
        *zero = true;
        *commit = true;
    }
    return base;
}

static bool hook_purge(extent_hooks_t *hooks, void *base, size_t bytes, size_t offset,
                       size_t length, unsigned arena)
{
    (void)hooks;
    (void)bytes;
    (void)arena;
    return madvise((char *)base + offset, length, MADV_DONTNEED) != 0;
}

/* Extents may be cut and joined freely: only the whole list is ever unmapped. */
static bool hook_split(extent_hooks_t *hooks, void *base, size_t bytes, size_t first, size_t second,
                       bool is_committed, unsigned arena)
{
    (void)hooks;
    (void)base;
    (void)bytes;
    (void)first;
    (void)second;
    (void)is_committed;
    (void)arena;
    return false;
}

static bool hook_merge(extent_hooks_t *hooks, void *first, size_t first_bytes, void *second,
                       size_t second_bytes, bool is_committed, unsigned arena)
{
    (void)hooks;
    (void)first;
    (void)first_bytes;
    (void)second;
    (void)second_bytes;
    (void)is_committed;
    (void)arena;
    return false;
}

/* Tries the binding once, so that a refusal is known before any memory is used. */
static int probe(struct nio_extents *extents)
{
    if (extents->os_node < 0)
        return 0;
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    char *page = map_aligned(page_bytes, page_bytes);
    if (!page)
        return nio_error(-ENOMEM, "arena: no memory to try mbind with");
    int error = nio_mempolicy_bind(page, page_bytes, extents->os_node, extents->is_strict);
    (void)munmap(page, page_bytes); /* cannot fail: a whole mapping */
    if (!error)
        return 0;
    if (extents->is_strict)
        return nio_error(-EXDEV,
                         "memory cannot be bound to NUMA node %d (mbind: %s) and strict binding "
                         "was asked for; allow mbind in the container or ask for preferred",
                         extents->os_node, strerrordesc_np(-error));
    record_reason(extents, error);
    extents->os_node = -1; /* asking for every extent would only fail again */
    return 0;
}

int nio_extents_init(struct nio_extents *extents, int os_node, bool is_strict, bool use_huge_pages,
                     bool asks_fault)
{
    memset(extents, 0, sizeof *extents);
    extents->hooks.alloc = hook_alloc;
    extents->hooks.purge_forced = hook_purge;
    extents->hooks.split = hook_split;
    extents->hooks.merge = hook_merge;
    extents->os_node = os_node;
    extents->is_strict = is_strict;
    extents->use_huge_pages = use_huge_pages;
    extents->asks_fault = asks_fault;
    if (asks_fault && nio_fault_now())
        return nio_error(-ENOMEM, "arena: no memory to try mbind with");
    return probe(extents);
}

int nio_jemalloc_arena_create(struct nio_extents *extents, unsigned *ret_arena)
{
    unsigned arena;
    size_t arena_bytes = sizeof arena;
    extent_hooks_t *hooks = &extents->hooks;
    if (extents->asks_fault && nio_fault_now())
        return nio_error(-ENOMEM, "arena: no memory for a jemalloc arena");
    /* Its errors are EAGAIN when memory or arena numbers (4095) have run out. */
    if (mallctl("arenas.create", &arena, &arena_bytes, (void *)&hooks, sizeof hooks) != 0)
        return nio_error(-ENOMEM, "arena: jemalloc has no memory or no number for an arena");
    *ret_arena = arena;
    return 0;
}

void nio_jemalloc_arena_destroy(unsigned arena)
{
    char name[32];
    (void)snprintf(name, sizeof name, "arena.%u.destroy", arena); /* always fits */
    NIO_ASSERT(mallctl(name, NULL, NULL, NULL, 0) == 0);
}

void *nio_extents_map(struct nio_extents *extents, size_t bytes, size_t alignment)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    NIO_ASSERT(bytes > 0 && bytes % page_bytes == 0);
    if (nio_fault_now())
        return NULL;
    return map_on_node(extents, bytes, alignment < page_bytes ? page_bytes : alignment);
}

/* Entry `number`, or NULL when it holds no mapping. */
static struct nio_extent_entry *entry_at(struct nio_extents *extents, uint32_t number,
                                         size_t *ret_bytes)
{
    /* [EX3] acquire, as above; pairs with [EX4] */
    struct nio_extent_page *page =
        atomic_load_explicit(&extents->pages[number / NIO_EXTENTS_PER_PAGE], memory_order_acquire);
    if (!page)
        return NULL;
    struct nio_extent_entry *entry = &page->entries[number % NIO_EXTENTS_PER_PAGE];
    /* [EX6] acquire: sees base.  Pairs with [EX5]. */
    size_t bytes = atomic_load_explicit(&entry->bytes, memory_order_acquire);
    *ret_bytes = bytes;
    return bytes > 0 ? entry : NULL;
}

static uint32_t entry_count(struct nio_extents *extents)
{
    /* relaxed: an entry that appears meanwhile is either seen whole ([EX6]) or not at all */
    uint32_t count = atomic_load_explicit(&extents->count, memory_order_relaxed);
    uint32_t limit = NIO_EXTENTS_PER_PAGE * NIO_EXTENT_PAGES_MAX;
    return count < limit ? count : limit;
}

int nio_extents_for_each(struct nio_extents *extents,
                         int (*visit)(void *base, size_t bytes, void *context), void *context)
{
    uint32_t count = entry_count(extents);
    for (uint32_t i = 0; i < count; i++) {
        size_t bytes;
        struct nio_extent_entry *entry = entry_at(extents, i, &bytes);
        /* relaxed: ordered by [EX6] in entry_at() */
        int rc =
            entry ? visit(atomic_load_explicit(&entry->base, memory_order_relaxed), bytes, context)
                  : 0;
        if (rc)
            return rc;
    }
    return 0;
}

void nio_extents_unmap(struct nio_extents *extents, void *base)
{
    uint32_t count = entry_count(extents);
    for (uint32_t i = 0; i < count; i++) {
        size_t bytes;
        struct nio_extent_entry *entry = entry_at(extents, i, &bytes);
        /* relaxed: ordered by [EX6] in entry_at() */
        if (!entry || atomic_load_explicit(&entry->base, memory_order_relaxed) != base)
            continue;
        /* relaxed: a reader that still sees the old size asks the kernel about absent pages */
        atomic_store_explicit(&entry->bytes, 0, memory_order_relaxed);
        (void)munmap(base, bytes); /* cannot fail: a whole mapping */
        return;
    }
    NIO_ASSERT(!"the mapping belongs to these extents");
}

static int unmap_one(void *base, size_t bytes, void *context)
{
    (void)context;
    (void)munmap(base, bytes); /* cannot fail: a whole mapping */
    return 0;
}

void nio_extents_fini(struct nio_extents *extents)
{
    (void)nio_extents_for_each(extents, unmap_one, NULL); /* unmap_one returns 0 */
    for (unsigned i = 0; i < NIO_EXTENT_PAGES_MAX; i++) {
        /* relaxed: no other thread uses the extents any more */
        struct nio_extent_page *page =
            atomic_load_explicit(&extents->pages[i], memory_order_relaxed);
        if (page)
            (void)munmap(page, sizeof *page); /* cannot fail: a whole mapping */
    }
}
