/* SPDX-License-Identifier: MIT */
/* xdp/endpoint.h: one queue's socket, its rings and its frames.
 *
 * Everything in it is its worker's: no locks, no atomics but those on the rings.
 *
 * A frame is in exactly one of four places (enum nio_frame_state), of which the kernel has two;
 * each has a count, and their sum is the number of frames, always.  All rings have room for all
 * frames, so that none is ever full; what can run dry is the free list.  Whatever comes free goes
 * to the fill ring first, until half of the frames are there: so a program that holds frames back
 * slows its sending down before its receiving stops.
 *
 *        alloc                 send                  completion ring
 *   FREE ------> OUT ---------------------> SENDING ------------------> FREE
 *    |            ^ recv                                   release: OUT -> FREE
 *    +-- fill --> FILLING (fill ring, kernel, receive ring)
 *
 * A closed endpoint keeps its memory until the last frame is released and the last call has left.
 */
#ifndef NIO_XDP_ENDPOINT_H
#define NIO_XDP_ENDPOINT_H

#include "runtime/sched/source.h"
#include "runtime/xdp/device.h"

enum nio_frame_state { NIO_FRAME_FREE = 0, NIO_FRAME_FILLING, NIO_FRAME_OUT, NIO_FRAME_SENDING };

/* Where the payload of a frame begins that nobody has received into: behind what the kernel keeps
 * for itself and the largest headers, on a cache line. */
enum { NIO_FRAME_PAYLOAD = 320 };

/* A coroutine that waits on an endpoint. */
struct nio_xdp_waiter {
    struct nio_source source; /* first */
    bool wants_frame;         /* else datagrams, or room to send */
    struct nio_xdp_waiter *next, **link;
};

struct numio_xdp {
    /* constant once open */
    struct numio_xdp_device *device;
    struct nio_worker *worker;
    struct numio_handle *handle;
    struct nio_node_arena *arena;
    unsigned queue;
    bool is_bypass;
    int fd; /* of AF_XDP, or of UDP */
    uint8_t *memory;
    size_t memory_bytes;
    uint32_t frames, frame_bytes, payload_max;
    struct nio_packet_local local;
    char reason[NIO_XDP_REASON_BYTES];
    /* the worker only */
    struct xsk_umem *umem;
    struct xsk_socket *socket;
    struct xsk_ring_cons rx, completion;
    struct xsk_ring_prod tx, fill;
    uint8_t *states; /* enum nio_frame_state of each frame */
    uint32_t *free;  /* a stack of frames */
    uint32_t counts[NIO_FRAME_SENDING + 1];
    struct nio_xdp_waiter *waiters;
    uint32_t calls; /* that are inside */
    bool is_closed, is_kick_due;
    struct numio_xdp_stats stats;
};

/* The running coroutine's way into a call, and out.  Errors: -EINVAL, -EXDEV, -ESHUTDOWN. */
NIO_NODISCARD int nio_xdp_enter(struct numio_xdp *xdp, const char *call);
/* The last to leave a closed endpoint frees it. */
void nio_xdp_leave(struct numio_xdp *xdp);

/* Frames between the four places. */
uint32_t nio_xdp_pop_free(struct numio_xdp *xdp);
void nio_xdp_push_free(struct numio_xdp *xdp, uint32_t index);
void nio_xdp_move(struct numio_xdp *xdp, uint32_t index, enum nio_frame_state from,
                  enum nio_frame_state to);
/* Takes back what was sent; hands the kernel frames to receive into; wakes who waits for one. */
void nio_xdp_reap(struct numio_xdp *xdp);
void nio_xdp_refill(struct numio_xdp *xdp);
/* Has the kernel look at the rings.  -EAGAIN: it takes no more for now; other errors: the device's.
 */
int nio_xdp_kick(struct numio_xdp *xdp);

/* Waits with `waiter`, whose source is prepared.  Returns 0: look again; or why not to. */
NIO_NODISCARD int nio_xdp_wait(struct numio_xdp *xdp, struct nio_xdp_waiter *waiter);

/* A frame's place. */
static inline uint8_t *nio_xdp_base(const struct numio_xdp *xdp, uint32_t index)
{
    return xdp->memory + (size_t)index * xdp->frame_bytes;
}

/* Most that fits behind `bytes`, which lie in the frame. */
static inline uint32_t nio_xdp_room(const struct numio_xdp *xdp, uint32_t index, const void *bytes)
{
    const uint8_t *end = nio_xdp_base(xdp, index) + xdp->frame_bytes;
    uint32_t room = (uint32_t)(end - (const uint8_t *)bytes);
    return room < xdp->payload_max ? room : xdp->payload_max;
}

/* xdp/plain.c: the same by an ordinary socket. */
int64_t nio_plain_recv(struct numio_xdp *xdp, struct numio_xdp_frame *ret_frames, unsigned max);
/* 0: sent; -EAGAIN: not now; other errors of sendmsg. */
NIO_NODISCARD int nio_plain_send(struct numio_xdp *xdp, const struct numio_xdp_frame *frame);

#endif
