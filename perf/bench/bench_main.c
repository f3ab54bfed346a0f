/* SPDX-License-Identifier: MIT */
/* numio-bench: the scenarios of perf/SCENARIOS.md on numio, and a TCP echo server. */
#include <stdio.h>

#include "perf/bench/bench_file.h"
#include "perf/bench/bench_output.h"
#include "perf/bench/bench_scenarios.h"
#include "perf/bench/bench_timer.h"
#include "perf/bench/bench_udp.h"

/* Readers, reads each, past the page cache; without a depth in its name: SCENARIOS.md's own. */
static const struct bench_file_shape cached = { 64, 64, false };
static const struct bench_file_shape cached_qd1 = { 1, 512, false };
static const struct bench_file_shape cached_qd32 = { 32, 128, false };
static const struct bench_file_shape cached_qd128 = { 128, 32, false };
static const struct bench_file_shape direct_qd1 = { 1, 128, true };
static const struct bench_file_shape direct_qd32 = { 32, 16, true };
static const struct bench_file_shape direct_qd128 = { 128, 8, true };

static const struct bench_udp_shape udp_block = { NUMIO_IDLE_PARK };
static const struct bench_udp_shape udp_spin = { NUMIO_IDLE_SPIN };

static const struct bench_cancel_shape cancel_alone = { 0 };
static const struct bench_cancel_shape cancel_among_100k = { 100000 };
static const struct bench_fire_shape fire_exact = { 0 }, fire_1ms = { 1000000 };
static const struct bench_sleep_shape sleep_1ms = { 1000000, 100 };
static const struct bench_sleep_shape sleep_100us = { 100000, 500 };

static const struct bench_scenario scenarios[] = {
    { "spawn_many_local", NULL, bench_spawn_many_local, BENCH_FUTURE, NULL },
    { "spawn_many_local_co", NULL, bench_spawn_many_local, BENCH_COROUTINE, NULL },
    { "spawn_join_each", NULL, bench_spawn_join_each, BENCH_FUTURE, NULL },
    { "spawn_join_each_co", NULL, bench_spawn_join_each, BENCH_COROUTINE, NULL },
    { "spawn_join_10k", NULL, bench_spawn_join_10k, BENCH_FUTURE, NULL },
    { "spawn_join_10k_co", NULL, bench_spawn_join_10k, BENCH_COROUTINE, NULL },
    { "spawn_many_remote_idle", NULL, bench_spawn_many_remote_idle, BENCH_FUTURE, NULL },
    { "spawn_many_remote_idle_co", NULL, bench_spawn_many_remote_idle, BENCH_COROUTINE, NULL },
    { "spawn_many_remote_busy1", NULL, bench_spawn_many_remote_busy1, BENCH_FUTURE, NULL },
    { "spawn_many_remote_busy1_co", NULL, bench_spawn_many_remote_busy1, BENCH_COROUTINE, NULL },
    { "spawn_many_remote_busy2", NULL, bench_spawn_many_remote_busy2, BENCH_FUTURE, NULL },
    { "spawn_many_remote_busy2_co", NULL, bench_spawn_many_remote_busy2, BENCH_COROUTINE, NULL },
    { "chained_spawn", NULL, bench_chained_spawn, BENCH_FUTURE, NULL },
    { "chained_spawn_co", NULL, bench_chained_spawn, BENCH_COROUTINE, NULL },
    { "yield_many", NULL, bench_yield_many, BENCH_FUTURE, NULL },
    { "yield_many_co", NULL, bench_yield_many, BENCH_COROUTINE, NULL },
    { "ping_pong", NULL, bench_ping_pong, BENCH_FUTURE, NULL },
    { "notify_pingpong", NULL, bench_notify_pingpong, BENCH_FUTURE, NULL },
    { "xthread_pingpong", NULL, bench_xthread_pingpong, BENCH_FUTURE, NULL },
    { "remote_wake", "remote_wake_call", bench_remote_wake, BENCH_FUTURE, NULL },
    { "fib27", NULL, bench_fib27, BENCH_FUTURE, NULL },
    { "fib27_co", NULL, bench_fib27, BENCH_COROUTINE, NULL },
    { "fib27_scope", NULL, bench_fib27_scope, BENCH_COROUTINE, NULL },
    { "skynet", NULL, bench_skynet, BENCH_FUTURE, NULL },
    { "skynet_co", NULL, bench_skynet, BENCH_COROUTINE, NULL },
    { "skynet_scope", NULL, bench_skynet_scope, BENCH_COROUTINE, NULL },
    { "spawn_blocking", NULL, bench_spawn_blocking, BENCH_FUTURE, NULL },
    { "spawn_blocking_co", NULL, bench_spawn_blocking, BENCH_COROUTINE, NULL },
    { "mutex_uncontended", NULL, bench_mutex_uncontended, BENCH_COROUTINE, NULL },
    { "semaphore_uncontended", NULL, bench_semaphore_uncontended, BENCH_COROUTINE, NULL },
    { "mutex_contended", NULL, bench_mutex_contended, BENCH_COROUTINE, NULL },
    { "mpsc_1p_co", NULL, bench_mpsc_1p, BENCH_COROUTINE, NULL },
    { "mpsc_4p_co", NULL, bench_mpsc_4p, BENCH_COROUTINE, NULL },
    { "oneshot_co", NULL, bench_oneshot, BENCH_COROUTINE, NULL },
    { "request_reply_co", NULL, bench_request_reply, BENCH_COROUTINE, NULL },
    { "coroutine_switch", NULL, bench_coroutine_switch, BENCH_COROUTINE, NULL },
    { "idle_task_bytes", "idle_task_bytes_arena", bench_idle_task_bytes, BENCH_FUTURE, NULL },
    { "idle_task_bytes_co", "idle_task_bytes_arena_co", bench_idle_task_bytes, BENCH_COROUTINE,
      NULL },
    { "file_read_cached", NULL, bench_file_read, BENCH_FUTURE, &cached },
    { "file_read_cached_co", NULL, bench_file_read, BENCH_COROUTINE, &cached },
    { "file_read_cached_raw", NULL, bench_file_read_raw, BENCH_FUTURE, &cached },
    { "file_read_cached_qd1", NULL, bench_file_read, BENCH_FUTURE, &cached_qd1 },
    { "file_read_cached_qd1_co", NULL, bench_file_read, BENCH_COROUTINE, &cached_qd1 },
    { "file_read_cached_qd1_raw", NULL, bench_file_read_raw, BENCH_FUTURE, &cached_qd1 },
    { "file_read_cached_qd32", NULL, bench_file_read, BENCH_FUTURE, &cached_qd32 },
    { "file_read_cached_qd32_co", NULL, bench_file_read, BENCH_COROUTINE, &cached_qd32 },
    { "file_read_cached_qd32_raw", NULL, bench_file_read_raw, BENCH_FUTURE, &cached_qd32 },
    { "file_read_cached_qd128", NULL, bench_file_read, BENCH_FUTURE, &cached_qd128 },
    { "file_read_cached_qd128_co", NULL, bench_file_read, BENCH_COROUTINE, &cached_qd128 },
    { "file_read_cached_qd128_raw", NULL, bench_file_read_raw, BENCH_FUTURE, &cached_qd128 },
    { "file_read_direct_qd1", NULL, bench_file_read, BENCH_FUTURE, &direct_qd1 },
    { "file_read_direct_qd1_co", NULL, bench_file_read, BENCH_COROUTINE, &direct_qd1 },
    { "file_read_direct_qd1_raw", NULL, bench_file_read_raw, BENCH_FUTURE, &direct_qd1 },
    { "file_read_direct_qd32", NULL, bench_file_read, BENCH_FUTURE, &direct_qd32 },
    { "file_read_direct_qd32_co", NULL, bench_file_read, BENCH_COROUTINE, &direct_qd32 },
    { "file_read_direct_qd32_raw", NULL, bench_file_read_raw, BENCH_FUTURE, &direct_qd32 },
    { "file_read_direct_qd128", NULL, bench_file_read, BENCH_FUTURE, &direct_qd128 },
    { "file_read_direct_qd128_co", NULL, bench_file_read, BENCH_COROUTINE, &direct_qd128 },
    { "file_read_direct_qd128_raw", NULL, bench_file_read_raw, BENCH_FUTURE, &direct_qd128 },
    { "timer_insert_cancel", NULL, bench_timer_insert_cancel, BENCH_COROUTINE, &cancel_alone },
    { "timer_insert_cancel_100k", NULL, bench_timer_insert_cancel, BENCH_COROUTINE,
      &cancel_among_100k },
    { "timer_fire_100k", "timer_fire_100k_late_p99", bench_timer_fire, BENCH_FUTURE, &fire_exact },
    { "timer_fire_100k_1ms", "timer_fire_100k_1ms_late_p99", bench_timer_fire, BENCH_FUTURE,
      &fire_1ms },
    { "sleep_1ms", "sleep_1ms_p99", bench_sleep, BENCH_COROUTINE, &sleep_1ms },
    { "sleep_100us", "sleep_100us_p99", bench_sleep, BENCH_COROUTINE, &sleep_100us },
    { "udp_echo_block_p50", "udp_echo_block_p99", bench_udp_echo, BENCH_COROUTINE, &udp_block },
    { "udp_echo_spin_p50", "udp_echo_spin_p99", bench_udp_echo, BENCH_COROUTINE, &udp_spin },
};

static const size_t scenario_count = sizeof scenarios / sizeof scenarios[0];

static bool is_wanted(const struct bench_options *options, const struct bench_scenario *s)
{
    return bench_options_match(options, s->name) ||
           (s->also && bench_options_match(options, s->also));
}

static int list(const struct bench_options *options)
{
    for (size_t i = 0; i < scenario_count; i++) {
        const struct bench_scenario *s = &scenarios[i];
        if (bench_options_match(options, s->name))
            (void)puts(s->name);
        if (s->also && bench_options_match(options, s->also))
            (void)puts(s->also);
    }
    return fflush(stdout) ? 1 : 0;
}

/* Figures of a slow build would be quoted all the same, so there are none. */
static bool is_fast_build(void)
{
#if !defined(__OPTIMIZE__)
    const char *reason = "without optimisation";
#elif defined(NIO_DEBUG)
    const char *reason = "with NUMIO_DEBUG";
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    const char *reason = "with a sanitizer";
#else
    const char *reason = NULL;
#endif
    if (reason)
        (void)fprintf(stderr, "numio-bench: this build is %s; measure a release build\n", reason);
    return !reason;
}

static int run(const struct bench_options *options)
{
    struct bench_sink sink;
    unsigned ran = 0;
    if (!is_fast_build())
        return 2;
    bench_sink_open(&sink, options);
    for (size_t i = 0; i < scenario_count; i++) {
        const struct bench_scenario *s = &scenarios[i];
        if (!is_wanted(options, s))
            continue;
        struct bench b = { .options = options, .scenario = s, .sink = &sink };
        bench_sink_begin(&sink);
        s->run(&b);
        bench_sink_quiet(&sink);
        ran++;
    }
    if (ran == 0)
        (void)fputs("numio-bench: no scenario has such a name; --list names them\n", stderr);
    if (bench_sink_close(&sink)) {
        (void)fputs("numio-bench: the results could not be written\n", stderr);
        return 1;
    }
    return ran ? 0 : 2;
}

int main(int argc, char **argv)
{
    struct bench_options options;
    int status = 0;
    bench_options_parse(&options, argc, argv);
    switch (options.mode) {
    case BENCH_MODE_RUN:
        status = run(&options);
        break;
    case BENCH_MODE_LIST:
        status = list(&options);
        break;
    case BENCH_MODE_INSTRUCTIONS:
        status = bench_instructions(&options);
        break;
    case BENCH_MODE_IDLE_CHILD:
        status = bench_idle_child(&options);
        break;
    case BENCH_MODE_ECHO:
        status = bench_serve_echo(&options);
        break;
    }
    bench_options_fini(&options);
    return status;
}
