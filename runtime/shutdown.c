/* SPDX-License-Identifier: MIT */
/* The end of a runtime, from outside; the workers' part is in sched/close.c.
 *
 * close:    CLOSING, foreign stripes closed and their tasks cancelled, the pool closed, workers
 *           unparked.
 * wait:     until the last task has ended, or the time is up.
 * take down: the pool's threads, then the guests, then the drivers by their own workers, then the
 *           threads; then the cells that somebody still holds are counted as references to the
 *           handle, and the runtime's own reference goes.
 */
#include <errno.h>
#include <limits.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/futex.h"
#include "runtime/base/mem.h"
#include "runtime/base/thread.h"
#include "runtime/blocking/blocking.h"
#include "runtime/lifecycle.h"

/* Threads that the end of the runtime waits for. */
static bool is_own_thread(const struct numio_handle *handle)
{
    struct nio_worker *worker = nio_worker_current();
    return (worker && worker->handle == handle) || nio_blocking_is_own_thread(handle->blocking);
}

static void close_runtime(struct numio_runtime *runtime)
{
    struct numio_handle *handle = runtime->handle;
    nio_lock_acquire(&runtime->lock);
    bool is_first = !runtime->is_closing;
    runtime->is_closing = true;
    nio_lock_release(&runtime->lock);
    if (!is_first)
        return;
    for (unsigned i = 0; i < handle->node_count; i++) {
        struct nio_foreign_stripe *foreign = &handle->nodes[i]->foreign;
        nio_lock_acquire(&foreign->lock);
        nio_tell_left(handle, &foreign->stripe);
        nio_stripe_close(&foreign->stripe);
        nio_lock_release(&foreign->lock);
    }
    /* [HP2] seq_cst, and so a release: workers that see CLOSING see the stripes closed.  Pairs
     * with [HP1]. */
    atomic_store_explicit(&handle->phase, NIO_PHASE_CLOSING, memory_order_seq_cst);
    for (unsigned i = 0; i < handle->worker_count; i++)
        nio_wake_worker(handle->workers[i], NULL);
    nio_blocking_close(handle->blocking);
}

/* True once the last task has ended; false when the time is up. */
static bool wait_for_end(struct numio_handle *handle, int64_t timeout_ns)
{
    uint64_t start_ns = nio_now_ns();
    /* [HP6] acquire: everything the workers did.  Pairs with [HP5]. */
    while (atomic_load_explicit(&handle->ended, memory_order_acquire) == 0) {
        int64_t left_ns = NIO_FUTEX_FOREVER;
        if (timeout_ns >= 0) {
            left_ns = timeout_ns - (int64_t)(nio_now_ns() - start_ns);
            if (left_ns <= 0)
                return false;
        }
        (void)nio_futex_wait(&handle->ended, 0, left_ns); /* looks again */
    }
    return true;
}

int numio_runtime_shutdown(struct numio_runtime *runtime, int64_t timeout_ns,
                           struct numio_straggler *ret_stragglers, size_t capacity,
                           size_t *ret_count)
{
    struct numio_handle *handle = runtime->handle;
    if (!nio_is_own_process(handle))
        return nio_refuse_forked_child();
    if (is_own_thread(handle))
        return nio_error(-EDEADLK, "shutdown: called on one of the runtime's own threads; use "
                                   "numio_runtime_shutdown_background()");
    close_runtime(runtime);
    if (wait_for_end(handle, timeout_ns)) {
        if (ret_count)
            *ret_count = 0;
        return 0;
    }
    size_t count = nio_collect_stragglers(handle, ret_stragglers, capacity);
    if (ret_count)
        *ret_count = count;
    return nio_error(-ETIMEDOUT, "shutdown: %zu tasks have not ended in time", count);
}

static void count_cell(void *cell, void *arg)
{
    (void)cell;
    (*(uint64_t *)arg)++;
}

/* Whoever still holds a cell holds the handle from now on. */
static uint64_t adopt_cells(struct numio_handle *handle)
{
    uint64_t cells = 0;
    for (unsigned i = 0; i < handle->node_count; i++) {
        struct nio_node *node = handle->nodes[i];
        nio_lock_acquire(&node->foreign.lock);
        node->foreign.is_post_mortem = true;
        nio_slab_for_each_live(&node->foreign.stripe.slab, count_cell, &cells);
        for (unsigned k = 0; k < node->worker_count; k++)
            nio_slab_for_each_live(&node->workers[k]->stripe.slab, count_cell, &cells);
        nio_handle_ref(handle, cells);
        cells = 0;
        nio_lock_release(&node->foreign.lock);
    }
    return cells;
}

static void take_down(struct numio_runtime *runtime)
{
    struct numio_handle *handle = runtime->handle;
    nio_cpu_watch_stop(handle);
    nio_blocking_destroy(handle->blocking);
    handle->blocking = NULL;
    for (unsigned i = 0; i < handle->node_count; i++)
        /* [HG2] seq_cst: after ENDED was set, a guest that is not counted here skips the driver.
         * Pairs with [HG1]; as an acquire with [HG3]. */
        while (atomic_load_explicit(&handle->nodes[i]->guests, memory_order_seq_cst) > 0)
            (void)sched_yield(); /* bounded by one system call of the guest */
    nio_join_workers(handle);
    nio_cpu_latency_release(handle);
    (void)adopt_cells(handle);
    nio_handle_unref(handle, 1);
    nio_free(runtime);
}

void numio_runtime_destroy(struct numio_runtime *runtime)
{
    if (!runtime)
        return;
    NIO_ASSERT(nio_is_own_process(runtime->handle));
    NIO_ASSERT(!is_own_thread(runtime->handle));
    close_runtime(runtime);
    (void)wait_for_end(runtime->handle, NIO_FUTEX_FOREVER); /* without limit it is always true */
    take_down(runtime);
}

static void *background_thread(void *arg)
{
    struct numio_runtime *runtime = arg;
    (void)wait_for_end(runtime->handle, NIO_FUTEX_FOREVER); /* as above */
    take_down(runtime);
    return NULL;
}

int numio_runtime_shutdown_background(struct numio_runtime *runtime)
{
    if (!nio_is_own_process(runtime->handle))
        return nio_refuse_forked_child();
    pthread_attr_t attr;
    pthread_t thread;
    int rc = pthread_attr_init(&attr);
    if (rc == 0) {
        (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED); /* valid value */
        close_runtime(runtime);
        rc = nio_thread_start(&thread, &attr, background_thread, runtime);
        (void)pthread_attr_destroy(&attr); /* cannot fail */
    }
    if (rc != 0)
        return nio_error(-EAGAIN, "shutdown: no thread could be started to wait for the end; call "
                                  "numio_runtime_destroy() instead");
    return 0;
}
