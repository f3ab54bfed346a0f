/* SPDX-License-Identifier: MIT */
#include "alloc/arena_audit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc/mempolicy.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"

enum { BATCH_PAGES = 4096 };

/* The size of this struct when it was first published, and the least one that is accepted. */
static const size_t audit_bytes_min = sizeof(struct numio_arena_audit);

struct audit_scratch {
    size_t page_bytes;
    int refusal; /* negative errno value of move_pages, 0: it answers */
    uint64_t untouched;
    uint64_t unknown;
    uint64_t on_node[NIO_OS_NODES_MAX];
    void *pages[BATCH_PAGES];
    int nodes[BATCH_PAGES];
};

static void count_page(struct audit_scratch *scratch, int node)
{
    /* Kernels answer -EFAULT or -ENOENT for a page that was never written. */
    if (node >= 0 && node < NIO_OS_NODES_MAX)
        scratch->on_node[node]++;
    else if (node == -ENOENT || node == -EFAULT)
        scratch->untouched++;
    else
        scratch->unknown++;
}

static int audit_mapping(void *base, size_t bytes, void *context)
{
    struct audit_scratch *scratch = context;
    char *at = base;
    size_t pages = bytes / scratch->page_bytes;
    while (pages > 0) { /* bounded by the mapping's size */
        size_t count = pages < BATCH_PAGES ? pages : BATCH_PAGES;
        for (size_t i = 0; i < count; i++)
            scratch->pages[i] = at + i * scratch->page_bytes;
        int error = nio_mempolicy_page_nodes(scratch->pages, count, scratch->nodes);
        if (error) {
            scratch->refusal = error;
            scratch->unknown += count;
        }
        for (size_t i = 0; !error && i < count; i++)
            count_page(scratch, scratch->nodes[i]);
        at += count * scratch->page_bytes;
        pages -= count;
    }
    return 0;
}

/* The node that most pages are on, -1 without any. */
static int majority(const struct audit_scratch *scratch)
{
    int best = -1;
    for (int node = 0; node < NIO_OS_NODES_MAX; node++)
        if (scratch->on_node[node] > 0 &&
            (best < 0 || scratch->on_node[node] > scratch->on_node[best]))
            best = node;
    return best;
}

static void summarize(const struct audit_scratch *scratch, int bound_node,
                      struct numio_arena_audit *audit)
{
    audit->is_bound = bound_node >= 0;
    audit->os_node = audit->is_bound ? bound_node : majority(scratch);
    audit->page_bytes = scratch->page_bytes;
    audit->pages_untouched = scratch->untouched;
    audit->pages_unknown = scratch->unknown;
    for (int node = 0; node < NIO_OS_NODES_MAX; node++)
        if (node == audit->os_node)
            audit->pages_home += scratch->on_node[node];
        else
            audit->pages_away += scratch->on_node[node];
}

int nio_node_arena_audit(struct nio_node_arena *arena, struct numio_arena_audit *ret_audit)
{
    if (ret_audit->size < audit_bytes_min)
        return nio_error(-EINVAL, "numio_arena_audit.size: %zu is less than %zu", ret_audit->size,
                         audit_bytes_min);
    struct audit_scratch *scratch = nio_zalloc(sizeof *scratch);
    if (!scratch)
        return nio_error(-ENOMEM, "arena: no memory for an audit");
    scratch->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    (void)nio_node_arena_for_each_mapping(arena, audit_mapping, scratch); /* it returns 0 */

    struct numio_arena_audit audit = { .size = ret_audit->size };
    summarize(scratch, nio_node_arena_os_node(arena), &audit);
    struct nio_node_arena_stats stats;
    nio_node_arena_stats(arena, &stats);
    audit.bytes_allocated = stats.bytes_allocated;
    audit.bytes_freed = stats.bytes_freed;
    audit.bytes_live = stats.bytes_live;
    const char *reason = nio_node_arena_reason(arena);
    if (scratch->refusal)
        (void)snprintf(audit.reason, sizeof audit.reason,
                       "move_pages refuses to tell where pages are (%s); in a container allow it",
                       strerrordesc_np(-scratch->refusal)); /* cut at the buffer's end */
    else if (reason)
        (void)snprintf(audit.reason, sizeof audit.reason, "%s", reason); /* as above */
    nio_free(scratch);
    memcpy(ret_audit, &audit, audit.size < sizeof audit ? audit.size : sizeof audit);
    return 0;
}
