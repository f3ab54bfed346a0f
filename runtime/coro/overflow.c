/* SPDX-License-Identifier: MIT */
/* The handler for faults in the guard of a coroutine's stack.
 *
 * State.  One record per process, because signal dispositions are the process's.  Everything in it
 * is written under the lock before `lookup` is published and constant afterwards; the handler
 * reads it without the lock.  There is no way back: whoever chained to this handler later would
 * be left with a dangling one.
 *
 * Overflow or stray access.  A guard is also hit by a wild pointer, and by code on the stack below
 * it that writes past its own top.  The stack pointer tells: an overflow has it below the stack's
 * top and not far below the faulting address, since a frame is addressed upwards from it.  Code
 * on a neighbouring stack that lies within that distance is taken for an overflow.
 *
 * Chaining.  The old handler runs with the signal mask and the SA_NODEFER, SA_RESTART and
 * SA_RESETHAND it asked for, but on the alternate stack where the thread has one.
 */
#include "runtime/coro/overflow.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "runtime/base/error.h"
#include "runtime/base/lock.h"
#include "runtime/base/mem.h"

enum {
    LINE_BYTES = 512,
    NAME_BYTES_MAX = 64,
    FILE_BYTES_MAX = 160,
    FRAME_BYTES_MAX = 1 << 20,      /* the largest frame that is taken for an overflow */
    HANDLER_STACK_BYTES = 32 * 1024 /* for this handler and one it chains to */
};

static const int handled_signals[] = { SIGSEGV, SIGBUS };

static struct {
    struct nio_lock lock;
    nio_overflow_lookup *_Atomic lookup; /* under the lock, once; any thread reads */
    struct sigaction previous[NIO_ARRAY_LEN(handled_signals)]; /* constant once lookup is set */
} installed = { .lock = { .rank = NIO_RANK_LEAF } };

#if defined(__x86_64__)
static uintptr_t context_sp(const ucontext_t *context)
{
    return (uintptr_t)context->uc_mcontext.gregs[REG_RSP];
}
#elif defined(__aarch64__)
static uintptr_t context_sp(const ucontext_t *context)
{
    return context->uc_mcontext.sp;
}
#endif

/* A line of text that is cut when it is full; stdio may not be used in a handler. */
struct line {
    char text[LINE_BYTES];
    size_t length;
};

static void line_add_bytes(struct line *line, const char *bytes, size_t count)
{
    size_t room = sizeof line->text - line->length;
    if (count > room)
        count = room;
    memcpy(line->text + line->length, bytes, count);
    line->length += count;
}

static void line_add(struct line *line, const char *text)
{
    line_add_bytes(line, text, strlen(text));
}

static void line_add_number(struct line *line, size_t number)
{
    char digits[24];
    size_t first = sizeof digits;
    do {
        digits[--first] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    line_add_bytes(line, digits + first, sizeof digits - first);
}

static void line_add_who(struct line *line, const struct nio_overflow_report *report)
{
    line_add(line, "coroutine ");
    if (report->name) {
        line_add(line, "'");
        line_add_bytes(line, report->name, strnlen(report->name, NAME_BYTES_MAX));
        line_add(line, "' ");
    }
    line_add(line, "spawned at ");
    const char *file = report->file ? report->file : "?";
    size_t length = strlen(file);
    size_t cut = length > FILE_BYTES_MAX ? length - FILE_BYTES_MAX : 0;
    line_add_bytes(line, file + cut, length - cut);
    line_add(line, ":");
    line_add_number(line, report->line > 0 ? (size_t)report->line : 0);
}

static bool is_overflow(const struct nio_overflow_report *report, uintptr_t address, uintptr_t sp)
{
    uintptr_t high = (uintptr_t)report->stack_low + report->stack_bytes;
    return sp <= high && sp + FRAME_BYTES_MAX > address;
}

static void report_write(const struct nio_overflow_report *report, uintptr_t address, uintptr_t sp)
{
    struct line line = { .length = 0 };
    if (is_overflow(report, address, sp)) {
        line_add(&line, "numio: stack overflow in ");
        line_add_who(&line, report);
        line_add(&line, " (");
        line_add_number(&line, report->stack_bytes);
        line_add(&line, " bytes of stack); raise stack_bytes\n");
    } else {
        line_add(&line, "numio: stray access to the guard below the stack of ");
        line_add_who(&line, report);
        line_add(&line, ", by code that runs on another stack\n");
    }
    ssize_t written = write(STDERR_FILENO, line.text, line.length);
    (void)written; /* the process is dying; there is nowhere else to say it */
}

/* After this the signal kills: at the faulting instruction, which is run again when the handler
 * returns, or right then when it was sent and not caused. */
static void signal_restore_default(int signal, bool is_sent)
{
    struct sigaction action = { .sa_handler = SIG_DFL };
    (void)sigaction(signal, &action, NULL); /* cannot fail with these signals */
    if (is_sent)
        (void)raise(signal); /* pending until the handler returns */
}

static void chain(int signal, siginfo_t *info, void *context)
{
    const struct sigaction *previous = &installed.previous[signal == SIGSEGV ? 0 : 1];
    bool is_sent = info->si_code <= 0;
    if (previous->sa_handler == SIG_IGN && is_sent)
        return;
    if (previous->sa_handler == SIG_IGN || previous->sa_handler == SIG_DFL) {
        signal_restore_default(signal, is_sent); /* the kernel ignores no fault */
        return;
    }
    if (previous->sa_flags & SA_RESETHAND)
        signal_restore_default(signal, false);
    if (previous->sa_flags & SA_SIGINFO)
        previous->sa_sigaction(signal, info, context);
    else
        previous->sa_handler(signal);
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    /* [CO1] acquire: sees `previous`.  Pairs with [CO2], the release in install(). */
    nio_overflow_lookup *lookup = atomic_load_explicit(&installed.lookup, memory_order_acquire);
    struct nio_overflow_report report;
    if (info->si_code > 0 && lookup(info->si_addr, &report)) {
        report_write(&report, (uintptr_t)info->si_addr, context_sp(context));
        signal_restore_default(signal, false);
    } else {
        chain(signal, info, context);
    }
    errno = saved_errno;
}

static void install(nio_overflow_lookup *lookup)
{
    for (size_t i = 0; i < NIO_ARRAY_LEN(handled_signals); i++)
        (void)sigaction(handled_signals[i], NULL, &installed.previous[i]); /* valid signals */
    /* [CO2] release: the handler, which may run from the next call on, sees `previous`.  Pairs
     * with [CO1], the acquire in on_fault(). */
    atomic_store_explicit(&installed.lookup, lookup, memory_order_release);
    for (size_t i = 0; i < NIO_ARRAY_LEN(handled_signals); i++) {
        const struct sigaction *previous = &installed.previous[i];
        struct sigaction action = { .sa_sigaction = on_fault, .sa_mask = previous->sa_mask };
        action.sa_flags =
            SA_SIGINFO | SA_ONSTACK | (previous->sa_flags & (SA_NODEFER | SA_RESTART));
        (void)sigaction(handled_signals[i], &action, NULL); /* valid signals */
    }
}

int nio_overflow_install(nio_overflow_lookup *lookup)
{
    int ret = 0;
    if (!lookup)
        return nio_error(-EINVAL, "overflow report: no lookup function");
    nio_lock_acquire(&installed.lock);
    /* relaxed: written under this lock only */
    nio_overflow_lookup *present = atomic_load_explicit(&installed.lookup, memory_order_relaxed);
    if (!present)
        install(lookup);
    else if (present != lookup)
        ret = -EBUSY;
    nio_lock_release(&installed.lock);
    if (ret)
        return nio_error(ret, "overflow report: another copy of numio has installed it");
    return 0;
}

int nio_overflow_thread_enter(struct nio_overflow_thread *thread)
{
    stack_t present;
    thread->stack = NULL;
    if (sigaltstack(NULL, &present) == 0 && !(present.ss_flags & SS_DISABLE))
        return 0;
    long frame_bytes = sysconf(_SC_MINSIGSTKSZ); /* grows with the machine's vector registers */
    size_t bytes = HANDLER_STACK_BYTES + (frame_bytes > 0 ? (size_t)frame_bytes : 0);
    void *stack = nio_zalloc(bytes);
    if (!stack)
        return nio_error(-ENOMEM, "overflow report: no memory for a signal stack of %zu bytes",
                         bytes);
    stack_t ours = { .ss_sp = stack, .ss_size = bytes };
    if (sigaltstack(&ours, NULL) != 0) {
        int error = -errno;
        nio_free(stack);
        return nio_error(error, "overflow report: the kernel refuses a signal stack of %zu bytes",
                         bytes);
    }
    thread->stack = stack;
    return 0;
}

void nio_overflow_thread_leave(struct nio_overflow_thread *thread)
{
    stack_t present;
    if (!thread->stack)
        return;
    /* Somebody may have put another in its place; that one stays. */
    if (sigaltstack(NULL, &present) == 0 && present.ss_sp == thread->stack) {
        stack_t none = { .ss_flags = SS_DISABLE };
        (void)sigaltstack(&none, NULL); /* fails only inside a handler on that stack */
    }
    nio_free(thread->stack);
    thread->stack = NULL;
}
