/* SPDX-License-Identifier: MIT */
#include "runtime/sched/local_queue.h"

#include <criterion/criterion.h>

#include "tests/seeded.h"

enum { SLOTS = NIO_LOCAL_QUEUE_SLOTS, HALF = SLOTS / 2, TASKS = 4 * SLOTS };

static struct nio_local_queue queue, thief;
static struct nio_task tasks[TASKS];

static void start(void)
{
    nio_local_queue_init(&queue);
    nio_local_queue_init(&thief);
}

TestSuite(local_queue, .init = start, .timeout = 60);

static void push(struct nio_local_queue *to, unsigned from, unsigned count)
{
    for (unsigned i = from; i < from + count; i++)
        cr_assert(nio_local_queue_push(to, &tasks[i], i % 2), "push %u", i);
}

static unsigned index_of(const struct nio_task *task)
{
    return (unsigned)(task - tasks);
}

/* Starts the positions, which come around after 16 bits, where the caller wants them. */
static void set_positions(struct nio_local_queue *of, uint32_t at)
{
    atomic_init(&of->head, nio_local_queue_head(at, (uint16_t)at, (uint16_t)at));
    atomic_init(&of->tail, (uint16_t)at);
}

/* Takes the first half of a steal apart: a thief has claimed `count` and is still copying. */
static void claim_by_hand(struct nio_local_queue *of, uint32_t count)
{
    /* relaxed: one thread */
    uint64_t head = atomic_load_explicit(&of->head, memory_order_relaxed);
    uint16_t real = nio_local_queue_real(head);
    head = nio_local_queue_head((uint32_t)(head >> 32), real, (uint16_t)(real + count));
    /* relaxed: as above */
    atomic_store_explicit(&of->head, head, memory_order_relaxed);
}

static void finish_by_hand(struct nio_local_queue *of)
{
    /* relaxed: one thread */
    uint64_t head = atomic_load_explicit(&of->head, memory_order_relaxed);
    uint16_t real = nio_local_queue_real(head);
    head = nio_local_queue_head((uint32_t)(head >> 32), real, real);
    /* relaxed: as above */
    atomic_store_explicit(&of->head, head, memory_order_relaxed);
}

Test(local_queue, pops_in_the_order_of_the_pushes)
{
    cr_assert_null(nio_local_queue_pop(&queue, true));
    push(&queue, 0, SLOTS);
    for (unsigned i = 0; i < SLOTS; i++)
        cr_assert_eq(index_of(nio_local_queue_pop(&queue, true)), i);
    cr_assert_null(nio_local_queue_pop(&queue, true));
}

Test(local_queue, a_full_queue_refuses_and_keeps_what_it_has)
{
    push(&queue, 0, SLOTS);
    cr_assert_eq(nio_local_queue_room(&queue), 0);
    cr_assert_not(nio_local_queue_push(&queue, &tasks[SLOTS], false));
    cr_assert_eq(nio_local_queue_length(&queue), SLOTS);
    cr_assert_eq(index_of(nio_local_queue_pop(&queue, true)), 0);
    cr_assert(nio_local_queue_push(&queue, &tasks[SLOTS], true));
}

Test(local_queue, overflow_takes_the_older_half_as_a_chain_in_order)
{
    struct nio_mpsc_node *first = NULL, *last = NULL;
    push(&queue, 0, SLOTS);
    cr_assert_eq(nio_local_queue_overflow(&queue, &first, &last), HALF);
    for (unsigned i = 0; i < HALF; i++, first = first->next) {
        cr_assert_eq(index_of(nio_task_of_link(first)), i);
        cr_assert_eq(first == last, i == HALF - 1);
    }
    cr_assert_null(last->next);
    cr_assert_eq(nio_local_queue_length(&queue), HALF);
    cr_assert_eq(index_of(nio_local_queue_pop(&queue, true)), HALF);
}

Test(local_queue, overflow_takes_nothing_when_there_is_room_or_a_thief_copies)
{
    struct nio_mpsc_node *first = NULL, *last = NULL;
    push(&queue, 0, SLOTS - 1);
    cr_assert_eq(nio_local_queue_overflow(&queue, &first, &last), 0);
    push(&queue, SLOTS - 1, 1);
    claim_by_hand(&queue, 1);
    cr_assert_eq(nio_local_queue_overflow(&queue, &first, &last), 0);
    cr_assert_null(first);
    cr_assert_eq(nio_local_queue_room(&queue), 0, "the claimed slot stays taken");
    finish_by_hand(&queue);
    cr_assert_eq(nio_local_queue_room(&queue), 1);
}

Test(local_queue, steal_takes_half_rounded_up)
{
    for (unsigned length = 0; length <= SLOTS; length++) {
        uint32_t count;
        start();
        push(&queue, 0, length);
        struct nio_task *run = nio_local_queue_steal(&queue, &thief, NIO_LOCAL_QUEUE_SLOTS, &count);
        unsigned wanted = (length + 1) / 2;
        cr_assert_eq(count, wanted);
        cr_assert_eq(run == NULL, wanted == 0);
        cr_assert_eq(nio_local_queue_length(&queue), length - wanted);
        cr_assert_eq(nio_local_queue_length(&thief), wanted ? wanted - 1 : 0);
        /* The oldest half in order; the last of it is run first, since it needs no copy. */
        for (unsigned i = 0; i + 1 < wanted; i++)
            cr_assert_eq(index_of(nio_local_queue_pop(&thief, true)), i);
        if (wanted)
            cr_assert_eq(index_of(run), wanted - 1);
        nio_local_queue_check(&queue);
        nio_local_queue_check(&thief);
    }
}

Test(local_queue, a_second_thief_is_refused_while_the_first_copies)
{
    uint32_t count;
    push(&queue, 0, 4);
    claim_by_hand(&queue, 2);
    cr_assert_null(nio_local_queue_steal(&queue, &thief, NIO_LOCAL_QUEUE_SLOTS, &count));
    cr_assert_eq(count, 0);
    cr_assert_eq(nio_local_queue_length(&queue), 2);
    cr_assert_eq(index_of(nio_local_queue_pop(&queue, true)), 2,
                 "the owner goes on behind the claim");
    finish_by_hand(&queue);
    cr_assert_eq(index_of(nio_local_queue_steal(&queue, &thief, NIO_LOCAL_QUEUE_SLOTS, &count)), 3);
}

Test(local_queue, a_thief_without_room_takes_nothing)
{
    uint32_t count;
    push(&queue, 0, 4);
    push(&thief, SLOTS, HALF + 1);
    cr_assert_null(nio_local_queue_steal(&queue, &thief, NIO_LOCAL_QUEUE_SLOTS, &count));
    cr_assert_eq(count, 0);
    cr_assert_eq(nio_local_queue_length(&queue), 4);
}

Test(local_queue, pops_the_newest_first_when_asked)
{
    start();
    cr_assert_null(nio_local_queue_pop_newest(&queue, true));
    push(&queue, 0, 3);
    cr_assert_eq(index_of(nio_local_queue_pop_newest(&queue, true)), 2);
    cr_assert_eq(index_of(nio_local_queue_pop(&queue, true)), 0);
    cr_assert_eq(index_of(nio_local_queue_pop_newest(&queue, false)), 1);
    cr_assert_null(nio_local_queue_pop_newest(&queue, true));
    nio_local_queue_check(&queue);
}

Test(local_queue, the_newest_is_not_popped_from_under_a_thief)
{
    start();
    push(&queue, 0, 2);
    claim_by_hand(&queue, 2);
    cr_assert_null(nio_local_queue_pop_newest(&queue, true));
    cr_assert_eq(nio_local_queue_length(&queue), 0);
    finish_by_hand(&queue);
    push(&queue, 2, 1);
    cr_assert_eq(index_of(nio_local_queue_pop_newest(&queue, true)), 2);
}

/* A thief that looked before the owner popped must not succeed at what it saw. */
Test(local_queue, every_pop_makes_a_new_head)
{
    start();
    push(&queue, 0, 2);
    /* relaxed: one thread */
    uint64_t before = atomic_load_explicit(&queue.head, memory_order_relaxed);
    cr_assert_eq(index_of(nio_local_queue_pop_newest(&queue, true)), 1);
    push(&queue, 2, 1);
    /* relaxed: one thread */
    cr_assert_neq(atomic_load_explicit(&queue.head, memory_order_relaxed), before);
}

/* A naive queue: an array with a start and an end. */
struct model {
    unsigned items[1 << 20];
    unsigned from, to;
};

static struct model queue_model;

static unsigned model_length(const struct model *m)
{
    return m->to - m->from;
}

static void random_step(struct nio_rng *rng, unsigned *next, bool *is_claimed, uint32_t *claimed)
{
    unsigned choice = nio_rng_below(rng, 16);
    unsigned used = model_length(&queue_model) + *claimed;
    if (choice < 8) {
        bool has_room = used < SLOTS;
        cr_assert_eq(nio_local_queue_push(&queue, &tasks[*next % TASKS], choice % 2), has_room);
        if (has_room)
            queue_model.items[queue_model.to++] = (*next)++ % TASKS;
    } else if (choice < 10) {
        struct nio_task *task = nio_local_queue_pop_newest(&queue, *is_claimed || choice % 2);
        cr_assert_eq(task == NULL, model_length(&queue_model) == 0);
        if (task)
            cr_assert_eq(index_of(task), queue_model.items[--queue_model.to]);
    } else if (choice < 12) {
        /* Without a thief at work the owner may pop as if it were alone. */
        struct nio_task *task = nio_local_queue_pop(&queue, *is_claimed || choice % 2);
        cr_assert_eq(task == NULL, model_length(&queue_model) == 0);
        if (task)
            cr_assert_eq(index_of(task), queue_model.items[queue_model.from++]);
    } else if (choice == 12) {
        struct nio_mpsc_node *first, *last;
        bool is_full = model_length(&queue_model) == SLOTS && !*is_claimed;
        uint32_t count = nio_local_queue_overflow(&queue, &first, &last);
        cr_assert_eq(count, is_full ? HALF : 0);
        for (; count > 0; count--, first = first->next)
            cr_assert_eq(index_of(nio_task_of_link(first)), queue_model.items[queue_model.from++]);
    } else if (choice == 13 && !*is_claimed && model_length(&queue_model) > 0) {
        *claimed = (model_length(&queue_model) + 1) / 2;
        *is_claimed = true;
        claim_by_hand(&queue, *claimed);
        queue_model.from += *claimed;
    } else if (choice == 14 && *is_claimed) {
        finish_by_hand(&queue);
        *is_claimed = false;
        *claimed = 0;
    } else if (choice == 15) {
        uint32_t count;
        unsigned wanted = *is_claimed ? 0 : (model_length(&queue_model) + 1) / 2;
        struct nio_task *run = nio_local_queue_steal(&queue, &thief, NIO_LOCAL_QUEUE_SLOTS, &count);
        cr_assert_eq(count, wanted);
        for (unsigned i = 0; i + 1 < wanted; i++)
            cr_assert_eq(index_of(nio_local_queue_pop(&thief, true)),
                         queue_model.items[queue_model.from++]);
        if (wanted)
            cr_assert_eq(index_of(run), queue_model.items[queue_model.from++]);
    }
}

Test(local_queue, agrees_with_a_naive_queue_also_across_the_wrap_of_its_positions)
{
    enum { STEPS = 200000 };
    struct nio_rng rng = seeded_rng(5);
    static const uint32_t starts[] = { 0, UINT16_MAX - 1000, UINT16_MAX / 2 - 1000 };
    for (unsigned s = 0; s < 3; s++) {
        unsigned next = 0;
        bool is_claimed = false;
        uint32_t claimed = 0;
        queue_model.from = queue_model.to = 0;
        set_positions(&queue, starts[s]);
        set_positions(&thief, starts[2 - s]);
        for (unsigned step = 0; step < STEPS; step++) {
            random_step(&rng, &next, &is_claimed, &claimed);
            nio_local_queue_check(&queue);
            cr_assert_eq(nio_local_queue_length(&queue), model_length(&queue_model), "step %u",
                         step);
        }
        if (is_claimed)
            finish_by_hand(&queue);
    }
}
