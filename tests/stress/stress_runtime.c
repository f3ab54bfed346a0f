/* SPDX-License-Identifier: MIT */
/* Random spawns, aborts, joins, I/O, sleeps and blocking calls from several threads, on runtimes
 * that come and go, with queues of four slots.
 *
 * Every task counts itself in and out, so a lost wake shows as a join that times out, a lost task
 * as a count that does not add up, and a race as a sanitizer's report.  Labels whose weakening this
 * finds under ThreadSanitizer: [TS1] to [TS8], [LQ1], [HP1] to [HP6], [WK1], [OD1].
 *
 * NUMIO_TEST_SEED replays a run's choices; NUMIO_STRESS_MS sets its length (default 4000).
 * Exits with 0, or 1 with a line that says what went wrong. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <numio/numio.h>

#include "runtime/base/clock.h"
#include "runtime/base/compiler.h"
#include "runtime/base/rng.h"

enum { THREADS = 3, HELD_MAX = 32, ROUND_MS = 400, DEPTH_MAX = 3, BYTES = 300 };

static const int64_t patience_ns = 20000000000;

static _Atomic uint64_t begun;
static _Atomic uint64_t ended;
static _Atomic uint64_t failures;

static void count(_Atomic uint64_t *counter)
{
    /* relaxed: compared only after everything has been joined */
    (void)atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static uint64_t value(const _Atomic uint64_t *counter)
{
    /* relaxed: as above */
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void complain(int line, int64_t got)
{
    (void)fprintf(stderr, "stress_runtime: line %d got %lld (%s)\n", line, (long long)got,
                  numio_strerror_detail());
    count(&failures);
}

/* What is fine for anything in a task that may be aborted or that the runtime is closing on. */
static bool is_end(int64_t result)
{
    return result == -ECANCELED || result == -ESHUTDOWN;
}

#define EXPECT(result, condition)                                                                  \
    do {                                                                                           \
        int64_t got = (result);                                                                    \
        if (!is_end(got) && !(condition))                                                          \
            complain(__LINE__, got);                                                               \
    } while (0)

/* A job is a number and not memory: a coroutine that is aborted before it runs frees nothing. */
static int64_t run_job(void *arg);

static void *make_job(struct nio_rng *rng, unsigned depth)
{
    return (void *)(uintptr_t)((nio_rng_next(rng) & ~UINT64_C(3)) | depth);
}

/* The bare system call: ThreadSanitizer follows descriptors through libc's wrappers, and does not
 * see that a ring closes them. */
static bool make_pair(int fds[2])
{
    return syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0;
}

/* ---- what a task may do ------------------------------------------------------------------- */

static void use_sockets(struct nio_rng *rng)
{
    int fds[2];
    char out[BYTES];
    char in[BYTES];
    if (!make_pair(fds))
        return; /* too many tasks at once for the limit on descriptors */
    memset(out, (int)nio_rng_next(rng), sizeof out);
    int64_t sent = numio_send_all(fds[0], out, sizeof out, 0);
    EXPECT(sent, got == BYTES);
    if (sent == BYTES) {
        int64_t received = numio_recv_all(fds[1], in, sizeof in, 0);
        EXPECT(received, got == BYTES);
        if (received == BYTES && memcmp(in, out, BYTES) != 0)
            complain(__LINE__, received);
    }
    EXPECT(numio_close(fds[0]), got == 0);
    EXPECT(numio_close(fds[1]), got == 0);
}

/* Two tasks, one waits for what the other sends. */
static int64_t send_late(void *arg)
{
    int fd = (int)(intptr_t)arg;
    (void)numio_sleep_ns(20000); /* aborted or not, it sends */
    int64_t sent = numio_send(fd, "x", 1, MSG_NOSIGNAL);
    EXPECT(numio_close(fd), got == 0);
    return sent;
}

static void wait_for_a_friend(void)
{
    int fds[2];
    char byte;
    struct numio_join *join = NULL;
    if (!make_pair(fds))
        return;
    int rc = numio_spawn_co(NULL, send_late, (void *)(intptr_t)fds[1], NULL, &join);
    EXPECT(rc, got == 0);
    if (rc < 0) {
        EXPECT(numio_close(fds[1]), got == 0);
    } else {
        EXPECT(numio_recv(fds[0], &byte, 1, 0), got == 1 || got == 0);
        EXPECT(numio_join_await(&join), got == 1 || got == -EPIPE);
        numio_join_detach(&join);
    }
    EXPECT(numio_close(fds[0]), got == 0);
}

static int64_t give_back(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

static void random_options(struct nio_rng *rng, struct numio_spawn_opts *ret_opts)
{
    struct numio_status status;
    numio_spawn_opts_init(ret_opts, sizeof *ret_opts);
    ret_opts->affinity = (enum numio_affinity)nio_rng_below(rng, 3);
    if (numio_status(NULL, &status) < 0)
        return;
    if (ret_opts->affinity == NUMIO_AFFINITY_WORKER)
        ret_opts->worker = (int)nio_rng_below(rng, status.workers);
    else if (nio_rng_below(rng, 2))
        ret_opts->node = (int)nio_rng_below(rng, status.nodes);
}

/* A future that yields, waits for a timer, or both. */
struct timer_state {
    uint32_t yields;
    bool is_started;
    struct numio_op op;
};

static enum numio_poll wait_for_timer(void *state, struct numio_context *cx)
{
    struct timer_state *timer = state;
    int64_t result;
    if (timer->yields > 0) {
        timer->yields--;
        numio_context_yield(cx);
        return NUMIO_PENDING;
    }
    if (!timer->is_started) {
        timer->is_started = true;
        numio_op_timeout(&timer->op, 10000);
        if (numio_op_start(&timer->op, cx) < 0)
            return NUMIO_READY;
    }
    if (numio_op_poll(&timer->op, cx, &result) == NUMIO_PENDING)
        return NUMIO_PENDING;
    EXPECT(result, got == -ETIME);
    return NUMIO_READY;
}

static void drop_timer(void *state)
{
    (void)state;
    count(&ended);
}

static int spawn_timer(struct numio_handle *handle, struct nio_rng *rng,
                       const struct numio_spawn_opts *opts, struct numio_join **ret_join)
{
    struct timer_state state = { .yields = nio_rng_below(rng, 5) };
    struct numio_future future = {
        .poll = wait_for_timer, .drop = drop_timer, .state = &state, .size = sizeof state
    };
    int rc = numio_spawn(handle, &future, opts, ret_join);
    if (rc == 0)
        count(&begun);
    return rc;
}

static void have_a_child(struct nio_rng *rng, unsigned depth)
{
    struct numio_join *join = NULL;
    struct numio_spawn_opts opts;
    int rc;
    random_options(rng, &opts);
    if (nio_rng_below(rng, 2)) {
        rc = spawn_timer(NULL, rng, &opts, &join);
    } else {
        rc = numio_spawn_co(NULL, run_job, make_job(rng, depth + 1), &opts, &join);
    }
    EXPECT(rc, got == 0);
    if (rc < 0)
        return;
    if (nio_rng_below(rng, 3) == 0)
        numio_join_abort(join);
    if (nio_rng_below(rng, 4) > 0)
        EXPECT(numio_join_await(&join), got == 0);
    numio_join_detach(&join);
}

static int64_t run_job(void *arg)
{
    uint64_t seed = (uintptr_t)arg;
    unsigned depth = seed & 3u;
    struct nio_rng rng;
    count(&begun);
    nio_rng_init(&rng, &seed);
    for (unsigned i = 1 + nio_rng_below(&rng, 4); i > 0; i--) {
        switch (nio_rng_below(&rng, 6)) {
        case 0:
            EXPECT(numio_yield_now(), got == 0);
            break;
        case 1:
            EXPECT(numio_sleep_ns(nio_rng_below(&rng, 100000)), got == 0);
            break;
        case 2:
            use_sockets(&rng);
            break;
        case 3:
            wait_for_a_friend();
            break;
        case 4:
            EXPECT(numio_block_in_place(give_back, (void *)3), got == 3 || got == -EAGAIN);
            break;
        default:
            if (depth < DEPTH_MAX)
                have_a_child(&rng, depth);
        }
    }
    count(&ended);
    return 0;
}

/* ---- what a thread may do ----------------------------------------------------------------- */

struct user {
    pthread_t thread;
    struct numio_handle *handle;
    uint64_t seed;
    uint64_t end_ns;
    unsigned held_count;
    struct numio_join *held[HELD_MAX];
};

static void end_one(struct user *user, struct nio_rng *rng)
{
    unsigned index = nio_rng_below(rng, user->held_count);
    struct numio_join **join = &user->held[index];
    unsigned choice = nio_rng_below(rng, 4);
    if (choice == 0)
        numio_join_abort(*join);
    if (choice == 1) {
        numio_join_detach(join);
    } else {
        int64_t result = numio_join_wait(join, patience_ns);
        EXPECT(result, got == 0 || got == 3);
        numio_join_detach(join);
    }
    *join = user->held[--user->held_count];
}

static int spawn_one(struct user *user, struct nio_rng *rng)
{
    struct numio_join *join = NULL;
    struct numio_spawn_opts opts;
    int rc;
    random_options(rng, &opts);
    switch (nio_rng_below(rng, 3)) {
    case 0:
        rc = spawn_timer(user->handle, rng, &opts, &join);
        break;
    case 1:
        rc = numio_spawn_blocking(user->handle, give_back, (void *)3, NULL, &join);
        if (rc == -EAGAIN)
            return 0;
        break;
    default:
        rc = numio_spawn_co(user->handle, run_job, make_job(rng, 0), &opts, &join);
    }
    if (rc == 0)
        user->held[user->held_count++] = join;
    return rc;
}

static void *use_runtime(void *arg)
{
    struct user *user = arg;
    struct nio_rng rng;
    int rc = 0;
    nio_rng_init(&rng, &user->seed);
    struct numio_handle *before = numio_handle_enter(user->handle);
    while (rc == 0 && nio_now_ns() < user->end_ns) {
        if (user->held_count == HELD_MAX || (user->held_count > 0 && nio_rng_below(&rng, 3) == 0))
            end_one(user, &rng);
        else
            rc = spawn_one(user, &rng);
    }
    EXPECT(rc, got == 0);
    (void)numio_handle_enter(before); /* none */
    return NULL;
}

/* ---- runtimes that come and go ------------------------------------------------------------ */

static void configure(struct nio_rng *rng, struct numio_config *config)
{
    static const char *const topologies[] = { NULL, "pack:1 numa:1 core:3 pu:1",
                                              "pack:2 numa:1 core:2 pu:1" };
    config->topology = topologies[nio_rng_below(rng, NIO_ARRAY_LEN(topologies))];
    config->driver = (enum numio_driver)nio_rng_below(rng, 4);
    config->idle = nio_rng_below(rng, 2) ? NUMIO_IDLE_PARK : NUMIO_IDLE_BALANCED;
    config->ring_entries = 8u << nio_rng_below(rng, 4);
    config->blocking_threads = 1 + nio_rng_below(rng, 4);
    config->blocking_queue = 64;
    config->rng_seed = nio_rng_next(rng) | 1;
}

/* One runtime with THREADS users; in half of the rounds it is shut down under their hands. */
static void round_of(struct nio_rng *rng, uint64_t length_ns)
{
    struct numio_config config;
    struct numio_runtime *runtime;
    struct user users[THREADS];
    if (numio_config_init(&config, sizeof config) < 0)
        return complain(__LINE__, 0);
    configure(rng, &config);
    int rc = numio_runtime_create(&config, &runtime);
    if (rc < 0)
        return complain(__LINE__, rc);
    bool is_abrupt = nio_rng_below(rng, 2);
    uint64_t end_ns = nio_now_ns() + length_ns;
    struct numio_handle *handle = numio_handle_ref(numio_runtime_handle(runtime));
    for (unsigned i = 0; i < THREADS; i++) {
        users[i] = (struct user){ .handle = handle, .seed = nio_rng_next(rng), .end_ns = end_ns };
        if (pthread_create(&users[i].thread, NULL, use_runtime, &users[i]) != 0)
            abort();
    }
    if (is_abrupt) {
        struct timespec half = { 0, (long)(length_ns / 2) };
        (void)nanosleep(&half, NULL); /* any moment will do */
        rc = numio_runtime_shutdown(runtime, patience_ns, NULL, 0, NULL);
        if (rc < 0)
            complain(__LINE__, rc);
    }
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(users[i].thread, NULL); /* ours, joined once */
    rc = numio_runtime_shutdown(runtime, patience_ns, NULL, 0, NULL);
    if (rc < 0)
        abort(); /* tasks hang: a core shows where */
    if (numio_live_tasks(handle) != 0)
        complain(__LINE__, (int64_t)numio_live_tasks(handle));
    numio_runtime_destroy(runtime);
    for (unsigned i = 0; i < THREADS; i++) /* handles of a runtime that is gone */
        for (unsigned k = 0; k < users[i].held_count; k++)
            numio_join_detach(&users[i].held[k]);
    numio_handle_unref(handle);
}

int main(void)
{
    const char *seed_text = getenv("NUMIO_TEST_SEED");
    const char *length_text = getenv("NUMIO_STRESS_MS");
    uint64_t seed = seed_text ? strtoull(seed_text, NULL, 0) : nio_now_ns();
    uint64_t length_ns = (length_text ? strtoull(length_text, NULL, 0) : 4000) * 1000000;
    uint64_t end_ns = nio_now_ns() + length_ns;
    struct nio_rng rng;
    unsigned rounds = 0;
    (void)printf("stress_runtime: NUMIO_TEST_SEED=%llu\n", (unsigned long long)seed);
    (void)fflush(stdout); /* for whoever looks at a hang */
    nio_rng_init(&rng, &seed);
    while (nio_now_ns() < end_ns && value(&failures) == 0) {
        round_of(&rng, ROUND_MS * 1000000ull);
        rounds++;
    }
    if (value(&begun) != value(&ended)) {
        (void)fprintf(stderr, "stress_runtime: %llu tasks began, %llu ended\n",
                      (unsigned long long)value(&begun), (unsigned long long)value(&ended));
        count(&failures);
    }
    (void)printf("stress_runtime: %u runtimes, %llu tasks\n", rounds,
                 (unsigned long long)value(&ended));
    return value(&failures) > 0;
}
