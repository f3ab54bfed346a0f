/* SPDX-License-Identifier: MIT */
/* config_check.h: turns what the user asked for into a configuration without gaps.  Start-up only.
 */
#ifndef NIO_CONFIG_CHECK_H
#define NIO_CONFIG_CHECK_H

#include <numio/config.h>

/* Replaces zeroes by the defaults and checks every field.
 * Errors: -EINVAL, the detail names the field, its value and what it may be. */
int nio_config_complete(struct numio_config *config);

#endif
