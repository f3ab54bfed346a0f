/* SPDX-License-Identifier: MIT */
/* io/stream.h: what the two parts of streams share: waiting and ending (stream.c), received data
 * (stream_recv.c).
 */
#ifndef NIO_IO_STREAM_H
#define NIO_IO_STREAM_H

#include <numio/stream.h>

#include "runtime/sched/await.h"
#include "runtime/task/multi.h"

struct numio_stream {
    struct nio_multi multi; /* what the kernel was asked for */
    int fd, flags;
    uint32_t events;
    bool is_armed;   /* submitted, and its end not yet seen */
    bool is_plain;   /* the kernel has no such request: one for each result */
    bool is_stopped; /* asks no more */
    /* received data */
    bool has_header;
    struct msghdr header;        /* recvmsg: the lengths */
    struct nio_buf_group *group; /* of the ring that it was last submitted to */
    uint64_t given;              /* buffers given back there before it was */
};

/* Begins to wait: what is wrong, or 0. */
int nio_stream_check(const struct nio_co *co, const struct numio_stream *stream, bool is_recv);
/* Suspends until something was posted.  0: look again; -ECANCELED, -ETIMEDOUT, -EBUSY. */
int nio_stream_wait(struct nio_co *co, struct numio_stream *stream);
/* The request has ended: no longer armed; *ret_result is why.  True: the reason is the caller's to
 * know, and the next call asks anew; false: ask again. */
bool nio_stream_ended(struct numio_stream *stream, int64_t *ret_result);
/* Submits the prepared request on the calling worker's ring. */
void nio_stream_arm(struct numio_stream *stream);

/* stream_recv.c */
int nio_stream_check_header(size_t name_bytes, size_t control_bytes);
int nio_stream_arm_recv(struct numio_stream *stream);
/* The request has ended, and no other will follow. */
void nio_stream_end_recv(struct numio_stream *stream);
/* Gives back what was not taken. */
void nio_stream_drop_recv(struct numio_stream *stream);
/* The worker's thread, once its driver is gone. */
void nio_recv_buffers_free(struct nio_worker *worker);

#endif
