/* SPDX-License-Identifier: MIT */
#include "perf/bench/bench_options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROUNDS_DEFAULT = 11,
    ROUNDS_QUICK = 3,
    ROUNDS_MAX = 10000,
    WORKERS_MAX = 65536,
    PORT_MAX = 65535
};

static const char usage[] =
    "Usage: numio-bench [--list] [--filter RE] [--json FILE] [--rounds N] [--quick] [RUNTIME]\n"
    "       numio-bench --instructions N [--coroutines] [RUNTIME]\n"
    "       numio-bench --serve-echo --port P [--cpu C] [RUNTIME]\n"
    "\n"
    "  --list           print the scenarios' names and end\n"
    "  --filter RE      only scenarios whose name matches (POSIX extended, not anchored)\n"
    "  --json FILE      append one JSON object per line to FILE\n"
    "  --rounds N       samples per scenario (11; with --quick 3)\n"
    "  --quick          short blocks and few samples: a smoke test, no figures to quote\n"
    "  --dir DIR        where the files to be read are made ($TMPDIR, else /tmp)\n"
    "  --metrics        after each scenario, the workers' counters on stderr\n"
    "  --instructions N spawn, run and join N tasks, one after the other, and end\n"
    "  --coroutines     ... as coroutines instead of futures\n"
    "  --serve-echo     a TCP echo server on 127.0.0.1, until SIGTERM or SIGINT\n"
    "  --port P         ... on this port; 0: one that is free, printed\n"
    "  --cpu C          the same as --cpus C\n"
    "\n"
    "RUNTIME:\n"
    "  --workers N      (one per core)\n"
    "  --driver P       auto, sqpoll, defer, iopoll or epoll\n"
    "  --idle P         balanced, spin or park\n"
    "  --cpus LIST      only these CPUs, for example 0-3,8\n"
    "  --topology STR   an emulated machine: hwloc synthetic text or the path of its XML\n"
    "\n"
    "Without --json the lines go to stdout; if that is a terminal, it gets a table instead.\n";

enum option_value {
    OPTION_LIST = 256,
    OPTION_FILTER,
    OPTION_JSON,
    OPTION_ROUNDS,
    OPTION_QUICK,
    OPTION_DIR,
    OPTION_METRICS,
    OPTION_INSTRUCTIONS,
    OPTION_COROUTINES,
    OPTION_ECHO,
    OPTION_PORT,
    OPTION_CPUS,
    OPTION_WORKERS,
    OPTION_DRIVER,
    OPTION_IDLE,
    OPTION_TOPOLOGY,
    OPTION_IDLE_CHILD,
    OPTION_VERSION,
    OPTION_HELP
};

static const struct option long_options[] = {
    { "list", no_argument, NULL, OPTION_LIST },
    { "filter", required_argument, NULL, OPTION_FILTER },
    { "json", required_argument, NULL, OPTION_JSON },
    { "rounds", required_argument, NULL, OPTION_ROUNDS },
    { "quick", no_argument, NULL, OPTION_QUICK },
    { "dir", required_argument, NULL, OPTION_DIR },
    { "metrics", no_argument, NULL, OPTION_METRICS },
    { "instructions", required_argument, NULL, OPTION_INSTRUCTIONS },
    { "coroutines", no_argument, NULL, OPTION_COROUTINES },
    { "serve-echo", no_argument, NULL, OPTION_ECHO },
    { "port", required_argument, NULL, OPTION_PORT },
    { "cpu", required_argument, NULL, OPTION_CPUS },
    { "cpus", required_argument, NULL, OPTION_CPUS },
    { "workers", required_argument, NULL, OPTION_WORKERS },
    { "driver", required_argument, NULL, OPTION_DRIVER },
    { "idle", required_argument, NULL, OPTION_IDLE },
    { "topology", required_argument, NULL, OPTION_TOPOLOGY },
    { "idle-child", required_argument, NULL, OPTION_IDLE_CHILD },
    { "version", no_argument, NULL, OPTION_VERSION },
    { "help", no_argument, NULL, OPTION_HELP },
    { NULL, 0, NULL, 0 },
};

static _Noreturn __attribute__((format(printf, 1, 2))) void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputs("numio-bench: ", stderr); /* nowhere to complain about stderr */
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputs("; --help lists the options\n", stderr);
    exit(2);
}

static uint64_t number(const char *name, const char *text, uint64_t min, uint64_t max)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || value < min || value > max)
        die("--%s: %s is no number from %llu to %llu", name, text, (unsigned long long)min,
            (unsigned long long)max);
    return value;
}

/* The index of `text` in the NULL-terminated `words`. */
static int word(const char *name, const char *text, const char *const *words)
{
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], text) == 0)
            return i;
    }
    (void)fprintf(stderr, "numio-bench: --%s %s is none of:", name, text);
    for (int i = 0; words[i]; i++)
        (void)fprintf(stderr, " %s", words[i]);
    (void)fputc('\n', stderr);
    exit(2);
}

static void set_filter(struct bench_options *o, const char *pattern)
{
    if (o->has_filter)
        regfree(&o->filter);
    int rc = regcomp(&o->filter, pattern, REG_EXTENDED | REG_NOSUB);
    o->has_filter = rc == 0;
    if (rc != 0)
        die("--filter: not a regular expression: %s", pattern);
}

/* The options that take effect by themselves. */
static void set_runtime_option(struct bench_options *o, int option, const char *value)
{
    /* In the order of enum numio_driver and enum numio_idle_policy. */
    static const char *const drivers[] = { "auto", "sqpoll", "defer", "epoll", "iopoll", NULL };
    static const char *const idles[] = { "balanced", "spin", "park", NULL };
    switch (option) {
    case OPTION_WORKERS:
        o->workers = (unsigned)number("workers", value, 1, WORKERS_MAX);
        break;
    case OPTION_DRIVER:
        o->driver = (enum numio_driver)word("driver", value, drivers);
        o->has_driver = true;
        break;
    case OPTION_IDLE:
        o->idle = (enum numio_idle_policy)word("idle", value, idles);
        o->has_idle = true;
        break;
    case OPTION_CPUS:
        o->cpus = value;
        break;
    case OPTION_TOPOLOGY:
        o->topology = value;
        break;
    default:
        die("unknown option, or one without its value");
    }
}

static void set_mode(struct bench_options *o, int option, const char *value)
{
    static const char *const flavors[] = { "future", "coroutine", NULL };
    switch (option) {
    case OPTION_LIST:
        o->mode = BENCH_MODE_LIST;
        break;
    case OPTION_INSTRUCTIONS:
        o->mode = BENCH_MODE_INSTRUCTIONS;
        o->count = number("instructions", value, 1, UINT32_MAX);
        break;
    case OPTION_ECHO:
        o->mode = BENCH_MODE_ECHO;
        break;
    case OPTION_IDLE_CHILD:
        o->mode = BENCH_MODE_IDLE_CHILD;
        o->flavor = (enum bench_flavor)word("idle-child", value, flavors);
        break;
    case OPTION_VERSION:
        (void)puts("numio " NUMIO_VERSION);
        exit(0);
    case OPTION_HELP:
        (void)fputs(usage, stdout);
        exit(0);
    default:
        set_runtime_option(o, option, value);
    }
}

static void set_option(struct bench_options *o, int option, const char *value)
{
    switch (option) {
    case OPTION_FILTER:
        set_filter(o, value);
        break;
    case OPTION_JSON:
        o->json = value;
        break;
    case OPTION_ROUNDS:
        o->rounds = (unsigned)number("rounds", value, 1, ROUNDS_MAX);
        break;
    case OPTION_QUICK:
        o->is_quick = true;
        break;
    case OPTION_DIR:
        o->dir = value;
        break;
    case OPTION_METRICS:
        o->with_metrics = true;
        break;
    case OPTION_COROUTINES:
        o->flavor = BENCH_COROUTINE;
        break;
    case OPTION_PORT:
        o->port = (unsigned)number("port", value, 0, PORT_MAX);
        break;
    default:
        set_mode(o, option, value);
    }
}

void bench_options_parse(struct bench_options *ret_options, int argc, char **argv)
{
    const char *tmp = getenv("TMPDIR");
    struct bench_options o = { .dir = tmp && *tmp ? tmp : "/tmp", .argv = argv };
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == '?')
            die("the command line is not understood");
        set_option(&o, option, optarg);
    }
    if (optind < argc)
        die("what is %s?", argv[optind]);
    if (o.rounds == 0)
        o.rounds = o.is_quick ? ROUNDS_QUICK : ROUNDS_DEFAULT;
    *ret_options = o;
}

void bench_options_fini(struct bench_options *options)
{
    if (options->has_filter)
        regfree(&options->filter);
    options->has_filter = false;
}

bool bench_options_match(const struct bench_options *options, const char *name)
{
    return !options->has_filter || regexec(&options->filter, name, 0, NULL, 0) == 0;
}

void bench_options_config(const struct bench_options *options, struct numio_config *ret_config)
{
    if (numio_config_init(ret_config, sizeof *ret_config))
        die("the library and its headers do not belong together");
    ret_config->name = "bench";
    ret_config->workers = options->workers;
    ret_config->cpus = options->cpus;
    ret_config->topology = options->topology;
    if (options->has_driver)
        ret_config->driver = options->driver;
    if (options->has_idle)
        ret_config->idle = options->idle;
}
