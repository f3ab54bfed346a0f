/* SPDX-License-Identifier: MIT */
/* Steps "sleep" and "cancel". */
#include "runtime/tool/tour.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <numio/io.h>

enum { SLEEPERS = 1000, SLEEP_MS_MAX = 50, VICTIMS = 3 };

static const uint64_t ms_ns = 1000000;
static const uint64_t hour_ns = 3600000000000u;

struct sleeper {
    struct tour *tour;
    uint64_t delay_ns;
    int64_t late_ns; /* negative: woken too early */
};

static int64_t sleep_once(void *arg)
{
    struct sleeper *sleeper = arg;
    uint64_t start_ns = tour_now_ns();
    int64_t status = numio_sleep_ns(sleeper->delay_ns);
    sleeper->late_ns = (int64_t)(tour_now_ns() - start_ns - sleeper->delay_ns);
    tour_progress(sleeper->tour, 1);
    return status;
}

static int compare_lateness(const void *a, const void *b)
{
    const struct sleeper *left = a, *right = b;
    return (left->late_ns > right->late_ns) - (left->late_ns < right->late_ns);
}

static void check_sleepers(struct tour *tour, struct sleeper *sleepers, const int64_t *results)
{
    char early[TOOL_NUMBER_BYTES];
    for (unsigned i = 0; i < SLEEPERS; i++)
        if (results[i] < 0) {
            tour_wrong(tour, "a sleep returned %s", strerror((int)-results[i]));
            break;
        }
    qsort(sleepers, SLEEPERS, sizeof *sleepers, compare_lateness);
    if (sleepers[0].late_ns < 0)
        tour_wrong(tour, "a sleep of %llu ms ended %s early",
                   (unsigned long long)(sleepers[0].delay_ns / ms_ns),
                   tool_duration(early, (uint64_t)-sleepers[0].late_ns));
}

void tour_sleep(struct tour *tour)
{
    char count[TOOL_NUMBER_BYTES], p50[TOOL_NUMBER_BYTES], p99[TOOL_NUMBER_BYTES];
    tour_begin(tour, "sleep", "sleeps", SLEEPERS);
    struct sleeper *sleepers = tour_alloc(tour, SLEEPERS * sizeof *sleepers);
    struct numio_join **joins = tour_alloc(tour, SLEEPERS * sizeof *joins);
    int64_t *results = tour_alloc(tour, SLEEPERS * sizeof *results);
    if (!sleepers || !joins || !results) {
        tour_end(tour, "not run");
        return;
    }
    for (unsigned i = 0; i < SLEEPERS; i++) {
        sleepers[i].tour = tour;
        sleepers[i].delay_ns = (1 + i % SLEEP_MS_MAX) * ms_ns;
        if (tour_spawn(tour, i % tour->machine.status.nodes, sleep_once, &sleepers[i], &joins[i]) <
            0)
            break;
    }
    int err = tour_join(tour, joins, results, SLEEPERS);
    if (err < 0 || tour->wrong_count > tour->step_wrong) {
        tour_end(tour, err == -EINTR ? "interrupted" : "did not finish");
        return;
    }
    check_sleepers(tour, sleepers, results);
    tour_end(tour, "%s of 1-%d ms, %s early; p50 +%s, p99 +%s", tool_count(count, SLEEPERS),
             SLEEP_MS_MAX, tour->wrong_count > tour->step_wrong ? "some" : "none",
             tool_duration(p50, (uint64_t)llabs(sleepers[SLEEPERS / 2].late_ns)),
             tool_duration(p99, (uint64_t)llabs(sleepers[SLEEPERS * 99 / 100].late_ns)));
}

/* A coroutine that waits for something that will not happen. */
struct victim {
    const char *call;
    int64_t (*wait)(int fd);
    int fd; /* -1: needs none */
    _Atomic bool has_begun;
    int64_t result; /* of the call; read when the coroutine has been joined */
    uint64_t end_ns;
};

static int64_t wait_accept(int fd)
{
    return numio_accept(fd, NULL, NULL, SOCK_CLOEXEC);
}

static int64_t wait_recv(int fd)
{
    char byte;
    return numio_recv(fd, &byte, sizeof byte, 0);
}

static int64_t wait_sleep(int fd)
{
    (void)fd; /* a sleep has no descriptor */
    return numio_sleep_ns(hour_ns);
}

static int64_t run_victim(void *arg)
{
    struct victim *victim = arg;
    /* relaxed: a hint for when to abort; the outcome is the same at any time */
    atomic_store_explicit(&victim->has_begun, true, memory_order_relaxed);
    victim->result = victim->wait(victim->fd);
    victim->end_ns = tour_now_ns();
    return victim->result;
}

/* Waits until all have begun, and then long enough for their calls to reach the kernel. */
static bool await_victims(struct tour *tour, struct victim *victims)
{
    uint64_t limit_ns = tour_now_ns() + 5000 * ms_ns;
    for (unsigned i = 0; i < VICTIMS;) {
        /* relaxed: as in run_victim() */
        if (atomic_load_explicit(&victims[i].has_begun, memory_order_relaxed)) {
            i++;
            continue;
        }
        if (tour_now_ns() > limit_ns) {
            tour_wrong(tour, "a coroutine was spawned and never ran");
            return false;
        }
        if (tour_pause(tour, ms_ns))
            return false;
    }
    return !tour_pause(tour, 20 * ms_ns);
}

/* Aborts all and checks what their calls returned; returns the longest time it took. */
static uint64_t abort_victims(struct tour *tour, struct victim *victims, struct numio_join **joins)
{
    uint64_t slowest_ns = 0, start_ns = tour_now_ns();
    bool has_begun = await_victims(tour, victims);
    if (has_begun)
        start_ns = tour_now_ns();
    for (unsigned i = 0; i < VICTIMS; i++)
        if (joins[i])
            numio_join_abort(joins[i]);
    int err = tour_join(tour, joins, NULL, VICTIMS);
    for (unsigned i = 0; err == 0 && has_begun && i < VICTIMS; i++) {
        int64_t result = victims[i].result;
        if (result != -ECANCELED)
            tour_wrong(tour, "the %s returned %lld (%s) instead of -ECANCELED", victims[i].call,
                       (long long)result, result < 0 ? strerror((int)-result) : "no error");
        uint64_t took_ns = victims[i].end_ns - start_ns;
        slowest_ns = took_ns > slowest_ns ? took_ns : slowest_ns;
    }
    return slowest_ns;
}

void tour_cancel(struct tour *tour)
{
    static const struct {
        const char *call;
        int64_t (*wait)(int fd);
    } kinds[VICTIMS] = { { "accept", wait_accept },
                         { "recv", wait_recv },
                         { "sleep", wait_sleep } };
    char time[TOOL_NUMBER_BYTES];
    int pair[2] = { -1, -1 };

    tour_begin(tour, "cancel", NULL, 0);
    struct victim *victims = tour_alloc(tour, VICTIMS * sizeof *victims);
    struct numio_join **joins = tour_alloc(tour, VICTIMS * sizeof *joins);
    int listen_fd = numio_tcp_listen("127.0.0.1:0", 1);
    int err = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ? -errno : 0;
    if (victims && joins && listen_fd >= 0 && err == 0) {
        int fds[VICTIMS] = { listen_fd, pair[0], -1 };
        for (unsigned i = 0; i < VICTIMS; i++) {
            victims[i].call = kinds[i].call;
            victims[i].wait = kinds[i].wait;
            victims[i].fd = fds[i];
            (void)tour_spawn(tour, i % tour->machine.status.nodes, run_victim, /* noted */
                             &victims[i], &joins[i]);
        }
        uint64_t slowest_ns = abort_victims(tour, victims, joins);
        if (tour->is_interrupted)
            tour_end(tour, "interrupted");
        else
            tour_end(tour, "accept, recv, sleep in flight: %s-ECANCELED within %s",
                     tour->wrong_count > tour->step_wrong ? "not all " : "",
                     tool_duration(time, slowest_ns));
    } else {
        tour_wrong(tour, "no sockets: %s", strerror(listen_fd < 0 ? -listen_fd : -err));
        tour_end(tour, "not run");
    }
    for (unsigned i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
    if (listen_fd >= 0)
        close(listen_fd);
}
