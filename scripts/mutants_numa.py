# SPDX-License-Identifier: MIT
"""What is promised of machines with several nodes, each broken on purpose: scripts/mutate.py.

An entry names the promise, the line that breaks it, and who must notice: a program of tests/numa in
a guest ("numa_tasks@2n"), all of them and the tools ("all@2n"), a unit test, or the model's own
check.
"""

POLICY_H = "runtime/sched/policy.h"
SCHEDULE_C = "runtime/sched/schedule.c"
STEAL_C = "runtime/sched/steal.c"
STUCK_C = "runtime/sched/stuck.c"
START_C = "runtime/start.c"
MEMPOLICY_C = "alloc/mempolicy.c"
PLAN_STEAL_C = "numa/plan_steal.c"
PLAN_PLACE_C = "numa/plan_place.c"
HOME_C = "runtime/net/home.c"
CPU_WATCH_C = "runtime/cpu_watch.c"

# label, path, after, old, new, program, kind: as struct Mutant of mutate.py
ENTRIES = [
    # --- who runs where
    ("workers pinned", START_C, "static void pin(", "(void)sched_setaffinity(0, sizeof set, &set);",
     "(void)set;", "numa_threads@2n", "guest"),
    ("SQ thread at home", "runtime/driver/uring_setup.c", "static void confine_sq_thread(",
     "if (tid > 0)", "if (tid > 0 && options->sq_mask_count == 0)", "numa_threads@2n", "guest"),
    ("worker per core", PLAN_PLACE_C, "int nio_plan_place", "deal(b, count);",
     "count -= count > 1;\n    deal(b, count);", "numa_threads@2n", "guest"),
    # --- memory
    ("rings at home", MEMPOLICY_C, "int nio_mempolicy_set_thread(", "mask_of(os_node, mask)",
     "mask_of(0 * os_node, mask)", "numa_threads@2n", "guest"),
    ("cells at home", MEMPOLICY_C, "int nio_mempolicy_bind(", "mask_of(os_node, mask)",
     "mask_of(0 * os_node, mask)", "numa_pages@2n", "guest"),
    ("malloc at home", "alloc/node_arena.c", "int nio_node_arena_adopt_thread(",
     "nio_thread_heap_get(arena->os_node_asked,", "nio_thread_heap_get(0,", "numa_pages@2n",
     "guest"),
    ("frees come home", "alloc/slab.h", "static inline void nio_slab_outbox_flush(",
     "if (!outbox->home)", "if (!outbox->home || outbox->count > 1)", "numa_pages@2n", "guest"),
    # --- tasks
    ("node tasks stay", SCHEDULE_C, "static enum nio_reach reach_of(",
     "== NUMIO_AFFINITY_ANY ?", "!= NUMIO_AFFINITY_WORKER ?", "numa_tasks@2n", "guest"),
    ("pinned tasks stay", SCHEDULE_C, "void nio_schedule_local(",
     "nio_task_affinity(task) == NUMIO_AFFINITY_WORKER",
     "nio_task_affinity(task) == NUMIO_AFFINITY_WORKER && !worker", "numa_tasks@2n", "guest"),
    ("equal load stays", POLICY_H, "static inline bool nio_policy_may_leave(",
     "depth >= NIO_FAR_DEPTH", "depth > 0", "numa_tasks@2n", "guest"),
    ("overload is helped", POLICY_H, "static inline bool nio_policy_may_leave(",
     "depth >= NIO_FAR_DEPTH", "depth > UINT32_MAX - NIO_FAR_DEPTH", "numa_tasks@2n", "guest"),
    ("stuck nodes are helped", STUCK_C, "bool nio_watch_is_wanted(",
     "if (!nobody_watches(node->handle))", "if (node)", "stress_far_watch", "native"),
    ("the watch goes on", STUCK_C, "void nio_watch_hand_on(", "if (!other_node_is_full(worker)",
     "if (worker || !other_node_is_full(worker)", "test_far_watch", "unit"),
    ("handed on", SCHEDULE_C, "void nio_offer_on(", "nio_node_far_depth(home);", "0;",
     "stress_far_watch", "native"),
    ("FW, the far watcher", STUCK_C, "unsigned nio_watch_begin(",
     "handle->node_count > 1", "handle->node_count > 64", "stress_far_watch", "native"),
    ("FW1", STUCK_C, "static void give_up(", "memory_order_seq_cst", "memory_order_relaxed",
     "stress_far_watch", "hidden"),
    # --- lines and counters
    ("no shared line", SCHEDULE_C, "static bool wake_home(",
     "uint32_t state = nio_idle_load(&node->idle);",
     "uint32_t state = nio_idle_load(&node->idle);\n    if (node->index == 0)\n"
     "        node->handle->nodes[node->handle->node_count - 1]->sq_tid++;",
     "numa_lines@2n", "guest"),
    ("far steals counted", STEAL_C, "static struct nio_task *steal_from(",
     "&worker->counters.stolen_far, count", "&worker->counters.stolen_far, 1",
     "numa_counters@2n", "guest"),
    ("... of node's queues", STEAL_C, "if (origin & FROM_AFAR)",
     "&worker->counters.stolen_far, count", "&worker->counters.stolen_far, 1",
     "numa_counters@2n", "guest"),
    ("far wakes counted", SCHEDULE_C, "void nio_wake_worker(", "by->node != worker->node",
     "by->node == worker->node", "numa_counters@2n", "guest"),
    ("frees counted", SCHEDULE_C, "void nio_release(", "task->home_worker != worker->index",
     "task->home_worker > worker->index", "numa_counters@2n", "guest"),
    ("bytes counted", "runtime/driver/driver.c", "void nio_driver_count_result(",
     "count(&tally->bytes_in, (uint64_t)result, is_owner)",
     "count(&tally->bytes_in, (uint64_t)result / 2, is_owner)", "numa_counters@2n", "guest"),
    ("pages away counted", "alloc/arena_audit.c", "static void summarize(",
     "audit->pages_away += scratch->on_node[node]", "audit->pages_home += scratch->on_node[node]",
     "numa_counters@2n", "guest"),
    # --- the pure part
    ("steal order", PLAN_STEAL_C, "static unsigned append(", "between != distance",
     "between < distance", "test_plan", "unit"),
    ("deterministic plan", PLAN_STEAL_C, "static void fill_order(", "w->steal_count = count;",
     "w->steal_count = count;\n    static uint16_t mutated;\n    out[0].distance += mutated++ % 2;",
     "test_plan", "unit"),
    ("SQ CPU allowed", PLAN_PLACE_C, "static void set_sq(",
     "node->sq_cpu = b->t->pus[pu].os_index;",
     "node->sq_cpu = b->t->pus[b->t->info.pu_count - 1].os_index;", "test_plan", "unit"),
    ("empty cpuset", "numa/plan.c", "enabled == 0", "return nio_error(-EINVAL,",
     "return 0 * nio_error(-EINVAL,", "test_plan", "unit"),
    ("the gate", POLICY_H, "nio_policy_may_go_far(", "idle_ns >= NIO_FAR_IDLE_NS", "idle_ns > 0",
     "test_policy", "unit"),
    # --- homes of descriptors
    ("home of a file", HOME_C, "static int home_of_file(",
     "return node_of(handle, error, numa,", "return node_of(handle, error, 0 * numa,",
     "numa_home@2n", "guest"),
    ("steered by CPU", "runtime/net/listener.c", "static void steer(",
     "node->bind_cpus[k], member", "node->bind_cpus[k], 0 * member", "numa_home@2n", "guest"),
    # --- CPUs that come and go
    ("changes noticed", CPU_WATCH_C, "static void look(struct nio_cpu_watch *watch)",
     "if (has_changed)", "if (has_changed && watch->count == 0)", "numa_live@2n", "guest"),
    ("workers retire", CPU_WATCH_C, "static void tell(", "next->is_retired ? NIO_ORDER_RETIRE : 0u",
     "next->is_retired ? 0u : 0u", "test_cpu_watch", "unit"),
    ("and say why", "runtime/sched/seats.c", "const char *nio_seats_reason(", "nio_lock_acquire(",
     "return NULL;\n    nio_lock_acquire(", "numa_live@2n", "guest"),
    ("pools follow", "runtime/blocking/pool.c", "static void follow_cpus(", "changes == *seen",
     "changes >= *seen", "numa_live@2n", "guest"),
    # --- the tool, polled disks, the model
    ("numa-check tells", "runtime/tool/check.c", "void check_finding(",
     "if (check->finding_count == CHECK_FINDINGS_MAX)", "if (check)", "all@2n", "guest"),
    ("disks are polled", "runtime/driver/driver.c", "void nio_driver_submit(",
     "nio_polled_takes(driver->polled, op)", "false", "numa_iopoll@2n", "guest"),
    ("the model's policy", POLICY_H, "static inline bool nio_policy_may_leave(",
     "depth >= NIO_FAR_DEPTH", "depth > UINT32_MAX - NIO_FAR_DEPTH", "numio-model", "check"),
]
