/* SPDX-License-Identifier: MIT */
/* Promises of spawning: results, outputs, batches, affinities, refusals, no memory. */
#include "tests/runtime_fixture.h"

#include <pthread.h>
#include <stdio.h>

#include "runtime/base/compiler.h"

enum { BATCH = 1000, PLACED = 400, FAULTS_MAX = 4000 };

static int64_t echo(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

struct sum {
    uint32_t left; /* polls to go */
    uint64_t value;
};

static _Atomic uint32_t drops;

static void count_drop(void *state)
{
    (void)state;
    /* relaxed: read after the tasks were joined or the runtime has ended */
    (void)atomic_fetch_add_explicit(&drops, 1, memory_order_relaxed);
}

static enum numio_poll sum_up(void *state, struct numio_context *cx)
{
    struct sum *sum = state;
    if (sum->left-- > 1) {
        sum->value += sum->left;
        numio_context_yield(cx);
        return NUMIO_PENDING;
    }
    if (numio_context_output(cx))
        memcpy(numio_context_output(cx), &sum->value, sizeof sum->value);
    return NUMIO_READY;
}

static struct numio_future future_of(const struct sum *sum)
{
    return (struct numio_future){ .poll = sum_up,
                                  .drop = count_drop,
                                  .state = sum,
                                  .size = sizeof *sum,
                                  .output_size = sizeof sum->value };
}

Test(spawn, a_future_runs_on_a_copy_of_its_state_and_hands_its_output_over, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct sum sum = { .left = 5, .value = 100 };
    struct numio_future future = future_of(&sum);
    struct numio_join *join;
    uint64_t output = 0;
    cr_assert_eq(numio_spawn(numio_runtime_handle(runtime), &future, NULL, &join), 0);
    sum.value = 0; /* it was copied */
    cr_assert_eq(numio_join_await_output(&join, &output, 4), -EINVAL);
    cr_assert_not_null(join);
    cr_assert_eq(numio_join_await_output(&join, &output, sizeof output), 0);
    cr_assert_null(join);
    cr_assert_eq(output, 100 + 4 + 3 + 2 + 1);
    cr_assert_eq(fixture_get(&drops), 1);
    numio_runtime_destroy(runtime);
}

static enum numio_poll check_zeroes(void *state, struct numio_context *cx)
{
    unsigned char *bytes = state;
    unsigned char *output = numio_context_output(cx);
    uint32_t wrong = (uintptr_t)state % 16 != 0;
    for (unsigned i = 0; i < 300; i++)
        wrong += bytes[i] != 0;
    for (unsigned i = 0; i < 300; i++)
        wrong += output[i] != 0;
    memset(state, 0xff, 300); /* for the next that gets the cell */
    memset(output, 0xff, 300);
    output[0] = wrong > 0;
    return NUMIO_READY;
}

Test(spawn, a_future_without_state_gets_aligned_zeroes, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_future future = { .poll = check_zeroes, .size = 300, .output_size = 300 };
    for (unsigned i = 0; i < 200; i++) {
        struct numio_join *join;
        unsigned char output[300];
        cr_assert_eq(numio_spawn(numio_runtime_handle(runtime), &future, NULL, &join), 0);
        cr_assert_eq(numio_join_await_output(&join, output, sizeof output), 0);
        cr_assert_eq(output[0], 0);
        cr_assert_eq(output[299], 0xff);
    }
    numio_runtime_destroy(runtime);
}

Test(spawn, the_largest_state_and_output_fit, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_future future = { .poll = check_zeroes, .size = 64 << 10, .output_size = 4 << 10 };
    static unsigned char output[4 << 10];
    struct numio_join *join;
    cr_assert_eq(numio_spawn(numio_runtime_handle(runtime), &future, NULL, &join), 0);
    cr_assert_eq(numio_join_await_output(&join, output, sizeof output), 0);
    cr_assert_eq(output[0], 0);
    numio_runtime_destroy(runtime);
}

static void refused(struct numio_handle *handle, const struct numio_future *future,
                    const struct numio_spawn_opts *opts, const char *field)
{
    struct numio_join *join = (struct numio_join *)&join;
    cr_assert_eq(numio_spawn(handle, future, opts, &join), -EINVAL, "%s", field);
    cr_assert(strstr(numio_strerror_detail(), field), "%s: %s", field, numio_strerror_detail());
    cr_assert_eq((void *)join, (void *)&join, "ret_join is untouched on failure");
}

static void options_refused(struct numio_handle *handle, size_t offset, int64_t value, size_t bytes,
                            const char *field)
{
    struct numio_future future = { .poll = check_zeroes, .size = 300, .output_size = 300 };
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    memcpy((char *)&opts + offset, &value, bytes);
    refused(handle, &future, &opts, field);
}

#define OPTIONS_REFUSED(handle, field, value)                                                      \
    options_refused(handle, offsetof(struct numio_spawn_opts, field), value,                       \
                    sizeof((struct numio_spawn_opts *)0)->field, #field)

/* As a program has them that was built for a newer numio. */
Test(spawn, a_newer_programs_options_are_taken_unless_they_say_what_is_not_known, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_future future = { .poll = check_zeroes, .size = 300, .output_size = 300 };
    struct {
        struct numio_spawn_opts known;
        uint64_t unknown[2];
    } opts;
    struct numio_join *join = NULL;
    memset(&opts, 0x5a, sizeof opts);
    numio_spawn_opts_init(&opts.known, sizeof opts);
    cr_assert(opts.unknown[0] == 0 && opts.unknown[1] == 0);
    cr_assert_eq(numio_spawn(handle, &future, &opts.known, &join), 0, "%s",
                 numio_strerror_detail());
    cr_assert_eq(numio_join_await(&join), 0);
    opts.unknown[1] = 1;
    cr_assert_eq(numio_spawn(handle, &future, &opts.known, &join), -E2BIG);
    cr_assert(strstr(numio_strerror_detail(), "spawn options"), "%s", numio_strerror_detail());
    numio_runtime_destroy(runtime);
}

Test(spawn, each_field_out_of_range_is_refused_by_name, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_future future = { .poll = NULL };
    struct numio_spawn_opts opts;
    struct numio_join *join = NULL;
    refused(handle, &future, NULL, "poll");
    future.poll = check_zeroes;
    future.size = (64 << 10) + 1;
    refused(handle, &future, NULL, "size");
    future.size = 0;
    future.output_size = (4 << 10) + 1;
    refused(handle, &future, NULL, "output_size");
    OPTIONS_REFUSED(handle, size, 1);
    OPTIONS_REFUSED(handle, node, -2);
    OPTIONS_REFUSED(handle, node, 100);
    OPTIONS_REFUSED(handle, worker, -2);
    OPTIONS_REFUSED(handle, worker, 2);
    OPTIONS_REFUSED(handle, affinity, 3);
    OPTIONS_REFUSED(handle, stack_bytes, (64 << 10) + 1);
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER; /* and no worker is given, on a thread that is none */
    future = (struct numio_future){ .poll = check_zeroes, .size = 300, .output_size = 300 };
    refused(handle, &future, &opts, "worker");
    cr_assert_eq(numio_spawn_co(handle, NULL, NULL, NULL, &join), -EINVAL);
    cr_assert_eq(numio_spawn_blocking(handle, NULL, NULL, NULL, &join), -EINVAL);
    cr_assert_eq(numio_spawn(NULL, &future, NULL, &join), -EINVAL);
    cr_assert_eq(numio_live_tasks(handle), 0);
    numio_runtime_destroy(runtime);
}

/* ---- batches ------------------------------------------------------------------------------ */

static void batch(struct numio_handle *handle, const struct numio_spawn_opts *opts)
{
    static struct numio_future futures[BATCH];
    static struct numio_join *joins[BATCH];
    static struct sum sums[BATCH];
    for (uint32_t i = 0; i < BATCH; i++) {
        sums[i] = (struct sum){ .left = 1 + i % 3, .value = i };
        futures[i] = future_of(&sums[i]);
    }
    cr_assert_eq(numio_spawn_batch(handle, futures, BATCH, opts, joins), 0);
    for (uint32_t i = 0; i < BATCH; i++) {
        uint64_t output;
        cr_assert_eq(numio_join_await_output(&joins[i], &output, sizeof output), 0);
        uint64_t extra = i % 3 == 2 ? 3 : i % 3;
        cr_assert_eq(output, i + extra, "future %u", i);
    }
}

Test(spawn, a_batch_hands_out_its_joins_in_order, .timeout = 20)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    batch(numio_runtime_handle(runtime), NULL);
    opts.affinity = NUMIO_AFFINITY_NODE;
    batch(numio_runtime_handle(runtime), &opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    opts.worker = 1;
    batch(numio_runtime_handle(runtime), &opts);
    cr_assert_eq(fixture_get(&drops), 3 * BATCH);
    numio_runtime_destroy(runtime);
}

Test(spawn, a_batch_is_all_or_none, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct sum sum = { .left = 1 };
    struct numio_future futures[3] = { future_of(&sum), future_of(&sum), future_of(&sum) };
    struct numio_join *joins[3] = { NULL };
    futures[2].poll = NULL;
    cr_assert_eq(numio_spawn_batch(handle, futures, 3, NULL, joins), -EINVAL);
    futures[2].poll = sum_up;
    for (long nth = 1; nth <= 3; nth++) {
        nio_fault_arm(nth);
        int rc = numio_spawn_batch(handle, futures, 3, NULL, joins);
        bool has_struck = nio_fault_struck();
        nio_fault_arm(0);
        cr_assert_eq(rc, has_struck ? -ENOMEM : 0);
        for (unsigned i = 0; rc == 0 && i < 3; i++)
            cr_assert_eq(numio_join_await(&joins[i]), 0);
        if (rc == -ENOMEM)
            cr_assert_null(joins[0]);
    }
    cr_assert_eq(numio_spawn_batch(handle, futures, 0, NULL, NULL), 0);
    cr_assert_eq(numio_live_tasks(handle), 0);
    numio_runtime_destroy(runtime);
}

Test(spawn, a_detached_batch_runs, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct sum sum = { .left = 2 };
    static struct numio_future futures[BATCH];
    for (unsigned i = 0; i < BATCH; i++)
        futures[i] = future_of(&sum);
    cr_assert_eq(numio_spawn_batch(numio_runtime_handle(runtime), futures, BATCH, NULL, NULL), 0);
    numio_runtime_destroy(runtime); /* cancels those that have not run: dropped all the same */
    cr_assert_eq(fixture_get(&drops), BATCH);
}

/* ---- affinities --------------------------------------------------------------------------- */

struct placed {
    int wanted_worker, wanted_node; /* -1: any */
    unsigned hops, wrong;
    _Atomic uint32_t *seen; /* bit per worker */
};

static void look(struct placed *placed)
{
    int worker = numio_current_worker();
    int node = numio_current_node();
    placed->hops++;
    placed->wrong += placed->wanted_worker >= 0 && worker != placed->wanted_worker;
    placed->wrong += placed->wanted_node >= 0 && node != placed->wanted_node;
    if (placed->seen)
        /* relaxed: read after the tasks were joined */
        (void)atomic_fetch_or_explicit(placed->seen, 1u << worker, memory_order_relaxed);
}

/* Yields, sleeps, and is woken by a descriptor: all ways back into a run queue. */
static int64_t wander(void *arg)
{
    struct placed *placed = arg;
    char byte = 0;
    int ends[2];
    if (pipe(ends) != 0)
        return -errno;
    for (unsigned i = 0; i < 4; i++) {
        look(placed);
        if (numio_yield_now() < 0)
            placed->wrong++;
        look(placed);
        if (numio_sleep_ns(1000 * (i + 1)) < 0)
            placed->wrong++;
        look(placed);
        if (numio_write(ends[1], &byte, 1) != 1 || numio_read(ends[0], &byte, 1) != 1)
            placed->wrong++;
        look(placed);
    }
    (void)numio_close(ends[0]); /* the counts show what matters */
    (void)numio_close(ends[1]);
    return 0;
}

/* PLACED wanderers with the options, over a machine of two nodes with two workers each. */
static void wander_all(enum numio_affinity affinity, int worker, int node, _Atomic uint32_t *seen)
{
    static struct placed placed[PLACED];
    static struct numio_join *joins[PLACED];
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 0);
    config.topology = "pack:2 numa:1 core:2 pu:1";
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = affinity;
    opts.worker = worker;
    opts.node = node;
    for (unsigned i = 0; i < PLACED; i++) {
        placed[i] = (struct placed){ .wanted_worker = worker, .wanted_node = node, .seen = seen };
        cr_assert_eq(
            numio_spawn_co(numio_runtime_handle(runtime), wander, &placed[i], &opts, &joins[i]), 0);
        cr_assert_eq(numio_join_meta(joins[i]).node < 2, true);
    }
    for (unsigned i = 0; i < PLACED; i++) {
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
        cr_assert_eq(placed[i].hops, 16);
        cr_assert_eq(placed[i].wrong, 0, "task %u was %u times in the wrong place", i,
                     placed[i].wrong);
    }
    numio_runtime_destroy(runtime);
}

Test(spawn, a_task_pinned_to_a_worker_never_leaves_it, .timeout = 30)
{
    wander_all(NUMIO_AFFINITY_WORKER, 0, NUMIO_NODE_ANY, NULL);
    wander_all(NUMIO_AFFINITY_WORKER, 3, NUMIO_NODE_ANY, NULL);
}

Test(spawn, a_task_bound_to_a_node_never_leaves_it, .timeout = 30)
{
    wander_all(NUMIO_AFFINITY_NODE, NUMIO_WORKER_ANY, 0, NULL);
    wander_all(NUMIO_AFFINITY_NODE, NUMIO_WORKER_ANY, 1, NULL);
}

Test(spawn, tasks_without_affinity_spread_over_the_nodes, .timeout = 30)
{
    _Atomic uint32_t seen = 0;
    wander_all(NUMIO_AFFINITY_ANY, NUMIO_WORKER_ANY, NUMIO_NODE_ANY, &seen);
    cr_assert_neq(fixture_get(&seen) & 3u, 0, "nobody of node 0 ran a task");
    cr_assert_neq(fixture_get(&seen) & 12u, 0, "nobody of node 1 ran a task");
}

struct child {
    struct placed placed;
    enum numio_affinity affinity;
};

/* Spawned with WORKER_ANY inside a task: the spawner's own worker. */
static int64_t spawn_beside_me(void *arg)
{
    struct child *child = arg;
    struct numio_join *join;
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = child->affinity;
    child->placed.wanted_worker = numio_current_worker();
    int rc = numio_spawn_co(NULL, wander, &child->placed, &opts, &join);
    return rc < 0 ? rc : numio_join_await(&join);
}

Test(spawn, a_local_task_stays_with_its_spawner, .timeout = 30)
{
    struct numio_runtime *runtime = fixture_start(2);
    for (unsigned i = 0; i < 20; i++) {
        struct child child = { .placed = { .wanted_node = -1 }, .affinity = NUMIO_AFFINITY_WORKER };
        cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), spawn_beside_me, &child), 0);
        cr_assert_eq(child.placed.hops, 16);
        cr_assert_eq(child.placed.wrong, 0);
    }
    numio_runtime_destroy(runtime);
}

Test(spawn, a_worker_on_another_node_contradicts_the_node, .timeout = 10)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 0);
    config.topology = "pack:2 numa:1 core:2 pu:1";
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_spawn_opts opts;
    struct numio_join *join;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    opts.worker = 0;
    opts.node = 1;
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), echo, NULL, &opts, &join), -EINVAL);
    numio_runtime_destroy(runtime);
}

Test(spawn, a_future_can_be_pinned_too, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    for (int i = 0; i < 2; i++) {
        opts.worker = i;
        batch(numio_runtime_handle(runtime), &opts);
    }
    numio_runtime_destroy(runtime);
}

/* ---- what is known of a task -------------------------------------------------------------- */

static int64_t tell_meta(void *arg)
{
    return numio_task_current(arg);
}

Test(spawn, a_task_knows_its_name_place_and_node, .timeout = 10)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_task_meta meta;
    struct numio_join *join;
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.name = "teller";
    int line = __LINE__ + 1;
    cr_assert_eq(numio_spawn_co(handle, tell_meta, &meta, &opts, &join), 0);
    struct numio_task_meta outside = numio_join_meta(join);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    cr_assert_str_eq(meta.name, "teller");
    cr_assert(strstr(meta.file, "test_spawn.c"));
    cr_assert_eq(meta.line, line);
    cr_assert_eq(meta.node, 0);
    cr_assert_eq(meta.id, outside.id);
    cr_assert_eq(numio_task_current(&meta), -EINVAL);
    numio_runtime_destroy(runtime);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int64_t spawn_and_tell(void *arg)
{
    uint64_t *ids = arg;
    for (unsigned i = 0; i < 100; i++) {
        struct numio_join *join;
        int rc = numio_spawn_co(NULL, echo, NULL, NULL, &join);
        if (rc < 0)
            return rc;
        ids[i] = numio_join_meta(join).id;
        (void)numio_join_await(&join); /* echo returns 0 */
    }
    return 0;
}

Test(spawn, ids_are_unique_whoever_spawns, .timeout = 20)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 0);
    config.topology = "pack:2 numa:1 core:2 pu:1";
    struct numio_runtime *runtime = fixture_create(&config);
    static uint64_t ids[8 * 100];
    struct numio_join *joins[8];
    for (unsigned i = 0; i < 8; i++) {
        struct numio_spawn_opts opts;
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.affinity = NUMIO_AFFINITY_WORKER;
        opts.worker = (int)(i % 4);
        cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), spawn_and_tell, ids + i * 100,
                                    &opts, &joins[i]),
                     0);
    }
    for (unsigned i = 0; i < 8; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    qsort(ids, NIO_ARRAY_LEN(ids), sizeof ids[0], compare);
    for (unsigned i = 1; i < NIO_ARRAY_LEN(ids); i++)
        cr_assert_neq(ids[i - 1], ids[i]);
    numio_runtime_destroy(runtime);
}

/* ---- stacks ------------------------------------------------------------------------------- */

static int64_t use_stack(void *arg)
{
    char block[40 << 10];
    memset(block, (int)(intptr_t)arg, sizeof block);
    if (numio_yield_now() < 0)
        return -1;
    for (size_t i = 0; i < sizeof block; i++)
        if (block[i] != (char)(intptr_t)arg)
            return -2;
    return 0;
}

Test(spawn, a_coroutine_may_use_its_stack_across_suspensions, .timeout = 20)
{
    struct numio_runtime *runtime = fixture_start(2);
    static struct numio_join *joins[PLACED];
    for (unsigned i = 0; i < PLACED; i++)
        cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), use_stack, (void *)(intptr_t)i,
                                    NULL, &joins[i]),
                     0);
    for (unsigned i = 0; i < PLACED; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    numio_runtime_destroy(runtime);
}

/* ---- refusal at the end, no memory -------------------------------------------------------- */

static int64_t spawn_until_refused(void *arg)
{
    struct numio_join *join;
    int64_t spawned = 0;
    (void)arg;
    for (;;) { /* until the shutdown, which the test begins */
        int rc = numio_spawn_co(NULL, echo, NULL, NULL, &join);
        if (rc < 0)
            return rc == -ESHUTDOWN ? spawned : rc;
        spawned++;
        numio_join_detach(&join);
        if (numio_yield_now() < 0)
            continue; /* goes on although it was aborted */
    }
}

Test(spawn, after_the_shutdown_began_every_kind_is_refused, .timeout = 20)
{
    struct numio_runtime *runtime = fixture_start(2);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct sum sum = { .left = 1 };
    struct numio_future future = future_of(&sum);
    struct numio_join *joins[4];
    struct numio_join *join = NULL;
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(numio_spawn_co(handle, spawn_until_refused, NULL, NULL, &joins[i]), 0);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    cr_assert_eq(numio_spawn(handle, &future, NULL, &join), -ESHUTDOWN);
    cr_assert_eq(numio_spawn_batch(handle, &future, 1, NULL, &join), -ESHUTDOWN);
    cr_assert_eq(numio_spawn_co(handle, echo, NULL, NULL, &join), -ESHUTDOWN);
    cr_assert_eq(numio_spawn_blocking(handle, echo, NULL, NULL, &join), -ESHUTDOWN);
    cr_assert_null(join);
    for (unsigned i = 0; i < 4; i++) {
        int64_t result = numio_join_try(&joins[i]);
        cr_assert(result >= 0 || result == -ECANCELED, "%ld", (long)result);
    }
    cr_assert_eq(numio_live_tasks(handle), 0);
    numio_runtime_destroy(runtime);
}

static void create_with_a_failing_allocation(enum numio_driver driver)
{
    struct numio_config config = fixture_config(driver, 2);
    numio_runtime_destroy(fixture_create(&config)); /* what a first time opens for good */
    unsigned fds = fixture_count_fds();
    long nth = 1;
    for (; nth < FAULTS_MAX; nth++) {
        struct numio_runtime *runtime = NULL;
        nio_fault_arm(nth);
        int rc = numio_runtime_create(&config, &runtime);
        bool has_struck = nio_fault_struck();
        nio_fault_arm(0);
        if (rc == 0)
            numio_runtime_destroy(runtime); /* some can be done without, with a reason */
        else
            cr_assert_null(runtime);
        cr_assert(rc == 0 || (has_struck && strlen(numio_strerror_detail()) > 0),
                  "allocation %ld: %s, has struck: %d, \"%s\"", nth, strerrorname_np(-rc),
                  has_struck, numio_strerror_detail());
        cr_assert_eq(fixture_count_fds(), fds, "allocation %ld: descriptors leak", nth);
        if (!has_struck)
            break;
    }
    cr_assert_gt(nth, 20);
    cr_assert_lt(nth, FAULTS_MAX);
}

Test(spawn, create_survives_each_allocation_failing_auto, .timeout = 60)
{
    create_with_a_failing_allocation(NUMIO_DRIVER_AUTO);
}

Test(spawn, create_survives_each_allocation_failing_epoll, .timeout = 60)
{
    create_with_a_failing_allocation(NUMIO_DRIVER_EPOLL);
}

/* Spawns one of each kind, 300 bytes and more, until nothing fails any more. */
static unsigned spawn_each(struct numio_handle *handle, unsigned *ret_failed)
{
    struct sum sum = { .left = 2 };
    struct numio_future future = future_of(&sum);
    struct numio_future large = { .poll = check_zeroes, .size = 40000, .output_size = 300 };
    struct numio_join *joins[4] = { NULL };
    int rc[4];
    unsigned wrong = 0;
    rc[0] = numio_spawn(handle, &future, NULL, &joins[0]);
    rc[1] = numio_spawn(handle, &large, NULL, &joins[1]);
    rc[2] = numio_spawn_co(handle, echo, NULL, NULL, &joins[2]);
    rc[3] = numio_spawn_blocking(handle, echo, NULL, NULL, &joins[3]);
    for (unsigned i = 0; i < 4; i++) {
        int64_t result = rc[i] == 0 ? numio_join_wait(&joins[i], -1) : rc[i];
        *ret_failed += result < 0;
        wrong += result != 0 && result != -ENOMEM && result != -EAGAIN;
    }
    return wrong;
}

Test(spawn, spawns_survive_each_allocation_failing, .timeout = 60)
{
    unsigned failures = 0;
    for (long nth = 1; nth < FAULTS_MAX; nth++) {
        struct numio_runtime *runtime = fixture_start(2); /* fresh: no cell, no stack, no thread */
        struct numio_handle *handle = numio_runtime_handle(runtime);
        unsigned failed = 0;
        nio_fault_arm(nth);
        unsigned wrong = spawn_each(handle, &failed);
        bool has_struck = nio_fault_struck();
        nio_fault_arm(0);
        cr_assert_eq(wrong, 0, "allocation %ld", nth);
        cr_assert_leq(failed, has_struck);
        failures += failed;
        failed = 0;
        cr_assert_eq(spawn_each(handle, &failed), 0);
        cr_assert_eq(failed, 0, "allocation %ld: it did not recover", nth);
        numio_runtime_destroy(runtime);
        if (!has_struck)
            break;
    }
    cr_assert_geq(failures, 3, "a cell, a large cell, a stack or a thread each failed once");
}
