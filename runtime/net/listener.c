/* SPDX-License-Identifier: MIT */
/* A listener's sockets and acceptors.
 *
 * An accepted connection is noted in `pending` until its coroutine begins: a runtime that shuts
 * down never runs some of them, and what they would have closed numio_listener_close() closes. From
 * then on it counts as running, so that at any moment until its end it is in one of the two. */
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <numio/error.h>
#include <numio/io.h>
#include <numio/net.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/base/versioned.h"
#include "runtime/net/address.h"
#include "runtime/net/steer.h"
#include "runtime/sched/await.h"
#include "runtime/sched/worker.h"

static const uint64_t retry_ns = 10000000; /* when descriptors or memory have run out */
enum { DRAIN_POLL_NS = 1000000, REASON_BYTES = 480 };

struct member {
    struct numio_listener *listener;
    int fd, node;
    int worker; /* -1: any of the node */
    struct numio_join *acceptor;
};

struct connection {
    struct connection *next, **link; /* under the listener's lock */
    struct numio_listener *listener;
    int fd;
};

/* Counts the handlers that run; outlives the listener, which holds one of the counts. */
struct running {
    _Atomic uint64_t count;
};

struct numio_listener {
    struct numio_handle *handle;
    struct running *running;
    numio_listener_fn *fn;
    void *arg;
    bool is_serving;
    _Atomic bool is_closing;
    unsigned port, count;
    char reason[REASON_BYTES];
    struct nio_lock lock;
    struct connection *pending; /* under the lock */
    struct member members[];
};

static void leave(struct running *running)
{
    /* [LR1] acq_rel: who drains sees what the handlers did, and the last one, which frees, is the
     * last that touches it.  Pairs with [LR2] and itself. */
    if (atomic_fetch_sub_explicit(&running->count, 1, memory_order_acq_rel) == 1)
        nio_free(running);
}

/* --- sockets --------------------------------------------------------------------------------- */

/* Adds a sentence to what was refused, once, with "; " between two; cut at the buffer's end. */
static NIO_PRINTF(2, 3) void refused(struct numio_listener *listener, const char *format, ...)
{
    char text[REASON_BYTES / 2];
    size_t used = strlen(listener->reason);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* may be cut */
    va_end(args);
    if (!strstr(listener->reason, text))
        (void)snprintf(listener->reason + used, sizeof listener->reason - used, "%s%s",
                       used ? "; " : "", text); /* may be cut */
}

/* Names the CPU of a worker's socket.  It serves as well without: the group's program steers. */
static void name_cpu(struct numio_listener *listener, int fd, int cpu)
{
    if (cpu >= 0 && setsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &cpu, sizeof cpu) != 0)
        refused(listener, "the sockets do not name their CPU: SO_INCOMING_CPU: %s",
                strerror(errno));
}

/* All members have the port that the first one got. */
static int learn_port(struct numio_listener *listener, struct numio_address *address)
{
    if (getsockname(listener->members[0].fd, (struct sockaddr *)&address->storage,
                    &address->bytes) != 0)
        return nio_error(-errno, "listen: getsockname: %s", strerror(errno));
    /* The port stands at the same place in both families. */
    listener->port = ntohs(((const struct sockaddr_in *)(const void *)&address->storage)->sin_port);
    return 0;
}

static void place_members(struct numio_listener *listener, const struct numio_listen_opts *opts)
{
    for (unsigned i = 0; i < listener->count; i++) {
        struct member *member = &listener->members[i];
        *member = (struct member){ .listener = listener, .fd = -1, .node = (int)i, .worker = -1 };
        if (opts->group == NUMIO_LISTEN_PER_WORKER) {
            member->worker = (int)i;
            member->node = (int)listener->handle->workers[i]->node->index;
        } else if (opts->group == NUMIO_LISTEN_ONE) {
            member->node = opts->node;
        }
    }
}

static int open_members(struct numio_listener *listener, const struct numio_listen_opts *opts)
{
    struct numio_address address;
    int rc = nio_address_parse(opts->address, &address);
    place_members(listener, opts);
    for (unsigned i = 0; rc == 0 && i < listener->count; i++) {
        struct member *member = &listener->members[i];
        int cpu = member->worker >= 0 ? listener->handle->workers[i]->plan->bind_cpu : -1;
        member->fd = nio_address_listen(&address, opts->address, opts->backlog,
                                        opts->group != NUMIO_LISTEN_ONE);
        rc = member->fd < 0 ? member->fd : 0;
        if (rc == 0)
            name_cpu(listener, member->fd, cpu);
        if (rc == 0 && numio_busy_poll_set(member->fd, &opts->busy_poll) < 0)
            refused(listener, "%s", numio_strerror_detail()); /* it serves as well without */
        if (rc == 0 && i == 0)
            rc = learn_port(listener, &address);
    }
    if (rc == 0 && opts->group == NUMIO_LISTEN_ONE && opts->node == NUMIO_NODE_ANY) {
        int home = numio_home_of_fd(listener->handle, listener->members[0].fd);
        listener->members[0].node = home >= 0 ? home : NUMIO_NODE_ANY; /* then anywhere */
    }
    return rc;
}

/* Each CPU of a node goes to the node's member, or in turns to those of its workers; a worker's own
 * CPU to its own. */
static void steer(struct numio_listener *listener, enum numio_listen_group group)
{
    const struct numio_handle *handle = listener->handle;
    size_t count = handle->worker_count, used = 0;
    for (unsigned i = 0; i < handle->node_count; i++)
        count += handle->nodes[i]->plan->bind_cpu_count;
    struct nio_steer *map = nio_zalloc(count * sizeof *map); /* too large for a coroutine's stack */
    for (unsigned i = 0; map && i < handle->worker_count && group == NUMIO_LISTEN_PER_WORKER; i++)
        if (handle->workers[i]->plan->bind_cpu >= 0)
            map[used++] = (struct nio_steer){ handle->workers[i]->plan->bind_cpu, i };
    for (unsigned i = 0; map && i < handle->node_count; i++) {
        const struct nio_plan_node *node = handle->nodes[i]->plan;
        for (unsigned k = 0; k < node->bind_cpu_count; k++) {
            unsigned member =
                group == NUMIO_LISTEN_PER_NODE ? i : node->worker_first + k % node->worker_count;
            map[used++] = (struct nio_steer){ node->bind_cpus[k], member };
        }
    }
    int rc = map ? nio_steer_by_cpu(listener->members[0].fd, map, used) : -ENOMEM;
    nio_free(map);
    if (rc < 0)
        refused(listener,
                "the kernel spreads connections by its hash: SO_ATTACH_REUSEPORT_CBPF: %s",
                strerror(-rc));
}

void numio_listen_opts_init(struct numio_listen_opts *opts, size_t size)
{
    memset(opts, 0, size);
    opts->size = size;
    opts->node = NUMIO_NODE_ANY;
}

static int check_opts(const struct numio_handle *handle, const struct numio_listen_opts *opts)
{
    int rc = nio_versioned_check("listen options", opts, opts->size, sizeof *opts);
    if (rc < 0)
        return rc;
    if ((unsigned)opts->group > NUMIO_LISTEN_PER_WORKER)
        return nio_error(-EINVAL, "listen options: group: %d is no enum numio_listen_group",
                         (int)opts->group);
    if (opts->backlog < 0)
        return nio_error(-EINVAL, "listen options: backlog: %d is negative", opts->backlog);
    if (opts->node < NUMIO_NODE_ANY || opts->node >= (int)handle->node_count)
        return nio_error(-EINVAL, "listen options: node is %d, the runtime has nodes 0 to %u",
                         opts->node, handle->node_count - 1);
    if (opts->node != NUMIO_NODE_ANY && opts->group != NUMIO_LISTEN_ONE)
        return nio_error(-EINVAL, "listen options: node is for a single socket, not for a group");
    return 0;
}

static void close_sockets(struct numio_listener *listener)
{
    for (unsigned i = 0; i < listener->count; i++)
        if (listener->members[i].fd >= 0)
            (void)close(listener->members[i].fd); /* nothing is buffered in a listener */
}

int numio_listener_open(struct numio_handle *handle, const struct numio_listen_opts *opts,
                        struct numio_listener **ret_listener)
{
    handle = nio_handle_resolve(handle);
    if (!handle)
        return nio_error(-EINVAL, "listen: no handle is given and none is current");
    int rc = check_opts(handle, opts);
    if (rc < 0)
        return rc;
    unsigned count = 1;
    if (opts->group != NUMIO_LISTEN_ONE)
        count = opts->group == NUMIO_LISTEN_PER_NODE ? handle->node_count : handle->worker_count;
    struct numio_listener *listener = nio_zalloc(sizeof *listener + count * sizeof(struct member));
    struct running *running = listener ? nio_zalloc(sizeof *running) : NULL;
    if (!running) {
        nio_free(listener);
        return nio_error(-ENOMEM, "listen: no memory for %u sockets", count);
    }
    atomic_init(&running->count, 1);
    listener->running = running;
    listener->handle = handle;
    listener->count = count;
    nio_lock_init(&listener->lock, NIO_RANK_LEAF);
    rc = open_members(listener, opts);
    if (rc < 0) {
        close_sockets(listener);
        leave(running);
        nio_free(listener);
        return rc;
    }
    if (opts->group != NUMIO_LISTEN_ONE)
        steer(listener, opts->group);
    nio_handle_ref(handle, 1);
    *ret_listener = listener;
    return 0;
}

/* --- connections ----------------------------------------------------------------------------- */

static bool is_closing(const struct numio_listener *listener)
{
    /* relaxed: a hint; the shutdown of the sockets ends what waits */
    return atomic_load_explicit(&listener->is_closing, memory_order_relaxed);
}

static struct connection *note_connection(struct numio_listener *listener, int fd)
{
    struct connection *connection = nio_zalloc(sizeof *connection);
    if (!connection)
        return NULL;
    connection->listener = listener;
    connection->fd = fd;
    nio_lock_acquire(&listener->lock);
    connection->next = listener->pending;
    connection->link = &listener->pending;
    if (connection->next)
        connection->next->link = &connection->next;
    listener->pending = connection;
    nio_lock_release(&listener->lock);
    return connection;
}

static void forget_connection(struct connection *connection)
{
    struct numio_listener *listener = connection->listener;
    nio_lock_acquire(&listener->lock);
    *connection->link = connection->next;
    if (connection->next)
        connection->next->link = connection->link;
    nio_lock_release(&listener->lock);
    nio_free(connection);
}

static int64_t run_connection(void *arg)
{
    struct connection *connection = arg;
    struct numio_listener *listener = connection->listener;
    struct running *running = listener->running;
    numio_listener_fn *fn = listener->fn;
    void *handler_arg = listener->arg;
    int fd = connection->fd;
    /* relaxed: the lock of forget_connection() orders it before the connection is gone from there
     */
    (void)atomic_fetch_add_explicit(&running->count, 1, memory_order_relaxed);
    forget_connection(connection); /* the listener may go from here on */
    int64_t result = fn(fd, handler_arg);
    leave(running);
    return result;
}

/* Starts the handler; tries again while there is no memory.  Whether to go on accepting. */
static bool start_connection(struct member *member, int fd)
{
    struct connection *connection = NULL;
    int rc = -ENOMEM;
    while (rc == -ENOMEM) {
        if (!connection)
            connection = note_connection(member->listener, fd);
        if (connection)
            rc = numio_spawn_co(NULL, run_connection, connection, NULL, NULL);
        if (rc == -ENOMEM && numio_sleep_ns(retry_ns) < 0)
            break; /* aborted: the runtime ends */
    }
    if (rc == 0)
        return true;
    if (connection)
        forget_connection(connection);
    (void)close(fd); /* its peer is told by a reset */
    return false;
}

static int64_t accept_all(void *arg)
{
    struct member *member = arg;
    for (;;) { /* until the listener closes or the runtime ends */
        int64_t fd = numio_accept(member->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            if (!start_connection(member, (int)fd))
                return -ESHUTDOWN;
            continue;
        }
        if (fd == -ECANCELED || is_closing(member->listener))
            return 0;
        if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM)
            fd = numio_sleep_ns(retry_ns);
        else if (fd == -EINVAL || fd == -EBADF || fd == -ENOTSOCK)
            return fd; /* somebody took the socket away */
        /* anything else was one connection's own misfortune: accept(2) */
        if (fd == -ECANCELED)
            return 0;
    }
}

int numio_listener_serve(struct numio_listener *listener, numio_listener_fn *fn, void *arg)
{
    if (listener->is_serving)
        return nio_error(-EALREADY, "listen: the listener is being served already");
    listener->fn = fn;
    listener->arg = arg;
    for (unsigned i = 0; i < listener->count; i++) {
        struct member *member = &listener->members[i];
        struct numio_spawn_opts opts;
        numio_spawn_opts_init(&opts, sizeof opts);
        opts.name = "acceptor";
        opts.node = member->node;
        if (member->worker >= 0) {
            opts.affinity = NUMIO_AFFINITY_WORKER;
            opts.worker = member->worker;
        } else if (member->node != NUMIO_NODE_ANY) {
            opts.affinity = NUMIO_AFFINITY_NODE;
        }
        int rc = numio_spawn_co(listener->handle, accept_all, member, &opts, &member->acceptor);
        if (rc < 0 && i == 0)
            return rc;
        if (rc < 0) { /* those that run serve on; what this one gets waits for the close */
            refused(listener, "%u of %u members are not served: %s", listener->count - i,
                    listener->count, strerror(-rc));
            listener->is_serving = true;
            return rc;
        }
    }
    listener->is_serving = true;
    return 0;
}

/* --- the rest -------------------------------------------------------------------------------- */

unsigned numio_listener_count(const struct numio_listener *listener)
{
    return listener->count;
}

int numio_listener_fd(const struct numio_listener *listener, unsigned index)
{
    return index < listener->count ? listener->members[index].fd
                                   : nio_error(-EINVAL, "listen: there is no socket %u", index);
}

int numio_listener_node(const struct numio_listener *listener, unsigned index)
{
    return index < listener->count ? listener->members[index].node
                                   : nio_error(-EINVAL, "listen: there is no socket %u", index);
}

unsigned numio_listener_port(const struct numio_listener *listener)
{
    return listener->port;
}

const char *numio_listener_reason(const struct numio_listener *listener)
{
    return listener->reason[0] ? listener->reason : NULL;
}

static bool has_pending(struct numio_listener *listener)
{
    nio_lock_acquire(&listener->lock);
    bool has = listener->pending != NULL;
    nio_lock_release(&listener->lock);
    return has;
}

static void stop_accepting(struct numio_listener *listener)
{
    /* relaxed: the shutdowns below are seen with it or after it, and end what waits */
    atomic_store_explicit(&listener->is_closing, true, memory_order_relaxed);
    for (unsigned i = 0; i < listener->count; i++)
        (void)shutdown(listener->members[i].fd, SHUT_RDWR); /* ends the accepts */
}

static bool is_quiet(struct numio_listener *listener)
{
    /* [LR2] acquire: after the look at `pending`; pairs with [LR1] */
    return !has_pending(listener) &&
           atomic_load_explicit(&listener->running->count, memory_order_acquire) == 1;
}

int64_t numio_listener_drain(struct numio_listener *listener)
{
    int64_t rc = 0;
    if (!nio_co_current())
        return nio_error(-EINVAL, "listen: drain: not called from a coroutine");
    stop_accepting(listener);
    for (unsigned i = 0; i < listener->count && rc == 0; i++)
        if (listener->members[i].acceptor) {
            (void)numio_join_await(&listener->members[i].acceptor); /* how it ended is no news */
            rc = listener->members[i].acceptor ? nio_co_stop(nio_co_current()) : 0;
        }
    while (rc == 0 && !is_quiet(listener))
        rc = numio_sleep_ns(DRAIN_POLL_NS);
    return rc;
}

static int64_t close_listener(void *arg)
{
    struct numio_listener *listener = arg;
    stop_accepting(listener);
    for (unsigned i = 0; i < listener->count; i++)
        if (listener->members[i].acceptor)
            (void)numio_join_await(&listener->members[i].acceptor); /* how it ended is no news */
    /* Those that have not begun do so soon, or never, once the runtime has ended. */
    while (has_pending(listener) && nio_phase(listener->handle) != NIO_PHASE_ENDED)
        (void)usleep(DRAIN_POLL_NS / 1000); /* shorter is as good */
    while (listener->pending) {
        (void)close(listener->pending->fd); /* as above */
        forget_connection(listener->pending);
    }
    close_sockets(listener);
    struct numio_handle *handle = listener->handle;
    leave(listener->running);
    nio_free(listener);
    nio_handle_unref(handle, 1);
    return 0;
}

int numio_listener_close(struct numio_listener *listener)
{
    if (!listener)
        return 0;
    /* It waits for tasks, so not on a worker's thread. */
    return (int)(nio_worker_current() ? numio_block_in_place(close_listener, listener)
                                      : close_listener(listener));
}
