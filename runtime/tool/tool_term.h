/* SPDX-License-Identifier: MIT */
/* tool_term.h: what the terminal can show, and numbers as people read them.
 *
 * The terminal is looked at once, before anything is printed.  Box-drawing characters are used
 * where the locale is UTF-8, colour only on a terminal and without NO_COLOR in the environment.
 * The tool's main thread only.
 */
#ifndef NIO_TOOL_TERM_H
#define NIO_TOOL_TERM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <numio/base.h>

enum tool_colour {
    TOOL_PLAIN = 0,
    TOOL_BOLD,
    TOOL_DIM,
    TOOL_GREEN,
    TOOL_YELLOW,
    TOOL_RED,
    TOOL_COLOURS
};

struct tool_term {
    bool is_tty; /* standard output is a terminal: progress lines may be rewritten */
    bool utf8;   /* box-drawing characters may be printed */
    bool colour;
    int width; /* columns, at least TOOL_WIDTH_MIN */
};

#define TOOL_WIDTH_MIN 40
#define TOOL_WIDTH_DEFAULT 80
#define TOOL_WIDTH_MAX 400

/* `width` 0: ask the terminal, then COLUMNS, then 80.  `ascii`: no box-drawing characters. */
void tool_term_init(struct tool_term *term, int width, bool ascii);

/* The escape sequence that starts a colour, "" where there is none; TOOL_PLAIN ends it. */
const char *tool_colour(const struct tool_term *term, enum tool_colour colour);

/* Columns that `text` takes: UTF-8 characters of width one. */
size_t tool_columns(const char *text);

/* Prints `text` and starts a new line before a word that would pass the right edge; the first
 * line starts at column `column`, the others are indented by `indent`. */
void tool_print_wrapped(const struct tool_term *term, int column, int indent, const char *text);

/* Room for what the functions below write. */
#define TOOL_NUMBER_BYTES 32

/* Each writes to `buf` (TOOL_NUMBER_BYTES) and returns it. */
const char *tool_count(char *buf, uint64_t count);                  /* 1,000,000 */
const char *tool_short(char *buf, uint64_t count);                  /* 9999, 12.3k, 1.00M */
const char *tool_rate(char *buf, uint64_t count, uint64_t time_ns); /* 91,506/s, 1.23M/s */
const char *tool_bytes(char *buf, uint64_t bytes);                  /* 32 KiB, 23.5 GiB */
const char *tool_duration(char *buf, uint64_t time_ns);             /* 812 us, 12.3 ms, 1.24 s */

/* Writes the sorted numbers as the kernel writes CPU lists: "0-3,8,10-11", "0-30:2" for every
 * second; ends with "..." if they do not fit. */
const char *tool_ranges(char *buf, size_t buf_bytes, const int *numbers, size_t count);

#endif
