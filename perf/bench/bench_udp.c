/* SPDX-License-Identifier: MIT */
/* The round trip of a datagram on loopback: two runtimes of one worker, each on a CPU of its own,
 * a coroutine on each.
 *
 * The asker writes `trip_us` and `done`; the main thread reads them after it has joined the asker.
 * The echo never ends by itself: the destruction of its runtime cancels it.
 */
#include "perf/bench/bench_udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <numio/io.h>
#include <numio/udp.h>

#include "perf/bench/bench_cpus.h"
#include "perf/bench/bench_scenarios.h"
#include "perf/bench/bench_stats.h"

enum { WARM = 200, TRIPS = 10000, TRIPS_QUICK = 500, MESSAGE_BYTES = 64 };

/* A sample ends with the first trip that ends later than this. */
static const uint64_t sample_max_ns = 1000000000;

struct sides {
    int asker_fd, echo_fd;
    unsigned trips;  /* of a sample, at most */
    uint64_t number; /* asker only, of the next datagram */
    unsigned done;   /* trips of this sample */
    double trip_us[TRIPS];
};

static int64_t echo(void *arg)
{
    struct sides *s = arg;
    struct numio_address from;
    char bytes[MESSAGE_BYTES];
    int64_t rc;
    do {
        rc = numio_udp_recv(s->echo_fd, bytes, sizeof bytes, &from);
        if (rc >= 0)
            rc = numio_udp_send(s->echo_fd, bytes, (size_t)rc, &from);
    } while (rc >= 0);
    if (rc != -ECANCELED)
        bench_fail_rc("the echo of datagrams", rc);
    return 0;
}

static uint64_t trip_ns(struct sides *s)
{
    uint64_t out[MESSAGE_BYTES / sizeof(uint64_t)] = { s->number++ };
    uint64_t in[MESSAGE_BYTES / sizeof(uint64_t)];
    uint64_t began_ns = bench_now_ns();
    bench_must(numio_send(s->asker_fd, out, sizeof out, 0), "numio_send");
    int64_t got = numio_recv(s->asker_fd, in, sizeof in, 0);
    bench_must(got, "numio_recv");
    if (got != sizeof in || in[0] != out[0])
        bench_fail("%s", "the answer is not to the datagram that was sent");
    return bench_now_ns() - began_ns;
}

static int64_t ask(void *arg)
{
    struct sides *s = arg;
    for (unsigned i = 0; i < WARM; i++)
        (void)trip_ns(s); /* not counted */
    s->done = 0;
    uint64_t start_ns = bench_now_ns();
    while (s->done < s->trips && bench_now_ns() - start_ns < sample_max_ns)
        s->trip_us[s->done++] = (double)trip_ns(s) / 1e3;
    return 0;
}

static void open_sockets(struct sides *s)
{
    struct numio_address at;
    s->echo_fd = numio_udp_bind("127.0.0.1:0");
    bench_must(s->echo_fd, "numio_udp_bind");
    s->asker_fd = numio_udp_bind("127.0.0.1:0");
    bench_must(s->asker_fd, "numio_udp_bind");
    bench_must(numio_udp_local(s->echo_fd, &at), "numio_udp_local");
    if (connect(s->asker_fd, (const struct sockaddr *)&at.storage, at.bytes))
        bench_fail("connect: %s", strerror(errno));
}

static void sample(struct bench *b, struct sides *s)
{
    unsigned rounds = b->options->rounds;
    double *p50 = bench_alloc(rounds, sizeof p50[0]);
    double *p99 = bench_alloc(rounds, sizeof p99[0]);
    for (unsigned round = 0; round < rounds; round++) {
        struct numio_join *join;
        bench_must(numio_spawn_co(b->handle, ask, s, NULL, &join), "spawn of the asker");
        bench_must(numio_join_wait(&join, -1), "join of the asker");
        p50[round] = bench_median(s->trip_us, s->done); /* sorts them */
        p99[round] = s->trip_us[(s->done * 99 + 99) / 100 - 1];
        bench_progress(b, round + 1, rounds);
    }
    bench_put(b, b->scenario->name, "us", p50, rounds);
    bench_put(b, b->scenario->also, "us", p99, rounds);
    free(p50);
    free(p99);
}

/* False: there are no two CPUs; the reason has been told. */
static bool choose_cpus(struct bench *b, char *ret_first, char *ret_last)
{
    cpu_set_t all, others, first, last;
    if (b->options->topology) {
        bench_skip(b, "a latency between real CPUs, and the topology is emulated");
        return false;
    }
    if (!bench_cpus_allowed(&all) ||
        (b->options->cpus && !bench_cpus_restrict(&all, b->options->cpus))) {
        bench_skip(b, "the CPUs cannot be told");
        return false;
    }
    if (CPU_COUNT(&all) < 2) {
        bench_skip(b, "needs a CPU for each side");
        return false;
    }
    bench_cpus_split_last(&all, &others, &last);
    do { /* until the first is left; as many turns as CPUs */
        first = others;
        bench_cpus_split_last(&first, &others, &first);
    } while (CPU_COUNT(&others) > 0);
    return bench_cpus_format(&first, ret_first) && bench_cpus_format(&last, ret_last);
}

void bench_udp_echo(struct bench *b)
{
    const struct bench_udp_shape *shape = b->scenario->arg;
    char first[BENCH_CPU_LIST_BYTES], last[BENCH_CPU_LIST_BYTES];
    struct numio_config config;
    struct numio_runtime *echoing;
    if (!choose_cpus(b, first, last))
        return;
    bench_options_config(b->options, &config);
    config.workers = 1;
    config.idle = shape->idle;
    config.cpus = last;
    if (!bench_start_with(b, &config))
        return;
    config.cpus = first;
    bench_must(numio_runtime_create(&config, &echoing), "numio_runtime_create");
    struct sides *s = bench_alloc(1, sizeof *s);
    s->trips = b->options->is_quick ? TRIPS_QUICK : TRIPS;
    open_sockets(s);
    bench_must(numio_spawn_co(numio_runtime_handle(echoing), echo, s, NULL, NULL),
               "spawn of the echo");
    sample(b, s);
    numio_runtime_destroy(echoing);
    bench_stop(b);
    (void)close(s->asker_fd); /* nothing more to do with them */
    (void)close(s->echo_fd);
    free(s);
}
