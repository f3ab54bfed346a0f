/* SPDX-License-Identifier: MIT */
/* Names as addresses: getaddrinfo(3) blocks for as long as the name server does, so it runs on the
 * blocking pool, and whoever waits for it may go.  Request and result belong to both, and the last
 * one frees them; an eventfd tells the waiter, whom a deadline or an abort ends as any other poll.
 */
#include <numio/address.h>

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <numio/io.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/blocking/blocking.h"
#include "runtime/sched/await.h"

enum { HOST_BYTES = 256, SERVICE_BYTES = 32, ADDRESSES_MAX = 32 };

struct request {
    struct nio_blocking_job job;
    _Atomic uint32_t refs;
    _Atomic bool is_done;
    int done_fd; /* an eventfd */
    char host[HOST_BYTES], service[SERVICE_BYTES];
    /* the pool's thread, before it writes to done_fd */
    bool is_refused;  /* the runtime closes, and it was not looked up */
    int error;        /* of getaddrinfo(), 0: none */
    int system_error; /* with EAI_SYSTEM */
    unsigned count;
    struct numio_address addresses[ADDRESSES_MAX];
};

static void drop(struct request *request)
{
    /* [RS1] acq_rel: the last one frees what the other has used.  Pairs with itself. */
    if (atomic_fetch_sub_explicit(&request->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (request->done_fd >= 0)
        (void)close(request->done_fd); /* nothing to lose */
    nio_free(request);
}

static void look_up(struct request *request)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    struct addrinfo *all = NULL;
    request->error = getaddrinfo(request->host[0] ? request->host : NULL,
                                 request->service[0] ? request->service : NULL, &hints, &all);
    request->system_error = errno;
    for (const struct addrinfo *at = all; at && request->count < ADDRESSES_MAX; at = at->ai_next) {
        struct numio_address *address = &request->addresses[request->count];
        if (at->ai_addrlen > sizeof address->storage)
            continue;
        memcpy(&address->storage, at->ai_addr, at->ai_addrlen);
        address->bytes = at->ai_addrlen;
        request->count++;
    }
    if (all)
        freeaddrinfo(all);
}

static void run_look_up(struct nio_blocking_job *job, bool is_cancelled)
{
    struct request *request = NIO_CONTAINER_OF(job, struct request, job);
    request->is_refused = is_cancelled;
    if (!is_cancelled)
        look_up(request);
    /* [RS2] release: publishes the result.  Pairs with [RS3]. */
    atomic_store_explicit(&request->is_done, true, memory_order_release);
    (void)eventfd_write(request->done_fd, 1); /* fails only at 2^64 */
    drop(request);                            /* [RS1] the waiter may have gone */
}

static int error_of(const struct request *request)
{
    int error = -EIO;
    switch (request->error) {
    case EAI_NONAME:
    case EAI_NODATA:
    case EAI_ADDRFAMILY:
    case EAI_SERVICE:
        error = -ENOENT;
        break;
    case EAI_AGAIN:
        error = -EAGAIN;
        break;
    case EAI_MEMORY:
        error = -ENOMEM;
        break;
    case EAI_SYSTEM:
        error = request->system_error ? -request->system_error : -EIO;
        break;
    default:
        break;
    }
    return nio_error(error, "resolve: %.80s: %s", request->host, gai_strerror(request->error));
}

/* With a reference for the pool and one for the caller; NULL: no memory or descriptor. */
static struct request *make_request(const char *host, const char *service)
{
    struct request *request = nio_zalloc(sizeof *request);
    if (!request)
        return NULL;
    request->done_fd = nio_fault_now() ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (request->done_fd < 0) {
        nio_free(request);
        return NULL;
    }
    atomic_init(&request->refs, 2);
    atomic_init(&request->is_done, false);
    request->job.run = run_look_up;
    (void)snprintf(request->host, HOST_BYTES, "%s", host);          /* checked to fit */
    (void)snprintf(request->service, SERVICE_BYTES, "%s", service); /* likewise */
    return request;
}

int64_t numio_resolve(const char *host, const char *service, struct numio_address *ret_addresses,
                      unsigned max)
{
    const struct nio_co *co = nio_co_current();
    if (!co)
        return nio_error(-EINVAL, "resolve: not called from a coroutine");
    if (strlen(host ? host : "") >= HOST_BYTES || strlen(service ? service : "") >= SERVICE_BYTES)
        return nio_error(-EINVAL, "resolve: the name is too long");
    int stop = nio_co_stop(co);
    if (stop)
        return stop;
    struct request *request = make_request(host ? host : "", service ? service : "");
    if (!request)
        return nio_error(-ENOMEM, "resolve: no memory, or no descriptor");
    const struct nio_worker *worker = nio_worker_current();
    int64_t rc = nio_blocking_submit(worker->handle->blocking, worker->node->index, &request->job);
    if (rc < 0) {
        drop(request); /* the pool's */
        drop(request);
        return rc;
    }
    rc = numio_poll_fd(request->done_fd, POLLIN);
    /* [RS3] acquire: sees the result.  Pairs with [RS2]. */
    if (rc >= 0 &&
        (!atomic_load_explicit(&request->is_done, memory_order_acquire) || request->is_refused))
        rc = -ECANCELED;
    if (rc < 0) {
        drop(request);
        return rc;
    }
    rc = request->error ? error_of(request) : 0;
    for (unsigned i = 0; rc >= 0 && i < request->count && (unsigned)rc < max; i++)
        ret_addresses[rc++] = request->addresses[i];
    drop(request);
    return rc;
}
