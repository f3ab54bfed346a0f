/* SPDX-License-Identifier: MIT */
/* The design note stands in token.h. */
#include "runtime/task/token.h"

#include <errno.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"

static void acquire(struct numio_cancel_token *token)
{
    nio_wait_queue_acquire(&token->waits);
}

static void release(struct numio_cancel_token *token)
{
    nio_wait_queue_release(&token->waits);
}

bool numio_cancel_token_is_cancelled(const struct numio_cancel_token *token)
{
    /* [CT1] acquire: what the canceller did before.  Pairs with [CT2]. */
    return atomic_load_explicit(&token->is_cancelled, memory_order_acquire) != 0;
}

/* True: the caller has set it, and does the rest. */
static bool set_cancelled(struct numio_cancel_token *token)
{
    uint32_t no = 0;
    /* [CT2] acq_rel: publishes what the canceller did before, also to who finds it set and goes on.
     * Pairs with [CT1] and itself. */
    return atomic_compare_exchange_strong_explicit(&token->is_cancelled, &no, 1,
                                                   memory_order_acq_rel, memory_order_acquire);
}

/* ---- references ---------------------------------------------------------------------------- */

struct numio_cancel_token *numio_cancel_token_ref(struct numio_cancel_token *token)
{
    /* relaxed: the caller holds a reference already, a new one publishes nothing */
    (void)atomic_fetch_add_explicit(&token->refs, 1, memory_order_relaxed);
    return token;
}

/* Of one that may have lost its last reference.  False: it has. */
static bool try_ref(struct numio_cancel_token *token)
{
    /* relaxed: the CAS below re-reads it */
    uint64_t refs = atomic_load_explicit(&token->refs, memory_order_relaxed);
    do {
        if (refs == 0)
            return false;
        /* relaxed: as in numio_cancel_token_ref(); the lock keeps the memory there */
    } while (!atomic_compare_exchange_weak_explicit(&token->refs, &refs, refs + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static bool drop(struct numio_cancel_token *token)
{
    /* [CT3] acq_rel: who frees it sees what the other holders did with it.  Pairs with
     * [CT3], the same of theirs. */
    return atomic_fetch_sub_explicit(&token->refs, 1, memory_order_acq_rel) == 1;
}

static void unlink_child(struct numio_cancel_token *parent, struct numio_cancel_token *child)
{
    acquire(parent);
    if (child->prev)
        child->prev->next = child->next;
    else
        parent->children = child->next;
    if (child->next)
        child->next->prev = child->prev;
    release(parent);
}

void numio_cancel_token_unref(struct numio_cancel_token *token)
{
    while (token && drop(token)) { /* then its parent's, up to the root */
        struct numio_cancel_token *parent = token->parent;
        if (parent)
            unlink_child(parent, token);
        nio_free(token);
        token = parent;
    }
}

int numio_cancel_token_create(struct numio_cancel_token *parent,
                              struct numio_cancel_token **ret_token)
{
    struct numio_cancel_token *token = nio_zalloc(sizeof *token);
    if (!token)
        return nio_error(-ENOMEM, "cancel token: no memory");
    atomic_init(&token->refs, 1);
    token->parent = parent;
    *ret_token = token;
    if (!parent)
        return 0;
    (void)numio_cancel_token_ref(parent); /* the child's */
    acquire(parent);
    token->next = parent->children;
    if (token->next)
        token->next->prev = token;
    parent->children = token;
    if (numio_cancel_token_is_cancelled(parent))
        (void)set_cancelled(token); /* nobody waits for it yet */
    release(parent);
    return 0;
}

/* ---- cancelling ---------------------------------------------------------------------------- */

/* Under the lock: children that nobody has cancelled yet go to the list of work.  One without
 * references stays behind: nobody waits for it, and it has no children. */
static struct numio_cancel_token *take_children(struct numio_cancel_token *token,
                                                struct numio_cancel_token *work)
{
    for (struct numio_cancel_token *child = token->children; child; child = child->next) {
        if (!set_cancelled(child) || !try_ref(child))
            continue;
        child->work_next = work;
        work = child;
    }
    return work;
}

/* The caller has set is_cancelled.  Returns the list of work with the token's children. */
static struct numio_cancel_token *end_waits(struct numio_cancel_token *token,
                                            struct numio_cancel_token *work)
{
    struct nio_wait_list ended = { 0 };
    struct nio_wake_list woken = { 0 };
    acquire(token);
    nio_wait_take_all(&token->waits, &ended, 0);
    for (struct nio_token_watch *watch = token->watches; watch; watch = watch->next)
        nio_wake_list_cancel(&woken, watch->task); /* it leaves by this lock before it completes */
    work = take_children(token, work);
    release(token);
    nio_wait_list_done(&ended);
    nio_wake_list_done(&woken);
    return work;
}

void numio_cancel_token_cancel(struct numio_cancel_token *token)
{
    if (!set_cancelled(token))
        return;
    struct numio_cancel_token *work = numio_cancel_token_ref(token);
    work->work_next = NULL;
    while (work) { /* once for each token of the tree */
        struct numio_cancel_token *next = work;
        work = end_waits(next, next->work_next);
        numio_cancel_token_unref(next);
    }
}

/* ---- waits and watches --------------------------------------------------------------------- */

static bool cancelled_begin(struct numio_op *op, int32_t *ret_result)
{
    struct numio_cancel_token *token = nio_wait_object(op);
    acquire(token);
    bool has_ended = numio_cancel_token_is_cancelled(token);
    if (!has_ended)
        nio_wait_push(&token->waits, op);
    release(token);
    *ret_result = has_ended && nio_wait_claim(op) ? 0 : -ECANCELED;
    return has_ended;
}

static bool cancelled_leave(struct numio_op *op)
{
    struct numio_cancel_token *token = nio_wait_object(op);
    acquire(token);
    bool is_mine = nio_wait_remove(&token->waits, op);
    release(token);
    return is_mine;
}

static const struct nio_wait_class cancelled_kind = { cancelled_begin, cancelled_leave, NULL };

void numio_op_cancelled(struct numio_op *op, struct numio_cancel_token *token)
{
    nio_wait_prep(op, &cancelled_kind, token, 0);
}

void nio_token_watch(struct nio_token_watch *watch, struct numio_cancel_token *token,
                     struct nio_task *task)
{
    watch->token = numio_cancel_token_ref(token);
    watch->task = task;
    watch->prev = NULL;
    acquire(token);
    watch->next = token->watches;
    if (watch->next)
        watch->next->prev = watch;
    token->watches = watch;
    if (numio_cancel_token_is_cancelled(token))
        nio_wake_act(task, nio_state_cancel(task)); /* the caller is about to queue it */
    release(token);
}

void nio_token_unwatch(struct nio_token_watch *watch)
{
    struct numio_cancel_token *token = watch->token;
    if (!token)
        return;
    watch->token = NULL;
    acquire(token);
    if (watch->prev)
        watch->prev->next = watch->next;
    else
        token->watches = watch->next;
    if (watch->next)
        watch->next->prev = watch->prev;
    release(token);
    numio_cancel_token_unref(token);
}
