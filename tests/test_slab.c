/* SPDX-License-Identifier: MIT */
#include "alloc/slab.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/node_arena.h"
#include "runtime/base/mem.h"
#include "runtime/base/rng.h"

static struct nio_node_arena *arena;
static struct nio_slab slab;

static void start(void)
{
    struct nio_node_arena_options options = { .os_node = -1 };
    cr_assert_eq(nio_node_arena_create(&options, &arena), 0);
    cr_assert_eq(nio_slab_init(&slab, arena), 0);
}

static void stop(void)
{
    nio_fault_arm(0);
    nio_slab_fini(&slab);
    struct nio_node_arena_stats stats;
    nio_node_arena_stats(arena, &stats);
    cr_assert_eq(stats.bytes_allocated, stats.bytes_freed);
    nio_node_arena_destroy(arena);
}

TestSuite(slab, .init = start, .fini = stop, .timeout = 60);

static void set_word(void *cell, uint64_t value)
{
    /* relaxed: one thread */
    atomic_store_explicit(&((struct nio_slab_cell *)cell)->word, value, memory_order_relaxed);
}

static uint64_t word_of(void *cell)
{
    /* relaxed: one thread */
    return atomic_load_explicit(&((struct nio_slab_cell *)cell)->word, memory_order_relaxed);
}

static uint64_t live_cells(void)
{
    struct nio_slab_stats stats;
    nio_slab_stats(&slab, &stats);
    return stats.cells_live;
}

Test(slab, every_size_gets_an_aligned_cell_that_is_large_enough_and_not_too_large)
{
    for (size_t bytes = 1; bytes <= 9000; bytes += bytes < 600 ? 1 : 97) {
        void *cell = nio_slab_alloc(&slab, bytes);
        cr_assert_not_null(cell);
        cr_assert_eq((uintptr_t)cell % NIO_CACHELINE, 0);
        size_t usable = nio_slab_usable_bytes(cell);
        cr_assert_geq(usable, bytes);
        cr_assert_leq(usable, bytes <= 64 ? 64 : bytes * 2, "%zu for %zu", usable, bytes);
        cr_assert_eq(word_of(cell), 0);
        cr_assert_eq(nio_slab_of(cell), &slab);
        memset(cell, 0xff, usable);
        nio_slab_free_local(&slab, cell);
        nio_slab_check(&slab);
    }
}

Test(slab, a_freed_cell_is_the_next_one_handed_out_with_its_first_word_cleared)
{
    void *cell = nio_slab_alloc(&slab, 200);
    set_word(cell, 7);
    nio_slab_free_local(&slab, cell);
    cr_assert_eq(nio_slab_alloc(&slab, 200), cell);
    cr_assert_eq(word_of(cell), 0);
    nio_slab_free_local(&slab, cell);
}

Test(slab, only_the_pages_of_used_cells_are_carved)
{
    void *cell = nio_slab_alloc(&slab, 192);
    struct nio_slab_chunk *chunk = nio_slab_chunk_of(cell);
    uintptr_t page_end = ((uintptr_t)cell | 4095) + 1;
    cr_assert_geq((uintptr_t)chunk->carved_end, (uintptr_t)cell + 192);
    cr_assert_lt((uintptr_t)chunk->carved_end, page_end + 192);
    nio_slab_free_local(&slab, cell);
}

Test(slab, cells_of_a_chunk_do_not_overlap_and_fill_it)
{
    enum { COUNT = 1000 };
    char *cells[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        cells[i] = nio_slab_alloc(&slab, 320);
        memset(cells[i], (int)(i & 0xff), 320);
    }
    nio_slab_check(&slab);
    struct nio_slab_stats stats;
    nio_slab_stats(&slab, &stats);
    cr_assert_eq(stats.cells_live, COUNT);
    cr_assert_eq(stats.chunks, 6); /* 176 cells of 320 bytes in 55 KiB */
    for (unsigned i = 0; i < COUNT; i++) {
        for (unsigned j = 0; j < 320; j++)
            cr_assert_eq((unsigned char)cells[i][j], i & 0xff);
        nio_slab_free_local(&slab, cells[i]);
    }
    nio_slab_check(&slab);
}

Test(slab, remotely_freed_cells_come_back_with_a_drain)
{
    void *cells[3];
    for (int i = 0; i < 3; i++)
        cells[i] = nio_slab_alloc(&slab, 64);
    set_word(cells[1], 5);
    for (int i = 0; i < 3; i++)
        nio_slab_free_remote(cells[i]);
    cr_assert_eq(word_of(cells[1]), 0);
    cr_assert_eq(live_cells(), 3);
    cr_assert_eq(nio_slab_drain(&slab), 3);
    cr_assert_eq(nio_slab_drain(&slab), 0);
    cr_assert_eq(live_cells(), 0);
    nio_slab_check(&slab);
}

Test(slab, an_owner_that_runs_out_takes_remote_cells_before_it_asks_the_arena)
{
    enum { PER_CHUNK = (NIO_SLAB_CHUNK_BYTES - NIO_SLAB_CELLS_OFFSET) / 4096 };
    void *cells[PER_CHUNK];
    for (int i = 0; i < PER_CHUNK; i++)
        cells[i] = nio_slab_alloc(&slab, 4096);
    nio_slab_free_remote(cells[2]);
    nio_fault_arm(1);
    cr_assert_eq(nio_slab_alloc(&slab, 4096), cells[2]);
    cr_assert_null(nio_slab_alloc(&slab, 4096));
    cr_assert(nio_fault_struck());
    for (int i = 0; i < PER_CHUNK; i++)
        nio_slab_free_local(&slab, cells[i]);
}

Test(slab, an_outbox_sends_a_full_batch_and_the_rest_when_flushed)
{
    enum { COUNT = NIO_SLAB_OUTBOX_MAX + 1 };
    void *cells[COUNT];
    struct nio_slab_outbox outbox;
    nio_slab_outbox_init(&outbox);
    for (int i = 0; i < COUNT; i++)
        cells[i] = nio_slab_alloc(&slab, 64);
    for (int i = 0; i < COUNT - 2; i++)
        nio_slab_outbox_free(&outbox, cells[i]);
    cr_assert(nio_mpsc_is_empty(&slab.remote));
    nio_slab_outbox_free(&outbox, cells[COUNT - 2]);
    cr_assert_eq(nio_slab_drain(&slab), NIO_SLAB_OUTBOX_MAX);
    nio_slab_outbox_free(&outbox, cells[COUNT - 1]);
    cr_assert_eq(nio_slab_drain(&slab), 0);
    nio_slab_outbox_flush(&outbox);
    nio_slab_outbox_flush(&outbox);
    cr_assert_eq(nio_slab_drain(&slab), 1);
}

Test(slab, an_outbox_flushes_when_the_home_changes)
{
    struct nio_slab other;
    cr_assert_eq(nio_slab_init(&other, arena), 0);
    void *mine = nio_slab_alloc(&slab, 64);
    void *theirs = nio_slab_alloc(&other, 64);
    struct nio_slab_outbox outbox;
    nio_slab_outbox_init(&outbox);
    nio_slab_outbox_free(&outbox, theirs);
    nio_slab_free(&other, &outbox, mine);
    cr_assert_eq(nio_slab_drain(&other), 1);
    cr_assert_eq(nio_slab_drain(&slab), 0);
    nio_slab_outbox_flush(&outbox);
    cr_assert_eq(nio_slab_drain(&slab), 1);
    mine = nio_slab_alloc(&slab, 64);
    nio_slab_free(&slab, &outbox, mine);
    cr_assert_null(outbox.home);
    nio_slab_fini(&other);
}

static void sum_words(void *cell, void *arg)
{
    *(uint64_t *)arg += word_of(cell);
}

Test(slab, a_walk_meets_every_live_cell_once_and_no_free_one)
{
    enum { COUNT = 600 };
    static void *cells[COUNT];
    uint64_t expected = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        cells[i] = nio_slab_alloc(&slab, 64 + i * 17);
        if (i % 3 == 0)
            continue; /* not live yet: its word is 0 */
        set_word(cells[i], i);
        expected += i;
    }
    for (unsigned i = 1; i < COUNT; i += 6) {
        expected -= word_of(cells[i]);
        nio_slab_free_local(&slab, cells[i]);
        expected -= word_of(cells[i + 1]);
        nio_slab_free_remote(cells[i + 1]);
    }
    uint64_t sum = 0;
    nio_slab_for_each_live(&slab, sum_words, &sum);
    cr_assert_eq(sum, expected);
    for (unsigned i = 0; i < COUNT; i++)
        if (i % 6 != 1 && i % 6 != 2)
            nio_slab_free_local(&slab, cells[i]);
}

struct reaper {
    unsigned every;
    unsigned met, freed;
};

static void free_some(void *cell, void *arg)
{
    struct reaper *reaper = arg;
    if (++reaper->met % reaper->every == 0) {
        nio_slab_free_local(&slab, cell);
        reaper->freed++;
    }
}

Test(slab, a_walk_may_free_what_it_meets)
{
    enum { COUNT = 2000 };
    for (unsigned every = 1; every <= 400; every += 57) {
        for (unsigned i = 0; i < COUNT; i++)
            set_word(nio_slab_alloc(&slab, i % 7 ? 700 : 5000), 1);
        struct reaper some = { .every = every }, rest = { .every = 1 };
        nio_slab_for_each_live(&slab, free_some, &some);
        nio_slab_check(&slab);
        cr_assert_eq(some.met, COUNT);
        cr_assert_eq(live_cells(), COUNT - some.freed);
        nio_slab_for_each_live(&slab, free_some, &rest);
        nio_slab_check(&slab);
        cr_assert_eq(rest.met, COUNT - some.freed);
        cr_assert_eq(live_cells(), 0);
    }
}

Test(slab, chunks_beyond_the_reserve_go_back_to_the_arena)
{
    enum { COUNT = 30000 };
    static void *cells[COUNT];
    for (unsigned i = 0; i < COUNT; i++)
        cells[i] = nio_slab_alloc(&slab, 512);
    struct nio_slab_stats many, few;
    nio_slab_stats(&slab, &many);
    cr_assert_gt(many.chunks, 2 * NIO_SLAB_EMPTY_MAX);
    for (unsigned i = 0; i < COUNT; i++)
        nio_slab_free_local(&slab, cells[i]);
    nio_slab_check(&slab);
    nio_slab_stats(&slab, &few);
    cr_assert_eq(few.empty_chunks, NIO_SLAB_EMPTY_MAX);
    cr_assert_eq(few.chunks, NIO_SLAB_EMPTY_MAX + 1);
    struct nio_node_arena_stats stats;
    nio_node_arena_stats(arena, &stats);
    cr_assert_eq(stats.bytes_live, (uint64_t)few.chunks * NIO_SLAB_CHUNK_BYTES);
    /* An empty chunk serves another class. */
    void *cell = nio_slab_alloc(&slab, 100);
    nio_slab_stats(&slab, &many);
    cr_assert_eq(many.chunks, few.chunks);
    nio_slab_free_local(&slab, cell);
}

Test(slab, a_pair_of_alloc_and_free_never_leaves_the_current_chunk)
{
    void *first = nio_slab_alloc(&slab, 64);
    nio_slab_free_local(&slab, first);
    struct nio_node_arena_stats before, after;
    nio_node_arena_stats(arena, &before);
    for (int i = 0; i < 10000; i++) {
        void *cell = nio_slab_alloc(&slab, 64);
        cr_assert_eq(cell, first);
        nio_slab_free_local(&slab, cell);
    }
    nio_node_arena_stats(arena, &after);
    cr_assert_eq(before.bytes_allocated, after.bytes_allocated);
}

Test(slab, an_impossible_size_gets_no_memory)
{
    cr_assert_null(nio_slab_alloc(&slab, SIZE_MAX));
    cr_assert_null(nio_slab_alloc(&slab, SIZE_MAX - 4096));
    cr_assert_null(nio_slab_alloc(&slab, (size_t)1 << 40));
    nio_slab_check(&slab);
}

Test(slab, every_allocation_that_fails_leaves_the_slab_whole)
{
    static void *cells[500];
    for (long nth = 1;; nth++) {
        unsigned got = 0;
        nio_fault_arm(nth);
        for (unsigned i = 0; i < 500; i++) {
            void *cell = nio_slab_alloc(&slab, i * 11);
            if (cell)
                cells[got++] = cell;
        }
        bool struck = nio_fault_struck();
        nio_fault_arm(0);
        cr_assert(got == 500 || struck);
        nio_slab_check(&slab);
        for (unsigned i = 0; i < got; i++)
            nio_slab_free_local(&slab, cells[i]);
        nio_slab_check(&slab);
        nio_slab_fini(&slab);
        cr_assert_eq(nio_slab_init(&slab, arena), 0);
        if (!struck)
            break;
        cr_assert_lt(nth, 1000);
    }
}

Test(slab, fini_with_a_live_cell_aborts, .signal = SIGABRT)
{
    cr_assert_not_null(nio_slab_alloc(&slab, 64));
    nio_slab_fini(&slab);
}

/* --- random operations against a list of what should be live ------------------------------- */

enum { RECORDS_MAX = 3000, STEPS = 200000 };

struct record {
    unsigned char *cell;
    uint64_t stamp;
    size_t bytes;
    struct nio_slab *home;
};

struct model {
    struct record records[RECORDS_MAX];
    unsigned count;
    uint64_t stamp_sum[2];
    struct nio_slab *slabs[2];
    struct nio_slab_outbox outbox;
    struct nio_rng rng;
    uint64_t stamp;
};

static void model_alloc(struct model *model)
{
    unsigned which = nio_rng_below(&model->rng, 2);
    /* Mostly two sizes, so that chunks fill up; now and then any size, or a large one. */
    unsigned kind = nio_rng_below(&model->rng, 100);
    size_t bytes = kind < 50   ? 192
                   : kind < 90 ? 2000
                   : kind < 99 ? 16 + nio_rng_below(&model->rng, 4080)
                               : 4097 + nio_rng_below(&model->rng, 100000);
    struct record *record = &model->records[model->count++];
    *record = (struct record){ .cell = nio_slab_alloc(model->slabs[which], bytes),
                               .stamp = ++model->stamp,
                               .bytes = bytes,
                               .home = model->slabs[which] };
    cr_assert_not_null(record->cell);
    cr_assert_eq(word_of(record->cell), 0);
    cr_assert_eq(nio_slab_of(record->cell), record->home);
    memset(record->cell + 8, (int)(record->stamp & 0xff), bytes - 8);
    set_word(record->cell, record->stamp);
    model->stamp_sum[which] += record->stamp;
}

static void model_free(struct model *model)
{
    unsigned index = nio_rng_below(&model->rng, model->count);
    struct record record = model->records[index];
    model->records[index] = model->records[--model->count];
    cr_assert_eq(word_of(record.cell), record.stamp);
    for (size_t i = 8; i < record.bytes; i++)
        cr_assert_eq(record.cell[i], record.stamp & 0xff);
    model->stamp_sum[record.home == model->slabs[1]] -= record.stamp;
    switch (nio_rng_below(&model->rng, 4)) {
    case 0:
        nio_slab_free_remote(record.cell);
        break;
    case 1:
        nio_slab_outbox_free(&model->outbox, record.cell);
        break;
    case 2:
        nio_slab_free(model->slabs[0], &model->outbox, record.cell);
        break;
    default:
        nio_slab_free_local(record.home, record.cell);
    }
}

static void model_check(struct model *model)
{
    for (int i = 0; i < 2; i++) {
        uint64_t sum = 0;
        nio_slab_for_each_live(model->slabs[i], sum_words, &sum);
        cr_assert_eq(sum, model->stamp_sum[i]);
        nio_slab_check(model->slabs[i]);
    }
}

Test(slab, random_operations_agree_with_a_model)
{
    const char *text = getenv("NUMIO_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 20240607;
    fprintf(stderr, "NUMIO_TEST_SEED=%llu\n", (unsigned long long)seed);
    static struct model model;
    static struct nio_slab other;
    cr_assert_eq(nio_slab_init(&other, arena), 0);
    model.slabs[0] = &slab;
    model.slabs[1] = &other;
    nio_slab_outbox_init(&model.outbox);
    nio_rng_init(&model.rng, &seed);
    for (unsigned step = 0; step < STEPS; step++) {
        /* The number of live cells swings up and down, so that chunks fill and empty. */
        unsigned up = step / 5000 % 2 ? 25 : 75;
        bool grows = nio_rng_below(&model.rng, 100) < up;
        if (model.count == 0 || (grows && model.count < RECORDS_MAX))
            model_alloc(&model);
        else
            model_free(&model);
        if (step % 997 == 0)
            model_check(&model);
    }
    while (model.count > 0)
        model_free(&model);
    nio_slab_outbox_flush(&model.outbox);
    model_check(&model);
    nio_slab_fini(&other);
}
