/* SPDX-License-Identifier: MIT */
/* tests/driver_harness.h: a driver without a scheduler, for the driver's own tests.
 *
 * One fake task stands for whoever waits; its operations are completed by nio_op_done() as in the
 * runtime, and the test's thread plays the worker: it submits, flushes, parks and reaps.  The
 * epoll profile's blocking functions run on a thread each.  Test programs only.
 */
#ifndef TESTS_DRIVER_HARNESS_H
#define TESTS_DRIVER_HARNESS_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/driver/driver.h"
#include "runtime/task/op_done.h"
#include "runtime/task/state.h"

static const enum numio_driver harness_profiles[] = { NUMIO_DRIVER_SQPOLL, NUMIO_DRIVER_DEFER,
                                                      NUMIO_DRIVER_IOPOLL, NUMIO_DRIVER_EPOLL };
static const char *const harness_names[] = { "auto", "sqpoll", "defer", "epoll", "iopoll" };

static inline void harness_schedule(const struct nio_schedule *self, struct nio_task *task)
{
    (void)self;
    (void)task; /* the fake task never runs */
}

static const struct nio_schedule harness_scheduler = { .schedule = harness_schedule,
                                                       .release = harness_schedule };
static struct nio_task harness_task;

struct harness_job {
    void (*fn)(void *arg);
    void *arg;
};

static inline void *harness_thread(void *arg)
{
    struct harness_job job = *(struct harness_job *)arg;
    free(arg);
    job.fn(job.arg);
    return NULL;
}

static inline int harness_offload(void *context, void (*fn)(void *arg), void *arg)
{
    (void)context;
    struct harness_job *job = malloc(sizeof *job);
    if (!job)
        return -ENOMEM;
    *job = (struct harness_job){ fn, arg };
    pthread_t thread;
    int error = pthread_create(&thread, NULL, harness_thread, job);
    if (error) {
        free(job);
        return -error;
    }
    return -pthread_detach(thread);
}

static inline struct nio_driver_options harness_options(enum numio_driver profile)
{
    return (struct nio_driver_options){ .profile = profile,
                                        .entries = 256,
                                        .attach_fd = -1,
                                        .sq_cpu = -1,
                                        .sq_idle_ms = 1,
                                        .offload = harness_offload };
}

static inline void harness_init(void)
{
    harness_task.scheduler = &harness_scheduler;
    harness_task.kind = NIO_TASK_FUTURE;
    /* one reference that never goes, so that no completion releases the task */
    atomic_init(&harness_task.state, NIO_STATE_WAKE | NIO_STATE_REF);
}

static inline void harness_submit(struct nio_driver *driver, struct numio_op *op)
{
    nio_state_ref(&harness_task); /* each operation of a future holds one */
    op->_task = &harness_task;
    op->_state = NIO_OP_STARTED;
    nio_driver_submit(driver, op);
}

/* Runs the driver until `op` has ended or `limit_ms` passed.  False: it has not. */
static inline bool harness_wait(struct nio_driver *driver, const struct numio_op *op,
                                unsigned limit_ms)
{
    uint64_t end_ns = nio_now_ns() + (uint64_t)limit_ms * 1000000;
    while (!nio_op_is_done(op) && nio_now_ns() < end_ns) {
        nio_driver_park(driver, 20000000);
        (void)nio_driver_reap(driver, 64);
    }
    return nio_op_is_done(op);
}

/* Submits `op` and runs the driver until it has ended; its result. */
static inline int64_t harness_run(struct nio_driver *driver, struct numio_op *op)
{
    harness_submit(driver, op);
    return harness_wait(driver, op, 5000) ? op->_result : -ETIMEDOUT;
}

/* Runs the driver until nothing is in flight.  False: that took longer than `limit_ms`. */
static inline bool harness_drain(struct nio_driver *driver, unsigned limit_ms)
{
    uint64_t end_ns = nio_now_ns() + (uint64_t)limit_ms * 1000000;
    while (nio_driver_in_flight(driver) > 0 && nio_now_ns() < end_ns) {
        nio_driver_park(driver, 20000000);
        (void)nio_driver_reap(driver, 64);
    }
    return nio_driver_in_flight(driver) == 0;
}

#endif
