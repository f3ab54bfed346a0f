/* SPDX-License-Identifier: MIT */
/* sched/ranked.h: scheduling classes: tasks that go before the normal ones, and tasks that fill
 * what they leave.
 *
 * Normal tasks go the ways of schedule.c and pay nothing for the others: a task's class stands
 * beside its affinity, in one byte that is 0 for a normal task of affinity "any", which those ways
 * ask for anyway.  Tasks of the classes latency and background, the ranked ones, wait in queues of
 * their own: those pinned to a worker in its private ones, all others in their node's, first come
 * first served. They use neither LIFO slot nor local queues.
 *
 * From the first ranked task on (`has_ranked` of the handle) every tick of a worker begins with a
 * choice.  Each class has a credit in time, of which each of its polls takes what it has cost.  Of
 * the classes that have work and credit the first of latency, normal, background goes.  When none
 * has, a round begins: each gets its share added, up to its share.  So a class that wants less than
 * its share is served at once by its rank; one that wants more gets the share, whatever the others
 * want; and what nobody wants goes to who does.
 *
 * The bound: within a round another class gets at most its share and the rest of one poll.  A class
 * with work, and no debt of a longer poll of its own, is served after that.
 *
 * A worker that finds nothing normal at home looks for some at its siblings, now and then, before
 * it goes on with background tasks.
 */
#ifndef NIO_SCHED_RANKED_H
#define NIO_SCHED_RANKED_H

#include "runtime/sched/worker.h"

/* Owner: the next task by class; NULL if there is none at home. */
struct nio_task *nio_next_ranked(struct nio_worker *worker);
/* Owner: a task is about to be polled, by the loop. */
void nio_note_class(struct nio_worker *worker, const struct nio_task *task);
/* Owner: a ranked task of any class, of its own or its node's; NULL if there is none. */
struct nio_task *nio_take_ranked(struct nio_worker *worker);
/* Owner: the same, but only what no other may run. */
struct nio_task *nio_take_ranked_own(struct nio_worker *worker);
/* Any worker: one of another node that may leave it; NULL if there is none. */
struct nio_task *nio_take_ranked_far(struct nio_worker *worker, struct nio_node *node);
/* How many of those there are. */
uint32_t nio_ranked_far_depth(const struct nio_node *node);
/* Owner, after announcing a sleep: whether a ranked task waits for it or its node. */
bool nio_sees_ranked(const struct nio_worker *worker);

/* Any thread: queues a chain of `count` ranked tasks of one class, affinity and home. */
void nio_push_ranked(struct numio_handle *handle, struct nio_mpsc_node *first,
                     struct nio_mpsc_node *last, uint32_t count, struct nio_worker *by);
/* Owner: the same for one that only this worker runs. */
void nio_push_ranked_own(struct nio_worker *worker, struct nio_task *task);
/* Owner: takes ranked tasks that the mailbox has brought out of the private queue. */
void nio_sort_mail(struct nio_worker *worker);

#endif
