/* SPDX-License-Identifier: MIT */
/* tests/shim/shim_ring.h: a simulated ring, private to this folder.  All fields but the shared
 * words are under `mutex`.
 */
#ifndef TESTS_SHIM_SHIM_RING_H
#define TESTS_SHIM_SHIM_RING_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "tests/shim/shim.h"

enum { SHIM_FDS = 4096, SHIM_WAITING_MAX = 1024 };

struct shim_request {
    struct io_uring_sqe sqe;
    struct shim_plan plan;
    uint64_t due_ns;
};

/* A completion that is not in the CQ yet. */
struct shim_cqe {
    uint64_t user_data;
    int32_t result;
    unsigned flags;
};

/* First in, first out; grows. */
struct shim_list {
    struct shim_cqe *entries;
    unsigned first, count, room;
};

struct shim_ring {
    /* shared with the driver, as with a kernel */
    _Atomic unsigned sq_head, sq_tail, sq_flags, cq_head, cq_tail;
    unsigned *array;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    unsigned sq_entries, cq_entries, sq_mask, cq_mask, dropped, overflow;

    int fd; /* an eventfd: what the ring sleeps on */
    bool is_sqpoll, is_deferred;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* the SQ thread took or posted something */
    struct shim_faults faults;
    struct shim_counts counts;
    struct shim_request *heap; /* by due_ns, a binary heap */
    unsigned heap_count, heap_room;
    struct shim_request waiting[SHIM_WAITING_MAX]; /* performed: for their descriptors */
    unsigned waiting_count;
    struct shim_list task_work, backlog;

    /* the SQ thread */
    pthread_t thread;
    bool has_thread, is_asleep, is_dead, must_end;
};

extern struct shim_config shim_config;
extern bool shim_is_on;

/* shim_wrap.c: the clock. */
void shim_clock_advance(uint64_t to_ns);
_Noreturn void shim_stuck(const char *what);

/* shim_ring.c; the caller holds the mutex. */
struct shim_ring *shim_ring_create(unsigned entries, struct io_uring *ring,
                                   struct io_uring_params *params);
void shim_ring_destroy(struct shim_ring *ring);
int shim_ring_enter(struct shim_ring *ring, unsigned to_submit, unsigned min_complete,
                    unsigned flags, int64_t timeout_ns);
/* Ends what is due and lets the SQ thread of virtual time take what there is.  True: it took. */
bool shim_ring_turn(struct shim_ring *ring);
unsigned shim_ring_take(struct shim_ring *ring, unsigned max);
void shim_ring_complete(struct shim_ring *ring, const struct shim_request *request, int32_t result);
/* Straight into the CQ, or the backlog. */
void shim_ring_post(struct shim_ring *ring, struct shim_cqe cqe);
void shim_ring_remove(struct shim_ring *ring, unsigned index);
void shim_ring_push(struct shim_ring *ring, const struct shim_request *request);
bool shim_ring_find(const struct shim_ring *ring, uint64_t user_data, unsigned *ret_index);
uint64_t shim_ring_next_ns(const struct shim_ring *ring);
void shim_ring_kick(struct shim_ring *ring);

/* shim_perform.c: tries each waiting request; true: some ended. */
bool shim_perform_waiting(struct shim_ring *ring);
/* Sleeps until a descriptor is ready, the ring is kicked, or the time has come.  The mutex is
 * released meanwhile. */
void shim_perform_wait(struct shim_ring *ring, uint64_t until_ns);

/* shim_thread.c: the SQ thread. */
void shim_thread_start(struct shim_ring *ring);
void shim_thread_stop(struct shim_ring *ring);

#endif
