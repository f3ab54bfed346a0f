/* SPDX-License-Identifier: MIT */
#include "runtime/sched/owned.h"

#include <criterion/criterion.h>
#include <string.h>

#include "alloc/node_arena.h"
#include "runtime/base/mem.h"
#include "runtime/task/wake.h"
#include "tests/seeded.h"

enum { STRIPE_NUMBER = 5, CELL_BYTES = 200, TASKS_MAX = 3000 };

static struct nio_node_arena *arena;
static struct nio_stripe stripe;
static struct nio_task *queued[TASKS_MAX];
static unsigned queued_count;

static void schedule(const struct nio_schedule *self, struct nio_task *task)
{
    (void)self;
    queued[queued_count++] = task;
}

static void release(const struct nio_schedule *self, struct nio_task *task)
{
    (void)self;
    nio_slab_free_local(&stripe.slab, task);
}

static const struct nio_schedule scheduler = { schedule, release };

static void start(void)
{
    struct nio_node_arena_options options = { .os_node = -1 };
    cr_assert_eq(nio_node_arena_create(&options, &arena), 0);
    cr_assert_eq(nio_stripe_init(&stripe, arena, STRIPE_NUMBER), 0);
    queued_count = 0;
}

static void stop(void)
{
    nio_fault_arm(0);
    nio_slab_fini(&stripe.slab); /* asserts that nothing is left */
    nio_node_arena_destroy(arena);
}

TestSuite(owned, .init = start, .fini = stop, .timeout = 60);

static struct nio_task *bind_task(bool has_join)
{
    struct nio_task *task;
    cr_assert_eq(nio_stripe_bind(&stripe, CELL_BYTES, &task), 0);
    uint64_t id = task->id;
    memset((char *)task + sizeof task->state, 0, sizeof *task - sizeof task->state);
    task->id = id;
    task->scheduler = &scheduler;
    atomic_init(&task->state, nio_state_initial(has_join));
    return task;
}

/* The task has been polled and waits. */
static void make_idle(struct nio_task *task)
{
    (void)nio_state_start(task);
    cr_assert_not(nio_state_idle(task));
}

static void complete(struct nio_task *task)
{
    uintptr_t waker;
    if (nio_state_complete(task, &waker))
        release(&scheduler, task);
}

static uint64_t word(const struct nio_task *task)
{
    return nio_state_load(task);
}

static void count_task(struct nio_task *task, void *arg)
{
    cr_assert_not(word(task) & NIO_STATE_COMPLETE);
    (*(unsigned *)arg)++;
}

static unsigned count_tasks(void)
{
    unsigned count = 0;
    nio_stripe_for_each(&stripe, count_task, &count);
    return count;
}

Test(owned, ids_are_unique_and_carry_the_number_of_their_stripe)
{
    struct nio_task *first = bind_task(false), *second = bind_task(false);
    uint64_t first_id = first->id;
    cr_assert_neq(first_id, second->id);
    cr_assert_eq(first_id >> 48, STRIPE_NUMBER);
    cr_assert_eq(second->id >> 48, STRIPE_NUMBER);
    release(&scheduler, first);
    struct nio_task *third = bind_task(false);
    cr_assert_neq(third->id, first_id, "an id must not come back with its cell");
    cr_assert_neq(third->id, second->id);
    release(&scheduler, second);
    release(&scheduler, third);
}

Test(owned, a_closed_stripe_binds_nothing)
{
    struct nio_task *task = NULL;
    nio_stripe_close(&stripe);
    cr_assert_eq(nio_stripe_bind(&stripe, CELL_BYTES, &task), -ESHUTDOWN);
    cr_assert_null(task);
}

Test(owned, bind_reports_want_of_memory_and_works_again_after_it)
{
    struct nio_task *task = NULL;
    nio_fault_arm(1);
    cr_assert_eq(nio_stripe_bind(&stripe, CELL_BYTES, &task), -ENOMEM);
    cr_assert_null(task);
    nio_fault_arm(0);
    cr_assert_eq(nio_stripe_bind(&stripe, CELL_BYTES, &task), 0);
    release(&scheduler, task);
}

Test(owned, close_cancels_every_live_task_and_queues_exactly_the_idle_ones)
{
    struct nio_task *is_new = bind_task(false), *is_idle = bind_task(false),
                    *runs = bind_task(false);
    struct nio_task *is_done = bind_task(true), *is_freed = bind_task(false);
    make_idle(is_idle);
    (void)nio_state_start(runs);
    (void)nio_state_start(is_done);
    complete(is_done);
    (void)nio_state_start(is_freed);
    complete(is_freed);
    nio_stripe_close(&stripe);
    cr_assert_eq(queued_count, 1);
    cr_assert_eq(queued[0], is_idle);
    cr_assert(word(is_new) & NIO_STATE_CANCELLED);
    cr_assert(word(is_idle) & NIO_STATE_CANCELLED);
    cr_assert(word(runs) & NIO_STATE_CANCELLED);
    cr_assert(nio_state_idle(runs), "a task that runs is told by its next look");
    cr_assert_not(word(is_done) & NIO_STATE_CANCELLED);
    cr_assert_eq(word(is_freed), 0);
    (void)nio_state_start(is_new);
    (void)nio_state_start(is_idle);
    (void)nio_state_start(runs);
    complete(is_new);
    complete(is_idle);
    complete(runs);
    cr_assert(nio_state_drop_join(is_done));
    release(&scheduler, is_done);
}

/* A cell that another worker has freed is on its way home: not a task any more. */
Test(owned, a_cell_that_was_freed_elsewhere_is_not_visited)
{
    struct nio_task *task = bind_task(false);
    cr_assert_eq(count_tasks(), 1);
    (void)nio_state_start(task);
    uintptr_t waker;
    cr_assert(nio_state_complete(task, &waker));
    nio_slab_free_remote(task);
    cr_assert_eq(count_tasks(), 0);
    nio_stripe_close(&stripe);
    cr_assert_eq(queued_count, 0);
}

Test(owned, a_random_population_is_counted_and_closed_exactly)
{
    enum { ROUNDS = 20 };
    static struct nio_task *tasks[TASKS_MAX];
    struct nio_rng rng = seeded_rng(17);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned count = 1 + nio_rng_below(&rng, TASKS_MAX - 1), live = 0, idle = 0;
        for (unsigned i = 0; i < count; i++) {
            unsigned kind = nio_rng_below(&rng, 4);
            tasks[i] = bind_task(false);
            if (kind == 0) {
                make_idle(tasks[i]);
                idle++;
            } else if (kind == 1) {
                (void)nio_state_start(tasks[i]);
                complete(tasks[i]);
                tasks[i] = NULL;
            }
            live += tasks[i] != NULL;
        }
        cr_assert_eq(count_tasks(), live);
        queued_count = 0;
        nio_stripe_close(&stripe);
        cr_assert_eq(queued_count, idle);
        stripe.is_closed = false; /* for the next round */
        for (unsigned i = 0; i < count; i++) {
            if (!tasks[i])
                continue;
            (void)nio_state_start(tasks[i]);
            complete(tasks[i]);
        }
        cr_assert_eq(count_tasks(), 0);
        nio_slab_check(&stripe.slab);
    }
}
