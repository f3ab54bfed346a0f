#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_model.sh BIN: the model holds what any model must, and prints its table.
set -u
"$1/numio-model" --check || exit 1
lines=$("$1/numio-model" --nodes 2 --cores 4 | awk 'NF == 7' | wc -l)
if [ "$lines" -ne 28 ]; then # 3 loads x 3 policies x 3 numbers of cores, and the heading
    echo "run_model: $lines lines in the table instead of 28" >&2
    exit 1
fi
if "$1/numio-model" --nodes 9 2>/dev/null; then
    echo "run_model: nine nodes are not refused" >&2
    exit 1
fi
if [ "$("$1/numio-model" --machines | wc -l)" -lt 3 ] ||
    "$1/numio-model" --machine abacus 2>/dev/null ||
    ! "$1/numio-model" --machine milan --nodes 8 --cores 1 | grep -q '^balanced numio 8 8 '; then
    echo "run_model: --machine does not do what it says" >&2
    exit 1
fi
echo "run_model: all as it should be"
