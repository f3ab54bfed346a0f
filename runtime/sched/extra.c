/* SPDX-License-Identifier: MIT */
/* The design note stands in extra.h. */
#include "runtime/sched/extra.h"

#include <errno.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"

struct nio_extra *nio_extra_make(struct nio_task *task)
{
    struct nio_extra *extra = nio_extra_of(task);
    if (extra)
        return extra;
    extra = nio_zalloc(sizeof *extra);
    if (!extra)
        return NULL;
    extra->locals = extra->inlined;
    extra->local_capacity = NIO_LOCALS_INLINE;
    if (task->kind == NIO_TASK_COROUTINE) {
        struct nio_co *co = NIO_CONTAINER_OF(task, struct nio_co, task);
        co->extra = extra;
        if (!(task->flags & NIO_TASK_SPECIAL))
            co->limit_ns = UINT64_MAX;
    } else {
        extra->drop = task->with.drop;
        task->with.extra = extra;
    }
    task->flags |= NIO_TASK_SPECIAL;
    return extra;
}

/* ---- values -------------------------------------------------------------------------------- */

struct nio_local_value *nio_locals_find(const struct nio_extra *extra,
                                        const struct numio_local *key)
{
    for (unsigned i = 0; i < extra->local_count; i++)
        if (extra->locals[i].key == key)
            return &extra->locals[i];
    return NULL;
}

static bool make_room(struct nio_extra *extra)
{
    if (extra->local_count < extra->local_capacity)
        return true;
    struct nio_local_value *more =
        nio_zalloc_array(2 * (size_t)extra->local_capacity, sizeof *more);
    if (!more)
        return false;
    memcpy(more, extra->locals, extra->local_count * sizeof *more);
    if (extra->locals != extra->inlined)
        nio_free(extra->locals);
    extra->locals = more;
    extra->local_capacity *= 2;
    return true;
}

bool nio_locals_set(struct nio_extra *extra, const struct numio_local *key, void *value)
{
    struct nio_local_value *old = nio_locals_find(extra, key);
    if (!old && !make_room(extra))
        return false;
    struct nio_local_value was = { NULL, NULL };
    if (old) {
        was = *old;
        nio_locals_remove(extra, old); /* what is set last is destroyed first */
    }
    extra->locals[extra->local_count++] = (struct nio_local_value){ key, value };
    if (was.key && was.key->destroy)
        was.key->destroy(was.value);
    return true;
}

void nio_locals_remove(struct nio_extra *extra, struct nio_local_value *value)
{
    unsigned behind = extra->local_count - (unsigned)(value - extra->locals) - 1;
    memmove(value, value + 1, behind * sizeof *value);
    extra->local_count--;
}

static int inherit(struct nio_task *task, const struct nio_extra *from)
{
    for (unsigned i = 0; from && i < from->local_count; i++) {
        const struct numio_local *key = from->locals[i].key;
        void *value = key->inherit ? key->inherit(from->locals[i].value) : NULL;
        if (!value)
            continue;
        struct nio_extra *extra = nio_extra_make(task);
        if (extra && nio_locals_set(extra, key, value))
            continue;
        if (key->destroy)
            key->destroy(value);
        return nio_error(-ENOMEM, "spawn: no memory for values that the task inherits");
    }
    return 0;
}

/* ---- the block's life ---------------------------------------------------------------------- */

int nio_extra_attach(struct nio_task *task, const struct numio_spawn_opts *opts)
{
    if (NIO_LIKELY(!opts || (!opts->cancel && !opts->inherit_locals)))
        return 0;
    const struct nio_task *spawner = nio_task_running();
    if (opts->inherit_locals && spawner) {
        int rc = inherit(task, nio_extra_of(spawner));
        if (rc < 0)
            return rc;
    }
    if (!opts->cancel)
        return 0;
    struct nio_extra *extra = nio_extra_make(task);
    if (!extra)
        return nio_error(-ENOMEM, "spawn: no memory for the cancel token's watch");
    nio_token_watch(&extra->watch, opts->cancel, task);
    return 0;
}

void nio_extra_end(struct nio_extra *extra)
{
    if (!extra)
        return;
    nio_token_unwatch(&extra->watch);
    while (extra->local_count > 0) { /* once for each value */
        struct nio_local_value *last = &extra->locals[--extra->local_count];
        if (last->key->destroy)
            last->key->destroy(last->value);
    }
    if (extra->locals != extra->inlined)
        nio_free(extra->locals);
    nio_free(extra);
}
