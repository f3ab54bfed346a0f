/* SPDX-License-Identifier: MIT */
/* Requests with many completions: their images, their submission, and periods, which are kept by
 * the timers and never reach a ring. */
#include <errno.h>
#include <liburing.h>
#include <string.h>

#include "runtime/base/mem.h"
#include "runtime/driver/driver_impl.h"
#include "runtime/task/op_done.h"

static void set_image(struct nio_multi *multi, const struct io_uring_sqe *sqe)
{
    memcpy(multi->op._sqe, sqe, sizeof multi->op._sqe);
    multi->op._sqe[0] |= NIO_OP_IS_STREAM;
    multi->op._place = NIO_OP_PLACE_RING;
}

/* Into buffers of the ring's group. */
static void set_recv_image(struct nio_multi *multi, struct io_uring_sqe *sqe)
{
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = NIO_BUF_GROUP_ID;
    set_image(multi, sqe);
}

void nio_multi_prep_accept(struct nio_multi *multi, int fd, int flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_multishot_accept(&sqe, fd, NULL, NULL, flags);
    set_image(multi, &sqe);
}

void nio_multi_prep_recv(struct nio_multi *multi, int fd, int flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_recv_multishot(&sqe, fd, NULL, 0, flags);
    set_recv_image(multi, &sqe);
}

void nio_multi_prep_recvmsg(struct nio_multi *multi, int fd, struct msghdr *header, int flags)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_recvmsg_multishot(&sqe, fd, header, (unsigned)flags);
    set_recv_image(multi, &sqe);
}

void nio_multi_prep_poll(struct nio_multi *multi, int fd, uint32_t events)
{
    struct io_uring_sqe sqe = { 0 };
    io_uring_prep_poll_multishot(&sqe, fd, events);
    set_image(multi, &sqe);
}

void nio_driver_submit_multi(struct nio_driver *driver, struct nio_multi *multi)
{
    multi->op._driver = driver;
    multi->op._state = NIO_OP_STREAM;
    if (nio_driver_has_ring(driver))
        nio_uring_submit(driver, &multi->op);
    else
        nio_driver_end(driver, &multi->op, -EINVAL);
}

void nio_driver_submit_ticks(struct nio_driver *driver, struct nio_multi *multi, uint64_t period_ns,
                             uint64_t now_ns)
{
    numio_op_timeout(&multi->op, period_ns);
    multi->op._state = NIO_OP_STREAM;
    multi->period_ns = period_ns;
    multi->due_ns = now_ns < UINT64_MAX - period_ns ? now_ns + period_ns : UINT64_MAX;
    nio_driver_arm(driver, &multi->op, multi->due_ns, now_ns);
}

void nio_stream_tick(struct nio_driver *driver, struct nio_multi *multi, uint64_t now_ns)
{
    uint64_t late = now_ns > multi->due_ns ? (now_ns - multi->due_ns) / multi->period_ns : 0;
    uint64_t ticks = late < INT32_MAX ? late + 1 : INT32_MAX;
    multi->due_ns += (late + 1) * multi->period_ns;
    nio_driver_arm(driver, &multi->op, multi->due_ns, now_ns);
    struct nio_task *waiter = nio_multi_post(multi, (int32_t)ticks, -1, false);
    if (waiter)
        nio_multi_wake(waiter);
}
