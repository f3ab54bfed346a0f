/* SPDX-License-Identifier: MIT */
/* Promises of races: the first result wins, the others are aborted and waited for. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

enum { RACERS = 8, SOON_NS = 2000000 };
static const uint64_t late_ns = 3600000000000ull;

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

struct lane {
    uint64_t delay_ns;
    int64_t result;
    bool was_aborted, has_ended;
};

static int64_t run_lane(void *arg)
{
    struct lane *lane = arg;
    int64_t rc = numio_sleep_ns(lane->delay_ns);
    lane->was_aborted = rc == -ECANCELED;
    lane->has_ended = true;
    return rc < 0 ? rc : lane->result;
}

static int64_t first_wins(void *arg)
{
    (void)arg;
    for (unsigned fastest = 0; fastest < RACERS; fastest++) {
        struct lane lanes[RACERS];
        struct numio_racer racers[RACERS];
        unsigned winner = 99;
        for (unsigned i = 0; i < RACERS; i++) {
            lanes[i] = (struct lane){ i == fastest ? SOON_NS : late_ns, 100 + i, false, false };
            racers[i] = (struct numio_racer){ run_lane, &lanes[i] };
        }
        EXPECT(numio_race(racers, RACERS, NUMIO_RACE_FIRST, &winner) == 100 + fastest);
        EXPECT(winner == fastest);
        for (unsigned i = 0; i < RACERS; i++)
            EXPECT(lanes[i].was_aborted == (i != fastest) && (lanes[i].has_ended || i != fastest));
    }
    return 0;
}

FIXTURE_EACH(race, the_first_result_wins_and_the_others_are_aborted, .timeout = 30)
{
    cr_assert_eq(run(runtime, first_wins, NULL), 0, "line %ld", (long)last_line);
}

static int64_t with_errors(void *arg)
{
    (void)arg;
    struct lane lanes[] = { { 0, -EIO, false, false }, { 100 * SOON_NS, 5, false, false } };
    struct numio_racer racers[] = { { run_lane, &lanes[0] }, { run_lane, &lanes[1] } };
    unsigned winner = 99;
    EXPECT(numio_race(racers, 2, NUMIO_RACE_FIRST, &winner) == -EIO && winner == 0);
    EXPECT(numio_race(racers, 2, NUMIO_RACE_SUCCESS, &winner) == 5 && winner == 1);
    EXPECT(numio_race(racers, 1, NUMIO_RACE_SUCCESS, &winner) == -EIO && winner == 1);
    EXPECT(numio_race(racers, 0, 0, &winner) == -EINVAL);
    EXPECT(numio_race(racers, 2, 2, NULL) == -EINVAL);
    EXPECT(numio_within(SOON_NS, numio_race(racers + 1, 1, 0, &winner)) == -ETIMEDOUT);
    return 0;
}

FIXTURE_EACH(race, errors_win_or_are_passed_over, .timeout = 30)
{
    cr_assert_eq(run(runtime, with_errors, NULL), 0, "line %ld", (long)last_line);
}

struct aborted {
    struct lane lanes[3];
    unsigned winner;
};

static void reset(void *arg)
{
    struct aborted *a = arg;
    *a = (struct aborted){ .winner = 99 };
    for (unsigned i = 0; i < 3; i++)
        a->lanes[i] = (struct lane){ i == 2 ? SOON_NS : late_ns, (int64_t)i, false, false };
}

static int64_t race_twice(void *arg)
{
    struct aborted *a = arg;
    struct numio_racer racers[3];
    for (unsigned i = 0; i < 3; i++)
        racers[i] = (struct numio_racer){ run_lane, &a->lanes[i] };
    int64_t result = numio_race(racers, 3, 0, &a->winner);
    return result < 0 ? result : numio_race(racers, 3, 0, &a->winner);
}

static int64_t check_raced(void *arg, int64_t result)
{
    struct aborted *a = arg;
    EXPECT(result == 2 || result == -ECANCELED);
    EXPECT(result != 2 || a->winner == 2);
    return 0;
}

Test(race, an_abort_at_each_step_leaves_nobody_running, .timeout = 60)
{
    struct aborted a;
    struct abort_case what = { reset, race_twice, NULL, check_raced, &a };
    cr_assert_geq(abort_each(&what), 2u);
}

static int64_t race_until_aborted(void *arg)
{
    struct lane *lanes = arg;
    struct numio_racer racers[3];
    unsigned winner = 99;
    for (unsigned i = 0; i < 3; i++)
        racers[i] = (struct numio_racer){ run_lane, &lanes[i] };
    return numio_race(racers, 3, NUMIO_RACE_FIRST, &winner);
}

FIXTURE_EACH(race, a_shutdown_aborts_all_of_them_and_waits, .timeout = 30)
{
    struct lane lanes[3] = { { .delay_ns = late_ns },
                             { late_ns, 1, false, false },
                             { late_ns, 2, false, false } };
    struct numio_join *join;
    cr_assert_eq(
        numio_spawn_co(numio_runtime_handle(runtime), race_until_aborted, lanes, NULL, &join), 0);
    cr_assert_eq(numio_join_wait(&join, SOON_NS), -ETIMEDOUT);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    cr_assert_eq(numio_join_wait(&join, -1), -ECANCELED);
    for (unsigned i = 0; i < 3; i++) /* or has never begun */
        cr_assert_eq(lanes[i].was_aborted, lanes[i].has_ended);
}

Test(race, outside_of_a_coroutine_it_is_refused, .timeout = 30)
{
    struct numio_racer racer = { run_lane, NULL };
    unsigned winner = 99;
    cr_assert_eq(numio_race(&racer, 1, 0, &winner), -EINVAL);
    cr_assert_eq(winner, 1u);
}
