/* SPDX-License-Identifier: MIT */
#include "runtime/tool/tool_bench.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef NIO_TOOL_LIBEXEC /* the build gives it where folders are called otherwise */
#define NIO_TOOL_LIBEXEC "../libexec/numio"
#endif

/* Seen from the folder of this program. */
static const char script_place[] = "../../../scripts/bench.sh";
static const char cache_place[] = "../CMakeCache.txt"; /* only a build has it */
static const char *const program_places[] = { "numio-bench", NIO_TOOL_LIBEXEC "/numio-bench" };
enum { PROGRAM_PLACES = sizeof program_places / sizeof *program_places };

static const char help_note[] =
    "There is no source tree here, so numio is measured alone: peers (Tokio, libuv, Go) and the\n"
    "comparison table need the source tree, where `numio bench` runs scripts/bench.sh.\n"
    "\n";

static bool asks_help(char *const *arguments)
{
    for (char *const *argument = arguments; *argument; argument++)
        if (strcmp(*argument, "--help") == 0)
            return true;
    return false;
}

/* Whether there is something at that place; a path that is too long is nothing. */
static bool find(char *ret_path, const char *folder, const char *place)
{
    int len = snprintf(ret_path, PATH_MAX, "%s/%s", folder, place);
    return len > 0 && len < PATH_MAX && access(ret_path, F_OK) == 0;
}

static int say_missing(const char *folder)
{
    fprintf(stderr,
            "numio: there is nothing to measure with; looked for\n"
            "  %s/%s (with this program in TREE/build/PRESET/bin)\n",
            folder, script_place);
    for (size_t i = 0; i < PROGRAM_PLACES; i++)
        fprintf(stderr, "  %s/%s\n", folder, program_places[i]);
    fputs("Install numio whole (cmake --install build/release), or run `build/release/bin/numio "
          "bench` in\nits source tree.\n",
          stderr);
    return 1;
}

int tool_bench(char **arguments)
{
    char folder[PATH_MAX], path[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", folder, sizeof folder);
    if (len <= 0 || len >= (ssize_t)sizeof folder) {
        fputs("numio: /proc/self/exe does not say where this program lies\n", stderr);
        return 1;
    }
    folder[len] = '\0';
    *strrchr(folder, '/') = '\0'; /* it is absolute */
    bool is_found = find(path, folder, cache_place) && find(path, folder, script_place);
    if (!is_found) {
        for (size_t i = 0; i < PROGRAM_PLACES && !is_found; i++)
            is_found = find(path, folder, program_places[i]);
        if (!is_found)
            return say_missing(folder);
        if (asks_help(arguments))
            fputs(help_note, stdout);
    }
    if (fflush(stdout) != 0)
        return 1; /* main() says why */
    arguments[0] = path;
    (void)execv(path, arguments); /* returns only if it has failed */
    fprintf(stderr, "numio: %s cannot be run: %s\n", path, strerror(errno));
    return 1;
}
