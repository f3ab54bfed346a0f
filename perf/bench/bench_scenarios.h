/* SPDX-License-Identifier: MIT */
/* bench_scenarios.h: what main() can run.  Main thread only; the bodies are in the bench_*.c. */
#ifndef BENCH_SCENARIOS_H
#define BENCH_SCENARIOS_H

#include "perf/bench/bench.h"

/* bench_spawn.c */
void bench_spawn_many_local(struct bench *b);
void bench_spawn_join_each(struct bench *b);
void bench_spawn_join_10k(struct bench *b);
void bench_chained_spawn(struct bench *b);
void bench_yield_many(struct bench *b);
/* bench_remote.c */
void bench_spawn_many_remote_idle(struct bench *b);
void bench_spawn_many_remote_busy1(struct bench *b);
void bench_spawn_many_remote_busy2(struct bench *b);
/* bench_wake.c */
void bench_ping_pong(struct bench *b);
void bench_notify_pingpong(struct bench *b);
void bench_xthread_pingpong(struct bench *b);
/* bench_remote_wake.c */
void bench_remote_wake(struct bench *b);
/* bench_tree.c */
void bench_fib27(struct bench *b);
void bench_fib27_scope(struct bench *b);
void bench_skynet(struct bench *b);
void bench_skynet_scope(struct bench *b);
/* bench_blocking.c */
void bench_spawn_blocking(struct bench *b);
/* bench_sync.c */
void bench_mutex_uncontended(struct bench *b);
void bench_semaphore_uncontended(struct bench *b);
void bench_mutex_contended(struct bench *b);
/* bench_channel.c */
void bench_mpsc_1p(struct bench *b);
void bench_mpsc_4p(struct bench *b);
void bench_oneshot(struct bench *b);
void bench_request_reply(struct bench *b);
/* bench_switch.c */
void bench_coroutine_switch(struct bench *b);
/* bench_memory.c */
void bench_idle_task_bytes(struct bench *b);
/* bench_file.c, one function per file kind and depth; bench_file_raw.c, the same on bare liburing
 */
void bench_file_read(struct bench *b);
void bench_file_read_raw(struct bench *b);
/* bench_timer.c */
void bench_timer_insert_cancel(struct bench *b);
void bench_timer_fire(struct bench *b);
void bench_sleep(struct bench *b);
/* bench_udp.c */
void bench_udp_echo(struct bench *b);

/* Other modes; each returns the program's exit status. */
int bench_instructions(const struct bench_options *options);
int bench_idle_child(const struct bench_options *options);
int bench_serve_echo(const struct bench_options *options);

#endif
