/* SPDX-License-Identifier: MIT */
/* sched/stuck.h: who notices that a worker is stuck in a long poll, with work that others could do.
 *
 * At home.  A worker keeps some of its work to itself: its LIFO slot and its ring.  While a node
 * has busy workers one of its sleepers, its watcher, wakes every NIO_WATCH_NS and looks around.
 *
 * Afar.  A few waiting tasks are left to their node (policy.h).  But if all of its workers are in
 * long polls nobody there comes for them, and the workers of other nodes may be asleep.  So while
 * some node has nobody asleep, one sleeper of another node, the runtime's far watcher, wakes every
 * NIO_WATCH_NS and notes how far one worker there that has tasks waiting has got.  If at a later
 * look, NIO_FAR_STUCK_NS after, it has neither polled nor spawned, what waits there may be taken,
 * however little it is.
 *
 * The election of a far watcher, which loses none:
 *   sleeper   announces its sleep (seq_cst RMW on its node's idle state), then loads the states of
 *             the other nodes: if one has nobody asleep, it sets the flag and sleeps so long only
 *   pusher    belongs to a node whose last sleeper has left (seq_cst RMW), pushes, and loads the
 *             flag: if nobody watches, it wakes a sleeper of another node, which finds nothing to
 *             take yet, and goes back to sleep as above
 *   watcher   clears the flag when it wakes, before it announces its next sleep
 *   ... who finds work of its own then, and goes to it, wakes another sleeper in its place
 * So the pusher sees a sleeper or the flag, or the sleeper sees the full node.  A node asks once
 * until a sleeper of it has left again, since there may be nobody to wake, and for those who were
 * called and found other work, each of its workers once in NIO_FAR_ASK_POLLS polls.
 */
#ifndef NIO_SCHED_STUCK_H
#define NIO_SCHED_STUCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct nio_node;
struct nio_task;
struct nio_worker;

enum {
    NIO_WATCH_NS = 1000000,    /* how long the work of a stuck worker can wait */
    NIO_STUCK_NS = 50000,      /* a poll this long counts as stuck for a sibling, */
    NIO_FAR_STUCK_NS = 500000, /* and this long for other nodes; below NIO_WATCH_NS, for a sleeper
                                  may be back a little early */
    NIO_FAR_ASK_POLLS = 64
};

/* One worker at a time is suspected of being stuck. */
struct nio_watch {
    unsigned suspect; /* its index in the node, or in the runtime; UINT32_MAX: nobody yet */
    uint64_t mark;    /* what would have changed if it had got on */
    uint64_t since_ns;
};

enum { NIO_WATCH_HOME = 1, NIO_WATCH_FAR = 2 };

/* Owner, after announcing its sleep: elects it, if it is to be a watcher.  Returns what it watches,
 * to be given back to nio_watch_end() when it wakes; 0: it may sleep until it is woken. */
unsigned nio_watch_begin(struct nio_worker *worker);
void nio_watch_end(struct nio_worker *worker, unsigned duties);
/* Owner, who was the far watcher and has found work, or rests: has another sleeper take its place,
 * if there is still something to watch. */
void nio_watch_hand_on(struct nio_worker *worker);

/* Any thread, after a push of a few tasks to a node with nobody asleep: whether somebody of another
 * node is to be woken as the watcher.  `by`: the calling worker, NULL on other threads. */
bool nio_watch_is_wanted(struct nio_node *node, struct nio_worker *by);
/* Owner, which has left its sleep: its node may be full now. */
void nio_watch_ask_anew(struct nio_node *node);

/* Owner: the task in the LIFO slot of a sibling that has been in one poll for NIO_STUCK_NS. */
struct nio_task *nio_take_stuck_lifo(struct nio_worker *worker, uint64_t now_ns);
/* Owner: whether a sibling with tasks in its queues has been in one poll for NIO_STUCK_NS. */
bool nio_sibling_is_stuck(struct nio_worker *worker, uint64_t now_ns);
/* Owner: a worker of another node that has been in one poll for NIO_FAR_STUCK_NS while tasks waited
 * behind it or in its node's queues; NULL if none is known. */
struct nio_worker *nio_find_stuck_afar(struct nio_worker *worker, uint64_t now_ns);

#endif
