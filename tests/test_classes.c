/* SPDX-License-Identifier: MIT */
/* Promises of the scheduling classes: the latency class goes first, every class gets its share of a
 * worker's time however much the others want, none starves, what one does not use the others get; a
 * task inherits its spawner's class; classes go with affinities, wakes and the mailbox. */
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include "runtime/sched/await.h"
#include "runtime/sched/ranked.h"

enum { SPIN_NS = 3000, HOGS = 3, RUN_NS = 200000000, RUNS_MAX = 100 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static struct numio_spawn_opts class_opts(enum numio_class sched_class)
{
    struct numio_spawn_opts opts;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.sched_class = sched_class;
    return opts;
}

/* ---- inheritance --------------------------------------------------------------------------- */

static int64_t tell_class(void *arg)
{
    (void)arg;
    return numio_class_current();
}

static enum numio_poll tell_class_future(void *state, struct numio_context *cx)
{
    (void)state;
    *(int *)numio_context_output(cx) = (int)numio_class_current();
    return NUMIO_READY;
}

static int64_t spawn_plainly(void *arg)
{
    struct numio_join *join;
    struct numio_future future = { .poll = tell_class_future, .output_size = sizeof(int) };
    int class = -1;
    (void)arg;
    if (numio_spawn(NULL, &future, NULL, &join) ||
        numio_join_await_output(&join, &class, sizeof class) ||
        numio_spawn_co(NULL, tell_class, NULL, NULL, &join) || numio_join_await(&join) != class)
        return -1;
    if (numio_spawn_batch(NULL, &future, 1, NULL, &join) ||
        numio_join_await_output(&join, &class, sizeof class) || class != (int)numio_class_current())
        return -1;
    return class;
}

static int64_t inherit(void *arg)
{
    static const enum numio_class all[] = { NUMIO_CLASS_NORMAL, NUMIO_CLASS_LATENCY,
                                            NUMIO_CLASS_BACKGROUND };
    struct numio_join *join;
    (void)arg;
    EXPECT(numio_class_current() == NUMIO_CLASS_NORMAL);
    for (unsigned i = 0; i < NIO_ARRAY_LEN(all); i++) {
        struct numio_spawn_opts opts = class_opts(all[i]);
        for (unsigned a = NUMIO_AFFINITY_ANY; a <= NUMIO_AFFINITY_WORKER; a++) {
            opts.affinity = (enum numio_affinity)a;
            EXPECT(numio_spawn_co(NULL, spawn_plainly, NULL, &opts, &join) == 0);
            EXPECT(numio_join_await(&join) == (int64_t)all[i]);
        }
    }
    EXPECT(numio_class_current() == NUMIO_CLASS_NORMAL);
    EXPECT(numio_class_set(NUMIO_CLASS_BACKGROUND) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_class_current() == NUMIO_CLASS_BACKGROUND);
    EXPECT(spawn_plainly(NULL) == NUMIO_CLASS_BACKGROUND);
    EXPECT(numio_class_set(NUMIO_CLASS_NORMAL) == 0);
    EXPECT(spawn_plainly(NULL) == NUMIO_CLASS_NORMAL);
    EXPECT(numio_class_set(NUMIO_CLASS_INHERIT) == -EINVAL);
    EXPECT(numio_class_set((enum numio_class)9) == -EINVAL);
    struct numio_spawn_opts wrong = class_opts((enum numio_class)9);
    EXPECT(numio_spawn_co(NULL, tell_class, NULL, &wrong, NULL) == -EINVAL);
    EXPECT(strstr(numio_strerror_detail(), "sched_class"));
    return 0;
}

FIXTURE_EACH(classes, a_task_inherits_its_spawners, .timeout = 30)
{
    cr_assert_eq(run(runtime, inherit, NULL), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_class_set(NUMIO_CLASS_LATENCY), -EINVAL); /* a plain thread has none */
    cr_assert_eq(numio_class_current(), NUMIO_CLASS_NORMAL);
}

/* ---- shares -------------------------------------------------------------------------------- */

struct hogs {
    _Atomic uint32_t is_over;
    uint64_t time_ns[4]; /* by class; one worker */
    uint64_t longest_ns; /* of their polls: the machine may have given the core to others */
};

struct hog {
    struct hogs *hogs;
    enum numio_class class;
};

/* Works, and lets others run, for ever. */
static int64_t work(void *arg)
{
    struct hog *hog = arg;
    struct hogs *hogs = hog->hogs;
    while (!fixture_get(&hogs->is_over)) {
        uint64_t began_ns = nio_now_ns(), now_ns;
        while ((now_ns = nio_now_ns()) - began_ns < SPIN_NS)
            ;
        hogs->time_ns[hog->class] += now_ns - began_ns;
        if (now_ns - began_ns > hogs->longest_ns)
            hogs->longest_ns = now_ns - began_ns;
        int stop = numio_yield_now();
        if (stop)
            return stop;
    }
    return 0;
}

static uint64_t time_of_all(const struct hogs *hogs)
{
    return hogs->time_ns[NUMIO_CLASS_LATENCY] + hogs->time_ns[NUMIO_CLASS_NORMAL] +
           hogs->time_ns[NUMIO_CLASS_BACKGROUND];
}

/* A share holds to within a poll: goes on until the longest is a hundredth of all. */
static int64_t tell_over(void *arg)
{
    struct hogs *hogs = arg;
    int64_t rc = numio_sleep_ns(RUN_NS);
    for (int i = 0; i < RUNS_MAX && rc == 0 && hogs->longest_ns * 100 > time_of_all(hogs); i++)
        rc = numio_sleep_ns(RUN_NS);
    fixture_set(&hogs->is_over, 1);
    return rc;
}

static int64_t hog_all(void *arg)
{
    struct hogs *hogs = arg;
    struct hog hog[3][HOGS];
    struct numio_join *joins[3][HOGS], *clock;
    struct numio_spawn_opts first = class_opts(NUMIO_CLASS_LATENCY);
    EXPECT(numio_spawn_co(NULL, tell_over, hogs, &first, &clock) == 0);
    for (unsigned class = NUMIO_CLASS_NORMAL; class <= NUMIO_CLASS_BACKGROUND; class ++)
        for (unsigned i = 0; i < HOGS; i++) {
            struct hog *one = &hog[class - 1][i];
            struct numio_spawn_opts opts = class_opts((enum numio_class) class);
            *one = (struct hog){ hogs, (enum numio_class) class };
            opts.affinity = i == 0 ? NUMIO_AFFINITY_WORKER : NUMIO_AFFINITY_ANY;
            EXPECT(numio_spawn_co(NULL, work, one, &opts, &joins[class - 1][i]) == 0);
        }
    for (unsigned class = 0; class < 3; class ++)
        for (unsigned i = 0; i < HOGS; i++)
            EXPECT(numio_join_await(&joins[class][i]) == 0);
    EXPECT(numio_join_await(&clock) == 0);
    return 0;
}

Test(classes, each_gets_its_share_and_none_starves, .timeout = 60)
{
    struct hogs hogs = { 0 };
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    config.share_latency = 6;
    config.share_normal = 3;
    config.share_background = 1;
    struct numio_runtime *runtime = fixture_create(&config);
    cr_assert_eq(run(runtime, hog_all, &hogs), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
    double all = (double)time_of_all(&hogs);
    double latency = (double)hogs.time_ns[NUMIO_CLASS_LATENCY] / all;
    double normal = (double)hogs.time_ns[NUMIO_CLASS_NORMAL] / all;
    double background = (double)hogs.time_ns[NUMIO_CLASS_BACKGROUND] / all;
    cr_assert(latency > 0.5 && latency < 0.7, "latency has %.2f of the time", latency);
    cr_assert(normal > 0.22 && normal < 0.38, "normal has %.2f", normal);
    cr_assert(background > 0.06 && background < 0.15, "background has %.2f", background);
}

struct quote {
    struct hogs *hogs;
    uint64_t polls_between;
};

static uint64_t background_polls; /* one worker */

static int64_t work_briefly(void *arg)
{
    struct hogs *hogs = arg;
    while (!fixture_get(&hogs->is_over)) {
        background_polls++;
        int stop = numio_yield_now();
        if (stop)
            return stop;
    }
    return 0;
}

/* Between its yields at most one poll of another class may come: it uses far less than its share.
 */
static int64_t answer(void *arg)
{
    struct quote *quote = arg;
    quote->polls_between = background_polls; /* spawned last, and first to run */
    for (int i = 0; i < 2000; i++) {
        uint64_t before = background_polls;
        int stop = numio_yield_now();
        if (stop)
            return stop;
        if (background_polls - before > quote->polls_between)
            quote->polls_between = background_polls - before;
    }
    fixture_set(&quote->hogs->is_over, 1);
    return 0;
}

static int64_t quote_beside_compaction(void *arg)
{
    struct quote *quote = arg;
    struct numio_join *joins[HOGS + 1];
    struct numio_spawn_opts background = class_opts(NUMIO_CLASS_BACKGROUND);
    struct numio_spawn_opts latency = class_opts(NUMIO_CLASS_LATENCY);
    for (int i = 0; i < HOGS; i++)
        EXPECT(numio_spawn_co(NULL, work_briefly, quote->hogs, &background, &joins[i]) == 0);
    EXPECT(numio_spawn_co(NULL, answer, quote, &latency, &joins[HOGS]) == 0);
    for (int i = 0; i <= HOGS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

Test(classes, what_is_ready_of_the_latency_class_goes_first, .timeout = 60)
{
    struct hogs hogs = { 0 };
    struct quote quote = { &hogs, 0 };
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    struct numio_worker_metrics metrics;
    config.share_latency = config.share_background = 10000; /* more than either can use here */
    struct numio_runtime *runtime = fixture_create(&config);
    cr_assert_eq(run(runtime, quote_beside_compaction, &quote), 0, "line %ld", (long)last_line);
    cr_assert_eq(numio_worker_metrics(numio_runtime_handle(runtime), 0, &metrics), 0);
    cr_assert_geq(metrics.polls_latency, 2000u);
    cr_assert_geq(metrics.polls_background, (uint64_t)HOGS);
    numio_runtime_destroy(runtime);
    cr_assert_eq(quote.polls_between, 0u, "%lu polls of the background class came between",
                 (unsigned long)quote.polls_between);
}

/* ---- wakes, mail, several workers ---------------------------------------------------------- */

struct meeting {
    struct numio_barrier barrier;
    _Atomic uint32_t wrong;
};

static int64_t meet(void *arg)
{
    struct meeting *meeting = arg;
    enum numio_class class = numio_class_current();
    for (int i = 0; i < 50; i++) {
        EXPECT(numio_barrier_wait(&meeting->barrier) >= 0);
        if (numio_class_current() != class)
            fixture_set(&meeting->wrong, 1);
        if (i % 7 == 0)
            EXPECT(numio_sleep_ns(20000) == 0);
    }
    return 0;
}

enum { MEMBERS = 18 };

static int64_t hold_meeting(void *arg)
{
    struct meeting *meeting = arg;
    struct numio_join *joins[MEMBERS];
    for (int i = 0; i < MEMBERS; i++) {
        struct numio_spawn_opts opts = class_opts((enum numio_class)(NUMIO_CLASS_NORMAL + i % 3));
        opts.affinity = (enum numio_affinity)(i / 3 % 3);
        if (opts.affinity == NUMIO_AFFINITY_WORKER)
            opts.worker = i % 2;
        EXPECT(numio_spawn_co(NULL, meet, meeting, &opts, &joins[i]) == 0);
    }
    for (int i = 0; i < MEMBERS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(classes, all_of_them_are_woken_wherever_they_belong, .timeout = 60)
{
    struct meeting meeting = { .wrong = 0 };
    cr_assert_eq(numio_barrier_init(&meeting.barrier, MEMBERS), 0);
    cr_assert_eq(run(runtime, hold_meeting, &meeting), 0, "line %ld", (long)last_line);
    cr_assert_eq(fixture_get(&meeting.wrong), 0u);
}

static int64_t count_one(void *arg)
{
    fixture_set(arg, 1);
    return 0;
}

FIXTURE_EACH(classes, they_can_be_spawned_from_outside, .timeout = 60)
{
    for (unsigned class = NUMIO_CLASS_NORMAL; class <= NUMIO_CLASS_BACKGROUND; class ++)
        for (unsigned a = NUMIO_AFFINITY_ANY; a <= NUMIO_AFFINITY_WORKER; a++) {
            _Atomic uint32_t has_run = 0;
            struct numio_join *join;
            struct numio_spawn_opts opts = class_opts((enum numio_class) class);
            opts.affinity = (enum numio_affinity)a;
            opts.worker = a == NUMIO_AFFINITY_WORKER ? 1 : NUMIO_WORKER_ANY;
            cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), count_one, (void *)&has_run,
                                        &opts, &join),
                         0);
            cr_assert_eq(numio_join_await(&join), 0);
            cr_assert_eq(fixture_get(&has_run), 1u);
        }
}

static int64_t leave_hogs_behind(void *arg)
{
    static struct hog hog[3];
    struct hogs *hogs = arg;
    for (unsigned class = NUMIO_CLASS_NORMAL; class <= NUMIO_CLASS_BACKGROUND; class ++) {
        struct numio_spawn_opts opts = class_opts((enum numio_class) class);
        hog[class - 1] = (struct hog){ hogs, (enum numio_class) class };
        EXPECT(numio_spawn_co(NULL, work, &hog[class - 1], &opts, NULL) == 0);
    }
    return numio_sleep_ns(2000000);
}

/* The fixture's shutdown waits for them. */
FIXTURE_EACH(classes, a_shutdown_ends_all_of_them, .timeout = 30)
{
    static struct hogs hogs; /* outlives the test's body */
    cr_assert_eq(run(runtime, leave_hogs_behind, &hogs), 0, "line %ld", (long)last_line);
}
