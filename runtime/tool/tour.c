/* SPDX-License-Identifier: MIT */
#include "runtime/tool/tour.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <numio/error.h>

#include "runtime/tool/tool_info.h"

enum { EXIT_INTERRUPTED = 130 };

/* Blocks the signals that end the tour; threads that are made later inherit that. */
static void block_signals(struct tour *tour)
{
    (void)sigemptyset(&tour->signals); /* cannot fail, as the next three */
    (void)sigaddset(&tour->signals, SIGINT);
    (void)sigaddset(&tour->signals, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &tour->signals, NULL);
}

/* Starts the runtime and prints what became of it.   Errors: said on stderr. */
static int start(struct tour *tour)
{
    tour->start_ns = tour_now_ns();
    int err = numio_runtime_create(&tour->options->config, &tour->runtime);
    uint64_t time_ns = tour_now_ns() - tour->start_ns;
    if (err == 0) {
        tour->handle = numio_runtime_handle(tour->runtime);
        err = tool_machine_load(&tour->machine, &tour->options->config, tour->handle);
    }
    if (err < 0) {
        const char *detail = numio_strerror_detail();
        fprintf(stderr, "numio tour: the runtime cannot start: %s\n",
                detail[0] ? detail : strerror(-err));
        return err;
    }
    if (tool_info_text(&tour->machine, tour->term) < 0)
        tour_wrong(tour, "no memory for the drawing");
    putchar('\n');
    tour_begin(tour, "start", NULL, 0);
    tour->step_start_ns = tour_now_ns() - time_ns;
    tour_end(tour, "%u worker%s on %u node%s, driver %s", tour->machine.status.workers,
             tour->machine.status.workers == 1 ? "" : "s", tour->machine.status.nodes,
             tour->machine.status.nodes == 1 ? "" : "s", tour->machine.status.driver);
    return 0;
}

static void walk(struct tour *tour)
{
    static void (*const steps[])(struct tour * tour) = {
        tour_tasks, tour_file_make, tour_file_index, tour_serve, tour_read, tour_sleep, tour_cancel,
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (!tour->is_stuck && !tour_poll(tour))
            steps[i](tour);
}

static int verdict(const struct tour *tour)
{
    char time[TOOL_NUMBER_BYTES];
    const char *plain = tool_colour(tour->term, TOOL_PLAIN);
    (void)tool_duration(time, tour_now_ns() - tour->start_ns); /* returns its buffer */
    if (tour->wrong_count > 0) {
        printf("\n%s%u thing%s went wrong%s in %s:\n", tool_colour(tour->term, TOOL_RED),
               tour->wrong_count, tour->wrong_count == 1 ? "" : "s", plain, time);
        for (unsigned i = 0; i < tour->wrong_count && i < TOUR_WRONG_MAX; i++) {
            fputs("- ", stdout);
            tool_print_wrapped(tour->term, 2, 2, tour->wrong[i]);
        }
        return 1;
    }
    if (tour->is_interrupted) {
        printf("\nInterrupted after %s; everything that was started has ended.\n", time);
        return EXIT_INTERRUPTED;
    }
    printf("\n%sAll is well%s, in %s.\n", tool_colour(tour->term, TOOL_GREEN), plain, time);
    return 0;
}

int tour_run(const struct tool_options *options, const struct tool_term *term)
{
    struct tour *tour = calloc(1, sizeof *tour);
    if (!tour) {
        fputs("numio tour: no memory\n", stderr);
        return 1;
    }
    tour->options = options;
    tour->term = term;
    tour->file.fd = -1;
    block_signals(tour);
    tour->fds_before = tour_count_entries("/proc/self/fd");
    tour->threads_before = tour_count_entries("/proc/self/task");
    int status = 1;
    if (start(tour) == 0) {
        walk(tour);
        struct tour_report *report = tour_report_take(tour);
        tour_shutdown(tour);
        if (report)
            tour_report_print(report, term);
        tour_report_free(report);
        status = verdict(tour);
        tool_machine_fini(&tour->machine);
    } else {
        numio_runtime_destroy(tour->runtime);
    }
    if (tour->is_stuck) {
        /* Tasks that did not end still use this memory: it goes with the process. */
        fflush(stdout);
        _Exit(1);
    }
    tour_free_all(tour);
    free(tour);
    return status;
}
