/* SPDX-License-Identifier: MIT */
/* tool_canvas.h: a page of characters that boxes are drawn on before it is printed.
 *
 * Drawing outside the page is cut off.  Lines are kept as directions (up, down, left, right), so
 * that lines that meet become corners, tees and crosses by themselves.
 * The tool's main thread only.
 */
#ifndef NIO_TOOL_CANVAS_H
#define NIO_TOOL_CANVAS_H

#include "runtime/tool/tool_term.h"

struct tool_canvas;

/* Errors: NULL out of memory. */
struct tool_canvas *tool_canvas_create(int width, int height);
/* Takes NULL. */
void tool_canvas_destroy(struct tool_canvas *canvas);

void tool_canvas_text(struct tool_canvas *canvas, int x, int y, enum tool_colour colour,
                      const char *text);

struct tool_rect {
    int x, y, width, height;
};

/* The outline of `rect`; lines that are there already are joined. */
void tool_canvas_box(struct tool_canvas *canvas, struct tool_rect rect, enum tool_colour colour);
/* A line from (x, y) downwards or to the right, both ends included. */
void tool_canvas_down(struct tool_canvas *canvas, int x, int y, int length,
                      enum tool_colour colour);
void tool_canvas_right(struct tool_canvas *canvas, int x, int y, int length,
                       enum tool_colour colour);

/* Prints the page without blanks at line ends. */
void tool_canvas_print(const struct tool_canvas *canvas, const struct tool_term *term);

#endif
