/* SPDX-License-Identifier: MIT */
#include "runtime/tool/tool_term.h"

#include <langinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int columns_of_terminal(void)
{
    struct winsize size = { 0 };
    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    const char *columns = getenv("COLUMNS");
    char *end = NULL;
    long value = columns ? strtol(columns, &end, 10) : 0;
    return columns && *columns && *end == '\0' && value > 0 && value < 100000 ? (int)value
                                                                              : TOOL_WIDTH_DEFAULT;
}

void tool_term_init(struct tool_term *term, int width, bool ascii)
{
    const char *kind = getenv("TERM");
    const char *no_colour = getenv("NO_COLOR");
    bool is_dumb = kind == NULL || strcmp(kind, "dumb") == 0;

    term->is_tty = isatty(STDOUT_FILENO) == 1 && !is_dumb;
    term->utf8 = !ascii && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    term->colour = term->is_tty && (no_colour == NULL || *no_colour == '\0');
    term->width = width > 0 ? width : columns_of_terminal();
    if (term->width < TOOL_WIDTH_MIN)
        term->width = TOOL_WIDTH_MIN;
    if (term->width > TOOL_WIDTH_MAX)
        term->width = TOOL_WIDTH_MAX;
}

const char *tool_colour(const struct tool_term *term, enum tool_colour colour)
{
    static const char *const sequences[TOOL_COLOURS] = {
        [TOOL_PLAIN] = "\033[0m",  [TOOL_BOLD] = "\033[1m",    [TOOL_DIM] = "\033[2m",
        [TOOL_GREEN] = "\033[32m", [TOOL_YELLOW] = "\033[33m", [TOOL_RED] = "\033[31m",
    };
    return term->colour ? sequences[colour] : "";
}

size_t tool_columns(const char *text)
{
    size_t columns = 0;
    for (; *text; text++)
        columns += ((unsigned char)*text & 0xC0u) != 0x80u; /* not a continuation byte */
    return columns;
}

void tool_print_wrapped(const struct tool_term *term, int column, int indent, const char *text)
{
    bool is_first = true;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (!is_first && column + 1 + (int)word > term->width) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (!is_first) {
            putchar(' ');
            column++;
        }
        printf("%.*s", (int)word, text);
        column += (int)word;
        is_first = false;
        text += word;
        text += strspn(text, " ");
    }
    putchar('\n');
}

const char *tool_count(char *buf, uint64_t count)
{
    char digits[TOOL_NUMBER_BYTES];
    int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)count);
    int used = 0;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            buf[used++] = ',';
        buf[used++] = digits[i];
    }
    buf[used] = '\0';
    return buf;
}

/* Three digits of `value` and a unit, as in 1.00M, 12.3M, 123M. */
static void three_digits(char *buf, double value, const char *unit)
{
    int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    (void)snprintf(buf, TOOL_NUMBER_BYTES, "%.*f%s", decimals, value, unit); /* fits */
}

const char *tool_short(char *buf, uint64_t count)
{
    static const char *const units[] = { "k", "M", "G", "T", "P", "E" };
    double value = (double)count;
    size_t unit = 0;
    if (count < 10000) {
        (void)snprintf(buf, TOOL_NUMBER_BYTES, "%llu", (unsigned long long)count); /* fits */
        return buf;
    }
    for (value /= 1e3; value >= 999.5 && unit + 1 < sizeof units / sizeof *units; unit++)
        value /= 1e3;
    three_digits(buf, value, units[unit]);
    return buf;
}

const char *tool_rate(char *buf, uint64_t count, uint64_t time_ns)
{
    char number[TOOL_NUMBER_BYTES];
    double rate = (double)count * 1e9 / (double)(time_ns > 0 ? time_ns : 1);
    uint64_t whole = rate < 1e18 ? (uint64_t)rate : UINT64_C(1000000000000000000);
    (void)snprintf(buf, TOOL_NUMBER_BYTES, "%.28s/s", /* fits */
                   whole < 1000000 ? tool_count(number, whole) : tool_short(number, whole));
    return buf;
}

const char *tool_bytes(char *buf, uint64_t bytes)
{
    static const char *const units[] = { " B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB" };
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1023.5 && unit + 1 < sizeof units / sizeof *units; unit++)
        value /= 1024;
    int decimals = unit == 0 || value >= 99.95 || value == (double)(uint64_t)value ? 0 : 1;
    (void)snprintf(buf, TOOL_NUMBER_BYTES, "%.*f%s", decimals, value, units[unit]); /* fits */
    return buf;
}

const char *tool_duration(char *buf, uint64_t time_ns)
{
    if (time_ns < 999500)
        (void)snprintf(buf, TOOL_NUMBER_BYTES, "%.0f us", (double)time_ns / 1e3); /* fits */
    else if (time_ns < 999500000)
        three_digits(buf, (double)time_ns / 1e6, " ms");
    else
        three_digits(buf, (double)time_ns / 1e9, " s");
    return buf;
}

/* Index of the last number of the range that starts at `first`: steps of one, or at least three
 * numbers with the same step. */
static size_t range_end(const int *numbers, size_t first, size_t count)
{
    size_t last = first;
    int step = first + 1 < count ? numbers[first + 1] - numbers[first] : 1;
    while (last + 1 < count && numbers[last + 1] - numbers[last] == step)
        last++;
    return step > 1 && last - first < 2 ? first : last;
}

const char *tool_ranges(char *buf, size_t buf_bytes, const int *numbers, size_t count)
{
    size_t used = 0;
    buf[0] = '\0';
    for (size_t first = 0; first < count;) {
        char range[3 * TOOL_NUMBER_BYTES];
        size_t last = range_end(numbers, first, count);
        int step = last > first ? numbers[first + 1] - numbers[first] : 1;
        int length = snprintf(range, sizeof range, "%s%d", first > 0 ? "," : "", numbers[first]);
        if (last > first)
            length += snprintf(range + length, sizeof range - (size_t)length, "-%d", numbers[last]);
        if (step > 1)
            length += snprintf(range + length, sizeof range - (size_t)length, ":%d", step);
        if (used + (size_t)length + (last + 1 == count ? 1 : sizeof "...") > buf_bytes) {
            (void)snprintf(buf + used, buf_bytes - used, "..."); /* cut where the room ends */
            return buf;
        }
        memcpy(buf + used, range, (size_t)length + 1);
        used += (size_t)length;
        first = last + 1;
    }
    return buf;
}
