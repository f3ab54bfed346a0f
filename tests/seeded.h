/* SPDX-License-Identifier: MIT */
/* tests/seeded.h: the seed of a property or stress test: printed, and taken from NUMIO_TEST_SEED
 * when that is set, so that a failure replays.  Test programs only.
 */
#ifndef TESTS_SEEDED_H
#define TESTS_SEEDED_H

#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/rng.h"

static inline uint64_t seeded_seed(uint64_t otherwise)
{
    const char *text = getenv("NUMIO_TEST_SEED");
    uint64_t seed = text && *text ? strtoull(text, NULL, 0) : otherwise;
    printf("NUMIO_TEST_SEED=%llu\n", (unsigned long long)seed);
    (void)fflush(stdout); /* so that it is there if the test dies */
    return seed;
}

static inline struct nio_rng seeded_rng(uint64_t otherwise)
{
    uint64_t seed = seeded_seed(otherwise);
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    return rng;
}

#endif
