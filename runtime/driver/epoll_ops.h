/* SPDX-License-Identifier: MIT */
/* driver/epoll_ops.h: does what a request's image asks for with plain system calls.
 *
 * nio_epoll_attempt() never blocks: it does the operation now, or says that its descriptor is not
 * ready, or that it takes a thread that may block.  nio_epoll_block() is for that thread.  No
 * state beyond the operation itself: what a waiting one has got so far stands in its _result.
 */
#ifndef NIO_DRIVER_EPOLL_OPS_H
#define NIO_DRIVER_EPOLL_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include <numio/op.h>

enum nio_attempt {
    NIO_ATTEMPT_ENDED = 0, /* the result is in *ret_result */
    NIO_ATTEMPT_WAIT,      /* for nio_epoll_events() on nio_epoll_op_fd() */
    NIO_ATTEMPT_BLOCK      /* hand it to a thread that may block */
};

/* Owner: `is_first` tells the submission from a later attempt after the descriptor got ready. */
enum nio_attempt nio_epoll_attempt(struct numio_op *op, bool is_first, int32_t *ret_result);
/* Owner: what a waiting one that is stopped by `error` ends with: the bytes that it has moved so
 * far are not lost. */
int32_t nio_epoll_stopped(const struct numio_op *op, int32_t error);
/* A pool thread: does it, however long it takes; the result. */
int32_t nio_epoll_block(const struct numio_op *op);
/* The epoll events after which another attempt makes sense. */
uint32_t nio_epoll_events(const struct numio_op *op);
int nio_epoll_op_fd(const struct numio_op *op);
/* Whether it closes its descriptor. */
bool nio_epoll_is_close(const struct numio_op *op);

#endif
