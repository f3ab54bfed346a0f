/* SPDX-License-Identifier: MIT */
/* tests/sched_rig.h: a runtime without threads: its handle is built as usual, its workers have
 * epoll drivers and are stepped by the test's own thread, in any order the test likes.
 *
 * Asserts by cr_assert, so the test's own thread only; tasks run on that thread as well, but a
 * task that asserts would leave its worker half way: let tasks note, and the test assert.
 */
#ifndef TESTS_SCHED_RIG_H
#define TESTS_SCHED_RIG_H

#include <criterion/criterion.h>

#include "runtime/base/clock.h"
#include "runtime/blocking/blocking.h"
#include "runtime/config_check.h"
#include "runtime/lifecycle.h"
#include "tests/driver_harness.h"

enum { RIG_ROUNDS_MAX = 1000000 };

static inline struct numio_config rig_config(const char *topology)
{
    struct numio_config config;
    cr_assert_eq(numio_config_init(&config, sizeof config), 0);
    config.topology = topology;
    config.driver = NUMIO_DRIVER_EPOLL;
    config.idle = NUMIO_IDLE_PARK;
    config.rng_seed = 1;
    return config;
}

static inline struct numio_handle *rig_build(struct numio_config *config)
{
    struct numio_handle *handle = NULL;
    cr_assert_eq(nio_config_complete(config), 0, "%s", numio_strerror_detail());
    cr_assert_eq(nio_handle_build(config, &handle), 0, "%s", numio_strerror_detail());
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_EPOLL);
    for (unsigned i = 0; i < handle->worker_count; i++)
        cr_assert_eq(nio_driver_create(&options, &handle->workers[i]->driver), 0);
    return handle;
}

static inline struct numio_handle *rig_start(const char *topology)
{
    struct numio_config config = rig_config(topology);
    return rig_build(&config);
}

static inline uint64_t rig_polls(const struct nio_worker *worker)
{
    return nio_counter(&worker->counters.polls);
}

/* One turn of a worker's loop.  True: it polled a task. */
static inline bool rig_step(struct nio_worker *worker)
{
    uint64_t before = rig_polls(worker);
    nio_worker_set_current(worker);
    (void)nio_worker_step(worker, false); /* true until the end, which no step without sleep sees */
    nio_worker_set_current(NULL);
    return rig_polls(worker) != before;
}

/* Steps all workers in turn until none finds anything twice in a row. */
static inline void rig_settle(struct numio_handle *handle)
{
    unsigned quiet = 0;
    for (unsigned round = 0; quiet < 2 * handle->worker_count; round++) {
        cr_assert_lt(round, RIG_ROUNDS_MAX, "the tasks do not come to rest");
        quiet = rig_step(handle->workers[round % handle->worker_count]) ? 0 : quiet + 1;
    }
}

static inline enum nio_phase rig_phase(const struct numio_handle *handle)
{
    return nio_phase(handle);
}

/* Closes as shutdown.c and the workers do, cancels what is left and runs it to its end. */
static inline void rig_close(struct numio_handle *handle)
{
    for (unsigned i = 0; i < handle->node_count; i++) {
        struct nio_foreign_stripe *foreign = &handle->nodes[i]->foreign;
        nio_lock_acquire(&foreign->lock);
        nio_stripe_close(&foreign->stripe);
        nio_lock_release(&foreign->lock);
    }
    /* [HP2] seq_cst: as in shutdown.c.  Pairs with [HP1]. */
    atomic_store_explicit(&handle->phase, NIO_PHASE_CLOSING, memory_order_seq_cst);
    for (unsigned i = 0; i < handle->worker_count; i++) {
        nio_worker_set_current(handle->workers[i]);
        nio_worker_close(handle->workers[i]);
        nio_worker_set_current(NULL);
    }
    rig_settle(handle);
}

/* The test has dropped its join handles and wakers. */
static inline void rig_stop(struct numio_handle *handle)
{
    if (rig_phase(handle) == NIO_PHASE_RUNNING)
        rig_close(handle);
    nio_end_check(handle);
    cr_assert_eq(rig_phase(handle), NIO_PHASE_ENDED, "%llu tasks are left",
                 (unsigned long long)numio_live_tasks(handle));
    nio_blocking_close(handle->blocking);
    nio_blocking_destroy(handle->blocking);
    handle->blocking = NULL;
    for (unsigned i = 0; i < handle->worker_count; i++) {
        struct nio_worker *worker = handle->workers[i];
        nio_slab_outbox_flush(&worker->outbox);
        nio_driver_destroy(worker->driver);
        worker->driver = NULL;
    }
    nio_handle_unref(handle, 1); /* asserts that every cell is home */
}

#endif
