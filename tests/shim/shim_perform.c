/* SPDX-License-Identifier: MIT */
/* Requests that are performed, by the system call of their name, once their descriptor is ready:
 * real data on real descriptors through a simulated ring.  Only what the tests need.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/shim/shim_ring.h"

/* What the descriptor must be ready for; 0: nothing, the request can be performed at once. */
static short awaited_events(const struct io_uring_sqe *sqe)
{
    switch (sqe->opcode) {
    case IORING_OP_READ:
    case IORING_OP_RECV:
    case IORING_OP_ACCEPT:
        return POLLIN;
    case IORING_OP_WRITE:
    case IORING_OP_SEND:
        return POLLOUT;
    case IORING_OP_POLL_ADD:
        return (short)sqe->poll32_events;
    default:
        return 0;
    }
}

static ssize_t transfer(const struct io_uring_sqe *sqe, size_t bytes)
{
    void *buffer = (void *)(uintptr_t)sqe->addr;
    int fd = sqe->fd;
    bool has_place = sqe->off != UINT64_MAX;
    switch (sqe->opcode) {
    case IORING_OP_READ:
        return has_place ? pread(fd, buffer, bytes, (off_t)sqe->off) : read(fd, buffer, bytes);
    case IORING_OP_WRITE:
        return has_place ? pwrite(fd, buffer, bytes, (off_t)sqe->off) : write(fd, buffer, bytes);
    case IORING_OP_RECV:
        return recv(fd, buffer, bytes, (int)sqe->msg_flags | MSG_DONTWAIT);
    default:
        return send(fd, buffer, bytes, (int)sqe->msg_flags | MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

static int64_t perform(const struct shim_request *request)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    size_t bytes = sqe->len;
    if (request->plan.bytes_max && request->plan.bytes_max < bytes)
        bytes = request->plan.bytes_max;
    switch (sqe->opcode) {
    case IORING_OP_NOP:
        return 0;
    case IORING_OP_READ:
    case IORING_OP_WRITE:
    case IORING_OP_RECV:
    case IORING_OP_SEND:
        return transfer(sqe, bytes);
    case IORING_OP_ACCEPT:
        return accept4(sqe->fd, (struct sockaddr *)(uintptr_t)sqe->addr,
                       (socklen_t *)(uintptr_t)sqe->addr2, (int)sqe->accept_flags);
    case IORING_OP_CONNECT:
        return connect(sqe->fd, (const struct sockaddr *)(uintptr_t)sqe->addr, (socklen_t)sqe->off);
    case IORING_OP_OPENAT:
        return openat(sqe->fd, (const char *)(uintptr_t)sqe->addr, (int)sqe->open_flags, sqe->len);
    case IORING_OP_CLOSE:
        return close(sqe->fd);
    case IORING_OP_SHUTDOWN:
        return shutdown(sqe->fd, (int)sqe->len);
    default:
        errno = EOPNOTSUPP;
        return -1;
    }
}

/* Tries one; true: it has ended. */
static bool try_one(struct shim_ring *ring, const struct shim_request *request)
{
    struct pollfd look = { .fd = request->sqe.fd, .events = awaited_events(&request->sqe) };
    if (look.events && poll(&look, 1, 0) == 0)
        return false;
    if (request->sqe.opcode == IORING_OP_POLL_ADD) {
        if (request->sqe.len & IORING_POLL_ADD_MULTI) {
            eventfd_t value; /* the driver's watch on its eventfd: it is told each time */
            (void)eventfd_read(request->sqe.fd, &value);
            shim_ring_post(
                ring, (struct shim_cqe){ request->sqe.user_data, look.revents, IORING_CQE_F_MORE });
            return false;
        }
        shim_ring_complete(ring, request, look.revents);
        return true;
    }
    int64_t result = perform(request);
    if (result < 0 && errno == EAGAIN)
        return false;
    shim_ring_complete(ring, request, result < 0 ? -errno : (int32_t)result);
    return true;
}

bool shim_perform_waiting(struct shim_ring *ring)
{
    bool did_end = false;
    for (unsigned i = 0; i < ring->waiting_count;) {
        struct shim_request request = ring->waiting[i];
        if (!try_one(ring, &request)) {
            i++;
            continue;
        }
        for (unsigned k = i; k + 1 < ring->waiting_count; k++) /* those behind keep their order */
            ring->waiting[k] = ring->waiting[k + 1];
        ring->waiting_count--;
        did_end = true;
    }
    return did_end;
}

void shim_perform_wait(struct shim_ring *ring, uint64_t until_ns)
{
    struct pollfd fds[SHIM_WAITING_MAX + 1];
    unsigned count = 0;
    for (unsigned i = 0; i < ring->waiting_count; i++)
        fds[count++] = (struct pollfd){ .fd = ring->waiting[i].sqe.fd,
                                        .events = awaited_events(&ring->waiting[i].sqe) };
    fds[count++] = (struct pollfd){ .fd = ring->fd, .events = POLLIN };
    uint64_t now_ns = shim_now_ns();
    uint64_t left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    struct timespec left = { (time_t)(left_ns / 1000000000), (long)(left_ns % 1000000000) };
    (void)pthread_mutex_unlock(&ring->mutex);
    (void)ppoll(fds, count, until_ns == SHIM_NEVER ? NULL : &left, NULL); /* looks again */
    (void)pthread_mutex_lock(&ring->mutex);
    eventfd_t kicks;
    (void)eventfd_read(ring->fd, &kicks); /* empty: nobody kicked */
}
