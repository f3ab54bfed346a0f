/* SPDX-License-Identifier: MIT */
/* Step "serve": a server on the first node sends the file over TCP to one client per node; server,
 * connections and clients are coroutines.  Each client hashes what it receives.
 * On the wire: the file's length in eight bytes, the lowest first, then its contents. */
#include "runtime/tool/tour.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <numio/io.h>

enum { CLIENTS_MAX = 8, BUFFER_BYTES = 64 << 10, LENGTH_BYTES = 8, ADDRESS_BYTES = 32 };

struct connection {
    struct tour *tour;
    int fd;
};

struct client {
    struct tour *tour;
    const char *address;
    uint64_t received;
    char digest[TOOL_SHA256_TEXT_BYTES];
};

struct service {
    struct tour *tour;
    int listen_fd;
    unsigned client_count;
    char address[ADDRESS_BYTES];
    struct client clients[CLIENTS_MAX];
    struct connection connections[CLIENTS_MAX];
    struct numio_join *connection_joins[CLIENTS_MAX];
    struct numio_join *joins[CLIENTS_MAX + 1]; /* the clients, then the server */
};

/* The length, then the file, through one buffer. */
static int64_t send_file(const struct connection *connection, int file, unsigned char *buf)
{
    uint64_t bytes = connection->tour->file.bytes;
    for (unsigned i = 0; i < LENGTH_BYTES; i++)
        buf[i] = (unsigned char)(bytes >> 8 * i);
    int64_t status = numio_send_all(connection->fd, buf, LENGTH_BYTES, MSG_NOSIGNAL);
    for (uint64_t at = 0; at < bytes && status >= 0;) {
        uint64_t left = bytes - at;
        size_t want = left < BUFFER_BYTES ? (size_t)left : BUFFER_BYTES;
        int64_t got = numio_pread(file, buf, want, (int64_t)at);
        if (got <= 0)
            return got < 0 ? got : -ENODATA;
        status = numio_send_all(connection->fd, buf, (size_t)got, MSG_NOSIGNAL);
        at += (uint64_t)got;
    }
    return status < 0 ? status : numio_shutdown(connection->fd, SHUT_WR);
}

static int64_t serve_connection(void *arg)
{
    const struct connection *connection = arg;
    struct tour_buffer buffer = tour_buffer_alloc(BUFFER_BYTES);
    int64_t file = -ENOMEM, status = -ENOMEM;
    if (buffer.bytes)
        file = status = numio_open(connection->tour->file.path, O_RDONLY | O_CLOEXEC, 0);
    if (file >= 0) {
        status = send_file(connection, (int)file, buffer.bytes);
        (void)numio_close((int)file); /* it was only read */
    }
    (void)numio_close(connection->fd); /* the client judges what arrived */
    tour_buffer_free(&buffer);
    return status;
}

/* Accepts each client, then waits for the connections to end. */
static int64_t serve(void *arg)
{
    struct service *service = arg;
    int64_t status = 0;
    unsigned count = 0;
    while (count < service->client_count && status >= 0) {
        int64_t fd = numio_accept(service->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            status = fd;
            break;
        }
        service->connections[count] = (struct connection){ service->tour, (int)fd };
        status = numio_spawn_co(NULL, serve_connection, &service->connections[count], NULL,
                                &service->connection_joins[count]);
        if (status < 0)
            (void)numio_close((int)fd); /* the error that matters is the spawn's */
        else
            count++;
    }
    for (unsigned i = 0; i < count; i++) {
        int64_t result = numio_join_await(&service->connection_joins[i]);
        if (result < 0 && status >= 0)
            status = result;
        if (!service->connection_joins[i])
            continue;
        numio_join_abort(service->connection_joins[i]); /* this task was aborted: so is that one */
        numio_join_detach(&service->connection_joins[i]);
    }
    return status;
}

/* Receives until the end; returns 0 when the announced length has come. */
static int64_t receive_file(struct client *client, int fd, unsigned char *buf)
{
    struct tool_sha256 sha;
    uint64_t announced = 0;
    tool_sha256_init(&sha);
    int64_t got = numio_recv_all(fd, buf, LENGTH_BYTES, 0);
    if (got != LENGTH_BYTES)
        return got < 0 ? got : -EPROTO;
    for (unsigned i = 0; i < LENGTH_BYTES; i++)
        announced |= (uint64_t)buf[i] << 8 * i;
    while ((got = numio_recv(fd, buf, BUFFER_BYTES, 0)) > 0) {
        tool_sha256_add(&sha, buf, (size_t)got);
        client->received += (uint64_t)got;
        tour_progress(client->tour, (uint64_t)got);
    }
    tool_sha256_finish(&sha, client->digest);
    if (got < 0)
        return got;
    return client->received == announced ? 0 : -EPROTO;
}

static int64_t run_client(void *arg)
{
    struct client *client = arg;
    struct tour_buffer buffer = tour_buffer_alloc(BUFFER_BYTES);
    int64_t status = -ENOMEM;
    if (buffer.bytes) {
        int64_t fd = numio_tcp_connect(client->address);
        status = fd < 0 ? fd : receive_file(client, (int)fd, buffer.bytes);
        if (fd >= 0)
            (void)numio_close((int)fd); /* everything has been received */
    }
    tour_buffer_free(&buffer);
    return status;
}

/* Listens on a free port of the loopback. */
static int start_listening(struct service *service)
{
    struct sockaddr_in address = { 0 };
    socklen_t length = sizeof address;
    int fd = numio_tcp_listen("127.0.0.1:0", CLIENTS_MAX);
    if (fd < 0)
        return fd;
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    (void)snprintf(service->address, sizeof service->address, "127.0.0.1:%u", /* fits */
                   (unsigned)ntohs(address.sin_port));
    service->listen_fd = fd;
    return 0;
}

static void check_clients(struct tour *tour, const struct service *service, const int64_t *results)
{
    for (unsigned i = 0; i <= service->client_count; i++) {
        const char *who = i < service->client_count ? "client" : "server";
        if (results[i] < 0)
            tour_wrong(tour, "%s %u: %s", who, i, strerror((int)-results[i]));
    }
    for (unsigned i = 0; i < service->client_count; i++) {
        const struct client *client = &service->clients[i];
        if (client->received != tour->file.bytes)
            tour_wrong(tour, "client %u got %llu of %llu bytes", i,
                       (unsigned long long)client->received, (unsigned long long)tour->file.bytes);
        else if (strcmp(client->digest, tour->file.digest) != 0)
            tour_wrong(tour, "client %u got other bytes: SHA-256 %.16s...", i, client->digest);
    }
}

void tour_serve(struct tour *tour)
{
    unsigned nodes = tour->machine.status.nodes;
    char bytes[TOOL_NUMBER_BYTES], rate[TOOL_NUMBER_BYTES];
    int64_t results[CLIENTS_MAX + 1] = { 0 };
    if (tour->file.bytes == 0)
        return;
    struct service *service = tour_alloc(tour, sizeof *service);
    unsigned count = nodes < CLIENTS_MAX ? nodes : CLIENTS_MAX;
    uint64_t total = tour->file.bytes * count;
    tour_begin(tour, "serve", "bytes", total);
    int err = service ? start_listening(service) : -ENOMEM;
    if (err < 0) {
        tour_wrong(tour, "listening on 127.0.0.1: %s", strerror(-err));
        tour_end(tour, "not run");
        return;
    }
    service->tour = tour;
    service->client_count = count;
    uint64_t start_ns = tour_now_ns();
    (void)tour_spawn(tour, 0, serve, service, &service->joins[count]); /* noted if it fails */
    for (unsigned i = 0; i < count; i++) {
        service->clients[i] = (struct client){ .tour = tour, .address = service->address };
        (void)tour_spawn(tour, nodes - 1 - i, run_client, &service->clients[i], /* as above */
                         &service->joins[i]);
    }
    err = tour_join(tour, service->joins, results, count + 1);
    uint64_t time_ns = tour_now_ns() - start_ns;
    close(service->listen_fd);
    if (err == 0)
        check_clients(tour, service, results);
    bool is_right = err == 0 && tour->wrong_count == tour->step_wrong;
    if (!is_right)
        tour_end(tour, err == -EINTR ? "interrupted" : "did not arrive as it was sent");
    else
        tour_end(tour, "%s over TCP to %u client%s, %s/s, SHA-256 agrees", tool_bytes(bytes, total),
                 count, count == 1 ? "" : "s",
                 tool_bytes(rate, (uint64_t)((double)total * 1e9 / (double)(time_ns + 1))));
}
