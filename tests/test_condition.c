/* SPDX-License-Identifier: MIT */
/* Promises of the condition: who returns from a wait holds the mutex, whatever became of it; a
 * signal is for one, a broadcast for all, who go to the mutex' queue; no signal is lost to a wait
 * that was given up; misuse is told; by coroutines, futures and plain threads. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/stepped_wait.h"
#include "tests/steps.h"
#include "tests/sync_cases.h"

#include "runtime/sched/wait_await.h"

enum { TASKS = 8, ROUNDS = 300, ROOM = 3, SOON_NS = 2000000 };

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

enum { ACTORS = 8, STEPS = 60000 };

enum where { AWAY, AT_MUTEX, HOLDS, AT_CONDITION };

struct actor {
    struct numio_op op;
    enum where where;
    int32_t result; /* with which it will get the mutex */
};

struct model {
    struct numio_mutex mutex;
    struct numio_condition condition;
    struct actor actors[ACTORS];
    int at_mutex[ACTORS], at_mutex_count;
    int at_condition[ACTORS], at_condition_count;
};

/* Even, as all names. */
static uintptr_t who_is(int i)
{
    return ((uintptr_t)i + 1) * 2;
}

static void append(int *queue, int *count, int i)
{
    queue[(*count)++] = i;
}

static void take_from(int *queue, int *count, int i)
{
    int at = 0;
    while (queue[at] != i)
        at++;
    (*count)--;
    for (; at < *count; at++)
        queue[at] = queue[at + 1];
}

static bool is_held(const struct model *m)
{
    for (int i = 0; i < ACTORS; i++)
        if (m->actors[i].where == HOLDS)
            return true;
    return false;
}

static void ask_for_mutex(struct model *m, int i, int32_t result)
{
    m->actors[i].result = result;
    m->actors[i].where = is_held(m) ? AT_MUTEX : HOLDS;
    if (m->actors[i].where == AT_MUTEX)
        append(m->at_mutex, &m->at_mutex_count, i);
}

static void let_go(struct model *m, int i, enum where where)
{
    m->actors[i].where = where;
    if (m->at_mutex_count == 0)
        return;
    int next = m->at_mutex[0];
    take_from(m->at_mutex, &m->at_mutex_count, next);
    m->actors[next].where = HOLDS;
}

static void model_wait(struct model *m, int i)
{
    struct actor *a = &m->actors[i];
    numio_op_condition_wait(&a->op, &m->condition, &m->mutex);
    stepped_begin(&a->op, who_is(i + 1)); /* somebody else */
    cr_assert_eq(stepped_result(&a->op), -EPERM);
    numio_op_condition_wait(&a->op, &m->condition, &m->mutex);
    stepped_begin(&a->op, who_is(i));
    append(m->at_condition, &m->at_condition_count, i);
    let_go(m, i, AT_CONDITION);
}

static void model_end_first(struct model *m)
{
    int first = m->at_condition[0];
    take_from(m->at_condition, &m->at_condition_count, first);
    ask_for_mutex(m, first, 0);
}

static void model_step(struct model *m, struct nio_rng *rng)
{
    int i = (int)nio_rng_below(rng, ACTORS);
    struct actor *a = &m->actors[i];
    uint32_t what = nio_rng_below(rng, 12);
    if (what == 0) {
        numio_condition_broadcast(&m->condition);
        while (m->at_condition_count)
            model_end_first(m);
    } else if (what <= 3) {
        numio_condition_signal(&m->condition);
        if (m->at_condition_count)
            model_end_first(m);
    } else if (a->where == AWAY) {
        numio_op_mutex_lock(&a->op, &m->mutex);
        stepped_begin(&a->op, who_is(i));
        ask_for_mutex(m, i, 0);
    } else if (a->where == HOLDS && what % 2) {
        numio_op_mutex_lock(&a->op, &m->mutex); /* whichever way it has come */
        a->op._sqe[NIO_WAIT_WORD_WHO] = who_is(i);
        stepped_give_back(&a->op);
        let_go(m, i, AWAY);
    } else if (a->where == HOLDS) {
        model_wait(m, i);
    } else if (what == 4 && a->where == AT_CONDITION) {
        cr_assert_not(stepped_leave(&a->op));
        take_from(m->at_condition, &m->at_condition_count, i);
        ask_for_mutex(m, i, -ECANCELED);
    } else if (what == 5 && a->where == AT_MUTEX && nio_wait_object(&a->op) == &m->condition) {
        cr_assert_not(stepped_leave(&a->op)); /* changes nothing in the second part */
    }
}

static void compare(const struct model *m)
{
    cr_assert_eq(m->condition._state, m->at_condition_count > 0);
    uintptr_t holder = 0;
    for (int i = 0; i < ACTORS; i++) {
        const struct actor *a = &m->actors[i];
        if (a->where == HOLDS)
            holder = who_is(i);
        if (a->where == HOLDS)
            cr_assert_eq(stepped_result(&a->op), a->result);
        else if (a->where != AWAY)
            cr_assert_eq(stepped_result(&a->op), STEPPED_WAITS);
    }
    cr_assert_eq(m->mutex._state, holder | (m->at_mutex_count > 0));
}

Test(condition, agrees_with_a_naive_model, .timeout = 60)
{
    struct nio_rng rng = seeded_rng(17);
    static struct model m;
    unsigned canceled = 0;
    for (int step = 0; step < STEPS; step++) {
        model_step(&m, &rng);
        compare(&m);
        for (int i = 0; i < ACTORS; i++)
            canceled += m.actors[i].where == HOLDS && m.actors[i].result == -ECANCELED;
    }
    cr_assert_gt(canceled, 0u);
}

/* ---- a buffer with little room, with everybody ---------------------------------------------- */

struct buffer {
    struct numio_mutex mutex;
    struct numio_condition has_room, has_item;
    uint64_t items[ROOM], count, put, taken, sum;
};

static int64_t put_items(void *arg)
{
    struct buffer *b = arg;
    for (int i = 0; i < ROUNDS; i++) {
        EXPECT(numio_mutex_lock(&b->mutex) == 0);
        while (b->count == ROOM)
            EXPECT(numio_condition_wait(&b->has_room, &b->mutex) == 0);
        b->items[b->count++] = ++b->put;
        if (i % 2)
            numio_condition_signal(&b->has_item);
        EXPECT(numio_mutex_unlock(&b->mutex) == 0);
        if (i % 2 == 0)
            numio_condition_broadcast(&b->has_item);
    }
    return 0;
}

static int64_t take_items(void *arg)
{
    struct buffer *b = arg;
    for (int i = 0; i < ROUNDS; i++) {
        EXPECT(numio_mutex_lock(&b->mutex) == 0);
        while (b->count == 0)
            EXPECT(numio_condition_wait(&b->has_item, &b->mutex) == 0);
        b->sum += b->items[--b->count];
        b->taken++;
        numio_condition_signal(&b->has_room);
        EXPECT(numio_mutex_unlock(&b->mutex) == 0);
    }
    return 0;
}

static void *put_in_thread(void *arg)
{
    return (void *)(intptr_t)put_items(arg);
}

static void *take_in_thread(void *arg)
{
    return (void *)(intptr_t)take_items(arg);
}

static int64_t put_and_take(void *arg)
{
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_spawn_co(NULL, i % 2 ? put_items : take_items, arg, NULL, &joins[i]) == 0);
    for (int i = 0; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(condition, a_full_and_an_empty_buffer_are_waited_for, .timeout = 60)
{
    struct buffer b = { .mutex = NUMIO_MUTEX_INIT };
    uint64_t all = (TASKS / 2 + 1) * ROUNDS;
    pthread_t putter, taker;
    void *lines[2];
    cr_assert_eq(pthread_create(&putter, NULL, put_in_thread, &b), 0);
    cr_assert_eq(pthread_create(&taker, NULL, take_in_thread, &b), 0);
    cr_assert_eq(run(runtime, put_and_take, &b), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(putter, &lines[0]), 0);
    cr_assert_eq(pthread_join(taker, &lines[1]), 0);
    cr_assert(!lines[0] && !lines[1]);
    cr_assert(b.put == all && b.taken == all && b.sum == all * (all + 1) / 2);
    cr_assert(b.mutex._state == 0 && b.has_room._state == 0 && b.has_item._state == 0);
}

/* ---- order, and where the waiters go -------------------------------------------------------- */

struct hall {
    struct numio_mutex mutex;
    struct numio_condition condition;
    int next, wrong, inside, yields;
};

struct guest {
    struct hall *hall;
    int index;
    int result; /* of the wait */
};

static int64_t wait_in_hall(void *arg)
{
    struct guest *g = arg;
    struct hall *h = g->hall;
    EXPECT(numio_mutex_lock(&h->mutex) == 0);
    g->result = numio_condition_wait(&h->condition, &h->mutex);
    h->wrong += h->inside++ != 0;
    if (g->result == 0)
        h->wrong += h->next++ != g->index;
    if (g->result == 0)
        h->yields += numio_yield_now() == 0; /* it may have been aborted all the same */
    h->inside--;
    EXPECT(numio_mutex_unlock(&h->mutex) == 0); /* it is its own, in every case */
    return 0;
}

static int64_t invite(struct hall *h, struct guest *guests, struct numio_join **joins)
{
    for (int i = 0; i < TASKS; i++) {
        guests[i] = (struct guest){ h, i, 1 };
        EXPECT(numio_spawn_co(NULL, wait_in_hall, &guests[i], NULL, &joins[i]) == 0);
        EXPECT(numio_yield_now() == 0); /* it waits now */
    }
    return 0;
}

static size_t count(struct numio_wait_queue_ *waits)
{
    struct sync_case c = { .waits = waits, NULL };
    return sync_waiters(&c);
}

static int64_t signal_and_broadcast(void *arg)
{
    struct hall *h = arg;
    struct guest guests[TASKS];
    struct numio_join *joins[TASKS];
    numio_condition_signal(&h->condition); /* nobody waits: it is nothing */
    EXPECT(invite(h, guests, joins) == 0);
    EXPECT(count(&h->condition._waits) == TASKS && h->mutex._state == 0);
    for (int i = 0; i < 3; i++) {
        numio_condition_signal(&h->condition);
        EXPECT(numio_join_await(&joins[i]) == 0);
        EXPECT(h->next == i + 1);
    }
    EXPECT(numio_mutex_lock(&h->mutex) == 0);
    numio_condition_broadcast(&h->condition);
    EXPECT(count(&h->condition._waits) == 0);
    EXPECT(count(&h->mutex._waits) == TASKS - 3); /* none of them was woken */
    for (int i = 0; i < 3; i++)
        EXPECT(numio_yield_now() == 0);
    EXPECT(h->next == 3);
    EXPECT(numio_mutex_unlock(&h->mutex) == 0);
    EXPECT(h->mutex._state > 1); /* it was handed to the next */
    for (int i = 3; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    EXPECT(h->next == TASKS && h->wrong == 0 && h->mutex._state == 0);
    return 0;
}

Test(condition, a_broadcast_sends_all_to_the_mutex_and_wakes_none_in_vain, .timeout = 30)
{
    struct hall h = { .mutex = NUMIO_MUTEX_INIT };
    run_on_one_worker(signal_and_broadcast, &h);
}

/* Aborts and deadlines while somebody else holds the mutex. */
static int64_t give_up(void *arg)
{
    struct hall *h = arg;
    struct guest guests[TASKS];
    struct numio_join *joins[TASKS];
    EXPECT(invite(h, guests, joins) == 0);
    EXPECT(numio_mutex_lock(&h->mutex) == 0);
    numio_join_abort(joins[0]);
    numio_condition_signal(&h->condition); /* to it, before it is cancelled, ... */
    for (int i = 0; i < 3; i++)
        EXPECT(numio_yield_now() == 0);
    numio_join_abort(joins[2]);
    for (int i = 0; i < 3; i++)
        EXPECT(numio_yield_now() == 0);
    numio_condition_signal(&h->condition); /* ... and to the one behind them */
    EXPECT(count(&h->mutex._waits) == 3);
    EXPECT(numio_mutex_unlock(&h->mutex) == 0);
    for (int i = 0; i < 3; i++)
        (void)numio_join_await(&joins[i]); /* the guest says what has become of it */
    EXPECT(guests[0].result == 0 && guests[1].result == 0 && guests[2].result == -ECANCELED);
    EXPECT(h->mutex._state == 0 && count(&h->condition._waits) == TASKS - 3);
    numio_condition_broadcast(&h->condition);
    for (int i = 3; i < TASKS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

static int64_t unlock_after_abort(void *arg)
{
    struct guest *g = arg;
    EXPECT(numio_mutex_lock(&g->hall->mutex) == 0);
    g->result = numio_condition_wait(&g->hall->condition, &g->hall->mutex);
    return numio_mutex_unlock(&g->hall->mutex);
}

/* The mutex comes back although the task is told to end. */
static int64_t hold_meanwhile(void *arg)
{
    struct hall *h = arg;
    struct guest g = { h, 0, 1 };
    struct numio_join *join;
    EXPECT(numio_spawn_co(NULL, unlock_after_abort, &g, NULL, &join) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_mutex_lock(&h->mutex) == 0);
    numio_join_abort(join);
    for (int i = 0; i < 5; i++)
        EXPECT(numio_yield_now() == 0);
    EXPECT(!numio_join_is_finished(join) && count(&h->mutex._waits) == 1);
    EXPECT(numio_mutex_unlock(&h->mutex) == 0);
    EXPECT(numio_join_await(&join) == 0);
    EXPECT(g.result == -ECANCELED && h->mutex._state == 0);
    return 0;
}

Test(condition, a_signal_is_kept_or_goes_to_the_next, .timeout = 30)
{
    struct hall h = { .mutex = NUMIO_MUTEX_INIT };
    run_on_one_worker(give_up, &h);
}

Test(condition, an_aborted_wait_returns_with_the_mutex, .timeout = 30)
{
    struct hall h = { .mutex = NUMIO_MUTEX_INIT };
    run_on_one_worker(hold_meanwhile, &h);
}

/* ---- deadlines and misuse ------------------------------------------------------------------ */

static int64_t wait_in_time(void *arg)
{
    struct hall *h = arg;
    EXPECT(numio_condition_wait(&h->condition, &h->mutex) == -EPERM);
    EXPECT(strstr(numio_strerror_detail(), "does not hold"));
    EXPECT(numio_mutex_lock(&h->mutex) == 0);
    EXPECT(numio_within(SOON_NS, numio_condition_wait(&h->condition, &h->mutex)) == -ETIMEDOUT);
    EXPECT(h->condition._state == 0);
    EXPECT(numio_mutex_lock(&h->mutex) == -EDEADLK); /* it holds it */
    EXPECT(numio_mutex_unlock(&h->mutex) == 0);
    return 0;
}

FIXTURE_EACH(condition, a_late_wait_returns_with_the_mutex_and_misuse_is_told, .timeout = 30)
{
    struct hall h = { .mutex = NUMIO_MUTEX_INIT };
    numio_condition_init(&h.condition);
    cr_assert_eq(run(runtime, wait_in_time, &h), 0, "line %ld", (long)last_line);
    cr_assert_eq(wait_in_time(&h), 0); /* a plain thread as well */
    cr_assert_eq(h.mutex._state, 0u);
}

static enum numio_poll wait_in_poll(void *state, struct numio_context *cx)
{
    struct hall *h = *(struct hall **)state;
    int *rc = numio_context_output(cx);
    *rc = numio_mutex_lock(&h->mutex);
    if (*rc == 0)
        *rc = numio_condition_wait(&h->condition, &h->mutex);
    return numio_mutex_unlock(&h->mutex) == 0 ? NUMIO_READY : NUMIO_PENDING;
}

static int64_t block_in_poll(void *arg)
{
    struct numio_future future = {
        .poll = wait_in_poll, .state = &arg, .size = sizeof arg, .output_size = sizeof(int)
    };
    struct numio_join *join;
    int rc = 0;
    EXPECT(numio_spawn(NULL, &future, NULL, &join) == 0);
    EXPECT(numio_join_await_output(&join, &rc, sizeof rc) == 0);
    EXPECT(rc == -EDEADLK);
    return 0;
}

Test(condition, waiting_inside_of_a_poll_is_refused, .timeout = 30)
{
    struct hall h = { .mutex = NUMIO_MUTEX_INIT };
    run_on_one_worker(block_in_poll, &h);
}

/* ---- aborts at each step, shutdown ----------------------------------------------------------- */

struct turns {
    struct numio_mutex mutex;
    struct numio_condition condition;
    int64_t seats, sitting;
};

static void reset(void *arg)
{
    *(struct turns *)arg = (struct turns){ .mutex = NUMIO_MUTEX_INIT, .seats = 1 };
}

/* A semaphore made of a condition. */
static int64_t sit_and_stand_up(void *arg)
{
    struct turns *t = arg;
    int stop = 0;
    for (int i = 0; i < 3 && !stop; i++) {
        int rc = numio_mutex_lock(&t->mutex);
        while (rc == 0 && t->seats == 0 && !stop)
            stop = numio_condition_wait(&t->condition, &t->mutex);
        if (rc || stop) {
            if (stop) /* a signal that it got before is not used up by giving up */
                EXPECT(numio_mutex_unlock(&t->mutex) == 0);
            return rc ? rc : stop;
        }
        t->seats--;
        EXPECT(numio_mutex_unlock(&t->mutex) == 0);
        stop = numio_yield_now();
        t->seats++; /* without the mutex, which an aborted task may not wait for: there is one
                       worker */
        numio_condition_signal(&t->condition);
    }
    return stop;
}

static int64_t check_free(void *arg, int64_t result)
{
    struct turns *t = arg;
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(t->mutex._state == 0 && !t->mutex._waits._first);
    EXPECT(t->condition._state == 0 && !t->condition._waits._first && t->seats == 1);
    return 0;
}

Test(condition, an_abort_at_each_step_leaves_all_free, .timeout = 60)
{
    struct turns t;
    struct abort_case what = { reset, sit_and_stand_up, sit_and_stand_up, check_free, &t };
    cr_assert_geq(abort_each(&what), 5u);
}

static bool all_wait(void *arg)
{
    return count(&((struct hall *)arg)->condition._waits) == TASKS;
}

Test(condition, at_shutdown_all_waits_end_one_after_the_other, .timeout = 30)
{
    struct hall h = { .mutex = NUMIO_MUTEX_INIT };
    struct numio_runtime *runtime = fixture_start(2);
    struct guest guests[TASKS];
    struct numio_join *joins[TASKS];
    for (int i = 0; i < TASKS; i++) {
        guests[i] = (struct guest){ &h, i, 1 };
        cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), wait_in_hall, &guests[i], NULL,
                                    &joins[i]),
                     0);
    }
    cr_assert(fixture_until(all_wait, &h));
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    for (int i = 0; i < TASKS; i++) {
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
        cr_assert_eq(guests[i].result, -ECANCELED);
    }
    cr_assert(h.mutex._state == 0 && h.condition._state == 0 && h.wrong == 0);
    numio_runtime_destroy(runtime);
}

/* ---- selections ---------------------------------------------------------------------------- */

struct choice {
    struct hall hall;
    struct numio_semaphore semaphore;
    _Atomic uint32_t is_waiting;
};

static int64_t select_each(void *arg)
{
    struct choice *c = arg;
    struct hall *h = &c->hall;
    struct numio_op ops[2];
    EXPECT(numio_mutex_lock(&h->mutex) == 0);
    for (int wins = 0; wins < 2; wins++) {
        numio_op_condition_wait(&ops[0], &h->condition, &h->mutex);
        numio_op_semaphore_acquire(&ops[1], &c->semaphore, 1);
        EXPECT(wins || numio_semaphore_release(&c->semaphore, 1) == 0);
        fixture_set(&c->is_waiting, (uint32_t)wins);
        EXPECT(numio_select(ops, 2, NUMIO_SELECT_FAIR) == !wins);
        EXPECT(numio_op_result(&ops[0]) == (wins ? 0 : -ECANCELED));
        EXPECT(numio_mutex_lock(&h->mutex) == -EDEADLK); /* it holds it in either case */
    }
    EXPECT(numio_mutex_unlock(&h->mutex) == 0);
    EXPECT(h->mutex._state == 0 && h->condition._state == 0);
    return 0;
}

static bool one_waits(void *arg)
{
    struct choice *c = arg;
    return fixture_get(&c->is_waiting) && count(&c->hall.condition._waits) == 1;
}

static void *signal_when_it_waits(void *arg)
{
    struct choice *c = arg;
    if (fixture_until(one_waits, c))
        numio_condition_signal(&c->hall.condition);
    return NULL;
}

FIXTURE_EACH(condition, after_a_selection_the_mutex_is_held_whatever_has_won, .timeout = 30)
{
    for (int in_thread = 0; in_thread < 2; in_thread++) {
        struct choice c = { .hall = { .mutex = NUMIO_MUTEX_INIT } };
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, signal_when_it_waits, &c), 0);
        int64_t line = in_thread ? select_each(&c) : run(runtime, select_each, &c);
        cr_assert_eq(line, 0, "line %ld", (long)line);
        cr_assert_eq(pthread_join(thread, NULL), 0);
    }
}

/* The selection has been won by the permit when the signal comes: the next one gets it. */
static int64_t select_late(void *arg)
{
    struct choice *c = arg;
    struct numio_op ops[2];
    EXPECT(numio_mutex_lock(&c->hall.mutex) == 0);
    numio_op_condition_wait(&ops[0], &c->hall.condition, &c->hall.mutex);
    numio_op_semaphore_acquire(&ops[1], &c->semaphore, 1);
    EXPECT(numio_select(ops, 2, NUMIO_SELECT_BIASED) == 1);
    EXPECT(numio_op_result(&ops[0]) == -ECANCELED);
    return numio_mutex_unlock(&c->hall.mutex);
}

static int64_t pass_over(void *arg)
{
    struct choice *c = arg;
    struct guest g = { &c->hall, 0, 1 };
    struct numio_join *joins[2];
    EXPECT(numio_spawn_co(NULL, select_late, c, NULL, &joins[0]) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_spawn_co(NULL, wait_in_hall, &g, NULL, &joins[1]) == 0);
    EXPECT(numio_yield_now() == 0);
    EXPECT(count(&c->hall.condition._waits) == 2);
    EXPECT(numio_mutex_lock(&c->hall.mutex) == 0); /* both come back to its queue */
    EXPECT(numio_semaphore_release(&c->semaphore, 1) == 0);
    numio_condition_signal(&c->hall.condition);
    EXPECT(count(&c->hall.mutex._waits) == 2 && c->hall.condition._state == 0);
    EXPECT(numio_mutex_unlock(&c->hall.mutex) == 0);
    EXPECT(numio_join_await(&joins[0]) == 0);
    EXPECT(numio_join_await(&joins[1]) == 0);
    EXPECT(g.result == 0 && c->hall.mutex._state == 0);
    return 0;
}

Test(condition, a_lost_selection_is_passed_over, .timeout = 30)
{
    struct choice c = { .hall = { .mutex = NUMIO_MUTEX_INIT } };
    run_on_one_worker(pass_over, &c);
}

/* ---- futures ------------------------------------------------------------------------------- */

struct sitter {
    struct hall *hall;
    struct numio_op op;
    enum { FRESH, LOCKING, WAITING } at;
    bool is_forgetful;
};

static enum numio_poll sitter_poll(void *state, struct numio_context *cx)
{
    struct sitter *s = state;
    int64_t *result = numio_context_output(cx);
    if (s->at == FRESH) {
        numio_op_mutex_lock(&s->op, &s->hall->mutex);
        s->at = LOCKING;
        if (numio_op_start(&s->op, cx) != 0)
            return NUMIO_READY;
    }
    if (s->at == LOCKING) {
        if (numio_op_poll(&s->op, cx, result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        numio_op_condition_wait(&s->op, &s->hall->condition, &s->hall->mutex);
        s->at = WAITING;
        if (numio_op_start(&s->op, cx) != 0)
            return NUMIO_READY;
    }
    if (s->is_forgetful || numio_op_poll(&s->op, cx, result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    return NUMIO_READY;
}

/* It holds the mutex, however it has ended. */
static void sitter_drop(void *state)
{
    struct sitter *s = state;
    s->hall->wrong += numio_mutex_unlock(&s->hall->mutex) != 0;
}

static int64_t spawn_sitter(struct hall *h, bool is_forgetful, struct numio_join **ret_join)
{
    struct sitter s = { .hall = h, .is_forgetful = is_forgetful };
    struct numio_future future = { .poll = sitter_poll,
                                   .drop = sitter_drop,
                                   .state = &s,
                                   .size = sizeof s,
                                   .output_size = sizeof(int64_t) };
    size_t before = count(&h->condition._waits);
    EXPECT(numio_spawn(NULL, &future, NULL, ret_join) == 0);
    while (count(&h->condition._waits) == before) /* it is about to be polled */
        EXPECT(numio_yield_now() == 0);
    return 0;
}

static int64_t sit_as_futures(void *arg)
{
    struct hall *h = arg;
    struct numio_join *joins[3];
    int64_t result = -1;
    EXPECT(spawn_sitter(h, false, &joins[0]) == 0);
    numio_condition_signal(&h->condition);
    EXPECT(numio_join_await_output(&joins[0], &result, sizeof result) == 0 && result == 0);
    EXPECT(h->mutex._state == 0);
    EXPECT(spawn_sitter(h, true, &joins[0]) == 0); /* aborted while it waits */
    numio_join_abort(joins[0]);
    EXPECT(numio_join_await(&joins[0]) == -ECANCELED);
    EXPECT(h->mutex._state == 0 && h->condition._state == 0);
    EXPECT(spawn_sitter(h, true, &joins[1]) == 0); /* aborted once it has got the signal */
    EXPECT(spawn_sitter(h, false, &joins[2]) == 0);
    numio_condition_signal(&h->condition);
    numio_join_abort(joins[1]);
    EXPECT(numio_join_await(&joins[1]) == -ECANCELED);
    result = -1;
    EXPECT(numio_join_await_output(&joins[2], &result, sizeof result) == 0 && result == 0);
    EXPECT(h->mutex._state == 0 && h->condition._state == 0 && h->wrong == 0);
    return 0;
}

FIXTURE_EACH(condition, a_future_that_ends_holds_the_mutex_and_passes_its_signal_on, .timeout = 30)
{
    struct hall h = { .mutex = NUMIO_MUTEX_INIT };
    cr_assert_eq(run(runtime, sit_as_futures, &h), 0, "line %ld", (long)last_line);
}
