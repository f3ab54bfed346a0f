/* SPDX-License-Identifier: MIT */
/* bench_options.h: the command line of numio-bench.
 *
 * Parsed once by main(), constant afterwards, so any thread may read it.  What is wrong with the
 * command line is said on stderr and ends the program with exit status 2.
 */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include <regex.h>
#include <stdbool.h>
#include <stdint.h>

#include <numio/config.h>

/* The two kinds of tasks: scenarios run as one or the other. */
enum bench_flavor { BENCH_FUTURE = 0, BENCH_COROUTINE };

/* What the program was asked to do. */
enum bench_mode {
    BENCH_MODE_RUN = 0,
    BENCH_MODE_LIST,
    BENCH_MODE_INSTRUCTIONS, /* a counted loop for callgrind */
    BENCH_MODE_IDLE_CHILD,   /* started by the scenario idle_task_bytes, prints two numbers */
    BENCH_MODE_ECHO
};

struct bench_options {
    enum bench_mode mode;
    enum bench_flavor flavor; /* of the modes INSTRUCTIONS and IDLE_CHILD */
    bool is_quick;
    bool with_metrics;
    bool has_filter;
    bool has_driver, has_idle;
    regex_t filter;
    unsigned rounds;  /* samples per scenario */
    unsigned workers; /* 0: as the runtime chooses */
    enum numio_driver driver;
    enum numio_idle_policy idle;
    const char *json;     /* file that lines are appended to, NULL: none */
    const char *dir;      /* where the files to be read are made */
    const char *cpus;     /* NULL: all the process may use */
    const char *topology; /* NULL: this machine */
    uint64_t count;       /* of the mode INSTRUCTIONS */
    unsigned port;        /* of the mode ECHO */
    char **argv;          /* the program's own */
};

/* Fills `ret_options` or ends the program. */
void bench_options_parse(struct bench_options *ret_options, int argc, char **argv);
void bench_options_fini(struct bench_options *options);

/* Whether the filter lets `name` through. */
bool bench_options_match(const struct bench_options *options, const char *name);

/* The runtime's configuration that the options describe. */
void bench_options_config(const struct bench_options *options, struct numio_config *ret_config);

#endif
