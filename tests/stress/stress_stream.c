/* SPDX-License-Identifier: MIT */
/* Streams and batches under fire, on four workers with sixteen small receive buffers each: readers
 * take flows through streams with deadlines that end at random, hand their stream to another task,
 * are aborted in the middle and read on by plain calls; acceptors come and go; batches of chains
 * run beside them.  Every byte must come once and in order, every connection once.
 *
 * Weakened [MU1]: an item is missing or has a wrong length, or ThreadSanitizer reports the stream's
 * memory.  Weakened [MU2] or [MU3]: a flow hangs (the watchdog). */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { WORKERS = 4, FLOWS = 16, FLOW_BYTES = 30000, CHAIN = 5, CONNECTIONS = 12 };

static uint64_t end_ns;
static int scratch;
static _Atomic uint64_t flows, connections, chains, stops;

static void add(_Atomic uint64_t *count, uint64_t amount)
{
    /* relaxed: counts for the report */
    (void)atomic_fetch_add_explicit(count, amount, memory_order_relaxed);
}

static unsigned char byte_at(uint64_t place)
{
    return (unsigned char)(place * 2654435761u >> 11);
}

/* ---- flows -------------------------------------------------------------------------------- */

struct flow {
    int in, out;
    uint64_t taken; /* bytes that were taken, by whomever */
    struct nio_rng rng;
};

static int64_t send_flow(void *arg)
{
    struct flow *flow = arg;
    unsigned char buffer[700];
    for (uint64_t done = 0; done < FLOW_BYTES;) {
        size_t len = 1 + done * 31 % sizeof buffer;
        len = len < FLOW_BYTES - done ? len : FLOW_BYTES - done;
        for (size_t i = 0; i < len; i++)
            buffer[i] = byte_at(done + i);
        STRESS_CHECK(numio_send_all(flow->out, buffer, len, 0) == (int64_t)len);
        done += len;
    }
    return numio_shutdown(flow->out, SHUT_WR);
}

static void check_bytes(struct flow *flow, const unsigned char *data, int64_t len)
{
    for (int64_t i = 0; i < len; i++)
        STRESS_CHECK(data[i] == byte_at(flow->taken + (uint64_t)i));
    flow->taken += (uint64_t)len;
}

/* Takes some of the flow by a stream of its own.  Ends by itself, by a stop, or by an abort; all
 * that the stream got is taken.  True: the flow has ended. */
static int64_t take_some(void *arg)
{
    struct flow *flow = arg;
    struct numio_stream *stream;
    struct numio_chunk chunk;
    unsigned turns = nio_rng_below(&flow->rng, 40);
    bool has_ended = false, is_stopped = false;
    if (numio_recv_stream(flow->in, 0, &stream) != 0)
        return false; /* aborted before it began */
    while (!has_ended) {
        struct numio_deadline deadline;
        bool is_limited = nio_rng_below(&flow->rng, 3) == 0;
        if (is_limited)
            STRESS_CHECK(numio_deadline_push(&deadline, nio_rng_below(&flow->rng, 60000)) == 0);
        int64_t n = numio_stream_recv(stream, &chunk);
        if (is_limited)
            (void)numio_deadline_pop(&deadline); /* the result tells */
        if (n > 0) {
            check_bytes(flow, chunk.data, n);
            numio_chunk_release(&chunk);
        }
        has_ended = n == 0;
        if (n == -ECANCELED && is_stopped)
            break;
        STRESS_CHECK(n >= 0 || n == -ETIMEDOUT || n == -ECANCELED);
        if ((n == -ECANCELED || turns-- == 0) && !is_stopped) {
            STRESS_CHECK(numio_stream_stop(stream) == 0); /* the rest is still to be taken */
            is_stopped = true;
            add(&stops, 1);
        }
        stress_jitter(&flow->rng);
    }
    STRESS_CHECK(numio_stream_close(&stream) == 0);
    return has_ended;
}

static int64_t run_flow(void *arg)
{
    struct nio_rng rng;
    uint64_t seed = (uintptr_t)arg;
    nio_rng_init(&rng, &seed);
    while (nio_now_ns() < end_ns) {
        int ends[2];
        STRESS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        struct flow flow = { .in = ends[0], .out = ends[1] };
        nio_rng_init(&flow.rng, &seed);
        struct numio_join *sender, *taker;
        STRESS_CHECK(numio_spawn_co(NULL, send_flow, &flow, NULL, &sender) == 0);
        int64_t has_ended = 0;
        while (!has_ended) { /* one taker after the other, on any worker, some aborted */
            STRESS_CHECK(numio_spawn_co(NULL, take_some, &flow, NULL, &taker) == 0);
            if (nio_rng_below(&rng, 4) == 0) {
                STRESS_CHECK(numio_sleep_ns(nio_rng_below(&rng, 100000)) == 0);
                numio_join_abort(taker);
            }
            has_ended = numio_join_await(&taker);
            STRESS_CHECK(has_ended == 0 || has_ended == 1 || has_ended == -ECANCELED);
            has_ended = has_ended == 1;
        }
        STRESS_CHECK(flow.taken == FLOW_BYTES);
        STRESS_CHECK(numio_join_await(&sender) == 0);
        STRESS_CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
        add(&flows, 1);
    }
    return 0;
}

/* ---- connections -------------------------------------------------------------------------- */

static int64_t connect_all(void *arg)
{
    const struct sockaddr_in *address = arg;
    int fds[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        STRESS_CHECK(fds[i] >= 0);
        STRESS_CHECK(numio_connect(fds[i], (const struct sockaddr *)address, sizeof *address) == 0);
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        char byte;
        STRESS_CHECK(numio_recv(fds[i], &byte, 1, 0) == 0); /* each is accepted, and closed */
        STRESS_CHECK(numio_close(fds[i]) == 0);
    }
    return 0;
}

static int64_t accept_all(void *arg)
{
    struct nio_rng rng;
    uint64_t seed = (uintptr_t)arg;
    nio_rng_init(&rng, &seed);
    while (nio_now_ns() < end_ns) {
        struct sockaddr_in address;
        socklen_t bytes = sizeof address;
        struct numio_stream *stream;
        struct numio_join *join;
        int listener = numio_tcp_listen("127.0.0.1:0", CONNECTIONS);
        STRESS_CHECK(listener >= 0);
        STRESS_CHECK(getsockname(listener, (struct sockaddr *)&address, &bytes) == 0);
        STRESS_CHECK(numio_spawn_co(NULL, connect_all, &address, NULL, &join) == 0);
        for (int count = 0; count < CONNECTIONS;) {
            STRESS_CHECK(numio_accept_stream(listener, SOCK_CLOEXEC, &stream) == 0);
            unsigned turns = 1 + nio_rng_below(&rng, CONNECTIONS);
            int64_t fd = 0;
            while (fd >= 0 && count < CONNECTIONS) {
                if (turns-- == 0)
                    STRESS_CHECK(numio_stream_stop(stream) == 0);
                fd = numio_stream_next(stream);
                STRESS_CHECK(fd >= 0 || fd == -ECANCELED);
                if (fd >= 0)
                    STRESS_CHECK(numio_close((int)fd) == 0);
                count += fd >= 0;
            }
            STRESS_CHECK(numio_stream_close(&stream) == 0);
        }
        STRESS_CHECK(numio_join_await(&join) == 0);
        STRESS_CHECK(numio_close(listener) == 0);
        add(&connections, CONNECTIONS);
    }
    return 0;
}

/* ---- chains ------------------------------------------------------------------------------- */

static int64_t run_chains(void *arg)
{
    struct nio_rng rng;
    uint64_t seed = (uintptr_t)arg;
    nio_rng_init(&rng, &seed);
    while (nio_now_ns() < end_ns) {
        struct numio_op ops[CHAIN + 1];
        struct numio_deadline deadline;
        char byte;
        unsigned broken = nio_rng_below(&rng, CHAIN + 2);
        for (unsigned i = 0; i < CHAIN; i++) {
            if (i == broken)
                numio_op_write(&ops[i], -1, "x", 1, 0);
            else if (nio_rng_below(&rng, 2))
                numio_op_nop(&ops[i]);
            else
                numio_op_write(&ops[i], scratch, "x", 1, 0);
            if (i < CHAIN - 1)
                numio_op_link(&ops[i]);
        }
        numio_op_recv(&ops[CHAIN], scratch, &byte, 1, 0); /* beside it: no socket */
        STRESS_CHECK(numio_deadline_push(&deadline, nio_rng_below(&rng, 200000)) == 0);
        int64_t result = numio_batch_await(ops, CHAIN + 1);
        (void)numio_deadline_pop(&deadline); /* the results tell */
        STRESS_CHECK(result < 0);
        bool is_late = result == -ETIMEDOUT;
        for (unsigned i = 0; i < CHAIN && !is_late; i++) {
            int64_t rc = numio_op_result(&ops[i]);
            is_late = rc == -ETIMEDOUT;
            STRESS_CHECK(is_late || (i < broken    ? rc >= 0
                                     : i == broken ? rc == -EBADF
                                                   : rc == -ECANCELED));
        }
        memset(ops, 0xa5, sizeof ops);
        add(&chains, 1);
    }
    return 0;
}

int main(void)
{
    uint64_t seed;
    struct numio_runtime *runtime;
    struct numio_config config;
    struct numio_join *joins[FLOWS];
    char path[] = "/tmp/numio-stress-XXXXXX";
    end_ns = stress_start(&seed);
    STRESS_CHECK((scratch = mkstemp(path)) >= 0 && unlink(path) == 0);
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.workers = WORKERS;
    config.topology = "pack:2 core:2 pu:1"; /* also between nodes */
    config.recv_buffers = 16;
    config.recv_buffer_bytes = 128;
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    for (unsigned i = 0; i < FLOWS; i++) {
        int64_t (*fn)(void *arg) = i % 4 == 0 ? accept_all : i % 4 == 1 ? run_chains : run_flow;
        STRESS_CHECK(numio_spawn_co(numio_runtime_handle(runtime), fn,
                                    (void *)(uintptr_t)(seed + i), NULL, &joins[i]) == 0);
    }
    for (unsigned i = 0; i < FLOWS; i++)
        STRESS_CHECK(numio_join_wait(&joins[i], -1) == 0);
    numio_runtime_destroy(runtime);
    /* relaxed in all: the runtime has ended */
    uint64_t flow_count = atomic_load_explicit(&flows, memory_order_relaxed);
    printf("%llu flows, %llu connections, %llu chains, %llu stops\n",
           (unsigned long long)flow_count,
           /* relaxed: as above */
           (unsigned long long)atomic_load_explicit(&connections, memory_order_relaxed),
           /* relaxed: as above */
           (unsigned long long)atomic_load_explicit(&chains, memory_order_relaxed),
           /* relaxed: as above */
           (unsigned long long)atomic_load_explicit(&stops, memory_order_relaxed));
    STRESS_CHECK(flow_count > 0);
    return 0;
}
