/* SPDX-License-Identifier: MIT */
/* TCP connections by name.
 *
 * The attempts are O_NONBLOCK sockets in an epoll set, and one poll of that set waits for all of
 * them in the calling coroutine, for as long as the delay before the next attempt: no task is
 * needed. */
#include <numio/tcp.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <numio/deadline.h>
#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"

enum { ATTEMPTS_MAX = 16, ATTEMPT_DELAY_NS = 250000000 /* RFC 8305, section 5 */ };

void numio_tcp_opts_init(struct numio_tcp_opts *opts, size_t size)
{
    memset(opts, 0, size);
    opts->size = size;
}

/* ---- options ------------------------------------------------------------------------------ */

static int set(int fd, int level, int option, int value, const char *name)
{
    if (setsockopt(fd, level, option, &value, sizeof value) == 0)
        return 0;
    return nio_error(-errno, "tcp: %s = %d: %s", name, value, strerror(errno));
}

static int set_keep_alive(int fd, const struct numio_tcp_opts *opts)
{
    int rc = set(fd, SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE");
    if (rc == 0)
        rc = set(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)opts->keep_idle_s, "TCP_KEEPIDLE");
    if (rc == 0 && opts->keep_interval_s)
        rc = set(fd, IPPROTO_TCP, TCP_KEEPINTVL, (int)opts->keep_interval_s, "TCP_KEEPINTVL");
    if (rc == 0 && opts->keep_count)
        rc = set(fd, IPPROTO_TCP, TCP_KEEPCNT, (int)opts->keep_count, "TCP_KEEPCNT");
    return rc;
}

int numio_tcp_set(int fd, const struct numio_tcp_opts *opts)
{
    int rc = set(fd, IPPROTO_TCP, TCP_NODELAY, !opts->is_lazy, "TCP_NODELAY");
    if (rc == 0 && opts->keep_idle_s)
        rc = set_keep_alive(fd, opts);
    if (rc == 0 && opts->user_timeout_ms)
        rc = set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)opts->user_timeout_ms, "TCP_USER_TIMEOUT");
    if (rc == 0 && opts->send_buffer_bytes)
        rc = set(fd, SOL_SOCKET, SO_SNDBUF, opts->send_buffer_bytes, "SO_SNDBUF");
    if (rc == 0 && opts->recv_buffer_bytes)
        rc = set(fd, SOL_SOCKET, SO_RCVBUF, opts->recv_buffer_bytes, "SO_RCVBUF");
    return rc < 0 ? rc : numio_busy_poll_set(fd, &opts->busy_poll);
}

/* ---- attempts ----------------------------------------------------------------------------- */

struct dial {
    const struct numio_tcp_opts *opts;
    const struct numio_address *order[ATTEMPTS_MAX];
    int fds[ATTEMPTS_MAX]; /* -1: not begun, or failed */
    unsigned count, next, pending;
    int epoll_fd;
    int error; /* of the last that failed */
};

/* The families by turns, beginning with that of the first address. */
static void put_in_order(struct dial *dial, const struct numio_address *addresses, unsigned count)
{
    unsigned of_first = 0, of_other = 0;
    sa_family_t family = addresses[0].storage.ss_family;
    while (dial->count < ATTEMPTS_MAX && (of_first < count || of_other < count)) {
        bool wants_first = dial->count % 2 == 0 || of_other == count;
        unsigned *at = wants_first && of_first < count ? &of_first : &of_other;
        bool is_first = at == &of_first;
        while (*at < count && (addresses[*at].storage.ss_family == family) != is_first)
            ++*at;
        if (*at < count)
            dial->order[dial->count++] = &addresses[(*at)++];
    }
}

static void fail(struct dial *dial, unsigned index, int error)
{
    dial->error = error;
    (void)close(dial->fds[index]); /* leaves the epoll set by that */
    dial->fds[index] = -1;
}

/* Begins an attempt.  Returns whether it is connected already. */
static bool begin(struct dial *dial)
{
    unsigned index = dial->next++;
    const struct numio_address *to = dial->order[index];
    struct epoll_event event = { .events = EPOLLOUT, .data.u32 = index };
    int fd = socket(to->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    dial->fds[index] = fd;
    if (fd < 0) {
        dial->error = -errno;
        return false;
    }
    int rc = numio_tcp_set(fd, dial->opts);
    const struct numio_address *local = dial->opts->local;
    if (rc == 0 && local && local->storage.ss_family == to->storage.ss_family &&
        bind(fd, (const struct sockaddr *)&local->storage, local->bytes) != 0)
        rc = -errno;
    if (rc == 0 && connect(fd, (const struct sockaddr *)&to->storage, to->bytes) == 0)
        return true;
    if (rc == 0 && errno == EINPROGRESS) {
        if (epoll_ctl(dial->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0) {
            dial->pending++;
            return false;
        }
    }
    fail(dial, index, rc < 0 ? rc : -errno);
    return false;
}

/* Looks at the attempts that have ended.  Returns the one that is connected, -1: none yet. */
static int look(struct dial *dial)
{
    struct epoll_event events[ATTEMPTS_MAX];
    int count = epoll_wait(dial->epoll_fd, events, ATTEMPTS_MAX, 0);
    for (int i = 0; i < count; i++) {
        unsigned index = events[i].data.u32;
        int error = 0;
        socklen_t bytes = sizeof error;
        if (getsockopt(dial->fds[index], SOL_SOCKET, SO_ERROR, &error, &bytes) != 0)
            error = errno;
        dial->pending--;
        if (error == 0)
            return (int)index;
        fail(dial, index, -error);
    }
    return -1;
}

/* Waits until some attempt has ended, or it is time for the next.   Errors: those of the wait. */
static int64_t wait_a_while(struct dial *dial)
{
    struct numio_deadline delay;
    bool has_next = dial->next < dial->count;
    if (has_next && numio_deadline_push(&delay, ATTEMPT_DELAY_NS) < 0)
        return -EINVAL;
    int64_t rc = numio_poll_fd(dial->epoll_fd, POLLIN);
    if (has_next)
        (void)numio_deadline_end(&delay);
    bool is_delay = rc == -ETIMEDOUT && has_next && numio_deadline_left() > 0;
    return rc < 0 && !is_delay ? rc : 0;
}

/* Returns the index of the attempt that has won. */
static int64_t race(struct dial *dial)
{
    for (;;) { /* bounded by the attempts and their time-outs */
        bool is_time = true;
        while (is_time && dial->next < dial->count) {
            if (begin(dial))
                return dial->next - 1;
            is_time = dial->fds[dial->next - 1] < 0; /* it failed at once */
        }
        if (dial->pending == 0)
            return dial->error;
        int64_t rc = wait_a_while(dial);
        if (rc < 0)
            return rc;
        int winner = look(dial);
        if (winner >= 0)
            return winner;
    }
}

int64_t numio_tcp_connect_any(const struct numio_address *addresses, unsigned count,
                              const struct numio_tcp_opts *opts)
{
    struct numio_tcp_opts defaults;
    struct dial dial = { .opts = opts, .epoll_fd = -1, .error = -EINVAL };
    if (!nio_co_current())
        return nio_error(-EINVAL, "connect: not called from a coroutine");
    if (count == 0)
        return nio_error(-EINVAL, "connect: there are no addresses");
    if (!opts) {
        numio_tcp_opts_init(&defaults, sizeof defaults);
        dial.opts = &defaults;
    }
    memset(dial.fds, 0xff, sizeof dial.fds);
    put_in_order(&dial, addresses, count);
    dial.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (dial.epoll_fd < 0)
        return nio_error(-errno, "connect: epoll_create1: %s", strerror(errno));
    int64_t winner = race(&dial), result = winner;
    if (winner >= 0) {
        result = dial.fds[winner];
        dial.fds[winner] = -1;
        (void)epoll_ctl(dial.epoll_fd, EPOLL_CTL_DEL, (int)result, NULL); /* it may not be there */
        (void)fcntl((int)result, F_SETFL, 0); /* as others are made: without O_NONBLOCK */
    }
    for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
        if (dial.fds[i] >= 0)
            (void)close(dial.fds[i]); /* it came too late */
    (void)close(dial.epoll_fd);       /* nothing to lose */
    return result;
}

int64_t numio_tcp_dial(const char *host, const char *service, const struct numio_tcp_opts *opts)
{
    struct numio_address addresses[ATTEMPTS_MAX];
    int64_t count = numio_resolve(host, service, addresses, ATTEMPTS_MAX);
    return count < 0 ? count : numio_tcp_connect_any(addresses, (unsigned)count, opts);
}
