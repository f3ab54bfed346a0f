/* SPDX-License-Identifier: MIT */
/* Direct descriptors: made in the table of the worker's ring, with an entry reserved before, since
 * the kernel drops what it finds no entry for. */
#include <numio/direct.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>

#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/sched/await.h"

enum { DIRECT_MIN = 16 };

bool numio_is_direct(int fd)
{
    return nio_is_direct(fd);
}

/* Makes the calling worker's table, smaller where the kernel refuses the memory. */
static void make_table(struct nio_worker *worker)
{
    unsigned wanted = worker->handle->config.direct_descriptors, count = wanted;
    int error = nio_driver_add_files(worker->driver, count);
    while ((error == -ENOMEM || error == -EMFILE) && count / 2 >= DIRECT_MIN) {
        count /= 2; /* more than RLIMIT_NOFILE is -EMFILE */
        error = nio_driver_add_files(worker->driver, count);
    }
    struct rlimit locked = { 0 };
    (void)getrlimit(RLIMIT_MEMLOCK, &locked); /* only a number for the sentence */
    if (error == -ENOMEM || (error == 0 && count < wanted))
        (void)fprintf(
            stderr,
            "numio: worker %u has %u direct descriptors instead of %u: the kernel refused "
            "the memory, or RLIMIT_NOFILE is lower (ulimit -n); RLIMIT_MEMLOCK is %llu "
            "bytes (ulimit -l)\n",
            worker->index, error ? 0 : count, wanted,
            (unsigned long long)locked.rlim_cur); /* a hint only */
    worker->direct_state = error ? NIO_DIRECT_NONE : NIO_DIRECT_MADE;
    /* relaxed: nobody has used it yet */
    atomic_store_explicit(&worker->direct_free, error ? 0 : count, memory_order_relaxed);
}

/* Takes an entry of the calling worker's table.  NULL: there is none. */
static struct nio_worker *reserve(void)
{
    struct nio_worker *worker = nio_worker_current();
    if (!nio_co_current() || !nio_is_own_process(worker->handle))
        return NULL; /* the plain call says what is wrong */
    if (worker->direct_state == NIO_DIRECT_UNKNOWN)
        make_table(worker);
    /* relaxed in all: a number that goes with nothing else; only this worker takes */
    if (atomic_load_explicit(&worker->direct_free, memory_order_relaxed) == 0)
        return NULL;
    /* relaxed: as above */
    (void)atomic_fetch_sub_explicit(&worker->direct_free, 1, memory_order_relaxed);
    return worker;
}

static void give_back(struct nio_worker *worker)
{
    /* relaxed: as above */
    (void)atomic_fetch_add_explicit(&worker->direct_free, 1, memory_order_relaxed);
}

/* Awaits an operation whose file goes into the table of `worker`, which is the calling one. */
static int64_t into_table(struct nio_worker *worker, struct numio_op *op)
{
    nio_op_into_table(op);
    int64_t result = numio_op_await(op);
    if (result < 0) {
        give_back(worker);
        return result;
    }
    int fd = nio_direct_fd(worker->index, (unsigned)result);
    if (!numio_is_cancelled())
        return fd;
    (void)numio_close(fd); /* came too late for the aborted task */
    return -ECANCELED;
}

int64_t numio_accept_direct(int fd, struct sockaddr *addr, socklen_t *addr_len, int flags)
{
    struct numio_op op;
    if (nio_is_direct(fd) && nio_co_current())
        nio_co_go_to(nio_co_current(), nio_direct_worker(fd));
    struct nio_worker *worker = reserve();
    if (!worker)
        return numio_accept(fd, addr, addr_len, flags);
    numio_op_accept(&op, fd, addr, addr_len, flags & ~SOCK_CLOEXEC);
    return into_table(worker, &op);
}

int64_t numio_openat_direct(int dirfd, const char *path, int flags, mode_t mode)
{
    struct numio_op op;
    struct nio_worker *worker = reserve();
    if (!worker)
        return numio_openat(dirfd, path, flags, mode);
    numio_op_openat(&op, dirfd, path, flags & ~O_CLOEXEC, mode);
    return into_table(worker, &op);
}

int64_t numio_socket_direct(int domain, int type, int protocol)
{
    struct numio_op op;
    nio_op_socket(&op, domain, type & ~SOCK_CLOEXEC, protocol);
    struct nio_worker *worker = nio_knows_op(&op) ? reserve() : NULL;
    if (worker)
        return into_table(worker, &op);
    if (!nio_co_current())
        return nio_error(-EINVAL, "numio_socket_direct: not called from a coroutine");
    int fd = socket(domain, type, protocol);
    return fd < 0 ? -errno : fd;
}

int64_t numio_direct_from(int fd)
{
    struct numio_op op;
    int slot = fd;
    struct nio_worker *worker = nio_is_direct(fd) ? NULL : reserve();
    if (!nio_co_current())
        return nio_error(-EINVAL, "numio_direct_from: not called from a coroutine");
    if (nio_is_direct(fd))
        return nio_error(-EINVAL, "numio_direct_from: the descriptor is a direct one already");
    if (!worker) {
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        return copy < 0 ? -errno : copy;
    }
    nio_op_files_update(&op, &slot);
    int64_t result = numio_op_await(&op);
    if (result == 1 && numio_is_cancelled()) {
        (void)numio_close(nio_direct_fd(worker->index, (unsigned)slot)); /* as above */
        return -ECANCELED;
    }
    if (result == 1)
        return nio_direct_fd(worker->index, (unsigned)slot);
    give_back(worker);
    return result < 0 ? result : -EBADF;
}
