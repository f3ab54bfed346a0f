/* SPDX-License-Identifier: MIT */
/* Promises of runtime/coro/coro.h.  Coroutines fill a record; the test asserts after they have
 * gone back to it. */
#include <criterion/criterion.h>

#include <fenv.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/coro/coro.h"

enum {
    STACK_BYTES = 64 * 1024, /* room for Criterion's and the sanitizers' frames */
    SWITCHES = 1000,
    CROWD = 500,
    TRACE_MAX = 16
};

/* A coroutine, its host and what it saw. */
struct scene {
    struct nio_coro co;
    struct nio_coro host;
    char *stack;
    int trace[TRACE_MAX];
    int trace_count;
    uintptr_t seen;
};

static void scene_start(struct scene *s, nio_coro_entry *entry)
{
    memset(s, 0, sizeof *s);
    s->stack = malloc(STACK_BYTES);
    cr_assert(s->stack);
    memset(s->stack, 0xa5, STACK_BYTES);
    nio_coro_init(&s->co, s->stack, s->stack + STACK_BYTES, entry, s);
}

static void scene_end(struct scene *s)
{
    free(s->stack);
}

static void scene_note(struct scene *s, int value)
{
    if (s->trace_count < TRACE_MAX)
        s->trace[s->trace_count++] = value;
}

static void resume(struct scene *s)
{
    nio_coro_switch_in(&s->host, &s->co);
}

static NIO_NOINLINE void suspend(struct scene *s)
{
    nio_coro_switch_out(&s->co, &s->host);
}

static void note_argument(void *arg)
{
    struct scene *s = arg;
    s->seen = (uintptr_t)arg;
    nio_coro_switch_last(&s->co, &s->host);
}

Test(coro, entry_gets_its_argument)
{
    struct scene s;
    scene_start(&s, note_argument);
    resume(&s);
    cr_assert_eq(s.seen, (uintptr_t)&s);
    scene_end(&s);
}

static void note_steps(void *arg)
{
    struct scene *s = arg;
    scene_note(s, 2);
    suspend(s);
    scene_note(s, 4);
    suspend(s);
    scene_note(s, 6);
    nio_coro_switch_last(&s->co, &s->host);
}

Test(coro, goes_on_where_it_suspended)
{
    struct scene s;
    scene_start(&s, note_steps);
    for (int step = 1; step <= 5; step += 2) {
        cr_assert_not(nio_coro_is_finished(&s.co));
        scene_note(&s, step);
        resume(&s);
    }
    cr_assert(nio_coro_is_finished(&s.co));
    cr_assert_eq(s.trace_count, 6);
    for (int i = 0; i < 6; i++)
        cr_assert_eq(s.trace[i], i + 1);
    scene_end(&s);
}

static void note_stack(void *arg)
{
    struct scene *s = arg;
    s->seen = (uintptr_t)__builtin_frame_address(0);
    nio_coro_switch_last(&s->co, &s->host);
}

Test(coro, stack_is_aligned_even_if_its_top_is_not)
{
    for (size_t off = 0; off < 16; off++) {
        struct scene s;
        scene_start(&s, note_stack);
        nio_coro_init(&s.co, s.stack, s.stack + STACK_BYTES - off, note_stack, &s);
        resume(&s);
        cr_assert_eq(s.seen % 16, 0, "top lowered by %zu bytes", off);
        scene_end(&s);
    }
}

Test(coro, runs_on_the_stack_it_was_given)
{
    struct scene s;
    scene_start(&s, note_stack);
    resume(&s);
    cr_assert(s.seen > (uintptr_t)s.stack && s.seen < (uintptr_t)s.stack + STACK_BYTES);
    scene_end(&s);
}

#if !NIO_SANITIZER_FIBERS
/* Fills the callee-saved registers with values counted up from `pattern`, swaps as told, and
 * returns how many came back changed. */
unsigned swap_with_pattern(void **save_sp, void *load_sp, uint64_t pattern);

#if defined(__x86_64__)
__asm__("    .text\n"
        "    .globl swap_with_pattern\n"
        "swap_with_pattern:\n"
        "    push %rbx\n    push %rbp\n    push %r12\n    push %r13\n    push %r14\n"
        "    push %r15\n    push %rdx\n"
        "    lea 1(%rdx), %rbx\n    lea 2(%rdx), %rbp\n    lea 3(%rdx), %r12\n"
        "    lea 4(%rdx), %r13\n    lea 5(%rdx), %r14\n    lea 6(%rdx), %r15\n"
        "    lea 1f(%rip), %rdx\n    jmp nio_coro_swap_asm\n1:  endbr64\n"
        "    pop %rdx\n"
        "    xor %eax, %eax\n"
        "    inc %rdx\n    cmp %rdx, %rbx\n    setne %cl\n    add %cl, %al\n"
        "    inc %rdx\n    cmp %rdx, %rbp\n    setne %cl\n    add %cl, %al\n"
        "    inc %rdx\n    cmp %rdx, %r12\n    setne %cl\n    add %cl, %al\n"
        "    inc %rdx\n    cmp %rdx, %r13\n    setne %cl\n    add %cl, %al\n"
        "    inc %rdx\n    cmp %rdx, %r14\n    setne %cl\n    add %cl, %al\n"
        "    inc %rdx\n    cmp %rdx, %r15\n    setne %cl\n    add %cl, %al\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbp\n    pop %rbx\n"
        "    ret\n");
#endif

static void keep_registers(void *arg)
{
    struct scene *s = arg;
    for (uint64_t i = 0; i < SWITCHES; i++)
        s->seen += swap_with_pattern(&s->co.sp, s->host.sp, 0x1111000000000000u + i * 64);
    s->co.sp = NULL;
    void *unused_sp;
    nio_coro_swap(&unused_sp, s->host.sp);
}

Test(coro, callee_saved_registers_survive_on_both_sides)
{
    struct scene s;
    scene_start(&s, keep_registers);
    for (uint64_t i = 0; i <= SWITCHES; i++)
        cr_assert_eq(swap_with_pattern(&s.host.sp, s.co.sp, 0x2222000000000000u + i * 64), 0);
    cr_assert_eq(s.seen, 0);
    cr_assert(nio_coro_is_finished(&s.co));
    scene_end(&s);
}
#endif

static void inner_steps(void *arg)
{
    struct scene *s = arg;
    scene_note(s, 1);
    suspend(s);
    scene_note(s, 2);
    nio_coro_switch_last(&s->co, &s->host);
}

struct nest {
    struct scene outer; /* first, so that the entry function finds the rest */
    struct scene inner;
};

static void outer_steps(void *arg)
{
    struct nest *nest = arg;
    resume(&nest->inner);
    suspend(&nest->outer);
    resume(&nest->inner);
    nio_coro_switch_last(&nest->outer.co, &nest->outer.host);
}

Test(coro, a_coroutine_hosts_another)
{
    struct nest nest;
    scene_start(&nest.outer, outer_steps);
    scene_start(&nest.inner, inner_steps);
    resume(&nest.outer);
    cr_assert_eq(nest.inner.trace_count, 1);
    cr_assert_not(nio_coro_is_finished(&nest.outer.co));
    resume(&nest.outer);
    cr_assert_eq(nest.inner.trace_count, 2);
    cr_assert(nio_coro_is_finished(&nest.inner.co));
    cr_assert(nio_coro_is_finished(&nest.outer.co));
    scene_end(&nest.inner);
    scene_end(&nest.outer);
}

/* A frame with arrays, so that ASan puts red zones (or a fake frame) around them. */
static NIO_NOINLINE unsigned churn(struct scene *s, unsigned seed)
{
    unsigned char block[512];
    memset(block, (int)(seed & 0xff), sizeof block);
    suspend(s);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof block; i++)
        sum += block[i] == (seed & 0xff);
    return sum;
}

static void churn_steps(void *arg)
{
    struct scene *s = arg;
    unsigned seed = (unsigned)(uintptr_t)s;
    s->seen = 1;
    for (unsigned i = 0; i < 10; i++)
        if (churn(s, seed + i) != 512)
            s->seen = 0;
    nio_coro_switch_last(&s->co, &s->host);
}

Test(coro, locals_live_through_suspension_in_a_crowd, .timeout = 60)
{
    struct scene *crowd = calloc(CROWD, sizeof *crowd);
    cr_assert(crowd);
    for (int i = 0; i < CROWD; i++)
        scene_start(&crowd[i], churn_steps);
    for (int step = 0; step <= 10; step++)
        for (int i = 0; i < CROWD; i++)
            resume(&crowd[i]);
    for (int i = 0; i < CROWD; i++) {
        cr_assert(nio_coro_is_finished(&crowd[i].co));
        cr_assert(crowd[i].seen);
        scene_end(&crowd[i]);
    }
    free(crowd);
}

/* Values that the compiler would like to keep in registers of every kind across the switch. */
static NIO_NOINLINE double mixture(struct nio_coro *c, struct nio_coro *other, bool is_inside,
                                   long seed)
{
    double sum = 0.5 * (double)seed;
    float single = 0.25f * (float)seed;
    long double wide = 3.0L * (long double)seed;
    long whole = seed * 7;
    for (int i = 0; i < SWITCHES; i++) {
        if (is_inside)
            nio_coro_switch_out(c, other);
        else
            nio_coro_switch_in(other, c);
        sum += 1.0;
        single += 1.0f;
        wide += 1.0L;
        whole += 1;
    }
    return sum + (double)single + (double)wide + (double)whole;
}

static double mixture_expected(long seed)
{
    return 10.75 * (double)seed + 4.0 * SWITCHES;
}

static void mix(void *arg)
{
    struct scene *s = arg;
    s->seen = mixture(&s->co, &s->host, true, 12) == mixture_expected(12);
    nio_coro_switch_last(&s->co, &s->host);
}

Test(coro, values_of_every_kind_survive_on_both_sides)
{
    struct scene s;
    scene_start(&s, mix);
    cr_assert_eq(mixture(&s.co, &s.host, false, 100), mixture_expected(100));
    resume(&s);
    cr_assert(nio_coro_is_finished(&s.co));
    cr_assert(s.seen);
    scene_end(&s);
}

/* Ends from inside frames that never return, with arrays of their own. */
static NIO_NOINLINE void end_below(struct scene *s, const char *text)
{
    char copy[256];
    memset(copy, text[0], sizeof copy);
    s->seen = (uintptr_t)(unsigned char)copy[255];
    nio_coro_switch_last(&s->co, &s->host);
}

static void end_deep(void *arg)
{
    char text[64] = "x";
    end_below(arg, text);
}

static void fill_stack(void *arg)
{
    struct scene *s = arg;
    unsigned char block[4096];
    memset(block, 1, sizeof block);
    suspend(s);
    s->seen = block[0] + block[sizeof block - 1];
    nio_coro_switch_last(&s->co, &s->host);
}

Test(coro, stack_is_reusable_right_after_the_end)
{
    struct scene s;
    scene_start(&s, end_deep);
    for (int i = 0; i < SWITCHES; i++) {
        nio_coro_init(&s.co, s.stack, s.stack + STACK_BYTES, end_deep, &s);
        resume(&s);
        cr_assert_eq(s.seen, 'x');
        memset(s.stack, 0, STACK_BYTES); /* ASan would object to a red zone left behind */
        nio_coro_init(&s.co, s.stack, s.stack + STACK_BYTES, fill_stack, &s);
        resume(&s);
        resume(&s);
        cr_assert_eq(s.seen, 2);
    }
    scene_end(&s);
}

Test(coro, one_that_never_runs_needs_no_clean_up)
{
    struct scene s;
    scene_start(&s, note_argument);
    cr_assert_eq(s.seen, 0);
    scene_end(&s); /* the leak checker has the word */
}

Test(coro, a_context_is_at_most_a_cache_line)
{
#if !NIO_SANITIZER_FIBERS
    cr_assert_leq(sizeof(struct nio_coro), 64);
#endif
    cr_assert_eq(nio_coro_check(), 0);
}

/* Migration: two threads resume one coroutine in turn. */
static _Thread_local int thread_number;

static NIO_CORO_THREAD_ACCESSOR int thread_number_get(void)
{
    nio_coro_thread_barrier();
    return thread_number;
}

struct relay {
    struct scene scene; /* first, so that the entry function finds the rest */
    sem_t turn[2];
    bool is_mixed_up;
};

static void note_threads(void *arg)
{
    struct relay *relay = arg;
    for (int i = 0; i < SWITCHES; i++) {
        int before = thread_number_get();
        suspend(&relay->scene);
        relay->is_mixed_up |= thread_number_get() == before;
    }
    nio_coro_switch_last(&relay->scene.co, &relay->scene.host);
}

static void relay_run(struct relay *relay, int number)
{
    thread_number = number;
    bool is_finished;
    do {
        (void)sem_wait(&relay->turn[number]); /* no signal handlers here, so no EINTR */
        is_finished = nio_coro_is_finished(&relay->scene.co);
        if (!is_finished)
            resume(&relay->scene);
        (void)sem_post(&relay->turn[1 - number]); /* far below SEM_VALUE_MAX */
    } while (!is_finished);
}

static void *relay_second(void *arg)
{
    relay_run(arg, 1);
    return NULL;
}

Test(coro, goes_on_on_another_thread, .timeout = 60)
{
    struct relay relay = { .is_mixed_up = false };
    scene_start(&relay.scene, note_threads);
    cr_assert_eq(sem_init(&relay.turn[0], 0, 1), 0);
    cr_assert_eq(sem_init(&relay.turn[1], 0, 0), 0);
    pthread_t second;
    cr_assert_eq(pthread_create(&second, NULL, relay_second, &relay), 0);
    relay_run(&relay, 0);
    cr_assert_eq(pthread_join(second, NULL), 0);
    cr_assert(nio_coro_is_finished(&relay.scene.co));
    cr_assert_not(relay.is_mixed_up);
    scene_end(&relay.scene);
}

static void note_rounding(void *arg)
{
    struct scene *s = arg;
    s->seen = (uintptr_t)fegetround();
    nio_coro_switch_last(&s->co, &s->host);
}

Test(coro, rounding_mode_is_the_threads)
{
    struct scene s;
    scene_start(&s, note_rounding);
    cr_assert_eq(fesetround(FE_UPWARD), 0);
    resume(&s);
    cr_assert_eq(fesetround(FE_TONEAREST), 0);
    cr_assert_eq(s.seen, FE_UPWARD);
    scene_end(&s);
}

#ifdef NIO_DEBUG
static void change_rounding(void *arg)
{
    struct scene *s = arg;
    (void)fesetround(FE_DOWNWARD); /* takes every mode of the machine */
    suspend(s);
    nio_coro_switch_last(&s->co, &s->host);
}

Test(coro, suspending_with_another_rounding_mode_aborts_in_debug_builds, .signal = SIGABRT)
{
    struct scene s;
    scene_start(&s, change_rounding);
    resume(&s);
}

static void enter_itself(void *arg)
{
    struct scene *s = arg;
    struct nio_coro host = { .sp = NULL };
    nio_coro_switch_in(&host, &s->co);
}

Test(coro, entering_a_running_coroutine_aborts_in_debug_builds, .signal = SIGABRT)
{
    struct scene s;
    scene_start(&s, enter_itself);
    resume(&s);
}

Test(coro, entering_a_finished_coroutine_aborts_in_debug_builds, .signal = SIGABRT)
{
    struct scene s;
    scene_start(&s, note_argument);
    resume(&s);
    resume(&s);
}
#endif

Test(coro, a_stack_too_small_to_start_on_aborts, .signal = SIGABRT)
{
    char stack[NIO_CORO_STACK_BYTES_MIN / 2];
    struct nio_coro co;
    nio_coro_init(&co, stack, stack + sizeof stack, note_argument, NULL);
}
