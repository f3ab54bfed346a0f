/* SPDX-License-Identifier: MIT */
/* numio/xdp.h: UDP past the kernel's network stack, by AF_XDP.
 *
 * A device is a UDP address on an interface.  A small program in the interface's driver (or, in
 * generic mode, right behind it) takes the datagrams for that address and leaves everything else to
 * the kernel's stack.  An endpoint is one receive queue of the device: it has memory on the node of
 * the worker that opened it (the UMEM), cut into frames, which the kernel and the program hand to
 * each other through rings.  A datagram is received into a frame and sent from one; a frame that
 * was received can be sent back.
 *
 *     numio_xdp_attach(&opts, &device);            // "eth0", "192.0.2.1:7000"
 *     ...                                          // in a coroutine pinned to a worker:
 *     numio_xdp_open(device, 0, &xdp);
 *     while ((n = numio_xdp_recv(xdp, frames, 32)) > 0)
 *         numio_xdp_send(xdp, frames, (unsigned)n);   // each goes to its frame's peer
 *
 * Waiting: while its worker spins (numio_config.idle), a coroutine in numio_xdp_recv() costs no
 * system call, since the worker reads the ring's index; when the worker sleeps, a poll wakes it.
 *
 * Where AF_XDP cannot be had, the same calls work with an ordinary UDP socket, which copies;
 * numio_xdp_reason() says why, and `is_required` makes it an error instead.  Needed are
 * CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF, the shared libraries libxdp and libbpf, and an interface
 * without another XDP program.
 *
 * Not seen by an endpoint: datagrams in fragments, with IP options, extension headers or VLAN tags,
 * and those of queues that have no endpoint.  A socket of the kernel holds the port, so that nobody
 * else binds it, and drops them.  TTL and hop limit of what is sent are 64, fragments are not made.
 *
 * The calls of an endpoint belong to the worker that opened it: its coroutines that are spawned
 * with NUMIO_AFFINITY_WORKER, any number of them.  Elsewhere they fail with -EXDEV, outside of
 * coroutines with -EINVAL.  A deadline ends a wait with -ETIMEDOUT, an abort with -ECANCELED, and
 * no frame is lost by either.
 */
#ifndef NUMIO_XDP_H
#define NUMIO_XDP_H

#include <numio/address.h>

NUMIO_BEGIN_DECLS

struct numio_xdp_device;
struct numio_xdp;

enum numio_xdp_mode {
    NUMIO_XDP_AUTO = 0, /* driver, else generic, else a socket */
    NUMIO_XDP_DRIVER,   /* in the driver ("native"); else a socket */
    NUMIO_XDP_GENERIC,  /* behind the driver, works with every one ("SKB"); else a socket */
    NUMIO_XDP_SOCKET    /* an ordinary socket */
};

struct numio_xdp_opts {
    size_t size;           /* sizeof(struct numio_xdp_opts), set by numio_xdp_opts_init() */
    const char *interface; /* "eth0" */
    const char *address;   /* "192.0.2.1:7000", "[2001:db8::1]:7000": one that the interface has;
                              port 0: a free one */
    enum numio_xdp_mode mode;
    bool is_required;        /* an error instead of a socket, at the attaching and the opening */
    bool verifies_checksums; /* drops received datagrams with a wrong UDP checksum.  Not for what
                                comes from this machine (veth), whose checksums are left to the
                                hardware */
    unsigned frames;         /* of each endpoint: a power of two, 64 to 65,536; 0: 2,048 */
    unsigned frame_bytes;    /* 2,048 or 4,096; 0: the smaller one that takes the MTU */
};

NUMIO_EXPORT void numio_xdp_opts_init(struct numio_xdp_opts *opts, size_t size);

/* Attaches to an interface of the calling thread's network namespace, which the workers must be in
 * as well.
 * Context: any thread; some system calls.
 * Owns:    *ret_device is the caller's, ended by numio_xdp_detach(); `opts` is not needed any more.
 * Errors:  -EINVAL, -E2BIG an option (the detail names it); -ENODEV no such interface;
 *          -EADDRNOTAVAIL, -EADDRINUSE of the address; -ENOMEM; with `is_required` what the kernel
 *          said: -EPERM, -EBUSY (another program is attached), -EOPNOTSUPP; -ENOSYS a library is
 *          missing. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_xdp_attach(const struct numio_xdp_opts *opts,
                                                  struct numio_xdp_device **ret_device);
/* Takes the program off the interface.   Context: any thread.   NULL does nothing.
 * Errors:  -EBUSY it has open endpoints. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_xdp_detach(struct numio_xdp_device *device);

/* The mode that it got, never AUTO; why it is less than was asked for (NULL: it is not); the port;
 * how many receive queues the interface has.   Context: any thread. */
NUMIO_EXPORT enum numio_xdp_mode numio_xdp_device_mode(const struct numio_xdp_device *device);
NUMIO_EXPORT const char *numio_xdp_device_reason(const struct numio_xdp_device *device);
NUMIO_EXPORT unsigned numio_xdp_device_port(const struct numio_xdp_device *device);
NUMIO_EXPORT unsigned numio_xdp_device_queues(const struct numio_xdp_device *device);

/* Opens queue `queue` for the worker that the coroutine is pinned to.
 * Context: a coroutine with NUMIO_AFFINITY_WORKER; some system calls.  Suspends, for 200 ms at
 * most, while the kernel has not yet freed a queue that was closed just before. Owns:    *ret_xdp
 * is the caller's, ended by numio_xdp_close(), before `device` is detached and the runtime
 * destroyed. Errors:  -EXDEV not pinned; -EINVAL no coroutine, or no such queue; -EBUSY the queue
 * is open; -ENOMEM; with `is_required` those of socket, setsockopt and bind for AF_XDP. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_xdp_open(struct numio_xdp_device *device, unsigned queue,
                                                struct numio_xdp **ret_xdp);

/* Ends the socket.  Whoever waits on the endpoint gets -ESHUTDOWN.  Frames that the program still
 * has stay readable until they are released, and the memory stays with them.
 * Context: a coroutine of the worker, aborted or not; or any thread once the runtime is shut down
 *          and not yet destroyed.  Never suspends.
 * Returns: how many frames are still out; to each applies numio_xdp_release(), as before.
 * Errors:  -EXDEV elsewhere; -ESHUTDOWN it is closed already. */
NUMIO_EXPORT int numio_xdp_close(struct numio_xdp *xdp);

/* Why the endpoint uses a socket, or less than was asked for; NULL: it does not. */
NUMIO_EXPORT const char *numio_xdp_reason(const struct numio_xdp *xdp);
/* Whether frames really go past the kernel's stack. */
NUMIO_EXPORT bool numio_xdp_is_bypass(const struct numio_xdp *xdp);

/* Where a datagram comes from or goes to. */
struct numio_xdp_peer {
    uint8_t family; /* AF_INET or AF_INET6 */
    bool has_mac;   /* of a received frame: yes */
    uint8_t mac[6]; /* of the neighbour: the peer itself or the router before it */
    uint16_t port;  /* in the machine's byte order */
    uint16_t _unused;
    uint8_t address[16]; /* 4 or 16 bytes, in the network's order */
};

/* A datagram in a frame.  Between receiving or allocating it and releasing or sending it the memory
 * is the program's; it may move the struct about. */
struct numio_xdp_frame {
    void *bytes;                /* the payload; NULL once the frame was released or sent */
    uint32_t len;               /* of the payload */
    uint32_t capacity;          /* most that `len` may be for a send */
    struct numio_xdp_peer peer; /* from, or to */
    uint32_t _index;
};

/* Receives up to `max` datagrams, at least one.
 * Context: a coroutine of the worker, suspends while there is none.
 * Owns:    the frames are the caller's, to release or send.  A program that keeps them all receives
 *          nothing more: the kernel drops and counts (rx_no_frame).
 * Returns: how many.   Errors: -ESHUTDOWN closed; -ECANCELED; -ETIMEDOUT; those of recvmsg. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_xdp_recv(struct numio_xdp *xdp,
                                                    struct numio_xdp_frame *ret_frames,
                                                    unsigned max);

/* A frame to write into and send.
 * Context: a coroutine of the worker, suspends until one is free.  At least half of the frames are
 *          for receiving, unless they are all out.
 * Owns:    the frame is the caller's; its `peer` is empty, `len` 0.
 * Errors:  -ESHUTDOWN; -ECANCELED; -ETIMEDOUT. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_xdp_alloc(struct numio_xdp *xdp,
                                                 struct numio_xdp_frame *ret_frame);

/* Sends `count` frames, each to its `peer`, from where they are.
 * Context: a coroutine of the worker, suspends while the device takes no more.
 * Owns:    a frame that was sent is the endpoint's, and its `bytes` are NULL; one that was not
 * stays the caller's, whatever the call returned. Returns: how many were sent, those before the
 * first that cannot be; if that is the first one, an error.  Sent means handed to the device: UDP
 * promises no more. Errors:  -EINVAL a frame that is not out, or a peer of another family;
 * -EMSGSIZE `len` is over `capacity`; -EDESTADDRREQ the peer has no MAC, see numio_xdp_resolve();
 * -ENETDOWN and others of the device; -ESHUTDOWN; -ECANCELED; -ETIMEDOUT. */
NUMIO_EXPORT NUMIO_NODISCARD int64_t numio_xdp_send(struct numio_xdp *xdp,
                                                    struct numio_xdp_frame *frames, unsigned count);

/* Gives a frame back unsent.
 * Context: a coroutine of the worker; never suspends.  After the close of the endpoint also any
 *          thread, as numio_xdp_close().
 * Errors:  -EINVAL it is not out (released twice); -EXDEV another worker. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_xdp_release(struct numio_xdp *xdp,
                                                   struct numio_xdp_frame *frame);

/* Finds the neighbour through which `address` is reached in the kernel's routing and neighbour
 * tables, and asks the kernel to look for one that it does not know.  A socket needs no neighbour.
 * Context: a coroutine of the worker, suspends while the kernel looks, for some seconds at most.
 * Errors:  -EINVAL the address is of another family; -EHOSTUNREACH no route on this interface, or
 *          nobody answers; -ECANCELED; -ETIMEDOUT; -ESHUTDOWN; those of netlink. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_xdp_resolve(struct numio_xdp *xdp,
                                                   const struct numio_address *address,
                                                   struct numio_xdp_peer *ret_peer);
/* The peer's address for printing and for other sockets.   Context: any. */
NUMIO_EXPORT void numio_xdp_peer_address(const struct numio_xdp_peer *peer,
                                         struct numio_address *ret_address);

struct numio_xdp_stats {
    size_t size; /* set by the caller: sizeof(struct numio_xdp_stats) */
    uint64_t received, sent;
    uint64_t malformed; /* dropped by the endpoint: not what the headers say, wrong checksums */
    uint64_t kicks;     /* system calls that were made to send, or to have frames filled */
    /* the kernel's, all 0 for a socket */
    uint64_t rx_dropped;  /* did not fit into a frame, or for other reasons */
    uint64_t rx_no_frame; /* times that the kernel had no frame to receive into */
    uint64_t rx_ring_full, rx_invalid, tx_invalid;
    /* Frames: free, given to the kernel to receive into, with the program, being sent.  The sum is
     * always `frames`. */
    uint32_t frames, frames_free, frames_filling, frames_out, frames_sending;
};

/* Context: a coroutine of the worker, not after the close.   Errors: -EINVAL, -E2BIG the size;
 *          -ESHUTDOWN; -EXDEV. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_xdp_stats(struct numio_xdp *xdp,
                                                 struct numio_xdp_stats *ret_stats);

NUMIO_END_DECLS

#endif
