/* SPDX-License-Identifier: MIT */
/* Promises of parallel loops: each number once, where it is to be worked on; errors, aborts,
 * deadlines and shutdowns end them; and of calls on nodes and workers. */
#include <numio/parallel.h>

#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

enum { RANGE = 10000, SOON_NS = 2000000, LOOPS = 40 };
static const uint64_t late_ns = 3600000000000ull;

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

struct marks {
    uint64_t begin, end, grain;
    _Atomic uint8_t seen[RANGE];
    _Atomic uint8_t worker[RANGE];
    _Atomic uint32_t wrong;
    bool yields;
    struct numio_parallel_opts opts;
};

static int64_t mark(uint64_t first, uint64_t end, void *arg)
{
    struct marks *m = arg;
    bool is_wrong =
        first >= end || end - first > (m->grain ? m->grain : 1) || first < m->begin || end > m->end;
    /* relaxed, like all of the marks: the end of the loop orders them */
    (void)atomic_fetch_add_explicit(&m->wrong, is_wrong, memory_order_relaxed);
    for (uint64_t i = first; i < end && !is_wrong; i++) {
        (void)atomic_fetch_add_explicit(&m->seen[i - m->begin], 1, memory_order_relaxed);
        int worker = numio_current_worker();
        /* relaxed: as above */
        atomic_store_explicit(&m->worker[i - m->begin], (uint8_t)worker, memory_order_relaxed);
    }
    return m->yields ? numio_yield_now() : 0;
}

static int64_t loop_over(void *arg)
{
    struct marks *m = arg;
    return numio_parallel_for(m->begin, m->end, m->grain, mark, m, &m->opts);
}

static bool each_once(struct marks *m)
{
    for (uint64_t i = 0; i < RANGE; i++)
        /* relaxed: as above */
        if (atomic_load_explicit(&m->seen[i], memory_order_relaxed) != (i < m->end - m->begin))
            return false;
    /* relaxed: as above */
    return atomic_load_explicit(&m->wrong, memory_order_relaxed) == 0;
}

static struct numio_runtime *start_two_nodes(void)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 4);
    config.topology = "pack:2 numa:1 core:2 pu:1";
    return fixture_create(&config);
}

static struct marks marks;

Test(parallel, each_number_is_worked_on_once, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(5);
    struct numio_runtime *runtime = start_two_nodes();
    for (int i = 0; i < LOOPS; i++) {
        memset(&marks, 0, sizeof marks);
        marks.begin = i % 5 == 0 ? UINT64_MAX - RANGE : nio_rng_below(&rng, 1000);
        marks.end = marks.begin + nio_rng_below(&rng, i % 3 ? RANGE : 10);
        marks.grain = i % 7 == 0 ? UINT64_MAX : nio_rng_below(&rng, 100);
        marks.yields = i % 2;
        numio_parallel_opts_init(&marks.opts, sizeof marks.opts);
        marks.opts.affinity = (enum numio_affinity)(i % 3);
        cr_assert_eq(run(runtime, loop_over, &marks), 0, "loop %d: %ld", i, (long)last_line);
        cr_assert(each_once(&marks), "loop %d", i);
    }
    numio_runtime_destroy(runtime);
}

FIXTURE_EACH(parallel, a_plain_thread_may_run_one, .timeout = 60)
{
    memset(&marks, 0, sizeof marks);
    marks.end = RANGE;
    marks.grain = 10;
    numio_parallel_opts_init(&marks.opts, sizeof marks.opts);
    marks.opts.handle = numio_runtime_handle(runtime);
    cr_assert_eq(loop_over(&marks), 0);
    cr_assert(each_once(&marks));
    marks.opts.handle = NULL;
    cr_assert_eq(loop_over(&marks), -EINVAL);
    struct numio_handle *before = numio_handle_enter(numio_runtime_handle(runtime));
    memset(&marks.seen, 0, sizeof marks.seen);
    cr_assert_eq(numio_parallel_for(0, RANGE, 10, mark, &marks, NULL), 0);
    cr_assert(each_once(&marks));
    (void)numio_handle_enter(before);
}

Test(parallel, parts_stay_on_their_node_or_worker, .timeout = 60)
{
    struct numio_runtime *runtime = start_two_nodes();
    for (int affinity = NUMIO_AFFINITY_NODE; affinity <= NUMIO_AFFINITY_WORKER; affinity++) {
        memset(&marks, 0, sizeof marks);
        marks.end = RANGE;
        marks.grain = 7;
        marks.yields = true;
        numio_parallel_opts_init(&marks.opts, sizeof marks.opts);
        marks.opts.affinity = (enum numio_affinity)affinity;
        cr_assert_eq(run(runtime, loop_over, &marks), 0);
        cr_assert(each_once(&marks));
        for (unsigned i = 0; i < RANGE; i++) {
            /* relaxed: as above */
            unsigned worker = atomic_load_explicit(&marks.worker[i], memory_order_relaxed);
            unsigned part = i / (RANGE / 4);
            cr_assert(affinity == NUMIO_AFFINITY_WORKER ? worker == part : worker / 2 == part / 2,
                      "%u on worker %u", i, worker);
        }
    }
    numio_runtime_destroy(runtime);
}

/* ---- ends ---------------------------------------------------------------------------------- */

struct failing {
    _Atomic uint64_t begun;
    uint64_t fails_at;
};

static int64_t fail_at(uint64_t first, uint64_t end, void *arg)
{
    struct failing *f = arg;
    /* relaxed: a figure */
    (void)atomic_fetch_add_explicit(&f->begun, 1, memory_order_relaxed);
    return f->fails_at >= first && f->fails_at < end ? -EIO : numio_yield_now();
}

static int64_t loop_and_fail(void *arg)
{
    return numio_parallel_for(0, RANGE, 1, fail_at, arg, NULL);
}

FIXTURE_EACH(parallel, an_error_ends_it, .timeout = 60)
{
    struct failing f = { .fails_at = 5 };
    cr_assert_eq(run(runtime, loop_and_fail, &f), -EIO);
    /* relaxed: a figure */
    cr_assert_lt(atomic_load_explicit(&f.begun, memory_order_relaxed), (uint64_t)RANGE);
}

static int64_t sleep_in_piece(uint64_t first, uint64_t end, void *arg)
{
    (void)first;
    (void)end;
    (void)arg;
    return numio_sleep_ns(late_ns);
}

static int64_t loop_of_sleepers(void *arg)
{
    return numio_parallel_for(0, RANGE, 1, sleep_in_piece, arg, NULL);
}

static int64_t do_nothing(uint64_t first, uint64_t end, void *arg)
{
    (void)first;
    (void)end;
    (void)arg;
    return 0;
}

static int64_t endless_loop(void)
{
    return numio_parallel_for(0, UINT64_MAX, 1, do_nothing, NULL, NULL);
}

static int64_t loop_in_time(void *arg)
{
    EXPECT(numio_within(SOON_NS, loop_of_sleepers(arg)) == -ETIMEDOUT);
    EXPECT(numio_within(SOON_NS, endless_loop()) == -ETIMEDOUT); /* between pieces, too */
    return 0;
}

FIXTURE_EACH(parallel, a_deadline_and_an_abort_end_it, .timeout = 60)
{
    struct numio_join *join;
    cr_assert_eq(run(runtime, loop_in_time, NULL), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), loop_of_sleepers, NULL, NULL, &join),
                 0);
    cr_assert_eq(numio_join_wait(&join, SOON_NS), -ETIMEDOUT);
    numio_join_abort(join);
    cr_assert_eq(numio_join_wait(&join, -1), -ECANCELED);
}

static int64_t check_ended(void *arg, int64_t result)
{
    (void)arg;
    EXPECT(result == 0 || result == -ECANCELED);
    return 0;
}

static int64_t small_loop(void *arg)
{
    struct failing f = { .fails_at = UINT64_MAX };
    (void)arg;
    return numio_parallel_for(0, 3, 1, fail_at, &f, NULL);
}

Test(parallel, an_abort_at_each_step_ends_it, .timeout = 60)
{
    struct abort_case what = { NULL, small_loop, NULL, check_ended, NULL };
    cr_assert_geq(abort_each(&what), 1u);
}

static int64_t misuse(void *arg)
{
    (void)arg;
    struct numio_parallel_opts opts;
    numio_parallel_opts_init(&opts, sizeof opts);
    EXPECT(numio_parallel_for(5, 4, 1, mark, &marks, NULL) == -EINVAL);
    EXPECT(numio_parallel_for(0, 4, 1, NULL, &marks, NULL) == -EINVAL);
    opts.affinity = (enum numio_affinity)3;
    EXPECT(numio_parallel_for(0, 4, 1, mark, &marks, &opts) == -EINVAL);
    opts.size = 1;
    EXPECT(numio_parallel_for(0, 4, 1, mark, &marks, &opts) == -EINVAL);
    EXPECT(numio_parallel_for(4, 4, 1, mark, &marks, NULL) == 0);
    nio_fault_arm(1);
    EXPECT(numio_parallel_for(0, 4, 1, mark, &marks, NULL) == -ENOMEM);
    nio_fault_arm(0);
    return 0;
}

static enum numio_poll loop_in_poll(void *state, struct numio_context *cx)
{
    int64_t *results = numio_context_output(cx);
    (void)state;
    results[0] = numio_parallel_for(0, 4, 1, mark, &marks, NULL);
    results[1] = numio_call_on_node(NULL, 0, loop_in_time, NULL);
    return NUMIO_READY;
}

static int64_t block_in_poll(void *arg)
{
    (void)arg;
    struct numio_future future = { .poll = loop_in_poll, .output_size = 2 * sizeof(int64_t) };
    struct numio_join *join;
    int64_t results[2] = { 0 };
    EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0);
    EXPECT(numio_join_await_output(&join, results, sizeof results) == 0);
    EXPECT(results[0] == -EDEADLK && results[1] == -EDEADLK);
    return 0;
}

FIXTURE_EACH(parallel, misuse_is_told, .timeout = 30)
{
    memset(&marks, 0, sizeof marks);
    cr_assert_eq(run(runtime, misuse, NULL), 0, "line %ld", (long)last_line);
    cr_assert_eq(run(runtime, block_in_poll, NULL), 0, "line %ld", (long)last_line);
}

/* ---- calls --------------------------------------------------------------------------------- */

static int64_t where_am_i(void *arg)
{
    return arg ? numio_current_worker() : numio_current_node();
}

struct sleeper {
    bool has_begun, has_ended;
};

static int64_t sleep_long(void *arg)
{
    struct sleeper *sleeper = arg;
    sleeper->has_begun = true;
    int64_t rc = numio_sleep_ns(late_ns);
    (void)usleep(5000); /* takes its time to end */
    sleeper->has_ended = true;
    return rc;
}

static int64_t call_everywhere(void *arg)
{
    struct numio_handle *handle = arg;
    struct numio_join *join;
    for (int i = 0; i < 4; i++) {
        EXPECT(numio_call_on_worker(handle, i, where_am_i, handle) == i);
        EXPECT(numio_call_on_node(handle, i / 2, where_am_i, NULL) == i / 2);
        EXPECT(numio_spawn_on_worker(handle, i, where_am_i, handle, &join) == 0);
        EXPECT((numio_current_worker() >= 0 ? numio_join_await(&join)
                                            : numio_join_wait(&join, -1)) == i);
    }
    EXPECT(numio_call_on_worker(handle, 4, where_am_i, NULL) == -EINVAL);
    EXPECT(numio_call_on_node(handle, -1, where_am_i, NULL) == -EINVAL);
    EXPECT(numio_call_on_node(handle, 2, where_am_i, NULL) == -EINVAL);
    return 0;
}

static int64_t call_in_time(void *arg)
{
    struct sleeper sleeper = { .has_begun = false };
    (void)arg;
    EXPECT(numio_within(SOON_NS, numio_call_on_worker(NULL, 0, sleep_long, &sleeper)) ==
           -ETIMEDOUT);
    /* The call was waited for, unless a busy machine has let it not even begin in time. */
    EXPECT(sleeper.has_ended == sleeper.has_begun);
    return 0;
}

static int64_t call_sleeper(void *arg)
{
    return numio_call_on_worker(NULL, 1, sleep_long, arg);
}

Test(parallel, calls_run_where_they_are_told_and_do_not_outlive_their_caller, .timeout = 30)
{
    struct numio_runtime *runtime = start_two_nodes();
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_join *join;
    struct sleeper sleeper = { .has_begun = false };
    cr_assert_eq(run(runtime, call_everywhere, handle), 0, "line %ld", (long)last_line);
    cr_assert_eq(call_everywhere(handle), 0);
    cr_assert_eq(run(runtime, call_in_time, NULL), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_spawn_co(handle, call_sleeper, &sleeper, NULL, &join), 0);
    cr_assert_eq(numio_join_wait(&join, SOON_NS), -ETIMEDOUT);
    numio_join_abort(join);
    cr_assert_eq(numio_join_wait(&join, -1), -ECANCELED);
    cr_assert_eq(sleeper.has_ended, sleeper.has_begun);
    numio_runtime_destroy(runtime);
}

/* ---- shutdown ------------------------------------------------------------------------------ */

FIXTURE_EACH(parallel, a_shutdown_ends_it_and_no_other_begins, .timeout = 30)
{
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_parallel_opts opts;
    struct numio_join *join;
    size_t left = 1;
    numio_parallel_opts_init(&opts, sizeof opts);
    opts.handle = handle;
    cr_assert_eq(numio_spawn_co(handle, loop_of_sleepers, NULL, NULL, &join), 0);
    cr_assert_eq(numio_join_wait(&join, SOON_NS), -ETIMEDOUT);
    cr_assert_eq(numio_runtime_shutdown(runtime, 10000000000, NULL, 0, &left), 0);
    int64_t result = numio_join_wait(&join, -1); /* the latter if it was late to begin */
    cr_assert(result == -ECANCELED || result == -ESHUTDOWN, "%ld", (long)result);
    cr_assert_eq(numio_parallel_for(0, 4, 1, mark, &marks, &opts), -ESHUTDOWN);
    cr_assert_eq(numio_call_on_node(handle, 0, where_am_i, NULL), -ESHUTDOWN);
}
