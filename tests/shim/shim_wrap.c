/* SPDX-License-Identifier: MIT */
/* Where the driver is caught on its way to the kernel: the linker gives each call of X from the
 * objects of the program to __wrap_X, and of __real_X to the C library or liburing.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/shim/shim_ring.h"

enum { SEND_MSG_RING = 31 /* IORING_REGISTER_SEND_MSG_RING, since Linux 6.13 */ };
static const uint64_t virtual_start_ns = 1000000000;

struct shim_config shim_config;
bool shim_is_on;
static uint64_t virtual_now_ns;
static _Atomic(struct shim_ring *) rings[SHIM_FDS];

int __real_io_uring_enter2(unsigned fd, unsigned to_submit, unsigned min_complete, unsigned flags,
                           sigset_t *sig, size_t bytes);
int __real_io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                                      struct io_uring_params *params);
void __real_io_uring_queue_exit(struct io_uring *ring);
int __real_io_uring_register_ring_fd(struct io_uring *ring);
int __real_io_uring_register_iowq_aff(struct io_uring *ring, size_t bytes, const cpu_set_t *mask);
int __real_io_uring_register_iowq_max_workers(struct io_uring *ring, unsigned *values);
struct io_uring_probe *__real_io_uring_get_probe_ring(struct io_uring *ring);
int __real_clock_gettime(clockid_t clock, struct timespec *ret_time);
long __real_syscall(long number, ...);

int __wrap_io_uring_enter2(unsigned fd, unsigned to_submit, unsigned min_complete, unsigned flags,
                           sigset_t *sig, size_t bytes);
int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                                      struct io_uring_params *params);
void __wrap_io_uring_queue_exit(struct io_uring *ring);
int __wrap_io_uring_register_ring_fd(struct io_uring *ring);
int __wrap_io_uring_register_iowq_aff(struct io_uring *ring, size_t bytes, const cpu_set_t *mask);
int __wrap_io_uring_register_iowq_max_workers(struct io_uring *ring, unsigned *values);
struct io_uring_probe *__wrap_io_uring_get_probe_ring(struct io_uring *ring);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_time);
long __wrap_syscall(long number, long a0, long a1, long a2, long a3, long a4, long a5);

/* NULL: not a simulated ring. */
static struct shim_ring *ring_of(int fd)
{
    if (fd < 0 || fd >= SHIM_FDS)
        return NULL;
    /* [SH1] acquire: sees the ring as it was made.  Pairs with [SH1] in queue_init_params. */
    return atomic_load_explicit(&rings[fd], memory_order_acquire);
}

static struct shim_ring *lock_ring(int fd)
{
    struct shim_ring *ring = ring_of(fd);
    if (!ring)
        shim_stuck("this descriptor is of no simulated ring");
    (void)pthread_mutex_lock(&ring->mutex);
    return ring;
}

static void unlock_ring(struct shim_ring *ring)
{
    (void)pthread_mutex_unlock(&ring->mutex);
}

_Noreturn void shim_stuck(const char *what)
{
    (void)fprintf(stderr, "shim: %s\n", what); /* nothing to do if it fails */
    abort();
}

/* ---- the clock ---------------------------------------------------------------------------- */

static bool is_virtual(void)
{
    return shim_is_on && shim_config.is_virtual;
}

uint64_t shim_now_ns(void)
{
    if (is_virtual())
        return virtual_now_ns;
    struct timespec now;
    (void)__real_clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void shim_clock_advance(uint64_t to_ns)
{
    if (to_ns > virtual_now_ns)
        virtual_now_ns = to_ns;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_time)
{
    if (!is_virtual() || clock != CLOCK_MONOTONIC)
        return __real_clock_gettime(clock, ret_time);
    virtual_now_ns += shim_config.tick_ns;
    ret_time->tv_sec = (time_t)(virtual_now_ns / 1000000000);
    ret_time->tv_nsec = (long)(virtual_now_ns % 1000000000);
    return 0;
}

/* Virtual: the one thread sleeps on a word that nobody else can change. */
static long sleep_on_futex(const uint32_t *word, uint32_t expected, const struct timespec *limit)
{
    errno = ETIMEDOUT;
    if (*word != expected) {
        errno = EAGAIN;
        return -1;
    }
    if (!limit)
        shim_stuck("a futex would be slept on for ever");
    virtual_now_ns += (uint64_t)limit->tv_sec * 1000000000 + (uint64_t)limit->tv_nsec;
    return -1;
}

static long post_message(const struct io_uring_sqe *sqe)
{
    if (!shim_config.has_message) {
        errno = EINVAL;
        return -1;
    }
    struct shim_ring *ring = lock_ring(sqe->fd);
    shim_ring_post(ring, (struct shim_cqe){ sqe->off, (int32_t)sqe->len, 0 });
    shim_ring_kick(ring);
    unlock_ring(ring);
    return 0;
}

/* As many arguments as there can be: those that the caller has not given do not matter, and are not
 * looked at but by the C library's own function of this form. */
long __wrap_syscall(long number, long a0, long a1, long a2, long a3, long a4, long a5)
{
    const long a[6] = { a0, a1, a2, a3, a4, a5 };
    if (is_virtual() && number == SYS_futex) {
        if ((int)a[1] != FUTEX_WAIT_PRIVATE)
            return 0;
        return sleep_on_futex((const uint32_t *)a[0], (uint32_t)a[2],
                              (const struct timespec *)a[3]);
    }
    if (shim_is_on && number == SYS_io_uring_register && (int)a[0] == -1 && a[1] == SEND_MSG_RING)
        return post_message((const struct io_uring_sqe *)a[2]);
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- liburing ----------------------------------------------------------------------------- */

int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                                      struct io_uring_params *params)
{
    if (!shim_is_on || (params->flags & IORING_SETUP_IOPOLL))
        return __real_io_uring_queue_init_params(entries, ring, params);
    struct shim_ring *sim = shim_ring_create(entries, ring, params);
    /* [SH1] release: publishes the ring to all who enter it. */
    atomic_store_explicit(&rings[sim->fd], sim, memory_order_release);
    return 0;
}

void __wrap_io_uring_queue_exit(struct io_uring *ring)
{
    struct shim_ring *sim = ring_of(ring->ring_fd);
    if (!sim) {
        __real_io_uring_queue_exit(ring);
        return;
    }
    /* relaxed: nobody may use a ring that ends */
    atomic_store_explicit(&rings[ring->ring_fd], NULL, memory_order_relaxed);
    shim_ring_destroy(sim);
}

int __wrap_io_uring_enter2(unsigned fd, unsigned to_submit, unsigned min_complete, unsigned flags,
                           sigset_t *sig, size_t bytes)
{
    struct shim_ring *ring = flags & IORING_ENTER_REGISTERED_RING ? NULL : ring_of((int)fd);
    if (!ring)
        return __real_io_uring_enter2(fd, to_submit, min_complete, flags, sig, bytes);
    int64_t timeout_ns = -1;
    if (flags & IORING_ENTER_EXT_ARG) {
        const struct io_uring_getevents_arg *arg = (const void *)sig;
        const struct __kernel_timespec *limit = (const void *)(uintptr_t)arg->ts;
        if (limit)
            timeout_ns = limit->tv_sec * 1000000000 + limit->tv_nsec;
    }
    (void)pthread_mutex_lock(&ring->mutex);
    virtual_now_ns += is_virtual() ? shim_config.tick_ns : 0;
    int rc = shim_ring_enter(ring, to_submit, min_complete, flags, timeout_ns);
    unlock_ring(ring);
    return rc;
}

int __wrap_io_uring_register_ring_fd(struct io_uring *ring)
{
    return ring_of(ring->ring_fd) ? -EINVAL : __real_io_uring_register_ring_fd(ring);
}

int __wrap_io_uring_register_iowq_aff(struct io_uring *ring, size_t bytes, const cpu_set_t *mask)
{
    return ring_of(ring->ring_fd) ? 0 : __real_io_uring_register_iowq_aff(ring, bytes, mask);
}

int __wrap_io_uring_register_iowq_max_workers(struct io_uring *ring, unsigned *values)
{
    return ring_of(ring->ring_fd) ? 0 : __real_io_uring_register_iowq_max_workers(ring, values);
}

/* A simulated ring knows every opcode. */
struct io_uring_probe *__wrap_io_uring_get_probe_ring(struct io_uring *ring)
{
    if (!ring_of(ring->ring_fd))
        return __real_io_uring_get_probe_ring(ring);
    struct io_uring_probe *probe =
        calloc(1, sizeof *probe + 256 * sizeof(struct io_uring_probe_op));
    if (!probe)
        return NULL;
    probe->last_op = probe->ops_len = IORING_OP_LAST - 1;
    for (unsigned i = 0; i < IORING_OP_LAST; i++)
        probe->ops[i] =
            (struct io_uring_probe_op){ .op = (uint8_t)i, .flags = IO_URING_OP_SUPPORTED };
    return probe;
}

/* ---- the tests' side ---------------------------------------------------------------------- */

void shim_begin(const struct shim_config *config)
{
    shim_config = *config;
    virtual_now_ns = virtual_start_ns;
    shim_is_on = true;
}

void shim_end(void)
{
    shim_is_on = false;
}

bool shim_is_ring(int fd)
{
    return ring_of(fd) != NULL;
}

void shim_set_faults(int ring_fd, const struct shim_faults *faults)
{
    struct shim_ring *ring = lock_ring(ring_fd);
    ring->faults = *faults;
    shim_ring_kick(ring);
    unlock_ring(ring);
}

struct shim_counts shim_counts(int ring_fd)
{
    struct shim_ring *ring = lock_ring(ring_fd);
    struct shim_counts counts = ring->counts;
    unlock_ring(ring);
    return counts;
}

void shim_pass(int ring_fd, uint64_t ns)
{
    struct shim_ring *ring = lock_ring(ring_fd);
    virtual_now_ns += ns;
    (void)shim_ring_turn(ring); /* whatever it did */
    unlock_ring(ring);
}

void shim_sleep(int ring_fd)
{
    struct shim_ring *ring = lock_ring(ring_fd);
    /* relaxed, both: one thread */
    unsigned tail = atomic_load_explicit(&ring->sq_tail, memory_order_relaxed);
    /* relaxed: as above */
    if (ring->is_sqpoll && tail == atomic_load_explicit(&ring->sq_head, memory_order_relaxed)) {
        ring->is_asleep = true;
        /* relaxed: as above */
        (void)atomic_fetch_or_explicit(&ring->sq_flags, IORING_SQ_NEED_WAKEUP,
                                       memory_order_relaxed);
    }
    unlock_ring(ring);
}

void shim_kill(int ring_fd)
{
    struct shim_ring *ring = lock_ring(ring_fd);
    while (ring->heap_count) {
        struct shim_request ended = ring->heap[0];
        shim_ring_remove(ring, 0);
        shim_ring_complete(ring, &ended, -ECANCELED);
    }
    while (ring->waiting_count)
        shim_ring_complete(ring, &ring->waiting[--ring->waiting_count], -ECANCELED);
    ring->is_dead = true;
    /* [DU5] seq_cst: so that the next flush enters, and is told. */
    (void)atomic_fetch_or_explicit(&ring->sq_flags, IORING_SQ_NEED_WAKEUP, memory_order_seq_cst);
    shim_ring_kick(ring);
    unlock_ring(ring);
}

bool shim_finish(int ring_fd, uint64_t user_data)
{
    struct shim_ring *ring = lock_ring(ring_fd);
    bool is_found = false;
    for (unsigned i = 0; i < ring->heap_count && !is_found; i++) {
        uint64_t mask = user_data >> 48 ? UINT64_MAX : (UINT64_C(1) << 48) - 1;
        if ((ring->heap[i].sqe.user_data & mask) != user_data)
            continue;
        struct shim_request request = ring->heap[i];
        shim_ring_remove(ring, i);
        request.due_ns = 0;
        shim_ring_push(ring, &request);
        is_found = true;
    }
    if (!ring->has_thread && is_found)
        (void)shim_ring_turn(ring); /* ends it */
    shim_ring_kick(ring);
    unlock_ring(ring);
    return is_found;
}
