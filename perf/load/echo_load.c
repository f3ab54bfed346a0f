/* SPDX-License-Identifier: MIT */
/* echo_load: measures a TCP echo server in a closed loop; perf/SCENARIOS.md, "TCP echo", says
 * what.  This file is the command line and the output; load_run.c does the work.
 */
#include "perf/load/load_run.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <regex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const char USAGE[] =
    "Usage: echo_load --port P [options]\n"
    "  --filter RE        which scenarios (extended regular expression; default all)\n"
    "  --conns C --depth D  one scenario of your own instead, named tcp_echo_C_pD\n"
    "  --list             name the scenarios and exit\n"
    "  --host ADDR        IPv4 address (default 127.0.0.1)\n"
    "  --size BYTES       bytes per message (default 64, at least 24)\n"
    "  --seconds S        length of a sample (default 1)    --count N  answers per sample instead\n"
    "  --warmup S         before the first sample (default 0.3)\n"
    "  --rounds N         samples (default 5, quick 3)      --quick    samples of 0.3 s\n"
    "  --cpu C            run on this CPU                   --poll epoll|spin\n"
    "  --pid PID          the server, for its CPU time per request\n"
    "  --json FILE        append JSON lines to FILE and print a table\n"
    "  --runtime R --version V --workers N --driver D   what the lines say of the server\n";

enum { ROUNDS_MAX = 10000, FIGURES = 5, CONNS_MAX = 100000 };

struct scenario {
    const char *name;
    size_t conns;
    size_t depth;
};

static const struct scenario SCENARIOS[] = {
    { "tcp_echo_1", 1, 1 },
    { "tcp_echo_64", 64, 1 },
    { "tcp_echo_1000", 1000, 1 },
    { "tcp_echo_64_p16", 64, 16 },
};
enum { SCENARIO_COUNT = sizeof SCENARIOS / sizeof SCENARIOS[0] };

static const struct {
    const char *suffix;
    const char *unit;
} FIGURE[FIGURES] = {
    { "", "req/s" }, { "_p50", "us" }, { "_p99", "us" }, { "_p999", "us" }, { "_cpu", "us/req" }
};

struct options {
    const char *host;
    const char *filter;
    const char *json_path;
    const char *runtime;
    const char *version;
    const char *driver;
    double seconds;
    double warmup_s;
    uint64_t answers;
    size_t port, conns, depth, message_bytes, rounds, workers;
    long cpu;
    long pid;
    bool is_quick, is_spinning, only_lists;
};

static void die(const char *what, const char *detail)
{
    fprintf(stderr, "echo_load: %s%s%s\n", what, *detail != '\0' ? ": " : "", detail);
    exit(1);
}

static double number(const char *option, const char *text, double min, double max)
{
    char *end;
    double value = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !(value >= min && value <= max)) {
        char message[160];
        (void)snprintf(message, sizeof message, "--%s: not a number from %g to %g", option, min,
                       max);
        die(message, text);
    }
    return value;
}

static const char *name_without_quotes(const char *option, const char *text)
{
    if (strpbrk(text, "\"\\\n\t") != NULL)
        die("no quotes, backslashes or control characters, please", option);
    return text;
}

enum option_id {
    OPT_PORT = 256,
    OPT_FILTER,
    OPT_CONNS,
    OPT_DEPTH,
    OPT_LIST,
    OPT_HOST,
    OPT_SIZE,
    OPT_SECONDS,
    OPT_COUNT,
    OPT_WARMUP,
    OPT_ROUNDS,
    OPT_QUICK,
    OPT_CPU,
    OPT_POLL,
    OPT_PID,
    OPT_JSON,
    OPT_RUNTIME,
    OPT_VERSION,
    OPT_WORKERS,
    OPT_DRIVER,
    OPT_HELP,
};

static const struct option LONG[] = {
    { "port", required_argument, NULL, OPT_PORT },
    { "filter", required_argument, NULL, OPT_FILTER },
    { "conns", required_argument, NULL, OPT_CONNS },
    { "depth", required_argument, NULL, OPT_DEPTH },
    { "list", no_argument, NULL, OPT_LIST },
    { "host", required_argument, NULL, OPT_HOST },
    { "size", required_argument, NULL, OPT_SIZE },
    { "seconds", required_argument, NULL, OPT_SECONDS },
    { "count", required_argument, NULL, OPT_COUNT },
    { "warmup", required_argument, NULL, OPT_WARMUP },
    { "rounds", required_argument, NULL, OPT_ROUNDS },
    { "quick", no_argument, NULL, OPT_QUICK },
    { "cpu", required_argument, NULL, OPT_CPU },
    { "poll", required_argument, NULL, OPT_POLL },
    { "pid", required_argument, NULL, OPT_PID },
    { "json", required_argument, NULL, OPT_JSON },
    { "runtime", required_argument, NULL, OPT_RUNTIME },
    { "version", required_argument, NULL, OPT_VERSION },
    { "workers", required_argument, NULL, OPT_WORKERS },
    { "driver", required_argument, NULL, OPT_DRIVER },
    { "help", no_argument, NULL, OPT_HELP },
    { NULL, 0, NULL, 0 },
};

/* What the server under test is called; true when `id` was one of these. */
static bool take_label(struct options *o, int id, const char *name, const char *value)
{
    switch (id) {
    case OPT_RUNTIME:
        o->runtime = name_without_quotes(name, value);
        return true;
    case OPT_VERSION:
        o->version = name_without_quotes(name, value);
        return true;
    case OPT_DRIVER:
        o->driver = name_without_quotes(name, value);
        return true;
    case OPT_WORKERS:
        o->workers = (size_t)number(name, value, 1, 100000);
        return true;
    default:
        return false;
    }
}

static void take_option(struct options *o, int id, const char *name, const char *value)
{
    if (take_label(o, id, name, value))
        return;
    switch (id) {
    case OPT_PORT:
        o->port = (size_t)number(name, value, 1, 65535);
        break;
    case OPT_FILTER:
        o->filter = value;
        break;
    case OPT_CONNS:
        o->conns = (size_t)number(name, value, 1, CONNS_MAX);
        break;
    case OPT_DEPTH:
        o->depth = (size_t)number(name, value, 1, LOAD_DEPTH_MAX);
        break;
    case OPT_LIST:
        o->only_lists = true;
        break;
    case OPT_HOST:
        o->host = value;
        break;
    case OPT_SIZE:
        o->message_bytes =
            (size_t)number(name, value, LOAD_MESSAGE_BYTES_MIN, LOAD_MESSAGE_BYTES_MAX);
        break;
    case OPT_SECONDS:
        o->seconds = number(name, value, 0.01, 3600);
        break;
    case OPT_COUNT:
        o->answers = (uint64_t)number(name, value, 1, 1e15);
        break;
    case OPT_WARMUP:
        o->warmup_s = number(name, value, 0.01, 3600);
        break;
    case OPT_ROUNDS:
        o->rounds = (size_t)number(name, value, 1, ROUNDS_MAX);
        break;
    case OPT_QUICK:
        o->is_quick = true;
        break;
    case OPT_CPU:
        o->cpu = (long)number(name, value, 0, CPU_SETSIZE - 1);
        break;
    case OPT_POLL:
        o->is_spinning = strcmp(value, "spin") == 0;
        if (!o->is_spinning && strcmp(value, "epoll") != 0)
            die("--poll: epoll or spin", value);
        break;
    case OPT_PID:
        o->pid = (long)number(name, value, 1, 1e9);
        break;
    case OPT_JSON:
        o->json_path = value;
        break;
    case OPT_HELP:
        fputs(USAGE, stdout);
        exit(0);
    default:
        fputs(USAGE, stderr);
        exit(1);
    }
}

static void parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){ .host = "127.0.0.1",
                           .runtime = "unnamed",
                           .version = "unknown",
                           .driver = "unknown",
                           .warmup_s = 0.3,
                           .message_bytes = 64,
                           .workers = 1,
                           .cpu = -1 };
    int id;
    int index = 0;
    while ((id = getopt_long(argc, argv, "", LONG, &index)) != -1)
        take_option(o, id, id == '?' ? "" : LONG[index].name, optarg);
    if (optind != argc)
        die("unexpected argument", argv[optind]);
    if ((o->conns == 0) != (o->depth == 0))
        die("--conns and --depth go together", "");
    if (o->port == 0 && !o->only_lists)
        die("--port is missing", "");
    if (o->rounds == 0)
        o->rounds = o->is_quick ? 3 : 5;
    if (o->seconds == 0)
        o->seconds = o->is_quick ? 0.3 : 1;
}

static void bind_to(long cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("--cpu", strerror(errno));
}

/* A thousand connections need more descriptors than the usual soft limit leaves. */
static void raise_descriptor_limit(size_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("RLIMIT_NOFILE", strerror(errno));
    if (limit.rlim_cur >= wanted)
        return;
    if (limit.rlim_max < wanted)
        die("too few descriptors for so many connections", "raise the hard limit (ulimit -Hn)");
    limit.rlim_cur = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("RLIMIT_NOFILE", strerror(errno));
}

static void print_figure(const struct options *o, FILE *json, const char *scenario, size_t figure,
                         const struct load_summary *s)
{
    char name[96];
    (void)snprintf(name, sizeof name, "%s%s", scenario, FIGURE[figure].suffix);
    fprintf(json != NULL ? json : stdout,
            "{\"scenario\":\"%s\",\"runtime\":\"%s\",\"version\":\"%s\",\"workers\":%zu,"
            "\"driver\":\"%s\",\"unit\":\"%s\",\"median\":%.3f,\"mad\":%.3f,\"min\":%.3f,"
            "\"max\":%.3f,\"n\":%zu}\n",
            name, o->runtime, o->version, o->workers, o->driver, FIGURE[figure].unit, s->median,
            s->mad, s->min, s->max, o->rounds);
    if (json != NULL)
        printf("%-22s %12.2f %10.2f %12.2f %12.2f %4zu  %s\n", name, s->median, s->mad, s->min,
               s->max, o->rounds, FIGURE[figure].unit);
}

static void keep(double *samples, size_t rounds, size_t round, const struct load_span *span)
{
    const double figures[FIGURES] = { span->requests_per_s, span->p50_us, span->p99_us,
                                      span->p999_us, span->cpu_us_per_request };
    for (size_t i = 0; i < FIGURES; i++)
        samples[i * rounds + round] = figures[i];
}

static void run_scenario(const struct options *o, const struct scenario *scenario, FILE *json)
{
    struct load_plan plan = { .conns = scenario->conns,
                              .depth = scenario->depth,
                              .message_bytes = o->message_bytes,
                              .is_spinning = o->is_spinning,
                              .server_pid = (pid_t)o->pid };
    plan.server.sin_family = AF_INET;
    plan.server.sin_port = htons((uint16_t)o->port);
    if (inet_pton(AF_INET, o->host, &plan.server.sin_addr) != 1)
        die("--host: not an IPv4 address", o->host);
    double *samples = calloc((FIGURES + 1) * o->rounds, sizeof *samples);
    if (samples == NULL)
        die("out of memory", "");
    struct load_run *run;
    struct load_span span;
    fprintf(stderr, "echo_load: %s, %s ...\n", o->runtime, scenario->name);
    int rc = load_run_create(&plan, &run);
    if (rc != 0)
        die(scenario->name, strerror(-rc));
    rc = load_run_span(run, o->warmup_s, 0, &span);
    for (size_t round = 0; rc == 0 && round < o->rounds; round++) {
        rc = load_run_span(run, o->seconds, o->answers, &span);
        keep(samples, o->rounds, round, &span);
    }
    if (rc != 0)
        die(scenario->name, strerror(-rc));
    load_run_destroy(run);
    for (size_t i = 0; i < FIGURES - (o->pid == 0 ? 1 : 0); i++) {
        struct load_summary summary =
            load_summarise(samples + i * o->rounds, samples + FIGURES * o->rounds, o->rounds);
        print_figure(o, json, scenario->name, i, &summary);
    }
    free(samples);
}

static size_t choose(const struct options *o, struct scenario *chosen, char *own_name,
                     size_t own_name_bytes)
{
    if (o->conns != 0) {
        (void)snprintf(own_name, own_name_bytes, "tcp_echo_%zu_p%zu", o->conns, o->depth);
        chosen[0] = (struct scenario){ own_name, o->conns, o->depth };
        return 1;
    }
    regex_t filter;
    if (regcomp(&filter, o->filter != NULL ? o->filter : "", REG_EXTENDED | REG_NOSUB) != 0)
        die("--filter: not a regular expression", o->filter);
    size_t count = 0;
    for (size_t i = 0; i < SCENARIO_COUNT; i++) {
        if (regexec(&filter, SCENARIOS[i].name, 0, NULL, 0) == 0)
            chosen[count++] = SCENARIOS[i];
    }
    regfree(&filter);
    return count;
}

int main(int argc, char **argv)
{
    struct options o;
    struct scenario chosen[SCENARIO_COUNT];
    char own_name[64];
    parse(&o, argc, argv);
    size_t count = choose(&o, chosen, own_name, sizeof own_name);
    if (o.only_lists) {
        for (size_t i = 0; i < count; i++)
            puts(chosen[i].name);
        return 0;
    }
    if (o.cpu >= 0)
        bind_to(o.cpu);
    FILE *json = NULL;
    if (o.json_path != NULL) {
        json = fopen(o.json_path, "ae");
        if (json == NULL)
            die(o.json_path, strerror(errno));
        printf("%-22s %12s %10s %12s %12s %4s  unit\n", "scenario", "median", "MAD", "min", "max",
               "n");
    }
    for (size_t i = 0; i < count; i++) {
        raise_descriptor_limit(chosen[i].conns + 16);
        run_scenario(&o, &chosen[i], json);
    }
    if ((json != NULL && fclose(json) != 0) || fflush(stdout) != 0)
        die("writing the results", strerror(errno));
    return 0;
}
