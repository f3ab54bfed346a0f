/* SPDX-License-Identifier: MIT */
/* The program `numio`. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include <numio/base.h>

#include "runtime/tool/check.h"
#include "runtime/tool/tool_bench.h"
#include "runtime/tool/tool_info.h"
#include "runtime/tool/tool_options.h"
#include "runtime/tool/tool_term.h"
#include "runtime/tool/tour.h"

static int run_command(const struct tool_options *options)
{
    struct tool_term term;
    tool_term_init(&term, options->width, options->is_ascii);
    switch (options->command) {
    case TOOL_INFO:
        return tool_info(&options->config, &term, options->as_json);
    case TOOL_CHECK:
        return check_run(options, &term);
    case TOOL_TOUR:
        return tour_run(options, &term);
    case TOOL_BENCH:
        return tool_bench(options->bench_arguments);
    case TOOL_VERSION:
        puts("numio " NUMIO_VERSION);
        return 0;
    default:
        tool_options_help();
        return 0;
    }
}

int main(int argc, char **argv)
{
    struct tool_options options;
    (void)setlocale(LC_CTYPE, ""); /* without it: ASCII */
    int status = tool_options_parse(argc, argv, &options);
    if (status == 0)
        status = run_command(&options);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "numio: writing the output: %s\n", strerror(errno));
        return 1;
    }
    return status;
}
