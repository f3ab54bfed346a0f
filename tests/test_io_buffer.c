/* SPDX-License-Identifier: MIT */
#include "alloc/io_buffer.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "alloc/node_arena.h"
#include "runtime/base/mem.h"

static struct nio_node_arena *arena;

static void start(void)
{
    struct nio_node_arena_options options = { .os_node = -1 };
    cr_assert_eq(nio_node_arena_create(&options, &arena), 0);
}

static void stop(void)
{
    struct nio_node_arena_stats stats;
    nio_node_arena_stats(arena, &stats);
    cr_assert_eq(stats.bytes_allocated, stats.bytes_freed);
    nio_node_arena_destroy(arena);
}

TestSuite(io_buffer, .init = start, .fini = stop, .timeout = 20);

Test(io_buffer, a_buffer_is_aligned_to_a_page_and_whole_pages_long)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t bytes = 1; bytes < 300000; bytes = bytes * 3 + 1) {
        char *buffer = nio_io_buffer_alloc(arena, bytes, 0);
        cr_assert_not_null(buffer);
        cr_assert_eq((uintptr_t)buffer % page_bytes, 0);
        struct nio_node_arena_stats stats;
        nio_node_arena_stats(arena, &stats);
        cr_assert_eq(stats.bytes_live, nio_align_up(bytes, page_bytes));
        memset(buffer, 0x5a, nio_align_up(bytes, page_bytes));
        nio_io_buffer_free(arena, buffer, bytes, 0);
    }
}

Test(io_buffer, a_larger_alignment_is_kept_and_a_smaller_one_raised)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t alignment = 1; alignment <= 4 << 20; alignment *= 2) {
        void *buffer = nio_io_buffer_alloc(arena, 5000, alignment);
        cr_assert_not_null(buffer);
        size_t expected = alignment < page_bytes ? page_bytes : alignment;
        cr_assert_eq((uintptr_t)buffer % expected, 0);
        nio_io_buffer_free(arena, buffer, 5000, alignment);
    }
}

Test(io_buffer, two_buffers_share_no_page)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    char *a = nio_io_buffer_alloc(arena, 100, 0);
    char *b = nio_io_buffer_alloc(arena, 100, 0);
    size_t apart = a < b ? (size_t)(b - a) : (size_t)(a - b);
    cr_assert_geq(apart, page_bytes);
    nio_io_buffer_free(arena, a, 100, 0);
    nio_io_buffer_free(arena, b, 100, 0);
}

Test(io_buffer, an_impossible_size_gets_no_memory)
{
    cr_assert_null(nio_io_buffer_alloc(arena, SIZE_MAX, 0));
    cr_assert_null(nio_io_buffer_alloc(arena, SIZE_MAX / 2, 0));
}

Test(io_buffer, no_memory_is_reported_and_null_may_be_freed)
{
    nio_fault_arm(1);
    cr_assert_null(nio_io_buffer_alloc(arena, 4096, 0));
    nio_fault_arm(0);
    nio_io_buffer_free(arena, NULL, 4096, 0);
}
