/* SPDX-License-Identifier: MIT */
#include "runtime/sched/seats.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/mem.h"

enum { TEXT_BYTES = 256 };

static const char no_memory[] =
    "CPUs were taken from the process (no memory to say which threads have moved)";
static const char new_cpus[] =
    "the process was given CPUs that it did not have when the runtime was created: the runtime "
    "uses them only once it is created again";

int nio_seats_init(struct nio_seats *seats, const struct nio_plan *plan)
{
    nio_lock_init(&seats->lock, NIO_RANK_LEAF);
    seats->workers = nio_zalloc_array(plan->worker_count, sizeof *seats->workers);
    seats->sqs = nio_zalloc_array(plan->node_count, sizeof *seats->sqs);
    if (!seats->workers || !seats->sqs)
        return -ENOMEM;
    for (unsigned w = 0; w < plan->worker_count; w++)
        seats->workers[w].now = (struct nio_seat){ .cpu = plan->workers[w].bind_cpu,
                                                   .node = (int)plan->workers[w].node,
                                                   .may_spin = true };
    for (unsigned n = 0; n < plan->node_count; n++)
        seats->sqs[n].now = (struct nio_seat){ .cpu = plan->nodes[n].sq_bind_cpu, .node = (int)n };
    return 0;
}

static void free_texts(struct nio_seat_record *records, unsigned count)
{
    for (unsigned i = 0; records && i < count; i++)
        for (unsigned where = 0; where < NIO_WHEREABOUTS_COUNT; where++)
            for (unsigned k = 0; k < 2; k++)
                if (records[i].texts[where][k] != no_memory)
                    nio_free((char *)(uintptr_t)records[i].texts[where][k]);
    nio_free(records);
}

void nio_seats_fini(struct nio_seats *seats, const struct nio_plan *plan)
{
    if (!plan)
        return;
    free_texts(seats->workers, plan->worker_count);
    free_texts(seats->sqs, plan->node_count);
}

const char *nio_whereabouts_name(enum nio_whereabouts where)
{
    static const char *const names[NIO_WHEREABOUTS_COUNT] = { "home", "moved", "guest", "outside" };
    return names[where];
}

static bool is_same(const struct nio_seat *a, const struct nio_seat *b)
{
    return a->where == b->where && a->cpu == b->cpu && a->node == b->node &&
           a->is_retired == b->is_retired;
}

static void set(struct nio_seat_record *record, const struct nio_seat *next)
{
    if (!is_same(&record->now, next))
        record->moves++;
    record->now = *next;
}

void nio_seats_set(struct nio_seats *seats, const struct nio_plan *plan,
                   const struct nio_seat *workers, const struct nio_seat *sqs, bool has_new_cpus)
{
    nio_lock_acquire(&seats->lock);
    for (unsigned w = 0; w < plan->worker_count; w++)
        set(&seats->workers[w], &workers[w]);
    for (unsigned n = 0; n < plan->node_count; n++)
        set(&seats->sqs[n], &sqs[n]);
    seats->has_new_cpus = has_new_cpus;
    /* relaxed: who sees it late asks again at its next job */
    (void)atomic_fetch_add_explicit(&seats->changes, 1, memory_order_relaxed);
    nio_lock_release(&seats->lock);
}

static struct nio_seat_record copy(struct nio_seats *seats, const struct nio_seat_record *record)
{
    nio_lock_acquire(&seats->lock);
    struct nio_seat_record result = *record;
    nio_lock_release(&seats->lock);
    return result;
}

struct nio_seat_record nio_seat_of_worker(struct nio_seats *seats, unsigned index)
{
    return copy(seats, &seats->workers[index]);
}

struct nio_seat_record nio_seat_of_sq(struct nio_seats *seats, unsigned node)
{
    return copy(seats, &seats->sqs[node]);
}

static void describe_worker(const struct nio_plan *plan, unsigned w, const struct nio_seat *now,
                            char *text)
{
    static const char *const ends[NIO_WHEREABOUTS_COUNT][2] = {
        [NIO_MOVED] = { "it runs on another CPU of its node",
                        "no other CPU of its node is free: it is retired, that is, serves only "
                        "its pinned tasks and its ring, on CPUs of other workers" },
        [NIO_GUEST] = { "as was the rest of its node: it runs on CPUs elsewhere, its memory stays",
                        "as was the rest of its node: it is retired, that is, serves only its "
                        "pinned tasks and its ring, on CPUs elsewhere" },
        [NIO_OUTSIDE] = { "it is left there",
                          "which have workers: it is left there and is retired, that is, serves "
                          "only its pinned tasks and its ring" },
    };
    const char *end = ends[now->where][now->is_retired];
    if (now->where == NIO_OUTSIDE)
        (void)snprintf(text, TEXT_BYTES, /* fits */
                       "worker %u: somebody has bound its thread to other CPUs, %s", w, end);
    else
        (void)snprintf(text, TEXT_BYTES, "worker %u: CPU %d was taken from the process, %s", w,
                       plan->workers[w].bind_cpu, end); /* fits */
}

static void describe_sq(const struct nio_plan *plan, unsigned n, const struct nio_seat *now,
                        char *text)
{
    if (now->where == NIO_OUTSIDE) {
        (void)snprintf(text, TEXT_BYTES, /* fits */
                       "node %u: somebody has bound its SQ thread to other CPUs, it is left there",
                       n);
        return;
    }
    const char *end = now->where == NIO_GUEST ? "it runs on the CPUs of another node"
                      : now->cpu >= 0         ? "it runs on another CPU of its node"
                                              : "it shares the CPUs of its node's workers";
    if (plan->nodes[n].sq_bind_cpu >= 0)
        (void)snprintf(text, TEXT_BYTES,
                       "node %u: CPU %d of its SQ thread was taken from the process, %s", n,
                       plan->nodes[n].sq_bind_cpu, end); /* fits */
    else
        (void)snprintf(text, TEXT_BYTES,
                       "node %u: the CPUs of its SQ thread were taken from the process, %s", n,
                       end); /* fits */
}

/* The record's sentence, made when it is first asked for. */
static const char *text_of(struct nio_seat_record *record, const struct nio_plan *plan,
                           unsigned index, bool is_sq)
{
    const struct nio_seat *now = &record->now;
    bool is_second = is_sq ? now->cpu >= 0 : now->is_retired;
    const char **text = &record->texts[now->where][is_second];
    if (*text && *text != no_memory)
        return *text;
    char buffer[TEXT_BYTES];
    if (is_sq)
        describe_sq(plan, index, now, buffer);
    else
        describe_worker(plan, index, now, buffer);
    *text = nio_strdup(buffer);
    if (!*text)
        *text = no_memory;
    return *text;
}

const char *nio_seats_reason(struct nio_seats *seats, const struct nio_plan *plan, unsigned index)
{
    const char *reason = NULL;
    unsigned at = 0;
    nio_lock_acquire(&seats->lock);
    for (unsigned w = 0; w < plan->worker_count && !reason; w++)
        if (seats->workers[w].now.where != NIO_AT_HOME && at++ == index)
            reason = text_of(&seats->workers[w], plan, w, false);
    for (unsigned n = 0; n < plan->node_count && !reason; n++)
        if (seats->sqs[n].now.where != NIO_AT_HOME && at++ == index)
            reason = text_of(&seats->sqs[n], plan, n, true);
    if (!reason && seats->has_new_cpus && at == index)
        reason = new_cpus;
    nio_lock_release(&seats->lock);
    return reason;
}
