/* SPDX-License-Identifier: MIT */
/* What is registered with rings: memory, a table of files, receive buffers.
 *
 * Memory is pinned once by the kernel, and a request that reads into it or writes from it need not
 * look up and pin its pages.  All of a node's is one buffer, number 0, of each of its rings.  Where
 * the kernel can (6.12) they share one registration, so that the pages are counted once against
 * RLIMIT_MEMLOCK.  It is that of a ring which does nothing else: of a ring with a single issuer
 * only that thread may copy it.  Which requests use it is seen from their addresses: the calls are
 * the same.
 */
#include <errno.h>
#include <liburing.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/mem.h"
#include "runtime/driver/driver_impl.h"
#include "runtime/driver/polled.h"

/* Of the kernel's header, where it is newer than liburing's. */
enum { REGISTER_CLONE_BUFFERS = 30, SEND_FIXED_BUF = 1 << 2 };

struct clone_buffers {
    uint32_t src_fd, flags, src_off, dst_off, count, pad[3];
};

struct nio_registration {
    struct io_uring ring; /* ring_fd -1: the kernel cannot share */
    void *memory;
    size_t bytes;
};

static int register_with(struct io_uring *ring, const struct nio_registration *registration)
{
    struct iovec all = { registration->memory, registration->bytes };
    return nio_fault_now() ? -ENOMEM : io_uring_register_buffers(ring, &all, 1);
}

static int clone_into(const struct io_uring *ring, const struct nio_registration *registration)
{
    struct clone_buffers clone = { .src_fd = (uint32_t)registration->ring.ring_fd };
    if (registration->ring.ring_fd < 0)
        return -EINVAL;
    return syscall(SYS_io_uring_register, ring->ring_fd, REGISTER_CLONE_BUFFERS, &clone, 1) < 0
               ? -errno
               : 0;
}

static void close_ring(struct nio_registration *registration)
{
    if (registration->ring.ring_fd >= 0)
        io_uring_queue_exit(&registration->ring);
    registration->ring.ring_fd = -1;
}

/* Whether another ring can have it: tried with one that is thrown away. */
static bool can_share(const struct nio_registration *registration)
{
    struct io_uring other;
    if (io_uring_queue_init(1, &other, 0) < 0)
        return false;
    bool can = clone_into(&other, registration) == 0;
    io_uring_queue_exit(&other);
    return can;
}

int nio_registration_create(void *memory, size_t bytes, struct nio_registration **ret_registration)
{
    struct nio_registration *registration = nio_zalloc(sizeof *registration);
    if (!registration)
        return -ENOMEM;
    registration->memory = memory;
    registration->bytes = bytes;
    int error = io_uring_queue_init(1, &registration->ring, 0);
    if (error)
        registration->ring.ring_fd = -1;
    else
        error = register_with(&registration->ring, registration);
    if (error) {
        nio_registration_destroy(registration);
        return error;
    }
    if (!can_share(registration))
        close_ring(registration);
    *ret_registration = registration;
    return 0;
}

void nio_registration_destroy(struct nio_registration *registration)
{
    if (!registration)
        return;
    close_ring(registration);
    nio_free(registration);
}

/* Shared, or of its own. */
static int add_to(struct io_uring *ring, const struct nio_registration *registration)
{
    int error = clone_into(ring, registration);
    return error ? register_with(ring, registration) : 0;
}

int nio_driver_use_registration(struct nio_driver *driver,
                                const struct nio_registration *registration)
{
    struct io_uring *ring = nio_uring_ring(driver);
    int error = add_to(ring, registration);
    if (!error && driver->polled) {
        error = add_to(&driver->polled->ring, registration);
        if (error)
            (void)io_uring_unregister_buffers(ring); /* both or none */
    }
    if (!error) {
        driver->registered = registration->memory;
        driver->registered_bytes = registration->bytes;
    }
    return error;
}

void nio_registered_use(struct nio_driver *driver, struct io_uring_sqe *sqe)
{
    uint64_t offset = sqe->addr - (uintptr_t)driver->registered;
    if (offset >= driver->registered_bytes || sqe->len > driver->registered_bytes - offset)
        return;
    switch (sqe->opcode) {
    case IORING_OP_READ:
        sqe->opcode = IORING_OP_READ_FIXED;
        break;
    case IORING_OP_WRITE:
        sqe->opcode = IORING_OP_WRITE_FIXED;
        break;
    case IORING_OP_SEND_ZC:
        sqe->ioprio |= SEND_FIXED_BUF;
        break;
    default:
        return;
    }
    sqe->buf_index = 0;
    nio_tally_add(&driver->by_owner.fixed, 1);
}

/* ---- files and receive buffers ------------------------------------------------------------ */

int nio_driver_add_files(struct nio_driver *driver, unsigned count)
{
    if (!nio_driver_has_ring(driver))
        return -EINVAL;
    if (nio_fault_now())
        return -ENOMEM;
    return io_uring_register_files_sparse(nio_uring_ring(driver), count);
}

int nio_driver_add_buffers(struct nio_driver *driver, const struct nio_buf_memory *memory,
                           bool may_have_ring, struct nio_buf_group **ret_group)
{
    bool has_ring = may_have_ring && nio_driver_has_ring(driver);
    struct io_uring *ring = has_ring ? nio_uring_ring(driver) : NULL;
    int error = nio_buf_group_create(ring, memory, ret_group);
    if (!error)
        driver->buffers = *ret_group;
    return error;
}
