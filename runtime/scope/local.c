/* SPDX-License-Identifier: MIT */
/* Values of the running task: the public side of sched/extra.c. */
#include <numio/local.h>

#include <errno.h>

#include "runtime/base/error.h"
#include "runtime/sched/extra.h"

int numio_local_set(const struct numio_local *key, void *value)
{
    struct nio_task *task = nio_task_running();
    if (!task || task->kind == NIO_TASK_BLOCKING)
        return nio_error(-EINVAL, "local: a value is set outside of a coroutine or a future");
    if (!value) {
        void *old = numio_local_take(key);
        if (old && key->destroy)
            key->destroy(old);
        return 0;
    }
    struct nio_extra *extra = nio_extra_make(task);
    if (!extra || !nio_locals_set(extra, key, value))
        return nio_error(-ENOMEM, "local: no memory for a value");
    return 0;
}

static struct nio_local_value *find(const struct numio_local *key, struct nio_extra **ret_extra)
{
    struct nio_task *task = nio_task_running();
    *ret_extra = task ? nio_extra_of(task) : NULL;
    return *ret_extra ? nio_locals_find(*ret_extra, key) : NULL;
}

void *numio_local_get(const struct numio_local *key)
{
    struct nio_extra *extra;
    struct nio_local_value *found = find(key, &extra);
    return found ? found->value : NULL;
}

void *numio_local_take(const struct numio_local *key)
{
    struct nio_extra *extra;
    struct nio_local_value *found = find(key, &extra);
    if (!found)
        return NULL;
    void *value = found->value;
    nio_locals_remove(extra, found);
    return value;
}
