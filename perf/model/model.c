/* SPDX-License-Identifier: MIT */
/* A core is busy with a task, looks around, or sleeps.  What happens to it next is one event in a
 * heap: the end of its task, its next look, the end of its wake.  Whatever needs a cache line that
 * another core has written pays for the line's way. */
#include "perf/model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/rng.h"
#include "runtime/sched/policy.h"

const struct model_machine model_machines[MODEL_MACHINES] = {
    { "icelake", "Xeon Platinum 8375C, a node per socket", 51, 51, 108, 1 },
    { "cascadelake", "Xeon Gold 6242, a node per socket", 48, 48, 136, 1 },
    { "milan", "EPYC 7R13, a node per last-level cache, four a socket", 23, 107, 197, 4 },
};

/* ns; README.md says where they come from */
static const double wake_latency_ns = 5000, wake_call_ns = 1500;
static const double look_ns = 200, spin_ns = 50000;
static const double spawn_ns = 30;

enum {
    TASK_LINES = 8,    /* that a task touches and that its home has written */
    POINTERS_LINE = 8, /* of a queue, in one line */
    BALANCED_TASKS = 8,
    SKEWED_TASKS = 64, /* per core of the machine, all on the first node */
    TREE_DEPTH = 16
};

static const double balanced_work_ns = 2000, balanced_think_ns = 20000; /* 0.7 of the cores */
static const double skewed_work_ns = 10000;
static const double fork_work_ns = 200, leaf_work_ns = 1000;
static const double limit_ns = 4e6; /* of the loads that go on for ever */

const char *const model_policy_names[MODEL_POLICIES] = { "numio", "flat", "none" };
const char *const model_load_names[MODEL_LOADS] = { "balanced", "skewed", "tree" };

struct task {
    double work_ns;
    uint16_t home;  /* core */
    uint16_t depth; /* of a tree, below it */
};

enum core_state { BUSY, LOOKING, ASLEEP, WAKING };

struct core {
    struct task *queue; /* a ring of `room` slots */
    size_t room, head, length;
    enum core_state state;
    bool is_searching;
    double idle_since_ns;
    double penalty_ns; /* lines that thieves have taken away */
    struct task task;  /* that it runs */
};

struct event {
    double at_ns;
    unsigned core;
    bool is_birth; /* of a task on this core, else the core goes on */
};

struct model {
    const struct model_setup *setup;
    unsigned cores;
    struct core *core;
    struct event *heap;
    size_t heap_length;
    unsigned *searching, *sleeping; /* per node */
    struct nio_rng rng;
    double now_ns;
    struct model_result result;
};

static void *must_alloc(void *memory)
{
    if (memory)
        return memory;
    fputs("numio-model: no memory\n", stderr);
    exit(1);
}

/* --- events ---------------------------------------------------------------------------------- */

static void push_any(struct model *m, struct event event)
{
    size_t at = m->heap_length++;
    for (; at > 0 && m->heap[(at - 1) / 2].at_ns > event.at_ns; at = (at - 1) / 2)
        m->heap[at] = m->heap[(at - 1) / 2];
    m->heap[at] = event;
}

static void push_event(struct model *m, unsigned core, double delay_ns)
{
    push_any(m, (struct event){ m->now_ns + delay_ns, core, false });
}

static struct event pop_event(struct model *m)
{
    struct event first = m->heap[0], last = m->heap[--m->heap_length];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < m->heap_length; at = child) {
        if (child + 1 < m->heap_length && m->heap[child + 1].at_ns < m->heap[child].at_ns)
            child++;
        if (m->heap[child].at_ns >= last.at_ns)
            break;
        m->heap[at] = m->heap[child];
    }
    m->heap[at] = last;
    return first;
}

/* --- places ---------------------------------------------------------------------------------- */

static unsigned node_of(const struct model *m, unsigned core)
{
    return core / m->setup->cores_per_node;
}

static unsigned package_of(const struct model *m, unsigned node)
{
    return node / m->setup->machine->nodes_per_package;
}

/* The i-th other node of `home`, from 1 on: those of its package first.  `nodes`, or more: there
 * are no more. */
static unsigned other_node(const struct model *m, unsigned home, unsigned i)
{
    unsigned nodes = m->setup->nodes;
    for (unsigned is_far = 0; is_far < 2; is_far++)
        for (unsigned k = 1; k < nodes; k++) {
            unsigned node = (home + k) % nodes;
            if ((package_of(m, node) != package_of(m, home)) == (is_far == 1) && --i == 0)
                return node;
        }
    return nodes;
}

/* What it takes to get `lines` cache lines from one core to another. */
static double line_ns(struct model *m, unsigned from, unsigned to, unsigned lines)
{
    const struct model_machine *machine = m->setup->machine;
    unsigned a = node_of(m, from), b = node_of(m, to);
    if (from == to)
        return 0;
    if (a == b)
        return machine->node_line_ns * lines;
    m->result.far_lines += lines;
    return lines *
           (package_of(m, a) == package_of(m, b) ? machine->package_line_ns : machine->far_line_ns);
}

static double exponential(struct model *m, double mean)
{
    double uniform = ((double)(nio_rng_next(&m->rng) >> 11) + 1) * 0x1p-53;
    return -mean * log(uniform);
}

/* --- queues ---------------------------------------------------------------------------------- */

static void push_back(struct core *core, struct task task)
{
    if (core->length == core->room) {
        size_t room = core->room ? 2 * core->room : 64;
        struct task *queue = must_alloc(calloc(room, sizeof *queue));
        for (size_t i = 0; i < core->length; i++)
            queue[i] = core->queue[(core->head + i) % core->room];
        free(core->queue);
        core->queue = queue;
        core->room = room;
        core->head = 0;
    }
    core->queue[(core->head + core->length++) % core->room] = task;
}

static struct task pop_front(struct core *core)
{
    struct task task = core->queue[core->head];
    core->head = (core->head + 1) % core->room;
    core->length--;
    return task;
}

/* A core takes its newest of a tree, as numio does, else its oldest. */
static struct task pop_own(const struct model *m, struct core *core)
{
    if (m->setup->load != MODEL_TREE)
        return pop_front(core);
    return core->queue[(core->head + --core->length) % core->room];
}

/* --- waking ---------------------------------------------------------------------------------- */

static bool wake_core(struct model *m, unsigned at)
{
    if (m->core[at].state != ASLEEP)
        return false;
    m->core[at].state = WAKING;
    m->core[at].is_searching = true;
    m->sleeping[node_of(m, at)]--;
    m->searching[node_of(m, at)]++;
    push_event(m, at, wake_latency_ns);
    return true;
}

static bool wake_one(struct model *m, unsigned first, unsigned count)
{
    unsigned start = nio_rng_below(&m->rng, count);
    for (unsigned i = 0; i < count; i++)
        if (wake_core(m, first + (start + i) % count))
            return true;
    return false;
}

/* Core `by` has more work than it will run next; returns what waking somebody costs it. */
static double offer(struct model *m, unsigned by, size_t depth)
{
    unsigned home = node_of(m, by), per_node = m->setup->cores_per_node;
    if (m->setup->policy == MODEL_NO_STEALING)
        return 0;
    if (m->setup->policy == MODEL_FLAT) {
        for (unsigned i = 0; i < m->setup->nodes; i++)
            if (m->searching[i] > 0)
                return 0;
        return wake_one(m, 0, m->cores) ? wake_call_ns : 0;
    }
    switch (nio_policy_wake(m->searching[home], m->sleeping[home])) {
    case NIO_WAKE_HOME:
        return wake_one(m, home * per_node, per_node) ? wake_call_ns : 0;
    case NIO_WAKE_FAR:
        for (unsigned i = 1; i < m->setup->nodes && nio_policy_may_leave((uint32_t)depth); i++) {
            unsigned node = other_node(m, home, i);
            if (m->searching[node] == 0 && wake_one(m, node * per_node, per_node))
                return wake_call_ns;
        }
        return 0;
    case NIO_WAKE_NOBODY:
        break;
    }
    return 0;
}

/* --- stealing -------------------------------------------------------------------------------- */

/* Takes `share` tasks of a victim: one to run, the others into the queue.  Returns the time. */
static double take(struct model *m, unsigned thief, unsigned victim, size_t share)
{
    struct core *from = &m->core[victim], *to = &m->core[thief];
    unsigned lines = 2 + (unsigned)((share + POINTERS_LINE - 1) / POINTERS_LINE);
    from->penalty_ns += line_ns(m, thief, victim, 1);
    for (size_t i = 0; i < share; i++)
        push_back(to, pop_front(from));
    return line_ns(m, victim, thief, lines);
}

/* Looks at `count` victims from `first`; true if tasks were taken. */
static bool look_at(struct model *m, unsigned thief, unsigned first, unsigned count, bool is_near,
                    double *time_ns)
{
    unsigned start = nio_rng_below(&m->rng, count);
    for (unsigned i = 0; i < count; i++) {
        unsigned victim = first + (start + i) % count;
        size_t length = m->core[victim].length;
        if (victim == thief || length == 0 || (!is_near && !nio_policy_may_leave((uint32_t)length)))
            continue;
        *time_ns += take(m, thief, victim, nio_policy_share((uint32_t)length, is_near));
        return true;
    }
    return false;
}

static bool steal(struct model *m, unsigned thief, double *time_ns)
{
    unsigned per_node = m->setup->cores_per_node, home = node_of(m, thief);
    *time_ns = look_ns;
    if (m->setup->policy == MODEL_NO_STEALING)
        return false;
    if (m->setup->policy == MODEL_FLAT)
        return look_at(m, thief, 0, m->cores, true, time_ns);
    if (look_at(m, thief, home * per_node, per_node, true, time_ns))
        return true;
    double idle_ns = m->now_ns - m->core[thief].idle_since_ns;
    for (unsigned i = 1; i < m->setup->nodes && nio_policy_may_go_far((uint64_t)idle_ns); i++) {
        unsigned node = other_node(m, home, i);
        if (look_at(m, thief, node * per_node, per_node, false, time_ns))
            return true;
    }
    return false;
}

/* --- cores ----------------------------------------------------------------------------------- */

static void run_next(struct model *m, unsigned at, double delay_ns)
{
    struct core *core = &m->core[at];
    core->task = pop_own(m, core);
    core->state = BUSY;
    double away_ns = line_ns(m, core->task.home, at, TASK_LINES);
    m->result.crossed += node_of(m, core->task.home) != node_of(m, at);
    push_event(m, at, delay_ns + core->penalty_ns + away_ns + core->task.work_ns);
    core->penalty_ns = 0;
}

/* Half of the searchers' domain may search: the node, or for the flat policy the machine. */
static bool may_search(const struct model *m, unsigned at)
{
    if (m->setup->policy != MODEL_FLAT)
        return 2 * m->searching[node_of(m, at)] < m->setup->cores_per_node;
    unsigned searching = 0;
    for (unsigned i = 0; i < m->setup->nodes; i++)
        searching += m->searching[i];
    return 2 * searching < m->cores;
}

static void look_or_sleep(struct model *m, unsigned at)
{
    struct core *core = &m->core[at];
    unsigned home = node_of(m, at);
    double time_ns;
    if (!core->is_searching && may_search(m, at)) {
        core->is_searching = true;
        m->searching[home]++;
    }
    if (core->is_searching && steal(m, at, &time_ns)) {
        core->is_searching = false;
        size_t deepest = 0;
        for (unsigned i = 0; i < m->setup->cores_per_node; i++) {
            size_t length = m->core[home * m->setup->cores_per_node + i].length;
            deepest = length > deepest ? length : deepest;
        }
        if (--m->searching[home] == 0)
            time_ns += offer(m, at, deepest);
        run_next(m, at, time_ns);
        return;
    }
    if (m->now_ns - core->idle_since_ns < spin_ns) {
        core->state = LOOKING;
        push_event(m, at, look_ns);
        return;
    }
    if (core->is_searching) {
        core->is_searching = false;
        m->searching[home]--;
    }
    core->state = ASLEEP;
    m->sleeping[home]++;
}

static void go_on(struct model *m, unsigned at, double delay_ns)
{
    struct core *core = &m->core[at];
    if (core->length > 0) {
        if (core->is_searching) {
            core->is_searching = false;
            m->searching[node_of(m, at)]--;
        }
        run_next(m, at, delay_ns);
        return;
    }
    core->idle_since_ns = m->now_ns;
    core->state = LOOKING;
    push_event(m, at, delay_ns + look_ns);
}

/* --- loads ----------------------------------------------------------------------------------- */

static void birth(struct model *m, unsigned at, struct task task)
{
    m->result.born++;
    push_back(&m->core[at], task);
}

/* The task that `at` ran has ended; what it leaves behind.  Returns the time that takes. */
static double finish(struct model *m, unsigned at)
{
    struct task task = m->core[at].task;
    double time_ns = 0;
    m->result.ended++;
    if (m->setup->load == MODEL_TREE) {
        for (unsigned i = 0; i < 2 && task.depth > 0; i++) {
            double work_ns = task.depth > 1 ? fork_work_ns : leaf_work_ns;
            birth(m, at, (struct task){ work_ns, (uint16_t)at, (uint16_t)(task.depth - 1) });
            time_ns += spawn_ns;
        }
    } else if (m->setup->load == MODEL_BALANCED) {
        /* Its client thinks, then comes again, to the same core. */
        push_any(m,
                 (struct event){ m->now_ns + exponential(m, balanced_think_ns), task.home, true });
    } else {
        /* A new one where it was born: it comes with what is at home there. */
        birth(m, task.home, (struct task){ exponential(m, skewed_work_ns), task.home, 0 });
        time_ns += spawn_ns + line_ns(m, task.home, at, 2);
        if (wake_core(m, task.home))
            time_ns += wake_call_ns;
    }
    if (m->core[at].length > 1)
        time_ns += offer(m, at, m->core[at].length);
    return time_ns;
}

static void begin(struct model *m)
{
    unsigned born_on = m->setup->load == MODEL_SKEWED ? m->setup->cores_per_node : m->cores;
    unsigned each =
        m->setup->load == MODEL_SKEWED ? SKEWED_TASKS * m->setup->nodes : BALANCED_TASKS;
    double mean_ns = m->setup->load == MODEL_SKEWED ? skewed_work_ns : balanced_work_ns;
    if (m->setup->load == MODEL_TREE)
        birth(m, 0, (struct task){ fork_work_ns, 0, TREE_DEPTH });
    for (unsigned i = 0; i < born_on && m->setup->load != MODEL_TREE; i++)
        for (unsigned k = 0; k < each; k++)
            birth(m, i, (struct task){ exponential(m, mean_ns), (uint16_t)i, 0 });
    for (unsigned i = 0; i < m->cores; i++)
        go_on(m, i, 0);
}

static bool is_over(const struct model *m)
{
    if (m->setup->load == MODEL_TREE)
        return m->result.ended == m->result.born && m->result.born > 0;
    return m->now_ns >= limit_ns;
}

struct model_result model_run(const struct model_setup *setup)
{
    struct model m = { .setup = setup, .cores = setup->nodes * setup->cores_per_node };
    uint64_t seed = setup->seed;
    nio_rng_init(&m.rng, &seed);
    m.core = must_alloc(calloc(m.cores, sizeof *m.core));
    /* one event a core, and one for each client that thinks */
    m.heap = must_alloc(calloc((size_t)m.cores * (BALANCED_TASKS + 1) + 1, sizeof *m.heap));
    m.searching = must_alloc(calloc(setup->nodes, sizeof *m.searching));
    m.sleeping = must_alloc(calloc(setup->nodes, sizeof *m.sleeping));
    begin(&m);
    while (m.heap_length > 0 && !is_over(&m)) {
        struct event event = pop_event(&m);
        m.now_ns = event.at_ns;
        struct core *core = &m.core[event.core];
        if (event.is_birth) {
            birth(&m, event.core,
                  (struct task){ exponential(&m, balanced_work_ns), (uint16_t)event.core, 0 });
            (void)wake_core(&m, event.core); /* by its completion, if it sleeps */
            continue;
        }
        if (core->state == BUSY)
            go_on(&m, event.core, finish(&m, event.core));
        else if (core->length > 0)
            go_on(&m, event.core, 0);
        else
            look_or_sleep(&m, event.core);
        if (core->state == WAKING)
            core->state = LOOKING;
    }
    m.result.time_ns = m.now_ns;
    for (unsigned i = 0; i < m.cores; i++)
        free(m.core[i].queue);
    free(m.core);
    free(m.heap);
    free(m.searching);
    free(m.sleeping);
    return m.result;
}
