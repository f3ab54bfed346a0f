/* SPDX-License-Identifier: MIT */
/* numio/net.h: where a descriptor is at home, and listeners whose connections start at home.
 *
 * A disk or a network interface hangs on one NUMA node; work on it goes fastest there.
 * numio_home_of_fd() finds that node, and a task spawned with it as `node` starts there.
 *
 * A listener is one socket, or a group of sockets on one address (SO_REUSEPORT), one for each node
 * or worker.  In a group the kernel gives a connection to the member of the CPU on which its first
 * packet was handled; the member's acceptor runs on that node or worker, and so does the
 * connection's task when it starts.
 */
#ifndef NUMIO_NET_H
#define NUMIO_NET_H

#include <numio/busy_poll.h>
#include <numio/runtime.h>

NUMIO_BEGIN_DECLS

/* The runtime's node that is nearest to what a descriptor stands for:
 *   a file, a folder, a block device   the disk below it, through partitions, dm, md and loop
 *   a character device                 itself: of NVMe /dev/ng0n1 and /dev/nvme0
 *   a socket bound to an interface or to the address of one (a listener, UDP)   that interface
 *   a connected socket of no such interface   the CPU on which its last packet was handled
 * Of a machine with one node that node, whatever the descriptor.
 * Context: any thread; reads sysfs and may block on it; not for every request.
 * Errors:  -EBADF; -ENODATA it has no home: pipes, eventfds, wildcard addresses, file systems
 * without a disk, machines that do not tell; the detail says which; -EINVAL no handle and none
 * current. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_home_of_fd(struct numio_handle *handle, int fd);

enum numio_listen_group {
    NUMIO_LISTEN_ONE = 0,   /* one socket, accepted on its home, or on `node` */
    NUMIO_LISTEN_PER_NODE,  /* a socket for each node */
    NUMIO_LISTEN_PER_WORKER /* a socket for each worker, with SO_INCOMING_CPU set to its CPU */
};

struct numio_listen_opts {
    size_t size;         /* sizeof(struct numio_listen_opts), set by numio_listen_opts_init() */
    const char *address; /* "ADDRESS:PORT", as numio_tcp_listen() takes it; port 0: a free one */
    int backlog;         /* of each socket; 0: the system's most */
    enum numio_listen_group group;
    int node; /* NUMIO_LISTEN_ONE: accept there; NUMIO_NODE_ANY: at the socket's home, if it has one
               */
    struct numio_busy_poll busy_poll; /* of the sockets and of the connections they accept; what the
                                         kernel refuses tells numio_listener_reason() */
};

NUMIO_EXPORT void numio_listen_opts_init(struct numio_listen_opts *opts, size_t size);

struct numio_listener;

/* Opens the sockets.  Connections wait in them until numio_listener_serve().
 * Context: any thread.   Owns: *ret_listener is the caller's, ended by numio_listener_close().
 * Errors:  -EINVAL, -E2BIG the options (the detail names the field); -ENOMEM; those of socket, bind
 *          and listen, with the address in the detail. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_listener_open(struct numio_handle *handle,
                                                     const struct numio_listen_opts *opts,
                                                     struct numio_listener **ret_listener);

/* Handles one connection, in a coroutine of its own that begins on the node of the member that
 * accepted it, unless a worker of another node has nothing to do and steals it first.  It owns
 * `fd`.  Its result is not looked at. */
typedef int64_t numio_listener_fn(int fd, void *arg);

/* Starts to accept: a coroutine for each member.  When descriptors or memory run out, connections
 * wait in the kernel and it tries again every 10 ms. Context: any thread; once for a listener.
 * Owns:    `arg` must live until the last handler has returned.
 * Errors:  -EALREADY it has been called; -ENOMEM; -ESHUTDOWN. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_listener_serve(struct numio_listener *listener,
                                                      numio_listener_fn *fn, void *arg);

/* Sockets of the listener, the descriptor of one, and the node that it is accepted on; -EINVAL out
 * of range.  The port that the kernel chose. */
NUMIO_EXPORT unsigned numio_listener_count(const struct numio_listener *listener);
NUMIO_EXPORT NUMIO_NODISCARD int numio_listener_fd(const struct numio_listener *listener,
                                                   unsigned index);
NUMIO_EXPORT NUMIO_NODISCARD int numio_listener_node(const struct numio_listener *listener,
                                                     unsigned index);
NUMIO_EXPORT unsigned numio_listener_port(const struct numio_listener *listener);
/* What the kernel refused: connections go to the members of a group by its hash, or their sockets
 * do not name their CPU or do not busy-poll, or members are not served.  NULL: nothing. */
NUMIO_EXPORT const char *numio_listener_reason(const struct numio_listener *listener);

/* Stops accepting and waits until the handlers of all connections have returned.  Connections that
 * nobody has accepted are reset, as below.
 * Context: a coroutine, suspends; within a deadline for those who do not wait for ever.
 * Returns: 0.   Errors: -ETIMEDOUT, -ECANCELED: some handlers run still; it can be called again. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_listener_drain(struct numio_listener *listener);

/* Stops accepting, waits for the acceptors, closes the sockets and frees the listener.  Connections
 * that were accepted go on.  Those that the kernel has completed and nobody has accepted are reset,
 * unless net.ipv4.tcp_migrate_req moves them to another process's socket of the same address.
 * Context: a plain thread, which blocks, or a coroutine, which waits for a thread of the pool to do
 *          it; before or after the runtime's shutdown, but before its destruction.  NULL does
 *          nothing.
 * Errors:  -EDEADLK in a future's poll; in a coroutine also -ETIMEDOUT and the others of
 *          numio_block_in_place(), before anything was done. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_listener_close(struct numio_listener *listener);

NUMIO_END_DECLS

#endif
