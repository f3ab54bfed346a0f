/* SPDX-License-Identifier: MIT */
/* tour.h: `numio tour`: one step after the other, each checked against what is known without numio.
 *
 * The main thread prepares a step, spawns its tasks, and waits for them; meanwhile it shows the
 * progress and listens for Ctrl-C.  Memory that tasks use comes from tour_alloc() and lives until
 * the runtime is destroyed, so that a step may give up on tasks that do not end.
 * Fields of struct tour belong to the main thread unless they say otherwise.
 */
#ifndef NIO_TOOL_TOUR_H
#define NIO_TOOL_TOUR_H

#include <signal.h>
#include <stdatomic.h>

#include <numio/runtime.h>

#include "runtime/tool/tool_machine.h"
#include "runtime/tool/tool_options.h"
#include "runtime/tool/tool_sha256.h"
#include "runtime/tool/tool_term.h"

enum { TOUR_WRONG_MAX = 16, TOUR_WRONG_BYTES = 256, TOUR_PATH_BYTES = 4096 };
enum { TOUR_BLOCK_BYTES = 4096 };

struct tour_memory;

/* The file that is served and read, as seen by plain system calls; constant once indexed. */
struct tour_file {
    char path[TOUR_PATH_BYTES];
    bool is_made; /* by the tour: its contents are known */
    int fd;       /* keeps the unnamed file alive, -1 none */
    uint64_t bytes;
    uint64_t *block_hashes; /* one per TOUR_BLOCK_BYTES */
    char digest[TOOL_SHA256_TEXT_BYTES];
};

struct tour {
    const struct tool_options *options;
    const struct tool_term *term;
    struct numio_runtime *runtime;
    struct numio_handle *handle;
    struct tool_machine machine;
    struct tour_file file;
    struct tour_memory *memory;
    sigset_t signals; /* blocked in all threads, fetched by the main one */
    bool is_interrupted;
    bool is_stuck; /* tasks of a step did not end: nothing after it makes sense */
    unsigned wrong_count;
    char wrong[TOUR_WRONG_MAX][TOUR_WRONG_BYTES];
    int fds_before, threads_before;

    const char *step; /* the running step */
    uint64_t step_start_ns, start_ns;
    unsigned step_wrong; /* wrong_count when it began */
    const char *unit;    /* of `done`, NULL: no progress is shown */
    uint64_t total;
    _Atomic uint64_t done; /* any thread adds */
};

/* --- tour_wait.c: what all steps use --- */

/* Zeroed memory that lives until tour_free_all(); NULL, with a wrong noted, without memory. */
void *tour_alloc(struct tour *tour, size_t bytes);
void tour_free_all(struct tour *tour);

void tour_begin(struct tour *tour, const char *step, const char *unit, uint64_t total);
/* Ends the step with a line that says what was found. */
void tour_end(struct tour *tour, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Notes that something is wrong. */
void tour_wrong(struct tour *tour, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Any thread: adds to the progress. */
void tour_progress(struct tour *tour, uint64_t count);
/* Shows the progress and looks for Ctrl-C; true once the tour shall end. */
bool tour_poll(struct tour *tour);
/* Pauses for `delay_ns`, or until Ctrl-C; then true. */
bool tour_pause(struct tour *tour, uint64_t delay_ns);

/* Waits until all tasks have ended and stores their results (ret_results may be NULL).  NULL
 * entries of `joins` are passed over.  On Ctrl-C, or when nothing moves any more, they are aborted.
 * Returns 0; -EINTR; -ETIMEDOUT after having noted what is wrong. */
int tour_join(struct tour *tour, struct numio_join **joins, int64_t *ret_results, size_t count);

/* A coroutine on node `node`.  Returns 0, or the error after having noted it. */
int tour_spawn(struct tour *tour, unsigned node, int64_t (*fn)(void *arg), void *arg,
               struct numio_join **ret_join);

/* In a coroutine: an I/O buffer of the node it is on now; free it with the node it came from, even
 * if the coroutine has moved since. */
struct tour_buffer {
    void *bytes; /* NULL without memory */
    size_t size;
    int node;
};
struct tour_buffer tour_buffer_alloc(size_t bytes);
void tour_buffer_free(struct tour_buffer *buffer);

/* Entries of a folder of /proc: open descriptors, threads. */
int tour_count_entries(const char *folder);

uint64_t tour_now_ns(void);
/* A well-mixed function of its argument: splitmix64's finisher. */
uint64_t tour_mix(uint64_t value);
/* Hash of up to TOUR_BLOCK_BYTES bytes. */
uint64_t tour_block_hash(const void *data, size_t len);

/* --- the steps --- */
void tour_tasks(struct tour *tour);
void tour_file_make(struct tour *tour);
void tour_file_index(struct tour *tour);
void tour_file_fini(struct tour *tour);
void tour_serve(struct tour *tour);
void tour_read(struct tour *tour);
void tour_sleep(struct tour *tour);
void tour_cancel(struct tour *tour);
/* Shuts the runtime down and destroys it, if all its tasks end. */
void tour_shutdown(struct tour *tour);

/* The counters per node, taken while the runtime lives and printed after its end. */
struct tour_report;
struct tour_report *tour_report_take(struct tour *tour);
void tour_report_print(const struct tour_report *report, const struct tool_term *term);
void tour_report_free(struct tour_report *report);

/* Runs the tour: returns the exit status. */
int tour_run(const struct tool_options *options, const struct tool_term *term);

#endif
