/* SPDX-License-Identifier: MIT */
/* Create and destroy; numio_main(). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/base/versioned.h"
#include "runtime/blocking/blocking.h"
#include "runtime/config_check.h"
#include "runtime/lifecycle.h"
#include "runtime/sched/spawn.h"

/* Names the coroutine whose stack's guard was hit.  In a signal handler: only reads. */
static bool find_overflow(const void *address, struct nio_overflow_report *ret_report)
{
    const struct nio_stack *stack = nio_stack_of_guard(address);
    const struct nio_co *co = stack ? nio_stack_owner(stack) : NULL;
    if (!co)
        return false;
    *ret_report = (struct nio_overflow_report){ .name = co->task.name,
                                                .file = co->task.site->file,
                                                .line = co->task.site->line,
                                                .stack_low = stack->low,
                                                .stack_bytes = nio_stack_bytes(stack) };
    return true;
}

int numio_runtime_create(const struct numio_config *config, struct numio_runtime **ret_runtime)
{
    struct numio_config complete;
    int rc = numio_config_init(&complete, sizeof complete);
    if (rc == 0 && config) {
        rc = nio_versioned_check("numio_config", config, config->size, sizeof complete);
        if (rc < 0)
            return rc;
        complete = *config;
        complete.size = sizeof complete;
    }
    if (rc == 0)
        rc = numio_config_from_env(&complete);
    if (rc == 0)
        rc = nio_config_complete(&complete);
    if (rc < 0)
        return rc;
    struct numio_runtime *runtime = nio_zalloc(sizeof *runtime);
    if (!runtime)
        return nio_error(-ENOMEM, "runtime: no memory");
    nio_lock_init(&runtime->lock, NIO_RANK_RUNTIME);
    rc = nio_handle_build(&complete, &runtime->handle);
    if (rc == 0 && complete.report_overflow && nio_overflow_install(find_overflow) < 0)
        nio_handle_add_reason(runtime->handle, "coroutine stack overflows are not reported: "
                                               "another reporter is installed");
    if (rc == 0)
        nio_cpu_latency_hold(runtime->handle);
    if (rc == 0 && (rc = nio_start_workers(runtime->handle)) < 0) {
        nio_cpu_latency_release(runtime->handle);
        nio_blocking_close(runtime->handle->blocking);
        nio_blocking_destroy(runtime->handle->blocking);
        nio_handle_unref(runtime->handle, 1);
    }
    if (rc < 0) {
        nio_free(runtime);
        return rc;
    }
    *ret_runtime = runtime;
    return 0;
}

struct numio_handle *numio_runtime_handle(struct numio_runtime *runtime)
{
    return runtime->handle;
}

int64_t numio_block_on_at(const struct numio_site *site, struct numio_handle *handle,
                          int64_t (*fn)(void *arg), void *arg)
{
    if (nio_worker_current())
        return nio_error(-EDEADLK, "block_on: would block a worker; spawn and await instead");
    struct numio_join *join;
    int rc = numio_spawn_co_at(site, handle, fn, arg, NULL, &join);
    return rc < 0 ? rc : numio_join_wait(&join, -1);
}

int64_t numio_main_at(const struct numio_site *site, const struct numio_config *config,
                      int64_t (*fn)(void *arg), void *arg)
{
    struct numio_runtime *runtime;
    int rc = numio_runtime_create(config, &runtime);
    if (rc < 0) {
        (void)fprintf(stderr, "numio: the runtime cannot start: %s (%s)\n", numio_strerror_detail(),
                      strerror(-rc)); /* the result says it as well */
        return rc;
    }
    int64_t result = numio_block_on_at(site, runtime->handle, fn, arg);
    numio_runtime_destroy(runtime);
    return result;
}
