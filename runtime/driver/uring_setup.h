/* SPDX-License-Identifier: MIT */
/* driver/uring_setup.h: one io_uring_setup(2) with its surroundings, and the words for its failure.
 * Used by the driver and by the probe.  The thread that will own the ring; may block for the
 * system calls.
 */
#ifndef NIO_DRIVER_URING_SETUP_H
#define NIO_DRIVER_URING_SETUP_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The kernel gives the locked memory of a closed ring back a moment after the close: with -ENOMEM
 * it is worth to try again for so long. */
enum { NIO_RING_PATIENCE_MS = 50 };

/* Makes a ring.  Asks nio_fault_now() first.  Errors: the kernel's. */
int nio_ring_setup(unsigned entries, struct io_uring *ring, struct io_uring_params *params);
/* A sentence for the error of nio_ring_setup(), naming the limit or the switch behind it. */
void nio_ring_explain(int error, char *ret_text, size_t text_bytes);
/* sq_threads.c: the thread id of a ring's SQ thread, or a negative errno value.  Reads /proc. */
int nio_sq_thread_of(int ring_fd);

/* The calling thread's own scheduling class while it is an ordinary one (SCHED_OTHER), which an SQ
 * thread that it makes inherits: under SCHED_FIFO it would starve its own worker. */
struct nio_class_loan {
    bool is_changed;
    struct nio_class_attr {
        uint32_t size;
        uint32_t policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } own; /* the kernel's struct sched_attr in its first version; <linux/sched/types.h> and
              <sched.h> cannot both be included */
};

/* Errors: sched_setattr(2)'s, with a detail. */
int nio_class_lend(struct nio_class_loan *loan);
/* Nothing to do if nothing was lent.  Errors: as above; the thread is left as it is. */
int nio_class_give_back(struct nio_class_loan *loan);

#endif
