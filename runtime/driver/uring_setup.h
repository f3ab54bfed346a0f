/* SPDX-License-Identifier: MIT */
/* driver/uring_setup.h: one io_uring_setup(2) with its surroundings, and the words for its failure.
 * Used by the driver and by the probe.  The thread that will own the ring; may block for the
 * system calls.
 */
#ifndef NIO_DRIVER_URING_SETUP_H
#define NIO_DRIVER_URING_SETUP_H

#include <liburing.h>
#include <stddef.h>

/* The kernel gives the locked memory of a closed ring back a moment after the close: with -ENOMEM
 * it is worth to try again for so long. */
enum { NIO_RING_PATIENCE_MS = 50 };

/* Makes a ring.  Asks nio_fault_now() first.  Errors: the kernel's. */
int nio_ring_setup(unsigned entries, struct io_uring *ring, struct io_uring_params *params);
/* A sentence for the error of nio_ring_setup(), naming the limit or the switch behind it. */
void nio_ring_explain(int error, char *ret_text, size_t text_bytes);
/* sq_threads.c: the thread id of a ring's SQ thread, or a negative errno value.  Reads /proc. */
int nio_sq_thread_of(int ring_fd);

#endif
