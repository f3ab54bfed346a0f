/* SPDX-License-Identifier: MIT */
/* Promises of the event: set, it lets everybody pass until it is reset; who waits sees what was
 * done before it was set; aborts and deadlines leave nothing behind; by coroutines, futures and
 * plain threads. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/stepped_wait.h"
#include "tests/steps.h"
#include "tests/sync_cases.h"

enum { TASKS = 8, ROUNDS = 300, SET = 1, WAITS = 2 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

/* ---- the naive model ----------------------------------------------------------------------- */

enum { ACTORS = 6, STEPS = 30000 };

struct actor {
    struct numio_op op;
    bool has_begun, waits;
};

static void model_step(struct numio_event *event, struct actor *actors, bool *is_set,
                       struct nio_rng *rng)
{
    struct actor *a = &actors[nio_rng_below(rng, ACTORS)];
    uint32_t what = nio_rng_below(rng, 20);
    if (what == 0) {
        numio_event_set(event);
        *is_set = true;
        for (int i = 0; i < ACTORS; i++)
            actors[i].waits = false;
    } else if (what <= 3) {
        numio_event_reset(event);
        *is_set = false;
    } else if (a->waits && what < 8) {
        cr_assert(stepped_leave(&a->op));
        a->waits = a->has_begun = false;
    } else if (!a->waits) {
        numio_op_event_wait(&a->op, event);
        stepped_begin(&a->op, 1);
        a->waits = !*is_set;
        a->has_begun = true;
    }
}

Test(event, agrees_with_a_naive_model, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(29);
    struct numio_event event = NUMIO_EVENT_INIT;
    static struct actor actors[ACTORS];
    bool is_set = false;
    for (int step = 0; step < STEPS; step++) {
        bool does_wait = false;
        model_step(&event, actors, &is_set, &rng);
        for (int i = 0; i < ACTORS; i++) {
            does_wait |= actors[i].waits;
            if (actors[i].has_begun)
                cr_assert_eq(stepped_result(&actors[i].op), actors[i].waits ? STEPPED_WAITS : 0);
        }
        cr_assert_eq(numio_event_is_set(&event), is_set);
        cr_assert_eq(event._state, (unsigned)(is_set ? SET : 0) + (does_wait ? WAITS : 0));
    }
}

/* ---- everybody ----------------------------------------------------------------------------- */

/* A sequence of events; whoever is last to pass one sets the next. */
struct sequence {
    struct numio_event events[ROUNDS + 1];
    uint64_t plain[ROUNDS + 1]; /* written before the event is set */
    _Atomic uint32_t passed[ROUNDS];
};

static int64_t pass_all(void *arg)
{
    struct sequence *s = arg;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        EXPECT(numio_event_wait(&s->events[i]) == 0);
        EXPECT(s->plain[i] == i + 1);
        /* relaxed: what it counts is ordered by the events, and the wait above has seen `plain` */
        if (atomic_fetch_add_explicit(&s->passed[i], 1, memory_order_relaxed) != TASKS)
            continue;
        s->plain[i + 1] = i + 2;
        numio_event_set(&s->events[i + 1]);
    }
    return 0;
}

static void *pass_all_in_thread(void *arg)
{
    return (void *)(intptr_t)pass_all(arg);
}

static int64_t spawn_all(void *arg)
{
    struct sequence *s = arg;
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, pass_all, arg, NULL, &joins[i]) == 0);
    s->plain[0] = 1;
    numio_event_set(&s->events[0]);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(event, lets_everybody_pass_who_then_sees_what_was_done_before, .timeout = 60)
{
    struct sequence *s = calloc(1, sizeof *s);
    pthread_t thread;
    void *line;
    cr_assert_not_null(s);
    cr_assert_eq(pthread_create(&thread, NULL, pass_all_in_thread, s), 0);
    cr_assert_eq(run(runtime, spawn_all, s), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line);
    cr_assert(numio_event_is_set(&s->events[ROUNDS]));
    free(s);
}

/* ---- as all waits -------------------------------------------------------------------------- */

static void prep(struct numio_op *op, void *event)
{
    numio_op_event_wait(op, event);
}

static void block(void *event)
{
    numio_event_reset(event);
}

static void give(void *event)
{
    numio_event_set(event);
}

static bool is_clean(void *event)
{
    return ((struct numio_event *)event)->_state == SET && numio_event_is_set(event);
}

FIXTURE_EACH(event, a_wait_is_late_selected_polled_or_refused, .timeout = 60)
{
    struct numio_event event;
    numio_event_init(&event);
    struct sync_case c = { prep, block, give, is_clean, &event, &event._waits, NULL };
    sync_check(runtime, &c);
}

Test(event, a_lost_selection_is_passed_over, .timeout = 30)
{
    struct numio_event event = NUMIO_EVENT_INIT;
    struct sync_case c = { prep, block, give, is_clean, &event, &event._waits, NULL };
    sync_check_on_one_worker(&c, sync_lost_steps);
}

Test(event, an_aborted_future_has_changed_nothing, .timeout = 30)
{
    struct numio_event event = NUMIO_EVENT_INIT;
    struct sync_case c = { prep, block, give, is_clean, &event, &event._waits, NULL };
    sync_check_on_one_worker(&c, sync_give_back_steps);
}

Test(event, at_shutdown_all_waits_end, .timeout = 30)
{
    struct numio_event event = NUMIO_EVENT_INIT;
    struct sync_case c = { prep, block, give, is_clean, &event, &event._waits, NULL };
    sync_check_shutdown(&c);
}

/* ---- aborts -------------------------------------------------------------------------------- */

struct rounds {
    struct numio_event ask, answer;
    bool is_over;
};

static void reset(void *arg)
{
    *(struct rounds *)arg = (struct rounds){ .is_over = false };
}

static int64_t ask(void *arg)
{
    struct rounds *r = arg;
    int rc = 0;
    for (int i = 0; i < 3 && rc == 0; i++) {
        numio_event_reset(&r->answer);
        numio_event_set(&r->ask);
        rc = numio_event_wait(&r->answer);
    }
    r->is_over = true;
    numio_event_set(&r->ask);
    return rc;
}

static int64_t answer(void *arg)
{
    struct rounds *r = arg;
    while (!r->is_over) {
        EXPECT(numio_event_wait(&r->ask) == 0);
        numio_event_reset(&r->ask);
        numio_event_set(&r->answer);
    }
    return 0;
}

static int64_t check_none(void *arg, int64_t result)
{
    struct rounds *r = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(r->is_over && !r->ask._waits._first && !r->answer._waits._first);
    EXPECT(!(r->ask._state & WAITS) && !(r->answer._state & WAITS));
    return 0;
}

Test(event, an_abort_at_each_step_leaves_nobody_in_the_queue, .timeout = 60)
{
    struct rounds r;
    struct abort_case what = { reset, ask, answer, check_none, &r };
    cr_assert_geq(abort_each(&what), 3u);
}
