/* SPDX-License-Identifier: MIT */
#include "perf/bench/bench_output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A person starts to wonder after about this long. */
static const uint64_t progress_interval_ns = 2000000000;

void bench_sink_open(struct bench_sink *sink, const struct bench_options *options)
{
    *sink = (struct bench_sink){ .on_terminal = isatty(STDERR_FILENO) };
    if (options->json) {
        sink->with_table = true;
        sink->json = fopen(options->json, "ae");
        if (!sink->json) {
            (void)fprintf(stderr, "numio-bench: --json %s: %s\n", options->json, strerror(errno));
            exit(2);
        }
    } else {
        sink->with_table = isatty(STDOUT_FILENO);
        sink->json = sink->with_table ? NULL : stdout;
    }
}

int bench_sink_close(struct bench_sink *sink)
{
    bool is_bad = fflush(stdout) != 0 || ferror(stdout);
    if (sink->json && sink->json != stdout)
        is_bad |= fclose(sink->json) != 0;
    sink->json = NULL;
    return is_bad ? -EIO : 0;
}

void bench_sink_begin(struct bench_sink *sink)
{
    sink->told_ns = bench_now_ns();
}

static void print_table_line(struct bench_sink *sink, const struct bench *b, const char *name,
                             const char *unit, const struct bench_summary *s)
{
    if (!sink->with_header) {
        sink->with_header = true;
        printf("numio %s, %u worker(s), driver %s\n", NUMIO_VERSION, b->workers, b->driver);
        printf("%-30s %12s %10s %12s %12s %4s  unit\n", "scenario", "median", "MAD", "min", "max",
               "n");
    }
    printf("%-30s %12.1f %10.1f %12.1f %12.1f %4zu  %s\n", name, s->median, s->mad, s->min, s->max,
           s->n, unit);
}

void bench_sink_line(struct bench_sink *sink, const struct bench *b, const char *name,
                     const char *unit, const struct bench_summary *s)
{
    bench_sink_quiet(sink);
    if (sink->json) {
        (void)fprintf(sink->json,
                      "{\"scenario\":\"%s\",\"runtime\":\"%s\",\"version\":\"%s\","
                      "\"workers\":%u,\"driver\":\"%s\",\"unit\":\"%s\",\"median\":%.3f,"
                      "\"mad\":%.3f,\"min\":%.3f,\"max\":%.3f,\"n\":%zu}\n",
                      name, b->runtime_name, b->version, b->workers, b->driver, unit, s->median,
                      s->mad, s->min, s->max, s->n);
        (void)fflush(sink->json); /* an error stays with the stream until it is closed */
    }
    if (sink->with_table)
        print_table_line(sink, b, name, unit, s);
    (void)fflush(stdout); /* as above */
}

void bench_sink_progress(struct bench_sink *sink, const char *name, unsigned done, unsigned total)
{
    uint64_t now_ns = bench_now_ns();
    if (now_ns - sink->told_ns < progress_interval_ns)
        return;
    sink->told_ns = now_ns;
    sink->with_progress = sink->on_terminal;
    (void)fprintf(stderr, "%snumio-bench: %s: %u of %u samples%s",
                  sink->on_terminal ? "\r\033[K" : "", name, done, total,
                  sink->on_terminal ? "" : "\n");
}

void bench_sink_quiet(struct bench_sink *sink)
{
    if (sink->with_progress)
        (void)fputs("\r\033[K", stderr); /* nowhere to complain about stderr */
    sink->with_progress = false;
}

void bench_print_metrics(const struct bench *b)
{
    (void)fprintf(stderr, "%s:\n%6s %10s %10s %10s %8s %7s %8s %8s %8s %9s %9s %9s\n",
                  b->scenario->name, "worker", "polls", "spawned", "completed", "stolen", "wakes",
                  "parks", "spinwins", "inject", "overflow", "sqes", "enters");
    for (unsigned i = 0; i < b->workers; i++) {
        struct numio_worker_metrics m = { .size = sizeof m };
        bench_must(numio_worker_metrics(b->handle, i, &m), "numio_worker_metrics");
        (void)fprintf(
            stderr,
            "%6u %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %8" PRIu64 " %7" PRIu64 " %8" PRIu64
            " %8" PRIu64 " %8" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9" PRIu64 "\n",
            i, m.polls, m.spawned, m.completed, m.stolen_near + m.stolen_far, m.wakes_sent, m.parks,
            m.spin_wins, m.inject_taken, m.overflowed, m.sqes, m.enters);
    }
}
