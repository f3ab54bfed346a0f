/* SPDX-License-Identifier: MIT */
/* tool_table.h: a table with aligned columns.
 *
 * Rows are added as arrays of strings, which are copied; printing finds the widths.  The first
 * failure to allocate is remembered and makes the printing fail instead.
 * The tool's main thread only.
 */
#ifndef NIO_TOOL_TABLE_H
#define NIO_TOOL_TABLE_H

#include "runtime/tool/tool_term.h"

enum { TOOL_TABLE_COLUMNS_MAX = 16 };

struct tool_table {
    unsigned columns;
    unsigned left_mask; /* bit c: column c is aligned to the left, else to the right */
    size_t rows;
    char **cells; /* rows x columns */
    bool is_out_of_memory;
};

/* `columns` at most TOOL_TABLE_COLUMNS_MAX.  The first row added is the heading. */
void tool_table_init(struct tool_table *table, unsigned columns, unsigned left_mask);
void tool_table_fini(struct tool_table *table);
void tool_table_add(struct tool_table *table, const char *const *cells);
/* Errors: -ENOMEM a row was lost. */
int tool_table_print(const struct tool_table *table, const struct tool_term *term);

#endif
