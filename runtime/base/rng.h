/* SPDX-License-Identifier: MIT */
/* base/rng.h: the runtime's only source of chance.
 *
 * A seed generator hands each worker its own stream, in worker order, so that the same
 * numio_config.rng_seed gives every worker the same stream again.  The streams are xorshift64*
 * (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016),
 * seeded through splitmix64.  One thread per stream; no locks.
 */
#ifndef NIO_BASE_RNG_H
#define NIO_BASE_RNG_H

#include <stdint.h>

struct nio_rng {
    uint64_t state; /* owner only, never 0 */
};

/* splitmix64: advances *seed and returns a well mixed value. */
static inline uint64_t nio_seed_next(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline void nio_rng_init(struct nio_rng *rng, uint64_t *seed)
{
    uint64_t state = nio_seed_next(seed);
    rng->state = state ? state : 1;
}

static inline uint64_t nio_rng_next(struct nio_rng *rng)
{
    uint64_t x = rng->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    rng->state = x;
    return x * 0x2545f4914f6cdd1du;
}

/* A number below `bound` (> 0), by multiplication (Lemire 2019); the bias is below bound / 2^32. */
static inline uint32_t nio_rng_below(struct nio_rng *rng, uint32_t bound)
{
    return (uint32_t)(((nio_rng_next(rng) >> 32) * bound) >> 32);
}

#endif
