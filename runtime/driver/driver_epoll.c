/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include "runtime/base/error.h"
#include "runtime/driver/driver_impl.h"
int nio_epoll_create(const struct nio_driver_options *options, struct nio_driver **ret_driver)
{
    (void)options; (void)ret_driver;
    return nio_error(-ENOSYS, "epoll profile is not built in");
}
void nio_epoll_destroy(struct nio_driver *driver) { (void)driver; }
void nio_epoll_submit(struct nio_driver *driver, struct numio_op *op) { nio_driver_end(driver, op, -ENOSYS); }
void nio_epoll_cancel(struct nio_driver *driver, struct numio_op *op) { (void)driver; (void)op; }
bool nio_epoll_has_completions(const struct nio_driver *driver) { (void)driver; return false; }
unsigned nio_epoll_reap(struct nio_driver *driver, unsigned max) { return nio_driver_reap_local(driver, max); }
unsigned nio_epoll_in_flight(const struct nio_driver *driver) { (void)driver; return 0; }
void nio_epoll_park(struct nio_driver *driver, int64_t limit_ns) { (void)driver; (void)limit_ns; }
