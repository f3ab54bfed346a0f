/* SPDX-License-Identifier: MIT */
#include "runtime/base/mpsc.h"

#include <criterion/criterion.h>

#include "runtime/base/compiler.h"
#include "tests/seeded.h"

TestSuite(mpsc, .timeout = 30);

struct item {
    struct nio_mpsc_node node;
    unsigned number;
};

static unsigned number_of(struct nio_mpsc_node *node)
{
    return NIO_CONTAINER_OF(node, struct item, node)->number;
}

Test(mpsc, only_the_push_into_an_empty_stack_says_so)
{
    struct nio_mpsc stack;
    struct item items[3];
    nio_mpsc_init(&stack);
    cr_assert(nio_mpsc_is_empty(&stack));
    cr_assert(nio_mpsc_push(&stack, &items[0].node));
    cr_assert_not(nio_mpsc_push(&stack, &items[1].node));
    cr_assert_not(nio_mpsc_is_empty(&stack));
    (void)nio_mpsc_take(&stack);
    cr_assert(nio_mpsc_is_empty(&stack));
    cr_assert(nio_mpsc_push(&stack, &items[2].node));
}

Test(mpsc, take_of_an_empty_stack_is_null)
{
    struct nio_mpsc stack;
    nio_mpsc_init(&stack);
    cr_assert_null(nio_mpsc_take(&stack));
    cr_assert_null(nio_mpsc_take_fifo(&stack));
}

Test(mpsc, take_gives_everything_newest_first_and_take_fifo_oldest_first)
{
    struct nio_mpsc stack;
    struct item items[5];
    for (unsigned is_fifo = 0; is_fifo < 2; is_fifo++) {
        nio_mpsc_init(&stack);
        for (unsigned i = 0; i < 5; i++) {
            items[i].number = i;
            (void)nio_mpsc_push(&stack, &items[i].node);
        }
        struct nio_mpsc_node *node = is_fifo ? nio_mpsc_take_fifo(&stack) : nio_mpsc_take(&stack);
        for (unsigned i = 0; i < 5; i++, node = node->next)
            cr_assert_eq(number_of(node), is_fifo ? i : 4 - i);
        cr_assert_null(node);
    }
}

Test(mpsc, random_chains_keep_their_order)
{
    enum { ITEMS = 4000, CHAIN_MAX = 7 };
    static struct item items[ITEMS];
    struct nio_rng rng = seeded_rng(3);
    struct nio_mpsc stack;
    nio_mpsc_init(&stack);
    unsigned pushed = 0, taken = 0;
    while (taken < ITEMS) {
        if (pushed < ITEMS && nio_rng_below(&rng, 3) > 0) {
            unsigned count = 1 + nio_rng_below(&rng, CHAIN_MAX);
            if (count > ITEMS - pushed)
                count = ITEMS - pushed;
            /* A chain is linked newest first, as the stack is. */
            for (unsigned i = 0; i < count; i++) {
                items[pushed + i].number = pushed + i;
                items[pushed + i].node.next = i ? &items[pushed + i - 1].node : NULL;
            }
            bool was_empty =
                nio_mpsc_push_chain(&stack, &items[pushed + count - 1].node, &items[pushed].node);
            cr_assert_eq(was_empty, taken == pushed);
            pushed += count;
        } else {
            for (struct nio_mpsc_node *n = nio_mpsc_take_fifo(&stack); n; n = n->next)
                cr_assert_eq(number_of(n), taken++);
            cr_assert_eq(taken, pushed);
        }
    }
}
