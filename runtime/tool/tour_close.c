/* SPDX-License-Identifier: MIT */
/* Step "shutdown": with a thousand coroutines waiting in sleeps and in the kernel, the runtime is
 * told to end.  All of them must have got -ECANCELED, and no thread and no descriptor may be left.
 */
#include "runtime/tool/tour.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <numio/io.h>

enum { WAITERS = 1000, STRAGGLERS = 8 };

static const uint64_t ms_ns = 1000000;
static const uint64_t hour_ns = 3600000000000u;
static const int64_t shutdown_limit_ns = 10000000000;

/* Shared by all waiters. */
struct waiters {
    int fd; /* a socket on which nothing ever arrives */
    _Atomic unsigned begun, cancelled;
};

static int64_t count_result(struct waiters *waiters, int64_t result)
{
    /* relaxed: read when the shutdown, which joins the workers, has returned */
    if (result == -ECANCELED)
        atomic_fetch_add_explicit(&waiters->cancelled, 1, memory_order_relaxed);
    return result;
}

static void count_begun(struct waiters *waiters)
{
    /* relaxed: only tells the main thread when to go on */
    atomic_fetch_add_explicit(&waiters->begun, 1, memory_order_relaxed);
}

static int64_t wait_in_sleep(void *arg)
{
    count_begun(arg);
    return count_result(arg, numio_sleep_ns(hour_ns));
}

static int64_t wait_in_recv(void *arg)
{
    struct waiters *waiters = arg;
    char byte;
    count_begun(waiters);
    return count_result(waiters, numio_recv(waiters->fd, &byte, sizeof byte, 0));
}

/* Spawns the waiters and waits until each has begun; returns how many there are. */
static unsigned spawn_waiters(struct tour *tour, struct waiters *waiters)
{
    unsigned count = 0, begun = 0;
    uint64_t limit_ns = tour_now_ns() + 10000 * ms_ns;
    for (; count < WAITERS && !tour->is_interrupted; count++)
        if (tour_spawn(tour, count % tour->machine.status.nodes,
                       count % 2 == 0 ? wait_in_sleep : wait_in_recv, waiters, NULL) < 0)
            break;
    while (begun < count && tour_now_ns() < limit_ns && !tour_pause(tour, ms_ns)) {
        /* relaxed: as in count_begun() */
        begun = atomic_load_explicit(&waiters->begun, memory_order_relaxed);
    }
    if (begun < count && !tour->is_interrupted)
        tour_wrong(tour, "%u of %u coroutines never ran", count - begun, count);
    return begun;
}

static void report_stragglers(struct tour *tour, const struct numio_straggler *stragglers,
                              size_t count)
{
    tour_wrong(tour, "%zu tasks did not end", count);
    for (size_t i = 0; i < count && i < STRAGGLERS; i++)
        tour_wrong(tour, "task %llu, spawned at %s:%d, waits for %s",
                   (unsigned long long)stragglers[i].task.id, stragglers[i].task.file,
                   stragglers[i].task.line, stragglers[i].waits_for);
    tour->is_stuck = true;
}

/* Threads that end and descriptors that the kernel closes need a moment; two seconds is plenty. */
static int settled_count(const char *folder, int expected)
{
    int count = tour_count_entries(folder);
    for (unsigned i = 0; i < 200 && count > expected; i++) {
        (void)usleep(10000); /* a shorter pause does no harm */
        count = tour_count_entries(folder);
    }
    return count;
}

static void check_leftovers(struct tour *tour)
{
    int threads = settled_count("/proc/self/task", tour->threads_before);
    int fds = settled_count("/proc/self/fd", tour->fds_before);
    if (threads > tour->threads_before)
        tour_wrong(tour, "%d threads are left", threads - tour->threads_before);
    if (fds > tour->fds_before)
        tour_wrong(tour, "%d descriptors are left open", fds - tour->fds_before);
}

void tour_shutdown(struct tour *tour)
{
    struct numio_straggler stragglers[STRAGGLERS];
    struct waiters *waiters = tour_alloc(tour, sizeof *waiters);
    char count[TOOL_NUMBER_BYTES];
    int pair[2] = { -1, -1 };
    unsigned begun = 0, cancelled = 0;
    size_t left = 0;

    tour_begin(tour, "shutdown", NULL, 0);
    if (waiters && !tour->is_interrupted && !tour->is_stuck &&
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
        waiters->fd = pair[0];
        begun = spawn_waiters(tour, waiters);
    }
    int err =
        numio_runtime_shutdown(tour->runtime, shutdown_limit_ns, stragglers, STRAGGLERS, &left);
    if (err == -ETIMEDOUT)
        report_stragglers(tour, stragglers, left);
    else if (err < 0)
        tour_wrong(tour, "shutting down: %s", strerror(-err));
    if (waiters) /* relaxed: as in count_result() */
        cancelled = atomic_load_explicit(&waiters->cancelled, memory_order_relaxed);
    if (cancelled != begun)
        tour_wrong(tour, "%u of %u waiting coroutines did not get -ECANCELED", begun - cancelled,
                   begun);
    if (!tour->is_stuck) {
        numio_runtime_destroy(tour->runtime);
        tour->runtime = NULL;
    }
    for (unsigned i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
    tour_file_fini(tour);
    if (!tour->is_stuck)
        check_leftovers(tour);
    const char *left_text =
        tour->wrong_count > tour->step_wrong ? "not all is gone" : "no task, thread or fd left";
    if (begun > 0)
        tour_end(tour, "%s waiting tasks cancelled; %s", tool_count(count, cancelled), left_text);
    else
        tour_end(tour, "%s", left_text);
}
