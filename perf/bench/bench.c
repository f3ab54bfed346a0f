/* SPDX-License-Identifier: MIT */
#include "perf/bench/bench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <numio/error.h>

#include "perf/bench/bench_output.h"

static const uint64_t sample_ns = 50000000;
static const uint64_t sample_quick_ns = 10000000;

/* Lines that were finished are kept: the program ends without unwinding tasks or other threads. */
static _Noreturn void end(void)
{
    (void)fflush(stdout); /* nothing more to do if it fails */
    _exit(1);
}

void bench_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputs("numio-bench: ", stderr); /* nowhere to complain about stderr */
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    end();
}

void bench_fail_rc(const char *what, int64_t rc)
{
    const char *detail = numio_strerror_detail();
    bench_fail("%s: %s%s%s", what, strerror((int)-rc), *detail ? ": " : "", detail);
}

void bench_skip(const struct bench *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bench_sink_quiet(b->sink);
    (void)fprintf(stderr, "numio-bench: %s: skipped: ", b->scenario->name);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
}

void *bench_alloc(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        bench_fail("no memory for %zu times %zu bytes", count, size);
    return memory;
}

bool bench_start(struct bench *b)
{
    struct numio_config config;
    bench_options_config(b->options, &config);
    return bench_start_with(b, &config);
}

bool bench_start_with(struct bench *b, const struct numio_config *config)
{
    struct numio_runtime *runtime;
    int rc = numio_runtime_create(config, &runtime);
    if (rc < 0) {
        const char *detail = numio_strerror_detail();
        bench_skip(b, "no runtime: %s%s%s", strerror(-rc), *detail ? ": " : "", detail);
        return false;
    }
    struct numio_status status = { .size = sizeof status };
    b->runtime = runtime;
    b->handle = numio_runtime_handle(runtime);
    bench_must(numio_status(b->handle, &status), "numio_status");
    b->runtime_name = "numio";
    b->version = NUMIO_VERSION;
    b->driver = status.driver;
    b->workers = status.workers;
    return true;
}

void bench_stop(struct bench *b)
{
    if (b->options->with_metrics)
        bench_print_metrics(b);
    numio_runtime_destroy(b->runtime);
    b->runtime = NULL;
    b->handle = NULL;
}

void bench_put(struct bench *b, const char *name, const char *unit, double *samples, size_t n)
{
    if (!bench_options_match(b->options, name))
        return;
    struct bench_summary s = bench_summarise(samples, n);
    bench_sink_line(b->sink, b, name, unit, &s);
}

void bench_progress(struct bench *b, unsigned done, unsigned total)
{
    bench_sink_progress(b->sink, b->scenario->name, done, total);
}

static void sample_blocks(struct bench *b, struct bench_block (*block)(struct bench *b, void *arg),
                          void *arg, uint64_t span_ns)
{
    unsigned rounds = b->options->rounds;
    double *samples = bench_alloc(rounds, sizeof samples[0]);
    (void)block(b, arg); /* warms up */
    for (unsigned i = 0; i < rounds; i++) {
        struct bench_block sum = { 0 };
        while (sum.ops == 0 || sum.time_ns < span_ns) {
            struct bench_block one = block(b, arg);
            sum.time_ns += one.time_ns;
            sum.ops += one.ops;
        }
        samples[i] = (double)sum.time_ns / (double)sum.ops;
        bench_progress(b, i + 1, rounds);
    }
    bench_put(b, b->scenario->name, "ns/op", samples, rounds);
    free(samples);
}

void bench_repeat(struct bench *b, struct bench_block (*block)(struct bench *b, void *arg),
                  void *arg)
{
    sample_blocks(b, block, arg, b->options->is_quick ? sample_quick_ns : sample_ns);
}

void bench_single(struct bench *b, struct bench_block (*block)(struct bench *b, void *arg),
                  void *arg)
{
    sample_blocks(b, block, arg, 0);
}

struct bench_block bench_inside(struct bench *b,
                                enum numio_poll (*poll)(void *state, struct numio_context *cx),
                                const void *state, size_t size)
{
    struct bench_block block = { 0 };
    struct numio_join *join;
    struct numio_future root = {
        .poll = poll, .state = state, .size = size, .output_size = sizeof block
    };
    bench_must(numio_spawn(b->handle, &root, NULL, &join), "spawn of the root");
    bench_must(numio_join_await_output(&join, &block, sizeof block), "join of the root");
    return block;
}
