/* SPDX-License-Identifier: MIT */
/* Promises of selections: exactly one of the waits for tasks happens, the rest is cancelled,
 * nothing is lost; I/O, timers, joins and locks in any mix; order of preference; aborts and
 * deadlines. */
#include "tests/abort_each.h"
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>

enum { SOON_NS = 2000000, ROUNDS = 400, WIDTH = 8 };
static const uint64_t late_ns = 3600000000000ull;

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

/* ---- preference ---------------------------------------------------------------------------- */

static int64_t ready_ones(void *arg)
{
    (void)arg;
    struct numio_semaphore semaphores[WIDTH];
    struct numio_op ops[WIDTH];
    unsigned hits[WIDTH] = { 0 };
    for (unsigned flags = NUMIO_SELECT_FAIR; flags <= NUMIO_SELECT_BIASED; flags++) {
        memset(hits, 0, sizeof hits);
        for (int round = 0; round < ROUNDS; round++) {
            for (int i = 0; i < WIDTH; i++) {
                EXPECT(numio_semaphore_init(&semaphores[i], i != 0) == 0);
                numio_op_semaphore_acquire(&ops[i], &semaphores[i], 1);
            }
            int64_t index = numio_select(ops, WIDTH, flags);
            EXPECT(index > 0 && index < WIDTH && numio_op_result(&ops[index]) == 0);
            hits[index]++;
            for (int i = 1; i < WIDTH; i++) {
                EXPECT(numio_semaphore_available(&semaphores[i]) == (uint64_t)(i != index));
                EXPECT(i == index || numio_op_result(&ops[i]) == -ECANCELED);
                EXPECT(!semaphores[i]._waits._first);
            }
        }
        for (int i = 1; i < WIDTH; i++)
            EXPECT(flags == NUMIO_SELECT_BIASED ? hits[i] == (i == 1 ? ROUNDS : 0) : hits[i] > 0);
    }
    return 0;
}

FIXTURE_EACH(select, of_those_that_are_ready_exactly_one_happens, .timeout = 60)
{
    cr_assert_eq(run(runtime, ready_ones, NULL), 0, "line %ld", (long)last_line);
}

Test(select, of_those_that_are_ready_exactly_one_happens_in_a_plain_thread, .timeout = 60)
{
    cr_assert_eq(ready_ones(NULL), 0);
}

/* ---- waiting ------------------------------------------------------------------------------- */

struct race {
    struct numio_semaphore semaphores[WIDTH];
    _Atomic uint32_t is_over;
    uint64_t got[WIDTH];
    int64_t timeouts;
};

/* Gives one permit to each, in an order of its own, again and again. */
static int64_t give(void *arg)
{
    struct race *race = arg;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < WIDTH; i++) {
            EXPECT(numio_semaphore_release(&race->semaphores[(i * 3 + round) % WIDTH], 1) == 0);
            if (i % 3 == 0)
                (void)sched_yield(); /* lets other threads in between */
        }
    fixture_set(&race->is_over, 1);
    return 0;
}

static void *give_in_thread(void *arg)
{
    return (void *)(intptr_t)give(arg);
}

/* Takes until nothing comes any more. */
static int64_t take(void *arg)
{
    struct race *race = arg;
    struct numio_op ops[WIDTH];
    for (;;) {
        for (int i = 0; i < WIDTH; i++)
            numio_op_semaphore_acquire(&ops[i], &race->semaphores[i], 1);
        bool was_over = fixture_get(&race->is_over) != 0;
        int64_t index = numio_within(SOON_NS, numio_select(ops, WIDTH, NUMIO_SELECT_FAIR));
        if (index == -ETIMEDOUT && was_over)
            return 0;
        if (index == -ETIMEDOUT)
            continue;
        EXPECT(index >= 0 && index < WIDTH);
        race->got[index]++;
        for (int i = 0; i < WIDTH; i++)
            EXPECT(numio_op_result(&ops[i]) == (i == index ? 0 : -ECANCELED));
    }
}

static void check_race(struct race *races, int count)
{
    for (int i = 0; i < WIDTH; i++) {
        uint64_t got = 0;
        for (int k = 0; k < count; k++)
            got += races[k].got[i];
        cr_assert_eq(got, ROUNDS, "semaphore %d gave %lu times", i, (unsigned long)got);
        cr_assert_eq(numio_semaphore_available(&races[0].semaphores[i]), 0u);
        cr_assert_null(races[0].semaphores[i]._waits._first);
    }
}

FIXTURE_EACH(select, every_permit_goes_to_one_wait, .timeout = 60)
{
    struct race race = { .is_over = 0 };
    pthread_t thread;
    void *line;
    cr_assert_eq(pthread_create(&thread, NULL, give_in_thread, &race), 0);
    cr_assert_eq(run(runtime, take, &race), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line);
    check_race(&race, 1);
}

Test(select, every_permit_goes_to_one_wait_of_a_plain_thread, .timeout = 60)
{
    struct race race = { .is_over = 0 };
    pthread_t thread;
    void *line;
    cr_assert_eq(pthread_create(&thread, NULL, give_in_thread, &race), 0);
    cr_assert_eq(take(&race), 0);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line);
    check_race(&race, 1);
}

struct shared_race {
    struct race *race;
    uint64_t got[WIDTH];
};

static int64_t take_beside_others(void *arg)
{
    struct shared_race *mine = arg;
    struct numio_op ops[WIDTH];
    for (;;) {
        for (int i = 0; i < WIDTH; i++)
            numio_op_semaphore_acquire(&ops[i], &mine->race->semaphores[i], 1);
        bool was_over = fixture_get(&mine->race->is_over) != 0;
        int64_t index = numio_within(SOON_NS, numio_select(ops, WIDTH, NUMIO_SELECT_FAIR));
        if (index == -ETIMEDOUT && was_over)
            return 0;
        EXPECT(index == -ETIMEDOUT || (index >= 0 && index < WIDTH));
        if (index >= 0)
            mine->got[index]++;
    }
}

enum { TAKERS = 6 };

static int64_t many_takers(void *arg)
{
    struct shared_race *takers = arg;
    struct numio_join *joins[TAKERS];
    for (int i = 0; i < TAKERS; i++)
        EXPECT(numio_spawn_co(NULL, take_beside_others, &takers[i], NULL, &joins[i]) == 0);
    for (int i = 0; i < TAKERS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(select, many_selections_share_the_same_queues, .timeout = 60)
{
    struct race race = { .is_over = 0 };
    struct shared_race takers[TAKERS] = { 0 };
    pthread_t thread;
    void *line;
    for (int i = 0; i < TAKERS; i++)
        takers[i].race = &race;
    cr_assert_eq(pthread_create(&thread, NULL, give_in_thread, &race), 0);
    cr_assert_eq(run(runtime, many_takers, takers), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line);
    for (int k = 0; k < TAKERS; k++)
        for (int i = 0; i < WIDTH; i++)
            race.got[i] += takers[k].got[i];
    check_race(&race, 1);
}

/* ---- a mix --------------------------------------------------------------------------------- */

static int64_t sleep_a_little(void *arg)
{
    (void)arg;
    return numio_sleep_ns(SOON_NS) ? -1 : 17;
}

static int64_t mix(void *arg)
{
    int *ends = arg;
    char bytes[4] = { 0 };
    struct numio_semaphore semaphore = NUMIO_SEMAPHORE_INIT(0);
    struct numio_mutex mutex = NUMIO_MUTEX_INIT;
    struct numio_join *join;
    struct numio_op ops[4];
    EXPECT(numio_spawn_co(NULL, sleep_a_little, NULL, NULL, &join) == 0);
    numio_op_semaphore_acquire(&ops[0], &semaphore, 1);
    numio_op_recv(&ops[1], ends[0], bytes, sizeof bytes, 0);
    numio_op_timeout(&ops[2], late_ns);
    numio_op_join(&ops[3], join);
    EXPECT(numio_select(ops, 4, NUMIO_SELECT_FAIR) == 3); /* the task's end */
    EXPECT(numio_op_result(&ops[0]) == -ECANCELED && numio_op_result(&ops[1]) == -ECANCELED);
    EXPECT(numio_op_result(&ops[2]) == -ECANCELED && numio_op_result(&ops[3]) == 0);
    EXPECT(numio_join_try(&join) == 17);
    EXPECT(numio_send(ends[1], "abc", 3, 0) == 3);
    numio_op_semaphore_acquire(&ops[0], &semaphore, 1);
    numio_op_recv(&ops[1], ends[0], bytes, sizeof bytes, 0);
    numio_op_timeout(&ops[2], late_ns);
    EXPECT(numio_select(ops, 3, NUMIO_SELECT_FAIR) == 1); /* bytes */
    EXPECT(numio_op_result(&ops[1]) == 3 && strcmp(bytes, "abc") == 0);
    numio_op_semaphore_acquire(&ops[0], &semaphore, 1);
    numio_op_recv(&ops[1], ends[0], bytes, sizeof bytes, 0);
    numio_op_timeout(&ops[2], SOON_NS);
    EXPECT(numio_select(ops, 3, NUMIO_SELECT_FAIR) == 2); /* time */
    EXPECT(numio_op_result(&ops[2]) == -ETIME);
    numio_op_recv(&ops[0], ends[0], bytes, sizeof bytes, 0);
    numio_op_mutex_lock(&ops[1], &mutex);
    EXPECT(numio_select(ops, 2, NUMIO_SELECT_FAIR) == 1); /* the lock, without asking the kernel */
    EXPECT(numio_mutex_unlock(&mutex) == 0);
    EXPECT(!semaphore._waits._first);
    return 0;
}

FIXTURE_EACH(select, io_timers_joins_and_locks_mix, .timeout = 30)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(run(runtime, mix, ends), 0, "line %ld", (long)last_line);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* Bytes and permits come at once, again and again; what the selection did not count is found too.
 */
struct both {
    int ends[2];
    struct numio_semaphore semaphore;
    uint64_t bytes, permits;
};

static int64_t send_both(void *arg)
{
    struct both *both = arg;
    for (int i = 0; i < ROUNDS; i++) {
        EXPECT(numio_send(both->ends[1], "x", 1, 0) == 1);
        EXPECT(numio_semaphore_release(&both->semaphore, 1) == 0);
        if (i % 5 == 0)
            EXPECT(numio_yield_now() == 0);
    }
    return 0;
}

static int64_t receive_both(void *arg)
{
    struct both *both = arg;
    struct numio_join *join;
    struct numio_op ops[2];
    char bytes[64];
    EXPECT(numio_spawn_co(NULL, send_both, both, NULL, &join) == 0);
    while (both->bytes < ROUNDS || both->permits < ROUNDS) {
        numio_op_semaphore_acquire(&ops[0], &both->semaphore, 1);
        numio_op_recv(&ops[1], both->ends[0], bytes, sizeof bytes, 0);
        int64_t index = numio_select(ops, 2, NUMIO_SELECT_FAIR);
        EXPECT(index >= 0);
        EXPECT(index == 1 || numio_op_result(&ops[0]) == 0);
        both->permits += numio_op_result(&ops[0]) == 0;
        if (numio_op_result(&ops[1]) > 0)
            both->bytes += (uint64_t)numio_op_result(&ops[1]);
    }
    EXPECT(numio_join_await(&join) == 0);
    EXPECT(both->bytes == ROUNDS && both->permits == ROUNDS);
    return 0;
}

FIXTURE_EACH(select, what_the_kernel_had_done_is_not_lost, .timeout = 60)
{
    struct both both = { .semaphore = NUMIO_SEMAPHORE_INIT(0) };
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both.ends), 0);
    cr_assert_eq(run(runtime, receive_both, &both), 0, "line %ld", (long)last_line);
    (void)close(both.ends[0]);
    (void)close(both.ends[1]);
}

/* ---- aborts, deadlines, misuse ------------------------------------------------------------- */

struct aborted {
    struct numio_semaphore first, second;
    int ends[2];
    uint64_t taken;
};

static void set_up(void *arg)
{
    struct aborted *a = arg;
    a->first = a->second = (struct numio_semaphore)NUMIO_SEMAPHORE_INIT(0);
    a->taken = 0;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a->ends), 0);
}

static int64_t select_thrice(void *arg)
{
    struct aborted *a = arg;
    char byte;
    for (int i = 0; i < 3; i++) {
        struct numio_op ops[4];
        numio_op_semaphore_acquire(&ops[0], &a->first, 1);
        numio_op_timeout(&ops[1], late_ns);
        numio_op_recv(&ops[2], a->ends[0], &byte, 1, 0);
        numio_op_semaphore_acquire(&ops[3], &a->second, 1);
        int64_t index = numio_select(ops, 4, NUMIO_SELECT_FAIR);
        a->taken += numio_op_result(&ops[0]) == 0;
        a->taken += numio_op_result(&ops[3]) == 0;
        if (index < 0)
            return index;
    }
    return 0;
}

static int64_t release_thrice(void *arg)
{
    struct aborted *a = arg;
    for (int i = 0; i < 3; i++) {
        EXPECT(numio_semaphore_release(i % 2 ? &a->first : &a->second, 1) == 0);
        EXPECT(numio_yield_now() == 0);
    }
    return 0;
}

static int64_t check_sum(void *arg, int64_t result)
{
    struct aborted *a = arg;
    (void)close(a->ends[0]);
    (void)close(a->ends[1]);
    EXPECT(result == 0 || result == -ECANCELED);
    EXPECT(a->taken + numio_semaphore_available(&a->first) +
               numio_semaphore_available(&a->second) ==
           3);
    EXPECT(!a->first._waits._first && !a->second._waits._first);
    return 0;
}

Test(select, an_abort_at_each_step_loses_nothing, .timeout = 60)
{
    struct aborted a;
    struct abort_case what = { set_up, select_thrice, release_thrice, check_sum, &a };
    cr_assert_geq(abort_each(&what), 3u);
}

FIXTURE_EACH(select, a_shutdown_ends_them_and_takes_nothing, .timeout = 30)
{
    struct aborted a;
    struct numio_join *joins[4];
    set_up(&a);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(
            numio_spawn_co(numio_runtime_handle(runtime), select_thrice, &a, NULL, &joins[i]), 0);
    cr_assert_eq(numio_join_wait(&joins[0], SOON_NS), -ETIMEDOUT);
    cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), -ECANCELED);
    cr_assert(!a.first._waits._first && !a.second._waits._first);
    cr_assert_eq(a.taken, 0u);
    (void)close(a.ends[0]);
    (void)close(a.ends[1]);
}

static int64_t misuse(void *arg)
{
    struct numio_semaphore semaphore = NUMIO_SEMAPHORE_INIT(1);
    struct numio_op ops[NUMIO_SELECT_MAX + 1];
    (void)arg;
    for (int i = 0; i <= NUMIO_SELECT_MAX; i++)
        numio_op_semaphore_acquire(&ops[i], &semaphore, 1);
    EXPECT(numio_select(ops, 0, NUMIO_SELECT_FAIR) == -EINVAL);
    EXPECT(numio_select(ops, NUMIO_SELECT_MAX + 1, NUMIO_SELECT_FAIR) == -EINVAL);
    EXPECT(numio_select(ops, 1, 2) == -EINVAL);
    EXPECT(numio_select(ops, NUMIO_SELECT_MAX, NUMIO_SELECT_FAIR) >= 0);
    EXPECT(numio_within(SOON_NS, numio_select(ops, NUMIO_SELECT_MAX, NUMIO_SELECT_FAIR)) ==
           -ETIMEDOUT);
    EXPECT(!semaphore._waits._first);
    numio_op_nop(&ops[0]);
    numio_op_link(&ops[0]);
    EXPECT(numio_select(ops, 2, NUMIO_SELECT_FAIR) == -EINVAL);
    return 0;
}

FIXTURE_EACH(select, misuse_is_told, .timeout = 30)
{
    struct numio_op op;
    cr_assert_eq(run(runtime, misuse, NULL), 0, "line %ld", (long)last_line);
    numio_op_timeout(&op, 1);
    cr_assert_eq(numio_select(&op, 1, NUMIO_SELECT_FAIR), -EINVAL); /* a thread has no ring */
    cr_assert(strstr(numio_strerror_detail(), "plain thread"), "%s", numio_strerror_detail());
}
