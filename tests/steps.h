/* SPDX-License-Identifier: MIT */
/* tests/steps.h: steps of a task, which cannot assert: only the test's own thread may.  A task
 * returns the number of the first line that went wrong, 0 if none did.
 * Test programs only.
 */
#ifndef TESTS_STEPS_H
#define TESTS_STEPS_H

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return __LINE__;                                                                       \
    } while (0)

#endif
