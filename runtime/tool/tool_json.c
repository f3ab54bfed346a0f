/* SPDX-License-Identifier: MIT */
#include "runtime/tool/tool_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Bytes of the UTF-8 character that starts at `text`, 0 if it is none. */
static unsigned utf8_length(const unsigned char *text)
{
    static const struct {
        unsigned char low, high, length;
    } leads[] = { { 0xC2, 0xDF, 2 }, { 0xE0, 0xEF, 3 }, { 0xF0, 0xF4, 4 } };
    if (text[0] < 0x80)
        return 1;
    for (unsigned i = 0; i < sizeof leads / sizeof *leads; i++) {
        if (text[0] < leads[i].low || text[0] > leads[i].high)
            continue;
        for (unsigned k = 1; k < leads[i].length; k++)
            if ((text[k] & 0xC0u) != 0x80u)
                return 0;
        bool is_overlong =
            (text[0] == 0xE0 && text[1] < 0xA0) || (text[0] == 0xF0 && text[1] < 0x90);
        bool is_surrogate = text[0] == 0xED && text[1] > 0x9F;
        bool is_beyond = text[0] == 0xF4 && text[1] > 0x8F;
        return is_overlong || is_surrogate || is_beyond ? 0 : leads[i].length;
    }
    return 0;
}

static void put_string(const char *value)
{
    const unsigned char *text = (const unsigned char *)value;
    putchar('"');
    while (*text) {
        unsigned length = utf8_length(text);
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if (length == 0)
            fputs("\\ufffd", stdout);
        else if (*text < ' ' || *text == 0x7F)
            printf("\\u%04x", *text);
        else
            printf("%.*s", (int)length, (const char *)text);
        text += length > 0 ? length : 1;
    }
    putchar('"');
}

/* What stands before a value: the comma, the new line, the key. */
static void begin_value(struct tool_json *json, const char *key)
{
    if (json->depth > 0) {
        bool *has_member = &json->has_member[json->depth - 1];
        printf("%s\n%*s", *has_member ? "," : "", (int)json->depth * 2, "");
        *has_member = true;
    }
    if (key) {
        put_string(key);
        fputs(": ", stdout);
    }
}

void tool_json_open(struct tool_json *json, const char *key, char bracket)
{
    begin_value(json, key);
    if (json->depth == TOOL_JSON_DEPTH_MAX)
        abort();
    json->has_member[json->depth++] = false;
    putchar(bracket);
}

void tool_json_close(struct tool_json *json, char bracket)
{
    if (json->depth == 0)
        abort();
    json->depth--;
    if (json->has_member[json->depth])
        printf("\n%*s", (int)json->depth * 2, "");
    putchar(bracket);
    if (json->depth == 0)
        putchar('\n');
}

void tool_json_string(struct tool_json *json, const char *key, const char *value)
{
    begin_value(json, key);
    if (value)
        put_string(value);
    else
        fputs("null", stdout);
}

void tool_json_int(struct tool_json *json, const char *key, int64_t value)
{
    begin_value(json, key);
    printf("%lld", (long long)value);
}

void tool_json_uint(struct tool_json *json, const char *key, uint64_t value)
{
    begin_value(json, key);
    printf("%llu", (unsigned long long)value);
}

void tool_json_bool(struct tool_json *json, const char *key, bool value)
{
    begin_value(json, key);
    fputs(value ? "true" : "false", stdout);
}

void tool_json_double(struct tool_json *json, const char *key, double value)
{
    begin_value(json, key);
    if (isfinite(value))
        printf("%.9g", value);
    else
        fputs("null", stdout);
}

void tool_json_null(struct tool_json *json, const char *key)
{
    begin_value(json, key);
    fputs("null", stdout);
}
