/* SPDX-License-Identifier: MIT */
/* sched/seats.h: where a runtime's threads run since CPUs were taken from the process or given
 * back, and the sentences that say so.
 *
 * Written by the thread that notices (cpu_watch.c), read by whoever asks for the status; all under
 * the lock, rank NIO_RANK_LEAF.  What is there when a runtime starts is what its plan says.
 */
#ifndef NIO_SCHED_SEATS_H
#define NIO_SCHED_SEATS_H

#include <stdatomic.h>

#include "numa/replan.h"
#include "runtime/base/lock.h"

struct numio_handle;

struct nio_seat_record {
    struct nio_seat now;
    uint64_t moves; /* how often it changed */
    /* Sentences that have been asked for; they live as long as the handle. */
    const char *texts[NIO_WHEREABOUTS_COUNT][2]; /* [][1]: retired */
};

struct nio_seats {
    struct nio_lock lock;
    struct nio_seat_record *workers, *sqs; /* one per worker; one per node */
    bool has_new_cpus;        /* the process may use some that the plan does not know */
    _Atomic uint32_t changes; /* how often threads have been moved; read without the lock */
};

/* Errors: -ENOMEM. */
int nio_seats_init(struct nio_seats *seats, const struct nio_plan *plan);
/* Also of all zeroes. */
void nio_seats_fini(struct nio_seats *seats, const struct nio_plan *plan);

/* Takes over what nio_replan() has chosen; counts what changed. */
void nio_seats_set(struct nio_seats *seats, const struct nio_plan *plan,
                   const struct nio_seat *workers, const struct nio_seat *sqs, bool has_new_cpus);
struct nio_seat_record nio_seat_of_worker(struct nio_seats *seats, unsigned index);
struct nio_seat_record nio_seat_of_sq(struct nio_seats *seats, unsigned node);
/* The index-th sentence about a thread that is not where the plan wanted it; NULL past the last. */
const char *nio_seats_reason(struct nio_seats *seats, const struct nio_plan *plan, unsigned index);

/* "home", "moved", "guest", "outside" */
const char *nio_whereabouts_name(enum nio_whereabouts where);

#endif
