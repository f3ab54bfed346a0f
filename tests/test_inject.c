/* SPDX-License-Identifier: MIT */
#include "runtime/sched/inject.h"

#include <criterion/criterion.h>

#include "tests/seeded.h"

enum { TASKS = 4096, CHAIN_MAX = 9 };

static struct nio_inject inject;
static struct nio_local_queue local;
static struct nio_task tasks[TASKS];

static void start(void)
{
    nio_inject_init(&inject);
    nio_local_queue_init(&local);
}

TestSuite(inject, .init = start, .timeout = 30);

static unsigned index_of(const struct nio_task *task)
{
    return (unsigned)(task - tasks);
}

static void push(unsigned from, unsigned count)
{
    for (unsigned i = from; i < from + count; i++)
        tasks[i].link.next = &tasks[i + 1].link; /* the last one's is the queue's to end */
    nio_inject_push(&inject, &tasks[from].link, &tasks[from + count - 1].link, count);
}

Test(inject, an_empty_queue_gives_nothing)
{
    uint32_t count = 7;
    cr_assert_eq(nio_inject_length(&inject), 0);
    cr_assert_null(nio_inject_take(&inject, &local, 8, &count));
    cr_assert_eq(count, 0);
}

Test(inject, the_first_is_returned_and_the_batch_goes_to_the_local_queue_in_order)
{
    uint32_t count;
    push(0, 3);
    push(3, 5);
    cr_assert_eq(nio_inject_length(&inject), 8);
    cr_assert_eq(index_of(nio_inject_take(&inject, &local, 5, &count)), 0);
    cr_assert_eq(count, 5);
    cr_assert_eq(nio_inject_length(&inject), 3);
    for (unsigned i = 1; i < 5; i++)
        cr_assert_eq(index_of(nio_local_queue_pop(&local, true)), i);
    cr_assert_null(nio_local_queue_pop(&local, true));
    cr_assert_eq(index_of(nio_inject_take(&inject, &local, 1, &count)), 5);
    cr_assert_eq(count, 1);
    cr_assert_eq(nio_local_queue_length(&local), 0);
}

Test(inject, a_batch_is_no_longer_than_what_is_there)
{
    uint32_t count;
    push(0, 2);
    cr_assert_eq(index_of(nio_inject_take(&inject, &local, 100, &count)), 0);
    cr_assert_eq(count, 2);
    cr_assert_eq(nio_inject_length(&inject), 0);
    push(2, 1); /* the end of the chain was forgotten together with its tasks */
    cr_assert_eq(index_of(nio_inject_take(&inject, &local, 100, &count)), 2);
}

Test(inject, random_chains_come_out_in_the_order_they_went_in)
{
    struct nio_rng rng = seeded_rng(11);
    unsigned pushed = 0, taken = 0;
    while (taken < TASKS - 1) {
        if (pushed < TASKS - 1 && nio_rng_below(&rng, 2)) {
            unsigned count = 1 + nio_rng_below(&rng, CHAIN_MAX);
            if (count > TASKS - 1 - pushed)
                count = TASKS - 1 - pushed;
            push(pushed, count);
            pushed += count;
        } else {
            uint32_t count;
            uint32_t max = 1 + nio_rng_below(&rng, NIO_LOCAL_QUEUE_SLOTS / 2);
            struct nio_task *task = nio_inject_take(&inject, &local, max, &count);
            unsigned left = pushed - taken;
            cr_assert_eq(count, left < max ? left : max);
            for (unsigned i = 0; i < count; i++, task = nio_local_queue_pop(&local, true))
                cr_assert_eq(index_of(task), taken++);
        }
        cr_assert_eq(nio_inject_length(&inject), pushed - taken);
    }
}
