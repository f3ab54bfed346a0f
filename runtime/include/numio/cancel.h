/* SPDX-License-Identifier: MIT */
/* numio/cancel.h: tokens by which work is told to end, in a tree: cancelling one cancels all below
 * it, and none above or beside it.
 *
 * A token is asked (numio_cancel_token_is_cancelled(), one load), waited for, also in a selection,
 * or given to a spawn: then the task is aborted when the token is cancelled.  Tokens are counted by
 * references; a child holds one to its parent, so they may be let go of in any order.
 */
#ifndef NUMIO_CANCEL_H
#define NUMIO_CANCEL_H

#include <numio/wait.h>

NUMIO_BEGIN_DECLS

struct numio_cancel_token;

/* A token below `parent`, or the root of a tree with NULL.  Below a cancelled one it is cancelled
 * from the start.
 * Context: any; never suspends.   Owns: *ret_token is the caller's, to unref.   Errors: -ENOMEM. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_cancel_token_create(struct numio_cancel_token *parent,
                                                           struct numio_cancel_token **ret_token);
NUMIO_EXPORT struct numio_cancel_token *numio_cancel_token_ref(struct numio_cancel_token *token);
/* Takes NULL.  Letting go of a token does not cancel it. */
NUMIO_EXPORT void numio_cancel_token_unref(struct numio_cancel_token *token);

/* Cancels the token and all below it: who waits for one goes on, tasks that were spawned with one
 * are aborted.  It cannot be undone; a second time does nothing.
 * Context: any; never suspends.  When it returns the whole tree below is cancelled, but for parts
 *          that another thread is cancelling at the same time. */
NUMIO_EXPORT void numio_cancel_token_cancel(struct numio_cancel_token *token);

/* One load; who sees true sees what the canceller did before.   Context: any. */
NUMIO_EXPORT bool numio_cancel_token_is_cancelled(const struct numio_cancel_token *token);

/* Waits until the token is cancelled.
 * Context: a coroutine suspends, a plain thread sleeps.   Returns: 0.
 * Errors:  -ECANCELED the caller was aborted; -ETIMEDOUT; -EDEADLK would block a worker. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_cancel_token_wait(struct numio_cancel_token *token);
/* Prepares an operation that ends with 0 when the token is cancelled; it holds no reference. */
NUMIO_EXPORT void numio_op_cancelled(struct numio_op *op, struct numio_cancel_token *token);

NUMIO_END_DECLS

#endif
