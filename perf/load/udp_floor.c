/* SPDX-License-Identifier: MIT */
/* udp_floor: the round trip of a datagram on loopback without any runtime: the floor of
 * `udp_echo_block` and `udp_echo_spin` in perf/SCENARIOS.md.
 *
 * The asker, the main thread, is on the last allowed CPU, the echo on the first.  Both block in
 * recv(), or both ask it again and again.  A datagram of another length than the messages ends the
 * echo.
 */
#include "perf/load/load_conn.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <regex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    WARM = 200,
    TRIPS = 10000,
    TRIPS_QUICK = 500,
    MESSAGE_BYTES = 64,
    ROUNDS_MAX = 10000,
    FIGURES = 2,
};

static const uint64_t SAMPLE_MAX_NS = UINT64_C(1000000000);

static const char USAGE[] =
    "Usage: udp_floor [--list] [--filter RE] [--json FILE] [--workers N] [--rounds N] [--quick]\n";

static const char *const SCENARIOS[] = { "udp_echo_block", "udp_echo_spin" };
static const char *const SUFFIXES[FIGURES] = { "_p50", "_p99" };

struct options {
    regex_t filter;
    const char *json_path;
    size_t rounds;
    bool is_quick, only_lists;
};

/* Constant while the echo runs. */
struct echo {
    int fd;
    int cpu;
    int flags; /* of its recv() */
};

static void die(const char *what, int error)
{
    fprintf(stderr, "udp_floor: %s: %s\n", what, strerror(error));
    exit(1);
}

static void bind_to(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("sched_setaffinity", errno);
}

static size_t receive(int fd, void *bytes, int flags, struct sockaddr_in *from)
{
    socklen_t from_bytes = sizeof *from;
    ssize_t got;
    do {
        got = recvfrom(fd, bytes, MESSAGE_BYTES, flags, (struct sockaddr *)from,
                       from != NULL ? &from_bytes : NULL);
    } while (got < 0 && (errno == EAGAIN || errno == EINTR));
    if (got < 0)
        die("recv", errno);
    return (size_t)got;
}

static void *run_echo(void *argument)
{
    const struct echo *echo = argument;
    char bytes[MESSAGE_BYTES];
    struct sockaddr_in from;
    bind_to(echo->cpu);
    while (receive(echo->fd, bytes, echo->flags, &from) == sizeof bytes) {
        if (sendto(echo->fd, bytes, sizeof bytes, 0, (const struct sockaddr *)&from, sizeof from) !=
            sizeof bytes)
            die("sendto", errno);
    }
    return NULL;
}

static uint64_t trip_ns(int fd, int flags, uint64_t number)
{
    uint64_t out[MESSAGE_BYTES / sizeof(uint64_t)] = { number };
    uint64_t in[MESSAGE_BYTES / sizeof(uint64_t)];
    uint64_t began_ns = load_now_ns();
    if (send(fd, out, sizeof out, 0) != sizeof out)
        die("send", errno);
    if (receive(fd, in, flags, NULL) != sizeof in || in[0] != number)
        die("a wrong answer", EBADMSG);
    return load_now_ns() - began_ns;
}

static int open_socket(struct sockaddr_in *ret_at)
{
    socklen_t bytes = sizeof *ret_at;
    *ret_at =
        (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)ret_at, sizeof *ret_at) != 0 ||
        getsockname(fd, (struct sockaddr *)ret_at, &bytes) != 0)
        die("socket", errno);
    return fd;
}

/* One sample: ret[0] p50, ret[1] p99, in us. */
static void sample(const struct options *o, bool spins, int echo_cpu, double ret[FIGURES])
{
    static struct load_hist hist;
    struct sockaddr_in at, own;
    pthread_t thread;
    struct echo echo = { open_socket(&at), echo_cpu, spins ? MSG_DONTWAIT : 0 };
    int fd = open_socket(&own);
    int rc = connect(fd, (const struct sockaddr *)&at, sizeof at) != 0
                 ? errno
                 : pthread_create(&thread, NULL, run_echo, &echo);
    if (rc != 0)
        die("starting the echo", rc);
    load_hist_clear(&hist);
    uint64_t number = 0;
    while (number < WARM)
        (void)trip_ns(fd, echo.flags, number++); /* not counted */
    uint64_t start_ns = load_now_ns();
    uint64_t last = WARM + (o->is_quick ? TRIPS_QUICK : TRIPS);
    while (number < last && load_now_ns() - start_ns < SAMPLE_MAX_NS)
        load_hist_add(&hist, trip_ns(fd, echo.flags, number++));
    ret[0] = load_hist_quantile(&hist, 0.5) / 1e3;
    ret[1] = load_hist_quantile(&hist, 0.99) / 1e3;
    if (send(fd, "", 0, 0) != 0)
        die("send", errno);
    (void)pthread_join(thread, NULL); /* it was created and nobody else joins it */
    (void)close(fd);                  /* nothing more to do with them */
    (void)close(echo.fd);
}

static bool is_wanted(const struct options *o, const char *scenario, size_t figure, char name[64])
{
    (void)snprintf(name, 64, "%s%s", scenario, SUFFIXES[figure]); /* fits */
    return regexec(&o->filter, name, 0, NULL, 0) == 0;
}

static void print(const struct options *o, FILE *json, const char *name, double *samples)
{
    static double scratch[ROUNDS_MAX];
    struct load_summary s = load_summarise(samples, scratch, o->rounds);
    fprintf(json != NULL ? json : stdout,
            "{\"scenario\":\"%s\",\"runtime\":\"floor\",\"version\":\"sockets\",\"workers\":1,"
            "\"driver\":\"sockets\",\"unit\":\"us\",\"median\":%.3f,\"mad\":%.3f,\"min\":%.3f,"
            "\"max\":%.3f,\"n\":%zu}\n",
            name, s.median, s.mad, s.min, s.max, o->rounds);
    if (json != NULL)
        printf("%-20s %12.2f %10.2f %12.2f %12.2f %4zu  us\n", name, s.median, s.mad, s.min, s.max,
               o->rounds);
}

static void measure(const struct options *o, FILE *json, int echo_cpu)
{
    static double samples[FIGURES][ROUNDS_MAX];
    char name[64];
    for (int spins = 0; spins < 2; spins++) {
        const char *scenario = SCENARIOS[spins];
        if (!is_wanted(o, scenario, 0, name) && !is_wanted(o, scenario, 1, name))
            continue;
        for (size_t i = 0; i < o->rounds; i++) {
            double both[FIGURES];
            sample(o, spins != 0, echo_cpu, both);
            samples[0][i] = both[0];
            samples[1][i] = both[1];
        }
        for (size_t figure = 0; figure < FIGURES; figure++) {
            if (is_wanted(o, scenario, figure, name))
                print(o, json, name, samples[figure]);
        }
    }
}

static void parse(struct options *o, int argc, char **argv)
{
    static const struct option LONG[] = {
        { "list", no_argument, NULL, 'l' },
        { "filter", required_argument, NULL, 'f' },
        { "json", required_argument, NULL, 'j' },
        { "workers", required_argument, NULL, 'w' },
        { "rounds", required_argument, NULL, 'r' },
        { "quick", no_argument, NULL, 'q' },
        { NULL, 0, NULL, 0 },
    };
    const char *filter = "";
    unsigned long rounds = 0;
    char *end = NULL;
    int option;
    while ((option = getopt_long(argc, argv, "", LONG, NULL)) != -1) {
        if (option == 'l')
            o->only_lists = true;
        else if (option == 'q')
            o->is_quick = true;
        else if (option == 'f')
            filter = optarg;
        else if (option == 'j')
            o->json_path = optarg;
        else if (option == 'r')
            rounds = strtoul(optarg, &end, 10);
        else if (option != 'w') /* one thread each side, whatever is asked */
            break;
    }
    bool is_bad = option != -1 || optind != argc || rounds > ROUNDS_MAX ||
                  (end != NULL && (*end != '\0' || rounds == 0));
    if (is_bad || regcomp(&o->filter, filter, REG_EXTENDED | REG_NOSUB) != 0) {
        fputs(USAGE, stderr);
        exit(1);
    }
    o->rounds = rounds != 0 ? rounds : o->is_quick ? 3 : 11;
}

/* The first and the last CPU that this process may use; false if it is the same one. */
static bool choose_cpus(int *ret_first, int *ret_last)
{
    cpu_set_t set;
    *ret_first = *ret_last = -1;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        die("sched_getaffinity", errno);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &set))
            continue;
        *ret_last = cpu;
        if (*ret_first < 0)
            *ret_first = cpu;
    }
    return *ret_first != *ret_last;
}

static void list(const struct options *o)
{
    char name[64];
    for (size_t i = 0; i < sizeof SCENARIOS / sizeof SCENARIOS[0]; i++) {
        for (size_t figure = 0; figure < FIGURES; figure++) {
            if (is_wanted(o, SCENARIOS[i], figure, name))
                puts(name);
        }
    }
}

int main(int argc, char **argv)
{
    struct options o = { .rounds = 0 };
    int first, last;
    parse(&o, argc, argv);
    if (o.only_lists) {
        list(&o);
        return 0;
    }
    if (!choose_cpus(&first, &last)) {
        fputs("udp_floor: skipped: needs two CPUs\n", stderr);
        return 0;
    }
    bind_to(last);
    FILE *json = NULL;
    if (o.json_path != NULL && (json = fopen(o.json_path, "ae")) == NULL)
        die(o.json_path, errno);
    measure(&o, json, first);
    regfree(&o.filter);
    if ((json != NULL && fclose(json) != 0) || fflush(stdout) != 0)
        die("writing the results", errno);
    return 0;
}
