/* SPDX-License-Identifier: MIT */
/* bench_file.h: a file whose block i begins with i, and which block comes next.
 *
 * Shared by the readers on numio and by the loop on bare liburing that is their floor.
 */
#ifndef BENCH_FILE_H
#define BENCH_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "perf/bench/bench.h"

enum { BENCH_BLOCK_BYTES = 4096, BENCH_FILE_BLOCKS = 16384, BENCH_READERS_MAX = 128 };

/* What a scenario reads; its `arg`. */
struct bench_file_shape {
    unsigned readers, reads_each;
    bool is_direct; /* past the page cache */
};

struct bench_file {
    struct bench_file_shape shape;
    int fds[BENCH_READERS_MAX]; /* one per reader, of one file that has no name any more */
};

/* False: it cannot be had, and the reason has been told. */
bool bench_file_open(struct bench *b, struct bench_file *file);
void bench_file_close(struct bench_file *file);

/* xorshift64: cheap, and the same blocks in every run. */
static inline uint64_t bench_file_next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random % BENCH_FILE_BLOCKS;
}

static inline void bench_file_check(uint64_t number, const void *block, int64_t got)
{
    uint64_t found;
    if (got < 0)
        bench_fail_rc("read", got);
    memcpy(&found, block, sizeof found);
    if (got != BENCH_BLOCK_BYTES || found != number)
        bench_fail("block %llu came back as %lld bytes of block %llu", (unsigned long long)number,
                   (long long)got, (unsigned long long)found);
}

#endif
