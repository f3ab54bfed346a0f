/* SPDX-License-Identifier: MIT */
/* driver/driver.h: a worker's way to the kernel.
 *
 * Each worker has one driver and is its only submitter.  Completions may also be reaped by an
 * idle sibling, under the driver's try-lock.  A completion stores the operation's result and wakes
 * its task; what the scheduler does with that wake is not the driver's business.
 *
 * Four profiles share this interface: sqpoll and defer (driver_uring.c), iopoll, which is defer
 * with a second ring (polled.c), and epoll (driver_epoll.c).  Which one a driver has is fixed when
 * it starts.
 *
 * An operation ends, by nio_op_done(), only within nio_driver_reap(), nio_driver_reap_for() and, as
 * noted there, nio_driver_cancel().
 *
 * Contexts: "owner" is the worker's thread, "sibling" any other worker of the runtime, "any" any
 * thread of the process.  Nothing here suspends a task; only nio_driver_park() blocks.
 */
#ifndef NIO_DRIVER_DRIVER_H
#define NIO_DRIVER_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include <numio/config.h>
#include <numio/op.h>

#include "runtime/base/compiler.h"
#include "runtime/driver/buf_group.h"
#include "runtime/task/multi.h"
#include "runtime/time/timeline.h"

struct nio_driver;

/* What the kernel of this process offers, found by trying and not by version. */
struct nio_driver_probe {
    bool has_uring; /* a ring can be made and has every opcode that the typed calls use */
    bool has_sqpoll;
    bool has_defer; /* SINGLE_ISSUER + DEFER_TASKRUN */
    bool has_ext_arg;
    bool has_iopoll;  /* a polled ring can be made */
    bool polls_disk;  /* and some disk has queues for polling */
    uint64_t opcodes; /* those below 64 that it knows, a bit for each */
    int uring_error;  /* why not, a negative errno value, 0 if it can */
    char reason[160]; /* sentence for the status when something is missing, else "" */
};

/* Tries what matters for the wish: no ring for epoll, an SQ thread only where one may be wanted,
 * polling for iopoll only.   Context: a thread that may block for some milliseconds. */
void nio_driver_probe(enum numio_driver wish, struct nio_driver_probe *ret_probe);

/* The profile for a wish on a machine: pure.  Returns it (never AUTO) and, if it is not the wish
 * or AUTO settled for less than sqpoll, writes a sentence to ret_reason.  A wish that cannot be had
 * is demoted with its reason, except that -EOPNOTSUPP is returned for an unknown wish. */
int nio_driver_choose(enum numio_driver wish, const struct nio_driver_probe *probe,
                      unsigned allowed_cpus, double cpu_quota, bool sq_shares_core,
                      char *ret_reason, size_t reason_bytes);

/* Of a descriptor, for the profile iopoll. */
enum nio_fd_kind {
    NIO_FD_BUFFERED,     /* without O_DIRECT, or no file */
    NIO_FD_UNPOLLED,     /* O_DIRECT, but its disk has no queues for polling, or it has no disk */
    NIO_FD_POLLED_READS, /* writes go the ordinary way: polled_fd.c tells why */
    NIO_FD_POLLED
};

/* Any thread; reads /sys. */
enum nio_fd_kind nio_fd_kind_of(int fd);
bool nio_any_disk_polls(void);

struct nio_driver_options {
    enum numio_driver profile; /* not AUTO */
    unsigned entries;          /* SQ entries; halved down to 64 while the kernel says ENOMEM */
    int attach_fd;             /* sqpoll: ring of the node's first driver, -1 for that one */
    int sq_cpu;                /* real CPU for the SQ thread, -1: `sq_mask` */
    const int *sq_mask;        /* real CPUs the unpinned SQ thread may use */
    unsigned sq_mask_count;
    unsigned sq_idle_ms;
    bool sq_shares_core;  /* the worker must never busy-wait for the SQ thread */
    bool sq_has_rings;    /* the SQ thread will serve other rings as well */
    unsigned napi_us;     /* how long a wait polls the interfaces' queues; 0: not at all */
    bool napi_prefer;     /* and keeps their interrupts off meanwhile */
    const int *iowq_cpus; /* real CPUs for io-wq workers, 0: the node's default */
    unsigned iowq_cpu_count;
    enum nio_fd_kind (*fd_kind)(int fd); /* iopoll: NULL for nio_fd_kind_of() */
    const struct nio_timeline *timeline; /* what its timers go by; NULL: the machine's clock */
    /* epoll: runs fn(arg) on a thread that may block; 0 or a negative errno value.  A pointer,
     * because the blocking pool is a layer above this one. */
    int (*offload)(void *context, void (*fn)(void *arg), void *arg);
    void *offload_context;
};

/* Makes the driver on the calling thread, which becomes its owner: pin it and set its memory
 * policy before.  *ret_reason (static or the driver's) is NULL or says what was reduced.
 * Errors: the kernel's, with a detail that names the limit. */
int nio_driver_create(const struct nio_driver_options *options, struct nio_driver **ret_driver);
const char *nio_driver_reason(const struct nio_driver *driver);
/* How long waits poll the interfaces' queues, in microseconds; 0: not, or the kernel refused it. */
unsigned nio_driver_napi_us(const struct nio_driver *driver);
/* Owner, before it runs: adds a sentence to the reason, with "; " between two. */
void nio_driver_add_reason(struct nio_driver *driver, const char *format, ...) NIO_PRINTF(2, 3);
/* Owner: what is in flight still is never asked for again; it ends with the ring, unseen. */
void nio_driver_abandon(struct nio_driver *driver);
/* Owner, with no operation in flight unless it was abandoned.  Takes NULL. */
void nio_driver_destroy(struct nio_driver *driver);
/* Whether it is io_uring: what can have many completions, or is registered, needs one. */
bool nio_driver_has_ring(const struct nio_driver *driver);
/* The ring to attach other rings of the node to, -1 without one. */
int nio_driver_ring_fd(const struct nio_driver *driver);
enum numio_driver nio_driver_profile(const struct nio_driver *driver);

/* Owner: takes a prepared operation.  It reaches the kernel at the next nio_driver_flush() or
 * park; beyond the credits it waits its turn in a queue of the driver.  Never fails: what cannot
 * be submitted completes with its error. */
void nio_driver_submit(struct nio_driver *driver, struct numio_op *op);
/* Owner: asks the kernel to end an operation that was submitted here.  The operation still
 * completes exactly once; the call keeps no pointer to it beyond its completion.  With hundreds of
 * cancels on their way it first reaps, and so may complete any operation, this one included. */
void nio_driver_cancel(struct nio_driver *driver, struct numio_op *op);
/* Owner: arms a timer at a point in time; `op` is a prepared timeout, or has been one.  `now_ns`
 * may be some time ago. */
void nio_driver_arm(struct nio_driver *driver, struct numio_op *op, uint64_t deadline_ns,
                    uint64_t now_ns);
/* Any worker: takes a timeout that was submitted here back, which then never completes.  False: its
 * time has come, it has been or will be completed. */
NIO_NODISCARD bool nio_driver_take_timer(struct nio_driver *driver, struct numio_op *op);
/* Owner: parks from now on end so much before the earliest timer; the owner, who is there in time
 * then, looks until it is due. */
void nio_driver_park_early(struct nio_driver *driver, uint64_t early_ns);
/* Owner, after a park: when it was to end for a timer, by the time of the timers;
 * NIO_TIME_NONE (time/wheel.h): it had no such limit. */
uint64_t nio_driver_park_until_ns(const struct nio_driver *driver);
/* Owner: has others read the earliest timer as exactly as the next function can tell it. */
void nio_driver_settle_timers(struct nio_driver *driver);
/* Any thread: when the earliest timer ends, NIO_TIME_NONE (time/wheel.h) without one. */
uint64_t nio_driver_next_timer_ns(const struct nio_driver *driver);
/* Any thread: whether it has something at hand: what has ended, or what the kernel has not begun,
 * as far as memory tells; a moment old. */
bool nio_driver_is_busy(const struct nio_driver *driver);
/* Owner: publishes what was submitted, waking the SQ thread if it sleeps. */
void nio_driver_flush(struct nio_driver *driver);
/* Owner: true when flush has something to do.  One load. */
bool nio_driver_needs_flush(const struct nio_driver *driver);
/* Owner: true when a flush before the owner looks for other work is likely to bring completions, or
 * costs no system call.  False: what was submitted will wait, and may as well be flushed by a
 * park. */
bool nio_driver_is_eager(const struct nio_driver *driver);
/* Any worker: true when a reap would find something, as far as memory tells without a system
 * call.  Cheap enough for a spin loop. */
bool nio_driver_has_completions(const struct nio_driver *driver);
/* Owner: true when a reap would find something, or has to ask the kernel to know (iopoll). */
bool nio_driver_wants_reap(const struct nio_driver *driver);
/* Owner: completes up to `max` operations; does not block.  Returns how many. */
unsigned nio_driver_reap(struct nio_driver *driver, unsigned max);
/* Sibling: the same for completions that are already posted; 0 if the owner or another sibling
 * is at it. */
unsigned nio_driver_reap_for(struct nio_driver *driver, unsigned max);
/* Owner: operations submitted and not yet completed, the queued ones included. */
unsigned nio_driver_in_flight(const struct nio_driver *driver);
/* Owner: the same without timeouts, and without what has ended. */
unsigned nio_driver_in_kernel(const struct nio_driver *driver);

/* Owner: flushes, then blocks until a completion is posted, nio_driver_unpark() was called (also
 * before: it is remembered), a signal came, or `timeout_ns` passed (negative: no limit).  Does not
 * reap. */
void nio_driver_park(struct nio_driver *driver, int64_t timeout_ns);
/* Any thread: makes the owner's present or next park return.  Costs a system call. */
void nio_driver_unpark(struct nio_driver *driver);

/* sqes, cqes: under epoll, operations begun and ended.  enters: io_uring_enter() or epoll_wait().
 */
struct nio_driver_counters {
    uint64_t sqes, cqes, enters, bytes_in, bytes_out, reaped_for;
    uint64_t polled; /* of the completions: those of the polled ring */
    uint64_t fixed;  /* of the requests: those with registered memory */
};
/* Any thread; values are a moment old. */
void nio_driver_counters(const struct nio_driver *driver, struct nio_driver_counters *ret);

/* Any thread: whether the driver can do it, as far as the kernel told the probe. */
bool nio_op_is_known(const struct numio_op *op, enum numio_driver profile, uint64_t opcodes);

/* Flags of a request, in the first word of its image: IOSQE_IO_DRAIN, _LINK, _HARDLINK. */
#define NIO_OP_DRAIN (UINT64_C(2) << 8)
#define NIO_OP_LINK (UINT64_C(4) << 8)
#define NIO_OP_HARDLINK (UINT64_C(8) << 8)
#define NIO_OP_RELATIONS (NIO_OP_DRAIN | NIO_OP_LINK | NIO_OP_HARDLINK)
/* Likewise IOSQE_ASYNC: on a thread of the kernel from the start. */
#define NIO_OP_ASYNC ((uint64_t)1 << 12)

/* Whether the operation behind it in its batch belongs to the same chain. */
static inline bool nio_op_is_linked(const struct numio_op *op)
{
    return (op->_sqe[0] & (NIO_OP_LINK | NIO_OP_HARDLINK)) != 0;
}

/* Direct descriptors as the public calls take them: bit 30, which no descriptor of the kernel's has
 * (fs.nr_open is below), the worker of the table, the index there. */
#define NIO_DIRECT_BIT (1 << 30)
enum { NIO_DIRECT_SLOT_BITS = 18, NIO_DIRECT_WORKER_BITS = 12 };

static inline bool nio_is_direct(int fd)
{
    return fd >= NIO_DIRECT_BIT;
}

static inline unsigned nio_direct_worker(int fd)
{
    return (unsigned)(fd & (NIO_DIRECT_BIT - 1)) >> NIO_DIRECT_SLOT_BITS;
}

static inline unsigned nio_direct_slot(int fd)
{
    return (unsigned)fd & ((1u << NIO_DIRECT_SLOT_BITS) - 1);
}

static inline int nio_direct_fd(unsigned worker, unsigned slot)
{
    return (int)(NIO_DIRECT_BIT | worker << NIO_DIRECT_SLOT_BITS | slot);
}

/* The image's descriptor; and, in its first word, a bit that every direct one has set there, and
 * negative numbers, but no other. */
#define NIO_OP_MAY_BE_DIRECT (UINT64_C(1) << 62)
static inline int nio_op_fd(const struct numio_op *op)
{
    return (int)(uint32_t)(op->_sqe[0] >> 32);
}

/* Has the file that the operation makes go into the table; its result is the index there. */
void nio_op_into_table(struct numio_op *op);
bool nio_op_makes_direct(const struct numio_op *op);
void nio_op_socket(struct numio_op *op, int domain, int type, int protocol);
/* The file of *fd goes into the table; *fd becomes its index, the result is 1. */
void nio_op_files_update(struct numio_op *op, int *fd);
/* Owner: makes the table.   Errors: the kernel's; -EINVAL the driver cannot have one. */
int nio_driver_add_files(struct nio_driver *driver, unsigned count);

/* Marks the operation of a struct nio_multi, in the highest bit of the image's ioprio, which is not
 * sent. */
#define NIO_OP_IS_STREAM (UINT64_C(1) << 31)

/* Owner: as nio_driver_submit(), for a request that may have many completions, prepared by one of
 * the functions below; where the driver cannot have it, it ends with -EINVAL. */
void nio_driver_submit_multi(struct nio_driver *driver, struct nio_multi *multi);
void nio_multi_prep_accept(struct nio_multi *multi, int fd, int flags);
/* Into buffers of the group of the ring. */
void nio_multi_prep_recv(struct nio_multi *multi, int fd, int flags);
/* `header`, of which the lengths are read, must live as long as the request. */
void nio_multi_prep_recvmsg(struct nio_multi *multi, int fd, struct msghdr *header, int flags);
void nio_multi_prep_poll(struct nio_multi *multi, int fd, uint32_t events);
/* Memory that the kernel has pinned, for the drivers of a node: driver/registered.c.
 * Owns:   `memory` must stay until it and the drivers that use it are destroyed.
 * Errors: the kernel's (-ENOMEM: RLIMIT_MEMLOCK). */
struct nio_registration;
int nio_registration_create(void *memory, size_t bytes, struct nio_registration **ret_registration);
/* Takes NULL. */
void nio_registration_destroy(struct nio_registration *registration);
/* Owner, of a driver with rings: reads, writes and zero-copy sends of what lies there use it. */
int nio_driver_use_registration(struct nio_driver *driver,
                                const struct nio_registration *registration);
/* Owner: the receive buffers of this driver; as nio_buf_group_create(), with a ring of buffers only
 * where `may_have_ring`.  Destroyed with the driver. */
int nio_driver_add_buffers(struct nio_driver *driver, const struct nio_buf_memory *memory,
                           bool may_have_ring, struct nio_buf_group **ret_group);
/* Owner: has sum and NEWS posted every `period_ns`, without drift, until cancelled.  `now_ns`: when
 * the first period begins. */
void nio_driver_submit_ticks(struct nio_driver *driver, struct nio_multi *multi, uint64_t period_ns,
                             uint64_t now_ns);

/* Owner: as nio_driver_submit(), for a chain of operations that lie side by side; `count` is not
 * more than nio_driver_chain_max(). */
void nio_driver_submit_chain(struct nio_driver *driver, struct numio_op *ops, unsigned count);
unsigned nio_driver_chain_max(const struct nio_driver *driver);
bool nio_op_is_link_timeout(const struct numio_op *op);
bool nio_op_is_timeout(const struct numio_op *op); /* a plain one */
/* Whether the result tells of an error to the rest of its chain, as the kernel sees it. */
bool nio_op_has_failed(const struct numio_op *op, int32_t result);

/* Whether the operation's result, if not negative, is a new descriptor.  Any thread. */
bool nio_op_makes_fd(const struct numio_op *op);

/* Any thread: the thread id of the SQ thread that serves this driver's ring; -ESRCH without one.
 * Reads /proc. */
int nio_driver_sq_thread(const struct nio_driver *driver);

/* Any thread: how many iou-sqp threads this process has, and whether each is SCHED_OTHER; waits up
 * to `patience_ms` for them to reach `expected`.  Reads /proc. */
int nio_driver_count_sq_threads(unsigned expected, unsigned patience_ms, unsigned *ret_count);

#endif
