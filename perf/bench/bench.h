/* SPDX-License-Identifier: MIT */
/* bench.h: what every scenario of numio-bench uses: a runtime, blocks, samples, lines of output.
 *
 * A scenario is a function that gets a struct bench, starts a runtime, hands a block to
 * bench_repeat() or bench_single(), and stops the runtime.  perf/SCENARIOS.md says what a block,
 * a sample and an operation are.  All functions here belong to the main thread, except the
 * clock and the ways to fail, which any thread may use.  A scenario checks its result; one that
 * is wrong ends the program, because its figures would be worth nothing.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <numio/runtime.h>

#include "perf/bench/bench_options.h"

/* What one block took, and how many operations it did. */
struct bench_block {
    uint64_t time_ns;
    uint64_t ops;
};

struct bench_scenario;
struct bench_sink;

struct bench {
    const struct bench_options *options;
    const struct bench_scenario *scenario;
    struct bench_sink *sink;
    /* While a runtime is up, else NULL. */
    struct numio_runtime *runtime;
    struct numio_handle *handle;
    /* What the lines say; the runtime's own unless the scenario changes it. */
    const char *runtime_name, *version, *driver;
    unsigned workers;
};

struct bench_scenario {
    const char *name;
    const char *also; /* a further line that the run yields, or NULL */
    void (*run)(struct bench *b);
    enum bench_flavor flavor;
    const void *arg; /* the scenario's own */
};

static inline uint64_t bench_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Ends the program: a result is wrong, or something failed that must not.  Any thread. */
_Noreturn void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with the sentence that belongs to the numio error `rc`. */
_Noreturn void bench_fail_rc(const char *what, int64_t rc);
/* Says that the scenario is left out, and why. */
void bench_skip(const struct bench *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static inline void bench_must(int64_t rc, const char *what)
{
    if (__builtin_expect(rc < 0, 0))
        bench_fail_rc(what, rc);
}

/* Memory that lives as long as somebody frees it; never NULL. */
void *bench_alloc(size_t count, size_t size);

/* Starts a runtime as the options say.  False: it cannot be had, and the reason has been told. */
bool bench_start(struct bench *b);
/* The same with a configuration that began as bench_options_config(). */
bool bench_start_with(struct bench *b, const struct numio_config *config);
void bench_stop(struct bench *b);

/* A sample repeats blocks until their times fill its span. */
void bench_repeat(struct bench *b, struct bench_block (*block)(struct bench *b, void *arg),
                  void *arg);
/* A sample is one block, for blocks that are long already. */
void bench_single(struct bench *b, struct bench_block (*block)(struct bench *b, void *arg),
                  void *arg);
/* Emits a line of samples that the scenario took itself; sorts and overwrites them. */
void bench_put(struct bench *b, const char *name, const char *unit, double *samples, size_t n);
/* Tells on stderr how far the scenario is, if it takes long enough for somebody to wonder. */
void bench_progress(struct bench *b, unsigned done, unsigned total);

/* Runs a future to its end as the only task; its output must be a struct bench_block. */
struct bench_block bench_inside(struct bench *b,
                                enum numio_poll (*poll)(void *state, struct numio_context *cx),
                                const void *state, size_t size);

#endif
