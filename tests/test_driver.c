/* SPDX-License-Identifier: MIT */
/* The driver's own promises: nothing is lost, cancelled or full, asleep or awake. */
#include "tests/driver_each.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/mem.h"
#include "runtime/driver/uring.h"
#include "runtime/driver/uring_setup.h"
#include "tests/driver_wake.h"

enum { MANY = 1000 };
static struct numio_op many[MANY];
static char bytes[MANY];

static unsigned count_results(int32_t result)
{
    unsigned count = 0;
    for (unsigned i = 0; i < MANY; i++)
        count += nio_op_is_done(&many[i]) && many[i]._result == result;
    return count;
}

static void submit_many_reads(struct nio_driver *driver, int fd)
{
    for (unsigned i = 0; i < MANY; i++) {
        numio_op_read(&many[i], fd, &bytes[i], 1, -1);
        harness_submit(driver, &many[i]);
    }
}

static void write_many(int fd)
{
    char data[MANY] = { 0 };
    cr_assert_eq(write(fd, data, sizeof data), MANY);
}

/* ---- credits and cancelling --------------------------------------------------------------- */

EACH_PROFILE(driver, beyond_the_credits_operations_wait_and_none_is_lost, .timeout = 30)
{
    struct nio_driver_options options = harness_options(nio_driver_profile(driver));
    options.entries = 8;
    struct nio_driver *small = each_create(&options);
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    submit_many_reads(small, pipes[0]);
    cr_assert_eq(nio_driver_in_flight(small), MANY);
    nio_driver_park(small, 1000000);
    (void)nio_driver_reap(small, MANY);
    cr_assert_eq(nio_driver_in_flight(small), MANY, "all of them wait");
    write_many(pipes[1]);
    cr_assert(harness_drain(small, 10000));
    cr_assert_eq(count_results(1), MANY);
    nio_driver_destroy(small);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

EACH_PROFILE(driver, all_of_many_operations_can_be_cancelled_at_once, .timeout = 30)
{
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    for (unsigned entries = 8; entries <= 512; entries *= 8) {
        struct nio_driver_options options = harness_options(nio_driver_profile(driver));
        options.entries = entries; /* 8: most of them are queued; 512: all are in the kernel */
        struct nio_driver *other = each_create(&options);
        submit_many_reads(other, pipes[0]);
        nio_driver_park(other, 1000000);
        for (unsigned i = 0; i < MANY; i++)
            nio_driver_cancel(other, &many[i]);
        cr_assert(harness_drain(other, 10000));
        cr_assert_eq(count_results(-ECANCELED), MANY);
        nio_driver_destroy(other);
    }
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

EACH_PROFILE(driver, cancelled_ones_leave_the_queue_and_the_others_stay, .timeout = 30)
{
    struct nio_driver_options options = harness_options(nio_driver_profile(driver));
    options.entries = 8;
    struct nio_driver *small = each_create(&options);
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    submit_many_reads(small, pipes[0]);
    for (unsigned i = 1; i < MANY; i += 2)
        nio_driver_cancel(small, &many[i]);
    cr_assert_geq(nio_driver_in_flight(small), MANY / 2);
    write_many(pipes[1]);
    cr_assert(harness_drain(small, 10000));
    cr_assert_eq(count_results(-ECANCELED) + count_results(1), MANY);
    for (unsigned i = 0; i < MANY; i += 2)
        cr_assert_eq(many[i]._result, 1, "%u was not cancelled", i);
    cr_assert_geq(count_results(-ECANCELED), MANY / 2 - 64, "the queued ones were");
    nio_driver_destroy(small);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

static void cancel_one(struct nio_driver *driver, struct numio_op *op, const char *name)
{
    harness_submit(driver, op);
    cr_assert_not(harness_wait(driver, op, 10), "%s has nothing to do yet", name);
    nio_driver_cancel(driver, op);
    nio_driver_cancel(driver, op); /* asking twice is allowed */
    cr_assert(harness_wait(driver, op, 5000), "%s never ended", name);
    cr_assert_eq(op->_result, -ECANCELED, "%s: %d", name, op->_result);
    nio_driver_cancel(driver, op); /* and too late as well */
}

EACH_PROFILE(driver, what_waits_can_be_cancelled, .timeout = 30)
{
    int pair[2], pipes[2];
    char byte;
    struct sockaddr_storage address = { .ss_family = AF_UNIX };
    struct numio_op op;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    cr_assert_eq(pipe(pipes), 0);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
    cr_assert_eq(listen(listener, 1), 0);
    numio_op_accept(&op, listener, NULL, NULL, 0);
    cancel_one(driver, &op, "accept");
    numio_op_recv(&op, pair[0], &byte, 1, 0);
    cancel_one(driver, &op, "recv");
    numio_op_timeout(&op, 3600 * UINT64_C(1000000000));
    cancel_one(driver, &op, "timeout");
    numio_op_poll_fd(&op, pipes[0], POLLIN);
    cancel_one(driver, &op, "poll");
    numio_op_read(&op, pipes[0], &byte, 1, -1);
    cancel_one(driver, &op, "read");
    for (int i = 0; i < 2; i++) {
        (void)close(pair[i]);
        (void)close(pipes[i]);
    }
    (void)close(listener);
}

static void prep_read_on_io_wq(struct io_uring_sqe *sqe, void *arg)
{
    io_uring_prep_read(sqe, *(const int *)arg, bytes, 1, -1);
    sqe->flags |= IOSQE_ASYNC; /* on a thread of the kernel from the start, which blocks */
}

EACH_PROFILE(driver, a_read_stuck_on_a_fifo_blocks_nobody_and_can_be_cancelled, .timeout = 30)
{
    char path[64];
    struct numio_op op, nop;
    (void)snprintf(path, sizeof path, "/tmp/numio-fifo-%d", (int)getpid());
    cr_assert_eq(mkfifo(path, 0600), 0);
    int fd = open(path, O_RDWR);
    numio_op_prep(&op, prep_read_on_io_wq, &fd);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 30), "there is nothing in it");
    numio_op_nop(&nop);
    cr_assert_eq(harness_run(driver, &nop), 0);
    nio_driver_cancel(driver, &op);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert(op._result == -ECANCELED || op._result == -EINTR, "%d", op._result);
    (void)close(fd);
    (void)unlink(path);
}

EACH_PROFILE(driver, a_submission_queue_full_many_times_over_loses_nothing, .timeout = 30)
{
    struct nio_driver_options options = harness_options(nio_driver_profile(driver));
    options.entries = 8;
    struct nio_driver *small = each_create(&options);
    for (unsigned i = 0; i < MANY; i++) {
        numio_op_nop(&many[i]);
        harness_submit(small, &many[i]);
    }
    cr_assert(harness_drain(small, 10000));
    cr_assert_eq(count_results(0), MANY);
    cr_assert_not(nio_driver_needs_flush(small));
    nio_driver_destroy(small);
}

EACH_PROFILE(driver, flush_publishes_without_a_park, .timeout = 30)
{
    struct numio_op op;
    numio_op_nop(&op);
    harness_submit(driver, &op);
    if (nio_driver_profile(driver) != NUMIO_DRIVER_EPOLL)
        cr_assert(nio_driver_needs_flush(driver));
    nio_driver_flush(driver);
    cr_assert_not(nio_driver_needs_flush(driver));
    while (!nio_driver_has_completions(driver))
        (void)sched_yield();
    while (!nio_op_is_done(&op))
        (void)nio_driver_reap(driver, 1);
    cr_assert_eq(op._result, 0);
}

Test(driver, a_cancel_that_missed_its_operation_is_tried_again, .timeout = 30)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_DEFER);
    struct nio_driver *driver = each_create(&options);
    struct nio_uring *uring = nio_uring_of(driver);
    static struct numio_op ops[40];
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    for (unsigned i = 0; i < NIO_ARRAY_LEN(ops); i++) {
        numio_op_read(&ops[i], pipes[0], &bytes[i], 1, -1);
        harness_submit(driver, &ops[i]);
    }
    nio_driver_flush(driver);
    /* As if the kernel had not found them, or not been able to interrupt them. */
    for (unsigned i = 0; i < NIO_ARRAY_LEN(ops); i++)
        nio_uring_cancel_missed(uring, ops[i]._sqe[NIO_OP_WORD_LINK] | NIO_TAG_CANCEL,
                                i % 2 ? -ENOENT : -EALREADY);
    while (nio_driver_in_flight(driver) > 0) {
        nio_driver_park(driver, -1);
        (void)nio_driver_reap(driver, 64);
    }
    for (unsigned i = 0; i < NIO_ARRAY_LEN(ops); i++)
        cr_assert_eq(ops[i]._result, -ECANCELED);
    nio_driver_destroy(driver);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

Test(driver, a_cancel_that_came_too_late_is_given_up, .timeout = 30)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_DEFER);
    struct nio_driver *driver = each_create(&options);
    struct nio_uring *uring = nio_uring_of(driver);
    struct numio_op op;
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    numio_op_nop(&op);
    harness_submit(driver, &op);
    uint64_t name = op._sqe[NIO_OP_WORD_LINK];
    cr_assert(harness_wait(driver, &op, 5000));
    nio_driver_cancel(driver, &op);
    cr_assert_eq(uring->cancels, 0, "it has ended: the kernel is not asked");
    nio_uring_cancel_missed(uring, name | NIO_TAG_CANCEL, -ENOENT); /* as if it had been */
    numio_op_read(&op, pipes[0], bytes, 1, -1); /* a new one at the same address */
    harness_submit(driver, &op);
    do {
        nio_driver_park(driver, 1000000);
        (void)nio_driver_reap(driver, 64);
    } while (uring->missed_count > 0 || nio_uring_cancels_in_flight(uring) > 0);
    cr_assert_eq(uring->cancels, 3, "it was tried three times again");
    cr_assert_not(nio_op_is_done(&op), "and never met the new one");
    nio_fault_arm(1); /* no memory to note a miss: nothing but the retry is lost */
    uring->missed_room = 0;
    nio_uring_cancel_missed(uring, name | NIO_TAG_CANCEL, -ENOENT);
    cr_assert(nio_fault_struck());
    nio_fault_arm(0);
    cr_assert_eq(uring->missed_count, 0);
    nio_driver_cancel(driver, &op);
    cr_assert(harness_drain(driver, 5000));
    cr_assert_eq(op._result, -ECANCELED);
    nio_driver_destroy(driver);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

static void closed_under_a_read(enum numio_driver profile)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(profile);
    struct nio_driver *driver = each_create(&options);
    int pair[2];
    struct numio_op op;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    numio_op_recv(&op, pair[0], bytes, 1, 0);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 20));
    cr_assert_eq(close(pair[0]), 0);
    cr_assert_not(harness_wait(driver, &op, 20), "the operation keeps the file open");
    cr_assert_eq(write(pair[1], "x", 1), 1);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, 1);
    (void)close(pair[1]);
    nio_driver_destroy(driver);
}

Test(driver, a_descriptor_closed_under_an_operation_stays_open_for_it_sqpoll, .timeout = 30)
{
    closed_under_a_read(NUMIO_DRIVER_SQPOLL);
}

Test(driver, a_descriptor_closed_under_an_operation_stays_open_for_it_defer, .timeout = 30)
{
    closed_under_a_read(NUMIO_DRIVER_DEFER);
}

/* ---- sleeping ----------------------------------------------------------------------------- */

struct unparker {
    struct nio_driver *driver;
    pthread_t thread;
    bool saw_sleep;
    _Atomic bool is_over; /* set before the unpark */
};

/* Unparks once the owner is asleep. */
static void *unpark_sleeper(void *arg)
{
    struct unparker *unparker = arg;
    uint64_t end_ns = nio_now_ns() + 5000000000u;
    uint32_t wake = NIO_DRIVER_AWAKE;
    while (wake == NIO_DRIVER_AWAKE && nio_now_ns() < end_ns) {
        (void)usleep(1000);
        /* relaxed: only looked at */
        wake = atomic_load_explicit(&unparker->driver->wake, memory_order_relaxed);
    }
    unparker->saw_sleep = wake != NIO_DRIVER_AWAKE;
    /* relaxed: as above */
    atomic_store_explicit(&unparker->is_over, true, memory_order_relaxed);
    nio_driver_unpark(unparker->driver);
    return NULL;
}

/* Parks without a limit; another thread must end it.  A park may end before, for what the driver
 * has of its own in the kernel, but not again and again: it is seen asleep. */
static void park_until_unparked(struct nio_driver *driver)
{
    struct unparker unparker = { .driver = driver };
    cr_assert_eq(pthread_create(&unparker.thread, NULL, unpark_sleeper, &unparker), 0);
    do
        nio_driver_park(driver, -1);
    /* relaxed: only looked at */
    while (!atomic_load_explicit(&unparker.is_over, memory_order_relaxed));
    cr_assert_eq(pthread_join(unparker.thread, NULL), 0);
    cr_assert(unparker.saw_sleep);
}

EACH_PROFILE(driver, unpark_ends_a_park_with_and_without_operations, .timeout = 30)
{
    int pipes[2];
    char byte;
    struct numio_op op;
    cr_assert_eq(pipe(pipes), 0);
    (void)nio_driver_reap(driver, 1);
    for (int i = 0; i < 3; i++)
        park_until_unparked(driver);
    numio_op_read(&op, pipes[0], &byte, 1, -1);
    harness_submit(driver, &op);
    for (int i = 0; i < 3; i++) {
        park_until_unparked(driver);
        cr_assert_eq(nio_driver_reap(driver, 8), 0);
    }
    cr_assert_eq(write(pipes[1], "x", 1), 1);
    cr_assert(harness_wait(driver, &op, 5000));
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

Test(driver, unpark_works_without_messages_from_other_threads, .timeout = 30)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_SQPOLL);
    struct nio_driver *driver = each_create(&options);
    nio_uring_of(driver)->has_message = false; /* as on kernels before 6.13 */
    int pipes[2];
    struct numio_op op;
    cr_assert_eq(pipe(pipes), 0);
    (void)nio_driver_reap(driver, 1);
    numio_op_read(&op, pipes[0], bytes, 1, -1);
    harness_submit(driver, &op);
    for (int i = 0; i < 20; i++) {
        park_until_unparked(driver);
        cr_assert_eq(nio_driver_reap(driver, 8), 0);
    }
    cr_assert_eq(write(pipes[1], "x", 1), 1);
    cr_assert(harness_wait(driver, &op, 5000));
    nio_driver_destroy(driver);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

EACH_PROFILE(driver, an_unpark_before_the_park_is_remembered_once, .timeout = 30)
{
    (void)nio_driver_reap(driver, 1);
    nio_driver_unpark(driver);
    nio_driver_unpark(driver);
    nio_driver_park(driver, -1); /* would never return */
    uint64_t start_ns = nio_now_ns();
    nio_driver_park(driver, 20000000);
    cr_assert_geq(nio_now_ns() - start_ns, 19000000, "two unparks are one");
}

EACH_PROFILE(driver, park_keeps_to_its_limit_and_to_the_next_timeout, .timeout = 30)
{
    struct numio_op op;
    (void)nio_driver_reap(driver, 1);
    uint64_t start_ns = nio_now_ns();
    nio_driver_park(driver, 5000000);
    cr_assert_geq(nio_now_ns() - start_ns, 5000000);
    numio_op_timeout(&op, 5000000);
    harness_submit(driver, &op);
    start_ns = nio_now_ns();
    nio_driver_park(driver, -1);
    cr_assert_geq(nio_now_ns() - start_ns, 4000000);
    cr_assert(nio_driver_has_completions(driver));
    cr_assert_eq(nio_driver_reap(driver, 8), 1);
    start_ns = nio_now_ns();
    nio_driver_park(driver, 0);
    cr_assert_lt(nio_now_ns() - start_ns, 1000000000);
}

static void ignore_signal(int signal)
{
    (void)signal; /* comes only to interrupt */
}

EACH_PROFILE(driver, a_storm_of_signals_disturbs_nothing, .timeout = 60)
{
    int pair[2];
    struct numio_op op;
    struct sigaction action = { .sa_handler = ignore_signal };
    struct itimerval storm = { { 0, 200 }, { 0, 200 } }, calm = { { 0, 0 }, { 0, 0 } };
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
    cr_assert_eq(setitimer(ITIMER_REAL, &storm, NULL), 0);
    for (int i = 0; i < 5; i++) {
        uint64_t start_ns = nio_now_ns();
        numio_op_timeout(&op, 10000000);
        cr_assert_eq(harness_run(driver, &op), -ETIME);
        cr_assert_geq(nio_now_ns() - start_ns, 10000000);
        for (unsigned n = 0; n < MANY; n++) {
            numio_op_recv(&many[n], pair[0], &bytes[n], 1, 0);
            harness_submit(driver, &many[n]);
        }
        write_many(pair[1]);
        cr_assert(harness_drain(driver, 10000));
        cr_assert_eq(count_results(1), MANY);
        numio_op_openat(&op, AT_FDCWD, "/", O_RDONLY, 0);
        int64_t fd = harness_run(driver, &op);
        cr_assert_geq(fd, 0);
        (void)close((int)fd);
    }
    cr_assert_eq(setitimer(ITIMER_REAL, &calm, NULL), 0);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

/* ---- siblings ----------------------------------------------------------------------------- */

static void *reap_as_sibling(void *arg)
{
    uint64_t end_ns = nio_now_ns() + 20000000000u;
    while (count_results(1) < MANY && nio_now_ns() < end_ns)
        if (nio_driver_reap_for(arg, 64) == 0)
            (void)sched_yield();
    return NULL;
}

static void sibling_reaps_everything(enum numio_driver profile)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(profile);
    options.entries = 8;
    struct nio_driver *driver = each_create(&options);
    struct nio_driver_counters counters;
    int pipes[2];
    pthread_t sibling;
    cr_assert_eq(pipe(pipes), 0);
    (void)nio_driver_reap(driver, 1);
    submit_many_reads(driver, pipes[0]);
    write_many(pipes[1]);
    cr_assert_eq(pthread_create(&sibling, NULL, reap_as_sibling, driver), 0);
    /* The owner never reaps: it must be woken to feed its queue by the credits that return. */
    uint64_t end_ns = nio_now_ns() + 10000000000u;
    while (nio_driver_in_flight(driver) > 0 && nio_now_ns() < end_ns) {
        nio_driver_park(driver, 2000000000);
        harness_take_wakes(driver);
    }
    cr_assert_eq(pthread_join(sibling, NULL), 0);
    cr_assert_eq(count_results(1), MANY);
    nio_driver_counters(driver, &counters);
    cr_assert_eq(counters.reaped_for, MANY);
    cr_assert_eq(counters.bytes_in, MANY);
    nio_driver_destroy(driver);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

Test(driver, a_sibling_leaves_the_owners_wake_to_the_owner, .timeout = 30)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_SQPOLL);
    struct nio_driver *driver = each_create(&options);
    struct numio_op op;
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    numio_op_read(&op, pipes[0], bytes, 1, -1);
    harness_submit(driver, &op);
    while (!nio_uring_of(driver)->wake_armed) { /* a park has the ring watch the eventfd */
        (void)nio_driver_reap(driver, 64);
        nio_driver_park(driver, 1000000);
    }
    (void)nio_driver_reap(driver, 64);
    cr_assert_eq(eventfd_write(driver->wake_fd, 1), 0); /* as if the owner slept */
    while (!nio_driver_has_completions(driver))
        (void)sched_yield();
    cr_assert_eq(nio_driver_reap_for(driver, 8), 0);
    cr_assert(nio_driver_has_completions(driver), "the sibling has taken the wake");
    cr_assert_eq(write(pipes[1], "x", 1), 1);
    cr_assert(harness_wait(driver, &op, 5000));
    nio_driver_destroy(driver);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

Test(driver, a_sibling_reaps_for_a_sleeping_owner_sqpoll, .timeout = 30)
{
    sibling_reaps_everything(NUMIO_DRIVER_SQPOLL);
}

Test(driver, a_sibling_reaps_for_a_sleeping_owner_defer, .timeout = 30)
{
    sibling_reaps_everything(NUMIO_DRIVER_DEFER);
}

Test(driver, a_sibling_leaves_the_completions_to_whoever_is_at_it, .timeout = 30)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_DEFER);
    struct nio_driver *driver = each_create(&options);
    struct numio_op op;
    numio_op_nop(&op);
    harness_submit(driver, &op);
    nio_driver_flush(driver);
    cr_assert(nio_driver_has_completions(driver));
    struct nio_lock *lock = &nio_uring_of(driver)->cq_lock;
    nio_lock_acquire(lock);
    cr_assert_eq(nio_driver_reap_for(driver, 64), 0);
    nio_lock_release(lock);
    cr_assert_eq(nio_driver_reap_for(driver, 64), 1);
    cr_assert(nio_op_is_done(&op));
    nio_driver_destroy(driver);
}

/* ---- setting up --------------------------------------------------------------------------- */

static cpu_set_t sq_thread_cpus(const struct nio_driver *driver)
{
    cpu_set_t cpus;
    int tid = nio_sq_thread_of(nio_driver_ring_fd(driver));
    cr_assert_gt(tid, 0);
    cr_assert_eq(sched_getaffinity(tid, sizeof cpus, &cpus), 0);
    return cpus;
}

Test(driver, attached_rings_share_one_sq_thread_on_its_cpu, .timeout = 30)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_SQPOLL);
    unsigned count;
    options.sq_cpu = 0;
    struct nio_driver *first = each_create(&options);
    options.attach_fd = nio_driver_ring_fd(first);
    struct nio_driver *second = each_create(&options);
    struct nio_driver *third = each_create(&options);
    struct numio_op op;
    numio_op_nop(&op);
    cr_assert_eq(harness_run(first, &op), 0);
    cr_assert_eq(harness_run(second, &op), 0);
    cr_assert_eq(harness_run(third, &op), 0);
    cr_assert_eq(nio_driver_count_sq_threads(1, 2000, &count), 0);
    cr_assert_eq(count, 1);
    cpu_set_t cpus = sq_thread_cpus(second);
    cr_assert_eq(CPU_COUNT(&cpus), 1);
    cr_assert(CPU_ISSET(0, &cpus));
    nio_driver_destroy(first);
    cr_assert_eq(harness_run(second, &op), 0, "the thread outlives the first ring");
    nio_driver_destroy(second);
    nio_driver_destroy(third);
    cr_assert_eq(nio_driver_count_sq_threads(0, 5000, &count), 0);
    cr_assert_eq(count, 0);
}

Test(driver, an_unpinned_sq_thread_gets_the_mask_and_the_worker_keeps_its_cpu, .timeout = 30)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_SQPOLL);
    static const int mask[] = { 0, 1 };
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        cr_skip_test("two CPUs are needed");
    cpu_set_t own, now;
    CPU_ZERO(&own);
    CPU_SET(1, &own);
    cr_assert_eq(sched_setaffinity(0, sizeof own, &own), 0);
    options.sq_mask = mask;
    options.sq_mask_count = 2;
    struct nio_driver *driver = each_create(&options);
    cr_assert_eq(sched_getaffinity(0, sizeof now, &now), 0);
    cr_assert(CPU_EQUAL(&own, &now));
    unsigned count;
    cr_assert_eq(nio_driver_count_sq_threads(1, 2000, &count), 0);
    cr_assert_eq(count, 1);
    cpu_set_t cpus = sq_thread_cpus(driver);
    cr_assert(CPU_ISSET(0, &cpus) && CPU_ISSET(1, &cpus));
    nio_driver_destroy(driver);
}

Test(driver, the_sq_thread_of_a_real_time_worker_is_an_ordinary_one, .timeout = 30)
{
    each_require_uring();
    struct sched_param priority = { .sched_priority = 1 }, now;
    if (sched_setscheduler(0, SCHED_FIFO, &priority) < 0)
        cr_skip_test("no right to SCHED_FIFO");
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_SQPOLL);
    struct nio_driver *driver = each_create(&options);
    int policy = sched_getscheduler(0);
    cr_assert_eq(sched_getparam(0, &now), 0);
    cr_assert_eq(sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){ 0 }), 0);
    cr_assert_eq(policy, SCHED_FIFO, "the worker's class is back");
    cr_assert_eq(now.sched_priority, 1);
    unsigned count;
    cr_assert_eq(nio_driver_count_sq_threads(1, 2000, &count), 0, "%s", numio_strerror_detail());
    cr_assert_eq(count, 1);
    nio_driver_destroy(driver);
}

Test(driver, an_sq_thread_on_a_workers_core_is_nicer_than_the_worker, .timeout = 30)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_SQPOLL);
    for (int shares = 0; shares < 2; shares++) {
        options.sq_shares_core = shares;
        struct nio_driver *driver = each_create(&options);
        cr_assert_null(nio_driver_reason(driver), "%s", nio_driver_reason(driver));
        int tid = nio_sq_thread_of(nio_driver_ring_fd(driver));
        cr_assert_gt(tid, 0);
        cr_assert_eq(getpriority(PRIO_PROCESS, (id_t)tid),
                     getpriority(PRIO_PROCESS, 0) + (shares ? 5 : 0));
        nio_driver_destroy(driver);
    }
}

Test(driver, a_cpu_that_does_not_exist_is_given_up_with_a_reason, .timeout = 30)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_SQPOLL);
    options.sq_cpu = 4000;
    struct nio_driver *driver = each_create(&options);
    cr_assert_not_null(nio_driver_reason(driver));
    cr_assert(strstr(nio_driver_reason(driver), "4000"));
    nio_driver_destroy(driver);
}

Test(driver, io_wq_workers_stay_where_they_are_told, .timeout = 30)
{
    each_require_uring();
    static const int cpus[] = { 0 };
    for (int i = 0; i < 2; i++) {
        struct nio_driver_options options = harness_options(harness_profiles[i]);
        options.iowq_cpus = cpus;
        options.iowq_cpu_count = 1;
        struct nio_driver *driver = each_create(&options);
        cr_assert_null(nio_driver_reason(driver), "%s", nio_driver_reason(driver));
        nio_driver_destroy(driver);
    }
}

EACH_PROFILE(driver, each_failing_allocation_ends_create_cleanly, .timeout = 60)
{
    struct nio_driver_options options = harness_options(nio_driver_profile(driver));
    long failed = 0;
    for (long nth = 1; nth < 100; nth++) {
        struct nio_driver *other = NULL;
        nio_fault_arm(nth);
        int error = nio_driver_create(&options, &other);
        bool has_struck = nio_fault_struck();
        nio_fault_arm(0);
        if (error) {
            cr_assert_eq(error, -ENOMEM);
            cr_assert_null(other);
            cr_assert(strlen(numio_strerror_detail()) > 0);
            failed++;
            continue;
        }
        if (has_struck) /* a smaller ring, or not the second one */
            cr_assert(strstr(nio_driver_reason(other), "128 entries instead of 256") ||
                          strstr(nio_driver_reason(other), "no polled ring"),
                      "%s", nio_driver_reason(other));
        nio_driver_destroy(other);
        if (!has_struck)
            break;
    }
    cr_assert_geq(failed, 2);
}

EACH_PROFILE(driver, without_descriptors_create_names_the_limit, .timeout = 30)
{
    struct nio_driver_options options = harness_options(nio_driver_profile(driver));
    struct rlimit old;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    int next = dup(0);
    cr_assert_geq(next, 0);
    (void)close(next);
    for (unsigned room = 0; room < 2; room++) { /* the eventfd, then the ring or epoll set */
        struct nio_driver *other = NULL;
        struct rlimit few = { (rlim_t)next + room, old.rlim_max };
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
        int error = nio_driver_create(&options, &other);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
        cr_assert_eq(error, -EMFILE);
        cr_assert_null(other);
        cr_assert(strstr(numio_strerror_detail(), "RLIMIT_NOFILE"));
    }
}

Test(driver, a_ring_size_out_of_range_is_refused)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_DEFER);
    struct nio_driver *driver = NULL;
    options.entries = 4;
    cr_assert_eq(nio_driver_create(&options, &driver), -EINVAL);
    options.entries = 65536;
    cr_assert_eq(nio_driver_create(&options, &driver), -EINVAL);
    options.entries = 256;
    options.profile = NUMIO_DRIVER_AUTO;
    cr_assert_eq(nio_driver_create(&options, &driver), -EINVAL);
    cr_assert_null(driver);
    nio_driver_destroy(NULL);
}

/* Exit status of the child: 0, or which step failed. */
static int as_ordinary_user(void)
{
    struct rlimit small = { 65536, 65536 };
    struct nio_driver_probe probe;
    if (setrlimit(RLIMIT_MEMLOCK, &small) < 0 || setgid(12345) < 0 || setuid(12345) < 0)
        return 1;
    nio_driver_probe(NUMIO_DRIVER_AUTO, &probe);
    for (int i = 0; i < (int)NIO_ARRAY_LEN(harness_profiles); i++) {
        struct nio_driver_options options = harness_options(harness_profiles[i]);
        struct nio_driver *driver;
        struct numio_op op;
        options.entries = 4096; /* more memory than the limit */
        if (nio_driver_create(&options, &driver) < 0)
            return 10 + i;
        if (nio_driver_reason(driver) && !strstr(nio_driver_reason(driver), "65536 bytes"))
            return 20 + i;
        numio_op_nop(&op);
        if (harness_run(driver, &op) != 0)
            return 30 + i;
        nio_driver_destroy(driver);
    }
    return probe.has_uring && probe.has_sqpoll ? 0 : 2;
}

Test(driver, an_ordinary_user_with_little_lockable_memory_gets_a_ring, .timeout = 30)
{
    each_require_uring();
    if (geteuid() != 0)
        cr_skip_test("only root can become somebody else");
    pid_t child = fork();
    if (child == 0)
        _exit(as_ordinary_user());
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "step %d", WEXITSTATUS(status));
}

/* ---- the escape hatch --------------------------------------------------------------------- */

static void prep_tee(struct io_uring_sqe *sqe, void *arg)
{
    (void)arg;
    io_uring_prep_tee(sqe, -1, -1, 1, 0);
}

static void prep_kernel_timeout(struct io_uring_sqe *sqe, void *arg)
{
    io_uring_prep_timeout(sqe, arg, 0, 0);
}

EACH_PROFILE(driver, whatever_liburing_prepares_can_be_submitted, .timeout = 30)
{
    struct numio_op op;
    struct __kernel_timespec limit = { .tv_nsec = 2000000 };
    bool is_epoll = nio_driver_profile(driver) == NUMIO_DRIVER_EPOLL;
    numio_op_prep(&op, prep_tee, NULL);
    cr_assert_eq(harness_run(driver, &op), is_epoll ? -ENOSYS : -EBADF);
    numio_op_prep(&op, prep_kernel_timeout, &limit);
    cr_assert_eq(harness_run(driver, &op), is_epoll ? -ENOSYS : -ETIME);
}
