/* SPDX-License-Identifier: MIT */
/* tool_info.h: `numio info`: the machine and the plan, for people and as JSON.
 *
 * Main thread only; everything goes to standard output.
 */
#ifndef NIO_TOOL_INFO_H
#define NIO_TOOL_INFO_H

#include "runtime/tool/tool_machine.h"
#include "runtime/tool/tool_term.h"

/* Heading, drawing, table of nodes, driver, and why something fell back.   Errors: -ENOMEM. */
int tool_info_text(const struct tool_machine *machine, const struct tool_term *term);

/* The same and more as one JSON object. */
void tool_info_json(const struct tool_machine *machine);
/* Where there is no machine to show: an object with the same "version" and "error". */
void tool_info_json_error(int error, const char *detail);

/* Runs `numio info`: returns the exit status. */
int tool_info(const struct numio_config *config, const struct tool_term *term, bool as_json);

#endif
