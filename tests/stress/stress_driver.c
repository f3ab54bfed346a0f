/* SPDX-License-Identifier: MIT */
/* stress_driver: no unpark and no completion is ever lost.
 *
 * Three games for each profile, each of which hangs on a lost wake, which a watchdog turns into a
 * failure.
 *   ask     one thread sends a message and an unpark and waits for the answer; the owner parks
 *           without a limit whenever there is no message, with and without operations in flight.
 *           Hangs when the owner announces its sleep with a plain store instead of [DW1].
 *   feed    the owner submits more reads than there are credits and parks; a sibling takes all
 *           completions and tells nobody.  Hangs when the sibling does not look at `starved` [DU7]
 *           or the owner does not set it before its last look [DU6].  Ring profiles only.
 *   mix     messages, reads, cancels and timeouts at once, a sibling that reaps; the sums tell of
 *           lost and doubled completions.
 * Few entries, so that operations wait for credits.
 * Exit status: 0 passed, 1 failed, 77 there is no io_uring (the epoll profile has passed).
 */
#include <sched.h>
#include <unistd.h>

#include "runtime/base/rng.h"
#include "tests/driver_harness.h"
#include "tests/driver_wake.h"

enum {
    READS = 160,
    MESSAGES = 10000,
    QUESTIONS = 20000,
    FEEDS = 1000,
    SECONDS_MAX = 100,
    LOOKS_MAX = 2000
};

struct stress {
    struct nio_driver *driver;
    int pipes[2];
    _Atomic uint64_t sent;     /* by the producer, before its unpark */
    _Atomic uint64_t answered; /* by the owner */
    _Atomic bool is_over;      /* by the owner, for the sibling */
    uint64_t received;         /* owner */
    uint64_t read_count;       /* owner */
    uint64_t cancelled, timed_out;
    unsigned char in[READS];
    struct numio_op reads[READS];
    struct numio_op timeout;
    struct nio_rng rng;
};

/* Until the owner sleeps; not without a limit, for it may have ended. */
static void let_owner_sleep(const struct stress *stress)
{
    for (unsigned i = 0; i < LOOKS_MAX; i++) {
        /* relaxed: any value may be stale by the time of the next message */
        uint32_t wake = atomic_load_explicit(&stress->driver->wake, memory_order_relaxed);
        if (wake == NIO_DRIVER_ASLEEP_FUTEX || wake == NIO_DRIVER_ASLEEP_KERNEL)
            return;
        (void)sched_yield(); /* cannot fail */
    }
}

static void *produce(void *arg)
{
    struct stress *stress = arg;
    uint64_t seed = 1;
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    for (unsigned i = 0; i < MESSAGES; i++) {
        if (write(stress->pipes[1], "x", 1) != 1)
            abort();
        /* relaxed: it is the unpark that must publish it */
        (void)atomic_fetch_add_explicit(&stress->sent, 1, memory_order_relaxed);
        nio_driver_unpark(stress->driver);
        unsigned pause = nio_rng_below(&rng, 64);
        if (pause == 0)
            let_owner_sleep(stress);
        else if (pause < 8)
            (void)sched_yield();
    }
    return NULL;
}

static void *reap_behind(void *arg)
{
    struct stress *stress = arg;
    /* relaxed: only ends the loop */
    while (!atomic_load_explicit(&stress->is_over, memory_order_relaxed)) {
        if (nio_driver_reap_for(stress->driver, 8) > 0)
            nio_driver_unpark(stress->driver);
        else
            (void)usleep(20); /* a pace: one that only yields finds nothing under defer */
    }
    return NULL;
}

static _Noreturn void fail_at(int32_t result)
{
    (void)printf("a read ended with %d\n", result);
    abort();
}

static void submit_read(struct stress *stress, unsigned i)
{
    numio_op_read(&stress->reads[i], stress->pipes[0], &stress->in[i], 1, -1);
    harness_submit(stress->driver, &stress->reads[i]);
}

/* Looks at every operation, starts ended ones again. */
static void look_at_operations(struct stress *stress)
{
    for (unsigned i = 0; i < READS; i++) {
        struct numio_op *op = &stress->reads[i];
        if (!nio_op_is_done(op))
            continue;
        if (op->_result == 1)
            stress->read_count++;
        else if (op->_result == -ECANCELED || op->_result == -EINTR) /* io-wq had it */
            stress->cancelled++;
        else
            fail_at(op->_result);
        submit_read(stress, i);
    }
    if (nio_op_is_done(&stress->timeout)) {
        stress->timed_out++;
        numio_op_timeout(&stress->timeout, nio_rng_below(&stress->rng, 3000000));
        harness_submit(stress->driver, &stress->timeout);
    }
    if (nio_rng_below(&stress->rng, 16) == 0)
        nio_driver_cancel(stress->driver, &stress->reads[nio_rng_below(&stress->rng, READS)]);
}

static bool is_everything_received(struct stress *stress)
{
    /* relaxed: what the last unpark published is seen after the park that it ended */
    stress->received = atomic_load_explicit(&stress->sent, memory_order_relaxed);
    return stress->received == MESSAGES && stress->read_count == MESSAGES;
}

static void own(struct stress *stress)
{
    for (unsigned i = 0; i < READS; i++)
        submit_read(stress, i);
    numio_op_timeout(&stress->timeout, 1000000);
    harness_submit(stress->driver, &stress->timeout);
    while (!is_everything_received(stress)) {
        nio_driver_park(stress->driver, -1);
        (void)nio_driver_reap(stress->driver, 64);
        look_at_operations(stress);
    }
    for (unsigned i = 0; i < READS; i++)
        nio_driver_cancel(stress->driver, &stress->reads[i]);
    nio_driver_cancel(stress->driver, &stress->timeout);
}

/* ---- the three games ---------------------------------------------------------------------- */

/* From nothing to some microseconds. */
static void pause_at_random(struct nio_rng *rng)
{
    unsigned most = 1u << nio_rng_below(rng, 11);
    for (unsigned pause = nio_rng_below(rng, most); pause > 0; pause--)
        nio_cpu_relax();
}

static void *ask(void *arg)
{
    struct stress *stress = arg;
    uint64_t seed = 3;
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    for (uint64_t i = 1; i <= QUESTIONS; i++) {
        /* relaxed: it is the unpark that must publish it */
        atomic_store_explicit(&stress->sent, i, memory_order_relaxed);
        nio_driver_unpark(stress->driver);
        /* relaxed: nothing else is read */
        for (unsigned n = 1; atomic_load_explicit(&stress->answered, memory_order_relaxed) < i; n++)
            if (n % 1024 == 0)
                (void)sched_yield();
        pause_at_random(&rng);
    }
    return NULL;
}

static bool play_ask(struct stress *stress, bool has_operation)
{
    pthread_t thread;
    uint64_t answered = 0;
    if (has_operation)
        submit_read(stress, 0);
    /* relaxed: before the thread starts */
    atomic_store_explicit(&stress->sent, 0, memory_order_relaxed);
    /* relaxed: likewise */
    atomic_store_explicit(&stress->answered, 0, memory_order_relaxed);
    if (pthread_create(&thread, NULL, ask, stress))
        return false;
    while (answered < QUESTIONS) {
        /* relaxed: seen after the park that its unpark ended */
        uint64_t sent = atomic_load_explicit(&stress->sent, memory_order_relaxed);
        if (sent == answered) {
            pause_at_random(&stress->rng); /* the next question may come now */
            nio_driver_park(stress->driver, -1);
            (void)nio_driver_reap(stress->driver, 8);
            continue;
        }
        answered = sent;
        /* relaxed: the asker reads only this */
        atomic_store_explicit(&stress->answered, answered, memory_order_relaxed);
    }
    (void)pthread_join(thread, NULL);
    if (has_operation)
        nio_driver_cancel(stress->driver, &stress->reads[0]);
    return harness_drain(stress->driver, 10000);
}

/* Takes completions until all reads have ended, and tells nobody. */
static void *take_all(void *arg)
{
    struct stress *stress = arg;
    unsigned done = 0;
    while (done < READS) {
        unsigned count = nio_driver_reap_for(stress->driver, 8);
        done += count;
        if (!count)
            (void)sched_yield();
    }
    return NULL;
}

static bool play_feed(struct stress *stress)
{
    static const char data[READS];
    for (unsigned round = 0; round < FEEDS; round++) {
        pthread_t thread;
        (void)nio_driver_reap(stress->driver, 8);
        for (unsigned i = 0; i < READS; i++)
            submit_read(stress, i);
        if (write(stress->pipes[1], data, READS) != READS ||
            pthread_create(&thread, NULL, take_all, stress))
            return false;
        while (nio_uring_of(stress->driver)->queue.count > 0) {
            nio_driver_park(stress->driver, -1);
            harness_take_wakes(stress->driver);
        }
        /* The sibling may take the rest while the owner is on its way to sleep, hence the limit. */
        while (nio_driver_in_flight(stress->driver) > 0) {
            nio_driver_park(stress->driver, 1000000);
            harness_take_wakes(stress->driver);
        }
        (void)pthread_join(thread, NULL);
    }
    return true;
}

static bool play_mix(struct stress *stress)
{
    pthread_t producer, sibling;
    /* relaxed: before the threads start */
    atomic_store_explicit(&stress->sent, 0, memory_order_relaxed);
    if (pthread_create(&producer, NULL, produce, stress) ||
        pthread_create(&sibling, NULL, reap_behind, stress))
        return false;
    own(stress);
    /* relaxed: only ends the sibling's loop */
    atomic_store_explicit(&stress->is_over, true, memory_order_relaxed);
    (void)pthread_join(sibling, NULL);
    (void)pthread_join(producer, NULL);
    return harness_drain(stress->driver, 10000);
}

static int run(enum numio_driver profile)
{
    static struct stress stress;
    memset(&stress, 0, sizeof stress);
    uint64_t seed = 7;
    nio_rng_init(&stress.rng, &seed);
    harness_init();
    struct nio_driver_options options = harness_options(profile);
    options.entries = 8;
    if (pipe(stress.pipes) < 0 || nio_driver_create(&options, &stress.driver) < 0) {
        (void)printf("%s: %s\n", harness_names[profile], numio_strerror_detail());
        return 1;
    }
    bool is_good = play_ask(&stress, false) && play_ask(&stress, true);
    if (is_good && profile != NUMIO_DRIVER_EPOLL)
        is_good = play_feed(&stress);
    is_good = is_good && play_mix(&stress);
    uint64_t refs = nio_state_refs(nio_state_load(&harness_task));
    struct nio_driver_counters counters;
    nio_driver_counters(stress.driver, &counters);
    (void)printf("%s: %llu reads, %llu cancelled, %llu timeouts, %llu reaped by the sibling\n",
                 harness_names[profile], (unsigned long long)stress.read_count,
                 (unsigned long long)stress.cancelled, (unsigned long long)stress.timed_out,
                 (unsigned long long)counters.reaped_for);
    if (!is_good || refs != 1) {
        (void)printf("%u operations have not ended, %llu references are left\n",
                     nio_driver_in_flight(stress.driver), (unsigned long long)refs);
        return 1;
    }
    nio_driver_destroy(stress.driver);
    (void)close(stress.pipes[0]);
    (void)close(stress.pipes[1]);
    return 0;
}

int main(void)
{
    struct nio_driver_probe probe;
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    (void)alarm(SECONDS_MAX); /* a hang is a failure */
    if (run(NUMIO_DRIVER_EPOLL) != 0)
        return 1;
    nio_driver_probe(NUMIO_DRIVER_AUTO, &probe);
    if (!probe.has_uring) {
        const char *required = getenv("NUMIO_REQUIRE");
        (void)printf("no io_uring: %s\n", probe.reason);
        return required && strstr(required, "uring") ? 1 : 77;
    }
    return run(NUMIO_DRIVER_SQPOLL) || run(NUMIO_DRIVER_DEFER);
}
