/* SPDX-License-Identifier: MIT */
/* What the kernel does rarely, done by the shim (tests/shim) to a driver in virtual time, and what
 * only a real one does: a stuck io-wq, a descriptor closed under an operation. */
#include "tests/driver_each.h"
#include "tests/shim/shim.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/driver/uring.h"
#include "tests/runtime_fixture.h"

enum { PLANS = 64, MANY = 300, TICK_NS = 10 };
static const int64_t ms = 1000000;

/* What becomes of a request is chosen by its descriptor, which is none: the number of a plan. */
static struct shim_plan plans[PLANS];
static int taken[2 * MANY]; /* these numbers, in the order in which they were taken */
static unsigned taken_count;
static struct numio_op many[MANY];
static char byte;

static void decide(void *arg, const struct io_uring_sqe *sqe, struct shim_plan *plan)
{
    (void)arg;
    if ((sqe->user_data & NIO_TAG_MASK) != NIO_TAG_OP) {
        *plan = (struct shim_plan){ .is_given = true, .delay_ns = SHIM_NEVER }; /* the watch */
        return;
    }
    *plan = plans[sqe->fd % PLANS];
    plan->is_given = true;
    if (taken_count < NIO_ARRAY_LEN(taken))
        taken[taken_count++] = sqe->fd;
}

static struct nio_driver *begin(enum numio_driver profile, unsigned entries)
{
    struct shim_config config = { .is_virtual = true, .tick_ns = TICK_NS, .decide = decide };
    struct nio_driver_options options = harness_options(profile);
    options.entries = entries;
    harness_init();
    shim_begin(&config);
    return each_create(&options);
}

static void end(struct nio_driver *driver)
{
    cr_assert(harness_drain(driver, 5000), "%u never ended", nio_driver_in_flight(driver));
    cr_assert_eq(nio_state_refs(nio_state_load(&harness_task)), 1, "each ends exactly once");
    nio_driver_destroy(driver);
    shim_end();
}

static void run_on_shim(enum numio_driver profile, void (*body)(struct nio_driver *driver))
{
    struct nio_driver *driver = begin(profile, 16);
    body(driver);
    end(driver);
}

/* A test body that runs with a driver of 16 entries on the shim. */
#define EACH_RING(suite, name)                                                                     \
    static void name(struct nio_driver *driver);                                                   \
    Test(suite, name##_sqpoll, .timeout = 30)                                                      \
    {                                                                                              \
        run_on_shim(NUMIO_DRIVER_SQPOLL, name);                                                    \
    }                                                                                              \
    Test(suite, name##_defer, .timeout = 30)                                                       \
    {                                                                                              \
        run_on_shim(NUMIO_DRIVER_DEFER, name);                                                     \
    }                                                                                              \
    static void name(struct nio_driver *driver)

static void faults(struct nio_driver *driver, struct shim_faults faults)
{
    shim_set_faults(nio_driver_ring_fd(driver), &faults);
}

static void submit_recv(struct nio_driver *driver, struct numio_op *op, int plan)
{
    numio_op_recv(op, plan, &byte, 1, 0);
    harness_submit(driver, op);
}

/* Operation i has the descriptor i. */
static void submit_many(struct nio_driver *driver, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        submit_recv(driver, &many[i], (int)i);
}

static void expect_many(unsigned count, int32_t result)
{
    for (unsigned i = 0; i < count; i++) {
        cr_assert(nio_op_is_done(&many[i]), "%u", i);
        cr_assert_eq(many[i]._result, result, "%u: %d", i, many[i]._result);
    }
}

/* ---- errors of one operation -------------------------------------------------------------- */

static void prepare(struct numio_op *op, unsigned kind, int fd)
{
    switch (kind) {
    case 0:
        numio_op_recv(op, fd, &byte, 1, 0);
        break;
    case 1:
        numio_op_write(op, fd, &byte, 1, 0);
        break;
    case 2:
        numio_op_accept(op, fd, NULL, NULL, 0);
        break;
    case 3:
        numio_op_openat(op, fd, "/", O_RDONLY, 0);
        break;
    default:
        numio_op_send(op, fd, &byte, 1, 0);
        break;
    }
}

static void expect_error(struct nio_driver *driver, int error)
{
    struct numio_op failing[5], fine;
    plans[1] = (struct shim_plan){ .result = -error };
    plans[2] = (struct shim_plan){ .result = 1, .delay_ns = 1000 };
    for (unsigned round = 0; round < 50; round++) { /* more than there are credits, in all */
        numio_op_recv(&fine, 2, &byte, 1, 0);
        harness_submit(driver, &fine);
        for (unsigned kind = 0; kind < NIO_ARRAY_LEN(failing); kind++) {
            prepare(&failing[kind], kind, 1);
            harness_submit(driver, &failing[kind]);
        }
        cr_assert(harness_drain(driver, 1000));
        cr_assert_eq(fine._result, 1, "its neighbours' errors are not its own");
        for (unsigned kind = 0; kind < NIO_ARRAY_LEN(failing); kind++)
            cr_assert_eq(failing[kind]._result, -error, "%u: %d", kind, failing[kind]._result);
    }
}

EACH_RING(driver_faults, no_buffers_is_told)
{
    expect_error(driver, ENOBUFS);
}

EACH_RING(driver_faults, no_descriptors_is_told)
{
    expect_error(driver, EMFILE);
}

EACH_RING(driver_faults, no_space_is_told)
{
    expect_error(driver, ENOSPC);
}

EACH_RING(driver_faults, an_io_error_is_told)
{
    expect_error(driver, EIO);
}

EACH_RING(driver_faults, a_reset_connection_is_told)
{
    expect_error(driver, ECONNRESET);
}

EACH_RING(driver_faults, a_broken_pipe_is_told)
{
    expect_error(driver, EPIPE);
}

/* ---- completions that are not as they should be -------------------------------------------- */

EACH_RING(driver_faults, completions_in_any_order_end_their_own_operations)
{
    for (unsigned i = 0; i < PLANS; i++) /* 37 is prime to 64: each delay once */
        plans[i] = (struct shim_plan){ .result = (int32_t)i, .delay_ns = i * 37 % PLANS * 1000 };
    submit_many(driver, PLANS);
    cr_assert(harness_drain(driver, 1000));
    for (unsigned i = 0; i < PLANS; i++)
        cr_assert_eq(many[i]._result, (int32_t)i);
}

EACH_RING(driver_faults, completions_that_announce_more_do_not_end_the_operation)
{
    struct numio_op op;
    plans[0] = (struct shim_plan){ .result = 7, .more = 5 };
    plans[1] = (struct shim_plan){ .result = 9, .delay_ns = SHIM_NEVER, .more = 3 };
    submit_recv(driver, &op, 0);
    cr_assert(harness_drain(driver, 1000));
    cr_assert_eq(op._result, 7, "the last one's result, not an earlier one's");
    submit_recv(driver, &op, 1);
    cr_assert_not(harness_wait(driver, &op, 20));
    cr_assert(shim_finish(nio_driver_ring_fd(driver), (uintptr_t)&op));
    cr_assert(harness_drain(driver, 1000));
    cr_assert_eq(op._result, 9);
}

static int end_one_twice(void)
{
    struct nio_driver *driver = begin(NUMIO_DRIVER_DEFER, 16);
    plans[0] = (struct shim_plan){ .result = 1, .doubled = 1 };
    submit_recv(driver, &many[0], 0);
    (void)harness_drain(driver, 100);
    return 0; /* not noticed */
}

/* Something was submitted at the same place in between. */
static int end_another_twice(void)
{
    struct nio_driver *driver = begin(NUMIO_DRIVER_SQPOLL, 16);
    plans[0] = (struct shim_plan){ .result = 1, .doubled = 1 };
    plans[1] = (struct shim_plan){ .result = 1, .delay_ns = SHIM_NEVER };
    submit_recv(driver, &many[0], 0);
    nio_driver_flush(driver);
    shim_pass(nio_driver_ring_fd(driver), 1000);
    (void)nio_driver_reap(driver, 1);
    submit_recv(driver, &many[0], 1);
    (void)nio_driver_reap(driver, 1);
    return 0; /* not noticed */
}

Test(driver_faults, a_completion_that_comes_twice_is_noticed, .timeout = 30)
{
    int (*const bodies[])(void) = { end_one_twice, end_another_twice };
    static struct fixture_ending ending;
    for (unsigned i = 0; i < NIO_ARRAY_LEN(bodies); i++) {
        fixture_in_child(bodies[i], &ending);
        cr_assert(WIFSIGNALED(ending.status) && WTERMSIG(ending.status) == SIGABRT, "%u: 0x%x", i,
                  (unsigned)ending.status);
        cr_assert(strstr(ending.output, "a completion came twice"), "%s", ending.output);
    }
}

/* ---- cancelling --------------------------------------------------------------------------- */

EACH_RING(driver_faults, a_late_completion_after_its_cancel_ends_the_operation_once)
{
    struct numio_op op;
    plans[0] =
        (struct shim_plan){ .result = 1, .delay_ns = 5000000, .on_cancel = SHIM_CANCEL_LATE };
    submit_recv(driver, &op, 0);
    nio_driver_flush(driver);
    nio_driver_cancel(driver, &op);
    nio_driver_park(driver, ms);
    (void)nio_driver_reap(driver, 8);
    cr_assert_not(nio_op_is_done(&op), "the kernel has it still");
    cr_assert_eq(nio_driver_in_flight(driver), 1);
    cr_assert(harness_wait(driver, &op, 100));
    cr_assert_eq(op._result, 1);
    cr_assert_eq(shim_counts(nio_driver_ring_fd(driver)).cancels, 1, "one was enough");
}

EACH_RING(driver_faults, a_cancel_that_found_nothing_or_could_not_is_tried_again)
{
    struct numio_op hidden, hard;
    plans[0] = (struct shim_plan){ .delay_ns = SHIM_NEVER, .on_cancel = SHIM_CANCEL_MISSES };
    plans[1] = (struct shim_plan){ .result = -EINTR,
                                   .delay_ns = 100000000,
                                   .on_cancel = SHIM_CANCEL_ALREADY };
    submit_recv(driver, &hidden, 0);
    submit_recv(driver, &hard, 1);
    nio_driver_flush(driver);
    nio_driver_cancel(driver, &hidden);
    nio_driver_cancel(driver, &hard);
    cr_assert(harness_wait(driver, &hidden, 50));
    cr_assert_eq(hidden._result, -ECANCELED);
    cr_assert(harness_wait(driver, &hard, 200));
    cr_assert_eq(hard._result, -EINTR, "the kernel's own result");
    cr_assert_geq(shim_counts(nio_driver_ring_fd(driver)).cancels, 6, "again and again");
}

EACH_RING(driver_faults, the_cancel_of_a_completed_operation_does_nothing)
{
    struct numio_op op;
    int fd = nio_driver_ring_fd(driver);
    plans[0] = (struct shim_plan){ .result = 1 };
    plans[1] = (struct shim_plan){ .result = 2, .delay_ns = 20000000 };
    submit_recv(driver, &op, 0);
    nio_driver_flush(driver);
    shim_pass(fd, 1000);
    nio_driver_cancel(driver, &op); /* completed, and not reaped: the kernel is asked, in vain */
    cr_assert(harness_wait(driver, &op, 10));
    cr_assert_eq(op._result, 1);
    submit_recv(driver, &op, 1); /* another at the same address */
    cr_assert(harness_drain(driver, 100));
    cr_assert_eq(op._result, 2, "the cancels of the first did not meet it");
    uint64_t cancels = shim_counts(fd).cancels;
    cr_assert_eq(cancels, 4, "%lu: asked, and three times again", (unsigned long)cancels);
    nio_driver_cancel(driver, &op); /* and reaped */
    nio_driver_flush(driver);
    cr_assert_eq(shim_counts(fd).cancels, cancels);
}

/* ---- a ring that takes nothing, or little ---------------------------------------------------- */

static void expect_refused(struct nio_driver *driver, int error)
{
    faults(driver, (struct shim_faults){ .enter_error = error, .enter_errors = 2 });
    submit_many(driver, 3); /* none of them waits for a credit */
    for (unsigned i = 0; i < 3; i++) {
        nio_driver_flush(driver);
        cr_assert_eq(nio_driver_needs_flush(driver), i < 2, "after %u refusals", i);
    }
    cr_assert(harness_drain(driver, 1000));
    taken_count = 0;
    faults(driver, (struct shim_faults){ .enter_error = error, .enter_errors = 40 });
    submit_many(driver, MANY);
    for (unsigned i = 0; i < 4; i++) {
        nio_driver_flush(driver);
        cr_assert(nio_driver_needs_flush(driver), "it must be asked again");
        (void)nio_driver_reap(driver, 64);
    }
    cr_assert_eq(nio_driver_in_flight(driver), MANY);
    cr_assert_eq(taken_count, 0);
    cr_assert(harness_drain(driver, 1000));
    cr_assert_eq(taken_count, MANY);
    for (unsigned i = 0; i < MANY; i++)
        cr_assert_eq(taken[i], (int)i, "in the order of submission");
    expect_many(MANY, 0);
}

Test(driver_faults, refused_submissions_are_handed_over_again, .timeout = 30)
{
    static const int errors[] = { -EAGAIN, -EBUSY, -ENOMEM, -EINTR };
    for (unsigned i = 0; i < NIO_ARRAY_LEN(errors); i++) {
        struct nio_driver *driver = begin(NUMIO_DRIVER_DEFER, 16);
        taken_count = 0;
        expect_refused(driver, errors[i]);
        end(driver);
    }
}

EACH_RING(driver_faults, a_ring_that_takes_one_at_a_time_gets_them_all_in_order)
{
    faults(driver, (struct shim_faults){ .take_max = 1 });
    submit_many(driver, MANY);
    cr_assert(harness_drain(driver, 1000));
    for (unsigned i = 0; i < MANY; i++)
        cr_assert_eq(taken[i], (int)i, "%u: %d", i, taken[i]);
    expect_many(MANY, 0);
}

EACH_RING(driver_faults, an_interrupted_park_loses_nothing)
{
    struct numio_op op;
    plans[0] = (struct shim_plan){ .result = 1, .delay_ns = 1000000 };
    submit_recv(driver, &op, 0);
    nio_driver_flush(driver);
    faults(driver, (struct shim_faults){ .enter_error = -EINTR, .enter_errors = 3 });
    for (unsigned i = 0; i < 3; i++)
        nio_driver_park(driver, -1); /* each returns */
    cr_assert_not(nio_op_is_done(&op));
    cr_assert(harness_drain(driver, 1000));
    cr_assert_eq(op._result, 1);
}

EACH_RING(driver_faults, the_completion_queue_holds_all_that_is_in_flight)
{
    int fd = nio_driver_ring_fd(driver);
    submit_many(driver, MANY);
    for (unsigned i = 0; i < MANY; i++) { /* nobody reaps */
        nio_driver_flush(driver);
        shim_pass(fd, 1000);
        nio_driver_unpark(driver);
        nio_driver_park(driver, 0);
    }
    cr_assert_gt(taken_count, 16, "more than the SQ holds");
    cr_assert_eq(shim_counts(fd).overflowed, 0);
    cr_assert(harness_drain(driver, 1000));
    expect_many(MANY, 0);
}

EACH_RING(driver_faults, what_overflows_the_completion_queue_is_fetched)
{
    for (unsigned i = 0; i < PLANS; i++)
        plans[i] = (struct shim_plan){ .result = 5, .more = 2 };
    faults(driver, (struct shim_faults){ .cq_room = 3 });
    submit_many(driver, 100);
    nio_driver_flush(driver);
    shim_pass(nio_driver_ring_fd(driver), 1000);
    if (nio_driver_profile(driver) == NUMIO_DRIVER_DEFER)
        nio_driver_park(driver, 0);
    cr_assert_gt(shim_counts(nio_driver_ring_fd(driver)).overflowed, 20);
    cr_assert(nio_driver_has_completions(driver), "the flag counts as one");
    cr_assert(harness_drain(driver, 1000));
    expect_many(100, 5);
}

static void take_for_another(struct nio_driver *driver)
{
    unsigned done;
    do { /* a sibling takes nothing behind a wake */
        shim_pass(nio_driver_ring_fd(driver), 1000);
        done = nio_driver_reap_for(driver, 64);
    } while (done > 0);
}

EACH_RING(driver_faults, credits_that_came_back_for_nobody_keep_no_owner_awake)
{
    struct numio_op op;
    for (unsigned i = 0; i < PLANS; i++)
        plans[i] = (struct shim_plan){ .result = 1 };
    submit_many(driver, MANY); /* most of them are queued */
    nio_driver_flush(driver);
    for (unsigned i = 0; i < MANY; i++)
        if (many[i]._place == NIO_OP_PLACE_QUEUED)
            nio_driver_cancel(driver, &many[i]);
    take_for_another(driver);
    cr_assert(harness_drain(driver, 1000));
    plans[0] = (struct shim_plan){ .result = 1, .delay_ns = SHIM_NEVER };
    submit_recv(driver, &op, 0);
    nio_driver_park(driver, 1000);
    (void)nio_driver_reap(driver, 8);
    cr_assert_not(nio_driver_has_completions(driver), "there is nothing");
    uint64_t before_ns = shim_now_ns();
    nio_driver_park(driver, ms);
    cr_assert_geq(shim_now_ns() - before_ns, (uint64_t)ms, "so it sleeps");
    nio_driver_cancel(driver, &op);
    cr_assert(harness_wait(driver, &op, 100));
}

EACH_RING(driver_faults, a_watch_that_the_kernel_gives_up_is_set_again)
{
    struct numio_op op;
    int fd = nio_driver_ring_fd(driver);
    plans[0] = (struct shim_plan){ .result = 1, .delay_ns = SHIM_NEVER };
    submit_recv(driver, &op, 0);
    for (unsigned i = 1; i <= 5; i++) {
        nio_driver_park(driver, 1000);
        cr_assert_eq(shim_counts(fd).watches, i);
        cr_assert(shim_finish(fd, NIO_TAG_WAKE), "it is there");
        nio_driver_park(driver, 1000);
        (void)nio_driver_reap(driver, 8);
    }
    cr_assert(shim_finish(fd, (uintptr_t)&op));
    cr_assert(harness_wait(driver, &op, 100));
}

/* ---- the SQ thread ------------------------------------------------------------------------ */

Test(driver_faults, a_sleeping_sq_thread_is_woken_by_what_is_submitted, .timeout = 30)
{
    struct nio_driver *driver = begin(NUMIO_DRIVER_SQPOLL, 16);
    int fd = nio_driver_ring_fd(driver);
    for (unsigned i = 0; i < 20; i++) {
        shim_sleep(fd);
        uint64_t enters = shim_counts(fd).enters;
        submit_many(driver, 4);
        nio_driver_flush(driver);
        cr_assert_eq(shim_counts(fd).enters, enters + 1, "one call wakes it");
        nio_driver_flush(driver);
        cr_assert_eq(shim_counts(fd).enters, enters + 1, "and it is not woken twice");
        shim_sleep(fd);
        submit_many(driver, 0);
        cr_assert(harness_drain(driver, 1000)); /* a park wakes it as well */
    }
    end(driver);
}

Test(driver_faults, a_starved_sq_thread_holds_up_neither_timers_nor_whoever_unparks, .timeout = 30)
{
    struct nio_driver *driver = begin(NUMIO_DRIVER_SQPOLL, 16);
    struct numio_op timer;
    uint64_t began_ns = shim_now_ns();
    faults(driver, (struct shim_faults){ .starved_until_ns = began_ns + 100 * (uint64_t)ms });
    submit_many(driver, MANY); /* far more than the SQ holds */
    numio_op_timeout(&timer, (uint64_t)(3 * ms));
    harness_submit(driver, &timer);
    cr_assert(harness_wait(driver, &timer, 50));
    uint64_t took_ns = shim_now_ns() - began_ns;
    cr_assert_lt(took_ns, (uint64_t)(4 * ms), "the timer came after %lu ns",
                 (unsigned long)took_ns);
    nio_driver_unpark(driver);
    uint64_t before_ns = shim_now_ns();
    nio_driver_park(driver, -1);
    cr_assert_lt(shim_now_ns() - before_ns, (uint64_t)ms);
    cr_assert_eq(taken_count, 0, "it was starved all the time");
    cr_assert(harness_drain(driver, 1000));
    expect_many(MANY, 0);
    end(driver);
}

Test(driver_faults, a_starved_sq_thread_holds_up_no_cancel, .timeout = 30)
{
    struct nio_driver *driver = begin(NUMIO_DRIVER_SQPOLL, 16);
    for (unsigned i = 0; i < PLANS; i++)
        plans[i] = (struct shim_plan){ .delay_ns = SHIM_NEVER };
    submit_many(driver, 64);
    nio_driver_park(driver, 1000);
    cr_assert_eq(taken_count, 64);
    faults(driver, (struct shim_faults){ .starved_until_ns = shim_now_ns() + 1000 * (uint64_t)ms });
    uint64_t before_ns = shim_now_ns();
    for (unsigned i = 0; i < 64; i++)
        nio_driver_cancel(driver, &many[i]);
    cr_assert_lt(shim_now_ns() - before_ns, 500 * (uint64_t)ms, "it came back while starved");
    cr_assert_eq(nio_driver_in_flight(driver), 64, "nothing could end yet");
    cr_assert(harness_drain(driver, 5000));
    expect_many(64, -ECANCELED); /* and none of the cancels was lost */
    end(driver);
}

static void submit_of_all_kinds(struct nio_driver *driver)
{
    int fd = nio_driver_ring_fd(driver);
    for (unsigned i = 0; i < PLANS; i++)
        plans[i] = (struct shim_plan){ .result = 1, .delay_ns = SHIM_NEVER };
    submit_many(driver, 10); /* in the kernel */
    nio_driver_flush(driver);
    shim_pass(fd, 1000);
    cr_assert_eq(taken_count, 10);
    faults(driver, (struct shim_faults){ .starved_until_ns = SHIM_NEVER });
    for (unsigned i = 10; i < MANY; i++) /* published, then queued */
        submit_recv(driver, &many[i], (int)i);
    nio_driver_cancel(driver, &many[0]);
    nio_driver_cancel(driver, &many[MANY - 1]);
}

Test(driver_faults, without_its_sq_thread_a_ring_ends_everything_and_says_why, .timeout = 30)
{
    struct nio_driver *driver = begin(NUMIO_DRIVER_SQPOLL, 16);
    struct numio_op late, timer;
    int fd = nio_driver_ring_fd(driver);
    submit_of_all_kinds(driver);
    shim_kill(fd);
    cr_assert(harness_drain(driver, 1000), "%u never ended", nio_driver_in_flight(driver));
    for (unsigned i = 0; i < MANY; i++)
        cr_assert_eq(many[i]._result, i < 10 || i == MANY - 1 ? -ECANCELED : -EOWNERDEAD, "%u: %d",
                     i, many[i]._result);
    for (unsigned i = 0; i < 100; i++) {
        submit_recv(driver, &late, 0);
        nio_driver_cancel(driver, &late); /* whatever it finds */
        cr_assert(harness_wait(driver, &late, 100));
        cr_assert(late._result == -EOWNERDEAD || late._result == -ECANCELED, "%d", late._result);
    }
    submit_recv(driver, &late, 0);
    cr_assert(harness_wait(driver, &late, 100));
    cr_assert_eq(late._result, -EOWNERDEAD);
    uint64_t enters = shim_counts(fd).enters, before_ns = shim_now_ns();
    numio_op_timeout(&timer, (uint64_t)(50 * ms));
    harness_submit(driver, &timer);
    cr_assert(harness_wait(driver, &timer, 100), "timers go on");
    cr_assert_leq(shim_now_ns() - before_ns, 51 * (uint64_t)ms);
    cr_assert_eq(shim_counts(fd).enters, enters, "and sleep without the ring");
    cr_assert_not(nio_driver_needs_flush(driver), "the owner is not kept busy");
    cr_assert_not(nio_driver_has_completions(driver));
    end(driver);
}

Test(driver_faults, an_sq_thread_that_ends_under_a_sleeping_owner_is_noticed, .timeout = 30)
{
    struct nio_driver *driver = begin(NUMIO_DRIVER_SQPOLL, 16);
    struct numio_op op;
    int fd = nio_driver_ring_fd(driver);
    plans[0] = (struct shim_plan){ .result = 1, .delay_ns = SHIM_NEVER };
    submit_recv(driver, &op, 0);
    nio_driver_park(driver, 1000);
    shim_kill(fd);
    (void)nio_driver_reap(driver, 8);
    cr_assert_eq(op._result, -ECANCELED);
    submit_recv(driver, &op, 0);
    nio_driver_park(driver, -1); /* the enter says so */
    cr_assert(harness_wait(driver, &op, 10));
    cr_assert_eq(op._result, -EOWNERDEAD);
    end(driver);
}

/* ---- the kernel itself ---------------------------------------------------------------------- */

static char fifo_path[64];

static void prepare_stuck_open(struct io_uring_sqe *sqe, void *arg)
{
    (void)arg;
    io_uring_prep_openat(sqe, AT_FDCWD, fifo_path, O_RDONLY, 0); /* waits for a writer */
    sqe->flags |= IOSQE_ASYNC;                                   /* on a thread of io-wq */
}

static void echo_some(struct nio_driver *driver)
{
    int pair[2];
    struct numio_op in, out;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    for (unsigned i = 0; i < 200; i++) {
        char sent = (char)i, got = 0;
        numio_op_recv(&in, pair[1], &got, 1, 0);
        harness_submit(driver, &in);
        numio_op_send(&out, pair[0], &sent, 1, 0);
        cr_assert_eq(harness_run(driver, &out), 1);
        cr_assert(harness_wait(driver, &in, 5000));
        cr_assert_eq(got, sent);
    }
    (void)close(pair[0]);
    (void)close(pair[1]);
}

static void stick_io_wq(struct nio_driver *driver)
{
    struct numio_op timer;
    (void)snprintf(fifo_path, sizeof fifo_path, "/tmp/numio-fifo-%d", (int)getpid()); /* fits */
    cr_assert_eq(mkfifo(fifo_path, 0600), 0);
    for (unsigned i = 0; i < 64; i++) { /* more than io-wq has threads for file I/O */
        numio_op_prep(&many[i], prepare_stuck_open, NULL);
        harness_submit(driver, &many[i]);
    }
    cr_assert_not(harness_wait(driver, &many[0], 20), "it waits for a writer");
    uint64_t began_ns = nio_now_ns();
    echo_some(driver);
    numio_op_timeout(&timer, 1000000);
    cr_assert_eq(harness_run(driver, &timer), -ETIME);
    uint64_t took_ms = (nio_now_ns() - began_ns) / 1000000;
    cr_assert_lt(took_ms, 3000, "others were held up for %lu ms", (unsigned long)took_ms);
    cr_assert_eq(nio_driver_in_flight(driver), 64, "all are stuck still");
    for (unsigned i = 0; i < 64; i++)
        nio_driver_cancel(driver, &many[i]);
    cr_assert(harness_drain(driver, 20000), "%u cannot be cancelled", nio_driver_in_flight(driver));
    for (unsigned i = 0; i < 64; i++)
        cr_assert(many[i]._result == -ECANCELED || many[i]._result == -EINTR, "%d",
                  many[i]._result);
    (void)unlink(fifo_path);
}

static void close_under_recv(struct nio_driver *driver)
{
    int pair[2];
    char got[4] = "";
    struct numio_op in[2], closing;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    for (unsigned i = 0; i < 2; i++) {
        numio_op_recv(&in[i], pair[1], &got[i], 1, 0);
        harness_submit(driver, &in[i]);
    }
    cr_assert_not(harness_wait(driver, &in[0], 5));
    numio_op_close(&closing, pair[1]);
    cr_assert_eq(harness_run(driver, &closing), 0);
    cr_assert_not(harness_wait(driver, &in[0], 20), "the ring keeps the file open");
    cr_assert_eq(write(pair[0], "x", 1), 1);
    unsigned first = harness_wait(driver, &in[0], 500) ? 0 : 1; /* either of them */
    cr_assert(harness_wait(driver, &in[first], 5000));
    cr_assert_eq(in[first]._result, 1);
    cr_assert_eq(got[first], 'x', "what was sent meanwhile arrives");
    nio_driver_cancel(driver, &in[!first]);
    cr_assert(harness_wait(driver, &in[!first], 5000));
    cr_assert_eq(in[!first]._result, -ECANCELED);
    (void)close(pair[0]);
}

Test(driver_faults, an_io_wq_stuck_on_a_fifo_holds_up_nobody_else_sqpoll, .timeout = 60)
{
    each_run(NUMIO_DRIVER_SQPOLL, stick_io_wq);
}

Test(driver_faults, an_io_wq_stuck_on_a_fifo_holds_up_nobody_else_defer, .timeout = 60)
{
    each_run(NUMIO_DRIVER_DEFER, stick_io_wq);
}

Test(driver_faults, a_descriptor_closed_under_an_operation_stays_open_for_it_sqpoll, .timeout = 30)
{
    each_run(NUMIO_DRIVER_SQPOLL, close_under_recv);
}

Test(driver_faults, a_descriptor_closed_under_an_operation_stays_open_for_it_defer, .timeout = 30)
{
    each_run(NUMIO_DRIVER_DEFER, close_under_recv);
}
