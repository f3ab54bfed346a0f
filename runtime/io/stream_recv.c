/* SPDX-License-Identifier: MIT */
/* Streams of received data, and the buffers of a worker that they fill.
 *
 * A request that ends with -ENOBUFS found the worker's buffers all in use.  If none has been given
 * back since it was armed, the task waits in the group to be handed one, and receives into that by
 * a request of its own; else it is armed again.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <numio/io.h>

#include "alloc/io_buffer.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/io/stream.h"

/* What stands at the head of a buffer that recvmsg has filled: struct io_uring_recvmsg_out. */
struct head {
    uint32_t name_len, control_len, payload_len, flags;
};

/* ---- the buffers of a worker -------------------------------------------------------------- */

static void free_memory(struct nio_worker *worker)
{
    struct nio_buf_memory *memory = &worker->recv_memory;
    nio_io_buffer_free(worker->node->arena, memory->buffers, memory->buffer_bytes * memory->count,
                       0);
    nio_io_buffer_free(worker->node->arena, memory->entries, nio_buf_entries_bytes(memory->count),
                       0);
    *memory = (struct nio_buf_memory){ 0 };
}

/* Whether a receive can have many results (Linux 6.0).  No probe tells; the zero-copy send, which
 * came with the same kernel, is an opcode, and of those they do. */
static bool has_recv_of_many(const struct nio_worker *worker)
{
    struct numio_op send_zc;
    numio_op_send_zc(&send_zc, -1, NULL, 0, 0);
    return nio_op_is_known(&send_zc, worker->handle->profile, worker->handle->opcodes);
}

static int make_group(struct nio_worker *worker, uint32_t count)
{
    struct nio_buf_memory *memory = &worker->recv_memory;
    memory->count = count;
    memory->buffer_bytes = worker->handle->config.recv_buffer_bytes;
    memory->buffers =
        nio_io_buffer_alloc(worker->node->arena, memory->buffer_bytes * memory->count, 0);
    memory->entries =
        nio_io_buffer_alloc(worker->node->arena, nio_buf_entries_bytes(memory->count), 0);
    int error = memory->buffers && memory->entries ? 0 : -ENOMEM;
    if (!error)
        error = nio_driver_add_buffers(worker->driver, memory, has_recv_of_many(worker),
                                       &worker->recv_buffers);
    if (error)
        free_memory(worker);
    return error;
}

/* Has numio_status_reason() say so. */
static void note_fewer(struct nio_worker *worker, uint32_t count, const struct rlimit *locked)
{
    const struct numio_config *config = &worker->handle->config;
    char text[200];
    (void)snprintf(
        text, sizeof text,
        "worker %u has %u receive buffers of %zu bytes instead of %u: the kernel refused "
        "the memory; RLIMIT_MEMLOCK is %llu bytes (ulimit -l)",
        worker->index, count, config->recv_buffer_bytes, config->recv_buffers,
        (unsigned long long)locked->rlim_cur); /* fits, or is cut */
    /* [SR1] release: the sentence is complete.  Pairs with the reader's acquire. */
    atomic_store_explicit(&worker->recv_reason, nio_strdup(text), memory_order_release);
}

/* The calling worker's buffers, made when they are first needed; fewer where memory is short. */
static int own_group(struct nio_buf_group **ret_group)
{
    struct nio_worker *worker = nio_worker_current();
    uint32_t wanted = worker->handle->config.recv_buffers, count = wanted;
    int error = 0;
    while (!worker->recv_buffers && (error = make_group(worker, count)) == -ENOMEM &&
           count / 2 >= NIO_BUF_GROUP_MIN)
        count /= 2;
    struct rlimit locked = { 0 };
    if (error || count < wanted)
        (void)getrlimit(RLIMIT_MEMLOCK, &locked); /* only a number for the sentence */
    if (error)
        return nio_error(error,
                         "no memory for %u receive buffers of %zu bytes; RLIMIT_MEMLOCK is "
                         "%llu bytes (ulimit -l)",
                         count, worker->handle->config.recv_buffer_bytes,
                         (unsigned long long)locked.rlim_cur);
    if (count < wanted)
        note_fewer(worker, count, &locked);
    *ret_group = worker->recv_buffers;
    return 0;
}

void nio_recv_buffers_free(struct nio_worker *worker)
{
    if (worker->recv_buffers)
        free_memory(worker);
    worker->recv_buffers = NULL; /* destroyed with the driver */
}

int nio_stream_check_header(size_t name_bytes, size_t control_bytes)
{
    const struct nio_worker *worker = nio_worker_current();
    if (!worker)
        return nio_error(-EINVAL, "stream: not opened from a coroutine");
    size_t room = worker->handle->config.recv_buffer_bytes - sizeof(struct head);
    if (name_bytes >= room || control_bytes >= room - name_bytes)
        return nio_error(-EINVAL,
                         "recvmsg stream: a name of %zu and control data of %zu bytes "
                         "leave no room in a buffer of %zu (recv_buffer_bytes)",
                         name_bytes, control_bytes, room + sizeof(struct head));
    return 0;
}

/* ---- chunks ------------------------------------------------------------------------------- */

void numio_chunk_release(struct numio_chunk *chunk)
{
    if (chunk->_group)
        nio_buf_give_back(chunk->_group, chunk->_index);
    memset(chunk, 0, sizeof *chunk);
}

void nio_stream_end_recv(struct numio_stream *stream)
{
    if (stream->multi.op._result == -ENOBUFS)
        nio_buf_give_up(stream->group);
}

void nio_stream_drop_recv(struct numio_stream *stream)
{
    uint32_t index;
    int32_t result;
    while (nio_multi_take(&stream->multi, &index, &result))
        nio_buf_give_back(stream->group, index);
}

/* Reads the head that recvmsg has written, as io_uring_recvmsg_validate() does; `bytes` of the
 * buffer are filled. */
static void describe_message(const struct numio_stream *stream, size_t bytes,
                             struct numio_chunk *chunk)
{
    char *at = chunk->data;
    struct head head = { 0 };
    size_t name_room = stream->header.msg_namelen, control_room = stream->header.msg_controllen;
    size_t before = sizeof head + name_room + control_room;
    memcpy(&head, at, sizeof head);
    chunk->msg_flags = head.flags;
    chunk->name_len = head.name_len < name_room ? head.name_len : (socklen_t)name_room;
    chunk->name = chunk->name_len ? (struct sockaddr *)(void *)(at + sizeof head) : NULL;
    chunk->control_len = head.control_len < control_room ? head.control_len : control_room;
    chunk->control = chunk->control_len ? at + sizeof head + name_room : NULL;
    chunk->data = at + before;
    chunk->len = bytes > before ? bytes - before : 0;
}

static struct numio_chunk make_chunk(struct nio_buf_group *group, uint32_t index)
{
    return (
        struct numio_chunk){ .data = nio_buf_of(group, index), ._group = group, ._index = index };
}

/* What has come.  False: nothing. */
static bool take(struct numio_stream *stream, struct numio_chunk *ret_chunk)
{
    uint32_t index;
    int32_t result;
    if (!nio_multi_take(&stream->multi, &index, &result))
        return false;
    *ret_chunk = make_chunk(stream->group, index);
    if (result <= 0) { /* the last one, which tells the end; the buffer comes empty with it */
        numio_chunk_release(ret_chunk);
        return false;
    }
    ret_chunk->len = (size_t)result;
    if (stream->has_header)
        describe_message(stream, (size_t)result, ret_chunk);
    return true;
}

/* ---- waiting ------------------------------------------------------------------------------ */

int nio_stream_arm_recv(struct numio_stream *stream)
{
    struct nio_multi *multi = &stream->multi;
    if (NIO_UNLIKELY(nio_is_direct(stream->fd)))
        nio_co_go_to(nio_co_current(), nio_direct_worker(stream->fd));
    int rc = own_group(&stream->group);
    if (rc < 0)
        return rc;
    stream->given = nio_buf_given(stream->group);
    multi->items = stream->group->items;
    multi->item_count = stream->group->count;
    if (!stream->group->ring) { /* the kernel cannot pick a buffer, or only once */
        stream->is_plain = true;
        return 0;
    }
    if (stream->has_header)
        nio_multi_prep_recvmsg(multi, stream->fd, &stream->header, stream->flags);
    else
        nio_multi_prep_recv(multi, stream->fd, stream->flags);
    nio_stream_arm(stream);
    return 0;
}

/* Gets a buffer, which is then the caller's, and suspends until there is one: 1.  0: one has gone
 * to the ring since `given`, ask the kernel again. */
static int get_buffer(struct nio_co *co, struct nio_buf_group *group, uint64_t given,
                      uint32_t *ret_index)
{
    struct nio_buf_waiter waiter;
    enum nio_buf_claim claim = nio_buf_claim(group, given, &waiter, &co->task);
    if (claim == NIO_BUF_AGAIN)
        return 0;
    if (claim == NIO_BUF_WAIT) {
        nio_co_suspend(co);
        if (!nio_buf_unwait(group, &waiter))
            return nio_co_stop(co);
    }
    *ret_index = waiter.index;
    return 1;
}

/* Receives into a buffer that was taken, without waiting. */
static int64_t recv_now(const struct numio_stream *stream, void *buffer, size_t bytes)
{
    int flags = stream->flags | MSG_DONTWAIT;
    if (!stream->has_header)
        return numio_recv(stream->fd, buffer, bytes, flags);
    size_t name_room = stream->header.msg_namelen, control_room = stream->header.msg_controllen;
    size_t before = sizeof(struct head) + name_room + control_room;
    struct iovec iov = { (char *)buffer + before, bytes - before };
    struct msghdr header = { .msg_name = (char *)buffer + sizeof(struct head),
                             .msg_namelen = (socklen_t)name_room,
                             .msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = (char *)buffer + sizeof(struct head) + name_room,
                             .msg_controllen = control_room };
    int64_t n = numio_recvmsg(stream->fd, &header, flags);
    if (n < 0)
        return n;
    struct head head = { header.msg_namelen, (uint32_t)header.msg_controllen, (uint32_t)n,
                         (uint32_t)header.msg_flags };
    memcpy(buffer, &head, sizeof head);
    return n + (int64_t)before;
}

/* One chunk, without waiting, into a buffer that is the caller's. */
static int64_t recv_into(struct numio_stream *stream, uint32_t index, struct numio_chunk *ret_chunk)
{
    *ret_chunk = make_chunk(stream->group, index);
    int64_t n = recv_now(stream, ret_chunk->data, stream->group->buffer_bytes);
    if (n <= 0) {
        numio_chunk_release(ret_chunk);
        return n;
    }
    ret_chunk->len = (size_t)n;
    if (stream->has_header)
        describe_message(stream, (size_t)n, ret_chunk);
    return (int64_t)ret_chunk->len;
}

/* One chunk by requests of its own: a buffer is taken once there is something to receive. */
static int64_t recv_plainly(struct nio_co *co, struct numio_stream *stream,
                            struct numio_chunk *ret_chunk)
{
    for (;;) { /* another reader of the socket may be faster, again and again */
        uint32_t index;
        int64_t rc = numio_poll_fd(stream->fd, POLLIN | POLLRDHUP);
        if (rc < 0)
            return rc;
        if ((rc = own_group(&stream->group)) < 0)
            return rc;
        if ((rc = get_buffer(co, stream->group, 0, &index)) < 0)
            return rc;
        rc = recv_into(stream, index, ret_chunk);
        if (rc != -EAGAIN)
            return rc;
    }
}

/* The request has ended for want of a buffer.  -EAGAIN: it is to be armed again. */
static int64_t recv_refused(struct nio_co *co, struct numio_stream *stream,
                            struct numio_chunk *ret_chunk)
{
    uint32_t index;
    int rc = stream->is_stopped ? -ECANCELED : nio_co_stop(co);
    if (rc) {
        nio_buf_give_up(stream->group);
        return rc;
    }
    if ((rc = get_buffer(co, stream->group, stream->given, &index)) < 0)
        return rc;
    int64_t n = rc > 0 ? recv_into(stream, index, ret_chunk) : -EAGAIN;
    return n == -EINTR ? -EAGAIN : n;
}

int64_t numio_stream_recv(struct numio_stream *stream, struct numio_chunk *ret_chunk)
{
    struct nio_co *co = nio_co_current();
    int64_t result = 0;
    int rc = nio_stream_check(co, stream, true);
    memset(ret_chunk, 0, sizeof *ret_chunk);
    if (NIO_UNLIKELY(rc))
        return rc;
    for (;;) { /* until something has come, or the wait is over */
        if (take(stream, ret_chunk)) {
            nio_co_charge(co);
            return (int64_t)ret_chunk->len;
        }
        bool has_ended = stream->is_armed && nio_multi_look(&stream->multi);
        if (take(stream, ret_chunk)) /* what came before the look */
            return (int64_t)ret_chunk->len;
        if (has_ended && (nio_stream_ended(stream, &result) || result == 0))
            return result;
        if (has_ended && result == -ENOBUFS &&
            (result = recv_refused(co, stream, ret_chunk)) != -EAGAIN)
            return result;
        if (!stream->is_armed && stream->is_stopped)
            return -ECANCELED;
        if (!stream->is_armed && stream->is_plain)
            return recv_plainly(co, stream, ret_chunk);
        if (NIO_UNLIKELY((rc = nio_co_stop(co)) < 0))
            return rc;
        if (!stream->is_armed && (rc = nio_stream_arm_recv(stream)) < 0)
            return rc;
        if (!stream->is_armed)
            continue; /* it has turned out to be a plain one */
        if (NIO_UNLIKELY((rc = nio_stream_wait(co, stream)) < 0))
            return rc;
    }
}
