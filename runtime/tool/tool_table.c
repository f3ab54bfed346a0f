/* SPDX-License-Identifier: MIT */
#include "runtime/tool/tool_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tool_table_init(struct tool_table *table, unsigned columns, unsigned left_mask)
{
    memset(table, 0, sizeof *table);
    table->columns = columns;
    table->left_mask = left_mask;
}

void tool_table_fini(struct tool_table *table)
{
    for (size_t i = 0; i < table->rows * table->columns; i++)
        free(table->cells[i]);
    free(table->cells);
    memset(table, 0, sizeof *table);
}

void tool_table_add(struct tool_table *table, const char *const *cells)
{
    size_t used = table->rows * table->columns;
    char **grown = realloc(table->cells, (used + table->columns) * sizeof *grown);
    if (!grown) {
        table->is_out_of_memory = true;
        return;
    }
    table->cells = grown;
    for (unsigned c = 0; c < table->columns; c++) {
        grown[used + c] = strdup(cells[c]);
        if (!grown[used + c])
            table->is_out_of_memory = true;
    }
    table->rows++;
}

/* Finds the width of each column; returns the gap between columns: one blank where two would not
 * fit on the terminal. */
static int measure(const struct tool_table *table, const struct tool_term *term, size_t *width)
{
    size_t sum = 0;
    for (size_t i = 0; i < table->rows * table->columns; i++) {
        size_t columns = tool_columns(table->cells[i]);
        size_t *widest = &width[i % table->columns];
        *widest = columns > *widest ? columns : *widest;
    }
    for (unsigned c = 0; c < table->columns; c++)
        sum += width[c];
    return sum + 2u * (table->columns - 1) <= (size_t)term->width ? 2 : 1;
}

int tool_table_print(const struct tool_table *table, const struct tool_term *term)
{
    size_t width[TOOL_TABLE_COLUMNS_MAX] = { 0 };
    if (table->is_out_of_memory)
        return -ENOMEM;
    int gap = measure(table, term, width);
    for (size_t row = 0; row < table->rows; row++) {
        fputs(row == 0 ? tool_colour(term, TOOL_DIM) : "", stdout);
        for (unsigned c = 0; c < table->columns; c++) {
            const char *text = table->cells[row * table->columns + c];
            int pad = (int)(width[c] - tool_columns(text));
            bool is_left = (table->left_mask >> c) & 1u;
            bool is_last = c + 1 == table->columns;
            printf("%*s%*s%s%*s", c > 0 ? gap : 0, "", is_left ? 0 : pad, "", text,
                   is_left && !is_last ? pad : 0, "");
        }
        printf("%s\n", row == 0 ? tool_colour(term, TOOL_PLAIN) : "");
    }
    return 0;
}
