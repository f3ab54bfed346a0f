/* SPDX-License-Identifier: MIT */
/* Step "tasks": one spawner per node spawns its share of the tasks in batches, as futures that any
 * worker may steal.  Each task adds a function of its number to a tally of the worker it runs on,
 * and gives it to the spawner as its output: two sums, both of which must be the one that a plain
 * loop computes. */
#include "runtime/tool/tour.h"

#include <errno.h>
#include <string.h>

enum { BATCH = 1024 };

/* Written by one worker's thread only; read when all tasks have been joined. */
struct tally {
    _Alignas(64) uint64_t sum;
};

struct number {
    uint64_t value;
    struct tally *tallies; /* one per worker */
};

struct spawner {
    struct tour *tour;
    struct tally *tallies;
    uint64_t first, count; /* the numbers it spawns */
    uint64_t sum;          /* of the outputs */
    struct number numbers[BATCH];
    struct numio_future futures[BATCH];
    struct numio_join *joins[BATCH];
};

static enum numio_poll add_number(void *state, struct numio_context *cx)
{
    const struct number *number = state;
    uint64_t mixed = tour_mix(number->value);
    int worker = numio_current_worker();
    if (worker >= 0) /* else the tally stays short, and the sum is wrong */
        number->tallies[worker].sum += mixed;
    memcpy(numio_context_output(cx), &mixed, sizeof mixed);
    return NUMIO_READY;
}

/* Spawns numbers first .. first + count - 1 and adds up what they return. */
static int64_t run_batch(struct spawner *spawner, uint64_t first, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        spawner->numbers[i] = (struct number){ first + i, spawner->tallies };
        spawner->futures[i] = (struct numio_future){ .poll = add_number,
                                                     .state = &spawner->numbers[i],
                                                     .size = sizeof spawner->numbers[i],
                                                     .output_size = sizeof(uint64_t) };
    }
    int64_t status = numio_spawn_batch(NULL, spawner->futures, count, NULL, spawner->joins);
    if (status < 0)
        return status;
    for (size_t i = 0; i < count; i++) {
        uint64_t output = 0;
        int64_t result = numio_join_await_output(&spawner->joins[i], &output, sizeof output);
        spawner->sum += output;
        if (result < 0 && status == 0)
            status = result;
        if (spawner->joins[i]) /* this task was aborted while it waited */
            numio_join_detach(&spawner->joins[i]);
    }
    return status;
}

static int64_t spawn_share(void *arg)
{
    struct spawner *spawner = arg;
    for (uint64_t done = 0; done < spawner->count;) {
        uint64_t left = spawner->count - done;
        size_t count = left < BATCH ? (size_t)left : BATCH;
        int64_t status = run_batch(spawner, spawner->first + done, count);
        if (status < 0)
            return status;
        done += count;
        tour_progress(spawner->tour, count);
    }
    return 0;
}

/* Compares both sums with the right one. */
static void check_sums(struct tour *tour, struct spawner *const *spawners,
                       const struct tally *tallies)
{
    uint64_t expected = 0, tallied = 0, returned = 0;
    for (uint64_t i = 0; i < tour->options->task_count; i++)
        expected += tour_mix(i);
    for (unsigned i = 0; i < tour->machine.status.workers; i++)
        tallied += tallies[i].sum;
    for (unsigned i = 0; i < tour->machine.status.nodes; i++)
        returned += spawners[i]->sum;
    if (tallied != expected)
        tour_wrong(tour, "the tasks added up to %016llx instead of %016llx",
                   (unsigned long long)tallied, (unsigned long long)expected);
    if (returned != expected)
        tour_wrong(tour, "the joins gave %016llx instead of %016llx", (unsigned long long)returned,
                   (unsigned long long)expected);
}

void tour_tasks(struct tour *tour)
{
    unsigned nodes = tour->machine.status.nodes;
    uint64_t total = tour->options->task_count;
    char count[TOOL_NUMBER_BYTES], rate[TOOL_NUMBER_BYTES];

    tour_begin(tour, "tasks", "tasks", total);
    /* One more, to move the start to a cache line of its own. */
    char *raw = tour_alloc(tour, (tour->machine.status.workers + 1u) * sizeof(struct tally));
    struct spawner **spawners = tour_alloc(tour, nodes * sizeof *spawners);
    struct numio_join **joins = tour_alloc(tour, nodes * sizeof *joins);
    int64_t *results = tour_alloc(tour, nodes * sizeof *results);
    if (!raw || !spawners || !joins || !results) {
        tour_end(tour, "not run");
        return;
    }
    size_t slip = (64 - (uintptr_t)raw % 64) % 64;
    struct tally *tallies = (void *)(raw + slip);
    for (unsigned i = 0; i < nodes; i++) {
        struct spawner *spawner = spawners[i] = tour_alloc(tour, sizeof *spawner);
        if (!spawner)
            break;
        spawner->tour = tour;
        spawner->tallies = tallies;
        spawner->first = total / nodes * i + (i < total % nodes ? i : total % nodes);
        spawner->count = total / nodes + (i < total % nodes);
        (void)tour_spawn(tour, i, spawn_share, spawner, &joins[i]); /* noted if it fails */
    }
    uint64_t start_ns = tour_now_ns();
    int err = tour_join(tour, joins, results, nodes);
    uint64_t time_ns = tour_now_ns() - start_ns;
    for (unsigned i = 0; err == 0 && i < nodes; i++)
        if (results[i] < 0)
            tour_wrong(tour, "spawning from node %u: %s", i, strerror((int)-results[i]));
    if (err < 0 || tour->wrong_count > tour->step_wrong) {
        tour_end(tour, err == -EINTR ? "interrupted" : "did not finish");
        return;
    }
    check_sums(tour, spawners, tallies);
    tour_end(tour, "%s futures from %u node%s, %s; the sum %s", tool_count(count, total), nodes,
             nodes == 1 ? "" : "s", tool_rate(rate, total, time_ns),
             tour->wrong_count > tour->step_wrong ? "is wrong" : "is right");
}
