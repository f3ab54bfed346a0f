/* SPDX-License-Identifier: MIT */
/* Streams: arming, waiting, ending.  The protocol with the driver is that of task/multi.h.
 *
 * A request belongs to the ring of the worker that armed it; its results may be taken on any.  When
 * it has ended it is armed again by the next call, on the worker where that runs, so a stream
 * follows its task.  Stopping goes to the worker that has it, which alone may cancel there.
 */
#include "runtime/io/stream.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <numio/io.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"

static bool is_recv(const struct numio_stream *stream)
{
    return stream->multi.kind == NIO_MULTI_RECV;
}

int nio_stream_check(const struct nio_co *co, const struct numio_stream *stream, bool wants_recv)
{
    if (!co)
        return nio_error(-EINVAL, "stream: not used from a coroutine");
    if (!nio_is_own_process(nio_worker_current()->handle))
        return nio_refuse_forked_child();
    if (is_recv(stream) != wants_recv)
        return nio_error(-EINVAL, wants_recv ? "stream: it does not receive, use "
                                               "numio_stream_next()"
                                             : "stream: it receives, use numio_stream_recv()");
    return 0;
}

void nio_stream_arm(struct numio_stream *stream)
{
    struct nio_worker *worker = nio_worker_current();
    nio_multi_reset(&stream->multi);
    stream->multi.op._flags = worker->index << NIO_OP_WORKER_SHIFT;
    stream->is_armed = true;
    nio_driver_submit_multi(worker->driver, &stream->multi);
}

/* Asks the kernel, or the timers.  0, or why it cannot. */
static int arm(struct numio_stream *stream)
{
    struct nio_multi *multi = &stream->multi;
    if (NIO_UNLIKELY(nio_is_direct(stream->fd)))
        nio_co_go_to(nio_co_current(), nio_direct_worker(stream->fd));
    switch (multi->kind) {
    case NIO_MULTI_ACCEPT:
        nio_multi_prep_accept(multi, stream->fd, stream->flags);
        break;
    case NIO_MULTI_POLL:
        nio_multi_prep_poll(multi, stream->fd, stream->events);
        break;
    case NIO_MULTI_RECV:
        return nio_stream_arm_recv(stream);
    case NIO_MULTI_TICK:
        return 0; /* armed once, when it was opened */
    }
    nio_stream_arm(stream);
    return 0;
}

int nio_stream_wait(struct nio_co *co, struct numio_stream *stream)
{
    bool is_busy;
    int stop = nio_co_stop(co);
    if (NIO_UNLIKELY(stop))
        return stop;
    if (!nio_multi_wait(&stream->multi, &co->task, &is_busy))
        return is_busy ? nio_error(-EBUSY, "stream: another task waits for it") : 0;
    nio_co_suspend(co);
    nio_multi_unwait(&stream->multi, &co->task);
    return 0;
}

bool nio_stream_ended(struct numio_stream *stream, int64_t *ret_result)
{
    int32_t result = stream->multi.op._result;
    stream->is_armed = false;
    *ret_result = result;
    if (result == -EINVAL && !stream->is_plain && !is_recv(stream)) {
        stream->is_plain = true; /* asked one by one it tells whether anything is wrong */
        return false;
    }
    return result < 0 && result != -ECANCELED && result != -ENOBUFS && result != -EINTR;
}

/* One result by a request of its own. */
static int64_t next_plainly(const struct numio_stream *stream)
{
    if (stream->multi.kind == NIO_MULTI_ACCEPT)
        return numio_accept(stream->fd, NULL, NULL, stream->flags);
    return numio_poll_fd(stream->fd, stream->events);
}

/* What has come, without waiting.  False: nothing. */
static bool take(struct numio_stream *stream, int64_t *ret_result)
{
    struct nio_multi *multi = &stream->multi;
    if (multi->kind == NIO_MULTI_ACCEPT) {
        uint32_t index;
        int32_t result = 0;
        bool has_come = nio_multi_take(multi, &index, &result);
        *ret_result = result;
        return has_come;
    }
    uint32_t sum = nio_multi_take_sum(multi);
    *ret_result = sum;
    return sum > 0;
}

int64_t numio_stream_next(struct numio_stream *stream)
{
    struct nio_co *co = nio_co_current();
    int64_t result;
    int rc = nio_stream_check(co, stream, false);
    if (NIO_UNLIKELY(rc))
        return rc;
    for (;;) { /* until something has come, or the wait is over */
        if (take(stream, &result)) {
            nio_co_charge(co);
            return result;
        }
        bool has_ended = stream->is_armed && nio_multi_look(&stream->multi);
        if (take(stream, &result)) /* what came before the look */
            return result;
        if (has_ended && nio_stream_ended(stream, &result))
            return result;
        if (!stream->is_armed && stream->is_stopped)
            return -ECANCELED;
        if (!stream->is_armed && stream->is_plain)
            return next_plainly(stream);
        if (NIO_UNLIKELY((rc = nio_co_stop(co)) < 0))
            return rc;
        if (!stream->is_armed && (rc = arm(stream)) < 0)
            return rc;
        if (NIO_UNLIKELY((rc = nio_stream_wait(co, stream)) < 0))
            return rc;
    }
}

/* ---- opening ------------------------------------------------------------------------------ */

/* The items of accepted connections: an entry for each descriptor that the process can ever have,
 * as address space, of which memory is only what is used. */
static struct nio_multi_item *descriptor_items;
static uint32_t descriptor_count;

static void map_descriptor_items(void)
{
    struct rlimit files;
    uint32_t count = UINT32_MAX / 4;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max < count)
        count = (uint32_t)files.rlim_max;
    void *items = mmap(NULL, (size_t)count * sizeof(struct nio_multi_item), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (items == MAP_FAILED)
        return;
    descriptor_items = items;
    descriptor_count = count;
}

static int open_stream(enum nio_multi_kind kind, int fd, int flags,
                       struct numio_stream **ret_stream)
{
    struct nio_co *co = nio_co_current();
    if (!co)
        return nio_error(-EINVAL, "stream: not opened from a coroutine");
    struct nio_worker *worker = nio_worker_current();
    if (!nio_is_own_process(worker->handle))
        return nio_refuse_forked_child();
    if (nio_is_direct(fd) && nio_direct_worker(fd) >= worker->handle->worker_count)
        return nio_error(-EBADF, "descriptor %d is none: no worker has such a direct one", fd);
    int stop = nio_co_stop(co);
    if (stop)
        return stop;
    struct numio_stream *stream = nio_zalloc(sizeof *stream);
    if (!stream)
        return nio_error(-ENOMEM, "no memory for a stream of %zu bytes", sizeof *stream);
    stream->multi.kind = kind;
    stream->fd = fd;
    stream->flags = flags;
    stream->is_plain = kind != NIO_MULTI_TICK && !nio_driver_has_ring(worker->driver);
    nio_count(&worker->counters.streams_opened, 1);
    *ret_stream = stream;
    return 0;
}

int numio_accept_stream(int fd, int flags, struct numio_stream **ret_stream)
{
    int rc = open_stream(NIO_MULTI_ACCEPT, fd, flags, ret_stream);
    if (rc < 0)
        return rc;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, map_descriptor_items); /* cannot fail */
    struct nio_multi *multi = &(*ret_stream)->multi;
    multi->items = descriptor_items;
    multi->item_count = descriptor_count;
    if (multi->items)
        return 0;
    (void)numio_stream_close(ret_stream); /* it is not armed */
    return nio_error(-ENOMEM, "accept stream: no address space for a table of the descriptors that "
                              "RLIMIT_NOFILE allows; lower its hard limit (ulimit -Hn)");
}

int numio_poll_stream(int fd, uint32_t events, struct numio_stream **ret_stream)
{
    int rc = open_stream(NIO_MULTI_POLL, fd, 0, ret_stream);
    if (rc == 0)
        (*ret_stream)->events = events;
    return rc;
}

int numio_interval_stream(uint64_t period_ns, struct numio_stream **ret_stream)
{
    if (period_ns == 0)
        return nio_error(-EINVAL, "interval stream: the period is 0 ns");
    int rc = open_stream(NIO_MULTI_TICK, -1, 0, ret_stream);
    if (rc < 0)
        return rc;
    struct numio_stream *stream = *ret_stream;
    struct nio_worker *worker = nio_worker_current();
    stream->is_armed = true;
    nio_driver_submit_ticks(worker->driver, &stream->multi, period_ns,
                            nio_timeline_now_ns(&worker->handle->timeline));
    stream->multi.op._flags = worker->index << NIO_OP_WORKER_SHIFT;
    return 0;
}

static int open_recv(int fd, int flags, struct numio_stream **ret_stream)
{
    if (flags & (MSG_WAITALL | MSG_PEEK))
        return nio_error(-EINVAL, "recv stream: MSG_WAITALL and MSG_PEEK have no meaning for one");
    return open_stream(NIO_MULTI_RECV, fd, flags, ret_stream);
}

int numio_recv_stream(int fd, int flags, struct numio_stream **ret_stream)
{
    return open_recv(fd, flags, ret_stream);
}

int numio_recvmsg_stream(int fd, int flags, size_t name_bytes, size_t control_bytes,
                         struct numio_stream **ret_stream)
{
    int rc = nio_stream_check_header(name_bytes, control_bytes);
    if (rc == 0)
        rc = open_recv(fd, flags, ret_stream);
    if (rc < 0)
        return rc;
    struct numio_stream *stream = *ret_stream;
    stream->has_header = true;
    stream->header.msg_namelen = (socklen_t)name_bytes;
    stream->header.msg_controllen = control_bytes;
    return 0;
}

/* ---- ending ------------------------------------------------------------------------------- */

int numio_stream_stop(struct numio_stream *stream)
{
    struct nio_co *co = nio_co_current();
    int rc = nio_stream_check(co, stream, is_recv(stream));
    if (rc < 0)
        return rc;
    stream->is_stopped = true;
    bool was_armed = stream->is_armed;
    if (stream->is_armed && !nio_multi_look(&stream->multi)) {
        nio_co_go_to(co, nio_op_worker(&stream->multi.op)); /* who alone may cancel there */
        nio_driver_cancel(nio_worker_current()->driver, &stream->multi.op);
    }
    while (stream->is_armed && !nio_multi_look(&stream->multi)) { /* until the kernel lets go */
        bool is_busy;
        if (!nio_multi_wait(&stream->multi, &co->task, &is_busy)) {
            if (is_busy)
                return nio_error(-EBUSY, "stream: another task waits for it");
            continue;
        }
        nio_co_suspend(co);
        nio_multi_unwait(&stream->multi, &co->task);
    }
    stream->is_armed = false;
    if (was_armed && is_recv(stream))
        nio_stream_end_recv(stream);
    return 0;
}

int numio_stream_close(struct numio_stream **stream)
{
    struct numio_stream *ended = *stream;
    uint32_t index;
    int32_t fd;
    if (!ended)
        return 0;
    int rc = numio_stream_stop(ended);
    if (rc < 0)
        return rc;
    if (ended->multi.kind == NIO_MULTI_ACCEPT)
        while (nio_multi_take(&ended->multi, &index, &fd))
            (void)close(fd); /* nobody took it, nobody can be told */
    if (is_recv(ended))
        nio_stream_drop_recv(ended);
    nio_count(&nio_worker_current()->counters.streams_closed, 1);
    nio_free(ended);
    *stream = NULL;
    return 0;
}
