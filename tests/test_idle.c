/* SPDX-License-Identifier: MIT */
#include "runtime/sched/idle.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/seeded.h"

TestSuite(idle, .timeout = 100);

static struct nio_idle idle;

static unsigned sleeping(void)
{
    return nio_idle_sleeping(nio_idle_load(&idle));
}

static unsigned searching(void)
{
    return nio_idle_searching(nio_idle_load(&idle));
}

Test(idle, at_most_half_of_the_workers_search_and_always_one_may)
{
    for (unsigned workers = 1; workers <= 9; workers++) {
        nio_idle_init(&idle, workers);
        unsigned began = 0;
        for (unsigned i = 0; i < workers; i++)
            began += nio_idle_begin_search(&idle);
        cr_assert_eq(began, (workers + 1) / 2);
        for (unsigned i = 0; i < began; i++)
            cr_assert_eq(nio_idle_end_search(&idle), i == began - 1, "only the last is the last");
    }
}

Test(idle, a_wake_is_wanted_only_with_a_sleeper_and_without_a_searcher)
{
    nio_idle_init(&idle, 4);
    cr_assert_not(nio_idle_wants_wake(&idle));
    nio_idle_sleep(&idle, 2, false);
    cr_assert(nio_idle_wants_wake(&idle));
    cr_assert(nio_idle_begin_search(&idle));
    cr_assert_not(nio_idle_wants_wake(&idle));
    cr_assert_eq(nio_idle_take_sleeper(&idle, 0, NULL), -1, "somebody searches");
    cr_assert(nio_idle_end_search(&idle));
    cr_assert_eq(nio_idle_take_sleeper(&idle, 0, NULL), 2);
    cr_assert_eq(nio_idle_take_sleeper(&idle, 0, NULL), -1, "it counts as a searcher");
    nio_idle_check(&idle);
}

Test(idle, a_sleeper_that_was_taken_is_a_searcher_and_one_that_was_not_is_none)
{
    nio_idle_init(&idle, 4);
    nio_idle_sleep(&idle, 0, false);
    cr_assert_not(nio_idle_leave(&idle, 0, false), "it left by itself");
    cr_assert_eq(searching() + sleeping(), 0);
    for (unsigned as_searcher = 0; as_searcher < 2; as_searcher++) {
        nio_idle_sleep(&idle, 0, false);
        cr_assert_eq(nio_idle_take_sleeper(&idle, 3, NULL), 0);
        cr_assert(nio_idle_leave(&idle, 0, as_searcher), "it was taken");
        cr_assert_eq(searching(), 1, "and is counted once");
        cr_assert(nio_idle_end_search(&idle));
    }
    nio_idle_sleep(&idle, 0, false);
    cr_assert(nio_idle_leave(&idle, 0, true), "it left to search");
    cr_assert_eq(searching(), 1);
    nio_idle_sleep(&idle, 0, true);
    cr_assert_eq(searching(), 0);
    cr_assert_eq(sleeping(), 1);
}

Test(idle, the_preferred_sleeper_is_taken_before_the_next_one)
{
    enum { WORKERS = 130 };
    uint64_t prefer[NIO_IDLE_WORDS_MAX] = { 0 };
    prefer[1] = UINT64_C(1) << 6; /* worker 70 */
    nio_idle_init(&idle, WORKERS);
    for (unsigned i = 0; i < WORKERS; i++)
        if (i != 5)
            nio_idle_sleep(&idle, i, false);
    cr_assert_eq(nio_idle_take_sleeper(&idle, 100, prefer), 70);
    cr_assert(nio_idle_end_search(&idle));
    cr_assert_eq(nio_idle_take_sleeper(&idle, 100, prefer), 100, "the preferred one is awake");
    cr_assert(nio_idle_end_search(&idle));
    cr_assert_eq(nio_idle_take_sleeper(&idle, 5, NULL), 6);
    cr_assert(nio_idle_end_search(&idle));
    cr_assert_eq(nio_idle_take_sleeper(&idle, WORKERS, NULL), 0, "it goes around");
    nio_idle_check(&idle);
}

Test(idle, every_sleeper_is_found_from_every_start)
{
    static const unsigned sizes[] = { 1, 2, 63, 64, 65, 128, 1024 };
    struct nio_rng rng = seeded_rng(13);
    for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (unsigned round = 0; round < 500; round++) {
            nio_idle_init(&idle, sizes[s]);
            int who = (int)nio_rng_below(&rng, sizes[s]);
            nio_idle_sleep(&idle, (unsigned)who, false);
            unsigned start = nio_rng_below(&rng, 2 * sizes[s]);
            cr_assert_eq(nio_idle_take_sleeper(&idle, start, NULL), who);
        }
}

/* --- Every interleaving of a small system ---------------------------------------------------
 *
 * Pushers push a task and wake as schedule.c does; workers go through the loop of worker.c from
 * search to park.  Each step makes one access to what is shared, by the real functions of idle.c.
 * The walk visits every reachable state once; where nobody can move any more, nobody may sleep
 * while a task is left.
 */
enum { WORKERS_MAX = 3, PUSHERS_MAX = 2 };

enum pc {
    LOOK,
    SEARCH,
    FOUND,
    ASK,
    TAKE,
    UNPARK,
    ANNOUNCE,
    LAST_LOOK,
    LAST_LOOK_OF_SEARCHER,
    PARK,
    LEAVE,
    LEAVE_TO_SEARCH,
    PUSH,
    DONE
};

/* What the workers can reach, and what is wrong with them. */
struct system {
    unsigned workers, pushers, pushes;
    bool only_searchers_take; /* the tasks lie in a busy worker's queue, else in the inject queue */
    bool polls_for_ever;      /* who has found a task is not seen again */
    bool skips_last_look;     /* broken on purpose */
    bool skips_chain;         /* broken on purpose: the last searcher wakes nobody */
    bool leaves_plainly;      /* broken on purpose: a searcher's last look ends its search */
};

struct state {
    uint8_t worker_pc[WORKERS_MAX], pusher_pc[PUSHERS_MAX];
    uint8_t worker_target[WORKERS_MAX], pusher_target[PUSHERS_MAX];
    uint8_t pushes_left[PUSHERS_MAX];
    uint8_t is_searching, tokens; /* bit = worker */
    uint8_t tasks;
    uint32_t idle_state;
    uint32_t sleepers;
};

enum { TABLE_SLOTS = 1 << 22 };

static struct state *table; /* visited states, open addressing */
static bool *is_used;
static struct state *stack;
static unsigned stack_size, visited;

static uint64_t hash(const struct state *state)
{
    const unsigned char *bytes = (const unsigned char *)state;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < sizeof *state; i++)
        h = (h ^ bytes[i]) * 1099511628211u;
    return h ^ (h >> 29);
}

static void visit(const struct state *state)
{
    uint64_t at = hash(state);
    for (;; at++) {
        at &= TABLE_SLOTS - 1;
        if (!is_used[at])
            break;
        if (memcmp(&table[at], state, sizeof *state) == 0)
            return;
    }
    is_used[at] = true;
    table[at] = *state;
    cr_assert_lt(++visited, TABLE_SLOTS / 2, "the system is too large for this test");
    stack[stack_size++] = *state;
}

static void load_idle(const struct state *state)
{
    atomic_init(&idle.state, state->idle_state);
    idle.sleepers[0] = state->sleepers;
}

static void save_idle(struct state *state)
{
    state->idle_state = nio_idle_load(&idle);
    state->sleepers = (uint32_t)idle.sleepers[0];
}

/* The three steps of a wake, for pushers and for the last searcher. */
static uint8_t step_wake(struct state *s, uint8_t pc, uint8_t *target, uint8_t done)
{
    if (pc == ASK)
        return nio_idle_wants_wake(&idle) ? TAKE : done;
    if (pc == TAKE) {
        int index = nio_idle_take_sleeper(&idle, 0, NULL);
        *target = index < 0 ? 0 : (uint8_t)index;
        return index < 0 ? done : UNPARK;
    }
    s->tokens |= (uint8_t)(1u << *target);
    *target = 0;
    return done;
}

/* False: it cannot move. */
static bool step_pusher(struct state *s, unsigned i)
{
    uint8_t *pc = &s->pusher_pc[i];
    if (*pc == DONE)
        return false;
    if (*pc != PUSH) {
        *pc = step_wake(s, *pc, &s->pusher_target[i], s->pushes_left[i] ? PUSH : DONE);
        return true;
    }
    s->tasks++;
    s->pushes_left[i]--;
    *pc = ASK;
    return true;
}

static bool take_task(struct state *s)
{
    if (s->tasks == 0)
        return false;
    s->tasks--;
    return true;
}

static bool step_worker(const struct system *system, struct state *s, unsigned i)
{
    uint8_t *pc = &s->worker_pc[i];
    uint8_t bit = (uint8_t)(1u << i);
    switch (*pc) {
    case LOOK:
        *pc = !system->only_searchers_take && take_task(s) ? FOUND : SEARCH;
        return true;
    case SEARCH:
        if (!(s->is_searching & bit) && nio_idle_begin_search(&idle))
            s->is_searching |= bit;
        *pc = (s->is_searching & bit) && take_task(s) ? FOUND : ANNOUNCE;
        return true;
    case FOUND:
        *pc = system->polls_for_ever ? DONE : LOOK;
        if (s->is_searching & bit) {
            s->is_searching &= (uint8_t)~bit;
            if (nio_idle_end_search(&idle) && !system->skips_chain)
                *pc = ASK;
        }
        return true;
    case ASK:
    case TAKE:
    case UNPARK:
        *pc = step_wake(s, *pc, &s->worker_target[i], system->polls_for_ever ? DONE : LOOK);
        return true;
    case DONE:
        return false;
    case ANNOUNCE:
        nio_idle_sleep(&idle, i, (s->is_searching & bit) != 0);
        *pc = s->is_searching & bit && !system->leaves_plainly ? LAST_LOOK_OF_SEARCHER : LAST_LOOK;
        if (system->skips_last_look)
            *pc = PARK;
        s->is_searching &= (uint8_t)~bit;
        return true;
    case LAST_LOOK:
        *pc = s->tasks > 0 ? LEAVE : PARK;
        return true;
    case LAST_LOOK_OF_SEARCHER:
        *pc = s->tasks > 0 ? LEAVE_TO_SEARCH : PARK;
        return true;
    case PARK:
        if (!(s->tokens & bit))
            return false;
        s->tokens &= (uint8_t)~bit;
        *pc = LEAVE;
        return true;
    default:
        if (nio_idle_leave(&idle, i, *pc == LEAVE_TO_SEARCH))
            s->is_searching |= bit;
        *pc = LOOK;
        return true;
    }
}

static bool has_parked_worker(const struct system *system, const struct state *s)
{
    for (unsigned i = 0; i < system->workers; i++)
        if (s->worker_pc[i] == PARK)
            return true;
    return false;
}

/* Walks all interleavings.  Returns in how many ends somebody sleeps although there is a task. */
static unsigned explore(const struct system *system)
{
    unsigned lost = 0;
    table = calloc(TABLE_SLOTS, sizeof *table);
    is_used = calloc(TABLE_SLOTS, sizeof *is_used);
    stack = calloc(TABLE_SLOTS / 2, sizeof *stack);
    cr_assert(table && is_used && stack);
    nio_idle_init(&idle, system->workers);
    struct state first;
    memset(&first, 0, sizeof first);
    for (unsigned i = 0; i < system->pushers; i++) {
        first.pusher_pc[i] = PUSH;
        first.pushes_left[i] = (uint8_t)system->pushes;
    }
    visited = stack_size = 0;
    visit(&first);
    while (stack_size > 0) {
        struct state now = stack[--stack_size];
        bool is_stuck = true;
        for (unsigned i = 0; i < system->workers + system->pushers; i++) {
            struct state next = now;
            load_idle(&now);
            bool has_moved = i < system->workers ? step_worker(system, &next, i)
                                                 : step_pusher(&next, i - system->workers);
            if (!has_moved)
                continue;
            is_stuck = false;
            nio_idle_check(&idle);
            save_idle(&next);
            visit(&next);
        }
        lost += is_stuck && now.tasks > 0 && has_parked_worker(system, &now);
    }
    free(table);
    free(is_used);
    free(stack);
    return lost;
}

Test(idle, no_interleaving_of_two_workers_and_two_pushers_loses_a_wake)
{
    for (unsigned only_searchers = 0; only_searchers < 2; only_searchers++) {
        struct system system = {
            .workers = 2, .pushers = 2, .pushes = 2, .only_searchers_take = only_searchers
        };
        cr_assert_eq(explore(&system), 0);
        cr_assert_gt(visited, 1000, "the walk was cut short: %u states", visited);
    }
}

Test(idle, no_interleaving_of_three_workers_and_a_pusher_loses_a_wake)
{
    for (unsigned only_searchers = 0; only_searchers < 2; only_searchers++) {
        struct system system = {
            .workers = 3, .pushers = 1, .pushes = 3, .only_searchers_take = only_searchers
        };
        cr_assert_eq(explore(&system), 0);
        cr_assert_gt(visited, 1000);
    }
}

Test(idle, long_polls_leave_no_task_while_a_worker_sleeps)
{
    for (unsigned only_searchers = 0; only_searchers < 2; only_searchers++) {
        struct system system = { .workers = 3,
                                 .pushers = 1,
                                 .pushes = 3,
                                 .polls_for_ever = true,
                                 .only_searchers_take = only_searchers };
        cr_assert_eq(explore(&system), 0);
        cr_assert_gt(visited, 1000);
    }
}

/* The walk is worth something only if it finds what is broken. */
Test(idle, without_the_look_after_the_announcement_the_walk_finds_a_lost_wake)
{
    struct system system = { .workers = 2, .pushers = 1, .pushes = 1, .skips_last_look = true };
    cr_assert_gt(explore(&system), 0);
}

Test(idle, if_the_last_searcher_wakes_nobody_the_walk_finds_a_task_left_behind_a_long_poll)
{
    struct system system = {
        .workers = 3, .pushers = 1, .pushes = 2, .polls_for_ever = true, .skips_chain = true
    };
    cr_assert_gt(explore(&system), 0);
}

Test(idle, if_a_searcher_ends_its_search_by_its_last_look_the_walk_finds_a_task_left_behind)
{
    struct system system = {
        .workers = 2, .pushers = 1, .pushes = 2, .polls_for_ever = true, .leaves_plainly = true
    };
    cr_assert_gt(explore(&system), 0);
}
