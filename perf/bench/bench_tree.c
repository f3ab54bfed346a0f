/* SPDX-License-Identifier: MIT */
/* Scenarios that unfold a tree of joined tasks. */
#include <stdlib.h>

#include <numio/scope.h>

#include "perf/bench/bench_scenarios.h"

enum {
    FIB = 27,
    FIB_QUICK = 20,
    BRANCHES = 10,
    EXPONENT = 6, /* ten to the sixth leaves */
    EXPONENT_QUICK = 4,
    /* As a coroutine's argument a subtree is its first leaf, shifted, and its exponent. */
    EXPONENT_BITS = 4
};

/* What the root spawns and what it wants back. */
struct tree {
    const struct numio_future *future; /* its output is the result */
    int64_t (*fn)(void *arg);          /* the same as a coroutine */
    void *arg;
    uint64_t want, tasks;
    struct bench_block block; /* written by the coroutine root */
};

static void check(const struct tree *tree, uint64_t got)
{
    if (got != tree->want)
        bench_fail("the tree's result is %llu, not %llu", (unsigned long long)got,
                   (unsigned long long)tree->want);
}

/* --- roots ---------------------------------------------------------------------------------- */

struct root {
    const struct tree *tree;
    struct numio_join *join;
    uint64_t start_ns;
};

static enum numio_poll root_poll(void *state, struct numio_context *cx)
{
    struct root *r = state;
    if (r->start_ns == 0) {
        r->start_ns = bench_now_ns();
        bench_must(numio_spawn(NULL, r->tree->future, NULL, &r->join), "numio_spawn");
    }
    uint64_t got;
    int64_t result;
    if (numio_join_poll(&r->join, cx, &got, sizeof got, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    struct bench_block *block = numio_context_output(cx);
    block->time_ns = bench_now_ns() - r->start_ns;
    block->ops = r->tree->tasks;
    bench_must(result, "join of the tree");
    check(r->tree, got);
    return NUMIO_READY;
}

static int64_t root_co(void *arg)
{
    struct tree *tree = arg;
    uint64_t start_ns = bench_now_ns();
    struct numio_join *join;
    bench_must(numio_spawn_co(NULL, tree->fn, tree->arg, NULL, &join), "numio_spawn_co");
    int64_t got = numio_join_await(&join);
    tree->block.time_ns = bench_now_ns() - start_ns;
    tree->block.ops = tree->tasks;
    bench_must(got, "join of the tree");
    check(tree, (uint64_t)got);
    return 0;
}

static struct bench_block tree_block(struct bench *b, void *arg)
{
    struct tree *tree = arg;
    if (b->scenario->flavor == BENCH_COROUTINE) {
        bench_must(numio_block_on(b->handle, root_co, tree), "numio_block_on");
        return tree->block;
    }
    struct root root = { .tree = tree };
    return bench_inside(b, root_poll, &root, sizeof root);
}

static void run_tree(struct bench *b, struct tree *tree)
{
    if (!bench_start(b))
        return;
    bench_single(b, tree_block, tree);
    bench_stop(b);
}

/* --- fib27 ---------------------------------------------------------------------------------- */

struct fib {
    uint64_t n;
    struct numio_join *left, *right; /* NULL once joined */
    uint64_t sum;
    bool has_spawned;
};

static enum numio_poll fib_poll(void *state, struct numio_context *cx);

static void spawn_fib(uint64_t n, struct numio_join **ret_join)
{
    struct fib child = { .n = n };
    struct numio_future future = {
        .poll = fib_poll, .state = &child, .size = sizeof child, .output_size = sizeof(uint64_t)
    };
    bench_must(numio_spawn(NULL, &future, NULL, ret_join), "numio_spawn");
}

/* Adds the child's result to the sum. */
static enum numio_poll fib_join(struct fib *f, struct numio_join **join, struct numio_context *cx)
{
    uint64_t value;
    int64_t result;
    if (numio_join_poll(join, cx, &value, sizeof value, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    bench_must(result, "join of a call");
    f->sum += value;
    return NUMIO_READY;
}

static enum numio_poll fib_poll(void *state, struct numio_context *cx)
{
    struct fib *f = state;
    if (f->n < 2) {
        *(uint64_t *)numio_context_output(cx) = f->n;
        return NUMIO_READY;
    }
    if (!f->has_spawned) {
        spawn_fib(f->n - 1, &f->left);
        spawn_fib(f->n - 2, &f->right);
        f->has_spawned = true;
    }
    if (f->left && fib_join(f, &f->left, cx) == NUMIO_PENDING)
        return NUMIO_PENDING;
    if (fib_join(f, &f->right, cx) == NUMIO_PENDING)
        return NUMIO_PENDING;
    *(uint64_t *)numio_context_output(cx) = f->sum;
    return NUMIO_READY;
}

static int64_t fib_co(void *arg)
{
    uintptr_t n = (uintptr_t)arg;
    if (n < 2)
        return (int64_t)n;
    struct numio_join *left, *right;
    bench_must(numio_spawn_co(NULL, fib_co, (void *)(n - 1), NULL, &left), "numio_spawn_co");
    bench_must(numio_spawn_co(NULL, fib_co, (void *)(n - 2), NULL, &right), "numio_spawn_co");
    int64_t a = numio_join_await(&left);
    bench_must(a, "join of a call");
    int64_t b = numio_join_await(&right);
    bench_must(b, "join of a call");
    return a + b;
}

/* The same with a scope for each call: the results go to the caller's frame. */
struct fib_call {
    uint64_t n;
    int64_t value;
};

static int64_t fib_scope(void *arg)
{
    struct fib_call *call = arg;
    if (call->n < 2) {
        call->value = (int64_t)call->n;
        return 0;
    }
    struct fib_call left = { .n = call->n - 1 }, right = { .n = call->n - 2 };
    struct numio_scope scope;
    bench_must(numio_scope_open(&scope, 0), "numio_scope_open");
    bench_must(numio_scope_spawn_co(&scope, fib_scope, &left, NULL), "numio_scope_spawn_co");
    bench_must(numio_scope_spawn_co(&scope, fib_scope, &right, NULL), "numio_scope_spawn_co");
    bench_must(numio_scope_close(&scope), "numio_scope_close");
    call->value = left.value + right.value;
    return 0;
}

static int64_t fib_scope_root(void *arg)
{
    struct fib_call call = { .n = (uintptr_t)arg };
    (void)fib_scope(&call); /* always 0 */
    return call.value;
}

static void run_fib(struct bench *b, int64_t (*fn)(void *arg))
{
    uint64_t n = b->options->is_quick ? FIB_QUICK : FIB;
    struct fib first = { .n = n };
    struct numio_future future = {
        .poll = fib_poll, .state = &first, .size = sizeof first, .output_size = sizeof(uint64_t)
    };
    struct tree tree = { .future = &future, .fn = fn, .arg = (void *)(uintptr_t)n };
    uint64_t next = 1;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t sum = tree.want + next;
        tree.want = next;
        next = sum;
    }
    tree.tasks = 2 * next - 1; /* calls of the naive recursion */
    run_tree(b, &tree);
}

void bench_fib27(struct bench *b)
{
    run_fib(b, fib_co);
}

void bench_fib27_scope(struct bench *b)
{
    run_fib(b, fib_scope_root);
}

/* --- skynet --------------------------------------------------------------------------------- */

struct skynet {
    uint64_t first, leaves; /* the leaves first .. first + leaves */
    struct numio_join *children[BRANCHES];
    unsigned joined;
    bool has_spawned;
    uint64_t sum;
};

static enum numio_poll skynet_poll(void *state, struct numio_context *cx);

static void spawn_skynet_children(struct skynet *s)
{
    struct skynet child = { .first = s->first, .leaves = s->leaves / BRANCHES };
    struct numio_future future = {
        .poll = skynet_poll, .state = &child, .size = sizeof child, .output_size = sizeof(uint64_t)
    };
    for (unsigned i = 0; i < BRANCHES; i++) {
        bench_must(numio_spawn(NULL, &future, NULL, &s->children[i]), "numio_spawn");
        child.first += child.leaves;
    }
    s->has_spawned = true;
}

static enum numio_poll skynet_poll(void *state, struct numio_context *cx)
{
    struct skynet *s = state;
    if (s->leaves == 1) {
        *(uint64_t *)numio_context_output(cx) = s->first;
        return NUMIO_READY;
    }
    if (!s->has_spawned)
        spawn_skynet_children(s);
    for (; s->joined < BRANCHES; s->joined++) {
        uint64_t value;
        int64_t result;
        if (numio_join_poll(&s->children[s->joined], cx, &value, sizeof value, &result) ==
            NUMIO_PENDING)
            return NUMIO_PENDING;
        bench_must(result, "join of a child");
        s->sum += value;
    }
    *(uint64_t *)numio_context_output(cx) = s->sum;
    return NUMIO_READY;
}

static uint64_t power_of_ten(unsigned exponent)
{
    uint64_t power = 1;
    for (unsigned i = 0; i < exponent; i++)
        power *= BRANCHES;
    return power;
}

static int64_t skynet_co(void *arg)
{
    uintptr_t first = (uintptr_t)arg >> EXPONENT_BITS;
    unsigned exponent = (uintptr_t)arg & ((1U << EXPONENT_BITS) - 1);
    if (exponent == 0)
        return (int64_t)first;
    struct numio_join *children[BRANCHES];
    uintptr_t step = power_of_ten(exponent - 1);
    for (unsigned i = 0; i < BRANCHES; i++) {
        uintptr_t child = (first + i * step) << EXPONENT_BITS | (exponent - 1);
        bench_must(numio_spawn_co(NULL, skynet_co, (void *)child, NULL, &children[i]),
                   "numio_spawn_co");
    }
    int64_t sum = 0;
    for (unsigned i = 0; i < BRANCHES; i++) {
        int64_t value = numio_join_await(&children[i]);
        bench_must(value, "join of a child");
        sum += value;
    }
    return sum;
}

/* The same with a scope for each task that has children. */
struct skynet_call {
    uint64_t first;
    unsigned exponent;
    int64_t sum;
};

static int64_t skynet_scope(void *arg)
{
    struct skynet_call *call = arg;
    if (call->exponent == 0) {
        call->sum = (int64_t)call->first;
        return 0;
    }
    struct skynet_call children[BRANCHES];
    uint64_t step = power_of_ten(call->exponent - 1);
    struct numio_scope scope;
    bench_must(numio_scope_open(&scope, 0), "numio_scope_open");
    for (unsigned i = 0; i < BRANCHES; i++) {
        children[i] = (struct skynet_call){ call->first + i * step, call->exponent - 1, 0 };
        bench_must(numio_scope_spawn_co(&scope, skynet_scope, &children[i], NULL),
                   "numio_scope_spawn_co");
    }
    bench_must(numio_scope_close(&scope), "numio_scope_close");
    call->sum = 0;
    for (unsigned i = 0; i < BRANCHES; i++)
        call->sum += children[i].sum;
    return 0;
}

static int64_t skynet_scope_root(void *arg)
{
    struct skynet_call call = { .exponent = (unsigned)(uintptr_t)arg };
    (void)skynet_scope(&call); /* always 0 */
    return call.sum;
}

static void run_skynet(struct bench *b, int64_t (*fn)(void *arg))
{
    unsigned exponent = b->options->is_quick ? EXPONENT_QUICK : EXPONENT;
    uint64_t leaves = power_of_ten(exponent);
    struct skynet top = { .leaves = leaves };
    struct numio_future future = {
        .poll = skynet_poll, .state = &top, .size = sizeof top, .output_size = sizeof(uint64_t)
    };
    struct tree tree = {
        .future = &future,
        .fn = fn,
        .arg = (void *)(uintptr_t)exponent,
        .want = leaves * (leaves - 1) / 2,
        .tasks = (leaves * BRANCHES - 1) / (BRANCHES - 1),
    };
    run_tree(b, &tree);
}

void bench_skynet(struct bench *b)
{
    run_skynet(b, skynet_co);
}

void bench_skynet_scope(struct bench *b)
{
    run_skynet(b, skynet_scope_root);
}
