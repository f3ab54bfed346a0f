/* SPDX-License-Identifier: MIT */
/* Promises of runtime/coro/overflow.h.  Each fault happens in a child, whose standard error and
 * end the test then looks at. */
#include <criterion/criterion.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/mem.h"
#include "runtime/coro/coro.h"
#include "runtime/coro/overflow.h"

enum {
    GUARD_BYTES = 64 * 1024,
    STACK_BYTES = 32 * 1024,
    OUTPUT_BYTES = 4096,
    EXIT_CHAINED = 7,
    EXIT_SURVIVED = 8,
    EXIT_SETUP = 99
};

static char *guard; /* a guard, and the stack above it */
static char *stray; /* a page nobody may touch */
static const char *coroutine_name = "quote reader";
static const char *coroutine_file = "src/feed.c";
static int lookups;

static bool lookup(const void *address, struct nio_overflow_report *ret_report)
{
    lookups++;
    if ((const char *)address < guard || (const char *)address >= guard + GUARD_BYTES)
        return false;
    *ret_report = (struct nio_overflow_report){ .name = coroutine_name,
                                                .file = coroutine_file,
                                                .line = 42,
                                                .stack_low = guard + GUARD_BYTES,
                                                .stack_bytes = STACK_BYTES };
    return true;
}

static bool other_lookup(const void *address, struct nio_overflow_report *ret_report)
{
    (void)address;
    (void)ret_report;
    return false;
}

static char *map(size_t bytes, int protection)
{
    char *memory = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        _exit(EXIT_SETUP);
    return memory;
}

/* What every child starts with: no core file, no handler, the report installed. */
static void child_prepare(void)
{
    struct rlimit none = { 0, 0 };
    (void)setrlimit(RLIMIT_CORE, &none); /* only spares the disk */
    guard = map(GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE);
    stray = map(4096, PROT_NONE);
    if (mprotect(guard, GUARD_BYTES, PROT_NONE) != 0)
        _exit(EXIT_SETUP);
}

static void child_install(void)
{
    struct nio_overflow_thread thread;
    stack_t none = { .ss_flags = SS_DISABLE }; /* a sanitizer's */
    (void)sigaltstack(&none, NULL);            /* no handler is running */
    if (nio_overflow_install(lookup) != 0 || nio_overflow_thread_enter(&thread) != 0)
        _exit(EXIT_SETUP);
}

static void default_actions(void)
{
    (void)signal(SIGSEGV, SIG_DFL); /* takes every catchable signal */
    (void)signal(SIGBUS, SIG_DFL);
}

struct ending {
    int status;
    char output[OUTPUT_BYTES];
};

/* Runs `body` in a child to its end. */
static void in_child(void (*body)(void), struct ending *ret_ending)
{
    int ends[2];
    size_t length = 0;
    ssize_t n;
    cr_assert_eq(pipe(ends), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        (void)dup2(ends[1], STDERR_FILENO); /* the assertions on the output notice a failure */
        (void)close(ends[0]);
        (void)close(ends[1]);
        default_actions();
        child_prepare();
        body();
        _exit(EXIT_SURVIVED);
    }
    (void)close(ends[1]);
    while ((n = read(ends[0], ret_ending->output + length, OUTPUT_BYTES - 1 - length)) > 0)
        length += (size_t)n;
    ret_ending->output[length] = '\0';
    (void)close(ends[0]);
    cr_assert_eq(waitpid(pid, &ret_ending->status, 0), pid);
}

static struct nio_coro overflowing;
static struct nio_coro host;

/* Makes the compiler believe that somebody looks at the memory. */
static void keep(const char *memory)
{
    __asm__ __volatile__("" : : "r"(memory) : "memory");
}

/* Two thirds of the stack in each frame. */
static NIO_NOINLINE void dig_deeper(char *above)
{
    char block[STACK_BYTES / 3 * 2];
    memset(block, above[0], sizeof block);
    keep(block);
    above[0] = block[sizeof block - 1];
}

static void dig(void *arg)
{
    char block[STACK_BYTES / 3 * 2];
    (void)arg;
    memset(block, 1, sizeof block);
    keep(block);
    dig_deeper(block);
    keep(block);
    nio_coro_switch_last(&overflowing, &host);
}

static void run_overflow(void)
{
    nio_coro_init(&overflowing, guard + GUARD_BYTES, guard + GUARD_BYTES + STACK_BYTES, dig, NULL);
    nio_coro_switch_in(&host, &overflowing);
}

static void body_overflow(void)
{
    child_install();
    run_overflow();
}

static void assert_killed(const struct ending *ending, int by)
{
    cr_assert(WIFSIGNALED(ending->status), "status %#x, output: %s", (unsigned)ending->status,
              ending->output);
    cr_assert_eq(WTERMSIG(ending->status), by);
}

Test(overflow, is_reported_with_name_and_spawn_place_and_kills, .timeout = 30)
{
    struct ending ending;
    in_child(body_overflow, &ending);
    assert_killed(&ending, SIGSEGV);
    cr_assert_str_eq(ending.output,
                     "numio: stack overflow in coroutine 'quote reader' spawned at src/feed.c:42 "
                     "(32768 bytes of stack); raise stack_bytes\n");
}

static void *overflow_thread(void *arg)
{
    struct nio_overflow_thread thread;
    (void)arg;
    if (nio_overflow_thread_enter(&thread) != 0)
        _exit(EXIT_SETUP);
    run_overflow();
    return NULL;
}

static void body_overflow_in_thread(void)
{
    pthread_t thread;
    child_install();
    if (pthread_create(&thread, NULL, overflow_thread, NULL) != 0)
        _exit(EXIT_SETUP);
    (void)pthread_join(thread, NULL); /* the process dies first */
}

Test(overflow, is_reported_from_any_thread_that_entered, .timeout = 30)
{
    struct ending ending;
    in_child(body_overflow_in_thread, &ending);
    assert_killed(&ending, SIGSEGV);
    cr_assert(strstr(ending.output, "stack overflow in coroutine 'quote reader'"));
}

static void body_unnamed(void)
{
    coroutine_name = NULL;
    body_overflow();
}

Test(overflow, a_coroutine_without_a_name_is_found_by_its_place, .timeout = 30)
{
    struct ending ending;
    in_child(body_unnamed, &ending);
    assert_killed(&ending, SIGSEGV);
    cr_assert_str_eq(ending.output, "numio: stack overflow in coroutine spawned at src/feed.c:42 "
                                    "(32768 bytes of stack); raise stack_bytes\n");
}

static char long_text[2001];

static void body_long(void)
{
    memset(long_text, 'x', sizeof long_text - 1);
    coroutine_name = long_text;
    coroutine_file = long_text;
    body_overflow();
}

Test(overflow, long_names_are_cut_and_the_line_stays_whole, .timeout = 30)
{
    struct ending ending;
    in_child(body_long, &ending);
    assert_killed(&ending, SIGSEGV);
    cr_assert_lt(strlen(ending.output), 400);
    cr_assert(strstr(ending.output, "x:42 (32768 bytes of stack); raise stack_bytes\n"));
}

static void poke(char *where)
{
    *where = 1;
    keep(where);
}

static void body_guard_from_outside(void)
{
    child_install();
    poke(guard + 100);
}

Test(overflow, a_stray_access_to_a_guard_is_told_apart, .timeout = 30)
{
    struct ending ending;
    in_child(body_guard_from_outside, &ending);
    assert_killed(&ending, SIGSEGV);
    cr_assert(strstr(ending.output, "numio: stray access to the guard below the stack of coroutine "
                                    "'quote reader' spawned at src/feed.c:42"));
}

static void body_plain_fault(void)
{
    child_install();
    poke(stray);
}

Test(overflow, another_fault_without_a_handler_kills_silently, .timeout = 30)
{
    struct ending ending;
    in_child(body_plain_fault, &ending);
    assert_killed(&ending, SIGSEGV);
    cr_assert_str_eq(ending.output, "");
}

static void leave_with_info(int sig, siginfo_t *info, void *context)
{
    sigset_t mask;
    (void)context;
    (void)sigprocmask(SIG_BLOCK, NULL, &mask); /* only reads */
    bool is_right = sig == SIGSEGV && info->si_addr == stray && sigismember(&mask, SIGUSR1) == 1;
    _exit(is_right ? EXIT_CHAINED : EXIT_SETUP);
}

static void body_chain_to_info(void)
{
    struct sigaction action = { .sa_sigaction = leave_with_info, .sa_flags = SA_SIGINFO };
    (void)sigaddset(&action.sa_mask, SIGUSR1); /* takes valid signals */
    (void)sigaction(SIGSEGV, &action, NULL);
    child_install();
    poke(stray);
}

Test(overflow, another_fault_goes_to_the_handler_before_with_its_mask, .timeout = 30)
{
    struct ending ending;
    in_child(body_chain_to_info, &ending);
    cr_assert(WIFEXITED(ending.status));
    cr_assert_eq(WEXITSTATUS(ending.status), EXIT_CHAINED);
    cr_assert_str_eq(ending.output, "");
}

static void note_and_return(int sig)
{
    const char *text = sig == SIGBUS ? "bus " : "segv ";
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written; /* the assertion on the output notices */
}

static void body_chain_once(void)
{
    struct sigaction action = { .sa_handler = note_and_return, .sa_flags = (int)SA_RESETHAND };
    (void)sigaction(SIGBUS, &action, NULL); /* takes valid signals */
    child_install();
    (void)raise(SIGBUS);
    (void)raise(SIGBUS);
}

Test(overflow, a_one_shot_handler_before_is_called_once, .timeout = 30)
{
    struct ending ending;
    in_child(body_chain_once, &ending);
    assert_killed(&ending, SIGBUS);
    cr_assert_str_eq(ending.output, "bus ");
}

static void body_sent_default(void)
{
    child_install();
    (void)raise(SIGSEGV);
}

Test(overflow, a_sent_signal_still_kills, .timeout = 30)
{
    struct ending ending;
    in_child(body_sent_default, &ending);
    assert_killed(&ending, SIGSEGV);
    cr_assert_str_eq(ending.output, "");
}

static void body_sent_ignored(void)
{
    (void)signal(SIGSEGV, SIG_IGN); /* takes every catchable signal */
    child_install();
    (void)raise(SIGSEGV);
    _exit(lookups == 0 ? EXIT_SURVIVED : EXIT_SETUP);
}

Test(overflow, a_sent_signal_that_was_ignored_stays_ignored, .timeout = 30)
{
    struct ending ending;
    in_child(body_sent_ignored, &ending);
    cr_assert(WIFEXITED(ending.status));
    cr_assert_eq(WEXITSTATUS(ending.status), EXIT_SURVIVED);
}

static void body_fault_ignored(void)
{
    (void)signal(SIGSEGV, SIG_IGN); /* takes every catchable signal */
    child_install();
    poke(stray);
}

Test(overflow, a_fault_cannot_be_ignored, .timeout = 30)
{
    struct ending ending;
    in_child(body_fault_ignored, &ending);
    assert_killed(&ending, SIGSEGV);
}

Test(overflow, installs_once)
{
    cr_assert_eq(nio_overflow_install(NULL), -EINVAL);
    cr_assert_eq(nio_overflow_install(lookup), 0);
    cr_assert_eq(nio_overflow_install(lookup), 0);
    cr_assert_eq(nio_overflow_install(other_lookup), -EBUSY);
    default_actions();
}

struct alternate {
    int entered;
    bool had_ours;
    bool is_disabled_after;
    bool kept_own;
};

/* On a thread of its own: Criterion and the sanitizers use the test's. */
static void *alternate_stack(void *arg)
{
    struct alternate *ret = arg;
    struct nio_overflow_thread thread = { .stack = NULL };
    stack_t now = { .ss_flags = SS_DISABLE };
    stack_t before;
    (void)sigaltstack(&now, &before); /* no handler is running */
    ret->entered = nio_overflow_thread_enter(&thread);
    (void)sigaltstack(NULL, &now);
    ret->had_ours = thread.stack && now.ss_sp == thread.stack;
    struct nio_overflow_thread again;
    ret->kept_own = nio_overflow_thread_enter(&again) == 0 && !again.stack;
    nio_overflow_thread_leave(&again);
    (void)sigaltstack(NULL, &now);
    ret->kept_own = ret->kept_own && now.ss_sp == thread.stack;
    nio_overflow_thread_leave(&thread);
    nio_overflow_thread_leave(&thread);
    (void)sigaltstack(NULL, &now);
    ret->is_disabled_after = now.ss_flags & SS_DISABLE;
    if (!(before.ss_flags & SS_DISABLE))
        (void)sigaltstack(&before, NULL); /* the sanitizer frees it at the thread's end */
    return NULL;
}

Test(overflow, a_thread_gets_a_signal_stack_unless_it_has_one, .timeout = 30)
{
    struct alternate result;
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, alternate_stack, &result), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(result.entered, 0);
    cr_assert(result.had_ours);
    cr_assert(result.kept_own);
    cr_assert(result.is_disabled_after);
}

#ifdef NIO_TEST_POINTS
Test(overflow, without_memory_a_thread_is_told_and_left_as_it_was)
{
    struct nio_overflow_thread thread;
    stack_t none = { .ss_flags = SS_DISABLE };
    stack_t before;
    stack_t after;
    (void)sigaltstack(&none, &before); /* no handler is running */
    nio_fault_arm(1);
    int ret = nio_overflow_thread_enter(&thread);
    nio_fault_arm(0);
    (void)sigaltstack(NULL, &after);
    if (!(before.ss_flags & SS_DISABLE))
        (void)sigaltstack(&before, NULL);
    cr_assert_eq(ret, -ENOMEM);
    cr_assert(after.ss_flags & SS_DISABLE);
    nio_overflow_thread_leave(&thread);
}
#endif
