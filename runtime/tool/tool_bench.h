/* SPDX-License-Identifier: MIT */
/* tool_bench.h: `numio bench`: becomes the program that measures.
 *
 * In a source tree (this program in TREE/build/PRESET/bin) that is TREE/scripts/bench.sh, which
 * builds and runs the peers, too; elsewhere it is numio-bench, from beside this program or from
 * where it is installed.  Both are found from where this program lies, so a tree or a prefix may
 * move.  Called by the main thread, while there is no other.
 */
#ifndef NIO_TOOL_BENCH_H
#define NIO_TOOL_BENCH_H

/* `arguments`: argv from the word `bench` on; that word is replaced.
 * Does not return if it works, else returns the exit status, after having said on stderr why. */
int tool_bench(char **arguments);

#endif
