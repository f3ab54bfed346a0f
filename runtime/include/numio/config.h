/* SPDX-License-Identifier: MIT */
/* numio/config.h: everything a runtime can be told before it starts.
 *
 * Plain data: start with numio_config_init(), change fields, pass it to numio_runtime_create().
 * Each scalar field can be overridden from the environment: NUMIO_ and the field's name in
 * capitals (NUMIO_WORKERS=2, NUMIO_DRIVER=defer, NUMIO_IDLE=spin, NUMIO_TOPOLOGY="pack:2 ...").
 * A value that makes no sense is refused with an error whose detail names the field.
 */
#ifndef NUMIO_CONFIG_H
#define NUMIO_CONFIG_H

#include <numio/base.h>
#include <numio/task.h>
#include <numio/topology.h>

NUMIO_BEGIN_DECLS

struct numio_straggler;

/* How a worker reaches the kernel. */
enum numio_driver {
    NUMIO_DRIVER_AUTO = 0, /* sqpoll where it pays, else defer, else epoll; the status says why */
    NUMIO_DRIVER_SQPOLL,   /* io_uring; a kernel thread per node reads the submissions */
    NUMIO_DRIVER_DEFER,    /* io_uring; SINGLE_ISSUER + DEFER_TASKRUN */
    NUMIO_DRIVER_EPOLL,    /* readiness and the blocking pool, where io_uring is refused */
    NUMIO_DRIVER_IOPOLL /* defer, and reads and writes with O_DIRECT on disks that have queues for
                           polling go through a second ring, without interrupts */
};

/* What numio_now_ns() and all timers go by; the whole process has one clock. */
enum numio_clock {
    NUMIO_CLOCK_AUTO = 0, /* the processor's counter, kept in step with CLOCK_MONOTONIC, where it
                             can be trusted; else that; the status says which and why */
    NUMIO_CLOCK_SYSTEM    /* clock_gettime(CLOCK_MONOTONIC), from then on and for all runtimes */
};

/* What a worker without work does. */
enum numio_idle_policy {
    NUMIO_IDLE_BALANCED = 0, /* spins as long as spinning has paid lately, then parks */
    NUMIO_IDLE_SPIN,         /* never parks: lowest latency, one core each at 100 % */
    NUMIO_IDLE_PARK          /* parks at once: least CPU */
};

/* Hooks run on the thread that does what they are named for, must not suspend, and may not spawn.
 * A joined task may run inside of its joiner's poll; its hooks then come between those of the
 * joiner.  on_task_terminate comes before the last after_poll; every other after_poll before the
 * next before_poll of the same task, on whatever thread that is.
 * `arg` is numio_config.hooks.arg. */
struct numio_hooks {
    void (*on_task_spawn)(const struct numio_task_meta *task, void *arg);
    void (*before_poll)(const struct numio_task_meta *task, void *arg);
    void (*after_poll)(const struct numio_task_meta *task, void *arg);
    void (*on_task_terminate)(const struct numio_task_meta *task, void *arg);
    void (*on_thread_start)(unsigned worker, void *arg);
    void (*on_thread_stop)(unsigned worker, void *arg);
    void (*on_thread_park)(unsigned worker, void *arg);
    void (*on_thread_unpark)(unsigned worker, void *arg);
    void *arg;
    /* At the begin of a shutdown, for each task that nobody can join and no scope or set has: it is
     * about to be cancelled.  Called by several threads at once, with locks held: it notes or
     * prints what it is told, and calls nothing of the runtime.  NULL: detached tasks end
     * unmentioned. */
    void (*on_task_left)(const struct numio_straggler *task, void *arg);
};

struct numio_config {
    size_t size;          /* sizeof(struct numio_config), set by numio_config_init() */
    const char *name;     /* prefix of thread names, at most 8 characters; "numio" */
    const char *topology; /* NULL: this machine; hwloc synthetic text or the path of its XML */
    const char *cpus;     /* "0-3,8": only these CPUs; NULL: all the process may use */
    unsigned workers;     /* 0: one per core */
    bool worker_per_pu;   /* a worker on every hardware thread */
    enum numio_shard_by shard_by;
    enum numio_driver driver;
    int sq_thread_cpu;   /* -1: chosen by the plan */
    unsigned sq_idle_ms; /* SQ thread sleeps after so long idle, at most 3600000 (an hour); 0: 1 on
                            a worker's core, else 1000 with idle = spin, else 10 */
    unsigned ring_entries; /* submission queue, power of two, 8 to 32768; 0: 1024 */
    enum numio_idle_policy idle;
    uint64_t spin_ns;           /* balanced: spins so long at most, for work or a timer; 0: 50 us */
    unsigned napi_busy_poll_us; /* a wait on a ring, or its SQ thread, polls the network interfaces'
                                   queues for so long instead of waiting for an interrupt, at most
                                   1000000; 0: not (since Linux 6.9, not with epoll) */
    bool napi_prefer_busy_poll; /* and their interrupts stay off as long as polls come often enough
                                   (needs napi_defer_hard_irqs and gro_flush_timeout) */
    int cpu_dma_latency_us; /* /dev/cpu_dma_latency is held at this while the runtime lives, so that
                               no idle CPU needs longer to wake; -1: not; 0: it does not sleep */
    unsigned inject_interval; /* ticks between looks at the inject queue; 0: every 200 us or 61
                                 ticks, whichever is sooner; 61 with an rng_seed; at most 65536 */
    unsigned driver_interval; /* busy ticks between looks at the ring and the timers; likewise */
    size_t stack_bytes;       /* coroutine stacks, 8 KiB to 64 MiB; 0: 64 KiB */
    /* A frame larger than a page can jump over the guard at the stack's end: compile with
     * -fstack-clash-protection to have such an overflow reported as well. */
    unsigned blocking_threads; /* most threads of the blocking pool, all nodes, but one for each;
                                  0: 64 */
    uint64_t blocking_keep_alive_ns; /* an idle one ends after this; 0: 10 s */
    unsigned blocking_queue;         /* waiting functions per node before -EAGAIN; 0: 16384 */
    bool blocking_on_worker_cpus;    /* let the pool use the workers' CPUs even if others exist */
    bool memory_strict;              /* arenas bind instead of prefer: no spill to other nodes */
    bool huge_pages;                 /* arenas ask for transparent huge pages */
    bool report_overflow;            /* install the SIGSEGV reporter of coroutine stack overflows */
    uint64_t rng_seed;               /* 0: from the clock; same seed, one worker: same schedule */
    struct numio_hooks hooks;
    unsigned cpu_check_ms; /* how often a thread of the runtime looks whether CPUs were taken from
                              the process or given back, at most 60000; 0: never; 1000 */
    unsigned recv_buffers; /* of each worker that has streams which receive, a power of two, 16 to
                              32768; fewer, with a reason in the status, where the kernel refuses
                              the memory; 0: 512 */
    size_t
        registered_bytes; /* I/O memory of each node that is pinned and registered with its rings,
                             for numio_io_buffer_alloc(); rounded up to 2 MiB, at most 1 GiB; less,
                             with a reason in the status, where RLIMIT_MEMLOCK is lower; 0: none */
    unsigned
        direct_descriptors;   /* most entries of each worker's table of them, at most 262144, made
                                 when it is first used; 0: 8192, or RLIMIT_NOFILE if that is less
                               */
    size_t recv_buffer_bytes; /* of each receive buffer, 128 to 16 MiB; 0: 4 KiB */
    unsigned share_latency;   /* of a worker's time, relative to each other, where tasks of several
                                 classes are ready (enum numio_class), 1 to 10000; 0: 64, 16, 1 */
    unsigned share_normal;
    unsigned share_background;
    enum numio_clock clock;
};

/* Sets the defaults; `size` is sizeof(struct numio_config).  A program that was built for a newer
 * numio may pass more: what this library does not know is set to zero, and must stay so.
 * Errors: -EINVAL it is smaller than this library's. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_config_init(struct numio_config *config, size_t size);

/* Reads overrides from the environment, as numio_runtime_create() does by itself.
 * Errors: -EINVAL, the detail names the variable and what it accepts. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_config_from_env(struct numio_config *config);

NUMIO_END_DECLS

#endif
