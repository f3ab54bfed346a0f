/* SPDX-License-Identifier: MIT */
/* The calling thread's worker.  Code that runs in a coroutine may move to another thread at every
 * suspension, and compilers keep the address of a thread-local across a call: so it is read in
 * assembly (worker.h), or, where that is not written, through a function that is not inlined. */
#include "runtime/sched/worker.h"
#include "runtime/task/wake.h"

NIO_NAMED_IN_ASM _Thread_local struct nio_worker *nio_current_worker;

NIO_CORO_THREAD_ACCESSOR void nio_worker_set_current(struct nio_worker *worker)
{
    nio_coro_thread_barrier();
    nio_current_worker = worker;
    nio_current_schedule = worker ? &worker->handle->schedule : NULL;
}

#if !defined(__x86_64__)
NIO_CORO_THREAD_ACCESSOR struct nio_worker *nio_worker_current(void)
{
    nio_coro_thread_barrier();
    return nio_current_worker;
}
#endif
