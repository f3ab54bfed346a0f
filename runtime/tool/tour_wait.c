/* SPDX-License-Identifier: MIT */
/* The main thread blocks SIGINT and SIGTERM before any other thread exists, so they stay pending
 * until tour_poll() fetches them: no handler, no flag that a handler writes. */
#include "runtime/tool/tour.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <numio/error.h>

enum { LINE_BYTES = 512, NAME_COLUMNS = 9, TIME_COLUMNS = 8, LINE_COLUMNS_MAX = 100 };

static const uint64_t poll_ns = 50000000;         /* between looks at the progress */
static const uint64_t patience_ns = 60000000000u; /* without progress: something hangs */
static const uint64_t grace_ns = 5000000000u;     /* for aborted tasks to end */

struct tour_memory {
    struct tour_memory *next;
    max_align_t bytes[];
};

uint64_t tour_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t tour_mix(uint64_t value)
{
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

uint64_t tour_block_hash(const void *data, size_t len)
{
    const unsigned char *bytes = data;
    uint64_t hash = len, word;
    for (; len >= sizeof word; bytes += sizeof word, len -= sizeof word) {
        memcpy(&word, bytes, sizeof word);
        hash = tour_mix(hash ^ word);
    }
    word = 0;
    memcpy(&word, bytes, len);
    return tour_mix(hash ^ word);
}

void *tour_alloc(struct tour *tour, size_t bytes)
{
    struct tour_memory *memory = calloc(1, sizeof *memory + bytes);
    if (!memory) {
        tour_wrong(tour, "no memory for %zu bytes", bytes);
        return NULL;
    }
    memory->next = tour->memory;
    tour->memory = memory;
    return memory->bytes;
}

void tour_free_all(struct tour *tour)
{
    while (tour->memory) {
        struct tour_memory *next = tour->memory->next;
        free(tour->memory);
        tour->memory = next;
    }
}

struct tour_buffer tour_buffer_alloc(size_t bytes)
{
    struct tour_buffer buffer = { .size = bytes, .node = numio_current_node() };
    if (buffer.node >= 0)
        buffer.bytes = numio_io_buffer_alloc(numio_handle_current(), buffer.node, bytes);
    return buffer;
}

void tour_buffer_free(struct tour_buffer *buffer)
{
    if (buffer->bytes)
        numio_io_buffer_free(numio_handle_current(), buffer->node, buffer->bytes, buffer->size);
    buffer->bytes = NULL;
}

int tour_count_entries(const char *folder)
{
    DIR *dir = opendir(folder);
    int count = 0;
    if (!dir)
        return -errno;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

void tour_progress(struct tour *tour, uint64_t count)
{
    /* relaxed: a figure to look at; what a step concludes from rests on joins */
    atomic_fetch_add_explicit(&tour->done, count, memory_order_relaxed);
}

static uint64_t done_so_far(struct tour *tour)
{
    /* relaxed: as above */
    return atomic_load_explicit(&tour->done, memory_order_relaxed);
}

static void erase_progress(const struct tour *tour)
{
    if (tour->term->is_tty)
        fputs("\r\033[K", stdout);
}

static void show_progress(struct tour *tour)
{
    char done[TOOL_NUMBER_BYTES], total[TOOL_NUMBER_BYTES];
    if (!tour->term->is_tty)
        return;
    erase_progress(tour);
    printf(" %s %-*s ", tour->term->utf8 ? "…" : ".", NAME_COLUMNS, tour->step);
    if (tour->unit)
        printf("%s of %s %s", tool_count(done, done_so_far(tour)), tool_count(total, tour->total),
               tour->unit);
    fflush(stdout);
}

void tour_begin(struct tour *tour, const char *step, const char *unit, uint64_t total)
{
    tour->step = step;
    tour->unit = unit;
    tour->total = total;
    tour->step_start_ns = tour_now_ns();
    tour->step_wrong = tour->wrong_count;
    /* relaxed: tasks of this step are spawned later, by this thread */
    atomic_store_explicit(&tour->done, 0, memory_order_relaxed);
    show_progress(tour);
}

/* Where to end the line so that whole words stay within `columns`. */
static size_t line_break(const char *text, size_t columns)
{
    size_t end = 0, used = 0;
    for (size_t i = 0;; i++) {
        bool is_end = text[i] == '\0';
        if ((is_end || text[i] == ' ') && (used <= columns || end == 0))
            end = i;
        if (is_end || (used > columns && end > 0))
            return end;
        used += ((unsigned char)text[i] & 0xC0u) != 0x80u;
    }
}

static void print_mark(const struct tour *tour, bool is_right)
{
    const char *mark = tour->term->utf8 ? (is_right ? "✓" : "✗") : (is_right ? "+" : "X");
    printf(" %s%s%s ", tool_colour(tour->term, is_right ? TOOL_GREEN : TOOL_RED), mark,
           tool_colour(tour->term, TOOL_PLAIN));
}

/* The mark, the step, as much text as fits, the time; the rest of the text below. */
static void print_step(const struct tour *tour, const char *text, uint64_t time_ns)
{
    char duration[TOOL_NUMBER_BYTES];
    int width = tour->term->width < LINE_COLUMNS_MAX ? tour->term->width : LINE_COLUMNS_MAX;
    int left = 3 + NAME_COLUMNS + 1;
    size_t room = (size_t)(width - left - TIME_COLUMNS - 1);
    size_t first = line_break(text, room);
    char line[LINE_BYTES];

    print_mark(tour, tour->wrong_count == tour->step_wrong);
    (void)snprintf(line, sizeof line, "%.*s", (int)first, text); /* fits */
    int pad = (int)room - (int)tool_columns(line);
    printf("%s%-*s%s %s%*s %s%*s%s\n", tool_colour(tour->term, TOOL_BOLD), NAME_COLUMNS, tour->step,
           tool_colour(tour->term, TOOL_PLAIN), line, pad > 0 ? pad : 0, "",
           tool_colour(tour->term, TOOL_DIM), TIME_COLUMNS, tool_duration(duration, time_ns),
           tool_colour(tour->term, TOOL_PLAIN));
    for (text += first; *text; text += first) {
        text += strspn(text, " ");
        first = line_break(text, room);
        printf("%*s%.*s\n", left, "", (int)first, text);
    }
}

void tour_end(struct tour *tour, const char *format, ...)
{
    char text[LINE_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* longer text is cut */
    va_end(args);
    erase_progress(tour);
    print_step(tour, text, tour_now_ns() - tour->step_start_ns);
    for (unsigned i = tour->step_wrong; i < tour->wrong_count && i < TOUR_WRONG_MAX; i++) {
        printf("%*s%swrong:%s ", 3 + NAME_COLUMNS + 1, "", tool_colour(tour->term, TOOL_RED),
               tool_colour(tour->term, TOOL_PLAIN));
        tool_print_wrapped(tour->term, 20, 20, tour->wrong[i]);
    }
    fflush(stdout);
}

void tour_wrong(struct tour *tour, const char *format, ...)
{
    if (tour->wrong_count < TOUR_WRONG_MAX) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(tour->wrong[tour->wrong_count], TOUR_WRONG_BYTES, format, args); /* cut */
        va_end(args);
    }
    tour->wrong_count++;
}

bool tour_pause(struct tour *tour, uint64_t delay_ns)
{
    struct timespec delay = { .tv_sec = (time_t)(delay_ns / 1000000000u),
                              .tv_nsec = (long)(delay_ns % 1000000000u) };
    if (tour->is_interrupted)
        return true;
    if (sigtimedwait(&tour->signals, NULL, &delay) > 0) {
        tour->is_interrupted = true;
        /* A second Ctrl-C ends the program at once. */
        (void)pthread_sigmask(SIG_UNBLOCK, &tour->signals, NULL); /* cannot fail */
    }
    return tour->is_interrupted;
}

bool tour_poll(struct tour *tour)
{
    show_progress(tour);
    return tour_pause(tour, 0);
}

static void abort_all(struct numio_join **joins, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (joins[i])
            numio_join_abort(joins[i]);
}

/* Waits for one task until it ends, the tour is interrupted, or nothing moves. */
static int join_one(struct tour *tour, struct numio_join **join, int64_t *ret_result,
                    uint64_t limit_ns)
{
    uint64_t seen = done_so_far(tour), since_ns = tour_now_ns();
    bool was_interrupted = tour->is_interrupted;
    while (*join) {
        int64_t result = numio_join_wait(join, (int64_t)poll_ns);
        uint64_t done = done_so_far(tour);
        if (!*join) {
            *ret_result = result;
            return 0;
        }
        if (result != -ETIMEDOUT)
            return (int)result;
        if (done != seen) {
            seen = done;
            since_ns = tour_now_ns();
        }
        if (tour_poll(tour) && !was_interrupted)
            return -EINTR;
        if (tour_now_ns() - since_ns > limit_ns)
            return -ETIMEDOUT;
    }
    return 0;
}

int tour_join(struct tour *tour, struct numio_join **joins, int64_t *ret_results, size_t count)
{
    uint64_t limit_ns = tour->is_interrupted ? grace_ns : patience_ns;
    int status = tour->is_interrupted ? -EINTR : 0;
    if (status < 0)
        abort_all(joins, count);
    for (size_t i = 0; i < count;) {
        int64_t ignored;
        int err =
            joins[i] ? join_one(tour, &joins[i], ret_results ? &ret_results[i] : &ignored, limit_ns)
                     : 0;
        if (err == 0) {
            i++;
        } else if (status == 0) {
            /* The first trouble: ask all to end, and wait once more for this one. */
            status = err;
            limit_ns = grace_ns;
            abort_all(joins, count);
            if (err != -EINTR)
                tour_wrong(tour, "waiting for the tasks of this step: %s", strerror(-err));
        } else {
            struct numio_task_meta task = numio_join_meta(joins[i]);
            tour_wrong(tour, "the task spawned at %s:%d does not end", task.file, task.line);
            tour->is_stuck = true;
            numio_join_detach(&joins[i]);
            i++;
        }
    }
    return status;
}

int tour_spawn(struct tour *tour, unsigned node, int64_t (*fn)(void *arg), void *arg,
               struct numio_join **ret_join)
{
    struct numio_spawn_opts opts = { .size = sizeof opts,
                                     .affinity = NUMIO_AFFINITY_NODE,
                                     .node = (int)node,
                                     .worker = NUMIO_WORKER_ANY };
    int err = numio_spawn_co(tour->handle, fn, arg, &opts, ret_join);
    if (err < 0) {
        const char *detail = numio_strerror_detail();
        tour_wrong(tour, "a task on node %u: %s", node, detail[0] ? detail : strerror(-err));
    }
    return err;
}
