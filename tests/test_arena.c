/* SPDX-License-Identifier: MIT */
#include "alloc/node_arena.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <numio/error.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "alloc/arena_audit.h"
#include "alloc/mempolicy.h"
#include "alloc/poison.h"
#include "alloc/slab.h"
#include "runtime/base/mem.h"
#include "runtime/base/rng.h"

TestSuite(arena, .timeout = 60);

static struct nio_node_arena *create(struct nio_node_arena_options options)
{
    struct nio_node_arena *arena = NULL;
    cr_assert_eq(nio_node_arena_create(&options, &arena), 0, "%s", numio_strerror_detail());
    return arena;
}

/* The node of the first page that this process touched: one that surely has memory. */
static int some_node(void)
{
    int node = -1;
    void *page = (void *)((uintptr_t)&node & ~(uintptr_t)4095);
    return nio_mempolicy_page_nodes(&page, 1, &node) == 0 && node >= 0 ? node : 0;
}

static bool may_bind(void)
{
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ some_node(), 0, 0 });
    bool may = nio_node_arena_reason(arena) == NULL;
    nio_node_arena_destroy(arena);
    return may;
}

static struct numio_arena_audit audit_of(struct nio_node_arena *arena)
{
    struct numio_arena_audit audit = { .size = sizeof audit };
    cr_assert_eq(nio_node_arena_audit(arena, &audit), 0);
    return audit;
}

Test(arena, memory_is_aligned_writable_and_counted)
{
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ .os_node = -1 });
    struct nio_node_arena_stats stats;
    uint64_t allocated = 0;
    for (size_t alignment = 8; alignment <= 1 << 20; alignment *= 4) {
        for (size_t bytes = 1; bytes < 3 << 20; bytes = bytes * 7 + 3) {
            unsigned char *memory = nio_node_arena_alloc(arena, bytes, alignment);
            cr_assert_not_null(memory);
            cr_assert_eq((uintptr_t)memory % alignment, 0);
            memset(memory, 0x77, bytes);
            nio_node_arena_stats(arena, &stats);
            allocated += bytes;
            cr_assert_eq(stats.bytes_live, bytes);
            cr_assert_eq(stats.bytes_allocated, allocated);
            nio_node_arena_free(arena, memory, bytes, alignment);
        }
    }
    nio_node_arena_free(arena, NULL, 10, 8);
    nio_node_arena_stats(arena, &stats);
    cr_assert_eq(stats.bytes_freed, allocated);
    nio_node_arena_destroy(arena);
}

Test(arena, destroying_one_with_live_memory_aborts, .signal = SIGABRT)
{
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ .os_node = -1 });
    cr_assert_not_null(nio_node_arena_alloc(arena, 100, 64));
    nio_node_arena_destroy(arena);
}

Test(arena, mapped_pages_are_zero_and_counted)
{
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ .os_node = -1 });
    struct nio_node_arena_stats stats;
    char *pages = nio_node_arena_map(arena, 1 << 20, 1 << 21);
    cr_assert_not_null(pages);
    cr_assert_eq((uintptr_t)pages % (1 << 21), 0);
    for (size_t i = 0; i < 1 << 20; i++)
        cr_assert_eq(pages[i], 0);
    nio_node_arena_stats(arena, &stats);
    cr_assert_eq(stats.bytes_live, 1 << 20);
    nio_node_arena_unmap(arena, pages, 1 << 20);
    nio_node_arena_stats(arena, &stats);
    cr_assert_eq(stats.bytes_live, 0);
    nio_node_arena_destroy(arena);
}

static size_t mapped_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    cr_assert_not_null(file);
    char line[128] = "";
    cr_assert_not_null(fgets(line, sizeof line, file));
    (void)fclose(file); /* read only */
    return strtoul(line, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

Test(arena, destroying_gives_all_addresses_back)
{
    struct nio_node_arena_options options = { .os_node = -1 };
    nio_node_arena_destroy(create(options)); /* what jemalloc needs once */
    size_t before = mapped_bytes();
    for (int i = 0; i < 100; i++) {
        struct nio_node_arena *arena = create(options);
        void *memory = nio_node_arena_alloc(arena, 10 << 20, 4096);
        cr_assert_not_null(memory);
        nio_node_arena_free(arena, memory, 10 << 20, 4096);
        nio_node_arena_destroy(arena);
    }
    cr_assert_leq(mapped_bytes(), before + (8 << 20));
}

static int sum_bytes(void *base, size_t bytes, void *context)
{
    (void)base;
    *(size_t *)context += bytes;
    return 0;
}

Test(arena, freed_memory_is_used_again_before_more_is_mapped)
{
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ .os_node = -1 });
    size_t first = 0, later = 0;
    for (int i = 0; i < 1000; i++) {
        void *memory = nio_node_arena_alloc(arena, 1 << 20, 4096);
        cr_assert_not_null(memory);
        nio_node_arena_free(arena, memory, 1 << 20, 4096);
        if (i == 0)
            (void)nio_node_arena_for_each_mapping(arena, sum_bytes, &first);
    }
    (void)nio_node_arena_for_each_mapping(arena, sum_bytes, &later);
    cr_assert_eq(first, later);
    nio_node_arena_destroy(arena);
}

Test(arena, the_audit_finds_bound_pages_at_home)
{
    if (!may_bind())
        cr_skip_test("this process may not bind memory");
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ some_node(), 0, 0 });
    char *memory = nio_node_arena_alloc(arena, 400 * 4096, 4096);
    char *pages = nio_node_arena_map(arena, 100 * 4096, 4096);
    struct numio_arena_audit before = audit_of(arena);
    cr_assert(before.is_bound);
    cr_assert_eq(before.os_node, some_node());
    cr_assert_eq(before.bytes_live, 500 * 4096);
    memset(memory, 1, 300 * 4096);
    memset(pages, 1, 50 * 4096);
    struct numio_arena_audit after = audit_of(arena);
    /* Exactly 350 unless the kernel backs memory with huge pages by itself. */
    cr_assert_geq(after.pages_home - before.pages_home, 350);
    cr_assert_eq(before.pages_untouched - after.pages_untouched,
                 after.pages_home - before.pages_home);
    cr_assert_eq(after.pages_away, 0);
    cr_assert_eq(after.pages_unknown, 0);
    cr_assert_eq(after.reason[0], '\0');
    nio_node_arena_free(arena, memory, 400 * 4096, 4096);
    nio_node_arena_unmap(arena, pages, 100 * 4096);
    cr_assert_eq(audit_of(arena).bytes_live, 0);
    nio_node_arena_destroy(arena);
}

Test(arena, an_audit_without_binding_takes_the_node_of_the_majority_for_home)
{
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ .os_node = -1 });
    char *memory = nio_node_arena_alloc(arena, 64 * 4096, 4096);
    memset(memory, 1, 64 * 4096);
    struct numio_arena_audit audit = audit_of(arena);
    cr_assert_not(audit.is_bound);
    cr_assert(audit.pages_unknown > 0 || audit.pages_home >= 64);
    cr_assert(audit.pages_unknown == 0 || audit.reason[0] != '\0');
    nio_node_arena_free(arena, memory, 64 * 4096, 4096);
    nio_node_arena_destroy(arena);
}

Test(arena, an_audit_of_unknown_size_is_refused)
{
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ .os_node = -1 });
    struct numio_arena_audit audit = { .size = 8 };
    cr_assert_eq(nio_node_arena_audit(arena, &audit), -EINVAL);
    nio_node_arena_destroy(arena);
}

Test(arena, a_node_that_does_not_exist_is_a_recorded_reason)
{
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ .os_node = 999 });
    cr_assert_not_null(nio_node_arena_reason(arena));
    cr_assert_eq(nio_node_arena_os_node(arena), -1);
    void *memory = nio_node_arena_alloc(arena, 100, 8);
    cr_assert_not_null(memory);
    nio_node_arena_free(arena, memory, 100, 8);
    nio_node_arena_destroy(arena);
    struct nio_node_arena_options strict = { .os_node = 999, .is_strict = true };
    arena = NULL;
    cr_assert_eq(nio_node_arena_create(&strict, &arena), -EXDEV);
    cr_assert_null(arena);
    cr_assert_not_null(strstr(numio_strerror_detail(), "999"));
}

Test(arena, strict_and_huge_arenas_serve_memory)
{
    if (!may_bind())
        cr_skip_test("this process may not bind memory");
    struct nio_node_arena_options options = { some_node(), .is_strict = true,
                                              .use_huge_pages = true };
    struct nio_node_arena *arena = create(options);
    cr_assert_null(nio_node_arena_reason(arena));
    char *memory = nio_node_arena_alloc(arena, 8 << 20, 4096);
    memset(memory, 1, 8 << 20);
    cr_assert_geq(audit_of(arena).pages_home, (8 << 20) / audit_of(arena).page_bytes);
    nio_node_arena_free(arena, memory, 8 << 20, 4096);
    nio_node_arena_destroy(arena);
}

/* --- adopted threads ------------------------------------------------------------------------ */

static int is_inside(void *base, size_t bytes, void *context)
{
    uintptr_t address = (uintptr_t)context;
    return address >= (uintptr_t)base && address - (uintptr_t)base < bytes;
}

struct adoption {
    struct nio_node_arena *arena;
    int error;
    bool is_private; /* malloc came out of the arena that is destroyed with the runtime */
    int mode_before, mode_adopted, mode_after;
    void *kept[64]; /* malloc'ed while adopted, freed much later */
};

static int thread_mode(void)
{
    struct nio_mempolicy policy;
    return nio_mempolicy_get_thread(&policy) == 0 ? policy.mode : -1;
}

static void *run_adopted(void *arg)
{
    struct adoption *adoption = arg;
    adoption->mode_before = thread_mode();
    adoption->error = nio_node_arena_adopt_thread(adoption->arena);
    adoption->mode_adopted = thread_mode();
    for (unsigned i = 0; i < 64; i++) {
        adoption->kept[i] = malloc(i * i * 40 + 1);
        if (nio_node_arena_for_each_mapping(adoption->arena, is_inside, adoption->kept[i]))
            adoption->is_private = true;
    }
    nio_node_arena_restore_thread();
    nio_node_arena_restore_thread(); /* once is enough, twice does no harm */
    adoption->mode_after = thread_mode();
    return NULL;
}

Test(arena, an_adopted_thread_is_local_and_its_memory_outlives_the_arena)
{
    struct nio_node_arena_options options = { .os_node = may_bind() ? some_node() : -1 };
    struct adoption adoption = { .arena = create(options) };
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, run_adopted, &adoption), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(adoption.error, 0);
    cr_assert_not(adoption.is_private);
    cr_assert_eq(adoption.mode_after, adoption.mode_before);
    if (options.os_node >= 0)
        cr_assert_eq(adoption.mode_adopted, MPOL_PREFERRED);
    nio_node_arena_destroy(adoption.arena);
    for (unsigned i = 0; i < 64; i++) {
        memset(adoption.kept[i], 1, i * i * 40 + 1);
        free(adoption.kept[i]);
    }
    for (unsigned i = 0; i < 64; i++) { /* this thread's cache must not hand out dead memory */
        void *memory = malloc(i * i * 40 + 1);
        memset(memory, 1, i * i * 40 + 1);
        free(memory);
    }
}

Test(arena, malloc_is_placed_unless_a_reason_says_why_not)
{
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ .os_node = -1 });
#ifdef NIO_HAS_ASAN
    cr_assert_not_null(nio_node_arena_malloc_reason(arena));
#else
    cr_assert_null(nio_node_arena_malloc_reason(arena));
#endif
    nio_node_arena_destroy(arena);
}

/* --- several nodes ------------------------------------------------------------------------------
 */

/* The nodes of "0-1,3" in order; returns how many. */
static unsigned nodes_with_memory(int *nodes, unsigned max)
{
    FILE *file = fopen("/sys/devices/system/node/has_memory", "r");
    char line[256] = "";
    unsigned count = 0;
    if (!file)
        return 0;
    char *at = fgets(line, sizeof line, file);
    (void)fclose(file); /* read only */
    while (at && *at >= '0' && *at <= '9') {
        long first = strtol(at, &at, 10);
        long last = *at == '-' ? strtol(at + 1, &at, 10) : first;
        for (long node = first; node <= last && count < max; node++)
            nodes[count++] = (int)node;
        at += *at == ',';
    }
    return count;
}

/* Whether malloc of a thread that `arena` adopts, wherever it runs, comes from `node`. */
static void *malloc_on_node(void *arg)
{
    struct adoption *adoption = arg;
    int node = nio_node_arena_os_node(adoption->arena), actual = -1;
    adoption->error = nio_node_arena_adopt_thread(adoption->arena);
    for (size_t bytes = 64; adoption->error == 0 && bytes < 4 << 20; bytes *= 3) {
        char *memory = malloc(bytes);
        memset(memory, 1, bytes);
        void *page = (void *)((uintptr_t)(memory + bytes / 2) & ~(uintptr_t)4095);
        adoption->error = nio_mempolicy_page_nodes(&page, 1, &actual);
        if (actual != node)
            adoption->error = -EXDEV;
        free(memory);
    }
    nio_node_arena_restore_thread();
    return NULL;
}

Test(arena, every_node_gets_its_memory_at_home_whoever_touches_it)
{
    int nodes[64];
    unsigned count = nodes_with_memory(nodes, 64);
    if (count == 0 || !may_bind())
        cr_skip_test("this process may not bind memory");
    for (unsigned i = 0; i < count; i++) {
        struct nio_node_arena *arena = create((struct nio_node_arena_options){ nodes[i], 0, 0 });
        struct nio_slab slab;
        cr_assert_eq(nio_slab_init(&slab, arena), 0);
        void *cells[2000];
        for (unsigned j = 0; j < 2000; j++) {
            cells[j] = nio_slab_alloc(&slab, 256);
            memset(cells[j], 1, 256);
        }
        char *pages = nio_node_arena_map(arena, 1 << 20, 4096);
        memset(pages, 1, 1 << 20);
        struct numio_arena_audit audit = audit_of(arena);
        cr_assert_eq(audit.os_node, nodes[i]);
        cr_assert_geq(audit.pages_home, (2000 * 256 + (1 << 20)) / audit.page_bytes);
        cr_assert_eq(audit.pages_away, 0);
        struct adoption adoption = { .arena = arena };
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, malloc_on_node, &adoption), 0);
        cr_assert_eq(pthread_join(thread, NULL), 0);
        cr_assert_eq(adoption.error, 0, "malloc of node %d", nodes[i]);
        for (unsigned j = 0; j < 2000; j++)
            nio_slab_free_remote(cells[j]);
        nio_node_arena_unmap(arena, pages, 1 << 20);
        nio_slab_fini(&slab);
        nio_node_arena_destroy(arena);
    }
}

/* --- kernels and containers that refuse ------------------------------------------------------- */

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#endif

/* From now on the memory policy calls of this process fail with `error`. */
static bool forbid_memory_policy(unsigned error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mbind, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_set_mempolicy, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_get_mempolicy, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_move_pages, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
    };
    struct sock_fprog program = { .len = NIO_ARRAY_LEN(code), .filter = code };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* What a confined child found wrong, as its exit status; 0: nothing. */
static int confined_child(unsigned error, const char *word)
{
    struct nio_node_arena_options options = { .os_node = 0 };
    struct nio_node_arena *arena;
    struct numio_arena_audit audit = { .size = sizeof audit };
    struct nio_slab slab;
    if (!forbid_memory_policy(error))
        return 77;
    if (nio_node_arena_create(&options, &arena) != 0)
        return 1;
    const char *reason = nio_node_arena_reason(arena);
    if (!reason || !strstr(reason, word) || !strstr(reason, "mbind"))
        return 2;
    if (nio_node_arena_adopt_thread(arena) != 0)
        return 3;
    if (nio_slab_init(&slab, arena) != 0)
        return 4;
    for (int i = 0; i < 10000; i++) {
        void *cell = nio_slab_alloc(&slab, 512);
        if (!cell)
            return 5;
        memset(cell, 1, 512);
        nio_slab_free_remote(cell);
    }
    if (nio_node_arena_audit(arena, &audit) != 0 || audit.is_bound || audit.pages_unknown == 0 ||
        audit.pages_home + audit.pages_away != 0 || !strstr(audit.reason, "move_pages"))
        return 6;
    if (nio_node_arena_reason(arena) != reason)
        return 7;
    nio_node_arena_restore_thread();
    nio_slab_fini(&slab);
    nio_node_arena_destroy(arena);
    struct nio_node_arena_options strict = { .os_node = 0, .is_strict = true };
    return nio_node_arena_create(&strict, &arena) == -EXDEV ? 0 : 8;
}

static int run_confined(unsigned error, const char *word)
{
    pid_t child = fork();
    if (child == 0)
        _exit(confined_child(error, word));
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status), "the child died");
    return WEXITSTATUS(status);
}

Test(arena, a_container_that_refuses_mbind_still_works_and_says_so)
{
    int status = run_confined(EPERM, "Operation not permitted");
    if (status == 77)
        cr_skip_test("seccomp is not available");
    cr_assert_eq(status, 0);
}

Test(arena, a_kernel_without_memory_policies_still_works_and_says_so)
{
    int status = run_confined(ENOSYS, "Function not implemented");
    if (status == 77)
        cr_skip_test("seccomp is not available");
    cr_assert_eq(status, 0);
}

/* --- faults ----------------------------------------------------------------------------------- */

Test(arena, every_allocation_that_fails_is_reported_and_leaves_nothing_behind)
{
    for (long nth = 1;; nth++) {
        struct nio_node_arena_options options = { .os_node = -1 };
        struct nio_node_arena *arena = NULL;
        struct numio_arena_audit audit = { .size = sizeof audit };
        nio_fault_arm(nth);
        int error = nio_node_arena_create(&options, &arena);
        if (error) {
            cr_assert_eq(error, -ENOMEM);
            cr_assert_null(arena);
        } else {
            void *memory = nio_node_arena_alloc(arena, 4 << 20, 64);
            void *pages = nio_node_arena_map(arena, 1 << 20, 64);
            error = nio_node_arena_audit(arena, &audit);
            cr_assert((memory && pages && !error) || nio_fault_struck());
            nio_node_arena_unmap(arena, pages, 1 << 20);
            nio_node_arena_free(arena, memory, 4 << 20, 64);
            nio_node_arena_destroy(arena);
        }
        bool has_struck = nio_fault_struck();
        nio_fault_arm(0);
        if (!has_struck) {
            cr_assert_gt(nth, 4, "there was something to fail");
            break;
        }
        cr_assert_lt(nth, 100);
    }
}

Test(arena, an_adoption_that_fails_leaves_the_thread_as_it_was)
{
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ .os_node = 998 });
    if (nio_node_arena_malloc_reason(arena))
        cr_skip_test("malloc is not jemalloc's: nothing can fail");
    nio_fault_arm(1); /* the heap of this odd node is not there yet */
    int error = nio_node_arena_adopt_thread(arena);
    nio_fault_arm(0);
    cr_assert_eq(error, -ENOMEM);
    cr_assert_eq(nio_node_arena_adopt_thread(arena), 0);
    nio_node_arena_restore_thread();
    nio_node_arena_destroy(arena);
}

/* --- threads ------------------------------------------------------------------------------------
 */

struct churn {
    struct nio_node_arena *arena;
    uint64_t seed;
    bool has_failed;
};

static void *churn_run(void *arg)
{
    struct churn *churn = arg;
    struct nio_rng rng;
    nio_rng_init(&rng, &churn->seed);
    for (unsigned i = 0; i < 2000; i++) {
        size_t bytes = 1 + nio_rng_below(&rng, 200000);
        unsigned char *memory = nio_node_arena_alloc(churn->arena, bytes, 64);
        if (!memory) {
            churn->has_failed = true;
            break;
        }
        memory[0] = memory[bytes - 1] = 1;
        if (i % 500 == 0) {
            struct numio_arena_audit audit = { .size = sizeof audit };
            churn->has_failed |= nio_node_arena_audit(churn->arena, &audit) != 0;
        }
        nio_node_arena_free(churn->arena, memory, bytes, 64);
    }
    return NULL;
}

Test(arena, threads_share_an_arena_and_the_counts_agree)
{
    struct nio_node_arena *arena = create((struct nio_node_arena_options){ .os_node = -1 });
    struct churn churns[4];
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++) {
        churns[i] = (struct churn){ .arena = arena, .seed = i };
        cr_assert_eq(pthread_create(&threads[i], NULL, churn_run, &churns[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
        cr_assert_not(churns[i].has_failed);
    }
    struct nio_node_arena_stats stats;
    nio_node_arena_stats(arena, &stats);
    cr_assert_eq(stats.bytes_live, 0);
    cr_assert_gt(stats.bytes_allocated, 0);
    nio_node_arena_destroy(arena);
}
