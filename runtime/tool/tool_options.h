/* SPDX-License-Identifier: MIT */
/* tool_options.h: the command line.
 *
 * An option that stands for a field of numio_config becomes the environment variable of that
 * field, which numio reads and judges itself: the command line wins over the environment, and
 * there is one place that knows what a value may be.  Called once, before any thread exists.
 */
#ifndef NIO_TOOL_OPTIONS_H
#define NIO_TOOL_OPTIONS_H

#include <numio/config.h>

enum tool_command {
    TOOL_NO_COMMAND,
    TOOL_HELP,
    TOOL_VERSION,
    TOOL_INFO,
    TOOL_TOUR,
    TOOL_CHECK,
    TOOL_BENCH
};

struct tool_options {
    enum tool_command command;
    struct numio_config config; /* environment and command line applied */
    bool as_json, is_ascii;
    int width; /* 0: as wide as the terminal */
    /* tour only */
    const char *file; /* NULL: make one */
    uint64_t task_count, read_count, file_bytes;
    char **bench_arguments; /* bench only: argv from its word on, not looked at */
};

/* Returns 0, or the exit status after having said on stderr what is wrong. */
int tool_options_parse(int argc, char **argv, struct tool_options *ret_options);

void tool_options_help(void);

#endif
