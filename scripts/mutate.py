#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mutate.py [--list] [--check-fit] [--only RE] [--kind KIND] [--jobs N]: do the tests see what they
claim to see?

Each mutant weakens one memory order or leaves one step of a protocol out, in a copy of the sources
below build/mutants; the program named for it must then fail.  Stress programs of kind "tsan" run
under ThreadSanitizer, which knows the happens-before order and so sees weakened orders that x86
never acts upon; "native" ones run as they are and hang or miscount.  "hidden" mutants cannot be
seen on x86 by either: they are tried all the same, and reported as surviving.  The promises about
machines with several nodes (mutants_numa.py) are broken for programs that run in a guest, "guest",
for unit tests, "unit", and for the model's look at itself, "check".

Ends with 1 if a mutant survives that should not, or one no longer fits the sources.
"""
import argparse
import collections
import os
import re
import subprocess
import sys

import mutants_numa
import repo_files

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
OUT = os.path.join("build", "mutants")
TRIES = {"tsan": 3, "native": 3}  # runs, else one
PARTS = ("NUMIO_STRESS_TESTS", "NUMIO_UNIT_TESTS", "NUMIO_PROGRAMS")
# What is built for a kind: a preset, and one of PARTS.
BUILDS = {"tsan": ("tsan", PARTS[0]), "native": ("release", PARTS[0]),
          "unit": ("dev", PARTS[1]), "guest": ("release", PARTS[2])}
SHARED = {"hidden": "native", "check": "guest"}  # kinds that use another's build
GUEST_LIMIT_S = "60"
RUN_MS = "2500"
PATIENCE_S = "8"
RUN_LIMIT_S = 300

# From `after` on in `path`, the first `old` becomes `new`.
Mutant = collections.namedtuple("Mutant", "label path after old new program kind")

STATE_H = "runtime/task/state.h"
STATE_C = "runtime/task/state.c"
QUEUE_H = "runtime/sched/local_queue.h"
QUEUE_C = "runtime/sched/local_queue.c"
LOCK_H = "runtime/base/lock.h"
PARKER_C = "runtime/sched/parker.c"
DRIVER_C = "runtime/driver/driver.c"
URING_C = "runtime/driver/driver_uring.c"
WAIT_C = "runtime/task/wait.c"
MUTEX_C = "runtime/sync/mutex.c"
SEMAPHORE_C = "runtime/sync/semaphore.c"
RWLOCK_C = "runtime/sync/rwlock.c"
NOTIFY_C = "runtime/sync/notify.c"
EVENT_C = "runtime/sync/event.c"
ONCE_C = "runtime/sync/once.c"
CHANNEL_H = "runtime/sync/channel_ring.h"
CHANNEL_C = "runtime/sync/channel.c"
SPSC_C = "runtime/sync/spsc.c"
TIMELINE_C = "runtime/time/timeline.c"

ACQUIRE, RELEASE, ACQ_REL = "memory_order_acquire", "memory_order_release", "memory_order_acq_rel"
RELAXED, SEQ_CST = "memory_order_relaxed", "memory_order_seq_cst"

MUTANTS = [
    Mutant("TS1", STATE_C, "uint64_t wake(", ACQ_REL, ACQUIRE, "stress_state", "tsan"),
    Mutant("TS2", STATE_C, "nio_state_start_again(", ACQUIRE, RELAXED, "stress_state", "tsan"),
    Mutant("TS3", STATE_H, "bool nio_state_idle(", ACQ_REL, RELAXED, "stress_wake", "tsan"),
    Mutant("TS4", STATE_H, "bool nio_state_complete(", ACQ_REL, ACQUIRE, "stress_state", "tsan"),
    Mutant("TS4", STATE_C, "nio_state_complete_moved(", ACQ_REL, ACQUIRE, "stress_state", "tsan"),
    Mutant("TS5", STATE_H, "uint64_t nio_state_load(", ACQUIRE, RELAXED, "stress_state", "tsan"),
    Mutant("TS6", STATE_H, "bool nio_state_complete(", ACQUIRE, RELAXED, "stress_state", "hidden"),
    Mutant("TS7", STATE_C, "nio_state_set_join_waker(", RELEASE, RELAXED, "stress_state", "tsan"),
    Mutant("TS8", STATE_C, "bool nio_state_unref(", ACQ_REL, RELAXED, "stress_state", "tsan"),
    Mutant("WAKER_MOVED", STATE_C, "nio_state_unset_join_waker(",
           "(old & ~NIO_STATE_JOIN_WAKER) | NIO_STATE_WAKER_MOVED", "old & ~NIO_STATE_JOIN_WAKER",
           "stress_state", "native"),
    Mutant("TL changes", TIMELINE_C, "set_state(", "CHANGE + 1", "CHANGE + 0", "stress_timeline",
           "native"),
    Mutant("TL clock", "runtime/base/clock.h", "nio_clock_between_ns(void)",
           "nio_clock_wait();\n    uint64_t", "uint64_t", "stress_timeline", "native"),
    Mutant("far timers ahead", "runtime/time/wheel.c", "static void move_ahead(",
           "if (NIO_LIKELY(!wheel->may_be_ripe))", "if (wheel)", "test_wheel", "unit"),
    Mutant("... in their order", "runtime/time/wheel.c", "static struct numio_op *oldest(",
           "nio_timer_number(best)) < 0", "nio_timer_number(best)) > 0", "test_wheel", "unit"),
    Mutant("... over gaps", "runtime/time/wheel.c", "static struct numio_op *oldest_from(",
           "op && nio_timer_number(op) == number", "op", "test_wheel", "unit"),
    Mutant("... of a new life", "runtime/time/wheel.c", "static unsigned move_some(",
           "uint32_t next = 0;\n    for (; moved < max && list->tally != 0; moved++) {\n"
           "        struct numio_op *op = moved > 0 ?",
           "static uint32_t next;\n    for (; moved < max && list->tally != 0; moved++) {\n"
           "        struct numio_op *op = wheel ?", "test_wheel", "unit"),
    Mutant("... and around", "runtime/time/wheel.c", "static struct numio_op *oldest(",
           "(int32_t)(nio_timer_number(op) - nio_timer_number(best)) < 0",
           "nio_timer_number(op) < nio_timer_number(best)", "test_wheel", "unit"),
    Mutant("... of a lane", "runtime/time/wheel.c", "static NIO_ALWAYS_INLINE void link_last(",
           "(uint32_t)(tally >> 32)", "0", "test_wheel", "unit"),
    Mutant("... in time", "runtime/time/wheel.c", "static uint64_t ripe_ns(",
           "< AHEAD_WAKE)", "< AHEAD_WAKE * 1000)", "test_wheel", "unit"),
    Mutant("a yield alone", "runtime/sched/worker.c", "bool nio_keep_alone(",
           "nio_lifo_peek(&worker->lifo) ||", "worker ||", "test_yield", "unit"),
    Mutant("... over another", "runtime/sched/worker.c", "bool nio_keep_alone(",
           "nio_lifo_peek(&worker->lifo) || ", "", "test_yield", "unit"),
    Mutant("... inside of another", "runtime/sched/worker.c", "bool nio_keep_alone(",
           "worker->inline_depth > 0 ||", "", "test_yield", "unit"),
    Mutant("... passed by another", "runtime/sched/worker.c", "static void offer_slot(",
           "if (task)", "if (!worker)", "test_yield", "unit"),
    Mutant("long polls", "runtime/sched/worker.c", "static uint32_t tune(",
           "NIO_LOOK_PERIOD_NS / tick_ns", "NIO_LOOK_PERIOD_NS + tick_ns", "test_intervals",
           "unit"),
    Mutant("... and timers", "runtime/sched/worker.c", "void nio_maintain_rarely(",
           "if (worker->is_driver_tuned)", "if (!worker)", "test_intervals", "unit"),
    Mutant("... and not alone", "runtime/sched/worker.c", "bool nio_keep_alone(",
           " || has_waiting(worker)", "", "test_yield", "unit"),
    Mutant("LQ1", QUEUE_H, "[LQ1] release: publishes the slot", RELEASE, RELAXED,
           "stress_local_queue", "tsan"),
    Mutant("LQ2", QUEUE_C, "[LQ2] acquire: sees the slots", ACQUIRE, RELAXED,
           "stress_local_queue", "tsan"),
    Mutant("LQ3", QUEUE_H, "[LQ3] acquire: slots given free", ACQUIRE, RELAXED,
           "stress_local_queue", "hidden"),
    Mutant("LQ4", QUEUE_C, "[LQ4] acq_rel: gives the slots back", ACQ_REL, ACQUIRE,
           "stress_local_queue", "hidden"),
    Mutant("claimed slots", QUEUE_H, "nio_local_queue_room(",
           "tail - nio_local_queue_stealing(head)", "tail - nio_local_queue_real(head)",
           "stress_local_queue", "native"),
    Mutant("LQ5", QUEUE_H, "[LQ5] seq_cst: the caller's next", SEQ_CST, RELEASE, "stress_idle",
           "native"),
    Mutant("LQ6", QUEUE_C, "[LQ6] acquire: the loop must not read", ACQUIRE, RELAXED,
           "stress_local_queue", "hidden"),
    Mutant("LQ7", QUEUE_H, "*nio_local_queue_pop_newest(", "nio_local_queue_advance(head, 0)",
           "head", "stress_local_queue", "native"),
    Mutant("IQ1", "runtime/sched/inject.c", "[IQ1] seq_cst: the pusher's next", SEQ_CST, RELEASE,
           "stress_wake", "hidden"),
    Mutant("BL1", LOCK_H, "[BL1] acquire", ACQUIRE, RELAXED, "stress_inject", "tsan"),
    Mutant("BL2", LOCK_H, "[BL2] release", RELEASE, RELAXED, "stress_inject", "tsan"),
    Mutant("BL3", "runtime/base/lock.c", "[BL3] acquire: as [BL1]", ACQUIRE, RELAXED,
           "stress_inject", "tsan"),
    Mutant("lock's wake", LOCK_H, "void nio_lock_release(", "== 2", "== 3", "stress_inject",
           "native"),
    Mutant("BM1", "runtime/base/mpsc.h", "[BM1] seq_cst", SEQ_CST, RELAXED, "stress_slab", "tsan"),
    Mutant("BM2", "runtime/base/mpsc.h", "[BM2] acquire", ACQUIRE, RELAXED, "stress_slab", "tsan"),
    Mutant("ID1", "runtime/sched/idle.h", "[ID1] seq_cst", SEQ_CST, RELAXED, "stress_idle",
           "hidden"),
    Mutant("the last look", "runtime/sched/sleep.c", "sleep_until_woken(",
           "!nio_sees_work(worker) && ", "", "stress_wake", "native"),
    Mutant("PK1", PARKER_C, "[PK1] acquire: as above", ACQUIRE, RELAXED, "stress_parker", "tsan"),
    Mutant("PK1", "runtime/sched/parker.h", "[PK1] acquire", ACQUIRE, RELAXED, "stress_parker",
           "tsan"),
    Mutant("PK2", PARKER_C, "[PK2] acq_rel", ACQ_REL, ACQUIRE, "stress_parker", "tsan"),
    Mutant("PK3", PARKER_C, "bool nio_parker_unpark(",
           "if (state == NIO_PARKER_DRIVER)", "if (state == NIO_PARKER_DRIVER && !driver)",
           "stress_parker", "native"),
    Mutant("the mailbox's last look", PARKER_C, "void nio_parker_park_unless(",
           "(!mailbox || nio_mpsc_is_empty(mailbox))", "(!mailbox || driver)", "stress_mailbox",
           "native"),
    Mutant("DW2", DRIVER_C, "void nio_driver_unpark(", "before == NIO_DRIVER_ASLEEP_FUTEX",
           "before == NIO_DRIVER_NOTIFIED", "stress_driver", "native"),
    Mutant("DW2", DRIVER_C, "[DW2] seq_cst: what the caller", SEQ_CST, RELAXED, "stress_driver",
           "hidden"),
    Mutant("DW3", DRIVER_C, "[DW3] acquire", ACQUIRE, RELAXED, "stress_driver", "hidden"),
    Mutant("the watch on the eventfd", URING_C, "static bool arm_wake(", "if (uring->wake_armed)",
           "if (uring->sqes)", "stress_driver", "native"),
    Mutant("cq_lock", URING_C, "static void take_batch(", "!nio_lock_try(&uring->cq_lock)",
           "(!nio_lock_try(&uring->cq_lock) && !uring->cq_mask)", "stress_driver", "native"),
    Mutant("DU7", URING_C, "unsigned nio_uring_reap_for(", "    tell_starved(uring);",
           "    if (!driver)\n        tell_starved(uring);", "stress_driver", "native"),
    Mutant("DU6", URING_C, "[DU6] seq_cst: before the look", SEQ_CST, RELAXED, "stress_driver",
           "hidden"),
    Mutant("DU1", URING_C, "[DU1] seq_cst: publishes the SQEs", SEQ_CST, RELAXED,
           "stress_driver_shim", "tsan"),
    Mutant("DU1", URING_C, "[DU1] release: publishes the SQEs", RELEASE, RELAXED,
           "stress_driver_shim", "hidden"),
    Mutant("DU2", "runtime/driver/uring.h", "[DU2] acquire: the kernel has read", ACQUIRE, RELAXED,
           "stress_driver_shim", "tsan"),
    Mutant("DU3", URING_C, "[DU3] acquire: as in nio_uring_cq_has_entries()", ACQUIRE, RELAXED,
           "stress_driver_shim", "tsan"),
    Mutant("DU4", URING_C, "[DU4] release: the completions were read", RELEASE, RELAXED,
           "stress_driver_shim", "hidden"),
    Mutant("what overflowed", URING_C, "static void fill_cq(",
           "(IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)", "IORING_SQ_TASKRUN",
           "stress_driver_shim", "native"),
    Mutant("F_MORE", URING_C, "bool is_last(", "(flags & IORING_CQE_F_MORE) == 0",
           "(flags & 1024) == 0", "stress_driver_shim", "native"),
    Mutant("the end of the SQ thread", URING_C, "look_at(", "result == -EOWNERDEAD",
           "result == -EOWNERDEAD - 1000", "stress_driver_shim", "native"),
    Mutant("cancels' own credits", "runtime/driver/uring_cancel.c", "static bool has_room(",
           "nio_uring_cancels_in_flight(uring) < uring->cancels_max && ", "",
           "stress_driver_shim", "native"),
    Mutant("DL1", "runtime/task/op_done.c", "[DL1] release", RELEASE, RELAXED, "stress_deadline",
           "tsan"),
    Mutant("a scope's end", "runtime/sched/deadline.c", "int leave(",
           "nio_state_clear_late(&co->task);", "(void)co;", "test_deadline", "unit"),
    Mutant("a deadline's way back", "runtime/sched/deadline.c", "bool take_back(",
           "nio_co_go_to(co, owner->index);", "(void)co;", "stress_deadline", "native"),
    Mutant("a wheel's lock", "runtime/time/wheel.c", "bool nio_wheel_cancel(",
           "nio_lock_spin(&wheel->lock);", "(void)nio_lock_try(&wheel->lock);", "stress_wheel",
           "tsan"),
    Mutant("a stop's way back", "runtime/io/stream.c", "int numio_stream_stop(",
           "nio_co_go_to(co, nio_op_worker(&stream->multi.op));", "", "stress_stream", "native"),
    Mutant("MU1", "runtime/task/multi.c", "[MU1] release", RELEASE, RELAXED, "stress_stream",
           "hidden"),
    Mutant("MU2", "runtime/task/multi.c", "[MU2] acq_rel", ACQ_REL, RELAXED, "stress_stream",
           "tsan"),
    Mutant("MU3", "runtime/task/multi.c", "[MU3] acq_rel", ACQUIRE, RELAXED, "stress_stream",
           "hidden"),
    Mutant("MU4", "runtime/task/multi.c", "[MU4] release", RELEASE, RELAXED, "stress_stream",
           "hidden"),
    Mutant("a deadline's cancel", "runtime/sched/run.c", "static bool hold_coroutine(",
           "(NIO_STATE_CANCELLED | NIO_STATE_LATE)", "NIO_STATE_CANCELLED", "stress_deadline",
           "native"),
    Mutant("CR5 at the end", "runtime/sched/run.c", "void complete(", "forget_task(worker);", "",
           "stress_peek", "native"),
    Mutant("CR5 at a pause", "runtime/sched/run.c", "void end_poll(", "forget_task(worker);", "",
           "stress_peek", "native"),
    Mutant("MX1", MUTEX_C, "[MX1] acquire: if it is free", ACQUIRE, RELAXED, "stress_wait", "tsan"),
    Mutant("MX2", MUTEX_C, "[MX2] acquire: sees", ACQUIRE, RELAXED, "stress_wait", "tsan"),
    Mutant("MX3", MUTEX_C, "[MX3] release: publishes", RELEASE, RELAXED, "stress_wait", "tsan"),
    Mutant("a mutex's second look", MUTEX_C, "static bool lock_begin(",
           "(old & ~WAITS) == 0", "(old & ~WAITS) == 0 && !op", "stress_wait", "native"),
    Mutant("SM2", SEMAPHORE_C, "[SM2] acquire: sees", ACQUIRE, RELAXED, "stress_wait", "tsan"),
    Mutant("SM3", SEMAPHORE_C, "int numio_semaphore_release(", RELEASE, RELAXED, "stress_wait",
           "tsan"),
    Mutant("a semaphore's second look", SEMAPHORE_C, "static bool acquire_begin(",
           "is_first ? 0 : WAITS", "is_first ? WAITS : WAITS", "stress_wait", "native"),
    Mutant("WT1", WAIT_C, "[WT1] release", RELEASE, RELAXED, "stress_wait", "tsan"),
    Mutant("WT2", WAIT_C, "[WT2] acquire", ACQUIRE, RELAXED, "stress_wait", "tsan"),
    Mutant("a selection's claim", WAIT_C, "bool nio_wait_claim(", "return nio_choice_claim(op);",
           "return nio_choice_claim(op) || true;", "stress_wait", "native"),
    Mutant("OC1", "runtime/task/op_done.c", "[OC1] acq_rel", ACQ_REL, RELAXED, "stress_wait",
           "tsan"),
    Mutant("OC2", "runtime/sched/select.c", "static uint32_t choice_state(", ACQUIRE, RELAXED,
           "stress_wait", "tsan"),
    Mutant("the last of a selection", "runtime/sched/select.c", "static void cancel_rest(",
           "if (wants_last(choice))", "if (wants_last(choice) && !choice)", "stress_wait",
           "native"),
    Mutant("the last look at ranked tasks", "runtime/sched/steal.c", "bool nio_sees_work(",
           " || nio_sees_ranked(worker)", "", "stress_classes", "native"),
    Mutant("the offer of ranked tasks", "runtime/sched/ranked.c", "void nio_push_ranked(",
           "if (!is_next)", "if (!is_next && !first)", "stress_classes", "native"),
    Mutant("CN1", CHANNEL_H, "[CN1] release", RELEASE, RELAXED, "stress_channel", "tsan"),
    Mutant("CN2", CHANNEL_H, "[CN2] seq_cst", SEQ_CST, RELAXED, "stress_channel", "tsan"),
    Mutant("CN3", CHANNEL_H, "[CN3] seq_cst", SEQ_CST, RELAXED, "stress_channel", "tsan"),
    Mutant("CN4", CHANNEL_H, "[CN4] acquire", ACQUIRE, RELAXED, "stress_channel", "tsan"),
    Mutant("CN5", CHANNEL_H, "[CN5] acquire", ACQUIRE, RELAXED, "stress_channel", "tsan"),
    Mutant("CN6", CHANNEL_H, "[CN6] acq_rel", ACQ_REL, RELAXED, "stress_channel", "tsan"),
    Mutant("CN7", CHANNEL_H, "[CN7] seq_cst", SEQ_CST, RELAXED, "stress_channel", "hidden"),
    Mutant("CN8", CHANNEL_C, "[CN8] seq_cst", SEQ_CST, RELAXED, "stress_channel", "hidden"),
    Mutant("a sender's last look", CHANNEL_C, "[CN8] seq_cst",
           "if (!nio_channel_has_room(channel))", "if (channel)", "stress_channel", "hidden"),
    Mutant("a receiver's look for senders", CHANNEL_C, "int64_t take_alone(",
           "nio_channel_senders_wait(channel)", "false", "stress_channel", "native"),
    Mutant("a promise that is given back", CHANNEL_C, "static void recv_give_back(",
           "channel->promised--;", "", "stress_channel", "native"),
    Mutant("a promise that is taken", CHANNEL_C, "static int32_t give(",
           "channel->promised++;", "(void)channel;", "stress_channel", "native"),
    Mutant("SP1", SPSC_C, "[SP1] seq_cst", SEQ_CST, RELAXED, "stress_spsc", "tsan"),
    Mutant("SP2", SPSC_C, "[SP2] acquire", ACQUIRE, RELAXED, "stress_spsc", "hidden"),
    Mutant("SP3", SPSC_C, "[SP3] seq_cst", SEQ_CST, RELAXED, "stress_spsc", "tsan"),
    Mutant("SP4", SPSC_C, "[SP4] seq_cst", SEQ_CST, RELAXED, "stress_spsc", "tsan"),
    Mutant("SP5", SPSC_C, "[SP5] seq_cst", SEQ_CST, RELAXED, "stress_spsc", "hidden"),
    Mutant("SP6", SPSC_C, "[SP6] seq_cst", SEQ_CST, RELAXED, "stress_spsc", "hidden"),
    Mutant("a side's last look", SPSC_C, "static bool recv_begin(",
           "if (must_wait || !leave", "if (spsc || must_wait || !leave", "stress_spsc", "native"),
    Mutant("a wait that came back", SPSC_C, "NIO_NOINLINE void end_receiver(",
           "if (is_empty && !is_closed(spsc))", "if (false)", "stress_spsc", "native"),
    Mutant("OS1", "runtime/sync/oneshot.c", "[OS1] acq_rel", ACQ_REL, ACQUIRE, "stress_oneshot",
           "tsan"),
    Mutant("who waits for a close", "runtime/sync/oneshot.c",
           "void numio_oneshot_close_receiver(", "if (word & WATCHED)", "if (word & GONE)",
           "stress_oneshot", "native"),
    Mutant("OS2", "runtime/sync/oneshot.c", "[OS2] acquire", ACQUIRE, RELAXED, "stress_oneshot",
           "tsan"),
    Mutant("a broadcast's lock", "runtime/sync/broadcast.c", "static void lock(",
           "nio_wait_queue_acquire(&broadcast->waits);",
           "(void)nio_lock_try(nio_wait_queue_lock(&broadcast->waits));", "stress_broadcast",
           "tsan"),
    Mutant("a watch's lock", "runtime/sync/watch.c", "static void lock(",
           "nio_wait_queue_acquire(&watch->waits);",
           "(void)nio_lock_try(nio_wait_queue_lock(&watch->waits));", "stress_broadcast", "tsan"),
    Mutant("left", "runtime/start.c", "void nio_join_workers(",
           "wait_until(&handle->left, handle->worker_count);", "", "stress_shutdown", "tsan"),
    Mutant("MX1 of a condition", MUTEX_C, "[MX1] acquire: as in lock_begin()", ACQUIRE, RELAXED,
           "stress_locks", "tsan"),
    Mutant("the mutex' last unlocker", MUTEX_C, "bool hand_over(",
           "if (nio_wait_queue_is_empty(&mutex->_waits)) {", "if (!mutex) {", "stress_locks",
           "tsan"),
    Mutant("the way back to the mutex", "runtime/sync/condition.c", "static bool wait_leave(",
           "take_out(condition, op, -ECANCELED, &back);",
           "return nio_wait_remove(&condition->_waits, op);", "stress_locks", "native"),
    Mutant("RW1", RWLOCK_C, "[RW1] acquire: sees", ACQUIRE, RELAXED, "stress_locks", "tsan"),
    Mutant("RW2", RWLOCK_C, "[RW2] acquire: sees", ACQUIRE, RELAXED, "stress_locks", "tsan"),
    Mutant("RW2 of a reader", RWLOCK_C, "[RW2] acquire: as above", ACQUIRE, RELAXED, "stress_locks",
           "tsan"),
    Mutant("RW3", RWLOCK_C, "[RW3] release: hands on", RELEASE, RELAXED, "stress_locks", "tsan"),
    Mutant("RW3 of who leaves", RWLOCK_C, "[RW3] release: publishes", RELEASE, RELAXED,
           "stress_locks", "tsan"),
    Mutant("who waits behind a writer", RWLOCK_C, "static bool leave(",
           "let_in(rwlock, peek(rwlock), &ended)", "peek(rwlock)", "test_rwlock", "unit"),
    Mutant("NT1", NOTIFY_C, "[NT1] acquire: sees", ACQUIRE, RELAXED, "stress_signals", "tsan"),
    Mutant("NT2", NOTIFY_C, "[NT2] acquire: sees", ACQUIRE, RELAXED, "stress_signals", "tsan"),
    Mutant("NT3", NOTIFY_C, "[NT3] release: what the caller did, also", RELEASE, RELAXED,
           "stress_signals", "tsan"),
    Mutant("EV1", EVENT_C, "[EV1] acquire: if", ACQUIRE, RELAXED, "stress_signals", "tsan"),
    Mutant("EV2", EVENT_C, "[EV2] acquire: sees", ACQUIRE, RELAXED, "stress_signals", "tsan"),
    Mutant("EV3", EVENT_C, "[EV3] release: what the caller did, also", RELEASE, RELAXED,
           "stress_signals", "tsan"),
    Mutant("EV3 with waiters", EVENT_C, "[EV3] release: what the caller did.", RELEASE, RELAXED,
           "stress_signals", "tsan"),
    Mutant("ON1", ONCE_C, "[ON1] acquire: sees", ACQUIRE, RELAXED, "stress_signals", "tsan"),
    Mutant("ON2", ONCE_C, "[ON2] acquire: sees what was", ACQUIRE, RELAXED, "stress_signals",
           "tsan"),
    Mutant("ON2 of the next try", ONCE_C, "[ON2] acquire: sees what those", ACQUIRE, RELAXED,
           "stress_signals", "tsan"),
    Mutant("ON3", ONCE_C, "[ON3] release: what was done, or", RELEASE, RELAXED, "stress_signals",
           "tsan"),
    Mutant("ON3 with waiters", ONCE_C, "[ON3] release: what was done.", RELEASE, RELAXED,
           "stress_signals", "tsan"),
    Mutant("TS4", STATE_C, "nio_state_complete_member(", RELEASE, RELAXED, "stress_scope",
           "tsan"),
    Mutant("SC1", "runtime/scope/scope.c", "[SC1] acq_rel: sees what", ACQ_REL, RELAXED,
           "stress_scope", "tsan"),
    Mutant("SC2", "runtime/scope/scope.c", "[SC2] acq_rel: what the child", ACQ_REL, RELAXED,
           "stress_scope", "tsan"),
    Mutant("the errand", "runtime/scope/scope.c", "void note_error(",
           "nio_wake_act(scope->_owner, nio_state_wake_errand(scope->_owner));", "",
           "stress_scope", "native"),
    Mutant("an abort of a close", "runtime/scope/scope.c", "bool close_leave(",
           "        nio_scope_abort_children(scope, false);", "", "stress_scope", "native"),
    Mutant("the end of a set's wait", "runtime/scope/join_set.c", "void task_ended(",
           "        nio_wait_take_all(&core->waits, &ended, 0);", "", "stress_join_set", "native"),
    Mutant("CT1", "runtime/task/token.c", "[CT1] acquire", ACQUIRE, RELAXED,
           "stress_cancel_token", "tsan"),
    Mutant("CT2", "runtime/task/token.c", "[CT2] acq_rel", ACQ_REL, ACQUIRE,
           "stress_cancel_token", "tsan"),
    Mutant("CT3", "runtime/task/token.c", "[CT3] acq_rel", ACQ_REL, RELAXED,
           "stress_cancel_token", "tsan"),
    Mutant("a child's cancellation", "runtime/task/token.c", "*take_children(",
           "        work = child;", "        (void)drop(child);", "stress_cancel_token", "native"),
]


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **options)


def copy_sources():
    """A fresh copy of what git knows or would add."""
    source = os.path.join(OUT, "src")
    for path in repo_files.listed_paths():
        target = os.path.join(source, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(path, "rb") as file:
            content = file.read()
        # What is unchanged keeps its time, so that a second run builds little.
        if not os.path.exists(target) or open(target, "rb").read() != content:
            with open(target, "wb") as file:
                file.write(content)
    return source


def build_of(kind):
    return SHARED.get(kind, kind)


def configure(source, kinds):
    """The builds that these kinds need; returns {kind: folder}."""
    builds = {}
    for kind in sorted({build_of(kind) for kind in kinds}):
        preset, part = BUILDS[kind]
        folder = builds[kind] = os.path.join(OUT, kind)
        done = run(["cmake", "--preset", preset, "-S", source, "-B", os.path.abspath(folder),
                    "-DNUMIO_LTO=OFF"] +
                   ["-D%s=%s" % (other, "ON" if other == part else "OFF") for other in PARTS])
        if done.returncode:
            sys.exit(done.stdout)
    return builds


def mutate(text, mutant):
    """The mutated text, None if the mutant does not fit."""
    start = text.find(mutant.after)
    at = text.find(mutant.old, start) if start >= 0 else -1
    if at < 0:
        return None
    return text[:at] + mutant.new + text[at + len(mutant.old):]


def build(folder, program, jobs):
    target = program.split("@")[0]
    return run(["cmake", "--build", folder, "--parallel", jobs, "--target", target])


def guest_command(folder, program):
    """Runs `program` of tests/numa, "numa_X@TOPOLOGY", in a guest; "all@..." runs all of them."""
    name, topology = program.split("@")
    if name == "all":
        return ["bash", "tests/numa/run_numa.sh", folder, topology]
    disk = ["--nvme", "64@1", "--append", "nvme.poll_queues=1", "--module", "ext4"]
    return (["scripts/numa-vm.sh", "--quiet", "--topology", topology, "--timeout", GUEST_LIMIT_S,
             "--env", "NUMIO_SPOIL_MACHINE=1",
             "--bin", os.path.join(folder, "tests", "numa", name)] +
            (disk if topology == "2n" else []) + ["--", name])


def command_of(kind, folder, program):
    if kind == "guest":
        return guest_command(folder, program)
    if kind == "check":
        return [os.path.join(folder, "bin", program), "--check"]
    return [os.path.join(folder, "tests", program)]


def last_words(output, status):
    """What a failed program said: the first check that failed, or its last line."""
    lines = [line for line in output.splitlines() if "SEED" not in line]
    failed = [line for line in lines if line.startswith(("FAILED", "[FAIL]"))]
    return (failed or lines[-1:] or ["exit %d" % status])[0][:70]


def is_killed(kind, folder, program):
    """How a run failed, None if all went well."""
    environment = dict(os.environ, NUMIO_STRESS_MS=RUN_MS, NUMIO_STRESS_PATIENCE_S=PATIENCE_S,
                       TSAN_OPTIONS="halt_on_error=1 exitcode=66")
    for _ in range(TRIES.get(kind, 1)):
        try:
            done = run(command_of(kind, folder, program), env=environment, timeout=RUN_LIMIT_S)
        except subprocess.TimeoutExpired:
            return "hangs"
        if done.returncode == 66:
            return "ThreadSanitizer"
        if done.returncode:
            return last_words(done.stdout, done.returncode)
    return None


def judge(mutant, source, builds, jobs):
    """'killed', 'survived', 'hidden' or 'misfit', and a remark."""
    path = os.path.join(source, mutant.path)
    with open(path, encoding="utf-8") as file:
        original = file.read()
    mutated = mutate(original, mutant)
    if mutated is None:
        return "misfit", "does not fit the sources any more"
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(mutated)
        folder = builds[build_of(mutant.kind)]
        done = build(folder, mutant.program, jobs)
        if done.returncode:
            return "misfit", "does not build: " + done.stdout[-300:]
        how = is_killed(mutant.kind, folder, mutant.program)
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(original)
    if how:
        return "killed", how
    return ("hidden" if mutant.kind == "hidden" else "survived"), ""


def check_fit(mutants):
    """Whether each mutant changes something, in the sources as they are."""
    bad = 0
    for m in mutants:
        with open(m.path, encoding="utf-8") as file:
            text = file.read()
        if mutate(text, m) in (None, text):
            print("misfit: %s in %s: change its entry here with the code" % (m.label, m.path))
            bad = 1
    print("%d mutants fit the sources" % len(mutants) if not bad else "mutants do not fit")
    return bad


def check_unmutated(mutants, builds, jobs):
    """The programs must pass as they are, or a failure says nothing."""
    for kind, program in sorted({(m.kind, m.program) for m in mutants if m.kind != "hidden"}):
        folder = builds[build_of(kind)]
        done = build(folder, program, jobs)
        if done.returncode:
            sys.exit(done.stdout[-2000:])
        how = is_killed(kind, folder, program)
        if how:
            sys.exit("%s (%s) fails without any mutant: %s" % (program, kind, how))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the mutants and leave")
    parser.add_argument("--check-fit", action="store_true",
                        help="only look whether each mutant still fits the sources")
    parser.add_argument("--only", default="", metavar="RE", help="mutants whose line matches")
    parser.add_argument("--kind", default="", metavar="KIND", help="mutants of this kind")
    parser.add_argument("--jobs", default=str(os.cpu_count() or 1))
    args = parser.parse_args()
    os.chdir(ROOT)
    every = MUTANTS + [Mutant(*entry) for entry in mutants_numa.ENTRIES]
    mutants = [m for m in every
               if re.search(args.only, "%s %s %s" % (m.label, m.path, m.program)) and
               args.kind in ("", m.kind)]
    if args.list:
        for m in mutants:
            print("%-22s %-28s %-20s %s" % (m.label, m.path, m.program, m.kind))
        return 0
    if args.check_fit:
        return check_fit(mutants)
    builds = configure(copy_sources(), {m.kind for m in mutants})
    check_unmutated(mutants, builds, args.jobs)
    counts = collections.Counter()
    for m in mutants:
        verdict, remark = judge(m, os.path.join(OUT, "src"), builds, args.jobs)
        counts[verdict] += 1
        print("%-9s %-22s %-28s %-20s %s" % (verdict, m.label, m.path, m.program, remark),
              flush=True)
    print(", ".join("%d %s" % (count, verdict) for verdict, count in sorted(counts.items())))
    return 1 if counts["survived"] or counts["misfit"] else 0


if __name__ == "__main__":
    sys.exit(main())
