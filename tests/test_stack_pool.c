/* SPDX-License-Identifier: MIT */
#include "alloc/stack_pool.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <numio/error.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc/node_arena.h"
#include "alloc/stack_guard.h"
#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "runtime/base/rng.h"

enum { STACK_BYTES = 16 << 10, MILLION = 1000000 };

static struct nio_node_arena *arena;
static struct nio_stack_depot *depot;
static struct nio_stack_pool pool;

static void open_depot(struct nio_stack_depot_options options)
{
    if (options.stack_bytes == 0)
        options.stack_bytes = STACK_BYTES;
    cr_assert_eq(nio_stack_depot_create(arena, &options, &depot), 0);
    nio_stack_pool_init(&pool, depot);
}

static void close_depot(void)
{
    nio_stack_pool_fini(&pool);
    nio_stack_depot_check(depot);
    nio_stack_depot_destroy(depot);
    depot = NULL;
}

static void start(void)
{
    struct nio_node_arena_options options = { .os_node = -1 };
    cr_assert_eq(nio_node_arena_create(&options, &arena), 0);
}

static void stop(void)
{
    nio_fault_arm(0);
    if (depot)
        close_depot();
    struct nio_node_arena_stats stats;
    nio_node_arena_stats(arena, &stats);
    cr_assert_eq(stats.bytes_allocated, stats.bytes_freed);
    cr_assert_eq(nio_guard_mappings(), 0);
    nio_node_arena_destroy(arena);
}

TestSuite(stack_pool, .init = start, .fini = stop, .timeout = 100);

static struct nio_stack_depot_stats depot_stats(void)
{
    struct nio_stack_depot_stats stats;
    nio_stack_depot_stats(depot, &stats);
    return stats;
}

static size_t mapping_count(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    cr_assert_not_null(maps);
    size_t lines = 0;
    for (int c = getc(maps); c != EOF; c = getc(maps))
        lines += c == '\n';
    (void)fclose(maps); /* read only */
    return lines;
}

/* --- faults, caught on the test's own thread ---------------------------------------------- */

static sigjmp_buf fault_jump;
static const struct nio_stack *fault_stack;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    fault_stack = nio_stack_of_guard(info->si_addr);
    siglongjmp(fault_jump, 1);
}

/* Writes a byte; true when that faulted. */
__attribute__((no_sanitize("address"))) static bool faults(char *at)
{
    struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO }, before;
    cr_assert_eq(sigaction(SIGSEGV, &action, &before), 0);
    fault_stack = NULL;
    bool has_faulted = sigsetjmp(fault_jump, 1) != 0;
    if (!has_faulted)
        atomic_store_explicit((_Atomic char *)at, 1, memory_order_relaxed); /* relaxed: a poke */
    cr_assert_eq(sigaction(SIGSEGV, &before, NULL), 0);
    return has_faulted;
}

static void expect_guarded(enum nio_guard guard)
{
    open_depot((struct nio_stack_depot_options){ .guard = guard });
    struct nio_stack *stacks[20];
    int tasks[20];
    for (int i = 0; i < 20; i++) {
        stacks[i] = nio_stack_alloc(&pool);
        cr_assert_not_null(stacks[i]);
        cr_assert_eq(stacks[i]->guard, guard);
        nio_stack_set_owner(stacks[i], &tasks[i]);
    }
    for (int i = 0; i < 20; i++) {
        cr_assert_not(faults(stacks[i]->low));
        cr_assert_not(faults(stacks[i]->high - 1));
        cr_assert(faults(stacks[i]->low - 1));
        cr_assert_eq(fault_stack, stacks[i]);
        cr_assert_eq(nio_stack_owner(fault_stack), &tasks[i]);
        cr_assert_eq(nio_stack_of_guard(stacks[i]->low - sysconf(_SC_PAGESIZE)), stacks[i]);
        cr_assert_null(nio_stack_of_guard(stacks[i]->low - sysconf(_SC_PAGESIZE) - 1));
        cr_assert_null(nio_stack_of_guard(stacks[i]->low));
    }
    char *guard_byte = stacks[0]->low - 1;
    for (int i = 0; i < 20; i++)
        nio_stack_free(&pool, stacks[i]);
    cr_assert(faults(guard_byte), "a guard stays while its stack is free");
    cr_assert_null(fault_stack, "a stack without an owner did not overflow");
}

Test(stack_pool, a_marker_guard_faults_and_names_its_stack)
{
    if (nio_guard_probe() != NIO_GUARD_MARKER)
        cr_skip_test("the kernel has no MADV_GUARD_INSTALL");
    expect_guarded(NIO_GUARD_MARKER);
    cr_assert_null(nio_stack_depot_reason(depot));
}

Test(stack_pool, a_protected_guard_faults_and_names_its_stack)
{
    expect_guarded(NIO_GUARD_PROTECT);
    cr_assert_not_null(nio_stack_depot_reason(depot));
}

Test(stack_pool, an_unknown_address_is_no_guard)
{
    int here;
    open_depot((struct nio_stack_depot_options){ .guard = NIO_GUARD_AUTO });
    cr_assert_null(nio_stack_of_guard(&here));
    cr_assert_null(nio_stack_of_guard(NULL));
    struct nio_stack *stack = nio_stack_alloc(&pool);
    nio_stack_set_owner(stack, &here);
    char *guard_byte = stack->low - 1;
    cr_assert_eq(nio_stack_of_guard(guard_byte), stack);
    cr_assert_null(nio_stack_of_guard(stack), "the slab's front is no guard");
    nio_stack_free(&pool, stack);
    close_depot();
    cr_assert_null(nio_stack_of_guard(guard_byte), "a slab that is gone is forgotten");
}

/* --- canaries ------------------------------------------------------------------------------ */

Test(stack_pool, a_canary_tells_of_an_overflow_at_suspension)
{
    open_depot((struct nio_stack_depot_options){ .guard = NIO_GUARD_CANARY });
    struct nio_stack *stack = nio_stack_alloc(&pool);
    cr_assert(nio_stack_is_intact(stack));
    char saved = stack->low[-1];
    stack->low[-1] ^= 1;
    cr_assert_not(nio_stack_is_intact(stack));
    stack->low[-1] = saved;
    cr_assert(nio_stack_is_intact(stack));
    nio_stack_free(&pool, stack);
}

Test(stack_pool, freeing_a_stack_with_a_damaged_canary_aborts, .signal = SIGABRT)
{
    open_depot((struct nio_stack_depot_options){ .guard = NIO_GUARD_CANARY });
    struct nio_stack *stack = nio_stack_alloc(&pool);
    stack->low[-2000] ^= 1; /* deeper than suspension looks */
    nio_stack_free(&pool, stack);
}

Test(stack_pool, protected_pages_stay_within_the_budget_and_canaries_take_over)
{
    enum { BUDGET = 2000, COUNT = 5000 };
    static struct nio_stack *stacks[COUNT];
    size_t before = mapping_count();
    open_depot(
        (struct nio_stack_depot_options){ .guard = NIO_GUARD_PROTECT, .mappings_max = BUDGET });
    for (unsigned i = 0; i < COUNT; i++) {
        stacks[i] = nio_stack_alloc(&pool);
        cr_assert_not_null(stacks[i]);
    }
    struct nio_stack_depot_stats stats = depot_stats();
    cr_assert_eq(stats.guarded[NIO_GUARD_PROTECT], BUDGET / NIO_GUARD_MAPPINGS_EACH);
    cr_assert_geq(stats.guarded[NIO_GUARD_CANARY], COUNT - BUDGET / NIO_GUARD_MAPPINGS_EACH);
    cr_assert_eq(nio_guard_mappings(), BUDGET);
    cr_assert_leq(mapping_count(), before + BUDGET + 20);
    cr_assert_not_null(strstr(nio_stack_depot_reason(depot), "max_map_count"));
    for (unsigned i = 0; i < COUNT; i++)
        nio_stack_free(&pool, stacks[i]);
    close_depot();
    cr_assert_eq(nio_guard_mappings(), 0, "the budget is given back with the slabs");
    cr_assert_leq(mapping_count(), before + 20);
}

Test(stack_pool, two_depots_share_the_budget)
{
    struct nio_stack_depot_options options = { .stack_bytes = STACK_BYTES,
                                               .guard = NIO_GUARD_PROTECT,
                                               .mappings_max = 40 };
    open_depot(options);
    struct nio_stack_depot *other;
    cr_assert_eq(nio_stack_depot_create(arena, &options, &other), 0);
    struct nio_stack *mine[NIO_STACK_POOL_BATCH], *theirs[NIO_STACK_POOL_BATCH];
    cr_assert_eq(nio_stack_depot_take(depot, mine, NIO_STACK_POOL_BATCH), NIO_STACK_POOL_BATCH);
    cr_assert_eq(nio_stack_depot_take(other, theirs, NIO_STACK_POOL_BATCH), NIO_STACK_POOL_BATCH);
    cr_assert_null(strstr(nio_stack_depot_reason(depot), "max_map_count"));
    cr_assert_not_null(strstr(nio_stack_depot_reason(other), "max_map_count"));
    nio_stack_depot_give(depot, mine, NIO_STACK_POOL_BATCH);
    nio_stack_depot_give(other, theirs, NIO_STACK_POOL_BATCH);
    nio_stack_depot_destroy(other);
}

/* --- many ---------------------------------------------------------------------------------- */

static void take_a_million(enum nio_guard guard, size_t mappings_more)
{
    struct nio_stack **stacks = malloc(MILLION * sizeof *stacks);
    cr_assert_not_null(stacks);
    size_t before = mapping_count();
    open_depot((struct nio_stack_depot_options){ .guard = guard });
    for (unsigned i = 0; i < MILLION; i++) {
        stacks[i] = nio_stack_alloc(&pool);
        cr_assert_not_null(stacks[i]);
    }
    size_t mappings = mapping_count();
    cr_assert_leq(mappings, before + mappings_more, "%zu mappings", mappings - before);
    for (unsigned i = 1; i < MILLION; i++) /* neighbours in a slab do not overlap */
        cr_assert(stacks[i]->high <= stacks[i - 1]->low || stacks[i]->low >= stacks[i - 1]->high);
    for (unsigned i = 0; i < MILLION; i++)
        nio_stack_free(&pool, stacks[i]);
    struct nio_stack_depot_stats stats = depot_stats();
    cr_assert_geq(stats.stacks_made, MILLION);
    cr_assert_eq(stats.stacks_made, stats.stacks_warm + stats.stacks_cold + stats.stacks_out);
    cr_assert_leq(stats.stacks_out, NIO_STACK_POOL_MAX);
    close_depot();
    free(stacks);
}

Test(stack_pool, a_million_stacks_with_marker_guards_need_few_mappings)
{
    if (nio_guard_probe() != NIO_GUARD_MARKER)
        cr_skip_test("the kernel has no MADV_GUARD_INSTALL");
    take_a_million(NIO_GUARD_MARKER, 1000);
}

Test(stack_pool, more_stacks_than_the_limit_of_mappings_bears_are_had_with_protected_guards)
{
    enum { COUNT = 40000 };
    static struct nio_stack *stacks[COUNT];
    uint32_t budget = nio_guard_mappings_budget();
    cr_assert_gt(budget, 0);
    open_depot(
        (struct nio_stack_depot_options){ .guard = NIO_GUARD_PROTECT, .stack_bytes = 8 << 10 });
    for (unsigned i = 0; i < COUNT; i++) {
        stacks[i] = nio_stack_alloc(&pool);
        cr_assert_not_null(stacks[i]);
    }
    cr_assert_leq(nio_guard_mappings(), budget);
    cr_assert_leq(mapping_count(), 2 * (size_t)budget - 1000, "room is left for the program");
    for (unsigned i = 0; i < COUNT; i++)
        nio_stack_free(&pool, stacks[i]);
}

/* --- the pool's and the depot's order ------------------------------------------------------- */

Test(stack_pool, the_stack_freed_last_is_used_next)
{
    open_depot((struct nio_stack_depot_options){ .guard = NIO_GUARD_AUTO });
    struct nio_stack *a = nio_stack_alloc(&pool);
    struct nio_stack *b = nio_stack_alloc(&pool);
    nio_stack_free(&pool, a);
    nio_stack_free(&pool, b);
    cr_assert_eq(nio_stack_alloc(&pool), b);
    cr_assert_eq(nio_stack_alloc(&pool), a);
    nio_stack_free(&pool, a);
    nio_stack_free(&pool, b);
}

Test(stack_pool, a_full_pool_gives_its_coldest_half_to_the_depot)
{
    enum { COUNT = NIO_STACK_POOL_MAX + 1 };
    struct nio_stack *stacks[COUNT];
    open_depot((struct nio_stack_depot_options){ .guard = NIO_GUARD_AUTO });
    for (int i = 0; i < COUNT; i++)
        stacks[i] = nio_stack_alloc(&pool);
    nio_stack_pool_trim(&pool);
    for (int i = 0; i < COUNT; i++)
        nio_stack_free(&pool, stacks[i]);
    cr_assert_eq(pool.count, NIO_STACK_POOL_MAX / 2 + 1);
    for (int i = COUNT - 1; i >= NIO_STACK_POOL_MAX / 2; i--)
        cr_assert_eq(nio_stack_alloc(&pool), stacks[i]);
    cr_assert_eq(nio_stack_alloc(&pool), stacks[NIO_STACK_POOL_MAX / 2 - 1],
                 "the depot hands out the hottest it got");
    nio_stack_depot_check(depot);
    for (int i = COUNT - 1; i >= NIO_STACK_POOL_MAX / 2 - 1; i--)
        nio_stack_free(&pool, stacks[i]);
}

Test(stack_pool, usable_bytes_are_what_was_asked_less_the_colour)
{
    open_depot((struct nio_stack_depot_options){ .stack_bytes = 20000 });
    struct nio_stack *stacks[40];
    bool has_colours = false;
    for (int i = 0; i < 40; i++) {
        stacks[i] = nio_stack_alloc(&pool);
        cr_assert_eq((uintptr_t)stacks[i]->high % NIO_CACHELINE, 0);
        cr_assert_geq(nio_stack_bytes(stacks[i]), 20480 - 15 * 128);
        cr_assert_leq(nio_stack_bytes(stacks[i]), 20480);
        memset(stacks[i]->low, 0xee, nio_stack_bytes(stacks[i]));
        has_colours = has_colours || nio_stack_bytes(stacks[i]) != nio_stack_bytes(stacks[0]);
    }
    cr_assert(has_colours);
    for (int i = 0; i < 40; i++)
        nio_stack_free(&pool, stacks[i]);
}

Test(stack_pool, a_stack_of_another_depot_goes_home)
{
    struct nio_stack_depot *other;
    struct nio_stack_depot_options options = { .stack_bytes = STACK_BYTES };
    struct nio_stack_pool others;
    open_depot(options);
    cr_assert_eq(nio_stack_depot_create(arena, &options, &other), 0);
    nio_stack_pool_init(&others, other);
    struct nio_stack *stack = nio_stack_alloc(&others);
    uint32_t count = pool.count;
    nio_stack_free(&pool, stack);
    cr_assert_eq(pool.count, count);
    nio_stack_pool_fini(&others);
    struct nio_stack_depot_stats stats;
    nio_stack_depot_stats(other, &stats);
    cr_assert_eq(stats.stacks_out, 0);
    nio_stack_depot_check(other);
    nio_stack_depot_destroy(other);
}

Test(stack_pool, destroying_a_depot_with_a_stack_in_use_aborts, .signal = SIGABRT)
{
    open_depot((struct nio_stack_depot_options){ .guard = NIO_GUARD_AUTO });
    cr_assert_not_null(nio_stack_alloc(&pool));
    close_depot();
}

/* --- memory --------------------------------------------------------------------------------- */

static size_t resident_pages(const struct nio_stack *stack)
{
    unsigned char touched[64];
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE), count = 0;
    size_t pages = (nio_stack_bytes(stack) + page_bytes - 1) / page_bytes;
    cr_assert_leq(pages, sizeof touched);
    cr_assert_eq(mincore(stack->low, pages * page_bytes, touched), 0);
    for (size_t i = 0; i < pages; i++)
        count += touched[i] & 1;
    return count;
}

Test(stack_pool, a_fresh_stack_has_no_memory_and_an_idle_one_gives_it_back)
{
    open_depot((struct nio_stack_depot_options){ .idle_ns = 1000000000 });
    struct nio_stack *stacks[NIO_STACK_POOL_BATCH];
    for (int i = 0; i < NIO_STACK_POOL_BATCH; i++) {
        stacks[i] = nio_stack_alloc(&pool);
        cr_assert_eq(resident_pages(stacks[i]), 0);
        memset(stacks[i]->low, 1, nio_stack_bytes(stacks[i]));
    }
    for (int i = 0; i < NIO_STACK_POOL_BATCH; i++)
        nio_stack_free(&pool, stacks[i]);
    uint64_t before_ns = nio_now_ns();
    nio_stack_pool_trim(&pool);
    cr_assert_eq(nio_stack_depot_trim(depot, before_ns + 900000000), 0, "not idle for long");
    cr_assert_eq(resident_pages(stacks[0]), STACK_BYTES / 4096);
    cr_assert_eq(nio_stack_depot_trim(depot, nio_now_ns() + 1000000000), NIO_STACK_POOL_BATCH);
    cr_assert_eq(depot_stats().stacks_cold, NIO_STACK_POOL_BATCH);
    nio_stack_depot_check(depot);
    for (int i = 0; i < NIO_STACK_POOL_BATCH; i++)
        cr_assert_eq(resident_pages(stacks[i]), 0);
    char *guard_byte = stacks[0]->low - 1;
    cr_assert(stacks[0]->guard == NIO_GUARD_CANARY || faults(guard_byte), "the guard stays");
    struct nio_stack *again = nio_stack_alloc(&pool);
    cr_assert_not_null(again, "cold stacks are used again");
    cr_assert_eq(depot_stats().stacks_cold, 0);
    nio_stack_free(&pool, again);
}

Test(stack_pool, the_high_water_mark_is_the_lowest_word_written)
{
    open_depot((struct nio_stack_depot_options){ .is_measured = true });
    struct nio_stack *stack = nio_stack_alloc(&pool);
    cr_assert_eq(nio_stack_high_water(stack), 0);
    cr_assert_eq(resident_pages(stack), 0, "measuring touches nothing");
    stack->high[-1] = 1;
    cr_assert_eq(nio_stack_high_water(stack), 8);
    stack->high[-3000] = 1;
    cr_assert_eq(nio_stack_high_water(stack), 3000);
    stack->high[-9001] = 1;
    cr_assert_eq(nio_stack_high_water(stack), 9008);
    stack->low[0] = 1;
    cr_assert_eq(nio_stack_high_water(stack), nio_stack_bytes(stack));
    nio_stack_free(&pool, stack);
    struct nio_stack *next = nio_stack_alloc(&pool);
    cr_assert_eq(next, stack);
    cr_assert_eq(nio_stack_high_water(next), 0, "a measured stack starts clean");
    nio_stack_free(&pool, next);
}

Test(stack_pool, large_stacks_are_measured_over_all_their_pages)
{
    open_depot((struct nio_stack_depot_options){ .stack_bytes = 8 << 20 });
    struct nio_stack *stack = nio_stack_alloc(&pool);
    stack->high[-(5 << 20)] = 1;
    cr_assert_eq(nio_stack_high_water(stack), 5 << 20);
    nio_stack_free(&pool, stack);
}

Test(stack_pool, an_absurd_stack_size_is_refused_by_name)
{
    struct nio_stack_depot_options options = { .stack_bytes = 0 };
    struct nio_stack_depot *none = NULL;
    cr_assert_eq(nio_stack_depot_create(arena, &options, &none), -EINVAL);
    cr_assert_not_null(strstr(numio_strerror_detail(), "stack_bytes"));
    options.stack_bytes = SIZE_MAX;
    cr_assert_eq(nio_stack_depot_create(arena, &options, &none), -EINVAL);
    cr_assert_null(none);
}

Test(stack_pool, every_allocation_that_fails_leaves_the_pool_whole)
{
    for (long nth = 1;; nth++) {
        struct nio_stack_depot_options options = { .stack_bytes = STACK_BYTES,
                                                   .slab_bytes = 1 << 20 };
        struct nio_stack *stacks[200];
        unsigned got = 0;
        nio_fault_arm(nth);
        int error = nio_stack_depot_create(arena, &options, &depot);
        cr_assert(error == 0 || error == -ENOMEM);
        for (unsigned i = 0; error == 0 && i < 200; i++) {
            if (i == 0)
                nio_stack_pool_init(&pool, depot);
            struct nio_stack *stack = nio_stack_alloc(&pool);
            if (stack)
                stacks[got++] = stack;
        }
        bool has_struck = nio_fault_struck();
        nio_fault_arm(0);
        cr_assert(got == 200 || has_struck);
        for (unsigned i = 0; i < got; i++)
            nio_stack_free(&pool, stacks[i]);
        if (error == 0)
            close_depot();
        depot = NULL;
        if (!has_struck)
            break;
        cr_assert_lt(nth, 1000);
    }
}

/* --- random operations against a model ------------------------------------------------------ */

Test(stack_pool, random_operations_never_hand_out_a_stack_twice)
{
    enum { LIVE_MAX = 600, STEPS = 60000 };
    static struct nio_stack *live[LIVE_MAX];
    const char *text = getenv("NUMIO_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 99;
    fprintf(stderr, "NUMIO_TEST_SEED=%llu\n", (unsigned long long)seed);
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    open_depot((struct nio_stack_depot_options){ .slab_bytes = 1 << 20, .idle_ns = 50000 });
    unsigned count = 0;
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned up = step / 3000 % 2 ? 30 : 70;
        bool grows = nio_rng_below(&rng, 100) < up;
        if (count == 0 || (grows && count < LIVE_MAX)) {
            struct nio_stack *stack = nio_stack_alloc(&pool);
            cr_assert_not_null(stack);
            cr_assert_null(nio_stack_owner(stack), "nobody has it");
            nio_stack_set_owner(stack, stack);
            *(uint64_t *)(void *)(stack->high - 8) = (uintptr_t)stack;
            live[count++] = stack;
            continue;
        }
        unsigned index = nio_rng_below(&rng, count);
        struct nio_stack *stack = live[index];
        live[index] = live[--count];
        cr_assert_eq(nio_stack_owner(stack), stack);
        cr_assert_eq(*(uint64_t *)(void *)(stack->high - 8), (uintptr_t)stack);
        if (nio_rng_below(&rng, 3) == 0) {
            nio_stack_reset(stack);
            nio_stack_depot_give_remote(stack);
        } else {
            nio_stack_free(&pool, stack);
        }
        if (step % 500 == 0) {
            (void)nio_stack_depot_trim(depot, nio_now_ns()); /* whatever has aged */
            nio_stack_depot_check(depot);
            cr_assert_eq(depot_stats().stacks_out, count + pool.count);
        }
    }
    while (count > 0)
        nio_stack_free(&pool, live[--count]);
}

/* --- threads --------------------------------------------------------------------------------- */

struct churn {
    struct nio_stack_depot *depot;
    uint64_t seed;
    bool has_failed;
};

static void *churn_run(void *arg)
{
    struct churn *churn = arg;
    struct nio_stack_pool mine;
    struct nio_stack *held[100];
    struct nio_rng rng;
    unsigned count = 0;
    nio_rng_init(&rng, &churn->seed);
    nio_stack_pool_init(&mine, churn->depot);
    for (unsigned i = 0; i < 50000 && !churn->has_failed; i++) {
        if (count < 100 && (count == 0 || nio_rng_below(&rng, 2))) {
            struct nio_stack *stack = nio_stack_alloc(&mine);
            if (!stack || nio_stack_owner(stack))
                churn->has_failed = true;
            else
                nio_stack_set_owner(held[count++] = stack, churn);
            continue;
        }
        struct nio_stack *stack = held[--count];
        if (nio_stack_owner(stack) != churn)
            churn->has_failed = true;
        nio_stack_free(&mine, stack);
    }
    while (count > 0)
        nio_stack_free(&mine, held[--count]);
    nio_stack_pool_fini(&mine);
    return NULL;
}

Test(stack_pool, threads_share_a_depot)
{
    open_depot((struct nio_stack_depot_options){ .slab_bytes = 1 << 20, .idle_ns = 1000 });
    struct churn churns[4];
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++) {
        churns[i] = (struct churn){ .depot = depot, .seed = i };
        cr_assert_eq(pthread_create(&threads[i], NULL, churn_run, &churns[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_not(churns[i].has_failed);
    nio_stack_depot_check(depot);
    cr_assert_eq(depot_stats().stacks_out, pool.count);
}
