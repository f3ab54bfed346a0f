/* SPDX-License-Identifier: MIT */
#include "runtime/tool/tool_options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <numio/error.h>

enum { EXIT_USAGE = 2, MIB = 1 << 20 };

enum option_code {
    OPTION_HELP = 'h',
    OPTION_VERSION = 'V',
    OPTION_TOPOLOGY = 256,
    OPTION_SHARD_BY,
    OPTION_WORKERS,
    OPTION_PER_PU,
    OPTION_CPUS,
    OPTION_DRIVER,
    OPTION_SQ_CPU,
    OPTION_IDLE,
    OPTION_SEED,
    OPTION_JSON,
    OPTION_ASCII,
    OPTION_WIDTH,
    OPTION_TASKS,
    OPTION_FILE,
    OPTION_FILE_MIB,
    OPTION_READS
};

static const struct option long_options[] = {
    { "help", no_argument, NULL, OPTION_HELP },
    { "version", no_argument, NULL, OPTION_VERSION },
    { "topology", required_argument, NULL, OPTION_TOPOLOGY },
    { "shard-by", required_argument, NULL, OPTION_SHARD_BY },
    { "workers", required_argument, NULL, OPTION_WORKERS },
    { "per-pu", no_argument, NULL, OPTION_PER_PU },
    { "cpus", required_argument, NULL, OPTION_CPUS },
    { "driver", required_argument, NULL, OPTION_DRIVER },
    { "sq-cpu", required_argument, NULL, OPTION_SQ_CPU },
    { "idle", required_argument, NULL, OPTION_IDLE },
    { "seed", required_argument, NULL, OPTION_SEED },
    { "json", no_argument, NULL, OPTION_JSON },
    { "ascii", no_argument, NULL, OPTION_ASCII },
    { "width", required_argument, NULL, OPTION_WIDTH },
    { "tasks", required_argument, NULL, OPTION_TASKS },
    { "file", required_argument, NULL, OPTION_FILE },
    { "file-mib", required_argument, NULL, OPTION_FILE_MIB },
    { "reads", required_argument, NULL, OPTION_READS },
    { NULL, 0, NULL, 0 },
};

static const char help_text[] =
    "Usage: numio info [OPTIONS] [--json]   the machine as numio sees it, and who runs where\n"
    "       numio tour [OPTIONS]            tasks, files, sockets, time, cancelling: checked\n"
    "       numio numa-check [OPTIONS] [--json]   whether pages, threads and interrupts are on\n"
    "                                       their nodes, and how far the nodes are apart\n"
    "       numio bench [ARGUMENTS]         measures, beside Tokio and others in a source tree\n"
    "                                       (scripts/bench.sh), else alone (numio-bench); its\n"
    "                                       own --help says with which arguments\n"
    "       numio --help | --version\n"
    "\n"
    "Options of all but bench (each sets the environment variable in brackets):\n"
    "  --topology STR   another machine: \"pack:2 numa:1 core:4 pu:1\" (hwloc's synthetic\n"
    "                   notation) or the path of an hwloc XML file      [NUMIO_TOPOLOGY]\n"
    "  --shard-by WHAT  what a node is: package, numa or l3             [NUMIO_SHARD_BY]\n"
    "  --workers N      worker threads; without it one per core         [NUMIO_WORKERS]\n"
    "  --per-pu         a worker on every hardware thread               [NUMIO_WORKER_PER_PU]\n"
    "  --cpus LIST      only these CPUs, as in 0-3,8                    [NUMIO_CPUS]\n"
    "  --driver NAME    auto, sqpoll, defer, iopoll or epoll            [NUMIO_DRIVER]\n"
    "  --sq-cpu N       the CPU of the SQ thread                        [NUMIO_SQ_THREAD_CPU]\n"
    "  --idle POLICY    balanced, spin or park                          [NUMIO_IDLE]\n"
    "  --seed N         seed of the scheduler's choices                 [NUMIO_RNG_SEED]\n"
    "  --width N        columns to draw in; else the terminal's\n"
    "  --ascii          no box-drawing characters\n"
    "\n"
    "Options of info and numa-check:\n"
    "  --json           everything, as one JSON object\n"
    "\n"
    "Options of tour:\n"
    "  --tasks N        tasks to spawn; 1000000\n"
    "  --file PATH      the file to serve and to read; without it one is made in $TMPDIR or\n"
    "                   /var/tmp and removed again\n"
    "  --file-mib N     size of the file that is made; 32\n"
    "  --reads N        random reads; 20000\n"
    "\n"
    "Exit status: 0 all is well, 1 something is wrong (it says what), 2 bad usage,\n"
    "130 interrupted.\n";

void tool_options_help(void)
{
    fputs(help_text, stdout);
}

static int usage_error(const char *what, const char *value)
{
    fprintf(stderr, "numio: %s%s%s\nTry: numio --help\n", what, value ? ": " : "",
            value ? value : "");
    return EXIT_USAGE;
}

/* Parses a number in min..max. */
static int parse_number(const char *name, const char *text, uint64_t min, uint64_t max,
                        uint64_t *ret_value)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    bool is_number = *text >= '0' && *text <= '9' && *end == '\0' && errno == 0;
    if (is_number && value >= min && value <= max) {
        *ret_value = value;
        return 0;
    }
    fprintf(stderr, "numio: --%s %s: must be a number from %llu to %llu\n", name, text,
            (unsigned long long)min, (unsigned long long)max);
    return EXIT_USAGE;
}

/* The environment variable behind an option, NULL if it has none. */
static const char *variable_of(int code)
{
    static const struct {
        int code;
        const char *name;
    } variables[] = {
        { OPTION_TOPOLOGY, "NUMIO_TOPOLOGY" },
        { OPTION_SHARD_BY, "NUMIO_SHARD_BY" },
        { OPTION_WORKERS, "NUMIO_WORKERS" },
        { OPTION_PER_PU, "NUMIO_WORKER_PER_PU" },
        { OPTION_CPUS, "NUMIO_CPUS" },
        { OPTION_DRIVER, "NUMIO_DRIVER" },
        { OPTION_SQ_CPU, "NUMIO_SQ_THREAD_CPU" },
        { OPTION_IDLE, "NUMIO_IDLE" },
        { OPTION_SEED, "NUMIO_RNG_SEED" },
    };
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        if (variables[i].code == code)
            return variables[i].name;
    return NULL;
}

/* An option that one of the commands has to itself. */
static int apply_own_option(struct tool_options *options, int code, const char *value)
{
    bool is_for_tour = options->command == TOOL_TOUR;
    if (is_for_tour != (code != OPTION_JSON))
        return usage_error(code == OPTION_JSON ? "--json belongs to numio info and numa-check"
                                               : "this option belongs to numio tour",
                           NULL);
    uint64_t mib = 0;
    int status = 0;
    switch (code) {
    case OPTION_JSON:
        options->as_json = true;
        break;
    case OPTION_TASKS:
        return parse_number("tasks", value, 1, 1000000000, &options->task_count);
    case OPTION_READS:
        return parse_number("reads", value, 1, 1000000000, &options->read_count);
    case OPTION_FILE_MIB:
        status = parse_number("file-mib", value, 1, 4096, &mib);
        options->file_bytes = mib * MIB;
        break;
    default:
        options->file = value;
    }
    return status;
}

static int apply_option(struct tool_options *options, int code, const char *value)
{
    uint64_t width = 0;
    int status = 0;
    const char *variable = variable_of(code);
    if (variable)
        return setenv(variable, value ? value : "1", 1) == 0 ? 0 : usage_error("no memory", NULL);
    switch (code) {
    case OPTION_HELP:
        options->command = TOOL_HELP;
        return 0;
    case OPTION_VERSION:
        options->command = TOOL_VERSION;
        return 0;
    case OPTION_ASCII:
        options->is_ascii = true;
        return 0;
    case OPTION_WIDTH:
        status = parse_number("width", value, 40, 400, &width);
        options->width = (int)width;
        return status;
    case '?': /* getopt_long() has said why */
        fputs("Try: numio --help\n", stderr);
        return EXIT_USAGE;
    default:
        return apply_own_option(options, code, value);
    }
}

static int parse_command(const char *word, struct tool_options *options)
{
    if (strcmp(word, "info") == 0)
        options->command = TOOL_INFO;
    else if (strcmp(word, "tour") == 0)
        options->command = TOOL_TOUR;
    else if (strcmp(word, "numa-check") == 0)
        options->command = TOOL_CHECK;
    else if (strcmp(word, "bench") == 0)
        options->command = TOOL_BENCH;
    else if (strcmp(word, "help") == 0)
        options->command = TOOL_HELP;
    else
        return usage_error("no such command", word);
    return 0;
}

/* Applies options until one of them decides the command alone or is wrong. */
static int parse_options(int argc, char **argv, struct tool_options *options)
{
    int status = 0;
    while (status == 0 && options->command != TOOL_HELP && options->command != TOOL_VERSION) {
        int code = getopt_long(argc, argv, "hV", long_options, NULL);
        if (code < 0)
            return optind < argc ? usage_error("unexpected argument", argv[optind]) : 0;
        status = apply_option(options, code, optarg);
    }
    return status;
}

int tool_options_parse(int argc, char **argv, struct tool_options *ret_options)
{
    struct tool_options options = { .task_count = 1000000,
                                    .read_count = 20000,
                                    .file_bytes = 32 * (uint64_t)MIB };
    bool has_word = argc > 1 && argv[1][0] != '-';
    int status = has_word ? parse_command(argv[1], &options) : 0;
    optind = has_word ? 2 : 1;
    if (options.command == TOOL_BENCH)
        options.bench_arguments = argv + 1; /* all the rest is for another program */
    else if (status == 0)
        status = parse_options(argc, argv, &options);
    if (status == 0 && options.command == TOOL_NO_COMMAND)
        status = usage_error("say what to do: info, tour, numa-check or bench", NULL);
    bool has_runtime = options.command == TOOL_INFO || options.command == TOOL_TOUR ||
                       options.command == TOOL_CHECK;
    if (status == 0 && has_runtime) {
        int err = numio_config_init(&options.config, sizeof options.config);
        if (err == 0)
            err = numio_config_from_env(&options.config);
        if (err < 0) {
            const char *detail = numio_strerror_detail();
            status = usage_error(detail[0] ? detail : strerror(-err), NULL);
        }
    }
    if (status == 0)
        *ret_options = options;
    return status;
}
