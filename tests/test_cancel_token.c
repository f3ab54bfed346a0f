/* SPDX-License-Identifier: MIT */
/* Promises of cancel tokens: what is below is cancelled, what is above and beside is not; waits,
 * selections, tasks; in any order of freeing; by several threads at once. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

#include <pthread.h>

enum { TOKENS = 64, TASKS = 16, ROUNDS = 200, SOON_NS = 2000000 };
static const uint64_t late_ns = 3600000000000ull;

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static struct numio_cancel_token *child_of(struct numio_cancel_token *parent)
{
    struct numio_cancel_token *token = NULL;
    return numio_cancel_token_create(parent, &token) == 0 ? token : NULL;
}

/* ---- the tree ------------------------------------------------------------------------------ */

Test(cancel_token, a_parent_cancels_its_children_and_no_child_its_parent, .timeout = 30)
{
    struct numio_cancel_token *root = child_of(NULL), *left = child_of(root),
                              *right = child_of(root), *below = child_of(left);
    numio_cancel_token_cancel(left);
    numio_cancel_token_cancel(left); /* a second time does nothing */
    cr_assert(numio_cancel_token_is_cancelled(left));
    cr_assert(numio_cancel_token_is_cancelled(below));
    cr_assert_not(numio_cancel_token_is_cancelled(root));
    cr_assert_not(numio_cancel_token_is_cancelled(right));
    struct numio_cancel_token *late = child_of(below);
    cr_assert(numio_cancel_token_is_cancelled(late), "born cancelled");
    numio_cancel_token_cancel(root);
    cr_assert(numio_cancel_token_is_cancelled(right));
    struct numio_cancel_token *all[] = { root, left, right, below, late, NULL };
    for (size_t i = 0; i < NIO_ARRAY_LEN(all); i++)
        numio_cancel_token_unref(all[i]);
}

Test(cancel_token, they_may_be_freed_in_any_order, .timeout = 30)
{
    struct numio_cancel_token *root = child_of(NULL), *middle = child_of(root),
                              *leaf = child_of(middle);
    numio_cancel_token_unref(middle); /* its child keeps it */
    numio_cancel_token_cancel(root);
    cr_assert(numio_cancel_token_is_cancelled(leaf));
    numio_cancel_token_unref(root);
    cr_assert(numio_cancel_token_is_cancelled(leaf));
    numio_cancel_token_unref(leaf); /* the address sanitizer sees what is left */
}

/* Random trees beside an array of parents. */
Test(cancel_token, random_trees_agree_with_a_naive_model, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(7);
    for (int round = 0; round < ROUNDS; round++) {
        struct numio_cancel_token *tokens[TOKENS] = { NULL };
        int parents[TOKENS];
        bool is_cancelled[TOKENS] = { false }, is_held[TOKENS];
        for (int i = 0; i < TOKENS; i++) {
            int any = i > 0 ? (int)nio_rng_below(&rng, (uint32_t)i) : 0;
            bool has_parent = i > 0 && nio_rng_below(&rng, 8) != 0 && is_held[any];
            parents[i] = has_parent ? any : -1;
            tokens[i] = child_of(has_parent ? tokens[any] : NULL);
            cr_assert_not_null(tokens[i]);
            is_held[i] = true;
            is_cancelled[i] = has_parent && is_cancelled[any];
            uint32_t k = nio_rng_below(&rng, (uint32_t)i + 1);
            if (nio_rng_below(&rng, 4) == 0 && is_held[k]) {
                numio_cancel_token_unref(tokens[k]);
                is_held[k] = false;
            } else if (nio_rng_below(&rng, 4) == 0 && is_held[k]) {
                numio_cancel_token_cancel(tokens[k]);
                is_cancelled[k] = true;
                for (int n = (int)k + 1; n <= i; n++) /* parents come before their children */
                    is_cancelled[n] |= parents[n] >= 0 && is_cancelled[parents[n]];
            }
            for (int n = 0; n <= i; n++)
                cr_assert(!is_held[n] ||
                          numio_cancel_token_is_cancelled(tokens[n]) == is_cancelled[n]);
        }
        for (int i = 0; i < TOKENS; i++)
            if (is_held[i])
                numio_cancel_token_unref(tokens[i]);
    }
}

/* ---- waits --------------------------------------------------------------------------------- */

static int64_t wait_for_it(void *arg)
{
    return numio_cancel_token_wait(arg);
}

static int64_t many_wait(void *arg)
{
    struct numio_cancel_token *root = arg, *middle = child_of(root), *leaf = child_of(middle);
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, wait_for_it, i % 2 ? leaf : root, NULL, &joins[i]) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_within(SOON_NS, numio_cancel_token_wait(root)) == -ETIMEDOUT);
    numio_cancel_token_cancel(root);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    EXPECT(numio_cancel_token_wait(root) == 0); /* at once */
    numio_cancel_token_unref(leaf);
    numio_cancel_token_unref(middle);
    return 0;
}

static void *wait_in_thread(void *arg)
{
    return (void *)(intptr_t)numio_cancel_token_wait(arg);
}

FIXTURE_EACH(cancel_token, whoever_waits_goes_on, .timeout = 30)
{
    struct numio_cancel_token *root = child_of(NULL), *middle = child_of(root);
    pthread_t thread;
    void *result;
    cr_assert_eq(pthread_create(&thread, NULL, wait_in_thread, middle), 0);
    cr_assert_eq(run(runtime, many_wait, root), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &result), 0);
    cr_assert_null(result);
    numio_cancel_token_unref(middle);
    numio_cancel_token_unref(root);
}

static int64_t select_with_it(void *arg)
{
    struct numio_cancel_token *token = arg;
    struct numio_semaphore semaphore = NUMIO_SEMAPHORE_INIT(0);
    struct numio_op ops[2];
    for (int i = 0; i < 2; i++) {
        numio_op_cancelled(&ops[0], token);
        numio_op_semaphore_acquire(&ops[1], &semaphore, 1);
        if (i == 0)
            EXPECT(numio_semaphore_release(&semaphore, 1) == 0);
        else
            numio_cancel_token_cancel(token);
        EXPECT(numio_select(ops, 2, NUMIO_SELECT_FAIR) == 1 - i);
        EXPECT(numio_op_result(&ops[1 - i]) == 0);
    }
    return 0;
}

FIXTURE_EACH(cancel_token, a_selection_takes_it, .timeout = 30)
{
    struct numio_cancel_token *token = child_of(NULL);
    cr_assert_eq(run(runtime, select_with_it, token), 0, "line %ld", (long)last_line);
    numio_cancel_token_unref(token);
}

struct waiter {
    struct numio_cancel_token *token;
    struct numio_op op;
    bool has_started;
};

static enum numio_poll poll_token(void *state, struct numio_context *cx)
{
    struct waiter *w = state;
    int64_t result = -EIO;
    if (!w->has_started) {
        numio_op_cancelled(&w->op, w->token);
        w->has_started = true;
        if (numio_op_start(&w->op, cx) != 0)
            return NUMIO_READY;
    }
    if (numio_op_poll(&w->op, cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    *(int64_t *)numio_context_output(cx) = result;
    return NUMIO_READY;
}

static int64_t futures_wait(void *arg)
{
    struct waiter w = { .token = arg };
    struct numio_future future = {
        .poll = poll_token, .state = &w, .size = sizeof w, .output_size = sizeof(int64_t)
    };
    struct numio_join *stays, *goes;
    int64_t result = 1;
    EXPECT(numio_spawn(NULL, &future, NULL, &stays) == 0);
    EXPECT(numio_spawn(NULL, &future, NULL, &goes) == 0);
    EXPECT(numio_yield_now() == 0 && numio_yield_now() == 0);
    numio_join_abort(goes);
    EXPECT(numio_join_await(&goes) == -ECANCELED);
    numio_cancel_token_cancel(arg);
    EXPECT(numio_join_await_output(&stays, &result, sizeof result) == 0);
    EXPECT(result == 0);
    return 0;
}

FIXTURE_EACH(cancel_token, futures_wait_and_may_be_aborted, .timeout = 30)
{
    struct numio_cancel_token *token = child_of(NULL);
    cr_assert_eq(run(runtime, futures_wait, token), 0, "line %ld", (long)last_line);
    numio_cancel_token_unref(token);
}

static void reset(void *arg)
{
    struct waiter *w = arg;
    w->token = child_of(NULL);
}

static int64_t wait_twice(void *arg)
{
    struct waiter *w = arg;
    int64_t rc = numio_within(SOON_NS, numio_cancel_token_wait(w->token));
    return rc == -ETIMEDOUT ? numio_cancel_token_wait(w->token) : rc;
}

static int64_t cancel_after(void *arg)
{
    struct waiter *w = arg;
    EXPECT(numio_sleep_ns(3 * SOON_NS) == 0);
    numio_cancel_token_cancel(w->token);
    return 0;
}

static int64_t check_free(void *arg, int64_t result)
{
    struct waiter *w = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    numio_cancel_token_unref(w->token);
    return 0;
}

Test(cancel_token, a_waiter_may_be_aborted_at_each_step, .timeout = 60)
{
    struct waiter w;
    struct abort_case what = { reset, wait_twice, cancel_after, check_free, &w };
    cr_assert_geq(abort_each(&what), 2u);
}

/* ---- tasks --------------------------------------------------------------------------------- */

static int64_t sleep_long(void *arg)
{
    (void)arg;
    return numio_sleep_ns(late_ns);
}

static int64_t return_seven(void *arg)
{
    (void)arg;
    return 7;
}

static enum numio_poll never(void *state, struct numio_context *cx)
{
    (void)state;
    (void)cx;
    return NUMIO_PENDING;
}

static int64_t spawn_with_it(void *arg)
{
    struct numio_cancel_token *root = arg, *token = child_of(root);
    struct numio_future future = { .poll = never };
    struct numio_spawn_opts opts;
    struct numio_join *joins[TASKS], *quick, *late;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.cancel = token;
    for (int i = 0; i < TASKS; i++)
        EXPECT((i % 2 ? numio_spawn_co(NULL, sleep_long, NULL, &opts, &joins[i])
                      : numio_spawn(NULL, &future, &opts, &joins[i])) == 0);
    EXPECT(numio_spawn_co(NULL, return_seven, NULL, &opts, &quick) == 0);
    EXPECT(numio_join_await(&quick) == 7); /* ended before: not the token's any more */
    numio_cancel_token_unref(token);       /* the tasks keep it */
    numio_cancel_token_cancel(root);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == -ECANCELED);
    opts.cancel = root;
    EXPECT(numio_spawn_co(NULL, return_seven, NULL, &opts, &late) == 0);
    EXPECT(numio_join_await(&late) == -ECANCELED); /* it never runs */
    EXPECT(numio_spawn_blocking(NULL, return_seven, NULL, &opts, &late) == -EINVAL);
    return 0;
}

FIXTURE_EACH(cancel_token, tasks_spawned_with_it_are_aborted, .timeout = 30)
{
    struct numio_cancel_token *root = child_of(NULL);
    cr_assert_eq(run(runtime, spawn_with_it, root), 0, "line %ld", (long)last_line);
    numio_cancel_token_unref(root);
}

FIXTURE_EACH(cancel_token, a_shutdown_ends_its_waiters, .timeout = 30)
{
    struct numio_cancel_token *token = child_of(NULL);
    struct numio_spawn_opts opts;
    struct numio_join *join, *with_token;
    size_t left = 1;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.cancel = token;
    struct numio_handle *handle = numio_runtime_handle(runtime);
    cr_assert_eq(numio_spawn_co(handle, wait_for_it, token, NULL, &join), 0);
    cr_assert_eq(numio_spawn_co(handle, sleep_long, NULL, &opts, &with_token), 0);
    cr_assert_eq(numio_runtime_shutdown(runtime, 10000000000, NULL, 0, &left), 0);
    cr_assert_eq(numio_join_wait(&join, -1), -ECANCELED);
    cr_assert_eq(numio_join_wait(&with_token, -1), -ECANCELED);
    numio_cancel_token_cancel(token);
    numio_cancel_token_unref(token);
}

static int64_t with_faults(void *arg)
{
    struct numio_cancel_token *token = arg;
    struct numio_spawn_opts opts;
    bool has_struck = true;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.cancel = token;
    for (long nth = 1; has_struck; nth++) {
        struct numio_join *join = NULL;
        struct numio_cancel_token *child = NULL;
        nio_fault_arm(nth);
        int rc = numio_spawn_co(NULL, return_seven, NULL, &opts, &join);
        if (rc == 0)
            rc = numio_cancel_token_create(token, &child);
        has_struck = nio_fault_struck();
        nio_fault_arm(0);
        EXPECT(rc == (has_struck ? -ENOMEM : 0));
        if (join)
            EXPECT(numio_join_await(&join) == 7);
        numio_cancel_token_unref(child);
    }
    return 0;
}

Test(cancel_token, without_memory_a_spawn_says_so_and_leaves_nothing, .timeout = 30)
{
    struct numio_cancel_token *token = child_of(NULL);
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, with_faults, token), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
    numio_cancel_token_unref(token);
}
