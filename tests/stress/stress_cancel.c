/* SPDX-License-Identifier: MIT */
/* Single calls under deadlines that end at random and tasks that are aborted at random, on every
 * driver profile in turn: what a call says it has moved was moved, and nothing else.
 *
 * Bytes flow through pipes, Unix and TCP connections, by writes, sends, vectors, zero-copy sends
 * and chains of two sends; one task after the other takes each end and counts only what its calls
 * returned, so a byte that was moved by a call that says it was cancelled is out of its place, or
 * missing at the end.  Connections are made and accepted, files made and closed beside them: at the
 * end there are as many descriptors as before.
 *
 * NUMIO_STRESS_DRIVER names one profile, to replay a seed there alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <numio/batch.h>
#include <numio/numio.h>

#include "tests/stress/stress.h"

enum {
    WORKERS = 3,
    FLOWS = 6,
    PIECE = 3000,
    LIFE_MS = 150,
    DEADLINE_NS = 80000,
    ABORT_NS = 300000
};
enum { FDS_PATIENCE_MS = 5000 }; /* the kernel closes what a ring held a moment later */

enum kind { PIPE = 0, UNIX, TCP, KINDS };

/* One direction of bytes.  Each end has one task at a time. */
struct flow {
    enum kind kind;
    int in, out;
    uint64_t taken, given;
    _Atomic bool is_ended; /* nothing more is given */
    struct nio_rng rng[2]; /* of the giver, of the taker */
};

static const char *profile; /* for what a failure says */
static uint64_t end_ns;
static struct sockaddr_in address;
static int listener;
static char folder[] = "/tmp/numio-stress-XXXXXX";
static _Atomic uint64_t moved, cancelled, late, connections, files;

static void add(_Atomic uint64_t *count, uint64_t amount)
{
    /* relaxed: counts for the report */
    (void)atomic_fetch_add_explicit(count, amount, memory_order_relaxed);
}

static uint64_t value(const _Atomic uint64_t *count)
{
    /* relaxed: read when all is over */
    return atomic_load_explicit(count, memory_order_relaxed);
}

static unsigned char byte_at(uint64_t place)
{
    return (unsigned char)(place * 2654435761u >> 11);
}

/* What a call may say instead of success; true: its task was told to end. */
static bool is_stopped(int64_t result)
{
    if (result >= 0)
        return false;
    if (result != -ECANCELED && result != -ETIMEDOUT) {
        (void)fprintf(stderr, "%s: a call ended with %s\n", profile,
                      strerrorname_np((int)-result)); /* the check tells as well */
        STRESS_CHECK(!"another error than those of a stop");
    }
    add(result == -ECANCELED ? &cancelled : &late, 1);
    return result == -ECANCELED;
}

/* ---- flows -------------------------------------------------------------------------------- */

/* Two sends of which the second begins only when the first has sent everything. */
static int64_t send_chain(struct flow *flow, const unsigned char *data, unsigned len)
{
    struct numio_op ops[2];
    unsigned half = len / 2 + 1;
    int64_t sum = 0, error = 0;
    numio_op_send(&ops[0], flow->out, data, half, MSG_WAITALL);
    numio_op_link(&ops[0]);
    numio_op_send(&ops[1], flow->out, data + half, len + 1 - half, MSG_WAITALL);
    int64_t all = numio_batch_await(ops, 2);
    for (unsigned i = 0; i < 2; i++) {
        int64_t n = numio_op_result(&ops[i]);
        STRESS_CHECK(n <= 0 || error == 0); /* nothing behind what broke */
        sum += n > 0 ? n : 0;
        if (n < (i == 0 ? (int64_t)half : 0))
            error = n < 0 ? n : -ETIMEDOUT;
    }
    return sum > 0 ? sum : all;
}

static int64_t give(struct flow *flow, const unsigned char *data, unsigned len)
{
    unsigned half = len / 2;
    struct iovec parts[] = { { (void *)(uintptr_t)data, half },
                             { (void *)(uintptr_t)(data + half), len - half } };
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
    unsigned how = nio_rng_below(&flow->rng[0], 4);
    if (flow->kind == PIPE)
        return how < 2 ? numio_write(flow->out, data, len) : numio_writev(flow->out, parts, 2, -1);
    if (how == 0)
        return numio_sendmsg(flow->out, &message, 0);
    if (how == 1)
        return send_chain(flow, data, len - 1);
    if (how == 2 && flow->kind == TCP)
        return numio_send_zc(flow->out, data, len, 0);
    return numio_send(flow->out, data, len, 0);
}

static int64_t give_some(void *arg)
{
    struct flow *flow = arg;
    unsigned char data[PIECE];
    int64_t n = 0;
    while (nio_now_ns() < end_ns) {
        unsigned len = 2 + nio_rng_below(&flow->rng[0], PIECE - 2);
        for (unsigned i = 0; i < len; i++)
            data[i] = byte_at(flow->given + i);
        if (nio_rng_below(&flow->rng[0], 2))
            n = numio_within(nio_rng_below(&flow->rng[0], DEADLINE_NS), give(flow, data, len));
        else
            n = give(flow, data, len);
        if (n > 0)
            flow->given += (uint64_t)n;
        if (is_stopped(n))
            return 0;
    }
    return 1;
}

static int64_t take(struct flow *flow, unsigned char *data, unsigned len)
{
    unsigned half = len / 2;
    struct iovec parts[] = { { data, half }, { data + half, len - half } };
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
    unsigned how = nio_rng_below(&flow->rng[1], 3);
    if (flow->kind == PIPE)
        return how ? numio_read(flow->in, data, len) : numio_readv(flow->in, parts, 2, -1);
    if (how == 0)
        return numio_recvmsg(flow->in, &message, 0);
    return numio_recv(flow->in, data, len, how == 1 ? MSG_WAITALL : 0);
}

static int64_t take_some(void *arg)
{
    struct flow *flow = arg;
    unsigned char data[PIECE];
    for (;;) {
        int64_t n;
        unsigned len = 2 + nio_rng_below(&flow->rng[1], PIECE - 2);
        if (nio_rng_below(&flow->rng[1], 2))
            n = numio_within(nio_rng_below(&flow->rng[1], DEADLINE_NS), take(flow, data, len));
        else
            n = take(flow, data, len);
        for (int64_t i = 0; i < n; i++)
            STRESS_CHECK(data[i] == byte_at(flow->taken + (uint64_t)i));
        if (n > 0)
            flow->taken += (uint64_t)n;
        if (n == 0)
            return 1; /* the end */
        if (is_stopped(n))
            return 0;
    }
}

/* One task after the other, some of them aborted, until one says that all is done. */
static void relay(int64_t (*fn)(void *arg), void *arg, struct nio_rng *rng)
{
    int64_t result = 0;
    while (result != 1) {
        struct numio_join *join;
        STRESS_CHECK(numio_spawn_co(NULL, fn, arg, NULL, &join) == 0);
        while (join) {
            result = numio_within(nio_rng_below(rng, ABORT_NS), numio_join_await(&join));
            if (join)
                numio_join_abort(join); /* late: once more does no harm */
        }
        STRESS_CHECK(result == 0 || result == 1 || result == -ECANCELED);
    }
}

static int64_t give_all(void *arg)
{
    struct flow *flow = arg;
    struct nio_rng rng = flow->rng[0];
    relay(give_some, flow, &rng);
    return close(flow->out);
}

static int64_t take_all(void *arg)
{
    struct flow *flow = arg;
    struct nio_rng rng = flow->rng[1];
    relay(take_some, flow, &rng);
    return close(flow->in);
}

static void open_flow(struct flow *flow, enum kind kind)
{
    int ends[2];
    flow->kind = kind;
    if (kind == PIPE) {
        STRESS_CHECK(pipe2(ends, O_CLOEXEC) == 0);
    } else if (kind == UNIX) {
        STRESS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    } else {
        ends[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        STRESS_CHECK(connect(ends[1], (struct sockaddr *)&address, sizeof address) == 0);
        ends[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        STRESS_CHECK(ends[0] >= 0);
    }
    flow->in = ends[0];
    flow->out = ends[1];
}

/* ---- descriptors -------------------------------------------------------------------------- */

static int64_t accept_some(void *arg)
{
    struct nio_rng *rng = arg;
    while (nio_now_ns() < end_ns) {
        int64_t fd = numio_within(nio_rng_below(rng, DEADLINE_NS),
                                  numio_accept(listener, NULL, NULL, SOCK_CLOEXEC));
        if (fd >= 0) {
            add(&connections, 1);
            STRESS_CHECK(numio_close((int)fd) == 0);
        } else if (is_stopped(fd)) {
            return 0;
        }
    }
    return 1;
}

/* The sockets are closed as they are made, by plain calls: ThreadSanitizer knows of descriptors by
 * those alone, and would take one of the same number that the ring makes later for this one. */
static int64_t connect_some(void *arg)
{
    struct nio_rng *rng = arg;
    while (nio_now_ns() < end_ns) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        STRESS_CHECK(fd >= 0);
        int64_t rc = numio_within(nio_rng_below(rng, DEADLINE_NS * 2),
                                  numio_connect(fd, (struct sockaddr *)&address, sizeof address));
        STRESS_CHECK(close(fd) == 0);
        if (is_stopped(rc))
            return 0;
    }
    return 1;
}

static int64_t open_some(void *arg)
{
    struct nio_rng *rng = arg;
    char path[64];
    while (nio_now_ns() < end_ns) {
        (void)snprintf(path, sizeof path, "%s/%u", folder, nio_rng_below(rng, 3)); /* fits */
        int64_t fd = numio_within(nio_rng_below(rng, DEADLINE_NS),
                                  numio_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        if (fd >= 0) {
            add(&files, 1);
            STRESS_CHECK(numio_close((int)fd) == 0);
        } else if (is_stopped(fd)) {
            return 0;
        }
    }
    return 1;
}

struct turn {
    int64_t (*fn)(void *arg);
    struct nio_rng rng;
};

static int64_t take_turns(void *arg)
{
    struct turn *turn = arg;
    struct nio_rng rng = turn->rng;
    relay(turn->fn, &turn->rng, &rng);
    return 0;
}

/* ---- a life ------------------------------------------------------------------------------- */

static void listen_here(void)
{
    socklen_t bytes = sizeof address;
    address.sin_family = AF_INET;
    address.sin_port = 0;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    STRESS_CHECK(bind(listener, (struct sockaddr *)&address, bytes) == 0);
    STRESS_CHECK(listen(listener, 64) == 0);
    STRESS_CHECK(getsockname(listener, (struct sockaddr *)&address, &bytes) == 0);
}

static int64_t run_all(void *arg)
{
    static int64_t (*const turns[])(void *) = { accept_some, connect_some, open_some };
    enum { TURNS = sizeof turns / sizeof *turns };
    static struct flow flows[FLOWS];
    static struct turn others[TURNS];
    struct numio_join *joins[2 * FLOWS + TURNS];
    uint64_t *seed = arg;
    unsigned count = 0;
    memset(flows, 0, sizeof flows);
    for (unsigned i = 0; i < FLOWS; i++) {
        open_flow(&flows[i], (enum kind)(i % KINDS));
        nio_rng_init(&flows[i].rng[0], seed);
        nio_rng_init(&flows[i].rng[1], seed);
        STRESS_CHECK(numio_spawn_co(NULL, give_all, &flows[i], NULL, &joins[count++]) == 0);
        STRESS_CHECK(numio_spawn_co(NULL, take_all, &flows[i], NULL, &joins[count++]) == 0);
    }
    for (unsigned i = 0; i < TURNS; i++) {
        others[i].fn = turns[i];
        nio_rng_init(&others[i].rng, seed);
        STRESS_CHECK(numio_spawn_co(NULL, take_turns, &others[i], NULL, &joins[count++]) == 0);
    }
    while (count > 0)
        STRESS_CHECK(numio_join_await(&joins[--count]) == 0);
    for (unsigned i = 0; i < FLOWS; i++) {
        STRESS_CHECK(flows[i].taken == flows[i].given);
        add(&moved, flows[i].taken);
    }
    return 0;
}

static void live(enum numio_driver driver, uint64_t *seed)
{
    struct numio_runtime *runtime;
    struct numio_config config;
    unsigned before = stress_count_entries("/proc/self/fd");
    listen_here();
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.driver = driver;
    config.topology = "pack:1 numa:1 core:3 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    end_ns = nio_now_ns() + (uint64_t)LIFE_MS * 1000000;
    STRESS_CHECK(numio_block_on(numio_runtime_handle(runtime), run_all, seed) == 0);
    numio_runtime_destroy(runtime);
    STRESS_CHECK(close(listener) == 0);
    for (unsigned i = 0; stress_count_entries("/proc/self/fd") != before; i++) {
        STRESS_CHECK(i < FDS_PATIENCE_MS);
        (void)usleep(1000);
    }
}

static void clean_up(void)
{
    char path[64];
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/%u", folder, i); /* fits */
        (void)unlink(path);                                    /* if it is there */
    }
    STRESS_CHECK(rmdir(folder) == 0);
}

int main(void)
{
    static const enum numio_driver drivers[] = { NUMIO_DRIVER_AUTO, NUMIO_DRIVER_DEFER,
                                                 NUMIO_DRIVER_IOPOLL, NUMIO_DRIVER_EPOLL };
    static const char *const names[] = { "auto", "defer", "iopoll", "epoll" };
    const char *only = getenv("NUMIO_STRESS_DRIVER");
    uint64_t seed, stop_ns = stress_start(&seed);
    unsigned lives = 0;
    STRESS_CHECK(mkdtemp(folder) != NULL);
    do {
        for (unsigned i = 0; i < 4; i++) {
            profile = names[i];
            if (!only || strcmp(only, profile) == 0)
                live(drivers[i], &seed);
        }
        lives++;
    } while (nio_now_ns() < stop_ns);
    clean_up();
    printf("stress_cancel: %u lives on each profile, %llu bytes, %llu connections, %llu files, "
           "%llu calls cancelled, %llu late\n",
           lives, (unsigned long long)value(&moved), (unsigned long long)value(&connections),
           (unsigned long long)value(&files), (unsigned long long)value(&cancelled),
           (unsigned long long)value(&late));
    return value(&moved) == 0 || value(&cancelled) == 0 || value(&late) == 0;
}
