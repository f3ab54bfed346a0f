/* SPDX-License-Identifier: MIT */
/* The promises of runtime/coro for a machine that is not at hand: one static program without a
 * test framework, built by scripts/cross_coro.sh for aarch64 and run under user-mode emulation.
 * It runs on any machine numio's coroutines run on.
 *
 * Exit status: 0 passed, 1 failed; each failed check is named on standard error.
 */
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/error.h"
#include "runtime/coro/coro.h"
#include "runtime/coro/overflow.h"

enum { STACK_BYTES = 64 * 1024, SWITCHES = 1000, CROWD = 200, FRAMES_MAX = 32 };

static int failures;
static int checks;

static void check(bool is_good, const char *promise)
{
    checks++;
    if (is_good)
        return;
    failures++;
    (void)fprintf(stderr, "coro_cross: broken: %s\n", promise); /* the exit status says it too */
}

struct scene {
    struct nio_coro co;
    struct nio_coro host;
    char *stack;
    uint64_t seen;
};

static void scene_start(struct scene *s, nio_coro_entry *entry)
{
    memset(s, 0, sizeof *s);
    s->stack = malloc(STACK_BYTES);
    if (!s->stack)
        abort();
    nio_coro_init(&s->co, s->stack, s->stack + STACK_BYTES, entry, s);
}

/* Fills the callee-saved registers with values counted up from `pattern`, swaps as told, and
 * returns how many came back changed. */
unsigned swap_with_pattern(void **save_sp, void *load_sp, uint64_t pattern);

#if defined(__aarch64__)
#define FILL(register, step) "    add " #register ", x2, #" #step "\n"
#define FILL_D(register, step) "    add x9, x2, #" #step "\n    fmov " #register ", x9\n"
#define TEST(register, step)                                                                       \
    "    add x9, x2, #" #step "\n    cmp " #register ", x9\n    cinc x0, x0, ne\n"
#define TEST_D(register, step) "    fmov x10, " #register "\n" TEST(x10, step)
#define EACH_X(do)                                                                                 \
    do                                                                                             \
    (x19, 1) do(x20, 2) do(x21, 3) do(x22, 4) do(x23, 5) do(x24, 6) do(x25, 7) do(x26, 8) do(      \
        x27, 9) do(x28, 10) do(x29, 11)
#define EACH_D(do)                                                                                 \
    do                                                                                             \
    (d8, 12) do(d9, 13) do(d10, 14) do(d11, 15) do(d12, 16) do(d13, 17) do(d14, 18) do(d15, 19)
__asm__("    .text\n"
        "    .globl swap_with_pattern\n"
        "swap_with_pattern:\n"
        "    hint #34\n"
        "    stp x29, x30, [sp, #-176]!\n"
        "    stp x19, x20, [sp, #16]\n    stp x21, x22, [sp, #32]\n"
        "    stp x23, x24, [sp, #48]\n    stp x25, x26, [sp, #64]\n"
        "    stp x27, x28, [sp, #80]\n    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n    str x2, [sp, #160]\n" EACH_X(FILL) EACH_D(
            FILL_D) "    bl nio_coro_swap_asm\n"
                    "    ldr x2, [sp, #160]\n    mov x0, #0\n" EACH_X(TEST) EACH_D(
                        TEST_D) "    ldp d14, d15, [sp, #144]\n    ldp d12, d13, [sp, #128]\n"
                                "    ldp d10, d11, [sp, #112]\n    ldp d8, d9, [sp, #96]\n"
                                "    ldp x27, x28, [sp, #80]\n    ldp x25, x26, [sp, #64]\n"
                                "    ldp x23, x24, [sp, #48]\n    ldp x21, x22, [sp, #32]\n"
                                "    ldp x19, x20, [sp, #16]\n    ldp x29, x30, [sp], #176\n"
                                "    ret\n");

static void keep_registers(void *arg)
{
    struct scene *s = arg;
    for (uint64_t i = 0; i < SWITCHES; i++)
        s->seen += swap_with_pattern(&s->co.sp, s->host.sp, 0x1111000000000000u + i * 64);
    s->co.sp = NULL;
    nio_coro_swap(&s->host.sp, s->host.sp);
}

static void check_registers(void)
{
    struct scene s;
    unsigned changed = 0;
    scene_start(&s, keep_registers);
    for (uint64_t i = 0; i <= SWITCHES; i++)
        changed += swap_with_pattern(&s.host.sp, s.co.sp, 0x2222000000000000u + i * 64);
    check(changed == 0, "callee-saved registers of the host survive");
    check(s.seen == 0, "callee-saved registers of the coroutine survive");
    check(nio_coro_is_finished(&s.co), "the end is seen by the host");
    free(s.stack);
}
#else
static void check_registers(void)
{
    puts("coro_cross: registers: tests/test_coro.c checks them on this machine");
}
#endif

static void count_steps(void *arg)
{
    struct scene *s = arg;
    double sum = 0;
    for (int i = 0; i < SWITCHES; i++) {
        sum += (double)i;
        nio_coro_switch_out(&s->co, &s->host);
    }
    s->seen = (uint64_t)sum + ((uintptr_t)__builtin_frame_address(0) & 15);
    nio_coro_switch_last(&s->co, &s->host);
}

static void check_crowd(void)
{
    static struct scene crowd[CROWD];
    bool is_good = true;
    for (int i = 0; i < CROWD; i++)
        scene_start(&crowd[i], count_steps);
    for (int step = 0; step <= SWITCHES; step++)
        for (int i = 0; i < CROWD; i++)
            nio_coro_switch_in(&crowd[i].host, &crowd[i].co);
    for (int i = 0; i < CROWD; i++) {
        is_good = is_good && nio_coro_is_finished(&crowd[i].co) &&
                  crowd[i].seen == (uint64_t)SWITCHES * (SWITCHES - 1) / 2;
        free(crowd[i].stack);
    }
    check(is_good, "locals and floating-point values live through suspension, stacks are aligned");
}

static _Thread_local int thread_number;

static NIO_CORO_THREAD_ACCESSOR int thread_number_get(void)
{
    nio_coro_thread_barrier();
    return thread_number;
}

static void note_threads(void *arg)
{
    struct scene *s = arg;
    for (int i = 0; i < 10; i++) {
        s->seen = s->seen * 2 + (uint64_t)thread_number_get();
        nio_coro_switch_out(&s->co, &s->host);
    }
    nio_coro_switch_last(&s->co, &s->host);
}

static void *resume_elsewhere(void *arg)
{
    struct scene *s = arg;
    thread_number = 1;
    nio_coro_switch_in(&s->host, &s->co);
    return NULL;
}

static void check_migration(void)
{
    struct scene s;
    pthread_t thread;
    scene_start(&s, note_threads);
    for (int i = 0; i < 5; i++) {
        nio_coro_switch_in(&s.host, &s.co);
        if (pthread_create(&thread, NULL, resume_elsewhere, &s) != 0)
            abort();
        (void)pthread_join(thread, NULL); /* fails only on a bad id */
    }
    nio_coro_switch_in(&s.host, &s.co);
    check(s.seen == 0x155, "a coroutine goes on on another thread and sees its thread-locals");
    check(nio_coro_is_finished(&s.co), "it ends there too");
    free(s.stack);
}

static void *frames[FRAMES_MAX];
static int frame_count;
static void *callers[2];

/* The trampoline at the base of every coroutine's stack. */
void nio_coro_start(void);

static NIO_NOINLINE int unwind_leaf(void)
{
    callers[0] = __builtin_return_address(0);
    frame_count = backtrace(frames, FRAMES_MAX);
    nio_coro_thread_barrier();
    return frame_count;
}

static void unwind_entry(void *arg)
{
    struct scene *s = arg;
    callers[1] = __builtin_return_address(0);
    nio_coro_switch_out(&s->co, &s->host);
    s->seen = (uint64_t)unwind_leaf();
    nio_coro_switch_last(&s->co, &s->host);
}

static void check_unwinding(void)
{
    struct scene s;
    scene_start(&s, unwind_entry);
    nio_coro_switch_in(&s.host, &s.co);
    nio_coro_switch_in(&s.host, &s.co);
    /* On machines that sign return addresses the signature is not part of the address. */
    uintptr_t mask = ((uintptr_t)1 << 48) - 1;
    bool is_good = s.seen == 3;
    for (int i = 0; is_good && i < 2; i++)
        is_good = (((uintptr_t)frames[i + 1] ^ (uintptr_t)callers[i]) & mask) == 0;
    check(is_good, "backtrace() holds every caller and ends at the base");
    check((uintptr_t)callers[1] - (uintptr_t)nio_coro_start < 32, "the base is the trampoline");
    free(s.stack);
}

/* A run-out stack in a child: what it printed and how it ended. */
static char *guarded;

static bool lookup(const void *address, struct nio_overflow_report *ret_report)
{
    if ((const char *)address < guarded || (const char *)address >= guarded + STACK_BYTES)
        return false;
    *ret_report = (struct nio_overflow_report){ .name = "cross",
                                                .file = "cross.c",
                                                .line = 7,
                                                .stack_low = guarded + STACK_BYTES,
                                                .stack_bytes = STACK_BYTES };
    return true;
}

static void run_out(void *arg)
{
    struct scene *s = arg;
    char block[STACK_BYTES + 1024];
    memset(block, 1, sizeof block);
    __asm__ __volatile__("" : : "r"(block) : "memory"); /* keeps the block */
    nio_coro_switch_last(&s->co, &s->host);
}

static _Noreturn void run_out_in_child(int error_end)
{
    static struct scene s;
    struct nio_overflow_thread thread;
    (void)dup2(error_end, STDERR_FILENO); /* the check of the output notices a failure */
    guarded =
        mmap(NULL, 2 * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (guarded == MAP_FAILED || mprotect(guarded, STACK_BYTES, PROT_NONE) != 0 ||
        nio_overflow_install(lookup) != 0 || nio_overflow_thread_enter(&thread) != 0)
        _exit(99);
    nio_coro_init(&s.co, guarded + STACK_BYTES, guarded + 2 * STACK_BYTES, run_out, &s);
    nio_coro_switch_in(&s.host, &s.co);
    _exit(98);
}

static void check_overflow(void)
{
    int ends[2];
    int status = 0;
    char output[512];
    size_t length = 0;
    ssize_t n;
    if (pipe(ends) != 0)
        abort();
    pid_t pid = fork();
    if (pid == 0)
        run_out_in_child(ends[1]);
    (void)close(ends[1]);
    while ((n = read(ends[0], output + length, sizeof output - 1 - length)) > 0)
        length += (size_t)n;
    output[length] = '\0';
    (void)close(ends[0]);
    (void)waitpid(pid, &status, 0); /* the check of the status notices */
    check(strstr(output, "numio: stack overflow in coroutine 'cross' spawned at cross.c:7 (65536 "
                         "bytes of stack); raise stack_bytes\n") != NULL,
          "a stack overflow is reported");
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "a stack overflow kills");
}

#if defined(__aarch64__) && defined(HWCAP2_BTI) && defined(PROT_BTI)
/* Branch target identification: the switch on a guarded page may be called through a pointer at
 * its landing pad, and nowhere else. */
typedef void swap_function(void **save_sp, void *load_sp);

static NIO_NOINLINE swap_function *guarded_swap(void)
{
    enum { SWAP_BYTES = 128 };
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        abort();
    memcpy(page, (const char *)(uintptr_t)nio_coro_swap_asm, SWAP_BYTES);
    __builtin___clear_cache(page, page + SWAP_BYTES);
    if (mprotect(page, 4096, PROT_READ | PROT_EXEC | PROT_BTI) != 0)
        abort();
    return (swap_function *)(uintptr_t)page;
}

static void finish_at_once(void *arg)
{
    struct scene *s = arg;
    s->seen = 1;
    nio_coro_swap(&s->host.sp, s->host.sp); /* entered without switch_in, so no switch_last */
}

static void check_landing_pad(void)
{
    struct scene s;
    int status = 0;
    if (!(getauxval(AT_HWCAP2) & HWCAP2_BTI)) {
        puts("coro_cross: landing pads: not checked, this processor has no BTI");
        return;
    }
    swap_function *swap = guarded_swap();
    scene_start(&s, finish_at_once);
    swap(&s.host.sp, s.co.sp);
    check(s.seen == 1, "the switch has a landing pad");
    pid_t pid = fork();
    if (pid == 0) {
        swap_function *past_the_pad = (swap_function *)((uintptr_t)swap + 4);
        scene_start(&s, finish_at_once);
        past_the_pad(&s.host.sp, s.co.sp);
        _exit(0);
    }
    (void)waitpid(pid, &status, 0); /* the check of the status notices */
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL, "landing pads are enforced here");
    free(s.stack);
}
#else
static void check_landing_pad(void)
{
    puts("coro_cross: landing pads: not checked on this machine");
}
#endif

int main(void)
{
    struct rlimit none = { 0, 0 };
    (void)setrlimit(RLIMIT_CORE, &none); /* two children die on purpose; spares the disk */
    if (nio_coro_check() != 0) {
        (void)fprintf(stderr, "coro_cross: %s\n", numio_strerror_detail());
        return 1;
    }
    check_registers();
    check_crowd();
    check_migration();
    check_unwinding();
    check_overflow();
    check_landing_pad();
    printf("coro_cross: %d checks, %d failures\n", checks, failures);
    return failures != 0;
}
