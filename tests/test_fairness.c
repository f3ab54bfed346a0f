/* SPDX-License-Identifier: MIT */
/* More coroutines with operations than a local queue has room for: all get their turn. */
#include "tests/runtime_fixture.h"

enum { CROWD = 1000, CROWD_OPS = 200000 };

/* Everybody in the crowd counts its operations once all have started. */
struct crowd {
    _Atomic uint32_t started, total, members;
    uint32_t counts[CROWD];
};

static int64_t take_part(void *arg)
{
    struct crowd *crowd = arg;
    /* relaxed: numbers only; the joins publish the counts */
    uint32_t me = atomic_fetch_add_explicit(&crowd->members, 1, memory_order_relaxed);
    bool has_begun = false;
    for (;;) { /* until all together have had enough */
        struct numio_op op;
        numio_op_nop(&op);
        if (numio_op_await(&op) != 0)
            return -1;
        if (!has_begun)
            /* relaxed: as above */
            (void)atomic_fetch_add_explicit(&crowd->started, 1, memory_order_relaxed);
        has_begun = true;
        /* relaxed: as above */
        if (atomic_load_explicit(&crowd->started, memory_order_relaxed) < CROWD)
            continue;
        /* relaxed: as above */
        if (atomic_fetch_add_explicit(&crowd->total, 1, memory_order_relaxed) >= CROWD_OPS)
            return 0;
        crowd->counts[me]++;
    }
}

/* One worker, so that the order is the runtime's and not the machine's. */
static void play(enum numio_driver driver)
{
    static struct crowd crowd;
    static struct numio_join *joins[CROWD];
    struct numio_config config = fixture_config(driver, 1);
    struct numio_runtime *runtime = fixture_create(&config);
    for (unsigned i = 0; i < CROWD; i++)
        cr_assert_eq(
            numio_spawn_co(numio_runtime_handle(runtime), take_part, &crowd, NULL, &joins[i]), 0);
    uint32_t least = UINT32_MAX;
    for (unsigned i = 0; i < CROWD; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    numio_runtime_destroy(runtime);
    for (unsigned i = 0; i < CROWD; i++)
        if (crowd.counts[i] < least)
            least = crowd.counts[i];
    cr_assert_geq(least, CROWD_OPS / CROWD / 2, "somebody had %u of %u", least, CROWD_OPS / CROWD);
}

Test(fairness, nobody_starves_in_a_crowd_larger_than_the_queue_sqpoll, .timeout = 60)
{
    play(NUMIO_DRIVER_SQPOLL);
}

Test(fairness, nobody_starves_in_a_crowd_larger_than_the_queue_defer, .timeout = 60)
{
    play(NUMIO_DRIVER_DEFER);
}

Test(fairness, nobody_starves_in_a_crowd_larger_than_the_queue_epoll, .timeout = 60)
{
    play(NUMIO_DRIVER_EPOLL);
}
