/* SPDX-License-Identifier: MIT */
/* A simulated ring: takes requests from the SQ, keeps them until they are due, posts completions.
 *
 * The shared words are used as the kernel uses them: the SQ tail is read with acquire, the SQ head
 * written with release once the SQEs were copied, the CQ tail written with release once the
 * completion is in place, the CQ head read with acquire; the flags change by RMW with seq_cst, the
 * SQ thread looks at the SQ tail once more after it has set NEED_WAKEUP.
 */
#include "tests/shim/shim_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { FIRST_ROOM = 64 };

static void *more_room(void *entries, unsigned *room, size_t bytes)
{
    *room = *room ? *room * 2 : FIRST_ROOM;
    void *grown = realloc(entries, *room * bytes);
    if (!grown)
        abort();
    return grown;
}

/* ---- requests by their time --------------------------------------------------------------- */

static void swap_requests(struct shim_request *a, struct shim_request *b)
{
    struct shim_request kept = *a;
    *a = *b;
    *b = kept;
}

static void sift_up(struct shim_ring *ring, unsigned i)
{
    while (i > 0 && ring->heap[i].due_ns < ring->heap[(i - 1) / 2].due_ns) {
        swap_requests(&ring->heap[i], &ring->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
}

static void sift_down(struct shim_ring *ring, unsigned i)
{
    for (;;) {
        unsigned least = i;
        for (unsigned child = 2 * i + 1; child <= 2 * i + 2 && child < ring->heap_count; child++)
            if (ring->heap[child].due_ns < ring->heap[least].due_ns)
                least = child;
        if (least == i)
            return;
        swap_requests(&ring->heap[i], &ring->heap[least]);
        i = least;
    }
}

void shim_ring_push(struct shim_ring *ring, const struct shim_request *request)
{
    if (ring->heap_count == ring->heap_room)
        ring->heap = more_room(ring->heap, &ring->heap_room, sizeof *ring->heap);
    ring->heap[ring->heap_count] = *request;
    sift_up(ring, ring->heap_count++);
}

void shim_ring_remove(struct shim_ring *ring, unsigned index)
{
    ring->heap[index] = ring->heap[--ring->heap_count];
    if (index < ring->heap_count) {
        sift_up(ring, index);
        sift_down(ring, index);
    }
}

bool shim_ring_find(const struct shim_ring *ring, uint64_t user_data, unsigned *ret_index)
{
    for (unsigned i = 0; i < ring->heap_count; i++) {
        if (ring->heap[i].sqe.user_data == user_data) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

uint64_t shim_ring_next_ns(const struct shim_ring *ring)
{
    return ring->heap_count ? ring->heap[0].due_ns : SHIM_NEVER;
}

/* ---- completions -------------------------------------------------------------------------- */

static void list_push(struct shim_list *list, struct shim_cqe cqe)
{
    if (list->first && list->first == list->count)
        list->first = list->count = 0;
    if (list->count == list->room)
        list->entries = more_room(list->entries, &list->room, sizeof *list->entries);
    list->entries[list->count++] = cqe;
}

static unsigned cq_used(const struct shim_ring *ring)
{
    /* relaxed: written under the mutex */
    unsigned tail = atomic_load_explicit(&ring->cq_tail, memory_order_relaxed);
    /* [DU4] acquire: the driver has read what it gives back. */
    return tail - atomic_load_explicit(&ring->cq_head, memory_order_acquire);
}

static bool cq_has_room(const struct shim_ring *ring)
{
    unsigned room = ring->cq_entries;
    if (ring->faults.cq_room && ring->faults.cq_room < room)
        room = ring->faults.cq_room;
    return cq_used(ring) < room;
}

static void put_in_cq(struct shim_ring *ring, struct shim_cqe cqe)
{
    /* relaxed: written under the mutex */
    unsigned tail = atomic_load_explicit(&ring->cq_tail, memory_order_relaxed);
    struct io_uring_cqe *place = &ring->cqes[tail & ring->cq_mask];
    place->user_data = cqe.user_data;
    place->res = cqe.result;
    place->flags = cqe.flags;
    ring->counts.posted++;
    /* [DU3] release: publishes the completion. */
    atomic_store_explicit(&ring->cq_tail, tail + 1, memory_order_release);
}

static void set_flag(struct shim_ring *ring, unsigned flag)
{
    /* [DU5] seq_cst: the SQ thread's next look at the SQ tail must not pass it. */
    (void)atomic_fetch_or_explicit(&ring->sq_flags, flag, memory_order_seq_cst);
}

static void clear_flag(struct shim_ring *ring, unsigned flag)
{
    /* [DU5] seq_cst: as above */
    (void)atomic_fetch_and_explicit(&ring->sq_flags, ~flag, memory_order_seq_cst);
}

void shim_ring_post(struct shim_ring *ring, struct shim_cqe cqe)
{
    if (ring->backlog.first < ring->backlog.count || !cq_has_room(ring)) {
        list_push(&ring->backlog, cqe);
        ring->counts.overflowed++;
        set_flag(ring, IORING_SQ_CQ_OVERFLOW);
    } else {
        put_in_cq(ring, cqe);
    }
    (void)pthread_cond_broadcast(&ring->changed); /* cannot fail */
}

static void flush_backlog(struct shim_ring *ring)
{
    struct shim_list *backlog = &ring->backlog;
    while (backlog->first < backlog->count && cq_has_room(ring))
        put_in_cq(ring, backlog->entries[backlog->first++]);
    if (backlog->first == backlog->count)
        clear_flag(ring, IORING_SQ_CQ_OVERFLOW);
}

static void run_task_work(struct shim_ring *ring)
{
    struct shim_list *work = &ring->task_work;
    if (work->first == work->count)
        return;
    clear_flag(ring, IORING_SQ_TASKRUN);
    while (work->first < work->count)
        shim_ring_post(ring, work->entries[work->first++]);
}

/* In a ring with DEFER_TASKRUN, what ends by itself waits for the owner to enter. */
static void post_later(struct shim_ring *ring, struct shim_cqe cqe)
{
    if (!ring->is_deferred) {
        shim_ring_post(ring, cqe);
        return;
    }
    list_push(&ring->task_work, cqe);
    set_flag(ring, IORING_SQ_TASKRUN);
}

void shim_ring_complete(struct shim_ring *ring, const struct shim_request *request, int32_t result)
{
    struct shim_cqe cqe = { request->sqe.user_data, 1, IORING_CQE_F_MORE };
    for (unsigned i = 0; i < request->plan.more; i++)
        post_later(ring, cqe);
    cqe = (struct shim_cqe){ request->sqe.user_data, result, 0 };
    ring->counts.in_kernel--;
    if (shim_config.posted)
        shim_config.posted(shim_config.arg, cqe.user_data, result);
    for (unsigned i = 0; i <= request->plan.doubled; i++)
        post_later(ring, cqe);
}

/* ---- requests ----------------------------------------------------------------------------- */

/* What the cancel of `target` ends with. */
static int32_t cancel(struct shim_ring *ring, uint64_t target)
{
    unsigned i;
    for (i = 0; i < ring->waiting_count; i++) {
        if (ring->waiting[i].sqe.user_data == target) {
            struct shim_request ended = ring->waiting[i];
            ring->waiting[i] = ring->waiting[--ring->waiting_count];
            shim_ring_complete(ring, &ended, -ECANCELED);
            return 0;
        }
    }
    if (!shim_ring_find(ring, target, &i))
        return -ENOENT;
    struct shim_request *found = &ring->heap[i];
    switch (found->plan.on_cancel) {
    case SHIM_CANCEL_LATE:
        return 0;
    case SHIM_CANCEL_ALREADY:
        return -EALREADY;
    case SHIM_CANCEL_MISSES:
        found->plan.on_cancel = SHIM_CANCEL_ENDS;
        return -ENOENT;
    case SHIM_CANCEL_ENDS:
        break;
    }
    struct shim_request ended = *found;
    shim_ring_remove(ring, i);
    shim_ring_complete(ring, &ended, -ECANCELED);
    return 0;
}

static void issue(struct shim_ring *ring, const struct io_uring_sqe *sqe)
{
    struct shim_request request = { .sqe = *sqe };
    ring->counts.taken++;
    if (sqe->flags & IOSQE_CQE_SKIP_SUCCESS)
        return; /* it succeeds */
    if (sqe->opcode == IORING_OP_ASYNC_CANCEL) {
        ring->counts.cancels++;
        shim_ring_post(ring, (struct shim_cqe){ sqe->user_data, cancel(ring, sqe->addr), 0 });
        return;
    }
    if (sqe->opcode == IORING_OP_POLL_ADD)
        ring->counts.watches++;
    if (shim_config.decide)
        shim_config.decide(shim_config.arg, sqe, &request.plan);
    ring->counts.in_kernel++;
    uint64_t now_ns = shim_now_ns(), delay_ns = request.plan.delay_ns;
    request.due_ns = delay_ns < SHIM_NEVER - now_ns ? now_ns + delay_ns : SHIM_NEVER;
    shim_ring_push(ring, &request);
}

unsigned shim_ring_take(struct shim_ring *ring, unsigned max)
{
    /* relaxed: written under the mutex */
    unsigned head = atomic_load_explicit(&ring->sq_head, memory_order_relaxed);
    /* [DU1] acquire: sees the SQEs. */
    unsigned tail = atomic_load_explicit(&ring->sq_tail, memory_order_acquire);
    unsigned count = 0;
    if (ring->faults.take_max && ring->faults.take_max < max)
        max = ring->faults.take_max;
    for (; head != tail && count < max; count++) {
        issue(ring, &ring->sqes[ring->array[head & ring->sq_mask]]);
        head++;
    }
    /* [DU2] release: the SQEs were read before their places are given back. */
    atomic_store_explicit(&ring->sq_head, head, memory_order_release);
    if (count)
        (void)pthread_cond_broadcast(&ring->changed); /* cannot fail */
    return count;
}

static bool sq_is_full(const struct shim_ring *ring)
{
    /* relaxed: written under the mutex */
    unsigned head = atomic_load_explicit(&ring->sq_head, memory_order_relaxed);
    /* relaxed: the caller is who writes it */
    return atomic_load_explicit(&ring->sq_tail, memory_order_relaxed) - head == ring->sq_entries;
}

/* Ends the requests whose time has come; true: there were some. */
static bool end_due(struct shim_ring *ring)
{
    uint64_t now_ns = shim_now_ns();
    bool did_end = false;
    while (ring->heap_count && ring->heap[0].due_ns <= now_ns) {
        struct shim_request request = ring->heap[0];
        shim_ring_remove(ring, 0);
        if (request.plan.is_given)
            shim_ring_complete(ring, &request, request.plan.result);
        else if (ring->waiting_count < SHIM_WAITING_MAX)
            ring->waiting[ring->waiting_count++] = request;
        else
            shim_stuck("more requests wait for descriptors than the shim has room for");
        did_end = true;
    }
    if (ring->waiting_count && !shim_config.is_virtual)
        did_end |= shim_perform_waiting(ring);
    return did_end;
}

bool shim_ring_turn(struct shim_ring *ring)
{
    bool did_end = end_due(ring);
    if (!ring->is_sqpoll || ring->is_asleep || ring->is_dead ||
        ring->faults.starved_until_ns > shim_now_ns())
        return did_end;
    bool did_take = shim_ring_take(ring, ring->sq_entries) > 0;
    return end_due(ring) || did_take || did_end;
}

/* ---- entering ----------------------------------------------------------------------------- */

/* Virtual: jumps to the next event.  False: the limit came first. */
static bool jump(struct shim_ring *ring, uint64_t limit_ns, const char *what)
{
    uint64_t next_ns = shim_ring_next_ns(ring);
    bool can_take = ring->is_sqpoll && !ring->is_asleep && !ring->is_dead;
    if (can_take && ring->faults.starved_until_ns > shim_now_ns() &&
        ring->faults.starved_until_ns < next_ns)
        next_ns = ring->faults.starved_until_ns;
    if (next_ns == SHIM_NEVER && limit_ns == SHIM_NEVER)
        shim_stuck(what);
    if (limit_ns <= next_ns) {
        shim_clock_advance(limit_ns);
        return false;
    }
    shim_clock_advance(next_ns);
    return true;
}

/* Sleeps once.  False: the time has come. */
static bool sleep_once(struct shim_ring *ring, uint64_t limit_ns, const char *what)
{
    if (shim_config.is_virtual)
        return jump(ring, limit_ns, what);
    if (shim_now_ns() >= limit_ns)
        return false;
    if (ring->has_thread) {
        struct timespec limit = { (time_t)(limit_ns / 1000000000), (long)(limit_ns % 1000000000) };
        if (limit_ns == SHIM_NEVER)
            (void)pthread_cond_wait(&ring->changed, &ring->mutex); /* looks again */
        else
            (void)pthread_cond_clockwait(&ring->changed, &ring->mutex, CLOCK_MONOTONIC, &limit);
    } else {
        uint64_t next_ns = shim_ring_next_ns(ring);
        shim_perform_wait(ring, next_ns < limit_ns ? next_ns : limit_ns);
    }
    return true;
}

static int wait_for_completions(struct shim_ring *ring, unsigned min_complete, uint64_t limit_ns)
{
    for (;;) {
        if (!ring->has_thread)
            (void)shim_ring_turn(ring); /* whatever it did, the CQ tells */
        run_task_work(ring);
        flush_backlog(ring);
        if (cq_used(ring) >= min_complete)
            return 0;
        if (!sleep_once(ring, limit_ns, "an enter would wait for ever"))
            return -ETIME;
    }
}

/* The next planned error, or 0. */
static int planned_error(struct shim_ring *ring)
{
    if (ring->faults.enter_errors == 0)
        return 0;
    ring->faults.enter_errors--;
    return ring->faults.enter_error;
}

static int enter_sqpoll(struct shim_ring *ring, unsigned flags)
{
    if (ring->is_dead)
        return -EOWNERDEAD;
    if (flags & IORING_ENTER_SQ_WAKEUP) {
        ring->is_asleep = false;
        clear_flag(ring, IORING_SQ_NEED_WAKEUP);
        shim_ring_kick(ring);
    }
    if (flags & IORING_ENTER_SQ_WAIT) {
        while (sq_is_full(ring) && !ring->is_dead) {
            if (!ring->has_thread && shim_ring_turn(ring))
                continue;
            (void)sleep_once(ring, SHIM_NEVER, "an enter would wait for SQ room for ever");
        }
    }
    return 0;
}

int shim_ring_enter(struct shim_ring *ring, unsigned to_submit, unsigned min_complete,
                    unsigned flags, int64_t timeout_ns)
{
    int rc = 0, error;
    ring->counts.enters++;
    if (!ring->has_thread)
        (void)shim_ring_turn(ring); /* the kernel did not wait for the enter */
    if (ring->is_sqpoll) {
        if ((rc = enter_sqpoll(ring, flags)) < 0)
            return rc;
        if (min_complete > 0 && (error = planned_error(ring)) < 0)
            return error;
    } else if ((error = planned_error(ring)) < 0) {
        return error;
    } else if (to_submit) {
        rc = (int)shim_ring_take(ring, to_submit);
        (void)end_due(ring); /* what the kernel does at once */
        if (rc == 0)
            return -EAGAIN;
        if ((unsigned)rc != to_submit)
            return rc; /* as the kernel: then it does not get to the completions */
    }
    if (!(flags & IORING_ENTER_GETEVENTS))
        return rc;
    uint64_t limit_ns = timeout_ns < 0 ? SHIM_NEVER : shim_now_ns() + (uint64_t)timeout_ns;
    error = wait_for_completions(ring, min_complete, limit_ns);
    return rc > 0 ? rc : error;
}

void shim_ring_kick(struct shim_ring *ring)
{
    if (!shim_config.is_virtual)
        (void)eventfd_write(ring->fd, 1);         /* full: it is awake then */
    (void)pthread_cond_broadcast(&ring->changed); /* cannot fail */
}

/* ---- making and ending -------------------------------------------------------------------- */

static unsigned power_of_two(unsigned n)
{
    unsigned power = 1;
    while (power < n)
        power *= 2;
    return power;
}

/* The words as liburing would have mapped them. */
static void describe(struct shim_ring *sim, struct io_uring *ring, struct io_uring_params *params)
{
    memset(ring, 0, sizeof *ring);
    ring->sq.khead = (unsigned *)&sim->sq_head;
    ring->sq.ktail = (unsigned *)&sim->sq_tail;
    ring->sq.kflags = (unsigned *)&sim->sq_flags;
    ring->sq.kring_mask = &sim->sq_mask;
    ring->sq.kring_entries = &sim->sq_entries;
    ring->sq.kdropped = &sim->dropped;
    ring->sq.array = sim->array;
    ring->sq.sqes = sim->sqes;
    ring->cq.khead = (unsigned *)&sim->cq_head;
    ring->cq.ktail = (unsigned *)&sim->cq_tail;
    ring->cq.kring_mask = &sim->cq_mask;
    ring->cq.kring_entries = &sim->cq_entries;
    ring->cq.koverflow = &sim->overflow;
    ring->cq.cqes = sim->cqes;
    ring->flags = params->flags;
    ring->ring_fd = ring->enter_ring_fd = sim->fd;
    params->features = ring->features = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP |
                                        IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_RW_CUR_POS |
                                        IORING_FEAT_FAST_POLL | IORING_FEAT_EXT_ARG;
    params->sq_entries = sim->sq_entries;
    params->cq_entries = sim->cq_entries;
}

struct shim_ring *shim_ring_create(unsigned entries, struct io_uring *ring,
                                   struct io_uring_params *params)
{
    struct shim_ring *sim = calloc(1, sizeof *sim);
    if (!sim)
        abort();
    sim->sq_entries = power_of_two(entries);
    sim->cq_entries = params->flags & IORING_SETUP_CQSIZE ? power_of_two(params->cq_entries)
                                                          : 2 * sim->sq_entries;
    sim->sq_mask = sim->sq_entries - 1;
    sim->cq_mask = sim->cq_entries - 1;
    sim->array = calloc(sim->sq_entries, sizeof *sim->array);
    sim->sqes = calloc(sim->sq_entries, sizeof *sim->sqes);
    sim->cqes = calloc(sim->cq_entries, sizeof *sim->cqes);
    sim->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!sim->array || !sim->sqes || !sim->cqes || sim->fd < 0 || sim->fd >= SHIM_FDS)
        abort();
    (void)pthread_mutex_init(&sim->mutex, NULL);  /* cannot fail with these attributes */
    (void)pthread_cond_init(&sim->changed, NULL); /* likewise */
    sim->is_sqpoll = (params->flags & IORING_SETUP_SQPOLL) != 0;
    sim->is_deferred = (params->flags & IORING_SETUP_DEFER_TASKRUN) != 0;
    describe(sim, ring, params);
    if (sim->is_sqpoll && shim_config.has_thread)
        shim_thread_start(sim);
    return sim;
}

void shim_ring_destroy(struct shim_ring *ring)
{
    if (ring->has_thread)
        shim_thread_stop(ring);
    (void)close(ring->fd); /* an eventfd */
    (void)pthread_cond_destroy(&ring->changed);
    (void)pthread_mutex_destroy(&ring->mutex);
    free(ring->heap);
    free(ring->task_work.entries);
    free(ring->backlog.entries);
    free(ring->array);
    free(ring->sqes);
    free(ring->cqes);
    free(ring);
}
