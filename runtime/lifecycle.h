/* SPDX-License-Identifier: MIT */
/* lifecycle.h: the parts of a runtime's start and end, and struct numio_runtime itself.
 *
 * Start: runtime.c builds the handle (build.c), starts the workers' threads (start.c) and waits
 * for them.  End: shutdown.c closes, waits, takes the drivers down, joins the threads; the memory
 * goes with the handle's last reference (build.c).
 */
#ifndef NIO_LIFECYCLE_H
#define NIO_LIFECYCLE_H

#include "runtime/sched/worker.h"

struct numio_runtime {
    struct numio_handle *handle;
    struct nio_lock lock; /* shutdown may be called by several threads */
    bool is_closing;      /* under the lock */
};

/* build.c: everything but threads.  `config` is complete.  Errors: those of the runtime's create.
 */
int nio_handle_build(const struct numio_config *config, struct numio_handle **ret_handle);
/* Remembers a reason for the status, once. */
void nio_handle_add_reason(struct numio_handle *handle, const char *reason);

/* sq_check.c: compares the SQ threads with the plan; what differs becomes a reason. */
void nio_check_sq_threads(struct numio_handle *handle);

/* cpu_latency.c: holds /dev/cpu_dma_latency as the configuration says; a refusal becomes a reason,
 * and the configuration says -1. */
void nio_cpu_latency_hold(struct numio_handle *handle);
void nio_cpu_latency_release(struct numio_handle *handle);

/* start.c: starts all workers; on failure none is left. */
int nio_start_workers(struct numio_handle *handle);

/* cpu_watch.c: starts the thread that notices CPUs that come and go, unless it is not wanted.
 * Once all workers have their thread ids, before they run.   Errors: -ENOMEM, -EAGAIN. */
int nio_cpu_watch_start(struct numio_handle *handle);
/* Before the workers' threads end. */
void nio_cpu_watch_stop(struct numio_handle *handle);

/* Lets the workers take their drivers down, and waits for their threads. */
void nio_join_workers(struct numio_handle *handle);

#endif
