/* SPDX-License-Identifier: MIT */
/* Waiting for a cancel token; the token itself is task/token.c, since the loop needs it, too. */
#include <numio/cancel.h>

#include "runtime/sched/await.h"
#include "runtime/sched/wait_await.h"

int numio_cancel_token_wait(struct numio_cancel_token *token)
{
    struct numio_op op;
    nio_charge();
    if (numio_cancel_token_is_cancelled(token))
        return 0;
    numio_op_cancelled(&op, token);
    return nio_wait_await(&op);
}
