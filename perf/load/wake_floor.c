/* SPDX-License-Identifier: MIT */
/* wake_floor: what waking a sleeping thread on another CPU costs without any runtime: the floor of
 * `remote_wake`, `remote_wake_call` and `xthread_pingpong` in perf/SCENARIOS.md.
 *
 * Two threads, each bound to a CPU, and a futex word for each.  A word counts up; its thread
 * sleeps until it has moved.  The thread that calls is on the last allowed CPU, the one that is
 * woken on the first.
 * [WF1] a counter is stored with release before futex_wake(), so that what was written before it
 * (the time of waking) is seen by the thread that reads the counter with acquire, [WF2].
 */
#include "perf/load/load_conn.h"

#include <errno.h>
#include <getopt.h>
#include <linux/futex.h>
#include <pthread.h>
#include <regex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    QUIET_NS = 200000,
    TRIPS = 2000,
    WAKES = 1000,
    WAKES_QUICK = 200,
    ROUNDS_MAX = 10000,
};

static const char USAGE[] =
    "Usage: wake_floor [--list] [--filter RE] [--json FILE] [--workers N] [--rounds N] [--quick]\n";

struct bell {
    _Alignas(128) _Atomic(uint32_t) count;
};

struct pair {
    struct bell call;   /* moved by the caller, slept on by the callee */
    struct bell answer; /* moved by the callee */
    uint64_t heard_ns;  /* callee, before `answer` moves */
    uint32_t rings;     /* constant while the callee runs */
    bool wakes_back;    /* the caller sleeps on `answer`; else it spins */
    bool spins;         /* neither ever sleeps */
    int callee_cpu;
};

struct options {
    regex_t filter;
    const char *json_path;
    size_t rounds;
    bool is_quick, only_lists;
};

static void die(const char *what, int error)
{
    fprintf(stderr, "wake_floor: %s: %s\n", what, strerror(error));
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

static uint32_t bell_count(struct bell *bell)
{
    /* [WF2] acquire: pairs with [WF1]. */
    return atomic_load_explicit(&bell->count, memory_order_acquire);
}

static void bell_move(struct bell *bell, uint32_t count)
{
    /* [WF1] release: pairs with [WF2]. */
    atomic_store_explicit(&bell->count, count, memory_order_release);
}

static void bell_ring(struct bell *bell, uint32_t count)
{
    bell_move(bell, count);
    (void)syscall(SYS_futex, &bell->count, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* The kernel compares again before it sleeps, so a ring in between is not lost. */
static void bell_sleep(struct bell *bell, uint32_t count)
{
    uint32_t seen;
    while ((seen = bell_count(bell)) != count)
        (void)syscall(SYS_futex, &bell->count, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void bell_spin(struct bell *bell, uint32_t count)
{
    while (bell_count(bell) != count)
        continue;
}

static void *callee(void *argument)
{
    struct pair *pair = argument;
    bind_to(pair->callee_cpu);
    for (uint32_t ring = 1; ring <= pair->rings; ring++) {
        if (pair->spins) {
            bell_spin(&pair->call, ring);
            bell_move(&pair->answer, ring);
            continue;
        }
        bell_sleep(&pair->call, ring);
        pair->heard_ns = load_now_ns();
        if (pair->wakes_back)
            bell_ring(&pair->answer, ring);
        else
            bell_move(&pair->answer, ring);
    }
    return NULL;
}

static pthread_t start(struct pair *pair)
{
    pthread_t thread;
    int rc = pthread_create(&thread, NULL, callee, pair);
    if (rc != 0)
        die("pthread_create", rc);
    return thread;
}

/* One sample of both figures of remote_wake: ret[0] latency, ret[1] the call, p50 in ns. */
static void sample_wake(int callee_cpu, uint32_t wakes, double ret[2])
{
    static struct load_hist latency, call;
    struct pair pair = { .rings = wakes, .callee_cpu = callee_cpu };
    load_hist_clear(&latency);
    load_hist_clear(&call);
    pthread_t thread = start(&pair);
    for (uint32_t ring = 1; ring <= wakes; ring++) {
        uint64_t quiet_ns = load_now_ns() + QUIET_NS;
        while (load_now_ns() < quiet_ns)
            continue;
        uint64_t before_ns = load_now_ns();
        bell_ring(&pair.call, ring);
        uint64_t after_ns = load_now_ns();
        while (bell_count(&pair.answer) != ring)
            continue;
        load_hist_add(&latency, pair.heard_ns - before_ns);
        load_hist_add(&call, after_ns - before_ns);
    }
    (void)pthread_join(thread, NULL); /* it was created and nobody else joins it */
    ret[0] = load_hist_quantile(&latency, 0.5);
    ret[1] = load_hist_quantile(&call, 0.5);
}

/* ns per round trip, both sides sleeping or both spinning; the first trip finds the callee started.
 */
static double sample_pingpong(int callee_cpu, bool spins)
{
    struct pair pair = {
        .rings = TRIPS + 1, .wakes_back = !spins, .spins = spins, .callee_cpu = callee_cpu
    };
    pthread_t thread = start(&pair);
    uint64_t start_ns = 0;
    for (uint32_t trip = 1; trip <= TRIPS + 1; trip++) {
        if (spins) {
            bell_move(&pair.call, trip);
            bell_spin(&pair.answer, trip);
        } else {
            bell_ring(&pair.call, trip);
            bell_sleep(&pair.answer, trip);
        }
        if (trip == 1)
            start_ns = load_now_ns();
    }
    double ns = (double)(load_now_ns() - start_ns);
    (void)pthread_join(thread, NULL); /* as above */
    return ns / TRIPS;
}

static bool is_wanted(const struct options *o, const char *name)
{
    return regexec(&o->filter, name, 0, NULL, 0) == 0;
}

static void print(const struct options *o, FILE *json, const char *name, double *samples)
{
    double scratch[ROUNDS_MAX];
    if (!is_wanted(o, name))
        return;
    struct load_summary s = load_summarise(samples, scratch, o->rounds);
    fprintf(json != NULL ? json : stdout,
            "{\"scenario\":\"%s\",\"runtime\":\"floor\",\"version\":\"futex\",\"workers\":2,"
            "\"driver\":\"futex\",\"unit\":\"ns/op\",\"median\":%.3f,\"mad\":%.3f,\"min\":%.3f,"
            "\"max\":%.3f,\"n\":%zu}\n",
            name, s.median, s.mad, s.min, s.max, o->rounds);
    if (json != NULL)
        printf("%-20s %12.1f %10.1f %12.1f %12.1f %4zu  ns/op\n", name, s.median, s.mad, s.min,
               s.max, o->rounds);
}

static void measure(const struct options *o, FILE *json, int callee_cpu)
{
    static double latency[ROUNDS_MAX], call[ROUNDS_MAX], trip[ROUNDS_MAX];
    double both[2];
    uint32_t wakes = o->is_quick ? WAKES_QUICK : WAKES;
    if (is_wanted(o, "remote_wake") || is_wanted(o, "remote_wake_call")) {
        for (size_t i = 0; i < o->rounds; i++) {
            sample_wake(callee_cpu, wakes, both);
            latency[i] = both[0];
            call[i] = both[1];
        }
        print(o, json, "remote_wake", latency);
        print(o, json, "remote_wake_call", call);
    }
    for (int spins = 0; spins < 2; spins++) {
        const char *name = spins ? "xthread_pingpong_spin" : "xthread_pingpong";
        if (!is_wanted(o, name))
            continue;
        for (size_t i = 0; i < o->rounds; i++)
            trip[i] = sample_pingpong(callee_cpu, spins != 0);
        print(o, json, name, trip);
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
        else if (option != 'w') /* two threads, whatever is asked */
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
    int first = -1;
    int last = -1;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        die("sched_getaffinity", errno);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &set))
            continue;
        last = cpu;
        if (first < 0)
            first = cpu;
    }
    *ret_first = first;
    *ret_last = last;
    return first != last;
}

int main(int argc, char **argv)
{
    static const char *const NAMES[] = { "remote_wake", "remote_wake_call", "xthread_pingpong",
                                         "xthread_pingpong_spin" };
    struct options o = { .rounds = 0 };
    int first, last;
    parse(&o, argc, argv);
    if (o.only_lists) {
        for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
            if (is_wanted(&o, NAMES[i]))
                puts(NAMES[i]);
        }
        return 0;
    }
    if (!choose_cpus(&first, &last)) {
        fputs("wake_floor: skipped: needs two CPUs\n", stderr);
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
