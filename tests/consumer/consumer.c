/* SPDX-License-Identifier: MIT */
/* Built outside the tree against the installed headers and library: exits 0 when the library
 * links, runs and is of the version that its headers state.
 */
#include <stdio.h>
#include <string.h>

#include <numio/base.h>
#include <numio/error.h>

int main(void)
{
    if (strcmp(numio_strerror_detail(), "") != 0) {
        (void)fprintf(stderr, "consumer: an error before the first call\n");
        return 1;
    }
    return printf("consumer: numio %s\n", NUMIO_VERSION) < 0;
}
