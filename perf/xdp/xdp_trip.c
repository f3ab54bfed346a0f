/* SPDX-License-Identifier: MIT */
/* xdp_trip: how long a round trip by UDP over a pair of veth interfaces takes, with numio's AF_XDP
 * endpoints and with the kernel's sockets, in turns.  perf/SCENARIOS.md defines it. */
#include "perf/xdp/trip.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numio/base.h>

#include "perf/xdp/veth_pair.h"

enum {
    ROUNDS_MAX = 1000,
    TRIPS = 50000,
    TRIPS_QUICK = 2000,
    READY_MS = 10000,
    EXIT_SKIP = 77,
    TRIP_LIMIT_S = 60
};

static const char USAGE[] = "Usage: xdp_trip [--json FILE] [--rounds N] [--quick]\n";

static const char *const NAMES[TRIP_KINDS] = { "udp_trip_xdp_generic", "udp_trip_xdp_driver",
                                               "udp_trip_xdp_socket", "udp_trip_spin",
                                               "udp_trip_block" };

struct options {
    const char *json_path;
    unsigned rounds, trips;
};

/* What all rounds have shown of a kind, in us. */
struct figures {
    double p50[ROUNDS_MAX], p99[ROUNDS_MAX];
};

static bool is_numio(enum trip_kind kind)
{
    return kind <= TRIP_FALLBACK;
}

static void bind_to(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    (void)sched_setaffinity(0, sizeof set, &set); /* one of the CPUs that it has */
    (void)setpriority(PRIO_PROCESS, 0, -20);      /* helps on a machine that others use */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);       /* nothing spins on when this ends */
}

static pid_t start_server(const struct veth_pair *pair, const struct trip_side *side)
{
    pid_t pid = fork();
    if (pid == 0) {
        bind_to(side->cpu);
        if (!veth_enter(pair->far))
            _exit(1);
        _exit(is_numio(side->kind) ? trip_numio_serve(side) : trip_plain_serve(side));
    }
    return pid;
}

static pid_t start_client(const struct trip_side *side)
{
    pid_t pid = fork();
    if (pid == 0) {
        bind_to(side->cpu);
        (void)alarm(TRIP_LIMIT_S); /* a lost datagram is waited for no longer */
        _exit(is_numio(side->kind) ? trip_numio_ask(side) : trip_plain_ask(side));
    }
    return pid;
}

/* One round of one kind: both sides started and ended.  The client's times are in shared memory. */
static bool run_round(const struct veth_pair *pair, enum trip_kind kind, const int cpus[2],
                      unsigned trips, struct load_hist *hist)
{
    int ready[2], status = -1;
    if (pipe(ready) != 0)
        return false;
    struct trip_side server = { kind, cpus[1], trips, ready[1], NULL };
    struct trip_side client = { kind, cpus[0], trips, -1, hist };
    load_hist_clear(hist);
    pid_t server_pid = start_server(pair, &server);
    (void)close(ready[1]); /* the server has it: its end is noticed */
    struct pollfd up = { .fd = ready[0], .events = POLLIN };
    char byte;
    if (server_pid > 0 && poll(&up, 1, READY_MS) == 1 && read(ready[0], &byte, 1) == 1) {
        pid_t client_pid = start_client(&client);
        if (client_pid < 0 || waitpid(client_pid, &status, 0) != client_pid)
            status = -1;
    }
    if (server_pid > 0) {
        (void)kill(server_pid, SIGKILL);
        (void)waitpid(server_pid, NULL, 0); /* killed just before */
    }
    (void)close(ready[0]);
    return status == 0 && hist->count == trips;
}

static void print(FILE *json, const char *name, const char *end, double *samples, unsigned count)
{
    double scratch[ROUNDS_MAX];
    struct load_summary s = load_summarise(samples, scratch, count);
    fprintf(json ? json : stdout,
            "{\"scenario\":\"%s%s\",\"runtime\":\"%s\",\"version\":\"%s\",\"workers\":1,"
            "\"driver\":\"%s\",\"unit\":\"us\",\"median\":%.3f,\"mad\":%.3f,\"min\":%.3f,"
            "\"max\":%.3f,\"n\":%u}\n",
            name, end, strstr(name, "xdp") ? "numio" : "floor",
            strstr(name, "xdp") ? NUMIO_VERSION : "sockets", name + 9, s.median, s.mad, s.min,
            s.max, count);
    if (json)
        printf("%-24s%-5s %9.2f %8.2f %9.2f %9.2f %4u  us\n", name, end, s.median, s.mad, s.min,
               s.max, count);
}

/* Of the rounds' ratios to the spinning sockets of the same round: median and range. */
static void print_ratio(const struct figures *figures, const struct figures *floor,
                        const char *name, unsigned count)
{
    double ratios[ROUNDS_MAX], scratch[ROUNDS_MAX];
    for (unsigned i = 0; i < count; i++)
        ratios[i] = figures->p50[i] / floor->p50[i];
    struct load_summary s = load_summarise(ratios, scratch, count);
    fprintf(stderr, "%-24s p50 is %.2f of udp_trip_spin's, %.2f to %.2f\n", name, s.median, s.min,
            s.max);
}

static bool choose_cpus(int ret_cpus[2])
{
    cpu_set_t set;
    ret_cpus[0] = ret_cpus[1] = -1;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return false;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &set))
            continue;
        if (ret_cpus[0] < 0)
            ret_cpus[0] = cpu;
        ret_cpus[1] = cpu;
    }
    return ret_cpus[0] != ret_cpus[1];
}

static void parse(struct options *o, int argc, char **argv)
{
    static const struct option LONG[] = { { "json", required_argument, NULL, 'j' },
                                          { "rounds", required_argument, NULL, 'r' },
                                          { "quick", no_argument, NULL, 'q' },
                                          { NULL, 0, NULL, 0 } };
    unsigned long rounds = 0;
    char *end = NULL;
    int option;
    *o = (struct options){ .trips = TRIPS };
    while ((option = getopt_long(argc, argv, "", LONG, NULL)) != -1) {
        if (option == 'j')
            o->json_path = optarg;
        else if (option == 'r')
            rounds = strtoul(optarg, &end, 10);
        else if (option == 'q')
            o->trips = TRIPS_QUICK;
        else
            break;
    }
    if (option != -1 || optind != argc || rounds > ROUNDS_MAX ||
        (end && (*end != '\0' || rounds == 0))) {
        fputs(USAGE, stderr);
        exit(2);
    }
    o->rounds = rounds ? (unsigned)rounds : o->trips == TRIPS ? 7 : 2;
}

static bool measure(const struct options *o, const struct veth_pair *pair, const int cpus[2],
                    struct figures *figures)
{
    struct load_hist *hist =
        mmap(NULL, sizeof *hist, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (hist == MAP_FAILED)
        return false;
    for (unsigned round = 0; round < o->rounds; round++)
        for (unsigned kind = 0; kind < TRIP_KINDS; kind++) {
            if (!run_round(pair, (enum trip_kind)kind, cpus, o->trips, hist)) {
                fprintf(stderr, "xdp_trip: %s failed\n", NAMES[kind]);
                return false;
            }
            figures[kind].p50[round] = load_hist_quantile(hist, 0.5) / 1e3;
            figures[kind].p99[round] = load_hist_quantile(hist, 0.99) / 1e3;
        }
    return true;
}

int main(int argc, char **argv)
{
    static struct figures figures[TRIP_KINDS];
    struct options o;
    struct veth_pair pair;
    int cpus[2];
    parse(&o, argc, argv);
    if (!choose_cpus(cpus)) {
        fputs("xdp_trip: skipped: needs two CPUs\n", stderr);
        return EXIT_SKIP;
    }
    if (veth_open(&pair) < 0) {
        fprintf(stderr, "xdp_trip: skipped: %s\n", pair.problem);
        return EXIT_SKIP;
    }
    bool is_done = measure(&o, &pair, cpus, figures);
    veth_close(&pair);
    if (!is_done)
        return 1;
    FILE *json = o.json_path ? fopen(o.json_path, "ae") : NULL;
    if (o.json_path && !json) {
        fprintf(stderr, "xdp_trip: %s: %s\n", o.json_path, strerror(errno));
        return 1;
    }
    for (unsigned kind = 0; kind < TRIP_KINDS; kind++)
        print_ratio(&figures[kind], &figures[TRIP_UDP_SPIN], NAMES[kind], o.rounds);
    for (unsigned kind = 0; kind < TRIP_KINDS; kind++) {
        print(json, NAMES[kind], "_p50", figures[kind].p50, o.rounds);
        print(json, NAMES[kind], "_p99", figures[kind].p99, o.rounds);
    }
    return (json && fclose(json) != 0) || fflush(stdout) != 0;
}
