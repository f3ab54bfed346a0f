/* SPDX-License-Identifier: MIT */
/* The same programs of random I/O (tests/io_program.h), several at a time, on every profile, must
 * see the same.  NUMIO_TEST_ROUNDS says with how many seeds.
 *
 * Where no disk can be polled iopoll is defer; the other case is in numa/numa_differential.c.
 */
#include "tests/io_program.h"
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"

enum { PROGRAMS = 3, STEPS = 700, ROUNDS = 5 };

static void run_all(enum numio_driver driver, uint64_t seed, uint64_t digests[PROGRAMS])
{
    static struct program programs[PROGRAMS];
    struct numio_config config = fixture_config(driver, 2);
    struct numio_join *joins[PROGRAMS];
    for (unsigned i = 0; i < PROGRAMS; i++)
        program_open(&programs[i], seed + i, STEPS, "/var/tmp");
    struct numio_runtime *runtime = fixture_create(&config);
    for (unsigned i = 0; i < PROGRAMS; i++)
        cr_assert_eq(numio_spawn_co(numio_runtime_handle(runtime), program_run, &programs[i], NULL,
                                    &joins[i]),
                     0);
    for (unsigned i = 0; i < PROGRAMS; i++)
        cr_assert_eq(numio_join_wait(&joins[i], -1), 0);
    numio_runtime_destroy(runtime);
    for (unsigned i = 0; i < PROGRAMS; i++) {
        program_close(&programs[i]);
        digests[i] = programs[i].digest;
    }
}

static unsigned rounds(void)
{
    const char *text = getenv("NUMIO_TEST_ROUNDS");
    return text && *text ? (unsigned)strtoul(text, NULL, 10) : ROUNDS;
}

Test(differential, every_profile_sees_the_same, .timeout = 120)
{
    static const enum numio_driver drivers[] = { NUMIO_DRIVER_SQPOLL, NUMIO_DRIVER_DEFER,
                                                 NUMIO_DRIVER_IOPOLL };
    static const char *const names[] = { "sqpoll", "defer", "iopoll" };
    uint64_t seed = seeded_seed(nio_now_ns());
    for (unsigned round = rounds(); round > 0; round--, seed += PROGRAMS) {
        uint64_t wanted[PROGRAMS], seen[PROGRAMS];
        run_all(NUMIO_DRIVER_EPOLL, seed, wanted);
        for (unsigned i = 0; i < 3 && fixture_has_uring(); i++) {
            run_all(drivers[i], seed, seen);
            cr_assert_arr_eq(seen, wanted, sizeof seen, "seed %llu: %s and epoll differ",
                             (unsigned long long)seed, names[i]);
        }
    }
}
