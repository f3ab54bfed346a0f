/* SPDX-License-Identifier: MIT */
/* bench_join.h: roots that spawn empty tasks and join them, in the flavour of the scenario.
 *
 * Called from the main thread with a runtime up; the root runs on a worker and holds the clock.
 */
#ifndef BENCH_JOIN_H
#define BENCH_JOIN_H

#include "perf/bench/bench.h"

/* Spawns an empty task and joins it, `count` times one after the other. */
struct bench_block bench_join_each(struct bench *b, uint64_t count);
/* Spawns `count` empty tasks, keeps their handles in `joins`, then joins them in order. */
struct bench_block bench_join_all(struct bench *b, struct numio_join **joins, size_t count);

/* Spawns an empty task in the scenario's flavour from wherever the caller is. */
int bench_spawn_empty(struct bench *b, struct numio_handle *handle, struct numio_join **ret_join);

#endif
