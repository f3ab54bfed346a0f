/* SPDX-License-Identifier: MIT */
/* Unwinding through coroutines: backtrace() from nested calls, from every single instruction of
 * the switch, and gdb from outside.  Coroutines record; the test asserts afterwards. */
#include <criterion/criterion.h>

#include <execinfo.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "runtime/coro/coro.h"

enum {
    STACK_BYTES = 256 * 1024, /* room for the unwinder, and for a signal frame */
    FRAMES_MAX = 64,
    SAMPLES_MAX = 256,
    BASE_BYTES_MAX = 32, /* more than the trampoline has */
    OUTPUT_BYTES = 64 * 1024
};

/* The trampoline at the base of every coroutine's stack. */
void nio_coro_start(void);

struct trace {
    void *frames[FRAMES_MAX];
    int count;
};

static struct nio_coro co;
static struct nio_coro host;
static char stack[STACK_BYTES];
static struct trace nested;
static void *expected[4]; /* return addresses, innermost first */

static void start(nio_coro_entry *entry)
{
    struct trace warm_up; /* the first call loads a library */
    warm_up.count = backtrace(warm_up.frames, FRAMES_MAX);
    nio_coro_init(&co, stack, stack + STACK_BYTES, entry, NULL);
}

/* The arithmetic after each call keeps it from being a tail call. */
static NIO_NOINLINE int unwind_leaf(int depth)
{
    expected[0] = __builtin_return_address(0);
    nested.count = backtrace(nested.frames, FRAMES_MAX);
    nio_coro_thread_barrier();
    return depth + 1;
}

static NIO_NOINLINE int unwind_middle(int depth)
{
    expected[1] = __builtin_return_address(0);
    int ret = unwind_leaf(depth) + 1;
    nio_coro_thread_barrier();
    return ret;
}

static NIO_NOINLINE int unwind_outer(int depth)
{
    expected[2] = __builtin_return_address(0);
    nio_coro_switch_out(&co, &host); /* so that the trace is taken after a resumption */
    int ret = unwind_middle(depth) + 1;
    nio_coro_thread_barrier();
    return ret;
}

static void nested_entry(void *arg)
{
    (void)arg;
    expected[3] = __builtin_return_address(0);
    (void)unwind_outer(1);
    nio_coro_switch_last(&co, &host);
}

Test(unwind, backtrace_holds_every_caller_and_ends_at_the_base)
{
    start(nested_entry);
    nio_coro_switch_in(&host, &co);
    nio_coro_switch_in(&host, &co);
    cr_assert(nio_coro_is_finished(&co));
    /* Frame 0 is the leaf itself.  Sanitizers may add frames of their own at either end. */
    int first = 0;
    while (first < nested.count && nested.frames[first] != expected[0])
        first++;
    cr_assert_leq(first + 4, nested.count, "%d frames", nested.count);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(nested.frames[first + i], expected[i], "frame %d", first + i);
    int base = first + 3;
#if NIO_SANITIZER_FIBERS
    base++; /* first_entry() of coro.c */
#else
    cr_assert_eq(first, 1);
#endif
    cr_assert_eq(nested.count, base + 1, "the trace goes on below the base");
    uintptr_t past_start = (uintptr_t)nested.frames[base] - (uintptr_t)nio_coro_start;
    cr_assert_lt(past_start, BASE_BYTES_MAX, "the last frame is the trampoline");
}

/* Frame pointers end at the base as well: what perf walks. */
static uintptr_t frame_pointer_depth;

static void frame_pointer_entry(void *arg)
{
    (void)arg;
    uintptr_t *frame = __builtin_frame_address(0);
    while (frame && frame_pointer_depth < FRAMES_MAX) {
        frame_pointer_depth++;
        frame = (uintptr_t *)frame[0];
    }
    nio_coro_switch_last(&co, &host);
}

Test(unwind, frame_pointers_end_at_the_base)
{
    start(frame_pointer_entry);
    nio_coro_switch_in(&host, &co);
    cr_assert_geq(frame_pointer_depth, 1);
    cr_assert_leq(frame_pointer_depth, 2); /* and first_entry() under a sanitizer */
}

#if defined(__x86_64__) && !NIO_SANITIZER_FIBERS
/* Single steps: the trap flag raises SIGTRAP after each instruction, and the handler takes a
 * backtrace of wherever that is. */
static struct {
    uintptr_t pc;
    struct trace trace;
} samples[SAMPLES_MAX];
static int sample_count;
static bool is_full;
static void *host_caller; /* a return address only the host's stack has */
static void *coroutine_caller;

extern const char nio_coro_swap_symbol[] __asm__("nio_coro_swap_asm");
extern const char nio_coro_start_symbol[] __asm__("nio_coro_start");

enum { SWITCH_BYTES_MAX = 128 }; /* more than the switch and the trampoline have */

static void on_trap(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    uintptr_t pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
    (void)sig;
    (void)info;
    if (pc - (uintptr_t)nio_coro_swap_symbol >= SWITCH_BYTES_MAX)
        return;
    if (sample_count == SAMPLES_MAX) {
        is_full = true;
        return;
    }
    samples[sample_count].pc = pc;
    samples[sample_count].trace.count = backtrace(samples[sample_count].trace.frames, FRAMES_MAX);
    sample_count++;
}

static NIO_ALWAYS_INLINE void step_on(void)
{
    __asm__ __volatile__("lea -128(%%rsp), %%rsp\n\t" /* past the red zone */
                         "pushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\t"
                         "lea 128(%%rsp), %%rsp" ::
                             : "memory", "cc");
}

static NIO_ALWAYS_INLINE void step_off(void)
{
    __asm__ __volatile__("lea -128(%%rsp), %%rsp\n\t"
                         "pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq\n\t"
                         "lea 128(%%rsp), %%rsp" ::
                             : "memory", "cc");
}

static void step_entry(void *arg)
{
    (void)arg;
    coroutine_caller = __builtin_return_address(0);
    for (;;)
        nio_coro_switch_out(&co, &host);
}

static NIO_NOINLINE int step_through(void)
{
    host_caller = __builtin_return_address(0);
    step_on();
    nio_coro_switch_in(&host, &co); /* the first time, over the trampoline */
    nio_coro_switch_in(&host, &co);
    step_off();
    return sample_count;
}

static bool trace_holds(const struct trace *trace, const void *address)
{
    for (int i = 0; i < trace->count; i++)
        if (trace->frames[i] == address)
            return true;
    return false;
}

Test(unwind, works_at_every_instruction_of_the_switch, .timeout = 30)
{
    struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
    int on_host = 0;
    int in_coroutine = 0;
    int at_base = 0;
    start(step_entry);
    cr_assert_eq(sigaction(SIGTRAP, &action, NULL), 0);
    cr_assert_gt(step_through(), 40);
    cr_assert_not(is_full);
    for (int i = 0; i < sample_count; i++) {
        const struct trace *trace = &samples[i].trace;
        bool is_host = trace_holds(trace, host_caller);
        bool is_coroutine = trace_holds(trace, coroutine_caller);
        /* Before the trampoline has called anything there is no caller to find. */
        uintptr_t last = (uintptr_t)trace->frames[trace->count - 1];
        bool is_base = !is_coroutine && last - (uintptr_t)nio_coro_start_symbol < BASE_BYTES_MAX;
        cr_assert_lt(trace->count, FRAMES_MAX, "endless at switch+%zu",
                     (size_t)(samples[i].pc - (uintptr_t)nio_coro_swap_symbol));
        cr_assert_eq(is_host + is_coroutine + is_base, 1, "lost at switch+%zu: %d frames",
                     (size_t)(samples[i].pc - (uintptr_t)nio_coro_swap_symbol), trace->count);
        on_host += is_host;
        in_coroutine += is_coroutine;
        at_base += is_base;
    }
    cr_assert_gt(on_host, 20);
    cr_assert_gt(in_coroutine, 20);
    cr_assert_gt(at_base, 5);
}
#endif

/* gdb attaches to a child that waits inside a coroutine. */
static int ready_end;

static NIO_NOINLINE int gdb_leaf(int depth)
{
    ssize_t written = write(ready_end, "r", 1);
    (void)written; /* the parent gives up when the pipe closes */
    for (;;)
        (void)pause(); /* until the parent kills */
    return depth;
}

static NIO_NOINLINE int gdb_middle(int depth)
{
    int ret = gdb_leaf(depth) + 1;
    nio_coro_thread_barrier();
    return ret;
}

static void gdb_entry(void *arg)
{
    (void)arg;
    (void)gdb_middle(1);
    nio_coro_switch_last(&co, &host);
}

static pid_t child_in_coroutine(void)
{
    int ends[2];
    char byte;
    cr_assert_eq(pipe(ends), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        ready_end = ends[1];
        (void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* refused where nothing restricts it */
        (void)alarm(60);                                 /* if the parent dies */
        start(gdb_entry);
        nio_coro_switch_in(&host, &co);
        _exit(1);
    }
    (void)close(ends[1]);
    cr_assert_eq(read(ends[0], &byte, 1), 1);
    (void)close(ends[0]);
    return pid;
}

static void skip(const char *what)
{
    const char *required = getenv("NUMIO_REQUIRE");
    cr_assert_not(required && strstr(required, "gdb"), "%s, but NUMIO_REQUIRE wants gdb", what);
    cr_skip_test("%s", what);
}

Test(unwind, gdb_prints_the_callers_and_stops_at_the_base, .timeout = 60)
{
    static char output[OUTPUT_BYTES];
    char command[160];
    if (system("gdb --version > /dev/null 2>&1") != 0)
        skip("gdb is not installed");
    pid_t pid = child_in_coroutine();
    (void)snprintf(command, sizeof command,
                   "env -u DEBUGINFOD_URLS gdb -nx -batch -p %d -ex 'bt 40' 2>&1", (int)pid);
    FILE *gdb = popen(command, "r");
    cr_assert(gdb);
    size_t length = fread(output, 1, sizeof output - 1, gdb);
    output[length] = '\0';
    (void)pclose(gdb); /* what it printed is what counts */
    (void)kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    if (strstr(output, "ptrace: Operation not permitted"))
        skip("gdb may not attach here");
    const char *at = output;
    const char *callers[] = { "gdb_leaf", "gdb_middle", "gdb_entry", "nio_coro_start" };
    for (size_t i = 0; i < NIO_ARRAY_LEN(callers); i++) {
        at = strstr(at, callers[i]);
        cr_assert(at, "no %s in:\n%s", callers[i], output);
    }
    const char *line_end = strchr(at, '\n');
    cr_assert(line_end);
    cr_assert_null(strstr(line_end, "\n#"), "frames below the base:\n%s", output);
    cr_assert_null(strstr(output, "Backtrace stopped"), "gdb lost its way:\n%s", output);
    cr_assert_null(strstr(output, "corrupt"), "gdb lost its way:\n%s", output);
}
