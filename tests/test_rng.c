/* SPDX-License-Identifier: MIT */
#include "runtime/base/rng.h"

#include <criterion/criterion.h>
#include <math.h>

TestSuite(rng, .timeout = 30);

/* The published test vectors of splitmix64 for the seed 1234567. */
Test(rng, the_seed_generator_is_splitmix64)
{
    static const uint64_t wanted[] = { 6457827717110365317u, 3203168211198807973u,
                                       9817491932198370423u, 4593380528125082431u,
                                       16408922859458223821u };
    uint64_t seed = 1234567;
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(nio_seed_next(&seed), wanted[i]);
}

Test(rng, the_same_seed_gives_every_worker_the_same_stream_again)
{
    enum { WORKERS = 8, DRAWS = 1000 };
    uint64_t first_seed = 42, second_seed = 42;
    for (unsigned w = 0; w < WORKERS; w++) {
        struct nio_rng first, second;
        nio_rng_init(&first, &first_seed);
        nio_rng_init(&second, &second_seed);
        for (unsigned i = 0; i < DRAWS; i++)
            cr_assert_eq(nio_rng_next(&first), nio_rng_next(&second));
    }
}

Test(rng, the_streams_of_two_workers_differ)
{
    uint64_t seed = 42;
    struct nio_rng first, second;
    nio_rng_init(&first, &seed);
    nio_rng_init(&second, &seed);
    unsigned equal = 0;
    for (unsigned i = 0; i < 1000; i++)
        equal += nio_rng_next(&first) == nio_rng_next(&second);
    cr_assert_eq(equal, 0);
}

Test(rng, a_stream_never_stands_still_whatever_the_seed)
{
    for (uint64_t start = 0; start < 1000; start++) {
        uint64_t seed = start - 500;
        struct nio_rng rng;
        nio_rng_init(&rng, &seed);
        cr_assert_neq(rng.state, 0);
        uint64_t before = rng.state;
        (void)nio_rng_next(&rng);
        cr_assert_neq(rng.state, before);
    }
}

/* Chi-square over the buckets; the limit is 6 standard deviations above the mean. */
Test(rng, numbers_below_a_bound_are_even)
{
    static const uint32_t bounds[] = { 1, 2, 3, 7, 64, 255 };
    enum { DRAWS = 200000 };
    uint64_t seed = 7;
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    for (unsigned b = 0; b < sizeof bounds / sizeof *bounds; b++) {
        unsigned counts[256] = { 0 };
        for (unsigned i = 0; i < DRAWS; i++) {
            uint32_t drawn = nio_rng_below(&rng, bounds[b]);
            cr_assert_lt(drawn, bounds[b]);
            counts[drawn]++;
        }
        double expected = (double)DRAWS / bounds[b], chi = 0;
        for (unsigned i = 0; i < bounds[b]; i++)
            chi += (counts[i] - expected) * (counts[i] - expected) / expected;
        double freedom = bounds[b] - 1;
        cr_assert_leq(chi, freedom + 6 * sqrt(2 * freedom) + 1e-9, "bound %u: %f", bounds[b], chi);
    }
}
