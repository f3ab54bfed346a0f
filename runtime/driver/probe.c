/* SPDX-License-Identifier: MIT */
/* What this process may do with io_uring, found by doing it: a small ring is made in each way, and
 * the kernel is asked which opcodes it knows.  Kernel versions are not looked at, because
 * distributions move features between them and containers take them away.  A profile that the wish
 * rules out is not tried: a ring with an SQ thread costs a thread.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/compiler.h"
#include "runtime/driver/driver.h"
#include "runtime/driver/uring_setup.h"

enum { PROBE_ENTRIES = 8 };

/* Every opcode that a typed call uses, and the driver's own. */
static const struct {
    unsigned char opcode;
    const char *name;
} needed[] = {
    { IORING_OP_NOP, "NOP" },           { IORING_OP_READV, "READV" },
    { IORING_OP_WRITEV, "WRITEV" },     { IORING_OP_FSYNC, "FSYNC" },
    { IORING_OP_POLL_ADD, "POLL_ADD" }, { IORING_OP_SENDMSG, "SENDMSG" },
    { IORING_OP_RECVMSG, "RECVMSG" },   { IORING_OP_ACCEPT, "ACCEPT" },
    { IORING_OP_CONNECT, "CONNECT" },   { IORING_OP_FALLOCATE, "FALLOCATE" },
    { IORING_OP_OPENAT, "OPENAT" },     { IORING_OP_CLOSE, "CLOSE" },
    { IORING_OP_STATX, "STATX" },       { IORING_OP_READ, "READ" },
    { IORING_OP_WRITE, "WRITE" },       { IORING_OP_SEND, "SEND" },
    { IORING_OP_RECV, "RECV" },         { IORING_OP_SHUTDOWN, "SHUTDOWN" },
    { IORING_OP_TIMEOUT, "TIMEOUT" },   { IORING_OP_ASYNC_CANCEL, "ASYNC_CANCEL" },
};

/* NULL if the ring has every opcode, else the name of the first that it lacks. */
static const char *missing_opcode(struct io_uring *ring, uint64_t *ret_opcodes)
{
    struct io_uring_probe *known = io_uring_get_probe_ring(ring);
    const char *missing = known ? NULL : "REGISTER_PROBE";
    for (size_t i = 0; known && !missing && i < NIO_ARRAY_LEN(needed); i++)
        if (!io_uring_opcode_supported(known, needed[i].opcode))
            missing = needed[i].name;
    for (int opcode = 0; known && opcode < 64; opcode++)
        if (io_uring_opcode_supported(known, opcode))
            *ret_opcodes |= UINT64_C(1) << opcode;
    if (known)
        io_uring_free_probe(known);
    return missing;
}

static int try_ring(unsigned flags, struct nio_driver_probe *probe, const char **ret_missing)
{
    struct nio_class_loan loan = { .is_changed = false };
    struct io_uring ring;
    struct io_uring_params params = { .flags = flags, .sq_thread_idle = 1 };
    int error = flags & IORING_SETUP_SQPOLL ? nio_class_lend(&loan) : 0;
    if (!error)
        error = nio_ring_setup(PROBE_ENTRIES, &ring, &params);
    for (int i = 0; error == -ENOMEM && i < NIO_RING_PATIENCE_MS; i++) {
        (void)usleep(1000); /* shorter is as good */
        error = nio_ring_setup(PROBE_ENTRIES, &ring, &params);
    }
    int class_error = nio_class_give_back(&loan);
    if (!error && class_error) {
        io_uring_queue_exit(&ring);
        error = class_error;
    }
    if (error)
        return error;
    if (ret_missing) {
        probe->has_ext_arg = (params.features & IORING_FEAT_EXT_ARG) != 0;
        if (!probe->has_ext_arg)
            *ret_missing = "IORING_FEAT_EXT_ARG";
        else if (!(params.features & IORING_FEAT_NODROP))
            *ret_missing = "IORING_FEAT_NODROP";
        else
            *ret_missing = missing_opcode(&ring, &probe->opcodes);
    }
    io_uring_queue_exit(&ring);
    return 0;
}

/* A kernel whose rings can be used: how. */
static void probe_profiles(enum numio_driver wish, struct nio_driver_probe *probe)
{
    probe->has_uring = true;
    probe->has_defer =
        try_ring(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, NULL, NULL) == 0;
    int error = 0;
    if (wish == NUMIO_DRIVER_IOPOLL && probe->has_defer) {
        error = try_ring(IORING_SETUP_IOPOLL, NULL, NULL);
        probe->has_iopoll = error == 0;
        probe->polls_disk = nio_any_disk_polls();
    } else if (wish != NUMIO_DRIVER_DEFER || !probe->has_defer) {
        error = try_ring(IORING_SETUP_SQPOLL, NULL, NULL);
        probe->has_sqpoll = error == 0;
    }
    if (error)
        nio_ring_explain(error, probe->reason, sizeof probe->reason);
    else if (!probe->has_defer)
        (void)snprintf(probe->reason, sizeof probe->reason,
                       "the kernel lacks DEFER_TASKRUN (Linux 6.1 has it)"); /* fits */
}

void nio_driver_probe(enum numio_driver wish, struct nio_driver_probe *ret_probe)
{
    struct nio_driver_probe probe = { 0 };
    const char *missing = NULL;
    *ret_probe = probe;
    if (wish == NUMIO_DRIVER_EPOLL)
        return;
    probe.uring_error = try_ring(0, &probe, &missing);
    if (!probe.uring_error && missing) {
        probe.uring_error = -ENOSYS;
        (void)snprintf(probe.reason, sizeof probe.reason,
                       "the kernel's io_uring lacks %s (Linux 5.11 has it)",
                       missing); /* cut at the buffer's end */
    } else if (probe.uring_error) {
        nio_ring_explain(probe.uring_error, probe.reason, sizeof probe.reason);
    } else {
        probe_profiles(wish, &probe);
    }
    *ret_probe = probe;
}
