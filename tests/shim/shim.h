/* SPDX-License-Identifier: MIT */
/* tests/shim/shim.h: an io_uring in user space, for tests of what a real kernel does rarely.
 *
 * A program that includes this is linked with --wrap for the few functions through which the
 * driver reaches the kernel.  Between shim_begin() and shim_end() each ring that is made is a
 * simulated one: memory of the kernel's layout, of which the same words are read and written in the
 * same order.  What becomes of a request is the test's choice, by a plan; what the ring as a whole
 * does wrong, by struct shim_faults.  Outside of the two calls the kernel is reached as ever.
 *
 * Virtual time: the clock stands but for what the shim adds to it, and whoever would sleep jumps to
 * the next event; a sleep that nothing would end is a failure at once.  One thread only; a run is
 * the same each time.  Real time: any threads, and requests may be performed by system calls.
 * Test programs only.
 */
#ifndef TESTS_SHIM_SHIM_H
#define TESTS_SHIM_SHIM_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

#define SHIM_NEVER UINT64_MAX

/* What a cancel that finds its request does. */
enum shim_cancel {
    SHIM_CANCEL_ENDS = 0, /* the request ends with -ECANCELED */
    SHIM_CANCEL_LATE,     /* says so, but the request ends later, with its own result */
    SHIM_CANCEL_ALREADY,  /* -EALREADY; the request ends with its own result */
    SHIM_CANCEL_MISSES    /* -ENOENT although it is there; the next one finds it */
};

/* What becomes of one request.  Zero: it is performed. */
struct shim_plan {
    bool is_given;      /* it ends with `result`, nothing is performed */
    int32_t result;     /* when is_given */
    uint64_t delay_ns;  /* before it is looked at; SHIM_NEVER: until somebody cancels it */
    unsigned bytes_max; /* performed: a transfer is cut to so many, 0: it is not */
    unsigned more;      /* completions with F_MORE before the last one */
    unsigned doubled;   /* completions too many, by mistake */
    enum shim_cancel on_cancel;
};

struct shim_config {
    bool is_virtual;
    bool has_thread;  /* SQPOLL rings have a thread; needs real time */
    bool has_message; /* IORING_REGISTER_SEND_MSG_RING works */
    uint64_t tick_ns; /* virtual: what each call into the shim takes */
    /* Decides on each request but cancels, and those whose success posts nothing, which is what
     * they have; *plan is zero.  NULL: all are performed. */
    void (*decide)(void *arg, const struct io_uring_sqe *sqe, struct shim_plan *plan);
    /* The request's last completion is about to be posted.  May be NULL. */
    void (*posted)(void *arg, uint64_t user_data, int32_t result);
    void *arg;
};

/* What a ring does wrong; zero: nothing. */
struct shim_faults {
    int enter_error;           /* the next `enter_errors` enters end with this instead, ... */
    unsigned enter_errors;     /* ... but under SQPOLL only those that wait */
    unsigned take_max;         /* requests taken at a time, 0: all */
    uint64_t starved_until_ns; /* the SQ thread takes nothing before */
    unsigned cq_room;          /* completions that the CQ holds, 0: as many as it has entries */
};

struct shim_counts {
    uint64_t enters, taken, cancels, posted, overflowed, watches;
    unsigned in_kernel; /* requests that have not ended */
};

/* The test's own thread, when no simulated ring exists. */
void shim_begin(const struct shim_config *config);
void shim_end(void);
uint64_t shim_now_ns(void);

/* Any thread: whether this descriptor is a simulated ring's. */
bool shim_is_ring(int fd);
/* Any thread; the ring of this descriptor must be simulated. */
void shim_set_faults(int ring_fd, const struct shim_faults *faults);
struct shim_counts shim_counts(int ring_fd);
/* Lets `ns` of virtual time pass, and the ring do what it then has to do. */
void shim_pass(int ring_fd, uint64_t ns);
/* The SQ thread goes to sleep, if it has nothing to take.  Virtual time. */
void shim_sleep(int ring_fd);
/* The SQ thread ends, as in a process that is being killed: what the kernel has is cancelled. */
void shim_kill(int ring_fd);
/* A request of a plan with SHIM_NEVER ends now, with its planned result.  False: it is not there.
 * `user_data` without the bits above the 48th matches as well. */
bool shim_finish(int ring_fd, uint64_t user_data);

#endif
