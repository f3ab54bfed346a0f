/* SPDX-License-Identifier: MIT */
/* Two passes over the same code: with no canvas, place_strips() and place_boxes() only measure;
 * with one, they draw.  All coordinates are columns and lines of the page. */
#include "runtime/tool/tool_draw.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/tool/tool_canvas.h"

enum { BOX_GAP = 1, STRIP_GAP = 1, INSET = 2, TITLE_BYTES = 96, MARK_BYTES = 40 };

struct size {
    int width, height;
};

/* What all boxes have in common. */
struct sheet {
    const struct tool_machine *machine;
    struct tool_canvas *canvas; /* NULL: measure */
    int width;                  /* of the page */
    int mark_width, cpu_width;  /* widest mark, widest CPU number */
    int cell_width;             /* of a core, its left border included */
    int cell_height;            /* its upper border included */
};

struct box {
    char title[TITLE_BYTES], memory[TITLE_BYTES], note[TITLE_BYTES];
    uint32_t *cores; /* topology indexes, in order */
    uint32_t core_count;
    bool has_workers;
    struct size size;
};

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

/* "W3", "SQ", "W3+SQ"; "-" where no thread of numio is pinned to the PU. */
static enum tool_colour mark_of(const struct tool_machine *machine, uint32_t pu, char *buf)
{
    int worker = machine->pu_worker[pu];
    bool has_sq = machine->pu_sq[pu] >= 0;
    if (worker >= 0)
        (void)snprintf(buf, MARK_BYTES, "W%d%s", worker, has_sq ? "+SQ" : ""); /* fits */
    else
        (void)snprintf(buf, MARK_BYTES, "%s", has_sq ? "SQ" : "-"); /* fits */
    return has_sq ? TOOL_YELLOW : worker >= 0 ? TOOL_GREEN : TOOL_DIM;
}

static void measure_cells(struct sheet *sheet)
{
    const struct tool_machine *machine = sheet->machine;
    char text[MARK_BYTES];
    int pus = 1;
    for (uint32_t i = 0; i < machine->info.pu_count; i++) {
        (void)mark_of(machine, i, text); /* only its length matters here */
        sheet->mark_width = max_int(sheet->mark_width, (int)strlen(text));
        int digits = snprintf(text, sizeof text, "%d", tool_pu(machine, i).os_index);
        sheet->cpu_width = max_int(sheet->cpu_width, digits);
    }
    for (uint32_t i = 0; i < machine->info.core_count; i++)
        pus = max_int(pus, (int)tool_core(machine, i).pu_count);
    sheet->cell_width = sheet->mark_width + sheet->cpu_width + 4; /* border, three blanks */
    sheet->cell_height = pus + 1;
}

static void draw_core(const struct sheet *sheet, uint32_t index, int x, int y, bool is_used)
{
    struct tool_rect rect = { x, y, sheet->cell_width + 1, sheet->cell_height + 1 };
    struct numio_topology_core core = tool_core(sheet->machine, index);
    tool_canvas_box(sheet->canvas, rect, is_used ? TOOL_PLAIN : TOOL_DIM);
    for (uint32_t i = 0; i < core.pu_count; i++) {
        char mark[MARK_BYTES], cpu[MARK_BYTES];
        uint32_t pu = core.pu_first + i;
        enum tool_colour colour = mark_of(sheet->machine, pu, mark);
        int line = y + 1 + (int)i;
        (void)snprintf(cpu, sizeof cpu, "%*d", sheet->cpu_width, /* fits */
                       tool_pu(sheet->machine, pu).os_index);
        tool_canvas_text(sheet->canvas, x + 2, line, colour, mark);
        tool_canvas_text(sheet->canvas, x + 3 + sheet->mark_width, line, TOOL_DIM, cpu);
    }
}

/* The cache's name on the strip's upper edge, as much of it as fits. */
static void draw_cache_label(const struct sheet *sheet, uint32_t index, int x, int y, int width)
{
    struct numio_topology_llc llc = tool_llc(sheet->machine, index);
    char bytes[TOOL_NUMBER_BYTES], label[TITLE_BYTES];
    if (llc.level == 0)
        return;
    int length = snprintf(label, sizeof label, "L%u", llc.level);
    if (llc.cache_bytes > 0 && width >= 14)
        (void)snprintf(label + length, sizeof label - (size_t)length, " %s", /* fits */
                       tool_bytes(bytes, llc.cache_bytes));
    tool_canvas_text(sheet->canvas, x + 2, y, TOOL_DIM, label);
}

/* Cores of `box` from `first` on that share one cache. */
static uint32_t strip_length(const struct sheet *sheet, const struct box *box, uint32_t first)
{
    uint32_t llc = tool_core(sheet->machine, box->cores[first]).llc;
    uint32_t end = first + 1;
    while (end < box->core_count && tool_core(sheet->machine, box->cores[end]).llc == llc)
        end++;
    return end - first;
}

/* Columns for a strip of `count` cores: as even rows as the width allows. */
static int strip_columns(const struct sheet *sheet, uint32_t count, int width)
{
    int fit = max_int(1, (width - 1) / sheet->cell_width);
    int rows = ((int)count + fit - 1) / fit;
    return ((int)count + rows - 1) / rows;
}

static void draw_strip(const struct sheet *sheet, const struct box *box, uint32_t first,
                       uint32_t count, struct tool_rect place)
{
    int columns = (place.width - 1) / sheet->cell_width;
    for (uint32_t i = 0; i < count; i++)
        draw_core(sheet, box->cores[first + i], place.x + (int)i % columns * sheet->cell_width,
                  place.y + (int)i / columns * sheet->cell_height, box->has_workers);
    uint32_t llc = tool_core(sheet->machine, box->cores[first]).llc;
    draw_cache_label(sheet, llc, place.x, place.y, place.width);
}

/* Lays the strips of a box out in an area of `width` columns whose corner is (x, y); returns the
 * area that they take. */
static struct size place_strips(const struct sheet *sheet, const struct box *box, int x, int y,
                                int width)
{
    struct size used = { 0, 0 };
    int left = 0, top = 0, row_height = 0;
    for (uint32_t first = 0; first < box->core_count;) {
        uint32_t count = strip_length(sheet, box, first);
        int columns = strip_columns(sheet, count, width);
        int rows = ((int)count + columns - 1) / columns;
        struct tool_rect strip = { 0, 0, columns * sheet->cell_width + 1,
                                   rows * sheet->cell_height + 1 };
        if (left > 0 && left + strip.width > width) {
            top += row_height;
            left = row_height = 0;
        }
        strip.x = x + left;
        strip.y = y + top;
        if (sheet->canvas)
            draw_strip(sheet, box, first, count, strip);
        left += strip.width + STRIP_GAP;
        row_height = max_int(row_height, strip.height);
        used.width = max_int(used.width, left - STRIP_GAP);
        used.height = max_int(used.height, top + row_height);
        first += count;
    }
    return used;
}

static void measure_box(const struct sheet *sheet, struct box *box)
{
    int title = (int)(strlen(box->title) + strlen(box->memory)) + 9;
    struct size strips = place_strips(sheet, box, 0, 0, sheet->width - 2 * INSET);
    int inner = max_int(strips.width, (int)strlen(box->note));
    box->size.width = max_int(inner + 2 * INSET, title);
    box->size.height = strips.height + 2 + (box->note[0] != '\0');
}

static void draw_box(const struct sheet *sheet, const struct box *box, struct tool_rect rect)
{
    char text[TITLE_BYTES + 2];
    tool_canvas_box(sheet->canvas, rect, TOOL_DIM);
    (void)snprintf(text, sizeof text, " %s ", box->title); /* fits */
    tool_canvas_text(sheet->canvas, rect.x + 2, rect.y, box->has_workers ? TOOL_BOLD : TOOL_DIM,
                     text);
    if (box->memory[0]) {
        int length = snprintf(text, sizeof text, " %s ", box->memory);
        tool_canvas_text(sheet->canvas, rect.x + rect.width - 2 - length, rect.y, TOOL_PLAIN, text);
    }
    struct size strips =
        place_strips(sheet, box, rect.x + INSET, rect.y + 1, sheet->width - 2 * INSET);
    tool_canvas_text(sheet->canvas, rect.x + INSET, rect.y + 1 + strips.height, TOOL_YELLOW,
                     box->note);
}

/* Lays the boxes out in rows; returns the height of the page. */
static int place_boxes(const struct sheet *sheet, const struct box *boxes, size_t count)
{
    int top = 0;
    for (size_t first = 0; first < count;) {
        int used = 0, height = 0;
        size_t end = first;
        while (end < count && (end == first || used + boxes[end].size.width <= sheet->width)) {
            used += boxes[end].size.width + BOX_GAP;
            height = max_int(height, boxes[end].size.height);
            end++;
        }
        int left = 0;
        for (size_t i = first; i < end; i++) {
            struct tool_rect rect = { left, top, boxes[i].size.width, height };
            if (sheet->canvas)
                draw_box(sheet, &boxes[i], rect);
            left += rect.width + BOX_GAP;
        }
        top += height;
        first = end;
    }
    return top;
}

static int add_core(struct box *box, uint32_t core)
{
    uint32_t *grown = realloc(box->cores, (box->core_count + 1) * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    box->cores = grown;
    grown[box->core_count++] = core;
    return 0;
}

/* "node 1: package 0, NUMA 1": what the node consists of, by numio's numbers. */
static void title_node(const struct tool_machine *machine, unsigned node, struct box *box)
{
    const struct numio_node_status *status = &machine->nodes[node];
    char bytes[TOOL_NUMBER_BYTES];
    int length = snprintf(box->title, sizeof box->title, "node %u", node);
    if (machine->info.package_count > 1 || machine->status.nodes > 1)
        length += snprintf(box->title + length, sizeof box->title - (size_t)length, ": package %u",
                           status->package);
    if (machine->info.numa_count > machine->info.package_count && status->os_node >= 0)
        (void)snprintf(box->title + length, sizeof box->title - (size_t)length, /* fits */
                       ", NUMA %d", status->os_node);
    if (status->memory_bytes > 0)
        (void)snprintf(box->memory, sizeof box->memory, "%s", /* fits */
                       tool_bytes(bytes, status->memory_bytes));
    if (tool_has_sq_threads(machine) && strcmp(status->sq_place, "shared") == 0)
        (void)snprintf(box->note, sizeof box->note, "SQ thread shares these CPUs"); /* fits */
    box->has_workers = true;
}

/* Boxes for nodes, then for cores of no node by package, then for memory without CPUs. */
static int fill_boxes(const struct tool_machine *machine, struct box *boxes)
{
    size_t nodes = machine->has_runtime ? machine->status.nodes : 0;
    size_t packages = machine->info.package_count;
    char bytes[TOOL_NUMBER_BYTES];

    for (unsigned i = 0; i < nodes; i++)
        title_node(machine, i, &boxes[i]);
    for (uint32_t i = 0; i < packages; i++)
        (void)snprintf(boxes[nodes + i].title, TITLE_BYTES, "package %u%s", i, /* fits */
                       machine->has_runtime ? ": no worker" : "");
    for (uint32_t i = 0; i < machine->info.core_count; i++) {
        int node = machine->core_node[i];
        uint32_t package = tool_core(machine, i).package;
        size_t box = node >= 0 ? (size_t)node : package < packages ? nodes + package : nodes;
        if (add_core(&boxes[box], i) < 0)
            return -ENOMEM;
    }
    for (uint32_t i = 0; i < machine->info.numa_count; i++) {
        struct numio_topology_numa numa = tool_numa(machine, i);
        struct box *box = &boxes[nodes + packages + i];
        if (!numa.is_cpuless)
            continue;
        (void)snprintf(box->title, TITLE_BYTES, "NUMA %d", /* fits */
                       tool_numa_number(machine, i));
        (void)snprintf(box->memory, TITLE_BYTES, "%s", /* fits */
                       tool_bytes(bytes, numa.memory_bytes));
        (void)snprintf(box->note, TITLE_BYTES, "memory only"); /* fits */
    }
    return 0;
}

static void print_legend(const struct tool_machine *machine, const struct tool_term *term)
{
    enum { WIDTH_OF_ONE_LINE = 68 };
    const char *dim = tool_colour(term, TOOL_DIM);
    const char *plain = tool_colour(term, TOOL_PLAIN);
    const char *gap = term->width < WIDTH_OF_ONE_LINE ? "\n" : "   ";
    if (machine->has_runtime)
        printf("%sW%s %sworker%s%s", tool_colour(term, TOOL_GREEN), plain, dim, plain, gap);
    if (tool_has_sq_threads(machine))
        printf("%sSQ%s %ssubmission thread%s%s", tool_colour(term, TOOL_YELLOW), plain, dim, plain,
               gap);
    if (machine->has_runtime)
        printf("%s-  no thread of numio%s%s", dim, plain, gap);
    printf("%snumber: CPU%s\n", dim, plain);
}

/* Drops the boxes that stayed empty; returns how many are left. */
static size_t drop_empty(struct box *boxes, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (boxes[i].core_count > 0 || boxes[i].note[0])
            boxes[kept++] = boxes[i];
    return kept;
}

int tool_draw_machine(const struct tool_machine *machine, const struct tool_term *term)
{
    struct sheet sheet = { .machine = machine, .width = term->width };
    size_t count = (machine->has_runtime ? machine->status.nodes : 0) +
                   (size_t)machine->info.package_count + machine->info.numa_count + 1;
    struct box *boxes = calloc(count, sizeof *boxes);
    if (!boxes)
        return -ENOMEM;
    int err = fill_boxes(machine, boxes);
    count = drop_empty(boxes, count);
    if (err == 0) {
        measure_cells(&sheet);
        for (size_t i = 0; i < count; i++)
            measure_box(&sheet, &boxes[i]);
        sheet.canvas =
            tool_canvas_create(term->width, max_int(1, place_boxes(&sheet, boxes, count)));
        err = sheet.canvas ? 0 : -ENOMEM;
    }
    if (err == 0) {
        (void)place_boxes(&sheet, boxes, count); /* the height is known */
        tool_canvas_print(sheet.canvas, term);
        print_legend(machine, term);
    }
    tool_canvas_destroy(sheet.canvas);
    for (size_t i = 0; i < count; i++)
        free(boxes[i].cores);
    free(boxes);
    return err;
}
