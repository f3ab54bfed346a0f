/* SPDX-License-Identifier: MIT */
/* The polled ring (profile iopoll) as far as any machine has it: which operations go there, that
 * those which the kernel refuses there are done by the other ring, and that many in flight, or
 * cancelled, each end once.  Disks that truly poll are in the guests: numa/numa_iopoll.c. */
#include "tests/driver_each.h"

#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/mem.h"
#include "runtime/driver/polled.h"

enum { BLOCK = 4096, BLOCKS = 64, MANY = 3000, FDS_MAX = 1024 };

static _Alignas(BLOCK) unsigned char blocks[BLOCKS][BLOCK];
static struct numio_op ops[MANY];

/* How often the kind of each descriptor was asked for, and what is answered. */
static unsigned asked[FDS_MAX];
static enum nio_fd_kind answer;

static enum nio_fd_kind answer_as_told(int fd)
{
    if (fd < FDS_MAX)
        asked[fd]++;
    return answer;
}

static struct nio_driver *make_driver(enum nio_fd_kind kind)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_IOPOLL);
    options.fd_kind = answer_as_told;
    answer = kind;
    return each_create(&options);
}

static uint64_t polled_by(const struct nio_driver *driver)
{
    struct nio_driver_counters counters;
    nio_driver_counters(driver, &counters);
    return counters.polled;
}

/* A file without a name of BLOCKS blocks, the n-th full of the byte n. */
static int make_file(int flags)
{
    char path[] = "/var/tmp/numio-polled.XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    cr_assert_geq(fd, 0);
    for (unsigned i = 0; i < BLOCKS; i++)
        memset(blocks[i], (int)i, BLOCK);
    cr_assert_eq(write(fd, blocks, sizeof blocks), (ssize_t)sizeof blocks);
    cr_assert_eq(fsync(fd), 0); /* so that O_DIRECT finds it on the disk */
    (void)close(fd);
    fd = open(path, O_RDWR | O_CLOEXEC | flags);
    int error = errno;
    (void)unlink(path);
    if (fd < 0 && error == EINVAL)
        cr_skip_test("the file system of /var/tmp has no O_DIRECT");
    cr_assert_geq(fd, 0, "%s", strerror(error));
    return fd;
}

static void check_block(unsigned n)
{
    for (unsigned i = 0; i < BLOCK; i++)
        cr_assert_eq(blocks[n][i], n, "block %u, byte %u", n, i);
}

Test(driver_polled, what_does_not_belong_there_is_done_by_the_other_ring, .timeout = 30)
{
    struct nio_driver *driver = make_driver(NIO_FD_POLLED);
    int fd = make_file(0); /* buffered: every kernel refuses to poll for it */
    struct numio_op op;
    memset(blocks, 0xff, sizeof blocks);
    numio_op_read(&op, fd, blocks[5], BLOCK, 5 * BLOCK);
    cr_assert_eq(harness_run(driver, &op), BLOCK);
    check_block(5);
    numio_op_write(&op, fd, blocks[5], BLOCK, 7 * BLOCK);
    cr_assert_eq(harness_run(driver, &op), BLOCK);
    struct iovec parts[] = { { blocks[8], BLOCK / 2 }, { blocks[8] + BLOCK / 2, BLOCK / 2 } };
    numio_op_readv(&op, fd, parts, 2, 8 * BLOCK);
    cr_assert_eq(harness_run(driver, &op), BLOCK);
    check_block(8);
    cr_assert_eq(asked[fd], 1, "asked %u times: what came back is believed unpolled", asked[fd]);
    cr_assert_eq(polled_by(driver), 0);
    struct nio_driver_counters counters;
    nio_driver_counters(driver, &counters);
    /* Three here, the first there before, two for the kernel's threads, and perhaps the watch on
     * the eventfd. */
    cr_assert_leq(counters.sqes, 7, "%lu", (unsigned long)counters.sqes);
    cr_assert_eq(counters.bytes_in, 2 * BLOCK);
    cr_assert_eq(counters.bytes_out, BLOCK);
    nio_driver_destroy(driver);
    (void)close(fd);
}

Test(driver_polled, a_pipe_taken_for_a_disk_is_waited_for_all_the_same, .timeout = 30)
{
    struct nio_driver *driver = make_driver(NIO_FD_POLLED);
    struct numio_op op;
    char byte = 0;
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    numio_op_read(&op, ends[0], &byte, 1, -1);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 50));
    cr_assert_eq(write(ends[1], "x", 1), 1);
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, 1);
    cr_assert_eq(byte, 'x');
    numio_op_read(&op, ends[0], &byte, 1, -1);
    harness_submit(driver, &op);
    cr_assert_not(harness_wait(driver, &op, 50));
    nio_driver_cancel(driver, &op); /* the ordinary ring can */
    cr_assert(harness_wait(driver, &op, 5000));
    cr_assert_eq(op._result, -ECANCELED);
    nio_driver_destroy(driver);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

Test(driver_polled, more_than_it_has_credits_for_each_end_once_and_right, .timeout = 60)
{
    struct nio_driver *driver = make_driver(NIO_FD_POLLED);
    int fd = make_file(O_DIRECT);
    static unsigned char *buffers;
    cr_assert_eq(posix_memalign((void **)&buffers, BLOCK, (size_t)MANY * BLOCK), 0);
    memset(buffers, 0xff, (size_t)MANY * BLOCK);
    for (unsigned i = 0; i < MANY; i++) {
        numio_op_read(&ops[i], fd, buffers + (size_t)i * BLOCK, BLOCK, i % BLOCKS * BLOCK);
        harness_submit(driver, &ops[i]);
    }
    cr_assert_eq(nio_driver_in_flight(driver), MANY);
    cr_assert(harness_drain(driver, 30000), "%u left", nio_driver_in_flight(driver));
    for (unsigned i = 0; i < MANY; i++) {
        cr_assert_eq(ops[i]._result, BLOCK, "operation %u: %d", i, ops[i]._result);
        cr_assert_eq(buffers[(size_t)i * BLOCK], i % BLOCKS);
        cr_assert_eq(buffers[(size_t)i * BLOCK + BLOCK - 1], i % BLOCKS);
    }
    cr_assert_eq(nio_state_refs(nio_state_load(&harness_task)), 1);
    nio_driver_destroy(driver);
    free(buffers);
    (void)close(fd);
}

Test(driver_polled, what_still_waits_is_cancelled_and_the_rest_ends_by_itself, .timeout = 60)
{
    struct nio_driver *driver = make_driver(NIO_FD_POLLED);
    int fd = make_file(O_DIRECT);
    unsigned cancelled = 0;
    for (unsigned i = 0; i < MANY; i++) {
        numio_op_read(&ops[i], fd, blocks[i % BLOCKS], BLOCK, i % BLOCKS * BLOCK);
        harness_submit(driver, &ops[i]);
    }
    for (unsigned i = 0; i < MANY; i += 2) {
        nio_driver_cancel(driver, &ops[i]);
        nio_driver_cancel(driver, &ops[i]); /* once more does nothing */
    }
    cr_assert(harness_drain(driver, 30000), "%u left", nio_driver_in_flight(driver));
    for (unsigned i = 0; i < MANY; i++) {
        cancelled += ops[i]._result == -ECANCELED;
        cr_assert(ops[i]._result == BLOCK || (i % 2 == 0 && ops[i]._result == -ECANCELED),
                  "operation %u: %d", i, ops[i]._result);
    }
    cr_assert_geq(cancelled, (MANY - 128) / 2, "%u: what is not in the SQ has not begun",
                  cancelled);
    cr_assert_eq(nio_state_refs(nio_state_load(&harness_task)), 1);
    /* Twice those that went on, where the kernel sends them back, and not one that waited. */
    struct nio_driver_counters counters;
    nio_driver_counters(driver, &counters);
    cr_assert_leq(counters.sqes, MANY + 200, "%lu", (unsigned long)counters.sqes);
    nio_driver_destroy(driver);
    (void)close(fd);
}

static void prep_linked_read(struct io_uring_sqe *sqe, void *arg)
{
    int fd = *(int *)arg;
    io_uring_prep_read(sqe, fd, blocks[3], BLOCK, 3 * BLOCK);
    sqe->flags |= IOSQE_ASYNC;
}

Test(driver_polled, only_plain_reads_and_writes_are_thought_of, .timeout = 30)
{
    struct nio_driver *driver = make_driver(NIO_FD_POLLED);
    int fd = make_file(0);
    struct numio_op op;
    struct statx stat;
    numio_op_fsync(&op, fd);
    cr_assert_eq(harness_run(driver, &op), 0);
    numio_op_statx(&op, AT_FDCWD, "/", 0, STATX_SIZE, &stat);
    cr_assert_eq(harness_run(driver, &op), 0);
    numio_op_prep(&op, prep_linked_read, &fd); /* SQE flags mean something to the ordinary ring */
    cr_assert_eq(harness_run(driver, &op), BLOCK);
    check_block(3);
    numio_op_nop(&op);
    cr_assert_eq(harness_run(driver, &op), 0);
    numio_op_timeout(&op, 1000);
    cr_assert_eq(harness_run(driver, &op), -ETIME);
    numio_op_read(&op, -1, blocks, 1, 0);
    cr_assert_eq(harness_run(driver, &op), -EBADF);
    answer = NIO_FD_BUFFERED;
    numio_op_read(&op, INT_MAX, blocks, 1, 0); /* no table grows to there */
    cr_assert_eq(harness_run(driver, &op), -EBADF);
    cr_assert_null(driver->polled->known);
    cr_assert_eq(asked[fd], 0);
    nio_driver_destroy(driver);
    (void)close(fd);
}

/* Reads `count` times; how often the descriptor's kind was asked for. */
static unsigned asked_in(struct nio_driver *driver, int fd, unsigned count)
{
    unsigned before = asked[fd];
    struct numio_op op;
    for (unsigned i = 0; i < count; i++) {
        numio_op_read(&op, fd, blocks[0], BLOCK, 0);
        cr_assert_eq(harness_run(driver, &op), BLOCK);
    }
    return asked[fd] - before;
}

Test(driver_polled, an_answer_is_believed_for_a_while_and_until_the_close, .timeout = 60)
{
    struct nio_driver *driver = make_driver(NIO_FD_BUFFERED);
    int fd = make_file(0);
    struct numio_op op;
    cr_assert_eq(asked_in(driver, fd, 16), 1);
    cr_assert_eq(asked_in(driver, fd, 16), 1);
    answer = NIO_FD_UNPOLLED;
    cr_assert_eq(asked_in(driver, fd, 255), 1);
    cr_assert_eq(asked_in(driver, fd, 10), 1);
    int copy = dup(fd);
    cr_assert_geq(copy, 0);
    numio_op_close(&op, fd);
    cr_assert_eq(harness_run(driver, &op), 0);
    cr_assert_eq(dup2(copy, fd), fd); /* the number has a new file now */
    cr_assert_eq(asked_in(driver, fd, 10), 1);
    /* A descriptor beyond the table's first size, and one for which it cannot grow. */
    cr_assert_eq(dup2(copy, 200), 200);
    cr_assert_eq(asked_in(driver, 200, 3), 1);
    cr_assert_eq(dup2(copy, 900), 900);
    nio_fault_arm(1);
    cr_assert_eq(asked_in(driver, 900, 1), 0);
    cr_assert(nio_fault_struck());
    nio_fault_arm(0);
    cr_assert_eq(asked_in(driver, 900, 1), 1);
    nio_driver_destroy(driver);
}

Test(driver_polled, the_kind_of_a_descriptor_is_what_the_kernel_says, .timeout = 30)
{
    int buffered = make_file(0);
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC | O_DIRECT), 0); /* means packets, for a pipe */
    cr_assert_eq(nio_fd_kind_of(buffered), NIO_FD_BUFFERED);
    cr_assert_eq(nio_fd_kind_of(ends[1]), NIO_FD_UNPOLLED); /* the flag is the writing end's */
    cr_assert_eq(nio_fd_kind_of(-1), NIO_FD_BUFFERED);
    int direct = make_file(O_DIRECT);
    if (!nio_any_disk_polls())
        cr_assert_eq(nio_fd_kind_of(direct), NIO_FD_UNPOLLED);
    else
        cr_assert_neq(nio_fd_kind_of(direct), NIO_FD_BUFFERED);
    (void)close(direct);
    (void)close(buffered);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* ---- parks, with an operation in flight that no disk will end ----------------------------- */

static uint64_t cpu_ns(void)
{
    struct timespec now;
    cr_assert_eq(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static struct nio_driver *make_busy_driver(void)
{
    struct nio_driver *driver = make_driver(NIO_FD_POLLED);
    driver->polled->in_kernel = 1;
    driver->polled->quiet_since_ns = nio_now_ns();
    return driver;
}

static void destroy_busy_driver(struct nio_driver *driver)
{
    driver->polled->in_kernel = 0;
    nio_driver_destroy(driver);
}

Test(driver_polled, a_polling_park_ends_at_once_when_unparked, .timeout = 30)
{
    struct nio_driver *driver = make_busy_driver();
    uint64_t best_ns = UINT64_MAX;
    cr_assert(nio_driver_wants_reap(driver));
    for (unsigned i = 0; i < 20; i++) { /* one of them without a pause by the machine */
        driver->polled->quiet_since_ns = nio_now_ns();
        nio_driver_unpark(driver);
        uint64_t began_ns = nio_now_ns();
        nio_driver_park(driver, -1);
        uint64_t ns = nio_now_ns() - began_ns;
        best_ns = ns < best_ns ? ns : best_ns;
    }
    cr_assert_lt(best_ns, NIO_POLLED_PATIENCE_NS / 2, "%lu ns", (unsigned long)best_ns);
    destroy_busy_driver(driver);
}

Test(driver_polled, timers_and_sockets_end_while_it_polls, .timeout = 30)
{
    struct nio_driver *driver = make_busy_driver();
    struct numio_op sleep, read;
    char byte;
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    answer = NIO_FD_BUFFERED;
    numio_op_timeout(&sleep, 3000000);
    uint64_t began_ns = nio_now_ns();
    cr_assert_eq(harness_run(driver, &sleep), -ETIME);
    cr_assert_lt(nio_now_ns() - began_ns, UINT64_C(3000000000));
    uint64_t best_ns = UINT64_MAX; /* of those that are waited for by polling */
    for (unsigned i = 0; i < 40; i++) {
        began_ns = nio_now_ns();
        driver->polled->quiet_since_ns = began_ns - i % 2 * 2 * NIO_POLLED_PATIENCE_NS;
        numio_op_read(&read, ends[0], &byte, 1, -1);
        harness_submit(driver, &read);
        nio_driver_flush(driver);
        cr_assert_eq(write(ends[1], "x", 1), 1);
        cr_assert(harness_wait(driver, &read, 5000));
        cr_assert_eq(read._result, 1);
        uint64_t ns = nio_now_ns() - began_ns;
        best_ns = i % 2 == 0 && ns < best_ns ? ns : best_ns;
    }
    cr_assert_lt(best_ns, NIO_POLLED_PATIENCE_NS / 2, "%lu ns", (unsigned long)best_ns);
    destroy_busy_driver(driver);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

Test(driver_polled, a_disk_that_has_stalled_costs_looks_and_no_core, .timeout = 30)
{
    struct nio_driver *driver = make_busy_driver();
    uint64_t began_ns = nio_now_ns(), used_ns = cpu_ns();
    while (nio_now_ns() - began_ns < 200000000) {
        nio_driver_park(driver, -1);
        cr_assert_eq(nio_driver_reap(driver, 64), 0);
    }
    used_ns = cpu_ns() - used_ns;
    cr_assert_lt(used_ns, 100000000, "%lu ns of CPU in 200 ms", (unsigned long)used_ns);
    /* The limit of a park holds in both ways of waiting. */
    for (unsigned i = 0; i < 2; i++) {
        driver->polled->quiet_since_ns = nio_now_ns() - i * 2 * NIO_POLLED_PATIENCE_NS;
        began_ns = nio_now_ns();
        for (uint64_t ns = 0; ns < 500000; ns = nio_now_ns() - began_ns)
            nio_driver_park(driver, 500000 - (int64_t)ns);
        cr_assert_lt(nio_now_ns() - began_ns, UINT64_C(2000000000));
    }
    destroy_busy_driver(driver);
}

Test(driver_polled, without_the_second_ring_the_driver_says_so_and_goes_on, .timeout = 60)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_IOPOLL);
    struct nio_driver *driver = NULL;
    bool is_found = false;
    int fd = make_file(0);
    for (long nth = 1; nth < 100 && !is_found; nth++) {
        nio_fault_arm(nth);
        int error = nio_driver_create(&options, &driver);
        bool has_struck = nio_fault_struck();
        nio_fault_arm(0);
        if (error)
            continue;
        const char *reason = nio_driver_reason(driver);
        is_found = reason && strstr(reason, "no polled ring");
        if (is_found) {
            struct numio_op op;
            numio_op_read(&op, fd, blocks[9], BLOCK, 9 * BLOCK);
            cr_assert_eq(harness_run(driver, &op), BLOCK);
            check_block(9);
        }
        nio_driver_destroy(driver);
        cr_assert(is_found || has_struck, "no allocation was the polled ring's");
    }
    cr_assert(is_found);
    (void)close(fd);
}
