/* SPDX-License-Identifier: MIT */
#include "runtime/task/state.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/seeded.h"

enum { RANDOM_TASKS = 3000, RANDOM_STEPS_MAX = 200, EXTRA_REFS_MAX = 5 };

TestSuite(state, .timeout = 60);

/* What the word should say, one field per bit, and who holds what. */
struct model {
    unsigned wakes; /* 0, 1 or 2: the task waits, has an owner, was woken again since */
    bool is_queued; /* it has an owner, who has not started it yet */
    bool is_complete, has_join, has_waker, is_cancelled, has_moved;
    bool is_op_done;   /* in the word */
    bool is_op_marked; /* in the flags */
    unsigned refs;     /* all of them */
    unsigned extra;    /* those of wakers and abort handles */
    uintptr_t waker;
};

static uint64_t encode(const struct model *m)
{
    return m->wakes * NIO_STATE_WAKE | (m->is_complete ? NIO_STATE_COMPLETE : 0) |
           (m->has_join ? NIO_STATE_JOIN_INTEREST : 0) | (m->has_waker ? NIO_STATE_JOIN_WAKER : 0) |
           (m->is_cancelled ? NIO_STATE_CANCELLED : 0) | (m->is_op_done ? NIO_STATE_OP_DONE : 0) |
           (m->has_moved ? NIO_STATE_WAKER_MOVED : 0) | m->refs * NIO_STATE_REF;
}

static uint64_t word(const struct nio_task *task)
{
    /* relaxed: one thread */
    return atomic_load_explicit(&task->state, memory_order_relaxed);
}

static void init(struct nio_task *task, struct model *m, bool has_join)
{
    memset(task, 0, sizeof *task);
    atomic_init(&task->state, nio_state_initial(has_join));
    *m = (struct model){
        .wakes = 1, .is_queued = true, .has_join = has_join, .refs = has_join ? 2 : 1
    };
}

/* A wake in the model; returns what the caller must do. */
static enum nio_wake_action model_wake(struct model *m)
{
    if (m->is_complete)
        return NIO_WAKE_NOTHING;
    bool was_idle = m->wakes == 0;
    m->wakes += m->wakes < 2;
    m->is_queued |= was_idle;
    return was_idle ? NIO_WAKE_QUEUE : NIO_WAKE_NOTHING;
}

static void step_start(struct nio_task *task, struct model *m)
{
    uint64_t before = encode(m) | (m->is_op_marked ? NIO_STATE_OP_DONE : 0);
    cr_assert_eq(nio_state_start(task), before);
    m->wakes = 1;
    m->is_queued = m->is_op_done = m->is_op_marked = false;
}

static void step_worker(struct nio_task *task, struct model *m, unsigned choice)
{
    if (m->wakes == 0)
        return;
    if (m->is_queued) {
        step_start(task, m);
        return;
    }
    switch (choice % 5) {
    case 0:
    case 1:
        m->wakes--;
        m->is_queued = m->wakes > 0;
        cr_assert_eq(nio_state_idle(task), m->is_queued);
        return;
    case 2:
        m->is_queued = true; /* it goes behind the others */
        return;
    case 3:
        return; /* the poll goes on */
    default:
        break;
    }
    uintptr_t waker = 1234;
    m->wakes = 0;
    m->is_complete = true;
    m->refs--;
    cr_assert_eq(nio_state_complete(task, &waker), m->refs == 0);
    cr_assert_eq(waker, m->has_waker ? m->waker : 0);
}

static void step_joiner(struct nio_task *task, struct model *m, unsigned choice)
{
    if (!m->has_join)
        return;
    if (choice % 8 == 7 && (!m->has_waker || m->is_complete)) {
        bool was_last = m->refs == 1;
        m->has_join = was_last; /* the shortcut leaves the word of a dead cell alone */
        m->refs -= was_last ? 0 : 1;
        cr_assert_eq(nio_state_drop_join(task), was_last);
        if (was_last)
            m->refs = 0;
    } else if (!m->has_waker) {
        uintptr_t waker = 16 * (choice + 1);
        cr_assert_eq(nio_state_set_join_waker(task, waker), !m->is_complete);
        m->has_waker = !m->is_complete;
        m->waker = waker;
        cr_assert_eq(nio_state_join_waker(task), waker);
    } else if (choice % 2) {
        cr_assert_eq(nio_state_unset_join_waker(task), !m->is_complete);
        m->has_moved |= !m->is_complete;
        m->has_waker = m->is_complete;
    }
}

static void step_waker(struct nio_task *task, struct model *m, unsigned choice)
{
    if (m->extra == 0)
        return;
    switch (choice % 6) {
    case 0:
        cr_assert_eq(nio_state_wake_by_ref(task), model_wake(m));
        return;
    case 1:
        m->is_cancelled |= !m->is_complete;
        cr_assert_eq(nio_state_cancel(task), model_wake(m));
        return;
    case 2:
        if (m->extra == EXTRA_REFS_MAX)
            return;
        nio_state_ref(task);
        m->refs++;
        m->extra++;
        return;
    case 3:
        m->refs--;
        m->extra--;
        cr_assert_eq(nio_state_unref(task), m->refs == 0);
        return;
    default: {
        enum nio_wake_action wanted = model_wake(m);
        m->refs--;
        m->extra--;
        cr_assert_eq(nio_state_wake_by_value(task), m->refs == 0 ? NIO_WAKE_RELEASE : wanted);
    }
    }
}

static void step_others(struct nio_task *task, struct model *m, unsigned choice)
{
    if (choice % 3 == 0) {
        enum nio_wake_action wanted = NIO_WAKE_NOTHING;
        if (!m->is_complete) {
            m->is_cancelled = true;
            wanted = model_wake(m);
        }
        cr_assert_eq(nio_state_cancel_owned(task), wanted);
    } else if (choice % 3 == 1 && !m->is_complete && !m->is_op_done && !m->is_op_marked) {
        enum nio_wake_action wanted = model_wake(m);
        m->is_op_done = wanted == NIO_WAKE_NOTHING;
        m->is_op_marked = !m->is_op_done;
        cr_assert_eq(nio_state_wake_op_done(task), wanted);
        cr_assert_eq((task->flags & NIO_TASK_OP_DONE) != 0, m->is_op_marked);
    } else if (choice % 2 && nio_state_hold(task)) {
        cr_assert(m->wakes == 0 && !m->is_complete);
        cr_assert_not(nio_state_idle(task));
    } else if (m->wakes > 0 && !m->is_queued && m->extra < EXTRA_REFS_MAX) {
        nio_state_ref(task); /* the running task makes a waker */
        m->refs++;
        m->extra++;
    }
}

Test(state, every_transition_agrees_with_a_naive_model)
{
    struct nio_rng rng = seeded_rng(1);
    unsigned released = 0;
    for (unsigned i = 0; i < RANDOM_TASKS; i++) {
        struct nio_task task;
        struct model m;
        init(&task, &m, nio_rng_below(&rng, 2) == 0);
        for (unsigned step = 0; step < RANDOM_STEPS_MAX && m.refs > 0; step++) {
            unsigned who = nio_rng_below(&rng, 8);
            unsigned choice = nio_rng_below(&rng, 1000);
            if (who < 3)
                step_worker(&task, &m, choice);
            else if (who < 5)
                step_joiner(&task, &m, choice);
            else if (who < 7)
                step_waker(&task, &m, choice);
            else
                step_others(&task, &m, choice);
            if (m.refs > 0)
                cr_assert_eq(word(&task), encode(&m), "task %u step %u: %#lx, expected %#lx", i,
                             step, (unsigned long)word(&task), (unsigned long)encode(&m));
        }
        released += m.refs == 0;
    }
    cr_assert_gt(released, RANDOM_TASKS / 2, "the walk seldom came to an end: %u", released);
}

Test(state, a_wake_of_an_idle_task_queues_it_exactly_once)
{
    struct nio_task task;
    struct model m;
    init(&task, &m, true);
    cr_assert_eq(nio_state_wake_by_ref(&task), NIO_WAKE_NOTHING, "it is queued from the spawn");
    (void)nio_state_start(&task);
    cr_assert_not(nio_state_idle(&task));
    cr_assert_eq(nio_state_wake_by_ref(&task), NIO_WAKE_QUEUE);
    cr_assert_eq(nio_state_wake_by_ref(&task), NIO_WAKE_NOTHING);
    cr_assert_eq(nio_state_cancel(&task), NIO_WAKE_NOTHING);
}

Test(state, a_wake_during_a_poll_is_handed_to_the_poller)
{
    struct nio_task task;
    struct model m;
    init(&task, &m, true);
    (void)nio_state_start(&task);
    cr_assert_eq(nio_state_wake_by_ref(&task), NIO_WAKE_NOTHING);
    cr_assert(nio_state_idle(&task), "the poller must queue it");
    cr_assert_eq(nio_state_wake_by_ref(&task), NIO_WAKE_NOTHING, "it is queued already");
}

Test(state, wakes_of_a_queued_task_are_answered_by_one_poll)
{
    struct nio_task task;
    struct model m;
    init(&task, &m, true);
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(nio_state_wake_by_ref(&task), NIO_WAKE_NOTHING, "it is queued already");
    (void)nio_state_start(&task);
    cr_assert_not(nio_state_idle(&task), "all of them came before the poll");
}

Test(state, a_task_that_yields_keeps_what_came_during_its_poll)
{
    for (unsigned is_woken = 0; is_woken < 2; is_woken++) {
        struct nio_task task;
        struct model m;
        init(&task, &m, false);
        (void)nio_state_start(&task);
        if (is_woken)
            cr_assert_eq(nio_state_wake_op_done(&task), NIO_WAKE_NOTHING);
        cr_assert_eq(nio_state_wake_by_ref(&task), NIO_WAKE_NOTHING, "its owner will queue it");
        cr_assert_eq((nio_state_start(&task) & NIO_STATE_OP_DONE) != 0, is_woken);
        cr_assert_not(nio_state_idle(&task), "the wakes are answered");
    }
}

/* The operation has ended at each moment: while the coroutine waits, while it is queued for another
 * reason, and while it is still on its way into the wait. */
Test(state, op_done_is_seen_by_the_next_start_and_only_by_that)
{
    for (unsigned moment = 0; moment < 3; moment++) {
        struct nio_task task;
        struct model m;
        init(&task, &m, false);
        (void)nio_state_start(&task);
        if (moment < 2)
            cr_assert_not(nio_state_idle(&task));
        if (moment == 1)
            cr_assert_eq(nio_state_cancel(&task), NIO_WAKE_QUEUE);
        cr_assert_eq(nio_state_wake_op_done(&task),
                     moment == 0 ? NIO_WAKE_QUEUE : NIO_WAKE_NOTHING);
        if (moment == 2)
            cr_assert(nio_state_idle(&task), "the poller must queue it");
        cr_assert(nio_state_start(&task) & NIO_STATE_OP_DONE, "moment %u", moment);
        cr_assert_not(nio_state_start(&task) & NIO_STATE_OP_DONE, "moment %u", moment);
        cr_assert_not(nio_state_idle(&task), "moment %u", moment);
    }
}

/* The completion comes between the popper's look at the word and its RMW. */
Test(state, op_done_that_comes_during_the_start_is_not_lost)
{
    struct nio_task task;
    struct model m;
    init(&task, &m, false);
    cr_assert_eq(nio_state_cancel(&task), NIO_WAKE_NOTHING);
    uint64_t seen = word(&task);
    cr_assert_eq(nio_state_wake_op_done(&task), NIO_WAKE_NOTHING);
    cr_assert(nio_state_start_again(&task, seen) & NIO_STATE_OP_DONE);
    cr_assert_not(nio_state_start(&task) & NIO_STATE_OP_DONE);
    cr_assert_not(nio_state_idle(&task));
}

Test(state, a_complete_task_is_never_queued)
{
    struct nio_task task;
    struct model m;
    uintptr_t waker;
    init(&task, &m, true);
    (void)nio_state_start(&task);
    nio_state_ref(&task);
    cr_assert_not(nio_state_complete(&task, &waker));
    cr_assert_eq(nio_state_wake_by_ref(&task), NIO_WAKE_NOTHING);
    cr_assert_eq(nio_state_cancel(&task), NIO_WAKE_NOTHING);
    cr_assert_eq(nio_state_cancel_owned(&task), NIO_WAKE_NOTHING);
    cr_assert_eq(nio_state_wake_by_value(&task), NIO_WAKE_NOTHING);
    cr_assert(nio_state_drop_join(&task));
}

Test(state, the_last_holder_whoever_it_is_releases)
{
    struct nio_task task;
    struct model m;
    uintptr_t waker;
    init(&task, &m, true);
    (void)nio_state_start(&task);
    nio_state_ref(&task);
    cr_assert_not(nio_state_complete(&task, &waker));
    cr_assert_not(nio_state_drop_join(&task));
    cr_assert_eq(nio_state_wake_by_value(&task), NIO_WAKE_RELEASE);

    init(&task, &m, false);
    (void)nio_state_start(&task);
    cr_assert(nio_state_complete(&task, &waker), "nobody else knew it");
    cr_assert_eq(waker, 0);
}

Test(state, complete_hands_out_the_waker_that_stands_there_also_after_it_moved)
{
    for (unsigned moves = 0; moves < 4; moves++) {
        struct nio_task task;
        struct model m;
        uintptr_t waker;
        init(&task, &m, true);
        (void)nio_state_start(&task);
        for (unsigned i = 0; i < moves; i++) {
            cr_assert(nio_state_set_join_waker(&task, 16 + i));
            cr_assert(nio_state_unset_join_waker(&task));
        }
        cr_assert(nio_state_set_join_waker(&task, 4096));
        cr_assert_not(nio_state_complete(&task, &waker));
        cr_assert_eq(waker, 4096);
        cr_assert_not(nio_state_unset_join_waker(&task), "the completer has it");
        cr_assert(nio_state_drop_join(&task));
    }
}

Test(state, only_a_task_that_just_waits_can_be_held_and_a_wake_meanwhile_is_kept)
{
    struct nio_task task;
    struct model m;
    uintptr_t waker;
    memset(&task, 0, sizeof task);
    cr_assert_not(nio_state_hold(&task), "a free cell");
    init(&task, &m, true);
    cr_assert_not(nio_state_hold(&task), "it is queued");
    (void)nio_state_start(&task);
    cr_assert_not(nio_state_hold(&task), "it runs");
    cr_assert_not(nio_state_idle(&task));
    cr_assert(nio_state_hold(&task));
    cr_assert_not(nio_state_hold(&task), "it is held");
    cr_assert_not(nio_state_idle(&task));
    cr_assert(nio_state_hold(&task));
    cr_assert_eq(nio_state_wake_by_ref(&task), NIO_WAKE_NOTHING);
    cr_assert(nio_state_idle(&task), "the holder must queue it");
    (void)nio_state_start(&task);
    cr_assert_not(nio_state_complete(&task, &waker));
    cr_assert_not(nio_state_hold(&task), "it has ended");
    cr_assert(nio_state_drop_join(&task));
}

/* The word after taking a waker back must differ from every word before: a completer that has read
 * the old waker must fail its CAS. */
Test(state, taking_a_waker_back_and_leaving_another_changes_the_word)
{
    struct nio_task task;
    struct model m;
    init(&task, &m, true);
    (void)nio_state_start(&task);
    cr_assert(nio_state_set_join_waker(&task, 16));
    uint64_t before = word(&task);
    cr_assert(nio_state_unset_join_waker(&task));
    cr_assert(nio_state_set_join_waker(&task, 32));
    cr_assert_neq(word(&task), before);
}

Test(state, cancel_owned_leaves_a_free_cell_alone)
{
    struct nio_task task;
    memset(&task, 0, sizeof task);
    cr_assert_eq(nio_state_cancel_owned(&task), NIO_WAKE_NOTHING);
    cr_assert_eq(word(&task), 0);
}

/* ---- members of groups --------------------------------------------------------------------- */

enum { GROUP = 4096 };

static void init_member(struct nio_task *task)
{
    memset(task, 0, sizeof *task);
    atomic_init(&task->state, nio_state_initial_member());
    atomic_init(&task->join_waker, GROUP);
}

Test(state, a_member_is_complete_with_its_groups_reference_left)
{
    struct nio_task task;
    uintptr_t waker = 0;
    init_member(&task);
    (void)nio_state_start(&task); /* nothing has happened to it */
    cr_assert_not(nio_state_complete(&task, &waker));
    cr_assert_eq(waker, GROUP);
    cr_assert(word(&task) & NIO_STATE_COMPLETE);
    cr_assert_eq(nio_state_refs(word(&task)), 1);
    cr_assert_eq(word(&task) & NIO_STATE_WAKES, 0);
}

Test(state, a_member_that_others_hold_keeps_their_references)
{
    struct nio_task task;
    uintptr_t waker = 0;
    init_member(&task);
    nio_state_ref(&task);
    (void)nio_state_start(&task); /* nothing has happened to it */
    cr_assert_eq(nio_state_cancel(&task), NIO_WAKE_NOTHING);
    cr_assert_not(nio_state_complete(&task, &waker));
    cr_assert_eq(waker, GROUP);
    cr_assert_eq(nio_state_refs(word(&task)), 2);
    cr_assert_eq(nio_state_cancel(&task), NIO_WAKE_NOTHING);
    cr_assert_not(nio_state_unref(&task));
    cr_assert(nio_state_unref(&task));
}

Test(state, an_errand_is_seen_by_the_next_start_and_cleared_by_its_owner)
{
    struct nio_task task;
    init_member(&task);
    (void)nio_state_start(&task); /* nothing has happened to it */
    cr_assert_eq(nio_state_wake_errand(&task), NIO_WAKE_NOTHING);
    cr_assert(nio_state_idle(&task)); /* it was woken */
    cr_assert(nio_state_start(&task) & NIO_STATE_ERRAND);
    nio_state_clear_errand(&task);
    cr_assert_not(nio_state_idle(&task));
    cr_assert_eq(nio_state_wake_errand(&task), NIO_WAKE_QUEUE);
    cr_assert(nio_state_start(&task) & NIO_STATE_ERRAND);
}
