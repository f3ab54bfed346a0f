/* SPDX-License-Identifier: MIT */
/* Waiting is level-triggered epoll.  With a few connections a spinning run asks the sockets
 * themselves, which saves the epoll_wait() before every recv().
 *
 * The server's CPU time is its process CPU clock, which the kernel sums over all its threads,
 * those that have ended and its io_uring threads included, in nanoseconds; /proc/PID/stat holds
 * the same sum rounded to ticks.
 */
#include "perf/load/load_run.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 256,
    ASK_DIRECTLY_MAX = 4,
    WAIT_MS = 100,
};

static const uint64_t SILENCE_NS = UINT64_C(5000000000);

struct load_run {
    struct load_plan plan;
    struct load_conn *conns;
    size_t opened;
    int epoll_fd;
    clockid_t server_clock;
    struct load_hist hist;
};

static int arm(const struct load_run *run, struct load_conn *conn, int how)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = conn };
    if (load_conn_is_blocked(conn))
        event.events |= EPOLLOUT;
    return epoll_ctl(run->epoll_fd, how, conn->fd, &event) == 0 ? 0 : -errno;
}

static int open_all(struct load_run *run)
{
    for (size_t i = 0; i < run->plan.conns; i++) {
        int rc = load_conn_init(&run->conns[i], &run->plan.server, (uint32_t)i, run->plan.depth,
                                run->plan.message_bytes);
        if (rc != 0)
            return rc;
        run->opened++;
        rc = arm(run, &run->conns[i], EPOLL_CTL_ADD);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Sends `count` messages and keeps epoll's view of the socket in step. */
static int send_and_arm(struct load_run *run, struct load_conn *conn, size_t count)
{
    bool was_blocked = load_conn_is_blocked(conn);
    int rc = count != 0 ? load_conn_send(conn, count) : load_conn_flush(conn);
    if (rc == 0 && was_blocked != load_conn_is_blocked(conn))
        rc = arm(run, conn, EPOLL_CTL_MOD);
    return rc;
}

static int start_all(struct load_run *run)
{
    for (size_t i = 0; i < run->opened; i++) {
        int rc = send_and_arm(run, &run->conns[i], run->plan.depth);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int load_run_create(const struct load_plan *plan, struct load_run **ret_run)
{
    struct load_run *run = calloc(1, sizeof *run);
    if (run == NULL)
        return -ENOMEM;
    run->plan = *plan;
    run->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int rc = run->epoll_fd < 0 ? -errno : 0;
    if (rc == 0 && plan->server_pid != 0)
        rc = -clock_getcpuclockid(plan->server_pid, &run->server_clock);
    if (rc == 0) {
        run->conns = calloc(plan->conns, sizeof *run->conns);
        rc = run->conns == NULL ? -ENOMEM : open_all(run);
    }
    if (rc == 0)
        rc = start_all(run);
    if (rc != 0) {
        load_run_destroy(run);
        return rc;
    }
    *ret_run = run;
    return 0;
}

void load_run_destroy(struct load_run *run)
{
    if (run == NULL)
        return;
    for (size_t i = 0; i < run->opened; i++)
        load_conn_fini(&run->conns[i]);
    if (run->epoll_fd >= 0)
        (void)close(run->epoll_fd); /* only ever read from */
    free(run->conns);
    free(run);
}

/* Takes what came on one connection and sends as many again.  Answers, or -errno. */
static int serve(struct load_run *run, struct load_conn *conn)
{
    int answers = load_conn_receive(conn, &run->hist);
    if (answers < 0 || (answers == 0 && !load_conn_is_blocked(conn)))
        return answers;
    int rc = send_and_arm(run, conn, (size_t)answers);
    return rc != 0 ? rc : answers;
}

static int turn_by_asking(struct load_run *run)
{
    int sum = 0;
    for (size_t i = 0; i < run->opened; i++) {
        int answers = serve(run, &run->conns[i]);
        if (answers < 0)
            return answers;
        sum += answers;
    }
    return sum;
}

static int turn_by_epoll(struct load_run *run)
{
    struct epoll_event events[EVENTS_MAX];
    int ready = epoll_wait(run->epoll_fd, events, EVENTS_MAX, run->plan.is_spinning ? 0 : WAIT_MS);
    if (ready < 0)
        return errno == EINTR ? 0 : -errno;
    int sum = 0;
    for (int i = 0; i < ready; i++) {
        int answers = serve(run, events[i].data.ptr);
        if (answers < 0)
            return answers;
        sum += answers;
    }
    return sum;
}

static int read_server_cpu(const struct load_run *run, uint64_t *ret_ns)
{
    struct timespec used = { 0 };
    if (run->plan.server_pid != 0 && clock_gettime(run->server_clock, &used) != 0)
        return errno == EINVAL ? -ESRCH : -errno; /* EINVAL: the process the clock named is gone */
    *ret_ns = (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
    return 0;
}

/* Turns until the span is over and had an answer, which on a busy machine may come later than its
 * end; *ret_end_ns is when its last answer was taken. */
static int turn_until(struct load_run *run, uint64_t deadline_ns, uint64_t answers,
                      uint64_t *ret_end_ns)
{
    bool asks = run->plan.is_spinning && run->opened <= ASK_DIRECTLY_MAX;
    uint64_t now_ns = load_now_ns();
    uint64_t heard_ns = now_ns;
    while ((now_ns < deadline_ns || run->hist.count == 0) &&
           (answers == 0 || run->hist.count < answers)) {
        int got = asks ? turn_by_asking(run) : turn_by_epoll(run);
        if (got < 0)
            return got;
        now_ns = load_now_ns();
        if (got > 0)
            heard_ns = now_ns;
        else if (now_ns - heard_ns > SILENCE_NS)
            return -ETIMEDOUT;
    }
    *ret_end_ns = now_ns;
    return 0;
}

int load_run_span(struct load_run *run, double seconds, uint64_t answers,
                  struct load_span *ret_span)
{
    uint64_t cpu_before_ns, cpu_after_ns, end_ns;
    load_hist_clear(&run->hist);
    int rc = read_server_cpu(run, &cpu_before_ns);
    if (rc != 0)
        return rc;
    uint64_t start_ns = load_now_ns();
    uint64_t deadline_ns = answers != 0 ? UINT64_MAX : start_ns + (uint64_t)(seconds * 1e9);
    rc = turn_until(run, deadline_ns, answers, &end_ns);
    if (rc == 0)
        rc = read_server_cpu(run, &cpu_after_ns);
    if (rc != 0)
        return rc;
    double count = (double)run->hist.count;
    *ret_span = (struct load_span){
        .requests_per_s = count * 1e9 / (double)(end_ns - start_ns),
        .p50_us = load_hist_quantile(&run->hist, 0.5) / 1e3,
        .p99_us = load_hist_quantile(&run->hist, 0.99) / 1e3,
        .p999_us = load_hist_quantile(&run->hist, 0.999) / 1e3,
        .cpu_us_per_request = (double)(cpu_after_ns - cpu_before_ns) / 1e3 / count,
    };
    return 0;
}
