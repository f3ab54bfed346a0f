/* SPDX-License-Identifier: MIT */
/* Making and ending a ring.
 *
 * The order matters: the caller has pinned the thread and set its memory policy, so that the
 * kernel takes the ring's memory from the right node.  An SQ thread inherits the scheduling class
 * of the thread that makes the first ring, which is an ordinary one for that system call only
 * (struct nio_class_loan); its CPUs are set once it is there.
 */
#include "runtime/driver/uring_setup.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/assert.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/driver/polled.h"
#include "runtime/driver/uring.h"

enum { SHARED_SQ_NICE = 5 }; /* what an SQ thread on a worker's core adds to the worker's nice */

/* ---- the system call and its errors ------------------------------------------------------- */

int nio_ring_setup(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
    if (nio_fault_now())
        return -ENOMEM;
    return io_uring_queue_init_params(entries, ring, params);
}

static int read_disabled_switch(void)
{
    char digit = '0';
    int fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, &digit, 1) != 1)
            digit = '0';
        (void)close(fd); /* only read from */
    }
    return digit - '0';
}

static unsigned long long soft_limit(__rlimit_resource_t resource)
{
    struct rlimit limit = { 0 };
    (void)getrlimit(resource, &limit); /* only a number for the sentence */
    return (unsigned long long)limit.rlim_cur;
}

void nio_ring_explain(int error, char *ret_text, size_t text_bytes)
{
    int written = 0;
    switch (error) {
    case -EPERM:
    case -EACCES:
        if (read_disabled_switch() > 0)
            written = snprintf(ret_text, text_bytes,
                               "io_uring is refused: kernel.io_uring_disabled is %d; sysctl "
                               "kernel.io_uring_disabled=0 allows it",
                               read_disabled_switch());
        else
            written = snprintf(ret_text, text_bytes,
                               "io_uring is refused: a seccomp filter or security module of this "
                               "container forbids io_uring_setup");
        break;
    case -ENOSYS:
        written = snprintf(ret_text, text_bytes,
                           "io_uring is missing: the kernel was built without it, or a seccomp "
                           "filter hides it");
        break;
    case -ENOMEM:
        written = snprintf(ret_text, text_bytes,
                           "no memory for a ring: RLIMIT_MEMLOCK is %llu bytes (ulimit -l), or "
                           "the kernel is short of memory",
                           soft_limit(RLIMIT_MEMLOCK));
        break;
    case -EMFILE:
        written = snprintf(ret_text, text_bytes,
                           "no descriptor for a ring: RLIMIT_NOFILE is %llu (ulimit -n)",
                           soft_limit(RLIMIT_NOFILE));
        break;
    case -ENFILE:
        written = snprintf(ret_text, text_bytes,
                           "no descriptor for a ring: the system's fs.file-max is reached");
        break;
    case -EAGAIN:
        written = snprintf(ret_text, text_bytes,
                           "no SQ thread could be made: RLIMIT_NPROC is %llu (ulimit -u), or the "
                           "cgroup's pids.max is reached",
                           soft_limit(RLIMIT_NPROC));
        break;
    default:
        written = snprintf(ret_text, text_bytes, "io_uring_setup: %s", strerrordesc_np(-error));
        break;
    }
    NIO_DEBUG_ASSERT(written >= 0);
    (void)written; /* cut at the buffer's end */
}

/* ---- what the SQ thread inherits ---------------------------------------------------------- */

int nio_class_lend(struct nio_class_loan *loan)
{
    memset(loan, 0, sizeof *loan);
    if (syscall(SYS_sched_getattr, 0, &loan->own, sizeof loan->own, 0) < 0)
        return nio_error(-errno, "sched_getattr: %s", strerrordesc_np(errno));
    if (loan->own.policy == SCHED_OTHER)
        return 0;
    struct nio_class_attr plain = { .size = sizeof plain, .policy = SCHED_OTHER };
    if (syscall(SYS_sched_setattr, 0, &plain, 0) < 0)
        return nio_error(-errno, "sched_setattr to SCHED_OTHER for the SQ thread: %s",
                         strerrordesc_np(errno));
    loan->is_changed = true;
    return 0;
}

int nio_class_give_back(struct nio_class_loan *loan)
{
    if (loan->is_changed && syscall(SYS_sched_setattr, 0, &loan->own, 0) < 0)
        return nio_error(-errno,
                         "sched_setattr back to the worker's scheduling class: %s; it needs "
                         "CAP_SYS_NICE or RLIMIT_RTPRIO",
                         strerrordesc_np(errno));
    return 0;
}

/* ---- one ring ----------------------------------------------------------------------------- */

static unsigned setup_flags(const struct nio_driver_options *options, bool is_pinned)
{
    unsigned flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL |
                     IORING_SETUP_SINGLE_ISSUER;
    if (options->profile != NUMIO_DRIVER_SQPOLL)
        return flags | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    flags |= IORING_SETUP_SQPOLL;
    if (is_pinned)
        flags |= IORING_SETUP_SQ_AFF;
    if (options->attach_fd >= 0)
        flags |= IORING_SETUP_ATTACH_WQ;
    return flags;
}

static int setup_once(struct nio_uring *uring, const struct nio_driver_options *options,
                      unsigned entries, unsigned cq_factor, unsigned flags)
{
    unsigned cq_entries = entries * cq_factor;
    struct io_uring_params params = {
        .flags = flags,
        .cq_entries = cq_entries < NIO_URING_CQ_ENTRIES_MAX ? cq_entries : NIO_URING_CQ_ENTRIES_MAX,
        .sq_thread_cpu = flags & IORING_SETUP_SQ_AFF ? (unsigned)options->sq_cpu : 0,
        .sq_thread_idle = options->sq_idle_ms,
        .wq_fd = flags & IORING_SETUP_ATTACH_WQ ? (unsigned)options->attach_fd : 0,
    };
    int error = nio_ring_setup(entries, &uring->ring, &params);
    if (error) {
        uring->ring.ring_fd = -1;
        return error;
    }
    uring->sq_entries = params.sq_entries;
    uring->sq_mask = params.sq_entries - 1;
    uring->cq_mask = params.cq_entries - 1;
    uring->cancels_max = params.cq_entries / 16;
    uring->credits = params.cq_entries - uring->cancels_max - NIO_URING_WAKE_RESERVE;
    return 0;
}

/* Halves the ring while the kernel has no memory for it, and in the end its CQ. */
static int setup_shrinking(struct nio_uring *uring, const struct nio_driver_options *options,
                           unsigned flags)
{
    unsigned entries = options->entries;
    unsigned factor = NIO_URING_CQ_FACTOR;
    int error = setup_once(uring, options, entries, factor, flags);
    while (error == -ENOMEM &&
           (entries / 2 >= NIO_URING_ENTRIES_MIN || factor / 2 >= NIO_URING_CQ_FACTOR_MIN)) {
        if (entries / 2 >= NIO_URING_ENTRIES_MIN)
            entries /= 2;
        else
            factor /= 2;
        error = setup_once(uring, options, entries, factor, flags);
    }
    for (int i = 0; error == -ENOMEM && i < NIO_RING_PATIENCE_MS; i++) {
        (void)usleep(1000); /* shorter is as good */
        error = setup_once(uring, options, entries, factor, flags);
    }
    if (!error && (entries < options->entries || factor < NIO_URING_CQ_FACTOR))
        nio_driver_add_reason(&uring->base,
                              "ring of %u entries instead of %u, %u operations in flight: the "
                              "kernel refused the memory; RLIMIT_MEMLOCK is %llu bytes (ulimit -l)",
                              entries, options->entries, uring->credits,
                              soft_limit(RLIMIT_MEMLOCK));
    return error;
}

/* Flags that older kernels refuse and that only make things faster are given up one after the
 * other; a CPU for the SQ thread that is refused is given up with a reason. */
static int setup_ring(struct nio_uring *uring, const struct nio_driver_options *options,
                      bool is_pinned)
{
    unsigned flags = setup_flags(options, is_pinned);
    int error = setup_shrinking(uring, options, flags);
    if (error == -EINVAL && is_pinned && options->profile == NUMIO_DRIVER_SQPOLL) {
        error = setup_shrinking(uring, options, flags & ~IORING_SETUP_SQ_AFF);
        if (!error)
            nio_driver_add_reason(&uring->base,
                                  "the SQ thread is not pinned: the kernel refused CPU %d, which "
                                  "does not exist or is outside the cpuset",
                                  options->sq_cpu);
        flags &= ~IORING_SETUP_SQ_AFF;
    }
    if (error == -EINVAL && options->profile == NUMIO_DRIVER_SQPOLL) {
        flags &= ~(unsigned)IORING_SETUP_SINGLE_ISSUER; /* since 6.0 */
        error = setup_shrinking(uring, options, flags);
    }
    if (error == -EINVAL && options->profile == NUMIO_DRIVER_SQPOLL) {
        flags &= ~(unsigned)IORING_SETUP_SUBMIT_ALL; /* since 5.18 */
        error = setup_shrinking(uring, options, flags);
    }
    return error;
}

static int make_ring(struct nio_uring *uring, const struct nio_driver_options *options)
{
    bool is_first = options->profile == NUMIO_DRIVER_SQPOLL && options->attach_fd < 0;
    bool is_pinned = is_first && options->sq_cpu >= 0;
    struct nio_class_loan loan = { .is_changed = false };
    int error = is_first ? nio_class_lend(&loan) : 0;
    if (!error) {
        error = setup_ring(uring, options, is_pinned);
        if (error) {
            char text[NIO_ERROR_DETAIL_BYTES];
            nio_ring_explain(error, text, sizeof text);
            (void)nio_error(error, "%s", text); /* returned below */
        }
    }
    int restore_error = nio_class_give_back(&loan);
    return error ? error : restore_error;
}

/* Takes over the ring's memory from liburing's description. */
static void map_ring(struct nio_uring *uring)
{
    struct io_uring *ring = &uring->ring;
    uring->sqes = ring->sq.sqes;
    uring->cqes = ring->cq.cqes;
    uring->sq_head = (_Atomic unsigned *)ring->sq.khead;
    uring->sq_tail = (_Atomic unsigned *)ring->sq.ktail;
    uring->sq_flags = (_Atomic unsigned *)ring->sq.kflags;
    uring->cq_head = (_Atomic unsigned *)ring->cq.khead;
    uring->cq_tail = (_Atomic unsigned *)ring->cq.ktail;
    /* SQE i always stands in slot i, so the index array is written once. */
    for (unsigned i = 0; i < uring->sq_entries; i++)
        ring->sq.array[i] = i;
    uring->enter_fd = ring->ring_fd;
    if (io_uring_register_ring_fd(ring) == 1) { /* since 5.18; saves a look-up per enter */
        uring->enter_fd = ring->enter_ring_fd;
        uring->enter_flags = IORING_ENTER_REGISTERED_RING;
    }
}

/* A worker that is woken by its SQ thread on the same core must get the core at once, and not after
 * the SQ thread has polled to the end of its slice: the SQ thread is a little nicer.  It still gets
 * a quarter of a core that a worker never leaves. */
static void prefer_worker(struct nio_uring *uring)
{
    int tid = nio_sq_thread_of(uring->ring.ring_fd);
    int nice = getpriority(PRIO_PROCESS, 0) + SHARED_SQ_NICE;
    if (tid < 0 || setpriority(PRIO_PROCESS, (id_t)tid, nice) < 0)
        nio_driver_add_reason(&uring->base, "the SQ thread competes with its worker: %s",
                              strerrordesc_np(tid < 0 ? -tid : errno));
}

/* An SQ thread that is not pinned has its maker's one CPU (since 6.12) or all there are (6.1): it
 * gets those of its node.  A failure shows in the status: nio_check_sq_threads() looks at the
 * result. */
static void confine_sq_thread(const struct nio_uring *uring,
                              const struct nio_driver_options *options)
{
    cpu_set_t cpus;
    int tid = nio_sq_thread_of(uring->ring.ring_fd);
    CPU_ZERO(&cpus);
    for (unsigned i = 0; i < options->sq_mask_count; i++)
        if (options->sq_mask[i] >= 0 && options->sq_mask[i] < CPU_SETSIZE)
            CPU_SET(options->sq_mask[i], &cpus);
    if (tid > 0)
        (void)sched_setaffinity(tid, sizeof cpus, &cpus); /* as above */
}

int nio_uring_create(const struct nio_driver_options *options, struct nio_driver **ret_driver)
{
    if (options->entries < 8 || options->entries > 32768)
        return nio_error(-EINVAL, "ring entries: %u is not within 8 to 32768", options->entries);
    struct nio_uring *uring = nio_zalloc(sizeof *uring);
    if (!uring)
        return nio_error(-ENOMEM, "no memory for a driver of %zu bytes", sizeof *uring);
    uring->ring.ring_fd = -1;
    atomic_init(&uring->missed_ns, NIO_TIME_NONE);
    uring->is_sqpoll = options->profile == NUMIO_DRIVER_SQPOLL;
    uring->base.is_eager = uring->is_sqpoll; /* publishing is a store */
    uring->has_iowq = uring->is_sqpoll;      /* the SQ thread's, which no signal disturbs */
    /* Where it serves several rings, an SQ thread takes eight requests at a time and begins what it
     * has of a chain (IORING_SQPOLL_CAP_ENTRIES_VALUE in the kernel). */
    uring->base.keeps_chains = uring->is_sqpoll && options->sq_has_rings;
    nio_lock_init(&uring->cq_lock, NIO_RANK_DRIVER);
    int error = nio_driver_base_init(&uring->base, options);
    if (!error)
        error = make_ring(uring, options);
    if (error) {
        nio_uring_destroy(&uring->base);
        return error;
    }
    map_ring(uring);
    nio_uring_limit_iowq(uring, options);
    nio_uring_set_napi(uring, options);
    bool makes_sq_thread = uring->is_sqpoll && options->attach_fd < 0;
    if (makes_sq_thread && options->sq_cpu < 0 && options->sq_mask_count > 0)
        confine_sq_thread(uring, options);
    if (makes_sq_thread && options->sq_shares_core)
        prefer_worker(uring);
    /* Tried with a wake that the first reap takes: spurious wakes are allowed. */
    uring->has_message = uring->is_sqpoll && nio_uring_send_message(uring) == 0;
    if (options->profile == NUMIO_DRIVER_IOPOLL &&
        (error = nio_polled_create(options, &uring->base)) < 0) {
        nio_uring_destroy(&uring->base);
        return error;
    }
    *ret_driver = &uring->base;
    return 0;
}

void nio_uring_destroy(struct nio_driver *driver)
{
    struct nio_uring *uring = nio_uring_of(driver);
    nio_polled_destroy(driver->polled);
    if (uring->ring.ring_fd >= 0)
        io_uring_queue_exit(&uring->ring);
    nio_driver_base_fini(driver);
    nio_free(uring->missed);
    nio_free(uring);
}
