/* SPDX-License-Identifier: MIT */
/* Design note.
 *
 * Under the lock (rank ALLOC): the warm list, the cold list, the slabs with their `carved`, the
 * counters.  Outside of it: system calls.  A range of a slab is reserved under the lock and its
 * guards are made after; a slab is mapped without the lock and added with it (two threads that
 * run out together may both map one: both are used).
 *
 * The warm list is ordered by time: stacks come in and go out at the newest end, trimming takes
 * from the oldest.  The cold list is a plain stack.  `returned` [BM1, BM2] is emptied into the warm
 * list by whoever holds the lock.
 *
 * Shutdown: after the pools are finished and no coroutine lives; destroy() asserts it.
 */
#include "alloc/stack_depot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc/poison.h"
#include "alloc/stack_guard.h"
#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/lock.h"
#include "runtime/base/mem.h"

enum {
    SLAB_BYTES = 64 << 20,
    SLAB_STACKS_MIN = 4,
    SHRINK_TRIES = 3, /* a slab that cannot be mapped is tried at an eighth, and so on */
    TRIM_BATCH = 32,
    COLOURS = 16,
    COLOUR_BYTES = 128
};
#define IDLE_NS_DEFAULT UINT64_C(1000000000)
#define STACK_BYTES_MAX ((size_t)1 << 30)

struct stack_list {
    struct nio_stack *newest, *oldest;
    uint64_t count;
};

struct nio_stack_depot {
    /* constant after create */
    struct nio_node_arena *arena;
    size_t stack_bytes, page_bytes, slab_bytes;
    uint64_t idle_ns;
    enum nio_guard guard;
    bool is_measured;
    uint32_t mappings_max;
    /* under the lock */
    NIO_CACHE_ALIGNED struct nio_lock lock;
    struct stack_list warm;
    struct nio_stack *cold;
    uint64_t cold_count;
    uint64_t out;                 /* stacks that pools and users hold, with those in `returned` */
    struct nio_stack_slab *slabs; /* newest first */
    uint64_t slab_count;
    /* any thread, RMW */
    NIO_CACHE_ALIGNED struct nio_mpsc returned;
    _Atomic uint64_t guarded[NIO_GUARD_CANARY + 1];
    atomic_bool has_hidden_slab; /* the table of slabs is full */
};

static struct nio_stack *stack_of(struct nio_mpsc_node *node)
{
    return NIO_CONTAINER_OF(node, struct nio_stack, link);
}

static struct nio_stack *older(const struct nio_stack *stack)
{
    return stack->link.next ? stack_of(stack->link.next) : NULL;
}

static void warm_push(struct stack_list *list, struct nio_stack *stack, uint64_t now_ns)
{
    /* Clocks are read outside of the lock; the list is kept in order nevertheless. */
    bool is_late = list->newest && list->newest->idle_since_ns > now_ns;
    stack->idle_since_ns = is_late ? list->newest->idle_since_ns : now_ns;
    stack->before = NULL;
    stack->link.next = list->newest ? &list->newest->link : NULL;
    if (list->newest)
        list->newest->before = stack;
    else
        list->oldest = stack;
    list->newest = stack;
    list->count++;
}

static struct nio_stack *warm_pop_newest(struct stack_list *list)
{
    struct nio_stack *stack = list->newest;
    if (!stack)
        return NULL;
    list->newest = older(stack);
    if (list->newest)
        list->newest->before = NULL;
    else
        list->oldest = NULL;
    list->count--;
    return stack;
}

static struct nio_stack *warm_pop_oldest(struct stack_list *list)
{
    struct nio_stack *stack = list->oldest;
    list->oldest = stack->before;
    if (list->oldest)
        list->oldest->link.next = NULL;
    else
        list->newest = NULL;
    list->count--;
    return stack;
}

int nio_stack_depot_create(struct nio_node_arena *arena,
                           const struct nio_stack_depot_options *options,
                           struct nio_stack_depot **ret_depot)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    if (options->stack_bytes == 0 || options->stack_bytes > STACK_BYTES_MAX)
        return nio_error(-EINVAL, "stack_bytes: %zu is not between 1 and %zu", options->stack_bytes,
                         STACK_BYTES_MAX);
    struct nio_stack_depot *depot = nio_zalloc(sizeof *depot);
    if (!depot)
        return nio_error(-ENOMEM, "stacks: no memory for a depot");
    depot->arena = arena;
    depot->page_bytes = page_bytes;
    depot->stack_bytes = nio_align_up(options->stack_bytes, page_bytes);
    if (depot->stack_bytes < 2 * page_bytes)
        depot->stack_bytes = 2 * page_bytes;
    depot->slab_bytes =
        nio_align_up(options->slab_bytes ? options->slab_bytes : SLAB_BYTES, page_bytes);
    depot->idle_ns = options->idle_ns ? options->idle_ns : IDLE_NS_DEFAULT;
    depot->guard = options->guard == NIO_GUARD_AUTO ? nio_guard_probe() : options->guard;
    depot->is_measured = options->is_measured;
    depot->mappings_max =
        options->mappings_max ? options->mappings_max : nio_guard_mappings_budget();
    nio_lock_init(&depot->lock, NIO_RANK_ALLOC);
    nio_mpsc_init(&depot->returned);
    *ret_depot = depot;
    return 0;
}

/* Maps a slab for as many stacks as fit, fewer when memory or addresses are short. */
static struct nio_stack_slab *slab_create(struct nio_stack_depot *depot)
{
    size_t stride = depot->page_bytes + depot->stack_bytes;
    size_t fits = depot->slab_bytes / (stride + sizeof(struct nio_stack));
    size_t count = fits > SLAB_STACKS_MIN ? fits : SLAB_STACKS_MIN;
    struct nio_stack_slab *slab = NULL;
    size_t front = 0, bytes = 0;
    for (int tries = 0; !slab && tries < SHRINK_TRIES && count > 0; tries++) {
        if (tries > 0)
            count = (count + 7) / 8;
        front = nio_align_up(sizeof *slab + count * sizeof slab->stacks[0], depot->page_bytes);
        bytes = front + count * stride;
        slab = nio_node_arena_map(depot->arena, bytes, depot->page_bytes);
    }
    if (!slab)
        return NULL;
    slab->bytes = bytes;
    slab->area = (char *)slab + front;
    slab->stride = stride;
    slab->guard_bytes = depot->page_bytes;
    slab->count = (uint32_t)count;
    /* A huge page would back a hundred stacks when the first is touched.  Where it is refused the
     * kernel has no huge pages. */
    (void)madvise(slab, bytes, MADV_NOHUGEPAGE);
    slab->is_registered = nio_stack_slab_register(slab);
    if (!slab->is_registered)
        /* relaxed: a flag for the status */
        atomic_store_explicit(&depot->has_hidden_slab, true, memory_order_relaxed);
    return slab;
}

static void slab_destroy(struct nio_stack_depot *depot, struct nio_stack_slab *slab)
{
    uint32_t protected_pages = 0;
    for (uint32_t i = 0; i < slab->carved; i++)
        protected_pages += slab->stacks[i].guard == NIO_GUARD_PROTECT;
    nio_unpoison(slab, slab->bytes);
    if (slab->is_registered)
        nio_stack_slab_unregister(slab);
    nio_node_arena_unmap(depot->arena, slab, slab->bytes);
    nio_guard_release_mappings(protected_pages);
}

/* Makes stack `index` of a slab; the caller has reserved it. */
static struct nio_stack *stack_make(struct nio_stack_depot *depot, struct nio_stack_slab *slab,
                                    uint32_t index)
{
    struct nio_stack *stack = &slab->stacks[index];
    char *page = slab->area + index * slab->stride;
    stack->low = page + slab->guard_bytes;
    stack->high = page + slab->stride - index % COLOURS * COLOUR_BYTES;
    stack->home = depot;
    stack->guard = nio_guard_install(depot->guard, page, slab->guard_bytes, depot->mappings_max);
    stack->needs_reset = depot->is_measured || stack->guard == NIO_GUARD_CANARY;
    /* relaxed: a statistic */
    atomic_fetch_add_explicit(&depot->guarded[stack->guard], 1, memory_order_relaxed);
    return stack;
}

static void collect_returned_locked(struct nio_stack_depot *depot)
{
    struct nio_mpsc_node *node = nio_mpsc_take(&depot->returned);
    uint64_t now_ns = node ? nio_now_ns() : 0;
    while (node) { /* bounded by the stacks that were out */
        struct nio_mpsc_node *next = node->next;
        warm_push(&depot->warm, stack_of(node), now_ns);
        depot->out--;
        node = next;
    }
}

/* Takes stacks that were used before; the hottest ends up last. */
static unsigned take_used_locked(struct nio_stack_depot *depot, struct nio_stack **stacks,
                                 unsigned count)
{
    unsigned got = 0;
    while (got < count) {
        struct nio_stack *stack = warm_pop_newest(&depot->warm);
        if (!stack && depot->cold) {
            stack = depot->cold;
            depot->cold = older(stack);
            depot->cold_count--;
        }
        if (!stack)
            break;
        stacks[got++] = stack;
    }
    for (unsigned i = 0; i < got / 2; i++) {
        struct nio_stack *other = stacks[got - 1 - i];
        stacks[got - 1 - i] = stacks[i];
        stacks[i] = other;
    }
    return got;
}

/* Reserves up to `count` stacks of a slab that is not all cut. */
static struct nio_stack_slab *reserve_locked(struct nio_stack_depot *depot, unsigned count,
                                             uint32_t *ret_first, uint32_t *ret_count)
{
    struct nio_stack_slab *slab = depot->slabs;
    while (slab && slab->carved == slab->count) /* mostly the first one has room */
        slab = slab->next;
    if (!slab)
        return NULL;
    uint32_t left = slab->count - slab->carved;
    *ret_first = slab->carved;
    *ret_count = left < count ? left : count;
    slab->carved += *ret_count;
    return slab;
}

unsigned nio_stack_depot_take(struct nio_stack_depot *depot, struct nio_stack **stacks,
                              unsigned count)
{
    struct nio_stack_slab *fresh = NULL;
    for (int tries = 0; tries < 2; tries++) {
        uint32_t first = 0, reserved = 0;
        nio_lock_acquire(&depot->lock);
        if (fresh) {
            fresh->next = depot->slabs;
            depot->slabs = fresh;
            depot->slab_count++;
        }
        collect_returned_locked(depot);
        unsigned got = take_used_locked(depot, stacks, count);
        struct nio_stack_slab *slab =
            got == 0 ? reserve_locked(depot, count, &first, &reserved) : NULL;
        depot->out += got + reserved;
        nio_lock_release(&depot->lock);
        for (uint32_t i = 0; i < reserved; i++)
            stacks[reserved - 1 - i] = stack_make(depot, slab, first + i);
        if (got + reserved > 0)
            return got + reserved;
        fresh = slab_create(depot);
        if (!fresh)
            return 0;
    }
    return 0;
}

NIO_NOINLINE void nio_stack_reset_slow(struct nio_stack *stack)
{
    struct nio_stack_depot *depot = stack->home;
    if (stack->guard == NIO_GUARD_CANARY)
        NIO_ASSERT(nio_stack_canary_is_intact(stack, depot->page_bytes)); /* stack overflow */
    if (depot->is_measured) {
        size_t used = nio_stack_high_water(stack);
        memset(stack->high - used, 0, used);
    }
}

void nio_stack_depot_give(struct nio_stack_depot *depot, struct nio_stack **stacks, unsigned count)
{
    uint64_t now_ns = nio_now_ns();
    nio_lock_acquire(&depot->lock);
    collect_returned_locked(depot);
    for (unsigned i = 0; i < count; i++) {
        NIO_DEBUG_ASSERT(stacks[i]->home == depot);
        warm_push(&depot->warm, stacks[i], now_ns);
    }
    depot->out -= count;
    nio_lock_release(&depot->lock);
    (void)nio_stack_depot_trim(depot, now_ns); /* a few at a time, whatever has aged */
}

void nio_stack_depot_give_remote(struct nio_stack *stack)
{
    (void)nio_mpsc_push(&stack->home->returned, &stack->link); /* nobody waits for it */
}

static unsigned detach_idle_locked(struct nio_stack_depot *depot, uint64_t now_ns,
                                   struct nio_stack **stacks)
{
    unsigned count = 0;
    struct stack_list *warm = &depot->warm;
    while (count < TRIM_BATCH && warm->oldest &&
           now_ns >= warm->oldest->idle_since_ns + depot->idle_ns)
        stacks[count++] = warm_pop_oldest(warm);
    depot->out += count;
    return count;
}

unsigned nio_stack_depot_trim(struct nio_stack_depot *depot, uint64_t now_ns)
{
    struct nio_stack *stacks[TRIM_BATCH];
    nio_lock_acquire(&depot->lock);
    collect_returned_locked(depot);
    unsigned count = detach_idle_locked(depot, now_ns, stacks);
    nio_lock_release(&depot->lock);
    if (count == 0)
        return 0;
    for (unsigned i = 0; i < count; i++) {
        char *low = stacks[i]->low;
        /* Fails on locked memory, and then the memory just stays. */
        (void)madvise(low, depot->stack_bytes, MADV_DONTNEED);
    }
    nio_lock_acquire(&depot->lock);
    for (unsigned i = 0; i < count; i++) {
        stacks[i]->link.next = depot->cold ? &depot->cold->link : NULL;
        depot->cold = stacks[i];
    }
    depot->cold_count += count;
    depot->out -= count;
    nio_lock_release(&depot->lock);
    return count;
}

enum nio_guard nio_stack_depot_guard(const struct nio_stack_depot *depot)
{
    return depot->guard;
}

const char *nio_stack_depot_reason(const struct nio_stack_depot *depot)
{
    /* relaxed, all: statistics, read whenever */
    if (atomic_load_explicit(&depot->has_hidden_slab, memory_order_relaxed))
        return "too many stacks for the table of guards: an overflow cannot be named everywhere";
    /* relaxed: as above */
    bool has_canary =
        atomic_load_explicit(&depot->guarded[NIO_GUARD_CANARY], memory_order_relaxed) > 0;
    if (has_canary && depot->guard != NIO_GUARD_CANARY)
        return "guard pages would use up vm.max_map_count: further stacks are checked by a "
               "pattern; raise vm.max_map_count, or use Linux 6.13 or later";
    if (depot->guard == NIO_GUARD_CANARY)
        return "stacks have no guard page, as configured: they are checked by a pattern";
    if (depot->guard == NIO_GUARD_PROTECT)
        return "the kernel has no MADV_GUARD_INSTALL (Linux 6.13): guard pages by mprotect";
    return NULL;
}

void nio_stack_depot_stats(struct nio_stack_depot *depot, struct nio_stack_depot_stats *ret_stats)
{
    memset(ret_stats, 0, sizeof *ret_stats);
    for (int i = 0; i <= NIO_GUARD_CANARY; i++) {
        /* relaxed: a statistic */
        ret_stats->guarded[i] = atomic_load_explicit(&depot->guarded[i], memory_order_relaxed);
        ret_stats->stacks_made += ret_stats->guarded[i];
    }
    nio_lock_acquire(&depot->lock);
    collect_returned_locked(depot);
    ret_stats->stacks_out = depot->out;
    ret_stats->stacks_warm = depot->warm.count;
    ret_stats->stacks_cold = depot->cold_count;
    ret_stats->slabs = depot->slab_count;
    nio_lock_release(&depot->lock);
}

void nio_stack_depot_check(struct nio_stack_depot *depot)
{
    nio_lock_acquire(&depot->lock);
    uint64_t warm = 0, cold = 0, carved = 0, slabs = 0;
    const struct nio_stack *newer = NULL;
    for (const struct nio_stack *s = depot->warm.newest; s; newer = s, s = older(s), warm++) {
        NIO_ASSERT(s->home == depot && s->before == newer && !nio_stack_owner(s));
        NIO_ASSERT(!newer || newer->idle_since_ns >= s->idle_since_ns);
    }
    NIO_ASSERT(depot->warm.oldest == newer && depot->warm.count == warm);
    for (const struct nio_stack *s = depot->cold; s; s = older(s), cold++)
        NIO_ASSERT(s->home == depot && !nio_stack_owner(s));
    NIO_ASSERT(depot->cold_count == cold);
    for (const struct nio_stack_slab *slab = depot->slabs; slab; slab = slab->next, slabs++) {
        NIO_ASSERT(slab->carved <= slab->count);
        carved += slab->carved;
    }
    NIO_ASSERT(slabs == depot->slab_count);
    NIO_ASSERT(carved == warm + cold + depot->out);
    nio_lock_release(&depot->lock);
}

void nio_stack_depot_destroy(struct nio_stack_depot *depot)
{
    if (!depot)
        return;
    nio_lock_acquire(&depot->lock);
    collect_returned_locked(depot);
    uint64_t out = depot->out;
    nio_lock_release(&depot->lock);
    NIO_ASSERT(out == 0);
    while (depot->slabs) { /* bounded by the slabs there are */
        struct nio_stack_slab *slab = depot->slabs;
        depot->slabs = slab->next;
        slab_destroy(depot, slab);
    }
    nio_free(depot);
}
