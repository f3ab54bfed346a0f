/* SPDX-License-Identifier: MIT */
#include "runtime/tool/tool_canvas.h"

#include <stdio.h>
#include <stdlib.h>

enum { UP = 1, DOWN = 2, LEFT = 4, RIGHT = 8 };

struct cell {
    char text;           /* a printable ASCII character, 0: none */
    unsigned char lines; /* directions in which a line leaves this cell */
    unsigned char colour;
};

struct tool_canvas {
    int width, height;
    struct cell *cells; /* row by row */
};

struct tool_canvas *tool_canvas_create(int width, int height)
{
    struct tool_canvas *canvas = calloc(1, sizeof *canvas);
    if (!canvas)
        return NULL;
    canvas->width = width;
    canvas->height = height;
    canvas->cells = calloc((size_t)width * (size_t)height, sizeof *canvas->cells);
    if (!canvas->cells) {
        free(canvas);
        return NULL;
    }
    return canvas;
}

void tool_canvas_destroy(struct tool_canvas *canvas)
{
    if (!canvas)
        return;
    free(canvas->cells);
    free(canvas);
}

/* NULL outside the page. */
static struct cell *cell_at(const struct tool_canvas *canvas, int x, int y)
{
    if (x < 0 || y < 0 || x >= canvas->width || y >= canvas->height)
        return NULL;
    return &canvas->cells[(size_t)y * (size_t)canvas->width + (size_t)x];
}

void tool_canvas_text(struct tool_canvas *canvas, int x, int y, enum tool_colour colour,
                      const char *text)
{
    for (; *text; text++, x++) {
        struct cell *cell = cell_at(canvas, x, y);
        if (!cell)
            continue;
        cell->text = *text >= ' ' && *text <= '~' ? *text : '?';
        cell->colour = (unsigned char)colour;
    }
}

static void add_line(struct tool_canvas *canvas, int x, int y, unsigned lines,
                     enum tool_colour colour)
{
    struct cell *cell = cell_at(canvas, x, y);
    if (!cell || cell->text)
        return;
    cell->lines |= (unsigned char)lines;
    cell->colour = (unsigned char)colour;
}

void tool_canvas_down(struct tool_canvas *canvas, int x, int y, int length, enum tool_colour colour)
{
    for (int i = 0; i < length; i++)
        add_line(canvas, x, y + i, (i > 0 ? UP : 0) | (i + 1 < length ? DOWN : 0), colour);
}

void tool_canvas_right(struct tool_canvas *canvas, int x, int y, int length,
                       enum tool_colour colour)
{
    for (int i = 0; i < length; i++)
        add_line(canvas, x + i, y, (i > 0 ? LEFT : 0) | (i + 1 < length ? RIGHT : 0), colour);
}

void tool_canvas_box(struct tool_canvas *canvas, struct tool_rect rect, enum tool_colour colour)
{
    tool_canvas_right(canvas, rect.x, rect.y, rect.width, colour);
    tool_canvas_right(canvas, rect.x, rect.y + rect.height - 1, rect.width, colour);
    tool_canvas_down(canvas, rect.x, rect.y, rect.height, colour);
    tool_canvas_down(canvas, rect.x + rect.width - 1, rect.y, rect.height, colour);
}

static void print_cell(const struct cell *cell, bool utf8)
{
    static const char *const box[16] = { " ", "╵", "╷", "│", "╴", "┘", "┐", "┤",
                                         "╶", "└", "┌", "├", "─", "┴", "┬", "┼" };
    static const char *const ascii[16] = { " ", "|", "|", "|", "-", "+", "+", "+",
                                           "-", "+", "+", "+", "-", "+", "+", "+" };
    if (cell->text)
        putchar(cell->text);
    else
        fputs((utf8 ? box : ascii)[cell->lines], stdout);
}

void tool_canvas_print(const struct tool_canvas *canvas, const struct tool_term *term)
{
    for (int y = 0; y < canvas->height; y++) {
        unsigned char colour = TOOL_PLAIN;
        int end = canvas->width;
        while (end > 0 && !cell_at(canvas, end - 1, y)->lines && !cell_at(canvas, end - 1, y)->text)
            end--;
        for (int x = 0; x < end; x++) {
            const struct cell *cell = cell_at(canvas, x, y);
            if (cell->colour != colour) {
                fputs(tool_colour(term, TOOL_PLAIN), stdout);
                if (cell->colour != TOOL_PLAIN)
                    fputs(tool_colour(term, cell->colour), stdout);
                colour = cell->colour;
            }
            print_cell(cell, term->utf8);
        }
        if (colour != TOOL_PLAIN)
            fputs(tool_colour(term, TOOL_PLAIN), stdout);
        putchar('\n');
    }
}
