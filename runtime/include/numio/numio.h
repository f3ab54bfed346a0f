/* SPDX-License-Identifier: MIT */
/* numio/numio.h: all of numio's public interface.  Including it has no cost beyond compile time;
 * each part can be included alone.
 */
#ifndef NUMIO_NUMIO_H
#define NUMIO_NUMIO_H

#include <numio/address.h>
#include <numio/arena.h>
#include <numio/base.h>
#include <numio/batch.h>
#include <numio/bufio.h>
#include <numio/busy_poll.h>
#include <numio/cancel.h>
#include <numio/channel.h>
#include <numio/config.h>
#include <numio/deadline.h>
#include <numio/direct.h>
#include <numio/error.h>
#include <numio/fs.h>
#include <numio/io.h>
#include <numio/local.h>
#include <numio/net.h>
#include <numio/op.h>
#include <numio/parallel.h>
#include <numio/pipe.h>
#include <numio/process.h>
#include <numio/runtime.h>
#include <numio/scope.h>
#include <numio/select.h>
#include <numio/signal.h>
#include <numio/stream.h>
#include <numio/sync.h>
#include <numio/task.h>
#include <numio/tcp.h>
#include <numio/time.h>
#include <numio/topology.h>
#include <numio/udp.h>
#include <numio/unix.h>
#include <numio/wait.h>
#include <numio/xdp.h>

#endif
