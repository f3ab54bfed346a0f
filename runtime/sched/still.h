/* SPDX-License-Identifier: MIT */
/* sched/still.h: how a worker parks: as parker.h says, and by other rules while the runtime's time
 * stands.
 */
#ifndef NIO_SCHED_STILL_H
#define NIO_SCHED_STILL_H

#include "runtime/sched/worker.h"

NIO_COLD void nio_park_still(struct nio_worker *worker, int64_t timeout_ns);

/* Owner: sleeps as nio_parker_park_unless() its mailbox has something.  May return early. */
static inline void nio_worker_park(struct nio_worker *worker, int64_t timeout_ns)
{
    if (nio_timeline_stands(&worker->handle->timeline))
        nio_park_still(worker, timeout_ns);
    else
        nio_parker_park_unless(&worker->parker, worker->driver, timeout_ns, &worker->mailbox);
}

#endif
