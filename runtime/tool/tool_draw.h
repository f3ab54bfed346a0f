/* SPDX-License-Identifier: MIT */
/* tool_draw.h: the machine as boxes: a box per node, in it a strip per last-level cache, in that a
 * cell per core, in that a line per PU with what runs on it and its CPU number.
 *
 * Boxes stand side by side as far as the terminal is wide.  Main thread only.
 */
#ifndef NIO_TOOL_DRAW_H
#define NIO_TOOL_DRAW_H

#include "runtime/tool/tool_machine.h"
#include "runtime/tool/tool_term.h"

/* Prints the drawing and its legend.   Errors: -ENOMEM. */
int tool_draw_machine(const struct tool_machine *machine, const struct tool_term *term);

#endif
