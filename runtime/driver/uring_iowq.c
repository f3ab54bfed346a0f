/* SPDX-License-Identifier: MIT */
/* The kernel's threads for requests that would block (io-wq), of which each worker's thread has its
 * own: where they run, how many for file I/O, and the first of them.
 *
 * The kernel makes a thread when a request needs one, in the call that submits the request, and a
 * signal that arrives in the middle makes that fail.  It tries again four times in all; if there is
 * no thread by then it ends what waits for one with -ECANCELED, which nobody has asked for.  (Since
 * Linux 6.11, io_should_retry_thread() in io_uring/io-wq.c, and in later 6.1 kernels; seen on 6.18
 * with opens under signals 100 us apart, once in 300 runtimes.)  That is only so while there is no
 * thread at all, and the last one stays.  So before the first request that may need them a thread
 * of each kind is made, by requests that nobody waits for, while signals are blocked.
 */
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>

#include "runtime/driver/uring.h"

enum {
    KINDS = 2,          /* of threads: for files and block devices, and for all else */
    BOUNDED_MIN = 16,   /* threads for file I/O: at least so many ... */
    BOUNDED_PER_CPU = 4 /* ... and at most four for each CPU they may use */
};

void nio_uring_limit_iowq(struct nio_uring *uring, const struct nio_driver_options *options)
{
    if (options->iowq_cpu_count == 0)
        return;
    cpu_set_t mask;
    CPU_ZERO(&mask);
    for (unsigned i = 0; i < options->iowq_cpu_count; i++)
        if (options->iowq_cpus[i] >= 0 && options->iowq_cpus[i] < CPU_SETSIZE)
            CPU_SET(options->iowq_cpus[i], &mask);
    int error = io_uring_register_iowq_aff(&uring->ring, sizeof mask, &mask);
    if (error)
        nio_driver_add_reason(&uring->base, "io-wq workers are not pinned: %s",
                              strerrordesc_np(-error));
    unsigned bounded = options->iowq_cpu_count * BOUNDED_PER_CPU;
    unsigned limits[2] = { bounded > BOUNDED_MIN ? bounded : BOUNDED_MIN, 0 };
    error = io_uring_register_iowq_max_workers(&uring->ring, limits);
    if (error)
        nio_driver_add_reason(&uring->base, "the number of io-wq workers is not limited: %s",
                              strerrordesc_np(-error));
}

/* A success posts nothing; a failure, as of a kernel before 5.17, a completion that means nothing.
 */
static void push(struct nio_uring *uring, enum io_uring_op opcode, unsigned events)
{
    struct io_uring_sqe *sqe = nio_uring_next_sqe(uring);
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = (uint8_t)opcode;
    sqe->flags = IOSQE_ASYNC | IOSQE_CQE_SKIP_SUCCESS;
    sqe->fd = uring->base.wake_fd;
    sqe->poll32_events = events;
    sqe->user_data = NIO_TAG_MESSAGE;
}

void nio_uring_start_iowq(struct nio_uring *uring)
{
    sigset_t all, before;
    if (nio_uring_sq_room(uring) < KINDS)
        nio_uring_flush(&uring->base);
    if (nio_uring_sq_room(uring) < KINDS)
        return;                               /* the next such request tries again */
    push(uring, IORING_OP_NOP, 0);            /* of the kind that files have */
    push(uring, IORING_OP_POLL_ADD, POLLOUT); /* of the other */
    (void)sigfillset(&all);                   /* cannot fail, like the others */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    nio_uring_flush(&uring->base);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    uring->has_iowq = true;
}
