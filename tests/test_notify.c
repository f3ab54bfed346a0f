/* SPDX-License-Identifier: MIT */
/* Promises of notifications, which are those of Tokio's Notify: one permit at most, first come
 * first served or last, all that wait or have been prepared, nothing lost to who gives up; by
 * coroutines, futures and plain threads. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/stepped_wait.h"
#include "tests/steps.h"
#include "tests/sync_cases.h"

#include "runtime/sched/worker.h"

enum { TASKS = 8, ROUNDS = 400, WAITS = 1, PERMIT = 2, CALL = 4 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static void run_on_one_worker(int64_t (*fn)(void *arg), void *arg)
{
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, fn, arg), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
}

/* ---- the naive model ----------------------------------------------------------------------- */

enum { ACTORS = 9, STEPS = 60000 };

struct actor {
    struct numio_op op;
    enum { AWAY, PREPARED, WAITING, NOTIFIED } at;
    enum { BY_ONE, BY_LAST, BY_ALL } how; /* notified */
    bool was_called;                      /* notify_waiters() since it was prepared */
};

struct model {
    struct numio_notify notify;
    struct actor actors[ACTORS];
    int queue[ACTORS], queued;
    bool has_permit;
};

static void take_from_queue(struct model *m, int i)
{
    int at = 0;
    while (m->queue[at] != i)
        at++;
    m->queued--;
    for (; at < m->queued; at++)
        m->queue[at] = m->queue[at + 1];
}

static void model_notify(struct model *m, bool is_last)
{
    if (m->queued == 0) {
        m->has_permit = true;
        return;
    }
    int i = m->queue[is_last ? m->queued - 1 : 0];
    take_from_queue(m, i);
    m->actors[i].at = NOTIFIED;
    m->actors[i].how = is_last ? BY_LAST : BY_ONE;
}

static void model_all(struct model *m)
{
    numio_notify_waiters(&m->notify);
    for (int i = 0; i < ACTORS; i++) {
        struct actor *a = &m->actors[i];
        if (a->at == WAITING) {
            a->at = NOTIFIED;
            a->how = BY_ALL;
        }
        a->was_called = true;
    }
    m->queued = 0;
}

static void model_begin(struct model *m, int i)
{
    struct actor *a = &m->actors[i];
    stepped_begin(&a->op, (uintptr_t)i + 1);
    if (a->was_called || m->has_permit) {
        a->at = NOTIFIED;
        a->how = a->was_called ? BY_ALL : BY_ONE;
        m->has_permit = m->has_permit && a->was_called;
        return;
    }
    a->at = WAITING;
    m->queue[m->queued++] = i;
}

static void model_step(struct model *m, struct nio_rng *rng)
{
    int i = (int)nio_rng_below(rng, ACTORS);
    struct actor *a = &m->actors[i];
    uint32_t what = nio_rng_below(rng, 40);
    if (what == 0) {
        model_all(m);
    } else if (what <= 5) {
        numio_notify_one(&m->notify);
        model_notify(m, false);
    } else if (what <= 8) {
        numio_notify_last(&m->notify);
        model_notify(m, true);
    } else if (what == 9) {
        cr_assert_eq(numio_notify_try_wait(&m->notify), m->has_permit ? 0 : -EAGAIN);
        m->has_permit = false;
    } else if (a->at == AWAY) {
        numio_op_notify(&a->op, &m->notify);
        a->at = PREPARED;
        a->was_called = false;
    } else if (a->at == PREPARED) {
        model_begin(m, i);
    } else if (a->at == WAITING && what < 15) {
        cr_assert(stepped_leave(&a->op));
        take_from_queue(m, i);
        a->at = AWAY;
    } else if (a->at == NOTIFIED) {
        if (what % 2) { /* nobody looks at it: it is passed on */
            stepped_give_back(&a->op);
            if (a->how != BY_ALL)
                model_notify(m, a->how == BY_LAST);
        }
        a->at = AWAY;
    }
}

Test(notify, agrees_with_a_naive_model, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(23);
    static struct model m;
    for (int step = 0; step < STEPS; step++) {
        model_step(&m, &rng);
        cr_assert_eq(m.notify._state % CALL,
                     (unsigned)(m.has_permit ? PERMIT : 0) + (m.queued ? WAITS : 0));
        for (int i = 0; i < ACTORS; i++)
            if (m.actors[i].at >= WAITING)
                cr_assert_eq(stepped_result(&m.actors[i].op),
                             m.actors[i].at == WAITING ? STEPPED_WAITS : 0);
    }
}

/* ---- what Tokio says of it ------------------------------------------------------------------ */

struct hall {
    struct numio_notify notify;
    int next, wrong;
    int order[TASKS];
};

struct guest {
    struct hall *hall;
    int index;
};

static int64_t wait_in_hall(void *arg)
{
    struct guest *g = arg;
    int rc = numio_notify_wait(&g->hall->notify);
    if (rc == 0)
        g->hall->order[g->hall->next++] = g->index;
    return rc;
}

static int64_t invite(struct hall *h, struct guest *guests, struct numio_join **joins)
{
    h->next = 0;
    for (int i = 0; i < TASKS; i++) {
        guests[i] = (struct guest){ h, i };
        EXPECT(numio_spawn_co(NULL, wait_in_hall, &guests[i], NULL, &joins[i]) == 0);
        EXPECT(numio_yield_now() == 0); /* it waits now */
    }
    return 0;
}

static int64_t first_and_last(void *arg)
{
    struct hall *h = arg;
    struct guest guests[TASKS];
    struct numio_join *joins[TASKS];
    static const int order[TASKS] = { 0, 1, 7, 2, 6, 5, 3, 4 };
    EXPECT(invite(h, guests, joins) == 0);
    for (int i = 0; i < TASKS; i++) {
        int first = 0;
        for (int k = 0; k < i; k++)
            first += order[k] < order[i];
        if (first == order[i]) /* all that came before it have gone */
            numio_notify_one(&h->notify);
        else
            numio_notify_last(&h->notify);
        EXPECT(numio_join_await(&joins[order[i]]) == 0);
        EXPECT(h->next == i + 1 && h->order[i] == order[i]);
    }
    EXPECT(numio_notify_try_wait(&h->notify) == -EAGAIN);
    return 0;
}

Test(notify, the_first_or_the_last_is_notified, .timeout = 30)
{
    struct hall h = { .next = 0 };
    numio_notify_init(&h.notify);
    run_on_one_worker(first_and_last, &h);
}

static int64_t permits(void *arg)
{
    struct hall *h = arg;
    EXPECT(numio_notify_try_wait(&h->notify) == -EAGAIN);
    numio_notify_one(&h->notify);
    numio_notify_one(&h->notify);
    numio_notify_last(&h->notify);
    EXPECT(numio_notify_wait(&h->notify) == 0);
    EXPECT(numio_notify_try_wait(&h->notify) == -EAGAIN); /* there was one */
    numio_notify_waiters(&h->notify);
    EXPECT(numio_notify_try_wait(&h->notify) == -EAGAIN); /* which leaves none ... */
    numio_notify_one(&h->notify);
    numio_notify_waiters(&h->notify);
    EXPECT(numio_notify_try_wait(&h->notify) == 0); /* ... and takes none */
    return 0;
}

FIXTURE_EACH(notify, there_is_one_permit_at_most_and_none_from_notify_waiters, .timeout = 30)
{
    struct hall h = { .next = 0 };
    cr_assert_eq(run(runtime, permits, &h), 0, "line %ld", (long)last_line);
    cr_assert_eq(permits(&h), 0); /* a plain thread as well */
}

static int64_t all_at_once(void *arg)
{
    struct hall *h = arg;
    struct guest guests[TASKS];
    struct numio_join *joins[TASKS];
    struct numio_op op;
    EXPECT(invite(h, guests, joins) == 0);
    numio_op_notify(&op, &h->notify);
    numio_notify_waiters(&h->notify);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    EXPECT(h->next == TASKS);
    EXPECT(numio_op_await(&op) == 0); /* prepared before, begun after */
    numio_op_notify(&op, &h->notify);
    EXPECT(numio_within(SYNC_SOON_NS, numio_op_await(&op)) == -ETIMEDOUT);
    return 0;
}

Test(notify, notify_waiters_is_for_all_that_wait_or_are_prepared, .timeout = 30)
{
    struct hall h = { .next = 0 };
    run_on_one_worker(all_at_once, &h);
}

/* Who was notified and is aborted in the same moment keeps it; a future passes it on. */
static int64_t pass_on(void *arg)
{
    struct hall *h = arg;
    struct sync_case c = { .waits = &h->notify._waits, NULL };
    struct guest guests[TASKS];
    struct numio_join *joins[TASKS];
    EXPECT(invite(h, guests, joins) == 0);
    numio_notify_one(&h->notify);
    numio_join_abort(joins[0]);
    EXPECT(numio_join_await(&joins[0]) == 0 && h->next == 1);
    numio_join_abort(joins[1]);
    EXPECT(numio_join_await(&joins[1]) == -ECANCELED);
    numio_notify_one(&h->notify);
    EXPECT(numio_join_await(&joins[2]) == 0);
    EXPECT(sync_waiters(&c) == TASKS - 3);
    numio_notify_waiters(&h->notify);
    for (int i = 3; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    EXPECT(numio_notify_try_wait(&h->notify) == -EAGAIN);
    return 0;
}

Test(notify, who_was_notified_and_aborted_has_it, .timeout = 30)
{
    struct hall h = { .next = 0 };
    run_on_one_worker(pass_on, &h);
}

/* ---- everybody ----------------------------------------------------------------------------- */

/* A baton that is passed on by notifications; `plain` belongs to who has it. */
struct relay {
    struct numio_notify notify;
    uint64_t plain;
};

static int64_t run_relay(void *arg)
{
    struct relay *r = arg;
    for (int i = 0; i < ROUNDS; i++) {
        EXPECT(numio_notify_wait(&r->notify) == 0);
        uint64_t seen = r->plain;
        if (nio_worker_current() && i % 3 == 0)
            EXPECT(numio_yield_now() == 0);
        r->plain = seen + 1;
        numio_notify_one(&r->notify);
    }
    return 0;
}

static void *run_relay_in_thread(void *arg)
{
    return (void *)(intptr_t)run_relay(arg);
}

static int64_t spawn_runners(void *arg)
{
    struct relay *r = arg;
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, run_relay, r, NULL, &joins[i]) == 0);
    numio_notify_one(&r->notify);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(notify, a_baton_goes_round_and_is_one, .timeout = 60)
{
    struct relay r = { .plain = 0 };
    pthread_t thread;
    void *line;
    cr_assert_eq(pthread_create(&thread, NULL, run_relay_in_thread, &r), 0);
    cr_assert_eq(run(runtime, spawn_runners, &r), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line);
    cr_assert_eq(r.plain, (uint64_t)(TASKS + 1) * ROUNDS);
    cr_assert_eq(r.notify._state, (uint64_t)PERMIT);
}

/* ---- as all waits -------------------------------------------------------------------------- */

static void prep(struct numio_op *op, void *notify)
{
    numio_op_notify(op, notify);
}

static void block(void *notify)
{
    numio_notify_init(notify);
}

static void give_one(void *notify)
{
    numio_notify_one(notify);
}

static void give_last(void *notify)
{
    numio_notify_last(notify);
}

static bool is_clean(void *notify)
{
    return ((struct numio_notify *)notify)->_state == 0;
}

static struct sync_case case_of(struct numio_notify *notify)
{
    return (struct sync_case){ prep, block, give_one, is_clean, notify, &notify->_waits, NULL };
}

FIXTURE_EACH(notify, a_wait_is_late_selected_polled_or_refused_and_takes_nothing, .timeout = 60)
{
    struct numio_notify notify = NUMIO_NOTIFY_INIT;
    struct sync_case c = case_of(&notify);
    sync_check(runtime, &c);
    c.give = give_last;
    sync_check(runtime, &c);
}

Test(notify, a_lost_selection_is_passed_over, .timeout = 30)
{
    struct numio_notify notify = NUMIO_NOTIFY_INIT;
    struct sync_case c = case_of(&notify);
    sync_check_on_one_worker(&c, sync_lost_steps);
}

Test(notify, an_aborted_future_passes_its_notification_on, .timeout = 30)
{
    struct numio_notify notify = NUMIO_NOTIFY_INIT;
    struct sync_case c = case_of(&notify);
    sync_check_on_one_worker(&c, sync_give_back_steps);
    c.give = give_last;
    sync_check_on_one_worker(&c, sync_give_back_steps);
}

Test(notify, at_shutdown_all_waits_end, .timeout = 30)
{
    struct numio_notify notify = NUMIO_NOTIFY_INIT;
    struct sync_case c = case_of(&notify);
    sync_check_shutdown(&c);
}

/* ---- aborts -------------------------------------------------------------------------------- */

static void reset(void *arg)
{
    block(arg);
    numio_notify_one(arg);
}

static int64_t take_and_pass_on(void *arg)
{
    for (int i = 0; i < 4; i++) {
        int rc = numio_notify_wait(arg);
        if (rc)
            return rc;
        int stop = numio_yield_now();
        numio_notify_one(arg);
        if (stop)
            return stop;
    }
    return 0;
}

static int64_t check_permit(void *arg, int64_t result)
{
    struct numio_notify *notify = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(notify->_state == PERMIT && !notify->_waits._first);
    return 0;
}

Test(notify, an_abort_at_each_step_loses_no_permit, .timeout = 60)
{
    struct numio_notify notify;
    struct abort_case what = { reset, take_and_pass_on, take_and_pass_on, check_permit, &notify };
    cr_assert_geq(abort_each(&what), 5u);
}
