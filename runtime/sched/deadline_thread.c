/* SPDX-License-Identifier: MIT */
/* Deadline scopes of plain threads: they limit what such a thread waits for by a struct numio_op
 * (task/wait.h), and need no timer, since the thread's sleep has a limit of its own. */
#include <errno.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/sched/await.h"

static _Thread_local struct numio_deadline *innermost;

int nio_thread_deadline_push(struct numio_deadline *deadline, uint64_t timeout_ns)
{
    if (nio_worker_current())
        return nio_error(-EINVAL, "deadline: pushed on a worker outside of a coroutine");
    uint64_t now_ns = nio_now_ns();
    deadline->_timer._task = NULL;
    deadline->_at_ns = timeout_ns < UINT64_MAX - now_ns ? now_ns + timeout_ns : UINT64_MAX;
    if (innermost && innermost->_at_ns < deadline->_at_ns)
        deadline->_at_ns = innermost->_at_ns;
    deadline->_outer = innermost;
    innermost = deadline;
    return 0;
}

bool nio_thread_deadline_is(const struct numio_deadline *deadline)
{
    return innermost == deadline;
}

void nio_thread_deadline_end(const struct numio_deadline *deadline)
{
    innermost = deadline->_outer;
}

int nio_thread_deadline_pop(const struct numio_deadline *deadline)
{
    nio_thread_deadline_end(deadline);
    return nio_now_ns() >= deadline->_at_ns ? -ETIMEDOUT : 0;
}

uint64_t nio_thread_deadline_ns(void)
{
    return innermost ? innermost->_at_ns : UINT64_MAX;
}
