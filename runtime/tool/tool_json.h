/* SPDX-License-Identifier: MIT */
/* tool_json.h: writes JSON to standard output as it comes, two blanks of indentation per level.
 *
 * Inside an object every value has a key; inside an array the key is NULL.  Main thread only.
 */
#ifndef NIO_TOOL_JSON_H
#define NIO_TOOL_JSON_H

#include <stdbool.h>
#include <stdint.h>

enum { TOOL_JSON_DEPTH_MAX = 16 };

struct tool_json {
    unsigned depth;
    bool has_member[TOOL_JSON_DEPTH_MAX]; /* per open level: a comma is due before the next */
};

/* `bracket` is '{' or '['; deeper than TOOL_JSON_DEPTH_MAX aborts. */
void tool_json_open(struct tool_json *json, const char *key, char bracket);
/* `bracket` is '}' or ']'. */
void tool_json_close(struct tool_json *json, char bracket);

/* A string; NULL becomes null; bytes that are no UTF-8 become U+FFFD. */
void tool_json_string(struct tool_json *json, const char *key, const char *value);
void tool_json_int(struct tool_json *json, const char *key, int64_t value);
void tool_json_uint(struct tool_json *json, const char *key, uint64_t value);
void tool_json_bool(struct tool_json *json, const char *key, bool value);
void tool_json_double(struct tool_json *json, const char *key, double value);
void tool_json_null(struct tool_json *json, const char *key);

#endif
